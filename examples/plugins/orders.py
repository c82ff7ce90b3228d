"""A plugin with an extension point of its own, which contributes the saga; and another plugin, which extends it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from connect.eaas.core.responses import BackgroundResponse

from examples.plugins.prices import price_of
from examples.plugins.vendor import VendorService
from saga_engine import Saga, SagaContext
from saga_engine.extensions import Points, extension, extension_point, plugin
from saga_engine.services import ServiceProvider
from transactions import BackgroundTransaction, Kind

__all__ = ["LimitPlugin", "OrderSaga", "OrdersPlugin"]


class CheckOrder(BackgroundTransaction):
    """Asks every extension of `order_checks`; the first objection ends the order."""

    kind = Kind.READ_ONLY

    def __init__(self, order_checks: list[Any]) -> None:
        self._checks = order_checks

    def name(self) -> str:
        """Name the step."""
        return "Check order"

    def execute(self, request: dict[str, Any]) -> BackgroundResponse:
        """Ask them, the one of the highest priority first."""
        for check in self._checks:
            objection = check.objection(request)
            if objection:
                return BackgroundResponse.fail(objection)
        return BackgroundResponse.done()


class PriceOrder(BackgroundTransaction):
    """Looks the price up; the lookup is the module's, and cached."""

    kind = Kind.READ_ONLY

    def __init__(self, context: SagaContext) -> None:
        self._context = context

    def name(self) -> str:
        """Name the step."""
        return "Price order"

    async def execute(self, request: dict[str, Any]) -> BackgroundResponse:
        """Note the price in the state."""
        price = await price_of(request["item"])
        if price is None:
            return BackgroundResponse.fail(f"nobody sells {request['item']!r} any more")
        self._context.state["total"] = price * request["quantity"]
        return BackgroundResponse.done()


class OrderAtVendor(BackgroundTransaction):
    """Orders through the extension's service, which repeats the call and refreshes the session."""

    kind = Kind.PIVOT
    is_idempotent = True

    def __init__(self, vendor: VendorService, context: SagaContext) -> None:
        self._vendor = vendor
        self._context = context

    def name(self) -> str:
        """Name the step."""
        return "Order at vendor"

    async def execute(self, request: dict[str, Any]) -> BackgroundResponse:
        """Order, under the key that stays the same however often this runs."""
        self._context.state["order"] = await self._vendor.order(request["item"], self._context.idempotency_key)
        return BackgroundResponse.done()


@extension(point="sagas")
class OrderSaga(Saga):
    """Check, price, order. Contributed by the plugin that holds it."""

    def transactions(self, request: dict[str, Any]) -> list[Any]:
        """List the steps."""
        return [CheckOrder, PriceOrder, OrderAtVendor]


@plugin(id="orders", version="1.4.0", name="Orders", description="takes orders")
class OrdersPlugin:
    """Contributes the saga, and the services that only it needs. What may object to an order is up to others."""

    @extension_point(id="order_checks")
    class OrderCheck(ABC):
        """What extensions of `order_checks` must be."""

        @abstractmethod
        def objection(self, request: dict[str, Any]) -> str | None:
            """Tell what speaks against an order; None: nothing does."""

    Order = OrderSaga

    @extension(point="service_providers")
    class Services(ServiceProvider):
        """Built by the plugin's own scope of the container, in which `points` are bound."""

        def __init__(self, points: Points) -> None:
            self._points = points

        def provide_order_checks(self) -> list[Any]:
            """Give the extensions that are there now, in order."""
            return self._points.get("order_checks")


@plugin(id="limit", version="0.1.0", depends_on=["orders"])
class LimitPlugin:
    """Objects to large orders. Its configuration: `quantity_max`."""

    @extension(point="order_checks", priority=10)
    class Limit(OrdersPlugin.OrderCheck):
        """An extension of another plugin's point."""

        def __init__(self, configuration: dict[str, Any]) -> None:
            self._quantity_max = configuration.get("quantity_max", 10)

        def objection(self, request: dict[str, Any]) -> str | None:
            """Object to more than `quantity_max`."""
            is_large = request["quantity"] > self._quantity_max
            return f"{request['quantity']} are more than {self._quantity_max}" if is_large else None
