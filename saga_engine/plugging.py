"""The plugins of one engine: what they contribute to it, when they start and stop, what they are asked and told."""

from __future__ import annotations

import logging
import os
import queue
import threading
from asyncio import CancelledError
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from types import NoneType
from typing import Any, Protocol, runtime_checkable

import anyio
from connect.eaas.core.responses import BackgroundResponse

from saga_engine.application import scope_of_plugins
from saga_engine.context import current_context
from saga_engine.errors import BadJournalURL, NotAllowed
from saga_engine.extensions.application import ExtensionManager
from saga_engine.extensions.callbacks import Callbacks
from saga_engine.extensions.discovery import discover_plugins
from saga_engine.extensions.errors import OperationDenied, PluginLoadError
from saga_engine.extensions.ledger import Ledger
from saga_engine.extensions.manager import PluginManager
from saga_engine.extensions.module_api import ModuleApi
from saga_engine.extensions.modules import load_modules
from saga_engine.extensions.plugin import Plugin
from saga_engine.extensions.service import ExtensionService
from saga_engine.extensions.unit import Host, PluginUnit
from saga_engine.imports import import_named
from saga_engine.journal import Entry, Journal, SagaEnded, SagaParked, SagaStatus, StepFailed
from saga_engine.plan import Contributed
from saga_engine.plugged import Given, Origin
from saga_engine.recorded import rebuild_error
from saga_engine.saga import Saga, Services
from saga_engine.services import Container, ServiceProvider
from saga_engine.services.contributed import ContributedProviders
from saga_engine.threads import Threads

__all__ = ["ExtensionThing", "JournalOpener", "PluginThing", "Plugging", "thing_named"]

#: What `Engine(plugins=[...])` takes: a class, a unit, the name of one, or a pair of these and a configuration.
PluginThing = type | PluginUnit | str | tuple[type | PluginUnit | str, Mapping[str, Any] | None]

#: What `Engine(extensions={...})` takes under a name: a class or object, a pair of one and its configuration, or that.
ExtensionThing = Any

#: How long somebody who wants to drive waits until plugins are started.
_START_WAIT_S = 60.0

#: How many tellings may wait for the callbacks; then whoever drives waits, too.
_TELLINGS_MAX = 1_000

_ENDED = {
    SagaStatus.COMPLETED: "on_saga_completed",
    SagaStatus.COMPENSATED: "on_saga_compensated",
    SagaStatus.CANCELLED: "on_saga_compensated",
}

_logger = logging.getLogger("saga_engine.plugins")


@runtime_checkable
class JournalOpener(Protocol):
    """What a plugin contributes to the extension point `journals`."""

    scheme: str

    def open(self, url: str) -> Journal:
        """Open the journal that the URL names; `scheme` is what stands before its `://`."""
        ...


class Plugging:
    """The plugins of one engine in one process.

    They are added when the engine is made, started before it drives anything, and stopped when it is closed. Their
    hooks and callbacks run on the engine's own event loop. What has happened is told in the order of the commits, by
    a thread of its own, after the commit is durable; a process that dies may not have told of its last commits.

    Args:
        engine: the engine; it may be half made, and only plugins that ask for its journal need that.
        container: the application's, which is to hold what plugins provide.
        services: the engine's own: `config`, `client` and `logger` can be injected into plugins.
        threads: the engine's own.
        stop_timeout_s: how long the tellings that wait may take when it is closed.
    """

    def __init__(
        self, engine: Any, container: Container, services: Services, threads: Threads, stop_timeout_s: float
    ) -> None:
        self._engine = engine
        self._threads = threads
        self._stop_timeout_s = stop_timeout_s
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._starting = threading.Lock()
        self._is_started = False
        self._settings: dict[str, Mapping[str, Any]] = {}
        self._container = container
        self._provided = ContributedProviders(container)
        self.manager: PluginManager = _ManagerAtHome(
            threads, container=scope_of_plugins(container, services), engine=engine
        )
        self.extensions = ExtensionService(self.manager)
        self.background = ExtensionManager(engine, self.manager)
        points = self.manager.points
        points.declare("sagas", type[Saga])
        points.declare("service_providers", ServiceProvider)
        points.declare("journals", JournalOpener)
        self.callbacks = Callbacks(points, await_plainly=self._await_plainly)
        self._own_ledger = Ledger()
        self.module_api = ModuleApi(_host_of_engine(self.manager, engine), self._own_ledger)
        self._tellings: queue.Queue[tuple[str, Entry] | None] = queue.Queue(_TELLINGS_MAX)
        self._teller: threading.Thread | None = None

    def _await_plainly(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        try:
            self._refuse_on_own_loop()
        except NotAllowed:
            coroutine.close()
            raise
        return self._threads.await_plainly(coroutine)

    def _refuse_on_own_loop(self) -> None:
        if self._threads.is_own_loop():
            raise NotAllowed(
                "a hook or callback of a plugin waits for what needs its own event loop: call the engine in a thread, "
                "by await anyio.to_thread.run_sync(...)"
            )

    # --- adding ---

    def add(self, given: Given) -> None:
        """Add plugins in their order, then modules; and make the extensions known that are loaded at the start.

        Raises:
            PluginLoadError: one is no plugin, or cannot be added.
            ConfigError: a configuration is wrong.
            BindingConflict: two of them provide one service.
            Exception: what a constructor raises, as it is. Nothing is added then.
        """
        try:
            self._add(given)
        except BaseException:
            for held in reversed(self.manager.plugins()):
                self.manager.detach(held.plugin.id)
            raise

    def _add(self, given: Given) -> None:
        for rank, item in enumerate(given.plugins):
            thing, configuration = _with_configuration(item)
            self.manager.attach(thing_named(thing) if isinstance(thing, str) else thing, configuration, rank)
        for name, wanted in given.extensions.items():
            extension, settings = _extension_of(wanted)
            if extension is not None:
                self.background.add(name, extension)
            self._settings[name] = settings
        if any(name not in self.background.known for name in self._settings):
            self.background.discover()
        load_modules(given.modules, self.manager, rank=len(given.plugins))
        self.keep_up_with_providers()

    def open_journal(self, url: str) -> Journal | None:
        """Open a journal whose URL has the scheme of a plugin; None: no plugin has it.

        Raises:
            BadJournalURL: what the plugin opened is no journal.
        """
        for opener in self.manager.points.get("journals"):
            if opener.scheme == url.partition("://")[0]:
                opened: Journal = opener.open(url)
                if not (hasattr(opened, "append") and hasattr(opened, "submit")):
                    raise BadJournalURL(f"{url!r}: {opener!r} gave {opened!r}, which is no journal: repair the plugin")
                return opened
        return None

    # --- starting and stopping ---

    @property
    def is_of_this_process(self) -> bool:
        """Whether it was made here, and not in a process that forked."""
        return self._pid == os.getpid()

    def begin(self) -> None:
        """Start all plugins, unless that was done; wait while somebody else does.

        Raises:
            PluginError: one could not be started. Nothing is driven; the next call tries again.
            NotAllowed: they take too long to start: maybe because the start of one of them waits for this.
        """
        if self._is_started:
            return
        self._refuse_on_own_loop()
        if not self._starting.acquire(timeout=_START_WAIT_S):
            raise NotAllowed(
                f"plugins are still being started after {_START_WAIT_S:g} s, and nothing is driven before: the "
                "start of a plugin must not wait for an execution, but begin a background task which does"
            )
        try:
            if not self._is_started:
                self._await_plainly(self._start())
                self.module_api.close()
                self._is_started = True
        finally:
            self._starting.release()

    async def _start(self) -> None:
        await self.manager.start_all()
        waiting = {name: settings for name, settings in self._settings.items() if name not in self.background.loaded}
        await self.background.load_all(waiting)

    async def _stop(self) -> None:
        try:
            await self.background.unload_all()
        finally:
            await self.manager.unload_all()

    def close(self) -> None:
        """Tell what is to be told, and stop all plugins; what they raise is logged, and stops nothing."""
        if not self.is_of_this_process:
            return
        if self._teller is not None:
            self._tellings.put(None)
            self._teller.join(self._stop_timeout_s)
            if self._teller.is_alive():
                _logger.error("callbacks still run after %s s: not all is told of what happened", self._stop_timeout_s)
        try:
            self._await_plainly(self._stop())
            self._own_ledger.undo_all()
        except (Exception, CancelledError):
            _logger.exception("plugins could not be stopped cleanly")

    # --- what they contribute ---

    def origin_of(self, kind: type[Saga]) -> Origin:
        """Tell which plugin contributed this saga."""
        for each in self.manager.points.contributions("sagas"):
            if each.instance is kind and each.plugin is not None:
                return Origin(each.plugin.id, each.plugin.version)
        return Origin()

    def saga_named(self, name: str, plugin_id: str) -> type[Saga] | None:
        """Give the saga of this name that a plugin contributed; None: it contributes none."""
        for each in self.manager.points.contributions("sagas"):
            if each.instance.__name__ == name and each.plugin is not None and each.plugin.id == plugin_id:
                found: type[Saga] = each.instance
                return found
        return None

    def has_plugin(self, plugin_id: str) -> bool:
        """Tell whether a plugin of this id is here."""
        return any(held.plugin.id == plugin_id for held in self.manager.plugins())

    def contributed(self) -> Contributed:
        """Give what plugins contribute to every saga.

        Raises:
            BindingConflict: two plugins provide one service.
        """
        points = self.manager.points
        middlewares = tuple(points.get("middlewares"))
        if self.callbacks.has("check_step"):
            middlewares = (self._check_step, *middlewares)
        self.keep_up_with_providers()
        return Contributed(middlewares, self._container)

    def keep_up_with_providers(self) -> None:
        """Bind what is contributed to `service_providers`, each in front of the scope of its plugin."""
        contributions = self.manager.points.contributions("service_providers")
        homes = {held.plugin.id: self.manager.container_of(held.plugin.id) for held in self.manager.plugins()}
        self._provided.keep_up(
            (each.instance, homes.get(each.plugin.id if each.plugin else "", self._container)) for each in contributions
        )

    # --- asking ---

    def check_start(self, kind: type[Saga], saga_id: str, request: dict[str, Any]) -> None:
        """Ask whether an execution may be started.

        Raises:
            OperationDenied: a callback denied it.
            ModuleFailure: a callback failed.
        """
        self.callbacks.check_plainly("check_saga_start", saga=kind.__name__, saga_id=saga_id, request=request)

    def check_operator_action(self, action: str, saga_id: str, who: str) -> None:
        """Ask whether somebody may do this to an execution; raises what `check_start` does."""
        self.callbacks.check_plainly("check_operator_action", action=action, saga_id=saga_id, who=who)

    def _check_step(self, request: dict[str, Any], nxt: Any) -> Any:
        """Ask, around every step, whether it may run. A denial is the step's own `fail`: it left no effect (S8)."""
        context = current_context()
        ask = partial(self.callbacks.check_plainly, "check_step")
        try:
            ask(saga_id=context.saga_id, step=context.step, request=request)
        except OperationDenied as denied:
            return BackgroundResponse.fail(str(denied))
        return nxt(request)

    # --- telling ---

    def tell(self, saga_id: str, entries: Sequence[Entry]) -> None:
        """Let the callbacks know, in a while, what is durable now."""
        for entry in entries:
            name = _callback_of(entry)
            if name is not None and self.callbacks.has(name):
                self._begin_telling()
                self._tellings.put((saga_id, entry))

    def _begin_telling(self) -> None:
        with self._lock:
            if self._teller is None:
                self._teller = threading.Thread(target=self._keep_telling, name="saga-teller", daemon=True)
                self._teller.start()

    def _keep_telling(self) -> None:
        while (told := self._tellings.get()) is not None:
            try:
                self._tell_of(*told)
            # The journal may be gone, for example; the next telling is worth trying, and nobody else would tell it.
            except BaseException:
                _logger.exception("%s: callbacks could not be told of %s", told[0], type(told[1]).__name__)

    def _tell_of(self, saga_id: str, entry: Entry) -> None:
        name = _callback_of(entry)
        assert name is not None, "only what somebody wants to know is put here"
        if isinstance(entry, StepFailed):
            error = rebuild_error(entry.error)
            self.callbacks.notify_plainly(name, saga_id=saga_id, step=entry.step, error=error)
        else:
            self.callbacks.notify_plainly(name, record=self._engine.get(saga_id))


class _ManagerAtHome(PluginManager):
    """The manager of an engine's plugins: its hooks run on the engine's own event loop, whoever asks for that."""

    def __init__(self, threads: Threads, **options: Any) -> None:
        super().__init__(**options)
        self._threads = threads

    async def start_all(self) -> None:
        await self._at_home(super().start_all)

    async def start_plugin(self, plugin_id: str) -> None:
        await self._at_home(super().start_plugin, plugin_id)

    async def stop_plugin(self, plugin_id: str) -> None:
        await self._at_home(super().stop_plugin, plugin_id)

    async def stop_all(self) -> None:
        await self._at_home(super().stop_all)

    async def remove(self, plugin_id: str) -> bool:
        is_removed: bool = await self._at_home(super().remove, plugin_id)
        return is_removed

    async def unload_all(self) -> None:
        await self._at_home(super().unload_all)

    async def reload(self, plugin_id: str, configuration: Mapping[str, Any] | None = None) -> None:
        await self._at_home(super().reload, plugin_id, configuration)

    async def _at_home(self, operation: Callable[..., Coroutine[Any, Any, Any]], *arguments: Any) -> Any:
        if self._threads.is_own_loop():
            return await operation(*arguments)
        return await anyio.to_thread.run_sync(lambda: self._threads.await_plainly(operation(*arguments)))


def _callback_of(entry: Entry) -> str | None:
    if isinstance(entry, StepFailed):
        return "on_step_failed"
    if isinstance(entry, SagaParked):
        return "on_saga_parked"
    return _ENDED.get(entry.status) if isinstance(entry, SagaEnded) else None


def _host_of_engine(manager: PluginManager, engine: Any) -> Host:
    """Give what stands behind `Engine.module_api()`: callbacks and resources of whoever made the engine."""
    return Host(Plugin("engine", "0"), manager.points, Container(), _logger, engine)


def _with_configuration(item: Any) -> tuple[Any, Mapping[str, Any] | None]:
    """Take an item of `plugins` apart.

    Raises:
        PluginLoadError: it is a tuple of something else.
    """
    if not isinstance(item, tuple):
        return item, None
    thing, *configuration = item
    if not (len(configuration) == 1 and isinstance(configuration[0], (Mapping, NoneType))):
        raise PluginLoadError(f"{item!r} is no plugin with its configuration: give (plugin, a dict)")
    return thing, configuration[0]


def _extension_of(wanted: ExtensionThing) -> tuple[Any, Mapping[str, Any]]:
    """Take apart what stands under the name of an extension; None: what an installed package announces."""
    if isinstance(wanted, tuple):
        extension, settings = wanted
        return extension, settings or {}
    if isinstance(wanted, Mapping):
        settings = dict(wanted)
        named = settings.pop("extension", None)
        return (_imported(named) if isinstance(named, str) else named), settings
    return wanted, {}


def thing_named(name: str) -> type | PluginUnit:
    """Find a plugin by `package.module:Class`, or by the name of its entry point in the group `saga_engine.plugins`.

    Raises:
        PluginLoadError: there is none of that name, or it cannot be imported.
    """
    if ":" not in name:
        return discover_plugins([name])[0]
    thing: type | PluginUnit = _imported(name)
    return thing


def _imported(name: str) -> Any:
    """Import what `package.module:Name` names.

    Raises:
        PluginLoadError: it cannot be imported.
    """
    try:
        return import_named(name)
    except Exception as error:  # an import runs foreign code, which may raise anything
        raise PluginLoadError(
            f"{name!r} cannot be imported ({type(error).__name__}: {error}): write package.module:Class"
        ) from error
