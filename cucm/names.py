"""Distinguished names and serial numbers as text, in the forms CUCM, its database and OpenSSL use.

Cisco's form (CTL, ITL, TVS) joins the parts with `;` and no space, in the order of the certificate; the database
keeps the reverse order with commas; phone consoles print OpenSSL's one-line form (facts 3.4, 5.4, 7.7).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID, ObjectIdentifier

from cucm.errors import UsageError

ATTRIBUTE_TYPES: Final[dict[str, ObjectIdentifier]] = {
    "CN": NameOID.COMMON_NAME,
    "OU": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "O": NameOID.ORGANIZATION_NAME,
    "L": NameOID.LOCALITY_NAME,
    "ST": NameOID.STATE_OR_PROVINCE_NAME,
    "C": NameOID.COUNTRY_NAME,
    "serialNumber": NameOID.SERIAL_NUMBER,
    "DC": NameOID.DOMAIN_COMPONENT,
    "UID": NameOID.USER_ID,
    "street": NameOID.STREET_ADDRESS,
    "postalCode": NameOID.POSTAL_CODE,
    "SN": NameOID.SURNAME,
    "GN": NameOID.GIVEN_NAME,
    "title": NameOID.TITLE,
    "emailAddress": NameOID.EMAIL_ADDRESS,
}
"""Attribute types by OpenSSL's short name."""
DATABASE_ORDER: Final = ("L", "ST", "CN", "OU", "O", "C")
_SHORT_NAMES: Final = {oid: text for text, oid in ATTRIBUTE_TYPES.items()}
_BY_LOWER_NAME: Final = {text.lower(): oid for text, oid in ATTRIBUTE_TYPES.items()} | {
    "s": NameOID.STATE_OR_PROVINCE_NAME,
    "e": NameOID.EMAIL_ADDRESS,
}
_MAX_REMEMBERED_NAME: Final = 1024
"""Longer ones, which only strangers send, are worked out anew: 64 KiB of them would be megabytes in the cache, each."""
_TYPE: Final = re.compile(r"\s*([A-Za-z][A-Za-z0-9-]*|\d+(?:\.\d+)+)\s*=")
_NEEDS_QUOTES: Final = re.compile(r'[;,"]|^\s|\s$')


def cisco_name(name: x509.Name) -> str:
    """`CN=..;OU=..;O=..`, in the order of the certificate.

    A value with a separator, a quote or outer spaces is put in double quotes (facts 3.4 shows the last; the
    first two [inferred]).
    """
    return ";".join(_parts(name, quote=True))


def database_name(name: x509.Name) -> str:
    """`L=..,ST=..,CN=..,OU=..,O=..,C=..`, as the `certificate` table has it, whatever the order in the certificate.

    Facts 3.4 shows the first three; the others [inferred]. Any other part comes after them.
    """
    return ",".join(sorted(_parts(name, quote=True), key=_database_place))


def openssl_oneline(name: x509.Name) -> str:
    """`/serialNumber=../C=../O=..`, as phone consoles print names (facts 7.7)."""
    return "".join(f"/{part}" for part in _parts(name, quote=False))


def parse_name(text: str) -> x509.Name:
    """The name for text with `;` or `,` between the parts (`;` wins if both occur), in the order given.

    UsageError if a part is no known attribute or X.509 does not allow its value.
    """
    try:
        return x509.Name([_attribute(kind, value) for kind, value in _pairs(text)])
    except ValueError as error:
        raise UsageError(
            f"not a usable name: {error}", where=repr(text), mend="write it like CN=host;OU=unit;O=company;C=AU"
        ) from error


def name_key(text: str) -> tuple[tuple[str, str], ...]:
    """What two spellings of one name have in common: case of the types, separators and extra spaces are gone.

    Never raises; text that is no name is compared as it stands. The order of the parts counts.
    """
    return _known_name_key(text) if len(text) <= _MAX_REMEMBERED_NAME else _name_key(text)


def _name_key(text: str) -> tuple[tuple[str, str], ...]:
    return tuple((_canonical_type(kind), " ".join(value.split())) for kind, value in _pairs(text))


_known_name_key: Final = lru_cache(maxsize=4096)(_name_key)


def same_name(a: str, b: str) -> bool:
    """Whether two texts name the same thing, whatever their separators and spaces (facts 3.3, 3.4)."""
    return a == b or name_key(a) == name_key(b)


def common_name(name: x509.Name) -> str | None:
    """The (first) CN, or None."""
    for attribute in name:
        if attribute.oid == NameOID.COMMON_NAME:
            return _text(attribute.value)
    return None


def serial_bytes(certificate: x509.Certificate) -> bytes:
    """The serial number, big-endian, without a sign byte (facts 2.3)."""
    return serial_from_number(certificate.serial_number)


def serial_from_number(number: int) -> bytes:
    """Big-endian bytes of a positive number, as few as hold it (at least one)."""
    return number.to_bytes(max(1, (number.bit_length() + 7) // 8), "big")


def serial_hex(serial: bytes) -> str:
    """Upper-case hex, as in the keys of the TVS cache (facts 2.7)."""
    return serial.hex().upper()


def same_serial(a: bytes, b: bytes) -> bool:
    """Whether two serials are one number; a sign byte in front, which other generators write, does not count."""
    return a.lstrip(b"\0") == b.lstrip(b"\0")


def _parts(name: x509.Name, *, quote: bool) -> Iterator[str]:
    for rdn in name.rdns:
        parts = [f"{_short_name(item.oid)}={_value(item.value, quote=quote)}" for item in rdn]
        yield parts[0] if len(parts) == 1 else "+".join(parts)


def _database_place(part: str) -> int:
    kind = part.partition("=")[0]
    return DATABASE_ORDER.index(kind) if kind in DATABASE_ORDER else len(DATABASE_ORDER)


def _short_name(oid: ObjectIdentifier) -> str:
    return _SHORT_NAMES.get(oid) or oid.dotted_string


def _value(value: str | bytes, *, quote: bool) -> str:
    text = _text(value)
    if quote and _NEEDS_QUOTES.search(text):
        return '"' + text.replace('"', '""') + '"'
    return text


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else "#" + value.hex()


def _pairs(text: str) -> list[tuple[str, str]]:
    """(type, value) of each part, as written but for quotes and outer spaces; a part without `type=` has type ''."""
    return [_split_pair(piece) for piece in _pieces(text) if piece.strip()]


def _pieces(text: str) -> list[str]:
    """Split at `;`, else at `,`, outside quotes only. A quote may stay open: Cisco cuts names (facts 3.4)."""
    pieces = _split_outside_quotes(text, ";")
    return pieces if len(pieces) > 1 else _rejoin(_split_outside_quotes(text, ","))


def _split_outside_quotes(text: str, separator: str) -> list[str]:
    pieces, start, quoted = [], 0, False
    for position, character in enumerate(text):
        if character == '"':
            quoted = not quoted
        elif character == separator and not quoted:
            pieces.append(text[start:position])
            start = position + 1
    return [*pieces, text[start:]]


def _rejoin(pieces: Iterable[str]) -> list[str]:
    """Give `O=Stormin, Inc` its comma back: a piece that starts no attribute continues the one before."""
    joined: list[str] = []
    for piece in pieces:
        if joined and piece.strip() and not _TYPE.match(piece):
            joined[-1] += "," + piece
        else:
            joined.append(piece)
    return joined


def _split_pair(piece: str) -> tuple[str, str]:
    match = _TYPE.match(piece)
    if match is None:
        return "", piece.strip()
    return match[1], _unquote(piece[match.end() :].strip())


def _unquote(value: str) -> str:
    if not value.startswith('"'):
        return value
    inner = value[1:-1] if len(value) > 1 and value.endswith('"') else value[1:]
    return inner.replace('""', '"')


def _canonical_type(kind: str) -> str:
    oid = _BY_LOWER_NAME.get(kind.lower())
    return _SHORT_NAMES[oid] if oid else kind.lower()


def _attribute(kind: str, value: str) -> x509.NameAttribute[str]:
    oid = _BY_LOWER_NAME.get(kind.lower())
    if oid is None and "." not in kind:
        raise ValueError(f"{kind or value!r} is no attribute type known here")
    return x509.NameAttribute(oid or ObjectIdentifier(kind), value)
