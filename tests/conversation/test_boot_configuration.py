"""Configuration and registration of the scripted boot: what is accepted, what stays in force, and where it leads."""

from __future__ import annotations

from dataclasses import replace

import pytest
from phone_script import (
    MAC,
    NEW,
    NOW,
    OLD,
    PHONE,
    World,
    moving,
    phone_identity,
    vouch,
)

from cucm.clock import MovableClock
from cucm.errors import TrustReason, UsageError
from cucm.events import phone as events
from cucm.events.phone import TrustBasis
from phone_agent.boot import PhoneModel, boot
from phone_agent.commands import (
    FetchStatus,
    RegistrationStatus,
    Sleep,
    Store,
    TvsAnswer,
    TvsFailure,
)
from phone_agent.flash import FlashContents

CONFIGURATION = f"SEP{MAC}.cnf.xml"
NOT_FOUND_ANSWER = TvsAnswer(1, None, (), None)


def at_home(contents: FlashContents | None = None, **files: bytes | None) -> World:
    """A phone of OLD that boots on OLD again."""
    return World(files=OLD.files(**files), contents=contents or OLD.holding(), dhcp=(OLD.address,))


def registered_at(world: World) -> list[tuple[str, int, str]]:
    return [(command.address, command.port, command.transport) for command in world.registered_with]


# --- which file is asked for ---------------------------------------------------------------------------------------


def test_a_phone_without_lists_asks_for_the_plain_file() -> None:
    world = World(files={CONFIGURATION: NEW.configuration(mode=1)})
    outcome = world.boot()
    assert world.fetched == [f"CTLSEP{MAC}.tlv", f"ITLSEP{MAC}.tlv", "ITLFile.tlv", CONFIGURATION]
    assert world.only(events.ConfigurationAccepted)[0].basis is TrustBasis.UNSIGNED_ALLOWED
    assert outcome.configuration_name == CONFIGURATION


@pytest.mark.parametrize("missing", ["ctl", "itl"])
def test_a_phone_with_any_list_asks_for_the_signed_file(missing: str) -> None:
    world = at_home(OLD.holding(**{missing: None}), **{missing: None})
    world.boot()
    assert world.fetched[-1] == f"{CONFIGURATION}.sgn"
    assert CONFIGURATION not in world.fetched


def test_a_signed_file_reaches_a_phone_without_lists() -> None:
    world = World(files={CONFIGURATION: NEW.signed(NEW.configuration(mode=1))})
    world.boot()
    assert world.contents.configuration == NEW.configuration(mode=1)


def test_an_unknown_device_gets_the_default_configuration() -> None:
    default = NEW.configuration(mode=1).replace(b"<device>", b"<Default>").replace(b"</device>", b"</Default>")
    default = default.replace(b"<devicePool>", b"").replace(b"</devicePool>", b"")
    world = at_home(configuration=None)
    world.files = dict(world.files) | {"XMLDefault.cnf.xml.sgn": OLD.signed(default, name="XMLDefault.cnf.xml")}
    outcome = world.boot()
    assert world.fetched[-2:] == [f"{CONFIGURATION}.sgn", "XMLDefault.cnf.xml.sgn"]
    assert outcome.status_messages[-1] == "XmlDefault.cnf.xml"
    assert outcome.configuration_name == "XMLDefault.cnf.xml"
    assert not world.only(events.ConfigurationKept)
    assert registered_at(world) == [(NEW.address, 5060, "tcp")]


def test_without_any_configuration_the_stored_one_stays() -> None:
    world = at_home(configuration=None)
    outcome = world.boot()
    assert outcome.status_messages == ("File not found <Cfg File>", CONFIGURATION)
    assert world.only(events.ConfigurationKept) == [events.ConfigurationKept(CONFIGURATION)]
    assert registered_at(world) == [(OLD.address, 5061, "tls")]


def test_a_phone_that_has_nothing_and_gets_nothing_says_so() -> None:
    world = World()
    outcome = world.boot()
    assert "File not found <Cfg File>" in outcome.status_messages
    assert outcome.configuration_name is None
    assert outcome.registered is None
    assert world.only(events.RegistrationNotPossible)


def test_trouble_is_no_reason_to_take_the_default() -> None:
    world = at_home(configuration=None)
    world.files = dict(world.files) | {f"{CONFIGURATION}.sgn": FetchStatus.TIMEOUT}
    world.boot()
    assert world.fetched[-1] == f"{CONFIGURATION}.sgn"


# --- who may sign it -----------------------------------------------------------------------------------------------


def test_the_new_clusters_lists_vouch_for_its_configuration() -> None:
    world = moving(tvs=[vouch(NEW.call_manager)])
    outcome = world.boot()
    assert world.only(events.ConfigurationAccepted)[0].basis is TrustBasis.CTL
    assert world.contents.configuration == NEW.configuration()
    assert outcome.configuration_changed


def test_the_same_configuration_again_is_not_written() -> None:
    world = at_home()
    outcome = world.boot()
    assert not outcome.configuration_changed
    assert not [command for command in world.commands if isinstance(command, Store)]
    assert world.only(events.ConfigurationAccepted)[0].changed is False


def test_an_unsigned_configuration_is_refused_by_a_phone_with_lists() -> None:
    outcome = at_home(configuration=NEW.configuration()).boot()
    assert outcome.reasons == (TrustReason.UNSIGNED,)
    assert f"invalid file {CONFIGURATION}.sgn, authenticated fail." in outcome.status_messages


def test_a_blank_itl_lets_unsigned_configurations_in() -> None:
    home = OLD.holding(ctl=None, itl=OLD.blank_itl())
    world = World(files={CONFIGURATION: NEW.configuration(mode=1)}, contents=home)
    world.boot()
    assert world.fetched[-2:] == [f"{CONFIGURATION}.sgn", CONFIGURATION]
    assert world.only(events.ConfigurationAccepted)[0].basis is TrustBasis.UNSIGNED_ALLOWED
    assert registered_at(world) == [(NEW.address, 5060, "tcp")]


@pytest.mark.parametrize("plain_status", [None, FetchStatus.NOT_FOUND, FetchStatus.TIMEOUT])
def test_beside_a_blank_itl_without_a_ctl_the_plain_file_stands_in_for_a_signed_one_that_nobody_vouches_for(
    plain_status: FetchStatus | None,
) -> None:
    # the phone's own cluster while the rollback parameter is set: it goes on serving both
    newer = OLD.configuration(mode=1)
    contents = OLD.holding(ctl=None, itl=OLD.blank_itl())
    world = at_home(contents, ctl=None, itl=OLD.blank_itl(), configuration=OLD.signed(newer))
    world.files = {**world.files, CONFIGURATION: plain_status or newer}
    outcome = world.boot()
    assert outcome.reasons == (TrustReason.TVS_NOT_IN_TRUST_LIST,)
    assert world.fetched[-2:] == [f"{CONFIGURATION}.sgn", CONFIGURATION]
    if plain_status is None:
        assert world.only(events.ConfigurationAccepted)[0].basis is TrustBasis.UNSIGNED_ALLOWED
        assert world.only(events.ConfigurationKept) == []
        assert world.contents.configuration == newer
    else:  # a refused file is no reason to take the default
        assert world.only(events.ConfigurationKept) == [events.ConfigurationKept(CONFIGURATION)]
        assert world.contents == contents


def test_beside_a_ctl_a_blank_itl_does_not_make_a_refused_file_one_without_signature() -> None:
    contents = OLD.holding(itl=OLD.blank_itl())
    world = at_home(contents, itl=OLD.blank_itl(), configuration=NEW.signed(NEW.configuration()))
    world.files = {**world.files, CONFIGURATION: NEW.configuration(mode=1)}
    assert world.boot().reasons == (TrustReason.TVS_NOT_IN_TRUST_LIST,)
    assert world.fetched[-1] == f"{CONFIGURATION}.sgn"
    assert world.contents.configuration == OLD.configuration()


def test_a_blank_itl_does_not_make_a_strangers_signature_good() -> None:
    home = OLD.holding(itl=OLD.blank_itl())
    world = at_home(home, itl=None, configuration=NEW.signed(NEW.configuration()))
    outcome = world.boot()
    assert outcome.reasons == (TrustReason.TVS_NOT_IN_TRUST_LIST,)


@pytest.mark.parametrize(("roles", "accepted"), [((0, 3), True), ((2,), True), ((0,), False)])
def test_tvs_vouches_for_a_configuration_with_a_tftp_role(roles: tuple[int, ...], accepted: bool) -> None:
    world = at_home(configuration=NEW.signed(NEW.configuration()))
    world.tvs = [vouch(NEW.call_manager, roles)]
    outcome = world.boot()
    assert outcome.configuration_changed is accepted
    assert outcome.reasons == (() if accepted else (TrustReason.TVS_ANSWER_LACKS_ROLE,))
    assert (len(world.contents.tvs_cache) == 1) is accepted


def test_a_sast_record_alone_does_not_sign_configurations() -> None:
    recovery = OLD.itl(signer=OLD.subscriber)  # SAST and CCM+TFTP in the ITL only
    world = at_home(OLD.holding(itl=recovery), itl=recovery, configuration=OLD.signed(OLD.configuration(mode=2)))
    outcome = world.boot()
    assert outcome.configuration_changed  # CCM+TFTP record of the CTL
    assert world.only(events.ConfigurationAccepted)[0].basis is TrustBasis.CTL


def test_a_tampered_configuration_is_refused() -> None:
    signed = bytearray(OLD.signed(OLD.configuration()))
    signed[-3] ^= 1
    outcome = at_home(configuration=bytes(signed)).boot()
    assert outcome.reasons == (TrustReason.SIGNATURE_MISMATCH,)


@pytest.mark.parametrize(
    "content",
    [
        b"<device><deviceSecurityMode>9</deviceSecurityMode></device>",
        b"<device>",
        b"<!DOCTYPE a [<!ENTITY b 'c'>]><device/>",
        b"<phone/>",
    ],
)
def test_a_properly_signed_configuration_must_also_make_sense(content: bytes) -> None:
    world = at_home(configuration=OLD.signed(content))
    outcome = world.boot()
    [refusal] = outcome.refusals
    assert (refusal.file, refusal.reason) == ("configuration", None)
    assert outcome.reasons == ()
    assert world.contents.configuration == OLD.configuration()
    assert outcome.registered is not None


def test_a_configuration_that_flash_does_not_take_is_not_in_force() -> None:
    world = at_home(configuration=OLD.signed(OLD.configuration(mode=1)))
    world.flash_error = "no space"
    world.boot()
    assert registered_at(world) == [(OLD.address, 5061, "tls")]
    assert world.only(events.ConfigurationKept) == [events.ConfigurationKept(CONFIGURATION)]


# --- a migration that fails ----------------------------------------------------------------------------------------


def test_a_phone_that_cannot_take_the_new_lists_stays_with_the_old_cluster_and_says_so() -> None:
    world = moving(tvs=[NOT_FOUND_ANSWER] * 3)
    outcome = world.boot()
    assert outcome.reasons == (TrustReason.TVS_NOT_FOUND,) * 3
    assert [refusal.file for refusal in outcome.refusals] == ["CTL", "ITL", "configuration"]
    assert (world.contents.ctl, world.contents.itl) == (OLD.ctl(), OLD.itl())
    assert world.contents.configuration == OLD.configuration()
    assert "Trust List Update Failed" in outcome.status_messages
    assert world.only(events.ConfigurationKept) == [events.ConfigurationKept(CONFIGURATION)]
    assert outcome.registered is not None
    assert outcome.registered.address == OLD.address
    assert world.registered_with[0].trusted_certificates == (
        OLD.call_manager.certificate_der,
        OLD.subscriber.certificate_der,
    )


def test_a_configuration_is_refused_for_the_reason_of_the_first_list_refused() -> None:
    # the second one has another reason: it would be the configuration's too, if the last one counted
    world = moving(NEW.files(itl=b"no list"), tvs=[NOT_FOUND_ANSWER])
    assert world.boot().reasons == (TrustReason.TVS_NOT_FOUND, TrustReason.MALFORMED, TrustReason.TVS_NOT_FOUND)
    assert len(world.queries) == 1


def test_an_itl_of_a_new_subscriber_follows_from_the_new_ctl() -> None:
    # its signer is CCM+TFTP in the new CTL: forgetting a TFTP node (F3) hurts where there is no CTL
    files = NEW.files(itl=NEW.itl(signer=NEW.subscriber))
    world = moving(files, tvs=[vouch(NEW.call_manager)])
    outcome = world.boot()
    assert [(query.session_id, query.server.address) for query in world.queries] == [(1001, OLD.address)]
    assert outcome.refusals == ()


# --- registration --------------------------------------------------------------------------------------------------


def test_call_managers_are_tried_in_group_order_until_one_takes_the_phone() -> None:
    addresses = ["203.0.113.1", "203.0.113.2", "203.0.113.3"]
    configuration = OLD.configuration(call_managers=addresses)
    world = at_home(configuration=OLD.signed(configuration))
    world.registrations = {
        addresses[0]: RegistrationStatus.UNREACHABLE,
        addresses[1]: RegistrationStatus.REFUSED,
    }
    outcome = world.boot()
    assert [address for address, _, _ in registered_at(world)] == addresses
    assert outcome.registered is not None
    assert outcome.registered.call_manager == "old-2"
    assert [event.status for event in world.only(events.RegistrationFailed)] == ["unreachable", "refused"]
    assert len(outcome.registrations) == 3


def test_a_phone_that_nobody_takes_ends_unregistered() -> None:
    world = at_home()
    world.registrations = {OLD.address: RegistrationStatus.TLS_FAILED}
    outcome = world.boot()
    assert outcome.registered is None
    assert world.state == "unregistered"
    assert world.only(events.BootFinished)[0].registered is False


@pytest.mark.parametrize("mode", [2, 3])
def test_a_secure_phone_uses_tls_with_the_ccm_entries_of_its_ctl(mode: int) -> None:
    world = at_home(configuration=OLD.signed(OLD.configuration(mode=mode)))
    world.boot()
    assert registered_at(world) == [(OLD.address, 5061, "tls")]


def test_a_non_secure_phone_uses_tcp_whatever_its_ctl_says() -> None:
    world = at_home(configuration=OLD.signed(OLD.configuration(mode=1)))
    world.boot()
    assert registered_at(world) == [(OLD.address, 5060, "tcp")]
    assert world.registered_with[0].trusted_certificates == ()


def test_a_secure_phone_without_ctl_does_not_register() -> None:
    world = at_home(OLD.holding(ctl=None), ctl=None)
    outcome = world.boot()
    assert world.registered_with == []
    assert outcome.registered is None
    assert world.only(events.RegistrationNotPossible)[0].detail == "no CTL with CallManager entries"


def test_a_secure_phone_without_certificate_tries_plain_tcp_and_is_refused() -> None:
    world = at_home(OLD.holding(lsc=None))
    world.registrations = {OLD.address: RegistrationStatus.REFUSED}
    world.boot()
    assert registered_at(world) == [(OLD.address, 5060, "tcp")]


def test_a_mic_will_do_where_there_is_no_lsc() -> None:
    world = at_home(OLD.holding(lsc=None, mic=phone_identity(OLD)))
    world.boot()
    assert registered_at(world) == [(OLD.address, 5061, "tls")]


def test_a_configuration_without_call_manager_is_said() -> None:
    world = at_home(configuration=OLD.signed(OLD.configuration(call_managers=[])))
    world.boot()
    assert world.only(events.RegistrationNotPossible)[0].detail == "the configuration names no CallManager"


# --- servers, retries ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [None, ()])
def test_without_dhcp_answer_the_last_servers_are_used(answer: tuple[str, ...] | None) -> None:
    world = at_home()
    world.dhcp = answer
    outcome = world.boot()
    assert world.only(events.TftpServersLearned) == [events.TftpServersLearned((OLD.address,), from_dhcp=False)]
    assert outcome.registered is not None


def test_new_servers_are_remembered() -> None:
    world = moving(tvs=[vouch(NEW.call_manager)])
    world.boot()
    assert world.contents.tftp_servers == (NEW.address,)


def test_a_phone_that_never_heard_of_a_server_registers_with_what_it_has() -> None:
    world = at_home(OLD.holding(tftp_servers=()))
    world.dhcp = None
    outcome = world.boot()
    assert world.fetched == []
    assert outcome.status_messages == ("TFTP Error",)
    assert outcome.registered is not None


def test_an_unregistered_phone_starts_over_and_session_ids_go_on() -> None:
    world = moving(tvs=[TvsFailure(TrustReason.TVS_UNREACHABLE, "refused")] * 6 + [vouch(NEW.call_manager)])
    world.registrations = {OLD.address: RegistrationStatus.UNREACHABLE}
    outcome = world.boot(attempts=2)
    assert [command.seconds for command in world.commands if isinstance(command, Sleep)] == [45.0]
    assert [query.session_id for query in world.queries] == [*range(1001, 1008)]
    assert outcome.registered is not None
    assert outcome.registered.address == NEW.address


def test_attempts_are_counted() -> None:
    world = World()
    world.boot(attempts=3)
    assert len([command for command in world.commands if isinstance(command, Sleep)]) == 2


def test_the_boot_starts_and_finishes_with_an_event() -> None:
    world = at_home()
    world.boot()
    assert world.events[0] == events.BootStarted(f"CP-8861-SEP{MAC}", ctl_installed=True, itl_installed=True)
    assert isinstance(world.events[-1], events.BootFinished)


def test_the_boot_does_not_touch_what_it_was_given() -> None:
    contents = OLD.holding()
    before = replace(contents)
    steps = boot(PHONE, contents, MovableClock(NOW, frozen=True))
    moving(tvs=[vouch(NEW.call_manager)]).run(steps)
    assert contents == before


@pytest.mark.parametrize("text", ["b0:00:b4:ba:0a:ee", "B000.B4BA.0AEE", "SEPB000B4BA0AEE", "b0-00-b4-ba-0a-ee"])
def test_names_of_a_phone(text: str) -> None:
    phone = PhoneModel.of(text, "CP-8861")
    assert (phone.name, phone.device_name) == ("SEPB000B4BA0AEE", "CP-8861-SEPB000B4BA0AEE")


@pytest.mark.parametrize(("mac", "model"), [("", "8861"), ("B000B4BA0AE", "8861"), ("B000B4BA0AEE", "../8861")])
def test_what_is_no_phone(mac: str, model: str) -> None:
    with pytest.raises(UsageError):
        PhoneModel.of(mac, model)
