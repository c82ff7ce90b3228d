"""One drive on its way through the worker: in the worker's threads, on the event loop, or waiting without either.

A `Run` is the worker's driver. It belongs to one thread at a time, and to none while it waits: for its commit, for
calls that are in flight, or for a moment. Whatever it waits for puts it back into a lane: plain calls are made in the
worker's threads, coroutines are awaited on the event loop, and the drive goes on wherever the last call was.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any

from saga_engine.attempts import ThreadAttempt, perform_in_time
from saga_engine.calls import Call, Result
from saga_engine.clock import Clock
from saga_engine.drive import Append, Drive, Effect, Perform, Sleep
from saga_engine.endings import Ending, leave_late_effect
from saga_engine.journal import AppendResult, Committed, Journal
from saga_engine.ready import ReadyThreads, Work
from saga_engine.threads import Threads
from saga_engine.timers import Timer
from saga_engine.watchdog import Watchdog

__all__ = ["Lanes", "LoopLane", "Run"]


class LoopLane:
    """The event loop of an engine as the worker uses it: woken once for all that became ready meanwhile.

    Args:
        threads: has the loop, which begins when first needed.
    """

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready: deque[Work] = deque()
        self._is_woken = False
        #: Tasks see nothing of the context of whoever woke the loop.
        self._context = contextvars.Context()
        self._tasks: set[asyncio.Task[None]] = set()

    def push(self, work: Work) -> None:
        """Let the loop do it soon.

        Raises:
            RuntimeError: the loop is closed.
        """
        self._ready.append(work)
        if not self._is_woken:
            self._is_woken = True
            try:
                self._begun().call_soon_threadsafe(self._do_all, context=self._context)
            except RuntimeError:
                self._is_woken = False
                raise

    def begin(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Start a task; only on the loop."""
        assert self._loop is not None, "what runs on the loop came through push"
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def cancel(self) -> None:
        """Cancel every task."""
        if self._loop is not None:
            self.push(self._cancel_all)

    def _begun(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = self._threads.await_plainly(_running_loop())
        return self._loop

    def _do_all(self) -> None:
        self._is_woken = False  # before the look into the queue: who comes later wakes the loop again
        while self._ready:
            self._ready.popleft()()

    def _cancel_all(self) -> None:
        for task in self._tasks:
            task.cancel()


async def _running_loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


@dataclass(slots=True)
class Lanes:
    """What all runs of one worker share.

    Attributes:
        ready: the worker's own threads.
        threads: those of the engine: for calls with a time-out, and for async parts of plain calls.
        wake_at: calls back at a monotonic time, or when the wall clock is set beyond the second time.
        forget: takes back a `wake_at`.
    """

    journal: Journal
    clock: Clock
    ready: ReadyThreads
    loop: LoopLane
    threads: Threads
    watchdog: Watchdog
    wake_at: Callable[[Callable[[], None], float, float | None], Timer]
    forget: Callable[[Timer], None]


class Run:
    """Carries one drive to its end.

    Args:
        drive: the drive.
        lanes: where it may run.
        on_end: told once, when nothing of the run is left: what ended it early, or None.
        on_open: told once: None as soon as the first commit is durable, or what came in between, which `on_end` is
            not told then.
    """

    def __init__(
        self,
        drive: Drive,
        lanes: Lanes,
        on_end: Callable[[Run, BaseException | None], None],
        on_open: Callable[[BaseException | None], None] | None = None,
    ) -> None:
        self.drive = drive
        self._lanes = lanes
        self._on_end = on_end
        self._seq = drive.position.seq
        self._on_open = on_open
        self._steps: Generator[Effect, Any, Any] = drive.run()
        #: What the drive is sent next, or an effect of it that is to be carried out in another lane.
        self._value: Any = None
        self._effect: Perform | None = None
        self._error: BaseException | None = None
        self._is_on_loop = False
        #: The call that is made by whoever carries the run on.
        self._own: Call | None = None
        self._lock = threading.Lock()
        #: How many calls are in flight beside it.
        self._in_flight = 0
        self._finished: list[tuple[Call, Result]] = []
        self._interrupted: list[Call] = []
        self._part_error: BaseException | None = None
        #: Why the run ends early, once it does.
        self._failure: BaseException | None = None
        self._is_waiting = False
        self._timer: Timer | None = None

    @property
    def has_committed(self) -> bool:
        """Whether anything of it is journaled."""
        return self.drive.position.seq != self._seq

    def go(self) -> None:
        """Go on in this thread, one of the worker's."""
        self._advance(is_on_loop=False)

    def go_on_loop(self) -> None:
        """Go on on the event loop."""
        self._advance(is_on_loop=True)

    # --- carrying out ---

    def _advance(self, *, is_on_loop: bool) -> None:
        """Carry out effects until the run waits for something; from then on it may be another thread's."""
        try:
            if self._error is not None:
                raise self._error
            effect: Effect | None = self._effect or self._steps.send(self._value)
            while effect is not None:
                self._effect = self._value = None
                if isinstance(effect, Append):
                    self._lanes.journal.submit(effect.commit, self._committed)
                    return
                if isinstance(effect, Sleep):
                    self._wake_after(effect.seconds)
                    return
                effect = self._perform(effect, is_on_loop)
        except StopIteration:
            self._finish(None)
        except BaseException as error:
            self._fail(error)

    def _committed(self, result: AppendResult | BaseException) -> None:
        """Take the outcome of a commit; called in the journal's thread, which must not be kept."""
        if isinstance(result, BaseException):
            self._error = result
        else:
            self._value = result
            if self._on_open is not None and isinstance(result, Committed):
                self._tell_open(None)
        self._resume()

    def _resume(self) -> None:
        """Put the run back into its lane."""
        if self._is_on_loop:
            try:
                self._lanes.loop.push(self.go_on_loop)
                return
            except RuntimeError as closed:
                self._error = closed
        self._lanes.ready.push(self.go)

    def _wake_after(self, seconds: float) -> None:
        self._lanes.wake_at(self._resume, self._lanes.clock.monotonic() + seconds, None)

    def _perform(self, effect: Perform, is_on_loop: bool) -> Effect | None:
        """Make the calls; the drive's next effect if that could be done here and now, else None."""
        call = effect.calls[0] if len(effect.calls) == 1 else None
        if call is None or self._in_flight or effect.until is not None or call.timeout_s is not None:
            self._perform_apart(effect, is_on_loop)
            return None
        if call.is_native_async is not is_on_loop:
            self._effect, self._is_on_loop = effect, not is_on_loop
            self._resume()
            return None
        self._own = call
        if is_on_loop:
            self._lanes.loop.begin(self._await_alone(call))
            return None
        result = self.call(call)
        self._own = None
        return self._steps.send([(call, result)])

    def call(self, call: Call) -> Result:
        """Make a plain call in this thread, one of the worker's."""
        lanes = self._lanes
        lanes.ready.enter_step()
        try:
            with lanes.watchdog.watching(self.drive, call):
                return call.run(lanes.threads.await_plainly)
        finally:
            lanes.ready.leave_step()

    async def acall(self, call: Call) -> Result:
        """Make an async call on the event loop."""
        if call.timeout_s is not None:
            return await perform_in_time(call, self._on_late_beside)
        with self._lanes.watchdog.watching(self.drive, call):
            return await call.arun()

    async def _await_alone(self, call: Call) -> None:
        try:
            self._value = [(call, await self.acall(call))]
            self._own = None
        except BaseException as error:  # a lost lease or a cancellation ends this run, not the loop
            self._error = error
        self._advance(is_on_loop=True)

    # --- several calls at once ---

    def _perform_apart(self, effect: Perform, is_on_loop: bool) -> None:
        """Make calls that run beside each other, or beside the wait for a moment."""
        with self._lock:
            self._in_flight += len(effect.calls)
        mine: Call | None = None
        for call in effect.calls:
            if call.is_native_async:
                self._lanes.loop.push(partial(self._begin_async_part, call))
            elif call.timeout_s is not None:
                self._attempt(call)
            elif mine is None and not is_on_loop:
                mine = call
            else:
                self._lanes.ready.push(partial(self._make_part, call))
        self._await_parts(effect.until)
        if mine is not None:
            self._make_part(mine)

    def _make_part(self, call: Call) -> None:
        result, error = None, None
        try:
            result = self.call(call)
        except BaseException as raised:  # a lost lease or an interruption: the run ends, not the thread
            error = raised
        self._part_finished(call, result, error, is_on_loop=False)

    def _begin_async_part(self, call: Call) -> None:
        self._lanes.loop.begin(self._await_part(call))

    async def _await_part(self, call: Call) -> None:
        result, error = None, None
        try:
            result = await self.acall(call)
        except BaseException as raised:  # a lost lease or a cancellation: the run ends, not the loop
            error = raised
        self._part_finished(call, result, error, is_on_loop=True)

    def _attempt(self, call: Call) -> None:
        """Make a plain call with a time-out, in a thread of its own."""

        def over(outcome: Future[Result]) -> None:
            error = outcome.exception()
            self._part_finished(call, None if error else outcome.result(), error, is_on_loop=False)

        threads, on_late = self._lanes.threads, partial(leave_late_effect, self.drive, self._lanes.journal)
        ThreadAttempt(call, threads.bridge(), threads, on_late).start().add_done_callback(over)

    def _on_late_beside(self, call: Call, result: Result) -> None:
        """Leave a late effect without blocking the loop."""
        self._lanes.ready.push(partial(leave_late_effect, self.drive, self._lanes.journal, call, result))

    def _await_parts(self, until: float | None) -> None:
        """Wait for a part to finish; the run may be another thread's before this returns."""
        with self._lock:
            if not self._finished and self._part_error is None:
                self._is_waiting = True
                if until is not None:
                    clock = self._lanes.clock
                    at_s = clock.monotonic() + max(0.0, until - clock.now())
                    self._timer = self._lanes.wake_at(self._time_over, at_s, until)
                return
            self._take_finished()
        self._resume()

    def _take_finished(self) -> None:
        """Let the drive have what finished; the lock is held, the run waits no more."""
        self._value, self._finished, self._is_waiting = self._finished, [], False
        self._error = self._part_error
        timer, self._timer = self._timer, None
        if timer is not None:
            self._lanes.forget(timer)

    def _time_over(self) -> None:
        with self._lock:
            if not self._is_waiting:
                return
            self._take_finished()
        self._resume()

    def _part_finished(self, call: Call, result: Result | None, error: BaseException | None, is_on_loop: bool) -> None:
        """Take what one of several calls gave; the run goes on if it waited for that."""
        with self._lock:
            self._in_flight -= 1
            if result is not None:
                self._finished.append((call, result))
            else:
                self._interrupted.append(call)
                self._part_error = self._part_error or error
            is_over = self._failure is not None and not self._in_flight
            if not is_over and not self._is_waiting:
                return
            if not is_over:
                self._take_finished()
        if is_over:
            self._give_up()
        else:
            self._is_on_loop = is_on_loop
            self._resume()

    # --- ending ---

    def _fail(self, error: BaseException) -> None:
        """End the run early, once none of its calls is in flight: nobody else may take it up before that."""
        self._steps.close()
        with self._lock:
            if self._failure is not None:
                return
            self._failure, self._error = error, None
            if self._in_flight:
                return
        self._give_up()

    def _give_up(self) -> None:
        """Leave no lease behind; in a thread of the worker, as that takes a commit, for which it waits."""
        self._lanes.ready.push(self._end_early)

    def _end_early(self) -> None:
        assert self._failure is not None, "only what failed ends early"
        ending = Ending(self.drive, self._lanes.journal, self._failure)
        for call in (*self._interrupted, *([self._own] if self._own is not None else ())):
            ending.take(call, None)
        for call, result in self._finished:
            ending.take(call, result)
        self._lanes.ready.enter_step()
        try:
            ending.begin()  # logs what it cannot do
        finally:
            self._lanes.ready.leave_step()
            self._finish(self._failure)

    def _finish(self, error: BaseException | None) -> None:
        is_told = self._on_open is not None
        self._tell_open(error)
        self._on_end(self, None if is_told else error)

    def _tell_open(self, error: BaseException | None) -> None:
        on_open, self._on_open = self._on_open, None
        if on_open is not None:
            on_open(error)
