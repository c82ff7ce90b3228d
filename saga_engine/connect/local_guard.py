"""Runs a command, and ends it and all its children when this process's input ends, or when its time is over.

Started as a script by `local_runner`, which holds the other end of its input: whatever becomes of the starter, even a
SIGKILL, the command ends.
It prints the command's pid, which is also its process group; why a command cannot be started stands in the log.

    python local_guard.py LIFETIME_S GRACE_S LOG_FILE COMMAND...
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time

__all__ = ["main"]

_POLL_S = 0.05
#: What a shell gives for a command that it cannot execute.
_NOT_STARTED = 126


def main(arguments: list[str]) -> int:
    """Run the command; give its exit code, 128 and more if a signal ended it, 126 if it cannot be started."""
    lifetime_s, grace_s, log_file, *command = arguments
    with open(log_file, "ab") as log:  # noqa: PTH123  # quick to start: nothing but what is needed is imported
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        except OSError as e:
            log.write(f"{e}\n".encode())
            return _NOT_STARTED
    sys.stdout.write(f"{process.pid}\n")
    sys.stdout.flush()
    try:
        _watch(process, time.monotonic() + float(lifetime_s))
        return _end(process, float(grace_s))
    finally:
        _kill_group(process.pid)


def _watch(process: subprocess.Popen[bytes], deadline: float) -> None:
    """Wait until the command ends, its time is over, or nobody holds the other end of the input."""
    while process.poll() is None and time.monotonic() < deadline:
        readable, _, _ = select.select([sys.stdin], [], [], _POLL_S)
        if readable and not os.read(sys.stdin.fileno(), 1024):
            return


def _end(process: subprocess.Popen[bytes], grace_s: float) -> int:
    """Ask the command to end, and wait for a while."""
    process.terminate()
    try:
        code = process.wait(grace_s)
    except subprocess.TimeoutExpired:
        process.kill()
        code = process.wait()
    return code if code >= 0 else 128 - code


def _kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return  # nobody is left


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
