"""The parameters in one place of a request, by id: read them, and tell which have changed."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from saga_engine.connect.request_errors import BadValue, MissingField, MissingParameter, listed

__all__ = ["ABSENT", "ChangeableParameters", "Parameters"]

#: Stands for a default that was not given.
ABSENT: Any = object()

#: Parameters of these types have their value in `structured_value`; in `value`, Connect repeats it as a text.
_STRUCTURED_TYPES = ("address", "checkbox", "object", "phone")


class Parameters:
    """A view over a list of parameters: `"seats" in parameters`, `parameters.value("seats")`.

    Args:
        params: Connect's list of dicts, each with `id`; it is looked at whenever something is asked.
        where: what an error says about the place: "asset.params of PR-1".

    Raises:
        MissingField: it is no such list.
    """

    def __init__(self, params: Any, where: str) -> None:
        if not isinstance(params, list) or not all(isinstance(p, dict) and "id" in p for p in params):
            raise MissingField(f"{where} is no list of parameters with an id: deliver the request as Connect gives it")
        self._params: list[dict[str, Any]] = params
        self._where = where

    def __iter__(self) -> Iterator[str]:
        return (param["id"] for param in self._params)

    def __len__(self) -> int:
        return len(self._params)

    def __contains__(self, parameter_id: object) -> bool:
        return any(param["id"] == parameter_id for param in self._params)

    def __getitem__(self, parameter_id: str) -> dict[str, Any]:
        """Give the parameter itself, the very dict of the request.

        Raises:
            MissingParameter: there is none.
        """
        for param in self._params:
            if param["id"] == parameter_id:
                return param
        raise MissingParameter(f"{self._where}: there is no parameter {parameter_id!r}; there are: {listed(self)}")

    def value(self, parameter_id: str, default: Any = ABSENT) -> Any:
        """Give a parameter's value: a text; of a structured one (object, address, ...) a dict or list.

        Args:
            parameter_id: the id.
            default: what to give if there is no such parameter, or if it has no value.

        Raises:
            MissingParameter: there is no such parameter, and no default was given.
        """
        if default is not ABSENT and parameter_id not in self:
            return default
        value = _value_of(self[parameter_id])
        return default if default is not ABSENT and _is_empty(value) else value

    def error(self, parameter_id: str) -> str:
        """Give what the customer was told to be wrong with the value; empty if nothing is.

        Raises:
            MissingParameter: there is no such parameter.
        """
        return self[parameter_id].get("value_error") or ""

    def __repr__(self) -> str:
        return f"<parameters of {self._where}: {listed(self)}>"  # ids only: values may be secrets


class ChangeableParameters(Parameters):
    """Parameters that a fulfillment may change; what it changes is told by `changed()`.

    Args:
        params, where: see `Parameters`.
        original: the parameters as Connect has them; by default, as they are now.
    """

    def __init__(self, params: Any, where: str, original: Any = None) -> None:
        super().__init__(params, where)
        if original is not None:
            Parameters(original, f"the original {where}")
        self._original = _by_id(params if original is None else original)

    def set_value(self, parameter_id: str, value: Any) -> None:
        """Write a parameter's value, and take away what was said to be wrong with the old one.

        Args:
            parameter_id: the id.
            value: a text, or a whole number, which Connect takes as a text; for a structured parameter a dict or list;
                None for no value.

        Raises:
            MissingParameter: there is no such parameter.
            BadValue: the value is of another type, or structured where the parameter is not.
        """
        param = self[parameter_id]
        _put(param, value, self._where)
        if param.get("value_error"):
            param["value_error"] = ""

    def set_error(self, parameter_id: str, message: str) -> None:
        """Say what is wrong with a parameter's value, for the customer who is asked for a better one.

        Args:
            parameter_id: the id.
            message: the text; empty: nothing is wrong.

        Raises:
            MissingParameter: there is no such parameter.
            BadValue: the message is no text.
        """
        if not isinstance(message, str):
            raise BadValue(f"{self._where}: the error of {parameter_id!r} is {message!r}: give a text")
        self[parameter_id]["value_error"] = message

    def changed(self) -> list[dict[str, Any]]:
        """List what has changed, in the form in which Connect takes it.

        Returns:
            For each changed parameter `id`, its `value` or `structured_value`, and, if that changed, `value_error`.
        """
        return [_as_sent(param, self._original.get(param["id"], {})) for param in self._params if self._is_new(param)]

    def were_written(self) -> None:
        """Take note that Connect has them as they are now."""
        self._original = _by_id(self._params)

    def _is_new(self, param: dict[str, Any]) -> bool:
        return _state_of(param) != _state_of(self._original.get(param["id"], {}))


def _value_of(param: Mapping[str, Any]) -> Any:
    return param.get("structured_value") if _is_structured(param) else param.get("value")


def _is_structured(param: Mapping[str, Any]) -> bool:
    is_plain = bool(param.get("value")) or param.get("type") not in _STRUCTURED_TYPES
    return bool(param.get("structured_value")) or not is_plain


def _is_empty(value: Any) -> bool:
    return value is None or value in ("", {}, [])


def _state_of(param: Mapping[str, Any]) -> tuple[Any, str]:
    """Give what a fulfillment can change of a parameter; no value and an empty one are the same to Connect."""
    value = _value_of(param)
    return (None if _is_empty(value) else value), param.get("value_error") or ""


def _as_sent(param: dict[str, Any], original: dict[str, Any]) -> dict[str, Any]:
    """Give one parameter as Connect takes it; the value always goes along, as an error is about a value."""
    field = "structured_value" if _is_structured(param) else "value"
    sent = {"id": param["id"], field: copy.deepcopy(param.get(field))}
    if _state_of(param)[1] != _state_of(original)[1]:
        sent["value_error"] = param["value_error"]
    return sent


def _by_id(params: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {param["id"]: copy.deepcopy(param) for param in params}


def _put(param: dict[str, Any], value: Any, where: str) -> None:
    """Write a value where parameters of its kind have it, and leave no old one in the other place.

    Raises:
        BadValue: it does not fit the parameter.
    """
    if isinstance(value, (dict, list)):
        # What takes a text and what does not is known from the type only.
        if "type" in param and param["type"] not in _STRUCTURED_TYPES:
            raise BadValue(f"{where}: {param['id']!r} is of type {param['type']!r}: give a text, not {_kind(value)}")
        param.update(structured_value=copy.deepcopy(value), value="")
        return
    if not (value is None or isinstance(value, (str, int))) or isinstance(value, bool):
        raise BadValue(f"{where}: the value of {param['id']!r} is {_kind(value)}: give a text, a dict or a list")
    param["value"] = "" if value is None else str(value)
    if "structured_value" in param or param.get("type") in _STRUCTURED_TYPES:
        param["structured_value"] = {}


def _kind(value: Any) -> str:
    """Name the type only: the value itself may be a secret."""
    return f"a {type(value).__name__}"
