"""One transaction alone: built as a saga builds it, called as an engine calls it, with nothing journaled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from connect.eaas.core.responses import BackgroundResponse

from saga_engine.calls import Call, Result
from saga_engine.codec import encode_json
from saga_engine.context import SagaContext
from saga_engine.documents import Live
from saga_engine.drivers import Threads
from saga_engine.errors import BadDefinition, InvalidTransaction, LimitReached, NotJSON
from saga_engine.groups import Chain, Parallel
from saga_engine.outcome import _refuse_nonsense
from saga_engine.plan import Step, build_workflow
from saga_engine.record import SagaRecord
from saga_engine.saga import Saga, Services
from saga_engine.services.plans import Key
from saga_engine.testing.contexts import FakeContext
from saga_engine.testing.doubles import providers_with
from saga_engine.testing.faults import StepMadeToFail
from transactions import InvalidResponse, Probe, Suspend
from transactions.adapters import as_transaction

__all__ = ["StepResult", "compensate_step", "probe_step", "run_step"]


@dataclass(frozen=True)
class StepResult:
    """What one call of one transaction gave.

    Attributes:
        response: the answer; of a `Suspend`, its response; None if there is none.
        state: `context.state` as the call left it.
        request: the request as the call left it; the test's own dict is never changed.
        error: what was raised; also what the engine makes of an answer that is no response (`InvalidResponse`)
            and of a state or request that is not JSON (`NotJSON`). None if all is well. `fail` is an answer.
        suspended: the `Suspend` that was returned, or None.
        is_skipped: `should_execute` was false, so nothing else was called.
        probe: what `probe` answered; only by `probe_step`.
        context: the context that the step was given; `context.saved` holds what it saved.
    """

    response: BackgroundResponse | None
    state: dict[str, Any]
    request: dict[str, Any]
    error: Exception | None
    suspended: Suspend | None
    is_skipped: bool
    probe: Probe | None
    context: FakeContext


def run_step(
    transaction: Any,
    request: dict[str, Any],
    *,
    client: Any = None,
    config: Mapping[str, Any] | None = None,
    logger: Any = None,
    state: dict[str, Any] | None = None,
    services: Mapping[Key, Any] | None = None,
    attempt: int = 1,
) -> StepResult:
    """Ask `should_execute` of one transaction and, if it is true, run `execute` once.

        result = run_step(CreateSubscription, request, client=fake_client, state={"customer": "C-1"})

    Args:
        transaction: whatever a saga may list: a class, an instance, a tuple, a decorated function; plain or async.
        request: a dict of JSON values.
        client, config, logger: what the transaction has injected.
        state: what earlier steps left in `context.state`.
        services: whatever else it has injected, by name or by type.
        attempt: what `context.attempt` says.

    No retry, probe or compensation follows: an exception is in `error`.

    Raises:
        InvalidTransaction: it is nothing that a saga may list.
        DependencyBuildingFailure: something that it wants injected is missing.
        NotJSON: the request or the state is not JSON.
    """
    with _bench(transaction, request, Services(config, client, logger), state, services, attempt) as bench:
        asked = bench.call("should_execute")
        if asked.error is not None or not asked.value:
            return bench.result(error=asked.error, is_skipped=asked.error is None)
        return bench.answered("execute")


def compensate_step(
    transaction: Any,
    request: dict[str, Any],
    e: Exception | None = None,
    *,
    client: Any = None,
    config: Mapping[str, Any] | None = None,
    logger: Any = None,
    state: dict[str, Any] | None = None,
    services: Mapping[Key, Any] | None = None,
    attempt: int = 1,
) -> StepResult:
    """Run `compensate` of one transaction once.

    Args:
        e: why the saga is compensated; by default a `StepMadeToFail`. If `error` of the result is this same object,
            the transaction said that it has no undo.

    The other arguments and what may be raised are those of `run_step`. `context.execute_key` equals the
    `context.idempotency_key` that `run_step` gave to the same transaction.
    """
    error = e or StepMadeToFail("a later step was made to fail")
    with _bench(transaction, request, Services(config, client, logger), state, services, attempt) as bench:
        return bench.answered("compensate", error)


def probe_step(
    transaction: Any,
    request: dict[str, Any],
    *,
    client: Any = None,
    config: Mapping[str, Any] | None = None,
    logger: Any = None,
    state: dict[str, Any] | None = None,
    services: Mapping[Key, Any] | None = None,
) -> StepResult:
    """Ask `probe` of one transaction; its answer is `probe` of the result.

    The arguments and what may be raised are those of `run_step`.
    """
    with _bench(transaction, request, Services(config, client, logger), state, services, 1) as bench:
        given = bench.call("probe")
        if given.error is None and not isinstance(given.value, Probe):
            given.error = InvalidResponse(f"{bench.step.name}: probe returned {given.value!r}: return a Probe")
        return bench.result(error=given.error, probe=None if given.error else given.value)


class _Bench:
    """One transaction, built, with the request and the state that it works on."""

    def __init__(self, step: Step, live: Live, context: FakeContext, attempt: int, threads: Threads) -> None:
        self.step = step
        self._live = live
        self._context = context
        self._attempt = attempt
        self._threads = threads

    def call(self, operation: str, *more: Any) -> Result:
        return self._run(self._call(operation, more))

    def answered(self, operation: str, *more: Any) -> StepResult:
        """Call what answers with a response."""
        call = self._call(operation, more)
        given = self._run(call)
        value = given.value
        error = given.error or _refuse_nonsense(value, call, may_suspend=operation == "execute")
        if error is not None:
            return self.result(error=error)
        if isinstance(value, Suspend):
            return self.result(response=value.response, suspended=value)
        return self.result(response=value)

    def result(
        self,
        *,
        response: BackgroundResponse | None = None,
        error: Exception | None = None,
        suspended: Suspend | None = None,
        is_skipped: bool = False,
        probe: Probe | None = None,
    ) -> StepResult:
        return StepResult(
            response=response,
            state=self._live.data,
            request=self._live.request,
            error=error or self._refusal(),
            suspended=suspended,
            is_skipped=is_skipped,
            probe=probe,
            context=self._context,
        )

    def _call(self, operation: str, more: tuple[Any, ...]) -> Call:
        return Call(operation, self.step, (self._live.request, *more), (), self._attempt)

    def _run(self, call: Call) -> Result:
        return call.run(self._threads.await_plainly)

    def _refusal(self) -> Exception | None:
        """Find what the engine could not journal."""
        try:
            encode_json(self._live.request, "request", Saga.payload_bytes_max)
            encode_json(self._live.data, "context.state", Saga.payload_bytes_max)
        except (NotJSON, LimitReached) as error:
            return error
        return None


@contextmanager
def _bench(
    entry: Any,
    request: dict[str, Any],
    given: Services,
    state: dict[str, Any] | None,
    services: Mapping[Key, Any] | None,
    attempt: int,
) -> Iterator[_Bench]:
    raw = encode_json(request, "request", Saga.payload_bytes_max)
    live = Live(raw, encode_json(state or {}, "state", Saga.payload_bytes_max))
    listed = _single(entry)

    class FakeSaga(Saga):
        providers = providers_with(Saga.providers, services)

        def transactions(self, request: dict[str, Any]) -> list[Any]:
            return [listed]

    threads = Threads(1)
    try:
        documents = _BenchDocuments(live, attempt)
        workflow = build_workflow(FakeSaga(), request, given, documents, documents.fake.saga_id, _undo_nothing)
        (step,) = workflow.steps.values()
        yield _Bench(step, live, documents.fake, attempt, threads)
    finally:
        threads.close()


def _single(entry: Any) -> Any:
    """Refuse what holds several transactions."""
    if isinstance(entry, (Parallel, Chain)) or (isinstance(entry, type) and issubclass(entry, Saga)):
        raise InvalidTransaction(f"{entry!r} holds several transactions: give one, or use run_saga")
    return entry if isinstance(entry, type) else as_transaction(entry)


class _BenchDocuments:
    """The documents of the one transaction on the bench."""

    def __init__(self, live: Live, attempt: int) -> None:
        self._live = live
        self.fake = FakeContext(state=live.data, attempt=attempt)

    def request(self, scope: str) -> dict[str, Any]:
        return self._live.request

    def context(self, *, scope: str, saga_id: str, saga: str, step: str, path: str) -> SagaContext:
        return self.fake


def _undo_nothing(saga_id: str, note: str) -> SagaRecord:
    raise BadDefinition(f"{saga_id}: a single transaction undoes no saga: use run_saga")
