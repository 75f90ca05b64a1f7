"""What a lab consists of: a TOML file, checked at the edge, frozen inside.

A topology names clusters with their nodes, and phones. Addresses are written as host numbers inside the lab's
network, so that the same file serves any /24 of 127.0.0.0/8 and labs run side by side.
"""

from __future__ import annotations

import tomllib
from difflib import get_close_matches
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
MAX_TOML = 1024 * 1024
MAX_PROBLEMS = 4
"""Told of one file; the others are often their consequences."""

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


def packaged_file(folder: str, name: str) -> Path:
    """The packaged file of that name. Raises UsageError that suggests the nearest name, or lists all."""
    known = packaged(folder)
    if name in known:
        return known[name]
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"one of: {', '.join(known)}"
    what = {"scenarios": "scenario", "topologies": "topology"}[folder]
    raise UsageError(f"no {what} {name!r}", mend=f"{hint} (your own file: by its path, ending in .toml)")


def is_path(name_or_path: str) -> bool:
    """Whether it names a file of the user's (with a `/`, or ending in `.toml`), not a packaged one."""
    return "/" in name_or_path or name_or_path.endswith(".toml")


def read_toml(path: Path, model: type[Model]) -> Model:
    """Read and check one TOML file. Raises UsageError with the file, the places and what is expected there."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_TOML + 1)
        if len(data) > MAX_TOML:
            raise UsageError(f"is larger than {MAX_TOML} bytes", where=str(path), mend="name a TOML file")
        return model.model_validate(tomllib.loads(data.decode("utf-8")))
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=str(path), mend="name a readable file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"is not TOML: {error}", where=str(path), mend="mend the syntax at that place") from error
    except ValidationError as error:
        raise UsageError(_problems(error), where=str(path), mend="mend these places, counted from 1") from error


def _problems(error: ValidationError) -> str:
    """`acts[1].steps[2].phone: Field required; ...`, the unknown words first: they explain what is missing."""
    found = error.errors(include_url=False)
    # a list is "too short" when its items are wrong: only the innermost place is the reader's
    problems = [one for one in found if not any(_is_inside(other["loc"], one["loc"]) for other in found)]
    problems.sort(key=lambda problem: problem["type"] != "extra_forbidden")
    told = [f"{_place(problem['loc'])}: {problem['msg']}" for problem in problems[:MAX_PROBLEMS]]
    rest = [f"and {len(problems) - MAX_PROBLEMS} more"] if len(problems) > MAX_PROBLEMS else []
    return "; ".join([*told, *rest])


def _is_inside(place: tuple[int | str, ...], outer: tuple[int | str, ...]) -> bool:
    return len(place) > len(outer) and place[: len(outer)] == outer


def _place(location: tuple[int | str, ...]) -> str:
    text = "".join(f"[{part + 1}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.removeprefix(".") or "the whole file"


def load_topology(name_or_path: str) -> Topology:
    """A packaged topology by name, or any file by path. Raises UsageError."""
    path = Path(name_or_path) if is_path(name_or_path) else packaged_file("topologies", name_or_path)
    return read_toml(path, Topology)
