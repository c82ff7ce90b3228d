"""The ready transactions against a live Connect: by both clients, through faults and crashes, each effect once."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from connect.eaas.core.responses import BackgroundResponse
from connect_stub import ASSET_REQUEST, FAULTS, HANGS, TIER_REQUEST, ConnectStub, connect_stub
from tenacity import stop_after_attempt

from saga_engine import Engine, Saga, SagaStatus
from saga_engine.connect import (
    ApproveRequest,
    AssetRequest,
    InquireCustomer,
    RejectRequest,
    RejectWhenUndone,
    UpdateParameters,
)
from saga_engine.errors import BadSetting
from saga_engine.journal import SkipAnswered, StepCompensated, StepCompleted, StepSuspended
from saga_engine.testing import ManualClock, compensate_step, probe_step, run_saga, run_step
from transactions import BackgroundTransaction, Kind, Probe

DONE = BackgroundResponse.done()
WRITTEN = "update PR-1 tenant: value=T-1"
WRITTEN_BACK = "update PR-1 tenant: value="

Client = Callable[[ConnectStub], Any]


class Crash(BaseException):
    """The process is gone."""


class MakeTenant(BackgroundTransaction):
    """What a vendor would do."""

    def __init__(self, context: Any) -> None:
        self.context = context

    def execute(self, request: dict[str, Any]) -> BackgroundResponse:
        self.context.state["parameters"] = {"tenant": "T-1"}
        return DONE

    def compensate(self, request: dict[str, Any], e: Exception) -> BackgroundResponse:
        return DONE


class Refuse(BackgroundTransaction):
    """A vendor that says no."""

    def execute(self, request: dict[str, Any]) -> BackgroundResponse:
        return BackgroundResponse.fail("no credit")


def saga_of(*steps: Any) -> type[Saga]:
    class Order(Saga):
        def transactions(self, request: dict[str, Any]) -> list[Any]:
            return list(steps)

    return Order


Order = saga_of(RejectWhenUndone, MakeTenant, UpdateParameters, ApproveRequest)


class AskForDomain(InquireCustomer):
    """Asks for a domain that ends with .example."""

    template_id = "TL-9"

    def problems(self, request: dict[str, Any]) -> dict[str, str]:
        good = str(AssetRequest(request).value("domain")).endswith(".example")
        return {} if good else {"domain": "Give a domain that ends with .example."}


class NoteDomain(BackgroundTransaction):
    """Keeps what a later step sees of the domain."""

    kind = Kind.READ_ONLY

    def __init__(self, context: Any) -> None:
        self.context = context

    def execute(self, request: dict[str, Any]) -> BackgroundResponse:
        self.context.state["domain"] = AssetRequest(request).value("domain")
        return DONE


@pytest.fixture
def stub() -> Iterator[ConnectStub]:
    with connect_stub(ASSET_REQUEST, TIER_REQUEST) as running:
        yield running


@pytest.fixture(params=["plain", "async"])
def client(request: pytest.FixtureRequest, stub: ConnectStub) -> Any:
    """A client of each kind."""
    return stub.client if request.param == "plain" else stub.async_client


@pytest.fixture
def deliver(resolve: Any, driver: str, stub: ConnectStub) -> Any:
    """Deliver a request by the driver under test, with the client that the runner gives such a handler."""

    def deliver_to(saga: type[Saga], on: Engine | None = None, request: Any = ASSET_REQUEST) -> Any:
        given = stub.client if driver == "sync" else stub.async_client
        return resolve(saga, copy.deepcopy(request), on=on, client=given, config={})

    return deliver_to


@pytest.fixture
def crashing(journal: Any, new_engine: Any) -> Any:
    """Make an engine that dies before it can commit how this step ended."""

    class Dying:
        def __init__(self, step: str, kind: Any) -> None:
            self._step, self._kind = step, kind

        def __getattr__(self, name: str) -> Any:
            return getattr(journal, name)

        def append(self, commit: Any) -> Any:
            if self._tells_it(commit):
                raise Crash
            return journal.append(commit)

        def submit(self, commit: Any, done: Any) -> None:
            if self._tells_it(commit):
                done(Crash())
            else:
                journal.submit(commit, done)

        def _tells_it(self, commit: Any) -> bool:
            return any(isinstance(e, self._kind) and e.step == self._step for e in commit.entries)

    return lambda step, kind=StepCompleted: new_engine(Dying(step, kind))


# --- the whole, with faults ---


@pytest.mark.parametrize("verb", ["get", "update", "approve"])
@pytest.mark.parametrize("fault", FAULTS)
def test_no_fault_that_passes_loses_or_doubles_an_effect(stub: ConnectStub, client: Any, verb: str, fault: str) -> None:
    stub.fault(verb, fault)
    result = run_saga(Order, ASSET_REQUEST, client=client)
    assert result.status is SagaStatus.COMPLETED
    assert stub.effects == [WRITTEN, "approve PR-1"]


@pytest.mark.parametrize("fault", FAULTS)
def test_no_fault_stops_an_undo(stub: ConnectStub, client: Any, fault: str) -> None:
    stub.fault("get", "fine", fault)
    stub.fault("update", "fine", fault)
    stub.fault("fail", fault)
    result = run_saga(saga_of(RejectWhenUndone, MakeTenant, UpdateParameters, Refuse), ASSET_REQUEST, client=client)
    assert result.status is SagaStatus.COMPENSATED
    assert stub.effects == [WRITTEN, WRITTEN_BACK, "fail PR-1"]
    assert stub.requests["PR-1"]["reason"] == "no credit"


@pytest.mark.parametrize("kind", ["client", "async_client"])
def test_a_time_out_after_the_work_doubles_nothing(stub: ConnectStub, kind: str) -> None:
    stub.timeout_s = 0.2
    for verb in ("update", "approve"):
        stub.fault(verb, HANGS)
    assert run_saga(Order, ASSET_REQUEST, client=getattr(stub, kind)).status is SagaStatus.COMPLETED
    assert stub.effects == [WRITTEN, "approve PR-1"]


@pytest.mark.parametrize("kind", ["client", "async_client"])
def test_a_time_out_after_the_work_asks_the_customer_once_and_rejects_once(stub: ConnectStub, kind: str) -> None:
    stub.timeout_s = 0.2
    client = getattr(stub, kind)
    for verb in ("update", "inquire", "fail"):
        stub.fault(verb, HANGS)
    result = run_saga(Inquiry, ASSET_REQUEST, client=client, until=SagaStatus.SUSPENDED)
    assert (result.status, stub.effects) == (SagaStatus.SUSPENDED, ASKED)
    stub.requests["PR-1"]["status"] = "pending"
    assert run_saga(saga_of(RejectWhenUndone, Refuse), ASSET_REQUEST, client=client).status is SagaStatus.COMPENSATED
    assert stub.effects == [*ASKED, "fail PR-1"]


def test_connect_is_asked_again_when_it_said(stub: ConnectStub, client: Any) -> None:
    clock = ManualClock()
    stub.fault("approve", "429", "429")
    run_saga(Order, ASSET_REQUEST, client=client, clock=clock)
    assert clock.slept_s == [7, 7]


def test_an_approval_that_nobody_was_told_of_is_found_though_the_probe_fails(stub: ConnectStub, client: Any) -> None:
    stub.fault("approve", "silent after work")
    stub.fault("get", "fine", "500")
    assert run_saga(Order, ASSET_REQUEST, client=client).status is SagaStatus.COMPLETED
    assert stub.effects == [WRITTEN, "approve PR-1"]
    assert stub.calls[-2:] == ["POST requests/PR-1/approve", "GET requests/PR-1"]


def test_a_key_that_is_never_accepted_again_undoes_nothing_and_parks_in_the_end(stub: ConnectStub, client: Any) -> None:
    class Approve(ApproveRequest):
        retry = replace(ApproveRequest.retry, stop=stop_after_attempt(5))

    stub.fault("approve", *["401"] * 5)
    stub.fault("get", "fine", *["401"] * 20)
    result = run_saga(saga_of(RejectWhenUndone, MakeTenant, UpdateParameters, Approve), ASSET_REQUEST, client=client)
    assert result.status is SagaStatus.PARKED
    assert "401 Unauthorized" in str(result.record.error)
    assert stub.effects == [WRITTEN]


@pytest.mark.parametrize("kind", ["empty", "another"])
def test_an_answer_about_another_request_is_no_answer(stub: ConnectStub, client: Any, kind: str) -> None:
    stub.fault("get", kind)
    stub.fault("approve", "silent after work")
    stub.fault("get", "fine", kind)
    assert run_saga(Order, ASSET_REQUEST, client=client).status is SagaStatus.COMPLETED
    assert stub.effects == [WRITTEN, "approve PR-1"]


@pytest.mark.parametrize("step", ["UpdateParameters", "ApproveRequest"])
def test_what_was_done_before_a_crash_is_not_done_again(
    stub: ConnectStub, deliver: Any, crashing: Any, engine: Engine, step: str
) -> None:
    with pytest.raises(Crash):
        deliver(Order, on=crashing(step))
    before = len(stub.calls)
    assert deliver(Order).status == "success"
    assert stub.effects == [WRITTEN, "approve PR-1"]
    assert stub.calls[before] == "GET requests/PR-1"  # the probe


# --- approving ---


def test_an_approval_names_its_template(stub: ConnectStub, client: Any) -> None:
    class Approve(ApproveRequest):
        template_id = "TL-1"

    assert run_step(Approve, ASSET_REQUEST, client=client).response.status == "success"
    assert stub.bodies == [{"template_id": "TL-1"}]


def test_a_template_may_come_from_a_variable(stub: ConnectStub, client: Any) -> None:
    class Approve(ApproveRequest):
        template_variable = "APPROVE_TEMPLATE_ID"

    run_step(Approve, TIER_REQUEST, client=client, config={"APPROVE_TEMPLATE_ID": "TL-2"})
    assert stub.bodies == [{"template": {"id": "TL-2"}}]


def test_a_missing_variable_is_told_before_anything_runs(stub: ConnectStub, client: Any) -> None:
    class Approve(ApproveRequest):
        template_variable = "APPROVE_TEMPLATE_ID"

    with pytest.raises(BadSetting, match="Approve wants the id of a template in the variable APPROVE_TEMPLATE_ID"):
        run_saga(saga_of(MakeTenant, Approve), ASSET_REQUEST, client=client, config={"OTHER": "x"})
    assert stub.calls == []


def test_a_template_may_follow_from_the_request(stub: ConnectStub, client: Any) -> None:
    class Approve(ApproveRequest):
        def template(self, request: dict[str, Any]) -> str:
            return f"TL-{request['type']}"

    run_step(Approve, ASSET_REQUEST, client=client)
    assert stub.bodies == [{"template_id": "TL-purchase"}]


def test_who_was_approved_by_hand_is_approved(stub: ConnectStub, client: Any) -> None:
    stub.requests["PR-1"]["status"] = "approved"
    assert run_step(ApproveRequest, ASSET_REQUEST, client=client).response.status == "success"
    assert stub.effects == []


def test_an_order_that_was_rejected_by_hand_is_undone_at_the_vendor_only(stub: ConnectStub, client: Any) -> None:
    stub.fault("approve", "fine")
    saga = saga_of(RejectWhenUndone, MakeTenant, UpdateParameters, ByHand(stub, "failed"), ApproveRequest)
    result = run_saga(saga, ASSET_REQUEST, client=client)
    assert result.status is SagaStatus.COMPENSATED
    assert "Only pending requests can be approved.; the request is failed" in str(result.error)
    assert "MakeTenant" in result.compensated
    assert stub.effects == [WRITTEN]


class ByHand(BackgroundTransaction):
    """Somebody approves or rejects the request in the portal, or has the customer asked."""

    kind = Kind.READ_ONLY

    def __init__(self, stub: ConnectStub, status: str) -> None:
        self.stub = stub
        self.status = status

    def execute(self, request: dict[str, Any]) -> BackgroundResponse:
        self.stub.requests["PR-1"]["status"] = self.status
        return DONE


def test_an_order_that_was_approved_by_hand_is_not_undone_for_its_parameters(stub: ConnectStub, client: Any) -> None:
    saga = saga_of(RejectWhenUndone, MakeTenant, ByHand(stub, "approved"), UpdateParameters, ApproveRequest)
    result = run_saga(saga, ASSET_REQUEST, client=client)
    assert (result.status, result.compensated) == (SagaStatus.COMPLETED, [])
    assert stub.effects == []


def test_an_order_that_somebody_has_a_question_about_is_approved_when_it_is_answered(
    stub: ConnectStub, deliver: Any, engine: Engine
) -> None:
    stub.approved_from = ("pending",)
    saga = saga_of(RejectWhenUndone, MakeTenant, ByHand(stub, "inquiring"), UpdateParameters, ApproveRequest)
    assert deliver(saga).status == "success"
    assert engine.get("Order:PR-1").status is SagaStatus.SUSPENDED
    stub.requests["PR-1"]["status"] = "pending"
    assert deliver(saga).status == "success"
    assert engine.get("Order:PR-1").status is SagaStatus.COMPLETED
    assert stub.effects == [WRITTEN, "approve PR-1"]


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        ("approved", Probe.DONE),
        ("scheduled", Probe.DONE),
        ("pending", Probe.NOT_DONE),
        ("inquiring", Probe.NOT_DONE),
        ("failed", Probe.NOT_DONE),
        ("revoked", Probe.UNKNOWN),
        ("something new", Probe.UNKNOWN),
    ],
)
def test_the_status_tells_whether_a_request_is_approved(
    stub: ConnectStub, client: Any, status: str, answer: Probe
) -> None:
    stub.requests["PR-1"]["status"] = status
    assert probe_step(ApproveRequest, ASSET_REQUEST, client=client).probe is answer


def test_an_approval_is_a_pivot_without_an_undo(stub: ConnectStub, client: Any) -> None:
    cause = RuntimeError("later")
    assert ApproveRequest.kind is Kind.PIVOT
    assert compensate_step(ApproveRequest, ASSET_REQUEST, cause, client=client).error is cause


def test_a_tier_configuration_request_is_carried_out_too(stub: ConnectStub, deliver: Any) -> None:
    class Write(UpdateParameters):
        def values(self, request: dict[str, Any]) -> dict[str, str]:
            return {"reseller_id": "R-1"}

    assert deliver(saga_of(Write, ApproveRequest), request=TIER_REQUEST).status == "success"
    assert stub.effects == ["update TCR-1 reseller_id: value=R-1", "approve TCR-1"]


# --- rejecting ---


class RejectTests(RejectRequest):
    """Rejects what comes from a customer that does not pay."""

    def reason_for(self, request: dict[str, Any]) -> str:
        return "This customer cannot order."


def test_a_rejected_order_ends_there(stub: ConnectStub, deliver: Any, engine: Engine) -> None:
    answer = deliver(saga_of(RejectTests, MakeTenant, UpdateParameters, ApproveRequest))
    assert (answer.status, answer.output) == ("skip", "PR-1 is rejected: This customer cannot order.")
    assert stub.effects == ["fail PR-1"]
    assert stub.requests["PR-1"]["reason"] == "This customer cannot order."
    assert engine.get("Order:PR-1").status is SagaStatus.SKIPPED


@pytest.mark.parametrize("fault", FAULTS)
def test_no_fault_keeps_an_order_from_being_rejected_or_lets_it_go_on(
    stub: ConnectStub, client: Any, fault: str
) -> None:
    stub.fault("fail", fault, fault)
    result = run_saga(saga_of(RejectTests, MakeTenant, UpdateParameters), ASSET_REQUEST, client=client)
    assert result.response.status == "skip"
    assert result.executed == ["RejectTests"]
    assert stub.effects == ["fail PR-1"]


def test_after_a_crash_a_rejected_order_does_not_go_on(stub: ConnectStub, deliver: Any, crashing: Any) -> None:
    saga = saga_of(RejectTests, MakeTenant, UpdateParameters)
    with pytest.raises(Crash):
        deliver(saga, on=crashing("RejectTests", SkipAnswered))
    assert deliver(saga).status == "skip"
    assert stub.effects == ["fail PR-1"]


def test_an_order_that_is_approved_already_cannot_be_rejected(stub: ConnectStub, client: Any) -> None:
    stub.requests["PR-1"]["status"] = "approved"
    response = run_step(RejectRequest, ASSET_REQUEST, client=client).response
    assert response.status == "fail"
    assert response.output.endswith("the request is approved")


@pytest.mark.parametrize(("status", "answer"), [("pending", Probe.NOT_DONE), ("failed", Probe.UNKNOWN)])
def test_a_rejection_is_never_found_done_as_the_next_step_would_run(
    stub: ConnectStub, client: Any, status: str, answer: Probe
) -> None:
    stub.requests["PR-1"]["status"] = status
    assert probe_step(RejectRequest, ASSET_REQUEST, client=client).probe is answer


def test_an_order_that_was_undone_is_rejected_last_and_once(stub: ConnectStub, deliver: Any, crashing: Any) -> None:
    saga = saga_of(RejectWhenUndone, MakeTenant, UpdateParameters, Refuse)
    with pytest.raises(Crash):
        deliver(saga, on=crashing("RejectWhenUndone", StepCompensated))
    answer = deliver(saga)
    assert (answer.status, answer.output) == ("fail", "no credit")
    assert stub.effects == [WRITTEN, WRITTEN_BACK, "fail PR-1"]


def test_what_is_undone_after_its_approval_stays_approved_with_its_parameters(
    stub: ConnectStub, deliver: Any, new_engine: Any
) -> None:
    engine = new_engine(sagas=[Order], client=stub.client)
    assert deliver(Order, on=engine).status == "success"
    before = list(stub.effects)
    engine.undo("Order:PR-1", note="it was cancelled")
    assert engine.get("Order:PR-1").status is SagaStatus.COMPENSATED
    assert (stub.requests["PR-1"]["status"], stub.values("PR-1")["tenant"]) == ("approved", "T-1")
    assert stub.effects == before


def test_an_order_that_was_approved_by_hand_while_it_was_undone_parks(stub: ConnectStub, client: Any) -> None:
    result = run_saga(saga_of(RejectWhenUndone, ByHand(stub, "approved"), Refuse), ASSET_REQUEST, client=client)
    assert result.status is SagaStatus.PARKED
    assert "PR-1 is approved in Connect, but was undone: no credit" in str(result.record.error)


def test_a_request_that_connect_does_not_let_be_rejected_yet_is_not_forgotten(stub: ConnectStub, client: Any) -> None:
    stub.requests["PR-1"]["status"] = "inquiring"
    error = compensate_step(RejectWhenUndone, ASSET_REQUEST, client=client).error
    assert "Only pending requests can be failed" in str(error)


# --- asking the customer ---


def answered(stub: ConnectStub, domain: str) -> dict[str, Any]:
    """Let the customer answer; give what Connect delivers then."""
    request = stub.requests["PR-1"]
    request["status"] = "pending"
    request["asset"]["params"][1].update(value=domain, value_error="")
    return copy.deepcopy(request)


Inquiry = saga_of(AskForDomain, NoteDomain)
ASKED = ["update PR-1 domain: value=,value_error=Give a domain that ends with .example.", "inquire PR-1"]


def test_the_customer_is_asked_and_the_order_goes_on_with_the_answer(
    stub: ConnectStub, deliver: Any, engine: Engine
) -> None:
    assert deliver(Inquiry).status == "success"
    assert engine.get("Order:PR-1").status is SagaStatus.SUSPENDED
    assert stub.effects == ASKED
    assert stub.bodies[-1] == {"template_id": "TL-9"}
    assert deliver(Inquiry, request=answered(stub, "a.example")).status == "success"
    record = engine.get("Order:PR-1")
    assert (record.status, record.state["domain"]) == (SagaStatus.COMPLETED, "a.example")
    assert stub.effects == ASKED


def test_a_bad_answer_is_asked_about_again(stub: ConnectStub, deliver: Any, engine: Engine) -> None:
    deliver(Inquiry)
    deliver(Inquiry, request=answered(stub, "a.invalid"))
    assert stub.effects.count("inquire PR-1") == 2
    assert engine.get("Order:PR-1").status is SagaStatus.SUSPENDED


def test_a_good_order_asks_nobody(stub: ConnectStub, deliver: Any, engine: Engine) -> None:
    assert deliver(Inquiry, request=answered(stub, "a.example")).status == "success"
    assert engine.get("Order:PR-1").status is SagaStatus.COMPLETED
    assert stub.calls == []


@pytest.mark.parametrize("verb", ["get", "update", "inquire"])
@pytest.mark.parametrize("fault", FAULTS)
def test_no_fault_asks_the_customer_twice(stub: ConnectStub, client: Any, verb: str, fault: str) -> None:
    stub.fault(verb, fault)
    result = run_saga(Inquiry, ASSET_REQUEST, client=client, until=SagaStatus.SUSPENDED)
    assert (result.status, result.response.status) == (SagaStatus.SUSPENDED, "success")
    assert stub.effects == ASKED


def test_after_a_crash_the_customer_is_not_asked_again(
    stub: ConnectStub, deliver: Any, crashing: Any, engine: Engine
) -> None:
    with pytest.raises(Crash):
        deliver(Inquiry, on=crashing("AskForDomain", StepSuspended))
    assert deliver(Inquiry).status == "success"
    assert engine.get("Order:PR-1").status is SagaStatus.SUSPENDED
    assert stub.effects == ASKED


def test_an_answer_that_came_during_a_crash_is_taken_over_though_nobody_delivers_it(
    stub: ConnectStub, deliver: Any, crashing: Any, engine: Engine
) -> None:
    with pytest.raises(Crash):
        deliver(Inquiry, on=crashing("AskForDomain", StepSuspended))
    answered(stub, "b.example")
    deliver(Inquiry)
    record = engine.get("Order:PR-1")
    assert (record.status, record.state["domain"]) == (SagaStatus.COMPLETED, "b.example")
    assert stub.effects == ASKED


def test_who_was_asked_already_is_waited_for_and_nothing_is_sent(stub: ConnectStub, client: Any) -> None:
    stub.requests["PR-1"]["status"] = "inquiring"
    assert run_step(AskForDomain, ASSET_REQUEST, client=client).suspended is not None
    assert stub.calls == ["GET requests/PR-1"]


def test_a_request_that_is_not_open_any_more_is_not_asked_about(stub: ConnectStub, client: Any) -> None:
    stub.requests["PR-1"]["status"] = "failed"
    response = run_step(AskForDomain, ASSET_REQUEST, client=client).response
    assert response.status == "fail"
    assert response.output.endswith("the request is failed")


def test_by_default_required_ordering_parameters_are_asked_for(stub: ConnectStub, client: Any) -> None:
    result = run_step(InquireCustomer, ASSET_REQUEST, client=client)
    assert result.suspended is not None
    assert stub.effects == ["update PR-1 domain: value=,value_error=A value is required.", "inquire PR-1"]


def test_a_question_leaves_nothing_to_undo(stub: ConnectStub, client: Any) -> None:
    assert compensate_step(InquireCustomer, ASSET_REQUEST, client=client).response.status == "success"
    assert stub.calls == []


# --- writing parameters ---


class Write(UpdateParameters):
    """Writes a tenant and a phone."""

    def values(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"tenant": "T-1", "email": "a@b.example", "phone": {"country_code": "+49"}}


def test_only_what_differs_in_connect_is_written(stub: ConnectStub, client: Any) -> None:
    stub.requests["PR-1"]["asset"]["params"][3]["structured_value"] = {"country_code": "+49"}
    run_step(Write, ASSET_REQUEST, client=client)
    assert stub.bodies[-1] == {"asset": {"params": [{"id": "tenant", "value": "T-1"}]}}


def test_nothing_differs_and_nothing_is_sent(stub: ConnectStub, client: Any) -> None:
    run_step(Write, ASSET_REQUEST, client=client)
    stub.calls.clear()
    assert run_step(Write, ASSET_REQUEST, client=client).response.status == "success"
    assert stub.calls == ["GET requests/PR-1"]
    assert probe_step(Write, ASSET_REQUEST, client=client).probe is Probe.DONE


def test_what_differs_is_found_not_done(stub: ConnectStub, client: Any) -> None:
    assert probe_step(Write, ASSET_REQUEST, client=client).probe is Probe.NOT_DONE


def test_the_undo_brings_the_old_values_back(stub: ConnectStub, client: Any) -> None:
    written = run_step(Write, ASSET_REQUEST, client=client)
    undone = compensate_step(Write, ASSET_REQUEST, client=client, state=written.state)
    assert undone.response.status == "success"
    assert undone.state == {}
    params = {param["id"]: param for param in stub.requests["PR-1"]["asset"]["params"]}
    assert params["tenant"]["value"] == ""
    assert params["phone"]["structured_value"] == {"country_code": "+34"}


def test_the_old_values_are_on_disk_before_the_new_ones_are_written(stub: ConnectStub, client: Any) -> None:
    stub.fault("update", "500")
    result = run_step(Write, ASSET_REQUEST, client=client)
    (saved,) = result.context.saved
    assert saved["Write: parameters"]["tenant"] == {"before": "", "after": "T-1"}


def test_the_undo_leaves_alone_what_was_changed_since(stub: ConnectStub, client: Any) -> None:
    written = run_step(Write, ASSET_REQUEST, client=client)
    stub.requests["PR-1"]["asset"]["params"][2]["value"] = "by hand"
    compensate_step(Write, ASSET_REQUEST, client=client, state=written.state)
    assert stub.values("PR-1")["tenant"] == "by hand"
    assert stub.requests["PR-1"]["asset"]["params"][3]["structured_value"] == {"country_code": "+34"}


def test_the_first_attempts_old_values_count(stub: ConnectStub, client: Any) -> None:
    first = run_step(Write, ASSET_REQUEST, client=client)
    stub.requests["PR-1"]["asset"]["params"][2]["value"] = "in between"
    second = run_step(Write, ASSET_REQUEST, client=client, state=first.state)
    assert second.state["Write: parameters"]["tenant"] == {"before": "", "after": "T-1"}


def test_what_was_never_written_is_not_undone(stub: ConnectStub, client: Any) -> None:
    assert compensate_step(Write, ASSET_REQUEST, client=client).response.status == "success"
    assert stub.calls == []


def test_an_undo_that_connect_refuses_parks(stub: ConnectStub, client: Any) -> None:
    result = run_saga(saga_of(Write, ByHand(stub, "approved"), Refuse), ASSET_REQUEST, client=client)
    assert result.status is SagaStatus.PARKED
    assert "Only open requests can be changed" in str(result.record.error)


def test_a_step_is_named_after_the_class_of_its_author() -> None:
    assert Write.name(Write.__new__(Write)) == "Write"
