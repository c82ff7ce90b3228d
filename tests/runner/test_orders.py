"""Orders under the real runner: through, refused, undone, waiting, arriving twice; each effect is there once."""

from __future__ import annotations

import json

import pytest
from runner_world import World

from saga_engine.connect.local_faults import Fault, FaultKind

BOUGHT = ["effect customer", "effect subscription", "effect parameters", "effect approval"]
CHANGED = ["effect subscription", "effect parameters", "effect approval", "undo subscription"]
CANCELLED = ["undo subscription", "undo customer", "effect approval"]

#: A purchase is handled by a plain handler, a change by an async one.
KINDS = {"purchase": BOUGHT, "change": CHANGED, "cancel": CANCELLED}


@pytest.mark.parametrize(("kind", "done"), KINDS.items())
def test_an_order_goes_through_and_leaves_each_effect_once(world: World, kind: str, done: list[str]) -> None:
    order = world.order(kind)
    assert world.connect.push(order).wait().result == "success"
    assert world.changes(order) == done
    assert world.status(order) == "approved"


def test_an_order_that_is_delivered_again_after_its_end_gets_its_answer_and_runs_no_step(world: World) -> None:
    order = world.order("purchase")
    task = world.connect.push(order)
    assert task.wait().result == "success"
    world.connect.update_request(order["id"], status="pending")  # or the runner itself would not call the handler
    task.deliver()
    assert [result.result for result in task.wait_results(2)] == ["success", "success"]
    assert world.changes(order) == BOUGHT


def test_what_the_vendor_refuses_at_once_leaves_nothing_and_is_rejected(world: World) -> None:
    order = world.order("purchase")
    world.vendor.set_fault(Fault("create_customer", FaultKind.REFUSE, reason="no credit"))
    answer = world.connect.push(order).wait()
    assert answer.result == "fail"
    assert "no credit" in answer.message
    assert world.changes(order) == ["effect failure"]
    assert world.status(order) == "failed"


@pytest.mark.parametrize(
    ("kind", "done"),
    [
        ("purchase", ["effect customer", "effect subscription", "effect parameters"]),
        ("change", ["effect subscription", "effect parameters"]),
    ],
)
def test_what_connect_does_not_approve_is_undone_in_reverse_and_rejected(
    world: World, kind: str, done: list[str]
) -> None:
    order = world.order(kind)
    world.connect.set_fault(Fault("approve_request", FaultKind.REFUSE, reason="the contract has ended"))
    answer = world.connect.push(order).wait()
    assert answer.result == "fail"
    assert "the contract has ended" in answer.message
    undone = [change.replace("effect", "undo") for change in reversed(done)]
    assert world.changes(order) == [*done, *undone, "effect failure"]
    assert world.status(order) == "failed"


def test_a_step_that_has_to_wait_comes_back_at_the_next_delivery_after_the_time_in_a_variable(world: World) -> None:
    order = world.order("purchase")
    world.vendor.set_fault(Fault("get_subscription", FaultKind.REFUSE))
    task = world.connect.push(order)
    [waiting] = task.wait_results(1)
    assert (waiting.result, waiting.countdown_s) == ("reschedule", 45)
    assert world.changes(order) == BOUGHT[:2]
    task.deliver()
    assert task.wait().result == "success"
    assert world.changes(order) == BOUGHT


def test_a_customer_who_has_to_answer_is_waited_for(world: World) -> None:
    order = world.order("purchase", admin_email="nobody")
    asked = world.connect.push(order)
    assert asked.wait().result == "success"
    asking = ["effect parameters", "effect inquiry"]  # what is wrong is written beside the parameter's value
    assert world.changes(order) == asking
    answered = world.connect.get(order["id"])
    answered["asset"]["params"][0]["value"] = "ana@customer.example"
    world.connect.update_request(order["id"], status="pending", asset=answered["asset"])
    asked.deliver()
    assert [result.result for result in asked.wait_results(2)] == ["success", "success"]
    assert world.changes(order) == [*asking, *BOUGHT]


@pytest.mark.parametrize("kind", ["purchase", "change"])
def test_of_two_deliveries_at_once_one_runs_and_the_other_is_told_to_come_back(world: World, kind: str) -> None:
    order = world.order(kind)
    world.vendor.set_fault(Fault("create_subscription", FaultKind.SLOW, delay_s=1))
    task = world.connect.push(order, copies=2)
    told, ended = task.wait_results(2)
    assert (told.result, told.countdown_s) == ("reschedule", 30)
    assert ended.result == "success"
    assert world.changes(order) == KINDS[kind]


def test_the_executions_are_shown_in_the_extensions_own_web_application(world: World) -> None:
    order = world.order("purchase")
    world.connect.push(order).wait()
    shown = world.connect.browse("GET", f"/api/sagas/executions/PurchaseSaga:{order['id']}")
    assert shown.status == 200
    assert json.loads(shown.body)["status"] == "COMPLETED"
