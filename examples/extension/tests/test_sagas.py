"""Each order as a whole: it goes through, or nothing is left of it, whichever step fails."""

from __future__ import annotations

from typing import Any

import pytest

from doubles import FakeAsyncVendor, FakeConnect, FakeVendor
from mail_connector.sagas import CancelSaga, ChangeSaga, PurchaseSaga
from saga_engine import SagaStatus
from saga_engine.testing import SagaResult, run_saga

#: The steps of a purchase and of a change up to the one that cannot be gone back on.
PURCHASE = ["CheckQuantities", "CreateCustomer", "CreateSubscription", "AwaitSubscription", "FillIn"]
CHANGE = ["CheckQuantities", "ReplaceSubscription", "FillIn"]


def run(saga: Any, request: dict[str, Any], vendor: FakeVendor, connect: FakeConnect, **more: Any) -> SagaResult:
    """Run a saga whose vendor and Connect are fakes."""
    double = FakeAsyncVendor(vendor) if saga is ChangeSaga else vendor
    result: SagaResult = run_saga(saga, request, client=connect, services={"vendor": double}, **more)
    return result


def test_a_purchase_buys_fills_in_and_approves(
    purchase: dict[str, Any], vendor: FakeVendor, config: dict[str, str]
) -> None:
    connect = FakeConnect(purchase)
    result = run(PurchaseSaga, purchase, vendor, connect, config=config)
    assert result.status is SagaStatus.COMPLETED
    assert vendor.ids() == ["C-1", "S-2"]
    assert (connect.value("customer_id"), connect.value("subscription_id")) == ("C-1", "S-2")
    assert connect.sent == [("approve", {"template_id": "TL-1"})]


@pytest.mark.parametrize("fail_at", PURCHASE)
def test_nothing_is_left_of_a_purchase_that_fails_anywhere(
    fail_at: str, purchase: dict[str, Any], vendor: FakeVendor, config: dict[str, str]
) -> None:
    connect = FakeConnect(purchase)
    result = run(PurchaseSaga, purchase, vendor, connect, config=config, fail_at=fail_at)
    assert result.status is SagaStatus.COMPENSATED
    assert vendor.ids() == []
    assert (connect.value("customer_id"), connect.value("subscription_id")) == ("", "")
    [(action, _)] = connect.sent
    assert action == "fail"


def test_a_purchase_that_connect_does_not_approve_is_undone_and_rejected(
    purchase: dict[str, Any], vendor: FakeVendor, config: dict[str, str]
) -> None:
    connect = FakeConnect(purchase)
    connect.refuses = "approve"
    result = run(PurchaseSaga, purchase, vendor, connect, config=config)
    assert result.compensated == ["FillIn", "CreateSubscription", "CreateCustomer", "RejectIfUndone"]
    assert vendor.ids() == []
    [(action, payload)] = connect.sent
    assert action == "fail"
    assert "the contract has ended" in payload["reason"]


def test_a_purchase_without_an_address_waits_for_the_customer_and_then_goes_through(
    purchase: dict[str, Any], vendor: FakeVendor, config: dict[str, str]
) -> None:
    purchase["asset"]["params"][0]["value"] = "nobody"
    connect = FakeConnect(purchase)
    result = run(PurchaseSaga, purchase, vendor, connect, config=config, until=SagaStatus.SUSPENDED)
    assert result.executed == ["RejectIfUndone", "AskForEmail"]
    assert connect.sent == [("inquire", {"template_id": "TL-2"})]
    assert vendor.ids() == []


def test_a_change_replaces_the_subscription(change: dict[str, Any], vendor: FakeVendor, config: dict[str, str]) -> None:
    vendor.objects["subscriptions"]["k"] = {"id": "S-2"}
    connect = FakeConnect(change)
    result = run(ChangeSaga, change, vendor, connect, config=config)
    assert result.status is SagaStatus.COMPLETED
    [made] = vendor.objects["subscriptions"].values()
    assert connect.value("subscription_id") == made["id"] != "S-2"


@pytest.mark.parametrize("fail_at", CHANGE)
def test_a_change_that_fails_anywhere_leaves_the_former_subscription(
    fail_at: str, change: dict[str, Any], vendor: FakeVendor, config: dict[str, str]
) -> None:
    vendor.objects["subscriptions"]["k"] = {"id": "S-2"}
    connect = FakeConnect(change)
    result = run(ChangeSaga, change, vendor, connect, config=config, fail_at=fail_at)
    assert result.status is SagaStatus.COMPENSATED
    assert vendor.ids() == ["S-2"]
    assert connect.value("subscription_id") == "S-2"


def test_a_cancel_order_deletes_and_is_approved_however_often_connect_is_away(
    cancel: dict[str, Any], vendor: FakeVendor, config: dict[str, str]
) -> None:
    vendor.objects = {"customers": {"k1": {"id": "C-1"}}, "subscriptions": {"k2": {"id": "S-3"}}}
    connect = FakeConnect(cancel)
    result = run(CancelSaga, cancel, vendor, connect, config=config)
    assert result.status is SagaStatus.COMPLETED
    assert vendor.ids() == []
    assert connect.request["status"] == "approved"
