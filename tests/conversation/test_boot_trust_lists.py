"""Every branch of the decision tree for CTL and ITL (facts 7.2, 7.3), with scripted replies and real signatures."""

from __future__ import annotations

from dataclasses import replace

import pytest
from phone_script import (
    CCM_TFTP,
    MAC,
    NEW,
    NOW,
    OLD,
    SAST,
    TVS,
    Record,
    World,
    blank_record,
    moving,
    record,
    signed_list,
    vouch,
)

from cucm.clock import MovableClock
from cucm.errors import TrustReason
from cucm.events import phone as events
from cucm.events.phone import TrustBasis
from phone_agent.commands import FetchStatus, Store, TvsAnswer, TvsFailure
from phone_agent.flash import FlashContents, TvsCacheEntry
from phone_agent.verification import MAX_TVS_CACHE_ENTRIES

UNREACHABLE = TvsFailure(TrustReason.TVS_UNREACHABLE, "connection refused")
UPDATED, FAILED = "Trust List Updated", "Trust List Update Failed"


def bases(world: World) -> dict[str, TrustBasis]:
    return {event.trust_list: event.basis for event in world.only(events.TrustListAccepted)}


def refused(world: World) -> dict[str, TrustReason]:
    return {event.trust_list: event.reason for event in world.only(events.TrustListRefused)}


def cache_entry(expires_at: float, roles: tuple[int, ...] = (0, 3)) -> TvsCacheEntry:
    signer = NEW.call_manager
    return TvsCacheEntry(signer.issuer, signer.serial, signer.certificate_der, roles, expires_at)


# --- nothing installed, nothing changed ----------------------------------------------------------------------------


def test_a_phone_without_lists_takes_the_ctl_on_faith_and_checks_the_itl_with_it() -> None:
    world = World(files=NEW.files() | {f"SEP{MAC}.cnf.xml": NEW.configuration()})
    outcome = world.boot()
    assert bases(world) == {"CTL": TrustBasis.LEAP_OF_FAITH, "ITL": TrustBasis.CTL}
    assert world.queries == []
    assert (world.contents.ctl, world.contents.itl) == (NEW.ctl(), NEW.itl())
    assert world.contents.ctl_source == NEW.address
    assert UPDATED in outcome.status_messages
    assert FAILED not in outcome.status_messages
    assert (outcome.ctl_changed, outcome.itl_changed) == (True, True)


def test_in_a_non_secure_cluster_the_itl_is_taken_on_faith() -> None:
    world = World(files=NEW.files(ctl=None))
    outcome = world.boot()
    assert bases(world) == {"ITL": TrustBasis.LEAP_OF_FAITH}
    assert outcome.status_messages[0] == "File Not Found <CTLFile.tlv>"
    assert world.contents.ctl is None


def test_an_itl_of_strangers_is_not_taken_on_faith_when_there_is_a_ctl() -> None:
    world = World(files=NEW.files(itl=OLD.itl()))
    world.boot()
    assert bases(world) == {"CTL": TrustBasis.LEAP_OF_FAITH}
    assert refused(world) == {"ITL": TrustReason.TVS_NOT_IN_TRUST_LIST}
    assert world.contents.itl is None


def test_unchanged_lists_are_left_alone() -> None:
    world = World(files=OLD.files(), contents=OLD.holding(), dhcp=(OLD.address,))
    outcome = world.boot()
    assert [event.trust_list for event in world.only(events.TrustListUnchanged)] == ["CTL", "ITL"]
    assert [command for command in world.commands if isinstance(command, Store)] == []
    assert outcome.status_messages == (f"SEP{MAC}.cnf.xml",)
    assert not (outcome.ctl_changed or outcome.itl_changed or outcome.configuration_changed)


def test_no_list_anywhere_is_said() -> None:
    world = World(files={f"SEP{MAC}.cnf.xml": NEW.configuration(mode=1)})
    assert "No Trust List Installed" in world.boot().status_messages


# --- signer in an installed list -----------------------------------------------------------------------------------


def test_a_newer_ctl_of_the_same_cluster_is_verified_with_the_old_one() -> None:
    newer = OLD.ctl(timestamp=int(NOW) + 60)
    world = World(files=OLD.files(ctl=newer), contents=OLD.holding(), dhcp=(OLD.address,))
    world.boot()
    assert bases(world) == {"CTL": TrustBasis.CTL}
    assert world.contents.ctl == newer


def test_without_ctl_the_itl_vouches_for_the_next_one() -> None:
    world = World(files=OLD.files(), contents=OLD.holding(ctl=None), dhcp=(OLD.address,))
    world.boot()
    assert bases(world) == {"CTL": TrustBasis.ITL}


def test_a_signer_that_only_the_itl_knows_as_sast() -> None:
    ctl = OLD.ctl(signer=OLD.subscriber)
    contents = OLD.holding(itl=OLD.itl(signer=OLD.subscriber))
    world = World(files=OLD.files(ctl=ctl, itl=contents.itl), contents=contents, dhcp=(OLD.address,))
    world.boot()
    assert bases(world) == {"CTL": TrustBasis.ITL}


def test_a_tampered_list_of_a_known_signer_is_refused_without_asking_tvs() -> None:
    tampered = bytearray(OLD.ctl(timestamp=int(NOW) + 60))
    tampered[-1] ^= 1
    world = World(files=OLD.files(ctl=bytes(tampered)), contents=OLD.holding(), dhcp=(OLD.address,))
    outcome = world.boot()
    assert refused(world) == {"CTL": TrustReason.SIGNATURE_MISMATCH}
    assert world.queries == []
    assert world.contents.ctl == OLD.ctl()
    assert FAILED in outcome.status_messages


def test_the_signer_of_a_ctl_listed_without_sast_goes_to_tvs() -> None:
    ctl = OLD.ctl(signer=OLD.subscriber)
    world = World(
        files=OLD.files(ctl=ctl), contents=OLD.holding(), dhcp=(OLD.address,), tvs=[vouch(OLD.subscriber, (0, 2))]
    )
    world.boot()
    assert bases(world) == {"CTL": TrustBasis.TVS}


def test_the_ccm_tftp_record_of_the_ctl_is_enough_for_an_itl() -> None:
    # what a phone without ITL, and so without TVS, needs of a CTL that lists tokens as SAST (facts 7.2)
    itl = OLD.itl(signer=OLD.subscriber)
    world = World(files=OLD.files(itl=itl), contents=OLD.holding(itl=None), dhcp=(OLD.address,))
    world.boot()
    assert bases(world) == {"ITL": TrustBasis.CTL}
    assert world.queries == []


def test_names_may_be_written_with_other_separators() -> None:
    signer = OLD.call_manager
    with_commas = Record.build(
        function=SAST,
        subject=signer.subject.replace(";", ", "),
        issuer=signer.issuer.replace(";", ", "),
        serial=b"\0" + signer.serial,
        public_key=signer.public_key_record,
    )
    contents = OLD.holding(ctl=None, itl=signed_list(signer, [with_commas], "ITLFile.tlv"))
    world = World(files=OLD.files(), contents=contents, dhcp=(OLD.address,))
    world.boot()
    assert bases(world)["CTL"] is TrustBasis.ITL


# --- TVS -----------------------------------------------------------------------------------------------------------


def test_migration_the_old_tvs_vouches_for_the_new_ctl_which_vouches_for_the_rest() -> None:
    world = moving(tvs=[vouch(NEW.call_manager)])
    outcome = world.boot()
    assert bases(world) == {"CTL": TrustBasis.TVS, "ITL": TrustBasis.CTL}
    [query] = world.queries
    signer = NEW.call_manager
    assert (query.session_id, query.device_name) == (1001, f"CP-8861-SEP{MAC}")
    assert (query.subject, query.issuer, query.serial) == (signer.subject, signer.issuer, signer.serial)
    assert (query.server.address, query.server.port) == (OLD.address, 2445)
    assert query.accepted_certificates == (OLD.tvs.certificate_der,)
    [cached] = world.only(events.TvsCertificateCached)
    assert (cached.roles, cached.ttl_s) == ((0, 3), 86_400)
    assert outcome.registered is not None
    assert (outcome.registered.address, outcome.registered.port) == (NEW.address, 5061)
    assert outcome.status_messages == (UPDATED, f"SEP{MAC}.cnf.xml")
    assert outcome.refusals == ()


def test_a_changed_list_empties_the_tvs_cache() -> None:
    world = moving(tvs=[vouch(NEW.call_manager)])
    world.boot()
    assert world.only(events.TvsCacheFlushed) == [events.TvsCacheFlushed(1)]
    assert world.contents.tvs_cache == ()
    # in one write with the list: no kill leaves answers that another list's TVS gave
    written = [command.changes for command in world.commands if isinstance(command, Store)]
    assert [changes["tvs_cache"] for changes in written if {"ctl", "itl"} & changes.keys()] == [(), ()]


def test_without_tvs_record_in_the_itl_tvs_is_not_asked() -> None:
    world = moving(contents=OLD.holding(itl=OLD.itl(with_tvs=False)))
    world.boot()
    assert refused(world)["CTL"] is TrustReason.TVS_NOT_IN_TRUST_LIST
    assert world.queries == []
    assert world.only(events.TvsNotUsed)[0] == events.TvsNotUsed(TrustReason.TVS_NOT_IN_TRUST_LIST)


@pytest.mark.parametrize("stored", [OLD.configuration(tvs=False), None, b"<no xml"])
def test_without_tvs_address_in_the_stored_configuration_tvs_is_not_asked(stored: bytes | None) -> None:
    world = moving(contents=OLD.holding(configuration=stored))
    world.boot()
    assert refused(world)["CTL"] is TrustReason.TVS_NOT_CONFIGURED
    assert world.queries == []


def test_servers_are_tried_in_priority_order_each_with_its_own_session() -> None:
    world = moving(tvs=[UNREACHABLE, vouch(NEW.call_manager)])
    world.boot()
    assert [(query.server.address, query.session_id) for query in world.queries] == [
        (OLD.address, 1001),
        (f"{OLD.address}9", 1002),
    ]
    assert bases(world)["CTL"] is TrustBasis.TVS
    [failed] = world.only(events.TvsQueryFailed)
    assert (failed.address, failed.reason) == (OLD.address, TrustReason.TVS_UNREACHABLE)


def test_session_ids_start_again_at_the_next_boot() -> None:
    world = moving(tvs=[UNREACHABLE] * 6)
    world.boot()
    # two servers are tried for each list; nobody is asked about the configuration then (facts 7.2, step 6)
    assert [query.session_id for query in world.queries] == [1001, 1002, 1003, 1004]
    world.tvs = [UNREACHABLE] * 6
    world.boot()
    assert world.queries[0].session_id == 1001


@pytest.mark.parametrize(
    ("failures", "reason"),
    [
        ([TrustReason.TVS_UNREACHABLE, TrustReason.TVS_UNREACHABLE], TrustReason.TVS_UNREACHABLE),
        ([TrustReason.TVS_UNREACHABLE, TrustReason.TVS_HANDSHAKE_FAILED], TrustReason.TVS_HANDSHAKE_FAILED),
        (
            [TrustReason.TVS_CERTIFICATE_NOT_TRUSTED, TrustReason.TVS_UNREACHABLE],
            TrustReason.TVS_CERTIFICATE_NOT_TRUSTED,
        ),
        ([TrustReason.TVS_ANSWER_INVALID, TrustReason.TVS_HANDSHAKE_FAILED], TrustReason.TVS_ANSWER_INVALID),
    ],
)
def test_when_every_server_fails_the_most_telling_reason_counts(
    failures: list[TrustReason], reason: TrustReason
) -> None:
    replies = [TvsFailure(failure, f"{failure} it was") for failure in failures]
    world = moving(tvs=[*replies, *replies, *replies])
    outcome = world.boot()
    assert refused(world) == {"CTL": reason, "ITL": reason}
    assert outcome.reasons == (reason, reason, reason)
    assert all(failure in outcome.refusals[0].detail for failure in failures)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (TvsAnswer(1, None, (), None), TrustReason.TVS_NOT_FOUND),
        (TvsAnswer(77, NEW.call_manager.certificate_der, (0,), 60), TrustReason.TVS_NOT_FOUND),
        (TvsAnswer(0, None, (0,), 60), TrustReason.TVS_ANSWER_INVALID),
        (TvsAnswer(0, b"no certificate", (0,), 60), TrustReason.TVS_ANSWER_INVALID),
        (vouch(NEW.subscriber), TrustReason.TVS_ANSWER_INVALID),
        (vouch(NEW.call_manager, ()), TrustReason.TVS_ANSWER_LACKS_ROLE),
        (vouch(NEW.call_manager, (2, 3)), TrustReason.TVS_ANSWER_LACKS_ROLE),
    ],
)
def test_an_answer_that_does_not_help_ends_the_asking_and_is_not_cached(answer: TvsAnswer, reason: TrustReason) -> None:
    world = moving(NEW.files(itl=None, configuration=None), tvs=[answer])
    outcome = world.boot()
    assert refused(world) == {"CTL": reason}
    assert len(world.queries) == 1
    assert world.contents.tvs_cache == ()
    assert world.contents.ctl == OLD.ctl()
    assert FAILED in outcome.status_messages


def test_the_signature_must_fit_the_certificate_that_tvs_returned() -> None:
    forged = bytearray(NEW.ctl())
    forged[-1] ^= 1
    world = moving(NEW.files(ctl=bytes(forged), itl=None, configuration=None), tvs=[vouch(NEW.call_manager)])
    world.boot()
    assert refused(world) == {"CTL": TrustReason.SIGNATURE_MISMATCH}
    assert len(world.contents.tvs_cache) == 1


# --- the cache -----------------------------------------------------------------------------------------------------


def test_a_cached_answer_is_used_before_any_server_is_asked() -> None:
    world = moving(contents=OLD.holding(tvs_cache=(cache_entry(NOW + 1),)))
    world.boot()
    assert bases(world)["CTL"] is TrustBasis.TVS_CACHE
    assert world.queries == []
    assert len(world.only(events.TvsCacheHit)) == 1


def test_an_answer_is_good_for_its_time_to_live_and_no_longer() -> None:
    forged = bytearray(NEW.ctl())
    forged[-1] ^= 1
    clock = MovableClock(NOW, frozen=True)
    world = moving(NEW.files(ctl=bytes(forged), itl=None, configuration=None), clock=clock)
    world.tvs = [vouch(NEW.call_manager, ttl_s=60)]
    world.boot()
    clock.move(59)
    world.files = NEW.files(itl=None, configuration=None)
    world.boot()
    assert bases(world)["CTL"] is TrustBasis.TVS_CACHE

    world = moving(NEW.files(ctl=bytes(forged), itl=None, configuration=None), clock=clock)
    world.tvs = [vouch(NEW.call_manager, ttl_s=60), UNREACHABLE, UNREACHABLE]
    world.boot()
    clock.move(60)
    world.files = NEW.files(itl=None, configuration=None)
    world.boot()
    assert refused(world) == {"CTL": TrustReason.TVS_UNREACHABLE}


@pytest.mark.parametrize("ttl_s", [None, 0])
def test_an_answer_without_time_to_live_is_used_but_not_kept(ttl_s: int | None) -> None:
    world = moving(tvs=[vouch(NEW.call_manager, ttl_s=ttl_s)])
    world.boot()
    assert bases(world)["CTL"] is TrustBasis.TVS
    assert world.only(events.TvsCertificateCached) == []


def test_the_cache_remembers_roles_too() -> None:
    contents = OLD.holding(tvs_cache=(cache_entry(NOW + 1, roles=(3,)),))
    world = moving(NEW.files(itl=None, configuration=None), contents=contents)
    world.boot()
    assert refused(world) == {"CTL": TrustReason.TVS_ANSWER_LACKS_ROLE}


def test_the_cache_does_not_grow_without_end_and_the_newest_answers_stay() -> None:
    older = tuple(replace(cache_entry(NOW + 60), serial=bytes([1, number])) for number in range(MAX_TVS_CACHE_ENTRIES))
    contents = OLD.holding(tvs_cache=older)
    forged = bytearray(NEW.ctl())
    forged[-1] ^= 1
    world = moving(NEW.files(ctl=bytes(forged), itl=None, configuration=None), contents=contents)
    world.tvs = [vouch(NEW.call_manager)]
    world.boot()
    assert world.contents.tvs_cache[:-1] == older[1:]
    assert world.contents.tvs_cache[-1].serial == NEW.call_manager.serial


# --- blank ITL (rollback parameter) --------------------------------------------------------------------------------


def test_without_a_ctl_a_blank_itl_gives_way_to_any_itl_but_not_to_a_foreign_ctl() -> None:
    world = moving(contents=OLD.holding(ctl=None, itl=OLD.blank_itl()))
    outcome = world.boot()
    assert refused(world) == {"CTL": TrustReason.TVS_NOT_IN_TRUST_LIST}
    assert bases(world) == {"ITL": TrustBasis.BLANK_ITL}
    assert (world.contents.ctl, world.contents.itl) == (None, NEW.itl())
    assert outcome.status_messages[:2] == (FAILED, UPDATED)


def test_beside_a_ctl_a_blank_itl_gives_way_only_to_an_itl_that_the_ctl_vouches_for() -> None:
    abroad = moving(contents=OLD.holding(itl=OLD.blank_itl()))
    for _ in range(2):
        abroad.boot()
        assert refused(abroad)["ITL"] is TrustReason.TVS_NOT_IN_TRUST_LIST
        assert (abroad.contents.ctl, abroad.contents.itl) == (OLD.ctl(), OLD.blank_itl())


def test_an_itl_with_one_tftp_record_left_is_not_blank() -> None:
    itl = signed_list(OLD.call_manager, [record(CCM_TFTP, OLD.call_manager), blank_record(TVS)], "ITLFile.tlv")
    world = moving(NEW.files(ctl=None), contents=OLD.holding(ctl=None, itl=itl))
    world.boot()
    assert refused(world)["ITL"] is TrustReason.TVS_NOT_IN_TRUST_LIST


# --- files that are not what they should be ------------------------------------------------------------------------


def test_a_list_over_64_kib_is_refused_even_by_a_phone_without_lists() -> None:
    records = [record(CCM_TFTP, NEW.call_manager)] * 45
    world = World(files=NEW.files(itl=signed_list(NEW.call_manager, records, "ITLFile.tlv")))
    world.boot()
    assert refused(world) == {"ITL": TrustReason.TOO_LARGE}


@pytest.mark.parametrize("broken", [b"", b"\x00", NEW.ctl()[: len(NEW.ctl()) // 2], b"<html>not found</html>"])
def test_what_is_no_trust_list_is_refused(broken: bytes) -> None:
    world = World(files=NEW.files(ctl=broken, itl=None))
    outcome = world.boot()
    assert refused(world) == {"CTL": TrustReason.MALFORMED}
    assert world.contents.ctl is None
    assert FAILED not in outcome.status_messages  # the text is for phones that have a list (facts 7.5)


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (FetchStatus.TIMEOUT, "TFTP Timeout"),
        (FetchStatus.ACCESS_ERROR, "TFTP Access Error"),
        (FetchStatus.ERROR, "TFTP Error"),
    ],
)
def test_transfer_trouble_leaves_the_lists_and_is_said(status: FetchStatus, text: str) -> None:
    names = (f"CTLSEP{MAC}.tlv", f"ITLSEP{MAC}.tlv", f"SEP{MAC}.cnf.xml.sgn")
    world = moving(dict.fromkeys(names, status))
    outcome = world.boot()
    assert outcome.status_messages == (text, text, FAILED, text, f"SEP{MAC}.cnf.xml")
    assert world.contents == replace(OLD.holding(), tftp_servers=(NEW.address,))


def test_the_common_itl_is_asked_for_when_there_is_none_for_the_device() -> None:
    files = NEW.files(itl=None) | {"ITLFile.tlv": NEW.itl()}
    world = moving(files, tvs=[vouch(NEW.call_manager)])
    world.boot()
    assert world.fetched[:3] == [f"CTLSEP{MAC}.tlv", f"ITLSEP{MAC}.tlv", "ITLFile.tlv"]
    assert bases(world)["ITL"] is TrustBasis.CTL


def test_a_stored_list_that_cannot_be_read_counts_as_not_installed() -> None:
    contents = FlashContents(ctl=b"damaged", itl=b"damaged too", tftp_servers=(NEW.address,))
    world = World(files=NEW.files(), contents=contents)
    world.boot()
    assert [event.trust_list for event in world.only(events.TrustListNotLoaded)] == ["CTL", "ITL"]
    assert bases(world)["CTL"] is TrustBasis.LEAP_OF_FAITH


def test_a_tvs_answer_that_flash_does_not_take_is_told_and_counts_until_the_power_goes() -> None:
    forged = bytearray(NEW.ctl())
    forged[-1] ^= 1
    world = moving(NEW.files(ctl=bytes(forged), configuration=None), tvs=[vouch(NEW.call_manager)])
    world.flash_error = "disk full"
    world.boot()
    assert world.contents.tvs_cache == ()
    assert [type(event) for event in world.events if isinstance(event, events.FlashFailed | events.TvsCacheHit)][
        :2
    ] == [events.FlashFailed, events.FlashFailed]
    assert len(world.only(events.TvsCacheHit)) == 1


def test_a_list_that_flash_does_not_take_is_not_in_force() -> None:
    world = moving(tvs=[vouch(NEW.call_manager), vouch(NEW.call_manager), vouch(NEW.call_manager)])
    world.flash_error = "disk full"
    outcome = world.boot()
    assert world.contents == OLD.holding()
    assert not outcome.ctl_changed
    assert FAILED in outcome.status_messages
    assert events.FlashFailed("disk full") in world.events
    assert outcome.registered is not None
    assert outcome.registered.address == OLD.address
