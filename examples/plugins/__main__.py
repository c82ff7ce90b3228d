"""Four orders, and what each plugin has to do with them: `python -m examples.plugins`."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import httpx

from examples.plugins.announcer import Announcer
from examples.plugins.orders import LimitPlugin, OrderSaga, OrdersPlugin
from examples.plugins.prices import PATH, Prices
from examples.plugins.vendor import PretendApi, VendorPlugin
from saga_engine import Engine
from saga_engine.connect.web import engine_application
from saga_engine.extensions.errors import OperationDenied

__all__ = ["engine_at", "main", "request_page"]

_WAIT_S = 30.0


def engine_at(url: str) -> Engine:
    """Make the engine of this story, with a journal at this URL; `saga.toml` says the same for the command line."""
    return Engine(
        url,
        config={"retry": {"max_attempts": 5, "initial_interval_s": 0.01}},
        plugins=[VendorPlugin, OrdersPlugin, (LimitPlugin, {"quantity_max": 20})],
        extensions={"announcer": (Announcer, {"greeting": "ordered:"})},
        modules=[
            {
                "module": "examples.plugins.prices.Prices",
                "config": {"currency": "EUR", "prices": {"licence": 30, "seat": 5}},
            }
        ],
    )


def request_page(engine: Engine, method: str, item: str, body: str = "") -> dict[str, Any]:
    """Ask the page of the module, without a server."""

    async def ask() -> dict[str, Any]:
        transport = httpx.ASGITransport(app=engine_application(engine))
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
            answer: dict[str, Any] = (await client.request(method, f"{PATH}/{item}", content=body)).json()
            return answer

    return asyncio.run(ask())


def _order(engine: Engine, number: int, item: str, quantity: int) -> None:
    print(f"\norder {number}: {quantity} x {item}")
    try:
        saga_id = engine.start(OrderSaga, {"id": f"PR-{number}", "item": item, "quantity": quantity})
    except OperationDenied as denied:
        print(f"   denied before it began: {denied}")
        return
    response = engine.wait(saga_id, _WAIT_S)
    record = engine.get(saga_id)
    told = record.state or response.output
    print(f"   {record.status.name}, saga of {record.plugin} {record.plugin_version}: {told}")


def main() -> None:
    """Tell the story."""
    with tempfile.TemporaryDirectory() as folder, engine_at(f"sqlite:///{Path(folder) / 'saga.db'}") as engine:
        engine.start_plugins()
        api: PretendApi = engine.container.get("api_client_factory")()
        api.end_session()
        _order(engine, 1, "licence", 2)
        print("   calls of the vendor:", ", ".join(api.calls))
        _order(engine, 2, "licence", 50)
        _order(engine, 3, "unicorn", 1)
        print("\nthe price on the page:", request_page(engine, "PUT", "licence", "25"))
        _order(engine, 4, "licence", 2)
        print("\nlookups of prices:", Prices.lookups)


if __name__ == "__main__":
    main()
