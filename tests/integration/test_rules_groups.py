"""Rule S21: branches of a parallel group run together, see what was there before them, and end as one."""

from __future__ import annotations

import pytest
from connect.eaas.core.responses import BackgroundResponse
from gates import Gate, LoudMortal, Watch, gated
from pairs import in_all_pairs
from sagas import DONE, SAGA_ID, Crash, remember, reraise, saga_of, stable_id, statuses
from tenacity import stop_after_attempt, wait_fixed

from saga_engine import Chain, Parallel, SagaStatus, WaitFor, current_context
from saga_engine.clock import SystemClock
from saga_engine.errors import BranchConflict, DeadlineExceeded, TransactionNotSelected
from saga_engine.journal import (
    CompensationStarted,
    SagaStarted,
    StepCompleted,
    StepFailed,
    StepStarted,
    TakenOver,
)
from transactions import Probe, RetryPolicy

FAIL = BackgroundResponse.fail("no")
LATER = BackgroundResponse.reschedule(60)
MUCH_LATER = BackgroundResponse.reschedule(600)
TWICE = RetryPolicy(stop=stop_after_attempt(2))

pytestmark = in_all_pairs


def forget(*keys, answer=DONE):
    """Play in a script: remove these keys from `context.state`."""

    def remove(request, *error):
        for key in keys:
            current_context().state.pop(key)
        return answer

    return remove


def rewrite(change, answer=DONE):
    """Play in a script: change the request."""

    def write(request, *error):
        change(request)
        return answer

    return write


@pytest.fixture
def watch():
    return Watch()


@pytest.fixture
def watched(new_engine, watch):
    """An engine whose commits are watched."""
    return new_engine(observer=watch)


def after(watch, step, *, other, kind=StepCompleted):
    """Let a step go on only when that of another branch is durable."""
    return gated(step, waits_for=watch.gate(kind, other))


# --- running together ---------------------------------------------------------------------------------------------


def test_S21_branches_are_in_flight_at_the_same_time(engine, resolve, world):
    mine, yours = Gate(), Gate()
    a = gated(world.step("a"), opens=mine, waits_for=yours)
    b = gated(world.step("b"), opens=yours, waits_for=mine)
    assert resolve(saga_of(Parallel(a, b))).status == "success"
    assert statuses(engine.get(SAGA_ID)) == {"a": "COMPLETED", "b": "COMPLETED"}


def test_S21_branches_begin_after_what_is_before_the_group_and_the_rest_follows_when_all_are_over(resolve, world):
    saga = saga_of(world.step("a"), Parallel(world.step("b"), world.step("c"), world.step("d")), world.step("e"))
    resolve(saga)
    assert world.executed[0] == "a"
    assert sorted(world.executed[1:4]) == ["b", "c", "d"]
    assert world.executed[4:] == ["e"]


def test_S21_a_chain_in_a_branch_keeps_its_order_while_the_other_branch_runs(watched, resolve, world, watch):
    c = after(watch, world.step("c"), other="b")
    resolve(saga_of(Parallel(Chain(world.step("a"), world.step("b")), c), world.step("d")), on=watched)
    assert world.executed == ["a", "b", "c", "d"]


def test_S21_the_other_branch_of_a_chain_may_be_over_before_its_second_step(watched, resolve, world, watch):
    b = after(watch, world.step("b"), other="c")
    a, c = world.step("a"), after(watch, world.step("c"), other="a")
    resolve(saga_of(Parallel(Chain(a, b), c)), on=watched)
    assert world.executed == ["a", "c", "b"]


def test_S21_a_group_in_a_chain_in_a_group_joins_before_its_chain_goes_on(watched, resolve, world, watch):
    mine, yours = Gate(), Gate()
    b = gated(world.step("b"), opens=mine, waits_for=yours)
    c = gated(world.step("c"), opens=yours, waits_for=mine)
    e = after(watch, world.step("e"), other="d")
    saga = saga_of(Parallel(Chain(world.step("a"), Parallel(b, c), world.step("d")), e), world.step("f"))
    assert resolve(saga, on=watched).status == "success"
    assert world.executed[0] == "a"
    assert sorted(world.executed[1:3]) == ["b", "c"]
    assert world.executed[3:] == ["d", "e", "f"]


def test_S21_each_step_of_a_branch_is_one_commit(watched, resolve, world, watch):
    b = after(watch, world.step("b"), other="a")
    c = after(watch, world.step("c"), other="b")
    d = after(watch, world.step("d"), other="c")
    resolve(saga_of(Parallel(Chain(world.step("a"), b), Chain(c, d))), on=watched)
    assert watch.count(StepCompleted) == [0, 1, 1, 1, 1]
    assert watch.count(StepStarted) == [2, 1, 0, 1, 0]


def test_S21_a_group_of_one_or_none_is_as_if_it_were_not_there(engine, resolve, world):
    saga = saga_of(Parallel(world.step("a", remember(x=1))), Parallel(None, Chain()), Chain(world.step("b")))
    assert resolve(saga).status == "success"
    assert world.of("b")[0].state == {"x": 1}
    assert engine.get(SAGA_ID).state == {"x": 1}


@pytest.mark.parametrize("is_wanted", [True, False])
def test_S21_each_branch_is_asked_for_itself_whether_it_is_wanted(engine, resolve, world, is_wanted):
    saga = saga_of(Parallel(world.step("a", wanted=is_wanted), world.step("b")), world.step("c"))
    assert resolve(saga).status == "success"
    assert statuses(engine.get(SAGA_ID))["a"] == ("COMPLETED" if is_wanted else "SKIPPED")
    assert statuses(engine.get(SAGA_ID))["c"] == "COMPLETED"


# --- what branches see --------------------------------------------------------------------------------------------


def test_S21_each_branch_sees_the_state_as_of_the_groups_start(watched, resolve, world, watch):
    b = after(watch, world.step("b", remember(mine="b")), other="a")
    saga = saga_of(
        world.step("before", remember(base=1)), Parallel(world.step("a", remember(mine_too="a")), b), world.step("c")
    )
    resolve(saga, on=watched)
    assert world.of("b")[0].state == {"base": 1}
    assert world.of("c")[0].state == {"base": 1, "mine": "b", "mine_too": "a"}


def test_S21_a_branch_that_begins_late_sees_the_groups_start_too(engine, resolve, world):
    asked_again = RetryPolicy(stop=stop_after_attempt(2), wait=wait_fixed(5))
    late = world.step("late", wanted=[ValueError("cannot tell"), True], retry=asked_again)
    resolve(saga_of(Parallel(world.step("a", remember(x=1)), late)))
    assert world.executed == ["a", "late"]
    assert world.of("late")[0].state == {}


def test_S21_a_step_sees_what_its_own_branch_did_before(watched, resolve, world, watch):
    c = after(watch, world.step("c"), other="a")
    resolve(saga_of(Parallel(Chain(world.step("a", remember(x=1)), world.step("b")), c)), on=watched)
    assert world.of("b")[0].state == {"x": 1}
    assert world.of("c")[0].state == {}


def test_S21_inner_branches_see_the_branch_around_them_and_join_into_it(watched, resolve, world, watch):
    inner = Parallel(world.step("b", remember(b=1)), world.step("c", remember(c=1)))
    outer = Chain(world.step("a", remember(a=1)), inner, world.step("d", remember(d=1)))
    e = after(watch, world.step("e", remember(e=1)), other="d")
    resolve(saga_of(Parallel(outer, e), world.step("f")), on=watched)
    assert world.of("b")[0].state == world.of("c")[0].state == {"a": 1}
    assert world.of("d")[0].state == {"a": 1, "b": 1, "c": 1}
    assert world.of("e")[0].state == {}
    assert world.of("f")[0].state == {"a": 1, "b": 1, "c": 1, "d": 1, "e": 1}


def test_S21_the_record_of_an_open_group_shows_what_every_branch_changed(engine, resolve, world):
    a, b = world.step("a", remember(LATER, a=1)), world.step("b", remember(b=1))
    resolve(saga_of(world.step("before", remember(base=1)), Parallel(a, b)))
    assert engine.get(SAGA_ID).status is SagaStatus.SUSPENDED
    assert engine.get(SAGA_ID).state == {"base": 1, "a": 1, "b": 1}


# --- joining ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "after_them"),
    [
        (remember(x=1), remember(x=1), {"x": 1, "base": {"n": 1}}),
        (remember(x=1), DONE, {"x": 1, "base": {"n": 1}}),
        (forget("base"), DONE, {}),
        (forget("base"), forget("base"), {}),
        (forget("base"), remember(x=1), {"x": 1}),
        (remember(base={"n": 2}), remember(base={"n": 2}), {"base": {"n": 2}}),
        (remember(base={"n": 1}), remember(base={"n": 2}), {"base": {"n": 2}}),
    ],
    ids=["same", "one", "deleted", "both delete", "delete beside set", "same nested", "one sets what it was"],
)
def test_S21_what_branches_changed_without_contradiction_is_joined(engine, resolve, world, a, b, after_them):
    saga = saga_of(
        world.step("before", remember(base={"n": 1})), Parallel(world.step("a", a), world.step("b", b)), world.step("c")
    )
    assert resolve(saga).status == "success"
    assert world.of("c")[0].state == after_them == engine.get(SAGA_ID).state


CONFLICTS = {
    "two values": (remember(x=1), remember(x=2)),
    "true is not one": (remember(x=1), remember(x=True)),
    "one is not one point nought": (remember(x=1), remember(x=1.0)),
    "parts of one object": (remember(base={"n": 1, "p": 1}), remember(base={"n": 1, "q": 1})),
    "deleted and set": (forget("base"), remember(base={"n": 2})),
    "set to null and deleted": (remember(base=None), forget("base")),
}


@pytest.mark.parametrize("name", sorted(CONFLICTS))
def test_S21_two_branches_that_set_one_key_differently_fail_the_group_and_everything_is_undone(
    watched, resolve, world, watch, name
):
    one, other = CONFLICTS[name]
    b = after(watch, world.step("b", other), other="a")
    saga = saga_of(
        world.step("before", remember(base={"n": 1})), Parallel(world.step("a", one), b), world.step("after")
    )
    told = resolve(saga, on=watched)
    assert told.status == "fail"
    assert "'a'" in told.output
    assert "'b'" in told.output
    assert world.executed == ["before", "a", "b"]
    assert world.undone == ["b", "a", "before"]
    assert all(isinstance(call.error, BranchConflict) for call in world.calls if call.operation == "compensate")
    assert str(world.of("before", "compensate")[0].error) == told.output
    record = watched.get(SAGA_ID)
    assert record.status is SagaStatus.COMPENSATED
    assert record.error == told.output


def test_S21_a_conflict_in_an_inner_group_fails_the_whole_saga(engine, resolve, world):
    inner = Parallel(world.step("b", remember(x=1)), world.step("c", remember(x=2)))
    told = resolve(saga_of(Parallel(Chain(world.step("a"), inner), world.step("d")), world.step("e")))
    assert told.status == "fail"
    assert ("'b'" in told.output, "'c'" in told.output) == (True, True)
    assert sorted(world.undone) == ["a", "b", "c", "d"]
    assert "e" not in world.executed


def test_S21_a_conflict_waits_for_nobody_who_rescheduled_in_an_outer_branch_longer_than_it_must(engine, resolve, world):
    inner = Parallel(world.step("b", remember(x=1)), world.step("c", remember(x=2)))
    told = resolve(saga_of(Parallel(inner, world.step("d", LATER))))
    assert told.status == "fail"
    assert sorted(world.undone) == ["b", "c", "d"]


def test_S21_compensations_after_a_conflict_see_what_their_own_branch_did(watched, resolve, world, watch):
    b = after(watch, world.step("b", remember(x=2, b=1)), other="a")
    resolve(saga_of(world.step("before"), Parallel(world.step("a", remember(x=1, a=1)), b)), on=watched)
    assert world.of("a", "compensate")[0].state == {"x": 1, "a": 1}
    assert world.of("b", "compensate")[0].state == {"x": 2, "b": 1}
    assert world.of("before", "compensate")[0].state == {}


def test_S21_a_conflict_is_found_again_by_whoever_takes_over(journal, new_engine, resolve, world, watch):
    process = LoudMortal(journal, dies_before=(CompensationStarted, "b"))
    b = after(watch, world.step("b", remember(x=2)), other="a")
    saga = saga_of(Parallel(world.step("a", remember(x=1)), b))
    with pytest.raises(Crash):
        resolve(saga, on=new_engine(process, observer=watch))
    told = resolve(saga)
    assert told.status == "fail"
    assert world.undone == ["b", "a"]
    assert isinstance(world.of("a", "compensate")[0].error, BranchConflict)


# --- the request --------------------------------------------------------------------------------------------------

PARAMETERS = {"id": "PR-1", "asset": {"params": [{"id": "p", "value": ""}, {"id": "q", "value": ""}], "note": "n"}}


def set_value(index, value):
    def change(request):
        request["asset"]["params"][index]["value"] = value

    return rewrite(change)


def put(*path, value):
    def change(request):
        for key in path[:-1]:
            request = request[key]
        request[path[-1]] = value

    return rewrite(change)


def test_S21_changes_of_the_request_are_merged_as_deep_as_objects_go(engine, resolve, world):
    one, other = world.step("a", set_value(0, "A")), world.step("b", set_value(1, "B"))
    third = world.step("c", put("asset", "external_id", value="X"))
    assert resolve(saga_of(Parallel(one, other, third), world.step("d")), PARAMETERS).status == "success"
    assert world.of("d")[0].request["asset"] == {
        "params": [{"id": "p", "value": "A"}, {"id": "q", "value": "B"}],
        "note": "n",
        "external_id": "X",
    }
    assert engine.get(SAGA_ID).request == world.of("d")[0].request


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (set_value(0, "A"), set_value(0, "B")),
        (put("asset", "note", value="A"), put("asset", "note", value={"text": "B"})),
        (rewrite(lambda request: request["asset"]["params"].pop()), set_value(1, "B")),
    ],
    ids=["one value", "two types", "lists of two lengths"],
)
def test_S21_two_branches_that_set_one_thing_in_the_request_differently_fail_the_group(engine, resolve, world, a, b):
    told = resolve(saga_of(Parallel(world.step("a", a), world.step("b", b)), world.step("c")), PARAMETERS)
    assert told.status == "fail"
    assert ("'a'" in told.output, "'b'" in told.output, "request" in told.output) == (True, True, True)
    assert sorted(world.undone) == ["a", "b"]


def test_S21_a_branch_does_not_see_what_the_other_did_to_the_request(watched, resolve, world, watch):
    b = after(watch, world.step("b"), other="a")
    resolve(saga_of(Parallel(world.step("a", set_value(0, "A")), b)), PARAMETERS, on=watched)
    assert world.of("b")[0].request == PARAMETERS


def test_S21_a_new_delivery_in_the_middle_of_a_group_replaces_the_request_of_every_branch(engine, resolve, world):
    a = world.step("a", rewrite(lambda request: request.update(changed_by="a"), LATER), DONE)
    saga = saga_of(Parallel(a, Chain(world.step("b"), world.step("c", LATER, DONE))), world.step("d"))
    resolve(saga, {"id": "PR-1", "n": 1})
    told = resolve(saga, {"id": "PR-1", "n": 2})
    assert told.status == "success"
    assert [call.request["n"] for call in world.of("a")] == [1, 2]
    assert world.of("c")[1].request == {"id": "PR-1", "n": 2}
    assert world.of("d")[0].request == {"id": "PR-1", "n": 2}


# --- failing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failure", [FAIL, ValueError("no")], ids=["fail", "raise"])
def test_S21_the_others_finish_then_the_failing_one_is_undone_first_and_then_by_latest_start(
    watched, resolve, world, watch, failure
):
    b = world.step("b", failure)
    c = after(watch, world.step("c"), other="b", kind=StepFailed)
    a = after(watch, world.step("a"), other="c")
    told = resolve(saga_of(world.step("before"), Parallel(a, b, c), world.step("after")), on=watched)
    assert (told.status, told.output) == ("fail", "no")
    assert world.executed == ["before", "b", "c", "a"]
    assert world.undone == ([] if failure is FAIL else ["b"]) + ["c", "a", "before"]
    assert watched.get(SAGA_ID).status is SagaStatus.COMPENSATED
    assert statuses(watched.get(SAGA_ID))["after"] == "PENDING"


def test_S21_latest_start_counts_not_the_place_in_the_list(watched, resolve, world, watch):
    a2 = after(watch, world.step("a2"), other="b2")
    b1 = after(watch, world.step("b1"), other="a1")
    saga = saga_of(Parallel(Chain(world.step("a1"), a2), Chain(b1, world.step("b2"))), world.step("c", FAIL))
    resolve(saga, on=watched)
    started = [e.step for commit in watch.commits for e in commit if isinstance(e, StepStarted)]
    assert world.undone == list(reversed(started[:-1]))
    assert started == ["a1", "b1", "a2", "b2", "c"]


def test_S21_a_failure_starts_nothing_more_in_the_other_branches(watched, resolve, world, watch):
    a = after(watch, world.step("a"), other="c", kind=StepFailed)
    resolve(saga_of(Parallel(Chain(a, world.step("b")), world.step("c", ValueError("no")))), on=watched)
    assert world.executed == ["c", "a"]
    assert world.undone == ["c", "a"]
    assert statuses(watched.get(SAGA_ID)) == {"a": "COMPENSATED", "b": "PENDING", "c": "COMPENSATED"}


def test_S21_a_suspended_branch_is_undone_too(engine, resolve, world):
    saga = saga_of(world.step("before"), Parallel(world.step("a", LATER), world.step("b", ValueError("no"))))
    assert resolve(saga).status == "fail"
    assert world.undone == ["b", "a", "before"]
    assert engine.get(SAGA_ID).status is SagaStatus.COMPENSATED


def test_S21_a_branch_that_waits_for_its_retry_is_undone_too(watched, resolve, world, watch, clock):
    slow = RetryPolicy(stop=stop_after_attempt(9), wait=wait_fixed(1_000))
    a = world.step("a", ValueError("busy"), retry=slow)
    b = after(watch, world.step("b", FAIL), other="a", kind=StepFailed)
    told = resolve(saga_of(Parallel(a, b)), on=watched)
    assert told.output == "no"
    assert world.executed == ["a", "b"]
    assert world.undone == ["a"]
    assert clock.slept_s == []


def test_S21_of_two_failing_branches_both_are_undone_before_the_others_each_with_its_own_error(
    watched, resolve, world, watch
):
    a = world.step("a", ValueError("a"))
    b = after(watch, world.step("b"), other="a", kind=StepFailed)
    c = after(watch, world.step("c", KeyError("c")), other="b")
    told = resolve(saga_of(Parallel(a, b, c)), on=watched)
    assert told.output == "a"
    assert world.undone == ["c", "a", "b"]
    errors = {call.step: repr(call.error) for call in world.calls if call.operation == "compensate"}
    assert errors == {"c": "KeyError('c')", "a": "ValueError('a')", "b": "ValueError('a')"}


def test_S21_what_completed_in_an_outer_branch_is_undone_when_an_inner_one_fails(watched, resolve, world, watch):
    inner = Parallel(world.step("b"), after(watch, world.step("c", ValueError("no")), other="d"))
    told = resolve(saga_of(Parallel(Chain(world.step("a"), inner), world.step("d"))), on=watched)
    assert told.output == "no"
    assert world.undone[0] == "c"
    assert sorted(world.undone) == ["a", "b", "c", "d"]


def test_S21_the_probe_of_a_failing_branch_is_asked_when_the_others_have_finished(watched, resolve, world, watch):
    a = after(watch, world.step("a"), other="b", kind=StepFailed)
    b = world.step("b", ValueError("no"), probe=Probe.NOT_DONE)
    resolve(saga_of(Parallel(a, b)), on=watched)
    assert world.trace() == ["execute b", "execute a", "probe b", "compensate a"]


def test_S21_a_probe_that_says_done_saves_the_group(watched, resolve, world, watch):
    b = world.step("b", ValueError("lost answer"), probe=remember(Probe.DONE, b=1))
    told = resolve(saga_of(Parallel(world.step("a", remember(a=1)), b), world.step("c")), on=watched)
    assert told.status == "success"
    assert world.of("c")[0].state == {"a": 1, "b": 1}


def test_S10_the_only_failing_branch_may_run_again_and_nothing_else_is_undone(engine, resolve, world):
    a = world.step("a", ValueError("busy"), DONE, undo=LATER)
    saga = saga_of(Parallel(a, world.step("b", remember(b=1))), world.step("c"))
    assert resolve(saga).status == "reschedule"
    assert engine.get(SAGA_ID).status is SagaStatus.SUSPENDED
    assert resolve(saga).status == "success"
    assert world.undone == ["a"]
    assert sorted(world.executed) == ["a", "a", "b", "c"]
    assert world.of("c")[0].state == {"b": 1}


def test_S10_of_two_failing_branches_a_reschedule_only_delays_the_undo(engine, resolve, world):
    saga = saga_of(Parallel(world.step("a", ValueError("a"), undo=[LATER, DONE]), world.step("b", FAIL)))
    assert resolve(saga).status == "reschedule"
    assert engine.get(SAGA_ID).status is SagaStatus.COMPENSATING
    assert resolve(saga).status == "fail"
    assert world.executed.count("a") == 1


def test_S11_a_failing_branch_that_reraises_has_nothing_to_undo(engine, resolve, world):
    saga = saga_of(Parallel(world.step("a", ValueError("no"), undo=reraise), world.step("b")))
    assert resolve(saga).status == "fail"
    assert world.undone == ["a", "b"]
    assert statuses(engine.get(SAGA_ID)) == {"a": "FAILED", "b": "COMPENSATED"}


@pytest.mark.parametrize(("policy", "undone"), [("stop", ["c"]), ("continue", ["c", "b", "a"])])
def test_S12_an_undo_in_a_group_that_parks_stops_there_or_goes_on_by_the_policy(
    watched, resolve, world, watch, policy, undone
):
    once = RetryPolicy(stop=stop_after_attempt(1))
    c = after(watch, world.step("c", undo=ValueError("stuck"), compensation_retry=once), other="b")
    b = after(watch, world.step("b"), other="a")
    saga = saga_of(Parallel(world.step("a"), b, c), world.step("d", FAIL), park_policy=policy)
    told = resolve(saga, on=watched)
    assert told.output.startswith("parked at c: compensate failed: stuck")
    assert world.undone == undone


# --- skipping -----------------------------------------------------------------------------------------------------


def test_S21_skip_ends_its_own_branch_only(engine, resolve, world):
    branch = Chain(world.step("a", BackgroundResponse.skip("not here")), world.step("b"))
    told = resolve(saga_of(Parallel(branch, Chain(world.step("c"), world.step("d"))), world.step("e")))
    assert told.status == "success"
    assert statuses(engine.get(SAGA_ID)) == {
        "a": "SKIPPED",
        "b": "SKIPPED",
        "c": "COMPLETED",
        "d": "COMPLETED",
        "e": "COMPLETED",
    }


def test_S21_skip_in_a_branch_ends_the_groups_inside_that_branch(engine, resolve, world):
    inner = Parallel(world.step("b"), world.step("c"))
    skips = world.step("a", remember(BackgroundResponse.skip("no"), x=1))
    told = resolve(saga_of(Parallel(Chain(skips, inner, world.step("d")), world.step("e")), world.step("f")))
    assert told.status == "success"
    assert sorted(world.executed) == ["a", "e", "f"]
    assert world.of("f")[0].state == {"x": 1}


def test_S21_skip_in_an_inner_branch_does_not_end_the_chain_around_it(engine, resolve, world):
    inner = Parallel(Chain(world.step("b", BackgroundResponse.skip("no")), world.step("c")), world.step("d"))
    told = resolve(saga_of(Parallel(Chain(world.step("a"), inner, world.step("e")), world.step("f"))))
    assert told.status == "success"
    assert sorted(world.executed) == ["a", "b", "d", "e", "f"]


def test_S07_a_skip_behind_a_group_ends_the_saga_with_that_answer(engine, resolve, world):
    skip = BackgroundResponse.skip("enough")
    told = resolve(saga_of(Parallel(world.step("a"), world.step("b")), world.step("c", skip), world.step("d")))
    assert (told.status, told.output) == ("skip", "enough")
    assert engine.get(SAGA_ID).status is SagaStatus.COMPLETED


# --- rescheduling -------------------------------------------------------------------------------------------------


def test_S21_when_a_branch_reschedules_the_others_finish_and_the_saga_waits_for_it(engine, resolve, world, clock):
    a = world.step("a", LATER, DONE)
    saga = saga_of(Parallel(a, Chain(world.step("b"), world.step("c"))), world.step("d"))
    told = resolve(saga)
    assert (told.status, told.countdown) == ("reschedule", 60)
    record = engine.get(SAGA_ID)
    assert record.status is SagaStatus.SUSPENDED
    assert record.next_due_at == clock.now() + 60
    assert statuses(record) == {"a": "SUSPENDED", "b": "COMPLETED", "c": "COMPLETED", "d": "PENDING"}
    assert resolve(saga).status == "success"
    assert sorted(world.executed) == ["a", "a", "b", "c", "d"]


@pytest.mark.parametrize("swapped", [False, True])
def test_S21_of_two_branches_that_reschedule_the_earlier_due_counts(engine, resolve, world, clock, swapped):
    a, b = world.step("a", MUCH_LATER), world.step("b", LATER)
    told = resolve(saga_of(Parallel(*((b, a) if swapped else (a, b)))))
    assert (told.status, told.countdown) == ("reschedule", 60)
    assert engine.get(SAGA_ID).next_due_at == clock.now() + 60


def test_S21_at_the_earlier_time_only_the_branch_that_is_due_runs_again(new_engine, resolve, world, clock):
    saga = saga_of(Parallel(world.step("a", MUCH_LATER, DONE), world.step("b", LATER, DONE)))
    engine = new_engine(sagas=[saga])
    resolve(saga, on=engine)
    clock.advance(60)
    assert engine.recover() == 1
    assert sorted(world.executed) == ["a", "b", "b"]
    assert engine.get(SAGA_ID).next_due_at == clock.now() + 540
    clock.advance(540)
    engine.recover()
    assert engine.get(SAGA_ID).status is SagaStatus.COMPLETED
    assert sorted(world.executed) == ["a", "a", "b", "b"]


def test_S21_a_delivery_wakes_every_branch_that_rescheduled(engine, resolve, world):
    saga = saga_of(Parallel(world.step("a", MUCH_LATER, DONE), world.step("b", LATER, DONE)))
    resolve(saga)
    assert resolve(saga).status == "success"
    assert sorted(world.executed) == ["a", "a", "b", "b"]


def test_S24_a_deadline_ends_a_group_that_waits(new_engine, resolve, world, clock):
    saga = saga_of(
        world.step("before"), Parallel(world.step("a", MUCH_LATER), world.step("b")), world.step("c"), deadline_s=100
    )
    engine = new_engine(sagas=[saga])
    resolve(saga, on=engine)
    assert engine.get(SAGA_ID).next_due_at == clock.now() + 100
    clock.advance(100)
    engine.recover()
    assert engine.get(SAGA_ID).status is SagaStatus.COMPENSATED
    assert sorted(world.undone[:2]) == ["a", "b"]
    assert world.undone[2:] == ["before"]
    assert isinstance(world.of("a", "compensate")[0].error, DeadlineExceeded)


# --- retrying beside each other -----------------------------------------------------------------------------------


def test_S21_a_branch_is_retried_while_the_other_still_runs(watched, resolve, world, watch):
    again = Gate()
    a = world.step("a", ValueError("busy"), rewrite(lambda request: again.open()), retry=TWICE)
    b = gated(world.step("b"), waits_for=again)
    assert resolve(saga_of(Parallel(a, b)), on=watched).status == "success"
    assert world.executed == ["a", "a", "b"]


def test_S21_a_retry_that_is_due_later_begins_while_the_other_still_runs(new_engine, resolve, world):
    again = Gate()
    soon = RetryPolicy(stop=stop_after_attempt(2), wait=wait_fixed(0.05))
    a = world.step("a", ValueError("busy"), rewrite(lambda request: again.open()), retry=soon)
    b = gated(world.step("b"), waits_for=again)
    assert resolve(saga_of(Parallel(a, b)), on=new_engine(clock=SystemClock())).status == "success"
    assert world.executed == ["a", "a", "b"]


# --- deliveries and crashes in the middle of a group --------------------------------------------------------------


def test_S15_a_delivery_in_the_middle_of_a_group_runs_nothing(watched, resolve, world, watch):
    told = []

    def deliver(request):
        told.append(saga.make(engine=watched).resolve({"id": "PR-1"}))
        return DONE

    a = world.step("a", deliver)
    b = after(watch, world.step("b"), other="a")
    saga = saga_of(Parallel(a, b))
    assert resolve(saga, on=watched).status == "success"
    assert [(answer.status, answer.countdown) for answer in told] == [("reschedule", 30)]
    assert world.executed == ["a", "b"]


@pytest.mark.parametrize("when", ["dies_after", "dies_before"])
def test_S16_a_crash_with_one_branch_committed_and_one_running(journal, new_engine, resolve, world, watch, when):
    process = LoudMortal(journal, **{when: (StepCompleted, "b")})
    a, b = world.step("a", remember(a=1)), world.step("b", remember(b=1))
    saga = saga_of(world.step("before"), Parallel(gated(a, waits_for=process.died), b), world.step("after"))
    with pytest.raises(Crash):
        resolve(saga, on=new_engine(process))
    engine = new_engine()
    assert resolve(saga, on=engine).status == "success"
    assert world.of("a")[-1].attempt == 2
    assert len(world.of("b")) == (1 if when == "dies_after" else 2)
    assert len({call.key for call in world.of("a")}) == 1
    assert world.of("after")[0].state == {"a": 1, "b": 1}
    assert sum(isinstance(entry, TakenOver) for entry in engine.history(SAGA_ID)) == 1


def test_S16_a_crash_with_both_branches_running_interrupts_both(journal, new_engine, resolve, world):
    process = LoudMortal(journal, dies_after=SagaStarted)
    a = world.step("a", probe=Probe.NOT_DONE)
    saga = saga_of(Parallel(a, world.step("b", probe=Probe.DONE)), world.step("c"))
    with pytest.raises(Crash):
        resolve(saga, on=new_engine(process))
    assert world.executed == []
    assert resolve(saga).status == "success"
    assert sorted(world.probed) == ["a", "b"]
    assert world.executed == ["a", "c"]


def test_S16_an_interrupted_branch_that_is_to_be_compensated_turns_the_group_back(journal, new_engine, resolve, world):
    process = LoudMortal(journal, dies_after=(StepCompleted, "b"))
    a = gated(world.step("a", on_unknown="compensate"), waits_for=process.died)
    saga = saga_of(world.step("before"), Parallel(a, world.step("b")))
    with pytest.raises(Crash):
        resolve(saga, on=new_engine(process))
    assert resolve(saga).status == "fail"
    assert world.undone == ["a", "b", "before"]


def test_S16_an_interrupted_branch_that_is_to_be_parked_parks_when_the_others_are_over(
    journal, new_engine, resolve, world
):
    process = LoudMortal(journal, dies_after=(StepCompleted, "b"))
    a = gated(world.step("a", on_unknown="park"), waits_for=process.died)
    saga = saga_of(Parallel(a, Chain(world.step("b"), world.step("c", LATER, DONE))), world.step("d"))
    with pytest.raises(Crash):
        resolve(saga, on=new_engine(process))
    engine = new_engine(sagas=[saga])
    assert resolve(saga, on=engine).output.startswith("parked at a: interrupted")
    engine.resolve_parked(SAGA_ID, "a", outcome="done", note="seen at the vendor")
    clock_due = engine.get(SAGA_ID)
    assert statuses(clock_due)["a"] == "COMPLETED"
    assert resolve(saga, on=engine).status == "success"
    assert world.executed.count("d") == 1


def test_S16_a_crash_in_the_undo_of_a_group_goes_on_there(journal, new_engine, resolve, world, watch):
    process = LoudMortal(journal, dies_after=(CompensationStarted, "b"))
    b = after(watch, world.step("b"), other="a")
    saga = saga_of(Parallel(world.step("a"), b), world.step("c", FAIL))
    with pytest.raises(Crash):
        resolve(saga, on=new_engine(process, observer=watch))
    assert resolve(saga).status == "fail"
    assert world.undone == ["b", "a"]


def test_S18_what_a_branch_saved_before_a_crash_is_its_own(journal, new_engine, resolve, world, watch):
    process = LoudMortal(journal)

    def save_then_die(request):
        current_context().state["ticket"] = "T-1"
        current_context().save()
        return process.die()

    a = world.step("a", save_then_die, DONE)
    b = gated(world.step("b"), waits_for=process.died)
    saga = saga_of(Parallel(gated(a, waits_for=watch.gate(StepStarted, "b")), b), world.step("c"))
    with pytest.raises(Crash):
        resolve(saga, on=new_engine(process, observer=watch))
    assert resolve(saga).status == "success"
    assert world.of("a")[1].state == {"ticket": "T-1"}
    assert all(call.state == {} for call in world.of("b"))
    assert world.of("c")[0].state == {"ticket": "T-1"}


# --- edits and signals --------------------------------------------------------------------------------------------


def test_S21_an_edit_in_the_middle_of_a_group_reaches_every_branch_and_is_no_conflict(new_engine, resolve, world):
    a, b = world.step("a", remember(LATER, a=1), DONE), world.step("b", remember(LATER, b=1), DONE)
    saga = saga_of(world.step("before", remember(old=1)), Parallel(a, b), world.step("c"))
    engine = new_engine(sagas=[saga])
    resolve(saga, on=engine)
    engine.edit_state(SAGA_ID, {"price": 7}, remove=["old"], note="wrong price", who="ann")
    assert resolve(saga, on=engine).status == "success"
    assert world.of("a")[1].state == {"a": 1, "price": 7}
    assert world.of("b")[1].state == {"b": 1, "price": 7}
    assert world.of("c")[0].state == {"a": 1, "b": 1, "price": 7}


def test_S31_a_signal_for_a_branch_lands_in_that_branch_and_in_what_follows(new_engine, resolve, world):
    saga = saga_of(
        Parallel(Chain(WaitFor("ok"), world.step("a")), Chain(world.step("b", LATER, DONE), world.step("c"))),
        world.step("d"),
    )
    engine = new_engine(sagas=[saga])
    resolve(saga, on=engine)
    engine.signal(SAGA_ID, "ok", {"by": "ann"})
    assert world.of("a")[0].state == {"ok": {"by": "ann"}}
    assert resolve(saga, on=engine).status == "success"
    assert world.of("c")[0].state == {}
    assert world.of("d")[0].state == {"ok": {"by": "ann"}}


# --- what compensations of branches see ---------------------------------------------------------------------------


def test_S21_before_the_join_a_compensation_sees_its_own_branch(watched, resolve, world, watch):
    b = after(watch, world.step("b", remember(ValueError("no"), b=1)), other="a")
    a = world.step("a", remember(a=1), undo=remember(DONE, undone_a=1))
    saga = saga_of(world.step("before", remember(base=1)), Parallel(a, b))
    resolve(saga, on=watched)
    assert world.of("a", "compensate")[0].state == {"base": 1, "a": 1}
    assert world.of("b", "compensate")[0].state == {"base": 1, "b": 1}
    assert world.of("before", "compensate")[0].state == {"base": 1}


def test_S21_after_the_join_a_compensation_sees_what_all_left_and_what_undos_changed(watched, resolve, world, watch):
    b = after(watch, world.step("b", remember(b=1), undo=remember(DONE, undone_b=1)), other="a")
    saga = saga_of(Parallel(world.step("a", remember(a=1)), b), world.step("c", FAIL))
    resolve(saga, on=watched)
    assert world.of("b", "compensate")[0].state == {"a": 1, "b": 1}
    assert world.of("a", "compensate")[0].state == {"a": 1, "b": 1, "undone_b": 1}


@pytest.mark.parametrize("entries", [[], [None], [0, ""]], ids=stable_id)
def test_S02_a_list_of_empty_groups_only_lists_nothing(resolve, entries):
    with pytest.raises(TransactionNotSelected):
        resolve(saga_of(Parallel(*entries), Chain(*entries)))


# --- budgets ------------------------------------------------------------------------------------------------------


def test_S25_with_a_spent_budget_a_group_goes_on_from_delivery_to_delivery(new_engine, resolve, world):
    saga = saga_of(
        Parallel(Chain(world.step("a"), world.step("b")), Chain(world.step("c"), world.step("d"))), world.step("e")
    )
    engine = new_engine(budget_s=0)
    told = [resolve(saga, on=engine).status for _ in range(3)]
    assert told == ["reschedule", "reschedule", "success"]
    assert sorted(world.executed) == ["a", "b", "c", "d", "e"]


def test_S10_while_the_failing_branch_waits_to_run_again_the_others_go_on(watched, resolve, world, watch):
    b = after(watch, world.step("b"), other="a", kind=StepFailed)
    saga = saga_of(Parallel(world.step("a", ValueError("busy"), DONE, undo=LATER), Chain(b, world.step("c"))))
    assert resolve(saga, on=watched).status == "reschedule"
    assert world.executed == ["a", "b", "c"]
    assert resolve(saga, on=watched).status == "success"
    assert world.executed == ["a", "b", "c", "a"]
    assert world.undone == ["a"]
