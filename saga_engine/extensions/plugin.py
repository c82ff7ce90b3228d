"""What a plugin is: its identity, its states, and the decorators that mark plugins, extensions and their points."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, TypeVar

from saga_engine.extensions.errors import PluginLoadError

__all__ = [
    "ExtensionMark",
    "Plugin",
    "PluginDescriptor",
    "PluginState",
    "PointMark",
    "extension",
    "extension_marks",
    "extension_point",
    "plugin",
    "plugin_mark",
    "point_mark",
]

T = TypeVar("T")
TClass = TypeVar("TClass", bound=type)

_PLUGIN = "__saga_plugin__"
_EXTENSIONS = "__saga_extensions__"
_POINT = "__saga_extension_point__"


class PluginState(str, Enum):
    """Where a plugin is in its life."""

    LOADED = "loaded"  #: added, and never started
    STARTED = "started"  #: its `init` and `start` succeeded
    STOPPED = "stopped"  #: its `stop` succeeded
    FAILED = "failed"  #: a hook of its own raised, or a background task did


@dataclass(frozen=True)
class Plugin:
    """The identity of a plugin.

    Attributes:
        id: unique in a manager.
        version: any text; executions of the plugin's sagas record it.
        name: for people; the id if it is empty.
        author: for people.
        description: for people.
        depends_on: the ids of the plugins that must be started before it.

    Raises:
        PluginLoadError: an attribute is of the wrong type, or the id or version is empty.
    """

    id: str
    version: str
    name: str = ""
    author: str = ""
    description: str = ""
    depends_on: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for field in ("id", "version", "name", "author", "description"):
            value = getattr(self, field)
            if not isinstance(value, str):
                raise PluginLoadError(f"the {field} of plugin {self.id!r} is {value!r}: give a str")
        if not self.id.strip() or not self.version.strip():
            raise PluginLoadError(f"plugin {self.id!r} has version {self.version!r}: give both an id and a version")
        object.__setattr__(self, "name", self.name or self.id)
        object.__setattr__(self, "depends_on", _ids(self.id, self.depends_on))


def _ids(plugin_id: str, depends_on: Any) -> tuple[str, ...]:
    """Check a list of ids, and drop those named twice."""
    if isinstance(depends_on, str) or not isinstance(depends_on, Iterable):
        raise PluginLoadError(f"depends_on of plugin {plugin_id!r} is {depends_on!r}: give a list of plugin ids")
    ids = tuple(dict.fromkeys(depends_on))
    if not all(isinstance(other, str) for other in ids):
        raise PluginLoadError(f"depends_on of plugin {plugin_id!r} is {ids!r}: give plugin ids, as str")
    return ids


@dataclass(frozen=True)
class PluginDescriptor:
    """A plugin as its manager saw it at one moment; ask again to see what has changed.

    Attributes:
        plugin: its identity.
        state: where it is in its life.
        loaded_at: when it was added, in UTC.
        last_state_change: when its state last changed, in UTC.
        failed_reason: type and text of what was raised if it is FAILED, else None.
    """

    plugin: Plugin
    state: PluginState
    loaded_at: datetime
    last_state_change: datetime
    failed_reason: str | None = None


@dataclass(frozen=True)
class ExtensionMark:
    """What `@extension` says: the point to contribute to, and the priority there."""

    point: str
    priority: int


@dataclass(frozen=True)
class PointMark:
    """What `@extension_point` says: the id, and how the answers of its extensions are combined."""

    id: str
    policy: Any


def plugin(
    id: str,  # noqa: A002  # reads best where it is used: @plugin(id="...", version="...")
    version: str,
    name: str = "",
    author: str = "",
    description: str = "",
    depends_on: Iterable[str] = (),
) -> Callable[[TClass], TClass]:
    """Make a class a plugin, for `PluginManager.add`.

    The class is built once when it is added; its constructor is injected by the plugin's container. What is marked
    inside it with `@extension_point` and `@extension` is registered then. It may have the methods `init`, `start`,
    `stop` and `unload`, plain or async; `init` and `start` are given the plugin's task group if they take an argument.

    Args:
        id: unique in a manager.
        version: any text; executions of the plugin's sagas record it.
        name: for people; the id if it is left out.
        author: for people.
        description: for people.
        depends_on: the ids of the plugins that must be started before it.

    Raises:
        PluginLoadError: an argument is wrong, or what is decorated is no class.
    """
    identity = Plugin(id, version, name, author, description, depends_on)  # type: ignore[arg-type]  # made a tuple

    def mark(cls: TClass) -> TClass:
        if not isinstance(cls, type):
            raise PluginLoadError(f"@plugin(id={id!r}) is above {cls!r}: put it above a class")
        setattr(cls, _PLUGIN, identity)
        return cls

    return mark


def extension(point: str, priority: int = 0) -> Callable[[T], T]:
    """Contribute a nested class, or a method, of a plugin to an extension point.

    An instance of the class, built by the plugin's container, is contributed; the class itself if the point was
    declared with a type such as `type[Saga]`. Of a method the bound one is contributed. May be used more than once.

    Args:
        point: the id of the point; it need not be declared.
        priority: the highest comes first.

    Raises:
        PluginLoadError: an argument is of the wrong type, or what is decorated is neither class nor function.
    """
    if not isinstance(point, str) or not point:
        raise PluginLoadError(f"@extension(point={point!r}): give the id of an extension point, as str")
    if not isinstance(priority, int):
        raise PluginLoadError(f"@extension(point={point!r}, priority={priority!r}): give an int")

    def mark(marked: T) -> T:
        target: Any = getattr(marked, "__func__", marked)
        if not isinstance(target, type) and not inspect.isfunction(target):
            raise PluginLoadError(f"@extension(point={point!r}) is above {marked!r}: put it above a class or a method")
        # Decorators work from the inside out: what is written first shall be contributed first.
        setattr(target, _EXTENSIONS, (ExtensionMark(point, priority), *extension_marks(target)))
        return marked

    return mark


def extension_point(id: str, policy: Any = None) -> Callable[[TClass], TClass]:  # noqa: A002  # as in @plugin
    """Make a class the type of an extension point; nested in a plugin it is declared when that is added.

    Args:
        id: the id of the point.
        policy: how the answers of its extensions are combined, for who calls them; kept as it is.

    Raises:
        PluginLoadError: the id is no str, or what is decorated is no class.
    """
    if not isinstance(id, str) or not id:
        raise PluginLoadError(f"@extension_point(id={id!r}): give an id, as str")

    def mark(cls: TClass) -> TClass:
        if not isinstance(cls, type):
            raise PluginLoadError(f"@extension_point(id={id!r}) is above {cls!r}: put it above a class")
        setattr(cls, _POINT, PointMark(id, policy))
        return cls

    return mark


# What a class inherits is not its own: else a subclass of an extension would be contributed without having asked.


def plugin_mark(thing: Any) -> Plugin | None:
    """Give what `@plugin` says of a class; None if it stands above something else."""
    mark: Plugin | None = _own(thing, _PLUGIN, None)
    return mark


def extension_marks(thing: Any) -> tuple[ExtensionMark, ...]:
    """List what `@extension` says of a class or a method."""
    marks: tuple[ExtensionMark, ...] = _own(getattr(thing, "__func__", thing), _EXTENSIONS, ())
    return marks


def point_mark(thing: Any) -> PointMark | None:
    """Give what `@extension_point` says of a class; None if it stands above something else."""
    mark: PointMark | None = _own(thing, _POINT, None)
    return mark


def _own(thing: Any, attribute: str, default: Any) -> Any:
    return getattr(thing, "__dict__", {}).get(attribute, default)
