"""Handlers that take longer than the real runner waits for them: the next delivery neither overlaps nor repeats."""

from __future__ import annotations

import pytest
from runner_world import World

from saga_engine.connect.local_faults import Fault, FaultKind

#: In seconds; four fifths of it are the budget of a delivery.
ENVIRONMENT = {"BACKGROUND_TASK_MAX_EXECUTION_TIME": "2"}


def test_a_plain_handler_that_goes_on_after_its_time_limit_keeps_the_next_delivery_away(world: World) -> None:
    order = world.order("purchase")
    world.vendor.set_fault(Fault("create_subscription", FaultKind.SLOW, delay_s=4))
    task = world.connect.push(order)
    [given_up] = task.wait_results(1)
    assert given_up.result == "retry"
    task.deliver()
    _, told = task.wait_results(2)
    assert (told.result, told.countdown_s) == ("reschedule", 30)
    world.await_change(order, "effect subscription")
    results = 2
    while task.wait_results(results)[-1].result != "success":  # the first one may still be in its last step
        task.deliver()
        results += 1
    assert world.changes(order) == ["effect customer", "effect subscription", "effect parameters", "effect approval"]


def test_an_async_handler_that_is_cancelled_at_its_time_limit_goes_on_at_the_next_delivery(world: World) -> None:
    order = world.order("change")
    world.vendor.set_fault(Fault("create_subscription", FaultKind.SLOW, delay_s=4))
    task = world.connect.push(order)
    [given_up] = task.wait_results(1)
    assert given_up.result == "retry"
    task.deliver()
    assert task.wait().result == "success"
    assert world.changes(order) == [
        "effect subscription",
        "effect parameters",
        "effect approval",
        "undo subscription",
    ]


@pytest.mark.parametrize("kind", ["purchase", "change"])
def test_a_wait_that_is_longer_than_the_delivery_is_not_waited_in_it(world: World, kind: str) -> None:
    order = world.order(kind)
    world.connect.set_fault(Fault("approve_request", FaultKind.ERROR_429, delay_s=20))
    [waiting] = world.connect.push(order).wait_results(1)
    assert (waiting.result, waiting.countdown_s) == ("reschedule", 30)
