"""The named queries of `queries.sql`, ready to execute."""

from __future__ import annotations

import re
from importlib import resources
from operator import itemgetter
from typing import Any

__all__ = ["Prepared", "queries"]


def _load() -> dict[str, str]:
    """Read the queries, without their comments: SQLite would parse those again and again."""
    text = (resources.files("saga_engine.journals") / "queries.sql").read_text(encoding="utf-8")
    parts = re.split(r"^-- (\w+) --$", text, flags=re.MULTILINE)[1:]
    bodies = (re.sub(r"^--.*$", "", body, flags=re.MULTILINE).strip() for body in parts[1::2])
    return dict(zip(parts[::2], bodies, strict=True))


queries = _load()


class Prepared:
    """A query of every step, whose parameters are given by place: Python binds names at a third of its whole cost.

    Args:
        name: of the query.
        parameters: the names in the query, in the order in which the values will come.
    """

    __slots__ = ("_pick", "sql")

    def __init__(self, name: str, parameters: str) -> None:
        places = {parameter: place for place, parameter in enumerate(parameters.split())}
        self._pick = itemgetter(*(places[found] for found in re.findall(r":(\w+)", queries[name])))
        # Without numbers, which some releases of Python take for names and warn of: a value is given as often as it
        # occurs.
        self.sql = re.sub(r":\w+", "?", queries[name])

    def __call__(self, *values: Any) -> tuple[str, tuple[Any, ...]]:
        """Give what `execute` takes."""
        return self.sql, self._pick(values)
