"""Certificates in a PKCS#12 file, as bulk certificate management hands them from cluster to cluster (facts 9.1).

A bundle holds certificates and no private key. Where each comes from stands in its friendly name, so that it survives
consolidation; what CUCM writes there is UNKNOWN.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, pkcs12

from cucm.errors import DecodeError, EncodeError, LimitExceeded
from cucm.identity import describe, load_certificate
from cucm.roles import CertificateUnit
from cucm.wire.der import Element, integers_within, read_elements

MAX_BUNDLE: Final = 4 * 1024 * 1024
"""Bytes of a file; a certificate takes about 1.5 KiB."""
MAX_CERTIFICATES: Final = 1024
MAX_ITERATIONS: Final = 100_000
"""Of a key derivation: OpenSSL writes 2048, cryptography 20 000. A file may ask for 2^31, which is minutes of work."""

_FRIENDLY_NAME: Final = re.compile(
    rb"unit=(?P<unit>[A-Za-z-]{1,32}) node=(?P<node>[!-~]{1,255})"
    rb" cluster=(?P<cluster>[!-~]{1,255}) version=(?P<version>[!-~]{1,64})"
)
"""UNKNOWN on CUCM: ours."""
_CONTENT: Final = 0xA0
_SEQUENCE: Final = 0x30


@dataclass(frozen=True, slots=True)
class BundledCertificate:
    """A node's own certificate of `unit`; `version` is the CUCM release of the cluster that exported it."""

    der: bytes = field(repr=False)
    unit: CertificateUnit
    cluster: str
    node: str
    version: str

    @property
    def friendly_name(self) -> bytes:
        text = f"unit={self.unit} node={self.node} cluster={self.cluster} version={self.version}"
        return text.encode("ascii", "backslashreplace")


def encode_bundle(certificates: Sequence[BundledCertificate], password: bytes) -> bytes:
    """A PKCS#12 file that OpenSSL reads. EncodeError for none, too many, or a name with blanks; DecodeError for
    bytes that are no certificate.
    """
    if not 0 < len(certificates) <= MAX_CERTIFICATES:
        raise EncodeError(f"a bundle of {len(certificates)} certificates", mend=f"put in 1 to {MAX_CERTIFICATES}")
    for item in certificates:
        if not _FRIENDLY_NAME.fullmatch(item.friendly_name):
            raise EncodeError("names in a bundle have neither blanks nor control characters", where=repr(item))
    entries = [pkcs12.PKCS12Certificate(load_certificate(item.der), item.friendly_name) for item in certificates]
    return pkcs12.serialize_key_and_certificates(None, None, None, entries, BestAvailableEncryption(password))


def decode_bundle(data: bytes, password: bytes) -> tuple[BundledCertificate, ...]:
    """The certificates of a file, ordered by cluster and node.

    Raises LimitExceeded for a file that is too large or too dear to open, DecodeError for one that is damaged, has
    another password, holds a private key, or comes from another program than this lab.
    """
    if len(data) > MAX_BUNDLE:
        raise LimitExceeded(f"a PKCS#12 file of {len(data)} bytes", mend=f"{MAX_BUNDLE} bytes are the most")
    _require_cheap(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # foreign certificates bend the rules; that is no news for stderr
            found = pkcs12.load_pkcs12(data, password)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise DecodeError(f"damaged, or made with another password: {error}", offset=0, path="PKCS#12") from error
    if found.key is not None:
        raise DecodeError("holds a private key, which nobody should hand out", offset=0, path="PKCS#12")
    if not 0 < len(found.additional_certs) <= MAX_CERTIFICATES:
        raise LimitExceeded(f"{len(found.additional_certs)} certificates", where="PKCS#12")
    certificates = [_bundled(entry) for entry in found.additional_certs]
    return tuple(sorted(certificates, key=lambda item: (item.cluster, item.node, item.unit, item.der)))


def _bundled(entry: pkcs12.PKCS12Certificate) -> BundledCertificate:
    label = _FRIENDLY_NAME.fullmatch(entry.friendly_name or b"")
    if label is None:
        raise DecodeError("a certificate does not say which cluster exported it", offset=0, path="friendlyName")
    parts = {name: value.decode("ascii") for name, value in label.groupdict().items()}
    try:
        unit = CertificateUnit(parts["unit"])
    except ValueError:
        raise DecodeError(f"no such unit: {parts['unit']}", offset=0, path="friendlyName") from None
    der = describe(entry.certificate.public_bytes(Encoding.DER)).der
    return BundledCertificate(der, unit, parts["cluster"], parts["node"], parts["version"])


def _require_cheap(data: bytes) -> None:
    """Look at every key derivation of the file that shows before it is decrypted (RFC 7292, section 4)."""
    try:
        (pfx,) = read_elements(data)
        parts = read_elements(pfx.content)
        derivations = [*parts[2:], *_algorithms_of(parts[1])]
    except (IndexError, ValueError) as error:
        raise DecodeError("not a PKCS#12 file in DER", offset=0, path="PKCS#12") from error
    dearest = max((number for part in derivations for number in integers_within(part)), default=0)
    if dearest > MAX_ITERATIONS:
        raise LimitExceeded(
            f"its key derivation asks for {dearest} iterations", where="PKCS#12", mend=f"{MAX_ITERATIONS} are the most"
        )


def _algorithms_of(auth_safe: Element) -> list[Element]:
    """The algorithms of each EncryptedData within AuthenticatedSafe."""
    octets = read_elements(read_elements(auth_safe.content)[1].content)[0]
    infos = [read_elements(info.content) for info in read_elements(read_elements(octets.content)[0].content)]
    encrypted = [read_elements(info[1].content)[0] for info in infos if info[1].tag == _CONTENT]
    return [read_elements(read_elements(item.content)[1].content)[1] for item in encrypted if item.tag == _SEQUENCE]
