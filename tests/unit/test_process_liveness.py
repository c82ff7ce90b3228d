"""Whether the owner of a lease lives (J4): every combination of host, boot, namespace, pid and heartbeat."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from saga_engine.journals.process import (
    Liveness,
    Owner,
    ProcessIdentity,
    boot_clock_s,
    identify,
    judge,
    start_time,
)

ME = ProcessIdentity("p-1", "host-a", "boot-1", "pid:[1]", 100, "5000")
THEM = replace(ME, id="p-2", pid=200, started="7000")
NOW_S = 1_000.0


def liveness(them: ProcessIdentity, age_s: float = 0.0, started: str | None = "7000") -> Liveness:
    owner = Owner(them, lease_s=30.0, beat_s=NOW_S - age_s)
    return judge(owner, ME, NOW_S, lambda pid: started)


def test_J04_a_process_of_this_host_with_a_fresh_heartbeat_lives() -> None:
    assert liveness(THEM, age_s=30.0) is Liveness.LIVE


def test_J04_a_process_of_this_host_that_is_gone_is_dead_at_once() -> None:
    assert liveness(THEM, started=None) is Liveness.DEAD


def test_J04_a_later_process_with_the_same_pid_is_not_the_owner() -> None:
    assert liveness(THEM, started="9000") is Liveness.DEAD


def test_J04_a_start_time_that_cannot_be_known_leaves_it_to_the_heartbeat() -> None:
    assert liveness(THEM, started="") is Liveness.LIVE
    assert liveness(THEM, started="", age_s=31.0) is Liveness.DEAD


def test_J04_a_process_that_is_there_but_does_not_beat_is_dead_when_its_lease_ends() -> None:
    assert liveness(THEM, age_s=30.1) is Liveness.DEAD


def test_J04_the_pid_of_another_namespace_says_nothing() -> None:
    container = replace(THEM, pid_namespace="pid:[2]")
    assert liveness(container, started=None) is Liveness.LIVE
    assert liveness(container, started=None, age_s=31.0) is Liveness.DEAD


def test_J04_what_ran_before_this_host_was_booted_is_dead_at_once() -> None:
    assert liveness(replace(THEM, boot_id="boot-0")) is Liveness.DEAD


def test_J04_the_clock_of_another_host_says_nothing() -> None:
    assert liveness(replace(THEM, host="host-b", boot_id="boot-9"), age_s=31.0) is Liveness.WATCH


def test_J04_a_container_with_another_host_name_shares_the_clock() -> None:
    container = replace(THEM, host="pod-b", pid_namespace="pid:[2]")
    assert liveness(container, age_s=29.0) is Liveness.LIVE
    assert liveness(container, age_s=31.0) is Liveness.DEAD


def test_J04_a_heartbeat_from_the_future_is_from_before_a_reboot() -> None:
    assert liveness(THEM, age_s=-31.0) is Liveness.DEAD


def test_J04_this_process_knows_itself() -> None:
    me = identify()
    assert (me.pid, me.started) == (os.getpid(), start_time(os.getpid()))
    assert judge(Owner(me, 30.0, boot_clock_s()), identify(), boot_clock_s()) is Liveness.LIVE
    assert me.id != identify().id


def test_J04_the_boot_clock_only_goes_forward() -> None:
    readings = [boot_clock_s() for _ in range(100)]
    assert readings == sorted(readings)


def test_J04_a_zombie_does_nothing_any_more() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert start_time(child.pid)
    child.kill()
    # It is a zombie from its end until wait() is called.
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert start_time(child.pid) is None
    child.communicate()
    assert start_time(child.pid) is None


def test_J04_a_command_name_with_parentheses_does_not_confuse(monkeypatch: pytest.MonkeyPatch) -> None:
    stat = b"1 (a) Z (b)) S " + b" ".join(str(number).encode() for number in range(4, 30))
    monkeypatch.setattr("saga_engine.journals.process.Path.read_bytes", lambda self: stat)
    assert start_time(os.getpid()) == "22"


def test_J04_where_the_processes_of_others_are_hidden_the_start_time_is_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def hidden(self: object) -> bytes:
        raise FileNotFoundError

    monkeypatch.setattr("saga_engine.journals.process.Path.read_bytes", hidden)
    assert start_time(os.getpid()) == ""


@pytest.mark.parametrize("answer", [None, "Mon Jan  1 00:00:00 2024"])
def test_J04_without_proc_ps_tells_the_start_time(monkeypatch: pytest.MonkeyPatch, answer: str | None) -> None:
    def run(*args: object, **options: object) -> subprocess.CompletedProcess[str]:
        if answer is None:
            raise FileNotFoundError("ps")
        return subprocess.CompletedProcess([], 0, answer + "\n", "")

    monkeypatch.setattr("saga_engine.journals.process.sys.platform", "darwin")
    monkeypatch.setattr("saga_engine.journals.process.subprocess.run", run)
    assert start_time(os.getpid()) == (answer or "")


@pytest.fixture
def no_proc(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Play a system without /proc, on which sysctl answers."""
    from saga_engine.journals import process

    def missing(*args: object, **options: object) -> str:
        raise FileNotFoundError

    def answer(text: str) -> None:
        done = subprocess.CompletedProcess([], 0, text, "")
        monkeypatch.setattr("saga_engine.journals.process.subprocess.run", lambda *a, **o: done)

    process._boot_id.cache_clear()
    monkeypatch.setattr("saga_engine.journals.process.Path.read_text", missing)
    monkeypatch.setattr("saga_engine.journals.process.Path.readlink", missing)
    monkeypatch.setattr("saga_engine.journals.process.socket.gethostname", lambda: "mac")
    return answer


@pytest.mark.parametrize(("answer", "boot_id"), [("ABC-1\n", "ABC-1"), ("", "host:mac")])
def test_J04_without_proc_another_boot_id_is_found(no_proc: Callable[[str], None], answer: str, boot_id: str) -> None:
    from saga_engine.journals import process

    no_proc(answer)
    me = identify()
    process._boot_id.cache_clear()
    assert (me.boot_id, me.pid_namespace) == (boot_id, "")
