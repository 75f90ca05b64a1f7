"""Older models: without ITL and TVS, without SHA-512; and lists too large for any."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from phone_script import CCM_TFTP, MAC, NEW, NOW, OLD, SAST, World, moving, record, signed_list, vouch

from cucm.certificates import Identity
from cucm.errors import TrustReason
from cucm.events.phone import (
    RegistrationNotPossible,
    TrustListAccepted,
    TrustListNotLoaded,
    TrustListRefused,
    TvsDidNotVouch,
    TvsVouched,
)
from cucm.wire.signed_file import build_signed_file
from cucm.wire.trust_list import MAX_TRUST_LIST, DigestAlgorithm, build_trust_list
from phone_agent.boot import BootOutcome, PhoneModel, boot
from phone_agent.commands import FetchStatus, TvsAnswer
from phone_agent.flash import FlashContents


def boot_as(model: str, world: World) -> BootOutcome:
    outcome = world.run(boot(PhoneModel(MAC, model), world.contents, world.clock))
    assert isinstance(outcome, BootOutcome)
    return outcome


def sha512_list(signer: Identity, file_name: str) -> bytes:
    return build_trust_list(
        signer=signer.signer_id,
        records=(record(SAST, signer), record(CCM_TFTP, signer)),
        digest=DigestAlgorithm.SHA512,
        sign=signer.sign,
        signature_length=signer.signature_length,
        file_name=file_name,
        timestamp=int(NOW),
    )


# --- 7940 and 7960: no security by default ---------------------------------------------------------------------------


def test_a_7960_asks_for_no_itl() -> None:
    world = World(files=NEW.files() | {f"SEP{MAC}.cnf.xml": NEW.configuration(mode=1)})
    outcome = boot_as("7960", world)
    assert world.fetched == [f"CTLSEP{MAC}.tlv", f"SEP{MAC}.cnf.xml.sgn"]
    assert outcome.registered is not None
    assert (world.contents.ctl, world.contents.itl) == (NEW.ctl(), None)


def test_a_7960_of_a_non_secure_cluster_takes_the_plain_configuration() -> None:
    world = World(files={f"SEP{MAC}.cnf.xml": NEW.configuration(mode=1)})
    outcome = boot_as("7960", world)
    assert world.fetched == [f"CTLSEP{MAC}.tlv", f"SEP{MAC}.cnf.xml"]
    assert outcome.registered is not None
    assert outcome.status_messages == ("File Not Found <CTLFile.tlv>", f"SEP{MAC}.cnf.xml")


def test_a_7960_has_no_tvs_to_ask() -> None:
    """F15: the CTL of another signer is refused for good."""
    world = moving(tvs=[vouch(NEW.call_manager)])
    outcome = boot_as("7960", world)
    assert world.queries == []
    assert outcome.reasons == (TrustReason.SIGNER_UNKNOWN, TrustReason.SIGNER_UNKNOWN)
    assert not world.only(TrustListNotLoaded)
    assert world.contents.ctl == OLD.ctl()


def test_an_itl_in_the_flash_of_a_7960_is_not_looked_at() -> None:
    world = moving(contents=OLD.holding(itl=NEW.itl()))
    assert boot_as("7960", world).reasons[0] is TrustReason.SIGNER_UNKNOWN


def test_a_7960_without_ctl_takes_one_on_faith() -> None:
    world = World(files=NEW.files(), contents=FlashContents(itl=OLD.itl()))
    boot_as("7960", world)
    assert [event.basis for event in world.only(TrustListAccepted)] == ["leap-of-faith"]


# --- SHA-512 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["7975", "8945", "9971", "7960"])
def test_older_models_do_not_verify_sha512(model: str) -> None:
    """F17, F18."""
    world = moving({f"CTLSEP{MAC}.tlv": sha512_list(OLD.call_manager, "CTLFile.tlv")})
    outcome = boot_as(model, world)
    assert outcome.reasons[0] is TrustReason.ALGORITHM_UNSUPPORTED
    assert "SHA512" in outcome.refusals[0].detail
    assert world.contents.ctl == OLD.ctl()
    assert outcome.registered is not None  # with what it has


def test_a_newer_model_does() -> None:
    world = moving({f"CTLSEP{MAC}.tlv": sha512_list(OLD.call_manager, "CTLFile.tlv")})
    boot_as("8861", world)
    assert world.contents.ctl == world.files[f"CTLSEP{MAC}.tlv"]


def test_a_configuration_signed_with_sha512_is_refused_too() -> None:
    signer = OLD.call_manager
    signed = build_signed_file(
        OLD.configuration(mode=1),
        signer=signer.signer_id,
        file_name=f"SEP{MAC}.cnf.xml",
        digest=DigestAlgorithm.SHA512,
        sign=signer.sign,
        signature_length=signer.signature_length,
        timestamp=int(NOW),
    )
    files = OLD.files() | {f"SEP{MAC}.cnf.xml.sgn": signed}
    world = moving(files)
    assert boot_as("7975", world).reasons == (TrustReason.ALGORITHM_UNSUPPORTED,)
    assert world.contents.configuration == OLD.configuration()
    world = moving(files)
    assert boot_as("8861", world).reasons == ()
    assert world.contents.configuration == OLD.configuration(mode=1)


# --- too large -------------------------------------------------------------------------------------------------------


def too_large(signer: Identity, name: str) -> bytes:
    records = [record(SAST, signer)] * (MAX_TRUST_LIST // len_of(signer) + 2)
    return signed_list(signer, records, f"{name}File.tlv")


def len_of(signer: Identity) -> int:
    one, two = (len(signed_list(signer, [record(SAST, signer)] * count, "x")) for count in (1, 2))
    return two - one


@pytest.mark.parametrize("contents", [FlashContents(), OLD.holding()])
@pytest.mark.parametrize("name", ["CTL", "ITL"])
def test_a_list_of_more_than_64_kib_is_not_loaded_and_the_phone_does_not_register(
    name: str, contents: FlashContents
) -> None:
    """F19; a later pass without such a list registers again."""
    large = too_large(OLD.call_manager, name)
    assert len(large) > MAX_TRUST_LIST
    world = World(files=OLD.files() | {f"{name}SEP{MAC}.tlv": large}, contents=contents)
    outcome = world.boot()
    assert [event.reason for event in world.only(TrustListRefused)] == [TrustReason.TOO_LARGE]
    assert outcome.registered is None
    assert world.registered_with == []
    assert [event.detail for event in world.only(RegistrationNotPossible)] == [f"the {name} is too large to be loaded"]
    held: Mapping[str, bytes | None] = {"CTL": world.contents.ctl, "ITL": world.contents.itl}
    assert held[name] != large

    world.files = OLD.files()
    assert world.boot().registered is not None


def test_the_bar_is_gone_in_the_next_attempt_of_the_same_boot() -> None:
    class Mended(World):
        def _file(self, content: bytes | FetchStatus, server: str) -> object:  # type: ignore[override]
            self.files = OLD.files()
            return World._file(content, server)

    large = too_large(OLD.call_manager, "CTL")
    world = Mended(files=OLD.files() | {f"CTLSEP{MAC}.tlv": large}, contents=OLD.holding())
    assert world.boot(attempts=2).registered is not None


# --- what TVS said ---------------------------------------------------------------------------------------------------


def test_what_tvs_vouches_for_is_told() -> None:
    world = moving(tvs=[vouch(NEW.call_manager)])
    world.boot()
    assert world.only(TvsVouched) == [TvsVouched(NEW.call_manager.subject, (0, 3))]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (TvsAnswer(1, None, (), None), TrustReason.TVS_NOT_FOUND),
        (vouch(NEW.call_manager, ()), TrustReason.TVS_ANSWER_LACKS_ROLE),
        (vouch(NEW.subscriber), TrustReason.TVS_ANSWER_INVALID),
        (TvsAnswer(0, None, (0,), 1), TrustReason.TVS_ANSWER_INVALID),
    ],
)
def test_what_it_does_not_vouch_for_is_told_with_the_reason(answer: TvsAnswer, reason: TrustReason) -> None:
    world = moving(tvs=[answer] * 3)
    world.boot()
    assert world.only(TvsDidNotVouch)[0].reason is reason
    assert not world.only(TvsVouched)
