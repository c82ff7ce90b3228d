"""A little of the Connect API on loopback: requests that are approved, failed, inquired and updated, and faults."""

from __future__ import annotations

import copy
import json
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from connect.client import AsyncConnectClient, ConnectClient

__all__ = ["ASSET_REQUEST", "FAULTS", "HANGS", "TIER_REQUEST", "ConnectStub", "connect_stub"]

ASSET_REQUEST: dict[str, Any] = {
    "id": "PR-1",
    "type": "purchase",
    "status": "pending",
    "marketplace": {"id": "MP-1"},
    "asset": {
        "id": "AS-1",
        "connection": {"id": "CT-1", "type": "production", "hub": {"id": "HB-1"}},
        "product": {"id": "PRD-1"},
        "items": [
            {
                "id": "PRD-1-0001",
                "mpn": "MAIL",
                "quantity": "10",
                "old_quantity": "0",
                "params": [{"id": "sku", "value": "M-1"}],
            },
            {"id": "BACKUP", "global_id": "PRD-1-0002", "mpn": "BKP", "quantity": "unlimited", "old_quantity": "2.5"},
        ],
        "params": [
            {"id": "email", "type": "email", "phase": "ordering", "value": "a@b.example", "constraints": {}},
            {"id": "domain", "type": "text", "phase": "ordering", "value": "", "constraints": {"required": True}},
            {"id": "tenant", "type": "text", "phase": "fulfillment", "value": "", "value_error": ""},
            {"id": "phone", "type": "phone", "value": "+34 1", "structured_value": {"country_code": "+34"}},
        ],
        "tiers": {"customer": {"id": "TA-1", "name": "Customer"}, "tier1": {"id": "TA-2"}, "tier2": {}},
        "configuration": {"params": [{"id": "region", "type": "text", "value": "eu"}]},
    },
}

TIER_REQUEST: dict[str, Any] = {
    "id": "TCR-1",
    "type": "setup",
    "status": "pending",
    "params": [{"id": "reseller_id", "type": "text", "value": ""}],
    "configuration": {
        "id": "TC-1",
        "account": {"id": "TA-2", "name": "Reseller"},
        "product": {"id": "PRD-1"},
        "params": [{"id": "reseller_id", "type": "text", "value": ""}],
        "tier_level": 1,
    },
}

#: Before the work is done: it is not done. After it: it is done, and nobody is told.
FAULTS = (
    "401", "429", "500", "garbled", "null", "page", "silent",
    "500 after work", "garbled after work", "page after work", "silent after work",
)  # fmt: skip
#: After the work is done: the connection is held until the caller gives up.
HANGS = "hangs after work"

_ROOT = "/public/v1/"
_ENDS = {"approve": "approved", "fail": "failed", "inquire": "inquiring"}
_FROM = {"fail": ("pending",), "inquire": ("pending",)}
_RETRY_AFTER_S = 7
_HANGS_S = 30.0


class ConnectStub(ThreadingHTTPServer):
    """The server.

    Attributes:
        requests: the requests as they stand, by id.
        effects: what has changed, oldest first: `approve PR-1`, `update PR-1 tenant=T-1`.
        calls: every call that came in: `GET requests/PR-1`.
        bodies: the bodies of those calls.
        faults: what is to go wrong at the next calls, by verb: "get", "update", "approve", "fail", "inquire".
        timeout_s: how long its clients wait for an answer.
        approved_from: how a request may stand to be approved.
    """

    daemon_threads = True

    def __init__(self, *requests: dict[str, Any]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests = {request["id"]: copy.deepcopy(request) for request in requests}
        self.effects: list[str] = []
        self.calls: list[str] = []
        self.bodies: list[Any] = []
        self.faults: dict[str, list[str]] = defaultdict(list)
        self.timeout_s = 5.0
        self.approved_from = ("pending", "inquiring")
        self.lock = threading.Lock()
        self.stopping = threading.Event()

    @property
    def client(self) -> ConnectClient:
        """A plain client, which repeats nothing by itself."""
        return ConnectClient("ApiKey SU-1:test", self._url, max_retries=0, timeout=self.timeout_s)

    @property
    def async_client(self) -> AsyncConnectClient:
        """An async client, which repeats nothing by itself."""
        return AsyncConnectClient("ApiKey SU-1:test", self._url, max_retries=0, timeout=self.timeout_s)

    @property
    def _url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{_ROOT.rstrip('/')}"

    def fault(self, verb: str, *kinds: str) -> None:
        """Let the next calls of a verb go wrong, one after the other; `fine` for one that does not."""
        self.faults[verb].extend(kinds)

    def values(self, request_id: str) -> dict[str, Any]:
        """Give the values of a request's parameters."""
        return {param["id"]: param.get("value") for param in _params(self.requests[request_id])}

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any] | None:
        """Answer one call: a status and a body; None: close the connection without an answer."""
        collection, request_id, action = _parts(path)
        verb = action or {"GET": "get", "PUT": "update"}[method]
        self.calls.append(f"{method} {path.removeprefix(_ROOT)}")
        self.bodies.append(body)
        kind = self.faults[verb].pop(0) if self.faults[verb] else "fine"
        if kind == "fine" or kind.endswith(" after work"):
            done = self._do(collection, verb, request_id, body)
            return done if kind == "fine" else _faulty(kind.removesuffix(" after work"))
        return _faulty(kind)

    def _do(self, collection: str, verb: str, request_id: str, body: Any) -> tuple[int, Any]:
        request = self.requests.get(request_id)
        if request is None or ("asset" in request) != (collection == "requests"):
            return 404, {"error_code": "NFND_000", "errors": ["Object not found."]}
        if verb == "update":
            return self._update(request, body)
        if verb in _ENDS:
            return self._move(request, verb, body)
        return 200, request

    def _update(self, request: dict[str, Any], body: Any) -> tuple[int, Any]:
        if request["status"] not in ("pending", "inquiring"):
            return 400, {"error_code": "REQ_005", "errors": ["Only open requests can be changed."]}
        sent = body["asset"]["params"] if "asset" in request else body["params"]
        params = {param["id"]: param for param in _params(request)}
        for change in sent:
            if params[change["id"]] != {**params[change["id"]], **change}:
                params[change["id"]].update(change)
                told = ",".join(f"{k}={v}" for k, v in change.items() if k != "id")
                self.effects.append(f"update {request['id']} {change['id']}: {told}")
        return 200, request

    def _move(self, request: dict[str, Any], verb: str, body: Any) -> tuple[int, Any]:
        if request["status"] not in _FROM.get(verb, self.approved_from):
            return 400, {"error_code": "REQ_003", "errors": [f"Only pending requests can be {_ENDS[verb]}."]}
        request["status"] = _ENDS[verb]
        request["reason"] = body.get("reason", "")
        self.effects.append(f"{verb} {request['id']}")
        return 200, request if "asset" in request else {"id": "TL-1", "representation": "Welcome"}


def _params(request: dict[str, Any]) -> list[dict[str, Any]]:
    params: list[dict[str, Any]] = request["asset"]["params"] if "asset" in request else request["params"]
    return params


def _parts(path: str) -> tuple[str, str, str]:
    rest = path.removeprefix(_ROOT)
    collection = "tier/config-requests" if rest.startswith("tier/") else "requests"
    request_id, _, action = rest.removeprefix(f"{collection}/").partition("/")
    return collection, request_id, action


def _faulty(kind: str) -> tuple[int, Any] | None:
    if kind == "silent":
        return None
    if kind == "null":
        return 503, b"null"
    if kind == "garbled":
        return 200, b'{"id": '
    if kind in ("empty", "another"):
        return 200, {} if kind == "empty" else {"id": "PR-2", "status": "approved", "asset": {}}
    if kind in ("page", HANGS.removesuffix(" after work")):
        return 200, "<html>We are back soon.</html>" if kind == "page" else HANGS
    return int(kind), {"error_code": f"ERR_{kind}", "errors": ["a fault"]}


class _Handler(BaseHTTPRequestHandler):
    """Turns HTTP into calls of `ConnectStub.answer`."""

    server: ConnectStub

    def _handle(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        with self.server.lock:
            answer = self.server.answer(self.command, self.path, body)
            payload = None if answer is None else _encoded(answer[1])
        if answer is None or payload is None:
            return
        if answer[1] == HANGS:
            self.server.stopping.wait(_HANGS_S)
            return
        self.send_response(answer[0])
        self.send_header("Content-Type", "text/html" if isinstance(answer[1], str) else "application/json")
        self.send_header("Content-Length", str(len(payload)))
        if answer[0] == 429:
            self.send_header("Retry-After", str(_RETRY_AFTER_S))
        self.end_headers()
        self.wfile.write(payload)

    do_GET = do_POST = do_PUT = _handle

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def _encoded(body: Any) -> bytes:
    if isinstance(body, bytes):
        return body
    return (body if isinstance(body, str) else json.dumps(body)).encode()


@contextmanager
def connect_stub(*requests: dict[str, Any]) -> Iterator[ConnectStub]:
    """Run a stub with these requests for as long as the block lasts."""
    stub = ConnectStub(*requests)
    thread = threading.Thread(target=stub.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        stub.stopping.set()
        stub.shutdown()
        thread.join()
        stub.server_close()
