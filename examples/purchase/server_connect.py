"""The part of the Connect API that a fulfillment uses, as the example's other side plays it."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from examples.purchase.server_state import Answer, Call, ServerState, encode, record

__all__ = ["approve", "create", "fail", "get", "inquire", "update"]

_OPEN_STATUSES = ("pending", "inquiring")


def create(state: ServerState, call: Call) -> Answer:
    """Take an asset request in as pending, under the id that it brings along."""
    denied = _denied(call)
    if denied is not None:
        return denied
    try:
        request = {**call.body, "status": "pending"}
        row = (request["id"], encode(request), encode(_values(request)))
    except (KeyError, TypeError) as e:
        return _no("VAL_001", f"send a whole asset request, with id and asset.params: {e!r}")
    with state.transaction() as connection:
        if _load(connection, request["id"]) is not None:
            return _no("VAL_002", f"Request {request['id']} already exists.")
        connection.execute("INSERT INTO connect_request VALUES (?, ?, ?)", row)
    return Answer(201, request)


def get(state: ServerState, call: Call) -> Answer:
    """Give a request as it is now."""
    with state.transaction() as connection:
        found = _denied(call) or _find(connection, call)
    return found if isinstance(found, Answer) else Answer(200, found)


def update(state: ServerState, call: Call) -> Answer:
    """Write the values of asset parameters; what is not named stays."""
    with state.transaction() as connection:
        request = _denied(call) or _find(connection, call)
        if isinstance(request, Answer):
            return request
        if request["status"] not in _OPEN_STATUSES:
            return _no("REQ_003", f"A request in status {request['status']} cannot be updated.")
        if call.refusal is not None:
            return _no("VAL_001", call.refusal)
        before = _values(request)
        unknown = _write_values(request, call.body)
        if unknown:
            return _no("VAL_001", f"Unknown parameters: {', '.join(unknown)}")
        if _values(request) != before:
            _save(connection, request)
            record(connection, _change(connection, request), "parameters", call.object_id, call.object_id)
    return Answer(200, request)


def approve(state: ServerState, call: Call) -> Answer:
    """Approve a pending request, whose required parameters must all have a value."""
    return _transition(state, call, "approved", ("pending",))


def fail(state: ServerState, call: Call) -> Answer:
    """Fail a request that is still open, with the reason in the body."""
    if not call.body.get("reason"):
        return _denied(call) or _no("VAL_001", "reason: This field is required.")
    return _transition(state, call, "failed", _OPEN_STATUSES)


def inquire(state: ServerState, call: Call) -> Answer:
    """Ask the customer for better parameters."""
    return _transition(state, call, "inquiring", ("pending",))


def _transition(state: ServerState, call: Call, status: str, allowed: tuple[str, ...]) -> Answer:
    with state.transaction() as connection:
        request = _denied(call) or _find(connection, call)
        if isinstance(request, Answer):
            return request
        if request["status"] not in allowed:
            return _no("REQ_003", f"A request in status {request['status']} cannot become {status}.")
        refusal = call.refusal or (_unfilled(request) if status == "approved" else None)
        if refusal:
            return _no("VAL_001", refusal)
        request["status"] = status
        request["reason"] = call.body.get("reason", request.get("reason", ""))
        if status == "approved":
            request["asset"]["status"] = "active"
            record(connection, "effect", "approval", call.object_id, call.object_id)
        _save(connection, request)
    return Answer(200, request)


def _unfilled(request: dict[str, Any]) -> str | None:
    empty = [
        param["id"]
        for param in request["asset"]["params"]
        if param.get("constraints", {}).get("required") and not param.get("value")
    ]
    return f"Required parameters without a value: {', '.join(empty)}." if empty else None


def _write_values(request: dict[str, Any], body: Any) -> list[str]:
    """Set the values that the body names; give what the request does not have."""
    params = {param["id"]: param for param in request["asset"]["params"]}
    try:
        sent = {param["id"]: param["value"] for param in body["asset"]["params"]}
    except (KeyError, TypeError):
        return ["send asset.params, each with id and value"]
    unknown = sorted(sent.keys() - params.keys())
    if not unknown:
        for name, value in sent.items():
            params[name]["value"] = value
    return unknown


def _change(connection: sqlite3.Connection, request: dict[str, Any]) -> str:
    """Tell an undo from an effect: an undo brings the values back with which the request came in."""
    row = connection.execute("SELECT received FROM connect_request WHERE id = ?", (request["id"],)).fetchone()
    return "undo" if row["received"] == encode(_values(request)) else "effect"


def _values(request: dict[str, Any]) -> dict[str, str]:
    return {param["id"]: param.get("value", "") for param in request["asset"]["params"]}


def _find(connection: sqlite3.Connection, call: Call) -> dict[str, Any] | Answer:
    request = _load(connection, call.object_id)
    return request if request is not None else _no("NFND_000", "Object not found.", status=404)


def _load(connection: sqlite3.Connection, request_id: str) -> dict[str, Any] | None:
    row = connection.execute("SELECT body FROM connect_request WHERE id = ?", (request_id,)).fetchone()
    if row is None:
        return None
    request: dict[str, Any] = json.loads(row["body"])
    return request


def _save(connection: sqlite3.Connection, request: dict[str, Any]) -> None:
    connection.execute("UPDATE connect_request SET body = ? WHERE id = ?", (encode(request), request["id"]))


def _denied(call: Call) -> Answer | None:
    if call.authorization.startswith("ApiKey "):
        return None
    return _no("AUTH_001", "API request is unauthorized.", status=401)


def _no(error_code: str, error: str, *, status: int = 400) -> Answer:
    return Answer(status, {"error_code": error_code, "errors": [error]})
