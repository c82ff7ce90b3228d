"""What a worker could take up: pages in an order of its own, without what is being taken or was passed over."""

from __future__ import annotations

import pytest

from saga_engine import backlog as backlog_module
from saga_engine.backlog import Backlog
from saga_engine.journal import Header, SagaStatus


def header(eid, epoch=1, drive=None):
    """Make the header of an execution."""
    return Header(
        eid=eid, saga_id=f"Order:{eid}", generation=1, saga="Order", status=SagaStatus.SUSPENDED, epoch=epoch,
        created_at=0.0, updated_at=0.0, drive=drive,
    )  # fmt: skip


class Pages:
    """A journal of which only pages of headers can be read."""

    def __init__(self, count):
        self.headers = {eid: header(eid) for eid in range(1, count + 1)}
        self.asked = []

    def recoverable(self, *, now, after=0, limit=100, stuck_before=None):
        self.asked.append((now, after, limit, stuck_before))
        return [found for eid, found in sorted(self.headers.items()) if eid > after][:limit]

    def header(self, saga_id, generation=None):
        return self.headers.get(int(saga_id.partition(":")[2]))


@pytest.fixture(autouse=True)
def small_pages(monkeypatch):
    monkeypatch.setattr(backlog_module, "PAGE", 10)


def taken(backlog):
    """Take everything that was read."""
    found = []
    while (candidate := backlog.pop()) is not None:
        found.append(candidate.header.eid)
    return found


def test_pages_are_read_oldest_first_and_begin_anew_after_the_last():
    pages = Pages(25)
    backlog = Backlog(pages)
    rounds = []
    for _ in range(4):
        backlog.read(100.0, 0.0, ())
        rounds.append(sorted(taken(backlog)))
    assert rounds == [list(range(1, 11)), list(range(11, 21)), list(range(21, 26)), list(range(1, 11))]
    assert pages.asked[0] == (100.0, 0, 10, 100.0 - backlog_module.STUCK_S)


def test_workers_take_a_page_in_different_orders():
    orders = set()
    for _ in range(5):
        backlog = Backlog(Pages(10))
        backlog.read(0.0, 0.0, ())
        orders.add(tuple(taken(backlog)))
    assert len(orders) > 1


def test_what_is_being_taken_up_is_left_out():
    backlog = Backlog(Pages(5))
    backlog.read(0.0, 0.0, {2, 4})
    assert sorted(taken(backlog)) == [1, 3, 5]


def test_what_was_passed_over_is_left_out_for_a_while_unless_somebody_drove_it_meanwhile():
    pages = Pages(3)
    backlog = Backlog(pages)
    for eid in (1, 2):
        backlog.pass_over(eid, 1, 0.0)
    pages.headers[2] = header(2, epoch=2)
    backlog.read(0.0, 1.0, ())
    assert sorted(taken(backlog)) == [2, 3]
    backlog.read(0.0, 1_000.0, ())
    assert sorted(taken(backlog)) == [1, 2, 3]


def test_pages_of_which_everything_was_passed_over_are_skipped_at_once():
    pages = Pages(35)
    backlog = Backlog(pages)
    for eid in range(1, 31):
        backlog.pass_over(eid, 1, 0.0)
    backlog.read(0.0, 0.0, ())
    assert sorted(taken(backlog)) == [31, 32, 33, 34, 35]
    assert not backlog.has_more


def test_no_more_than_so_many_pages_are_read_at_once():
    pages = Pages(1_000)
    backlog = Backlog(pages)
    for eid in range(1, 1_001):
        backlog.pass_over(eid, 1, 0.0)
    backlog.read(0.0, 0.0, ())
    assert len(pages.asked) == 16
    assert backlog.has_more


def test_what_is_remembered_as_passed_over_is_bounded(monkeypatch):
    monkeypatch.setattr(backlog_module, "_PASSED_OVER_MAX", 5)
    backlog = Backlog(Pages(10))
    for eid in range(1, 11):
        backlog.pass_over(eid, 1, 0.0)
    backlog.read(0.0, 0.0, ())
    assert sorted(taken(backlog)) == [1, 2, 3, 4, 5]


def test_a_header_that_was_read_long_ago_is_read_again_and_dropped_if_somebody_took_the_execution():
    pages = Pages(4)
    backlog = Backlog(pages)
    backlog.read(0.0, 0.0, ())
    candidates = {}
    while (candidate := backlog.pop()) is not None:
        candidates[candidate.header.eid] = candidate
    pages.headers[2] = header(2, epoch=2)
    pages.headers[3] = header(3, drive="other")
    del pages.headers[4]
    assert backlog.refreshed(candidates[2], 0.05) is candidates[2].header
    assert [backlog.refreshed(candidates[eid], 5.0) for eid in (1, 2, 3, 4)] == [header(1), None, None, None]
