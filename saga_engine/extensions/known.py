"""What an ExtensionManager knows of an extension before it is loaded: where it comes from, and how it is wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from enum import Enum
from importlib import metadata
from typing import Any

from saga_engine.extensions.errors import ConfigError, PluginLoadError, ReservedName
from saga_engine.services.container import CORE_SERVICE_NAMES

__all__ = ["ENTRY_POINT_GROUP", "RESERVED_NAMES", "Enabled", "KnownExtension", "announced", "check_name"]

#: Where packages announce their extensions: `name = "package.module:Class"`.
ENTRY_POINT_GROUP = "saga_engine.extensions"
#: Names that no extension may have: those of the services that the engine binds, and of its own parts.
RESERVED_NAMES = CORE_SERVICE_NAMES | {"app", "engine", "extensions", "journal", "manager", "saga_engine"}

#: The one key of an extension's configuration that is the manager's, and that the extension does not see.
_ENABLED = "enabled"


class Enabled(str, Enum):
    """Whether `load_all` loads an extension, and what it means if it cannot."""

    YES = "yes"  #: loaded; if it cannot be, nothing is
    NO = "no"  #: never loaded, not as a dependency either
    PREFER = "prefer"  #: loaded; if it cannot be, that is logged
    AVOID = "avoid"  #: loaded as a dependency only

    @classmethod
    def of(cls, name: str, value: Any) -> Enabled:
        """Read the `enabled` of an extension's configuration: one of the four words, True or False.

        Raises:
            ConfigError: it is something else.
        """
        if isinstance(value, bool):
            return cls.YES if value else cls.NO
        word = value.strip().lower() if isinstance(value, str) else value
        if word not in [member.value for member in cls]:
            raise ConfigError(f"{value!r} is none of yes, no, prefer and avoid", path=(name, _ENABLED))
        return cls(word)


class KnownExtension:
    """An extension that a manager knows, loaded or not.

    Args:
        name: its name.
        find: gives its class, module or object; may import it.

    Attributes:
        configuration: what it is loaded with the next time, without `enabled`.
        enabled: how it is wanted.
    """

    def __init__(self, name: str, find: Callable[[], Any]) -> None:
        self.name = name
        self.configuration: dict[str, Any] = {}
        self.enabled = Enabled.YES
        self._find = find

    def configure(self, configuration: Mapping[str, Any] | None) -> None:
        """Keep a copy of the configuration for the next load; None is an empty one.

        Raises:
            ConfigError: it is no mapping, or its `enabled` is none of the four words.
        """
        if configuration is not None and not isinstance(configuration, Mapping):
            raise ConfigError(f"{configuration!r} is no dict of names and values", path=(self.name,))
        values = deepcopy(dict(configuration or {}))
        self.enabled = Enabled.of(self.name, values.pop(_ENABLED, Enabled.YES))
        self.configuration = values

    def source(self) -> Any:
        """Give the class, module or object that the extension is made of.

        Raises:
            PluginLoadError: it cannot be imported.
        """
        try:
            return self._find()
        except Exception as error:
            raise PluginLoadError(
                f"extension {self.name!r} cannot be imported ({type(error).__name__}: {error}): "
                "repair its package, or configure it with enabled = no"
            ) from error

    def depends_on(self) -> tuple[str, ...]:
        """List the names of the extensions that must be loaded before it.

        Raises:
            PluginLoadError: it cannot be imported, or gives no list of names.
        """
        source = self.source()
        ask = getattr(source, "get_dependencies", None)
        try:
            names = getattr(source, "dependencies", None) if ask is None else ask()
        except Exception as error:
            raise PluginLoadError(
                f"get_dependencies() of extension {self.name!r} failed ({type(error).__name__}: {error}): "
                "make it a static or class method that gives a list of names"
            ) from error
        listed = () if names is None else names
        if isinstance(listed, str) or not isinstance(listed, Iterable):
            raise PluginLoadError(f"the dependencies of extension {self.name!r} are {names!r}: give a list of names")
        return tuple(str(name) for name in listed)


def check_name(name: str) -> None:
    """Refuse a name that no extension may have.

    Raises:
        ReservedName: it is empty, or the name of something that the engine has itself.
    """
    if not isinstance(name, str) or not name.strip():
        raise ReservedName(f"{name!r} is no name for an extension: give a non-empty str")
    if name in RESERVED_NAMES:
        raise ReservedName(f"{name!r} is a name of the engine's own: give the extension another one")


def announced(group: str) -> list[metadata.EntryPoint]:
    """List what the installed packages announce, by name, and for one name by package."""
    found = metadata.entry_points(group=group)
    return sorted(found, key=lambda point: (point.name, point.dist.name if point.dist else "", point.value))
