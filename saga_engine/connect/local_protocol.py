"""The frames that Connect and its runner exchange over a WebSocket: version 2 of the protocol, JSON texts."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from saga_engine.connect.local_api import ASSET_REQUESTS, TIER_CONFIG_REQUESTS, Requests
from saga_engine.connect.local_errors import TaskRefused

__all__ = [
    "ENVIRONMENT_ID",
    "SERVICE_ID",
    "Category",
    "TaskResult",
    "category_of",
    "collection_of",
    "default_event",
    "setup_response",
    "task_frame",
    "web_task_frame",
]

#: The runner makes the service's id from the environment's.
ENVIRONMENT_ID, SERVICE_ID = "ENV-0000-0000-01", "SRVC-0000-0000"
_FILTER = "and(eq(id,${_object_id_}),in(status,${_statuses_}))"
_INTERACTIVE = ("product_action_execution", "product_custom_event_processing")

Category = str  #: "background", "interactive" or "scheduled"


@dataclass(frozen=True)
class TaskResult:
    """What the runner told of one delivery of a task.

    Args:
        result: "success", "fail", "skip", "reschedule" or "retry".
        message: the output of a `fail` or `skip`; of a `retry` the traceback.
        countdown_s: of a `reschedule`: seconds until it wants the next delivery.
        runtime_s: how long the handler took, in seconds.
        data: what an interactive handler answered: `http_status`, `headers`, `body`.
        at: when it came in: UTC, ISO 8601.
    """

    result: str
    message: str | None
    countdown_s: int
    runtime_s: float
    data: Any
    at: str

    @property
    def is_final(self) -> bool:
        """Tell whether Connect delivers the task no more."""
        return self.result in ("success", "fail", "skip")

    @classmethod
    def from_output(cls, output: Mapping[str, Any], at: str) -> TaskResult:
        """Read the `output` of a task that came back."""
        return cls(
            output["result"],
            output.get("message"),
            int(output.get("countdown") or 0),
            float(output.get("runtime") or 0.0),
            output.get("data"),
            at,
        )


def default_event(request: Mapping[str, Any]) -> str:
    """Give the event with which Connect delivers a request that is to be processed.

    Args:
        request: an asset request, or a tier configuration request.

    Raises:
        TaskRefused: it is neither.
    """
    kind = request.get("type")
    if not isinstance(kind, str) or not isinstance(request.get("id"), str):
        raise TaskRefused("this is no request of Connect: it needs an id and a type, such as PR-1 and purchase")
    if "asset" in request:
        return f"asset_{kind}_request_processing"
    if "configuration" in request:
        return f"tier_config_{kind}_request_processing"
    raise TaskRefused(f"{request['id']} has neither an asset nor a configuration: give an asset or tier config request")


def category_of(event_type: str) -> Category:
    """Tell how the runner is to treat an event."""
    if event_type == "scheduled_execution":
        return "scheduled"
    is_interactive = event_type.endswith("_validation") or event_type in _INTERACTIVE
    return "interactive" if is_interactive else "background"


def collection_of(event_type: str) -> Requests | None:
    """Give the collection whose requests an event is about; None: the local Connect plays no such one."""
    if event_type.startswith("asset_"):
        return ASSET_REQUESTS
    return TIER_CONFIG_REQUESTS if event_type.startswith("tier_config_") else None


def setup_response(
    setup_request: Mapping[str, Any], variables: Mapping[str, str], product_ids: Sequence[str], log_level: str
) -> str:
    """Answer a worker that has said what its extension can do.

    Args:
        setup_request: the `data` of its frame.
        variables: the extension's variables.
        product_ids: the products that the extension is for.
        log_level: from which level on the extension logs.
    """
    meta = {
        "service_id": SERVICE_ID,
        "account_id": "VA-000-000",
        "account_name": "Local Connect",
        "products": list(product_ids),
        "hub_id": None,
        "repository_tag": None,
    }
    data = {
        "model_type": "setup_response",
        "variables": [{"name": name, "value": value, "secure": False} for name, value in variables.items()],
        "environment_type": "development",
        "logging": {"logging_api_key": None, "log_level": log_level, "runner_log_level": None, "meta": meta},
        "event_definitions": [_definition(event) for event in setup_request.get("event_subscriptions") or {}],
    }
    return _frame("setup_response", data)


def _definition(event_type: str) -> dict[str, str]:
    path = (collection_of(event_type) or ASSET_REQUESTS).path
    return {
        "event_type": event_type,
        "api_collection_endpoint": path,
        "api_resource_endpoint": f"{path}/{{pk}}",
        "api_collection_filter": _FILTER,
    }


def task_frame(task_id: str, category: Category, event_type: str, object_id: str, data: Any) -> str:
    """Deliver a task.

    Args:
        data: what an interactive handler is given; the others ask for it.
    """
    task = {
        "model_type": "task",
        "options": {"task_id": task_id, "task_category": category},
        "input": {"event_type": event_type, "object_id": object_id, "data": data},
    }
    return _frame("task", task)


def web_task_frame(correlation_id: str, method: str, path: str, headers: Mapping[str, str], body: bytes) -> str:
    """Send an HTTP request to the extension's web application."""
    task = {
        "model_type": "web_task",
        "options": {
            "correlation_id": correlation_id,
            "reply_to": "local",
            "user_id": "UR-000-000-000",
            "account_id": "VA-000-000",
            "account_role": "vendor",
            "call_type": "admin",
            "call_source": "ui",
        },
        "request": {
            "method": method,
            "url": path,
            "headers": dict(headers),
            "content": base64.encodebytes(body).decode(),
        },
    }
    return _frame("web_task", task)


def _frame(message_type: str, data: Mapping[str, Any]) -> str:
    return json.dumps({"version": 2, "message_type": message_type, "data": data})
