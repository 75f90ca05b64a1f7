"""What a phone says to its CallManager: REGISTER, and REFER with an alarm (facts 7.6). Pure.

The user part of a phone's address is UNKNOWN where the facts stop; here it is the MAC address in lower case.
`+sip.instance` and the device name in Contact, and REFER's headers beyond those of facts 7.6, are [recall].
"""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Final

from cucm.wire.alarm import CONTENT_TYPE, DeviceTlInfo
from cucm.wire.sip import DEVICE_NAME_PARAMETER
from cucm.wire.sip_digest import Digest, answer
from cucm.wire.sip_message import Headers, Request
from phone_agent.commands import Register

FIRST_SEQUENCE: Final = 101
"""CSeq of a phone's first REGISTER [recall]."""
ALARM_SEQUENCE: Final = 1000
"""CSeq of a REFER with an alarm (facts 7.6)."""
EXPIRES_S: Final = 3600
"""What the phone asks for [recall]."""
ALARM_EXPIRES_S: Final = 10
"""Facts 7.6."""


class SipRequests:
    """The requests of one phone over one connection; `local` is its address and port there.

    All REGISTERs share Call-ID and From and count on (RFC 3261 10.2.4); every REFER stands alone.
    """

    def __init__(self, command: Register, local: tuple[str, int], randomness: Random) -> None:
        self._command = command
        self._randomness = randomness
        self._user = command.device_name.removeprefix("SEP").lower()
        self._server = f"sip:{_host(command.address)}"
        self._mine = f"<sip:{self._user}@{_host(command.address)}>"
        self._local_address, self._local = local[0], f"{_host(local[0])}:{local[1]}"
        self._sequence = FIRST_SEQUENCE
        self._from_tag = self._token()
        self._call_id = self._new_call_id()

    def register(self, expires_s: int = EXPIRES_S, challenged: Digest | None = None) -> Request:
        """REGISTER; 0 seconds end the registration. With the answer to a challenge, if it can be answered."""
        contact = f'{self._contact};{DEVICE_NAME_PARAMETER}="{self._command.device_name}"'
        request = self._request(
            "REGISTER", self._sequence, self._from_tag, self._call_id, self._mine, contact, expires_s
        )
        self._sequence += 1
        credentials = None if challenged is None else self._credentials(challenged, request)
        if credentials is not None:
            request.headers.set("Authorization", credentials)
        request.headers.set("Content-Length", "0")
        return request

    def alarm(self, lists: DeviceTlInfo) -> Request:
        """REFER with the DeviceTLInfo alarm; the phone's own address is put in here."""
        address = self._local_address
        own = replace(lists, ipv6_address=address) if ":" in address else replace(lists, ipv4_address=address)
        tag, call_id, to = self._token(), self._new_call_id(), f"<{self._server}>"
        request = self._request("REFER", ALARM_SEQUENCE, tag, call_id, to, self._contact, ALARM_EXPIRES_S)
        content = f"{self._token()}@{_host(address)}"
        request.body = own.as_alarm().encode()
        request.headers.set("Require", "norefersub")
        request.headers.set("Referred-By", self._mine)
        request.headers.set("Refer-To", f"<cid:{content}>")
        request.headers.set("Content-Id", f"<{content}>")
        request.headers.set("Content-Type", CONTENT_TYPE)
        request.headers.set("Content-Length", str(len(request.body)))
        return request

    @property
    def _contact(self) -> str:
        instance = f"<urn:uuid:00000000-0000-0000-0000-{self._user}>"
        return f'<sip:{self._user}@{self._local};transport={self._command.transport}>;+sip.instance="{instance}"'

    def _request(
        self, method: str, sequence: int, from_tag: str, call_id: str, to: str, contact: str, expires_s: int
    ) -> Request:
        via = f"SIP/2.0/{self._command.transport.upper()} {self._local};branch=z9hG4bK{self._token()}"
        fields = (
            ("Via", via),
            ("From", f"{self._mine};tag={from_tag}"),
            ("Call-ID", call_id),
            ("CSeq", f"{sequence} {method}"),
            ("Max-Forwards", "70"),
            ("To", to),
            ("Contact", contact),
            ("Expires", str(expires_s)),
        )
        return Request(method, self._server, Headers(fields))

    def _credentials(self, challenged: Digest, request: Request) -> str | None:
        command = self._command
        return answer(
            challenged,
            request.method,
            request.uri,
            command.digest_user,
            command.digest_password,
            cnonce=self._token(),
        )

    def _new_call_id(self) -> str:
        return f"{self._token()}@{_host(self._local_address)}"

    def _token(self) -> str:
        return f"{self._randomness.getrandbits(64):016x}"


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address
