"""Everything that reads bytes or text from outside, as targets for fuzzers: what it is given, what it may raise.

The rule: a target returns, or raises what its documentation names. Anything else that comes out is a fault of ours.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cucm.certificate_bundle import decode_bundle
from cucm.certificates import node_certificate
from cucm.errors import LabError, UsageError
from cucm.faults import fault_of
from cucm.identity import Identity, describe, load_certificate
from cucm.key_store import KeyStore
from cucm.names import parse_name
from cucm.roles import CertificateUnit, TrustRole
from cucm.trust import read_trust_list
from cucm.wire import dhcp
from cucm.wire.alarm import Alarm, DeviceTlInfo
from cucm.wire.der import read_elements
from cucm.wire.signature_header import decode_header
from cucm.wire.signed_file import build_signed_file, decode_signed_file
from cucm.wire.sip import SipReceiver, device_name_of, expiry_of, granted_contact, required_extensions, response_to
from cucm.wire.sip_digest import Digest
from cucm.wire.sip_message import Headers, Request, parse_head
from cucm.wire.trust_list import DigestAlgorithm, Record, build_trust_list, decode_trust_list
from cucm.wire.tvs import ConnectionClosed, NeedData, TvsConnection
from cucm.wire.tvs_messages import decode_message
from lab.api.inspection import compiled, value_of
from lab.checkpoints import require_name
from lab.cli.hex_dumps import find_dumps
from lab.fault_examples import ExampleFile
from lab.fleet.own_figures import decode_run
from lab.operation_words import operation_of
from lab.scenario import Story
from lab.sftp_folder import ServedFolder
from lab.toml_files import read_toml
from lab.topology import Topology, packaged
from phone_agent import http_client, tftp_client
from phone_agent.configuration import parse_configuration
from phone_agent.flash import Flash
from tftp_server import http, packets

MAX_INPUT = 16 * 1024
SEED_DUMPS = Path(__file__).parents[1] / "vectors"


@dataclass(frozen=True, slots=True)
class Target:
    """`run` is given any bytes; `raises` is what may come out of it; `seeds` are inputs that make sense."""

    name: str
    run: Callable[[bytes], object]
    seeds: Callable[[], list[bytes]]
    raises: tuple[type[BaseException], ...] = (LabError,)
    covers: tuple[str, ...] = ()
    """Public functions that this target reaches beside the one of its name, as `module.function`."""


@cache
def signer() -> Identity:
    return node_certificate(
        KeyStore(), CertificateUnit.CALLMANAGER, "ucm105pub", seed=1, not_before=1_480_000_000, kind=1024
    )


@cache
def trust_list() -> bytes:
    one = signer()
    record = Record.build(
        function=TrustRole.SAST,
        dns_name="ucm105pub",
        subject=one.subject,
        issuer=one.issuer,
        serial=one.serial,
        public_key=one.public_key_record,
        signature=one.certificate_signature,
        certificate=one.certificate_der,
        ip_address="127.0.11.32",
    )
    return build_trust_list(
        signer=one.signer_id,
        records=(record, record),
        digest=DigestAlgorithm.SHA1,
        sign=one.sign,
        signature_length=one.signature_length,
        file_name="CTLFile.tlv",
        timestamp=1_480_000_000,
    )


@cache
def signed_file() -> bytes:
    one = signer()
    return build_signed_file(
        b"<device><member priority='0'/></device>",
        signer=one.signer_id,
        file_name="SEPB000B4BA0AEE.cnf.xml.sgn",
        digest=DigestAlgorithm.SHA512,
        sign=one.sign,
        signature_length=one.signature_length,
        timestamp=1_480_000_000,
    )


def tvs_messages() -> list[bytes]:
    """The published heads, whole by their lengths."""
    vectors = json.loads((SEED_DUMPS / "vectors.json").read_text())
    heads = [
        bytes.fromhex(vectors[f"tvs_query_certificate_{kind}_first_50_bytes"]["hex"].replace(" ", ""))
        if isinstance(vectors[f"tvs_query_certificate_{kind}_first_50_bytes"], dict)
        else bytes.fromhex(vectors[f"tvs_query_certificate_{kind}_first_50_bytes"].replace(" ", ""))
        for kind in ("request", "response")
    ]
    return [head.ljust(12 + int.from_bytes(head[8:10], "big"), b"\0") for head in heads]


_BOOTP = bytes.fromhex("01010600000003e8000080000000000000000000000000007f000b64b000b4ba0aee")
_OPTIONS = bytes.fromhex("638253633501013d0701b000b4ba0aee3704010396423c0743502d38383631ff")
DISCOVER = _BOOTP + bytes(202) + _OPTIONS
REGISTER = (
    b"REGISTER sip:127.0.11.32 SIP/2.0\r\nVia: SIP/2.0/TLS 127.0.11.100:1;branch=z9\r\n"
    b"From: <sip:SEPB000B4BA0AEE@127.0.11.32>;tag=1\r\nTo: <sip:SEPB000B4BA0AEE@127.0.11.32>\r\nCall-ID: 1@x\r\n"
    b'CSeq: 1 REGISTER\r\nContact: <sip:x@127.0.11.100>;+u.sip!devicename.ccm.cisco.com="SEPB000B4BA0AEE"\r\n'
    b"Expires: 120\r\nContent-Length: 0\r\n\r\n"
)
ALARM = (
    b'<?xml version="1.0" encoding="UTF-8" ?><x-cisco-alarm><Alarm Name="DeviceTLInfo"><ParameterList>'
    b'<String name="DeviceName">SEPB000B4BA0AEE</String><String name="CTL_Signature">aa</String>'
    b"</ParameterList></Alarm></x-cisco-alarm>"
)
USUAL_ALARM = DeviceTlInfo("SEPB000B4BA0AEE", bytes(20), "10.0.0.1", None, None).as_alarm().encode()
CALL_MANAGER_SAYS = (
    b"SIP/2.0 200 OK\r\nv: SIP/2.0/TLS [::1]:1;branch=z9\r\nVia: SIP/2.0/TCP a\r\nSubject: goes\r\n\ton\r\n"
    b'm: "a, b" <sip:x@[::1]>;expires=7, sip:c;Expires=8\r\nl: 4\r\n\r\nbody\r\n\r\n'
)
DIGEST = b'Digest username="u", realm="ccmsipline", nonce="n", uri="sip:x", response="r", algorithm=MD5'
READ_REQUEST = b"\0\1CTLFile.tlv\0octet\0blksize\x001428\0"
TFTP_OPTIONS = b"blksize\x001428\0tsize\x009\0"
OPERATION = b'{"do": "boot-phone", "phone": "SEP1"}'
HTTP_REQUEST = b"GET /CTLSEPB000B4BA0AEE.tlv HTTP/1.1\r\nHost: x\r\n\r\n"
HTTP_RESPONSE = b"HTTP/1.1 200 OK\r\nContent-length: 10\r\nCache-Control: no-store\r\nContent-type: */*\r\n\r\n"
FLEET_RUN = json.dumps(
    {
        "mode": "sockets",
        "arrived": 3,
        "request": {"phones": 3, "story": "migrate"},
        "stages": [{"server_cpu_s": 0.03, "phone_cpu_s": 0.02}],
    }
).encode()
CONFIGURATION = (
    b"<device><deviceSecurityMode>3</deviceSecurityMode><devicePool><callManagerGroup><members><member priority='0'>"
    b"<callManager><name>a</name><processNodeName>127.0.11.32</processNodeName></callManager></member></members>"
    b"</callManagerGroup></devicePool></device>"
)


def conversation(data: bytes) -> None:
    """TVS: in two pieces, until nothing more comes out."""
    connection = TvsConnection()
    for piece in (data[: len(data) // 2], data[len(data) // 2 :]):
        connection.receive_data(piece)
        while not isinstance(connection.next_event(), NeedData | ConnectionClosed):
            pass
    connection.receive_eof()
    connection.next_event()


def sip(data: bytes) -> None:
    """What is read can be written, and read again as the same; an answer is a message too."""
    receiver = SipReceiver()
    receiver.receive_data(data)
    while (message := receiver.next_message()) is not None:
        head = str(message.headers)
        assert not set(head.replace("\r\n", "")) & CONTROLS
        assert parse_head(bytes(message)[: -len(message.body) or None]).headers.getlist("Via") == (
            message.headers.getlist("Via")
        )
        if isinstance(message, Request):
            parse_head(bytes(response_to(message, 200, "OK")))
            required_extensions(message)
            device_name_of(message)
            expiry_of(message, 120)
            granted = [granted_contact(contact, 60) for contact in message.headers.getlist("Contact")]
            assert expiry_of(Request("REGISTER", "sip:a", Headers([("Contact", one) for one in granted])), 0) == 60


CONTROLS = set(map(chr, [*range(9), *range(10, 32), 127]))


def alarm(data: bytes) -> None:
    """The usual layout, for which there is no XML parser, is read as such a parser reads it."""
    found = Alarm.decode(data)
    if data.endswith(b"</x-cisco-alarm>"):
        assert Alarm.decode(data[:-1] + b" >") == found
    DeviceTlInfo.of(found)


def toml(model: type[Any]) -> Callable[[bytes], object]:
    def read(data: bytes) -> object:
        with tempfile.NamedTemporaryFile(suffix=".toml") as file:
            file.write(data)
            file.flush()
            return read_toml(Path(file.name), model)

    return read


def flash(data: bytes) -> object:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "manifest.json").write_bytes(data)
        return Flash(Path(folder)).contents


def sftp_path(data: bytes) -> None:
    folder = ServedFolder(Path("/nonexistent"))
    shown = folder.shown(data)
    assert shown.startswith("/")
    assert ".." not in shown.split("/")


def json_object(use: Callable[[Any], object]) -> Callable[[bytes], object]:
    def run(data: bytes) -> object:
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            return None
        return use(value) if isinstance(value, dict) else None

    return run


def text(use: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda data: use(data.decode("utf-8", "replace"))


def jmespath(expression: str) -> object:
    return value_of(compiled(expression), {"phones": {"SEP1": {"registered": "source"}}, "n": [1, 2]})


def tvs_trace() -> list[bytes]:
    return [(SEED_DUMPS / "seed_tvs_trace.txt").read_bytes()[:8000]]


def toml_seeds(folder: str) -> Callable[[], list[bytes]]:
    return lambda: [path.read_bytes() for path in list(packaged(folder).values())[:3]]


def _sftp_errors() -> tuple[type[BaseException], ...]:
    import asyncssh

    return LabError, asyncssh.SFTPError


def _bundle() -> list[bytes]:
    from cucm.certificate_bundle import BundledCertificate, encode_bundle

    one = BundledCertificate(signer().certificate_der, CertificateUnit.CALLMANAGER, "source", "ucm105pub", "10.5.2")
    return [encode_bundle([one], b"p")]


def _dhcp(data: bytes) -> object:
    return dhcp.decode_message(data)


TARGETS: tuple[Target, ...] = (
    Target("cucm.wire.tvs_messages.decode_message", decode_message, tvs_messages),
    Target("cucm.wire.tvs.TvsConnection", conversation, tvs_messages),
    Target("cucm.wire.trust_list.decode_trust_list", decode_trust_list, lambda: [trust_list()]),
    Target("cucm.trust.read_trust_list", read_trust_list, lambda: [trust_list(), signed_file()]),
    Target("cucm.wire.signed_file.decode_signed_file", decode_signed_file, lambda: [signed_file()]),
    Target(
        "cucm.wire.signature_header.decode_header",
        decode_header,
        lambda: [signed_file(), trust_list()],
        covers=("cucm.wire.cursor.read_elements",),
    ),
    Target("cucm.wire.dhcp.decode_message", _dhcp, lambda: [DISCOVER]),
    Target("cucm.wire.der.read_elements", read_elements, lambda: [signer().certificate_der]),
    Target("cucm.certificate_bundle.decode_bundle", lambda data: decode_bundle(data, b"p"), _bundle),
    Target("cucm.identity.load_certificate", load_certificate, lambda: [signer().certificate_der]),
    Target("cucm.identity.describe", describe, lambda: [signer().certificate_der]),
    Target("cucm.names.parse_name", text(parse_name), lambda: [b"CN=a;OU=b;O=c;L=d;ST=e;C=NO"]),
    Target(
        "cucm.wire.sip.SipReceiver",
        sip,
        lambda: [REGISTER, CALL_MANAGER_SAYS, CALL_MANAGER_SAYS + REGISTER],
        covers=("cucm.wire.sip_message.parse_head",),
    ),
    Target("cucm.wire.sip_digest.Digest.parse", text(Digest.parse), lambda: [DIGEST]),
    Target("cucm.wire.alarm.Alarm.decode", alarm, lambda: [ALARM, USUAL_ALARM]),
    Target(
        "tftp_server.packets.decode_request",
        packets.decode_request,
        lambda: [b"\0\1CTLFile.tlv\0octet\0blksize\x001428\0"],
    ),
    Target("tftp_server.packets.decode_operation", packets.decode_operation, lambda: [b"\0\4\0\1"]),
    Target("tftp_server.packets.decode_error", packets.decode_error, lambda: [b"\0\5\0\1File not found\0"]),
    Target(
        "tftp_server.packets.decode_option_acknowledgement",
        packets.decode_option_acknowledgement,
        lambda: [b"\0\6blksize\x001428\0"],
    ),
    Target("tftp_server.http.decode_head", http.decode_head, lambda: [HTTP_REQUEST]),
    Target("phone_agent.http_client.decode_head", http_client.decode_head, lambda: [HTTP_RESPONSE]),
    Target(
        "phone_agent.tftp_client.decode_options", tftp_client.decode_options, lambda: [b"blksize\x001428\0tsize\x009\0"]
    ),
    Target("phone_agent.configuration.parse_configuration", parse_configuration, lambda: [CONFIGURATION]),
    Target(
        "phone_agent.flash.Flash",
        flash,
        lambda: [b'{"check": "x", "body": {"format": 1, "ctl": null}}'],
        covers=("phone_agent.flash_contents.decode_manifest",),
    ),
    Target(
        "lab.topology.Topology",
        toml(Topology),
        toml_seeds("topologies"),
        covers=("lab.toml_files.read_toml", "lab.toml_files.read_tables"),
    ),
    Target("lab.scenario.Story", toml(Story), toml_seeds("scenarios")),
    Target("lab.fault_examples.ExampleFile", toml(ExampleFile), toml_seeds("fault_examples")),
    Target(
        "lab.cli.hex_dumps.find_dumps",
        text(find_dumps),
        lambda: [(SEED_DUMPS / "seed_tvs_trace.txt").read_bytes()[:8000]],
    ),
    Target(
        "lab.sftp_folder.ServedFolder.parts", sftp_path, lambda: [b"/bulk/../../etc/passwd", b"a/./b"], _sftp_errors()
    ),
    Target("lab.checkpoints.require_name", text(require_name), lambda: [b"before", b"../x"], (UsageError,)),
    Target(
        "cucm.faults.fault_of",
        json_object(fault_of),
        lambda: [b'{"point": "tvs.response", "action": "delay", "times": 1, "attributes": {"seconds": 2}}'],
    ),
    Target(
        "lab.fleet.own_figures.decode_run",
        lambda data: decode_run(data, "fleet.json"),
        lambda: [FLEET_RUN],
        (UsageError,),
    ),
    Target(
        "lab.operation_words.operation_of",
        json_object(operation_of),
        lambda: [b'{"do": "boot-phone", "phone": "SEP1"}'],
    ),
    Target("lab.api.inspection.compiled", text(jmespath), lambda: [b"phones.*.registered", b"length(n[?@ > `1`])"]),
)
NOT_TARGETS = {
    "cucm.wire.tvs_messages.decode_body": "is given what decode_message and TvsConnection have checked",
    "cucm.database.changes.read_after": "rows of our own database",
    "cucm.program.read_file": "reads a file whole; what is in it goes to a target",
    "cucm.program.read_certificates": "reads files; cucm.identity.load_certificate is the target",
    "cucm.program.read_private_key": "the user's own file; OpenSSL reads it",
    "phone_agent.flash_export.read_export": "reads files; trust lists and certificates are targets",
    "phone_agent.tftp_client.read_request": "makes a request",
    "lab.fleet.own_figures.read_run": "reads a file; decode_run is the target",
    "lab.scenario.read_story": "reads a file; lab.scenario.Story is the target",
    "lab.cli.inputs.read_input": "reads a file whole",
    "lab.cli.inputs.read_certificate": "the user's own file; cucm.identity.load_certificate is the target",
    "lab.cli.inputs.read_network": "a word of the command line",
    "lab.cli.verify.parse_roles": "a word of the command line",
    "lab.cli.tvs.parse_host": "a word of the command line",
    "lab.cli.tvs.parse_serial": "a word of the command line",
}
"""Public functions that look like decoders by their names, and why they are none of strangers' bytes."""


def check(target: Target, data: bytes) -> None:
    """Raises what the target may not."""
    try:
        target.run(data[:MAX_INPUT])
    except target.raises:
        return
