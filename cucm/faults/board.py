"""The rules in force: which one hits a request, and how often each has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import field, replace
from random import Random
from typing import Any, Final, Protocol

from cucm.errors import FaultIdTaken, LimitExceeded, UsageError
from cucm.events import Emit, ignore
from cucm.events.faults import FaultEnded, FaultFired, FaultSet
from cucm.faults.points import Action, FaultPoint
from cucm.faults.rules import Fault
from cucm.records import dataclass

MAX_FAULTS: Final = 256


class FaultSource(Protocol):
    """What a service is given."""

    def fire(self, point: FaultPoint, **request: str | int) -> Action | None:
        """What goes wrong with this request (fields of `point.match`); as good as always None: nothing."""

    def watches(self, point: FaultPoint) -> bool:
        """Whether any rule is for this point: a cheap question for paths that are too hot to describe each request."""

    def at(self, **fields: str) -> FaultSource:
        """The same with these fields in every request: where a service runs."""


class _NoFaults:
    def fire(self, point: FaultPoint, **request: str | int) -> Action | None:  # noqa: ARG002
        return None

    def watches(self, point: FaultPoint) -> bool:  # noqa: ARG002
        return False

    def at(self, **fields: str) -> FaultSource:  # noqa: ARG002
        return self


NO_FAULTS: Final[FaultSource] = _NoFaults()


@dataclass(slots=True)
class _Rule:
    """A fault with its counts: `seen` requests matched, `hits` were hit."""

    fault: Fault
    chances: Random
    seen: int = 0
    hits: int = 0

    def is_due(self) -> bool:
        """Whether the request that matches now is one of those it picks; counts it."""
        self.seen += 1
        table = self.fault.table
        if self.seen <= table.skip or (table.times is not None and self.hits >= table.times):
            return False
        if (self.seen - table.skip) % table.every:
            return False
        return table.probability is None or self.chances.random() < table.probability


@dataclass(frozen=True, slots=True)
class FaultStatus:
    """A fault and what became of it so far."""

    fault: Fault
    seen: int
    hits: int

    @property
    def is_missed(self) -> bool:
        """It should have fired and has not."""
        return self.fault.table.must_fire and not self.hits

    def as_json(self) -> dict[str, Any]:
        return self.fault.as_json() | {"seen": self.seen, "hits": self.hits}


@dataclass(slots=True)
class FaultBoard:
    """All faults of a lab, in the order in which they were set: the first that matches and is due wins.

    `phones` gives the device name behind an address, so that a rule may name a `phone` where a service knows only its
    `peer`.
    """

    emit: Emit = ignore
    phones: Mapping[str, str] = field(default_factory=dict)
    _rules: dict[str, _Rule] = field(default_factory=dict)
    _by_point: dict[str, list[_Rule]] = field(default_factory=dict)
    _numbered: int = 0

    def set(self, fault: Fault) -> Fault:
        """Put it in force; returns it with its id. Raises FaultIdTaken, LimitExceeded."""
        if len(self._rules) >= MAX_FAULTS:
            raise LimitExceeded(f"{MAX_FAULTS} faults are in force already", mend="end some first")
        if not fault.id:
            fault = replace(fault, table=fault.table.model_copy(update={"id": self._new_id()}))
        if fault.id in self._rules:
            raise FaultIdTaken(f"a fault {fault.id!r} is in force already", mend="end it first, or give another id")
        rule = _Rule(fault, Random(fault.table.seed))  # noqa: S311 (chances that a test can repeat)
        self._rules[fault.id] = rule
        self._by_point.setdefault(fault.point.name, []).append(rule)
        self.emit(FaultSet(fault.id, fault.point.name, fault.action.name, dict(fault.table.match)))
        return fault

    def end(self, fault_id: str) -> FaultStatus:
        """Take it out of force; what became of it. Raises UsageError if there is none of this id."""
        status = self.status(fault_id)
        rule = self._rules.pop(fault_id)
        self._by_point[rule.fault.point.name].remove(rule)
        self.emit(FaultEnded(fault_id, rule.hits, status.is_missed))
        return status

    def end_all(self) -> list[FaultStatus]:
        """The newest first, so that states are undone in reverse."""
        return [self.end(fault_id) for fault_id in reversed(tuple(self._rules))]

    def status(self, fault_id: str) -> FaultStatus:
        """Raises UsageError if there is none of this id."""
        try:
            rule = self._rules[fault_id]
        except KeyError:
            known = ", ".join(self._rules) or "none"
            raise UsageError(f"no fault {fault_id!r} is in force", mend=f"in force: {known}") from None
        return FaultStatus(rule.fault, rule.seen, rule.hits)

    def __iter__(self) -> Iterator[FaultStatus]:
        """`FaultStatus` of each, in the order of their setting."""
        return iter([self.status(fault_id) for fault_id in self._rules])

    # --- FaultSource

    def fire(self, point: FaultPoint, **request: str | int) -> Action | None:
        rules = self._by_point.get(point.name)
        if not rules:
            return None
        known = {name: str(value) for name, value in request.items()}
        if "phone" in point.match and "phone" not in known and (name := self.phones.get(known.get("peer", ""))):
            known["phone"] = name
        for rule in rules:
            if rule.fault.matches(known) and rule.is_due():
                self._hit(rule, known)
                return rule.fault.action
        return None

    def record(self, fault_id: str, **request: str | int) -> None:
        """Count and tell a hit of a state: it has been brought about at this part of the lab."""
        self._hit(self._rules[fault_id], {name: str(value) for name, value in request.items()})

    def watches(self, point: FaultPoint) -> bool:
        return bool(self._by_point.get(point.name))

    def at(self, **fields: str) -> FaultSource:
        return _Bound(self, fields)

    def _hit(self, rule: _Rule, request: Mapping[str, str]) -> None:
        rule.hits += 1
        fault = rule.fault
        self.emit(FaultFired(fault.id, fault.point.name, fault.action.name, rule.hits, dict(request)))

    def _new_id(self) -> str:
        while True:
            self._numbered += 1
            if (name := f"fault-{self._numbered}") not in self._rules:
                return name


@dataclass(frozen=True, slots=True)
class _Bound:
    """A board as a service at one place sees it."""

    board: FaultBoard
    fields: Mapping[str, str]

    def fire(self, point: FaultPoint, **request: str | int) -> Action | None:
        if not self.board.watches(point):
            return None
        return self.board.fire(point, **{**self.fields, **request})

    def watches(self, point: FaultPoint) -> bool:
        return self.board.watches(point)

    def at(self, **fields: str) -> FaultSource:
        return _Bound(self.board, {**self.fields, **fields})
