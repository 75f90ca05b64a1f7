"""OS Administration > Security > Certificate Management."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from cucm.errors import LabError, UsageError
from cucm.identity import describe
from cucm.names import parse_name
from cucm.roles import CertificateUnit
from lab.certificate_management import UPLOADABLE
from lab.operations.base import ClusterOperation, NodeOperation, Operation
from lab.operations.pem import PemText, certificates_in
from lab.topology import ClusterName, NodeName

if TYPE_CHECKING:
    from lab.runtime import Lab


def _take_uploads(stores: tuple[CertificateUnit, ...]) -> tuple[CertificateUnit, ...]:
    """All of them, or none is uploaded to: an operation is not half done because its last word is wrong."""
    wrong = [store for store in stores if store not in UPLOADABLE]
    if wrong:
        raise ValueError(f"nothing can be uploaded to {', '.join(wrong)}; use {', '.join(UPLOADABLE)}")
    return stores


Stores = Annotated[tuple[CertificateUnit, ...], Field(min_length=1, max_length=8), AfterValidator(_take_uploads)]


def _number(value: object) -> object:
    """The command line has texts only, and a choice of numbers makes none of them."""
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value


def _a_name(text: str) -> str:
    """Found out before a CSR is made for it."""
    try:
        parse_name(text)
    except LabError as error:
        raise ValueError(str(error)) from None
    return text


def _subject(pem: str) -> str:
    """Of the first certificate in checked PEM text."""
    return describe(certificates_in(pem)[0]).subject


class UploadCertificate(Operation):
    """Download nodes' own certificates in one cluster and upload them to trust stores of another.

    Without `nodes`, of every node that has one; `on` is the node whose page is used, else the publisher.
    """

    do: Literal["upload-certificate"]
    certificate: CertificateUnit
    source: Annotated[ClusterName, Field(alias="from")]
    nodes: tuple[NodeName, ...] = ()
    to: ClusterName
    stores: Stores
    on: NodeName | None = None

    def _wanted(self, lab: Lab) -> list[tuple[str, bytes]]:
        cluster = lab.cluster(self.source)
        for node in self.nodes:
            cluster.node(node)
        own = cluster.certificates.own(self.certificate)
        wanted = [(node, der) for node, der in own if not self.nodes or node in self.nodes]
        lacking = [node for node in self.nodes if node not in dict(own)]
        if not wanted or lacking:
            who = ", ".join(lacking) or cluster.name
            names = ", ".join(dict(own)) or "no node"
            raise UsageError(
                f"{who} has no {self.certificate} certificate of its own", where=self.do, mend=f"{names} has"
            )
        return wanted

    def says(self, lab: Lab) -> str:
        target = lab.cluster(self.to)
        page = target.node(self.on).name if self.on else target.name
        nodes = ", ".join(node for node, _ in self._wanted(lab))
        return f"{page}: upload {self.certificate}.pem of {nodes} as {' and '.join(self.stores)}"

    async def perform(self, lab: Lab) -> None:
        wanted = self._wanted(lab)
        for node, _ in wanted:
            lab.node(node).require_up()  # it is downloaded from that node's own page
        for _, der in wanted:
            for store in self.stores:
                lab.cluster(self.to).certificates.upload(der, store, self.on)


class UploadCertificateFile(NodeOperation):
    """Upload a certificate of anybody's to trust stores."""

    do: Literal["upload-certificate-file"]
    pem: PemText
    stores: Stores

    def what(self) -> str:
        return f"upload {_subject(self.pem)} as {' and '.join(self.stores)}"

    async def perform(self, lab: Lab) -> None:
        certificates = certificates_in(self.pem)
        if len(certificates) != 1:
            raise UsageError(f"`pem` holds {len(certificates)} certificates", where=self.do, mend="upload one by one")
        for store in self.stores:
            lab.cluster(self.cluster).certificates.upload(certificates[0], store, self.node)


class UploadTokenCertificate(ClusterOperation):
    """Upload the certificate of a USB token, as the repair of F24 wants it."""

    do: Literal["upload-token-certificate"]
    token: Annotated[int, Field(ge=1, le=4)]
    stores: Stores

    def what(self) -> str:
        return f"upload the certificate of token {self.token} as {' and '.join(self.stores)}"

    async def perform(self, lab: Lab) -> None:
        cluster = lab.cluster(self.cluster)
        await cluster.trust_lists.prepare_tokens([self.token])
        for store in self.stores:
            cluster.certificates.upload(cluster.trust_lists.token_certificate(self.token), store)


class RegenerateCertificate(ClusterOperation):
    """A new key and certificate, on one node or on all that have one. What to restart afterwards: facts 5.6."""

    do: Literal["regenerate-certificate"]
    certificate: CertificateUnit
    node: NodeName | None = None
    key_bits: Annotated[Literal[1024, 2048, 3072, 4096] | None, BeforeValidator(_number)] = None

    def what(self) -> str:
        bits = f" with {self.key_bits} bits" if self.key_bits else ""
        return f"regenerate {self.certificate}{bits}"

    def says(self, lab: Lab) -> str:
        cluster = lab.cluster(self.cluster)
        return f"{cluster.node(self.node).name if self.node else cluster.name}: {self.what()}"

    async def perform(self, lab: Lab) -> None:
        await lab.cluster(self.cluster).certificates.regenerate(self.certificate, self.node, key_bits=self.key_bits)


class SignCertificate(NodeOperation):
    """Generate a CSR, have the company's CA sign it, upload the CA's certificate as trust, import what was signed."""

    do: Literal["sign-certificate"]
    certificate: Literal[CertificateUnit.CALLMANAGER, CertificateUnit.TVS, CertificateUnit.TOMCAT]
    authority: Annotated[str, Field(min_length=1, max_length=256), AfterValidator(_a_name)]
    """Name of the CA, for instance `CN=stormin-WIN2012-CA`."""

    def what(self) -> str:
        return f"have {self.certificate} signed by {self.authority} (CSR, CA certificate as trust, import)"

    async def perform(self, lab: Lab) -> None:
        pages = lab.cluster(self.cluster).certificates
        request = await pages.make_signing_request(self.certificate, self.node)
        signed, authority = await pages.sign_request(request, self.authority)
        pages.upload(authority, CertificateUnit(f"{self.certificate}-trust"))
        await pages.import_signed(signed, self.certificate, self.node)


class GenerateSigningRequest(NodeOperation):
    """The CSR lies in the lab's folder then: `clusters/CLUSTER/NODE/security/CERTIFICATE.csr`."""

    do: Literal["generate-signing-request"]
    certificate: CertificateUnit

    def what(self) -> str:
        return f"generate a CSR for {self.certificate}"

    async def perform(self, lab: Lab) -> None:
        await lab.cluster(self.cluster).certificates.make_signing_request(self.certificate, self.node)


class ImportSignedCertificate(NodeOperation):
    """Import the certificate that a CA made for the pending CSR; of a chain the first."""

    do: Literal["import-signed-certificate"]
    certificate: CertificateUnit
    pem: PemText

    def what(self) -> str:
        return f"import {_subject(self.pem)} as {self.certificate}"

    async def perform(self, lab: Lab) -> None:
        signed = certificates_in(self.pem)[0]
        await lab.cluster(self.cluster).certificates.import_signed(signed, self.certificate, self.node)


class DeleteCertificate(NodeOperation):
    """Delete from a trust store: everywhere from 11.0 on, before that on one node (facts 5.5)."""

    do: Literal["delete-certificate"]
    store: CertificateUnit
    common_name: str

    def what(self) -> str:
        return f"delete {self.common_name} from {self.store}"

    async def perform(self, lab: Lab) -> None:
        lab.cluster(self.cluster).certificates.delete(self.store, self.common_name, self.node)


class SynchroniseCertificates(ClusterOperation):
    """What certificate change notification does every half an hour (facts 5.5)."""

    do: Literal["synchronise-certificates"]

    def what(self) -> str:
        return "certificate change notification synchronises the nodes"

    async def perform(self, lab: Lab) -> None:
        lab.cluster(self.cluster).certificates.synchronise()
