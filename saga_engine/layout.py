"""From a saga's list, with its groups and child sagas, to places in a graph: after it nobody knows a group."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from saga_engine.errors import BadDefinition, InvalidTransaction, TransactionNotSelected
from saga_engine.groups import Chain, Parallel
from saga_engine.journal import PlanScope
from saga_engine.saga import Saga, Services, check_definition

__all__ = ["Layout", "Level", "Place", "lay_out"]

#: Sagas in sagas in sagas: nobody means more, and a definition that makes a new class each time would never end.
_LEVELS_MAX = 16


@dataclass(slots=True, eq=False)
class Level:
    """One saga of a plan: the saga itself, or a child at its path (`Child/Grandchild`)."""

    saga: Saga
    kind: type[Saga]
    path: str = ""
    parent: Level | None = None

    def around(self) -> tuple[Level, ...]:
        """List the levels from the outermost one to this one."""
        return (self,) if self.parent is None else (*self.parent.around(), self)


@dataclass(slots=True)
class Place:
    """Where a step stands: its entry, not yet built, and the places that must be over before it starts."""

    entry: Any
    level: Level
    scope: str
    needs: tuple[int, ...]


@dataclass(slots=True)
class Layout:
    """The places of a plan in order, and its scopes."""

    places: list[Place] = field(default_factory=list)
    scopes: list[PlanScope] = field(default_factory=list)


def lay_out(saga: Saga, first: Sequence[Any], request: dict[str, Any], services: Services) -> Layout:
    """Ask a saga, and each child in it, for its list, and lay all entries out.

    Args:
        saga: the saga.
        first: entries before the saga's own.
        request: the request of the start, on which alone the lists depend (S1).
        services: what child sagas are made with.

    Raises:
        TransactionNotSelected: a saga lists no transactions.
        BadDefinition: a saga cannot be a child, or contains itself; or mode "select" lists a group or a saga.
    """
    draft = _Draft(request, services)
    level = Level(saga, type(saga))
    entries = [*first, *_listed(level, request)]
    if saga.mode == "select":
        draft.alternatives(entries, level)
    else:
        draft.chain(entries, level, "", ())
    return draft.layout


def _listed(level: Level, request: dict[str, Any]) -> list[Any]:
    entries = [entry for entry in level.saga.transactions(request) if entry]
    if not entries:
        where = f" (as {level.path})" if level.path else ""
        raise TransactionNotSelected(
            f"{level.kind.__name__}.transactions(request){where} listed nothing for this request: list at least one"
        )
    return entries


class _Draft:
    """A layout under way."""

    def __init__(self, request: dict[str, Any], services: Services) -> None:
        self.layout = Layout()
        self._request = request
        self._services = services
        self._groups = 0

    def chain(self, entries: Iterable[Any], level: Level, scope: str, needs: tuple[int, ...]) -> tuple[int, ...]:
        """Lay entries out one after the other; gives the places that whatever follows needs."""
        for entry in entries:
            needs = self._entry(entry, level, scope, needs)
        return needs

    def alternatives(self, entries: Iterable[Any], level: Level) -> None:
        """Lay out the entries of mode "select", none of which needs another."""
        for entry in entries:
            if isinstance(entry, (Parallel, Chain)) or _is_saga(entry):
                raise BadDefinition(
                    f"{level.kind.__name__} is of mode 'select', which runs one transaction, and lists {entry!r}: "
                    "make its mode 'chain', or list transactions only"
                )
            self.layout.places.append(Place(entry, level, "", ()))

    def _entry(self, entry: Any, level: Level, scope: str, needs: tuple[int, ...]) -> tuple[int, ...]:
        if isinstance(entry, type):
            if _is_saga(entry):
                return self._child(entry, level, scope, needs)
        elif isinstance(entry, Chain):
            return self.chain(entry.entries, level, scope, needs)
        elif isinstance(entry, Parallel):
            return self._parallel(entry, level, scope, needs)
        elif isinstance(entry, Saga):
            name = type(entry).__name__
            raise InvalidTransaction(f"{level.kind.__name__} lists an instance of {name}: list the class {name} itself")
        self.layout.places.append(Place(entry, level, scope, needs))
        return (len(self.layout.places) - 1,)

    def _parallel(self, group: Parallel, level: Level, scope: str, needs: tuple[int, ...]) -> tuple[int, ...]:
        if len(group.entries) == 1:
            return self._entry(group.entries[0], level, scope, needs)
        number = self._next_group()
        exits: list[int] = []
        for index, entry in enumerate(group.entries):
            branch = f"{scope}/#{number}.{index}" if scope else f"#{number}.{index}"
            self.layout.scopes.append(PlanScope(id=branch, parent=scope, group=number))
            exits.extend(self._entry(entry, level, branch, needs))
        return tuple(exits)

    def _child(self, kind: type[Saga], parent: Level, scope: str, needs: tuple[int, ...]) -> tuple[int, ...]:
        _check_child(kind, parent)
        path = f"{parent.path}/{kind.__name__}" if parent.path else kind.__name__
        if any(found.id == path for found in self.layout.scopes):
            raise InvalidTransaction(
                f"{parent.kind.__name__} has two steps named {kind.__name__!r}: derive a saga of another name for one"
            )
        self.layout.scopes.append(
            PlanScope(
                id=path,
                parent=scope,
                group=self._next_group(),
                child=path,
                saga=kind.__name__,
                saga_path=f"{kind.__module__}:{kind.__qualname__}",
                deadline_s=None if kind.deadline_s is None else float(kind.deadline_s),
            )
        )
        level = Level(parent.saga._make_child(kind, self._services), kind, path, parent)
        return self.chain(_listed(level, self._request), level, path, needs)

    def _next_group(self) -> int:
        # Taken before what is inside is laid out: an inner group has the higher number.
        self._groups += 1
        return self._groups


def _is_saga(entry: Any) -> bool:
    # An abstract class takes its time to say whether something is a subclass of it.
    return isinstance(entry, type) and Saga in entry.__mro__


def _check_child(kind: type[Saga], parent: Level) -> None:
    """Refuse a saga that cannot be a step of another one."""
    if inspect.isabstract(kind):
        raise InvalidTransaction(f"{kind.__name__} is abstract: list a subclass of it that has transactions(request)")
    check_definition(kind)
    where = f"{kind.__name__}, a step of {parent.kind.__name__},"
    if kind.mode == "select":
        raise BadDefinition(f"{where} is of mode 'select', which a delivery drives: make its mode 'chain'")
    if kind.exclusive is not None:
        raise BadDefinition(
            f"{where} has an exclusive right, which only an execution has: give it to the outermost saga"
        )
    if kind.undoes is not None:
        raise BadDefinition(f"{where} undoes a saga, which only an execution of its own does: start it by itself")
    around = [level.kind for level in parent.around()]
    if kind in around:
        path = " -> ".join(level.__name__ for level in [*around[around.index(kind) :], kind])
        raise BadDefinition(f"{kind.__name__} contains itself ({path}): take it out of its own list")
    if len(around) == _LEVELS_MAX:
        raise BadDefinition(f"{where} is the {_LEVELS_MAX + 1}th saga in a saga: nest at most {_LEVELS_MAX}")
