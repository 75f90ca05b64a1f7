"""One example for every action of every fault point: TOML tables that tests play and `docs/faults.md` shows.

They lie in `lab/fault_examples/<domain>.toml`. An example says what is done before the fault is set, the fault, what
then provokes it, and the event that proves its effect.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Any, Final

from pydantic import Field, model_validator

from cucm.errors import UsageError
from cucm.events import EventRecord
from cucm.faults import fault_of
from cucm.faults.rules import FaultTable
from lab.operations import AnyOperation
from lab.toml_files import read_toml
from lab.topology import Table, packaged

FOLDER: Final = "fault_examples"

Steps = tuple[AnyOperation, ...]


class ShownEvent(Table):
    """The event that proves the effect: `source` is a pattern, as are the texts among `fields`."""

    kind: str
    source: str = "*"
    fields: dict[str, Any] = Field(default_factory=dict)

    def is_shown_by(self, record: EventRecord) -> bool:
        """Whether this is such an event; a field that the event lacks is none."""
        if record.event.kind != self.kind or not fnmatchcase(record.source, self.source):
            return False
        told = record.as_json()
        return all(name in told and _fits(wanted, told[name]) for name, wanted in self.fields.items())


def _fits(wanted: Any, value: Any) -> bool:
    if isinstance(wanted, Mapping) and isinstance(value, Mapping):
        return all(name in value and _fits(one, value[name]) for name, one in wanted.items())
    if isinstance(wanted, str):
        return isinstance(value, str) and fnmatchcase(value, wanted)
    return bool(wanted == value)


class FaultExample(Table):
    """`says` is its line in `docs/faults.md`; `fault` all of the rule but point and action.

    `fails`: a part of the error with which one of the `steps` ends because of the fault; the later ones are not
    performed then. Without it every step has to succeed, as a phone's boot does whatever becomes of it.
    """

    point: str
    action: str
    says: Annotated[str, Field(min_length=1, max_length=300)]
    topology: str = "two-clusters"
    before: Steps = ()
    fault: dict[str, Any] = Field(default_factory=dict)
    steps: Steps = ()
    fails: str = ""
    shows: ShownEvent

    @model_validator(mode="after")
    def _fault_is_one(self) -> FaultExample:
        try:
            fault_of(self.rule)
        except UsageError as error:
            raise ValueError(f"{error}; {error.mend}" if error.mend else str(error)) from None
        return self

    @property
    def rule(self) -> dict[str, Any]:
        """The fault as a user writes it in JSON."""
        return {"point": self.point, "action": self.action, **self.fault}

    @property
    def table(self) -> FaultTable:
        return fault_of(self.rule).table


class ExampleFile(Table):
    """`prepared` names lists of operations, so that `before` may be such a name instead of a list."""

    prepared: dict[str, Steps] = Field(default_factory=dict)
    example: Annotated[tuple[FaultExample, ...], Field(min_length=1)]

    @model_validator(mode="before")
    @classmethod
    def _put_in_what_is_prepared(cls, data: Any) -> Any:
        if not isinstance(data, dict) or not isinstance(data.get("example"), list):
            return data
        prepared = data.get("prepared", {})
        return data | {"example": [_with_prepared(example, prepared) for example in data["example"]]}


def _with_prepared(example: Any, prepared: Mapping[str, Any]) -> Any:
    if not isinstance(example, dict) or not isinstance(name := example.get("before"), str):
        return example
    if name not in prepared:
        raise ValueError(f"`before` names {name!r}; prepared are: {', '.join(prepared) or 'none'}")
    return example | {"before": prepared[name]}


def fault_examples() -> list[FaultExample]:
    """All packaged examples, file by file. Raises UsageError for a file that is not as it should be."""
    return [example for path in packaged(FOLDER).values() for example in read_toml(path, ExampleFile).example]
