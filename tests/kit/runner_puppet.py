"""Plays Connect's runner for the local Connect: as a worker in this process, or as a `cextrun` with workers of its own.

As a program it does what the local Connect relies on in the real one: it prints the pid of each worker, starts a new
one for one that died, and ends at SIGTERM. Its workers approve what they are given, over https as the environment says.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

__all__ = ["EVENTS", "HANGS_ONCE", "Puppet", "install", "main"]

#: What the puppet says that its extension handles.
EVENTS = (
    "asset_purchase_request_processing",
    "asset_purchase_request_validation",
    "tier_config_setup_request_processing",
)
#: The first worker that is given this request hangs.
HANGS_ONCE = "PR-HANGS-ONCE"
_PATH = "/public/v1/devops/ws/ENV-0000-0000-01/INS-000-000-000"
_KINDS = ("background", "interactive", "webapp")
_WAIT_S, _POLL_S = 20.0, 0.02


class Puppet:
    """One worker of the runner: it takes what it is sent, and answers when somebody says so; a context manager.

    Args:
        address: the local Connect's `server_address`.
        kind: "background", "interactive" or "webapp".
        events: the events that the extension handles.
        key: the API key with which it connects.

    Attributes:
        setup: what the local Connect answered to the setup request.
    """

    def __init__(
        self, address: str, kind: str = "background", events: tuple[str, ...] = EVENTS, key: str = "ApiKey SU-1:puppet"
    ) -> None:
        host, port = address.split(":")
        path = f"{_PATH}/webapp" if kind == "webapp" else f"{_PATH}?running_tasks=0&runner_type={kind}"
        self._stack = ExitStack()
        self._connection = self._stack.enter_context(
            connect(
                f"ws://{address}{path}",
                sock=socket.create_connection((host, int(port)), _WAIT_S),  # no proxy, whatever the environment says
                additional_headers={"Authorization": key},
                compression=None,
            )
        )
        data = {"event_subscriptions": {event: ["pending"] for event in events}, "model_type": "setup_request"}
        self.send("setup_request", data)
        self.setup = json.loads(self._connection.recv(timeout=_WAIT_S))["data"]
        self._inbox: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            for frame in self._connection:
                self._inbox.put(json.loads(frame))
        except ConnectionClosed:
            pass
        self._inbox.put(None)

    def send(self, message_type: str, data: Any) -> None:
        """Send a frame."""
        self.send_text(json.dumps({"version": 2, "message_type": message_type, "data": data}))

    def send_text(self, text: str) -> None:
        """Send any text."""
        self._connection.send(text)

    def take(self) -> dict[str, Any] | None:
        """Take the data of the next frame; None: the connection is gone."""
        frame = self._inbox.get(timeout=_WAIT_S)
        return None if frame is None else dict(frame["data"])

    def has_nothing(self) -> bool:
        """Tell whether no frame came that nobody took."""
        return self._inbox.empty()

    def answer(self, task: dict[str, Any] | None, result: str = "success", **output: Any) -> None:
        """Tell the result of a task."""
        assert task is not None
        self.send("task", {**task, "output": {"result": result, "runtime": 0.25, **output}})

    def serve(self, result: str = "success", **output: Any) -> dict[str, Any]:
        """Take a task and tell its result at once."""
        task = self.take()
        self.answer(task, result, **output)
        assert task is not None
        return task

    def close(self) -> None:
        """End the connection."""
        self._stack.close()
        self._thread.join(_WAIT_S)

    def __enter__(self) -> Puppet:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def install(folder: Path, body: str | None = None) -> Path:
    """Make a `cextrun` as in a virtual environment, which is this file, or a shell script; give the environment."""
    (folder / "bin").mkdir(parents=True)
    command = folder / "bin" / "cextrun"
    command.write_text(f"#!/bin/sh\n{body or f'exec {sys.executable} {Path(__file__).resolve()}'}\n", "utf-8")
    command.chmod(0o755)
    return folder


def main() -> None:
    """Be the master: keep a worker of each kind alive until SIGTERM."""
    workers: dict[str, subprocess.Popen[bytes]] = {}
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    while not stopping.wait(_POLL_S):
        for kind in _KINDS:
            if kind not in workers or workers[kind].poll() is not None:
                workers[kind] = subprocess.Popen([sys.executable, __file__, kind])
                sys.stdout.write(f"INFO PID_{os.getpid()} {kind.capitalize()} worker pid: {workers[kind].pid}\n")
                sys.stdout.flush()
    for worker in workers.values():
        worker.kill()
        worker.wait(_WAIT_S)


def _work(kind: str) -> None:
    """Be a worker: approve each request that is delivered, and tell so."""
    puppet = Puppet(os.environ["SERVER_ADDRESS"], kind, key=os.environ["API_KEY"])
    while (task := puppet.take()) is not None:
        request_id = task["input"]["object_id"]
        if request_id == HANGS_ONCE and not Path(f"{request_id}.txt").exists():
            Path(f"{request_id}.txt").touch()
            time.sleep(_WAIT_S)
        try:
            _approve(request_id)
            puppet.answer(task)
        except OSError as e:
            puppet.answer(task, "retry", message=f"Traceback (most recent call last):\n{e}\n")


def _approve(request_id: str) -> None:
    request = urllib.request.Request(
        f"https://{os.environ['API_ADDRESS']}/public/v1/requests/{request_id}/approve",
        data=b"{}",
        headers={"Authorization": os.environ["API_KEY"], "EAAS_TASK_ID": "TQ-1"},
    )
    context = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    opener.open(request, timeout=_WAIT_S).close()


if __name__ == "__main__":
    _work(sys.argv[1]) if sys.argv[1:] and sys.argv[1] in _KINDS else main()
