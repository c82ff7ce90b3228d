"""What a module is given to register its callbacks, its web resources and its cached functions with."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from types import SimpleNamespace
from typing import Any

from saga_engine.extensions.cached import cached_function_of
from saga_engine.extensions.callbacks import CALLBACKS_POINT, check_callback, kinds_of_category
from saga_engine.extensions.errors import (
    InvalidationsUnsupported,
    NotCacheable,
    RegistrationClosed,
    UnknownRegistration,
)
from saga_engine.extensions.invalidations import feed_of
from saga_engine.extensions.ledger import Ledger
from saga_engine.extensions.unit import Host
from saga_engine.extensions.web_resources import (
    RESOURCES_POINT,
    ModuleResource,
    check_app,
    checked_path,
    warn_of_rivals,
)

__all__ = ["ModuleApi"]

#: A callback is async; what it is given and what it answers is said in `saga_engine.extensions.callbacks`.
AsyncCallback = Callable[..., Awaitable[Any]]


class ModuleApi:
    """The engine as a module sees it. What is registered through it is taken back when the module is removed.

    Besides the methods below there is a `register_<category>_callbacks` for each category that plugins add.

    Args:
        host: where the module is added to.
        ledger: records what is registered.
    """

    def __init__(self, host: Host, ledger: Ledger) -> None:
        self._host = host
        self._ledger = ledger
        self._is_closed = False

    @property
    def engine(self) -> Any:
        """The engine; None: modules are used without one."""
        return self._host.engine

    @property
    def logger(self) -> Any:
        """The module's own logger."""
        return self._host.logger

    def register_saga_callbacks(
        self,
        *,
        check_saga_start: AsyncCallback | None = None,
        on_saga_completed: AsyncCallback | None = None,
        on_saga_compensated: AsyncCallback | None = None,
        on_saga_parked: AsyncCallback | None = None,
        **others: AsyncCallback | None,
    ) -> None:
        """Register callbacks on whole sagas.

        Args:
            check_saga_start: `(saga, saga_id, request)`; allows or denies a new execution, before it is journaled.
            on_saga_completed: `(record)`; told when an execution has completed.
            on_saga_compensated: `(record)`; told when one has been undone.
            on_saga_parked: `(record)`; told when one has parked.
            others: what plugins added to the category.

        Raises:
            UnknownRegistration: there is no callback of that name; an AttributeError.
            NotConforming: it is not async, or does not take these arguments; a ValueError.
        """
        callbacks = {
            "check_saga_start": check_saga_start,
            "on_saga_completed": on_saga_completed,
            "on_saga_compensated": on_saga_compensated,
            "on_saga_parked": on_saga_parked,
        }
        self._register("saga", {**callbacks, **others})

    def register_step_callbacks(
        self,
        *,
        check_step: AsyncCallback | None = None,
        on_step_failed: AsyncCallback | None = None,
        **others: AsyncCallback | None,
    ) -> None:
        """Register callbacks on steps.

        Args:
            check_step: `(saga_id, step, request)`; allows or denies that the step is run.
            on_step_failed: `(saga_id, step, error)`; told of each attempt that failed.
            others: what plugins added to the category.

        Raises:
            UnknownRegistration: there is no callback of that name; an AttributeError.
            NotConforming: it is not async, or does not take these arguments; a ValueError.
        """
        self._register("step", {"check_step": check_step, "on_step_failed": on_step_failed, **others})

    def register_operator_callbacks(
        self, *, check_operator_action: AsyncCallback | None = None, **others: AsyncCallback | None
    ) -> None:
        """Register callbacks on what people do to executions: resume, skip, cancel, undo and the like.

        Args:
            check_operator_action: `(action, saga_id, who)`; allows or denies it.
            others: what plugins added to the category.

        Raises:
            UnknownRegistration: there is no callback of that name; an AttributeError.
            NotConforming: it is not async, or does not take these arguments; a ValueError.
        """
        self._register("operator", {"check_operator_action": check_operator_action, **others})

    def __getattr__(self, name: str) -> Any:
        """Give the method that registers callbacks of a category that a plugin added."""
        category = re.fullmatch("register_([a-z0-9_]+)_callbacks", name)
        if category is None:
            raise UnknownRegistration(f"ModuleApi has no {name!r}: see its documentation for what can be registered")
        kinds_of_category(self._host.points, category[1])
        return lambda **callbacks: self._register(category[1], callbacks)

    def _register(self, category: str, callbacks: dict[str, AsyncCallback | None]) -> None:
        kinds = kinds_of_category(self._host.points, category)
        unknown = [name for name in callbacks if name not in kinds]
        if unknown:
            raise UnknownRegistration(f"there is no {category} callback {unknown[0]!r}: known are {', '.join(kinds)}")
        given = {name: function for name, function in callbacks.items() if function is not None}
        for name, function in given.items():
            check_callback(kinds[name], function)
        self._host.contribute(self._ledger, CALLBACKS_POINT, SimpleNamespace(**given))

    def register_web_resource(self, path: str, resource: Any) -> None:
        """Serve an ASGI app under a path, with all that is below it. Only in a module's `__init__`.

        If another module registered the path, the one that comes first in the configuration serves it.

        Args:
            path: the full path, best below `/_saga/client`.
            resource: an ASGI app, for example of Starlette. It finds the path in the `root_path` of its scope.

        Raises:
            RegistrationClosed: the module is built already; a RuntimeError.
            ReservedName: the path is in a namespace of the engine's own; a ValueError.
            NotConforming: the path, or the app, cannot be served; a ValueError.
        """
        if self._is_closed:
            raise RegistrationClosed(f"the web resource {path} comes too late: register it in the module's __init__")
        resource_path = checked_path(path)
        check_app(path, resource)
        served = ModuleResource(resource_path, resource)
        self._host.contribute(self._ledger, RESOURCES_POINT, served)
        warn_of_rivals(self._host.points, served)

    def register_cached_function(self, function: AsyncCallback) -> None:
        """Keep the caches of a function that is decorated with `@cached()` in step between all processes.

        Args:
            function: the function, or the method of any instance. What it has cached by now is dropped.

        Raises:
            NotCached: it is not decorated; a ValueError.
            InvalidationsUnsupported: the engine's journal cannot pass invalidations on, or is not open yet.
            JournalError: the journal cannot be read.
        """
        cache = cached_function_of(function)
        feed = None if self.engine is None else feed_of(self._journal())
        self._ledger.record(f"cached function {cache.name}", cache.register(feed))

    def _journal(self) -> Any:
        journal = getattr(self.engine, "journal", None)
        if journal is None:
            raise InvalidationsUnsupported(
                "the journal, which a plugin opens, is not open yet: register cached functions once the engine is made"
            )
        return journal

    async def invalidate_cache(self, function: AsyncCallback, key: Sequence[Any]) -> None:
        """Drop what is cached for one key. Once this returns, nobody in this process is given what was out of date.

        Processes on the same journal follow within a second. Of a method, the caches of all instances are meant.

        Args:
            function: the decorated function, or the method of any instance.
            key: a tuple of the arguments that make up its key, by position.

        Raises:
            NotCached: it is not decorated, or not registered; a ValueError.
            NotCacheable: these are not the arguments that make up its key; a TypeError.
            JournalError: it was dropped here, but other processes could not be told; do it again.
        """
        if key is None:
            raise NotCacheable("the key is None: give a tuple of arguments, or call invalidate_all(function)")
        await cached_function_of(function).invalidate(key)

    async def invalidate_all(self, function: AsyncCallback) -> None:
        """Drop everything that is cached of a function; see `invalidate_cache`.

        Raises:
            NotCached: it is not decorated, or not registered; a ValueError.
            JournalError: it was dropped here, but other processes could not be told; do it again.
        """
        await cached_function_of(function).invalidate(None)

    def close(self) -> None:
        """End the time in which web resources can be registered: the module is built."""
        self._is_closed = True
