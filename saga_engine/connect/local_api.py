"""The part of the Connect API that a fulfillment and Connect's runner use, as the local Connect plays it."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from saga_engine.connect.local_errors import BadQuery
from saga_engine.connect.local_query import Query
from saga_engine.connect.local_state import Answer, Call, LocalState, encode, record

__all__ = ["API_PATH", "ASSET_REQUESTS", "CONNECT_ROUTES", "TIER_CONFIG_REQUESTS", "Requests", "Route", "is_known_key"]

#: Where Connect's API begins.
API_PATH = "/public/v1"
_OPEN_STATUSES = ("pending", "inquiring")
#: An id that can stand in the path of a URL.
_ID = re.compile(r"\w[\w.-]*")
#: What of a parameter is the fulfillment's to write.
_WRITABLE = ("value", "structured_value", "value_error")
_NOUNS = {"approved": "approval", "failed": "failure", "inquiring": "inquiry"}

Operation = Callable[[LocalState, Call], Answer]


@dataclass(frozen=True)
class Route:
    """Where an operation is found.

    Args:
        method: the HTTP method.
        pattern: a regular expression for the whole path; its group, if it has one, is the id of an object.
        operation: the name of the operation, for faults and the list of calls.
        carry_out: what answers.
    """

    method: str
    pattern: str
    operation: str
    carry_out: Operation


@dataclass(frozen=True)
class Requests:
    """A collection of requests: those of assets, or those of tier configurations.

    Args:
        path: its path below `API_PATH`.
        noun: what one of them is called in the names of operations.
        object_key: under which key a request holds what is requested.
        holder: under which key it holds the parameters that a fulfillment writes; empty: in the request itself.
    """

    path: str
    noun: str
    object_key: str
    holder: str

    def routes(self) -> list[Route]:
        """List where the operations on it are found."""
        whole, one = f"{API_PATH}/{self.path}", f"{API_PATH}/{self.path}/([^/]+)"
        return [
            _route("POST", whole, f"create_{self.noun}", self.create),
            _route("GET", whole, f"list_{self.noun}s", self.search),
            _route("GET", one, f"get_{self.noun}", self.get),
            _route("PUT", one, f"update_{self.noun}", self.update),
            _route("POST", f"{one}/approve", f"approve_{self.noun}", self.approve),
            _route("POST", f"{one}/fail", f"fail_{self.noun}", self.fail),
            _route("POST", f"{one}/inquire", f"inquire_{self.noun}", self.inquire),
        ]

    def create(self, state: LocalState, call: Call) -> Answer:
        """Take a request in as pending, under the id that it brings along."""
        request = {**call.body, "status": "pending"}
        received = self._received(request)
        if received is None:
            place = f"{self.holder}.params" if self.holder else f"params and {self.object_key}"
            return _no("VAL_001", f"send a whole {self.noun}, with id and {place}")
        row = (self.path, request["id"], encode(request), received)
        with state.transaction() as connection:
            if self._load(connection, request["id"]) is not None:
                return _no("VAL_002", f"Request {request['id']} already exists.")
            if call.refusal is not None:
                return _no("VAL_001", call.refusal)
            connection.execute("INSERT INTO request (collection, id, body, received) VALUES (?, ?, ?, ?)", row)
        return Answer(201, request)

    def search(self, state: LocalState, call: Call) -> Answer:
        """Give the requests that a query means, and how many there are altogether."""
        try:
            query = Query.from_text(unquote(call.query))
        except BadQuery as e:
            return _no("VAL_001", str(e))
        with state.transaction() as connection:
            rows = connection.execute("SELECT body FROM request WHERE collection = ? ORDER BY number", (self.path,))
            meant = [request for row in rows if query.is_meant(request := json.loads(row["body"]))]
        page = meant[query.offset : query.offset + query.limit]
        last = max(query.offset + len(page) - 1, query.offset)
        return Answer(200, page, {"Content-Range": f"items {query.offset}-{last}/{len(meant)}"})

    def get(self, state: LocalState, call: Call) -> Answer:
        """Give a request as it is now."""
        with state.transaction() as connection:
            found = self._find(connection, call)
        return found if isinstance(found, Answer) else Answer(200, found)

    def update(self, state: LocalState, call: Call) -> Answer:
        """Write the values of parameters, and the note; what is not named stays."""
        with state.transaction() as connection:
            request = self._find(connection, call)
            if isinstance(request, Answer):
                return request
            if request["status"] not in _OPEN_STATUSES:
                return _no("REQ_003", f"A request in status {request['status']} cannot be updated.")
            if call.refusal is not None:
                return _no("VAL_001", call.refusal)
            before = encode(self._written(request))
            problem = self._write(request, call.body)
            if problem:
                return _no("VAL_001", problem)
            if encode(self._written(request)) != before:
                record(connection, self._change(connection, request), "parameters", call.object_id, call.object_id)
            self._save(connection, request)
        return Answer(200, request)

    def approve(self, state: LocalState, call: Call) -> Answer:
        """Approve a pending request, whose required parameters must all have a value."""
        return self._transition(state, call, "approved", ("pending",))

    def fail(self, state: LocalState, call: Call) -> Answer:
        """Fail a request that is still open, with the reason in the body."""
        if not call.body.get("reason"):
            return _no("VAL_001", "reason: This field is required.")
        return self._transition(state, call, "failed", _OPEN_STATUSES)

    def inquire(self, state: LocalState, call: Call) -> Answer:
        """Ask the customer for better parameters."""
        return self._transition(state, call, "inquiring", ("pending",))

    def overwrite(self, state: LocalState, request_id: str, fields: Mapping[str, Any]) -> Answer:
        """Change any fields of a request, as somebody does in Connect itself; nothing of it goes into the ledger."""
        with state.transaction() as connection:
            request = self._load(connection, request_id)
            if request is None:
                return _no("NFND_000", "Object not found.", status=404)
            request.update(fields)
            self._save(connection, request)
        return Answer(200, request)

    def _transition(self, state: LocalState, call: Call, status: str, allowed: tuple[str, ...]) -> Answer:
        with state.transaction() as connection:
            request = self._find(connection, call)
            if isinstance(request, Answer):
                return request
            if request["status"] not in allowed:
                return _no("REQ_003", f"A request in status {request['status']} cannot become {status}.")
            refusal = call.refusal or (self._unfilled(request) if status == "approved" else None)
            if refusal:
                return _no("VAL_001", refusal)
            request["status"] = status
            request["reason"] = call.body.get("reason", request.get("reason", ""))
            if status == "approved":
                request[self.object_key]["status"] = "active"
            record(connection, "effect", _NOUNS[status], call.object_id, call.object_id)
            self._save(connection, request)
        return Answer(200, request)

    def _params(self, request: Mapping[str, Any]) -> list[dict[str, Any]]:
        params: list[dict[str, Any]] = (request[self.holder] if self.holder else request)["params"]
        return params

    def _unfilled(self, request: Mapping[str, Any]) -> str | None:
        empty = [
            param["id"]
            for param in self._params(request)
            if _is_required(param) and not param.get("value") and not param.get("structured_value")
        ]
        return f"Required parameters without a value: {', '.join(empty)}." if empty else None

    def _write(self, request: dict[str, Any], body: Mapping[str, Any]) -> str | None:
        """Write what the body names; give what is wrong with it, in which case nothing is written."""
        place = f"{self.holder}.params" if self.holder else "params"
        known = {param["id"]: param for param in self._params(request)}
        try:
            holder = body.get(self.holder, {"params": []}) if self.holder else {"params": [], **body}
            sent = {each["id"]: {key: each[key] for key in _WRITABLE if key in each} for each in holder["params"]}
        except (KeyError, TypeError):
            return f"send {place}, each with id and value"
        unknown = sorted(sent.keys() - known.keys())
        if unknown:
            return f"Unknown parameters: {', '.join(unknown)}"
        for name, values in sent.items():
            known[name].update(values)
        if "note" in body:
            request["note"] = body["note"]
        return None

    def _received(self, request: Mapping[str, Any]) -> str | None:
        """Give what the parameters of a request hold that comes in, as JSON; None: it is no whole request."""
        has_id = isinstance(request.get("id"), str) and _ID.fullmatch(request["id"])
        if not has_id or not isinstance(request.get(self.object_key), dict):
            return None
        try:
            return encode(self._written(request))
        except (AttributeError, KeyError, TypeError):
            return None

    def _written(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Give what the parameters hold; empty is as good as nothing."""
        return {
            param["id"]: {key: param[key] for key in _WRITABLE if param.get(key)} for param in self._params(request)
        }

    def _change(self, connection: sqlite3.Connection, request: Mapping[str, Any]) -> str:
        """Tell an undo from an effect: an undo brings the values back with which the request came in."""
        row = connection.execute(
            "SELECT received FROM request WHERE collection = ? AND id = ?", (self.path, request["id"])
        ).fetchone()
        return "undo" if row["received"] == encode(self._written(request)) else "effect"

    def _find(self, connection: sqlite3.Connection, call: Call) -> dict[str, Any] | Answer:
        request = self._load(connection, call.object_id)
        return request if request is not None else _no("NFND_000", "Object not found.", status=404)

    def _load(self, connection: sqlite3.Connection, request_id: str) -> dict[str, Any] | None:
        row = connection.execute(
            "SELECT body FROM request WHERE collection = ? AND id = ?", (self.path, request_id)
        ).fetchone()
        if row is None:
            return None
        request: dict[str, Any] = json.loads(row["body"])
        return request

    def _save(self, connection: sqlite3.Connection, request: Mapping[str, Any]) -> None:
        connection.execute(
            "UPDATE request SET body = ? WHERE collection = ? AND id = ?", (encode(request), self.path, request["id"])
        )


def get_schedule(state: LocalState, call: Call) -> Answer:
    """Give a schedule: the runner asks which method to call."""
    with state.transaction() as connection:
        row = connection.execute("SELECT body FROM schedule WHERE id = ?", (call.object_id,)).fetchone()
    return Answer(200, json.loads(row["body"])) if row else _no("NFND_000", "Object not found.", status=404)


def get_environment(state: LocalState, call: Call) -> Answer:
    """Give the environment of the extension: the runner's master asks when it has restarted a worker."""
    return Answer(200, {"id": call.object_id, "type": "development", "runtime": "local"})


def is_known_key(authorization: str) -> bool:
    """Tell whether Connect lets somebody in: whoever has an API key, whichever it is."""
    return authorization.startswith("ApiKey ")


def _route(method: str, pattern: str, operation: str, carry_out: Operation) -> Route:
    """Make a route for those who have a key; what only reads is refused here, the others know better when to."""

    def admit(state: LocalState, call: Call) -> Answer:
        if not is_known_key(call.authorization):
            return _no("AUTH_001", "API request is unauthorized.", status=401)
        if method == "GET" and call.refusal is not None:
            return _no("VAL_001", call.refusal)
        return carry_out(state, call)

    return Route(method, pattern, operation, admit)


def _is_required(param: Mapping[str, Any]) -> bool:
    constraints = param.get("constraints")
    return isinstance(constraints, Mapping) and bool(constraints.get("required"))


def _no(error_code: str, error: str, *, status: int = 400) -> Answer:
    return Answer(status, {"error_code": error_code, "errors": [error]})


ASSET_REQUESTS = Requests("requests", "request", "asset", "asset")
TIER_CONFIG_REQUESTS = Requests("tier/config-requests", "tier_config_request", "configuration", "")
_ENVIRONMENT = rf"{API_PATH}/devops/services/[^/]+/environments/([^/]+)"

CONNECT_ROUTES = (
    *ASSET_REQUESTS.routes(),
    *TIER_CONFIG_REQUESTS.routes(),
    _route("GET", _ENVIRONMENT, "get_environment", get_environment),
    _route("GET", _ENVIRONMENT.replace("([^/]+)", "[^/]+") + r"/schedules/([^/]+)", "get_schedule", get_schedule),
)
