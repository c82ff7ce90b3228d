"""Attempts with a time-out (S24): in a thread of their own, or as a task of the running event loop.

An attempt that has timed out is cancelled as far as it is async, and waited for: neither its retry nor its undo may run
beside it. If it does not come to its end within `abandon_s` it is abandoned. What it gives after its time-out does not
matter, as nobody knows whether it is complete; but what it did when it was abandoned is an effect that comes late, and
somebody must be told of it (J10).
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable, Collection
from concurrent.futures import Future
from enum import Enum
from typing import Any

from saga_engine.alarms import Alarm
from saga_engine.bridges import LoopBridge
from saga_engine.calls import Bridge, Call, Result
from saga_engine.errors import LimitReached, StepInterrupted, StepTimedOut
from saga_engine.threads import Threads

__all__ = ["OnLate", "ThreadAttempt", "interrupted", "perform", "perform_in_time", "until_over"]

#: Told of an abandoned call that has come to its end, in the thread or on the loop where it ran.
OnLate = Callable[[Call, Result], None]


def perform(call: Call, bridge: Bridge) -> Result:
    """Call it in this thread; what is async throughout crosses the bridge once."""
    if call.is_native_async:
        result: Result = bridge(call.arun())
        return result
    return call.run(bridge)


def interrupted(call: Call) -> Result:
    """Give the result of a call that ended without one."""
    return Result(error=StepInterrupted(), is_reached=call.is_reached)


def _timed_out(call: Call, *, is_reached: bool, is_abandoned: bool = False) -> Result:
    error = StepTimedOut(
        f"{call.step.name}: {call.operation} took longer than its timeout_s of {call.timeout_s:g} s, and nothing tells "
        "whether it took effect"
    )
    return Result(error=error, is_reached=is_reached, is_abandoned=is_abandoned)


class _Stage(Enum):
    """How far an attempt is."""

    IN_TIME = "it is to run, or runs, in its time"
    TIMED_OUT = "it timed out, and is waited for"
    ABANDONED = "it was given up, and runs on"
    OVER = "it has come to its end"


class ThreadAttempt:
    """A call with a time-out, in a thread of its own: a pool would run dry of threads that hang.

    Args:
        call: the call; it has a `timeout_s`.
        bridge: for what is async of it.
        threads: gives the alarms, and counts the threads that were abandoned.
        on_late: told when it comes to its end after it was abandoned.

    Attributes:
        outcome: done when the call has returned, or has timed out and returned, or was abandoned; it can be cancelled
            as long as the call has not begun.
    """

    def __init__(self, call: Call, bridge: LoopBridge, threads: Threads, on_late: OnLate) -> None:
        self._call = call
        self._bridge = bridge
        self._threads = threads
        self._on_late = on_late
        self._lock = threading.Lock()
        self._stage = _Stage.IN_TIME
        self._alarm: Alarm | None = None
        self.outcome: Future[Result] = Future()

    def start(self) -> Future[Result]:
        """Start the thread, and the time; give the outcome."""
        name, timeout_s = self._call.step.name, self._call.timeout_s
        assert timeout_s is not None, "only what has a time-out is an attempt"
        if self._threads.is_overrun(is_forward=self._call.operation == "execute"):
            self._refuse(
                f"{name}: abandoned_max ({self._threads.abandoned_max}) reached: so many steps that timed out still "
                "run in their threads; give the clients that they use time-outs below the steps' timeout_s"
            )
            return self.outcome
        run = contextvars.copy_context().run
        thread = threading.Thread(target=run, args=(self._run,), name=f"saga-step {name}", daemon=True)
        self._alarm = self._threads.alarms.set(timeout_s, self._time_out)
        try:
            thread.start()
        except RuntimeError as error:
            self._end()
            self._refuse(f"{name}: no thread can be started ({error}): run fewer sagas at once")
        return self.outcome

    def _refuse(self, text: str) -> None:
        self.outcome.set_result(Result(error=LimitReached(text), is_reached=False))

    def _run(self) -> None:
        with self._lock:
            may_begin = self._stage is _Stage.IN_TIME and self.outcome.set_running_or_notify_cancel()
        result, error = Result(error=StepInterrupted(), is_reached=False), None
        if may_begin:
            result, error = self._perform()
        stage = self._end()
        if stage is _Stage.ABANDONED:
            self._threads.count_abandoned(-1)
            self._on_late(self._call, result)
        elif stage is _Stage.TIMED_OUT:
            self.outcome.set_result(_timed_out(self._call, is_reached=may_begin and self._call.is_reached))
        elif error is not None:
            self.outcome.set_exception(error)
        elif may_begin:
            self.outcome.set_result(result)

    def _perform(self) -> tuple[Result, BaseException | None]:
        try:
            return perform(self._call, self._bridge), None
        except BaseException as raised:  # an interruption, or a lost lease: it goes to whoever waits
            return interrupted(self._call), raised

    def _end(self) -> _Stage:
        """Note that it is over, and silence its alarm; tell how far it was."""
        with self._lock:
            stage, self._stage = self._stage, _Stage.OVER
        if self._alarm is not None:
            self._threads.alarms.cancel(self._alarm)
        return stage

    def _time_out(self) -> None:
        with self._lock:
            if self._stage is not _Stage.IN_TIME or self.outcome.cancelled():
                return
            if not self.outcome.running():
                self.outcome.set_running_or_notify_cancel()  # what has not begun by now will not begin
            self._stage = _Stage.TIMED_OUT
            self._alarm = self._threads.alarms.set(self._call.abandon_s, self._abandon)
        self._bridge.cancel()

    def _abandon(self) -> None:
        with self._lock:
            if self._stage is not _Stage.TIMED_OUT:
                return
            self._stage = _Stage.ABANDONED
            self._threads.count_abandoned(1)
        # It may come to the step itself even now.
        self.outcome.set_result(_timed_out(self._call, is_reached=True, is_abandoned=True))


async def perform_in_time(call: Call, on_late: OnLate) -> Result:
    """Call what is async throughout, with its time-out.

    If the waiting task is cancelled, the call is cancelled too, and waited for as after a time-out; what it gave all
    the same is given, as whoever cancelled the task knows that it did.

    Raises:
        asyncio.CancelledError: the call was cancelled, by whoever cancelled the waiting task or by itself.
    """
    task, ends_at = asyncio.ensure_future(call.arun()), time.monotonic() + (call.timeout_s or 0.0)
    is_timed_out = False
    try:
        await asyncio.wait([task], timeout=call.timeout_s)
        is_timed_out = not task.done()
        wait_s = call.abandon_s
    except asyncio.CancelledError:
        wait_s = max(0.0, ends_at - time.monotonic()) + call.abandon_s
    if not task.done():
        task.cancel()
        await until_over([task], wait_s)
    if not task.done():
        task.add_done_callback(lambda over: on_late(call, _late(call, over)))
        return _timed_out(call, is_reached=True, is_abandoned=True)
    if is_timed_out:
        return _timed_out(call, is_reached=_late(call, task).is_reached)
    return task.result()


def _late(call: Call, task: asyncio.Task[Result]) -> Result:
    return interrupted(call) if task.cancelled() or task.exception() is not None else task.result()


async def until_over(futures: Collection[asyncio.Future[Any]], wait_s: float | None = None) -> bool:
    """Wait until all are done, or the time is over; tell whether the waiting task was cancelled meanwhile."""
    is_cancelled, ends_at = False, time.monotonic() + (wait_s or 0.0)
    while pending := [future for future in futures if not future.done()]:
        left_s = None if wait_s is None else ends_at - time.monotonic()
        if left_s is not None and left_s <= 0:
            break
        try:
            await asyncio.wait(pending, timeout=left_s)
        except asyncio.CancelledError:
            is_cancelled = True
    return is_cancelled
