"""`openssl pkcs12` opens bulk files, and bulk files are read that openssl has made."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cucm.certificate_bundle import BundledCertificate, decode_bundle, encode_bundle
from cucm.certificates import Identity, node_certificate
from cucm.errors import DecodeError
from cucm.key_store import KeyStore
from cucm.roles import CertificateUnit

pytestmark = pytest.mark.needs("openssl")
BEGIN = 1_480_000_000
PASSWORD = "cucm-lab-bulk"


def openssl(*arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, timeout=60, check=False)
    assert not check or done.returncode == 0, done.stderr.decode()
    return done


@pytest.fixture(scope="module")
def identities() -> tuple[Identity, ...]:
    keys = KeyStore()
    nodes = ("ucm105pub", "ucm11pub")
    return tuple(node_certificate(keys, CertificateUnit.CALLMANAGER, n, seed=1, not_before=BEGIN) for n in nodes)


def test_openssl_opens_a_bulk_file(identities: tuple[Identity, ...], tmp_path: Path) -> None:
    items = [
        BundledCertificate(
            one.certificate_der, CertificateUnit.CALLMANAGER, f"cluster{number}", f"node{number}", "12.5"
        )
        for number, one in enumerate(identities)
    ]
    file = tmp_path / "consolidated.tftp.p12"
    file.write_bytes(encode_bundle(items, PASSWORD.encode()))
    shown = openssl("pkcs12", "-in", file, "-passin", f"pass:{PASSWORD}", "-nokeys").stdout
    ders = {c.public_bytes(Encoding.DER) for c in x509.load_pem_x509_certificates(shown)}
    assert ders == {one.certificate_der for one in identities}
    names = re.findall(rb"friendlyName: (.*)", shown)
    assert sorted(names) == [item.friendly_name for item in items]
    assert b"PRIVATE KEY" not in shown


def test_openssl_needs_the_password(identities: tuple[Identity, ...], tmp_path: Path) -> None:
    file = tmp_path / "one.p12"
    item = BundledCertificate(identities[0].certificate_der, CertificateUnit.TVS, "c", "n", "12.5")
    file.write_bytes(encode_bundle([item], PASSWORD.encode()))
    assert openssl("pkcs12", "-in", file, "-passin", "pass:other", "-nokeys", check=False).returncode != 0


def test_a_file_made_by_openssl_is_read(identities: tuple[Identity, ...], tmp_path: Path) -> None:
    pem, file = tmp_path / "node.pem", tmp_path / "node.p12"
    pem.write_bytes(identities[0].certificate_pem)
    name = "unit=CallManager node=ucm105pub cluster=cluster1 version=10.5.2.13900-12"
    made = ("pkcs12", "-export", "-nokeys", "-in", pem, "-out", file, "-passout", f"pass:{PASSWORD}")
    openssl(*made, "-caname", name)
    (found,) = decode_bundle(file.read_bytes(), PASSWORD.encode())
    assert found == BundledCertificate(
        identities[0].certificate_der, CertificateUnit.CALLMANAGER, "cluster1", "ucm105pub", "10.5.2.13900-12"
    )


def test_a_file_made_by_openssl_without_names_is_refused(identities: tuple[Identity, ...], tmp_path: Path) -> None:
    pem, file = tmp_path / "node.pem", tmp_path / "node.p12"
    pem.write_bytes(identities[0].certificate_pem)
    openssl("pkcs12", "-export", "-nokeys", "-in", pem, "-out", file, "-passout", f"pass:{PASSWORD}")
    with pytest.raises(DecodeError) as refused:
        decode_bundle(file.read_bytes(), PASSWORD.encode())
    assert refused.value.path == "friendlyName"
