"""saga_engine.testing: what a connector's author is promised, and the page that shows it."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from connect.eaas.core.responses import BackgroundResponse
from msgspec import Raw
from tenacity import stop_after_attempt, wait_fixed

from saga_engine import Chain, Parallel, Saga, SagaContext, SagaRecord, SagaStatus, WaitFor, current_context
from saga_engine.documents import Documents
from saga_engine.errors import (
    BranchConflict,
    DeadlineExceeded,
    InvalidResponse,
    InvalidTransaction,
    NoContext,
    NotJSON,
    SignalTimedOut,
    StepRefused,
    UnknownExecution,
)
from saga_engine.plan import build_workflow
from saga_engine.saga import Services
from saga_engine.services import DependencyBuildingFailure, ServiceProvider
from saga_engine.testing import (
    ManualClock,
    StepMadeToFail,
    UnknownStep,
    compensate_step,
    fake_context,
    probe_step,
    run_saga,
    run_step,
)
from saga_engine.testing.faults import injected
from transactions import BackgroundTransaction, Kind, Probe, RetryPolicy, Suspend, TransactionNotSelected, transaction

UNDO = '        self.vendor.delete(self.context.state["customer"], key=self.context.idempotency_key)\n'
PAGE = Path(__file__).resolve().parents[2] / "docs" / "testing.md"
REQUEST: dict[str, Any] = {"id": "PR-1", "quantity": 3}
DONE = BackgroundResponse.done()


class Vendor:
    """The other side: what is there, by name."""

    def __init__(self) -> None:
        self.things: list[str] = []


class Create(BackgroundTransaction):
    """Makes a thing at the vendor; can undo it and find it."""

    def __init__(self, vendor: Vendor, context: SagaContext) -> None:
        self.vendor = vendor
        self.context = context

    def should_execute(self, request: dict[str, Any]) -> bool:
        return bool(request.get("quantity", 1))

    def execute(self, request: dict[str, Any]) -> BackgroundResponse:
        self.vendor.things.append(self.name())
        self.context.state[self.name()] = self.context.attempt
        request["seen"] = True
        return DONE

    def compensate(self, request: dict[str, Any], e: Exception) -> BackgroundResponse:
        if self.name() in self.vendor.things:
            self.vendor.things.remove(self.name())
        return DONE

    def probe(self, request: dict[str, Any]) -> Probe:
        return Probe.DONE if self.name() in self.vendor.things else Probe.NOT_DONE


class AsyncCreate(BackgroundTransaction):
    """The same, natively async, under another name."""

    def __init__(self, vendor: Vendor) -> None:
        self.vendor = vendor

    async def execute(self, request: dict[str, Any]) -> BackgroundResponse:
        await asyncio.sleep(0)
        current_context().state["async"] = True
        self.vendor.things.append(self.name())
        return DONE

    async def compensate(self, request: dict[str, Any], e: Exception) -> BackgroundResponse:
        self.vendor.things.remove(self.name())
        return DONE


def step(name: str, execute: Callable[[dict[str, Any]], Any], **declared: Any) -> Any:
    return transaction(name=name, **declared)(execute)


def saga_of(*entries: Any, name: str = "Listed", **attributes: Any) -> type[Saga]:
    return type(name, (Saga,), {"transactions": lambda self, request: list(entries), **attributes})


class Purchase(Saga):
    """Create, AsyncCreate, and an end."""

    def transactions(self, request: dict[str, Any]) -> list[Any]:
        return [Create, AsyncCreate, step("Approve", lambda request: DONE)]


# --- run_step ---------------------------------------------------------------------------------------------------------


def test_a_step_gets_what_it_asks_for_and_its_outcome_is_shown() -> None:
    vendor = Vendor()
    result = run_step(Create, REQUEST, services={"vendor": vendor}, state={"before": 1}, attempt=4)
    assert (result.response, result.error, result.is_skipped) == (DONE, None, False)
    assert result.state == {"before": 1, "Create": 4}
    assert result.request == {**REQUEST, "seen": True}
    assert vendor.things == ["Create"]


def test_the_request_and_the_state_of_the_test_are_never_changed() -> None:
    request, state = {"id": "PR-1"}, {"before": 1}
    run_step(Create, request, services={"vendor": Vendor()}, state=state)
    assert (request, state) == ({"id": "PR-1"}, {"before": 1})


def test_client_config_logger_and_services_by_type_are_injected() -> None:
    def execute(
        request: dict[str, Any], client: Any, config: Any, logger: Any, template_id: str, vendor: Vendor
    ) -> Any:
        seen.extend([client, config, template_id, vendor])
        return DONE

    seen: list[Any] = []
    client, vendor = object(), Vendor()
    given = {"client": client, "config": {"TEMPLATE_ID": "TL-1"}, "services": {Vendor: vendor}}
    assert run_step(transaction(execute), REQUEST, **given).error is None
    assert seen == [client, {"TEMPLATE_ID": "TL-1"}, "TL-1", vendor]


def test_a_service_of_the_test_takes_the_place_of_the_cache() -> None:
    seen: list[Any] = []
    entry = transaction(name="s")(lambda request, cache: seen.append(cache) or DONE)
    run_step(entry, REQUEST, services={"cache": "fake"})
    assert seen == ["fake"]


def test_a_service_that_is_missing_is_named() -> None:
    with pytest.raises(DependencyBuildingFailure, match="client_of_nobody"):
        run_step(transaction(name="s")(lambda request, client_of_nobody: DONE), REQUEST)


@pytest.mark.parametrize(
    "entry",
    [step("s", lambda request: DONE), ("s", lambda request: True, lambda request: DONE), AsyncCreate],
    ids=["function", "tuple", "async class"],
)
def test_whatever_a_saga_may_list_can_run_alone(entry: Any) -> None:
    result = run_step(entry, REQUEST, services={"vendor": Vendor()})
    assert (result.response, result.error) == (DONE, None)


@pytest.mark.anyio
async def test_an_async_step_runs_inside_an_async_test_too() -> None:
    assert run_step(AsyncCreate, REQUEST, services={"vendor": Vendor()}).state == {"async": True}


@pytest.mark.parametrize("entry", [None, "nonsense", int], ids=str)
def test_what_no_saga_may_list_is_refused(entry: Any) -> None:
    with pytest.raises(InvalidTransaction):
        run_step(entry, REQUEST)


def test_a_step_that_does_not_apply_is_skipped() -> None:
    vendor = Vendor()
    result = run_step(Create, {"quantity": 0}, services={"vendor": vendor})
    assert (result.is_skipped, result.response, vendor.things) == (True, None, [])


@pytest.mark.parametrize("where", ["should_execute", "execute"])
def test_what_a_step_raises_is_in_error(where: str) -> None:
    boom = ValueError("boom")

    def raising(request: dict[str, Any]) -> Any:
        raise boom

    functions = {"should_execute": lambda request: True, "execute": lambda request: DONE, where: raising}
    result = run_step(("s", functions["should_execute"], functions["execute"]), REQUEST)
    assert result.error is boom
    assert result.response is None
    assert not result.is_skipped


def test_a_refusal_is_an_answer_and_no_error() -> None:
    result = run_step(step("s", lambda request: BackgroundResponse.fail("no credit")), REQUEST)
    assert result.response is not None
    assert (result.response.output, result.error) == ("no credit", None)


def test_a_suspension_shows_its_answer_and_itself() -> None:
    wait = Suspend(DONE, signal="paid")
    result = run_step(step("s", lambda request: wait), REQUEST)
    assert (result.response, result.suspended) == (DONE, wait)


def test_an_answer_that_is_no_response_is_an_error_as_in_the_engine() -> None:
    result = run_step(step("s", lambda request: None), REQUEST)
    assert isinstance(result.error, InvalidResponse)
    assert "return a BackgroundResponse" in str(result.error)


def test_a_state_that_is_not_json_is_an_error_that_names_the_place() -> None:
    def execute(request: dict[str, Any], context: SagaContext) -> Any:
        context.state["when"] = {"day": object()}
        return DONE

    result = run_step(transaction(execute), REQUEST)
    assert isinstance(result.error, NotJSON)
    assert "context.state['when']['day']" in str(result.error)


def test_a_request_that_is_not_json_is_refused_before_the_step_runs() -> None:
    with pytest.raises(NotJSON, match="request"):
        run_step(Create, {"id": object()})


def test_what_a_step_saves_in_the_middle_is_kept_by_the_context() -> None:
    def execute(request: dict[str, Any], context: SagaContext) -> Any:
        context.state["order"] = "O-1"
        context.save()
        context.state["order"] = "O-2"
        return DONE

    result = run_step(transaction(execute), REQUEST)
    assert (result.context.saved, result.state) == ([{"order": "O-1"}], {"order": "O-2"})


# --- compensate_step, probe_step --------------------------------------------------------------------------------------


def test_undoing_a_step_looks_up_the_key_that_execute_had() -> None:
    vendor = Vendor()
    done = run_step(Create, REQUEST, services={"vendor": vendor})
    key = done.context.idempotency_key
    undone = compensate_step(Create, REQUEST, services={"vendor": vendor}, state=done.state)
    assert (undone.response, vendor.things) == (DONE, [])
    assert undone.context.execute_key == key
    assert undone.context.idempotency_key != key


def test_a_step_without_an_undo_raises_the_error_that_it_was_given() -> None:
    e = ValueError("a later step broke")
    assert compensate_step(step("s", lambda request: DONE), REQUEST, e).error is e


def test_an_undo_may_not_suspend() -> None:
    entry = step("s", lambda request: DONE, compensate=lambda request, e: Suspend(DONE))
    assert isinstance(compensate_step(entry, REQUEST).error, InvalidResponse)


def test_an_async_undo_runs_too() -> None:
    vendor = Vendor()
    vendor.things.append("AsyncCreate")
    assert compensate_step(AsyncCreate, REQUEST, services={"vendor": vendor}).response is DONE
    assert vendor.things == []


def test_a_probe_is_asked_alone() -> None:
    vendor = Vendor()
    assert probe_step(Create, REQUEST, services={"vendor": vendor}).probe is Probe.NOT_DONE
    vendor.things.append("Create")
    assert probe_step(Create, REQUEST, services={"vendor": vendor}).probe is Probe.DONE


def test_a_probe_that_answers_nonsense_is_an_error() -> None:
    result = probe_step(step("s", lambda request: DONE, probe=lambda request: True), REQUEST)
    assert (type(result.error), result.probe) == (InvalidResponse, None)


# --- fake_context -----------------------------------------------------------------------------------------------------


def test_a_fake_context_is_the_current_one_inside_its_block_only() -> None:
    with pytest.raises(NoContext, match="fake_context"):
        current_context()
    with fake_context(step="outer") as outer:
        with fake_context(step="inner"):
            assert current_context().step == "inner"
        assert current_context() is outer
    with pytest.raises(NoContext):
        current_context()


def test_a_fake_context_uses_the_state_it_is_given() -> None:
    state = {"customer": "C-1"}
    context = fake_context(state=state, attempt=3, remaining_s=1.5)
    context.state["order"] = "O-1"
    assert state == {"customer": "C-1", "order": "O-1"}
    assert (context.attempt, context.remaining_s(), context.operation) == (3, 1.5, "execute")


def test_a_fake_context_saves_only_json() -> None:
    context = fake_context()
    context.save()
    context.state["no"] = {1, 2}
    with pytest.raises(NotJSON, match="no"):
        context.save()
    assert context.saved == [{}]


# --- run_saga ---------------------------------------------------------------------------------------------------------


def test_a_saga_runs_to_its_end() -> None:
    vendor = Vendor()
    result = run_saga(Purchase, REQUEST, services={"vendor": vendor})
    assert (result.status, result.error) == (SagaStatus.COMPLETED, None)
    assert result.response is not None
    assert result.response.status == "success"
    assert (result.executed, result.compensated) == (["Create", "AsyncCreate", "Approve"], [])
    assert result.state == {"Create": 1, "async": True}
    assert result.request == {**REQUEST, "seen": True}
    assert result.record.saga_id == "Purchase:PR-1"
    assert vendor.things == ["Create", "AsyncCreate"]
    assert REQUEST == {"id": "PR-1", "quantity": 3}


def test_a_step_that_is_made_to_fail_is_undone_with_all_before_it_in_reverse() -> None:
    vendor = Vendor()
    result = run_saga(Purchase, REQUEST, fail_at="Approve", services={"vendor": vendor})
    assert result.status is SagaStatus.COMPENSATED
    assert (result.executed, result.compensated) == (["Create", "AsyncCreate", "Approve"], ["AsyncCreate", "Create"])
    assert isinstance(result.error, StepMadeToFail)
    assert result.record.error is not None
    assert "Approve was made to fail" in result.record.error
    assert vendor.things == []


def test_a_step_may_be_made_to_raise_a_certain_exception() -> None:
    boom = ValueError("no credit")
    result = run_saga(Purchase, REQUEST, fail_at={"AsyncCreate": boom}, services={"vendor": Vendor()})
    assert result.error is boom
    assert result.executed == ["Create", "AsyncCreate"]


def test_a_step_may_be_made_to_answer() -> None:
    refusal = BackgroundResponse.fail("no credit")
    result = run_saga(Purchase, REQUEST, fail_at={"AsyncCreate": refusal}, services={"vendor": Vendor()})
    assert isinstance(result.error, StepRefused)
    assert str(result.error) == "no credit"
    assert result.compensated == ["Create"]


def test_a_step_that_is_made_to_fail_fails_at_every_attempt_and_its_waits_take_no_time() -> None:
    clock = ManualClock()
    retry = RetryPolicy(stop=stop_after_attempt(3), wait=wait_fixed(60))
    result = run_saga(saga_of(step("s", lambda request: DONE, retry=retry)), REQUEST, fail_at="s", clock=clock)
    assert result.record.steps[0].attempts == 3
    assert clock.slept_s == [60, 60]


def test_a_step_object_works_again_after_it_was_made_to_fail() -> None:
    entry = step("s", lambda request: DONE)
    entry.execute = lambda request: BackgroundResponse.fail("its own")
    run_saga(saga_of(entry), REQUEST, fail_at="s")
    assert entry.execute(REQUEST).output == "its own"
    del entry.execute
    run_saga(saga_of(entry), REQUEST, fail_at="s")
    assert entry.execute(REQUEST) is DONE


def test_a_name_that_is_no_step_is_refused_with_those_that_are() -> None:
    with pytest.raises(UnknownStep, match=r"'Aprove'.*'Create', 'AsyncCreate', 'Approve'"):
        run_saga(Purchase, REQUEST, fail_at="Aprove", services={"vendor": Vendor()})


def test_what_a_step_cannot_be_made_to_do_is_refused() -> None:
    nonsense: Any = {"Create": "boom"}
    with pytest.raises(InvalidTransaction, match="give an exception or a BackgroundResponse"):
        run_saga(Purchase, REQUEST, fail_at=nonsense)


def test_a_step_that_reschedules_is_delivered_again_when_it_is_due() -> None:
    calls: list[float] = []
    clock = ManualClock()

    def poll(request: dict[str, Any]) -> BackgroundResponse:
        calls.append(clock.now())
        return DONE if len(calls) == 3 else BackgroundResponse.reschedule(600)

    result = run_saga(saga_of(step("poll", poll)), REQUEST, clock=clock)
    assert result.status is SagaStatus.COMPLETED
    assert [response.status for response in result.responses] == ["reschedule", "reschedule", "success"]
    assert [later - calls[0] for later in calls] == [0, 600, 1200]
    assert result.executed == ["poll"]


def test_a_step_that_reschedules_for_ever_is_given_up_after_so_many_deliveries() -> None:
    poll = step("poll", lambda request: BackgroundResponse.reschedule())
    result = run_saga(saga_of(poll), REQUEST, deliveries_max=4)
    assert (result.status, len(result.responses)) == (SagaStatus.SUSPENDED, 4)


def test_the_first_suspension_can_be_looked_at() -> None:
    poll = step("poll", lambda request: BackgroundResponse.reschedule())
    result = run_saga(saga_of(poll), REQUEST, until=SagaStatus.SUSPENDED)
    assert (result.status, len(result.responses)) == (SagaStatus.SUSPENDED, 1)


def test_a_completed_step_without_an_undo_shows_as_parked() -> None:
    result = run_saga(saga_of(step("a", lambda request: DONE), step("b", lambda request: DONE)), REQUEST, fail_at="b")
    assert result.status is SagaStatus.PARKED
    assert result.record.error is not None
    assert "parked at a" in result.record.error


def test_a_deadline_passes_without_waiting() -> None:
    poll = step("poll", lambda request: BackgroundResponse.reschedule(60), kind=Kind.READ_ONLY)
    result = run_saga(saga_of(poll, deadline_s=100), REQUEST)
    assert (result.status, type(result.error)) == (SagaStatus.COMPENSATED, DeadlineExceeded)


def test_what_a_selected_transaction_raises_is_the_error() -> None:
    boom = ValueError("boom")

    def raising(request: dict[str, Any]) -> Any:
        raise boom

    result = run_saga(saga_of(step("s", raising), mode="select"), REQUEST)
    assert (result.error, result.response) == (boom, None)


def test_a_saga_that_cannot_be_used_raises() -> None:
    with pytest.raises(TransactionNotSelected):
        run_saga(saga_of(), REQUEST)


def test_what_the_constructor_of_a_step_raises_is_raised() -> None:
    class Broken(BackgroundTransaction):
        def __init__(self) -> None:
            raise ValueError("not built")

        def execute(self, request: dict[str, Any]) -> Any: ...

    with pytest.raises(ValueError, match="not built"):
        run_saga(saga_of(Broken), REQUEST)


def test_a_service_of_the_test_wins_over_what_the_saga_provides() -> None:
    class Provider(ServiceProvider):
        def provide_vendor(self) -> Vendor:
            raise AssertionError("the real vendor was asked for")

        def provide_price(self) -> int:
            return 42

    seen: list[Any] = []
    entry = transaction(name="s")(lambda request, vendor, price: seen.extend([vendor, price]) or DONE)
    fake = Vendor()
    run_saga(saga_of(entry, providers={"vendor": Provider}), REQUEST, services={"vendor": fake})
    assert seen == [fake, 42]


def test_a_signal_is_sent_to_who_waits_for_it() -> None:
    def look(request: dict[str, Any], context: SagaContext) -> BackgroundResponse:
        context.state["seen"] = context.state["approved"]
        return DONE

    saga = saga_of(WaitFor("approved", timeout_s=60), transaction(name="look")(look))
    result = run_saga(saga, REQUEST, signals={"approved": {"by": "me"}})
    assert (result.status, result.state["seen"]) == (SagaStatus.COMPLETED, {"by": "me"})
    assert result.response is not None
    assert result.response.status == "success"
    assert [response.status for response in result.responses] == ["reschedule", "success"]


def test_a_signal_that_is_not_sent_is_missed_when_its_time_is_over() -> None:
    clock = ManualClock()
    result = run_saga(saga_of(WaitFor("approved", timeout_s=60)), REQUEST, clock=clock)
    assert result.status is SagaStatus.COMPENSATED
    assert isinstance(result.error, SignalTimedOut)
    assert clock.now() >= ManualClock().now() + 60


def test_a_wait_for_a_signal_cannot_be_made_to_fail() -> None:
    with pytest.raises(InvalidTransaction, match="'Wait for approved', which executes nothing: give it a timeout_s"):
        run_saga(saga_of(WaitFor("approved")), REQUEST, fail_at="Wait for approved")


def test_steps_of_branches_and_of_children_are_made_to_fail_by_their_names_in_the_plan() -> None:
    vendor = Vendor()
    child = saga_of(Create, step("Approve", lambda request: DONE, kind=Kind.READ_ONLY), name="Child")
    saga = saga_of(child, Parallel(AsyncCreate, transaction(name="other")(lambda request: DONE)))
    result = run_saga(saga, REQUEST, fail_at="Child/Approve", services={"vendor": vendor})
    assert (result.status, result.executed) == (SagaStatus.COMPENSATED, ["Child/Create", "Child/Approve"])
    assert result.compensated == ["Child/Create"]
    assert vendor.things == []
    other = {"other": BackgroundResponse.fail("no")}
    result = run_saga(saga, REQUEST, fail_at=other, services={"vendor": vendor})
    assert set(result.executed[-2:]) == {"AsyncCreate", "other"}
    assert (result.status, vendor.things) == (SagaStatus.COMPENSATED, [])


def test_branches_that_contradict_each_other_are_the_error() -> None:
    def setting(value: int) -> Any:
        def put(request: dict[str, Any], context: SagaContext) -> BackgroundResponse:
            context.state["x"] = value
            return DONE

        return transaction(name=f"put {value}", compensate=lambda request, e: DONE)(put)

    result = run_saga(saga_of(Parallel(setting(1), setting(2))), REQUEST)
    assert isinstance(result.error, BranchConflict)
    assert "'put 1' and 'put 2'" in str(result.error)


def test_what_a_cancel_order_undoes_can_be_made_to_answer() -> None:
    cancel = saga_of(transaction(name="tell")(lambda request: DONE), name="Cancel", undoes=Purchase)
    result = run_saga(cancel, REQUEST, fail_at={"Undo Purchase": DONE})
    assert (result.status, result.executed) == (SagaStatus.COMPLETED, ["Undo Purchase", "tell"])
    alone = run_saga(cancel, REQUEST)
    assert (alone.status, type(alone.error)) == (SagaStatus.COMPENSATED, UnknownExecution)


def test_steps_that_are_built_anew_are_made_to_fail_again() -> None:
    def no_undo(saga_id: str, note: str) -> SagaRecord:
        raise AssertionError("nothing is undone here")

    class Only(BackgroundTransaction):
        def execute(self, request: dict[str, Any]) -> BackgroundResponse:
            return DONE

    papers = Documents(lambda scope: (Raw(b"{}"), Raw(b"{}")), lambda: 1.0)
    workflow = build_workflow(saga_of(Only)(), REQUEST, Services(), papers, "Listed:1", no_undo)
    with injected(workflow, {"Only": ValueError("boom")}) as faulty:
        first = faulty.steps["Only"].transaction
        faulty.rebuild("")
        again = faulty.steps["Only"].transaction
        assert again is not first
        for made in (first, again):
            with pytest.raises(ValueError, match="boom"):
                made.execute(REQUEST)
    assert (first.execute(REQUEST), again.execute(REQUEST)) == (DONE, DONE)


def test_a_wait_alone_tells_what_it_waits_for() -> None:
    result = run_step(WaitFor("approved", timeout_s=60), REQUEST)
    assert result.suspended is not None
    assert (result.suspended.signal, result.suspended.timeout_s) == ("approved", 60)


@pytest.mark.parametrize(
    "several", [Parallel(Create, AsyncCreate), Chain(Create), Purchase], ids=["parallel", "chain", "saga"]
)
def test_several_transactions_are_not_one_step(several: Any) -> None:
    with pytest.raises(InvalidTransaction, match="holds several transactions: give one, or use run_saga"):
        run_step(several, REQUEST)


def test_a_service_of_the_test_reaches_children_and_their_children() -> None:
    vendor = Vendor()
    child = saga_of(Create, saga_of(AsyncCreate, name="Inner"), name="Child")
    assert run_saga(saga_of(child), REQUEST, services={Vendor: vendor}).status is SagaStatus.COMPLETED
    assert vendor.things == ["Create", "AsyncCreate"]


# --- the page and the package -----------------------------------------------------------------------------------------


def blocks_of_the_page() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def run_the_page(monkeypatch: pytest.MonkeyPatch, *edits: tuple[str, str]) -> dict[str, Any]:
    connector_code, *test_code = blocks_of_the_page()
    for old, new in edits:
        assert old in connector_code
        connector_code = connector_code.replace(old, new)
    connector = types.ModuleType("connector")
    monkeypatch.setitem(sys.modules, "connector", connector)
    exec(connector_code, vars(connector))
    names: dict[str, Any] = {"__name__": "test_connector"}
    exec("\n".join(test_code), names)
    return {name: function for name, function in names.items() if name.startswith("test_")}


def test_the_three_tests_of_the_page_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    tests = run_the_page(monkeypatch)
    assert len(tests) == 3
    for function in tests.values():
        function()


@pytest.mark.parametrize(
    ("edit", "caught_by"),
    [
        (("key=self.context.idempotency_key)\n        return", 'key="always the same")\n        return'), 1),
        ((UNDO, ""), 2),
        (('self.context.state["customer"] = ', ""), 3),
    ],
    ids=["a key of its own", "an undo that undoes nothing", "a state that is not kept"],
)
def test_the_tests_of_the_page_catch_what_they_are_for(
    monkeypatch: pytest.MonkeyPatch, edit: tuple[str, str], caught_by: int
) -> None:
    function = list(run_the_page(monkeypatch, edit).values())[caught_by - 1]
    with pytest.raises(AssertionError):
        function()


def test_the_package_does_not_need_pytest() -> None:
    code = "import sys, saga_engine.testing; sys.exit('pytest' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
