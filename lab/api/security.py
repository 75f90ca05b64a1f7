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

TOKEN_NAME: Final = "token"  # noqa: S105 (the name of its file)
_BYTES: Final = 32
_READING: Final = frozenset({"GET", "HEAD"})


class Guard:
    """Looks at each request that came over TCP. The Unix socket is the user's own: only its mode guards it.

    `addresses` are those the API is bound to. The token, in the file `token` (mode 0600) of the lab's folder, is asked
    for where one of them is no loopback address; there is none otherwise.
    """

    def __init__(self, addresses: Sequence[str], directory: Path) -> None:
        self._addresses = frozenset(addresses)
        self._file = directory / TOKEN_NAME
        self._token = ""

    def open(self) -> None:
        """Make the token, if one is needed. Raises EnvironmentProblem."""
        self._file.unlink(missing_ok=True)
        if not all(ipaddress.ip_address(address).is_loopback for address in self._addresses):
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
        self._check_host(request, own[1])
        self._check_origin(request, own[1])
        if self._token and not ipaddress.ip_address(own[0]).is_loopback:
            self._check_token(request)

    def _check_body(self, request: web.Request) -> None:
        """A form of a foreign page cannot say that it is JSON."""
        if request.method not in _READING and request.can_read_body and request.content_type != JSON:
            raise Problem(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                f"the body is {request.content_type}",
                mend=f"send Content-Type: {JSON}",
                exit_code=EXIT_USAGE,
            )

    def _hosts(self, port: int) -> frozenset[str]:
        names = {*(f"[{one}]" if ":" in one else one for one in self._addresses), "localhost"}
        return frozenset(f"{name}:{port}" for name in names)

    def _check_host(self, request: web.Request, port: int) -> None:
        """A name that somebody points at loopback (DNS rebinding) is not ours."""
        if (request.headers.get("Host") or "").lower() not in self._hosts(port):
            raise _forbidden("the Host header names another machine", "ask by the address that `cucm-lab up` prints")

    def _check_origin(self, request: web.Request, port: int) -> None:
        origin = request.headers.get("Origin")
        if origin is not None and origin.lower() not in {f"http://{host}" for host in self._hosts(port)}:
            raise _forbidden("a page of another origin asks", "the API is for programs, not for pages of others")

    def _check_token(self, request: web.Request) -> None:
        scheme, _, token = (request.headers.get("Authorization") or "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(token.strip().encode(), self._token.encode()):
            raise Problem(
                HTTPStatus.UNAUTHORIZED,
                "the token is missing or wrong",
                mend=f"send `Authorization: Bearer` with what is in the lab's file {TOKEN_NAME!r}",
                exit_code=EXIT_USAGE,
            )


def _forbidden(what: str, mend: str) -> Problem:
    return Problem(HTTPStatus.FORBIDDEN, what, mend=mend, exit_code=EXIT_USAGE)
