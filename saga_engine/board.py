"""What a worker shows: each end as a line, for people or as JSON, or at a terminal a board that changes in place."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

import click
import msgspec
from rich.live import Live
from rich.table import Table
from rich.text import Text

from saga_engine.journal import (
    CompensationStarted,
    DriveInterrupted,
    Entry,
    Response,
    SagaEnded,
    SagaParked,
    SagaStatus,
    SagaSuspended,
    StepStarted,
)
from saga_engine.narration import clock_time, duration, one_line
from saga_engine.terminal import make_console, status_text

__all__ = ["Board", "JsonBoard", "LiveBoard", "board_for"]

#: How many executions the board remembers as under way, how many of them it shows, and how many ends.
_UNDER_WAY_MAX, _SHOWN_MAX, _ENDS_MAX = 1_024, 10, 8


@dataclass(frozen=True)
class End:
    """An execution ended or parked, at this moment in Unix seconds."""

    at: float
    saga_id: str
    status: SagaStatus
    answer: Response | None
    error: str | None

    def as_line(self) -> str:
        """Give it as a person reads it."""
        if self.status is SagaStatus.PARKED:
            return one_line(f"{self.saga_id} PARKED{(self.error or '').removeprefix('parked')}")
        return one_line(f"{self.saga_id} {self.status.value}" + (f": {self.error}" if self.error else ""))


class Board:
    """Counts how executions end, and prints a line for each."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.counts: Counter[SagaStatus] = Counter()
        #: Why nothing can be shown any more: whoever read it is gone.
        self.broken: BrokenPipeError | None = None

    def observe(self, saga_id: str, entries: Sequence[Entry]) -> None:
        """Take a durable commit in; for `Engine(observer=...)`, from any thread."""
        with self._lock:
            self.take(saga_id, entries)
            for entry in entries:
                if isinstance(entry, (SagaEnded, SagaParked)):
                    self._end(_end_of(saga_id, entry))

    def _end(self, end: End) -> None:
        self.counts[end.status] += 1
        if self.broken is not None:
            return
        try:
            self.tell(end)
        except BrokenPipeError as error:
            self.broken = error
            os.kill(os.getpid(), signal.SIGTERM)  # nobody hears it any more: stop as gracefully as ever

    def take(self, saga_id: str, entries: Sequence[Entry]) -> None:
        """Learn what is under way; nothing here."""

    def tell(self, end: End) -> None:
        """Print an end."""
        click.echo(f"{clock_time(end.at)}  {end.as_line()}")

    def begin(self, where: str) -> None:
        """Say that the worker begins."""
        click.echo(f"Working on {where}. Ctrl-C or SIGTERM stops it.")

    def finish(self) -> None:
        """Say how many executions came to which end."""
        click.echo(f"Stopped: {self.counted()}.")

    def counted(self) -> str:
        """Give the counts in words."""
        counted = [f"{count} {status.value.lower()}" for status, count in self.counts.items()]
        return ", ".join(counted) or "nothing ended"

    def __enter__(self) -> Board:
        """Begin to show."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop showing."""


class JsonBoard(Board):
    """Prints each end as one line of JSON, and nothing else."""

    def tell(self, end: End) -> None:
        """Print an end."""
        click.echo(msgspec.json.encode(end).decode())

    def begin(self, where: str) -> None:
        """Say nothing."""

    def finish(self) -> None:
        """Say nothing."""


class LiveBoard(Board):
    """Shows what is under way, the latest ends, and the counts."""

    def __init__(self) -> None:
        super().__init__()
        self._under_way: OrderedDict[str, tuple[str, float]] = OrderedDict()
        self._ends: deque[End] = deque(maxlen=_ENDS_MAX)
        self._live = Live(console=make_console(), get_renderable=self._render, refresh_per_second=4)

    def take(self, saga_id: str, entries: Sequence[Entry]) -> None:
        """Learn what is under way."""
        for entry in entries:
            if isinstance(entry, (StepStarted, CompensationStarted)):
                verb = "running" if isinstance(entry, StepStarted) else "undoing"
                self._under_way[saga_id] = (f"{verb} {entry.step}", entry.at)
                self._under_way.move_to_end(saga_id)
            elif isinstance(entry, (DriveInterrupted, SagaEnded, SagaParked, SagaSuspended)):
                self._under_way.pop(saga_id, None)
        while len(self._under_way) > _UNDER_WAY_MAX:  # those of a lost lease are never taken back
            self._under_way.popitem(last=False)

    def tell(self, end: End) -> None:
        """Remember it for the board."""
        self._ends.append(end)

    def _render(self) -> Table:
        with self._lock:
            shown = list(self._under_way.items())[-_SHOWN_MAX:]
            hidden, ends, counted = len(self._under_way) - len(shown), list(self._ends), self.counted()
        table, now = Table.grid(padding=(0, 2, 0, 0)), time.time()
        for end in ends:
            table.add_row(clock_time(end.at), Text(one_line(end.saga_id)), status_text(end.status), _note(end))
        for saga_id, (text, at) in shown:
            table.add_row(duration(max(0.0, now - at)), Text(one_line(saga_id)), "", Text(one_line(text)))
        more = f", {hidden} more under way" if hidden else ""
        board = Table.grid()
        board.add_row(table)
        board.add_row(Text(f"{counted}; {len(shown)} under way{more}", style="dim"))
        return board

    def __enter__(self) -> Board:
        """Begin to draw."""
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Draw a last time, and leave it."""
        self._live.__exit__(kind, error, traceback)


def board_for(is_json: bool) -> Board:
    """Choose what fits standard output."""
    if is_json:
        return JsonBoard()
    return LiveBoard() if sys.stdout.isatty() else Board()


def _note(end: End) -> Text:
    return Text(one_line(end.error or ""))


def _end_of(saga_id: str, entry: SagaEnded | SagaParked) -> End:
    if isinstance(entry, SagaParked):
        return End(entry.at, saga_id, SagaStatus.PARKED, None, f"parked at {entry.step}: {entry.cause}")
    error = entry.response.output if entry.response.status == "fail" else None
    return End(entry.at, saga_id, entry.status, entry.response, error)
