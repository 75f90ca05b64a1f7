"""Servers as child processes: ours, nginx, in.tftpd and dnsmasq. Each is ended by its own pid."""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import socket
import subprocess
import sys
import time
from base64 import encodebytes
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.machine import Placement, pin, process_cpu_s, version_of
from bench.material import NGINX_BODY_BYTES, Material, TlsCase, tool
from cucm.errors import EnvironmentProblem
from cucm.net.tls import TlsProfile

START_S: Final = 15.0
END_S: Final = 5.0
TFTP_PORT: Final = 69
"""dnsmasq cannot be told another."""
_NGINX: Final = """
daemon off; master_process off; worker_processes 1; error_log stderr crit; pid {folder}/nginx.pid;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_timeout 0; sendfile on; default_type application/octet-stream;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{ listen {address}:{plain} backlog=1024; root {files}; }}
{tls}}}
"""
_NGINX_TLS: Final = """  server {{
    listen {address}:{port} ssl backlog=1024;
    ssl_certificate {folder}/server.pem; ssl_certificate_key {folder}/server-key.pem;
    ssl_protocols {protocols}; ssl_ciphers {ciphers}; ssl_prefer_server_ciphers on;
    ssl_session_cache off; ssl_session_tickets off; {client}
    location / {{ return 200 "{body}"; }}
  }}
"""
_NGINX_PROTOCOLS: Final = {TlsProfile.MODERN: "TLSv1.2 TLSv1.3", TlsProfile.AES256_SHA: "TLSv1 TLSv1.1 TLSv1.2"}
_NGINX_CIPHERS: Final = {
    TlsProfile.MODERN: "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20:!aNULL",
    TlsProfile.AES256_SHA: "AES256-SHA:ALL:!aNULL:!eNULL:@SECLEVEL=0",
}


@dataclass(frozen=True, slots=True)
class Server:
    """A running server; `ports` by service, `name` as the tables call it."""

    name: str
    version: str
    pid: int
    address: str
    ports: dict[str, int]

    def cpu_s(self) -> float | None:
        return process_cpu_s(self.pid)


class Unavailable(Exception):
    """A yardstick that cannot run here, and why."""


@contextmanager
def our_tvs(material: Material, case: TlsCase, placement: Placement, *, silent: bool = False) -> Iterator[Server]:
    order = {
        "kind": "tvs",
        "certificate": material.server.certificate_der.hex(),
        "private_key": material.server.private_key_der.hex(),
        "database": str(material.database),
        "policy": case.policy.value,
        "client_cas": [material.capf.certificate_der.hex()] if case.client_certificate else [],
        "profile": case.profile.value,
    }
    with _ours(order, material, placement, silent=silent) as server:
        yield server


@contextmanager
def our_files(material: Material, placement: Placement, *, silent: bool = False) -> Iterator[Server]:
    order = {"kind": "files", "folder": str(material.file_folder)}
    with _ours(order, material, placement, silent=silent) as server:
        yield server


@contextmanager
def _ours(order: Mapping[str, object], material: Material, placement: Placement, *, silent: bool) -> Iterator[Server]:
    name = "ours, silent" if silent else "ours"
    address = free_address()
    log = material.folder / f"{order['kind']}-{address}.log"
    command = [sys.executable, "-m", "bench.serve"]
    with _child(command, placement, cwd=Path(__file__).parents[1], talking=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        full = {**order, "address": address, "silent": silent, "log": str(log)}
        process.stdin.write(json.dumps(full).encode() + b"\n")
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], START_S)
        line = process.stdout.readline() if ready else b""
        if not line:
            raise EnvironmentProblem("our own server did not start", mend="see what it said above")
        yield Server(name, "this tree", process.pid, address, json.loads(line))


@contextmanager
def nginx(material: Material, cases: tuple[TlsCase, ...], placement: Placement) -> Iterator[Server]:
    """One nginx process: plain HTTP from the file folder on port "http", one TLS port per case (its title)."""
    program = _program("nginx")
    folder = material.folder / "nginx"
    folder.mkdir()
    (folder / "server.pem").write_bytes(material.server.certificate_pem)
    (folder / "server-key.pem").write_text(_pem_key(material.server.private_key_der))
    (folder / "server-key.pem").chmod(0o600)
    (folder / "capf.pem").write_bytes(material.capf.certificate_pem)
    address = free_address()
    ports = {"http": free_port(address), **{case.title: free_port(address) for case in cases}}
    configuration = folder / "nginx.conf"
    configuration.write_text(_nginx_configuration(folder, material, address, ports, cases))
    with _child([program, "-p", str(folder), "-c", str(configuration)], placement) as process:
        _await_tcp(process, address, ports["http"])
        yield Server("nginx", version_of(program, "-v"), process.pid, address, ports)


def _nginx_configuration(
    folder: Path, material: Material, address: str, ports: dict[str, int], cases: tuple[TlsCase, ...]
) -> str:
    tls = "".join(
        _NGINX_TLS.format(
            address=address,
            port=ports[case.title],
            folder=folder,
            protocols=_NGINX_PROTOCOLS[case.profile],
            ciphers=_NGINX_CIPHERS[case.profile],
            client=f"ssl_verify_client on; ssl_client_certificate {folder}/capf.pem;" * case.client_certificate,
            body="x" * NGINX_BODY_BYTES,
        )
        for case in cases
    )
    return _NGINX.format(folder=folder, address=address, plain=ports["http"], files=material.file_folder, tls=tls)


@contextmanager
def in_tftpd(material: Material, placement: Placement) -> Iterator[Server]:
    program = _program("in.tftpd", needs_root=True)
    address = free_address()
    port = free_port(address, socket.SOCK_DGRAM)
    command = [program, "-L", "-4", "-u", "root", "-a", f"{address}:{port}", "-s", str(material.file_folder)]
    with _child(command, placement) as process:
        _await_udp(process, address, port)
        yield Server("in.tftpd", version_of(program, "-V"), process.pid, address, {"tftp": port})


@contextmanager
def dnsmasq(material: Material, placement: Placement) -> Iterator[Server]:
    program = _program("dnsmasq", needs_root=True)
    address = free_address()
    command = [
        program, "--keep-in-foreground", "--port=0", "--enable-tftp", f"--tftp-root={material.file_folder}",
        f"--listen-address={address}", "--bind-interfaces", "--conf-file=/dev/null", "--tftp-max=4096",
        "--user=root", "--pid-file=", "--quiet-tftp",
    ]  # fmt: skip
    with _child(command, placement) as process:
        _await_udp(process, address, TFTP_PORT)
        yield Server("dnsmasq", version_of(program, "--version"), process.pid, address, {"tftp": TFTP_PORT})


@contextmanager
def _child(
    command: list[str], placement: Placement, *, cwd: Path | None = None, talking: bool = False
) -> Iterator[subprocess.Popen[bytes]]:
    pipe = subprocess.PIPE if talking else subprocess.DEVNULL
    process = subprocess.Popen(
        command,
        cwd=cwd,
        stdin=pipe,
        stdout=pipe,
        stderr=None if talking else subprocess.DEVNULL,
    )
    pin(process.pid, placement.server)
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
    if process.stdin is None:
        process.terminate()
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _program(name: str, *, needs_root: bool = False) -> str:
    path = tool(name)
    if path is None:
        raise Unavailable(f"{name} is not installed")
    if needs_root and os.geteuid() != 0:
        raise Unavailable(f"{name} needs root")
    return path


def _pem_key(der: bytes) -> str:
    return f"-----BEGIN PRIVATE KEY-----\n{encodebytes(der).decode()}-----END PRIVATE KEY-----\n"


def free_address() -> str:
    """A loopback address nobody holds TFTP's port on; all of 127.0.0.0/8 is there on Linux only."""
    if not sys.platform.startswith("linux"):
        return "127.0.0.1"
    chance = random.SystemRandom()
    return f"127.{chance.randrange(20, 250)}.{chance.randrange(1, 250)}.{chance.randrange(1, 250)}"


def free_port(address: str, kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port


def _await_tcp(process: subprocess.Popen[bytes], address: str, port: int) -> None:
    ends = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < ends:
        with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=1):
            return
        time.sleep(0.02)
    raise Unavailable(f"{Path(process.args[0]).name} did not start")  # type: ignore[index,arg-type]


def _await_udp(process: subprocess.Popen[bytes], address: str, port: int) -> None:
    """Until it answers a request for a file that does not exist."""
    ends = time.monotonic() + START_S
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.settimeout(0.2)
        while process.poll() is None and time.monotonic() < ends:
            with contextlib.suppress(OSError):
                probe.sendto(b"\0\1no-such-file\0octet\0", (address, port))
                probe.recvfrom(2048)
                return
    raise Unavailable(f"{Path(process.args[0]).name} did not start")  # type: ignore[index,arg-type]
