"""DBOS on SQLite: a workflow of five steps that undoes in `except` what it did, in the callers' threads."""

from __future__ import annotations

import sqlite3
from functools import partial

from dbos import DBOS, DBOSConfig

from benchmarks.load import in_threads
from benchmarks.peers.programs.order import FAILING, STEPS, check_undone, read_order, tell

_FILE = "dbos.db"
_undone: list[int] = []


@DBOS.step()
def do(saga: int, number: int) -> None:
    if (saga, number) == (FAILING, STEPS):
        raise ValueError("the fifth step fails")


@DBOS.step()
def undo(saga: int, number: int) -> None:
    _undone.append(number)


@DBOS.workflow()
def five_steps(saga: int) -> str:
    undos = []
    try:
        for number in range(1, STEPS + 1):
            do(saga, number)
            undos.append(partial(undo, saga, number))
    except ValueError:
        for undo_step in reversed(undos):
            undo_step()
        return "compensated"
    return "completed"


def _run(saga: int) -> None:
    if five_steps(saga) != "completed":
        raise RuntimeError(f"saga {saga} was not completed")


def main() -> None:
    """Measure; in the case "wal" the file is in WAL mode before DBOS opens it, which DBOS leaves as it is."""
    order = read_order()
    if order.case == "wal":
        connection = sqlite3.connect(_FILE)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.close()
    config: DBOSConfig = {
        "name": "five-steps",
        "system_database_url": f"sqlite:///{_FILE}",
        "log_level": "ERROR",
    }
    DBOS(config=config)
    DBOS.launch()
    try:
        five_steps(FAILING)
        check_undone(_undone)
        _run(0)
        rate = in_threads(_run, order.at_once, order.seconds)
    finally:
        DBOS.destroy()
    tell(rate, "dbos")


if __name__ == "__main__":
    main()
