"""The WebSocket server to which the runner's workers connect: it shakes hands, sends, and hands on what comes back."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import socket
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import parse_qs, urlsplit

from saga_engine.connect.local_api import is_known_key
from saga_engine.connect.local_certificate import HOST
from saga_engine.connect.local_errors import LocalConnectError, MissingPackage, NotConnected

if TYPE_CHECKING:
    from websockets.http11 import Request, Response
    from websockets.sync.server import Server, ServerConnection

__all__ = ["WAITING_MAX", "WORKER_KINDS", "Worker", "WorkerSockets", "WorkersObserver"]

#: The workers of the runner that the local Connect talks to.
WORKER_KINDS = ("background", "interactive", "webapp")
_PATH = re.compile(r"/public/v1/devops/ws/[^/]+/[^/]+(?P<webapp>/webapp)?")
#: The runner gives up waiting for the answer to its setup request after 5 s.
_HANDSHAKE_S, _CLOSE_S = 10.0, 1.0
#: What the runner itself takes.
_FRAME_BYTES_MAX = 2**21
#: How many frames wait for a worker that is not there, at most.
WAITING_MAX = 10_000
_LOGGER = logging.getLogger(__name__)


class WorkersObserver(Protocol):
    """What is told of the workers; called from the threads of their connections."""

    def setup(self, worker: Worker) -> str:
        """Give the frame that answers a worker's setup request."""
        ...

    def connected(self, worker: Worker) -> None:
        """Take in that a worker is ready for frames."""
        ...

    def received(self, worker: Worker, message_type: str, data: Mapping[str, Any]) -> None:
        """Take in what a worker sent."""
        ...


@dataclass(frozen=True)
class Worker:
    """One connection of a worker.

    Args:
        kind: one of `WORKER_KINDS`.
        setup_request: what it said of its extension: `event_subscriptions`, `variables`, `schedulables`, ...
        connection: the connection.
    """

    kind: str
    setup_request: Mapping[str, Any]
    connection: ServerConnection


class WorkerSockets:
    """The server, bound to 127.0.0.1, a thread for each connection.

    Args:
        observer: what is told of the workers.

    Raises:
        MissingPackage: websockets is not installed.
    """

    def __init__(self, observer: WorkersObserver) -> None:
        self._observer = observer
        self._changed = threading.Condition()
        self._workers: dict[str, Worker] = {}
        self._waiting: dict[str, deque[str]] = {kind: deque() for kind in WORKER_KINDS}
        # Held while frames are sent, so that they keep their order. Not `_changed`: a worker that does not read must
        # not keep anybody from cutting its connection.
        self._sending = {kind: threading.Lock() for kind in WORKER_KINDS}
        self._is_closed = False
        self._server = self._serve()
        # The threads of its connections inherit that they are daemons: none keeps a dying process alive.
        self._thread = threading.Thread(target=self._server.serve_forever, name="local-connect-sockets", daemon=True)
        self._thread.start()

    def _serve(self) -> Server:
        try:
            from websockets.sync.server import serve
        except ImportError as e:
            raise MissingPackage("the local Connect needs websockets: pip install 'saga-engine[local]'") from e
        return serve(
            self._handle,
            HOST,
            0,
            process_request=_let_in,
            close_timeout=_CLOSE_S,
            max_size=_FRAME_BYTES_MAX,
            compression=None,
            logger=_LOGGER,
        )

    @property
    def address(self) -> str:
        """Host and port, for example `127.0.0.1:8766`."""
        return f"{HOST}:{self._port}"

    @property
    def _port(self) -> int:
        return int(self._server.socket.getsockname()[1])

    def close(self) -> None:
        """Stop listening, and cut every connection."""
        with self._changed:
            self._is_closed = True
            workers = list(self._workers.values())
        for worker in workers:
            _cut(worker)
        self._server.shutdown()
        self._thread.join()
        self._wait(lambda: not self._workers, _CLOSE_S)

    def worker(self, kind: str) -> Worker | None:
        """Give the worker of a kind that is connected now."""
        with self._changed:
            return self._workers.get(kind)

    def kinds(self) -> set[str]:
        """Give the kinds of which a worker is connected now."""
        with self._changed:
            return set(self._workers)

    def send(self, kind: str, frame: str) -> None:
        """Send a frame to the worker of a kind, as soon as there is one.

        Raises:
            LocalConnectError: too many wait for one already.
        """
        with self._changed:
            if len(self._waiting[kind]) >= WAITING_MAX:
                raise LocalConnectError(f"{WAITING_MAX} frames wait for a {kind} worker already: start the runner")
            self._waiting[kind].append(frame)
            worker = self._workers.get(kind)
        if worker is not None:
            self._flush(worker)

    def wait_connected(self, kind: str, timeout_s: float) -> Worker:
        """Wait until a worker of a kind is connected.

        Raises:
            NotConnected: none is, in that time.
        """
        self._wait(lambda: kind in self._workers, timeout_s)
        worker = self.worker(kind)
        if worker is None:
            raise NotConnected(f"no {kind} worker connected within {timeout_s:g} s: look at the runner's log")
        return worker

    def wait_gone(self, worker: Worker, timeout_s: float) -> bool:
        """Wait until a connection is gone; tell whether it is."""
        return self._wait(lambda: self._workers.get(worker.kind) is not worker, timeout_s)

    def drop(self, kind: str) -> None:
        """Cut the connection of the worker of a kind, without a word.

        Raises:
            NotConnected: there is none.
        """
        worker = self.worker(kind)
        if worker is None:
            raise NotConnected(f"no {kind} worker is connected")
        _cut(worker)
        self.wait_gone(worker, _HANDSHAKE_S)

    def _wait(self, is_true: Callable[[], bool], timeout_s: float) -> bool:
        with self._changed:
            return self._changed.wait_for(is_true, timeout_s)

    def _handle(self, connection: ServerConnection) -> None:
        from websockets.exceptions import ConnectionClosed

        worker = None
        try:
            worker = self._shake_hands(connection)
            self._arrived(worker)
            while True:
                frame = json.loads(connection.recv())
                self._observer.received(worker, frame["message_type"], frame.get("data") or {})
        except (ConnectionClosed, OSError, TimeoutError) as e:
            _LOGGER.info("a worker's connection ended: %s", e)
        except (ValueError, KeyError, TypeError):
            _LOGGER.exception("a worker sent what is no frame of the protocol")
        finally:
            if worker is not None:
                self._left(worker)

    def _shake_hands(self, connection: ServerConnection) -> Worker:
        kind = None if connection.request is None else _kind_of(connection.request.path)
        assert kind is not None  # or nobody had let it in
        frame = json.loads(connection.recv(timeout=_HANDSHAKE_S))
        worker = Worker(kind, frame["data"], connection)
        connection.send(self._observer.setup(worker))
        return worker

    def _arrived(self, worker: Worker) -> None:
        with self._changed:
            if self._is_closed:
                _cut(worker)
                return
            former = self._workers.get(worker.kind)
            self._workers[worker.kind] = worker
        if former is not None:
            _cut(former)  # it is gone, and nobody has noticed yet
        self._observer.connected(worker)
        self._flush(worker)
        with self._changed:
            self._changed.notify_all()

    def _left(self, worker: Worker) -> None:
        with self._changed:
            if self._workers.get(worker.kind) is worker:
                del self._workers[worker.kind]
            self._changed.notify_all()

    def _flush(self, worker: Worker) -> None:
        """Send what waits for a worker; what cannot be sent waits for the next one."""
        from websockets.exceptions import ConnectionClosed

        waiting = self._waiting[worker.kind]
        with self._sending[worker.kind]:
            while waiting:
                try:
                    worker.connection.send(waiting[0])
                except (ConnectionClosed, OSError):
                    return
                waiting.popleft()


def _kind_of(target: str) -> str | None:
    """Give the kind of worker that connects to a path with its query; None: there is nothing there."""
    url = urlsplit(target)
    match = _PATH.fullmatch(url.path)
    if match is None:
        return None
    kind = "webapp" if match.group("webapp") else parse_qs(url.query).get("runner_type", ["background"])[0]
    return kind if kind in WORKER_KINDS else None


def _let_in(connection: ServerConnection, request: Request) -> Response | None:
    if _kind_of(request.path) is None:
        return connection.respond(404, "there is nothing here\n")
    if not is_known_key(request.headers.get("Authorization", "")):
        return connection.respond(401, "send an API key\n")
    return None


def _cut(worker: Worker) -> None:
    with contextlib.suppress(OSError):  # it is cut already
        worker.connection.socket.shutdown(socket.SHUT_RDWR)
