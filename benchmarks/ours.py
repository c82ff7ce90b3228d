"""Our engine under load: in the callers' threads, in tasks of an event loop, and in the worker."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence

from benchmarks.load import in_tasks, in_threads
from benchmarks.sagas import FiveAsyncSteps, FiveSteps
from saga_engine import Engine, Saga
from saga_engine.journal import Entry, SagaEnded

__all__ = ["PRODUCERS_MAX", "aresolve_in_tasks", "resolve_in_threads", "start_in_worker"]

#: Threads that feed the worker. Each waits for the commit of the start that it makes, so few would starve the worker;
#: from eight on, more made no difference.
PRODUCERS_MAX = 8

#: A worker that ends nothing for so long hangs: the measurement stops with an error.
_STALLED_S = 30.0


def resolve_in_threads(url: str, at_once: int, seconds: float) -> float:
    """Give the sagas a second that so many threads resolve, each in its own `resolve()`."""
    with Engine(url) as engine:
        saga = FiveSteps.make({}, engine=engine)
        saga.resolve({"id": "warm-up"})
        return in_threads(lambda number: saga.resolve({"id": f"PR-{number}"}), at_once, seconds)


def aresolve_in_tasks(url: str, at_once: int, seconds: float) -> float:
    """Give the sagas a second that so many tasks of one event loop resolve, with async steps."""

    async def run() -> float:
        with Engine(url) as engine:
            saga = FiveAsyncSteps.make({}, engine=engine)
            await saga.aresolve({"id": "warm-up"})
            return await in_tasks(lambda number: saga.aresolve({"id": f"PR-{number}"}), at_once, seconds)

    return asyncio.run(run())


class _Ends:
    """Counts the executions that end, as the engine's observer, and lets the next ones in."""

    def __init__(self, at_once: int) -> None:
        self.count = 0
        self._lock = threading.Lock()
        self._at_once = at_once
        self._places = threading.Semaphore(at_once)

    def __call__(self, saga_id: str, entries: Sequence[Entry]) -> None:
        if isinstance(entries[-1], SagaEnded):
            with self._lock:
                self.count += 1
            self._places.release()

    def take_place(self) -> None:
        """Wait until fewer than `at_once` are in flight, and be the next one."""
        if not self._places.acquire(timeout=_STALLED_S):
            raise TimeoutError(f"the worker ended nothing in {_STALLED_S:.0f} s")

    def wait_for_all(self) -> None:
        """Wait until none is in flight."""
        for _ in range(self._at_once):
            self.take_place()
        self._places.release(self._at_once)


def start_in_worker(url: str, saga: type[Saga], at_once: int, seconds: float) -> float:
    """Give the sagas a second that the engine's worker ends while it is given `at_once` of them at a time.

    A few threads only start executions: each waits until one of those in flight has ended. Nobody waits for a certain
    one, so what is measured is the worker with its starts, not a caller's waiting.
    """
    ends = _Ends(at_once)
    with Engine(url, sagas=[saga], config={}, concurrency_max=at_once, observer=ends) as engine:

        def start(number: int) -> None:
            ends.take_place()
            engine.start(saga, {"id": f"PR-{number}"})

        ends.take_place()
        engine.start(saga, {"id": "warm-up"})
        ends.wait_for_all()
        ended_before, began_at = ends.count, time.perf_counter()
        in_threads(start, min(at_once, PRODUCERS_MAX), seconds)
        ends.wait_for_all()
        return (ends.count - ended_before) / (time.perf_counter() - began_at)
