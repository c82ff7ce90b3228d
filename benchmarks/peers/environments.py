"""The peers' virtual environments: made when first needed, kept for the next run."""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.peers.roster import Interpreter, Peer

__all__ = ["NotInstallable", "environment_of"]

_PYTHON_NAMES = ("python3.12", "python3.11", "python3.13", "python3.14", "python3.10")
_ASK = "import json, sqlite3, sys; print(json.dumps([sys.version_info[:3], sqlite3.sqlite_version_info]))"
_ASK_S = 30
_INSTALL_S = 600
_DONE = "installed.txt"


class NotInstallable(Exception):
    """The peer cannot be had on this machine; the message says why."""


def environment_of(peer: Peer, venvs: Path) -> str:
    """Give the Python that runs the peer, in an environment of its own below `venvs`.

    Raises:
        NotInstallable: no interpreter here fits, or its packages cannot be installed.
    """
    if not peer.requirements:
        return sys.executable
    interpreter = next((python for python in _interpreters() if peer.fits(python)), None)
    if interpreter is None:
        raise NotInstallable(f"not installable here: needs {peer.needs}")
    wanted = "\n".join([interpreter.path, *peer.requirements])
    venv = venvs / f"{peer.program}-{hashlib.sha256(wanted.encode()).hexdigest()[:12]}"
    python = venv / "bin" / "python"
    if not (venv / _DONE).exists():
        shutil.rmtree(venv, ignore_errors=True)
        _run([interpreter.path, "-m", "venv", str(venv)])
        _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *peer.requirements])
        (venv / _DONE).write_text(wanted, encoding="utf-8")
    return str(python)


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_S, check=False)
    except subprocess.TimeoutExpired:
        raise NotInstallable(f"not installable here: installing took more than {_INSTALL_S} s") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no reason was given"]
        raise NotInstallable(f"not installable here: {lines[-1]}")


@functools.cache
def _interpreters() -> tuple[Interpreter, ...]:
    """Give the Pythons of this machine that run: ours first, then those on the PATH."""
    return tuple(_ask_all())


def _ask_all() -> Iterator[Interpreter]:
    for name in (sys.executable, *_PYTHON_NAMES):
        path = shutil.which(name)
        if path is None:
            continue
        try:
            asked = subprocess.run([path, "-c", _ASK], capture_output=True, text=True, timeout=_ASK_S, check=False)
        except (OSError, subprocess.TimeoutExpired):
            continue  # a name on the PATH that is no Python that runs
        if asked.returncode == 0:
            version, sqlite = json.loads(asked.stdout)
            yield Interpreter(path, tuple(version), tuple(sqlite))
