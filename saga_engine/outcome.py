"""What user code gave, as entries: the one place where responses are checked and tenacity strategies evaluated."""

from __future__ import annotations

import time
from typing import Any, Literal, TypedDict

from connect.eaas.core.responses import BackgroundResponse
from msgspec import Raw
from tenacity import RetryCallState, Retrying, TryAgain

from saga_engine.calls import Call, Result
from saga_engine.decider import Action, Ask, Compensate, Execute, State
from saga_engine.errors import BadDefinition, InvalidResponse, StepRefused
from saga_engine.journal import (
    CompensationDeclined,
    CompensationFailed,
    CompensationSuspended,
    Entry,
    ErrorRecord,
    SkipAnswered,
    StepCompensated,
    StepCompleted,
    StepFailed,
    StepNotSelected,
    StepProbed,
    StepSkipped,
    StepStarted,
    StepSuspended,
)
from saga_engine.record import from_response
from saga_engine.recorded import record_error
from transactions import Probe, RetryPolicy, Suspend

__all__ = ["Carried", "entry_of"]


class Carried(TypedDict, total=False):
    """What a call changed of the two documents that every outcome carries (S18)."""

    state: Raw
    request: Raw


def entry_of(state: State, action: Action, call: Call, result: Result, now: float, carried: Carried) -> Entry:
    """Turn the result of an action into the entry that records it.

    Args:
        state: the execution as it was when the action was decided.
        action: what was done.
        call: how it was called.
        result: what it gave.
        now: Unix seconds.
        carried: `state` and `request` as far as the call changed them.
    """
    if isinstance(action, Ask):
        return _asked(state, action, call, result, now)
    if isinstance(action, Execute):
        return _executed(state, call, result, now, carried)
    if isinstance(action, Compensate):
        return _compensated(state, action, call, result, now, carried)
    return _probed(call, result, now, carried)


def _asked(state: State, action: Ask, call: Call, result: Result, now: float) -> Entry:
    name, step = action.step, state.steps[action.step]
    if result.error is not None:
        error, retry_at = _failure(state, call, result.error, now, call.step.retry)
        return StepFailed(at=now, step=name, error=error, effect="none", retry_at=retry_at, is_unasked=True)
    if result.value:
        return StepStarted(at=now, step=name, attempt=step.attempts + 1)
    if state.plan.mode == "select":
        return StepNotSelected(at=now, step=name)
    return StepCompleted(at=now, step=name) if step.order else StepSkipped(at=now, step=name)


def _executed(state: State, call: Call, result: Result, now: float, carried: Carried) -> Entry:
    name, value = call.step.name, result.value
    error = result.error or _refuse_nonsense(value, call, may_suspend=True)
    if error is not None:
        record, retry_at = _failure(state, call, error, now, call.step.retry)
        effect: Literal["unknown", "none"] = "unknown" if result.is_reached else "none"
        return StepFailed(
            at=now, step=name, error=record, effect=effect, retry_at=retry_at,
            is_abandoned=result.is_abandoned, **carried,
        )  # fmt: skip
    if isinstance(value, Suspend):
        due_at = None if value.timeout_s is None else now + value.timeout_s
        return StepSuspended(
            at=now, step=name, response=from_response(value.response), due_at=due_at, signal=value.signal,
            has_effect=result.is_reached, **carried,
        )  # fmt: skip
    response = from_response(value)
    if response.status == "success":
        return StepCompleted(at=now, step=name, has_effect=result.is_reached, **carried)
    if response.status == "skip":
        return SkipAnswered(at=now, step=name, response=response, **carried)
    if response.status == "reschedule":
        return StepSuspended(
            at=now, step=name, response=response, due_at=now + (response.countdown_s or 0.0),
            has_effect=result.is_reached, **carried,
        )  # fmt: skip
    return _refused(state, call, StepRefused(response.output), now, carried)


def _refused(state: State, call: Call, refusal: StepRefused, now: float, carried: Carried) -> Entry:
    """Record a `fail`: the last word of a step, save of one that must succeed in the end (S8, S20)."""
    name, retry_at = call.step.name, None
    record = record_error(refusal)
    if state.shape.keeps_trying(name):
        record, retry_at = _failure(state, call, refusal, now, call.step.retry)
    return StepFailed(at=now, step=name, error=record, effect="none", retry_at=retry_at, is_refusal=True, **carried)


def _probed(call: Call, result: Result, now: float, carried: Carried) -> Entry:
    error = result.error
    if error is None and not isinstance(result.value, Probe):
        error = InvalidResponse(
            f"{call.step.name}: probe returned {result.value!r}: return Probe.DONE, Probe.NOT_DONE or Probe.UNKNOWN"
        )
    if error is not None:
        return StepProbed(at=now, step=call.step.name, answer=Probe.UNKNOWN, error=record_error(error), **carried)
    return StepProbed(at=now, step=call.step.name, answer=result.value, **carried)


def _compensated(state: State, action: Compensate, call: Call, result: Result, now: float, carried: Carried) -> Entry:
    name, value = action.step, result.value
    error = result.error or _refuse_nonsense(value, call, may_suspend=False)
    if error is not None and (action.is_final or error is call.arguments[1]):
        return CompensationDeclined(at=now, step=name, error=record_error(error), **carried)
    if error is None and value.status == "fail" and action.of_completed:
        error = StepRefused(value.output)
    if error is not None:
        record, retry_at = _failure(state, call, error, now, call.step.compensation_retry)
        return CompensationFailed(at=now, step=name, error=record, retry_at=retry_at, **carried)
    response = from_response(value)
    if response.status == "reschedule":
        due_at = now + (response.countdown_s or 0.0)
        return CompensationSuspended(at=now, step=name, response=response, due_at=due_at, **carried)
    return StepCompensated(at=now, step=name, response=response, **carried)


_STATUSES = ("success", "fail", "skip", "reschedule")


def _refuse_nonsense(value: Any, call: Call, may_suspend: bool) -> InvalidResponse | None:
    """Give an error for what is no response; it is then treated as if the step had raised it."""
    if isinstance(value, Suspend) and may_suspend:
        return None
    if not isinstance(value, BackgroundResponse):
        wanted = "a BackgroundResponse such as BackgroundResponse.done()"
        return InvalidResponse(f"{_where(call, value)}: return {wanted}{', or Suspend(...)' if may_suspend else ''}")
    if value.status not in _STATUSES:
        return InvalidResponse(
            f"{_where(call, value)} with status {value.status!r}: use done, fail, skip or reschedule"
        )
    if value.status == "reschedule" and not _is_time(_as_number(value.countdown)):
        return InvalidResponse(f"{_where(call, value)} with countdown {value.countdown!r}: give a number of seconds")
    return None


def _as_number(countdown: Any) -> Any:
    """Give the number that a text means: the variables of a Connect extension are all texts."""
    try:
        return float(countdown) if isinstance(countdown, str) else countdown
    except ValueError:
        return None


def _where(call: Call, value: Any) -> str:
    try:
        shown = repr(value)
    except Exception:  # a user's __repr__ must not cost us the outcome
        shown = f"a {type(value).__name__}"
    return f"{call.step.name}: {call.operation} returned {shown}"


#: No wait is longer: a hundred years, in seconds.
_WAIT_S_MAX = 3_155_760_000


def _is_time(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= _WAIT_S_MAX


def _failure(
    state: State, call: Call, error: Exception, now: float, policy: RetryPolicy
) -> tuple[ErrorRecord, float | None]:
    """Describe a failed attempt and tell when to attempt again (Unix seconds; None: give up).

    The strategies see a `RetryCallState` as tenacity would have built it, had the process never died (S9). A
    strategy that raises takes the place of the failure, and nothing is attempted again: the outcome of the
    attempt must be journaled whatever the strategy does.
    """
    step = state.steps[call.step.name]
    is_undo = call.operation == "compensate"
    attempt = (step.undo_failures if is_undo else step.failures) + 1
    began_at = (step.undo_started_at if is_undo else step.started_at) or now
    try:
        return record_error(error), _retry_at(policy, call, error, now, attempt, began_at)
    except Exception as broken:
        wrong = BadDefinition(
            f"the RetryPolicy of {call.step.name!r} raised {type(broken).__name__}: {broken}: correct the strategy"
        )
        wrong.__cause__, broken.__context__ = broken, error
        return record_error(wrong), None


def _retry_at(
    policy: RetryPolicy, call: Call, error: Exception, now: float, attempt: int, began_at: float
) -> float | None:
    function = getattr(call.step.transaction, call.operation)
    retrying = Retrying(stop=policy.stop, wait=policy.wait, retry=policy.retry)
    call_state = RetryCallState(retrying, function, call.arguments, {})
    call_state.attempt_number = attempt
    call_state.set_exception((type(error), error, error.__traceback__))
    call_state.start_time = time.monotonic() - max(0.0, now - began_at)
    if not isinstance(error, TryAgain) and not policy.retry(call_state):
        return None
    wait_s = policy.wait(call_state)
    if not _is_time(wait_s):
        raise BadDefinition(f"wait gave {wait_s!r}: give a number of seconds of at least 0")
    call_state.upcoming_sleep = wait_s
    return None if policy.stop(call_state) else now + wait_s
