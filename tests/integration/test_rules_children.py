"""Rule S22: a saga as a step of another one: under its lease, with its own id, state and record."""

from __future__ import annotations

import pytest
from connect.eaas.core.responses import BackgroundResponse
from gates import LoudMortal, Watch, gated
from pairs import in_pairs
from sagas import DONE, SAGA_ID, Crash, remember, saga_of, statuses
from tenacity import stop_after_attempt

from saga_engine import Chain, Exclusive, Parallel, SagaStatus, WaitFor, current_context
from saga_engine.errors import (
    BadDefinition,
    DeadlineExceeded,
    InvalidTransaction,
    NotAllowed,
    SagaCancelled,
    TransactionNotSelected,
    UndoRequested,
    UnknownExecution,
)
from saga_engine.journal import CompensationStarted, StepCompleted, StepStarted
from transactions import Kind, RetryPolicy

FAIL = BackgroundResponse.fail("no")
LATER = BackgroundResponse.reschedule(60)
ONCE = RetryPolicy(stop=stop_after_attempt(1))
CHILD_ID = f"{SAGA_ID}/Child"
GRANDCHILD_ID = f"{CHILD_ID}/Grandchild"

pytestmark = in_pairs


def child_of(*entries, name="Child", **attributes):
    return saga_of(*entries, name=name, **attributes)


@pytest.fixture
def seen():
    """What steps saw of their context, by the id of their saga and their name."""
    return {}


@pytest.fixture
def seeing(seen):
    """Play in a script: note the context."""

    def see(request, *error):
        context = current_context()
        seen[context.saga_id, context.step, context.operation] = (context.saga, context.idempotency_key)
        return DONE

    return see


# --- ids and records ----------------------------------------------------------------------------------------------


def test_S22_steps_of_parent_child_and_grandchild_of_one_name_have_their_own_id_and_keys(
    engine, resolve, world, seen, seeing
):
    grandchild = child_of(world.step("x", seeing, undo=seeing), name="Grandchild")
    child = child_of(world.step("x", seeing, undo=seeing), grandchild)
    told = resolve(saga_of(world.step("x", seeing, undo=seeing), child, world.step("y", FAIL)))
    assert told.output == "no"
    assert {key: saga for key, (saga, _) in seen.items()} == {
        (saga_id, "x", operation): saga
        for saga_id, saga in ((SAGA_ID, "Order"), (CHILD_ID, "Child"), (GRANDCHILD_ID, "Grandchild"))
        for operation in ("execute", "compensate")
    }
    assert len({key for _, key in seen.values()}) == 6


def test_S22_the_child_has_a_record_of_its_own(engine, resolve, world):
    child = child_of(world.step("b", remember(LATER, b=1)), world.step("c"))
    resolve(saga_of(world.step("a", remember(a=1)), child, world.step("d")))
    record = engine.get(CHILD_ID)
    assert (record.saga_id, record.saga, record.status) == (CHILD_ID, "Child", SagaStatus.SUSPENDED)
    assert statuses(record) == {"b": "SUSPENDED", "c": "PENDING"}
    assert record.state == {"a": 1, "b": 1}
    assert record.next_due_at == engine.get(SAGA_ID).next_due_at


def test_S22_the_child_is_one_step_in_its_parents_record(engine, resolve, world):
    grandchild = child_of(world.step("c"), name="Grandchild")
    resolve(saga_of(world.step("a"), child_of(world.step("b"), grandchild), world.step("d")))
    record = engine.get(SAGA_ID)
    assert statuses(record) == {"a": "COMPLETED", "Child": "COMPLETED", "d": "COMPLETED"}
    inner = record.steps[1]
    assert [(step.name, step.status.value) for step in inner.steps] == [("b", "COMPLETED"), ("Grandchild", "COMPLETED")]
    assert [step.name for step in inner.steps[1].steps] == ["c"]
    assert statuses(engine.get(CHILD_ID)) == {"b": "COMPLETED", "Grandchild": "COMPLETED"}
    assert statuses(engine.get(GRANDCHILD_ID)) == {"c": "COMPLETED"}
    assert engine.get(CHILD_ID).status is engine.get(GRANDCHILD_ID).status is SagaStatus.COMPLETED


def test_S22_the_history_of_a_child_is_what_happened_to_its_steps(engine, resolve, world):
    resolve(saga_of(world.step("a"), child_of(world.step("b"), world.step("c")), world.step("d")))
    assert [(type(e).__name__, e.step) for e in engine.history(CHILD_ID)] == [
        ("StepStarted", "Child/b"),
        ("StepCompleted", "Child/b"),
        ("StepStarted", "Child/c"),
        ("StepCompleted", "Child/c"),
    ]


def test_S22_the_history_of_a_child_can_be_read_after_its_parent_was_cancelled(new_engine, resolve, world):
    saga = saga_of(child_of(world.step("b", LATER)))
    engine = new_engine(sagas=[saga])
    resolve(saga, on=engine)
    engine.cancel(SAGA_ID, "changed my mind")
    assert {entry.step for entry in engine.history(CHILD_ID)} == {"Child/b"}


def test_S22_a_child_that_was_not_reached_has_no_record(engine, resolve, world):
    resolve(saga_of(world.step("a", LATER), child_of(world.step("b"))))
    with pytest.raises(UnknownExecution):
        engine.get(CHILD_ID)
    with pytest.raises(UnknownExecution):
        engine.get(f"{SAGA_ID}/Nobody")
    assert statuses(engine.get(SAGA_ID)) == {"a": "SUSPENDED", "Child": "PENDING"}


def test_S22_a_child_takes_no_commit_more_than_its_steps(new_engine, resolve, world):
    watch = Watch()
    saga = saga_of(world.step("a"), child_of(world.step("b"), world.step("c")), world.step("d"))
    resolve(saga, on=new_engine(observer=watch))
    assert watch.count(StepCompleted) == [0, 1, 1, 1, 1]


def test_S22_a_key_with_a_slash_is_not_taken_for_a_child(engine, resolve, world):
    resolve(saga_of(world.step("a"), child_of(world.step("b"))), {"id": "PR-1/Child"})
    assert engine.get("Order:PR-1/Child").saga == "Order"
    assert engine.get("Order:PR-1/Child/Child").saga == "Child"


# --- state and request --------------------------------------------------------------------------------------------


def test_S22_state_and_request_go_into_a_child_and_come_back(engine, resolve, world):
    def change(request):
        request["b"] = 1
        current_context().state.update(b=1)
        return DONE

    grandchild = child_of(world.step("c", remember(c=1)), name="Grandchild")
    child = child_of(world.step("b", change), grandchild)
    resolve(saga_of(world.step("a", remember(a=1)), child, world.step("d")))
    assert world.of("b")[0].state == {"a": 1}
    assert world.of("c")[0].state == {"a": 1, "b": 1}
    assert world.of("d")[0].state == {"a": 1, "b": 1, "c": 1}
    assert world.of("d")[0].request == {"id": "PR-1", "b": 1}


def test_S22_compensations_of_a_failed_child_see_its_state_and_the_parents_do_not(resolve, world):
    child = child_of(world.step("b", remember(b=1)), world.step("c", remember(ValueError("no"), c=1)))
    resolve(saga_of(world.step("a", remember(a=1)), child))
    assert world.of("b", "compensate")[0].state == {"a": 1, "b": 1, "c": 1}
    assert world.of("a", "compensate")[0].state == {"a": 1}


def test_S22_what_an_undo_in_a_child_writes_is_seen_by_the_childs_next_undo(resolve, world):
    child = child_of(world.step("b"), world.step("c", undo=remember(DONE, undone_c=1)), world.step("d", FAIL))
    resolve(saga_of(child))
    assert world.of("b", "compensate")[0].state == {"undone_c": 1}


# --- failing and undoing ------------------------------------------------------------------------------------------


def test_S22_a_failed_child_is_undone_before_the_parents_earlier_steps(engine, resolve, world):
    child = child_of(world.step("b"), world.step("c", ValueError("no")), world.step("d"))
    told = resolve(saga_of(world.step("a"), child, world.step("e")))
    assert (told.status, told.output) == ("fail", "no")
    assert world.undone == ["c", "b", "a"]
    assert engine.get(SAGA_ID).status is engine.get(CHILD_ID).status is SagaStatus.COMPENSATED
    assert statuses(engine.get(SAGA_ID)) == {"a": "COMPENSATED", "Child": "COMPENSATED", "e": "PENDING"}


def test_S22_a_child_whose_only_step_refused_has_ended_when_its_parent_has(engine, resolve, world):
    resolve(saga_of(world.step("a"), child_of(world.step("b", FAIL)), world.step("c")))
    assert engine.get(SAGA_ID).status is SagaStatus.COMPENSATED
    assert engine.get(CHILD_ID).status is SagaStatus.COMPENSATED


def test_S22_a_completed_child_is_undone_in_reverse_when_the_parent_fails_later(engine, resolve, world):
    child = child_of(world.step("b"), world.step("c"))
    resolve(saga_of(world.step("a"), child, world.step("d"), world.step("e", FAIL)))
    assert world.undone == ["d", "c", "b", "a"]
    assert engine.get(CHILD_ID).status is SagaStatus.COMPENSATED


def test_S22_undo_of_the_completed_parent_undoes_the_child(new_engine, resolve, world):
    saga = saga_of(world.step("a"), child_of(world.step("b"), world.step("c")), world.step("d"))
    engine = new_engine(sagas=[saga])
    resolve(saga, on=engine)
    engine.undo(SAGA_ID, note="returned")
    assert world.undone == ["d", "c", "b", "a"]
    assert isinstance(world.of("b", "compensate")[0].error, UndoRequested)
    assert engine.get(CHILD_ID).status is SagaStatus.COMPENSATED


def test_S22_a_child_cannot_be_undone_nor_edited_by_itself(new_engine, resolve, world):
    saga = saga_of(world.step("a"), child_of(world.step("b"), world.step("c", LATER)))
    engine = new_engine(sagas=[saga])
    resolve(saga, on=engine)
    with pytest.raises(NotAllowed, match="child"):
        engine.undo(CHILD_ID)
    with pytest.raises(NotAllowed, match="child"):
        engine.edit_state(CHILD_ID, {"x": 1})


def test_S22_a_child_cannot_be_cancelled_by_itself(new_engine, resolve, world):
    saga = saga_of(world.step("a"), child_of(world.step("b", LATER)))
    engine = new_engine(sagas=[saga])
    resolve(saga, on=engine)
    with pytest.raises(NotAllowed, match="child"):
        engine.cancel(CHILD_ID, "only this one")
    assert engine.get(SAGA_ID).status is SagaStatus.SUSPENDED


def test_S22_a_failed_child_in_a_branch_is_undone_before_what_is_beside_it(new_engine, resolve, world):
    watch = Watch()
    c = gated(world.step("c", ValueError("no")), waits_for=watch.gate(StepCompleted, "d"))
    d = gated(world.step("d"), waits_for=watch.gate(StepCompleted, "Child/b"))
    saga = saga_of(world.step("a"), Parallel(child_of(world.step("b"), c), d))
    resolve(saga, on=new_engine(observer=watch))
    assert world.undone == ["c", "b", "d", "a"]


# --- waiting, parking, cancelling ---------------------------------------------------------------------------------


def test_S22_a_suspended_child_suspends_its_parent_and_goes_on_at_the_next_delivery(engine, resolve, world, clock):
    saga = saga_of(child_of(world.step("b", LATER, DONE)), world.step("c"))
    told = resolve(saga)
    assert (told.status, told.countdown) == ("reschedule", 60)
    assert engine.get(SAGA_ID).status is SagaStatus.SUSPENDED
    assert statuses(engine.get(SAGA_ID)) == {"Child": "SUSPENDED", "c": "PENDING"}
    assert engine.get(SAGA_ID).next_due_at == clock.now() + 60
    assert resolve(saga).status == "success"
    assert world.executed == ["b", "b", "c"]


def test_S22_a_parked_child_parks_its_parent_and_is_resolved_through_its_own_id(new_engine, resolve, world):
    child = child_of(world.step("b", undo=ValueError("stuck"), compensation_retry=ONCE), world.step("c", FAIL))
    saga = saga_of(world.step("a"), child)
    engine = new_engine(sagas=[saga])
    told = resolve(saga, on=engine)
    assert told.output.startswith("parked at Child/b: compensate failed: stuck")
    assert engine.get(SAGA_ID).status is engine.get(CHILD_ID).status is SagaStatus.PARKED
    assert statuses(engine.get(SAGA_ID)) == {"a": "COMPLETED", "Child": "PARKED"}
    engine.resolve_parked(CHILD_ID, "b", note="cancelled at the vendor", who="ann")
    assert engine.get(SAGA_ID).status is SagaStatus.COMPENSATED
    assert world.undone == ["b", "a"]
    assert engine.get(CHILD_ID).status is SagaStatus.COMPENSATED


def test_S22_a_step_of_a_child_is_named_by_its_path_through_the_parents_id(new_engine, resolve, world):
    saga = saga_of(child_of(world.step("b", LATER), world.step("c")), world.step("d"))
    engine = new_engine(sagas=[saga])
    resolve(saga, on=engine)
    with pytest.raises(NotAllowed, match="no step"):
        engine.skip(SAGA_ID, "b", force=True)
    engine.skip(SAGA_ID, "Child/b", force=True, state={"b": "by hand"})
    assert engine.get(SAGA_ID).status is SagaStatus.COMPLETED
    assert world.of("c")[0].state == {"b": "by hand"}


def test_S22_cancelling_the_parent_undoes_the_child_that_is_under_way(new_engine, resolve, world):
    saga = saga_of(world.step("a"), child_of(world.step("b"), world.step("c", LATER)), world.step("d"))
    engine = new_engine(sagas=[saga])
    resolve(saga, on=engine)
    engine.cancel(SAGA_ID, "changed my mind")
    assert world.undone == ["c", "b", "a"]
    assert isinstance(world.of("b", "compensate")[0].error, SagaCancelled)
    assert engine.get(SAGA_ID).status is SagaStatus.CANCELLED
    assert engine.get(CHILD_ID).status in (SagaStatus.COMPENSATED, SagaStatus.CANCELLED)


def test_S22_skip_in_a_child_ends_the_child_only(engine, resolve, world):
    child = child_of(world.step("b"), world.step("c", BackgroundResponse.skip("no")), world.step("d"))
    told = resolve(saga_of(world.step("a"), child, world.step("e")))
    assert told.status == "success"
    assert world.executed == ["a", "b", "c", "e"]
    assert statuses(engine.get(CHILD_ID)) == {"b": "COMPLETED", "c": "SKIPPED", "d": "SKIPPED"}
    assert engine.get(CHILD_ID).status is SagaStatus.COMPLETED


def test_S22_a_child_that_skipped_everything_is_skipped_and_the_parent_goes_on(engine, resolve, world):
    child = child_of(world.step("b", BackgroundResponse.skip("no")), world.step("c"))
    assert resolve(saga_of(child, world.step("d"))).status == "success"
    assert engine.get(CHILD_ID).status is SagaStatus.SKIPPED
    assert statuses(engine.get(SAGA_ID)) == {"Child": "SKIPPED", "d": "COMPLETED"}


# --- kinds --------------------------------------------------------------------------------------------------------


def test_S22_a_child_with_a_pivot_is_a_pivot(engine, resolve, world):
    child = child_of(world.step("b"), world.step("p", kind=Kind.PIVOT))
    with pytest.raises(InvalidTransaction, match="c is compensatable and comes after the pivot Child/p"):
        resolve(saga_of(child, world.step("c")))
    assert world.executed == []
    again = BackgroundResponse.reschedule(60)
    saga = saga_of(world.step("a"), child, world.step("c", again, kind=Kind.RETRIABLE))
    resolve(saga)
    assert engine.get(SAGA_ID).steps[1].kind == "pivot"
    with pytest.raises(NotAllowed, match="past its pivot 'Child/p'"):
        engine.cancel(SAGA_ID, "too late")


def test_S22_a_child_with_a_pivot_in_a_parallel_group_is_refused(resolve, world):
    child = child_of(world.step("p", kind=Kind.PIVOT))
    with pytest.raises(InvalidTransaction, match="Child/p is a pivot inside a parallel group"):
        resolve(saga_of(Parallel(Chain(world.step("a"), child), world.step("b"))))
    assert world.executed == []


def test_S22_a_compensatable_child_behind_a_pivot_is_refused(resolve, world):
    with pytest.raises(InvalidTransaction, match="Child/b is compensatable"):
        resolve(saga_of(world.step("p", kind=Kind.PIVOT), child_of(world.step("b"))))
    assert world.executed == []


# --- definitions that cannot work ---------------------------------------------------------------------------------


def test_S22_an_empty_child_is_refused_before_anything_runs(resolve, world):
    with pytest.raises(TransactionNotSelected, match="Child"):
        resolve(saga_of(world.step("a"), child_of(None)))
    assert world.executed == []


def test_S22_one_child_twice_is_refused(resolve, world):
    child = child_of(world.step("b"))
    with pytest.raises(InvalidTransaction, match="'Child'"):
        resolve(saga_of(child, Parallel(child, world.step("a"))))


def test_S22_a_child_of_the_name_of_a_step_is_refused(resolve, world):
    with pytest.raises(InvalidTransaction, match="two steps named 'Child'"):
        resolve(saga_of(world.step("Child"), child_of(world.step("b"))))


def test_S22_a_step_named_like_a_step_of_a_child_is_refused(resolve, world):
    with pytest.raises(InvalidTransaction, match="two steps named 'Child/b'"):
        resolve(saga_of(world.step("Child/b"), child_of(world.step("b"))))


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"mode": "select"}, "select"),
        ({"exclusive": Exclusive(key=lambda request: request["id"])}, "exclusive right"),
    ],
    ids=["mode select", "exclusive"],
)
def test_S22_a_saga_that_only_an_execution_of_its_own_can_be_is_refused_as_a_child(resolve, world, attributes, reason):
    with pytest.raises(BadDefinition, match=reason):
        resolve(saga_of(world.step("a"), child_of(world.step("b"), **attributes)))
    assert world.executed == []


def test_S22_a_saga_that_contains_itself_is_refused(resolve, world):
    def listed(request):
        return [world.step("a"), saga]

    saga = saga_of(listed)
    with pytest.raises(BadDefinition, match="Order -> Order"):
        resolve(saga)


# --- deadlines, generations, crashes ------------------------------------------------------------------------------


def test_S24_the_deadline_of_a_child_turns_the_parent_back(new_engine, resolve, world, clock):
    child = child_of(world.step("b"), world.step("c", BackgroundResponse.reschedule(600)), deadline_s=100)
    saga = saga_of(world.step("a", LATER, DONE), child, world.step("d"))
    engine = new_engine(sagas=[saga])
    resolve(saga, on=engine)
    clock.advance(200)
    resolve(saga, on=engine)
    assert engine.get(SAGA_ID).next_due_at == clock.now() + 100
    clock.advance(99)
    assert engine.recover() == 0
    clock.advance(1)
    assert engine.recover() == 1
    assert world.undone == ["c", "b", "a"]
    assert isinstance(world.of("a", "compensate")[0].error, DeadlineExceeded)
    assert engine.get(SAGA_ID).status is SagaStatus.COMPENSATED


def test_S24_the_deadline_of_a_child_that_ended_in_time_no_longer_counts(new_engine, resolve, world, clock):
    saga = saga_of(child_of(world.step("b"), deadline_s=100), world.step("c", BackgroundResponse.reschedule(600), DONE))
    engine = new_engine(sagas=[saga])
    resolve(saga, on=engine)
    clock.advance(600)
    engine.recover()
    assert engine.get(SAGA_ID).status is SagaStatus.COMPLETED


def test_S22_each_generation_has_its_own_child_and_keys(engine, resolve, world, seen, seeing):
    child = child_of(world.step("x", seeing))
    saga = saga_of(child, restarts=lambda self, request, previous: True)
    resolve(saga)
    resolve(saga)
    assert {saga_id for saga_id, _, _ in seen} == {CHILD_ID, f"{SAGA_ID}#2/Child"}
    assert len({key for _, key in seen.values()}) == 2
    assert engine.get(f"{SAGA_ID}#2/Child").generation == 2
    assert engine.get(CHILD_ID).saga_id == f"{SAGA_ID}#2/Child"


@pytest.mark.parametrize("dies", [(StepStarted, "Child/c"), (StepCompleted, "Child/c")], ids=["started", "completed"])
def test_S16_a_crash_in_a_child_goes_on_there(journal, new_engine, resolve, world, dies):
    process = LoudMortal(journal, dies_after=dies)
    child = child_of(world.step("b", remember(b=1)), world.step("c", remember(c=1)))
    saga = saga_of(world.step("a"), child, world.step("d"))
    with pytest.raises(Crash):
        resolve(saga, on=new_engine(process))
    assert resolve(saga).status == "success"
    assert world.executed == ["a", "b", "c", "d"]
    assert world.of("d")[0].state == {"b": 1, "c": 1}


def test_S16_a_crash_in_the_undo_of_a_child_goes_on_there(journal, new_engine, resolve, world):
    process = LoudMortal(journal, dies_after=(CompensationStarted, "Child/b"))
    saga = saga_of(world.step("a"), child_of(world.step("b"), world.step("c", FAIL)))
    with pytest.raises(Crash):
        resolve(saga, on=new_engine(process))
    assert resolve(saga).status == "fail"
    assert world.undone == ["b", "a"]


def test_S31_a_signal_for_a_child_is_sent_to_its_parent(new_engine, resolve, world):
    saga = saga_of(child_of(WaitFor("ok"), world.step("b")), world.step("c"))
    engine = new_engine(sagas=[saga])
    resolve(saga, on=engine)
    engine.signal(SAGA_ID, "ok", 7)
    assert engine.get(SAGA_ID).status is SagaStatus.COMPLETED
    assert world.of("b")[0].state == world.of("c")[0].state == {"ok": 7}


def test_S22_middlewares_of_the_parent_are_around_those_of_the_child(resolve, world):
    order = []

    def noting(name):
        def middleware(request, nxt):
            order.append(name)
            return nxt(request)

        async def native(request, nxt):
            order.append(name)
            return await nxt(request)

        return native if world.is_native_async else middleware

    child = child_of(world.step("b"), middlewares=lambda self, request: [noting("inner")])
    resolve(saga_of(world.step("a"), child, middlewares=lambda self, request: [noting("outer")]))
    assert order == ["outer", "outer", "inner"]
