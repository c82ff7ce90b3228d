"""sagaz: a declared saga of five actions with their compensations, one object a run, in tasks of an event loop."""

from __future__ import annotations

import asyncio
import os
from typing import Any

# sagaz reads it when it is imported; its default logs ten lines a saga.
os.environ["LOG_LEVEL"] = "WARNING"

from sagaz import Saga, SagaConfig, action, compensate, configure

from benchmarks.load import in_tasks
from benchmarks.peers.programs.order import FAILING, check_undone, read_order, tell

_undone: list[int] = []


class FiveSteps(Saga):
    """Five actions, each of which needs the one before."""

    saga_name = "five-steps"

    @action("step1")
    async def do_1(self, ctx: dict[str, Any]) -> dict[str, Any]:
        return {}

    @compensate("step1")
    async def undo_1(self, ctx: dict[str, Any]) -> None:
        _undone.append(1)

    @action("step2", depends_on=["step1"])
    async def do_2(self, ctx: dict[str, Any]) -> dict[str, Any]:
        return {}

    @compensate("step2")
    async def undo_2(self, ctx: dict[str, Any]) -> None:
        _undone.append(2)

    @action("step3", depends_on=["step2"])
    async def do_3(self, ctx: dict[str, Any]) -> dict[str, Any]:
        return {}

    @compensate("step3")
    async def undo_3(self, ctx: dict[str, Any]) -> None:
        _undone.append(3)

    @action("step4", depends_on=["step3"])
    async def do_4(self, ctx: dict[str, Any]) -> dict[str, Any]:
        return {}

    @compensate("step4")
    async def undo_4(self, ctx: dict[str, Any]) -> None:
        _undone.append(4)

    @action("step5", depends_on=["step4"])
    async def do_5(self, ctx: dict[str, Any]) -> dict[str, Any]:
        if ctx["number"] == FAILING:
            raise ValueError("the fifth step fails")
        return {}

    @compensate("step5")
    async def undo_5(self, ctx: dict[str, Any]) -> None:
        _undone.append(5)


async def _run(number: int) -> None:
    await FiveSteps().run({"number": number})


async def _check() -> None:
    try:
        await _run(FAILING)
    except ValueError:
        check_undone(_undone)
    else:
        raise RuntimeError("the saga whose fifth step fails did not raise")


async def _measure(case: str, at_once: int, seconds: float) -> float:
    if case != "sqlite":
        await _check()
        return await in_tasks(_run, at_once, seconds)
    from sagaz.core.storage.backends.sqlite import SQLiteSagaStorage

    async with SQLiteSagaStorage("sagaz.db") as storage:
        configure(SagaConfig(storage=storage))
        await _check()
        rate = await in_tasks(_run, at_once, seconds)
        if not await storage.list_sagas(limit=1):
            raise RuntimeError("sagaz stored no saga")
        return rate


if __name__ == "__main__":
    order = read_order()
    tell(asyncio.run(_measure(order.case, order.at_once, order.seconds)), "sagaz")
