"""Commands that look and change nothing: the list, one execution, what its undo would do, an exported one."""

from __future__ import annotations

from collections.abc import Sequence

import click
import msgspec

from saga_engine.command import EPILOG, EXIT_DONE, opened, print_json, shared
from saga_engine.commands.standing import how_to_resolve
from saga_engine.delivery import read_object
from saga_engine.engine import Engine
from saga_engine.exports import entries_of
from saga_engine.journal import Entry, Header, SagaStatus, as_builtins
from saga_engine.listing import note_of, record_told, summary_of, whole_of
from saga_engine.logs import mask
from saga_engine.narration import one_line
from saga_engine.record import SagaRecord, as_tombstone
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
            print_json([summary_of(engine, header) for header in headers])
        elif headers:
            print_list(_listed(engine, header) for header in headers)
    if not is_json and len(headers) in (0, limit):
        many = f"These are the newest {limit}; --limit shows more." if headers else "No executions like that."
        click.echo(many, err=True)
    return EXIT_DONE


def _listed(engine: Engine, header: Header) -> Listed:
    return Listed(as_tombstone(header).saga_id, header.status, header.updated_at, note_of(engine, header))


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
        whole, child = whole_of(engine, record, entries)
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
    value = record_told(record)
    if with_entries:
        value["entries"] = [mask(as_builtins(entry)) for entry in entries]
    print_json(value)


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
