"""The engine: starts, resolves, recovers, inspects and corrects executions on one journal."""

from __future__ import annotations

import logging
import math
import os
import re
import secrets
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import anyio
import anyio.to_thread
from connect.eaas.core.responses import BackgroundResponse
from msgspec import Raw

from saga_engine.awaiting import bridge_or, prepared
from saga_engine.background import Background, check_worker_arguments, path_of
from saga_engine.clock import Clock, SystemClock
from saga_engine.codec import decode_json, encode_json
from saga_engine.corrections import Corrections, Place
from saga_engine.decider import Phase, State, answer, full_id, is_early, replay
from saga_engine.documents import Documents, Source
from saga_engine.drive import Budget, Drive, Position
from saga_engine.drivers import AsyncDriver, SyncDriver
from saga_engine.errors import (
    BadDefinition,
    BadJournalURL,
    BadRequest,
    LeaseLost,
    NotAllowed,
    SagaError,
    TransactionException,
    TransactionNotSelected,
    UnknownExecution,
    UnknownSaga,
)
from saga_engine.exports import export_of, record_of
from saga_engine.imports import import_named
from saga_engine.journal import (
    ABSENT,
    DriveResumed,
    Entry,
    Header,
    Journal,
    Loaded,
    Plan,
    RequestDelivered,
    Response,
    SagaStarted,
    SagaStatus,
    TakenOver,
)
from saga_engine.journals import open_journal
from saga_engine.logs import engine_logger, log_entries
from saga_engine.plan import Workflow, asks, build_workflow, exclusive_of, plan_of, policy_of
from saga_engine.plugged import Given, Plugged
from saga_engine.record import (
    SagaRecord,
    as_child_record,
    as_record,
    as_tombstone,
    to_response,
    without_dead_holder,
)
from saga_engine.recovery import Recovered, Recovery, ServicesOf, Stuck
from saga_engine.runner_limits import delivery_budget_s
from saga_engine.saga import Saga, Services, check_definition, refuse_namesake
from saga_engine.scopes import documents_at
from saga_engine.threads import ABANDONED_MAX, Threads
from saga_engine.watchdog import HELD_MAX_S
from saga_engine.worker import WAIT_S_MAX, Worker

if TYPE_CHECKING:
    from saga_engine.plugging import ExtensionThing, PluginThing

__all__ = ["DEFAULT_JOURNAL_URL", "Engine", "Recovered", "default_engine", "find_saga", "journal_url"]

DEFAULT_JOURNAL_URL = "sqlite:///saga.db"

#: What a caller is told who meets a live drive, in seconds.
HELD_COUNTDOWN_S = 30.0
#: What a caller is told whose execution this deployment cannot drive, in seconds (S27).
STUCK_COUNTDOWN_S = 300.0

_KEY_CHARS_MAX = 512
#: How many executions are purged at a time.
_PAGE = 100
_GENERATION = re.compile(r"^(?P<bare>.+)#(?P<generation>[1-9]\d*)$", re.DOTALL)

Observer = Callable[[str, Sequence[Entry]], None]


class Engine(Plugged, Corrections, Background, Recovery):
    """Runs sagas on one journal. Safe for use from any number of threads and event loops.

    Args:
        journal: a URL (`sqlite:///saga.db`, `memory://`) or an open journal, which the caller closes.
        config, client, logger: what steps are built with when no handler gives its own.
        sagas: sagas that cannot be imported by name at recovery, for example because they are local classes.
        budget_s: seconds in which one delivery may start steps: 0.8 of the limit of whoever delivers.
        lease_s: seconds without a heartbeat after which a holder on another host counts as dead; an open journal
            has its own.
        heartbeat_s: seconds between heartbeats of a process that holds a lease; an open journal has its own.
        threads_max: how many plain steps may run at once beside event loops; as many again in the worker.
        concurrency_max: how many executions the worker carries on at once.
        poll_s: how often the worker looks for what other processes left or made due, in seconds.
        stop_timeout_s: how long `run` and `close` wait for running steps, in seconds.
        held_max_s: how many seconds a step without a time-out may keep its execution's lease: one that hangs longer
            is overtaken.
        abandoned_max: how many threads of steps that timed out, and that did not come to their end, there may be.
        clock: wall and monotonic time; by default the machine's.
        observer: told of every durable commit, in the driving thread, with the saga id and its entries.
        plugins: classes that are decorated with `@plugin`, units, names (`package.module:Class`, or of entry points of
            the group `saga_engine.plugins`), or pairs of one of these and its configuration; in this order.
        extensions: extensions with background tasks, by name: classes, pairs of a class and its configuration, or a
            configuration alone for what an installed package announces; see `saga_engine.extensions.ExtensionManager`.
        modules: items such as `{"module": "package.module.Class", "config": {...}}`, which come behind the plugins.
    """

    def __init__(  # noqa: PLR0913  # all but the first by keyword: each is a choice of its own
        self,
        journal: str | Journal = DEFAULT_JOURNAL_URL,
        *,
        config: Mapping[str, Any] | None = None,
        client: Any = None,
        logger: Any = None,
        sagas: Iterable[type[Saga]] = (),
        budget_s: float = 240.0,
        lease_s: float = 30.0,
        heartbeat_s: float = 10.0,
        threads_max: int = 64,
        concurrency_max: int = 64,
        poll_s: float = 1.0,
        stop_timeout_s: float = 30.0,
        held_max_s: float = HELD_MAX_S,
        abandoned_max: int = ABANDONED_MAX,
        clock: Clock | None = None,
        observer: Observer | None = None,
        plugins: Iterable[PluginThing] = (),
        extensions: Mapping[str, ExtensionThing] | None = None,
        modules: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        for saga in (registered := tuple(sagas)):
            check_definition(saga)
        _check_arguments(budget_s, threads_max, held_max_s, abandoned_max)
        _check_plugged(plugins, extensions, modules)
        check_worker_arguments(concurrency_max, poll_s, stop_timeout_s)
        self._services = Services(config, client, logger)
        self._is_own_journal = isinstance(journal, str)
        if not self._is_own_journal and not (hasattr(journal, "append") and hasattr(journal, "submit")):
            raise BadJournalURL(f"{journal!r} is no journal: give a URL such as sqlite:///saga.db, or an open journal")
        self._log = engine_logger(logger)
        self._sagas = _by_name(registered)
        self._budget_s = budget_s
        self._clock = clock or SystemClock()
        self._observer = observer
        self._held_max_s = held_max_s
        self._threads = Threads(threads_max, abandoned_max)
        self._checked: WeakSet[type[Saga]] = WeakSet(registered)
        self._prepare_plugins(Given(tuple(plugins), extensions or {}, tuple(modules)), stop_timeout_s)
        self._open_and_plug_in(journal, lambda url: open_journal(url, lease_s=lease_s, heartbeat_s=heartbeat_s))
        self._prepare_background(lambda: self._worker_of(concurrency_max, threads_max, poll_s), poll_s, stop_timeout_s)
        self._sync = SyncDriver(self.journal, self._clock, self._threads, held_max_s)
        self._async = AsyncDriver(self.journal, self._clock, self._threads, held_max_s)

    @classmethod
    def from_file(cls, path: str | Path, **arguments: Any) -> Engine:
        """Make an engine as a configuration file says, see `saga_engine.configuration`.

        Args:
            path: the file.
            arguments: of `Engine`, by name; they go before what the file says.

        Raises:
            ConfigError: the file, or what it says of plugins, is wrong.
            SagaError: as for `Engine`.
        """
        from saga_engine.configuration import load_configuration  # here, because most engines have no plugins

        return cls(**{**load_configuration(path).arguments(), **arguments})

    # --- resolving ---

    def resolve(self, saga: Saga, request: dict[str, Any], services: Services | None = None) -> BackgroundResponse:
        """Carry the request's execution on in this thread, as far as it goes now; start it if there is none.

        Args:
            saga: the saga.
            request: a dict of JSON values that has the saga's key.
            services: what the steps are built with; by default the engine's own.

        Returns:
            What to answer; see the table of answers in docs/design.md.

        Raises:
            SagaError: the request or the saga cannot be used; nothing was started.
            JournalError: the journal cannot be written; deliver again.
        """
        drive = self._prepare(saga, request, self._services_or(services))
        if isinstance(drive, BackgroundResponse):
            return drive
        try:
            response = self._sync.run(drive)
        except LeaseLost:
            return to_response(Response("reschedule", countdown_s=HELD_COUNTDOWN_S))
        return self._answered(saga, drive, response)

    async def aresolve(
        self, saga: Saga, request: dict[str, Any], services: Services | None = None
    ) -> BackgroundResponse:
        """Do what `resolve` does on the running event loop: async steps natively, plain ones in threads."""
        given = self._services_or(services)
        # The callbacks of plugins are waited for, and not on this loop.
        is_waiting = self._plugging is not None
        drive = await prepared(lambda: self._prepare(saga, request, given), is_waiting=is_waiting)
        if isinstance(drive, BackgroundResponse):
            return drive
        try:
            response = await self._async.run(drive)
        except LeaseLost:
            return to_response(Response("reschedule", countdown_s=HELD_COUNTDOWN_S))
        return self._answered(saga, drive, response)

    def _services_or(self, services: Services | None) -> Services:
        """Fill in the engine's own where the handler gave none."""
        if services is None:
            return self._services
        own = self._services
        return Services(
            own.config if services.config is None else services.config,
            own.client if services.client is None else services.client,
            own.logger if services.logger is None else services.logger,
        )

    def _answered(self, saga: Saga, drive: Drive, response: Response) -> BackgroundResponse:
        if drive.state.parked is not None:
            return self._parked_response(saga, self.get(full_id(drive.state.saga_id, drive.state.generation)), response)
        return to_response(response)

    def _parked_response(self, saga: Saga, record: SagaRecord, response: Response) -> BackgroundResponse:
        return saga.parked_response(record) or to_response(response)

    def _prepare(self, saga: Saga, request: Any, services: Services) -> Drive | BackgroundResponse:
        """Find out what this delivery meets: nothing, an end, a live drive, or something to go on with."""
        self._begun_plugins()
        self._check(type(saga))
        raw = self._request(saga, request)
        saga_id = self._saga_id(saga, request)
        header = self.journal.header(saga_id)
        if header is None:
            return self._open(saga, saga_id, 1, raw, services)
        if header.status.is_ended:
            return self._deliver_to_ended(saga, header, raw, services)
        if header.response is not None:  # it is being undone after its end: what was answered once stays so (S32)
            return to_response(header.response)
        if self.journal.is_held(header):
            return to_response(Response("reschedule", countdown_s=HELD_COUNTDOWN_S))
        return self._deliver(saga, header, raw, services)

    def _check(self, saga: type[Saga]) -> None:
        if saga in self._checked:
            return
        check_definition(saga)
        self._checked.add(saga)

    def _request(self, saga: Saga, request: Any) -> Raw:
        if not isinstance(request, dict):
            raise BadRequest(f"the request is a {type(request).__name__}: deliver the request's dict")
        return encode_json(request, "request", saga.payload_bytes_max)

    def _saga_id(self, saga: Saga, request: dict[str, Any]) -> str:
        try:
            key = saga.key(request)
            _check_key(saga, key)
        except Exception as error:  # also what an overridden `key` raises: that nothing is listed is told first (S2)
            if not any(saga.transactions(request)):
                raise TransactionException.not_selected(
                    f"{type(saga).__name__}.transactions(request) listed nothing for this request: list at least one"
                ) from None
            if isinstance(error, SagaError):
                raise
            raised = f"{type(saga).__name__}.key(request) raised {type(error).__name__}: {error}"
            raise BadRequest(f"{raised}: deliver a request that has its key") from error
        return f"{type(saga).__name__}:{key}"

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
        kind, now, budget = type(saga), self._clock.now(), budget or self._budget()
        origin = self._permit_start(kind, full_id(saga_id, generation), raw)
        documents = Documents(lambda scope: (raw, Raw(b"{}")), budget.remaining_s)
        workflow = self._workflow(saga, full_id(saga_id, generation), raw, documents, services)
        self._warn_about_mode(workflow)
        position = Position(drive=secrets.token_hex(8))
        started = SagaStarted(
            at=now,
            saga=kind.__name__,
            saga_path=path_of(kind),
            saga_id=saga_id,
            generation=generation,
            drive=position.drive,
            plan=plan_of(workflow, None if saga.exclusive is None else exclusive_of(saga, decode_json(raw))),
            policy=policy_of(kind, now),
            request=raw,
            plugin=origin.id,
            plugin_version=origin.version,
        )
        return self._drive(position, [started], None, (), documents, workflow, budget, services)

    def _deliver_to_ended(self, saga: Saga, header: Header, raw: Raw, services: Services) -> Drive | BackgroundResponse:
        if type(saga).restarts is not Saga.restarts:
            record = self.get(full_id(header.saga_id, header.generation))
            if saga.restarts(decode_json(raw), record):
                return self._open(saga, header.saga_id, header.generation + 1, raw, services)
        assert header.response is not None, "an ended execution has its answer"
        return to_response(header.response)

    def _deliver(self, saga: Saga, header: Header, raw: Raw, services: Services) -> Drive | BackgroundResponse:
        loaded = self.journal.load(header.eid)
        state, now = replay(loaded.entries), self._clock.now()
        if state.status.is_ended:  # by another drive, since the header was read
            return to_response(answer(state, now))
        is_same, is_waiting = bytes(raw) == bytes(state.request), is_early(state, now)
        if not loaded.inbox:
            if state.parked is not None:
                return self._parked_response(saga, as_record(header, state), answer(state, now))
            if is_waiting and is_same:
                return to_response(answer(state, now))
        position = Position(secrets.token_hex(8), header.eid, loaded.seq, header.epoch)
        delivered = RequestDelivered(at=now, drive=position.drive, request=ABSENT if is_same else raw)
        # A delivery during the engine's own wait leaves its request behind and waits on (S15, S18).
        wait_s_max = 0.0 if is_waiting else None
        try:
            budget = self._budget(wait_s_max)
            return self._take(saga, header, state, loaded, position, raw, delivered, services, budget)
        except Stuck as stuck:
            self._note_stuck(header, str(stuck))
            return to_response(Response("reschedule", countdown_s=STUCK_COUNTDOWN_S))

    def _take(
        self,
        saga: Saga,
        header: Header,
        state: State,
        loaded: Loaded,
        position: Position,
        raw: Raw,
        taking: Entry,
        services: Services,
        budget: Budget,
    ) -> Drive:
        """Prepare a drive that goes on with a journaled execution; its first commit takes the lease."""
        self._refuse_without_plugin(state)
        first: list[Entry] = [taking]
        if not state.is_released:
            first.insert(0, TakenOver(at=taking.at, drive=position.drive, died=header.held_by))
        documents = Documents(_as_delivered(state, raw), budget.remaining_s)
        saga_id = full_id(state.saga_id, state.generation)
        try:
            workflow = self._workflow(saga, saga_id, state.first_request, documents, services, state.plan)
        except TransactionNotSelected as nothing_listed:  # it lacks all of the journaled steps (S27)
            raise Stuck(str(nothing_listed)) from nothing_listed
        missing = [step.name for step in state.plan.steps if step.name not in workflow.steps]
        if missing:
            raise Stuck(f"{type(saga).__name__} has no step named {missing[0]!r} any more: deploy one that has")
        return self._drive(position, first, state, loaded.inbox, documents, workflow, budget, services)

    def _workflow(
        self,
        saga: Saga,
        saga_id: str,
        first_request: Raw,
        documents: Documents,
        services: Services,
        journaled: Plan | None = None,
    ) -> Workflow:
        request, undo = decode_json(first_request), self._undo_for_order
        contributed, wait = self._contributed(), bridge_or(self._threads.await_plainly)
        return build_workflow(saga, request, services, documents, saga_id, undo, journaled, contributed, wait)

    def _undo_for_order(self, saga_id: str, note: str) -> SagaRecord:
        """Undo, or cancel, what a later order takes back, and tell how it stands (`Saga.undoes`).

        Raises:
            UnknownExecution: there is none.
        """
        header, record = self._place(saga_id).header, self.get(saga_id)
        if record.status is SagaStatus.COMPLETED:
            self._order_undo(saga_id, note, is_covered=True)
        elif record.status is SagaStatus.COMPENSATING or (record.response is not None and not record.status.is_ended):
            self._nudge(header)
        elif record.status in (SagaStatus.RUNNING, SagaStatus.SUSPENDED):
            self._order_cancel(saga_id, note)
        return self.get(saga_id)

    def _budget(self, wait_s_max: float | None = None, budget_s_max: float = math.inf) -> Budget:
        budget_s = min(self._budget_s, budget_s_max)
        return Budget(self._clock, budget_s, budget_s if wait_s_max is None else wait_s_max)

    def _drive(
        self,
        position: Position,
        first: Sequence[Entry],
        before: State | None,
        inbox: Sequence[Any],
        documents: Documents,
        workflow: Workflow,
        budget: Budget,
        services: Services,
    ) -> Drive:
        log = self._log if services.logger is None else engine_logger(services.logger)

        def on_commit(state: State, entries: Sequence[Entry]) -> None:
            saga_id = full_id(state.saga_id, state.generation)
            self._tell(log, saga_id, entries)
            if state.is_released:
                self._waits.tell(saga_id, state)

        return Drive(
            position,
            first,
            before,
            inbox,
            documents,
            workflow,
            clock=self._clock,
            budget=budget,
            append=self.journal.append,
            on_commit=on_commit,
        )

    def _tell(self, log: Any, saga_id: str, entries: Sequence[Entry]) -> None:
        """Log, and tell the observer; what they raise must not end a drive whose commit is durable."""
        try:
            log_entries(log, saga_id, entries)
            if self._observer is not None:
                self._observer(saga_id, entries)
            if self._plugging is not None:
                self._plugging.tell(saga_id, entries)
        except Exception:
            logging.getLogger("saga_engine").exception("%s: the logger or the observer raised; it goes on", saga_id)

    def _warn_about_mode(self, workflow: Workflow) -> None:
        """Warn once about lists that the seed framework would have read as alternatives."""
        kind = type(workflow.saga)
        if asks(workflow) <= 1 or kind in _warned:
            return
        if any("mode" in vars(base) for base in kind.__mro__ if base is not Saga):
            return  # its author chose
        _warned.add(kind)
        self._log.warning(
            "several steps override should_execute and no mode is set: they all run, in order (mode = 'chain'); "
            "set mode = 'select' if they are alternatives of which one delivery runs one, or mode = 'chain' to "
            "silence this",
            saga=kind.__name__,
        )

    # --- recovering ---

    def _carry_on(self, header: Header) -> bool:
        """Drive an execution that nobody delivers; False if somebody holds it, or it waits for a delivery.

        Raises:
            Stuck: this engine lacks what it takes.
        """
        drive = self._take_up(header, self._budget(wait_s_max=0.0))
        if drive is not None:
            self._sync.run(drive)
        return drive is not None

    def _take_up(
        self, header: Header, budget: Budget, saga: type[Saga] | None = None, services: ServicesOf | None = None
    ) -> Drive | None:
        if self.journal.is_held(header):
            return None
        loaded = self.journal.load(header.eid)
        state = replay(loaded.entries)
        is_at_rest = state.status.is_ended or state.parked is not None
        is_idle = is_at_rest and not loaded.inbox
        if is_idle or state.plan.mode == "select":
            return None
        made = (saga or self._find(state))()
        built_with = self._services_for(made, as_record(header, state), services)
        position = Position(secrets.token_hex(8), header.eid, loaded.seq, header.epoch)
        resumed = DriveResumed(at=self._clock.now(), drive=position.drive)
        return self._take(made, header, state, loaded, position, state.request, resumed, built_with, budget)

    def _find(self, state: State) -> type[Saga]:
        if state.saga in self._sagas:
            return self._sagas[state.saga]
        contributed = self._contributed_saga(state)
        if contributed is not None:
            return contributed
        if state.saga_path in self._started:
            return self._started[state.saga_path]
        try:
            return find_saga(state.saga_path)
        except UnknownSaga as error:
            raise Stuck(str(error)) from error

    def _services_for(self, saga: Saga, record: SagaRecord, services: ServicesOf | None) -> Services:
        if self._services.are_given:
            return self._services
        given = services(record) if services is not None else None
        if given is None:
            given = saga.services(record)
        if given is None and path_of(type(saga)) in self._started_bare:
            return self._services
        if given is None:
            raise Stuck(
                f"{type(saga).__name__} has no services here: give Engine(config=, client=, logger=), or define "
                f"{type(saga).__name__}.services(record)"
            )
        return Services(given.get("config"), given.get("client"), given.get("logger"))

    def _note_stuck(self, header: Header, reason: str, at: float | None = None) -> None:
        saga_id = full_id(header.saga_id, header.generation)
        self._log.error("execution is stuck", saga_id=saga_id, reason=reason)
        self.journal.note_stuck(header, reason, self._clock.now() if at is None else at)

    # --- inspecting ---

    def get(self, saga_id: str) -> SagaRecord:
        """Give the record of an execution.

        Args:
            saga_id: `Saga:key`, which means the latest generation, or `Saga:key#2`.

        Raises:
            UnknownExecution: there is none.
        """
        place = self._place(saga_id)
        if place.child:
            header = without_dead_holder(place.header, self.journal)
            return as_child_record(header, self._replayed(header), place.child)
        return self._record(place.header)

    def history(self, saga_id: str) -> list[Entry]:
        """Give all entries of an execution, oldest first.

        Raises:
            UnknownExecution: there is none, or it was purged.
        """
        place = self._place(saga_id)
        entries = self._loaded(place.header).entries
        if not place.child:
            return list(entries)
        return [entry for entry in entries if (getattr(entry, "step", None) or "").startswith(f"{place.child}/")]

    def search(
        self,
        *,
        status: SagaStatus | None = None,
        saga: str | type[Saga] | None = None,
        stuck: bool = False,
        limit: int = 100,
    ) -> list[SagaRecord]:
        """Give records, newest first.

        Args:
            status: only those that stand so.
            saga: only those of this saga, or of the saga of this name.
            stuck: only those that nobody could drive when they were last tried.
            limit: how many at most.
        """
        if limit < 1:
            raise BadRequest(f"limit is {limit}: give at least 1")
        name = saga.__name__ if isinstance(saga, type) else saga
        headers = self.journal.search(status=status, saga=name, stuck=stuck, limit=limit)
        return [self._record(header) for header in headers]

    def _record(self, header: Header) -> SagaRecord:
        if header.is_purged:
            return as_tombstone(header)
        return as_record(without_dead_holder(header, self.journal), self._replayed(header))

    def _replayed(self, header: Header) -> State:
        return replay(self.journal.load(header.eid).entries)

    def _place(self, saga_id: str) -> Place:
        header = self._find_header(saga_id)
        if header is not None:
            return Place(header)
        parent, slash, child = saga_id.rpartition("/")
        while slash:
            header = self._find_header(parent)
            if header is not None:
                return self._child_place(saga_id, header, child)
            parent, slash, outer = parent.rpartition("/")
            child = f"{outer}/{child}"
        raise UnknownExecution(f"no execution {saga_id!r} in {self.journal.url}: see saga list")

    def _find_header(self, saga_id: str) -> Header | None:
        match = _GENERATION.match(saga_id)
        bare, generation = (match["bare"], int(match["generation"])) if match else (saga_id, None)
        return self.journal.header(bare, generation)

    def _child_place(self, saga_id: str, header: Header, child: str) -> Place:
        state = self._replayed(header)
        members = state.shape.members.get(child, ()) if child in state.shape.scopes else ()
        if all(state.steps[name].phase is Phase.PENDING for name in members):
            raise UnknownExecution(f"no child saga {saga_id!r} was started: see saga show {header.saga_id}")
        return Place(header, child)

    # --- keeping ---

    def purge(self, older_than: timedelta | float) -> int:
        """Remove the entries of executions that ended longer ago; a redelivery still gets their answer.

        Works in small batches, between which others write. Parked executions are never purged.

        Args:
            older_than: the age since the end, as a timedelta or in seconds.

        Returns:
            How many executions were purged.
        """
        age_s = older_than.total_seconds() if isinstance(older_than, timedelta) else older_than
        if not isinstance(age_s, (int, float)) or isinstance(age_s, bool) or not age_s >= 0:
            raise BadRequest(f"purge(older_than={older_than!r}): give a timedelta, or seconds of at least 0")
        before, purged = self._clock.now() - age_s, 0
        while (count := self.journal.purge(before=before, limit=_PAGE)) > 0:
            purged += count
            if count < _PAGE:
                break
        return purged

    def export(self, saga_id: str) -> dict[str, Any]:
        """Give an execution as plain JSON values: everything that is journaled of it, secrets in it included.

        Raises:
            UnknownExecution: there is none, or it was purged.
        """
        header = self._place(saga_id).header
        return export_of(header, self._loaded(header))

    @staticmethod
    def replay(document: Mapping[str, Any]) -> SagaRecord:
        """Give the record of an exported execution, without any journal.

        Raises:
            BadExport: the document is no export of an execution, or a later release wrote it.
        """
        return record_of(document)

    # --- taking in what others say ---

    def _nudge(self, header: Header) -> None:
        try:
            self._carry_on(header)
        except LeaseLost:
            return  # whoever holds it takes the mail in with the next commit
        except Stuck as stuck:
            # The message waits for whoever can go on; an old note does not keep a worker from it.
            self._note_stuck(header, str(stuck), at=0.0)

    # --- the worker ---

    def _worker_of(self, concurrency_max: int, threads_max: int, poll_s: float) -> Worker:
        return Worker(
            journal=self.journal,
            clock=self._clock,
            threads=self._threads,
            take_up=self._take_up_or_note,
            new_budget=lambda: self._budget(WAIT_S_MAX),
            log=self._log,
            concurrency_max=concurrency_max,
            threads_max=threads_max,
            poll_s=poll_s,
            held_max_s=self._held_max_s,
        )

    def _take_up_or_note(self, header: Header, budget: Budget) -> Drive | None:
        try:
            return self._take_up(header, budget)
        except Stuck as stuck:
            self._note_stuck(header, str(stuck))
            return None

    def _told(self, header: Header) -> BackgroundResponse:
        if header.response is not None:
            return to_response(header.response)
        if self.journal.is_held(header):
            return to_response(Response("reschedule", countdown_s=HELD_COUNTDOWN_S))
        state = self._replayed(header)
        response = answer(state, self._clock.now())
        if state.parked is None:
            return to_response(response)
        try:
            saga = self._find(state)()
        except Stuck:
            return to_response(response)
        return self._parked_response(saga, as_record(header, state), response)

    # --- closing ---

    def close(self) -> None:
        """Stop the worker, then the plugins; give back threads and, if this engine opened it, the journal.

        Raises:
            NotAllowed: this runs on the engine's own event loop, which is to end: it is called by a plugin's hook.
        """
        if self._threads.is_own_loop():
            raise NotAllowed(
                "a hook, callback or async step closes the engine that runs it: call close in a thread of its own, "
                "or stop()"
            )
        self._close_background()
        try:
            if self._plugging is not None:
                self._plugging.close()
        finally:  # also after a Ctrl-C, which goes on
            self._threads.close()
            if self._is_own_journal:
                self.journal.close()

    def __enter__(self) -> Engine:
        """Give the engine itself."""
        return self

    async def __aenter__(self) -> Engine:
        """Give the engine itself; its plugins are started."""
        await anyio.to_thread.run_sync(self.start_plugins)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it, without holding up the event loop."""
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self.close)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()


def _as_delivered(state: State, request: Raw) -> Source:
    """Give what steps are built from: the journaled documents, with the request that was delivered now."""
    if bytes(request) == bytes(state.request):
        return lambda scope: documents_at(state, scope)
    return lambda scope: (request, documents_at(state, scope)[1])


def _by_name(sagas: Iterable[type[Saga]]) -> dict[str, type[Saga]]:
    found: dict[str, type[Saga]] = {}
    for saga in sagas:
        refuse_namesake(found.setdefault(saga.__name__, saga), saga)
    return found


def _check_plugged(plugins: Any, extensions: Any, modules: Any) -> None:
    for name, value in (("plugins", plugins), ("modules", modules)):
        if isinstance(value, (str, Mapping)) or not isinstance(value, Iterable):
            raise BadDefinition(f"Engine({name}={value!r}): give a list")
    if extensions is not None and not isinstance(extensions, Mapping):
        raise BadDefinition(f"Engine(extensions={extensions!r}): give a dict of extensions by name")


def _check_arguments(budget_s: Any, threads_max: Any, held_max_s: Any, abandoned_max: Any) -> None:
    for name, seconds in (("budget_s", budget_s), ("held_max_s", held_max_s)):
        is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
        if not is_number or not 0 <= seconds < float("inf"):
            raise BadDefinition(f"Engine({name}={seconds!r}): give a number of seconds of at least 0")
    for name, count in (("threads_max", threads_max), ("abandoned_max", abandoned_max)):
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise BadDefinition(f"Engine({name}={count!r}): give an int of at least 1")


def _check_key(saga: Saga, key: Any) -> None:
    where = f"{type(saga).__name__}.key(request)"
    if not isinstance(key, str) or not key:
        raise BadRequest(f"{where} gave {key!r}: it must give a non-empty str")
    if len(key) > _KEY_CHARS_MAX:
        raise BadRequest(f"{where} gave {len(key)} characters: give at most {_KEY_CHARS_MAX}")
    if _GENERATION.match(f"_{key}"):
        raise BadRequest(f"{where} gave {key!r}: '#' and a number at the end mean a generation; give another key")


def find_saga(path: str) -> type[Saga]:
    """Import a saga by `module:QualifiedName`.

    Raises:
        UnknownSaga: there is none.
    """
    try:
        found = import_named(path)
    except Exception as error:  # an import runs foreign code, which may raise anything
        raise UnknownSaga(
            f"{path!r} cannot be imported ({error}): write module:Saga, or give Engine(sagas=[...])"
        ) from error
    if not (isinstance(found, type) and issubclass(found, Saga)):
        raise UnknownSaga(f"{path!r} is no saga: write module:Saga, where Saga is a subclass of saga_engine.Saga")
    return found


_warned: WeakSet[type[Saga]] = WeakSet()
_engines: dict[tuple[int, str, str | None], Engine] = {}
_engines_lock = threading.Lock()


def journal_url(config: Mapping[str, Any] | None = None) -> str:
    """Give `SAGA_JOURNAL_URL` of the config, else of the environment, else `sqlite:///saga.db`."""
    return _setting("SAGA_JOURNAL_URL", config) or DEFAULT_JOURNAL_URL


def _setting(name: str, config: Mapping[str, Any] | None) -> str | None:
    found = (config or {}).get(name) or os.environ.get(name)
    return str(found) if found else None


def default_engine(config: Mapping[str, Any] | None = None) -> Engine:
    """Give the engine of this process for the configured journal; made when first asked for, anew after a fork.

    The journal's URL is `SAGA_JOURNAL_URL`, see `journal_url`. A delivery may start steps for 0.8 of what the Connect
    runner allows it. `SAGA_CONFIG`, of the config or of the environment, names a configuration file: the engine has its
    plugins then, and its journal unless `SAGA_JOURNAL_URL` names one.

    Raises:
        JournalError: the journal cannot be opened.
        BadSetting: the runner's limit in the environment is no whole number of seconds.
        ConfigError: the configuration file is wrong.
    """
    named, file = _setting("SAGA_JOURNAL_URL", config), _setting("SAGA_CONFIG", config)
    with _engines_lock:
        key = (os.getpid(), named or DEFAULT_JOURNAL_URL, file)
        if key not in _engines:
            given: dict[str, Any] = {"journal": named} if named else {}
            made = Engine if file is None else partial(Engine.from_file, file)
            _engines[key] = made(budget_s=delivery_budget_s(), **given)
        return _engines[key]


if hasattr(os, "register_at_fork"):
    # A lock that another thread held at the fork would stay locked in the child for ever.
    os.register_at_fork(
        before=_engines_lock.acquire, after_in_parent=_engines_lock.release, after_in_child=_engines_lock.release
    )
