"""The journal in memory: for tests and for work that may be lost; the same rules and codec, no disk."""

from __future__ import annotations

import heapq
import os
import threading
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

from saga_engine.errors import JournalError, LeaseLost, SagaError
from saga_engine.journal import (
    ENTRY_VERSION,
    AlreadyStarted,
    AppendResult,
    Commit,
    Committed,
    Entry,
    ExclusiveHeld,
    Header,
    Invalidation,
    Loaded,
    Opening,
    SagaStatus,
    encode_entries,
)
from saga_engine.journals.commits import GroupCommit, Task
from saga_engine.journals.memory_execution import Execution
from saga_engine.journals.memory_index import Index
from saga_engine.journals.process import identify
from saga_engine.journals.rows import check_commit, decode_rows, encode_message, lease_lost, unknown

__all__ = ["MemoryJournal"]


class MemoryJournal:
    """A journal that ends with its process."""

    def __init__(self, url: str = "memory://") -> None:
        """Begin an empty journal."""
        self.url = url
        self._lock = threading.RLock()
        self._process = identify()
        self._executions: dict[int, Execution] = {}
        self._generations: dict[str, dict[int, Execution]] = {}
        self._index = Index()
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
            execution = self._find_whole(eid)
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
            execution = self._find_whole(eid)
            self._message_id += 1
            self._index.take_out(execution)
            execution.inbox.append((self._message_id, ENTRY_VERSION, body))
            self._index.put(execution)

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

    def recoverable(
        self, *, now: float, after: int = 0, limit: int = 100, stuck_before: float | None = None
    ) -> list[Header]:
        """List what nobody holds and can go on, oldest first; see `Journal.recoverable`."""
        with self._lock:
            self._refuse_if_unusable()
            found = (self._executions[eid] for eid in self._index.recoverable(now) if eid > after)
            wanted = (execution for execution in found if not execution.is_stuck_since(stuck_before))
            return self._headers(heapq.nsmallest(limit, wanted, key=lambda execution: execution.eid), limit)

    def next_due(self, *, after: float) -> float | None:
        """Give the earliest due time after this one; see `Journal.next_due`."""
        with self._lock:
            self._refuse_if_unusable()
            return self._index.next_due(after)

    def purge(self, *, before: float, limit: int = 100) -> int:
        """Remove the entries of what ended long ago; see `Journal.purge`."""
        with self._lock:
            self._refuse_if_unusable()
            ended = [self._executions[eid] for eid in self._index.ended(before, limit)]
            for execution in ended:
                self._index.take_out(execution)
                execution.purge()
                self._index.put(execution)
            return len(ended)

    def note_stuck(self, header: Header, reason: str, at: float) -> None:
        """Note why nobody can drive this execution; see `Journal.note_stuck`."""
        with self._lock:
            execution = self._find(header.eid)
            if execution.epoch == header.epoch and not execution.is_purged:
                execution.stuck, execution.stuck_at = reason, at

    def abandon(self, eid: int, epoch: int) -> None:
        """Give up a lease without an entry; see `Journal.abandon`."""
        with self._lock:
            execution = self._executions.get(eid)
            if execution is not None and execution.epoch == epoch:
                self._index.take_out(execution)
                execution.drive = None
                self._index.put(execution)

    def put_invalidation(self, writer: str, cache: str, keys: str | None) -> None:
        """Keep nothing: whoever could ask is this process, which knows; see `InvalidationJournal`."""
        self._refuse_if_unusable()

    def invalidations(self, *, after: int) -> list[Invalidation]:
        """Give none; see `InvalidationJournal.invalidations`."""
        self._refuse_if_unusable()
        return []

    def close(self) -> None:
        """Answer what was submitted, and forget everything; see `Journal.close`."""
        self._commits.close()
        with self._lock:
            self._is_closed = True
            self._executions.clear()
            self._generations.clear()
            self._index = Index()

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
            return self._open(commit, commit.opening, body)
        execution = self._executions.get(commit.eid or 0)
        if execution is None:
            raise lease_lost(commit)
        refusal = execution.refusal(commit) or self._held_by_another(commit)
        if refusal is not None:
            return refusal
        if commit.take or commit.release is not None or commit.drained:
            self._index.take_out(execution)
            execution.accept(commit, body)
            self._index.put(execution)
            self._pass_on(commit, execution)
        else:
            execution.accept(commit, body)
        return Committed(execution.eid, execution.epoch)

    def _open(self, commit: Commit, opening: Opening, body: bytes) -> AppendResult:
        if opening.generation in self._generations.get(opening.saga_id, ()):
            return AlreadyStarted()
        refusal = self._held_by_another(commit)
        if refusal is not None:
            return refusal
        eid = len(self._executions) + 1
        execution = Execution(eid, opening, commit.at)
        execution.accept(commit, body)
        self._executions[eid] = execution
        self._generations.setdefault(opening.saga_id, {})[opening.generation] = execution
        self._index.put(execution)
        self._pass_on(commit, execution)
        return Committed(eid, execution.epoch)

    def _held_by_another(self, commit: Commit) -> ExclusiveHeld | None:
        holder = None if commit.exclusive is None else self._index.holder(commit.exclusive)
        return None if holder is None or holder.eid == commit.eid else ExclusiveHeld(holder.full_id)

    def _pass_on(self, commit: Commit, execution: Execution) -> None:
        """Wake the one that waits longest for what was freed; or this one, if what it waits for is free."""
        release = commit.release
        if release is None:
            return
        if release.frees is not None and self._index.holder(release.frees) is None:
            self._wake_first(release.frees, commit.at)
        if execution.awaits is not None and self._index.holder(execution.awaits) is None:
            self._wake(execution, commit.at)

    def _wake_first(self, right: str, at: float) -> None:
        """Make one that waits due, unless it is due anyway: it may be one that cannot go on."""
        waiting = (self._executions[eid] for eid in self._index.waiting(right))
        asleep = next((each for each in waiting if each.due_at is None or each.due_at > at), None)
        if asleep is not None:
            self._wake(asleep, at)

    def _wake(self, execution: Execution, at: float) -> None:
        self._index.take_out(execution)
        execution.due_at = at if execution.due_at is None else min(execution.due_at, at)
        self._index.put(execution)

    def _find(self, eid: int) -> Execution:
        self._refuse_if_unusable()
        try:
            return self._executions[eid]
        except KeyError:
            raise unknown(eid, self.url) from None

    def _find_whole(self, eid: int) -> Execution:
        """Give an execution of which more is left than the header."""
        execution = self._find(eid)
        if execution.is_purged:
            raise unknown(eid, self.url, is_purged=True)
        return execution

    def _headers(self, found: Iterable[Execution], limit: int) -> list[Header]:
        return [execution.header(self._process) for execution in islice(found, limit)]

    def _refuse_if_unusable(self) -> None:
        if self._is_closed:
            raise JournalError("the journal is closed: open it again")
        if os.getpid() != self._process.pid:
            raise JournalError("a journal in memory does not reach into a forked process: use one in SQLite")
