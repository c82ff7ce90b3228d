"""Workers as real processes on one SQLite file: they share the work, stop on SIGTERM, and survive each other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import worker_child
from sagas import World, saga_of
from worker_child import Ledgered, calls_in, journal_in

from saga_engine import Engine, SagaStatus
from saga_engine.testing import ManualClock

#: How long anything may take that is waited for, in seconds.
LIMIT_S = 60.0


@contextmanager
def worker(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a worker process; it does not outlive the block."""
    process = subprocess.Popen([sys.executable, worker_child.__file__, str(folder)], stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def eventually(condition: Callable[[], object]) -> None:
    """Wait for a condition; fail if it does not come about in time."""
    ends_at = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < ends_at, "it did not come about in time"
        time.sleep(0.01)


def begun(folder: Path, count: int, **more: bool) -> list[str]:
    """Begin executions, an hour ago: each of them waits for a time that is over by now; give their ids."""
    with Engine(journal_in(folder), config={}, clock=ManualClock(time.time() - 3_600)) as engine:
        saga = Ledgered.make(engine=engine)
        for number in range(count):
            saga.resolve({"id": f"PR-{number}", "folder": str(folder), **more})
    return [f"Ledgered:PR-{number}" for number in range(count)]


def exit_status_of(child: int) -> int:
    """Wait for a forked child; kill it if it does not end in time."""
    ends_at = time.monotonic() + LIMIT_S
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid == child:
            return status
        if time.monotonic() > ends_at:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.01)


def terminated(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Send SIGTERM; give the exit status and what it wrote."""
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=LIMIT_S)
    return process.returncode, errors


def test_two_worker_processes_share_the_work_run_no_step_twice_and_end_on_sigterm(tmp_path):
    with Engine(journal_in(tmp_path), config={}, poll_s=0.05) as engine:
        ids = begun(tmp_path, 60)
        with worker(tmp_path) as one, worker(tmp_path) as two:
            assert {engine.wait(saga_id, LIMIT_S).status for saga_id in ids} == {"success"}
            assert terminated(one) == (0, "")
            assert terminated(two) == (0, "")
    calls = calls_in(tmp_path)
    assert Counter(Counter((saga_id, step) for saga_id, step, _ in calls).values()) == {2: 60, 1: 120}
    assert {step for saga_id, step, pid in calls if pid == os.getpid()} == {"First"}


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM to handle")
def test_sigterm_waits_for_the_running_step_and_leaves_the_rest_to_others(tmp_path):
    with Engine(journal_in(tmp_path), config={}, poll_s=0.05) as engine:
        [saga_id] = begun(tmp_path, 1, waits=True)
        with worker(tmp_path) as process:
            eventually((tmp_path / "reached").exists)
            process.send_signal(signal.SIGTERM)
            eventually((tmp_path / "stopping").exists)
            assert process.poll() is None
            (tmp_path / "go").touch()
            assert (process.communicate(timeout=LIMIT_S)[1], process.returncode) == ("", 0)
        record = engine.get(saga_id)
        assert [step.status.value for step in record.steps] == ["COMPLETED", "COMPLETED", "PENDING"]
        assert (record.status, record.held_by) == (SagaStatus.SUSPENDED, None)
        assert engine.recover() == 1
        assert engine.wait(saga_id).status == "success"
    assert Counter(step for _, step, _ in calls_in(tmp_path)) == {"First": 2, "Second": 1, "Third": 1}


def test_S16_a_worker_process_takes_over_what_a_killed_one_left(tmp_path):
    with Engine(journal_in(tmp_path), config={}, poll_s=0.05) as engine:
        [saga_id] = begun(tmp_path, 1, waits=True)
        with worker(tmp_path) as process:
            eventually((tmp_path / "reached").exists)
            process.kill()
            process.wait()
        (tmp_path / "go").touch()
        with worker(tmp_path) as heir:
            assert engine.wait(saga_id, LIMIT_S).status == "success"
            assert terminated(heir) == (0, "")
    assert Counter(step for _, step, _ in calls_in(tmp_path)) == {"First": 2, "Second": 2, "Third": 1}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("is_loop_running", [False, True], ids=["while a loop begins", "while a loop runs"])
def test_a_forked_child_has_a_worker_of_its_own(tmp_path, is_loop_running):
    # Python warns of forks among threads since 3.12; that a worker does not mind is what is tested.
    saga = saga_of(World().step("a"), World(is_native_async=True).step("b"))
    with Engine(journal_in(tmp_path), config={}, poll_s=0.05) as engine:
        engine.start(saga, {"id": "PR-parent"})
        if is_loop_running:
            engine.wait("Order:PR-parent", LIMIT_S)
        child = os.fork()
        if child == 0:
            answer = engine.wait(engine.start(saga, {"id": "PR-child"}), LIMIT_S)
            os._exit(0 if answer.status == "success" and engine.stop() == 0 else 1)
        assert os.waitstatus_to_exitcode(exit_status_of(child)) == 0
        assert {engine.wait(f"Order:PR-{name}", LIMIT_S).status for name in ("parent", "child")} == {"success"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_ends_run_and_finds_its_handler_as_before_afterwards(tmp_path, number):
    before = signal.getsignal(number)
    with Engine(journal_in(tmp_path), config={}, poll_s=0.05) as engine:

        def kill():
            eventually(lambda: signal.getsignal(number) is not before)
            os.kill(os.getpid(), number)

        killer = threading.Thread(target=kill)
        killer.start()
        assert engine.run() == 0
        killer.join()
    assert signal.getsignal(number) is before
