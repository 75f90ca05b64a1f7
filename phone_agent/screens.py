"""What a person reads on a phone: the Status screen, and the security menu with its trust lists (facts 7.5).

Labels in quotation marks in facts 7.5 are Cisco's: `Security Mode`, `LSC`, `Trust List`, `CTL file`, `ITL file`,
`Configuration`, `CTL Signature`, `Unified CM / TFTP Server`, `CAPF Server`, `SRST Router`. How the rest of a screen is
worded and laid out is UNKNOWN here; icons (padlock, certificate) are words.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from cucm.errors import WireError
from cucm.records import dataclass
from cucm.roles import FUNCTION_TEXTS, TrustRole
from cucm.signalling import DeviceSecurityMode
from cucm.wire.trust_list import Record, decode_trust_list
from phone_agent.configuration import parse_configuration
from phone_agent.driver import Phone
from phone_agent.flash import Flash
from phone_agent.flash_export import CertificateView, FlashView, read_export

NOT_INSTALLED: Final = "Not Installed"
"""As in the alarm of facts 7.6."""
INSTALLED: Final = "Installed"
_LABELS: Final = MappingProxyType(
    {
        TrustRole.CALLMANAGER: "Unified CM / TFTP Server",
        TrustRole.CALLMANAGER_TFTP: "Unified CM / TFTP Server",
        TrustRole.TFTP: "Unified CM / TFTP Server",
        TrustRole.CAPF: "CAPF Server",
        TrustRole.SRST: "SRST Router",
        TrustRole.TVS: "TVS",
    }
)
"""What the menu calls a TVS record, and whether it shows it, is UNKNOWN."""
_MODES: Final = MappingProxyType(
    {
        DeviceSecurityMode.NON_SECURE: "Non Secure",
        DeviceSecurityMode.AUTHENTICATED: "Authenticated",
        DeviceSecurityMode.ENCRYPTED: "Encrypted",
    }
)
"""Words of the menu [recall]."""


@dataclass(frozen=True, slots=True)
class ListEntry:
    """A record of a trust list. `name` is empty for a blank one (facts 7.3: the phone shows blank entries)."""

    label: str
    name: str
    has_certificate: bool


@dataclass(frozen=True, slots=True)
class ListScreen:
    """`signature` is the file's SHA-1 as the alarm writes it, `Not Installed` without a file; `problem` says why a file
    that is there cannot be shown.
    """

    title: str
    signature: str
    server: str | None = None
    signer: str | None = None
    entries: tuple[ListEntry, ...] = ()
    problem: str | None = None

    def lines(self) -> list[str]:
        kind = self.title.partition(" ")[0]
        shown = [f"{self.title}", f"  {kind} Signature: {self.signature}"]
        shown += [f"  from {self.server}"] if self.server else []
        shown += [f"  signed by {self.signer}"] if self.signer else []
        shown += [f"  cannot be read: {self.problem}"] if self.problem else []
        return shown + [f"  {entry.label}: {entry.name}".rstrip() for entry in self.entries]


@dataclass(frozen=True, slots=True)
class StatusScreen:
    """Messages oldest first; `configuration` is the name of the one in force; `registered_with` None when nowhere."""

    messages: tuple[str, ...]
    configuration: str | None
    tftp_servers: tuple[str, ...]
    state: str | None = None
    registered_with: str | None = None

    def lines(self) -> list[str]:
        return [
            "Status",
            *([f"  state: {self.state}"] if self.state else []),
            *([f"  registered with {self.registered_with}"] if self.registered_with else []),
            f"  configuration: {self.configuration or 'none'}",
            f"  TFTP servers: {', '.join(self.tftp_servers) or 'none'}",
            "Status messages",
            *(f"  {message}" for message in self.messages),
        ]


@dataclass(frozen=True, slots=True)
class SecurityMenu:
    """`security_mode` is what the configuration in force asks for; None without one."""

    security_mode: str | None
    lsc: CertificateView | None
    mic: CertificateView | None
    ctl: ListScreen
    itl: ListScreen
    configuration: str | None

    def lines(self) -> list[str]:
        lists = [*self.ctl.lines(), *self.itl.lines(), f"Configuration: {self.configuration or NOT_INSTALLED}"]
        return [
            "Security setup",
            f"  Security Mode: {self.security_mode or 'none'}",
            f"  LSC: {_installed(self.lsc)}",
            f"  MIC: {_installed(self.mic)}",
            "Trust List",
            *(f"  {line}" for line in lists),
        ]


@dataclass(frozen=True, slots=True)
class PhoneScreens:
    """All that a phone shows. Names come from files and servers: make the lines printable for a terminal."""

    status: StatusScreen
    security: SecurityMenu

    def lines(self) -> list[str]:
        return [*self.status.lines(), *self.security.lines()]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def screens_of(phone: Phone) -> PhoneScreens:
    """The screens of a phone as it is now, powered or not."""
    view = FlashView.of(phone.flash.contents)
    status = StatusScreen(
        phone.status_messages,
        view.configuration_name,
        view.tftp_servers,
        phone.state,
        phone.registered_with,
    )
    return PhoneScreens(status, security_menu(view))


def screens_of_folder(directory: Path) -> PhoneScreens:
    """The screens of an exported flash, or of a flash directory; messages are not kept there. Raises FlashError."""
    is_flash = (directory / "manifest.json").is_file()
    view = FlashView.of(Flash(directory).contents) if is_flash else read_export(directory)
    return PhoneScreens(StatusScreen((), view.configuration_name, view.tftp_servers), security_menu(view))


def security_menu(view: FlashView) -> SecurityMenu:
    return SecurityMenu(
        security_mode=_security_mode(view.configuration),
        lsc=view.lsc,
        mic=view.mic,
        ctl=_list_screen("CTL file", view.ctl, view.ctl_source),
        itl=_list_screen("ITL file", view.itl, view.itl_source),
        configuration=view.configuration_name,
    )


def list_signature(data: bytes | None) -> str:
    """SHA-1 of a trust list as the alarm of facts 7.6 writes it, without the space at its end."""
    return NOT_INSTALLED if data is None else hashlib.sha1(data).digest().hex(" ").upper()


def _list_screen(title: str, data: bytes | None, server: str | None) -> ListScreen:
    signature = list_signature(data)
    if data is None:
        return ListScreen(title, signature)
    try:
        trust_list = decode_trust_list(data)
    except WireError as error:
        return ListScreen(title, signature, server, problem=str(error))
    entries = tuple(_entry(record) for record in trust_list.records)
    return ListScreen(title, signature, server, trust_list.signer.subject, entries)


def _entry(record: Record) -> ListEntry:
    name = record.dns_name or record.ip_address or record.subject or ""
    is_blank = record.certificate is None and record.subject is None
    return ListEntry(_label(record.function), "" if is_blank else name, record.certificate is not None)


def _label(function: int) -> str:
    try:
        role = TrustRole(function)
    except ValueError:
        return f"function {function}"
    return _LABELS.get(role) or FUNCTION_TEXTS.get(role) or role.name


def _security_mode(configuration: bytes | None) -> str | None:
    if configuration is None:
        return None
    try:
        return _MODES[parse_configuration(configuration).device_security_mode]
    except WireError:
        return None


def _installed(certificate: CertificateView | None) -> str:
    if certificate is None:
        return NOT_INSTALLED
    return f"{INSTALLED} ({certificate.subject}, issued by {certificate.issuer})"
