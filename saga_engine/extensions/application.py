"""The extensions of an application: discovered, loaded in order, spun up while it has clients, reloaded, unloaded.

Each is a plugin of a `PluginManager`: to load one is to attach and start its plugin, to unload it is to remove that.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

import anyio

from saga_engine.extensions.errors import (
    DuplicateExtension,
    NoClient,
    PluginError,
    PluginResolutionError,
    PluginStateError,
    PluginStopError,
    ReservedName,
    UnknownExtension,
)
from saga_engine.extensions.hosted import HostedExtension, House, check_outside, is_inside
from saga_engine.extensions.known import ENTRY_POINT_GROUP, Enabled, KnownExtension, announced, check_name
from saga_engine.extensions.loops import spawn
from saga_engine.extensions.manager import PluginManager
from saga_engine.extensions.resolution import start_order

__all__ = ["ExtensionManager"]

TApp = TypeVar("TApp")


class ExtensionManager(Generic[TApp]):
    """Loads and unloads the extensions of one application. For one event loop, asyncio's or trio's.

        extensions = ExtensionManager(app)
        extensions.discover()
        await extensions.load_all({"http": {"port": 8080}, "metrics": {"enabled": "prefer"}})
        async with extensions.client():
            ...
        await extensions.unload_all()

    Args:
        app: what the extensions are loaded into: their `app`.
        manager: where their plugins go; by default one of its own.
        logger: where it logs what it leaves out; a `logging.Logger`, or what is used like one.
    """

    def __init__(self, app: TApp, manager: PluginManager | None = None, *, logger: Any = None) -> None:
        self.app = app
        self.plugins = PluginManager() if manager is None else manager
        self._log = logger or logging.getLogger(__name__)
        self._known: dict[str, KnownExtension] = {}
        self._house = House(app)
        #: One change of what is loaded, or of whether it spins, at a time.
        self._turns = self._house.turns
        self._attached = self._house.attached
        self._loaded = self._house.loaded

    # --- what there is ---

    def add(self, name: str, extension: Any) -> None:
        """Make an extension known; it is not loaded yet.

        Args:
            name: its name, by which others depend on it and by which it is configured.
            extension: a class to call without arguments, such as a subclass of `ExtensionBase`; or a module or an
                object that has `load`, `unload`, `run`, `worker`, `spinup`, `spindown` or, to build such an object,
                `construct`.

        Raises:
            ReservedName: the name is empty, or the engine's own; a ValueError.
            DuplicateExtension: an extension of that name is known already; a ValueError.
        """
        check_name(name)
        if name in self._known:
            raise DuplicateExtension(f"an extension {name!r} is known already: give this one another name")
        self._known[name] = KnownExtension(name, lambda: extension)

    def discover(self, group: str = ENTRY_POINT_GROUP) -> tuple[str, ...]:
        """Make known what the installed packages announce as entry points; they are imported when they are needed.

        One whose name is the engine's own or taken already is left out, and that is logged as an error.

        Returns:
            The names that are new.
        """
        new: list[str] = []
        for point in announced(group):
            try:
                check_name(point.name)
                if point.name in self._known:
                    raise DuplicateExtension(f"an extension {point.name!r} is known already")
            except (DuplicateExtension, ReservedName) as error:
                package = point.dist.name if point.dist else "an unnamed package"
                self._log.error("extension %s of %s is left out: %s", point.value, package, error)
            else:
                self._known[point.name] = KnownExtension(point.name, point.load)
                new.append(point.name)
        return tuple(new)

    @property
    def known(self) -> tuple[str, ...]:
        """The names of all extensions that can be loaded, in the order in which they became known."""
        return tuple(self._known)

    @property
    def loaded(self) -> tuple[str, ...]:
        """The names of those that are loaded, in the order in which they were."""
        return tuple(self._loaded)

    def get(self, name: str) -> Any:
        """Give the extension itself.

        Raises:
            UnknownExtension: none of that name is loaded; a ValueError.
        """
        if name not in self._loaded:
            raise UnknownExtension(
                f"no extension {name!r} is loaded: load it first (loaded: {', '.join(self._loaded) or 'none'})"
            )
        return self._loaded[name].extension

    def configure(self, name: str, configuration: Mapping[str, Any] | None) -> None:
        """Set the configuration with which an extension is loaded the next time.

        While it is loaded it keeps what it has, until it is reloaded; `needs_reload` tells so.

        Args:
            name: the extension.
            configuration: a dict of names and values. The key `enabled` is the manager's: "yes" (the default), "no",
                "prefer" or "avoid", see `Enabled`.

        Raises:
            UnknownExtension: there is none of that name; a ValueError.
            ConfigError: the configuration is no dict, or `enabled` none of these words.
        """
        self._known_as(name).configure(configuration)

    def needs_reload(self, name: str) -> bool:
        """Tell whether an extension is loaded with another configuration than it would be now.

        Raises:
            UnknownExtension: there is none of that name; a ValueError.
        """
        known, loaded = self._known_as(name), self._loaded.get(name)
        return loaded is not None and loaded.configuration != known.configuration

    def _known_as(self, name: str) -> KnownExtension:
        if name not in self._known:
            raise UnknownExtension(
                f"there is no extension {name!r}: add it, or install its package "
                f"(known: {', '.join(self._known) or 'none'})"
            )
        return self._known[name]

    # --- loading ---

    async def load(self, *names: str) -> None:
        """Load extensions, after all that they depend on. All of them, or none; what is loaded already stays so.

        Raises:
            UnknownExtension: there is none of that name; a ValueError.
            PluginResolutionError: dependencies go in a circle, or one is missing, disabled or crashed. Nothing was
                loaded.
            PluginLoadError: one cannot be imported or built. Nothing was loaded.
            PluginStartError: one's `load` or `configure` raised. What was loaded before it is unloaded again.
        """
        for name in names:
            self._known_as(name)
        async with self._turns.turn():
            await self._load_units(self._units_of(names))

    async def load_all(self, configurations: Mapping[str, Mapping[str, Any] | None]) -> None:
        """Configure extensions, and load those that are enabled: first those with "yes", then those with "prefer".

        Args:
            configurations: a configuration for each name, see `configure`. Only a name with "yes" must be known.

        Raises:
            What `configure` and `load` raise, for those with "yes"; none of them is loaded then. With "prefer" it is
            logged instead, and the others are loaded.
        """
        enabled = {name: self._configured(name, given) for name, given in configurations.items()}
        async with self._turns.turn():
            await self._load_units(self._units_of(name for name, how in enabled.items() if how is Enabled.YES))
            for name, how in enabled.items():
                if how is Enabled.PREFER:
                    await self._load_if_possible(name)

    def _configured(self, name: str, configuration: Mapping[str, Any] | None) -> Enabled:
        """Configure an extension, and tell how it is wanted; one that is not known may be unwanted all the same."""
        known = self._known.get(name) or KnownExtension(name, lambda: None)
        known.configure(configuration)
        if known.enabled is Enabled.YES:
            self._known_as(name)
        return known.enabled

    async def _load_if_possible(self, name: str) -> None:
        try:
            self._known_as(name)
            await self._load_units(self._units_of([name]))
        except (PluginError, UnknownExtension) as error:
            self._log.warning("extension %s is preferred and cannot be loaded: %s", name, error)

    def _units_of(self, names: Iterable[str]) -> list[HostedExtension]:
        """Make the plugins of these extensions and of all that they depend on, in the order in which to load them.

        Raises:
            PluginError: they cannot be loaded.
        """
        asked = tuple(names)
        units: dict[str, HostedExtension] = {}
        to_visit = list(reversed(asked))
        while to_visit:
            name = to_visit.pop()
            if name in units or name in self._loaded:
                continue
            self._check_enabled(name)
            units[name] = HostedExtension(self._known[name], self._house)
            depends_on = units[name].plugin.depends_on
            for other in depends_on:
                self._check_dependency(name, other, other in asked)
            to_visit.extend(other for other in reversed(depends_on) if other in self._known)
        plugins = {held.plugin.id: held.plugin for held in self.plugins.plugins()}
        plugins.update((name, unit.plugin) for name, unit in units.items())
        return [units[name] for name in start_order(plugins, units) if name in units]

    def _check_enabled(self, name: str) -> None:
        if self._known[name].enabled is Enabled.NO:
            raise PluginResolutionError(f"extension {name!r} is disabled: configure it with enabled = yes")

    def _check_dependency(self, name: str, other: str, is_asked: bool) -> None:
        if other not in self._known:
            if any(held.plugin.id == other for held in self.plugins.plugins()):
                return  # another plugin, which the manager starts first
            raise PluginResolutionError(f"extension {name!r} depends on {other!r}, which nobody has: install or add it")
        if self._known[other].enabled is Enabled.NO:
            raise PluginResolutionError(f"extension {name!r} depends on {other!r}, which is disabled: enable it")
        if other in self._attached and other not in self._loaded and not is_asked:
            raise PluginResolutionError(f"extension {name!r} depends on {other!r}, which has failed: load that first")

    async def _load_units(self, units: Iterable[HostedExtension]) -> None:
        """Build all of them, then load one after the other; if one cannot be, none is."""
        fresh: list[str] = []
        try:
            for unit in units:
                name = unit.plugin.id
                if name in self._attached:  # it crashed, or was stopped: begin anew
                    await self.plugins.remove(name)
                self.plugins.attach(unit, configuration=self._known[name].configuration)
                fresh.append(name)
            for name in fresh:
                await self.plugins.start_plugin(name)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._take_out(fresh)
            raise

    async def _take_out(self, names: Iterable[str]) -> None:
        """Remove what was added in vain; the error that made it so is the one to raise."""
        try:
            await self._remove_all(names)
        except PluginStopError:
            self._log.exception("extensions that were not loaded after all could not be unloaded cleanly")

    # --- unloading ---

    async def unload(self, name: str) -> None:
        """Unload an extension, after all that depend on it.

        Raises:
            UnknownExtension: none of that name is loaded; a ValueError.
            PluginStateError: a hook, or a task of an extension that would be unloaded, calls this.
            PluginStopError: an `unload` or `teardown` raised. They are all unloaded.
        """
        async with self._turns.turn():
            self.get(name)
            names = self._with_dependents(name)
            check_outside(names)
            await self._remove_all(names)

    async def unload_all(self) -> None:
        """Unload all extensions, the last loaded one first; those that failed are taken out, too.

        Raises:
            PluginStateError: a hook, or a task of an extension, calls this.
            PluginStopError: an `unload` or `teardown` raised. They are all unloaded.
        """
        async with self._turns.turn():
            check_outside(self._loaded)
            failed = [name for name in self._attached if name not in self._loaded]
            await self._remove_all([*failed, *self._loaded])

    async def _remove_all(self, names: Iterable[str]) -> None:
        """Remove the plugins of all of these, the last one first, and then raise the first error."""
        errors: list[PluginStopError] = []
        for name in reversed(tuple(names)):
            try:
                await self.plugins.remove(name)
            except PluginStopError as error:
                errors.append(error)
        if errors:
            errors[0].others += tuple(errors[1:])
            raise errors[0]

    async def reload(self, name: str) -> None:
        """Unload an extension, and load it anew, with its present configuration; all that depend on it likewise.

        Those keep the configuration that they are loaded with.

        Raises:
            UnknownExtension: none of that name is loaded; a ValueError.
            PluginStateError: a hook, or a task of an extension that would be unloaded, calls this.
            PluginError: one could not be unloaded cleanly, built again, or loaded again.
        """
        async with self._turns.turn():
            self.get(name)
            check_outside(self._with_dependents(name))
            await self.plugins.reload(name, self._known[name].configuration)

    def _with_dependents(self, name: str) -> list[str]:
        """List a loaded extension and all loaded ones that depend on it, directly or not, in the order of loading."""
        found = {name}
        for other, extension in self._loaded.items():
            if not found.isdisjoint(extension.plugin.depends_on):
                found.add(other)
        return [other for other in self._loaded if other in found]

    # --- clients ---

    @property
    def clients(self) -> int:
        """How many clients the application has."""
        return self._house.clients

    @asynccontextmanager
    async def client(self) -> AsyncIterator[None]:
        """Count a client of the application as long as the context lasts."""
        await self.client_connected()
        try:
            yield
        finally:
            await self.client_disconnected()

    async def client_connected(self) -> None:
        """Count a client. With the first one, the extensions are spun up, in the order in which they were loaded.

        A task of an extension does not wait for that.

        Raises:
            PluginStateError: a hook of an extension calls this.
        """
        await self._count(1)

    async def client_disconnected(self) -> None:
        """Count a client less. With the last one, the extensions are spun down, the last loaded one first.

        A task of an extension does not wait for that. The client is gone even if this is cancelled.

        Raises:
            NoClient: there is none; a RuntimeError.
            PluginStateError: a hook of an extension calls this.
        """
        if self._house.clients == 0:
            raise NoClient("no client is connected: call client_disconnected once for each client_connected")
        await self._count(-1)

    async def _count(self, change: int) -> None:
        """Count first, wait afterwards: who unloads a server waits for the clients that its end disconnects."""
        self._house.clients += change
        if is_inside():  # the spindown would wait until the worker has ended, which may be this very task
            spawn(self._spin_later, name="spins extensions up or down")
            return
        try:
            await self._spin()
        except anyio.get_cancelled_exc_class():
            self._house.clients -= max(change, 0)
            spawn(self._spin_later, name="spins extensions up or down")
            raise
        except PluginStateError:
            self._house.clients -= change
            raise

    async def _spin(self) -> None:
        """Spin the extensions up or down if they do not spin as the number of clients wants it."""
        async with self._turns.turn():
            house, is_wanted = self._house, self._house.clients > 0
            if house.is_spinning is is_wanted:
                return
            house.is_spinning = is_wanted
            try:
                for extension in self._in_order_of(is_wanted):
                    await (extension.spin_up() if is_wanted else extension.spin_down())
            except BaseException:
                house.is_spinning = None
                raise

    def _in_order_of(self, is_spinup: bool) -> list[HostedExtension]:
        loaded = list(self._loaded.values())
        return loaded if is_spinup else loaded[::-1]

    async def _spin_later(self) -> None:
        try:
            await self._spin()
        except Exception:
            self._log.exception("extensions could not be spun up or down")
