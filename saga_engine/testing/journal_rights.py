"""The part of the conformance suite of journals that proves exclusive rights: who gets one, who waits, who is woken."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from msgspec.structs import replace

from saga_engine.errors import JournalError, LeaseLost
from saga_engine.journal import (
    AlreadyStarted,
    AppendResult,
    CancelRequested,
    Committed,
    ExclusiveHeld,
    InboxPending,
    Journal,
    Release,
    SagaStatus,
)
from saga_engine.testing.scribe import Scribe

__all__ = ["RightsConformance"]

#: The right that the tests are about.
RIGHT = "asset:A-1"

ENDS = [status for status in SagaStatus if status.is_ended]


def _due_at(journal: Journal, saga_id: str) -> float | None:
    header = journal.header(saga_id)
    assert header is not None
    return header.due_at


def _start(journal: Journal, saga_id: str) -> AppendResult:
    """Try to start an execution that needs the right."""
    scribe = Scribe(journal, saga_id)
    return scribe.write(replace(scribe.opening(), exclusive=RIGHT))


def _waiter(journal: Journal, saga_id: str, due_at: float | None = 1_000.0) -> Scribe:
    """Start an execution that was refused the right and waits for it."""
    return Scribe(journal, saga_id).start().release(due_at=due_at, awaits=RIGHT)


class RightsConformance:
    """What every journal must do about exclusive rights."""

    # --- taking ---

    def test_a_right_that_somebody_has_refuses_the_start_of_another_execution(self, journal: Journal) -> None:
        Scribe(journal, "s-1").start(exclusive=RIGHT)
        assert _start(journal, "s-2") == ExclusiveHeld("s-1")
        assert journal.header("s-2") is None
        assert journal.recoverable(now=1e12) == []
        Scribe(journal, "s-3").start(exclusive="asset:A-2")

    def test_a_holder_of_a_later_generation_is_named_with_it(self, journal: Journal) -> None:
        Scribe(journal, "s-1").start().release(SagaStatus.COMPLETED)
        Scribe(journal, "s-1").start(generation=2, exclusive=RIGHT)
        assert _start(journal, "s-2") == ExclusiveHeld("s-1#2")

    def test_a_right_that_somebody_has_refuses_the_taking_of_a_lease(self, journal: Journal) -> None:
        Scribe(journal, "s-1").start(exclusive=RIGHT)
        other = Scribe(journal, "s-2").start().release(due_at=9.0).taking("d-2")
        before = journal.header("s-2")
        assert other.write(replace(other.next(), take=True, exclusive=RIGHT)) == ExclusiveHeld("s-1")
        assert journal.header("s-2") == before
        assert journal.load(other.eid).seq == other.seq
        other.take().step()

    def test_an_execution_keeps_its_right_when_its_next_drive_asks_for_it_again(self, journal: Journal) -> None:
        scribe = Scribe(journal, "s-1").start(exclusive=RIGHT).release(due_at=9.0)
        scribe.taking("d-2").take(exclusive=RIGHT).step()
        assert _start(journal, "s-2") == ExclusiveHeld("s-1")

    def test_a_right_can_be_taken_with_the_lease(self, journal: Journal) -> None:
        scribe = Scribe(journal, "s-1").start().release(due_at=9.0)
        scribe.taking("d-2").take(exclusive=RIGHT)
        assert _start(journal, "s-2") == ExclusiveHeld("s-1")

    def test_a_right_taken_without_a_drive_that_begins_is_refused(self, journal: Journal) -> None:
        scribe = Scribe(journal, "s-1").start()
        with pytest.raises(JournalError, match="an exclusive right is taken with the start"):
            journal.append(replace(scribe.next(), exclusive=RIGHT))
        assert journal.load(scribe.eid).seq == 1

    def test_of_many_threads_that_start_executions_one_gets_the_right(self, journal: Journal) -> None:
        ready = threading.Barrier(20)

        def start(number: int) -> AppendResult:
            ready.wait(30.0)
            return _start(journal, f"s-{number}")

        with ThreadPoolExecutor(20) as pool:
            results = list(pool.map(start, range(20)))
        [winner] = journal.search()
        losers = [result for result in results if not isinstance(result, Committed)]
        assert losers == [ExclusiveHeld(winner.saga_id)] * 19

    # --- what counts before it ---

    def test_that_an_execution_is_there_counts_before_who_has_the_right(self, journal: Journal) -> None:
        Scribe(journal, "s-1").start(exclusive=RIGHT)
        Scribe(journal, "s-2").start()
        assert _start(journal, "s-1") == AlreadyStarted()
        assert _start(journal, "s-2") == AlreadyStarted()

    def test_J03_a_lost_lease_counts_before_who_has_the_right(self, journal: Journal) -> None:
        Scribe(journal, "s-1").start(exclusive=RIGHT)
        scribe = Scribe(journal, "s-2").start().release(due_at=9.0)
        stale = scribe.taking("d-2")
        scribe.taking("d-3").take()
        with pytest.raises(LeaseLost):
            stale.write(replace(stale.next(), take=True, exclusive=RIGHT))

    def test_J03_a_row_that_is_there_counts_before_who_has_the_right(self, journal: Journal) -> None:
        Scribe(journal, "s-1").start(exclusive=RIGHT)
        scribe = Scribe(journal, "s-2").start().release(due_at=9.0).taking("d-2")
        with pytest.raises(LeaseLost):
            scribe.write(replace(scribe.next(), seq=1, take=True, exclusive=RIGHT))

    def test_J03_mail_counts_before_who_has_the_right(self, journal: Journal) -> None:
        Scribe(journal, "s-1").start(exclusive=RIGHT)
        scribe = Scribe(journal, "s-2").start().release(due_at=9.0).taking("d-2")
        journal.put(scribe.eid, CancelRequested(at=4.0, reason="changed"))
        [message] = journal.load(scribe.eid).inbox
        take = replace(scribe.next(), take=True, exclusive=RIGHT)
        assert scribe.write(take) == InboxPending((message,))
        draining = replace(take, drained=(message.id,), entries=(message.entry,))
        assert scribe.write(draining) == ExclusiveHeld("s-1")
        assert journal.load(scribe.eid).inbox == (message,)

    # --- holding and giving back ---

    def test_a_right_outlives_the_drive_that_took_it(self, journal: Journal) -> None:
        scribe = Scribe(journal, "s-1").start(exclusive=RIGHT)
        journal.abandon(scribe.eid, scribe.epoch)
        assert _start(journal, "s-2") == ExclusiveHeld("s-1")
        taker = scribe.taking("d-2").take()
        assert _start(journal, "s-2") == ExclusiveHeld("s-1")
        taker.release(due_at=9.0)
        assert _start(journal, "s-2") == ExclusiveHeld("s-1")
        taker.taking("d-3").take().release(SagaStatus.PARKED)
        assert _start(journal, "s-2") == ExclusiveHeld("s-1")

    def test_a_right_that_was_given_back_is_free(self, journal: Journal) -> None:
        Scribe(journal, "s-1").start(exclusive=RIGHT).release(SagaStatus.PARKED, frees=RIGHT)
        assert isinstance(_start(journal, "s-2"), Committed)

    def test_nobody_gives_back_what_another_execution_has(self, journal: Journal) -> None:
        Scribe(journal, "s-1").start(exclusive=RIGHT)
        waiter = _waiter(journal, "s-2")
        Scribe(journal, "s-3").start(exclusive="asset:A-2").release(frees=RIGHT)
        assert _start(journal, "s-4") == ExclusiveHeld("s-1")
        assert _due_at(journal, "s-2") == 1_000.0
        waiter.taking("d-2").take().release(SagaStatus.PARKED, frees=RIGHT)
        assert _start(journal, "s-4") == ExclusiveHeld("s-1")

    @pytest.mark.parametrize("status", ENDS)
    def test_an_end_leaves_no_right_behind_whatever_it_says(self, journal: Journal, status: SagaStatus) -> None:
        Scribe(journal, "s-1").start(exclusive=RIGHT).release(status)
        assert isinstance(_start(journal, "s-2"), Committed)

    def test_a_commit_that_starts_or_takes_and_ends_at_once_leaves_no_right_behind(self, journal: Journal) -> None:
        first = Scribe(journal, "s-1")
        opening = replace(first.opening(release=Release()), status=SagaStatus.COMPLETED, exclusive=RIGHT)
        assert isinstance(first.write(opening), Committed)
        second = Scribe(journal, "s-2").start().release(due_at=9.0).taking("d-2")
        take = replace(second.next(status=SagaStatus.CANCELLED), take=True, exclusive=RIGHT, release=Release())
        assert isinstance(second.write(take), Committed)
        third = Scribe(journal, "s-3")
        parked = replace(third.opening(release=Release(frees=RIGHT)), status=SagaStatus.PARKED, exclusive=RIGHT)
        assert isinstance(third.write(parked), Committed)
        assert isinstance(_start(journal, "s-4"), Committed)

    def test_a_commit_that_starts_and_suspends_at_once_keeps_the_right(self, journal: Journal) -> None:
        first = Scribe(journal, "s-1")
        opening = replace(first.opening(release=Release(due_at=9.0)), status=SagaStatus.SUSPENDED, exclusive=RIGHT)
        assert isinstance(first.write(opening), Committed)
        assert _start(journal, "s-2") == ExclusiveHeld("s-1")

    # --- waiting ---

    def test_the_one_that_waits_longest_becomes_due_when_the_right_is_freed(self, journal: Journal) -> None:
        holder = Scribe(journal, "s-1").start(exclusive=RIGHT)
        for saga_id, due_at in (("s-2", 1_000.0), ("s-3", None), ("s-4", 1_000.0)):
            _waiter(journal, saga_id, due_at)
        Scribe(journal, "s-other").start().release(due_at=1_000.0, awaits="asset:A-2")
        assert journal.recoverable(now=999.0) != [], "nobody has that other right"
        holder.release(SagaStatus.COMPLETED, at=50.0, frees=RIGHT)
        assert [_due_at(journal, f"s-{number}") for number in (2, 3, 4)] == [50.0, None, 1_000.0]
        assert "s-2" in [header.saga_id for header in journal.recoverable(now=50.0)]

    def test_each_freeing_wakes_one_more(self, journal: Journal) -> None:
        holder = Scribe(journal, "s-1").start(exclusive=RIGHT)
        waiters = [_waiter(journal, f"s-{number}", due_at) for number, due_at in ((2, 1_000.0), (3, None))]
        holder.release(SagaStatus.COMPLETED, at=50.0, frees=RIGHT)
        second = waiters[0].taking("d-2").take(exclusive=RIGHT)
        assert _due_at(journal, "s-3") is None
        second.release(SagaStatus.COMPENSATED, at=60.0, frees=RIGHT)
        assert _due_at(journal, "s-3") == 60.0

    def test_a_right_that_is_taken_and_given_back_in_one_commit_is_passed_on(self, journal: Journal) -> None:
        holder = Scribe(journal, "s-1").start(exclusive=RIGHT)
        woken, _ = _waiter(journal, "s-2"), _waiter(journal, "s-3")
        holder.release(SagaStatus.COMPLETED, at=50.0, frees=RIGHT)
        taker = woken.taking("d-2")
        commit = replace(taker.next(), take=True, exclusive=RIGHT, status=SagaStatus.CANCELLED, at=60.0)
        assert isinstance(taker.write(replace(commit, release=Release(frees=RIGHT))), Committed)
        assert _due_at(journal, "s-3") == 60.0

    def test_one_that_is_due_already_does_not_use_up_the_wake_of_the_next(self, journal: Journal) -> None:
        """It may be one that cannot go on; the others must not wait for it."""
        holder = Scribe(journal, "s-1").start(exclusive=RIGHT)
        _waiter(journal, "s-2", due_at=10.0)
        _waiter(journal, "s-3")
        holder.release(SagaStatus.COMPLETED, at=50.0, frees=RIGHT)
        assert (_due_at(journal, "s-2"), _due_at(journal, "s-3")) == (10.0, 50.0)

    def test_a_newcomer_may_take_what_the_woken_one_did_not(self, journal: Journal) -> None:
        holder = Scribe(journal, "s-1").start(exclusive=RIGHT)
        woken = _waiter(journal, "s-2")
        holder.release(SagaStatus.COMPLETED, at=50.0, frees=RIGHT)
        assert isinstance(_start(journal, "s-3"), Committed)
        taker = woken.taking("d-2")
        assert taker.write(replace(taker.next(), take=True, exclusive=RIGHT)) == ExclusiveHeld("s-3")

    def test_who_begins_to_wait_when_the_right_is_free_again_is_due_at_once(self, journal: Journal) -> None:
        """Its holder freed it after the refusal: nobody would wake the one that waits."""
        holder = Scribe(journal, "s-1").start(exclusive=RIGHT)
        assert _start(journal, "s-2") == ExclusiveHeld("s-1")
        holder.release(SagaStatus.COMPLETED, at=2.0, frees=RIGHT)
        late = _waiter(journal, "s-2")
        assert _due_at(journal, "s-2") == 3.0
        [header] = journal.recoverable(now=3.0)
        assert header.eid == late.eid
        at_once = Scribe(journal, "s-3")
        release = Release(due_at=1_000.0, awaits=RIGHT)
        at_once.write(replace(at_once.opening(release=release, at=4.0), status=SagaStatus.SUSPENDED))
        assert _due_at(journal, "s-3") == 4.0

    def test_a_start_may_begin_to_wait_at_once(self, journal: Journal) -> None:
        holder = Scribe(journal, "s-1").start(exclusive=RIGHT)
        waiter = Scribe(journal, "s-2")
        release = Release(due_at=1_000.0, awaits=RIGHT)
        waiter.write(replace(waiter.opening(release=release), status=SagaStatus.SUSPENDED))
        assert _due_at(journal, "s-2") == 1_000.0
        holder.release(SagaStatus.COMPLETED, at=50.0, frees=RIGHT)
        assert _due_at(journal, "s-2") == 50.0

    def test_who_was_taken_up_waits_no_more(self, journal: Journal) -> None:
        holder = Scribe(journal, "s-1").start(exclusive=RIGHT)
        held, elsewhere, ended = (_waiter(journal, f"s-{number}") for number in (2, 3, 4))
        last = _waiter(journal, "s-5")
        held.taking("d-2").take()
        elsewhere.taking("d-2").take().release(due_at=800.0)
        ended.taking("d-2").take().release(SagaStatus.CANCELLED, awaits=RIGHT)
        holder.release(SagaStatus.COMPLETED, at=50.0, frees=RIGHT)
        assert [_due_at(journal, f"s-{number}") for number in (2, 3, 4, 5)] == [None, 800.0, None, 50.0]
        assert [header.eid for header in journal.recoverable(now=50.0)] == [last.eid]

    @pytest.mark.parametrize("status", ENDS)
    def test_an_end_waits_for_nothing_whatever_it_says(self, journal: Journal, status: SagaStatus) -> None:
        Scribe(journal, "s-1").start().release(status, awaits=RIGHT)
        second = Scribe(journal, "s-2")
        second.write(replace(second.opening(release=Release(awaits=RIGHT)), status=status))
        assert (_due_at(journal, "s-1"), _due_at(journal, "s-2")) == (None, None)
        Scribe(journal, "s-3").start(exclusive=RIGHT).release(SagaStatus.COMPLETED, frees=RIGHT)
        assert journal.recoverable(now=1e12) == []

    def test_J02_a_refused_commit_neither_frees_nor_wakes(self, journal: Journal) -> None:
        holder = Scribe(journal, "s-1").start(exclusive=RIGHT)
        _waiter(journal, "s-2")
        end = replace(holder.next(status=SagaStatus.COMPLETED), release=Release(frees=RIGHT))
        journal.put(holder.eid, CancelRequested(at=2.0, reason="changed"))
        assert isinstance(holder.write(end), InboxPending)
        holder.taking("d-2").write(
            replace(holder.next(), drive="d-2", take=True, drained=(journal.load(holder.eid).inbox[0].id,))
        )
        with pytest.raises(LeaseLost):
            holder.write(end)
        assert _start(journal, "s-3") == ExclusiveHeld("s-1")
        assert _due_at(journal, "s-2") == 1_000.0
