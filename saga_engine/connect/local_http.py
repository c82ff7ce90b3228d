"""A loopback HTTP server for the APIs that the local Connect plays, with faults, a ledger and a list of calls.

GET  /ledger                    every effect and every undo, oldest first
GET  /calls                     every call of an API
GET  /faults                    what is to go wrong
PUT  /faults/{operation}        {"kind", "times", "delay_s", "reason"}, see `Fault`
"""

from __future__ import annotations

import json
import logging
import re
import ssl
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from saga_engine.connect.local_api import Route
from saga_engine.connect.local_certificate import HOST
from saga_engine.connect.local_errors import BadFault, PortTaken
from saga_engine.connect.local_faults import Fault, FaultKind
from saga_engine.connect.local_state import Answer, Call, LocalState

__all__ = ["LocalServer", "serving"]

_BODY_BYTES_MAX, _LENGTH_DIGITS_MAX = 4_000_000, 9
#: How long one call may take to arrive.
_READ_S_MAX = 60.0
_LOGGER = logging.getLogger(__name__)


class LocalServer(ThreadingHTTPServer):
    """A server, bound to 127.0.0.1.

    Args:
        state: what it remembers; closed with the server.
        routes: what it answers, first match first.
        port: the TCP port; 0 lets the system choose a free one, see `url`.
        tls: its certificate; None: plain HTTP.

    Raises:
        PortTaken: the port cannot be had; the state is closed then.
    """

    daemon_threads = True
    # The default of 5 resets connections as soon as a few callers arrive together.
    request_queue_size = 128

    def __init__(
        self, state: LocalState, routes: Sequence[Route], port: int = 0, tls: ssl.SSLContext | None = None
    ) -> None:
        self.state = state
        self.stopping = threading.Event()
        self.tls = tls
        self._routes = routes
        try:
            super().__init__((HOST, port), _Handler)  # which closes what it has, if it fails
        except (OSError, OverflowError) as e:
            raise PortTaken(f"port {port} of {HOST} cannot be had: {e}: give another one, or 0 for any free one") from e

    @property
    def operations(self) -> list[str]:
        """The names of what it does, which is what may go wrong."""
        return sorted({route.operation for route in self._routes})

    @property
    def url(self) -> str:
        """The address without a path, for example `http://127.0.0.1:8765`."""
        return f"{'https' if self.tls else 'http'}://{HOST}:{self.server_address[1]}"

    def server_close(self) -> None:
        """Stop waiting in faults, and close the socket and the state."""
        self.stopping.set()
        super().server_close()
        self.state.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what went wrong with a connection: a caller that went away, or a mistake of ours."""
        error = sys.exc_info()[1]
        level = logging.INFO if isinstance(error, OSError) else logging.ERROR
        _LOGGER.log(level, "a connection broke: %r", error, exc_info=level == logging.ERROR)

    def set_fault(self, fault: Fault) -> None:
        """Let the next calls of an operation go wrong.

        Raises:
            BadFault: there is no such operation.
        """
        if fault.operation not in self.operations:
            operations = ", ".join(self.operations)
            raise BadFault(f"there is no operation {fault.operation!r}; use one of {operations}")
        self.state.set_fault(fault)

    def answer(self, method: str, target: str, headers: Message, body: Mapping[str, Any]) -> Answer | None:
        """Answer one call; None means that the connection is closed without an answer.

        Args:
            method: the HTTP method.
            target: the path with its query.
            headers: the HTTP headers.
            body: the JSON object that was sent, or an empty one.
        """
        url = urlsplit(target)
        for route in self._routes:
            match = re.fullmatch(route.pattern, url.path)
            if match and method == route.method:
                object_id = unquote(match.group(1)) if match.groups() else ""
                call = _call(route, object_id, url.query, headers, body)
                try:
                    answer = self._answer_operation(route, call)
                except Exception as error:  # a request may hold anything; who called is to know what is wrong
                    _LOGGER.exception("%s of %s failed", route.operation, object_id)
                    answer = Answer(500, {"error_code": "LOCAL", "errors": [f"{type(error).__name__}: {error}"]})
                status = None if answer is None else answer.status
                self.state.record_call(route.operation, object_id, headers.get("EAAS_TASK_ID", ""), status)
                return answer
        return self._answer_observer(method, url.path, body)

    def _answer_observer(self, method: str, path: str, body: Mapping[str, Any]) -> Answer:
        lists = {"/ledger": self.state.ledger, "/calls": self.state.calls, "/faults": self._faults}
        if method == "GET" and path in lists:
            return Answer(200, lists[path]())
        if method != "PUT" or not path.startswith("/faults/"):
            return Answer(404, {"reason": f"there is no {method} {path}"})
        try:
            fault = Fault.from_json(path.rpartition("/")[2], body)
            self.set_fault(fault)
        except BadFault as e:
            return Answer(400, {"reason": str(e)})
        return Answer(200, asdict(fault))

    def _faults(self) -> list[dict[str, Any]]:
        return [asdict(fault) for fault in self.state.faults()]

    def _answer_operation(self, route: Route, call: Call) -> Answer | None:
        fault = self.state.take_fault(call.operation)
        if fault is None:
            return route.carry_out(self.state, call)
        instead = _instead_of_work(fault)
        if instead is not None:
            return instead
        refusal = fault.reason if fault.kind is FaultKind.REFUSE else None
        answer = route.carry_out(self.state, replace(call, refusal=refusal))
        if fault.kind is FaultKind.INVALID_JSON:
            return replace(answer, is_broken=True)
        self.stopping.wait(fault.delay_s)
        if fault.kind is FaultKind.ERROR_500_AFTER_WORK:
            return Answer(500, {"reason": "a fault: the work was done"})
        return None if fault.kind is FaultKind.TIMEOUT_AFTER_WORK else answer


def _instead_of_work(fault: Fault) -> Answer | None:
    """Give the answer of a fault that keeps the work from being done."""
    if fault.kind is FaultKind.ERROR_500:
        return Answer(500, {"reason": "a fault: nothing was done"})
    if fault.kind is FaultKind.ERROR_429:
        body = {"error_code": "THR_001", "errors": ["Too many requests."]}
        return Answer(429, body, {"Retry-After": str(fault.retry_after_s)})
    if fault.kind is FaultKind.ERROR_401:
        return Answer(401, {"error_code": "AUTH_001", "errors": ["API request is unauthorized."]})
    return None


def _call(route: Route, object_id: str, query: str, headers: Message, body: Mapping[str, Any]) -> Call:
    return Call(
        route.operation,
        object_id,
        query,
        headers.get("Idempotency-Key", ""),
        headers.get("Authorization", ""),
        body,
    )


class _Handler(BaseHTTPRequestHandler):
    """Turns HTTP into calls of `LocalServer.answer`, one connection per call."""

    server: LocalServer
    timeout = _READ_S_MAX

    def setup(self) -> None:
        if self.server.tls is not None:
            # In the connection's own thread: a caller that says nothing must not keep the others waiting.
            self.request.settimeout(_READ_S_MAX)
            self.request = self.server.tls.wrap_socket(self.request, server_side=True)
        super().setup()

    def finish(self) -> None:
        super().finish()
        if self.server.tls is not None:
            self.request.close()  # the server knows the bare socket only

    def _handle(self) -> None:
        body = self._body()
        answer = (
            self.server.answer(self.command, self.path, self.headers, body)
            if isinstance(body, dict)
            else Answer(400, {"reason": f"send a JSON object of at most {_BODY_BYTES_MAX} bytes"})
        )
        _LOGGER.info("%s %s -> %s", self.command, self.path, answer.status if answer else "no answer")
        if answer is not None:
            self._send(answer)

    do_GET = do_POST = do_PUT = do_DELETE = _handle

    def _body(self) -> Any:
        """Read the body; None if it is too long or no JSON."""
        length = self.headers.get("Content-Length", "0")
        if not length.isdecimal() or len(length) > _LENGTH_DIGITS_MAX or int(length) > _BODY_BYTES_MAX:
            return None
        try:
            return json.loads(self.rfile.read(int(length)) or b"{}")
        except ValueError:
            return None

    def _send(self, answer: Answer) -> None:
        payload = b"" if answer.body is None else json.dumps(answer.body).encode()
        if answer.is_broken:
            payload = payload[: len(payload) // 2] or b"{"
        try:
            self.send_response(answer.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(payload)))
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(payload)
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
            _LOGGER.info("the caller of %s %s went away before its answer", self.command, self.path)

    def log_message(self, format: str, *args: Any) -> None:
        """Leave the base class's line on stderr to the logger."""
        _LOGGER.debug(format, *args)


@contextmanager
def serving(server: LocalServer) -> Iterator[LocalServer]:
    """Run a server in a thread of this process for as long as the block lasts, and close it."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
