"""In which order plugins are started and stopped: functions of what they depend on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from graphlib import CycleError, TopologicalSorter

from saga_engine.extensions.errors import PluginResolutionError
from saga_engine.extensions.plugin import Plugin

__all__ = ["dependents_of", "order_of", "start_order"]


def start_order(plugins: Mapping[str, Plugin], wanted: Iterable[str]) -> list[str]:
    """List plugins and all that they depend on, what is depended on first; else in the order of `plugins`.

    Args:
        plugins: all plugins by their ids.
        wanted: ids of some of them.

    Raises:
        PluginResolutionError: a dependency is missing, or dependencies form a circle.
    """
    needed: set[str] = set()
    to_visit = list(wanted)
    while to_visit:
        plugin_id = to_visit.pop()
        if plugin_id in needed:
            continue
        needed.add(plugin_id)
        for other in plugins[plugin_id].depends_on:
            if other not in plugins:
                raise PluginResolutionError(
                    f"plugin {plugin_id!r} depends on {other!r}, which is not there: add that, too"
                )
            to_visit.append(other)
    sorter = _sorter(plugins, needed)
    try:
        return list(sorter.static_order())
    except CycleError as error:
        circle = " -> ".join(reversed(error.args[1]))
        raise PluginResolutionError(
            f"plugins depend on each other in a circle: {circle}. Take one of these dependencies out"
        ) from error


def order_of(plugins: Mapping[str, Plugin], wanted: Iterable[str]) -> list[str]:
    """List plugins in the order in which they would be started; missing dependencies are overlooked.

    Those in a circle, and those that depend on one, come last, in the order of `plugins`: none of them is started.
    """
    chosen = set(wanted)
    sorter = _sorter(plugins, chosen)
    with suppress(CycleError):  # the sorter still gives all that no circle is in the way of
        sorter.prepare()
    ordered: list[str] = []
    while ready := sorter.get_ready():
        ordered += ready
        sorter.done(*ready)
    return [*ordered, *(plugin_id for plugin_id in plugins if plugin_id in chosen.difference(ordered))]


def dependents_of(plugins: Mapping[str, Plugin], plugin_id: str) -> list[str]:
    """List the plugins that depend on one, directly or not, in the order in which they would be started."""
    found = {plugin_id}
    size = 0
    while len(found) > size:
        size = len(found)
        found.update(other for other, plugin in plugins.items() if not found.isdisjoint(plugin.depends_on))
    return order_of(plugins, found - {plugin_id})


def _sorter(plugins: Mapping[str, Plugin], chosen: set[str]) -> TopologicalSorter[str]:
    """Make a sorter of some plugins that keeps the order of `plugins` where dependencies leave a choice."""
    ids = [plugin_id for plugin_id in plugins if plugin_id in chosen]
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for plugin_id in ids:  # all of them first: it keeps the order in which it heard of them
        sorter.add(plugin_id)
    for plugin_id in ids:
        sorter.add(plugin_id, *(other for other in plugins[plugin_id].depends_on if other in chosen))
    return sorter
