"""The decider: the only code that knows the rules of a saga. Pure: no clock, no I/O, no randomness.

    evolve(state, entry) -> state       what an entry means
    decide(state)        -> actions     what comes next, given all that happened
    answer(state, now)   -> response    what to tell the caller about it

Time reaches it only as the `at` of entries, so the same entries always give the same decision. A driver loops:
decide, carry the actions out, turn each result into an entry, evolve.

Invariants:

- `Execute`, `Probe` and `Compensate` begin with an entry (`begin`), which makes the work part of the state: while it
  is in flight `decide` does not ask for it again. `Ask` and `Wait` are level-triggered: they leave no entry.
- A step that started is never pending again, save in mode select, and ends completed, compensated, failed without
  effect, or parked (S16).
- Undo goes from the failing steps to the others by latest first start, one at a time (S9, S21).
- Steps form a graph by `needs`; a chain is a graph in which each step needs the one before. `decide` starts
  whatever is ready, so branches need no further rule here or in the drivers' loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from saga_engine.actions import Action, Ask, Compensate, Execute, Finish, Park, Probe, Refuse, TurnBack, Wait
from saga_engine.journal import (
    CancelRequested,
    CompensationBegun,
    CompensationDeclined,
    CompensationFailed,
    CompensationStarted,
    CompensationSuspended,
    DriveInterrupted,
    DriveResumed,
    Entry,
    ParkedStepResolved,
    PlanStep,
    ProbeStarted,
    RequestDelivered,
    Response,
    SagaEnded,
    SagaParked,
    SagaStarted,
    SagaStatus,
    SagaSuspended,
    SignalReceived,
    SkipAnswered,
    StateSaved,
    StepCompensated,
    StepCompleted,
    StepFailed,
    StepNotSelected,
    StepParked,
    StepProbed,
    StepSkipped,
    StepStarted,
    StepSuspended,
    TakenOver,
    WaitElapsed,
)
from saga_engine.state import Phase, State, StepState
from transactions import Kind
from transactions import Probe as ProbeAnswer

__all__ = [
    "Action",
    "Ask",
    "Compensate",
    "Execute",
    "Finish",
    "Park",
    "Phase",
    "Probe",
    "Refuse",
    "State",
    "StepState",
    "TurnBack",
    "Wait",
    "answer",
    "decide",
    "evolve",
    "full_id",
    "is_early",
    "replay",
]

#: Connect's shortest countdown; see `connect.eaas.core.responses.BackgroundResponse`.
COUNTDOWN_MIN_S = 30.0

DONE = Response("success")


_UNDO_UNDER_WAY = (
    Phase.UNDOING,
    Phase.UNDO_INTERRUPTED,
    Phase.UNDO_RETRYING,
    Phase.UNDO_EXHAUSTED,
    Phase.UNDO_DECLINED,
    Phase.UNDO_SUSPENDED,
    Phase.UNDO_WOKEN,
)
_UNFINISHED = (Phase.INTERRUPTED, Phase.RETRYING, Phase.SUSPENDED, Phase.WOKEN, Phase.FAILED, Phase.COMPLETED)
#: Forward, these are looked into before anything else.
_TROUBLE = (Phase.FAILED, Phase.UNDONE, Phase.INTERRUPTED)


# --- evolve -------------------------------------------------------------------------------------------------------


def replay(entries: Iterator[Entry] | tuple[Entry, ...]) -> State:
    """Fold the entries of one execution, of which the first is its `SagaStarted`."""
    iterator = iter(entries)
    first = next(iterator)
    assert isinstance(first, SagaStarted), "the first entry of an execution is SagaStarted"
    state = start(first)
    for entry in iterator:
        state = evolve(state, entry)
    return state


def start(entry: SagaStarted) -> State:
    """Give the state of an execution that has just started."""
    return State(
        saga=entry.saga,
        saga_path=entry.saga_path,
        saga_id=entry.saga_id,
        generation=entry.generation,
        plan=entry.plan,
        policy=entry.policy,
        steps={step.name: StepState() for step in entry.plan.steps},
        first_request=entry.request,
        request=entry.request,
        data=Raw(b"{}"),
        at=entry.at,
        started_at=entry.at,
    )


def evolve(state: State, entry: Entry) -> State:
    """Give the state after the entry. Entries that no longer apply change nothing but the count and the time."""
    change = _EVOLVE[type(entry)](state, entry)
    change["entries"] = state.entries + 1
    if entry.at > state.at:  # a clock that goes backward never takes time back from a state
        change["at"] = entry.at
    return replace(state, **change)


def _carry(entry: Any) -> dict[str, Any]:
    """Take over the request and the state that an outcome carries (S18)."""
    change: dict[str, Any] = {}
    if bytes(entry.request):
        change["request"] = entry.request
    if bytes(entry.state):
        change["data"] = entry.state
    return change


def _with(state: State, step: str, **change: Any) -> dict[str, StepState]:
    steps = dict(state.steps)
    steps[step] = replace(steps[step], **change)
    return steps


def _on_request_delivered(state: State, entry: Any) -> dict[str, Any]:
    change: dict[str, Any] = {"steps": _wake(state, lambda step: True), "told": None}
    if bytes(entry.request):
        change["request"] = entry.request
    return _running(state, change)


def _on_drive_resumed(state: State, entry: Any) -> dict[str, Any]:
    steps = _wake(state, lambda step: step.due_at is not None and step.due_at <= entry.at)
    return _running(state, {"steps": steps, "told": None})


def _running(state: State, change: dict[str, Any]) -> dict[str, Any]:
    change["due_at"] = None
    # Only a person's resolution sets a parked one going, and nothing one that ended.
    change["is_released"] = state.parked is not None or state.status.is_ended
    if state.status is SagaStatus.SUSPENDED:
        change["status"] = SagaStatus.RUNNING
    return change


def _wake(state: State, is_over: Callable[[StepState], bool]) -> Mapping[str, StepState]:
    """End the waits that steps asked for; in mode select every delivery chooses anew (S26)."""
    if state.plan.mode == "select":
        return {name: _reselectable(step) for name, step in state.steps.items()}
    return {name: _woken(step) if is_over(step) else step for name, step in state.steps.items()}


def _woken(step: StepState) -> StepState:
    if step.phase is Phase.SUSPENDED:
        return replace(step, phase=Phase.WOKEN)
    if step.phase is Phase.UNDO_SUSPENDED:
        return replace(step, phase=Phase.UNDO_WOKEN)
    return step


def _reselectable(step: StepState) -> StepState:
    if step.phase.is_over or step.phase in (Phase.PARKED, Phase.UNDO_INTERRUPTED):
        return step
    return replace(step, phase=Phase.PENDING, is_passed_over=False, is_probing=False, undo_of=None)


def _on_interruption(state: State, entry: Any) -> dict[str, Any]:
    steps = {name: _interrupted(step, _is_read_only(state, name)) for name, step in state.steps.items()}
    if state.plan.mode == "select":
        steps = {name: _reselectable(step) for name, step in steps.items()}
    return {"steps": steps, "recoveries": state.recoveries + 1, "is_released": False}


def _interrupted(step: StepState, is_read_only: bool) -> StepState:
    if step.phase is Phase.RUNNING:
        return replace(
            step,
            phase=Phase.INTERRUPTED,
            failures=step.failures + 1,
            may_have_effect=not is_read_only,
            answer=None,
        )
    if step.phase is Phase.UNDOING:
        return replace(step, phase=Phase.UNDO_INTERRUPTED)
    return replace(step, is_probing=False)


def _on_taken_over(state: State, entry: Any) -> dict[str, Any]:
    return _running(state, _on_interruption(state, entry))


def _on_wait_elapsed(state: State, entry: Any) -> dict[str, Any]:
    return {}


def _on_saga_suspended(state: State, entry: Any) -> dict[str, Any]:
    status = SagaStatus.COMPENSATING if state.turned_back else SagaStatus.SUSPENDED
    return {"status": status, "is_released": True, "due_at": entry.due_at, "told": entry.told}


def _on_saga_ended(state: State, entry: Any) -> dict[str, Any]:
    steps = {
        name: replace(step, phase=Phase.SKIPPED) if step.phase is Phase.PENDING and state.skipped else step
        for name, step in state.steps.items()
    }
    return {"status": entry.status, "response": entry.response, "is_released": True, "steps": steps}


def _on_saga_parked(state: State, entry: Any) -> dict[str, Any]:
    return {"status": SagaStatus.PARKED, "parked": entry, "is_released": True}


def _on_step_skipped(state: State, entry: Any) -> dict[str, Any]:
    steps = _with(state, entry.step, phase=Phase.SKIPPED, finished_at=entry.at)
    return {"steps": steps, "recoveries": 0}


def _on_step_not_selected(state: State, entry: Any) -> dict[str, Any]:
    return {"steps": _with(state, entry.step, is_passed_over=True)}


def _on_step_started(state: State, entry: Any) -> dict[str, Any]:
    step = state.steps[entry.step]
    first: dict[str, Any] = {}
    started = state.started
    if not step.order:
        started += 1
        first = {"order": started}
    steps = _with(
        state,
        entry.step,
        phase=Phase.RUNNING,
        attempts=step.attempts + 1,
        is_unasked=False,
        answer=None,
        retry_at=None,
        due_at=None,
        signal=None,
        started_at=step.started_at or entry.at,
        finished_at=None,
        **first,
    )
    return {"steps": steps, "started": started}


def _on_step_completed(state: State, entry: Any) -> dict[str, Any]:
    step = state.steps[entry.step]
    effect = (step.may_have_effect or entry.has_effect) and not _is_read_only(state, entry.step)
    steps = _with(state, entry.step, phase=Phase.COMPLETED, may_have_effect=effect, finished_at=entry.at, error=None)
    return {"steps": steps, "recoveries": 0, **_carry(entry)}


def _is_read_only(state: State, step: str) -> bool:
    return next(s.kind is Kind.READ_ONLY for s in state.plan.steps if s.name == step)


def _on_skip_answered(state: State, entry: Any) -> dict[str, Any]:
    step = state.steps[entry.step]
    phase = Phase.COMPLETED if step.may_have_effect else Phase.SKIPPED
    steps = _with(state, entry.step, phase=phase, finished_at=entry.at, error=None)
    return {"steps": steps, "skipped": entry, **_carry(entry)}


def _on_step_suspended(state: State, entry: Any) -> dict[str, Any]:
    step = state.steps[entry.step]
    effect = (step.may_have_effect or entry.has_effect) and not _is_read_only(state, entry.step)
    change: dict[str, Any] = {
        "steps": _with(
            state,
            entry.step,
            phase=Phase.SUSPENDED,
            may_have_effect=effect,
            due_at=entry.due_at,
            signal=entry.signal,
            response=entry.response,
            error=None,
        ),
        "recoveries": 0,
        "reschedules": state.reschedules + 1,
        **_carry(entry),
    }
    if entry.signal is not None:
        return _take_signals(replace(state, **change), change)
    return change


def _take_signals(state: State, change: dict[str, Any]) -> dict[str, Any]:
    """Hand each kept signal to the step that waits for it; the payload lands in the state under its name (S19)."""
    kept, steps, data = [], dict(state.steps), state.data
    for signal in state.signals:
        waiting = next((n for n, s in steps.items() if s.phase is Phase.SUSPENDED and s.signal == signal.name), None)
        if waiting is None:
            kept.append(signal)
            continue
        steps[waiting] = replace(steps[waiting], phase=Phase.WOKEN)
        data = _set_key(data, signal.name, signal.payload)
    return {**change, "signals": tuple(kept), "steps": steps, "data": data}


def _set_key(data: Raw, key: str, value: Raw) -> Raw:
    decoded: dict[str, Any] = msgspec.json.decode(data)
    decoded[key] = msgspec.json.decode(value)
    return Raw(msgspec.json.encode(decoded))


def _on_step_failed(state: State, entry: Any) -> dict[str, Any]:
    step = state.steps[entry.step]
    effect = (step.may_have_effect or entry.effect == "unknown") and not _is_read_only(state, entry.step)
    steps = _with(
        state,
        entry.step,
        phase=Phase.FAILED if entry.retry_at is None else Phase.RETRYING,
        attempts=step.attempts + 1 if entry.is_unasked else step.attempts,
        failures=step.failures + 1,
        may_have_effect=effect and not entry.is_refusal,
        is_unasked=entry.is_unasked,
        answer=None,
        retry_at=entry.retry_at,
        response=None,  # what it told while it waited is not the answer of its undo (S14)
        error=entry.error,
        is_refusal=entry.is_refusal,
        limit=entry.limit,
        started_at=step.started_at or entry.at,
        finished_at=entry.at,
    )
    return {"steps": steps, **_carry(entry)}


def _on_probe_started(state: State, entry: Any) -> dict[str, Any]:
    return {"steps": _with(state, entry.step, is_probing=True)}


def _on_step_probed(state: State, entry: Any) -> dict[str, Any]:
    step = state.steps[entry.step]
    change: dict[str, Any] = {"is_probing": False, "answer": entry.answer}
    if entry.answer is ProbeAnswer.NOT_DONE:
        change["may_have_effect"] = False
        if state.turned_back:
            change["phase"] = Phase.FAILED
    if entry.answer is ProbeAnswer.DONE:
        effect = not _is_read_only(state, entry.step)
        change.update(phase=Phase.COMPLETED, may_have_effect=effect, finished_at=entry.at, error=None)
    recoveries = 0 if entry.answer is ProbeAnswer.DONE else state.recoveries
    assert step.phase in (Phase.INTERRUPTED, Phase.RETRYING, Phase.FAILED), "only an unknown outcome is probed"
    return {"steps": _with(state, entry.step, **change), "recoveries": recoveries, **_carry(entry)}


def _on_compensation_begun(state: State, entry: Any) -> dict[str, Any]:
    return {"turned_back": entry, "status": SagaStatus.COMPENSATING}


def _on_compensation_started(state: State, entry: Any) -> dict[str, Any]:
    step = state.steps[entry.step]
    undo_of = step.undo_of or _undo_of(step.phase)
    steps = _with(
        state,
        entry.step,
        phase=Phase.UNDOING,
        undo_of=undo_of,
        undo_attempts=step.undo_attempts + 1,
        undo_started_at=step.undo_started_at or entry.at,
        retry_at=None,
        due_at=None,
    )
    return {"steps": steps}


def _undo_of(phase: Phase) -> Literal["completed", "failed", "started"]:
    if phase is Phase.COMPLETED:
        return "completed"
    return "failed" if phase is Phase.FAILED else "started"


def _on_step_compensated(state: State, entry: Any) -> dict[str, Any]:
    step = state.steps[entry.step]
    steps = _with(
        state,
        entry.step,
        phase=Phase.UNDONE,
        undone=step.undone + 1,
        may_have_effect=False,
        response=entry.response,
        undo_error=None,
        finished_at=entry.at,
    )
    return {"steps": steps, "recoveries": 0, **_carry(entry)}


def _on_compensation_declined(state: State, entry: Any) -> dict[str, Any]:
    if state.steps[entry.step].undo_of == "completed" or state.plan.mode == "select":
        steps = _with(state, entry.step, phase=Phase.UNDO_DECLINED, undo_error=entry.error)
    else:
        steps = _with(state, entry.step, phase=Phase.FAILED, may_have_effect=False, finished_at=entry.at)
    return {"steps": steps, "recoveries": 0, **_carry(entry)}


def _on_compensation_failed(state: State, entry: Any) -> dict[str, Any]:
    step = state.steps[entry.step]
    steps = _with(
        state,
        entry.step,
        phase=Phase.UNDO_EXHAUSTED if entry.retry_at is None else Phase.UNDO_RETRYING,
        undo_failures=step.undo_failures + 1,
        undo_error=entry.error,
        retry_at=entry.retry_at,
    )
    return {"steps": steps, **_carry(entry)}


def _on_compensation_suspended(state: State, entry: Any) -> dict[str, Any]:
    change: dict[str, Any] = {"recoveries": 0, "reschedules": state.reschedules + 1, **_carry(entry)}
    waiting = {"due_at": entry.due_at, "response": entry.response}
    if _is_not_lost_yet(state, entry):
        waiting |= {"undo_of": None, "undo_failures": 0, "undo_error": None, "undo_started_at": None}
        change["steps"] = _with(state, entry.step, phase=Phase.SUSPENDED, signal=None, **waiting)
        return {**change, "turned_back": None, "status": SagaStatus.RUNNING}
    change["steps"] = _with(state, entry.step, phase=Phase.UNDO_SUSPENDED, **waiting)
    return change


def _is_not_lost_yet(state: State, entry: Any) -> bool:
    """Tell whether the failing step's `compensate` may still ask to run the step again (S10)."""
    if state.plan.mode == "select":
        return True
    back = state.turned_back
    failing = [s for s in state.steps.values() if s.undo_of == "failed" or s.phase is Phase.FAILED]
    return (
        back is not None
        and back.cause == "failed"
        and state.steps[entry.step].undo_of == "failed"
        and len(failing) == 1
        and state.cancelled is None
        and not _is_past_deadline(state)
    )


def _on_step_parked(state: State, entry: Any) -> dict[str, Any]:
    return {"steps": _with(state, entry.step, phase=Phase.PARKED, cause=entry.cause, next_action=entry.next_action)}


def _on_state_saved(state: State, entry: Any) -> dict[str, Any]:
    return _carry(entry)


def _on_signal_received(state: State, entry: Any) -> dict[str, Any]:
    signals = (*state.signals, entry)
    return _take_signals(replace(state, signals=signals), {})


def _on_cancel_requested(state: State, entry: Any) -> dict[str, Any]:
    return {} if state.status.is_ended else {"cancelled": state.cancelled or entry}


def _on_parked_step_resolved(state: State, entry: Any) -> dict[str, Any]:
    step = state.steps.get(entry.step)
    if step is None or step.phase is not Phase.PARKED or state.status.is_ended:
        return {}
    return {
        "steps": _with(state, entry.step, cause=None, next_action=None, failures=0, **_resolution(entry)),
        "status": SagaStatus.COMPENSATING if state.turned_back else SagaStatus.RUNNING,
        "parked": None,
        "is_released": False,
        "recoveries": 0,
        "reschedules": 0,
        "entries_forgiven": state.entries,
    }


def _resolution(entry: ParkedStepResolved) -> dict[str, Any]:
    if entry.outcome == "done":
        return {"phase": Phase.COMPLETED, "may_have_effect": True, "finished_at": entry.at}
    if entry.outcome == "not_done":
        return {"phase": Phase.INTERRUPTED, "may_have_effect": False, "answer": ProbeAnswer.NOT_DONE}
    undone = {"may_have_effect": False, "undo_error": None, "response": None, "finished_at": entry.at}
    return {"phase": Phase.UNDONE, **undone}


_EVOLVE: dict[type[Entry], Callable[[State, Any], dict[str, Any]]] = {
    RequestDelivered: _on_request_delivered,
    DriveResumed: _on_drive_resumed,
    TakenOver: _on_taken_over,
    DriveInterrupted: _on_interruption,
    WaitElapsed: _on_wait_elapsed,
    SagaSuspended: _on_saga_suspended,
    SagaEnded: _on_saga_ended,
    SagaParked: _on_saga_parked,
    StepSkipped: _on_step_skipped,
    StepNotSelected: _on_step_not_selected,
    StepStarted: _on_step_started,
    StepCompleted: _on_step_completed,
    SkipAnswered: _on_skip_answered,
    StepSuspended: _on_step_suspended,
    StepFailed: _on_step_failed,
    ProbeStarted: _on_probe_started,
    StepProbed: _on_step_probed,
    CompensationBegun: _on_compensation_begun,
    CompensationStarted: _on_compensation_started,
    StepCompensated: _on_step_compensated,
    CompensationDeclined: _on_compensation_declined,
    CompensationFailed: _on_compensation_failed,
    CompensationSuspended: _on_compensation_suspended,
    StepParked: _on_step_parked,
    StateSaved: _on_state_saved,
    SignalReceived: _on_signal_received,
    CancelRequested: _on_cancel_requested,
    ParkedStepResolved: _on_parked_step_resolved,
}


# --- decide -------------------------------------------------------------------------------------------------------


def decide(state: State) -> tuple[Action, ...]:
    """Tell what comes next. Nothing, if the execution ended or parked, or if all that can go on is in flight."""
    if state.status.is_ended or state.parked is not None:
        return ()
    if _is_in_flight(state):
        return () if state.turned_back or state.plan.mode == "select" else _unless_turning_back(state)
    limit = _limit_reached(state)
    if limit is not None:
        return (limit,)
    if state.plan.mode == "select":
        return (_select(state),)
    if state.turned_back:
        return (_backward(state, state.turned_back),)
    return _forward(state)


def _is_in_flight(state: State) -> bool:
    for step in state.steps.values():
        if step.phase is Phase.RUNNING or step.phase is Phase.UNDOING or step.is_probing:
            return True
    return False


def _unless_turning_back(state: State) -> tuple[Action, ...]:
    """While a branch is in flight: start what is ready beside it, unless the execution is about to turn back."""
    ready = tuple(action for action in _ready_actions(state) if not isinstance(action, Wait))
    if ready and (state.skipped or _reason_to_turn_back(state) or _failed_unprobed(state)):
        return ()
    return ready


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
    if _is_any_in(state, (Phase.PARKED,)):
        return None
    step = next(_undo_order(state) if state.turned_back else _unfinished(state), None)
    return None if step is None else _park(step, f"{limit} ({count_max}) reached", hint)


def _unfinished(state: State) -> Iterator[str]:
    """Name the steps that are not over; those that started come first, as mode select passes over others."""
    names = [name for name, step in state.steps.items() if not step.phase.is_over]
    return iter(sorted(names, key=lambda name: state.steps[name].order == 0))


def _park(step: str, cause: str, hint: str) -> Park:
    return Park(step, cause, f"{hint}; then saga resolve")


def _forward(state: State) -> tuple[Action, ...]:
    if state.cancelled is not None or state.policy.deadline_at is not None or _is_any_in(state, _TROUBLE):
        trouble = _trouble(state)
        if trouble is not None:
            return (trouble,)
    if state.skipped is not None:
        return (_finish_skipped(state, state.skipped),)
    actions = tuple(_ready_actions(state))
    if not actions:
        return (Finish(SagaStatus.COMPLETED),)
    for action in actions:
        if isinstance(action, Park):
            return (action,)
    if _is_any_in(state, (Phase.PARKED,)):
        return (_finish_parked(state),)
    going_on = tuple(a for a in actions if not isinstance(a, Wait))
    return going_on or (_earliest(state, actions),)


_UNJOURNALED = "what the step did cannot be journaled"


def _trouble(state: State) -> Action | None:
    """Tell what keeps the execution from going forward, before anything else is done."""
    for name, step in state.steps.items():
        if step.phase is Phase.FAILED and step.limit is not None:
            return _park(name, f"{step.limit} reached", _UNJOURNALED)
    unprobed = _failed_unprobed(state)
    return Probe(unprobed) if unprobed is not None else _reason_to_turn_back(state)


def _is_any_in(state: State, phases: tuple[Phase, ...]) -> bool:
    # A loop, as this is asked several times for every entry; hashing an Enum for a set is slower still.
    for step in state.steps.values():  # noqa: SIM110
        if step.phase in phases:
            return True
    return False


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
    if _is_past_deadline(state) and not all(s.phase.is_over for s in state.steps.values()):
        return TurnBack("deadline")
    for planned in state.plan.steps:
        step = state.steps[planned.name]
        if step.phase is Phase.INTERRUPTED and planned.on_unknown == "compensate" and _is_told_unknown(planned, step):
            return TurnBack("interrupted", planned.name)
    return None


def _is_past_deadline(state: State) -> bool:
    return state.policy.deadline_at is not None and state.at >= state.policy.deadline_at


def _is_told_unknown(planned: PlanStep, step: StepState) -> bool:
    return step.answer is ProbeAnswer.UNKNOWN or (step.answer is None and not planned.probed)


def _finish_skipped(state: State, skipped: SkipAnswered) -> Finish:
    has_effect = any(s.may_have_effect for s in state.steps.values())
    return Finish(SagaStatus.COMPLETED if has_effect else SagaStatus.SKIPPED, skipped.response)


def _finish_parked(state: State) -> Finish:
    name, step = next((n, s) for n, s in state.steps.items() if s.phase is Phase.PARKED)
    return Finish(SagaStatus.PARKED, step=name, cause=step.cause or "")


def _are_over(state: State, needs: tuple[str, ...]) -> bool:
    for need in needs:  # noqa: SIM110  # asked for every step at every decision: a generator costs as much again
        if not state.steps[need].phase.is_over:
            return False
    return True


def _ready_actions(state: State) -> Iterator[Action]:
    for planned in state.plan.steps:
        step = state.steps[planned.name]
        if not step.phase.is_over and _are_over(state, planned.needs):
            action = _advance(state, planned, step)
            if action is not None:
                yield action


def _advance(state: State, planned: PlanStep, step: StepState) -> Action | None:
    """Tell what a step whose needs are over does next; None while it is in flight."""
    if step.is_probing or step.phase is Phase.RUNNING:
        return None
    if step.phase in (Phase.PENDING, Phase.WOKEN):
        return Ask(planned.name)
    if step.phase is Phase.SUSPENDED:
        return _suspended(state, planned, step)
    if step.phase is Phase.PARKED:
        return Wait(None, "step")
    if step.failures >= state.policy.attempts_max:
        cause = f"attempts_max ({state.policy.attempts_max}) reached"
        return _park(planned.name, cause, "every attempt fails: find out why")
    if step.phase is Phase.RETRYING:
        return _retrying(state, planned, step)
    return _interrupted_next(planned, step)


def _suspended(state: State, planned: PlanStep, step: StepState) -> Action:
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


def _earliest(state: State, waits: tuple[Action, ...]) -> Wait:
    """Join what several steps wait for into one wait; the deadline ends it, too."""
    found = [w for w in waits if isinstance(w, Wait)]
    first = min(found, key=lambda w: float("inf") if w.until is None else w.until)
    until = [t for t in (first.until, state.policy.deadline_at) if t is not None]
    cause = "retry" if all(w.cause == "retry" for w in found) else first.cause
    return replace(first, until=min(until, default=None), cause=cause)


# --- backward -----------------------------------------------------------------------------------------------------


def _backward(state: State, back: CompensationBegun) -> Action:
    """Undo one step at a time: the failing ones first, then by latest first start (S9)."""
    is_parked = any(s.phase is Phase.PARKED for s in state.steps.values())
    if is_parked and state.policy.park_policy == "stop":
        return _finish_parked(state)
    planned = {p.name: p for p in state.plan.steps}
    for name in _undo_order(state):
        return _undo(state, back, planned[name], state.steps[name])
    if is_parked:
        return _finish_parked(state)
    if back.cause == "cancelled":
        return Finish(SagaStatus.CANCELLED, Response("fail", f"cancelled: {_reason(state)}"))
    return Finish(SagaStatus.COMPENSATED, _failure_response(state, back))


def _undo_order(state: State) -> Iterator[str]:
    """Name the steps that are still to be undone, in order."""
    back = state.turned_back
    failing = back.step if back and back.cause in ("failed", "interrupted") else None

    def key(item: tuple[str, StepState]) -> tuple[bool, int]:
        name, step = item
        is_failing = step.phase is Phase.FAILED or step.undo_of == "failed" or name == failing
        return (not is_failing, -step.order)

    return (name for name, step in sorted(state.steps.items(), key=key) if _needs_undo(step))


def _needs_undo(step: StepState) -> bool:
    return step.phase in _UNDO_UNDER_WAY or (step.may_have_effect and step.phase in _UNFINISHED)


def _undo(state: State, back: CompensationBegun, planned: PlanStep, step: StepState) -> Action:
    name = planned.name
    if planned.probed and step.answer is None and step.phase in (Phase.INTERRUPTED, Phase.RETRYING):
        return Probe(name)
    if step.phase is Phase.UNDO_DECLINED:
        return _park(name, "no undo", "the step completed and has no undo: undo it by hand")
    if step.phase is Phase.UNDO_EXHAUSTED:
        error = step.undo_error.message if step.undo_error else ""
        return _park(name, f"compensate failed: {error}", "undo it by hand")
    if step.undo_failures >= state.policy.attempts_max:
        return _park(name, f"attempts_max ({state.policy.attempts_max}) reached", "every undo fails: undo it by hand")
    deadline_at = back.at + state.policy.compensation_deadline_s
    if step.phase in _UNDO_UNDER_WAY and state.at >= deadline_at:
        return _park(name, "compensation_deadline_s passed", "its undo does not come to an end: undo it by hand")
    if step.phase is Phase.UNDO_SUSPENDED and (step.due_at is None or state.at < step.due_at):
        return Wait(_sooner(step.due_at, deadline_at), "compensation", step.response, name)
    if step.phase is Phase.UNDO_RETRYING and step.retry_at is not None and state.at < step.retry_at:
        return Wait(min(step.retry_at, deadline_at), "retry", step=name)
    is_completed = (step.undo_of or _undo_of(step.phase)) == "completed"
    return Compensate(name, step.undo_attempts + 1, of_completed=is_completed)


def _sooner(due_at: float | None, deadline_at: float) -> float:
    return deadline_at if due_at is None else min(due_at, deadline_at)


def _reason(state: State) -> str:
    return state.cancelled.reason if state.cancelled else ""


def _failure_response(state: State, back: CompensationBegun) -> Response:
    """Give the answer of S14: the error, or what the failing step's `compensate` answered instead."""
    if back.cause == "deadline":
        return Response("fail", "the saga's deadline passed")
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
    """Tell whether a delivery has to wait on: the engine's own retry waits are not shortened by one (S15)."""
    if not state.is_released:
        return False
    actions = decide(state)
    return bool(actions) and all(
        isinstance(a, Wait) and a.cause == "retry" and a.until is not None and a.until > now for a in actions
    )


def full_id(saga_id: str, generation: int) -> str:
    """Name one generation: the first by its bare id, later ones as `saga_id#2`."""
    return saga_id if generation == 1 else f"{saga_id}#{generation}"
