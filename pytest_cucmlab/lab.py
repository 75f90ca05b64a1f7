"""What a test holds in its hands: the running lab, its clusters, phones, faults and clock."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Literal, Self

from pytest_cucmlab.client import OPERATION_TIMEOUT_S, READ_TIMEOUT_S, Client, LabError, LabRefused
from pytest_cucmlab.matching import describe, fits, near_misses, wanted

PAGE: Final = 1000
LOOK_AGAIN_S: Final = 0.05
DAY_S: Final = 86_400.0
Json = dict[str, Any]


class CucmLab:
    """A lab that runs, as it was when its test began. `url` is that of its management API (see docs/api.md)."""

    def __init__(self, url: str, directory: str, *, timeout_s: float = 30.0) -> None:
        self.url = url
        self.directory = directory
        self.timeout_s = timeout_s
        """How long `wait_for` and `wait_for_event` wait where nothing else is said."""
        self.api = Client(url)
        """Everything the API has, for what this class lacks."""
        self.clock = Clock(self.api)
        self.faults_told: set[str] = set()
        """Ids of faults of which a `with` block has said whether they hit."""
        self._began = self._now()

    def begin(self) -> None:
        """Back to how the lab began; events count from here."""
        self.api.post("reset", timeout_s=OPERATION_TIMEOUT_S)
        self._began = self._now()

    # --- what there is

    @property
    def clusters(self) -> dict[str, Cluster]:
        """By name."""
        return {one["name"]: Cluster(self, one["name"]) for one in self.api.get("clusters")["clusters"]}

    def cluster(self, name: str) -> Cluster:
        return Cluster(self, name)

    @property
    def phones(self) -> dict[str, Phone]:
        """By device name."""
        return {name: Phone(self, name) for name in self.api.get("phones")["phones"]}

    def phone(self, name: str) -> Phone:
        return Phone(self, name)

    @property
    def endpoints(self) -> list[Json]:
        """`url`, `service`, `cluster` and `node` of everything that listens."""
        return list(self.api.get("endpoints")["endpoints"])

    def inspect(self, query: str | None = None) -> Any:
        """The whole lab as one object, or what a JMESPath expression makes of it."""
        return self.api.get("inspect", query=query)["lab"]

    def truth(self) -> dict[str, Json]:
        """What each phone really holds and where it is registered, by device name."""
        return dict(self.api.get("truth", "phones")["phones"])

    # --- what is done to it

    def op(self, name: str, **fields: Any) -> Json:
        """Perform an operation (`cucm-lab op --list`); answers when it is done. Raises LabRefused.

        A field that is a word of Python's gets an underscore: `from_="destination"`.
        """
        body = {"do": name, **{key.rstrip("_"): value for key, value in fields.items()}}
        return self.api.post("operations", body=body, timeout_s=OPERATION_TIMEOUT_S)

    def fault(
        self,
        point: str,
        action: str,
        *,
        match: Mapping[str, object] | None = None,
        skip: int = 0,
        times: int | None = None,
        every: int = 1,
        probability: float | None = None,
        seed: int | None = None,
        must_fire: bool = False,
        **attributes: Any,
    ) -> Fault:
        """Something that goes wrong (docs/faults.md), in force in a `with` block, or from `set()` to `end()`."""
        rule: Json = {"point": point, "action": action, "match": dict(match or {}), "attributes": attributes}
        rule |= {"skip": skip, "times": times, "every": every, "must_fire": must_fire}
        return Fault(self, rule | {"probability": probability, "seed": seed})

    def sql(self, cluster: str, query: str, *, node: str | None = None) -> list[Json]:
        """Rows of a node's database (the publisher's, unless a node is named), each by column."""
        answer = self.api.post("sql", body={"cluster": cluster, "node": node, "sql": query})
        return [dict(zip(answer["columns"], row, strict=True)) for row in answer["rows"]]

    def checkpoint(self, name: str) -> None:
        """Keep the state of clusters and phones."""
        self.api.post("checkpoints", body={"name": name}, timeout_s=OPERATION_TIMEOUT_S)

    def restore(self, name: str) -> None:
        """Go back to it. All faults end."""
        self.api.post("checkpoints", name, "restore", timeout_s=OPERATION_TIMEOUT_S)

    # --- what happened

    def events(self, kind: str = "*", source: str | None = None) -> list[Json]:
        """Events since the test began; `kind` and `source` are patterns with * and ?.

        Raises LabError when some of them are kept no more: nobody could say what never happened.
        """
        found: list[Json] = []
        after = self._began
        while True:
            only = None if kind == "*" else kind
            page = self.api.get("events", after=after, limit=PAGE, kind=only, source=source)
            if page["gap"]:
                raise LabError(
                    "not all events of this test are kept",
                    mend="keep more: the option `events` of the marker `cucm_lab`",
                )
            found += page["events"]
            if not page["events"]:
                return found
            after = page["next"]

    def logs(self, name: str, form: Literal["console", "tvs", "tftp", "plain"] | None = None) -> list[str]:
        """Lines of a phone's or node's log, as an engineer finds them there."""
        return list(self.api.get("logs", name, **{"as": form, "tail": 100_000})["lines"])

    def wait_for(self, condition: str, timeout: float | None = None) -> Any:
        """Returns when the JMESPath expression on `inspect()` is true; AssertionError with its last value if never."""
        __tracebackhide__ = True
        timeout_s = self.timeout_s if timeout is None else timeout
        body = {"for": condition, "timeout_s": timeout_s}
        try:
            return self.api.post("wait", body=body, timeout_s=timeout_s + READ_TIMEOUT_S)["value"]
        except LabRefused as refusal:
            if refusal.status != 408:
                raise
            raise AssertionError(f"{condition}: {refusal.what}") from None

    def wait_for_event(self, kind: str, timeout: float | None = None, **fields: Any) -> Json:
        """The first such event since the test began, as soon as there is one. AssertionError with near misses."""
        __tracebackhide__ = True
        ends = time.monotonic() + (self.timeout_s if timeout is None else timeout)
        while True:
            events = self.events()
            found = next((event for event in events if fits(event, kind, fields)), None)
            if found is not None:
                return found
            if time.monotonic() >= ends:
                raise AssertionError(f"did not happen: {wanted(kind, fields)}\n{near_misses(events, kind, fields)}")
            time.sleep(LOOK_AGAIN_S)

    def assert_happened(self, kind: str, **fields: Any) -> Json:
        """The first event of this kind (a pattern) with these fields: texts are patterns, objects need only be part,
        functions are asked. AssertionError with the near misses.
        """
        __tracebackhide__ = True
        events = self.events()
        found = next((event for event in events if fits(event, kind, fields)), None)
        if found is None:
            raise AssertionError(f"did not happen: {wanted(kind, fields)}\n{near_misses(events, kind, fields)}")
        return found

    def assert_never(self, kind: str, **fields: Any) -> None:
        """AssertionError with the events that should not have been."""
        __tracebackhide__ = True
        found = [event for event in self.events() if fits(event, kind, fields)]
        if found:
            lines = "\n".join(f"  {describe(event)}" for event in found[:10])
            raise AssertionError(f"happened {len(found)} times: {wanted(kind, fields)}\n{lines}")

    def _now(self) -> str:
        return str(self.api.get()["event"])


@dataclass(frozen=True, slots=True)
class Cluster:
    """One cluster; nodes by name."""

    lab: CucmLab
    name: str

    def status(self) -> Json:
        return dict(self.lab.api.get("clusters", self.name)["cluster"])

    def certificates(self, node: str | None = None, unit: str | None = None) -> list[Json]:
        """As `cucm-lab certificates list` has them; `unit` is a store or a certificate."""
        place = ("clusters", self.name, *(("nodes", node) if node else ()), "certificates")
        return list(self.lab.api.get(*place, unit=unit)["certificates"])

    def file(self, node: str, name: str) -> bytes:
        """A file as the node's file server has it."""
        return self.lab.api.get_bytes("clusters", self.name, "nodes", node, "files", name)

    def sql(self, query: str, *, node: str | None = None) -> list[Json]:
        return self.lab.sql(self.name, query, node=node)


@dataclass(frozen=True, slots=True)
class Phone:
    """One phone by its device name (`SEP...`)."""

    lab: CucmLab
    name: str

    def boot(self) -> Json:
        """Power it on; returns when its boot has ended, whatever came of it. Raises LabRefused: it is on already."""
        return self._act("boot")

    def reset(self) -> Json:
        return self._act("reset")

    def power_off(self) -> Json:
        return self._act("power-off")

    def erase(self) -> Json:
        """The security menu's erase: CTL and ITL go."""
        return self._act("erase")

    def truth(self) -> Json:
        """Where it is registered and what it holds: from its flash and from the CallManagers, not from logs."""
        return dict(self.lab.api.get("phones", self.name)["phone"])

    @property
    def registered(self) -> str:
        """Name of the cluster that has it registered, or `nowhere`."""
        return str(self.truth()["registered"])

    def screens(self) -> list[str]:
        """Lines of its status messages and security menu."""
        return list(self.lab.api.get("phones", self.name, "screens")["lines"])

    def flash(self, held: Literal["ctl", "itl", "configuration"]) -> bytes:
        return self.lab.api.get_bytes("phones", self.name, "flash", held)

    def _act(self, action: str) -> Json:
        return self.lab.api.post("phones", self.name, action, timeout_s=OPERATION_TIMEOUT_S)


class Fault:
    """A rule; see `CucmLab.fault`."""

    def __init__(self, lab: CucmLab, rule: Json) -> None:
        self._lab = lab
        self._rule = rule
        self._last: Json | None = None
        self.id = ""

    def set(self) -> Self:
        """Put it in force. Raises LabRefused for what cannot be."""
        self._last = self._lab.api.post("faults", body=self._rule, timeout_s=OPERATION_TIMEOUT_S)["fault"]
        self.id = self._last["id"]
        return self

    def end(self) -> None:
        """Take it out of force; nothing happens when it has ended already, with a reset, say."""
        if not self.id:
            return
        try:
            self._last = self._lab.api.delete("faults", self.id)["fault"]
        except LabRefused as refusal:
            if refusal.status != 404:
                raise
            self._has_ended()
        self.id = ""

    @property
    def hits(self) -> int:
        """How many requests it has hit, also when it has ended since."""
        if self.id:
            try:
                self._last = self._lab.api.get("faults", self.id)["fault"]
            except LabRefused as refusal:
                if refusal.status != 404:
                    raise
                self._has_ended()
        return int(self._last["hits"]) if self._last else 0

    def _has_ended(self) -> None:
        """Somebody else's doing: what became of it is told by an event."""
        ended = [event for event in self._lab.events("fault.ended") if event["fault"] == self.id]
        if ended and self._last is not None:
            self._last["hits"] = ended[-1]["hits"]

    @property
    def events(self) -> list[Json]:
        """A `fault.fired` for each hit, with the `request` it hit."""
        name = self._last["id"] if self._last else ""
        return [event for event in self._lab.events("fault.fired") if event["fault"] == name]

    def __enter__(self) -> Self:
        return self.set()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lab.faults_told.add(self.id)
        self.end()
        if error is None and self._rule["must_fire"] and not self.hits:
            raise AssertionError(missed(self._rule))


def missed_of(lab: CucmLab) -> list[str]:
    """What to say of faults that ended in this test, however they did, and should have hit before."""
    events = lab.events("fault.*")
    rules = {event["fault"]: event for event in events if event["kind"] == "fault.set"}
    ended = [event["fault"] for event in events if event["kind"] == "fault.ended" and event["missed"]]
    return [missed(rules[one]) for one in ended if one in rules and one not in lab.faults_told]


def missed(rule: Mapping[str, Any]) -> str:
    """What to say of a fault that should have hit."""
    match = " ".join(f"{name}={value}" for name, value in rule["match"].items())
    where = f" where {match}" if match else ""
    return f"the fault {rule['action']} at {rule['point']}{where} should have hit, and did not"


class Clock:
    """The lab's date."""

    def __init__(self, api: Client) -> None:
        self._api = api

    @property
    def now(self) -> float:
        """Unix seconds."""
        return float(self._api.get("clock")["now"])

    def move(self, seconds: float = 0.0, *, days: float = 0.0) -> float:
        """Move it, either way; what it is then."""
        return float(self._api.post("clock", body={"move_s": seconds + days * DAY_S})["now"])


__all__ = ["Clock", "Cluster", "CucmLab", "Fault", "LabError", "Phone", "missed_of"]
