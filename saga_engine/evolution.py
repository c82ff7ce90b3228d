"""What an entry means: `evolve(state, entry)` gives the state after it. The decider's one half; pure.

An entry that no longer applies (a signal for an ended execution, a resolution of a step that is not parked) changes
nothing but the count and the time, so whatever once got into a journal can be replayed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from msgspec import Raw
from msgspec.structs import replace

from saga_engine.errors import CorruptJournal
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
    ErrorRecord,
    ExclusiveDenied,
    LateEffectFound,
    ParkedStepResolved,
    PlanStep,
    ProbeStarted,
    RequestDelivered,
    SagaEnded,
    SagaParked,
    SagaStarted,
    SagaStatus,
    SagaSuspended,
    SignalAwaited,
    SignalMissed,
    SignalReceived,
    SkipAnswered,
    StateEdited,
    StateSaved,
    StepCompensated,
    StepCompleted,
    StepFailed,
    StepNotSelected,
    StepParked,
    StepProbed,
    StepResumed,
    StepSkipped,
    StepSkippedByHand,
    StepStarted,
    StepSuspended,
    TakenOver,
    UndoOrdered,
    WaitElapsed,
)
from saga_engine.scopes import carried, documents_at, edited, joined, opened, patched, set_key, with_request
from saga_engine.shape import shape_of
from saga_engine.state import Phase, State, StepState
from transactions import Kind
from transactions import Probe as ProbeAnswer

__all__ = [
    "UNDO_UNDER_WAY",
    "evolve",
    "has_passed_pivot",
    "is_past_deadline",
    "is_pivot_uncertain",
    "replay",
    "undo_of",
]

UNDO_UNDER_WAY = (
    Phase.UNDOING,
    Phase.UNDO_INTERRUPTED,
    Phase.UNDO_RETRYING,
    Phase.UNDO_EXHAUSTED,
    Phase.UNDO_DECLINED,
    Phase.UNDO_SUSPENDED,
    Phase.UNDO_WOKEN,
)


def replay(entries: Iterator[Entry] | tuple[Entry, ...]) -> State:
    """Fold the entries of one execution, of which the first is its `SagaStarted`.

    Raises:
        CorruptJournal: they do not begin so, or one of them names a step that the plan does not have.
    """
    iterator = iter(entries)
    first = next(iterator, None)
    if not isinstance(first, SagaStarted):
        raise CorruptJournal("an execution does not begin with SagaStarted: restore the journal from a backup")
    state = start(first)
    try:
        for entry in iterator:
            state = evolve(state, entry)
    except KeyError as missing:
        raise CorruptJournal(
            f"an entry names {missing}, which its execution does not have: restore the journal from a backup"
        ) from missing
    return state


def start(entry: SagaStarted) -> State:
    """Give the state of an execution that has just started."""
    return State(
        saga=entry.saga,
        saga_path=entry.saga_path,
        saga_id=entry.saga_id,
        generation=entry.generation,
        plan=entry.plan,
        shape=shape_of(entry.plan),
        policy=entry.policy,
        steps={step.name: StepState() for step in entry.plan.steps},
        first_request=entry.request,
        request=entry.request,
        data=Raw(b"{}"),
        at=entry.at,
        started_at=entry.at,
        plugin=entry.plugin,
        plugin_version=entry.plugin_version,
    )


def evolve(state: State, entry: Entry) -> State:
    """Give the state after the entry. Entries that no longer apply change nothing but the count and the time."""
    change = _EVOLVE[type(entry)](state, entry)
    change["entries"] = state.entries + 1
    if entry.at > state.at:  # a clock that goes backward never takes time back from a state
        change["at"] = entry.at
    state = replace(state, **change)
    return joined(state) if state.scopes and state.turned_back is None else state


def has_passed_pivot(state: State) -> bool:
    """Tell whether the point of no return is behind the execution (S20)."""
    if state.shape.pivot is None:
        return False
    pivot = state.steps[state.shape.pivot]
    return pivot.phase is Phase.COMPLETED or (pivot.phase is Phase.PARKED and pivot.parked_from is Phase.COMPLETED)


def is_pivot_uncertain(state: State) -> bool:
    """Tell whether the point of no return may have been passed: then nothing is gone back on (S20)."""
    pivot = state.shape.pivot
    if pivot is None:
        return False
    step = state.steps[pivot]
    return step.phase is Phase.RUNNING or (step.may_have_effect and not step.phase.is_over)


def is_past_deadline(state: State) -> bool:
    """Tell whether the saga's own deadline passed."""
    return state.policy.deadline_at is not None and state.at >= state.policy.deadline_at


def _carry(state: State, entry: Any) -> dict[str, Any]:
    """Take over the request and the state that an outcome carries (S18)."""
    request = entry.request if bytes(entry.request) else None
    data = entry.state if bytes(entry.state) else None
    if request is None and data is None:
        return {}
    return carried(state, state.shape.steps[entry.step].scope, request, data)


def _with(state: State, step: str, **change: Any) -> dict[str, StepState]:
    return {**state.steps, step: replace(state.steps[step], **change)}


def _on_request_delivered(state: State, entry: Any) -> dict[str, Any]:
    change: dict[str, Any] = {"steps": _wake(state, lambda step: True), "told": None}
    if bytes(entry.request):
        change.update(with_request(state, entry.request))
    return _running(state, change)


def _on_drive_resumed(state: State, entry: Any) -> dict[str, Any]:
    steps = _wake(state, lambda step: step.due_at is not None and step.due_at <= entry.at)
    return _running(state, {"steps": steps, "told": None})


def _running(state: State, change: dict[str, Any]) -> dict[str, Any]:
    change["due_at"] = change["denied_by"] = None
    # Only a person's resolution sets a parked one going, and nothing one that ended.
    change["is_released"] = state.parked is not None or state.status.is_ended
    if state.status is SagaStatus.SUSPENDED:
        change["status"] = SagaStatus.RUNNING
    return change


def _wake(state: State, is_over: Callable[[StepState], bool]) -> Mapping[str, StepState]:
    """End the waits that steps asked for; in mode select every delivery chooses anew (S26)."""
    if state.plan.mode == "select":
        return {name: _reselectable(step) for name, step in state.steps.items()}
    planned = state.shape.steps
    return {
        # A delivery is not what a WaitFor waits for (S31).
        name: _woken(step) if is_over(step) and planned[name].signal is None else step
        for name, step in state.steps.items()
    }


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
    status = SagaStatus.COMPENSATING if state.turned_back or state.undo else SagaStatus.SUSPENDED
    return {"status": status, "is_released": True, "due_at": entry.due_at, "told": entry.told}


def _on_saga_ended(state: State, entry: Any) -> dict[str, Any]:
    steps = {
        name: replace(step, phase=Phase.SKIPPED) if step.phase is Phase.PENDING and state.skipped else step
        for name, step in state.steps.items()
    }
    # What was answered once is never taken back (S15, S32).
    response = state.response or entry.response
    return {"status": entry.status, "response": response, "is_released": True, "steps": steps, "undo": None}


def _on_saga_parked(state: State, entry: Any) -> dict[str, Any]:
    return {"status": SagaStatus.PARKED, "parked": entry, "is_released": True}


def _on_step_skipped(state: State, entry: Any) -> dict[str, Any]:
    steps = _with(state, entry.step, phase=Phase.SKIPPED, finished_at=entry.at)
    return {"steps": steps, "recoveries": 0}


def _on_step_not_selected(state: State, entry: Any) -> dict[str, Any]:
    return {"steps": _with(state, entry.step, is_passed_over=True)}


def _on_step_started(state: State, entry: Any) -> dict[str, Any]:
    change = {
        "phase": Phase.RUNNING,
        "attempts": state.steps[entry.step].attempts + 1,
        "is_unasked": False,
        "answer": None,
        "retry_at": None,
        "due_at": None,
        "signal": None,
        "finished_at": None,
    }
    return _start_step(state, entry, change)


def _start_step(state: State, entry: Any, change: dict[str, Any]) -> dict[str, Any]:
    step, started = state.steps[entry.step], state.started
    if not step.order:
        started += 1
        change["order"] = started
    if not step.started_at:
        change["started_at"] = entry.at
    steps = _with(state, entry.step, **change)
    scope = state.shape.steps[entry.step].scope
    if not scope or scope in state.scopes:
        return {"steps": steps, "started": started}
    return {"steps": steps, "started": started, "scopes": opened(state, scope, entry.at)}


def _on_signal_awaited(state: State, entry: Any) -> dict[str, Any]:
    signal = state.shape.steps[entry.step].signal
    waiting = {"phase": Phase.SUSPENDED, "due_at": entry.due_at, "signal": signal, "error": None}
    change = _start_step(state, entry, waiting)
    return _take_signals(replace(state, **change), change)


def _on_signal_missed(state: State, entry: Any) -> dict[str, Any]:
    planned = state.shape.steps[entry.step]
    missed = ErrorRecord(
        type="saga_engine.errors.SignalTimedOut",
        message=f"the signal {planned.signal!r} did not come within {planned.signal_timeout_s:g} s",
    )
    steps = _with(state, entry.step, phase=Phase.FAILED, error=missed, due_at=None, finished_at=entry.at)
    return {"steps": steps}


def _on_step_completed(state: State, entry: Any) -> dict[str, Any]:
    step = state.steps[entry.step]
    effect = (step.may_have_effect or entry.has_effect) and not _is_read_only(state, entry.step)
    steps = _with(state, entry.step, phase=Phase.COMPLETED, may_have_effect=effect, finished_at=entry.at, error=None)
    return {"steps": steps, "recoveries": 0, **_carry(state, entry)}


def _is_read_only(state: State, step: str) -> bool:
    return state.shape.steps[step].kind is Kind.READ_ONLY


def _on_skip_answered(state: State, entry: Any) -> dict[str, Any]:
    step = state.steps[entry.step]
    phase = Phase.COMPLETED if step.may_have_effect else Phase.SKIPPED
    steps = _with(state, entry.step, phase=phase, finished_at=entry.at, error=None)
    scope = state.shape.steps[entry.step].scope
    if not scope:
        return {"steps": steps, "skipped": entry, **_carry(state, entry)}
    for name in state.shape.members[scope]:  # it ends its branch, or its child saga, only (S21)
        if steps[name].phase is Phase.PENDING:
            steps[name] = replace(steps[name], phase=Phase.SKIPPED, finished_at=entry.at)
    return {"steps": steps, "recoveries": 0, **_carry(state, entry)}


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
        **_carry(state, entry),
    }
    if entry.signal is not None:
        return _take_signals(replace(state, **change), change)
    return change


def _take_signals(state: State, change: dict[str, Any]) -> dict[str, Any]:
    """Hand each kept signal to the step that waits for it; the payload lands in its state (S19, S31)."""
    kept = []
    for signal in state.signals:
        waiting = next((name for name in state.steps if _is_awaited(state, name, signal)), None)
        if waiting is None:
            kept.append(signal)
            continue
        planned = state.shape.steps[waiting]
        woken: dict[str, Any] = {"phase": Phase.WOKEN}
        if planned.signal is not None:
            woken = {"phase": Phase.COMPLETED, "finished_at": state.at, "due_at": None}
            change["recoveries"] = 0
        change["steps"] = _with(state, waiting, **woken)
        change.update(set_key(state, planned.scope, signal.name, signal.payload))
        state = replace(state, **change)
    return {**change, "signals": tuple(kept)}


def _is_awaited(state: State, name: str, signal: SignalReceived) -> bool:
    step = state.steps[name]
    if step.phase is not Phase.SUSPENDED or step.signal != signal.name:
        return False
    # What was sent after the time of a WaitFor came too late, whoever looked first (S31).
    return state.shape.steps[name].signal is None or step.due_at is None or signal.at < step.due_at


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
    return {"steps": steps, **_carry(state, entry)}


def _on_probe_started(state: State, entry: Any) -> dict[str, Any]:
    return {"steps": _with(state, entry.step, is_probing=True)}


def _on_step_probed(state: State, entry: Any) -> dict[str, Any]:
    step = state.steps[entry.step]
    if step.phase not in (Phase.INTERRUPTED, Phase.RETRYING, Phase.FAILED):  # somebody dealt with it meanwhile
        return {"steps": _with(state, entry.step, is_probing=False)}
    change: dict[str, Any] = {"is_probing": False, "answer": entry.answer}
    if entry.answer is ProbeAnswer.NOT_DONE:
        change["may_have_effect"] = False
        if state.turned_back:
            change["phase"] = Phase.FAILED
    if entry.answer is ProbeAnswer.DONE:
        effect = not _is_read_only(state, entry.step)
        change.update(phase=Phase.COMPLETED, may_have_effect=effect, finished_at=entry.at, error=None)
    recoveries = 0 if entry.answer is ProbeAnswer.DONE else state.recoveries
    return {"steps": _with(state, entry.step, **change), "recoveries": recoveries, **_carry(state, entry)}


def _on_compensation_begun(state: State, entry: Any) -> dict[str, Any]:
    return {"turned_back": entry, "status": SagaStatus.COMPENSATING}


def _on_compensation_started(state: State, entry: Any) -> dict[str, Any]:
    step = state.steps[entry.step]
    steps = _with(
        state,
        entry.step,
        phase=Phase.UNDOING,
        undo_of=step.undo_of or undo_of(step.phase),
        undo_attempts=step.undo_attempts + 1,
        undo_started_at=step.undo_started_at or entry.at,
        retry_at=None,
        due_at=None,
    )
    return {"steps": steps}


def undo_of(phase: Phase) -> Literal["completed", "failed", "started"]:
    """Tell what a step in this phase is to its own undo."""
    if phase is Phase.COMPLETED:
        return "completed"
    return "failed" if phase is Phase.FAILED else "started"


def _on_step_compensated(state: State, entry: Any) -> dict[str, Any]:
    step = state.steps[entry.step]
    outcome: dict[str, Any] = {"phase": Phase.UNDONE, "may_have_effect": False}
    if step.late_undone is not None:
        outcome = _failed_again(step.late_undone)
    steps = _with(
        state,
        entry.step,
        **outcome,
        undone=step.undone + 1,
        response=entry.response,
        undo_error=None,
        finished_at=entry.at,
    )
    return {"steps": steps, "recoveries": 0, **_carry(state, entry)}


def _on_compensation_declined(state: State, entry: Any) -> dict[str, Any]:
    if state.steps[entry.step].undo_of == "completed" or state.plan.mode == "select":
        steps = _with(state, entry.step, phase=Phase.UNDO_DECLINED, undo_error=entry.error)
    else:
        late = state.steps[entry.step].late_undone
        outcome: dict[str, Any] = {"phase": Phase.FAILED, "may_have_effect": False}
        # Its key may have reached the other side: another undo, of a late effect, must have another one (J10).
        undone = state.steps[entry.step].undone + 1
        change = outcome if late is None else _failed_again(late)
        steps = _with(state, entry.step, undone=undone, finished_at=entry.at, **change)
    return {"steps": steps, "recoveries": 0, **_carry(state, entry)}


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
    return {"steps": steps, **_carry(state, entry)}


def _on_compensation_suspended(state: State, entry: Any) -> dict[str, Any]:
    change: dict[str, Any] = {"recoveries": 0, "reschedules": state.reschedules + 1, **_carry(state, entry)}
    waiting = {"due_at": entry.due_at, "response": entry.response}
    if _is_not_lost_yet(state, entry):
        waiting |= {"undo_of": None, "undo_failures": 0, "undo_error": None, "undo_started_at": None}
        # The next undo is that of another attempt: the other side must not take it for this one.
        waiting["undo_rounds"] = state.steps[entry.step].undo_rounds + 1
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
        and not is_past_deadline(state)
        # A late effect may call for this undo after others were undone, or after the answer was given (J10).
        and state.response is None
        and not any(s.phase is Phase.UNDONE for s in state.steps.values())
    )


def _on_step_parked(state: State, entry: Any) -> dict[str, Any]:
    step = state.steps[entry.step]
    steps = _with(
        state,
        entry.step,
        phase=Phase.PARKED,
        parked_from=step.phase,
        cause=entry.cause,
        next_action=entry.next_action,
    )
    # What else there is to do has limits of its own.
    return {"steps": steps, "recoveries": 0, "reschedules": 0, "entries_forgiven": state.entries}


def _on_state_saved(state: State, entry: Any) -> dict[str, Any]:
    return _carry(state, entry)


def _on_signal_received(state: State, entry: Any) -> dict[str, Any]:
    if not any(_is_awaited(state, name, entry) for name in state.steps):
        return {"signals": (*state.signals, entry)}  # nor is any of those that are kept
    return _take_signals(replace(state, signals=(*state.signals, entry)), {})


def _on_cancel_requested(state: State, entry: Any) -> dict[str, Any]:
    if state.status.is_ended or state.undo is not None or has_passed_pivot(state):
        return {}
    return {"cancelled": state.cancelled or entry}


def _on_parked_step_resolved(state: State, entry: Any) -> dict[str, Any]:
    step = state.steps.get(entry.step)
    if step is None or step.phase is not Phase.PARKED or state.status.is_ended:
        return {}
    resolution = _resolution(entry, step, state.shape.steps[entry.step])
    return {"steps": _with(state, entry.step, **_UNPARKED, **resolution), **_set_going(state)}


#: What a step loses that is parked no longer.
_UNPARKED: dict[str, Any] = {"cause": None, "next_action": None, "parked_from": None, "failures": 0}


def _set_going(state: State) -> dict[str, Any]:
    """Let a person's word set the execution going again, with its limits counted anew."""
    return {
        "status": SagaStatus.COMPENSATING if state.turned_back else SagaStatus.RUNNING,
        "parked": None,
        "conflict": None,  # it is named again if it is still there
        "is_released": False,
        "recoveries": 0,
        "reschedules": 0,
        "entries_forgiven": state.entries,
    }


def _resolution(entry: ParkedStepResolved, step: StepState, planned: PlanStep) -> dict[str, Any]:
    if entry.outcome == "done":
        has_effect = planned.kind is not Kind.READ_ONLY
        return {"phase": Phase.COMPLETED, "may_have_effect": has_effect, "finished_at": entry.at}
    if entry.outcome == "not_done" and planned.signal is not None:
        return {"phase": Phase.PENDING}
    if entry.outcome == "not_done":
        return {"phase": Phase.INTERRUPTED, "may_have_effect": False, "answer": ProbeAnswer.NOT_DONE}
    undone = step.undone + (1 if step.undo_attempts else 0)  # see _on_compensation_declined
    resolved = {"may_have_effect": False, "undo_error": None, "response": None, "finished_at": entry.at}
    return {"phase": Phase.UNDONE, "undone": undone, **resolved}


def _on_step_resumed(state: State, entry: Any) -> dict[str, Any]:
    step = state.steps.get(entry.step)
    if step is None or step.phase is Phase.UNDOING or state.status.is_ended:
        return {}
    phase = step.parked_from if step.phase is Phase.PARKED and step.parked_from else step.phase
    resumed = _resumed(phase)
    if state.shape.steps[entry.step].signal is not None and not phase.is_over:
        resumed = Phase.PENDING if step.phase is Phase.PARKED else None
    if resumed is None:
        return {}
    change = _set_going(state)
    if state.turned_back is not None:  # its time for compensating begins anew
        change["turned_back"] = replace(state.turned_back, at=entry.at)
    fresh = {"retry_at": entry.at, "undo_failures": 0, "undo_started_at": None, "limit": None}
    steps = _with(state, entry.step, **_UNPARKED, phase=resumed, answer=None, **fresh)
    return {**change, "steps": steps}


def _resumed(phase: Phase) -> Phase | None:
    """Tell in which phase a step goes on that a person resumes; None: there is nothing to resume."""
    if phase in (Phase.FAILED, Phase.INTERRUPTED, Phase.RETRYING):
        return Phase.RETRYING
    if phase in (Phase.SUSPENDED, Phase.WOKEN):
        return Phase.WOKEN
    if phase in (Phase.PENDING, Phase.COMPLETED, Phase.SKIPPED):
        return phase
    return Phase.UNDO_RETRYING if phase in UNDO_UNDER_WAY else None


def _on_step_skipped_by_hand(state: State, entry: Any) -> dict[str, Any]:
    step = state.steps.get(entry.step)
    is_too_late = state.status.is_ended or state.turned_back is not None
    if step is None or is_too_late or step.phase.is_over or step.phase is Phase.RUNNING or step.is_probing:
        return {}
    if not all(state.steps[need].phase.is_over for need in state.shape.steps[entry.step].needs):
        return {}  # what follows it would start before what is ahead of it is over
    # What may be there must still be undone if the saga turns back later.
    phase = Phase.COMPLETED if step.may_have_effect else Phase.SKIPPED
    steps = _with(
        state, entry.step, **_UNPARKED, phase=phase, error=None, due_at=None, signal=None, finished_at=entry.at
    )
    change = {"steps": steps, **_set_going(state)}
    scope = state.shape.steps[entry.step].scope
    data = patched(documents_at(state, scope)[1], entry.changes)
    return {**change, **carried(state, scope, None, data)}


def _on_state_edited(state: State, entry: Any) -> dict[str, Any]:
    return {**edited(state, entry.changes, entry.removed), "conflict": None}


def _on_undo_ordered(state: State, entry: Any) -> dict[str, Any]:
    if state.status is not SagaStatus.COMPLETED or state.plan.mode == "select":
        return {}
    return {**_set_going(state), "undo": entry, "status": SagaStatus.COMPENSATING}


def _on_exclusive_denied(state: State, entry: Any) -> dict[str, Any]:
    # Waiting for the right is nothing that goes on without an end: somebody else does.
    return {"denied_by": entry.by, "entries_forgiven": state.entries}


def _on_late_effect_found(state: State, entry: Any) -> dict[str, Any]:
    """Take in an effect that came about after its attempt was given up (J10)."""
    step = state.steps.get(entry.step)
    if step is None or step.phase is Phase.COMPLETED or _is_read_only(state, entry.step):
        return {}  # completed under the same key, it is the same effect
    if step.phase is Phase.SKIPPED:
        return {"steps": _with(state, entry.step, phase=Phase.COMPLETED, may_have_effect=True)}
    if step.phase in UNDO_UNDER_WAY or (step.phase is Phase.PARKED and step.undo_of is not None):
        # The undo under way may have looked before the effect was there: it will be undone once more.
        return {"steps": _with(state, entry.step, late_undone=entry.undone)}
    change: dict[str, Any] = {"may_have_effect": True, "answer": None, "effect_undone": entry.undone}
    if step.phase is Phase.UNDONE:
        change = _failed_again(entry.undone)
    # Only what turned back has an end that such an effect makes untrue.
    is_reopened = state.status.is_ended and state.turned_back is not None
    return {**(_set_going(state) if is_reopened else {}), "steps": _with(state, entry.step, **change)}


def _failed_again(effect_undone: int) -> dict[str, Any]:
    """Tell how a step stands whose undo is over, and which has yet another effect to be undone."""
    return {
        "phase": Phase.FAILED,
        "may_have_effect": True,
        "answer": None,
        "undo_of": None,
        "undo_failures": 0,
        "undo_started_at": None,
        "late_undone": None,
        "effect_undone": effect_undone,
    }


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
    SignalAwaited: _on_signal_awaited,
    SignalMissed: _on_signal_missed,
    ExclusiveDenied: _on_exclusive_denied,
    StepResumed: _on_step_resumed,
    StepSkippedByHand: _on_step_skipped_by_hand,
    StateEdited: _on_state_edited,
    UndoOrdered: _on_undo_ordered,
    LateEffectFound: _on_late_effect_found,
}
