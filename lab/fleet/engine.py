"""A fleet on real sockets, from nothing to its result: servers, phones, the acts of the story, ground truth."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from ipaddress import IPv4Network

from cucm.clock import MovableClock
from cucm.errors import LabError
from lab.fleet.attendance import Attendance
from lab.fleet.batch import LOST, Holding, PhoneFinding
from lab.fleet.crew import Crew, CrewHere, Work
from lab.fleet.exposure import Exposure
from lab.fleet.floor import Floor
from lab.fleet.footprint import fewer_collections, private_bytes, require_descriptors
from lab.fleet.measure import LoadMeter
from lab.fleet.plan import BOOTING, FleetPlan
from lab.fleet.population import Population
from lab.fleet.progress import Progress
from lab.fleet.request import FleetRequest
from lab.fleet.result import NONE, NOWHERE, UNKNOWN, FleetResult, Memory, PhoneEnd, Stage
from lab.fleet.servers import FOLDER_PREFIX, KEPT_EVENTS, FleetLab, phones_network
from lab.fleet.workers import CrewOfWorkers
from lab.node import DEFAULT_STATIONS
from lab.operations import AddDevice, AdvanceClock, Operation, RemoveDevice
from lab.runtime import LabOptions
from lab.scenario import Act
from lab.temporary_folder import temporary_folder


class Fleet:
    """One run. `play` does all of it; `interrupt` ends it early, with a result all the same.

    The servers are in `network`, a /24; with an `exposure` other machines reach them, and run the phones.
    """

    def __init__(
        self,
        request: FleetRequest,
        plan: FleetPlan,
        network: IPv4Network,
        progress: Progress,
        exposure: Exposure | None = None,
    ) -> None:
        self.request = request
        self.plan = plan
        self.progress = progress
        self.result = FleetResult(request, "sockets", plan.target)
        self._network = network
        self._exposure = exposure
        self._playing: asyncio.Task[None] | None = None

    def interrupt(self) -> None:
        """What is under way is given up, once; the report says so."""
        if not self.result.interrupted and self._playing is not None:
            self._playing.cancel()
        self.result.interrupted = True

    async def play(self) -> FleetResult:
        """Raises LabError when the servers cannot start; what goes wrong later stands in the result."""
        began_s = time.monotonic()
        async with AsyncExitStack() as ending:
            lab, crew = await self._set_up(ending)
            self._playing = asyncio.create_task(self._play(lab, crew))
            if self.result.interrupted:  # while all was set up
                self._playing.cancel()
            await self._take_down(self._playing)
            accounts = await crew.findings()
            where = self._attendance.places(accounts) if crew.parts else _registrations(lab)
            self.result.ends = _ends(lab, self.plan, accounts, without_lost(where, accounts))
            self.result.reruns = crew.reruns
        self.result.wall_s = time.monotonic() - began_s
        return self.result

    async def _set_up(self, ending: AsyncExitStack) -> tuple[FleetLab, Crew]:
        began_s, cpu_s = time.monotonic(), time.process_time()
        require_descriptors(self.request, self.plan.topology)
        self.progress.begin("", f"setting up the clusters and {self.request.phones} phones{self._processes_in_words()}")
        folder = ending.enter_context(temporary_folder(FOLDER_PREFIX))
        population = Population(self.plan.topology, self.request.phones, self._phones_network(ending))
        stations = DEFAULT_STATIONS + self.request.phones  # one node may have all of them, and those that come anew
        options = LabOptions(folder, self._network, self.request.seed, events=KEPT_EVENTS, stations=stations)
        lab = await ending.enter_async_context(FleetLab(self.plan, population, options, clock=MovableClock()))
        self._meter = LoadMeter({node: name for name, one in lab.clusters.items() for node in one.nodes})
        lab.events.subscribe(self._meter)
        self._attendance = Attendance(self._meter.cluster_of)
        lab.events.subscribe(self._attendance)
        self._empty_bytes = private_bytes()
        crew = await self._start_crew(lab)
        ending.push_async_callback(crew.end)
        fewer_collections()
        self.result.setup_s = time.monotonic() - began_s
        self.result.setup_cpu_s = time.process_time() - cpu_s
        return lab, crew

    def _processes_in_words(self) -> str:
        """How many have work, which may be fewer than the user named."""
        count = self.request.processes
        return f", these in {count} process{'es' if count > 1 else ''}" if count else ""

    def _phones_network(self, ending: AsyncExitStack) -> IPv4Network:
        return self._exposure.phones if self._exposure is not None else ending.enter_context(phones_network())

    async def _start_crew(self, lab: FleetLab) -> Crew:
        if self.request.scheduler is not None:
            from lab.fleet.dask_crew import CrewOnDask  # an extra, and half a second

            return await CrewOnDask.start(
                self.request.scheduler, lab.surroundings(), lab.states(), self.progress, self._exposure
            )
        if self.request.processes:
            return await CrewOfWorkers.start(lab.surroundings(), lab.states(), self.request.processes, self.progress)
        return CrewHere(lab.surroundings(), lab.states(), self.progress)

    async def _take_down(self, playing: asyncio.Task[None]) -> None:
        """Wait for the end of what was given up; keep what went wrong."""
        await asyncio.wait([playing])
        self.result.loads = self._meter.loads()
        if not playing.cancelled() and (error := playing.exception()) is not None:
            if not isinstance(error, LabError):
                raise error
            self.result.trouble = f"{error} ({error.mend})" if error.mend else str(error)

    def _measure_floor(self, lab: FleetLab, stage: Stage) -> None:
        """Right behind the stage that it is compared with: what the machine has to give varies."""
        floor = Floor(*lab.samples())
        stage.floor_s = floor.seconds(stage.operations)
        self.result.floor_ms |= floor.as_json()

    # --- the story

    async def _play(self, lab: FleetLab, crew: Crew) -> None:
        for act in self.plan.acts:
            await self._play_act(lab, crew, act)

    async def _play_act(self, lab: FleetLab, crew: Crew, act: Act) -> None:
        for fault in act.faults:
            await lab.set_fault(fault)
        for step in act.steps:
            await self._perform(lab, crew, act, step)
        await lab.end_faults()

    async def _perform(self, lab: FleetLab, crew: Crew, act: Act, step: Operation) -> None:
        phones = self.plan.phone_act(step)
        if phones is not None:
            work = Work(phones.verb, phones.title, phones.models, self.request.concurrency)
            self.progress.begin(act.title, step.do, self._count(phones.models))
            await self._measured(lab, crew, work, act)
            return
        self.progress.begin(act.title, step.do)
        cpu_s = time.process_time()
        try:
            await self._perform_on_clusters(lab, crew, step)
        finally:
            self.result.other_cpu_s += time.process_time() - cpu_s

    async def _perform_on_clusters(self, lab: FleetLab, crew: Crew, step: Operation) -> None:
        if isinstance(step, AddDevice | RemoveDevice):
            lab.change_devices(step, self.plan.models_of(step))
            await lab.settle()
            return
        await lab.perform(step)
        if isinstance(step, AdvanceClock):
            await crew.move_clock(step.days * 86_400)

    def _count(self, models: frozenset[str]) -> int:
        tables = self.plan.topology.phones
        whole, rest = divmod(self.request.phones, len(tables))
        return sum(whole + (number < rest) for number, table in enumerate(tables) if table.name in models)

    async def _measured(self, lab: FleetLab, crew: Crew, work: Work, act: Act) -> None:
        servers = self._meter.stage = Stage(work.title)
        cpu_s = time.process_time()
        stage: Stage | None = None
        try:
            stage = await crew.perform(work)
        finally:
            self._meter.stage = None
            stage = stage or Stage(work.title, phones=self.progress.done)
            stage.title = f"{act.title}: {work.title}"
            stage.server_cpu_s = time.process_time() - cpu_s
            stage.operations += servers.operations
            stage.events += servers.events
            if work.verb in BOOTING:
                self.result.stages.append(stage)
                self._measure_floor(lab, stage)
            else:
                self.result.other_cpu_s += stage.cpu_s
        self.result.memory = await self._memory(lab, crew) or self.result.memory

    async def _memory(self, lab: FleetLab, crew: Crew) -> Memory | None:
        """Of all phones as they are now; None where the system does not tell, of phones that have parted, and while not
        all are registered: what the others take would be counted as theirs, or theirs shared out among more.
        """
        count = self.request.phones
        if crew.parts or len(_registrations(lab)) < count:
            return None
        own = private_bytes()
        if not own:
            return None
        elsewhere = await crew.memory()
        grown = own - self._empty_bytes + elsewhere
        return Memory(grown / count, count, elsewhere / count if self.request.workers else None)


def _ends(
    lab: FleetLab,
    plan: FleetPlan,
    accounts: dict[str, tuple[PhoneFinding, Holding]],
    where: Mapping[str, tuple[str, str | None]],
) -> dict[str, PhoneEnd]:
    """Ground truth: the CallManagers' registrations (`where`), and who served what lies in flash."""
    node_of = lab.served.node_of_digest

    def owner(digest: str | None) -> str:
        if digest is None:
            return NONE
        node = node_of(digest)
        return (node and lab.cluster_of_node(node)) or UNKNOWN

    owners: dict[str | None, str] = {}

    def known(digest: str | None) -> str:
        if digest not in owners:
            owners[digest] = owner(digest)
        return owners[digest]

    models = {name: lab.model_of(name) for name in accounts}
    return {
        name: PhoneEnd(
            *where.get(name, (NOWHERE, None)),
            ctl=known(held.ctl),
            itl=known(held.itl),
            configuration=known(held.configuration),
            reasons=found.reasons,
            detail=found.detail or plan.silence_about(models[name]),
            state=found.state,
            boots=found.boots,
            stays_at=plan.staying.get(models[name]),
        )
        for name, (found, held) in accounts.items()
    }


def without_lost(
    where: Mapping[str, tuple[str, str | None]], accounts: Mapping[str, tuple[PhoneFinding, Holding]]
) -> dict[str, tuple[str, str | None]]:
    """A CallManager may not have noticed yet that a phone's process was lost, and the phone with it."""
    return {name: place for name, place in where.items() if name in accounts and accounts[name][0].state != LOST}


def _registrations(lab: FleetLab) -> dict[str, tuple[str, str | None]]:
    """Cluster (several: joined by `and`) and node by device name."""
    found: dict[str, tuple[str, str | None]] = {}
    places = [
        (name, node.name, node.registered_devices) for name, one in lab.clusters.items() for node in one.nodes.values()
    ]
    places += [(name, name, frozenset(one.call_processing.registered)) for name, one in lab.plain_servers.items()]
    for cluster, node, devices in places:
        for device in devices:
            before = found.get(device)
            found[device] = (cluster if before is None else f"{before[0]} and {cluster}", node)
    return found
