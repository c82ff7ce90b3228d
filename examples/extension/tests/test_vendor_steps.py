"""Each step that changes something at the vendor does its work, undoes it, and finds it again after a crash."""

from __future__ import annotations

from typing import Any

import pytest

from doubles import FakeAsyncVendor, FakeVendor
from mail_connector.vendor import VendorUnavailable
from mail_connector.vendor_steps import (
    AwaitSubscription,
    CreateCustomer,
    CreateSubscription,
    DeleteCustomer,
    DeleteFormerSubscription,
    DeleteSubscription,
    ReplaceSubscription,
)
from saga_engine.testing import StepResult, compensate_step, probe_step, run_step
from transactions import Probe

#: What earlier steps leave behind.
STATE = {"customer_id": "C-1", "subscription_id": "S-1"}
MAKING = [CreateCustomer, CreateSubscription, ReplaceSubscription]


def run(step: Any, request: dict[str, Any], vendor: FakeVendor, how: Any = run_step, **more: Any) -> StepResult:
    """Call one step with the vendor that it asks for."""
    double = FakeAsyncVendor(vendor) if step in (ReplaceSubscription, DeleteFormerSubscription) else vendor
    result: StepResult = how(step, request, **{"state": STATE, "services": {"vendor": double}, **more})
    return result


def test_the_customer_is_made_as_ordered(purchase: dict[str, Any], vendor: FakeVendor) -> None:
    result = run(CreateCustomer, purchase, vendor, state={})
    assert result.state == {"customer_id": "C-1"}
    [(key, made)] = vendor.objects["customers"].items()
    assert key == result.context.idempotency_key
    assert made == {"id": "C-1", "name": "Example Customer", "email": "admin@customer.example", "country": "es"}


def test_the_subscription_has_only_what_is_ordered(purchase: dict[str, Any], vendor: FakeVendor) -> None:
    run(CreateSubscription, purchase, vendor)
    [made] = vendor.objects["subscriptions"].values()
    assert made == {"id": "S-1", "customer_id": "C-1", "items": [{"mpn": "MAIL-STANDARD", "quantity": 10}]}


def test_a_change_orders_the_new_quantities_and_remembers_the_former_subscription(
    change: dict[str, Any], vendor: FakeVendor
) -> None:
    result = run(ReplaceSubscription, change, vendor, state={})
    assert result.state == {"former_subscription_id": "S-2", "subscription_id": "S-1"}
    [made] = vendor.objects["subscriptions"].values()
    assert made["items"] == [{"mpn": "MAIL-STANDARD", "quantity": 25}]


@pytest.mark.parametrize("step", MAKING)
def test_undoing_leaves_nothing_at_the_vendor(step: Any, change: dict[str, Any], vendor: FakeVendor) -> None:
    done = run(step, change, vendor)
    assert len(vendor.ids()) == 1
    assert run(step, change, vendor, compensate_step, state=done.state).error is None
    assert vendor.ids() == []


@pytest.mark.parametrize("step", MAKING)
def test_what_was_never_made_is_undone_without_a_complaint(
    step: Any, change: dict[str, Any], vendor: FakeVendor
) -> None:
    assert run(step, change, vendor, compensate_step).error is None


@pytest.mark.parametrize("step", MAKING)
def test_a_refusal_is_an_answer_and_no_error(step: Any, change: dict[str, Any], vendor: FakeVendor) -> None:
    vendor.refuses = "customers" if step is CreateCustomer else "subscriptions"
    response = run(step, change, vendor).response
    assert response is not None
    assert (response.status, response.output) == ("fail", "the vendor says: no credit")


@pytest.mark.parametrize("step", MAKING)
def test_after_a_lost_answer_the_probe_finds_what_was_made(
    step: Any, change: dict[str, Any], vendor: FakeVendor
) -> None:
    vendor.is_away = True
    assert isinstance(run(step, change, vendor).error, VendorUnavailable)
    assert run(step, change, vendor, probe_step).probe is Probe.UNKNOWN
    vendor.is_away = False
    found = run(step, change, vendor, probe_step)
    assert found.probe is Probe.DONE
    assert set(found.state.values()) >= set(vendor.ids())


@pytest.mark.parametrize("step", MAKING)
def test_the_probe_tells_when_nothing_was_made(step: Any, change: dict[str, Any], vendor: FakeVendor) -> None:
    assert run(step, change, vendor, probe_step).probe is Probe.NOT_DONE


def test_a_subscription_in_preparation_is_looked_at_again_after_the_configured_time(
    purchase: dict[str, Any], vendor: FakeVendor, config: dict[str, str]
) -> None:
    run(CreateSubscription, purchase, vendor)
    vendor.status = "preparing"
    response = run(AwaitSubscription, purchase, vendor, config=config).response
    assert response is not None
    assert (response.status, response.countdown) == ("reschedule", 60)
    vendor.status = "active"
    response = run(AwaitSubscription, purchase, vendor, config=config).response
    assert response is not None
    assert response.status == "success"


def test_a_cancel_order_deletes_what_the_parameters_name(cancel: dict[str, Any], vendor: FakeVendor) -> None:
    vendor.objects = {"customers": {"k1": {"id": "C-1"}}, "subscriptions": {"k2": {"id": "S-3"}}}
    assert run(DeleteSubscription, cancel, vendor).error is None
    assert vendor.ids() == ["C-1"]
    assert run(DeleteCustomer, cancel, vendor).error is None
    assert vendor.ids() == []


def test_an_approved_change_deletes_the_former_subscription(change: dict[str, Any], vendor: FakeVendor) -> None:
    vendor.objects["subscriptions"] = {"k1": {"id": "S-2"}, "k2": {"id": "S-3"}}
    run(DeleteFormerSubscription, change, vendor, state={"former_subscription_id": "S-2"})
    assert vendor.ids() == ["S-3"]
