"""Every point at which a process can die, for groups, children, pivots, signals, rights and people's commands.

A point is a moment before or after a journal call that writes, or in the middle of a step's call before or after its
effect. Each story is played once to count its points. Then it is played again for each point: the process dies there;
another one plays the story once more, dies at the next point of the same kind if it comes to one, and a third one, that
lives, plays it to the end. Native async steps on one loop make the order of the points the same each time.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress

import pytest
from connect.eaas.core.responses import BackgroundResponse
from sagas import Crash, stable_id
from tenacity import stop_after_attempt

from saga_engine import Chain, Engine, Exclusive, Parallel, Saga, SagaStatus, WaitFor, current_context
from saga_engine.errors import NotAllowed
from saga_engine.journal import StepCompensated, StepCompleted, StepStarted
from saga_engine.journals import open_journal
from saga_engine.testing import ManualClock
from transactions import BackgroundTransaction, Kind, Probe, RetryPolicy

DONE = BackgroundResponse.done()
DEADLY = ("append", "put", "purge")


class World:
    """The vendor, who honours idempotency keys, and the fate of the processes."""

    def __init__(self):
        self.effects, self.undone, self.acts = {}, set(), Counter()
        self.passed, self.dies_at, self.is_dead = 0, (), False

    def live(self, dies_at=None):
        """Begin another life; it ends at that point."""
        self.passed, self.dies_at, self.is_dead = 0, dies_at, False

    def point(self):
        """Pass a point, or die there; the dead do nothing any more."""
        if self.is_dead:
            raise Crash
        self.passed += 1
        if self.passed == self.dies_at:
            self.is_dead = True
            raise Crash

    def left(self):
        """Name the steps whose effect is there."""
        return sorted(step for key, step in self.effects.items() if key not in self.undone)


class Fated:
    """A journal as a process sees it that may die at any of its writes."""

    def __init__(self, journal, world):
        self._journal, self._world, self._held = journal, world, {}
        self.url = journal.url

    def __getattr__(self, name):
        if self._world.is_dead:
            raise Crash
        found = getattr(self._journal, name)
        return self._deadly(found) if name in DEADLY else found

    def _deadly(self, call):
        def write(*arguments, **options):
            self._world.point()
            result = call(*arguments, **options)
            if hasattr(result, "epoch"):
                self._held[result.eid] = result.epoch
            self._world.point()
            return result

        return write

    def submit(self, commit, done):
        done(self.append(commit))

    def bury(self):
        """Let the next process see that this one is gone."""
        for eid, epoch in self._held.items():
            self._journal.abandon(eid, epoch)


def step(name, kind=Kind.COMPENSATABLE, answers=(DONE,), probe=None, **attributes):
    """Make a step; `answers` are what its attempts give, the last one again and again."""

    async def execute(self, request):
        world, context = request_world[0], current_context()
        world.point()
        answer = answers[min(context.attempt, len(answers)) - 1]
        if answer is not BEFORE and getattr(answer, "status", None) != "fail":
            world.effects[context.idempotency_key] = name
        world.acts[name] += 1
        world.point()
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def compensate(self, request, e):
        world = request_world[0]
        world.point()
        world.undone.add(current_context().execute_key)
        world.point()
        return DONE

    async def ask(self, request):
        is_there = current_context().execute_key in request_world[0].effects
        return Probe.DONE if is_there else Probe.NOT_DONE

    body = {"execute": execute, "compensate": compensate, "kind": kind, "name": lambda self: name, **attributes}
    return type(name, (BackgroundTransaction,), body if probe is None else {**body, "probe": ask})


#: The world of the story that is being played: steps are built anew by the engine, and find it here.
request_world: list[World] = []
FAIL, LATE, BEFORE = BackgroundResponse.fail("no"), ValueError("after the work"), ValueError("before the work")
ONCE, TWICE, FOR_EVER = RetryPolicy(stop=stop_after_attempt(1)), RetryPolicy(stop=stop_after_attempt(20)), RetryPolicy()


def saga(*entries, name="Order", **attributes):
    body = {"transactions": lambda self, request: list(entries), "recoveries_max": 100, "__module__": __name__}
    return type(name, (Saga,), {**body, **attributes})


def deliver(engine, kind, number="1"):
    request = {"id": number}
    return asyncio.run(kind.make(engine=engine).aresolve(request))


def plain(kind):
    def play(engine):
        deliver(engine, kind)

    return kind, play


def said(kind, say, while_status):
    """Deliver, then say something as a person would who looks first."""

    def play(engine):
        deliver(engine, kind)
        with suppress(NotAllowed):
            if engine.get("Order:1").status is while_status:
                say(engine)

    return kind, play


A, B, C, D, E = (step(name) for name in "abcde")
REFUSED = step("x", answers=(FAIL,))
CHILD = saga(step("k"), step("l"), name="Kid")
GROUP = (A, Parallel(Chain(B, C), D))
PIVOT = step("p", Kind.PIVOT)
TRIES = step("r", Kind.RETRIABLE, (BEFORE, LATE, FAIL, DONE), retry=FOR_EVER)
SENT = lambda engine: engine.signal("Order:1", "go", 1)  # noqa: E731
RIGHT = Exclusive(key=lambda request: "AS-1")

COMPLETED = SagaStatus.COMPLETED
UNDONE = SagaStatus.COMPENSATED

#: Name: the story, what is left at the vendor at each end that it may come to (without a crash: the first one), and the
#: order of the undos at that end.
STORIES = {
    "group": (plain(saga(*GROUP, E)), {COMPLETED: "abcde"}, ""),
    "group that fails": (plain(saga(A, Parallel(Chain(B, C), D, REFUSED))), {UNDONE: ""}, "dba"),
    "step behind a group fails": (plain(saga(*GROUP, REFUSED)), {UNDONE: ""}, "cdba"),
    "groups in groups": (plain(saga(Parallel(Chain(A, Parallel(B, C)), D), E)), {COMPLETED: "abcde"}, ""),
    "child": (plain(saga(A, CHILD, B)), {COMPLETED: "abkl"}, ""),
    "child that fails": (plain(saga(A, saga(B, REFUSED, name="Kid"))), {UNDONE: ""}, "ba"),
    "child undone": (plain(saga(A, CHILD, REFUSED)), {UNDONE: ""}, "lka"),
    "child in a branch": (plain(saga(Parallel(CHILD, A), REFUSED)), {UNDONE: ""}, "lak"),
    "failed child first": (
        plain(saga(Parallel(saga(B, REFUSED, name="Kid"), Chain(C, D, E)))),
        {UNDONE: ""},
        "bdc",
    ),
    "pivot": (plain(saga(A, PIVOT, TRIES, step("o", Kind.RETRIABLE))), {COMPLETED: "apor"}, ""),
    "pivot done": (plain(saga(A, step("p", Kind.PIVOT, (LATE,), probe=True))), {COMPLETED: "ap"}, ""),
    "pivot not done": (plain(saga(A, step("p", Kind.PIVOT, (BEFORE,), probe=True))), {UNDONE: ""}, "a"),
    "pivot refused": (plain(saga(A, step("p", Kind.PIVOT, (FAIL,)))), {UNDONE: ""}, "a"),
    "interrupted is undone": (
        plain(saga(A, step("b", on_unknown="compensate"), C)),
        {COMPLETED: "abc", UNDONE: ""},
        "",
    ),
    "signal": (said(saga(A, WaitFor("go"), B), SENT, SagaStatus.SUSPENDED), {COMPLETED: "ab"}, ""),
    "signal into a branch": (
        said(saga(Parallel(Chain(A, WaitFor("go"), B), C), D), SENT, SagaStatus.SUSPENDED),
        {COMPLETED: "abcd"},
        "",
    ),
    "cancelled": (
        said(saga(*GROUP, WaitFor("go"), E), lambda engine: engine.cancel("Order:1", "no"), SagaStatus.SUSPENDED),
        {SagaStatus.CANCELLED: ""},
        "cdba",
    ),
    "undone": (
        said(saga(*GROUP, CHILD), lambda engine: engine.undo("Order:1"), SagaStatus.COMPLETED),
        {UNDONE: ""},
        "lkcdba",
    ),
    "skipped by hand": (
        said(
            saga(A, WaitFor("go"), B),
            lambda engine: engine.skip("Order:1", "Wait for go", state={"go": 1}),
            SagaStatus.SUSPENDED,
        ),
        {COMPLETED: "ab"},
        "",
    ),
    "resumed": (
        said(
            saga(A, PIVOT, step("r", Kind.RETRIABLE, (BEFORE, DONE), retry=ONCE, is_idempotent=True)),
            lambda engine: engine.resume("Order:1"),
            SagaStatus.PARKED,
        ),
        {COMPLETED: "apr"},
        "",
    ),
    "exclusive": (plain(saga(*GROUP, E, exclusive=RIGHT)), {COMPLETED: "abcde"}, ""),
    "retries": (plain(saga(A, step("r", answers=(LATE, BEFORE, DONE), retry=TWICE), B)), {COMPLETED: "abr"}, ""),
}


class Played:
    """One story on one journal."""

    def __init__(self, url, story):
        (self.kind, self.play), self.ends, self.order = STORIES[story]
        self.journal, self.clock, self.world = open_journal(url), ManualClock(), World()
        request_world[:] = [self.world]

    def life(self, dies_at=None):
        """Play the story as a process that dies at that point; tell how many points it passed."""
        self.world.live(dies_at)
        fated = Fated(self.journal, self.world)
        engine = Engine(fated, clock=self.clock, config={}, sagas=[self.kind])
        with suppress(Crash):
            self._go_on(engine, 3)
        self.world.is_dead = True
        fated.bury()
        return self.world.passed

    def _go_on(self, engine, times):
        for _ in range(times):
            self.play(engine)
            self.clock.advance(4_000)
            engine.recover()

    def judge(self):
        engine = Engine(self.journal, clock=self.clock, config={}, sagas=[self.kind])
        self.world.live()
        self._go_on(engine, 4)
        record, history = engine.get("Order:1"), engine.history("Order:1")
        assert record.status in self.ends, record
        assert self.world.left() == sorted(self.ends[record.status]), record
        _nothing_ran_after_it_was_done(history)
        undos = [entry.step[-1] for entry in history if isinstance(entry, StepCompensated)]
        if len(self.ends) == 1:  # a step that the crash interrupted may have had nothing to undo
            assert undos == [name for name in self.order if name in undos], undos
        return undos


def _nothing_ran_after_it_was_done(history):
    done, undone = set(), Counter()
    for entry in history:
        if isinstance(entry, StepStarted):
            assert entry.step not in done, f"{entry.step} ran again after it had completed"
        elif isinstance(entry, StepCompleted):
            done.add(entry.step)
        elif isinstance(entry, StepCompensated):
            undone[entry.step] += 1
    assert set(undone.values()) <= {1}, f"an undo that was journaled as completed ran again: {undone}"


@pytest.mark.parametrize("story", STORIES, ids=stable_id)
def test_S16_wherever_a_process_dies_the_story_ends_as_it_should(story):
    first = Played("memory://", story)
    points = first.life()
    assert first.judge() == list(first.order)
    assert points >= 8
    for dies_at in range(1, points + 1):
        played = Played("memory://", story)
        assert played.life(dies_at) == dies_at, "every point is hit"
        played.life(dies_at=1 + dies_at % 7)
        played.judge()
