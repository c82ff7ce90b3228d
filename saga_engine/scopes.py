"""Scopes: branches and child sagas have a state and a request of their own, joined when their group is over. Pure.

A scope begins as a copy of its parent's documents. Nothing changes the parent's while the scope is open, save what
people and signals put there, which goes into the copies, too. So joining is laying the changes of each scope onto
the parent's: of the state by top-level key, of the request as deep as its objects and lists of one length go.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from saga_engine.shape import Group, Shape
from saga_engine.state import ScopeState, State

__all__ = ["carried", "documents_at", "edited", "joined", "opened", "patched", "set_key", "with_request"]

_MISSING = object()


def documents_at(state: State, scope: str) -> tuple[Raw, Raw]:
    """Give the request and the state that steps of this scope see: the scope's own while it is open."""
    open_scope = _open_around(state, scope)
    if not open_scope:
        return state.request, state.data
    found = state.scopes[open_scope]
    return found.request, found.data


def _open_around(state: State, scope: str) -> str:
    """Find the innermost open scope around (or equal to) this one; "" is the saga's own."""
    while scope and scope not in state.scopes:
        scope = state.shape.scopes[scope].parent
    return scope


def opened(state: State, scope: str, at: float) -> Mapping[str, ScopeState]:
    """Open a scope, and those around it that are not open yet."""
    scopes = dict(state.scopes)
    request, data = state.request, state.data
    for each in state.shape.path_to(scope):
        if each not in scopes:
            scopes[each] = ScopeState(data, request, data, request, at)
        request, data = scopes[each].request, scopes[each].data
    return scopes


def carried(state: State, scope: str, request: Raw | None, data: Raw | None) -> dict[str, Any]:
    """Give the change of the state that lets these documents take the place of a scope's."""
    change: dict[str, Any] = {}
    if request is not None:
        change["request"] = request
    if data is not None:
        change["data"] = data
    open_scope = _open_around(state, scope)
    if not change or not open_scope:
        return change
    return {"scopes": {**state.scopes, open_scope: replace(state.scopes[open_scope], **change)}}


def with_request(state: State, request: Raw) -> dict[str, Any]:
    """Give the change that makes a delivered request everyone's (S18)."""
    scopes = {name: replace(scope, request=request, base_request=request) for name, scope in state.scopes.items()}
    return {"request": request, "scopes": scopes}


def patched(data: Raw, changes: Raw, removed: Iterable[str] = ()) -> Raw:
    """Set and remove top-level keys of a JSON object."""
    value: dict[str, Any] = {**msgspec.json.decode(data), **msgspec.json.decode(changes)}
    return _encode({key: item for key, item in value.items() if key not in tuple(removed)})


def edited(state: State, changes: Raw, removed: tuple[str, ...]) -> dict[str, Any]:
    """Give the change that sets and removes these top-level keys everywhere."""
    scopes = {
        name: replace(
            scope,
            data=patched(scope.data, changes, removed),
            base_data=patched(scope.base_data, changes, removed),
        )
        for name, scope in state.scopes.items()
    }
    return {"data": patched(state.data, changes, removed), "scopes": scopes}


def set_key(state: State, scope: str, key: str, value: Raw) -> dict[str, Any]:
    """Give the change that sets one top-level key of a scope's state."""
    data = msgspec.json.decode(documents_at(state, scope)[1])
    data[key] = msgspec.json.decode(value)
    return carried(state, scope, None, _encode(data))


def joined(state: State) -> State:
    """Lay what every finished group changed onto its parent, inner groups first.

    A group whose scopes changed one thing differently stays open, and the state names the conflict.
    """
    for group in state.shape.groups:
        is_open = any(scope in state.scopes for scope in group.scopes)
        if is_open and all(state.steps[name].phase.is_over for name in group.members):
            state = _join(state, group)
            if state.conflict is not None:
                return state
    return state


def _join(state: State, group: Group) -> State:
    request, data = documents_at(state, group.parent)
    # A branch whose steps were all skipped never opened, and changed nothing.
    branches = {scope: state.scopes[scope] for scope in group.scopes if scope in state.scopes}
    try:
        data = _encode(_joined_data(msgspec.json.decode(data), branches, state.shape))
        request = _encode(_joined_request(msgspec.json.decode(request), branches, state.shape))
    except _Conflict as conflict:
        return replace(state, conflict=str(conflict))
    left = {scope: found for scope, found in state.scopes.items() if scope not in branches}
    state = replace(state, scopes=left, conflict=None)
    return replace(state, **carried(state, group.parent, request, data))


class _Conflict(Exception):
    """Two branches changed the same thing differently."""


def _conflict(shape: Shape, first: str, second: str, where: str) -> _Conflict:
    names = [shape.members[scope][0] for scope in (first, second)]
    return _Conflict(
        f"the branches of {names[0]!r} and {names[1]!r} set {where} to different values: "
        "let each branch of a parallel group write keys of its own"
    )


def _joined_data(parent: dict[str, Any], branches: Mapping[str, ScopeState], shape: Shape) -> dict[str, Any]:
    changed: dict[str, tuple[str, Any]] = {}
    for scope, found in branches.items():
        base, data = msgspec.json.decode(found.base_data), msgspec.json.decode(found.data)
        for key in [*data, *(key for key in base if key not in data)]:
            value = data.get(key, _MISSING)
            if _is_same(value, base.get(key, _MISSING)):
                continue
            by, other = changed.setdefault(key, (scope, value))
            if not _is_same(other, value):
                raise _conflict(shape, by, scope, f"context.state[{key!r}]")
    result = {**parent, **{key: value for key, (_, value) in changed.items()}}
    return {key: value for key, value in result.items() if value is not _MISSING}


def _joined_request(parent: Any, branches: Mapping[str, ScopeState], shape: Shape) -> Any:
    result, by = parent, ""
    for scope, found in branches.items():
        if found.request != found.base_request:
            base, mine = msgspec.json.decode(found.base_request), msgspec.json.decode(found.request)
            result = _merged(base, result, mine, lambda where, by=by, to=scope: _conflict(shape, by, to, where))
            by = scope
    return result


def _merged(base: Any, theirs: Any, mine: Any, conflict: Any, where: str = "request") -> Any:
    """Merge two versions of a JSON value that come from one base."""
    if _is_same(mine, base) or _is_same(mine, theirs):
        return theirs
    if _is_same(theirs, base):
        return mine
    versions = (base, theirs, mine)
    if all(isinstance(version, dict) for version in versions):
        return _merged_objects(base, theirs, mine, conflict, where)
    if all(isinstance(version, list) for version in versions) and len({len(version) for version in versions}) == 1:
        items = enumerate(zip(base, theirs, mine, strict=True))
        return [_merged(b, t, m, conflict, f"{where}[{i}]") for i, (b, t, m) in items]
    raise conflict(where)


def _merged_objects(base: Any, theirs: Any, mine: Any, conflict: Any, where: str) -> dict[str, Any]:
    parts = {}
    for key in dict.fromkeys([*theirs, *mine]):
        versions = (version.get(key, _MISSING) for version in (base, theirs, mine))
        parts[key] = _merged(next(versions), next(versions), next(versions), conflict, f"{where}[{key!r}]")
    return {key: value for key, value in parts.items() if value is not _MISSING}


def _is_same(one: Any, other: Any) -> bool:
    """Compare two JSON values as JSON: 1, 1.0 and true are three things."""
    if one is _MISSING or other is _MISSING:
        return one is other
    return one == other and json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _encode(value: Any) -> Raw:
    return Raw(msgspec.json.encode(value))
