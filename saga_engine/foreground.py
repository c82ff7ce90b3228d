"""The worker in the foreground: what a process does until a signal, or another thread, ends it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from types import FrameType

from saga_engine.worker import Worker

__all__ = ["run_until_stopped"]


def run_until_stopped(worker: Worker, stop_timeout_s: float) -> int:
    """Wait for SIGTERM, SIGINT (both in the main thread only) or `worker.stop`, then stop the worker.

    Returns:
        How many executions were still under way when `stop_timeout_s` was over.
    """
    # Unlike an Event, whose lock the handler would wait for, this queue may be used by a signal handler.
    stops: SimpleQueue[None] = SimpleQueue()
    worker.on_stop(lambda: stops.put(None))
    with _signals_in(stops):
        stops.get()
        return worker.stop(stop_timeout_s)


@contextmanager
def _signals_in(stops: SimpleQueue[None]) -> Iterator[None]:
    """Let SIGTERM and SIGINT end the wait; the second one of a kind does what it did before."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, before[signal.Signals(number)])
        stops.put(None)

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
