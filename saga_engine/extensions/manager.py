"""The plugin manager: adds plugins, starts and stops them in the order of their dependencies, and removes them."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from saga_engine.extensions.decorated import unit_of
from saga_engine.extensions.errors import (
    PluginError,
    PluginLoadError,
    PluginStartError,
    PluginStateError,
)
from saga_engine.extensions.holding import Holding
from saga_engine.extensions.ledger import Ledger
from saga_engine.extensions.life import check_outside, reason_of
from saga_engine.extensions.loops import spawn
from saga_engine.extensions.plugin import Plugin, PluginDescriptor, PluginState
from saga_engine.extensions.points import Points
from saga_engine.extensions.registry import ExtensionRegistry
from saga_engine.extensions.resolution import dependents_of, order_of, start_order
from saga_engine.extensions.turns import Turns
from saga_engine.extensions.unit import Host, PluginUnit
from saga_engine.services.container import Container

__all__ = ["PluginManager"]

_logger = logging.getLogger("saga_engine.plugins")


class PluginManager:
    """Holds plugins. On asyncio and on trio.

    Operations that run hooks come one after the other, whoever calls them, and all in one event loop as long as a
    plugin is started. `attach`, `get_plugin` and `plugins` may be called at any time and from any thread.

    What hooks raise never ends the manager. An operation that ends plugins (`stop_plugin`, `stop_all`, `remove`,
    `unload_all`, `reload`) is carried through and then raises the first error, with the rest in its `others`. When a
    background task of a plugin raises, the error is logged, the plugin is FAILED, and it and those that depend on it
    are stopped.

    Args:
        registry: where extensions go; its own if left out.
        container: the container whose child scopes the plugins get; an empty one if left out.
        engine: what the plugins see as `host.engine`.

    Attributes:
        registry: the same.
    """

    def __init__(
        self, registry: ExtensionRegistry | None = None, *, container: Container | None = None, engine: Any = None
    ) -> None:
        self.registry = ExtensionRegistry() if registry is None else registry
        self._container = Container() if container is None else container
        self._engine = engine
        self._held: dict[str, Holding] = {}
        self._adding: set[str] = set()
        self._guard = threading.Lock()
        self._turns = Turns()

    @property
    def points(self) -> Points:
        """The extension points behind the registry, for code without an event loop."""
        return self.registry.points

    # --- adding ---

    async def add(self, thing: type | PluginUnit, configuration: Mapping[str, Any] | None = None, rank: int = 0) -> str:
        """Add a plugin, as `attach` does; it does not wait for anything."""
        return self.attach(thing, configuration, rank)

    def attach(self, thing: type | PluginUnit, configuration: Mapping[str, Any] | None = None, rank: int = 0) -> str:
        """Add a plugin: build it, and register what it contributes. Its dependencies may be added later.

        Args:
            thing: a class that is decorated with `@plugin`, or a unit.
            configuration: the plugin's own.
            rank: its place in the configuration, the lowest first; of one rank, what was added first.

        Returns:
            The id of the plugin.

        Raises:
            PluginLoadError: it is no plugin, a plugin of this id is there, or it cannot be built.
            Exception: what else `contribute` raises, such as NotConforming, as it is. No trace is left then.
        """
        unit = unit_of(thing)
        plugin = getattr(unit, "plugin", None)
        if not isinstance(plugin, Plugin):
            raise PluginLoadError(f"{unit!r} has the plugin {plugin!r}: set self.plugin = Plugin(id=..., version=...)")
        with self._reserved(plugin.id):
            host = self._host(plugin, configuration, rank)
            ledger = Ledger()
            try:
                unit.contribute(host, ledger)
            except BaseException as error:
                self._take_back(ledger, plugin, error)
                raise
            self._held[plugin.id] = Holding(thing, unit, host, ledger, self._turns, self._crashed)
        return plugin.id

    @contextmanager
    def _reserved(self, plugin_id: str) -> Iterator[None]:
        """Keep an id while a plugin is added; not by holding a lock, since foreign code runs meanwhile."""
        with self._guard:
            if plugin_id in self._held or plugin_id in self._adding:
                raise PluginLoadError(f"there is a plugin {plugin_id!r} already: remove it first, or use reload()")
            self._adding.add(plugin_id)
        try:
            yield
        finally:
            with self._guard:
                self._adding.discard(plugin_id)

    def _host(self, plugin: Plugin, configuration: Mapping[str, Any] | None, rank: int) -> Host:
        own = dict(configuration or {})
        logger = _logger.getChild(plugin.id)
        container = self._container.scope(
            "plugin", logger=logger, configuration=own, engine=self._engine, points=self.points
        )
        return Host(plugin, self.points, container, logger, self._engine, own, rank)

    def _take_back(self, ledger: Ledger, plugin: Plugin, error: BaseException) -> None:
        try:
            ledger.undo_all()
        except Exception:
            _logger.exception("plugin %s could not be added (%s), and left traces", plugin.id, reason_of(error))

    def detach(self, plugin_id: str) -> None:
        """Take an `attach` back, at once: nothing of the plugin has run, so no hook is called.

        Raises:
            PluginStateError: there is none of that id, or a start of it was tried; use `remove` then.
            PluginStopError: an undo raised. The plugin is removed all the same.
        """
        held = self._known(plugin_id)
        if held.was_started:
            raise PluginStateError(f"plugin {plugin_id!r} was started: await remove({plugin_id!r}) instead")
        self._held.pop(plugin_id, None)
        held.take_back()

    # --- looking ---

    async def get_plugin(self, plugin_id: str) -> PluginDescriptor | None:
        """Give what is known of a plugin at this moment; None if there is none of that id."""
        held = self._held.get(plugin_id)
        return None if held is None else held.describe()

    def plugins(self) -> list[PluginDescriptor]:
        """List all plugins by rank, and of one rank in the order in which they were added."""
        return [held.describe() for held in self._listed()]

    def container_of(self, plugin_id: str) -> Container:
        """Give the scope of the container that a plugin has.

        Raises:
            PluginStateError: there is none of that id.
        """
        return self._known(plugin_id).host.container

    def _listed(self) -> list[Holding]:
        with self._guard:
            held = list(self._held.values())
        return sorted(held, key=lambda one: one.host.rank)

    def _known(self, plugin_id: str) -> Holding:
        held = self._held.get(plugin_id)
        if held is None:
            known = ", ".join(list(self._held)) or "none"
            raise PluginStateError(f"there is no plugin {plugin_id!r}: add it first (there are: {known})")
        return held

    # --- starting ---

    async def start_all(self) -> None:
        """Start all plugins, each after those that it depends on; those that are started already stay so.

        Raises:
            PluginResolutionError: a dependency is missing, or dependencies form a circle. Nothing was started.
            PluginStartError: one could not be started, and is FAILED. Those before it stay started.
            PluginStateError: a hook calls this, or the plugins are used in another event loop.
        """
        async with self._operation():
            plugins = _identities(self._listed())
            await self._start_each(start_order(plugins, plugins))

    async def start_plugin(self, plugin_id: str) -> None:
        """Start a plugin, after all that it depends on. One that is FAILED is tried again.

        Raises:
            PluginStateError: there is none of that id; or as for `start_all`.
            PluginResolutionError: as for `start_all`, for this plugin and those that it depends on.
            PluginStartError: as for `start_all`.
        """
        async with self._operation():
            self._known(plugin_id)
            await self._start_each(start_order(_identities(self._listed()), [plugin_id]))

    async def _start_each(self, plugin_ids: Iterable[str]) -> None:
        for plugin_id in plugin_ids:
            held = self._known(plugin_id)
            if held.state is PluginState.STARTED:
                continue
            for other in held.plugin.depends_on:
                self._check_started(plugin_id, other)
            await held.start()

    def _check_started(self, plugin_id: str, other: str) -> None:
        """Refuse to start what depends on a plugin that failed a moment ago."""
        found = self._held.get(other)
        state = "not there" if found is None else found.state.value
        if state != PluginState.STARTED.value:
            raise PluginStartError(
                f"plugin {plugin_id!r} was not started: it depends on {other!r}, which is {state}. Start that first"
            )

    # --- stopping and removing ---

    async def stop_plugin(self, plugin_id: str) -> None:
        """Stop a plugin, after all that depend on it. Those that are not started are skipped.

        Raises:
            PluginStateError: there is none of that id; a task of its own asks for this; or as for `start_all`.
            PluginStopError: a `stop` raised. That plugin is FAILED; all of them are stopped.
        """
        async with self._operation():
            errors: list[PluginError] = []
            held = self._known(plugin_id)
            self._check_outside(held)
            await self._stop_with_dependents(held, errors)
        _raise_first(errors)

    async def stop_all(self) -> None:
        """Stop all plugins that are started and call their `unload`, each before those that it depends on.

        They stay added, and can be started again.

        Raises:
            PluginStateError: as for `start_all`.
            PluginStopError: a hook raised. That plugin is FAILED; all of them are stopped.
        """
        async with self._operation():
            errors: list[PluginError] = []
            check_outside(list(self._held))
            for held in self._dependents_first():
                if held.was_started:
                    await self._stop(held, errors)
                    await self._unload(held, errors)
        _raise_first(errors)

    async def remove(self, plugin_id: str) -> bool:
        """Stop a plugin, after all that depend on it; call its `unload`, and take back all that it registered.

        Those that depend on it stay added; they cannot be started until it is added again.

        Returns:
            False: there is none of that id.

        Raises:
            PluginStateError: as for `start_all`.
            PluginStopError: a hook or an undo raised. The plugin is removed all the same.
        """
        async with self._operation():
            held = self._held.get(plugin_id)
            if held is None:
                return False
            errors: list[PluginError] = []
            self._check_outside(held)
            await self._stop_with_dependents(held, errors)
            await self._forget(held, errors)
        _raise_first(errors)
        return True

    async def unload_all(self) -> None:
        """Remove all plugins, each before those that it depends on.

        Raises:
            PluginStateError: as for `start_all`.
            PluginStopError: a hook or an undo raised. All plugins are removed all the same.
        """
        async with self._operation():
            errors: list[PluginError] = []
            check_outside(list(self._held))
            for held in self._dependents_first():
                await self._stop(held, errors)
                await self._forget(held, errors)
        _raise_first(errors)

    def _check_outside(self, held: Holding) -> None:
        """Refuse to let a task of a plugin, or of one that depends on it, wait until it is stopped."""
        check_outside([one.plugin.id for one in self._family(held)])

    async def _stop_with_dependents(self, held: Holding, errors: list[PluginError]) -> None:
        for other in reversed(self._family(held)):
            await self._stop(other, errors)

    def _dependents_first(self) -> list[Holding]:
        """List all plugins, each before those that it depends on."""
        held = {one.plugin.id: one for one in self._listed()}
        return [held[plugin_id] for plugin_id in reversed(order_of(_identities(held.values()), held))]

    def _family(self, first: Holding) -> list[Holding]:
        """List a plugin and all that depend on it, directly or not, each after those that it depends on."""
        held = {one.plugin.id: one for one in self._listed()}
        return [first, *(held[other] for other in dependents_of(_identities(held.values()), first.plugin.id))]

    async def _stop(self, held: Holding, errors: list[PluginError]) -> None:
        with _gathered(errors):
            await held.stop()

    async def _unload(self, held: Holding, errors: list[PluginError]) -> None:
        with _gathered(errors):
            await held.unload()

    async def _forget(self, held: Holding, errors: list[PluginError]) -> None:
        await self._unload(held, errors)
        with _gathered(errors):
            held.take_back()
        self._held.pop(held.plugin.id, None)

    # --- reloading ---

    async def reload(self, plugin_id: str, configuration: Mapping[str, Any] | None = None) -> None:
        """Remove a plugin and all that depend on it, add them again, and start those that were started.

        Args:
            plugin_id: the plugin.
            configuration: its new configuration; None: the one it has. Those that depend on it keep theirs.

        If it is cancelled, all of them are there, and those that had been stopped stay so.

        Raises:
            PluginStateError: there is none of that id; or as for `start_all`.
            PluginLoadError: one could not be added again, and is not there any more.
            PluginStartError: one could not be started again, and is FAILED; what depends on it is not started.
            PluginStopError: a hook or an undo raised while they were removed.
        """
        async with self._operation():
            first = self._known(plugin_id)
            self._check_outside(first)
            family = self._family(first)
            started = [held.plugin.id for held in family if held.state is PluginState.STARTED]
            errors: list[PluginError] = []
            try:
                for held in reversed(family):
                    await self._stop(held, errors)
                    await self._forget(held, errors)
            finally:  # also when it is cancelled: what was removed must not be gone
                for held in family:
                    if held.plugin.id not in self._held:
                        is_changed = held is first and configuration is not None
                        self._attach_again(held, configuration if is_changed else held.host.configuration, errors)
            for other in started:
                with _gathered(errors):
                    await self._start_again(other)
        _raise_first(errors)

    def _attach_again(self, held: Holding, configuration: Mapping[str, Any] | None, errors: list[PluginError]) -> None:
        with _gathered(errors):
            try:
                self.attach(held.thing, configuration, held.host.rank)
            except Exception as error:
                raise PluginLoadError(
                    f"plugin {held.plugin.id!r} is not there any more, since it could not be added again "
                    f"({reason_of(error)}): repair it or its configuration, and add it"
                ) from error

    async def _start_again(self, plugin_id: str) -> None:
        if plugin_id in self._held:
            await self._start_each([plugin_id])

    # --- one operation at a time ---

    @asynccontextmanager
    async def _operation(self) -> AsyncIterator[None]:
        async with self._turns.turn():
            for held in self._listed():
                if held.is_crashed:
                    await self._clear(held)
            yield

    def _crashed(self, held: Holding) -> None:
        """See to it that a plugin that has crashed is stopped; the next operation does that if it comes first."""
        if held.is_alive:
            spawn(self._clear_crashes, name=f"stops plugin {held.plugin.id}")

    async def _clear_crashes(self) -> None:
        async with self._operation():
            pass

    async def _clear(self, held: Holding) -> None:
        errors: list[PluginError] = []
        await self._stop_with_dependents(held, errors)
        for error in errors:
            held.host.logger.error("plugin %s has failed, and: %s", held.plugin.id, error, exc_info=error)


def _identities(held: Iterable[Holding]) -> dict[str, Plugin]:
    return {one.plugin.id: one.plugin for one in held}


@contextmanager
def _gathered(errors: list[PluginError]) -> Iterator[None]:
    """Keep an error for later, so that an operation is carried through."""
    try:
        yield
    except PluginError as error:
        errors.append(error)


def _raise_first(errors: list[PluginError]) -> None:
    if errors:
        errors[0].others = tuple(errors[1:])
        raise errors[0]
