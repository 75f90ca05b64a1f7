"""A phone's flash for people to look at: lists and configuration as files, a `status.json`, no private keys."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Final, Self

from cucm.errors import FlashError, WireError
from cucm.identity import describe
from cucm.records import dataclass
from phone_agent.flash_contents import DeviceIdentity, FlashContents

MAX_OBJECT: Final = 4 * 1024 * 1024
"""Bytes; twice what a phone downloads at most (facts 3.5)."""
STATUS_FILE: Final = "status.json"
CTL_FILE: Final = "CTLFile.tlv"
ITL_FILE: Final = "ITLFile.tlv"
_MEND: Final = "export the phone's flash again"


@dataclass(frozen=True, slots=True)
class CertificateView:
    """Who a LSC or MIC is of and from; `sha1` in hex. Names are empty for one that cannot be read."""

    subject: str
    issuer: str
    sha1: str

    @classmethod
    def of(cls, identity: DeviceIdentity | None) -> Self | None:
        return None if identity is None else cls.from_der(identity.certificate)

    @classmethod
    def from_der(cls, certificate: bytes) -> Self:
        sha1 = hashlib.sha1(certificate).hexdigest()
        try:
            known = describe(certificate)
        except WireError:
            return cls("", "", sha1)
        return cls(known.subject, known.issuer, sha1)


@dataclass(frozen=True, slots=True)
class FlashView:
    """What of a flash may be shown: everything but keys and TVS's answers."""

    ctl: bytes | None = None
    itl: bytes | None = None
    ctl_source: str | None = None
    itl_source: str | None = None
    configuration: bytes | None = None
    configuration_name: str | None = None
    tftp_servers: tuple[str, ...] = ()
    lsc: CertificateView | None = None
    mic: CertificateView | None = None

    @classmethod
    def of(cls, contents: FlashContents) -> Self:
        return cls(
            ctl=contents.ctl,
            itl=contents.itl,
            ctl_source=contents.ctl_source,
            itl_source=contents.itl_source,
            configuration=contents.configuration,
            configuration_name=contents.configuration_name,
            tftp_servers=contents.tftp_servers,
            lsc=CertificateView.of(contents.lsc),
            mic=CertificateView.of(contents.mic),
        )


def export_contents(contents: FlashContents, directory: Path) -> None:
    """Write `CTLFile.tlv`, `ITLFile.tlv`, the configuration under its own name, and `status.json`.

    A list that the flash does not hold is removed from `directory` if an earlier export left it there.
    Raises FlashError.
    """
    name = contents.configuration_name or "configuration"
    if Path(name).name != name:
        raise FlashError(f"{name!r} is no file name", where="configuration_name", mend="erase the phone's flash")
    files = {CTL_FILE: contents.ctl, ITL_FILE: contents.itl, name: contents.configuration}
    status = json.dumps(_status(contents), indent=2).encode()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for file_name, content in (files | {STATUS_FILE: status}).items():
            if content is None:
                (directory / file_name).unlink(missing_ok=True)
            else:
                (directory / file_name).write_bytes(content)
    except OSError as error:
        raise FlashError(
            f"the flash cannot be exported: {error.strerror}", where=str(directory), mend="give a folder to write into"
        ) from error


def read_export(directory: Path) -> FlashView:
    """What `export_contents` has written there. Raises FlashError."""
    try:
        status = json.loads(_read(directory / STATUS_FILE) or b"")
        name = _text(status["configuration"])
        return FlashView(
            ctl=_read(directory / CTL_FILE),
            itl=_read(directory / ITL_FILE),
            ctl_source=_text((status["ctl"] or {}).get("server")),
            itl_source=_text((status["itl"] or {}).get("server")),
            configuration=_read(directory / _plain_name(name)) if name else None,
            configuration_name=name,
            tftp_servers=tuple(str(server) for server in status["tftp_servers"]),
            lsc=_certificate(status.get("lsc")),
            mic=_certificate(status.get("mic")),
        )
    except OSError as error:
        raise FlashError(f"cannot be read: {error.strerror}", where=str(directory), mend=_MEND) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FlashError(f"holds no exported flash: {error}", where=str(directory), mend=_MEND) from error


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_OBJECT + 1)
    except FileNotFoundError:
        return None
    if len(content) > MAX_OBJECT:
        raise ValueError(f"{path.name} is larger than {MAX_OBJECT} bytes")
    return content


def _plain_name(name: str) -> str:
    if Path(name).name != name:
        raise ValueError(f"{name!r} is no file name")
    return name


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _certificate(value: Any) -> CertificateView | None:
    return None if value is None else CertificateView(**{key: str(text) for key, text in value.items()})


def _status(contents: FlashContents) -> dict[str, Any]:
    """What a person asks a phone: the lists' SHA-1 is its menu's `CTL Signature` (facts 7.5)."""
    return {
        "ctl": _list_status(contents.ctl, contents.ctl_source),
        "itl": _list_status(contents.itl, contents.itl_source),
        "configuration": contents.configuration_name,
        "configuration_bytes": None if contents.configuration is None else len(contents.configuration),
        "tftp_servers": list(contents.tftp_servers),
        "lsc": _identity_status(contents.lsc),
        "mic": _identity_status(contents.mic),
        "tvs_cache": [
            {
                "issuer": entry.issuer,
                "serial": entry.serial.hex(),
                "roles": list(entry.roles),
                "expires_at": entry.expires_at,
            }
            for entry in contents.tvs_cache
        ],
    }


def _list_status(content: bytes | None, source: str | None) -> dict[str, Any] | None:
    if content is None:
        return None
    return {"bytes": len(content), "sha1": hashlib.sha1(content).hexdigest(), "server": source}


def _identity_status(identity: DeviceIdentity | None) -> dict[str, str] | None:
    view = CertificateView.of(identity)
    return None if view is None else {"subject": view.subject, "issuer": view.issuer, "sha1": view.sha1}
