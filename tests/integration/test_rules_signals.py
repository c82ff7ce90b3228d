"""Rules S31 and S23: signals are kept until they are awaited; a cancellation undoes what started, in every phase."""

from __future__ import annotations

import threading

import pytest
from connect.eaas.core.responses import BackgroundResponse
from gates import Gate, LoudMortal, Watch, gated
from msgspec import Raw
from pairs import in_pairs
from sagas import DONE, SAGA_ID, Crash, remember, saga_of, stable_id, statuses
from tenacity import stop_after_attempt, wait_fixed

from saga_engine import Chain, Parallel, SagaStatus, WaitFor
from saga_engine.corrections import SIGNALS_MAX
from saga_engine.errors import (
    BadRequest,
    LimitReached,
    NotAllowed,
    NotJSON,
    SagaCancelled,
    SignalTimedOut,
    UnknownExecution,
)
from saga_engine.journal import CancelRequested, CompensationStarted, SignalAwaited, SignalReceived, StepCompleted
from transactions import Kind, Probe, RetryPolicy, Suspend

FAIL = BackgroundResponse.fail("no")
LATER = BackgroundResponse.reschedule(60)
ONCE = RetryPolicy(stop=stop_after_attempt(1))
TWICE = RetryPolicy(stop=stop_after_attempt(2), wait=wait_fixed(1_000))
WAIT = "Wait for ok"

pytestmark = in_pairs


@pytest.fixture
def running(new_engine, resolve):
    """`running(saga)`: deliver the request once, and give the engine, which knows the saga."""

    def run(saga, request=None, **options):
        engine = new_engine(sagas=[saga], **options)
        run.told = resolve(saga, request, on=engine)
        return engine

    return run


# --- S31: waiting -------------------------------------------------------------------------------------------------


def test_S31_a_saga_waits_for_its_signal_and_finds_the_payload_in_its_state(running, world):
    engine = running(saga_of(world.step("a", remember(a=1)), WaitFor("ok"), world.step("b")))
    record = engine.get(SAGA_ID)
    assert record.status is SagaStatus.SUSPENDED
    assert record.next_due_at is None
    assert statuses(record) == {"a": "COMPLETED", WAIT: "SUSPENDED", "b": "PENDING"}
    assert (running.told.status, running.told.countdown) == ("reschedule", 30)
    engine.signal(SAGA_ID, "ok", {"by": ["ann", 1]})
    assert world.of("b")[0].state == {"a": 1, "ok": {"by": ["ann", 1]}}
    assert engine.get(SAGA_ID).status is SagaStatus.COMPLETED


@pytest.mark.parametrize("payload", [None, False, 0, "", [], {}, "text", {"n": 1.5}], ids=stable_id)
def test_S31_any_json_may_be_a_payload(running, world, payload):
    engine = running(saga_of(WaitFor("ok"), world.step("b")))
    engine.signal(SAGA_ID, "ok", payload)
    assert world.of("b")[0].state == {"ok": payload}
    assert type(world.of("b")[0].state["ok"]) is type(payload)


def test_S31_a_signal_of_another_name_ends_no_wait(running, world):
    engine = running(saga_of(WaitFor("ok"), world.step("b")))
    engine.signal(SAGA_ID, "OK")
    assert engine.get(SAGA_ID).status is SagaStatus.SUSPENDED
    assert engine.get(SAGA_ID).state == {}


def test_S31_a_signal_that_came_before_it_is_awaited_is_not_lost(running, world, resolve):
    saga = saga_of(world.step("a", LATER, DONE), WaitFor("ok"), world.step("b"))
    engine = running(saga)
    engine.signal(SAGA_ID, "ok", 7)
    assert engine.get(SAGA_ID).status is SagaStatus.SUSPENDED
    assert engine.get(SAGA_ID).state == {}
    assert resolve(saga, on=engine).status == "success"
    assert world.of("b")[0].state == {"ok": 7}


def test_S31_a_signal_that_comes_while_a_step_runs_is_not_lost(new_engine, resolve, world):
    def send(request):
        engine.signal(SAGA_ID, "ok", 7)
        return DONE

    saga = saga_of(world.step("a", send), WaitFor("ok"), world.step("b"))
    engine = new_engine(sagas=[saga])
    assert resolve(saga, on=engine).status == "success"
    assert world.of("b")[0].state == {"ok": 7}


def test_S31_signals_of_one_name_are_taken_one_by_one_in_their_order(running, world, resolve):
    one, two = WaitFor("ok", name="first"), WaitFor("ok", name="second")
    saga = saga_of(
        world.step("a", LATER, DONE), one, world.step("b"), two, world.step("c"), WaitFor("ok", name="third")
    )
    engine = running(saga)
    engine.signal(SAGA_ID, "ok", 1)
    engine.signal(SAGA_ID, "ok", 2)
    resolve(saga, on=engine)
    assert world.of("b")[0].state == {"ok": 1}
    assert world.of("c")[0].state == {"ok": 2}
    assert engine.get(SAGA_ID).status is SagaStatus.SUSPENDED
    engine.signal(SAGA_ID, "ok", 3)
    assert engine.get(SAGA_ID).status is SagaStatus.COMPLETED
    assert engine.get(SAGA_ID).state == {"ok": 3}


def test_S31_one_signal_ends_one_of_two_waits_for_it(running, world):
    group = Parallel(WaitFor("ok", name="first"), WaitFor("ok", name="second"))
    engine = running(saga_of(group, world.step("b")))
    engine.signal(SAGA_ID, "ok", 1)
    assert statuses(engine.get(SAGA_ID)) == {"first": "COMPLETED", "second": "SUSPENDED", "b": "PENDING"}
    engine.signal(SAGA_ID, "ok", 1)
    assert engine.get(SAGA_ID).status is SagaStatus.COMPLETED


def test_S31_a_kept_signal_costs_no_commit_of_its_own_when_it_is_awaited(new_engine, resolve, world):
    watch = Watch()
    saga = saga_of(world.step("a", LATER, DONE), WaitFor("ok"), world.step("b"))
    engine = new_engine(sagas=[saga], observer=watch)
    resolve(saga, on=engine)
    engine.signal(SAGA_ID, "ok")
    before = len(watch.commits)
    resolve(saga, on=engine)
    assert len(watch.commits) - before == 3
    assert watch.count(SignalAwaited)[before:] == [0, 1, 0]


def test_S31_a_delivery_does_not_end_the_wait_and_makes_no_commit(new_engine, resolve, world):
    watch = Watch()
    saga = saga_of(world.step("a"), WaitFor("ok", timeout_s=500), world.step("b"))
    engine = new_engine(sagas=[saga], observer=watch)
    resolve(saga, on=engine)
    before = len(watch.commits)
    told = resolve(saga, on=engine)
    assert (told.status, told.countdown) == ("reschedule", 500)
    assert len(watch.commits) == before
    assert world.executed == ["a"]


def test_S31_a_delivery_with_another_request_leaves_it_behind_and_waits_on(running, resolve, world):
    saga = saga_of(WaitFor("ok"), world.step("b"))
    engine = running(saga, {"id": "PR-1", "n": 1})
    assert resolve(saga, {"id": "PR-1", "n": 2}, on=engine).status == "reschedule"
    assert engine.get(SAGA_ID).status is SagaStatus.SUSPENDED
    engine.signal(SAGA_ID, "ok")
    assert world.of("b")[0].request == {"id": "PR-1", "n": 2}


def test_S31_a_delivery_for_the_step_beside_it_does_not_end_the_wait(running, resolve, world):
    saga = saga_of(Parallel(WaitFor("ok"), world.step("a", LATER, DONE)), world.step("b"))
    engine = running(saga)
    resolve(saga, on=engine)
    assert statuses(engine.get(SAGA_ID)) == {WAIT: "SUSPENDED", "a": "COMPLETED", "b": "PENDING"}
    engine.signal(SAGA_ID, "ok", 1)
    assert engine.get(SAGA_ID).status is SagaStatus.COMPLETED


def test_S31_an_engine_that_cannot_drive_keeps_the_signal_for_one_that_can(new_engine, resolve, world):
    saga = saga_of(WaitFor("ok"), world.step("b"))
    resolve(saga, on=new_engine(sagas=[saga]))
    stranger = new_engine(config=None)
    stranger.signal(SAGA_ID, "ok", 1)
    assert stranger.get(SAGA_ID).status is SagaStatus.SUSPENDED
    assert new_engine(sagas=[saga]).recover() == 1
    assert world.of("b")[0].state == {"ok": 1}


def test_S31_a_wait_survives_the_death_of_the_process(journal, new_engine, resolve, world):
    process = LoudMortal(journal, dies_after=SignalAwaited)
    saga = saga_of(world.step("a"), WaitFor("ok"), world.step("b"))
    with pytest.raises(Crash):
        resolve(saga, on=new_engine(process))
    engine = new_engine(sagas=[saga])
    engine.signal(SAGA_ID, "ok", 1)
    assert engine.get(SAGA_ID).status is SagaStatus.COMPLETED
    assert world.executed == ["a", "b"]


def test_S31_a_signal_taken_in_by_a_process_that_dies_is_not_lost(journal, new_engine, resolve, world):
    saga = saga_of(WaitFor("ok"), world.step("b"), world.step("c"))
    resolve(saga, on=new_engine(sagas=[saga]))
    process = LoudMortal(journal, dies_before=SignalReceived)
    with pytest.raises(Crash):
        new_engine(process, sagas=[saga]).signal(SAGA_ID, "ok", 1)
    engine = new_engine(sagas=[saga])
    engine.recover()
    assert engine.get(SAGA_ID).status is SagaStatus.COMPLETED
    assert world.of("b")[0].state == {"ok": 1}


def test_S31_a_step_that_suspended_for_a_signal_runs_again_with_its_payload(running, world):
    a = world.step("a", Suspend(BackgroundResponse.done(), signal="ok"), DONE)
    engine = running(saga_of(a, world.step("b")))
    assert running.told.status == "success"
    engine.signal(SAGA_ID, "ok", "yes")
    assert world.of("a")[1].state == {"ok": "yes"}
    assert world.executed == ["a", "a", "b"]


# --- S31: time-outs -----------------------------------------------------------------------------------------------


def test_S31_the_time_out_is_a_failure_exactly_at_its_time(running, world, clock):
    engine = running(saga_of(world.step("a"), WaitFor("ok", timeout_s=500), world.step("b")))
    assert engine.get(SAGA_ID).next_due_at == clock.now() + 500
    assert running.told.countdown == 500
    clock.advance(499.5)
    assert engine.recover() == 0
    clock.advance(0.5)
    assert engine.recover() == 1
    record = engine.get(SAGA_ID)
    assert record.status is SagaStatus.COMPENSATED
    assert "did not come within 500 s" in record.error
    assert world.undone == ["a"]
    assert isinstance(world.of("a", "compensate")[0].error, SignalTimedOut)
    assert statuses(record) == {"a": "COMPENSATED", WAIT: "FAILED", "b": "PENDING"}


def test_S31_a_delivery_at_its_time_times_out_too(running, resolve, world, clock):
    saga = saga_of(world.step("a"), WaitFor("ok", timeout_s=500))
    engine = running(saga)
    clock.advance(500)
    told = resolve(saga, on=engine)
    assert told.status == "fail"
    assert "did not come within 500 s" in told.output


def test_S31_the_time_counts_from_when_the_saga_came_to_wait(running, resolve, world, clock):
    saga = saga_of(world.step("a", LATER, DONE), WaitFor("ok", timeout_s=100))
    engine = running(saga)
    clock.advance(1_000)
    resolve(saga, on=engine)
    assert engine.get(SAGA_ID).next_due_at == clock.now() + 100


def test_S31_a_delivery_does_not_prolong_the_wait(running, resolve, world, clock):
    saga = saga_of(WaitFor("ok", timeout_s=100), world.step("b"))
    engine = running(saga, {"id": "PR-1", "n": 1})
    clock.advance(60)
    resolve(saga, {"id": "PR-1", "n": 2}, on=engine)
    clock.advance(40)
    engine.recover()
    assert engine.get(SAGA_ID).status is SagaStatus.COMPENSATED


def test_S31_a_signal_just_before_its_time_counts(running, world, clock):
    engine = running(saga_of(WaitFor("ok", timeout_s=100), world.step("b")))
    clock.advance(99)
    engine.signal(SAGA_ID, "ok", 1)
    assert engine.get(SAGA_ID).status is SagaStatus.COMPLETED


def test_S31_a_signal_that_was_sent_in_time_counts_although_it_is_taken_in_later(new_engine, resolve, world, clock):
    saga = saga_of(world.step("a"), WaitFor("ok", timeout_s=100), world.step("b"))
    resolve(saga, on=new_engine(sagas=[saga]))
    clock.advance(99)
    new_engine(config=None).signal(SAGA_ID, "ok", 1)
    clock.advance(50)
    engine = new_engine(sagas=[saga])
    engine.recover()
    assert engine.get(SAGA_ID).status is SagaStatus.COMPLETED
    assert world.undone == []


def test_S31_a_signal_that_was_sent_after_its_time_comes_too_late(running, world, clock):
    engine = running(saga_of(world.step("a"), WaitFor("ok", timeout_s=100), world.step("b")))
    clock.advance(101)
    engine.signal(SAGA_ID, "ok", 1)
    assert engine.get(SAGA_ID).status is SagaStatus.COMPENSATED
    assert world.executed == ["a"]


def test_S31_a_time_out_in_a_branch_ends_the_group_when_the_other_step_is_over(running, world, clock):
    group = Parallel(WaitFor("ok", timeout_s=100), world.step("b", BackgroundResponse.reschedule(600)))
    engine = running(saga_of(world.step("a"), group))
    assert engine.get(SAGA_ID).next_due_at == clock.now() + 100
    clock.advance(100)
    engine.recover()
    assert engine.get(SAGA_ID).status is SagaStatus.COMPENSATED
    assert world.undone == ["b", "a"]


def test_S31_without_a_time_out_of_its_own_it_waits_until_the_sagas_deadline(running, world, clock):
    engine = running(saga_of(world.step("a"), WaitFor("ok"), deadline_s=1_000))
    assert engine.get(SAGA_ID).next_due_at == clock.now() + 1_000
    clock.advance(1_000)
    engine.recover()
    assert engine.get(SAGA_ID).status is SagaStatus.COMPENSATED
    assert engine.get(SAGA_ID).error == "the saga's deadline passed"


def test_S31_behind_a_pivot_a_time_out_parks_and_resume_waits_again(running, world, clock):
    saga = saga_of(world.step("p", kind=Kind.PIVOT), WaitFor("ok", timeout_s=100), world.step("c", kind=Kind.RETRIABLE))
    engine = running(saga)
    clock.advance(100)
    engine.recover()
    record = engine.get(SAGA_ID)
    assert record.status is SagaStatus.PARKED
    assert "did not come within 100 s" in record.error
    engine.resume(SAGA_ID, note="they promised", who="ann")
    assert engine.get(SAGA_ID).status is SagaStatus.SUSPENDED
    assert engine.get(SAGA_ID).next_due_at == clock.now() + 100
    engine.signal(SAGA_ID, "ok", 1)
    assert engine.get(SAGA_ID).status is SagaStatus.COMPLETED
    assert world.undone == []


def test_S31_a_signal_for_a_wait_that_parked_is_there_when_it_is_resumed(running, world, clock):
    saga = saga_of(world.step("p", kind=Kind.PIVOT), WaitFor("ok", timeout_s=100), world.step("c", kind=Kind.RETRIABLE))
    engine = running(saga)
    clock.advance(100)
    engine.recover()
    engine.signal(SAGA_ID, "ok", 1)
    assert engine.get(SAGA_ID).status is SagaStatus.PARKED
    engine.resume(SAGA_ID)
    assert engine.get(SAGA_ID).status is SagaStatus.COMPLETED
    assert world.of("c")[0].state == {"ok": 1}


@pytest.mark.parametrize("outcome", ["done", "not_done"])
def test_S31_a_wait_that_parked_behind_the_pivot_is_resolved_by_a_person(running, world, clock, outcome):
    saga = saga_of(world.step("p", kind=Kind.PIVOT), WaitFor("ok", timeout_s=100), world.step("c", kind=Kind.RETRIABLE))
    engine = running(saga)
    clock.advance(100)
    engine.recover()
    engine.resolve_parked(SAGA_ID, WAIT, outcome=outcome, note="called them")
    if outcome == "not_done":
        assert engine.get(SAGA_ID).status is SagaStatus.SUSPENDED
        engine.signal(SAGA_ID, "ok", 1)
    assert engine.get(SAGA_ID).status is SagaStatus.COMPLETED


def test_S31_a_wait_that_parked_at_a_limit_can_be_resumed(running, resolve, world, clock):
    saga = saga_of(
        Parallel(WaitFor("ok"), world.step("a", LATER, LATER, LATER, DONE)), world.step("b"), reschedules_max=2
    )
    engine = running(saga)
    for _ in range(4):
        resolve(saga, on=engine)
    assert engine.get(SAGA_ID).status is SagaStatus.PARKED
    engine.resume(SAGA_ID, force=True)
    assert engine.get(SAGA_ID).status is SagaStatus.SUSPENDED
    resolve(saga, on=engine)
    engine.signal(SAGA_ID, "ok", 1)
    assert engine.get(SAGA_ID).status is SagaStatus.COMPLETED


# --- S31: what is refused -----------------------------------------------------------------------------------------


def test_S31_a_signal_for_nobody_or_for_an_ended_execution_is_refused(running, world):
    engine = running(saga_of(world.step("a")))
    with pytest.raises(UnknownExecution):
        engine.signal("Order:nobody", "ok")
    with pytest.raises(NotAllowed, match="ended COMPLETED"):
        engine.signal(SAGA_ID, "ok")


@pytest.mark.parametrize(
    ("name", "payload", "error"),
    [("", 1, BadRequest), (None, 1, BadRequest), ("ok", object(), NotJSON), ("ok", {"a": {1, 2}}, NotJSON)],
    ids=["empty", "None", "object", "set"],
)
def test_S28_a_signal_that_cannot_be_journaled_is_refused(running, world, name, payload, error):
    engine = running(saga_of(WaitFor("ok"), world.step("b")))
    with pytest.raises(error):
        engine.signal(SAGA_ID, name, payload)
    engine.signal(SAGA_ID, "ok", 1)
    assert engine.get(SAGA_ID).status is SagaStatus.COMPLETED


def test_J08_an_execution_keeps_so_many_signals_and_no_more(running, world):
    engine = running(saga_of(world.step("a", LATER), WaitFor("ok")))
    eid = engine.journal.header(SAGA_ID).eid
    engine.signal(SAGA_ID, "noise")
    for _ in range(SIGNALS_MAX - 1):
        engine.journal.put(eid, SignalReceived(at=0.0, name="noise", payload=Raw(b"1")))
    with pytest.raises(LimitReached, match=f"{SIGNALS_MAX} signals"):
        engine.signal(SAGA_ID, "ok")


# --- S23: cancelling, phase by phase ------------------------------------------------------------------------------


def test_S23_a_suspended_execution_is_cancelled_by_the_callers_engine(running, world):
    engine = running(saga_of(world.step("a"), world.step("b", LATER), world.step("c")))
    engine.cancel(SAGA_ID, "changed my mind", who="ann")
    record = engine.get(SAGA_ID)
    assert record.status is SagaStatus.CANCELLED
    assert (record.response.status, record.response.output) == ("fail", "cancelled: changed my mind")
    assert world.undone == ["b", "a"]
    errors = [call.error for call in world.calls if call.operation == "compensate"]
    assert [(type(error), str(error)) for error in errors] == [(SagaCancelled, "changed my mind")] * 2
    (entry,) = [e for e in engine.history(SAGA_ID) if isinstance(e, CancelRequested)]
    assert (entry.reason, entry.who) == ("changed my mind", "ann")


def test_S23_the_running_step_is_waited_for_and_then_undone_with_what_it_did(new_engine, resolve, world):
    def cancel(request):
        engine.cancel(SAGA_ID, "stop")
        return remember(DONE, b=1)(request)

    saga = saga_of(world.step("a"), world.step("b", cancel), world.step("c"))
    engine = new_engine(sagas=[saga])
    told = resolve(saga, on=engine)
    assert told.output == "cancelled: stop"
    assert world.executed == ["a", "b"]
    assert world.undone == ["b", "a"]
    assert world.of("b", "compensate")[0].state == {"b": 1}


def test_S23_a_cancel_that_came_before_the_finish_wins(new_engine, resolve, world):
    def cancel(request):
        engine.cancel(SAGA_ID, "stop")
        return DONE

    saga = saga_of(world.step("a", cancel))
    engine = new_engine(sagas=[saga])
    assert resolve(saga, on=engine).output == "cancelled: stop"
    assert engine.get(SAGA_ID).status is SagaStatus.CANCELLED


def test_S23_while_it_waits_for_a_retry(new_engine, resolve, world, clock):
    saga = saga_of(world.step("a"), world.step("b", ValueError("busy"), retry=TWICE), world.step("c"))
    engine = new_engine(sagas=[saga], budget_s=100)
    assert resolve(saga, on=engine).status == "reschedule"
    engine.cancel(SAGA_ID, "stop")
    assert engine.get(SAGA_ID).status is SagaStatus.CANCELLED
    assert world.undone == ["b", "a"]
    assert clock.slept_s == []


def test_S23_while_it_waits_for_a_signal(running, world):
    engine = running(saga_of(world.step("a"), WaitFor("ok"), world.step("b")))
    engine.cancel(SAGA_ID, "stop")
    assert engine.get(SAGA_ID).status is SagaStatus.CANCELLED
    assert world.undone == ["a"]


def test_S23_while_a_step_waits_for_a_signal(running, world):
    engine = running(saga_of(world.step("a", Suspend(BackgroundResponse.done(), signal="ok")), world.step("b")))
    engine.cancel(SAGA_ID, "stop")
    assert engine.get(SAGA_ID).status is SagaStatus.CANCELLED
    assert world.undone == ["a"]


def test_S23_in_a_group_the_running_branches_are_waited_for(new_engine, resolve, world):
    watch = Watch()

    def cancel(request):
        engine.cancel(SAGA_ID, "stop")
        return DONE

    b = gated(world.step("b"), waits_for=watch.gate(StepCompleted, "a"))
    saga = saga_of(Parallel(Chain(world.step("a", cancel), world.step("a2")), b), world.step("c"))
    engine = new_engine(sagas=[saga], observer=watch)
    assert resolve(saga, on=engine).output == "cancelled: stop"
    assert world.executed == ["a", "b"]
    assert world.undone == ["b", "a"]


def test_S23_in_a_group_that_waits_everything_that_started_is_undone(running, world):
    group = Parallel(world.step("b", LATER), WaitFor("ok"), Chain(world.step("c"), world.step("d", LATER)))
    engine = running(saga_of(world.step("a"), group))
    engine.cancel(SAGA_ID, "stop")
    assert engine.get(SAGA_ID).status is SagaStatus.CANCELLED
    assert sorted(world.undone[:-1]) == ["b", "c", "d"]
    assert world.undone.index("d") < world.undone.index("c")
    assert world.undone[-1] == "a"


def test_S23_a_failed_step_that_was_being_retried_is_probed_before_it_is_undone(new_engine, resolve, world):
    saga = saga_of(world.step("a"), world.step("b", ValueError("busy"), retry=TWICE, probe=Probe.NOT_DONE))
    engine = new_engine(sagas=[saga], budget_s=100)
    resolve(saga, on=engine)
    engine.cancel(SAGA_ID, "stop")
    assert world.probed == ["b"]
    assert world.undone == ["a"]
    assert engine.get(SAGA_ID).status is SagaStatus.CANCELLED


def test_S23_an_uncertain_pivot_is_waited_for_and_if_it_was_not_done_the_cancellation_counts(
    new_engine, resolve, world, clock
):
    p = world.step("p", ValueError("lost"), kind=Kind.PIVOT, retry=TWICE, probe=Probe.NOT_DONE)
    saga = saga_of(world.step("a"), p)
    engine = new_engine(sagas=[saga], budget_s=100)
    resolve(saga, on=engine)
    engine.cancel(SAGA_ID, "stop")
    assert engine.get(SAGA_ID).status is SagaStatus.SUSPENDED
    assert world.undone == []
    clock.advance(1_000)
    engine.recover()
    assert engine.get(SAGA_ID).status is SagaStatus.CANCELLED
    assert world.executed == ["a", "p"]
    assert world.undone == ["a"]


def test_S23_an_uncertain_pivot_that_turns_out_done_goes_forward(new_engine, resolve, world, clock):
    p = world.step("p", ValueError("lost"), kind=Kind.PIVOT, retry=TWICE, probe=Probe.DONE)
    saga = saga_of(world.step("a"), p, world.step("c", kind=Kind.RETRIABLE))
    engine = new_engine(sagas=[saga], budget_s=100)
    resolve(saga, on=engine)
    engine.cancel(SAGA_ID, "stop")
    clock.advance(1_000)
    engine.recover()
    assert engine.get(SAGA_ID).status is SagaStatus.COMPLETED
    assert world.undone == []


def test_S23_while_it_compensates_the_compensation_goes_on(running, resolve, world):
    saga = saga_of(world.step("a"), world.step("b", undo=[LATER, DONE]), world.step("c", FAIL))
    engine = running(saga)
    assert engine.get(SAGA_ID).status is SagaStatus.COMPENSATING
    engine.cancel(SAGA_ID, "stop")
    resolve(saga, on=engine)
    assert world.undone == ["b", "b", "a"]
    assert engine.get(SAGA_ID).status in (SagaStatus.COMPENSATED, SagaStatus.CANCELLED)
    assert world.executed == ["a", "b", "c"]


def test_S23_with_a_cancellation_pending_a_failing_step_is_not_run_again(new_engine, resolve, world):
    def cancel(request, e):
        engine.cancel(SAGA_ID, "stop")
        return LATER

    saga = saga_of(world.step("a"), world.step("b", ValueError("no"), undo=[cancel, DONE]))
    engine = new_engine(sagas=[saga])
    resolve(saga, on=engine)
    resolve(saga, on=engine)
    assert world.executed == ["a", "b"]
    assert world.undone == ["b", "b", "a"]


def test_S23_a_parked_execution_is_cancelled_once_its_step_is_resolved(journal, new_engine, resolve, world):
    process = LoudMortal(journal)
    saga = saga_of(world.step("a"), world.step("b", process.die, on_unknown="park"), world.step("c"))
    with pytest.raises(Crash):
        resolve(saga, on=new_engine(process))
    engine = new_engine(sagas=[saga])
    assert resolve(saga, on=engine).output.startswith("parked at b")
    engine.cancel(SAGA_ID, "stop")
    assert engine.get(SAGA_ID).status is SagaStatus.PARKED
    engine.resolve_parked(SAGA_ID, "b", outcome="done", note="it is there")
    assert engine.get(SAGA_ID).status is SagaStatus.CANCELLED
    assert world.undone == ["b", "a"]


def test_S23_a_parked_compensation_ends_when_it_is_resolved(running, world):
    b = world.step("b", undo=ValueError("stuck"), compensation_retry=ONCE)
    engine = running(saga_of(world.step("a"), b, world.step("c", FAIL)))
    engine.cancel(SAGA_ID, "stop")
    assert engine.get(SAGA_ID).status is SagaStatus.PARKED
    engine.resolve_parked(SAGA_ID, "b", note="done by hand")
    assert engine.get(SAGA_ID).status in (SagaStatus.COMPENSATED, SagaStatus.CANCELLED)
    assert world.undone == ["b", "a"]


@pytest.mark.parametrize(
    ("answer", "status"),
    [(DONE, "COMPLETED"), (FAIL, "COMPENSATED"), (BackgroundResponse.skip("no"), "SKIPPED")],
    ids=["completed", "compensated", "skipped"],
)
def test_S23_an_ended_execution_is_not_cancelled(running, world, answer, status):
    engine = running(saga_of(world.step("a", answer)))
    with pytest.raises(NotAllowed, match=f"ended {status}"):
        engine.cancel(SAGA_ID, "too late")
    assert engine.get(SAGA_ID).status.value == status


def test_S23_cancelled_twice_is_cancelled_once_for_the_first_reason(new_engine, resolve, world):
    def cancel(request):
        engine.cancel(SAGA_ID, "first")
        engine.cancel(SAGA_ID, "second")
        return DONE

    saga = saga_of(world.step("a", cancel))
    engine = new_engine(sagas=[saga])
    assert resolve(saga, on=engine).output == "cancelled: first"
    with pytest.raises(NotAllowed, match="ended CANCELLED"):
        engine.cancel(SAGA_ID, "third")


def test_S23_a_cancelled_execution_keeps_its_answer(running, resolve, world):
    saga = saga_of(world.step("a", LATER))
    engine = running(saga)
    engine.cancel(SAGA_ID, "stop")
    told = resolve(saga, on=engine)
    assert (told.status, told.output) == ("fail", "cancelled: stop")
    assert world.executed == ["a"]


def test_S23_an_undo_that_parks_after_a_cancellation_and_is_resolved_ends_cancelled(running, world):
    a = world.step("a", undo=ValueError("stuck"), compensation_retry=ONCE)
    engine = running(saga_of(world.step("before"), a, world.step("b", LATER)))
    engine.cancel(SAGA_ID, "stop")
    assert engine.get(SAGA_ID).status is SagaStatus.PARKED
    engine.resolve_parked(SAGA_ID, "a", note="by hand")
    assert engine.get(SAGA_ID).status is SagaStatus.CANCELLED
    assert world.undone == ["b", "a", "before"]


def test_S23_a_crash_in_the_middle_of_a_cancellation_goes_on_there(journal, new_engine, resolve, world):
    saga = saga_of(world.step("a"), world.step("b"), world.step("c", LATER))
    resolve(saga, on=new_engine(sagas=[saga]))
    process = LoudMortal(journal, dies_after=(CompensationStarted, "b"))
    with pytest.raises(Crash):
        new_engine(process, sagas=[saga]).cancel(SAGA_ID, "stop")
    engine = new_engine(sagas=[saga])
    engine.recover()
    assert engine.get(SAGA_ID).status is SagaStatus.CANCELLED
    assert world.undone == ["c", "b", "a"]


def test_S23_of_an_execution_that_another_thread_drives_the_holder_takes_the_cancellation_in(
    new_engine, resolve, world
):
    is_begun, may_end = Gate(), Gate()
    saga = saga_of(world.step("a"), gated(world.step("b"), opens=is_begun, waits_for=may_end), world.step("c"))
    engine, told = new_engine(sagas=[saga]), []
    thread = threading.Thread(target=lambda: told.append(resolve(saga, on=engine)))
    thread.start()
    is_begun.pass_through()
    new_engine(sagas=[saga]).cancel(SAGA_ID, "stop")
    assert world.undone == []
    may_end.open()
    thread.join(30)
    assert told[0].output == "cancelled: stop"
    assert world.undone == ["b", "a"]


@pytest.mark.parametrize("reason", [None, 5, ["x"]], ids=stable_id)
def test_S28_a_reason_that_is_no_text_is_refused_and_does_no_harm(running, resolve, world, reason):
    saga = saga_of(world.step("a", LATER, DONE))
    engine = running(saga)
    with pytest.raises(BadRequest):
        engine.cancel(SAGA_ID, reason)
    assert engine.get(SAGA_ID).status is SagaStatus.SUSPENDED
    assert resolve(saga, on=engine).status == "success"
