"""SFTP: the server over which clusters exchange their certificates in bulk."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

from pydantic import Field

from cucm.faults.points import Action, FaultPoint

MAX_BYTES: Final = 1 << 32

PEER: Final = {"peer": "address of the client"}
FILE: Final = PEER | {"file": "path of the file, from the server's root: /bulk/name.p12"}


class WrongHostKey(Action):
    """Show another host key than the one clients know."""

    name: ClassVar[str] = "wrong-host-key"


class RefuseLogin(Action):
    """Refuse the password, right or wrong."""

    name: ClassVar[str] = "refuse-login"


class DiskFull(Action):
    """No space is left on the device."""

    name: ClassVar[str] = "disk-full"
    after_bytes: Annotated[int, Field(ge=0, le=MAX_BYTES, description="so many of the file still fit")] = 0


class CutTransfer(Action):
    """Reset the connection in the middle of a file."""

    name: ClassVar[str] = "cut-transfer"
    after_bytes: Annotated[int, Field(ge=0, le=MAX_BYTES, description="so many of the file pass before")] = 0


SFTP_CONNECT: Final = FaultPoint("sftp.connect", "A client begins an SSH session.", (WrongHostKey,), PEER)
SFTP_LOGIN: Final = FaultPoint(
    "sftp.login", "A client gives a password.", (RefuseLogin,), PEER | {"user": "the name it gives"}
)
SFTP_WRITE: Final = FaultPoint("sftp.write", "A client opens a file to write it.", (DiskFull, CutTransfer), FILE)
SFTP_READ: Final = FaultPoint("sftp.read", "A client opens a file to read it.", (CutTransfer,), FILE)
POINTS: Final = (SFTP_CONNECT, SFTP_LOGIN, SFTP_WRITE, SFTP_READ)
