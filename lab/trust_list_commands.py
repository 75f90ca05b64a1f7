"""`utils ctl ...` and `utils itl ...` of one cluster, and the CTL client with its USB tokens (facts 4.3, 6.1).

The CTL is written by these commands only and is the same on all nodes; the ITL is each TFTP node's own, built by its
TFTP service (facts 5.6, 6.3), until a reset puts another one in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, Literal

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cucm.certificates import security_token, security_token_keys, security_token_serial
from cucm.errors import DecodeError, LabError, UsageError
from cucm.events.administration import CtlFileDeleted, ItlResetTransferred, RecoveryPairExported
from cucm.identity import Identity
from cucm.key_store import KeyKind
from cucm.roles import CertificateUnit
from cucm.whole_files import write_private
from cucm.wire.trust_list import decode_trust_list
from lab.certificate_management import NodeCertificates
from lab.key_making import keys_made
from lab.node import Node
from tftp_server.cluster_view import SECURITY_MODE_PARAMETER, is_mixed_mode
from tftp_server.node_files import write_ctl, write_itl
from tftp_server.trust_list_builder import (
    KeyFolder,
    build_ctl,
    build_itl,
    build_token_ctl,
    require_recovery_key,
    trust_list_signed,
)

TOKENS: Final = 4
"""USB tokens that lie about in the lab: a CTL lists two of them (facts 6.1)."""
TOKENS_OF_A_NEW_CLUSTER: Final = (1, 2)
RecoveryKey = Literal["localkey", "remotekey"]
_EXPORTED: Final = "ITLRecovery.exported"


class TrustListCommands:
    """Run on the publisher. Each raises LabError when the command would refuse on a real cluster.

    What takes a token's key makes it where `prepare_tokens` has not done so before.
    """

    def __init__(self, cluster: NodeCertificates) -> None:
        self._cluster = cluster
        self._around = cluster.around
        self._profile = cluster.profile

    # --- CTL

    def set_mixed_mode(self) -> None:
        """`utils ctl set-cluster mixed-mode`: parameter and a CTL signed by the cluster's own key.

        So a CTL by tokens becomes a tokenless one too (technote 118893 [recall]).
        """
        self._require_tokenless()
        if is_mixed_mode(self._publisher.database) and not self._tokens_in_ctl():
            raise LabError("the cluster is in mixed mode already", where=self._cluster.cluster)
        self._change_mode("1", self._own_ctl)

    def set_non_secure_mode(self) -> None:
        """`utils ctl set-cluster non-secure-mode`: the CTL stays, its CCM+TFTP records become blank (facts 6.3)."""
        self._require_mixed()
        tokens = self._tokens_in_ctl()
        if tokens:
            self._change_mode("0", lambda: self._token_ctl(tokens))
        elif self._profile.ctl_signer is not None:
            self._change_mode("0", self._own_ctl)
        else:  # its CTL was deleted, and without tokens the release makes no other
            self._set_security_mode("0")

    def update_ctl_file(self) -> None:
        """`utils ctl update CTLFile`: build and sign the CTL anew and put it on every node."""
        self._require_tokenless()
        self._require_mixed()
        if self._tokens_in_ctl():
            raise LabError(
                "the CTL is signed by USB tokens",
                where=self._cluster.cluster,
                mend="run the CTL client, or `utils ctl set-cluster mixed-mode` for a tokenless CTL",
            )
        self._write_ctl(self._own_ctl())

    def reset_ctl_localkey(self) -> None:
        """`utils ctl reset localkey`: a CTL signed, until the next update, by the other key in it (facts 4.3, F16)."""
        self._require_tokenless()
        self._require_mixed()
        signer = self._profile.ctl_reset_signer
        if signer is None:
            raise LabError(f"{self._cluster.table.version} has no `utils ctl reset localkey`")
        self._write_ctl(self._own_ctl(signer))

    def delete_ctl_file(self, node: str | None = None) -> None:
        """`file delete tftp CTLFile.tlv` on one node or on all; from then on its TFTP service answers not found."""
        nodes = [self._node(node)] if node else [one for one in self._cluster.nodes.values() if one.is_up]
        for one in nodes:
            one.require_up()
            one.ctl_file.unlink(missing_ok=True)
            self._around.events.emit(f"cluster:{self._cluster.cluster}", CtlFileDeleted(one.name))

    def run_ctl_client(self, tokens: tuple[int, ...] = TOKENS_OF_A_NEW_CLUSTER) -> None:
        """The CTL client on a PC: sets mixed mode, signs the CTL with the first of the inserted tokens.

        A cluster that has a token-signed CTL wants one of its own tokens, or one whose certificate lies in
        Phone-SAST-trust (facts 11 F24).
        """
        if not self._profile.supports_tokens:
            raise LabError(
                f"CUCM {self._cluster.table.version} supports no tokens", mend="use `utils ctl set-cluster mixed-mode`"
            )
        if len(set(tokens)) != 2 or not set(tokens) <= set(range(1, TOKENS + 1)):
            raise UsageError("two different tokens are needed", mend=f"numbers from 1 to {TOKENS}")
        listed = self._tokens_in_ctl()
        if listed and not set(tokens) & set(listed) and not self._is_known(tokens[0]):
            raise LabError(
                "The Security Token you have inserted does not exist in the CTL File",
                where=self._cluster.cluster,
                mend="insert a token of the CTL, or upload the tokens' certificates as Phone-SAST-trust and run again",
            )
        self._change_mode("1", lambda: self._token_ctl(tokens))

    @staticmethod
    def token_keys_wanted(numbers: Iterable[int] = TOKENS_OF_A_NEW_CLUSTER) -> Iterator[tuple[str, KeyKind]]:
        """Labels and kinds of the tokens' keys. Raises UsageError for a number that is none."""
        for number in numbers:
            yield from security_token_keys(number)

    async def prepare_tokens(self, numbers: Iterable[int] | None = None) -> None:
        """Make the keys of these tokens, by default of those in the CTL, while the event loop goes on. UsageError."""
        wanted = self._tokens_in_ctl() if numbers is None else numbers
        await keys_made(self._around.keys, tuple(self.token_keys_wanted(wanted)))

    def token_certificate(self, number: int) -> bytes:
        """DER of a USB token's certificate, for upload. Raises UsageError for a number that is none."""
        if not 1 <= number <= TOKENS:
            raise UsageError(f"there is no token {number}", mend=f"numbers from 1 to {TOKENS}")
        return self._token(number).certificate_der

    def _own_ctl(self, signer: CertificateUnit | None = None) -> bytes:
        keys = KeyFolder(self._publisher.security)
        moment = self._around.clock.now()
        return build_ctl(self._publisher.database, keys, self._profile, moment, signer_unit=signer)

    def _token_ctl(self, numbers: tuple[int, ...]) -> bytes:
        tokens = [self._token(number) for number in numbers]
        moment = self._around.clock.now()
        return build_token_ctl(self._publisher.database, self._profile, tokens, tokens[0], moment)

    def _write_ctl(self, data: bytes) -> None:
        for node in self._cluster.nodes.values():
            if node.is_up:
                write_ctl(node.directory, data)
        self._around.events.emit(f"cluster:{self._cluster.cluster}", trust_list_signed(data))

    def _token(self, number: int) -> Identity:
        return security_token(self._around.keys, number, seed=self._around.seed, not_before=_TOKENS_BEGIN)

    def _token_serial(self, number: int) -> bytes:
        return security_token_serial(number, seed=self._around.seed, not_before=_TOKENS_BEGIN)

    def _tokens_in_ctl(self) -> tuple[int, ...]:
        """Numbers of the tokens that the present CTL lists; empty for a tokenless one, none, or a damaged one.

        A tokenless one of 12.0 or later may list tokens too: those whose certificates lie in Phone-SAST-trust.
        """
        try:
            known = decode_trust_list(self._publisher.ctl_file.read_bytes())
        except (FileNotFoundError, DecodeError):
            return ()
        listed = {record.serial for record in known.records}
        numbers = tuple(number for number in range(1, TOKENS + 1) if self._token_serial(number) in listed)
        is_by_token = known.signer.serial in {self._token_serial(number) for number in numbers}
        return numbers if is_by_token else ()

    def _is_known(self, token: int) -> bool:
        der = self._token(token).certificate_der
        stored = self._publisher.database.certificates(CertificateUnit.PHONE_SAST_TRUST)
        return any(item.der == der for item in stored)

    # --- ITL

    def reset_itl(self, key: RecoveryKey) -> None:
        """`utils itl reset localkey|remotekey`: the publisher's ITL signed by another key, put on all TFTP nodes.

        localkey: see `VersionProfile.itl_reset_signer`. remotekey: the recovery pair exported earlier [recall].
        Refused while the recovery key is smaller than the others (facts 11 F20).
        """
        signer = self._profile.itl_reset_signer
        if signer is None:
            raise LabError(f"CUCM {self._cluster.table.version} has no `utils itl reset`")
        self._require_publisher()
        require_recovery_key(self._publisher.database, self._profile, self._publisher.name)
        servers = [node for node in self._cluster.nodes.values() if node.is_up and "TFTP" in node.services]
        if not servers:
            raise LabError("there is no TFTP server that is up", where=self._cluster.cluster, mend="activate TFTP")
        data = self._itl_signed_by_exported() if key == "remotekey" else self._itl_signed_by(signer)
        for node in servers:
            self._transfer(node, data)
        self._around.events.emit(f"cluster:{self._cluster.cluster}", trust_list_signed(data))

    def export_recovery_pair(self) -> None:
        """`file get tftp ITLRecovery.p12`: keep the pair outside of the cluster, for `reset remotekey`."""
        pair = self._publisher.identity(CertificateUnit.ITLRECOVERY)
        folder = self._publisher.directory.parent
        write_private(folder / f"{_EXPORTED}.key", pair.private_key_der)
        write_private(folder / f"{_EXPORTED}.pem", pair.certificate_pem)
        self._around.events.emit(f"cluster:{self._cluster.cluster}", RecoveryPairExported(self._cluster.cluster))

    def _itl_signed_by(self, unit: CertificateUnit) -> bytes:
        keys = KeyFolder(self._publisher.security)
        return build_itl(
            self._publisher.database,
            keys,
            self._profile,
            self._publisher.name,
            self._around.clock.now(),
            signer_unit=unit,
        )

    def _itl_signed_by_exported(self) -> bytes:
        folder = self._publisher.directory.parent
        try:
            pem = (folder / f"{_EXPORTED}.pem").read_bytes()
            key = (folder / f"{_EXPORTED}.key").read_bytes()
        except OSError as error:
            raise LabError(
                "no recovery pair was exported from this cluster", mend="export it (file get tftp ITLRecovery.p12)"
            ) from error
        pair = Identity.load(x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER), key, ours=True)
        return build_itl(
            self._publisher.database,
            KeyFolder(self._publisher.security),
            self._profile,
            self._publisher.name,
            self._around.clock.now(),
            remote_key=pair,
        )

    def _transfer(self, node: Node, data: bytes) -> None:
        if node.file_store is not None:
            node.file_store.serve_reset_itl(data)
        else:
            write_itl(node.directory, data)
        self._around.events.emit(f"cluster:{self._cluster.cluster}", ItlResetTransferred(node.name))

    # --- parts

    @property
    def _publisher(self) -> Node:
        return next(iter(self._cluster.nodes.values()))

    def _node(self, name: str) -> Node:
        try:
            return self._cluster.nodes[name]
        except KeyError:
            known = ", ".join(self._cluster.nodes)
            raise UsageError(f"no node {name!r} in {self._cluster.cluster}", mend=f"one of: {known}") from None

    def _change_mode(self, value: str, build: Callable[[], bytes]) -> None:
        """Parameter and CTL together: if the CTL cannot be built, the cluster stays as it was. Raises LabError."""
        before = self._publisher.database.parameter(SECURITY_MODE_PARAMETER) or "0"
        self._set_security_mode(value)
        try:
            data = build()
        except LabError:
            self._set_security_mode(before)
            raise
        self._write_ctl(data)

    def _set_security_mode(self, value: str) -> None:
        self._require_publisher()
        self._publisher.database.set_parameter(SECURITY_MODE_PARAMETER, value)

    def _require_publisher(self) -> None:
        if not self._publisher.is_up:
            raise LabError(f"the publisher {self._publisher.name} is down", mend="start the publisher first")

    def _require_mixed(self) -> None:
        if not is_mixed_mode(self._publisher.database):
            raise LabError(
                "the cluster is not in mixed mode", where=self._cluster.cluster, mend="set it to mixed mode first"
            )

    def _require_tokenless(self) -> None:
        self._require_publisher()
        if self._profile.ctl_signer is None:
            raise LabError(
                f"CUCM {self._cluster.table.version} has no `utils ctl` commands",
                where=self._cluster.cluster,
                mend="run the CTL client with two tokens",
            )


_TOKENS_BEGIN: Final = 1_262_304_000.0
"""2010-01-01: tokens are older than the clusters they sign for."""
