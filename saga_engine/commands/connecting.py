"""The command that plays Connect for an extension on this machine: deliver requests to the real runner, and watch."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from saga_engine.command import EXIT_BAD_INPUT, EXIT_DONE, EXIT_ERROR, EXIT_LATER, EXIT_UNDONE, answering, print_json
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
_STOP_S = 20.0
#: What an earlier run leaves in the folder; its journal is gone on with only together with its Connect.
_FILES = ("state.db", "runner.log", "saga.db", "saga.db-wal", "saga.db-shm")


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
    metavar="CALL=KIND[:TIMES[:SECONDS]]",
    multiple=True,
    help="Let calls of Connect's API go wrong: approve_request=error_500:2, get_request=error_429:1:3.",
)
@click.option("--once", "is_once", is_flag=True, help="Deliver each request once, whatever is answered.")
@click.option(
    "--within",
    "redeliver_within_s",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    default=1.0,
    show_default=True,
    help="Deliver again after at most so many seconds, whatever an answer asks for; inf is as it asks.",
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
    help="For the runner's log, the journal and Connect's own state.",
)
@click.option("--keep", "is_kept", is_flag=True, help="Go on with what an earlier run left there.")
@answering
def connect(
    request_files: tuple[str, ...],
    extension: Path | None,
    runner: Path | None,
    event_type: str | None,
    variables: tuple[str, ...],
    faults: tuple[str, ...],
    is_once: bool,
    redeliver_within_s: float,
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
    from saga_engine.connect.local_errors import BadExtension, BadFault, TaskRefused

    requests = [read_request(name) for name in request_files]
    given = _variables(variables)
    if not is_kept:
        _begin_afresh(folder)
    observer = None if is_json else DeliveryBoard().observe
    try:
        with LocalConnect(folder, variables=given, observer=observer) as local:
            _set_faults(local, faults)
            if not is_json:
                click.echo(f"Connect is at {local.api_url}; the runner's log is {local.log_file}")
            local.start_runner(extension, runner=runner, lifetime_s=timeout_s + _STOP_S)
            try:
                within_s = None if is_once else redeliver_within_s
                tasks = [local.push(each, event_type, redeliver_within_s=within_s) for each in requests]
                _wait(tasks, 1 if is_once else math.inf, timeout_s)
                return _tell(local, tasks, is_json)
            finally:
                local.stop_runner(_STOP_S)
    except (BadExtension, BadFault, TaskRefused) as error:
        raise BadRequest(str(error)) from error


def _variables(texts: Sequence[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    wrong = next((name for name, equals, _ in pairs if not name or not equals), None)
    if wrong is not None:
        raise BadRequest(f"--variable {wrong}: write NAME=VALUE")
    return {name: value for name, _, value in pairs}


def _begin_afresh(folder: Path) -> None:
    for name in _FILES:
        (folder / name).unlink(missing_ok=True)


def _set_faults(local: LocalConnect, texts: Sequence[str]) -> None:
    from saga_engine.connect.local_faults import Fault

    for text in texts:
        local.set_fault(Fault.from_text(text))


def _wait(tasks: Sequence[LocalTask], results_max: float, timeout_s: float) -> None:
    """Wait until each task is over, or has so many results; or until it takes too long, which `_tell` tells."""
    from saga_engine.connect.local_errors import TaskOverdue

    deadline = time.monotonic() + timeout_s
    for task in tasks:
        left_s = max(0.0, deadline - time.monotonic())
        try:
            if math.isinf(results_max):
                task.wait(left_s)
            else:
                task.wait_results(int(results_max), left_s)
        except TaskOverdue as overdue:
            click.echo(f"saga: {overdue}", err=True)


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
