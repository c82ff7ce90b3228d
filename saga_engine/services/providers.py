"""Service providers: where an extension declares the services that its transactions are given."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, Protocol, TypeVar

from saga_engine.services.bindings import Registration, Scope, class_registration, scope_of
from saga_engine.services.container import CORE_SERVICE_NAMES, Container
from saga_engine.services.failures import BindingConflict, InvalidClassType
from saga_engine.services.plans import Key
from transactions.errors import SagaError

__all__ = ["BaseServiceProvider", "ServiceProvider", "WarningLogger", "bind_config"]

_PREFIX = "provide_"
TProvider = TypeVar("TProvider", bound="ServiceProvider")

#: The provider whose `register()` runs in this context, and where its bindings go. They are kept apart from
#: the provider itself because one provider may be bound to many containers, from many threads at once.
_registering: ContextVar[tuple[object, list[Registration]] | None] = ContextVar("_registering", default=None)


class ServiceProvider:
    """A provider written as a class: `provide_<name>` methods, and bindings made in `register()`.

    A method `provide_cache(self, config, logger)` is injected like a constructor, called when `cache` is
    first wanted, and its result is shared by the container that it is bound to and that one's children, unless
    `scoped` says how long it lives. If it is async, what wants its result is asked for with
    `await container.aget(...)`; the engine does that for steps.
    """

    def register(self) -> None:
        """Override to call `self.bind_instance` and `self.bind_class`; by default nothing is registered."""

    def bind_instance(self: TProvider, key: Key, value: Any) -> TProvider:
        """Bind a name or a type to this very value; returns the provider itself."""
        return self._add(Registration(key, value, "instance", self._origin()))

    def bind_class(self: TProvider, key: Key, cls: type, scope: Scope = "transient") -> TProvider:
        """Bind a name or a type to a class that the container builds; returns the provider itself.

        Args:
            key: the name or type to bind.
            cls: the concrete class; its constructor is injected.
            scope: how long an instance lives; "transient" builds a new one for each request, "singleton" one for
                each container. For the others see `saga_engine.services.bindings`.

        Raises:
            InvalidClassType: `cls` is not a class that can be built, or the scope is unknown.
        """
        return self._add(class_registration(key, cls, scope, self._origin()))

    def registrations(self) -> Sequence[Registration]:
        """List what was bound on this object, what `register()` binds, and the `provide_<name>` methods.

        Raises:
            InvalidClassType: a `provide_<name>` is no method, a generator, or async and transient.
        """
        collected = list(self.__dict__.get("_own", ()))
        token = _registering.set((self, collected))
        try:
            self.register()
        finally:
            _registering.reset(token)
        cls: Any = type(self)
        collected.extend(self._provided(name) for name in _provide_methods(cls))
        return collected

    def _add(self: TProvider, registration: Registration) -> TProvider:
        current = _registering.get()
        if current is not None and current[0] is self:
            current[1].append(registration)
        else:
            # Not made in __init__: a subclass need not call this one's.
            self.__dict__.setdefault("_own", []).append(registration)
        return self

    def _origin(self) -> str:
        return f"{type(self).__name__}.register"

    def _provided(self, method: str) -> Registration:
        function = getattr(self, method)
        origin = f"{type(self).__name__}.{method}"
        scope, is_async = scope_of(function), inspect.iscoroutinefunction(function)
        if not callable(function):
            raise InvalidClassType(f"{origin} is {function!r}: make it a method, or bind_instance in register()")
        if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
            raise InvalidClassType(f"{origin} is a generator: return one value, and close it where it is used")
        if is_async and scope == "transient":
            raise InvalidClassType(f"{origin} is async and transient: make it a plain method that gives a factory")
        return Registration(method[len(_PREFIX) :], function, "provider", origin, scope, is_async)


#: The same class, under the name that connectors written for Connect's fulfillment framework derive from.
BaseServiceProvider = ServiceProvider


@lru_cache(maxsize=1024)
def _provide_methods(cls: Any) -> tuple[str, ...]:
    """List the names of a class's `provide_<name>` methods."""
    return tuple(name for name in dir(cls) if name.startswith(_PREFIX) and len(name) > len(_PREFIX))


class WarningLogger(Protocol):
    """The one method of a logger, a `LoggerAdapter` or a structlog logger that is used here."""

    def warning(self, msg: str, /, *args: Any) -> Any:
        """Log a message with `%s` arguments."""
        ...


def bind_config(container: Container, config: Mapping[str, Any], logger: WarningLogger) -> Container:
    """Bind `config`, and each of its variables under its name in lower case and without outer blanks.

    Values are bound as they are, whatever their type. A variable whose key is blank or no str is skipped. One
    that is named like a core service (`CORE_SERVICE_NAMES`) can be read from `config` only, and is warned of. One
    that is named like a service in a scope around the container is not bound either: services win over variables.

    Args:
        container: the scope to bind in. Services bound in a child of it win over variables of the same name.
        config: the configuration that Connect gives the extension.
        logger: where to warn.

    Returns:
        The container.

    Raises:
        BindingConflict: two variables differ in case or blanks only and have different values, or a
            variable's name is bound in this scope already.
        SagaError: the configuration is no mapping.
    """
    given: Any = config
    if not isinstance(given, Mapping):
        raise SagaError(f"the configuration must be a dict of variables, not {type(given).__name__}")
    variables = [
        Registration(name, config[variable], "instance", f"configuration variable {variable!r}")
        for name, variable in _variables_by_name(config, logger).items()
        if not container.is_bound_around(name)
    ]
    config_itself = Registration("config", config, "instance", "bind_config")
    return container.bind_registrations([config_itself, *variables])


def _variables_by_name(config: Mapping[str, Any], logger: WarningLogger) -> dict[str, str]:
    """Map each service name to the configuration variable that it stands for."""
    found: dict[str, str] = {}
    variables: Iterable[Any] = config  # a dict may have any keys, whatever its annotation says
    for variable in variables:
        name = variable.strip().lower() if isinstance(variable, str) else ""
        if name in CORE_SERVICE_NAMES:
            logger.warning(
                "configuration variable %r is named like the core service %r and is not injected: "
                "rename it, or read it from config",
                variable,
                name,
            )
        elif name:
            _refuse_twin(config, found.setdefault(name, variable), variable)
    return found


def _refuse_twin(config: Mapping[str, Any], first: str, second: str) -> None:
    if first != second and config[first] != config[second]:
        raise BindingConflict(
            f"the configuration variables {first!r} and {second!r} are one name with two values: remove one"
        )
