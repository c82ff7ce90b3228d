"""What a manager holds: a unit, the one form of all that is added; and the host, which is what a unit sees."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from anyio.abc import TaskGroup

from saga_engine.extensions.ledger import Ledger
from saga_engine.extensions.plugin import Plugin
from saga_engine.extensions.points import Points
from saga_engine.services.container import Container

__all__ = ["Host", "PluginUnit"]


@dataclass(frozen=True)
class Host:
    """What a unit sees of where it is added to.

    Attributes:
        plugin: the unit's own identity.
        points: the extension points, shared by all plugins. `declare` and `contribute` below use them.
        container: a scope of the engine's container for this plugin. `logger`, `configuration`, `engine` and `points`
            are bound in it.
        logger: the plugin's own, from the standard library.
        engine: the engine; None: the plugins are used without one.
        configuration: the plugin's own configuration.
        rank: the plugin's place in the configuration.
    """

    plugin: Plugin
    points: Points
    container: Container
    logger: Any
    engine: Any = None
    configuration: Mapping[str, Any] = field(default_factory=dict)
    rank: int = 0

    def declare(self, ledger: Ledger, point_id: str, point_type: Any = None, policy: Any = None) -> None:
        """Declare an extension point, until the plugin is removed; see `Points.declare`."""
        ledger.record(f"extension point {point_id}", self.points.declare(point_id, point_type, policy))

    def contribute(self, ledger: Ledger, point_id: str, instance: Any, priority: int = 0) -> None:
        """Contribute to an extension point, until the plugin is removed; see `Points.contribute`."""
        undo = self.points.contribute(point_id, instance, priority, self.rank, self.plugin)
        ledger.record(f"extension of {point_id}", undo)


class PluginUnit(ABC):
    """A plugin of any form. `PluginManager.attach` takes one, or a class that is decorated with `@plugin`.

    The manager calls `contribute` when it is added. Each start calls `init` and `start`, each stop `stop`, all of them
    in one task, so that a context which `start` enters may be left by `stop`. `unload` is called before it is removed,
    and by `stop_all`. A hook that raises makes the plugin FAILED.

    Attributes:
        plugin: the identity; set it before the unit is attached.
    """

    plugin: Plugin

    @abstractmethod
    def contribute(self, host: Host, ledger: Ledger) -> None:
        """Register everything, each through the ledger. If this raises, what was recorded is taken back.

        A unit may be added more than once, one time after the other: a reload adds it anew.
        """

    async def init(self, task_group: TaskGroup) -> None:  # noqa: B027  # optional
        """Override to prepare; called at each start, before `start`.

        Args:
            task_group: for background tasks. They are cancelled after `stop`. One that raises fails the plugin.
        """

    async def start(self, task_group: TaskGroup) -> None:  # noqa: B027  # optional
        """Override to begin; called at each start, with the same task group."""

    async def stop(self) -> None:  # noqa: B027  # optional
        """Override to end what `start` began; background tasks still run, unless one of them failed.

        Not called if `init` or `start` raised: they must clean up after themselves.
        """

    async def unload(self) -> None:  # noqa: B027  # optional
        """Override to release what `contribute` or `init` took; no background task runs any more."""
