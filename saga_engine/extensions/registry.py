"""The extension registry: extension points and extensions, awaitable, under the names that plugins know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from saga_engine.extensions.errors import NoExtension
from saga_engine.extensions.points import Points

__all__ = ["ExtensionRegistry"]


class ExtensionRegistry:
    """The awaitable face of `Points`. Nothing here waits; use `points` itself where there is no event loop.

    Args:
        points: what it is the face of; its own if left out.

    Attributes:
        points: the same.
    """

    def __init__(self, points: Points | None = None) -> None:
        self.points = Points() if points is None else points

    async def register_extension_point(self, point_id: str, point_type: type | None = None) -> None:
        """Record a point and the class that its extensions must be instances of.

        Raises:
            DuplicateExtension: it is recorded with another class already; a ValueError.
            NotConforming: an extension that is registered already is no instance of the class; a ValueError.
        """
        self.points.declare(point_id, point_type)

    async def has_extension_point(self, point_id: str) -> bool:
        """Tell whether a point is recorded."""
        return self.points.point(point_id) is not None

    async def extension_point_ids(self) -> list[str]:
        """List the ids of the recorded points, in the order in which they were recorded."""
        return self.points.ids()

    async def register(self, point_id: str, instance: Any, priority: int = 0) -> Callable[[], None]:
        """Register an extension.

        Args:
            point_id: the id of its point, recorded or not.
            instance: the extension.
            priority: the highest comes first; of one priority, what was registered first.

        Returns:
            A function that unregisters it.

        Raises:
            NotConforming: the point is recorded, and this is no instance of its class; a ValueError.
        """
        return self.points.contribute(point_id, instance, priority)

    async def get(self, point_id: str) -> list[Any]:
        """List the extensions of a point, the highest priority first; an empty list if there are none."""
        return self.points.get(point_id)

    async def get_extension(self, point_id: str) -> Any:
        """Give the extension of a point with the highest priority.

        Raises:
            NoExtension: the point has no extensions; a ValueError.
        """
        extensions = self.points.get(point_id)
        if not extensions:
            known = "" if self.points.point(point_id) else ", which nobody has declared"
            raise NoExtension(
                f"nothing was contributed to extension point {point_id!r}{known}: add a plugin with "
                f"@extension(point={point_id!r}), or use get() where none will do"
            )
        return extensions[0]
