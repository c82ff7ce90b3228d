"""What a program is asked to measure, and how it tells what it found. Standard library only."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
from dataclasses import dataclass

__all__ = ["FAILING", "Order", "check_undone", "read_order", "tell"]

STEPS = 5

#: The number of the saga whose fifth step fails: it shows that the compensations are really wired.
FAILING = -1


@dataclass(frozen=True)
class Order:
    """What to measure: the files of a run go into the current directory."""

    case: str
    at_once: int
    seconds: float


def read_order() -> Order:
    """Read the order from the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--case", default="")
    parser.add_argument("--at-once", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    given = parser.parse_args()
    return Order(given.case, given.at_once, given.seconds)


def check_undone(undone: list[int]) -> None:
    """Check what a saga undid whose fifth step failed; some peers undo the failed step too.

    Args:
        undone: the numbers of the steps, from 1, in the order in which they were undone.

    Raises:
        RuntimeError: it was not everything that had been done, latest first.
    """
    earlier = list(range(STEPS - 1, 0, -1))
    if undone not in (earlier, [STEPS, *earlier]):
        raise RuntimeError(f"a saga whose fifth step failed undid the steps {undone}: the comparison is not fair")


def tell(sagas_a_second: float, distribution: str | None = None) -> None:
    """Print the figure, as the last line of the output, with the versions that it is of."""
    version = "" if distribution is None else importlib.metadata.version(distribution)
    found = {"sagas_a_second": sagas_a_second, "version": version, "python": platform.python_version()}
    print(json.dumps(found), flush=True)
