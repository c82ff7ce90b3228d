"""Handlers that their author writes, under the real runner: plain and async, of assets and of tier configurations."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import pytest
from runner_world import World

from saga_engine import Engine, SagaStatus
from saga_engine.connect.local_faults import Fault, FaultKind

EXTENSION = Path(__file__).with_name("plain_extension")
NUMBERS = count(1)


def tier_request(kind: str) -> dict[str, Any]:
    number = next(NUMBERS)
    params: list[dict[str, Any]] = [
        {"id": "reseller_id", "type": "text", "value": ""},
        {"id": "contact", "type": "address", "value": "", "structured_value": {"city": "Roma"}},
    ]
    account = {"id": "TA-0000-0000-0001", "name": "Reseller"}
    configuration = {"id": f"TC-{number}", "account": account, "tier_level": 1, "params": params}
    return {"id": f"TCR-{number}", "type": kind, "params": params, "configuration": configuration}


def changes(world: World, request: dict[str, Any]) -> list[str]:
    in_connect = [entry for entry in world.connect.ledger() if entry["object_id"] == request["id"]]
    return [f"{entry['change']} {entry['step']}" for entry in in_connect]


def test_the_journal_is_opened_by_the_first_delivery_and_in_forked_and_spawned_processes_too(world: World) -> None:
    journal = world.connect.folder / "saga.db"
    assert not journal.exists()
    order = world.order("purchase", subscription_id="S-1", customer_id="C-1")
    assert world.connect.push(order).wait().result == "success"
    assert changes(world, order) == ["effect approval"]
    with Engine(world.connect.journal_url) as engine:
        found = {record.saga_id: record.status for record in engine.search()}
    keys = ("PurchaseSaga:" + order["id"], *(f"ChildSaga:{order['id']}-{method}" for method in ("fork", "spawn")))
    assert found == dict.fromkeys(keys, SagaStatus.COMPLETED)


def test_an_async_handler_comes_back_after_the_time_in_a_variable(world: World) -> None:
    order = world.order("change")
    task = world.connect.push(order)
    [waiting] = task.wait_results(1)
    assert (waiting.result, waiting.countdown_s) == ("reschedule", 45)
    task.deliver()
    assert task.wait().result == "success"
    assert changes(world, order) == ["effect approval"]


@pytest.mark.parametrize("fault", [None, FaultKind.TIMEOUT_AFTER_WORK, FaultKind.ERROR_401], ids=str)
@pytest.mark.parametrize("kind", ["setup", "change"])
def test_a_tier_configuration_is_written_and_approved_once(world: World, kind: str, fault: FaultKind | None) -> None:
    request = tier_request(kind)
    if fault is not None:
        world.connect.set_fault(Fault("update_tier_config_request", fault))
        world.connect.set_fault(Fault("approve_tier_config_request", fault))
    assert world.connect.push(request).wait().result == "success"
    assert changes(world, request) == ["effect parameters", "effect approval"]
    params = {param["id"]: param for param in world.connect.get(request["id"])["params"]}
    assert (params["reseller_id"]["value"], params["contact"]["structured_value"]) == ("R-1", {"city": "Madrid"})


def test_a_tier_configuration_that_connect_does_not_approve_is_undone_and_rejected(world: World) -> None:
    request = tier_request("setup")
    world.connect.set_fault(Fault("approve_tier_config_request", FaultKind.REFUSE, reason="the reseller has left"))
    answer = world.connect.push(request).wait()
    assert (answer.result, "the reseller has left" in str(answer.message)) == ("fail", True)
    assert changes(world, request) == ["effect parameters", "undo parameters", "effect failure"]
    assert world.status(request) == "failed"
