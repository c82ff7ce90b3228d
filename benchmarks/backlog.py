"""One process that meets a journal full of executions: `python -m benchmarks.backlog recover|worker|suspended URL N`.

A process of its own, because memory is measured: what an earlier measurement left behind must not count.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from benchmarks.machine import peak_resident_mib, resident_mib
from benchmarks.sagas import FiveSteps
from saga_engine import Engine
from saga_engine.journal import Entry, SagaEnded

__all__ = ["Recovery", "Sample", "Suspended", "limit_s"]

#: A recovery is sampled every so many ends.
_ENDS_A_SAMPLE = 500
_IDLE_S = 1.0
_WAIT_S = 30.0

#: What a recovery may take for each execution before it counts as hung, and a process beside that.
_RECOVERY_S_MAX = 0.05
_PROCESS_S_MAX = 60.0


class Sample(Struct, frozen=True):
    """How far a recovery was, and the memory that the process held then."""

    seconds: float
    ended: int
    resident_mib: float


class Recovery(Struct, frozen=True):
    """How a recovery of `ended` executions went; seconds count from its call."""

    first_moves_s: float
    total_s: float
    ended: int
    resident_before_mib: float
    peak_before_mib: float
    peak_after_mib: float
    samples: list[Sample]


class Suspended(Struct, frozen=True):
    """A process whose worker runs beside the suspended executions; `idle_cpu` is the share of one core."""

    threads: int
    resident_mib: float
    idle_cpu: float
    start_to_end_ms: float


class _Watch:
    """Notes, as the engine's observer, when the first execution moves and when so many have ended."""

    def __init__(self, count: int) -> None:
        self.began_at = time.perf_counter()
        self.first_moves_s = self.total_s = 0.0
        self.ended = 0
        self.samples: list[Sample] = []
        self.have_all_ended = threading.Event()
        self._count = count
        self._lock = threading.Lock()

    def __call__(self, saga_id: str, entries: Sequence[Entry]) -> None:
        with self._lock:
            now_s = time.perf_counter() - self.began_at
            self.first_moves_s = self.first_moves_s or now_s
            if not isinstance(entries[-1], SagaEnded):
                return
            self.ended += 1
            if self.ended % _ENDS_A_SAMPLE == 0:
                self.samples.append(Sample(now_s, self.ended, resident_mib()))
            if self.ended == self._count:
                self.total_s = now_s
                self.have_all_ended.set()


def limit_s(count: int) -> float:
    """Give the seconds after which a process that meets so many executions counts as hung."""
    return _PROCESS_S_MAX + count * _RECOVERY_S_MAX


def _recover(url: str, count: int, *, in_worker: bool) -> Recovery:
    watch = _Watch(count)
    with Engine(url, observer=watch) as engine:
        before_mib, peak_mib = resident_mib(), peak_resident_mib()
        watch.began_at = time.perf_counter()
        if in_worker:
            worker = threading.Thread(target=engine.run)
            worker.start()
            watch.have_all_ended.wait(limit_s(count))
            engine.stop()
            worker.join()
        else:
            engine.recover()
    if not watch.have_all_ended.is_set():
        raise RuntimeError(f"{watch.ended} of {count} executions were recovered")
    return Recovery(
        watch.first_moves_s, watch.total_s, watch.ended, before_mib, peak_mib, peak_resident_mib(), watch.samples
    )


def _run_beside_suspended(url: str) -> Suspended:
    with Engine(url, config={}) as engine:
        took_ms = []
        for number in range(20):
            began_at = time.perf_counter()
            engine.wait(engine.start(FiveSteps, {"id": f"new-{number}"}), timeout_s=_WAIT_S)
            took_ms.append((time.perf_counter() - began_at) * 1000)
        began_at, cpu_s = time.perf_counter(), time.process_time()
        threading.Event().wait(_IDLE_S)
        idle_cpu = (time.process_time() - cpu_s) / (time.perf_counter() - began_at)
        return Suspended(threading.active_count(), resident_mib(), idle_cpu, sorted(took_ms)[len(took_ms) // 2])


def main(what: str, url: str, count: str) -> None:
    """Measure, and print the figures as one line of JSON."""
    if what == "suspended":
        found: Recovery | Suspended = _run_beside_suspended(url)
    else:
        found = _recover(url, int(count), in_worker=what == "worker")
    print(msgspec.json.encode(found).decode())


if __name__ == "__main__":
    main(*sys.argv[1:])
