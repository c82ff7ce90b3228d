"""The command `saga`: what it prints, what it answers to scripts, and how it stops."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import shutil
import signal
import struct
import sys
import termios
import time
from collections.abc import Sequence
from pathlib import Path

import click
import pytest
from command_line import DEADLINE_S, KIT, Run, command_in, finish, prepare, start, wait_for

from saga_engine import Engine, SagaStatus
from saga_engine.cli import main

ROOT = Path(__file__).resolve().parents[2]
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of the test's own, with two requests in it; the last one is refused at the end."""
    return prepare(tmp_path, monkeypatch)


@pytest.fixture
def saga(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process."""
    return command_in(capsys)


# --- run --------------------------------------------------------------------------------------------------------------


def without_times(text: str) -> list[str]:
    return re.sub(r"\d[\d:.]*( ms| s)?\b", "N", text).splitlines()


def test_a_run_tells_every_step_and_its_end(saga: Run) -> None:
    ran = saga("run", "cli_sagas:Order", "good.json")
    assert (ran.code, ran.err) == (0, "")
    assert without_times(ran.out) == [
        "Order:PR-N",
        "  N  Reserve: running",
        "  N  Reserve: done in N",
        "  N  Charge: running",
        "  N  Charge: done in N",
        "  N  Ship: running",
        "  N  Ship: done in N",
        "Order:PR-N COMPLETED after N",
    ]


def test_a_run_that_is_undone_tells_why_and_exits_3(saga: Run) -> None:
    ran = saga("run", "cli_sagas:Order", "bad.json")
    assert ran.code == 3
    told = "\n".join(without_times(ran.out))
    assert "Ship: failed after N: StepRefused: nobody ships to the moon\n  N  turns back: Ship failed" in told
    assert told.index("Charge: undone in N") < told.index("Reserve: undone in N")
    assert told.endswith("COMPENSATED after N: nobody ships to the moon")


def test_a_skipped_execution_exits_0_and_services_are_asked_about_what_is_about_to_start(saga: Run) -> None:
    ran = saga("run", "cli_sagas:Announced", "good.json")
    assert ran.code == 0
    assert ran.out.endswith(": PR-1 RUNNING\n")


def test_the_same_request_again_gets_the_recorded_answer_and_says_so(saga: Run) -> None:
    saga("run", "cli_sagas:Order", "bad.json")
    ran = saga("run", "cli_sagas:Order", "bad.json")
    assert ran.code == 3
    assert ran.out.startswith("Order:PR-2 was over already: no step was run.\nOrder:PR-2 COMPENSATED")


def test_a_parked_execution_exits_4_and_says_what_to_type(saga: Run) -> None:
    ran = saga("run", "cli_sagas:Parking", "bad.json")
    assert ran.code == 4
    assert ran.out.splitlines()[-3:] == [
        "Parking:PR-2 PARKED at CannotUndo: compensate failed: the vendor is gone",
        "To try it again:       saga resume Parking:PR-2 CannotUndo",
        "When it is dealt with: saga resolve Parking:PR-2 CannotUndo --note 'what was done'",
    ]


def test_a_suspended_execution_exits_5_and_goes_on_when_it_is_run_again(saga: Run) -> None:
    ran = saga("run", "cli_sagas:Polling", "good.json")
    assert ran.code == 5
    assert "Poll: waits for the next delivery, until" in ran.out
    assert "SUSPENDED: goes on at" in ran.out
    again = saga("run", "cli_sagas:Polling", "good.json")
    assert again.code == 0
    assert "Reserve" not in again.out
    assert "goes on with a delivery" in again.out


def test_waiting_waits_out_a_suspension(saga: Run, here: Path) -> None:
    (here / "short.json").write_text('{"id": "PR-3", "timeout_s": 0.05}')
    ran = saga("run", "--wait", "cli_sagas:Polling", "short.json")
    assert ran.code == 0
    assert "waits until" in ran.out
    assert "COMPLETED" in ran.out.splitlines()[-1]


def test_waiting_ends_when_nothing_more_can_come(saga: Run) -> None:
    assert saga("run", "--wait", "cli_sagas:Parking", "bad.json").code == 4
    assert saga("run", "--wait", "cli_sagas:Order", "bad.json").code == 3


def test_a_request_is_read_from_standard_input(saga: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"id": "PR-9"}')))
    ran = saga("run", "cli_sagas:Order", "-")
    assert (ran.code, ran.out.splitlines()[0]) == (0, "Order:PR-9")


def test_a_run_as_json_prints_the_record_the_answer_and_the_exit_code_alone(saga: Run) -> None:
    ran = saga("run", "cli_sagas:Order", "bad.json", "--json")
    assert ran.code == 3
    assert ran.json["exit_code"] == 3
    assert ran.json["status"] == "COMPENSATED"
    assert ran.json["answer"] == {"status": "fail", "output": "nobody ships\nto the moon"}
    assert [step["status"] for step in ran.json["steps"]] == ["COMPENSATED", "COMPENSATED", "FAILED"]


def test_what_a_selected_transaction_raises_is_one_line(saga: Run) -> None:
    ran = saga("run", "cli_sagas:Raising", "good.json")
    assert (ran.code, ran.err) == (1, "saga: KeyError: 'boom' (--debug shows where)\n")


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyError, match="boom"):
        main(["run", "cli_sagas:Raising", "good.json", "--debug"], standalone_mode=False)


def test_a_saga_in_the_current_directory_is_found(here: Path) -> None:
    shutil.copy(KIT / "cli_sagas.py", here / "my_sagas.py")
    ran = finish(start("run", "my_sagas:Order", "good.json"))
    assert (ran.code, ran.err) == (0, "")


def test_an_execution_that_another_process_holds_is_left_alone_and_exits_5(saga: Run, here: Path) -> None:
    holder = start("run", "cli_sagas:Hanging", "good.json")
    try:
        wait_for((here / "hanging").exists)
        ran = saga("run", "cli_sagas:Hanging", "good.json")
        assert ran.code == 5
        assert f":{holder.pid} holds it, nothing was run here" in ran.out
        assert f"held by {saga('list', '--json').json[0]['held_by']}" in saga("list").out
        assert "held by" in saga("show", "Hanging:PR-1").out
        (here / "go-on").touch()
        assert finish(holder).code == 0
    finally:
        holder.kill()


# --- bad input --------------------------------------------------------------------------------------------------------

BAD_INPUT = {
    "no such file": (["run", "cli_sagas:Order", "no.json"], "no.json: No such file or directory: name a JSON file"),
    "not JSON": (["run", "cli_sagas:Order", "cut.json"], "cut.json is not JSON: Input data was truncated"),
    "not an object": (["run", "cli_sagas:Order", "list.json"], "list.json holds a list: give the request"),
    "no key": (["run", "cli_sagas:Order", "empty.json"], "the request has no 'id'"),
    "no such module": (["run", "no_such:Order", "good.json"], "'no_such:Order' cannot be imported"),
    "no such saga": (["run", "cli_sagas:Nothing", "good.json"], "'cli_sagas:Nothing' cannot be imported"),
    "no saga": (["run", "cli_sagas:DONE", "good.json"], "'cli_sagas:DONE' is no saga"),
    "a broken module": (["run", "broken:Order", "good.json"], "cannot be imported (division by zero)"),
    "a bad URL": (["list", "--journal", "oracle://x"], "'oracle://x' names no journal: write memory://"),
    "no journal to list": (["list"], "there is no journal at"),
    "no journal to show": (["show", "Order:PR-1"], "there is no journal at"),
    "no journal to recover": (["recover"], "there is no journal at"),
    "no journal to signal in": (["signal", "Order:PR-1", "go"], "there is no journal at"),
    "no journal to purge": (["purge", "--older-than", "1d"], "there is no journal at"),
    "no module of sagas": (["worker", "no_such"], "'no_such' cannot be imported"),
    "a module without sagas": (["worker", "json"], "'json' has no sagas"),
    "no such export": (["replay", "no.json"], "no.json: No such file or directory"),
    "no export": (["replay", "good.json"], "this is no exported execution"),
    "no journal to resolve in": (["resolve", "Order:PR-1", "Ship", "--note", "x"], "there is no journal at"),
}


@pytest.mark.parametrize(("arguments", "text"), BAD_INPUT.values(), ids=BAD_INPUT)
def test_bad_input_is_one_line_exits_2_and_leaves_no_journal(
    saga: Run, here: Path, arguments: Sequence[str], text: str
) -> None:
    (here / "cut.json").write_text('{"id": ')
    (here / "list.json").write_text("[]")
    (here / "empty.json").write_text("{}")
    (here / "broken.py").write_text("1 / 0")
    ran = saga(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("saga: ")
    assert text in ran.err
    assert ran.err.count("\n") == 1
    if arguments[0] != "run":
        assert not list(here.glob("saga.db*"))


def test_an_error_as_json_is_an_object_on_standard_error(saga: Run) -> None:
    ran = saga("show", "Order:PR-1", "--json")
    error = json.loads(ran.err)
    assert (ran.code, ran.out, error["exit_code"], error["error"]["type"]) == (2, "", 2, "BadJournalURL")
    assert error["error"]["message"].startswith("there is no journal at")


@pytest.mark.parametrize(
    "arguments", [["run"], ["list", "--limit", "0"], ["list", "--status", "lost"], ["resolve", "a", "b"], ["nothing"]]
)
def test_wrong_usage_exits_2(saga: Run, arguments: Sequence[str]) -> None:
    assert saga(*arguments).code == 2


def test_a_saga_that_cannot_be_used_exits_1(saga: Run) -> None:
    ran = saga("run", "cli_sagas:Misdeclared", "good.json")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "saga: Misdeclared.park_policy is 'never': choose one of ('stop', 'continue')\n"


def test_a_journal_that_is_something_else_exits_1(saga: Run, here: Path) -> None:
    (here / "saga.db").write_bytes(b"no database at all" * 100)
    ran = saga("list")
    assert ran.code == 1
    assert "is not a journal of saga-engine" in ran.err


def test_an_unknown_execution_exits_2(saga: Run) -> None:
    saga("run", "cli_sagas:Order", "good.json")
    ran = saga("show", "Order:PR-404")
    assert (ran.code, ran.err) == (2, "saga: no execution 'Order:PR-404' in sqlite:///saga.db: see saga list\n")


def test_services_that_are_no_dict_are_refused(saga: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import cli_sagas

    monkeypatch.setattr(cli_sagas.Order, "services", classmethod(lambda cls, record: ["client"]))
    ran = saga("run", "cli_sagas:Order", "good.json")
    assert ran.code == 1
    assert "services(record) gave a list: give a dict" in ran.err


# --- list, show -------------------------------------------------------------------------------------------------------


@pytest.fixture
def three(saga: Run) -> None:
    """A completed, a compensated and a parked execution."""
    saga("run", "cli_sagas:Order", "good.json")
    saga("run", "cli_sagas:Order", "bad.json")
    saga("run", "cli_sagas:Parking", "bad.json")


@pytest.mark.usefixtures("three")
def test_the_list_shows_the_newest_first_and_can_be_narrowed(saga: Run) -> None:
    assert [line.split()[0] for line in saga("list").out.splitlines()[1:]] == [
        "Parking:PR-2",
        "Order:PR-2",
        "Order:PR-1",
    ]
    assert [record["saga_id"] for record in saga("list", "--status", "completed", "--json").json] == ["Order:PR-1"]
    assert [record["saga_id"] for record in saga("list", "--saga", "Parking", "--json").json] == ["Parking:PR-2"]
    assert [record["saga_id"] for record in saga("list", "--limit", "1", "--json").json] == ["Parking:PR-2"]


@pytest.mark.usefixtures("three")
def test_a_list_that_was_cut_says_so(saga: Run) -> None:
    assert saga("list", "--limit", "2").err == "These are the newest 2; --limit shows more.\n"
    assert saga("list", "--limit", "4").err == ""


@pytest.mark.usefixtures("three")
def test_an_empty_list_says_so_and_is_an_empty_array_as_json(saga: Run) -> None:
    ran = saga("list", "--status", "running")
    assert (ran.code, ran.out, ran.err) == (0, "", "No executions like that.\n")
    assert saga("list", "--status", "running", "--json").json == []


@pytest.mark.usefixtures("three")
def test_the_journal_may_be_named_by_the_environment(saga: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "elsewhere").mkdir()
    monkeypatch.setenv("SAGA_JOURNAL_URL", "sqlite:///elsewhere/other.db")
    ran = saga("run", "cli_sagas:Parking", "bad.json")
    assert "--journal sqlite:///elsewhere/other.db" in ran.out.splitlines()[-1]
    assert len(saga("list", "--json").json) == 1


@pytest.mark.usefixtures("three")
def test_the_timeline_shows_attempts_errors_undos_the_cause_and_what_to_do(saga: Run) -> None:
    heading, _times, why, _, *table, _, again, advice = saga("show", "Parking:PR-2").out.splitlines()
    assert heading == "Parking:PR-2  PARKED"
    assert why == "parked at CannotUndo: compensate failed: the vendor is gone"
    assert table[0].split() == ["STEP", "STATUS", "ATTEMPTS", "AFTER", "TOOK", "NOTES"]
    assert table[1].split()[:3] == ["Reserve", "COMPLETED", "1"]
    assert table[2].split()[:3] == ["CannotUndo", "PARKED", "1"]
    assert re.search(r"undo took .*s, 2 attempts$", table[2])
    assert [line.strip() for line in table[3:6]] == [
        "ConnectionError: the vendor is gone",
        "cause: compensate failed: the vendor is gone",
        "next: undo it by hand; then saga resolve",
    ]
    assert table[6].endswith("StepRefused: nobody ships to the moon")
    assert "saga resume Parking:PR-2 CannotUndo" in again
    assert "saga resolve Parking:PR-2 CannotUndo" in advice


@pytest.mark.usefixtures("three")
def test_the_timeline_of_an_ended_execution_shows_its_answer(saga: Run) -> None:
    shown = saga("show", "Order:PR-2").out
    assert "\nanswered fail: nobody ships to the moon\n" in shown
    assert re.search(r"^Charge +COMPENSATED +1 .* undone in .*s$", shown, re.MULTILINE)


@pytest.mark.usefixtures("three")
def test_the_raw_journal_has_one_line_for_each_entry_and_masks_secrets(saga: Run, here: Path) -> None:
    shown = saga("show", "Parking:PR-2", "--entries")
    with Engine(f"sqlite:///{here / 'saga.db'}") as engine:
        names = [type(entry).__name__ for entry in engine.history("Parking:PR-2")]
    assert [line.split()[2] for line in shown.out.splitlines()[1:]] == names
    as_json = saga("show", "Parking:PR-2", "--entries", "--json")
    assert [entry["entry"] for entry in as_json.json["entries"]] == names
    assert as_json.json["request"]["api_key"] == "***"
    assert "s3cret" not in shown.out + as_json.out


ADVICE = ("To try it again:", "When it is dealt with:")


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize("columns", [80, 120])
def test_columns_stay_columns_in_a_narrow_window(
    saga: Run, monkeypatch: pytest.MonkeyPatch, columns: int, here: Path
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    for arguments in (["show", "Parking:PR-2"], ["list"]):
        lines = saga(*arguments).out.splitlines()
        header = next(line for line in lines if "NOTES" in line)
        at = header.index("NOTES")
        rows = [line for line in lines[lines.index(header) + 1 :] if line and not line.startswith(ADVICE)]
        assert max(map(len, [header, *rows])) <= columns
        assert all(row[at - 2 : at].strip() == "" for row in rows), "\n".join(rows)


# --- recover, resolve -------------------------------------------------------------------------------------------------


def test_recovery_takes_up_what_was_killed(saga: Run, here: Path) -> None:
    with start("run", "cli_sagas:Hanging", "good.json") as process:
        wait_for((here / "hanging").exists)
        process.kill()
    (here / "go-on").touch()
    ran = saga("recover")
    assert ran.code == 0
    assert "is taken over from" in ran.out
    assert "Hanging:PR-1 COMPLETED" in ran.out
    assert ran.out.endswith("Taken up 1, left alone 0, failed 0.\n")
    assert saga("recover").out == "Taken up 0, left alone 0, failed 0.\n"


def test_recovery_leaves_alone_what_has_no_services_says_why_and_exits_5(saga: Run) -> None:
    saga("run", "cli_sagas:ParkingWithoutServices", "bad.json")
    kept = saga("resolve", "ParkingWithoutServices:PR-2", "CannotUndo", "--note", "by hand")
    assert kept.code == 5
    assert "It is kept, but nothing went on here: ParkingWithoutServices has no services" in kept.out
    ran = saga("recover")
    assert ran.code == 5
    assert "ParkingWithoutServices:PR-2: not taken up: ParkingWithoutServices has no services" in ran.out
    assert "stuck: ParkingWithoutServices has no services" in saga("list", "--stuck").out
    as_json = saga("recover", "--json")
    assert (as_json.json["taken"], as_json.json["left_alone"], as_json.json["failed"]) == (0, 1, 0)
    assert list(as_json.json["reasons"]) == ["ParkingWithoutServices:PR-2"]


def test_recovery_finds_a_saga_that_has_moved_by_its_target(saga: Run, here: Path) -> None:
    shutil.copy(KIT / "cli_sagas.py", here / "old_place.py")
    finish(start("run", "old_place:Parking", "bad.json"))
    (here / "old_place.py").unlink()
    assert saga("resolve", "Parking:PR-2", "CannotUndo", "--note", "by hand").code == 5
    assert saga("recover").code == 5
    ran = saga("recover", "cli_sagas:Parking", "--json")
    assert (ran.code, ran.json["executions"]) == (0, [{"saga_id": "Parking:PR-2", "status": "COMPENSATED"}])


@pytest.mark.usefixtures("three")
def test_resolving_a_parked_step_lets_the_execution_go_on(saga: Run, here: Path) -> None:
    ran = saga("resolve", "Parking:PR-2", "CannotUndo", "--note", "refunded by hand", "--who", "ada")
    assert ran.code == 3
    assert "CannotUndo: resolved as undone by ada: refunded by hand" in ran.out
    assert "Reserve: undone" in ran.out
    with Engine(f"sqlite:///{here / 'saga.db'}") as engine:
        assert engine.get("Parking:PR-2").status is SagaStatus.COMPENSATED
    assert 'who="ada"' in saga("show", "Parking:PR-2", "--entries").out


@pytest.mark.usefixtures("three")
def test_resolving_what_is_not_parked_exits_2(saga: Run) -> None:
    ran = saga("resolve", "Parking:PR-2", "Reserve", "--note", "x")
    assert ran.code == 2
    assert "step 'Reserve' is not parked" in ran.err


# --- stopping ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("target", ["Hanging", "HangingAsync"])
def test_a_signal_gives_the_lease_back_and_says_how_to_go_on(
    saga: Run, here: Path, number: signal.Signals, code: int, target: str
) -> None:
    process = start("run", f"cli_sagas:{target}", "good.json")
    try:
        wait_for((here / "hanging").exists)
        process.send_signal(number)
        ran = finish(process)
    finally:
        process.kill()
    assert ran.code == code
    assert ran.err == (
        f"saga: stopped by {number.name}; {target}:PR-1 is SUSPENDED, "
        "go on with the same command, or with: saga recover\n"
    )
    record = saga("list", "--json").json[0]
    assert (record["status"], record["held_by"]) == ("SUSPENDED", None)
    if target == "Hanging":
        (here / "go-on").touch()
        assert saga("recover").code == 0
    else:
        assert (here / "let-go").exists()


def test_a_second_signal_ends_a_step_that_does_not_let_go(here: Path) -> None:
    process = start("run", "cli_sagas:Clinging", "good.json")
    try:
        wait_for((here / "hanging").exists)
        process.send_signal(signal.SIGTERM)
        wait_for((here / "stubborn").exists)
        process.send_signal(signal.SIGTERM)
        assert finish(process).code == -signal.SIGTERM
    finally:
        process.kill()


def is_suspended(saga: Run) -> bool:
    """Tell whether an execution is suspended; while the journal is being made, `list` has nothing to say yet."""
    listed = saga("list", "--status", "suspended", "--json")
    return listed.code == 0 and bool(listed.json)


def test_a_wait_can_be_stopped(saga: Run) -> None:
    process = start("run", "--wait", "--json", "cli_sagas:Polling", "good.json")
    try:
        wait_for(lambda: is_suspended(saga))
        process.send_signal(signal.SIGINT)
        ran = finish(process)
    finally:
        process.kill()
    assert (ran.code, ran.out) == (130, "")
    assert json.loads(ran.err)["error"]["type"] == "Stopped"


# --- on a terminal ----------------------------------------------------------------------------------------------------


class Terminal:
    """A command on a terminal of its own.

    Args:
        columns: how wide it is.
        arguments: the command.
    """

    def __init__(self, columns: int, *arguments: str) -> None:
        self._fd, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        self.process = start(*arguments, stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)
        self.raw = ""

    @property
    def text(self) -> str:
        return ANSI.sub("", self.raw)

    def read(self) -> bool:
        try:
            data = os.read(self._fd, 65_536)
        except OSError:  # the other end is closed
            return False
        self.raw += data.decode(errors="replace")
        return bool(data)

    def read_until(self, pattern: str) -> None:
        until = time.monotonic() + DEADLINE_S
        while not re.search(pattern, self.text):
            assert time.monotonic() < until, self.text
            assert self.read(), self.text

    def finish(self) -> int:
        while self.read():
            pass
        return self.process.wait(DEADLINE_S)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_error: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._fd)


@pytest.mark.parametrize("columns", [80, 120])
def test_progress_is_shown_while_a_step_runs(here: Path, columns: int) -> None:
    with Terminal(columns, "run", "cli_sagas:Hanging", "good.json") as terminal:
        terminal.read_until(r"Reserve +COMPLETED.*\s+Hang +RUNNING +1 +\d+ ms\s+Ship +PENDING")
        (here / "go-on").touch()
        assert terminal.finish() == 0
        assert re.search(r"Ship +COMPLETED[^\n]*\s+Hanging:PR-1 COMPLETED after \d", terminal.text)
        assert max(len(line) for line in re.split(r"[\r\n]+", terminal.text)) <= columns
        assert terminal.raw.rindex("\x1b[?25h") > terminal.raw.rindex("\x1b[?25l"), "the cursor is hidden"


def test_a_terminal_is_left_in_order_when_the_command_is_stopped(here: Path) -> None:
    with Terminal(80, "run", "cli_sagas:Hanging", "good.json") as terminal:
        terminal.read_until("Hang +RUNNING")
        wait_for((here / "hanging").exists)
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.finish() == 130
        assert "\x1b[?25h" in terminal.raw
        assert "saga: stopped by SIGINT; Hanging:PR-1 is SUSPENDED" in terminal.text


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize("is_colored", [True, False])
def test_a_terminal_gets_colors_unless_they_are_not_wanted(monkeypatch: pytest.MonkeyPatch, is_colored: bool) -> None:
    if not is_colored:
        monkeypatch.setenv("NO_COLOR", "1")
    with Terminal(80, "show", "Parking:PR-2") as terminal:
        assert terminal.finish() == 0
        assert ("\x1b[32mCOMPLETED" in terminal.raw) is is_colored
        assert max(len(line) for line in re.split(r"[\r\n]+", terminal.text) if "saga resolve P" not in line) <= 80


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_names_every_command_every_option_and_every_exit_code() -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    for name, command in main.commands.items():
        assert f"## saga {name}" in page
        assert f"`saga {name}" in page.partition("## Options")[0], "the table of commands"
        for option in (option for one in command.params if isinstance(one, click.Option) for option in one.opts):
            assert f"`{option}" in page, f"saga {name} {option}"
    assert re.findall(r"^\| (\d+) \|", page, re.MULTILINE) == ["0", "1", "2", "3", "4", "5", "130", "143"]


def test_help_shows_the_exit_codes(saga: Run) -> None:
    for arguments in (["--help"], ["run", "--help"]):
        ran = saga(*arguments)
        assert ran.code == 0
        assert "4  parked: a person has to resolve it" in ran.out
