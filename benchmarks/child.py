"""Programs in processes of their own: launched, bounded in time, and what they told."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

__all__ = ["ChildFailed", "run_child"]

#: Puts the folder that holds `benchmarks` last on the path, and the current one nowhere: what is installed comes first.
_LAUNCH = (
    "import runpy, sys; sys.path[:] = [*filter(None, sys.path), sys.argv.pop(1)]; "
    "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)
_ROOT = Path(__file__).resolve().parents[1]
_REASON_CHARS_MAX = 300


class ChildFailed(Exception):
    """The program failed or took too long; the message says which."""


def run_child(
    module: str, *arguments: str, python: str = sys.executable, directory: Path | None = None, limit_s: float = 600
) -> str:
    """Run a module of `benchmarks` and give the last line that it printed.

    Args:
        module: its full name.
        arguments: its command line.
        python: the interpreter.
        directory: where it runs; by default, here.
        limit_s: after so many seconds it is ended, with all its children.

    Raises:
        ChildFailed: it failed, printed nothing, or took too long.
    """
    command = [python, "-c", _LAUNCH, str(_ROOT), module, *arguments]
    process = subprocess.Popen(
        command, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        output, errors = process.communicate(timeout=limit_s)
    except BaseException as error:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise ChildFailed(f"failed: not done after {limit_s:g} s") from None
        raise
    if process.returncode or not output.strip():
        raise ChildFailed(f"failed: {_reason(errors, process.returncode)}"[:_REASON_CHARS_MAX])
    return output.strip().splitlines()[-1]


def _reason(errors: str, status: int) -> str:
    """Give the line that names the error: the last one that is not indented and no remark of a library."""
    lines = errors.strip().splitlines() or [f"exit status {status}"]
    named = [line for line in lines if not line[:1].isspace() and "Error" in line.partition(":")[0]]
    return (named or lines)[-1]
