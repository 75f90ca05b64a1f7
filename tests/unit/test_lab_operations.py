from __future__ import annotations

import typing
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from lab_on_sockets import PHONE, make_lab, network_of
from pydantic import TypeAdapter, ValidationError

from cucm.errors import UsageError
from cucm.events.administration import CertificateStored
from cucm.roles import CertificateUnit
from lab.operations import AnyOperation, Operation
from lab.operations.phones import PhoneOperation

OPERATION: TypeAdapter[Operation] = TypeAdapter(AnyOperation)
ALL = typing.get_args(typing.get_args(AnyOperation)[0])


def some_certificate() -> str:
    key, name, now = ec.generate_private_key(ec.SECP256R1()), x509.Name([]), datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
    )
    return made.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


WORDS = {
    "phone": PHONE,
    "cluster": "source",
    "certificate": "CallManager",
    "from": "destination",
    "to": "source",
    "stores": ["Phone-SAST-trust"],
    "parameter": "TFTP File Signature Algorithm",
    "value": "SHA-512",
    "mode": "stale-until-restart",
    "service": "TVS",
    "node": "ucm105pub",
    "nodes": ["ucm105pub"],
    "reachability": "refuse",
    "days": 1,
    "store": "Phone-SAST-trust",
    "common_name": "nobody",
    "pem": some_certificate(),
    "token": 1,
    "authority": "CN=some CA",
    "seconds": 1,
}
EITHER = {"set-option-150": {"cluster": "source"}}
"""Operations that want one of several fields."""


def verb(kind: type[Operation]) -> str:
    return typing.get_args(kind.model_fields["do"].annotation)[0]


def operation(do: str, **changes: object) -> Operation:
    kind = next(one for one in ALL if verb(one) == do)
    fields = {field.alias or name: field for name, field in kind.model_fields.items()}
    words = {word: WORDS[word] for word, field in fields.items() if word != "do" and field.is_required()}
    if issubclass(kind, PhoneOperation) and "phones" not in changes:
        words["phone"] = PHONE
    return OPERATION.validate_python({"do": do} | words | EITHER.get(do, {}) | changes)


@pytest.fixture
async def lab(tmp_path, loopback):
    async with make_lab(tmp_path, network_of(loopback)) as lab:
        yield lab


async def perform(lab, do: str, **changes: object) -> None:
    await operation(do, **changes).perform(lab)


@pytest.mark.parametrize("do", [verb(kind) for kind in ALL])
async def test_each_says_what_it_does_and_refuses_names_the_lab_does_not_have(lab, do):
    good = operation(do)
    assert good.says(lab)
    for word, value in good.model_dump(by_alias=True).items():
        if word in ("phone", "cluster", "from", "to", "node") and value is not None:
            with pytest.raises(UsageError, match=r"no (phone|cluster|node) 'nosuch' in"):
                operation(do, **{word: "nosuch"}).says(lab)
    with pytest.raises(ValidationError, match="Extra inputs"):
        operation(do, unknown=1)


async def test_a_device_is_removed_and_added(lab):
    database = lab.cluster("source").publisher.database
    before = database.device(PHONE)
    await perform(lab, "remove-device")
    assert database.device(PHONE) is None
    await perform(lab, "add-device")
    assert database.device(PHONE) == before is not None


async def test_a_phone_boots_and_is_powered_off(lab):
    await perform(lab, "boot-phone")
    assert lab.cluster("source").registered_devices == {PHONE}
    assert lab.phone(PHONE).flash.contents.ctl
    await perform(lab, "reset-phone")
    assert lab.cluster("source").registered_devices == {PHONE}
    await perform(lab, "erase-security-settings")
    assert (lab.phone(PHONE).flash.contents.ctl, lab.phone(PHONE).flash.contents.itl) == (None, None)
    await perform(lab, "power-off-phone")
    await perform(lab, "stop-service", service="CallManager")
    assert lab.cluster("source").registered_devices == frozenset()


async def test_services_are_stopped_started_and_restarted(lab):
    node = lab.cluster("source").publisher
    await perform(lab, "stop-service")
    assert not node.runs("TVS")
    await perform(lab, "start-service")
    assert node.runs("TVS")
    since = len(lab.events)
    await perform(lab, "restart-service")
    assert [record.event.kind for record in lab.events.since(since) if record.source.startswith("node:")] == [
        "service.stopped",
        "service.started",
    ]


async def test_a_certificate_goes_to_every_store_named(lab):
    since = len(lab.events)
    await perform(lab, "upload-certificate", stores=["CallManager-trust", "Phone-SAST-trust"])
    stored = [record.event for record in lab.events.since(since) if isinstance(record.event, CertificateStored)]
    assert [(event.cluster, event.store) for event in stored] == [
        ("source", "CallManager-trust"),
        ("source", "Phone-SAST-trust"),
    ]
    der = lab.cluster("destination").publisher.certificate(CertificateUnit.CALLMANAGER)
    held = lab.cluster("source").publisher.database.certificates(CertificateUnit.PHONE_SAST_TRUST)
    assert der in [item.der for item in held]


async def test_the_ctl_follows_a_regenerated_certificate_only_when_it_is_updated(lab):
    node = lab.cluster("source").publisher
    before = node.ctl_file.read_bytes()
    await perform(lab, "regenerate-certificate")
    assert node.ctl_file.read_bytes() == before
    await perform(lab, "update-ctl-file")
    updated = node.ctl_file.read_bytes()
    assert updated != before
    await perform(lab, "alter-ctl-file")
    assert sum(old != new for old, new in zip(updated, node.ctl_file.read_bytes(), strict=True)) == 1


async def test_parameter_option_150_cache_mode_and_impostor(lab):
    cluster = lab.cluster("source")
    await perform(lab, "set-enterprise-parameter")
    assert cluster.publisher.database.parameter("TFTP File Signature Algorithm") == "SHA-512"
    await perform(lab, "set-option-150", cluster="destination")
    await perform(lab, "boot-phone")
    assert lab.phone(PHONE).flash.contents.tftp_servers == lab.cluster("destination").tftp_addresses
    await perform(lab, "set-tvs-cache")
    assert cluster.publisher.tvs_cache == "stale-until-restart"
    await perform(lab, "replace-tvs-by-impostor")
    assert not cluster.publisher.runs("TVS")
