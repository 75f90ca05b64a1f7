"""`@on_both_loops`: run an async test on asyncio's event loop and on uvloop's."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


def on_both_loops(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*, loop_name: str, **arguments: Any) -> None:
        with asyncio.Runner(loop_factory=LOOPS[loop_name]) as runner:
            runner.run(test(**arguments))
        gc.collect()  # what was left open is told of here, and not during another test

    own = inspect.signature(test)
    loop_name = inspect.Parameter("loop_name", inspect.Parameter.KEYWORD_ONLY)
    run.__signature__ = own.replace(parameters=[*own.parameters.values(), loop_name])  # type: ignore[attr-defined]
    parametrized: Callable[..., None] = pytest.mark.parametrize("loop_name", list(LOOPS))(run)
    return parametrized
