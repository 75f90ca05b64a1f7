"""A fleet without a phone's socket: the real decisions before the real state of the clusters, in modelled time.

The lab is a real one: the story's operations act on its databases, lists, services and rules as ever. Its phones stay
off; a step on phones is walked through for every phone of the fleet, whose own state is a number in an array.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from ipaddress import IPv4Network
from typing import Final

from cucm.clock import MovableClock
from cucm.errors import LabError, UsageError
from cucm.faults import fault_of
from cucm.records import dataclass
from lab.fleet.batch import PhoneFinding
from lab.fleet.decisions import Decided, Decisions, Point
from lab.fleet.findings import finding_of
from lab.fleet.plan import BOOTING, FleetPlan, PhoneAct
from lab.fleet.population import mac_of, number_of
from lab.fleet.progress import Progress
from lab.fleet.queueing import Machines, Yard, run_stage
from lab.fleet.request import FleetRequest
from lab.fleet.result import NONE, NOWHERE, UNKNOWN, FleetResult, PhoneEnd, Stage
from lab.fleet.servers import FOLDER_PREFIX, KEPT_EVENTS
from lab.fleet.simulated_servers import SimulatedServers
from lab.operations import AdvanceClock, Operation
from lab.runtime import Lab, LabOptions
from lab.scenario import Act
from lab.temporary_folder import temporary_folder
from lab.topology import PhoneTable
from phone_agent.flash_contents import FlashContents, without_lists
from phone_agent.models import PhoneModel
from phone_agent.state import PhoneState

SIMULATED_FAULTS: Final = frozenset({"dhcp.request"})
"""Faults on the wire that simulated phones meet; states (a node is down, a service refuses) they all meet."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a phone is registered; `service` is the CallManager's process: another one knows nothing of the phone."""

    node: str
    call_manager: str
    service: object


@dataclass(frozen=True, slots=True)
class Standing:
    """Everything about one phone: few of a million differ. `model` is the phone of the topology it is made after."""

    model: str
    contents: FlashContents
    state: PhoneState = PhoneState.OFF
    place: Place | None = None
    finding: PhoneFinding = PhoneFinding(PhoneState.OFF.value)


class Simulation:
    """One run; `play` does all of it, `interrupt` ends it early with a result all the same."""

    def __init__(
        self, request: FleetRequest, plan: FleetPlan, network: IPv4Network, progress: Progress, machines: Machines
    ) -> None:
        _require_simulable(plan)
        self.request = request
        self.plan = plan
        self.progress = progress
        self.result = FleetResult(request, "simulated", plan.target)
        self._network = network
        self._machines = machines
        self._models = {table.name: PhoneModel.of(table.mac, table.model) for table in plan.topology.phones}
        self._names = tuple(table.name for table in plan.topology.phones)
        self._standings = _Standings()

    def interrupt(self) -> None:
        """What is under way is given up; the report says so."""
        self.result.interrupted = True

    async def play(self) -> FleetResult:
        """Raises LabError when the servers cannot start; what goes wrong later stands in the result."""
        began_s = time.monotonic()
        self.progress.begin("", f"setting up the clusters for {self.request.phones} simulated phones")
        async with AsyncExitStack() as ending:
            folder = ending.enter_context(temporary_folder(FOLDER_PREFIX))
            options = LabOptions(folder, self._network, self.request.seed, events=KEPT_EVENTS)
            lab = await ending.enter_async_context(Lab(self.plan.topology, options, clock=MovableClock()))
            cluster_of = {node: name for name, one in lab.clusters.items() for node in one.nodes}
            self._yard = Yard(self._machines, cluster_of, self.request.seed)
            first = [Standing(name, lab.phones[name].flash.contents) for name in self._names]
            numbers = [self._standings.number_of(standing) for standing in first]
            self._phones = array("L", (numbers[i % len(numbers)] for i in range(self.request.phones)))
            self.result.setup_s = time.monotonic() - began_s
            try:
                await self._play(lab)
            except LabError as error:
                self.result.trouble = f"{error} ({error.mend})" if error.mend else str(error)
            self.result.loads = self._yard.loads()
            self.result.ends = self.ends(lab)
        self.result.wall_s = sum(stage.wall_s for stage in self.result.stages)
        self.result.computed_s = time.monotonic() - began_s
        return self.result

    # --- the story

    async def _play(self, lab: Lab) -> None:
        for act in self.plan.acts:
            for fault in act.faults:
                await lab.set_fault(fault)
            for step in act.steps:
                if self.result.interrupted:
                    return
                await self._perform(lab, act, step)
            await lab.end_faults()

    async def _perform(self, lab: Lab, act: Act, step: Operation) -> None:
        phones = self.plan.phone_act(step)
        if phones is None:
            self.progress.begin(act.title, step.do)
            await lab.perform(step)
            if not isinstance(step, AdvanceClock):
                self._change(self._searching(lab), self._names)
            return
        if phones.verb in BOOTING:
            await self._boot(lab, act, phones)
        elif phones.verb in _CHANGES:
            self._change(_CHANGES[phones.verb], phones.models)

    async def _boot(self, lab: Lab, act: Act, phones: PhoneAct) -> None:
        every = len(self._names)
        chosen = [number for number, name in enumerate(self._names) if name in phones.models]
        total = sum(len(range(first, len(self._phones), every)) for first in chosen)
        numbers = (number for number in range(len(self._phones)) if self._names[number % every] in phones.models)
        self.progress.begin(act.title, phones.title, total)
        stage = Stage(f"{act.title}: {phones.title}")
        boots = _Boots(lab, self._models, self._phones, self._standings)
        self.result.stages.append(stage)
        concurrency = min(self.request.concurrency, total)
        for _ in run_stage(self._yard, stage, numbers, boots.root, boots.end, concurrency):
            self.progress.add(*boots.told())
            if self.result.interrupted:
                return
            await asyncio.sleep(0)  # the display has its turn, and signals

    def _change(self, change: Callable[[Standing], Standing], models: Collection[str]) -> None:
        """At once and without requests that are weighed: to all phones made after `models`."""
        new = list(range(len(self._standings)))
        for number in new.copy():
            standing = self._standings[number]
            if standing.model in models:
                new[number] = self._standings.number_of(change(standing))
        if new != list(range(len(new))):
            self._phones = array("L", (new[number] for number in self._phones))

    def _searching(self, lab: Lab) -> Callable[[Standing], Standing]:
        """What phones do whose CallManager has gone: the others of their group, at once, once."""
        servers = SimulatedServers(lab)
        decisions = Decisions(servers, _Moment(lab.clock.now()))

        def search(standing: Standing) -> Standing:
            place = standing.place
            if place is None or servers.call_processing_of(place.node) is place.service:
                return standing
            found = decisions.register_again(self._models[standing.model], standing.contents, place.call_manager)
            return _after(standing, found, servers, boots=standing.finding.boots)

        return search

    # --- the end

    def ends(self, lab: Lab) -> Mapping[str, PhoneEnd]:
        """Of every phone, by its name; made when asked for, from what few standings there are."""
        ends = [_end_of(standing, lab, self.plan) for standing in self._standings]
        return SimulatedEnds(self._phones, ends, self.plan.topology.phones)


@dataclass(frozen=True, slots=True)
class _Moment:
    """A clock that stands still: all phones of a step boot at the same moment of the lab's date."""

    moment: float

    def now(self) -> float:
        return self.moment


class _Standings:
    """Each standing once, by its number."""

    def __init__(self) -> None:
        self._known: list[Standing] = []
        self._numbers: dict[Standing, int] = {}

    def __len__(self) -> int:
        return len(self._known)

    def __getitem__(self, number: int) -> Standing:
        return self._known[number]

    def __iter__(self) -> Iterator[Standing]:
        return iter(self._known)

    def number_of(self, standing: Standing) -> int:
        number = self._numbers.setdefault(standing, len(self._known))
        if number == len(self._known):
            self._known.append(standing)
        return number


class _Boots:
    """The boots of one step: where each phone begins in the tree of decisions, and what it is afterwards."""

    def __init__(self, lab: Lab, models: Mapping[str, PhoneModel], phones: array[int], standings: _Standings) -> None:
        self._servers = SimulatedServers(lab)
        self._decisions = Decisions(self._servers, _Moment(lab.clock.now()))
        self._models = models
        self._phones = phones
        self._standings = standings
        self._roots: dict[int, Point | Decided] = {}
        self._after: dict[tuple[int, int], int] = {}
        self._ended: Counter[int] = Counter()

    def root(self, number: int) -> Point | Decided:
        before = self._phones[number]
        root = self._roots.get(before)
        if root is None:
            standing = self._standings[before]
            root = self._roots[before] = self._decisions.boot(self._models[standing.model], standing.contents)
        return root

    def end(self, number: int, decided: Decided) -> None:
        key = (self._phones[number], id(decided))  # the tree keeps every end as long as this object lives
        after = self._after.get(key)
        if after is None:
            before = self._standings[key[0]]
            boots = before.finding.boots + 1
            new = _after(before, decided, self._servers, boots=boots)
            after = self._after[key] = self._standings.number_of(new)
        self._phones[number] = after
        self._ended[after] += 1

    def told(self) -> tuple[int, Counter[str], Counter[str]]:
        """How many have ended since the last call, in which states, and why not well."""
        states: Counter[str] = Counter()
        reasons: Counter[str] = Counter()
        for number, count in self._ended.items():
            finding = self._standings[number].finding
            states[finding.state] += count
            if finding.reasons:
                reasons[finding.reasons[0]] += count
        done = self._ended.total()
        self._ended.clear()
        return done, states, reasons


def _after(before: Standing, decided: Decided, servers: SimulatedServers, *, boots: int) -> Standing:
    target, place = decided.registered, None
    if target is not None:
        node = servers.node_at(target.address)
        place = Place(node, target.call_manager, servers.call_processing_of(node))
    finding = finding_of(decided.state.value, decided.verdicts, decided.messages, boots)
    return replace(before, contents=decided.contents, state=decided.state, place=place, finding=finding)


def _power_off(standing: Standing) -> Standing:
    finding = replace(standing.finding, state=PhoneState.OFF.value)
    return replace(standing, state=PhoneState.OFF, place=None, finding=finding)


def _erase(standing: Standing) -> Standing:
    return replace(standing, contents=without_lists(standing.contents))


def _delete_lsc(standing: Standing) -> Standing:
    return replace(standing, contents=replace(standing.contents, lsc=None))


_CHANGES: Final[dict[str, Callable[[Standing], Standing]]] = {
    "power-off": _power_off,
    "erase": _erase,
    "delete-lsc": _delete_lsc,
}
"""`settle` is not among them: a simulated phone has done what it does by itself before the next step begins."""


def _end_of(standing: Standing, lab: Lab, plan: FleetPlan) -> PhoneEnd:
    def owner(data: bytes | None) -> str:
        if data is None:
            return NONE
        node = lab.served.node_of(data)
        return (node and lab.cluster_of_node(node)) or UNKNOWN

    place, held, finding = standing.place, standing.contents, standing.finding
    return PhoneEnd(
        (place and lab.cluster_of_node(place.node)) or NOWHERE,
        place.node if place else None,
        ctl=owner(held.ctl),
        itl=owner(held.itl),
        configuration=owner(held.configuration),
        reasons=finding.reasons,
        detail=finding.detail or plan.silence_about(standing.model),
        state=finding.state,
        boots=finding.boots,
        stays_at=plan.staying.get(standing.model),
    )


class SimulatedEnds(Mapping[str, PhoneEnd]):
    """A million ends in the room of an array: names are made when they are asked for."""

    def __init__(self, phones: array[int], ends: list[PhoneEnd], tables: Sequence[PhoneTable]) -> None:
        self._phones = phones
        self._ends = ends
        self._tables = tables

    def __len__(self) -> int:
        return len(self._phones)

    def __iter__(self) -> Iterator[str]:
        return map(self._name, range(len(self._phones)))

    def __getitem__(self, name: str) -> PhoneEnd:
        number = number_of(name)
        if not 0 <= number < len(self._phones) or name != self._name(number):
            raise KeyError(name)
        end, model = self._ends[self._phones[number]], self._tables[number % len(self._tables)].name
        return replace(end, detail=end.detail.replace(model, name)) if model in end.detail else end

    def _name(self, number: int) -> str:
        return f"SEP{mac_of(self._tables[number % len(self._tables)], number)}"

    def tally(self) -> Counter[PhoneEnd]:
        """How many phones have each end."""
        tally: Counter[PhoneEnd] = Counter()
        for number, count in Counter(self._phones).items():
            tally[self._ends[number]] += count
        return tally


def _require_simulable(plan: FleetPlan) -> None:
    for act in plan.acts:
        for fault in act.faults:
            if fault.point not in SIMULATED_FAULTS and not fault_of(fault).point.is_state:
                raise UsageError(
                    f"the story {plan.name} has a fault on the wire ({fault.point}), which a simulation has not",
                    where="--story",
                    mend="leave --simulate out, or take another story",
                )
