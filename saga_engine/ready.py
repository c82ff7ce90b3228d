"""The threads of a worker: few while they keep up, more only when work waits because all of them stand in steps.

Python code in several threads only takes turns, and each turn costs. So as long as one thread keeps up with what is
ready, the others sleep. A thread that calls a step says so; when work is ready and every thread that is awake has
been standing in a step, the dispatcher lets more of them come: one, then two, then four.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

__all__ = ["ReadyThreads", "Work"]

#: Something to do now. What it raises is logged, so it should take care of its errors itself.
Work = Callable[[], None]

_logger = logging.getLogger("saga_engine")


class ReadyThreads:
    """A queue of what is ready, and the threads that do it.

    Args:
        threads_max: how many threads there may be.
        on_strain: called, from any thread, when work may have to wait; `relieve` is to be called soon after, and
            again and again while it says so.
    """

    def __init__(self, threads_max: int, on_strain: Callable[[], None]) -> None:
        self._threads_max = threads_max
        self._on_strain = on_strain
        self._ready: deque[Work] = deque()
        self._lock = threading.Lock()
        #: Threads that sleep, each on its own lock, latest last.
        self._idle: list[threading.Lock] = []
        #: Threads that are awake and not in a step: they will look for work again at once.
        self._seeking = 0
        self._count = 0
        self._growth = 1
        self._is_strained = False
        self._is_ended = False

    @property
    def count(self) -> int:
        """How many threads there are."""
        return self._count

    def push(self, work: Work) -> None:
        """Let a thread do it soon. Never blocks."""
        self._ready.append(work)
        # After the append: a thread about to sleep first says that it no longer seeks, then looks again.
        if self._seeking == 0:
            self._come()

    def enter_step(self) -> None:
        """Say, in a thread of these, that it calls user code now, which may take long."""
        with self._lock:
            self._seeking -= 1
        if self._ready and self._seeking == 0:
            self._strain()

    def leave_step(self) -> None:
        """Say that the user code returned."""
        with self._lock:
            self._seeking += 1

    def relieve(self) -> bool:
        """Let more threads come if all that are awake stand in steps; tell whether to look again soon."""
        with self._lock:
            self._is_strained = False
            if not self._ready:  # looked at after that: whoever comes later says so anew
                return False
            self._is_strained = True
            wanted, self._growth = (self._growth, self._growth * 2) if self._seeking == 0 else (0, 1)
            wanted = min(wanted, len(self._ready))
        for _ in range(wanted):
            self._come(may_add=True)
        return True

    def end(self) -> None:
        """Let the threads end when nothing is ready any more. Does not wait for them."""
        with self._lock:
            self._is_ended = True
            idle, self._idle = self._idle, []
            self._seeking += len(idle)
        for sleeper in idle:
            sleeper.release()

    def _come(self, may_add: bool = False) -> None:
        """Wake a thread; without one, start it if it is the first or if more are wanted."""
        with self._lock:
            if not (self._ready and self._seeking == 0) and not may_add:
                return
            if self._idle:
                self._seeking += 1
                self._idle.pop().release()
                return
            is_added = self._count < self._threads_max and (may_add or self._count == 0)
            self._seeking += is_added
            self._count += is_added
            number = self._count
        if is_added:
            threading.Thread(target=self._serve, name=f"saga-worker-{number}", daemon=True).start()
        else:
            self._strain()

    def _strain(self) -> None:
        if not self._is_strained:
            self._is_strained = True
            self._on_strain()

    def _serve(self) -> None:
        """Be one of the threads."""
        sleeper = threading.Lock()
        sleeper.acquire()
        while True:
            try:
                work = self._ready.popleft()
            except IndexError:
                if not self._rest(sleeper):
                    return
                continue
            try:
                work()
            except BaseException:  # a thread that died of it would leave all other executions waiting
                _logger.exception("a thread of the worker met an unexpected error; it goes on")

    def _rest(self, sleeper: threading.Lock) -> bool:
        """Sleep until there may be work; False: the thread is to end."""
        with self._lock:
            self._seeking -= 1
            if self._ready:
                self._seeking += 1
                return True
            if self._is_ended:
                self._count -= 1
                return False
            self._idle.append(sleeper)
        sleeper.acquire()
        return True
