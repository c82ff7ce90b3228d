"""The benchmarks run, in their shortest form, and write what they found; nothing here asserts a time."""

from __future__ import annotations

import json
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from benchmarks import filling, journal_size, throughput
from benchmarks.child import ChildFailed, run_child
from benchmarks.filling import Standing, fill
from benchmarks.load import in_tasks, in_threads
from benchmarks.peers import __main__ as peers
from benchmarks.peers import environments
from benchmarks.peers.environments import NotInstallable, environment_of
from benchmarks.peers.programs.order import check_undone
from benchmarks.peers.roster import ROSTER, Interpreter, Peer
from benchmarks.report import Table
from benchmarks.rounds import Spread, in_turn
from saga_engine import Engine, SagaStatus

SHORT_S = 0.05
OURS = next(peer for peer in ROSTER if peer.program == "saga_engine_cases" and peer.case == "memory")


def invoke(command: Any, *arguments: str) -> str:
    """Run a command in this process and give what it printed."""
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def compare(*compared: Peer, venvs: Path) -> peers.Figures:
    return peers.compare(compared, [1], SHORT_S, 2, venvs, say=lambda text: None)


def test_throughput_measures_the_floor_and_every_way_to_run_a_saga() -> None:
    figures = json.loads(invoke(throughput.main, "--seconds", str(SHORT_S), "--repeat", "1", "--json"))
    assert throughput.FLOOR in figures
    assert {name.split(",")[1].strip() for name in figures if "," in name} == {"resolve", "aresolve", "worker"}
    assert all(len(values) == 1 and values[0] > 0 for values in figures.values())


def test_an_aim_is_scaled_by_the_floor_of_the_run() -> None:
    case = "SQLite, resolve, 64 threads"
    table = throughput.table_of({throughput.FLOOR: [2_000.0], case: [500.0]})
    row = next(row for row in table.rows if row[0] == case)
    assert row[2] == "150%"  # of 2,000 / 6
    assert row[3:] == ("2,000", "25%", "1,000", "50%")  # half of the floor that the aim is for


def test_peers_writes_a_table_and_every_figure(tmp_path: Path) -> None:
    arguments = ["--only", OURS.name, "--at-once", "1,2", "--seconds", str(SHORT_S), "--repeat", "2", "--no-plot"]
    invoke(peers.main, *arguments, "--out", str(tmp_path), "--venvs", str(tmp_path / "venvs"))
    figures = json.loads((tmp_path / "peers.json").read_text())
    (row,) = figures["rows"]
    assert [(cell["at_once"], len(cell["sagas_a_second"])) for cell in row["cells"]] == [(1, 2), (2, 2)]
    table = (tmp_path / "peers.md").read_text()
    assert OURS.name in table
    assert f"{figures['machine']['cores']} cores" in table


def test_a_peer_without_a_fitting_python_is_shown_with_the_reason(tmp_path: Path) -> None:
    peer = Peer("another", "none", "", "tasks", "nothing", ("another==1",), "Python 9", lambda python: False)
    figures = compare(peer, OURS, venvs=tmp_path)
    table = peers.table_of(figures)
    assert table.rows[0][-1] == "-"
    assert "another, 1 at once: not installable here: needs Python 9." in table.notes
    assert figures.rows[1].cells[0].sagas_a_second


def test_a_peer_that_cannot_be_installed_says_what_the_installer_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installer = tmp_path / "python"
    installer.write_text("#!/bin/sh\necho 'no such package' >&2\nexit 1\n")
    installer.chmod(0o755)
    monkeypatch.setattr(environments, "_interpreters", lambda: (Interpreter(str(installer), (3, 12), (3, 45)),))
    with pytest.raises(NotInstallable, match="not installable here: no such package"):
        environment_of(Peer("another", "none", "", "tasks", "nothing", ("another==1",)), tmp_path / "venvs")


def test_a_peer_that_fails_is_shown_with_its_error_and_not_tried_again(tmp_path: Path) -> None:
    figures = compare(Peer("broken", "no_such_program", "", "tasks", "nothing"), venvs=tmp_path)
    (cell,) = figures.rows[0].cells
    assert cell.sagas_a_second == []
    assert cell.failed.startswith("failed: ")
    assert "no_such_program" in cell.failed


def test_a_program_that_hangs_is_ended(tmp_path: Path) -> None:
    with pytest.raises(ChildFailed, match=r"not done after 0\.2 s"):
        run_child("benchmarks.peers", "--only", OURS.name, "--out", str(tmp_path), limit_s=0.2)


def test_a_peer_that_undoes_in_another_order_is_refused() -> None:
    check_undone([4, 3, 2, 1])
    check_undone([5, 4, 3, 2, 1])
    with pytest.raises(RuntimeError, match="not fair"):
        check_undone([1, 2, 3, 4])


def test_journal_size_measures_costs_recovery_and_a_worker_beside_suspended_ones(tmp_path: Path) -> None:
    arguments = ["--sizes", "0,3", "--sagas", "2", "--repeat", "2", "--recover", "3", "--suspended", "3", "--no-plot"]
    invoke(journal_size.main, *arguments, "--out", str(tmp_path), "--journals", str(tmp_path))
    figures = json.loads((tmp_path / "journal_size.json").read_text())
    assert [(cost["size"], len(cost["first_commit_ms"])) for cost in figures["costs"]] == [(0, 2), (3, 2)]
    assert [recovery["ended"] for recovery in figures["recoveries"].values()] == [3, 3]
    assert set(figures["suspended"]) == {"0", "3"}
    assert (tmp_path / "journal_size.md").read_text().count("\n## ") == 3
    assert list(tmp_path.glob("**/*.db")) == []


@pytest.mark.parametrize(
    ("standing", "status"),
    [("finished", "COMPLETED"), ("unfinished", "RUNNING"), ("suspended", "SUSPENDED")],
)
def test_a_filled_journal_holds_whole_executions_of_their_own(tmp_path: Path, standing: Standing, status: str) -> None:
    fill(tmp_path / "saga.db", standing, 5)
    with Engine(f"sqlite:///{tmp_path}/saga.db") as engine:
        records = engine.search(limit=10)
        histories = [engine.history(record.saga_id) for record in records]
    assert len({record.saga_id for record in records}) == 5
    assert {record.status for record in records} == {SagaStatus(status)}
    assert [getattr(history[0], "saga_id", None) for history in histories] == [record.saga_id for record in records]
    assert len({len(history) for history in histories}) == 1


def test_a_filled_journal_of_several_transactions_lacks_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "_COPIES_A_COMMIT", 2)
    fill(tmp_path / "saga.db", "finished", 6)
    connection = sqlite3.connect(tmp_path / "saga.db")
    counts = connection.execute("SELECT count(*), count(DISTINCT eid) FROM entries").fetchone()
    connection.close()
    assert counts == (6 * 6, 6)


def test_unfinished_copies_can_be_recovered(tmp_path: Path) -> None:
    fill(tmp_path / "saga.db", "unfinished", 4)
    with Engine(f"sqlite:///{tmp_path}/saga.db") as engine:
        assert engine.recover() == 4
        assert {record.status for record in engine.search()} == {SagaStatus.COMPLETED}


@pytest.mark.parametrize("command", [peers.main, journal_size.main], ids=["peers", "journal_size"])
def test_without_matplotlib_nothing_is_measured_before_that_is_said(
    command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = CliRunner().invoke(command, ["--out", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert "--no-plot" in result.output
    assert not (tmp_path / "out").exists()


def test_both_plots_are_drawn_as_png_and_svg(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    arguments = ["--only", OURS.name, "--at-once", "1", "--seconds", str(SHORT_S), "--repeat", "1"]
    run_child("benchmarks.peers", *arguments, "--out", str(tmp_path))
    arguments = ["--sizes", "0,3", "--sagas", "2", "--repeat", "1", "--recover", "0", "--suspended", "0"]
    run_child("benchmarks.journal_size", *arguments, "--out", str(tmp_path))
    for name in ("peers", "journal_size"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "</svg>" in (tmp_path / f"{name}.svg").read_text()
        assert f"![{name}]({name}.svg)" in (tmp_path / f"{name}.md").read_text()


def test_cases_run_in_turn_and_not_one_after_the_other() -> None:
    order: list[str] = []

    def case(name: str) -> float:
        order.append(name)
        return float(len(order))

    figures = in_turn({"a": lambda: case("a"), "b": lambda: case("b")}, repeat=2)
    assert order == ["a", "b", "a", "b"]
    assert figures == {"a": [1.0, 3.0], "b": [2.0, 4.0]}


def test_a_spread_is_the_median_with_the_least_and_the_most() -> None:
    assert str(Spread.of([3.0, 1_234.5, 20.0])) == "20.0 (3.00..1,234)"


def test_a_table_is_markdown_whose_cells_cannot_break_it() -> None:
    table = Table("Title", ("case", "figure"), (("a|b", "1"),), notes=("note",))
    assert table.markdown() == "## Title\n\n| case | figure |\n| :-- | --: |\n| a\\|b | 1 |\n\nnote\n"


def test_a_load_counts_every_run_and_tells_the_error_of_one() -> None:
    done: list[int] = []
    rate = in_threads(done.append, at_once=3, seconds=SHORT_S)
    assert rate > 0
    assert sorted(done) == list(range(len(done)))

    def fail(number: int) -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        in_threads(fail, at_once=3, seconds=SHORT_S)


@pytest.mark.anyio
async def test_a_load_of_tasks_tells_the_error_of_one() -> None:
    async def fail(number: int) -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await in_tasks(fail, at_once=3, seconds=SHORT_S)
