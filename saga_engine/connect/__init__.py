"""Sagas inside a CloudBlue Connect extension: its events, its schedule, its web application.

A name is imported from its module when it is first asked for: Connect's own packages take seconds to import, and what
tests one step needs few of them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saga_engine.connect.actions import (
        aapprove,
        afail,
        ainquire,
        approve,
        aupdate_parameters,
        fail,
        inquire,
        update_parameters,
    )
    from saga_engine.connect.api_errors import (
        CONNECT_RETRY,
        ConnectError,
        ConnectUnavailable,
        RefusedByConnect,
        WrongClient,
    )
    from saga_engine.connect.application import SagaEventsApplication, on
    from saga_engine.connect.executions import executions_router
    from saga_engine.connect.local import LocalConnect
    from saga_engine.connect.request_errors import (
        BadValue,
        MissingField,
        MissingInRequest,
        MissingItem,
        MissingParameter,
        MissingTier,
    )
    from saga_engine.connect.request_logs import request_logger
    from saga_engine.connect.requests import UNLIMITED, AssetRequest, Item
    from saga_engine.connect.responses import BackgroundResponse
    from saga_engine.connect.steps import (
        ApproveRequest,
        InquireCustomer,
        RejectRequest,
        RejectWhenUndone,
        UpdateParameters,
    )
    from saga_engine.connect.tier_requests import TierConfigRequest
    from saga_engine.connect.web import engine_application
    from saga_engine.runner_limits import delivery_budget_s

__all__ = [
    "ApproveRequest",
    "AssetRequest",
    "BackgroundResponse",
    "BadValue",
    "CONNECT_RETRY",
    "ConnectError",
    "ConnectUnavailable",
    "InquireCustomer",
    "Item",
    "LocalConnect",
    "MissingField",
    "MissingInRequest",
    "MissingItem",
    "MissingParameter",
    "MissingTier",
    "RefusedByConnect",
    "RejectRequest",
    "RejectWhenUndone",
    "SagaEventsApplication",
    "TierConfigRequest",
    "UNLIMITED",
    "UpdateParameters",
    "WrongClient",
    "aapprove",
    "afail",
    "ainquire",
    "approve",
    "aupdate_parameters",
    "delivery_budget_s",
    "engine_application",
    "executions_router",
    "fail",
    "inquire",
    "on",
    "request_logger",
    "update_parameters",
]

_HOMES = {
    "ApproveRequest": "saga_engine.connect.steps",
    "AssetRequest": "saga_engine.connect.requests",
    "BackgroundResponse": "saga_engine.connect.responses",
    "BadValue": "saga_engine.connect.request_errors",
    "CONNECT_RETRY": "saga_engine.connect.api_errors",
    "ConnectError": "saga_engine.connect.api_errors",
    "ConnectUnavailable": "saga_engine.connect.api_errors",
    "InquireCustomer": "saga_engine.connect.steps",
    "Item": "saga_engine.connect.requests",
    "LocalConnect": "saga_engine.connect.local",
    "MissingField": "saga_engine.connect.request_errors",
    "MissingInRequest": "saga_engine.connect.request_errors",
    "MissingItem": "saga_engine.connect.request_errors",
    "MissingParameter": "saga_engine.connect.request_errors",
    "MissingTier": "saga_engine.connect.request_errors",
    "RefusedByConnect": "saga_engine.connect.api_errors",
    "RejectRequest": "saga_engine.connect.steps",
    "RejectWhenUndone": "saga_engine.connect.steps",
    "SagaEventsApplication": "saga_engine.connect.application",
    "TierConfigRequest": "saga_engine.connect.tier_requests",
    "UNLIMITED": "saga_engine.connect.requests",
    "UpdateParameters": "saga_engine.connect.steps",
    "WrongClient": "saga_engine.connect.api_errors",
    "aapprove": "saga_engine.connect.actions",
    "afail": "saga_engine.connect.actions",
    "ainquire": "saga_engine.connect.actions",
    "approve": "saga_engine.connect.actions",
    "aupdate_parameters": "saga_engine.connect.actions",
    "delivery_budget_s": "saga_engine.runner_limits",
    "engine_application": "saga_engine.connect.web",
    "executions_router": "saga_engine.connect.executions",
    "fail": "saga_engine.connect.actions",
    "inquire": "saga_engine.connect.actions",
    "on": "saga_engine.connect.application",
    "request_logger": "saga_engine.connect.request_logs",
    "update_parameters": "saga_engine.connect.actions",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value  # the next time, nobody asks here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
