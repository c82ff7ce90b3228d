"""A double of Connect's runner for tests of the local Connect: one worker, which answers tasks as a test says."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from saga_engine.connect import LocalConnect

__all__ = ["Answer", "RunnerDouble", "joined"]

#: Gives what a worker tells of a task: `result`, and what else the output has.
Answer = Callable[[Mapping[str, Any]], Mapping[str, Any]]

_PATH = "/public/v1/devops/ws/ENV-0000-0000-01/INS-000-000-000"
_EVENTS = (
    "asset_purchase_request_processing",
    "asset_purchase_request_validation",
    "tier_config_setup_request_processing",
)


class RunnerDouble:
    """A worker that is connected, and answers in a thread until it is cut off.

    Args:
        connection: its connection.
        answer: what it tells of each task, in the order of their arrival.

    Attributes:
        setup: the frame with which Connect answered.
        tasks: the `data` of what it got so far.
        ended: set when it is cut off.
    """

    def __init__(self, connection: ClientConnection, answer: Answer) -> None:
        self.tasks: list[Mapping[str, Any]] = []
        self.ended = threading.Event()
        self._answer = answer
        self._connection = connection
        subscriptions = {event: {"statuses": ["pending"]} for event in _EVENTS}
        self._send("setup_request", {"model_type": "setup_request", "event_subscriptions": subscriptions})
        self.setup = json.loads(connection.recv(timeout=10.0))
        threading.Thread(target=self._serve, name="runner-double", daemon=True).start()

    def _send(self, message_type: str, data: Mapping[str, Any]) -> None:
        self._connection.send(json.dumps({"version": 2, "message_type": message_type, "data": data}))

    def _serve(self) -> None:
        try:
            while True:
                frame = json.loads(self._connection.recv())
                self.tasks.append(frame["data"])
                output = self._answer(frame["data"])
                key = "response" if frame["message_type"] == "web_task" else "output"
                self._send(frame["message_type"], {**frame["data"], key: output})
        except (ConnectionClosed, OSError):
            self.ended.set()


@contextmanager
def joined(local: LocalConnect, answer: Answer, kind: str = "background") -> Iterator[RunnerDouble]:
    """Connect a worker for as long as the block lasts.

    Args:
        local: the Connect.
        answer: what it tells of each task.
        kind: background, interactive or webapp.
    """
    path = f"{_PATH}/webapp" if kind == "webapp" else f"{_PATH}?running_tasks=0&runner_type={kind}"
    address, headers = f"ws://{local.server_address}{path}", {"Authorization": local.api_key}
    with connect(address, additional_headers=headers, compression=None, proxy=None) as connection:
        double = RunnerDouble(connection, answer)
        local.wait_connected(kind, 10.0)
        yield double
