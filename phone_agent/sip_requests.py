"""What a phone says to its CallManager: REGISTER, and REFER with an alarm (facts 7.6). Pure; `sipmessage` writes it.

The user part of a phone's address is UNKNOWN where the facts stop; here it is the MAC address in lower case.
`+sip.instance` and the device name in Contact, and REFER's headers beyond those of facts 7.6, are [recall].
"""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Final

from sipmessage import URI, Address, AuthCredentials, CSeq, MediaType, Parameters, Request, Via

from cucm.wire.alarm import CONTENT_TYPE, DeviceTlInfo
from cucm.wire.sip import DEVICE_NAME_PARAMETER
from cucm.wire.sip_digest import Digest, answer
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
        self._local = local
        self._randomness = randomness
        self._user = command.device_name.removeprefix("SEP").lower()
        self._sequence = FIRST_SEQUENCE
        self._from_tag = self._token()
        self._call_id = self._new_call_id()

    def register(self, expires_s: int = EXPIRES_S, challenged: Digest | None = None) -> Request:
        """REGISTER; 0 seconds end the registration. With the answer to a challenge, if it can be answered."""
        request = self._request("REGISTER", self._sequence, self._from_tag, self._call_id)
        self._sequence += 1
        request.to_address = Address(self._mine)
        request.headers.set("Contact", f'{self._contact};{DEVICE_NAME_PARAMETER}="{self._command.device_name}"')
        request.expires = expires_s
        if challenged is not None:
            request.authorization = self._credentials(challenged, request)
        request.content_length = 0
        return request

    def alarm(self, lists: DeviceTlInfo) -> Request:
        """REFER with the DeviceTLInfo alarm; the phone's own address is put in here."""
        address = self._local[0]
        own = replace(lists, ipv6_address=address) if ":" in address else replace(lists, ipv4_address=address)
        body = own.as_alarm().encode()
        request = self._request("REFER", ALARM_SEQUENCE, self._token(), self._new_call_id())
        request.to_address = Address(self._server)
        content = f"{self._token()}@{_host(address)}"
        request.headers.set("Contact", self._contact)
        request.expires = ALARM_EXPIRES_S
        request.require = ["norefersub"]
        request.headers.set("Referred-By", f"<{self._mine}>")
        request.headers.set("Refer-To", f"<cid:{content}>")
        request.headers.set("Content-Id", f"<{content}>")
        request.content_type = MediaType(CONTENT_TYPE)
        request.content_length = len(body)
        request.body = body
        return request

    @property
    def _server(self) -> URI:
        return URI("sip", _host(self._command.address))

    @property
    def _mine(self) -> URI:
        return URI("sip", _host(self._command.address), user=self._user)

    @property
    def _contact(self) -> str:
        """Written by hand: `sipmessage` would percent-encode the quotes and the `+` of its parameters."""
        instance = f"<urn:uuid:00000000-0000-0000-0000-{self._user}>"
        host, port = _host(self._local[0]), self._local[1]
        return f'<sip:{self._user}@{host}:{port};transport={self._command.transport}>;+sip.instance="{instance}"'

    def _request(self, method: str, sequence: int, from_tag: str, call_id: str) -> Request:
        request = Request(method, self._server)
        branch = Parameters(branch=f"z9hG4bK{self._token()}")
        request.via = [Via(self._command.transport.upper(), _host(self._local[0]), self._local[1], branch)]
        request.from_address = Address(self._mine, parameters=Parameters(tag=from_tag))
        request.call_id = call_id
        request.cseq = CSeq(sequence, method)
        request.max_forwards = 70
        return request

    def _credentials(self, challenged: Digest, request: Request) -> AuthCredentials | None:
        command = self._command
        return answer(
            challenged,
            request.method,
            str(request.uri),
            command.digest_user,
            command.digest_password,
            cnonce=self._token(),
        )

    def _new_call_id(self) -> str:
        return f"{self._token()}@{_host(self._local[0])}"

    def _token(self) -> str:
        return f"{self._randomness.getrandbits(64):016x}"


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address
