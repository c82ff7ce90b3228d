"""Rules S13 and S14: an undo that waits, and what is answered when everything is undone."""

from __future__ import annotations

import pytest
from connect.eaas.core.responses import BackgroundResponse
from sagas import DONE, SAGA_ID, Crash, Mortal, remember, reraise, saga_of, statuses
from tenacity import stop_after_attempt, wait_fixed

from saga_engine import SagaStatus, StepStatus
from saga_engine.journal import CompensationSuspended, StepCompensated
from transactions import RetryPolicy, Suspend

LATER = BackgroundResponse.reschedule(60)
WEEK_S = 7 * 24 * 3_600
THREE_TIMES = RetryPolicy(stop=stop_after_attempt(3), wait=wait_fixed(100))


# --- S13: an undo that waits --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "countdown_s"),
    [(LATER, 60), (BackgroundResponse.reschedule(5), 30), (BackgroundResponse.slow_process_reschedule(), 300)],
)
def test_S13_a_completed_step_whose_undo_reschedules_suspends_the_compensation_there(
    engine, resolve, world, clock, answer, countdown_s
):
    saga = saga_of(world.step("a"), world.step("b", undo=answer), world.step("c", BackgroundResponse.fail("no")))
    told = resolve(saga)
    assert (told.status, told.countdown) == ("reschedule", countdown_s)
    assert world.undone == ["b"]
    record = engine.get(SAGA_ID)
    assert record.status is SagaStatus.COMPENSATING
    assert record.next_due_at == clock.now() + countdown_s
    assert record.held_by is None
    assert statuses(record) == {"a": "COMPLETED", "b": "COMPENSATING", "c": "FAILED"}


def test_S13_the_next_delivery_goes_on_with_the_undo_that_waited_and_no_earlier_one(engine, resolve, world):
    undo = [LATER, DONE]
    saga = saga_of(
        world.step("a"),
        world.step("b", undo=undo),
        world.step("c"),
        world.step("d", BackgroundResponse.fail("no")),
    )
    resolve(saga)
    told = resolve(saga)
    assert world.undone == ["c", "b", "b", "a"]
    assert world.executed == ["a", "b", "c", "d"]
    assert (told.status, told.output) == ("fail", "no")
    assert engine.get(SAGA_ID).status is SagaStatus.COMPENSATED


def test_S13_an_undo_that_is_due_goes_on_without_a_delivery_and_not_before(new_engine, resolve, world, clock):
    saga = saga_of(world.step("a", undo=[LATER, DONE]), world.step("b", BackgroundResponse.fail("no")))
    engine = new_engine(sagas=[saga])
    resolve(saga, on=engine)
    clock.advance(59)
    assert engine.recover() == 0
    clock.advance(1)
    assert engine.recover() == 1
    assert world.undone == ["a", "a"]
    assert engine.get(SAGA_ID).status is SagaStatus.COMPENSATED


def test_S13_an_undo_that_waited_keeps_its_key_the_error_and_the_state_that_it_left(resolve, world):
    undo = [remember(LATER, ticket="T-1"), DONE]
    saga = saga_of(world.step("a", undo=undo), world.step("b", BackgroundResponse.fail("no")))
    resolve(saga)
    resolve(saga)
    first, second = world.of("a", "compensate")
    assert first.key == second.key
    assert second.state == {"ticket": "T-1"}
    assert (str(first.error), str(second.error)) == ("no", "no")


def test_S13_a_compensation_that_waits_survives_the_death_of_the_process(journal, new_engine, resolve, world):
    process = Mortal(journal, dies_after=CompensationSuspended)
    saga = saga_of(world.step("a"), world.step("b", undo=[LATER, DONE]), world.step("c", ValueError("no")))
    with pytest.raises(Crash):
        resolve(saga, on=new_engine(process))
    assert resolve(saga).status == "fail"
    assert world.undone == ["c", "b", "b", "a"]


def test_S13_an_undo_that_keeps_rescheduling_is_parked_seven_days_after_the_compensation_began(
    engine, resolve, world, clock
):
    saga = saga_of(world.step("a"), world.step("b", undo=LATER), world.step("c", BackgroundResponse.fail("no")))
    resolve(saga)
    clock.advance(WEEK_S - 1)
    assert resolve(saga).status == "reschedule"
    clock.advance(1)
    told = resolve(saga)
    assert told.status == "fail"
    assert told.output == f"parked at b: compensation_deadline_s passed; see: saga show {SAGA_ID}"
    assert world.undone == ["b", "b"]
    assert statuses(engine.get(SAGA_ID)) == {"a": "COMPLETED", "b": "PARKED", "c": "FAILED"}


def test_S13_the_deadline_of_the_compensation_is_kept_without_a_delivery(new_engine, resolve, world, clock):
    wait = BackgroundResponse.reschedule(1_000)
    saga = saga_of(
        world.step("a", undo=wait), world.step("b", BackgroundResponse.fail("no")), compensation_deadline_s=600
    )
    engine = new_engine(sagas=[saga])
    resolve(saga, on=engine)
    assert engine.get(SAGA_ID).next_due_at == clock.now() + 600
    clock.advance(600)
    engine.recover()
    assert engine.get(SAGA_ID).status is SagaStatus.PARKED
    assert world.undone == ["a"]


def test_S13_the_deadline_counts_from_the_begin_of_the_compensation_not_from_the_last_wait(
    engine, resolve, world, clock
):
    saga = saga_of(
        world.step("a", undo=LATER), world.step("b", BackgroundResponse.fail("no")), compensation_deadline_s=100
    )
    resolve(saga)
    clock.advance(60)
    resolve(saga)
    clock.advance(60)
    resolve(saga)
    assert engine.get(SAGA_ID).status is SagaStatus.PARKED


def test_S13_waiting_undos_do_not_use_up_the_attempts_of_the_compensation_retry(engine, resolve, world):
    undo = [LATER, LATER, LATER, ValueError("busy"), DONE]
    once_more = RetryPolicy(stop=stop_after_attempt(2))
    saga = saga_of(
        world.step("a", undo=undo, compensation_retry=once_more), world.step("b", BackgroundResponse.fail("no"))
    )
    for _ in range(4):
        told = resolve(saga)
    assert told.status == "fail"
    assert engine.get(SAGA_ID).status is SagaStatus.COMPENSATED


# --- S14: everything is undone ------------------------------------------------------------------------------------


def test_S14_the_answer_is_the_error_of_the_failing_step(engine, resolve, world):
    saga = saga_of(world.step("a"), world.step("b", ValueError("the vendor is away")), world.step("c"))
    told = resolve(saga)
    assert (told.status, told.output) == ("fail", "the vendor is away")
    record = engine.get(SAGA_ID)
    assert record.status is SagaStatus.COMPENSATED
    assert (record.response.status, record.response.output) == ("fail", "the vendor is away")
    assert statuses(record) == {"a": "COMPENSATED", "b": "COMPENSATED", "c": "PENDING"}


def test_S14_the_answer_to_a_refusal_is_its_output(resolve, world):
    saga = saga_of(world.step("a"), world.step("b", BackgroundResponse.fail("no credit")))
    told = resolve(saga)
    assert (told.status, told.output) == ("fail", "no credit")


def test_S14_an_error_without_a_text_is_answered_by_its_type(resolve, world):
    told = resolve(saga_of(world.step("a", ValueError())))
    assert told.status == "fail"
    assert "ValueError" in told.output


@pytest.mark.parametrize("answer", [BackgroundResponse.fail("call us"), BackgroundResponse.skip("not ours")])
def test_S14_fail_or_skip_of_the_failing_steps_undo_is_the_answer(engine, resolve, world, answer):
    saga = saga_of(world.step("a"), world.step("b", ValueError("no"), undo=answer))
    told = resolve(saga)
    assert (told.status, told.output) == (answer.status, answer.output)
    assert world.undone == ["b", "a"]
    assert engine.get(SAGA_ID).status is SagaStatus.COMPENSATED


def test_S14_done_of_the_failing_steps_undo_only_means_undone(resolve, world):
    told = resolve(saga_of(world.step("a", ValueError("no"), undo=DONE)))
    assert (told.status, told.output) == ("fail", "no")


def test_S14_what_the_undo_of_an_earlier_step_answers_is_not_the_answer(engine, resolve, world):
    saga = saga_of(world.step("a", undo=BackgroundResponse.skip("whatever")), world.step("b", ValueError("no")))
    told = resolve(saga)
    assert (told.status, told.output) == ("fail", "no")
    assert engine.get(SAGA_ID).steps[0].status is StepStatus.COMPENSATED


def test_S14_the_answer_of_the_failing_steps_undo_survives_a_crash_before_the_end(journal, new_engine, resolve, world):
    undo = BackgroundResponse.skip("not ours")
    saga = saga_of(world.step("a"), world.step("b", ValueError("no"), undo=undo))
    with pytest.raises(Crash):
        resolve(saga, on=new_engine(Mortal(journal, dies_after=(StepCompensated, "b"))))
    told = resolve(saga)
    assert (told.status, told.output) == ("skip", "not ours")
    assert world.undone == ["b", "a"]


@pytest.mark.parametrize("told_first", [BackgroundResponse.skip("waiting"), BackgroundResponse.fail("waiting")])
def test_S14_what_the_failing_step_told_while_it_waited_is_not_the_answer(resolve, world, told_first):
    b = world.step("b", Suspend(told_first), ValueError("no"), undo=reraise)
    saga = saga_of(world.step("a"), b)
    assert resolve(saga).output == "waiting"
    told = resolve(saga)
    assert (told.status, told.output) == ("fail", "no")


def test_S14_the_error_answered_is_that_of_the_last_attempt(resolve, world, clock):
    a = world.step("a", ValueError("first"), ValueError("second"), ValueError("third"), retry=THREE_TIMES)
    told = resolve(saga_of(a))
    assert clock.slept_s == [100, 100]
    assert told.output == "third"
