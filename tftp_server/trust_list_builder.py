"""Build and sign what a node's TFTP service hands out: CTL, ITL and signed files.

What the lists say: `tftp_server.list_contents`. Certificates come from the node's database, the signer's private key
from the node's `security` folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from cucm.database import NodeDatabase
from cucm.events.trust_lists import FileSigned, TrustListSigned
from cucm.identity import Identity
from cucm.machine import machine_problem
from cucm.roles import FUNCTION_TEXTS, CertificateUnit
from cucm.versions import VersionProfile
from cucm.wire.signed_file import build_signed_file
from cucm.wire.trust_list import CTL_FILE_NAME, build_trust_list, decode_trust_list
from tftp_server.cluster_view import digest_of
from tftp_server.list_contents import (
    Signer,
    SigningKeys,
    TrustListContents,
    ctl_contents,
    itl_contents,
    require_recovery_key,
    token_ctl_records,
)
from tftp_server.list_records import required_certificate, token_signer

__all__ = [
    "KeyFolder",
    "Signer",
    "SigningKeys",
    "TrustListContents",
    "build_ctl",
    "build_itl",
    "build_token_ctl",
    "ctl_contents",
    "file_signed",
    "file_signer",
    "itl_contents",
    "require_recovery_key",
    "sign_file",
    "sign_trust_list",
    "trust_list_signed",
]

MAX_KEY_FILE: Final = 64 * 1024
"""Ours; a PKCS#8 RSA-4096 key has 2.4 KB."""


class KeyFolder:
    """The keys of one node: `<unit>.key` in its `security` folder."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def private_key_der(self, unit: CertificateUnit) -> bytes:
        path = f"{self._directory}/{unit}.key"
        try:
            with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - pathlib takes as long as all the rest
                return file.read(MAX_KEY_FILE)
        except OSError as error:
            failed = f"the private key of {unit} cannot be read"
            mend = f"regenerate the {unit} certificate of this node"
            raise machine_problem(error, path, failed=failed, mend=mend) from error


def build_ctl(
    database: NodeDatabase,
    keys: SigningKeys,
    profile: VersionProfile,
    moment: float,
    *,
    signer_unit: CertificateUnit | None = None,
) -> bytes:
    """The cluster's tokenless CTL, signed with the key of the publisher that the release prescribes; `moment`
    in Unix seconds.

    `signer_unit` signs instead (`utils ctl reset localkey`: the profile's `ctl_reset_signer`). Raises LabError when the
    signer's certificate or key is missing, UsageError when the release has no tokenless CTL or no such signer.
    """
    return sign_trust_list(ctl_contents(database, profile, signer_unit), keys, moment)


def build_token_ctl(
    database: NodeDatabase, profile: VersionProfile, tokens: Sequence[Identity], signing: Identity, moment: float
) -> bytes:
    """The cluster's CTL as the CTL client makes it, signed by one of the USB tokens; `moment` in Unix seconds.

    The digest is that of "TFTP File Signature Algorithm", as for the other lists [inferred]. Raises UsageError for a
    release that takes no tokens, fewer than two of them, or a signing one that is not among them; LabError.
    """
    certificates = [token.certificate_der for token in tokens]
    return build_trust_list(
        signer=token_signer(signing.certificate_der),
        records=token_ctl_records(database, profile, certificates, signing.certificate_der),
        digest=digest_of(database, profile),
        sign=signing.sign,
        signature_length=signing.signature_length,
        file_name=CTL_FILE_NAME,
        timestamp=int(moment),
    )


def build_itl(
    database: NodeDatabase,
    keys: SigningKeys,
    profile: VersionProfile,
    node_name: str,
    moment: float,
    *,
    signer_unit: CertificateUnit | None = None,
    remote_key: Identity | None = None,
) -> bytes:
    """The ITL of TFTP node `node_name`, signed with its key; `moment` in Unix seconds. Raises like `build_ctl`.

    `signer_unit` signs instead (`utils itl reset localkey`: the profile's `itl_reset_signer`), or `remote_key`, an
    ITLRecovery pair kept elsewhere (`utils itl reset remotekey`). Whether the latter is listed is UNKNOWN: it is not.
    """
    contents = itl_contents(database, node_name, profile, signer_unit)
    if remote_key is None:
        return sign_trust_list(contents, keys, moment)
    signer = Signer(CertificateUnit.ITLRECOVERY, remote_key.certificate_der, contents.signer.digest)
    return _signed_list(replace(contents, signer=signer), remote_key, moment)


def sign_trust_list(contents: TrustListContents, keys: SigningKeys, moment: float) -> bytes:
    """Raises LabError when the key is missing or does not belong to the signer's certificate."""
    return _signed_list(contents, contents.signer.identity(keys), moment)


def _signed_list(contents: TrustListContents, identity: Identity, moment: float) -> bytes:
    return build_trust_list(
        signer=contents.signer.name,
        records=contents.records,
        digest=contents.signer.digest,
        sign=identity.sign,
        signature_length=identity.signature_length,
        file_name=contents.file_name,
        timestamp=int(moment),
        signer_version=contents.signer_version,
    )


def file_signer(database: NodeDatabase, node_name: str, profile: VersionProfile) -> Signer:
    """Who signs files of TFTP node `node_name`: its CallManager, which phones know by the TFTP function (facts 3.3).

    That it stays so from 12.0 on, where ITLRecovery signs the lists, is [inferred]: ITLRecovery is listed as SAST only.
    """
    unit = profile.configuration_signer
    return Signer(unit, required_certificate(database, unit, node_name).der, digest_of(database, profile))


def sign_file(content: bytes, file_name: str, signer: Signer, keys: SigningKeys, moment: float) -> bytes:
    """`content` as the signed file `file_name` (a .sgn name); `moment` in Unix seconds. Raises LabError.

    That the header's FILENAME ends in `.sgn` is [recall].
    """
    identity = signer.identity(keys)
    return build_signed_file(
        content,
        signer=signer.name,
        file_name=file_name,
        digest=signer.digest,
        sign=identity.sign,
        signature_length=identity.signature_length,
        timestamp=int(moment),
    )


def trust_list_signed(data: bytes) -> TrustListSigned:
    """The event that tells of a list just built. Raises DecodeError if it is none."""
    known = decode_trust_list(data)
    return TrustListSigned(
        file_name=known.file_name,
        signer=known.signer.subject,
        signer_serial=known.signer.serial,
        digest=known.digest.name,
        records=tuple(f"{_function_text(record.function)} {record.dns_name or ''}" for record in known.records),
        timestamp=known.timestamp,
        sha1=hashlib.sha1(data).digest(),
    )


def file_signed(data: bytes, file_name: str, signer: Signer, moment: float) -> FileSigned:
    """The event that tells of a file just built by `sign_file`."""
    name = signer.name
    return FileSigned(
        file_name=file_name,
        signer=name.subject,
        signer_serial=name.serial,
        digest=signer.digest.name,
        timestamp=int(moment),
        sha1=hashlib.sha1(data).digest(),
    )


_TEXTS: Final[Mapping[int, str]] = {int(role): text for role, text in FUNCTION_TEXTS.items()}


def _function_text(function: int) -> str:
    return _TEXTS.get(function, str(function))
