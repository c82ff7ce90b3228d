"""Connect's real runner as a subprocess, which ends with the process that started it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from saga_engine.connect.local_errors import NotConnected, RunnerFailed, RunnerMissing

__all__ = ["LocalRunner", "find_runner", "without_proxies"]

_GUARD = Path(__file__).with_name("local_guard.py")
_OPTIONS = ("--unsecure", "--no-validate", "--no-rich-logging")
_WORKER_PID = re.compile(r"(\w+) worker pid: (\d+)")
_LOG_TAIL_LINES = 25
#: How long the guard lets the runner end by itself when whoever started it is gone.
_GRACE_S = 10.0
_KILL_S = 10.0


class LocalRunner:
    """A runner that is started, and its log.

    Args:
        command: the file of `cextrun`.
        log_file: what it prints is added there.
        environment: all of its environment.
        folder: its working directory.
        lifetime_s: seconds after which it is ended in any case.

    Raises:
        RunnerFailed: it cannot be started.
    """

    def __init__(
        self, command: Path, log_file: Path, environment: Mapping[str, str], folder: Path, lifetime_s: float
    ) -> None:
        self.log_file = log_file
        self._log_begins_at = log_file.stat().st_size if log_file.exists() else 0
        arguments = [sys.executable, "-I", str(_GUARD), str(lifetime_s), str(_GRACE_S), str(log_file)]
        self._guard = subprocess.Popen(
            [*arguments, str(command), *_OPTIONS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=dict(environment),
            cwd=folder,
            start_new_session=True,  # Ctrl-C at a terminal is for whoever stops it then, in good order
        )
        assert self._guard.stdout is not None
        pid = self._guard.stdout.readline().strip()
        if not pid:
            self._reap()
            raise RunnerFailed(f"{command} cannot be started", self.log_tail())
        #: The master's process, and its process group.
        self.pid = int(pid)

    @property
    def exit_code(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._guard.poll()

    def log(self) -> str:
        """Give what it and the extension printed."""
        if not self.log_file.exists():
            return ""
        with self.log_file.open("rb") as file:
            file.seek(self._log_begins_at)
            return file.read().decode(errors="replace")

    def worker_pids(self) -> dict[str, int]:
        """Give the process of each kind of worker, as the master last started it: {"background": 4711, ...}."""
        return {kind.lower(): int(pid) for kind, pid in _WORKER_PID.findall(self.log())}

    def worker_pid(self, kind: str) -> int:
        """Give the process of a worker.

        Raises:
            NotConnected: no such worker was ever started.
        """
        pids = self.worker_pids()
        if kind not in pids:
            raise NotConnected(f"the runner has started no {kind} worker; it has started: {', '.join(pids) or 'none'}")
        return pids[kind]

    def check(self) -> None:
        """See that it runs.

        Raises:
            RunnerFailed: it has ended; the message has the end of its log.
        """
        if self.exit_code is not None:
            raise RunnerFailed(f"the runner ended with exit code {self.exit_code}", self.log_tail())

    def log_tail(self) -> str:
        """Give the last lines of its log."""
        return "\n".join(self.log().splitlines()[-_LOG_TAIL_LINES:])

    def stop(self, timeout_s: float) -> int:
        """Ask it to end (SIGTERM), wait, and kill what is left.

        Args:
            timeout_s: how long to wait; the guard gives it 10 seconds.

        Returns:
            Its exit code; 128 and more if a signal ended it.
        """
        if self._guard.stdin is not None:
            self._guard.stdin.close()
        try:
            self._guard.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._kill_all()
        return self._reap()

    def kill(self) -> None:
        """Kill it and its workers (SIGKILL)."""
        if self.exit_code is None:
            self._kill_all()
        self._reap()

    def _kill_all(self) -> None:
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return  # the guard is about to end, too

    def _reap(self) -> int:
        for pipe in (self._guard.stdin, self._guard.stdout):
            if pipe is not None:
                pipe.close()
        return self._guard.wait(_KILL_S)


def find_runner(runner: Path | None, which: Callable[[str], str | None] = shutil.which) -> Path:
    """Find the command that starts Connect's runner.

    Args:
        runner: the file of `cextrun`, or the folder of a virtual environment that has it; None: it is looked for
            beside this Python, then where commands are found.
        which: finds commands.

    Raises:
        RunnerMissing: it is not there.
    """
    if runner is not None:
        looked_for = [str(runner / "bin" / "cextrun" if runner.is_dir() else runner)]
    else:
        looked_for = list(filter(None, [str(Path(sys.executable).with_name("cextrun")), which("cextrun")]))
    for command in map(Path, looked_for):
        if command.is_file() and os.access(command, os.X_OK):
            return command.absolute()
    raise RunnerMissing(
        f"there is no {looked_for[0]} that can be run: install Connect's runner into an environment of Python 3.10 to "
        "3.12 (pip install connect-extension-runner saga-engine) and name that environment"
    )


def without_proxies(environment: Mapping[str, str]) -> dict[str, str]:
    """Let an environment's proxies be used for everything but the local Connect.

    The runner takes HTTP_PROXY for its WebSocket whatever NO_PROXY says; all others read the small letters, too.
    """
    changed = dict(environment)
    proxy = changed.pop("HTTP_PROXY", None)
    if proxy:
        changed.setdefault("http_proxy", proxy)
    spared = changed.get("no_proxy") or changed.get("NO_PROXY")
    changed["no_proxy"] = changed["NO_PROXY"] = f"{spared},127.0.0.1" if spared else "127.0.0.1"
    return changed
