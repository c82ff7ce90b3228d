"""The soak: four worker processes on one SQLite file, SIGKILL at random, and a ledger that must agree in the end.

`SAGA_SOAK_SECONDS=600` is the long form (beyond two minutes with `-o faulthandler_timeout=0`), `SAGA_SOAK_SEED=7` draws
the same orders, and kills as far as time allows, again.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing

import soak_worker
from msgspec import Raw
from soak_worker import EFFECTS, Soaked, journal_in, ledger_in

from saga_engine import Engine, SagaStatus
from saga_engine.journal import CancelRequested, SignalReceived, TakenOver

SECONDS = float(os.environ.get("SAGA_SOAK_SECONDS", "8"))
SEED = os.environ.get("SAGA_SOAK_SEED", "1")
WORKERS = 4
#: How long the workers may take to come to rest once nobody disturbs them any more.
CALM_S_MAX = 120.0
AT_REST = {SagaStatus.COMPLETED, SagaStatus.COMPENSATED, SagaStatus.CANCELLED}


class Soak:
    """The workers, who kills them, and who orders."""

    def __init__(self, folder):
        self.folder, self.dice = folder, random.Random(SEED)
        self.engine = Engine(journal_in(folder), config={})
        self.workers = [self.worker() for _ in range(WORKERS)]
        self.orders, self.approved, self.kills = [], set(), 0

    def worker(self):
        command = [sys.executable, soak_worker.__file__, str(self.folder)]
        with (self.folder / "told").open("ab") as told:
            return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=told)

    def stacks(self):
        """Let every worker tell what its threads do."""
        for worker in self.workers:
            worker.send_signal(signal.SIGUSR1)
        time.sleep(1.0)
        return (self.folder / "told").read_text()[-20_000:]

    def close(self):
        for worker in self.workers:
            worker.kill()
            worker.wait()
            worker.stdin.close()
        self.engine.close()

    def order(self):
        request = {
            "id": f"PR-{len(self.orders)}",
            "folder": str(self.folder),
            "right": f"AS-{len(self.orders) // 2}",
            "is_approved_by_hand": self.dice.random() < 0.3,
            "refused_at": self.dice.choice([None, None, None, "Users", "Number", "Contract", "Device"]),
        }
        Soaked.make(engine=self.engine).resolve(request)
        self.orders.append(f"Soaked:{request['id']}")

    def kill_one(self):
        """Kill a worker in the middle of what it does, and start another in its place; tell if there was one."""
        standing = (SagaStatus.RUNNING, SagaStatus.COMPENSATING)
        headers = [h for status in standing for h in self.engine.journal.search(status=status)]
        busy = {int(header.held_by.rpartition(":")[2]) for header in headers if header.held_by}
        numbers = [number for number, worker in enumerate(self.workers) if worker.pid in busy]
        if not numbers:
            return False
        number = self.dice.choice(numbers)
        self.workers[number].kill()
        self.workers[number].wait()
        self.workers[number].stdin.close()
        self.workers[number] = self.worker()
        self.kills += 1
        return True

    def cancel_one(self):
        """Leave a cancellation in the inbox of some order, without driving it on here."""
        header = self.engine.journal.header(self.dice.choice(self.orders))
        if not header.status.is_ended:
            self.engine.journal.put(header.eid, CancelRequested(at=time.time(), reason="no longer wanted"))

    def approve_all(self):
        """Approve what waits for it, once, without driving it on here."""
        for header in self.engine.journal.search(status=SagaStatus.SUSPENDED, limit=10_000):
            if header.due_at is None and header.eid not in self.approved:
                self.approved.add(header.eid)
                self.engine.journal.put(header.eid, SignalReceived(at=time.time(), name="approved", payload=Raw(b"1")))

    def unfinished(self):
        """List what is not at rest yet; nobody but this test ends a worker."""
        ended = [worker.returncode for worker in self.workers if worker.poll() is not None]
        assert not ended, f"workers ended with {ended}: {(self.folder / 'told').read_text()[-2000:]}"
        standing = (SagaStatus.RUNNING, SagaStatus.SUSPENDED, SagaStatus.COMPENSATING)
        return [h for status in standing for h in self.engine.journal.search(status=status, limit=10_000)]


def test_every_order_ends_and_the_ledger_agrees_whoever_is_killed(tmp_path):
    soak = Soak(tmp_path)
    try:
        _storm(soak)
        _calm(soak)
        _judge(soak)
    finally:
        sys.stdout.write(f"SAGA_SOAK_SEED={SEED}: {len(soak.orders)} orders, {soak.kills} kills\n")
        soak.close()


def _storm(soak):
    ends_at, kills_at = time.monotonic() + SECONDS, time.monotonic()
    while time.monotonic() < ends_at:
        if len(soak.unfinished()) < 100:
            soak.order()
        if time.monotonic() >= kills_at:
            soak.cancel_one()
            soak.approve_all()
            if soak.kill_one():
                kills_at = time.monotonic() + soak.dice.uniform(0.1, 0.8)


def _calm(soak):
    ends_at = time.monotonic() + CALM_S_MAX
    while left := soak.unfinished():
        assert time.monotonic() < ends_at, f"not at rest are {len(left)}: {left[:3]}; the workers: {soak.stacks()}"
        soak.approve_all()
        time.sleep(0.2)


def _judge(soak):
    engine, entries, standing = soak.engine, Counter(), Counter()
    left = _left_at_the_vendor(soak.folder)
    for saga_id in soak.orders:
        record = engine.get(saga_id)
        standing[record.status] += 1
        entries.update(type(entry) for entry in engine.history(saga_id))
        assert record.status in AT_REST, record
        assert record.held_by is None
        whole = {(f"{saga_id}{child}", step) for child, step in EFFECTS}
        is_completed = record.status is SagaStatus.COMPLETED
        assert left.get(saga_id, Counter()) == Counter(whole if is_completed else ()), record
    _nobody_shared_a_right(soak.folder)
    for name in ("saga.db", "ledger.db"):
        with closing(sqlite3.connect(soak.folder / name)) as file:
            assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert {SagaStatus.COMPLETED, SagaStatus.COMPENSATED} <= set(standing), standing
    assert soak.kills >= SECONDS / 4
    assert entries[TakenOver] >= soak.kills / 2, entries


def _left_at_the_vendor(folder):
    """Count what is bought and not undone, by execution; every key of one thing was used for that thing only."""
    left = {}
    with ledger_in(folder) as ledger:
        undone = {key for (key,) in ledger.execute("SELECT effect_key FROM undo")}
        for key, saga_id, step in ledger.execute("SELECT key, saga_id, step FROM effect"):
            if key not in undone:
                left.setdefault(saga_id.partition("/")[0], Counter())[saga_id, step] += 1
    return left


def _nobody_shared_a_right(folder):
    """Of two executions that want one right, the one has done all that it does before the other does anything."""
    spans = {}
    with ledger_in(folder) as ledger:
        for number, saga_id, right in ledger.execute("SELECT number, saga_id, right FROM call ORDER BY number"):
            first, _ = spans.setdefault(right, {}).setdefault(saga_id, (number, number))
            spans[right][saga_id] = (first, number)
    for right, found in spans.items():
        ordered = sorted(found.values())
        assert all(a[1] < b[0] for a, b in itertools.pairwise(ordered)), (right, found)
