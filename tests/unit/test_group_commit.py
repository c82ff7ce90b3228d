"""The group commit: who commits what in which thread, and what happens when that fails."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Queue
from typing import Any

import pytest

from saga_engine.errors import JournalError, JournalUnavailable, LeaseLost
from saga_engine.journals.commits import GroupCommit, Task

PATIENCE_S = 30.0


class Disk:
    """Where the tasks go: notes each batch and its thread, and can be told to block or to fail."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.threads: list[int] = []
        self.failures: list[BaseException] = []
        self.entered = threading.Semaphore(0)
        self.is_gated = False
        self.permits = threading.Semaphore(0)
        self.durable: list[Any] = []

    def write(self, tasks: list[Task[Disk]], outcomes: list[Any]) -> None:
        self.batches.append(len(tasks))
        self.threads.append(threading.get_ident())
        results = [self._attempt(task) for task in tasks]
        self.entered.release()
        if self.is_gated:
            assert self.permits.acquire(timeout=PATIENCE_S)
        if self.failures:
            raise self.failures.pop(0)
        self.durable += results
        outcomes += results

    def open(self) -> None:
        """Let whoever is in the middle of a commit, and everybody after that, finish it."""
        self.is_gated = False
        self.permits.release()

    def _attempt(self, task: Task[Disk]) -> Any:
        try:
            return task(self)
        except (LeaseLost, JournalError) as refusal:
            return refusal


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def commits(disk: Disk) -> Iterator[GroupCommit[Disk]]:
    commits = GroupCommit(disk.write, name="test-writer")
    yield commits
    disk.open()
    commits.close()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(64) as pool:
        yield pool


def wait_until(condition: Callable[[], object]) -> None:
    """Look again and again, without a clock of its own but the deadline."""
    pause = threading.Event()
    for _ in range(int(PATIENCE_S / 0.001)):
        if condition():
            return
        pause.wait(0.001)
    raise AssertionError("it did not happen")


def giving(result: int) -> Task[Disk]:
    """A task with that result."""
    return lambda _: result


def queued(commits: GroupCommit[Disk]) -> int:
    return len(commits._queue)


def block(disk: Disk, commits: GroupCommit[Disk], pool: ThreadPoolExecutor) -> Future[Any]:
    """Let one thread be in the middle of its commit."""
    disk.is_gated = True
    first = pool.submit(commits.run, lambda _: "first")
    assert disk.entered.acquire(timeout=PATIENCE_S)
    return first


def test_J06_a_lone_writer_commits_in_its_own_thread(disk: Disk, commits: GroupCommit[Disk]) -> None:
    assert commits.run(lambda _: "mine") == "mine"
    assert disk.threads == [threading.get_ident()]
    assert "test-writer" not in {thread.name for thread in threading.enumerate()}


def test_J06_writers_that_arrive_together_share_one_commit(
    disk: Disk, commits: GroupCommit[Disk], pool: ThreadPoolExecutor
) -> None:
    first = block(disk, commits, pool)
    rest = [pool.submit(commits.run, giving(number)) for number in range(20)]
    wait_until(lambda: queued(commits) == 20)
    disk.open()
    assert first.result(PATIENCE_S) == "first"
    assert [future.result(PATIENCE_S) for future in rest] == list(range(20))
    assert disk.batches == [1, 20]


def test_J06_nobody_returns_before_their_own_commit_is_over(
    disk: Disk, commits: GroupCommit[Disk], pool: ThreadPoolExecutor
) -> None:
    calls: Queue[Any] = Queue()
    first = block(disk, commits, pool)
    rest = [pool.submit(commits.run, lambda _: None) for _ in range(5)]
    wait_until(lambda: queued(commits) == 5)
    commits.submit(lambda _: "submitted", calls.put)
    disk.permits.release()
    first.result(PATIENCE_S)
    assert disk.entered.acquire(timeout=PATIENCE_S)
    assert disk.batches == [1, 6]
    assert not any(future.done() for future in rest)
    assert calls.empty()
    disk.open()
    assert [future.result(PATIENCE_S) for future in rest] == [None] * 5
    assert calls.get(timeout=PATIENCE_S) == "submitted"


def test_J06_a_batch_is_bounded(disk: Disk, pool: ThreadPoolExecutor) -> None:
    commits = GroupCommit(disk.write, name="test-writer", batch_max=4)
    block(disk, commits, pool)
    rest = [pool.submit(commits.run, lambda _: None) for _ in range(10)]
    wait_until(lambda: queued(commits) == 10)
    disk.open()
    for future in rest:
        future.result(PATIENCE_S)
    assert disk.batches == [1, 4, 4, 2]
    commits.close()


def test_J06_one_refused_member_does_not_disturb_the_others(
    disk: Disk, commits: GroupCommit[Disk], pool: ThreadPoolExecutor
) -> None:
    def refuse(_: Disk) -> None:
        raise LeaseLost("not yours")

    block(disk, commits, pool)
    kept = pool.submit(commits.run, lambda _: "kept")
    refused = pool.submit(commits.run, refuse)
    wait_until(lambda: queued(commits) == 2)
    disk.open()
    assert kept.result(PATIENCE_S) == "kept"
    with pytest.raises(LeaseLost, match="not yours"):
        refused.result(PATIENCE_S)


def test_J06_a_failed_commit_fails_every_member_and_the_next_one_goes_through(
    disk: Disk, commits: GroupCommit[Disk], pool: ThreadPoolExecutor
) -> None:
    calls: Queue[Any] = Queue()
    block(disk, commits, pool).add_done_callback(lambda _: None)
    rest = [pool.submit(commits.run, lambda _: None) for _ in range(3)]
    wait_until(lambda: queued(commits) == 3)
    commits.submit(lambda _: None, calls.put)
    disk.failures = [JournalUnavailable("full"), JournalUnavailable("still full")]
    disk.open()
    errors = [future.exception(PATIENCE_S) for future in rest]
    assert [str(error) for error in errors] == ["still full"] * 3
    assert len({id(error) for error in errors}) == 3
    assert str(calls.get(timeout=PATIENCE_S)) == "still full"
    assert commits.run(lambda _: "again") == "again"
    assert disk.durable == ["again"]


def test_J06_a_callback_runs_in_the_writers_thread_even_if_somebody_else_led(
    disk: Disk, commits: GroupCommit[Disk], pool: ThreadPoolExecutor
) -> None:
    names: Queue[str] = Queue()
    block(disk, commits, pool)
    waiting = pool.submit(commits.run, lambda _: None)
    wait_until(lambda: queued(commits) == 1)
    for _ in range(3):
        commits.submit(lambda _: None, lambda _: names.put(threading.current_thread().name))
    disk.open()
    waiting.result(PATIENCE_S)
    assert [names.get(timeout=PATIENCE_S) for _ in range(3)] == ["test-writer"] * 3
    assert disk.batches == [1, 4]


def test_J06_what_callbacks_submit_shares_the_next_commit(
    disk: Disk, commits: GroupCommit[Disk], pool: ThreadPoolExecutor
) -> None:
    ended: Queue[Any] = Queue()
    block(disk, commits, pool)
    for _ in range(20):
        commits.submit(lambda _: "first", lambda _: commits.submit(lambda _: "second", ended.put))
    wait_until(lambda: queued(commits) == 20)
    disk.open()
    assert [ended.get(timeout=PATIENCE_S) for _ in range(20)] == ["second"] * 20
    assert disk.batches == [1, 20, 20]


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs a signal to one thread")
def test_J06_an_interrupted_writer_takes_its_task_back_and_blocks_nobody(
    disk: Disk, commits: GroupCommit[Disk], pool: ThreadPoolExecutor
) -> None:
    main = threading.get_ident()

    is_interrupted = threading.Event()

    def interrupt() -> None:
        wait_until(lambda: queued(commits) == 1)
        while not is_interrupted.is_set():
            signal.pthread_kill(main, signal.SIGINT)
            # Python does not see a signal that comes in the moment before it waits for a lock: it takes another one.
            is_interrupted.wait(1.0)

    first = block(disk, commits, pool)
    interrupting = pool.submit(interrupt)
    with pytest.raises(KeyboardInterrupt):
        commits.run(lambda _: "interrupted")
    is_interrupted.set()
    interrupting.result(PATIENCE_S)
    disk.open()
    first.result(PATIENCE_S)
    assert commits.run(lambda _: "next") == "next"
    assert disk.durable == ["first", "next"]


def test_J06_an_interrupt_of_the_thread_that_leads_is_told_to_the_others(
    disk: Disk, commits: GroupCommit[Disk], pool: ThreadPoolExecutor
) -> None:
    first = block(disk, commits, pool)
    rest = [pool.submit(commits.run, lambda _: None) for _ in range(3)]
    wait_until(lambda: queued(commits) == 3)
    disk.failures = [KeyboardInterrupt(), KeyboardInterrupt()]
    disk.open()
    errors = [future.exception(PATIENCE_S) for future in (first, *rest)]
    kinds = sorted(type(error).__name__ for error in errors)
    assert kinds == ["JournalUnavailable", "JournalUnavailable", "KeyboardInterrupt", "KeyboardInterrupt"]
    assert commits.run(lambda _: "again") == "again"


def test_while_it_is_held_nothing_is_committed(
    disk: Disk, commits: GroupCommit[Disk], pool: ThreadPoolExecutor
) -> None:
    assert commits.hold(PATIENCE_S)
    calls: Queue[Any] = Queue()
    waiting = pool.submit(commits.run, lambda _: "waited")
    commits.submit(lambda _: "submitted", calls.put)
    wait_until(lambda: queued(commits) == 2)
    assert disk.batches == []
    commits.resume()
    assert waiting.result(PATIENCE_S) == "waited"
    assert calls.get(timeout=PATIENCE_S) == "submitted"


def test_holding_waits_for_the_commit_under_way_but_not_for_those_queued(
    disk: Disk, commits: GroupCommit[Disk], pool: ThreadPoolExecutor
) -> None:
    first = block(disk, commits, pool)
    waiting = pool.submit(commits.run, lambda _: "waited")
    wait_until(lambda: queued(commits) == 1)
    assert not commits.hold(0.0)
    holding = pool.submit(commits.hold, PATIENCE_S)
    wait_until(lambda: commits._is_hold_wanted)
    disk.open()
    assert holding.result(PATIENCE_S)
    assert first.result(PATIENCE_S) == "first"
    assert disk.batches == [1]
    commits.resume()
    assert waiting.result(PATIENCE_S) == "waited"


class WokenAtOnce:
    """A ticket's lock whose waiter looks around before the thread that released it goes on."""

    def __init__(self, lock: Any) -> None:
        self._lock = lock

    def locked(self) -> bool:
        return bool(self._lock.locked())

    def release(self) -> None:
        self._lock.release()
        threading.Event().wait(0.1)  # nothing tells that it has looked: it has every chance


@pytest.mark.parametrize("is_held", [True, False])
def test_J06_whoever_is_woken_to_lead_leads_however_soon_it_looks(
    disk: Disk, commits: GroupCommit[Disk], pool: ThreadPoolExecutor, is_held: bool
) -> None:
    first = None if is_held else block(disk, commits, pool)
    assert not is_held or commits.hold(PATIENCE_S)
    waiting = pool.submit(commits.run, lambda _: "waited")
    wait_until(lambda: queued(commits) == 1)
    ticket: Any = commits._queue[0]
    ticket.turn = WokenAtOnce(ticket.turn)
    if first is None:
        commits.resume()
    else:
        disk.open()
        assert first.result(PATIENCE_S) == "first"
    assert waiting.result(PATIENCE_S) == "waited"


def test_many_threads_and_callbacks_all_get_their_own_result(disk: Disk, pool: ThreadPoolExecutor) -> None:
    commits = GroupCommit(disk.write, name="test-writer", batch_max=7)
    calls: Queue[int] = Queue()

    def work(number: int) -> list[int]:
        commits.submit(lambda _: number, calls.put)
        return [commits.run(giving(number * 100 + i)) for i in range(20)]

    results = list(pool.map(work, range(64)))
    assert results == [[number * 100 + i for i in range(20)] for number in range(64)]
    commits.close()
    assert sorted(calls.get(timeout=PATIENCE_S) for _ in range(64)) == list(range(64))
