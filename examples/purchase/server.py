"""The other side of the purchase example: a loopback HTTP server that plays the Connect API and the vendor.

    GET  /ledger                                every effect and every undo, oldest first
    GET  /faults, PUT /faults/{operation}       what is to go wrong: {"kind", "times", "delay_s", "reason"}
    POST /vendor/customers                      header Idempotency-Key; GET ...?key=KEY; GET, DELETE .../{id}
    POST /vendor/subscriptions                  the same
    POST /public/v1/requests                    take a request in; GET, PUT .../{id}; POST .../{id}/approve

Connect's part is that of the product's local Connect; the vendor's is in `server_vendor.py`.
Run it with `python -m examples.purchase.server --port 8765 --state purchase-server.db`.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from examples.purchase.server_state import ServerState
from examples.purchase.server_vendor import VENDOR_ROUTES
from saga_engine.connect.local_api import ASSET_REQUESTS, CONNECT_ROUTES
from saga_engine.connect.local_errors import BadFault, LocalConnectError
from saga_engine.connect.local_faults import Fault, FaultKind
from saga_engine.connect.local_http import LocalServer, serving
from saga_engine.connect.local_state import Call, LocalState

__all__ = ["PORT", "REQUEST_FILE", "main", "running", "take_in"]

#: The port where the saga's own defaults look for the server.
PORT = 8765
REQUEST_FILE = Path(__file__).with_name("request.json")
_LIFETIME_S = 3600.0
_LOGGER = logging.getLogger(__name__)


@contextmanager
def running(state_file: str | Path, port: int = 0) -> Iterator[LocalServer]:
    """Run a server in a thread of this process for as long as the block lasts."""
    with serving(LocalServer(ServerState(state_file), [*VENDOR_ROUTES, *CONNECT_ROUTES], port)) as server:
        yield server


def main(arguments: list[str] | None = None) -> int:
    """Run the server until Ctrl-C, the end of its lifetime or, if asked for, the end of its input."""
    options = _parser().parse_args(arguments)
    if options.verbose:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        with running(options.state, options.port) as server:
            take_in(server.state, json.loads(REQUEST_FILE.read_text(encoding="utf-8")))
            for text in options.fault:
                server.set_fault(Fault.from_text(text))
            sys.stdout.write(f"{server.url}\n")
            sys.stdout.flush()
            _wait(server, options)
    except LocalConnectError as e:
        sys.stderr.write(f"{'--fault: ' if isinstance(e, BadFault) else ''}{e}\n")
        return 2
    return 0


def take_in(state: LocalState, request: dict[str, Any]) -> None:
    """Let Connect have a request; one that it has already stays as it is."""
    ASSET_REQUESTS.create(state, Call("create_request", body=request))


def _wait(server: LocalServer, options: argparse.Namespace) -> None:
    if options.until_eof:
        threading.Thread(target=_stop_at_eof, args=(server,), daemon=True).start()
    try:
        server.stopping.wait(options.lifetime_s)
    except KeyboardInterrupt:
        _LOGGER.info("stopped by Ctrl-C")


def _stop_at_eof(server: LocalServer) -> None:
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
