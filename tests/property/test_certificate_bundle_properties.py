"""Whatever happens to a bulk file on its way, reading it gives certificates or an error of ours."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cucm.certificate_bundle import BundledCertificate, decode_bundle, encode_bundle
from cucm.certificates import node_certificate
from cucm.errors import LabError
from cucm.key_store import KeyStore
from cucm.roles import CertificateUnit
from cucm.wire.der import read_elements

PASSWORD = b"x"
NAMES = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=60)
UNITS = st.sampled_from([unit for unit in CertificateUnit if not unit.is_trust_store])


@pytest.fixture(scope="module")
def der() -> bytes:
    return node_certificate(KeyStore(), CertificateUnit.TVS, "n", seed=1, not_before=1_480_000_000).certificate_der


@pytest.fixture(scope="module")
def bundle(der: bytes) -> bytes:
    return encode_bundle([BundledCertificate(der, CertificateUnit.TVS, "c", "n", "11.5")], PASSWORD)


@given(labels=st.lists(st.tuples(UNITS, NAMES, NAMES, NAMES), min_size=1, max_size=4, unique=True))
@settings(max_examples=25)
def test_round_trip(der: bytes, labels: list[tuple[CertificateUnit, str, str, str]]) -> None:
    items = [BundledCertificate(der, *label) for label in labels]
    found = decode_bundle(encode_bundle(items, PASSWORD), PASSWORD)
    assert sorted(map(repr, found)) == sorted(map(repr, items))


@given(data=st.data())
@settings(max_examples=60)
def test_any_byte_changed(bundle: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(bundle) - 1))
    value = data.draw(st.integers(0, 255))
    changed = bundle[:at] + bytes([value]) + bundle[at + 1 :]
    try:
        found = decode_bundle(changed, PASSWORD)
    except LabError:
        return
    assert found == decode_bundle(bundle, PASSWORD)


@given(data=st.binary(max_size=200))
def test_any_bytes_as_der(data: bytes) -> None:
    try:
        elements = read_elements(data)
    except LabError:
        return
    assert sum(2 + len(element.content) for element in elements) <= len(data)
