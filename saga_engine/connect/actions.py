"""What a connector does to a request: approve it, fail it, inquire, write parameters; with either client of Connect.

With a `ConnectClient` each function gives Connect's answer. With an `AsyncConnectClient` it gives what is to be awaited
for it: `await approve(client, order, template_id="TL-1")`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from connect.client import AsyncConnectClient

from saga_engine.connect.requests import AssetRequest, TierConfigRequest
from saga_engine.errors import BadRequest

__all__ = ["approve", "fail", "inquire", "refresh", "update_parameters"]

_Request = AssetRequest | TierConfigRequest


def approve(
    client: Any, request: _Request, *, template_id: str | None = None, activation_tile: str | None = None
) -> Any:
    """Approve the request: what was ordered is there.

    Args:
        client: of Connect.
        request: a view of the request.
        template_id: of the activation template that the customer is shown (`TL-...`).
        activation_tile: the text itself, in Markdown, instead of a template.

    Returns:
        The request as it is now, or an awaitable of it.

    Raises:
        BadRequest: neither or both of the two are given.
        ClientError: Connect did not do it, or gave no answer.
    """
    if (template_id is None) == (activation_tile is None):
        raise BadRequest(f"approve {request.id}: give template_id or activation_tile, one of them")
    shown = {"template_id": template_id} if activation_tile is None else {"activation_tile": activation_tile}
    return _resource(client, request)("approve").post(shown)


def fail(client: Any, request: _Request, reason: str) -> Any:
    """Fail the request: it cannot be fulfilled.

    Args:
        client: of Connect.
        request: a view of the request.
        reason: what people read; not empty.

    Returns:
        The request as it is now, or an awaitable of it.

    Raises:
        BadRequest: there is no reason.
        ClientError: Connect did not do it, or gave no answer.
    """
    if not isinstance(reason, str) or not reason.strip():
        raise BadRequest(f"fail {request.id}: say why in a text that people can read")
    return _resource(client, request)("fail").post({"reason": reason})


def inquire(client: Any, request: _Request, *, template_id: str | None = None) -> Any:
    """Ask whoever ordered for what is missing: what was `mark`ed wrong, after `update_parameters`.

    Args:
        client: of Connect.
        request: a view of the request.
        template_id: of the inquiring template (`TL-...`); None: the product's default one.

    Returns:
        The request as it is now, or an awaitable of it.

    Raises:
        ClientError: Connect did not do it, or gave no answer.
    """
    return _resource(client, request)("inquire").post({} if template_id is None else {"template_id": template_id})


def update_parameters(client: Any, request: _Request) -> Any:
    """Write the parameters that were set since the view was made, and no others; nothing is sent if there are none.

    Args:
        client: of Connect.
        request: the view whose `parameters` were set.

    Returns:
        The request as it is now, or None if nothing was sent; or an awaitable of it.

    Raises:
        ClientError: Connect did not do it, or gave no answer.
    """
    changed = request.parameters.changed()
    if not changed:
        return _nothing() if isinstance(client, AsyncConnectClient) else None
    payload: Mapping[str, Any] = {"params": changed}
    return _resource(client, request).update({"asset": payload} if isinstance(request, AssetRequest) else payload)


def refresh(client: Any, request: _Request) -> Any:
    """Ask for the request as it is now; its `status` tells what became of an approval that gave no answer.

    Returns:
        The request, or an awaitable of it.

    Raises:
        ClientError: Connect gave no answer.
    """
    return _resource(client, request).get()


def _resource(client: Any, request: _Request) -> Any:
    if isinstance(request, AssetRequest):
        return client.requests[request.id]
    return client("tier").config_requests[request.id]


async def _nothing() -> None:
    """Be awaited where nothing is to be sent."""
