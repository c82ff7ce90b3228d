"""What a local server remembers, in one SQLite file that survives the server's own restart."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from saga_engine.connect.local_errors import BadFolder
from saga_engine.connect.local_faults import Fault, FaultKind

__all__ = ["Answer", "Call", "LocalState", "encode", "now", "record"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS request (
    number      INTEGER PRIMARY KEY,
    collection  TEXT NOT NULL,
    id          TEXT NOT NULL,
    body        TEXT NOT NULL,     -- the request as it is now, as JSON
    received    TEXT NOT NULL,     -- what its parameters held as the request came in, as JSON
    UNIQUE (collection, id)
);
CREATE TABLE IF NOT EXISTS schedule (
    id          TEXT PRIMARY KEY,
    body        TEXT NOT NULL      -- as JSON
);
CREATE TABLE IF NOT EXISTS ledger (
    number      INTEGER PRIMARY KEY,
    at          TEXT NOT NULL,     -- UTC, ISO 8601
    change      TEXT NOT NULL CHECK (change IN ('effect', 'undo')),
    step        TEXT NOT NULL,     -- what was changed: parameters, approval, ...
    key         TEXT NOT NULL,     -- the idempotency key; in Connect, which has none, the request's id
    object_id   TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS fault (
    operation   TEXT PRIMARY KEY,
    kind        TEXT NOT NULL,
    times       INTEGER NOT NULL,
    delay_s     REAL NOT NULL,
    reason      TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS call (
    number      INTEGER PRIMARY KEY,
    at          TEXT NOT NULL,     -- UTC, ISO 8601: when it was answered
    operation   TEXT NOT NULL,
    object_id   TEXT NOT NULL,
    task_id     TEXT NOT NULL,     -- of the task that called; empty if nobody said so
    status      INTEGER            -- of the answer; null: there was none
);
CREATE TABLE IF NOT EXISTS task (
    number      INTEGER PRIMARY KEY,
    id          TEXT NOT NULL UNIQUE,
    category    TEXT NOT NULL,
    event_type  TEXT NOT NULL,
    object_id   TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS result (
    number      INTEGER PRIMARY KEY,
    task_id     TEXT NOT NULL REFERENCES task (id),
    at          TEXT NOT NULL,     -- UTC, ISO 8601: when it came in
    output      TEXT NOT NULL      -- what the runner told, as JSON
);
"""


@dataclass(frozen=True)
class Call:
    """One HTTP call, as an API sees it.

    Args:
        operation: the name of its route, such as "approve_request".
        object_id: the id in the path; empty if there is none.
        query: what follows the question mark, as it came; empty if there is nothing.
        key: the `Idempotency-Key` header; empty if there is none.
        authorization: the `Authorization` header; empty if there is none.
        body: the JSON object that was sent; empty if there was none.
        refusal: the reason with which new work is to be refused; None lets it be done.
    """

    operation: str
    object_id: str = ""
    query: str = ""
    key: str = ""
    authorization: str = ""
    body: Mapping[str, Any] = field(default_factory=dict)
    refusal: str | None = None


@dataclass(frozen=True)
class Answer:
    """An HTTP status, the JSON body that goes with it (None: no body at all) and more headers."""

    status: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    is_broken: bool = False  #: the body breaks off in the middle


class LocalState:
    """A local server's state: one SQLite file, one connection, one caller at a time.

    Args:
        path: the file; made if missing.

    Raises:
        BadFolder: it cannot be written, or is no such file.
    """

    schema = _SCHEMA

    def __init__(self, path: str | Path) -> None:
        self._lock = threading.Lock()
        with ExitStack() as stack:
            try:
                self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
                stack.callback(self._connection.close)
                self._connection.row_factory = sqlite3.Row
                # Nobody mourns a local Connect that lost power; its callers' journals are another matter.
                self._connection.execute("PRAGMA synchronous = OFF")
                self._connection.executescript(self.schema)
            except sqlite3.Error as e:
                raise BadFolder(f"{path} cannot be used as a local Connect's state: {e}: name another place") from e
            stack.pop_all()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Give the connection for one transaction: committed at the end, or nothing of it happened."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def ledger(self) -> list[dict[str, Any]]:
        """List every effect and every undo, oldest first.

        Returns:
            For each `number`, `at` (UTC, ISO 8601), `change`, `step`, `key` and `object_id`.
        """
        with self.transaction() as connection:
            return [dict(row) for row in connection.execute("SELECT * FROM ledger ORDER BY number")]

    def calls(self) -> list[dict[str, Any]]:
        """List every call of the API, in the order in which they were answered.

        Returns:
            For each `number`, `at` (UTC, ISO 8601), `operation`, `object_id`, `task_id` (empty if nobody said so)
            and `status` (None: the connection was closed without an answer).
        """
        with self.transaction() as connection:
            return [dict(row) for row in connection.execute("SELECT * FROM call ORDER BY number")]

    def record_call(self, operation: str, object_id: str, task_id: str, status: int | None) -> None:
        """Write down that a call was answered."""
        with self.transaction() as connection:
            connection.execute(
                "INSERT INTO call (at, operation, object_id, task_id, status) VALUES (?, ?, ?, ?, ?)",
                (now(), operation, object_id, task_id, status),
            )

    def set_fault(self, fault: Fault) -> None:
        """Let the next `fault.times` calls of its operation go wrong, instead of what was set before."""
        with self.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO fault VALUES (?, ?, ?, ?, ?)",
                (fault.operation, fault.kind.value, fault.times, fault.delay_s, fault.reason),
            )

    def take_fault(self, operation: str) -> Fault | None:
        """Use up one faulty call of the operation; None if it is to go well."""
        with self.transaction() as connection:
            row = connection.execute("SELECT * FROM fault WHERE operation = ? AND times > 0", (operation,)).fetchone()
            if row is None:
                return None
            connection.execute("UPDATE fault SET times = times - 1 WHERE operation = ?", (operation,))
            return _fault(row)

    def faults(self) -> list[Fault]:
        """List the faults that are still to be shown, with the calls they have left."""
        with self.transaction() as connection:
            rows = connection.execute("SELECT * FROM fault WHERE times > 0 ORDER BY operation")
            return [_fault(row) for row in rows]


def record(connection: sqlite3.Connection, change: str, step: str, key: str, object_id: str) -> None:
    """Write an `effect` or an `undo` into the ledger, in the transaction that does it."""
    connection.execute(
        "INSERT INTO ledger (at, change, step, key, object_id) VALUES (?, ?, ?, ?, ?)",
        (now(), change, step, key, object_id),
    )


def encode(value: Any) -> str:
    """Write a JSON value so that equal values are equal texts."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def now() -> str:
    """Give the time: UTC, ISO 8601."""
    return datetime.now(timezone.utc).isoformat()


def _fault(row: sqlite3.Row) -> Fault:
    return Fault(row["operation"], FaultKind(row["kind"]), row["times"], row["delay_s"], row["reason"])
