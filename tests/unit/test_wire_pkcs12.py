"""PKCS#12 files made by hand: each asks a library for something that it would give."""

from __future__ import annotations

import os

import pytest
from cryptography.hazmat.primitives import hashes, padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

from cucm.errors import DecodeError, LimitExceeded
from cucm.wire.pkcs12 import MAX_ALGORITHM, MAX_PARTS, require_certificates_alone

PASSWORD = b"both know it"
MOST = 5000
DATA, ENCRYPTED = "2a864886f70d010701", "2a864886f70d010706"
CERTIFICATE, KEY, SHROUDED_KEY, NESTED = (f"2a864886f70d010c0a01{kind}" for kind in ("03", "01", "02", "06"))
PBES2, PBKDF2, SCRYPT, AES_256 = "2a864886f70d01050d", "2a864886f70d01050c", "2b06010401da47040b", "60864801650304012a"
HMAC_SHA256, HMAC_MD5 = "2a864886f70d0209", "2a864886f70d0206"


def der(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    length = len(content).to_bytes(4)
    return bytes([tag, 0x84]) + length + content


def sequence(*parts: bytes) -> bytes:
    return der(0x30, *parts)


def oid(text: str) -> bytes:
    return der(6, bytes.fromhex(text))


def number(value: int) -> bytes:
    return der(2, value.to_bytes(8))


def bag(kind: str, *content: bytes) -> bytes:
    return sequence(oid(kind), der(0xA0, *content))


def plain(*bags: bytes, octets: int = 4) -> bytes:
    return sequence(oid(DATA), der(0xA0, der(octets, sequence(*bags))))


def encrypted(
    *bags: bytes,
    iterations: int = 1000,
    scheme: str = PBES2,
    function: str = PBKDF2,
    cipher: str = AES_256,
    prf: str = HMAC_SHA256,
    salt: bytes = b"salt",
    password: bytes = PASSWORD,
) -> bytes:
    vector = os.urandom(16)
    key = PBKDF2HMAC(hashes.SHA256(), 32, salt, min(iterations, MOST)).derive(password)
    pad = padding.PKCS7(128).padder()
    encryptor = Cipher(algorithms.AES(key), modes.CBC(vector)).encryptor()
    text = encryptor.update(pad.update(sequence(*bags)) + pad.finalize()) + encryptor.finalize()
    settings = sequence(der(4, salt), number(iterations), sequence(oid(prf), b"\x05\x00"))
    parameters = sequence(sequence(oid(function), settings), sequence(oid(cipher), der(4, vector)))
    algorithm = sequence(oid(scheme), parameters)
    content = sequence(oid(DATA), algorithm, der(0x80, text))
    return sequence(oid(ENCRYPTED), der(0xA0, sequence(number(0), content)))


def file(*parts: bytes, authentication: bytes = b"", version: bytes | None = None) -> bytes:
    safe = sequence(oid(DATA), der(0xA0, der(4, sequence(*parts))))
    return sequence(number(3) if version is None else version, safe, authentication)


def authentication(iterations: int, salt: bytes = b"salt") -> bytes:
    return sequence(sequence(sequence(oid(HMAC_SHA256)), der(4, bytes(32))), der(4, salt), number(iterations))


GOOD = bag(CERTIFICATE, b"\x05\x00")


def check(data: bytes) -> None:
    require_certificates_alone(data, PASSWORD, MOST)


@pytest.mark.parametrize(
    "data",
    [
        file(),
        file(plain(GOOD), encrypted(GOOD, GOOD)),
        file(encrypted(GOOD, iterations=MOST), authentication=authentication(MOST)),
        file(*[encrypted(GOOD)] * MAX_PARTS),
    ],
)
def test_certificates_alone_may_pass(data: bytes) -> None:
    check(data)


@pytest.mark.parametrize("kind", [KEY, SHROUDED_KEY])
@pytest.mark.parametrize("part", [plain, encrypted])
def test_private_keys_wherever_they_hide(kind: str, part: object) -> None:
    assert callable(part)
    with pytest.raises(DecodeError, match="private key"):
        check(file(plain(GOOD), part(GOOD, bag(kind, b"\x05\x00"))))


@pytest.mark.parametrize("part", [plain, encrypted])
def test_bags_within_bags_are_not_looked_for(part: object) -> None:
    assert callable(part)
    with pytest.raises(DecodeError, match="something else"):
        check(file(part(bag(NESTED, sequence(bag(SHROUDED_KEY))))))
    with pytest.raises(DecodeError, match="something else"):
        check(file(part(sequence())))


@pytest.mark.parametrize(
    "data",
    [
        file(encrypted(GOOD, iterations=MOST + 1)),
        file(encrypted(GOOD), encrypted(GOOD, iterations=2**31)),
        file(plain(GOOD), authentication=authentication(MOST + 1)),
    ],
)
def test_what_is_dear_is_not_decrypted(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cucm.wire.pkcs12.PBKDF2HMAC", lambda *_: pytest.fail("a key was derived"))
    with pytest.raises(LimitExceeded, match="iterations"):
        check(data)


def test_many_cheap_parts_are_dear_together() -> None:
    with pytest.raises(LimitExceeded, match=f"{MAX_PARTS + 1} parts"):
        check(file(*[encrypted(GOOD)] * (MAX_PARTS + 1)))


@pytest.mark.parametrize(
    "data",
    [
        file(encrypted(GOOD, salt=bytes(MAX_ALGORITHM))),
        file(plain(GOOD), authentication=authentication(1, bytes(MAX_ALGORITHM))),
    ],
)
def test_algorithms_are_short(data: bytes) -> None:
    with pytest.raises(LimitExceeded, match="an algorithm"):
        check(data)


@pytest.mark.parametrize("change", [{"scheme": KEY}, {"function": SCRYPT}, {"cipher": KEY}, {"prf": HMAC_MD5}])
def test_other_protection_is_not_understood(change: dict[str, str]) -> None:
    with pytest.raises(DecodeError, match="not a PKCS#12 file that is understood"):
        check(file(encrypted(GOOD, **change)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        file(plain(GOOD)) * 2,
        file(plain(GOOD), version=der(4, b"3")),
        file(plain(GOOD), authentication=authentication(1) * 2),
        file(plain(GOOD, octets=0x24)),
        file(sequence(oid(KEY), der(0xA0, der(4, sequence())))),
        file(sequence(oid(ENCRYPTED), der(0xA0, sequence(number(0), sequence(oid(DATA)))))),
        file(sequence()),
        file(encrypted(GOOD, password=b"another")),
        file(encrypted(GOOD))[:-1],
    ],
)
def test_what_is_damaged(data: bytes) -> None:
    with pytest.raises((DecodeError, ValueError)):
        check(data)
