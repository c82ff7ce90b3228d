"""The conformance suite of journals: what every implementation of the `Journal` port must do.

Run it over a journal of your own by deriving a test class and overriding one fixture:

    class TestMyJournal(JournalConformance):
        @pytest.fixture
        def open_journal(self, tmp_path):
            return lambda: MyJournal(tmp_path / "journal")

Every journal that a test opens is closed after it.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import Queue
from typing import TypeVar

import pytest
from msgspec import Raw
from msgspec.structs import replace

from saga_engine.errors import JournalError, LeaseLost, NotJSON, UnknownExecution
from saga_engine.journal import (
    AlreadyStarted,
    AppendResult,
    CancelRequested,
    Committed,
    InboxMessage,
    InboxPending,
    Journal,
    Loaded,
    Release,
    Response,
    SagaStarted,
    SagaStatus,
    StateSaved,
)
from saga_engine.testing.journal_retention import RetentionConformance
from saga_engine.testing.journal_rights import RightsConformance
from saga_engine.testing.scribe import Scribe

__all__ = ["JournalConformance", "Scribe"]

Result = TypeVar("Result")

#: How long a test waits for another thread before it fails, in seconds.
PATIENCE_S = 30.0


class JournalConformance(RightsConformance, RetentionConformance):
    """What every journal must do. A subclass overrides `open_journal`."""

    @pytest.fixture
    def open_journal(self) -> Callable[[], Journal]:
        """Give a function that opens an empty journal."""
        raise NotImplementedError("override the open_journal fixture with your journal")

    @pytest.fixture
    def journal(self, open_journal: Callable[[], Journal]) -> Iterator[Journal]:
        """Give an empty journal, closed after the test."""
        journal = open_journal()
        yield journal
        journal.close()

    # --- append and load ---

    def test_J02_what_was_appended_is_loaded_in_order(self, journal: Journal) -> None:
        scribe = Scribe(journal)
        first = scribe.opening()
        scribe.write(first)
        second = scribe.next()
        scribe.write(second)
        assert journal.load(scribe.eid) == Loaded(first.entries + second.entries, seq=2, inbox=())

    def test_a_started_execution_has_the_header_of_its_first_commit(self, journal: Journal) -> None:
        scribe = Scribe(journal, "s-7", saga="Purchase").start()
        header = journal.header("s-7")
        assert header is not None
        assert (header.eid, header.saga_id, header.generation, header.saga) == (scribe.eid, "s-7", 1, "Purchase")
        assert (header.status, header.epoch, header.drive) == (SagaStatus.RUNNING, scribe.epoch, "d-1")
        assert (header.created_at, header.updated_at, header.due_at) == (1.0, 1.0, None)
        assert (header.told, header.response, header.stuck) == (None, None, None)
        assert journal.is_held(header)

    def test_a_held_execution_tells_a_person_where_it_is_held(self, journal: Journal) -> None:
        Scribe(journal).start()
        header = journal.header("s-1")
        assert header is not None
        assert header.held_by is not None
        assert header.held_by.rpartition(":")[2].isdigit()

    def test_an_unknown_execution_has_no_header_and_cannot_be_loaded(self, journal: Journal) -> None:
        assert journal.header("nobody") is None
        assert journal.header("nobody", 1) is None
        with pytest.raises(UnknownExecution, match="12345"):
            journal.load(12345)

    def test_starting_twice_is_refused_and_keeps_the_first(self, journal: Journal) -> None:
        scribe = Scribe(journal).start()
        other = Scribe(journal, drive="d-2")
        assert other.write(other.opening(at=9.0)) == AlreadyStarted()
        assert journal.load(scribe.eid).seq == 1
        assert journal.load(scribe.eid).entries[0].at == 1.0

    def test_without_a_generation_the_latest_is_found(self, journal: Journal) -> None:
        first = Scribe(journal).start()
        second = Scribe(journal, drive="d-2").start(generation=2)
        latest, earlier = journal.header("s-1"), journal.header("s-1", 1)
        assert latest is not None
        assert earlier is not None
        assert (latest.eid, latest.generation) == (second.eid, 2)
        assert (earlier.eid, earlier.generation) == (first.eid, 1)
        assert journal.header("s-1", 3) is None

    def test_later_executions_have_larger_numbers(self, journal: Journal) -> None:
        numbers = [Scribe(journal, f"s-{i}").start().eid for i in range(5)]
        assert numbers == sorted(set(numbers))

    def test_J05_what_comes_out_shares_nothing_with_what_went_in(self, journal: Journal) -> None:
        scribe = Scribe(journal).start()
        state = bytearray(b'{"a":1}')
        saved = StateSaved(at=2.0, step="pay", state=Raw(memoryview(state)))
        scribe.write(replace(scribe.next(), entries=(saved,)))
        state[:] = b'{"b":2}'
        loaded = journal.load(scribe.eid).entries[-1]
        assert isinstance(loaded, StateSaved)
        assert loaded is not saved
        assert bytes(loaded.state) == b'{"a":1}'
        assert journal.load(scribe.eid).entries[-1] is not loaded

    def test_J05_text_and_numbers_survive_as_they_are(self, journal: Journal) -> None:
        scribe = Scribe(journal, "naïve/№ 1 'x' -- \U0001f600").start()
        body = '{"große":"\\u0000\U0001f600","n":12345678901234567890,"f":0.1}'.encode()
        scribe.write(replace(scribe.next(), entries=(StateSaved(at=2.0, step="pay", state=Raw(body)),)))
        loaded = journal.load(scribe.eid).entries[-1]
        assert isinstance(loaded, StateSaved)
        assert bytes(loaded.state) == body
        assert journal.header(scribe.saga_id) is not None

    def test_text_that_is_no_unicode_is_refused(self, journal: Journal) -> None:
        with pytest.raises(NotJSON, match="surrogates not allowed"):
            Scribe(journal, "s-\ud800").start()

    def test_a_payload_of_ten_megabytes_is_kept(self, journal: Journal) -> None:
        scribe = Scribe(journal).start()
        state = b'"' + b"x" * 10_000_000 + b'"'
        scribe.write(replace(scribe.next(), entries=(StateSaved(at=2.0, step="pay", state=Raw(state)),)))
        loaded = journal.load(scribe.eid).entries[-1]
        assert isinstance(loaded, StateSaved)
        assert bytes(loaded.state) == state

    def test_a_commit_that_contradicts_itself_is_refused(self, journal: Journal) -> None:
        scribe = Scribe(journal)
        opening = scribe.opening()
        for wrong in (
            replace(opening, entries=()),
            replace(opening, opening=None),
            replace(opening, eid=1),
            replace(opening, seq=2),
        ):
            with pytest.raises(JournalError):
                journal.append(wrong)
        assert journal.search() == []

    # --- the header ---

    def test_J09_a_plain_commit_leaves_the_header_alone(self, journal: Journal) -> None:
        scribe = Scribe(journal).start()
        before = journal.header("s-1")
        scribe.step(at=50.0).step(at=60.0)
        assert journal.header("s-1") == before

    def test_J09_turning_back_shows_in_the_header(self, journal: Journal) -> None:
        scribe = Scribe(journal).start()
        scribe.write(scribe.next(at=50.0, status=SagaStatus.COMPENSATING))
        scribe.write(scribe.next(at=60.0, status=SagaStatus.COMPENSATING))
        header = journal.header("s-1")
        assert header is not None
        assert (header.status, header.updated_at) == (SagaStatus.COMPENSATING, 50.0)

    def test_J09_a_suspension_keeps_what_was_told_apart_from_the_response(self, journal: Journal) -> None:
        told = Response("reschedule", countdown_s=30.0)
        scribe = Scribe(journal).start()
        commit = scribe.next(at=5.0, status=SagaStatus.SUSPENDED)
        scribe.write(replace(commit, release=Release(due_at=35.0, told=told)))
        header = journal.header("s-1")
        assert header is not None
        assert (header.status, header.due_at, header.told) == (SagaStatus.SUSPENDED, 35.0, told)
        assert (header.response, header.updated_at) == (None, 5.0)
        assert (header.drive, header.process, header.held_by) == (None, None, None)
        assert not journal.is_held(header)

    def test_J09_an_end_keeps_the_response(self, journal: Journal) -> None:
        response = Response("fail", output="out of stock")
        scribe = Scribe(journal).start()
        commit = scribe.next(status=SagaStatus.COMPENSATED)
        scribe.write(replace(commit, release=Release(response=response)))
        header = journal.header("s-1")
        assert header is not None
        assert (header.status, header.response, header.told) == (SagaStatus.COMPENSATED, response, None)

    def test_taking_the_lease_clears_the_due_time_and_what_was_told(self, journal: Journal) -> None:
        scribe = Scribe(journal).start()
        commit = scribe.next(status=SagaStatus.SUSPENDED)
        scribe.write(replace(commit, release=Release(due_at=9.0, told=Response("success"))))
        scribe.taking("d-2").take()
        header = journal.header("s-1")
        assert header is not None
        assert (header.status, header.due_at, header.told) == (SagaStatus.RUNNING, None, None)
        assert (header.drive, header.epoch) == ("d-2", scribe.epoch + 1)
        assert journal.is_held(header)

    def test_one_commit_may_take_the_lease_and_give_it_back(self, journal: Journal) -> None:
        other = Scribe(journal).start().release(due_at=5.0).taking("d-2")
        commit = replace(other.next(status=SagaStatus.PARKED), take=True, release=Release())
        assert other.write(commit) == Committed(other.eid, other.epoch)
        header = journal.header("s-1")
        assert header is not None
        assert (header.status, header.drive, header.epoch) == (SagaStatus.PARKED, None, other.epoch)
        with pytest.raises(LeaseLost):
            other.write(other.next())

    def test_one_commit_may_start_an_execution_and_give_it_back(self, journal: Journal) -> None:
        scribe = Scribe(journal)
        scribe.write(replace(scribe.opening(release=Release(due_at=7.0)), status=SagaStatus.SUSPENDED))
        header = journal.header("s-1")
        assert header is not None
        assert (header.status, header.due_at, header.drive) == (SagaStatus.SUSPENDED, 7.0, None)
        assert [found.eid for found in journal.recoverable(now=7.0)] == [scribe.eid]

    # --- the fence ---

    def test_J03_a_drive_that_was_overtaken_cannot_append(self, journal: Journal) -> None:
        loser = Scribe(journal).start()
        winner = loser.taking("d-2").take()
        with pytest.raises(LeaseLost, match="d-1"):
            loser.write(loser.next())
        winner.step()
        assert journal.load(winner.eid).seq == 3

    def test_J03_a_drive_that_was_overtaken_cannot_give_the_lease_back(self, journal: Journal) -> None:
        loser = Scribe(journal).start()
        winner = loser.taking("d-2").take()
        with pytest.raises(LeaseLost):
            loser.write(replace(loser.next(status=SagaStatus.COMPLETED), seq=3, release=Release()))
        header = journal.header("s-1")
        assert header is not None
        assert (header.status, header.drive, header.epoch) == (SagaStatus.RUNNING, "d-2", winner.epoch)

    def test_J03_of_two_takers_one_wins(self, journal: Journal) -> None:
        scribe = Scribe(journal).start().release()
        first, second = scribe.taking("d-2"), scribe.taking("d-3")
        first.take()
        with pytest.raises(LeaseLost):
            second.take()
        header = journal.header("s-1")
        assert header is not None
        assert header.drive == "d-2"

    def test_J03_the_epoch_alone_refuses_even_where_the_row_would_be_new(self, journal: Journal) -> None:
        loser = Scribe(journal).start()
        winner = loser.taking("d-2").take()
        loser.seq = winner.seq
        for stale in (replace(loser.next(), take=True), replace(loser.next(), drive="d-2")):
            with pytest.raises(LeaseLost):
                journal.append(stale)
        assert journal.load(winner.eid).seq == winner.seq

    def test_J03_the_lease_is_a_drives_not_a_processes(self, journal: Journal) -> None:
        holder = Scribe(journal).start()
        zombie = holder.taking("d-0")
        with pytest.raises(LeaseLost):
            zombie.write(zombie.next())
        holder.step()

    def test_J03_after_giving_the_lease_back_a_drive_cannot_append(self, journal: Journal) -> None:
        scribe = Scribe(journal).start().release()
        with pytest.raises(LeaseLost):
            scribe.write(scribe.next())

    def test_J03_a_row_is_written_once(self, journal: Journal) -> None:
        scribe = Scribe(journal).start().step()
        kept = journal.load(scribe.eid)
        with pytest.raises(LeaseLost):
            journal.append(replace(scribe.next(), seq=2))
        assert journal.load(scribe.eid) == kept
        scribe.step()

    def test_J03_a_refused_take_changes_nothing(self, journal: Journal) -> None:
        scribe = Scribe(journal).start()
        before = journal.header("s-1")
        with pytest.raises(LeaseLost):
            journal.append(replace(scribe.next(), seq=1, drive="d-2", take=True))
        assert journal.header("s-1") == before
        scribe.step()

    def test_J03_nobody_appends_to_an_execution_that_is_not_there(self, journal: Journal) -> None:
        scribe = Scribe(journal)
        with pytest.raises(LeaseLost):
            journal.append(replace(scribe.next(), eid=99))

    # --- the inbox ---

    def test_J03_mail_refuses_the_commit_that_does_not_drain_it(self, journal: Journal) -> None:
        scribe = Scribe(journal).start()
        cancel, other = CancelRequested(at=2.0, reason="changed"), CancelRequested(at=3.0, reason="again")
        journal.put(scribe.eid, cancel)
        journal.put(scribe.eid, other)
        refused = scribe.write(scribe.next())
        assert isinstance(refused, InboxPending)
        assert [message.entry for message in refused.messages] == [cancel, other]
        assert journal.load(scribe.eid).seq == 1
        assert journal.load(scribe.eid).inbox == refused.messages

    def test_J03_draining_some_of_the_mail_is_not_enough(self, journal: Journal) -> None:
        scribe = Scribe(journal).start()
        journal.put(scribe.eid, CancelRequested(at=2.0, reason="one"))
        journal.put(scribe.eid, CancelRequested(at=2.0, reason="two"))
        messages = journal.load(scribe.eid).inbox
        for message in messages:
            refused = scribe.write(replace(scribe.next(), drained=(message.id,)))
            assert refused == InboxPending(messages)

    def test_J03_drained_mail_is_gone_with_the_commit(self, journal: Journal) -> None:
        scribe = Scribe(journal).start()
        cancel = CancelRequested(at=2.0, reason="changed", who="operator")
        journal.put(scribe.eid, cancel)
        [message] = journal.load(scribe.eid).inbox
        scribe.write(replace(scribe.next(), entries=(message.entry,), drained=(message.id,)))
        loaded = journal.load(scribe.eid)
        assert loaded.inbox == ()
        assert loaded.entries[-1] == cancel
        scribe.step()

    def test_J03_a_later_message_never_has_the_number_of_a_drained_one(self, journal: Journal) -> None:
        scribe = Scribe(journal).start()
        journal.put(scribe.eid, CancelRequested(at=2.0, reason="one"))
        [first] = journal.load(scribe.eid).inbox
        scribe.write(replace(scribe.next(), drained=(first.id,)))
        journal.put(scribe.eid, CancelRequested(at=3.0, reason="two"))
        refused = scribe.write(replace(scribe.next(), drained=(first.id,)))
        assert isinstance(refused, InboxPending)
        assert [message.id > first.id for message in refused.messages] == [True]

    def test_J03_mail_for_one_execution_leaves_the_others_alone(self, journal: Journal) -> None:
        one, other = Scribe(journal, "s-1").start(), Scribe(journal, "s-2").start()
        journal.put(one.eid, CancelRequested(at=2.0, reason="changed"))
        other.step()
        assert journal.load(other.eid).inbox == ()

    def test_J03_a_lost_lease_counts_before_mail(self, journal: Journal) -> None:
        loser = Scribe(journal).start()
        loser.taking("d-2").take()
        journal.put(loser.eid, CancelRequested(at=2.0, reason="changed"))
        with pytest.raises(LeaseLost):
            loser.write(loser.next())

    def test_J03_mail_also_refuses_the_taking_of_the_lease(self, journal: Journal) -> None:
        other = Scribe(journal).start().release().taking("d-2")
        journal.put(other.eid, CancelRequested(at=2.0, reason="changed"))
        assert isinstance(other.write(replace(other.next(), take=True)), InboxPending)
        header = journal.header("s-1")
        assert header is not None
        assert (header.drive, header.epoch) == (None, other.epoch)

    def test_nobody_can_write_to_an_execution_that_is_not_there(self, journal: Journal) -> None:
        with pytest.raises(UnknownExecution):
            journal.put(99, CancelRequested(at=2.0, reason="changed"))

    # --- search ---

    def test_search_lists_the_newest_first_and_pages(self, journal: Journal) -> None:
        numbers = [Scribe(journal, f"s-{i}").start().eid for i in range(5)]
        first = journal.search(limit=3)
        second = journal.search(limit=3, before=first[-1].eid)
        assert [header.eid for header in first + second] == numbers[::-1]
        assert journal.search(limit=3, before=second[-1].eid) == []

    def test_search_filters_by_status_and_saga(self, journal: Journal) -> None:
        Scribe(journal, "s-1", saga="A").start()
        Scribe(journal, "s-2", saga="A").start().release(SagaStatus.COMPLETED)
        Scribe(journal, "s-3", saga="B").start().release(SagaStatus.PARKED)
        Scribe(journal, "s-4", saga="B").start().release(SagaStatus.COMPLETED)

        def found(status: SagaStatus | None, saga: str | None) -> list[str]:
            return [header.saga_id for header in journal.search(status=status, saga=saga)]

        assert found(SagaStatus.COMPLETED, None) == ["s-4", "s-2"]
        assert found(SagaStatus.PARKED, None) == ["s-3"]
        assert found(None, "A") == ["s-2", "s-1"]
        assert found(SagaStatus.COMPLETED, "B") == ["s-4"]
        assert found(SagaStatus.PARKED, "A") == []

    # --- recovery ---

    def test_J03_an_abandoned_execution_is_recoverable_at_once(self, journal: Journal) -> None:
        scribe = Scribe(journal).start()
        assert journal.recoverable(now=1e12) == []
        journal.abandon(scribe.eid, scribe.epoch)
        [header] = journal.recoverable(now=0.0)
        assert (header.eid, header.status, header.drive) == (scribe.eid, SagaStatus.RUNNING, None)
        assert not journal.is_held(header)
        scribe.taking("d-2").take().step()
        assert journal.recoverable(now=1e12) == []

    def test_J03_an_abandoned_compensation_is_recoverable_at_once(self, journal: Journal) -> None:
        scribe = Scribe(journal).start()
        scribe.write(scribe.next(status=SagaStatus.COMPENSATING))
        journal.abandon(scribe.eid, scribe.epoch)
        assert [header.status for header in journal.recoverable(now=0.0)] == [SagaStatus.COMPENSATING]

    def test_J03_who_was_overtaken_abandons_nothing(self, journal: Journal) -> None:
        loser = Scribe(journal).start()
        loser.taking("d-2").take()
        journal.abandon(loser.eid, loser.epoch)
        header = journal.header("s-1")
        assert header is not None
        assert header.drive == "d-2"
        assert journal.is_held(header)

    def test_abandoning_what_is_not_there_or_held_by_nobody_is_harmless(self, journal: Journal) -> None:
        scribe = Scribe(journal).start().release(due_at=50.0)
        journal.abandon(scribe.eid, scribe.epoch)
        journal.abandon(99, 1)
        assert journal.recoverable(now=49.0) == []

    @pytest.mark.parametrize("status", [SagaStatus.SUSPENDED, SagaStatus.COMPENSATING])
    def test_a_waiting_execution_is_recoverable_when_it_is_due(self, journal: Journal, status: SagaStatus) -> None:
        scribe = Scribe(journal).start().release(status, due_at=50.0)
        assert journal.recoverable(now=49.9) == []
        assert [header.eid for header in journal.recoverable(now=50.0)] == [scribe.eid]

    @pytest.mark.parametrize("status", [SagaStatus.SUSPENDED, SagaStatus.COMPENSATING, SagaStatus.PARKED])
    def test_an_execution_that_waits_for_no_time_is_recoverable_when_mail_comes(
        self, journal: Journal, status: SagaStatus
    ) -> None:
        scribe = Scribe(journal).start().release(status)
        assert journal.recoverable(now=1e12) == []
        journal.put(scribe.eid, CancelRequested(at=4.0, reason="changed"))
        assert [header.eid for header in journal.recoverable(now=0.0)] == [scribe.eid]

    def test_J03_a_held_execution_is_not_recoverable_even_with_mail(self, journal: Journal) -> None:
        scribe = Scribe(journal).start()
        journal.put(scribe.eid, CancelRequested(at=4.0, reason="changed"))
        assert journal.recoverable(now=1e12) == []

    @pytest.mark.parametrize("status", [status for status in SagaStatus if status.is_ended])
    def test_J10_what_ended_is_recoverable_only_while_it_has_mail(self, journal: Journal, status: SagaStatus) -> None:
        scribe = Scribe(journal).start().release(status)
        assert journal.recoverable(now=1e12) == []
        journal.put(scribe.eid, CancelRequested(at=4.0, reason="too late"))
        [header] = journal.recoverable(now=0.0)
        assert (header.eid, header.status) == (scribe.eid, status)
        taker = scribe.taking("d-2")
        [message] = journal.load(scribe.eid).inbox
        commit = replace(taker.next(status=status), take=True, drained=(message.id,), entries=(message.entry,))
        assert isinstance(taker.write(commit), Committed)
        assert journal.recoverable(now=1e12) == []
        taker.release(status)
        assert journal.recoverable(now=1e12) == []

    @pytest.mark.parametrize("status", [status for status in SagaStatus if status.is_ended])
    def test_S32_what_ended_can_be_taken_up_again_and_ends_again(self, journal: Journal, status: SagaStatus) -> None:
        scribe = Scribe(journal).start()
        commit = replace(scribe.next(status=status), release=Release(response=Response("success")))
        scribe.write(commit)
        again = scribe.taking("d-2").take(status=SagaStatus.COMPENSATING)
        header = journal.header("s-1")
        assert header is not None
        assert (header.status, header.drive, header.response) == (
            SagaStatus.COMPENSATING,
            "d-2",
            Response("success"),
        )
        assert journal.is_held(header)
        assert [found.eid for found in journal.search(status=SagaStatus.COMPENSATING)] == [scribe.eid]
        assert journal.search(status=status) == []
        journal.abandon(again.eid, again.epoch)
        assert [found.eid for found in journal.recoverable(now=0.0)] == [scribe.eid]
        once_more = again.taking("d-3").take(status=SagaStatus.COMPENSATING)
        once_more.release(SagaStatus.COMPENSATING, due_at=70.0)
        assert journal.next_due(after=0.0) == 70.0
        once_more.taking("d-4").take(status=SagaStatus.COMPENSATING).release(SagaStatus.COMPENSATED)
        assert journal.recoverable(now=1e12) == []
        assert journal.next_due(after=0.0) is None
        assert [found.eid for found in journal.search(status=SagaStatus.COMPENSATED)] == [scribe.eid]

    def test_recoverable_lists_the_oldest_first_and_pages(self, journal: Journal) -> None:
        expected = []
        for i in range(12):
            scribe = Scribe(journal, f"s-{i}").start()
            if i % 4 == 0:
                journal.abandon(scribe.eid, scribe.epoch)
            elif i % 4 == 1:
                scribe.release(due_at=100.0 - i)
            elif i % 4 == 2:
                scribe.release()
                journal.put(scribe.eid, CancelRequested(at=4.0, reason="changed"))
            if i % 4 != 3:
                expected.append(scribe.eid)
        found: list[int] = []
        while page := journal.recoverable(now=100.0, after=found[-1] if found else 0, limit=2):
            assert len(page) <= 2
            found += [header.eid for header in page]
        assert found == expected

    # --- the next due time ---

    def test_the_next_due_time_is_the_earliest_after_the_given_one(self, journal: Journal) -> None:
        assert journal.next_due(after=0.0) is None
        for number, due_at in enumerate((30.0, 10.0, 20.0, 10.0, None)):
            Scribe(journal, f"s-{number}").start().release(due_at=due_at)
        Scribe(journal, "s-held").start()
        found = [journal.next_due(after=after) for after in (0.0, 9.9, 10.0, 20.0, 29.0, 30.0)]
        assert found == [10.0, 10.0, 20.0, 30.0, 30.0, None]

    def test_what_was_taken_up_is_not_due_any_more(self, journal: Journal) -> None:
        scribe = Scribe(journal).start().release(due_at=10.0)
        Scribe(journal, "s-2").start().release(due_at=40.0)
        other = scribe.taking("d-2").take()
        assert journal.next_due(after=0.0) == 40.0
        other.release(due_at=20.0)
        assert journal.next_due(after=0.0) == 20.0

    # --- stuck ---

    def test_what_was_found_stuck_lately_may_be_left_out_of_what_is_recoverable(self, journal: Journal) -> None:
        left, due, mailed = (Scribe(journal, f"s-{number}").start() for number in range(3))
        journal.abandon(left.eid, left.epoch)
        due.release(due_at=5.0)
        mailed.release()
        journal.put(mailed.eid, CancelRequested(at=4.0, reason="changed"))
        for number, noted_at in enumerate((100.0, 90.0, 110.0)):
            header = journal.header(f"s-{number}")
            assert header is not None
            journal.note_stuck(header, "no step of that name", noted_at)

        def found(stuck_before: float | None) -> list[int]:
            return [header.eid for header in journal.recoverable(now=5.0, limit=3, stuck_before=stuck_before)]

        assert found(None) == found(111.0) == [left.eid, due.eid, mailed.eid]
        assert found(110.0) == [left.eid, due.eid]
        assert found(100.0) == [due.eid]
        assert found(90.0) == []
        assert [header.eid for header in journal.recoverable(now=5.0, limit=1, stuck_before=100.0)] == [due.eid]

    def test_a_note_of_being_stuck_lasts_until_the_lease_is_taken(self, journal: Journal) -> None:
        scribe = Scribe(journal).start().release(due_at=5.0)
        Scribe(journal, "s-2").start()
        header = journal.header("s-1")
        assert header is not None
        journal.note_stuck(header, "no step of that name", 9.0)
        journal.note_stuck(header, "still no step of that name", 10.0)
        assert [found.saga_id for found in journal.search(stuck=True)] == ["s-1"]
        assert [found.stuck for found in journal.search()] == [None, "still no step of that name"]
        scribe.taking("d-2").take()
        assert journal.search(stuck=True) == []

    def test_a_note_about_an_execution_that_moved_on_is_dropped(self, journal: Journal) -> None:
        scribe = Scribe(journal).start().release()
        header = journal.header("s-1")
        assert header is not None
        scribe.taking("d-2").take()
        journal.note_stuck(header, "too late", 9.0)
        assert journal.search(stuck=True) == []

    # --- submit ---

    def test_submit_calls_back_from_another_thread_with_the_result(self, journal: Journal) -> None:
        calls: Queue[tuple[AppendResult | BaseException, int]] = Queue()
        scribe = Scribe(journal)

        def done(outcome: AppendResult | BaseException) -> None:
            calls.put((outcome, threading.get_ident()))

        journal.submit(scribe.opening(), done)
        outcome, thread = calls.get(timeout=PATIENCE_S)
        assert isinstance(outcome, Committed)
        assert thread != threading.get_ident()
        assert journal.load(outcome.eid).seq == 1

    def test_submit_calls_back_with_every_kind_of_refusal(self, journal: Journal) -> None:
        outcomes: Queue[AppendResult | BaseException] = Queue()
        scribe = Scribe(journal).start()
        journal.submit(scribe.opening(), outcomes.put)
        assert outcomes.get(timeout=PATIENCE_S) == AlreadyStarted()
        journal.submit(replace(scribe.next(), drive="d-2"), outcomes.put)
        assert isinstance(outcomes.get(timeout=PATIENCE_S), LeaseLost)
        journal.put(scribe.eid, CancelRequested(at=2.0, reason="changed"))
        journal.submit(scribe.next(), outcomes.put)
        assert isinstance(outcomes.get(timeout=PATIENCE_S), InboxPending)

    def test_a_callback_may_use_the_journal(self, journal: Journal) -> None:
        outcomes: Queue[AppendResult | BaseException] = Queue()
        scribe = Scribe(journal)

        def done(outcome: AppendResult | BaseException) -> None:
            assert isinstance(outcome, Committed)
            scribe.eid, scribe.epoch, scribe.seq = outcome.eid, outcome.epoch, 1
            scribe.step()
            journal.submit(scribe.next(), outcomes.put)

        journal.submit(scribe.opening(), done)
        assert outcomes.get(timeout=PATIENCE_S) == Committed(1, 1)
        assert journal.load(1).seq == 3

    def test_a_chain_of_callbacks_that_submit_neither_recurses_nor_stops(self, journal: Journal) -> None:
        scribe = Scribe(journal).start()
        depths: list[int] = []
        done = threading.Event()

        def go_on(outcome: AppendResult | BaseException) -> None:
            assert isinstance(outcome, Committed)
            scribe.seq += 1
            depths.append(len(inspect.stack(0)))
            if len(depths) == 200:
                done.set()
            else:
                journal.submit(scribe.next(), go_on)

        journal.submit(scribe.next(), go_on)
        assert done.wait(PATIENCE_S)
        assert len(set(depths)) == 1
        assert journal.load(scribe.eid).seq == 201

    def test_five_hundred_commits_in_flight_are_all_answered(self, journal: Journal) -> None:
        """Each execution submits its next commit from the callback of the one before."""
        ended: Queue[int] = Queue()

        def begin(number: int) -> None:
            scribe = Scribe(journal, f"s-{number}")

            def go_on(outcome: AppendResult | BaseException) -> None:
                assert isinstance(outcome, Committed)
                scribe.eid, scribe.epoch, scribe.seq = outcome.eid, outcome.epoch, scribe.seq + 1
                if scribe.seq < 3:
                    journal.submit(scribe.next(), go_on)
                elif scribe.seq == 3:
                    end = replace(scribe.next(status=SagaStatus.COMPLETED), release=Release())
                    journal.submit(end, go_on)
                else:
                    ended.put(number)

            journal.submit(scribe.opening(), go_on)

        for number in range(500):
            begin(number)
        assert sorted(ended.get(timeout=PATIENCE_S) for _ in range(500)) == list(range(500))
        assert len(journal.search(status=SagaStatus.COMPLETED, limit=1_000)) == 500
        assert {journal.load(eid).seq for eid in range(1, 501)} == {4}

    def test_a_callback_that_raises_disturbs_nobody(self, journal: Journal, caplog: pytest.LogCaptureFixture) -> None:
        def done(outcome: AppendResult | BaseException) -> None:
            raise ValueError("my own fault")

        outcomes: Queue[AppendResult | BaseException] = Queue()
        journal.submit(Scribe(journal, "s-1").opening(), done)
        journal.submit(Scribe(journal, "s-2").opening(), outcomes.put)
        assert isinstance(outcomes.get(timeout=PATIENCE_S), Committed)
        assert "my own fault" in caplog.text

    # --- threads ---

    def test_J03_fifty_threads_start_one_execution_and_one_of_them_holds_it(self, journal: Journal) -> None:
        ready = threading.Barrier(50)

        def start(number: int) -> AppendResult:
            scribe = Scribe(journal, drive=f"d-{number}")
            ready.wait(PATIENCE_S)
            return scribe.write(scribe.opening())

        results = _in_threads(start, 50)
        assert sum(isinstance(result, Committed) for result in results) == 1
        assert sum(isinstance(result, AlreadyStarted) for result in results) == 49

    def test_J03_twenty_threads_take_one_lease_and_one_of_them_gets_it(self, journal: Journal) -> None:
        scribe = Scribe(journal).start().release()
        ready = threading.Barrier(20)

        def take(number: int) -> bool:
            taker = scribe.taking(f"d-{number}")
            ready.wait(PATIENCE_S)
            try:
                taker.take()
            except LeaseLost:
                return False
            return True

        assert _in_threads(take, 20).count(True) == 1

    def test_executions_of_many_threads_do_not_mix(self, journal: Journal) -> None:
        def carry_on(number: int) -> list[Scribe]:
            scribes = [Scribe(journal, f"s-{number}-{i}", f"d-{number}").start() for i in range(5)]
            for _ in range(5):
                for scribe in scribes:
                    scribe.step()
            return [scribe.release(SagaStatus.COMPLETED) for scribe in scribes]

        for scribe in (scribe for scribes in _in_threads(carry_on, 12) for scribe in scribes):
            loaded = journal.load(scribe.eid)
            first = loaded.entries[0]
            assert isinstance(first, SagaStarted)
            assert (first.saga_id, loaded.seq, len(loaded.entries)) == (scribe.saga_id, 7, 7)
        assert len(journal.search(status=SagaStatus.COMPLETED, limit=100)) == 60

    def test_J03_mail_from_other_threads_is_taken_in_exactly_once(self, journal: Journal) -> None:
        scribe = Scribe(journal).start()
        ready = threading.Barrier(5)

        def put(number: int) -> None:
            ready.wait(PATIENCE_S)
            for i in range(10):
                journal.put(scribe.eid, CancelRequested(at=2.0, reason=f"{number}-{i}"))

        def drain(_: int) -> None:
            ready.wait(PATIENCE_S)
            taken = 0
            drained: tuple[InboxMessage, ...] = ()
            while taken < 40:
                commit = replace(scribe.next(), drained=tuple(message.id for message in drained))
                if drained:
                    commit = replace(commit, entries=tuple(message.entry for message in drained))
                refused = scribe.write(commit)
                taken += 0 if isinstance(refused, InboxPending) else len(drained)
                drained = refused.messages if isinstance(refused, InboxPending) else ()

        _in_threads(lambda number: drain(number) if number == 0 else put(number), 5)
        reasons = [e.reason for e in journal.load(scribe.eid).entries if isinstance(e, CancelRequested)]
        assert sorted(reasons) == sorted(f"{number}-{i}" for number in range(1, 5) for i in range(10))
        assert journal.load(scribe.eid).inbox == ()

    # --- close ---

    def test_what_was_submitted_is_answered_before_close_returns(self, journal: Journal) -> None:
        outcomes: list[AppendResult | BaseException] = []
        for i in range(20):
            journal.submit(Scribe(journal, f"s-{i}").opening(), outcomes.append)
        journal.close()
        assert [type(outcome) for outcome in outcomes] == [Committed] * 20

    def test_a_closed_journal_says_so(self, journal: Journal) -> None:
        scribe = Scribe(journal).start()
        header = journal.header("s-1")
        assert header is not None
        journal.close()
        calls: list[Callable[[], object]] = [
            lambda: journal.append(scribe.next()),
            lambda: journal.submit(scribe.next(), print),
            lambda: journal.header("s-1"),
            lambda: journal.load(scribe.eid),
            lambda: journal.is_held(header),
            lambda: journal.put(scribe.eid, CancelRequested(at=1.0, reason="late")),
            journal.search,
            lambda: journal.recoverable(now=1.0),
            lambda: journal.next_due(after=1.0),
            lambda: journal.purge(before=1.0),
            lambda: journal.note_stuck(header, "late", 1.0),
        ]
        for call in calls:
            with pytest.raises(JournalError, match="closed"):
                call()

    def test_closing_twice_and_abandoning_after_it_are_harmless(self, journal: Journal) -> None:
        scribe = Scribe(journal).start()
        journal.close()
        journal.close()
        journal.abandon(scribe.eid, scribe.epoch)


def _in_threads(work: Callable[[int], Result], count: int) -> list[Result]:
    """Do the work in that many threads at once; give what they returned, or raise what one of them raised."""
    with ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(work, number) for number in range(count)]
        return [future.result(timeout=PATIENCE_S) for future in futures]
