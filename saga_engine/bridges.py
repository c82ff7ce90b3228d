"""Bridges: a plain thread hands something async over to an event loop, and waits until it is really over.

Whatever happens to the loop, the thread comes back: an async part that was cancelled, that a loop never came to begin,
or whose loop was closed, ends with `asyncio.CancelledError`, which is an interruption and no failure of the step (S30).
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotOverYet
from contextlib import suppress
from typing import Any

__all__ = ["Crossing", "LoopBridge", "bridge_to"]

#: How often a waiting thread looks whether the loop is still there, in seconds: a loop that is closed tells nobody.
_LOOK_S = 1.0


class Crossing:
    """One async part on its way over a bridge."""

    def __init__(self, awaitable: Awaitable[Any]) -> None:
        self._awaitable = awaitable
        self._over: Future[Any] = Future()
        self._task: asyncio.Task[Any] | None = None
        self._is_begun = False
        self._is_cancelled = False

    async def run(self) -> None:
        """Await it, on the loop; whatever is raised goes to the waiting thread alone.

        A BaseException, such as a lost lease, would end the engine's loop for all others.
        """
        self._task = asyncio.current_task()
        if self._is_cancelled:
            self.refuse()
            return
        self._is_begun = True
        try:
            value = await self._awaitable
        except BaseException as error:
            self._over.set_exception(error)
        else:
            self._over.set_result(value)

    def refuse(self, *_: object) -> None:
        """End it if it has not ended: it was not begun, or will not go on."""
        if self._over.done():
            return
        if not self._is_begun and inspect.iscoroutine(self._awaitable):
            self._awaitable.close()
        self._over.set_exception(asyncio.CancelledError())

    def cancel(self) -> None:
        """Cancel it, from any thread, without waiting for its end."""
        self._is_cancelled = True  # before it looks at the task, as `run` does it the other way round
        if self._task is not None:
            with suppress(RuntimeError):  # the loop is closed, which the waiting thread finds out
                self._task.get_loop().call_soon_threadsafe(self._task.cancel)

    def wait(self, is_gone: Callable[[], bool]) -> Any:
        """Wait in this thread until it is over, or the loop gone; give its result or raise what it raised."""
        try:
            self._await_end(is_gone)
        except BaseException:  # a signal ended the wait: nothing of it may run on without the lease
            self.cancel()
            self._await_end(is_gone)
            raise
        return self._over.result()

    def _await_end(self, is_gone: Callable[[], bool]) -> None:
        while not self._over.done():
            try:
                self._over.exception(_LOOK_S)
            except NotOverYet:
                if is_gone():
                    self.refuse()


class LoopBridge:
    """Hands over the async parts of one call; any thread may cancel what is on its way, and all that would follow.

    Args:
        spawn: starts the `run` of a crossing on the loop; raises RuntimeError if the loop takes nothing more.
        is_gone: tells whether the loop is closed.
    """

    def __init__(self, spawn: Callable[[Crossing], object], is_gone: Callable[[], bool]) -> None:
        self._spawn = spawn
        self._is_gone = is_gone
        self._lock = threading.Lock()
        self._crossings: set[Crossing] = set()
        self._is_cancelled = False

    def __call__(self, awaitable: Awaitable[Any]) -> Any:
        """Await it on the loop, and wait for it in this thread."""
        crossing = Crossing(awaitable)
        with self._lock:
            self._crossings.add(crossing)
            if self._is_cancelled:
                crossing.cancel()
        try:
            self._spawn(crossing)
        except RuntimeError:  # the loop is closed or closing
            crossing.refuse()
        try:
            return crossing.wait(self._is_gone)
        finally:
            with self._lock:
                self._crossings.discard(crossing)

    def cancel(self) -> None:
        """Cancel what is on its way, and refuse whatever is handed over later."""
        with self._lock:
            self._is_cancelled = True
            crossings = list(self._crossings)
        for crossing in crossings:
            crossing.cancel()


def bridge_to(loop: asyncio.AbstractEventLoop) -> LoopBridge:
    """Make a bridge to a running loop that is not the engine's own."""
    tasks: set[asyncio.Task[None]] = set()  # a loop holds its tasks weakly

    def begin(crossing: Crossing) -> None:
        task = loop.create_task(crossing.run())
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        task.add_done_callback(crossing.refuse)  # of use if it was cancelled before it began

    return LoopBridge(lambda crossing: loop.call_soon_threadsafe(begin, crossing), loop.is_closed)
