"""ExtensionBase: what an extension with a life of its own derives from, and the tasks it runs in the background.

On asyncio and on trio: the tasks are anyio's.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar
from warnings import warn

import anyio
from anyio.abc import TaskGroup, TaskStatus

from saga_engine.extensions.errors import NoTaskGroup, TaskFailedEarly, TaskGroupOpen
from saga_engine.extensions.guarded import call_guarded, guarded_tasks

__all__ = ["Configuration", "ExtensionBase"]

Configuration = dict[str, Any]
TApp = TypeVar("TApp")
BackgroundFunction = Callable[..., Coroutine[Any, Any, Any]]

#: Where an extension logs that has no `log`, because it is not loaded.
_LOG = logging.getLogger(__name__)


class ExtensionBase(Generic[TApp]):
    """An extension of an application. Override what is needed; no override has to call this class's own.

    Besides the methods below a subclass may have two async ones, `run` and `worker`. They are given as many of
    `(app, configuration, logger)` as they take. `run` lives from load to unload; an extension whose `run` raises is
    unloaded. `worker` lives while the application has clients.

    Attributes:
        name: its name, assigned by the manager.
        log: a logger while it is loaded, else None.
        dependencies: the names of the extensions that must be loaded before it. A method `get_dependencies()` that
            can be called on the class is asked instead if there is one.
    """

    name: str = ""
    log: Any = None
    dependencies: tuple[str, ...] = ()

    _app: TApp | None = None
    _tasks: TaskGroup | None = None

    @property
    def app(self) -> TApp | None:
        """The application that the extension is loaded into; None: it is not loaded."""
        return self._app

    @app.setter
    def app(self, value: TApp | None) -> None:
        old, self._app = self._app, value
        self.on_app_changed(old, value)

    def on_app_changed(self, old_app: TApp | None, new_app: TApp | None) -> None:
        """Override to learn that the extension was attached to an application, or detached from it."""

    def configure(self, configuration: Configuration) -> None:
        """Override to read the configuration; called once, by `load`."""

    def load(self, app: TApp, configuration: Configuration, logger: Any) -> None:
        """Attach the extension to its application and configure it. Called by the manager; override `configure`.

        Args:
            app: the application.
            configuration: the extension's own part of the application's configuration.
            logger: a logger of the extension's own.

        Raises:
            Exception: what `configure` raises; `log` and `app` are None again then.
        """
        self.app = app
        self.log = logger
        try:
            self.configure(configuration)
        except BaseException:
            self._detach()
            raise

    def teardown(self) -> None:
        """Override to release what the extension holds; called once, by `unload`, while `app` is still set."""

    def unload(self, app: TApp) -> None:
        """Detach the extension from its application. Called by the manager; override `teardown`.

        Args:
            app: the application; for extensions that are not classes and keep nothing themselves.

        Raises:
            Exception: what `teardown` raises; `log` and `app` are None even then.
        """
        try:
            self.teardown()
        finally:
            self._detach()

    def _detach(self) -> None:
        self.log = None
        self.app = None

    def spinup(self) -> None:
        """Override to begin what is only worth its while with clients; called when the first one comes."""

    def spindown(self) -> None:
        """Override to end what `spinup` began; called when the last client is gone."""

    @asynccontextmanager
    async def use_nursery(self) -> AsyncIterator[TaskGroup]:
        """Hold open the task group in which the extension's background tasks run.

        The context lasts until all of them are over. What happens to them when it is cancelled, or when one that is
        not protected fails, is what anyio says of any task group.

        Raises:
            TaskGroupOpen: it is open already.
            ExceptionGroup: a task that was started with `protect=False` failed, or the body did.
        """
        if self._tasks is not None:
            raise TaskGroupOpen(f"the nursery of {self!r} is already open: open it once, around all that uses it")
        tasks = self._tasks = guarded_tasks()
        try:
            async with tasks:
                yield tasks
        finally:
            self._tasks = None

    async def start_in_background(self, func: BackgroundFunction, *args: Any, protect: bool = True) -> Any:
        """Start a task and wait until it calls `task_status.started(value)`. It is stopped when the nursery closes.

        Args:
            func: called with `args` and the keyword `task_status`.
            args: its positional arguments.
            protect: whether an exception of the task is logged; else it ends the nursery and all in it.

        Returns:
            The value that the task gave to `started`; None if it gave none.

        Raises:
            NoTaskGroup: `use_nursery()` is not open.
            TaskFailedEarly: it returned, or raised, before it called `started`; the cause is what it raised. With
                `protect=False`, that itself is raised instead.
        """
        launch = _Launch(self._crashed if protect else None, func, args)
        value = await self._opened().start(launch.run, name=_name_of(func))
        if launch.is_started:
            return value
        if launch.error is not None and not protect:
            raise launch.error
        what = "returned" if launch.error is None else f"failed ({type(launch.error).__name__}: {launch.error})"
        raise TaskFailedEarly(
            f"{_name_of(func)} {what} before it called task_status.started(): let it call that when it is ready, "
            "or use start_in_background_soon"
        ) from launch.error

    def start_in_background_soon(self, func: BackgroundFunction, *args: Any, protect: bool = True) -> None:
        """Start a task without waiting for anything. It is stopped when the nursery closes.

        Args:
            func: called with `args`.
            args: its positional arguments.
            protect: whether an exception of the task is logged; else it ends the nursery and all in it.

        Raises:
            NoTaskGroup: `use_nursery()` is not open.
        """
        tasks = self._opened()
        if protect:
            tasks.start_soon(self._run_protected, func, args, name=_name_of(func))
        else:
            tasks.start_soon(func, *args, name=_name_of(func))

    def run_in_background(self, func: BackgroundFunction, *args: Any, protect: bool = True) -> None:
        """Do what `start_in_background_soon` does, and warn that this is its old name."""
        warn(
            "run_in_background() is deprecated: use start_in_background_soon()",
            DeprecationWarning,
            stacklevel=2,
        )
        self.start_in_background_soon(func, *args, protect=protect)

    def _opened(self) -> TaskGroup:
        if self._tasks is None:
            raise NoTaskGroup(
                f"{self!r} cannot run a task in the background: do it inside `async with self.use_nursery():`"
            )
        return self._tasks

    async def _run_protected(self, func: BackgroundFunction, args: tuple[Any, ...]) -> None:
        try:
            await call_guarded(func, *args)
        except Exception:
            self._crashed(func)

    def _crashed(self, func: BackgroundFunction) -> None:
        (self.log or _LOG).exception("background task %s failed; the others go on", _name_of(func))

    def __repr__(self) -> str:
        return f"<{type(self).__qualname__} {self.name!r}>" if self.name else f"<{type(self).__qualname__}>"


class _Launch:
    """One task that somebody waits for the start of: its function's `task_status`, and what became of it.

    An exception before the start is handed over here: on its way through trio it would lose its cause.
    """

    def __init__(
        self, report: Callable[[BackgroundFunction], None] | None, func: BackgroundFunction, args: tuple[Any, ...]
    ) -> None:
        self._report = report
        self._func = func
        self._args = args
        self._status: TaskStatus[Any] = anyio.TASK_STATUS_IGNORED
        self.is_started = False
        self.error: Exception | None = None

    def started(self, value: Any = None) -> None:
        self._status.started(value)
        self.is_started = True

    async def run(self, *, task_status: TaskStatus[Any]) -> None:
        self._status = task_status
        try:
            await call_guarded(self._func, *self._args, task_status=self)
        except Exception as error:
            if self._report is not None:
                self._report(self._func)
            elif self.is_started:
                raise
            self.error = error
        if not self.is_started:
            task_status.started()


def _name_of(func: Any) -> str:
    """Name a function as its author calls it, whatever it is wrapped in."""
    while isinstance(func, functools.partial):
        func = func.func
    name = getattr(func, "__qualname__", None) or type(func).__qualname__
    return f"{getattr(func, '__module__', None) or '?'}.{name}"
