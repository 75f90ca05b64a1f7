"""TLS load by a client in C (`tls_client.c`), compiled when the benchmark runs: full handshakes, answers compared.

A client in Python would need more CPU than the server it measures. Any server gets the same client; what is negotiated
(version, cipher, group) is the case's and no other.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.load import Bounds, LoadResult
from bench.material import GROUP, NGINX_BODY_BYTES, Material, TlsCase
from bench.servers import Server, Unavailable, pem_key

TIMEOUT_S: Final = 20.0
"""After which an exchange has failed: as where the goals were set, and more than a kernel's first four retries of a
lost SYN take.
"""
SOURCES: Final = 16
"""Client addresses, so that no port runs out and no server's limit for one address is met."""
_COMPILE_S: Final = 120.0
_MISSING: Final = "the TLS load client needs gcc and OpenSSL's headers (Debian: gcc libc6-dev libssl-dev)"


@dataclass(slots=True)
class TlsLoad:
    """The load's outcome, with what was negotiated: version, cipher, key exchange."""

    result: LoadResult
    negotiated: str


@dataclass(frozen=True, slots=True)
class TlsClient:
    """The compiled client and the files it needs."""

    program: Path
    folder: Path

    @classmethod
    def build(cls, material: Material) -> TlsClient:
        """Compile it into the material's folder. Raises Unavailable."""
        folder = material.folder / "tls-client"
        folder.mkdir()
        program, source = folder / "tls_client", Path(__file__).with_name("tls_client.c")
        if shutil.which("gcc") is None:
            raise Unavailable(_MISSING)
        command = ["gcc", "-O2", "-o", str(program), str(source), "-lssl", "-lcrypto"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_COMPILE_S, check=False)
        if done.returncode:
            raise Unavailable(_MISSING)
        (folder / "query").write_bytes(material.query(1))
        (folder / "tvs-answer").write_bytes(material.answer(1))
        (folder / "plain-answer").write_bytes(b"x" * NGINX_BODY_BYTES)
        (folder / "phone.pem").write_bytes(material.phone.certificate_pem)
        (folder / "phone-key.pem").touch(0o600)
        (folder / "phone-key.pem").write_text(pem_key(material.phone.private_key_der))
        return cls(program, folder)

    def load(self, server: Server, port: int, case: TlsCase, bounds: Bounds, *, asks: bool = True) -> TlsLoad:
        """One run. `asks`: send a TVS query and compare the answer; otherwise take what the server says at once."""
        command = self._command(server, port, case)
        command += [f"clients={bounds.concurrency}", f"operations={bounds.operations}", f"seconds={bounds.seconds}"]
        command += self._exchange(asks=asks)
        done = subprocess.run(command, stdout=subprocess.PIPE, timeout=bounds.seconds + 2 * TIMEOUT_S, check=True)
        return _outcome(json.loads(done.stdout), bounds)

    @contextmanager
    def holding(self, server: Server, port: int, case: TlsCase, connections: int) -> Iterator[LoadResult]:
        """So many idle connections, handshake done, for as long as the body runs."""
        command = [*self._command(server, port, case), "mode=hold", f"clients={connections}"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                yield _outcome(json.loads(process.stdout.readline()), Bounds(0, connections, connections)).result
            finally:
                process.stdin.close()

    def _command(self, server: Server, port: int, case: TlsCase) -> list[str]:
        command = [str(self.program), f"address={server.address}", f"port={port}", f"version={case.version}"]
        command += [f"cipher={case.cipher}{'' if case.version == '1.3' else ':@SECLEVEL=0'}", f"group={GROUP}"]
        command += [f"source={_source_of(server.address)}", f"sources={SOURCES}", f"timeout={TIMEOUT_S}"]
        if case.client_certificate:
            command += [f"certificate={self.folder / 'phone.pem'}", f"key={self.folder / 'phone-key.pem'}"]
        return command

    def _exchange(self, *, asks: bool) -> list[str]:
        if asks:
            return ["answers=tvs", f"query={self.folder / 'query'}", f"wanted={self.folder / 'tvs-answer'}"]
        return ["answers=plain", f"wanted={self.folder / 'plain-answer'}"]


def _source_of(server_address: str) -> str:
    """The first client address: beside the server's, in the same 127.x.y."""
    return f"{server_address.rpartition('.')[0]}.{1 if server_address == '127.0.0.1' else 100}"


def _outcome(said: dict[str, Any], bounds: Bounds) -> TlsLoad:
    result = LoadResult(said["done"], Counter(said["failures"]))
    result.wall_s, result.cpu_s, result.latencies_s = said["wall_s"], said["cpu_s"], said["latencies_s"]
    result.in_time, result.window_s = said["done_in_time"], min(bounds.seconds, result.wall_s)
    return TlsLoad(result, said["negotiated"])


@contextmanager
def stalled_clients(server: Server, port: int, count: int) -> Iterator[None]:
    """So many TCP connections that say nothing, for as long as the body runs."""
    with ExitStack() as closing:
        for _ in range(count):
            closing.enter_context(socket.create_connection((server.address, port), timeout=TIMEOUT_S))
        yield
