"""The runner is found, kept from proxies and real time limits, and never outlives whoever started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from runner_puppet import install

from saga_engine.connect import local_guard
from saga_engine.connect.local_errors import NotConnected, RunnerFailed, RunnerMissing
from saga_engine.connect.local_runner import LocalRunner, find_runner, without_proxies

WAIT_S = 20.0


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:  # there is no /proc, or it ended now
        return not Path("/proc/self").exists()
    except ProcessLookupError:
        return False
    return "State:\tZ" not in status  # not every system's first process buries the orphans


def wait_for_end(pid: int) -> None:
    until = time.monotonic() + WAIT_S
    while is_alive(pid):
        assert time.monotonic() < until, "it is still alive"
        time.sleep(0.01)


def start(folder: Path, script: str, lifetime_s: float = 60.0) -> LocalRunner:
    command = install(folder / "venv", script) / "bin" / "cextrun"
    return LocalRunner(command, folder / "runner.log", dict(os.environ), folder, lifetime_s)


def wait_for_log(runner: LocalRunner, text: str) -> None:
    until = time.monotonic() + WAIT_S
    while text not in runner.log():
        assert time.monotonic() < until, runner.log()
        time.sleep(0.01)


def test_a_runner_is_found_by_its_file_or_its_environment(tmp_path: Path) -> None:
    environment = install(tmp_path / "venv", "exit 0")
    command = environment / "bin" / "cextrun"
    assert find_runner(environment) == find_runner(command) == command


def test_a_runner_that_is_not_named_is_looked_for_where_commands_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    command = install(tmp_path / "venv", "exit 0") / "bin" / "cextrun"
    assert find_runner(None, lambda _: str(command)) == command
    (tmp_path / "cextrun").write_text("")
    (tmp_path / "cextrun").chmod(0o755)
    assert find_runner(None, lambda _: str(command)) == tmp_path / "cextrun"


def test_a_runner_that_is_missing_is_told_of_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunnerMissing, match="pip install connect-extension-runner saga-engine"):
        find_runner(None, lambda _: None)
    (tmp_path / "no-program").touch()
    for named in (tmp_path / "no-program", tmp_path, tmp_path / "nowhere"):
        with pytest.raises(RunnerMissing, match=f"there is no {named}"):
            find_runner(named)


def test_a_proxy_is_used_for_everything_but_the_local_connect() -> None:
    changed = without_proxies({"HTTP_PROXY": "http://proxy", "NO_PROXY": "intranet", "X": "y"})
    assert changed == {
        "http_proxy": "http://proxy",
        "NO_PROXY": "intranet,127.0.0.1",
        "no_proxy": "intranet,127.0.0.1",
        "X": "y",
    }
    assert without_proxies({}) == {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}


def test_a_runner_that_is_asked_to_end_ends_in_good_order(tmp_path: Path) -> None:
    runner = start(tmp_path, "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.01; done")
    wait_for_log(runner, "ready")
    assert runner.stop(WAIT_S) == 7
    assert runner.log() == "ready\nbye\n"


def test_a_runner_that_does_not_end_is_killed_with_its_children(tmp_path: Path) -> None:
    runner = start(tmp_path, "trap '' TERM; sleep 60 & echo child $!; wait; while :; do sleep 60; done")
    wait_for_log(runner, "child ")
    child = int(runner.log().split()[-1])
    assert runner.stop(0.2) == 128 + signal.SIGKILL
    wait_for_end(child)


def test_a_runner_ends_when_its_time_is_over(tmp_path: Path) -> None:
    runner = start(tmp_path, "exec sleep 60", lifetime_s=0.1)
    wait_for_end(runner.pid)
    until = time.monotonic() + WAIT_S
    while runner.exit_code is None:
        assert time.monotonic() < until
        time.sleep(0.01)
    assert runner.exit_code == 128 + signal.SIGTERM
    runner.kill()


def test_a_runner_ends_when_whoever_started_it_was_killed(tmp_path: Path) -> None:
    program = [sys.executable, "-I", local_guard.__file__, "60", "5", str(tmp_path / "log"), "sleep", "60"]
    command = [sys.executable, "-c", f"import subprocess; subprocess.run({program}, stdin=subprocess.PIPE)"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        starter.kill()
        wait_for_end(pid)


def test_a_runner_that_ended_is_told_of_with_the_end_of_its_log(tmp_path: Path) -> None:
    lines = "; ".join(f"echo line {number}" for number in range(40))
    runner = start(tmp_path, f"{lines}; exit 3")
    until = time.monotonic() + WAIT_S
    while runner.exit_code is None:
        assert time.monotonic() < until
        time.sleep(0.01)
    with pytest.raises(RunnerFailed, match=r"ended with exit code 3; its log ends:\nline 15\n") as failed:
        runner.check()
    assert failed.value.log_tail.splitlines() == [f"line {number}" for number in range(15, 40)]
    runner.kill()


def test_a_runner_that_cannot_be_started_is_told_of_with_the_reason(tmp_path: Path) -> None:
    command = tmp_path / "cextrun"
    command.write_text("#!/no/such/python\n")
    command.chmod(0o755)
    with pytest.raises(RunnerFailed, match=r"cextrun cannot be started; its log ends:\n\[Errno 2\] No such file"):
        LocalRunner(command, tmp_path / "runner.log", dict(os.environ), tmp_path, 60)


def test_the_log_begins_with_this_run(tmp_path: Path) -> None:
    (tmp_path / "runner.log").write_text("Background worker pid: 1\n")
    runner = start(tmp_path, "echo INFO Webapp worker pid: 2; exec sleep 60")
    wait_for_log(runner, "pid: 2")
    assert runner.worker_pids() == {"webapp": 2}
    with pytest.raises(NotConnected, match="has started no background worker; it has started: webapp"):
        runner.worker_pid("background")
    runner.kill()
