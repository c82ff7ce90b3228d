"""The threads of a worker: one while it keeps up, more when work waits because all stand in steps, none at the end."""

from __future__ import annotations

import threading
import time

import pytest

from saga_engine.ready import ReadyThreads

LIMIT_S = 30.0


def eventually(condition):
    """Wait for a condition; fail if it does not come about in time."""
    ends_at = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < ends_at, "it did not come about in time"
        time.sleep(0.001)


class Strain:
    """Remembers that work may have to wait."""

    def __init__(self):
        self.count = 0

    def __call__(self):
        self.count += 1


@pytest.fixture
def strain():
    return Strain()


@pytest.fixture
def threads(strain):
    made = ReadyThreads(4, strain)
    yield made
    made.end()
    eventually(lambda: made.count == 0)


def in_step(threads, gate):
    """Make work that stands in a step until the gate opens."""

    def work():
        threads.enter_step()
        try:
            assert gate.wait(LIMIT_S)
        finally:
            threads.leave_step()

    return work


def test_quick_work_is_done_by_one_thread_in_order(threads, strain):
    done = []
    for number in range(1_000):
        threads.push(lambda number=number: done.append(number))
    eventually(lambda: len(done) == 1_000)
    assert done == sorted(done)
    assert threads.count == 1
    assert not threads.relieve()


def test_no_thread_comes_while_one_that_is_awake_will_look_for_work_itself(threads):
    gate, is_there = threading.Event(), threading.Event()
    threads.push(lambda: (is_there.set(), gate.wait(LIMIT_S)))  # it does not say that it stands in a step
    assert is_there.wait(LIMIT_S)
    threads.push(gate.set)
    assert threads.relieve()
    assert threads.count == 1
    gate.set()


def test_threads_come_when_work_waits_for_steps_more_each_time_up_to_the_most(threads, strain):
    gate = threading.Event()
    for _ in range(10):
        threads.push(in_step(threads, gate))
    eventually(lambda: strain.count == 1)
    counts = []
    for _ in range(4):
        eventually(lambda: threads._seeking == 0)
        assert threads.relieve()
        counts.append(threads.count)
    assert counts == [2, 4, 4, 4]
    gate.set()
    eventually(lambda: not threads.relieve())


def test_a_sleeping_thread_comes_at_once_when_the_others_stand_in_steps(threads, strain):
    gate, other = threading.Event(), threading.Event()
    threads.push(in_step(threads, gate))
    threads.push(in_step(threads, other))
    eventually(lambda: threads.relieve() is False)
    assert threads.count == 2
    other.set()
    eventually(lambda: threads._idle)
    done = threading.Event()
    threads.push(done.set)
    assert done.wait(LIMIT_S)
    assert threads.count == 2
    gate.set()


def test_what_work_raises_is_logged_and_ends_no_thread(threads, caplog):
    def fail():
        raise SystemExit

    done = threading.Event()
    threads.push(fail)
    threads.push(done.set)
    assert done.wait(LIMIT_S)
    assert threads.count == 1
    assert "it goes on" in caplog.text


def test_threads_end_when_they_are_told_to_and_nothing_is_left(strain):
    threads, done = ReadyThreads(2, strain), []
    for number in range(100):
        threads.push(lambda number=number: done.append(number))
    threads.end()
    eventually(lambda: threads.count == 0)
    assert len(done) == 100


def test_what_comes_after_the_end_is_still_done(strain):
    threads, done = ReadyThreads(1, strain), threading.Event()
    threads.end()
    threads.push(done.set)
    assert done.wait(LIMIT_S)
    eventually(lambda: threads.count == 0)


def test_no_work_is_lost_among_many_that_push(strain):
    threads, done, lock = ReadyThreads(3, strain), [0], threading.Lock()

    def work():
        threads.enter_step()
        threads.leave_step()
        with lock:
            done[0] += 1

    def push():
        for _ in range(2_000):
            threads.push(work)

    pushers = [threading.Thread(target=push) for _ in range(4)]
    for pusher in pushers:
        pusher.start()
    eventually(lambda: threads.relieve() is False and done[0] == 8_000)
    for pusher in pushers:
        pusher.join()
    threads.end()
    eventually(lambda: threads.count == 0)
