"""The command line in tests: in this process or in one of its own, in a directory with two requests in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from saga_engine.cli import main

__all__ = ["DEADLINE_S", "KIT", "Ran", "Run", "command_in", "finish", "prepare", "start", "wait_for"]

KIT = Path(__file__).resolve().parent
DEADLINE_S = 60
#: Made absolute now: the tests run in directories of their own.
PATHS = [str(KIT), *(str(Path(path).resolve()) for path in os.environ.get("PYTHONPATH", "").split(":") if path)]


@dataclass(frozen=True)
class Ran:
    """How one command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ran]


def prepare(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go to a directory of the test's own, with two requests in it; the last one is refused at the end."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [str(KIT), *sys.path])
    for name in ("COLUMNS", "SAGA_JOURNAL_URL", "FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    (folder / "good.json").write_text('{"id": "PR-1"}')
    (folder / "bad.json").write_text('{"id": "PR-2", "is_refused": true, "api_key": "s3cret"}')
    return folder


def command_in(capsys: pytest.CaptureFixture[str]) -> Run:
    """Make what runs a command in this process."""

    def run(*arguments: str) -> Ran:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(list(arguments), prog_name="saga")
        out, err = capsys.readouterr()
        return Ran(int(ended.value.code or 0), out, err)

    return run


def environment() -> dict[str, str]:
    """The environment of a process that runs in another directory."""
    return {**os.environ, "PYTHONPATH": ":".join(PATHS), "TERM": "xterm-256color"}


def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    """Run a command in a process of its own."""
    command = [sys.executable, "-m", "saga_engine", *arguments]
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
    return subprocess.Popen(command, env=environment(), **given)


def finish(process: subprocess.Popen[str]) -> Ran:
    """Wait for its end."""
    try:
        out, err = process.communicate(timeout=DEADLINE_S)
    finally:
        process.kill()
    return Ran(process.returncode, out or "", err or "")


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until something is so, for a minute at most."""
    until = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < until, "it never came true"
        time.sleep(0.01)
