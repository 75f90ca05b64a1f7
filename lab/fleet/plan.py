"""What a story means for a fleet: which acts are played, where the phones should end, what each step does to whom.

Steps on phones are done to all phones that are made after the named ones; all other steps once, to the clusters.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Final

from cucm.errors import UsageError
from cucm.records import dataclass
from lab.fleet.request import FleetRequest
from lab.operations import (
    AddDevice,
    BootPhone,
    DeleteLsc,
    EraseSecuritySettings,
    InstallLsc,
    Operation,
    PowerOffPhone,
    RemoveDevice,
    ResetPhone,
    SetOption150,
    WaitForRegistration,
)
from lab.operations.phones import PhoneOperation
from lab.scenario import Act, Story, load_story
from lab.topology import Topology, load_topology

PHONE_VERBS: Final[dict[type[Operation], str]] = {
    BootPhone: "boot",
    ResetPhone: "reset",
    PowerOffPhone: "power-off",
    EraseSecuritySettings: "erase",
    DeleteLsc: "delete-lsc",
    WaitForRegistration: "settle",
}
"""What a phone of a fleet can be told to do."""
NO_STEP: Final = "no step of the story boots it"
BOOTING: Final = frozenset({"boot", "reset"})


@dataclass(frozen=True, slots=True)
class PhoneAct:
    """`verb` of `PHONE_VERBS`, to every phone made after one of `models` (device names of the topology)."""

    verb: str
    models: frozenset[str]
    title: str


@dataclass(frozen=True, slots=True)
class FleetPlan:
    """`acts` are those to be played; `target` is the cluster (or plain server) where every phone should end."""

    name: str
    story: Story
    topology: Topology
    acts: tuple[Act, ...]
    target: str
    staying: Mapping[str, str]
    """By phone of the topology: those that the story sends nowhere else, and where it expects them in the end."""
    left_out: frozenset[str]
    """Phones of the topology that no step boots."""

    def silence_about(self, model: str) -> str:
        """Why phones made after this one of the topology are off to the end; empty if a step boots them."""
        return NO_STEP if model in self.left_out else ""

    @property
    def needs_mic(self) -> bool:
        """Whether a phone's LSC is ever deleted: only then it needs the certificate of its maker."""
        return any(isinstance(step, DeleteLsc) for act in self.acts for step in act.steps)

    def phone_act(self, step: Operation) -> PhoneAct | None:
        """What the step does to phones; None for a step on clusters."""
        if not isinstance(step, PhoneOperation):
            return None
        name = step.phone or step.phones or ""
        models = frozenset(table.name for table in self.topology.phones_named(name))
        return PhoneAct(PHONE_VERBS[type(step)], models, step.do)

    def models_of(self, step: AddDevice | RemoveDevice) -> frozenset[str]:
        """Those whose devices the step adds or removes."""
        return frozenset(table.name for table in self.topology.phones_named(step.phone))


def make_plan(request: FleetRequest) -> FleetPlan:
    """Raises UsageError for what is no story or topology, and for a story that no fleet can play."""
    name, story = load_story(request.story)
    topology = load_topology(request.topology or story.topology)
    acts = tuple(act for act in story.acts if request.repair or not act.repairs)
    for step in _steps(acts):
        if isinstance(step, InstallLsc):
            raise UsageError(
                f"the story {name} has phones ask CAPF for certificates, which a fleet cannot",
                where="--story",
                mend="take another story, or fewer phones with `cucm-lab run`",
            )
    for act in acts:
        for fault in act.faults:
            if fault.point.startswith("phone."):
                raise UsageError(
                    f"the story {name} has a fault inside phones ({fault.point}), which a fleet has not",
                    where="--story",
                    mend="take a story whose faults are those of servers",
                )
    left_out = {table.name for table in topology.phones} - _booted(_steps(acts), topology)
    plan = FleetPlan(
        name, story, topology, acts, _target(story, topology), _staying(story, topology, acts), frozenset(left_out)
    )
    for step in _steps(acts):
        plan.phone_act(step)
    return plan


def _steps(acts: tuple[Act, ...]) -> Iterator[Operation]:
    return (step for act in acts for step in act.steps)


def _target(story: Story, topology: Topology) -> str:
    """Where option 150 points in the end, the repair included; without a word about it, where it points at first."""
    owner = {node: name for name, cluster in topology.clusters.items() for node in cluster.node_names}
    target = topology.option_150
    for step in _steps(story.acts):
        if isinstance(step, SetOption150):
            target = step.cluster or step.server or owner.get(step.nodes[0] if step.nodes else "", target)
    return target


def _staying(story: Story, topology: Topology, acts: tuple[Act, ...]) -> dict[str, str]:
    """Who is not booted any more after the last word about option 150, and is expected somewhere by the acts played."""
    expected: dict[str, str] = {}
    for act in acts:
        for name, end in act.expect.items():
            if end.registered is not None:
                expected |= dict.fromkeys(_named(name, topology), end.registered)
    steps = list(_steps(story.acts))
    pointed = [number for number, step in enumerate(steps) if isinstance(step, SetOption150)]
    sent = _booted(steps[pointed[-1] if pointed else 0 :], topology)
    return {name: place for name, place in expected.items() if name not in sent}


def _booted(steps: Iterable[Operation], topology: Topology) -> set[str]:
    """Phones of the topology that are booted or reset by these steps."""
    booting = (step for step in steps if isinstance(step, PhoneOperation) and PHONE_VERBS[type(step)] in BOOTING)
    return {name for step in booting for name in _named(step.phone or step.phones or "", topology)}


def _named(name: str, topology: Topology) -> set[str]:
    """Nobody, where another topology than the story's own has no such phone."""
    with suppress(UsageError):
        return {table.name for table in topology.phones_named(name)}
    return set()
