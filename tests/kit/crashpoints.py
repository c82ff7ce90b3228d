"""Crash points: lives of a process that end where they are told to, around a world that outlives them.

A `World` holds what a crash leaves standing: the journal, the vendor, the time, and the log of all that happened.
A `Life` is one process: an engine on the world's journal, whose every journal write, step call and sleep passes
through numbered *points*. At the point where it is to die a `Crash` is raised, after which nothing of that life
reaches the journal, the vendor or the clock any more, and its lease counts as dead.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from connect.eaas.core.responses import BackgroundResponse
from msgspec import Struct

from saga_engine import Engine, Saga, SagaStatus
from saga_engine.alarms import Alarms
from saga_engine.journal import AppendResult, Commit, Committed, Entry, Header, Journal, Loaded

__all__ = [
    "Answered",
    "Called",
    "Crash",
    "Crashed",
    "Fact",
    "Life",
    "Purged",
    "Saved",
    "Vendor",
    "World",
    "Written",
    "by_recover",
    "by_redelivery",
    "by_redelivery_async",
    "by_worker",
    "play",
]

#: Deliveries (or recoveries) within which every scripted execution comes to rest.
DELIVERIES_MAX = 40

#: How long real threads may take to come to where they are waited for, in seconds.
MEETING_S_MAX = 60.0


#: Thousands of stories are told in a minute: their warnings are expected, and only slow them down.
_silent = logging.getLogger("crashpoints")
_silent.setLevel(logging.CRITICAL + 1)


class Crash(BaseException):
    """The process died here. No `Exception`, so that nothing but the harness can catch it."""


# --- the log ------------------------------------------------------------------------------------------------------


class Fact(Struct, frozen=True):
    """One durable entry, as far as the oracle looks at it.

    `step` is without the child saga that it is in. `answer` is a probe's, or what a person found, or "refused" for a
    `fail`. `is_last`: a failed attempt that no other one follows.
    """

    name: str
    step: str | None
    answer: str | None
    attempt: int | None
    status: str | None
    cause: str | None = None
    is_last: bool = False


class Written(Struct, frozen=True, tag=True):
    """A commit of the execution of the saga `of` became durable."""

    life: int
    facts: tuple[Fact, ...]
    is_release: bool
    of: str = "Scripted"


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
    of: str = "Scripted"


class Purged(Struct, frozen=True, tag=True):
    """All that had ended by then was purged."""

    life: int


class Crashed(Struct, frozen=True, tag=True):
    """The life ended; `mail` is how many messages were ever left, `is_meanwhile_done` as in `World`."""

    life: int
    label: str
    now: float
    mail: int
    is_meanwhile_done: bool


Event = Written | Called | Saved | Answered | Purged | Crashed


def fact_of(entry: Entry) -> Fact:
    """Reduce an entry to what the oracle looks at."""
    answer, status, step = (getattr(entry, name, None) for name in ("answer", "status", "step"))
    told = "refused" if getattr(entry, "is_refusal", False) else getattr(entry, "outcome", None)
    return Fact(
        name=type(entry).__name__,
        step=None if step is None else step.rpartition("/")[2],
        answer=told if answer is None else str(answer.value),
        attempt=getattr(entry, "attempt", None),
        status=None if status is None else str(status.value),
        cause=getattr(entry, "cause", None),
        is_last=getattr(entry, "retry_at", 0) is None,
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
        if undo_key not in self.undo_keys:
            self.undo_keys[undo_key] = key
            self.deleted |= {key} & self.created.keys()

    def delete_by_hand(self, step: str) -> None:
        """Let a person delete what a step made."""
        self.deleted |= {key for key, made in self.created.items() if made == step}

    def has(self, key: str) -> bool:
        """Tell whether the thing is there."""
        return key in self.created and key not in self.deleted

    def live(self) -> list[str]:
        """Name the step of each thing that is there."""
        return sorted(step for key, step in self.created.items() if key not in self.deleted)


@dataclass
class World:
    """All that a crash leaves standing, for one execution, and perhaps for a second one beside it.

    Attributes:
        journal: the real one.
        key: what the request's id is.
        sagas: makes the sagas whose steps belong to a life; the first one is the one that is looked at.
        meanwhile: what somebody does once, as soon as the execution waits or is at rest; False: not yet.
        now: the time in seconds.
        calls: how often each (operation, step) was called, by all lives.
        life_type: another kind of life than `Life`.
        saga_names: what the sagas are called, as of the last life.
        has_workers: several threads of a life may look at the execution at once.
    """

    journal: Journal
    key: str
    sagas: Callable[[Life], tuple[type[Saga], ...]]
    meanwhile: Callable[[Life], bool | None] | None = None
    vendor: Vendor = field(default_factory=Vendor)
    now: float = 1_700_000_000.0
    log: list[Event] = field(default_factory=list)
    lives: list[Life] = field(default_factory=list)
    calls: Counter[tuple[str, str]] = field(default_factory=Counter)
    is_meanwhile_done: bool = False
    mail: int = 0
    life_type: type[Life] | None = None
    saga_names: tuple[str, ...] = ("Scripted",)
    has_workers: bool = False

    @property
    def saga_id(self) -> str:
        """The execution."""
        return self.id_of("Scripted")

    def id_of(self, saga: str) -> str:
        """Name the execution of a saga."""
        return f"{saga}:{self.key}"

    def begin_life(self, dies_at: int | None = None) -> Life:
        """Start a process that dies at its point of that number, from 1."""
        life = (self.life_type or Life)(self, len(self.lives) + 1, dies_at)
        self.lives.append(life)
        return life

    def crashed(self, life: int, label: str) -> Crashed:
        """Give the event of a crash at that point."""
        return Crashed(life, label, self.now, self.mail, self.is_meanwhile_done)

    def bury(self) -> None:
        """Let the dead life's leases count as dead, as the operating system does for a real process."""
        for header in map(self.header, self.saga_names):
            if header is not None and header.drive is not None:
                self.journal.abandon(header.eid, header.epoch)

    def header(self, saga: str = "Scripted") -> Header | None:
        """Give the header of a saga's execution, past every wrapper."""
        return self.journal.header(self.id_of(saga))

    def left_by(self, life: int) -> tuple[Any, ...]:
        """Give all that the crash of that life left standing, in a form that is good to compare.

        Scripts depend on the calls before them, and what is at the vendor on the calls; a question asked of
        `should_execute` leaves nothing.
        """
        left: list[Any] = []
        for event in self.log:
            if isinstance(event, Written):
                left.append((event.of, event.facts, event.is_release))
            elif isinstance(event, Called) and event.operation != "should_execute":
                left.append((event.operation, event.step))
            elif isinstance(event, Purged):
                left.append("purged")
            elif isinstance(event, Crashed) and event.life == life:
                return (*left, event.now, event.mail, event.is_meanwhile_done)
        raise AssertionError(f"life {life} did not crash")

    def is_at_rest(self, saga: str = "Scripted") -> bool:
        """Tell whether the execution ended or parked, and has taken in all that was said to it."""
        header = self.header(saga)
        is_still = header is not None and (header.status.is_ended or header.status is SagaStatus.PARKED)
        return is_still and not self.has_mail(saga)

    def has_mail(self, saga: str) -> bool:
        """Tell whether something is in the execution's inbox."""
        header = self.header(saga)
        return header is not None and not header.is_purged and bool(self.journal.load(header.eid).inbox)

    def is_over(self) -> bool:
        """Tell whether nothing is left to be done by anybody."""
        is_said = self.meanwhile is None or self.is_meanwhile_done
        return is_said and all(map(self.is_at_rest, self.saga_names))

    def goes_on_undelivered(self) -> bool:
        """Tell whether something is left that a delivery does not carry on: it has given its answer."""
        return any(
            header is not None
            and header.response is not None
            and (not header.status.is_ended or self.has_mail(header.saga))
            for header in map(self.header, self.saga_names)
        )


# --- one process --------------------------------------------------------------------------------------------------


class Life:
    """One process, from its start to its end or its crash."""

    def __init__(self, world: World, number: int, dies_at: int | None) -> None:
        self.world = world
        self.number = number
        self.points: list[str] = []
        self.is_dead = False
        self._dies_at = dies_at
        #: steps that have taken effect and wait for another one
        self.held: set[str] = set()
        #: steps that have come to an end that is durable
        self.settled: set[str] = set()
        for event in world.log:
            if isinstance(event, Written):
                self.settle(event.facts)
        self.sagas = world.sagas(self)
        world.saga_names = tuple(saga.__name__ for saga in self.sagas)
        self.engine = Engine(
            MortalJournal(self), config={}, logger=_silent, sagas=self.sagas, clock=MortalClock(self),
            poll_s=0.001, stop_timeout_s=MEETING_S_MAX,
        )  # fmt: skip

        self.alarms = HandAlarms(self.engine._threads.alarms)
        self.engine._threads.alarms = self.alarms  # type: ignore[assignment]  # rung by the steps that hang

    def time_out(self) -> None:
        """Let the time of the attempt be over that this thread makes."""
        self.alarms.ring()

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

    def note(self, written: Written) -> None:
        """Note a commit; one that another thread had under way when the process died became durable before that."""
        log = self.world.log
        if not self.is_dead:
            log.append(written)
            return
        place = next(n for n, event in enumerate(log) if isinstance(event, Crashed) and event.life == self.number)
        log.insert(place, written)

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

    def settle(self, facts: Sequence[Fact]) -> None:
        """Note which steps have come to an end, and which began anew."""
        for fact in facts:
            if fact.name == "StepStarted":
                self.settled.discard(fact.step or "")
            elif fact.name in _SETTLING:
                self.settled.add(fact.step or "")

    def is_met(self, steps: Sequence[str]) -> bool:
        """Tell whether each of these steps either has taken effect and waits, or has come to its end."""
        return all(step in self.held or step in self.settled for step in steps)

    def meet(self, is_met: Callable[[], bool]) -> None:
        """Wait in a thread of a step until another one is so far; the dead wait for nobody."""
        ends_at = time.monotonic() + MEETING_S_MAX
        while not is_met():
            self.breathe()
            assert time.monotonic() < ends_at, "a branch waits for what does not come"
            _someone_went_on.wait(0.0005)
        self.breathe()

    async def ameet(self, is_met: Callable[[], bool]) -> None:
        """Do the same on an event loop."""
        ends_at = time.monotonic() + MEETING_S_MAX
        while not is_met():
            self.breathe()
            assert time.monotonic() < ends_at, "a branch waits for what does not come"
            await asyncio.sleep(0)
        self.breathe()

    def deliver(self, place: int = 0) -> BackgroundResponse:
        """Deliver the request to this process's engine, in this thread."""
        saga = self.sagas[place]
        return self._answered(saga, self.engine.resolve(saga(), {"id": self.world.key}))

    async def adeliver(self, place: int = 0) -> BackgroundResponse:
        """Deliver it on the running event loop."""
        saga = self.sagas[place]
        return self._answered(saga, await self.engine.aresolve(saga(), {"id": self.world.key}))

    def _answered(self, saga: type[Saga], response: BackgroundResponse) -> BackgroundResponse:
        self.breathe()
        self.world.log.append(Answered(self.number, str(response.status), response.output, saga.__name__))
        return response


#: Never set: an interruptible wait.
_someone_went_on = threading.Event()

_SETTLING = ("StepCompleted", "StepFailed", "StepSuspended", "StepProbed", "SkipAnswered", "StepParked")


class HandAlarms:
    """The time-outs of steps, rung by hand; the watchdog of the engine keeps the engine's own alarms."""

    def __init__(self, own: Alarms) -> None:
        self._own = own
        self._alarms: list[Callable[[], None]] = []

    def set(self, length_s: float, ring: Callable[[], None], *, is_in_background: bool = False) -> Any:
        """Set an alarm, whatever its length; those of the watchdog are the engine's own."""
        if is_in_background:
            return self._own.set(length_s, ring, is_in_background=True)
        self._alarms.append(ring)
        return ring

    def cancel(self, alarm: Callable[[], None]) -> None:
        """Forget it."""
        if alarm in self._alarms:
            self._alarms.remove(alarm)

    def ring(self) -> None:
        """Ring the first one."""
        self._alarms.pop(0)()

    def close(self) -> None:
        """Close the engine's own."""
        self._own.close()


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
            result = self._note(commit, self._journal.append(commit))
        self._settle(commit, result)
        return result

    def submit(self, commit: Commit, done: Callable[[AppendResult | BaseException], None]) -> None:
        """Append between two points; the second is passed where the journal calls back."""

        def settled(result: AppendResult | BaseException) -> None:
            try:
                if not isinstance(result, BaseException):
                    self._note(commit, result)
                self._life.point(f"submit.after {_names(commit)}")
                self._settle(commit, result)
            except Crash as crash:
                result = crash
            done(result)

        self._life.point(f"submit.before {_names(commit)}")
        self._journal.submit(commit, settled)

    def _note(self, commit: Commit, result: AppendResult) -> AppendResult:
        if isinstance(result, Committed):
            facts = tuple(fact_of(entry) for entry in commit.entries)
            of = self._saga_of(result.eid)
            self._life.note(Written(self._life.number, facts, commit.release is not None, of))
        return result

    def _saga_of(self, eid: int) -> str:
        for saga in self._life.sagas[1:]:
            header = self._life.world.header(saga.__name__)
            if header is not None and header.eid == eid:
                return saga.__name__
        return self._life.sagas[0].__name__

    def _settle(self, commit: Commit, result: AppendResult | BaseException) -> None:
        """Let those go on who wait until a step has come to its end; not before this life has passed the point."""
        if isinstance(result, Committed):
            self._life.settle([fact_of(entry) for entry in commit.entries])

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

    def recoverable(
        self, *, now: float, after: int = 0, limit: int = 100, stuck_before: float | None = None
    ) -> list[Header]:
        """Read what is this world's: a journal that is shared holds executions of other worlds as well."""
        self._life.breathe()
        found = self._journal.recoverable(now=now, after=after, limit=limit, stuck_before=stuck_before)
        mine = {self._life.world.id_of(saga.__name__) for saga in self._life.sagas}
        return [header for header in found if header.saga_id in mine]

    def next_due(self, *, after: float) -> float | None:
        """Read; the dead cannot."""
        self._life.breathe()
        return self._journal.next_due(after=after)

    def purge(self, *, before: float, limit: int = 100) -> int:
        """Purge between two points."""
        with self._life.around("purge "):
            count = self._journal.purge(before=before, limit=limit)
            self._life.world.log.append(Purged(self._life.number))
        return count

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
            life.engine.close()  # first: what other threads had under way may take a lease even now
            world.bury()
        else:
            life.engine.close()
            return world
    raise AssertionError("a life that was not to die died")


def by_redelivery(life: Life) -> None:
    """Deliver the requests again and again until all is at rest."""
    world = life.world
    for _ in range(DELIVERIES_MAX):
        for place, name in enumerate(world.saga_names):
            if not world.is_at_rest(name):
                _pass_time(world, life.deliver(place))
        if _is_over(life):
            return
    raise AssertionError(f"not at rest after {DELIVERIES_MAX} deliveries: {world.header()}")


async def by_redelivery_async(life: Life) -> None:
    """Do the same on an event loop."""
    world = life.world
    for _ in range(DELIVERIES_MAX):
        for place, name in enumerate(world.saga_names):
            if not world.is_at_rest(name):
                _pass_time(world, await life.adeliver(place))
        if _is_over(life):
            return
    raise AssertionError(f"not at rest after {DELIVERIES_MAX} deliveries: {world.header()}")


def by_recover(life: Life) -> None:
    """Recover again and again; deliver only what recovery cannot take up, such as what was never journaled."""
    world = life.world
    for _ in range(DELIVERIES_MAX):
        if not life.engine.recover():
            for place, name in enumerate(world.saga_names):
                if not world.is_at_rest(name):
                    life.deliver(place)
        _wait_until_due(world)
        if _is_over(life):
            return
    raise AssertionError(f"not at rest after {DELIVERIES_MAX} recoveries: {world.header()}")


def by_worker(life: Life) -> None:
    """Start the sagas, and let the worker carry them on; the time passes when they wait for it."""
    world = life.world
    world.has_workers = True
    life.engine._begun_worker()
    for saga in life.sagas:
        if world.header(saga.__name__) is None:
            life.engine.start(saga, {"id": world.key})
    ends_at = time.monotonic() + MEETING_S_MAX
    while not life.is_dead and not (_is_unheld(world) and world.is_over()):
        assert time.monotonic() < ends_at, f"the worker does not bring it to rest: {world.header()}"
        if _is_unheld(world):
            _wait_until_due(world)
            _meanwhile(life)
        time.sleep(0.0002)
    life.breathe()


def _is_unheld(world: World) -> bool:
    return all(header is None or header.drive is None for header in map(world.header, world.saga_names))


def _pass_time(world: World, response: BackgroundResponse) -> None:
    if response.status == "reschedule":
        world.now += response.countdown


def _wait_until_due(world: World) -> None:
    headers = map(world.header, world.saga_names)
    due = [h.due_at for h in headers if h is not None and h.due_at is not None and not h.status.is_ended]
    if due:
        world.now = max(world.now, min(due))


def _is_over(life: Life) -> bool:
    """Let others do what they do, and carry on what no delivery does; tell whether all is at rest."""
    world = life.world
    if world.is_over():
        return True
    _meanwhile(life)
    if world.goes_on_undelivered():
        life.engine.recover()
        _wait_until_due(world)
    return world.is_over()


def _meanwhile(life: Life) -> None:
    """Let somebody do the one thing; whoever was not told that it is done does it again."""
    world = life.world
    if world.meanwhile is not None and not world.is_meanwhile_done:
        is_done = world.meanwhile(life) is not False
        life.breathe()
        world.is_meanwhile_done = is_done
