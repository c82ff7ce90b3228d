"""The threads of one engine: a pool for plain code beside others, an event loop for async code, and the alarms."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

import anyio
from anyio.from_thread import BlockingPortal

from saga_engine.alarms import Alarms
from saga_engine.bridges import Crossing, LoopBridge

__all__ = ["ABANDONED_MAX", "Threads"]

T = TypeVar("T")

#: How many abandoned threads an engine puts up with by default.
ABANDONED_MAX = 1_000


class Threads:
    """The threads of one engine. All of them start when first needed.

    Args:
        threads_max: how many calls of plain code may run at once in the pool.
        abandoned_max: how many threads that were given up after a time-out, and have not come to their end, there
            may be before no `execute` with a time-out is started any more; for `probe` and `compensate`, twice as many.
    """

    def __init__(self, threads_max: int, abandoned_max: int = ABANDONED_MAX) -> None:
        self._threads_max = threads_max
        self.abandoned_max = abandoned_max
        self.alarms = Alarms()
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._portal: _Portal | None = None
        self._abandoned = 0

    def _begin_anew_after_fork(self) -> None:
        if self._pid != os.getpid():  # the parent's threads are not here
            self._begin()

    def submit(self, outcome: Future[T], function: Callable[..., T], *arguments: Any) -> None:
        """Run plain code in the pool, in a copy of this context, unless the outcome is cancelled before."""
        self._begin_anew_after_fork()
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._threads_max, thread_name_prefix="saga-step")
            pool = self._pool
        pool.submit(contextvars.copy_context().run, _run_into, outcome, function, *arguments)

    def bridge(self) -> LoopBridge:
        """Make a bridge from a plain thread to the engine's own loop."""
        return LoopBridge(self._spawn, self._is_loop_closed)

    def await_plainly(self, awaitable: Any) -> Any:
        """Run something async on the engine's own loop, and wait for it in this thread."""
        return self.bridge()(awaitable)

    def is_own_loop(self) -> bool:
        """Tell whether this runs on the engine's own loop, which nothing here may wait for."""
        portal = self._portal
        try:
            return portal is not None and asyncio.get_running_loop() is portal.loop
        except RuntimeError:  # none runs here
            return False

    def _spawn(self, crossing: Crossing) -> None:
        self._begin_anew_after_fork()
        with self._lock:
            if self._portal is None:
                self._portal = _Portal()
            portal = self._portal
        portal.tasks.start_task_soon(crossing.run).add_done_callback(crossing.refuse)  # if it was cancelled unbegun

    def _is_loop_closed(self) -> bool:
        portal = self._portal
        return portal is None or portal.loop.is_closed()

    # --- threads that were given up ---

    def is_overrun(self, is_forward: bool) -> bool:
        """Tell whether as many threads were given up as may be; to probe and to undo there may be twice as many."""
        return self._abandoned >= self.abandoned_max * (1 if is_forward else 2)

    def count_abandoned(self, change: int) -> None:
        """Note that a thread was given up (1), or came to its end after all (-1)."""
        self._begin_anew_after_fork()
        with self._lock:
            self._abandoned += change

    def close(self) -> None:
        """End the loop, and the pool when what runs in it has returned."""
        self._begin_anew_after_fork()
        with self._lock:
            pool, self._pool = self._pool, None
            portal, self._portal = self._portal, None
        if pool is not None:
            pool.shutdown(wait=False)
        if portal is not None:
            portal.close()
        self.alarms.close()


_Begun = Future[tuple[BlockingPortal, asyncio.AbstractEventLoop]]


class _Portal:
    """An event loop in a thread of its own, and the way into it.

    Not anyio's `start_blocking_portal`: what that gives stops its loop when it is thrown away, and waits for its end.
    In a forked child, which throws the parent's away, there is no such loop, and the wait would never be over.
    """

    def __init__(self) -> None:
        begun: _Begun = Future()
        # What runs in the loop sees nothing of the context of whoever came first.
        arguments = (_run_loop, begun)
        self._thread = threading.Thread(target=contextvars.Context().run, args=arguments, name="saga-loop", daemon=True)
        self._thread.start()
        self.tasks, self.loop = begun.result()

    def close(self) -> None:
        """End the loop when all that runs in it is over."""
        with suppress(RuntimeError):  # it is over already, if a task raised what no loop outlives
            self.tasks.call(self.tasks.stop)
        self._thread.join()


def _run_loop(begun: _Begun) -> None:
    try:
        anyio.run(_serve, begun)
    except BaseException as error:
        if begun.done():
            raise
        begun.set_exception(error)


async def _serve(begun: _Begun) -> None:
    async with BlockingPortal() as portal:
        begun.set_result((portal, asyncio.get_running_loop()))
        await portal.sleep_until_stopped()


def _run_into(outcome: Future[T], function: Callable[..., T], *arguments: Any) -> None:
    if not outcome.set_running_or_notify_cancel():
        return
    try:
        result = function(*arguments)
    except BaseException as error:
        outcome.set_exception(error)
    else:
        outcome.set_result(result)
