"""Filters of a collection as Connect's clients write them: RQL, as far as a fulfillment needs it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from saga_engine.connect.local_errors import BadQuery

__all__ = ["Query"]

#: A page of a collection, as Connect gives it if nobody asks for another.
_LIMIT_DEFAULT = 100
#: How deep filters stand in each other, and how many digits a number has, at most.
_DEPTH_MAX, _DIGITS_MAX = 20, 9
_TOKEN = re.compile(r"""[(),&]|"[^"]*"|'[^']*'|[^(),&"']+""")
#: What a client may send along that changes nothing about which objects are meant.
_IGNORED = frozenset({"ordering", "select"})

Filter = Callable[[Mapping[str, Any]], bool]


@dataclass(frozen=True)
class Query:
    """What is asked of a collection.

    Args:
        is_meant: tells whether an object is asked for.
        limit: how many at most.
        offset: how many of them are left out first.
    """

    is_meant: Filter
    limit: int = _LIMIT_DEFAULT
    offset: int = 0

    @classmethod
    def from_text(cls, text: str) -> Query:
        """Read a query such as `and(eq(id,PR-1),in(status,(pending,approved)))&limit=10&offset=0`.

        Args:
            text: what follows the question mark, with its percent signs decoded.

        Raises:
            BadQuery: it cannot be read, or it uses what the local Connect does not know.
        """
        numbers = {"limit": _LIMIT_DEFAULT, "offset": 0}
        reader = _Reader(text)
        filters: list[Filter] = []
        while not reader.is_at_end():
            if reader.peek() == "&":
                reader.take("&")
                continue
            word = reader.word()
            name, equals, value = word.partition("=")
            if equals and name in numbers:
                numbers[name] = _number(name, value)
            elif equals:
                filters.append(_compare("eq", name, value))
            elif word in _IGNORED:
                reader.skip()
            else:
                filters.append(reader.call(word))
        return cls(_every(filters), numbers["limit"], numbers["offset"])


class _Reader:
    """Reads an expression from left to right, once."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = _TOKEN.findall(text)
        self._at = 0
        self._depth = 0
        if "".join(self._tokens) != text:
            raise BadQuery(f"{text!r} cannot be read: a quote is not closed")

    def is_at_end(self) -> bool:
        return self._at >= len(self._tokens)

    def peek(self) -> str:
        return "" if self.is_at_end() else str(self._tokens[self._at])

    def take(self, expected: str) -> None:
        if self.peek() != expected:
            raise BadQuery(f"{self._text!r} cannot be read: {expected!r} should stand before {self.peek()!r}")
        self._at += 1

    def word(self) -> str:
        word = self.peek()
        if not word or word in "(),&":
            raise BadQuery(f"{self._text!r} cannot be read: a name or a value should stand before {word!r}")
        self._at += 1
        return word

    def skip(self) -> None:
        """Pass over what stands between parentheses."""
        self.take("(")
        while self.peek() not in (")", ""):
            self._at += 1
        self.take(")")

    def call(self, operator: str) -> Filter:
        """Read the arguments of an operator, whose name was read."""
        self.take("(")
        self._depth += 1
        if self._depth > _DEPTH_MAX:
            raise BadQuery(f"{self._text!r} cannot be read: more than {_DEPTH_MAX} filters stand in each other")
        if operator in ("and", "or", "not"):
            parts = [self.call(self.word())]
            while self.peek() == ",":
                self.take(",")
                parts.append(self.call(self.word()))
            filter_ = _join(operator, parts)
        elif operator in ("in", "out"):
            name = self.word()
            self.take(",")
            filter_ = _among(operator, name, self._list())
        else:
            name = self.word()
            self.take(",")
            filter_ = _compare(operator, name, self._value())
        self._depth -= 1
        self.take(")")
        return filter_

    def _list(self) -> list[str]:
        self.take("(")
        values = [] if self.peek() == ")" else [self._value()]
        while self.peek() == ",":
            self.take(",")
            values.append(self._value())
        self.take(")")
        return values

    def _value(self) -> str:
        return "" if self.peek() in (",", ")") else self.word().strip("\"'")


def _join(operator: str, parts: Sequence[Filter]) -> Filter:
    if operator == "or":
        return lambda each: any(part(each) for part in parts)
    together = _every(parts)
    return together if operator == "and" else lambda each: not together(each)


def _every(parts: Sequence[Filter]) -> Filter:
    return lambda each: all(part(each) for part in parts)


def _among(operator: str, name: str, values: Sequence[str]) -> Filter:
    return lambda each: (_field(each, name) in values) is (operator == "in")


def _compare(operator: str, name: str, value: str) -> Filter:
    if operator == "eq":
        return lambda each: _field(each, name) == value
    if operator == "ne":
        return lambda each: _field(each, name) != value
    raise BadQuery(f"the local Connect does not know the filter {operator!r}: use and, or, not, eq, ne, in, out")


def _field(each: Any, name: str) -> str:
    """Give a field by its path, as text; empty if there is none."""
    for part in name.split("."):
        each = each.get(part) if isinstance(each, Mapping) else None
    return "" if each is None else str(each)


def _number(name: str, text: str) -> int:
    if not text.isdecimal() or len(text) > _DIGITS_MAX:
        raise BadQuery(f"{name} is {text!r}; give a number of at most {_DIGITS_MAX} digits")
    return int(text)
