"""How a class or function is to be called: what each of its parameters asks for, found out once."""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, ForwardRef, Union, get_args, get_origin

from saga_engine.services.failures import DependencyBuildingFailure, name_of

__all__ = [
    "ABSENT",
    "Key",
    "Parameter",
    "is_concrete",
    "is_pythons_own",
    "plan_of",
    "plan_of_callable",
    "plan_of_unbound",
]

Key = str | type

#: Stands for "there is none" where None is a value.
ABSENT: Any = object()

#: Annotations that are classes (`Any` only in some Pythons) and yet say nothing about what is wanted.
_NAMING_NOTHING = (Any, object, type(None))
_UNNAMED = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
#: More classes and functions than a process has; a bound all the same, as plugins may go on defining classes.
_PLANS_MAX = 4096


@dataclass(frozen=True)
class Parameter:
    """How one parameter is resolved: `keys` in this order, then `default`, then an instance of `builds`."""

    name: str
    keys: tuple[Key, ...]
    default: Any
    builds: type | None
    keyword_only: bool


def is_concrete(cls: type) -> bool:
    """Tell whether a class can be built."""
    return not inspect.isabstract(cls) and not getattr(cls, "_is_protocol", False)


def is_pythons_own(cls: type) -> bool:
    """Tell whether a class is a builtin or of the standard library."""
    package = cls.__module__.partition(".")[0]
    return package == "builtins" or package in sys.stdlib_module_names


def plan_of_callable(function: Callable[..., Any], skip: int) -> tuple[Parameter, ...]:
    """Plan a call of any callable; bound methods share the plan of their function, which can be cached."""
    if isinstance(function, types.MethodType):
        return plan_of(function.__func__, skip + 1)
    if isinstance(function, type) or hasattr(function, "__code__"):
        return plan_of(function, skip)
    own_call = getattr(type(function), "__call__", None)  # noqa: B004  # wants the function, not only a yes or no
    if isinstance(own_call, types.FunctionType):
        return plan_of(own_call, skip + 1)
    return plan_of(function, skip)


@lru_cache(maxsize=_PLANS_MAX)
def plan_of(target: Callable[..., Any], skip: int) -> tuple[Parameter, ...]:
    """Inspect a class or function once: how each parameter after the first `skip` is resolved.

    Raises:
        DependencyBuildingFailure: its parameters cannot be read.
    """
    try:
        parameters = list(_signature(target).parameters.values())[skip:]
    except (TypeError, ValueError) as error:
        raise DependencyBuildingFailure(
            f"the parameters of {name_of(target)} cannot be read ({error}). Build it yourself and bind it with "
            "bind_instance, or let a provider's provide_<name> method build it"
        ) from error
    namespace = _namespace_of(target)
    return tuple(_planned(parameter, namespace) for parameter in parameters if parameter.kind not in _UNNAMED)


@lru_cache(maxsize=_PLANS_MAX)
def plan_of_unbound(cls: type) -> tuple[Parameter, ...] | None:
    """Plan a class that is bound nowhere; None if the container has something to say about that."""
    try:
        return plan_of(cls, 0) if is_concrete(cls) else None
    except DependencyBuildingFailure:
        return None


def _is_buildable(cls: type) -> bool:
    """Tell whether an unbound annotation may be built: never a type of Python's own.

    `Path()` or `Decimal()` can be built, but an empty value in place of a forgotten binding is worse than an
    error.
    """
    return is_concrete(cls) and not is_pythons_own(cls)


def _signature(target: Callable[..., Any]) -> inspect.Signature:
    if sys.version_info >= (3, 14):
        # Annotations are evaluated late there; one that names an undefined class must not fail the others.
        from annotationlib import Format

        return inspect.signature(target, annotation_format=Format.FORWARDREF)
    return inspect.signature(target)


def _planned(parameter: inspect.Parameter, namespace: Mapping[str, Any]) -> Parameter:
    empty = inspect.Parameter.empty
    classes = () if parameter.annotation is empty else _classes_of(parameter.annotation, namespace)
    return Parameter(
        name=parameter.name,
        keys=(*classes, parameter.name),
        default=ABSENT if parameter.default is empty else parameter.default,
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
