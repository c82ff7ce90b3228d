"""Ours beside other projects on the same five-step saga. `python -m benchmarks.peers`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
from msgspec import Struct

from benchmarks.machine import Machine, describe
from benchmarks.peers.roster import FLOOR, ROSTER, Peer
from benchmarks.peers.runs import Found, RunFailed, run_peer
from benchmarks.report import Table, new_plot, print_table, save_figures, save_plot, save_tables, want_matplotlib
from benchmarks.rounds import Spread

_OUT = Path(__file__).resolve().parents[1] / "results"
_NAME = "peers"


class Cell(Struct):
    """One peer at so many at once: its figures in sagas a second, or why there are none."""

    at_once: int
    sagas_a_second: list[float] = []
    failed: str = ""

    def __str__(self) -> str:
        return str(Spread.of(self.sagas_a_second)) if self.sagas_a_second and not self.failed else "-"


class Row(Struct):
    """Everything that was found out about one peer."""

    name: str
    at_once: str
    durable: str
    cells: list[Cell]
    version: str = ""
    python: str = ""


class Figures(Struct):
    """A whole comparison, as `peers.json` keeps it."""

    machine: Machine
    seconds: float
    repeat: int
    rows: list[Row]


def compare(
    peers: Sequence[Peer], at_once: Sequence[int], seconds: float, repeat: int, venvs: Path, say: Callable[[str], None]
) -> Figures:
    """Measure all peers in turn, `repeat` times; one that fails is not tried again at that many at once."""
    rows = [Row(peer.name, peer.at_once, peer.durable, [Cell(n) for n in at_once]) for peer in peers]
    for number in range(repeat):
        for column, n in enumerate(at_once):
            for peer, row in zip(peers, rows, strict=True):
                cell = row.cells[column]
                if not cell.failed:
                    say(f"round {number + 1} of {repeat}, {n} at once: {peer.name}")
                    _measure(peer, row, cell, seconds, venvs)
    return Figures(describe(Path(tempfile.gettempdir())), seconds, repeat, rows)


def _measure(peer: Peer, row: Row, cell: Cell, seconds: float, venvs: Path) -> None:
    try:
        found: Found = run_peer(peer, cell.at_once, seconds, venvs)
    except RunFailed as reason:
        cell.failed = str(reason)
        return
    cell.sagas_a_second.append(found.sagas_a_second)
    row.version, row.python = found.version, found.python


def table_of(figures: Figures) -> Table:
    """Lay the comparison out, one row a peer."""
    at_once = [cell.at_once for cell in figures.rows[0].cells]
    return Table(
        title="Five-step sagas a second: median (least..most)",
        columns=("", "on disk while it runs", "runs at once in", "Python", *(f"{n} at once" for n in at_once)),
        rows=tuple(
            (_label(row), row.durable, row.at_once, row.python or "-", *(str(cell) for cell in row.cells))
            for row in figures.rows
        ),
        notes=(
            *_failures(figures.rows),
            f"{figures.repeat} rounds of {figures.seconds:g} s each, in turn. Machine: {figures.machine}.",
        ),
        text_columns=4,
    )


def _label(row: Row) -> str:
    return f"{row.name} ({row.version})" if row.version else row.name


def _failures(rows: Sequence[Row]) -> Iterator[str]:
    for row in rows:
        reasons: dict[str, list[str]] = {}
        for cell in row.cells:
            if cell.failed:
                reasons.setdefault(cell.failed, []).append(str(cell.at_once))
        for reason, at_once in reasons.items():
            yield f"{row.name}, {' and '.join(at_once)} at once: {reason}."


def plot(figures: Figures, out: Path) -> None:
    """Draw the medians as dots with their spread, one panel for each number at once."""
    at_once = [cell.at_once for cell in figures.rows[0].cells]
    figure, panels = new_plot(len(at_once), 3.2 + 2.6 * len(at_once), 0.9 + 0.32 * len(figures.rows))
    for column, panel in enumerate(panels):
        if column:
            panel.sharex(panels[0])
        _draw(panel, figures.rows, column)
        panel.set_title(f"{at_once[column]} at once")
        panel.set_yticks(range(len(figures.rows)), [_label(row) if column == 0 else "" for row in figures.rows])
    figure.supxlabel("sagas of five steps a second (logarithmic); filled: durable at every step", fontsize=9)
    save_plot(figure, out, _NAME)


def _draw(panel: Any, rows: Sequence[Row], column: int) -> None:
    panel.set_xscale("log")
    panel.grid(axis="x", alpha=0.3)
    panel.set_ylim(len(rows) - 0.5, -0.5)
    for y, row in enumerate(rows):
        cell = row.cells[column]
        if cell.failed:
            panel.text(0.02, y, "no figure", transform=panel.get_yaxis_transform(), va="center", color="0.5")
            continue
        spread = Spread.of(cell.sagas_a_second)
        color = _color(row)
        is_durable = row.durable.startswith("every")
        panel.plot([spread.least, spread.most], [y, y], color=color, linewidth=2, alpha=0.5)
        panel.plot(spread.median, y, "o", color=color, markerfacecolor=color if is_durable else "white")
        panel.annotate(
            f"{spread.median:,.0f}", (spread.median, y), (0, 5), textcoords="offset points", ha="center", fontsize=7
        )
    panel.margins(x=0.15)


def _color(row: Row) -> str:
    if row.name == FLOOR:
        return "0.4"
    return "tab:blue" if row.name.startswith("saga-engine") else "tab:orange"


def _cache() -> Path:
    """Give where environments are kept between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "saga-engine" / "benchmarks"


@click.command()
@click.option("--seconds", default=3.0, show_default=True, help="How long each run measures.")
@click.option("--repeat", default=3, show_default=True, help="How many rounds; the median counts.")
@click.option("--at-once", default="1,16,64", show_default=True, help="How many sagas at once; a comma between two.")
@click.option("--only", default="", help="Only rows whose name contains this.")
@click.option("--out", type=click.Path(path_type=Path), default=_OUT, help="Where the table and the plot go.")
@click.option("--venvs", type=click.Path(path_type=Path), default=None, help="Where the environments are kept.")
@click.option("--plot/--no-plot", "is_plotted", default=True, help="Draw the plot; needs matplotlib.")
def main(seconds: float, repeat: int, at_once: str, only: str, out: Path, venvs: Path | None, is_plotted: bool) -> None:
    """Run ours, four other projects and the raw floor side by side, and write a table and a plot."""
    if is_plotted:
        want_matplotlib()
    peers = [peer for peer in ROSTER if only in peer.name]
    if not peers:
        raise click.ClickException(f"no row's name contains {only!r}; there are: {', '.join(p.name for p in ROSTER)}")
    numbers = [int(part) for part in at_once.split(",")]
    figures = compare(peers, numbers, seconds, repeat, (venvs or _cache()).resolve(), lambda t: click.echo(t, err=True))
    table = table_of(figures)
    print_table(table)
    save_figures(out, _NAME, figures)
    save_tables(out, _NAME, "Ours beside other projects", [table], [_NAME] if is_plotted else [])
    if is_plotted:
        plot(figures, out)


if __name__ == "__main__":
    main()
