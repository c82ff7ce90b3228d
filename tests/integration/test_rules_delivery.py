"""Rules S15, S16, S19, S25 and the table of answers: what a delivery meets, and what it is told."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from connect.eaas.core.responses import BackgroundResponse
from sagas import DONE, SAGA_ID, Crash, Mortal, remember, reraise, saga_of, statuses
from tenacity import stop_after_attempt, wait_fixed

from saga_engine import SagaStatus, current_context
from saga_engine.errors import JournalUnavailable, LeaseLost, StepInterrupted
from saga_engine.journal import (
    CompensationStarted,
    SagaEnded,
    SagaParked,
    StepCompleted,
    StepStarted,
    StepSuspended,
    TakenOver,
)
from saga_engine.testing import ManualClock
from transactions import Kind, Probe, RetryPolicy, Suspend

FAIL = BackgroundResponse.fail("no")
LATER = BackgroundResponse.reschedule(60)
TWICE = RetryPolicy(stop=stop_after_attempt(2), wait=wait_fixed(1_000))


def elsewhere(function: Any, *arguments: Any, **named: Any) -> Any:
    """Call in another thread, as another worker would, and give the result."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *arguments, **named).result(timeout=30)


def crash_in(resolve, new_engine, journal, saga, **dies):
    """Deliver in a process that dies at the given point."""
    with pytest.raises(Crash):
        resolve(saga, on=new_engine(Mortal(journal, **dies)))


# --- S15: the same key again --------------------------------------------------------------------------------------

ENDS = {
    "completed": (lambda world: [world.step("a")], "success", None),
    "compensated": (lambda world: [world.step("a"), world.step("b", FAIL)], "fail", "no"),
    "skipped": (lambda world: [world.step("a", BackgroundResponse.skip("nothing to do"))], "skip", "nothing to do"),
    "completed by a skip": (
        lambda world: [world.step("a"), world.step("b", BackgroundResponse.skip("enough")), world.step("c")],
        "skip",
        "enough",
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_S15_an_ended_execution_gives_its_recorded_response_and_runs_no_step(engine, resolve, world, end):
    steps, status, output = ENDS[end]
    saga = saga_of(*steps(world))
    first = resolve(saga)
    calls, entries = list(world.calls), engine.history(SAGA_ID)
    again = resolve(saga, {"id": "PR-1", "another": "body"})
    assert (first.status, first.output) == (again.status, again.output) == (status, output)
    assert world.calls == calls
    assert engine.history(SAGA_ID) == entries


def test_S15_the_answer_of_an_ended_execution_needs_none_of_its_code(resolve, world):
    resolve(saga_of(world.step("a"), world.step("b", FAIL)))
    assert resolve(saga_of(world.step("other"))).output == "no"


def test_S15_a_suspended_execution_goes_on_at_a_delivery_though_its_time_has_not_come(resolve, world):
    saga = saga_of(world.step("a", BackgroundResponse.reschedule(100_000), DONE))
    resolve(saga)
    assert resolve(saga).status == "success"


def test_S15_who_meets_a_live_drive_is_told_to_come_back_and_nothing_runs(journal, new_engine, resolve, world):
    told = []

    def meet(request):
        told.append(elsewhere(resolve, saga, on=new_engine()))
        return DONE

    saga = saga_of(world.step("a", meet))
    assert resolve(saga).status == "success"
    assert [(answer.status, answer.countdown) for answer in told] == [("reschedule", 30)]
    assert world.executed == ["a"]


def test_S15_who_meets_a_compensation_under_way_is_told_to_come_back(new_engine, resolve, world):
    told = []

    def meet(request, e):
        told.append(elsewhere(resolve, saga, on=new_engine()))
        return DONE

    saga = saga_of(world.step("a", undo=meet), world.step("b", FAIL))
    resolve(saga)
    assert [(answer.status, answer.countdown) for answer in told] == [("reschedule", 30)]
    assert world.undone == ["a"]


def test_S15_a_delivery_does_not_shorten_the_engines_own_wait_for_a_retry(engine, resolve, world, clock):
    saga = saga_of(world.step("a", ValueError("busy"), DONE, retry=TWICE))
    first = resolve(saga)
    assert (first.status, first.countdown) == ("reschedule", 1_000)
    entries = engine.history(SAGA_ID)
    clock.advance(400)
    second = resolve(saga)
    assert (second.status, second.countdown) == ("reschedule", 600)
    clock.advance(580)
    assert resolve(saga).countdown == 30
    assert world.executed == ["a"]
    assert engine.history(SAGA_ID) == entries
    clock.advance(20)
    assert resolve(saga).status == "success"


def test_S15_a_delivery_does_not_shorten_the_wait_for_the_retry_of_an_undo(resolve, world, clock):
    a = world.step("a", undo=[ValueError("busy"), DONE], compensation_retry=TWICE)
    saga = saga_of(a, world.step("b", FAIL))
    assert resolve(saga).countdown == 1_000
    clock.advance(900)
    assert resolve(saga).countdown == 100
    assert world.undone == ["a"]
    clock.advance(100)
    assert resolve(saga).output == "no"
    assert world.undone == ["a", "a"]


def test_S15_a_delivery_during_the_engines_own_wait_leaves_its_request_behind(new_engine, resolve, world, clock):
    saga = saga_of(world.step("a", ValueError("busy"), DONE, retry=TWICE))
    on = new_engine(sagas=[saga])
    resolve(saga, {"id": "PR-1", "note": "old"}, on=on)
    clock.advance(400)
    told = resolve(saga, {"id": "PR-1", "note": "new"}, on=on)
    assert (told.status, told.countdown) == ("reschedule", 600)
    assert world.executed == ["a"]
    clock.advance(600)
    assert on.recover() == 1
    assert [called.request["note"] for called in world.of("a", "execute")] == ["old", "new"]


class Interrupting(ManualClock):
    """A clock on which whoever sleeps is interrupted."""

    def sleep(self, seconds: float) -> None:
        raise KeyboardInterrupt


def test_S15_the_remainder_of_a_wait_is_answered_after_the_wait_was_interrupted(new_engine, resolve, world, clock):
    policy = RetryPolicy(stop=stop_after_attempt(2), wait=wait_fixed(200))
    saga = saga_of(world.step("a", ValueError("busy"), DONE, retry=policy))
    with pytest.raises(KeyboardInterrupt):
        resolve(saga, on=new_engine(clock=Interrupting(clock.now())))
    clock.advance(50)
    assert resolve(saga).countdown == 150
    assert world.executed == ["a"]
    clock.advance(150)
    assert resolve(saga).status == "success"


def test_S15_restarts_opens_a_new_generation_and_the_bare_id_means_the_latest(engine, resolve, world):
    asked = []

    def restarts(self, request, previous):
        asked.append((previous.saga_id, previous.status, request.get("again")))
        return bool(request.get("again"))

    saga = saga_of(world.step("a", FAIL, DONE), restarts=restarts)
    assert resolve(saga).output == "no"
    assert resolve(saga).output == "no"
    assert resolve(saga, {"id": "PR-1", "again": True}).status == "success"
    assert engine.get(SAGA_ID).saga_id == f"{SAGA_ID}#2"
    assert engine.get(SAGA_ID).generation == 2
    assert engine.get(f"{SAGA_ID}#1").status is SagaStatus.COMPENSATED
    assert engine.get(f"{SAGA_ID}#2").status is SagaStatus.COMPLETED
    assert resolve(saga).status == "success"
    assert asked == [
        (SAGA_ID, SagaStatus.COMPENSATED, None),
        (SAGA_ID, SagaStatus.COMPENSATED, True),
        (f"{SAGA_ID}#2", SagaStatus.COMPLETED, None),
    ]


def test_S15_a_new_generation_starts_from_its_own_request_with_empty_state(engine, resolve, world):
    saga = saga_of(world.step("a", remember(n=1)), restarts=lambda self, request, previous: True)
    resolve(saga)
    resolve(saga, {"id": "PR-1", "n": 2})
    first, second = world.of("a")
    assert (first.state, second.state) == ({}, {})
    assert second.request == {"id": "PR-1", "n": 2}
    assert [record.saga_id for record in engine.search()] == [f"{SAGA_ID}#2", SAGA_ID]


def test_S15_restarts_is_not_asked_of_an_execution_that_has_not_ended(resolve, world):
    asked = []
    saga = saga_of(
        world.step("a", LATER, DONE), restarts=lambda self, request, previous: bool(asked.append(previous)) or True
    )
    resolve(saga)
    resolve(saga)
    assert asked == []


def test_S15_restarts_is_not_asked_of_a_parked_execution(resolve, world):
    asked = []
    saga = saga_of(
        world.step("a", undo=reraise),
        world.step("b", FAIL),
        restarts=lambda self, request, previous: bool(asked.append(previous)) or True,
    )
    resolve(saga)
    assert "parked" in resolve(saga).output
    assert asked == []


# --- S16: crashes -------------------------------------------------------------------------------------------------


def test_S16_completed_steps_do_not_run_again_after_a_crash(journal, new_engine, resolve, world):
    saga = saga_of(world.step("a"), world.step("b"), world.step("c"))
    crash_in(resolve, new_engine, journal, saga, dies_after=(StepCompleted, "b"))
    assert resolve(saga).status == "success"
    assert world.executed == ["a", "b", "c"]


def test_S16_a_step_whose_completion_was_not_journaled_runs_again_with_the_same_key(
    journal, new_engine, resolve, world
):
    saga = saga_of(world.step("a"), world.step("b"))
    crash_in(resolve, new_engine, journal, saga, dies_before=(StepCompleted, "b"))
    assert resolve(saga).status == "success"
    assert world.executed == ["a", "b", "b"]
    first, second = world.of("b")
    assert first.key == second.key
    assert (first.attempt, second.attempt) == (1, 2)


def test_S16_taking_over_is_an_entry_of_its_own(engine, journal, new_engine, resolve, world):
    saga = saga_of(world.step("a"))
    crash_in(resolve, new_engine, journal, saga, dies_before=StepCompleted)
    resolve(saga)
    assert [type(entry) for entry in engine.history(SAGA_ID)].count(TakenOver) == 1


def test_S16_an_execution_that_was_left_in_peace_is_not_taken_over(engine, resolve, world):
    saga = saga_of(world.step("a", LATER, DONE))
    resolve(saga)
    resolve(saga)
    assert not any(isinstance(entry, TakenOver) for entry in engine.history(SAGA_ID))


def test_S16_an_interrupted_attempt_counts_as_an_attempt_of_the_retry_policy(journal, new_engine, resolve, world):
    two_attempts = RetryPolicy(stop=stop_after_attempt(2))
    saga = saga_of(world.step("a", DONE, ValueError("second"), DONE, retry=two_attempts))
    crash_in(resolve, new_engine, journal, saga, dies_before=StepCompleted)
    assert resolve(saga).output == "second"
    assert world.executed == ["a", "a"]


def test_S16_the_probe_of_the_running_step_is_asked_first_and_done_completes_it(
    engine, journal, new_engine, resolve, world
):
    saga = saga_of(world.step("a", probe=remember(Probe.DONE, found="it")), world.step("b"))
    crash_in(resolve, new_engine, journal, saga, dies_before=(StepCompleted, "a"))
    assert resolve(saga).status == "success"
    assert world.trace() == ["execute a", "probe a", "execute b"]
    assert world.of("b")[0].state == {"found": "it"}
    assert world.of("a", "probe")[0].key == world.of("a")[0].key
    assert statuses(engine.get(SAGA_ID)) == {"a": "COMPLETED", "b": "COMPLETED"}


@pytest.mark.parametrize("answer", [Probe.NOT_DONE, Probe.UNKNOWN, ConnectionError("cannot tell")])
def test_S16_a_probe_that_does_not_find_the_effect_leads_to_a_rerun_by_default(
    journal, new_engine, resolve, world, answer
):
    saga = saga_of(world.step("a", probe=answer))
    crash_in(resolve, new_engine, journal, saga, dies_before=(StepCompleted, "a"))
    assert resolve(saga).status == "success"
    assert world.trace() == ["execute a", "probe a", "execute a"]


@pytest.mark.parametrize("probe", [None, Probe.UNKNOWN])
def test_S16_on_unknown_compensate_undoes_the_interrupted_step_and_all_before(
    engine, journal, new_engine, resolve, world, probe
):
    saga = saga_of(world.step("a"), world.step("b", probe=probe, on_unknown="compensate"), world.step("c"))
    crash_in(resolve, new_engine, journal, saga, dies_before=(StepCompleted, "b"))
    told = resolve(saga)
    assert told.status == "fail"
    assert "interrupted" in told.output
    assert world.undone == ["b", "a"]
    assert world.executed == ["a", "b"]
    assert isinstance(world.of("b", "compensate")[0].error, StepInterrupted)
    assert engine.get(SAGA_ID).status is SagaStatus.COMPENSATED


@pytest.mark.parametrize("on_unknown", ["compensate", "park"])
def test_S16_on_unknown_does_not_matter_when_the_probe_knows(journal, new_engine, resolve, world, on_unknown):
    saga = saga_of(world.step("a", probe=Probe.NOT_DONE, on_unknown=on_unknown))
    crash_in(resolve, new_engine, journal, saga, dies_before=(StepCompleted, "a"))
    assert resolve(saga).status == "success"
    assert world.executed == ["a", "a"]
    assert world.undone == []


@pytest.mark.parametrize("probe", [None, Probe.UNKNOWN])
def test_S16_on_unknown_park_parks_the_interrupted_step(engine, journal, new_engine, resolve, world, probe):
    saga = saga_of(world.step("a"), world.step("b", probe=probe, on_unknown="park"))
    crash_in(resolve, new_engine, journal, saga, dies_before=(StepCompleted, "b"))
    told = resolve(saga)
    assert told.output.startswith("parked at b: ")
    assert world.executed == ["a", "b"]
    assert world.undone == []
    assert engine.get(SAGA_ID).steps[1].next_action


def test_S16_a_compensation_under_way_goes_on_and_keeps_its_order(journal, new_engine, resolve, world):
    saga = saga_of(world.step("a"), world.step("b"), world.step("c", ValueError("no")))
    crash_in(resolve, new_engine, journal, saga, dies_after=(CompensationStarted, "b"))
    assert resolve(saga).output == "no"
    assert world.undone == ["c", "b", "a"]
    assert world.executed == ["a", "b", "c"]


def test_S16_an_interrupted_undo_is_run_again_with_the_same_key(journal, new_engine, resolve, world):
    saga = saga_of(world.step("a"), world.step("b", FAIL))
    crash_in(resolve, new_engine, journal, saga, dies_before=SagaEnded)
    assert resolve(saga).output == "no"
    first, second = world.of("a", "compensate")
    assert first.key == second.key


def test_S16_take_overs_without_progress_park_after_recoveries_max(engine, journal, new_engine, resolve, world):
    saga = saga_of(world.step("a"), world.step("killer"), recoveries_max=3)
    for _ in range(4):
        crash_in(resolve, new_engine, journal, saga, dies_before=(StepCompleted, "killer"))
    told = resolve(saga)
    assert told.output.startswith("parked at killer: recoveries_max (3) reached")
    assert world.executed == ["a"] + ["killer"] * 4
    assert engine.get(SAGA_ID).status is SagaStatus.PARKED


def test_S16_recoveries_max_is_five_by_default(journal, new_engine, resolve, world):
    saga = saga_of(world.step("killer"))
    for _ in range(6):
        crash_in(resolve, new_engine, journal, saga, dies_before=StepCompleted)
    assert "recoveries_max (5)" in resolve(saga).output
    assert len(world.executed) == 6


def test_S16_progress_between_take_overs_starts_the_count_anew(journal, new_engine, resolve, world):
    saga = saga_of(*(world.step(name) for name in "abcd"), recoveries_max=1)
    for name in "abcd":
        crash_in(resolve, new_engine, journal, saga, dies_before=(StepCompleted, name))
    assert resolve(saga).status == "success"


def test_S16_take_overs_without_progress_of_an_undo_park_it(journal, new_engine, resolve, world):
    saga = saga_of(world.step("a"), world.step("b", FAIL), recoveries_max=2)
    for _ in range(3):
        crash_in(resolve, new_engine, journal, saga, dies_before=SagaEnded)
    assert resolve(saga).output.startswith("parked at a: recoveries_max (2) reached")
    assert world.undone == ["a"] * 3


def test_S16_an_interrupted_read_only_step_is_not_undone(journal, new_engine, resolve, world):
    a = world.step("a", DONE, FAIL, kind=Kind.READ_ONLY)
    saga = saga_of(a)
    crash_in(resolve, new_engine, journal, saga, dies_before=StepCompleted)
    assert resolve(saga).output == "no"
    assert world.undone == []


def test_S16_what_an_interrupted_attempt_may_have_done_is_undone_when_the_rerun_raises(
    journal, new_engine, resolve, world
):
    saga = saga_of(world.step("a", DONE, ValueError("no")))
    crash_in(resolve, new_engine, journal, saga, dies_before=StepCompleted)
    assert resolve(saga).output == "no"
    assert world.undone == ["a"]


# --- S19: Suspend -------------------------------------------------------------------------------------------------


def test_S19_suspend_answers_with_its_response_and_the_next_delivery_runs_the_step_again(engine, resolve, world):
    saga = saga_of(world.step("a", Suspend(DONE), DONE), world.step("b"))
    told = resolve(saga)
    assert told.status == "success"
    record = engine.get(SAGA_ID)
    assert (record.status, record.response, record.next_due_at) == (SagaStatus.SUSPENDED, None, None)
    assert world.executed == ["a"]
    assert resolve(saga).status == "success"
    assert world.executed == ["a", "a", "b"]
    assert engine.get(SAGA_ID).status is SagaStatus.COMPLETED


@pytest.mark.parametrize("answer", [FAIL, BackgroundResponse.skip("inquiring"), LATER])
def test_S19_whatever_suspend_answers_is_not_the_end(engine, resolve, world, answer):
    saga = saga_of(world.step("a", Suspend(answer), DONE))
    told = resolve(saga)
    assert (told.status, told.output) == (answer.status, answer.output)
    assert engine.get(SAGA_ID).status is SagaStatus.SUSPENDED
    assert world.undone == []
    assert resolve(saga).status == "success"


def test_S19_a_signal_ends_the_wait_and_its_payload_is_in_the_state(new_engine, resolve, world):
    saga = saga_of(world.step("a", Suspend(DONE, signal="approved"), DONE))
    engine = new_engine(sagas=[saga])
    resolve(saga, on=engine)
    engine.signal(SAGA_ID, "approved", {"by": "me"})
    assert engine.get(SAGA_ID).status is SagaStatus.COMPLETED
    assert world.of("a")[1].state == {"approved": {"by": "me"}}


def test_S19_another_signal_does_not_end_the_wait(new_engine, resolve, world):
    saga = saga_of(world.step("a", Suspend(DONE, signal="approved"), DONE))
    engine = new_engine(sagas=[saga])
    resolve(saga, on=engine)
    engine.signal(SAGA_ID, "something else")
    assert world.executed == ["a"]
    assert engine.get(SAGA_ID).status is SagaStatus.SUSPENDED


def test_S19_a_signal_that_came_early_is_kept_until_a_step_waits_for_it(new_engine, resolve, world):
    saga = saga_of(world.step("a", LATER, DONE), world.step("b", Suspend(DONE, signal="approved"), DONE))
    engine = new_engine(sagas=[saga])
    resolve(saga, on=engine)
    engine.signal(SAGA_ID, "approved", 7)
    assert resolve(saga, on=engine).status == "success"
    assert world.executed == ["a", "a", "b", "b"]
    assert world.of("b")[1].state == {"approved": 7}


def test_S19_a_time_out_runs_the_step_again_without_a_delivery(new_engine, resolve, world, clock):
    saga = saga_of(world.step("a", Suspend(DONE, timeout_s=90), DONE))
    engine = new_engine(sagas=[saga])
    resolve(saga, on=engine)
    clock.advance(89)
    assert engine.recover() == 0
    clock.advance(1)
    assert engine.recover() == 1
    assert engine.get(SAGA_ID).status is SagaStatus.COMPLETED


def test_S19_without_a_time_out_nothing_but_a_delivery_ends_the_wait(new_engine, resolve, world, clock):
    saga = saga_of(world.step("a", Suspend(DONE), DONE))
    engine = new_engine(sagas=[saga])
    resolve(saga, on=engine)
    clock.advance(10**9)
    assert engine.recover() == 0
    assert world.executed == ["a"]


def test_S19_without_a_time_out_the_wait_lasts_until_the_deadline_of_the_saga(new_engine, resolve, world, clock):
    saga = saga_of(world.step("a"), world.step("b", Suspend(DONE)), deadline_s=500)
    engine = new_engine(sagas=[saga])
    resolve(saga, on=engine)
    assert engine.get(SAGA_ID).next_due_at == clock.now() + 500
    clock.advance(500)
    assert engine.recover() == 1
    assert world.undone == ["b", "a"]
    assert engine.get(SAGA_ID).status is SagaStatus.COMPENSATED


def test_S19_a_suspended_wait_survives_the_death_of_the_process(journal, new_engine, resolve, world):
    saga = saga_of(world.step("a", Suspend(DONE), DONE))
    crash_in(resolve, new_engine, journal, saga, dies_after=StepSuspended)
    assert resolve(saga).status == "success"
    assert world.executed == ["a", "a"]


# --- S25: the budget of a delivery --------------------------------------------------------------------------------


def spend(clock, seconds, answer=DONE):
    def part(request, *error):
        clock.advance(seconds)
        return answer

    return part


def test_S25_no_new_step_starts_when_the_budget_is_spent(engine, resolve, world, clock):
    saga = saga_of(world.step("a", spend(clock, 240)), world.step("b"))
    told = resolve(saga)
    assert (told.status, told.countdown) == ("reschedule", 30)
    assert world.executed == ["a"]
    assert engine.get(SAGA_ID).status is SagaStatus.SUSPENDED
    assert resolve(saga).status == "success"
    assert world.executed == ["a", "b"]


def test_S25_a_step_starts_as_long_as_there_is_budget(resolve, world, clock):
    saga = saga_of(world.step("a", spend(clock, 239)), world.step("b"))
    assert resolve(saga).status == "success"


def test_S25_a_delivery_performs_at_least_one_action(new_engine, resolve, world, clock):
    engine = new_engine(budget_s=0)
    saga = saga_of(*(world.step(name, spend(clock, 1)) for name in "abc"))
    assert [resolve(saga, on=engine).status for _ in range(3)] == ["reschedule", "reschedule", "success"]
    assert world.executed == ["a", "b", "c"]


def test_S25_a_step_that_was_asked_may_start_though_asking_spent_the_budget(new_engine, resolve, world, clock):
    engine = new_engine(budget_s=10)
    saga = saga_of(world.step("a", wanted=spend(clock, 50, True)))
    assert resolve(saga, on=engine).status == "success"


def test_S25_no_undo_starts_when_the_budget_is_spent(engine, resolve, world, clock):
    saga = saga_of(world.step("a"), world.step("b", spend(clock, 240, FAIL)))
    told = resolve(saga)
    assert told.status == "reschedule"
    assert world.undone == []
    assert engine.get(SAGA_ID).status is SagaStatus.COMPENSATING
    assert resolve(saga).output == "no"
    assert world.undone == ["a"]


def test_S25_a_wait_that_fits_the_budget_is_waited_out_in_the_process(resolve, world, clock):
    policy = RetryPolicy(stop=stop_after_attempt(2), wait=wait_fixed(239))
    assert resolve(saga_of(world.step("a", ValueError(), DONE, retry=policy))).status == "success"
    assert clock.slept_s == [239]


def test_S25_no_wait_starts_that_is_longer_than_what_is_left_of_the_budget(resolve, world, clock):
    policy = RetryPolicy(stop=stop_after_attempt(2), wait=wait_fixed(140))
    saga = saga_of(world.step("a", spend(clock, 101, ValueError("busy")), DONE, retry=policy))
    told = resolve(saga)
    assert (told.status, told.countdown) == ("reschedule", 140)
    assert clock.slept_s == []


def test_S25_a_spent_budget_does_not_keep_the_end_from_being_told(resolve, world, clock):
    assert resolve(saga_of(world.step("a", spend(clock, 1_000)))).status == "success"


def test_S25_the_budget_is_each_deliverys_own(new_engine, resolve, world, clock):
    engine = new_engine(budget_s=100)
    saga = saga_of(world.step("a", spend(clock, 60)), world.step("b", spend(clock, 60)), world.step("c"))
    assert resolve(saga, on=engine).status == "reschedule"
    assert world.executed == ["a", "b"]
    assert resolve(saga, on=engine).status == "success"


def test_S25_a_step_sees_what_is_left_of_the_budget(resolve, world, clock):
    left = []

    def look(request):
        left.append(current_context().remaining_s())
        return DONE

    resolve(saga_of(world.step("a", spend(clock, 100)), world.step("b", look)))
    assert left == [140]


# --- recover ------------------------------------------------------------------------------------------------------


def test_S15_recover_does_not_wait_out_what_it_finds_waiting(journal, new_engine, resolve, world, clock):
    policy = RetryPolicy(stop=stop_after_attempt(9), wait=wait_fixed(50))
    saga = saga_of(world.step("a", ValueError("1"), ValueError("2"), ValueError("3"), DONE, retry=policy))
    engine = new_engine(sagas=[saga], budget_s=10)
    resolve(saga, on=engine)
    clock.advance(50)
    with_budget = new_engine(sagas=[saga])
    assert with_budget.recover() == 1
    assert clock.slept_s == []
    assert with_budget.get(SAGA_ID).next_due_at == clock.now() + 50


def test_S16_recover_leaves_alone_what_a_live_drive_holds(new_engine, resolve, world):
    counts = []

    def meet(request):
        counts.append(elsewhere(new_engine(sagas=[saga]).recover))
        return DONE

    saga = saga_of(world.step("a", meet))
    resolve(saga)
    assert counts == [0]
    assert world.executed == ["a"]


def test_S16_recover_counts_what_it_took_up(journal, new_engine, resolve, world):
    saga = saga_of(world.step("a"))
    for number in range(3):
        with pytest.raises(Crash):
            resolve(saga, {"id": f"PR-{number}"}, on=new_engine(Mortal(journal, dies_before=StepCompleted)))
    engine = new_engine(sagas=[saga])
    assert engine.recover() == 3
    assert {record.status for record in engine.search()} == {SagaStatus.COMPLETED}
    assert engine.recover() == 0


# --- the table of answers -----------------------------------------------------------------------------------------


def test_answers_a_parked_execution_says_where_why_and_what_to_look_at(engine, resolve, world):
    saga = saga_of(world.step("a", undo=reraise), world.step("b", FAIL))
    first, again = resolve(saga), resolve(saga)
    text = f"parked at a: no undo; see: saga show {SAGA_ID}"
    assert (first.status, first.output) == (again.status, again.output) == ("fail", text)
    assert world.undone == ["a"]
    assert engine.get(SAGA_ID).status is SagaStatus.PARKED


def test_answers_the_show_command_of_a_later_generation_names_that_generation(resolve, world):
    saga = saga_of(
        world.step("a", undo=[DONE, reraise]), world.step("b", FAIL), restarts=lambda self, request, previous: True
    )
    assert resolve(saga).output == "no"
    assert resolve(saga).output.endswith(f"see: saga show {SAGA_ID}#2")


def test_answers_a_saga_may_say_what_to_answer_when_it_is_parked(resolve, world):
    records = []

    def parked_response(self, record):
        records.append(record)
        return BackgroundResponse.skip(f"ask {record.error}")

    saga = saga_of(world.step("a", undo=reraise), world.step("b", FAIL), parked_response=parked_response)
    for _ in range(2):
        told = resolve(saga)
        assert (told.status, told.output) == ("skip", "ask parked at a: no undo")
    assert [record.status for record in records] == [SagaStatus.PARKED] * 2


def test_answers_a_cancelled_execution_fails_with_the_reason(new_engine, resolve, world):
    saga = saga_of(world.step("a"), world.step("b", LATER))
    engine = new_engine(sagas=[saga])
    resolve(saga, on=engine)
    engine.cancel(SAGA_ID, "changed our mind")
    told = resolve(saga, on=engine)
    assert (told.status, told.output) == ("fail", "cancelled: changed our mind")
    assert world.undone == ["b", "a"]


class Failing:
    """A journal whose n-th commit (from 1) is refused with an error."""

    def __init__(self, journal: Any, number: int, error: BaseException) -> None:
        self._journal, self._number, self._error = journal, number, error
        self._lock = threading.Lock()
        self.url = journal.url

    def __getattr__(self, name: str) -> Any:
        return getattr(self._journal, name)

    def append(self, commit: Any) -> Any:
        with self._lock:
            self._number -= 1
            if self._number == 0:
                raise self._error
        return self._journal.append(commit)

    def submit(self, commit: Any, done: Any) -> None:
        try:
            result = self.append(commit)
        except BaseException as error:
            result = error
        done(result)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_answers_a_drive_that_lost_its_lease_is_told_to_come_back(journal, new_engine, resolve, world, number):
    saga = saga_of(world.step("a"), world.step("b"))
    told = resolve(saga, on=new_engine(Failing(journal, number, LeaseLost("overtaken"))))
    assert (told.status, told.countdown) == ("reschedule", 30)
    assert world.executed == ["a", "b"][: number - 1]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_answers_a_journal_that_cannot_be_written_raises_and_the_next_delivery_goes_on(
    journal, new_engine, resolve, world, number
):
    saga = saga_of(world.step("a"), world.step("b"))
    with pytest.raises(JournalUnavailable, match="disk is full"):
        resolve(saga, on=new_engine(Failing(journal, number, JournalUnavailable("the disk is full"))))
    assert world.executed == ["a", "b"][: number - 1]
    assert resolve(saga).status == "success"
    assert set(world.executed) == {"a", "b"}
    assert world.executed.count("a") == (2 if number == 2 else 1)


def test_answers_a_suspension_that_could_not_be_journaled_is_not_told(journal, new_engine, resolve, world):
    saga = saga_of(world.step("a", LATER, DONE))
    with pytest.raises(JournalUnavailable):
        resolve(saga, on=new_engine(Failing(journal, 2, JournalUnavailable("the disk is full"))))
    assert resolve(saga).status == "success"


def test_answers_a_parking_that_could_not_be_journaled_is_not_told(engine, journal, new_engine, resolve, world):
    saga = saga_of(world.step("a", undo=reraise), world.step("b", FAIL))
    crash_in(resolve, new_engine, journal, saga, dies_before=SagaParked)
    assert engine.get(SAGA_ID).status is not SagaStatus.PARKED
    assert resolve(saga).output.startswith("parked at a")


def test_answers_a_step_that_was_started_is_never_started_beside_itself(journal, new_engine, resolve, world):
    saga = saga_of(world.step("a"))
    crash_in(resolve, new_engine, journal, saga, dies_after=StepStarted)
    assert world.executed == []
    assert resolve(saga).status == "success"
    assert world.executed == ["a"]


class Interrupted:
    """A journal whose first commit is durable, and whose caller is interrupted before it learns of that."""

    def __init__(self, journal):
        self._journal = journal
        self._is_first = True

    def __getattr__(self, name):
        return getattr(self._journal, name)

    def append(self, commit):
        result = self._journal.append(commit)
        if self._is_first:
            self._is_first = False
            raise KeyboardInterrupt
        return result


def test_answers_a_commit_that_was_interrupted_when_it_was_durable_leaves_no_lease_behind(journal, new_engine, world):
    saga = saga_of(world.step("a"))
    with pytest.raises(KeyboardInterrupt):
        saga.make(engine=new_engine(Interrupted(journal))).resolve({"id": "PR-1"})
    assert saga.make(engine=new_engine()).resolve({"id": "PR-1"}).status == "success"
    assert len(world.executed) == 1
