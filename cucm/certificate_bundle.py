"""Certificates in a PKCS#12 file, as bulk certificate management hands them from cluster to cluster (facts 9.1).

A bundle holds certificates and no private key. Where each comes from stands in its friendly name, so that it survives
consolidation; what CUCM writes there is UNKNOWN.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import field
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, pkcs12

from cucm.errors import DecodeError, EncodeError, LimitExceeded
from cucm.identity import describe, load_certificate
from cucm.records import dataclass
from cucm.roles import CertificateUnit
from cucm.wire.pkcs12 import require_certificates_alone

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
    another password or another protection than PBES2, holds a private key, or comes from another program than this lab.
    """
    if len(data) > MAX_BUNDLE:
        raise LimitExceeded(f"a PKCS#12 file of {len(data)} bytes", mend=f"{MAX_BUNDLE} bytes are the most")
    try:
        require_certificates_alone(data, password, MAX_ITERATIONS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # foreign certificates bend the rules; that is no news for stderr
            found = pkcs12.load_pkcs12(data, password)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise DecodeError(f"damaged, or made with another password: {error}", offset=0, path="PKCS#12") from error
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
