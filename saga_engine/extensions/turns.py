"""Turns: the operations of a manager come one after the other, all in one event loop at a time."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import anyio

from saga_engine.extensions.errors import PluginStateError
from saga_engine.extensions.loops import current_loop

__all__ = ["Turns"]


class Turns:
    """Lets operations wait for each other, and refuses those that would wait for ever."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._users = 0
        self._loop: Any = None
        self._lock: anyio.Lock
        self._tasks_in_hooks: set[int] = set()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for those who came before, and let the others wait.

        Raises:
            PluginStateError: a hook calls this, or another event loop uses the manager.
        """
        if anyio.get_current_task().id in self._tasks_in_hooks:
            raise PluginStateError(
                "a hook of a plugin cannot wait for its manager, which waits for the hook: "
                "do it in a background task, or name the other plugin in depends_on"
            )
        with self.use():
            async with self._lock:
                yield

    @contextmanager
    def use(self) -> Iterator[None]:
        """Keep the manager to this event loop.

        Raises:
            PluginStateError: another event loop uses the manager.
        """
        here = current_loop()
        with self._guard:
            if self._users == 0:
                self._loop = here
                self._lock = anyio.Lock()
            elif self._loop is not here:
                raise PluginStateError(
                    "another event loop uses these plugins: start and stop them in one, or call stop_all() there first"
                )
            self._users += 1
        try:
            yield
        finally:
            with self._guard:
                self._users -= 1
                if self._users == 0:
                    self._loop = None

    @contextmanager
    def hook(self) -> Iterator[None]:
        """Mark that the present task runs a hook, for which an operation waits."""
        task_id = anyio.get_current_task().id
        self._tasks_in_hooks.add(task_id)
        try:
            yield
        finally:
            self._tasks_in_hooks.discard(task_id)
