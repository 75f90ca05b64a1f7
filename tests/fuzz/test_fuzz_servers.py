"""Every server of a lab against senseless and nearly sensible conversations, on its real sockets.

Afterwards an honest phone boots and registers, a reader asks the API, and nothing is left: no task, no descriptor, no
traceback in the log.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from lab_on_sockets import PHONE, network_of, perform

from cucm.errors import LabError
from cucm.net.tls import TlsProfile, client_context, open_stream
from lab.api.server import DEFAULT_PORT, ApiServer
from lab.lab_folder import LabFolder, Wishes
from lab.running_lab import RunningLab
from lab.runtime import Lab
from tests.fuzz.targets import DISCOVER, HTTP_REQUEST, READ_REQUEST, REGISTER, tvs_messages

CONVERSATIONS = 40
PATIENCE_S = 30
WAITING = 6
"""Sockets that may still wait for a client who is silent: transfers, half a handshake. Each conversation opens one."""
Send = Callable[[bytes], Awaitable[None]]
API_REQUEST = (
    b'POST /v1/wait HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n{"for": "now"}'
)
SSH = b"SSH-2.0-x\r\n\0\0\1\x14\n\x14"
CLIENT_HELLO = bytes.fromhex("16030100310100002d0303") + bytes(32) + bytes.fromhex("0000060035002f000a0100")


def nonsense(dice: random.Random, seeds: list[bytes]) -> bytes:
    """Random bytes, or a seed with something wrong."""
    if dice.random() < 0.3:
        return dice.randbytes(dice.randint(1, 600))
    data = bytearray(dice.choice(seeds))
    for _ in range(dice.randint(1, 5)):
        at = dice.randrange(len(data) or 1)
        data[at : at + dice.randint(0, 3)] = dice.randbytes(dice.randint(0, 4))
    return bytes(data[: dice.randint(1, len(data) or 1)]) if dice.random() < 0.3 else bytes(data)


async def over_tcp(address: str, port: int, data: bytes, *, tls: bool = False) -> None:
    context = client_context(profile=TlsProfile.AES256_SHA) if tls else None
    try:
        async with asyncio.timeout(PATIENCE_S):
            stream = await open_stream(address, port, context=context)
            try:
                stream.write(data)
                await stream.drain()
            finally:
                await stream.close()
    except (OSError, LabError):  # refused: CallManager wants a certificate, say
        return


async def over_udp(address: str, port: int, data: bytes, own: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((own, 0))
        sock.sendto(data, (address, port))
    await asyncio.sleep(0)


async def attack(running: RunningLab, dice: random.Random) -> None:
    lab = running.lab
    node, own, api = lab.cluster("source").publisher.address, lab.address(99), lab.address(1)
    messages = tvs_messages()
    ways: list[tuple[Send, list[bytes]]] = [
        (lambda data: over_tcp(node, 2445, data), [CLIENT_HELLO]),
        (lambda data: over_tcp(node, 2445, data, tls=True), messages),
        (lambda data: over_tcp(node, 5061, data), [CLIENT_HELLO]),
        (lambda data: over_tcp(node, 5061, data, tls=True), [REGISTER]),
        (lambda data: over_tcp(node, 5060, data), [REGISTER]),
        (lambda data: over_tcp(node, 6970, data), [HTTP_REQUEST]),
        (lambda data: over_udp(node, lab.ports.tftp, data, own), [READ_REQUEST]),
        (lambda data: over_udp(lab.dhcp.address, lab.ports.dhcp, data, own), [DISCOVER]),
        (lambda data: over_tcp(lab.sftp.address, lab.ports.sftp, data), [SSH]),
        (lambda data: over_tcp(api, DEFAULT_PORT, data), [API_REQUEST, HTTP_REQUEST]),
    ]
    for _ in range(CONVERSATIONS):
        for send, seeds in ways:
            await send(nonsense(dice, seeds))


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def until(condition: Callable[[], bool]) -> None:
    """Servers end what they have begun within their own deadlines."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.05)


async def test_servers_stand_nonsense(
    tmp_path: Path, loopback: Callable[[], str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with LabFolder(tmp_path / "lab") as folder:
        described, clock = folder.describe(Wishes("two-clusters", network_of(loopback))), folder.clock()
        lab = Lab(described.topology, described.options(folder.directory), clock=clock)
        running = RunningLab(lab, clock)
        await running.start()
        api = ApiServer(running)
        await api.start()
        try:
            await attack(running, random.Random(0))  # the first of everything: caches fill
            await until(lambda: len(asyncio.all_tasks()) < 40)
            tasks, open_before = len(asyncio.all_tasks()), descriptors()
            await attack(running, random.Random(1))
            await until(lambda: len(asyncio.all_tasks()) <= tasks and descriptors() <= open_before + WAITING)
            await perform(lab, "reset-phone", phone=PHONE)
            assert PHONE in lab.cluster("source").registered_devices
        finally:
            await api.stop()
            await running.stop()
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []
