from __future__ import annotations

import json
from collections.abc import Callable
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cucm.errors import DecodeError, EncodeError, LimitExceeded
from cucm.wire.cursor import MAX_ELEMENTS
from cucm.wire.tvs import (
    MAX_PAYLOAD,
    RESPONSE_PAD,
    STATUS_NOT_FOUND,
    STATUS_OK,
    Element,
    MessageType,
    QueryCertificateRequest,
    QueryCertificateResponse,
    TvsMessage,
    VerifyRequest,
    VerifyResponse,
    decode_message,
    encode_message,
)

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "vectors.json").read_text())
REQUEST = VECTORS["tvs_query_certificate_request_first_50_bytes"]
RESPONSE = VECTORS["tvs_query_certificate_response_first_50_bytes"]
SERIAL = bytes.fromhex(REQUEST["serial"])
# the beginning of the published certificate, brought to its published length
CERTIFICATE = bytes.fromhex(RESPONSE["hex"])[17:].ljust(RESPONSE["certificate_length"], b"\x5a")
DEVICE = Element(1, b"\x01CP-8861-SEPB000B4BA0AEE")
SUBJECT = Element(3, b"CN=ucm11pub\0")
ISSUER_TEXT = b"CN=stormin-WIN2012-CA\0"


def query() -> QueryCertificateRequest:
    return QueryCertificateRequest.build(
        REQUEST["session_id"], REQUEST["device_name"], REQUEST["subject"], REQUEST["issuer"], SERIAL
    )


def answer() -> QueryCertificateResponse:
    return QueryCertificateResponse.build(RESPONSE["session_id"], STATUS_OK, CERTIFICATE, (0, 3), 86400)


MESSAGES: list[TvsMessage] = [
    query(),
    answer(),
    QueryCertificateResponse.build(1, STATUS_NOT_FOUND, pad=0),
    VerifyRequest.build(1002, "CP-7975-SEP000000000000", CERTIFICATE),
    VerifyResponse.build(1002, STATUS_OK, (7,), 86400),
    VerifyResponse.build(1002, STATUS_NOT_FOUND),
]


def raw(message_type: int, *elements: Element, session_id: int = 1) -> bytes:
    """A message put together without the codec."""
    payload = b"".join(bytes([e.tag]) + len(e.value).to_bytes(2, "big") + e.value for e in elements)
    head = bytes([0x57, 1, message_type, 0]) + session_id.to_bytes(4, "big")
    return head + len(payload).to_bytes(2, "big") + payload


def error_of(data: bytes) -> tuple[int, str]:
    with pytest.raises(DecodeError) as caught:
        decode_message(data)
    return caught.value.offset, caught.value.path


def test_the_seeds_query() -> None:
    data = encode_message(query())
    published = bytes.fromhex(REQUEST["hex"])
    assert len(published) == 50
    assert len(data) == REQUEST["total_length"] == 153
    assert data.startswith(published)
    assert decode_message(data) == query()


def test_the_seeds_answer() -> None:
    data = encode_message(answer())
    assert len(data) == RESPONSE["total_length"] == 1480
    assert data.startswith(bytes.fromhex(RESPONSE["hex"]))
    assert data.endswith(bytes.fromhex(RESPONSE["tail_hex"]))
    decoded = decode_message(data)
    assert isinstance(decoded, QueryCertificateResponse)
    assert (decoded.status, decoded.roles, decoded.ttl_s) == (STATUS_OK, (0, 3), 86400)
    assert decoded.certificate == CERTIFICATE
    assert decoded.session_id == 1001


def test_properties_of_a_query() -> None:
    decoded = decode_message(encode_message(query()))
    assert isinstance(decoded, QueryCertificateRequest)
    assert decoded.device_name == REQUEST["device_name"]
    assert decoded.subject == REQUEST["subject"]
    assert decoded.issuer == REQUEST["issuer"]
    assert decoded.serial == SERIAL


def test_properties_of_verify() -> None:
    request = decode_message(encode_message(VerifyRequest.build(1002, "CP-7975-SEP000000000000", CERTIFICATE)))
    assert isinstance(request, VerifyRequest)
    assert (request.device_name, request.certificate) == ("CP-7975-SEP000000000000", CERTIFICATE)
    response = decode_message(encode_message(VerifyResponse.build(1002, STATUS_OK, (7, 2), 60)))
    assert isinstance(response, VerifyResponse)
    assert (response.status, response.roles, response.ttl_s) == (0, (7, 2), 60)


def test_not_found_is_the_status_alone() -> None:
    for message in (VerifyResponse.build(1, STATUS_NOT_FOUND), QueryCertificateResponse.build(1, STATUS_NOT_FOUND)):
        data = encode_message(message)
        assert data[10:] == b"\x07\x00\x01\x01"
        decoded = decode_message(data)
        assert isinstance(decoded, VerifyResponse | QueryCertificateResponse)
        assert (decoded.status, decoded.roles, decoded.ttl_s) == (1, (), None)


def test_a_missing_certificate_is_none() -> None:
    assert QueryCertificateResponse.build(1, STATUS_NOT_FOUND).certificate is None


def test_log_names() -> None:
    assert [t.log_name for t in MessageType] == [
        "TVS_MSG_CERT_VERIFICATION_REQ",
        "TVS_MSG_CERT_VERIFICATION_RES",
        "TVS_MSG_QUERY_CERT_REQ",
        "TVS_MSG_QUERY_CERT_RES",
    ]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: m.type.name)
def test_round_trip(message: TvsMessage) -> None:
    assert decode_message(encode_message(message)) == message


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: m.type.name)
def test_cut_anywhere_and_with_bytes_behind(message: TvsMessage) -> None:
    data = encode_message(message)
    for end in range(len(data)):
        assert error_of(data[:end])[0] == end
    assert error_of(data + b"\0")[0] == len(data)
    assert error_of(data + data)[0] == len(data)


@pytest.mark.parametrize("pad", [0, RESPONSE_PAD, 255])
def test_the_pad_byte_means_nothing_and_is_kept(pad: int) -> None:
    data = bytearray(encode_message(query()))
    data[3] = pad
    decoded = decode_message(bytes(data))
    assert isinstance(decoded, QueryCertificateRequest)
    assert (decoded.issuer, decoded.serial) == (query().issuer, query().serial)
    assert encode_message(decoded) == bytes(data)


@pytest.mark.parametrize(("issuer_tag", "serial_tag"), list(permutations((4, 5, 6), 2)))
@pytest.mark.parametrize("issuer_first", [True, False])
def test_issuer_and_serial_under_any_of_three_tags(issuer_tag: int, serial_tag: int, issuer_first: bool) -> None:
    pair = [Element(issuer_tag, ISSUER_TEXT), Element(serial_tag, SERIAL)]
    data = raw(3, DEVICE, SUBJECT, *(pair if issuer_first else reversed(pair)))
    decoded = decode_message(data)
    assert isinstance(decoded, QueryCertificateRequest)
    assert (decoded.issuer, decoded.serial) == ("CN=stormin-WIN2012-CA", SERIAL)
    assert encode_message(decoded) == data


def test_a_serial_that_looks_like_text_is_told_by_the_tags() -> None:
    decoded = decode_message(raw(3, DEVICE, SUBJECT, Element(5, ISSUER_TEXT), Element(6, b"AB\0")))
    assert isinstance(decoded, QueryCertificateRequest)
    assert (decoded.issuer, decoded.serial) == ("CN=stormin-WIN2012-CA", b"AB\0")


def test_all_three_tags_at_once() -> None:
    issuer, serial, other = (Element(5, ISSUER_TEXT), Element(6, SERIAL), Element(4, b"\x01\x02"))
    decoded = decode_message(raw(3, DEVICE, SUBJECT, other, issuer, serial))
    assert isinstance(decoded, QueryCertificateRequest)
    assert (decoded.issuer, decoded.serial) == ("CN=stormin-WIN2012-CA", SERIAL)


def test_an_issuer_without_its_nul_goes_by_the_tags() -> None:
    decoded = decode_message(raw(3, DEVICE, SUBJECT, Element(4, b"CN=x"), Element(5, b"\x01\x02")))
    assert isinstance(decoded, QueryCertificateRequest)
    assert (decoded.issuer, decoded.serial) == ("CN=x", b"\x01\x02")


def test_unknown_elements_survive() -> None:
    unknown = (Element(99, b"?"), Element(0, b""), Element(99, b"again"), Element(13, b"\r"))
    data = raw(4, Element(7, b"\0"), *unknown, Element(9, b"\0\0\0\1"))
    decoded = decode_message(data)
    assert isinstance(decoded, QueryCertificateResponse)
    assert (decoded.status, decoded.ttl_s) == (0, 1)
    assert decoded.elements[1:5] == unknown
    assert encode_message(decoded) == data


SOME_VALUES = st.sampled_from(
    [DEVICE.value, SUBJECT.value, ISSUER_TEXT, SERIAL, b"", b"\0", b"a", b"a\0", b"\x01b\0", b"\xe9\0", b"a\0b\0"]
)


@given(
    st.one_of(
        st.permutations([DEVICE, SUBJECT, Element(4, ISSUER_TEXT), Element(5, SERIAL)]),
        st.tuples(*(st.builds(Element, st.just(tag), SOME_VALUES) for tag in (1, 3, 4, 5))),
        st.lists(st.builds(Element, st.integers(1, 9), SOME_VALUES), min_size=3, max_size=5),
    )
)
def test_what_is_asked_is_what_the_properties_say(elements: list[Element]) -> None:
    request = QueryCertificateRequest(1, 0, 1, tuple(elements))

    def by_properties() -> object:
        return request.device_name, request.subject, request.issuer, request.serial

    assert told(request.asked) == told(by_properties)


def told(ask: Callable[[], object]) -> object:
    try:
        return ask()
    except DecodeError as error:
        return str(error)


def test_any_order_of_elements_is_read() -> None:
    decoded = decode_message(raw(2, Element(9, b"\0\0\0\1"), Element(8, b"\x15"), Element(7, b"\0")))
    assert isinstance(decoded, VerifyResponse)
    assert (decoded.status, decoded.roles, decoded.ttl_s) == (0, (21,), 1)


PREFIX = "QUERY_CERTIFICATE_"


@pytest.mark.parametrize(
    ("data", "offset", "path"),
    [
        (b"", 0, "header"),
        (b"GET / HTTP/1.1\r\n", 0, "header.discriminator"),
        (b"\x57\x02", 1, "header.version"),
        (b"\x57\x01\x05", 2, "header.type"),
        (b"\x57\x01\x00", 2, "header.type"),
        (raw(4, Element(7, b"")), 13, PREFIX + "RESPONSE.STATUS"),
        (raw(4, Element(8, b"\0")), 10, PREFIX + "RESPONSE.STATUS"),
        (raw(4, Element(7, b"\0"), Element(9, b"\0\0\1")), 17, PREFIX + "RESPONSE.TTL"),
        (raw(4, Element(7, b"\0"), Element(7, b"\1")), 14, PREFIX + "RESPONSE.STATUS"),
        (raw(3, SUBJECT, Element(4, ISSUER_TEXT), Element(5, SERIAL)), 10, PREFIX + "REQUEST.DEVICE_NAME"),
        (raw(3, Element(1, b""), SUBJECT), 13, PREFIX + "REQUEST.DEVICE_NAME"),
        (raw(3, DEVICE, Element(3, b"CN=a\0b\0")), 40, PREFIX + "REQUEST.SUBJECT"),
        (raw(3, DEVICE, SUBJECT), 10, PREFIX + "REQUEST.ISSUER"),
        (raw(3, DEVICE, SUBJECT, Element(4, ISSUER_TEXT)), 10, PREFIX + "REQUEST.SERIAL"),
        (raw(3, DEVICE, SUBJECT, Element(5, SERIAL)), 10, PREFIX + "REQUEST.ISSUER"),
        (raw(3, DEVICE, SUBJECT, Element(4, b"a\0b"), Element(5, b"\1")), 55, PREFIX + "REQUEST.ISSUER"),
        (raw(1, DEVICE), 10, "VERIFY_REQUEST.CERTIFICATE"),
        (raw(4, Element(7, b"\0"))[:-1] + b"\x05\x00\x07", 14, "payload"),
    ],
)
def test_errors_carry_offset_and_path(data: bytes, offset: int, path: str) -> None:
    assert error_of(data) == (offset, path)


def test_an_element_may_not_reach_beyond_the_payload() -> None:
    data = bytearray(raw(4, Element(7, b"\0"), Element(2, b"abc")))
    data[16] = 4
    assert error_of(bytes(data)) == (15, "QUERY_CERTIFICATE_RESPONSE.CERTIFICATE")


def test_too_many_elements() -> None:
    with pytest.raises(LimitExceeded):
        decode_message(raw(2, Element(7, b"\0"), *[Element(99, b"")] * MAX_ELEMENTS))


def test_wrong_messages_can_be_encoded_on_purpose() -> None:
    assert encode_message(QueryCertificateResponse(1, 0xAB, 9, ()))[:4] == b"\x57\x09\x04\xab"
    twice = VerifyResponse(1, 0, 1, (Element(7, b"\0\0"), Element(7, b"")))
    assert encode_message(twice)[10:] == b"\x07\x00\x02\x00\x00\x07\x00\x00"


def test_properties_of_a_raw_message_raise_only_decode_errors() -> None:
    message = QueryCertificateRequest(1, 0, 1, (Element(3, b"a\0b"), Element(1, b"")))
    for name, offset in (("subject", 13), ("device_name", 19), ("issuer", 10), ("serial", 10)):
        with pytest.raises(DecodeError) as caught:
            getattr(message, name)
        assert caught.value.offset == offset


@pytest.mark.parametrize(
    "values",
    [
        {"session_id": -1},
        {"session_id": 1 << 32},
        {"pad": 256},
        {"version": 256},
        {"elements": (Element(2, bytes(MAX_PAYLOAD + 1)),)},
        {"elements": (Element(2, bytes(40000)), Element(2, bytes(40000)))},
        {"elements": (Element(256, b""),)},
    ],
)
def test_values_that_do_not_fit(values: dict[str, object]) -> None:
    fields: dict[str, object] = {"session_id": 1, "pad": 0, "version": 1, "elements": ()}
    with pytest.raises(EncodeError):
        encode_message(VerifyResponse(**(fields | values)))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["a\0", "Ł"])
def test_names_that_do_not_fit(name: str) -> None:
    for names in ((name, "s", "i"), ("d", name, "i"), ("d", "s", name)):
        with pytest.raises(EncodeError):
            QueryCertificateRequest.build(1, *names, b"\1")
    with pytest.raises(EncodeError):
        VerifyRequest.build(1, name, b"")


@pytest.mark.parametrize(("status", "roles", "ttl_s"), [(256, None, None), (0, (256,), None), (0, None, 1 << 32)])
def test_numbers_that_do_not_fit(status: int, roles: tuple[int, ...] | None, ttl_s: int | None) -> None:
    with pytest.raises(EncodeError):
        VerifyResponse.build(1, status, roles, ttl_s)
