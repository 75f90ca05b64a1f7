"""Every decoder against bytes of all kinds; the same in every run."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import NOT_TARGETS, TARGETS, Target, check

ROOT = Path(__file__).parents[2]
PACKAGES = ("cucm", "tvs_server", "tftp_server", "phone_agent", "lab")
BY_NAME = {target.name: target for target in TARGETS}
FEW = settings(
    max_examples=150, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


@st.composite
def inputs(draw: st.DrawFn, target: Target) -> bytes:
    """Bytes from scratch, or a seed that was changed a few times."""
    if draw(st.integers(0, 4)) == 0:
        return draw(st.binary(max_size=300))
    data = bytearray(draw(st.sampled_from(target.seeds())))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        match draw(st.integers(0, 6)):
            case 0:  # flip
                if data:
                    data[at] ^= 1 << draw(st.integers(0, 7))
            case 1:  # cut
                del data[at:]
            case 2:  # splice
                data[at:at] = draw(st.binary(max_size=20))
            case 3:  # repeat a piece
                data[at:at] = data[at : at + draw(st.integers(1, 64))] * draw(st.integers(1, 20))
            case 4:  # a length field, perhaps
                data[at : at + 2] = draw(st.sampled_from([b"\0\0", b"\xff\xff", b"\x7f\xff", b"\0\1", b"\x80\0"]))
            case 5:  # leave a piece out
                del data[at : at + draw(st.integers(1, 32))]
            case _:  # a byte that means something in text
                data[at:at] = draw(st.sampled_from([b'"', b"{", b"[", b"<", b"&", b"\0", b"\r\n\r\n", b"%", b"\xff"]))
    return bytes(data)


@pytest.mark.parametrize("name", BY_NAME)
def test_documented_errors_only(name: str) -> None:
    target = BY_NAME[name]

    @FEW
    @given(inputs(target))
    def run(data: bytes) -> None:
        check(target, data)

    run()


@pytest.mark.parametrize("name", BY_NAME)
def test_seeds_are_read_or_refused_in_words(name: str) -> None:
    target = BY_NAME[name]
    for seed in target.seeds():
        check(target, seed)
        for end in range(0, len(seed), max(1, len(seed) // 40)):
            check(target, seed[:end])


def test_every_decoder_is_a_target() -> None:
    covered = {name for target in TARGETS for name in (target.name, *target.covers)}
    found = set()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.FunctionDef) and node.name.startswith(("decode_", "read_", "parse_")):
                    found.add(f"{module}.{node.name}")
    assert found - covered - set(NOT_TARGETS) == set(), "add a target, or say in NOT_TARGETS why there is none"
    assert set(NOT_TARGETS) <= found
