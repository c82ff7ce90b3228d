"""Who holds a lease and whether it still lives: the identity of a process, and a clock nobody can set."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from enum import Enum
from functools import lru_cache
from pathlib import Path

from msgspec import Struct

__all__ = ["Liveness", "Owner", "ProcessIdentity", "boot_clock_s", "identify", "judge", "start_time"]


class ProcessIdentity(Struct, frozen=True):
    """One process, among all processes on all hosts. What cannot be known here is an empty string.

    `pid_namespace` is part of it because containers on one host share its boot id, but not its process ids.
    """

    id: str
    host: str
    boot_id: str
    pid_namespace: str
    pid: int
    started: str


class Owner(Struct, frozen=True):
    """A process as its row in the journal shows it; `beat_s` is its last heartbeat, by its own boot clock."""

    identity: ProcessIdentity
    lease_s: float
    beat_s: float


class Liveness(Enum):
    """What can be said about an owner from here."""

    LIVE = "live"
    DEAD = "dead"
    #: Its clock is not ours: only watching its heartbeat for `lease_s` can tell.
    WATCH = "watch"


def boot_clock_s() -> float:
    """Seconds since the host booted, its sleep included; nobody can set this clock."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


def identify() -> ProcessIdentity:
    """Give this process a new identity; every journal has its own, so that each can be closed by itself."""
    pid = os.getpid()
    return ProcessIdentity(
        id=uuid.uuid4().hex,
        host=socket.gethostname(),
        boot_id=_boot_id(),
        pid_namespace=_pid_namespace(),
        pid=pid,
        started=start_time(pid) or "",
    )


def start_time(pid: int) -> str | None:
    """When the process started, in a form that is only good to compare; "" if that cannot be known.

    None: there is no such process, or it is a zombie, which does nothing any more.
    """
    if not _is_there(pid):
        return None
    if sys.platform.startswith("linux"):
        return _start_time_linux(pid)
    return _start_time_ps(pid)


def judge(
    owner: Owner, me: ProcessIdentity, now_s: float, started_of: Callable[[int], str | None] = start_time
) -> Liveness:
    """Say whether the owner of a lease lives.

    Args:
        owner: the process that holds the lease.
        me: the process that asks.
        now_s: this host's boot clock.
        started_of: gives the start time of a process of this host, see `start_time`.
    """
    them = owner.identity
    if them.boot_id != me.boot_id:
        # The same host under another boot id was rebooted, and nothing outlives that.
        return Liveness.DEAD if them.host == me.host else Liveness.WATCH
    if them.pid_namespace == me.pid_namespace and _is_gone(them, started_of(them.pid)):
        return Liveness.DEAD
    age_s = now_s - owner.beat_s
    # A beat from the future is from before a reboot that the boot id (a fallback then) did not show.
    return Liveness.LIVE if -owner.lease_s <= age_s <= owner.lease_s else Liveness.DEAD


def _is_gone(them: ProcessIdentity, started: str | None) -> bool:
    """Tell whether their pid is nobody's, or belongs to a later process now."""
    if started is None:
        return True
    return bool(started and them.started) and started != them.started


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        # Somebody else's process: it is there.
        return True
    return True


def _start_time_linux(pid: int) -> str | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        # /proc may hide other users' processes, or this one ended just now: its heartbeat will tell.
        return ""
    # The command name, in parentheses, may itself hold spaces and parentheses.
    fields = stat[stat.rindex(b")") + 2 :].split()
    state, started = fields[0], fields[19]
    return None if state in (b"Z", b"X") else started.decode()


def _start_time_ps(pid: int) -> str:
    try:
        shown = subprocess.run(
            ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return shown.stdout.strip()


@lru_cache(maxsize=1)
def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return _boot_id_sysctl() or f"host:{socket.gethostname()}"


def _boot_id_sysctl() -> str:
    try:
        shown = subprocess.run(
            ["sysctl", "-n", "kern.bootsessionuuid"], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return shown.stdout.strip()


def _pid_namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""
