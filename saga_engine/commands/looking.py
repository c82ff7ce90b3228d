"""Commands that look and change nothing: the list, one execution, what its undo would do, an exported one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
import msgspec

from saga_engine.command import EPILOG, EXIT_DONE, opened, print_json, shared
from saga_engine.commands.standing import how_to_resolve
from saga_engine.delivery import read_object
from saga_engine.engine import Engine
from saga_engine.errors import UnknownExecution
from saga_engine.exports import entries_of
from saga_engine.journal import Entry, Header, SagaStarted, SagaStatus, as_builtins
from saga_engine.logs import mask
from saga_engine.narration import clock_time, one_line
from saga_engine.record import SagaRecord, as_tombstone, without_dead_holder
from saga_engine.terminal import Listed, print_entries, print_list, print_timeline, print_tombstone, print_undos

__all__ = ["list_", "preview", "replay", "show"]


# --- list -------------------------------------------------------------------------------------------------------------


@click.command(name="list", epilog=EPILOG)
@click.option(
    "--status",
    type=click.Choice([status.value for status in SagaStatus], case_sensitive=False),
    help="Only those that stand so.",
)
@click.option("--saga", metavar="NAME", help="Only those of the saga of this name.")
@click.option("--stuck", "is_stuck", is_flag=True, help="Only those that nobody could drive when last tried.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="How many at most.")
@shared
def list_(status: str | None, saga: str | None, is_stuck: bool, limit: int, url: str, is_json: bool) -> int:
    """List executions, newest first.

    How they stand is as of the last time that somebody let go of them.
    """
    with opened(url, is_json, must_exist=True) as (engine, _):
        wanted = None if status is None else SagaStatus(status.upper())
        headers = engine.journal.search(status=wanted, saga=saga, stuck=is_stuck, limit=limit)
        if is_json:
            print_json([_summary(engine, header) for header in headers])
        elif headers:
            print_list(_listed(engine, header) for header in headers)
    if not is_json and len(headers) in (0, limit):
        many = f"These are the newest {limit}; --limit shows more." if headers else "No executions like that."
        click.echo(many, err=True)
    return EXIT_DONE


def _error(engine: Engine, header: Header) -> str | None:
    """Tell why it failed or parked. Only of a parked one the header does not say, and the entries must be read."""
    if header.status is SagaStatus.PARKED:
        return engine.get(as_tombstone(header).saga_id).error
    return as_tombstone(header).error


def _summary(engine: Engine, header: Header) -> dict[str, Any]:
    """Give what the header tells, under the names that a record has for it."""
    value = as_tombstone(header).as_builtins()
    for unknown in ("steps", "request", "state"):
        del value[unknown]
    error, held_by = _error(engine, header), without_dead_holder(header, engine.journal).held_by
    told = {"error": error, "held_by": held_by, "next_due_at": header.due_at, "stuck": header.stuck}
    masked: dict[str, Any] = mask({**value, **told, "is_purged": header.is_purged})
    return masked


def _listed(engine: Engine, header: Header) -> Listed:
    note = _note(engine, header, _error(engine, header))
    return Listed(as_tombstone(header).saga_id, header.status, header.updated_at, note)


def _note(engine: Engine, header: Header, error: str | None) -> str:
    held = ""
    if header.held_by is not None:
        held = "held by" if engine.journal.is_held(header) else "left by a process that is gone,"
    notes = [
        f"stuck: {header.stuck}" if header.stuck else "",
        f"{held} {header.held_by}" if held else "",
        error or "",
        f"due {clock_time(header.due_at)}" if header.due_at and not held else "",
        "purged" if header.is_purged else "",
    ]
    return "; ".join(note for note in notes if note)


# --- show, replay -----------------------------------------------------------------------------------------------------


@click.command(epilog=EPILOG)
@click.argument("saga_id")
@click.option("--entries", "with_entries", is_flag=True, help="Show the raw journal instead of the steps.")
@shared
def show(saga_id: str, with_entries: bool, url: str, is_json: bool) -> int:
    """Show what became of each step of an execution.

    AFTER is the time from the start of the execution to the step's first attempt, TOOK the time from there to the end
    of its last one, waits included. Branches are drawn as such, the steps of a child saga stand below it. What people
    said, signals, time-outs and takeovers follow. What stands under the key of a secret (password, token, ...) is
    shown as ***.
    """
    with opened(url, is_json, must_exist=True) as (engine, _):
        record = engine.get(saga_id)
        entries = [] if record.is_purged else engine.history(saga_id)
        whole, child = _whole(engine, record, entries)
    if with_entries or is_json:
        _print_raw(record, entries, with_entries, is_json)
    elif record.is_purged:
        print_tombstone(record)
    else:
        print_timeline(record, whole, child)
        if record.status is SagaStatus.PARKED:
            click.echo(f"\n{how_to_resolve(record, url)}")
    return EXIT_DONE


def _print_raw(record: SagaRecord, entries: Sequence[Entry], with_entries: bool, is_json: bool) -> None:
    if not is_json:
        print_entries(entries)
        return
    value = mask(record.as_builtins())
    if with_entries:
        value["entries"] = [mask(as_builtins(entry)) for entry in entries]
    print_json(value)


def _whole(engine: Engine, record: SagaRecord, entries: Sequence[Entry]) -> tuple[Sequence[Entry], str]:
    """Find all entries of the execution that a child saga is in, and the child's path; its own has the path ""."""
    parent = record.saga_id
    while entries and not isinstance(entries[0], SagaStarted):
        parent = parent.rpartition("/")[0]
        try:
            entries = engine.history(parent)
        except UnknownExecution:  # a child's path may have more than one part
            continue
    return entries, record.saga_id[len(parent) + 1 :]


@click.command(epilog=EPILOG)
@click.argument("export_file", metavar="EXPORT.json")
@click.option("--entries", "with_entries", is_flag=True, help="Show the raw journal instead of the steps.")
@shared
def replay(export_file: str, with_entries: bool, url: str, is_json: bool) -> int:
    """Show an exported execution as `saga show` shows one, without any journal.

    EXPORT.json is what `saga export` wrote, or - for standard input. No step is run.
    """
    document = read_object(export_file, "give what saga export wrote")
    record, entries = Engine.replay(document), entries_of(document)
    if with_entries or is_json:
        _print_raw(record, entries, with_entries, is_json)
    else:
        print_timeline(record, entries)
    return EXIT_DONE


# --- preview ----------------------------------------------------------------------------------------------------------


@click.command(epilog=EPILOG)
@click.argument("saga_id")
@shared
def preview(saga_id: str, url: str, is_json: bool) -> int:
    """Show what would be undone, in which order, if the execution failed now.

    Of a completed one: what `saga undo` would do.
    """
    with opened(url, is_json, must_exist=True) as (engine, _):
        found = engine.preview(saga_id)
    if is_json:
        print_json(msgspec.to_builtins(found))
    elif found.undos:
        print_undos((undo.step, _how(undo.how)) for undo in found.undos)
    else:
        click.echo(one_line(f"Nothing would be undone: {found.note}."))
    return EXIT_DONE


def _how(how: str) -> str:
    return "its compensate runs" if how == "compensate" else "has no undo: it would park here, for a person to undo"
