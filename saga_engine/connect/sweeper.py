"""The sweeper of an extension: carries on the orders that no delivery carries on, with what a delivery would give them.

A scheduled task gets one client. Sagas whose handlers are plain get a `ConnectClient`, those whose handlers are async
an `AsyncConnectClient`, as in their handlers: the sweeper makes the one that is missing of the other.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from connect.client import AsyncConnectClient, ConnectClient
from connect.eaas.core.responses import ScheduledExecutionResponse

from saga_engine.recovery import Recovered, ServicesOf
from saga_engine.runner_limits import schedule_budget_s
from saga_engine.saga import Saga

__all__ = ["for_handler", "sweep"]

#: How many reasons the answer holds, which people read.
_REASONS_MAX = 10

Application = TypeVar("Application")


async def sweep(sagas: Iterable[Saga]) -> ScheduledExecutionResponse:
    """Carry on the executions of these sagas that are due, have mail, or were left by a dead process.

    Args:
        sagas: made as for a delivery; what they were made with is what their steps get.

    Returns:
        done; or a fail that says which executions could not be carried on, and why.
    """
    by_engine: dict[Any, dict[str, Saga]] = {}
    for saga in sagas:
        by_engine.setdefault(saga.engine, {})[type(saga).__name__] = saga
    results = []
    for engine, named in by_engine.items():
        kinds, budget_s = [type(saga) for saga in named.values()], schedule_budget_s() / len(by_engine)
        results.append(await engine.arecover(sagas=kinds, services=_services_of(named), budget_s=budget_s))
    return _answer(results)


def _services_of(named: Mapping[str, Saga]) -> ServicesOf:
    return lambda record: named[record.saga].services_given


def _answer(results: Iterable[Recovered]) -> ScheduledExecutionResponse:
    taken = left = 0
    reasons: dict[str, str] = {}
    for result in results:
        taken += result
        left += result.left_alone + result.failed
        reasons.update(result.reasons)
    if not left:
        return ScheduledExecutionResponse.done()
    shown = [f"{saga_id}: {reason}" for saga_id, reason in list(reasons.items())[:_REASONS_MAX]]
    text = f"{taken} carried on, {left} could not be: {'; '.join(shown)}"
    return ScheduledExecutionResponse.fail(text if left <= len(shown) else f"{text}; and {left - len(shown)} more")


def for_handler(application: Application, is_async: bool) -> Application:
    """Give the application as a plain, or an async, handler would see it: with clients of that kind."""
    seen = copy.copy(application)
    for name in ("client", "installation_client"):
        setattr(seen, name, _client_of_kind(getattr(application, name), is_async))
    return seen


def _client_of_kind(client: Any, is_async: bool) -> Any:
    if is_async and isinstance(client, ConnectClient):
        return AsyncConnectClient(**_settings(client))
    if not is_async and isinstance(client, AsyncConnectClient):
        return ConnectClient(**_settings(client))
    return client


def _settings(client: Any) -> Mapping[str, Any]:
    names = ("api_key", "endpoint", "default_headers", "default_limit", "max_retries", "logger", "timeout")
    return {"use_specs": False, **{name: getattr(client, name) for name in names}}
