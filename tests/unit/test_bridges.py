"""Bridges: the waiting thread comes back whatever happens to the loop (S30)."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from saga_engine import bridges
from saga_engine.bridges import bridge_to


@pytest.fixture(autouse=True)
def _look_often(monkeypatch):
    monkeypatch.setattr(bridges, "_LOOK_S", 0.01)


async def give(value: Any) -> Any:
    await asyncio.sleep(0)
    if isinstance(value, BaseException):
        raise value
    return value


def test_a_thread_gets_what_the_loop_gives():
    async def scenario():
        return await asyncio.to_thread(bridge_to(asyncio.get_running_loop()), give("it"))

    assert asyncio.run(scenario()) == "it"


@pytest.mark.parametrize("error", [ValueError("no"), TimeoutError("too late"), asyncio.CancelledError()], ids=repr)
def test_a_thread_gets_the_very_object_that_was_raised(error):
    def cross(bridge):
        with pytest.raises(type(error)) as raised:
            bridge(give(error))
        return raised.value

    async def scenario():
        return await asyncio.to_thread(cross, bridge_to(asyncio.get_running_loop()))

    assert asyncio.run(scenario()) is error


def test_what_is_on_its_way_is_cancelled_and_what_follows_is_refused():
    events: list[str] = []

    async def wait(reached):
        reached.set()
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            events.append("cleaned up")

    def cross(bridge, reached):
        for awaitable in (wait(reached), give("never begun")):
            with pytest.raises(asyncio.CancelledError):
                bridge(awaitable)
            events.append("back")

    async def scenario():
        bridge, reached = bridge_to(asyncio.get_running_loop()), asyncio.Event()
        crossing = asyncio.ensure_future(asyncio.to_thread(cross, bridge, reached))
        await asyncio.wait_for(reached.wait(), 30)
        bridge.cancel()
        await crossing

    asyncio.run(scenario())
    assert events == ["cleaned up", "back", "back"]


def test_what_is_cancelled_before_the_loop_began_it_is_never_begun():
    """The task of the crossing is cancelled before its first step, as a loop that ends does with all its tasks."""

    def cross(bridge):
        with pytest.raises(asyncio.CancelledError):
            bridge(give("never begun"))
        return "back"

    async def scenario():
        loop = asyncio.get_running_loop()
        create, loop.create_task = loop.create_task, lambda coroutine: _cancelled(create(coroutine))
        with ThreadPoolExecutor(1) as pool:
            crossing = pool.submit(cross, bridge_to(loop))
            told = await asyncio.wrap_future(crossing)
            del loop.create_task
            return told

    assert asyncio.run(scenario()) == "back"


def _cancelled(task: asyncio.Task[Any]) -> asyncio.Task[Any]:
    task.cancel()
    return task


def test_a_loop_that_is_closed_before_it_began_anything_lets_the_thread_go():
    """What was handed over lies in a loop that never comes to it."""
    loop = asyncio.new_event_loop()
    handed_over = threading.Event()
    call_soon = loop.call_soon_threadsafe
    loop.call_soon_threadsafe = lambda *arguments: (call_soon(*arguments), handed_over.set())

    def cross():
        with pytest.raises(asyncio.CancelledError):
            bridge_to(loop)(give("never begun"))
        return "back"

    with ThreadPoolExecutor(1) as pool:
        crossing = pool.submit(cross)
        assert handed_over.wait(30)
        loop.close()
        assert crossing.result(30) == "back"


def test_a_loop_that_is_closed_takes_nothing():
    loop = asyncio.new_event_loop()
    loop.close()
    with pytest.raises(asyncio.CancelledError):
        bridge_to(loop)(give("never begun"))


def test_an_interrupted_wait_cancels_and_waits_for_the_end(monkeypatch):
    events: list[str] = []

    async def wait(reached):
        reached.set()
        try:
            await asyncio.sleep(60)
        finally:
            events.append("cancelled")

    def cross(bridge, reached):
        await_end, calls = bridges.Crossing._await_end, []

        def interrupted(self, is_gone):
            calls.append(1)
            if len(calls) == 1:
                assert reached.wait(30)
                raise KeyboardInterrupt
            await_end(self, is_gone)

        monkeypatch.setattr(bridges.Crossing, "_await_end", interrupted)
        with pytest.raises(KeyboardInterrupt):
            bridge(wait(reached))
        events.append("back")

    async def scenario():
        await asyncio.to_thread(cross, bridge_to(asyncio.get_running_loop()), threading.Event())

    asyncio.run(scenario())
    assert events == ["cancelled", "back"]
