"""HTTP requests to the extension's own web application, which Connect hands to the runner over the WebSocket."""

from __future__ import annotations

import base64
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from saga_engine.connect.local_errors import TaskOverdue
from saga_engine.connect.local_protocol import web_task_frame

__all__ = ["WebAnswer", "WebTasks"]


@dataclass(frozen=True)
class WebAnswer:
    """What the extension's web application answered.

    Args:
        status: the HTTP status.
        headers: the HTTP headers, with small letters.
        body: the body.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


class WebTasks:
    """The requests that are under way.

    Args:
        send: sends a frame to the web application's worker.
    """

    def __init__(self, send: Callable[[str], None]) -> None:
        self._send = send
        self._changed = threading.Condition()
        self._answers: dict[str, WebAnswer | None] = {}

    def ask(self, method: str, path: str, headers: Mapping[str, str], body: bytes, timeout_s: float) -> WebAnswer:
        """Make a request, and wait for its answer.

        Raises:
            TaskOverdue: there was none in that time.
        """
        correlation_id = uuid.uuid4().hex
        with self._changed:
            self._answers[correlation_id] = None
        self._send(web_task_frame(correlation_id, method, path, headers, body))
        with self._changed:
            self._changed.wait_for(lambda: self._answers[correlation_id] is not None, timeout_s)
            answer = self._answers.pop(correlation_id)
        if answer is None:
            raise TaskOverdue(f"{method} {path}: the extension's web application gave no answer in {timeout_s:g} s")
        return answer

    def received(self, data: Mapping[str, Any]) -> None:
        """Take in an answer; one that nobody waits for any more is dropped."""
        response = data["response"]
        headers = {name.lower(): value for name, value in response["headers"].items()}
        answer = WebAnswer(response["status"], headers, base64.decodebytes((response["content"] or "").encode()))
        with self._changed:
            if data["options"]["correlation_id"] in self._answers:
                self._answers[data["options"]["correlation_id"]] = answer
                self._changed.notify_all()
