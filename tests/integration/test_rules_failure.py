"""Rules S8 to S12: what happens when a step fails, and when its undo does."""

from __future__ import annotations

from typing import Any

import pytest
from connect.eaas.core.responses import BackgroundResponse
from sagas import DONE, SAGA_ID, Crash, Mortal, remember, reraise, saga_of, statuses
from tenacity import (
    retry_if_exception_type,
    stop_after_attempt,
    stop_after_delay,
    wait_exponential,
    wait_fixed,
    wait_incrementing,
)

from saga_engine import SagaStatus, current_context
from saga_engine.errors import DeadlineExceeded, SagaCancelled, StepRefused
from saga_engine.journal import CompensationFailed, ProbeStarted, StepCompensated, StepFailed
from transactions import Kind, Probe, RetryPolicy

LATER = BackgroundResponse.reschedule(60)
NOT_LOST_YET = BackgroundResponse.slow_process_reschedule(300)
NO = ValueError("no")
BROKEN = RuntimeError("vendor down")


def retry(attempts: int, wait_s: float = 5) -> RetryPolicy:
    """Retry at fixed intervals up to so many attempts."""
    return RetryPolicy(stop=stop_after_attempt(attempts), wait=wait_fixed(wait_s))


def parked_at(step: str, cause: str) -> str:
    """Give the text that a parked execution answers."""
    return f"parked at {step}: {cause}; see: saga show {SAGA_ID}"


# --- S8: a step refuses -------------------------------------------------------------------------------------------


def test_S08_fail_undoes_the_earlier_steps_in_reverse_but_not_the_step_itself(engine, resolve, world):
    failing = world.step("d", BackgroundResponse.fail("out of stock"), undo=ValueError("nothing to undo"))
    saga = saga_of(world.step("a"), world.step("b"), world.step("c"), failing, world.step("e"))
    for _ in range(2):
        response = resolve(saga)
        assert (response.status, response.output) == ("fail", "out of stock")
    assert world.executed == ["a", "b", "c", "d"]
    assert world.undone == ["c", "b", "a"]
    record = engine.get(SAGA_ID)
    assert record.status is SagaStatus.COMPENSATED
    assert list(statuses(record).values()) == ["COMPENSATED"] * 3 + ["FAILED", "PENDING"]


def test_S08_what_is_undone_is_told_the_refusal(resolve, world):
    resolve(saga_of(world.step("a"), world.step("b", BackgroundResponse.fail("out of stock"))))
    (undone,) = world.of("a", "compensate")
    assert isinstance(undone.error, StepRefused)
    assert undone.error.output == "out of stock"


def test_S08_fail_is_neither_retried_nor_probed(resolve, world):
    step = world.step("a", BackgroundResponse.fail("no"), retry=retry(3), probe=Probe.DONE)
    assert resolve(saga_of(step)).output == "no"
    assert world.trace() == ["execute a"]


def test_S08_a_step_that_waited_and_then_fails_says_that_nothing_is_left(resolve, world):
    saga = saga_of(world.step("a"), world.step("b", LATER, BackgroundResponse.fail("no")))
    resolve(saga)
    assert resolve(saga).output == "no"
    assert world.undone == ["a"]


def test_S08_skipped_and_read_only_steps_are_not_undone(resolve, world):
    saga = saga_of(
        world.step("a"),
        world.step("skipped", wanted=False),
        world.step("read", kind=Kind.READ_ONLY),
        world.step("failing", BackgroundResponse.fail("no")),
    )
    resolve(saga)
    assert world.undone == ["a"]


def test_S08_a_crash_after_a_refusal_does_not_undo_the_step_that_refused(journal, new_engine, resolve, world):
    process = Mortal(journal, dies_after=StepFailed)
    saga = saga_of(world.step("a"), world.step("b", BackgroundResponse.fail("no")))
    with pytest.raises(Crash):
        resolve(saga, on=new_engine(process))
    assert resolve(saga).output == "no"
    assert world.undone == ["a"]


# --- S9: a step raises --------------------------------------------------------------------------------------------


def test_S09_an_exception_undoes_the_failing_step_first_and_then_the_earlier_ones_in_reverse(engine, resolve, world):
    saga = saga_of(world.step("a"), world.step("b"), world.step("c", NO), world.step("d"))
    response = resolve(saga)
    assert (response.status, response.output) == ("fail", "no")
    assert world.executed == ["a", "b", "c"]
    assert world.undone == ["c", "b", "a"]
    assert all(call.error is NO for call in world.calls if call.operation == "compensate")
    assert engine.get(SAGA_ID).status is SagaStatus.COMPENSATED


def test_S09_without_a_policy_there_is_one_attempt(resolve, world):
    resolve(saga_of(world.step("a", NO, DONE)))
    assert world.executed == ["a"]


def test_S09_retries_follow_the_policy_and_wait_in_the_process_within_the_budget(engine, resolve, world, clock):
    policy = RetryPolicy(stop=stop_after_attempt(4), wait=wait_exponential(multiplier=1, min=1, max=60))
    saga = saga_of(world.step("a"), world.step("b", NO, NO, NO, DONE, retry=policy), world.step("c"))
    assert resolve(saga).status == "success"
    assert world.executed == ["a", "b", "b", "b", "b", "c"]
    assert [call.attempt for call in world.of("b")] == [1, 2, 3, 4]
    assert len({call.key for call in world.of("b")}) == 1
    assert clock.slept_s == [1, 2, 4]
    assert engine.get(SAGA_ID).steps[1].attempts == 4


def test_S09_given_up_after_its_attempts_the_step_is_undone_once_with_the_last_error(resolve, world):
    errors = [ValueError("1"), ValueError("2"), ValueError("3")]
    assert resolve(saga_of(world.step("a"), world.step("b", *errors, retry=retry(3)))).output == "3"
    assert world.undone == ["b", "a"]
    assert world.of("b", "compensate")[0].error is errors[2]


def test_S09_a_failure_that_the_policy_does_not_retry_gives_up_at_once(resolve, world):
    policy = RetryPolicy(stop=stop_after_attempt(5), retry=retry_if_exception_type(ConnectionError))
    assert resolve(saga_of(world.step("a", ConnectionError("x"), NO, DONE, retry=policy))).output == "no"
    assert world.executed == ["a", "a"]


def test_S09_a_retriable_step_without_a_policy_is_kept_trying_until_it_succeeds(engine, resolve, world, clock):
    saga = saga_of(world.step("a", *[NO] * 30, DONE, kind=Kind.RETRIABLE))
    for _ in range(31):
        resolve(saga)
        clock.advance(3_600)
    assert engine.get(SAGA_ID).status is SagaStatus.COMPLETED
    assert [call.attempt for call in world.of("a")] == list(range(1, 32))
    assert world.undone == []


def test_S09_a_wait_longer_than_the_budget_suspends_and_a_delivery_does_not_shorten_it(engine, resolve, world, clock):
    saga = saga_of(world.step("a", NO, DONE, retry=retry(3, wait_s=1_000)))
    response = resolve(saga)
    assert (response.status, response.countdown) == ("reschedule", 1_000)
    record = engine.get(SAGA_ID)
    assert (record.status, record.next_due_at) == (SagaStatus.SUSPENDED, clock.now() + 1_000)
    clock.advance(400)
    assert resolve(saga).countdown == 600
    assert world.executed == ["a"]
    clock.advance(600)
    assert resolve(saga).status == "success"
    assert [call.attempt for call in world.of("a")] == [1, 2]
    assert clock.slept_s == []


def test_S09_waits_that_add_up_to_more_than_the_budget_suspend(new_engine, resolve, world, clock):
    saga = saga_of(world.step("a", NO, NO, NO, DONE, retry=retry(9, wait_s=100)))
    assert resolve(saga, on=new_engine(budget_s=240)).countdown == 100
    assert clock.slept_s == [100, 100]
    clock.advance(100)
    assert resolve(saga).status == "success"


def test_S09_a_suspended_retry_goes_on_without_a_delivery_when_it_is_due(new_engine, resolve, world, clock):
    saga = saga_of(world.step("a", NO, DONE, retry=retry(3, wait_s=1_000)))
    worker = new_engine(sagas=[saga])
    resolve(saga)
    clock.advance(999)
    assert worker.recover() == 0
    clock.advance(1)
    assert worker.recover() == 1
    assert worker.get(SAGA_ID).status is SagaStatus.COMPLETED


def test_S09_attempts_are_remembered_across_a_suspension(resolve, world, clock):
    saga = saga_of(world.step("a", NO, retry=retry(3, wait_s=1_000)))
    for _ in range(3):
        response = resolve(saga)
        clock.advance(1_000)
    assert (response.status, response.output) == ("fail", "no")
    assert world.executed == ["a"] * 3


def test_S09_failed_attempts_survive_a_crash(journal, new_engine, resolve, world):
    process = Mortal(journal, dies_after=StepFailed)
    saga = saga_of(world.step("a", NO, retry=retry(3)))
    with pytest.raises(Crash):
        resolve(saga, on=new_engine(process))
    assert resolve(saga).output == "no"
    assert [call.attempt for call in world.of("a")] == [1, 2, 3]


def test_S09_an_attempt_that_a_crash_interrupted_counts(journal, new_engine, resolve, world):
    process = Mortal(journal)
    saga = saga_of(world.step("a", NO, process.die, NO, DONE, retry=retry(3)))
    with pytest.raises(Crash):
        resolve(saga, on=new_engine(process))
    assert resolve(saga).output == "no"
    assert [call.attempt for call in world.of("a")] == [1, 2, 3]
    assert world.undone == ["a"]


def test_S09_strategies_see_how_many_attempts_failed_and_how_long_it_took_across_a_crash(
    journal, new_engine, resolve, world, clock
):
    policy = RetryPolicy(stop=stop_after_delay(2_000), wait=wait_incrementing(start=1_000, increment=500))
    process = Mortal(journal, dies_after=StepFailed)
    saga = saga_of(world.step("a", NO, retry=policy))
    with pytest.raises(Crash):
        resolve(saga, on=new_engine(process))
    assert resolve(saga).countdown == 1_000
    clock.advance(1_000)
    assert resolve(saga).countdown == 1_500
    clock.advance(1_500)
    assert resolve(saga).output == "no"
    assert len(world.executed) == 3


# --- S9: probes ---


def test_S09_a_probe_is_asked_before_a_retry_and_done_completes_the_step(engine, resolve, world):
    b = world.step("b", NO, retry=retry(3), probe=remember(Probe.DONE, subscription="S-1"))
    assert resolve(saga_of(world.step("a"), b, world.step("c"))).status == "success"
    assert world.trace() == ["execute a", "execute b", "probe b", "execute c"]
    assert world.of("c")[0].state == {"subscription": "S-1"}
    assert statuses(engine.get(SAGA_ID))["b"] == "COMPLETED"


@pytest.mark.parametrize("answer", [Probe.NOT_DONE, Probe.UNKNOWN, ValueError("the probe failed"), None, True])
def test_S09_a_probe_that_does_not_say_done_lets_the_retry_go_on(resolve, world, answer):
    step = world.step("a", NO, NO, DONE, retry=retry(3), probe=[answer] if answer else lambda request: answer)
    assert resolve(saga_of(step)).status == "success"
    assert world.trace() == ["execute a", "probe a", "execute a", "probe a", "execute a"]


def test_S09_a_probe_has_the_key_and_the_state_of_the_attempt_it_asks_about(resolve, world):
    step = world.step("a", remember(NO, sent=True), probe=Probe.DONE)
    assert resolve(saga_of(step)).status == "success"
    (probe,) = world.of("a", "probe")
    assert probe.key == world.of("a")[0].key
    assert probe.state == {"sent": True}


def test_S09_a_probe_at_give_up_that_says_done_goes_forward(engine, resolve, world):
    saga = saga_of(world.step("a"), world.step("b", NO, probe=Probe.DONE), world.step("c"))
    assert resolve(saga).status == "success"
    assert world.trace() == ["execute a", "execute b", "probe b", "execute c"]
    assert engine.get(SAGA_ID).error is None


def test_S09_a_step_that_a_probe_found_done_is_undone_like_any_completed_one(resolve, world):
    saga = saga_of(world.step("a", NO, probe=Probe.DONE), world.step("b", ValueError("later")))
    assert resolve(saga).output == "later"
    assert world.undone == ["b", "a"]


def test_S09_a_read_only_step_that_a_probe_found_done_after_a_crash_has_nothing_to_undo(
    engine, journal, new_engine, resolve, world
):
    process = Mortal(journal)
    read = world.step("read", process.die, probe=Probe.DONE, kind=Kind.READ_ONLY, undo=None)
    saga = saga_of(world.step("a"), read, world.step("b", NO))
    with pytest.raises(Crash):
        resolve(saga, on=new_engine(process))
    assert resolve(saga).output == "no"
    assert world.probed == ["read"]
    assert world.undone == ["b", "a"]
    assert engine.get(SAGA_ID).status is SagaStatus.COMPENSATED


def test_S09_a_probe_at_give_up_that_says_not_done_leaves_only_the_earlier_steps_to_undo(engine, resolve, world):
    saga = saga_of(world.step("a"), world.step("b", NO, probe=Probe.NOT_DONE))
    assert resolve(saga).output == "no"
    assert world.trace() == ["execute a", "execute b", "probe b", "compensate a"]
    assert statuses(engine.get(SAGA_ID)) == {"a": "COMPENSATED", "b": "FAILED"}


@pytest.mark.parametrize("answer", [Probe.UNKNOWN, ValueError("the probe failed")])
def test_S09_a_probe_at_give_up_that_cannot_tell_lets_the_step_be_undone(resolve, world, answer):
    saga = saga_of(world.step("a"), world.step("b", NO, probe=answer))
    assert resolve(saga).output == "no"
    assert world.trace() == ["execute a", "execute b", "probe b", "compensate b", "compensate a"]
    assert world.of("b", "compensate")[0].error is NO


def test_S09_not_done_speaks_of_the_last_attempt_only_as_long_as_there_is_no_other(resolve, world):
    step = world.step("a", NO, retry=retry(2), probe=[Probe.NOT_DONE, Probe.UNKNOWN])
    resolve(saga_of(step))
    assert world.trace() == ["execute a", "probe a", "execute a", "probe a", "compensate a"]


def test_S09_after_a_crash_the_interrupted_step_is_probed_first(journal, new_engine, resolve, world):
    process = Mortal(journal)
    saga = saga_of(world.step("a"), world.step("b", process.die, DONE, probe=Probe.DONE), world.step("c"))
    with pytest.raises(Crash):
        resolve(saga, on=new_engine(process))
    assert resolve(saga).status == "success"
    assert world.trace() == ["execute a", "execute b", "probe b", "execute c"]


@pytest.mark.parametrize("answer", [Probe.NOT_DONE, Probe.UNKNOWN])
def test_S09_after_a_crash_a_step_that_is_not_known_to_be_done_runs_again(journal, new_engine, resolve, world, answer):
    process = Mortal(journal)
    saga = saga_of(world.step("a", process.die, DONE, probe=answer))
    with pytest.raises(Crash):
        resolve(saga, on=new_engine(process))
    assert resolve(saga).status == "success"
    assert world.trace() == ["execute a", "probe a", "execute a"]


def test_S09_a_probe_that_a_crash_interrupted_is_asked_again(journal, new_engine, resolve, world):
    process = Mortal(journal)
    saga = saga_of(world.step("a", NO, probe=[process.die, Probe.DONE]))
    with pytest.raises(Crash):
        resolve(saga, on=new_engine(process))
    assert resolve(saga).status == "success"
    assert world.trace() == ["execute a", "probe a", "probe a"]


def test_S09_a_crash_just_before_the_probe_does_not_lose_it(journal, new_engine, resolve, world):
    process = Mortal(journal, dies_before=ProbeStarted)
    saga = saga_of(world.step("a", NO, probe=Probe.DONE))
    with pytest.raises(Crash):
        resolve(saga, on=new_engine(process))
    assert resolve(saga).status == "success"


def test_S09_state_of_failed_attempts_reaches_the_next_attempt_and_the_undo_also_after_a_crash(
    engine, journal, new_engine, resolve, world
):
    process = Mortal(journal, dies_after=(StepFailed, "b"))
    b = world.step("b", remember(NO, first=1), remember(NO, second=2), retry=retry(2))
    saga = saga_of(world.step("a", undo=remember(DONE, undone=True)), b)
    with pytest.raises(Crash):
        resolve(saga, on=new_engine(process))
    resolve(saga)
    assert [call.state for call in world.of("b")] == [{}, {"first": 1}]
    assert world.of("b", "compensate")[0].state == {"first": 1, "second": 2}
    assert world.of("a", "compensate")[0].state == {"first": 1, "second": 2}
    assert engine.get(SAGA_ID).state == {"first": 1, "second": 2, "undone": True}


def test_S09_the_undo_goes_on_where_a_crash_interrupted_it(journal, new_engine, resolve, world):
    process = Mortal(journal, dies_after=(StepCompensated, "b"))
    saga = saga_of(world.step("a"), world.step("b"), world.step("c", NO))
    with pytest.raises(Crash):
        resolve(saga, on=new_engine(process))
    response = resolve(saga)
    assert (response.status, response.output) == ("fail", "no")
    assert world.executed == ["a", "b", "c"]
    assert world.undone == ["c", "b", "a"]
    error = world.of("a", "compensate")[0].error
    assert (type(error), error.args) == (ValueError, ("no",))


def test_S09_a_read_only_step_that_fails_is_not_undone(resolve, world):
    resolve(saga_of(world.step("a"), world.step("read", NO, kind=Kind.READ_ONLY)))
    assert world.undone == ["a"]


# --- S10: not lost yet --------------------------------------------------------------------------------------------


def test_S10_a_failing_step_whose_undo_asks_for_time_is_suspended_and_runs_again(engine, resolve, world, clock):
    b = world.step("b", NO, NO, DONE, undo=NOT_LOST_YET)
    saga = saga_of(world.step("a"), b, world.step("c"))
    for _ in range(2):
        response = resolve(saga)
        assert (response.status, response.countdown) == ("reschedule", 300)
        record = engine.get(SAGA_ID)
        assert (record.status, record.next_due_at) == (SagaStatus.SUSPENDED, clock.now() + 300)
        assert statuses(record) == {"a": "COMPLETED", "b": "SUSPENDED", "c": "PENDING"}
    assert resolve(saga).status == "success"
    assert world.trace() == [
        "execute a", "execute b", "compensate b", "execute b", "compensate b", "execute b", "execute c",
    ]  # fmt: skip
    assert [call.attempt for call in world.of("b")] == [1, 2, 3]


def test_S10_it_goes_on_by_itself_when_it_is_due(new_engine, resolve, world, clock):
    saga = saga_of(world.step("a", NO, DONE, undo=NOT_LOST_YET))
    worker = new_engine(sagas=[saga])
    resolve(saga)
    clock.advance(299)
    assert worker.recover() == 0
    clock.advance(1)
    assert worker.recover() == 1
    assert worker.get(SAGA_ID).status is SagaStatus.COMPLETED


def test_S10_the_same_key_is_used_again_because_nothing_was_undone(resolve, world):
    saga = saga_of(world.step("a", NO, DONE, undo=NOT_LOST_YET))
    resolve(saga)
    resolve(saga)
    first, second = world.of("a")
    assert first.key == second.key


def test_S10_attempts_are_not_reset(resolve, world):
    saga = saga_of(world.step("a", NO, undo=[NOT_LOST_YET, NOT_LOST_YET, DONE], retry=retry(2)))
    assert resolve(saga).status == "reschedule"
    assert resolve(saga).status == "reschedule"
    assert resolve(saga).output == "no"
    assert world.trace() == ["execute a"] + ["execute a", "compensate a"] * 3
    assert [call.attempt for call in world.of("a")] == [1, 2, 3, 4]


def test_S10_state_is_kept_by_the_failed_attempt_and_by_the_undo(resolve, world):
    a = world.step("a", remember(NO, tried=1), DONE, undo=remember(NOT_LOST_YET, asked=1))
    saga = saga_of(a)
    resolve(saga)
    resolve(saga)
    assert world.of("a")[1].state == {"tried": 1, "asked": 1}


def test_S10_it_survives_a_crash(journal, new_engine, resolve, world):
    process = Mortal(journal)
    saga = saga_of(world.step("a"), world.step("b", NO, process.die, DONE, undo=NOT_LOST_YET))
    engine = new_engine(process)
    assert resolve(saga, on=engine).status == "reschedule"
    with pytest.raises(Crash):
        resolve(saga, on=engine)
    assert resolve(saga).status == "success"
    assert world.executed == ["a", "b", "b", "b"]
    assert world.undone == ["b"]


def test_S10_a_refusal_after_it_undoes_the_earlier_steps_only(resolve, world):
    b = world.step("b", NO, BackgroundResponse.fail("refused"), undo=NOT_LOST_YET)
    saga = saga_of(world.step("a"), b)
    resolve(saga)
    assert resolve(saga).output == "refused"
    assert world.undone == ["b", "a"]


def test_S10_a_step_that_was_not_lost_and_completed_is_undone_like_any_other(resolve, world):
    a = world.step("a", NO, DONE, undo=[NOT_LOST_YET, DONE])
    saga = saga_of(a, world.step("b", ValueError("later")))
    resolve(saga)
    assert resolve(saga).output == "later"
    assert world.undone == ["a", "b", "a"]


def test_S10_no_undo_of_a_step_that_was_not_lost_and_completed_parks(engine, resolve, world):
    a = world.step("a", NO, DONE, undo=[NOT_LOST_YET, reraise])
    saga = saga_of(a, world.step("b", ValueError("later")))
    resolve(saga)
    assert resolve(saga).output == parked_at("a", "no undo")


def test_S10_it_ends_at_reschedules_max(engine, resolve, world):
    saga = saga_of(world.step("a"), world.step("b", NO, undo=NOT_LOST_YET), reschedules_max=2)
    answers = [resolve(saga) for _ in range(4)]
    assert [answer.status for answer in answers] == ["reschedule", "reschedule", "fail", "fail"]
    assert answers[-1].output == parked_at("b", "reschedules_max (2) reached")
    assert len(world.of("b")) == 3
    assert world.undone == ["b"] * 3
    record = engine.get(SAGA_ID)
    assert record.status is SagaStatus.PARKED
    assert record.steps[1].next_action


def test_S10_it_ends_at_the_deadline_and_everything_is_undone(engine, resolve, world, clock):
    b = world.step("b", NO, undo=[NOT_LOST_YET, NOT_LOST_YET, DONE])
    saga = saga_of(world.step("a"), b, deadline_s=400)
    assert resolve(saga).status == "reschedule"
    clock.advance(300)
    assert resolve(saga).status == "reschedule"
    assert engine.get(SAGA_ID).next_due_at == clock.now() + 100
    clock.advance(100)
    assert resolve(saga).status == "fail"
    assert world.executed == ["a", "b", "b"]
    assert world.undone == ["b", "b", "b", "a"]
    assert isinstance(world.of("a", "compensate")[0].error, DeadlineExceeded)
    assert engine.get(SAGA_ID).status is SagaStatus.COMPENSATED


def test_S10_the_deadline_ends_it_without_a_delivery(new_engine, resolve, world, clock):
    saga = saga_of(world.step("a"), world.step("b", NO, undo=[NOT_LOST_YET, DONE]), deadline_s=200)
    worker = new_engine(sagas=[saga])
    resolve(saga)
    clock.advance(200)
    assert worker.recover() == 1
    assert worker.get(SAGA_ID).status is SagaStatus.COMPENSATED
    assert world.undone == ["b", "b", "a"]


def test_S10_at_the_deadline_a_step_that_was_not_lost_may_say_that_there_is_nothing_to_undo(
    engine, resolve, world, clock
):
    saga = saga_of(world.step("a"), world.step("b", NO, undo=[NOT_LOST_YET, reraise]), deadline_s=200)
    resolve(saga)
    clock.advance(200)
    assert resolve(saga).status == "fail"
    assert engine.get(SAGA_ID).status is SagaStatus.COMPENSATED
    assert world.undone == ["b", "b", "a"]


def test_S10_with_a_cancellation_pending_the_undo_is_suspended_instead(new_engine, resolve, world, clock):
    def cancel(request):
        engine.cancel(SAGA_ID, "not needed")
        return NO

    saga = saga_of(world.step("a"), world.step("b", cancel, undo=[NOT_LOST_YET, DONE]))
    engine = new_engine(sagas=[saga])
    response = resolve(saga, on=engine)
    assert (response.status, response.countdown) == ("reschedule", 300)
    assert engine.get(SAGA_ID).status is SagaStatus.COMPENSATING
    clock.advance(300)
    assert resolve(saga, on=engine).output == "cancelled: not needed"
    assert world.trace() == ["execute a", "execute b", "compensate b", "compensate b", "compensate a"]
    assert isinstance(world.of("a", "compensate")[0].error, SagaCancelled)


def test_S10_a_cancellation_that_came_during_the_undo_is_pending_as_well(new_engine, resolve, world, clock):
    def cancel(request, e):
        engine.cancel(SAGA_ID, "not needed")
        return BROKEN

    b = world.step("b", NO, undo=[cancel, NOT_LOST_YET, DONE])
    saga = saga_of(world.step("a"), b, compensation_retry=retry(2))
    engine = new_engine(sagas=[saga])
    assert resolve(saga, on=engine).countdown == 300
    assert engine.get(SAGA_ID).status is SagaStatus.COMPENSATING
    clock.advance(300)
    assert resolve(saga, on=engine).status == "fail"
    assert world.executed == ["a", "b"]
    assert world.undone == ["b", "b", "b", "a"]


def test_S10_a_crash_while_the_undo_is_asked_does_not_lose_the_step(journal, new_engine, resolve, world):
    process = Mortal(journal)
    saga = saga_of(world.step("a"), world.step("b", NO, DONE, undo=[process.die, NOT_LOST_YET]))
    with pytest.raises(Crash):
        resolve(saga, on=new_engine(process))
    assert resolve(saga).countdown == 300
    assert resolve(saga).status == "success"
    assert world.trace() == ["execute a", "execute b", "compensate b", "compensate b", "execute b"]


@pytest.mark.parametrize(
    ("outcome", "executed", "undone"),
    [("undone", "abbb", "bbba"), ("done", "abbbc", "bbb"), ("not_done", "abbbbc", "bbb")],
)
def test_S10_a_person_may_end_it_when_reschedules_max_is_reached(new_engine, resolve, world, outcome, executed, undone):
    b = world.step("b", NO, NO, NO, DONE, undo=NOT_LOST_YET)
    saga = saga_of(world.step("a"), b, world.step("c"), reschedules_max=2)
    worker = new_engine(sagas=[saga])
    for _ in range(3):
        resolve(saga)
    worker.resolve_parked(SAGA_ID, "b", note="looked at it", outcome=outcome)
    assert ("".join(world.executed), "".join(world.undone)) == (executed, undone)
    assert worker.get(SAGA_ID).status.is_ended


def test_S10_failures_of_the_undo_that_asked_for_time_are_forgotten_when_the_step_completes(engine, resolve, world):
    b = world.step("b", NO, DONE, undo=[RuntimeError("1"), NOT_LOST_YET, RuntimeError("2"), DONE])
    saga = saga_of(world.step("a"), b, world.step("c", LATER, NO), compensation_retry=retry(2))
    assert resolve(saga).countdown == 300
    assert resolve(saga).countdown == 60
    assert engine.get(SAGA_ID).steps[1].error is None
    assert resolve(saga).output == "no"
    assert world.undone == ["b", "b", "c", "b", "b", "a"]


def test_S10_with_a_plain_reschedule_its_countdown_counts(engine, resolve, world, clock):
    saga = saga_of(world.step("a", NO, DONE, undo=LATER))
    assert resolve(saga).countdown == 60
    assert engine.get(SAGA_ID).next_due_at == clock.now() + 60


# --- S11: no undo -------------------------------------------------------------------------------------------------


def test_S11_a_failing_step_that_raises_what_it_was_given_has_nothing_to_undo(engine, resolve, world):
    response = resolve(saga_of(world.step("a"), world.step("b", NO, undo=reraise)))
    assert (response.status, response.output) == ("fail", "no")
    assert world.undone == ["b", "a"]
    record = engine.get(SAGA_ID)
    assert record.status is SagaStatus.COMPENSATED
    assert statuses(record) == {"a": "COMPENSATED", "b": "FAILED"}


def test_S11_a_failing_step_without_a_compensation_has_nothing_to_undo(engine, resolve, world):
    def fail(request):
        raise NO

    for number, step in enumerate((world.step("b", NO, undo=None), ("b", lambda request: True, fail))):
        resolve(saga_of(world.step("a"), step), {"id": f"PR-{number}"})
        assert engine.get(f"Order:PR-{number}").status is SagaStatus.COMPENSATED
    assert world.undone == ["a", "a"]


def test_S11_after_a_crash_the_rebuilt_error_counts_as_the_one_that_was_given(journal, new_engine, resolve, world):
    process = Mortal(journal, dies_after=StepFailed)
    saga = saga_of(world.step("a"), world.step("b", NO, undo=reraise))
    with pytest.raises(Crash):
        resolve(saga, on=new_engine(process))
    assert resolve(saga).output == "no"
    assert world.undone == ["b", "a"]
    assert world.of("b", "compensate")[0].error is not NO


def _equal_error(request: dict[str, Any], e: Exception) -> None:
    raise type(e)(*e.args)


def _wrapped_error(request: dict[str, Any], e: Exception) -> None:
    raise RuntimeError("cannot undo") from e


@pytest.mark.parametrize("undo", [_equal_error, _wrapped_error])
def test_S11_only_the_very_same_object_says_that_there_is_nothing_to_undo(engine, resolve, world, undo):
    saga = saga_of(world.step("a"), world.step("b", NO, undo=[undo, DONE]), compensation_retry=retry(2))
    resolve(saga)
    assert world.undone == ["b", "b", "a"]


@pytest.mark.parametrize("undo", [reraise, None], ids=["raises what it was given", "defines none"])
def test_S11_a_completed_step_without_an_undo_parks(engine, resolve, world, undo):
    saga = saga_of(world.step("a"), world.step("b", undo=undo), world.step("c", NO))
    for _ in range(2):
        response = resolve(saga)
        assert (response.status, response.output) == ("fail", parked_at("b", "no undo"))
    record = engine.get(SAGA_ID)
    assert record.status is SagaStatus.PARKED
    assert statuses(record) == {"a": "COMPLETED", "b": "PARKED", "c": "COMPENSATED"}
    assert record.steps[1].cause == "no undo"
    assert "by hand" in record.steps[1].next_action
    assert "a" not in world.undone


def test_S11_a_completed_step_without_an_undo_is_not_tried_again(resolve, world):
    resolve(saga_of(world.step("a", undo=reraise), world.step("b", NO), compensation_retry=retry(5)))
    assert world.undone == ["b", "a"]


def test_S11_with_park_policy_continue_the_earlier_steps_are_undone_before_it_parks(engine, resolve, world):
    saga = saga_of(world.step("a"), world.step("b", undo=None), world.step("c", NO), park_policy="continue")
    assert resolve(saga).output == parked_at("b", "no undo")
    assert world.undone == ["c", "a"]
    assert statuses(engine.get(SAGA_ID)) == {"a": "COMPENSATED", "b": "PARKED", "c": "COMPENSATED"}


def test_S11_a_read_only_step_needs_no_undo(engine, resolve, world):
    read = world.step("read", kind=Kind.READ_ONLY, undo=None)
    resolve(saga_of(world.step("a"), read, world.step("b", NO)))
    assert engine.get(SAGA_ID).status is SagaStatus.COMPENSATED
    assert world.undone == ["b", "a"]


def test_S11_a_step_that_a_middleware_answered_needs_no_undo(engine, resolve, world):
    def answer(request, nxt):
        return DONE if current_context().step == "a" else nxt(request)

    saga = saga_of(world.step("a", undo=None), world.step("b", NO), middlewares=lambda self, request: [answer])
    resolve(saga)
    assert engine.get(SAGA_ID).status is SagaStatus.COMPENSATED


# --- S12: the undo fails ------------------------------------------------------------------------------------------


def test_S12_a_failed_undo_is_tried_five_times_with_growing_waits_and_then_parks(engine, resolve, world, clock):
    saga = saga_of(world.step("a"), world.step("b", undo=BROKEN), world.step("c", NO))
    response = resolve(saga)
    assert (response.status, response.output) == ("fail", parked_at("b", "compensate failed: vendor down"))
    assert [call.attempt for call in world.of("b", "compensate")] == [1, 2, 3, 4, 5]
    assert len(clock.slept_s) == 4
    assert clock.slept_s == sorted(clock.slept_s)
    assert clock.slept_s[-1] > 3 * clock.slept_s[0]
    record = engine.get(SAGA_ID)
    assert record.status is SagaStatus.PARKED
    assert statuses(record) == {"a": "COMPLETED", "b": "PARKED", "c": "COMPENSATED"}
    parked = record.steps[1]
    assert (parked.cause, parked.undo_attempts) == ("compensate failed: vendor down", 5)
    assert "by hand" in parked.next_action
    assert record.error == "parked at b: compensate failed: vendor down"


def test_S12_a_failed_undo_that_succeeds_in_the_end_lets_the_undo_go_on(engine, resolve, world):
    saga = saga_of(world.step("a"), world.step("b", undo=[BROKEN, BROKEN, DONE]), world.step("c", NO))
    assert resolve(saga).output == "no"
    assert world.undone == ["c", "b", "b", "b", "a"]
    assert len({call.key for call in world.of("b", "compensate")}) == 1
    assert engine.get(SAGA_ID).status is SagaStatus.COMPENSATED


def test_S12_a_completed_step_whose_undo_answers_fail_is_tried_again_and_parks(engine, resolve, world):
    saga = saga_of(
        world.step("a", undo=BackgroundResponse.fail("still in use")),
        world.step("b", NO),
        compensation_retry=retry(3),
    )
    assert resolve(saga).output == parked_at("a", "compensate failed: still in use")
    assert world.undone == ["b", "a", "a", "a"]


def test_S12_the_undo_of_the_failing_step_is_tried_again_too(engine, resolve, world):
    saga = saga_of(world.step("a"), world.step("b", NO, undo=BROKEN), compensation_retry=retry(2))
    assert resolve(saga).output == parked_at("b", "compensate failed: vendor down")
    assert world.undone == ["b", "b"]
    assert [call.error for call in world.of("b", "compensate")] == [NO, NO]


@pytest.mark.parametrize("answer", [lambda request, e: None, lambda request, e: "done", lambda request, e: True])
def test_S12_an_undo_that_answers_nonsense_has_failed(engine, resolve, world, answer):
    saga = saga_of(world.step("a", undo=answer), world.step("b", NO), compensation_retry=retry(2))
    resolve(saga)
    assert world.undone == ["b", "a", "a"]
    record = engine.get(SAGA_ID)
    assert record.status is SagaStatus.PARKED
    assert "BackgroundResponse.done()" in record.steps[0].cause


def test_S12_a_step_may_have_a_compensation_retry_of_its_own(resolve, world):
    own = world.step("own", undo=[BROKEN, DONE], compensation_retry=retry(2))
    saga = saga_of(world.step("a", undo=BROKEN), own, world.step("b", NO), compensation_retry=retry(1))
    assert resolve(saga).output == parked_at("a", "compensate failed: vendor down")
    assert world.undone == ["b", "own", "own", "a"]


def test_S12_the_time_that_a_retry_policy_sees_begins_with_the_first_undo_of_that_step(resolve, world, clock):
    slow = world.step("slow", undo=[BROKEN, DONE], compensation_retry=retry(2, wait_s=200))
    policy = RetryPolicy(stop=stop_after_delay(100), wait=wait_fixed(5))
    saga = saga_of(world.step("a", undo=[BROKEN, BROKEN, DONE], compensation_retry=policy), slow, world.step("b", NO))
    assert resolve(saga).output == "no"
    assert world.undone == ["b", "slow", "slow", "a", "a", "a"]
    assert clock.slept_s == [200, 5, 5]


def test_S12_failed_undos_survive_a_crash(journal, new_engine, resolve, world):
    process = Mortal(journal, dies_after=CompensationFailed)
    saga = saga_of(world.step("a", undo=BROKEN), world.step("b", NO), compensation_retry=retry(3))
    with pytest.raises(Crash):
        resolve(saga, on=new_engine(process))
    assert resolve(saga).output == parked_at("a", "compensate failed: vendor down")
    assert [call.attempt for call in world.of("a", "compensate")] == [1, 2, 3]


def test_S12_an_undo_that_a_crash_interrupted_runs_again_with_its_key(journal, new_engine, resolve, world):
    process = Mortal(journal)
    saga = saga_of(world.step("a"), world.step("b", undo=[process.die, DONE]), world.step("c", NO))
    with pytest.raises(Crash):
        resolve(saga, on=new_engine(process))
    assert resolve(saga).output == "no"
    assert world.undone == ["c", "b", "b", "a"]
    assert len({call.key for call in world.of("b", "compensate")}) == 1


def test_S12_a_wait_longer_than_the_budget_suspends_the_compensation(engine, resolve, world, clock):
    saga = saga_of(world.step("a", undo=[BROKEN, DONE]), world.step("b", NO), compensation_retry=retry(3, wait_s=1_000))
    assert resolve(saga).countdown == 1_000
    assert engine.get(SAGA_ID).status is SagaStatus.COMPENSATING
    clock.advance(900)
    assert resolve(saga).countdown == 100
    assert world.undone == ["b", "a"]
    clock.advance(100)
    assert resolve(saga).output == "no"
    assert world.undone == ["b", "a", "a"]


def test_S12_park_policy_stop_leaves_the_earlier_steps_as_they_are(engine, resolve, world):
    saga = saga_of(world.step("a"), world.step("b", undo=BROKEN), world.step("c", NO), compensation_retry=retry(1))
    resolve(saga)
    assert world.undone == ["c", "b"]
    assert statuses(engine.get(SAGA_ID))["a"] == "COMPLETED"


def test_S12_park_policy_continue_undoes_the_earlier_steps_and_then_parks(engine, resolve, world):
    saga = saga_of(
        world.step("a"),
        world.step("b", undo=BROKEN),
        world.step("c"),
        world.step("d", NO, undo=BROKEN),
        compensation_retry=retry(1),
        park_policy="continue",
    )
    assert resolve(saga).status == "fail"
    assert world.undone == ["d", "c", "b", "a"]
    record = engine.get(SAGA_ID)
    assert record.status is SagaStatus.PARKED
    assert statuses(record) == {"a": "COMPENSATED", "b": "PARKED", "c": "COMPENSATED", "d": "PARKED"}
    assert [step.cause for step in record.steps if step.cause] == ["compensate failed: vendor down"] * 2


def test_S12_a_parked_execution_runs_nothing_until_a_person_resolves_it(new_engine, resolve, world, clock):
    saga = saga_of(world.step("a"), world.step("b", undo=BROKEN), world.step("c", NO), compensation_retry=retry(1))
    worker = new_engine(sagas=[saga])
    first = resolve(saga)
    clock.advance(10**9)
    assert worker.recover() == 0
    assert resolve(saga).output == first.output
    assert world.undone == ["c", "b"]


def test_S12_a_person_who_undid_the_step_lets_the_undo_go_on(new_engine, resolve, world):
    saga = saga_of(world.step("a"), world.step("b", undo=BROKEN), world.step("c", NO), compensation_retry=retry(1))
    worker = new_engine(sagas=[saga])
    resolve(saga)
    worker.resolve_parked(SAGA_ID, "b", note="deleted it in the vendor's portal", outcome="undone")
    assert world.undone == ["c", "b", "a"]
    record = worker.get(SAGA_ID)
    assert record.status is SagaStatus.COMPENSATED
    assert record.steps[1].next_action is None
    assert resolve(saga).output == "no"


def test_S12_each_parked_step_is_resolved_before_the_execution_ends(new_engine, resolve, world):
    saga = saga_of(
        world.step("a", undo=BROKEN), world.step("b", undo=None), world.step("c", NO),
        compensation_retry=retry(1), park_policy="continue",
    )  # fmt: skip
    worker = new_engine(sagas=[saga])
    resolve(saga)
    worker.resolve_parked(SAGA_ID, "b", note="done", outcome="undone")
    record = worker.get(SAGA_ID)
    assert record.status is SagaStatus.PARKED
    assert resolve(saga).output == parked_at("a", "compensate failed: vendor down")
    worker.resolve_parked(SAGA_ID, "a", note="done", outcome="undone")
    assert worker.get(SAGA_ID).status is SagaStatus.COMPENSATED
    assert len(world.undone) == 2


def test_S12_a_saga_may_answer_for_its_parked_executions_itself(resolve, world):
    def parked_response(self, record):
        return BackgroundResponse.slow_process_reschedule(86_400)

    saga = saga_of(world.step("a", undo=None), world.step("b", NO), parked_response=parked_response)
    for _ in range(2):
        assert resolve(saga).countdown == 86_400
