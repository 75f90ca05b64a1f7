"""A phone's locally significant certificate: from whom it takes one. CAPF's own protocol (3804) is not spoken."""

from __future__ import annotations

import re
from typing import Final, Protocol

from cryptography.x509.oid import NameOID

from cucm.errors import LabError, TrustError, TrustReason, WireError
from cucm.events.phone import LscDeleted, LscInstalled, LscRefused
from cucm.identity import describe, load_certificate
from cucm.roles import TrustRole
from phone_agent.flash import DeviceIdentity, FlashContents, PhoneFlash
from phone_agent.flash_export import CertificateView
from phone_agent.models import PhoneModel
from phone_agent.verification import InstalledList

_SERIAL_NUMBER: Final = re.compile(r"\bSN:([0-9A-Za-z]{1,32})$")


class LscIssuer(Protocol):
    """A Certificate Authority Proxy Function as a phone meets it."""

    @property
    def certificate(self) -> bytes:
        """The CAPF's own certificate, DER."""

    async def issue(self, model: PhoneModel, serial_number: str) -> DeviceIdentity:
        """A new certificate with its key for this phone. Raises LabError when it cannot be had."""


async def obtain_lsc(capf: LscIssuer, model: PhoneModel, flash: PhoneFlash) -> LscInstalled | LscRefused:
    """Ask for a certificate and keep it. Never raises a LabError: a refusal is an event."""
    contents = flash.contents
    try:
        require_listed_capf(capf.certificate, contents, has_itl=model.capabilities.security_by_default)
        identity = await capf.issue(model, serial_number_of(model, contents))
        known = describe(identity.certificate)
        flash.store(lsc=identity)
    except LabError as error:
        reason = error.reason if isinstance(error, TrustError) else None
        return LscRefused(CertificateView.from_der(capf.certificate).subject, reason, str(error))
    return LscInstalled(known.subject, known.issuer, known.serial)


def drop_lsc(flash: PhoneFlash) -> LscDeleted:
    """Raises FlashError."""
    held = CertificateView.of(flash.contents.lsc)
    flash.store(lsc=None)
    return LscDeleted(None if held is None else held.issuer)


def require_listed_capf(certificate: bytes, contents: FlashContents, *, has_itl: bool) -> None:
    """Raises TrustError unless the certificate is that of a CAPF record of the phone's lists (facts 11, F21).

    A phone without any list takes every CAPF, as it takes every list [inferred]. Where there is a CTL it counts, the
    ITL only where there is none: a CTL that was not updated is the cause of F21, although the ITL follows at once
    [inferred].
    """
    held = _loaded(contents.ctl, "CTL"), _loaded(contents.itl if has_itl else None, "ITL")
    counting = next((one for one in held if one is not None), None)
    if counting is None or certificate in counting.certificates({TrustRole.CAPF}):
        return
    raise TrustError(
        TrustReason.SIGNER_UNKNOWN,
        "the CAPF's certificate is that of no CAPF record of the phone's CTL or ITL",
        mend="update the lists (utils ctl update CTLFile, restart TFTP), reset the phone, then install the LSC",
    )


def serial_number_of(model: PhoneModel, contents: FlashContents) -> str:
    """The phone's serial number as its certificates have it (facts 7.7: `PID:CP-8861 SN:...`); else made of its MAC."""
    for identity in (contents.mic, contents.lsc):
        if identity is not None and (number := _serial_number(identity)):
            return number
    return f"LAB{model.mac[-8:]}"


def _loaded(data: bytes | None, name: str) -> InstalledList | None:
    """A list that cannot be read counts as not installed, as at boot."""
    if data is None:
        return None
    try:
        return InstalledList.load(data, name)
    except WireError:
        return None


def _serial_number(identity: DeviceIdentity) -> str | None:
    try:
        subject = load_certificate(identity.certificate).subject
    except WireError:
        return None
    values = (str(attribute.value) for attribute in subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER))
    found = next((match for value in values if (match := _SERIAL_NUMBER.search(value))), None)
    return found and found.group(1)
