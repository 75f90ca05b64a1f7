"""The contents of a phone's flash as values, and as the manifest that a flash directory keeps of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import field, fields, replace
from typing import Any, Final, TypedDict

from cucm.errors import FlashError
from cucm.records import dataclass

FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class TvsCacheEntry:
    """A certificate that TVS vouched for: found by `issuer` and `serial`, good until `expires_at` (Unix seconds)."""

    issuer: str
    serial: bytes
    certificate: bytes
    roles: tuple[int, ...]
    expires_at: float


@dataclass(frozen=True, slots=True)
class DeviceIdentity:
    """A LSC or MIC: certificate and private key, both DER (the key PKCS#8, unencrypted)."""

    certificate: bytes
    private_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class FlashContents:
    """Everything a flash holds. `ctl_source` and `itl_source` are the servers the lists came from (facts 7.5)."""

    ctl: bytes | None = None
    itl: bytes | None = None
    configuration: bytes | None = None
    configuration_name: str | None = None
    tvs_cache: tuple[TvsCacheEntry, ...] = ()
    lsc: DeviceIdentity | None = None
    mic: DeviceIdentity | None = None
    tftp_servers: tuple[str, ...] = ()
    ctl_source: str | None = None
    itl_source: str | None = None

    @property
    def active_identity(self) -> DeviceIdentity | None:
        """The LSC; the MIC only as long as there is no LSC (facts 2.9)."""
        return self.lsc or self.mic


class FlashChanges(TypedDict, total=False):
    """Fields of `FlashContents` to replace."""

    ctl: bytes | None
    itl: bytes | None
    configuration: bytes | None
    configuration_name: str | None
    tvs_cache: tuple[TvsCacheEntry, ...]
    lsc: DeviceIdentity | None
    mic: DeviceIdentity | None
    tftp_servers: tuple[str, ...]
    ctl_source: str | None
    itl_source: str | None


_FIELDS: Final = frozenset(item.name for item in fields(FlashContents))


def changed(contents: FlashContents, changes: FlashChanges) -> FlashContents:
    """Raises FlashError for a field that a flash does not have."""
    unknown = changes.keys() - _FIELDS
    if unknown:
        raise FlashError(f"a flash has no {', '.join(sorted(unknown))}", mend="see FlashContents for what it has")
    return replace(contents, **changes)


def without_lists(contents: FlashContents) -> FlashContents:
    """Without CTL and ITL, where they came from, and what TVS said on their word."""
    return replace(contents, ctl=None, itl=None, ctl_source=None, itl_source=None, tvs_cache=())


def objects_of(contents: FlashContents) -> dict[str, bytes]:
    """Every byte string of the contents by its SHA-256 in hex."""
    blobs = [contents.ctl, contents.itl, contents.configuration, *(entry.certificate for entry in contents.tvs_cache)]
    for identity in (contents.lsc, contents.mic):
        if identity is not None:
            blobs += [identity.certificate, identity.private_key]
    return {hashlib.sha256(blob).hexdigest(): blob for blob in blobs if blob is not None}


def _digest(blob: bytes | None) -> str | None:
    return None if blob is None else hashlib.sha256(blob).hexdigest()


def _identity_digests(identity: DeviceIdentity | None) -> dict[str, str | None] | None:
    if identity is None:
        return None
    return {"certificate": _digest(identity.certificate), "private_key": _digest(identity.private_key)}


def encode_manifest(contents: FlashContents) -> bytes:
    """JSON: small values as they are, byte strings by their SHA-256, all under one check sum."""
    body: dict[str, Any] = {
        "format": FORMAT,
        "ctl": _digest(contents.ctl),
        "itl": _digest(contents.itl),
        "configuration": _digest(contents.configuration),
        "configuration_name": contents.configuration_name,
        "tvs_cache": [_encode_entry(entry) for entry in contents.tvs_cache],
        "lsc": _identity_digests(contents.lsc),
        "mic": _identity_digests(contents.mic),
        "tftp_servers": list(contents.tftp_servers),
        "ctl_source": contents.ctl_source,
        "itl_source": contents.itl_source,
    }
    return json.dumps({"check": _check_of(body), "body": body}, indent=1).encode()


def _encode_entry(entry: TvsCacheEntry) -> dict[str, Any]:
    return {
        "issuer": entry.issuer,
        "serial": entry.serial.hex(),
        "certificate": _digest(entry.certificate),
        "roles": list(entry.roles),
        "expires_at": entry.expires_at,
    }


def _check_of(body: Any) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def decode_manifest(text: bytes, read: Callable[[str], bytes]) -> FlashContents:
    """Raises ValueError and its like for a damaged manifest, and what `read` raises.

    The check sum is over the values, so whatever passes it was written by `encode_manifest`.
    """
    manifest = json.loads(text)
    body = manifest["body"]
    if manifest["check"] != _check_of(body):
        raise ValueError("the check sum does not match")
    if body["format"] != FORMAT:
        raise ValueError(f"format {body['format']} was written by another version, this one knows {FORMAT}")

    def blob(digest: str | None) -> bytes | None:
        return None if digest is None else read(digest)

    def identity(digests: dict[str, str] | None) -> DeviceIdentity | None:
        return None if digests is None else DeviceIdentity(read(digests["certificate"]), read(digests["private_key"]))

    return FlashContents(
        ctl=blob(body["ctl"]),
        itl=blob(body["itl"]),
        configuration=blob(body["configuration"]),
        configuration_name=body["configuration_name"],
        tvs_cache=tuple(_decode_entry(entry, read) for entry in body["tvs_cache"]),
        lsc=identity(body["lsc"]),
        mic=identity(body["mic"]),
        tftp_servers=tuple(body["tftp_servers"]),
        ctl_source=body["ctl_source"],
        itl_source=body["itl_source"],
    )


def _decode_entry(entry: dict[str, Any], read: Callable[[str], bytes]) -> TvsCacheEntry:
    return TvsCacheEntry(
        issuer=entry["issuer"],
        serial=bytes.fromhex(entry["serial"]),
        certificate=read(entry["certificate"]),
        roles=tuple(entry["roles"]),
        expires_at=entry["expires_at"],
    )
