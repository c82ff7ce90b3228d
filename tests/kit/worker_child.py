"""A real process that is a worker on SQLite until SIGTERM ends it; its exit status says what was still under way.

Usage: worker_child.py FOLDER

What outlives it is in FOLDER: the journal, and the ledger, in which each call of a step is a row. A request with
`waits` lets its second step write the file `reached` and wait for the file `go`. The worker writes the file `stopping`
when it begins to stop.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from connect.eaas.core.responses import BackgroundResponse

from saga_engine import Engine, Saga, SagaContext
from transactions import BackgroundTransaction

__all__ = ["Ledgered", "calls_in", "journal_in"]

#: How long a step waits for its file before it gives up, in seconds.
_WAIT_S_MAX = 60.0


def journal_in(folder: Path) -> str:
    """Give the URL of the journal."""
    return f"sqlite:///{folder / 'saga.db'}"


def calls_in(folder: Path) -> list[tuple[str, str, int]]:
    """List the calls of steps: execution, step, process."""
    with closing(_ledger(folder)) as ledger:
        return ledger.execute("SELECT saga_id, step, pid FROM call ORDER BY rowid").fetchall()


def _ledger(folder: Path) -> sqlite3.Connection:
    ledger = sqlite3.connect(folder / "ledger.db", timeout=60, isolation_level=None)
    ledger.execute("CREATE TABLE IF NOT EXISTS call (saga_id TEXT, step TEXT, pid INT)")
    return ledger


class _Noted(BackgroundTransaction):
    """Writes each call into the ledger."""

    def __init__(self, context: SagaContext) -> None:
        self.context = context

    def execute(self, request: dict[str, Any]) -> BackgroundResponse:
        row = (self.context.saga_id, self.context.step, os.getpid())
        with closing(_ledger(Path(request["folder"]))) as ledger:
            ledger.execute("INSERT INTO call VALUES (?, ?, ?)", row)
        return self.answer(request)

    def answer(self, request: dict[str, Any]) -> BackgroundResponse:
        return BackgroundResponse.done()


class First(_Noted):
    """Is due again thirty seconds after its first call."""

    def answer(self, request: dict[str, Any]) -> BackgroundResponse:
        return BackgroundResponse.reschedule(30) if self.context.attempt == 1 else BackgroundResponse.done()


class Second(_Noted):
    """Waits if it is told to."""

    def answer(self, request: dict[str, Any]) -> BackgroundResponse:
        folder, ends_at = Path(request["folder"]), time.monotonic() + _WAIT_S_MAX
        if request.get("waits"):
            (folder / "reached").touch()
            while not (folder / "go").exists() and time.monotonic() < ends_at:
                time.sleep(0.005)
        return BackgroundResponse.done()


class Third(_Noted):
    """The last one."""


class Ledgered(Saga):
    """Three steps that note their calls."""

    def transactions(self, request: dict[str, Any]) -> list[Any]:
        return [First, Second, Third]


def main(folder: str) -> int:
    """Be a worker until SIGTERM."""
    with Engine(journal_in(Path(folder)), config={}, poll_s=0.05, concurrency_max=8) as engine:
        engine._begun_worker().on_stop((Path(folder) / "stopping").touch)
        return engine.run()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
