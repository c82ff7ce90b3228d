"""One plugin as its manager holds it: its unit, its ledger, its state, and its life while it is started."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from typing import Any

from saga_engine.extensions.errors import PluginError, PluginStartError, PluginStopError, UndoFailed
from saga_engine.extensions.guarded import call_apart
from saga_engine.extensions.ledger import Ledger
from saga_engine.extensions.life import Life, reason_of
from saga_engine.extensions.plugin import PluginDescriptor, PluginState
from saga_engine.extensions.turns import Turns
from saga_engine.extensions.unit import Host, PluginUnit

__all__ = ["Holding"]

_NOT_CLEAN = "plugin {id!r} did not end cleanly: {reason}. Nothing of it runs any more; repair it"


class Holding:
    """A plugin that was added, until it is removed.

    Args:
        thing: what was added, to be added again by a reload.
        unit: the unit made of it.
        host: what the unit sees.
        ledger: what the unit registered.
        turns: those of the manager.
        crashed: told when a background task failed, or the event loop ended, while the plugin was started.

    Attributes:
        plugin: the identity.
        state: where it is in its life.
        was_started: whether a start was ever tried.
        is_unload_due: whether `unload` is still to be called.
    """

    def __init__(
        self, thing: Any, unit: PluginUnit, host: Host, ledger: Ledger, turns: Turns, crashed: Callable[[Holding], None]
    ) -> None:
        self.thing = thing
        self.host = host
        self.plugin = host.plugin
        self.state = PluginState.LOADED
        self.was_started = False
        self.is_unload_due = True
        self._unit = unit
        self._ledger = ledger
        self._turns = turns
        self._crashed = crashed
        self._life: Life | None = None
        self._errors_told = 0
        self._failed_reason: str | None = None
        self._loaded_at = self._changed_at = _now()

    @property
    def is_alive(self) -> bool:
        """Whether something of it runs: it is started, or crashed and not yet stopped."""
        return self._life is not None

    @property
    def is_crashed(self) -> bool:
        """Whether a background task failed, and the plugin is still to be stopped."""
        return self.is_alive and self.state is PluginState.FAILED

    def describe(self) -> PluginDescriptor:
        """Give what is told of it."""
        return PluginDescriptor(self.plugin, self.state, self._loaded_at, self._changed_at, self._failed_reason)

    async def start(self) -> None:
        """Start it. It is not alive, and what it depends on is started.

        Raises:
            PluginStartError: a hook or a background task raised. The plugin is FAILED, and nothing of it runs.
        """
        life = Life(self._unit, self._turns, self._life_failed)
        self.was_started = True
        self.is_unload_due = True
        self._errors_told = 0
        try:
            await life.begin()
        except BaseException as error:
            self._become(PluginState.FAILED, f"its start was interrupted ({reason_of(error)})")
            raise
        if not life.is_started:
            raise self._failure(
                PluginStartError,
                life.errors,
                "plugin {id!r} could not be started: {reason}. Repair it, and start it again; "
                "what was started before it still is",
            )
        self._life = life
        self._become(PluginState.STARTED)
        if life.errors:
            self._life_failed(life)

    def _life_failed(self, life: Life) -> None:
        """Take note of a crash; as long as the start is not over, its end does."""
        if life is not self._life:
            return
        if life.is_over:
            self._life = None
        self._errors_told = len(life.errors)
        if self.state is PluginState.STARTED:
            told, error = life.errors[-1]
            self._become(PluginState.FAILED, told)
            self.host.logger.error("plugin %s has failed: %s", self.plugin.id, told, exc_info=error)
        self._crashed(self)

    async def stop(self) -> None:
        """Stop it if something of it runs. Afterwards nothing does.

        Raises:
            PluginStopError: `stop` raised, or a background task that was cancelled did. The plugin is FAILED.
        """
        life = self._life
        if life is None:
            return
        try:
            await life.end()
        except BaseException as error:
            self._become(PluginState.FAILED, f"its stop was interrupted ({reason_of(error)})")
            raise
        finally:
            self._life = None
        errors = life.errors[self._errors_told :]
        if errors:
            raise self._failure(PluginStopError, errors, _NOT_CLEAN)
        if self.state is PluginState.STARTED:
            self._become(PluginState.STOPPED)

    async def unload(self) -> None:
        """Call `unload` if it is due; nothing of the plugin runs.

        Raises:
            PluginStopError: it raised. The plugin is FAILED.
        """
        if not self.is_unload_due:
            return
        try:
            await call_apart(self._unload)
        except Exception as error:
            self.is_unload_due = False
            raise self._failure(PluginStopError, [(f"unload raised {reason_of(error)}", error)], _NOT_CLEAN) from error
        self.is_unload_due = False

    async def _unload(self) -> None:
        with self._turns.hook():
            await self._unit.unload()

    def take_back(self) -> None:
        """Take back all that it registered.

        Raises:
            PluginStopError: some of it could not be.
        """
        try:
            self._ledger.undo_all()
        except UndoFailed as error:
            raise PluginStopError(f"plugin {self.plugin.id!r} is removed, but: {error}") from error

    def _failure(
        self, kind: type[PluginError], errors: Sequence[tuple[str, BaseException]], message: str
    ) -> BaseException:
        """Become FAILED, and give what to raise: one of our errors, or what is to end the program."""
        reason = "; ".join(told for told, _ in errors)
        self._become(PluginState.FAILED, f"{self._failed_reason}; {reason}" if self._failed_reason else reason)
        first = errors[0][1]
        if isinstance(first, KeyboardInterrupt):
            return first
        failure = kind(message.format(id=self.plugin.id, reason=reason))
        failure.__cause__ = first
        return failure

    def _become(self, state: PluginState, reason: str | None = None) -> None:
        self.state = state
        self._failed_reason = reason
        self._changed_at = _now()


def _now() -> datetime:
    return datetime.now(timezone.utc)
