"""The indexes of the journal in memory: what must be found without looking through all executions."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from typing import Any

from saga_engine.journals.memory_execution import Execution

__all__ = ["Index"]

#: Sorts behind every number of an execution.
_LAST = float("inf")


class Index:
    """Executions by what they wait for. Whoever changes one takes it out first, and puts it back after."""

    def __init__(self) -> None:
        #: (due_at, eid), sorted: what waits for a time.
        self._due: list[tuple[float, float]] = []
        #: (updated_at, eid), sorted: what ended, has no mail and is not purged.
        self._ended: list[tuple[float, float]] = []
        #: What a drive left, and what has mail; nobody holds either.
        self._left: set[int] = set()
        self._mailed: set[int] = set()
        #: Who has each exclusive right, and who waits for it, sorted.
        self._holders: dict[str, Execution] = {}
        self._waiting: dict[str, list[int]] = {}

    def put(self, execution: Execution) -> None:
        """Put the execution where it belongs as it is now."""
        eid = execution.eid
        if execution.due_at is not None:
            insort(self._due, (execution.due_at, eid))
        if execution.awaits is not None:
            insort(self._waiting.setdefault(execution.awaits, []), eid)
        if execution.holds is not None:
            self._holders[execution.holds] = execution
        if execution.is_in_flight:
            if execution.drive is None:
                self._left.add(eid)
        elif execution.inbox:
            self._mailed.add(eid)
        elif execution.status.is_ended and not execution.is_purged:
            insort(self._ended, (execution.updated_at, eid))

    def take_out(self, execution: Execution) -> None:
        """Take the execution out of wherever `put` has put it; it must not have changed since."""
        eid = execution.eid
        if execution.due_at is not None:
            _discard(self._due, (execution.due_at, eid))
        if execution.awaits is not None:
            _discard(self._waiting[execution.awaits], eid)
            if not self._waiting[execution.awaits]:
                del self._waiting[execution.awaits]
        if execution.holds is not None:
            del self._holders[execution.holds]
        self._left.discard(eid)
        self._mailed.discard(eid)
        if execution.status.is_ended:
            _discard(self._ended, (execution.updated_at, eid))

    def recoverable(self, now: float) -> set[int]:
        """Give what nobody holds and can go on."""
        due = self._due[: bisect_right(self._due, (now, _LAST))]
        return {int(eid) for _, eid in due} | self._left | self._mailed

    def next_due(self, after: float) -> float | None:
        """Give the earliest due time after this one."""
        place = bisect_right(self._due, (after, _LAST))
        return self._due[place][0] if place < len(self._due) else None

    def ended(self, before: float, limit: int) -> list[int]:
        """Give what may be purged, oldest end first."""
        count = bisect_left(self._ended, (before, 0.0))
        return [int(eid) for _, eid in self._ended[: min(count, limit)]]

    def holder(self, right: str) -> Execution | None:
        """Give the execution that has the exclusive right."""
        return self._holders.get(right)

    def waiting(self, right: str) -> Iterator[int]:
        """Give the executions that wait for the exclusive right, the one that waits longest first."""
        return iter(self._waiting.get(right, ()))


def _discard(places: list[Any], key: object) -> None:
    """Remove the key from a sorted list, if it is there."""
    place = bisect_left(places, key)
    if place < len(places) and places[place] == key:
        del places[place]
