"""Endings of drives that were interrupted, could not be journaled, or were overtaken: no lease stays behind (S30).

Such a drive may still have calls in threads. What they give is taken in, each once, and by one thread: the one in which
the last of them returns, when whoever drove may be gone for long.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from functools import partial

from saga_engine.attempts import interrupted
from saga_engine.calls import Call, Result
from saga_engine.decider import full_id
from saga_engine.drive import Drive
from saga_engine.errors import JournalError, LeaseLost, SagaError
from saga_engine.journal import Journal, LateEffectFound

__all__ = ["Ending", "abandon", "leave_late_effect"]

_logger = logging.getLogger("saga_engine")


class Ending:
    """The end of one drive that something else than the drive itself ends.

    Args:
        drive: the drive.
        journal: its journal.
        cause: what ended it.

    Attributes:
        over: done when it has ended; raises what the journal raised that no ending can do anything about.
    """

    def __init__(self, drive: Drive, journal: Journal, cause: BaseException) -> None:
        self._drive = drive
        self._journal = journal
        self._cause = cause
        self._lock = threading.Lock()
        self._left: set[Future[Result]] = set()
        self._returned: list[tuple[Call, Result]] = []
        self._interrupted: list[Call] = []
        self.over: Future[None] = Future()

    def take(self, call: Call, result: Result | None) -> None:
        """Note what a call gave; None: it was interrupted."""
        with self._lock:
            if result is None:
                self._interrupted.append(call)
            else:
                self._returned.append((call, result))

    def begin(self, left: Mapping[Future[Result], Call] | None = None) -> None:
        """End the drive: here and now, or when the last of these has returned, in its thread."""
        self._left = set(left or ())
        if not left:
            self._end()
            return
        for future, call in left.items():
            future.add_done_callback(partial(self._take_last, call))

    def _take_last(self, call: Call, future: Future[Result]) -> None:
        self.take(call, None if future.cancelled() or future.exception() is not None else future.result())
        with self._lock:
            self._left.discard(future)
            is_last = not self._left
        if is_last:
            self._end()

    def _end(self) -> None:
        try:
            self._settle()
        except BaseException as error:
            _logger.error("%s: the end of a drive could not be journaled: %r", _name(self._drive), error)
            self.over.set_exception(error)
        else:
            self.over.set_result(None)

    def _settle(self) -> None:
        try:
            if not isinstance(self._cause, JournalError):
                self._journal_what_returned()
        except LeaseLost:
            self._leave_late_effects()
        except SagaError as error:
            _logger.warning("%s: given up without an entry: %s", _name(self._drive), error)
        finally:
            abandon(self._drive, self._journal)

    def _journal_what_returned(self) -> None:
        """Take in what calls gave and give the lease back with an entry, if it is still there."""
        for call, result in self._returned:
            self._drive.absorb(call, result)
        if isinstance(self._cause, LeaseLost):
            raise self._cause
        steps = self._drive.interruption(type(self._cause).__name__)
        with suppress(StopIteration):
            effect = next(steps)
            while True:
                effect = steps.send(self._journal.append(effect.commit))

    def _leave_late_effects(self) -> None:
        """Leave behind what steps did of which whoever holds the execution now knows nothing (J10)."""
        found = (self._drive.late_effect_of(call, interrupted(call)) for call in self._interrupted)
        _leave(self._drive, self._journal, [*self._drive.late_effects(), *(late for late in found if late is not None)])


def abandon(drive: Drive, journal: Journal) -> None:
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


def leave_late_effect(drive: Drive, journal: Journal, call: Call, result: Result) -> None:
    """Leave in the inbox what an abandoned call did (J10); runs where nobody takes an error."""
    late = drive.late_effect_of(call, result)
    if late is not None:
        _leave(drive, journal, [late])


def _leave(drive: Drive, journal: Journal, effects: Iterable[LateEffectFound]) -> None:
    for late in effects:
        eid = drive.position.eid
        assert eid is not None, "what is executed has been journaled before"
        try:
            journal.put(eid, late)
        except SagaError as error:
            _logger.error(
                "%s: step %r, attempt %d, came to its end late, and its effect could not be left in the journal: find "
                "out what it did, and undo it by hand if need be: %s",
                _name(drive),
                late.step,
                late.attempt,
                error,
            )


def _name(drive: Drive) -> str:
    return full_id(drive.state.saga_id, drive.state.generation)
