"""The heartbeat: while this process holds a lease, its one row in the journal says that it lives."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from saga_engine.errors import LeaseLost
from saga_engine.journal import AppendResult, Commit, Committed

__all__ = ["Heart"]

_logger = logging.getLogger("saga_engine.journal")


class Heart:
    """Know which leases this process holds, and beat while there are any.

    Args:
        beat: makes sure that the process's row in the journal is fresh if it holds a lease; may raise.
        abandon: gives up one lease (eid, epoch) in the journal; may raise.
        heartbeat_s: seconds between two beats.
    """

    def __init__(self, beat: Callable[[], None], abandon: Callable[[int, int], None], heartbeat_s: float) -> None:
        self._beat = beat
        self._abandon = abandon
        self._heartbeat_s = heartbeat_s
        self._changed = threading.Condition()
        self._held: set[tuple[int, int]] = set()
        self._given_up: set[tuple[int, int]] = set()
        self._thread: threading.Thread | None = None
        #: Whether the thread waits for a lease, and is to be told of one. Between two beats it would wake for nothing,
        #: with every saga of a process that has one at a time.
        self._is_idle = False
        self._is_closed = False

    @property
    def holds(self) -> bool:
        """Whether this process holds any lease."""
        return bool(self._held)

    def follow(self, commit: Commit, outcome: AppendResult | BaseException) -> None:
        """Learn from the outcome of a commit which lease this process holds now."""
        if isinstance(outcome, Committed):
            if commit.release is not None:
                self.drop(outcome.eid, commit.epoch)
            elif commit.take or commit.opening is not None:
                self._hold(outcome.eid, outcome.epoch)
        elif isinstance(outcome, LeaseLost) and commit.eid is not None:
            self.drop(commit.eid, commit.epoch)

    def drop(self, eid: int, epoch: int) -> None:
        """Forget a lease that was given back or lost."""
        with self._changed:
            self._held.discard((eid, epoch))

    def give_up(self, eid: int, epoch: int) -> None:
        """Remember a lease that the journal could not be told about, and tell it with a later beat."""
        with self._changed:
            self._held.discard((eid, epoch))
            self._given_up.add((eid, epoch))
            self._wake()

    def is_given_up(self, eid: int, epoch: int) -> bool:
        """Tell whether this process gave the lease up, though the journal does not say so yet."""
        return (eid, epoch) in self._given_up

    def close(self) -> None:
        """Stop beating, at once."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _hold(self, eid: int, epoch: int) -> None:
        with self._changed:
            self._held.add((eid, epoch))
            self._wake()

    def _wake(self) -> None:
        if self._thread is None and not self._is_closed:
            self._thread = threading.Thread(target=self._live, name="saga-journal-heartbeat", daemon=True)
            self._thread.start()
        if self._is_idle:
            self._is_idle = False
            self._changed.notify_all()

    def _live(self) -> None:
        while self._wait():
            self._try_to_tell()

    def _wait(self) -> bool:
        """Wait until a beat is due; tell whether to go on."""
        with self._changed:
            while not (self._is_closed or self._held or self._given_up):
                self._is_idle = True
                self._changed.wait()
            self._changed.wait_for(lambda: self._is_closed, self._heartbeat_s)
            return not self._is_closed

    def _try_to_tell(self) -> None:
        try:
            self._tell()
        except Exception:
            # The thread must outlive a full disk: the next beat may come through before the lease ends.
            _logger.exception("a heartbeat could not be written, trying again in %g s", self._heartbeat_s)

    def _tell(self) -> None:
        self._beat()
        for eid, epoch in tuple(self._given_up):
            self._abandon(eid, epoch)
            self._given_up.discard((eid, epoch))
