"""Group commit: writers that arrive together share one transaction, a lone writer commits in its own thread.

Whoever finds nobody committing *leads*: it takes everything queued, commits it in one transaction, wakes the
rest and hands the lead on. The next transaction fills up while this one waits for the disk, so the busier the
journal, the larger the batches, with no timer and no tuning.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from saga_engine.errors import JournalError, JournalUnavailable

__all__ = ["BATCH_MAX", "GroupCommit", "Task", "Write"]

#: The most tasks in one transaction: bounds how long its first member waits for the others.
BATCH_MAX = 512

_logger = logging.getLogger("saga_engine.journal")

Writer = TypeVar("Writer")

#: What somebody wants written. It gives its result, or raises a refusal before it has written anything. It may be
#: called again if the transaction is repeated, so it must change nothing but what it is given.
Task = Callable[[Writer], Any]


#: Carries out a batch of tasks durably: appends to the second list one result or exception per task, in order, once
#: the task is on disk or refused. If it raises, nothing is kept of the tasks that have no outcome.
Write = Callable[[list[Task[Writer]], list[Any]], None]

#: The outcome of a ticket that has none yet.
_NONE_YET = object()


class _Ticket(Generic[Writer]):
    """One task in the queue, and the place where its outcome is put."""

    __slots__ = ("done", "outcome", "task", "turn")

    def __init__(self, task: Task[Writer], done: Callable[[Any], None] | None = None) -> None:
        self.task = task
        self.done = done
        self.outcome: Any = _NONE_YET
        #: Held until the outcome is there or the lead is handed to it; None if nobody waits.
        self.turn: threading.Lock | None = None


class GroupCommit(Generic[Writer]):
    """Bring the tasks of many threads into few transactions.

    Args:
        write: carries out one batch; never called by two threads at once.
        name: the name of the thread that serves `submit`; it is started with the first one.
        batch_max: the most tasks in one transaction.
    """

    def __init__(self, write: Write[Writer], *, name: str, batch_max: int = BATCH_MAX) -> None:
        self._write = write
        self._name = name
        self._batch_max = batch_max
        #: Guards all that follows. It is taken directly, as a Condition passes each taking on in Python code.
        self._mutex = threading.Lock()
        self._changed = threading.Condition(self._mutex)
        self._queue: deque[_Ticket[Writer]] = deque()
        self._batch: deque[_Ticket[Writer]] = deque()
        self._answered: deque[_Ticket[Writer]] = deque()
        #: Who leads: a ticket for its thread, the writer, a holder; None: nobody.
        self._leader: object = None
        self._serving = object()
        self._holding = object()
        self._is_hold_wanted = False
        self._is_closed = False
        self._writer: threading.Thread | None = None
        #: Whether it waits to be told, which costs too much to do for nothing with each of hundreds of tasks.
        self._is_writer_waiting = False

    def run(self, task: Task[Writer]) -> Any:
        """Carry out the task and return its result once the transaction is on disk.

        Raises:
            JournalUnavailable: the transaction failed; nothing of it is kept.
            BaseException: the task's own refusal.
        """
        ticket = _Ticket(task)
        try:
            turn = self._enqueue(ticket)
            if turn is not None:
                turn.acquire()
            if self._leader is ticket:
                self._commit()
        finally:
            try:
                self._leave(ticket)
            except BaseException:
                # Interrupted right here: a lead that is not handed on would stop every writer for ever.
                self._leave(ticket)
                self._wake_leader()
                raise
        if isinstance(ticket.outcome, BaseException):
            raise ticket.outcome
        return ticket.outcome

    def submit(self, task: Task[Writer], done: Callable[[Any], None]) -> None:
        """Queue the task; `done` gets its result or exception in the writer's thread, with no lock held."""
        with self._mutex:
            self._refuse_if_closed()
            self._queue.append(_Ticket(task, done))
            if self._writer is None:
                self._writer = threading.Thread(target=self._serve, name=self._name, daemon=True)
                self._writer.start()
            elif self._leader is None and self._is_writer_waiting:
                self._is_writer_waiting = False
                self._changed.notify_all()

    def hold(self, timeout_s: float) -> bool:
        """Wait for the transaction under way and let no other begin before `resume`; tell if that worked."""
        with self._mutex:
            self._is_hold_wanted = True
            if self._leader is None:
                self._leader = self._holding
            is_held = self._changed.wait_for(lambda: self._leader is self._holding, timeout_s)
            self._is_hold_wanted = False
            return is_held

    def resume(self) -> None:
        """End a `hold`."""
        try:
            with self._mutex:
                self._hand_on()
        except BaseException:  # interrupted, as above
            with self._mutex:
                if self._leader is self._holding:
                    self._hand_on()
            self._wake_leader()
            raise

    def close(self) -> None:
        """Refuse what comes from now on, and wait until everything queued is committed and answered."""
        with self._mutex:
            self._is_closed = True
            self._changed.notify_all()
            writer = self._writer
        if writer is not None and writer is not threading.current_thread():
            writer.join()
        with self._mutex:
            self._changed.wait_for(lambda: self._leader is None and not self._queue)

    def _refuse_if_closed(self) -> None:
        if self._is_closed:
            raise JournalError("the journal is closed: open it again")

    def _enqueue(self, ticket: _Ticket[Writer]) -> threading.Lock | None:
        """Queue the ticket; its thread leads if nobody does, else it waits for the lock that is returned."""
        with self._mutex:
            self._refuse_if_closed()
            self._queue.append(ticket)
            if self._leader is None:
                self._leader = ticket
            else:
                ticket.turn = threading.Lock()
                ticket.turn.acquire()
            return ticket.turn

    def _commit(self) -> None:
        """Commit one batch of what is queued, and put each outcome into its ticket; only the leader does this."""
        with self._mutex:
            while self._queue and len(self._batch) < self._batch_max:
                self._batch.append(self._queue.popleft())
            batch = tuple(self._batch)
        outcomes: list[Any] = []
        try:
            self._write([ticket.task for ticket in batch], outcomes)
        except Exception as error:
            outcomes += [_copy(error) for _ in batch[len(outcomes) :]]
        finally:
            for ticket, outcome in zip(batch, outcomes, strict=False):
                ticket.outcome = outcome

    def _leave(self, ticket: _Ticket[Writer]) -> None:
        """Make sure that nothing depends any more on the thread that waited with this ticket."""
        if self._leader is not ticket and ticket.outcome is not _NONE_YET:
            return
        with self._mutex:
            if ticket in self._queue:
                self._queue.remove(ticket)
            if self._leader is ticket:
                self._hand_on()

    def _hand_on(self) -> None:
        """Answer the batch, and give the lead to who wants to hold, else to the next; the mutex is held."""
        while self._batch:
            self._answer(self._batch[0])
            self._batch.popleft()
        heir = None if self._is_hold_wanted else self._heir()
        # First: whoever is woken looks at once whether it leads, and takes itself for left out if it does not.
        self._leader = self._holding if self._is_hold_wanted else heir
        if heir is not None and heir.turn is not None:
            heir.turn.release()
        if self._answered or self._queue or self._is_closed or self._leader is self._holding:
            self._changed.notify_all()

    def _answer(self, ticket: _Ticket[Writer]) -> None:
        """Wake the thread that waits; callbacks are the writer's work, whoever led."""
        if ticket.outcome is _NONE_YET:
            ticket.outcome = JournalUnavailable("the thread that led the commit was interrupted: try again")
        if ticket.done is not None:
            self._answered.append(ticket)
        elif ticket.turn is not None and ticket.turn.locked():
            ticket.turn.release()

    def _wake_leader(self) -> None:
        """Wake the thread that leads, which whoever handed the lead on may have been kept from."""
        with self._mutex:
            leader = self._leader
            if isinstance(leader, _Ticket) and leader.turn is not None and leader.turn.locked():
                leader.turn.release()  # if it was awake, nobody waits for this any more

    def _heir(self) -> _Ticket[Writer] | None:
        """Choose the first thread that waits in `run`, else nobody: the writer was told, or somebody comes."""
        heir = next((ticket for ticket in self._queue if ticket.turn is not None), None)
        if heir is not None:
            # It must be in the batch that it leads, or it would wait for ever.
            self._queue.remove(heir)
            self._queue.appendleft(heir)
        return heir

    def _serve(self) -> None:
        """Be the writer: lead when nobody else does, and call back for whatever was submitted."""
        while True:
            with self._mutex:
                self._wait_until_needed()
                if self._leader is None and self._queue:
                    self._leader = self._serving
                elif not self._answered:
                    return
            if self._leader is self._serving:
                self._commit()
                with self._mutex:
                    self._hand_on()
            self._call_back()

    def _wait_until_needed(self) -> None:
        while not self._is_needed():
            self._is_writer_waiting = True
            self._changed.wait()
        self._is_writer_waiting = False

    def _is_needed(self) -> bool:
        """Tell whether the writer has something to do; when all is closed and done, that is to end."""
        is_idle = self._leader is None
        return bool(self._answered) or (is_idle and (bool(self._queue) or self._is_closed))

    def _call_back(self) -> None:
        with self._mutex:
            answered, self._answered = self._answered, deque()
        for ticket in answered:
            assert ticket.done is not None
            try:
                ticket.done(ticket.outcome)
            except Exception:
                _logger.exception("a callback of Journal.submit raised")


def _copy(error: Exception) -> Exception:
    """Give each member of a failed batch an exception of its own: threads must not share a traceback."""
    copy = type(error)(*error.args)
    copy.__cause__ = error
    return copy
