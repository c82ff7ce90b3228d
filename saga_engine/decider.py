"""The decider: the only code that knows the rules of a saga. Pure: no clock, no I/O, no randomness.

    evolve(state, entry) -> state       what an entry means (saga_engine.evolution)
    decide(state)        -> actions     what comes next, given all that happened
    answer(state, now)   -> response    what to tell the caller about it
    preview(state)       -> undos       what would be undone, in which order, if it failed now

Time reaches it only as the `at` of entries, so the same entries always give the same decision. A driver loops:
decide, carry the actions out, turn each result into an entry, evolve.

Invariants:

- `Execute`, `Probe` and `Compensate` begin with an entry (`begin`), which makes the work part of the state: while it
  is in flight `decide` does not ask for it again. `Ask` and `Wait` are level-triggered: they leave no entry.
- A step that started is never pending again, save in mode select, and ends completed, compensated, failed without
  effect, or parked (S16).
- Undo goes from the failing steps to the others by latest first start, one at a time (S9, S21). A child saga in which
  a step failed is undone before what is around it (S22).
- Steps form a graph by `needs`; a chain is a graph in which each step needs the one before. `decide` starts
  whatever is ready, so branches and children need no further rule in the drivers' loop.
- Once the pivot may have been passed, nothing turns back (S20).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from saga_engine.actions import (
    Action,
    Ask,
    Await,
    Compensate,
    Execute,
    Finish,
    Miss,
    Park,
    Probe,
    Refuse,
    TurnBack,
    Wait,
)
from saga_engine.evolution import (
    UNDO_UNDER_WAY,
    evolve,
    has_passed_pivot,
    is_past_deadline,
    is_pivot_uncertain,
    replay,
    undo_of,
)
from saga_engine.journal import (
    CompensationBegun,
    ErrorRecord,
    PlanStep,
    Response,
    SagaStatus,
    SkipAnswered,
    UndoOrdered,
)
from saga_engine.state import Phase, State, StepState
from transactions import Kind
from transactions import Probe as ProbeAnswer

__all__ = [
    "Action",
    "Ask",
    "Await",
    "Compensate",
    "Execute",
    "Finish",
    "Miss",
    "Park",
    "Phase",
    "Probe",
    "Refuse",
    "State",
    "StepState",
    "TurnBack",
    "Undo",
    "Wait",
    "answer",
    "decide",
    "evolve",
    "full_id",
    "is_early",
    "preview",
    "replay",
    "wakes_at",
]

#: Connect's shortest countdown; see `connect.eaas.core.responses.BackgroundResponse`.
COUNTDOWN_MIN_S = 30.0

#: How often an execution looks again for an exclusive right that nobody told it was free.
EXCLUSIVE_POLL_S = 300.0

DONE = Response("success")

_UNFINISHED = (Phase.INTERRUPTED, Phase.RETRYING, Phase.SUSPENDED, Phase.WOKEN, Phase.FAILED, Phase.COMPLETED)
#: Stands beside the phases' flags for a step whose probe is in flight.
_PROBING = 1 << len(Phase)
_IN_FLIGHT = Phase.RUNNING.bit | Phase.UNDOING.bit | _PROBING
#: Forward, these are looked into before anything else.
_TROUBLE = Phase.FAILED.bit | Phase.UNDONE.bit | Phase.INTERRUPTED.bit


# --- decide -------------------------------------------------------------------------------------------------------


def decide(state: State) -> tuple[Action, ...]:
    """Tell what comes next. Nothing, if the execution ended or parked, or if all that can go on is in flight."""
    if state.status.is_ended or state.parked is not None:
        return ()
    phases = _phases(state)
    if phases & _IN_FLIGHT:
        is_alone = state.shape.is_chain or state.turned_back or state.plan.mode == "select"
        return () if is_alone else _unless_turning_back(state, phases)
    if state.denied_by is not None and (denied := _denied(state, state.denied_by)) is not None:
        return (denied,)
    if state.undo is not None and state.turned_back is None:
        return (TurnBack("undo"),)
    limit = _limit_reached(state)
    if limit is not None:
        return (limit,)
    if state.plan.mode == "select":
        return (_select(state),)
    if state.turned_back:
        return (_backward(state, state.turned_back),)
    return _forward(state, phases)


def _phases(state: State) -> int:
    """Look at all steps at once: the phases that occur, as flags."""
    found = 0
    for step in state.steps.values():
        found |= step.phase.bit
        if step.is_probing:
            found |= _PROBING
    return found


def _denied(state: State, by: str) -> Action | None:
    """Wait for the exclusive right; None: the execution comes to its end without it."""
    if not state.started:
        if state.plan.exclusive is not None and state.plan.exclusive.when_held == "refuse":
            text = f"{by} is under way for {state.plan.exclusive.name!r}: try again when it has ended"
            return Finish(SagaStatus.COMPENSATED, Response("fail", text))
        if state.cancelled is not None or is_past_deadline(state):
            return None
    told = Response("reschedule", countdown_s=COUNTDOWN_MIN_S)
    until = state.at + EXCLUSIVE_POLL_S
    if not state.started and state.policy.deadline_at is not None:
        until = min(until, state.policy.deadline_at)
    return Wait(until, "exclusive", told)


def _unless_turning_back(state: State, phases: int) -> tuple[Action, ...]:
    """While a branch is in flight: start what is ready beside it, unless the execution is about to stop."""
    ready = tuple(action for action in _ready_actions(state) if not isinstance(action, Wait))
    if ready and (state.skipped or phases & Phase.PARKED.bit or _trouble(state) is not None):
        return ()
    parking = tuple(action for action in ready if isinstance(action, Park))
    return parking[:1] or ready


def _limit_reached(state: State) -> Park | None:
    """Park at the first unfinished step when a limit of J8 or S16 is reached; never loop."""
    policy = state.policy
    if state.recoveries > policy.recoveries_max:
        return _park_unfinished(state, "recoveries_max", policy.recoveries_max, "find out what kills the process here")
    if state.reschedules > policy.reschedules_max:
        return _park_unfinished(state, "reschedules_max", policy.reschedules_max, "it waits for what never comes")
    if state.entries - state.entries_forgiven > policy.entries_max:
        return _park_unfinished(state, "entries_max", policy.entries_max, "it goes on without an end")
    return None


def _park_unfinished(state: State, limit: str, count_max: int, hint: str) -> Park | None:
    step = next(_undo_order(state) if state.turned_back else _unfinished(state), None)
    return None if step is None else _park(step, f"{limit} ({count_max}) reached", hint, "saga resume")


def _unfinished(state: State) -> Iterator[str]:
    """Name the steps that are not over; those that started come first, as mode select passes over others."""
    names = [n for n, step in state.steps.items() if not step.phase.is_over and step.phase is not Phase.PARKED]
    return iter(sorted(names, key=lambda name: state.steps[name].order == 0))


def _park(step: str, cause: str, hint: str, command: str = "saga resolve") -> Park:
    return Park(step, cause, f"{hint}; then {command}")


def _forward(state: State, phases: int) -> tuple[Action, ...]:
    if phases & _TROUBLE or _may_be_troubled(state):
        trouble = _trouble(state)
        if trouble is not None:
            return (trouble,)
    if state.skipped is not None:
        return (_finish_skipped(state, state.skipped),)
    starting, waits = [], []
    for action in _ready_actions(state):
        if isinstance(action, Park):
            return (action,)
        if isinstance(action, Wait):
            waits.append(action)
        else:
            starting.append(action)
    if phases & Phase.PARKED.bit:
        return (_finish_parked(state),)
    if starting:
        return tuple(starting)
    return (_earliest(state, waits),) if waits else (Finish(SagaStatus.COMPLETED),)


_UNJOURNALED = "what the step did cannot be journaled"


def _may_be_troubled(state: State) -> bool:
    """Tell whether, apart from the steps, there is anything to look into first; mostly there is not."""
    is_timed = state.policy.deadline_at is not None or (state.scopes and state.shape.timed)
    return bool(state.cancelled or is_timed or state.conflict)


def _trouble(state: State) -> Action | None:
    """Tell what keeps the execution from going forward, before anything else is done."""
    for name, step in state.steps.items():
        if step.phase is Phase.FAILED and step.limit is not None:
            return _park(name, f"{step.limit} reached", _UNJOURNALED)
    unprobed = _failed_unprobed(state)
    if unprobed is not None:
        return Probe(unprobed)
    if has_passed_pivot(state):
        return _given_up_forward(state)
    if is_pivot_uncertain(state):
        return _uncertain(state)
    return _reason_to_turn_back(state)


def _given_up_forward(state: State) -> Park | None:
    """Behind the pivot nothing is compensated: what cannot go on parks (S20)."""
    for name, step in state.steps.items():
        if step.phase in (Phase.FAILED, Phase.UNDONE):
            return _park(
                name, f"given up behind the pivot: {_message(step.error)}", "find out why it fails", "saga resume"
            )
    if state.conflict is not None and not _phases(state) & Phase.PARKED.bit:
        branched = (name for name, planned in state.shape.steps.items() if planned.scope)
        last = max(branched, key=lambda name: (state.steps[name].finished_at or 0.0, state.steps[name].order))
        return _park(last, state.conflict, "set the key with saga edit")
    return None


def _uncertain(state: State) -> Park | None:
    """Only a `fail` of the pivot, or its probe, can tell that it was not passed (S20)."""
    pivot = state.shape.pivot or ""
    step = state.steps[pivot]
    if step.phase is not Phase.FAILED:
        return None
    hint = "find out at the other side whether it took effect"
    return _park(pivot, f"the pivot's outcome is unknown: {_message(step.error)}", hint)


def _message(error: ErrorRecord | None) -> str:
    return "" if error is None else error.message or error.type


def _failed_unprobed(state: State) -> str | None:
    """Find a step that gave up with an unknown outcome and was not probed since (S9)."""
    for planned in state.plan.steps:
        step = state.steps[planned.name]
        if planned.probed and step.phase is Phase.FAILED and step.may_have_effect and step.answer is None:
            return planned.name
    return None


def _reason_to_turn_back(state: State) -> TurnBack | None:
    failed = next((n for n, s in state.steps.items() if s.phase in (Phase.FAILED, Phase.UNDONE)), None)
    if state.cancelled is not None:
        return TurnBack("cancelled", failed)
    if failed is not None:
        return TurnBack("failed", failed)
    if state.conflict is not None:
        return TurnBack("conflict")
    if is_past_deadline(state) and not all(s.phase.is_over for s in state.steps.values()):
        return TurnBack("deadline")
    if any(ends_at <= state.at for ends_at in _deadlines_of_children(state)):
        return TurnBack("deadline")
    for planned in state.plan.steps:
        step = state.steps[planned.name]
        if step.phase is Phase.INTERRUPTED and planned.on_unknown == "compensate" and _is_told_unknown(planned, step):
            return TurnBack("interrupted", planned.name)
    return None


def _deadlines_of_children(state: State) -> Iterator[float]:
    """Give when the children that are under way must have ended (S24), in Unix seconds."""
    for scope in state.shape.timed:
        if scope.id in state.scopes:
            yield state.scopes[scope.id].started_at + (scope.deadline_s or 0.0)


def _is_told_unknown(planned: PlanStep, step: StepState) -> bool:
    return step.answer is ProbeAnswer.UNKNOWN or (step.answer is None and not planned.probed)


def _finish_skipped(state: State, skipped: SkipAnswered) -> Finish:
    has_effect = any(s.may_have_effect for s in state.steps.values())
    return Finish(SagaStatus.COMPLETED if has_effect else SagaStatus.SKIPPED, skipped.response)


def _finish_parked(state: State) -> Finish:
    name, step = next((n, s) for n, s in state.steps.items() if s.phase is Phase.PARKED)
    return Finish(SagaStatus.PARKED, step=name, cause=step.cause or "")


def _ready_actions(state: State) -> Iterator[Action]:
    steps = state.steps
    for planned in state.plan.steps:
        step = steps[planned.name]
        if step.phase.is_over:
            continue
        for need in planned.needs:  # a loop, as this is asked for every step at every decision
            if not steps[need].phase.is_over:
                break
        else:
            action = _advance(state, planned, step)
            if action is not None:
                yield action
        if state.shape.is_chain:
            return  # whatever follows needs this one


def _advance(state: State, planned: PlanStep, step: StepState) -> Action | None:
    """Tell what a step whose needs are over does next; None while it is in flight."""
    if step.is_probing or step.phase is Phase.RUNNING:
        return None
    if planned.signal is not None and step.phase is Phase.PENDING:
        return Await(planned.name, planned.signal_timeout_s)
    if step.phase in (Phase.PENDING, Phase.WOKEN):
        return Ask(planned.name)
    if step.phase is Phase.SUSPENDED:
        return _suspended(state, planned, step)
    if step.phase is Phase.PARKED:
        return Wait(None, "step")
    if step.failures >= state.policy.attempts_max:
        cause = f"attempts_max ({state.policy.attempts_max}) reached"
        return _park(planned.name, cause, "every attempt fails: find out why", "saga resume")
    if step.phase is Phase.RETRYING:
        return _retrying(state, planned, step)
    return _interrupted_next(planned, step)


def _suspended(state: State, planned: PlanStep, step: StepState) -> Action:
    if planned.signal is not None:
        is_missed = step.due_at is not None and step.due_at <= state.at
        return Miss(planned.name) if is_missed else Wait(step.due_at, "signal", None, planned.name)
    if step.due_at is not None and step.due_at <= state.at:
        return Ask(planned.name)
    return Wait(step.due_at, "step", step.response, planned.name)


def _retrying(state: State, planned: PlanStep, step: StepState) -> Action:
    assert step.retry_at is not None, "a step that retries has a time for it"
    if state.at < step.retry_at:
        return Wait(step.retry_at, "retry", step=planned.name)
    if step.is_unasked:
        return Ask(planned.name)
    if planned.probed and step.answer is None and step.may_have_effect:
        return Probe(planned.name)
    return Execute(planned.name, step.attempts + 1)


def _interrupted_next(planned: PlanStep, step: StepState) -> Action:
    if planned.probed and step.answer is None:
        return Probe(planned.name)
    if step.answer is not ProbeAnswer.NOT_DONE and planned.on_unknown == "park":
        hint = "find out at the other side whether it took effect"
        return _park(planned.name, "interrupted, and its outcome is unknown", hint)
    return Execute(planned.name, step.attempts + 1)


def _earliest(state: State, waits: list[Wait]) -> Wait:
    """Join what several steps wait for into one wait; a deadline ends it, too."""
    first = min(waits, key=lambda w: float("inf") if w.until is None else w.until)
    until = [t for t in (first.until, *_deadlines(state)) if t is not None]
    return replace(first, until=min(until, default=None))


def _deadlines(state: State) -> Iterator[float | None]:
    """Give the times at which the execution would turn back by itself; none once it cannot."""
    if not has_passed_pivot(state) and not is_pivot_uncertain(state):
        yield state.policy.deadline_at
        yield from _deadlines_of_children(state)


def wakes_at(state: State) -> float | None:
    """Tell when something can be done beside what is in flight, in Unix seconds; None: not by time alone."""
    if state.turned_back is not None or state.plan.mode == "select" or len(state.steps) == 1:
        return None
    waits = [a.until for a in _ready_actions(state) if isinstance(a, Wait) and a.until is not None]
    return min(waits, default=None)


# --- backward -----------------------------------------------------------------------------------------------------


def _backward(state: State, back: CompensationBegun) -> Action:
    """Undo one step at a time: the failing ones first, then by latest first start (S9)."""
    is_parked = any(s.phase is Phase.PARKED for s in state.steps.values())
    if is_parked and state.policy.park_policy == "stop":
        return _finish_parked(state)
    for name in _undo_order(state):
        return _undo(state, back, state.shape.steps[name], state.steps[name])
    if is_parked:
        return _finish_parked(state)
    if back.cause == "cancelled":
        return Finish(SagaStatus.CANCELLED, Response("fail", f"cancelled: {_reason(state)}"))
    return Finish(SagaStatus.COMPENSATED, _failure_response(state, back))


def _undo_order(state: State) -> Iterator[str]:
    """Name the steps that are still to be undone, in order."""
    back = state.turned_back
    failing = {name for name, step in state.steps.items() if _is_failing(name, step, back)}
    around = {child for name in failing for child in _children_around(state, name)}

    def key(name: str) -> tuple[bool, int, int]:
        depth = sum(child in around for child in _children_around(state, name))
        return (name not in failing, -depth, -state.steps[name].order)

    is_ordered = back is not None and back.cause == "undo"
    return (
        name
        for name in sorted(state.steps, key=key)
        if _needs_undo(state.steps[name]) and not (is_ordered and _is_final(state, name))
    )


def _is_failing(name: str, step: StepState, back: CompensationBegun | None) -> bool:
    is_named = back is not None and back.cause in ("failed", "interrupted") and back.step == name
    return is_named or step.phase is Phase.FAILED or step.undo_of == "failed"


def _children_around(state: State, name: str) -> tuple[str, ...]:
    """List the child sagas that a step is in, outermost first."""
    path = state.shape.path_to(state.shape.steps[name].scope)
    return tuple(scope for scope in path if state.shape.scopes[scope].child)


def _is_final(state: State, name: str) -> bool:
    """Tell whether the undo of a completed execution passes over the step: it defines no undo (S32)."""
    return not state.shape.steps[name].has_undo and state.steps[name].phase is Phase.COMPLETED


def _needs_undo(step: StepState) -> bool:
    return step.phase in UNDO_UNDER_WAY or (step.may_have_effect and step.phase in _UNFINISHED)


def _undo(state: State, back: CompensationBegun, planned: PlanStep, step: StepState) -> Action:
    name = planned.name
    if planned.probed and step.answer is None and step.phase in (Phase.INTERRUPTED, Phase.RETRYING, Phase.FAILED):
        return Probe(name)
    if step.phase is Phase.UNDO_DECLINED:
        return _park(name, "no undo", "the step completed and has no undo: undo it by hand")
    if step.phase is Phase.UNDO_EXHAUSTED:
        error = step.undo_error.message if step.undo_error else ""
        return _park(name, f"compensate failed: {error}", "undo it by hand")
    if step.undo_failures >= state.policy.attempts_max:
        return _park(name, f"attempts_max ({state.policy.attempts_max}) reached", "every undo fails: undo it by hand")
    deadline_at = back.at + state.policy.compensation_deadline_s
    if step.phase in UNDO_UNDER_WAY and state.at >= deadline_at:
        return _park(name, "compensation_deadline_s passed", "its undo does not come to an end: undo it by hand")
    if step.phase is Phase.UNDO_SUSPENDED and (step.due_at is None or state.at < step.due_at):
        return Wait(_sooner(step.due_at, deadline_at), "compensation", step.response, name)
    if step.phase is Phase.UNDO_RETRYING and step.retry_at is not None and state.at < step.retry_at:
        return Wait(min(step.retry_at, deadline_at), "retry", step=name)
    is_completed = (step.undo_of or undo_of(step.phase)) == "completed"
    return Compensate(name, step.undo_attempts + 1, of_completed=is_completed)


def _sooner(due_at: float | None, deadline_at: float) -> float:
    return deadline_at if due_at is None else min(due_at, deadline_at)


def _reason(state: State) -> str:
    return state.cancelled.reason if state.cancelled else ""


def _failure_response(state: State, back: CompensationBegun) -> Response:
    """Give the answer of S14: the error, or what the failing step's `compensate` answered instead."""
    if back.cause == "deadline":
        return Response("fail", "the saga's deadline passed")
    if back.cause == "conflict":
        return Response("fail", state.conflict)
    if back.cause == "undo":
        return state.response or DONE
    step = state.steps[back.step or ""]
    if step.undo_of != "completed" and step.response and step.response.status in ("fail", "skip"):
        return step.response
    if step.error is not None:
        return Response("fail", step.error.message or step.error.type)
    return Response("fail", f"{back.step}: {_INTERRUPTED}")


_INTERRUPTED = "interrupted, and its outcome is unknown"


# --- mode select --------------------------------------------------------------------------------------------------


def _select(state: State) -> Action:
    """One delivery runs one transaction, the first that applies (S26); an undo that a crash cut off goes on first."""
    for name, step in state.steps.items():
        if step.phase is Phase.PARKED:
            return _finish_parked(state)
        if step.phase is Phase.UNDO_INTERRUPTED:
            return Compensate(name, step.undo_attempts + 1, of_completed=False, is_final=True)
    if state.cancelled is not None:
        return Finish(SagaStatus.CANCELLED, Response("fail", f"cancelled: {_reason(state)}"))
    if state.skipped is not None:
        return Finish(SagaStatus.SKIPPED, state.skipped.response)
    for planned in state.plan.steps:
        step = state.steps[planned.name]
        if step.phase is Phase.PENDING and step.is_passed_over:
            continue
        if step.phase is Phase.PENDING:
            return Ask(planned.name)
        return _selected(state, planned, step)
    return Refuse()


def _selected(state: State, planned: PlanStep, step: StepState) -> Action:
    name = planned.name
    if step.phase is Phase.COMPLETED:
        return Finish(SagaStatus.COMPLETED)
    if step.phase is Phase.UNDONE and step.response is None:  # by a person
        reason = step.error.message if step.error else f"{name} was undone by hand"
        return _finish_selected(Response("fail", reason))
    if step.phase is Phase.UNDONE:
        return _finish_selected(step.response or DONE)
    if step.phase is Phase.FAILED and step.is_refusal:
        return _finish_selected(Response("fail", step.error.message if step.error else None))
    if step.phase is Phase.FAILED and step.limit is not None:
        return _park(name, f"{step.limit} reached", _UNJOURNALED)
    if step.phase is Phase.FAILED:
        return Compensate(name, step.undo_attempts + 1, of_completed=False, is_final=True)
    if step.phase is Phase.UNDO_DECLINED:
        return Wait(None, "raised", step=name)
    return _advance(state, planned, step) or Refuse()


def _finish_selected(response: Response) -> Finish:
    ends = {"success": SagaStatus.COMPLETED, "fail": SagaStatus.COMPENSATED, "skip": SagaStatus.SKIPPED}
    return Finish(ends[response.status], response)


# --- answer -------------------------------------------------------------------------------------------------------


def answer(state: State, now: float) -> Response:
    """Give what a caller who does not drive the execution is told (the table of answers).

    Args:
        state: the execution.
        now: Unix seconds.
    """
    if state.response is not None:
        return state.response
    if state.parked is not None:
        saga_id = full_id(state.saga_id, state.generation)
        text = f"parked at {state.parked.step}: {state.parked.cause}; see: saga show {saga_id}"
        return Response("fail", text)
    if not state.is_released:
        return Response("reschedule", countdown_s=COUNTDOWN_MIN_S)
    remaining_s = COUNTDOWN_MIN_S if state.due_at is None else state.due_at - now
    return Response("reschedule", countdown_s=max(COUNTDOWN_MIN_S, remaining_s))


def is_early(state: State, now: float) -> bool:
    """Tell whether a delivery has to wait on: it ends neither the engine's waits for a retry nor a `WaitFor` (S15)."""
    if not state.is_released or _is_waiting_for_delivery(state):
        return False
    actions = decide(state)
    return bool(actions) and all(
        isinstance(a, Wait) and a.cause in ("retry", "signal") and (a.until is None or a.until > now) for a in actions
    )


def _is_waiting_for_delivery(state: State) -> bool:
    return any(s.phase is Phase.SUSPENDED and state.shape.steps[n].signal is None for n, s in state.steps.items())


# --- preview ------------------------------------------------------------------------------------------------------


class Undo(Struct, frozen=True):
    """What would be done to one step. "park": it has no undo, and a person would have to undo it."""

    step: str
    how: Literal["compensate", "park"]


def preview(state: State) -> tuple[Undo, ...]:
    """Tell what would be undone, in which order, if the execution failed (or, completed, were undone) now.

    What is in flight counts as failed with an unknown outcome. Nothing, once the pivot may have been passed.
    """
    if state.turned_back is None:
        state = _turned_back_now(state)
    order = () if state.turned_back is None else tuple(_undo_order(state))
    return tuple(Undo(name, "compensate" if state.shape.steps[name].has_undo else "park") for name in order)


def _turned_back_now(state: State) -> State:
    if state.status is SagaStatus.COMPLETED or state.undo is not None:
        return evolve(evolve(state, UndoOrdered(at=state.at)), CompensationBegun(at=state.at, cause="undo"))
    if state.status.is_ended or has_passed_pivot(state) or is_pivot_uncertain(state):
        return state
    steps = {name: _failed_now(step, state.shape.steps[name]) for name, step in state.steps.items()}
    return evolve(replace(state, steps=steps), CompensationBegun(at=state.at, cause="failed"))


def _failed_now(step: StepState, planned: PlanStep) -> StepState:
    phase = step.parked_from if step.phase is Phase.PARKED and step.parked_from else step.phase
    if phase is Phase.RUNNING:
        return replace(step, phase=Phase.FAILED, may_have_effect=planned.kind is not Kind.READ_ONLY)
    if phase in (Phase.RETRYING, Phase.INTERRUPTED, Phase.FAILED):
        return replace(step, phase=Phase.FAILED)
    return replace(step, phase=phase)


def full_id(saga_id: str, generation: int) -> str:
    """Name one generation: the first by its bare id, later ones as `saga_id#2`."""
    return saga_id if generation == 1 else f"{saga_id}#{generation}"
