"""A view over a tier configuration request; and which view fits a request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saga_engine.connect.request_errors import BadValue, listed
from saga_engine.connect.requests import AssetRequest, ConnectRequest, text_at

__all__ = ["TierConfigRequest", "view_of"]


class TierConfigRequest(ConnectRequest):
    """A view over a tier configuration request: setup, change, adjustment.

    `parameters` are the request's own `params`: Connect copies them to the configuration once they are written.
    `configuration` are those of the configuration that is being set up. The arguments are those of `ConnectRequest`.
    """

    noun = "tier configuration request"
    holder = ""

    @property
    def configuration_id(self) -> str:
        """The id of the tier configuration: "TC-000-000-000"."""
        return text_at(self.request, "configuration.id", self._who())

    @property
    def account(self) -> dict[str, Any]:
        """The account of the reseller that is configured, the very dict of the request."""
        account: dict[str, Any] = self.field("configuration.account")
        return account

    @property
    def tier_level(self) -> int:
        """How far the reseller is from the customer: 1 or 2.

        Raises:
            BadValue: it is no number.
        """
        level = self.field("configuration.tier_level")
        try:
            return int(level)
        except (TypeError, ValueError) as e:
            raise BadValue(f"configuration.tier_level of {self._who()} is {level!r}: it should be 1 or 2") from e

    def resource(self, client: Any) -> Any:
        """Give `client("tier").config_requests[id]`."""
        return client("tier").config_requests[self.id]

    def template_payload(self, template_id: str) -> dict[str, Any]:
        """Give `{"template": {"id": ...}}`."""
        return {"template": {"id": template_id}}


def view_of(request: Any) -> ConnectRequest:
    """Give the view that fits a request: one with an `asset` or, if it has a `configuration`, a tier's.

    Args:
        request: the dict that Connect delivered, or a view, which is given back.

    Raises:
        BadValue: it is neither an asset request nor a tier configuration request.
        MissingField: its parameters are no list of dicts with an id.
    """
    if isinstance(request, ConnectRequest):
        return request
    if isinstance(request, Mapping):
        fields: Any = request
        if "asset" in fields:
            return AssetRequest(fields)
        if "configuration" in fields:
            return TierConfigRequest(fields)
        raise BadValue(
            f"{fields.get('id', 'the request')} has neither an asset nor a configuration, but: {listed(fields)}; "
            "give an asset request or a tier configuration request"
        )
    raise BadValue(f"{request!r:.200} is no request: give the dict that Connect delivered")
