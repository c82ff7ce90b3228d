"""The sweeper of an extension: what no delivery carries on, is carried on with what a delivery would give."""

from __future__ import annotations

import pytest
from connect.client import AsyncConnectClient, ConnectClient
from connect.eaas.core.responses import BackgroundResponse
from gates import LoudMortal
from sagas import DONE, Crash, World, saga_of

from saga_engine import Engine, SagaStatus, current_context
from saga_engine.connect import SagaEventsApplication, on
from saga_engine.errors import BadDefinition
from saga_engine.journals import open_journal
from saga_engine.testing import ManualClock
from transactions import BackgroundTransaction

pytestmark = pytest.mark.anyio

LATER = BackgroundResponse.reschedule(60)
REQUEST = {"id": "PR-1"}


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def journal():
    return open_journal("memory://")


def application_of(engine, **handled):
    """Make an application of an extension as the runner does for a scheduled task."""

    class Extension(SagaEventsApplication):
        def make_saga(self, saga):
            return saga.make(self.config, self.client, self.logger, engine=engine)

    kind = type(SagaEventsApplication)(
        "Local", (Extension,), {"__module__": __name__, "__qualname__": "Local", **handled}
    )
    client = AsyncConnectClient(
        "ApiKey K", endpoint="https://127.0.0.1/public/v1", default_headers={"EAAS_TASK_ID": "T"}
    )
    return kind(client, None, {"A": "1"})


async def test_an_order_that_is_due_is_completed_without_another_delivery(journal, clock):
    saga = saga_of(World().step("a", LATER, DONE))
    with Engine(journal, clock=clock) as engine:
        application = application_of(engine, asset_purchase_request_processing=saga)
        assert application.asset_purchase_request_processing(REQUEST).status == "reschedule"
        assert (await application.resume_sagas({})).status == "success"
        assert engine.get("Order:PR-1").status is SagaStatus.SUSPENDED, "it is not due yet"
        clock.advance(60)
        assert (await application.resume_sagas({})).status == "success"
        assert engine.get("Order:PR-1").status is SagaStatus.COMPLETED


async def test_an_order_whose_worker_died_is_completed_without_another_delivery(journal, clock):
    world, process = World(), LoudMortal(journal)
    saga = saga_of(world.step("a"), world.step("b", process.die, DONE))
    with pytest.raises(Crash):
        saga.make({}, engine=Engine(process, clock=clock)).resolve(REQUEST)
    with Engine(journal, clock=clock) as engine:
        application = application_of(engine, asset_purchase_request_processing=saga)
        assert (await application.resume_sagas({})).status == "success"
        assert engine.get("Order:PR-1").status is SagaStatus.COMPLETED
    assert [len(world.of("a")), len(world.of("b"))] == [1, 2]


class Looking(BackgroundTransaction):
    """Keeps what it was built with."""

    seen: list[tuple[type, str, dict[str, str]]]

    def __init__(self, client, config):
        self.client, self.config = client, config

    def execute(self, request):
        kind, headers = type(self.client), self.client.default_headers
        self.seen.append((kind, self.client.endpoint, {**headers, **self.config}))
        return LATER if len(self.seen) == 1 else DONE


@pytest.mark.parametrize(("is_async", "kind"), [(False, ConnectClient), (True, AsyncConnectClient)])
async def test_steps_get_the_client_that_their_handler_would_give_them(journal, clock, is_async, kind):
    step = type("Step", (Looking,), {"seen": []})
    saga = saga_of(step)
    with Engine(journal, clock=clock) as engine:
        application = application_of(engine, asset_purchase_request_processing=on(saga, is_async=is_async))
        await saga.make(application.config, application.client, engine=engine).aresolve(REQUEST)
        clock.advance(60)
        assert (await application.resume_sagas({})).status == "success"
    assert step.seen[1] == (kind, "https://127.0.0.1/public/v1", {"EAAS_TASK_ID": "T", "A": "1"})


async def test_executions_of_other_applications_are_left_alone(journal, clock):
    with Engine(journal, clock=clock) as engine:
        other = saga_of(World().step("a", LATER, DONE), name="Other")
        other.make({}, engine=engine).resolve(REQUEST)
        clock.advance(60)
        application = application_of(engine, asset_purchase_request_processing=saga_of(World().step("a")))
        assert (await application.resume_sagas({})).status == "success"
        record = engine.get("Other:PR-1")
        assert (record.status, record.stuck) == (SagaStatus.SUSPENDED, None)


async def test_the_answer_tells_which_orders_could_not_be_carried_on_and_the_others_are(journal, clock):
    bad = saga_of(World().step("a", LATER, DONE), name="Bad")
    good = saga_of(World().step("a", LATER, DONE), name="Good")
    with Engine(journal, clock=clock) as engine:
        for saga in (bad, good):
            saga.make({}, engine=engine).resolve(REQUEST)
        clock.advance(60)
        renamed = saga_of(World().step("b"), name="Bad")
        handled = {"asset_purchase_request_processing": renamed, "asset_change_request_processing": good}
        found = await application_of(engine, **handled).resume_sagas({})
        assert found.status == "fail"
        assert (
            found.output
            == "1 carried on, 1 could not be: Bad:PR-1: Bad has no step named 'a' any more: deploy one that has"
        )
        assert engine.get("Good:PR-1").status is SagaStatus.COMPLETED


async def test_no_more_is_taken_up_when_the_time_of_the_task_is_over(journal, clock, monkeypatch):
    class Slow(BackgroundTransaction):
        def execute(self, request):
            if current_context().attempt == 1:
                return LATER
            clock.advance(100)
            return DONE

    saga = saga_of(Slow)
    with Engine(journal, clock=clock) as engine:
        for number in range(3):
            saga.make({}, engine=engine).resolve({"id": f"PR-{number}"})
        clock.advance(60)
        monkeypatch.setenv("SCHEDULED_TASK_MAX_EXECUTION_TIME", "200")
        application = application_of(engine, asset_purchase_request_processing=saga)
        assert (await application.resume_sagas({})).status == "success"
        ended = [engine.get(f"Order:PR-{number}").status is SagaStatus.COMPLETED for number in range(3)]
        assert ended == [True, True, False], "0.8 of 200 s are over after the second"


def test_recovery_for_no_time_is_refused(journal):
    with Engine(journal) as engine, pytest.raises(BadDefinition, match="budget_s is 0: give a number of seconds"):
        engine.recover(budget_s=0)
