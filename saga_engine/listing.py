"""What is told of executions to whoever only looks, at a terminal or in a browser: the list, and all of one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from saga_engine.engine import Engine
from saga_engine.errors import UnknownExecution
from saga_engine.journal import Entry, Header, SagaStarted, SagaStatus, StepStatus
from saga_engine.journals.sqlite_file import path_of
from saga_engine.logs import mask
from saga_engine.narration import clock_time
from saga_engine.record import SagaRecord, StepRecord, as_tombstone, without_dead_holder

__all__ = ["is_missing", "note_of", "record_told", "statuses_of_children", "summary_of", "whole_of"]


def is_missing(journal_url: str) -> bool:
    """Tell whether there is no such journal yet: looking for something must not leave an empty file behind."""
    return journal_url.startswith("sqlite:") and not Path(path_of(journal_url)).exists()


def summary_of(engine: Engine, header: Header) -> dict[str, Any]:
    """Give what the header tells, as JSON values under the names that a record has for it; secrets are masked."""
    value = as_tombstone(header).as_builtins()
    for unknown in ("steps", "request", "state", "plugin", "plugin_version"):
        del value[unknown]
    error, held_by = _error(engine, header), without_dead_holder(header, engine.journal).held_by
    told = {"error": error, "held_by": held_by, "next_due_at": header.due_at, "stuck": header.stuck}
    masked: dict[str, Any] = mask({**value, **told, "is_purged": header.is_purged})
    return masked


def record_told(record: SagaRecord) -> dict[str, Any]:
    """Give a record as JSON values; secrets in its request and state are masked."""
    masked: dict[str, Any] = mask(record.as_builtins())
    return masked


def note_of(engine: Engine, header: Header) -> str:
    """Tell in words what else there is to say of an execution in a list."""
    held = ""
    if header.held_by is not None:
        held = "held by" if engine.journal.is_held(header) else "left by a process that is gone,"
    notes = [
        f"stuck: {header.stuck}" if header.stuck else "",
        f"{held} {header.held_by}" if held else "",
        _error(engine, header) or "",
        f"due {clock_time(header.due_at)}" if header.due_at and not held else "",
        "purged" if header.is_purged else "",
    ]
    return "; ".join(note for note in notes if note)


def _error(engine: Engine, header: Header) -> str | None:
    """Tell why it failed or parked. Only of a parked one the header does not say, and the entries must be read."""
    if header.status is SagaStatus.PARKED:
        return engine.get(as_tombstone(header).saga_id).error
    return as_tombstone(header).error


def whole_of(engine: Engine, record: SagaRecord, entries: Sequence[Entry]) -> tuple[Sequence[Entry], str]:
    """Find all entries of the execution that a child saga is in, and the child's path; its own has the path ""."""
    parent = record.saga_id
    while entries and not isinstance(entries[0], SagaStarted):
        parent = parent.rpartition("/")[0]
        try:
            entries = engine.history(parent)
        except UnknownExecution:  # a child's path may have more than one part
            continue
    return entries, record.saga_id[len(parent) + 1 :]


def statuses_of_children(steps: Sequence[StepRecord], child: str) -> Iterator[tuple[str, StepStatus]]:
    """Give how the child sagas among these steps stand, by path.

    Args:
        steps: of an execution, or of a child saga.
        child: the path of that child saga.
    """
    for step in steps:
        if step.steps:
            path = f"{child}/{step.name}" if child else step.name
            yield path, step.status
            yield from statuses_of_children(step.steps, path)
