"""Who is compared: what each peer needs, which program runs it, and what it keeps when the process dies."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

__all__ = ["FLOOR", "ROSTER", "Interpreter", "Peer"]


class Interpreter(Struct, frozen=True):
    """A Python that may run a peer: where it is, its version, and that of its SQLite."""

    path: str
    version: tuple[int, ...]
    sqlite: tuple[int, ...]


class Peer(Struct, frozen=True):
    """One row of the comparison.

    Attributes:
        name: as the table shows it.
        program, case: what measures it: a module of `benchmarks.peers.programs`, and which of its cases.
        at_once: what runs so many sagas at once.
        durable: what is on disk while a saga runs.
        requirements: what its environment needs; empty: it runs in ours.
        needs: what its Python must be, in words.
        fits: tells whether an interpreter is that.
    """

    name: str
    program: str
    case: str
    at_once: str
    durable: str
    requirements: tuple[str, ...] = ()
    needs: str = ""
    fits: Callable[[Interpreter], bool] = lambda python: True


FLOOR = "raw floor: one-row commits / 6"

_EVERY_STEP = "every step (WAL, FULL)"
_AIOSQLITE = "aiosqlite==0.22.1"


def _ours(name: str, case: str, at_once: str, durable: str = _EVERY_STEP) -> Peer:
    return Peer(f"saga-engine, {name}", "saga_engine_cases", case, at_once, durable)


def _dbos(name: str, case: str, durable: str) -> Peer:
    return Peer(
        name,
        "dbos_sqlite",
        case,
        "threads",
        durable,
        ("dbos==3.4.0",),
        # Its schema asks SQLite for milliseconds where it finds Python 3.12, and only SQLite 3.42 has them.
        "Python 3.10 or 3.11, or a later one with SQLite 3.42 or later",
        lambda python: python.version < (3, 12) or python.sqlite >= (3, 42),
    )


def _sagaz(name: str, case: str, durable: str, *requirements: str) -> Peer:
    return Peer(
        name,
        "sagaz_cases",
        case,
        "tasks",
        durable,
        ("sagaz==1.5.0", *requirements),
        "Python 3.11 or later",
        lambda python: python.version >= (3, 11),
    )


ROSTER = (
    Peer(FLOOR, "floor", "", "one writer", "every commit (WAL, FULL)"),
    _ours("resolve", "resolve", "threads"),
    _ours("aresolve, async steps", "aresolve", "tasks"),
    _ours("worker", "worker", "worker"),
    _ours("worker, async steps", "worker, async steps", "worker"),
    _ours("resolve, memory journal", "memory", "threads", "nothing"),
    _dbos("DBOS on SQLite", "", "every step (rollback journal, FULL)"),
    _dbos("DBOS on SQLite, file in WAL mode", "wal", _EVERY_STEP),
    Peer(
        "python-saga-orchestrator on SQLite",
        "saga_orchestrator_sqlite",
        "",
        "tasks",
        _EVERY_STEP,
        ("python-saga-orchestrator==0.7.3", _AIOSQLITE),
        "Python 3.12",
        lambda python: python.version >= (3, 12),
    ),
    _sagaz("sagaz, SQLite storage", "sqlite", "start and end only", _AIOSQLITE),
    _sagaz("sagaz", "", "nothing"),
    Peer("saga-py", "saga_py_case", "", "threads", "nothing", ("saga-py==1.1.0",)),
)
