"""The part of an engine that runs executions in the background: start, wait, run, stop."""

from __future__ import annotations

import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from connect.eaas.core.responses import BackgroundResponse
from msgspec import Raw

from saga_engine.clock import Clock
from saga_engine.codec import decode_json
from saga_engine.corrections import Place
from saga_engine.decider import answer, full_id, replay
from saga_engine.drive import Budget, Drive
from saga_engine.drivers import SyncDriver
from saga_engine.errors import BadDefinition, LeaseLost, NotAllowed
from saga_engine.foreground import run_until_stopped
from saga_engine.journal import Header, Journal, SagaStatus
from saga_engine.record import SagaRecord, to_response
from saga_engine.saga import Saga, Services
from saga_engine.waiting import Waits
from saga_engine.worker import Worker

__all__ = ["Background", "check_worker_arguments", "path_of"]


class Background(ABC):
    """The part of an engine that has a worker."""

    journal: Journal
    _clock: Clock
    _log: Any
    _sync: SyncDriver

    def _prepare_background(self, new_worker: Callable[[], Worker], poll_s: float, stop_timeout_s: float) -> None:
        """Prepare; the worker begins when it is first needed."""
        self._new_worker = new_worker
        self._poll_s = poll_s
        self._stop_timeout_s = stop_timeout_s
        self._worker: Worker | None = None
        self._is_closed = False
        #: The sagas that were started here, by path: those that cannot be imported go on here, too.
        self._started: dict[str, type[Saga]] = {}
        #: The paths of those that were started without any services, and may go on without.
        self._started_bare: set[str] = set()
        self._waits = Waits()

    @abstractmethod
    def start_plugins(self) -> None:
        """Start the plugins, unless that was done.

        Raises:
            PluginError: one cannot be started.
        """

    @abstractmethod
    def _check(self, saga: type[Saga]) -> None:
        """Check the definition of a saga."""

    @abstractmethod
    def _request(self, saga: Saga, request: Any) -> Raw:
        """Check and encode a request."""

    @abstractmethod
    def _saga_id(self, saga: Saga, request: dict[str, Any]) -> str:
        """Name the execution of a request, without a generation."""

    @abstractmethod
    def _services_or(self, services: Services | None) -> Services:
        """Fill in the engine's own services where others are missing."""

    @abstractmethod
    def _open(
        self,
        saga: Saga,
        saga_id: str,
        generation: int,
        raw: Raw,
        services: Services,
        budget: Budget | None = None,
    ) -> Drive:
        """Prepare the first drive of an execution that does not exist yet."""

    @abstractmethod
    def _place(self, saga_id: str) -> Place:
        """Find an execution, or a child saga in one."""

    @abstractmethod
    def _record(self, header: Header) -> SagaRecord:
        """Give the record of an execution."""

    @abstractmethod
    def _told(self, header: Header) -> BackgroundResponse:
        """Give what the table of answers says of an execution that is not driven here."""

    # --- starting ---

    def start(self, saga: type[Saga] | Saga, request: dict[str, Any]) -> str:
        """Start the request's execution; the worker of this engine, which begins now, carries it on.

        If all places of the worker are taken, the execution is queued in the journal. One that is there already stays
        as it is; a request that differs from its first one is told of in a warning.

        Args:
            saga: the saga.
            request: a dict of JSON values that has the saga's key.

        Returns:
            The id of the execution, with its generation. It is durable.

        Raises:
            SagaError: the request or the saga cannot be used; nothing was started.
            JournalError: the journal cannot be written; start again.
        """
        made = self._startable(saga)
        raw, saga_id = self._request(made, request), self._saga_id(made, request)
        generation = self._generation_to_start(made, saga_id, raw)
        if generation is not None:
            try:
                self._start(made, saga_id, generation, raw)
                return full_id(saga_id, generation)
            except LeaseLost:  # it is there already
                pass
        return self._keep(saga_id, raw)

    def _startable(self, saga: type[Saga] | Saga) -> Saga:
        kind = type(saga) if isinstance(saga, Saga) else saga
        self._check(kind)
        if kind.mode == "select":
            raise BadDefinition(
                f"{kind.__name__} has mode 'select' and goes on at deliveries only: resolve it, or set mode = 'chain'"
            )
        return saga if isinstance(saga, Saga) else kind()

    def _generation_to_start(self, saga: Saga, saga_id: str, raw: Raw) -> int | None:
        """Choose the generation to try; None: there is one that stays.

        Whether the first one is there already is not asked: the commit that starts it finds out.
        """
        if type(saga).restarts is Saga.restarts:
            return 1
        header = self.journal.header(saga_id)
        if header is None:
            return 1
        if header.status.is_ended and saga.restarts(decode_json(raw), self._record(header)):
            return header.generation + 1
        return None

    def _start(self, saga: Saga, saga_id: str, generation: int, raw: Raw) -> None:
        """Open an execution, durably, and hand it to the worker, at once or by way of the journal."""
        worker, services = self._begun_worker(), self._services_to_start(saga, saga_id, generation, raw)
        self._started[path_of(type(saga))] = type(saga)
        budget = worker.take_slot()
        if budget is None:
            spent = worker.new_budget()
            spent.stop("queued")
            self._sync.run(self._open(saga, saga_id, generation, raw, services, spent))
            worker.note_due(self._clock.now())
            return
        try:
            drive = self._open(saga, saga_id, generation, raw, services, budget)
        except BaseException:
            worker.free_slot()
            raise
        worker.begin(drive, budget)

    def _services_to_start(self, saga: Saga, saga_id: str, generation: int, raw: Raw) -> Services:
        services = self._services_or(saga._services)
        if services.are_given:
            return services
        given = saga.services(_record_to_be(saga, full_id(saga_id, generation), generation, raw, self._clock.now()))
        if given is None:
            self._started_bare.add(path_of(type(saga)))
            return services
        return Services(given.get("config"), given.get("client"), given.get("logger"))

    def _keep(self, saga_id: str, raw: Raw) -> str:
        """Leave an execution that is there already as it is; if it can go on, the worker will take it up."""
        header = self._place(saga_id).header
        saga_id = full_id(header.saga_id, header.generation)
        if not header.is_purged and bytes(replay(self.journal.load(header.eid).entries).first_request) != bytes(raw):
            self._log.warning("started again with another request: the first one is kept", saga_id=saga_id)
        if not header.status.is_ended:
            self._begun_worker().note_due(self._clock.now())
        return saga_id

    def _begun_worker(self) -> Worker:
        """Give the worker; made when first asked for, anew after a fork and after a stop."""
        with _lock:
            self._refuse_when_closed()
            if self._worker is None or not self._worker.is_usable:
                self._worker = self._new_worker()
            return self._worker

    def _refuse_when_closed(self) -> None:
        if self._is_closed:
            raise NotAllowed("the engine is closed: make another one")

    # --- waiting ---

    def wait(self, saga_id: str, timeout_s: float | None = 30.0) -> BackgroundResponse:
        """Wait until an execution ended or parked, whoever drives it.

        Args:
            saga_id: the execution.
            timeout_s: the longest wait, in seconds; None: without limit.

        Returns:
            What a delivery would be answered; see the table of answers in docs/design.md. When the time is over,
            that is what its present state says: a reschedule.

        Raises:
            UnknownExecution: there is none.
            NotAllowed: it is a child saga, which has no end of its own.
        """
        if timeout_s is not None:
            _check_seconds("wait(timeout_s", timeout_s)
        place = self._place(saga_id)
        header = place.header
        if place.child:
            parent = full_id(header.saga_id, header.generation)
            raise NotAllowed(f"{saga_id} is a child saga: wait for {parent}, which ends after it")
        ends_at_s = None if timeout_s is None else time.monotonic() + timeout_s
        with self._waits.waiter(full_id(header.saga_id, header.generation)) as waiter:
            while True:
                header = self.journal.header(header.saga_id, header.generation) or header
                remaining_s = self._poll_s if ends_at_s is None else ends_at_s - time.monotonic()
                if remaining_s <= 0 or _is_at_rest(header):
                    return self._told(header)
                state = waiter.get(min(remaining_s, self._poll_s))
                if state is not None and state.status.is_ended:
                    return to_response(answer(state, self._clock.now()))

    # --- running and stopping ---

    def run(self, stop_timeout_s: float | None = None) -> int:
        """Be a worker until `stop` is called or, in the main thread, until SIGTERM or SIGINT; then stop gracefully.

        What is due or was left by a dead process is taken up first, after the plugins were started.

        Args:
            stop_timeout_s: how long to wait for running steps; by default the engine's.

        Returns:
            How many executions were still under way then; 0 after a clean stop.

        Raises:
            PluginError: a plugin cannot be started; nothing is taken up.
        """
        timeout_s = self._stop_timeout_s if stop_timeout_s is None else stop_timeout_s
        _check_seconds("run(stop_timeout_s", timeout_s)
        self._refuse_when_closed()
        self.start_plugins()
        return run_until_stopped(self._begun_worker(), timeout_s)

    def stop(self, timeout_s: float | None = None) -> int:
        """Stop the worker: start nothing new, suspend what is between steps, wait for running steps.

        A step whose beginning is journaled already is run. A later `start` or `run` begins another worker.

        Args:
            timeout_s: how long to wait for running steps; by default the engine's `stop_timeout_s`.

        Returns:
            How many executions were still under way then; each is journaled when its step returns.
        """
        timeout_s = self._stop_timeout_s if timeout_s is None else timeout_s
        _check_seconds("stop(timeout_s", timeout_s)
        worker = self._worker
        return worker.stop(timeout_s) if worker is not None and worker.is_of_this_process else 0

    def _close_background(self) -> None:
        """Stop the worker for good."""
        with _lock:
            self._is_closed = True
        self.stop()


def path_of(saga: type[Saga]) -> str:
    """Give the path by which a saga is journaled: `module:QualifiedName`."""
    return f"{saga.__module__}:{saga.__qualname__}"


def _record_to_be(saga: Saga, saga_id: str, generation: int, raw: Raw, now: float) -> SagaRecord:
    """Describe an execution that is about to start, for `Saga.services`: its steps are not built yet."""
    return SagaRecord(
        saga_id=saga_id,
        saga=type(saga).__name__,
        status=SagaStatus.RUNNING,
        generation=generation,
        response=None,
        steps=(),
        error=None,
        held_by=None,
        next_due_at=None,
        created_at=now,
        updated_at=now,
        request=decode_json(raw),
    )


def _is_at_rest(header: Header) -> bool:
    """Tell whether an execution ended or parked, and nobody drives it on."""
    return header.status.is_ended or (header.status is SagaStatus.PARKED and header.drive is None)


def check_worker_arguments(concurrency_max: Any, poll_s: Any, stop_timeout_s: Any) -> None:
    """Check what `Engine` was given for its worker.

    Raises:
        BadDefinition: a value cannot be meant.
    """
    if not isinstance(concurrency_max, int) or isinstance(concurrency_max, bool) or concurrency_max < 1:
        raise BadDefinition(f"Engine(concurrency_max={concurrency_max!r}): give an int of at least 1")
    _check_seconds("Engine(stop_timeout_s", stop_timeout_s)
    _check_seconds("Engine(poll_s", poll_s)
    if poll_s == 0:
        raise BadDefinition("Engine(poll_s=0): give a number of seconds above 0")


def _check_seconds(argument: str, value: Any) -> None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0 <= value < float("inf"):
        raise BadDefinition(f"{argument}={value!r}): give a finite number of seconds of at least 0")


#: Held for moments only, so that a fork can take it: one held by another thread would stay so in the child.
_lock = threading.Lock()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
