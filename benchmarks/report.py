"""Reports: a table as Markdown and on the terminal, the figures as JSON, and a plot as PNG and SVG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec
from msgspec import Struct
from rich import box
from rich.console import Console
from rich.table import Table as RichTable

__all__ = ["Table", "new_plot", "print_table", "save_figures", "save_plot", "save_tables", "want_matplotlib"]

_PLOT_DPI = 144
_FILE_WIDTH = 200


class Table(Struct, frozen=True):
    """A table: text on the left, figures on the right of it, and notes below."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    text_columns: int = 1

    def markdown(self) -> str:
        """Give it as Markdown."""
        marks = [":--" if i < self.text_columns else "--:" for i in range(len(self.columns))]
        lines = [f"## {self.title}", "", *(_markdown_row(row) for row in (self.columns, marks, *self.rows))]
        return "\n".join([*lines, "", *(f"{note}\n" for note in self.notes)])


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def print_table(table: Table) -> None:
    """Print it for a person."""
    rich_table = RichTable(title=table.title, box=box.SIMPLE_HEAD)
    for number, heading in enumerate(table.columns):
        rich_table.add_column(heading, justify="left" if number < table.text_columns else "right")
    for row in table.rows:
        rich_table.add_row(*row)
    console = Console()
    if not console.is_terminal:
        console.width = _FILE_WIDTH  # a log has no edge to wrap at
    console.print(rich_table)
    for note in table.notes:
        console.print(note, highlight=False)


def save_tables(out: Path, name: str, heading: str, tables: Sequence[Table], plots: Sequence[str] = ()) -> None:
    """Write the tables as `out/name.md`, with the plots of these names below them."""
    parts = [f"# {heading}\n", *(table.markdown() for table in tables)]
    parts += [f"![{plot}]({plot}.svg)\n" for plot in plots]
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.md").write_text("\n".join(parts), encoding="utf-8")


def save_figures(out: Path, name: str, figures: Any) -> None:
    """Write every single figure as `out/name.json`."""
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.json").write_bytes(msgspec.json.format(msgspec.json.encode(figures), indent=1) + b"\n")


def want_matplotlib() -> None:
    """Make sure, before minutes of measuring, that the plot can be drawn.

    Raises:
        click.ClickException: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl  # noqa: F401
    except ImportError:
        raise click.ClickException(
            "matplotlib is not installed, which draws the plot: install it (the dependency group `benchmarks` of "
            "pyproject.toml names it), or say --no-plot"
        ) from None


def new_plot(panels: int, width_inches: float, height_inches: float) -> tuple[Any, list[Any]]:
    """Give a figure and its panels, side by side."""
    import matplotlib as mpl

    mpl.use("Agg")  # draws into files; no display is needed
    # Text stays text in the SVG, and two runs of one measurement give the same ids.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "benchmarks", "font.size": 9})
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, panels, figsize=(width_inches, height_inches), squeeze=False, layout="constrained")
    return figure, list(axes[0])


def save_plot(figure: Any, out: Path, name: str) -> None:
    """Write the figure as `out/name.png` and `out/name.svg`, and let go of it."""
    from matplotlib import pyplot as plt

    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / f"{name}.png", dpi=_PLOT_DPI)
    figure.savefig(out / f"{name}.svg", metadata={"Date": None})
    plt.close(figure)
