"""OfflineCriteria: requests of assets that are offline are not carried out.

Some assets are known to Connect and not, or no longer, to the vendor: migrated ones, tests, those of a closed
marketplace. Their suspensions and cancellations must not reach the vendor.

    BadCriteria         criteria cannot be read
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, TypeAlias

from connect.eaas.core.responses import BackgroundResponse

from transactions import FnBackgroundExecution, SagaError

__all__ = ["BadCriteria", "ConfiguredOfflineCriteria", "OfflineCriteria"]

#: What a criterion looks at: name -> path in an asset request.
_PLACES: dict[str, tuple[str, ...]] = {
    "asset_ids": ("asset", "id"),
    "connection_ids": ("asset", "connection", "id"),
    "connection_types": ("asset", "connection", "type"),
    "contract_ids": ("asset", "contract", "id"),
    "customer_ids": ("asset", "tiers", "customer", "id"),
    "hub_ids": ("asset", "connection", "hub", "id"),
    "marketplace_ids": ("asset", "marketplace", "id"),
    "product_ids": ("asset", "product", "id"),
    "provider_ids": ("asset", "connection", "provider", "id"),
}
#: Connect names these two at the request as well.
_ALSO_AT = {"contract_ids": ("contract", "id"), "marketplace_ids": ("marketplace", "id")}
_PARAMETERS = "parameters"
_TYPES = ("suspend", "cancel")

#: Criteria that must all be met: `{"connection_types": ["test"], "parameters": {"offline": ["yes"]}}`.
Criteria: TypeAlias = Mapping[str, Any]


class BadCriteria(SagaError):
    """Criteria for offline assets cannot be read."""


class OfflineCriteria:
    """A middleware that answers for the steps of requests whose asset is offline, so that none of them is run.

        def middlewares(self, request):
            return [OfflineCriteria([{"asset_ids": ["AS-1", "AS-2"]}, {"connection_types": ["test"]}])]

    Args:
        criteria: sets of criteria, as a list of mappings or as JSON; an asset is offline if it meets all criteria of
            any one of them. A criterion is a list of values of which the asset has one: `asset_ids`, `connection_ids`,
            `connection_types`, `contract_ids`, `customer_ids`, `hub_ids`, `marketplace_ids`, `product_ids`,
            `provider_ids`; or `parameters`, a mapping of ids of asset parameters to such lists.
        types: the types of requests to look at.
        on_match: gives the answer for a request that is not to be carried out; by default a `skip` that says why, which
            ends the saga. It is asked instead of every step that would run, so one that answers `done()` must bear
            that.

    Raises:
        BadCriteria: the criteria, or the types, cannot be meant.

    Requests without an asset are carried out. Criteria that change while an execution is under way end it where it
    stands; what was done before is not undone.
    """

    def __init__(
        self,
        criteria: str | Criteria | Sequence[Criteria],
        *,
        types: Sequence[str] = _TYPES,
        on_match: Callable[[dict[str, Any]], BackgroundResponse] | None = None,
    ) -> None:
        if isinstance(types, str) or not types or not all(isinstance(one, str) and one for one in types):
            raise BadCriteria(f'types={types!r}: give a list of types of requests, such as ["suspend", "cancel"]')
        self._types = tuple(types)
        self._alternatives = _read(criteria)
        self._on_match = on_match

    def __call__(self, request: dict[str, Any], nxt: FnBackgroundExecution | None) -> Any:
        """Answer for an offline asset, or go on."""
        met = self.met_by(request)
        if met is not None:
            return _skipped(request, met) if self._on_match is None else self._on_match(request)
        return BackgroundResponse.done() if nxt is None else nxt(request)

    def met_by(self, request: Mapping[str, Any]) -> Criteria | None:
        """Give the criteria by which the request's asset is offline; None if it is not, or the type is another one."""
        if request.get("type") not in self._types or not isinstance(request.get("asset"), Mapping):
            return None
        for criteria in self._alternatives:
            if all(_is_met(name, wanted, request) for name, wanted in criteria.items()):
                return criteria
        return None


class ConfiguredOfflineCriteria(OfflineCriteria):
    """`OfflineCriteria` from a variable of the extension; list the class, the saga builds it.

        def middlewares(self, request):
            return [ConfiguredOfflineCriteria]

    Class attributes:
        variable: the variable that holds the criteria as JSON; without it, no asset is offline.
        types: the types of requests to look at.

    Raises:
        BadCriteria: the variable cannot be read.
    """

    variable: ClassVar[str] = "OFFLINE_CRITERIA"
    types: ClassVar[Sequence[str]] = _TYPES

    def __init__(self, config: Any) -> None:
        found = (config or {}).get(self.variable) or []
        try:
            super().__init__(found, types=self.types)
        except BadCriteria as e:
            raise BadCriteria(f"the variable {self.variable}: {e}") from e


def _read(criteria: Any) -> list[dict[str, Any]]:
    """Check criteria, and bring all that may be written into one form."""
    given = _decoded(criteria) if isinstance(criteria, str) else criteria
    alternatives = [given] if isinstance(given, Mapping) else given
    if not isinstance(alternatives, (list, tuple)):
        raise BadCriteria(f"{given!r:.200} is no list of criteria: {_EXAMPLE}")
    return [_checked(one) for one in alternatives]


def _decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as e:
        raise BadCriteria(f"{text!r:.200} is no JSON ({e}): {_EXAMPLE}") from e


def _checked(criteria: Any) -> dict[str, Any]:
    if not isinstance(criteria, Mapping) or not criteria:
        raise BadCriteria(f"{criteria!r:.200} names no criterion, and would be met by every asset: {_EXAMPLE}")
    unknown = sorted(str(name) for name in criteria if name not in (*_PLACES, _PARAMETERS))
    if unknown:
        raise BadCriteria(f"{', '.join(unknown)}: not known; use {', '.join((*_PLACES, _PARAMETERS))}")
    return {
        name: _checked_parameters(wanted) if name == _PARAMETERS else _checked_values(name, wanted)
        for name, wanted in criteria.items()
    }


def _checked_parameters(wanted: Any) -> dict[str, tuple[str, ...]]:
    if not isinstance(wanted, Mapping) or not wanted:
        raise BadCriteria(f'{_PARAMETERS} is {wanted!r:.200}: give lists by id, such as {{"offline": ["yes"]}}')
    return {str(name): _checked_values(f"{_PARAMETERS}.{name}", values) for name, values in wanted.items()}


def _checked_values(name: str, wanted: Any) -> tuple[str, ...]:
    values = (wanted,) if isinstance(wanted, str) else wanted
    is_list = isinstance(values, (list, tuple, set, frozenset))
    if not is_list or not values or not all(isinstance(value, str) and value for value in values):
        raise BadCriteria(f"{name} is {wanted!r:.200}: give a list of texts")
    return tuple(values)


def _is_met(name: str, wanted: Any, request: Mapping[str, Any]) -> bool:
    if name == _PARAMETERS:
        values = _values(request["asset"])
        return all(values.get(parameter) in accepted for parameter, accepted in wanted.items())
    places = [_PLACES[name], *([_ALSO_AT[name]] if name in _ALSO_AT else [])]
    return any(_at(request, place) in wanted for place in places)


def _values(asset: Mapping[str, Any]) -> dict[Any, Any]:
    return {param.get("id"): param.get("value") for param in asset.get("params") or ()}


def _at(request: Mapping[str, Any], place: tuple[str, ...]) -> Any:
    found: Any = request
    for name in place:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _skipped(request: Mapping[str, Any], met: Criteria) -> BackgroundResponse:
    who = f"asset {_at(request, ('asset', 'id'))} is offline by its {', '.join(met)}"
    return BackgroundResponse.skip(f"{who}: {request.get('id')} ({request['type']}) is not carried out")


_EXAMPLE = 'write [{"asset_ids": ["AS-1"]}, {"connection_types": ["test"], "product_ids": ["PRD-1"]}]'
