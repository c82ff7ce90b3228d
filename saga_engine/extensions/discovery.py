"""Discovery: the plugins that installed packages announce as entry points of the group `saga_engine.plugins`."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import metadata

from saga_engine.extensions.decorated import unit_of
from saga_engine.extensions.errors import PluginLoadError
from saga_engine.extensions.unit import PluginUnit

__all__ = ["ENTRY_POINT_GROUP", "announced_plugins", "discover_plugins"]

#: Where packages announce their plugins: `name = "package.module:Class"`.
ENTRY_POINT_GROUP = "saga_engine.plugins"


def discover_plugins(names: Iterable[str] | None = None, *, group: str = ENTRY_POINT_GROUP) -> list[type | PluginUnit]:
    """Import what installed packages announce; each may be given to `PluginManager.attach`.

    Args:
        names: the names of the entry points that are wanted, in this order; None: all of them, by name. What is not
            wanted is not imported.
        group: the group of entry points.

    Returns:
        Classes that are decorated with `@plugin`, or units.

    Raises:
        PluginLoadError: nobody announces a name, two packages announce the same, or what is announced cannot be
            imported or is no plugin.
    """
    announced = _announced(group)
    wanted = sorted(announced) if names is None else list(names)
    for name in wanted:
        if name not in announced:
            known = ", ".join(sorted(announced)) or "none"
            raise PluginLoadError(
                f"no installed package announces a plugin {name!r} in the group {group!r}: install it, or take the "
                f"name out (announced: {known})"
            )
    return [_imported(announced[name]) for name in wanted]


def announced_plugins(*, group: str = ENTRY_POINT_GROUP) -> list[str]:
    """List the names that installed packages announce, sorted; nothing is imported.

    Raises:
        PluginLoadError: two packages announce the same.
    """
    return sorted(_announced(group))


def _announced(group: str) -> dict[str, metadata.EntryPoint]:
    found: dict[str, metadata.EntryPoint] = {}
    for point in metadata.entry_points(group=group):
        rival = found.setdefault(point.name, point)
        if rival.value != point.value:
            raise PluginLoadError(
                f"two packages announce a plugin {point.name!r}: {_source(rival)} and {_source(point)}. "
                "Uninstall one of them"
            )
    return found


def _imported(point: metadata.EntryPoint) -> type | PluginUnit:
    try:
        thing = point.load()
    except Exception as error:
        raise PluginLoadError(
            f"plugin {point.name!r} of {_source(point)} cannot be imported ({type(error).__name__}: {error}): "
            "repair or uninstall its package"
        ) from error
    try:
        unit_of(thing)
    except PluginLoadError as error:
        raise PluginLoadError(f"entry point {point.name!r} of {_source(point)}: {error}") from error
    plugin: type | PluginUnit = thing
    return plugin


def _source(point: metadata.EntryPoint) -> str:
    """Tell where an entry point comes from; only those of installed packages know."""
    return f"{point.value} ({point.dist.name})" if point.dist is not None else point.value
