"""An extension with background tasks: it tells of completed orders, without letting any saga wait for that."""

from __future__ import annotations

from typing import Any

import anyio
from anyio.abc import TaskStatus

from saga_engine.extensions import ExtensionBase

__all__ = ["Announcer"]

_WAITING_MAX = 100


class Announcer(ExtensionBase[Any]):
    """Given to an engine as `Engine(extensions={"announcer": Announcer})`: its `app` is the engine.

    Configuration: `greeting`, what each announcement begins with.
    """

    def configure(self, configuration: dict[str, Any]) -> None:
        """Read the configuration, and ask to be told of completed sagas."""
        self._greeting = configuration.get("greeting", "done:")
        self._outbox, self._inbox = anyio.create_memory_object_stream[str](_WAITING_MAX)
        assert self.app is not None, "an extension that is configured has its app"
        self.app.module_api().register_saga_callbacks(on_saga_completed=self.on_saga_completed)

    async def run(self) -> None:
        """Keep the background task alive, from load to unload."""
        async with self.use_nursery():
            await self.start_in_background(self._tell_all)

    def teardown(self) -> None:
        """Take nothing more in; called when the engine is closed."""
        self._outbox.close()
        self._inbox.close()

    async def on_saga_completed(self, record: Any) -> None:
        """Take note of a completed saga."""
        await self._outbox.send(f"{self._greeting} {record.saga_id}")

    async def _tell_all(self, *, task_status: TaskStatus[None]) -> None:
        task_status.started()
        async for text in self._inbox:
            self.log.info(text)
