"""One worker process of the soak, its sagas, and the vendor: an effect ledger in a database of its own.

Usage: soak_worker.py FOLDER

What a step does is drawn from its execution's number and its attempt, so every process draws alike.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import random
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from connect.eaas.core.responses import BackgroundResponse
from tenacity import stop_after_attempt, wait_fixed

from saga_engine import Chain, Engine, Exclusive, Parallel, Saga, SagaContext, WaitFor
from transactions import BackgroundTransaction, Kind, Probe, RetryPolicy, Suspend

__all__ = ["EFFECTS", "Soaked", "journal_in", "ledger_in"]

DONE = BackgroundResponse.done()
_SCHEMA = """
CREATE TABLE IF NOT EXISTS effect (key TEXT PRIMARY KEY, saga_id TEXT, step TEXT);
CREATE TABLE IF NOT EXISTS undo (key TEXT PRIMARY KEY, effect_key TEXT);
CREATE TABLE IF NOT EXISTS call (number INTEGER PRIMARY KEY, saga_id TEXT, right TEXT, is_replay INT);
"""


class VendorDown(Exception):
    """The vendor did not answer."""


def journal_in(folder: Path) -> str:
    """Give the URL of the journal."""
    return f"sqlite:///{folder / 'saga.db'}"


@contextmanager
def ledger_in(folder: Path) -> Iterator[sqlite3.Connection]:
    """Open the ledger; what is done in it at once is one transaction."""
    with closing(sqlite3.connect(folder / "ledger.db", timeout=60, isolation_level=None)) as ledger:
        ledger.execute("PRAGMA journal_mode = WAL")
        ledger.executescript(_SCHEMA)
        ledger.execute("BEGIN IMMEDIATE")
        yield ledger
        ledger.execute("COMMIT")


class Buys(BackgroundTransaction):
    """Leaves a thing at the vendor, who honours idempotency keys; its undo takes the thing away."""

    retry = RetryPolicy(stop=stop_after_attempt(4), wait=wait_fixed(0.05))
    compensation_retry = RetryPolicy(stop=stop_after_attempt(100), wait=wait_fixed(0.05))

    def __init__(self, context: SagaContext) -> None:
        self.context = context

    def luck(self, request: dict[str, Any]) -> float:
        """Draw what happens at this attempt, from 0 to 1."""
        context = self.context
        return random.Random(f"{request['id']} {context.step} {context.operation} {context.attempt}").random()

    def execute(self, request: dict[str, Any]) -> Any:
        time.sleep(0.002)
        luck = self.luck(request)
        if request.get("refused_at") == self.name():
            return BackgroundResponse.fail("refused")
        if luck < 0.1:
            raise VendorDown("before it did anything")
        self.buy(request)
        if luck > 0.9:
            raise VendorDown("after it did the work")
        return DONE

    def buy(self, request: dict[str, Any]) -> None:
        """Leave the thing, once for each key."""
        context = self.context
        with ledger_in(Path(request["folder"])) as ledger:
            row = (context.idempotency_key, context.saga_id, context.step)
            is_new = ledger.execute("INSERT OR IGNORE INTO effect VALUES (?, ?, ?)", row).rowcount
            self.note(ledger, request, is_replay=not is_new)

    def compensate(self, request: dict[str, Any], e: Exception) -> Any:
        if self.luck(request) < 0.1:
            raise VendorDown("the undo was not taken")
        with ledger_in(Path(request["folder"])) as ledger:
            row = (self.context.idempotency_key, self.context.execute_key)
            is_new = ledger.execute("INSERT OR IGNORE INTO undo VALUES (?, ?)", row).rowcount
            self.note(ledger, request, is_replay=not is_new)
        return DONE

    def probe(self, request: dict[str, Any]) -> Probe:
        with ledger_in(Path(request["folder"])) as ledger:
            found = ledger.execute("SELECT 1 FROM effect WHERE key = ?", (self.context.execute_key,)).fetchone()
        return Probe.DONE if found else Probe.NOT_DONE

    def note(self, ledger: sqlite3.Connection, request: dict[str, Any], is_replay: bool) -> None:
        """Note who acts under which exclusive right; the ledger's numbers are the order of the acts."""
        root = self.context.saga_id.partition("/")[0]
        row = (root, request["right"], is_replay)
        ledger.execute("INSERT INTO call (saga_id, right, is_replay) VALUES (?, ?, ?)", row)


class Accept(Buys):
    """Gives the execution from whoever starts it to the workers: waits for a moment at its first attempt."""

    kind = Kind.READ_ONLY

    def execute(self, request: dict[str, Any]) -> Any:
        return Suspend(DONE, timeout_s=0.01) if self.context.attempt == 1 else DONE


class Device(Buys):
    """A plain branch."""


class Tenant(Buys):
    """The beginning of a chain beside it; nothing can tell whether it took effect."""

    probe = BackgroundTransaction.probe  # type: ignore[assignment]


class Users(Buys):
    """An async step."""

    async def execute(self, request: dict[str, Any]) -> Any:
        await asyncio.sleep(0.002)
        self.buy(request)
        return DONE


class Number(Buys):
    """The step of a child saga."""


class Pause(Buys):
    """Waits twice, for no effect of its own."""

    kind = Kind.READ_ONLY

    def execute(self, request: dict[str, Any]) -> Any:
        return Suspend(DONE, timeout_s=0.05) if self.context.attempt < 3 else DONE


class Contract(Buys):
    """The point of no return; the vendor can always tell whether it was reached."""

    kind = Kind.PIVOT
    retry = RetryPolicy(stop=stop_after_attempt(50), wait=wait_fixed(0.05))


class Billing(Buys):
    """Must succeed in the end."""

    kind = Kind.RETRIABLE
    retry = RetryPolicy(wait=wait_fixed(0.05))


class Telephony(Saga):
    """The child."""

    def transactions(self, request: dict[str, Any]) -> list[Any]:
        return [Number]


class Soaked(Saga):
    """All kinds of steps, under an exclusive right that a few others want, too."""

    recoveries_max = 1_000
    exclusive = Exclusive(key=lambda request: str(request["right"]))

    def transactions(self, request: dict[str, Any]) -> list[Any]:
        approval = WaitFor("approved") if request["is_approved_by_hand"] else None
        return [Accept, Parallel(Device, Chain(Tenant, Users)), Telephony, Pause, approval, Contract, Billing]


#: The effects of a saga that completed: its id's suffix and the step.
EFFECTS = frozenset(
    {("", "Device"), ("", "Tenant"), ("", "Users"), ("/Telephony", "Number"), ("", "Contract"), ("", "Billing")}
)


def main(folder: str) -> int:
    """Be a worker until SIGTERM, or until whoever started it is gone."""
    faulthandler.register(signal.SIGUSR1)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with Engine(journal_in(Path(folder)), config={}, poll_s=0.1, concurrency_max=8) as engine:
        return engine.run()


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
