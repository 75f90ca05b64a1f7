"""What a fault point and an action are; the catalogue is made of these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Any, ClassVar, Final, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cucm.errors import UsageError
from cucm.records import dataclass
from cucm.validation_words import nearest, told_of

MAX_DELAY_S: Final = 600.0

Seconds = Annotated[float, Field(ge=0, le=MAX_DELAY_S, allow_inf_nan=False)]


class Action(BaseModel):
    """Base of all actions: what goes wrong at a point.

    A subclass is one action: `name` in the imperative (`truncate`), its docstring tells the user what it does, its
    fields are the attributes with their bounds. A value out of bounds is refused, never clipped.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, defer_build=True)

    name: ClassVar[str]

    @classmethod
    def describe(cls) -> str:
        """Its docstring as one line."""
        return " ".join((cls.__doc__ or "").split())

    @classmethod
    def of(cls, attributes: Mapping[str, Any]) -> Self:
        """Raises UsageError that names the attribute and its bounds."""
        try:
            return cls.model_validate(dict(attributes))
        except ValidationError as error:
            told = told_of(error, list(cls.model_fields), whole="the attributes")
            raise UsageError(told, where=f"action {cls.name}", mend=cls._usage()) from None

    @classmethod
    def _usage(cls) -> str:
        if not cls.model_fields:
            return "it takes no attributes"
        return f"its attributes are {', '.join(cls.model_fields)}; `cucm-lab fault points` explains them"


@dataclass(frozen=True, slots=True)
class FaultPoint:
    """A place at which something can go wrong.

    `match` names what a rule may look at there, with what each is. At a point of requests every request is asked about;
    a state (`is_state`) holds from when the fault is set until it ends.
    """

    name: str
    description: str
    actions: tuple[type[Action], ...]
    match: Mapping[str, str] = field(default_factory=dict)
    is_state: bool = False

    def action(self, name: str) -> type[Action]:
        """Raises UsageError with the actions there are."""
        for action in self.actions:
            if action.name == name:
                return action
        known = [action.name for action in self.actions]
        mend = nearest(name, known, most=len(known))
        raise UsageError(f"there is no action {name!r} at {self.name}", mend=mend)

    def as_json(self) -> dict[str, Any]:
        """Attributes as a JSON schema."""
        return {
            "name": self.name,
            "description": self.description,
            "kind": "state" if self.is_state else "request",
            "match": dict(self.match),
            "actions": [
                {"name": action.name, "description": action.describe(), "attributes": action.model_json_schema()}
                for action in self.actions
            ],
        }
