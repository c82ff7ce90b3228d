"""The part of the conformance suite of journals that proves the purge: what goes, what stays, what is left."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from saga_engine.errors import LeaseLost, UnknownExecution
from saga_engine.journal import (
    AlreadyStarted,
    CancelRequested,
    Committed,
    Journal,
    Release,
    Response,
    SagaStatus,
)
from saga_engine.testing.scribe import Scribe

__all__ = ["RetentionConformance"]

ENDS = [status for status in SagaStatus if status.is_ended]


def _is_purged(journal: Journal, saga_id: str) -> bool:
    header = journal.header(saga_id)
    assert header is not None
    return header.is_purged


class RetentionConformance:
    """What every journal must do when it is purged."""

    @pytest.mark.parametrize("status", ENDS)
    def test_S15_a_purge_leaves_the_header_of_what_ended(self, journal: Journal, status: SagaStatus) -> None:
        scribe = Scribe(journal, "s-1").start()
        answer = Response("fail", output="out of stock")
        scribe.write(replace(scribe.next(at=9.0, status=status), release=Release(response=answer)))
        before = journal.header("s-1")
        assert before is not None
        assert not before.is_purged
        assert journal.purge(before=9.5) == 1
        assert journal.header("s-1") == journal.header("s-1", 1) == replace(before, is_purged=True)
        assert journal.search() == journal.search(status=status) == [replace(before, is_purged=True)]
        with pytest.raises(UnknownExecution, match=f"execution {scribe.eid} was purged"):
            journal.load(scribe.eid)

    def test_S15_what_was_purged_cannot_start_again(self, journal: Journal) -> None:
        Scribe(journal).start().release(SagaStatus.COMPLETED)
        journal.purge(before=100.0)
        again = Scribe(journal)
        assert again.write(again.opening()) == AlreadyStarted()
        Scribe(journal).start(generation=2)
        assert journal.header("s-1", 1) != journal.header("s-1")

    def test_nothing_is_added_to_what_was_purged(self, journal: Journal) -> None:
        scribe = Scribe(journal).start().release(SagaStatus.COMPLETED)
        header = journal.header("s-1")
        assert header is not None
        journal.purge(before=100.0)
        for seq in (1, scribe.seq + 1):
            taker = scribe.taking("d-2")
            for exclusive in (None, "asset:A-1"):
                with pytest.raises(LeaseLost):
                    taker.write(replace(taker.next(), seq=seq, take=True, exclusive=exclusive))
        with pytest.raises(UnknownExecution, match="was purged"):
            journal.put(scribe.eid, CancelRequested(at=4.0, reason="too late"))
        journal.note_stuck(header, "too late", 9.0)
        assert journal.recoverable(now=1e12) == journal.search(stuck=True) == []
        Scribe(journal, "s-2").start(exclusive="asset:A-1")

    def test_only_what_ended_before_the_given_time_is_purged(self, journal: Journal) -> None:
        """Whenever it started: the oldest one may end last."""
        scribes = [Scribe(journal, f"s-{number}").start() for number in range(4)]
        for scribe, at in zip(scribes, (40.0, 20.0, 30.0, 10.0), strict=True):
            scribe.release(SagaStatus.COMPLETED, at=at)
        assert journal.purge(before=10.0) == 0
        assert journal.purge(before=20.5) == 2
        assert [_is_purged(journal, f"s-{number}") for number in range(4)] == [False, True, False, True]
        assert journal.purge(before=20.5) == 0
        assert journal.load(scribes[0].eid).seq == journal.load(scribes[2].eid).seq == 2

    def test_an_execution_that_ends_after_later_ones_were_purged_is_purged_in_its_turn(self, journal: Journal) -> None:
        old = Scribe(journal, "s-old").start()
        for number in range(5):
            Scribe(journal, f"s-{number}").start().release(SagaStatus.COMPLETED, at=10.0)
        assert journal.purge(before=50.0) == 5
        old.release(SagaStatus.COMPLETED, at=40.0)
        assert journal.purge(before=50.0) == 1
        assert _is_purged(journal, "s-old")

    def test_a_purge_takes_the_oldest_first_and_no_more_than_it_may(self, journal: Journal) -> None:
        for number in range(7):
            Scribe(journal, f"s-{number}").start().release(SagaStatus.COMPLETED, at=70.0 - number)
        assert journal.purge(before=100.0, limit=3) == 3
        assert [header.saga_id for header in journal.search() if header.is_purged] == ["s-6", "s-5", "s-4"]
        assert [journal.purge(before=100.0, limit=3) for _ in range(3)] == [3, 1, 0]

    def test_what_has_not_ended_is_never_purged(self, journal: Journal) -> None:
        Scribe(journal, "s-running").start()
        Scribe(journal, "s-suspended").start().release()
        Scribe(journal, "s-due").start().release(due_at=5.0)
        Scribe(journal, "s-parked").start().release(SagaStatus.PARKED)
        undoing = Scribe(journal, "s-undoing").start()
        undoing.release(SagaStatus.COMPENSATING, due_at=5.0)
        left = Scribe(journal, "s-left").start()
        journal.abandon(left.eid, left.epoch)
        assert journal.purge(before=1e12) == 0
        assert {journal.load(header.eid).seq for header in journal.search()} == {1, 2}

    def test_what_somebody_drives_again_or_wrote_to_is_not_purged_before_it_has_ended_again(
        self, journal: Journal
    ) -> None:
        reopened = Scribe(journal, "s-1").start().release(SagaStatus.COMPLETED)
        taker = reopened.taking("d-2").take(status=SagaStatus.COMPLETED)
        mailed = Scribe(journal, "s-2").start().release(SagaStatus.COMPLETED)
        journal.put(mailed.eid, CancelRequested(at=4.0, reason="too late"))
        assert journal.purge(before=1e12) == 0
        taker.release(SagaStatus.COMPENSATED, at=60.0)
        reader = mailed.taking("d-2")
        drained = tuple(message.id for message in journal.load(mailed.eid).inbox)
        commit = replace(
            reader.next(at=50.0, status=SagaStatus.COMPLETED), take=True, drained=drained, release=Release()
        )
        assert isinstance(reader.write(commit), Committed)
        assert journal.purge(before=50.0) == 0
        assert journal.purge(before=1e12) == 2

    def test_a_purge_forgets_that_an_execution_was_stuck(self, journal: Journal) -> None:
        Scribe(journal).start().release(SagaStatus.COMPLETED)
        header = journal.header("s-1")
        assert header is not None
        journal.note_stuck(header, "no step of that name", 9.0)
        journal.purge(before=100.0)
        assert journal.search(stuck=True) == []
        assert not any(found.stuck for found in journal.search())
