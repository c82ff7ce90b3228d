"""saga-engine: resolved in the callers' threads, on an event loop, and by the worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from connect.eaas.core.responses import BackgroundResponse

from benchmarks.ours import aresolve_in_tasks, resolve_in_threads, start_in_worker
from benchmarks.peers.programs.order import check_undone, read_order, tell
from benchmarks.sagas import SYNC_STEPS, FiveAsyncSteps, FiveSteps
from saga_engine import Engine
from saga_engine.journal import StepCompensated
from transactions import BackgroundTransaction

_CASES: dict[str, Callable[[str, int, float], float]] = {
    "resolve": resolve_in_threads,
    "aresolve": aresolve_in_tasks,
    "worker": lambda url, at_once, seconds: start_in_worker(url, FiveSteps, at_once, seconds),
    "worker, async steps": lambda url, at_once, seconds: start_in_worker(url, FiveAsyncSteps, at_once, seconds),
    "memory": lambda _, at_once, seconds: resolve_in_threads("memory://", at_once, seconds),
}


class _Fail(BackgroundTransaction):
    def execute(self, request: dict[str, Any]) -> BackgroundResponse:
        return BackgroundResponse.fail("the fifth step fails")


class _FiveStepsThatFail(FiveSteps):
    def transactions(self, request: dict[str, Any]) -> list[type[BackgroundTransaction]]:
        return [*SYNC_STEPS[:4], _Fail]


def _check() -> None:
    with Engine("memory://") as engine:
        _FiveStepsThatFail.make({}, engine=engine).resolve({"id": "PR-1"})
        history = engine.history("_FiveStepsThatFail:PR-1")
    names = [step.__name__ for step in SYNC_STEPS]
    check_undone([names.index(entry.step) + 1 for entry in history if isinstance(entry, StepCompensated)])


if __name__ == "__main__":
    order = read_order()
    _check()
    tell(_CASES[order.case]("sqlite:///saga.db", order.at_once, order.seconds))
