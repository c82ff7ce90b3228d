"""Rule S20: before the pivot everything can be gone back on, behind it nothing; the order of kinds is checked first."""

from __future__ import annotations

import pytest
from connect.eaas.core.responses import BackgroundResponse
from gates import LoudMortal
from pairs import in_pairs
from sagas import DONE, SAGA_ID, Crash, remember, saga_of, statuses
from tenacity import stop_after_attempt, wait_fixed

from saga_engine import Chain, Parallel, SagaStatus, WaitFor
from saga_engine.errors import InvalidTransaction, NotAllowed
from saga_engine.journal import StepCompleted, StepStarted
from transactions import Kind, Probe, RetryPolicy, Suspend

FAIL = BackgroundResponse.fail("no")
LATER = BackgroundResponse.reschedule(60)
TWICE = RetryPolicy(stop=stop_after_attempt(2), wait=wait_fixed(5))
FOR_EVER = RetryPolicy(wait=wait_fixed(5))

pytestmark = in_pairs


@pytest.fixture
def pivot(world):
    return lambda *script, **options: world.step("p", *script, kind=Kind.PIVOT, **options)


@pytest.fixture
def retriable(world):
    return lambda name, *script, **options: world.step(name, *script, kind=Kind.RETRIABLE, **options)


# --- before the pivot ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failure", [FAIL, ValueError("no")], ids=["fail", "raise"])
def test_S20_before_the_pivot_a_failure_undoes_everything(engine, resolve, world, pivot, retriable, failure):
    saga = saga_of(world.step("a"), world.step("b", failure), pivot(), retriable("c"))
    assert resolve(saga).status == "fail"
    assert world.undone == (["a"] if failure is FAIL else ["b", "a"])
    assert engine.get(SAGA_ID).status is SagaStatus.COMPENSATED
    assert "p" not in world.executed


@pytest.mark.parametrize(("policy", "attempts"), [(None, 1), (TWICE, 1)], ids=["no policy", "twice"])
def test_S20_fail_of_the_pivot_goes_back_and_leaves_the_pivot_itself(engine, resolve, world, pivot, policy, attempts):
    saga = saga_of(world.step("a"), pivot(FAIL, retry=policy))
    told = resolve(saga)
    assert (told.status, told.output) == ("fail", "no")
    assert world.executed.count("p") == attempts
    assert world.undone == ["a"]
    assert engine.get(SAGA_ID).status is SagaStatus.COMPENSATED


def test_S20_fail_of_the_pivot_after_an_attempt_with_unknown_outcome_goes_back(engine, resolve, world, pivot):
    saga = saga_of(world.step("a"), pivot(ValueError("lost"), FAIL, retry=TWICE))
    assert resolve(saga).output == "no"
    assert world.undone == ["a"]


# --- the outcome of the pivot is unknown --------------------------------------------------------------------------


def test_S20_a_pivot_that_gave_up_with_unknown_outcome_parks_and_nothing_is_undone(engine, resolve, world, pivot):
    saga = saga_of(world.step("a"), pivot(ValueError("lost"), retry=TWICE))
    told = resolve(saga)
    assert told.output.startswith("parked at p: the pivot's outcome is unknown: lost")
    assert world.executed == ["a", "p", "p"]
    assert world.undone == []
    assert engine.get(SAGA_ID).status is SagaStatus.PARKED


@pytest.mark.parametrize("answer", [Probe.UNKNOWN, ValueError("no answer"), None], ids=["unknown", "raise", "nonsense"])
def test_S20_a_probe_that_cannot_tell_parks_after_the_pivots_retries(engine, resolve, world, pivot, answer):
    probe = (lambda request: "nonsense") if answer is None else answer
    saga = saga_of(world.step("a"), pivot(ValueError("lost"), retry=TWICE, probe=probe))
    assert resolve(saga).output.startswith("parked at p: the pivot's outcome is unknown")
    assert world.executed == ["a", "p", "p"]
    assert world.probed == ["p", "p"]
    assert world.undone == []


def test_S20_probe_NOT_DONE_goes_back(engine, resolve, world, pivot):
    saga = saga_of(world.step("a"), pivot(ValueError("lost"), probe=Probe.NOT_DONE))
    assert resolve(saga).output == "lost"
    assert world.undone == ["a"]
    assert engine.get(SAGA_ID).status is SagaStatus.COMPENSATED


def test_S20_probe_DONE_goes_forward(engine, resolve, world, pivot, retriable):
    saga = saga_of(world.step("a"), pivot(ValueError("lost"), probe=remember(Probe.DONE, p=1)), retriable("c"))
    assert resolve(saga).status == "success"
    assert world.undone == []
    assert world.of("c")[0].state == {"p": 1}


@pytest.mark.parametrize(
    ("outcome", "end", "undone", "executed"),
    [
        ("done", SagaStatus.COMPLETED, [], ["a", "p", "c"]),
        ("not_done", SagaStatus.COMPLETED, [], ["a", "p", "p", "c"]),
        ("undone", SagaStatus.COMPENSATED, ["a"], ["a", "p"]),
    ],
)
def test_S20_a_person_tells_how_an_unknown_pivot_stands(
    new_engine, resolve, world, pivot, retriable, outcome, end, undone, executed
):
    saga = saga_of(world.step("a"), pivot(ValueError("lost"), DONE), retriable("c"))
    engine = new_engine(sagas=[saga])
    resolve(saga, on=engine)
    engine.resolve_parked(SAGA_ID, "p", outcome=outcome, note="asked the vendor")
    assert engine.get(SAGA_ID).status is end
    assert (world.undone, world.executed) == (undone, executed)


def test_S20_an_interrupted_pivot_is_run_again_with_its_key(journal, new_engine, resolve, world, pivot, retriable):
    process = LoudMortal(journal)
    saga = saga_of(world.step("a"), pivot(process.die, DONE), retriable("c"))
    with pytest.raises(Crash):
        resolve(saga, on=new_engine(process))
    assert resolve(saga).status == "success"
    assert len({call.key for call in world.of("p")}) == 1
    assert world.undone == []


@pytest.mark.parametrize(
    ("probe", "told", "undone"),
    [(Probe.DONE, "success", []), (Probe.NOT_DONE, "success", []), (Probe.UNKNOWN, "fail", [])],
)
def test_S20_an_interrupted_pivot_that_is_to_be_parked_is_probed_first(
    journal, new_engine, resolve, world, pivot, probe, told, undone
):
    process = LoudMortal(journal)
    saga = saga_of(world.step("a"), pivot(process.die, DONE, on_unknown="park", probe=probe))
    with pytest.raises(Crash):
        resolve(saga, on=new_engine(process))
    answer = resolve(saga)
    assert answer.status == told
    assert world.undone == undone
    assert len(world.of("p")) == (2 if probe is Probe.NOT_DONE else 1)
    if probe is Probe.UNKNOWN:
        assert answer.output.startswith("parked at p")


@pytest.mark.parametrize("probe", [None, Probe.UNKNOWN], ids=["none", "unknown"])
def test_S20_while_the_pivot_is_uncertain_a_deadline_does_not_turn_back(
    new_engine, resolve, world, clock, pivot, retriable, probe
):
    slow = RetryPolicy(stop=stop_after_attempt(2), wait=wait_fixed(1_000))
    saga = saga_of(
        world.step("a"), pivot(ValueError("lost"), DONE, retry=slow, probe=probe), retriable("c"), deadline_s=100
    )
    engine = new_engine(sagas=[saga])
    resolve(saga, on=engine)
    assert engine.get(SAGA_ID).next_due_at == clock.now() + 1_000
    clock.advance(1_000)
    engine.recover()
    assert engine.get(SAGA_ID).status is SagaStatus.COMPLETED
    assert world.undone == []


def test_S20_a_deadline_that_passed_while_the_pivot_was_uncertain_counts_when_it_turns_out_not_done(
    new_engine, resolve, world, clock, pivot
):
    slow = RetryPolicy(stop=stop_after_attempt(9), wait=wait_fixed(1_000))
    probe = Probe.NOT_DONE
    saga = saga_of(world.step("a"), pivot(ValueError("lost"), DONE, retry=slow, probe=probe), deadline_s=100)
    engine = new_engine(sagas=[saga])
    resolve(saga, on=engine)
    clock.advance(1_000)
    engine.recover()
    assert engine.get(SAGA_ID).status is SagaStatus.COMPENSATED
    assert world.executed == ["a", "p"]
    assert world.undone == ["a"]


@pytest.mark.parametrize(
    "waiting", [LATER, Suspend(BackgroundResponse.done(), signal="go")], ids=["reschedule", "signal"]
)
def test_S20_a_pivot_that_waits_may_have_been_passed(new_engine, resolve, world, pivot, retriable, waiting):
    saga = saga_of(world.step("a"), pivot(waiting, DONE), retriable("c"))
    engine = new_engine(sagas=[saga])
    resolve(saga, on=engine)
    engine.cancel(SAGA_ID, "too late?")
    assert world.undone == []
    assert engine.get(SAGA_ID).status is SagaStatus.SUSPENDED
    assert resolve(saga, on=engine).status == "success"


# --- behind the pivot ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failure", [FAIL, ValueError("no")], ids=["fail", "raise"])
def test_S20_behind_the_pivot_fail_and_exceptions_are_failed_attempts(
    engine, resolve, world, pivot, retriable, failure
):
    saga = saga_of(world.step("a"), pivot(), retriable("c", failure, failure, DONE, retry=FOR_EVER))
    assert resolve(saga).status == "success"
    assert world.executed == ["a", "p", "c", "c", "c"]
    assert [call.attempt for call in world.of("c")] == [1, 2, 3]
    assert world.undone == []


def test_S20_a_retriable_step_without_a_policy_is_kept_trying(new_engine, resolve, world, pivot, retriable, clock):
    saga = saga_of(pivot(), retriable("c", *[FAIL] * 30, DONE))
    engine = new_engine(sagas=[saga])
    resolve(saga, on=engine)
    for _ in range(60):
        if engine.get(SAGA_ID).status is SagaStatus.COMPLETED:
            break
        due = engine.get(SAGA_ID).next_due_at
        assert due - clock.now() <= 3_600
        clock.advance(due - clock.now())
        engine.recover()
    assert engine.get(SAGA_ID).status is SagaStatus.COMPLETED
    assert len(world.of("c")) == 31


@pytest.mark.parametrize("failure", [FAIL, ValueError("no")], ids=["fail", "raise"])
def test_S20_given_up_behind_the_pivot_means_parked_forward(new_engine, resolve, world, pivot, retriable, failure):
    saga = saga_of(world.step("a"), pivot(), retriable("c", failure, failure, DONE, retry=TWICE), retriable("d"))
    engine = new_engine(sagas=[saga])
    told = resolve(saga, on=engine)
    assert told.output.startswith("parked at c: given up behind the pivot: no")
    assert world.undone == []
    assert statuses(engine.get(SAGA_ID)) == {"a": "COMPLETED", "p": "COMPLETED", "c": "PARKED", "d": "PENDING"}
    engine.resume(SAGA_ID, force=True)
    assert engine.get(SAGA_ID).status is SagaStatus.COMPLETED
    assert len(world.of("c")) == 3


def test_S20_a_read_only_step_that_gives_up_behind_the_pivot_parks(engine, resolve, world, pivot):
    saga = saga_of(world.step("a"), pivot(), world.step("look", ValueError("no"), kind=Kind.READ_ONLY, retry=TWICE))
    assert resolve(saga).output.startswith("parked at look: given up behind the pivot: no")
    assert world.undone == []


def test_S20_behind_the_pivot_a_parked_step_cannot_be_declared_undone(new_engine, resolve, world, pivot, retriable):
    saga = saga_of(pivot(), retriable("c", FAIL, retry=TWICE))
    engine = new_engine(sagas=[saga])
    resolve(saga, on=engine)
    with pytest.raises(NotAllowed, match="past its pivot"):
        engine.resolve_parked(SAGA_ID, "c", outcome="undone", note="no")
    engine.resolve_parked(SAGA_ID, "c", outcome="done", note="by hand")
    assert engine.get(SAGA_ID).status is SagaStatus.COMPLETED


def test_S20_behind_the_pivot_a_deadline_is_only_recorded(new_engine, resolve, world, pivot, retriable, clock):
    saga = saga_of(world.step("a"), pivot(), retriable("c", BackgroundResponse.reschedule(600), DONE), deadline_s=100)
    engine = new_engine(sagas=[saga])
    told = resolve(saga, on=engine)
    assert told.countdown == 600
    clock.advance(600)
    engine.recover()
    assert engine.get(SAGA_ID).status is SagaStatus.COMPLETED
    assert world.undone == []


def test_S20_behind_the_pivot_cancel_is_refused(new_engine, resolve, world, pivot, retriable):
    saga = saga_of(world.step("a"), pivot(), retriable("c", LATER, DONE))
    engine = new_engine(sagas=[saga])
    resolve(saga, on=engine)
    with pytest.raises(NotAllowed, match="past its pivot 'p'"):
        engine.cancel(SAGA_ID, "too late")
    assert resolve(saga, on=engine).status == "success"
    assert "CancelRequested" not in [type(entry).__name__ for entry in engine.history(SAGA_ID)]


def test_S20_a_cancel_that_comes_while_the_pivot_runs_is_void_once_it_is_passed(
    new_engine, resolve, world, pivot, retriable
):
    def cancel(request):
        engine.cancel(SAGA_ID, "now")
        return DONE

    saga = saga_of(world.step("a"), pivot(cancel), retriable("c"))
    engine = new_engine(sagas=[saga])
    assert resolve(saga, on=engine).status == "success"
    assert engine.get(SAGA_ID).status is SagaStatus.COMPLETED
    assert world.undone == []


def test_S20_a_cancel_that_comes_while_the_pivot_runs_counts_if_the_pivot_refuses(new_engine, resolve, world, pivot):
    def cancel(request):
        engine.cancel(SAGA_ID, "now")
        return FAIL

    saga = saga_of(world.step("a"), pivot(cancel))
    engine = new_engine(sagas=[saga])
    assert resolve(saga, on=engine).output == "cancelled: now"
    assert engine.get(SAGA_ID).status is SagaStatus.CANCELLED
    assert world.undone == ["a"]


def test_S20_skip_behind_the_pivot_completes(engine, resolve, world, pivot, retriable):
    saga = saga_of(world.step("a"), pivot(), retriable("c", BackgroundResponse.skip("enough")), retriable("d"))
    told = resolve(saga)
    assert (told.status, told.output) == ("skip", "enough")
    assert engine.get(SAGA_ID).status is SagaStatus.COMPLETED


def test_S20_a_conflict_behind_the_pivot_parks_and_goes_on_after_an_edit(new_engine, resolve, world, pivot, retriable):
    group = Parallel(retriable("b", remember(x=1)), retriable("c", remember(x=2)))
    saga = saga_of(world.step("a"), pivot(), group, retriable("d"))
    engine = new_engine(sagas=[saga])
    told = resolve(saga, on=engine)
    assert told.output.startswith("parked at ")
    assert "'x'" in told.output
    assert world.undone == []
    engine.edit_state(SAGA_ID, {"x": 3}, note="settled", who="ann")
    engine.resume(SAGA_ID)
    assert engine.get(SAGA_ID).status is SagaStatus.COMPLETED
    assert world.of("d")[0].state == {"x": 3}
    assert world.executed.count("b") == world.executed.count("c") == 1


def test_S20_a_branch_that_gives_up_behind_the_pivot_lets_the_others_finish(engine, resolve, world, pivot, retriable):
    branch = Chain(retriable("b"), retriable("c"))
    saga = saga_of(pivot(), Parallel(retriable("x", FAIL, retry=RetryPolicy(stop=stop_after_attempt(1))), branch))
    assert resolve(saga).output.startswith("parked at x")
    assert "b" in world.executed
    assert world.undone == []


@pytest.mark.parametrize("dies", [(StepCompleted, "p"), (StepStarted, "c")], ids=["passed", "behind"])
def test_S20_who_takes_over_behind_the_pivot_goes_forward(journal, new_engine, resolve, world, pivot, retriable, dies):
    process = LoudMortal(journal, dies_after=dies)
    saga = saga_of(world.step("a"), pivot(), retriable("c", FAIL, DONE, retry=FOR_EVER))
    with pytest.raises(Crash):
        resolve(saga, on=new_engine(process))
    assert resolve(saga).status == "success"
    assert world.undone == []
    assert world.executed.count("p") == 1


def test_S20_an_interrupted_step_behind_the_pivot_is_never_compensated(
    journal, new_engine, resolve, world, pivot, retriable
):
    process = LoudMortal(journal)
    saga = saga_of(world.step("a"), pivot(), retriable("c", process.die, DONE, on_unknown="compensate"))
    with pytest.raises(Crash):
        resolve(saga, on=new_engine(process))
    told = resolve(saga)
    assert world.undone == []
    assert told.status == "success"


def test_S20_the_journaled_kinds_win_over_later_code(new_engine, resolve, world):
    def entries(kind, last):
        return world.step("a"), world.step("p", kind=kind), world.step("c", LATER, FAIL, kind=last, retry=TWICE)

    resolve(saga_of(*entries(Kind.PIVOT, Kind.RETRIABLE)), on=new_engine())
    engine = new_engine()
    told = resolve(saga_of(*entries(Kind.COMPENSATABLE, Kind.COMPENSATABLE)), on=engine)
    assert world.undone == []
    assert told.status == "reschedule"


# --- the order of kinds -------------------------------------------------------------------------------------------

PIVOT, RETRIABLE, READ_ONLY, COMPENSATABLE = Kind.PIVOT, Kind.RETRIABLE, Kind.READ_ONLY, Kind.COMPENSATABLE

IMPOSSIBLE = {
    "compensatable behind": ((PIVOT, COMPENSATABLE), r"s1 is compensatable and comes after the pivot s0"),
    "compensatable far behind": (
        (PIVOT, RETRIABLE, COMPENSATABLE),
        r"s2 is compensatable and comes after the pivot s0",
    ),
    "two pivots": ((COMPENSATABLE, PIVOT, PIVOT), r"s2 is a second pivot, after s1"),
    "two pivots apart": ((PIVOT, RETRIABLE, PIVOT), r"s2 is a second pivot, after s0"),
}


@pytest.mark.parametrize("name", sorted(IMPOSSIBLE))
def test_S20_an_impossible_order_is_refused_before_anything_runs_and_says_which_step_and_why(
    engine, resolve, world, name
):
    kinds, reason = IMPOSSIBLE[name]
    saga = saga_of(*(world.step(f"s{number}", kind=kind) for number, kind in enumerate(kinds)))
    with pytest.raises(InvalidTransaction, match=reason):
        resolve(saga)
    assert world.calls == []
    assert engine.search() == []


def test_S20_a_pivot_in_a_parallel_group_is_refused(engine, resolve, world, pivot):
    with pytest.raises(InvalidTransaction, match="p is a pivot inside a parallel group"):
        resolve(saga_of(Parallel(world.step("a"), Chain(world.step("b"), pivot()))))
    assert world.calls == []
    assert engine.search() == []


def test_S20_a_compensatable_step_in_a_group_behind_the_pivot_is_refused(resolve, world, pivot, retriable):
    with pytest.raises(InvalidTransaction, match="b is compensatable and comes after the pivot p"):
        resolve(saga_of(pivot(), Parallel(retriable("a"), world.step("b"))))
    assert world.calls == []


def test_S20_a_pivot_that_would_be_compensated_when_interrupted_is_refused(resolve, world, pivot):
    with pytest.raises(InvalidTransaction, match="p: on_unknown is 'compensate' and it is a pivot"):
        resolve(saga_of(world.step("a"), pivot(on_unknown="compensate")))
    assert world.calls == []


@pytest.mark.parametrize(
    "kinds",
    [
        (PIVOT,),
        (COMPENSATABLE, READ_ONLY, PIVOT, READ_ONLY, RETRIABLE),
        (RETRIABLE, COMPENSATABLE, PIVOT, RETRIABLE),
        (COMPENSATABLE, RETRIABLE),
    ],
    ids=lambda kinds: "-".join(kind.value for kind in kinds),
)
def test_S20_possible_orders_run(resolve, world, kinds):
    saga = saga_of(*(world.step(f"s{number}", kind=kind) for number, kind in enumerate(kinds)))
    assert resolve(saga).status == "success"
    assert world.executed == [f"s{number}" for number in range(len(kinds))]


def test_S20_a_wait_and_a_group_of_one_pivot_may_stand_anywhere(new_engine, resolve, world, pivot, retriable):
    saga = saga_of(WaitFor("one"), Parallel(pivot()), WaitFor("two"), Parallel(retriable("c"), retriable("d")))
    engine = new_engine(sagas=[saga])
    resolve(saga, on=engine)
    engine.signal(SAGA_ID, "one")
    engine.signal(SAGA_ID, "two")
    assert engine.get(SAGA_ID).status is SagaStatus.COMPLETED


def test_S20_a_retriable_step_before_any_pivot_keeps_trying_on_fail(engine, resolve, world, retriable):
    saga = saga_of(world.step("a"), retriable("b", FAIL, DONE, retry=TWICE), world.step("c"))
    assert resolve(saga).status == "success"
    assert world.executed == ["a", "b", "b", "c"]


def test_S20_a_pivot_is_undone_by_the_order_to_undo_a_completed_execution(new_engine, resolve, world, pivot, retriable):
    saga = saga_of(world.step("a"), pivot(), retriable("c"))
    engine = new_engine(sagas=[saga])
    resolve(saga, on=engine)
    engine.undo(SAGA_ID)
    assert world.undone == ["c", "p", "a"]
