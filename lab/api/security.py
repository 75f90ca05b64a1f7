"""Who may use the API: no page of a browser, nobody under a foreign name, from other machines only with the token."""

from __future__ import annotations

import hmac
import ipaddress
import secrets
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Final

from aiohttp import web

from cucm.errors import EXIT_USAGE
from cucm.whole_files import write_private
from lab.api.problems import Problem
from lab.api.routes import JSON

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

TOKEN_NAME: Final = "token"  # noqa: S105 (the name of its file)
_BYTES: Final = 32
_OWN_SITES: Final = frozenset({"same-origin", "none"})
"""What a browser says of a request (Sec-Fetch-Site) that a page of ours, or the user himself, has made."""


class Guard:
    """Looks at each request that came over TCP. The Unix socket is the user's own: only its mode guards it.

    `addresses` are those the API is bound to. The token, in the file `token` (mode 0600) of the lab's folder, is asked
    for where one of them is no loopback address; there is none otherwise, nor in a network of the lab's own, where it
    has a `private_name`.
    """

    def __init__(self, addresses: Sequence[str], directory: Path, *, private_name: str = "") -> None:
        self._private_name = private_name
        self._addresses = frozenset(addresses)
        self._file = directory / TOKEN_NAME
        self._token = ""

    def open(self) -> None:
        """Make the token, if one is needed. Raises EnvironmentProblem."""
        self._file.unlink(missing_ok=True)
        if not self._private_name and not all(ipaddress.ip_address(address).is_loopback for address in self._addresses):
            self._token = secrets.token_urlsafe(_BYTES)
            write_private(self._file, f"{self._token}\n".encode())

    def close(self) -> None:
        self._file.unlink(missing_ok=True)

    def check(self, request: web.Request) -> None:
        """Raises Problem."""
        self._check_body(request)
        own = request.transport.get_extra_info("sockname") if request.transport is not None else None
        if not isinstance(own, tuple):
            return
        address = _address(own[0])
        hosts = self._hosts(address, own[1])
        self._check_host(request, hosts)
        self._check_origin(request, hosts)
        if self._token and not address.is_loopback:
            self._check_token(request)

    def _check_body(self, request: web.Request) -> None:
        """A foreign page cannot say that its form, or its nothing, is JSON."""
        if request.method == "POST" and request.content_type != JSON:
            raise Problem(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                f"the body is {request.headers.get('Content-Type', 'of no type')[:80]!r}",
                mend=f"send Content-Type: {JSON}",
                exit_code=EXIT_USAGE,
            )

    def _hosts(self, address: Address, port: int) -> frozenset[str]:
        """What we are called by one who has come to this address of ours."""
        names = {*self._addresses, str(address), self._private_name or "localhost"}
        return frozenset(f"{f'[{one}]' if ':' in one else one}:{port}" for one in names)

    def _check_host(self, request: web.Request, hosts: frozenset[str]) -> None:
        """A name that somebody points at loopback (DNS rebinding) is not ours."""
        if (request.headers.get("Host") or "").lower() not in hosts:
            raise _forbidden("the Host header names another machine", "ask by the address that `cucm-lab up` prints")

    def _check_origin(self, request: web.Request, hosts: frozenset[str]) -> None:
        """An image of a foreign page has no Origin; browsers of today say what it is all the same."""
        origin = request.headers.get("Origin")
        is_foreign = origin is not None and origin.lower() not in {f"http://{host}" for host in hosts}
        if is_foreign or request.headers.get("Sec-Fetch-Site", "none") not in _OWN_SITES:
            raise _forbidden("a page of another origin asks", "the API is for programs, not for pages of others")

    def _check_token(self, request: web.Request) -> None:
        scheme, _, token = (request.headers.get("Authorization") or "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(_bytes(token.strip()), _bytes(self._token)):
            raise Problem(
                HTTPStatus.UNAUTHORIZED,
                "the token is missing or wrong",
                mend=f"send `Authorization: Bearer` with what is in the lab's file {TOKEN_NAME!r}",
                exit_code=EXIT_USAGE,
            )


def _address(text: str) -> Address:
    """An IPv4 address as such, also where a socket for both families has it as one of IPv6."""
    address = ipaddress.ip_address(text.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address


def _bytes(text: str) -> bytes:
    """As it came: a header may have bytes that are no text."""
    return text.encode("utf-8", "surrogateescape")


def _forbidden(what: str, mend: str) -> Problem:
    return Problem(HTTPStatus.FORBIDDEN, what, mend=mend, exit_code=EXIT_USAGE)
