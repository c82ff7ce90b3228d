"""The other side of the purchase example answers as a vendor and as Connect do, and remembers what it did."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from connect.client import ClientError, ConnectClient

from examples.purchase.server import REQUEST_FILE, main, running, take_in
from examples.purchase.vendor import Vendor, VendorRefused, VendorUnavailable
from saga_engine.connect.local_errors import BadFault
from saga_engine.connect.local_faults import Fault, FaultKind
from saga_engine.connect.local_http import LocalServer

REQUEST: dict[str, Any] = json.loads(REQUEST_FILE.read_text(encoding="utf-8"))
REQUEST_ID = REQUEST["id"]
CUSTOMER = {"name": "Example Customer"}
VALUES = {"customer_id": "C-1", "subscription_id": "S-2"}
FILLED = {"asset": {"params": [{"id": name, "value": value} for name, value in VALUES.items()]}}
CHILD_S = 30


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LocalServer]:
    with running(tmp_path / "server.db") as server:
        take_in(server.state, copy.deepcopy(REQUEST))
        yield server


@pytest.fixture
def vendor(server: LocalServer) -> Vendor:
    return Vendor(f"{server.url}/vendor")


@pytest.fixture
def client(server: LocalServer) -> ConnectClient:
    return ConnectClient("ApiKey SU-1:test", f"{server.url}/public/v1", max_retries=0)


def changes(server: LocalServer) -> list[tuple[str, str, str]]:
    return [(entry["change"], entry["step"], entry["key"]) for entry in server.state.ledger()]


def test_the_same_key_gets_the_same_answer_and_has_one_effect(server: LocalServer, vendor: Vendor) -> None:
    first = vendor.create("customers", CUSTOMER, key="k1")
    assert vendor.create("customers", CUSTOMER, key="k1") == first
    assert changes(server) == [("effect", "customer", "k1")]


def test_another_key_makes_another_object(server: LocalServer, vendor: Vendor) -> None:
    first = vendor.create("customers", CUSTOMER, key="k1")
    assert vendor.create("customers", CUSTOMER, key="k2")["id"] != first["id"]
    assert len(changes(server)) == 2


def test_a_key_used_for_another_order_is_refused(server: LocalServer, vendor: Vendor) -> None:
    vendor.create("customers", CUSTOMER, key="k1")
    with pytest.raises(VendorRefused, match="was used for another order"):
        vendor.create("customers", {"name": "Somebody else"}, key="k1")


def test_twenty_callers_with_one_key_at_once_have_one_effect(server: LocalServer, vendor: Vendor) -> None:
    together = threading.Barrier(20)

    def create(_: int) -> str:
        together.wait(CHILD_S)
        return str(vendor.create("customers", CUSTOMER, key="k1")["id"])

    with ThreadPoolExecutor(20) as pool:
        assert len(set(pool.map(create, range(20)))) == 1
    assert changes(server) == [("effect", "customer", "k1")]


def test_a_change_without_a_key_is_refused(server: LocalServer) -> None:
    answer = requests.post(f"{server.url}/vendor/customers", json=CUSTOMER, timeout=5)
    assert (answer.status_code, answer.json()) == (400, {"reason": "send an Idempotency-Key header"})


def test_an_object_is_found_by_its_key_until_it_is_deleted(vendor: Vendor) -> None:
    made = vendor.create("customers", CUSTOMER, key="k1")
    assert vendor.find("customers", key="k1") == made
    assert vendor.find("customers", key="k2") is None
    vendor.delete("customers", made["id"], key="k1-undo")
    assert vendor.find("customers", key="k1") is None


def test_deleting_twice_is_one_undo(server: LocalServer, vendor: Vendor) -> None:
    made = vendor.create("customers", CUSTOMER, key="k1")
    vendor.delete("customers", made["id"], key="u1")
    vendor.delete("customers", made["id"], key="u1")
    assert changes(server) == [("effect", "customer", "k1"), ("undo", "customer", "u1")]


@pytest.mark.parametrize("object_id", ["C-99", "S-1", "nonsense"])
def test_deleting_what_never_was_is_refused(vendor: Vendor, object_id: str) -> None:
    vendor.create("customers", CUSTOMER, key="k1")
    with pytest.raises(VendorRefused, match="there is no customer"):
        vendor.delete("customers", object_id, key="u1")


def test_a_subscription_needs_a_customer_who_is_there(vendor: Vendor) -> None:
    customer = vendor.create("customers", CUSTOMER, key="k1")
    vendor.create("subscriptions", {"customer_id": customer["id"]}, key="k2")
    vendor.delete("customers", customer["id"], key="u1")
    with pytest.raises(VendorRefused, match=f"there is no customer '{customer['id']}'"):
        vendor.create("subscriptions", {"customer_id": customer["id"]}, key="k3")


def test_its_memory_outlives_its_restart(tmp_path: Path) -> None:
    with running(tmp_path / "server.db") as server:
        first = Vendor(f"{server.url}/vendor").create("customers", CUSTOMER, key="k1")
        server.state.set_fault(Fault("find_customer", FaultKind.ERROR_500))
    with running(tmp_path / "server.db") as server:
        vendor = Vendor(f"{server.url}/vendor")
        assert vendor.create("customers", CUSTOMER, key="k1") == first
        assert changes(server) == [("effect", "customer", "k1")]
        with pytest.raises(VendorUnavailable):
            vendor.find("customers", key="k1")


def test_the_ledger_is_read_over_http(server: LocalServer, vendor: Vendor) -> None:
    made = vendor.create("customers", CUSTOMER, key="k1")
    [entry] = requests.get(f"{server.url}/ledger", timeout=5).json()
    assert entry.pop("at").endswith("+00:00")
    assert entry == {
        "number": 1,
        "change": "effect",
        "step": "customer",
        "key": "k1",
        "object_id": made["id"],
    }


def test_no_answer_after_the_work_leaves_the_effect(server: LocalServer, vendor: Vendor) -> None:
    server.state.set_fault(Fault("create_customer", FaultKind.TIMEOUT_AFTER_WORK))
    with pytest.raises(VendorUnavailable, match="no usable answer"):
        vendor.create("customers", CUSTOMER, key="k1")
    assert changes(server) == [("effect", "customer", "k1")]
    assert vendor.create("customers", CUSTOMER, key="k1") == vendor.find("customers", key="k1")
    assert len(changes(server)) == 1


def test_a_client_gives_up_on_an_answer_that_takes_too_long(server: LocalServer) -> None:
    server.state.set_fault(Fault("find_customer", FaultKind.SLOW, delay_s=5))
    impatient = Vendor(f"{server.url}/vendor", "0.2")
    with pytest.raises(VendorUnavailable, match="Timeout"):
        impatient.find("customers", key="k1")


@pytest.mark.parametrize("status", [408, 429, 503])
def test_an_answer_that_asks_for_patience_counts_as_unavailable(
    vendor: Vendor, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    answer = requests.Response()
    answer.status_code = status
    monkeypatch.setattr(requests, "request", lambda *_, **__: answer)
    with pytest.raises(VendorUnavailable, match=f"HTTP {status}"):
        vendor.find("customers", key="k1")


def test_an_error_500_before_the_work_leaves_nothing(server: LocalServer, vendor: Vendor) -> None:
    server.state.set_fault(Fault("create_customer", FaultKind.ERROR_500, times=2))
    for _ in range(2):
        with pytest.raises(VendorUnavailable, match="HTTP 500"):
            vendor.create("customers", CUSTOMER, key="k1")
    assert changes(server) == []
    vendor.create("customers", CUSTOMER, key="k1")


def test_an_error_500_after_the_work_leaves_the_effect(server: LocalServer, vendor: Vendor) -> None:
    server.state.set_fault(Fault("create_customer", FaultKind.ERROR_500_AFTER_WORK))
    with pytest.raises(VendorUnavailable, match="HTTP 500"):
        vendor.create("customers", CUSTOMER, key="k1")
    assert changes(server) == [("effect", "customer", "k1")]


def test_a_refusal_gives_its_reason_and_leaves_nothing(server: LocalServer, vendor: Vendor) -> None:
    server.state.set_fault(Fault("create_customer", FaultKind.REFUSE, reason="credit limit reached"))
    with pytest.raises(VendorRefused, match="credit limit reached"):
        vendor.create("customers", CUSTOMER, key="k1")
    assert changes(server) == []


def test_what_was_made_is_not_refused_afterwards(server: LocalServer, vendor: Vendor) -> None:
    made = vendor.create("customers", CUSTOMER, key="k1")
    server.state.set_fault(Fault("create_customer", FaultKind.REFUSE))
    assert vendor.create("customers", CUSTOMER, key="k1") == made


def test_a_slow_call_is_answered_in_the_end(server: LocalServer, vendor: Vendor) -> None:
    server.state.set_fault(Fault("create_customer", FaultKind.SLOW, delay_s=0.05))
    assert vendor.create("customers", CUSTOMER, key="k1")["id"] == "C-1"


def test_a_fault_is_set_and_read_over_http(server: LocalServer, vendor: Vendor) -> None:
    fault: dict[str, Any] = {"kind": "refuse", "times": 2, "reason": "no"}
    assert requests.put(f"{server.url}/faults/create_customer", json=fault, timeout=5).status_code == 200
    with pytest.raises(VendorRefused):
        vendor.create("customers", CUSTOMER, key="k1")
    [left] = requests.get(f"{server.url}/faults", timeout=5).json()
    assert left == {
        "operation": "create_customer",
        "kind": "refuse",
        "times": 1,
        "delay_s": 0.0,
        "reason": "no",
    }


@pytest.mark.parametrize(
    ("operation", "body", "reason"),
    [
        ("nonsense", {"kind": "refuse"}, "there is no operation 'nonsense'"),
        ("create_customer", {}, "there is no fault None"),
        ("create_customer", {"kind": "refuse", "times": -1}, "times is -1"),
        ("create_customer", {"kind": "slow", "delay_s": 3600}, "delay_s is 3600.0"),
        ("create_customer", {"kind": "slow", "delay_s": "long"}, "times and delay_s are numbers"),
        ("create_customer", {"kind": "slow", "seconds": 1}, "unknown keys"),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(
    server: LocalServer, operation: str, body: dict[str, Any], reason: str
) -> None:
    answer = requests.put(f"{server.url}/faults/{operation}", json=body, timeout=5)
    assert answer.status_code == 400
    assert reason in answer.json()["reason"]


def test_a_fault_is_read_from_the_command_line() -> None:
    assert Fault.from_text("create_customer=refuse") == Fault("create_customer", FaultKind.REFUSE)
    assert Fault.from_text("approve_request=slow:3:0.5") == Fault("approve_request", FaultKind.SLOW, 3, 0.5)
    with pytest.raises(BadFault, match="write operation=kind"):
        Fault.from_text("create_customer")


def test_connect_gives_the_request_that_it_took_in(client: ConnectClient) -> None:
    assert client.requests[REQUEST_ID].get() == REQUEST


def test_connect_writes_the_values_that_are_named_and_leaves_the_others(
    server: LocalServer, client: ConnectClient
) -> None:
    client.requests[REQUEST_ID].update(FILLED)
    client.requests[REQUEST_ID].update(FILLED)
    params = {param["id"]: param["value"] for param in client.requests[REQUEST_ID].get()["asset"]["params"]}
    assert params == {"admin_email": "admin@customer.example", "customer_id": "C-1", "subscription_id": "S-2"}
    assert changes(server) == [("effect", "parameters", REQUEST_ID)]


def test_connect_writing_the_first_values_back_counts_as_the_undo(server: LocalServer, client: ConnectClient) -> None:
    client.requests[REQUEST_ID].update(FILLED)
    empty = [{"id": "customer_id", "value": ""}, {"id": "subscription_id", "value": ""}]
    client.requests[REQUEST_ID].update({"asset": {"params": empty}})
    assert [change for change, _, _ in changes(server)] == ["effect", "undo"]


def test_connect_approves_once_and_says_req_003_the_second_time(server: LocalServer, client: ConnectClient) -> None:
    client.requests[REQUEST_ID].update(FILLED)
    approved = client.requests[REQUEST_ID]("approve").post({"template_id": "TL-1"})
    assert (approved["status"], approved["asset"]["status"]) == ("approved", "active")
    with pytest.raises(ClientError) as refused:
        client.requests[REQUEST_ID]("approve").post({"template_id": "TL-1"})
    assert (refused.value.status_code, refused.value.error_code) == (400, "REQ_003")
    assert changes(server)[1:] == [("effect", "approval", REQUEST_ID)]


def test_connect_approves_nothing_that_lacks_required_parameters(client: ConnectClient) -> None:
    with pytest.raises(ClientError, match="customer_id, subscription_id"):
        client.requests[REQUEST_ID]("approve").post({"template_id": "TL-1"})


def test_connect_fails_a_request_only_with_a_reason(client: ConnectClient) -> None:
    with pytest.raises(ClientError, match="reason: This field is required"):
        client.requests[REQUEST_ID]("fail").post({})
    failed = client.requests[REQUEST_ID]("fail").post({"reason": "out of stock"})
    assert (failed["status"], failed["reason"]) == ("failed", "out of stock")


def test_connect_updates_a_request_in_inquiry_but_does_not_approve_it(client: ConnectClient) -> None:
    assert client.requests[REQUEST_ID]("inquire").post({"template_id": "TL-2"})["status"] == "inquiring"
    client.requests[REQUEST_ID].update(FILLED)
    with pytest.raises(ClientError, match="REQ_003"):
        client.requests[REQUEST_ID]("approve").post({"template_id": "TL-1"})


def test_connect_refuses_an_approval_when_told_to(server: LocalServer, client: ConnectClient) -> None:
    client.requests[REQUEST_ID].update(FILLED)
    server.state.set_fault(Fault("approve_request", FaultKind.REFUSE, reason="the contract has ended"))
    with pytest.raises(ClientError, match="VAL_001 - the contract has ended"):
        client.requests[REQUEST_ID]("approve").post({"template_id": "TL-1"})
    assert client.requests[REQUEST_ID].get()["status"] == "pending"


def test_connect_knows_only_its_own_requests_and_parameters(client: ConnectClient) -> None:
    with pytest.raises(ClientError, match="404 Not Found: NFND_000"):
        client.requests["PR-0"].get()
    with pytest.raises(ClientError, match="Unknown parameters: colour"):
        client.requests[REQUEST_ID].update({"asset": {"params": [{"id": "colour", "value": "red"}]}})
    with pytest.raises(ClientError, match="each with id and value"):
        client.requests[REQUEST_ID].update({"asset": ["red"]})


def test_connect_takes_a_new_request_in_and_never_twice(client: ConnectClient) -> None:
    second = {**REQUEST, "id": "PR-2", "status": "draft"}
    assert client.requests.create(second)["status"] == "pending"
    with pytest.raises(ClientError, match="already exists"):
        client.requests.create(second)
    with pytest.raises(ClientError, match=r"send a whole request, with id and asset\.params"):
        client.requests.create({"id": "PR-3"})


def test_connect_wants_an_api_key(server: LocalServer) -> None:
    stranger = ConnectClient("nobody", f"{server.url}/public/v1", max_retries=0)
    with pytest.raises(ClientError, match="AUTH_001"):
        stranger.requests[REQUEST_ID].get()


@pytest.mark.parametrize("body", [b"[1]", b"{", b"x" * 1_000_001])
def test_a_body_that_is_no_small_json_object_is_refused(server: LocalServer, body: bytes) -> None:
    answer = requests.post(f"{server.url}/vendor/customers", data=body, timeout=5)
    assert answer.status_code == 400
    assert "send a JSON object" in answer.json()["reason"]


def test_an_unknown_path_is_not_found(server: LocalServer) -> None:
    assert requests.get(f"{server.url}/vendor/nothing", timeout=5).status_code == 404


def test_run_as_a_module_it_tells_its_address_and_stops_when_its_input_ends(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "examples.purchase.server", "--port", "0", "--until-eof"]
    command += [
        "--state",
        str(tmp_path / "server.db"),
        "--fault",
        "create_customer=refuse",
        "--lifetime-s",
        "60",
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        url = child.stdout.readline().strip()
        with pytest.raises(VendorRefused):
            Vendor(f"{url}/vendor").create("customers", CUSTOMER, key="k1")
        client = ConnectClient("ApiKey SU-1:test", f"{url}/public/v1", max_retries=0)
        assert client.requests[REQUEST_ID].get()["status"] == "pending"
        child.stdin.close()
        assert child.wait(CHILD_S) == 0


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        ("create_customer=explode", "there is no fault 'explode'"),
        ("explode_customer=refuse", "there is no operation 'explode_customer'"),
    ],
)
def test_a_fault_mistyped_on_the_command_line_is_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], fault: str, problem: str
) -> None:
    assert main(["--port", "0", "--state", str(tmp_path / "server.db"), "--fault", fault]) == 2
    assert problem in capsys.readouterr().err
