"""Crash points: lives of a process that end where they are told to, around a world that outlives them.

A `World` holds what a crash leaves standing: the journal, the vendor, the time, and the log of all that happened.
A `Life` is one process: an engine on the world's journal, whose every journal write, step call and sleep passes
through numbered *points*. At the point where it is to die a `Crash` is raised, after which nothing of that life
reaches the journal, the vendor or the clock any more, and its lease counts as dead.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from connect.eaas.core.responses import BackgroundResponse
from msgspec import Struct

from saga_engine import Engine, Saga, SagaStatus
from saga_engine.journal import AppendResult, Commit, Committed, Entry, Header, Journal, Loaded

__all__ = ["Answered", "Called", "Crash", "Crashed", "Fact", "Life", "Saved", "Vendor", "Written", "World", "play"]

#: Deliveries (or recoveries) within which every scripted execution comes to rest.
DELIVERIES_MAX = 40


#: Thousands of stories are told in a minute: their warnings are expected, and only slow them down.
_silent = logging.getLogger("crashpoints")
_silent.setLevel(logging.CRITICAL + 1)


class Crash(BaseException):
    """The process died here. No `Exception`, so that nothing but the harness can catch it."""


# --- the log ------------------------------------------------------------------------------------------------------


class Fact(Struct, frozen=True):
    """One durable entry, as far as the oracle looks at it; `answer` is a probe's, or "refused" for a `fail`."""

    name: str
    step: str | None
    answer: str | None
    attempt: int | None
    status: str | None


class Written(Struct, frozen=True, tag=True):
    """A commit became durable."""

    life: int
    facts: tuple[Fact, ...]
    is_release: bool


class Called(Struct, frozen=True, tag=True):
    """A step was called; `seen` is `context.state` as the call found it."""

    life: int
    operation: str
    step: str
    key: str
    seen: dict[str, Any]


class Saved(Struct, frozen=True, tag=True):
    """`context.save()` returned to a step's `execute`."""

    life: int
    step: str


class Answered(Struct, frozen=True, tag=True):
    """Somebody who delivered was answered."""

    life: int
    status: str
    output: str | None


class Crashed(Struct, frozen=True, tag=True):
    """The life ended; `mail` is how many messages were ever left, `is_meanwhile_done` as in `World`."""

    life: int
    label: str
    now: float
    mail: int
    is_meanwhile_done: bool


Event = Written | Called | Saved | Answered | Crashed


def fact_of(entry: Entry) -> Fact:
    """Reduce an entry to what the oracle looks at."""
    answer, status = getattr(entry, "answer", None), getattr(entry, "status", None)
    refused = "refused" if getattr(entry, "is_refusal", False) else None
    return Fact(
        name=type(entry).__name__,
        step=getattr(entry, "step", None),
        answer=refused if answer is None else str(answer.value),
        attempt=getattr(entry, "attempt", None),
        status=None if status is None else str(status.value),
    )


# --- what outlives a crash ----------------------------------------------------------------------------------------


class Vendor:
    """The other side: creates and deletes things, and honours idempotency keys as a good API does.

    Attributes:
        created: execute key -> the step that it was for, once for each thing that ever came to be.
        deleted: execute keys of the things that are gone.
        undo_keys: undo key -> execute key.
    """

    def __init__(self) -> None:
        self.created: dict[str, str] = {}
        self.deleted: set[str] = set()
        self.undo_keys: dict[str, str] = {}

    def create(self, key: str, step: str) -> None:
        """Create a thing; asked again with the same key, it is the same thing."""
        self.created.setdefault(key, step)

    def delete(self, undo_key: str, key: str) -> None:
        """Delete the thing, if it is there; asked again with the same undo key, nothing more happens."""
        if self.undo_keys.setdefault(undo_key, key) == key and key in self.created:
            self.deleted.add(key)

    def has(self, key: str) -> bool:
        """Tell whether the thing is there."""
        return key in self.created and key not in self.deleted

    def live(self) -> list[str]:
        """Name the step of each thing that is there."""
        return sorted(step for key, step in self.created.items() if key not in self.deleted)


@dataclass
class World:
    """All that a crash leaves standing, for one execution.

    Attributes:
        journal: the real one.
        key: what the request's id is.
        saga: makes the saga whose steps belong to a life.
        meanwhile: what somebody does once, as soon as the execution waits.
        now: the time in seconds.
        calls: how often each (operation, step) was called, by all lives.
        life_type: another kind of life than `Life`.
    """

    journal: Journal
    key: str
    saga: Callable[[Life], type[Saga]]
    meanwhile: Callable[[Engine, str], None] | None = None
    vendor: Vendor = field(default_factory=Vendor)
    now: float = 1_700_000_000.0
    log: list[Event] = field(default_factory=list)
    lives: list[Life] = field(default_factory=list)
    calls: Counter[tuple[str, str]] = field(default_factory=Counter)
    is_meanwhile_done: bool = False
    mail: int = 0
    life_type: type[Life] | None = None

    @property
    def saga_id(self) -> str:
        """The execution."""
        return f"Scripted:{self.key}"

    def begin_life(self, dies_at: int | None = None) -> Life:
        """Start a process that dies at its point of that number, from 1."""
        life = (self.life_type or Life)(self, len(self.lives) + 1, dies_at)
        self.lives.append(life)
        return life

    def crashed(self, life: int, label: str) -> Crashed:
        """Give the event of a crash at that point."""
        return Crashed(life, label, self.now, self.mail, self.is_meanwhile_done)

    def bury(self) -> None:
        """Let the dead life's lease count as dead, as the operating system does for a real process."""
        header = self.header()
        if header is not None and header.drive is not None:
            self.journal.abandon(header.eid, header.epoch)

    def header(self) -> Header | None:
        """Give the execution's header, past every wrapper."""
        return self.journal.header(self.saga_id)

    def left_by(self, life: int) -> tuple[Any, ...]:
        """Give all that the crash of that life left standing, in a form that is good to compare.

        Scripts depend on the calls before them, and what is at the vendor on the calls; a question asked of
        `should_execute` leaves nothing.
        """
        left: list[Any] = []
        for event in self.log:
            if isinstance(event, Written):
                left.append((event.facts, event.is_release))
            elif isinstance(event, Called) and event.operation != "should_execute":
                left.append((event.operation, event.step))
            elif isinstance(event, Crashed) and event.life == life:
                return (*left, event.now, event.mail, event.is_meanwhile_done)
        raise AssertionError(f"life {life} did not crash")

    def is_at_rest(self) -> bool:
        """Tell whether the execution ended or parked."""
        header = self.header()
        return header is not None and (header.status.is_ended or header.status is SagaStatus.PARKED)


# --- one process --------------------------------------------------------------------------------------------------


class Life:
    """One process, from its start to its end or its crash."""

    def __init__(self, world: World, number: int, dies_at: int | None) -> None:
        self.world = world
        self.number = number
        self.points: list[str] = []
        self.is_dead = False
        self._dies_at = dies_at
        self.saga = world.saga(self)
        self.engine = Engine(MortalJournal(self), config={}, logger=_silent, sagas=[self.saga], clock=MortalClock(self))

    def point(self, label: str) -> None:
        """Pass a point, or die there."""
        self.breathe()
        self.points.append(label)
        if len(self.points) == self._dies_at:
            self.die(label)

    def die(self, label: str) -> None:
        """End here."""
        self.is_dead = True
        self.world.log.append(self.world.crashed(self.number, label))
        raise Crash(label)

    def breathe(self) -> None:
        """Let nothing happen after death."""
        if self.is_dead:
            raise Crash("dead already")

    @contextmanager
    def around(self, what: str) -> Iterator[None]:
        """Put a point before and one after, whatever comes out of it."""
        self.point(f"{what.replace(' ', '.before ', 1)}")
        try:
            yield
        finally:
            self.point(f"{what.replace(' ', '.after ', 1)}")

    def deliver(self) -> BackgroundResponse:
        """Deliver the request to this process's engine, in this thread."""
        return self._answered(self.engine.resolve(self.saga(), {"id": self.world.key}))

    async def adeliver(self) -> BackgroundResponse:
        """Deliver it on the running event loop."""
        return self._answered(await self.engine.aresolve(self.saga(), {"id": self.world.key}))

    def _answered(self, response: BackgroundResponse) -> BackgroundResponse:
        self.breathe()
        self.world.log.append(Answered(self.number, str(response.status), response.output))
        return response


class MortalClock:
    """The world's clock, as one life sees it; a sleep is a point before and after."""

    def __init__(self, life: Life) -> None:
        self._life = life

    def now(self) -> float:
        """Give the world's time."""
        return self._life.world.now

    monotonic = now

    def sleep(self, seconds: float) -> None:
        """Let the world's time pass."""
        with self._life.around("sleep "):
            self._life.world.now += seconds

    async def asleep(self, seconds: float) -> None:
        """Let the world's time pass."""
        self.sleep(seconds)


class MortalJournal:
    """The world's journal, as one life sees it: each write is a point before and after, and none comes after death."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self._journal = life.world.journal
        self.url = self._journal.url

    def append(self, commit: Commit) -> AppendResult:
        """Append between two points."""
        with self._life.around(f"append {_names(commit)}"):
            return self._note(commit, self._journal.append(commit))

    def submit(self, commit: Commit, done: Callable[[AppendResult | BaseException], None]) -> None:
        """Append between two points; the second is passed where the journal calls back."""

        def settled(result: AppendResult | BaseException) -> None:
            try:
                if not isinstance(result, BaseException):
                    self._note(commit, result)
                self._life.point(f"submit.after {_names(commit)}")
            except Crash as crash:
                result = crash
            done(result)

        self._life.point(f"submit.before {_names(commit)}")
        self._journal.submit(commit, settled)

    def _note(self, commit: Commit, result: AppendResult) -> AppendResult:
        if isinstance(result, Committed):
            facts = tuple(fact_of(entry) for entry in commit.entries)
            self._life.world.log.append(Written(self._life.number, facts, commit.release is not None))
        return result

    def put(self, eid: int, entry: Entry) -> None:
        """Leave a message between two points."""
        with self._life.around(f"put {type(entry).__name__}"):
            self._journal.put(eid, entry)
            self._life.world.mail += 1

    def note_stuck(self, header: Header, reason: str, at: float) -> None:
        """Note it between two points."""
        with self._life.around("note_stuck "):
            self._journal.note_stuck(header, reason, at)

    def abandon(self, eid: int, epoch: int) -> None:
        """Give a lease up; the dead cannot."""
        self._life.breathe()
        self._journal.abandon(eid, epoch)

    def header(self, saga_id: str, generation: int | None = None) -> Header | None:
        """Read; the dead cannot."""
        self._life.breathe()
        return self._journal.header(saga_id, generation)

    def load(self, eid: int) -> Loaded:
        """Read; the dead cannot."""
        self._life.breathe()
        return self._journal.load(eid)

    def is_held(self, header: Header) -> bool:
        """Read; the dead cannot."""
        self._life.breathe()
        return self._journal.is_held(header)

    def search(self, **criteria: Any) -> list[Header]:
        """Read; the dead cannot."""
        self._life.breathe()
        return self._journal.search(**criteria)

    def recoverable(self, *, now: float, after: int = 0, limit: int = 100) -> list[Header]:
        """Read what is this world's: a journal that is shared holds executions of other worlds as well."""
        self._life.breathe()
        found = self._journal.recoverable(now=now, after=after, limit=limit)
        return [header for header in found if header.saga_id == self._life.world.saga_id]

    def close(self) -> None:
        """Nothing to close: the journal is the world's."""


def _names(commit: Commit) -> str:
    return "+".join(type(entry).__name__ for entry in commit.entries)


# --- lives in a row -----------------------------------------------------------------------------------------------

#: Carries the execution on in one life until it is at rest, or dies.
Carrier = Callable[["Life"], None]


def play(world: World, kills: Sequence[int], carry: Carrier) -> World:
    """Live one life after the other, each but the last dying at its point of the given number, until at rest.

    Returns:
        The world; `world.lives[i]` died at `kills[i]`, the last one lived on.
    """
    for dies_at in (*kills, None):
        life = world.begin_life(dies_at)
        try:
            carry(life)
        except Crash:
            world.bury()
        else:
            return world
        finally:
            life.engine.close()
    raise AssertionError("a life that was not to die died")


def by_redelivery(life: Life) -> None:
    """Deliver the request again and again until the execution is at rest."""
    world = life.world
    for _ in range(DELIVERIES_MAX):
        response = life.deliver()
        if world.is_at_rest():
            return
        _pass_time(world, response)
        _meanwhile(life)
        if world.is_at_rest():
            return
    raise AssertionError(f"not at rest after {DELIVERIES_MAX} deliveries: {world.header()}")


async def by_redelivery_async(life: Life) -> None:
    """Do the same on an event loop."""
    world = life.world
    for _ in range(DELIVERIES_MAX):
        response = await life.adeliver()
        if world.is_at_rest():
            return
        _pass_time(world, response)
        _meanwhile(life)
        if world.is_at_rest():
            return
    raise AssertionError(f"not at rest after {DELIVERIES_MAX} deliveries: {world.header()}")


def by_recover(life: Life) -> None:
    """Recover again and again; deliver only what recovery cannot take up, such as what was never journaled."""
    world = life.world
    for _ in range(DELIVERIES_MAX):
        if not life.engine.recover():
            life.deliver()
        if world.is_at_rest():
            return
        header = world.header()
        if header is not None and header.due_at is not None:
            world.now = max(world.now, header.due_at)
        _meanwhile(life)
        if world.is_at_rest():
            return
    raise AssertionError(f"not at rest after {DELIVERIES_MAX} recoveries: {world.header()}")


def _pass_time(world: World, response: BackgroundResponse) -> None:
    if response.status == "reschedule":
        world.now += response.countdown


def _meanwhile(life: Life) -> None:
    """Let somebody do the one thing; whoever was not told that it is done does it again."""
    world = life.world
    if world.meanwhile is not None and not world.is_meanwhile_done:
        world.meanwhile(life.engine, world.saga_id)
        life.breathe()
        world.is_meanwhile_done = True
