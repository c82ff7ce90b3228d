"""Processes with a cached function on one journal: what one invalidates, the others give no more (SEEDS e 4)."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import cache_child

#: Within this time, an invalidation must have reached every process on the journal.
REACHES_S = 1.0


class Child:
    """One process of the kit's."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def obey(self, command: str) -> str:
        """Give it a command; give its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(command, file=self._process.stdin, flush=True)
        return self._process.stdout.readline().strip()


@contextmanager
def child(folder: Path) -> Iterator[Child]:
    """Start a process; it does not outlive the block."""
    command = [sys.executable, cache_child.__file__, f"sqlite:///{folder / 'saga.db'}", str(folder / "source")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield Child(process)
        process.communicate(timeout=60)
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()


def test_e4_an_invalidation_reaches_the_other_processes_on_the_journal_within_a_second(tmp_path: Path) -> None:
    source = tmp_path / "source"
    with ExitStack() as stack:
        source.write_text("0", encoding="utf-8")
        one, two, three = (stack.enter_context(child(tmp_path)) for _ in range(3))
        assert [each.obey("ask") for each in (one, two, three)] == ["0 1"] * 3
        for number in (1, 2):
            source.write_text(str(number), encoding="utf-8")
            assert [each.obey("ask") for each in (one, two, three)] == [f"{number - 1} {number}"] * 3
            assert one.obey("invalidate") == "done"
            assert one.obey("ask") == f"{number} {number + 1}"
            time.sleep(REACHES_S)  # the promise itself: nothing is asked before it is due
            assert [each.obey("ask") for each in (two, three)] == [f"{number} {number + 1}"] * 2
