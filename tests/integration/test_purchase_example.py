"""The purchase example keeps its promises through the engine: once, or undone, and always to an end."""

from __future__ import annotations

import copy
import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from connect.client import ConnectClient

from examples.purchase import PurchaseSaga
from examples.purchase.__main__ import main
from examples.purchase.server import REQUEST_FILE, running, take_in
from saga_engine import Engine, SagaStatus
from saga_engine.connect.local_faults import Fault, FaultKind
from saga_engine.connect.local_http import LocalServer

REQUEST: dict[str, Any] = json.loads(REQUEST_FILE.read_text(encoding="utf-8"))
REQUEST_ID = REQUEST["id"]
SAGA_ID = f"PurchaseSaga:{REQUEST_ID}"
EFFECTS = ["effect customer", "effect subscription", "effect parameters", "effect approval"]
STORY_S = 120


@dataclass
class World:
    """The live other side, an engine on a journal file, and the saga between them."""

    server: LocalServer
    engine: Engine
    services: dict[str, Any] = field(default_factory=dict)

    def deliver(self) -> Any:
        """Deliver the request once, as Connect's runner does, and give the response."""
        return PurchaseSaga.make(**self.services, engine=self.engine).resolve(copy.deepcopy(REQUEST))

    def fault(self, operation: str, kind: FaultKind, **more: Any) -> None:
        self.server.state.set_fault(Fault(operation, kind, **more))

    def changes(self) -> list[str]:
        return [f"{entry['change']} {entry['step']}" for entry in self.server.state.ledger()]

    def request(self) -> dict[str, Any]:
        request: dict[str, Any] = self.services["client"].requests[REQUEST_ID].get()
        return request


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with running(tmp_path / "server.db") as server:
        take_in(server.state, copy.deepcopy(REQUEST))
        services = {
            "config": {"VENDOR_URL": f"{server.url}/vendor", "APPROVE_TEMPLATE_ID": "TL-1"},
            "client": ConnectClient("ApiKey SU-1:test", f"{server.url}/public/v1", max_retries=0),
            "logger": logging.LoggerAdapter(logging.getLogger("purchase"), {}),
        }
        with Engine(f"sqlite:///{tmp_path / 'saga.db'}", **services, sagas=[PurchaseSaga]) as engine:
            yield World(server, engine, services)


def test_an_order_is_carried_out_once_and_approved(world: World) -> None:
    assert world.deliver().status == "success"
    assert world.changes() == EFFECTS
    assert world.request()["status"] == "approved"
    record = world.engine.get(SAGA_ID)
    assert record.status is SagaStatus.COMPLETED
    assert [step.attempts for step in record.steps] == [1, 1, 1, 1, 1]


def test_an_order_that_is_delivered_again_gets_its_answer_and_nothing_more(world: World) -> None:
    world.deliver()
    assert world.deliver().status == "success"
    assert world.changes() == EFFECTS


@pytest.mark.parametrize("operation", ["create_customer", "create_subscription", "approve_request"])
@pytest.mark.parametrize("kind", [FaultKind.TIMEOUT_AFTER_WORK, FaultKind.ERROR_500_AFTER_WORK])
def test_work_whose_answer_was_lost_is_found_done_and_not_repeated(
    world: World, operation: str, kind: FaultKind
) -> None:
    world.fault(operation, kind)
    assert world.deliver().status == "success"
    assert world.changes() == EFFECTS
    assert [step.attempts for step in world.engine.get(SAGA_ID).steps] == [1, 1, 1, 1, 1]


def test_a_vendor_that_is_down_for_a_moment_is_asked_again(world: World) -> None:
    world.fault("create_subscription", FaultKind.ERROR_500)
    assert world.deliver().status == "success"
    assert world.changes() == EFFECTS
    assert [step.attempts for step in world.engine.get(SAGA_ID).steps] == [1, 1, 2, 1, 1]


def test_an_invalid_order_fails_before_anything_is_done(world: World) -> None:
    request = copy.deepcopy(REQUEST)
    request["asset"]["items"][0]["quantity"] = "0"
    response = PurchaseSaga.make(**world.services, engine=world.engine).resolve(request)
    assert (response.status, response.output) == (
        "fail",
        "the order cannot be carried out: nothing is ordered: every quantity is 0",
    )
    assert world.changes() == []


def test_a_subscription_that_the_vendor_refuses_costs_the_customer_that_was_made(world: World) -> None:
    world.fault("create_subscription", FaultKind.REFUSE, reason="credit limit reached")
    response = world.deliver()
    assert (response.status, response.output) == ("fail", "the vendor says: credit limit reached")
    assert world.changes() == ["effect customer", "undo customer"]


def test_an_approval_that_connect_refuses_undoes_everything_in_reverse(world: World) -> None:
    world.fault("approve_request", FaultKind.REFUSE, reason="the contract has ended")
    response = world.deliver()
    assert response.status == "fail"
    assert "the contract has ended" in response.output
    assert world.changes() == [*EFFECTS[:3], "undo parameters", "undo subscription", "undo customer"]
    assert world.request() == REQUEST
    assert world.engine.get(SAGA_ID).status is SagaStatus.COMPENSATED


def test_every_effect_and_every_undo_has_a_key_of_its_own(world: World) -> None:
    world.fault("approve_request", FaultKind.REFUSE)
    world.deliver()
    at_vendor = [entry["key"] for entry in world.server.state.ledger() if entry["step"] != "parameters"]
    assert len(set(at_vendor)) == len(at_vendor) == 4


def test_the_story_is_told_to_its_end(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "examples.purchase", "--dir", str(tmp_path / "demo")]
    told = subprocess.run(command, capture_output=True, text=True, timeout=STORY_S, check=False)
    assert told.returncode == 0, told.stdout + told.stderr
    assert "nothing was bought twice" in told.stdout
    assert "nothing is left of this order" in told.stdout


def test_a_story_that_cannot_be_told_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NO_PROXY", "")  # set by main; put back after the test
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setattr(sys, "executable", shutil.which("true"))
    assert main(["--dir", str(tmp_path)]) == 1
    assert "the server did not start" in capsys.readouterr().out
