"""The decider's rules of the pivot by example: S20."""

from __future__ import annotations

from typing import Any

from histories import (
    BROKEN,
    DELIVERED,
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
    probed,
    ran,
    resolved,
    suspended,
    undo_order,
)
from msgspec import Raw

from saga_engine.decider import Ask, Execute, Finish, Park, State, TurnBack, Wait, preview
from saga_engine.decider import Probe as Probing
from saga_engine.journal import (
    CancelRequested,
    Entry,
    Plan,
    PlanScope,
    PlanStep,
    SagaStatus,
    StepCompleted,
    UndoOrdered,
)
from transactions import Kind, Probe

CANCEL = CancelRequested(at=NOW, reason="too dear")


def pivoted(*entries: Entry, is_probed: bool = False, on_unknown: Any = "rerun", **policy: Any) -> State:
    """A compensatable step, which is done, the pivot, and a retriable step."""
    steps = (
        PlanStep("a"),
        PlanStep("p", Kind.PIVOT, ("a",), probed=is_probed, on_unknown=on_unknown),
        PlanStep("r", Kind.RETRIABLE, ("p",)),
    )
    return after(begun_with(Plan(steps), **policy), *done("a"), *entries)


def test_S20_before_the_pivot_a_cancellation_turns_back() -> None:
    assert only(pivoted(CANCEL)) == TurnBack("cancelled")


def test_S20_a_pivot_that_answered_fail_is_gone_back_on() -> None:
    state = pivoted(ran("p"), failed("p", is_refusal=True))
    assert only(state) == TurnBack("failed", "p")
    assert undo_order(after(state, back(step="p"))) == ["a"]


def test_S20_a_pivot_that_the_probe_found_not_done_is_gone_back_on() -> None:
    state = pivoted(ran("p"), failed("p"), is_probed=True)
    assert only(state) == Probing("p")
    assert only(after(state, *probed("p", Probe.NOT_DONE))) == TurnBack("failed", "p")


def test_S20_a_pivot_that_the_probe_found_done_goes_forward() -> None:
    assert only(pivoted(ran("p"), failed("p"), *probed("p", Probe.DONE), is_probed=True)) == Ask("r")


def test_S20_a_pivot_whose_outcome_nothing_can_tell_parks() -> None:
    for state in (
        pivoted(ran("p"), failed("p")),
        pivoted(ran("p"), failed("p"), *probed("p", Probe.UNKNOWN), is_probed=True),
    ):
        park = only(state)
        assert isinstance(park, Park)
        assert (park.step, park.cause) == ("p", f"the pivot's outcome is unknown: {BROKEN.message}")


def test_S20_while_the_pivots_outcome_is_unknown_neither_a_cancellation_nor_the_deadline_turns_back() -> None:
    interrupted = pivoted(ran("p"), TAKEN_OVER, CANCEL, deadline_at=NOW + 10)
    assert only(interrupted) == Execute("p", 2)
    assert only(after(interrupted, elapsed(NOW + 20))) == Execute("p", 2)
    waiting = pivoted(ran("p"), failed("p", retry_at=NOW + 60), CANCEL, deadline_at=NOW + 10)
    assert only(waiting) == Wait(NOW + 60, "retry", step="p")


def test_S20_a_cancellation_that_waited_for_the_pivots_outcome_takes_effect_if_it_was_not_done() -> None:
    state = pivoted(ran("p"), TAKEN_OVER, CANCEL, is_probed=True)
    assert only(state) == Probing("p")
    assert only(after(state, *probed("p", Probe.NOT_DONE))) == TurnBack("cancelled")


def test_S20_a_cancellation_behind_the_pivot_is_none() -> None:
    state = pivoted(*done("p"), CANCEL)
    assert state.cancelled is None
    assert only(state) == Ask("r")


def test_S20_behind_the_pivot_the_deadline_is_only_recorded() -> None:
    state = pivoted(*done("p"), ran("r"), suspended("r", NOW + 60), deadline_at=NOW + 10)
    assert only(state) == Wait(NOW + 60, "step", state.steps["r"].response, "r")
    assert only(after(state, elapsed(NOW + 20), DELIVERED)) == Ask("r")


def test_S20_what_is_given_up_behind_the_pivot_parks() -> None:
    state = pivoted(*done("p"), ran("r"), failed("r"))
    park = only(state)
    assert isinstance(park, Park)
    assert (park.step, park.cause) == ("r", f"given up behind the pivot: {BROKEN.message}")
    parked = after(state, parked_at("r"))
    assert only(parked) == Finish(SagaStatus.PARKED, step="r", cause="c")


def test_S20_a_step_behind_the_pivot_that_a_person_undid_parks_again() -> None:
    state = pivoted(*done("p"), ran("r"), failed("r"), parked_at("r"), resolved("r", "undone"))
    assert isinstance(only(state), Park)


def test_S20_a_conflict_behind_the_pivot_parks() -> None:
    scopes = (PlanScope("1", "", 0), PlanScope("2", "", 0))
    steps = (
        PlanStep("p", Kind.PIVOT),
        PlanStep("b", Kind.RETRIABLE, ("p",), scope="1"),
        PlanStep("c", Kind.RETRIABLE, ("p",), scope="2"),
    )
    state = after(begun_with(Plan(steps, scopes=scopes)), *done("p"), ran("b"), ran("c"))
    one, two = (StepCompleted(at=NOW, step=step, state=Raw(f'{{"k":"{step}"}}'.encode())) for step in "bc")
    state = after(state, one, two)
    park = only(state)
    assert isinstance(park, Park)
    assert park.cause == state.conflict
    assert isinstance(only(after(state, parked_at(park.step))), Finish)


def test_S32_an_undo_goes_back_on_the_pivot_too() -> None:
    state = pivoted(*done("p", "r"))
    completed = after(state, only(state).begin(NOW), UndoOrdered(at=NOW))
    assert only(completed) == TurnBack("undo")
    assert undo_order(after(completed, back("undo"))) == ["r", "p", "a"]


def test_S20_nothing_would_be_undone_once_the_pivot_may_have_been_passed() -> None:
    assert [undo.step for undo in preview(pivoted())] == ["a"]
    assert preview(pivoted(ran("p"))) == ()
    assert preview(pivoted(*done("p"))) == ()


def test_S16_a_pivot_that_a_crash_interrupted_parks_if_its_author_says_so() -> None:
    park = only(pivoted(ran("p"), TAKEN_OVER, on_unknown="park"))
    assert isinstance(park, Park)
    assert park.cause == "interrupted, and its outcome is unknown"
