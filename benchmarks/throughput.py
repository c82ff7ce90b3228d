"""How many five-step sagas a second: ours beside the raw floor, in one run. `python -m benchmarks.throughput`."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import click
import msgspec
from msgspec import Struct

from benchmarks.machine import COMMITS_PER_SAGA, describe, raw_commits
from benchmarks.ours import aresolve_in_tasks, resolve_in_threads, start_in_worker
from benchmarks.report import Table, print_table
from benchmarks.rounds import Spread, in_turn
from benchmarks.sagas import FiveAsyncSteps, FiveSteps

FLOOR = "raw floor: one-row commits"

#: The floor of the machine that the aims were set for, in one-row commits a second.
AIMED_FLOOR = 4_000
AT_ONCE = (1, 16, 64)

Run = Callable[[str, float], float]


class _Case(Struct, frozen=True):
    """One row: how it runs on a journal's URL for some seconds; what it aims at, in sagas a second."""

    run: Run
    aim: float | None = None
    journal: str = "SQLite"


def _cases() -> dict[str, _Case]:
    return {
        "memory, resolve, one thread": _Case(_resolve(1), aim=10_000, journal="memory"),
        # The aim is a share of the floor: 80 % of what six raw commits a saga allow.
        "SQLite, resolve, one at a time": _Case(_resolve(1), aim=0.8 * AIMED_FLOOR / COMMITS_PER_SAGA),
        "SQLite, resolve, 16 threads": _Case(_resolve(16)),
        "SQLite, resolve, 64 threads": _Case(_resolve(64), aim=2_000),
        "SQLite, aresolve, 64 tasks, async steps": _Case(lambda url, s: aresolve_in_tasks(url, 64, s)),
        **dict(_worker_cases()),
    }


def _resolve(at_once: int) -> Run:
    return lambda url, seconds: resolve_in_threads(url, at_once, seconds)


def _worker_cases() -> Iterator[tuple[str, _Case]]:
    for kind, saga in (("sync", FiveSteps), ("async", FiveAsyncSteps)):
        for at_once in AT_ONCE:
            aim = 5_000 if at_once == 64 else None

            def run(url: str, seconds: float, saga: type[FiveSteps] = saga, at_once: int = at_once) -> float:
                return start_in_worker(url, saga, at_once, seconds)

            yield f"SQLite, worker, {at_once} at once, {kind} steps", _Case(run, aim)


def measure(seconds: float, repeat: int) -> dict[str, list[float]]:
    """Give the figures of the floor (commits a second) and of every case (sagas a second)."""

    def measured(run: Callable[[Path], float]) -> Callable[[], float]:
        def in_new_directory() -> float:
            with tempfile.TemporaryDirectory() as directory:
                return run(Path(directory))

        return in_new_directory

    def on_journal(case: _Case) -> Callable[[Path], float]:
        return lambda directory: case.run(_url(case, directory), seconds)

    cases = {FLOOR: measured(lambda directory: raw_commits(directory, seconds))}
    cases.update({name: measured(on_journal(case)) for name, case in _cases().items()})
    return in_turn(cases, repeat)


def _url(case: _Case, directory: Path) -> str:
    return "memory://" if case.journal == "memory" else f"sqlite:///{directory}/saga.db"


def table_of(rates: Mapping[str, list[float]]) -> Table:
    """Lay the figures out, beside the floor and beside the aims scaled by it."""
    floor = statistics.median(rates[FLOOR])
    cases = _cases()
    rows = [_row(name, Spread.of(values), cases.get(name), floor) for name, values in rates.items()]
    return Table(
        title="Five-step sagas a second",
        columns=(
            "case",
            "median (least..most)",
            f"of floor / {COMMITS_PER_SAGA}",
            "aim",
            "reached",
            "aim here",
            "reached",
        ),
        rows=tuple(rows),
        notes=(f"Machine: {describe(Path(tempfile.gettempdir()))}.", _how_aims_are_scaled(floor)),
    )


def _how_aims_are_scaled(floor: float) -> str:
    return (
        f"Aims are for a floor of {AIMED_FLOOR:,} commits a second; aim here = aim x {floor:,.0f} / {AIMED_FLOOR:,}. "
        "A slow disk lowers it for cases that the processor limits, too: those need a run with the whole floor. "
        "The memory journal has no disk, so its aim is not scaled."
    )


def _row(name: str, spread: Spread, case: _Case | None, floor: float) -> tuple[str, ...]:
    if case is None:
        return (name, str(spread), "", "", "", "", "")
    is_on_disk = case.journal != "memory"
    of_floor = f"{spread.median / (floor / COMMITS_PER_SAGA):.0%}" if is_on_disk else ""
    whole = _against(case.aim, spread.median)
    here = _against(case.aim * floor / AIMED_FLOOR, spread.median) if case.aim and is_on_disk else ("", "")
    return (name, str(spread), of_floor, *whole, *here)


def _against(aim: float | None, reached: float) -> tuple[str, str]:
    return ("", "") if aim is None else (f"{aim:,.0f}", f"{reached / aim:.0%}")


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
        print_table(table_of(rates))


if __name__ == "__main__":
    main()
