"""Both drivers carry several calls at once: the plan is a graph, and steps that need nothing run beside each other.

The declaration of branches comes in a later release; here the journaled plan of a chain is cut into branches.
"""

from __future__ import annotations

import asyncio
import threading

import pytest
from sagas import DONE, SAGA_ID, World, saga_of, statuses

import saga_engine.engine
from saga_engine import SagaStatus
from saga_engine.journal import Plan
from saga_engine.plan import plan_of
from transactions import BackgroundTransaction


@pytest.fixture(autouse=True)
def branches(monkeypatch):
    """Journal plans in which steps `a` and `b` need nothing, and `c` needs both."""

    def branched(workflow):
        steps = plan_of(workflow).steps
        needs = {"a": (), "b": (), "c": ("a", "b")}
        return Plan(steps=tuple(_with_needs(step, needs[step.name]) for step in steps))

    monkeypatch.setattr(saga_engine.engine, "plan_of", branched)


def _with_needs(step, needs):
    return type(step)(step.name, step.kind, needs, step.probed, step.on_unknown)


@pytest.mark.parametrize("is_driver_async", [False, True])
def test_plain_branches_run_beside_each_other(engine, is_driver_async):
    world, both = World(), threading.Barrier(2, timeout=30)

    def meet(request):
        both.wait()
        return DONE

    made = saga_of(world.step("a", meet), world.step("b", meet), world.step("c")).make(engine=engine)
    request = {"id": "PR-1"}
    answer = asyncio.run(made.aresolve(request)) if is_driver_async else made.resolve(request)
    assert answer.status == "success"
    assert world.executed[-1] == "c"


class Meeting(BackgroundTransaction):
    """A step that is done when another one runs at the same time."""

    def __init__(self, name, mine, other):
        self._name, self._mine, self._other = name, mine, other

    def name(self):
        return self._name

    async def execute(self, request):
        self._mine.set()
        await asyncio.wait_for(self._other.wait(), 30)
        return DONE


def test_async_branches_run_beside_each_other(engine):
    async def scenario():
        one, two = asyncio.Event(), asyncio.Event()
        saga = saga_of(Meeting("a", one, two), Meeting("b", two, one))
        return await saga.make(engine=engine).aresolve({"id": "PR-1"})

    assert asyncio.run(scenario()).status == "success"


def test_a_branch_that_fails_waits_for_the_other_and_is_undone_first(engine, resolve):
    world, is_other_done = World(), threading.Event()

    def fail(request):
        assert is_other_done.wait(30)
        raise ValueError("b failed")

    def succeed(request):
        is_other_done.set()
        return DONE

    saga = saga_of(world.step("a", succeed), world.step("b", fail), world.step("c"))
    assert resolve(saga).output == "b failed"
    assert world.undone == ["b", "a"]
    record = engine.get(SAGA_ID)
    assert record.status is SagaStatus.COMPENSATED
    assert statuses(record)["c"] == "PENDING"
