"""Exclusive rights: one execution at a time for one key, across sagas, engines and crashes, without a deadlock."""

from __future__ import annotations

import pytest
from connect.eaas.core.responses import BackgroundResponse
from gates import LoudMortal
from pairs import in_pairs
from sagas import DONE, Crash, saga_of
from tenacity import stop_after_attempt

from saga_engine import Exclusive, SagaStatus, WaitFor
from saga_engine.errors import BadRequest, DeadlineExceeded, NotAllowed
from saga_engine.journal import ExclusiveDenied, SagaStarted, StepStarted
from saga_engine.journals import open_journal
from transactions import Kind, RetryPolicy

FAIL = BackgroundResponse.fail("no")
LATER = BackgroundResponse.reschedule(600)
ONCE = RetryPolicy(stop=stop_after_attempt(1))

ONE = {"id": "PR-1", "asset": "AS-1"}
TWO = {"id": "PR-2", "asset": "AS-1"}
OTHER = {"id": "PR-3", "asset": "AS-2"}

pytestmark = in_pairs


def per_asset(**options):
    return Exclusive(key=lambda request: request["asset"], **options)


def exclusive_saga(*entries, name="Order", when_held="wait", when_parked="hold", **attributes):
    right = per_asset(when_held=when_held, when_parked=when_parked)
    return saga_of(*entries, name=name, exclusive=right, **attributes)


def by_id(**scripts):
    """Play in a script: what the script of the request's id says."""
    queues = {name.replace("_", "-"): list(parts) for name, parts in scripts.items()}

    def play(request, *error):
        parts = queues[request["id"]]
        part = parts.pop(0) if len(parts) > 1 else parts[0]
        if isinstance(part, Exception):
            raise part
        return part

    return play


def status(engine, request, saga="Order"):
    return engine.get(f"{saga}:{request['id']}").status


# --- waiting and refusing -----------------------------------------------------------------------------------------


def test_the_second_execution_of_a_key_waits_and_runs_nothing(new_engine, resolve, world, clock):
    saga = exclusive_saga(world.step("a", by_id(PR_1=[LATER, DONE], PR_2=[DONE])))
    engine = new_engine(sagas=[saga])
    resolve(saga, ONE, on=engine)
    told = resolve(saga, TWO, on=engine)
    assert (told.status, told.countdown) == ("reschedule", 30)
    assert status(engine, TWO) is SagaStatus.SUSPENDED
    assert engine.get("Order:PR-2").next_due_at > clock.now()
    assert [call.request["id"] for call in world.of("a")] == ["PR-1"]


def test_another_key_is_not_held_up(new_engine, resolve, world):
    saga = exclusive_saga(world.step("a", by_id(PR_1=[LATER], PR_3=[DONE])))
    engine = new_engine(sagas=[saga])
    resolve(saga, ONE, on=engine)
    assert resolve(saga, OTHER, on=engine).status == "success"


@pytest.mark.parametrize("how", ["delivery", "recover"])
def test_when_the_holder_ends_the_waiter_goes_on_at_once(new_engine, resolve, world, how):
    saga = exclusive_saga(world.step("a", by_id(PR_1=[LATER, DONE], PR_2=[DONE])))
    engine = new_engine(sagas=[saga])
    resolve(saga, ONE, on=engine)
    resolve(saga, TWO, on=engine)
    assert resolve(saga, ONE, on=engine).status == "success"
    assert engine.get("Order:PR-2").status is SagaStatus.SUSPENDED
    if how == "delivery":
        assert resolve(saga, TWO, on=engine).status == "success"
    else:
        assert engine.recover() == 1
    assert status(engine, TWO) is SagaStatus.COMPLETED


@pytest.mark.parametrize(
    "answer", [DONE, FAIL, BackgroundResponse.skip("no"), ValueError("no")], ids=["done", "fail", "skip", "raise"]
)
def test_every_end_frees_the_right(new_engine, resolve, world, answer):
    saga = exclusive_saga(world.step("a", by_id(PR_1=[answer], PR_2=[DONE])))
    engine = new_engine(sagas=[saga])
    resolve(saga, ONE, on=engine)
    assert resolve(saga, TWO, on=engine).status == "success"


def test_a_cancelled_holder_frees_the_right(new_engine, resolve, world):
    saga = exclusive_saga(world.step("a", by_id(PR_1=[LATER], PR_2=[DONE])))
    engine = new_engine(sagas=[saga])
    resolve(saga, ONE, on=engine)
    resolve(saga, TWO, on=engine)
    engine.cancel("Order:PR-1", "stop")
    assert status(engine, ONE) is SagaStatus.CANCELLED
    assert engine.recover() == 1
    assert status(engine, TWO) is SagaStatus.COMPLETED


def test_of_two_waiters_one_goes_on_and_the_other_waits_on(new_engine, resolve, world):
    saga = exclusive_saga(world.step("a", by_id(PR_1=[LATER, DONE], PR_2=[LATER, DONE], PR_4=[DONE])))
    engine = new_engine(sagas=[saga])
    four = {"id": "PR-4", "asset": "AS-1"}
    for request in (ONE, TWO, four):
        resolve(saga, request, on=engine)
    resolve(saga, ONE, on=engine)
    engine.recover()
    assert (status(engine, TWO), status(engine, four)) == (SagaStatus.SUSPENDED, SagaStatus.SUSPENDED)
    assert [call.request["id"] for call in world.of("a")] == ["PR-1", "PR-1", "PR-2"]
    resolve(saga, TWO, on=engine)
    engine.recover()
    assert status(engine, four) is SagaStatus.COMPLETED


def test_a_saga_that_refuses_ends_at_once_and_names_the_holder(new_engine, resolve, world):
    saga = exclusive_saga(world.step("a", by_id(PR_1=[LATER], PR_2=[DONE])), when_held="refuse")
    engine = new_engine(sagas=[saga])
    resolve(saga, ONE, on=engine)
    told = resolve(saga, TWO, on=engine)
    assert told.status == "fail"
    assert "Order:PR-1" in told.output
    assert status(engine, TWO) is SagaStatus.COMPENSATED
    assert [call.request["id"] for call in world.of("a")] == ["PR-1"]


@pytest.mark.parametrize("end", ["refuse", "cancel", "deadline"])
def test_the_end_of_one_that_never_had_the_right_does_not_free_it(new_engine, resolve, world, clock, end):
    step = world.step("a", by_id(PR_1=[LATER], PR_2=[DONE], PR_4=[DONE]))
    saga = exclusive_saga(step)
    waiter = exclusive_saga(
        step,
        name="Change",
        when_held="refuse" if end == "refuse" else "wait",
        deadline_s=10 if end == "deadline" else None,
    )
    engine = new_engine(sagas=[saga, waiter])
    resolve(saga, ONE, on=engine)
    resolve(waiter, TWO, on=engine)
    if end == "cancel":
        engine.cancel("Change:PR-2", "stop")
    clock.advance(30)
    engine.recover()
    assert status(engine, TWO, "Change") is (SagaStatus.CANCELLED if end == "cancel" else SagaStatus.COMPENSATED)
    resolve(saga, {"id": "PR-4", "asset": "AS-1"}, on=engine)
    assert [call.request["id"] for call in world.of("a")] == ["PR-1"]


def test_different_sagas_with_one_key_exclude_each_other(new_engine, resolve, world):
    purchase = exclusive_saga(world.step("a", LATER, DONE), name="Purchase")
    change = exclusive_saga(world.step("b"), name="Change")
    engine = new_engine(sagas=[purchase, change])
    resolve(purchase, ONE, on=engine)
    assert resolve(change, ONE, on=engine).status == "reschedule"
    assert world.executed == ["a"]
    resolve(purchase, ONE, on=engine)
    assert resolve(change, ONE, on=engine).status == "success"


def test_a_suspended_holder_keeps_the_right_over_many_deliveries(new_engine, resolve, world):
    saga = exclusive_saga(world.step("a", by_id(PR_1=[LATER, LATER, DONE], PR_2=[DONE])))
    engine = new_engine(sagas=[saga])
    resolve(saga, ONE, on=engine)
    resolve(saga, ONE, on=engine)
    assert resolve(saga, TWO, on=engine).status == "reschedule"
    assert resolve(saga, ONE, on=engine).status == "success"


# --- waiters that end ---------------------------------------------------------------------------------------------


def test_S23_a_waiter_is_cancelled_without_the_right(new_engine, resolve, world):
    saga = exclusive_saga(world.step("a", by_id(PR_1=[LATER], PR_2=[DONE])))
    engine = new_engine(sagas=[saga])
    resolve(saga, ONE, on=engine)
    resolve(saga, TWO, on=engine)
    engine.cancel("Order:PR-2", "stop")
    assert status(engine, TWO) is SagaStatus.CANCELLED
    assert status(engine, ONE) is SagaStatus.SUSPENDED
    assert world.undone == []


def test_S24_a_deadline_ends_a_waiter(new_engine, resolve, world, clock):
    saga = exclusive_saga(world.step("a", LATER))
    impatient = exclusive_saga(world.step("b"), name="Change", deadline_s=100)
    engine = new_engine(sagas=[saga, impatient])
    resolve(saga, ONE, on=engine)
    resolve(impatient, TWO, on=engine)
    clock.advance(100)
    engine.recover()
    assert status(engine, TWO, "Change") is SagaStatus.COMPENSATED
    assert engine.get("Change:PR-2").error == "the saga's deadline passed"
    assert "b" not in world.executed


def test_S24_a_deadline_ends_a_waiter_at_its_time(new_engine, resolve, world, clock):
    saga = exclusive_saga(world.step("a", LATER))
    impatient = exclusive_saga(world.step("b"), name="Change", deadline_s=10)
    engine = new_engine(sagas=[saga, impatient])
    resolve(saga, ONE, on=engine)
    resolve(impatient, TWO, on=engine)
    assert engine.get("Change:PR-2").next_due_at == clock.now() + 10


# --- parking ------------------------------------------------------------------------------------------------------


def parking(world, when_parked):
    a = world.step("a", by_id(PR_1=[DONE], PR_2=[DONE]), undo=[ValueError("stuck"), DONE], compensation_retry=ONCE)
    return exclusive_saga(
        world.step("before"), a, world.step("b", by_id(PR_1=[FAIL], PR_2=[LATER, DONE])), when_parked=when_parked
    )


def test_a_parked_holder_keeps_the_right_unless_its_author_chose_otherwise(new_engine, resolve, world):
    saga = parking(world, "hold")
    engine = new_engine(sagas=[saga])
    resolve(saga, ONE, on=engine)
    assert status(engine, ONE) is SagaStatus.PARKED
    assert resolve(saga, TWO, on=engine).countdown == 30
    assert len(world.of("before")) == 1
    engine.resolve_parked("Order:PR-1", "a", note="by hand")
    assert status(engine, ONE) is SagaStatus.COMPENSATED
    resolve(saga, TWO, on=engine)
    assert len(world.of("before")) == 2


def test_a_parked_holder_that_releases_lets_the_next_one_in_and_waits_for_it_when_resumed(new_engine, resolve, world):
    saga = parking(world, "release")
    engine = new_engine(sagas=[saga])
    resolve(saga, ONE, on=engine)
    assert status(engine, ONE) is SagaStatus.PARKED
    assert resolve(saga, TWO, on=engine).countdown == 600
    engine.resume("Order:PR-1")
    assert world.undone == ["a"]
    assert status(engine, ONE) is not SagaStatus.PARKED
    assert resolve(saga, TWO, on=engine).status == "success"
    engine.recover()
    assert status(engine, ONE) is SagaStatus.COMPENSATED
    assert world.undone == ["a", "a", "before"]


# --- crashes and other processes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dies", [SagaStarted, (StepStarted, "b")], ids=["started", "running"])
def test_a_crash_of_the_holder_does_not_free_the_right(journal, new_engine, resolve, world, dies):
    process = LoudMortal(journal, dies_after=dies)
    saga = exclusive_saga(world.step("a"), world.step("b"))
    with pytest.raises(Crash):
        resolve(saga, ONE, on=new_engine(process, sagas=[saga]))
    engine = new_engine(sagas=[saga])
    assert resolve(saga, TWO, on=engine).status == "reschedule"
    engine.recover()
    assert status(engine, ONE) is SagaStatus.COMPLETED
    assert resolve(saga, TWO, on=engine).status == "success"


def test_a_crash_of_the_waiter_leaves_it_waiting(journal, new_engine, resolve, world):
    saga = exclusive_saga(world.step("a", by_id(PR_1=[LATER, DONE], PR_2=[DONE])))
    resolve(saga, ONE, on=new_engine(sagas=[saga]))
    process = LoudMortal(journal, dies_after=ExclusiveDenied)
    with pytest.raises(Crash):
        resolve(saga, TWO, on=new_engine(process, sagas=[saga]))
    engine = new_engine(sagas=[saga])
    engine.recover()
    assert [call.request["id"] for call in world.of("a")] == ["PR-1"]
    resolve(saga, ONE, on=engine)
    engine.recover()
    assert status(engine, TWO) is SagaStatus.COMPLETED


def test_two_connections_to_one_file_exclude_each_other(tmp_path, new_engine, resolve, world):
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    saga = exclusive_saga(world.step("a", by_id(PR_1=[LATER, DONE], PR_2=[DONE])))
    one, two = open_journal(url), open_journal(url)
    try:
        first, second = new_engine(one, sagas=[saga]), new_engine(two, sagas=[saga])
        resolve(saga, ONE, on=first)
        assert resolve(saga, TWO, on=second).status == "reschedule"
        resolve(saga, ONE, on=first)
        assert second.recover() == 1
        assert status(second, TWO) is SagaStatus.COMPLETED
    finally:
        one.close()
        two.close()


# --- undo, generations, signals -----------------------------------------------------------------------------------


def test_S32_the_undo_of_a_completed_execution_takes_the_right_again(new_engine, resolve, world):
    saga = exclusive_saga(world.step("a", by_id(PR_1=[DONE], PR_2=[LATER, DONE])))
    engine = new_engine(sagas=[saga])
    resolve(saga, ONE, on=engine)
    resolve(saga, TWO, on=engine)
    engine.undo("Order:PR-1")
    assert world.undone == []
    assert resolve(saga, ONE, on=engine).status == "success"
    assert resolve(saga, TWO, on=engine).status == "success"
    engine.recover()
    assert world.undone == ["a"]
    assert status(engine, ONE) is SagaStatus.COMPENSATED
    assert resolve(saga, ONE, on=engine).status == "success"


def test_S32_while_an_undo_holds_the_right_nobody_else_gets_it(new_engine, resolve, world):
    saga = exclusive_saga(world.step("a", undo=[LATER, DONE]))
    engine = new_engine(sagas=[saga])
    resolve(saga, ONE, on=engine)
    engine.undo("Order:PR-1")
    assert status(engine, ONE) is SagaStatus.COMPENSATING
    assert resolve(saga, TWO, on=engine).status == "reschedule"
    assert len(world.of("a")) == 1


@pytest.mark.parametrize("undo", [[DONE], [LATER, LATER, DONE]], ids=["at once", "later"])
def test_S32_an_order_that_undoes_what_it_excludes_does_not_wait_for_itself(new_engine, resolve, world, clock, undo):
    purchase = exclusive_saga(
        world.step("a", undo=list(undo)), name="Purchase", key=lambda self, request: request["asset"]
    )
    cancel = exclusive_saga(
        world.step("tell", kind=Kind.READ_ONLY),
        name="Cancel",
        undoes=purchase,
        undoes_key=lambda self, request: request["asset"],
    )
    engine = new_engine(sagas=[purchase, cancel])
    resolve(purchase, ONE, on=engine)
    told = resolve(cancel, TWO, on=engine)
    for _ in range(5):
        clock.advance(600)
        engine.recover()
    assert world.undone == ["a"] * len(undo)
    assert engine.get("Purchase:AS-1").status is SagaStatus.COMPENSATED
    assert status(engine, TWO, "Cancel") is SagaStatus.COMPLETED
    assert told.status in ("success", "reschedule")


def test_S32_an_undo_that_waits_for_the_right_is_told_apart_from_an_execution_that_can_be_cancelled(
    new_engine, resolve, world
):
    saga = exclusive_saga(world.step("a", by_id(PR_1=[DONE], PR_2=[LATER, DONE])))
    engine = new_engine(sagas=[saga])
    resolve(saga, ONE, on=engine)
    resolve(saga, TWO, on=engine)
    engine.undo("Order:PR-1")
    assert status(engine, ONE) in (SagaStatus.COMPENSATING, SagaStatus.COMPLETED)
    with pytest.raises(NotAllowed, match=r"undone|COMPENSATING"):
        engine.undo("Order:PR-1")


def test_S15_a_new_generation_takes_the_right_anew(new_engine, resolve, world):
    saga = exclusive_saga(
        world.step("a", by_id(PR_1=[DONE, LATER, DONE], PR_2=[DONE])), restarts=lambda self, request, previous: True
    )
    engine = new_engine(sagas=[saga])
    resolve(saga, ONE, on=engine)
    assert resolve(saga, ONE, on=engine).countdown == 600
    assert resolve(saga, TWO, on=engine).countdown == 30
    assert resolve(saga, ONE, on=engine).status == "success"
    assert resolve(saga, TWO, on=engine).status == "success"


def test_a_signal_to_a_waiter_is_kept(new_engine, resolve, world):
    saga = exclusive_saga(WaitFor("ok"), world.step("a"))
    engine = new_engine(sagas=[saga])
    resolve(saga, ONE, on=engine)
    resolve(saga, TWO, on=engine)
    engine.signal("Order:PR-2", "ok", 2)
    assert status(engine, TWO) is SagaStatus.SUSPENDED
    engine.signal("Order:PR-1", "ok", 1)
    engine.recover()
    assert status(engine, TWO) is SagaStatus.COMPLETED
    assert [call.state for call in world.of("a")] == [{"ok": 1}, {"ok": 2}]


def test_S20_behind_a_pivot_a_parked_holder_that_released_waits_for_the_right_to_go_on(new_engine, resolve, world):
    c = world.step("c", by_id(PR_1=[FAIL, DONE], PR_2=[LATER, DONE]), kind=Kind.RETRIABLE, retry=ONCE)
    saga = exclusive_saga(world.step("p", kind=Kind.PIVOT), c, when_parked="release")
    engine = new_engine(sagas=[saga])
    resolve(saga, ONE, on=engine)
    resolve(saga, TWO, on=engine)
    engine.resume("Order:PR-1")
    assert status(engine, ONE) is SagaStatus.SUSPENDED
    resolve(saga, TWO, on=engine)
    engine.recover()
    assert status(engine, ONE) is SagaStatus.COMPLETED


@pytest.mark.parametrize(
    "request_",
    [{"id": "PR-1"}, {"id": "PR-1", "asset": ""}, {"id": "PR-1", "asset": 5}],
    ids=["raises", "empty", "number"],
)
def test_S28_a_key_that_is_no_text_is_refused_before_anything_is_journaled(engine, resolve, world, request_):
    with pytest.raises(BadRequest, match="exclusive"):
        resolve(exclusive_saga(world.step("a")), request_)
    assert engine.search() == []


def test_the_error_of_a_waiter_whose_deadline_passed_with_steps_started_is_the_deadline(
    new_engine, resolve, world, clock
):
    a = world.step("a", by_id(PR_1=[DONE], PR_2=[DONE]))
    b = world.step("b", by_id(PR_1=[LATER], PR_2=[DONE]))
    saga = exclusive_saga(a, b, deadline_s=100)
    engine = new_engine(sagas=[saga])
    resolve(saga, ONE, on=engine)
    clock.advance(100)
    engine.recover()
    assert status(engine, ONE) is SagaStatus.COMPENSATED
    assert isinstance(world.of("a", "compensate")[0].error, DeadlineExceeded)
    assert resolve(saga, TWO, on=engine).status == "success"
