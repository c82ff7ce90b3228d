"""The API of Connect under the real runner: whatever it answers to what is told it, each effect is there once."""

from __future__ import annotations

import pytest
from runner_world import World

from saga_engine.connect.local_faults import Fault, FaultKind

DONE = {
    "purchase": ["effect customer", "effect subscription", "effect parameters", "effect approval"],
    "change": ["effect subscription", "effect parameters", "effect approval", "undo subscription"],
}
PASSING = [
    Fault("update_request", FaultKind.ERROR_401),
    Fault("update_request", FaultKind.ERROR_429, delay_s=1),
    Fault("update_request", FaultKind.ERROR_500_AFTER_WORK),
    Fault("update_request", FaultKind.TIMEOUT_AFTER_WORK),
    Fault("update_request", FaultKind.INVALID_JSON),
]


@pytest.mark.parametrize("kind", DONE)
@pytest.mark.parametrize("fault", PASSING, ids=lambda fault: f"{fault.operation} {fault.kind.value}")
def test_an_order_goes_through_when_a_fault_of_connect_has_passed(world: World, kind: str, fault: Fault) -> None:
    order = world.order(kind)
    world.connect.set_fault(fault)
    assert world.connect.push(order).wait().result == "success"
    assert world.changes(order) == DONE[kind]
    assert world.status(order) == "approved"


LOST = [FaultKind.ERROR_401, FaultKind.TIMEOUT_AFTER_WORK, FaultKind.INVALID_JSON]


@pytest.mark.parametrize("kind", LOST, ids=str)
def test_a_customer_is_asked_once_whatever_connect_answers(world: World, kind: FaultKind) -> None:
    order = world.order("purchase", admin_email="nobody")
    world.connect.set_fault(Fault("update_request", kind))
    world.connect.set_fault(Fault("inquire_request", kind))
    assert world.connect.push(order).wait().result == "success"
    assert world.changes(order) == ["effect parameters", "effect inquiry"]
    assert world.status(order) == "inquiring"


@pytest.mark.parametrize("kind", LOST, ids=str)
def test_an_order_is_undone_and_rejected_once_whatever_connect_answers(world: World, kind: FaultKind) -> None:
    order = world.order("change")
    world.connect.set_fault(Fault("approve_request", FaultKind.REFUSE, reason="the contract has ended"))
    world.connect.set_fault(Fault("fail_request", kind))
    assert world.connect.push(order).wait().result == "fail"
    done = DONE["change"][:2]
    assert world.changes(order) == [*done, "undo parameters", "undo subscription", "effect failure"]
    assert world.status(order) == "failed"
