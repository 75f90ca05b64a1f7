"""What `cucm-lab doctor` looks at. Each examination tries the real thing and never raises; none changes the machine."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import socket
import stat
import sys
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from cucm.errors import EnvironmentProblem, LabError
from cucm.records import dataclass

MINIMAL_PYTHON: Final = (3, 11)
DEPENDENCIES: Final = ("cryptography", "pyOpenSSL", "pydantic", "platformdirs", "tftpy")
REQUEST_IN_BUFFER_BYTES: Final = 416
"""What a waiting read request takes of the bytes asked for: Linux counts 832 for one, and doubles what it grants
(measured on 6.18: 106,496 asked for hold 256 requests)."""
RMEM_MAX: Final = Path("/proc/sys/net/core/rmem_max")
TOOLS: Final = {
    "openssl": "looks at certificates and speaks TLS to the lab",
    "curl": "fetches files over HTTP and TFTP",
    "tftp": "TFTP client (package tftp-hpa)",
    "atftp": "TFTP client",
    "dnsmasq": "TFTP server to try a phone against",
    "in.tftpd": "TFTP server to try a phone against (package tftpd-hpa)",
}
"""Programs that nothing in the lab needs; the interoperability tests use them."""
TOOL_PATH: Final = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])
"""Servers often lie where only root looks."""
OLD_CIPHER: Final = "AES256-SHA"


class Verdict(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's; `mend` is empty when there is nothing to mend."""

    subject: str
    verdict: Verdict
    result: str
    mend: str = ""

    def as_json(self) -> dict[str, Any]:
        return {"subject": self.subject, "verdict": self.verdict, "result": self.result, "mend": self.mend or None}


def examine() -> tuple[Finding, ...]:
    """All findings, always in the same order."""
    examinations: list[tuple[str, Callable[[], Finding]]] = [
        ("Python", examine_python),
        ("libraries", examine_libraries),
        ("OpenSSL", examine_openssl),
        ("signatures", examine_digests),
        ("TLS as old phones speak it", examine_old_tls),
        ("addresses", examine_addresses),
        ("ports below 1024", examine_ports),
        ("UDP receive buffer", examine_receive_buffer),
        ("uvloop", examine_uvloop),
        ("user namespaces", examine_namespaces),
        ("key cache", examine_key_cache),
    ]
    tools: list[tuple[str, Callable[[], Finding]]] = [(name, partial(examine_tool, name)) for name in TOOLS]
    return tuple(_guarded(subject, examination) for subject, examination in (*examinations, *tools))


def _guarded(subject: str, examination: Callable[[], Finding]) -> Finding:
    """An examination that cannot even be made is a finding too: a machine in disorder is what a doctor is for."""
    try:
        return examination()
    except LabError as error:
        return Finding(subject, Verdict.FAIL, str(error), error.mend or "")
    except Exception as error:
        return Finding(subject, Verdict.FAIL, f"{type(error).__name__}: {error}")


def examine_python() -> Finding:
    text = f"{platform.python_implementation()} {platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.version_info < MINIMAL_PYTHON:  # installed by force
        return Finding("Python", Verdict.FAIL, text, "use Python 3.11 or newer")
    if platform.system() != "Linux":
        return Finding("Python", Verdict.WARN, text, "Linux is the supported system; macOS needs loopback aliases")
    return Finding("Python", Verdict.OK, text)


def examine_libraries() -> Finding:
    found, missing = [], []
    for name in DEPENDENCIES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        mend = f"{sys.executable} -m pip install {' '.join(missing)}"
        return Finding("libraries", Verdict.FAIL, f"missing: {', '.join(missing)}", mend)
    return Finding("libraries", Verdict.OK, ", ".join(found))


def examine_openssl() -> Finding:
    from cryptography.hazmat.backends.openssl.backend import backend

    return Finding("OpenSSL", Verdict.OK, f"{backend.openssl_version_text()} (of the cryptography package)")


def examine_digests() -> Finding:
    """Trust lists are signed with SHA-1, and `show ctl` prints MD5: both are off where a machine is set to FIPS."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding, rsa

    subject, names = "signatures", "RSA with SHA-1 and SHA-512, MD5 checksums"
    key = rsa.generate_private_key(65537, 2048)
    try:
        for digest in (hashes.SHA1(), hashes.SHA512()):
            key.public_key().verify(key.sign(b"list", padding.PKCS1v15(), digest), b"list", padding.PKCS1v15(), digest)
        hashlib.md5(b"list")
    except Exception as error:
        mend = "leave FIPS mode or the system's strict crypto policy for this process"
        return Finding(subject, Verdict.FAIL, f"{names}: {error or type(error).__name__}", mend)
    return Finding(subject, Verdict.OK, names)


def examine_old_tls() -> Finding:
    """A whole handshake in memory, with the contexts the lab itself uses."""
    subject = "TLS as old phones speak it"
    try:
        cipher, tls_version = handshake_in_memory()
    except Exception as error:
        mend = "install the cryptography package from its wheels, whose OpenSSL still has this cipher"
        return Finding(subject, Verdict.FAIL, f"no {OLD_CIPHER} handshake: {error or type(error).__name__}", mend)
    verdict = Verdict.OK if cipher == OLD_CIPHER else Verdict.FAIL
    return Finding(subject, verdict, f"handshake with {cipher} in {tls_version}")


def handshake_in_memory() -> tuple[str, str]:
    """Cipher and TLS version that a server and a client of profile `aes256-sha` agree on. Raises SSL.Error."""
    from OpenSSL import SSL

    from cucm.net.tls import TlsProfile, client_context, server_context

    certificate, key = _throwaway_identity()
    server = SSL.Connection(server_context(certificate, key, profile=TlsProfile.AES256_SHA), None)
    client = SSL.Connection(client_context(profile=TlsProfile.AES256_SHA), None)
    server.set_accept_state()
    client.set_connect_state()
    for _ in range(10):  # four flights each way are the most
        done = [_step(client, server), _step(server, client)]
        if all(done):
            break
    return client.get_cipher_name() or "no cipher", client.get_protocol_version_name()


def _step(here: Any, there: Any) -> bool:
    """Let one side go on and carry its bytes over; whether its handshake is done."""
    from OpenSSL import SSL

    done = True
    try:
        here.do_handshake()
    except SSL.WantReadError:
        done = False
    while True:
        try:
            there.bio_write(here.bio_read(65536))
        except SSL.WantReadError:
            return done


def _throwaway_identity() -> tuple[bytes, bytes]:
    """DER of a certificate and of its private key, good for one handshake."""
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
    from cryptography.x509.oid import NameOID

    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "cucm-lab doctor")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(Encoding.DER), key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def lab_addresses() -> tuple[str, ...]:
    """The addresses that the nodes and phones of the two-clusters lab take by default."""
    from lab.topology import DEFAULT_NETWORK, load_topology

    topology = load_topology("two-clusters")
    hosts = [node.host for cluster in topology.clusters.values() for node in cluster.nodes]
    return tuple(str(DEFAULT_NETWORK[host]) for host in (*hosts, *(phone.host for phone in topology.phones)))


def examine_addresses() -> Finding:
    """Whether the lab's loopback addresses can be bound: Linux has all of 127.0.0.0/8, macOS needs aliases."""
    from cucm.net.addresses import bind_udp

    addresses, refused = lab_addresses(), []
    for address in addresses:
        try:
            bind_udp(address, 0).close()
        except EnvironmentProblem:
            refused.append(address)
    if not refused:
        return Finding("addresses", Verdict.OK, f"{', '.join(addresses)} can be bound")
    darwin = sys.platform == "darwin"
    commands = [f"sudo ifconfig lo0 alias {a} up" if darwin else f"sudo ip address add {a}/8 dev lo" for a in refused]
    return Finding("addresses", Verdict.FAIL, f"cannot be bound: {', '.join(refused)}", "\n".join(commands))


def examine_ports() -> Finding:
    from cucm.net.addresses import PRIVILEGED_PORTS_HINT, detect_ports

    ports = detect_ports()
    if ports.is_standard:
        return Finding("ports below 1024", Verdict.OK, f"may be bound: TFTP on its standard port {ports.tftp}")
    return Finding("ports below 1024", Verdict.WARN, f"may not be bound: TFTP on {ports.tftp}", PRIVILEGED_PORTS_HINT)


def examine_receive_buffer() -> Finding:
    """What port 69 will get, asked for as the TFTP server does."""
    from tftp_server.request_port import enlarge_receive_buffer
    from tftp_server.udp import RECEIVE_BUFFER_BYTES

    subject = "UDP receive buffer"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as tried:
        granted = enlarge_receive_buffer(tried, RECEIVE_BUFFER_BYTES)
    limit = f", net.core.rmem_max is {RMEM_MAX.read_text().strip()}" if RMEM_MAX.exists() else ""
    text = f"port 69 gets {granted} bytes{limit}"
    if granted >= RECEIVE_BUFFER_BYTES:
        return Finding(subject, Verdict.OK, text)
    return Finding(
        subject,
        Verdict.WARN,
        f"{text}: the kernel caps it; it holds the first requests of some {granted // REQUEST_IN_BUFFER_BYTES} phones "
        "that boot at the same instant, any more have to ask again after a second",
        f"sudo sysctl -w net.core.rmem_max={RECEIVE_BUFFER_BYTES}",
    )


def examine_uvloop() -> Finding:
    if find_spec("uvloop"):
        return Finding("uvloop", Verdict.OK, f"{version('uvloop')}: the faster event loop")
    mend = f"{sys.executable} -m pip install uvloop"
    return Finding("uvloop", Verdict.WARN, "not installed: asyncio's own event loop does, more slowly", mend)


def examine_namespaces() -> Finding:
    """`cucm-lab exec` needs them; nothing else does."""
    from cucm.errors import EnvironmentProblem
    from lab.namespace import namespace_command

    subject = "user namespaces"
    try:
        namespace_command()
    except EnvironmentProblem as problem:
        return Finding(subject, Verdict.WARN, problem.what, problem.mend or "")
    return Finding(subject, Verdict.OK, "can be made: `cucm-lab exec` runs programs with the real system's addresses")


def examine_key_cache() -> Finding:
    from cucm.key_store import CACHE_VARIABLE, default_directory

    directory = default_directory()
    if not directory.exists():
        return _absent_key_cache(directory, CACHE_VARIABLE)
    if not directory.is_dir() or not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        mend = f"set {CACHE_VARIABLE} to a directory that you may write"
        return Finding("key cache", Verdict.FAIL, f"{directory} cannot be written", mend)
    mode, keys = stat.S_IMODE(directory.stat().st_mode), len(list(directory.glob("*.key")))
    text = f"{directory}, {keys} keys, mode {mode:04o}"
    if mode & 0o077:
        return Finding("key cache", Verdict.WARN, f"{text}: others may look into it", f"chmod 700 {directory}")
    return Finding("key cache", Verdict.OK, text)


def _absent_key_cache(directory: Path, variable: str) -> Finding:
    above = next(parent for parent in directory.absolute().parents if parent.exists())
    if above.is_dir() and os.access(above, os.W_OK | os.X_OK):
        return Finding("key cache", Verdict.OK, f"{directory}, not made yet: the first start makes its keys there")
    mend = f"set {variable} to a directory that you may write"
    return Finding("key cache", Verdict.FAIL, f"{directory} does not exist and cannot be made", mend)


def examine_tool(name: str) -> Finding:
    path = shutil.which(name, path=TOOL_PATH)
    if path:
        return Finding(name, Verdict.OK, path)
    return Finding(name, Verdict.WARN, f"not installed: {TOOLS[name]}", "optional; the interoperability tests use it")
