"""The watchdog: a step without a time-out that hangs keeps its execution's lease for so long and no longer (S24).

Watching a call costs two operations on a dict: calls are looked at when the oldest may have been at it too long.
"""

from __future__ import annotations

import logging
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING

from saga_engine.alarms import Alarms
from saga_engine.calls import Call
from saga_engine.decider import full_id
from saga_engine.journal import Journal

if TYPE_CHECKING:
    from saga_engine.drive import Drive

__all__ = ["HELD_MAX_S", "Watchdog"]

_logger = logging.getLogger("saga_engine")

#: How long a step without a time-out may keep its execution's lease by default, in seconds.
HELD_MAX_S = 3_600.0


class Watchdog:
    """Gives up the leases of drives whose step hangs; others may then take over.

    A step that comes back after that finds that the lease is lost, and what it did is left as a late effect (J10).

    Args:
        journal: where the leases are.
        alarms: of the engine.
        held_max_s: how many seconds a call may take.
    """

    def __init__(self, journal: Journal, alarms: Alarms, held_max_s: float = HELD_MAX_S) -> None:
        self._journal = journal
        self._alarms = alarms
        self._held_max_s = held_max_s
        self._watched: dict[_Watch, float] = {}
        self._arming = threading.Lock()
        self._is_armed = False

    def watching(self, drive: Drive, call: Call) -> _Watch:
        """Watch a call of a drive while the context lasts."""
        return _Watch(self, drive, call)

    def _arm(self, length_s: float) -> None:
        with self._arming:
            if not self._is_armed:
                self._is_armed = True
                self._alarms.set(length_s, self._look, is_in_background=True)

    def _look(self) -> None:
        """Give up what has taken too long, and look again when the next one may have."""
        self._is_armed = False  # first: who begins to watch from now on sees this, or is seen below
        now = time.monotonic()
        for watch, began_s in list(self._watched.items()):
            if began_s + self._held_max_s > now:
                self._arm(began_s + self._held_max_s - now)
                return
            if self._watched.pop(watch, None) is not None:
                self._give_up(watch)

    def _give_up(self, watch: _Watch) -> None:
        state, position = watch.drive.state, watch.drive.position
        if position.eid is None or not position.is_held:
            return
        _logger.error(
            "%s: %s of step %r hangs for more than held_max_s (%g s): others may take the execution over now; give the "
            "step a timeout_s",
            full_id(state.saga_id, state.generation),
            watch.call.operation,
            watch.call.step.name,
            self._held_max_s,
        )
        self._journal.abandon(position.eid, position.epoch)


class _Watch:
    """One call that is watched."""

    __slots__ = ("_watchdog", "call", "drive")

    def __init__(self, watchdog: Watchdog, drive: Drive, call: Call) -> None:
        self._watchdog = watchdog
        self.drive = drive
        self.call = call

    def __enter__(self) -> None:
        watchdog = self._watchdog
        watchdog._watched[self] = time.monotonic()
        if not watchdog._is_armed:
            watchdog._arm(watchdog._held_max_s)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._watchdog._watched.pop(self, None)
