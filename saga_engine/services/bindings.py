"""What is bound to a key: who binds it, how it is made, and how long what was made lives.

What lives how long, by `scope`:

    transient    it is made for each request
    execution    one for each drive of an execution (a child saga has its own)
    plugin       one for each plugin: for the one that asks, else for the one that provides it
    application  one for the outermost container, which is the engine's
    singleton    one for the container in which it is bound; of what a plugin provides, one for each drive of an
                 execution, and one for the plugin outside of any

What is kept is made in the scope that keeps it, from what is bound there and in the scopes around it; if a plugin
provides it, also from what is bound for that plugin.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

from saga_engine.services.failures import InvalidClassType
from saga_engine.services.plans import ABSENT, Key, is_concrete

__all__ = [
    "SCOPES",
    "Binding",
    "Registration",
    "Scope",
    "check_key",
    "check_scope",
    "class_registration",
    "scope_of",
    "scoped",
]

Scope = Literal["application", "plugin", "execution", "singleton", "transient"]
SCOPES: tuple[str, ...] = get_args(Scope)

TFunction = TypeVar("TFunction", bound=Callable[..., Any])

_SCOPE = "__saga_scope__"


@dataclass(frozen=True)
class Registration:
    """What a service provider asks the container to bind.

    Attributes:
        key: the name or type to bind.
        target: the value ("instance"), the class to build, or the function to call ("provider").
        kind: which of these it is.
        origin: who binds it, for the message of a conflict.
        scope: how long what is built lives; see the module. An instance has none.
        is_async: the function is a coroutine function.
        is_default: another registration of the key in the same scope is no conflict, and wins.
        identity: what two registrations have in common that are one and the same for an application; None: nothing.
    """

    key: Key
    target: Any
    kind: Literal["instance", "class", "provider"]
    origin: str
    scope: Scope = "singleton"
    is_async: bool = False
    is_default: bool = False
    identity: Any = None


class Binding:
    """A key's entry in one scope.

    Attributes:
        value: an instance, or what was built and is the same for every request; `ABSENT`: there is none.
        home: the scope of the plugin that provides it; None: no plugin does.
        identity: under what it is kept.
        default: the default that it stands before.
    """

    __slots__ = ("default", "home", "identity", "is_async", "is_default", "is_instance", "origin", "scope", "target",
                 "value")  # fmt: skip

    def __init__(
        self,
        target: Any,
        origin: str,
        scope: Scope = "singleton",
        *,
        is_instance: bool = False,
        is_async: bool = False,
        is_default: bool = False,
        identity: Any = None,
        home: Any = None,
        default: Binding | None = None,
    ) -> None:
        self.target = target
        self.value = target if is_instance else ABSENT
        self.is_instance = is_instance
        self.is_async = is_async
        self.is_default = is_default
        self.scope = scope
        self.origin = origin
        self.identity = self if identity is None else identity
        self.home = home
        self.default = default

    @classmethod
    def of(cls, wanted: Registration, home: Any, default: Binding | None) -> Binding:
        """Make what a registration asks for, in front of a default."""
        return cls(
            wanted.target,
            wanted.origin,
            wanted.scope,
            is_instance=wanted.kind == "instance",
            is_async=wanted.is_async,
            is_default=wanted.is_default,
            identity=wanted.identity,
            home=home,
            default=default,
        )


def scoped(scope: Scope) -> Callable[[TFunction], TFunction]:
    """Say how long the result of a `provide_<name>` method lives; without it, it is a "singleton".

        class Vendor(ServiceProvider):
            @scoped("application")
            def provide_vendor(self, config): ...

    Raises:
        InvalidClassType: there is no such scope.
    """
    check_scope(scope, "scoped")

    def mark(function: TFunction) -> TFunction:
        setattr(function, _SCOPE, scope)
        return function

    return mark


def scope_of(function: Any) -> Scope:
    """Give what `scoped` says of a function."""
    found: Scope = getattr(function, _SCOPE, "singleton")
    return found


def class_registration(key: Key, cls: type, scope: Scope, origin: str) -> Registration:
    """Check what `bind_class` was given and make it a registration.

    Raises:
        InvalidClassType: `cls` is not a class that can be built, or the scope is unknown.
    """
    given: Any = cls
    if not isinstance(given, type):
        raise InvalidClassType(f"{origin}: {cls!r} is not a class. For a value use bind_instance")
    if not is_concrete(cls):
        raise InvalidClassType(f"{origin}: {cls.__name__} is abstract. Bind a class that implements it")
    check_scope(scope, origin)
    return Registration(key, cls, "class", origin, scope)


def check_scope(scope: Any, origin: str) -> None:
    """Refuse what is no scope."""
    if scope not in SCOPES:
        raise InvalidClassType(f"{origin}: scope {scope!r} is unknown. Use one of {', '.join(map(repr, SCOPES))}")


def check_key(key: Any, origin: str) -> None:
    """Refuse what is neither a type nor a name with a letter in it."""
    if not (isinstance(key, type) or (isinstance(key, str) and key.strip())):
        raise InvalidClassType(f"{origin}: the key {key!r} is neither a name nor a type")
