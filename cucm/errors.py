"""Every error the lab raises on purpose.

LabError                    what went wrong, where, and how to mend it; exit code 1
├── UsageError              the user's words or files are off; exit code 2
├── EnvironmentProblem      the machine lacks something (port, tool, right); exit code 3
│   └── AddressBusy         an address and port are taken; never adopted
├── WireError               bytes
│   ├── DecodeError         bytes that do not follow the format: offset and path
│   ├── EncodeError         a value that does not fit the format
│   └── LimitExceeded       a peer sent more than the limits allow
├── TrustError              a list, file or certificate is not to be trusted: TrustReason
├── CertificateRefused      a certificate store refused an operation
├── DatabaseError           a node's database cannot be opened, read or written
│   └── DiskFull            ... for want of room; exit code 3
├── FaultIdTaken            a fault of this id is in force already
├── FlashError              a phone's flash cannot be read or written
├── TlsError                a TLS session could not be made or broke: alert text
└── StoryError              a story cannot be run as written
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

EXIT_OK: Final = 0
EXIT_NO: Final = 1
EXIT_USAGE: Final = 2
EXIT_ENVIRONMENT: Final = 3


class LabError(Exception):
    """Base of all errors: `what` happened, `where`, and how to `mend` it."""

    exit_code: int = EXIT_NO

    def __init__(self, what: str, *, where: str | None = None, mend: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.mend = mend

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" if self.where else self.what


class UsageError(LabError):
    exit_code = EXIT_USAGE


class EnvironmentProblem(LabError):
    exit_code = EXIT_ENVIRONMENT


class AddressBusy(EnvironmentProblem):
    """An address and port that the lab needs are taken (or not the machine's); the lab never adopts a stranger's."""


class WireError(LabError):
    pass


class DecodeError(WireError):
    """Bytes that do not follow their format.

    `offset` counts bytes from the start of the whole input, `path` names the field (`record[3].SERIALNUMBER`).
    """

    def __init__(self, what: str, *, offset: int, path: str) -> None:
        super().__init__(what, where=f"offset {offset}, {path}" if path else f"offset {offset}")
        self.offset = offset
        self.path = path


class EncodeError(WireError):
    pass


class LimitExceeded(WireError):
    pass


class TrustReason(StrEnum):
    """Why something is not trusted; the same words in events, logs, CLI, docs and tests."""

    MALFORMED = "malformed"
    UNSIGNED = "unsigned"
    SIGNER_UNKNOWN = "signer-unknown"
    SIGNER_ROLE = "signer-lacks-role"
    SIGNATURE_MISMATCH = "signature-mismatch"
    ALGORITHM_UNSUPPORTED = "algorithm-unsupported"
    RECORD_KEY_MISMATCH = "record-key-mismatch"
    CERTIFICATE_EXPIRED = "certificate-expired"
    CERTIFICATE_NOT_YET_VALID = "certificate-not-yet-valid"
    TOO_LARGE = "too-large"
    TVS_NOT_IN_TRUST_LIST = "tvs-not-in-trust-list"
    TVS_NOT_CONFIGURED = "tvs-not-configured"
    TVS_UNREACHABLE = "tvs-unreachable"
    TVS_HANDSHAKE_FAILED = "tvs-handshake-failed"
    TVS_CERTIFICATE_NOT_TRUSTED = "tvs-certificate-not-trusted"
    TVS_NOT_FOUND = "tvs-certificate-not-found"
    TVS_ANSWER_LACKS_ROLE = "tvs-answer-lacks-role"
    TVS_ANSWER_INVALID = "tvs-answer-invalid"


class TrustError(LabError):
    def __init__(self, reason: TrustReason, what: str, *, where: str | None = None, mend: str | None = None) -> None:
        super().__init__(what, where=where, mend=mend)
        self.reason = reason


class CertificateRefused(LabError):
    pass


class FaultIdTaken(LabError):
    pass


class DatabaseError(LabError):
    pass


class DiskFull(DatabaseError):
    exit_code = EXIT_ENVIRONMENT


class FlashError(LabError):
    pass


class TlsError(LabError):
    """`alert` is OpenSSL's reason text (for example `sslv3 alert handshake failure`) where one is known."""

    def __init__(self, what: str, *, alert: str | None = None, where: str | None = None) -> None:
        super().__init__(what, where=where)
        self.alert = alert


class StoryError(UsageError):
    pass
