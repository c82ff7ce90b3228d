"""The decider's rules by example: what each history means, what comes next, and what is told about it."""

from __future__ import annotations

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
    done,
    elapsed,
    failed,
    only,
    probed,
    ran,
    released,
    resolved,
    start_entry,
    suspended,
    undoing,
    undone,
)
from msgspec import Raw
from msgspec.structs import replace

from saga_engine.decider import (
    Ask,
    Compensate,
    Execute,
    Finish,
    Park,
    Phase,
    Refuse,
    State,
    TurnBack,
    Wait,
    answer,
    decide,
    full_id,
    is_early,
    replay,
)
from saga_engine.decider import Probe as Probing
from saga_engine.errors import CorruptJournal
from saga_engine.journal import (
    ABSENT,
    CancelRequested,
    CompensationDeclined,
    CompensationFailed,
    CompensationSuspended,
    DriveInterrupted,
    DriveResumed,
    Entry,
    ErrorRecord,
    Plan,
    PlanStep,
    Policy,
    ProbeStarted,
    RequestDelivered,
    Response,
    SagaEnded,
    SagaParked,
    SagaStatus,
    SignalReceived,
    SkipAnswered,
    StateSaved,
    StepCompleted,
    StepFailed,
    StepNotSelected,
    StepParked,
    StepSkipped,
)
from transactions import Kind, Probe

# --- forward ------------------------------------------------------------------------------------------------------


def test_each_step_of_a_chain_is_asked_and_run_in_order_until_the_execution_completes() -> None:
    state = begun("a", "b")
    assert only(state) == Ask("a")
    assert only(after(state, *done("a"))) == Ask("b")
    assert only(after(state, *done("a", "b"))) == Finish(SagaStatus.COMPLETED)


def test_nothing_is_decided_while_the_only_step_that_can_go_on_is_in_flight() -> None:
    assert decide(after(begun("a", "b"), ran("a"))) == ()


def test_nothing_is_decided_while_a_probe_is_in_flight() -> None:
    state = begun(PlanStep("a", probed=True))
    assert decide(after(state, ran("a"), TAKEN_OVER, ProbeStarted(at=NOW, step="a"))) == ()


def test_steps_that_need_nothing_of_each_other_are_started_side_by_side() -> None:
    both = begun(PlanStep("a"), PlanStep("b"), PlanStep("c", needs=("a", "b")))
    assert decide(both) == (Ask("a"), Ask("b"))
    assert decide(after(both, ran("a"))) == (Ask("b"),)
    assert only(after(both, *done("a", "b"))) == Ask("c")


def test_beside_a_step_in_flight_nothing_is_started_when_another_has_failed_or_answered_skip() -> None:
    branches = begun(PlanStep("a"), PlanStep("b", probed=True), PlanStep("c"))
    skip = SkipAnswered(at=NOW, step="b", response=Response("skip"))
    assert decide(after(branches, ran("a"), ran("b"), failed("b", effect="none"))) == ()
    assert decide(after(branches, ran("a"), ran("b"), failed("b"))) == ()
    assert decide(after(branches, ran("a"), ran("b"), skip)) == ()


def test_nothing_is_started_beside_an_undo_in_flight() -> None:
    branches = begun(PlanStep("a"), PlanStep("b"))
    state = after(branches, *done("a"), ran("b"), failed("b"), back(step="b"), undoing("b"))
    assert decide(state) == ()


def test_a_branch_that_waits_holds_up_no_other_branch() -> None:
    branches = begun(PlanStep("a"), PlanStep("b"))
    state = after(branches, ran("a"), suspended("a", due_at=NOW + 60))
    assert decide(state) == (Ask("b"),)
    assert decide(after(state, ran("b"))) == ()


def test_several_waits_are_joined_into_the_earliest_one() -> None:
    branches = begun(PlanStep("a"), PlanStep("b"), PlanStep("c"))
    state = after(
        branches, ran("a"), suspended("a"), ran("b"), suspended("b", due_at=NOW + 60), ran("c"), failed("c", NOW + 90)
    )
    assert only(state) == Wait(NOW + 60, "step", LATER, "b")


def test_S03_a_step_that_is_not_wanted_is_skipped_and_what_needs_it_goes_on() -> None:
    assert only(after(begun("a", "b"), StepSkipped(at=NOW, step="a"))) == Ask("b")


def test_S06_a_rescheduled_step_waits_until_it_is_due_and_is_then_asked_again() -> None:
    state = after(begun("a"), ran("a"), suspended("a", due_at=NOW + 60))
    assert only(state) == Wait(NOW + 60, "step", LATER, "a")
    assert only(after(state, elapsed(NOW + 60))) == Ask("a")


def test_S06_a_delivery_ends_the_wait_that_a_step_asked_for() -> None:
    state = after(begun("a"), ran("a"), suspended("a", due_at=NOW + 60), released(due_at=NOW + 60))
    assert state.status is SagaStatus.SUSPENDED
    woken = after(state, DELIVERED)
    assert (woken.status, only(woken)) == (SagaStatus.RUNNING, Ask("a"))


def test_a_resumption_ends_only_the_waits_that_are_due() -> None:
    state = after(begun("a"), ran("a"), suspended("a", due_at=NOW + 60), released(due_at=NOW + 60))
    early = after(state, DriveResumed(at=NOW + 59, drive="e"))
    assert only(early) == Wait(NOW + 60, "step", LATER, "a")
    assert only(after(state, DriveResumed(at=NOW + 60, drive="e"))) == Ask("a")


def test_S07_a_skip_ends_the_execution_skipped_if_nothing_has_had_an_effect() -> None:
    skip = SkipAnswered(at=NOW, step="a", response=Response("skip", "no need"))
    state = after(begun("a", "b"), ran("a"), skip)
    assert only(state) == Finish(SagaStatus.SKIPPED, Response("skip", "no need"))
    ended = after(state, only(state).begin(NOW))
    assert [s.phase for s in ended.steps.values()] == [Phase.SKIPPED, Phase.SKIPPED]
    assert decide(ended) == ()


def test_S07_a_skip_after_an_effect_completes_the_execution() -> None:
    skip = SkipAnswered(at=NOW, step="b", response=Response("skip"))
    assert only(after(begun("a", "b", "c"), *done("a"), ran("b"), skip)) == Finish(
        SagaStatus.COMPLETED, Response("skip")
    )


def test_S07_a_step_with_an_effect_that_answers_skip_is_completed() -> None:
    skip = SkipAnswered(at=NOW, step="a", response=Response("skip"))
    state = after(begun("a"), ran("a"), suspended("a"), DELIVERED, ran("a", 2), skip)
    assert state.steps["a"].phase is Phase.COMPLETED


def test_S04_a_step_completed_without_effect_is_never_compensated() -> None:
    state = after(begun("a", "b"), *done("a", has_effect=False), ran("b"), failed("b", effect="none"), back(step="b"))
    assert isinstance(only(state), Finish)


def test_a_read_only_step_never_has_an_effect() -> None:
    state = after(begun(PlanStep("a", Kind.READ_ONLY)), ran("a"), TAKEN_OVER, ran("a", 2), failed("a"))
    assert not state.steps["a"].may_have_effect


# --- failures, retries, probes ------------------------------------------------------------------------------------


def test_S09_a_failed_attempt_waits_and_is_then_repeated() -> None:
    state = after(begun("a"), ran("a"), failed("a", retry_at=NOW + 5))
    assert only(state) == Wait(NOW + 5, "retry", step="a")
    assert only(after(state, elapsed(NOW + 5))) == Execute("a", 2)


def test_S03_a_step_whose_predicate_raised_is_asked_again() -> None:
    state = after(begun("a"), failed("a", retry_at=NOW, effect="none", is_unasked=True))
    assert only(state) == Ask("a")
    assert state.steps["a"].attempts == 1


def test_S03_a_step_whose_predicate_raised_after_a_wait_is_asked_again_as_one_that_ran() -> None:
    state = after(begun("a"), ran("a"), suspended("a"), DELIVERED)
    assert only(after(state, failed("a", retry_at=NOW, effect="none", is_unasked=True))) == Ask("a")


def test_S09_a_step_with_a_probe_is_probed_before_each_retry_and_at_give_up() -> None:
    state = begun(PlanStep("a", probed=True))
    assert only(after(state, ran("a"), failed("a", retry_at=NOW))) == Probing("a")
    assert only(after(state, ran("a"), failed("a"))) == Probing("a")


def test_S09_a_failure_without_effect_is_not_probed() -> None:
    state = begun(PlanStep("a", probed=True))
    assert only(after(state, ran("a"), failed("a", retry_at=NOW, effect="none"))) == Execute("a", 2)


def test_S09_a_probe_that_finds_the_effect_completes_the_step() -> None:
    state = after(begun(PlanStep("a", probed=True), "b"), ran("a"), failed("a"), *probed("a", Probe.DONE))
    assert state.steps["a"].phase is Phase.COMPLETED
    state = after(state, ran("b"), failed("b", is_refusal=True), back(step="b"))
    assert only(state) == Compensate("a", 1, of_completed=True)


def test_S09_a_probe_that_finds_nothing_lets_a_retry_follow_and_leaves_nothing_to_undo() -> None:
    state = begun(PlanStep("a", probed=True))
    retried = after(state, ran("a"), failed("a", retry_at=NOW), *probed("a", Probe.NOT_DONE))
    assert only(retried) == Execute("a", 2)
    given_up = after(state, ran("a"), failed("a"), *probed("a", Probe.NOT_DONE))
    assert only(given_up) == TurnBack("failed", "a")
    assert isinstance(only(after(given_up, back(step="a"))), Finish)


def test_S09_a_step_given_up_with_an_unknown_outcome_is_undone_before_the_earlier_ones() -> None:
    state = after(begun("a", "b"), *done("a"), ran("b"), failed("b"))
    assert only(state) == TurnBack("failed", "b")
    state = after(state, back(step="b"))
    assert only(state) == Compensate("b", 1, of_completed=False)
    state = after(state, *undone("b"))
    assert only(state) == Compensate("a", 1, of_completed=True)
    state = after(state, *undone("a"))
    assert only(state) == Finish(SagaStatus.COMPENSATED, Response("fail", BROKEN.message))


def test_S08_a_step_that_answered_fail_is_not_undone() -> None:
    state = after(begun("a", "b"), *done("a"), ran("b"), failed("b", is_refusal=True), back(step="b"))
    assert only(state) == Compensate("a", 1, of_completed=True)


def test_S09_branches_are_undone_the_failing_first_then_by_latest_first_start() -> None:
    branches = begun(PlanStep("a"), PlanStep("b"), PlanStep("c"))
    state = after(branches, ran("b"), ran("a"), ran("c"), failed("a"))
    done_rest = (StepCompleted(at=NOW, step="b"), StepCompleted(at=NOW, step="c"), back(step="a"))
    state = after(state, *done_rest)
    order = []
    while isinstance(action := only(state), Compensate):
        order.append(action.step)
        state = after(state, *undone(action.step))
    assert order == ["a", "c", "b"]


def test_J08_a_step_that_failed_too_often_parks() -> None:
    state = after(begun("a", attempts_max=1), ran("a"), failed("a", retry_at=NOW))
    assert only(state) == Park("a", "attempts_max (1) reached", "every attempt fails: find out why; then saga resume")


def test_S16_an_attempt_that_a_crash_interrupted_counts_as_a_failed_one() -> None:
    assert isinstance(only(after(begun("a", attempts_max=1), ran("a"), TAKEN_OVER)), Park)


def test_J08_a_step_that_broke_a_limit_parks_instead_of_being_undone() -> None:
    state = after(begun("a"), ran("a"), failed("a", limit="payload_bytes_max"))
    assert only(state) == Park(
        "a", "payload_bytes_max reached", "what the step did cannot be journaled; then saga resolve"
    )


def test_J08_reschedules_beyond_the_limit_park_the_first_unfinished_step() -> None:
    state = after(begun("a", "b", reschedules_max=1), *done("a"), ran("b"), suspended("b"), DELIVERED)
    assert only(state) == Ask("b")
    state = after(state, ran("b", 2), suspended("b"))
    assert only(state) == Park("b", "reschedules_max (1) reached", "it waits for what never comes; then saga resume")


def test_J08_a_limit_reached_while_compensating_parks_the_step_whose_undo_is_next() -> None:
    state = after(begun("a", "b", entries_max=6), *done("a"), ran("b"), failed("b", effect="none"), back(step="b"))
    assert only(state) == Compensate("a", 1, of_completed=True)
    state = after(state, StateSaved(at=NOW, step="a"))
    assert isinstance(action := only(state), Park)
    assert (action.step, action.cause) == ("a", "entries_max (6) reached")


def test_J08_a_limit_that_the_last_step_reached_stops_nothing_any_more() -> None:
    assert only(after(begun("a", "b", entries_max=4), *done("a", "b"))) == Finish(SagaStatus.COMPLETED)
    state = after(begun("a", entries_max=4), *done("a", has_effect=False), CancelRequested(at=NOW, reason="r"))
    assert isinstance(only(after(state, back("cancelled"))), Finish)


def test_J08_a_parked_execution_is_not_parked_again_for_a_limit() -> None:
    state = after(begun("a", entries_max=2), ran("a"), StepParked(at=NOW, step="a", cause="c", next_action="n"))
    assert only(state) == Finish(SagaStatus.PARKED, step="a", cause="c")


def test_J08_in_select_a_limit_parks_the_transaction_that_ran_not_one_that_was_passed_over() -> None:
    state = begun("a", "b", mode="select", recoveries_max=1)
    state = after(state, StepNotSelected(at=NOW, step="a"), ran("b"), TAKEN_OVER, ran("b", 2), TAKEN_OVER)
    assert isinstance(action := only(state), Park)
    assert action.step == "b"
    assert only(after(state, action.begin(NOW))) == Finish(SagaStatus.PARKED, step="b", cause=action.cause)


# --- crashes ------------------------------------------------------------------------------------------------------


def test_S16_an_interrupted_step_runs_again() -> None:
    assert only(after(begun("a"), ran("a"), TAKEN_OVER)) == Execute("a", 2)


def test_S16_an_interrupted_step_with_a_probe_is_probed_first() -> None:
    state = after(begun(PlanStep("a", probed=True)), ran("a"), TAKEN_OVER)
    assert only(state) == Probing("a")
    assert only(after(state, *probed("a", Probe.UNKNOWN))) == Execute("a", 2)
    assert only(after(state, *probed("a", Probe.NOT_DONE))) == Execute("a", 2)


def test_S16_an_interrupted_probe_is_asked_again() -> None:
    state = after(begun(PlanStep("a", probed=True)), ran("a"), TAKEN_OVER, ProbeStarted(at=NOW, step="a"))
    assert only(after(state, TAKEN_OVER)) == Probing("a")


def test_S16_an_interrupted_step_parks_or_is_compensated_if_it_says_so() -> None:
    parks = after(begun(PlanStep("a", on_unknown="park")), ran("a"), TAKEN_OVER)
    assert isinstance(only(parks), Park)
    turns = after(begun(PlanStep("a", on_unknown="compensate")), ran("a"), TAKEN_OVER)
    assert only(turns) == TurnBack("interrupted", "a")
    turns = after(turns, back("interrupted", "a"))
    assert only(turns) == Compensate("a", 1, of_completed=False)
    finish = only(after(turns, *undone("a")))
    assert finish == Finish(SagaStatus.COMPENSATED, Response("fail", "a: interrupted, and its outcome is unknown"))


@pytest.mark.parametrize("on_unknown", ["park", "compensate"])
def test_S16_a_step_that_was_found_not_done_runs_again_whatever_it_says_of_the_unknown(on_unknown: Any) -> None:
    state = begun(PlanStep("a", probed=True, on_unknown=on_unknown))
    assert only(after(state, ran("a"), TAKEN_OVER, *probed("a", Probe.NOT_DONE))) == Execute("a", 2)


def test_S16_takeovers_without_progress_park_and_progress_forgives_them() -> None:
    state = after(begun("a", "b", recoveries_max=1), ran("a"), TAKEN_OVER, ran("a", 2))
    assert isinstance(only(after(state, TAKEN_OVER)), Park)
    progress = after(state, StepCompleted(at=NOW, step="a"), TAKEN_OVER)
    assert only(progress) == Ask("b")


def test_S16_an_interrupted_undo_goes_on() -> None:
    state = after(begun("a"), ran("a"), failed("a"), back(step="a"), undoing("a"), TAKEN_OVER)
    assert only(state) == Compensate("a", 2, of_completed=False)


def test_S30_an_interrupted_drive_leaves_its_step_as_a_crash_would() -> None:
    assert only(after(begun("a"), ran("a"), DriveInterrupted(at=NOW, cause="CancelledError"))) == Execute("a", 2)


def test_S16_a_probe_that_finds_nothing_while_compensating_ends_the_step() -> None:
    state = after(
        begun("a", PlanStep("b", needs=("a",), probed=True)), *done("a"), ran("b"), TAKEN_OVER,
        CancelRequested(at=NOW, reason="r"), back("cancelled"),
    )  # fmt: skip
    assert only(state) == Probing("b")
    state = after(state, *probed("b", Probe.NOT_DONE))
    assert state.steps["b"].phase is Phase.FAILED
    assert only(state) == Compensate("a", 1, of_completed=True)


# --- compensation -------------------------------------------------------------------------------------------------


def compensating(**policy: Any) -> State:
    """`a` completed, `b` refused: the undo of `a` is under way."""
    state = after(begun("a", "b", **policy), *done("a"), ran("b"), failed("b", is_refusal=True), back(step="b"))
    return after(state, undoing("a"))


def test_S12_a_failed_undo_waits_and_is_repeated() -> None:
    failure = CompensationFailed(at=NOW, step="a", error=BROKEN, retry_at=NOW + 5)
    state = after(compensating(), failure)
    assert only(state) == Wait(NOW + 5, "retry", step="a")
    assert only(after(state, elapsed(NOW + 5))) == Compensate("a", 2, of_completed=True)


def test_S12_an_undo_given_up_parks_with_its_cause_and_stops() -> None:
    state = after(compensating(), CompensationFailed(at=NOW, step="a", error=BROKEN))
    park = only(state)
    assert park == Park("a", "compensate failed: the vendor is down", "undo it by hand; then saga resolve")
    state = after(state, park.begin(NOW))
    finish = only(state)
    assert finish == Finish(SagaStatus.PARKED, step="a", cause="compensate failed: the vendor is down")
    parked = after(state, finish.begin(NOW))
    assert parked.status is SagaStatus.PARKED
    assert decide(parked) == ()


def test_J08_an_undo_that_failed_too_often_parks_even_if_its_policy_goes_on() -> None:
    state = after(compensating(attempts_max=1), CompensationFailed(at=NOW, step="a", error=BROKEN, retry_at=NOW))
    assert isinstance(only(state), Park)


def test_S12_with_park_policy_stop_the_earlier_steps_are_left_as_they_are() -> None:
    state = after(begun("a", "b"), *done("a", "b"), CancelRequested(at=NOW, reason="r"), back("cancelled"))
    state = after(state, undoing("b"), StepParked(at=NOW, step="b", cause="c", next_action="n"))
    assert only(state) == Finish(SagaStatus.PARKED, step="b", cause="c")


def test_S12_with_park_policy_continue_the_earlier_steps_are_undone_and_then_it_parks() -> None:
    state = after(
        begun("a", "b", "c", park_policy="continue"), *done("a", "b"), ran("c"), failed("c", is_refusal=True),
        back(step="c"), undoing("b"), CompensationFailed(at=NOW, step="b", error=BROKEN),
        StepParked(at=NOW, step="b", cause="c", next_action="n"),
    )  # fmt: skip
    assert only(state) == Compensate("a", 1, of_completed=True)
    assert only(after(state, *undone("a"))) == Finish(SagaStatus.PARKED, step="b", cause="c")


def test_S11_a_failing_step_that_declines_its_undo_lets_the_earlier_ones_go_on() -> None:
    state = after(begun("a", "b"), *done("a"), ran("b"), failed("b"), back(step="b"), undoing("b"))
    state = after(state, CompensationDeclined(at=NOW, step="b", error=BROKEN))
    assert only(state) == Compensate("a", 1, of_completed=True)


def test_S11_a_completed_step_that_declines_its_undo_parks_for_want_of_one() -> None:
    state = after(compensating(), CompensationDeclined(at=NOW, step="a", error=BROKEN))
    assert isinstance(park := only(state), Park)
    assert park.cause == "no undo"


def rescheduled(step: str, due_at: float) -> Entry:
    return CompensationSuspended(at=NOW, step=step, response=LATER, due_at=due_at)


def test_S13_the_undo_of_a_completed_step_that_asks_for_time_goes_on_when_due_or_delivered() -> None:
    state = after(compensating(), rescheduled("a", NOW + 60))
    assert only(state) == Wait(NOW + 60, "compensation", LATER, "a")
    assert only(after(state, elapsed(NOW + 60))) == Compensate("a", 2, of_completed=True)
    asleep = after(state, released("compensation", NOW + 60))
    assert asleep.status is SagaStatus.COMPENSATING
    assert only(after(asleep, DELIVERED)) == Compensate("a", 2, of_completed=True)


def test_S13_an_undo_that_does_not_come_to_an_end_parks_at_the_compensation_deadline() -> None:
    state = after(compensating(compensation_deadline_s=30.0), rescheduled("a", NOW + 60))
    assert only(state) == Wait(NOW + 30, "compensation", LATER, "a")
    assert isinstance(park := only(after(state, elapsed(NOW + 30))), Park)
    assert park.cause == "compensation_deadline_s passed"


def not_lost_yet(*before: Entry, **policy: Any) -> State:
    """The failing `a` whose undo asks for time."""
    state = after(begun("a", **policy), ran("a"), failed("a"), back(step="a"), undoing("a"), *before)
    return after(state, rescheduled("a", NOW + 60))


def test_S10_a_failing_step_whose_undo_asks_for_time_runs_again_later() -> None:
    state = not_lost_yet()
    assert state.turned_back is None
    assert only(state) == Wait(NOW + 60, "step", LATER, "a")
    assert only(after(state, elapsed(NOW + 60))) == Ask("a")


def test_S10_after_a_cancel_or_the_deadline_the_same_answer_only_puts_the_undo_off() -> None:
    cancelled = not_lost_yet(CancelRequested(at=NOW, reason="r"))
    assert cancelled.steps["a"].phase is Phase.UNDO_SUSPENDED
    too_late = not_lost_yet(elapsed(NOW + 10), deadline_at=NOW + 10)
    assert too_late.steps["a"].phase is Phase.UNDO_SUSPENDED


def test_S10_of_two_failing_branches_neither_may_run_again() -> None:
    branches = begun(PlanStep("a"), PlanStep("b"))
    state = after(branches, ran("a"), ran("b"), failed("a"), failed("b"), back(step="a"), undoing("b"))
    assert after(state, rescheduled("b", NOW + 60)).steps["b"].phase is Phase.UNDO_SUSPENDED


@pytest.mark.parametrize("status", ["fail", "skip"])
def test_S14_what_the_failing_steps_undo_answers_is_the_answer(status: Any) -> None:
    said = Response(status, "said by compensate")
    state = after(begun("a"), ran("a"), failed("a"), back(step="a"), *undone("a", said))
    assert only(state) == Finish(SagaStatus.COMPENSATED, said)


def test_S14_an_error_without_a_message_is_told_by_its_type() -> None:
    silent = StepFailed(at=NOW, step="a", error=ErrorRecord("vendor.Down", ""), effect="none")
    state = after(begun("a"), ran("a"), silent, back(step="a"))
    assert only(state) == Finish(SagaStatus.COMPENSATED, Response("fail", "vendor.Down"))


# --- cancel, deadline, signals ------------------------------------------------------------------------------------


def test_S23_a_cancel_turns_back_undoes_what_started_and_ends_cancelled() -> None:
    state = after(begun("a", "b"), *done("a"), CancelRequested(at=NOW, reason="too dear"))
    assert only(state) == TurnBack("cancelled")
    state = after(state, back("cancelled"), *undone("a"))
    assert only(state) == Finish(SagaStatus.CANCELLED, Response("fail", "cancelled: too dear"))


def test_S23_a_suspended_step_is_undone_when_cancelled() -> None:
    state = after(begun("a"), ran("a"), suspended("a"), CancelRequested(at=NOW, reason="r"), back("cancelled"))
    assert only(state) == Compensate("a", 1, of_completed=False)


def test_S23_a_cancel_of_an_ended_execution_changes_nothing() -> None:
    ended = after(begun("a"), SagaEnded(at=NOW, status=SagaStatus.COMPLETED, response=DONE))
    cancelled = after(ended, CancelRequested(at=NOW, reason="r"))
    assert cancelled == replace(ended, entries=ended.entries + 1)


def test_S24_the_deadline_ends_a_wait_and_turns_back() -> None:
    state = after(begun("a", deadline_at=NOW + 10), ran("a"), suspended("a"))
    assert only(state) == Wait(NOW + 10, "step", LATER, "a")
    state = after(state, elapsed(NOW + 10))
    assert only(state) == TurnBack("deadline")
    state = after(state, back("deadline", at=NOW + 10), *undone("a"))
    assert only(state) == Finish(SagaStatus.COMPENSATED, Response("fail", "the saga's deadline passed"))


def test_S24_an_execution_whose_steps_are_all_over_has_met_its_deadline() -> None:
    state = after(begun("a", deadline_at=NOW + 10), *done("a"), elapsed(NOW + 11))
    assert only(state) == Finish(SagaStatus.COMPLETED)


def test_S19_a_signal_wakes_the_step_that_waits_for_it_and_lands_in_the_state() -> None:
    state = after(begun("a"), ran("a"), suspended("a", signal="go", state=Raw(b'{"x":1}')))
    assert only(state) == Wait(None, "step", LATER, "a")
    other = after(state, SignalReceived(at=NOW, name="stop", payload=Raw(b"1")))
    assert isinstance(only(other), Wait)
    woken = after(other, SignalReceived(at=NOW, name="go", payload=Raw(b"2")))
    assert only(woken) == Ask("a")
    assert bytes(woken.data) == b'{"x":1,"go":2}'
    assert [s.name for s in woken.signals] == ["stop"]


def test_S31_a_signal_that_came_early_is_kept_until_it_is_waited_for() -> None:
    state = after(begun("a"), SignalReceived(at=NOW, name="go", payload=Raw(b"2")), ran("a"))
    assert only(after(state, suspended("a", signal="go"))) == Ask("a")


# --- parked -------------------------------------------------------------------------------------------------------


def parked() -> State:
    """`a` was interrupted and parked."""
    state = after(begun(PlanStep("a", on_unknown="park"), "b"), ran("a"), TAKEN_OVER)
    for _ in range(2):
        action = only(state)
        assert isinstance(action, (Park, Finish))
        state = after(state, action.begin(NOW))
    return state


def test_a_step_that_turned_out_done_completes_and_the_execution_goes_on() -> None:
    state = after(parked(), resolved("a", "done"))
    assert (state.status, only(state)) == (SagaStatus.RUNNING, Ask("b"))


def test_a_step_that_turned_out_not_done_runs_again() -> None:
    assert only(after(parked(), resolved("a", "not_done"))) == Execute("a", 2)


def test_a_step_undone_by_hand_turns_the_execution_back() -> None:
    state = after(parked(), resolved("a", "undone"))
    assert only(state) == TurnBack("failed", "a")
    state = after(state, back(step="a"))
    assert only(state) == Finish(SagaStatus.COMPENSATED, Response("fail", "a: interrupted, and its outcome is unknown"))


def test_a_resolution_while_compensating_goes_on_compensating() -> None:
    state = after(compensating(), CompensationFailed(at=NOW, step="a", error=BROKEN))
    state = after(state, StepParked(at=NOW, step="a", cause="c", next_action="n"))
    state = after(state, SagaParked(at=NOW, step="a", cause="c"), resolved("a", "undone"))
    assert state.status is SagaStatus.COMPENSATING
    assert isinstance(only(state), Finish)


@pytest.mark.parametrize("step", ["b", "nobody"])
def test_a_resolution_of_a_step_that_is_not_parked_changes_nothing(step: str) -> None:
    state = parked()
    assert after(state, resolved(step, "done")) == replace(state, entries=state.entries + 1)


def test_a_branch_that_parks_waits_for_the_others_and_is_decided_first() -> None:
    branches = begun(PlanStep("a", on_unknown="park"), PlanStep("b"))
    state = after(branches, ran("a"), TAKEN_OVER)
    park = only(state)
    assert isinstance(park, Park)
    assert isinstance(only(after(state, park.begin(NOW))), Finish)


# --- mode select --------------------------------------------------------------------------------------------------


def selecting(*entries: Entry) -> State:
    """Two alternatives, of which the second was chosen."""
    return after(begun("a", "b", mode="select"), StepNotSelected(at=NOW, step="a"), *entries)


def test_S26_the_first_transaction_that_applies_is_the_only_one_to_run() -> None:
    state = begun("a", "b", mode="select")
    assert only(state) == Ask("a")
    assert only(selecting()) == Ask("b")
    assert decide(selecting(ran("b"))) == ()
    assert only(selecting(*done("b"))) == Finish(SagaStatus.COMPLETED)


def test_S26_a_delivery_to_which_none_applies_is_refused() -> None:
    assert only(selecting(StepNotSelected(at=NOW, step="b"))) == Refuse()


def test_S26_a_refusal_and_a_skip_end_a_generation() -> None:
    assert only(selecting(ran("b"), failed("b", is_refusal=True))) == Finish(
        SagaStatus.COMPENSATED, Response("fail", BROKEN.message)
    )
    skip = SkipAnswered(at=NOW, step="b", response=Response("skip"))
    assert only(selecting(ran("b"), skip)) == Finish(SagaStatus.SKIPPED, Response("skip"))


@pytest.mark.parametrize(
    ("status", "end"),
    [("success", SagaStatus.COMPLETED), ("fail", SagaStatus.COMPENSATED), ("skip", SagaStatus.SKIPPED)],
)
def test_S26_what_the_failing_transactions_undo_answers_is_the_result(status: Any, end: SagaStatus) -> None:
    state = selecting(ran("b"), failed("b"))
    assert only(state) == Compensate("b", 1, of_completed=False, is_final=True)
    assert only(after(state, *undone("b", Response(status)))) == Finish(end, Response(status))


def test_S26_what_the_failing_transactions_undo_raises_is_raised_and_the_next_delivery_selects_anew() -> None:
    state = selecting(ran("b"), failed("b"), undoing("b"), CompensationDeclined(at=NOW, step="b", error=BROKEN))
    assert only(state) == Wait(None, "raised", step="b")
    assert only(after(state, released("raised"), DELIVERED)) == Ask("a")


def test_S26_an_undo_that_asks_for_time_lets_the_next_delivery_select_anew() -> None:
    state = selecting(ran("b"), failed("b"), undoing("b"), rescheduled("b", NOW + 60))
    assert only(state) == Wait(NOW + 60, "step", LATER, "b")
    assert only(after(state, released(), DELIVERED)) == Ask("a")


def test_S16_in_select_an_undo_that_a_crash_cut_off_goes_on_before_anything_is_selected() -> None:
    state = selecting(ran("b"), failed("b"), undoing("b"), TAKEN_OVER, DELIVERED)
    assert only(state) == Compensate("b", 2, of_completed=False, is_final=True)


def test_S26_a_failed_attempt_is_repeated_and_a_parked_transaction_stays_parked() -> None:
    assert only(selecting(ran("b"), failed("b", retry_at=NOW))) == Execute("b", 2)
    state = selecting(ran("b"), StepParked(at=NOW, step="b", cause="c", next_action="n"))
    assert only(state) == Finish(SagaStatus.PARKED, step="b", cause="c")


def test_J08_in_select_a_transaction_that_broke_a_limit_parks() -> None:
    assert only(selecting(ran("b"), failed("b", limit="payload_bytes_max"))) == Park(
        "b", "payload_bytes_max reached", "what the step did cannot be journaled; then saga resolve"
    )


def test_S26_a_cancelled_generation_ends_cancelled() -> None:
    assert only(after(begun("a", mode="select"), CancelRequested(at=NOW, reason="r"))) == Finish(
        SagaStatus.CANCELLED, Response("fail", "cancelled: r")
    )


# --- replay, state and request ------------------------------------------------------------------------------------


def test_a_replayed_history_is_the_state_that_it_led_to() -> None:
    history = (start_entry(Plan((PlanStep("a"),)), Policy()), *done("a"), elapsed(NOW))
    assert replay(history) == after(begun("a"), *history[1:])


def test_S18_each_outcome_carries_the_state_and_the_request_and_a_delivery_replaces_the_request() -> None:
    changed = StepCompleted(at=NOW, step="a", state=Raw(b'{"x":1}'), request=Raw(b'{"id":"1","y":2}'))
    state = after(begun("a", "b"), ran("a"), changed)
    assert (bytes(state.data), bytes(state.request)) == (b'{"x":1}', b'{"id":"1","y":2}')
    assert bytes(state.first_request) == b'{"id":"1"}'
    redelivered = after(state, RequestDelivered(at=NOW, drive="e", request=Raw(b'{"id":"1"}')))
    assert bytes(redelivered.request) == b'{"id":"1"}'
    assert after(redelivered, RequestDelivered(at=NOW, drive="e", request=ABSENT)).request == redelivered.request


def test_a_clock_that_goes_backward_takes_no_time_back_from_the_state() -> None:
    assert after(begun("a"), elapsed(NOW - 50)).at == NOW


# --- answers ------------------------------------------------------------------------------------------------------


def test_an_ended_execution_answers_what_was_recorded() -> None:
    ended = after(begun("a"), SagaEnded(at=NOW, status=SagaStatus.COMPLETED, response=DONE))
    assert answer(ended, NOW) == DONE


def test_a_parked_execution_tells_where_why_and_how_to_see_it() -> None:
    state = parked()
    text = "parked at a: interrupted, and its outcome is unknown; see: saga show S:1"
    assert answer(state, NOW) == Response("fail", text)


def test_a_running_or_waiting_execution_asks_to_come_back_when_it_is_due() -> None:
    state = after(begun("a"), ran("a"))
    assert answer(state, NOW) == Response("reschedule", countdown_s=30.0)
    waiting = after(state, suspended("a", due_at=NOW + 90), released(due_at=NOW + 90))
    assert answer(waiting, NOW) == Response("reschedule", countdown_s=90.0)
    assert answer(waiting, NOW + 89) == Response("reschedule", countdown_s=30.0)
    unlimited = after(state, suspended("a"), released())
    assert answer(unlimited, NOW) == Response("reschedule", countdown_s=30.0)


def test_S15_only_the_engines_own_waits_are_not_shortened_by_a_delivery() -> None:
    retrying = after(begun("a"), ran("a"), failed("a", NOW + 90), released("retry", NOW + 90))
    assert is_early(retrying, NOW)
    assert not is_early(retrying, NOW + 90)
    assert not is_early(after(begun("a"), ran("a"), suspended("a"), released()), NOW)
    assert not is_early(begun("a"), NOW)


def test_a_later_generation_is_named_by_its_number() -> None:
    assert (full_id("S:1", 1), full_id("S:1", 2)) == ("S:1", "S:1#2")


def test_S28_entries_that_make_no_sense_are_told_to_be_damaged():
    with pytest.raises(CorruptJournal, match="does not begin with SagaStarted"):
        replay((ran("a"),))
    started = start_entry(Plan((PlanStep("a"),)), Policy())
    for nonsense in (ran("unknown"), started):
        with pytest.raises(CorruptJournal, match="which its execution does not have"):
            replay((started, nonsense))
