"""The extension service: objects that are given what belongs to the host, and that provide services on demand."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

from saga_engine.extensions.aware import Settings, inject
from saga_engine.extensions.errors import DuplicateExtension, NoService, PluginLoadError, UnknownExtension
from saga_engine.extensions.ledger import Ledger
from saga_engine.extensions.manager import PluginManager
from saga_engine.extensions.plugin import Plugin
from saga_engine.extensions.unit import Host, PluginUnit

__all__ = ["ExtensionService"]

_ABSENT: Any = object()


class ExtensionService:
    """Registers extensions and gives their services. Safe for use from any number of threads.

    Each extension becomes a plugin whose id is `module.QualifiedName` of its class, so `manager.remove(id)` takes it
    out again.

    Args:
        manager: where the plugins go.
    """

    def __init__(self, manager: PluginManager) -> None:
        self._manager = manager
        self._extensions: dict[type, object] = {}
        self._adding: set[str] = set()
        self._lock = threading.Lock()

    def register(self, extension: type | object) -> None:
        """Make an extension known, and call the setters that it has (see `saga_engine.extensions.aware`).

        Args:
            extension: a class that can be called without arguments, or an object.

        Raises:
            DuplicateExtension: an extension of this class is registered already; a ValueError.
            PluginLoadError: the class cannot be called without arguments.
            SetterError: a setter cannot be called with one value.
            Exception: what the constructor or a setter raises, as it is. Nothing is registered then.
        """
        unit = _ExtensionUnit(extension, self._extensions)
        with self._reserved(unit.plugin.id):
            self._manager.attach(unit)

    @contextmanager
    def _reserved(self, plugin_id: str) -> Iterator[None]:
        """Keep an id while its extension is built; not by holding the lock, since foreign code runs meanwhile."""
        with self._lock:
            if plugin_id in self._adding or any(held.plugin.id == plugin_id for held in self._manager.plugins()):
                raise DuplicateExtension(
                    f"{plugin_id} is registered already: register each extension once, or remove the first with "
                    f"manager.remove({plugin_id!r})"
                )
            self._adding.add(plugin_id)
        try:
            yield
        finally:
            with self._lock:
                self._adding.discard(plugin_id)

    def service(self, extension_type: type) -> Any:
        """Give what `get_service()` of the extension of this class gives. It is called afresh each time.

        Raises:
            UnknownExtension: no extension of this class is registered; a ValueError.
            NoService: it has no `get_service`; a ValueError.
            Exception: what `get_service` raises, as it is.
        """
        if not isinstance(extension_type, type):
            raise UnknownExtension(f"{extension_type!r} is no class: ask for the class that was registered")
        extension = self._extensions.get(extension_type, _ABSENT)
        if extension is _ABSENT:
            known = ", ".join(sorted(_path(cls) for cls in tuple(self._extensions))) or "none"
            raise UnknownExtension(
                f"{_path(extension_type)} is not registered: call register({extension_type.__qualname__}) first "
                f"(registered: {known})"
            )
        get_service = getattr(extension, "get_service", None)
        if not callable(get_service):
            raise NoService(
                f"{_path(extension_type)} has no get_service(): register, and ask for, the extension class that "
                "provides the service, not the service's own"
            )
        return get_service()


class _ExtensionUnit(PluginUnit):
    """An extension as a plugin: it is built and given its values, and nothing of it runs."""

    def __init__(self, extension: type | object, table: dict[type, object]) -> None:
        is_type = isinstance(extension, type)
        self.extension_type: type = extension if isinstance(extension, type) else type(extension)
        if self.extension_type.__module__ == "builtins":
            raise PluginLoadError(f"{extension!r} is no extension: register a class of yours, or an object of one")
        self.plugin = Plugin(id=_path(self.extension_type), version=_version_of(self.extension_type))
        self._make: Callable[[], object] = _constructor(self.extension_type) if is_type else lambda: extension
        self._table = table

    def contribute(self, host: Host, ledger: Ledger) -> None:
        """Build the extension, call its setters, and make it known."""
        extension = self._make()
        inject(extension, lambda key: _SOURCES[key](host))
        self._table[self.extension_type] = extension
        ledger.record(f"extension {self.plugin.id}", lambda: _forget(self._table, self.extension_type))


def _constructor(cls: type) -> Callable[[], object]:
    """Check, before anything is registered, that the class can be called without arguments."""
    if inspect.isabstract(cls):
        missing = ", ".join(sorted(cls.__abstractmethods__))  # type: ignore[attr-defined]  # abstract classes have it
        raise PluginLoadError(f"{_path(cls)} is abstract: define {missing}")
    try:
        inspect.signature(cls).bind()
    except ValueError:  # what is written in C does not tell its parameters
        return cls
    except TypeError as error:
        raise PluginLoadError(
            f"{_path(cls)} cannot be built without arguments ({error}): build it and register the object"
        ) from error
    return cls


def _config(config: Any = None) -> Any:
    return Settings(config) if type(config) is dict else config


def _auth_session(auth_session: Any = None) -> Any:
    return auth_session


def _api_client_factory(api_client_factory: Any = None, client: Any = None) -> Any:
    return client if api_client_factory is None else api_client_factory


def _from_container(wanted: Callable[..., Any]) -> Callable[[Host], Any]:
    """Make a source of what a function makes of the services that its parameters name; those not bound are None."""
    return lambda host: wanted(**host.container.arguments_for(wanted, skip=0))


#: Key of the table of setters -> what is given for it. Asked only for what an extension has a setter for.
_SOURCES: Mapping[str, Callable[[Host], Any]] = MappingProxyType(
    {
        "api_client_factory": _from_container(_api_client_factory),
        "auth_session": _from_container(_auth_session),
        "config": _from_container(_config),
        "engine": lambda host: host.engine,
        "journal": lambda host: None if host.engine is None else host.engine.journal,
        "logger": lambda host: host.logger,
    }
)


def _forget(table: dict[type, object], extension_type: type) -> None:
    del table[extension_type]


def _version_of(cls: type) -> str:
    version = getattr(cls, "version", None)
    return version if isinstance(version, str) else "0"


def _path(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
