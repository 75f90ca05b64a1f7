"""What a lab consists of: a TOML file, checked at the edge, frozen inside.

A topology names clusters with their nodes, and phones. Addresses are written as host numbers inside the lab's
network, so that the same file serves any /24 of 127.0.0.0/8 and labs run side by side.
"""

from __future__ import annotations

import tomllib
from importlib import resources
from ipaddress import IPv4Network
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cucm.errors import UsageError
from cucm.net.tls import TlsProfile
from tvs_server.certificate_cache import FreshnessMode

DEFAULT_NETWORK = IPv4Network("127.0.11.0/24")
"""127.0.11.32 stands for the seed's 192.168.11.32."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
HostNumber = Annotated[int, Field(ge=1, le=254)]
HexSerial = Annotated[str, Field(pattern=r"^([0-9a-fA-F]{2}){1,20}$")]
MacAddress = Annotated[str, Field(pattern=r"^[0-9A-F]{12}$")]
Service = Literal["CallManager", "TVS", "TFTP", "CAPF"]


Model = TypeVar("Model", bound=BaseModel)


class Table(BaseModel):
    """Base of every table read from TOML: unknown keys are refused, values frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class CertificateTable(Table):
    """A CA-signed certificate as the seed shows one; without it a node's certificate is self-signed."""

    subject: str
    issuer: str
    serial: HexSerial | None = None
    der_length: Annotated[int, Field(ge=800, le=4000)] | None = None
    """Pads the lab watermark until the DER has this many bytes."""


class NodeTable(Table):
    name: Name
    host: HostNumber
    domain: str = ""
    services: tuple[Service, ...] = ("CallManager", "TVS", "TFTP", "CAPF")
    certificate: dict[Literal["CallManager"], CertificateTable] = Field(default_factory=dict)


class OrganizationTable(Table):
    """The organisation fields of the cluster's certificates, as its installer asked for them."""

    unit: str
    company: str
    locality: str
    state: str
    country: Annotated[str, Field(pattern=r"^[A-Z]{2}$")]


class ClusterTable(Table):
    version: str
    security_mode: Literal["mixed", "non-secure"] = "mixed"
    organization: OrganizationTable
    capf_name: Annotated[str, Field(pattern=r"^CAPF-[0-9a-f]{8}$")]
    tvs_cache: FreshnessMode = FreshnessMode.CHANGE_NOTIFICATION
    tls_profile: TlsProfile = TlsProfile.MODERN
    nodes: tuple[NodeTable, ...] = Field(min_length=1, max_length=1)
    """The publisher. Subscribers and replication are not emulated yet."""


class PhoneTable(Table):
    mac: MacAddress
    model: Name = "CP-8861"
    serial_number: Name
    host: HostNumber
    lsc_from: Name
    """The cluster whose CAPF issued the phone's LSC."""
    security_mode: Literal["non-secure", "authenticated", "encrypted"] = "encrypted"
    provisioned_in: tuple[Name, ...]
    tls_profile: TlsProfile = TlsProfile.MODERN

    @property
    def name(self) -> str:
        """The device name, `SEP` and the MAC address."""
        return f"SEP{self.mac}"


class Topology(Table):
    schema_version: Literal[1] = Field(alias="schema")
    title: str
    option_150: Name
    """The cluster whose TFTP nodes DHCP names at first."""
    clusters: dict[Name, ClusterTable] = Field(min_length=1)
    phones: tuple[PhoneTable, ...] = ()

    @model_validator(mode="after")
    def _names_agree(self) -> Topology:
        named = {self.option_150: "option_150"}
        for phone in self.phones:
            named |= dict.fromkeys((phone.lsc_from, *phone.provisioned_in), f"phone {phone.name}")
        for cluster, where in named.items():
            if cluster not in self.clusters:
                raise ValueError(f"{where} names the cluster {cluster!r}; there are: {', '.join(self.clusters)}")
        self._refuse_doubles()
        return self

    def _refuse_doubles(self) -> None:
        nodes = [node for cluster in self.clusters.values() for node in cluster.nodes]
        hosts = [node.host for node in nodes] + [phone.host for phone in self.phones]
        checks: tuple[tuple[str, list[str]], ...] = (
            ("host number", [str(host) for host in hosts]),
            ("node name", [node.name for node in nodes]),
            ("phone", [phone.mac for phone in self.phones]),
        )
        for what, values in checks:
            doubles = sorted({value for value in values if values.count(value) > 1})
            if doubles:
                raise ValueError(f"{what} used twice: {', '.join(doubles)}")


def packaged(folder: str) -> dict[str, Path]:
    """The TOML files that come with the lab, by name; `folder` is `topologies` or `scenarios`."""
    root = Path(str(resources.files("lab"))) / folder
    return {path.stem: path for path in sorted(root.glob("*.toml"))}


def read_toml(path: Path, model: type[Model]) -> Model:
    """Read and check one TOML file. Raises UsageError with the file, the place and what is expected there."""
    try:
        return model.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=str(path), mend="name a readable file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"is not TOML: {error}", where=str(path), mend="mend the syntax at that place") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the whole file"
        raise UsageError(
            f"{place}: {first['msg']}", where=str(path), mend=f"mend this place ({error.error_count()} in all)"
        ) from error


def load_topology(name_or_path: str) -> Topology:
    """A packaged topology by name, or any file by path (a name with a `/` or ending in `.toml`)."""
    if "/" in name_or_path or name_or_path.endswith(".toml"):
        return read_toml(Path(name_or_path), Topology)
    known = packaged("topologies")
    if name_or_path not in known:
        raise UsageError(
            f"no topology {name_or_path!r}", mend=f"one of: {', '.join(known)}, or the path of a TOML file"
        )
    return read_toml(known[name_or_path], Topology)
