"""Faults of single TFTP packets: what becomes of a DATA or OACK between a transfer and the wire."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Final

from cucm.errors import LabError
from cucm.faults import FaultSource
from cucm.faults.catalogue.tftp import TFTP_PACKET, Corrupt, Delay, Drop, Duplicate, Reorder, WrongTid
from cucm.net.addresses import bind_udp
from tftp_server.packets import HEADER, Operation
from tftp_server.request_port import Peer

MAX_DELAYED: Final = 64
"""Packets of one transfer that wait; any more are lost, as in a network."""


class FaultyWire:
    """What one transfer sends through, once a rule is for packets.

    `send` puts a datagram on the wire, from the transfer's own port; `own` is its address, `client` the other end.
    """

    def __init__(self, faults: FaultSource, file: str, client: Peer, own: str, send: Callable[[bytes], None]) -> None:
        self._faults = faults
        self._file = file
        self._client = client
        self._own = own
        self._send = send
        self._held: bytes | None = None
        self._delayed: set[asyncio.TimerHandle] = set()
        self._stray: socket.socket | None = None

    def send(self, datagram: bytes) -> None:
        """Send it as the rules have it; packets that are no DATA and no OACK pass. Raises OSError."""
        block = _block_of(datagram)
        if block is None:
            self._pass(datagram)
            return
        action = self._faults.fire(TFTP_PACKET, file=self._file, peer=str(self._client[0]), block=block)
        match action:
            case Drop():
                pass
            case Duplicate():
                self._pass(datagram)
                self._pass(datagram)
            case Reorder() if self._held is None:
                self._held = datagram
            case Delay(seconds=seconds):
                self._delay(datagram, seconds)
            case Corrupt(offset=offset):
                self._pass(corrupted(datagram, offset))
            case WrongTid():
                self._send_from_elsewhere(datagram)
            case _:
                self._pass(datagram)

    def close(self) -> None:
        """The transfer is over: what has not left yet never does."""
        for timer in self._delayed:
            timer.cancel()
        self._delayed.clear()
        self._held = None
        if self._stray is not None:
            self._stray.close()

    def _pass(self, datagram: bytes) -> None:
        """It leaves, and after it the one that was to change places with it."""
        self._send(datagram)
        if self._held is not None:
            held, self._held = self._held, None
            self._send(held)

    def _delay(self, datagram: bytes, seconds: float) -> None:
        if len(self._delayed) >= MAX_DELAYED:
            return

        def arrive() -> None:
            self._delayed.discard(timer)
            with contextlib.suppress(OSError):
                self._pass(datagram)

        timer = asyncio.get_running_loop().call_later(seconds, arrive)
        self._delayed.add(timer)

    def _send_from_elsewhere(self, datagram: bytes) -> None:
        """From a port that stays open as long as the transfer, and at which nobody listens."""
        with contextlib.suppress(LabError):  # no port to be had: it is lost
            self._stray = self._stray or bind_udp(self._own, 0)
            self._stray.sendto(datagram, self._client)


def corrupted(datagram: bytes, offset: int) -> bytes:
    """With one bit turned over: see `Corrupt.offset`."""
    start = 2 if _operation_of(datagram) == Operation.OPTION_ACKNOWLEDGEMENT else HEADER.size
    if len(datagram) == start:
        start = 2
    changed = bytearray(datagram)
    changed[start + offset % (len(datagram) - start)] ^= 0x01
    return bytes(changed)


def _block_of(datagram: bytes) -> int | None:
    match _operation_of(datagram):
        case Operation.DATA:
            return int(HEADER.unpack_from(datagram)[1])
        case Operation.OPTION_ACKNOWLEDGEMENT:
            return 0
    return None


def _operation_of(datagram: bytes) -> int:
    return int.from_bytes(datagram[:2], "big")
