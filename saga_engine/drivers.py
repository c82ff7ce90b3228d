"""The drivers: they carry out what a drive asks for, in the caller's thread or on an event loop, and know no rule."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections.abc import Awaitable, Callable, Generator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, suppress
from typing import Any

from anyio.from_thread import BlockingPortal, start_blocking_portal

from saga_engine.calls import Call, Result
from saga_engine.clock import Clock
from saga_engine.drive import Append, Drive, Perform, Sleep
from saga_engine.errors import JournalError, LeaseLost, SagaError
from saga_engine.journal import AppendResult, Commit, Journal, Response

__all__ = ["AsyncDriver", "SyncDriver", "Threads"]

_Finished = list[tuple[Call, Result]]


class Threads:
    """The threads of one engine: a pool for plain code beside others, and one event loop for async code.

    Both start when first needed.

    Args:
        threads_max: how many calls of plain code may run at once in the pool.
    """

    def __init__(self, threads_max: int) -> None:
        self._threads_max = threads_max
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._portal_context: AbstractContextManager[BlockingPortal] | None = None
        self._portal: BlockingPortal | None = None

    def _begin_anew_after_fork(self) -> None:
        if self._pid != os.getpid():  # the parent's threads are not here
            self._begin()

    def submit(self, function: Callable[..., Result], *arguments: Any) -> Future[Result]:
        """Run plain code in the pool, in a copy of this context."""
        self._begin_anew_after_fork()
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._threads_max, thread_name_prefix="saga-step")
            pool = self._pool
        return pool.submit(contextvars.copy_context().run, function, *arguments)

    def await_plainly(self, awaitable: Awaitable[Any]) -> Any:
        """Run something async on the engine's own loop, and wait for it in this thread."""
        self._begin_anew_after_fork()
        with self._lock:
            if self._portal is None:
                self._portal_context = start_blocking_portal("asyncio")
                self._portal = self._portal_context.__enter__()
            portal = self._portal
        is_over = threading.Event()
        future = portal.start_task_soon(_await_and_tell, awaitable, is_over)
        try:
            value, error = _uncancelled(future)
        except BaseException:
            # It was cancelled, or a signal ended the wait: then nothing of it may run on without the lease.
            future.cancel()
            is_over.wait()
            raise
        if error is not None:
            raise error
        return value

    def close(self) -> None:
        """End the loop, and the pool when what runs in it has returned."""
        self._begin_anew_after_fork()
        with self._lock:
            pool, self._pool = self._pool, None
            context, self._portal_context, self._portal = self._portal_context, None, None
        if pool is not None:
            pool.shutdown(wait=False)
        if context is not None:
            context.__exit__(None, None, None)


def _uncancelled(future: Future[Any]) -> Any:
    """Wait for async code in a plain thread; that it was cancelled must not pass for a failure of the step (S30)."""
    try:
        return future.result()
    except CancelledError as cancelled:  # an Exception, unlike asyncio's
        raise asyncio.CancelledError from cancelled


async def _await(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


async def _await_and_tell(awaitable: Awaitable[Any], is_over: threading.Event) -> tuple[Any, BaseException | None]:
    """Give the value or what was raised: a BaseException, such as a lost lease, would end the loop for all others."""
    try:
        return await awaitable, None
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        return None, error
    finally:
        is_over.set()


class SyncDriver:
    """Drives in the caller's thread; branches run beside each other in the pool."""

    def __init__(self, journal: Journal, clock: Clock, threads: Threads) -> None:
        self._journal = journal
        self._clock = clock
        self._threads = threads

    def run(self, drive: Drive) -> Response:
        """Carry the execution on; returns what to answer.

        Whatever ends it early, the lease does not stay behind: it is given back with an entry or, if the journal
        cannot be written, abandoned.
        """
        steps = drive.run()
        running: dict[Future[Result], Call] = {}
        try:
            return self._loop(steps, running)
        except LeaseLost:
            raise
        except JournalError:
            wait(running)
            _abandon(drive, self._journal)
            raise
        except BaseException as error:
            wait(running)  # nobody may take up the execution while branches of it run on
            _give_back(drive, self._journal, type(error).__name__)
            raise
        finally:
            steps.close()

    def _loop(self, steps: Generator[Any, Any, Response], running: dict[Future[Result], Call]) -> Response:
        effect = next(steps)
        while True:
            try:
                if isinstance(effect, Append):
                    effect = steps.send(self._journal.append(effect.commit))
                elif isinstance(effect, Perform):
                    effect = steps.send(self._perform(effect.calls, running))
                else:
                    assert isinstance(effect, Sleep), "there are three effects"
                    self._clock.sleep(effect.seconds)
                    effect = next(steps)
            except StopIteration as stop:
                response: Response = stop.value
                return response

    def _perform(self, calls: tuple[Call, ...], running: dict[Future[Result], Call]) -> _Finished:
        if len(calls) == 1 and not running:
            return [(calls[0], self._run(calls[0]))]
        for call in calls:
            running[self._threads.submit(self._run, call)] = call
        finished, _ = wait(running, return_when=FIRST_COMPLETED)
        return [(running.pop(future), future.result()) for future in finished]

    def _run(self, call: Call) -> Result:
        if call.is_native_async:
            result: Result = self._threads.await_plainly(call.arun())
            return result
        return call.run(self._threads.await_plainly)


class AsyncDriver:
    """Drives on the running event loop: async steps natively, plain ones in the pool."""

    def __init__(self, journal: Journal, clock: Clock, threads: Threads) -> None:
        self._journal = journal
        self._clock = clock
        self._threads = threads

    async def run(self, drive: Drive) -> Response:
        """Carry the execution on; returns what to answer.

        When the task is cancelled, the lease is given back under a shield and the cancellation goes on (S30). A
        plain step that is still in its thread then keeps the lease until it returns: nobody may start it again
        beside itself.
        """
        steps = drive.run()
        running: dict[asyncio.Future[Result], Call] = {}
        try:
            return await self._loop(drive, steps, running)
        except LeaseLost:
            raise
        except JournalError:
            if running:
                await asyncio.wait(running)
            _abandon(drive, self._journal)
            raise
        except _LeftInThread as left:
            raise left.cancelled from None
        except BaseException as error:
            await self._interrupt(drive, running, type(error).__name__)
            raise
        finally:
            steps.close()

    async def _loop(
        self, drive: Drive, steps: Generator[Any, Any, Response], running: dict[asyncio.Future[Result], Call]
    ) -> Response:
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
                    effect = steps.send(await self._perform(drive, effect.calls, running))
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
        is_cancelled = False
        while not appended.done():
            try:
                await asyncio.wait([appended])
            except asyncio.CancelledError:
                is_cancelled = True
        if is_cancelled and appended.exception() is not None:
            raise asyncio.CancelledError from appended.exception()
        return appended.result(), is_cancelled

    async def _perform(
        self, drive: Drive, calls: tuple[Call, ...], running: dict[asyncio.Future[Result], Call]
    ) -> _Finished:
        if len(calls) == 1 and not running:
            return [(calls[0], await self._run(drive, calls[0]))]
        for call in calls:
            running[asyncio.ensure_future(self._run(drive, call))] = call
        finished, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        return [(running.pop(task), task.result()) for task in finished]

    async def _run(self, drive: Drive, call: Call) -> Result:
        if call.is_native_async:
            return await call.arun()
        loop = asyncio.get_running_loop()

        def bridge(awaitable: Awaitable[Any]) -> Any:
            if loop.is_closed():  # the handler was cancelled and its loop is gone: no failure of the step
                raise asyncio.CancelledError
            return _uncancelled(asyncio.run_coroutine_threadsafe(_await(awaitable), loop))

        future = self._threads.submit(call.run, bridge)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError as cancelled:
            if future.cancelled():
                raise
            future.add_done_callback(lambda done: _finish_in_thread(drive, call, done, self._journal))
            raise _LeftInThread(cancelled) from None

    async def _interrupt(self, drive: Drive, running: dict[asyncio.Future[Result], Call], cause: str) -> None:
        for task in running:
            task.cancel()
        left = [r for r in await asyncio.gather(*running, return_exceptions=True) if isinstance(r, _LeftInThread)]
        if left:
            return
        steps = drive.interruption(cause)
        try:
            effect = _send(steps, None)
            while effect is not None:
                effect = _send(steps, (await self._append(effect.commit))[0])
        except (LeaseLost, SagaError, asyncio.CancelledError):
            pass  # it is abandoned below, and whatever interrupted the drive is raised on
        finally:
            _abandon(drive, self._journal)


class _LeftInThread(BaseException):
    """The task was cancelled while a plain step runs on in its thread; that thread will finish the drive."""

    def __init__(self, cancelled: asyncio.CancelledError) -> None:
        super().__init__()
        self.cancelled = cancelled


def _settle(future: asyncio.Future[AppendResult], result: AppendResult | BaseException) -> None:
    if future.done():
        return
    if isinstance(result, BaseException):
        future.set_exception(result)
    else:
        future.set_result(result)


def _finish_in_thread(drive: Drive, call: Call, future: Future[Result], journal: Journal) -> None:
    """Journal what a step gave whose caller has gone, and give the lease back; runs in the step's thread."""
    try:
        if future.exception() is None:
            drive.absorb(call, future.result())
    except JournalError:
        _abandon(drive, journal)
        return
    _give_back(drive, journal, "CancelledError")


def _send(steps: Generator[Append, AppendResult, None], result: AppendResult | None) -> Append | None:
    """Take the next effect of a drive that is being interrupted; None at its end."""
    try:
        return next(steps) if result is None else steps.send(result)
    except StopIteration:
        return None


def _give_back(drive: Drive, journal: Journal, cause: str) -> None:
    """Give the lease back with an entry or, if that cannot be written, without."""
    steps = drive.interruption(cause)
    try:
        effect = _send(steps, None)
        while effect is not None:
            effect = _send(steps, journal.append(effect.commit))
    except (LeaseLost, SagaError):
        pass  # it is abandoned below, and whatever interrupted the drive is raised on
    finally:
        _abandon(drive, journal)


def _abandon(drive: Drive, journal: Journal) -> None:
    """Leave no lease behind: not one whose commit was interrupted before the drive learned of it, either."""
    position, state = drive.position, drive.state
    try:
        header = journal.header(state.saga_id, state.generation)
    except JournalError:
        if position.is_held and position.eid is not None:
            journal.abandon(position.eid, position.epoch)
        return
    if header is not None and header.drive == position.drive:
        journal.abandon(header.eid, header.epoch)
