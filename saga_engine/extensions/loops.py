"""Event loops: which one this is, and tasks that outlive whoever started them. Of asyncio and of trio."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from typing import Any

__all__ = ["current_loop", "spawn"]

#: asyncio itself keeps its tasks only weakly.
_tasks: set[asyncio.Task[None]] = set()


def current_loop() -> Any:
    """Give an object that stands for the event loop that runs here; each loop has one of its own."""
    loop = _asyncio_loop()
    if loop is not None:
        return loop
    import trio

    return trio.lowlevel.current_trio_token()


def spawn(function: Callable[[], Awaitable[None]], name: str) -> None:
    """Run a function in a task that belongs to nobody; it is cancelled when the event loop ends.

    anyio has no such tasks, as they need care: the function must wait for all that it starts, and must not raise.
    """
    if _asyncio_loop() is None:
        import trio

        trio.lowlevel.spawn_system_task(function, name=name, context=contextvars.copy_context())
    else:
        task = asyncio.create_task(_run(function), name=name)
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)


async def _run(function: Callable[[], Awaitable[None]]) -> None:
    await function()


def _asyncio_loop() -> asyncio.AbstractEventLoop | None:
    """Give the loop if the present task is one of asyncio's; where trio is a guest of asyncio, its tasks are not."""
    try:
        return asyncio.get_running_loop() if asyncio.current_task() is not None else None
    except RuntimeError:
        return None
