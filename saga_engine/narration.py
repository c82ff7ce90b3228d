"""Entries, durations and times in words, for people at a terminal."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from saga_engine.errors import StepTimedOut
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
    SagaStatus,
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
    StepStatus,
    StepSuspended,
    TakenOver,
    UndoOrdered,
)
from saga_engine.record import SagaRecord
from saga_engine.state import Phase
from saga_engine.timeline import Row, Timeline

__all__ = [
    "clock_time",
    "date_time",
    "duration",
    "named_sentence",
    "notable",
    "one_line",
    "row_notes",
    "sentence",
    "standing_lines",
    "waits_for_right",
]

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


def standing_lines(record: SagaRecord) -> list[str]:
    """Tell how an execution stands: since when, what it answered or why it failed, and who drives it, or when."""
    took = duration(max(0.0, record.updated_at - record.created_at))
    lines = [f"started {date_time(record.created_at)}, last change {date_time(record.updated_at)}, {took} later"]
    if record.plugin:
        lines.append(one_line(f"its saga came with the plugin {record.plugin} {record.plugin_version}"))
    if record.response is not None:
        output = getattr(record.response, "output", None)
        lines.append(f"answered {record.response.status}" + (f": {one_line(str(output))}" if output else ""))
    elif record.error:
        lines.append(one_line(record.error))
    if record.held_by:
        lines.append(f"held by {record.held_by}")
    elif record.next_due_at is not None:
        lines.append(f"goes on at {date_time(record.next_due_at)}")
    elif record.status in (SagaStatus.RUNNING, SagaStatus.COMPENSATING):
        lines.append("nobody drives it now: saga recover takes it up")
    return lines


def waits_for_right(timeline: Timeline) -> list[str]:
    """Tell which exclusive right the execution waits for, in one line; none if it waits for none."""
    holder, right = timeline.state.denied_by, timeline.state.plan.exclusive
    if holder is None or right is None or timeline.state.status is not SagaStatus.SUSPENDED:
        return []
    return [one_line(f"waits for the exclusive right {right.name!r}, which {holder} holds")]


def row_notes(row: Row, status: SagaStatus) -> list[str]:
    """Tell what else there is to say of a step, beside its status and times.

    Args:
        row: the step.
        status: how its execution stands.
    """
    notes = []
    if row.undo_took_s is not None:
        words = {StepStatus.COMPENSATED: "undone in", StepStatus.COMPENSATING: "undoing for"}
        word = words.get(row.status, "undo took") if row.status is not None else ""
        tries = f", {row.undo_attempts} attempts" if row.undo_attempts > 1 else ""
        notes.append(f"{word} {duration(row.undo_took_s)}{tries}")
    if row.error:
        notes.append(one_line(row.error))
    if row.signal is not None and not status.is_ended:
        notes.append(f"waits for the signal {one_line(repr(row.signal))}")
    if row.status is StepStatus.PARKED:
        notes.append(f"cause: {one_line(row.cause or '')}")
        notes.append(f"next: {one_line(row.next_action or '')}")
    elif row.due_at is not None and not status.is_ended:
        notes.append(f"due {clock_time(row.due_at)}")
    return notes


def sentence(entry: Entry, timeline: Timeline) -> str | None:
    """Tell what an entry means; None for those that tell a person nothing new.

    Args:
        entry: the entry, whose step is told by its `step`.
        timeline: the execution with the entry taken in.
    """
    tell = _SENTENCES.get(type(entry))
    return None if tell is None else one_line(tell(entry, timeline))


def notable(entries: Sequence[Entry]) -> list[tuple[float, str]]:
    """Tell what befell an execution beside its steps: what people said, signals, takeovers, time-outs, late effects.

    What repeats itself without anything else in between is told once.

    Args:
        entries: all entries of the execution.

    Returns:
        Moments, in Unix seconds, and what happened then.
    """
    timeline, told, last = Timeline(entries[:1]), [], ""
    for entry in entries[1:]:
        timeline.take([entry])
        text = named_sentence(entry, timeline) if _is_notable(entry) else None
        if text is not None and text != last:
            last = text
            told.append((entry.at, text))
    return told


def named_sentence(entry: Entry, timeline: Timeline) -> str | None:
    """Tell what an entry means, and of which step, see `sentence`."""
    text, step = sentence(entry, timeline), getattr(entry, "step", None)
    if text is None or not step or isinstance(entry, CompensationBegun):
        return text
    return f"{one_line(step)}: {text}"


def _is_notable(entry: Entry) -> bool:
    if isinstance(entry, StepFailed):
        return entry.is_abandoned or _is_timeout(entry.error)
    return isinstance(entry, _NOTABLE)


def _is_timeout(error: ErrorRecord) -> bool:
    return error.type.rpartition(".")[2] == StepTimedOut.__name__


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
    took = _took(entry, timeline)
    failed = f"timed out after {took}" if _is_timeout(entry.error) else f"failed after {took}: {_error(entry.error)}"
    abandoned = ", abandoned: it still runs, what it does will be a late effect" if entry.is_abandoned else ""
    return f"{failed}{abandoned}{_again(entry.retry_at)}"


def _suspended(entry: StepSuspended, _timeline: Timeline) -> str:
    waits_for = "the next delivery" if entry.signal is None else f"the signal {entry.signal!r} or the next delivery"
    return f"waits for {waits_for}{_until(entry.due_at)}"


def _until(due_at: float | None) -> str:
    return "" if due_at is None else f", until {clock_time(due_at)} at most"


def _awaited(entry: SignalAwaited, timeline: Timeline) -> str:
    signal = timeline.state.shape.steps[entry.step].signal
    if timeline.state.steps[entry.step].phase is not Phase.SUSPENDED:
        return f"finds the signal {signal!r}, which had come before"
    return f"waits for the signal {signal!r}{_until(entry.due_at)}"


def _received(entry: SignalReceived, timeline: Timeline) -> str:
    kept = ", and keeps it until a step waits for it" if entry in timeline.state.signals else ""
    return f"gets the signal {entry.name!r}{kept}"


def _missed(entry: SignalMissed, timeline: Timeline) -> str:
    return f"the signal {timeline.state.shape.steps[entry.step].signal!r} did not come in time"


def _denied(entry: ExclusiveDenied, timeline: Timeline) -> str:
    right = timeline.state.plan.exclusive
    name = "" if right is None else f" {right.name!r}"
    does = "gives up" if right is not None and right.when_held == "refuse" else "waits"
    return f"{does}: {entry.by} holds the exclusive right{name}"


def _said(what: str, entry: Any) -> str:
    """Tell what a person said, with who and why as far as that is known."""
    who = f" by {entry.who}" if entry.who else ""
    forced = " with force" if getattr(entry, "is_forced", False) else ""
    why = getattr(entry, "reason", None) or getattr(entry, "note", None)
    return f"{what}{who}{forced}{f': {why}' if why else ''}"


def _edited(entry: StateEdited, _timeline: Timeline) -> str:
    keys = ", ".join(json.loads(bytes(entry.changes)))
    parts = [f"{keys} set" if keys else "", f"{', '.join(entry.removed)} removed" if entry.removed else ""]
    return _said(f"its state is edited ({'; '.join(part for part in parts if part)})", entry)


def _late(entry: LateEffectFound, _timeline: Timeline) -> str:
    how = "" if entry.error is None else f" with {_error(entry.error)}"
    return f"attempt {entry.attempt}, which had been given up, came to its end{how}"


_WHY_BACK = {
    "deadline": "its deadline passed",
    "cancelled": "it was cancelled",
    "interrupted": "it was interrupted",
    "undo": "it is to be undone",
}


def _turned_back(entry: CompensationBegun, timeline: Timeline) -> str:
    why = _WHY_BACK.get(entry.cause, f"{entry.step} failed")
    if entry.cause == "conflict":
        why = timeline.state.conflict or "branches changed the same thing differently"
    return f"turns back: {why}"


def _undo_failed(entry: CompensationFailed, _timeline: Timeline) -> str:
    return f"undo failed: {_error(entry.error)}{_again(entry.retry_at)}"


#: What the steps of a timeline do not show.
_NOTABLE = (
    CancelRequested,
    ExclusiveDenied,
    LateEffectFound,
    ParkedStepResolved,
    SignalMissed,
    SignalReceived,
    StateEdited,
    StepResumed,
    StepSkippedByHand,
    TakenOver,
    UndoOrdered,
)

_SENTENCES: dict[type[Entry], Callable[[Any, Timeline], str]] = {
    RequestDelivered: lambda entry, timeline: "goes on with a delivery",
    DriveResumed: lambda entry, timeline: "goes on",
    TakenOver: lambda entry, timeline: f"is taken over{f' from {entry.died}' if entry.died else ''}",
    DriveInterrupted: lambda entry, timeline: "is interrupted",
    ExclusiveDenied: _denied,
    SignalAwaited: _awaited,
    SignalReceived: _received,
    SignalMissed: _missed,
    CancelRequested: lambda entry, timeline: _said("is cancelled", entry),
    UndoOrdered: lambda entry, timeline: _said("is ordered to be undone", entry),
    StateEdited: _edited,
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
    ParkedStepResolved: lambda entry, timeline: _said(f"resolved as {entry.outcome.replace('_', ' ')}", entry),
    StepResumed: lambda entry, timeline: _said("resumed", entry),
    StepSkippedByHand: lambda entry, timeline: _said("skipped", entry),
    LateEffectFound: _late,
}
