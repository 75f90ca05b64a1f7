"""A look through a PKCS#12 file (RFC 7292) before a library opens it: nothing but certificates, and cheap to decrypt.

A library derives a key wherever a file asks for it, as often as the file says: 2^31 iterations are minutes, and a
private key may ask anew in the parts that are themselves encrypted. So those are decrypted here, with bounded work.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from cryptography.hazmat.primitives import hashes, padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

from cucm.errors import DecodeError, LimitExceeded
from cucm.wire.der import Element, integers_within, read_elements

MAX_PARTS: Final = 4
"""Groups of certificates, each with a key of its own; ours. OpenSSL and `cryptography` write one."""
MAX_ALGORITHM: Final = 1024
"""Bytes that name an algorithm and its parameters; ours."""

_SEQUENCE: Final = 0x30
_OCTETS: Final = 0x04
_OID: Final = 0x06
_INTEGER: Final = 0x02
_EXPLICIT_0: Final = 0xA0
_IMPLICIT_0: Final = 0x80

_DATA: Final = bytes.fromhex("2a864886f70d010701")
_ENCRYPTED_DATA: Final = bytes.fromhex("2a864886f70d010706")
_CERTIFICATE_BAG: Final = bytes.fromhex("2a864886f70d010c0a0103")
_KEY_BAGS: Final = frozenset({bytes.fromhex("2a864886f70d010c0a0101"), bytes.fromhex("2a864886f70d010c0a0102")})
_PBES2: Final = bytes.fromhex("2a864886f70d01050d")
_PBKDF2: Final = bytes.fromhex("2a864886f70d01050c")
_HMAC_SHA1: Final = bytes.fromhex("2a864886f70d0207")
_DIGESTS: Final[dict[bytes, type[hashes.HashAlgorithm]]] = {
    _HMAC_SHA1: hashes.SHA1,
    bytes.fromhex("2a864886f70d0209"): hashes.SHA256,
    bytes.fromhex("2a864886f70d020a"): hashes.SHA384,
    bytes.fromhex("2a864886f70d020b"): hashes.SHA512,
}
_KEY_LENGTHS: Final = {
    bytes.fromhex("608648016503040102"): 16,
    bytes.fromhex("608648016503040116"): 24,
    bytes.fromhex("60864801650304012a"): 32,
}
"""AES in CBC mode."""


class _Protection(NamedTuple):
    """What an EncryptedData says of its key and cipher (RFC 8018, appendix A)."""

    salt: bytes
    iterations: int
    digest: bytes
    cipher: bytes
    vector: bytes


def require_certificates_alone(data: bytes, password: bytes, max_iterations: int) -> None:
    """Returns for a file that a library may open.

    Raises LimitExceeded for one that is too dear, DecodeError for one that holds anything but certificates or is
    protected by other means than PBES2 with PBKDF2 and AES, DecodeError or ValueError for what is damaged or has
    another password.
    """
    version, safe, *authentication = _sequence(_only(read_elements(data)))
    if version.tag != _INTEGER or len(authentication) > 1:
        raise _damaged("no PFX")
    for element in authentication:
        _require_short(element)
        _require_cheap(max(integers_within(element), default=0), max_iterations)
    parts = _sequence(_only(read_elements(_data_of(safe))))
    if len(parts) > MAX_PARTS:
        raise LimitExceeded(f"{len(parts)} parts", where="PKCS#12", mend=f"{MAX_PARTS} are the most")
    protections = [_protection(part) for part in parts]
    for protection in protections:
        _require_cheap(protection.iterations if protection else 0, max_iterations)
    for part, protection in zip(parts, protections, strict=True):
        _require_certificates(_data_of(part) if protection is None else _decrypted(part, protection, password))


def _require_cheap(iterations: int, most: int) -> None:
    if iterations > most:
        raise LimitExceeded(
            f"its key derivation asks for {iterations} iterations", where="PKCS#12", mend=f"{most} are the most"
        )


def _require_short(algorithm: Element) -> None:
    if len(algorithm.content) > MAX_ALGORITHM:
        raise LimitExceeded(f"an algorithm of more than {MAX_ALGORITHM} bytes", where="PKCS#12")


def _require_certificates(safe_contents: bytes) -> None:
    for bag in _sequence(_only(read_elements(safe_contents))):
        kind = _sequence(bag)[:1]
        if kind and kind[0].content in _KEY_BAGS:
            raise DecodeError("holds a private key, which nobody should hand out", offset=0, path="PKCS#12")
        if kind != [Element(_OID, _CERTIFICATE_BAG)]:
            raise DecodeError("holds something else than certificates", offset=0, path="PKCS#12")


def _protection(part: Element) -> _Protection | None:
    """None for a part that is not encrypted."""
    kind = _sequence(part)[:1]
    if kind == [Element(_OID, _DATA)]:
        return None
    if kind != [Element(_OID, _ENCRYPTED_DATA)]:
        raise _damaged("a part of unknown kind")
    algorithm = _encrypted_content(part)[1]
    _require_short(algorithm)
    scheme, parameters = _pair(algorithm)
    if scheme.content != _PBES2:
        raise _damaged("encrypted by other means than PBES2")
    derivation, encryption = _pair(parameters)
    function, settings = _pair(derivation)
    cipher, vector = _pair(encryption)
    if function.content != _PBKDF2 or cipher.content not in _KEY_LENGTHS or len(vector.content) != 16:
        raise _damaged("encrypted by other means than PBKDF2 and AES")
    return _Protection(*_derivation(settings), cipher.content, vector.content)


def _derivation(settings: Element) -> tuple[bytes, int, bytes]:
    """Salt, iterations and the object identifier of the HMAC, as a library will take them too."""
    salt, iterations, *rest = _sequence(settings)
    digests = [element for element in rest if element.tag == _SEQUENCE]
    digest = _sequence(digests[0])[0].content if digests else _HMAC_SHA1
    if salt.tag != _OCTETS or iterations.tag != _INTEGER or len(rest) > 2 or digest not in _DIGESTS:
        raise _damaged("a key derivation that is not understood")
    return salt.content, int.from_bytes(iterations.content), digest


def _decrypted(part: Element, protection: _Protection, password: bytes) -> bytes:
    length = _KEY_LENGTHS[protection.cipher]
    derive = PBKDF2HMAC(_DIGESTS[protection.digest](), length, protection.salt, protection.iterations)
    cipher = Cipher(algorithms.AES(derive.derive(password)), modes.CBC(protection.vector)).decryptor()
    unpadder = padding.PKCS7(128).unpadder()
    padded = cipher.update(_encrypted_content(part)[2].content) + cipher.finalize()
    text = unpadder.update(padded) + unpadder.finalize()
    if text[:1] != bytes([_SEQUENCE]):
        raise ValueError("decrypted to no list")  # one wrong password of 256 leaves a padding
    return text


def _encrypted_content(part: Element) -> list[Element]:
    """Content type, algorithm and ciphertext of an EncryptedData."""
    (_kind, explicit) = _sequence(part)
    _version, content = _sequence(_only(_tagged(explicit, _EXPLICIT_0)))
    found = _sequence(content)
    if len(found) != 3 or found[2].tag != _IMPLICIT_0:
        raise _damaged("an EncryptedData of unknown form")
    return found


def _data_of(info: Element) -> bytes:
    """The bytes in a ContentInfo of type data."""
    kind, explicit = _sequence(info)
    octets = _only(_tagged(explicit, _EXPLICIT_0))
    if kind != Element(_OID, _DATA) or octets.tag != _OCTETS:
        raise _damaged("a ContentInfo of unknown form")
    return octets.content


def _sequence(element: Element) -> list[Element]:
    return _tagged(element, _SEQUENCE)


def _tagged(element: Element, tag: int) -> list[Element]:
    if element.tag != tag:
        raise _damaged(f"tag {element.tag:#04x} instead of {tag:#04x}")
    return read_elements(element.content)


def _pair(element: Element) -> tuple[Element, Element]:
    first, second = _sequence(element)
    return first, second


def _only(elements: list[Element]) -> Element:
    (one,) = elements
    return one


def _damaged(why: str) -> DecodeError:
    return DecodeError(f"not a PKCS#12 file that is understood: {why}", offset=0, path="PKCS#12")
