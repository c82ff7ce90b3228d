"""A module: its configuration is parsed, its lookup is cached, it serves a page, and it closes the shop at will."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from saga_engine.extensions import ConfigError, ModuleApi, cached

__all__ = ["PATH", "Prices", "PricesConfig", "price_of"]

PATH = "/_saga/client/prices"


@dataclass(frozen=True)
class PricesConfig:
    """What `parse_config` makes of the module's configuration: prices in whole units of the currency."""

    currency: str
    prices: dict[str, int]


@cached(max_entries=100)
async def price_of(item: str) -> int | None:
    """Look a price up; None: nobody sells that. Other processes hear when it is invalidated."""
    Prices.lookups += 1
    return Prices.list.get(item)


class Prices:
    """The module, built as `Prices(config, api)` from the item of the configuration that names it."""

    list: ClassVar[dict[str, int]] = {}
    lookups: ClassVar[int] = 0

    @staticmethod
    def parse_config(config: dict[str, Any]) -> PricesConfig:
        """Check the configuration, before anything is built.

        Raises:
            ConfigError: what is wrong, with its path.
        """
        prices = config.get("prices", {})
        for item, price in prices.items():
            if not isinstance(price, int) or price < 0:
                raise ConfigError(f"{price!r} is no price: give a whole number", ["prices", item])
        return PricesConfig(config.get("currency", "EUR"), prices)

    def __init__(self, config: PricesConfig, api: ModuleApi) -> None:
        Prices.list = dict(config.prices)
        self._currency = config.currency
        self._api = api
        api.register_cached_function(price_of)
        api.register_web_resource(PATH, Starlette(routes=[Route("/{item}", self.page, methods=["GET", "PUT"])]))
        api.register_saga_callbacks(check_saga_start=self.check_saga_start)

    async def check_saga_start(self, saga: str, saga_id: str, request: dict[str, Any]) -> str | None:
        """Deny orders of what has no price; nothing of them is journaled then."""
        item = request.get("item", "")
        return None if await price_of(item) is not None else f"there is no price for {item!r}"

    async def page(self, request: Request) -> JSONResponse:
        """Tell the price of an item; `PUT` sets it to the number in the body."""
        item = request.path_params["item"]
        if request.method == "PUT":
            Prices.list[item] = int(await request.body())
            await self._api.invalidate_cache(price_of, (item,))
        price = await price_of(item)
        return JSONResponse({"item": item, "price": price, "currency": self._currency}, 404 if price is None else 200)
