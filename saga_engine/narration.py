"""Entries, durations and times in words, for people at a terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from saga_engine.journal import (
    CancelRequested,
    CompensationBegun,
    CompensationDeclined,
    CompensationFailed,
    CompensationStarted,
    CompensationSuspended,
    DriveInterrupted,
    DriveResumed,
    Entry,
    ErrorRecord,
    ExclusiveDenied,
    LateEffectFound,
    ParkedStepResolved,
    ProbeStarted,
    RequestDelivered,
    SignalAwaited,
    SignalMissed,
    SignalReceived,
    SkipAnswered,
    StateEdited,
    StepCompensated,
    StepCompleted,
    StepFailed,
    StepParked,
    StepProbed,
    StepResumed,
    StepSkipped,
    StepSkippedByHand,
    StepStarted,
    StepSuspended,
    TakenOver,
    UndoOrdered,
)
from saga_engine.state import Phase
from saga_engine.timeline import Timeline

__all__ = ["clock_time", "date_time", "duration", "one_line", "sentence"]

_MINUTE_S, _HOUR_S, _DAY_S = 60, 3_600, 86_400


def duration(seconds: float) -> str:
    """Give a span of time in words, short: `12 ms`, `2.1 s`, `3 min 05 s`, `2 h 03 min`, `4 d 1 h`.

    Args:
        seconds: at least 0.
    """
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < _MINUTE_S:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < _HOUR_S:
        return f"{whole // _MINUTE_S} min {whole % _MINUTE_S:02} s"
    if whole < _DAY_S:
        return f"{whole // _HOUR_S} h {whole % _HOUR_S // _MINUTE_S:02} min"
    return f"{whole // _DAY_S} d {whole % _DAY_S // _HOUR_S} h"


def date_time(at: float) -> str:
    """Give a moment in local time: `2026-01-31 09:15:02`.

    Args:
        at: Unix seconds.
    """
    return _local(at).strftime("%Y-%m-%d %H:%M:%S")


def clock_time(at: float) -> str:
    """Give the time of day of a moment of today, with the date of any other."""
    moment = _local(at)
    return moment.strftime("%H:%M:%S") if moment.date() == datetime.now().astimezone().date() else date_time(at)


def _local(at: float) -> datetime:
    return datetime.fromtimestamp(at).astimezone()


def one_line(text: str) -> str:
    """Give the text without line breaks and without what could control a terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def sentence(entry: Entry, timeline: Timeline) -> str | None:
    """Tell what an entry means; None for those that tell a person nothing new.

    Args:
        entry: the entry, whose step is told by its `step`.
        timeline: the execution with the entry taken in.
    """
    tell = _SENTENCES.get(type(entry))
    return None if tell is None else one_line(tell(entry, timeline))


def _error(error: ErrorRecord) -> str:
    return f"{error.type.rpartition('.')[2]}: {error.message}"


def _again(retry_at: float | None) -> str:
    return "" if retry_at is None else f"; next attempt at {clock_time(retry_at)}"


def _attempt(number: int) -> str:
    return "" if number == 1 else f", attempt {number}"


def _took(entry: Any, timeline: Timeline) -> str:
    return duration(timeline.execute_seconds(entry.step, entry.at))


def _undo_took(entry: Any, timeline: Timeline) -> str:
    return duration(timeline.undo_seconds(entry.step, entry.at))


def _completed(entry: StepCompleted, timeline: Timeline) -> str:
    if not entry.has_effect:
        return "done, answered by a middleware: it has no effect to undo"
    return f"done in {_took(entry, timeline)}"


def _failed(entry: StepFailed, timeline: Timeline) -> str:
    return f"failed after {_took(entry, timeline)}: {_error(entry.error)}{_again(entry.retry_at)}"


def _suspended(entry: StepSuspended, _timeline: Timeline) -> str:
    waits_for = "the next delivery" if entry.signal is None else f"the signal {entry.signal!r} or the next delivery"
    until = "" if entry.due_at is None else f", until {clock_time(entry.due_at)} at most"
    return f"waits for {waits_for}{until}"


def _turned_back(entry: CompensationBegun, _timeline: Timeline) -> str:
    why = {"deadline": "its deadline passed", "cancelled": "it was cancelled", "interrupted": "it was interrupted"}
    return f"turns back: {why.get(entry.cause, f'{entry.step} failed')}"


def _undo_failed(entry: CompensationFailed, _timeline: Timeline) -> str:
    return f"undo failed: {_error(entry.error)}{_again(entry.retry_at)}"


_SENTENCES: dict[type[Entry], Callable[[Any, Timeline], str]] = {
    RequestDelivered: lambda entry, timeline: "goes on with a delivery",
    DriveResumed: lambda entry, timeline: "goes on",
    TakenOver: lambda entry, timeline: f"is taken over{f' from {entry.died}' if entry.died else ''}",
    DriveInterrupted: lambda entry, timeline: "is interrupted",
    SignalReceived: lambda entry, timeline: f"gets the signal {entry.name!r}",
    CancelRequested: lambda entry, timeline: f"is cancelled: {entry.reason}",
    CompensationBegun: _turned_back,
    StepSkipped: lambda entry, timeline: "skipped",
    StepStarted: lambda entry, timeline: f"running{_attempt(entry.attempt)}",
    StepCompleted: _completed,
    SkipAnswered: lambda entry, timeline: f"done in {_took(entry, timeline)}; the rest is to be skipped",
    StepSuspended: _suspended,
    StepFailed: _failed,
    ProbeStarted: lambda entry, timeline: "probing what the attempt has done",
    StepProbed: lambda entry, timeline: f"probed: {entry.answer.value.replace('_', ' ')}",
    CompensationStarted: lambda entry, timeline: f"undoing{_attempt(entry.attempt)}",
    StepCompensated: lambda entry, timeline: f"undone in {_undo_took(entry, timeline)}",
    CompensationDeclined: lambda entry, timeline: "has no undo",
    CompensationFailed: _undo_failed,
    CompensationSuspended: lambda entry, timeline: f"undo goes on at {clock_time(entry.due_at)}",
    StepParked: lambda entry, timeline: f"parked: {entry.cause}",
    ParkedStepResolved: lambda entry, timeline: f"resolved as {entry.outcome.replace('_', ' ')}: {entry.note}",
}
