"""The steps that look at an order and tell Connect about it; most of them are the ready ones of saga_engine.connect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saga_engine.connect import (
    ApproveRequest,
    AssetRequest,
    BackgroundResponse,
    InquireCustomer,
    RejectWhenUndone,
    UpdateParameters,
)
from transactions import BackgroundTransaction, Kind

__all__ = ["Approve", "AskForEmail", "CheckQuantities", "ConfirmCancel", "FillIn", "RejectIfUndone"]


class RejectIfUndone(RejectWhenUndone):
    """First in the list, so undone last: an order that was undone does not stay open in Connect."""

    def reason_for(self, request: dict[str, Any], e: Exception) -> str:
        return f"The order could not be carried out, and nothing is left of it: {e}"


class AskForEmail(InquireCustomer):
    """Ask the customer for another e-mail address if the given one is none."""

    template_variable = "INQUIRE_TEMPLATE_ID"

    def problems(self, request: dict[str, Any]) -> Mapping[str, str]:
        email = AssetRequest(request).value("admin_email", "")
        return {} if "@" in email else {"admin_email": "This is no e-mail address."}


class CheckQuantities(BackgroundTransaction):
    """Look at what is ordered before anything is done: what is wrong here costs nothing to give up."""

    kind = Kind.READ_ONLY

    def execute(self, request: dict[str, Any]) -> BackgroundResponse:
        items = AssetRequest(request).items
        broken = [item.mpn for item in items if not isinstance(item.quantity, int)]
        if broken:
            return BackgroundResponse.fail(f"mailboxes are sold in whole numbers: {', '.join(broken)}")
        if not any(item.quantity for item in items):
            return BackgroundResponse.fail("nothing is ordered: every quantity is 0")
        return BackgroundResponse.done()


class FillIn(UpdateParameters):
    """Write into the asset what the vendor answered; the undo writes back what was there before."""

    def values(self, request: dict[str, Any]) -> Mapping[str, Any]:
        names = ("customer_id", "subscription_id")
        return {name: self.context.state[name] for name in names if name in self.context.state}


class Approve(ApproveRequest):
    """Tell Connect that the order is fulfilled: the point of no return."""

    template_variable = "APPROVE_TEMPLATE_ID"


class ConfirmCancel(Approve):
    """The same at the end of a cancel order, which cannot go back any more: tried until Connect takes it."""

    kind = Kind.RETRIABLE
