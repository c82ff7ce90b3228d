"""A Connect on this machine: it takes requests, delivers them to the real runner, and remembers what became of them."""

from __future__ import annotations

import copy
import os
import signal
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from saga_engine.connect.local_api import API_PATH, ASSET_REQUESTS, CONNECT_ROUTES, TIER_CONFIG_REQUESTS, Requests
from saga_engine.connect.local_certificate import make_certificate
from saga_engine.connect.local_errors import LocalConnectError, NotConnected, RunnerFailed, TaskRefused
from saga_engine.connect.local_extension import ExtensionProject
from saga_engine.connect.local_faults import Fault
from saga_engine.connect.local_folder import occupy
from saga_engine.connect.local_http import LocalServer, serving
from saga_engine.connect.local_protocol import (
    ENVIRONMENT_ID,
    TaskResult,
    category_of,
    collection_of,
    default_event,
    setup_response,
)
from saga_engine.connect.local_runner import LocalRunner, find_runner, without_proxies
from saga_engine.connect.local_sockets import WORKER_KINDS, Worker, WorkerSockets
from saga_engine.connect.local_state import Answer, Call, LocalState, encode
from saga_engine.connect.local_tasks import LocalTask, LocalTasks, TasksObserver
from saga_engine.connect.local_web import WebAnswer, WebTasks

if TYPE_CHECKING:
    from saga_engine.connect.local_client import LocalClient

__all__ = ["LocalConnect"]

_API_KEY = "ApiKey SU-000-000-000:local-connect"
_POLL_S = 0.05
_KILLED_S = 10.0


class LocalConnect:
    """A Connect for one extension, on 127.0.0.1: its API over https, and the WebSocket of its runner.

    Use it as a context manager; inside the block it answers, and the runner that it started ends with the block, or
    with this process.

    Args:
        folder: where its state, the runner's log and the extension's journal are; made if missing, and gone on with if
            there is an older state in it. None: a temporary one.
        is_fresh: remove what an earlier local Connect left in the folder.
        variables: the extension's variables; Connect knows nothing but texts.
        product_ids: the products that the extension is for.
        log_level: from which level on the extension logs.
        observer: told of each delivery and each result, from any thread.

    Raises:
        BadFolder: on entering, the folder cannot be used; or it was to be made fresh, and is somebody else's.
        MissingPackage: trustme or websockets, which the extra `local` brings, is not installed.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        is_fresh: bool = False,
        variables: Mapping[str, str] | None = None,
        product_ids: Sequence[str] = (),
        log_level: str = "INFO",
        observer: TasksObserver | None = None,
    ) -> None:
        self.variables = dict(variables or {})
        self.product_ids = tuple(product_ids)
        self.log_level = log_level
        self.api_key = _API_KEY
        self._given_folder = folder
        self._is_fresh = is_fresh
        self._observer = observer or _ignore
        self._stack = ExitStack()
        self._runner: LocalRunner | None = None

    def __enter__(self) -> LocalConnect:
        """Begin to answer."""
        with ExitStack() as stack:
            self.folder = self._given_folder or Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix="connect-"))
            )
            stack.enter_context(occupy(self.folder, is_fresh=self._is_fresh))
            tls = make_certificate(self.ca_file)
            state = LocalState(self.folder / "state.db")
            self._server = stack.enter_context(serving(LocalServer(state, CONNECT_ROUTES, tls=tls)))
            self._tasks = LocalTasks(state, self._send, self._observer, self._check)
            stack.callback(self._tasks.close)
            self._web = WebTasks(lambda frame: self._send("webapp", frame))
            self._sockets = WorkerSockets(_Switchboard(self, self._tasks, self._web))
            stack.callback(self._sockets.close)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Kill the runner, if it still runs, and stop answering."""
        try:
            if self._runner is not None:
                self._runner.kill()
                self._runner = None
        finally:
            self._stack.close()

    # --- addresses ---

    @property
    def api_url(self) -> str:
        """Where the API is: `https://127.0.0.1:PORT/public/v1`."""
        return f"{self._server.url}{API_PATH}"

    @property
    def server_address(self) -> str:
        """Where the runner's workers connect: `127.0.0.1:PORT`."""
        return self._sockets.address

    @property
    def ca_file(self) -> Path:
        """Whom to trust to trust this Connect, as PEM."""
        return self.folder / "trusted.pem"

    @property
    def log_file(self) -> Path:
        """What the runner and the extension print."""
        return self.folder / "runner.log"

    @property
    def journal_url(self) -> str:
        """Where the extension's sagas are journaled: its variable `SAGA_JOURNAL_URL`, else a file in the folder.

        Unless the runner is started with another one in its environment.
        """
        return self.variables.get("SAGA_JOURNAL_URL") or f"sqlite:///{(self.folder / 'saga.db').resolve()}"

    def client(self) -> LocalClient:
        """Make a plain client of the API."""
        from saga_engine.connect.local_client import LocalClient

        return LocalClient(self.api_key, self.api_url, self.ca_file)

    # --- the runner ---

    def runner_environment(self) -> dict[str, str]:
        """Give the environment in which the runner talks to this Connect and to nobody else's."""
        return {
            **without_proxies(os.environ),
            "API_ADDRESS": self._server.url.removeprefix("https://"),
            "API_KEY": self.api_key,
            "ENVIRONMENT_ID": ENVIRONMENT_ID,
            "INSTANCE_ID": "INS-000-000-000",
            "REQUESTS_CA_BUNDLE": str(self.ca_file.resolve()),
            "SAGA_JOURNAL_URL": self.journal_url,
            "SERVER_ADDRESS": self.server_address,
            "SSL_CERT_FILE": str(self.ca_file.resolve()),
        }

    def start_runner(
        self,
        extension: Path | None = None,
        *,
        runner: Path | None = None,
        environment: Mapping[str, str] | None = None,
        ready_s: float = 120.0,
        lifetime_s: float = 3600.0,
    ) -> None:
        """Start Connect's runner, and wait until each of its workers is connected.

        Args:
            extension: the folder of an extension's project, which is run as it stands there and need not be installed.
                None: what is installed beside the runner.
            runner: the file of `cextrun`, or a virtual environment that has it. None: beside this Python, or wherever
                commands are found.
            environment: variables of the environment that are to be set, too.
            ready_s: how long to wait for the workers.
            lifetime_s: seconds after which it is ended in any case.

        Raises:
            BadExtension: the folder is no project of an extension.
            RunnerFailed: it did not start, or not in time; the message has the end of its log.
            RunnerMissing: there is none.
        """
        if self._runner is not None:
            raise LocalConnectError("the runner was started already: stop it first, with stop_runner()")
        command = find_runner(runner)
        folder, paths = self.folder, []
        if extension is not None:
            project = ExtensionProject.read(extension)
            folder, paths = project.folder, project.search_path((self.folder / "entry_points").resolve())
        variables = {**self.runner_environment(), **(environment or {})}
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, [*paths, variables.get("PYTHONPATH", "")]))
        self._runner = LocalRunner(command, self.log_file.resolve(), variables, folder, lifetime_s)
        try:
            self._wait_ready(self._runner, ready_s)
        except BaseException:
            self.kill_runner()
            raise

    def _wait_ready(self, runner: LocalRunner, ready_s: float) -> None:
        deadline = time.monotonic() + ready_s
        while True:
            runner.check()
            started = set(runner.worker_pids()).intersection(WORKER_KINDS)
            if started and started <= self._sockets.kinds():
                return
            if time.monotonic() > deadline:
                missing = ", ".join(started - self._sockets.kinds()) or "any"
                raise RunnerFailed(
                    f"the runner's workers ({missing}) did not connect within {ready_s:g} s", runner.log_tail()
                )
            time.sleep(_POLL_S)

    def stop_runner(self, timeout_s: float = 20.0) -> int:
        """Ask the runner to end (SIGTERM), and kill what is left of it after a while.

        Returns:
            Its exit code; 128 and more if a signal ended it.
        """
        runner = self._started()
        self._runner = None
        return runner.stop(timeout_s)

    def kill_runner(self) -> None:
        """Kill the runner and its workers (SIGKILL)."""
        runner = self._started()
        self._runner = None
        runner.kill()

    def log(self) -> str:
        """Give what runners and the extension have printed so far."""
        return self.log_file.read_text("utf-8", "replace") if self.log_file.exists() else ""

    def worker_pid(self, kind: str = "background") -> int:
        """Give the process of a worker: background, interactive or webapp.

        Raises:
            NotConnected: the runner has none.
        """
        return self._started().worker_pid(kind)

    def kill_worker(self, kind: str = "background", number: int = signal.SIGKILL) -> int:
        """Send a signal to a worker; after SIGKILL, return when its connection is gone.

        The runner starts another one in a few seconds; `wait_connected` waits for it.

        Returns:
            The pid.

        Raises:
            NotConnected: the runner has none.
        """
        worker = self._sockets.worker(kind)
        pid = self.worker_pid(kind)
        try:
            os.kill(pid, number)
        except ProcessLookupError as e:
            raise NotConnected(f"the {kind} worker {pid} is dead already") from e
        if number == signal.SIGKILL and worker is not None:
            self._sockets.wait_gone(worker, _KILLED_S)
        return pid

    def drop_connection(self, kind: str = "background") -> None:
        """Cut a worker's connection without a word; the runner connects again in about five seconds.

        Raises:
            NotConnected: no such worker is connected.
        """
        self._sockets.drop(kind)

    def wait_connected(self, kind: str = "background", timeout_s: float = 60.0) -> None:
        """Wait until a worker is connected.

        Raises:
            NotConnected: none is, in that time.
        """
        self._sockets.wait_connected(kind, timeout_s)

    def _check(self) -> None:
        runner = self._runner
        if runner is not None:
            runner.check()

    def _started(self) -> LocalRunner:
        if self._runner is None:
            raise NotConnected("the runner was not started: call start_runner()")
        return self._runner

    # --- tasks ---

    def push(
        self,
        request: Mapping[str, Any],
        event_type: str | None = None,
        *,
        copies: int = 1,
        redeliver_within_s: float | None = None,
    ) -> LocalTask:
        """Deliver a request to the extension, as soon as its worker is there.

        Args:
            copies: how often it is delivered at once.

        See `task` for the rest.
        """
        task = self.task(request, event_type, redeliver_within_s=redeliver_within_s)
        task.deliver(copies)
        return task

    def task(
        self,
        request: Mapping[str, Any],
        event_type: str | None = None,
        *,
        redeliver_within_s: float | None = None,
    ) -> LocalTask:
        """Make the task of delivering a request, which `LocalTask.deliver` does.

        Args:
            request: an asset request or a tier configuration request, as Connect sends it. One whose id is new is taken
                in; one that is known is delivered as it is by now.
            event_type: the event; None: that of a request to be processed, as its type says. One that is interactive
                (a validation, a product action) gets the request itself and is not taken in.
            redeliver_within_s: after a reschedule or a retry it is delivered again when the countdown has passed, but
                after at most so many seconds: 0 is at once, `math.inf` is as the countdown says. It is also delivered
                again when a worker died over it. None: only by `LocalTask.deliver`.

        Raises:
            TaskRefused: the local Connect has no such requests, or the request is not whole.
        """
        event = event_type or default_event(request)
        category = category_of(event)
        if category == "background":
            self.add(request, event)
        elif category == "scheduled":
            raise TaskRefused("a schedule is no request: use schedule()")
        data = copy.deepcopy(dict(request)) if category == "interactive" else None
        return self._tasks.add(event, str(request.get("id", "")), data, redeliver_within_s)

    def schedule(self, method: str, parameter: Mapping[str, Any] | None = None) -> LocalTask:
        """Let a schedulable method of the extension be called, now.

        Args:
            method: its name.
            parameter: what Connect has as the schedule's parameter.
        """
        with self._server.state.transaction() as connection:
            number = connection.execute("SELECT count(*) + 1 FROM schedule").fetchone()[0]
            schedule = {
                "id": f"EFS-000-{number:03}",
                "name": method,
                "method": method,
                "type": "onetime",
                "status": "scheduled",
                "parameter": dict(parameter or {}),
            }
            connection.execute("INSERT INTO schedule VALUES (?, ?)", (schedule["id"], encode(schedule)))
        task = self._tasks.add("scheduled_execution", str(schedule["id"]), None, None)
        task.deliver()
        return task

    def browse(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        timeout_s: float = 30.0,
    ) -> WebAnswer:
        """Make a request to the extension's web application, as a user of Connect's does.

        Args:
            method: the HTTP method.
            path: the path with its query, such as "/api/executions".
            headers: HTTP headers.
            body: the body.
            timeout_s: how long to wait for the answer.

        Raises:
            TaskOverdue: there was none in that time.
        """
        return self._web.ask(method, path, headers or {}, body, timeout_s)

    def _send(self, kind: str, frame: str) -> None:
        self._sockets.send(kind, frame)

    # --- what Connect has ---

    def add(self, request: Mapping[str, Any], event_type: str | None = None) -> None:
        """Take a request in without delivering it, pending unless it says otherwise; one that is known stays as it is.

        Args:
            request: an asset request or a tier configuration request.
            event_type: the event with which it will be delivered; None: as its type says.

        Raises:
            TaskRefused: the local Connect has no such requests, or it is not whole.
        """
        event = event_type or default_event(request)
        collection = collection_of(event)
        if collection is None:
            raise TaskRefused(f"the local Connect has asset and tier configuration requests only, none for {event}")
        if not self._has(collection, str(request.get("id"))):
            self._create(collection, request)

    def get(self, request_id: str) -> dict[str, Any]:
        """Give a request as it is now.

        Raises:
            LocalConnectError: there is none of that id.
        """
        request: dict[str, Any] = self._checked(self._found(self._collection_with(request_id), request_id), request_id)
        return request

    def update_request(self, request_id: str, **fields: Any) -> None:
        """Change top-level fields of a request, as somebody does in Connect: `update_request(id, status="pending")`.

        Raises:
            LocalConnectError: there is none of that id.
        """
        collection = self._collection_with(request_id)
        self._checked(collection.overwrite(self._server.state, request_id, fields), request_id)

    def ledger(self) -> list[dict[str, Any]]:
        """List what was changed in Connect, oldest first.

        Returns:
            For each `number`, `at` (UTC, ISO 8601), `change` ("effect", or "undo" where parameters got the values back
            with which the request came in), `step` (parameters, approval, failure, inquiry), `key` and `object_id`.
        """
        return self._server.state.ledger()

    def calls(self, operation: str | None = None) -> list[dict[str, Any]]:
        """List the calls of the API, oldest first.

        Args:
            operation: only those of this one, such as "approve_request".

        Returns:
            For each `number`, `at` (UTC, ISO 8601), `operation`, `object_id`, `task_id` (empty: none of a handler) and
            `status` (None: no answer was given).
        """
        return [call for call in self._server.state.calls() if operation in (None, call["operation"])]

    def set_fault(self, fault: Fault) -> None:
        """Let the next calls of an operation go wrong.

        Raises:
            BadFault: there is no such operation.
        """
        self._server.set_fault(fault)

    def _create(self, collection: Requests, request: Mapping[str, Any]) -> None:
        state = self._server.state
        body = copy.deepcopy(dict(request))
        answer = collection.create(state, Call("", body=body))
        if answer.status >= HTTPStatus.BAD_REQUEST:
            raise TaskRefused(f"{body.get('id', 'the request')} cannot be delivered: {answer.body['errors'][0]}")
        if "status" in body:
            collection.overwrite(state, body["id"], {"status": body["status"]})

    def _collection_with(self, request_id: str) -> Requests:
        return ASSET_REQUESTS if self._has(ASSET_REQUESTS, request_id) else TIER_CONFIG_REQUESTS

    def _has(self, collection: Requests, request_id: str) -> bool:
        return self._found(collection, request_id).status == HTTPStatus.OK

    def _found(self, collection: Requests, request_id: str) -> Answer:
        return collection.get(self._server.state, Call("", request_id))

    @staticmethod
    def _checked(answer: Answer, request_id: str) -> Any:
        if answer.status >= HTTPStatus.BAD_REQUEST:
            raise LocalConnectError(f"the local Connect has no request {request_id!r}: push or add it first")
        return answer.body


class _Switchboard:
    """Connects the workers' WebSockets with what is asked of them; a `WorkersObserver`."""

    def __init__(self, connect: LocalConnect, tasks: LocalTasks, web: WebTasks) -> None:
        self._connect = connect
        self._tasks = tasks
        self._web = web
        self._pids: dict[str, int] = {}

    def setup(self, worker: Worker) -> str:
        connect = self._connect
        return setup_response(worker.setup_request, connect.variables, connect.product_ids, connect.log_level)

    def connected(self, worker: Worker) -> None:
        if worker.kind != "webapp":
            self._tasks.subscribed(worker.setup_request.get("event_subscriptions") or {})
        runner = self._connect._runner
        pid = None if runner is None else runner.worker_pids().get(worker.kind)
        if pid is None:
            return
        # The same process comes back with the results of what it has under way; another one knows nothing of it.
        if self._pids.get(worker.kind, pid) != pid:
            self._tasks.lost(worker.kind)
        self._pids[worker.kind] = pid

    def received(self, worker: Worker, message_type: str, data: Mapping[str, Any]) -> None:
        if message_type == "task":
            self._tasks.received(data["options"]["task_id"], data["output"])
        elif message_type == "web_task":
            self._web.received(data)


def _ignore(task: LocalTask, result: TaskResult | None) -> None:
    """Observe nothing."""
