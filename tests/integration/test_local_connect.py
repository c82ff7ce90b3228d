"""The local Connect without the real runner: its API, its tasks, its faults, and what it refuses."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import requests
from click.testing import CliRunner
from connect.client import R
from connect.client.exceptions import ClientError
from runner_double import joined
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect as connect_socket

from saga_engine.cli import main
from saga_engine.connect import LocalConnect
from saga_engine.connect.local_board import DeliveryBoard, told
from saga_engine.connect.local_errors import (
    BadExtension,
    BadFault,
    LocalConnectError,
    NotConnected,
    RunnerFailed,
    RunnerMissing,
    TaskOverdue,
    TaskRefused,
)
from saga_engine.connect.local_extension import ExtensionProject
from saga_engine.connect.local_faults import Fault, FaultKind
from saga_engine.connect.local_protocol import TaskResult
from saga_engine.connect.local_runner import find_runner, without_proxies

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "extension"
ORDER: dict[str, Any] = json.loads((EXAMPLE / "orders" / "purchase.json").read_text("utf-8"))
SETUP = {
    "id": "TCR-1",
    "type": "setup",
    "configuration": {"id": "TC-1", "account": {"id": "TA-1"}, "tier_level": 1, "params": []},
    "params": [{"id": "url", "type": "text", "value": ""}],
}


def success(_task: Mapping[str, Any]) -> dict[str, Any]:
    """Tell that a task was carried out."""
    return {"result": "success", "runtime": 0.5}


def order(number: int = 1) -> dict[str, Any]:
    """Make a purchase request of its own."""
    made: dict[str, Any] = json.loads(json.dumps(ORDER))
    made["id"], made["asset"]["id"] = f"PR-{number}", f"AS-{number}"
    for param in made["asset"]["params"]:
        param["value"] = "given"
    return made


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LocalConnect]:
    with LocalConnect(tmp_path / "connect", variables={"VENDOR_URL": "http://vendor"}) as running:
        yield running


# --- the API ---


def test_a_request_is_read_changed_and_approved_as_in_connect_and_the_ledger_tells_it(local: LocalConnect) -> None:
    local.add(order())
    client = local.client()
    name = ORDER["asset"]["params"][0]["id"]
    client.requests["PR-1"].update({"asset": {"params": [{"id": name, "value": "new"}]}})
    client.requests["PR-1"]("approve").post({"template_id": "TL-1"})
    got = client.requests["PR-1"].get()
    assert got["status"] == "approved"
    assert next(param["value"] for param in got["asset"]["params"] if param["id"] == name) == "new"
    assert [(entry["change"], entry["step"]) for entry in local.ledger()] == [
        ("effect", "parameters"),
        ("effect", "approval"),
    ]
    assert [call["operation"] for call in local.calls()] == ["update_request", "approve_request", "get_request"]
    with pytest.raises(ClientError, match="cannot become approved"):
        client.requests["PR-1"]("approve").post({"template_id": "TL-1"})


def test_a_tier_configuration_request_is_failed_with_its_reason(local: LocalConnect) -> None:
    local.add(SETUP)
    requests = local.client()("tier").config_requests
    requests["TCR-1"]("fail").post({"reason": "no such account"})
    assert (local.get("TCR-1")["status"], local.get("TCR-1")["reason"]) == ("failed", "no such account")


def test_a_collection_is_filtered_and_counted_as_the_runner_asks(local: LocalConnect) -> None:
    for number in (1, 2, 3):
        local.add(order(number))
    local.update_request("PR-3", status="inquiring")
    requests = local.client().requests
    assert requests.filter(R().id.eq("PR-2") & R().status.in_(["pending"])).count() == 1
    assert requests.filter(R().status.in_(["pending"])).count() == 2
    assert [found["id"] for found in requests.filter(R().asset.id.eq("AS-3"))] == ["PR-3"]
    assert requests.filter(R().id.eq("PR-4")).count() == 0


def test_nobody_is_let_in_without_a_key(local: LocalConnect) -> None:
    local.add(order())
    client = local.client()
    client.api_key = "ApiKey"
    with pytest.raises(ClientError, match="401"):
        client.requests["PR-1"].get()
    with pytest.raises(InvalidStatus, match="401"):
        connect_socket(f"ws://{local.server_address}/public/v1/devops/ws/ENV-1/INS-1", proxy=None)
    with pytest.raises(InvalidStatus, match="404"):
        connect_socket(f"ws://{local.server_address}/elsewhere", proxy=None)


@pytest.mark.parametrize(
    ("kind", "error", "is_done"),
    [
        (FaultKind.ERROR_401, "401", False),
        (FaultKind.ERROR_429, "429", False),
        (FaultKind.ERROR_500, "500", False),
        (FaultKind.ERROR_500_AFTER_WORK, "500", True),
        (FaultKind.REFUSE, "the order is refused", False),
        (FaultKind.TIMEOUT_AFTER_WORK, None, True),
        (FaultKind.INVALID_JSON, None, True),
    ],
)
def test_a_fault_shows_once_and_did_the_work_or_did_not(
    kind: FaultKind, error: str | None, is_done: bool, local: LocalConnect
) -> None:
    local.add(order())
    local.set_fault(Fault("approve_request", kind))
    client = local.client()
    with pytest.raises((ClientError, requests.RequestException, ValueError), match=error):
        client.requests["PR-1"]("approve").post({"template_id": "TL-1"})
    assert (local.get("PR-1")["status"] == "approved") is is_done
    if not is_done:
        client.requests["PR-1"]("approve").post({"template_id": "TL-1"})
        assert local.get("PR-1")["status"] == "approved"


@pytest.mark.parametrize(
    "text",
    ["approve_request", "approve_request=nonsense", "approve_request=slow:x", "approve_request=slow:1:61", "x=slow"],
)
def test_a_fault_that_cannot_be_meant_is_refused(text: str, local: LocalConnect) -> None:
    with pytest.raises(BadFault):
        local.set_fault(Fault.from_text(text))


def test_what_was_taken_in_is_there_again_after_a_restart(tmp_path: Path) -> None:
    with LocalConnect(tmp_path) as local:
        local.add(order())
        with pytest.raises(LocalConnectError, match="already exists"):
            local.add(order())
    with LocalConnect(tmp_path) as local:
        assert local.get("PR-1")["status"] == "pending"
        with pytest.raises(LocalConnectError, match="not found"):
            local.get("PR-2")


# --- tasks ---


def test_a_pushed_request_is_delivered_and_what_came_back_is_told(local: LocalConnect) -> None:
    with joined(local, success) as runner:
        task = local.push(order())
        assert task.wait(10.0).result == "success"
    assert runner.tasks[0]["input"]["object_id"] == "PR-1"
    assert runner.tasks[0]["input"]["event_type"] == "asset_purchase_request_processing"
    data = runner.setup["data"]
    assert data["variables"] == [{"name": "VENDOR_URL", "value": "http://vendor", "secure": False}]
    assert {each["event_type"]: each["api_collection_endpoint"] for each in data["event_definitions"]}[
        "tier_config_setup_request_processing"
    ] == "tier/config-requests"


def test_a_task_waits_for_a_worker_and_goes_on_with_the_next_one_after_a_dropped_connection(
    local: LocalConnect,
) -> None:
    reached, go = threading.Event(), threading.Event()

    def hold(task: Mapping[str, Any]) -> dict[str, Any]:
        reached.set()
        assert go.wait(10.0)
        return success(task)

    task = local.push(order())
    with joined(local, hold) as first:
        assert reached.wait(10.0)
        local.drop_connection()
        go.set()
        assert first.ended.wait(10.0)
    assert task.results() == []
    with joined(local, success):
        task.deliver()
        assert task.wait(10.0).result == "success"
    assert task.deliveries == 2


def test_copies_of_a_task_arrive_at_once_and_each_is_answered(local: LocalConnect) -> None:
    with joined(local, success) as runner:
        task = local.push(order(), copies=2)
        assert [result.result for result in task.wait_results(2, 10.0)] == ["success", "success"]
        assert len({each["options"]["task_id"] for each in runner.tasks}) == 1


def test_a_rescheduled_task_is_delivered_again_until_it_is_over(local: LocalConnect) -> None:
    answers = iter([{"result": "reschedule", "countdown": 300}, {"result": "retry", "message": "Oops"}])

    with joined(local, lambda task: next(answers, None) or success(task)):
        task = local.push(order(), redeliver_within_s=0.0)
        assert task.wait(10.0).result == "success"
    assert [(result.result, result.countdown_s) for result in task.results()] == [
        ("reschedule", 300),
        ("retry", 0),
        ("success", 0),
    ]


def test_an_interactive_request_is_sent_whole_and_not_taken_in(local: LocalConnect) -> None:
    with joined(local, lambda task: {"result": "success", "data": task["input"]["data"]["id"]}, "interactive"):
        task = local.push(order(), "asset_purchase_request_validation")
        assert task.wait(10.0).data == "PR-1"
    with pytest.raises(LocalConnectError, match="not found"):
        local.get("PR-1")


def test_the_web_application_of_the_extension_is_asked_through_its_worker(local: LocalConnect) -> None:
    def answer(task: Mapping[str, Any]) -> dict[str, Any]:
        content = base64.b64encode(f"{task['request']['method']} {task['request']['url']}".encode()).decode()
        return {"status": 200, "headers": {"X-Name": "value"}, "content": content}

    with joined(local, answer, "webapp"):
        got = local.browse("GET", "/api/sagas/page", timeout_s=10.0)
    assert (got.status, got.headers["x-name"], got.body) == (200, "value", b"GET /api/sagas/page")


def test_a_schedule_is_delivered_by_the_name_of_its_method(local: LocalConnect) -> None:
    with joined(local, success) as runner:
        assert local.schedule("resume_sagas", {"x": 1}).wait(10.0).result == "success"
    assert runner.tasks[0]["options"]["task_category"] == "scheduled"


def test_what_cannot_be_delivered_is_refused(local: LocalConnect) -> None:
    for request, event in (
        ({"id": "PR-1"}, None),
        ({"id": "PR-1", "type": "purchase"}, None),
        (order(), "scheduled_execution"),
        (order(), "listing_new_request_processing"),
    ):
        with pytest.raises(TaskRefused):
            local.push(request, event)
    with joined(local, success), pytest.raises(TaskRefused, match="has no handler for asset_cancel_request_processing"):
        local.push({**order(), "type": "cancel"})


def test_waiting_for_what_does_not_come_tells_what_came(local: LocalConnect) -> None:
    with joined(local, lambda _: {"result": "reschedule", "countdown": 60}):
        task = local.push(order())
        task.wait_results(1, 10.0)
        with pytest.raises(TaskOverdue, match="reschedule"):
            task.wait(0.1)
    with pytest.raises(TaskOverdue, match="no answer"):
        local.browse("GET", "/api", timeout_s=0.1)
    with pytest.raises(NotConnected, match="no webapp worker"):
        local.drop_connection("webapp")
    with pytest.raises(NotConnected, match="no interactive worker connected within"):
        local.wait_connected("interactive", 0.1)


# --- the runner ---


def test_an_extension_runs_as_its_project_stands_there(tmp_path: Path) -> None:
    project = ExtensionProject.read(EXAMPLE)
    assert project.entry_points["eventsapp"] == "mail_connector.events:MailConnectorEvents"
    found, source = project.search_path(tmp_path)
    assert Path(source) == EXAMPLE
    [metadata] = Path(found).glob("*.dist-info/entry_points.txt")
    assert "eventsapp = mail_connector.events:MailConnectorEvents" in metadata.read_text("utf-8")


@pytest.mark.parametrize(
    ("text", "message"), [(None, "name the folder"), ("=", "cannot be read"), ("[x]", "no entry points")]
)
def test_what_is_no_project_of_an_extension_is_refused(text: str | None, message: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "pyproject.toml").write_text(text, "utf-8")
    with pytest.raises(BadExtension, match=message):
        ExtensionProject.read(tmp_path)


def pretended_runner(folder: Path, script: str) -> Path:
    """Write a command that does this instead of what the runner does."""
    file = folder / "cextrun"
    file.write_text(f"#!{sys.executable}\nimport sys, time\n{script}\n", "utf-8")
    file.chmod(0o755)
    return file


def test_a_runner_that_ends_at_once_is_told_of_with_the_end_of_its_log(local: LocalConnect, tmp_path: Path) -> None:
    with pytest.raises(RunnerFailed, match="exit code 3; its log ends:\nno extension"):
        local.start_runner(runner=pretended_runner(tmp_path, "print('no extension', flush=True); sys.exit(3)"))


def test_a_runner_whose_workers_do_not_come_is_told_of_and_ends_with_the_block(tmp_path: Path) -> None:
    command = pretended_runner(tmp_path, "print('background worker pid: 1', flush=True); time.sleep(600)")
    with LocalConnect(tmp_path / "connect") as local:
        with pytest.raises(RunnerFailed, match="did not connect within"):
            local.start_runner(runner=command, ready_s=0.5)
        assert local._runner is not None
        pid = local._runner.pid
        with pytest.raises(LocalConnectError, match="started already"):
            local.start_runner(runner=command)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_runner_is_asked_to_end_and_tells_its_exit_code(local: LocalConnect, tmp_path: Path) -> None:
    command = pretended_runner(
        tmp_path,
        "import signal; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); "
        "print('background worker pid: 1', flush=True); time.sleep(600)",
    )
    with joined(local, success):
        local.start_runner(runner=command)
        assert local.worker_pid() == 1
        with pytest.raises(NotConnected, match="no webapp worker"):
            local.worker_pid("webapp")
        assert local.stop_runner() == 7
    with pytest.raises(NotConnected, match="start_runner"):
        local.log()


def test_a_runner_that_is_not_there_is_told_with_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(RunnerMissing, match="pip install connect-extension-runner"):
        find_runner(tmp_path)
    assert find_runner(pretended_runner(tmp_path, "")).name == "cextrun"


def test_the_local_connect_is_reached_past_any_proxy() -> None:
    changed = without_proxies({"HTTP_PROXY": "http://proxy", "NO_PROXY": "internal"})
    assert (changed["http_proxy"], changed["no_proxy"]) == ("http://proxy", "internal,127.0.0.1")
    assert "HTTP_PROXY" not in changed


def test_the_guard_ends_its_command_when_nobody_holds_its_input(tmp_path: Path) -> None:
    from saga_engine.connect import local_guard

    command = pretended_runner(tmp_path, "time.sleep(600)")
    arguments = [sys.executable, "-I", local_guard.__file__, "600", "5", str(tmp_path / "log"), str(command)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as guard:
        assert guard.stdout is not None
        assert guard.stdin is not None
        pid = int(guard.stdout.readline())
        guard.stdin.close()
        assert guard.wait(30.0) == 128 + 15
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


# --- the command, and what it shows ---


@pytest.mark.parametrize(
    ("result", "line"),
    [
        (TaskResult("success", None, 0, 1.84, None, ""), "success after 1.8 s"),
        (TaskResult("fail", "no\ncredit", 0, 1.0, None, ""), "fail after 1.0 s: no credit"),
        (TaskResult("reschedule", None, 90, 1.0, None, ""), "asks for the next delivery in 1 min 30 s"),
        (TaskResult("retry", "Traceback\nValueError: x", 0, 1.0, None, ""), "ValueError: x; delivered again in 30 s"),
    ],
)
def test_an_answer_is_told_in_a_line(result: TaskResult, line: str) -> None:
    assert line in told(result)


def test_deliveries_and_answers_are_shown_as_they_come(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with LocalConnect(tmp_path, observer=DeliveryBoard().observe) as local, joined(local, success):
        local.push(order()).wait(10.0)
    shown = capsys.readouterr().out
    assert "PR-1  delivered: asset_purchase_request_processing" in shown
    assert "PR-1  success after 500 ms" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--extension", "{folder}/none"], "name the folder of an extension's project"),
        (["--variable", "novalue"], "write NAME=VALUE"),
        (["--fault", "approve_request=nonsense"], "nonsense"),
        (["--runner", "{folder}"], "pip install connect-extension-runner"),
    ],
)
def test_the_command_tells_what_is_wrong_in_one_line(arguments: list[str], message: str, tmp_path: Path) -> None:
    request = tmp_path / "purchase.json"
    request.write_text(json.dumps(order()), "utf-8")
    runner = pretended_runner(tmp_path, "sys.exit(3)")
    given = ["--runner", str(runner), *[each.format(folder=tmp_path) for each in arguments]]
    run = CliRunner().invoke(main, ["connect", "--dir", str(tmp_path / "connect"), *given, str(request)])
    assert run.exit_code in (1, 2)
    assert message in run.output.strip().splitlines()[-1]
    assert "Traceback" not in run.output


@pytest.mark.usefixtures("local_connect")
def test_the_fixture_gives_a_connect_for_one_test(local_connect: LocalConnect) -> None:
    local_connect.add(order())
    assert local_connect.get("PR-1")["status"] == "pending"
