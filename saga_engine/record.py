"""Executions as people and programs read them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import msgspec
from connect.eaas.core.responses import BackgroundResponse
from msgspec.structs import replace

from saga_engine.codec import decode_json
from saga_engine.decider import Phase, State, StepState, full_id
from saga_engine.journal import Header, Journal, Response, SagaStatus, StepStatus
from saga_engine.recorded import as_text
from saga_engine.scopes import documents_at
from transactions import Kind

#: What is kept of a response's text, in characters; Connect shows less.
OUTPUT_CHARS_MAX = 16_000

__all__ = [
    "OUTPUT_CHARS_MAX",
    "SagaRecord",
    "StepRecord",
    "as_child_record",
    "as_record",
    "as_tombstone",
    "error_text",
    "from_response",
    "to_response",
    "without_dead_holder",
]


@dataclass(frozen=True)
class StepRecord:
    """One step of an execution; times in Unix seconds.

    Attributes:
        attempts: attempts of `execute` so far; of a child saga, the most that one of its steps needed.
        error: the last error of `execute`, or of `compensate` if the undo fails; None if there is none.
        undo_attempts: attempts of `compensate` so far.
        cause, next_action: why it is parked, and what a person can do; None if it is not.
        steps: the steps of a child saga; empty for any other step.
    """

    name: str
    status: StepStatus
    attempts: int = 0
    error: str | None = None
    started_at: float | None = None
    finished_at: float | None = None
    kind: str = "compensatable"
    undo_attempts: int = 0
    cause: str | None = None
    next_action: str | None = None
    due_at: float | None = None
    steps: tuple[StepRecord, ...] = ()


@dataclass(frozen=True)
class SagaRecord:
    """One execution; times in Unix seconds.

    Attributes:
        saga_id: with its generation (`Purchase:PR-1#2`).
        response: the final answer, None while there is none.
        error: why the execution turned back or parked; None if it did not.
        held_by: who drives it now, as `host:pid`; None: nobody.
        next_due_at: when it wants to go on by itself; None: it does not wait for a time.
        stuck: why nobody could drive it when it was last tried; None if nothing stands in the way.
        request, state: as last journaled; copies. While branches run, what they changed is laid over each other.
        is_purged: only this is left of it: no steps, no request, no state.
        plugin: the id of the plugin that gave the saga; None: none did, or the execution was purged.
        plugin_version: the version that it had when the execution started.
    """

    saga_id: str
    saga: str
    status: SagaStatus
    generation: int
    response: BackgroundResponse | None
    steps: tuple[StepRecord, ...]
    error: str | None
    held_by: str | None
    next_due_at: float | None
    created_at: float
    updated_at: float
    stuck: str | None = None
    request: dict[str, Any] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)
    is_purged: bool = False
    plugin: str | None = None
    plugin_version: str | None = None

    def as_builtins(self) -> dict[str, Any]:
        """Give the record as plain JSON values."""
        value: dict[str, Any] = msgspec.to_builtins(
            {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "response"}
        )
        value["response"] = msgspec.to_builtins(from_response(self.response)) if self.response else None
        return value


def without_dead_holder(header: Header, journal: Journal) -> Header:
    """Leave out who held the execution, if that one died: nobody drives it now."""
    is_left = header.held_by is not None and not journal.is_held(header)
    return replace(header, held_by=None) if is_left else header


def as_record(header: Header, state: State) -> SagaRecord:
    """Join a header and the state replayed from the entries."""
    return SagaRecord(
        saga_id=full_id(state.saga_id, state.generation),
        saga=state.saga,
        status=state.status,
        generation=state.generation,
        response=to_response(state.response) if state.response else None,
        steps=_step_records(state, ""),
        error=_error(state),
        held_by=header.held_by,
        next_due_at=state.due_at,
        created_at=header.created_at,
        updated_at=state.at,
        stuck=header.stuck,
        request=decode_json(state.request),
        state=_state_seen(state, ""),
        plugin=state.plugin or None,
        plugin_version=state.plugin_version or None,
    )


def as_tombstone(header: Header) -> SagaRecord:
    """Give what is left of a purged execution."""
    return SagaRecord(
        saga_id=full_id(header.saga_id, header.generation),
        saga=header.saga,
        status=header.status,
        generation=header.generation,
        response=to_response(header.response) if header.response else None,
        steps=(),
        error=header.response.output if header.response and header.response.status == "fail" else None,
        held_by=None,
        next_due_at=None,
        created_at=header.created_at,
        updated_at=header.updated_at,
        is_purged=True,
    )


def as_child_record(header: Header, state: State, child: str) -> SagaRecord:
    """Give the record of a child saga that is under way in this execution, or was."""
    scope = state.shape.scopes[child]
    names = state.shape.members[child]
    steps = [state.steps[name] for name in names]
    started = [step.started_at for step in steps if step.started_at is not None]
    ended = [step.finished_at for step in steps if step.finished_at is not None]
    due = [due for step in steps if (due := step.due_at or step.retry_at) is not None]
    return SagaRecord(
        saga_id=f"{full_id(state.saga_id, state.generation)}/{child}",
        saga=scope.saga,
        status=_saga_status_of_child(state, child),
        generation=state.generation,
        response=None,
        steps=_step_records(state, child),
        error=next((text for step in steps if (text := error_text(step)) is not None), None),
        held_by=header.held_by,
        next_due_at=min(due, default=None),
        created_at=min(started, default=header.created_at),
        updated_at=max(ended, default=state.at),
        stuck=header.stuck,
        request=decode_json(documents_at(state, child)[0]),
        state=_state_seen(state, child),
    )


_SAGA_STATUSES = {
    StepStatus.PENDING: SagaStatus.RUNNING,
    StepStatus.RUNNING: SagaStatus.RUNNING,
    StepStatus.SKIPPED: SagaStatus.SKIPPED,
    StepStatus.COMPLETED: SagaStatus.COMPLETED,
    StepStatus.FAILED: SagaStatus.RUNNING,
    StepStatus.SUSPENDED: SagaStatus.SUSPENDED,
    StepStatus.COMPENSATING: SagaStatus.COMPENSATING,
    StepStatus.COMPENSATED: SagaStatus.COMPENSATED,
    StepStatus.PARKED: SagaStatus.PARKED,
}


def _saga_status_of_child(state: State, child: str) -> SagaStatus:
    status = _status_of_child(state, child)
    if status in (StepStatus.PARKED, StepStatus.COMPLETED, StepStatus.SKIPPED):
        return _SAGA_STATUSES[status]
    if state.turned_back is None and not state.status.is_ended:
        return _SAGA_STATUSES[status]
    # A child that was under way when its parent turned back is undone with it.
    steps = (state.steps[name] for name in state.shape.members[child])
    is_undone = not any(step.may_have_effect for step in steps)
    return SagaStatus.COMPENSATED if is_undone else SagaStatus.COMPENSATING


def _state_seen(state: State, scope: str) -> dict[str, Any]:
    """Give a scope's state with what open scopes inside it changed laid over it."""
    seen: dict[str, Any] = decode_json(documents_at(state, scope)[1])
    for inner, found in state.scopes.items():
        if scope in ("", *state.shape.path_to(inner)):
            base = decode_json(found.base_data)
            seen.update({k: v for k, v in decode_json(found.data).items() if k not in base or base[k] != v})
    return seen


def _step_records(state: State, child: str) -> tuple[StepRecord, ...]:
    """List the steps of a saga or of a child, each child inside it as one step."""
    records: dict[str, StepRecord] = {}
    for planned in state.plan.steps:
        children = [path for path in _children_around(state, planned.scope) if _is_inside(path, child)]
        if children:
            records.setdefault(children[0], _child_step_record(state, children[0], child))
        elif not child or _children_around(state, planned.scope)[-1:] == (child,):
            name = planned.name[len(child) + 1 :] if child else planned.name
            records[planned.name] = _step_record(state.steps[planned.name], name, planned.kind.value)
    return tuple(records.values())


def _is_inside(path: str, child: str) -> bool:
    return not child or path.startswith(f"{child}/")


def _children_around(state: State, scope: str) -> tuple[str, ...]:
    return tuple(each for each in state.shape.path_to(scope) if state.shape.scopes[each].child)


def _child_step_record(state: State, path: str, parent: str) -> StepRecord:
    steps = _step_records(state, path)
    started = [step.started_at for step in steps if step.started_at is not None]
    status = _status_of_child(state, path)
    is_over = status in (StepStatus.COMPLETED, StepStatus.SKIPPED, StepStatus.COMPENSATED)
    parked = next((step for step in steps if step.status is StepStatus.PARKED), None)
    return StepRecord(
        name=path[len(parent) + 1 :] if parent else path,
        status=status,
        attempts=max(step.attempts for step in steps),
        error=next((step.error for step in steps if step.error is not None), None),
        started_at=min(started, default=None),
        finished_at=max((step.finished_at or 0.0 for step in steps), default=None) if is_over else None,
        kind=_kind_of_child(state, path),
        undo_attempts=max(step.undo_attempts for step in steps),
        cause=parked.cause if parked else None,
        next_action=parked.next_action if parked else None,
        due_at=min((step.due_at for step in steps if step.due_at is not None), default=None),
        steps=steps,
    )


def _kind_of_child(state: State, path: str) -> str:
    kinds = {state.shape.steps[name].kind for name in state.shape.members[path]}
    kind = Kind.PIVOT if Kind.PIVOT in kinds else Kind.COMPENSATABLE
    return str(kind.value)


#: A child stands as the first of these that one of its steps has.
_TELLING = (
    StepStatus.PARKED,
    StepStatus.COMPENSATING,
    StepStatus.RUNNING,
    StepStatus.SUSPENDED,
    StepStatus.COMPENSATED,
    StepStatus.FAILED,
)


def _status_of_child(state: State, path: str) -> StepStatus:
    found = [state.steps[name].phase.status for name in state.shape.members[path]]
    telling = next((status for status in _TELLING if status in found), None)
    if telling is not None:
        return telling
    if StepStatus.PENDING not in found:
        return StepStatus.COMPLETED if StepStatus.COMPLETED in found else StepStatus.SKIPPED
    return StepStatus.RUNNING if StepStatus.COMPLETED in found else StepStatus.PENDING


def _step_record(step: StepState, name: str, kind: str) -> StepRecord:
    return StepRecord(
        name=name,
        status=step.phase.status,
        attempts=step.attempts,
        error=error_text(step),
        started_at=step.started_at,
        finished_at=step.finished_at,
        kind=kind,
        undo_attempts=step.undo_attempts,
        cause=step.cause,
        next_action=step.next_action,
        due_at=step.due_at or step.retry_at,
    )


def error_text(step: StepState) -> str | None:
    """Give the last error of a step, or of its undo, as a person reads it; None if there is none."""
    error = step.undo_error or step.error
    if error is None:
        return "interrupted; its outcome is not known yet" if step.phase is Phase.INTERRUPTED else None
    return f"{error.type.rpartition('.')[2]}: {error.message}"


def _error(state: State) -> str | None:
    if state.parked is not None:
        return f"parked at {state.parked.step}: {state.parked.cause}"
    if state.response is not None and state.response.status == "fail":
        return state.response.output
    if state.turned_back is not None:
        step = state.steps.get(state.turned_back.step or "")
        cause = state.turned_back.cause
        return (step and error_text(step)) or ("undone by order" if cause == "undo" else cause)
    return None


def to_response(response: Response) -> BackgroundResponse:
    """Make Connect's response of a journaled one."""
    if response.status == "reschedule":
        return BackgroundResponse.reschedule(math.ceil(response.countdown_s or 0))
    return BackgroundResponse(response.status, output=response.output)


def from_response(response: BackgroundResponse) -> Response:
    """Make journaled data of Connect's response."""
    status = str(response.status)
    if status == "reschedule":
        return Response("reschedule", countdown_s=float(response.countdown))
    output = response.output
    return Response(status, None if output is None else as_text(str(output), OUTPUT_CHARS_MAX))  # type: ignore[arg-type]  # checked by outcome
