"""Trust roles, certificate units and the table that joins them.

Sources: facts 5.1 (role numbers), 5.2 (certificate service numbers), 5.3 (unit -> roles). This is the one
place where a store's name turns into what a certificate in it may vouch for; everything else asks here.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import Final


class TrustRole(IntEnum):
    """What a certificate may do; the same numbers are the FUNCTION of a CTL/ITL record (facts 5.1)."""

    SAST = 0
    CALLMANAGER = 1
    CALLMANAGER_TFTP = 2
    TFTP = 3
    CAPF = 4
    SRST = 5
    FIREWALL = 6
    APPLICATION_SERVER = 7
    CERTIFICATE_AUTHORITY = 20
    TVS = 21
    """Cisco's table says AUTHENTICATION_AUTHORIZATION; phones print it as role 21 when they meet TVS."""
    SIGNALING_CALL_CONTROL = 22
    PROVISIONING_SERVICE = 23
    DATA_SERVICE = 24
    NETWORK_ELEMENT = 25
    VPN = 26
    SERVICEABILITY = 27
    UNKNOWN = 255


FUNCTION_TEXTS: Final = MappingProxyType(
    {
        TrustRole.SAST: "System Administrator Security Token",
        TrustRole.CALLMANAGER: "CCM",
        TrustRole.CALLMANAGER_TFTP: "CCM+TFTP",
        TrustRole.TFTP: "TFTP",
        TrustRole.CAPF: "CAPF",
        TrustRole.TVS: "TVS",
    }
)
"""FUNCTION as `show ctl` prints it. SAST, CCM+TFTP, CAPF: facts 4.1; the rest [inferred]."""

SIGNS_TRUST_LISTS: Final = frozenset({TrustRole.SAST})
"""Roles whose holder may sign a CTL or ITL (facts 3.3, [inferred] for real phones)."""
SIGNS_ITLS: Final = frozenset({TrustRole.SAST, TrustRole.CALLMANAGER_TFTP})
"""Roles in a phone's CTL or ITL whose holder may sign its next ITL. CCM+TFTP is W-migr's wording (facts 7.2) and
[inferred]: before 12.0 a TFTP node's CallManager signs its ITL, and a CTL by tokens, or a subscriber in any CTL, has it
as CCM+TFTP alone; a phone without ITL, and so without a TVS to ask, could otherwise never load one."""
SIGNS_FILES: Final = frozenset({TrustRole.TFTP, TrustRole.CALLMANAGER_TFTP})
"""Roles whose holder may sign a configuration or other .sgn file (facts 3.3)."""
CALL_PROCESSING: Final = frozenset({TrustRole.CALLMANAGER, TrustRole.CALLMANAGER_TFTP})
"""Roles whose holder a phone accepts as its CallManager on TLS 5061 (facts 7.7)."""


class CertificateUnit(StrEnum):
    """A certificate store, spelled as OS Administration does (facts 5.2, 5.3)."""

    PHONE_TRUST = "Phone-trust"
    PHONE_VPN_TRUST = "Phone-VPN-trust"
    CALLMANAGER = "CallManager"
    CALLMANAGER_TRUST = "CallManager-trust"
    TOMCAT = "tomcat"
    TOMCAT_TRUST = "tomcat-trust"
    IPSEC = "ipsec"
    IPSEC_TRUST = "ipsec-trust"
    CAPF = "CAPF"
    CAPF_TRUST = "CAPF-trust"
    TVS = "TVS"
    TVS_TRUST = "TVS-trust"
    DIRECTORY_TRUST = "directory-trust"
    PHONE_SAST_TRUST = "Phone-SAST-trust"
    PHONE_CTL_TRUST = "Phone-CTL-trust"
    USERLICENSING_TRUST = "userlicensing-trust"
    ITLRECOVERY = "ITLRecovery"

    @property
    def is_trust_store(self) -> bool:
        """Whether the store holds others' certificates rather than the node's own one."""
        return self.value.endswith("-trust")


SERVICE_NUMBERS: Final = MappingProxyType(
    {unit: number for number, unit in enumerate(CertificateUnit, start=1) if unit is not CertificateUnit.ITLRECOVERY}
    | {CertificateUnit.ITLRECOVERY: 17}
)
"""Certificate service enum of the database (facts 5.2: 1 to 16). The number of ITLRecovery is UNKNOWN: 17 is ours."""

UNIT_ROLES: Final = MappingProxyType(
    {
        CertificateUnit.CALLMANAGER: (TrustRole.CALLMANAGER_TFTP, TrustRole.SAST),
        CertificateUnit.PHONE_SAST_TRUST: (TrustRole.SAST, TrustRole.TFTP),
        CertificateUnit.CALLMANAGER_TRUST: (),
        CertificateUnit.CAPF: (TrustRole.CAPF,),
        CertificateUnit.CAPF_TRUST: (),
        CertificateUnit.TVS: (TrustRole.TVS,),
        CertificateUnit.TVS_TRUST: (),
        CertificateUnit.TOMCAT: (TrustRole.APPLICATION_SERVER,),
        CertificateUnit.TOMCAT_TRUST: (TrustRole.APPLICATION_SERVER,),
        CertificateUnit.IPSEC: (TrustRole.APPLICATION_SERVER,),
        CertificateUnit.IPSEC_TRUST: (),
        CertificateUnit.PHONE_TRUST: (TrustRole.APPLICATION_SERVER,),
        CertificateUnit.PHONE_CTL_TRUST: (TrustRole.APPLICATION_SERVER,),
        CertificateUnit.PHONE_VPN_TRUST: (TrustRole.VPN,),
        CertificateUnit.DIRECTORY_TRUST: (),
        CertificateUnit.USERLICENSING_TRUST: (),
        # no row in facts 5.3; SAST is its FUNCTION in CTL and ITL [inferred]
        CertificateUnit.ITLRECOVERY: (TrustRole.SAST,),
    }
)
"""The store -> TVS roles table that decides whether a migration works (facts 5.3)."""


def roles_of_units(units: Iterable[CertificateUnit]) -> tuple[TrustRole, ...]:
    """Roles of a certificate that lies in all these stores, ascending and without repetition."""
    return tuple(sorted({role for unit in units for role in UNIT_ROLES[unit]}))
