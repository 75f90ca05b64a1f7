"""What a phone's Status messages screen says, in Cisco's words and letter case (facts 7.5)."""

from __future__ import annotations

from typing import Final

from phone_agent.commands import FetchStatus

TRUST_LIST_UPDATED: Final = "Trust List Updated"
TRUST_LIST_UPDATE_FAILED: Final = "Trust List Update Failed"
NO_TRUST_LIST: Final = "No Trust List Installed"
CTL_NOT_FOUND: Final = "File Not Found <CTLFile.tlv>"
CONFIGURATION_NOT_FOUND: Final = "File not found <Cfg File>"
ERASING_LISTS: Final = "Erasing CTL and ITL files"
DEFAULT_IN_USE: Final = "XmlDefault.cnf.xml"
TRANSFER_TROUBLE: Final = {
    FetchStatus.TIMEOUT: "TFTP Timeout",
    FetchStatus.ACCESS_ERROR: "TFTP Access Error",
    FetchStatus.ERROR: "TFTP Error",
}
CONFIGURATION_INVALID: Final = "invalid file {name}, authenticated fail."
"""What an 8945 shows for a refused configuration, without its `Reason:14.`; on an 8861 UNKNOWN (facts 7.5)."""
LSC_INSTALLED: Final = "LSC installed"
LSC_DELETED: Final = "LSC deleted"
LSC_FAILED: Final = "LSC update failed"
"""What a phone shows of a CAPF operation is UNKNOWN: these three are ours."""
