"""Operations on certificates and trust lists: the files they take, the stores they change, what they refuse."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from lab_on_sockets import make_lab, network_of, perform, two_nodes_and_another_cluster

from cucm.errors import CertificateRefused, LabError, UsageError
from cucm.identity import describe, load_certificate
from cucm.roles import CertificateUnit, TrustRole
from cucm.wire.trust_list import decode_trust_list
from lab.operation_words import operation_from_words, operation_of
from lab.scenario import load_story

SAST = CertificateUnit.PHONE_SAST_TRUST
CALLMANAGER = CertificateUnit.CALLMANAGER


@pytest.fixture
async def lab(tmp_path, loopback):
    async with make_lab(tmp_path / "lab", network_of(loopback), two_nodes_and_another_cluster()) as lab:
        yield lab


def held(lab, node: str, store: CertificateUnit) -> list[bytes]:
    return [item.der for item in lab.node(node).database.certificates(store)]


def pem(der: bytes) -> bytes:
    return load_certificate(der).public_bytes(Encoding.PEM)


async def test_certificates_of_all_nodes_or_of_those_named_are_uploaded(lab):
    upload = {"do": "upload-certificate", "from": "here", "to": "there", "stores": ["Phone-SAST-trust"]}
    await perform(lab, certificate="CallManager", nodes=["sub"], **upload)
    assert held(lab, "other", SAST) == [lab.node("sub").certificate(CALLMANAGER)]
    await perform(lab, certificate="CallManager", **upload)
    assert set(held(lab, "other", SAST)) == {lab.node(node).certificate(CALLMANAGER) for node in ("pub", "sub")}
    capf = upload | {"certificate": "CAPF", "stores": ["CAPF-trust"], "from": "there", "to": "here", "on": "sub"}
    await perform(lab, **capf)
    assert [len(held(lab, node, CertificateUnit.CAPF_TRUST)) for node in ("pub", "sub")] == [0, 1]
    for fields, what in (
        ({"certificate": "CAPF", "nodes": ["pub", "sub"]}, "sub has no CAPF certificate of its own"),
        ({"certificate": "ipsec"}, "here has no ipsec certificate of its own"),
        ({"certificate": "CallManager", "nodes": ["other"]}, "no node 'other' in here"),
        ({"certificate": "CallManager", "on": "pub"}, "no node 'pub' in there"),
    ):
        with pytest.raises(UsageError, match=what):
            await perform(lab, **upload, **fields)


UPLOADS = (
    {"do": "upload-certificate", "certificate": "CallManager", "from": "here", "to": "there"},
    {"do": "upload-token-certificate", "cluster": "there", "token": 1},
)


@pytest.mark.parametrize("upload", UPLOADS, ids=[one["do"] for one in UPLOADS])
def test_a_store_that_takes_no_uploads_is_refused_before_anything_is_uploaded(upload):
    with pytest.raises(UsageError, match="nothing can be uploaded to ipsec-trust; use CallManager-trust, "):
        operation_of({**upload, "stores": ["Phone-SAST-trust", "ipsec-trust"]})


@pytest.mark.parametrize("authority", ["nonsense", "", "CN=a;" + "x" * 300])
def test_a_ca_without_a_name_is_refused_before_there_is_a_csr(authority):
    sign = {"do": "sign-certificate", "cluster": "here", "certificate": "TVS", "authority": authority}
    with pytest.raises(UsageError, match="authority: "):
        operation_of(sign)


async def test_the_command_line_says_how_long_a_key_is(lab):
    words = ("cluster=there", "certificate=TVS", "key_bits=1024")
    await perform(lab, **operation_from_words("regenerate-certificate", words))
    certificate = load_certificate(lab.node("other").certificate(CertificateUnit.TVS))
    assert certificate.public_key().key_size == 1024
    for wrong in ("key_bits=1000", "key_bits=many", "key_bits=²"):
        with pytest.raises(UsageError, match="key_bits: "):
            operation_from_words("regenerate-certificate", (*words[:2], wrong))


async def test_nothing_is_downloaded_from_a_machine_that_is_down(lab):
    upload = {"certificate": "CallManager", "from": "here", "to": "there", "stores": ["Phone-SAST-trust"]}
    await perform(lab, "crash-node", cluster="here", node="sub")
    with pytest.raises(LabError, match="sub is down"):
        await perform(lab, "upload-certificate", **upload)
    assert held(lab, "other", SAST) == []
    await perform(lab, "upload-certificate", nodes=["pub"], **upload)
    assert held(lab, "other", SAST) == [lab.node("pub").certificate(CALLMANAGER)]


async def test_a_certificate_of_anybodys_is_uploaded(lab):
    der = lab.node("other").certificate(CALLMANAGER)
    upload = {"cluster": "here", "stores": ["Phone-SAST-trust", "CallManager-trust"]}
    await perform(lab, "upload-certificate-file", pem=pem(der).decode(), **upload)
    for node in ("pub", "sub"):
        (item,) = lab.node(node).database.certificates(SAST)
        assert (item.der, item.roles) == (der, (TrustRole.SAST, TrustRole.TFTP))
    with pytest.raises(UsageError, match="holds 2 certificates"):
        await perform(lab, "upload-certificate-file", pem=(pem(der) * 2).decode(), **upload)


UPLOAD = {"do": "upload-certificate-file", "cluster": "here", "stores": ["CallManager-trust"]}
TORN = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize("text", ["", "nonsense", TORN, "é", "\0", "/etc/passwd", "@/etc/passwd", "A" * 65537])
def test_no_text_that_is_no_certificate_is_taken_and_no_path_is_read(text):
    with pytest.raises(UsageError, match="pem: ") as caught:
        operation_of({**UPLOAD, "pem": text})
    assert "root" not in str(caught.value)


@pytest.mark.parametrize("form", [pem, bytes], ids=["PEM", "DER"])
async def test_the_command_line_reads_the_file_itself(lab, tmp_path, form):
    der, file = lab.node("other").certificate(CALLMANAGER), tmp_path / "other.cer"
    file.write_bytes(form(der))
    words = ("cluster=here", "stores=CallManager-trust", f"pem=@{file}")
    made = operation_from_words("upload-certificate-file", words)
    assert made["pem"] == pem(der).decode()
    file.write_bytes(b"nonsense")
    with pytest.raises(UsageError, match="holds no certificate in PEM"):
        operation_from_words("upload-certificate-file", words)
    file.unlink()
    with pytest.raises(UsageError, match=r"other\.cer: cannot be read: No such file"):
        operation_from_words("upload-certificate-file", words)


async def test_a_story_reads_the_file_beside_it(lab, tmp_path):
    der = lab.node("other").certificate(CALLMANAGER)
    text = """schema = 1
title = "Upload"
teaches = "nothing"
topology = "two-clusters"
[[acts]]
title = "one"
steps = [{do = "upload-certificate-file", cluster = "source", pem = "@certificates/a.pem", stores = ["TVS-trust"]}]
"""
    (tmp_path / "story.toml").write_text(text)
    with pytest.raises(UsageError, match=r"acts\[1\].steps\[1\].pem \(line 7\): .*a.pem: cannot be read"):
        load_story(str(tmp_path / "story.toml"))
    (tmp_path / "certificates").mkdir()
    (tmp_path / "certificates" / "a.pem").write_bytes(pem(der))
    _, story = load_story(str(tmp_path / "story.toml"))
    assert story.acts[0].steps[0].pem == pem(der).decode()


async def test_a_ca_signs_in_one_step(lab):
    sign = {"cluster": "here", "authority": "CN=a CA"}
    for unit in ("CallManager", "TVS", "tomcat"):
        await perform(lab, "sign-certificate", certificate=unit, node="sub", **sign)
        assert describe(lab.node("sub").certificate(CertificateUnit(unit))).issuer == "CN=a CA"
        assert len(held(lab, "sub", CertificateUnit(f"{unit}-trust"))) == 1
    assert describe(lab.node("pub").certificate(CALLMANAGER)).issuer != "CN=a CA"
    await lab.node("sub").restart_service("TVS")
    await lab.node("sub").restart_service("TFTP")
    records = decode_trust_list((lab.node("sub").directory / "tftp" / "ITLFile.tlv").read_bytes()).records
    assert lab.node("sub").certificate(CertificateUnit.TVS) in [record.certificate for record in records]


async def test_a_csr_is_taken_to_a_ca_and_what_it_signed_is_imported(lab):
    where = {"cluster": "here", "node": "sub", "certificate": "CallManager"}
    node = lab.node("sub")
    await perform(lab, "generate-signing-request", **where)
    request = (node.security / "CallManager.csr").read_bytes()
    assert (node.security / "CallManager.csr.key").stat().st_mode & 0o777 == 0o600
    signed, authority = await lab.cluster("here").certificates.sign_request(request, "CN=a CA")
    with pytest.raises(CertificateRefused, match="is not in CallManager-trust"):
        await perform(lab, "import-signed-certificate", pem=pem(signed).decode(), **where)
    await perform(
        lab, "upload-certificate-file", cluster="here", pem=pem(authority).decode(), stores=["CallManager-trust"]
    )
    await perform(lab, "import-signed-certificate", pem=pem(signed).decode(), **where)
    assert node.certificate(CALLMANAGER) == signed
    assert list(node.security.glob("*csr*")) == []


async def test_a_certificate_is_deleted_and_a_token_is_trusted(lab):
    await perform(lab, "upload-token-certificate", cluster="here", token=1, stores=["Phone-SAST-trust"])
    (der,) = held(lab, "sub", SAST)
    name = describe(der).common_name
    await perform(lab, "delete-certificate", cluster="here", node="sub", store="Phone-SAST-trust", common_name=name)
    assert [held(lab, node, SAST) for node in ("pub", "sub")] == [[], []]
    await perform(lab, "synchronise-certificates", cluster="here")
    assert held(lab, "pub", SAST) == []


async def test_commands_on_lists(lab):
    ctl = lab.node("pub").ctl_file
    await perform(lab, "delete-ctl-file", cluster="here", node="sub")
    assert (ctl.exists(), lab.node("sub").ctl_file.exists()) == (True, False)
    await perform(lab, "update-ctl-file", cluster="here")
    assert lab.node("sub").ctl_file.read_bytes() == ctl.read_bytes()
    normal = decode_trust_list(ctl.read_bytes()).signer
    await perform(lab, "reset-ctl-localkey", cluster="here")
    assert decode_trust_list(ctl.read_bytes()).signer != normal
    await perform(lab, "run-ctl-client", cluster="here", tokens=[3, 2])
    assert len(decode_trust_list(ctl.read_bytes()).records) == 7  # two tokens, ITLRecovery, CallManager, and three
    await perform(lab, "set-cluster-non-secure-mode", cluster="here")
    await perform(lab, "set-cluster-mixed-mode", cluster="here")
    assert decode_trust_list(ctl.read_bytes()).signer == normal
    await perform(lab, "export-recovery-pair", cluster="here")
    await perform(lab, "regenerate-certificate", cluster="here", certificate="ITLRecovery", key_bits=2048)
    for key in ("localkey", "remotekey"):
        await perform(lab, "reset-itl", cluster="here", key=key)
    await perform(lab, "alter-ctl-file", cluster="here", node="sub", from_end=10)
    assert lab.node("sub").ctl_file.read_bytes() != ctl.read_bytes()
    await perform(lab, "delete-ctl-file", cluster="here")
    with pytest.raises(UsageError, match="pub has no CTLFile"):
        await perform(lab, "alter-ctl-file", cluster="here")
