"""Rounds: every case runs in turn, again and again, so that a slow spell of the machine meets them all."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import TypeVar

from msgspec import Struct

__all__ = ["Spread", "in_turn"]

Name = TypeVar("Name", bound=Hashable)


class Spread(Struct, frozen=True):
    """The figures of one case: their median, the least and the most."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Take the spread of at least one figure."""
        ordered = sorted(values)
        return cls(statistics.median(ordered), ordered[0], ordered[-1])

    def __str__(self) -> str:
        """Give `median (least..most)`."""
        return f"{_short(self.median)} ({_short(self.least)}..{_short(self.most)})"


def _short(value: float) -> str:
    """Give three digits and more where there are more."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def in_turn(cases: Mapping[Name, Callable[[], float]], repeat: int) -> dict[Name, list[float]]:
    """Run every case `repeat` times (A B C A B C), and give each one's figures."""
    figures: dict[Name, list[float]] = {name: [] for name in cases}
    for _ in range(repeat):
        for name, case in cases.items():
            figures[name].append(case())
    return figures
