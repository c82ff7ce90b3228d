"""The timeline of an execution: what became of each step and how long it took, folded from the entries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from saga_engine.decider import evolve, replay
from saga_engine.journal import (
    CompensationDeclined,
    CompensationFailed,
    CompensationStarted,
    CompensationSuspended,
    DriveInterrupted,
    Entry,
    ParkedStepResolved,
    SignalAwaited,
    SignalMissed,
    SignalReceived,
    SkipAnswered,
    StepCompensated,
    StepCompleted,
    StepFailed,
    StepProbed,
    StepSkippedByHand,
    StepStarted,
    StepStatus,
    StepSuspended,
    TakenOver,
)
from saga_engine.record import error_text
from saga_engine.state import Phase, State, StepState
from saga_engine.tree import Line, lines_of

__all__ = ["Row", "Timeline"]

_EXECUTE_ENDS = (SignalMissed, SkipAnswered, StepCompleted, StepFailed, StepProbed, StepSuspended)
#: What may end a step's wait, or declare the step over, without an attempt that ends.
_MAY_END = (ParkedStepResolved, SignalAwaited, SignalReceived, StepSkippedByHand)
_UNDO_ENDS = (CompensationDeclined, CompensationFailed, CompensationSuspended, StepCompensated)


@dataclass
class _Span:
    """When something first began and last ended, in Unix seconds; it is under way while it has begun and not ended."""

    began_at: float | None = None
    ended_at: float | None = None

    def begin(self, at: float) -> None:
        self.began_at = at if self.began_at is None else self.began_at
        self.ended_at = None

    def end(self, at: float) -> None:
        self.ended_at = at

    def seconds(self, now: float) -> float | None:
        if self.began_at is None:
            return None
        return max(0.0, (now if self.ended_at is None else self.ended_at) - self.began_at)


@dataclass(frozen=True)
class Row:
    """One step in a timeline, or the heading of a child saga; times in seconds.

    Attributes:
        step: the step's name in the plan, or the child's path.
        lead, label: its own name, and what is drawn before it to show its place among branches and children.
        status: None for the heading of a child.
        began_after_s: from the start of the execution to the step's first attempt; None if it never started.
        took_s: from its first attempt to the end of the last one, waits included; up to now while one is under way.
        undo_took_s: the same for its undo; None if there was none.
        error: the last error of `execute` or, if the undo fails, of `compensate`.
        due_at: when it goes on by itself, in Unix seconds.
        signal: the signal that it waits for.
    """

    step: str
    lead: str
    label: str
    status: StepStatus | None
    attempts: int = 0
    began_after_s: float | None = None
    took_s: float | None = None
    undo_attempts: int = 0
    undo_took_s: float | None = None
    error: str | None = None
    cause: str | None = None
    next_action: str | None = None
    due_at: float | None = None
    signal: str | None = None


class Timeline:
    """What became of each step, entry by entry.

    Args:
        entries: all entries so far, of which the first is the execution's `SagaStarted`.
    """

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.state: State = replay(tuple(entries[:1]))
        self._executes = {name: _Span() for name in self.state.steps}
        self._undos = {name: _Span() for name in self.state.steps}
        self._note(entries[0])
        self.take(entries[1:])

    def take(self, entries: Sequence[Entry]) -> None:
        """Go on with entries that were journaled since."""
        for entry in entries:
            self.state = evolve(self.state, entry)
            self._note(entry)

    def execute_seconds(self, step: str, now: float) -> float:
        """Give how long the step's `execute` has taken, see `Row.took_s`; 0 if it never started."""
        return self._executes[step].seconds(now) or 0.0

    def undo_seconds(self, step: str, now: float) -> float:
        """Give the same for its undo."""
        return self._undos[step].seconds(now) or 0.0

    def rows(self, now: float, child: str = "") -> list[Row]:
        """Give all steps in the order of the plan, each child saga's below a heading of its own.

        Args:
            now: Unix seconds, up to which steps that are under way are measured.
            child: the path of a child saga, to give only what is in it.
        """
        lines = lines_of(self.state.shape, child)
        return [self._heading(line, now) if line.members else self._row(line, now) for line in lines]

    def _row(self, line: Line, now: float) -> Row:
        step: StepState = self.state.steps[line.name]
        return Row(
            step=line.name,
            lead=line.lead,
            label=line.label,
            status=step.phase.status,
            attempts=step.attempts,
            began_after_s=self._after(self._executes[line.name].began_at),
            took_s=self._executes[line.name].seconds(now),
            undo_attempts=step.undo_attempts,
            undo_took_s=self._undos[line.name].seconds(now),
            error=error_text(step),
            cause=step.cause,
            next_action=step.next_action,
            due_at=step.due_at or step.retry_at,
            signal=step.signal if step.phase is Phase.SUSPENDED else None,
        )

    def _heading(self, line: Line, now: float) -> Row:
        """Tell of a child saga when its first step began, and how long it took to the end of its last one."""
        spans = [span for name in line.members if (span := self._executes[name]).began_at is not None]
        if not spans:
            return Row(line.name, line.lead, line.label, None)
        began_at = min(span.began_at for span in spans if span.began_at is not None)
        ended_at = max(now if span.ended_at is None else span.ended_at for span in spans)
        took_s = max(0.0, ended_at - began_at)
        return Row(line.name, line.lead, line.label, None, began_after_s=self._after(began_at), took_s=took_s)

    def _after(self, began_at: float | None) -> float | None:
        return None if began_at is None else max(0.0, began_at - self.state.started_at)

    def _note(self, entry: Entry) -> None:
        if isinstance(entry, (SignalAwaited, StepStarted)):
            self._executes[entry.step].begin(entry.at)
        elif isinstance(entry, CompensationStarted):
            self._undos[entry.step].begin(entry.at)
        elif isinstance(entry, _EXECUTE_ENDS):
            self._executes[entry.step].end(entry.at)
        elif isinstance(entry, _UNDO_ENDS):
            self._undos[entry.step].end(entry.at)
        elif isinstance(entry, (DriveInterrupted, TakenOver)):
            self._stop_all(entry.at)
        if isinstance(entry, _MAY_END):
            self._stop_what_is_over(entry.at)

    def _stop_what_is_over(self, at: float) -> None:
        for name, span in self._executes.items():
            is_under_way = span.began_at is not None and span.ended_at is None
            if is_under_way and self.state.steps[name].phase.is_over:
                span.end(at)

    def _stop_all(self, at: float) -> None:
        """End what was under way when its drive was stopped: it is not running any more."""
        for span in (*self._executes.values(), *self._undos.values()):
            if span.began_at is not None and span.ended_at is None:
                span.end(at)
