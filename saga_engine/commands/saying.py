"""Commands by which a person, or another program, says how an execution is to go on; each is kept for the record."""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import click
import msgspec

from saga_engine.command import EPILOG, Stopped, opened, shared
from saga_engine.commands.standing import tell_end, tell_kept, typed
from saga_engine.delivery import read_json, read_object, search_here
from saga_engine.engine import Engine
from saga_engine.errors import BadRequest

__all__ = ["cancel", "edit", "resolve", "resume", "signal", "skip", "undo"]

F = TypeVar("F", bound=Callable[..., Any])


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's user often has no name
        return f"uid {os.getuid()}"


_with_who = click.option("--who", default=_user, show_default="the user", help="Who says so.")
_with_note = click.option("--note", default="", help="Why, for the record.")
_with_force = click.option(
    "--force",
    is_flag=True,
    help="Although the step's outcome is unknown, and it has neither a probe nor says is_idempotent.",
)


def _signed(function: F) -> F:
    """Add who says it, and why."""
    return _with_note(_with_who(function))


def _say(saga_id: str, url: str, is_json: bool, say: Callable[[Engine], None]) -> int:
    """Say something to an execution, let it go on here if nobody holds it, and tell how it stands then."""
    search_here()
    with opened(url, is_json, must_exist=True) as (engine, progress):
        try:
            say(engine)
        except Stopped as stopped:
            stopped.how_to_go_on = f"the rest goes on with: {typed('recover', url=url)}"
            raise
        record = engine.get(saga_id)
        if record.held_by and not progress.timelines:
            return tell_kept(record, f"{record.held_by} holds it, and takes it in", url, is_json)
        if record.stuck and not progress.timelines:
            return tell_kept(record, record.stuck, url, is_json)
        return tell_end(record, None, url, is_json)


@click.command(epilog=EPILOG)
@click.argument("saga_id")
@click.argument("name")
@click.argument("payload_file", metavar="[PAYLOAD.json]", required=False)
@shared
def signal(saga_id: str, name: str, payload_file: str | None, url: str, is_json: bool) -> int:
    """Send a signal: the step that waits for it finds the payload in context.state[NAME].

    PAYLOAD.json is a file with any JSON, or - for standard input; without it the payload is null. The signal is kept
    until a step waits for it.
    """
    payload = None if payload_file is None else read_json(payload_file)
    return _say(saga_id, url, is_json, lambda engine: engine.signal(saga_id, name, payload))


@click.command(epilog=EPILOG)
@click.argument("saga_id")
@click.option("--reason", required=True, help="Why, for the record; steps get it as `e` in compensate.")
@_with_who
@shared
def cancel(saga_id: str, reason: str, who: str, url: str, is_json: bool) -> int:
    """Cancel an execution: the running step is waited for, then all that started is compensated."""
    return _say(saga_id, url, is_json, lambda engine: engine.cancel(saga_id, reason, who=who))


@click.command(epilog=EPILOG)
@click.argument("saga_id")
@click.argument("step", required=False)
@_with_force
@_signed
@shared
def resume(saga_id: str, step: str | None, force: bool, note: str, who: str, url: str, is_json: bool) -> int:
    """Try again what parked, or end a wait at once.

    Without STEP: every parked step or, if nothing is parked, every one that waits. A compensation that parked tries
    its undo again.
    """
    return _say(saga_id, url, is_json, lambda engine: engine.resume(saga_id, step, note=note, who=who, force=force))


@click.command(epilog=EPILOG)
@click.argument("saga_id")
@click.argument("step")
@click.option(
    "--state",
    "state_file",
    metavar="STATE.json",
    help="A JSON object whose keys are set in context.state, in place of what the step would have put there; - is "
    "standard input.",
)
@_with_force
@_signed
@shared
def skip(
    saga_id: str, step: str, state_file: str | None, force: bool, note: str, who: str, url: str, is_json: bool
) -> int:
    """Declare a step over that was dealt with by hand, or that is not wanted; the next one follows."""
    state = None if state_file is None else read_object(state_file, "give the keys to set, as a JSON object")
    return _say(
        saga_id, url, is_json, lambda engine: engine.skip(saga_id, step, state=state, note=note, who=who, force=force)
    )


@click.command(epilog=EPILOG)
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
@_with_who
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
    return _say(
        saga_id,
        url,
        is_json,
        lambda engine: engine.resolve_parked(saga_id, step, note=note, outcome=outcome, who=who),
    )


@click.command(epilog=EPILOG)
@click.argument("saga_id")
@click.option(
    "--set", "assignments", metavar="KEY=JSON", multiple=True, help="Set a top-level key; may be given again."
)
@click.option("--remove", "removed", metavar="KEY", multiple=True, help="Remove a top-level key; may be given again.")
@_signed
@shared
def edit(
    saga_id: str, assignments: tuple[str, ...], removed: tuple[str, ...], note: str, who: str, url: str, is_json: bool
) -> int:
    """Set and remove keys of context.state while nobody drives the execution."""
    changes = dict(_assigned(assignment) for assignment in assignments)
    if not changes and not removed:
        raise BadRequest("nothing to edit: give --set KEY=JSON or --remove KEY")
    if both := sorted(changes.keys() & set(removed)):
        raise BadRequest(f"{both[0]!r} is to be set and removed: give one of --set and --remove")
    return _say(
        saga_id, url, is_json, lambda engine: engine.edit_state(saga_id, changes, remove=removed, note=note, who=who)
    )


def _assigned(assignment: str) -> tuple[str, Any]:
    key, equals, text = assignment.partition("=")
    if not key or not equals:
        raise BadRequest(f"--set {assignment!r}: write KEY=JSON, for example count=3")
    try:
        return key, msgspec.json.decode(text.encode())
    except (msgspec.DecodeError, UnicodeError) as error:
        raise BadRequest(f"--set {assignment!r}: {text!r} is not JSON; a text is written {key}='\"...\"'") from error


@click.command(epilog=EPILOG)
@click.argument("saga_id")
@_signed
@shared
def undo(saga_id: str, note: str, who: str, url: str, is_json: bool) -> int:
    """Undo a completed execution: every step that defines an undo, in reverse.

    `saga preview` shows what that would be. Its first answer stays the answer to a redelivery.
    """
    return _say(saga_id, url, is_json, lambda engine: engine.undo(saga_id, note=note, who=who))
