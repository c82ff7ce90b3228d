"""The unit made of a class that is decorated with `@plugin`: built, scanned for points and extensions, and hooked."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from anyio.abc import TaskGroup

from saga_engine.extensions.adapters import ProviderPlugin, is_provider
from saga_engine.extensions.errors import PluginLoadError
from saga_engine.extensions.ledger import Ledger
from saga_engine.extensions.plugin import ExtensionMark, extension_marks, plugin_mark, point_mark
from saga_engine.extensions.unit import Host, PluginUnit

__all__ = ["DecoratedPlugin", "unit_of"]


def unit_of(thing: Any) -> PluginUnit:
    """Give the unit for what somebody adds.

    Args:
        thing: a class decorated with `@plugin`, a unit, or a service provider or its class.

    Raises:
        PluginLoadError: it is something else.
    """
    if isinstance(thing, PluginUnit):
        return thing
    if plugin_mark(thing) is not None:
        return DecoratedPlugin(thing)
    if is_provider(thing):
        return ProviderPlugin(thing)
    if plugin_mark(type(thing)) is not None:
        raise PluginLoadError(f"{thing!r} is an object of a plugin class: add the class {type(thing).__qualname__}")
    what = thing.__qualname__ if isinstance(thing, type) else repr(thing)
    raise PluginLoadError(
        f'{what} is no plugin: decorate the class with @plugin(id="...", version="..."), and add that'
    )


class DecoratedPlugin(PluginUnit):
    """A class decorated with `@plugin` as a unit.

    Args:
        cls: the class.
    """

    def __init__(self, cls: type) -> None:
        mark = plugin_mark(cls)
        if mark is None:
            raise PluginLoadError(f"{cls!r} is not decorated with @plugin")
        self.plugin = mark
        self._cls = cls
        self._hooks: dict[str, Callable[..., Any]] = {}

    def contribute(self, host: Host, ledger: Ledger) -> None:
        """Build the plugin; declare its points, then contribute its extensions."""
        instance = self._built(host, self._cls)
        self._hooks = {name: self._hook(instance, name, takes) for name, takes in _HOOKS.items()}
        members = _members(self._cls)
        for _, member in members:
            point = point_mark(member)
            if point is not None:
                host.declare(ledger, point.id, member, point.policy)
        for name, member in members:
            marks = extension_marks(member)
            if marks:
                self._contribute_extension(host, ledger, marks, member, getattr(instance, name))

    def _contribute_extension(
        self, host: Host, ledger: Ledger, marks: tuple[ExtensionMark, ...], member: Any, bound: Any
    ) -> None:
        """Contribute one extension to its points: one object to all of them, the class itself where that is wanted."""
        made: list[Any] = []
        for mark in marks:
            point = host.points.point(mark.point)
            if isinstance(member, type) and not (point and point.keeps_classes):
                made = made or [self._built(host, member)]
                extension = made[0]
            else:
                extension = bound
            host.contribute(ledger, mark.point, extension, mark.priority)

    def _built(self, host: Host, cls: type) -> Any:
        try:
            return host.container.get(cls)
        except Exception as error:
            raise PluginLoadError(
                f"plugin {self.plugin.id!r}: {cls.__qualname__} could not be built ({type(error).__name__}: {error}): "
                "repair its constructor, or bind what that wants"
            ) from error

    def _hook(self, instance: Any, name: str, takes: tuple[Any, ...]) -> Callable[..., Any]:
        """Give a hook in a form that takes all that it may be given."""
        hook: Callable[..., Any] | None = getattr(instance, name, None)
        path = f"{self._cls.__qualname__}.{name}"
        if hook is None:
            return _nothing
        if not callable(hook):
            raise PluginLoadError(f"{path} of plugin {self.plugin.id!r} is {hook!r}: make it a method")
        signature = inspect.signature(hook)
        if _fits(signature, takes):
            return hook
        if _fits(signature, ()):
            return lambda *_: hook()
        told = f"(self) or (self, {', '.join(takes)})" if takes else "(self)"
        raise PluginLoadError(f"{path}{signature} of plugin {self.plugin.id!r} wants too much: let it take {told}")

    async def init(self, task_group: TaskGroup) -> None:
        """Call the class's `init`."""
        await _answered(self._hooks["init"](task_group))

    async def start(self, task_group: TaskGroup) -> None:
        """Call the class's `start`."""
        await _answered(self._hooks["start"](task_group))

    async def stop(self) -> None:
        """Call the class's `stop`."""
        await _answered(self._hooks["stop"]())

    async def unload(self) -> None:
        """Call the class's `unload`."""
        await _answered(self._hooks["unload"]())


#: The hooks, and what each may take.
_HOOKS: dict[str, tuple[str, ...]] = {"init": ("task_group",), "start": ("task_group",), "stop": (), "unload": ()}


def _nothing(*_: Any) -> None:
    """Stand for a hook that a plugin does not have."""


def _fits(signature: inspect.Signature, arguments: tuple[Any, ...]) -> bool:
    try:
        signature.bind(*arguments)
    except TypeError:
        return False
    return True


async def _answered(answer: Any) -> None:
    if inspect.isawaitable(answer):
        await answer


def _members(cls: type) -> list[tuple[str, Any]]:
    """List what a class holds and inherits, in the order of its definition, that of its bases first."""
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__[:-1]):
        found.update(vars(base))
    return list(found.items())
