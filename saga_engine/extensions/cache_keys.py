"""The key of a call of a cached function: which of its arguments count, the same however they are passed."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from inspect import Parameter
from types import NoneType
from typing import Any

from saga_engine.extensions.errors import NotCacheable

__all__ = ["TEXT_CHARS_MAX", "Key", "KeyRule"]

#: The counting arguments, in the order of the function's parameters. One that is no str stands beside its type, as
#: Python takes 1, 1.0 and True for the same key.
Key = tuple[Any, ...]

#: The longest key that is written to a journal; for a longer one all that its function cached is dropped elsewhere.
TEXT_CHARS_MAX = 4_096

_POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_VARIABLE = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)

#: What JSON gives back as it was.
_PLAIN = frozenset({str, int, float, bool, NoneType})


class KeyRule:
    """Makes the keys of one function's calls.

    Args:
        name: the function's, for errors.
        function: an async function. If its first parameter is called `self`, that one never counts.
        num_args: how many of its parameters count, from the first; None: all.
        uncached_args: the names of those that do not count.

    Raises:
        NotCacheable: the function, or these arguments, cannot be used.
    """

    def __init__(
        self, name: str, function: Callable[..., Any], num_args: int | None, uncached_args: Collection[str]
    ) -> None:
        self._name = name
        self._signature = inspect.signature(function)
        parameters = list(self._signature.parameters.values())
        self.is_method = bool(parameters) and parameters[0].name == "self"
        own = parameters[1:] if self.is_method else parameters
        self._counting = _counting(name, own, num_args, uncached_args)
        places = [place for place, parameter in enumerate(parameters) if parameter in self._counting]
        self._places = slice(places[0], places[-1] + 1) if _is_run(places) else slice(0)
        is_positional = all(parameter.kind in _POSITIONAL for parameter in parameters)
        # A plain call is not bound to the signature, which costs three times as much as all the rest.
        self._is_plain = is_positional and _is_run(places)
        self._defaults = tuple(each.default for each in parameters if each.default is not Parameter.empty)
        self._required = len(parameters) - len(self._defaults)

    def of_call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Key:
        """Give the key of a call.

        Raises:
            TypeError: the function cannot be called so.
            NotCacheable: an argument that counts cannot be part of a key.
        """
        given = len(args) - self._required
        if self._is_plain and not kwargs and 0 <= given <= len(self._defaults):
            return self._key((*args, *self._defaults[given:])[self._places])
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return self._key([bound.arguments[parameter.name] for parameter in self._counting])

    def of_values(self, values: Sequence[Any]) -> Key:
        """Give the key of the call with these arguments, of those that count; defaults at the end may be missing.

        Raises:
            NotCacheable: they are no tuple or list, too many, too few, or one cannot be part of a key.
        """
        if not isinstance(values, (tuple, list)):
            raise NotCacheable(f"{self._name}: a key is a tuple of arguments, such as ({values!r},), not {values!r}")
        defaults = [parameter.default for parameter in self._counting[len(values) :]]
        if len(values) > len(self._counting) or Parameter.empty in defaults:
            names = ", ".join(parameter.name for parameter in self._counting)
            raise NotCacheable(f"{self._name}: its key is ({names}), not {values!r}")
        return self._key([*values, *defaults])

    def _key(self, values: Sequence[Any]) -> Key:
        key = tuple([value if type(value) is str else (type(value), value) for value in values])
        try:
            hash(key)
        except TypeError as error:
            raise NotCacheable(
                f"{self._name}: an argument cannot be part of a key ({error}): pass values that can be hashed, "
                "or name it in uncached_args"
            ) from error
        return key


def as_text(values: Sequence[Any]) -> str | None:
    """Write the values of a key as JSON; None: they would not come back the same."""
    if any(type(value) not in _PLAIN for value in values):
        return None
    try:
        text = json.dumps(values, allow_nan=False)
    except ValueError:  # no number, or one of thousands of digits
        return None
    return text if len(text) <= TEXT_CHARS_MAX else None


def _counting(
    name: str, parameters: list[Parameter], num_args: int | None, uncached_args: Collection[str]
) -> list[Parameter]:
    """Sort out the parameters that count."""
    if isinstance(uncached_args, str):
        raise NotCacheable(f"{name}: uncached_args is {uncached_args!r}: give a collection of names")
    if num_args is not None and uncached_args:
        raise NotCacheable(f"{name}: give num_args or uncached_args, not both")
    unknown = sorted(set(uncached_args) - {parameter.name for parameter in parameters})
    if unknown:
        raise NotCacheable(f"{name}: uncached_args names {', '.join(unknown)}, which it does not take")
    if num_args is not None and not 0 <= num_args <= len(parameters):
        raise NotCacheable(f"{name}: num_args is {num_args!r}: it takes {len(parameters)}, give 0 to {len(parameters)}")
    counting = [parameter for parameter in parameters[:num_args] if parameter.name not in uncached_args]
    variable = [parameter for parameter in counting if parameter.kind in _VARIABLE]
    if variable:
        raise NotCacheable(f"{name}: it takes {variable[0]}: give its parameters names, or leave it out of the key")
    return counting


def _is_run(places: list[int]) -> bool:
    """Tell whether the places follow one another."""
    return bool(places) and places[-1] - places[0] + 1 == len(places)
