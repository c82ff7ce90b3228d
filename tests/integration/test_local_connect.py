"""The local Connect answers, delivers and remembers as Connect does; its runner is played, and so is its extension."""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from command_line import wait_for
from connect.client import ClientError, ConnectClient
from connect_stub import ASSET_REQUEST, TIER_REQUEST
from runner_puppet import EVENTS, HANGS_ONCE, Puppet, install
from websockets.exceptions import InvalidStatus

from saga_engine.connect import AssetRequest, LocalConnect, approve, update_parameters
from saga_engine.connect.local_errors import (
    BadExtension,
    BadFault,
    BadFolder,
    LocalConnectError,
    MissingPackage,
    NotConnected,
    PortTaken,
    RunnerFailed,
    RunnerMissing,
    TaskGivenUp,
    TaskOverdue,
    TaskRefused,
)
from saga_engine.connect.local_faults import Fault, FaultKind
from saga_engine.connect.local_http import LocalServer
from saga_engine.connect.local_sockets import WAITING_MAX
from saga_engine.connect.local_state import LocalState
from saga_engine.connect.local_tasks import DELIVERIES_MAX, RETRIES_MAX

WAIT_S = 20.0
FILLED = {"asset": {"params": [{"id": "domain", "value": "example.com"}]}}


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[LocalConnect]:
    with LocalConnect(tmp_path / "connect", variables={"POLL_S": "5"}) as local:
        yield local


@pytest.fixture
def client(connect: LocalConnect) -> ConnectClient:
    for request in (ASSET_REQUEST, TIER_REQUEST):
        connect.add(request)
    return connect.client()


def purchase(number: int = 1, **fields: Any) -> dict[str, Any]:
    return {**copy.deepcopy(ASSET_REQUEST), "id": f"PR-{number}", **fields}


def puppet(connect: LocalConnect, kind: str = "background", **options: Any) -> Puppet:
    return Puppet(connect.server_address, kind, **options)


def changes(connect: LocalConnect) -> list[tuple[str, str, str]]:
    return [(entry["change"], entry["step"], entry["object_id"]) for entry in connect.ledger()]


# --- the API ---


def test_a_request_is_given_as_it_came_in(client: ConnectClient) -> None:
    assert client.requests["PR-1"].get() == ASSET_REQUEST
    assert client("tier").config_requests["TCR-1"].get() == TIER_REQUEST


@pytest.mark.parametrize(
    ("collection", "body"),
    [("requests", FILLED), ("tier", {"params": [{"id": "reseller_id", "value": "R-1"}]})],
)
def test_parameters_are_written_once_and_writing_them_back_is_an_undo(
    connect: LocalConnect, client: ConnectClient, collection: str, body: dict[str, Any]
) -> None:
    one = client.requests["PR-1"] if collection == "requests" else client("tier").config_requests["TCR-1"]
    params = body["asset"]["params"] if "asset" in body else body["params"]
    for _ in range(2):
        updated = one.update({**body, "note": "filled"})
    holder = updated.get("asset", updated)
    assert (params[0]["value"] in str(holder["params"]), updated["note"]) == (True, "filled")
    params[0]["value"], value = "", params[0]["value"]
    one.update(body)
    params[0]["value"] = value
    assert [change for change, _, _ in changes(connect)] == ["effect", "undo"]


def test_the_request_helpers_and_both_clients_work_with_it(connect: LocalConnect, client: ConnectClient) -> None:
    order = AssetRequest(client.requests["PR-1"].get())
    update_parameters(client, order, {"domain": "example.com"})
    approve(client, order, template_id="TL-1")
    assert changes(connect) == [("effect", "parameters", "PR-1"), ("effect", "approval", "PR-1")]
    assert connect.get("PR-1")["asset"]["status"] == "active"


def test_a_client_trusts_it_by_the_environment_of_the_runner(
    connect: LocalConnect, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect.add(ASSET_REQUEST)
    for name, value in connect.runner_environment().items():
        monkeypatch.setenv(name, value)
    assert ConnectClient(connect.api_key, connect.api_url, max_retries=0).requests["PR-1"].get()["id"] == "PR-1"


@pytest.mark.parametrize("how", ["approve", "fail", "inquire"])
def test_a_request_is_approved_failed_or_inquired_once(connect: LocalConnect, client: ConnectClient, how: str) -> None:
    client.requests["PR-1"].update(FILLED)
    status = {"approve": "approved", "fail": "failed", "inquire": "inquiring"}[how]
    assert client.requests["PR-1"](how).post({"reason": "why not"})["status"] == status
    with pytest.raises(ClientError, match=f"REQ_003 - A request in status {status} cannot become {status}"):
        client.requests["PR-1"](how).post({"reason": "why not"})
    noun = {"approve": "approval", "fail": "failure", "inquire": "inquiry"}[how]
    assert changes(connect)[1:] == [("effect", noun, "PR-1")]


def test_a_tier_configuration_request_is_approved_failed_and_inquired(
    connect: LocalConnect, client: ConnectClient
) -> None:
    api = client("tier").config_requests
    assert api["TCR-1"]("inquire").post({})["status"] == "inquiring"
    connect.update_request("TCR-1", status="pending")
    approved = api["TCR-1"]("approve").post({"template_id": "TL-1"})
    assert (approved["status"], approved["configuration"]["status"]) == ("approved", "active")
    connect.add({**TIER_REQUEST, "id": "TCR-2"})
    assert api["TCR-2"]("fail").post({"reason": "no"})["reason"] == "no"


def test_what_is_over_is_written_no_more(client: ConnectClient) -> None:
    client.requests["PR-1"]("fail").post({"reason": "no"})
    with pytest.raises(ClientError, match="A request in status failed cannot be updated"):
        client.requests["PR-1"].update(FILLED)


def test_nothing_is_approved_without_its_required_parameters(connect: LocalConnect, client: ConnectClient) -> None:
    with pytest.raises(ClientError, match="Required parameters without a value: domain"):
        client.requests["PR-1"]("approve").post({})
    assert changes(connect) == []


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (lambda api: api.requests["PR-9"].get(), "404 Not Found: NFND_000"),
        (lambda api: api.requests["PR-9"]("approve").post({}), "404 Not Found: NFND_000"),
        (lambda api: api.requests["PR-1"]("fail").post({}), "reason: This field is required"),
        (lambda api: api.requests["PR-1"].update({"asset": {"params": [{"id": "colour"}]}}), "Unknown.*: colour"),
        (lambda api: api.requests["PR-1"].update({"asset": {}}), "send asset.params, each with id and value"),
        (lambda api: api.requests["PR-1"].update({"asset": {"params": ["x"]}}), "send asset.params, each with"),
        (lambda api: api("tier").config_requests["TCR-1"].update({"params": [{}]}), "send params, each with"),
        (lambda api: api.requests.create({**ASSET_REQUEST}), "Request PR-1 already exists"),
        (lambda api: api.requests.create({**ASSET_REQUEST, "id": 3}), "with id and asset.params"),
        (lambda api: api.requests.create({"id": "PR-2", "asset": {"params": "x"}}), "with id and asset.params"),
        (lambda api: api("tier").config_requests.create({"id": "T", "params": []}), "id and params and configuration"),
    ],
)
def test_what_connect_refuses_is_refused_and_changes_nothing(
    connect: LocalConnect, client: ConnectClient, call: Callable[[Any], Any], problem: str
) -> None:
    with pytest.raises(ClientError, match=problem):
        call(client)
    assert changes(connect) == []


def test_a_caller_without_a_key_is_nobody(connect: LocalConnect, client: ConnectClient) -> None:
    paths = ("requests", "requests/PR-1", "tier/config-requests", "devops/services/S/environments/E")
    for path in paths:
        answer = requests.get(f"{connect.api_url}/{path}", verify=str(connect.ca_file), timeout=WAIT_S)
        assert (answer.status_code, answer.json()["error_code"]) == (401, "AUTH_001")


# --- collections ---


@pytest.mark.parametrize(
    ("query", "ids", "content_range"),
    [
        ("", ["PR-1", "PR-2", "PR-3"], "items 0-2/3"),
        ("eq(status,approved)", ["PR-2"], "items 0-0/1"),
        ("and(eq(id,PR-3),in(status,(pending,inquiring)))", ["PR-3"], "items 0-0/1"),
        ("and(eq(id,PR-2),in(status,(pending,inquiring)))", [], "items 0-0/0"),
        ("in(status,(pending))&limit=1&offset=1", ["PR-3"], "items 1-1/2"),
        ("limit=0", [], "items 0-0/3"),
        ("offset=7", [], "items 7-7/3"),
        ("eq(asset.id,AS-1)&limit=2", ["PR-1", "PR-2"], "items 0-1/3"),
        ("eq%28status%2Capproved%29", ["PR-2"], "items 0-0/1"),
    ],
)
def test_a_collection_is_filtered_and_tells_how_many_there_are(
    connect: LocalConnect, query: str, ids: list[str], content_range: str
) -> None:
    for number, status in enumerate(("pending", "approved", "pending"), 1):
        connect.add(purchase(number, status=status))
    answer = requests.get(
        f"{connect.api_url}/requests?{query}",
        headers={"Authorization": connect.api_key},
        verify=str(connect.ca_file),
        timeout=WAIT_S,
    )
    assert [request["id"] for request in answer.json()] == ids
    assert answer.headers["Content-Range"] == content_range


def test_connects_own_client_filters_counts_and_pages(connect: LocalConnect) -> None:
    for number in range(1, 6):
        connect.add(purchase(number, status="approved" if number % 2 else "pending"))
    approved = connect.client().requests.filter(status="approved")
    assert approved.count() == 3
    assert [request["id"] for request in approved.limit(2)] == ["PR-1", "PR-3", "PR-5"]
    assert approved.first()["id"] == "PR-1"


def test_a_filter_that_cannot_be_read_is_told_of(client: ConnectClient) -> None:
    with pytest.raises(ClientError, match="does not know the filter 'like'"):
        client.requests.filter("like(id,PR*)").first()


# --- faults ---

BEFORE, AFTER = [], [("effect", "approval", "PR-1")]


@pytest.mark.parametrize(
    ("kind", "error", "done"),
    [
        (FaultKind.ERROR_401, "401 Unauthorized: AUTH_001", BEFORE),
        (FaultKind.ERROR_429, "429 Too Many Requests: THR_001", BEFORE),
        (FaultKind.ERROR_500, "500", BEFORE),
        (FaultKind.REFUSE, "400 Bad Request: VAL_001 - the order is refused", BEFORE),
        (FaultKind.ERROR_500_AFTER_WORK, "500", AFTER),
        (FaultKind.INVALID_JSON, "200 Ok", AFTER),
        (FaultKind.TIMEOUT_AFTER_WORK, "Unexpected error", AFTER),
    ],
)
def test_a_fault_goes_wrong_before_or_after_the_work_as_often_as_it_says(
    connect: LocalConnect, client: ConnectClient, kind: FaultKind, error: str, done: list[tuple[str, str, str]]
) -> None:
    connect.update_request("PR-1", asset={**ASSET_REQUEST["asset"], "params": []})
    connect.set_fault(Fault("approve_request", kind))
    with pytest.raises((ClientError, ValueError), match=error):
        client.requests["PR-1"]("approve").post({})
    assert changes(connect) == done
    if not done:
        assert client.requests["PR-1"]("approve").post({})["status"] == "approved"


def test_a_slow_call_is_answered_in_the_end(connect: LocalConnect, client: ConnectClient) -> None:
    connect.set_fault(Fault("get_request", FaultKind.SLOW, delay_s=0.05))
    assert client.requests["PR-1"].get()["id"] == "PR-1"


def test_retry_after_says_how_long_to_wait(connect: LocalConnect, client: ConnectClient) -> None:
    connect.set_fault(Fault("get_request", FaultKind.ERROR_429, delay_s=6.5))
    with pytest.raises(ClientError) as refused:
        client.requests["PR-1"].get()
    assert client.response is not None
    assert (refused.value.status_code, client.response.headers["Retry-After"]) == (429, "7")


@pytest.mark.parametrize(
    ("operation", "call"),
    [
        ("create_request", lambda api: api.requests.create(purchase(2))),
        ("list_requests", lambda api: api.requests.all().first()),
        ("get_request", lambda api: api.requests["PR-1"].get()),
        ("update_request", lambda api: api.requests["PR-1"].update(FILLED)),
        ("fail_request", lambda api: api.requests["PR-1"]("fail").post({"reason": "no"})),
        ("inquire_tier_config_request", lambda api: api("tier").config_requests["TCR-1"]("inquire").post({})),
    ],
)
def test_every_operation_can_be_refused(
    connect: LocalConnect, client: ConnectClient, operation: str, call: Callable[[Any], Any]
) -> None:
    connect.set_fault(Fault(operation, FaultKind.REFUSE, reason="not today"))
    with pytest.raises(ClientError, match="VAL_001 - not today"):
        call(client)
    assert changes(connect) == []
    call(client)


def test_a_fault_of_no_operation_is_refused_with_those_that_there_are(connect: LocalConnect) -> None:
    with pytest.raises(BadFault, match=r"there is no operation 'aprove'; use one of approve_request, .*update_tier"):
        connect.set_fault(Fault("aprove", FaultKind.REFUSE))


def test_waiting_faults_do_not_keep_it_from_closing(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        with LocalConnect(tmp_path) as connect:
            connect.add(ASSET_REQUEST)
            connect.set_fault(Fault("get_request", FaultKind.TIMEOUT_AFTER_WORK, delay_s=60))
            waiting = pool.submit(connect.client().requests["PR-1"].get)
            wait_for(lambda: not connect._server.state.faults())
        assert waiting.exception(WAIT_S) is not None


def test_every_call_is_written_down_with_its_task_and_its_answer(connect: LocalConnect, client: ConnectClient) -> None:
    client.default_headers["EAAS_TASK_ID"] = "TQ-7"
    connect.set_fault(Fault("get_request", FaultKind.TIMEOUT_AFTER_WORK))
    with pytest.raises((ClientError, OSError)):
        client.requests["PR-1"].get()
    client.requests.all().count()
    told = [(call["operation"], call["object_id"], call["task_id"], call["status"]) for call in connect.calls()]
    assert told == [("get_request", "PR-1", "TQ-7", None), ("list_requests", "", "TQ-7", 200)]
    assert [call["number"] for call in connect.calls("list_requests")] == [2]


# --- bodies ---


def post(connect: LocalConnect, body: bytes, **headers: str) -> requests.Response:
    return requests.post(
        f"{connect.api_url}/requests",
        data=body,
        headers={"Authorization": connect.api_key, **headers},
        verify=str(connect.ca_file),
        timeout=WAIT_S,
    )


@pytest.mark.parametrize("body", [b"[1]", b"{", b'"text"', b"\xff\xfe"])
def test_a_body_that_is_no_json_object_is_refused(connect: LocalConnect, body: bytes) -> None:
    answer = post(connect, body)
    assert (answer.status_code, answer.json()) == (400, {"reason": "send a JSON object of at most 4000000 bytes"})


@pytest.mark.parametrize("length", ["4000001", "9" * 5000, "-1", "many"])
def test_a_body_without_a_length_that_can_be_meant_is_refused(connect: LocalConnect, length: str) -> None:
    assert post(connect, b"", **{"Content-Length": length}).status_code == 400


def test_there_is_nothing_anywhere_else(connect: LocalConnect) -> None:
    host = connect.api_url.removesuffix("/public/v1")
    answer = requests.get(f"{host}/nowhere", verify=str(connect.ca_file), timeout=WAIT_S)
    assert (answer.status_code, answer.json()) == (404, {"reason": "there is no GET /nowhere"})


def test_a_caller_who_does_not_trust_it_does_no_harm(connect: LocalConnect, client: ConnectClient) -> None:
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(connect.api_url, timeout=WAIT_S)
    assert client.requests["PR-1"].get()["id"] == "PR-1"


# --- its state, its folder, its port ---


def test_what_it_knows_outlives_it(tmp_path: Path) -> None:
    with LocalConnect(tmp_path) as connect:
        connect.push(ASSET_REQUEST)
        connect.client().requests["PR-1"]("fail").post({"reason": "no"})
    with LocalConnect(tmp_path) as connect:
        assert (connect.get("PR-1")["status"], changes(connect)) == ("failed", [("effect", "failure", "PR-1")])
        assert connect.push(ASSET_REQUEST).task_id == "TQ-2"
        assert connect.get("PR-1")["status"] == "failed"  # one that is known stays as it is
    with LocalConnect(tmp_path, is_fresh=True) as connect:
        assert connect.ledger() == []


def test_without_a_folder_it_leaves_nothing_behind() -> None:
    with LocalConnect() as connect:
        folder = connect.folder
        connect.add(ASSET_REQUEST)
        assert (folder / "state.db").exists()
    assert not folder.exists()


def test_two_of_them_do_not_share_a_folder(connect: LocalConnect) -> None:
    with pytest.raises(BadFolder, match="another local Connect runs in"), LocalConnect(connect.folder):
        pytest.fail("it began")
    connect.add(ASSET_REQUEST)


def test_a_port_that_is_in_use_is_told_of(connect: LocalConnect, tmp_path: Path) -> None:
    port = int(connect.api_url.split(":")[2].split("/")[0])
    with pytest.raises(PortTaken, match=f"port {port} of 127.0.0.1 cannot be had: .*in use: give another one, or 0"):
        LocalServer(LocalState(tmp_path / "state.db"), (), port)
    with pytest.raises(PortTaken, match="port 65536"):
        LocalServer(LocalState(tmp_path / "state.db"), (), 65536)


def test_a_request_that_is_not_there_is_named(connect: LocalConnect) -> None:
    for call in (lambda: connect.get("PR-9"), lambda: connect.update_request("PR-9", status="pending")):
        with pytest.raises(LocalConnectError, match="has no request 'PR-9': push or add it first"):
            call()


@pytest.mark.parametrize("package", ["trustme", "websockets.sync.server"])
def test_a_package_that_is_missing_is_named_with_the_extra_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackage, match=r"pip install 'saga-engine\[local\]'"), LocalConnect(tmp_path):
        pytest.fail("it began")
    monkeypatch.undo()
    with LocalConnect(tmp_path):  # nothing of the first try is left in the way
        pass


# --- tasks ---


def test_a_request_is_taken_in_delivered_and_answered(connect: LocalConnect) -> None:
    with puppet(connect) as worker:
        task = connect.push(ASSET_REQUEST)
        delivered = worker.serve()
        assert task.wait(WAIT_S).result == "success"
    assert worker.setup["variables"] == [{"name": "POLL_S", "value": "5", "secure": False}]
    assert delivered["options"] == {"task_id": "TQ-1", "task_category": "background"}
    assert delivered["input"]["event_type"] == "asset_purchase_request_processing"
    assert delivered["input"]["object_id"] == "PR-1"
    assert (task.deliveries, [result.runtime_s for result in task.results()]) == (1, [0.25])


def test_what_is_pushed_before_a_worker_is_there_is_delivered_in_order_when_it_comes(connect: LocalConnect) -> None:
    for number in (1, 2, 3):
        connect.push(purchase(number))
    with puppet(connect) as worker:
        assert [worker.serve()["input"]["object_id"] for _ in range(3)] == ["PR-1", "PR-2", "PR-3"]


def test_a_task_is_delivered_as_often_as_asked_for_at_once(connect: LocalConnect) -> None:
    with puppet(connect) as worker:
        task = connect.push(ASSET_REQUEST, copies=2)
        first, second = worker.take(), worker.take()
        assert first == second
        worker.answer(first, "reschedule", countdown=30)
        worker.answer(second)
        assert [result.result for result in task.wait_results(2, WAIT_S)] == ["reschedule", "success"]
        assert (task.deliveries, task.results()[0].countdown_s) == (2, 30)
        with pytest.raises(TaskRefused, match="copies is 0; give 1 or more"):
            task.deliver(0)


def test_a_task_is_delivered_again_only_by_hand_unless_asked_for(connect: LocalConnect) -> None:
    with puppet(connect) as worker:
        task = connect.push(ASSET_REQUEST)
        worker.serve("reschedule", countdown=0)
        task.wait_results(1, WAIT_S)
        assert not connect._tasks._timers
        task.deliver()
        assert worker.serve()["options"]["task_id"] == "TQ-1"
        assert task.wait(WAIT_S).result == "success"


@pytest.mark.parametrize(("within_s", "countdown_s"), [(0.0, 3600), (math.inf, 0)])
@pytest.mark.parametrize("answer", ["reschedule", "retry"])
def test_a_task_is_delivered_again_by_itself_until_it_is_over(
    connect: LocalConnect, within_s: float, countdown_s: int, answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saga_engine.connect.local_tasks.RETRY_COUNTDOWN_S", countdown_s)
    with puppet(connect) as worker:
        task = connect.push(ASSET_REQUEST, redeliver_within_s=within_s)
        for _ in range(3):
            worker.serve(answer, countdown=countdown_s)
        worker.serve("fail", message="no credit")
        assert (task.wait(WAIT_S).message, task.deliveries) == ("no credit", 4)
        assert not connect._tasks._timers


def test_a_task_that_always_raises_an_error_is_given_up_with_the_error(connect: LocalConnect) -> None:
    with puppet(connect) as worker:
        task = connect.push(ASSET_REQUEST, redeliver_within_s=0)
        worker.serve("reschedule", countdown=0)
        for _ in range(RETRIES_MAX):
            worker.serve("retry", message="Traceback (most recent call last):\n  ...\nKeyError: 'SEATS'\n")
        with pytest.raises(TaskGivenUp) as given_up:
            task.wait(WAIT_S)
        assert str(given_up.value) == (
            "PR-1 (asset_purchase_request_processing, TQ-1) is given up: it raised an error 10 times in a row; "
            "1 x reschedule, 10 x retry came back of 11 deliveries; at last: KeyError: 'SEATS'"
        )
        task.deliver()  # by hand it still goes
        worker.serve()
        assert task.wait(WAIT_S).result == "success"


def test_a_task_that_never_ends_is_given_up(connect: LocalConnect) -> None:
    with puppet(connect) as worker:
        task = connect.push(ASSET_REQUEST, redeliver_within_s=0)
        worker.take()
        task._deliveries = DELIVERIES_MAX
        worker.answer({"options": {"task_id": task.task_id}}, "reschedule", countdown=0)
        with pytest.raises(TaskGivenUp, match="is given up; 1 x reschedule came back of 1000 deliveries"):
            task.wait(WAIT_S)
        assert worker.has_nothing()


def test_a_task_that_takes_too_long_is_told_of_with_what_came(connect: LocalConnect) -> None:
    with puppet(connect) as worker:
        task = connect.push(ASSET_REQUEST)
        with pytest.raises(TaskOverdue, match=r"PR-1 .* is not over after 0 s; nothing came back of 1 delivery$"):
            task.wait(0)
        worker.serve("reschedule", countdown=3)
        task.wait_results(1, WAIT_S)
        with pytest.raises(TaskOverdue, match=r"not over after 0.01 s; 1 x reschedule came back of 1 delivery$"):
            task.wait_results(2, 0.01)


@pytest.mark.parametrize("is_late", [False, True])
def test_an_event_that_the_extension_does_not_handle_is_refused(connect: LocalConnect, is_late: bool) -> None:
    with puppet(connect, events=() if is_late else EVENTS) as _:
        refused = r"no handler for asset_cancel_request_processing; it has: (none|asset_purchase.*)"
        wait_for(lambda: connect._tasks._subscriptions is not None)
        with pytest.raises(TaskRefused, match=refused):
            connect.push(purchase(type="cancel"))


def test_an_event_that_turns_out_not_to_be_handled_ends_the_wait(connect: LocalConnect) -> None:
    task = connect.push(purchase(type="cancel"))
    with puppet(connect), pytest.raises(TaskRefused, match="no handler for asset_cancel_request_processing"):
        task.wait(WAIT_S)


@pytest.mark.parametrize(
    ("request_", "event", "problem"),
    [
        ({}, None, "needs an id and a type"),
        (ASSET_REQUEST, "listing_new_request_processing", "asset and tier configuration requests only"),
        ({"id": "PR-1", "type": "purchase", "asset": {}}, None, "PR-1 cannot be delivered: send a whole request"),
        ({"asset": {"params": []}}, "asset_purchase_request_processing", "the request cannot be delivered: send a"),
        (ASSET_REQUEST, "scheduled_execution", r"use schedule\(\)"),
    ],
)
def test_what_cannot_be_delivered_is_refused(
    connect: LocalConnect, request_: dict[str, Any], event: str | None, problem: str
) -> None:
    with pytest.raises(TaskRefused, match=problem):
        connect.push(request_, event)
    assert connect._tasks._tasks == {}


def test_an_interactive_event_gets_the_request_itself_and_gives_what_was_answered(connect: LocalConnect) -> None:
    with puppet(connect, "interactive") as worker:
        task = connect.push(ASSET_REQUEST, "asset_purchase_request_validation")
        delivered = worker.serve(data={"http_status": 200, "body": {"asset": {}}})
        assert task.wait(WAIT_S).data == {"http_status": 200, "body": {"asset": {}}}
    assert delivered["input"]["data"] == ASSET_REQUEST
    with pytest.raises(LocalConnectError, match="no request 'PR-1'"):
        connect.get("PR-1")


def test_a_schedule_names_its_method_to_whoever_asks(connect: LocalConnect) -> None:
    with puppet(connect) as worker:
        task = connect.schedule("resume_sagas", {"limit": 3})
        delivered = worker.serve()
        assert task.wait(WAIT_S).result == "success"
    assert delivered["options"]["task_category"] == "scheduled"
    schedule = connect.client()("devops").services["S"].environments["E"].schedules[task.object_id].get()
    assert (schedule["method"], schedule["parameter"]) == ("resume_sagas", {"limit": 3})


def test_a_tier_configuration_request_is_delivered_with_its_own_event(connect: LocalConnect) -> None:
    with puppet(connect) as worker:
        task = connect.push(TIER_REQUEST)
        assert worker.serve()["input"]["event_type"] == "tier_config_setup_request_processing"
        assert task.wait(WAIT_S).result == "success"


def test_the_observer_is_told_of_a_result_before_whoever_waits_for_it(tmp_path: Path) -> None:
    told: list[str] = []
    with LocalConnect(tmp_path, observer=lambda _, result: told.append(result.result if result else "delivered")) as it:
        task = it.push(ASSET_REQUEST)
        with puppet(it) as worker:
            worker.serve("skip", message="not ours")
            task.wait(WAIT_S)
            assert told == ["delivered", "skip"]


def test_a_request_to_the_web_application_gets_its_answer(connect: LocalConnect) -> None:
    with puppet(connect, "webapp") as worker, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(connect.browse, "POST", "/api/orders?x=1", headers={"X-Y": "z"}, body=b"\x00body")
        task = worker.take()
        assert task is not None
        sent = task["request"]
        assert (sent["method"], sent["url"], sent["headers"]) == ("POST", "/api/orders?x=1", {"X-Y": "z"})
        answer = {"status": 201, "headers": {"Content-Type": "text/plain"}, "content": sent["content"]}
        worker.send("web_task", {"options": task["options"], "response": answer})
        answered = asked.result(WAIT_S)
    assert (answered.status, answered.headers, answered.body) == (201, {"content-type": "text/plain"}, b"\x00body")


def test_a_web_application_that_gives_no_answer_is_told_of(connect: LocalConnect) -> None:
    with pytest.raises(TaskOverdue, match=r"GET /api: the extension's web application gave no answer in 0.01 s"):
        connect.browse("GET", "/api", timeout_s=0.01)


# --- connections ---


def test_a_dropped_connection_loses_nothing_the_result_comes_over_the_next_one(connect: LocalConnect) -> None:
    with puppet(connect) as worker:
        task = connect.push(ASSET_REQUEST)
        delivered = worker.take()
        connect.drop_connection()
        assert worker.take() is None
    with pytest.raises(NotConnected, match="no background worker is connected"):
        connect.drop_connection()
    with puppet(connect) as worker:
        connect.wait_connected("background", WAIT_S)
        worker.answer(delivered)
        assert (task.wait(WAIT_S).result, worker.has_nothing()) == ("success", True)


def test_a_worker_that_does_not_come_is_told_of(connect: LocalConnect) -> None:
    with pytest.raises(NotConnected, match=r"no interactive worker connected within 0\.01 s"):
        connect.wait_connected("interactive", 0.01)


def test_a_worker_that_comes_back_takes_the_place_of_its_former_connection(connect: LocalConnect) -> None:
    with puppet(connect) as former, puppet(connect) as latter:
        assert former.take() is None
        connect.push(ASSET_REQUEST)
        assert latter.serve()["input"]["object_id"] == "PR-1"


@pytest.mark.parametrize("text", ["{", "[]", '{"message_type": "task", "data": {}}', '"task"'])
def test_a_worker_that_sends_nonsense_is_cut_off_and_nobody_else(connect: LocalConnect, text: str) -> None:
    with puppet(connect, "interactive") as other, puppet(connect) as worker:
        worker.send_text(text)
        assert worker.take() is None
        connect.push(ASSET_REQUEST, "asset_purchase_request_validation")
        assert other.take()


def test_what_came_back_of_a_task_of_an_earlier_run_is_let_pass(connect: LocalConnect) -> None:
    with puppet(connect) as worker:
        worker.answer({"options": {"task_id": "TQ-99"}})
        connect.push(ASSET_REQUEST)
        assert worker.take()


@pytest.mark.parametrize(("kind", "key", "status"), [("background", "", 401), ("nonsense", "ApiKey x", 404)])
def test_nobody_else_is_let_in(connect: LocalConnect, kind: str, key: str, status: int) -> None:
    with pytest.raises(InvalidStatus, match=str(status)):
        puppet(connect, kind, key=key)


def test_frames_that_wait_for_a_worker_who_never_comes_have_a_limit(connect: LocalConnect) -> None:
    connect._sockets._waiting["webapp"].extend([""] * (WAITING_MAX - 1))
    connect._sockets.send("webapp", "")
    with pytest.raises(LocalConnectError, match="10000 frames wait for a webapp worker already: start the runner"):
        connect.browse("GET", "/api")


# --- a runner of its own ---


@pytest.fixture
def runner(tmp_path: Path) -> Path:
    return install(tmp_path / "venv")


@pytest.fixture
def extension(tmp_path: Path) -> Path:
    folder = tmp_path / "extension"
    folder.mkdir()
    points = '[project.entry-points."connect.eaas.ext"]\neventsapp = "my.events:App"\n'
    (folder / "pyproject.toml").write_text(f'[project]\nname = "mine"\n{points}', "utf-8")
    return folder


def ready_order(number: int = 1, **fields: Any) -> dict[str, Any]:
    """Make an order that can be approved as it is."""
    order = purchase(number, **fields)
    order["asset"]["params"] = []
    return order


def test_the_runner_is_started_stopped_and_started_again(connect: LocalConnect, runner: Path, extension: Path) -> None:
    connect.start_runner(extension, runner=runner)
    with pytest.raises(LocalConnectError, match=r"was started already: stop it first, with stop_runner\(\)"):
        connect.start_runner(extension, runner=runner)
    task = connect.push(ready_order())
    assert task.wait(WAIT_S).result == "success"
    assert (connect.get("PR-1")["status"], changes(connect)) == ("approved", [("effect", "approval", "PR-1")])
    assert connect.calls("approve_request")[0]["task_id"] == "TQ-1"
    assert connect.stop_runner(WAIT_S) == 0
    assert "Background worker pid" in connect.log()
    with pytest.raises(NotConnected, match=r"the runner was not started: call start_runner\(\)"):
        connect.worker_pid()


def test_a_killed_worker_has_its_task_delivered_again_to_the_next_one(
    connect: LocalConnect, runner: Path, extension: Path
) -> None:
    connect.start_runner(extension, runner=runner)
    task = connect.push({**ready_order(), "id": HANGS_ONCE}, redeliver_within_s=0)
    wait_for((extension / f"{HANGS_ONCE}.txt").exists)
    killed = connect.kill_worker("background")
    assert task.wait(WAIT_S).result == "success"
    assert (task.deliveries, connect.worker_pid() != killed) == (2, True)
    connect.kill_runner()
    with pytest.raises(NotConnected):
        connect.kill_worker("background")


def test_a_runner_that_ends_by_itself_ends_the_wait(connect: LocalConnect, tmp_path: Path) -> None:
    connect.start_runner(runner=install(tmp_path / "venv"))
    task = connect.push(ASSET_REQUEST, "asset_purchase_request_validation")
    connect.drop_connection("interactive")
    assert connect._runner is not None
    connect._runner._kill_all()
    with pytest.raises(RunnerFailed, match="the runner ended with exit code 137; its log ends:"):
        task.deliver()
        task.wait_results(9, WAIT_S)


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("echo 'ImportError: no module'; exit 3", "ended with exit code 3; its log ends:\nImportError: no module"),
        ("exit 3", "the runner ended with exit code 3$"),
        ("echo Webapp worker pid: 1; exec sleep 60", r"workers \(webapp\) did not connect within 0.2 s; its log ends:"),
        ("exec sleep 60", r"workers \(any\) did not connect within 0.2 s$"),
    ],
)
def test_a_runner_that_does_not_come_up_is_told_of(
    connect: LocalConnect, tmp_path: Path, script: str, problem: str
) -> None:
    with pytest.raises(RunnerFailed, match=problem):
        connect.start_runner(runner=install(tmp_path / "venv", script), ready_s=0.2)


def test_after_a_runner_that_did_not_come_up_another_one_is_started(
    connect: LocalConnect, tmp_path: Path, runner: Path
) -> None:
    with pytest.raises(RunnerFailed):
        connect.start_runner(runner=install(tmp_path / "bad", "exit 3"))
    connect.start_runner(runner=runner)
    assert connect.stop_runner(WAIT_S) == 0


def test_a_request_that_holds_null_where_connect_has_objects_is_answered(connect: LocalConnect) -> None:
    order = ready_order()
    order["asset"]["params"] = [{"id": "seats", "value": "", "constraints": None}]
    connect.add(order)
    approve(connect.client(), order)
    assert connect.get("PR-1")["status"] == "approved"


def test_what_the_local_connect_cannot_cope_with_is_an_error_500_that_tells_it(connect: LocalConnect) -> None:
    order = ready_order()
    connect.add(order)
    connect.update_request("PR-1", asset=None)
    with pytest.raises(ClientError, match="500 Internal Server Error: LOCAL - TypeError"):
        connect.client().requests["PR-1"]("approve").post({})


def test_a_runner_or_an_extension_that_is_not_there_is_told_of(connect: LocalConnect, runner: Path) -> None:
    with pytest.raises(RunnerMissing, match="there is no /nowhere"):
        connect.start_runner(runner=Path("/nowhere"))
    with pytest.raises(BadExtension, match=r"/nowhere/pyproject\.toml: No such file"):
        connect.start_runner(Path("/nowhere"), runner=runner)


def test_the_runner_gets_what_leads_it_here_and_to_no_other_connect(
    connect: LocalConnect, tmp_path: Path, extension: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/given")
    connect_env = connect.runner_environment()
    script = 'echo "$PYTHONPATH|$PWD|$SAGA_JOURNAL_URL|$MORE|$*"; exit 1'
    with pytest.raises(RunnerFailed):
        connect.start_runner(extension, runner=install(tmp_path / "venv", script), environment={"MORE": "yes"})
    path, folder, journal, more, options = connect.log().strip().split("|")
    assert path.split(":")[1:] == [str(extension), "/given"]
    assert (Path(path.split(":")[0]) / "mine-0.dist-info" / "entry_points.txt").is_file()
    assert (folder, journal, more) == (str(extension), connect.journal_url, "yes")
    assert options == "--unsecure --no-validate --no-rich-logging"
    assert connect_env["API_ADDRESS"] in connect.api_url
    assert connect_env["SERVER_ADDRESS"] == connect.server_address


def test_the_runner_ends_with_the_block_of_the_local_connect(tmp_path: Path, runner: Path) -> None:
    with LocalConnect(tmp_path / "connect") as connect:
        connect.start_runner(runner=runner)
        started = connect._runner
        assert started is not None
    assert started.exit_code is not None
