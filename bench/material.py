"""What the measurements serve and ask for: toy certificates, a node's database, files; made in a temporary folder."""

from __future__ import annotations

import random
import shutil
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from cucm.certificates import (
    CertificateAuthority,
    Identity,
    capf_certificate,
    lsc,
    node_certificate,
)
from cucm.database import NodeDatabase
from cucm.key_store import KeyStore
from cucm.net.tls import ClientCertificatePolicy, TlsProfile
from cucm.roles import CertificateUnit, roles_of_units
from cucm.wire.tvs import STATUS_OK, QueryCertificateRequest, QueryCertificateResponse, encode_message
from tvs_server.policy import DEFAULT_TTL_S

SEED: Final = 2
MAC: Final = "B000B4BA0AEE"
DEVICE: Final = f"CP-8861-SEP{MAC}"
HOST: Final = "ucm105pub.stormin.local"
WANTED_SUBJECT: Final = "CN=ucm11pub.stormin.local;OU=IST;O=Stormin;L=Brisbane;ST=QLD;C=AU"
WANTED_CA: Final = "CN=stormin-WIN2012-CA"
WANTED_SERIAL: Final = bytes.fromhex("24000000179479b8f124ac3f3b000000000017")
WANTED_BYTES: Final = 1451
"""The seed's query: 153 bytes out, a certificate of this length and 1480 bytes in all back."""
WANTED_STORES: Final = (CertificateUnit.PHONE_SAST_TRUST, CertificateUnit.CALLMANAGER_TRUST)
NGINX_BODY_BYTES: Final = 1480
"""As long as a TVS answer, so that every contender encrypts the same."""
FILE_SIZES: Final = {"six-kb.bin": 6 * 1024, "sixty-four-kb.bin": 64 * 1024}
SMALL_FILE: Final = "six-kb.bin"
LARGE_FILE: Final = "sixty-four-kb.bin"
UNPACKED: Final = Path(__file__).parents[1] / "out" / "peers" / "usr" / "sbin"
_DAY_S: Final = 86_400


@dataclass(frozen=True, slots=True)
class Material:
    """`server` is the TVS certificate, `phone` the client certificate the CAPF issued, `wanted` what is asked for."""

    folder: Path
    server: Identity
    capf: Identity
    phone: Identity
    wanted: Identity
    files: dict[str, bytes]

    @property
    def database(self) -> Path:
        return self.folder / "node.db"

    @property
    def file_folder(self) -> Path:
        return self.folder / "files"

    def query(self, session_id: int) -> bytes:
        """A QUERY_CERT request for the wanted certificate."""
        wanted = self.wanted
        request = QueryCertificateRequest.build(session_id, DEVICE, wanted.subject, wanted.issuer, wanted.serial)
        return encode_message(request)

    def answer(self, session_id: int) -> bytes:
        """What a TVS must answer to it: all of it is known beforehand."""
        der, roles = self.wanted.certificate_der, roles_of_units(WANTED_STORES)
        return encode_message(QueryCertificateResponse.build(session_id, STATUS_OK, der, roles, DEFAULT_TTL_S))


class TlsKind(StrEnum):
    """What a client asks for; a server takes it, so that every contender negotiates the same."""

    RSA = "TLS 1.2 RSA"
    """As an 8861 and TVS 10.5.2 (facts 2.9)."""
    ECDHE = "TLS 1.2 ECDHE"
    TLS13 = "TLS 1.3"


GROUP: Final = "X25519"
_CIPHERS: Final = {
    TlsKind.RSA: "AES256-SHA",
    TlsKind.ECDHE: "ECDHE-RSA-AES256-GCM-SHA384",
    TlsKind.TLS13: "TLS_AES_256_GCM_SHA384",
}


@dataclass(frozen=True, slots=True)
class TlsCase:
    """One way of making a TLS connection; one group for all key exchanges that have one."""

    kind: TlsKind
    client_certificate: bool

    @property
    def title(self) -> str:
        return f"{self.kind.value}, {'with' if self.client_certificate else 'no'} client certificate"

    @property
    def profile(self) -> TlsProfile:
        return TlsProfile.AES256_SHA if self.kind is TlsKind.RSA else TlsProfile.MODERN

    @property
    def version(self) -> str:
        return "1.3" if self.kind is TlsKind.TLS13 else "1.2"

    @property
    def cipher(self) -> str:
        """OpenSSL's name."""
        return _CIPHERS[self.kind]

    @property
    def policy(self) -> ClientCertificatePolicy:
        return ClientCertificatePolicy.REQUIRED if self.client_certificate else ClientCertificatePolicy.OFF


TLS_CASES: Final = tuple(TlsCase(kind, offered) for offered in (False, True) for kind in TlsKind)
IDLE_CASE: Final = TlsCase(TlsKind.ECDHE, client_certificate=False)
"""Where one case stands for all: many clients, stalled ones, idle ones."""


def make_material(folder: Path, keys: KeyStore) -> Material:
    """Everything below `folder`, readable by other users: C servers drop their rights."""
    folder.chmod(0o755)
    started = time.time() - _DAY_S
    capf = capf_certificate(keys, HOST, seed=SEED, not_before=started)
    ca = CertificateAuthority.self_signed(keys, WANTED_CA, seed=SEED, not_before=started)
    material = Material(
        folder,
        node_certificate(keys, CertificateUnit.TVS, HOST, seed=SEED, not_before=started),
        capf,
        lsc(capf, keys, model="CP-8861", mac=MAC, serial_number="FCH18198CNQ", seed=SEED, not_before=started),
        _wanted(keys, ca.identity, started),
        _files(),
    )
    _write(material)
    return material


def _wanted(keys: KeyStore, issuer: Identity, started: float) -> Identity:
    return node_certificate(
        keys,
        CertificateUnit.CALLMANAGER,
        "ucm11pub.stormin.local",
        seed=SEED,
        not_before=started,
        subject=WANTED_SUBJECT,
        serial=WANTED_SERIAL,
        issuer=issuer,
        der_length=WANTED_BYTES,
    )


def _files() -> dict[str, bytes]:
    chance = random.Random(SEED)
    return {name: chance.randbytes(size) for name, size in FILE_SIZES.items()}


def _write(material: Material) -> None:
    with NodeDatabase(material.database).create() as database:
        for unit in WANTED_STORES:
            database.put_certificate(material.wanted.certificate_der, unit, HOST, moment=time.time())
    material.file_folder.mkdir(mode=0o755)
    for name, data in material.files.items():
        (material.file_folder / name).write_bytes(data)
        (material.file_folder / name).chmod(0o644)


def tool(name: str) -> str | None:
    """The path of a system program; daemons live where a user's PATH may not look, or in what was unpacked."""
    return shutil.which(name) or shutil.which(name, path=f"/usr/sbin:/usr/local/sbin:/sbin:{UNPACKED}")
