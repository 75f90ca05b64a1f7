"""What happens to a phone: its boot, its trust lists, its talk with TVS, its registration.

The console lines of facts 10 and of the seed are renderings of these (`cucm.render.phone_console`).
`trust_list` is always "CTL" or "ITL"; lengths are bytes, times seconds.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from cucm.errors import TrustReason
from cucm.events import Event
from cucm.records import dataclass


class TrustBasis(StrEnum):
    """Why a phone accepted something: the branch of the decision tree (facts 7.2, 7.3)."""

    LEAP_OF_FAITH = "leap-of-faith"
    BLANK_ITL = "blank-itl"
    CTL = "ctl"
    ITL = "itl"
    TVS = "tvs"
    TVS_CACHE = "tvs-cache"
    UNSIGNED_ALLOWED = "unsigned-allowed"


# --- the boot as a whole -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BootStarted(Event):
    """Power on, reset or restart. `device_name` is `CP-8861-SEP...`; the flags say what flash holds."""

    kind: ClassVar[str] = "phone.boot_started"
    device_name: str
    ctl_installed: bool
    itl_installed: bool


@dataclass(frozen=True, slots=True)
class StateChanged(Event):
    kind: ClassVar[str] = "phone.state_changed"
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class TftpServersLearned(Event):
    """`from_dhcp` is false when no DHCP server answered and the phone goes on with the servers it knew."""

    kind: ClassVar[str] = "phone.tftp_servers_learned"
    servers: tuple[str, ...]
    from_dhcp: bool


@dataclass(frozen=True, slots=True)
class StatusMessageShown(Event):
    """One line of the phone's Status messages screen (facts 7.5)."""

    kind: ClassVar[str] = "phone.status_message_shown"
    text: str


@dataclass(frozen=True, slots=True)
class FlashFailed(Event):
    """Flash did not take a change: what it held before is still there."""

    kind: ClassVar[str] = "phone.flash_failed"
    detail: str


@dataclass(frozen=True, slots=True)
class SecuritySettingsErased(Event):
    """Someone erased CTL and ITL in the phone's security menu."""

    kind: ClassVar[str] = "phone.security_settings_erased"


@dataclass(frozen=True, slots=True)
class BootFinished(Event):
    """`call_manager` is where the phone is registered, None when nowhere."""

    kind: ClassVar[str] = "phone.boot_finished"
    registered: bool
    call_manager: str | None
    ctl_changed: bool
    itl_changed: bool
    configuration_changed: bool


@dataclass(frozen=True, slots=True)
class BootAborted(Event):
    """The boot as a whole ran past its deadline."""

    kind: ClassVar[str] = "phone.boot_aborted"
    detail: str


@dataclass(frozen=True, slots=True)
class PoweredOff(Event):
    kind: ClassVar[str] = "phone.powered_off"


@dataclass(frozen=True, slots=True)
class PowerLost(Event):
    """The phone died in the middle of whatever it did: its connections break, nobody is told."""

    kind: ClassVar[str] = "phone.power_lost"


# --- files ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FileRequested(Event):
    """`secure` is the console's `[sec=N]` (facts 7.1)."""

    kind: ClassVar[str] = "phone.file_requested"
    file_name: str
    destination: str
    secure: int


@dataclass(frozen=True, slots=True)
class FileReceived(Event):
    kind: ClassVar[str] = "phone.file_received"
    file_name: str
    server: str
    transport: str
    length: int


@dataclass(frozen=True, slots=True)
class FileNotReceived(Event):
    """No server had the file or none could be reached; `attempts` has one text per try."""

    kind: ClassVar[str] = "phone.file_not_received"
    file_name: str
    status: str
    attempts: tuple[str, ...]


# --- trust lists ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TrustListNotLoaded(Event):
    """Flash holds no such list, or one that can no longer be read (`detail`)."""

    kind: ClassVar[str] = "phone.trust_list_not_loaded"
    trust_list: str
    detail: str


@dataclass(frozen=True, slots=True)
class TrustListUnchanged(Event):
    kind: ClassVar[str] = "phone.trust_list_unchanged"
    trust_list: str


@dataclass(frozen=True, slots=True)
class TrustListAccepted(Event):
    """The list was verified (or taken on faith) and is now the phone's. `signer` is its signer's subject name."""

    kind: ClassVar[str] = "phone.trust_list_accepted"
    trust_list: str
    basis: TrustBasis
    signer: str
    version: tuple[int, int]
    sha1: bytes


@dataclass(frozen=True, slots=True)
class TrustListRefused(Event):
    """The phone keeps the list it had. `path` is the downloaded file's path as the console names it."""

    kind: ClassVar[str] = "phone.trust_list_refused"
    trust_list: str
    path: str
    reason: TrustReason
    detail: str


# --- configuration -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ConfigurationAccepted(Event):
    """`changed` is false when the file equals the stored one."""

    kind: ClassVar[str] = "phone.configuration_accepted"
    file_name: str
    basis: TrustBasis
    version_stamp: str
    changed: bool


@dataclass(frozen=True, slots=True)
class ConfigurationRefused(Event):
    """Signature or content is not acceptable; the stored configuration stays in force. `reason` None: bad content."""

    kind: ClassVar[str] = "phone.configuration_refused"
    file_name: str
    path: str
    reason: TrustReason | None
    detail: str


@dataclass(frozen=True, slots=True)
class ConfigurationKept(Event):
    """The phone goes on with the configuration it has stored (`file_name`), or has none at all (None)."""

    kind: ClassVar[str] = "phone.configuration_kept"
    file_name: str | None


# --- TVS -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TvsNotUsed(Event):
    """TVS could not even be asked: no TVS record in the ITL, or no TVS address in the stored configuration."""

    kind: ClassVar[str] = "phone.tvs_not_used"
    reason: TrustReason


@dataclass(frozen=True, slots=True)
class TvsCacheHit(Event):
    """The certificate was still in the phone's TVS cache; no server was asked."""

    kind: ClassVar[str] = "phone.tvs_cache_hit"
    subject: str
    issuer: str
    serial: bytes


@dataclass(frozen=True, slots=True)
class TvsCacheMissed(Event):
    kind: ClassVar[str] = "phone.tvs_cache_missed"
    subject: str
    issuer: str
    serial: bytes


@dataclass(frozen=True, slots=True)
class TvsConnecting(Event):
    kind: ClassVar[str] = "phone.tvs_connecting"
    address: str
    port: int


@dataclass(frozen=True, slots=True)
class TvsConnected(Event):
    """TCP stands. `descriptor` is the socket's number; `type_of_service` what IP_TOS of the socket really is."""

    kind: ClassVar[str] = "phone.tvs_connected"
    address: str
    port: int
    descriptor: int
    type_of_service: int | None


@dataclass(frozen=True, slots=True)
class TvsClientCertificateChosen(Event):
    """What the phone offers as TLS client: `certificate_type` "LSC" or "MIC", names in OpenSSL's one-line form."""

    kind: ClassVar[str] = "phone.tvs_client_certificate_chosen"
    certificate_type: str
    certificate_length: int
    key_length: int
    subject: str
    issuer: str


@dataclass(frozen=True, slots=True)
class TvsHandshakeStarted(Event):
    kind: ClassVar[str] = "phone.tvs_handshake_started"
    descriptor: int


@dataclass(frozen=True, slots=True)
class TvsHandshakeWaiting(Event):
    """The phone waits for the server's flight number `flight`, from 0."""

    kind: ClassVar[str] = "phone.tvs_handshake_waiting"
    flight: int


@dataclass(frozen=True, slots=True)
class TvsServerCertificateChecked(Event):
    """The server's certificate was compared with the ITL's TVS records (role 21)."""

    kind: ClassVar[str] = "phone.tvs_server_certificate_checked"
    address: str
    role: int
    valid: bool
    subject: str


@dataclass(frozen=True, slots=True)
class TvsHandshakeSucceeded(Event):
    kind: ClassVar[str] = "phone.tvs_handshake_succeeded"
    address: str
    descriptor: int
    tls_version: str
    cipher: str


@dataclass(frozen=True, slots=True)
class TvsRequestSent(Event):
    kind: ClassVar[str] = "phone.tvs_request_sent"
    session_id: int
    message: bytes


@dataclass(frozen=True, slots=True)
class TvsResponseReceived(Event):
    kind: ClassVar[str] = "phone.tvs_response_received"
    session_id: int
    message: bytes


@dataclass(frozen=True, slots=True)
class TvsQueryFailed(Event):
    """This server gave no usable answer; the phone goes on to the next one, if there is one."""

    kind: ClassVar[str] = "phone.tvs_query_failed"
    address: str
    port: int
    reason: TrustReason
    detail: str


@dataclass(frozen=True, slots=True)
class TvsVouched(Event):
    """TVS knows the signer in a role that signs such files. `roles` are all it was answered with."""

    kind: ClassVar[str] = "phone.tvs_vouched"
    subject: str
    roles: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TvsDidNotVouch(Event):
    """TVS answered, and its answer does not make the signer trusted: unknown, without the role, or another's."""

    kind: ClassVar[str] = "phone.tvs_did_not_vouch"
    subject: str
    reason: TrustReason
    detail: str


@dataclass(frozen=True, slots=True)
class TvsCertificateCached(Event):
    kind: ClassVar[str] = "phone.tvs_certificate_cached"
    subject: str
    roles: tuple[int, ...]
    ttl_s: int


@dataclass(frozen=True, slots=True)
class TvsCacheFlushed(Event):
    """A changed trust list empties the cache (facts 7.2: seen on 79xx, [inferred] for 88xx)."""

    kind: ClassVar[str] = "phone.tvs_cache_flushed"
    entries: int


# --- registration --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RegistrationStarted(Event):
    kind: ClassVar[str] = "phone.registration_started"
    call_manager: str
    address: str
    port: int
    transport: str


@dataclass(frozen=True, slots=True)
class Registered(Event):
    kind: ClassVar[str] = "phone.registered"
    call_manager: str
    address: str
    port: int
    transport: str


@dataclass(frozen=True, slots=True)
class RegistrationFailed(Event):
    kind: ClassVar[str] = "phone.registration_failed"
    call_manager: str
    address: str
    port: int
    transport: str
    status: str
    sip_status: int | None
    detail: str


@dataclass(frozen=True, slots=True)
class RegistrationNotPossible(Event):
    """There is nobody to register with: no configuration, or none that names a CallManager, or no CTL for TLS."""

    kind: ClassVar[str] = "phone.registration_not_possible"
    detail: str


@dataclass(frozen=True, slots=True)
class RegistrationLost(Event):
    """The CallManager closed the connection of a registered phone."""

    kind: ClassVar[str] = "phone.registration_lost"
    call_manager: str
    detail: str


# --- the phone's own certificate -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LscInstalled(Event):
    """CAPF has issued a certificate to the phone, which uses it instead of its MIC from now on."""

    kind: ClassVar[str] = "phone.lsc_installed"
    subject: str
    issuer: str
    serial: bytes


@dataclass(frozen=True, slots=True)
class LscRefused(Event):
    """The phone has not got a certificate of CAPF. `reason` None: CAPF could not be asked or did not issue one."""

    kind: ClassVar[str] = "phone.lsc_refused"
    issuer: str
    reason: TrustReason | None
    detail: str


@dataclass(frozen=True, slots=True)
class LscDeleted(Event):
    """`issuer` of the certificate that is gone; None if there was none."""

    kind: ClassVar[str] = "phone.lsc_deleted"
    issuer: str | None
