"""Parameters as Connect writes them, a list of dicts with an `id`, as something to read and to set by name."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from saga_engine.errors import BadRequest, MissingParameter

__all__ = ["Parameters"]

#: What a parameter is given by the connector; the rest of it belongs to the product.
_SET_KEYS = ("value", "structured_value", "value_error")


class Parameters(Mapping[str, Any]):
    """The parameters of one object of a request: `parameters["email"]` is its value, and may be set.

    The request's own dicts are read and changed, so that a saga journals what was set. A structured value (a dict or a
    list, as of an address) is found and set like any other.

    Args:
        where: whose they are, for messages ("asset AS-1").
        entries: the list in the request.

    Raises:
        BadRequest: it is no list of parameters.
    """

    def __init__(self, where: str, entries: Any) -> None:
        if not isinstance(entries, list) or not all(isinstance(each, dict) and "id" in each for each in entries):
            raise BadRequest(f"{where}: its params are no list of objects with an id: deliver the whole request")
        self._where = where
        self._entries = entries
        self._before = {each["id"]: _set_part(each) for each in copy.deepcopy(entries)}

    def parameter(self, name: str) -> dict[str, Any]:
        """Give the whole parameter, as it is in the request.

        Raises:
            MissingParameter: there is none of that id.
        """
        for entry in self._entries:
            if entry["id"] == name:
                found: dict[str, Any] = entry
                return found
        there = ", ".join(sorted(self)) or "none"
        raise MissingParameter(
            f"{self._where} has no parameter {name!r}: define it in the product (there are: {there})"
        )

    def __getitem__(self, name: str) -> Any:
        """Give the value, or the structured value if it has one; None if it is empty.

        Raises:
            MissingParameter: there is none of that id.
        """
        found = self.parameter(name)
        structured = found.get("structured_value")
        return found.get("value") if structured in (None, {}, []) else structured

    def __setitem__(self, name: str, value: Any) -> None:
        """Set the value; a dict or a list is a structured one.

        Raises:
            MissingParameter: there is none of that id.
        """
        self.parameter(name)["structured_value" if isinstance(value, (dict, list)) else "value"] = value

    def __iter__(self) -> Iterator[str]:
        """Go through the ids."""
        return (entry["id"] for entry in self._entries)

    def __len__(self) -> int:
        """Count them."""
        return len(self._entries)

    def required(self, name: str) -> Any:
        """Give the value, which must not be empty.

        Raises:
            MissingParameter: there is none of that id, or it is empty.
        """
        value = self[name]
        if value in (None, "", [], {}):
            raise MissingParameter(f"{self._where}: parameter {name!r} is empty: inquire for it, or fill it in")
        return value

    def mark(self, name: str, error: str) -> None:
        """Say what is wrong with the value: what a customer reads who is inquired.

        Raises:
            MissingParameter: there is none of that id.
        """
        self.parameter(name)["value_error"] = error

    def changed(self) -> list[dict[str, Any]]:
        """Give what was set since this was made, as Connect takes it: dicts of the id and what is new of it."""
        changes = []
        for entry in self._entries:
            before, now = self._before.get(entry["id"], {}), _set_part(entry)
            news = {key: value for key, value in now.items() if key not in before or before[key] != value}
            if news:
                changes.append({"id": entry["id"], **news})
        return changes


def _set_part(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: entry[key] for key in _SET_KEYS if key in entry}
