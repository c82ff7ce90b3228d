"""A bell: tasks of any event loop, of asyncio or of trio, wait for what any thread may tell them."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

import anyio

__all__ = ["Bell"]

#: Runs a function soon in one event loop, from any thread.
_RunSoon = Callable[[Callable[[], object]], object]


class Bell:
    """An event that may be waited for in several event loops at once, and is set from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_rung = False
        self._waiting: list[tuple[_RunSoon, anyio.Event]] = []

    def ring(self) -> None:
        """Wake whoever waits, and let nobody wait any more."""
        with self._lock:
            self._is_rung = True
            waiting, self._waiting = self._waiting, []
        for run_soon, event in waiting:
            with suppress(RuntimeError):  # that loop is closed: nobody waits there any more
                run_soon(event.set)

    async def wait(self) -> None:
        """Wait until it rings; at once if it has rung."""
        event = anyio.Event()
        with self._lock:
            if self._is_rung:
                return
            self._waiting.append((_into_this_loop(), event))
        await event.wait()


def _into_this_loop() -> _RunSoon:
    trio = sys.modules.get("trio")
    if trio is not None:
        with suppress(RuntimeError):  # this is not trio's loop
            run_soon: _RunSoon = trio.lowlevel.current_trio_token().run_sync_soon
            return run_soon
    return asyncio.get_running_loop().call_soon_threadsafe
