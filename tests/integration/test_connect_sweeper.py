"""The sweeper: what it carries on without any delivery, with which client, what it tells, and when it stops."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from connect.client import AsyncConnectClient, ConnectClient
from connect.eaas.core.responses import BackgroundResponse, ScheduledExecutionResponse

from saga_engine import Engine, Saga, SagaContext, SagaStatus
from saga_engine.connect import SagaEventsApplication, on
from saga_engine.errors import BadDefinition, JournalError
from saga_engine.record import SagaRecord
from saga_engine.testing import ManualClock
from transactions import BackgroundTransaction

LIMIT_S = 30.0


def bare_services(record: SagaRecord) -> dict[str, Any]:
    """Give what the steps of these sagas take."""
    return {"config": {}, "client": object()}


class AskAgain(BackgroundTransaction):
    """Completes at its second call, a minute after the first; remembers what it was built with."""

    def __init__(self, client: Any, config: dict[str, Any], context: SagaContext) -> None:
        self.client, self.config, self.context = client, config, context

    def execute(self, request: dict[str, Any]) -> BackgroundResponse:
        seen.append((self.context.saga_id, type(self.client), self.config.get("VARIABLE")))
        return self._answer(request)

    def _answer(self, request: dict[str, Any]) -> BackgroundResponse:
        if self.context.state.setdefault("asked", 0):
            if request.get("breaks"):
                clocks[0].advance(request["breaks"])
            return BackgroundResponse.done()
        self.context.state["asked"] = 1
        return BackgroundResponse.reschedule(60)


class AskAgainAsync(AskAgain):
    async def execute(self, request: dict[str, Any]) -> BackgroundResponse:  # type: ignore[override]
        await asyncio.sleep(0)
        loops.append(asyncio.get_running_loop())
        seen.append((self.context.saga_id, type(self.client), self.config.get("VARIABLE")))
        return self._answer(request)


class PurchaseSaga(Saga):
    def transactions(self, request: dict[str, Any]) -> list[Any]:
        return [AskAgain]


class AsyncSaga(Saga):
    def transactions(self, request: dict[str, Any]) -> list[Any]:
        return [AskAgainAsync]


class Bought(BackgroundTransaction):
    def __init__(self, client: Any, context: SagaContext) -> None:
        self.client, self.context = client, context

    def execute(self, request: dict[str, Any]) -> BackgroundResponse:
        return BackgroundResponse.done()

    def compensate(self, request: dict[str, Any], e: Exception) -> BackgroundResponse:
        seen.append((self.context.saga_id, type(self.client), None))
        return BackgroundResponse.done()


class UndoableSaga(Saga):
    def transactions(self, request: dict[str, Any]) -> list[Any]:
        return [Bought]


class ForeignSaga(PurchaseSaga):
    pass


class BrokenSaga(PurchaseSaga):
    """Cannot be built any more once it has begun."""

    def transactions(self, request: dict[str, Any]) -> list[Any]:
        if broken.is_set():
            raise RuntimeError("the catalogue is gone")
        return [AskAgain]


class UndoneSaga(PurchaseSaga):
    """Has a step no more once it has begun."""

    def transactions(self, request: dict[str, Any]) -> list[Any]:
        return [("Other", lambda _: True, lambda _: BackgroundResponse.done())] if broken.is_set() else [AskAgain]


class Application(SagaEventsApplication):
    asset_purchase_request_processing = PurchaseSaga
    asset_suspend_request_processing = BrokenSaga
    asset_resume_request_processing = UndoneSaga


class AsyncApplication(SagaEventsApplication):
    asset_purchase_request_processing = PurchaseSaga
    asset_change_request_processing = on(AsyncSaga, is_async=True)


class CancelSaga(PurchaseSaga):
    """Undoes the purchase of the same key, which only the sweeper can: no delivery of the purchase comes any more."""

    undoes = UndoableSaga


class CancelApplication(SagaEventsApplication):
    asset_cancel_request_processing = CancelSaga


seen: list[tuple[str, type, Any]] = []
loops: list[Any] = []
clocks: list[ManualClock] = []
broken = threading.Event()


@pytest.fixture
def clock() -> ManualClock:
    """The clock of the default engine."""
    return ManualClock()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'saga.db'}"


@pytest.fixture
def engine(url: str, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """The default engine of this process, on the test's clock."""
    for kept in (seen, loops, clocks):
        kept.clear()
    broken.clear()
    clocks.append(clock)
    with Engine(url, clock=clock) as opened:
        monkeypatch.setattr("saga_engine.engine._engines", {(os.getpid(), url, None): opened})
        yield opened


def application(kind: Any, url: str) -> Any:
    """Make the instance that the runner would make."""
    client = (AsyncConnectClient if kind is AsyncApplication else ConnectClient)(
        "ApiKey SU-1:x", endpoint="https://127.0.0.1:1/public/v1", default_headers={"EAAS_TASK_ID": "TQ-1"}
    )
    return kind(client, logging.getLogger("test"), {"SAGA_JOURNAL_URL": url, "VARIABLE": "1"})


def swept(kind: Any, url: str) -> ScheduledExecutionResponse:
    """Run the schedule."""
    answer = application(kind, url).resume_sagas({})
    return asyncio.run(answer) if asyncio.iscoroutine(answer) else answer


def begin(kind: Any, url: str, event_type: str, *keys: str, **more: Any) -> None:
    """Deliver requests once."""
    for key in keys:
        answer = getattr(application(kind, url), event_type)({"id": key, **more})
        response = asyncio.run(answer) if asyncio.iscoroutine(answer) else answer
        assert response.status == "reschedule"


def test_an_order_that_is_never_delivered_again_is_completed(engine: Engine, url: str, clock: ManualClock) -> None:
    begin(Application, url, "asset_purchase_request_processing", "PR-1")
    clock.advance(59)
    assert (early := swept(Application, url)).status == "success"
    assert early.output == "took up 0, left alone 0, failed 0"
    clock.advance(1)
    response = swept(Application, url)
    assert (response.status, response.output) == ("success", "took up 1, left alone 0, failed 0")
    assert engine.get("PurchaseSaga:PR-1").status is SagaStatus.COMPLETED
    assert seen == [("PurchaseSaga:PR-1", ConnectClient, "1")] * 2


def test_plain_and_async_sagas_each_get_the_client_of_their_kind(engine: Engine, url: str, clock: ManualClock) -> None:
    begin(AsyncApplication, url, "asset_change_request_processing", "PR-2")
    # Not by the application's handler: its instance here has the client of the async ones.
    PurchaseSaga.make({"SAGA_JOURNAL_URL": url}, ConnectClient("ApiKey x")).resolve({"id": "PR-1"})
    clock.advance(60)
    response = swept(AsyncApplication, url)
    assert (response.status, response.output) == ("success", "took up 2, left alone 0, failed 0")
    assert {record.status for record in engine.search()} == {SagaStatus.COMPLETED}
    assert {saga_id: client for saga_id, client, _ in seen[2:]} == {
        "PurchaseSaga:PR-1": ConnectClient,
        "AsyncSaga:PR-2": AsyncConnectClient,
    }


@pytest.mark.anyio
async def test_async_sagas_go_on_on_the_loop_of_the_runner(engine: Engine, url: str, clock: ManualClock) -> None:
    app = application(AsyncApplication, url)
    await app.asset_change_request_processing({"id": "PR-2"})
    clock.advance(60)
    await app.resume_sagas({})
    assert loops == [asyncio.get_running_loop()] * 2


def test_the_client_made_for_plain_steps_calls_the_same_endpoint_with_the_same_key_and_headers(
    engine: Engine, url: str
) -> None:
    from saga_engine.connect.sweeper import _plain_client

    given = AsyncConnectClient(
        "ApiKey SU-1:x", endpoint="https://c/public/v1", default_headers={"a": "b"}, max_retries=2, timeout=(1.0, 2.0)
    )
    made = _plain_client(given)
    assert isinstance(made, ConnectClient)
    told = ("api_key", "endpoint", "default_headers", "max_retries", "timeout", "default_limit", "logger")
    assert [getattr(made, name) for name in told] == [getattr(given, name) for name in told]


def test_bad_executions_do_not_hide_the_others_and_are_named(engine: Engine, url: str, clock: ManualClock) -> None:
    begin(Application, url, "asset_suspend_request_processing", "PR-1")
    begin(Application, url, "asset_resume_request_processing", "PR-2")
    begin(Application, url, "asset_purchase_request_processing", "PR-3", "PR-4")
    broken.set()
    clock.advance(60)
    response = swept(Application, url)
    assert response.status == "fail"
    assert response.output.startswith("took up 2, left alone 1, failed 1; BrokenSaga:PR-1: RuntimeError: the catalogue")
    assert "UndoneSaga:PR-2: UndoneSaga has no step named 'AskAgain' any more" in response.output
    assert [record.saga_id for record in engine.search(status=SagaStatus.COMPLETED)] == [
        "PurchaseSaga:PR-4",
        "PurchaseSaga:PR-3",
    ]


def test_a_long_list_of_bad_executions_is_cut(engine: Engine, url: str, clock: ManualClock) -> None:
    begin(Application, url, "asset_suspend_request_processing", *(f"PR-{number}" for number in range(8)))
    broken.set()
    clock.advance(60)
    response = swept(Application, url)
    assert response.output.count("RuntimeError") == 5
    assert "failed 8" in response.output


def test_executions_of_sagas_that_the_application_does_not_have_are_left_to_others(
    engine: Engine, url: str, clock: ManualClock
) -> None:
    ForeignSaga.make({}, object(), engine=engine).resolve({"id": "PR-1"})
    clock.advance(60)
    assert swept(Application, url).output == "took up 0, left alone 0, failed 0"
    assert engine.get("ForeignSaga:PR-1").status is SagaStatus.SUSPENDED
    assert engine.search(stuck=True) == []


def test_what_a_later_order_undoes_is_undone_by_the_sweeper_of_that_order(
    engine: Engine, url: str, clock: ManualClock
) -> None:
    config = {"SAGA_JOURNAL_URL": url}
    assert UndoableSaga.make(config, ConnectClient("ApiKey x")).resolve({"id": "PR-1"}).status == "success"
    begin(CancelApplication, url, "asset_cancel_request_processing", "PR-1")
    swept(CancelApplication, url)
    assert engine.get("UndoableSaga:PR-1").status is SagaStatus.COMPENSATED
    assert seen == [("UndoableSaga:PR-1", ConnectClient, None)]


def test_no_execution_is_taken_up_after_the_time_of_the_schedule(
    engine: Engine, url: str, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCHEDULED_TASK_MAX_EXECUTION_TIME", "100")
    begin(Application, url, "asset_purchase_request_processing", "PR-1", "PR-2", "PR-3", breaks=41)
    clock.advance(60)
    first = swept(Application, url)
    assert (first.status, first.output) == (
        "success",
        "took up 2, left alone 0, failed 0; its time was over, the next run goes on",
    )
    assert swept(Application, url).output == "took up 1, left alone 0, failed 0"


def test_no_further_step_is_started_after_the_time_of_the_schedule(engine: Engine, clock: ManualClock) -> None:
    def half_a_minute(_request: dict[str, Any]) -> BackgroundResponse:
        clock.advance(30)
        return BackgroundResponse.done()

    class LongSaga(Saga):
        def transactions(self, request: dict[str, Any]) -> list[Any]:
            ask, rest = AskAgain, [(name, lambda _: True, half_a_minute) for name in ("First", "Second", "Third")]
            return [ask, *rest]

    LongSaga.make({}, object(), engine=engine).resolve({"id": "PR-1"})
    clock.advance(60)
    assert engine.recover(sagas=[LongSaga], services=bare_services, budget_s=40) == 1
    statuses = [step.status.value for step in engine.get("LongSaga:PR-1").steps]
    assert statuses == ["COMPLETED", "COMPLETED", "COMPLETED", "PENDING"]


def test_what_another_drive_holds_is_left_to_it(engine: Engine, url: str, clock: ManualClock) -> None:
    reached, go = threading.Event(), threading.Event()

    def hold(_request: dict[str, Any]) -> BackgroundResponse:
        reached.set()
        assert go.wait(LIMIT_S)
        return BackgroundResponse.done()

    class HeldSaga(Saga):
        def transactions(self, request: dict[str, Any]) -> list[Any]:
            return [("Hold", lambda _: True, hold)]

    app = type(SagaEventsApplication)("App", (SagaEventsApplication,), {"asset_purchase_request_processing": HeldSaga})
    deliverer = threading.Thread(target=application(app, url).asset_purchase_request_processing, args=({"id": "PR-1"},))
    deliverer.start()
    try:
        assert reached.wait(LIMIT_S)
        assert swept(app, url).output == "took up 0, left alone 0, failed 0"
    finally:
        go.set()
        deliverer.join(LIMIT_S)
    assert engine.get("HeldSaga:PR-1").status is SagaStatus.COMPLETED


def test_a_journal_that_cannot_be_opened_is_an_error_so_that_connect_tries_again(tmp_path: Path) -> None:
    foreign = tmp_path / "saga.db"
    foreign.write_bytes(b"no database at all" * 100)
    for kind in (Application, AsyncApplication):
        with pytest.raises(JournalError):
            swept(kind, f"sqlite:///{foreign}")


def test_what_one_half_of_an_async_sweep_raises_is_raised_after_the_other_half(
    engine: Engine, url: str, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(AsyncApplication, url, "asset_change_request_processing", "PR-2")
    clock.advance(60)

    def fail(*_: Any, **__: Any) -> None:
        raise JournalError("gone")

    monkeypatch.setattr(engine, "recover", fail)
    with pytest.raises(JournalError, match="gone"):
        swept(AsyncApplication, url)
    assert engine.get("AsyncSaga:PR-2").status is SagaStatus.COMPLETED


# --- Engine.recover, by itself ---


def test_recover_without_services_leaves_alone_and_with_them_goes_on(engine: Engine, clock: ManualClock) -> None:
    PurchaseSaga.make({}, object(), engine=engine).resolve({"id": "PR-1"})
    clock.advance(60)
    bare = engine.recover()
    assert (bare, bare.left_alone) == (0, 1)
    assert engine.recover(services=bare_services) == 1


def test_recover_takes_up_only_the_sagas_that_it_is_given(engine: Engine, clock: ManualClock) -> None:
    for saga in (PurchaseSaga, ForeignSaga):
        saga.make({}, object(), engine=engine).resolve({"id": "PR-1"})
    clock.advance(60)
    assert engine.recover(sagas=[ForeignSaga], services=bare_services) == 1
    assert [record.saga for record in engine.search(status=SagaStatus.COMPLETED)] == ["ForeignSaga"]
    assert engine.recover(sagas=[], services=bare_services) == 0


@pytest.mark.parametrize("budget_s", [0, -1, "10"])
def test_recover_refuses_a_budget_that_cannot_be_meant(engine: Engine, budget_s: Any) -> None:
    with pytest.raises(BadDefinition, match="budget_s"):
        engine.recover(budget_s=budget_s)


def test_recover_refuses_what_is_no_saga(engine: Engine) -> None:
    with pytest.raises(BadDefinition, match="no saga"):
        engine.recover(sagas=[AskAgain])  # type: ignore[list-item]


def test_recover_finds_local_sagas_that_it_is_given(engine: Engine, clock: ManualClock) -> None:
    class LocalSaga(PurchaseSaga):
        pass

    LocalSaga.make({}, object(), engine=engine).resolve({"id": "PR-1"})
    clock.advance(60)
    assert engine.recover(services=bare_services).left_alone == 1
    assert engine.recover(sagas=[LocalSaga], services=bare_services) == 1
