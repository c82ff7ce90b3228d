"""Histories for tests of the decider: short names for plans, for what happened, and for what comes next."""

from __future__ import annotations

from typing import Any

from msgspec import Raw

from saga_engine.decider import Action, State, decide, evolve, replay
from saga_engine.journal import (
    CompensationBegun,
    CompensationStarted,
    Entry,
    ErrorRecord,
    ParkedStepResolved,
    Plan,
    PlanStep,
    Policy,
    ProbeStarted,
    RequestDelivered,
    Response,
    SagaStarted,
    SagaSuspended,
    StepCompensated,
    StepCompleted,
    StepFailed,
    StepParked,
    StepProbed,
    StepStarted,
    StepSuspended,
    TakenOver,
    WaitElapsed,
)
from transactions import Probe

NOW = 100.0
BROKEN = ErrorRecord("vendor.Down", "the vendor is down")
DONE = Response("success")
LATER = Response("reschedule", countdown_s=60.0)


def begun(*steps: PlanStep | str, mode: Any = "chain", **policy: Any) -> State:
    """A new execution. Names stand for plain steps of a chain."""
    planned: list[PlanStep] = []
    for step in steps:
        needs = (planned[-1].name,) if planned and mode == "chain" else ()
        planned.append(PlanStep(step, needs=needs) if isinstance(step, str) else step)
    return replay((start_entry(Plan(tuple(planned), mode), Policy(**policy)),))


def start_entry(plan: Plan, policy: Policy) -> SagaStarted:
    """The entry that every history begins with."""
    return SagaStarted(
        at=NOW, saga="S", saga_path="m:S", saga_id="S:1", generation=1, drive="d", plan=plan, policy=policy,
        request=Raw(b'{"id":"1"}'),
    )  # fmt: skip


def after(state: State, *entries: Entry) -> State:
    """The state after these as well."""
    for entry in entries:
        state = evolve(state, entry)
    return state


def ran(step: str, attempt: int = 1) -> Entry:
    return StepStarted(at=NOW, step=step, attempt=attempt)


def done(*steps: str, **changes: Any) -> tuple[Entry, ...]:
    return tuple(e for s in steps for e in (ran(s), StepCompleted(at=NOW, step=s, **changes)))


def failed(step: str, retry_at: float | None = None, effect: Any = "unknown", **changes: Any) -> Entry:
    return StepFailed(at=NOW, step=step, error=BROKEN, effect=effect, retry_at=retry_at, **changes)


def back(cause: Any = "failed", step: str | None = None, at: float = NOW) -> Entry:
    return CompensationBegun(at=at, cause=cause, step=step)


def undoing(step: str, attempt: int = 1) -> Entry:
    return CompensationStarted(at=NOW, step=step, attempt=attempt)


def undone(step: str, response: Response = DONE) -> tuple[Entry, Entry]:
    return undoing(step), StepCompensated(at=NOW, step=step, response=response)


def probed(step: str, found: Probe) -> tuple[Entry, Entry]:
    return ProbeStarted(at=NOW, step=step), StepProbed(at=NOW, step=step, answer=found)


def suspended(step: str, due_at: float | None = None, **changes: Any) -> Entry:
    return StepSuspended(at=NOW, step=step, response=LATER, due_at=due_at, **changes)


def released(cause: Any = "step", due_at: float | None = None) -> Entry:
    return SagaSuspended(at=NOW, cause=cause, due_at=due_at, told=LATER)


TAKEN_OVER = TakenOver(at=NOW, drive="e")
DELIVERED = RequestDelivered(at=NOW, drive="e")


def elapsed(at: float) -> Entry:
    return WaitElapsed(at=at)


def only(state: State) -> Action:
    """The one thing that comes next."""
    (action,) = decide(state)
    return action


def resolved(step: str, outcome: Any) -> Entry:
    return ParkedStepResolved(at=NOW, step=step, outcome=outcome, note="looked it up")


def parked_at(step: str, cause: str = "c") -> Entry:
    return StepParked(at=NOW, step=step, cause=cause, next_action="n")


def begun_with(plan: Plan, **policy: Any) -> State:
    """A new execution of this plan."""
    return replay((start_entry(plan, Policy(**policy)),))


def undo_order(state: State) -> list[str]:
    """The steps that are undone from here on, in order, if every undo works."""
    order = []
    while (actions := decide(state)) and type(actions[0]).__name__ == "Compensate":
        order.append(actions[0].step)
        state = after(state, *undone(actions[0].step))
    return order
