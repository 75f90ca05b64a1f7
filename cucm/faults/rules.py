"""One fault: a rule that says where, what, for whom and how often."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import translate
from functools import lru_cache
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cucm.errors import UsageError
from cucm.faults.catalogue import fault_point
from cucm.faults.points import Action, FaultPoint
from cucm.records import dataclass
from cucm.validation_words import told_of

MAX_COUNT: Final = 1_000_000_000
MAX_PATTERN: Final = 256
"""Characters of a pattern; more than the longest name there is to match."""

Pattern = Annotated[str, Field(min_length=1, max_length=MAX_PATTERN)]


class FaultTable(BaseModel):
    """A fault as users write it: in TOML, JSON or words. `fault_of` looks its names up in the catalogue."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, coerce_numbers_to_str=True, defer_build=True
    )

    id: Annotated[str, Field(pattern=r"^([A-Za-z0-9._-]{1,64})?$", description="its name; made up when left out")] = ""
    point: Annotated[str, Field(max_length=64, description="where, as `cucm-lab fault points` names it")]
    action: Annotated[str, Field(max_length=64, description="what goes wrong there")]
    match: Annotated[dict[str, Pattern], Field(description="by field: a text, or a pattern with * and ?")] = Field(
        default_factory=dict
    )
    skip: Annotated[int, Field(ge=0, le=MAX_COUNT, description="let so many matching requests pass first")] = 0
    times: Annotated[int | None, Field(ge=1, le=MAX_COUNT, description="fire so often at most; default always")] = None
    every: Annotated[int, Field(ge=1, le=MAX_COUNT, description="fire at every k-th matching request")] = 1
    probability: Annotated[
        float | None, Field(gt=0, le=1, allow_inf_nan=False, description="fire with this chance; needs a seed")
    ] = None
    seed: Annotated[int | None, Field(ge=0, lt=2**63, description="makes the chances the same in every run")] = None
    must_fire: Annotated[bool, Field(description="to end without a hit fails the story or test")] = False
    attributes: Annotated[dict[str, Any], Field(description="of the action, where other than its defaults")] = Field(
        default_factory=dict
    )

    @model_validator(mode="after")
    def _chance_is_seeded(self) -> FaultTable:
        if (self.probability is None) != (self.seed is None):
            raise ValueError("`probability` and `seed` go together: nothing is random unless it can be repeated")
        return self

    @property
    def counts(self) -> bool:
        """Whether it picks among requests."""
        return bool(self.skip or self.times or self.every > 1 or self.probability)


@dataclass(frozen=True, slots=True)
class Fault:
    """A checked rule. `table` is what the user wrote (with its id), `action` what happens when it fires."""

    table: FaultTable
    point: FaultPoint
    action: Action

    @property
    def id(self) -> str:
        return self.table.id

    def matches(self, request: Mapping[str, str]) -> bool:
        """Whether every field the rule names has a value that its pattern covers."""
        return all(
            (value := request.get(name)) is not None and _pattern(pattern).match(value) is not None
            for name, pattern in self.table.match.items()
        )

    def as_json(self) -> dict[str, Any]:
        return self.table.model_dump(mode="json") | {"attributes": self.action.model_dump(mode="json")}


def fault_of(value: Mapping[str, Any] | FaultTable) -> Fault:
    """Check a fault as written. Raises UsageError that names the field, what is wrong and what may stand there."""
    table = value if isinstance(value, FaultTable) else _table(value)
    point = fault_point(table.point)
    where = f"fault {table.id or 'without an id'}, point {point.name}"
    unknown = sorted(set(table.match) - set(point.match))
    if unknown:
        known = ", ".join(point.match) or "nothing"
        raise UsageError(f"`match` has no field {unknown[0]!r} here", where=where, mend=f"it may look at {known}")
    if point.is_state and table.counts:
        raise UsageError(
            "`skip`, `times`, `every` and `probability` choose among requests, and this point is a state",
            where=where,
            mend="leave them out: it holds from when it is set until it ends",
        )
    return Fault(table, point, point.action(table.action).of(table.attributes))


def _table(value: Mapping[str, Any]) -> FaultTable:
    try:
        return FaultTable.model_validate(value)
    except ValidationError as error:
        mend = 'for example {"point": "tvs.response", "action": "drop"}'
        told = told_of(error, list(FaultTable.model_fields), whole="the fault")
        raise UsageError(told, where="fault", mend=mend) from None


@lru_cache(maxsize=1024)
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(translate(text))
