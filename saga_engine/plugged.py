"""The part of an engine that has plugins. Most engines have none: then nothing of them is imported, made or asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import Raw

from saga_engine.application import application_container
from saga_engine.codec import decode_json
from saga_engine.journal import Journal
from saga_engine.plan import Contributed
from saga_engine.recovery import Stuck
from saga_engine.saga import Saga, Services, refuse_namesake
from saga_engine.services import Container
from saga_engine.state import State
from saga_engine.threads import Threads

if TYPE_CHECKING:
    from saga_engine.extensions.manager import PluginManager
    from saga_engine.extensions.module_api import ModuleApi
    from saga_engine.extensions.service import ExtensionService
    from saga_engine.plugging import ExtensionThing, Plugging, PluginThing

__all__ = ["Origin", "Plugged"]


class Origin(NamedTuple):
    """Which plugin gave a saga, for the journal; empty: none did."""

    id: str = ""
    version: str = ""


class Given(NamedTuple):
    """What an engine was made with: see its arguments of these names."""

    plugins: tuple[PluginThing, ...]
    extensions: Mapping[str, ExtensionThing]
    modules: tuple[Mapping[str, Any], ...]


class Plugged:
    """The part of an engine that has plugins."""

    journal: Journal
    _sagas: dict[str, type[Saga]]
    _services: Services
    _threads: Threads
    _is_own_journal: bool
    _plugging: Plugging | None

    def _prepare_plugins(self, given: Given, stop_timeout_s: float) -> None:
        self._given = given
        self._telling_timeout_s = stop_timeout_s
        self._plugging = None
        self._application = application_container(self._services)

    def _open_and_plug_in(self, journal: str | Journal, opened: Callable[[str], Journal]) -> None:
        """Set the journal and add the plugins, of which one may be what opens it."""
        is_plugged = any(self._given)
        if not isinstance(journal, str):
            self.journal = journal
        elif is_plugged and not self._is_known(journal):
            self._plugging = self._new_plugging()
            self.journal = self._plugging.open_journal(journal) or opened(journal)
            return
        else:
            self.journal = opened(journal)
        try:
            self._plugging = self._new_plugging() if is_plugged else None
        except BaseException:
            if self._is_own_journal:
                self.journal.close()
            raise

    @staticmethod
    def _is_known(url: str) -> bool:
        from saga_engine.journals import has_driver

        return has_driver(url)

    # --- reaching them ---

    @property
    def plugins(self) -> PluginManager:
        """The manager of this engine's plugins; what is added to it later is added in this process only."""
        return self._plugged_in().manager

    @property
    def container(self) -> Container:
        """The application's container, around the scope of each execution; tests use its `override`.

        Raises:
            BindingConflict: two plugins provide one service.
        """
        if self._plugging is not None:
            self._plugged_in().keep_up_with_providers()
        return self._application

    def extensions(self) -> ExtensionService:
        """Give the service that registers extensions, and gives their services."""
        return self._plugged_in().extensions

    def module_api(self) -> ModuleApi:
        """Give what modules are given, for the program itself; its web resources before anything is driven."""
        return self._plugged_in().module_api

    def start_plugins(self) -> None:
        """Start the plugins now; without this, `run` or the first execution that is driven does.

        Raises:
            PluginError: one cannot be started.
        """
        self._begun_plugins()

    def _plugged_in(self) -> Plugging:
        """Give the plugins; made when first asked for, if the engine was made without any."""
        found = self._plugged()
        if found is None:
            found = self._plugging = self._new_plugging()
        return found

    def _plugged(self) -> Plugging | None:
        """Give the plugins of this process, added anew after a fork; None: there are none."""
        if self._plugging is not None and not self._plugging.is_of_this_process:
            self._plugging = self._new_plugging()
        return self._plugging

    def _new_plugging(self) -> Plugging:
        from saga_engine.plugging import Plugging

        if self._plugging is not None:  # that of the process which forked this one: its plugins have bound theirs
            self._application = application_container(self._services)
        made = Plugging(self, self._application, self._services, self._threads, self._telling_timeout_s)
        made.add(self._given)
        for one, other in combinations([*self._sagas.values(), *made.manager.points.get("sagas")], 2):
            refuse_namesake(one, other)
        return made

    # --- asking them ---

    def _begun_plugins(self) -> Plugging | None:
        """Give the plugins, started; None: there are none.

        Raises:
            PluginError: one cannot be started.
        """
        if self._plugging is None:
            return None
        plugging = self._plugged_in()
        plugging.begin()
        return plugging

    def _permit(self, action: str, saga_id: str, who: str = "") -> None:
        """Ask whether somebody may do this to an execution.

        Raises:
            OperationDenied: a plugin denied it.
            ModuleFailure: a plugin could not tell.
        """
        plugging = self._begun_plugins()
        if plugging is not None:
            plugging.check_operator_action(action, saga_id, who)

    def _permit_start(self, kind: type[Saga], saga_id: str, request: Raw) -> Origin:
        """Ask whether an execution may be started, and tell whose saga it is; raises what `_permit` does."""
        plugging = self._begun_plugins()
        if plugging is None:
            return Origin()
        plugging.check_start(kind, saga_id, decode_json(request))
        return plugging.origin_of(kind)

    def _contributed(self) -> Contributed:
        """Give what there is for every saga beside what it brings itself.

        Raises:
            BindingConflict: two plugins provide one service.
        """
        if self._plugging is None:
            return Contributed((), self._application)
        return self._plugging.contributed()

    def _contributed_saga(self, state: State) -> type[Saga] | None:
        """Give the saga that a plugin contributed under this name; None: it is to be found elsewhere."""
        plugging = self._plugged() if state.plugin else None
        return None if plugging is None else plugging.saga_named(state.saga, state.plugin)

    def _refuse_without_plugin(self, state: State) -> None:
        """Leave alone what came with a plugin that is not here: its services and callbacks are not, either.

        Raises:
            Stuck: it is not.
        """
        plugging = self._begun_plugins()
        if state.plugin and (plugging is None or not plugging.has_plugin(state.plugin)):
            raise Stuck(
                f"{state.saga} came with the plugin {state.plugin!r} {state.plugin_version}, which is not here: "
                "give Engine(plugins=[...]), or name it in the configuration"
            )
