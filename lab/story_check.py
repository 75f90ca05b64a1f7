"""Checking a story or a topology without running it: the file's form, and every name against the topology."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, get_args

from cucm.errors import UsageError
from cucm.records import dataclass
from cucm.validation_words import nearest
from lab.log_book import LOG_SERVICES
from lab.operations import Operation
from lab.operations.phones import PhoneOperation
from lab.scenario import Act, Failure, Story, read_story
from lab.toml_files import Location, Problem, TomlProblems, read_tables, read_toml, with_lines
from lab.topology import ALL_PHONES, DEFAULT_POOL, Refers, Topology, is_path, load_topology
from lab.truth import FOREIGN, NONE, NOWHERE

STORY_KEYS: Final = frozenset({"acts", "teaches", "failure", "topology"})
TOPOLOGY_KEYS: Final = frozenset({"clusters", "phones", "option_150", "dhcp", "sftp", "plain_servers"})
_KINDS: Final = {"phones": "phone or group of phones", "pool": "DHCP pool", "server": "plain call server"}
_KINDS_IN_MATCH: Final = ("cluster", "node", "phone")
"""What a fault's `match` may name of the topology."""
_WILD: Final = frozenset("*?[")
_ORIGINS: Final = ("registered", "ctl", "itl", "configuration")


class FileKind(StrEnum):
    STORY = "story"
    TOPOLOGY = "topology"


@dataclass(frozen=True, slots=True)
class CheckedFile:
    """`kind` is None for what is not even TOML."""

    kind: FileKind | None
    problems: tuple[Problem, ...]


def check_file(path: Path) -> CheckedFile:
    """Everything that is wrong with a story or topology, in the order of its lines. UsageError: it cannot be read."""
    try:
        text, data = read_tables(path)
    except TomlProblems as error:
        return CheckedFile(None, error.problems)
    if not STORY_KEYS.union(TOPOLOGY_KEYS).intersection(data):
        text = "is neither a story nor a topology" if data else "is empty"
        return CheckedFile(None, (Problem((), text, "a story has [[acts]], a topology has [clusters.NAME]"),))
    kind = FileKind.STORY if STORY_KEYS.intersection(data) else FileKind.TOPOLOGY
    try:
        if kind is FileKind.TOPOLOGY:
            read_toml(path, Topology)
            return CheckedFile(kind, ())
        problems = _story_problems(path, read_story(path))
    except TomlProblems as error:
        return CheckedFile(kind, _sorted(error.problems))
    return CheckedFile(kind, _sorted(with_lines(text, problems)))


def _story_problems(path: Path, story: Story) -> list[Problem]:
    # a topology named by a relative path lies beside the story
    name = str(path.parent.absolute() / story.topology) if is_path(story.topology) else story.topology
    try:
        topology = load_topology(name)
    except TomlProblems as error:
        return [Problem(("topology",), f"{story.topology}: {one}") for one in error.problems]
    except UsageError as error:
        return [Problem(("topology",), error.what, error.mend or "")]
    return problems_of(story, topology)


def _sorted(problems: Sequence[Problem]) -> tuple[Problem, ...]:
    return tuple(sorted(problems, key=lambda problem: problem.line or 0))


def problems_of(story: Story, topology: Topology) -> list[Problem]:
    """Every name in the story that the topology does not know, and steps that name no target or two."""
    names = _Names(topology)
    problems: list[Problem] = []
    for number, act in enumerate(story.acts):
        problems += _act_problems(act, names, ("acts", number))
    if story.failure is not None:
        problems += _evidence_problems(story.failure, names)
    return problems


class _Names:
    """What a topology knows, by what may refer to it."""

    def __init__(self, topology: Topology) -> None:
        self.nodes_of = {name: cluster.node_names for name, cluster in topology.clusters.items()}
        self.clusters = tuple(topology.clusters)
        self.servers = tuple(topology.plain_servers)
        self.phones = tuple(phone.name for phone in topology.phones)
        self.groups = topology.phone_groups
        self.pools = tuple(dict.fromkeys((*topology.dhcp.pools, *self.groups, DEFAULT_POOL)))
        self.origins = (*self.clusters, *self.servers, NOWHERE, NONE, FOREIGN)

    @property
    def logs(self) -> tuple[str, ...]:
        """Every log that a run can write, but for those of a network of its own (`cucm-lab exec`)."""
        nodes = self.known("node", ())
        machines = (*nodes, *self.servers)
        writers = {"phone": self.phones, "tftp": machines, "callmanager": machines, "cluster": self.clusters}
        writers |= {"dhcp": ("lab",), "sftp": ("lab",), "lab": ("story", "faults")}
        return tuple(f"{service}-{name}" for service in LOG_SERVICES for name in writers.get(service, nodes))

    def known(self, kind: str, clusters: Sequence[str]) -> tuple[str, ...]:
        """Names of a kind; nodes only of `clusters`, where a step names some."""
        match kind:
            case "node":
                among = clusters or self.clusters
                return tuple(node for name in among for node in self.nodes_of.get(name, ()))
            case "phones":
                return (ALL_PHONES, *self.groups, *self.phones)
            case _:
                of_kind = {
                    "cluster": self.clusters,
                    "phone": self.phones,
                    "pool": self.pools,
                    "server": self.servers,
                }
                return of_kind[kind]


def _act_problems(act: Act, names: _Names, place: Location) -> Iterator[Problem]:
    for number, fault in enumerate(act.faults):
        for kind in set(_KINDS_IN_MATCH).intersection(fault.match):
            value = fault.match[kind]
            known = names.known(kind, ())
            if value not in known and not _WILD.intersection(value):
                yield _unknown(kind, value, known, (*place, "faults", number, "match", kind))
    for number, step in enumerate(act.steps):
        yield from _step_problems(step, names, (*place, "steps", number))
    for phone, expected in act.expect.items():
        here = (*place, "expect", phone)
        if phone not in names.known("phones", ()):
            yield _unknown(_KINDS["phones"], phone, names.known("phones", ()), here)
        for key in _ORIGINS:
            value = getattr(expected, key)
            if value is not None and value not in names.origins:
                yield _unknown("cluster", value, names.origins, (*here, key))


def _step_problems(step: Operation, names: _Names, place: Location) -> Iterator[Problem]:
    references = list(references_in(step))
    clusters = tuple(name for kind, name, _ in references if kind == "cluster" and name in names.clusters)
    for kind, name, inside in references:
        known = names.known(kind, clusters)
        word = name.rpartition("/")[2] if kind == "node" else name  # a node may be `cluster/node`
        if word not in known:
            of = f" of {' or '.join(clusters)}" if kind == "node" and clusters else ""
            yield _unknown(f"{_KINDS.get(kind, kind)}{of}", name, known, (*place, *inside))
    if isinstance(step, PhoneOperation) and (step.phone is None) == (step.phones is None):
        yield Problem(place, "which phones?", "name either one `phone` or some `phones`")


def references_in(step: Operation) -> Iterator[tuple[str, str, Location]]:
    """What an operation's fields refer to: kind (`cluster`, `node`, ...), name, and where in its table."""
    for name, field in type(step).model_fields.items():
        marks = [mark.kind for mark in field.metadata if isinstance(mark, Refers)]
        kind = next(iter((*marks, *_marks(field.annotation))), None)
        if kind is not None:
            for value, inside in _texts(getattr(step, name)):
                yield kind, value, (field.alias or name, *inside)


def _marks(annotation: Any) -> Iterator[str]:
    """Kinds of the `Refers` anywhere within an annotation: `tuple[NodeName, ...]`, `ClusterName | None`."""
    for part in (*getattr(annotation, "__metadata__", ()), *get_args(annotation)):
        if isinstance(part, Refers):
            yield part.kind
        else:
            yield from _marks(part)


def _texts(value: object) -> Iterator[tuple[str, Location]]:
    if isinstance(value, str):
        yield value, ()
    elif isinstance(value, tuple):
        for number, item in enumerate(value):
            if isinstance(item, str):
                yield item, (number,)


def _evidence_problems(failure: Failure, names: _Names) -> Iterator[Problem]:
    """A log that no machine of the topology writes: its line could never be found."""
    logs = names.logs
    for number, evidence in enumerate(failure.evidence):
        if evidence.log not in logs:
            service = evidence.log.partition("-")[0]
            alike = [log for log in logs if log.startswith(f"{service}-")] or logs
            yield _unknown("log", evidence.log, alike, ("failure", "evidence", number, "log"))


def _unknown(what: str, name: str, known: Sequence[str], place: Location) -> Problem:
    return Problem(place, f"there is no {what} {name!r}", nearest(name, known))
