"""The decider's rules of groups and child sagas by example: S21 and S22, and how what branches changed is joined."""

from __future__ import annotations

import json
from typing import Any

import pytest
from histories import (
    DELIVERED,
    LATER,
    NOW,
    TAKEN_OVER,
    after,
    back,
    begun_with,
    done,
    elapsed,
    failed,
    only,
    parked_at,
    ran,
    suspended,
    undo_order,
    undoing,
    undone,
)
from msgspec import Raw

from saga_engine.decider import Ask, Compensate, Finish, Park, State, TurnBack, Wait, answer, decide, wakes_at
from saga_engine.journal import (
    CompensationSuspended,
    Entry,
    Plan,
    PlanScope,
    PlanStep,
    RequestDelivered,
    Response,
    SagaStatus,
    SignalReceived,
    SkipAnswered,
    StateEdited,
    StateSaved,
    StepCompleted,
    StepSkipped,
)
from saga_engine.scopes import documents_at
from transactions import Kind

# --- plans --------------------------------------------------------------------------------------------------------

#: a, then b beside c and d one after the other, then e.
BRANCHES = (PlanScope("1", "", 0), PlanScope("2", "", 0))
GROUP = Plan(
    (
        PlanStep("a"),
        PlanStep("b", needs=("a",), scope="1"),
        PlanStep("c", needs=("a",), scope="2"),
        PlanStep("d", needs=("c",), scope="2"),
        PlanStep("e", needs=("b", "d")),
    ),
    scopes=BRANCHES,
)

#: A group of x and y inside the first of two branches; z is the other one.
NESTED = Plan(
    (
        PlanStep("x", scope="1/1"),
        PlanStep("y", scope="1/2"),
        PlanStep("z", scope="2"),
        PlanStep("end", needs=("x", "y", "z")),
    ),
    scopes=(*BRANCHES, PlanScope("1/1", "1", 1), PlanScope("1/2", "1", 1)),
)


def with_child(deadline_s: float | None = None) -> Plan:
    """Give a plan of a child saga of x and y, between a and b."""
    child = PlanScope("Child", "", 0, child="Child", saga="Child", saga_path="m:Child", deadline_s=deadline_s)
    steps = (
        PlanStep("a"),
        PlanStep("Child/x", needs=("a",), scope="Child"),
        PlanStep("Child/y", needs=("Child/x",), scope="Child"),
        PlanStep("b", needs=("Child/y",)),
    )
    return Plan(steps, scopes=(child,))


def grouped(*entries: Entry, **policy: Any) -> State:
    """`GROUP`, with a done."""
    return after(begun_with(GROUP, **policy), *done("a"), *entries)


def changed(step: str, state: Any = None, request: Any = None) -> Entry:
    """The step completes and has changed the state, or the request, into that."""
    carried = {"state": state, "request": request}
    documents = {name: Raw(json.dumps(value).encode()) for name, value in carried.items() if value is not None}
    return StepCompleted(at=NOW, step=step, **documents)


def data(state: State, scope: str = "") -> Any:
    return json.loads(bytes(documents_at(state, scope)[1]))


def request(state: State, scope: str = "") -> Any:
    return json.loads(bytes(documents_at(state, scope)[0]))


def joined(one: Any, other: Any, at_start: Any = None, *, of: str = "state") -> State:
    """Both branches of `GROUP` are over, and have changed what they began with into these."""
    start = (ran("a"), changed("a", **{of: at_start or {}}))
    branches = (
        ran("b"),
        ran("c"),
        changed("b", **{of: one}),
        changed("c", **{of: other}),
        StepSkipped(at=NOW, step="d"),
    )
    return after(begun_with(GROUP), *start, *branches)


# --- beside each other --------------------------------------------------------------------------------------------


def test_S21_the_branches_of_a_group_start_together_and_what_follows_waits_for_all_of_them() -> None:
    state = grouped()
    assert decide(state) == (Ask("b"), Ask("c"))
    state = after(state, ran("b"), ran("c"), StepCompleted(at=NOW, step="b"))
    assert decide(state) == ()
    state = after(state, StepCompleted(at=NOW, step="c"))
    assert only(state) == Ask("d")
    assert only(after(state, *done("d"))) == Ask("e")


def test_S21_a_step_goes_on_in_its_branch_while_the_other_one_is_in_flight() -> None:
    assert only(grouped(ran("b"), *done("c"))) == Ask("d")


def test_S21_when_one_branch_fails_what_is_in_flight_comes_to_its_end_and_nothing_new_starts() -> None:
    state = grouped(ran("b"), ran("c"), failed("b"))
    assert decide(state) == ()
    assert only(after(state, StepCompleted(at=NOW, step="c"))) == TurnBack("failed", "b")


def test_S21_the_failing_branch_is_undone_first_and_then_the_others_by_latest_start() -> None:
    state = grouped(ran("b"), ran("c"), failed("b"), StepCompleted(at=NOW, step="c"), back(step="b"))
    assert undo_order(state) == ["b", "c", "a"]


def test_S21_a_branch_that_waits_is_undone_as_well() -> None:
    state = grouped(ran("b"), suspended("b", NOW + 60), ran("c"), failed("c"), back(step="c"))
    assert undo_order(state) == ["c", "b", "a"]


def test_S21_of_two_failing_branches_no_undo_may_ask_to_run_its_step_again() -> None:
    state = grouped(ran("b"), ran("c"), failed("b"), failed("c"), back(step="b"), undoing("c"))
    later = CompensationSuspended(at=NOW, step="c", response=LATER, due_at=NOW + 60)
    assert isinstance(only(after(state, later)), Wait)
    alone = grouped(ran("b"), ran("c"), StepCompleted(at=NOW, step="b"), failed("c"), back(step="c"), undoing("c"))
    assert only(after(alone, later, elapsed(NOW + 60))) == Ask("c")


def test_S21_a_skip_ends_its_branch_only() -> None:
    skip = SkipAnswered(at=NOW, step="c", response=Response("skip"))
    state = grouped(ran("b"), ran("c"), skip)
    assert decide(state) == ()
    assert only(after(state, StepCompleted(at=NOW, step="b"))) == Ask("e")


def test_S21_a_group_of_which_one_branch_waits_suspends_until_the_earliest_time() -> None:
    state = grouped(ran("b"), ran("c"), suspended("b", NOW + 90), suspended("c", NOW + 60))
    assert only(state) == Wait(NOW + 60, "step", LATER, "c")


def test_S21_a_branch_that_parks_lets_the_others_come_to_their_ends() -> None:
    state = grouped(ran("b"), ran("c"), suspended("c", NOW + 60))
    parked = after(state, StepCompleted(at=NOW, step="b"), parked_at("c"))
    assert only(parked) == Finish(SagaStatus.PARKED, step="c", cause="c")
    assert decide(after(state, parked_at("c"))) == ()


def test_S21_a_wait_beside_a_step_in_flight_is_over_when_its_time_has_come() -> None:
    state = grouped(ran("b"), ran("c"), failed("c", retry_at=NOW + 5))
    assert wakes_at(state) == NOW + 5
    assert wakes_at(grouped(ran("b"), ran("c"), suspended("c"))) is None
    assert wakes_at(after(state, failed("b"), back(step="b"))) is None
    assert decide(after(state, elapsed(NOW + 5)))[0].step == "c"  # type: ignore[union-attr]


def test_S21_a_step_that_reached_its_limit_beside_one_in_flight_parks() -> None:
    state = grouped(ran("b"), ran("c"), failed("c", retry_at=NOW), attempts_max=1)
    (park,) = decide(state)
    assert isinstance(park, Park)
    assert park.step == "c"


# --- what branches see, and what is left of it ----------------------------------------------------------------------


def test_S21_each_branch_begins_with_the_state_as_of_the_groups_start() -> None:
    state = after(begun_with(GROUP), ran("a"), changed("a", {"n": 1}), ran("b"), ran("c"))
    state = after(state, changed("b", {"n": 1, "b": 2}))
    assert (data(state, "1"), data(state, "2"), data(state)) == ({"n": 1, "b": 2}, {"n": 1}, {"n": 1})
    state = after(state, changed("c", {"n": 1, "c": 3}), *done("d"))
    assert data(state) == {"n": 1, "b": 2, "c": 3}


def test_S21_a_branch_none_of_whose_steps_was_wanted_changes_nothing() -> None:
    skipped = (StepSkipped(at=NOW, step="c"), StepSkipped(at=NOW, step="d"))
    assert data(grouped(ran("b"), changed("b", {"b": 2}), *skipped)) == {"b": 2}


def test_S18_what_a_step_saves_in_a_branch_is_its_branchs() -> None:
    state = grouped(ran("b"), ran("c"), StateSaved(at=NOW, step="b", state=Raw(b'{"x":1}')))
    assert (data(state, "1"), data(state, "2")) == ({"x": 1}, {})


def test_S18_a_delivered_request_is_everyones() -> None:
    state = grouped(ran("b"), ran("c"), StateSaved(at=NOW, step="b", request=Raw(b'{"id":"1","b":1}')))
    assert (request(state, "1"), request(state)) == ({"id": "1", "b": 1}, {"id": "1"})
    delivered = after(state, RequestDelivered(at=NOW, drive="e", request=Raw(b'{"id":"1","new":1}')))
    assert request(delivered, "1") == request(delivered, "2") == request(delivered) == {"id": "1", "new": 1}


def test_a_person_edits_the_state_of_every_open_branch() -> None:
    state = after(begun_with(GROUP), ran("a"), changed("a", {"old": 1, "n": 1}), ran("b"), ran("c"))
    state = after(state, StateEdited(at=NOW, changes=Raw(b'{"n":2}'), removed=("old",)))
    assert data(state, "1") == data(state, "2") == data(state) == {"n": 2}
    assert data(after(state, changed("b", {"n": 2, "b": 1}), *done("c", "d"))) == {"n": 2, "b": 1}


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        ({"n": 1, "x": 2}, {"n": 1, "x": 2}, {"n": 1, "x": 2}),
        ({}, {"n": 1}, {}),
        ({}, {}, {}),
        ({"n": 2}, {"n": 1, "y": 1}, {"n": 2, "y": 1}),
    ],
    ids=["the same", "removed by one", "removed by both", "changed by one"],
)
def test_S21_what_branches_changed_is_joined_by_key(one: Any, other: Any, together: Any) -> None:
    state = joined(one, other, {"n": 1})
    assert data(state) == together
    assert state.conflict is None
    assert state.scopes == {}


@pytest.mark.parametrize(
    ("one", "other"),
    [({"k": 1}, {"k": 2}), ({"k": 1}, {"k": 1.0}), ({"k": 1}, {"k": True}), ({"n": 2}, {})],
    ids=["values", "a float", "a boolean", "removed"],
)
def test_S21_two_branches_that_set_one_key_to_different_values_fail_the_group(one: Any, other: Any) -> None:
    state = joined(one, other, {"n": 1})
    assert only(state) == TurnBack("conflict")
    state = after(state, back("conflict"))
    text = str(state.conflict)
    assert "'b' and 'c'" in text
    assert "context.state['" in text
    assert undo_order(state) == ["c", "b", "a"]
    end = only(after(state, *undone("c"), *undone("b"), *undone("a")))
    assert end == Finish(SagaStatus.COMPENSATED, Response("fail", text))


def test_S21_a_conflict_that_a_person_puts_right_is_none_any_more() -> None:
    state = after(joined({"k": 1}, {"k": 2}), StateEdited(at=NOW, changes=Raw(b'{"k":3}')))
    assert (state.conflict, data(state)) == (None, {"k": 3})
    assert only(state) == Ask("e")


@pytest.mark.parametrize(
    ("base", "one", "other", "together"),
    [
        ({"p": {"v": 0}}, {"p": {"v": 0, "b": 1}}, {"p": {"v": 0, "c": 1}}, {"p": {"v": 0, "b": 1, "c": 1}}),
        ({"p": [0, 0]}, {"p": [1, 0]}, {"p": [0, 1]}, {"p": [1, 1]}),
        ({"p": 0, "q": 0}, {"q": 0}, {"p": 0}, {}),
        ({"p": 0}, {"p": 1}, {"p": 1}, {"p": 1}),
        ({"p": 0}, {"p": 0}, {"p": 1}, {"p": 1}),
    ],
    ids=["objects", "lists of one length", "removed", "the same", "by one"],
)
def test_S21_what_branches_changed_of_the_request_is_joined_as_deep_as_it_goes(
    base: Any, one: Any, other: Any, together: Any
) -> None:
    state = joined(one, other, base, of="request")
    assert (request(state), state.conflict) == (together, None)


@pytest.mark.parametrize(
    ("base", "one", "other", "where"),
    [
        ({"p": 0}, {"p": 1}, {"p": 2}, "request['p']"),
        ({"p": [0]}, {"p": [1]}, {"p": [2]}, "request['p'][0]"),
        ({"p": [0]}, {"p": [1]}, {"p": [0, 1]}, "request['p']"),
        ({"p": {"v": 0}}, {"p": {"v": 1}}, {"p": {"v": 2}}, "request['p']['v']"),
        ({"p": {"v": 0}}, {"p": {"v": 1}}, {}, "request['p']"),
    ],
    ids=["values", "items", "lengths", "members", "removed"],
)
def test_S21_branches_that_change_one_part_of_the_request_differently_are_in_conflict(
    base: Any, one: Any, other: Any, where: str
) -> None:
    assert f"set {where} to" in str(joined(one, other, base, of="request").conflict)


# --- groups in groups ---------------------------------------------------------------------------------------------


def test_S21_a_group_in_a_group_is_joined_before_the_one_around_it() -> None:
    state = after(begun_with(NESTED), ran("x"), ran("y"), ran("z"))
    assert set(state.scopes) == {"1", "1/1", "1/2", "2"}
    state = after(state, changed("x", {"x": 1}), changed("y", {"y": 1}))
    assert (data(state, "1"), data(state)) == ({"x": 1, "y": 1}, {})
    assert data(after(state, changed("z", {"z": 1}))) == {"x": 1, "y": 1, "z": 1}


def test_S21_a_conflict_in_a_group_in_a_group_keeps_the_one_around_it_open() -> None:
    state = after(begun_with(NESTED), ran("x"), ran("y"), ran("z"), changed("z", {"z": 1}))
    state = after(state, changed("x", {"k": 1}), changed("y", {"k": 2}))
    assert "'x' and 'y'" in str(state.conflict)
    assert set(state.scopes) == {"1", "1/1", "1/2", "2"}


def test_S21_a_step_that_begins_in_an_open_branch_opens_what_is_in_it_only() -> None:
    state = after(begun_with(NESTED), ran("x"), changed("x", {"x": 1}), ran("y"))
    assert (data(state, "1/1"), data(state, "1/2")) == ({"x": 1}, {})


# --- child sagas --------------------------------------------------------------------------------------------------


def test_S22_a_child_has_a_state_of_its_own_and_what_it_changed_is_the_parents_at_its_end() -> None:
    state = after(
        begun_with(with_child()), ran("a"), changed("a", {"a": 1}), ran("Child/x"), changed("Child/x", {"x": 1})
    )
    assert (data(state, "Child"), data(state)) == ({"x": 1}, {"a": 1})
    assert data(after(state, *done("Child/y"))) == {"x": 1}


def test_S22_a_completed_child_is_undone_with_its_parent() -> None:
    state = after(begun_with(with_child()), *done("a", "Child/x", "Child/y"), ran("b"), failed("b", effect="none"))
    assert undo_order(after(state, back(step="b"))) == ["Child/y", "Child/x", "a"]


def test_S22_a_child_in_which_a_step_failed_is_undone_before_what_is_around_it() -> None:
    child = PlanScope("Child", "1", 1, child="Child", saga="Child", saga_path="m:Child")
    steps = (
        PlanStep("Child/x", scope="Child"),
        PlanStep("Child/y", needs=("Child/x",), scope="Child"),
        PlanStep("z", scope="2"),
        PlanStep("w", needs=("z",), scope="2"),
    )
    plan = Plan(steps, scopes=(*BRANCHES, child))
    state = after(begun_with(plan), ran("Child/x"), ran("z"), StepCompleted(at=NOW, step="Child/x"))
    state = after(state, StepCompleted(at=NOW, step="z"), ran("Child/y"), *done("w"), failed("Child/y"))
    assert undo_order(after(state, back(step="Child/y"))) == ["Child/y", "Child/x", "w", "z"]


def test_S24_a_childs_own_deadline_turns_the_execution_back() -> None:
    state = after(begun_with(with_child(deadline_s=50)), *done("a"), ran("Child/x"), suspended("Child/x", NOW + 90))
    assert only(state) == Wait(NOW + 50, "step", LATER, "Child/x")
    late = after(state, elapsed(NOW + 50))
    assert only(late) == TurnBack("deadline")
    ended = after(late, back("deadline"), *undone("Child/x"), *undone("a"))
    assert only(ended) == Finish(SagaStatus.COMPENSATED, Response("fail", "the saga's deadline passed"))
    assert isinstance(only(after(begun_with(with_child(deadline_s=50)), elapsed(NOW + 90))), Ask)


def test_S24_only_the_deadlines_of_children_that_began_count() -> None:
    scopes = tuple(PlanScope(name, "", n, name, name, f"m:{name}", 50) for n, name in enumerate(("One", "Two")))
    steps = (PlanStep("One/x", scope="One"), PlanStep("Two/y", needs=("One/x",), scope="Two"))
    state = after(begun_with(Plan(steps, scopes=scopes)), *done("One/x"), elapsed(NOW + 90))
    assert only(state) == Ask("Two/y")
    assert only(after(state, ran("Two/y"), suspended("Two/y"), elapsed(NOW + 200))) == TurnBack("deadline")


def test_S24_the_deadline_of_a_child_that_is_over_is_of_no_account() -> None:
    state = after(begun_with(with_child(deadline_s=50)), *done("a", "Child/x", "Child/y"), elapsed(NOW + 90))
    assert only(state) == Ask("b")


def test_S22_a_skip_in_a_child_ends_the_child_only() -> None:
    skip = SkipAnswered(at=NOW, step="Child/x", response=Response("skip"))
    assert only(after(begun_with(with_child()), *done("a"), ran("Child/x"), skip)) == Ask("b")


# --- signals in branches ------------------------------------------------------------------------------------------


def test_S31_a_signal_for_a_step_of_a_branch_lands_in_the_state_of_its_branch() -> None:
    state = grouped(ran("b"), ran("c"), suspended("c", signal="go"))
    state = after(state, SignalReceived(at=NOW, name="go", payload=Raw(b"7")))
    assert (data(state, "2"), data(state, "1"), data(state)) == ({"go": 7}, {}, {})


def test_S16_steps_of_several_branches_that_a_crash_interrupted_run_again() -> None:
    state = grouped(ran("b"), ran("c"), TAKEN_OVER)
    assert [action.step for action in decide(state)] == ["b", "c"]  # type: ignore[union-attr]


def test_S21_a_read_only_branch_leaves_nothing_to_undo() -> None:
    steps = tuple(
        PlanStep(step.name, Kind.READ_ONLY if step.name == "b" else step.kind, step.needs, scope=step.scope)
        for step in GROUP.steps
    )
    state = after(begun_with(Plan(steps, scopes=BRANCHES)), *done("a", "b"), ran("c"), failed("c"), back(step="c"))
    assert undo_order(state) == ["c", "a"]
    assert isinstance(only(state), Compensate)


def test_a_delivery_to_a_group_in_which_one_step_waits_for_it_is_not_early() -> None:
    state = grouped(ran("b"), ran("c"), suspended("b"), failed("c", retry_at=NOW + 60))
    assert answer(state, NOW).status == "reschedule"
    assert Ask("b") in decide(after(state, DELIVERED))
