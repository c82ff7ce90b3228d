"""What a full journal costs: new sagas, recovery, and suspended ones. `python -m benchmarks.journal_size`."""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec
from msgspec import Struct

from benchmarks.backlog import Recovery, Suspended, limit_s
from benchmarks.child import run_child
from benchmarks.filling import fill
from benchmarks.machine import Machine, describe
from benchmarks.report import Table, new_plot, print_table, save_figures, save_plot, save_tables, want_matplotlib
from benchmarks.rounds import Spread
from benchmarks.sagas import FiveSteps
from saga_engine import Engine, Saga
from saga_engine.journal import Entry

_OUT = Path(__file__).resolve().parent / "results"
_NAME = "journal_size"
_WARM_UPS = 20

#: How executions that a killed process left are recovered: what a table calls it, and what `backlog` does.
_RECOVERIES = {"Engine.recover(), one thread": "recover", "worker (Engine.run)": "worker"}


class Cost(Struct):
    """What a new saga costs in a journal of `size` finished executions: the medians of each round, in ms."""

    size: int
    file_mib: float
    first_commit_ms: list[float] = []
    whole_saga_ms: list[float] = []


class Figures(Struct):
    """A whole measurement, as `journal_size.json` keeps it."""

    machine: Machine
    sagas_a_round: int
    costs: list[Cost]
    recoveries: dict[str, Recovery]
    suspended: dict[int, Suspended]


class _OpenJournal:
    """An engine on one journal, and the time of the first commit of the saga that it runs."""

    def __init__(self, path: Path) -> None:
        self._first_commit_at: float | None = None
        self.engine = Engine(f"sqlite:///{path}", observer=self._observe)
        self._saga: Saga = FiveSteps.make({}, engine=self.engine)

    def _observe(self, saga_id: str, entries: Sequence[Entry]) -> None:
        if self._first_commit_at is None:
            self._first_commit_at = time.perf_counter()

    def run(self, key: str) -> tuple[float, float]:
        """Run a new saga; give the milliseconds until its first commit is on disk, and until its end."""
        self._first_commit_at = None
        began_at = time.perf_counter()
        self._saga.resolve({"id": key})
        ended_at = time.perf_counter()
        assert self._first_commit_at is not None
        return (self._first_commit_at - began_at) * 1000, (ended_at - began_at) * 1000


def cost_against_size(
    directory: Path, sizes: Sequence[int], sagas: int, repeat: int, say: Callable[[str], None]
) -> list[Cost]:
    """Measure new sagas in journals of these sizes, one saga in each in turn."""
    costs, paths = [], []
    for size in sizes:
        path = directory / f"finished-{size}.db"
        began_at = time.perf_counter()
        fill(path, "finished", size)
        say(f"{size:,} finished executions written in {time.perf_counter() - began_at:.1f} s")
        paths.append(path)
        costs.append(Cost(size, path.stat().st_size / 1024**2))
    with contextlib.ExitStack() as stack:
        journals = [_OpenJournal(path) for path in paths]
        for journal in journals:
            stack.enter_context(journal.engine)
        _run_all(journals, [f"warm-up-{number}" for number in range(_WARM_UPS)])
        for number in range(repeat):
            say(f"round {number + 1} of {repeat}: {sagas} new sagas in each journal")
            took = _run_all(journals, [f"new-{number}-{saga}" for saga in range(sagas)])
            for cost, times in zip(costs, took, strict=True):
                cost.first_commit_ms.append(statistics.median(first for first, _ in times))
                cost.whole_saga_ms.append(statistics.median(whole for _, whole in times))
    return costs


def _run_all(journals: Sequence[_OpenJournal], keys: Sequence[str]) -> list[list[tuple[float, float]]]:
    """Run one saga in each journal for each key; in turn, so that a slow spell meets all journals."""
    took: list[list[tuple[float, float]]] = [[] for _ in journals]
    for key in keys:
        for journal, times in zip(journals, took, strict=True):
            times.append(journal.run(key))
    return took


def recoveries_of(directory: Path, count: int, say: Callable[[str], None]) -> dict[str, Recovery]:
    """Recover `count` executions that a killed process left in their third step, in a process of its own each time."""
    found = {}
    for name, what in _RECOVERIES.items():
        path = directory / f"unfinished-{what}.db"
        fill(path, "unfinished", count)
        say(f"recovering {count:,} unfinished executions: {name}")
        found[name] = msgspec.json.decode(_meet(what, path, count), type=Recovery)
    return found


def beside_suspended(directory: Path, counts: Sequence[int], say: Callable[[str], None]) -> dict[int, Suspended]:
    """Run a worker beside so many suspended executions, in a process of its own each time."""
    found = {}
    for count in counts:
        path = directory / f"suspended-{count}.db"
        fill(path, "suspended", count)
        say(f"running a worker beside {count:,} suspended executions")
        found[count] = msgspec.json.decode(_meet("suspended", path, count), type=Suspended)
    return found


def _meet(what: str, path: Path, count: int) -> str:
    return run_child("benchmarks.backlog", what, f"sqlite:///{path}", str(count), limit_s=limit_s(count))


def tables_of(figures: Figures) -> list[Table]:
    """Lay the figures out: a table for each question that was asked."""
    return [table for table in (_costs(figures), _recoveries(figures), _suspended(figures)) if table.rows]


def _costs(figures: Figures) -> Table:
    rows = []
    for cost in figures.costs:
        first, whole = Spread.of(cost.first_commit_ms), Spread.of(cost.whole_saga_ms)
        base = figures.costs[0]
        of_first = first.median / statistics.median(base.first_commit_ms) - 1
        of_whole = whole.median / statistics.median(base.whole_saga_ms) - 1
        cells = (str(first), f"{of_first:+.0%}", str(whole), f"{of_whole:+.0%}")
        rows.append((f"{cost.size:,}", f"{cost.file_mib:,.0f} MiB", *cells))
    return Table(
        title="A new saga against the size of the journal: p50 in ms (least..most p50 of a round)",
        columns=("finished executions", "file", "first commit", "to first row", "whole saga", "to first row"),
        rows=tuple(rows),
        notes=(f"{figures.sagas_a_round} sagas a round in each journal, in turn. Machine: {figures.machine}.",),
    )


def _recoveries(figures: Figures) -> Table:
    return Table(
        title="Recovery after a process was killed",
        columns=("by", "executions", "first moves after", "in all", "a second", "memory before", "peak after"),
        rows=tuple(
            (
                name,
                f"{found.ended:,}",
                f"{found.first_moves_s:.3f} s",
                f"{found.total_s:.1f} s",
                f"{found.ended / found.total_s:,.0f}",
                f"{found.peak_before_mib:.0f} MiB",
                f"{found.peak_after_mib:.0f} MiB",
            )
            for name, found in figures.recoveries.items()
        ),
        notes=("Memory is the most that was resident.",),
    )


def _suspended(figures: Figures) -> Table:
    return Table(
        title="A running worker beside suspended executions",
        columns=("suspended", "threads", "resident memory", "CPU while idle", "start to end of a new saga, p50"),
        rows=tuple(
            (
                f"{count:,}",
                str(found.threads),
                f"{found.resident_mib:.0f} MiB",
                f"{found.idle_cpu:.1%} of a core",
                f"{found.start_to_end_ms:.1f} ms",
            )
            for count, found in figures.suspended.items()
        ),
    )


def plot(figures: Figures, out: Path) -> None:
    """Draw the costs, and the memory of the recoveries if they were long enough to be sampled."""
    sampled = {name: found for name, found in figures.recoveries.items() if found.samples}
    panels_count = 2 if sampled else 1
    figure, panels = new_plot(panels_count, 5.0 * panels_count, 3.6)
    _draw_costs(panels[0], figures.costs)
    if sampled:
        _draw_recoveries(panels[1], sampled)
    save_plot(figure, out, _NAME)


def _draw_costs(panel: Any, costs: Sequence[Cost]) -> None:
    positions = range(len(costs))
    for label, spreads in (
        ("whole five-step saga", [Spread.of(cost.whole_saga_ms) for cost in costs]),
        ("first commit", [Spread.of(cost.first_commit_ms) for cost in costs]),
    ):
        medians = [spread.median for spread in spreads]
        below = [spread.median - spread.least for spread in spreads]
        above = [spread.most - spread.median for spread in spreads]
        panel.errorbar(positions, medians, yerr=[below, above], marker="o", capsize=4, label=label)
    panel.set_xticks(positions, [f"{cost.size:,}" for cost in costs])
    panel.set_ylim(bottom=0)
    panel.set(xlabel="finished executions in the journal", ylabel="p50 of a new saga, ms")
    panel.grid(axis="y", alpha=0.3)
    panel.legend()


def _draw_recoveries(panel: Any, recoveries: Mapping[str, Recovery]) -> None:
    for name, found in recoveries.items():
        label = f"{name}: first moves after {found.first_moves_s:.2f} s, all after {found.total_s:,.0f} s"
        panel.plot([s.ended for s in found.samples], [s.resident_mib for s in found.samples], label=label)
    panel.set_ylim(0, 1.5 * max(found.peak_after_mib for found in recoveries.values()))
    panel.set(xlabel="executions recovered", ylabel="resident memory, MiB")
    panel.grid(axis="y", alpha=0.3)
    panel.legend(fontsize=7)


def _numbers(text: str) -> list[int]:
    try:
        return sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise click.ClickException(f"--sizes {text}: give whole numbers with a comma between two") from None


@contextlib.contextmanager
def _directory(given: Path | None) -> Iterator[Path]:
    """Give a new directory for the journals, and remove it in the end: they are large."""
    with tempfile.TemporaryDirectory(dir=given) as directory:
        yield Path(directory)


@click.command()
@click.option("--sizes", default="0,1000,10000,100000,1000000", show_default=True, help="Finished executions.")
@click.option("--sagas", default=300, show_default=True, help="New sagas a round in each journal.")
@click.option("--repeat", default=3, show_default=True, help="How many rounds.")
@click.option("--recover", "recovered", default=100_000, show_default=True, help="Unfinished executions; 0: none.")
@click.option("--suspended", default=100_000, show_default=True, help="Suspended executions; 0: none.")
@click.option("--journals", type=click.Path(path_type=Path, exists=True), default=None, help="Disk for the journals.")
@click.option("--out", type=click.Path(path_type=Path), default=_OUT, help="Where the tables and the plot go.")
@click.option("--plot/--no-plot", "is_plotted", default=True, help="Draw the plot; needs matplotlib.")
def main(
    sizes: str,
    sagas: int,
    repeat: int,
    recovered: int,
    suspended: int,
    journals: Path | None,
    out: Path,
    is_plotted: bool,
) -> None:
    """Measure what a journal full of finished, unfinished or suspended executions costs."""
    if is_plotted:
        want_matplotlib()

    def say(text: str) -> None:
        click.echo(text, err=True)

    with _directory(journals) as directory:
        figures = Figures(
            machine=describe(directory),
            sagas_a_round=sagas,
            costs=cost_against_size(directory, _numbers(sizes), sagas, repeat, say),
            recoveries=recoveries_of(directory, recovered, say) if recovered else {},
            suspended=beside_suspended(directory, [0, suspended], say) if suspended else {},
        )
    tables = tables_of(figures)
    for table in tables:
        print_table(table)
    save_figures(out, _NAME, figures)
    save_tables(out, _NAME, "What a full journal costs", tables, [_NAME] if is_plotted else [])
    if is_plotted:
        plot(figures, out)


if __name__ == "__main__":
    main()
