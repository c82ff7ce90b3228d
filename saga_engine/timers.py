"""What waits in this process for a moment: one heap for all short waits, whoever serves it."""

from __future__ import annotations

import heapq
from collections.abc import Callable

__all__ = ["Timer", "Timers"]

#: Wall time that runs ahead of monotonic time by more than this, in seconds, was set forward.
JUMP_S = 0.5
#: So many cancelled timers may stay in the heap before it is looked at.
_CANCELLED_MAX = 256


class Timer:
    """One wait; `wake` is called when it is over, None if nobody waits any more."""

    __slots__ = ("at_s", "until_s", "wake")

    def __init__(self, wake: Callable[[], None], at_s: float, until_s: float | None) -> None:
        self.wake: Callable[[], None] | None = wake
        self.at_s = at_s
        self.until_s = until_s

    def __lt__(self, other: Timer) -> bool:
        """Order by the moment."""
        return self.at_s < other.at_s


class Timers:
    """Waits in this process, by monotonic time, which nobody can set. Not safe for use by several threads at once.

    A wait for a wall time (`until_s`) is over when that much time has passed, or at once when the clock is set
    forward beyond it. A clock that is set back neither ends nor prolongs it.
    """

    def __init__(self) -> None:
        self._heap: list[Timer] = []
        self._cancelled = 0
        #: Wall time less monotonic time, as last seen.
        self._ahead_s: float | None = None

    def __len__(self) -> int:
        """Count those that somebody waits for."""
        return len(self._heap) - self._cancelled

    def add(self, wake: Callable[[], None], at_s: float, until_s: float | None = None) -> Timer:
        """Wait until `at_s` (monotonic) or, if the clock is set forward, until `until_s` (Unix seconds)."""
        timer = Timer(wake, at_s, until_s)
        heapq.heappush(self._heap, timer)
        return timer

    def cancel(self, timer: Timer) -> None:
        """Forget a wait that is no longer needed, whether or not it is over."""
        if timer.wake is None:
            return
        timer.wake = None
        self._cancelled += 1
        if self._cancelled > _CANCELLED_MAX and self._cancelled * 2 > len(self._heap):
            self._rebuild([timer for timer in self._heap if timer.wake is not None])

    def next_s(self) -> float | None:
        """Give the monotonic time of the earliest wait; None: there is none."""
        while self._heap and self._heap[0].wake is None:
            heapq.heappop(self._heap)
            self._cancelled -= 1
        return self._heap[0].at_s if self._heap else None

    def due(self, monotonic_s: float, now_s: float) -> list[Callable[[], None]]:
        """Take out the waits that are over at this monotonic and this wall time, earliest first."""
        found = []
        while (at_s := self.next_s()) is not None and at_s <= monotonic_s:
            found.append(heapq.heappop(self._heap))
        ahead_s = now_s - monotonic_s
        if self._ahead_s is not None and ahead_s > self._ahead_s + JUMP_S:
            found += self._jumped_over(now_s)
        self._ahead_s = ahead_s
        return [_taken(timer) for timer in found if timer.wake is not None]

    def _jumped_over(self, now_s: float) -> list[Timer]:
        jumped = [timer for timer in self._heap if timer.until_s is not None and timer.until_s <= now_s]
        self._rebuild([t for t in self._heap if t.wake is not None and (t.until_s is None or t.until_s > now_s)])
        return sorted(jumped)

    def _rebuild(self, timers: list[Timer]) -> None:
        heapq.heapify(timers)
        self._heap, self._cancelled = timers, 0


def _taken(timer: Timer) -> Callable[[], None]:
    """Give what the timer wakes; to cancel it from now on changes nothing."""
    wake, timer.wake = timer.wake, None
    assert wake is not None, "a cancelled timer was left out"
    return wake
