"""What commands say in the end: how an execution stands, and what to type next."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import click
import msgspec
from connect.eaas.core.responses import BackgroundResponse

from saga_engine.command import EXIT_LATER, exit_code_of, print_json
from saga_engine.engine import DEFAULT_JOURNAL_URL, Engine
from saga_engine.errors import UnknownExecution
from saga_engine.journal import SagaStatus, StepStatus
from saga_engine.logs import mask
from saga_engine.narration import clock_time, duration, one_line
from saga_engine.record import SagaRecord, StepRecord, from_response

__all__ = ["how_to_go_on", "how_to_resolve", "tell_end", "tell_kept", "tell_record", "typed"]


def tell_end(record: SagaRecord, response: BackgroundResponse | None, url: str, is_json: bool) -> int:
    """Tell how an execution stands after a command; gives the exit code that says the same."""
    code = exit_code_of(record)
    if is_json:
        answer = None if response is None else msgspec.to_builtins(from_response(response))
        print_json({**mask(record.as_builtins()), "answer": answer, "exit_code": code})
    else:
        tell_record(record, url)
    return code


def tell_kept(record: SagaRecord, why: str, url: str, is_json: bool) -> int:
    """Tell that what was said is kept, although nothing went on with it here."""
    if is_json:
        print_json({**mask(record.as_builtins()), "answer": None, "exit_code": EXIT_LATER})
    else:
        click.echo(f"It is kept, but nothing went on here: {one_line(why)}")
        if record.stuck:
            click.echo(f"Where that is there, a worker goes on with it, or: {typed('recover', url=url)}")
    return EXIT_LATER


def tell_record(record: SagaRecord, url: str) -> None:
    """Tell how an execution stands, in a line; of a parked one also what to type."""
    text = f"{record.saga_id} {record.status.value}"
    if record.held_by:
        text += f": {record.held_by} holds it, nothing was run here"
    elif record.status.is_ended:
        took = duration(max(0.0, record.updated_at - record.created_at))
        why = record.error or getattr(record.response, "output", None)
        text += f" after {took}" + (f": {why}" if why else "")
    elif record.status is SagaStatus.PARKED:
        text += (record.error or "").removeprefix("parked")
    elif record.stuck:
        text += f": stuck: {record.stuck}"
    elif record.next_due_at is not None:
        text += f": goes on at {clock_time(record.next_due_at)}, with a worker, the next delivery or saga recover"
    else:
        text += ": waits for the next delivery or a signal"
    click.echo(one_line(text))
    if record.status is SagaStatus.PARKED:
        click.echo(how_to_resolve(record, url))


def how_to_resolve(record: SagaRecord, url: str) -> str:
    """Tell what to type about the steps that are parked."""
    lines = []
    for step in _parked(record.steps):
        lines.append(f"To try it again:       {typed('resume', record.saga_id, step, url=url)}")
        lines.append(f"When it is dealt with: {_typed_resolution(record, step, url)}")
    return "\n".join(lines)


def _typed_resolution(record: SagaRecord, step: str, url: str) -> str:
    return typed("resolve", record.saga_id, step, "--note", "what was done", url=url)


def _parked(steps: tuple[StepRecord, ...], path: str = "") -> Iterator[str]:
    for step in steps:
        if step.steps:
            yield from _parked(step.steps, f"{path}{step.name}/")
        elif step.status is StepStatus.PARKED:
            yield f"{path}{step.name}"


def how_to_go_on(engine: Engine, saga_id: str, url: str) -> str:
    """Tell, after a stop, how to go on with an execution that this command drove."""
    try:
        record = engine.get(saga_id)
    except UnknownExecution:
        return "nothing was begun"
    go_on = typed("recover", url=url)
    return f"{record.saga_id} is {record.status.value}, go on with the same command, or with: {go_on}"


def typed(*words: str, url: str) -> str:
    """Give a command as it is to be typed."""
    journal = [] if url == DEFAULT_JOURNAL_URL else ["--journal", url]
    return shlex.join(["saga", *words, *journal])
