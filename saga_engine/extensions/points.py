"""Extension points: what may be contributed to, and what is. Synchronous, and safe for use from any thread.

One order everywhere: the highest priority first, then the order of the configuration, then that of registration.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, get_args, get_origin

from saga_engine.extensions.errors import DuplicateExtension, NotConforming
from saga_engine.extensions.plugin import Plugin

__all__ = ["Contribution", "Point", "Points"]


@dataclass(frozen=True)
class Point:
    """An extension point as it was declared.

    Attributes:
        id: its id.
        type: the class that contributions are instances of; `type[X]`: they are subclasses of X; None: anything.
        policy: how the answers are combined, for who calls the contributions; kept as it was given.
    """

    id: str
    type: Any = None
    policy: Any = None

    @property
    def keeps_classes(self) -> bool:
        """Whether contributions are classes, not objects."""
        return get_origin(self.type) is type


@dataclass(frozen=True)
class Contribution:
    """Something that was contributed to a point.

    Attributes:
        instance: what it is.
        priority: the highest comes first.
        rank: its place in the configuration; of one priority, the lowest comes first.
        plugin: who contributed it; None: no plugin did.
    """

    instance: Any
    priority: int = 0
    rank: int = 0
    plugin: Plugin | None = None


class Points:
    """The registry of extension points and of what is contributed to them."""

    def __init__(self) -> None:
        self._declared: dict[str, list[tuple[int, Point]]] = {}
        # Replaced, never changed: a reader needs no lock.
        self._contributed: dict[str, tuple[tuple[tuple[int, int, int], Contribution], ...]] = {}
        self._numbers = itertools.count()
        self._lock = threading.RLock()

    def declare(self, point_id: str, point_type: Any = None, policy: Any = None) -> Callable[[], None]:
        """Declare a point. To declare it again in the same way is allowed.

        Args:
            point_id: its id.
            point_type: the class that contributions must be instances of; `type[X]`: they must be subclasses of X;
                None: anything may be contributed.
            policy: how the answers are combined; kept for who asks `point(point_id)`.

        Returns:
            Its undo. The point stays declared as long as somebody else declares it; contributions stay, too.

        Raises:
            DuplicateExtension: it is declared already with another type or policy; a ValueError.
            NotConforming: the type cannot be tested for, or what was contributed before is not of it; a ValueError.
        """
        point = Point(_checked_id(point_id), _checked_type(point_id, point_type), policy)
        with self._lock:
            declared = self._declared.get(point_id, [])
            if declared and declared[0][1] != point:
                raise DuplicateExtension(
                    f"extension point {point_id!r} is declared as {declared[0][1]}, and now as {point}: "
                    "declare it once, or give one of them another id"
                )
            for contribution in self.contributions(point_id):
                _check_conforming(point, contribution.instance)
            number = next(self._numbers)
            self._declared[point_id] = [*declared, (number, point)]
        return partial(self._withdraw, point_id, number)

    def contribute(
        self, point_id: str, instance: Any, priority: int = 0, rank: int = 0, plugin: Plugin | None = None
    ) -> Callable[[], None]:
        """Contribute to a point, declared or not.

        Args:
            point_id: the id of the point.
            instance: what is contributed; one thing may be contributed more than once.
            priority: the highest comes first.
            rank: its place in the configuration; of one priority, the lowest comes first.
            plugin: who contributes it.

        Returns:
            Its undo; called again it does nothing.

        Raises:
            NotConforming: it is not of the type that the point was declared with; a ValueError.
        """
        if not isinstance(priority, int) or not isinstance(rank, int):
            raise NotConforming(f"an extension of {point_id!r} has priority {priority!r} and rank {rank!r}: give ints")
        with self._lock:
            point = self.point(_checked_id(point_id))
            if point is not None:
                _check_conforming(point, instance)
            place = (-priority, rank, next(self._numbers))
            entry = (place, Contribution(instance, priority, rank, plugin))
            present = self._contributed.get(point_id, ())
            self._contributed[point_id] = tuple(sorted([*present, entry], key=lambda placed: placed[0]))
        return partial(self._take_back, point_id, place)

    def get(self, point_id: str) -> list[Any]:
        """List what is contributed to a point, in order; an empty list if nothing is, or there is no such point."""
        return [contribution.instance for contribution in self.contributions(point_id)]

    def contributions(self, point_id: str) -> list[Contribution]:
        """List the same with priorities, ranks and plugins."""
        return [contribution for _, contribution in self._contributed.get(point_id, ())]

    def point(self, point_id: str) -> Point | None:
        """Give a point as it was declared; None if it is not."""
        declared = self._declared.get(point_id)
        return declared[0][1] if declared else None

    def ids(self) -> list[str]:
        """List the ids of the declared points, in the order of declaration."""
        with self._lock:
            return list(self._declared)

    def _withdraw(self, point_id: str, number: int) -> None:
        with self._lock:
            left = [entry for entry in self._declared.get(point_id, ()) if entry[0] != number]
            if left:
                self._declared[point_id] = left
            else:
                self._declared.pop(point_id, None)

    def _take_back(self, point_id: str, place: tuple[int, int, int]) -> None:
        with self._lock:
            left = tuple(entry for entry in self._contributed.get(point_id, ()) if entry[0] != place)
            if left:
                self._contributed[point_id] = left
            else:
                self._contributed.pop(point_id, None)


def _checked_id(point_id: Any) -> str:
    if not isinstance(point_id, str) or not point_id:
        raise NotConforming(f"{point_id!r} is no id of an extension point: give a non-empty str")
    return point_id


def _checked_type(point_id: str, point_type: Any) -> Any:
    """Refuse a type for which nobody can tell what is of it."""
    tested = get_args(point_type)[0] if get_origin(point_type) is type else point_type
    is_protocol = getattr(tested, "_is_protocol", False) and not getattr(tested, "_is_runtime_protocol", False)
    if is_protocol or not (tested is None or isinstance(tested, type)):
        raise NotConforming(
            f"extension point {point_id!r} has the type {point_type!r}: give a class, type[...] of a class, or a "
            "Protocol that is decorated with @runtime_checkable"
        )
    return point_type


def _check_conforming(point: Point, instance: Any) -> None:
    if point.type is None:
        return
    if point.keeps_classes:
        wanted = get_args(point.type)[0]
        is_conforming = isinstance(instance, type) and issubclass(instance, wanted)
        told = f"the class {wanted.__qualname__} or one that derives from it"
    else:
        is_conforming = isinstance(instance, point.type)
        told = f"an instance of {point.type.__qualname__}"
    if not is_conforming:
        raise NotConforming(
            f"{instance!r} cannot be contributed to extension point {point.id!r}: contribute {told}, "
            "or name another point"
        )
