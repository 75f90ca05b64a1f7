"""Checks the vectors beside this script with arithmetic of its own: it imports nothing of the project.

    python tests/vectors/check_vectors.py

Exit code 0 when every sum closes, 1 with the first one that does not.
"""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path

HERE = Path(__file__).parent
ELEMENT_HEAD = 3


def load(name: str) -> dict:
    return json.loads((HERE / name).read_text(encoding="utf-8"))


def expect(what: str, actual: object, expected: object) -> None:
    if actual != expected:
        sys.exit(f"{what}: {actual!r} instead of {expected!r}")


def element(tag: int, value: bytes) -> bytes:
    return struct.pack(">BH", tag, len(value)) + value


def check_request(vector: dict) -> None:
    published = bytes.fromhex(vector["hex"])
    known = element(1, b"\x01" + vector["device_name"].encode()) + element(3, vector["subject"].encode() + b"\0")
    # the tags of issuer and serial are unknown, their lengths are not
    rest = ELEMENT_HEAD + len(vector["issuer"]) + 1 + ELEMENT_HEAD + len(bytes.fromhex(vector["serial"]))
    header = struct.pack(">BBBxIH", 0x57, 1, 3, vector["session_id"], len(known) + rest)
    expect("request, published bytes", (header + known)[: len(published)], published)
    expect("request, payload", len(known) + rest, vector["payload_length"])
    expect("request, total", len(header + known) + rest, vector["total_length"])


def check_response(vector: dict, request: dict) -> None:
    published, tail = bytes.fromhex(vector["hex"]), bytes.fromhex(vector["tail_hex"])
    expect("response, tail", tail, element(8, bytes([0, 3])) + element(9, struct.pack(">I", 86400)))
    payload = len(element(7, b"\0")) + ELEMENT_HEAD + vector["certificate_length"] + len(tail)
    expect("response, payload", payload, vector["payload_length"])
    expect("response, total", 10 + payload, vector["total_length"])
    header = struct.pack(">BBBBIH", 0x57, 1, 4, 0xF7, vector["session_id"], payload)
    head = header + element(7, b"\0") + struct.pack(">BH", 2, vector["certificate_length"])
    expect("response, published head", published[: len(head)], head)
    der = published[len(head) :]
    expect("certificate, DER length", struct.unpack(">H", der[2:4])[0] + 4, vector["certificate_length"])
    serial = bytes.fromhex(request["serial"])
    at = der.index(bytes([2, len(serial)])) + 2
    expect("certificate, serial as in the request", der[at:], serial[: len(der) - at])


def record_length(shape: dict) -> int:
    values = [size for name, size in shape.items() if name not in ("length", "function")]
    return (ELEMENT_HEAD + 2) + (ELEMENT_HEAD + 2) + sum(ELEMENT_HEAD + size for size in values)


def header_length(shape: dict) -> int:
    signer = sum(ELEMENT_HEAD + size for size in shape["signer"].values())
    algorithm = 2 * (ELEMENT_HEAD + 1)
    info = (ELEMENT_HEAD + 1) + (ELEMENT_HEAD + algorithm)
    file_name, timestamp = len("CTLFile.tlv") + 1, 4
    values = [2, 2, signer, info, shape["signature"], file_name, timestamp]
    unpadded = sum(ELEMENT_HEAD + size for size in values)
    return unpadded + -unpadded % 4


def check_shape(name: str, shape: dict, published: dict | None) -> None:
    lengths = [record_length(record) for record in shape["records"]]
    expect(f"{name}, records", lengths, [record["length"] for record in shape["records"]])
    expect(f"{name}, header", header_length(shape), shape["header_length"])
    expect(f"{name}, file", header_length(shape) + sum(lengths), shape["file_length"])
    if published is not None:
        expect(f"{name}, records as published", lengths, published["records"])
        expect(f"{name}, header as published", header_length(shape), published["header"])
        expect(f"{name}, file as published", shape["file_length"], published["file"])


def main() -> None:
    vectors, shapes = load("vectors.json"), load("trust_list_shapes.json")["files"]
    request = vectors["tvs_query_certificate_request_first_50_bytes"]
    check_request(request)
    check_response(vectors["tvs_query_certificate_response_first_50_bytes"], request)
    for name, shape in shapes.items():
        check_shape(name, shape, vectors["trust_list_lengths"].get(name))
    print(f"2 messages and {len(shapes)} files: every sum closes")


if __name__ == "__main__":
    main()
