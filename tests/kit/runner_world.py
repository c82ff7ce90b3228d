"""The world of an end-to-end test: the real runner with the example extension, a local Connect, and the vendor."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from examples.purchase import Vendor, server
from saga_engine.connect import LocalConnect
from saga_engine.connect.local_http import LocalServer

__all__ = ["EXTENSION", "ORDERS", "World", "running_world", "until"]

EXTENSION = Path(__file__).resolve().parents[2] / "examples" / "extension"
ORDERS = {
    name: json.loads((EXTENSION / "orders" / f"{name}.json").read_text("utf-8"))
    for name in ("purchase", "change", "cancel")
}
_VARIABLES = {"VENDOR_TIMEOUT_S": "20", "POLL_S": "45", "APPROVE_TEMPLATE_ID": "TL-1", "INQUIRE_TEMPLATE_ID": "TL-2"}
_WAIT_S = 60.0


def until(condition: Callable[[], Any], what: str, timeout_s: float = _WAIT_S) -> Any:
    """Wait for a condition, and give what it gave."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {timeout_s:g} s in vain: {what}"
        time.sleep(0.02)
    return found


class World:
    """Who takes part: `connect` delivers, the runner in it carries out, `vendor` sells; both keep ledgers."""

    def __init__(self, connect: LocalConnect, vendor: LocalServer) -> None:
        self.connect = connect
        self.vendor = vendor
        self._numbers = count(1)
        self._mark = 0

    def order(self, kind: str, **parameters: str) -> dict[str, Any]:
        """Make an order that nobody has seen yet; what it changes or cancels is there at the vendor.

        What `changes` tells begins here.
        """
        number = next(self._numbers)
        order: dict[str, Any] = copy.deepcopy(ORDERS[kind])
        order["id"] = f"PR-0000-0000-{number:04}-001"
        order["asset"]["id"] = f"AS-0000-0000-{number:04}"
        if kind != "purchase":
            parameters = {**self._sell(order["id"]), **parameters}
        for parameter in order["asset"]["params"]:
            parameter["value"] = parameters.get(parameter["id"], parameter["value"])
        self._mark = len(self.vendor.state.ledger())
        return order

    def _sell(self, key: str) -> dict[str, str]:
        vendor = Vendor(f"{self.vendor.url}/vendor")
        customer = vendor.create("customers", {"name": "Example Customer"}, key=f"sold for {key}")
        subscription = vendor.create("subscriptions", {"customer_id": customer["id"]}, key=f"sold for {key}")
        return {"customer_id": customer["id"], "subscription_id": subscription["id"]}

    def changes(self, order: dict[str, Any]) -> list[str]:
        """Tell what was done for the order, and undone, at the vendor and in Connect, oldest first.

        Everything at the vendor since `order` counts, under whatever key.
        """
        in_connect = [entry for entry in self.connect.ledger() if entry["object_id"] == order["id"]]
        entries = sorted([*self.vendor.state.ledger()[self._mark :], *in_connect], key=lambda entry: entry["at"])
        return [f"{entry['change']} {entry['step']}" for entry in entries]

    def await_change(self, order: dict[str, Any], change: str) -> None:
        """Wait until something was done."""
        until(lambda: change in self.changes(order), f"{change} of {order['id']}")

    def status(self, order: dict[str, Any]) -> str:
        """Tell how the request stands in Connect."""
        return str(self.connect.get(order["id"])["status"])

    def kill_worker(self) -> None:
        """Kill the process that carries orders out, and wait for the one that the runner starts instead of it."""
        self.connect.kill_worker("background")
        self.connect.wait_connected("background", timeout_s=_WAIT_S)


@contextmanager
def running_world(folder: Path, extension: Path | None = None, **environment: str) -> Iterator[World]:
    """Run everything for as long as the block lasts.

    Args:
        folder: for the journal, the log of the runner, and what Connect and the vendor remember.
        extension: the project to run instead of the example extension, which is installed.
        environment: more variables of the runner's environment.
    """
    with server.running(folder / "vendor.db") as vendor:
        variables = {**_VARIABLES, "VENDOR_URL": f"{vendor.url}/vendor"}
        with LocalConnect(folder, variables=variables) as connect:
            connect.start_runner(extension, environment=environment)
            yield World(connect, vendor)
