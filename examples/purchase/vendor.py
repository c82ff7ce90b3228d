"""A small client of the vendor's API: calls have timeouts, changes have keys, errors have names."""

from __future__ import annotations

from typing import Any

import requests

from transactions import SagaError

__all__ = ["Vendor", "VendorError", "VendorRefused", "VendorUnavailable"]


class VendorError(SagaError):
    """The vendor did not do what it was asked for."""


class VendorUnavailable(VendorError):
    """The vendor gave no usable answer: it may or may not have done the work; ask again with the same key."""


class VendorRefused(VendorError):
    """The vendor said no and did nothing; asking again with the same order does not help."""


class Vendor:
    """The vendor's API.

    Args:
        vendor_url: its base address without a slash at the end, for example `http://127.0.0.1:8765/vendor`.
        vendor_timeout_s: seconds to wait for a connection, and again for each part of an answer; a text is
            taken as a number, because the configuration of an extension holds nothing but texts.
    """

    def __init__(self, vendor_url: str, vendor_timeout_s: float | str = 10.0) -> None:
        self._url = vendor_url
        self._timeout_s = float(vendor_timeout_s)

    def create(self, collection: str, order: dict[str, Any], *, key: str) -> dict[str, Any]:
        """Make an object; the same key gives the same object again, made once.

        Args:
            collection: `customers` or `subscriptions`.
            order: the object to make, as JSON.
            key: the idempotency key.

        Returns:
            The object with its `id`.

        Raises:
            VendorUnavailable: nobody can tell whether it was made.
            VendorRefused: it was not made.
        """
        made: dict[str, Any] = self._call("POST", collection, key=key, order=order)
        return made

    def find(self, collection: str, *, key: str) -> dict[str, Any] | None:
        """Give the object that was made with the key, or None if there is none (any more).

        Raises:
            VendorUnavailable: the vendor gave no answer.
            VendorRefused: the vendor does not take the question.
        """
        found: list[dict[str, Any]] = self._call("GET", collection, query={"key": key})
        return found[0] if found else None

    def delete(self, collection: str, object_id: str, *, key: str) -> None:
        """Delete an object; one that is deleted already is no error.

        Raises:
            VendorUnavailable: nobody can tell whether it was deleted.
            VendorRefused: it was not deleted.
        """
        self._call("DELETE", f"{collection}/{object_id}", key=key)

    def _call(
        self,
        method: str,
        path: str,
        *,
        key: str | None = None,
        query: dict[str, str] | None = None,
        order: dict[str, Any] | None = None,
    ) -> Any:
        headers = {"Idempotency-Key": key} if key is not None else None
        url = f"{self._url}/{path}"
        try:
            answer = requests.request(method, url, params=query, json=order, headers=headers, timeout=self._timeout_s)
            return self._body(method, path, answer)
        except requests.RequestException as e:
            raise VendorUnavailable(f"{method} {url}: no usable answer ({type(e).__name__})") from e

    def _body(self, method: str, path: str, answer: requests.Response) -> Any:
        if answer.status_code >= 500 or answer.status_code in (408, 429):
            raise VendorUnavailable(f"{method} {self._url}/{path}: HTTP {answer.status_code}")
        body = answer.json() if answer.content else {}
        if answer.status_code >= 400:
            raise VendorRefused(f"the vendor says: {body.get('reason', answer.text)}")
        return body
