"""Killed and stopped workers and dropped connections under the real runner: orders go on; each effect is there once."""

from __future__ import annotations

import pytest
from runner_world import World

from saga_engine.connect.local_faults import Fault, FaultKind

BOUGHT = ["effect customer", "effect subscription", "effect parameters", "effect approval"]
CHANGED = ["effect subscription", "effect parameters", "effect approval", "undo subscription"]
DONE = {"purchase": BOUGHT, "change": CHANGED}


def hanging(operation: str) -> Fault:
    """Let the vendor do the work and then say nothing, for longer than any test: whoever waits for it is killed."""
    return Fault(operation, FaultKind.TIMEOUT_AFTER_WORK, delay_s=60)


@pytest.mark.parametrize("kind", DONE)
def test_a_worker_killed_in_the_middle_of_a_step_loses_and_doubles_nothing(world: World, kind: str) -> None:
    order = world.order(kind)
    world.vendor.set_fault(hanging("create_subscription"))
    task = world.connect.push(order)
    world.await_change(order, "effect subscription")
    world.kill_worker()
    assert task.results() == []
    task.deliver()
    assert task.wait().result == "success"
    assert world.changes(order) == DONE[kind]


def test_a_worker_killed_in_the_middle_of_an_undo_undoes_the_rest_once(world: World) -> None:
    order = world.order("purchase")
    world.connect.set_fault(Fault("approve_request", FaultKind.REFUSE, reason="the contract has ended"))
    world.vendor.set_fault(hanging("delete_subscription"))
    task = world.connect.push(order)
    world.await_change(order, "undo subscription")
    world.kill_worker()
    task.deliver()
    assert task.wait().result == "fail"
    undone = ["undo parameters", "undo subscription", "undo customer"]
    assert world.changes(order) == [*BOUGHT[:3], *undone, "effect failure"]


@pytest.mark.parametrize("kind", DONE)
def test_the_sweeper_completes_an_order_that_is_never_delivered_again(world: World, kind: str) -> None:
    order = world.order(kind)
    world.vendor.set_fault(hanging("create_subscription"))
    task = world.connect.push(order)
    world.await_change(order, "effect subscription")
    world.kill_worker()
    assert world.connect.schedule("resume_sagas").wait().result == "success"
    assert world.changes(order) == DONE[kind]
    assert world.status(order) == "approved"
    assert task.results() == []


def test_the_sweeper_does_what_is_left_after_an_approval_that_nobody_noted_down(world: World) -> None:
    order = world.order("change")
    world.connect.set_fault(hanging("approve_request"))
    task = world.connect.push(order)
    world.await_change(order, "effect approval")
    world.kill_worker()
    task.deliver()
    assert task.wait().result == "skip"  # by the runner itself: an approved request is delivered no more
    assert world.changes(order) == CHANGED[:-1]
    assert world.connect.schedule("resume_sagas").wait().result == "success"
    assert world.changes(order) == CHANGED


@pytest.mark.parametrize("kind", DONE)
def test_a_dropped_connection_delays_the_answer_and_nothing_else(world: World, kind: str) -> None:
    order = world.order(kind)
    world.vendor.set_fault(Fault("create_subscription", FaultKind.SLOW, delay_s=1))
    task = world.connect.push(order)
    world.await_change(order, "effect subscription")
    world.connect.drop_connection("background")
    assert task.wait().result == "success"
    assert world.changes(order) == DONE[kind]


def test_what_can_end_after_sigterm_ends_and_the_rest_goes_on_in_the_next_container(world: World) -> None:
    world.vendor.set_fault(hanging("create_subscription"))
    long = world.order("purchase")
    long_task = world.connect.push(long)
    world.await_change(long, "effect subscription")
    world.vendor.set_fault(Fault("create_subscription", FaultKind.SLOW, delay_s=1))
    short = world.order("purchase")
    short_task = world.connect.push(short)
    world.await_change(short, "effect subscription")
    world.connect.stop_runner()
    world.connect.start_runner()
    assert [result.result for result in short_task.results()] == ["success"]
    assert world.changes(short) == BOUGHT
    assert long_task.results() == []
    long_task.deliver()
    assert long_task.wait().result == "success"
    assert world.changes(long) == BOUGHT  # at the vendor only what the short one bought: the long one bought before
