"""The JSON that goes in and out, as models: the OpenAPI description is made of them, and bodies are checked by them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from cucm.errors import TrustReason
from cucm.faults.rules import FaultTable
from cucm.render.show_certificates import ShownCertificate
from lab.checkpoints import START
from lab.truth import DeviceStanding, InstalledList, PhoneTruth, TrustVerdict
from phone_agent.screens import SecurityMenu, StatusScreen

Name = Annotated[str, Field(max_length=64, description="letters, digits, `.`, `_`, `-`")]
Object = dict[str, Any]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class Answer(BaseModel):
    """What every answer has. Later there may be more."""

    model_config = ConfigDict(serialize_by_alias=True)

    version: Annotated[Literal[1], Field(alias="schema", description="version of this JSON")]


class Nothing(Body):
    """An empty object, or no body at all."""


# --- the lab


class Overview(Answer):
    name: str
    release: str
    run: Annotated[str, Field(description="another one for each process; the first part of an event's id")]
    ready: bool
    event: Annotated[str, Field(description="id of the newest event: to read on `after`")]
    links: dict[str, str]


class Service(BaseModel):
    name: str
    state: Literal["running", "stopped", "crashed"]
    reachability: Literal["open", "refuse", "unreachable"]
    endpoints: list[str]


class Replication(BaseModel):
    """From the publisher to this node; `state` as `utils dbreplication runtimestate` has it."""

    state: int
    state_text: str
    behind: Annotated[int, Field(description="changes that wait")]
    lag_s: float
    paused: bool
    problem: str | None


class Node(BaseModel):
    name: str
    address: str
    publisher: bool
    up: bool
    services: list[Service]
    replication: Annotated[Replication | None, Field(description="None for a publisher")]


class Cluster(BaseModel):
    name: str
    version: str
    security_mode: Literal["mixed", "non-secure"]
    nodes: list[Node]


class PhoneStatus(BaseModel):
    name: str
    model: str
    address: str
    on: bool
    state: str
    registered: list[str]


class Pool(BaseModel):
    name: str
    network: str
    option_150: list[str]
    option_66: str | None


class Dhcp(BaseModel):
    address: str
    port: int
    running: bool
    reachability: Literal["open", "refuse", "unreachable"]
    pools: list[Pool]
    leases: int


class Sftp(BaseModel):
    address: str
    port: int
    running: bool
    user: str
    password_file: Annotated[str, Field(description="the file that holds the password, for its owner alone")]
    directory: str
    host_key: str


class Status(Answer):
    title: str
    directory: str
    network: str
    seed: int
    clusters: list[Cluster]
    dhcp: Dhcp
    sftp: Sftp
    phones: list[PhoneStatus]


class Endpoint(BaseModel):
    url: str
    service: str
    cluster: str | None = None
    node: str | None = None


class Endpoints(Answer):
    endpoints: list[Endpoint]


class Topology(Answer):
    topology: Object


class Date(BaseModel):
    now: Annotated[float, Field(description="the lab's date, Unix seconds")]
    date: Annotated[str, Field(description="the same, ISO 8601")]
    moved_s: Annotated[float, Field(description="how far it was moved from the machine's")]


class Clock(Date, Answer):
    pass


class MoveClock(Body):
    move_s: Annotated[float, Field(ge=-4e9, le=4e9, allow_inf_nan=False, description="forward; back where negative")]


class Kept(BaseModel):
    name: str
    made_at: float


class Checkpoints(Answer):
    checkpoints: list[Kept]


class KeepCheckpoint(Body):
    name: Annotated[Name, Field(description=f"not `{START}`, which is the lab's own")]


class CheckpointKept(Answer):
    checkpoint: Kept


class CheckpointDeleted(Answer):
    deleted: str


class Restored(Answer):
    restored: str
    different: Annotated[list[str], Field(description="what could not be brought back as it was")]


class Ending(Answer):
    ending: bool


class Wait(Body):
    condition: Annotated[
        str, Field(alias="for", min_length=1, max_length=4096, description="JMESPath on what /inspect tells")
    ]
    timeout_s: Annotated[float, Field(ge=0, le=600, allow_inf_nan=False, description="seconds")] = 30.0


class Waited(Answer):
    value: Any
    waited_s: float


# --- clusters


class Clusters(Answer):
    clusters: list[Cluster]


class OneCluster(Answer):
    cluster: Cluster


class OneNode(Answer):
    node: Node


class Services(Answer):
    services: list[Service]


class Store(BaseModel):
    name: str
    certificates: int
    per_node: bool


class Stores(Answer):
    stores: list[Store]


class Certificates(Answer):
    cluster: str
    node: str
    release: Annotated[str, Field(alias="version", description="of the cluster")]
    certificates: list[ShownCertificate]


class ServedFile(BaseModel):
    name: str
    length: int
    sha256: str


class Files(Answer):
    files: Annotated[list[ServedFile], Field(description="what the node's file server has handed out, newest contents")]


class Sql(Body):
    cluster: str
    node: str | None = None
    sql: Annotated[str, Field(min_length=1, max_length=100_000)]
    write: bool = False


class SqlResult(Answer):
    columns: list[str] | None = None
    rows: list[list[Any]] | None = None
    changed: int | None = None


# --- phones


class Phone(BaseModel):
    """Where it is and, whatever anybody says, what its flash holds and which CallManagers know it."""

    name: str
    model: str
    address: str
    on: bool
    state: str
    registered: Annotated[str, Field(description="a cluster, or `nowhere`")]
    node: Annotated[str | None, Field(description="the node that has it registered")]
    ctl: Annotated[str, Field(description="the cluster it is from, `none` or `unknown`")]
    itl: str
    configuration: str
    configuration_name: str | None
    ctl_list: InstalledList | None
    itl_list: InstalledList | None
    reasons: Annotated[list[TrustReason], Field(description="of refusals in its last boot")]
    trust_verdicts: Annotated[list[TrustVerdict], Field(description="of its last boot")]
    call_managers: list[DeviceStanding]
    status_messages: list[str]


class Phones(Answer):
    phones: dict[str, Phone]


class Truths(Answer):
    phones: dict[str, PhoneTruth]


class OnePhone(Answer):
    phone: Phone


class Screens(Answer):
    status: StatusScreen
    security: SecurityMenu
    lines: Annotated[list[str], Field(description="the same as text")]


# --- operations, faults


class OperationField(BaseModel):
    name: str
    kind: str
    required: bool
    default: Any = None


class Operation(BaseModel):
    """Its name and its fields; `GET /v1/operations` has them all."""

    model_config = ConfigDict(extra="allow")

    do: str


class OperationKind(BaseModel):
    name: str
    description: str
    fields: list[OperationField]


class Operations(Answer):
    operations: list[OperationKind]


class Told(BaseModel):
    time: float
    source: str
    text: str


class Performed(Answer):
    do: str
    says: str
    timeline: Annotated[list[Told], Field(description="what came of it, the newest 500 lines")]
    left_out: Annotated[int, Field(description="older lines of the timeline; `/events` has them all")]


class FaultStatus(FaultTable):
    """A fault in force, or that was, with what became of it."""

    seen: Annotated[int, Field(description="requests that matched")]
    hits: Annotated[int, Field(description="requests that were hit")]


class Faults(Answer):
    faults: list[FaultStatus]


class OneFault(Answer):
    fault: FaultStatus


class ActionKind(BaseModel):
    name: str
    description: str
    attributes: Annotated[Object, Field(description="JSON schema of the fault's `attributes`")]


class FaultPoint(BaseModel):
    name: str
    description: str
    kind: Annotated[Literal["request", "state"], Field(description="a state holds from when it is set to its end")]
    match: Annotated[dict[str, str], Field(description="fields that a fault may look at, and what each is")]
    actions: list[ActionKind]


class FaultPoints(Answer):
    points: list[FaultPoint]


# --- events, logs


class Event(BaseModel):
    model_config = ConfigDict(extra="allow")

    sequence: int
    time: float
    source: str
    kind: str


class Events(Answer):
    run: str
    events: list[Event]
    next: Annotated[str, Field(description="id to go on `after`")]
    gap: Annotated[bool, Field(description="events between `after` and the first one here are kept no more")]


class Logs(Answer):
    logs: list[str]


class Log(Answer):
    log: str
    form: Annotated[Literal["console", "tvs", "tftp", "plain"], Field(alias="as")]
    lines: list[str]
    next: Annotated[int, Field(description="place behind these lines, for the stream's `after`")]
