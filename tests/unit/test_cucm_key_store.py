from __future__ import annotations

import multiprocessing
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from cucm.errors import EnvironmentProblem, UsageError
from cucm.key_store import CACHE_VARIABLE, KeyStore, default_directory, load_private_key, private_key_der

CURVE = "secp256r1"  # made in no time


def file_of(directory: Path) -> Path:
    (path,) = directory.glob("*.key")
    return path


def test_a_second_store_makes_nothing(tmp_path: Path) -> None:
    first, second = KeyStore(tmp_path), KeyStore(tmp_path)
    made = private_key_der(first.key("CallManager ucm11pub", 1024))
    assert private_key_der(second.key("CallManager ucm11pub", 1024)) == made
    assert (first.generated, second.generated) == (1, 0)
    assert private_key_der(first.key("CallManager ucm11pub", 1024)) == made


def test_labels_and_kinds_have_keys_of_their_own(tmp_path: Path) -> None:
    store = KeyStore(tmp_path)
    keys = [store.key("a", CURVE), store.key("b", CURVE), store.key("a", "secp384r1"), store.key("a", 1024)]
    assert len({private_key_der(key) for key in keys}) == 4
    assert isinstance(keys[2], ec.EllipticCurvePrivateKey)
    assert keys[2].curve.name == "secp384r1"
    assert isinstance(keys[3], rsa.RSAPrivateKey)
    assert keys[3].key_size == 1024


def test_nobody_else_may_read(tmp_path: Path) -> None:
    store = KeyStore(tmp_path / "deep" / "keys")
    store.key("a", CURVE)
    assert stat.S_IMODE(store.directory.stat().st_mode) == 0o700
    for path in store.directory.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_directory_with_other_things_in_it_is_not_closed_to_others(tmp_path: Path) -> None:
    """CUCM_LAB_CACHE=/tmp, by root, must not take /tmp from everybody."""
    own, shared = tmp_path / "own", tmp_path / "shared"
    for directory in (own, shared):
        directory.mkdir()
        directory.chmod(0o755)
    (shared / "letter.txt").touch()
    for directory in (own, shared):
        KeyStore(directory).key("a", CURVE)
        assert stat.S_IMODE(file_of(directory).stat().st_mode) == 0o600
    assert [stat.S_IMODE(directory.stat().st_mode) for directory in (own, shared)] == [0o700, 0o755]


def test_a_file_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    KeyStore(tmp_path).key("a", CURVE)
    file_of(tmp_path).chmod(0o644)
    KeyStore(tmp_path).key("a", CURVE)
    assert stat.S_IMODE(file_of(tmp_path).stat().st_mode) == 0o600


@pytest.mark.parametrize("label", ["../../etc/passwd", "a/b", ".hidden", "", "ü" * 500, "line\nbreak", "a" * 5000])
def test_any_label_is_one_file_in_the_directory(tmp_path: Path, label: str) -> None:
    KeyStore(tmp_path / "keys").key(label, CURVE)
    assert len(list((tmp_path / "keys").glob("*.key"))) == 1
    assert list(tmp_path.iterdir()) == [tmp_path / "keys"]


def test_labels_that_read_alike_stay_apart(tmp_path: Path) -> None:
    store = KeyStore(tmp_path)
    assert private_key_der(store.key("a b", CURVE)) != private_key_der(store.key("a_b", CURVE))


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "other kind", "no key"])
def test_a_damaged_file_is_made_anew(tmp_path: Path, damage: str) -> None:
    before = private_key_der(KeyStore(tmp_path).key("a", CURVE))
    path = file_of(tmp_path)
    data = path.read_bytes()
    other = KeyStore(tmp_path / "other")
    other.key("a", "secp384r1")
    damaged = {
        "empty": b"",
        "cut": data[:-1],
        "flipped": data[:-40] + bytes([data[-40] ^ 1]) + data[-39:],
        "other kind": file_of(tmp_path / "other").read_bytes(),
        "no key": b"hello\n" * 99,
    }
    path.write_bytes(damaged[damage])
    store = KeyStore(tmp_path)
    after = private_key_der(store.key("a", CURVE))
    assert store.generated == 1
    assert after != before
    assert private_key_der(KeyStore(tmp_path).key("a", CURVE)) == after
    assert not list(tmp_path.glob(".new-*"))


def make_in_process(directory: Path, barrier: Any, results: Any) -> None:
    store = KeyStore(directory)
    barrier.wait(30)
    results.put((private_key_der(store.key("shared", 1024)), store.generated))


def test_two_processes_end_with_the_same_key(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    makers = [context.Process(target=make_in_process, args=(tmp_path, barrier, results)) for _ in range(2)]
    for maker in makers:
        maker.start()
    answers = [results.get(timeout=60) for _ in makers]
    for maker in makers:
        maker.join(30)
        maker.close()
    results.close()
    results.join_thread()
    assert len({key for key, _ in answers}) == 1
    assert sorted(made for _, made in answers) == [0, 1]


def test_threads_with_stores_of_their_own_end_with_the_same_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: private_key_der(KeyStore(tmp_path).key("shared", CURVE)), range(32)))
    assert len(set(made)) == 1


@pytest.mark.parametrize("kind", [512, 2047, 16384, 0, -1, "secp256k1", "", "rsa"])
def test_kinds_that_do_not_exist(tmp_path: Path, kind: int | str) -> None:
    with pytest.raises(UsageError, match="no such kind") as caught:
        KeyStore(tmp_path).key("a", kind)
    assert "2048" in str(caught.value.mend)


def test_a_directory_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(EnvironmentProblem) as caught:
        KeyStore(tmp_path / "file" / "keys").key("a", CURVE)
    assert CACHE_VARIABLE in str(caught.value.mend)


def test_the_environment_names_the_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    assert KeyStore().directory == tmp_path
    monkeypatch.delenv(CACHE_VARIABLE)
    assert default_directory().parts[-2:] == ("cucm-migration-lab", "keys")


def test_a_store_does_not_show_its_keys(tmp_path: Path) -> None:
    store = KeyStore(tmp_path)
    key = store.key("a", CURVE)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    secret = key.private_numbers().private_value
    assert repr(store) == f"KeyStore({str(tmp_path)!r})"
    assert str(secret) not in repr(store) + str(key)


def test_loading_keys_of_others() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    assert private_key_der(load_private_key(private_key_der(key))) == private_key_der(key)
    locked = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    edwards = ed25519.Ed25519PrivateKey.generate().private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    for useless in (locked, edwards, b"", b"-----BEGIN"):
        with pytest.raises(UsageError):
            load_private_key(useless)


def test_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cucm.key_store.MAX_LOADED", 2)
    store = KeyStore(tmp_path)
    first = store.key("first", "secp256r1")
    for label in ("second", "first", "third"):
        store.key(label, "secp256r1")
    assert store.key("first", "secp256r1") is first
    assert {label for label, _ in store._loaded} == {"first", "third"}
    store.key("second", "secp256r1")
    assert store.generated == 3


@pytest.mark.parametrize("tells_cores", [True, False], ids=["Linux", "macOS"])
def test_keys_that_are_prepared_are_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tells_cores: bool
) -> None:
    if not tells_cores:
        monkeypatch.delattr(os, "sched_getaffinity")
    store = KeyStore(tmp_path)
    wanted = [("a", CURVE), ("b", CURVE), ("a", CURVE), ("c", 1024)]
    store.prepare(wanted)
    store.prepare(wanted)
    made = {label: private_key_der(store.key(label, kind)) for label, kind in wanted}
    assert store.generated == 3
    again = KeyStore(tmp_path)
    again.prepare(wanted)
    assert {label: private_key_der(again.key(label, kind)) for label, kind in wanted} == made
    assert again.generated == 0


def test_what_goes_wrong_in_preparing_is_told_to_whom_wants_the_key(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    store = KeyStore(tmp_path / "file" / "keys")
    store.prepare([("a", CURVE)])
    with pytest.raises(EnvironmentProblem):
        store.key("a", CURVE)
