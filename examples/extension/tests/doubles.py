"""What stands in for the vendor and for Connect: fakes with a memory, so that a test asks what is there now."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

from connect.client import ClientError

from mail_connector.vendor import VendorRefused, VendorUnavailable

__all__ = ["FakeAsyncVendor", "FakeConnect", "FakeVendor"]


@dataclass
class FakeVendor:
    """The vendor: what was made by key, and is there still.

    Attributes:
        refuses: a collection of which it makes no more.
        is_away: it does the work, and nobody gets an answer.
        status: how a subscription stands: `active` or `preparing`.
        made: how many objects it ever made.
    """

    objects: dict[str, dict[str, dict[str, Any]]] = field(
        default_factory=lambda: {"customers": {}, "subscriptions": {}}
    )
    refuses: str = ""
    is_away: bool = False
    status: str = "active"
    made: int = 0

    def create(self, collection: str, order: dict[str, Any], *, key: str) -> dict[str, Any]:
        if collection == self.refuses:
            raise VendorRefused("the vendor says: no credit")
        if key not in self.objects[collection]:
            self.made += 1
            self.objects[collection][key] = {**order, "id": f"{collection[0].upper()}-{self.made}"}
        if self.is_away:
            raise VendorUnavailable
        return self.objects[collection][key]

    def find(self, collection: str, *, key: str) -> dict[str, Any] | None:
        if self.is_away:
            raise VendorUnavailable
        return self.objects[collection].get(key)

    def get(self, collection: str, object_id: str) -> dict[str, Any]:
        found = next(made for made in self.objects[collection].values() if made["id"] == object_id)
        return {**found, "status": self.status}

    def delete(self, collection: str, object_id: str, *, key: str) -> None:
        there = self.objects[collection]
        self.objects[collection] = {key: made for key, made in there.items() if made["id"] != object_id}

    def ids(self) -> list[str]:
        """List what is there."""
        return [made["id"] for collection in self.objects.values() for made in collection.values()]


class FakeAsyncVendor:
    """The same vendor, for async steps."""

    def __init__(self, vendor: FakeVendor) -> None:
        self._vendor = vendor

    async def create(self, collection: str, order: dict[str, Any], *, key: str) -> dict[str, Any]:
        return self._vendor.create(collection, order, key=key)

    async def find(self, collection: str, *, key: str) -> dict[str, Any] | None:
        return self._vendor.find(collection, key=key)

    async def delete(self, collection: str, object_id: str, *, key: str) -> None:
        self._vendor.delete(collection, object_id, key=key)


class FakeConnect:
    """The client of Connect, with one request; ready transactions take it as they take Connect's own.

    Attributes:
        request: how the request stands in Connect.
        sent: the actions and what came with them, oldest first.
        refuses: an action that Connect says no to.
    """

    def __init__(self, request: dict[str, Any]) -> None:
        self.request = copy.deepcopy(request)
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.refuses = ""

    @property
    def requests(self) -> dict[str, FakeConnect]:
        return {self.request["id"]: self}

    def get(self) -> dict[str, Any]:
        return copy.deepcopy(self.request)

    def update(self, payload: dict[str, Any]) -> dict[str, Any]:
        params = {param["id"]: param for param in self.request["asset"]["params"]}
        for sent in payload["asset"]["params"]:
            params[sent["id"]].update(sent)
        return self.get()

    def __call__(self, action: str) -> _Action:
        return _Action(self, action)

    def value(self, parameter_id: str) -> str:
        """Give the value that a parameter has in Connect."""
        return str(next(p["value"] for p in self.request["asset"]["params"] if p["id"] == parameter_id))


_STATUSES = {"approve": "approved", "fail": "failed", "inquire": "inquiring"}


@dataclass
class _Action:
    connect: FakeConnect
    name: str

    def post(self, payload: dict[str, Any]) -> dict[str, Any]:
        if self.name == self.connect.refuses or self.connect.request["status"] != "pending":
            raise ClientError("no", status_code=400, error_code="VAL_001", errors=["the contract has ended"])
        self.connect.request["status"] = _STATUSES[self.name]
        self.connect.sent.append((self.name, payload))
        return self.connect.get()
