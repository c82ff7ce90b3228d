"""`saga connect` tries an extension and tells a person, or a program, what became of its orders; and the fixture."""

from __future__ import annotations

import copy
import importlib.metadata
import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import Ran, Run, command_in, finish, prepare, start, wait_for
from connect_stub import ASSET_REQUEST
from runner_puppet import HANGS_ONCE, install

from saga_engine.connect import LocalConnect

pytest_plugins = ["pytester"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with an order and a runner beside this Python's."""
    prepare(tmp_path, monkeypatch)
    order = copy.deepcopy(ASSET_REQUEST)
    order["asset"]["params"] = []
    write(tmp_path, "order.json", order)
    write(tmp_path, "hangs.json", {**order, "id": HANGS_ONCE})
    install(tmp_path / "venv")
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return command_in(capsys)


def write(folder: Path, name: str, value: Any) -> None:
    (folder / name).write_text(json.dumps(value), "utf-8")


def try_(run: Run, *arguments: str) -> Ran:
    return run("connect", "--runner", "venv", *arguments)


def test_an_order_is_delivered_and_its_end_is_told(run: Run, folder: Path) -> None:
    ran = try_(run, "order.json")
    assert (ran.code, ran.err) == (0, "")
    begun, delivered, answered, ended, hint = ran.out.splitlines()
    assert begun.startswith("Connect is at https://127.0.0.1:")
    assert begun.endswith("/public/v1. Starting the runner; its log is saga-connect/runner.log")
    assert delivered.endswith("PR-1  delivered: asset_purchase_request_processing")
    assert answered.endswith("PR-1  success after 250 ms")
    assert ended == "PR-1 success after 1 delivery; in Connect it is approved"
    assert hint == f"What the sagas did: saga list --journal sqlite:///{folder / 'saga-connect' / 'saga.db'}"


def test_a_program_gets_all_that_came_back(run: Run, folder: Path) -> None:
    write(folder, "secret.json", {**json.loads((folder / "order.json").read_text()), "password": "s3cret"})
    ran = try_(
        run, "secret.json", "--json", "--event", "asset_purchase_request_validation", "--once", "--timeout", "0.01"
    )
    assert ran.code == 5
    assert "s3cret" not in ran.out
    ran = try_(run, "order.json", "--json")
    assert (ran.code, ran.json["exit_code"], ran.json["log"]) == (0, 0, "saga-connect/runner.log")
    [task] = ran.json["tasks"]
    [result] = task.pop("results")
    assert task == {
        "task_id": "TQ-1",
        "event_type": "asset_purchase_request_processing",
        "object_id": "PR-1",
        "deliveries": 1,
        "status": "approved",
    }
    assert (result["result"], result["runtime_s"]) == ("success", 0.25)


def test_each_run_begins_afresh_unless_it_is_to_go_on(run: Run, folder: Path) -> None:
    try_(run, "order.json")
    ran = try_(run, "order.json", "--keep", "--once", "--json")
    assert [task["task_id"] for task in ran.json["tasks"]] == ["TQ-2"]
    assert ran.json["tasks"][0]["results"][0]["message"].endswith("HTTP Error 400: Bad Request\n")  # it is approved
    ran = try_(run, "order.json")
    assert ran.out.splitlines()[-2] == "PR-1 success after 1 delivery; in Connect it is approved"


def test_a_request_gets_a_new_id_where_the_vendor_remembers_the_old_one(run: Run, folder: Path) -> None:
    ids = {try_(run, "order.json", "--new-ids", "--json").json["tasks"][0]["object_id"] for _ in range(2)}
    assert len(ids) == 2
    assert all(request_id.startswith("PR-1-") for request_id in ids)


def test_an_order_that_fails_makes_exit_code_3(run: Run, folder: Path) -> None:
    install(folder / "other", "echo INFO Background worker pid: $$; echo $SERVER_ADDRESS; exec sleep 60")
    from runner_puppet import Puppet

    with pytest.MonkeyPatch.context() as patch:
        workers: list[Puppet] = []

        def answer_fail(local: LocalConnect, *_: Any) -> None:
            workers.append(Puppet(local.server_address))
            local.start_runner(runner=folder / "other")

        patch.setattr("saga_engine.commands.connecting._start", answer_fail)
        patch.setattr("saga_engine.connect.local_tasks.LocalTask.deliver", _deliver_and_answer(workers))
        ran = try_(run, "order.json", "order.json", "--timeout", "5")
        workers[0].close()
    assert (ran.code, ran.err) == (3, "")
    assert "PR-1 fail after 1 delivery; in Connect it is pending" in ran.out


def _deliver_and_answer(workers: list[Any]) -> Any:
    def deliver(task: Any, copies: int = 1) -> None:
        task._tasks.deliver(task, copies)
        workers[0].serve("fail", message="no credit")

    return deliver


def test_an_order_that_always_raises_is_given_up_with_its_error(run: Run, folder: Path) -> None:
    ran = try_(run, "order.json", "--within", "0", "--fault", "approve_request=error_500:99")
    assert ran.code == 5
    assert ran.out.count("retry after 250 ms: HTTP Error 500: Internal Server Error") == 10
    assert ran.err == (
        "saga: PR-1 (asset_purchase_request_processing, TQ-1) is given up: it raised an error 10 times in a row; "
        "10 x retry came back of 10 deliveries; at last: HTTP Error 500: Internal Server Error\n"
    )
    assert "PR-1 is not over after 10 deliveries; in Connect it is pending" in ran.out


def test_an_order_that_takes_too_long_is_told_of(run: Run, folder: Path) -> None:
    ran = try_(run, "hangs.json", "--timeout", "0.1")
    assert (ran.code, ran.err) == (5, f"saga: {HANGS_ONCE} is not over after 0.1 s; see --timeout\n")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["nowhere.json"], "nowhere.json: No such file or directory: name a JSON file, or - for standard input"),
        (["order.json", "good.json"], "this is no request of Connect: it needs an id and a type"),
        (["no.json"], "no.json is not JSON"),
        (["list.json"], "list.json holds a list: give the request, a JSON object"),
        (["half.json"], "PR-2 cannot be delivered: send a whole request, with id and asset.params"),
        (["path.json"], "../PR cannot be delivered: send a whole request, with id and asset.params"),
        (["order.json", "--extension", "misspelt"], "names none of anvilapp, eventsapp, extension, webapp among the"),
        (["order.json", "--dir", "a#b"], "a#b has one of # ? %, which the URL of a journal cannot have"),
        (["order.json", "--event", "usage_file_processing"], "has asset and tier configuration requests only"),
        (
            ["order.json", "--extension", "nowhere"],
            "nowhere/pyproject.toml: No such file or directory: name the folder",
        ),
        (["order.json", "--extension", "broken"], "my/extension.json cannot be read: Expecting"),
        (["order.json", "--variable", "SEATS"], "--variable SEATS: write NAME=VALUE, and each name once"),
        (
            ["order.json", "--variable", "A=1", "--variable", "A=2"],
            "--variable A=2: write NAME=VALUE, and each name once",
        ),
        (["order.json", "--fault", "approve=refuse"], "there is no operation 'approve'; use one of approve_request"),
        (["order.json", "--fault", "approve_request"], "write operation=kind[:times[:delay_s]]"),
        (["order.json", "--dir", "."], ". holds other files: name a folder for the local Connect alone"),
        (["order.json", "--keep"], "--keep: in saga-connect there is nothing to go on with"),
        (["order.json", "--once", "--within", "3"], "--once delivers once, and --within again: give one of them"),
        (["order.json", "--within", "-1"], "-1.0 is not in the range x>=0"),
        (["order.json", "--timeout", "0"], "0.0 is not in the range x>0"),
    ],
)
def test_bad_input_is_told_of_before_anything_begins(
    run: Run, folder: Path, arguments: list[str], problem: str
) -> None:
    (folder / "no.json").write_text("{")
    write(folder, "list.json", [])
    write(folder, "half.json", {"id": "PR-2", "type": "purchase", "asset": {}})
    write(folder, "path.json", {**json.loads((folder / "order.json").read_text()), "id": "../PR"})
    (folder / "misspelt").mkdir()
    points = '[project.entry-points."connect.eaas.ext"]\nevntsapp = "my.events:App"\n'
    (folder / "misspelt" / "pyproject.toml").write_text(points)
    (folder / "broken" / "my").mkdir(parents=True)
    (folder / "broken" / "my" / "extension.json").write_text("{")
    points = '[project.entry-points."connect.eaas.ext"]\neventsapp = "my.events:App"\n'
    (folder / "broken" / "pyproject.toml").write_text(points)
    ran = try_(run, *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert problem in ran.err
    assert not (folder / "saga-connect" / "runner.log").exists()


def test_without_a_runner_it_is_told_what_to_install(run: Run, folder: Path) -> None:
    ran = run("connect", "order.json", "--runner", "nowhere")
    assert (ran.code, ran.out) == (1, "")
    assert "there is no nowhere that can be run: install Connect's runner" in ran.err


def test_without_the_extra_it_is_told_what_to_install(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trustme", None)
    ran = try_(run, "order.json")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "saga: the local Connect needs trustme: pip install 'saga-engine[local]'\n"


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_runner_that_does_not_come_up_is_told_of_with_the_end_of_its_log(
    run: Run, folder: Path, options: list[str]
) -> None:
    shown = "echo '  File x'; echo \"ModuleNotFoundError: No module named 'seats'\""
    install(folder / "bad", f"{shown}; echo '╰───┴───╯'; exit 1")
    ran = run("connect", "--runner", "bad", "order.json", *options)
    why = "the runner ended with exit code 1: ModuleNotFoundError: No module named 'seats'; its whole log is "
    assert ran.code == 1
    if options:
        assert json.loads(ran.err.splitlines()[-1])["error"]["message"].startswith(why)
    else:
        *log, last = ran.err.splitlines()
        assert log == ["  File x", "ModuleNotFoundError: No module named 'seats'", "╰───┴───╯"]
        assert last == f"saga: {why}saga-connect/runner.log"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_it_is_stopped_in_good_order_and_gone_on_with(run: Run, folder: Path, number: int, code: int) -> None:
    process = start("connect", "--runner", "venv", "hangs.json", cwd=folder)
    wait_for((folder / "saga-connect" / f"{HANGS_ONCE}.txt").exists)
    process.send_signal(number)
    ran = finish(process)
    assert ran.code == code
    assert ran.err == f"saga: stopped by {signal.Signals(number).name}; go on with the same command and --keep\n"
    ran = try_(run, "hangs.json", "--keep")
    assert f"{HANGS_ONCE} success after 1 delivery; in Connect it is approved" in ran.out


TESTS = """
import json
from saga_engine.connect import LocalConnect

def test_an_order_is_approved(local_connect):
    assert isinstance(local_connect, LocalConnect)
    local_connect.start_runner(runner={runner!r})
    assert local_connect.push(json.loads({order!r})).wait().result == "success"

def test_each_test_has_its_own(local_connect, tmp_path):
    assert local_connect.ledger() == []
    assert local_connect.folder == tmp_path / "connect"
"""


def test_the_fixture_of_pytest_gives_each_test_a_local_connect(folder: Path, pytester: pytest.Pytester) -> None:
    order = (folder / "order.json").read_text()
    text = TESTS.format(runner=folder / "venv", order=order).replace("PosixPath", "__import__('pathlib').Path")
    pytester.makepyfile(text)
    ran = pytester.runpytest_inprocess(*_plugins(), "-p", "no:cacheprovider")
    ran.assert_outcomes(passed=2)


def _plugins() -> list[str]:
    """Leave out what is slow; name ours where it is not installed, which is found by itself where it is."""
    left_out = [f"-pno:{name}" for name in ("pytest_connect_client", "pytest_eaas_core", "xdist", "hypothesispytest")]
    try:
        importlib.metadata.distribution("saga-engine")
    except importlib.metadata.PackageNotFoundError:
        return [*left_out, "-psaga_engine.pytest_plugin"]
    return left_out
