"""Reads the phone's configuration file, `SEP<mac>.cnf.xml` or `XMLDefault.cnf.xml`, into a frozen value.

Facts 2.9 (TVS list), 7.7 (security mode, ports); element names [recall]. Unknown elements are skipped: real files carry
hundreds. What is there but makes no sense is an error, and the phone then keeps the configuration it had.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field
from functools import lru_cache
from typing import Final, NoReturn
from xml.etree.ElementTree import Element, ParseError, TreeBuilder

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser

from cucm.errors import DecodeError, LimitExceeded, WireError
from cucm.records import dataclass
from cucm.signalling import CAPF_PORT, SECURE_SIP_PORT, SIP_PORT, TVS_PORT, DeviceSecurityMode
from phone_agent.commands import TvsServer

MAX_KEPT_BYTES: Final = 64 * 1024
"""Ours: larger documents are taken apart each time."""
MAX_LENGTH: Final = 2048 * 1024
"""Download cap of the phone, bytes (facts 3.5)."""
MAX_ELEMENTS: Final = 20_000
"""Ours: real files have some hundreds."""
MAX_DEPTH: Final = 64
"""Ours."""
MAX_TVS_SERVERS: Final = 5
"""Priorities 0 to 4 (facts 2.9); what comes after them is not used [inferred]."""
MAX_ADDRESS_LENGTH: Final = 50
"""Characters (facts 2.9, for TVS; [inferred] for the others)."""
MAX_CALL_MANAGERS: Final = 5
"""Ours; a CallManager group has at most three [recall]."""
_FIRST_LINE: Final = "sipProfile/sipLines/line"
"""Where the digest credentials are [recall]."""


@dataclass(frozen=True, slots=True)
class CallManager:
    """A member of the phone's CallManager group. `address` is its `processNodeName`."""

    name: str
    address: str
    priority: int
    sip_port: int
    secured_sip_port: int


@dataclass(frozen=True, slots=True)
class CapfServer:
    address: str
    port: int


@dataclass(frozen=True, slots=True)
class PhoneConfiguration:
    """What the phone needs of its configuration. Servers are in priority order, lowest number first."""

    device_security_mode: DeviceSecurityMode
    call_managers: tuple[CallManager, ...]
    tvs_servers: tuple[TvsServer, ...]
    capf_servers: tuple[CapfServer, ...]
    version_stamp: str
    digest_user: str = ""
    digest_password: str = field(default="", repr=False)

    @property
    def wants_tls(self) -> bool:
        """Whether the device is authenticated or encrypted, which demands TLS on 5061 (facts 7.7)."""
        return self.device_security_mode is not DeviceSecurityMode.NON_SECURE


def parse_configuration(data: bytes) -> PhoneConfiguration:
    """Read a configuration file's XML.

    Raises `LimitExceeded` for a file too long, too deep or too full, `DecodeError` (with the byte offset) for what is
    no well-formed XML or has a document type or entities, and `WireError` (its `where` names the element) for values
    that make no sense.
    """
    # the phones of a pool hold the same document: taken apart once
    return _kept(data) if len(data) <= MAX_KEPT_BYTES else _parse(data)


def _parse(data: bytes) -> PhoneConfiguration:
    root = _parse_xml(data)
    if root.tag not in {"device", "Default"}:
        raise WireError(f"<{root.tag[:40]}> is no phone configuration: expected <device> or <Default>", where="/")
    group = root.find("devicePool/callManagerGroup") if root.tag == "device" else root.find("callManagerGroup")
    return PhoneConfiguration(
        device_security_mode=_security_mode(root),
        call_managers=_call_managers(group),
        tvs_servers=_tvs_servers(root.find("TVS")),
        capf_servers=tuple(
            CapfServer(_address(capf, "processNodeName", "capfList/capf"), _port(capf, "phonePort", CAPF_PORT))
            for capf in root.findall("capfList/capf")
        ),
        version_stamp=_text(root, "versionStamp"),
        digest_user=_text(root, f"{_FIRST_LINE}/authName"),
        digest_password=_text(root, f"{_FIRST_LINE}/authPassword"),
    )


class _BoundedTreeBuilder(TreeBuilder):
    """Stops a document that would cost far more memory than its bytes."""

    def __init__(self) -> None:
        super().__init__()
        self._elements = 0
        self._depth = 0

    def start(self, tag: str, attrs: dict[str, str]) -> Element:
        self._elements += 1
        self._depth += 1
        if self._elements > MAX_ELEMENTS:
            raise LimitExceeded(f"more than {MAX_ELEMENTS} XML elements", where=f"<{tag[:40]}>")
        if self._depth > MAX_DEPTH:
            raise LimitExceeded(f"XML elements nested more than {MAX_DEPTH} deep", where=f"<{tag[:40]}>")
        return super().start(tag, attrs)

    def end(self, tag: str) -> Element:
        self._depth -= 1
        return super().end(tag)


_kept: Final = lru_cache(maxsize=32)(_parse)


def _parse_xml(data: bytes) -> Element:
    if len(data) > MAX_LENGTH:
        raise LimitExceeded(f"a configuration of {len(data)} bytes; a phone takes at most {MAX_LENGTH}")
    parser = DefusedXMLParser(target=_BoundedTreeBuilder(), forbid_dtd=True)
    try:
        parser.feed(data)
        root: Element = parser.close()
    except ParseError as error:
        raise DecodeError(f"no well-formed XML ({error})", offset=_offset(data, error), path="") from error
    except DefusedXmlException as error:
        raise DecodeError(f"refused XML construct ({type(error).__name__})", offset=0, path="prolog") from error
    except (ValueError, LookupError, UnicodeError) as error:
        raise DecodeError(f"unusable XML encoding ({error})", offset=0, path="prolog") from error
    return root


def _offset(data: bytes, error: ParseError) -> int:
    line, column = error.position
    start = len(data) - len(data.split(b"\n", line - 1)[-1])  # at once: a file may have two million lines
    return min(start + column, len(data))


def _security_mode(root: Element) -> DeviceSecurityMode:
    """Absent (as in XMLDefault) means non-secure [inferred]."""
    number = _number(root, "deviceSecurityMode", DeviceSecurityMode.NON_SECURE)
    try:
        return DeviceSecurityMode(number)
    except ValueError:
        _refuse(f"{number} is no security mode: 1 non-secure, 2 authenticated, 3 encrypted", "deviceSecurityMode")


def _call_managers(group: Element | None) -> tuple[CallManager, ...]:
    found = []
    for priority, member in _members(group, "callManagerGroup"):
        element = member.find("callManager")
        if element is None:
            _refuse("a member without <callManager>", "callManagerGroup/members/member")
        ports = element.find("ports")
        address = _address(element, "processNodeName", "callManager")
        found.append(
            CallManager(
                name=_text(element, "name") or address,
                address=address,
                priority=priority,
                sip_port=_port(ports, "sipPort", SIP_PORT),
                secured_sip_port=_port(ports, "securedSipPort", SECURE_SIP_PORT),
            )
        )
    return tuple(sorted(found, key=lambda call_manager: call_manager.priority)[:MAX_CALL_MANAGERS])


def _tvs_servers(tvs: Element | None) -> tuple[TvsServer, ...]:
    found = [
        TvsServer(_address(member, "address", "TVS/members/member"), _port(member, "port", TVS_PORT), priority)
        for priority, member in _members(tvs, "TVS")
    ]
    return tuple(sorted(found, key=lambda server: server.priority)[:MAX_TVS_SERVERS])


def _members(parent: Element | None, path: str) -> Iterator[tuple[int, Element]]:
    """Each `member` with its priority; one without the attribute keeps its place in the list [inferred]."""
    members = [] if parent is None else parent.findall("members/member")
    for index, member in enumerate(members):
        text = member.get("priority", str(index))
        if not (text.isascii() and text.isdigit() and len(text) <= 5):
            _refuse(f"priority {text[:20]!r} is not a small number", f"{path}/members/member[{index + 1}]")
        yield int(text), member


def _address(parent: Element, tag: str, path: str) -> str:
    text = _text(parent, tag)
    if not text or len(text) > MAX_ADDRESS_LENGTH or any(character.isspace() for character in text):
        _refuse(f"{text[:60]!r} is no address of 1 to {MAX_ADDRESS_LENGTH} characters", f"{path}/{tag}")
    return text


def _port(parent: Element | None, tag: str, default: int) -> int:
    port = default if parent is None else _number(parent, tag, default)
    if not 1 <= port <= 65535:
        _refuse(f"{port} is no port number", tag)
    return port


def _number(parent: Element, tag: str, default: int) -> int:
    text = _text(parent, tag)
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        _refuse(f"{text[:20]!r} is not a number", tag)
    return int(text)


def _text(parent: Element, tag: str) -> str:
    return (parent.findtext(tag) or "").strip()


def _refuse(what: str, where: str) -> NoReturn:
    raise WireError(what, where=where, mend="correct the configuration file on the TFTP server")
