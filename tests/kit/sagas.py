"""Sagas for tests: steps that follow a script and record every call, a clock set by hand, a process that dies."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from connect.eaas.core.responses import BackgroundResponse

from saga_engine import Saga, SagaRecord, current_context
from saga_engine.journal import Commit, Entry, Journal
from transactions import BackgroundTransaction, Kind, RetryPolicy

DONE = BackgroundResponse.done()

#: The execution of `saga_of(...)` for the request `{"id": "PR-1"}`.
SAGA_ID = "Order:PR-1"


class Crash(BaseException):
    """The process is gone: nothing of the engine may catch this and go on."""


def stable_id(value: object) -> str:
    """Name a parameter of a test by its `repr` without addresses, which differ from process to process."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


@dataclass(frozen=True)
class Called:
    """One call of one operation of one step; `request` and `state` as they were when it was called."""

    operation: str
    step: str
    attempt: int
    key: str
    request: dict[str, Any]
    state: dict[str, Any]
    error: Exception | None = None


@dataclass
class World:
    """What is outside of the engine: it makes the steps, keeps their scripts, and remembers every call."""

    is_native_async: bool = False
    calls: list[Called] = field(default_factory=list)

    def step(self, name: str, *script: Any, **options: Any) -> ScriptedStep:
        """Make a step; `script` is what `execute` does at each call, see `ScriptedStep`."""
        kind = AsyncScriptedStep if self.is_native_async else ScriptedStep
        return kind(self, name, script or (DONE,), **options)

    def names(self, operation: str) -> list[str]:
        """Name the steps whose operation was called, in order, with repetitions."""
        return [call.step for call in self.calls if call.operation == operation]

    @property
    def executed(self) -> list[str]:
        return self.names("execute")

    @property
    def undone(self) -> list[str]:
        return self.names("compensate")

    @property
    def probed(self) -> list[str]:
        return self.names("probe")

    def of(self, step: str, operation: str = "execute") -> list[Called]:
        """Give the calls of one operation of one step, oldest first."""
        return [call for call in self.calls if (call.step, call.operation) == (step, operation)]

    def trace(self) -> list[str]:
        """Give every call as `operation step`, in order."""
        return [f"{call.operation} {call.step}" for call in self.calls]


class ScriptedStep(BackgroundTransaction):
    """A step whose every call plays the next part of a script; the last part is played again and again.

    A part is an exception (raised), a function of what the operation is called with (called, and its result
    played), or anything else (returned). One object serves all drives: it stands for the world outside.

    Args:
        undo, probe, wanted: scripts of `compensate`, `probe` and `should_execute`: one part or a list of parts. None:
            the step does not define that operation.
    """

    def __init__(
        self,
        world: World,
        name: str,
        script: Any,
        *,
        undo: Any = DONE,
        probe: Any = None,
        wanted: Any = None,
        kind: Kind = Kind.COMPENSATABLE,
        retry: RetryPolicy | None = None,
        compensation_retry: RetryPolicy | None = None,
        on_unknown: str = "rerun",
    ) -> None:
        self._world = world
        self._name = name
        self._scripts = {"execute": list(script)}
        self.kind, self.on_unknown = kind, on_unknown
        self.retry, self.compensation_retry = retry, compensation_retry
        for operation, part in (("compensate", undo), ("probe", probe), ("should_execute", wanted)):
            if part is not None:
                self._scripts[operation] = list(part) if isinstance(part, (list, tuple)) else [part]
                setattr(self, operation, getattr(self, f"scripted_{operation}"))

    def name(self) -> str:
        return self._name

    def execute(self, request: dict[str, Any]) -> Any:
        return self._play("execute", request)

    def scripted_compensate(self, request: dict[str, Any], e: Exception) -> Any:
        return self._play("compensate", request, e)

    def scripted_probe(self, request: dict[str, Any]) -> Any:
        return self._play("probe", request)

    def scripted_should_execute(self, request: dict[str, Any]) -> Any:
        return self._play("should_execute", request)

    def _play(self, operation: str, request: dict[str, Any], *error: Exception) -> Any:
        context = current_context()
        self._world.calls.append(
            Called(
                operation,
                self._name,
                context.attempt,
                context.idempotency_key,
                copy.deepcopy(request),
                copy.deepcopy(context.state),
                *error,
            )
        )
        script = self._scripts[operation]
        part = script.pop(0) if len(script) > 1 else script[0]
        if inspect.isfunction(part) or inspect.ismethod(part):
            part = part(request, *error)
        if isinstance(part, BaseException):
            raise part.with_traceback(None)  # one object raised again and again would gather tracebacks
        return part


class AsyncScriptedStep(ScriptedStep):
    """The same with coroutine functions."""

    async def execute(self, request: dict[str, Any]) -> Any:
        return self._play("execute", request)

    async def scripted_compensate(self, request: dict[str, Any], e: Exception) -> Any:
        return self._play("compensate", request, e)

    async def scripted_probe(self, request: dict[str, Any]) -> Any:
        return self._play("probe", request)

    async def scripted_should_execute(self, request: dict[str, Any]) -> Any:
        return self._play("should_execute", request)


def reraise(request: dict[str, Any], e: Exception) -> Any:
    """Play in a script of `compensate`: raise the very exception that it was given."""
    raise e


def remember(answer: Any = DONE, **state: Any) -> Callable[..., Any]:
    """Play in any script: put these into `context.state`, then play the answer."""

    def write(request: dict[str, Any], *error: Exception) -> Any:
        current_context().state.update(state)
        return answer

    return write


def saga_of(*entries: Any, name: str = "Order", **attributes: Any) -> type[Saga]:
    """Make a saga of these transactions; a single function lists them by the request.

    Its executions are `Order:<request id>`. Attributes and methods of the class go by keyword.
    """
    lists = len(entries) == 1 and inspect.isfunction(entries[0])

    def transactions(self: Saga, request: dict[str, Any]) -> Any:
        return entries[0](request) if lists else list(entries)

    body = {"transactions": transactions, "__module__": __name__, "mode": "chain", **attributes}
    return type(name, (Saga,), body)


def statuses(record: SagaRecord) -> dict[str, str]:
    """Give the status of each step, by name and in order."""
    return {step.name: step.status.value for step in record.steps}


class Mortal:
    """A journal as one process sees it, until the process dies; the journal below lives on.

    Args:
        journal: the journal below.
        dies_before, dies_after: a type of entry, perhaps with the step's name: the process dies before (or right
            after) the first commit that holds such an entry is written.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        dies_before: type[Entry] | tuple[type[Entry], str] | None = None,
        dies_after: type[Entry] | tuple[type[Entry], str] | None = None,
    ) -> None:
        self._journal = journal
        self._before = dies_before
        self._after = dies_after
        self._held: dict[int, int] = {}
        self.is_dead = False
        self.url = journal.url

    def die(self, *_: Any) -> Any:
        """End the process here and now; also a part of a script."""
        self.is_dead = True
        for eid, epoch in self._held.items():
            self._journal.abandon(eid, epoch)
        raise Crash

    def append(self, commit: Commit) -> Any:
        self._live()
        if _holds(commit, self._before):
            self.die()
        result = self._journal.append(commit)
        self._note(result)
        if _holds(commit, self._after):
            self.die()
        return result

    def submit(self, commit: Commit, done: Callable[[Any], None]) -> None:
        """Append in this thread: when the process dies it dies here, not in a thread of the journal."""
        try:
            result: Any = self.append(commit)
        except Exception as error:
            result = error
        done(result)

    def abandon(self, eid: int, epoch: int) -> None:
        self._live()
        self._journal.abandon(eid, epoch)

    def __getattr__(self, name: str) -> Any:
        self._live()
        return getattr(self._journal, name)

    def _note(self, result: Any) -> None:
        if hasattr(result, "eid"):
            self._held[result.eid] = result.epoch

    def _live(self) -> None:
        if self.is_dead:
            raise Crash


def _holds(commit: Commit, wanted: type[Entry] | tuple[type[Entry], str] | None) -> bool:
    if wanted is None:
        return False
    kind, step = wanted if isinstance(wanted, tuple) else (wanted, None)
    found = (entry for entry in commit.entries if isinstance(entry, kind))
    return any(step is None or getattr(entry, "step", None) == step for entry in found)
