"""SIGTERM to the real runner, as a container gets it: what can end ends, the rest goes on in the next container."""

from __future__ import annotations

from pathlib import Path

from runner_world import running_world

from saga_engine.connect.local_faults import Fault, FaultKind

BOUGHT = ["effect customer", "effect subscription", "effect parameters", "effect approval"]


def test_an_order_goes_on_in_the_next_container_after_sigterm(tmp_path: Path) -> None:
    with running_world(tmp_path) as world:
        order = world.order("purchase")
        world.vendor.set_fault(Fault("create_subscription", FaultKind.TIMEOUT_AFTER_WORK, delay_s=60))
        task = world.connect.push(order)
        world.await_change(order, "effect subscription")
        world.connect.stop_runner()
        assert task.results() == []
        world.connect.start_runner()
        task.deliver()
        assert task.wait().result == "success"
        assert world.changes(order) == BOUGHT


def test_an_order_that_ends_soon_after_sigterm_is_answered(tmp_path: Path) -> None:
    with running_world(tmp_path) as world:
        order = world.order("purchase")
        world.vendor.set_fault(Fault("create_subscription", FaultKind.SLOW, delay_s=1))
        task = world.connect.push(order)
        world.await_change(order, "effect subscription")
        world.connect.stop_runner()
        assert [result.result for result in task.results()] == ["success"]
        assert world.changes(order) == BOUGHT
