"""The connections of one process to a journal file: one that writes, under the group commit, a few that read.

None of them may be open while the process forks. SQLite keeps, in the memory of the process, which locks it
holds; a forked child inherits that memory without the locks, and its own connections to the same file then take
none. Nothing would keep the parent from deleting the write-ahead log under the child when it closes the journal,
and with it whatever the child commits afterwards. So a fork waits for the transaction under way, the connections
are closed, and both processes open theirs again when they need them.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from saga_engine.errors import JournalError, JournalUnavailable, LeaseLost, NotJSON, SagaError
from saga_engine.journals.commits import GroupCommit, Task
from saga_engine.journals.heart import Heart
from saga_engine.journals.process import ProcessIdentity, boot_clock_s, identify
from saga_engine.journals.sqlite_file import begin, connect, open_file, opening, translated

__all__ = ["READERS_MAX", "SqliteSession", "Transaction"]

#: The most connections that read at the same time: each has a page cache of its own.
READERS_MAX = 4

#: How long a fork waits for the journal to come to rest.
PAUSE_MAX_S = 5.0

_logger = logging.getLogger("saga_engine.journal")

Result = TypeVar("Result")


class Transaction:
    """What a task may do: execute statements, and say that it takes a lease, which needs a fresh heartbeat."""

    __slots__ = ("execute", "takes_lease")

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.execute = connection.execute
        self.takes_lease = False


class _TaskFailed(Exception):
    """One task of a batch failed, so that the whole transaction must be undone; the cause says why."""


class SqliteSession:
    """Everything of a journal that must not outlive its process: connections, threads, identity.

    Args:
        path: the journal file.
        heartbeat_s: seconds between two heartbeats while a lease is held.
        write_beat: writes the heartbeat of a process, at a time of the boot clock, in a transaction.
        write_abandon: gives up a lease (eid, epoch), in a transaction.

    Raises:
        JournalError: one of its kinds, see `open_journal`.
    """

    def __init__(
        self,
        path: Path,
        heartbeat_s: float,
        write_beat: Callable[[Transaction, ProcessIdentity, float], None],
        write_abandon: Callable[[Transaction, int, int], None],
    ) -> None:
        self.path = path
        self.process = identify()
        self.commits: GroupCommit[Transaction] = GroupCommit(self._write, name="saga-journal-writer")
        self.heart = Heart(self._beat, self._abandon, heartbeat_s)
        self._heartbeat_s = heartbeat_s
        self._write_beat = write_beat
        self._write_abandon = write_abandon
        self._beat_s: float | None = None
        self._readers: list[sqlite3.Connection] = []
        self._is_closed = False
        self._reading = threading.BoundedSemaphore(READERS_MAX)
        # Under the lock that a fork takes as well: it must find every connection that is open.
        with opening:
            _refuse_if_inherited(path)
            self._writer: sqlite3.Connection | None = open_file(path)
            self._inode = _inode(path)
            _sessions.add(self)

    @property
    def is_of_this_process(self) -> bool:
        """Whether this process opened it, not the one that it was forked from."""
        return self.process.pid == os.getpid()

    @property
    def is_connected(self) -> bool:
        """Whether a connection is open."""
        return self._writer is not None or bool(self._readers)

    def read(self, query: Callable[[sqlite3.Connection], Result]) -> Result:
        """Run the query on a connection of its own, as of one moment."""
        with self._reading, translated(self.path):
            if self._is_closed:
                raise JournalError("the journal is closed: open it again")
            connection = self._readers.pop() if self._readers else connect(self.path)
            try:
                connection.execute("BEGIN")
                result = query(connection)
                connection.execute("COMMIT")
            except BaseException:
                connection.close()
                raise
            self._readers.append(connection)
            return result

    def close(self, last: Task[Transaction]) -> None:
        """Let everything queued and the last task be written, end the threads, close the connections."""
        self.heart.close()
        self.commits.close()
        try:
            self._write([last], [])
        finally:
            self._is_closed = True
            self._stop_reading()
            self._disconnect()
            self._let_read()

    def pause(self) -> bool:
        """Come to rest for a fork, with no connection open; tell whether that worked."""
        if not self.commits.hold(PAUSE_MAX_S):
            return False
        self._stop_reading()
        self._disconnect()
        return True

    def resume(self) -> None:
        """Go on after a `pause`; the connections come back when they are needed."""
        self._let_read()
        self.commits.resume()

    def _stop_reading(self) -> None:
        """Wait for those who read, and let nobody begin to."""
        for _ in range(READERS_MAX):
            self._reading.acquire()

    def _let_read(self) -> None:
        for _ in range(READERS_MAX):
            self._reading.release()

    def _disconnect(self) -> None:
        connections = [*self._readers, *([self._writer] if self._writer is not None else [])]
        self._readers, self._writer = [], None
        for connection in connections:
            connection.close()

    # --- writing, always in the one thread that leads the group commit ---

    def _write(self, tasks: list[Task[Transaction]], outcomes: list[Any]) -> None:
        """Carry out the tasks in one transaction, or each in its own if one of them breaks it; see `Write`."""
        try:
            with translated(self.path):
                self._transact(tasks, outcomes)
        except _TaskFailed:
            for task in tasks:
                self._write_alone(task, outcomes)

    def _write_alone(self, task: Task[Transaction], outcomes: list[Any]) -> None:
        """Carry out one task in a transaction of its own, so that its failure is nobody else's."""
        try:
            with translated(self.path):
                try:
                    self._transact([task], outcomes)
                except _TaskFailed as failed:
                    raise failed.__cause__ or failed from None
        except (OverflowError, UnicodeEncodeError) as error:
            refusal = NotJSON(f"a value cannot be stored ({error}): send proper Unicode text and smaller numbers")
            refusal.__cause__ = error
            outcomes.append(refusal)
        except Exception as error:
            outcomes.append(error)

    def _transact(self, tasks: list[Task[Transaction]], outcomes: list[Any]) -> None:
        connection = self._connected()
        results: list[Any] = []
        try:
            begin(connection)
            transaction = Transaction(connection)
            results += [_attempt(task, transaction) for task in tasks]
            beat_s = self._beat_along(transaction)
            connection.execute("COMMIT")
        except BaseException as error:
            is_interrupt = not isinstance(error, Exception)
            if is_interrupt and results and not connection.in_transaction:
                # It came after the commit, which is what the others in the batch must hear.
                outcomes += results
            self._undo(connection)
            raise
        outcomes += results
        self._beat_s = beat_s or self._beat_s

    def _beat_along(self, transaction: Transaction) -> float | None:
        """Write the heartbeat if it is due and a lease is held or taken; give its time."""
        if not (transaction.takes_lease or self.heart.holds):
            return None
        now_s = boot_clock_s()
        # Half: a beat that rode along with a taking must not make the next one of the heart's thread wait for two.
        if self._beat_s is not None and now_s - self._beat_s < self._heartbeat_s / 2:
            return None
        self._write_beat(transaction, self.process, now_s)
        return now_s

    def _connected(self) -> sqlite3.Connection:
        if _inode(self.path) != self._inode:
            # What is written to a file without a name is lost with the last connection.
            raise JournalUnavailable(f"{self.path} was removed or replaced while it was open: put it back")
        if self._writer is None:
            self._writer = connect(self.path)
        return self._writer

    def _undo(self, connection: sqlite3.Connection) -> None:
        """End a transaction that failed; a connection that cannot even do that is thrown away."""
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._writer = None
            connection.close()

    def _beat(self) -> None:
        """Let a transaction pass: the heartbeat rides along if it is due."""
        self.commits.run(lambda transaction: None)

    def _abandon(self, eid: int, epoch: int) -> None:
        self.commits.run(lambda transaction: self._write_abandon(transaction, eid, epoch))


def _attempt(task: Task[Transaction], transaction: Transaction) -> Any:
    """Carry out one task; a refusal is an outcome like any other, since nothing was written before it."""
    try:
        return task(transaction)
    except (LeaseLost, SagaError) as refusal:
        return refusal
    except Exception as error:
        raise _TaskFailed from error


def _inode(path: Path) -> tuple[int, int]:
    """Tell one file from another of the same name."""
    try:
        status = path.stat()
    except OSError:
        return (0, 0)
    return (status.st_dev, status.st_ino)


# --- forks ---------------------------------------------------------------------------------------------------

_sessions: weakref.WeakSet[SqliteSession] = weakref.WeakSet()
_paused: list[SqliteSession] = []
#: Sessions that a fork copied with their connections open. They are kept: even closing them would do harm.
_inherited: list[SqliteSession] = []


def _refuse_if_inherited(path: Path) -> None:
    if any(session.path == path for session in _inherited):
        raise JournalUnavailable(
            f"{path}: this process was forked in the middle of a commit and cannot use the journal safely; "
            f"start it by spawn or forkserver instead"
        )


def _before_fork() -> None:
    opening.acquire()
    for session in list(_sessions):
        if session.pause():
            _paused.append(session)
        else:
            _logger.warning("%s did not come to rest for a fork: the child cannot use it", session.path)


def _after_fork_in_parent() -> None:
    for session in _paused:
        session.resume()
    _paused.clear()
    opening.release()


def _after_fork_in_child() -> None:
    _inherited.extend(session for session in _sessions if session.is_connected)
    _sessions.clear()
    _paused.clear()
    opening.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
