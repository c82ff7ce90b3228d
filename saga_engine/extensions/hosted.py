"""An extension of an application as a plugin: loaded when the plugin is started, unloaded when it is stopped."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextvars import ContextVar
from copy import deepcopy
from types import ModuleType
from typing import Any

import anyio
from anyio.abc import TaskGroup

from saga_engine.extensions.errors import PluginLoadError, PluginStateError
from saga_engine.extensions.known import KnownExtension
from saga_engine.extensions.ledger import Ledger
from saga_engine.extensions.plugin import Plugin
from saga_engine.extensions.turns import Turns
from saga_engine.extensions.unit import Host, PluginUnit

__all__ = ["HostedExtension", "House", "check_outside", "is_inside"]

#: The extension as a part of which the present task runs.
_inside: ContextVar[str | None] = ContextVar("saga_extension", default=None)

#: What an extension that is no `ExtensionBase` has at least one of.
_HOOKS = ("load", "unload", "run", "worker", "spinup", "spindown")


def is_inside() -> bool:
    """Tell whether the present task was started by an extension."""
    return _inside.get() is not None


def check_outside(names: Collection[str]) -> None:
    """Refuse to let a task wait for its own end.

    Args:
        names: the extensions that are to be unloaded.

    Raises:
        PluginStateError: the task was started by one of them.
    """
    inside = _inside.get()
    if inside in names:
        raise PluginStateError(
            f"a task of extension {inside!r} cannot wait until that is unloaded: let a task of the application do it"
        )


class House:
    """What the extensions of one application share.

    Args:
        app: the application.

    Attributes:
        app: the same.
        attached: the extensions that the plugin manager holds, by name.
        loaded: those of them that are loaded, by name, in the order in which they were.
        clients: how many clients the application has.
        is_spinning: whether the extensions are spun up, or being spun up; None: some are.
        turns: whose hooks run, so that none of them waits for what waits for it.
    """

    def __init__(self, app: Any) -> None:
        self.app = app
        self.attached: dict[str, HostedExtension] = {}
        self.loaded: dict[str, HostedExtension] = {}
        self.clients = 0
        self.is_spinning: bool | None = False
        self.turns = Turns()


class HostedExtension(PluginUnit):
    """The plugin that one extension of an application is.

    Args:
        known: what the manager knows of it.
        house: what it shares with the others; it enters itself there.

    Attributes:
        extension: the extension itself, from when it is built.
        configuration: what it is loaded with.

    Raises:
        PluginLoadError: the extension cannot be imported, or its dependencies are no list of names.
    """

    def __init__(self, known: KnownExtension, house: House) -> None:
        source = known.source()
        version = getattr(source, "version", None)
        self.plugin = Plugin(
            id=known.name, version=version if isinstance(version, str) else "0", depends_on=known.depends_on()
        )
        self.extension: Any = None
        self.configuration: Mapping[str, Any] = {}
        self._source = source
        self._house = house
        self._tasks: TaskGroup | None = None
        self._running: _Task | None = None
        self._working: _Task | None = None
        self._is_spinning = False

    def contribute(self, host: Host, ledger: Ledger) -> None:
        """Build the extension and name it; nothing of it runs yet."""
        self.configuration = host.configuration
        self._logger = host.logger
        self.extension = self._built()
        if not any(callable(getattr(self.extension, name, None)) for name in _HOOKS):
            raise PluginLoadError(
                f"extension {self.plugin.id!r} is {self.extension!r}, which has none of {', '.join(_HOOKS)}: derive "
                "its class from ExtensionBase"
            )
        for name in ("run", "worker"):
            task = getattr(self.extension, name, None)
            if task is not None and not inspect.iscoroutinefunction(task):
                raise PluginLoadError(f"{name} of extension {self.plugin.id!r} is not async: write `async def {name}`")
        if not isinstance(self.extension, ModuleType) and hasattr(self.extension, "name"):
            self.extension.name = self.plugin.id
        self._house.attached[self.plugin.id] = self
        ledger.record(f"extension {self.plugin.id}", lambda: _forget(self._house.attached, self.plugin.id))

    def _built(self) -> Any:
        """Build the extension of a class, or with a module's `construct()`; any other object is one itself."""
        source = self._source
        make = source if isinstance(source, type) else getattr(source, "construct", None)
        try:
            return source if make is None else make()
        except Exception as error:
            raise PluginLoadError(
                f"extension {self.plugin.id!r} cannot be built ({type(error).__name__}: {error}): repair it, "
                "or configure it with enabled = no"
            ) from error

    async def start(self, task_group: TaskGroup) -> None:
        """Load the extension, let its `run` begin, and spin it up if there are clients."""
        self._configuration = deepcopy(dict(self.configuration))
        await self._call("load")
        self._house.loaded[self.plugin.id] = self
        self._tasks = task_group
        try:
            self._running = self._begin("run")
            if self._house.is_spinning:
                await self.spin_up()
        except BaseException:  # a cancellation: `stop` is not called for what has not started
            with anyio.CancelScope(shield=True):
                await self.stop()
            raise

    async def stop(self) -> None:
        """Spin the extension down, end what runs of it, and unload it; also when its `run` or `worker` crashed."""
        del self._house.loaded[self.plugin.id]
        try:
            await self.spin_down()
        finally:
            if self._running is not None:
                await self._running.end()
            await self._call("unload")

    async def spin_up(self) -> None:
        """Call `spinup`, and let `worker` begin. If that raises, it is logged, and the extension does not spin."""
        if self._is_spinning:
            return
        try:
            await self._call("spinup")
            self._working = self._begin("worker")
        except Exception:
            self._logger.exception("extension %s could not be spun up: it does not work for clients", self.plugin.id)
        else:
            self._is_spinning = True

    async def spin_down(self) -> None:
        """End `worker`, and call `spindown`. If that raises, it is logged."""
        if not self._is_spinning:
            return
        self._is_spinning = False
        if self._working is not None:
            await self._working.end()
        try:
            await self._call("spindown")
        except Exception:
            self._logger.exception("extension %s could not be spun down", self.plugin.id)

    def _begin(self, name: str) -> _Task | None:
        function = getattr(self.extension, name, None)
        if function is None or self._tasks is None:
            return None
        task = _Task(self.plugin.id)
        self._tasks.start_soon(task.live, self._bound(function), name=f"extension {self.plugin.id}: {name}")
        return task

    async def _call(self, hook: str) -> None:
        function = getattr(self.extension, hook, None)
        if function is None:
            return
        with self._house.turns.hook():
            answer = self._bound(function)()
            if inspect.isawaitable(answer):
                await answer

    def _bound(self, function: Callable[..., Any]) -> Callable[[], Any]:
        """Give the function as many of `(app, configuration, logger)` as it takes."""
        arguments = (self._house.app, self._configuration, self._logger)
        kinds = [parameter.kind for parameter in inspect.signature(function).parameters.values()]
        is_any = inspect.Parameter.VAR_POSITIONAL in kinds
        count = sum(kind in (_ONLY, _POSITIONAL) for kind in kinds)
        fitting = arguments if is_any else arguments[:count]
        return lambda: function(*fitting)


_ONLY, _POSITIONAL = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD


class _Task:
    """One background task that can be ended, and waited for, by itself."""

    def __init__(self, extension: str) -> None:
        self._extension = extension
        self._scope = anyio.CancelScope()
        self._over = anyio.Event()

    async def live(self, function: Callable[[], Awaitable[Any]]) -> None:
        _inside.set(self._extension)
        try:
            with self._scope:
                await function()
        finally:
            self._over.set()

    async def end(self) -> None:
        self._scope.cancel()
        with anyio.CancelScope(shield=True):  # what comes next relies on it that nothing runs any more
            await self._over.wait()


def _forget(table: dict[str, HostedExtension], name: str) -> None:
    del table[name]
