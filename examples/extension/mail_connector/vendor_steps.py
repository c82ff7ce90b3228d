"""The steps that change something at the vendor, each with its undo and with what finds its effect after a crash."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from tenacity import retry_if_exception_type, stop_after_attempt, wait_exponential, wait_random

from mail_connector.vendor import AsyncVendor, Vendor, VendorRefused, VendorUnavailable
from saga_engine import SagaContext
from saga_engine.connect import AssetRequest, BackgroundResponse
from transactions import BackgroundTransaction, Kind, Probe, RetryPolicy

__all__ = [
    "AwaitSubscription",
    "CreateCustomer",
    "CreateSubscription",
    "DeleteCustomer",
    "DeleteFormerSubscription",
    "DeleteSubscription",
    "ReplaceSubscription",
]

#: Retries are journaled: they go on after a crash where they were.
_RETRY = RetryPolicy(
    stop=stop_after_attempt(4),
    wait=wait_exponential(multiplier=0.2, max=10) + wait_random(0, 0.2),
    retry=retry_if_exception_type(VendorUnavailable),
)
#: For what has to succeed in the end: an order that was approved is not gone back on.
_RETRY_ON = RetryPolicy(
    wait=wait_exponential(multiplier=0.2, max=600), retry=retry_if_exception_type(VendorUnavailable)
)


class CreateAtVendor(BackgroundTransaction):
    """What making a customer and making a subscription have in common.

    Class attributes:
        thing: what is made, in the singular; the vendor's collection is its plural.
    """

    thing: str
    retry = _RETRY

    def __init__(self, vendor: Vendor, context: SagaContext) -> None:
        self.vendor = vendor
        self.context = context

    @abstractmethod
    def order(self, request: AssetRequest) -> dict[str, Any]:
        """Say what to ask the vendor for."""

    def execute(self, request: dict[str, Any]) -> BackgroundResponse:
        order = self.order(AssetRequest(request))
        try:
            # The key is the same in every attempt and after every crash: the vendor makes one object of it.
            made = self.vendor.create(f"{self.thing}s", order, key=self.context.idempotency_key)
        except VendorRefused as refusal:
            return BackgroundResponse.fail(str(refusal))
        self.context.state[f"{self.thing}_id"] = made["id"]
        return BackgroundResponse.done()

    def probe(self, request: dict[str, Any]) -> Probe:
        try:
            made = self.vendor.find(f"{self.thing}s", key=self.context.execute_key)
        except VendorUnavailable:
            return Probe.UNKNOWN
        if made is None:
            return Probe.NOT_DONE
        self.context.state[f"{self.thing}_id"] = made["id"]
        return Probe.DONE

    def compensate(self, request: dict[str, Any], e: Exception) -> BackgroundResponse:
        # Looked up and not taken from the state: an interrupted attempt never wrote down what it made.
        made = self.vendor.find(f"{self.thing}s", key=self.context.execute_key)
        if made is not None:
            self.vendor.delete(f"{self.thing}s", made["id"], key=self.context.idempotency_key)
        return BackgroundResponse.done()


class CreateCustomer(CreateAtVendor):
    """Make the end customer's account at the vendor."""

    thing = "customer"

    def order(self, request: AssetRequest) -> dict[str, Any]:
        customer = request.tier("customer")
        return {
            "name": customer["name"],
            "email": request.value("admin_email"),
            "country": customer["contact_info"]["country"],
        }


class CreateSubscription(CreateAtVendor):
    """Order the mailboxes for that customer."""

    thing = "subscription"

    def order(self, request: AssetRequest) -> dict[str, Any]:
        return {"customer_id": self.context.state["customer_id"], "items": _ordered(request)}


class AwaitSubscription(BackgroundTransaction):
    """Come back until the vendor has prepared the subscription."""

    kind = Kind.READ_ONLY
    retry = _RETRY

    def __init__(self, vendor: Vendor, config: dict[str, str], context: SagaContext) -> None:
        self.vendor = vendor
        self.config = config
        self.context = context

    def execute(self, request: dict[str, Any]) -> BackgroundResponse:
        if self.vendor.get("subscriptions", self.context.state["subscription_id"])["status"] != "active":
            return BackgroundResponse.reschedule(self.config["POLL_S"])
        return BackgroundResponse.done()


class ReplaceSubscription(BackgroundTransaction):
    """Order a subscription with the new quantities; the former one stays until Connect has approved the change."""

    retry = _RETRY

    def __init__(self, vendor: AsyncVendor, context: SagaContext) -> None:
        self.vendor = vendor
        self.context = context

    async def execute(self, request: dict[str, Any]) -> BackgroundResponse:
        asset = AssetRequest(request)
        order = {"customer_id": asset.value("customer_id"), "items": _ordered(asset)}
        self.context.state["former_subscription_id"] = asset.value("subscription_id")
        try:
            made = await self.vendor.create("subscriptions", order, key=self.context.idempotency_key)
        except VendorRefused as refusal:
            return BackgroundResponse.fail(str(refusal))
        self.context.state["subscription_id"] = made["id"]
        return BackgroundResponse.done()

    async def probe(self, request: dict[str, Any]) -> Probe:
        try:
            made = await self.vendor.find("subscriptions", key=self.context.execute_key)
        except VendorUnavailable:
            return Probe.UNKNOWN
        if made is None:
            return Probe.NOT_DONE
        self.context.state["former_subscription_id"] = AssetRequest(request).value("subscription_id")
        self.context.state["subscription_id"] = made["id"]
        return Probe.DONE

    async def compensate(self, request: dict[str, Any], e: Exception) -> BackgroundResponse:
        made = await self.vendor.find("subscriptions", key=self.context.execute_key)
        if made is not None:
            await self.vendor.delete("subscriptions", made["id"], key=self.context.idempotency_key)
        return BackgroundResponse.done()


class DeleteFormerSubscription(BackgroundTransaction):
    """Delete what the change replaced."""

    kind = Kind.RETRIABLE
    retry = _RETRY_ON

    def __init__(self, vendor: AsyncVendor, context: SagaContext) -> None:
        self.vendor = vendor
        self.context = context

    async def execute(self, request: dict[str, Any]) -> BackgroundResponse:
        former_id = self.context.state["former_subscription_id"]
        await self.vendor.delete("subscriptions", former_id, key=self.context.idempotency_key)
        return BackgroundResponse.done()


class DeleteSubscription(BackgroundTransaction):
    """Delete the asset's subscription: what was in the mailboxes is gone, so from here on there is no way back."""

    kind = Kind.PIVOT
    retry = _RETRY_ON

    def __init__(self, vendor: Vendor, context: SagaContext) -> None:
        self.vendor = vendor
        self.context = context

    def execute(self, request: dict[str, Any]) -> BackgroundResponse:
        subscription_id = AssetRequest(request).value("subscription_id")
        try:
            self.vendor.delete("subscriptions", subscription_id, key=self.context.idempotency_key)
        except VendorRefused as refusal:
            return BackgroundResponse.fail(str(refusal))
        return BackgroundResponse.done()


class DeleteCustomer(BackgroundTransaction):
    """Delete the customer's account at the vendor."""

    kind = Kind.RETRIABLE
    retry = _RETRY_ON

    def __init__(self, vendor: Vendor, context: SagaContext) -> None:
        self.vendor = vendor
        self.context = context

    def execute(self, request: dict[str, Any]) -> BackgroundResponse:
        customer_id = AssetRequest(request).value("customer_id")
        self.vendor.delete("customers", customer_id, key=self.context.idempotency_key)
        return BackgroundResponse.done()


def _ordered(request: AssetRequest) -> list[dict[str, Any]]:
    """List what is ordered; items of quantity 0 are offered, but not ordered."""
    return [{"mpn": item.mpn, "quantity": item.quantity} for item in request.items if item.quantity]
