"""The command that plays Connect for an extension on this machine: deliver requests to the real runner, and watch."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from saga_engine.command import (
    EXIT_BAD_INPUT,
    EXIT_DONE,
    EXIT_ERROR,
    EXIT_LATER,
    EXIT_UNDONE,
    Stopped,
    answering,
    print_json,
)
from saga_engine.commands.standing import typed
from saga_engine.delivery import read_request
from saga_engine.errors import BadRequest
from saga_engine.logs import mask

if TYPE_CHECKING:
    from saga_engine.connect.local import LocalConnect
    from saga_engine.connect.local_protocol import TaskResult
    from saga_engine.connect.local_tasks import LocalTask

__all__ = ["connect"]

_EPILOG = f"""\b
Exit codes:
    {EXIT_DONE}  every request was answered with success, or skipped
    {EXIT_ERROR}  an error: the runner did not start, or ended
    {EXIT_BAD_INPUT}  bad input: usage, a request, a project that is no extension
    {EXIT_UNDONE}  a request was answered with fail
    {EXIT_LATER}  a request is not over: see --once and --timeout
  130  stopped by Ctrl-C; 143 by SIGTERM
"""
_READY_S, _STOP_S = 120.0, 20.0
_WITHIN_S = 1.0
#: The runner draws tables into its log.
_FRAME = " \t─│┃━╭╮╰╯├┤┬┴┼┏┓┗┛┡┩╇┳┻╋"


@click.command(epilog=_EPILOG)
@click.argument("request_files", metavar="REQUEST.json...", nargs=-1, required=True)
@click.option(
    "--extension",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="PATH",
    help="The folder of the extension's project, with its pyproject.toml. Without it: what is installed.",
)
@click.option(
    "--runner",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="cextrun, or a virtual environment that has it. Without it: the one of this environment.",
)
@click.option("--event", "event_type", metavar="EVENT", help="The event. Without it: as the request's type says.")
@click.option("--variable", "variables", metavar="NAME=VALUE", multiple=True, help="A variable of the extension.")
@click.option(
    "--fault",
    "faults",
    metavar="OPERATION=KIND[:TIMES[:SECONDS]]",
    multiple=True,
    help="Let calls of Connect's API go wrong: approve_request=error_500:2 or get_request=error_429:1:3. Kinds: "
    "error_401, error_429, error_500, error_500_after_work, invalid_json, refuse, slow, timeout_after_work.",
)
@click.option(
    "--new-ids",
    "has_new_ids",
    is_flag=True,
    help="Give each request a new id: the vendor knows the idempotency keys of earlier runs.",
)
@click.option("--once", "is_once", is_flag=True, help="Deliver each request once, whatever is answered.")
@click.option(
    "--within",
    "redeliver_within_s",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help=f"Deliver again after at most so many seconds ({_WITHIN_S:g}), whatever is asked for; inf is as asked for.",
)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    default=600.0,
    show_default=True,
    help="When to give up.",
)
@click.option(
    "--dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="PATH",
    default=Path("saga-connect"),
    show_default=True,
    help="A folder for the runner's log, the journal and Connect's own state, and for nothing else.",
)
@click.option("--keep", "is_kept", is_flag=True, help="Go on with what an earlier run left there, instead of afresh.")
@answering
def connect(  # noqa: PLR0913, PLR0917  # one for each option
    request_files: tuple[str, ...],
    extension: Path | None,
    runner: Path | None,
    event_type: str | None,
    variables: tuple[str, ...],
    faults: tuple[str, ...],
    has_new_ids: bool,
    is_once: bool,
    redeliver_within_s: float | None,
    timeout_s: float,
    folder: Path,
    is_kept: bool,
    is_json: bool,
) -> int:
    """Try an extension on this machine, without an account: play Connect for it.

    Starts a Connect on 127.0.0.1 and the real runner with the extension, delivers the requests, each in a file or
    - for standard input, shows what comes back, delivers again what is rescheduled until it is over, and stops.
    The project need not be installed, but what it needs must be, beside the runner: connect-extension-runner and
    saga-engine among it. Each run begins afresh.
    """
    from saga_engine.connect.local import LocalConnect
    from saga_engine.connect.local_board import DeliveryBoard
    from saga_engine.connect.local_errors import BadExtension, BadFault, BadFolder, TaskRefused

    if is_once and redeliver_within_s is not None:
        raise click.UsageError("--once delivers once, and --within again: give one of them")
    if redeliver_within_s is None and not is_once:
        redeliver_within_s = _WITHIN_S
    requests = [_renamed(each) if has_new_ids else each for each in map(read_request, request_files)]
    given = _variables(variables)
    if is_kept and not (folder / "state.db").exists():
        raise BadRequest(f"--keep: in {folder} there is nothing to go on with")
    observer = None if is_json else DeliveryBoard().observe
    try:
        command = _checked(extension, runner)
        with LocalConnect(folder, is_fresh=not is_kept, variables=given, observer=observer) as local:
            _set_faults(local, faults)
            tasks = [local.task(each, event_type, redeliver_within_s=redeliver_within_s) for each in requests]
            if not is_json:
                click.echo(f"Connect is at {local.api_url}. Starting the runner; its log is {local.log_file}")
            _start(local, extension, command, timeout_s)
            try:
                _deliver(tasks, is_once, timeout_s)
                return _tell(local, tasks, is_json)
            finally:
                local.stop_runner(_STOP_S)
    except (BadExtension, BadFault, BadFolder, TaskRefused) as error:
        raise BadRequest(str(error)) from error
    except Stopped as stopped:
        stopped.how_to_go_on = "" if has_new_ids else "go on with the same command and --keep"
        raise


def _checked(extension: Path | None, runner: Path | None) -> Path:
    """Look at what is to be run before anything begins; give the runner's command."""
    from saga_engine.connect.local_extension import ExtensionProject
    from saga_engine.connect.local_runner import find_runner

    if extension is not None:
        ExtensionProject.read(extension)
    return find_runner(runner)


def _renamed(request: dict[str, Any]) -> dict[str, Any]:
    return {**request, "id": f"{request.get('id', 'PR')}-{secrets.token_hex(3)}"}


def _variables(texts: Sequence[str]) -> dict[str, str]:
    given: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals or name in given:
            raise BadRequest(f"--variable {text}: write NAME=VALUE, and each name once")
        given[name] = value
    return given


def _set_faults(local: LocalConnect, texts: Sequence[str]) -> None:
    from saga_engine.connect.local_faults import Fault

    for text in texts:
        local.set_fault(Fault.from_text(text))


def _start(local: LocalConnect, extension: Path | None, command: Path, timeout_s: float) -> None:
    from saga_engine.connect.local_errors import RunnerFailed

    try:
        local.start_runner(extension, runner=command, ready_s=_READY_S, lifetime_s=_READY_S + timeout_s + _STOP_S)
    except RunnerFailed as failed:
        lines = failed.log_tail.splitlines()
        if lines:
            click.echo(failed.log_tail, err=True)
        told = [line.strip(_FRAME) for line in lines if line.strip(_FRAME)]
        why = f": {told[-1]}" if told else ", and printed nothing"
        raise RunnerFailed(f"{failed.what}{why}; its whole log is {local.log_file}") from failed


def _deliver(tasks: Sequence[LocalTask], is_once: bool, timeout_s: float) -> None:
    """Deliver the tasks, and wait until each is over, given up, or takes too long."""
    from saga_engine.connect.local_errors import TaskGivenUp, TaskOverdue

    deadline = time.monotonic() + timeout_s
    for task in tasks:
        task.deliver()
    for task in tasks:
        left_s = max(0.0, deadline - time.monotonic())
        try:
            if is_once:
                task.wait_results(1, left_s)
            else:
                task.wait(left_s)
        except TaskGivenUp as given_up:
            click.echo(f"saga: {given_up}", err=True)
        except TaskOverdue:
            task.redeliver_within_s = None  # it is shown how it stands now
            click.echo(f"saga: {task.object_id} is not over after {timeout_s:g} s; see --timeout", err=True)


def _tell(local: LocalConnect, tasks: Sequence[LocalTask], is_json: bool) -> int:
    results = [task.results() for task in tasks]
    ends = [next((each for each in of_task if each.is_final), None) for of_task in results]
    code = _exit_code(ends)
    if is_json:
        told = [_as_builtins(local, task, of_task) for task, of_task in zip(tasks, results, strict=True)]
        print_json({"tasks": told, "journal": local.journal_url, "log": str(local.log_file), "exit_code": code})
        return code
    for task, end in zip(tasks, ends, strict=True):
        times = "1 delivery" if task.deliveries == 1 else f"{task.deliveries} deliveries"
        status = _status(local, task)
        there = f"; in Connect it is {status}" if status else ""
        click.echo(f"{task.object_id} {end.result if end else 'is not over'} after {times}{there}")
    click.echo(f"What the sagas did: {typed('list', url=local.journal_url)}")
    return code


def _exit_code(ends: Sequence[TaskResult | None]) -> int:
    if any(end is None for end in ends):
        return EXIT_LATER
    return EXIT_UNDONE if any(end is not None and end.result == "fail" for end in ends) else EXIT_DONE


def _status(local: LocalConnect, task: LocalTask) -> str | None:
    """Give how a request stands in Connect; None if it was never taken in."""
    return None if task.category == "interactive" else str(local.get(task.object_id)["status"])


def _as_builtins(local: LocalConnect, task: LocalTask, results: Sequence[TaskResult]) -> dict[str, Any]:
    told: dict[str, Any] = mask(
        {
            "task_id": task.task_id,
            "event_type": task.event_type,
            "object_id": task.object_id,
            "deliveries": task.deliveries,
            "results": [vars(result) for result in results],
            "status": _status(local, task),
        }
    )
    return told
