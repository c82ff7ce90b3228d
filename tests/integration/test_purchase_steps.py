"""The steps of the purchase example do, undo and find their effects at a live vendor, without an engine."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from connect.client import ClientError, ConnectClient

from examples.purchase import (
    ApproveRequest,
    CreateCustomer,
    CreateSubscription,
    FillParameters,
    PurchaseSaga,
    ValidateParameters,
    Vendor,
    VendorUnavailable,
)
from examples.purchase.server import REQUEST_FILE, running, take_in
from saga_engine.connect.local_faults import Fault, FaultKind
from saga_engine.connect.local_http import LocalServer
from transactions import Kind, Probe

REQUEST: dict[str, Any] = json.loads(REQUEST_FILE.read_text(encoding="utf-8"))
REQUEST_ID = REQUEST["id"]
CONFIG = {"APPROVE_TEMPLATE_ID": "TL-1"}


@dataclass
class Context:
    """Stands in for the engine's context: an operation's keys, the saga's state, and what was saved of it."""

    idempotency_key: str = "key"
    execute_key: str = "key"
    state: dict[str, Any] = field(default_factory=dict)
    saved: list[dict[str, Any]] = field(default_factory=list)

    def save(self) -> None:
        self.saved.append(copy.deepcopy(self.state))


@dataclass
class World:
    """The live other side, and the steps that talk to it."""

    server: LocalServer
    request: dict[str, Any] = field(default_factory=lambda: copy.deepcopy(REQUEST))
    context: Context = field(default_factory=Context)

    def __post_init__(self) -> None:
        self.vendor = Vendor(f"{self.server.url}/vendor")
        self.client = ConnectClient("ApiKey SU-1:test", f"{self.server.url}/public/v1", max_retries=0)
        self.logger = logging.LoggerAdapter(logging.getLogger("purchase"), {})

    def step(self, step: Any, key: str = "key", undo_key: str | None = None) -> Any:
        """Build a step as the container does: each constructor parameter from the attribute of that name."""
        self.context.execute_key = key
        self.context.idempotency_key = undo_key or key
        services = {**vars(self), "config": CONFIG}
        names = step.__init__.__code__.co_varnames[1 : step.__init__.__code__.co_argcount]
        return step(**{name: services[name] for name in names})

    def undo(self, step: Any, key: str = "key") -> str:
        """Undo what was executed with the key; the undo's own key is the same with `-undo` behind it."""
        built = self.step(step, key, f"{key}-undo")
        return str(built.compensate(self.request, RuntimeError("a later step failed")).status)

    def fault(self, operation: str, kind: FaultKind, **more: Any) -> None:
        self.server.state.set_fault(Fault(operation, kind, **more))

    def changes(self) -> list[str]:
        return [f"{entry['change']} {entry['step']} {entry['key']}" for entry in self.server.state.ledger()]

    def values(self) -> dict[str, str]:
        params = self.client.requests[REQUEST_ID].get()["asset"]["params"]
        return {param["id"]: param["value"] for param in params}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with running(tmp_path / "server.db") as server:
        take_in(server.state, copy.deepcopy(REQUEST))
        yield World(server)


@pytest.fixture
def ordered(world: World) -> World:
    """A world in which the customer and the subscription are made."""
    assert world.step(CreateCustomer, "k1").execute(world.request).status == "success"
    assert world.step(CreateSubscription, "k2").execute(world.request).status == "success"
    return world


def test_a_complete_order_is_valid_and_leaves_no_effect(world: World) -> None:
    step = world.step(ValidateParameters)
    assert step.execute(world.request).status == "success"
    assert step.kind is Kind.READ_ONLY
    assert world.changes() == []


@pytest.mark.parametrize(
    ("email", "quantity", "problem"),
    [
        ("nobody", "10", "admin_email is no e-mail address"),
        (None, "10", "admin_email is no e-mail address"),
        ("a@b.example", "0", "nothing is ordered"),
        ("a@b.example", "ten", "a quantity is no whole number: ten, 0"),
    ],
)
def test_an_order_that_cannot_be_carried_out_fails_with_its_problem(
    world: World, email: str | None, quantity: str, problem: str
) -> None:
    world.request["asset"]["params"][0]["value"] = email
    world.request["asset"]["items"][0]["quantity"] = quantity
    response = world.step(ValidateParameters).execute(world.request)
    assert response.status == "fail"
    assert problem in response.output


def test_the_order_is_made_at_the_vendor_and_its_ids_are_kept(ordered: World) -> None:
    assert ordered.context.state["customer_id"] == "C-1"
    assert ordered.context.state["subscription_id"] == "S-2"
    assert ordered.changes() == ["effect customer k1", "effect subscription k2"]


def test_the_vendor_is_sent_the_customer_and_what_was_ordered_of_each_item(ordered: World) -> None:
    customer = {"id": "C-1", "name": "Example Customer", "email": "admin@customer.example", "country": "es"}
    assert ordered.vendor.find("customers", key="k1") == customer
    subscription = {"id": "S-2", "customer_id": "C-1", "items": [{"mpn": "MAIL-STANDARD", "quantity": 10}]}
    assert ordered.vendor.find("subscriptions", key="k2") == subscription


def test_a_refusal_fails_with_the_vendors_reason(world: World) -> None:
    world.fault("create_customer", FaultKind.REFUSE, reason="credit limit reached")
    response = world.step(CreateCustomer).execute(world.request)
    assert (response.status, response.output) == ("fail", "the vendor says: credit limit reached")
    assert world.changes() == []


def test_an_attempt_without_an_answer_is_found_done_and_its_id_is_kept(world: World) -> None:
    world.fault("create_customer", FaultKind.TIMEOUT_AFTER_WORK)
    step = world.step(CreateCustomer, "k1")
    with pytest.raises(VendorUnavailable):
        step.execute(world.request)
    assert step.probe(world.request) is Probe.DONE
    assert world.context.state["customer_id"] == "C-1"
    assert world.changes() == ["effect customer k1"]


def test_an_attempt_that_came_to_nothing_is_found_not_done(world: World) -> None:
    world.fault("create_customer", FaultKind.ERROR_500)
    step = world.step(CreateCustomer)
    with pytest.raises(VendorUnavailable):
        step.execute(world.request)
    assert step.probe(world.request) is Probe.NOT_DONE


def test_nothing_is_found_out_while_the_vendor_does_not_answer(world: World) -> None:
    world.fault("find_customer", FaultKind.ERROR_500)
    assert world.step(CreateCustomer).probe(world.request) is Probe.UNKNOWN


def test_only_an_unavailable_vendor_is_worth_another_attempt(world: World) -> None:
    policy = world.step(CreateSubscription).retry.retry
    assert policy.predicate(VendorUnavailable())
    assert not policy.predicate(KeyError("customer_id"))


def test_the_undo_deletes_what_was_made_once(ordered: World) -> None:
    for _ in range(2):
        assert ordered.undo(CreateSubscription, "k2") == "success"
        assert ordered.undo(CreateCustomer, "k1") == "success"
    assert ordered.changes()[2:] == ["undo subscription k2-undo", "undo customer k1-undo"]


def test_the_undo_finds_what_an_interrupted_attempt_made(world: World) -> None:
    world.fault("create_customer", FaultKind.TIMEOUT_AFTER_WORK)
    with pytest.raises(VendorUnavailable):
        world.step(CreateCustomer, "k1").execute(world.request)
    assert world.context.state == {}
    assert world.undo(CreateCustomer, "k1") == "success"
    assert world.changes() == ["effect customer k1", "undo customer k1-undo"]


def test_the_undo_leaves_alone_what_another_key_made(ordered: World) -> None:
    assert ordered.undo(CreateCustomer, "k9") == "success"
    assert ordered.changes() == ["effect customer k1", "effect subscription k2"]


@pytest.mark.parametrize("operation", ["find_customer", "delete_customer"])
def test_the_undo_is_not_done_while_the_vendor_does_not_answer(ordered: World, operation: str) -> None:
    ordered.fault(operation, FaultKind.ERROR_500)
    with pytest.raises(VendorUnavailable):
        ordered.undo(CreateCustomer, "k1")


def test_the_parameters_are_filled_in_and_get_their_former_values_back(ordered: World) -> None:
    step = ordered.step(FillParameters)
    assert step.execute(ordered.request).status == "success"
    assert ordered.values() == {
        "admin_email": "admin@customer.example",
        "customer_id": "C-1",
        "subscription_id": "S-2",
    }
    assert ordered.undo(FillParameters) == "success"
    assert ordered.client.requests[REQUEST_ID].get() == REQUEST


def test_filling_in_again_keeps_the_values_of_before_the_first_attempt(ordered: World) -> None:
    ordered.fault("update_request", FaultKind.TIMEOUT_AFTER_WORK)
    step = ordered.step(FillParameters)
    with pytest.raises(ClientError):
        step.execute(ordered.request)
    ordered.request["asset"] = ordered.client.requests[REQUEST_ID].get()["asset"]
    step.execute(ordered.request)
    assert ordered.context.state["parameters_before"] == {"customer_id": "", "subscription_id": ""}
    assert ordered.context.saved[-1]["parameters_before"] == {"customer_id": "", "subscription_id": ""}
    ordered.undo(FillParameters)
    assert ordered.changes()[2:] == [f"effect parameters {REQUEST_ID}", f"undo parameters {REQUEST_ID}"]


def test_parameters_that_were_never_written_are_left_alone_by_the_undo(ordered: World) -> None:
    ordered.fault("update_request", FaultKind.ERROR_500)
    assert ordered.undo(FillParameters) == "success"


def test_the_request_is_approved_in_connect(ordered: World) -> None:
    ordered.step(FillParameters).execute(ordered.request)
    step = ordered.step(ApproveRequest)
    assert step.probe(ordered.request) is Probe.NOT_DONE
    assert step.execute(ordered.request).status == "success"
    assert step.probe(ordered.request) is Probe.DONE
    assert ordered.client.requests[REQUEST_ID].get()["status"] == "approved"


def test_an_approval_without_an_answer_is_found_done(ordered: World) -> None:
    ordered.step(FillParameters).execute(ordered.request)
    ordered.fault("approve_request", FaultKind.TIMEOUT_AFTER_WORK)
    step = ordered.step(ApproveRequest)
    with pytest.raises(ClientError) as no_answer:
        step.execute(ordered.request)
    assert step.retry.retry.predicate(no_answer.value)
    assert step.probe(ordered.request) is Probe.DONE


def test_an_approval_that_connect_refuses_is_no_use_repeating(ordered: World) -> None:
    step = ordered.step(ApproveRequest)
    with pytest.raises(ClientError, match="Required parameters without a value") as refused:
        step.execute(ordered.request)
    assert not step.retry.retry.predicate(refused.value)
    assert step.probe(ordered.request) is Probe.NOT_DONE


def test_nothing_is_found_out_while_connect_does_not_answer(ordered: World) -> None:
    ordered.fault("get_request", FaultKind.ERROR_500)
    assert ordered.step(ApproveRequest).probe(ordered.request) is Probe.UNKNOWN


def test_an_approval_has_no_way_back(ordered: World) -> None:
    cause = RuntimeError("refused")
    with pytest.raises(RuntimeError) as raised:
        ordered.step(ApproveRequest).compensate(ordered.request, cause)
    assert raised.value is cause


def test_services_come_from_the_environment_and_point_to_loopback_without_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for key in ("CONNECT_API_URL", "VENDOR_URL"):
        monkeypatch.delenv(key, raising=False)
    services = PurchaseSaga.services(None)
    assert services["client"].endpoint == "http://127.0.0.1:8765/public/v1"
    assert services["config"]["VENDOR_URL"] == "http://127.0.0.1:8765/vendor"
    monkeypatch.setenv("VENDOR_URL", "http://127.0.0.1:1/vendor")
    assert PurchaseSaga.services(None)["config"]["VENDOR_URL"] == "http://127.0.0.1:1/vendor"
