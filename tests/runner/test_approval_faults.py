"""The API of Connect under the real runner: whatever it answers to an approval, it happens once."""

from __future__ import annotations

import pytest
from runner_world import World

from saga_engine.connect.local_faults import Fault, FaultKind

DONE = {
    "purchase": ["effect customer", "effect subscription", "effect parameters", "effect approval"],
    "change": ["effect subscription", "effect parameters", "effect approval", "undo subscription"],
}
#: What passes by itself. The client of the runner repeats what was answered with 500 three times on its own.
PASSING = [
    Fault("approve_request", FaultKind.ERROR_401),
    Fault("approve_request", FaultKind.ERROR_429, delay_s=1),
    Fault("approve_request", FaultKind.ERROR_500, times=4),
    Fault("approve_request", FaultKind.ERROR_500_AFTER_WORK),
    Fault("approve_request", FaultKind.TIMEOUT_AFTER_WORK),
    Fault("approve_request", FaultKind.INVALID_JSON),
]


@pytest.mark.parametrize("kind", DONE)
@pytest.mark.parametrize("fault", PASSING, ids=lambda fault: f"{fault.operation} {fault.kind.value}")
def test_an_order_goes_through_when_a_fault_of_connect_has_passed(world: World, kind: str, fault: Fault) -> None:
    order = world.order(kind)
    world.connect.set_fault(fault)
    assert world.connect.push(order).wait().result == "success"
    assert world.changes(order) == DONE[kind]
    assert world.status(order) == "approved"
