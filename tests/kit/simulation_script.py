"""What one seed means: random sagas as plain trees, and dice that roll the same on every Python.

The trees are the simulation's own: the oracle reads from them which step needs which, so that it shares nothing with
the engine's plans.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from transactions import Kind

__all__ = ["Branches", "Child", "Dice", "Leaf", "Script", "Tree", "draw_script"]

T = TypeVar("T")

#: Leaves of one saga: enough for a group in a child in a group, few enough for thousands of seeds a minute.
LEAVES_MAX = 9
LEVELS_MAX = 3


class Dice:
    """Random choices that rest on `random()` alone, the only method whose results Python promises never to change."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed).random

    def chance(self, probability: float) -> bool:
        """Be true with this probability."""
        return self._random() < probability

    def below(self, count: int) -> int:
        """Give an int of at least 0 and below `count`."""
        return int(self._random() * count)

    def pick(self, options: Sequence[T]) -> T:
        """Give one of these, each as likely as its place in the list is frequent."""
        return options[int(self._random() * len(options))]


@dataclass(slots=True, eq=False)
class Leaf:
    """One step. `path` is its name in the plan, `name` its own; times in seconds.

    Attributes:
        signal: it is a `WaitFor`.
        attempts: how often its RetryPolicy attempts; None: it has no RetryPolicy.
        retry_s: the wait between attempts.
        timeout_s: it may hang, and is given up `abandon_s` after that.
    """

    path: str
    name: str
    kind: Kind = Kind.COMPENSATABLE
    has_undo: bool = True
    is_probed: bool = False
    is_asked: bool = False
    is_idempotent: bool = False
    on_unknown: str = "rerun"
    attempts: int | None = None
    retry_s: float = 0.0
    timeout_s: float | None = None
    signal: str | None = None
    signal_timeout_s: float | None = None


@dataclass(slots=True, eq=False)
class Branches:
    """A `Parallel`: its branches are chains."""

    branches: list[list[Tree]]


@dataclass(slots=True, eq=False)
class Child:
    """A child saga."""

    name: str
    path: str
    chain: list[Tree]
    deadline_s: float | None = None


Tree = Leaf | Branches | Child


@dataclass(slots=True, eq=False)
class Script:
    """One saga: its chain, and its class attributes."""

    name: str
    chain: list[Tree]
    deadline_s: float | None
    compensation_deadline_s: float
    park_policy: str
    recoveries_max: int
    reschedules_max: int
    attempts_max: int
    undo_attempts: int
    exclusive: tuple[str, str] | None
    is_calm: bool = False
    leaves: dict[str, Leaf] = field(default_factory=dict)


def draw_script(dice: Dice, name: str, exclusive: tuple[str, str] | None, is_calm: bool) -> Script:
    """Draw one saga; a calm one is a chain of steps without anything that waits."""
    chain = _Drawing(dice, is_calm).chain(1 + dice.below(4), "", 0, False)
    script = Script(
        name=name,
        chain=chain,
        deadline_s=dice.pick((None, None, None, None, 300.0, 2_000.0)) if not is_calm else None,
        compensation_deadline_s=dice.pick((604_800.0, 604_800.0, 604_800.0, 500.0)),
        park_policy=dice.pick(("stop", "stop", "continue")),
        recoveries_max=dice.pick((5, 2, 1)),
        reschedules_max=dice.pick((1_000, 1_000, 1_000, 1)),
        attempts_max=dice.pick((1_000, 1_000, 1_000, 2)),
        undo_attempts=dice.pick((5, 2, 1)),
        exclusive=exclusive,
        is_calm=is_calm,
    )
    script.leaves = {leaf.path: leaf for leaf in leaves_of(script.chain)}
    return script


def leaves_of(chain: list[Tree]) -> Iterator[Leaf]:
    """List the steps of a chain in order, those inside groups and children included."""
    for tree in chain:
        if isinstance(tree, Leaf):
            yield tree
        elif isinstance(tree, Child):
            yield from leaves_of(tree.chain)
        else:
            for branch in tree.branches:
                yield from leaves_of(branch)


class _Drawing:
    """A tree under way, in the order of the plan: what is drawn behind the pivot must be allowed there."""

    def __init__(self, dice: Dice, is_calm: bool) -> None:
        self._dice = dice
        self._is_calm = is_calm
        self._leaves = self._children = 0
        self._is_behind_pivot = False

    def chain(self, count: int, path: str, level: int, is_parallel: bool) -> list[Tree]:
        """Draw so many entries, or as many as there is room for."""
        found: list[Tree] = []
        for _ in range(count):
            if self._leaves < LEAVES_MAX or not found:
                found.append(self._tree(path, level, is_parallel))
        return found

    def _tree(self, path: str, level: int, is_parallel: bool) -> Tree:
        dice = self._dice
        has_room = self._leaves < LEAVES_MAX - 1 and level < LEVELS_MAX and not self._is_calm
        if has_room and dice.chance(0.28):
            count = 2 + (level == 0 and dice.chance(0.3))
            return Branches([self.chain(dice.pick((1, 1, 2)), path, level + 1, True) for _ in range(count)])
        if has_room and dice.chance(0.18):
            return self._child(path, level, is_parallel)
        return self._leaf(path, is_parallel)

    def _child(self, path: str, level: int, is_parallel: bool) -> Child:
        self._children += 1
        name = f"Kid{self._children}"
        inner = f"{path}/{name}" if path else name
        deadline_s = self._dice.pick((None, None, None, 400.0))
        return Child(name, inner, self.chain(1 + self._dice.below(3), inner, level + 1, is_parallel), deadline_s)

    def _leaf(self, path: str, is_parallel: bool) -> Leaf:
        dice = self._dice
        name = "abcdefghijklmnopqrstuvwxyz"[self._leaves]
        self._leaves += 1
        leaf = Leaf(f"{path}/{name}" if path else name, name)
        if not self._is_calm and dice.chance(0.1):
            leaf.kind, leaf.has_undo = Kind.READ_ONLY, False
            leaf.signal = dice.pick((f"go {name}", f"go {name}", "go"))
            leaf.signal_timeout_s = dice.pick((None, None, 120.0))
            return leaf
        self._draw_kind(leaf, is_parallel)
        self._draw_faults(leaf)
        return leaf

    def _draw_kind(self, leaf: Leaf, is_parallel: bool) -> None:
        dice = self._dice
        if self._is_behind_pivot:
            leaf.kind = dice.pick((Kind.RETRIABLE, Kind.RETRIABLE, Kind.READ_ONLY))
        elif not is_parallel and dice.chance(0.2):
            leaf.kind, self._is_behind_pivot = Kind.PIVOT, True
        else:
            kinds = (Kind.COMPENSATABLE,) * 6 + (Kind.RETRIABLE, Kind.READ_ONLY)
            leaf.kind = dice.pick(kinds)

    def _draw_faults(self, leaf: Leaf) -> None:
        dice = self._dice
        leaf.has_undo = leaf.kind is not Kind.READ_ONLY and dice.chance(0.92)
        leaf.is_probed = dice.chance(0.35)
        leaf.is_asked = dice.chance(0.2)
        leaf.is_idempotent = dice.chance(0.5)
        leaf.on_unknown = dice.pick(("rerun", "rerun", "rerun", "compensate", "park"))
        if leaf.kind is Kind.PIVOT and leaf.on_unknown == "compensate":
            leaf.on_unknown = "park"
        leaf.attempts = dice.pick((None, 2, 3, 4))
        leaf.retry_s = dice.pick((0.0, 5.0, 5.0, 400.0))
        leaf.timeout_s = dice.pick((None, 20.0))
