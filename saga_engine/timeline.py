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
    SkipAnswered,
    StepCompensated,
    StepCompleted,
    StepFailed,
    StepProbed,
    StepStarted,
    StepStatus,
    StepSuspended,
    TakenOver,
)
from saga_engine.record import error_text
from saga_engine.state import State, StepState

__all__ = ["Row", "Timeline"]

_EXECUTE_ENDS = (StepCompleted, StepFailed, StepProbed, StepSuspended, SkipAnswered)
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
    """One step in a timeline; times in seconds.

    Attributes:
        began_after_s: from the start of the execution to the step's first attempt; None if it never started.
        took_s: from its first attempt to the end of the last one, waits included; up to now while one is under way.
        undo_took_s: the same for its undo; None if there was none.
        error: the last error of `execute` or, if the undo fails, of `compensate`.
        due_at: when it goes on by itself, in Unix seconds.
    """

    step: str
    status: StepStatus
    attempts: int
    began_after_s: float | None
    took_s: float | None
    undo_attempts: int
    undo_took_s: float | None
    error: str | None
    cause: str | None
    next_action: str | None
    due_at: float | None


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

    def rows(self, now: float) -> list[Row]:
        """Give all steps in the order of the plan.

        Args:
            now: Unix seconds, up to which steps that are under way are measured.
        """
        return [self._row(name, step, now) for name, step in self.state.steps.items()]

    def _row(self, name: str, step: StepState, now: float) -> Row:
        began_at = self._executes[name].began_at
        return Row(
            step=name,
            status=step.phase.status,
            attempts=step.attempts,
            began_after_s=None if began_at is None else max(0.0, began_at - self.state.started_at),
            took_s=self._executes[name].seconds(now),
            undo_attempts=step.undo_attempts,
            undo_took_s=self._undos[name].seconds(now),
            error=error_text(step),
            cause=step.cause,
            next_action=step.next_action,
            due_at=step.due_at or step.retry_at,
        )

    def _note(self, entry: Entry) -> None:
        if isinstance(entry, StepStarted):
            self._executes[entry.step].begin(entry.at)
        elif isinstance(entry, CompensationStarted):
            self._undos[entry.step].begin(entry.at)
        elif isinstance(entry, _EXECUTE_ENDS):
            self._executes[entry.step].end(entry.at)
        elif isinstance(entry, _UNDO_ENDS):
            self._undos[entry.step].end(entry.at)
        elif isinstance(entry, (DriveInterrupted, TakenOver)):
            self._stop_all(entry.at)

    def _stop_all(self, at: float) -> None:
        """End what was under way when its drive was stopped: it is not running any more."""
        for span in (*self._executes.values(), *self._undos.values()):
            if span.began_at is not None and span.ended_at is None:
                span.end(at)
