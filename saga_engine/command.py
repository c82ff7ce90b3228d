"""What every command of `saga` shares: options, exit codes, the engine, errors in a line, and how a signal stops it."""

from __future__ import annotations

import functools
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import click
import msgspec
from click.core import ParameterSource

from saga_engine.engine import DEFAULT_JOURNAL_URL, Engine
from saga_engine.errors import (
    BadExport,
    BadJournalURL,
    BadRequest,
    EngineSignal,
    LimitReached,
    NotAllowed,
    NotJSON,
    SagaError,
    TransactionNotSelected,
    UnknownExecution,
    UnknownSaga,
)
from saga_engine.extensions.errors import ConfigError, PluginLoadError, PluginResolutionError
from saga_engine.journal import Entry, SagaStatus
from saga_engine.journals.sqlite_file import path_of
from saga_engine.listing import is_missing
from saga_engine.narration import one_line
from saga_engine.record import SagaRecord
from saga_engine.saga import Saga
from saga_engine.terminal import LiveProgress, NoProgress, PlainProgress

__all__ = [
    "CONFIG_FILE",
    "EPILOG",
    "EXIT_BAD_INPUT",
    "EXIT_DONE",
    "EXIT_ERROR",
    "EXIT_LATER",
    "EXIT_PARKED",
    "EXIT_UNDONE",
    "Stopped",
    "answering",
    "configured",
    "exit_code_of",
    "opened",
    "print_json",
    "shared",
]

EXIT_DONE, EXIT_ERROR, EXIT_BAD_INPUT, EXIT_UNDONE, EXIT_PARKED, EXIT_LATER = 0, 1, 2, 3, 4, 5

#: Where a command's context keeps the path of a configuration file, and what that says.
CONFIG_FILE = "saga_engine.config_file"
_CONFIGURED = "saga_engine.configured"

_BAD_INPUT = (
    BadExport,
    BadJournalURL,
    BadRequest,
    ConfigError,
    LimitReached,
    NotAllowed,
    NotJSON,
    PluginLoadError,
    PluginResolutionError,
    TransactionNotSelected,
    UnknownExecution,
    UnknownSaga,
)

EPILOG = """\b
Exit codes:
    0  completed or skipped; or the command did what it is for
    1  an error: the journal, the saga's definition, a failed recovery
    2  bad input: usage, configuration, request, unknown saga or execution, no journal
    3  compensated or cancelled: what was done is undone
    4  parked: a person has to resolve it
    5  not over yet: suspended, held by another process, or left alone
  130  stopped by Ctrl-C; 143 by SIGTERM. The lease was given back
"""


def exit_code_of(record: SagaRecord) -> int:
    """Give the exit code that tells how an execution stands."""
    return {
        SagaStatus.COMPLETED: EXIT_DONE,
        SagaStatus.SKIPPED: EXIT_DONE,
        SagaStatus.COMPENSATED: EXIT_UNDONE,
        SagaStatus.CANCELLED: EXIT_UNDONE,
        SagaStatus.PARKED: EXIT_PARKED,
    }.get(record.status, EXIT_LATER)


class Stopped(EngineSignal):
    """A signal asks this process to stop."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number
        self.how_to_go_on = ""

    def __str__(self) -> str:
        return f"{self.args[0]}; {self.how_to_go_on}" if self.how_to_go_on else str(self.args[0])


@contextmanager
def _stoppable() -> Iterator[None]:
    """Let the first SIGINT or SIGTERM raise `Stopped`, and the next one end the process at once.

    The second is for a step that does not let go; the journal survives it, as it survives any crash.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = (signal.SIGINT, signal.SIGTERM)

    def stop(number: int, _frame: FrameType | None) -> None:
        for one in signals:
            signal.signal(one, signal.SIG_DFL)
        raise Stopped(number)

    before = {one: signal.signal(one, stop) for one in signals}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _reported(function: Callable[..., int]) -> Callable[..., None]:
    """Turn what a command returns into the exit code, and what it raises into one line on standard error."""

    @functools.wraps(function)
    def run(*, is_debug: bool, **arguments: Any) -> None:
        is_json = arguments["is_json"]
        try:
            with _stoppable():
                _configure(arguments)
                code = function(**arguments)
        except Stopped as stopped:
            code = stopped.exit_code
            _say_error(stopped, code, is_json)
        except SagaError as error:
            code = EXIT_BAD_INPUT if isinstance(error, _BAD_INPUT) else EXIT_ERROR
            if is_debug:
                raise
            _say_error(error, code, is_json)
        except (click.ClickException, click.exceptions.Exit, BrokenPipeError):
            raise
        except Exception as error:
            # Whatever the code of a saga raises: it is not ours to show its insides to whoever types a command.
            code = EXIT_ERROR
            if is_debug:
                raise
            _say_error(error, code, is_json, hint="--debug shows where")
        sys.exit(code)

    return run


def _configure(arguments: dict[str, Any]) -> None:
    """Read the file that `saga --config` names, whose journal counts where nothing else names one.

    Raises:
        ConfigError: the file is wrong.
    """
    context = click.get_current_context()
    path = context.meta.get(CONFIG_FILE)
    if path is None:
        return
    from saga_engine.configuration import load_configuration  # here, because most commands have no plugins

    given = load_configuration(path).arguments()
    journal = given.pop("journal", None)
    if journal is not None and context.get_parameter_source("url") is ParameterSource.DEFAULT:
        arguments["url"] = journal
    context.meta[_CONFIGURED] = given


def configured() -> dict[str, Any]:
    """Give the arguments of `Engine` that a configuration file says."""
    given: dict[str, Any] = click.get_current_context().meta.get(_CONFIGURED, {})
    return given


def _say_error(error: BaseException, code: int, is_json: bool, hint: str = "") -> None:
    is_ours = isinstance(error, (SagaError, Stopped))
    text = one_line(str(error) if is_ours else f"{type(error).__name__}: {error}")
    if is_json:
        value = {"error": {"type": type(error).__name__, "message": text}, "exit_code": code}
        click.echo(msgspec.json.encode(value).decode(), err=True)
    else:
        click.echo(f"saga: {text}" + (f" ({hint})" if hint else ""), err=True)


def shared(function: Callable[..., int]) -> Callable[..., None]:
    """Add what every command about a journal has."""
    journal = click.option(
        "--journal",
        "url",
        metavar="URL",
        envvar="SAGA_JOURNAL_URL",
        default=DEFAULT_JOURNAL_URL,
        show_envvar=True,
        show_default=True,
        help="Where executions are recorded.",
    )
    return journal(answering(function))


def answering(function: Callable[..., int]) -> Callable[..., None]:
    """Add what every command has."""
    as_json = click.option("--json", "is_json", is_flag=True, help="Print JSON; errors are JSON on standard error.")
    debug = click.option("--debug", "is_debug", is_flag=True, help="Show the traceback of an error.")
    return as_json(debug(_reported(function)))


@contextmanager
def opened(
    url: str, is_json: bool, *, is_live: bool = False, must_exist: bool = False, sagas: Sequence[type[Saga]] = ()
) -> Iterator[tuple[Engine, NoProgress]]:
    """Open an engine on the journal, with whatever shows its progress."""
    if must_exist:
        _refuse_missing(url)
    kind = NoProgress if is_json else (LiveProgress if is_live and sys.stdout.isatty() else PlainProgress)

    def history(saga_id: str) -> list[Entry]:
        return engine.history(saga_id)

    progress = kind(history)
    with Engine(url, sagas=sagas, observer=progress.observe, **configured()) as engine:
        yield engine, progress


def _refuse_missing(url: str) -> None:
    """Refuse a journal that is not there: looking for something must not leave an empty file behind."""
    if is_missing(url):
        raise BadJournalURL(
            f"there is no journal at {path_of(url)}: name one with --journal or SAGA_JOURNAL_URL, "
            "or begin one with saga run"
        )


def print_json(value: Any) -> None:
    """Print a value as JSON, indented."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))
