"""Lists with a good signature that are not what they seem; phone, `cucm.trust` and `show` must say the same of them."""

from __future__ import annotations

import pytest
from phone_script import CCM_TFTP, MAC, NEW, NOW, OLD, SAST, Record, World, record, signed_list

from cucm.certificates import Identity
from cucm.errors import TrustError, TrustReason
from cucm.events import phone as events
from cucm.render.show_trust_list import verification
from cucm.trust import anchors_of, verify_trust_list
from cucm.wire.trust_list import decode_trust_list


def refused(world: World) -> dict[str, TrustReason]:
    return {event.trust_list: event.reason for event in world.only(events.TrustListRefused)}


def with_key(identity: Identity, key: bytes) -> Record:
    """A SAST record of `identity` whose PUBLICKEY is another."""
    return Record.build(
        function=SAST,
        subject=identity.subject,
        issuer=identity.issuer,
        serial=identity.serial,
        public_key=key,
        certificate=identity.certificate_der,
    )


@pytest.mark.parametrize("content", [OLD.configuration(), b""], ids=["configuration", "nothing"])
@pytest.mark.parametrize("name", ["CTL", "ITL"])
def test_a_signed_file_under_a_lists_name_is_no_empty_list(name: str, content: bytes) -> None:
    """With an empty ITL in its flash the phone would take the unsigned configuration of anybody."""
    held = OLD.holding(ctl=None) if name == "CTL" else OLD.holding()
    files = OLD.files() | {f"{name}SEP{MAC}.tlv": OLD.signed(content), f"SEP{MAC}.cnf.xml.sgn": NEW.configuration()}
    world = World(files=files, contents=held, dhcp=(OLD.address,))
    world.boot()
    assert refused(world) == {name: TrustReason.MALFORMED}
    assert (world.contents.ctl, world.contents.itl) == (OLD.ctl() if name == "ITL" else None, OLD.itl())
    assert [event.reason for event in world.only(events.ConfigurationRefused)] == [TrustReason.UNSIGNED]


def test_it_is_not_taken_on_faith_either() -> None:
    world = World(files=NEW.files(ctl=NEW.signed(b"<device/>"), itl=None))
    world.boot()
    assert refused(world) == {"CTL": TrustReason.MALFORMED}
    assert world.contents.ctl is None


def test_a_record_whose_key_is_not_its_certificates_verifies_nothing() -> None:
    """A real phone uses the key alone [inferred]; here the record contradicts itself, and nobody may lean on it."""
    impostor = OLD.subscriber
    held = signed_list(impostor, [with_key(OLD.call_manager, impostor.public_key_record)], "CTLFile.tlv")
    offered = _signed_in_the_name_of(OLD.call_manager, impostor)
    world = World(files=OLD.files(ctl=offered, itl=None), contents=OLD.holding(ctl=held, itl=None))
    world.boot()
    assert refused(world) == {"CTL": TrustReason.RECORD_KEY_MISMATCH}
    assert world.contents.ctl == held
    with pytest.raises(TrustError) as caught:
        verify_trust_list(offered, anchors_of(decode_trust_list(held), "CTL"))
    assert caught.value.reason is TrustReason.RECORD_KEY_MISMATCH
    shown = verification(offered, decode_trust_list(offered))
    assert shown is not None
    assert shown.reason is TrustReason.RECORD_KEY_MISMATCH


def _signed_in_the_name_of(identity: Identity, signer: Identity) -> bytes:
    """A list with `identity` as signer in its header, and a signature that `signer`'s key made."""
    disguised = Identity(identity.certificate, signer.private_key)
    records = [with_key(identity, signer.public_key_record), record(CCM_TFTP, identity)]
    return signed_list(disguised, records, "CTLFile.tlv", int(NOW) + 1)
