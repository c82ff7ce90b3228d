"""The decider's rules of what others say by example: signals (S31), orders to undo (S32), corrections by a person,
exclusive rights, late effects (J10), and what a preview tells.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from histories import (
    BROKEN,
    DELIVERED,
    DONE,
    LATER,
    NOW,
    TAKEN_OVER,
    after,
    back,
    begun,
    begun_with,
    done,
    elapsed,
    failed,
    only,
    parked_at,
    probed,
    ran,
    released,
    resolved,
    suspended,
    undo_order,
    undoing,
    undone,
)
from msgspec import Raw
from msgspec.structs import replace

from saga_engine.decider import (
    Ask,
    Await,
    Compensate,
    Execute,
    Finish,
    Miss,
    Park,
    Phase,
    State,
    TurnBack,
    Undo,
    Wait,
    answer,
    decide,
    is_early,
    preview,
)
from saga_engine.decider import Probe as Probing
from saga_engine.journal import (
    CancelRequested,
    CompensationDeclined,
    CompensationFailed,
    CompensationSuspended,
    DriveResumed,
    Entry,
    ExclusiveDenied,
    ExclusiveRight,
    LateEffectFound,
    Plan,
    PlanScope,
    PlanStep,
    Response,
    SagaParked,
    SagaStatus,
    SignalAwaited,
    SignalReceived,
    StateEdited,
    StepResumed,
    StepSkippedByHand,
    UndoOrdered,
)
from saga_engine.scopes import documents_at
from transactions import Kind, Probe

GO = SignalReceived(at=NOW, name="go", payload=Raw(b'{"by":"me"}'))
UNDO = UndoOrdered(at=NOW, note="sent back")


def data(state: State) -> Any:
    return json.loads(bytes(state.data))


def resumed(step: str, at: float = NOW) -> Entry:
    return StepResumed(at=at, step=step, note="again")


def skipped(step: str, changes: bytes = b"{}") -> Entry:
    return StepSkippedByHand(at=NOW, step=step, changes=Raw(changes))


def late(step: str, undone_before: int = 0) -> Entry:
    return LateEffectFound(at=NOW, step=step, attempt=1, undone=undone_before)


def changes_nothing(state: State, entry: Entry) -> bool:
    """Tell whether the entry adds to the count only."""
    return after(state, entry) == replace(state, entries=state.entries + 1)


# --- signals ------------------------------------------------------------------------------------------------------


def waiting(timeout_s: float | None = 60.0, *before: Entry) -> State:
    """A saga whose second step waits for the signal; the first is done."""
    steps = (
        PlanStep("a"),
        PlanStep("w", Kind.READ_ONLY, ("a",), signal="go", signal_timeout_s=timeout_s, has_undo=False),
        PlanStep("b", needs=("w",)),
    )
    return after(begun_with(Plan(steps)), *before, *done("a"))


AWAITED = SignalAwaited(at=NOW, step="w", due_at=NOW + 60)


def test_S31_a_step_that_waits_for_a_signal_begins_to_wait_without_a_call() -> None:
    assert only(waiting()) == Await("w", 60.0)
    assert Await("w", 60.0).begin(NOW) == AWAITED
    assert Await("w", None).begin(NOW) == SignalAwaited(at=NOW, step="w")
    assert only(after(waiting(), AWAITED)) == Wait(NOW + 60, "signal", None, "w")


def test_S31_the_signal_ends_the_wait_and_its_payload_lands_in_the_state() -> None:
    state = after(waiting(), AWAITED, GO)
    assert only(state) == Ask("b")
    assert data(state) == {"go": {"by": "me"}}


def test_S31_a_signal_that_came_before_is_not_lost() -> None:
    state = after(waiting(60.0, GO), AWAITED)
    assert (only(state), state.signals) == (Ask("b"), ())


def test_S31_a_delivery_does_not_end_the_wait_for_a_signal() -> None:
    state = after(waiting(), AWAITED, released("signal", NOW + 60))
    assert is_early(state, NOW)
    assert isinstance(only(after(state, DELIVERED)), Wait)
    assert isinstance(only(after(state, DriveResumed(at=NOW + 30, drive="e"))), Wait)


def test_S31_a_signal_that_does_not_come_in_time_is_a_failure() -> None:
    state = after(waiting(), AWAITED, elapsed(NOW + 60))
    assert only(state) == Miss("w")
    state = after(state, Miss("w").begin(NOW + 60))
    assert only(state) == TurnBack("failed", "w")
    state = after(state, back(step="w"))
    assert undo_order(state) == ["a"]
    ended = only(after(state, *undone("a")))
    assert ended == Finish(SagaStatus.COMPENSATED, Response("fail", "the signal 'go' did not come within 60 s"))


def test_S31_a_signal_that_was_sent_after_the_time_comes_too_late() -> None:
    state = after(waiting(), AWAITED, SignalReceived(at=NOW + 61, name="go", payload=Raw(b"1")))
    assert only(state) == Miss("w")
    assert [signal.name for signal in state.signals] == ["go"]


def test_S31_without_a_time_the_wait_has_no_end_of_its_own() -> None:
    assert only(after(waiting(None), SignalAwaited(at=NOW, step="w"))) == Wait(None, "signal", None, "w")


def test_S31_a_wait_that_parked_waits_anew_when_a_person_says_so() -> None:
    parked = after(waiting(), AWAITED, parked_at("w"), SagaParked(at=NOW, step="w", cause="c"))
    assert only(after(parked, resumed("w"))) == Await("w", 60.0)
    assert only(after(parked, resolved("w", "not_done"))) == Await("w", 60.0)
    assert only(after(parked, resolved("w", "done"))) == Ask("b")


def test_S31_a_wait_that_goes_on_is_not_resumed_but_can_be_skipped() -> None:
    state = after(waiting(), AWAITED)
    assert changes_nothing(state, resumed("w"))
    assert only(after(state, skipped("w", b'{"go":1}'))) == Ask("b")


# --- resume -------------------------------------------------------------------------------------------------------


def parked_interrupted() -> State:
    """`a` was interrupted, and parked."""
    state = after(begun(PlanStep("a", on_unknown="park"), "b"), ran("a"), TAKEN_OVER)
    return after(state, only(state).begin(NOW), SagaParked(at=NOW, step="a", cause="c"))  # type: ignore[union-attr]


def parked_undo(*policy: Any) -> State:
    """`a` completed, `b` failed, and the undo of `a` could not be done."""
    state = after(begun("a", "b", compensation_deadline_s=50.0), *done("a"), ran("b"), failed("b", effect="none"))
    state = after(state, back(step="b"), undoing("a"), CompensationFailed(at=NOW, step="a", error=BROKEN))
    return after(state, parked_at("a"), SagaParked(at=NOW, step="a", cause="c"))


def test_a_parked_step_that_is_resumed_runs_again_and_its_attempts_count_anew() -> None:
    state = after(parked_interrupted(), resumed("a"))
    assert (state.status, state.parked, state.steps["a"].failures) == (SagaStatus.RUNNING, None, 0)
    assert only(state) == Execute("a", 2)


def test_a_parked_undo_that_is_resumed_is_tried_again_with_its_time_counted_anew() -> None:
    state = after(parked_undo(), resumed("a", NOW + 100))
    assert state.status is SagaStatus.COMPENSATING
    assert only(state) == Compensate("a", 2, of_completed=True)


def test_a_step_that_waits_is_resumed_at_once() -> None:
    rescheduled = after(begun("a"), ran("a"), suspended("a", NOW + 60), released("step", NOW + 60))
    assert only(after(rescheduled, resumed("a"))) == Ask("a")
    retrying = after(begun("a"), ran("a"), failed("a", retry_at=NOW + 60))
    assert only(after(retrying, resumed("a"))) == Execute("a", 2)


@pytest.mark.parametrize("history", [(), (ran("a"),), (*done("a"),)], ids=["pending", "running", "completed"])
def test_a_parked_step_that_is_resumed_goes_on_from_where_it_was(history: tuple[Entry, ...]) -> None:
    state = after(begun("a", "b"), *history, parked_at("a"))
    goes_on = after(state, resumed("a")).steps["a"].phase
    expected = {0: Phase.PENDING, 1: Phase.PARKED, 2: Phase.COMPLETED}
    assert goes_on is expected[len(history)]


def test_a_resumption_of_what_runs_or_is_unknown_changes_nothing() -> None:
    state = after(begun("a", "b"), *done("a"), ran("b"))
    assert changes_nothing(state, resumed("nobody"))
    assert changes_nothing(state, resumed("b"))
    state = after(state, failed("b", effect="none"), back(step="b"), undoing("a"))
    assert changes_nothing(state, resumed("a"))


def test_after_the_end_no_correction_changes_anything() -> None:
    state = after(begun("a"), *done("a"))
    ended = after(state, only(state).begin(NOW))  # type: ignore[union-attr]
    for entry in (resumed("a"), skipped("a"), resolved("a", "done"), CancelRequested(at=NOW, reason="r")):
        assert changes_nothing(ended, entry)


# --- skip, resolve, edit ------------------------------------------------------------------------------------------


def test_a_parked_step_that_is_skipped_is_over_and_its_substitute_state_is_there() -> None:
    state = after(parked_interrupted(), skipped("a", b'{"a":"by hand"}'))
    assert only(state) == Ask("b")
    assert data(state) == {"a": "by hand"}
    assert state.steps["a"].phase is Phase.COMPLETED, "what it may have left must be undone if the saga turns back"


def test_a_step_without_effect_that_is_skipped_is_never_undone() -> None:
    state = after(begun("a", "b"), skipped("a"), ran("b"), failed("b", effect="none"), back(step="b"))
    assert isinstance(only(state), Finish)


@pytest.mark.parametrize(
    ("history", "step"),
    [((), "nobody"), ((), "b"), ((ran("a"),), "a"), (done("a"), "a"), ((ran("a"), failed("a"), back(step="a")), "a")],
    ids=["unknown", "not its turn", "running", "over", "compensating"],
)
def test_a_skip_that_does_not_fit_changes_nothing(history: tuple[Entry, ...], step: str) -> None:
    assert changes_nothing(after(begun("a", "b"), *history), skipped(step))


def test_a_skip_while_the_probe_is_in_flight_changes_nothing() -> None:
    state = after(begun(PlanStep("a", probed=True)), ran("a"), failed("a"), probed("a", Probe.DONE)[0])
    assert changes_nothing(state, skipped("a"))


def test_what_a_probe_finds_of_a_step_that_a_person_dealt_with_meanwhile_does_not_matter() -> None:
    state = after(begun(PlanStep("a", probed=True), "b"), ran("a"), failed("a"), probed("a", Probe.DONE)[0])
    state = after(state, parked_at("a"), resolved("a", "undone"), probed("a", Probe.DONE)[1])
    assert state.steps["a"].phase is Phase.UNDONE
    assert not state.steps["a"].is_probing


def test_an_undo_by_hand_of_a_step_whose_undo_was_tried_counts_as_one() -> None:
    assert after(parked_undo(), resolved("a", "undone")).steps["a"].undone == 1
    assert after(parked_interrupted(), resolved("a", "undone")).steps["a"].undone == 0


def test_S26_a_transaction_that_a_person_undid_ends_its_generation_with_its_error() -> None:
    state = after(begun("a", mode="select"), ran("a"))
    assert only(after(state, failed("a"), parked_at("a"), resolved("a", "undone"))) == Finish(
        SagaStatus.COMPENSATED, Response("fail", BROKEN.message)
    )
    assert only(after(state, parked_at("a"), resolved("a", "undone"))) == Finish(
        SagaStatus.COMPENSATED, Response("fail", "a was undone by hand")
    )


def test_a_person_edits_the_state_by_top_level_key() -> None:
    state = after(begun("a"), StateEdited(at=NOW, changes=Raw(b'{"x":1,"y":2}')))
    assert data(after(state, StateEdited(at=NOW, changes=Raw(b'{"x":3}'), removed=("y",)))) == {"x": 3}


# --- undo ---------------------------------------------------------------------------------------------------------


def completed(*steps: PlanStep | str) -> State:
    state = begun(*(steps or ("a", "b")))
    state = after(state, *done(*state.steps))
    return after(state, only(state).begin(NOW))  # type: ignore[union-attr]


def test_S32_a_completed_execution_is_undone_in_reverse_and_its_answer_stays() -> None:
    state = after(completed(), UNDO)
    assert (state.status, only(state)) == (SagaStatus.COMPENSATING, TurnBack("undo"))
    state = after(state, back("undo"))
    assert undo_order(state) == ["b", "a"]
    state = after(state, *undone("b"), *undone("a"))
    assert only(state) == Finish(SagaStatus.COMPENSATED, DONE)
    ended = after(state, Finish(SagaStatus.COMPENSATED, Response("fail", "new")).begin(NOW))
    assert (ended.status, answer(ended, NOW)) == (SagaStatus.COMPENSATED, DONE)


def test_S32_an_undo_passes_over_steps_that_define_none() -> None:
    state = after(completed("a", PlanStep("b", needs=("a",), has_undo=False)), UNDO, back("undo"))
    assert undo_order(state) == ["a"]


def test_S32_an_undo_that_waits_is_still_one() -> None:
    state = after(completed(), UNDO, released("budget", NOW))
    assert state.status is SagaStatus.COMPENSATING
    state = after(state, DELIVERED, back("undo"), undoing("b"))
    state = after(state, CompensationSuspended(at=NOW, step="b", response=LATER, due_at=NOW + 60))
    assert only(state) == Wait(NOW + 60, "compensation", LATER, "b")


@pytest.mark.parametrize("state", [begun("a"), after(begun("a", mode="select"), *done("a"))], ids=["running", "select"])
def test_S32_only_a_completed_chain_is_undone(state: State) -> None:
    assert changes_nothing(state, UNDO)


def test_S23_an_execution_that_is_being_undone_cannot_be_cancelled() -> None:
    state = after(completed(), UNDO)
    assert changes_nothing(state, CancelRequested(at=NOW, reason="r"))


# --- exclusive rights ---------------------------------------------------------------------------------------------

DENIED = ExclusiveDenied(at=NOW, by="S:0")


def exclusive(when_held: Any = "wait", **policy: Any) -> State:
    return begun_with(Plan((PlanStep("a"),), exclusive=ExclusiveRight("asset", when_held)), **policy)


def test_an_execution_that_lacks_its_right_waits_and_looks_again_by_and_by() -> None:
    state = after(exclusive(), DENIED)
    assert only(state) == Wait(NOW + 300, "exclusive", Response("reschedule", countdown_s=30.0))
    assert only(after(state, released("exclusive", NOW + 300), DELIVERED)) == Ask("a")


def test_an_execution_that_lacks_its_right_waits_no_longer_than_its_deadline() -> None:
    state = after(exclusive(deadline_at=NOW + 50), DENIED)
    assert only(state) == Wait(NOW + 50, "exclusive", Response("reschedule", countdown_s=30.0))
    assert only(after(state, elapsed(NOW + 50))) == TurnBack("deadline")


def test_an_execution_that_was_cancelled_before_it_got_its_right_ends_without_it() -> None:
    state = after(exclusive(), DENIED, CancelRequested(at=NOW, reason="r"))
    assert only(state) == TurnBack("cancelled")


def test_an_execution_that_is_to_be_refused_ends_at_once() -> None:
    refused = only(after(exclusive("refuse"), DENIED))
    text = "S:0 is under way for 'asset': try again when it has ended"
    assert refused == Finish(SagaStatus.COMPENSATED, Response("fail", text))


def test_an_execution_that_had_started_waits_to_go_on_even_if_it_would_have_been_refused() -> None:
    state = after(exclusive("refuse", deadline_at=NOW + 50), *done("a"), DENIED)
    assert only(state) == Wait(NOW + 300, "exclusive", Response("reschedule", countdown_s=30.0))


# --- late effects -------------------------------------------------------------------------------------------------


def compensated() -> State:
    """`a` completed and `b` was given up; both are undone, and it ended."""
    state = after(begun("a", "b"), *done("a"), ran("b"), failed("b"), back(step="b"), *undone("b"), *undone("a"))
    return after(state, only(state).begin(NOW))  # type: ignore[union-attr]


def test_J10_an_effect_that_comes_after_the_end_is_undone_once_more_and_the_answer_stays() -> None:
    state = after(compensated(), late("b"))
    assert only(state) == Compensate("b", 2, of_completed=False)
    assert state.status is SagaStatus.COMPENSATING
    assert (state.steps["b"].undone, state.steps["b"].effect_undone) == (1, 0)
    state = after(state, undoing("b", 2), undone("b")[1])
    assert only(state) == Finish(SagaStatus.COMPENSATED, Response("fail", BROKEN.message))
    assert answer(state, NOW) == Response("fail", BROKEN.message)


def test_J10_an_effect_that_comes_late_is_probed_if_there_is_a_probe() -> None:
    state = after(begun(PlanStep("a", probed=True)), ran("a"), failed("a"), *probed("a", Probe.UNKNOWN))
    state = after(state, back(step="a"), *undone("a"))
    state = after(state, only(state).begin(NOW), late("a"))  # type: ignore[union-attr]
    assert only(state) == Probing("a")
    assert isinstance(only(after(state, *probed("a", Probe.NOT_DONE))), Finish)


def test_J10_an_effect_that_comes_while_the_step_is_undone_is_undone_once_more() -> None:
    state = after(begun("a"), ran("a"), failed("a"), back(step="a"), undoing("a"), late("a"))
    assert decide(state) == ()
    assert only(after(state, undone("a")[1])) == Compensate("a", 2, of_completed=False)
    declined = after(state, CompensationDeclined(at=NOW, step="a", error=BROKEN))
    assert only(declined) == Compensate("a", 2, of_completed=False)


def test_J10_an_effect_that_comes_while_the_undo_is_parked_is_undone_once_more() -> None:
    state = after(parked_undo(), late("a"), resumed("a"), *undone("a"))
    assert isinstance(only(state), Compensate)


def test_J10_an_effect_under_the_key_of_a_completed_step_is_the_same_effect() -> None:
    assert changes_nothing(after(begun("a", "b"), *done("a")), late("a"))


def test_J10_a_late_effect_of_a_step_that_a_person_skipped_is_undone_if_the_saga_turns_back() -> None:
    state = after(begun("a", "b"), ran("a"), failed("a", retry_at=NOW, effect="none"), skipped("a"))
    assert state.steps["a"].phase is Phase.SKIPPED
    state = after(state, late("a"), ran("b"), failed("b", effect="none"), back(step="b"))
    assert undo_order(state) == ["a"]


def test_J10_a_late_effect_of_a_read_only_or_unknown_step_is_none() -> None:
    state = after(begun(PlanStep("a", Kind.READ_ONLY)), ran("a"), failed("a", retry_at=NOW))
    assert changes_nothing(state, late("a"))
    assert changes_nothing(state, late("nobody"))


def test_J10_an_effect_of_an_attempt_that_is_repeated_is_one_that_may_be_there() -> None:
    state = after(begun("a"), ran("a"), failed("a", retry_at=NOW, effect="none"), late("a"))
    assert state.steps["a"].may_have_effect
    assert only(state) == Execute("a", 2)


def test_J10_an_undo_of_a_late_effect_that_asks_for_time_does_not_run_the_step_again() -> None:
    state = after(compensated(), late("b"), undoing("b", 2))
    state = after(state, CompensationSuspended(at=NOW, step="b", response=LATER, due_at=NOW + 60))
    assert only(state) == Wait(NOW + 60, "compensation", LATER, "b")


# --- preview ------------------------------------------------------------------------------------------------------


def test_a_preview_tells_what_would_be_undone_in_which_order() -> None:
    steps = (PlanStep("a"), PlanStep("b", needs=("a",), has_undo=False), PlanStep("c", needs=("b",)))
    state = after(begun(*steps), *done("a", "b"), ran("c"))
    expected = (Undo("c", "compensate"), Undo("b", "park"), Undo("a", "compensate"))
    assert preview(state) == expected
    assert preview(after(state, back(step="c"))) == expected[1:], "what is in flight stays as it is once it turned back"


@pytest.mark.parametrize(
    ("history", "order"),
    [
        ((ran("a"), failed("a", retry_at=NOW + 5)), ["a"]),
        ((ran("a"), TAKEN_OVER), ["a"]),
        ((ran("a"), suspended("a")), ["a"]),
        ((ran("a"), failed("a"), parked_at("a")), ["a"]),
        ((ran("a"), failed("a", is_refusal=True)), []),
    ],
    ids=["retrying", "interrupted", "suspended", "parked", "refused"],
)
def test_a_preview_counts_what_is_under_way_as_failed(history: tuple[Entry, ...], order: list[str]) -> None:
    assert [undo.step for undo in preview(after(begun("a", "b"), *history))] == order


def test_a_preview_of_a_completed_execution_is_that_of_its_undo() -> None:
    expected = (Undo("b", "compensate"), Undo("a", "compensate"))
    assert preview(completed()) == expected
    assert preview(after(completed(), UNDO)) == expected
    assert preview(compensated()) == ()


def test_a_step_of_a_branch_that_has_not_begun_sees_what_is_around_it() -> None:
    scopes = (PlanScope("1", "", 0), PlanScope("1/1", "1", 1))
    plan = Plan((PlanStep("a", scope="1"), PlanStep("b", needs=("a",), scope="1/1")), scopes=scopes)
    state = after(begun_with(plan), ran("a"), StateEdited(at=NOW, changes=Raw(b'{"x":1}')))
    assert json.loads(bytes(documents_at(state, "1/1")[1])) == {"x": 1}


def test_S20_what_must_succeed_in_the_end_keeps_trying() -> None:
    steps = (PlanStep("a"), PlanStep("r", Kind.RETRIABLE), PlanStep("p", Kind.PIVOT), PlanStep("z", Kind.READ_ONLY))
    shape = begun_with(Plan(steps)).shape
    assert [step.name for step in steps if shape.keeps_trying(step.name)] == ["r", "z"]


def test_a_limit_that_a_parked_step_of_a_continued_compensation_reached_parks_the_next_one() -> None:
    state = after(begun("a", "b", entries_max=12, park_policy="continue"), *done("a", "b"))
    state = after(state, CancelRequested(at=NOW, reason="r"), back("cancelled"), undoing("b"), parked_at("b"))
    assert isinstance(only(state), (Compensate, Park))
