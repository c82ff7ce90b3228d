"""Makes steps of parallel branches meet: a step opens a gate when it begins, and waits for one before it goes on."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Sequence
from typing import Any

from sagas import Crash, Mortal

from saga_engine.journal import Entry

_LIMIT_S = 30.0


class Gate:
    """Open or closed; steps of both kinds can wait for it, and no longer than half a minute."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def open(self) -> None:
        self._event.set()

    @property
    def is_open(self) -> bool:
        return self._event.is_set()

    def pass_through(self) -> None:
        assert self._event.wait(_LIMIT_S), "nobody opened the gate"

    async def apass_through(self) -> None:
        ends_at = time.monotonic() + _LIMIT_S
        while not self._event.is_set():
            assert time.monotonic() < ends_at, "nobody opened the gate"
            await asyncio.sleep(0.001)


def gated(step: Any, *, opens: Gate | None = None, waits_for: Gate | None = None, operation: str = "execute") -> Any:
    """Let an operation of a step open a gate as soon as it is called, and pass another one before it does anything."""
    inner = getattr(step, operation)

    def plain(*arguments: Any) -> Any:
        if opens is not None:
            opens.open()
        if waits_for is not None:
            waits_for.pass_through()
        return inner(*arguments)

    async def native(*arguments: Any) -> Any:
        if opens is not None:
            opens.open()
        if waits_for is not None:
            await waits_for.apass_through()
        return await inner(*arguments)

    setattr(step, operation, native if inspect.iscoroutinefunction(inner) else plain)
    return step


class Watch:
    """An observer of an engine: keeps every durable commit, and opens gates when an entry is durable."""

    def __init__(self) -> None:
        self.commits: list[list[Entry]] = []
        self._gates: dict[tuple[type[Entry], str | None], Gate] = {}

    def gate(self, kind: type[Entry], step: str | None = None) -> Gate:
        """Give the gate that opens when such an entry, perhaps of that step, is durable."""
        return self._gates.setdefault((kind, step), Gate())

    def __call__(self, saga_id: str, entries: Sequence[Entry]) -> None:
        self.commits.append(list(entries))
        for entry in entries:
            for step in (None, getattr(entry, "step", None)):
                if (type(entry), step) in self._gates:
                    self._gates[type(entry), step].open()

    def count(self, kind: type[Entry]) -> list[int]:
        """Give how many entries of this type each commit holds."""
        return [sum(isinstance(entry, kind) for entry in commit) for commit in self.commits]


class LoudMortal(Mortal):
    """A process that opens a gate when it dies, so that none of its steps waits on for what will never come."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.died = Gate()

    def die(self, *arguments: Any) -> Any:
        try:
            super().die(*arguments)
        except Crash:
            self.died.open()
            raise
