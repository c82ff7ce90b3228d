"""Alarms: they ring in the order of their time, and a cancelled one does not ring."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import pytest

from saga_engine.alarms import Alarms

LONG_S = 60.0


@pytest.fixture
def alarms() -> Iterator[Alarms]:
    made = Alarms()
    yield made
    made.close()


def test_alarms_ring_in_the_order_of_their_time_whatever_their_length(alarms):
    rung, is_over = [], threading.Event()
    alarms.set(0.03, lambda: rung.append("last") or is_over.set())
    alarms.set(0.01, lambda: rung.append("first"))
    alarms.set(0.02, lambda: rung.append("second"))
    assert is_over.wait(30)
    assert rung == ["first", "second", "last"]


def test_a_shorter_alarm_wakes_the_thread_that_waits_for_a_longer_one(alarms):
    is_rung = threading.Event()
    long = alarms.set(LONG_S, lambda: None)
    alarms.set(0.0, is_rung.set)
    assert is_rung.wait(30)
    alarms.cancel(long)


def test_a_cancelled_alarm_does_not_ring_and_leaves_nothing_behind(alarms):
    rung, is_over = [], threading.Event()
    alarm = alarms.set(0.01, lambda: rung.append("cancelled"))
    alarms.cancel(alarm)
    alarms.cancel(alarm)
    alarms.set(0.02, is_over.set)
    assert is_over.wait(30)
    assert rung == []
    assert alarms._queues == {}


def test_an_alarm_that_raises_is_logged_and_the_others_ring(alarms, caplog):
    is_over = threading.Event()

    def fail() -> None:
        raise ValueError("no")

    with caplog.at_level(logging.ERROR):
        alarms.set(0.0, fail)
        alarms.set(0.01, is_over.set)
        assert is_over.wait(30)
    assert "an alarm raised" in caplog.text


def test_closing_forgets_what_is_in_the_background_and_waits_for_the_rest():
    alarms, is_rung, may_ring = Alarms(), threading.Event(), threading.Event()
    alarms.set(LONG_S, lambda: None, is_in_background=True)
    alarms.set(0.01, lambda: may_ring.wait(30) and is_rung.set())
    thread = alarms._thread
    alarms.close()
    may_ring.set()
    assert is_rung.wait(30)
    thread.join(30)
    assert not thread.is_alive()


def test_an_alarm_that_is_set_after_closing_rings():
    alarms, is_rung = Alarms(), threading.Event()
    alarms.close()
    alarms.set(0.0, is_rung.set)
    assert is_rung.wait(30)


def test_after_a_fork_alarms_begin_anew(alarms, monkeypatch):
    """The child has neither the thread nor what it waited for."""
    theirs = alarms.set(LONG_S, lambda: None)
    monkeypatch.setattr("saga_engine.alarms.os.getpid", lambda: -1)
    alarms.cancel(theirs)
    is_rung = threading.Event()
    alarms.set(0.0, is_rung.set)
    assert is_rung.wait(30)
    assert alarms._queues == {}
    alarms.close()
