"""The shape of a plan: what the decider looks up again and again, worked out once."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from msgspec import Struct

from saga_engine.journal import Plan, PlanScope, PlanStep
from transactions import Kind

__all__ = ["Group", "Shape", "shape_of"]

#: How many shapes are kept: there are about as many as sagas times the lists that these give.
_SHAPES_MAX = 1024


class Group(Struct, frozen=True):
    """The scopes of one group: they begin from one state, and what they changed is joined when all are over.

    `members`: the steps in them, those of scopes inside included.
    """

    parent: str
    scopes: tuple[str, ...]
    members: tuple[str, ...]


class Shape(Struct, frozen=True):
    """What follows from a plan alone.

    Attributes:
        steps: by name, in order.
        pivot: the point of no return; None: there is none.
        after_pivot: the steps behind it.
        scopes: by id.
        groups: inner ones before those around them.
        members: the steps of each scope, those of scopes inside included.
        timed: the children that have a deadline of their own.
        is_chain: every step needs the one before, so that nothing can go on beside a step in flight.
    """

    steps: Mapping[str, PlanStep]
    pivot: str | None
    after_pivot: frozenset[str]
    scopes: Mapping[str, PlanScope]
    groups: tuple[Group, ...]
    members: Mapping[str, tuple[str, ...]]
    timed: tuple[PlanScope, ...]
    is_chain: bool

    def keeps_trying(self, step: str) -> bool:
        """Tell whether the step must succeed in the end: its `fail` and its time-outs are failed attempts (S20)."""
        return self.steps[step].kind is Kind.RETRIABLE or step in self.after_pivot

    def path_to(self, scope: str) -> tuple[str, ...]:
        """List the scopes around a scope and itself, outermost first; () for the saga's own."""
        path: tuple[str, ...] = ()
        while scope:
            path = (scope, *path)
            scope = self.scopes[scope].parent
        return path


def shape_of(plan: Plan) -> Shape:
    """Give the shape of a plan; executions with the same steps have the same one."""
    return _shape_of(plan.steps, plan.scopes)


@lru_cache(maxsize=_SHAPES_MAX)
def _shape_of(steps: tuple[PlanStep, ...], plan_scopes: tuple[PlanScope, ...]) -> Shape:
    names = [step.name for step in steps]
    pivot = next((step.name for step in steps if step.kind is Kind.PIVOT), None)
    scopes = {scope.id: scope for scope in plan_scopes}
    members = _members(steps, scopes)
    return Shape(
        steps={step.name: step for step in steps},
        pivot=pivot,
        after_pivot=frozenset(names[names.index(pivot) + 1 :]) if pivot is not None else frozenset(),
        scopes=scopes,
        groups=_groups(scopes, members),
        members=members,
        timed=tuple(scope for scope in plan_scopes if scope.deadline_s is not None),
        is_chain=all(step.needs == before for step, before in zip(steps, _one_by_one(names), strict=False)),
    )


def _one_by_one(names: list[str]) -> list[tuple[str, ...]]:
    """List what each of these needs, and one more, if they come one after the other."""
    return [(), *((name,) for name in names)]


def _members(steps: tuple[PlanStep, ...], scopes: Mapping[str, PlanScope]) -> Mapping[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {scope: [] for scope in scopes}
    for step in steps:
        scope = step.scope
        while scope:
            found[scope].append(step.name)
            scope = scopes[scope].parent
    return {scope: tuple(names) for scope, names in found.items()}


def _groups(scopes: Mapping[str, PlanScope], members: Mapping[str, tuple[str, ...]]) -> tuple[Group, ...]:
    by_number: dict[int, list[PlanScope]] = {}
    for scope in scopes.values():
        by_number.setdefault(scope.group, []).append(scope)
    # A group inside another one has the higher number: groups are numbered in order of appearance.
    return tuple(
        Group(
            parent=group[0].parent,
            scopes=tuple(scope.id for scope in group),
            members=tuple(name for scope in group for name in members[scope.id]),
        )
        for _, group in sorted(by_number.items(), reverse=True)
    )
