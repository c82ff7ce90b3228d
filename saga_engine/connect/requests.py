"""The requests that Connect delivers, as something to ask: an asset's, and a tier configuration's.

A view holds nothing: it reads and changes the request's own dicts, so what a step sets is journaled with its outcome.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from saga_engine.connect.parameters import Parameters
from saga_engine.errors import BadRequest, MissingItem, MissingTier

__all__ = ["AssetRequest", "Item", "Tier", "TierConfigRequest"]

Tier = Literal["customer", "tier1", "tier2"]

_UNLIMITED = "unlimited"


class Item:
    """One item of an asset: a product's unit, with how many of it."""

    def __init__(self, raw: dict[str, Any]) -> None:
        self.raw = raw

    @property
    def id(self) -> str:
        """The item's id."""
        return _text(self.raw, "id", "item")

    @property
    def mpn(self) -> str:
        """The vendor's part number."""
        return _text(self.raw, "mpn", f"item {self.raw.get('id')}")

    @property
    def quantity(self) -> float:
        """How many are ordered: an int where it is one, infinity for "unlimited".

        Raises:
            BadRequest: it is no number.
        """
        return self._number("quantity")

    @property
    def old_quantity(self) -> float:
        """How many there were before this request; 0 if the request does not say.

        Raises:
            BadRequest: it is no number.
        """
        return self._number("old_quantity") if self.raw.get("old_quantity") not in (None, "") else 0

    @property
    def difference(self) -> float:
        """By how many the quantity changes; what was unlimited and stays so does not change."""
        return 0 if self.quantity == self.old_quantity else self.quantity - self.old_quantity

    @property
    def parameters(self) -> Parameters:
        """The item's own parameters."""
        return Parameters(f"item {self.raw.get('id')}", self.raw.get("params", []))

    def _number(self, name: str) -> float:
        given = self.raw.get(name)
        if given == _UNLIMITED:
            return float("inf")
        try:
            number = float(given)  # type: ignore[arg-type]  # what is no number is told below
        except (TypeError, ValueError):
            raise BadRequest(f"item {self.raw.get('id')}: its {name} is {given!r}: it must be a number") from None
        return int(number) if number.is_integer() else number


class _Delivered:
    """What both kinds of request have.

    Args:
        raw: the request, as delivered.

    Raises:
        BadRequest: it is no such request.
    """

    def __init__(self, raw: dict[str, Any]) -> None:
        if not isinstance(raw, dict) or not isinstance(raw.get("id"), str):
            raise BadRequest(f"{raw!r:.200} is no request: deliver an object with an id")
        self.raw = raw

    @property
    def id(self) -> str:
        """The request's id."""
        return _text(self.raw, "id", "request")

    @property
    def type(self) -> str:
        """What kind of request it is: "purchase", "change", "setup", ..."""
        return _text(self.raw, "type", self.id)

    @property
    def status(self) -> str:
        """How it stood when it was delivered: "pending", "inquiring", "approved", ..."""
        return _text(self.raw, "status", self.id)


class AssetRequest(_Delivered):
    """A request about an asset (a subscription): purchase, change, suspend, resume, cancel, adjustment.

    Attributes:
        parameters: the asset's parameters, by id.
        configuration: the parameters of the asset's configuration, by id.
    """

    def __init__(self, raw: dict[str, Any]) -> None:
        super().__init__(raw)
        asset = self.asset
        self.parameters = Parameters(f"asset {asset.get('id')}", asset.get("params", []))
        known = (asset.get("configuration") or {}).get("params", [])
        self.configuration = Parameters(f"the configuration of asset {asset.get('id')}", known)

    @property
    def asset(self) -> dict[str, Any]:
        """The asset, as delivered.

        Raises:
            BadRequest: the request has none.
        """
        return _object(self.raw, "asset", self.id)

    @property
    def asset_id(self) -> str:
        """The asset's id, the same in every request about it."""
        return _text(self.asset, "id", f"{self.id}: the asset")

    @property
    def items(self) -> tuple[Item, ...]:
        """All items of the asset, also those whose quantity is 0."""
        return tuple(Item(raw) for raw in self.asset.get("items") or ())

    def item(self, name: str) -> Item:
        """Find an item by its id or its mpn.

        Raises:
            MissingItem: there is none.
        """
        for item in self.items:
            if name in (item.raw.get("id"), item.raw.get("mpn")):
                return item
        there = ", ".join(str(item.raw.get("mpn")) for item in self.items) or "none"
        raise MissingItem(
            f"asset {self.asset.get('id')} has no item {name!r}: use an id or mpn of it (there are: {there})"
        )

    def tier(self, name: Tier) -> dict[str, Any]:
        """Give an account that the asset is sold to or through, as delivered.

        Raises:
            MissingTier: the asset has no such tier.
        """
        tiers: Mapping[str, Any] = self.asset.get("tiers") or {}
        found = tiers.get(name)
        if not isinstance(found, dict) or not found.get("id"):
            there = ", ".join(sorted(tiers)) or "none"
            raise MissingTier(f"asset {self.asset.get('id')} has no tier {name!r} (there are: {there})")
        return found


class TierConfigRequest(_Delivered):
    """A request about a tier configuration: what a reseller or a distributor sets up once for a product.

    Attributes:
        parameters: the request's parameters, by id.
        configuration: the parameters of the configuration itself, by id.
    """

    def __init__(self, raw: dict[str, Any]) -> None:
        super().__init__(raw)
        self.parameters = Parameters(f"tier config request {self.id}", raw.get("params", []))
        known = self.tier_config.get("params", [])
        self.configuration = Parameters(f"tier config {self.tier_config.get('id')}", known)

    @property
    def tier_config(self) -> dict[str, Any]:
        """The configuration, as delivered.

        Raises:
            BadRequest: the request has none.
        """
        return _object(self.raw, "configuration", self.id)

    @property
    def account(self) -> dict[str, Any]:
        """The account that is configured, as delivered.

        Raises:
            BadRequest: the configuration has none.
        """
        return _object(self.tier_config, "account", f"{self.id}: the configuration")

    @property
    def tier_level(self) -> int:
        """Which tier the account is: 1 is next to the customer.

        Raises:
            BadRequest: the configuration does not say.
        """
        level = self.tier_config.get("tier_level")
        if not isinstance(level, int) or isinstance(level, bool):
            raise BadRequest(f"{self.id}: the configuration's tier_level is {level!r}: deliver the whole request")
        return level


def _object(raw: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    found = raw.get(name)
    if not isinstance(found, dict):
        raise BadRequest(f"{where} has no object {name!r}: deliver the whole request")
    return found


def _text(raw: Mapping[str, Any], name: str, where: str) -> str:
    found = raw.get(name)
    if not isinstance(found, str):
        raise BadRequest(f"{where}: {name} is {found!r}: deliver the whole request")
    return found
