"""How a device signals: its security mode, its transport, and the ports that its configuration names."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

SIP_PORT: Final = 5060
SECURE_SIP_PORT: Final = 5061
CAPF_PORT: Final = 3804
TVS_PORT: Final = 2445
"""All four: facts 2.9, 7.7."""


class DeviceSecurityMode(IntEnum):
    """`deviceSecurityMode` of a configuration, `tkdevicesecuritymode` of the database (facts 7.7)."""

    NON_SECURE = 1
    AUTHENTICATED = 2
    ENCRYPTED = 3


class TransportLayerProtocol(IntEnum):
    """`transportLayerProtocol` of a configuration (facts 7.7)."""

    TCP = 1
    UDP = 2
    TLS = 3
