"""The command `saga worker`: what it prints, how it stops, and what the next one finds after it was killed."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from command_line import DEADLINE_S, Run, command_in, finish, prepare, start, wait_for

from saga_engine import Engine


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of the test's own, with two requests in it."""
    return prepare(tmp_path, monkeypatch)


@pytest.fixture
def saga(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process."""
    return command_in(capsys)


@contextmanager
def working(*arguments: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Have a worker, which does not outlive the test."""
    with start("worker", "--poll", "0.05", *arguments, **options) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def suspended(saga: Run, here: Path) -> str:
    """An execution that is due at once."""
    (here / "due.json").write_text('{"id": "PR-1", "timeout_s": 0.01}')
    assert saga("run", "cli_sagas:Polling", "due.json").code == 5
    return "Polling:PR-1"


def status(here: Path, saga_id: str) -> str:
    with Engine(f"sqlite:///{here / 'saga.db'}") as engine:
        return engine.get(saga_id).status.value


def test_a_worker_takes_up_what_is_due_and_exits_0_at_SIGTERM(here: Path, suspended: str) -> None:
    with working("cli_sagas:Polling") as process:
        wait_for(lambda: status(here, suspended) == "COMPLETED")
        process.send_signal(signal.SIGTERM)
        ran = finish(process)
    assert ran.code == 0
    first, end, last = ran.out.splitlines()
    assert first == "Working on Polling in sqlite:///saga.db. Ctrl-C or SIGTERM stops it."
    assert end.endswith("  Polling:PR-1 COMPLETED")
    assert last == "Stopped: 1 completed."


def test_each_end_is_one_line_of_json(here: Path, suspended: str) -> None:
    with working("--json", "cli_sagas:Polling") as process:
        wait_for(lambda: status(here, suspended) == "COMPLETED")
        process.send_signal(signal.SIGINT)
        ran = finish(process)
    assert ran.code == 0
    end = json.loads(ran.out)
    assert end.pop("at") <= time.time()
    expected = {"saga_id": suspended, "status": "COMPLETED", "answer": {"status": "success"}, "error": None}
    assert end == expected


def test_what_parks_is_told_with_its_cause_and_logged(here: Path, saga: Run) -> None:
    saga("run", "cli_sagas:Parking", "bad.json")
    with working("--json", "cli_sagas:Parking") as process:
        assert process.stdout is not None
        with Engine(f"sqlite:///{here / 'saga.db'}") as engine:
            header = engine.journal.header("Parking:PR-2")
            assert header is not None
            _resume_by_mail(engine, header.eid)
        end = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGTERM)
        ran = finish(process)
    assert (end["status"], end["answer"]) == ("PARKED", None)
    assert end["error"] == "parked at CannotUndo: compensate failed: the vendor is gone"
    assert "step parked: saga_id='Parking:PR-2' step='CannotUndo'" in ran.err


def _resume_by_mail(engine: Engine, eid: int) -> None:
    from saga_engine.journal import StepResumed

    engine.journal.put(eid, StepResumed(at=time.time(), step="CannotUndo"))


def hanging(saga: Run, here: Path) -> None:
    """Leave an execution that the next worker takes up in the step that hangs."""
    with start("run", "cli_sagas:Hanging", "good.json") as process:
        wait_for((here / "hanging").exists)
        process.kill()
    (here / "hanging").unlink()


def test_a_running_step_is_waited_for_when_the_worker_is_stopped(saga: Run, here: Path) -> None:
    hanging(saga, here)
    with working("cli_sagas:Hanging") as process:
        wait_for((here / "hanging").exists)
        process.send_signal(signal.SIGTERM)
        (here / "go-on").touch()
        ran = finish(process)
    assert ran.code == 0
    assert status(here, "Hanging:PR-1") in ("SUSPENDED", "COMPLETED")
    assert saga("list", "--json").json[0]["held_by"] is None


def test_a_step_that_outlasts_the_stop_is_left_to_the_next_worker_and_exits_5(saga: Run, here: Path) -> None:
    hanging(saga, here)
    with working("--stop-timeout", "0.1", "cli_sagas:Hanging") as process:
        wait_for((here / "hanging").exists)
        process.send_signal(signal.SIGTERM)
        ran = finish(process)
    assert ran.code == 5
    assert "1 execution was still in a step after 0.1 s" in ran.err
    (here / "go-on").touch()
    with working("cli_sagas:Hanging"):
        wait_for(lambda: status(here, "Hanging:PR-1") == "COMPLETED")


def test_a_second_signal_does_not_wait_for_the_running_step(saga: Run, here: Path) -> None:
    hanging(saga, here)
    with working("--stop-timeout", "600", "cli_sagas:Hanging") as process:
        wait_for((here / "hanging").exists)
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):  # the first one waits; it has been heard by then
            process.wait(1)
        process.send_signal(signal.SIGINT)
        process.wait(DEADLINE_S / 2)  # the step itself would end after a minute
        ran = finish(process)
    assert ran.code == 130
    assert ran.err.endswith(
        "saga: stopped by SIGINT; what was in a step then is left: the next worker goes on from there\n"
    )


def test_a_killed_worker_loses_nothing(saga: Run, here: Path) -> None:
    hanging(saga, here)
    with working("cli_sagas:Hanging") as process:
        wait_for((here / "hanging").exists)
        assert saga("list", "--json").json[0]["held_by"].endswith(f":{process.pid}")
        process.kill()
        process.wait(DEADLINE_S)
    assert saga("list", "--json").json[0]["held_by"] is None
    assert "nobody drives it now: saga recover takes it up" in saga("show", "Hanging:PR-1").out
    (here / "go-on").touch()
    with working("cli_sagas:Hanging", "cli_sagas:Polling"):
        wait_for(lambda: status(here, "Hanging:PR-1") == "COMPLETED")
    steps = saga("show", "Hanging:PR-1", "--json").json["steps"]
    assert [step["attempts"] for step in steps] == [1, 3, 1]


def test_a_module_stands_for_all_its_sagas(here: Path, suspended: str) -> None:
    (here / "shop.py").write_text("from cli_sagas import Order, Polling\n")
    with working("shop") as process:
        wait_for(lambda: status(here, suspended) == "COMPLETED")
        process.send_signal(signal.SIGTERM)
        assert finish(process).out.startswith("Working on Order, Polling in ")


def test_a_worker_whose_reader_is_gone_stops(here: Path, suspended: str) -> None:
    reader, writer = os.pipe()
    with working("--json", "cli_sagas:Polling", stdout=writer) as process:
        os.close(writer)
        os.close(reader)
        assert process.wait(DEADLINE_S) == 1
    assert status(here, suspended) == "COMPLETED"


def test_a_terminal_shows_what_is_under_way_and_what_ended(saga: Run, here: Path) -> None:
    hanging(saga, here)
    terminal, slave = pty.openpty()
    with working("cli_sagas:Hanging", stdin=slave, stdout=slave) as process:
        os.close(slave)
        assert "running Hang" in _read_until(terminal, "1 under way")
        (here / "go-on").touch()
        _read_until(terminal, "1 completed; 0 under way")
        process.send_signal(signal.SIGTERM)
        assert "\x1b[?25h" in _read_until(terminal, "Stopped: 1 completed."), "the cursor is shown again"
        assert process.wait(DEADLINE_S) == 0
    os.close(terminal)


def _read_until(terminal: int, text: str) -> str:
    read, until = "", time.monotonic() + DEADLINE_S
    while text not in read:
        assert time.monotonic() < until, read
        read += os.read(terminal, 65_536).decode(errors="replace")
    return read
