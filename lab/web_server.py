"""What answers on a node's web ports: the tomcat certificate, and a page that says this is the lab.

A real node has its administration there. Of that nothing is emulated but what a tool sees first: TLS with the node's
tomcat certificate on 8443 and 443, and on 80 the way to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Final

from OpenSSL import SSL

from cucm.errors import DecodeError
from cucm.identity import Identity
from cucm.net.addresses import PortMap
from cucm.net.listener import Limits, Listener
from cucm.net.tls import ClientCertificatePolicy, Stream, TlsProfile, server_context
from tftp_server.http import MAX_HEAD_BYTES, decode_head

ADMINISTRATION_PORT: Final = 8443
LIMITS: Final = Limits(connections=64, connections_per_address=32, idle_timeout_s=10.0, request_timeout_s=10.0)
PAGE: Final = (
    "This is {name} of an emulated lab (cucm-migration-lab), not a Cisco Unified Communications Manager.\n"
    "Its certificates and keys are toys. Its administration is the lab's API; see `cucm-lab --help`.\n"
)


class NodeWeb:
    """The three ports of one node; `identity` is its tomcat certificate as it was when this was made."""

    def __init__(self, name: str, address: str, identity: Identity, ports: PortMap) -> None:
        self._name = name
        context = server_context(
            identity.certificate_der,
            identity.private_key_der,
            profile=TlsProfile.MODERN,
            policy=ClientCertificatePolicy.OFF,
        )
        self._listeners: Sequence[Listener] = (
            self._listener(address, ports.http, None),
            self._listener(address, ports.https, context),
            self._listener(address, ADMINISTRATION_PORT, context),
        )

    async def start(self) -> None:
        """Raises AddressBusy, EnvironmentProblem; then none of the ports is bound."""
        async with AsyncExitStack() as started:
            for listener in self._listeners:
                await listener.start()
                started.push_async_callback(listener.stop)
            started.pop_all()

    async def stop(self) -> None:
        for listener in self._listeners:
            await listener.stop()

    def _listener(self, address: str, port: int, context: SSL.Context | None) -> Listener:
        async def serve(stream: Stream) -> None:
            async with asyncio.timeout(LIMITS.request_timeout_s):
                stream.write(await self._answer(stream, is_secure=context is not None))
                await stream.drain()

        return Listener(address, port, serve, context=context, limits=LIMITS)

    async def _answer(self, stream: Stream, *, is_secure: bool) -> bytes:
        head = b""
        while b"\r\n\r\n" not in head:
            more = await stream.read()
            head += more
            if not more or len(head) > MAX_HEAD_BYTES:
                return _response("400 Bad Request", "")
        try:
            decode_head(head[: head.index(b"\r\n\r\n") + 4])
        except DecodeError:
            return _response("400 Bad Request", "")
        if not is_secure:
            where = f"https://{stream.local_address[0]}:{ADMINISTRATION_PORT}/"
            return _response("302 Found", "", f"Location: {where}\r\n")
        return _response("200 OK", PAGE.format(name=self._name))


def _response(status: str, text: str, more: str = "") -> bytes:
    body = text.encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\n"
    return f"{head}{more}Connection: close\r\n\r\n".encode() + body
