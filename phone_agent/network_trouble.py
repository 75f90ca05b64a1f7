"""Network errors in words that say how they differ: refused at once, reset, or no answer at all."""

from __future__ import annotations

import errno
from typing import Final

REFUSED: Final = "connection refused"
RESET: Final = "the connection was reset"
NO_ROUTE: Final = "no route to it"
_NO_ROUTE: Final = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN})


def words_of(error: Exception) -> str:
    """For an OSError that came of a connection; asyncio words them all as `Connect call failed`."""
    match error:
        case ConnectionRefusedError():
            return REFUSED
        case ConnectionResetError() | BrokenPipeError():
            return RESET
        case OSError(errno=number) if number in _NO_ROUTE:
            return NO_ROUTE
        case _:
            return str(error) or type(error).__name__
