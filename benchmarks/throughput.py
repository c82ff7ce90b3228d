"""How many five-step sagas a second: ours beside the raw floor, in one run. `python -m benchmarks.throughput`."""

from __future__ import annotations

import asyncio
import itertools
import os
import platform
import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec
from connect.eaas.core.responses import BackgroundResponse
from rich.console import Console
from rich.table import Table

from saga_engine import Engine, Saga
from transactions import BackgroundTransaction

STEPS = 5
#: A clean saga of n steps makes n + 1 commits.
COMMITS_PER_SAGA = STEPS + 1


class _NoOp(BackgroundTransaction):
    def execute(self, request: dict[str, Any]) -> BackgroundResponse:
        return BackgroundResponse.done()

    def compensate(self, request: dict[str, Any], e: Exception) -> BackgroundResponse:
        return BackgroundResponse.done()


class _AsyncNoOp(_NoOp):
    async def execute(self, request: dict[str, Any]) -> BackgroundResponse:
        return BackgroundResponse.done()


SYNC_STEPS = [type(f"Step{i}", (_NoOp,), {}) for i in range(STEPS)]
ASYNC_STEPS = [type(f"AsyncStep{i}", (_AsyncNoOp,), {}) for i in range(STEPS)]


class FiveSteps(Saga):
    """Five steps that do nothing."""

    def transactions(self, request: dict[str, Any]) -> list[type[BackgroundTransaction]]:
        return SYNC_STEPS


class FiveAsyncSteps(Saga):
    """The same, as coroutines."""

    def transactions(self, request: dict[str, Any]) -> list[type[BackgroundTransaction]]:
        return ASYNC_STEPS


def raw_commits(directory: Path, seconds: float) -> float:
    """Count one-row SQLite commits a second, WAL and synchronous=FULL, one at a time: the floor of the disk."""
    connection = sqlite3.connect(directory / "floor.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE row (n INTEGER, body TEXT)")
    ends_at, began_at, count = time.perf_counter() + seconds, time.perf_counter(), 0
    while time.perf_counter() < ends_at:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO row VALUES (?, ?)", (count, "x" * 200))
        connection.execute("COMMIT")
        count += 1
    rate = count / (time.perf_counter() - began_at)
    connection.close()
    return rate


def in_one_thread(url: str, seconds: float) -> float:
    """Resolve one saga after the other."""
    return in_threads(url, seconds, 1)


def in_threads(url: str, seconds: float, at_once: int) -> float:
    """Resolve in so many threads, each in its own `resolve()`."""
    numbers, counts = itertools.count(), [0] * at_once
    with Engine(url) as engine:
        saga = FiveSteps.make({}, engine=engine)
        saga.resolve({"id": "warm-up"})
        ends_at = time.perf_counter() + seconds

        def work(slot: int) -> None:
            while time.perf_counter() < ends_at:
                saga.resolve({"id": f"PR-{next(numbers)}"})
                counts[slot] += 1

        threads = [threading.Thread(target=work, args=(slot,)) for slot in range(at_once)]
        began_at = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(counts) / (time.perf_counter() - began_at)


def in_tasks(url: str, seconds: float, at_once: int) -> float:
    """Resolve in so many tasks of one event loop, with async steps."""
    return asyncio.run(_in_tasks(url, seconds, at_once))


async def _in_tasks(url: str, seconds: float, at_once: int) -> float:
    numbers, count = itertools.count(), 0
    with Engine(url) as engine:
        saga = FiveAsyncSteps.make({}, engine=engine)
        await saga.aresolve({"id": "warm-up"})
        began_at = time.perf_counter()

        async def work() -> None:
            nonlocal count
            while time.perf_counter() < began_at + seconds:
                await saga.aresolve({"id": f"PR-{next(numbers)}"})
                count += 1

        await asyncio.gather(*(work() for _ in range(at_once)))
        return count / (time.perf_counter() - began_at)


def measure(seconds: float, repeat: int) -> dict[str, list[float]]:
    """Run every case `repeat` times, in turn, so that a slow spell of the machine meets them all."""
    rates: dict[str, list[float]] = {}
    for _ in range(repeat):
        for name, case in _cases().items():
            with tempfile.TemporaryDirectory() as directory:
                rates.setdefault(name, []).append(case(Path(directory), seconds))
    return rates


def _cases() -> dict[str, Callable[[Path, float], float]]:
    return {
        "raw floor: one-row commits": raw_commits,
        "memory, one thread": lambda _, s: in_one_thread("memory://", s),
        "SQLite, one at a time": lambda d, s: in_one_thread(f"sqlite:///{d}/saga.db", s),
        "SQLite, 64 threads, sync steps": lambda d, s: in_threads(f"sqlite:///{d}/saga.db", s, 64),
        "SQLite, 64 tasks, async steps": lambda d, s: in_tasks(f"sqlite:///{d}/saga.db", s, 64),
    }


def _table(rates: dict[str, list[float]]) -> Table:
    floor = statistics.median(rates["raw floor: one-row commits"])
    table = Table(title=f"Five-step sagas a second ({platform.python_version()}, {os.cpu_count()} cores)")
    for heading in ("case", "median", "min", "max", f"of the floor / {COMMITS_PER_SAGA}"):
        table.add_column(heading, justify="left" if heading == "case" else "right")
    for name, values in rates.items():
        ratio = "" if name.startswith("raw") else f"{statistics.median(values) / (floor / COMMITS_PER_SAGA):.0%}"
        table.add_row(name, *(f"{v:,.0f}" for v in (statistics.median(values), min(values), max(values))), ratio)
    return table


@click.command()
@click.option("--seconds", default=3.0, show_default=True, help="How long each case runs.")
@click.option("--repeat", default=3, show_default=True, help="How often each case runs; the median counts.")
@click.option("--json", "is_json", is_flag=True, help="Print all figures as JSON.")
def main(seconds: float, repeat: int, is_json: bool) -> None:
    """Measure how many five-step sagas a second run, beside the raw floor of this machine's disk."""
    rates = measure(seconds, repeat)
    if is_json:
        click.echo(msgspec.json.encode(rates))
    else:
        Console().print(_table(rates))


if __name__ == "__main__":
    main()
