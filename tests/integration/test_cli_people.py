"""The command `saga` at night: what people say to executions, what is shown of that, what is kept and purged."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
from command_line import Run, command_in, prepare

from saga_engine import Engine


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of the test's own, with two requests in it; the last one is refused at the end."""
    return prepare(tmp_path, monkeypatch)


@pytest.fixture
def saga(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process."""
    return command_in(capsys)


@pytest.fixture
def whole(saga: Run) -> None:
    """An execution with branches and a child, which waits for an approval."""
    assert saga("run", "cli_sagas:Whole", "good.json").code == 5


# --- show -------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("whole")
def test_branches_are_drawn_and_the_steps_of_a_child_stand_below_it(saga: Run) -> None:
    shown = saga("show", "Whole:PR-1").out
    header, *rows = shown.splitlines()[4:]
    steps = [row[: header.index("STATUS")].rstrip() for row in rows]
    assert [step for step in steps if step] == [
        "├ Scan",
        "└ Pack",
        "  Label",
        "Delivery",
        "  Reserve",
        "  Ship",
        "Wait for approved",
        "Charge",
    ]
    assert re.search(r"^Delivery +COMPLETED +\d", shown, re.MULTILINE)
    assert "waits for the signal 'approved'" in shown


@pytest.mark.usefixtures("whole")
def test_a_child_is_shown_by_its_own_id(saga: Run) -> None:
    shown = saga("show", "Whole:PR-1/Delivery").out
    assert shown.startswith("Whole:PR-1/Delivery  COMPLETED\n")
    assert [line.split()[:2] for line in shown.splitlines()[4:]] == [["Reserve", "COMPLETED"], ["Ship", "COMPLETED"]]
    child = next(s for s in saga("show", "Whole:PR-1", "--json").json["steps"] if s["name"] == "Delivery")
    assert [step["name"] for step in child["steps"]] == ["Reserve", "Ship"]


def test_what_parked_in_a_child_is_named_as_it_is_to_be_typed(saga: Run) -> None:
    ran = saga("run", "cli_sagas:Stranding", "good.json")
    assert ran.code == 4
    assert "saga resolve Stranding:PR-1 Stranded/AlwaysRefused --note" in ran.out
    shown = saga("show", "Stranding:PR-1").out
    assert re.search(r"^Stranded +PARKED", shown, re.MULTILINE)
    assert re.search(r"^  AlwaysRefused +PARKED", shown, re.MULTILINE)
    assert "next: undo it by hand; then saga resolve" in shown
    assert saga("resolve", "Stranding:PR-1", "Stranded/AlwaysRefused", "--note", "gone").code == 3


def test_who_waits_for_an_exclusive_right_says_who_holds_it(saga: Run) -> None:
    saga("run", "cli_sagas:Alone", "good.json")
    ran = saga("run", "cli_sagas:Alone", "bad.json")
    assert ran.code == 5
    denied = "waits: Alone:PR-1 holds the exclusive right 'the only one'"
    assert denied in ran.out
    shown = saga("show", "Alone:PR-2").out
    assert "waits for the exclusive right 'the only one', which Alone:PR-1 holds" in shown
    assert shown.splitlines()[-1].endswith(denied)


# --- signal, cancel ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("whole")
def test_a_signal_lets_the_execution_go_on_with_its_payload(saga: Run, here: Path) -> None:
    (here / "payload.json").write_text('{"by": "ada"}')
    ran = saga("signal", "Whole:PR-1", "approved", "payload.json")
    assert ran.code == 0
    assert "gets the signal 'approved'\n" in ran.out
    assert "Charge: done" in ran.out
    assert saga("show", "Whole:PR-1", "--json").json["state"]["approved"] == {"by": "ada"}
    assert saga("show", "Whole:PR-1").out.splitlines()[-1].endswith("gets the signal 'approved'")


@pytest.mark.usefixtures("whole")
def test_a_signal_that_nobody_awaits_yet_is_kept(saga: Run) -> None:
    ran = saga("signal", "Whole:PR-1", "paid")
    assert ran.code == 5
    assert "gets the signal 'paid', and keeps it until a step waits for it" in ran.out


@pytest.mark.usefixtures("whole")
def test_a_cancelled_execution_is_undone_and_exits_3(saga: Run) -> None:
    ran = saga("cancel", "Whole:PR-1", "--reason", "no money", "--who", "ada", "--json")
    assert (ran.code, ran.json["status"], ran.json["exit_code"]) == (3, "CANCELLED", 3)
    assert "is cancelled by ada: no money" in saga("show", "Whole:PR-1").out
    again = saga("cancel", "Whole:PR-1", "--reason", "again")
    assert (again.code, again.out) == (2, "")
    assert "ended CANCELLED: nothing can change it any more" in again.err


# --- resume, skip, edit, undo, preview --------------------------------------------------------------------------------


def test_a_retry_is_not_waited_for_once_it_is_resumed(saga: Run, here: Path) -> None:
    saga("run", "cli_sagas:Counting", "good.json")
    edited = saga("edit", "Counting:PR-1", "--set", "count=3", "--note", "it was lost", "--who", "ada")
    assert edited.code == 5
    assert "its state is edited (count set) by ada: it was lost" in edited.out
    (here / "fixed").touch()
    ran = saga("resume", "Counting:PR-1", "--note", "it is back", "--who", "ada")
    assert ran.code == 0
    assert "CountHourly: resumed by ada: it is back" in ran.out
    assert "counted 3" in ran.out
    shown = saga("show", "Counting:PR-1").out
    assert "by ada: it was lost" in shown
    assert "CountHourly: resumed by ada: it is back" in shown


def test_a_skipped_step_may_leave_a_state(saga: Run, here: Path) -> None:
    saga("run", "cli_sagas:Counting", "good.json")
    (here / "state.json").write_text('{"count": 7}')
    ran = saga("skip", "Counting:PR-1", "CountHourly", "--state", "state.json", "--note", "counted by hand")
    assert ran.code == 0
    assert re.search(r"CountHourly: skipped by \S+: counted by hand", ran.out)
    assert saga("show", "Counting:PR-1", "--json").json["state"] == {"count": 7}


def test_a_key_of_the_state_can_be_removed(saga: Run) -> None:
    saga("run", "cli_sagas:Counting", "good.json")
    saga("edit", "Counting:PR-1", "--set", "count=3", "--set", 'name="x"')
    assert saga("edit", "Counting:PR-1", "--remove", "count", "--json").json["state"] == {"name": "x"}


EDITS = {
    "nothing": ([], "nothing to edit: give --set KEY=JSON or --remove KEY"),
    "no key": (["--set", "3"], "write KEY=JSON"),
    "no JSON": (["--set", "a=b"], "'b' is not JSON; a text is written a='\"...\"'"),
    "both": (["--set", "a=1", "--remove", "a"], "'a' is to be set and removed"),
}


@pytest.mark.parametrize(("options", "text"), EDITS.values(), ids=EDITS)
def test_an_edit_that_cannot_be_meant_exits_2(saga: Run, options: list[str], text: str) -> None:
    ran = saga("edit", "Counting:PR-1", *options)
    assert (ran.code, ran.out) == (2, "")
    assert text in ran.err


@pytest.mark.usefixtures("whole")
def test_the_preview_shows_what_an_undo_then_does(saga: Run) -> None:
    saga("signal", "Whole:PR-1", "approved")
    previewed = saga("preview", "Whole:PR-1", "--json").json
    assert previewed["undos"][0] == {"step": "Charge", "how": "compensate"}
    lines = saga("preview", "Whole:PR-1").out.splitlines()[1:]
    assert [line.split()[1] for line in lines] == [undo["step"] for undo in previewed["undos"]]
    ran = saga("undo", "Whole:PR-1", "--note", "wrong customer", "--who", "ada")
    assert ran.code == 3
    assert "is ordered to be undone by ada: wrong customer" in ran.out
    undone = re.findall(r"(\S+): undone in", ran.out)
    assert undone == [undo["step"] for undo in previewed["undos"]]
    assert saga("preview", "Whole:PR-1").out == "Nothing would be undone: it ended COMPENSATED.\n"


def test_what_is_said_to_what_another_process_holds_is_kept_and_exits_5(saga: Run, here: Path) -> None:
    saga("run", "cli_sagas:Polling", "good.json")
    with Engine(f"sqlite:///{here / 'saga.db'}") as engine:
        header = engine.journal.header("Polling:PR-1")
        assert header is not None
        _hold(engine, header.eid, header.epoch)
        ran = saga("signal", "Polling:PR-1", "go")
        assert ran.code == 5
        assert re.match(r"It is kept, but nothing went on here: \S+:\d+ holds it, and takes it in\n$", ran.out)
        assert len(engine.journal.load(header.eid).inbox) == 1


def _hold(engine: Engine, eid: int, epoch: int) -> None:
    from saga_engine.journal import Commit, DriveResumed, SagaStatus

    seq = engine.journal.load(eid).seq + 1
    now = time.time()
    resumed = DriveResumed(at=now, drive="mine")
    engine.journal.append(Commit(eid, seq, (resumed,), "mine", epoch, SagaStatus.RUNNING, now, take=True))


# --- export, replay, purge, list --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("whole")
def test_an_exported_execution_is_replayed_as_it_was_shown(saga: Run, here: Path) -> None:
    saga("signal", "Whole:PR-1", "approved")
    exported = saga("export", "Whole:PR-1", "-o", "export.json")
    assert exported.code == 0
    assert (here / "export.json").stat().st_mode & 0o777 == 0o600
    assert saga("export", "Whole:PR-1").json == json.loads((here / "export.json").read_text())
    shown = saga("show", "Whole:PR-1")
    for path in here.glob("saga.db*"):
        path.unlink()
    assert saga("replay", "export.json").out == shown.out
    assert saga("replay", "export.json", "--json").json["status"] == "COMPLETED"


def test_an_export_that_cannot_be_written_exits_2(saga: Run) -> None:
    saga("run", "cli_sagas:Order", "good.json")
    ran = saga("export", "Order:PR-1", "-o", "nowhere/export.json")
    assert (ran.code, ran.err) == (
        2,
        "saga: nowhere/export.json: No such file or directory: name a file that can be written\n",
    )


def test_a_purge_leaves_how_it_ended_and_never_takes_what_is_not_over(saga: Run) -> None:
    saga("run", "cli_sagas:Order", "good.json")
    saga("run", "cli_sagas:Parking", "bad.json")
    assert saga("purge", "--older-than", "1d").out == "Purged 0 executions.\n"
    assert saga("purge", "--older-than", "0s", "--dry-run", "--json").json == {"purged": 0, "purgeable": 1}
    assert saga("purge", "--older-than", "0s").out == "Purged 1 execution.\n"
    shown = saga("show", "Order:PR-1")
    assert (shown.code, shown.out.splitlines()[-1]) == (0, "purged: nothing else is left of it")
    assert saga("show", "Parking:PR-2", "--json").json["status"] == "PARKED"
    again = saga("run", "cli_sagas:Order", "good.json")
    assert (again.code, "no step was run" in again.out) == (0, True)
    assert saga("export", "Order:PR-1").code == 2


def test_an_age_that_is_none_exits_2(saga: Run) -> None:
    ran = saga("purge", "--older-than", "1 month")
    assert ran.code == 2
    assert "'1 month' is no age: write a number and s, m, h, d or w" in ran.err


def test_the_list_reads_no_entries_but_of_what_parked(saga: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saga("run", "cli_sagas:Order", "good.json")
    saga("run", "cli_sagas:Order", "bad.json")
    saga("run", "cli_sagas:Parking", "bad.json")
    read = []
    load = Engine.get
    monkeypatch.setattr(Engine, "get", lambda engine, saga_id: read.append(saga_id) or load(engine, saga_id))
    listed = saga("list", "--json").json
    assert read == ["Parking:PR-2"]
    assert [record["error"] for record in listed] == [
        "parked at CannotUndo: compensate failed: the vendor is gone",
        "nobody ships\nto the moon",
        None,
    ]
    documented = {"saga_id", "saga", "status", "generation", "response", "error", "held_by", "next_due_at"}
    assert documented | {"created_at", "updated_at", "stuck", "is_purged"} == set(listed[0])
