"""Large journals in little time: real rows of one real execution, copied by SQL under ids of their own."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import Literal

from benchmarks.child import run_child
from benchmarks.sagas import FiveSteps, FiveStepsThatWait
from saga_engine import Engine, Saga, SagaStatus

__all__ = ["SAGAS", "Standing", "fill"]

#: How the executions stand: finished; left in the third step by a process that was killed; waiting for a week.
Standing = Literal["finished", "unfinished", "suspended"]

SAGAS: dict[Standing, type[Saga]] = {
    "finished": FiveSteps,
    "unfinished": FiveSteps,
    "suspended": FiveStepsThatWait,
}
_STATUSES: dict[Standing, SagaStatus] = {
    "finished": SagaStatus.COMPLETED,
    "unfinished": SagaStatus.RUNNING,
    "suspended": SagaStatus.SUSPENDED,
}

#: How many executions one transaction copies: bounds the size of the write-ahead log.
_COPIES_A_COMMIT = 20_000

_COPIES = "WITH RECURSIVE copies (n) AS (SELECT :first UNION ALL SELECT n + 1 FROM copies WHERE n < :last)"
_COPY_EXECUTIONS = f"""
    {_COPIES} INSERT INTO executions (eid, saga_id, {{others}})
    SELECT :original + n, :original_id || '-' || n, {{others}}
    FROM copies CROSS JOIN executions WHERE eid = :original
"""
_COPY_ENTRIES = f"""
    {_COPIES} INSERT INTO entries (eid, seq, version, body)
    SELECT :original + n, seq, version,
        CAST(replace(CAST(body AS TEXT), :original_id, :original_id || '-' || n) AS BLOB)
    FROM copies CROSS JOIN (SELECT seq, version, body FROM entries WHERE eid = :original)
    ORDER BY n, seq
"""


def fill(path: Path, standing: Standing, count: int) -> None:
    """Make a journal at `path` that holds `count` executions that stand so.

    The engine drives one of them, in a process of its own; the others are copies of all its rows, each with a number
    and a saga id of its own.

    Raises:
        RuntimeError: the engine reads a copy as something else.
    """
    url = f"sqlite:///{path}"
    if not count:
        Engine(url).close()
        return
    run_child("benchmarks.original", standing, url)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        _copy(connection, count - 1)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("rb+") as file:
        os.fsync(file.fileno())  # else the disk would still be busy with the copies while others are measured
    _check(url, standing, count)


def _copy(connection: sqlite3.Connection, copies: int) -> None:
    columns = [row[1] for row in connection.execute("PRAGMA table_info(executions)")]
    others = ", ".join(name for name in columns if name not in ("eid", "saga_id"))
    original, original_id = connection.execute("SELECT eid, saga_id FROM executions").fetchone()
    for first in range(1, copies + 1, _COPIES_A_COMMIT):
        names = {
            "first": first,
            "last": min(copies, first + _COPIES_A_COMMIT - 1),
            "original": original,
            "original_id": original_id,
        }
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(_COPY_EXECUTIONS.format(others=others), names)
        connection.execute(_COPY_ENTRIES, names)
        connection.execute("COMMIT")


def _check(url: str, standing: Standing, count: int) -> None:
    with Engine(url) as engine:
        newest = engine.search(limit=1)[0]
    if newest.status is not _STATUSES[standing] or (count > 1 and not newest.saga_id.endswith(f"-{count - 1}")):
        raise RuntimeError(f"the journal's last execution is {newest.saga_id}, {newest.status.value}")
