"""The service container: one resolver whose keys are names or types, with parent and child scopes.

A parameter is resolved in this order: by its annotation, if that class is bound; by its name, if that is
bound; by its default; by building its annotated class, if that is a concrete class of someone's own code.
What cannot be resolved is a `DependencyBuildingFailure` that shows the chain of requests.

Scopes: `child()` falls back to its parent. What is shared (a singleton, a provider's result) is built in and
kept by the scope that binds it, so it never sees a child's bindings. All else is built for the scope
that asks.
"""

from __future__ import annotations

import inspect
import sys
import threading
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ForwardRef,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
    overload,
)

from transactions.errors import SagaError

if TYPE_CHECKING:
    from saga_engine.services.providers import ServiceProvider

__all__ = [
    "BindingConflict",
    "CORE_SERVICE_NAMES",
    "Container",
    "DependencyBuildingFailure",
    "InvalidClassType",
    "Key",
    "Registration",
    "wants_nothing",
]

T = TypeVar("T")
Key = str | type

#: Names that the engine binds itself; a configuration variable never takes one of them.
CORE_SERVICE_NAMES = frozenset({"cache", "client", "config", "context", "logger", "request"})

_ABSENT: Any = object()
#: Annotations that are classes (`Any` only in some Pythons) and yet say nothing about what is wanted.
_NAMING_NOTHING = (Any, object, type(None))
_UNNAMED = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
#: More classes and functions than a process has; a bound all the same, as plugins may go on defining classes.
_PLANS_MAX = 4096


class DependencyBuildingFailure(SagaError):
    """A service cannot be built from what the container holds; the message shows the chain of requests."""


class InvalidClassType(SagaError):
    """A key of the container is neither a name nor a type, or a class was wanted and something else given."""


class BindingConflict(SagaError):
    """One key was bound twice in one scope; the message names both places."""


@dataclass(frozen=True)
class Registration:
    """What a service provider asks the container to bind.

    Attributes:
        key: the name or type to bind.
        target: the value ("instance"), the class to build, or the function to call ("provider").
        kind: "instance", "transient" (a new one per request), "singleton" or "provider" (both built once).
        origin: who binds it, for the message of a conflict.
    """

    key: Key
    target: Any
    kind: Literal["instance", "transient", "singleton", "provider"]
    origin: str


class _Binding:
    """A key's entry in one scope; `value` is what is shared, once there is something to share."""

    __slots__ = ("origin", "shared", "target", "value")

    def __init__(self, target: Any, value: Any, shared: bool, origin: str) -> None:
        self.target = target
        self.value = value
        self.shared = shared
        self.origin = origin


@dataclass(frozen=True)
class _Parameter:
    """How one parameter is resolved: `keys` in this order, then `default`, then an instance of `builds`."""

    name: str
    keys: tuple[Key, ...]
    default: Any
    builds: type | None
    keyword_only: bool


#: The requests that led here, outermost first: the scope that builds, and the class or function it calls.
_Chain = tuple[tuple["Container", Any], ...]


class Container:
    """Builds services and injects what their constructors name.

    Safe to use from several threads: a shared service is built once, whoever asks first. `get(Container)`
    and a parameter annotated `Container` give the scope that resolves.

    Args:
        providers: service providers to bind, as `bind_provider` does.

    Raises:
        BindingConflict: two of the providers bind one key.
    """

    __slots__ = ("__weakref__", "_bindings", "_lock", "_parent")

    def __init__(self, providers: Iterable[ServiceProvider | type[ServiceProvider]] = ()) -> None:
        self._bindings: dict[Key, _Binding] = {}
        self._parent: Container | None = None
        self._lock = threading.RLock()
        for provider in providers:
            self.bind_provider(provider)

    def bind_instance(self, key: Key, value: Any) -> Container:
        """Bind a name or a type to this very value; returns the container itself.

        Raises:
            InvalidClassType: the key is neither a non-empty str nor a type.
            BindingConflict: the key is bound in this scope already.
        """
        origin = _caller(f"bind_instance({_show(key)})")
        return self.bind_registrations([Registration(key, value, "instance", origin)])

    def bind_class(self, key: Key, cls: type, scope: Literal["transient", "singleton"] = "transient") -> Container:
        """Bind a name or a type to a class that the container builds; returns the container itself.

        Args:
            key: the name or type to bind.
            cls: the concrete class; its constructor is injected.
            scope: "transient" builds a new one per request, "singleton" one for this scope and its children.

        Raises:
            InvalidClassType: the key is neither name nor type, `cls` is no class, or the scope is unknown.
            BindingConflict: the key is bound in this scope already.
        """
        origin = _caller(f"bind_class({_show(key)})")
        return self.bind_registrations([class_registration(key, cls, scope, origin)])

    def bind_provider(self, provider: ServiceProvider | type[ServiceProvider]) -> Container:
        """Bind all that a service provider registers and provides, or nothing if one of its keys is taken.

        Args:
            provider: the provider, or its class if it is built without arguments.

        Raises:
            InvalidClassType: this is no service provider.
            BindingConflict: a key is bound in this scope already.
        """
        instance: Any = provider() if isinstance(provider, type) else provider
        registrations = getattr(instance, "registrations", None)
        if not callable(registrations):
            raise InvalidClassType(f"{provider!r} is no service provider: derive its class from ServiceProvider")
        return self.bind_registrations(registrations())

    def bind_registrations(self, registrations: Iterable[Registration]) -> Container:
        """Bind all of these or none; returns the container itself.

        Raises:
            InvalidClassType: a key is neither a non-empty str nor a type.
            BindingConflict: a key is bound in this scope already, or twice in the list.
        """
        with self._lock:
            fresh: dict[Key, _Binding] = {}
            for wanted in registrations:
                _check_key(wanted.key, wanted.origin)
                taken = fresh.get(wanted.key) or self._bindings.get(wanted.key)
                if taken is not None:
                    raise BindingConflict(
                        f"{_show(wanted.key)} is bound twice: by {taken.origin} and by {wanted.origin}. "
                        "Rename one of them, or bind the one that must win in a child scope"
                    )
                value = wanted.target if wanted.kind == "instance" else _ABSENT
                fresh[wanted.key] = _Binding(wanted.target, value, wanted.kind != "transient", wanted.origin)
            self._bindings.update(fresh)
        return self

    def child(self, /, **instances: Any) -> Container:
        """Make a scope inside this one, in which these names are bound and win over this one's."""
        scope = Container()
        scope._parent = self
        scope._bindings = {name: _Binding(None, value, True, "child()") for name, value in instances.items()}
        return scope

    @overload
    def get(self, key: type[T]) -> T: ...

    @overload
    def get(self, key: str) -> Any: ...

    def get(self, key: Any) -> Any:
        """Give what is bound to a name or type; a concrete class that is not bound is built.

        Raises:
            DependencyBuildingFailure: nothing is bound to the name, the class is abstract, or something that
                its constructor wants, directly or further down, cannot be resolved.
            InvalidClassType: the key is neither a name nor a type.
        """
        if not isinstance(key, (str, type)):
            raise InvalidClassType(f"Container.get wants a name or a class, not {key!r}")
        value = self._bound(key, ())
        if value is not _ABSENT:
            return value
        if isinstance(key, str):
            raise DependencyBuildingFailure(f"nothing is bound to {key!r}. {_how_to_bind(key, None)}")
        if not _is_concrete(key):
            raise DependencyBuildingFailure(
                f"{key.__name__} is abstract and nothing is bound to it. Bind its implementation: "
                f"container.bind_class({key.__name__}, ...) or container.bind_instance({key.__name__}, ...)"
            )
        return self._build(key, ())

    def get_inside(self, cls: type[T], instances: Callable[[], dict[str, Any]]) -> T:
        """Give what `child(**instances()).get(cls)` gives, and make the child scope only if that takes one.

        For what is built very often: a class that wants nothing, or only what is there already, needs no scope.
        """
        plan = _plan_of_unbound(cls)  # type: ignore[arg-type]  # classes are hashable
        if plan is None or self._found(cls) is not None:
            return self.child(**instances()).get(cls)
        if not plan:
            return cls()
        own = instances()
        arguments = self._arguments_at_hand(plan, own)
        return self.child(**own).get(cls) if arguments is None else cls(*arguments)

    def _arguments_at_hand(self, plan: tuple[_Parameter, ...], own: Mapping[Any, Any]) -> list[Any] | None:
        """Find the values of these parameters, with `own` bound in front; None if one has to be built."""
        arguments: list[Any] = []
        for parameter in plan:
            value = parameter.default
            for key in parameter.keys:
                if key in own:
                    value = own[key]
                    break
                binding = self._found(key)
                if binding is not None:
                    value = binding.value
                    break
            if value is _ABSENT or parameter.keyword_only:
                return None
            arguments.append(value)
        return arguments

    def _found(self, key: Key) -> _Binding | None:
        scope: Container | None = self
        while scope is not None:
            binding = scope._bindings.get(key)
            if binding is not None:
                return binding
            scope = scope._parent
        return None

    def arguments_for(self, function: Callable[..., Any], skip: int = 1) -> dict[str, Any]:
        """Resolve the parameters of a function after the first `skip`, by the same rule as a constructor's.

        Args:
            function: any callable; a bound method's own object does not count as a parameter.
            skip: how many leading parameters the caller fills in itself.

        Returns:
            A value by parameter name. A parameter with nothing bound to it and a default is left out.

        Raises:
            DependencyBuildingFailure: a parameter without a default cannot be resolved.
        """
        plan = _plan_of_callable(function, skip)
        chain = ((self, function),)
        values = {parameter.name: self._argument(parameter, chain, _ABSENT) for parameter in plan}
        return {name: value for name, value in values.items() if value is not _ABSENT}

    def _bound(self, key: Key, chain: _Chain) -> Any:
        """Give what the nearest scope binds to the key, or `_ABSENT`."""
        scope: Container | None = self
        while scope is not None:
            binding = scope._bindings.get(key)
            if binding is not None:
                if binding.value is not _ABSENT:
                    return binding.value
                if binding.shared:
                    return scope._share(binding, chain)
                return self._build(binding.target, chain)
            scope = scope._parent
        return _ABSENT

    def _share(self, binding: _Binding, chain: _Chain) -> Any:
        """Build, once, what the whole scope shares."""
        with self._lock:
            if binding.value is _ABSENT:
                target = binding.target
                make = self._build if isinstance(target, type) else self._call
                binding.value = make(target, chain)
            return binding.value

    def _build(self, cls: type, chain: _Chain) -> Any:
        if cls is Container:
            return self
        return self._fill(cls, _plan_of(cls, 0), chain)

    def _call(self, function: Callable[..., Any], chain: _Chain) -> Any:
        return self._fill(function, _plan_of_callable(function, 0), chain)

    def _fill(self, target: Callable[..., Any], plan: tuple[_Parameter, ...], chain: _Chain) -> Any:
        """Call the class or function with all of its parameters resolved."""
        link = (self, target)
        if link in chain:
            raise DependencyBuildingFailure(
                f"a cycle of requests: {_path([*chain, link])}. Break it: let one of them take the Container "
                "and ask for the other when it is needed"
            )
        chain = (*chain, link)
        positional: list[Any] = []
        keywords: dict[str, Any] = {}
        for parameter in plan:
            value = self._argument(parameter, chain, parameter.default)
            if parameter.keyword_only:
                keywords[parameter.name] = value
            else:
                positional.append(value)
        return target(*positional, **keywords)

    def _argument(self, parameter: _Parameter, chain: _Chain, instead: Any) -> Any:
        """Resolve one parameter; `instead` is the answer if nothing is bound and it has a default."""
        for key in parameter.keys:
            value = self._bound(key, chain)
            if value is not _ABSENT:
                return value
        if parameter.default is not _ABSENT:
            return instead
        if parameter.builds is not None:
            return self._build(parameter.builds, chain)
        raise _unresolved(parameter, chain)


def wants_nothing(cls: type) -> bool:
    """Tell whether a container to which this class is not bound builds it by calling it without arguments."""
    return _plan_of_unbound(cls) == ()


def class_registration(key: Key, cls: type, scope: str, origin: str) -> Registration:
    """Check what `bind_class` was given and make it a registration.

    Raises:
        InvalidClassType: `cls` is not a class that can be built, or the scope is unknown.
    """
    given: Any = cls
    if not isinstance(given, type):
        raise InvalidClassType(f"{origin}: {cls!r} is not a class. For a value use bind_instance")
    if not _is_concrete(cls):
        raise InvalidClassType(f"{origin}: {cls.__name__} is abstract. Bind a class that implements it")
    if scope == "transient":
        return Registration(key, cls, "transient", origin)
    if scope == "singleton":
        return Registration(key, cls, "singleton", origin)
    raise InvalidClassType(f"{origin}: scope {scope!r} is unknown. Use 'transient' or 'singleton'")


def _check_key(key: Any, origin: str) -> None:
    if not (isinstance(key, type) or (isinstance(key, str) and key.strip())):
        raise InvalidClassType(f"{origin}: the key {key!r} is neither a name nor a type")


def _is_concrete(cls: type) -> bool:
    return not inspect.isabstract(cls) and not getattr(cls, "_is_protocol", False)


def _is_buildable(cls: type) -> bool:
    """Tell whether an unbound annotation may be built: never a type of Python's own.

    `Path()` or `Decimal()` can be built, but an empty value in place of a forgotten binding is worse than an
    error.
    """
    return _is_concrete(cls) and not _is_pythons_own(cls)


def _is_pythons_own(cls: type) -> bool:
    package = cls.__module__.partition(".")[0]
    return package == "builtins" or package in sys.stdlib_module_names


def _caller(what: str) -> str:
    """Name a call on the container together with the line of the code that makes it."""
    frame = sys._getframe(2)
    return f"{what} at {frame.f_code.co_filename}:{frame.f_lineno}"


def _plan_of_callable(function: Callable[..., Any], skip: int) -> tuple[_Parameter, ...]:
    """Plan a call of any callable; bound methods share the plan of their function, which can be cached."""
    if isinstance(function, types.MethodType):
        return _plan_of(function.__func__, skip + 1)
    if isinstance(function, type) or hasattr(function, "__code__"):
        return _plan_of(function, skip)
    own_call = getattr(type(function), "__call__", None)  # noqa: B004  # wants the function, not only a yes or no
    if isinstance(own_call, types.FunctionType):
        return _plan_of(own_call, skip + 1)
    return _plan_of(function, skip)


@lru_cache(maxsize=_PLANS_MAX)
def _plan_of(target: Callable[..., Any], skip: int) -> tuple[_Parameter, ...]:
    """Inspect a class or function once: how each parameter after the first `skip` is resolved."""
    try:
        parameters = list(_signature(target).parameters.values())[skip:]
    except (TypeError, ValueError) as error:
        raise DependencyBuildingFailure(
            f"the parameters of {_name(target)} cannot be read ({error}). Build it yourself and bind it with "
            "bind_instance, or let a provider's provide_<name> method build it"
        ) from error
    namespace = _namespace_of(target)
    return tuple(_planned(parameter, namespace) for parameter in parameters if parameter.kind not in _UNNAMED)


@lru_cache(maxsize=_PLANS_MAX)
def _plan_of_unbound(cls: type) -> tuple[_Parameter, ...] | None:
    """Plan a class that is bound nowhere; None if `get` has something to say about that."""
    try:
        return _plan_of(cls, 0) if cls is not Container and _is_concrete(cls) else None
    except DependencyBuildingFailure:
        return None


def _signature(target: Callable[..., Any]) -> inspect.Signature:
    if sys.version_info >= (3, 14):
        # Annotations are evaluated late there; one that names an undefined class must not fail the others.
        from annotationlib import Format

        return inspect.signature(target, annotation_format=Format.FORWARDREF)
    return inspect.signature(target)


def _planned(parameter: inspect.Parameter, namespace: Mapping[str, Any]) -> _Parameter:
    empty = inspect.Parameter.empty
    classes = () if parameter.annotation is empty else _classes_of(parameter.annotation, namespace)
    return _Parameter(
        name=parameter.name,
        keys=(*classes, parameter.name),
        default=_ABSENT if parameter.default is empty else parameter.default,
        builds=classes[0] if len(classes) == 1 and _is_buildable(classes[0]) else None,
        keyword_only=parameter.kind is inspect.Parameter.KEYWORD_ONLY,
    )


def _classes_of(annotation: Any, namespace: Mapping[str, Any]) -> tuple[type, ...]:
    """List the classes that an annotation names: one, several for a union, none if it cannot be told."""
    if isinstance(annotation, ForwardRef):
        annotation = annotation.__forward_arg__
    if isinstance(annotation, str):
        annotation = _evaluated(annotation, namespace)
    origin = get_origin(annotation)
    if origin is Annotated:
        return _classes_of(get_args(annotation)[0], namespace)
    if origin is Union or origin is types.UnionType:
        return tuple(cls for argument in get_args(annotation) for cls in _classes_of(argument, namespace))
    cls = annotation if origin is None else origin
    return (cls,) if isinstance(cls, type) and cls not in _NAMING_NOTHING else ()


def _evaluated(text: str, namespace: Mapping[str, Any]) -> Any:
    try:
        return eval(text, dict(namespace))  # code of the module that wrote the annotation, never input
    except Exception:  # whatever it raises, the parameter is still resolved by its name
        return None


def _namespace_of(target: Any) -> Mapping[str, Any]:
    """Find the global names that the annotations of a class's constructor, or of a function, refer to."""
    constructor: Any = getattr(target, "__init__", None)
    function = inspect.unwrap(constructor if isinstance(target, type) else target)
    module = sys.modules.get(getattr(target, "__module__", None) or "")
    found: Mapping[str, Any] = getattr(function, "__globals__", None) or getattr(module, "__dict__", {})
    return found


def _unresolved(parameter: _Parameter, chain: _Chain) -> DependencyBuildingFailure:
    wanted = next((key for key in parameter.keys if isinstance(key, type)), None)
    argument = f"{parameter.name}: {wanted.__name__}" if wanted else parameter.name
    (first_scope, first), (last_scope, last) = chain[0], chain[-1]
    message = (
        f"{_name(first)} cannot be built: {_name(last)} wants the argument '{argument}' and nothing is bound to it "
        f"(requests: {_path(chain)} -> {parameter.name!r}). {_how_to_bind(parameter.name, wanted)}"
    )
    if last_scope is not first_scope:
        message += f". What is bound in a child scope only is not seen: {_name(last)} is built for its parent"
    return DependencyBuildingFailure(message)


def _how_to_bind(name: str, wanted: type | None) -> str:
    ways = [f"container.bind_instance({name!r}, ...)"]
    if wanted is not None and not _is_pythons_own(wanted):
        ways.append(f"container.bind_class({wanted.__name__}, ...)")
    if name not in CORE_SERVICE_NAMES:
        ways.append(f"a configuration variable {name.upper()}")
    return f"Bind it with {', '.join(ways)} or a provider's provide_{name} method; an argument may also have a default"


def _path(chain: Iterable[tuple[Container, Any]]) -> str:
    return " -> ".join(_name(target) for _, target in chain)


def _name(target: Any) -> str:
    """Name a class or function as its author calls it."""
    if isinstance(target, types.MethodType):
        return f"{type(target.__self__).__name__}.{target.__name__}"
    return str(getattr(target, "__name__", None) or repr(target))


def _show(key: Any) -> str:
    return key.__name__ if isinstance(key, type) else repr(key)
