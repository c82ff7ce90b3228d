"""A clock that only a test moves, so that no test waits."""

from __future__ import annotations

__all__ = ["ManualClock"]


class ManualClock:
    """A clock that moves when it is told to, or when somebody sleeps on it; for `Engine(clock=...)`.

    Args:
        now_s: where it begins, in Unix seconds.

    Attributes:
        slept_s: every wait so far, in seconds.
    """

    def __init__(self, now_s: float = 1_700_000_000.0) -> None:
        self._now_s = now_s
        self.slept_s: list[float] = []

    def now(self) -> float:
        """Give the time in Unix seconds."""
        return self._now_s

    def monotonic(self) -> float:
        """Give the same: this clock goes backward only if a test makes it."""
        return self._now_s

    def advance(self, seconds: float) -> None:
        """Let so much time pass."""
        self._now_s += seconds

    def sleep(self, seconds: float) -> None:
        """Let so much time pass and remember it, without waiting."""
        self.slept_s.append(seconds)
        self.advance(seconds)

    async def asleep(self, seconds: float) -> None:
        """Do what `sleep` does."""
        self.sleep(seconds)
