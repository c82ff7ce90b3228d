"""A small client of the vendor's API, plain and async: calls have time-outs, changes have keys, errors have names."""

from __future__ import annotations

from typing import Any

import httpx

from transactions import SagaError

__all__ = ["AsyncVendor", "Vendor", "VendorError", "VendorRefused", "VendorUnavailable"]


class VendorError(SagaError):
    """The vendor did not do what it was asked for."""


class VendorUnavailable(VendorError):
    """The vendor gave no usable answer: it may or may not have done the work; ask again with the same key."""


class VendorRefused(VendorError):
    """The vendor said no and did nothing; asking again with the same order does not help."""


class Vendor:
    """The vendor's API, for plain steps.

    Its arguments are the variables VENDOR_URL and VENDOR_TIMEOUT_S of the extension: a step that asks for a `Vendor`
    gets one that is built with them.

    Args:
        vendor_url: its base address without a slash at the end.
        vendor_timeout_s: seconds to wait for a connection, and again for each part of an answer; the variables of an
            extension are texts.
    """

    def __init__(self, vendor_url: str, vendor_timeout_s: str) -> None:
        self._url = vendor_url
        self._timeout_s = float(vendor_timeout_s)

    def create(self, collection: str, order: dict[str, Any], *, key: str) -> dict[str, Any]:
        """Make an object of `customers` or `subscriptions`; the same key gives the same object, made once.

        Returns:
            What was ordered, with its `id`.

        Raises:
            VendorUnavailable: nobody can tell whether it was made.
            VendorRefused: it was not made.
        """
        made: dict[str, Any] = self._call("POST", collection, key=key, order=order)
        return made

    def find(self, collection: str, *, key: str) -> dict[str, Any] | None:
        """Give the object that was made with the key; None if there is none (any more)."""
        found: list[dict[str, Any]] = self._call("GET", f"{collection}?key={key}")
        return found[0] if found else None

    def get(self, collection: str, object_id: str) -> dict[str, Any]:
        """Give an object as it is now; its `status` is `preparing` or `active`."""
        found: dict[str, Any] = self._call("GET", f"{collection}/{object_id}")
        return found

    def delete(self, collection: str, object_id: str, *, key: str) -> None:
        """Delete an object; one that is deleted already is no error."""
        self._call("DELETE", f"{collection}/{object_id}", key=key)

    def _call(self, method: str, path: str, *, key: str = "", order: dict[str, Any] | None = None) -> Any:
        url = f"{self._url}/{path}"
        try:
            answer = httpx.request(method, url, json=order, headers=_headers(key), timeout=self._timeout_s)
        except httpx.HTTPError as e:
            raise _no_answer(method, url, e) from e
        return _body(answer)


class AsyncVendor:
    """The same for async steps; what its methods give and raise is what those of `Vendor` do."""

    def __init__(self, vendor_url: str, vendor_timeout_s: str) -> None:
        self._url = vendor_url
        self._timeout_s = float(vendor_timeout_s)

    async def create(self, collection: str, order: dict[str, Any], *, key: str) -> dict[str, Any]:
        """Make an object; the same key gives the same object, made once."""
        made: dict[str, Any] = await self._call("POST", collection, key=key, order=order)
        return made

    async def find(self, collection: str, *, key: str) -> dict[str, Any] | None:
        """Give the object that was made with the key; None if there is none (any more)."""
        found: list[dict[str, Any]] = await self._call("GET", f"{collection}?key={key}")
        return found[0] if found else None

    async def delete(self, collection: str, object_id: str, *, key: str) -> None:
        """Delete an object; one that is deleted already is no error."""
        await self._call("DELETE", f"{collection}/{object_id}", key=key)

    async def _call(self, method: str, path: str, *, key: str = "", order: dict[str, Any] | None = None) -> Any:
        url = f"{self._url}/{path}"
        try:
            # A client for each call: its connections belong to one event loop, and nobody would close it later.
            async with httpx.AsyncClient(timeout=self._timeout_s) as client:
                answer = await client.request(method, url, json=order, headers=_headers(key))
        except httpx.HTTPError as e:
            raise _no_answer(method, url, e) from e
        return _body(answer)


def _headers(key: str) -> dict[str, str]:
    return {"Idempotency-Key": key} if key else {}


def _no_answer(method: str, url: str, e: httpx.HTTPError) -> VendorUnavailable:
    return VendorUnavailable(f"{method} {url}: no usable answer ({type(e).__name__})")


def _body(answer: httpx.Response) -> Any:
    """Read an answer, and tell a no from a perhaps: only a 4xx of the vendor's own says that nothing was done."""
    status, asked = answer.status_code, f"{answer.request.method} {answer.request.url}"
    if status >= 500 or status in (408, 429):
        raise VendorUnavailable(f"{asked}: HTTP {status}")
    try:
        body = answer.json() if answer.content else {}
    except ValueError as e:
        raise VendorUnavailable(f"{asked}: HTTP {status}, and no JSON") from e
    if status >= 400:
        raise VendorRefused(f"the vendor says: {body.get('reason', status)}")
    return body
