from __future__ import annotations

import errno
import socket

import pytest

from phone_agent.network_trouble import words_of


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed ('127.0.0.1', 2445)"), "connection refused"),
        (ConnectionResetError(errno.ECONNRESET, "reset by peer"), "the connection was reset"),
        (BrokenPipeError(), "the connection was reset"),
        (OSError(errno.EHOSTUNREACH, "Connect call failed"), "no route to it"),
        (
            TimeoutError("127.0.0.1 port 2445 does not answer within 5 s"),
            "127.0.0.1 port 2445 does not answer within 5 s",
        ),
        (TimeoutError(), "TimeoutError"),
        (OSError(errno.EADDRNOTAVAIL, "no such address"), f"[Errno {errno.EADDRNOTAVAIL}] no such address"),
        (socket.gaierror("not a host name"), "not a host name"),
    ],
)
def test_each_kind_has_its_words(error: Exception, words: str) -> None:
    assert words_of(error) == words
