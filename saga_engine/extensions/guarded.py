"""Foreign async code, run so that it ends nobody but itself: whatever it does, its caller and the event loop go on.

`sys.exit()` in a task of asyncio ends the whole event loop, and a task that is cancelled by its own code looks like
one that its caller is to end with. Both become a `TaskInterrupted` here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from types import TracebackType
from typing import Any, TypeVar, cast

import anyio
from anyio.abc import TaskGroup

from saga_engine.extensions.errors import TaskInterrupted

__all__ = ["call_apart", "call_guarded", "guarded_tasks"]

T = TypeVar("T")


async def call_guarded(function: Callable[..., Awaitable[T]], *arguments: Any, **keywords: Any) -> T:
    """Call an async function.

    Raises:
        TaskInterrupted: it called `sys.exit()`.
        BaseException: what else it raises, as it is.
    """
    try:
        return await function(*arguments, **keywords)
    except SystemExit as error:
        raise TaskInterrupted(f"it called sys.exit({error.code!r})") from error


async def call_apart(function: Callable[[], Awaitable[T]]) -> T:
    """Call an async function in a task of its own, and wait for it.

    Raises:
        TaskInterrupted: it called `sys.exit()`, or was cancelled by itself and not by the caller's cancellation.
        Exception: what else it raises, as it is.
    """
    values: list[T] = []
    errors: list[Exception] = []

    async def run() -> None:
        try:
            values.append(await call_guarded(function))
        except Exception as error:
            errors.append(error)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
    if errors:
        raise errors[0]
    if not values:
        raise TaskInterrupted("it cancelled its own task")
    return values[0]


def guarded_tasks() -> TaskGroup:
    """Make a task group whose tasks cannot end the event loop: one that calls `sys.exit()` just fails."""
    return cast(TaskGroup, _GuardedTasks(anyio.create_task_group()))


class _GuardedTasks:
    """No subclass of anyio's class, which gets new abstract methods now and then; all else is that of the group."""

    def __init__(self, tasks: TaskGroup) -> None:
        self._tasks: Any = tasks

    def start_soon(self, func: Callable[..., Awaitable[Any]], *args: Any, name: object = None) -> Any:
        """Start a task, see `anyio.abc.TaskGroup`."""
        return self._tasks.start_soon(partial(call_guarded, func), *args, name=name or func)

    async def start(self, func: Callable[..., Awaitable[Any]], *args: Any, name: object = None) -> Any:
        """Start a task and wait until it is ready, see `anyio.abc.TaskGroup`."""
        return await self._tasks.start(partial(call_guarded, func), *args, name=name or func)

    def create_task(self, coroutine: Awaitable[Any], **options: Any) -> Any:
        """Start a task, see `anyio.abc.TaskGroup`, if this release of anyio can."""
        return self._tasks.create_task(call_guarded(lambda: coroutine), **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tasks, name)

    async def __aenter__(self) -> TaskGroup:
        """Open the group."""
        await self._tasks.__aenter__()
        return cast(TaskGroup, self)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        """Close the group when all of its tasks are over."""
        return bool(await self._tasks.__aexit__(kind, error, traceback))


TaskGroup.register(_GuardedTasks)
