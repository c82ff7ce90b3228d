"""The steps of a plan as a tree of lines: one line a step, with its branch or child saga drawn before it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from saga_engine.shape import Shape

__all__ = ["Line", "lines_of"]


@dataclass(frozen=True)
class Line:
    """One line.

    Attributes:
        name: the step's name in the plan or, of the heading of a child saga, the child's path.
        lead: what is drawn before its name to show where it belongs.
        label: its own name.
        members: of such a heading, the names of all steps below it; empty for a step.
    """

    name: str
    lead: str
    label: str
    members: tuple[str, ...] = ()


def lines_of(shape: Shape, child: str = "") -> tuple[Line, ...]:
    """Draw the steps of a saga, or of a child saga in it, in the order of the plan."""
    return tuple(_lines(shape, child, child))


def _lines(shape: Shape, scope: str, child: str) -> Iterator[Line]:
    """Draw what is in a scope; `child` is the child saga that the scope belongs to."""
    drawn: set[int] = set()
    for name, step in shape.steps.items():
        path = shape.path_to(step.scope)
        if scope and scope not in path:
            continue
        inner = path[path.index(scope) + 1 :] if scope else path
        if not inner:
            yield Line(name, "", _own_name(name, child))
            continue
        found = shape.scopes[inner[0]]
        if found.group in drawn:
            continue
        drawn.add(found.group)
        yield from _child(shape, found.id, child) if found.child else _group(shape, scope, found.group, child)


def _child(shape: Shape, path: str, parent: str) -> Iterator[Line]:
    yield Line(path, "", _own_name(path, parent), shape.members[path])
    for line in _lines(shape, path, path):
        yield replace(line, lead=f"  {line.lead}")


def _group(shape: Shape, parent: str, number: int, child: str) -> Iterator[Line]:
    branches = [scope.id for scope in shape.scopes.values() if (scope.parent, scope.group) == (parent, number)]
    for branch in branches:
        is_last = branch == branches[-1]
        mark, rest = ("└ ", "  ") if is_last else ("├ ", "│ ")
        for line in _lines(shape, branch, child):
            yield replace(line, lead=f"{mark}{line.lead}")
            mark = rest


def _own_name(name: str, child: str) -> str:
    return name[len(child) + 1 :] if child else name
