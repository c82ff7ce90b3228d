"""Crash points: every saga is killed before and after every write, call and sleep, and again in its recovery.

By default one kill at every point, with the sync driver, on an event loop and in the worker; and pairs (every point,
then every point of the recovery; for sagas with groups, pivots, persons and rights every fourth one) with the sync
driver. Where two kills leave the very same world, its recovery is killed for one of them only.
`SAGA_CRASH_POINTS=long` leaves none out, and adds pairs with the async driver and on SQLite, and triples; `short` kills
once in each story.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

import pytest
from crash_oracle import judge
from crash_scenarios import CORE, SCENARIOS, WHOLE, Child, Scenario, Side, Waiting, sagas_for
from crashpoints import Carrier, Life, World, Written, by_recover, by_redelivery, by_redelivery_async, by_worker, play

from saga_engine import Saga
from saga_engine.journal import AnyEntry, Journal
from saga_engine.journals import open_journal

FORM = os.environ.get("SAGA_CRASH_POINTS", "")
IS_LONG = FORM == "long"


def each(scenarios: Sequence[Scenario]) -> pytest.MarkDecorator:
    """Play each of these scenarios."""
    return pytest.mark.parametrize("scenario", scenarios, ids=lambda scenario: scenario.name.replace(" ", "-"))


#: How many kills in a story, and every how many points of a recovery it is killed, in sagas of the whole engine.
DEPTH, STRIDE = {"long": (2, 1), "": (2, 4), "short": (1, 1)}[FORM]
#: Those that SQLite and plain steps on an event loop see as well: one of each kind.
SAMPLE = tuple(
    scenario
    for scenario in SCENARIOS
    if scenario.name
    in ("success", "failure at d by exception", "probe says done", "undo retried", "rescheduled in the middle")
)
#: Those in which branches run beside each other, or something waits: an event loop has ways of its own for that.
BRANCHED = tuple(
    scenario
    for scenario in WHOLE
    if IS_LONG
    or any(isinstance(entry, (Side, Child, Waiting)) for entry in scenario.entries)
    or scenario.name.startswith("timed out")
)
#: Those that go on by themselves, as a worker carries nobody's word.
BY_THEMSELVES = tuple(
    scenario
    for scenario in (*SAMPLE, *WHOLE)
    if scenario.meanwhile is None and not scenario.beside and "suspend" not in str(scenario.entries)
)


class Trial:
    """Plays one scenario with kills, judges each story, and counts where it was really killed.

    `stride`: every how many points of a recovery it is killed again; each of them after some first kill. `is_exact`:
    the same life passes the same points again; the threads of a worker may be faster or slower than before.
    """

    def __init__(
        self, scenario: Scenario, carry: Carrier, journal: Journal, is_async: bool = False, stride: int = 1
    ) -> None:
        self._is_exact = carry is not by_worker
        self.scenario = scenario
        self._carry = carry
        self._journal = journal
        self._is_async = is_async
        self._stride = stride
        self._stories = 0
        self._left: set[tuple[object, ...]] = set()
        self.hits: Counter[tuple[int, ...]] = Counter()
        self.ends: Counter[str] = Counter()

    def play(self, *kills: int) -> World:
        """Play it once; every kill must have been one, save where a life may pass fewer points than before."""
        self._stories += 1
        scenario, is_async = self.scenario, self._is_async

        def saga(life: Life) -> tuple[type[Saga], ...]:
            return sagas_for(scenario, life, is_async)

        world = World(self._journal, f"R-{self._stories}", saga, scenario.meanwhile)
        play(world, kills, self._carry)
        is_hit = [life.is_dead for life in world.lives] == [True] * len(kills) + [False]
        assert is_hit or not self._is_exact, f"{scenario.name}: a life of {kills} was missed"
        self.hits[kills] += is_hit
        self.ends[world.header().status.value] += 1
        judge(world, scenario)
        return world

    def play_all(self, depth: int) -> None:
        """Play it without a kill, then with a kill at every point, then again at every point after that one."""
        clean = self.play()
        self.hits.clear()
        assert self.ends == {self.scenario.end: 1}
        assert len(clean.lives[0].points) >= self.scenario.points_min, clean.lives[0].points
        self._kill((), clean, depth)
        ends = {self.scenario.end, *self.scenario.ends}
        assert set(self.ends) == ends, f"no kill led to {ends - set(self.ends)}"

    def _kill(self, kills: tuple[int, ...], story: World, depth: int) -> None:
        points = story.lives[len(kills)].points
        numbers = [number for number in range(1, len(points) + 1) if self._is_due(number, kills)]
        for number in numbers:
            label = points[number - 1]
            killed = self.play(*kills, number)
            if self._is_exact:
                assert killed.lives[len(kills)].points[-1] == label, "the same life passed other points than before"
            if depth > 1 and self._is_new(killed.left_by(len(kills) + 1)):
                self._kill((*kills, number), killed, depth - 1)
        missed = [number for number in numbers if self.hits[(*kills, number)] != 1]
        assert len(missed) <= (0 if self._is_exact else len(points) // 5), f"never killed at {missed} after {kills}"

    def _is_due(self, number: int, kills: tuple[int, ...]) -> bool:
        return not kills or (number + kills[-1]) % self._stride == 0

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


@each(CORE)
@pytest.mark.parametrize("carry", [by_redelivery, by_recover])
def test_a_saga_killed_at_any_point_and_again_in_its_recovery_comes_to_its_end(
    scenario: Scenario, carry: Carrier
) -> None:
    """By default one scenario is killed in its recovery when it is redelivered, the next one when it is recovered."""
    depth = DEPTH if IS_LONG or carry is (by_redelivery, by_recover)[CORE.index(scenario) % 2] else 1
    Trial(scenario, carry, memory()).play_all(depth=3 if IS_LONG and scenario.points_min < 25 else depth)


@each(WHOLE)
@pytest.mark.parametrize("carry", [by_redelivery, by_recover] if IS_LONG else [None])
def test_S16_a_saga_of_the_whole_engine_killed_at_any_point_and_again_in_its_recovery_comes_to_its_end(
    scenario: Scenario, carry: Carrier | None
) -> None:
    """In the short form every other scenario is redelivered, and every other one recovered."""
    carry = carry or (by_redelivery, by_recover)[WHOLE.index(scenario) % 2]
    Trial(scenario, carry, memory(), stride=STRIDE).play_all(DEPTH)


@each(CORE)
def test_a_saga_of_async_steps_killed_at_any_point_comes_to_its_end(
    scenario: Scenario, loop: asyncio.AbstractEventLoop
) -> None:
    Trial(scenario, on(loop), memory(), is_async=True).play_all(depth=2 if IS_LONG else 1)


@each(BRANCHED)
def test_S21_a_saga_of_async_branches_killed_at_any_point_comes_to_its_end(
    scenario: Scenario, loop: asyncio.AbstractEventLoop
) -> None:
    Trial(scenario, on(loop), memory(), is_async=True).play_all(depth=2 if IS_LONG else 1)


@each(BY_THEMSELVES)
@pytest.mark.parametrize("is_async", [False, True] if IS_LONG else [False])
def test_a_saga_in_a_worker_killed_at_any_point_is_brought_to_its_end_by_another_worker(
    scenario: Scenario, is_async: bool
) -> None:
    Trial(scenario, by_worker, memory(), is_async).play_all(depth=2 if IS_LONG else 1)


@each(SAMPLE)
def test_a_saga_of_plain_steps_on_an_event_loop_killed_at_any_point_comes_to_its_end(
    scenario: Scenario, loop: asyncio.AbstractEventLoop
) -> None:
    Trial(scenario, on(loop), memory()).play_all(depth=1)


@each(SAMPLE)
def test_a_saga_on_sqlite_killed_at_any_point_comes_to_its_end(scenario: Scenario, sqlite: Journal) -> None:
    Trial(scenario, by_redelivery, sqlite).play_all(depth=2 if IS_LONG else 1)


@each(SAMPLE)
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
    what = ("append", "put", "purge", "sleep", "save", "should_execute", "execute", "probe", "compensate")
    assert kinds == {f"{name}.{when}" for name in what for when in ("before", "after")}


def test_the_scenarios_journal_entries_of_every_kind() -> None:
    """Or a rule would be left out of them: the hit counts of all points say which entries a kill came before."""
    seen: set[str] = set()
    for scenario in SCENARIOS:
        log = Trial(scenario, by_redelivery, memory()).play().log
        seen |= {fact.name for event in log if isinstance(event, Written) for fact in event.facts}
    every = {kind.__name__ for kind in get_args(AnyEntry)}
    assert every - seen == {"TakenOver", "DriveInterrupted", "CompensationDeclined"} & (every - seen)


def test_after_its_crash_a_life_writes_calls_and_answers_nothing() -> None:
    """What the harness itself stands on: the world's log does not grow once a life is dead."""
    scenario = SCENARIOS[0]
    for kill in range(1, scenario.points_min + 1):
        world = World(memory(), "R-1", lambda life: sagas_for(scenario, life))
        life = world.begin_life(kill)
        with pytest.raises(BaseException, match=r"^") as caught:
            by_redelivery(life)
        assert type(caught.value).__name__ == "Crash"
        assert type(world.log[-1]).__name__ == "Crashed"
