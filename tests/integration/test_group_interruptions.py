"""Rule S30 in a parallel group: a handler is cancelled while several branches are in flight."""

from __future__ import annotations

import asyncio
import time

import pytest
from gates import Gate, gated
from sagas import SAGA_ID, remember, saga_of

from saga_engine import Parallel


def cancelled_in_the_middle(saga, engine, *begun):
    """Deliver on an event loop, and cancel the handler as soon as these gates are open."""

    async def scenario():
        task = asyncio.ensure_future(saga.make(engine=engine).aresolve({"id": "PR-1"}))
        for gate in begun:
            await gate.apass_through()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())


def until(condition):
    ends_at = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < ends_at, "it never came about"
        time.sleep(0.002)


@pytest.mark.parametrize(("journal_url", "driver"), [("memory", "async"), ("sqlite", "async")], indirect=True)
def test_S30_a_handler_cancelled_in_a_group_of_async_steps_interrupts_all_of_them(new_engine, resolve, world):
    begun_a, begun_b, never = Gate(), Gate(), Gate()
    a = gated(world.step("a"), opens=begun_a, waits_for=never)
    b = gated(world.step("b"), opens=begun_b, waits_for=never)
    saga = saga_of(Parallel(a, b), world.step("c"))
    engine = new_engine()
    cancelled_in_the_middle(saga, engine, begun_a, begun_b)
    assert engine.get(SAGA_ID).held_by is None
    never.open()
    assert resolve(saga, on=engine).status == "success"
    assert sorted(world.executed) == ["a", "b", "c"]
    assert [call.attempt for call in world.calls] == [2, 2, 1]


@pytest.mark.parametrize(("journal_url", "driver"), [("sqlite", "async with plain steps")], indirect=True)
def test_S30_a_handler_cancelled_in_a_group_keeps_its_lease_until_the_last_plain_step_is_over(
    new_engine, resolve, world
):
    begun_a, begun_b, end_a, end_b = Gate(), Gate(), Gate(), Gate()
    a = gated(world.step("a", remember(a=1)), opens=begun_a, waits_for=end_a)
    b = gated(world.step("b", remember(b=1)), opens=begun_b, waits_for=end_b)
    saga = saga_of(Parallel(a, b), world.step("c"))
    engine = new_engine()
    cancelled_in_the_middle(saga, engine, begun_a, begun_b)
    end_a.open()
    until(lambda: world.executed)
    for _ in range(20):
        assert resolve(saga, on=engine).countdown == 30
    assert world.executed == ["a"]
    end_b.open()
    until(lambda: engine.get(SAGA_ID).held_by is None)
    assert resolve(saga, on=engine).status == "success"
    assert world.executed == ["a", "b", "c"]
    assert world.of("c")[0].state == {"a": 1, "b": 1}
