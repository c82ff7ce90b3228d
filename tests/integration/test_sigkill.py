"""Real processes on SQLite, killed by SIGKILL at points of a saga; another process recovers, and the oracle judges."""

from __future__ import annotations

import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import crash_child
import pytest
from crash_child import CARRIERS, scenario_of, world_in
from crash_oracle import judge
from crash_scenarios import sagas_for
from crashpoints import Called, Life, World, Written, play

from saga_engine.journals import open_journal

#: How long a process may take to get to its point; it is killed then.
TO_POINT_MAX_S = 60.0


@contextmanager
def child(folder: Path, scenario: str, life: int, dies_at: int, how: str) -> Iterator[subprocess.Popen[str]]:
    """Start a process; it does not outlive the block."""
    arguments = [str(folder), scenario, str(life), str(dies_at), how]
    process = subprocess.Popen(
        [sys.executable, crash_child.__file__, *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def told_by(process: subprocess.Popen[str]) -> str:
    """The line that the process writes when it is where it was told to go."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], TO_POINT_MAX_S)
    assert ready, f"the process said nothing for {TO_POINT_MAX_S} s"
    line = process.stdout.readline().strip()
    assert line, process.communicate()[1]
    return line


def points_of(scenario: str, kills: tuple[int, ...], how: str) -> list[str]:
    """The points of the life after these kills, found out in this process."""
    found = scenario_of(scenario)
    journal = open_journal("memory://")
    world = play(World(journal, "R-1", lambda life: sagas_for(found, life), found.meanwhile), kills, CARRIERS[how])
    return world.lives[-1].points


def live(folder: Path, scenario: str, life: int, dies_at: int, how: str) -> None:
    """Let one process live, until it is killed at that point, or until the execution is at rest."""
    with child(folder, scenario, life, dies_at, how) as process:
        label = told_by(process)
        if not dies_at:
            assert label == "at rest", label
            assert process.wait(TO_POINT_MAX_S) == 0
            return
        process.kill()
        assert process.wait(TO_POINT_MAX_S) == -9, "it was not the kill that ended it"
    with world_of(folder, scenario, life) as world:
        world.log.append(world.crashed(life, label))


@contextmanager
def world_of(folder: Path, scenario: str, life: int) -> Iterator[World]:
    """Open what earlier lives left; the journal, the ledger and the log are given back after the block."""
    world = world_in(folder, scenario_of(scenario), life)
    try:
        yield world
    finally:
        world.journal.close()
        world.vendor.close()  # type: ignore[attr-defined]  # a VendorFile
        world.log.close()  # type: ignore[attr-defined]  # a LogFile


def kill_and_judge(folder: Path, scenario: str, kills: tuple[int, ...], how: str) -> None:
    """Kill one process after the other, let the last one recover, and judge the whole story."""
    for number, dies_at in enumerate((*kills, 0), 1):
        live(folder, scenario, number, dies_at, how)
    with world_of(folder, scenario, len(kills) + 2) as world:
        world.life_type = None
        world.has_workers = how == "work"
        world.lives = [Life(world, number, None) for number in range(1, len(kills) + 2)]
        told = {event.life for event in world.log if isinstance(event, (Called, Written))}
        assert told <= set(range(1, len(kills) + 2))
        judge(world, scenario_of(scenario))


#: Evenly over the saga: the first and the last point, and in between.
SAMPLE = (0.0, 0.3, 0.55, 0.8)


@pytest.mark.parametrize("where", SAMPLE)
@pytest.mark.parametrize(
    ("scenario", "how"),
    [("success", "deliver"), ("failure at d by exception", "recover"), ("rescheduled in the middle", "deliver")],
)
def test_J04_S16_a_saga_whose_process_is_killed_is_brought_to_its_end_by_another_process(
    scenario: str, how: str, where: float, tmp_path: Path
) -> None:
    points = points_of(scenario, (), how)
    kill_and_judge(tmp_path, scenario, (1 + round(where * (len(points) - 1)),), how)


@pytest.mark.parametrize("scenario", ["undo retried", "probe says done"])
def test_J04_S16_a_saga_whose_recovery_is_killed_too_is_brought_to_its_end(scenario: str, tmp_path: Path) -> None:
    first = 2 * len(points_of(scenario, (), "recover")) // 3
    second = len(points_of(scenario, (first,), "recover")) // 2
    kill_and_judge(tmp_path, scenario, (first, second), "recover")


@pytest.mark.parametrize(
    ("scenario", "how", "where"),
    [
        ("one branch committed and one running", "deliver", 0.7),
        ("one branch committed and one running", "work", 0.6),
        ("a failure in a group in a group", "recover", 0.8),
        ("a child completed, then undone", "work", 0.9),
        ("pivot, probe says done", "recover", 0.5),
        ("a signal that is waited for", "deliver", 0.7),
        ("undo parked, then resumed", "recover", 0.8),
        ("completed, then undone", "recover", 0.6),
        ("one of two has the right", "deliver", 0.5),
        ("a later order undoes it", "recover", 0.7),
        ("a late effect after the end", "deliver", 0.9),
    ],
)
def test_S16_a_saga_of_the_whole_engine_whose_process_is_killed_is_brought_to_its_end_by_another_process(
    scenario: str, how: str, where: float, tmp_path: Path
) -> None:
    points = points_of(scenario, (), how)
    kill_and_judge(tmp_path, scenario, (1 + round(where * (len(points) - 1)),), how)
