"""Alarms: one thread of an engine that calls functions when their time has come, however many are set.

Alarms that are set for the same length of time ring in the order in which they were set. So there is one ordered
queue for each length, and setting or cancelling an alarm is one operation on a dict, which no number of others slows
down: nearly all alarms are time-outs that are cancelled long before they would ring.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable

__all__ = ["Alarm", "Alarms"]

_logger = logging.getLogger("saga_engine")


class Alarm:
    """One alarm; `Alarms.set` makes it."""

    __slots__ = ("at_s", "is_in_background", "length_s", "ring")

    def __init__(self, length_s: float, ring: Callable[[], None], is_in_background: bool) -> None:
        self.length_s = length_s
        self.ring = ring
        self.is_in_background = is_in_background
        self.at_s = time.monotonic() + length_s


class Alarms:
    """The alarms of one engine; usable from any thread. Their thread starts with the first one."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._changed = threading.Condition()
        #: the alarms that are set, by their length in seconds; the keys of a queue are in the order of their time
        self._queues: dict[float, dict[Alarm, None]] = {}
        self._wakes_at_s = 0.0
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def set(self, length_s: float, ring: Callable[[], None], *, is_in_background: bool = False) -> Alarm:
        """Let `ring` be called in this many seconds, in the thread of the alarms.

        Args:
            length_s: seconds from now.
            ring: must not wait for long, as all other alarms wait for it; what it raises is logged.
            is_in_background: `close` forgets it.
        """
        if self._pid != os.getpid():  # the parent's thread is not here, and what it waited for is not either
            self._begin()
        alarm = Alarm(length_s, ring, is_in_background)
        with self._changed:
            self._queues.setdefault(length_s, {})[alarm] = None
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="saga-alarms", daemon=True)
                self._thread.start()
            elif alarm.at_s < self._wakes_at_s:
                self._changed.notify()
        return alarm

    def cancel(self, alarm: Alarm) -> None:
        """Let it not ring; does nothing if it has rung, or rings just now."""
        if self._pid == os.getpid():
            with self._changed:
                self._remove(alarm)

    def close(self) -> None:
        """Forget what is set in the background; the thread ends once no other alarm is set."""
        if self._pid != os.getpid():
            return
        with self._changed:
            self._is_closed = True
            for alarm in [alarm for queue in self._queues.values() for alarm in queue if alarm.is_in_background]:
                self._remove(alarm)
            self._changed.notify()

    def _remove(self, alarm: Alarm) -> None:
        queue = self._queues.get(alarm.length_s)
        if queue is not None:
            queue.pop(alarm, None)
            if not queue:
                del self._queues[alarm.length_s]

    def _run(self) -> None:
        while due := self._wait():
            for alarm in due:
                try:
                    alarm.ring()
                except Exception:
                    _logger.exception("an alarm raised; the others go on")

    def _wait(self) -> list[Alarm]:
        """Wait until alarms are due, and take them out; none: the thread is to end."""
        with self._changed:
            while True:
                if self._is_closed and not self._queues:
                    self._thread = None
                    return []
                now = time.monotonic()
                if due := self._take_due(now):
                    return due
                self._wakes_at_s = min((next(iter(q)).at_s for q in self._queues.values()), default=float("inf"))
                self._changed.wait(min(self._wakes_at_s - now, threading.TIMEOUT_MAX))

    def _take_due(self, now: float) -> list[Alarm]:
        due: list[Alarm] = []
        for queue in self._queues.values():
            for alarm in queue:
                if alarm.at_s > now:
                    break
                due.append(alarm)
        for alarm in due:
            self._remove(alarm)
        return sorted(due, key=lambda alarm: alarm.at_s)
