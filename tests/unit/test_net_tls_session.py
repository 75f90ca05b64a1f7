"""What a TLS session keeps while nothing is said; the bound is in `tests/operation_bounds.py`."""

from __future__ import annotations

import ctypes
import gc

import operation_bounds as bounds
import pytest
from OpenSSL import SSL

from cucm.certificates import Identity, capf_certificate, lsc, node_certificate
from cucm.key_store import KeyStore
from cucm.net.tls_context import (
    ClientCertificatePolicy,
    PeerCheck,
    TlsProfile,
    client_context,
    server_context,
)
from cucm.net.tls_session import QuickTlsSession, TlsSession, thread_buffer
from cucm.roles import CertificateUnit

NOT_BEFORE = 1_700_000_000.0
SESSIONS = 40

Pair = tuple[TlsSession, TlsSession]


class _Allocated(ctypes.Structure):
    """`struct mallinfo2` of glibc."""

    _fields_ = tuple((name, ctypes.c_size_t) for name in ("a", "b", "c", "d", "mapped", "f", "g", "used", "free", "j"))


def allocated_bytes() -> int:
    """By the C library, for everything in this process that asks it."""
    gc.collect()
    ask = ctypes.CDLL(None).mallinfo2
    ask.restype = _Allocated
    told = ask()
    return int(told.used + told.mapped)


class Meeting:
    """A CallManager's end and a phone's, without a socket."""

    def __init__(self, profile: TlsProfile, kind: type[TlsSession]) -> None:
        keys = KeyStore()
        node = node_certificate(keys, CertificateUnit.CALLMANAGER, "ucm11pub", seed=1, not_before=NOT_BEFORE)
        capf = capf_certificate(keys, "ucm11pub", seed=2, not_before=NOT_BEFORE)
        self.phone: Identity = lsc(
            capf, keys, model="CP-8861", mac="B000B4BA0AEE", serial_number="FCH18198CNQ", seed=3, not_before=NOT_BEFORE
        )
        self._kind = kind
        self._there = server_context(
            node.certificate_der,
            node.private_key_der,
            profile=profile,
            policy=ClientCertificatePolicy.REQUIRED,
            client_cas=(capf.certificate_der,),
            now=lambda: NOT_BEFORE + 60,
        )
        self._here = client_context(profile=profile)

    def speak_no_more_than(self, version: int) -> None:
        """The phone, from now on."""
        self._here = client_context(profile=TlsProfile.AES256_SHA)
        self._here.set_max_proto_version(version)

    def beginning(self) -> TlsSession:
        """A phone's end that has said its first words."""
        here = self._kind(self._here, server_side=False)
        here.show(self.phone.certificate, self.phone.private_key)
        here.shake_hands()
        return here

    def shake_hands(self) -> Pair:
        here, there = self.beginning(), self._kind(self._there, server_side=True)
        there.set_app_data(PeerCheck(self._there.get_app_data()))
        is_done = {here: False, there: False}
        for sender, receiver in (here, there), (there, here), (here, there), (there, here):
            sent = words_of(sender)
            thread_buffer().view[: len(sent)] = sent
            if is_done[receiver]:
                receiver.decrypt_into(bytearray(), len(sent))  # TLS 1.3: a ticket
            else:
                is_done[receiver] = receiver.shake_hands(len(sent))
        assert all(is_done.values())
        return here, there


def words_of(sender: TlsSession) -> bytes:
    sent, sender.out = sender.out, b""
    return sent


def said(sender: TlsSession, receiver: TlsSession, words: bytes) -> bytes:
    sender.encrypt(words)
    sent, heard = words_of(sender), bytearray()
    thread_buffer().view[: len(sent)] = sent
    receiver.decrypt_into(heard, len(sent))
    return bytes(heard)


@pytest.fixture(params=TlsProfile)
def profile(request: pytest.FixtureRequest) -> TlsProfile:
    return TlsProfile(request.param)


@pytest.mark.parametrize("kind", [QuickTlsSession, TlsSession])
def test_at_rest_a_phones_certificate_is_not_kept_for_nothing_and_both_ends_go_on(
    profile: TlsProfile, kind: type[TlsSession]
) -> None:
    meeting = Meeting(profile, kind)
    here, there = meeting.shake_hands()
    before = here.get_cipher_name(), here.get_protocol_version_name()
    assert here.get_certificate() is not None
    for session in here, there:
        session.rest()
        session.rest()
    assert here.get_certificate() is None
    assert there.get_certificate() is not None
    assert (here.get_cipher_name(), here.get_protocol_version_name()) == before
    shown = there.get_peer_certificate()
    assert shown is not None
    assert shown.to_cryptography() == meeting.phone.certificate
    assert said(here, there, b"REGISTER") == b"REGISTER"
    assert said(there, here, b"200 OK") == b"200 OK"


@pytest.mark.parametrize("kind", [QuickTlsSession, TlsSession])
def test_what_is_on_its_way_survives_a_rest(profile: TlsProfile, kind: type[TlsSession]) -> None:
    here, there = Meeting(profile, kind).shake_hands()
    here.encrypt(b"REFER")
    unread = words_of(here)
    here.encrypt(b"REGISTER")
    later = words_of(here)
    there.bio_write(unread)
    there.rest()
    heard = bytearray()
    for piece in b"", later[:20], later[20:]:
        thread_buffer().view[: len(piece)] = piece
        there.decrypt_into(heard, len(piece))
        there.rest()
    assert heard == b"REFERREGISTER"


@pytest.mark.parametrize("kind", [QuickTlsSession, TlsSession])
def test_nothing_is_said_before_or_behind_a_session_and_others_do_not_hear_of_the_attempt(
    profile: TlsProfile, kind: type[TlsSession]
) -> None:
    meeting = Meeting(profile, kind)
    with pytest.raises(SSL.Error, match="shutdown while in init"):
        meeting.beginning().say_goodbye()
    here, there = meeting.shake_hands()
    here.say_goodbye()
    goodbye = words_of(here)
    with pytest.raises(SSL.Error, match="protocol is shutdown"):
        here.encrypt(b"REGISTER")
    assert words_of(here) == b""
    thread_buffer().view[: len(goodbye)] = goodbye
    assert there.decrypt_into(bytearray(), len(goodbye))
    meeting.shake_hands()


@pytest.mark.parametrize("kind", [QuickTlsSession, TlsSession])
def test_what_is_told_of_a_session_is_its_own(kind: type[TlsSession]) -> None:
    meeting, told = Meeting(TlsProfile.AES256_SHA, kind), []
    for highest in SSL.TLS1_2_VERSION, SSL.TLS1_1_VERSION, SSL.TLS1_2_VERSION:
        meeting.speak_no_more_than(highest)
        here, there = meeting.shake_hands()
        assert here.agreed == there.agreed
        told.append(here.agreed)
    assert told == [("AES256-SHA", version) for version in ("TLSv1.2", "TLSv1.1", "TLSv1.2")]


def test_keys_are_agreed_on_without_what_no_phone_of_these_releases_knows() -> None:
    here, there = Meeting(TlsProfile.MODERN, QuickTlsSession).shake_hands()
    assert here.get_group_name() == there.get_group_name() == "x25519"


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="only glibc tells what it has given out")
def test_a_session_at_rest_takes_no_more_than_now(profile: TlsProfile) -> None:
    meeting = Meeting(profile, QuickTlsSession)
    meeting.shake_hands()
    before = allocated_bytes()
    pairs = [meeting.shake_hands() for _ in range(SESSIONS)]
    for here, there in pairs:
        said(here, there, bytes(800))
        for session in here, there:
            session.rest()
            session.set_app_data(None)
    grown = (allocated_bytes() - before) / SESSIONS
    assert 0 < grown <= bounds.TLS_BYTES_AT_REST
