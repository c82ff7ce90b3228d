"""The aware bases, and the table of setters through which an extension is given what belongs to its host.

A base is for the reader and the type checker only: an extension that has the setter is given the value, with or
without the base.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from saga_engine.extensions.errors import SetterError, UnknownSetting

__all__ = [
    "SETTERS",
    "ApiClientFactoryAware",
    "AuthenticationAware",
    "ConfigAware",
    "EngineAware",
    "ExtensionServiceProvider",
    "JournalAware",
    "LoggerAware",
    "Settings",
    "inject",
]

#: Name of the setter -> key of what it is given. They are called in this order.
SETTERS: Mapping[str, str] = MappingProxyType(
    {
        "set_api_client_factory": "api_client_factory",
        "set_auth_session": "auth_session",
        "set_bot_session": "auth_session",
        "set_config": "config",
        "set_logger": "logger",
        "set_engine": "engine",
        "set_journal": "journal",
    }
)


class ApiClientFactoryAware(ABC):
    """An extension that calls an API through clients of its host."""

    @abstractmethod
    def set_api_client_factory(self, api_client_factory: Any) -> None:
        """Take what is bound to `api_client_factory`, else the engine's client; None: there is neither."""


class AuthenticationAware(ABC):
    """An extension that needs the session of its host; `set_bot_session` is another name of the same setter."""

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        other = getattr(cls, "set_bot_session", None)
        is_newer = "set_bot_session" in cls.__dict__ and "set_auth_session" not in cls.__dict__
        if other is not None and (is_newer or getattr(cls.set_auth_session, "__isabstractmethod__", False)):
            type.__setattr__(cls, "set_auth_session", other)  # so that it is abstract no more

    @abstractmethod
    def set_auth_session(self, auth_session: Any) -> None:
        """Take what is bound to `auth_session`, an object with `refresh()`; None: there is none."""


class ConfigAware(ABC):
    """An extension that reads the configuration of its host."""

    @abstractmethod
    def set_config(self, config: Any) -> None:
        """Take the engine's configuration: a plain dict as `Settings`, anything else as it is; None: there is none."""


class LoggerAware(ABC):
    """An extension that logs."""

    @abstractmethod
    def set_logger(self, logger: Any) -> None:
        """Take the extension's own logger."""


class EngineAware(ABC):
    """An extension that starts, signals or looks at executions."""

    @abstractmethod
    def set_engine(self, engine: Any) -> None:
        """Take the engine; None: the plugins are used without one."""


class JournalAware(ABC):
    """An extension that reads the journal."""

    @abstractmethod
    def set_journal(self, journal: Any) -> None:
        """Take the engine's open journal; None: the plugins are used without an engine."""


class ExtensionServiceProvider(ABC):
    """An extension that provides a service."""

    @abstractmethod
    def get_service(self) -> Any:
        """Give the service; called at each `ExtensionService.service(Type)`."""


class Settings(dict[str, Any]):
    """A configuration whose values can be read as attributes, too: `config.retry` is `config["retry"]`.

    A dict inside it can be read in the same way. A name that dicts have a method of, such as `items`, is the method.
    """

    def __getattr__(self, name: str) -> Any:
        try:
            value = self[name]
        except KeyError:
            raise UnknownSetting(f"the configuration has no {name!r}: set it, or read config.get({name!r})") from None
        return Settings(value) if type(value) is dict else value


def inject(extension: object, value_of: Callable[[str], Any]) -> None:
    """Call each setter that the extension has, in the order of `SETTERS`.

    Args:
        extension: any object.
        value_of: gives the value for a key; asked only for what there is a setter for.

    Raises:
        SetterError: one of them cannot be called with one value, or is async. None has been called then.
    """
    for setter, key in tuple(_setters_of(extension)):
        setter(value_of(key))


def _setters_of(extension: object) -> Iterator[tuple[Callable[[Any], Any], str]]:
    """List the setters and their keys, checked; two names of one method count once."""
    seen: list[Any] = []
    for name, key in SETTERS.items():
        setter = getattr(extension, name, None)
        if setter is None:
            continue
        function = getattr(setter, "__func__", setter)
        if function not in seen:
            seen.append(function)
            _check(extension, name, setter, key)
            yield setter, key


def _check(extension: object, name: str, setter: Any, key: str) -> None:
    path = f"{type(extension).__qualname__}.{name}"
    if not callable(setter):
        raise SetterError(f"{path} is {setter!r}: make it a method `def {name}(self, {key})`")
    if inspect.iscoroutinefunction(setter):
        raise SetterError(f"{path} is async: make it a plain method `def {name}(self, {key})`")
    try:
        signature = inspect.signature(setter)
    except ValueError:  # what is written in C does not tell its parameters
        return
    try:
        signature.bind(None)
    except TypeError as error:
        raise SetterError(f"{path}{signature} cannot be called with one value ({error}): take {key} only") from error
