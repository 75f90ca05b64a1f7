from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cucm.certificates import node_certificate
from cucm.key_store import KeyStore
from cucm.roles import CertificateUnit, TrustRole
from cucm.wire.signed_file import build_signed_file
from cucm.wire.trust_list import DigestAlgorithm, Record, build_trust_list

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def cucm_lab() -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command as a process of its own, with a deadline."""

    def run(*words: str | Path, stdin: bytes = b"", **environment: str) -> subprocess.CompletedProcess[Any]:
        done = subprocess.run(
            [sys.executable, "-m", "lab.cli", *map(str, words)],
            cwd=ROOT,
            input=stdin,
            capture_output=True,
            timeout=280,  # all failure stories, one after the other, on a busy machine
            check=False,
            env=os.environ | {"PYTHONWARNINGS": "error"} | environment,
        )
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    return run


NOT_BEFORE = 1_700_000_000.0


class Signer:
    """A node's certificate that signs lists and files, and records of it."""

    def __init__(self, host_name: str, unit: CertificateUnit = CertificateUnit.CALLMANAGER) -> None:
        self.identity = node_certificate(KeyStore(), unit, host_name, seed="tests/cli", not_before=NOT_BEFORE)
        self.host_name = host_name

    def record(self, function: TrustRole) -> Record:
        identity = self.identity
        return Record.build(
            function=function,
            dns_name=self.host_name,
            subject=identity.subject,
            issuer=identity.issuer,
            serial=identity.serial,
            public_key=identity.public_key_record,
            signature=identity.certificate_signature,
            certificate=identity.certificate_der,
            ip_address="127.0.11.32",
        )

    def trust_list(self, *records: Record, file_name: str = "CTLFile.tlv") -> bytes:
        return build_trust_list(
            signer=self.identity.signer_id,
            records=records,
            digest=DigestAlgorithm.SHA1,
            sign=self.identity.sign,
            signature_length=256,
            file_name=file_name,
            timestamp=int(NOT_BEFORE),
        )

    def ctl(self) -> bytes:
        return self.trust_list(self.record(TrustRole.SAST), self.record(TrustRole.CALLMANAGER_TFTP))

    def itl(self, tvs: Signer) -> bytes:
        records = (self.record(TrustRole.SAST), self.record(TrustRole.CALLMANAGER_TFTP), tvs.record(TrustRole.TVS))
        return self.trust_list(*records, file_name="ITLFile.tlv")

    def signed_file(self, content: bytes) -> bytes:
        return build_signed_file(
            content,
            signer=self.identity.signer_id,
            file_name="SEPB000B4BA0AEE.cnf.xml.sgn",
            digest=DigestAlgorithm.SHA1,
            sign=self.identity.sign,
            signature_length=256,
            timestamp=int(NOT_BEFORE),
        )


@pytest.fixture(scope="session")
def source() -> Signer:
    return Signer("ucm105pub")


@pytest.fixture(scope="session")
def source_tvs() -> Signer:
    return Signer("ucm105pub", CertificateUnit.TVS)


@pytest.fixture(scope="session")
def destination() -> Signer:
    return Signer("ucm11pub")


class Files:
    """The files of a story, in a folder."""

    def __init__(self, folder: Path, source: Signer, source_tvs: Signer, destination: Signer) -> None:
        self.source_ctl = self._write(folder / "source-ctl.tlv", source.ctl())
        self.source_itl = self._write(folder / "source-itl.tlv", source.itl(source_tvs))
        self.destination_ctl = self._write(folder / "destination-ctl.tlv", destination.ctl())
        self.destination_pem = self._write(folder / "destination.pem", destination.identity.certificate_pem)
        self.folder = folder

    def _write(self, path: Path, data: bytes) -> Path:
        path.write_bytes(data)
        return path

    def add(self, name: str, data: bytes) -> Path:
        return self._write(self.folder / name, data)


@pytest.fixture
def files(tmp_path: Path, source: Signer, source_tvs: Signer, destination: Signer) -> Files:
    return Files(tmp_path, source, source_tvs, destination)
