"""A file as the DATA packets of a transfer: cut once for all transfers of a small file, one by one for a large one."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Final, Protocol

from tftp_server.packets import encode_data

MAX_PREPARED_PACKETS: Final = 512
"""More would cost the loop milliseconds for a small request, and each with another block size has them cut anew."""
MAX_PREPARED_BYTES: Final = 2 * 1024 * 1024
"""Larger files than a phone takes (facts 3.5), and those of more packets, are cut as they go."""
MAX_CACHE_BYTES: Final = 32 * 1024 * 1024
PACKET_BYTES: Final = 64
"""What a packet costs in memory besides the file's bytes, about."""
_HASH_STEP: Final = 64 * 1024


class Indexed(Protocol):
    def __getitem__(self, index: int, /) -> bytes: ...


class Packets(Protocol):
    """`packets[n]` is the DATA packet of block n+1; `count` of them carry the file."""

    @property
    def count(self) -> int: ...

    @property
    def packets(self) -> Indexed: ...

    def digest(self) -> str:
        """SHA-256 of the file in hex; meant to be asked when the last packet was taken."""


class WholeFile:
    """All packets of a file, in memory; they may be shared."""

    __slots__ = ("_data", "_digest", "count", "packets")

    def __init__(self, data: bytes, block_size: int) -> None:
        blocks = range(len(data) // block_size + 1)
        self._data = data
        self._digest = ""
        self.count = len(blocks)
        self.packets = tuple(
            encode_data(block + 1, data[block * block_size : (block + 1) * block_size]) for block in blocks
        )

    @property
    def weight(self) -> int:
        """Bytes of memory, about: the file, which is the key too, and its copy in the packets."""
        return 2 * len(self._data) + PACKET_BYTES * self.count

    def digest(self) -> str:
        self._digest = self._digest or hashlib.sha256(self._data).hexdigest()
        return self._digest


class LargeFile:
    """The packets of one transfer of a file that is too large to prepare.

    The digest is made along with the packets, so that no file, however large, holds the event loop for long.
    """

    def __init__(self, data: bytes, block_size: int) -> None:
        self._data = memoryview(data)
        self._block_size = block_size
        self._hash = hashlib.sha256()
        self._hashed = 0
        self.count = len(data) // block_size + 1

    @property
    def packets(self) -> LargeFile:
        return self

    def __getitem__(self, index: int) -> bytes:
        start = index * self._block_size
        if start - self._hashed >= _HASH_STEP:
            self._hash_until(start)
        return encode_data(index + 1, self._data[start : start + self._block_size])

    def digest(self) -> str:
        self._hash_until(len(self._data))
        return self._hash.hexdigest()

    def _hash_until(self, end: int) -> None:
        self._hash.update(self._data[self._hashed : end])
        self._hashed = end


class PreparedFiles:
    """Files ready to be sent, the ones used last, in bounded memory.

    The trick: hundreds of phones ask for the same content, so it is cut, and its digest made, once for each block
    size; a block of a transfer is then a look into a tuple. The key is the content itself: its hash is kept by Python
    in the bytes object that a store hands out again and again.
    """

    def __init__(self, max_bytes: int = MAX_CACHE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._files: OrderedDict[tuple[bytes, int], WholeFile] = OrderedDict()
        self._bytes = 0

    def packets(self, data: bytes, block_size: int) -> Packets:
        if len(data) > MAX_PREPARED_BYTES or len(data) >= MAX_PREPARED_PACKETS * block_size:
            return LargeFile(data, block_size)
        key = data, block_size
        known = self._files.get(key)
        if known is None:
            known = WholeFile(data, block_size)
            self._keep(key, known)
        else:
            self._files.move_to_end(key)
        return known

    def _keep(self, key: tuple[bytes, int], file: WholeFile) -> None:
        self._files[key] = file
        self._bytes += file.weight
        while self._bytes > self._max_bytes and len(self._files) > 1:
            _, forgotten = self._files.popitem(last=False)
            self._bytes -= forgotten.weight
