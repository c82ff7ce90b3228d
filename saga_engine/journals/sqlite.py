"""The journal in an SQLite file: safe with many threads and with several processes of one host."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterable
from typing import Any

from saga_engine.errors import CorruptJournal, JournalError, UnknownExecution
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
from saga_engine.journals.process import ProcessIdentity
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
from saga_engine.journals.sqlite_file import opening, path_of
from saga_engine.journals.sqlite_processes import dead_processes, is_live, write_beat
from saga_engine.journals.sqlite_queries import queries
from saga_engine.journals.sqlite_session import SqliteSession, Transaction

__all__ = ["SqliteJournal"]

_logger = logging.getLogger("saga_engine.journal")

#: No eid is larger than this: SQLite's largest integer.
_EID_MAX = 2**63 - 1


class SqliteJournal:
    """A journal in one file.

    Args:
        url: `sqlite:///relative.db` or `sqlite:////absolute.db`.
        lease_s: a process whose heartbeat is older counts as dead.
        heartbeat_s: seconds between two heartbeats while a lease is held.

    Raises:
        JournalError: one of its kinds, see `open_journal`.
    """

    def __init__(self, url: str, *, lease_s: float = 30.0, heartbeat_s: float = 10.0) -> None:
        self.url = url
        self._path = path_of(url)
        self._lease_s = lease_s
        self._heartbeat_s = heartbeat_s
        self._is_closed = False
        self._session: SqliteSession | None = self._open_session()

    def append(self, commit: Commit) -> AppendResult:
        """Append; see `Journal.append`."""
        check_commit(commit)
        body = encode_entries(commit.entries)
        session = self._running()
        process = session.process.id
        try:
            result: AppendResult = session.commits.run(lambda to: _append(to, commit, body, process))
        except BaseException as error:
            session.heart.follow(commit, error)
            raise
        session.heart.follow(commit, result)
        return result

    def submit(self, commit: Commit, done: Callable[[AppendResult | BaseException], None]) -> None:
        """Append without blocking; see `Journal.submit`."""
        check_commit(commit)
        body = encode_entries(commit.entries)
        session = self._running()
        process = session.process.id

        def follow(outcome: AppendResult | BaseException) -> None:
            session.heart.follow(commit, outcome)
            done(outcome)

        session.commits.submit(lambda to: _append(to, commit, body, process), follow)

    def header(self, saga_id: str, generation: int | None = None) -> Header | None:
        """Find a header; see `Journal.header`."""
        query = queries["header_of_latest"] if generation is None else queries["header_of_generation"]
        headers = self._headers(query, {"saga_id": saga_id, "generation": generation})
        return headers[0] if headers else None

    def load(self, eid: int) -> Loaded:
        """Read the whole execution; see `Journal.load`."""

        def query(connection: sqlite3.Connection) -> tuple[list[Any], list[Any]]:
            rows = connection.execute(queries["rows_of_execution"], {"eid": eid}).fetchall()
            return rows, connection.execute(queries["inbox_of_execution"], {"eid": eid}).fetchall()

        rows, inbox = self._running().read(query)
        if not rows:
            raise self._unknown(eid)
        return decode_rows(rows, inbox)

    def is_held(self, header: Header) -> bool:
        """Tell whether a live drive holds the execution; see `Journal.is_held`."""
        session = self._running()
        if header.drive is None or header.process is None:
            return False
        if header.process == session.process.id:
            return not session.heart.is_given_up(header.eid, header.epoch)
        return is_live(session, header.process)

    def put(self, eid: int, entry: Entry) -> None:
        """Leave a message in the inbox; see `Journal.put`."""
        parameters = {"eid": eid, "version": ENTRY_VERSION, "body": encode_message(entry)}

        def task(to: Transaction) -> None:
            if to.execute(queries["put_message"], parameters).rowcount == 0:
                raise self._unknown(eid)

        self._running().commits.run(task)

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
        query = queries["search"]
        if stuck:
            query = queries["search_stuck"]
        elif status is not None and status is not SagaStatus.COMPLETED:
            query = queries["search_not_completed"]
        return self._headers(
            query,
            {
                "status": None if status is None else status.value,
                "saga": saga,
                "limit": limit,
                "before": _EID_MAX if before is None else before,
            },
        )

    def recoverable(self, *, now: float, after: int = 0, limit: int = 100) -> list[Header]:
        """List what nobody holds and can go on, oldest first; see `Journal.recoverable`."""
        session = self._running()
        dead = dead_processes(session)
        page = {"after": after, "limit": limit, "now": now}

        def query(connection: sqlite3.Connection) -> list[Any]:
            found: set[int] = set()
            for process in (None, *dead):
                found.update(_eids(connection, queries["left_by_process"], {**page, "process": process}))
            found.update(_eids(connection, queries["due"], page))
            found.update(_eids(connection, queries["with_mail"], page))
            return [
                connection.execute(queries["header_of_eid"], {"eid": eid}).fetchone() for eid in sorted(found)[:limit]
            ]

        return [self._header(row) for row in session.read(query)]

    def note_stuck(self, header: Header, reason: str, at: float) -> None:
        """Note why nobody can drive this execution; see `Journal.note_stuck`."""
        parameters = {"eid": header.eid, "epoch": header.epoch, "reason": reason, "at": at}
        self._running().commits.run(lambda to: to.execute(queries["note_stuck"], parameters).rowcount)

    def abandon(self, eid: int, epoch: int) -> None:
        """Give up a lease without an entry; see `Journal.abandon`."""
        session = self._session
        if session is None or not session.is_of_this_process:
            # Closed, which gave up everything; or a forked child, which never held it.
            return
        try:
            session.commits.run(lambda to: _abandon(to, eid, epoch))
            session.heart.drop(eid, epoch)
        except Exception as error:
            _logger.warning("execution %d could not be given up now, trying again later: %s", eid, error)
            session.heart.give_up(eid, epoch)

    def close(self) -> None:
        """Commit what was submitted, give up every lease, end the threads and close the file; see `Journal.close`."""
        with opening:
            self._is_closed = True
            session, self._session = self._session, None
        if session is None or not session.is_of_this_process:
            return
        try:
            session.close(lambda to: _leave(to, session.process.id))
        except JournalError as error:
            _logger.warning("the journal could not say that it was closed: %s", error)

    # --- the process's part ---

    def _open_session(self) -> SqliteSession:
        return SqliteSession(self._path, self._heartbeat_s, self._write_beat, _abandon)

    def _running(self) -> SqliteSession:
        """Give the session; a forked child opens its own."""
        session = self._session
        if session is not None and session.is_of_this_process:
            return session
        with opening:
            if self._is_closed:
                raise JournalError("the journal is closed: open it again")
            if self._session is None or not self._session.is_of_this_process:
                self._session = self._open_session()
            return self._session

    def _write_beat(self, to: Transaction, me: ProcessIdentity, now_s: float) -> None:
        write_beat(to, me, self._lease_s, now_s)

    # --- reading ---

    def _headers(self, query: str, parameters: dict[str, Any]) -> list[Header]:
        rows = self._running().read(lambda connection: connection.execute(query, parameters).fetchall())
        return [self._header(row) for row in rows]

    def _header(self, row: tuple[Any, ...]) -> Header:
        (eid, saga_id, generation, saga, status, epoch, _, drive, process) = row[:9]
        (due_at, told, response, created_at, updated_at, host, pid, stuck) = row[9:]
        try:
            known_status = SagaStatus(status)
        except ValueError:
            raise CorruptJournal(f"{self._path}: execution {eid} has the unknown status {status!r}") from None
        return Header(
            eid=eid,
            saga_id=saga_id,
            generation=generation,
            saga=saga,
            status=known_status,
            epoch=epoch,
            created_at=created_at,
            updated_at=updated_at,
            drive=drive,
            process=process,
            held_by=None if host is None else f"{host}:{pid}",
            due_at=due_at,
            told=decode_response(told),
            response=decode_response(response),
            stuck=stuck,
        )

    def _unknown(self, eid: int) -> UnknownExecution:
        return UnknownExecution(f"no execution has the number {eid} in {self.url}")


# --- writing: tasks inside a transaction ---------------------------------------------------------------------


def _append(to: Transaction, commit: Commit, body: bytes, process: str) -> AppendResult:
    """Append one commit; whatever refuses it does so before anything is written."""
    if commit.opening is not None:
        return _open(to, commit, commit.opening, body, process)
    try:
        appended = to.execute(queries["append_entries"], _row(commit, body)).rowcount
    except sqlite3.IntegrityError:
        # The row of that number is there: somebody else wrote it.
        raise lease_lost(commit) from None
    if not appended:
        return _refuse(to, commit)
    for message_id in commit.drained:
        to.execute(queries["delete_message"], {"id": message_id, "eid": commit.eid})
    _touch(to, commit, process)
    assert commit.eid is not None
    return Committed(commit.eid, commit.epoch + commit.take)


def _row(commit: Commit, body: bytes) -> dict[str, Any]:
    return {
        "eid": commit.eid,
        "seq": commit.seq,
        "version": ENTRY_VERSION,
        "body": body,
        "epoch": commit.epoch,
        "drive": commit.drive,
        "take": commit.take,
        "drained": "".join(f",{message_id}," for message_id in commit.drained),
    }


def _open(to: Transaction, commit: Commit, opening: Opening, body: bytes, process: str) -> AppendResult:
    release = commit.release
    opened = to.execute(
        queries["open_execution"],
        {
            "saga_id": opening.saga_id,
            "generation": opening.generation,
            "saga": opening.saga,
            "status": commit.status.value,
            "in_flight": release is None,
            "drive": commit.drive if release is None else None,
            "process": process if release is None else None,
            "due_at": None if release is None else release.due_at,
            "told": None if release is None else encode_response(release.told),
            "response": None if release is None else encode_response(release.response),
            "at": commit.at,
        },
    )
    if not opened.rowcount:
        return AlreadyStarted()
    eid = opened.lastrowid
    assert eid is not None
    to.execute(queries["append_first"], {"eid": eid, "seq": commit.seq, "version": ENTRY_VERSION, "body": body})
    to.takes_lease = to.takes_lease or release is None
    return Committed(eid, FIRST_EPOCH)


def _refuse(to: Transaction, commit: Commit) -> InboxPending:
    """Find out why a commit was refused; the fence comes first."""
    holds = to.execute(
        queries["holds"], {"eid": commit.eid, "epoch": commit.epoch, "drive": commit.drive, "take": commit.take}
    ).fetchone()
    if holds is None:
        raise lease_lost(commit)
    return InboxPending(decode_messages(to.execute(queries["inbox_of_execution"], {"eid": commit.eid})))


def _touch(to: Transaction, commit: Commit, process: str) -> None:
    """Change the header where the commit says so; a plain one leaves it alone."""
    if commit.take:
        to.execute(queries["clear_stuck"], {"eid": commit.eid})
    if commit.release is not None:
        to.execute(queries["release"], _release_parameters(commit))
    elif commit.take:
        to.takes_lease = True
        to.execute(
            queries["take"],
            {
                "eid": commit.eid,
                "drive": commit.drive,
                "process": process,
                "status": commit.status.value,
                "at": commit.at,
            },
        )
    elif commit.status is SagaStatus.COMPENSATING:
        to.execute(queries["turn_back"], {"eid": commit.eid, "status": commit.status.value, "at": commit.at})


def _release_parameters(commit: Commit) -> dict[str, Any]:
    assert commit.release is not None
    return {
        "eid": commit.eid,
        "take": commit.take,
        "status": commit.status.value,
        "due_at": commit.release.due_at,
        "told": encode_response(commit.release.told),
        "response": encode_response(commit.release.response),
        "at": commit.at,
    }


def _abandon(to: Transaction, eid: int, epoch: int) -> None:
    to.execute(queries["abandon"], {"eid": eid, "epoch": epoch})


def _leave(to: Transaction, process: str) -> None:
    """The journal closes: no drive of this process can append any more."""
    to.execute(queries["abandon_all"], {"process": process})
    to.execute(queries["forget_process"], {"process": process})


# --- reading -------------------------------------------------------------------------------------------------


def _eids(connection: sqlite3.Connection, query: str, parameters: dict[str, Any]) -> Iterable[int]:
    return (row[0] for row in connection.execute(query, parameters))
