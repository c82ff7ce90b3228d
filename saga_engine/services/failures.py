"""What the container raises, with the chain of requests that led there as a drawing.

SagaError
├── DependencyBuildingFailure   a service cannot be built from what the container holds
│   └── AsyncServiceWanted      it can, but only with `await container.aget(...)`
├── InvalidClassType            a key is neither a name nor a type, or what is given is no class, provider or scope
└── BindingConflict             one key was bound twice in one scope
"""

from __future__ import annotations

import types
from collections.abc import Sequence
from typing import Any, NamedTuple

from transactions.errors import SagaError

__all__ = [
    "AsyncServiceWanted",
    "BindingConflict",
    "DependencyBuildingFailure",
    "InvalidClassType",
    "Link",
    "drawing_of",
    "name_of",
    "show_key",
]


class DependencyBuildingFailure(SagaError):
    """A service cannot be built from what the container holds; the message draws the chain of requests."""


class AsyncServiceWanted(DependencyBuildingFailure):
    """A service comes from an async provider, and was asked for where nothing can be awaited."""


class InvalidClassType(SagaError):
    """A key of the container is neither a name nor a type, or a class was wanted and something else given."""


class BindingConflict(SagaError):
    """One key was bound twice in one scope; the message names both places."""


class Link(NamedTuple):
    """One request in a chain: `asked` is what was asked for, `target` the class or function that `scope` calls."""

    scope: Any
    target: Any
    asked: str


def drawing_of(links: Sequence[Link], end: str) -> str:
    """Draw a chain of requests, outermost first, one below the other, and what is at its end."""
    lines = [name_of(links[0].target)] if links else []
    lines += [f"{link.asked}: {name_of(link.target)}" for link in links[1:]]
    lines.append(end)
    return "".join(f"\n  {_branch(depth)}{line}" for depth, line in enumerate(lines))


def _branch(depth: int) -> str:
    return "" if depth == 0 else f"{'   ' * (depth - 1)}└─ "


def name_of(target: Any) -> str:
    """Name a class or function as its author calls it."""
    if isinstance(target, types.MethodType):
        return f"{type(target.__self__).__name__}.{target.__name__}"
    return str(getattr(target, "__name__", None) or repr(target))


def show_key(key: Any) -> str:
    """Give a key of the container as one writes it."""
    return key.__name__ if isinstance(key, type) else repr(key)
