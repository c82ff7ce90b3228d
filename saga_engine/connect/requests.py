"""Views over the requests of Connect: an asset request, its items, its parameters, its tiers.

A view holds the request's own dict and copies nothing: what it changes is changed there, where the saga journals it.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, ClassVar

from saga_engine.connect.parameters import ABSENT, ChangeableParameters, Parameters
from saga_engine.connect.request_errors import BadValue, MissingField, MissingItem, MissingTier, listed

__all__ = ["UNLIMITED", "AssetRequest", "ConnectRequest", "Item", "text_at"]

#: The quantity of an item that has no limit: above every number.
UNLIMITED = Decimal("Infinity")

_UNLIMITED_TEXTS = ("unlimited", "-1")
_NUMBER = re.compile(r"\d+(\.\d+)?")
_TIERS = ("customer", "tier1", "tier2")


class ConnectRequest(ABC):
    """What the views over all kinds of requests have in common.

    Args:
        request: the request as Connect delivers it; this very dict is changed.
        original: the request as Connect has it, if `request` has been changed since; by default as it is now.

    Raises:
        BadValue: one of them is no dict.
        MissingField: its parameters are no list of dicts with an id.

    Attributes:
        request: the dict itself.
        parameters: the parameters that a fulfillment may change.
    """

    #: What Connect calls such a request, for texts.
    noun: ClassVar[str]
    #: Where its parameters are: the field of the request that holds `params`; empty for the request itself.
    holder: ClassVar[str]

    def __init__(self, request: dict[str, Any], original: Mapping[str, Any] | None = None) -> None:
        for given in (request, {} if original is None else original):
            if not isinstance(given, Mapping):
                raise BadValue(f"{given!r:.200} is no request: give the dict that Connect delivered")
        self.request = request
        place = self._inside("params")
        before = None if original is None else _at(original, place, "the original", []) or []
        self.parameters = ChangeableParameters(self.field(place, []) or [], f"{place} of {self._who()}", before)

    @property
    def id(self) -> str:
        """The request's id: "PR-5852-1608-0000-001"."""
        return text_at(self.request, "id", self._who())

    @property
    def type(self) -> str:
        """What is requested: "purchase", "change", "setup", ..."""
        return text_at(self.request, "type", self._who())

    @property
    def status(self) -> str:
        """How the request stood when it was delivered: "pending", "inquiring", ..."""
        return text_at(self.request, "status", self._who())

    def field(self, path: str, default: Any = ABSENT) -> Any:
        """Give any field of the request by its path, such as `asset.connection.type`.

        Args:
            path: names joined by dots.
            default: what to give if there is no such field.

        Raises:
            MissingField: there is none, and no default was given.
        """
        return _at(self.request, path, self._who(), default)

    def parameter(self, parameter_id: str) -> dict[str, Any]:
        """Give a parameter, the very dict of the request; raises MissingParameter if there is none."""
        return self.parameters[parameter_id]

    def value(self, parameter_id: str, default: Any = ABSENT) -> Any:
        """Give a parameter's value, see `Parameters.value`; without a default, raises MissingParameter."""
        return self.parameters.value(parameter_id, default)

    def set_value(self, parameter_id: str, value: Any) -> None:
        """Write a parameter's value into the request, see `ChangeableParameters.set_value`."""
        self.parameters.set_value(parameter_id, value)

    def set_error(self, parameter_id: str, message: str) -> None:
        """Say what is wrong with a parameter's value, see `ChangeableParameters.set_error`."""
        self.parameters.set_error(parameter_id, message)

    def changed_parameters(self) -> list[dict[str, Any]]:
        """List the parameters that changed since the view was made, as Connect takes them."""
        return self.parameters.changed()

    @property
    def configuration(self) -> Parameters:
        """The parameters of `configuration`, which a fulfillment reads and does not change; none if it has none."""
        place = self._inside("configuration.params")
        return Parameters(self.field(place, []) or [], f"{place} of {self._who()}")

    @abstractmethod
    def resource(self, client: Any) -> Any:
        """Give the request's resource of the Connect API, with `get`, `update` and the actions."""

    def parameters_payload(self, changed: list[dict[str, Any]]) -> dict[str, Any]:
        """Give the body with which Connect takes changed parameters."""
        return {self.holder: {"params": changed}} if self.holder else {"params": changed}

    @abstractmethod
    def template_payload(self, template_id: str) -> dict[str, Any]:
        """Give the part of an action's body that names a template."""

    def _inside(self, path: str) -> str:
        return f"{self.holder}.{path}" if self.holder else path

    def _who(self) -> str:
        return str(self.request.get("id") or f"the {self.noun}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._who()})"


class Item:
    """One item of an asset: what is bought, and how much of it.

    Attributes:
        item: the very dict of the request.
        parameters: its parameters, which a fulfillment reads and does not change.
    """

    def __init__(self, item: dict[str, Any], request_id: str) -> None:
        self.item = item
        self._where = f"item {item.get('id') or item.get('mpn') or '?'} of {request_id}"
        self.parameters = Parameters(item.get("params") or [], f"params of {self._where}")

    @property
    def id(self) -> str:
        """Connect's id of the item: "PRD-276-377-545-0001"."""
        return text_at(self.item, "id", self._where)

    @property
    def mpn(self) -> str:
        """The vendor's own number of the item."""
        return text_at(self.item, "mpn", self._where)

    @property
    def quantity(self) -> int | Decimal:
        """How much is wanted: an int, a Decimal if it is no whole number, or `UNLIMITED`.

        Raises:
            MissingField: the item has none.
            BadValue: it is no quantity.
        """
        return _quantity(_at(self.item, "quantity", self._where), f"quantity of {self._where}")

    @property
    def old_quantity(self) -> int | Decimal:
        """How much there was before; 0 if the request does not tell."""
        return _quantity(self.item.get("old_quantity") or "0", f"old_quantity of {self._where}")

    @property
    def is_unlimited(self) -> bool:
        """Whether there is no limit to what is wanted."""
        return self.quantity == UNLIMITED

    def value(self, parameter_id: str, default: Any = ABSENT) -> Any:
        """Give the value of one of the item's parameters, see `Parameters.value`."""
        return self.parameters.value(parameter_id, default)

    def __repr__(self) -> str:
        return f"<{self._where}>"


class AssetRequest(ConnectRequest):
    """A view over an asset request (a fulfillment request): purchase, change, suspend, resume, cancel, adjustment.

        order = AssetRequest(request)
        seats = order.item("MAIL-STANDARD").quantity
        order.set_value("tenant_id", tenant["id"])

    `configuration` are the parameters of the asset's configuration. The arguments are those of `ConnectRequest`.
    """

    noun = "asset request"
    holder = "asset"

    @property
    def asset_id(self) -> str:
        """The id of the asset: "AS-5852-1608-0000"."""
        return text_at(self.request, "asset.id", self._who())

    @property
    def items(self) -> tuple[Item, ...]:
        """All items, in the order of the request."""
        items = self.field("asset.items") or []
        if not isinstance(items, list) or not all(isinstance(item, Mapping) for item in items):
            raise MissingField(
                f"asset.items of {self._who()} is no list of items: deliver the request as Connect gives it"
            )
        return tuple(Item(item, self._who()) for item in items)

    def item(self, key: str) -> Item:
        """Find an item by its id, its global id or its mpn, in this order.

        Raises:
            MissingItem: there is none.
        """
        items = self.items
        for name in ("id", "global_id", "mpn"):
            for item in items:
                if key and item.item.get(name) == key:  # what is not set has no item, not one without a name
                    return item
        known = [f"{item.item.get('id')} (mpn {item.item.get('mpn')})" for item in items]
        raise MissingItem(f"asset.items of {self._who()}: there is no item {key!r}; there are: {listed(known)}")

    @property
    def tiers(self) -> dict[str, dict[str, Any]]:
        """The accounts by tier, of "customer", "tier1" and "tier2" those that the request names."""
        accounts = {name: self.field(f"asset.tiers.{name}", None) for name in _TIERS}
        return {name: account for name, account in accounts.items() if account and isinstance(account, dict)}

    def tier(self, name: str) -> dict[str, Any]:
        """Give the account of a tier, the very dict of the request.

        Args:
            name: "customer", "tier1" or "tier2".

        Raises:
            MissingTier: the request names no account for it.
        """
        found = self.tiers
        if name not in found:
            raise MissingTier(f"asset.tiers of {self._who()}: there is no {name!r}; there are: {listed(found)}")
        return found[name]

    def resource(self, client: Any) -> Any:
        """Give `client.requests[id]`."""
        return client.requests[self.id]

    def template_payload(self, template_id: str) -> dict[str, Any]:
        """Give `{"template_id": ...}`."""
        return {"template_id": template_id}


def _at(document: Mapping[str, Any], path: str, who: str, default: Any = ABSENT) -> Any:
    """Give what is at a path of names."""
    found: Any = document
    seen: list[str] = []
    for name in path.split("."):
        if not isinstance(found, Mapping) or name not in found:
            if default is not ABSENT:
                return default
            there = listed(found) if isinstance(found, Mapping) else f"a {type(found).__name__}"
            raise MissingField(f"{who} has no {path}: {'.'.join(seen) or 'the request'} holds: {there}")
        found = found[name]
        seen.append(name)
    return found


def text_at(document: Mapping[str, Any], path: str, who: str) -> str:
    """Give the text at a path of names.

    Raises:
        MissingField: there is none, or it is empty or no text.
    """
    found = _at(document, path, who)
    if not isinstance(found, str) or not found.strip():
        raise MissingField(f"{who} has the {path} {found!r}: deliver the request as Connect gives it")
    return found


def _quantity(text: Any, where: str) -> int | Decimal:
    """Read a quantity; Connect writes all of them as texts."""
    written = str(text).strip()
    if written.lower() in _UNLIMITED_TEXTS:
        return UNLIMITED
    if isinstance(text, bool) or not _NUMBER.fullmatch(written):
        raise BadValue(f"the {where} is {text!r}: it should be a number such as '10', or 'unlimited'")
    number = Decimal(written)
    return int(number) if number == number.to_integral_value() else number
