"""What a person may say to an execution, what is refused and why; rule S32; export, replay, purge and preview."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from connect.eaas.core.responses import BackgroundResponse
from gates import LoudMortal, Watch, gated
from pairs import in_pairs
from sagas import DONE, SAGA_ID, Crash, remember, reraise, saga_of, stable_id, statuses
from tenacity import stop_after_attempt, wait_fixed

from saga_engine import Chain, Engine, Parallel, SagaStatus, WaitFor
from saga_engine.errors import BadExport, BadRequest, NotAllowed, NotJSON, SagaError, UndoRequested, UnknownExecution
from saga_engine.journal import (
    CompensationStarted,
    ParkedStepResolved,
    StateEdited,
    StepCompleted,
    StepFailed,
    StepResumed,
    StepSkippedByHand,
    StepStarted,
    UndoOrdered,
)
from transactions import Kind, Probe, RetryPolicy

FAIL = BackgroundResponse.fail("no")
LATER = BackgroundResponse.reschedule(60)
ONCE = RetryPolicy(stop=stop_after_attempt(1))
SLOW = RetryPolicy(stop=stop_after_attempt(9), wait=wait_fixed(1_000))

pytestmark = in_pairs


@pytest.fixture
def running(new_engine, resolve):
    """`running(saga)`: deliver the request once, and give the engine, which knows the saga."""

    def run(saga, request=None, **options):
        engine = new_engine(sagas=[saga], **options)
        run.told = resolve(saga, request, on=engine)
        return engine

    return run


@pytest.fixture
def interrupted(journal, new_engine, resolve, world):
    """`interrupted(*behind, **options of b)`: an execution that parked at `b`, in which a process had died."""

    def crash(*then, **options):
        process = LoudMortal(journal)
        b = world.step("b", process.die, DONE, on_unknown="park", **options)
        saga = saga_of(world.step("a"), b, *(then or (world.step("c"),)))
        with pytest.raises(Crash):
            resolve(saga, on=new_engine(process))
        engine = new_engine(sagas=[saga])
        assert resolve(saga, on=engine).output.startswith("parked at b")
        return engine, saga, b

    return crash


def parked_undo(world, *below):
    b = world.step("b", undo=[ValueError("stuck"), DONE], compensation_retry=ONCE)
    return saga_of(*(below or (world.step("a"),)), b, world.step("c", FAIL))


def entries(engine, kind):
    return [entry for entry in engine.history(SAGA_ID) if isinstance(entry, kind)]


# --- each is an entry that says who, when and why -----------------------------------------------------------------


def test_a_resumption_is_an_entry_with_who_when_and_why(running, world, clock):
    engine = running(parked_undo(world))
    clock.advance(7)
    engine.resume(SAGA_ID, note="the vendor is back", who="ann")
    (entry,) = entries(engine, StepResumed)
    assert (entry.step, entry.note, entry.who, entry.at) == ("b", "the vendor is back", "ann", clock.now())
    assert engine.get(SAGA_ID).status is SagaStatus.COMPENSATED


def test_a_skip_is_an_entry_with_who_when_and_why(running, world, clock):
    engine = running(saga_of(world.step("a"), world.step("b", LATER), world.step("c")))
    clock.advance(7)
    engine.skip(SAGA_ID, "b", state={"b": 1}, note="by phone", who="ann", force=True)
    (entry,) = entries(engine, StepSkippedByHand)
    assert (entry.step, entry.note, entry.who, entry.at, entry.is_forced) == ("b", "by phone", "ann", clock.now(), True)
    assert json.loads(bytes(entry.changes)) == {"b": 1}
    assert world.of("c")[0].state == {"b": 1}


def test_a_resolution_is_an_entry_with_who_when_and_why(running, world, clock):
    engine = running(parked_undo(world))
    clock.advance(7)
    engine.resolve_parked(SAGA_ID, "b", note="by hand", who="ann")
    (entry,) = entries(engine, ParkedStepResolved)
    assert (entry.step, entry.outcome, entry.note, entry.who, entry.at) == (
        "b",
        "undone",
        "by hand",
        "ann",
        clock.now(),
    )


def test_an_edit_is_an_entry_with_who_when_and_why(running, world, clock):
    engine = running(saga_of(world.step("a", remember(LATER, old=1))))
    clock.advance(7)
    engine.edit_state(SAGA_ID, {"x": [1]}, remove=["old", "never there"], note="typo", who="ann")
    (entry,) = entries(engine, StateEdited)
    assert (entry.removed, entry.note, entry.who, entry.at) == (("old", "never there"), "typo", "ann", clock.now())
    assert engine.get(SAGA_ID).state == {"x": [1]}
    assert engine.get(SAGA_ID).status is SagaStatus.SUSPENDED


def test_an_undo_is_an_entry_with_who_when_and_why(running, world, clock):
    engine = running(saga_of(world.step("a")))
    clock.advance(7)
    engine.undo(SAGA_ID, note="returned", who="ann")
    (entry,) = entries(engine, UndoOrdered)
    assert (entry.note, entry.who, entry.at) == ("returned", "ann", clock.now())


# --- what is no text, no JSON, or no step -------------------------------------------------------------------------

NONSENSE = {
    "resume note": lambda engine: engine.resume(SAGA_ID, note=5),
    "resume who": lambda engine: engine.resume(SAGA_ID, who=None),
    "resolve note": lambda engine: engine.resolve_parked(SAGA_ID, "b", note=None),
    "resolve who": lambda engine: engine.resolve_parked(SAGA_ID, "b", note="", who=5),
    "resolve outcome": lambda engine: engine.resolve_parked(SAGA_ID, "b", note="", outcome="gone"),
    "edit note": lambda engine: engine.edit_state(SAGA_ID, {}, note=["x"]),
    "edit remove": lambda engine: engine.edit_state(SAGA_ID, {}, remove=[5]),
    "edit value": lambda engine: engine.edit_state(SAGA_ID, {"x": object()}),
    "edit key": lambda engine: engine.edit_state(SAGA_ID, {5: 1}),
    "half a surrogate pair": lambda engine: engine.resume(SAGA_ID, note="\ud800"),
}


@pytest.mark.parametrize("name", sorted(NONSENSE))
def test_S28_nonsense_is_refused_with_an_error_of_ours_and_does_no_harm(running, world, name):
    engine = running(parked_undo(world))
    with pytest.raises((BadRequest, NotAllowed, NotJSON)):
        NONSENSE[name](engine)
    assert engine.get(SAGA_ID).status is SagaStatus.PARKED
    engine.resume(SAGA_ID)
    assert engine.get(SAGA_ID).status is SagaStatus.COMPENSATED


@pytest.mark.parametrize("what", ["resume", "skip", "resolve_parked"])
def test_a_step_that_is_not_there_is_refused(running, world, what):
    engine = running(saga_of(world.step("a", LATER)))
    options = {"note": "x"} if what == "resolve_parked" else {}
    with pytest.raises(NotAllowed, match="nobody"):
        getattr(engine, what)(SAGA_ID, "nobody", **options)


@pytest.mark.parametrize("what", ["resume", "skip", "resolve_parked", "edit_state", "undo", "preview"])
def test_an_execution_that_is_not_there_is_refused(engine, world, what):
    arguments = {"skip": ("a",), "resolve_parked": ("a",), "edit_state": ({},)}.get(what, ())
    options = {"note": "x"} if what == "resolve_parked" else {}
    with pytest.raises(UnknownExecution):
        getattr(engine, what)("Order:nobody", *arguments, **options)


@pytest.mark.parametrize("what", ["resume", "skip", "resolve_parked", "edit_state"])
def test_what_ended_cannot_be_changed_any_more(running, world, what):
    engine = running(saga_of(world.step("a")))
    arguments = {"edit_state": ({"x": 1},)}.get(what, ("a",))
    options = {"note": "x"} if what == "resolve_parked" else {}
    with pytest.raises(NotAllowed):
        getattr(engine, what)(SAGA_ID, *arguments, **options)
    assert engine.get(SAGA_ID).status is SagaStatus.COMPLETED


# --- resume -------------------------------------------------------------------------------------------------------


def test_resume_tries_a_parked_undo_again_with_its_key(running, world):
    engine = running(parked_undo(world))
    engine.resume(SAGA_ID, "b")
    assert world.undone == ["b", "b", "a"]
    assert len({call.key for call in world.of("b", "compensate")}) == 1


def test_what_somebody_says_who_has_no_such_saga_waits_for_those_who_have(running, new_engine, world):
    engine = running(saga_of(world.step("a", LATER, DONE)))
    new_engine(sagas=[]).resume(SAGA_ID)
    assert "cannot be imported" in engine.get(SAGA_ID).stuck
    engine._begun_worker()  # which leaves alone for minutes what a worker could not drive
    assert engine.wait(SAGA_ID).status == "success"


def test_resume_gives_the_undo_its_attempts_anew(running, world):
    twice = RetryPolicy(stop=stop_after_attempt(2))
    b = world.step("b", undo=[ValueError("stuck")] * 3 + [DONE], compensation_retry=twice)
    engine = running(saga_of(world.step("a"), b, world.step("c", FAIL)))
    assert engine.get(SAGA_ID).status is SagaStatus.PARKED
    engine.resume(SAGA_ID)
    assert engine.get(SAGA_ID).status is SagaStatus.COMPENSATED
    assert world.undone == ["b"] * 4 + ["a"]


def test_resume_gives_a_compensation_whose_deadline_passed_its_time_anew(running, resolve, world, clock):
    b = world.step("b", undo=[LATER, LATER, DONE])
    saga = saga_of(world.step("a"), b, world.step("c", FAIL), compensation_deadline_s=50)
    engine = running(saga)
    clock.advance(50)
    engine.recover()
    assert engine.get(SAGA_ID).status is SagaStatus.PARKED
    engine.resume(SAGA_ID)
    assert engine.get(SAGA_ID).status is SagaStatus.COMPENSATING
    resolve(saga, on=engine)
    assert engine.get(SAGA_ID).status is SagaStatus.COMPENSATED


def test_resume_ends_a_wait_for_a_reschedule_at_once(running, world):
    engine = running(saga_of(world.step("a", LATER, DONE), world.step("b")))
    engine.resume(SAGA_ID, force=True)
    assert engine.get(SAGA_ID).status is SagaStatus.COMPLETED


def test_resume_ends_a_wait_for_a_retry_at_once(running, world, clock):
    a = world.step("a", ValueError("busy"), DONE, retry=SLOW, probe=Probe.NOT_DONE)
    engine = running(saga_of(a), budget_s=100)
    assert engine.get(SAGA_ID).next_due_at == clock.now() + 1_000
    engine.resume(SAGA_ID)
    assert engine.get(SAGA_ID).status is SagaStatus.COMPLETED
    assert clock.slept_s == []


def test_resume_without_a_step_resumes_every_parked_one(journal, new_engine, resolve, world):
    process = LoudMortal(journal, dies_after=StepStarted)
    group = Parallel(world.step("a", on_unknown="park"), world.step("b", on_unknown="park"))
    saga = saga_of(group, world.step("c"))
    with pytest.raises(Crash):
        resolve(saga, on=new_engine(process))
    engine = new_engine(sagas=[saga])
    assert resolve(saga, on=engine).status == "fail"
    for _ in range(2):
        if engine.get(SAGA_ID).status is SagaStatus.PARKED:
            engine.resume(SAGA_ID, force=True)
    assert engine.get(SAGA_ID).status is SagaStatus.COMPLETED
    assert sorted(world.executed) == ["a", "b", "c"]


@pytest.mark.parametrize("step", ["c", "a"], ids=["pending", "completed"])
def test_resume_of_what_neither_parked_nor_waits_is_refused(running, world, step):
    engine = running(saga_of(world.step("a"), world.step("b", LATER), world.step("c")))
    with pytest.raises(NotAllowed, match="nothing to resume"):
        engine.resume(SAGA_ID, step)


def test_resume_of_a_wait_for_a_signal_is_refused(running, world):
    engine = running(saga_of(WaitFor("ok"), world.step("b")))
    with pytest.raises(NotAllowed, match="nothing waits"):
        engine.resume(SAGA_ID)
    with pytest.raises(NotAllowed, match="waits for a signal"):
        engine.resume(SAGA_ID, "Wait for ok")


def test_a_parked_undo_without_an_undo_parks_again_when_it_is_resumed(running, world):
    saga = saga_of(world.step("a", undo=None), world.step("b", FAIL))
    engine = running(saga)
    assert engine.get(SAGA_ID).steps[0].cause == "no undo"
    engine.resume(SAGA_ID)
    assert engine.get(SAGA_ID).status is SagaStatus.PARKED
    engine.resolve_parked(SAGA_ID, "a", note="by hand")
    assert engine.get(SAGA_ID).status is SagaStatus.COMPENSATED


# --- an unknown outcome -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["resume", "skip"])
def test_an_unknown_outcome_without_probe_or_idempotency_needs_force(interrupted, world, what):
    engine, _, _ = interrupted()
    with pytest.raises(NotAllowed, match=f"neither a probe nor says is_idempotent.*{what} with force"):
        getattr(engine, what)(SAGA_ID, "b")
    assert engine.get(SAGA_ID).status is SagaStatus.PARKED
    getattr(engine, what)(SAGA_ID, "b", force=True)
    assert engine.get(SAGA_ID).status is SagaStatus.COMPLETED
    assert len(world.of("b")) == (2 if what == "resume" else 1)
    assert len({call.key for call in world.of("b")}) == 1


def test_an_unknown_outcome_of_an_idempotent_step_needs_no_force(journal, new_engine, resolve, world):
    process = LoudMortal(journal)
    b = world.step("b", process.die, DONE, on_unknown="park")
    b.is_idempotent = True
    saga = saga_of(b)
    with pytest.raises(Crash):
        resolve(saga, on=new_engine(process))
    engine = new_engine(sagas=[saga])
    resolve(saga, on=engine)
    engine.resume(SAGA_ID)
    assert engine.get(SAGA_ID).status is SagaStatus.COMPLETED
    assert len({call.key for call in world.of("b")}) == 1


@pytest.mark.parametrize(("answer", "executions"), [(Probe.DONE, 1), (Probe.NOT_DONE, 2), (Probe.UNKNOWN, 2)])
def test_an_unknown_outcome_with_a_probe_is_probed_again_when_it_is_resumed(interrupted, world, answer, executions):
    engine, _, _ = interrupted(probe=[Probe.UNKNOWN, answer])
    engine.resume(SAGA_ID)
    assert world.probed == ["b", "b"]
    assert len(world.of("b")) == executions
    assert engine.get(SAGA_ID).status is SagaStatus.COMPLETED


def test_what_was_skipped_with_an_unknown_outcome_is_undone_if_the_saga_turns_back(interrupted, world):
    engine, _, _ = interrupted(world.step("c", FAIL))
    engine.skip(SAGA_ID, "b", force=True)
    assert world.undone == ["b", "a"]
    assert engine.get(SAGA_ID).status is SagaStatus.COMPENSATED


def test_resume_of_a_child_resumes_what_parked_in_that_child_only(journal, new_engine, resolve, world):
    process = LoudMortal(journal, dies_after=StepStarted)
    children = [saga_of(world.step(f"{n}-step", on_unknown="park"), name=n) for n in ("One", "Two")]
    saga = saga_of(Parallel(*children))
    with pytest.raises(Crash):
        resolve(saga, on=new_engine(process))
    engine = new_engine(sagas=[saga])
    resolve(saga, on=engine)
    assert [engine.get(f"{SAGA_ID}/{child}").status for child in ("One", "Two")] == [SagaStatus.PARKED] * 2
    engine.resume(f"{SAGA_ID}/One", force=True)
    assert engine.get(f"{SAGA_ID}/Two").status is SagaStatus.PARKED
    assert [entry.step for entry in entries(engine, StepResumed)] == ["One/One-step"]
    assert "Two-step" not in world.executed
    engine.resume(f"{SAGA_ID}/Two", force=True)
    assert engine.get(SAGA_ID).status is SagaStatus.COMPLETED


# --- skip ---------------------------------------------------------------------------------------------------------


def test_a_step_whose_turn_has_not_come_cannot_be_skipped(running, resolve, world):
    saga = saga_of(world.step("a", LATER, DONE), world.step("b"))
    engine = running(saga)
    with pytest.raises(NotAllowed, match="not the turn of 'b' yet, 'a' is ahead of it"):
        engine.skip(SAGA_ID, "b")
    assert resolve(saga, on=engine).status == "success"
    assert world.executed == ["a", "a", "b"]


def test_a_branch_that_has_not_begun_can_be_skipped_and_leaves_its_state_to_what_follows(running, resolve, world):
    late = world.step("late", wanted=ValueError("cannot tell"), retry=SLOW)
    saga = saga_of(Parallel(late, world.step("b", remember(LATER, b=1), DONE)), world.step("c"))
    engine = running(saga, budget_s=100)
    engine.skip(SAGA_ID, "late", state={"late": "by hand"})
    assert statuses(engine.get(SAGA_ID))["late"] == "SKIPPED"
    assert resolve(saga, on=engine).status == "success"
    assert world.of("c")[0].state == {"b": 1, "late": "by hand"}


def test_a_wait_for_a_signal_can_be_skipped(running, world):
    engine = running(saga_of(WaitFor("ok"), world.step("b")))
    engine.skip(SAGA_ID, "Wait for ok", state={"ok": "by phone"})
    assert engine.get(SAGA_ID).status is SagaStatus.COMPLETED
    assert world.of("b")[0].state == {"ok": "by phone"}


def test_the_skip_of_the_last_open_branch_joins_the_group(running, world):
    a = world.step("a", remember(LATER, a=1))
    engine = running(saga_of(Parallel(a, world.step("b", remember(b=1))), world.step("c")))
    engine.skip(SAGA_ID, "a", state={"more": 1}, force=True)
    assert world.of("c")[0].state == {"a": 1, "b": 1, "more": 1}


@pytest.mark.parametrize(
    ("make", "step", "reason"),
    [
        (lambda world: saga_of(world.step("a"), world.step("b", LATER)), "a", "nothing to skip"),
        (parked_undo, "b", "compensating"),
    ],
    ids=["completed", "compensating"],
)
def test_a_skip_that_makes_no_sense_is_refused(running, world, make, step, reason):
    engine = running(make(world))
    with pytest.raises(NotAllowed, match=reason):
        engine.skip(SAGA_ID, step, force=True)


def test_a_step_that_runs_cannot_be_skipped_nor_the_state_edited(new_engine, resolve, world):
    refused = []

    def try_it(request):
        for call in (
            lambda: engine.skip(SAGA_ID, "a", force=True),
            lambda: engine.edit_state(SAGA_ID, {"x": 1}),
            lambda: engine.resume(SAGA_ID, "a", force=True),
            lambda: engine.undo(SAGA_ID),
        ):
            try:
                call()
            except NotAllowed as error:
                refused.append(str(error))
        return DONE

    saga = saga_of(world.step("a", try_it))
    engine = new_engine(sagas=[saga])
    assert resolve(saga, on=engine).status == "success"
    assert len(refused) == 4
    assert "running now" in refused[0]
    assert "being driven now" in refused[1]
    assert engine.get(SAGA_ID).state == {}


# --- resolve_parked -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", ["done", "not_done"])
def test_only_undone_lets_a_compensation_go_on(running, world, outcome):
    engine = running(parked_undo(world))
    with pytest.raises(NotAllowed, match="only the outcome 'undone'"):
        engine.resolve_parked(SAGA_ID, "b", outcome=outcome, note="x")


def test_a_step_that_is_not_parked_cannot_be_resolved_and_the_parked_ones_are_named(running, world):
    engine = running(parked_undo(world))
    with pytest.raises(NotAllowed, match=r"step 'a' is not parked; parked are b$"):
        engine.resolve_parked(SAGA_ID, "a", note="x")


@pytest.mark.parametrize(
    ("outcome", "end", "executed", "undone"),
    [
        ("done", SagaStatus.COMPLETED, ["a", "b", "c"], []),
        ("not_done", SagaStatus.COMPLETED, ["a", "b", "b", "c"], []),
        ("undone", SagaStatus.COMPENSATED, ["a", "b"], ["a"]),
    ],
)
def test_a_parked_step_goes_on_as_a_person_says(interrupted, world, outcome, end, executed, undone):
    engine, _, _ = interrupted()
    engine.resolve_parked(SAGA_ID, "b", outcome=outcome, note="asked them")
    assert engine.get(SAGA_ID).status is end
    assert (world.executed, world.undone) == (executed, undone)


# --- S32: undo of a completed execution ---------------------------------------------------------------------------


def test_S32_everything_that_defines_an_undo_is_undone_in_reverse_pivots_included(running, resolve, world):
    saga = saga_of(
        world.step("a"),
        world.step("look", kind=Kind.READ_ONLY),
        world.step("none", undo=None),
        world.step("unwanted", wanted=False),
        world.step("p", kind=Kind.PIVOT),
        world.step("r", kind=Kind.RETRIABLE),
        world.step("mail", kind=Kind.RETRIABLE, undo=None),
    )
    engine = running(saga)
    engine.undo(SAGA_ID, note="returned")
    assert world.undone == ["r", "p", "a"]
    record = engine.get(SAGA_ID)
    assert record.status is SagaStatus.COMPENSATED
    assert statuses(record) == {
        "a": "COMPENSATED",
        "look": "COMPLETED",
        "none": "COMPLETED",
        "unwanted": "SKIPPED",
        "p": "COMPENSATED",
        "r": "COMPENSATED",
        "mail": "COMPLETED",
    }
    errors = {(type(call.error), str(call.error)) for call in world.calls if call.operation == "compensate"}
    assert errors == {(UndoRequested, "returned")}


@pytest.mark.parametrize("answer", [DONE, BackgroundResponse.skip("enough")], ids=["done", "skip"])
def test_S32_the_first_answer_stays_the_answer(running, resolve, world, answer):
    saga = saga_of(world.step("a"), world.step("b", answer))
    engine = running(saga)
    engine.undo(SAGA_ID)
    again = resolve(saga, on=engine)
    assert (again.status, again.output) == (running.told.status, running.told.output)
    assert engine.get(SAGA_ID).response.status == running.told.status
    assert world.executed == ["a", "b"]


def test_S32_a_delivery_in_the_middle_of_the_undo_gets_the_first_answer_and_runs_nothing(
    running, resolve, world, clock
):
    saga = saga_of(world.step("a", undo=[LATER, DONE]), world.step("b"))
    engine = running(saga)
    engine.undo(SAGA_ID)
    assert engine.get(SAGA_ID).status is SagaStatus.COMPENSATING
    assert resolve(saga, on=engine).status == "success"
    assert world.undone == ["b", "a"]
    clock.advance(60)
    assert engine.recover() == 1
    assert world.undone == ["b", "a", "a"]
    assert engine.get(SAGA_ID).status is SagaStatus.COMPENSATED
    assert resolve(saga, on=engine).status == "success"


def test_S32_what_was_undone_by_order_says_so(running, world):
    engine = running(saga_of(world.step("a")))
    engine.undo(SAGA_ID, note="returned")
    assert (engine.get(SAGA_ID).status, engine.get(SAGA_ID).error) == (SagaStatus.COMPENSATED, "undone by order")


def test_S32_an_undo_that_parks_is_resumed_and_its_answer_stays(running, resolve, world):
    saga = saga_of(world.step("a"), world.step("b", undo=[ValueError("stuck"), DONE], compensation_retry=ONCE))
    engine = running(saga)
    engine.undo(SAGA_ID)
    assert engine.get(SAGA_ID).status is SagaStatus.PARKED
    assert engine.get(SAGA_ID).error == "parked at b: compensate failed: stuck"
    assert resolve(saga, on=engine).status == "success"
    engine.resume(SAGA_ID)
    assert engine.get(SAGA_ID).status is SagaStatus.COMPENSATED
    assert world.undone == ["b", "b", "a"]


def test_S32_a_compensate_that_reraises_has_no_undo_and_parks(running, world):
    engine = running(saga_of(world.step("a"), world.step("b", undo=reraise)))
    engine.undo(SAGA_ID)
    assert engine.get(SAGA_ID).steps[1].cause == "no undo"
    engine.resolve_parked(SAGA_ID, "b", note="by hand")
    assert engine.get(SAGA_ID).status is SagaStatus.COMPENSATED


def test_S32_an_execution_is_undone_once(running, world):
    engine = running(saga_of(world.step("a", undo=[LATER, DONE])))
    engine.undo(SAGA_ID)
    with pytest.raises(NotAllowed, match="COMPENSATING"):
        engine.undo(SAGA_ID)
    with pytest.raises(NotAllowed, match="being undone already"):
        engine.cancel(SAGA_ID, "too")
    engine.resume(SAGA_ID)
    with pytest.raises(NotAllowed, match="COMPENSATED"):
        engine.undo(SAGA_ID)
    assert world.undone == ["a", "a"]


@pytest.mark.parametrize(
    ("script", "status"),
    [(FAIL, "COMPENSATED"), (LATER, "SUSPENDED"), (BackgroundResponse.skip("no"), "SKIPPED")],
    ids=["compensated", "suspended", "skipped"],
)
def test_S32_only_what_completed_can_be_undone(running, world, script, status):
    engine = running(saga_of(world.step("a", script)))
    with pytest.raises(NotAllowed, match=status):
        engine.undo(SAGA_ID)


def test_S32_an_undo_with_nothing_to_undo_ends(running, world):
    engine = running(saga_of(world.step("a", undo=None), world.step("b", kind=Kind.READ_ONLY)))
    engine.undo(SAGA_ID)
    assert engine.get(SAGA_ID).status is SagaStatus.COMPENSATED


def test_S32_a_deadline_that_passed_meanwhile_does_not_matter_to_an_undo(running, world, clock):
    engine = running(saga_of(world.step("a", undo=[LATER, DONE]), deadline_s=10))
    clock.advance(1_000)
    engine.undo(SAGA_ID)
    clock.advance(60)
    engine.recover()
    assert engine.get(SAGA_ID).status is SagaStatus.COMPENSATED


def test_S32_the_state_is_there_and_the_keys_are_those_of_the_undo(running, world):
    engine = running(saga_of(world.step("a", remember(ticket="T")), world.step("b", undo=remember(DONE, credit="C"))))
    engine.undo(SAGA_ID)
    assert world.of("b", "compensate")[0].state == {"ticket": "T"}
    assert world.of("a", "compensate")[0].state == {"ticket": "T", "credit": "C"}
    assert len({call.key for call in world.calls}) == 4


def test_S32_a_crash_in_the_undo_goes_on_there(journal, new_engine, resolve, world):
    saga = saga_of(world.step("a"), world.step("b"))
    resolve(saga, on=new_engine(sagas=[saga]))
    process = LoudMortal(journal, dies_after=(CompensationStarted, "a"))
    with pytest.raises(Crash):
        new_engine(process, sagas=[saga]).undo(SAGA_ID)
    engine = new_engine(sagas=[saga])
    engine.recover()
    assert engine.get(SAGA_ID).status is SagaStatus.COMPENSATED
    assert world.undone == ["b", "a"]
    assert resolve(saga, on=engine).status == "success"


def test_S32_an_engine_that_cannot_drive_leaves_the_order_for_one_that_can(new_engine, resolve, world):
    saga = saga_of(world.step("a"))
    resolve(saga, on=new_engine(sagas=[saga]))
    new_engine(config=None).undo(SAGA_ID)
    assert world.undone == []
    engine = new_engine(sagas=[saga])
    assert resolve(saga, on=engine).status == "success"
    assert engine.recover() == 1
    assert engine.get(SAGA_ID).status is SagaStatus.COMPENSATED


# --- Saga.undoes --------------------------------------------------------------------------------------------------


def orders(world, *purchase, **cancellation):
    purchases = saga_of(*purchase, name="Purchase", key=lambda self, request: request["asset"])
    cancels = saga_of(
        world.step("tell", kind=Kind.READ_ONLY),
        name="Cancel",
        undoes=purchases,
        key=lambda self, request: request["id"],
        **cancellation,
    )
    return purchases, cancels


BUY, RETURN = {"id": "PR-1", "asset": "AS-1"}, {"id": "PR-2", "asset": "AS-1"}


def test_S32_a_later_order_undoes_the_purchase_before_its_own_steps(new_engine, resolve, world):
    purchase, cancel = orders(world, world.step("a"), world.step("b"))
    engine = new_engine(sagas=[purchase, cancel])
    resolve(purchase, BUY, on=engine)
    assert resolve(cancel, RETURN, on=engine).status == "success"
    assert world.trace() == ["execute a", "execute b", "compensate b", "compensate a", "execute tell"]
    assert engine.get("Purchase:AS-1").status is SagaStatus.COMPENSATED
    assert list(statuses(engine.get("Cancel:PR-2"))) == ["Undo Purchase", "tell"]
    assert resolve(purchase, BUY, on=engine).status == "success"


def test_S32_an_order_waits_until_the_undo_has_come_to_its_end(new_engine, resolve, world, clock):
    purchase, cancel = orders(world, world.step("a", undo=[LATER, DONE]))
    engine = new_engine(sagas=[purchase, cancel])
    resolve(purchase, BUY, on=engine)
    assert resolve(cancel, RETURN, on=engine).status == "reschedule"
    assert "tell" not in world.executed
    clock.advance(600)
    engine.recover()
    engine.recover()
    assert engine.get("Cancel:PR-2").status is SagaStatus.COMPLETED
    assert world.undone == ["a", "a"]


def test_S32_an_order_cancels_a_purchase_that_is_still_under_way(new_engine, resolve, world):
    purchase, cancel = orders(world, world.step("a"), world.step("b", LATER))
    engine = new_engine(sagas=[purchase, cancel])
    resolve(purchase, BUY, on=engine)
    assert resolve(cancel, RETURN, on=engine).status == "success"
    assert engine.get("Purchase:AS-1").status is SagaStatus.CANCELLED


def test_S32_an_order_for_a_purchase_that_is_unknown_or_parked_fails(new_engine, resolve, world):
    purchase, cancel = orders(world, world.step("a", undo=ValueError("stuck"), compensation_retry=ONCE))
    engine = new_engine(sagas=[purchase, cancel])
    told = resolve(cancel, {"id": "PR-9", "asset": "AS-9"}, on=engine)
    assert told.status == "fail"
    assert "Purchase:AS-9" in told.output
    resolve(purchase, BUY, on=engine)
    told = resolve(cancel, RETURN, on=engine)
    assert told.status == "fail"
    assert "parked" in told.output
    assert "tell" not in world.executed


# --- preview ------------------------------------------------------------------------------------------------------


def order_of(preview):
    return [undo.step for undo in preview.undos]


def test_a_preview_of_a_waiting_chain_is_what_then_happens(running, resolve, world):
    saga = saga_of(
        world.step("a"),
        world.step("look", kind=Kind.READ_ONLY),
        world.step("b"),
        world.step("c", LATER, ValueError("no")),
    )
    engine = running(saga)
    expected = order_of(engine.preview(SAGA_ID))
    resolve(saga, on=engine)
    assert expected == world.undone == ["c", "b", "a"]


def test_a_preview_of_a_group_is_what_then_happens(new_engine, resolve, world):
    watch = Watch()
    b = gated(world.step("b"), waits_for=watch.gate(StepCompleted, "a"))
    c = gated(world.step("c"), waits_for=watch.gate(StepCompleted, "b"))
    saga = saga_of(
        world.step("before"), Parallel(Chain(world.step("a"), c), b), world.step("d", LATER, ValueError("no"))
    )
    engine = new_engine(sagas=[saga], observer=watch)
    resolve(saga, on=engine)
    expected = order_of(engine.preview(SAGA_ID))
    resolve(saga, on=engine)
    assert expected == world.undone


def test_a_preview_of_a_step_between_two_attempts_in_a_group_is_what_happens_when_it_gives_up(
    new_engine, resolve, world, clock
):
    twice = RetryPolicy(stop=stop_after_attempt(2), wait=wait_fixed(1_000))
    watch = Watch()
    b = gated(world.step("b"), waits_for=watch.gate(StepFailed, "a"))
    saga = saga_of(world.step("before"), Parallel(world.step("a", ValueError("no"), retry=twice), b))
    engine = new_engine(sagas=[saga], observer=watch, budget_s=100)
    resolve(saga, on=engine)
    expected = order_of(engine.preview(SAGA_ID))
    clock.advance(1_000)
    engine.recover()
    assert expected == world.undone == ["a", "b", "before"]


def test_a_preview_of_a_child_is_what_then_happens(running, resolve, world):
    child = saga_of(world.step("b"), world.step("c", LATER, ValueError("no")), name="Child")
    saga = saga_of(world.step("a"), child)
    engine = running(saga)
    expected = order_of(engine.preview(SAGA_ID))
    resolve(saga, on=engine)
    assert expected == ["Child/c", "Child/b", "a"]
    assert world.undone == ["c", "b", "a"]


def test_a_preview_of_a_completed_execution_is_what_an_undo_does(running, world):
    engine = running(saga_of(world.step("a"), world.step("b", undo=None), world.step("p", kind=Kind.PIVOT)))
    expected = order_of(engine.preview(SAGA_ID))
    engine.undo(SAGA_ID)
    assert expected == world.undone == ["p", "a"]


def test_a_preview_of_a_compensation_is_what_is_left_of_it(running, resolve, world):
    saga = saga_of(world.step("a"), world.step("b", undo=[LATER, DONE]), world.step("c", ValueError("no")))
    engine = running(saga)
    assert order_of(engine.preview(SAGA_ID)) == ["b", "a"]
    resolve(saga, on=engine)
    assert world.undone == ["c", "b", "b", "a"]
    assert engine.preview(SAGA_ID).undos == ()
    assert engine.preview(SAGA_ID).note == "it ended COMPENSATED"


def test_a_preview_says_where_it_would_park(running, world):
    engine = running(saga_of(world.step("a"), world.step("b", undo=None), world.step("c", LATER)))
    assert [(undo.step, undo.how) for undo in engine.preview(SAGA_ID).undos] == [
        ("c", "compensate"),
        ("b", "park"),
        ("a", "compensate"),
    ]


def test_a_preview_of_a_parked_step_counts_it_in(interrupted, world):
    engine, _, _ = interrupted()
    assert order_of(engine.preview(SAGA_ID)) == ["b", "a"]


def test_a_preview_behind_the_pivot_says_that_it_can_only_go_forward(running, world):
    engine = running(
        saga_of(world.step("a"), world.step("p", kind=Kind.PIVOT), world.step("c", LATER, kind=Kind.RETRIABLE))
    )
    preview = engine.preview(SAGA_ID)
    assert preview.undos == ()
    assert preview.note == "it is past its pivot 'p': it can only go forward"


def test_a_preview_of_an_uncertain_pivot_says_so(running, world):
    engine = running(saga_of(world.step("a"), world.step("p", LATER, kind=Kind.PIVOT)))
    preview = engine.preview(SAGA_ID)
    assert preview.undos == ()
    assert "pivot" in preview.note


def test_a_preview_changes_nothing(new_engine, resolve, world):
    watch = Watch()
    saga = saga_of(world.step("a"), world.step("b", LATER))
    engine = new_engine(sagas=[saga], observer=watch)
    resolve(saga, on=engine)
    before, record = len(watch.commits), engine.get(SAGA_ID)
    engine.preview(SAGA_ID)
    assert (len(watch.commits), engine.get(SAGA_ID)) == (before, record)


# --- export and replay --------------------------------------------------------------------------------------------

EXPORTED = {
    "completed": lambda world: saga_of(world.step("a", remember(a=1)), world.step("b")),
    "compensated": lambda world: saga_of(world.step("a"), world.step("b", ValueError("no"))),
    "suspended group": lambda world: saga_of(Parallel(world.step("a", remember(LATER, a=1)), world.step("b"))),
    "parked": parked_undo,
    "child": lambda world: saga_of(saga_of(world.step("a"), name="Child"), WaitFor("ok")),
}


@pytest.mark.parametrize("name", sorted(EXPORTED))
def test_what_was_exported_replays_to_the_same_record(running, world, name):
    engine = running(EXPORTED[name](world))
    document = json.loads(json.dumps(engine.export(SAGA_ID)))
    replayed, record = Engine.replay(document), engine.get(SAGA_ID)
    assert replayed.as_builtins() == record.as_builtins()


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: d | {"format": "something else"},
        lambda d: d | {"version": 99},
        lambda d: d | {"entry_version": 99},
        lambda d: d | {"entry_version": "1"},
        lambda d: d | {"entries": []},
        lambda d: d | {"entries": d["entries"][1:]},
        lambda d: d | {"entries": None},
        lambda d: d | {"entries": [d["entries"][0], {"entry": "StepCompleted", "at": 1.0, "step": "nobody"}]},
        lambda d: d | {"entries": [{**d["entries"][0], "extra": 1}]},
        lambda d: d | {"entries": [*d["entries"], d["entries"][0]]},
        lambda d: "no document",
    ],
    ids=[
        "format",
        "version",
        "entry version",
        "text for a version",
        "empty",
        "no beginning",
        "none",
        "unknown step",
        "unknown field",
        "two beginnings",
        "text",
    ],
)
def test_S28_a_damaged_export_is_refused(running, world, damage):
    engine = running(saga_of(world.step("a")))
    with pytest.raises(BadExport):
        Engine.replay(damage(engine.export(SAGA_ID)))


# --- purge --------------------------------------------------------------------------------------------------------


def test_S15_a_purged_execution_still_answers_and_runs_nothing(running, resolve, world, clock):
    saga = saga_of(world.step("a", BackgroundResponse.skip("not ours")))
    engine = running(saga)
    clock.advance(100)
    assert engine.purge(older_than=timedelta(seconds=100.5)) == 0
    assert engine.purge(older_than=50) == 1
    assert engine.purge(older_than=50) == 0
    told = resolve(saga, on=engine)
    assert (told.status, told.output) == ("skip", "not ours")
    assert world.executed == ["a"]


def test_S15_what_is_left_of_a_purged_execution(running, world, clock):
    engine = running(saga_of(world.step("a", FAIL)))
    before = engine.get(SAGA_ID)
    clock.advance(100)
    engine.purge(older_than=50)
    for record in (engine.get(SAGA_ID), *engine.search(status=SagaStatus.COMPENSATED, saga="Order")):
        assert record.is_purged
        assert (record.saga_id, record.saga, record.status, record.generation) == (SAGA_ID, "Order", before.status, 1)
        assert (record.response.output, record.error, record.steps) == ("no", "no", ())
        assert (record.created_at, record.updated_at) == (before.created_at, before.updated_at)
        assert json.dumps(record.as_builtins())


@pytest.mark.parametrize("what", ["history", "export", "undo", "preview"])
def test_what_a_purged_execution_lacks_is_said(running, world, clock, what):
    engine = running(saga_of(world.step("a")))
    clock.advance(100)
    engine.purge(older_than=50)
    with pytest.raises((UnknownExecution, NotAllowed), match="purged") as refused:
        getattr(engine, what)(SAGA_ID)
    assert SAGA_ID in str(refused.value)


@pytest.mark.parametrize("what", ["signal", "cancel"])
def test_a_purged_execution_takes_nothing_in(running, world, clock, what):
    engine = running(saga_of(world.step("a")))
    clock.advance(100)
    engine.purge(older_than=50)
    with pytest.raises(SagaError):
        getattr(engine, what)(SAGA_ID, "x")


def test_S15_a_purged_execution_restarts_as_its_next_generation_with_new_keys(running, resolve, world, clock):
    saga = saga_of(world.step("a"), restarts=lambda self, request, previous: previous.is_purged)
    engine = running(saga)
    assert resolve(saga, on=engine).status == "success"
    assert len(world.of("a")) == 1
    clock.advance(100)
    engine.purge(older_than=50)
    assert resolve(saga, on=engine).status == "success"
    assert engine.get(SAGA_ID).generation == 2
    assert engine.get(f"{SAGA_ID}#1").is_purged
    assert len({call.key for call in world.of("a")}) == 2


@pytest.mark.parametrize(
    "make", [lambda world: saga_of(world.step("a", LATER)), parked_undo], ids=["suspended", "parked"]
)
def test_what_has_not_ended_is_not_purged(running, world, clock, make):
    engine = running(make(world))
    clock.advance(10_000)
    assert engine.purge(older_than=0) == 0
    assert not engine.get(SAGA_ID).is_purged


def test_an_execution_that_is_to_be_undone_is_not_purged(new_engine, resolve, world, clock):
    saga = saga_of(world.step("a", undo=[LATER, DONE]))
    engine = new_engine(sagas=[saga])
    resolve(saga, on=engine)
    new_engine(config=None).undo(SAGA_ID)
    clock.advance(10_000)
    assert engine.purge(older_than=0) == 0
    engine.recover()
    assert engine.purge(older_than=0) == 0
    clock.advance(60)
    engine.recover()
    clock.advance(1)
    assert engine.purge(older_than=0) == 1
    assert engine.get(SAGA_ID).status is SagaStatus.COMPENSATED


@pytest.mark.parametrize("age", [-1, "1d", True, None, float("nan"), timedelta(seconds=-1)], ids=stable_id)
def test_S28_an_age_that_is_none_is_refused(engine, world, age):
    with pytest.raises(BadRequest):
        engine.purge(older_than=age)
