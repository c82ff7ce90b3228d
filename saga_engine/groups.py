"""Parallel and Chain: entries of a saga's list that hold entries themselves."""

from __future__ import annotations

from typing import Any

__all__ = ["Chain", "Parallel"]


class _Group:
    """Entries that stand where one stands; falsy ones are dropped, and a group without any is falsy itself."""

    __slots__ = ("entries",)

    def __init__(self, *entries: Any) -> None:
        self.entries = tuple(entry for entry in entries if entry)

    def __bool__(self) -> bool:
        return bool(self.entries)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.entries))})"


class Parallel(_Group):
    """Branches that run together; what follows waits for all of them.

        [CreateCustomer, Parallel(ReserveStock, Chain(CreateTenant, AddUsers)), Approve]

    Each branch works on its own copy of `context.state` and of the request, as they are when the group begins. At the
    end what the branches changed is joined; two that set one top-level key of the state to different values fail the
    group. If a branch fails, what runs in the others comes to its end, and then all is undone. A lone branch is no
    branch: it works on the saga's own state.

    Args:
        entries: the branches, each whatever a saga may list: a transaction, a `Chain`, a `Parallel`, a saga.
    """

    __slots__ = ()


class Chain(_Group):
    """Entries that run one after the other, as one branch of a `Parallel`.

    Args:
        entries: whatever a saga may list.
    """

    __slots__ = ()
