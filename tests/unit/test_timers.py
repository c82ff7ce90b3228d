"""Waits in the process: by monotonic time; a wall clock that is set forward ends those that waited for a wall time."""

from __future__ import annotations

import random

from saga_engine.timers import Timers


def test_waits_are_over_in_the_order_of_their_moments():
    timers, woken = Timers(), []
    for at_s in (3.0, 1.0, 2.0):
        timers.add(lambda at_s=at_s: woken.append(at_s), at_s)
    assert timers.next_s() == 1.0
    for wake in timers.due(2.0, 100.0):
        wake()
    assert woken == [1.0, 2.0]
    assert (timers.next_s(), len(timers)) == (3.0, 1)


def test_nothing_is_due_before_its_moment():
    timers = Timers()
    timers.add(lambda: None, 5.0)
    assert timers.due(4.9, 1_000_000.0) == []
    assert Timers().next_s() is None


def test_a_cancelled_wait_wakes_nobody_and_does_not_count():
    timers = Timers()
    timer = timers.add(lambda: None, 1.0)
    timers.cancel(timer)
    assert (len(timers), timers.next_s(), timers.due(2.0, 0.0)) == (0, None, [])


def test_cancelling_what_is_over_changes_nothing():
    timers = Timers()
    timer = timers.add(lambda: None, 1.0)
    timers.add(lambda: None, 2.0)
    timers.due(1.0, 0.0)
    timers.cancel(timer)
    assert len(timers) == 1


def test_cancelled_waits_do_not_stay_in_memory_until_their_moment():
    timers = Timers()
    for number in range(10_000):
        timers.cancel(timers.add(lambda: None, 1_000.0 + number))
    assert len(timers._heap) < 1_000


def test_a_clock_that_is_set_forward_ends_the_waits_that_it_jumps_over_and_no_others():
    timers, woken = Timers(), []
    timers.add(lambda: woken.append("jumped over"), 60.0, until_s=1_060.0)
    timers.add(lambda: woken.append("later"), 4_000.0, until_s=5_000.0)
    timers.add(lambda: woken.append("monotonic"), 50.0)
    assert timers.due(0.0, 1_000.0) == []
    for wake in timers.due(1.0, 4_601.0):
        wake()
    assert woken == ["jumped over"]
    assert len(timers) == 2


def test_a_clock_that_is_set_back_neither_ends_nor_prolongs_a_wait():
    timers = Timers()
    timers.add(lambda: None, 60.0, until_s=1_060.0)
    assert timers.due(0.0, 1_000.0) == []
    assert timers.due(1.0, 1_001.0 - 3_600) == []
    assert timers.next_s() == 60.0
    assert len(timers.due(60.0, 1_060.0 - 3_600)) == 1


def test_a_clock_that_is_set_right_again_after_it_was_set_back_ends_no_wait_early():
    timers = Timers()
    timers.add(lambda: None, 60.0, until_s=1_060.0)
    timers.due(0.0, 1_000.0)
    timers.due(1.0, 1_001.0 - 3_600)
    assert timers.due(2.0, 1_002.0) == []
    assert len(timers) == 1


def test_every_wait_is_over_exactly_once_whatever_is_added_and_cancelled_between():
    dice, timers, woken = random.Random(7), Timers(), []
    kept = set()
    for number in range(2_000):
        timer = timers.add(lambda number=number: woken.append(number), dice.random(), until_s=dice.random() * 10)
        if dice.random() < 0.5:
            timers.cancel(timer)
        else:
            kept.add(number)
    for tick in range(11):
        for wake in timers.due(tick / 10, dice.random() * 5):
            wake()
    assert (set(woken), len(woken), len(timers)) == (kept, len(kept), 0)
