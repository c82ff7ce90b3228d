"""The life of a started plugin: one task, in which its hooks run, with the task group for its background tasks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from contextvars import ContextVar
from typing import Any

import anyio
from anyio.abc import TaskGroup, TaskStatus

from saga_engine.extensions.errors import PluginStateError
from saga_engine.extensions.guarded import guarded_tasks
from saga_engine.extensions.loops import spawn
from saga_engine.extensions.turns import Turns
from saga_engine.extensions.unit import PluginUnit

__all__ = ["Life", "check_outside", "reason_of"]

#: The plugin as a part of which the present task runs.
_inside: ContextVar[str | None] = ContextVar("saga_plugin", default=None)


def check_outside(plugin_ids: Collection[str]) -> None:
    """Refuse to let a task wait for its own end.

    Args:
        plugin_ids: the plugins that are to be stopped.

    Raises:
        PluginStateError: the task was started by one of them.
    """
    inside = _inside.get()
    if inside in plugin_ids:
        raise PluginStateError(
            f"a background task of plugin {inside!r} cannot wait until that is stopped: let a task of the application "
            "do it"
        )


class Life:
    """One start of a plugin, until it has stopped.

    The task is nobody's child, so the plugin may be started and stopped from any task of its event loop; and one task
    runs all hooks, so a context that `start` enters may be left by `stop`.

    Args:
        unit: the plugin.
        turns: those of its manager.
        failed: told when something goes wrong while the plugin is started and nobody has asked it to end.

    Attributes:
        is_started: whether `init` and `start` succeeded.
        errors: what went wrong so far, as a text and what was raised.
    """

    def __init__(self, unit: PluginUnit, turns: Turns, failed: Callable[[Life], None]) -> None:
        self.is_started = False
        self.errors: list[tuple[str, BaseException]] = []
        self._unit = unit
        self._turns = turns
        self._failed = failed
        # One for all hooks: what `start` enters inside of it, `stop` leaves inside of it.
        self._hooks = anyio.CancelScope()
        self._settled = anyio.Event()
        self._asked_to_end = anyio.Event()
        self._over = anyio.Event()

    @property
    def is_over(self) -> bool:
        """Whether nothing of it runs any more."""
        return self._over.is_set()

    async def begin(self) -> None:
        """Start the plugin, and wait until it is started, or could not be; then it is over.

        Cancellation reaches the hooks, and is raised when nothing runs any more.
        """
        spawn(self._live, name=f"plugin {self._unit.plugin.id}")
        try:
            await self._settled.wait()
        except BaseException:
            if not self._settled.is_set():
                self._hooks.cancel()
            await self._wait_until_over()
            raise
        if not self.is_started:
            await self._wait_until_over()

    async def end(self) -> None:
        """Stop the plugin, and wait until nothing of it runs any more.

        Cancellation reaches the hook, and is raised when nothing runs any more.
        """
        self._asked_to_end.set()
        try:
            await self._over.wait()
        except BaseException:
            self._hooks.cancel()
            await self._wait_until_over()
            raise

    async def _wait_until_over(self) -> None:
        self._asked_to_end.set()
        with anyio.CancelScope(shield=True):
            await self._over.wait()

    async def _live(self) -> None:
        _inside.set(self._unit.plugin.id)  # what the hooks start takes this along
        try:
            with self._turns.use():
                async with anyio.create_task_group() as tasks:
                    background: TaskGroup = await tasks.start(self._hold_background)
                    with self._hooks:
                        await self._start(background)
                        self._settled.set()
                        if self.is_started:
                            await self._asked_to_end.wait()
                            await self._run("stop", self._unit.stop)
                    background.cancel_scope.cancel()
        finally:
            self._settled.set()
            self._over.set()
            is_explained = self._asked_to_end.is_set() if self.is_started else self.errors
            if not is_explained:
                self._fail("its event loop ended", PluginStateError("the event loop of a plugin ended before it did"))

    async def _start(self, background: TaskGroup) -> None:
        if await self._run("init", lambda: self._unit.init(background)):
            is_done = await self._run("start", lambda: self._unit.start(background))
            self.is_started = is_done and not self._hooks.cancel_called

    async def _run(self, name: str, hook: Callable[[], Awaitable[Any]]) -> bool:
        """Tell whether a hook succeeded. A cancellation goes on, and is an error only if nobody asked for it here."""
        try:
            with self._turns.hook():
                await hook()
        except anyio.get_cancelled_exc_class() as error:
            if not self._hooks.cancel_called:
                self.errors.append((f"{name} was cancelled", error))
            raise
        except BaseException as error:
            self.errors.append((f"{name} raised {reason_of(error)}", error))
            return False
        return True

    async def _hold_background(self, *, task_status: TaskStatus[TaskGroup]) -> None:
        """Hold the plugin's task group open, apart from the hooks: these go on when one of its tasks fails."""
        try:
            async with guarded_tasks() as background:
                task_status.started(background)
                await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException as error:
            self._fail(f"a background task raised {reason_of(error)}", error)

    def _fail(self, told: str, error: BaseException) -> None:
        self.errors.append((told, error))
        if not self._settled.is_set():
            self._hooks.cancel()
        elif not self._asked_to_end.is_set():
            self._failed(self)


def reason_of(error: BaseException) -> str:
    """Tell what was raised: type and text, of each one in a group."""
    grouped = getattr(error, "exceptions", None)
    if isinstance(grouped, tuple):
        return "; ".join(map(reason_of, grouped))
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
