"""Executions as people and programs read them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import msgspec
from connect.eaas.core.responses import BackgroundResponse

from saga_engine.codec import decode_json
from saga_engine.decider import Phase, State, StepState, full_id
from saga_engine.journal import Header, Response, SagaStatus, StepStatus
from saga_engine.recorded import as_text

#: What is kept of a response's text, in characters; Connect shows less.
OUTPUT_CHARS_MAX = 16_000

__all__ = ["OUTPUT_CHARS_MAX", "SagaRecord", "StepRecord", "as_record", "error_text", "from_response", "to_response"]


@dataclass(frozen=True)
class StepRecord:
    """One step of an execution; times in Unix seconds.

    Attributes:
        attempts: attempts of `execute` so far.
        error: the last error of `execute`, or of `compensate` if the undo fails; None if there is none.
        undo_attempts: attempts of `compensate` so far.
        cause, next_action: why it is parked, and what a person can do; None if it is not.
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
        request, state: as last journaled; copies.
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

    def as_builtins(self) -> dict[str, Any]:
        """Give the record as plain JSON values."""
        value: dict[str, Any] = msgspec.to_builtins(
            {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "response"}
        )
        value["response"] = msgspec.to_builtins(from_response(self.response)) if self.response else None
        return value


def as_record(header: Header, state: State) -> SagaRecord:
    """Join a header and the state replayed from the entries."""
    return SagaRecord(
        saga_id=full_id(state.saga_id, state.generation),
        saga=state.saga,
        status=state.status,
        generation=state.generation,
        response=to_response(state.response) if state.response else None,
        steps=tuple(_step_record(state, planned.name, planned.kind.value) for planned in state.plan.steps),
        error=_error(state),
        held_by=header.held_by,
        next_due_at=state.due_at,
        created_at=header.created_at,
        updated_at=state.at,
        stuck=header.stuck,
        request=decode_json(state.request),
        state=decode_json(state.data),
    )


def _step_record(state: State, name: str, kind: str) -> StepRecord:
    step = state.steps[name]
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
        return (step and error_text(step)) or state.turned_back.cause
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
