"""Executions at a terminal: the list, the timeline of one, the raw journal, and the progress while one is driven."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from saga_engine.journal import Entry, SagaStatus, StepStatus, as_builtins
from saga_engine.listing import statuses_of_children
from saga_engine.logs import mask
from saga_engine.narration import (
    clock_time,
    date_time,
    duration,
    named_sentence,
    notable,
    one_line,
    row_notes,
    standing_lines,
    waits_for_right,
)
from saga_engine.record import SagaRecord
from saga_engine.timeline import Row, Timeline

__all__ = [
    "Listed",
    "LiveProgress",
    "NoProgress",
    "PlainProgress",
    "make_console",
    "print_entries",
    "print_list",
    "print_timeline",
    "print_tombstone",
    "print_undos",
    "status_text",
]

#: Columns of what is not a terminal: a pipe has no width, and what is read by a program must not be folded.
_PIPE_COLUMNS = 100_000

_STYLES = {
    "COMPLETED": "green",
    "COMPENSATED": "yellow",
    "CANCELLED": "yellow",
    "SKIPPED": "dim",
    "PENDING": "dim",
    "PARKED": "bold red",
    "FAILED": "red",
    "RUNNING": "cyan",
    "COMPENSATING": "magenta",
    "SUSPENDED": "blue",
}

#: How many events are shown below the steps.
_EVENTS_MAX = 30

History = Callable[[str], Sequence[Entry]]


def make_console() -> Console:
    """Make a console for standard output as it is now."""
    columns = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _PIPE_COLUMNS
    return Console(highlight=False, markup=False, emoji=False, width=columns)


def _print(console: Console, renderable: RenderableType) -> None:
    """Print without the blanks that fill up a table's last column: they would fold in a narrower window."""
    with console.capture() as captured:
        console.print(renderable)
    console.file.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))
    console.file.flush()


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        is_free = column in ("SAGA ID", "STEP", "NOTES", "DETAILS")
        table.add_column(column, no_wrap=not is_free, overflow="fold", justify="left")
    return table


def _label(row: Row) -> Text:
    return Text(f"{row.lead}{one_line(row.label)}")


def status_text(status: SagaStatus | StepStatus) -> Text:
    return Text(status.value, style=_STYLES[status.value])


# --- the list ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Listed:
    """One line of the list: an execution, when it last changed (Unix seconds), and what else there is to say."""

    saga_id: str
    status: SagaStatus
    updated_at: float
    note: str


def print_list(listed: Iterable[Listed]) -> None:
    """Print one line per execution."""
    console = make_console()
    table = _table("SAGA ID", "STATUS", "UPDATED", "NOTES")
    table.columns[-1].no_wrap = True
    table.columns[-1].overflow = "ellipsis"
    now = time.time()
    for each in listed:
        ago = f"{duration(max(0.0, now - each.updated_at))} ago"
        table.add_row(Text(one_line(each.saga_id)), status_text(each.status), ago, Text(one_line(each.note)))
    _print(console, table)


def print_undos(undos: Iterable[tuple[str, str]]) -> None:
    """Print what would be undone, first one first: steps, and how."""
    table = _table("", "STEP", "NOTES")
    for number, (step, how) in enumerate(undos, 1):
        table.add_row(f"{number}.", Text(one_line(step)), Text(how))
    _print(make_console(), table)


# --- one execution ----------------------------------------------------------------------------------------------------


def print_timeline(record: SagaRecord, entries: Sequence[Entry], child: str = "") -> None:
    """Print how an execution stands, what became of each step, and what else befell it.

    Args:
        record: the execution, or the child saga.
        entries: all entries of the execution.
        child: the path of the child saga.
    """
    console, timeline = make_console(), Timeline(entries)
    for line in (*_heading(record), *map(Text, waits_for_right(timeline))):
        console.print(line, soft_wrap=True)
    console.print()
    _print(console, _steps_table(timeline, record, child))
    events = notable(entries)
    if events:
        console.print()
    for at, text in events[-_EVENTS_MAX:]:
        console.print(Text(f"{date_time(at)}  {text}"), soft_wrap=True)
    if len(events) > _EVENTS_MAX:
        console.print(Text(f"These are the latest {_EVENTS_MAX} of {len(events)}; --entries shows all.", style="dim"))


def print_tombstone(record: SagaRecord) -> None:
    """Print what is left of a purged execution."""
    console = make_console()
    for line in _heading(record):
        console.print(line, soft_wrap=True)
    console.print(Text("purged: nothing else is left of it"))


def _heading(record: SagaRecord) -> list[Text]:
    lines = [Text.assemble((one_line(record.saga_id), "bold"), "  ", status_text(record.status))]
    lines += [Text(line) for line in standing_lines(record)]
    if record.stuck:
        lines.append(Text(f"stuck: {one_line(record.stuck)}", style="red"))
    return lines


def _steps_table(timeline: Timeline, record: SagaRecord, child: str) -> Table:
    table = _table("STEP", "STATUS", "ATTEMPTS", "AFTER", "TOOK", "NOTES")
    statuses = dict(statuses_of_children(record.steps, child))
    for row in timeline.rows(time.time(), child):
        status = row.status or statuses.get(row.step)
        table.add_row(
            _label(row),
            "" if status is None else status_text(status),
            str(row.attempts or ""),
            "" if row.began_after_s is None else duration(row.began_after_s),
            "" if row.took_s is None else duration(row.took_s),
            Text("\n".join(row_notes(row, record.status))),
        )
    return table


def print_entries(entries: Sequence[Entry]) -> None:
    """Print the raw journal, one entry per line; what stands under a secret's key is masked."""
    table = _table("AT", "ENTRY", "DETAILS")
    for entry in entries:
        details = mask(as_builtins(entry))
        at, name = details.pop("at"), details.pop("entry")
        text = "  ".join(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in details.items())
        table.add_row(date_time(at), name, Text(one_line(text)))
    _print(make_console(), table)


# --- progress ---------------------------------------------------------------------------------------------------------


class NoProgress:
    """Tells nothing, but knows which executions moved.

    Args:
        history: gives all entries of an execution, for those that were begun by somebody else.
    """

    def __init__(self, history: History) -> None:
        self._history = history
        self.timelines: dict[str, Timeline] = {}
        self.is_moved = False

    def know(self, saga_id: str) -> None:
        """Learn of an execution that may move soon: what was done before belongs to the picture."""
        self.timelines[saga_id] = Timeline(self._history(saga_id))

    def observe(self, saga_id: str, entries: Sequence[Entry]) -> None:
        """Take a durable commit in; for `Engine(observer=...)`."""
        self.is_moved = True
        if saga_id in self.timelines:
            self.timelines[saga_id].take(entries)
        else:
            self.know(saga_id)
        self.tell(saga_id, entries, self.timelines[saga_id])

    def tell(self, saga_id: str, entries: Sequence[Entry], timeline: Timeline) -> None:
        """Show what is new; nothing here."""

    def waiting(self, why: str) -> None:
        """Show that nothing happens for a while; nothing here."""

    def __enter__(self) -> NoProgress:
        """Begin to show."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop showing, and leave what was shown."""


class PlainProgress(NoProgress):
    """Tells each event in a line of its own, under the id of its execution."""

    _told: str | None = None

    def tell(self, saga_id: str, entries: Sequence[Entry], timeline: Timeline) -> None:
        """Print a line for each entry that tells something new."""
        console = make_console()
        if saga_id != self._told:
            self._told = saga_id
            console.print(Text(saga_id, style="bold"), soft_wrap=True)
        for entry in entries:
            text = named_sentence(entry, timeline)
            if text is not None:
                console.print(Text(f"  {clock_time(entry.at)}  {text}"), soft_wrap=True)

    def waiting(self, why: str) -> None:
        """Print why."""
        make_console().print(Text(f"  {clock_time(time.time())}  {why}"), soft_wrap=True)


class LiveProgress(NoProgress):
    """Shows the steps of one execution in a table that changes in place."""

    def __init__(self, history: History) -> None:
        super().__init__(history)
        self._why = ""
        self._live = Live(console=make_console(), get_renderable=self._render, refresh_per_second=8)

    def _render(self) -> RenderableType:
        table = _table("STEP", "STATUS", "ATTEMPTS", "TOOK", "NOTES")
        for timeline in tuple(self.timelines.values()):
            for row in timeline.rows(time.time()):
                took = "" if row.took_s is None else duration(row.took_s)
                notes = Text("\n".join(row_notes(row, timeline.state.status)))
                status = "" if row.status is None else status_text(row.status)
                table.add_row(_label(row), status, str(row.attempts or ""), took, notes)
        if not self._why:
            return table
        rows = Table.grid()
        rows.add_row(table)
        rows.add_row(Text(self._why, style="dim"))
        return rows

    def tell(self, saga_id: str, entries: Sequence[Entry], timeline: Timeline) -> None:
        """Draw anew."""
        self._why = ""
        self._live.refresh()

    def waiting(self, why: str) -> None:
        """Draw why below the steps."""
        self._why = why

    def __enter__(self) -> NoProgress:
        """Begin to draw."""
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Draw a last time, and leave it."""
        self._why = ""
        self._live.__exit__(kind, error, traceback)
