"""Rule S26: mode select, in which one delivery runs one transaction, the first that applies."""

from __future__ import annotations

from typing import Any

import pytest
from connect.eaas.core.responses import BackgroundResponse
from sagas import DONE, SAGA_ID, Crash, Mortal, remember, reraise, saga_of, statuses
from tenacity import stop_after_attempt, wait_fixed

from saga_engine import SagaStatus
from saga_engine.errors import NotAllowed, RecordedError, SagaError, TransactionNotSelected
from saga_engine.journal import CompensationDeclined, StepCompleted
from transactions import Probe, RetryPolicy, Suspend

FAIL = BackgroundResponse.fail("no")
LATER = BackgroundResponse.reschedule(60)


def select_of(*entries: Any, **attributes: Any):
    """Make a saga of mode select."""
    return saga_of(*entries, **{"mode": "select", **attributes})


def has(status: str):
    """Make a predicate of requests of this status."""
    return lambda request: request.get("status") == status


def request_of(status: str) -> dict[str, Any]:
    """Give the request of PR-1 with this status."""
    return {"id": "PR-1", "status": status}


def test_S26_the_first_transaction_that_applies_runs_and_no_other(engine, resolve, world):
    saga = select_of(
        world.step("a", wanted=False), world.step("b", wanted=True), world.step("c", wanted=True), world.step("d")
    )
    assert resolve(saga).status == "success"
    assert world.trace() == ["should_execute a", "should_execute b", "execute b"]
    assert engine.get(SAGA_ID).status is SagaStatus.COMPLETED


def test_S26_a_transaction_without_a_predicate_applies(resolve, world):
    assert resolve(select_of(world.step("a"), world.step("b"))).status == "success"
    assert world.executed == ["a"]


def test_S26_middlewares_wrap_the_selected_transaction(resolve, world):
    seen = []

    def middleware(request, nxt):
        seen.append(request["id"])
        return nxt(request)

    plain_world = type(world)()
    saga = select_of(
        plain_world.step("a", wanted=False), plain_world.step("b"), middlewares=lambda self, r: [middleware]
    )
    assert resolve(saga).status == "success"
    assert seen == ["PR-1"]


def test_S26_when_none_applies_that_is_an_error_and_nothing_is_journaled(engine, resolve, world):
    saga = select_of(world.step("a", wanted=False), world.step("b", wanted=False))
    with pytest.raises(TransactionNotSelected, match="Order: no transaction applies to this request"):
        resolve(saga)
    assert engine.search() == []
    assert world.executed == []


def test_S26_when_none_applies_to_a_later_delivery_the_execution_stays_as_it_was(engine, resolve, world):
    saga = select_of(world.step("a", LATER, DONE, wanted=has("new")))
    resolve(saga, request_of("new"))
    entries = engine.history(SAGA_ID)
    with pytest.raises(TransactionNotSelected):
        resolve(saga, request_of("other"))
    assert engine.history(SAGA_ID) == entries
    assert engine.get(SAGA_ID).held_by is None
    assert resolve(saga, request_of("new")).status == "success"


# --- how a generation ends ----------------------------------------------------------------------------------------

ENDS = {
    "done": (DONE, SagaStatus.COMPLETED),
    "fail": (FAIL, SagaStatus.COMPENSATED),
    "skip": (BackgroundResponse.skip("not now"), SagaStatus.SKIPPED),
}


@pytest.mark.parametrize("end", ENDS)
def test_S26_a_generation_ends_with_what_its_transaction_answers(engine, resolve, world, end):
    answer, status = ENDS[end]
    saga = select_of(world.step("a", wanted=False), world.step("b", answer))
    first, again = resolve(saga), resolve(saga)
    assert (first.status, first.output) == (again.status, again.output) == (answer.status, answer.output)
    assert engine.get(SAGA_ID).status is status
    assert world.executed == ["b"]
    assert world.undone == []


@pytest.mark.parametrize("end", ENDS)
def test_S26_an_exception_goes_to_the_transactions_own_undo_whose_answer_is_the_result(engine, resolve, world, end):
    answer, status = ENDS[end]
    error = ValueError("broken")
    saga = select_of(world.step("a", wanted=False), world.step("b", error, undo=answer))
    told = resolve(saga)
    assert (told.status, told.output) == (answer.status, answer.output)
    assert world.of("b", "compensate")[0].error is error
    assert world.undone == ["b"]
    assert engine.get(SAGA_ID).status is status
    assert resolve(saga).status == answer.status


def test_S26_an_undo_that_re_raises_makes_the_very_exception_the_result(engine, resolve, world):
    error = ValueError("broken")
    saga = select_of(world.step("a", error, undo=reraise))
    with pytest.raises(ValueError, match="broken") as raised:
        resolve(saga)
    assert raised.value is error
    assert engine.get(SAGA_ID).status is SagaStatus.SUSPENDED
    assert engine.get(SAGA_ID).held_by is None


def test_S26_another_exception_of_the_undo_is_the_result_and_is_not_retried(resolve, world):
    saga = select_of(
        world.step("a", ValueError("broken"), undo=RuntimeError("worse"), compensation_retry=RetryPolicy())
    )
    with pytest.raises(RuntimeError, match="worse"):
        resolve(saga)
    assert world.undone == ["a"]


def test_S26_without_an_undo_the_exception_is_the_result(resolve, world):
    with pytest.raises(ValueError, match="broken"):
        resolve(select_of(world.step("a", ValueError("broken"), undo=None)))


def test_S26_after_an_exception_the_next_delivery_selects_again_and_the_key_is_kept(engine, resolve, world):
    saga = select_of(world.step("a", ValueError("broken"), DONE, undo=reraise))
    with pytest.raises(ValueError, match="broken"):
        resolve(saga)
    assert resolve(saga).status == "success"
    first, second = world.of("a")
    assert first.key == second.key
    assert engine.get(SAGA_ID).status is SagaStatus.COMPLETED


def test_S26_an_exception_survives_the_death_of_the_process_before_it_is_raised(journal, new_engine, resolve, world):
    saga = select_of(world.step("a", ValueError("broken"), DONE, undo=reraise))
    with pytest.raises(Crash):
        resolve(saga, on=new_engine(Mortal(journal, dies_after=CompensationDeclined)))
    assert resolve(saga).status == "success"
    assert world.executed == ["a", "a"]


# --- unfinished ones ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [LATER, Suspend(BackgroundResponse.done())], ids=["reschedule", "suspend"])
def test_S26_an_unfinished_generation_selects_again_and_the_same_transaction_keeps_its_key(
    engine, resolve, world, answer
):
    saga = select_of(world.step("a", wanted=False), world.step("b", remember(answer, n=1), DONE, wanted=True))
    told = resolve(saga)
    assert told.status == (LATER.status if answer is LATER else "success")
    assert engine.get(SAGA_ID).status is SagaStatus.SUSPENDED
    assert resolve(saga).status == "success"
    assert world.trace() == ["should_execute a", "should_execute b", "execute b"] * 2
    first, second = world.of("b")
    assert first.key == second.key
    assert (first.attempt, second.attempt) == (1, 2)
    assert second.state == {"n": 1}


def test_S26_another_transaction_may_be_selected_at_the_next_delivery(engine, resolve, world):
    saga = select_of(
        world.step("inquire", LATER, wanted=has("inquiring")), world.step("buy", DONE, wanted=has("pending"))
    )
    resolve(saga, request_of("inquiring"))
    assert resolve(saga, request_of("pending")).status == "success"
    assert world.executed == ["inquire", "buy"]
    assert world.undone == []
    first, second = world.of("inquire")[0], world.of("buy")[0]
    assert first.key != second.key


def test_S26_an_earlier_transaction_may_be_selected_at_the_next_delivery(resolve, world):
    saga = select_of(world.step("a", DONE, wanted=has("a")), world.step("b", LATER, wanted=has("b")))
    resolve(saga, request_of("b"))
    assert resolve(saga, request_of("a")).status == "success"
    assert world.executed == ["b", "a"]


def test_S26_an_undo_may_reschedule_and_the_next_delivery_selects_again(resolve, world):
    saga = select_of(world.step("a", ValueError("broken"), DONE, undo=LATER))
    told = resolve(saga)
    assert (told.status, told.countdown) == ("reschedule", 60)
    assert resolve(saga).status == "success"
    assert world.trace() == ["execute a", "compensate a", "execute a"]


def test_S26_an_interrupted_transaction_is_selected_again_with_its_key(journal, new_engine, resolve, world):
    saga = select_of(world.step("a", wanted=False), world.step("b", wanted=True))
    with pytest.raises(Crash):
        resolve(saga, on=new_engine(Mortal(journal, dies_before=StepCompleted)))
    assert resolve(saga).status == "success"
    assert world.executed == ["b", "b"]
    assert len({call.key for call in world.of("b")}) == 1


def test_S26_the_retry_policy_of_a_transaction_is_followed(resolve, world, clock):
    policy = RetryPolicy(stop=stop_after_attempt(2), wait=wait_fixed(10))
    assert resolve(select_of(world.step("a", ValueError("busy"), DONE, retry=policy))).status == "success"
    assert clock.slept_s == [10]
    assert world.undone == []


def test_S26_state_is_shared_by_the_transactions_of_one_generation(resolve, world):
    saga = select_of(world.step("a", remember(LATER, n=1), wanted=has("a")), world.step("b", wanted=has("b")))
    resolve(saga, request_of("a"))
    resolve(saga, request_of("b"))
    assert world.of("b")[0].state == {"n": 1}


# --- generations, recovery, limits --------------------------------------------------------------------------------


def test_S26_a_new_generation_selects_anew(engine, resolve, world):
    saga = select_of(
        world.step("a", wanted=has("a")),
        world.step("b", wanted=has("b")),
        restarts=lambda self, request, previous: request["status"] == "b",
    )
    resolve(saga, request_of("a"))
    resolve(saga, request_of("b"))
    assert world.executed == ["a", "b"]
    assert engine.get(SAGA_ID).saga_id == f"{SAGA_ID}#2"


def test_S26_recover_never_drives_it_neither_due_nor_crashed(journal, new_engine, resolve, world, clock):
    saga = select_of(world.step("a", LATER, DONE))
    resolve(saga)
    with pytest.raises(Crash):
        resolve(saga, {"id": "PR-2"}, on=new_engine(Mortal(journal, dies_before=StepCompleted)))
    calls = list(world.calls)
    clock.advance(100_000)
    engine = new_engine(sagas=[saga])
    recovered = engine.recover()
    assert (recovered, recovered.left_alone, recovered.failed) == (0, 0, 0)
    assert world.calls == calls


def test_S26_mail_does_not_drive_it_either_and_is_taken_in_at_the_next_delivery(new_engine, resolve, world):
    saga = select_of(world.step("a", LATER, DONE))
    engine = new_engine(sagas=[saga])
    resolve(saga, on=engine)
    engine.cancel(SAGA_ID, "changed our mind")
    assert world.executed == ["a"]
    assert resolve(saga, on=engine).output == "cancelled: changed our mind"
    assert world.executed == ["a"]


def test_S26_the_transaction_that_was_selected_is_the_one_that_a_limit_parks(engine, resolve, world):
    saga = select_of(world.step("a", wanted=False), world.step("b", LATER, wanted=True), reschedules_max=2)
    told = [resolve(saga) for _ in range(3)]
    assert [answer.status for answer in told] == ["reschedule", "reschedule", "fail"]
    assert told[-1].output.startswith("parked at b: reschedules_max (2) reached")
    assert statuses(engine.get(SAGA_ID)) == {"a": "PENDING", "b": "PARKED"}
    assert resolve(saga).output.startswith("parked at b")
    assert len(world.executed) == 3


def test_S26_entries_max_parks_the_transaction_that_was_selected(engine, resolve, world):
    saga = select_of(world.step("a", wanted=False), world.step("b", LATER, wanted=True), entries_max=20)
    for _ in range(10):
        told = resolve(saga)
    assert told.output.startswith("parked at b: entries_max (20) reached")


def test_S26_a_payload_that_is_too_big_parks(engine, resolve, world):
    saga = select_of(world.step("a", wanted=False), world.step("b", remember(x="x" * 2_000)), payload_bytes_max=1_000)
    told = resolve(saga)
    assert told.output.startswith("parked at b: payload_bytes_max")
    assert engine.get(SAGA_ID).status is SagaStatus.PARKED


def test_S26_a_deadline_is_refused_rather_than_ignored(resolve, world):
    with pytest.raises(SagaError, match="a saga of mode 'select' has no deadline"):
        resolve(select_of(world.step("a"), deadline_s=10))


def test_S26_a_later_change_of_the_sagas_mode_does_not_change_an_execution_under_way(resolve, world):
    resolve(select_of(world.step("a", LATER, DONE), world.step("b")))
    assert resolve(saga_of(world.step("a", DONE), world.step("b"))).status == "success"
    assert world.executed == ["a", "a"]


def test_S26_an_error_is_raised_anew_after_a_crash_though_its_class_is_gone(journal, new_engine, resolve, world):
    class Local(Exception):
        pass

    saga = select_of(world.step("a", Local("broken"), undo=reraise))
    with pytest.raises(Local):
        resolve(saga)
    with pytest.raises((Local, RecordedError), match="broken"):
        resolve(saga)


def test_S26_a_probe_is_asked_before_a_retry(resolve, world):
    policy = RetryPolicy(stop=stop_after_attempt(2))
    saga = select_of(world.step("a", ValueError("lost"), DONE, probe=Probe.DONE, retry=policy))
    assert resolve(saga).status == "success"
    assert world.trace() == ["execute a", "probe a"]


def test_S26_a_parked_transaction_can_be_resolved(new_engine, resolve, world):
    saga = select_of(world.step("a", LATER, LATER, DONE), reschedules_max=1)
    engine = new_engine(sagas=[saga])
    resolve(saga, on=engine)
    assert resolve(saga, on=engine).output.startswith("parked at a")
    engine.resolve_parked(SAGA_ID, "a", note="it is not there", outcome="not_done")
    assert resolve(saga, on=engine).status == "success"
    with pytest.raises(NotAllowed):
        engine.resolve_parked(SAGA_ID, "a", note="again")
