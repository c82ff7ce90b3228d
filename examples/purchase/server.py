"""The other side of the purchase example: a loopback HTTP server that plays the Connect API and the vendor.

    GET  /ledger                                every effect and every undo, oldest first
    GET  /faults, PUT /faults/{operation}       what is to go wrong: {"kind", "times", "delay_s", "reason"}
    POST /vendor/customers                      header Idempotency-Key; GET ...?key=KEY; DELETE .../{id}
    POST /vendor/subscriptions                  the same
    POST /public/v1/requests                    take a request in; GET, PUT .../{id}; POST .../{id}/approve

Run it with `python -m examples.purchase.server --port 8765 --state purchase-server.db`.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from examples.purchase import server_connect, server_vendor
from examples.purchase.server_faults import Fault, FaultKind, InvalidFault
from examples.purchase.server_state import Answer, Call, ServerState

__all__ = ["PORT", "REQUEST_FILE", "PurchaseServer", "main", "running"]

#: The port where the saga's own defaults look for the server.
PORT = 8765
REQUEST_FILE = Path(__file__).with_name("request.json")
_BODY_BYTES_MAX = 1_000_000
_LIFETIME_S = 3600.0
_LOGGER = logging.getLogger(__name__)

_Operation = Callable[[ServerState, Call], Answer]


def _vendor_routes(thing: str) -> list[tuple[str, str, str, _Operation]]:
    return [
        ("POST", f"/vendor/{thing}s", f"create_{thing}", server_vendor.create),
        ("GET", f"/vendor/{thing}s", f"find_{thing}", server_vendor.find),
        ("DELETE", f"/vendor/{thing}s/([^/]+)", f"delete_{thing}", server_vendor.delete),
    ]


_REQUESTS = "/public/v1/requests"
_ROUTES: list[tuple[str, str, str, _Operation]] = [
    *_vendor_routes("customer"),
    *_vendor_routes("subscription"),
    ("POST", _REQUESTS, "create_request", server_connect.create),
    ("GET", f"{_REQUESTS}/([^/]+)", "get_request", server_connect.get),
    ("PUT", f"{_REQUESTS}/([^/]+)", "update_request", server_connect.update),
    ("POST", f"{_REQUESTS}/([^/]+)/approve", "approve_request", server_connect.approve),
    ("POST", f"{_REQUESTS}/([^/]+)/fail", "fail_request", server_connect.fail),
    ("POST", f"{_REQUESTS}/([^/]+)/inquire", "inquire_request", server_connect.inquire),
]


class PurchaseServer(ThreadingHTTPServer):
    """The server, bound to 127.0.0.1.

    Args:
        state_file: the SQLite file of its state; made if missing.
        port: the TCP port; 0 lets the system choose a free one, see `url`.
    """

    daemon_threads = True
    # The default of 5 resets connections as soon as a few callers arrive together.
    request_queue_size = 128

    def __init__(self, state_file: str | Path, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.state = ServerState(state_file)
        self.stopping = threading.Event()

    @property
    def url(self) -> str:
        """The address without a path, for example `http://127.0.0.1:8765`."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def server_close(self) -> None:
        """Stop waiting in faults, and close the socket and the state file."""
        self.stopping.set()
        super().server_close()
        self.state.close()

    def answer(self, method: str, target: str, headers: Message, body: Mapping[str, Any]) -> Answer | None:
        """Answer one call; None means that the connection is closed without an answer.

        Args:
            method: the HTTP method.
            target: the path with its query.
            headers: the HTTP headers.
            body: the JSON object that was sent, or an empty one.
        """
        url = urlsplit(target)
        if url.path == "/ledger" or url.path.startswith("/faults"):
            return self._answer_observer(method, url.path, body)
        for route_method, pattern, operation, carry_out in _ROUTES:
            match = re.fullmatch(pattern, url.path)
            if match and method == route_method:
                key = headers.get("Idempotency-Key") or parse_qs(url.query).get("key", [""])[0]
                object_id = match.group(1) if match.groups() else ""
                call = Call(operation, object_id, key, headers.get("Authorization", ""), body)
                return self._answer_operation(call, carry_out)
        return Answer(404, {"reason": f"there is no {method} {url.path}"})

    def _answer_observer(self, method: str, path: str, body: Mapping[str, Any]) -> Answer:
        if (method, path) == ("GET", "/ledger"):
            return Answer(200, self.state.ledger())
        if (method, path) == ("GET", "/faults"):
            return Answer(200, [asdict(fault) for fault in self.state.faults()])
        if method != "PUT":
            return Answer(404, {"reason": f"there is no {method} {path}"})
        try:
            fault = Fault.from_json(path.rpartition("/")[2], body)
        except InvalidFault as e:
            return Answer(400, {"reason": str(e)})
        self.state.set_fault(fault)
        return Answer(200, asdict(fault))

    def _answer_operation(self, call: Call, carry_out: _Operation) -> Answer | None:
        fault = self.state.take_fault(call.operation)
        if fault is None:
            return carry_out(self.state, call)
        if fault.kind is FaultKind.ERROR_500:
            return Answer(500, {"reason": "a fault: nothing was done"})
        refusal = fault.reason if fault.kind is FaultKind.REFUSE else None
        answer = carry_out(self.state, replace(call, refusal=refusal))
        self.stopping.wait(fault.delay_s)
        if fault.kind is FaultKind.ERROR_500_AFTER_WORK:
            return Answer(500, {"reason": "a fault: the work was done"})
        return None if fault.kind is FaultKind.TIMEOUT_AFTER_WORK else answer


class _Handler(BaseHTTPRequestHandler):
    """Turns HTTP into calls of `PurchaseServer.answer`, one connection per call."""

    server: PurchaseServer

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
        if not length.isdecimal() or int(length) > _BODY_BYTES_MAX:
            return None
        try:
            return json.loads(self.rfile.read(int(length)) or b"{}")
        except ValueError:
            return None

    def _send(self, answer: Answer) -> None:
        payload = b"" if answer.body is None else json.dumps(answer.body).encode()
        try:
            self.send_response(answer.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)
        except (BrokenPipeError, ConnectionResetError):
            _LOGGER.info("the caller of %s %s went away before its answer", self.command, self.path)

    def log_message(self, format: str, *args: Any) -> None:
        """Leave the base class's line on stderr to the logger."""
        _LOGGER.debug(format, *args)


@contextmanager
def running(state_file: str | Path, port: int = 0) -> Iterator[PurchaseServer]:
    """Run a server in a thread of this process for as long as the block lasts."""
    server = PurchaseServer(state_file, port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def main(arguments: list[str] | None = None) -> int:
    """Run the server until Ctrl-C, the end of its lifetime or, if asked for, the end of its input."""
    options = _parser().parse_args(arguments)
    try:
        faults = [Fault.from_text(text) for text in options.fault]
    except InvalidFault as e:
        sys.stderr.write(f"--fault: {e}\n")
        return 2
    if options.verbose:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    with running(options.state, options.port) as server:
        take_in(server.state, json.loads(REQUEST_FILE.read_text(encoding="utf-8")))
        for fault in faults:
            server.state.set_fault(fault)
        sys.stdout.write(f"{server.url}\n")
        sys.stdout.flush()
        _wait(server, options)
    return 0


def take_in(state: ServerState, request: dict[str, Any]) -> None:
    """Let Connect have a request; one that it has already stays as it is."""
    server_connect.create(state, Call("create_request", authorization="ApiKey own", body=request))


def _wait(server: PurchaseServer, options: argparse.Namespace) -> None:
    if options.until_eof:
        threading.Thread(target=_stop_at_eof, args=(server,), daemon=True).start()
    try:
        server.stopping.wait(options.lifetime_s)
    except KeyboardInterrupt:
        _LOGGER.info("stopped by Ctrl-C")


def _stop_at_eof(server: PurchaseServer) -> None:
    sys.stdin.read()
    server.stopping.set()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.purchase.server", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--port", type=int, default=PORT, help="TCP port on 127.0.0.1; 0: any free one (%(default)s)")
    parser.add_argument("--state", default="purchase-server.db", help="SQLite file of its state (%(default)s)")
    parser.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="OPERATION=KIND[:TIMES[:DELAY_S]]",
        help=f"let an operation go wrong; kinds: {', '.join(kind.value for kind in FaultKind)}",
    )
    parser.add_argument(
        "--lifetime-s", type=float, default=_LIFETIME_S, help="seconds after which it stops (%(default)g)"
    )
    parser.add_argument("--until-eof", action="store_true", help="stop when standard input ends")
    parser.add_argument("--verbose", action="store_true", help="log every call to stderr")
    return parser


if __name__ == "__main__":
    sys.exit(main())
