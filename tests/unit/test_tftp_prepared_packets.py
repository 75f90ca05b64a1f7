"""Files as packets: prepared ones are shared, large ones are cut as they go, and all say the same."""

from __future__ import annotations

import hashlib

import pytest

from tftp_server.packets import encode_data
from tftp_server.prepared_packets import (
    MAX_PREPARED_BYTES,
    MAX_PREPARED_PACKETS,
    LargeFile,
    Packets,
    PreparedFiles,
    WholeFile,
)


def blocks_of(file: Packets) -> list[bytes]:
    return [file.packets[index] for index in range(file.count)]


@pytest.mark.parametrize("kind", [WholeFile, LargeFile])
@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 300_000])
def test_every_block_and_the_digest(kind: type[WholeFile | LargeFile], size: int) -> None:
    data = bytes(number % 251 for number in range(size))
    file = kind(data, 512)
    assert file.count == size // 512 + 1
    assert blocks_of(file) == [
        encode_data(number + 1, data[number * 512 : number * 512 + 512]) for number in range(file.count)
    ]
    assert file.digest() == hashlib.sha256(data).hexdigest()


def test_a_large_file_may_be_taken_again_from_an_earlier_block() -> None:
    data = bytes(200_000)
    file = LargeFile(data, 512)
    for index in (*range(300), *range(250, file.count)):
        assert file.packets[index][4:] == data[index * 512 : index * 512 + 512]
    assert file.digest() == hashlib.sha256(data).hexdigest()


def test_equal_contents_of_one_block_size_share_their_packets() -> None:
    files = PreparedFiles()
    first = files.packets(b"content" * 100, 512)
    assert files.packets(bytes(bytearray(b"content" * 100)), 512) is first
    assert files.packets(b"content" * 100, 128) is not first


def test_the_files_used_last_are_kept_within_bounds() -> None:
    weight = WholeFile(bytes(1000), 512).weight
    files = PreparedFiles(2 * weight)
    contents = [bytes([number]) * 1000 for number in range(3)]
    one, two = (files.packets(content, 512) for content in contents[:2])
    assert files.packets(contents[0], 512) is one
    files.packets(contents[2], 512)
    assert files.packets(contents[0], 512) is one
    assert files.packets(contents[1], 512) is not two


@pytest.mark.parametrize(("size", "block_size"), [(MAX_PREPARED_BYTES + 1, 8192), (8 * MAX_PREPARED_PACKETS, 8)])
def test_what_is_too_large_is_not_prepared(size: int, block_size: int) -> None:
    files = PreparedFiles()
    assert isinstance(files.packets(bytes(size), block_size), LargeFile)
    assert isinstance(files.packets(bytes(min(size, MAX_PREPARED_BYTES) - block_size), block_size), WholeFile)
