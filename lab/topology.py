"""What a lab consists of: a TOML file, checked at the edge, frozen inside.

A topology names clusters with their nodes, phones, and the DHCP and SFTP servers. Addresses are written as host
numbers inside the lab's network, so that the same file serves any /24 of 127.0.0.0/8 and labs run side by side.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from importlib import resources
from ipaddress import IPv4Network
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from cucm.errors import UsageError
from cucm.net.tls import TlsProfile
from cucm.records import dataclass
from cucm.validation_words import CAPF_NAME_PATTERN, COUNTRY_PATTERN, MAC_PATTERN, NAME_PATTERN, SERIAL_PATTERN
from cucm.versions import profile_of
from lab.toml_files import read_toml
from tvs_server.certificate_cache import FreshnessMode

DEFAULT_NETWORK = IPv4Network("127.0.11.0/24")
"""127.0.11.32 stands for the seed's 192.168.11.32."""
MAX_HOST = 254

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
HostNumber = Annotated[int, Field(ge=1, le=254)]
HexSerial = Annotated[str, Field(pattern=SERIAL_PATTERN)]
MacAddress = Annotated[str, Field(pattern=MAC_PATTERN)]
Service = Literal["CallManager", "TVS", "TFTP", "CAPF", "CertificateChangeNotification"]
"""Names of Serviceability without "Cisco"; the last one is a network service and runs on every node (facts 5.5)."""
FeatureService = Literal["CallManager", "TVS", "TFTP", "CAPF"]
SecurityMode = Literal["mixed", "mixed-etoken", "non-secure"]
"""Mixed with a tokenless CTL, mixed with a CTL signed by USB tokens, or without CTL."""


@dataclass(frozen=True, slots=True)
class Refers:
    """Marks a field of a story's operation that names a part of the topology: `cluster`, `node`, `phone`, `phones`."""

    kind: Literal["cluster", "node", "phone", "phones", "pool", "server"]


ClusterName = Annotated[Name, Refers("cluster")]
NodeName = Annotated[Name, Refers("node")]
PhoneName = Annotated[Name, Refers("phone")]
PhonesName = Annotated[Name, Refers("phones")]
"""A phone, a group of phones, or `all`."""
PoolName = Annotated[Name, Refers("pool")]
"""A pool of the DHCP server."""
ServerName = Annotated[Name, Refers("server")]
"""A plain call server of the topology."""

ALL_PHONES: Final = "all"
DEFAULT_POOL: Final = "Default"
"""Name of the device pool and of the DHCP pool that need no table."""


class Table(BaseModel):
    """Base of every table read from TOML: unknown keys are refused, values frozen."""

    # built when a file is read: a lab reads few of the many tables that a story may have
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class CertificateTable(Table):
    """A CA-signed certificate as the seed shows one; without it a node's certificate is self-signed."""

    subject: str
    issuer: str | None = None
    serial: HexSerial | None = None
    der_length: Annotated[int, Field(ge=800, le=4000)] | None = None
    """Pads the lab watermark until the DER has this many bytes."""


class NodeTable(Table):
    name: Name
    host: HostNumber
    domain: str = ""
    services: tuple[FeatureService, ...] | None = None
    """Activated services; by default all of them on the publisher, and all but CAPF on a subscriber."""
    certificate: dict[Literal["CallManager"], CertificateTable] = Field(default_factory=dict)


class OrganizationTable(Table):
    """The organisation fields of the cluster's certificates, as its installer asked for them."""

    unit: str
    company: str
    locality: str
    state: str
    country: Annotated[str, Field(pattern=COUNTRY_PATTERN)]


class ClusterTable(Table):
    """A cluster; `nodes` begins with the publisher. What is not given follows from `version` (its profile)."""

    version: str
    security_mode: SecurityMode = "mixed"
    organization: OrganizationTable
    capf_name: Annotated[str, Field(pattern=CAPF_NAME_PATTERN)]
    tvs_cache: FreshnessMode | None = None
    tls_profile: TlsProfile | None = None
    installed_days_ago: Annotated[int, Field(ge=1, le=3650)] = 30
    """How old the cluster is when the lab starts: its certificates begin then."""
    certificate_days: Annotated[int, Field(ge=1, le=7300)] | None = None
    """How long its own certificates are good for; by default five years (ITLRecovery: twenty)."""
    nodes: tuple[NodeTable, ...] = Field(min_length=1, max_length=64)
    callmanager_groups: dict[Name, Annotated[tuple[Name, ...], Field(min_length=1, max_length=3)]] = Field(
        default_factory=dict
    )
    """Nodes, highest priority first; the group `Default` has the first three with CallManager unless given."""
    device_pools: dict[Name, Name] = Field(default_factory=dict)
    """CallManager group of each device pool; the pool `Default` has the group `Default` unless given."""

    @property
    def node_names(self) -> tuple[str, ...]:
        return tuple(node.name for node in self.nodes)

    def services_of(self, node: NodeTable) -> tuple[FeatureService, ...]:
        if node.services is not None:
            return node.services
        everything: tuple[FeatureService, ...] = ("CallManager", "TVS", "TFTP", "CAPF")
        return everything if node is self.nodes[0] else everything[:3]

    @model_validator(mode="after")
    def _names_agree(self) -> ClusterTable:
        try:
            profile = profile_of(self.version)
        except UsageError as error:
            raise ValueError(f"{error.what}; {error.mend}") from error
        if self.security_mode == "mixed" and profile.ctl_signer is None:
            raise ValueError(f"{self.version} has no tokenless CTL; write mixed-etoken")
        for group, members in self.callmanager_groups.items():
            require_known(members, self.node_names, f"CallManager group {group}", "node")
            if len(set(members)) != len(members):
                raise ValueError(f"CallManager group {group} names a node twice: {', '.join(members)}")
        self._require_callmanager()
        stray = [node.name for node in self.nodes[1:] if "CAPF" in self.services_of(node)]
        if stray and profile.capf_on_publisher_only:
            raise ValueError(f"{self.version} has CAPF on the publisher only, not on {', '.join(stray)}")
        groups = (*self.callmanager_groups, DEFAULT_POOL)
        for pool, group in self.device_pools.items():
            require_known((group,), groups, f"device pool {pool}", "CallManager group")
        return self

    def _require_callmanager(self) -> None:
        for node in self.nodes:
            services = self.services_of(node)
            if len(set(services)) != len(services):
                raise ValueError(f"node {node.name} has a service twice: {', '.join(services)}")
        if not any("CallManager" in self.services_of(node) for node in self.nodes):
            raise ValueError("no node has CallManager: activate it on one")


class PhoneTable(Table):
    """A phone, or `count` phones with consecutive MAC addresses and hosts."""

    mac: MacAddress
    model: Name = "CP-8861"
    serial_number: Name
    host: HostNumber
    count: Annotated[int, Field(ge=1, le=250)] = 1
    group: Name = DEFAULT_POOL
    """Phones of one group can be named together; a DHCP pool of that name serves them."""
    lsc_from: ClusterName | None = None
    """The cluster whose CAPF issued the phone's LSC; without one the phone has its MIC only."""
    security_mode: Literal["non-secure", "authenticated", "encrypted"] = "encrypted"
    provisioned_in: tuple[ClusterName, ...]
    pool: Name = DEFAULT_POOL
    """Its device pool, in every cluster it is provisioned in."""
    digest_user: str = ""
    digest_password: str = ""
    """Digest credentials of the device; empty: not asked for."""
    tls_profile: TlsProfile = TlsProfile.MODERN
    shares_keys: bool = False
    """Whether its certificates are for one of a few keys that phones share; always so for a range of phones."""

    @property
    def name(self) -> str:
        """The device name, `SEP` and the MAC address."""
        return f"SEP{self.mac}"

    def each(self) -> tuple[PhoneTable, ...]:
        """One table per phone."""
        if self.count == 1:
            return (self,)
        first = int(self.mac, 16)
        if first + self.count > 1 << 48:
            raise ValueError(f"{self.count} phones from {self.mac} on: no MAC address is higher than FFFFFFFFFFFF")
        return tuple(
            self.model_copy(
                update={
                    "mac": f"{first + number:012X}",
                    "host": self.host + number,
                    "serial_number": f"{self.serial_number}{number:03}",
                    "count": 1,
                    "shares_keys": True,
                }
            )
            for number in range(self.count)
        )


class DhcpPoolTable(Table):
    """Phones of the group of this name are told these TFTP servers at first: nodes, in this order."""

    option_150: Annotated[tuple[NodeName, ...], Field(min_length=1, max_length=5)]


class DhcpTable(Table):
    host: HostNumber = 2
    lease_s: Annotated[int, Field(ge=10, le=31_536_000)] = 86_400
    pools: dict[Name, DhcpPoolTable] = Field(default_factory=dict)


class SftpTable(Table):
    """The server of bulk certificate exchange; `directory` is the one both clusters are told to use."""

    host: HostNumber = 3
    user: Name = "bulk"
    password: Annotated[str, Field(min_length=1, max_length=64)] = "lab-toy"  # noqa: S105 (a lab toy, loopback only)
    directory: Name = "bulk"


class PlainServerTable(Table):
    """A call server of another make, which signs nothing: files over TFTP and HTTP, SIP over TCP (facts 11 F22)."""

    host: HostNumber


class DefaultsTable(Table):
    """What tables below take where they say nothing themselves: precedence defaults, cluster, node or phone."""

    cluster: dict[str, Any] = Field(default_factory=dict)
    node: dict[str, Any] = Field(default_factory=dict)
    phone: dict[str, Any] = Field(default_factory=dict)


class Topology(Table):
    schema_version: Literal[1] = Field(alias="schema")
    title: str
    option_150: ClusterName
    """The cluster whose TFTP nodes DHCP names at first."""
    defaults: DefaultsTable = DefaultsTable()
    clusters: dict[Name, ClusterTable] = Field(min_length=1)
    phones: tuple[PhoneTable, ...] = ()
    dhcp: DhcpTable = DhcpTable()
    sftp: SftpTable = SftpTable()
    plain_servers: dict[Name, PlainServerTable] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _defaults_apply(cls, data: Any) -> Any:
        return with_defaults(data) if isinstance(data, dict) else data

    @field_validator("phones")
    @classmethod
    def _count_is_expanded(cls, phones: tuple[PhoneTable, ...]) -> tuple[PhoneTable, ...]:
        return tuple(one for phone in phones for one in phone.each())

    @model_validator(mode="after")
    def _names_agree(self) -> Topology:
        require_known((self.option_150,), self.clusters, "option_150", "cluster")
        for phone in self.phones:
            named = (*phone.provisioned_in, *((phone.lsc_from,) if phone.lsc_from else ()))
            require_known(named, self.clusters, f"phone {phone.name}", "cluster")
            for cluster in phone.provisioned_in:
                pools = (*self.clusters[cluster].device_pools, DEFAULT_POOL)
                require_known((phone.pool,), pools, f"phone {phone.name}, cluster {cluster}", "device pool")
        for name, pool in self.dhcp.pools.items():
            require_known(pool.option_150, self.node_names, f"DHCP pool {name}", "node")
        groups = dict.fromkeys((*self.phone_groups, DEFAULT_POOL))
        require_known(self.dhcp.pools, groups, "dhcp.pools", "group of phones")
        self._refuse_doubles()
        return self

    @property
    def node_names(self) -> tuple[str, ...]:
        return tuple(name for cluster in self.clusters.values() for name in cluster.node_names)

    @property
    def phone_groups(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(phone.group for phone in self.phones))

    def phones_named(self, name: str) -> tuple[PhoneTable, ...]:
        """One phone by device name, the phones of a group, or `all`. UsageError when that is none."""
        found = tuple(phone for phone in self.phones if name in (ALL_PHONES, phone.name, phone.group))
        if not found:
            known = ", ".join((ALL_PHONES, *self.phone_groups, *(phone.name for phone in self.phones[:5])))
            raise UsageError(f"no phone or group of phones {name!r}", mend=f"one of: {known}")
        return found

    def _refuse_doubles(self) -> None:
        nodes = [node for cluster in self.clusters.values() for node in cluster.nodes]
        servers = [self.dhcp.host, self.sftp.host, *(server.host for server in self.plain_servers.values())]
        hosts = [node.host for node in nodes] + [phone.host for phone in self.phones] + servers
        checks: tuple[tuple[str, list[str]], ...] = (
            ("host number", [str(host) for host in hosts]),
            ("node name", [node.name for node in nodes] + list(self.plain_servers)),
            ("phone", [phone.mac for phone in self.phones]),
        )
        for what, values in checks:
            doubles = sorted({value for value in values if values.count(value) > 1})
            if doubles:
                raise ValueError(f"{what} used twice: {', '.join(doubles)}")
        if max(hosts) > MAX_HOST:
            raise ValueError(f"host number {max(hosts)} does not fit into a /24: {MAX_HOST} is the last")


def require_known(names: Iterable[str], known: Iterable[str], where: str, what: str) -> None:
    """Raises ValueError that suggests the nearest name for the first of `names` that is not `known`."""
    choice = tuple(known)
    for name in names:
        if name not in choice:
            near = get_close_matches(name, choice, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(choice)}"
            raise ValueError(f"{where} names the {what} {name!r}; {hint}")


def with_defaults(data: dict[str, Any]) -> dict[str, Any]:
    """The topology's tables with what `[defaults]` says put in where they say nothing; wrong shapes are left alone."""
    defaults = data.get("defaults")
    if not isinstance(defaults, dict):
        return data
    given = {kind: defaults[kind] for kind in ("cluster", "node", "phone") if isinstance(defaults.get(kind), dict)}
    result = dict(data)
    if isinstance(data.get("clusters"), dict):
        result["clusters"] = {
            name: _cluster_with_defaults(cluster, given) for name, cluster in data["clusters"].items()
        }
    if isinstance(data.get("phones"), list | tuple):
        result["phones"] = [_merged(phone, given.get("phone", {})) for phone in data["phones"]]
    return result


def _cluster_with_defaults(cluster: Any, given: dict[str, dict[str, Any]]) -> Any:
    merged = _merged(cluster, given.get("cluster", {}))
    if isinstance(merged, dict) and isinstance(merged.get("nodes"), list | tuple):
        merged["nodes"] = [_merged(node, given.get("node", {})) for node in merged["nodes"]]
    return merged


def _merged(table: Any, defaults: dict[str, Any]) -> Any:
    return {**defaults, **table} if isinstance(table, dict) else table


def packaged(folder: str) -> dict[str, Path]:
    """The TOML files that come with the lab, by name; `folder` is `topologies` or `scenarios`."""
    root = Path(str(resources.files("lab"))) / folder
    return {path.stem: path for path in sorted(root.glob("*.toml"))}


_OTHER_KIND: Final = {"topologies": ("topology", "cucm-lab up"), "scenarios": ("scenario", "cucm-lab run")}


def packaged_file(folder: str, name: str) -> Path:
    """The packaged file of that name. Raises UsageError that suggests the nearest name, or lists all."""
    known = packaged(folder)
    if name in known:
        return known[name]
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"one of: {', '.join(known)}"
    what, other = {"scenarios": ("scenario", "topologies"), "topologies": ("topology", "scenarios")}[folder]
    if name in packaged(other):
        kind, command = _OTHER_KIND[other]
        raise UsageError(f"{name!r} is a {kind}, no {what}", mend=f"use it with `{command} {name}`; {what}: {hint}")
    raise UsageError(f"no {what} {name!r}", mend=f"{hint} (your own file: by its path, ending in .toml)")


def is_path(name_or_path: str) -> bool:
    """Whether it names a file of the user's (with a `/`, or ending in `.toml`), not a packaged one."""
    return "/" in name_or_path or name_or_path.endswith(".toml")


def load_topology(name_or_path: str) -> Topology:
    """A packaged topology by name, or any file by path. Raises UsageError."""
    path = Path(name_or_path) if is_path(name_or_path) else packaged_file("topologies", name_or_path)
    return read_toml(path, Topology)
