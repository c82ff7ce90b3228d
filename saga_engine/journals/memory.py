"""The journal in memory: for tests and for work that may be lost; the same rules and codec, no disk."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

from saga_engine.errors import JournalError, LeaseLost, SagaError, UnknownExecution
from saga_engine.journal import (
    ENTRY_VERSION,
    AlreadyStarted,
    AppendResult,
    Commit,
    Committed,
    Entry,
    Header,
    InboxPending,
    Loaded,
    Opening,
    SagaStatus,
    encode_entries,
)
from saga_engine.journals.commits import GroupCommit, Task
from saga_engine.journals.process import ProcessIdentity, identify
from saga_engine.journals.rows import (
    FIRST_EPOCH,
    check_commit,
    decode_messages,
    decode_response,
    decode_rows,
    encode_message,
    encode_response,
    lease_lost,
)

__all__ = ["MemoryJournal"]

Row = tuple[int, int, bytes]


class _Execution:
    """One execution: its header's fields and its rows, all as a database would hold them."""

    def __init__(self, eid: int, opening: Opening, at: float) -> None:
        self.eid = eid
        self.opening = opening
        self.epoch = FIRST_EPOCH
        self.status = SagaStatus.RUNNING
        self.is_in_flight = True
        self.drive: str | None = None
        self.due_at: float | None = None
        self.told: bytes | None = None
        self.response: bytes | None = None
        self.created_at = at
        self.updated_at = at
        self.stuck: str | None = None
        self.rows: list[Row] = []
        self.inbox: list[Row] = []

    def refusal(self, commit: Commit) -> InboxPending | None:
        """Check the fence and the inbox.

        Raises:
            LeaseLost: another drive holds the execution.
        """
        holds = self.epoch == commit.epoch and (commit.take or self.drive == commit.drive)
        if not holds or commit.seq != len(self.rows) + 1:
            raise lease_lost(commit)
        if any(message[0] not in commit.drained for message in self.inbox):
            return InboxPending(decode_messages(self.inbox))
        return None

    def accept(self, commit: Commit, body: bytes) -> None:
        """Take the commit in; nothing here can fail."""
        self.rows.append((commit.seq, ENTRY_VERSION, body))
        if commit.drained:
            self.inbox = [message for message in self.inbox if message[0] not in commit.drained]
        if commit.take and commit.opening is None:
            self.epoch += 1
            self.stuck = None
        if commit.release is not None:
            self._release(commit)
        elif commit.take or commit.opening is not None:
            self._hold(commit)
        elif commit.status is SagaStatus.COMPENSATING and self.status is not commit.status:
            self.status, self.updated_at = commit.status, commit.at

    def _hold(self, commit: Commit) -> None:
        self.is_in_flight = True
        self.drive = commit.drive
        self.due_at = self.told = None
        self.status, self.updated_at = commit.status, commit.at

    def _release(self, commit: Commit) -> None:
        assert commit.release is not None
        self.is_in_flight = False
        self.drive = None
        self.due_at = commit.release.due_at
        self.told = encode_response(commit.release.told)
        self.response = encode_response(commit.release.response)
        self.status, self.updated_at = commit.status, commit.at

    def is_recoverable(self, now: float) -> bool:
        """Tell whether nobody holds it and it can go on."""
        if self.is_in_flight:
            return self.drive is None
        is_due = self.due_at is not None and self.due_at <= now
        return is_due or (bool(self.inbox) and not self.status.is_ended)

    def header(self, process: ProcessIdentity) -> Header:
        """Give the header as a caller sees it."""
        is_held = self.drive is not None
        return Header(
            eid=self.eid,
            saga_id=self.opening.saga_id,
            generation=self.opening.generation,
            saga=self.opening.saga,
            status=self.status,
            epoch=self.epoch,
            created_at=self.created_at,
            updated_at=self.updated_at,
            drive=self.drive,
            process=process.id if is_held else None,
            held_by=f"{process.host}:{process.pid}" if is_held else None,
            due_at=self.due_at,
            told=decode_response(self.told),
            response=decode_response(self.response),
            stuck=self.stuck,
        )


class MemoryJournal:
    """A journal that ends with its process."""

    def __init__(self, url: str = "memory://") -> None:
        """Begin an empty journal."""
        self.url = url
        self._lock = threading.RLock()
        self._process = identify()
        self._executions: dict[int, _Execution] = {}
        self._generations: dict[str, dict[int, _Execution]] = {}
        #: What `recoverable` looks through: it must not slow down with the executions that ended.
        self._unfinished: set[int] = set()
        self._message_id = 0
        self._is_closed = False
        self._commits: GroupCommit[MemoryJournal] = GroupCommit(self._write, name="saga-journal-writer")

    def append(self, commit: Commit) -> AppendResult:
        """Append; see `Journal.append`."""
        check_commit(commit)
        body = encode_entries(commit.entries)
        with self._lock:
            self._refuse_if_unusable()
            return self._append(commit, body)

    def submit(self, commit: Commit, done: Callable[[AppendResult | BaseException], None]) -> None:
        """Append without blocking; see `Journal.submit`."""
        check_commit(commit)
        body = encode_entries(commit.entries)
        self._refuse_if_unusable()
        self._commits.submit(lambda journal: journal._append(commit, body), done)

    def header(self, saga_id: str, generation: int | None = None) -> Header | None:
        """Find a header; see `Journal.header`."""
        with self._lock:
            self._refuse_if_unusable()
            generations = self._generations.get(saga_id)
            if not generations:
                return None
            found = generations.get(max(generations) if generation is None else generation)
            return None if found is None else found.header(self._process)

    def load(self, eid: int) -> Loaded:
        """Read the whole execution; see `Journal.load`."""
        with self._lock:
            execution = self._find(eid)
            rows, inbox = list(execution.rows), list(execution.inbox)
        return decode_rows(rows, inbox)

    def is_held(self, header: Header) -> bool:
        """Tell whether a drive holds the execution: its process is this one, which lives."""
        self._refuse_if_unusable()
        return header.drive is not None

    def put(self, eid: int, entry: Entry) -> None:
        """Leave a message in the inbox; see `Journal.put`."""
        body = encode_message(entry)
        with self._lock:
            execution = self._find(eid)
            self._message_id += 1
            execution.inbox.append((self._message_id, ENTRY_VERSION, body))

    def search(
        self,
        *,
        status: SagaStatus | None = None,
        saga: str | None = None,
        stuck: bool = False,
        limit: int = 100,
        before: int | None = None,
    ) -> list[Header]:
        """List headers, newest first; see `Journal.search`."""
        with self._lock:
            self._refuse_if_unusable()
            found = (
                execution
                for execution in reversed(self._executions.values())
                if (before is None or execution.eid < before)
                and (status is None or execution.status is status)
                and (saga is None or execution.opening.saga == saga)
                and (not stuck or execution.stuck is not None)
            )
            return self._headers(found, limit)

    def recoverable(self, *, now: float, after: int = 0, limit: int = 100) -> list[Header]:
        """List what nobody holds and can go on, oldest first; see `Journal.recoverable`."""
        with self._lock:
            self._refuse_if_unusable()
            unfinished = (self._executions[eid] for eid in sorted(self._unfinished) if eid > after)
            found = (execution for execution in unfinished if execution.is_recoverable(now))
            return self._headers(found, limit)

    def note_stuck(self, header: Header, reason: str, at: float) -> None:
        """Note why nobody can drive this execution; see `Journal.note_stuck`."""
        with self._lock:
            execution = self._find(header.eid)
            if execution.epoch == header.epoch:
                execution.stuck = reason

    def abandon(self, eid: int, epoch: int) -> None:
        """Give up a lease without an entry; see `Journal.abandon`."""
        with self._lock:
            execution = self._executions.get(eid)
            if execution is not None and execution.epoch == epoch:
                execution.drive = None

    def close(self) -> None:
        """Answer what was submitted, and forget everything; see `Journal.close`."""
        self._commits.close()
        with self._lock:
            self._is_closed = True
            self._executions.clear()
            self._generations.clear()
            self._unfinished.clear()

    def _write(self, tasks: list[Task[MemoryJournal]], outcomes: list[Any]) -> None:
        """Carry out what was submitted."""
        with self._lock:
            outcomes += [self._attempt(task) for task in tasks]

    def _attempt(self, task: Task[MemoryJournal]) -> Any:
        try:
            return task(self)
        except (LeaseLost, SagaError) as refusal:
            return refusal

    def _append(self, commit: Commit, body: bytes) -> AppendResult:
        if commit.opening is not None:
            execution = self._open(commit, commit.opening)
            if execution is None:
                return AlreadyStarted()
        else:
            execution = self._executions.get(commit.eid or 0)
            if execution is None:
                raise lease_lost(commit)
            pending = execution.refusal(commit)
            if pending is not None:
                return pending
        execution.accept(commit, body)
        if execution.is_in_flight or not execution.status.is_ended:
            self._unfinished.add(execution.eid)
        else:
            self._unfinished.discard(execution.eid)
        return Committed(execution.eid, execution.epoch)

    def _open(self, commit: Commit, opening: Opening) -> _Execution | None:
        generations = self._generations.setdefault(opening.saga_id, {})
        if opening.generation in generations:
            return None
        eid = len(self._executions) + 1
        execution = _Execution(eid, opening, commit.at)
        self._executions[eid] = generations[opening.generation] = execution
        return execution

    def _find(self, eid: int) -> _Execution:
        self._refuse_if_unusable()
        try:
            return self._executions[eid]
        except KeyError:
            raise UnknownExecution(f"no execution has the number {eid} in {self.url}") from None

    def _headers(self, found: Iterable[_Execution], limit: int) -> list[Header]:
        return [execution.header(self._process) for execution in islice(found, limit)]

    def _refuse_if_unusable(self) -> None:
        if self._is_closed:
            raise JournalError("the journal is closed: open it again")
        if os.getpid() != self._process.pid:
            raise JournalError("a journal in memory does not reach into a forked process: use one in SQLite")
