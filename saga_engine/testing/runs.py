"""A whole saga on the real engine, in memory and without waiting."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from connect.eaas.core.responses import BackgroundResponse

from saga_engine.calls import Call, Result
from saga_engine.decider import replay
from saga_engine.drive import Drive, Perform
from saga_engine.drivers import SyncDriver
from saga_engine.engine import Engine
from saga_engine.errors import BadRequest, BranchConflict, DeadlineExceeded, SagaError
from saga_engine.journal import CompensationBegun, Entry, Header, Response, SagaStatus, StepCompensated
from saga_engine.record import SagaRecord
from saga_engine.recorded import rebuild_error
from saga_engine.saga import Saga, Services
from saga_engine.services.plans import Key
from saga_engine.testing.clock import ManualClock
from saga_engine.testing.doubles import providers_with
from saga_engine.testing.faults import Faults, faults_of, injected

__all__ = ["SagaResult", "run_saga"]


@dataclass(frozen=True)
class SagaResult:
    """How an execution went.

    Attributes:
        status: how it stands after the last delivery.
        response: the answer to the last delivery; None if that raised, which happens in mode "select" only.
        responses: the answers to all deliveries, oldest first.
        executed: the steps whose `execute` was called, the failing one included, in the order of their first call.
        compensated: the steps that were undone, in that order.
        state, request: as the steps left them.
        error: the very exception that turned the saga back (`StepRefused` if the step answered `fail`), or that the
            last delivery raised; None if nothing did.
        record: what `Engine.get` tells of the execution, with attempts and errors of each step.
        history: all entries of the journal, oldest first.
    """

    status: SagaStatus
    response: BackgroundResponse | None
    responses: tuple[BackgroundResponse, ...]
    executed: list[str]
    compensated: list[str]
    state: dict[str, Any]
    request: dict[str, Any]
    error: Exception | None
    record: SagaRecord
    history: list[Entry]


def run_saga(
    saga: type[Saga],
    request: dict[str, Any],
    *,
    fail_at: str | Faults | None = None,
    client: Any = None,
    config: Mapping[str, Any] | None = None,
    logger: Any = None,
    services: Mapping[Key, Any] | None = None,
    signals: Mapping[str, Any] | None = None,
    until: SagaStatus | None = None,
    deliveries_max: int = 10,
    clock: ManualClock | None = None,
) -> SagaResult:
    """Run a saga on the real engine and a journal in memory; waits are over at once.

        result = run_saga(PurchaseSaga, request, fail_at="Approve request", client=fake_client)

    Args:
        saga: the saga's class; steps and middlewares may be plain or async.
        request: what is delivered; each delivery gets a copy, as Connect delivers the request anew.
        fail_at: the name of a step whose `execute` raises `StepMadeToFail` at every attempt, instead of doing
            anything; or a mapping of such names to an exception to raise, or a response to answer with. The name is
            that in the plan: `Child/Step` for a step of a child saga.
        client, config, logger: what the steps have injected.
        services: whatever else they have injected, by name or by type; wins over what the saga provides.
        signals: payloads by the name of the signal, for `WaitFor` and `Suspend(signal=...)`; sent once, as soon as the
            first delivery has been answered.
        until: stop when the execution stands so, for example `SagaStatus.SUSPENDED`. It also stops when it ended or
            parked.
        deliveries_max: after a reschedule the request is delivered again when it is due, so many times in all.
        clock: a clock to look at afterwards.

    Raises:
        SagaError: the saga or the request cannot be used.
        UnknownStep: `fail_at` names no step.
    """
    if deliveries_max < 1:
        raise BadRequest(f"deliveries_max is {deliveries_max}: give at least 1")
    used_clock = clock or ManualClock()
    engine = _RehearsalEngine(used_clock, faults_of(fail_at))
    with engine:
        made = _with_services(saga, services).make(config, client, logger, engine=engine)
        rehearsal = _Rehearsal(engine, made, request, used_clock)
        rehearsal.deliver(deliveries_max, until, signals or {})
        return rehearsal.result()


def _with_services(saga: type[Saga], services: Mapping[Key, Any] | None) -> type[Saga]:
    if not services:
        return saga
    names = {"__module__": saga.__module__, "__qualname__": saga.__qualname__, "__doc__": saga.__doc__}

    def make_child(self: Saga, kind: type[Saga], given: Services) -> Saga:
        return _with_services(kind, services).make(given.config, given.client, given.logger)

    doubled = {"providers": providers_with(saga.providers, services), "_make_child": make_child}
    return type(saga.__name__, (saga,), {**names, **doubled})


class _Rehearsal:
    """The deliveries of one request."""

    def __init__(self, engine: _RehearsalEngine, saga: Saga, request: dict[str, Any], clock: ManualClock) -> None:
        self._engine = engine
        self._saga = saga
        self._request = request
        self._clock = clock
        self._responses: list[BackgroundResponse] = []
        self._raised: Exception | None = None

    def deliver(self, deliveries_max: int, until: SagaStatus | None, signals: Mapping[str, Any]) -> None:
        for number in range(deliveries_max):
            if not self._deliver_once():
                return
            record = self._record()
            if record.status is SagaStatus.PARKED or record.status.is_ended:
                return
            if number == 0 and signals:
                self._send(record.saga_id, signals)
                continue
            if record.status is until:
                return
            if record.next_due_at is not None:
                self._clock.advance(max(0.0, record.next_due_at - self._clock.now()))

    def _send(self, saga_id: str, signals: Mapping[str, Any]) -> None:
        for name, payload in signals.items():
            self._engine.signal(saga_id, name, payload)

    def _deliver_once(self) -> bool:
        try:
            self._responses.append(self._saga.resolve(copy.deepcopy(self._request)))
        except Exception as error:
            # Mode select gives the caller what the transaction raised; all else is a mistake of the test or the saga.
            if isinstance(error, SagaError) or not self._engine.search(limit=1):
                raise
            self._raised = error
        return self._raised is None

    def _record(self) -> SagaRecord:
        return self._engine.search(limit=1)[0]

    def result(self) -> SagaResult:
        record = self._record()
        history = self._engine.history(record.saga_id)
        return SagaResult(
            status=record.status,
            response=None if self._raised else self._responses[-1],
            responses=tuple(self._responses),
            executed=list(self._engine.driver.executed),
            compensated=[entry.step for entry in history if isinstance(entry, StepCompensated)],
            state=record.state,
            request=record.request,
            error=self._raised or _turned_back_by(history, self._engine.driver.errors, record),
            record=record,
            history=history,
        )


class _RehearsalDriver(SyncDriver):
    """The sync driver, with steps that are made to fail; notes what was called and what that raised."""

    def __init__(self, engine: Engine, clock: ManualClock, faults: Faults) -> None:
        super().__init__(engine.journal, clock, engine._threads)
        self.faults = faults
        self.executed: dict[str, None] = {}
        self.errors: dict[str, Exception] = {}

    def run(self, drive: Drive) -> Response:
        with injected(drive.workflow, self.faults) as drive.workflow:
            return super().run(drive)

    def _perform(self, drive: Drive, effect: Perform, calls: Any) -> list[tuple[Call, Result]]:
        finished = super()._perform(drive, effect, calls)
        for call, result in finished:
            self._note(call, result)
        return finished

    def _note(self, call: Call, result: Result) -> None:
        name = call.step.name
        if call.operation == "execute" and result.is_reached:
            self.executed[name] = None
        if call.operation in ("execute", "should_execute"):
            self.errors.pop(name, None)
            if result.error is not None:
                self.errors[name] = result.error


class _RehearsalEngine(Engine):
    """An engine on a journal in memory that drives with the driver above."""

    def __init__(self, clock: ManualClock, faults: Faults) -> None:
        super().__init__("memory://", clock=clock)
        self._sync = self.driver = _RehearsalDriver(self, clock, faults)

    def _nudge(self, header: Header) -> None:
        """Leave what was sent to the next delivery, which has the services of the test."""


def _turned_back_by(history: Sequence[Entry], errors: Mapping[str, Exception], record: SagaRecord) -> Exception | None:
    begun = next((entry for entry in history if isinstance(entry, CompensationBegun)), None)
    if begun is None:
        return None
    if begun.cause == "deadline":
        return DeadlineExceeded()
    if begun.cause == "conflict":
        return BranchConflict(record.error)
    if begun.step is not None and begun.step in errors:
        return errors[begun.step]
    error = replay(tuple(history)).steps[begun.step].error if begun.step is not None else None
    return None if error is None else rebuild_error(error)
