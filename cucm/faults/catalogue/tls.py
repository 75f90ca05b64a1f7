"""TLS: what a client meets that says its ClientHello to TVS or to a CallManager's secure port."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

from pydantic import Field

from cucm.faults.points import Action, FaultPoint

HANDSHAKE_FAILURE: Final = 40
"""Description of an alert (RFC 8446, 6)."""
NOT_TLS: Final = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"

WHERE: Final = {
    "cluster": "the cluster's name",
    "node": "the node's name",
    "service": "TVS, CallManager",
    "port": "the service's port",
    "peer": "address of the client",
    "phone": "device name of the phone behind that address",
}


class StallBefore(Action):
    """Read the ClientHello and never answer. It ends when the client ends it, or with a reset after ten minutes."""

    name: ClassVar[str] = "stall-before"


class StallInside(Action):
    """Send the beginning of the ServerHello and what follows it, then nothing more. It ends when the client ends it, or
    with a reset after ten minutes.
    """

    name: ClassVar[str] = "stall-inside"
    bytes: Annotated[int, Field(ge=1, le=16384, description="how many are sent")] = 48


class WrongCertificate(Action):
    """Show a certificate of another name and key."""

    name: ClassVar[str] = "wrong-certificate"


class ExpiredCertificate(Action):
    """Show the service's certificate with dates that ended a day ago. (Names, serial and key are the same. Where a CA
    had issued it, the signature is another's.)
    """

    name: ClassVar[str] = "expired-certificate"


class NotYetValidCertificate(Action):
    """Show the service's certificate with dates that begin in a day. (Otherwise as `expired-certificate`.)"""

    name: ClassVar[str] = "not-yet-valid-certificate"


class WrongKey(Action):
    """Show a certificate of the same names, serial and dates with another key: an impostor's."""

    name: ClassVar[str] = "wrong-key"


class Alert(Action):
    """Answer the ClientHello with a fatal alert."""

    name: ClassVar[str] = "alert"
    description: Annotated[
        int, Field(ge=0, le=255, description="number of the alert: 40 handshake_failure, 70 protocol_version, ...")
    ] = HANDSHAKE_FAILURE


class Plaintext(Action):
    """Answer the ClientHello with text instead of TLS, then close."""

    name: ClassVar[str] = "plaintext"
    text: Annotated[str, Field(min_length=1, max_length=4096, description="what is answered, in UTF-8")] = NOT_TLS


TLS_HANDSHAKE: Final = FaultPoint(
    "tls.handshake",
    "A client has sent its ClientHello, or the beginning of it.",
    (
        StallBefore,
        StallInside,
        WrongCertificate,
        ExpiredCertificate,
        NotYetValidCertificate,
        WrongKey,
        Alert,
        Plaintext,
    ),
    WHERE,
)
POINTS: Final = (TLS_HANDSHAKE,)
