"""Every point at which something can be made to go wrong, by what it belongs to."""

from __future__ import annotations

from itertools import chain
from typing import Final

from cucm.errors import UsageError
from cucm.faults.catalogue import cluster, dhcp, files, http, phone, sftp, sip, tcp, tftp, tls, tvs
from cucm.faults.points import FaultPoint
from cucm.validation_words import nearest

_DOMAINS: Final = (
    tcp,
    tls,
    tvs,
    tftp,
    http,
    files,
    sip,
    dhcp,
    sftp,
    cluster,
    phone,
)
POINTS: Final[dict[str, FaultPoint]] = {
    point.name: point for point in chain.from_iterable(domain.POINTS for domain in _DOMAINS)
}
"""By name, in the order of the reference."""


def fault_point(name: str) -> FaultPoint:
    """Raises UsageError with the nearest name."""
    try:
        return POINTS[name]
    except KeyError:
        mend = nearest(name, list(POINTS), most=len(POINTS))
        raise UsageError(f"there is no fault point {name!r}", mend=mend) from None
