"""The command `saga`: run a saga, look at executions, recover them, and resolve what is parked."""

from __future__ import annotations

import getpass
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import click
import msgspec
from connect.eaas.core.responses import BackgroundResponse

from saga_engine.command import EPILOG, EXIT_DONE, EXIT_ERROR, EXIT_LATER, Stopped, exit_code_of, shared
from saga_engine.delivery import Delivery, import_saga, read_request, search_here
from saga_engine.engine import DEFAULT_JOURNAL_URL, Engine, Recovered
from saga_engine.errors import (
    BadJournalURL,
    UnknownExecution,
)
from saga_engine.journal import Entry, SagaStatus, as_builtins
from saga_engine.journals.sqlite_file import path_of
from saga_engine.logs import mask
from saga_engine.narration import clock_time, duration, one_line
from saga_engine.record import SagaRecord, from_response
from saga_engine.saga import Saga
from saga_engine.terminal import LiveProgress, NoProgress, PlainProgress, print_entries, print_list, print_timeline
from saga_engine.timeline import Timeline

__all__ = ["main"]


@click.group(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="saga-engine", prog_name="saga")
def main() -> None:
    """Run sagas and look after their executions.

    A saga is named MODULE:CLASS; modules are looked for in the current directory first. An execution is named
    SAGA:KEY, which means its latest generation, or SAGA:KEY#2.
    """


# --- run --------------------------------------------------------------------------------------------------------------


@main.command(epilog=EPILOG)
@click.argument("target")
@click.argument("request_file", metavar="REQUEST.json")
@click.option("--wait", "is_waiting", is_flag=True, help="Wait out every suspension, until the execution is over.")
@shared
def run(target: str, request_file: str, is_waiting: bool, url: str, is_json: bool) -> int:
    """Deliver a request to a saga, and carry its execution on as far as it goes now.

    TARGET is the saga, MODULE:CLASS. REQUEST.json is a file, or - for standard input. Delivering a request again goes
    on with its execution; if that is over, it gives the recorded answer. What the steps need comes from the saga's
    own services(record).
    """
    saga = import_saga(target)
    request = read_request(request_file)
    with _opened(url, is_json, is_live=True) as (engine, progress):
        delivery = Delivery(engine, progress, saga, request)
        try:
            with progress:
                response = delivery.until_over() if is_waiting else delivery.once()
        except Stopped as stopped:
            stopped.how_to_go_on = _how_to_go_on(engine, delivery.saga_id, url)
            raise
        record = engine.get(delivery.saga_id)
        if record.status.is_ended and not progress.is_moved and not is_json:
            click.echo(f"{record.saga_id} was over already: no step was run.")
        return _tell_end(record, response, url, is_json)


# --- list, show -------------------------------------------------------------------------------------------------------


@main.command(name="list", epilog=EPILOG)
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
    """List executions, newest first."""
    with _opened(url, is_json, must_exist=True) as (engine, _):
        wanted = None if status is None else SagaStatus(status.upper())
        records = engine.search(status=wanted, saga=saga, stuck=is_stuck, limit=limit)
    if is_json:
        _print_json([_summary(record) for record in records])
    elif records:
        print_list(records)
        if len(records) == limit:
            click.echo(f"These are the newest {limit}; --limit shows more.", err=True)
    else:
        click.echo("No executions like that.", err=True)
    return EXIT_DONE


def _summary(record: SagaRecord) -> dict[str, Any]:
    value = record.as_builtins()
    for big in ("request", "state"):
        del value[big]
    masked: dict[str, Any] = mask(value)
    return masked


@main.command(epilog=EPILOG)
@click.argument("saga_id")
@click.option("--entries", "with_entries", is_flag=True, help="Show the raw journal instead of the steps.")
@shared
def show(saga_id: str, with_entries: bool, url: str, is_json: bool) -> int:
    """Show what became of each step of an execution.

    AFTER is the time from the start of the execution to the step's first attempt, TOOK the time from there to the end
    of its last one, waits included. What stands under the key of a secret (password, token, ...) is shown as ***.
    """
    with _opened(url, is_json, must_exist=True) as (engine, _):
        record, entries = engine.get(saga_id), engine.history(saga_id)
    if is_json:
        value = mask(record.as_builtins())
        if with_entries:
            value["entries"] = [mask(as_builtins(entry)) for entry in entries]
        _print_json(value)
    elif with_entries:
        print_entries(entries)
    else:
        print_timeline(record, Timeline(entries))
        if record.status is SagaStatus.PARKED:
            click.echo(f"\n{_how_to_resolve(record, url)}")
    return EXIT_DONE


# --- recover, resolve -------------------------------------------------------------------------------------------------


@main.command(epilog=EPILOG)
@click.argument("targets", metavar="[TARGET]...", nargs=-1)
@shared
def recover(targets: tuple[str, ...], url: str, is_json: bool) -> int:
    """Take up every unfinished execution that nobody holds and that can go on.

    Sagas are found by the names that the journal has for them; a TARGET (MODULE:CLASS) is only needed for one that has
    moved. Waits are not waited out. Left alone is what lacks its saga, one of its steps, or services(record).
    """
    search_here()
    sagas = [import_saga(target) for target in targets]
    with _opened(url, is_json, must_exist=True, sagas=sagas) as (engine, progress):
        try:
            recovered = engine.recover()
        except Stopped as stopped:
            stopped.how_to_go_on = f"what is left goes on with: {_command('recover', *targets, url=url)}"
            raise
        records = [engine.get(saga_id) for saga_id in progress.timelines]
    if is_json:
        counts = {"taken": int(recovered), "left_alone": recovered.left_alone, "failed": recovered.failed}
        executions = [{"saga_id": record.saga_id, "status": record.status.value} for record in records]
        _print_json({**counts, "executions": executions, "reasons": dict(recovered.reasons)})
    else:
        _tell_recovered(recovered, records, url)
    if recovered.failed:
        return EXIT_ERROR
    return EXIT_LATER if recovered.left_alone else EXIT_DONE


def _tell_recovered(recovered: Recovered, records: list[SagaRecord], url: str) -> None:
    for record in records:
        _tell_record(record, url)
    for saga_id, reason in recovered.reasons.items():
        click.echo(one_line(f"{saga_id}: not taken up: {reason}"))
    click.echo(f"Taken up {int(recovered)}, left alone {recovered.left_alone}, failed {recovered.failed}.")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's user often has no name
        return f"uid {os.getuid()}"


@main.command(epilog=EPILOG)
@click.argument("saga_id")
@click.argument("step")
@click.option("--note", required=True, help="What was done about it, for the record.")
@click.option(
    "--outcome",
    type=click.Choice(["undone", "done", "not_done"]),
    default="undone",
    show_default=True,
    help="undone: its effect is gone. done: its effect is there, go on with the next step. not_done: it had no effect, "
    "run it again.",
)
@click.option("--who", default=_user, show_default="the user", help="Who says so.")
@shared
def resolve(
    saga_id: str,
    step: str,
    note: str,
    outcome: Literal["undone", "done", "not_done"],
    who: str,
    url: str,
    is_json: bool,
) -> int:
    """Say how a parked step stands after a person dealt with it; the execution goes on from there."""
    search_here()
    with _opened(url, is_json, must_exist=True) as (engine, progress):
        try:
            engine.resolve_parked(saga_id, step, note=note, outcome=outcome, who=who)
        except Stopped as stopped:
            stopped.how_to_go_on = f"the rest goes on with: {_command('recover', url=url)}"
            raise
        record = engine.get(saga_id)
        if record.stuck and not progress.timelines:
            return _tell_kept(record, url, is_json)
        return _tell_end(record, None, url, is_json)


def _tell_kept(record: SagaRecord, url: str, is_json: bool) -> int:
    """Tell that what was said is kept, although nobody could go on with it here."""
    if is_json:
        _print_json({**mask(record.as_builtins()), "answer": None, "exit_code": EXIT_LATER})
    else:
        go_on = _command("recover", url=url)
        click.echo(f"The note is kept, but nothing went on here: {one_line(record.stuck or '')}")
        click.echo(f"Where that is there: {go_on}")
    return EXIT_LATER


# --- what all of them use ---------------------------------------------------------------------------------------------


@contextmanager
def _opened(
    url: str, is_json: bool, *, is_live: bool = False, must_exist: bool = False, sagas: list[type[Saga]] | None = None
) -> Iterator[tuple[Engine, NoProgress]]:
    """Open an engine on the journal, with whatever shows its progress."""
    if must_exist:
        _refuse_missing(url)
    kind = NoProgress if is_json else (LiveProgress if is_live and sys.stdout.isatty() else PlainProgress)

    def history(saga_id: str) -> list[Entry]:
        return engine.history(saga_id)

    progress = kind(history)
    with Engine(url, sagas=sagas or (), observer=progress.observe) as engine:
        yield engine, progress


def _refuse_missing(url: str) -> None:
    """Refuse a journal that is not there: looking for something must not leave an empty file behind."""
    if url.startswith("sqlite:") and not Path(path_of(url)).exists():
        raise BadJournalURL(
            f"there is no journal at {path_of(url)}: name one with --journal or SAGA_JOURNAL_URL, "
            "or begin one with saga run"
        )


def _tell_end(record: SagaRecord, response: BackgroundResponse | None, url: str, is_json: bool) -> int:
    code = exit_code_of(record)
    if is_json:
        answer = None if response is None else msgspec.to_builtins(from_response(response))
        _print_json({**mask(record.as_builtins()), "answer": answer, "exit_code": code})
    else:
        _tell_record(record, url)
    return code


def _tell_record(record: SagaRecord, url: str) -> None:
    took = duration(max(0.0, record.updated_at - record.created_at))
    text = f"{record.saga_id} {record.status.value}"
    if record.held_by:
        text += f": {record.held_by} holds it, nothing was run here"
    elif record.status.is_ended:
        why = record.error or getattr(record.response, "output", None)
        text += f" after {took}" + (f": {why}" if why else "")
    elif record.status is SagaStatus.PARKED:
        text += (record.error or "").removeprefix("parked")
    elif record.stuck:
        text += f": stuck: {record.stuck}"
    elif record.next_due_at is not None:
        text += f": goes on at {clock_time(record.next_due_at)}, with the next delivery or saga recover"
    else:
        text += ": waits for the next delivery or a signal"
    click.echo(one_line(text))
    if record.status is SagaStatus.PARKED:
        click.echo(_how_to_resolve(record, url))


def _how_to_resolve(record: SagaRecord, url: str) -> str:
    step = next((step.name for step in record.steps if step.cause is not None), "STEP")
    return f"When it is dealt with: {_command('resolve', record.saga_id, step, '--note', 'what was done', url=url)}"


def _how_to_go_on(engine: Engine, saga_id: str, url: str) -> str:
    try:
        record = engine.get(saga_id)
    except UnknownExecution:
        return "nothing was begun"
    go_on = _command("recover", url=url)
    return f"{record.saga_id} is {record.status.value}, go on with the same command, or with: {go_on}"


def _command(*words: str, url: str) -> str:
    journal = [] if url == DEFAULT_JOURNAL_URL else ["--journal", url]
    return shlex.join(["saga", *words, *journal])


def _print_json(value: Any) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))
