from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cucm.wire.tvs import QueryCertificateRequest, QueryCertificateResponse, VerifyResponse, encode_message
from lab.cli.hex_dumps import _announced, _blocks, find_dumps
from lab.cli.tvs_explanation import explain_message, explain_messages

VECTORS = Path(__file__).parent.parent / "vectors"
PUBLISHED_REQUEST = (
    "57 01 03 00 00 00 03 e9 00 8f 01 00 18 01 43 50 2d 38 38 36 31 2d 53 45 50 42 30 30 30 42 34 42 41 30 41 45 45"
    " 03 00 42 43 4e 3d 75 63 6d 31 31 70 75"
)
SERIAL = bytes.fromhex("24000000179479b8f124ac3f3b000000000017")
REQUEST = QueryCertificateRequest.build(
    1001,
    "CP-8861-SEPB000B4BA0AEE",
    "CN=ucm11pub.stormin.local;OU=IST;O=Stormin;L=Brisbane;ST=QLD;C=AU",
    "CN=stormin-WIN2012-CA",
    SERIAL,
)


def names(explanation) -> list[str]:
    return [item.name.partition(" (")[0] for item in explanation.fields]


def test_the_published_50_bytes(cucm_lab):
    done = cucm_lab("decode", PUBLISHED_REQUEST)
    assert done.returncode == 0
    assert "TVS_MSG_QUERY_CERT_REQ" in done.stdout
    assert "session id: 1001" in done.stdout
    assert '"CP-8861-SEPB000B4BA0AEE"' in done.stdout
    assert '"CN=ucm11pu" (10 of 66 bytes are in the dump)' in done.stdout
    assert "note: the dump ends at offset 50: 103 of 153 bytes are not in it" in done.stdout
    assert "PROBLEM" not in done.stdout


def test_the_corrupt_trace_of_the_seed(cucm_lab):
    done = cucm_lab("decode", VECTORS / "tvs_trace_sample.txt", "--json")
    assert done.returncode == 0
    answer = json.loads(done.stdout)
    assert answer["schema"] == 1
    request, certificate, ttl, response = answer["dumps"]
    message = request["messages"][0]
    assert len(bytes.fromhex(request["hex"])) == 49
    assert message["hex"] == PUBLISHED_REQUEST.replace(" ", "")
    assert message["session_id"] == 1001
    assert message["total_length"] == request["declared_length"] == 153
    assert message["missing_bytes"] == 103
    assert "line 5 has 7 bytes where a trace prints 8" in message["notes"][0]
    assert "the length field says 36609, but the log says 153 bytes in all" in message["notes"][1]
    assert "the length field says 143" in message["notes"][2]
    assert "serial number 24000000179479B8F124AC3F3B000000000017" in certificate["meaning"]
    assert "86400 s = 24 h" in ttl["meaning"]
    message = response["messages"][0]
    assert [item["name"] for item in message["fields"]][-2:] == [
        "status (tag 7, length 1)",
        "certificate (tag 2, length 1451)",
    ]
    assert message["fields"][-1]["path"] == "element[1]"
    assert message["fields"][-1]["offset"] == 14
    assert message["total_length"] == 1480


def test_a_whole_request_is_explained_to_its_end():
    explanation = explain_message(encode_message(REQUEST))
    assert names(explanation)[6:] == ["device name", "subject name", "issuer name", "serial number"]
    assert explanation.fields[-1].meaning == SERIAL.hex().upper()
    assert "UNKNOWN" in explanation.fields[-1].confidence
    assert (explanation.problem, explanation.missing, explanation.notes) == (None, 0, ())


def test_a_whole_answer_is_explained_to_its_end():
    answer = QueryCertificateResponse.build(7, 0, b"\x30\x03\x02\x01\x05", (0, 3), 86400)
    explanation = explain_message(encode_message(answer))
    assert [item.meaning for item in explanation.fields[6:]] == [
        "0: ok, found or valid",
        "5 bytes that are not a usable certificate",
        "0 SAST, 3 TFTP",
        "86400 s = 24 h",
    ]


@pytest.mark.parametrize(
    "form",
    [
        "{spaced}",
        "{solid}",
        "0x{comma}",
        "{{0x{comma}}};",
        "\\x{backslash}",
        "{colon}",
        "{upper}",
    ],
)
def test_hex_in_any_form(cucm_lab, form):
    data = encode_message(VerifyResponse.build(1002, 0, (7,), 86400))
    text = form.format(
        spaced=data.hex(" "),
        solid=data.hex(),
        comma=", 0x".join(f"{byte:x}" for byte in data),
        backslash="\\x".join(f"{byte:02x}" for byte in data),
        colon=data.hex(":"),
        upper=data.hex(" ", 4).upper(),
    )
    assert [dump.data for dump in find_dumps(text)] == [data]
    done = cucm_lab("decode", stdin=text.encode())
    assert done.returncode == 0
    assert "7 APPLICATION_SERVER" in done.stdout


def test_raw_bytes_in_a_file(cucm_lab, tmp_path):
    (tmp_path / "message").write_bytes(encode_message(REQUEST) * 2)
    done = cucm_lab("decode", tmp_path / "message")
    assert done.returncode == 0
    assert done.stdout.count("TVS_MSG_QUERY_CERT_REQ") == 2


def test_a_phones_log_that_prints_no_bytes(cucm_lab):
    log = b"""3321 DEB Nov 29 06:33:59.909364 SECUREAPP-==== TVS process request - request byte dump ====, len
= 153
3322 DEB Nov 29 06:33:59.913075 SECUREAPP-TVS Service receives 1480 bytes of data
"""
    done = cucm_lab("decode", "-", stdin=log)
    assert done.returncode == 0
    assert "0 of 153 bytes\n  the log announces these bytes and prints none" in done.stdout


NOT_FOUND = encode_message(QueryCertificateResponse.build(1001, 1, ttl_s=1, pad=0))
XXD = """\
00000000: 5701 0400 0000 03e9 000b 0700 0101 0900  W...............
00000010: 0400 0000 01                             .....
"""
HEXDUMP_C = """\
00000000  57 01 04 00 00 00 03 e9  00 0b 07 00 01 01 09 00  |W...............|
00000010  04 00 00 00 01                                    |.....|
00000015
"""
TCPDUMP = """\
\t0x0000:  5701 0400 0000 03e9 000b 0700 0101 0900  W...............
\t0x0010:  0400 0000 01                             .....
"""
WIRESHARK = """\
0000   57 01 04 00 00 00 03 e9 00 0b 07 00 01 01 09 00   W...............
0010   04 00 00 00 01                                    .....
"""


@pytest.mark.parametrize("text", [XXD, HEXDUMP_C, TCPDUMP, WIRESHARK])
def test_the_output_of_others_tools(text):
    assert [dump.data for dump in find_dumps(f"a dump of a message:\n{text}the end\n")] == [NOT_FOUND]


@pytest.mark.needs("od")
def test_od(tmp_path):
    (tmp_path / "message").write_bytes(encode_message(REQUEST))
    command = ["od", "-A", "x", "-t", "x1", tmp_path / "message"]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert [dump.data for dump in find_dumps(text)] == [encode_message(REQUEST)]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ((0, 0x16), "offset 0, header: discriminator is 16"),
        ((1, 2), "offset 1, header: version is 2"),
        ((2, 9), "offset 2, header: message type 9"),
        ((11, 0xFF), "offset 10, element[0]: tag 1 claims 65304 bytes, but the payload has 140 left"),
        ((9, 0x90), None),  # announces a byte more than there is: cut short, not wrong
        ((9, 0x8E), "offset 131, element[3]: tag 5 claims 19 bytes, but the payload has 18 left"),
        ((13, 0x00), None),
    ],
)
def test_contradictions_are_named_with_offset_and_path(change, problem):
    data = bytearray(encode_message(REQUEST))
    data[change[0]] = change[1]
    explained = explain_messages(bytes(data))[0].problem
    assert explained == problem if problem is None else explained is not None and explained.startswith(problem)


def test_what_only_the_codec_refuses_is_a_problem_too():
    without_serial = bytes.fromhex("57010300000003e90008 030005434e3d6100".replace(" ", ""))
    assert explain_message(without_serial).problem is not None


def test_a_contradiction_is_exit_1(cucm_lab):
    done = cucm_lab("decode", "57 02 03")
    assert done.returncode == 1
    assert "PROBLEM: offset 1, header: version is 2" in done.stdout


def test_bytes_behind_the_message_are_noted():
    explained = explain_messages(encode_message(REQUEST) + b"\0\0\0")
    assert len(explained) == 1
    assert explained[0].notes == ("3 bytes follow the message; they are not another one",)


def test_a_lost_byte_is_not_invented_where_it_mends_nothing(cucm_lab):
    text = "HEX_DUMP: Len = 153:\n57 01 03 00 00 03 e9\n11 11 11 11 11 11 11 11\n22\n"
    done = cucm_lab("decode", stdin=text.encode())
    assert done.returncode == 1
    assert "PROBLEM: offset 8, header" in done.stdout


@pytest.mark.parametrize(
    ("words", "exit_code", "text"),
    [
        (["nothing-like-it"], 2, "neither a file nor hex"),
        (["57", "1"], 0, "2 bytes"),
        (["570"], 2, "a digit is missing"),
        (["."], 2, "this is a directory"),
        (["/dev/zero"], 1, "longer than the 4194304 bytes"),
        (["/dev/null"], 1, "holds no hex dump"),
    ],
)
def test_bad_input(cucm_lab, words, exit_code, text):
    done = cucm_lab("decode", *words)
    assert done.returncode == exit_code
    assert text in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "internal error" not in done.stderr


@given(st.binary(max_size=300), st.none() | st.integers(0, 70_000))
def test_no_bytes_are_too_strange(data, declared):
    for start in (b"", b"\x57\x01\x03", encode_message(REQUEST)[:40]):
        explained = explain_messages(start + data, declared_length=declared)
        assert sum(len(part.data) for part in explained) <= len(start + data)
        assert all(part.problem or part.missing or part.total_length == len(part.data) for part in explained)


@given(st.text(alphabet="0123456789abcdefxX ,:|\n\t-HEX_DUMP: Len = ebug.", max_size=200))
def test_no_text_is_too_strange(text):
    from cucm.errors import LabError

    try:
        dumps = find_dumps(text)
    except LabError:
        return
    for dump in dumps:
        explain_messages(dump.data, declared_length=dump.declared_length)


@pytest.mark.parametrize("version", [b"\x03", b"\x05"])
def test_a_certificate_of_a_version_that_does_not_exist(source, version):
    der = source.identity.certificate_der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01" + version, 1)
    explanation = explain_message(encode_message(QueryCertificateResponse.build(1001, 0, der)))
    assert explanation.fields[-1].meaning == f"{len(der)} bytes that are not a usable certificate"
    assert explanation.problem is None


def test_a_time_to_live_of_any_length():
    """A number of 500 bytes is no float."""
    payload = bytes.fromhex("0700010009") + (500).to_bytes(2) + b"\xff" * 500
    explanation = explain_message(bytes.fromhex("57010200000003e9") + len(payload).to_bytes(2) + payload)
    assert "not the 4 bytes of a number of seconds" in explanation.fields[-1].meaning
    assert "TTL" in (explanation.problem or "")


class CountedList(list):
    """A list that counts how many items are copied out of it."""

    copied = 0

    def __getitem__(self, key):
        found = super().__getitem__(key)
        self.copied += len(found) if isinstance(key, slice) else 0
        return found


@pytest.mark.parametrize("line", ["HEX_DUMP: Len = 1", "zz zz"])
def test_long_texts_are_not_copied_for_every_line(line):
    lines = CountedList([line] * 1000)
    (_announced if "HEX_DUMP" in line else _blocks)(lines)
    assert lines.copied <= len(lines)


class CountedBytes(bytes):
    """Bytes that count how many are copied out of them."""

    copied = 0

    def __getitem__(self, key):
        found = super().__getitem__(key)
        CountedBytes.copied += len(found) if isinstance(key, slice) else 0
        return CountedBytes(found) if isinstance(key, slice) else found


def test_many_messages_are_not_copied_for_every_message():
    message = encode_message(VerifyResponse.build(1001, 0))
    data = CountedBytes(message * 20_000)
    CountedBytes.copied = 0
    assert len(explain_messages(data)) == 20_000
    assert CountedBytes.copied < 20 * len(data)
