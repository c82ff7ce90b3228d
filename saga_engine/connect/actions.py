"""What a fulfillment tells Connect of a request: approve, fail, inquire, update parameters; plain and async.

All take an asset request or a tier configuration request: the dict that Connect delivered, or a view over it. What
was changed through a view is written first, and only that: `approve(client, order)` after `order.set_value(...)`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, TypeVar

from connect.client import AsyncConnectClient, ConnectClient

from saga_engine.connect.api_errors import WrongClient
from saga_engine.connect.conversations import Call, Conversation, carry_out
from saga_engine.connect.request_errors import BadValue
from saga_engine.connect.requests import ConnectRequest
from saga_engine.connect.tier_requests import view_of

__all__ = [
    "aapprove",
    "afail",
    "ainquire",
    "approve",
    "approving",
    "aupdate_parameters",
    "fail",
    "failing",
    "getting",
    "inquire",
    "inquiring",
    "update_parameters",
    "updating",
]

T = TypeVar("T")
TRequest = dict[str, Any] | ConnectRequest


def approve(client: Any, request: TRequest, *, template_id: str | None = None) -> dict[str, Any]:
    """Approve a request.

    Args:
        client: a `ConnectClient`.
        request: the request, or a view over it, whose changed parameters are then written first.
        template_id: what the customer is shown: "TL-276-377-545"; None: what the product has for it.

    Returns:
        What Connect answered: of an asset request, the request; of a tier configuration request, the template.

    Raises:
        ConnectUnavailable: it may be tried again; whether it was done is unknown.
        RefusedByConnect: Connect says no, for example because the request is approved already.
        BadValue, MissingField: the request cannot be used.
        WrongClient: the client is async.
    """
    return _plainly("approve", client, approving(view_of(request), template_id))


async def aapprove(client: Any, request: TRequest, *, template_id: str | None = None) -> dict[str, Any]:
    """Approve a request with an `AsyncConnectClient`; see `approve`."""
    return await _async("approve", client, approving(view_of(request), template_id))


def fail(client: Any, request: TRequest, reason: str) -> dict[str, Any]:
    """Reject a request.

    Args:
        client: a `ConnectClient`.
        request: the request, or a view over it, whose changed parameters are then written first.
        reason: why, for whoever ordered; not empty.

    Returns:
        The request, as Connect answered.

    Raises:
        BadValue: there is no reason. Otherwise what `approve` raises.
    """
    return _plainly("fail", client, failing(view_of(request), reason))


async def afail(client: Any, request: TRequest, reason: str) -> dict[str, Any]:
    """Reject a request with an `AsyncConnectClient`; see `fail`."""
    return await _async("fail", client, failing(view_of(request), reason))


def inquire(
    client: Any,
    request: TRequest,
    *,
    template_id: str | None = None,
    problems: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Ask the customer for better parameters.

    Args:
        client: a `ConnectClient`.
        request: the request, or a view over it, whose changed parameters are then written first.
        template_id: what the customer is shown; None: what the product has for it.
        problems: what is wrong, by the id of the parameter; written beside its value.

    Returns:
        The request, as Connect answered.

    Raises:
        MissingParameter: there is no parameter of such an id. Otherwise what `approve` raises.
    """
    return _plainly("inquire", client, inquiring(view_of(request), template_id, problems))


async def ainquire(
    client: Any,
    request: TRequest,
    *,
    template_id: str | None = None,
    problems: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Ask the customer with an `AsyncConnectClient`; see `inquire`."""
    return await _async("inquire", client, inquiring(view_of(request), template_id, problems))


def update_parameters(client: Any, request: TRequest, values: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """Write what changed of a request's parameters; if nothing did, Connect is not called.

    Args:
        client: a `ConnectClient`.
        request: the request, or a view over it, whose changed parameters are written.
        values: values to set before, by the id of the parameter.

    Returns:
        What was sent: for each changed parameter `id`, `value` or `structured_value`, and perhaps `value_error`.

    Raises:
        MissingParameter: there is no parameter of such an id. Otherwise what `approve` raises.
    """
    return _plainly("update_parameters", client, updating(view_of(request), values))


async def aupdate_parameters(
    client: Any, request: TRequest, values: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Write what changed with an `AsyncConnectClient`; see `update_parameters`."""
    return await _async("update_parameters", client, updating(view_of(request), values))


# --- the conversations ---


def approving(request: ConnectRequest, template_id: str | None = None) -> Conversation[dict[str, Any]]:
    """Write what changed, then approve."""
    yield from updating(request)
    answer: dict[str, Any] = yield Call(request, "approve", _templated(request, template_id))
    return answer


def failing(request: ConnectRequest, reason: str) -> Conversation[dict[str, Any]]:
    """Write what changed, then reject.

    Raises:
        BadValue: there is no reason.
    """
    if not isinstance(reason, str) or not reason.strip():
        raise BadValue(f"{request.id} cannot be rejected: the reason is {reason!r}: give a text")
    yield from updating(request)
    answer: dict[str, Any] = yield Call(request, "fail", {"reason": reason})
    return answer


def inquiring(
    request: ConnectRequest, template_id: str | None = None, problems: Mapping[str, str] | None = None
) -> Conversation[dict[str, Any]]:
    """Write what changed and what is wrong, then ask the customer."""
    _check_names(request, "problems", problems)
    for parameter_id, message in (problems or {}).items():
        request.set_error(parameter_id, message)
    yield from updating(request)
    answer: dict[str, Any] = yield Call(request, "inquire", _templated(request, template_id))
    return answer


def updating(request: ConnectRequest, values: Mapping[str, Any] | None = None) -> Conversation[list[dict[str, Any]]]:
    """Set the values, and write what changed, if anything did."""
    _check_names(request, "values", values)
    for parameter_id, value in (values or {}).items():
        request.set_value(parameter_id, value)
    changed = request.changed_parameters()
    if changed:
        yield Call(request, "update", request.parameters_payload(changed))
        request.parameters.were_written()
    return changed


def getting(request: ConnectRequest) -> Conversation[ConnectRequest]:
    """Ask for the request as Connect has it now."""
    return type(request)((yield Call(request, "get")))


def _check_names(request: ConnectRequest, what: str, given: Mapping[str, Any] | None) -> None:
    """See that all can be set before any is: what is set counts as what Connect has the next time.

    Raises:
        BadValue: this is no dict.
        MissingParameter: there is no parameter of one of the names.
    """
    if given is not None and not isinstance(given, Mapping):
        raise BadValue(f"{request.id}: the {what} are {given!r:.200}: give a dict by the ids of the parameters")
    for parameter_id in given or {}:
        request.parameter(parameter_id)


def _templated(request: ConnectRequest, template_id: str | None) -> dict[str, Any]:
    return request.template_payload(template_id) if template_id else {}


def _plainly(function: str, client: Any, conversation: Conversation[T]) -> T:
    if not isinstance(client, AsyncConnectClient):
        result = carry_out(client, conversation)
        if not inspect.isawaitable(result):  # which is what another async client gives
            return result
    raise WrongClient(f"{function} was given an async client: await a{function}(...), or give a ConnectClient")


async def _async(function: str, client: Any, conversation: Conversation[T]) -> T:
    if isinstance(client, ConnectClient):
        raise WrongClient(f"a{function} was given a ConnectClient: call {function}(...), or give an AsyncConnectClient")
    result = carry_out(client, conversation)
    return await result if inspect.isawaitable(result) else result
