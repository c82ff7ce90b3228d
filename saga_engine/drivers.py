"""The drivers: they carry out what a drive asks for, in the caller's thread or on an event loop, and know no rule."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from saga_engine.attempts import OnLate, ThreadAttempt, perform, perform_in_time, until_over
from saga_engine.bridges import LoopBridge, bridge_to
from saga_engine.calls import Call, Result
from saga_engine.clock import Clock
from saga_engine.drive import Append, Drive, Perform, Sleep
from saga_engine.endings import Ending, leave_late_effect
from saga_engine.errors import JournalError, LeaseLost
from saga_engine.journal import AppendResult, Commit, Journal, Response
from saga_engine.threads import Threads
from saga_engine.watchdog import HELD_MAX_S, Watchdog

__all__ = ["AsyncDriver", "SyncDriver", "Threads"]

_Finished = list[tuple[Call, Result]]


class _Driver:
    """What both drivers have.

    Args:
        journal: where executions are journaled.
        clock: tells how long to wait.
        threads: of the engine.
        held_max_s: how many seconds a step without a time-out may keep the lease.
    """

    def __init__(self, journal: Journal, clock: Clock, threads: Threads, held_max_s: float = HELD_MAX_S) -> None:
        self._journal = journal
        self._clock = clock
        self._threads = threads
        self._watchdog = Watchdog(journal, threads.alarms, held_max_s)

    def _left_s(self, until: float | None) -> float | None:
        return None if until is None else max(0.0, until - self._clock.now())

    def _on_late(self, drive: Drive) -> OnLate:
        return partial(leave_late_effect, drive, self._journal)

    def _prepare(
        self, drive: Drive, call: Call, bridge: LoopBridge, run: Callable[[Drive, Call], Result]
    ) -> tuple[Future[Result], Callable[[], object]]:
        """Make the outcome of a call in a thread, and what starts it there."""
        if call.timeout_s is not None:
            attempt = ThreadAttempt(call, bridge, self._threads, self._on_late(drive))
            return attempt.outcome, attempt.start
        outcome: Future[Result] = Future()
        return outcome, partial(self._threads.submit, outcome, run, drive, call)


@dataclass(slots=True)
class _SyncCalls:
    """The calls of one drive that are under way; `own` is the one in the driving thread itself."""

    running: dict[Future[Result], Call] = field(default_factory=dict)
    own: Call | None = None


class SyncDriver(_Driver):
    """Drives in the caller's thread; branches run beside each other in the pool."""

    def run(self, drive: Drive) -> Response:
        """Carry the execution on; returns what to answer.

        Whatever ends it early, the lease does not stay behind: what still runs is waited for, and taken in; then the
        lease is given back with an entry or, if the journal cannot be written, abandoned.
        """
        steps, calls = drive.run(), _SyncCalls()
        try:
            return self._loop(drive, steps, calls)
        except BaseException as error:
            steps.close()
            ending = Ending(drive, self._journal, error)
            if calls.own is not None:
                ending.take(calls.own, None)
            ending.begin(calls.running)
            ending.over.result()
            raise
        finally:
            steps.close()

    def _loop(self, drive: Drive, steps: Generator[Any, Any, Response], calls: _SyncCalls) -> Response:
        effect = next(steps)
        while True:
            try:
                if isinstance(effect, Append):
                    effect = steps.send(self._journal.append(effect.commit))
                elif isinstance(effect, Perform):
                    effect = steps.send(self._perform(drive, effect, calls))
                else:
                    assert isinstance(effect, Sleep), "there are three effects"
                    self._clock.sleep(effect.seconds)
                    effect = next(steps)
            except StopIteration as stop:
                response: Response = stop.value
                return response

    def _perform(self, drive: Drive, effect: Perform, calls: _SyncCalls) -> _Finished:
        if len(effect.calls) == 1 and not calls.running and effect.until is None:
            call = effect.calls[0]
            if call.timeout_s is None:
                calls.own = call
                result = self._run_watched(drive, call)
                calls.own = None
                return [(call, result)]
        for call in effect.calls:
            self._start(drive, call, calls)
        finished, _ = wait(calls.running, self._left_s(effect.until), FIRST_COMPLETED)
        results = [(calls.running[future], future.result()) for future in finished]
        for future in finished:
            del calls.running[future]
        return results

    def _start(self, drive: Drive, call: Call, calls: _SyncCalls) -> None:
        outcome, start = self._prepare(drive, call, self._threads.bridge(), self._run_watched)
        try:
            calls.running[outcome] = call  # first: an interrupt may come in the middle of the start
            start()
        except BaseException:
            outcome.cancel()
            raise

    def _run_watched(self, drive: Drive, call: Call) -> Result:
        with self._watchdog.watching(drive, call):
            return self._run(call)

    def _run(self, call: Call) -> Result:
        return perform(call, self._threads.await_plainly)


@dataclass(slots=True)
class _Flight:
    """A call under way; `thread` and `bridge` if it runs in a thread, else it is a task of the loop."""

    call: Call
    thread: Future[Result] | None = None
    bridge: LoopBridge | None = None


@dataclass(slots=True)
class _AsyncCalls:
    """The calls of one drive that are under way; `own` is the one in the driving task itself."""

    running: dict[asyncio.Future[Result], _Flight] = field(default_factory=dict)
    own: Call | None = None

    def cancel(self) -> None:
        """Cancel what can be cancelled: all but what is plain code in a thread."""
        for future, flight in self.running.items():
            if flight.bridge is not None:
                flight.bridge.cancel()
            future.cancel()

    def hand_over(self, ending: Ending) -> dict[Future[Result], Call]:
        """Tell the ending what is over; give what is not, which are plain parts in threads."""
        left: dict[Future[Result], Call] = {}
        if self.own is not None:
            ending.take(self.own, None)
        for future, flight in self.running.items():
            source = future if flight.thread is None else flight.thread
            if isinstance(source, Future) and not source.done():
                left[source] = flight.call
            else:
                ending.take(flight.call, _result_of(source))
            if future.done() and not future.cancelled():
                future.exception()  # looked at, so that asyncio does not complain
        return left


def _result_of(source: asyncio.Future[Result] | Future[Result]) -> Result | None:
    is_interrupted = not source.done() or source.cancelled() or source.exception() is not None
    return None if is_interrupted else source.result()


class AsyncDriver(_Driver):
    """Drives on the running event loop: async steps natively, plain ones in the pool."""

    async def run(self, drive: Drive) -> Response:
        """Carry the execution on; returns what to answer.

        When the task is cancelled, its async steps are too, the lease is given back under a shield, and the
        cancellation goes on (S30). A plain step that is still in its thread then keeps the lease until it returns:
        nobody may start it again beside itself.
        """
        steps, calls = drive.run(), _AsyncCalls()
        try:
            return await self._loop(drive, steps, calls)
        except GeneratorExit as error:  # the loop is gone with its tasks: nothing can be awaited any more
            steps.close()
            ending = Ending(drive, self._journal, error)
            ending.begin(calls.hand_over(ending))
            raise
        except BaseException as error:
            steps.close()
            if await self._end(drive, calls, error) and not isinstance(error, asyncio.CancelledError):
                raise asyncio.CancelledError from error
            raise
        finally:
            steps.close()

    async def _loop(self, drive: Drive, steps: Generator[Any, Any, Response], calls: _AsyncCalls) -> Response:
        effect = next(steps)
        while True:
            try:
                if isinstance(effect, Append):
                    result, is_cancelled = await self._append(effect.commit)
                    if is_cancelled:
                        with suppress(StopIteration):
                            steps.send(result)  # what was written is written, whoever waits for it
                        raise asyncio.CancelledError
                    effect = steps.send(result)
                elif isinstance(effect, Perform):
                    effect = steps.send(await self._perform(drive, effect, calls))
                else:
                    assert isinstance(effect, Sleep), "there are three effects"
                    await self._clock.asleep(effect.seconds)
                    effect = next(steps)
            except StopIteration as stop:
                response: Response = stop.value
                return response

    async def _append(self, commit: Commit) -> tuple[AppendResult, bool]:
        """Append without blocking the loop; a cancellation is held back until it is known what was written."""
        loop = asyncio.get_running_loop()
        appended: asyncio.Future[AppendResult] = loop.create_future()

        def done(result: AppendResult | BaseException) -> None:
            loop.call_soon_threadsafe(_settle, appended, result)

        self._journal.submit(commit, done)
        is_cancelled = await until_over([appended])
        if is_cancelled and appended.exception() is not None:
            raise asyncio.CancelledError from appended.exception()
        return appended.result(), is_cancelled

    async def _perform(self, drive: Drive, effect: Perform, calls: _AsyncCalls) -> _Finished:
        if len(effect.calls) == 1 and not calls.running and effect.until is None:
            call = effect.calls[0]
            if call.timeout_s is None and call.is_native_async:
                calls.own = call
                result = await self._run_watched(drive, call)
                calls.own = None
                return [(call, result)]
        for call in effect.calls:
            self._start(drive, call, calls)
        finished, _ = await asyncio.wait(
            calls.running, timeout=self._left_s(effect.until), return_when=asyncio.FIRST_COMPLETED
        )
        results = [(calls.running[future].call, future.result()) for future in finished]
        for future in finished:
            del calls.running[future]
        return results

    def _start(self, drive: Drive, call: Call, calls: _AsyncCalls) -> None:
        if call.is_native_async:
            is_limited = call.timeout_s is not None
            run = perform_in_time(call, self._on_late_beside(drive)) if is_limited else self._run_watched(drive, call)
            calls.running[asyncio.ensure_future(run)] = _Flight(call)
            return
        bridge = bridge_to(asyncio.get_running_loop())

        def run_watched(drive: Drive, call: Call) -> Result:
            with self._watchdog.watching(drive, call):
                return call.run(bridge)

        outcome, start = self._prepare(drive, call, bridge, run_watched)
        try:
            calls.running[asyncio.wrap_future(outcome)] = _Flight(call, outcome, bridge)
            start()
        except BaseException:
            outcome.cancel()
            raise

    async def _run_watched(self, drive: Drive, call: Call) -> Result:
        with self._watchdog.watching(drive, call):
            return await call.arun()

    def _on_late_beside(self, drive: Drive) -> OnLate:
        """Leave late effects without blocking the loop."""

        def begin(call: Call, result: Result) -> None:
            arguments = (drive, self._journal, call, result)
            threading.Thread(target=leave_late_effect, args=arguments, name="saga-late-effect").start()

        return begin

    async def _end(self, drive: Drive, calls: _AsyncCalls, error: BaseException) -> bool:
        """End the drive that this error ended; tell whether the task was cancelled meanwhile."""
        is_cancelled, is_waiting = False, isinstance(error, (LeaseLost, JournalError))
        if is_waiting and calls.running:
            try:
                await asyncio.wait(calls.running)
            except asyncio.CancelledError:
                is_cancelled = True
        if is_cancelled or not is_waiting:
            calls.cancel()
            is_cancelled |= await until_over([future for future, flight in calls.running.items() if not flight.thread])
        ending = Ending(drive, self._journal, error)
        left = calls.hand_over(ending)
        if left:
            ending.begin(left)  # their threads end it
            return is_cancelled
        begun = asyncio.get_running_loop().run_in_executor(None, ending.begin)
        is_cancelled |= await until_over([begun])
        begun.result()
        ending.over.result()
        return is_cancelled


def _settle(future: asyncio.Future[AppendResult], result: AppendResult | BaseException) -> None:
    if future.done():
        return
    if isinstance(result, BaseException):
        future.set_exception(result)
    else:
        future.set_result(result)
