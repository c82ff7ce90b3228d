"""The journal in an SQLite file: safe with many threads and with several processes of one host."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterable
from typing import Any

from saga_engine.errors import CorruptJournal, JournalError, UnknownExecution
from saga_engine.journal import (
    ENTRY_VERSION,
    AppendResult,
    Commit,
    Entry,
    Header,
    Invalidation,
    Loaded,
    SagaStatus,
    encode_entries,
)
from saga_engine.journals.process import ProcessIdentity
from saga_engine.journals.rows import check_commit, decode_response, decode_rows, encode_message, unknown
from saga_engine.journals.sqlite_commits import abandon, append, leave
from saga_engine.journals.sqlite_file import opening, path_of
from saga_engine.journals.sqlite_processes import dead_processes, is_live, write_beat
from saga_engine.journals.sqlite_queries import queries
from saga_engine.journals.sqlite_session import SqliteSession, Transaction

__all__ = ["SqliteJournal"]

_logger = logging.getLogger("saga_engine.journal")

#: No eid is larger than this: SQLite's largest integer.
_EID_MAX = 2**63 - 1

#: How many invalidations of caches are kept: a process that misses more of them drops all that it cached.
_INVALIDATIONS_MAX = 1_000


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
            result: AppendResult = session.commits.run(lambda to: append(to, commit, body, process))
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

        session.commits.submit(lambda to: append(to, commit, body, process), follow)

    def header(self, saga_id: str, generation: int | None = None) -> Header | None:
        """Find a header; see `Journal.header`."""
        query = queries["header_of_latest"] if generation is None else queries["header_of_generation"]
        headers = self._headers(query, {"saga_id": saga_id, "generation": generation})
        return headers[0] if headers else None

    def load(self, eid: int) -> Loaded:
        """Read the whole execution; see `Journal.load`."""

        def query(connection: sqlite3.Connection) -> tuple[list[Any], list[Any] | UnknownExecution]:
            rows = connection.execute(queries["rows_of_execution"], {"eid": eid}).fetchall()
            if not rows:
                return rows, self._unknown(eid, connection.execute)
            return rows, connection.execute(queries["inbox_of_execution"], {"eid": eid}).fetchall()

        rows, inbox = self._running().read(query)
        if isinstance(inbox, UnknownExecution):
            raise inbox
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
                raise self._unknown(eid, to.execute)

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

    def recoverable(
        self, *, now: float, after: int = 0, limit: int = 100, stuck_before: float | None = None
    ) -> list[Header]:
        """List what nobody holds and can go on, oldest first; see `Journal.recoverable`."""
        session = self._running()
        dead = dead_processes(session)
        page = {"after": after, "limit": limit, "now": now, "stuck_before": stuck_before}

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

    def next_due(self, *, after: float) -> float | None:
        """Give the earliest due time after this one; see `Journal.next_due`."""
        parameters = {"after": after}
        rows = self._running().read(lambda to: to.execute(queries["next_due"], parameters).fetchall())
        return rows[0][0] if rows else None

    def purge(self, *, before: float, limit: int = 100) -> int:
        """Remove the entries of what ended long ago; see `Journal.purge`."""
        parameters = {"before": before, "limit": limit}
        purged: int = self._running().commits.run(lambda to: to.execute(queries["purge"], parameters).rowcount)
        return purged

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
            session.commits.run(lambda to: abandon(to, eid, epoch))
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
            session.close(lambda to: leave(to, session.process.id))
        except JournalError as error:
            _logger.warning("the journal could not say that it was closed: %s", error)

    def put_invalidation(self, writer: str, cache: str, keys: str | None) -> None:
        """Tell the other processes what is out of date; see `InvalidationJournal.put_invalidation`."""
        parameters = {"writer": writer, "cache": cache, "keys": keys}

        def task(to: Transaction) -> None:
            last = to.execute(queries["put_invalidation"], parameters).lastrowid
            to.execute(queries["trim_invalidations"], {"last": last, "kept_max": _INVALIDATIONS_MAX})

        self._running().commits.run(task)

    def invalidations(self, *, after: int) -> list[Invalidation]:
        """List what other processes told; see `InvalidationJournal.invalidations`."""
        parameters = {"after": after}
        rows = self._running().read(lambda to: to.execute(queries["invalidations"], parameters).fetchall())
        return [Invalidation(*row) for row in rows]

    # --- the process's part ---

    def _open_session(self) -> SqliteSession:
        return SqliteSession(self._path, self._heartbeat_s, self._write_beat, abandon)

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
        (host, pid, stuck, eid, saga_id, generation, saga, status, epoch, _, drive, process) = row[:12]
        (due_at, told, response, created_at, updated_at, _, _, is_purged) = row[12:20]
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
            is_purged=bool(is_purged),
        )

    def _unknown(self, eid: int, execute: Callable[..., sqlite3.Cursor]) -> UnknownExecution:
        is_purged = execute(queries["is_purged"], {"eid": eid}).fetchone() == (1,)
        return unknown(eid, self.url, is_purged=is_purged)


# --- reading -------------------------------------------------------------------------------------------------


def _eids(connection: sqlite3.Connection, query: str, parameters: dict[str, Any]) -> Iterable[int]:
    return (row[0] for row in connection.execute(query, parameters))
