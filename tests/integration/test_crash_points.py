"""Crash points: every saga is killed before and after every write, call and sleep, and again in its recovery.

By default one kill at every point with both drivers, and pairs (at every point, then at every point of the recovery)
with the sync driver. Where two kills leave the very same world, its recovery is killed for one of them only.
`SAGA_CRASH_POINTS=long` leaves none out, and adds pairs with the async driver and on SQLite, and triples.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from crash_oracle import judge
from crash_scenarios import SCENARIOS, Scenario, saga_for
from crashpoints import Carrier, Life, World, Written, by_recover, by_redelivery, by_redelivery_async, play

from saga_engine.journal import Journal
from saga_engine.journals import open_journal

IS_LONG = os.environ.get("SAGA_CRASH_POINTS") == "long"

each_scenario = pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name.replace(" ", "-"))
#: Those that SQLite and plain steps on an event loop see as well: one of each kind.
SAMPLE = tuple(
    scenario
    for scenario in SCENARIOS
    if scenario.name
    in ("success", "failure at d by exception", "probe says done", "undo retried", "rescheduled in the middle")
)
each_sample = pytest.mark.parametrize("scenario", SAMPLE, ids=lambda scenario: scenario.name.replace(" ", "-"))


class Trial:
    """Plays one scenario with kills, judges each story, and counts where it was really killed."""

    def __init__(self, scenario: Scenario, carry: Carrier, journal: Journal, is_async: bool = False) -> None:
        self.scenario = scenario
        self._carry = carry
        self._journal = journal
        self._is_async = is_async
        self._stories = 0
        self._left: set[tuple[object, ...]] = set()
        self.hits: Counter[tuple[int, ...]] = Counter()
        self.ends: Counter[str] = Counter()

    def play(self, *kills: int) -> World:
        """Play it once; every kill must have been one."""
        self._stories += 1
        scenario, is_async = self.scenario, self._is_async

        def saga(life: Life) -> object:
            return saga_for(scenario, life, is_async)

        world = World(self._journal, f"R-{self._stories}", saga, scenario.meanwhile)
        play(world, kills, self._carry)
        for number, life in enumerate(world.lives):
            assert life.is_dead == (number < len(kills)), f"{scenario.name}: life {number + 1} of {kills} was missed"
        self.hits[kills] += 1
        self.ends[world.header().status.value] += 1
        judge(world, scenario)
        return world

    def play_all(self, depth: int) -> None:
        """Play it without a kill, then with a kill at every point, then again at every point after that one."""
        clean = self.play()
        assert self.ends == {self.scenario.end: 1}
        assert len(clean.lives[0].points) >= self.scenario.points_min, clean.lives[0].points
        self._kill((), clean, depth)
        ends = {self.scenario.end, *self.scenario.ends}
        assert set(self.ends) == ends, f"no kill led to {ends - set(self.ends)}"

    def _kill(self, kills: tuple[int, ...], story: World, depth: int) -> None:
        points = story.lives[len(kills)].points
        for number, label in enumerate(points, 1):
            killed = self.play(*kills, number)
            assert killed.lives[len(kills)].points[-1] == label, "the same life passed other points than before"
            if depth > 1 and self._is_new(killed.left_by(len(kills) + 1)):
                self._kill((*kills, number), killed, depth - 1)
        missed = [number for number in range(1, len(points) + 1) if self.hits[(*kills, number)] != 1]
        assert not missed, f"never killed at {missed} after {kills}"

    def _is_new(self, left: tuple[object, ...]) -> bool:
        is_new = IS_LONG or left not in self._left
        self._left.add(left)
        return is_new


def memory() -> Journal:
    """A journal in memory, for all stories of a test."""
    return open_journal("memory://")


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """One event loop for all lives of a test."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Journal]:
    """One journal file for all stories of a test."""
    journal = open_journal(f"sqlite:///{tmp_path / 'saga.db'}")
    yield journal
    journal.close()


def on(loop: asyncio.AbstractEventLoop) -> Carrier:
    """Carry on by redelivery, on the loop."""
    return lambda life: loop.run_until_complete(by_redelivery_async(life))


@each_scenario
@pytest.mark.parametrize("carry", [by_redelivery, by_recover])
def test_a_saga_killed_at_any_point_and_again_in_its_recovery_comes_to_its_end(
    scenario: Scenario, carry: Carrier
) -> None:
    Trial(scenario, carry, memory()).play_all(depth=3 if IS_LONG and scenario.points_min < 25 else 2)


@each_scenario
def test_a_saga_of_async_steps_killed_at_any_point_comes_to_its_end(
    scenario: Scenario, loop: asyncio.AbstractEventLoop
) -> None:
    Trial(scenario, on(loop), memory(), is_async=True).play_all(depth=2 if IS_LONG else 1)


@each_sample
def test_a_saga_of_plain_steps_on_an_event_loop_killed_at_any_point_comes_to_its_end(
    scenario: Scenario, loop: asyncio.AbstractEventLoop
) -> None:
    Trial(scenario, on(loop), memory()).play_all(depth=1)


@each_sample
def test_a_saga_on_sqlite_killed_at_any_point_comes_to_its_end(scenario: Scenario, sqlite: Journal) -> None:
    Trial(scenario, by_redelivery, sqlite).play_all(depth=2 if IS_LONG else 1)


@each_sample
def test_a_saga_on_sqlite_and_an_event_loop_killed_at_any_point_comes_to_its_end(
    scenario: Scenario, loop: asyncio.AbstractEventLoop, sqlite: Journal
) -> None:
    Trial(scenario, on(loop), sqlite, is_async=True).play_all(depth=1)


def test_J01_a_clean_run_of_n_steps_is_n_plus_one_commits() -> None:
    world = Trial(SCENARIOS[0], by_redelivery, memory()).play()
    commits = [event for event in world.log if isinstance(event, Written)]
    assert len(commits) == len(SCENARIOS[0].scripts) + 1


def test_the_scenarios_pass_points_of_every_kind() -> None:
    """Or the wrappers would have stopped to see some."""
    kinds: set[str] = set()
    for scenario in SCENARIOS:
        kinds |= {label.partition(" ")[0] for label in Trial(scenario, by_redelivery, memory()).play().lives[0].points}
    what = ("append", "put", "sleep", "save", "should_execute", "execute", "probe", "compensate")
    assert kinds == {f"{name}.{when}" for name in what for when in ("before", "after")}


def test_after_its_crash_a_life_writes_calls_and_answers_nothing() -> None:
    """What the harness itself stands on: the world's log does not grow once a life is dead."""
    scenario = SCENARIOS[0]
    for kill in range(1, scenario.points_min + 1):
        world = World(memory(), "R-1", lambda life: saga_for(scenario, life))
        life = world.begin_life(kill)
        with pytest.raises(BaseException, match=r"^") as caught:
            by_redelivery(life)
        assert type(caught.value).__name__ == "Crash"
        assert type(world.log[-1]).__name__ == "Crashed"
