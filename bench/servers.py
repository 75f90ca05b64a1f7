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
import tempfile
import time
from base64 import encodebytes
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

from bench.machine import Placement, pin, process_cpu_s, version_of
from bench.material import GROUP, IDLE_CASE, NGINX_BODY_BYTES, Material, TlsCase, tool
from cucm.errors import EnvironmentProblem

START_S: Final = 15.0
END_S: Final = 5.0
TFTP_PORT: Final = 69
"""dnsmasq cannot be told another."""
STREAM_MODULE: Final = "ngx_stream_module.so"
_MODULE_FOLDERS: Final = ("/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/usr/local/lib/nginx/modules")
_NGINX: Final = """
{load}daemon off; master_process {master}; worker_processes {workers}; error_log stderr crit; pid {folder}/nginx.pid;
worker_rlimit_nofile 65536; user root;
events {{ worker_connections 16384; }}
http {{
  access_log off; keepalive_timeout 0; sendfile on; default_type application/octet-stream;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi; client_header_timeout 600s;
  server {{ listen {address}:{plain} backlog=1024; root {files}; }}
  server {{ listen {address}:{idle} ssl backlog=1024; {idle_tls} }}
}}
stream {{
{tls}}}
"""
_NGINX_TLS: Final = """  server {{ listen {address}:{port} ssl backlog=1024 reuseport; {tls} return "{body}"; }}
"""
_NGINX_SSL: Final = (
    "ssl_certificate {folder}/server.pem; ssl_certificate_key {folder}/server-key.pem; ssl_protocols {protocol}; "
    "ssl_ciphers {cipher}; ssl_prefer_server_ciphers on; ssl_ecdh_curve {group}; "
    "ssl_session_cache off; ssl_session_tickets off; {client}"
)
"""One protocol, cipher and group: those of the case, which our server negotiates with the same client."""


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
        "connections": 16_384,
    }
    with _ours(order, material, placement, silent=silent) as server:
        yield server


@contextmanager
def tvs_program(material: Material, placement: Placement, *, processes: int) -> Iterator[Server]:
    """`python -m tvs_server` as a user starts it, with its trace in a file."""
    folder = material.folder / f"program-{processes}"
    _write_identity(folder, material)
    address = free_address()
    files = ["--certificate", str(folder / "server.pem"), "--private-key", str(folder / "server-key.pem")]
    command = [sys.executable, "-m", "tvs_server", "--database", str(material.database), *files, "--trace"]
    command += ["--address", address, "--port", "0", "--processes", str(processes), "--client-certificate", "off"]
    with (folder / "trace").open("wb") as trace, subprocess.Popen(
        command, cwd=Path(__file__).parents[1], stdout=trace, stderr=subprocess.PIPE, text=True
    ) as process:  # fmt: skip
        pin(process.pid, placement.server)
        try:
            assert process.stderr is not None
            said = [process.stderr.readline() for _ in range(processes)]
            if not all(" port " in line for line in said):
                raise EnvironmentProblem(f"our own server did not start: {''.join(said)[:200]}")
            yield Server("ours", "this tree", process.pid, address, {"tls": int(said[0].rpartition(" ")[2])})
        finally:
            process.terminate()


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
def threaded_daemon(material: Material, placement: Placement) -> Iterator[Server]:
    """The stand-in of `bench.threaded_daemon`."""
    folder = material.folder / "daemon"
    _write_identity(folder, material)
    address = free_address()
    port = free_port(address)
    paths = [folder / "server.pem", folder / "server-key.pem", material.database, folder / "daemon.log"]
    command = [sys.executable, "-m", "bench.threaded_daemon", address, str(port), *map(str, paths)]
    with _child(command, placement, cwd=Path(__file__).parents[1]) as process:
        _await_tcp(process, address, port)
        yield Server("threaded daemon", "bench/threaded_daemon.py", process.pid, address, {"tls": port})


@contextmanager
def nginx(
    material: Material, cases: tuple[TlsCase, ...], placement: Placement, *, workers: int = 1
) -> Iterator[Server]:
    """nginx: plain HTTP from the file folder on port "http", one TLS stream port per case (its title), and "idle",
    HTTP over TLS that waits for a request. One worker is the process itself; several have a master.
    """
    program = _program("nginx")
    module = next((path for where in _MODULE_FOLDERS if (path := Path(where) / STREAM_MODULE).exists()), None)
    if module is None:
        raise Unavailable("nginx has no stream module (Debian: libnginx-mod-stream)")
    folder = Path(tempfile.mkdtemp(prefix="nginx-", dir=material.folder))
    _write_identity(folder, material)
    (folder / "capf.pem").write_bytes(material.capf.certificate_pem)
    address = free_address()
    ports = {name: free_port(address) for name in ("http", "idle", *(case.title for case in cases))}
    configuration = folder / "nginx.conf"
    configuration.write_text(_nginx_configuration(folder, material, (address, ports), cases, (str(module), workers)))
    with _child([program, "-p", str(folder), "-c", str(configuration)], placement) as process:
        _await_tcp(process, address, ports["http"])
        yield Server("nginx", version_of(program, "-v"), process.pid, address, ports)


def _write_identity(folder: Path, material: Material) -> None:
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    (folder / "server.pem").write_bytes(material.server.certificate_pem)
    (folder / "server-key.pem").touch(0o600)
    (folder / "server-key.pem").write_text(pem_key(material.server.private_key_der))


def _nginx_configuration(
    folder: Path,
    material: Material,
    place: tuple[str, dict[str, int]],
    cases: tuple[TlsCase, ...],
    how: tuple[str, int],
) -> str:
    address, ports = place
    module, workers = how
    tls = "".join(
        _NGINX_TLS.format(
            address=address, port=ports[case.title], tls=_nginx_ssl(folder, case), body="x" * NGINX_BODY_BYTES
        )
        for case in cases
    )
    return _NGINX.format(
        load=f"load_module {module};\n",
        master="off" if workers == 1 else "on",
        workers=workers,
        folder=folder,
        address=address,
        plain=ports["http"],
        idle=ports["idle"],
        idle_tls=_nginx_ssl(folder, IDLE_CASE),
        files=material.file_folder,
        tls=tls,
    )


def _nginx_ssl(folder: Path, case: TlsCase) -> str:
    return _NGINX_SSL.format(
        folder=folder,
        protocol=f"TLSv{case.version}",
        cipher=case.cipher if case.version == "1.2" else "HIGH",
        group=GROUP,
        client=f"ssl_verify_client on; ssl_client_certificate {folder}/capf.pem;" * case.client_certificate,
    )


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
def atftpd(material: Material, placement: Placement) -> Iterator[Server]:
    program = _program("atftpd", needs_root=True)
    address = free_address()
    port = free_port(address, socket.SOCK_DGRAM)
    command = [
        program, "--daemon", "--no-fork", "--user", "root.root", "--maxthread", "4096", "--logfile", os.devnull,
        "--bind-address", address, "--port", str(port), str(material.file_folder),
    ]  # fmt: skip
    with _child(command, placement) as process:
        _await_udp(process, address, port)
        yield Server("atftpd", version_of(program, "--version"), process.pid, address, {"tftp": port})


_TFTPY: Final = """
import logging, sys, tftpy
if sys.argv[4]:
    logging.basicConfig(filename=sys.argv[4], level=logging.INFO)
tftpy.TftpServer(sys.argv[1]).listen(sys.argv[2], int(sys.argv[3]))
"""


@contextmanager
def tftpy(material: Material, placement: Placement, *, logs: bool = False) -> Iterator[Server]:
    """The Python server of a library, silent as it comes, or telling of every transfer in a log file."""
    address = free_address()
    port = free_port(address, socket.SOCK_DGRAM)
    log = str(material.folder / "tftpy.log") if logs else ""
    command = [sys.executable, "-c", _TFTPY, str(material.file_folder), address, str(port), log]
    with _child(command, placement) as process:
        _await_udp(process, address, port)
        name = "tftpy, logging" if logs else "tftpy"
        yield Server(name, f"tftpy {version('tftpy')}", process.pid, address, {"tftp": port})


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


def pem_key(der: bytes) -> str:
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
