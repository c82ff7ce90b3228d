"""A real process that carries one scripted saga on, on SQLite, and can be told to stop at a point to be killed.

Usage: crash_child.py FOLDER SCENARIO LIFE DIES_AT (deliver | recover | work)

At its point of that number (0: at none) it writes the point's label to its standard output and waits for its end.
When the execution is at rest, it writes "at rest" and ends by itself. One that works has a worker. What outlives it is
in FOLDER: the journal, the vendor's ledger, and the log, which is written without a buffer.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from pathlib import Path

import msgspec
from crash_scenarios import SCENARIOS, Scenario, sagas_for
from crashpoints import Called, Carrier, Event, Life, Vendor, World, by_recover, by_redelivery, by_worker

from saga_engine.journals import open_journal

__all__ = ["CARRIERS", "scenario_of", "world_in"]

CARRIERS: dict[str, Carrier] = {"deliver": by_redelivery, "recover": by_recover, "work": by_worker}

#: From one life to the next so many seconds pass: whatever is waited for, is due.
BETWEEN_LIVES_S = 100_000.0


class VendorFile(Vendor):
    """The vendor, with its ledger in a file: each change is there when the call returns."""

    def __init__(self, path: Path) -> None:
        self._ledger = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._ledger.execute(
            "CREATE TABLE IF NOT EXISTS thing (key TEXT PRIMARY KEY, step TEXT, is_gone INT DEFAULT 0)"
        )
        self._ledger.execute("CREATE TABLE IF NOT EXISTS undo (key TEXT PRIMARY KEY, thing TEXT)")

    def create(self, key: str, step: str) -> None:
        self._ledger.execute("INSERT OR IGNORE INTO thing (key, step) VALUES (?, ?)", (key, step))

    def delete(self, undo_key: str, key: str) -> None:
        self._ledger.execute("BEGIN IMMEDIATE")
        if self._ledger.execute("INSERT OR IGNORE INTO undo VALUES (?, ?)", (undo_key, key)).rowcount:
            self._ledger.execute("UPDATE thing SET is_gone = 1 WHERE key = ?", (key,))
        self._ledger.execute("COMMIT")

    def delete_by_hand(self, step: str) -> None:
        self._ledger.execute("UPDATE thing SET is_gone = 1 WHERE step = ?", (step,))

    def has(self, key: str) -> bool:
        return self._ledger.execute("SELECT 1 FROM thing WHERE key = ? AND NOT is_gone", (key,)).fetchone() is not None

    def live(self) -> list[str]:
        return [row[0] for row in self._ledger.execute("SELECT step FROM thing WHERE NOT is_gone ORDER BY step")]

    def close(self) -> None:
        """Close the ledger."""
        self._ledger.close()


class LogFile(list[Event]):
    """The log, each event of which is in a file before the next thing happens."""

    def __init__(self, path: Path) -> None:
        decoder = msgspec.json.Decoder(Event)
        super().__init__(decoder.decode(line) for line in (path.read_bytes().splitlines() if path.exists() else ()))
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def append(self, event: Event) -> None:
        super().append(event)
        os.write(self._file, msgspec.json.encode(event) + b"\n")

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


class DoomedLife(Life):
    """A life whose end is a signal from outside."""

    def die(self, label: str) -> None:
        tell(label)
        sys.stdin.read()
        os._exit(1)  # whoever was to kill it is gone itself


def tell(line: str) -> None:
    """Let whoever started this process know."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def scenario_of(name: str) -> Scenario:
    """Find a scenario by its name."""
    return next(scenario for scenario in SCENARIOS if scenario.name == name)


def world_in(folder: Path, scenario: Scenario, life: int) -> World:
    """Open what earlier lives left in the folder."""
    journal = open_journal(f"sqlite:///{folder / 'saga.db'}")
    world = World(journal, "R-1", lambda of: sagas_for(scenario, of), scenario.meanwhile, life_type=DoomedLife)
    world.vendor = VendorFile(folder / "vendor.db")
    world.log = LogFile(folder / "log")
    world.now += BETWEEN_LIVES_S * life
    world.calls.update((event.operation, event.step) for event in world.log if isinstance(event, Called))
    return world


def main(folder: str, name: str, number: str, dies_at: str, how: str) -> None:
    """Live."""
    world = world_in(Path(folder), scenario_of(name), int(number))
    life = DoomedLife(world, int(number), int(dies_at))
    CARRIERS[how](life)
    tell("at rest")
    life.engine.close()
    world.journal.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
