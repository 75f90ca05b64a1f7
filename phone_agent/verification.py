"""May this phone accept this trust list or configuration? The decision tree of facts 7.2 and 7.3, without I/O.

For a trust list, in this order:

1. longer than 64 KiB, no list, or without records     refused
2. the phone holds no list at all                      accepted: leap of faith
3. an ITL, the installed ITL is blank, and no CTL      accepted unseen (rollback parameter, facts 7.3)
4. signer is SAST in the installed CTL, else the ITL   signature checked with that record's key (an ITL's signer may
                                                       be CCM+TFTP there, see `SIGNS_ITLS`)
5. no TVS record in the ITL                            refused: `Not using TVS - TVS not in Trust list`
6. stored configuration names no TVS                   refused
7. signer in the TVS cache, still valid                signature checked with that certificate
8. TVS servers in priority order                       the first *answer* counts, good or bad

Before 4 the digest must be one that the phone's model verifies. A model without security by default (7940, 7960) stops
after 4: it has no TVS to ask.

The functions are generators: they yield commands (`phone_agent.commands`) and return what was verified. Whatever is
not to be trusted comes out as `TrustError`.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from functools import lru_cache
from typing import Final

from cucm.clock import Clock
from cucm.errors import TrustError, TrustReason, WireError
from cucm.events.phone import (
    FlashFailed,
    TrustBasis,
    TvsCacheHit,
    TvsCacheMissed,
    TvsCertificateCached,
    TvsDidNotVouch,
    TvsNotUsed,
    TvsQueryFailed,
    TvsVouched,
)
from cucm.names import same_name, same_serial
from cucm.records import dataclass
from cucm.roles import CALL_PROCESSING, SIGNS_FILES, SIGNS_ITLS, SIGNS_TRUST_LISTS, TrustRole
from cucm.trust import Anchor, anchors_of, anchors_of_certificate, find_signer, read_trust_list, verify_document
from cucm.wire.signed_file import SignedFile, decode_signed_file, is_signed_file
from cucm.wire.trust_list import MAX_TRUST_LIST, SignerId, TrustList, decode_trust_list
from cucm.wire.tvs import STATUS_OK
from phone_agent.commands import Note, QueryTvs, Steps, Store, StoreResult, TvsAnswer, TvsFailure, TvsServer
from phone_agent.flash import TvsCacheEntry
from phone_agent.models import NEWER, Capabilities

FIRST_SESSION_ID: Final = 1001
"""Session ids count from here at each boot ([inferred] from two samples, facts 2.1)."""
KEPT_LISTS: Final = 16
"""Lists taken apart that a process keeps; ours."""
MAX_TVS_CACHE_ENTRIES: Final = 64
"""Ours; the size of a real phone's cache is UNKNOWN."""


@dataclass(frozen=True, slots=True)
class InstalledList:
    """A trust list the phone holds: its bytes, its content, and its records as signers to look up."""

    data: bytes
    trust_list: TrustList
    anchors: tuple[Anchor, ...]
    certified: tuple[tuple[int, bytes], ...]
    """Function and certificate of each record that has one."""

    @classmethod
    def load(cls, data: bytes, name: str) -> InstalledList:
        """Raises WireError for bytes that are no trust list."""
        return _loaded(data, name)

    @classmethod
    def of(cls, data: bytes, trust_list: TrustList, name: str) -> InstalledList:
        """`trust_list` is what `data` holds; `name` is "CTL" or "ITL"."""
        records = trust_list.records
        certified = tuple((one.function, one.certificate) for one in records if one.certificate is not None)
        return cls(data, trust_list, anchors_of(trust_list, name), certified)

    def certificates(self, roles: Collection[TrustRole]) -> tuple[bytes, ...]:
        """DER certificates of the records that have one of these functions; blank records have none."""
        return tuple(certificate for function, certificate in self.certified if function in roles)


@lru_cache(maxsize=KEPT_LISTS)
def _loaded(data: bytes, name: str) -> InstalledList:
    """The phones of a cluster hold the same few lists: each is taken apart once, and its signature checked by each."""
    return InstalledList.of(data, decode_trust_list(data), name)


@dataclass(frozen=True, slots=True)
class InstalledLists:
    """Both trust lists of a phone, None where it holds none."""

    ctl: InstalledList | None = None
    itl: InstalledList | None = None

    @property
    def empty(self) -> bool:
        return self.ctl is None and self.itl is None

    @property
    def itl_is_blank(self) -> bool:
        """Whether the ITL is that of the rollback parameter: nothing in its TVS and TFTP sections (facts 7.3)."""
        return self.itl is not None and not self.itl.certificates(SIGNS_FILES | {TrustRole.TVS})

    @property
    def tvs_certificates(self) -> tuple[bytes, ...]:
        """What a TVS server may show; a CTL has no TVS records (facts 6.3)."""
        return self.itl.certificates({TrustRole.TVS}) if self.itl else ()

    @property
    def call_manager_certificates(self) -> tuple[bytes, ...]:
        """What a CallManager may show on TLS: the CCM entries of the CTL (facts 7.7)."""
        return self.ctl.certificates(CALL_PROCESSING) if self.ctl else ()


@dataclass(frozen=True, slots=True)
class VerifiedList:
    trust_list: TrustList
    basis: TrustBasis


@dataclass(frozen=True, slots=True)
class VerifiedFile:
    """`content` is the file without its signature envelope."""

    content: bytes
    basis: TrustBasis


def verify_trust_list(
    name: str,
    data: bytes,
    installed: InstalledLists,
    tvs: TvsVerifier,
    capabilities: Capabilities = NEWER,
) -> Steps[VerifiedList]:
    """Decide about a downloaded CTL or ITL (`name`). Raises TrustError."""
    if len(data) > MAX_TRUST_LIST:
        raise TrustError(TrustReason.TOO_LARGE, f"{len(data)} bytes, a phone loads at most {MAX_TRUST_LIST}")
    trust_list = read_trust_list(data)
    if installed.empty:
        return VerifiedList(trust_list, TrustBasis.LEAP_OF_FAITH)
    # "Any new ITL" (facts 7.3) is about clusters without a CTL: an installed CTL authenticates the ITL (facts 7.2). If
    # a blank ITL let any ITL in beside a CTL, a second reset would find the stranger's signer in it and migrate, which
    # the technote's Caution rules out [inferred]
    if name == "ITL" and installed.itl_is_blank and installed.ctl is None:
        return VerifiedList(trust_list, TrustBasis.BLANK_ITL)
    roles = SIGNS_ITLS if name == "ITL" else SIGNS_TRUST_LISTS
    basis = yield from _verify(data, trust_list, roles, installed, tvs, capabilities)
    return VerifiedList(trust_list, basis)


def verify_configuration(
    data: bytes, installed: InstalledLists, tvs: TvsVerifier, capabilities: Capabilities = NEWER
) -> Steps[VerifiedFile]:
    """Decide about a downloaded configuration; its signer needs a TFTP role (facts 3.3). Raises TrustError.

    Unsigned ones are for phones without lists, or with a blank ITL (facts 7.3).
    """
    if not is_signed_file(data):
        if installed.empty or installed.itl_is_blank:
            return VerifiedFile(data, TrustBasis.UNSIGNED_ALLOWED)
        raise TrustError(TrustReason.UNSIGNED, "the file is not signed, and a phone with a trust list wants it signed")
    try:
        signed_file = decode_signed_file(data)
    except WireError as error:
        raise TrustError(TrustReason.MALFORMED, str(error)) from error
    if installed.empty:
        return VerifiedFile(signed_file.content, TrustBasis.LEAP_OF_FAITH)
    basis = yield from _verify(data, signed_file, SIGNS_FILES, installed, tvs, capabilities)
    return VerifiedFile(signed_file.content, basis)


class TvsVerifier:
    """The phone's TVS side during one boot: servers, session ids, and the cache of answers.

    `servers` are those of the *stored* configuration, in priority order: the old cluster's (facts 7.2).
    """

    def __init__(self, device_name: str, cache: tuple[TvsCacheEntry, ...], clock: Clock) -> None:
        self._device_name = device_name
        self.servers: tuple[TvsServer, ...] = ()
        self._clock = clock
        self._next_session_id = FIRST_SESSION_ID
        self.cache = cache
        self.closed_by: TrustReason | None = None
        """Why a trust list was refused in this boot: from then on nobody is asked about a configuration, which is
        refused "for the same reason" (facts 7.2, F4; that TVS is not asked is [inferred])."""

    def flush(self) -> int:
        """Forget every cached answer; returns how many there were."""
        entries, self.cache = len(self.cache), ()
        return entries

    def vouch(
        self, signer: SignerId, roles: Collection[TrustRole], accepted: tuple[bytes, ...]
    ) -> Steps[tuple[Anchor, TrustBasis]]:
        """The signer as cache or server knows it. `accepted`: DER certificates of the ITL's TVS records.

        Raises TrustError when TVS cannot be asked, cannot be reached, does not know the signer, or knows it
        without one of `roles`.
        """
        if self.closed_by is not None:
            raise TrustError(self.closed_by, "the trust list that should vouch for the signer was refused before")
        yield from self._require_usable(accepted)
        cached = self._cached(signer)
        if cached is not None:
            yield Note(TvsCacheHit(signer.subject, signer.issuer, signer.serial))
            return _vouched(cached.certificate, cached.roles, signer, roles, "TVS cache"), TrustBasis.TVS_CACHE
        yield Note(TvsCacheMissed(signer.subject, signer.issuer, signer.serial))
        answer = yield from self._ask(signer, accepted)
        try:
            anchor = _checked(answer, signer, roles)
        except TrustError as error:
            yield Note(TvsDidNotVouch(signer.subject, error.reason, str(error)))
            raise
        yield Note(TvsVouched(signer.subject, answer.roles))
        yield from self._remember(signer, answer)
        return anchor, TrustBasis.TVS

    def _require_usable(self, accepted: tuple[bytes, ...]) -> Steps[None]:
        if not accepted:
            yield Note(TvsNotUsed(TrustReason.TVS_NOT_IN_TRUST_LIST))
            raise TrustError(TrustReason.TVS_NOT_IN_TRUST_LIST, "the installed ITL has no TVS record")
        if not self.servers:
            yield Note(TvsNotUsed(TrustReason.TVS_NOT_CONFIGURED))
            raise TrustError(TrustReason.TVS_NOT_CONFIGURED, "the stored configuration names no TVS server")

    def _cached(self, signer: SignerId) -> TvsCacheEntry | None:
        now = self._clock.now()
        for entry in self.cache:
            same = same_serial(entry.serial, signer.serial) and same_name(entry.issuer, signer.issuer)
            if same and entry.expires_at > now:
                return entry
        return None

    def _ask(self, signer: SignerId, accepted: tuple[bytes, ...]) -> Steps[TvsAnswer]:
        """The first answer. Whether a real phone asks the next server after "not found" is UNKNOWN: ours does not."""
        failures: list[TvsFailure] = []
        for server in self.servers:
            query = QueryTvs(
                server,
                self._next_session_id,
                self._device_name,
                signer.subject,
                signer.issuer,
                signer.serial,
                accepted,
            )
            self._next_session_id += 1
            result: TvsAnswer | TvsFailure = yield query
            if isinstance(result, TvsAnswer):
                return result
            failures.append(result)
            yield Note(TvsQueryFailed(server.address, server.port, result.reason, result.detail))
        raise _telling(failures)

    def _remember(self, signer: SignerId, answer: TvsAnswer) -> Steps[None]:
        """Only what vouched for something is kept [inferred]; without a TTL nothing is."""
        if not answer.ttl_s or answer.certificate is None:
            return
        now = self._clock.now()
        entry = TvsCacheEntry(signer.issuer, signer.serial, answer.certificate, answer.roles, now + answer.ttl_s)
        valid = tuple(old for old in self.cache if old.expires_at > now)
        self.cache = (*valid, entry)[-MAX_TVS_CACHE_ENTRIES:]
        stored: StoreResult = yield Store({"tvs_cache": self.cache})
        if stored.error is not None:  # it is known until the power goes
            yield Note(FlashFailed(stored.error))
        yield Note(TvsCertificateCached(signer.subject, answer.roles, answer.ttl_s))


def _verify(
    data: bytes,
    document: TrustList | SignedFile,
    roles: Collection[TrustRole],
    installed: InstalledLists,
    tvs: TvsVerifier,
    capabilities: Capabilities,
) -> Steps[TrustBasis]:
    """Whether a phone looks at the digest before or after the signer is UNKNOWN: ours before it bothers TVS."""
    if document.digest not in capabilities.digests:
        known = ", ".join(sorted(digest.name for digest in capabilities.digests))
        raise TrustError(
            TrustReason.ALGORITHM_UNSUPPORTED, f"signed with {document.digest.name}, but this model verifies {known}"
        )
    anchor, basis = yield from _signer_of(document.signer, roles, installed, tvs, capabilities)
    verify_document(document, data, (anchor,), roles)
    return basis


def _signer_of(
    signer: SignerId,
    roles: Collection[TrustRole],
    installed: InstalledLists,
    tvs: TvsVerifier,
    capabilities: Capabilities,
) -> Steps[tuple[Anchor, TrustBasis]]:
    """A signer that is in a list without the wanted role goes to TVS like an unknown one (facts 7.2, UNKNOWN)."""
    for held, basis in ((installed.ctl, TrustBasis.CTL), (installed.itl, TrustBasis.ITL)):
        if held is not None:
            with suppress(TrustError):
                return find_signer(signer, held.anchors, roles), basis
    if not capabilities.security_by_default:
        return find_signer(signer, installed.ctl.anchors if installed.ctl else (), roles), TrustBasis.CTL
    return (yield from tvs.vouch(signer, roles, installed.tvs_certificates))


def _checked(answer: TvsAnswer, signer: SignerId, roles: Collection[TrustRole]) -> Anchor:
    if answer.status != STATUS_OK:
        raise TrustError(TrustReason.TVS_NOT_FOUND, f"TVS does not know {signer.subject} (status {answer.status})")
    if answer.certificate is None:
        raise TrustError(TrustReason.TVS_ANSWER_INVALID, "TVS answered without a certificate")
    return _vouched(answer.certificate, answer.roles, signer, roles, "TVS")


def _vouched(
    certificate: bytes, held: tuple[int, ...], signer: SignerId, wanted: Collection[TrustRole], origin: str
) -> Anchor:
    """The certificate that was asked for, in one of the wanted roles."""
    try:
        anchors = anchors_of_certificate(certificate, held or (TrustRole.UNKNOWN,), origin)
    except WireError as error:
        raise TrustError(TrustReason.TVS_ANSWER_INVALID, f"TVS answered no usable certificate: {error}") from error
    try:
        return find_signer(signer, anchors, wanted)
    except TrustError as error:
        if error.reason is TrustReason.SIGNER_UNKNOWN:
            raise TrustError(
                TrustReason.TVS_ANSWER_INVALID, f"TVS answered another certificate: {anchors[0].subject}"
            ) from error
        names = " or ".join(role.name for role in sorted(wanted))
        text = f"TVS knows {signer.subject} with roles {sorted(held)}, but {names} is needed"
        raise TrustError(TrustReason.TVS_ANSWER_LACKS_ROLE, text) from error


def _telling(failures: list[TvsFailure]) -> TrustError:
    """One error for several servers: a server that answered wrongly says more than one that did not answer."""
    reasons = [failure.reason for failure in failures]
    reason = next((reason for reason in reasons if reason is not TrustReason.TVS_UNREACHABLE), reasons[0])
    return TrustError(reason, "; ".join(failure.detail for failure in failures))
