"""The sagas of the crash points: scripted steps against a vendor, and how each saga must end, written by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from connect.eaas.core.responses import BackgroundResponse
from crashpoints import Called, Life, Saved
from tenacity import stop_after_attempt, wait_fixed

from saga_engine import Chain, Exclusive, Parallel, Saga, SagaStatus, WaitFor, current_context
from saga_engine.errors import NotAllowed
from saga_engine.journal import LateEffectFound
from transactions import BackgroundTransaction, Kind, Probe, RetryPolicy, Suspend

__all__ = [
    "CORE",
    "OTHER",
    "SCENARIOS",
    "WHOLE",
    "Child",
    "Chained",
    "Scenario",
    "Script",
    "Side",
    "Waiting",
    "sagas_for",
    "scripts_in",
]

#: The name of the saga that runs beside the one that is looked at.
OTHER = "Other"


@dataclass(frozen=True)
class Script:
    """What one step does.

    Attributes:
        execute, compensate: what each call does; the last one repeats. `late` means: after it took effect.
        probe: None (has none), "truth" (asks the vendor) or "unknown".
        attempts, undo_attempts: how many attempts its policies allow; an attempt that a crash interrupts counts.
        after: steps of other branches that must have taken effect, and wait, before this one begins.
        until: a step of another branch whose end must be durable before this one returns.
        asks: whether it has a `should_execute`.
        sets: what it sets the key "shared" of its state to.
    """

    name: str
    execute: tuple[str, ...] = ("done",)
    compensate: tuple[str, ...] = ("done",)
    probe: str | None = None
    is_wanted: bool = True
    attempts: int = 1
    undo_attempts: int = 1
    on_unknown: str = "rerun"
    saves: bool = False
    kind: Kind = Kind.COMPENSATABLE
    after: str = ""
    until: str = ""
    asks: bool = True
    sets: str | None = None


@dataclass(frozen=True)
class Waiting:
    """A `WaitFor` this signal."""

    signal: str
    timeout_s: float | None = None


@dataclass(frozen=True)
class Chained:
    """A branch of several entries."""

    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Side:
    """A parallel group of these branches."""

    branches: tuple[Entry, ...]


@dataclass(frozen=True)
class Child:
    """A child saga."""

    entries: tuple[Entry, ...]


Entry = Script | Waiting | Chained | Side | Child


@dataclass(frozen=True)
class Scenario:
    """One saga, perhaps with a second one beside it, and their ends.

    Attributes:
        end, undone, live: without a crash: the end, the steps whose undo is journaled, in that order, and the
            steps of which a thing is left at the vendor.
        ends: every end that a crash may lead to.
        is_forked: a crash may also lead to that end with something else undone and left.
        points_min: points that the run without a crash passes at least.
        meanwhile: what somebody does as soon as it waits or is at rest; False: not yet.
        beside: what the second saga does, which completes.
        exclusive: both need one right; what a parked one does with it.
        undoes: the second saga undoes the first one.
    """

    name: str
    entries: tuple[Entry, ...]
    end: str
    undone: str
    live: str
    points_min: int
    ends: tuple[str, ...] = ()
    is_forked: bool = False
    mode: str = "chain"
    park_policy: str = "stop"
    meanwhile: Callable[[Life], bool | None] | None = None
    beside: tuple[Entry, ...] = ()
    exclusive: str | None = None
    undoes: bool = False

    @property
    def scripts(self) -> tuple[Script, ...]:
        """List the steps, in order."""
        return tuple(scripts_in(self.entries))


def scripts_in(entries: tuple[Entry, ...]) -> Iterator[Script]:
    """List the steps of these entries and of all in them."""
    for entry in entries:
        if isinstance(entry, Script):
            yield entry
        elif isinstance(entry, Side):
            yield from scripts_in(entry.branches)
        elif isinstance(entry, (Chained, Child)):
            yield from scripts_in(entry.entries)


#: The key that a person sets in the state.
EDITED = "edited"


class VendorDown(Exception):
    """The vendor did not answer."""


#: The time-out of steps that may hang; the plain ones do not wait for it, see `Life.time_out`.
HANG_TIMEOUT_S = 30.0

_EXECUTED: dict[str, Callable[[], Any]] = {
    "done": BackgroundResponse.done,
    "fail": lambda: BackgroundResponse.fail("refused"),
    "cancel": BackgroundResponse.done,
    "hang": BackgroundResponse.done,
    "skip": lambda: BackgroundResponse.skip("not wanted"),
    "reschedule": lambda: BackgroundResponse.reschedule(60),
    "suspend": lambda: Suspend(BackgroundResponse.done()),
    "await signal": lambda: Suspend(BackgroundResponse.done(), signal="go"),
}
_WITH_EFFECT = ("done", "late raise", "reschedule", "suspend", "await signal", "cancel", "hang")


@lru_cache
def _policy(attempts: int) -> RetryPolicy:
    return RetryPolicy(stop=stop_after_attempt(attempts), wait=wait_fixed(5))


class BareStep(BackgroundTransaction):
    """Does what its script says, at the vendor, in one life; it is not asked whether it is wanted."""

    def __init__(self, script: Script, life: Life) -> None:
        self.script = script
        self.life = life
        self.kind = script.kind
        self.on_unknown = script.on_unknown
        self.retry = _policy(script.attempts)
        self.compensation_retry = _policy(script.undo_attempts)
        if "hang" in script.execute:
            self.timeout_s = HANG_TIMEOUT_S

    def name(self) -> str:
        return self.script.name

    def execute(self, request: dict[str, Any]) -> Any:
        self.life.meet(lambda: self.life.is_met(self.script.after))
        with self.life.around(f"execute {self.script.name}"):
            act = self.act()
            if act == "hang":
                self.life.time_out()
            if self.script.saves:
                with self.life.around("save "):
                    current_context().save()
                self.saved()
            if self.script.until:
                self.life.held.add(self.script.name)
                self.life.meet(lambda: self.script.until in self.life.settled)
            return self.outcome(act)

    def compensate(self, request: dict[str, Any], e: Exception) -> Any:
        with self.life.around(f"compensate {self.script.name}"):
            return self.undo(e)

    def count(self, operation: str) -> int:
        """Give how often this was called, in all lives."""
        return self.life.world.calls[operation, self.script.name]

    def called(self, operation: str) -> int:
        """Note the call; give how many of its kind came before it, in all lives."""
        world, context = self.life.world, current_context()
        key = "" if operation == "should_execute" else context.idempotency_key
        world.log.append(Called(self.life.number, operation, self.script.name, key, dict(context.state)))
        world.calls[operation, self.script.name] += 1
        count = world.calls[operation, self.script.name]
        if operation != "should_execute":
            context.state[f"{operation} {self.script.name}"] = count
        return count - 1

    def saved(self) -> None:
        """Note that the state is saved."""
        self.life.world.log.append(Saved(self.life.number, self.script.name))

    def act(self) -> str:
        """Take effect at the vendor, or not; give what this call does."""
        script, context = self.script.execute, current_context()
        act = script[min(self.called("execute"), len(script) - 1)]
        if act in _WITH_EFFECT:
            self.life.world.vendor.create(context.idempotency_key, self.script.name)
            context.state[self.script.name] = context.idempotency_key
        if self.script.sets is not None:
            context.state["shared"] = self.script.sets
        if act == "cancel":
            self.life.engine.cancel(self.life.world.saga_id, "changed my mind")
        return act

    def outcome(self, act: str) -> Any:
        """Answer, or raise."""
        if act.endswith("raise"):
            raise VendorDown(f"{self.script.name} timed out")
        return _EXECUTED[act]()

    def undo(self, e: Exception) -> Any:
        """Undo at the vendor, or not, and answer or raise."""
        script, context = self.script.compensate, current_context()
        act = script[min(self.called("compensate"), len(script) - 1)]
        if act in ("done", "late raise", "late fail"):
            self.life.world.vendor.delete(context.idempotency_key, context.execute_key)
        if act == "reraise":
            raise e
        return self.outcome(act.removeprefix("late ") if act == "late fail" else act)


class ScriptedStep(BareStep):
    """The same, and it is asked whether it is wanted."""

    def should_execute(self, request: dict[str, Any]) -> Any:
        with self.life.around(f"should_execute {self.script.name}"):
            self.called("should_execute")
            return self.script.is_wanted


class ProbedStep(ScriptedStep):
    """The same, with a probe."""

    def probe(self, request: dict[str, Any]) -> Any:
        with self.life.around(f"probe {self.script.name}"):
            self.called("probe")
            context = current_context()
            if self.script.probe == "unknown":
                return Probe.UNKNOWN
            if not self.life.world.vendor.has(context.execute_key):
                return Probe.NOT_DONE
            context.state[self.script.name] = context.execute_key
            return Probe.DONE


class AsyncBareStep(BareStep):
    """A bare step, native to an event loop."""

    async def execute(self, request: dict[str, Any]) -> Any:
        await self.life.ameet(lambda: self.life.is_met(self.script.after))
        with self.life.around(f"execute {self.script.name}"):
            act = self.act()
            if act == "hang":
                await asyncio.Event().wait()
            if self.script.saves:
                with self.life.around("save "):
                    await current_context().asave()
                self.saved()
            if self.script.until:
                self.life.held.add(self.script.name)
                await self.life.ameet(lambda: self.script.until in self.life.settled)
            return self.outcome(act)

    async def compensate(self, request: dict[str, Any], e: Exception) -> Any:
        return super().compensate(request, e)

    @property
    def timeout_s(self) -> float | None:  # type: ignore[override]  # a time-out only for the call that hangs
        if "hang" not in self.script.execute:
            return None
        is_hanging = self.script.execute[min(self.count("execute"), len(self.script.execute) - 1)] == "hang"
        return 0.001 if is_hanging else HANG_TIMEOUT_S

    @timeout_s.setter
    def timeout_s(self, _: float) -> None:
        """Let the time-out of plain steps be."""


class AsyncStep(AsyncBareStep, ScriptedStep):
    """The same, and it is asked whether it is wanted."""

    async def should_execute(self, request: dict[str, Any]) -> Any:
        return ScriptedStep.should_execute(self, request)


class AsyncProbedStep(AsyncStep, ProbedStep):
    """The same, with a probe."""

    async def probe(self, request: dict[str, Any]) -> Any:
        return ProbedStep.probe(self, request)


def sagas_for(scenario: Scenario, life: Life, is_async: bool = False) -> tuple[type[Saga], ...]:
    """Declare the scenario's sagas, whose steps live and die with this life."""
    right = None
    if scenario.exclusive is not None:
        right = Exclusive(key=lambda request: request["id"], when_parked=scenario.exclusive)
    first = _saga("Scripted", scenario, scenario.entries, life, is_async, right)
    if not scenario.beside:
        return (first,)
    return first, _saga(OTHER, scenario, scenario.beside, life, is_async, right, first if scenario.undoes else None)


def _saga(
    name: str,
    scenario: Scenario,
    entries: tuple[Entry, ...],
    life: Life,
    is_async: bool,
    right: Exclusive | None = None,
    undone: type[Saga] | None = None,
) -> type[Saga]:
    class Scripted(Saga):
        mode: ClassVar[str] = scenario.mode
        park_policy: ClassVar[str] = scenario.park_policy
        exclusive: ClassVar[Exclusive | None] = right
        undoes: ClassVar[type[Saga] | None] = undone

        def transactions(self, request: dict[str, Any]) -> list[Any]:
            return [_entry(entry, scenario, life, is_async) for entry in entries]

    Scripted.__name__ = name
    return Scripted


def _entry(entry: Entry, scenario: Scenario, life: Life, is_async: bool) -> Any:
    def each(entries: tuple[Entry, ...]) -> list[Any]:
        return [_entry(inner, scenario, life, is_async) for inner in entries]

    if isinstance(entry, Side):
        return Parallel(*each(entry.branches))
    if isinstance(entry, Chained):
        return Chain(*each(entry.entries))
    if isinstance(entry, Child):
        return _saga("Child", scenario, entry.entries, life, is_async)
    if isinstance(entry, Waiting):
        return WaitFor(entry.signal, entry.timeout_s)
    return _step(entry, life, is_async)


def _step(script: Script, life: Life, is_async: bool) -> BareStep:
    if not script.asks:
        return AsyncBareStep(script, life) if is_async else BareStep(script, life)
    if is_async:
        return AsyncProbedStep(script, life) if script.probe else AsyncStep(script, life)
    return ProbedStep(script, life) if script.probe else ScriptedStep(script, life)


# --- the scenarios ------------------------------------------------------------------------------------------------

A, B, C, D = (Script(name) for name in "abcd")


def _fails_by_exception(at: str, undone: str, points_min: int) -> Scenario:
    scripts = tuple(Script(name, execute=("late raise",)) if name == at else Script(name) for name in "abcd")
    return Scenario(f"failure at {at} by exception", scripts, "COMPENSATED", undone, "", points_min)


def _fails_by_fail(at: str, undone: str, points_min: int) -> Scenario:
    scripts = tuple(Script(name, execute=("fail",)) if name == at else Script(name) for name in "abcd")
    return Scenario(f"failure at {at} by fail", scripts, "COMPENSATED", undone, "", points_min)


def _status(life: Life) -> SagaStatus:
    return life.engine.get(life.world.saga_id).status


def _cancel(life: Life) -> None:
    """Cancel it; that it was cancelled before is as good."""
    if not _status(life).is_ended:
        life.engine.cancel(life.world.saga_id, "changed my mind")


def _cancel_in_vain(life: Life) -> bool:
    """Cancel it behind its pivot, which is refused."""
    if _status(life).is_ended:
        return True
    try:
        life.engine.cancel(life.world.saga_id, "too late")
    except NotAllowed:
        return True
    raise AssertionError("a cancellation behind the pivot was not refused")


def _signal(life: Life) -> None:
    if not _status(life).is_ended:
        life.engine.signal(life.world.saga_id, "go", {"by": "operator"})


def _edit(life: Life) -> None:
    if not _status(life).is_ended:
        life.engine.edit_state(life.world.saga_id, {EDITED: 1}, note="looked")


def _resume(life: Life) -> bool:
    """Let what parked go on, as often as it takes."""
    if _status(life) is SagaStatus.PARKED:
        life.engine.resume(life.world.saga_id, note="again", force=True)
    return _status(life).is_ended


def _skip(life: Life) -> bool:
    """Declare the parked step over."""
    if _status(life) is SagaStatus.PARKED:
        life.engine.skip(life.world.saga_id, "c", state={EDITED: 1}, note="done by hand", force=True)
    return _status(life).is_ended


def _resolve_undone(life: Life) -> bool:
    """Undo by hand what could not be undone."""
    if _status(life) is SagaStatus.PARKED:
        life.world.vendor.delete_by_hand("b")
        life.engine.resolve_parked(life.world.saga_id, "b", note="deleted by hand")
    return _status(life).is_ended


def _resolve_done(life: Life) -> bool:
    """Find out that the pivot took effect."""
    if _status(life) is SagaStatus.PARKED:
        life.engine.resolve_parked(life.world.saga_id, "b", note="it is there", outcome="done")
    return _status(life).is_ended


def _undo(life: Life) -> bool:
    """Undo it once it completed."""
    if _status(life) is SagaStatus.COMPLETED:
        life.engine.undo(life.world.saga_id, note="sent back")
    return _status(life) is not SagaStatus.COMPLETED


def _purge(life: Life) -> bool:
    if not _status(life).is_ended:
        return False
    life.world.now += 10.0
    life.engine.purge(5.0)
    return True


def _come_late(life: Life) -> bool:
    """Let the first attempt of `b`, given up long ago, take effect after all; whoever was not told does so again."""
    world = life.world
    key = next((e.key for e in world.log if isinstance(e, Called) and (e.operation, e.step) == ("execute", "b")), None)
    header = world.header()
    if key is None or header is None:
        return False
    world.vendor.create(key, "b")
    life.engine.journal.put(header.eid, LateEffectFound(at=world.now, step="b", attempt=1, undone=0))
    life.engine.recover()
    return True


_FAILING = Script("d", execute=("fail",))


def _bare(name: str, *execute: str, **options: Any) -> Script:
    """A step of a group: nobody asks whether it is wanted, as branches are asked beside each other."""
    return Script(name, execute=execute or ("done",), asks=False, **options)


def _pivot(*execute: str, **options: Any) -> Script:
    return Script("b", execute=execute or ("done",), kind=Kind.PIVOT, **options)


def _behind(name: str, *execute: str, attempts: int = 9) -> Script:
    return Script(name, execute=execute or ("done",), kind=Kind.RETRIABLE, attempts=attempts)


_E = Script("e")

_GROUPS = (
    Scenario(
        "one branch committed and one running",
        (A, Side((_bare("b", until="d"), Chained((_bare("c", after="b"), _bare("d", after="b"))))), _E),
        "COMPLETED",
        "",
        "abcde",
        24,
    ),
    Scenario(
        "one branch fails and one completes",
        (A, Side((_bare("b", "late raise", until="c"), _bare("c", after="b"))), _E),
        "COMPENSATED",
        "bca",
        "",
        24,
        is_forked=True,
    ),
    Scenario(
        "both branches fail",
        (A, Side((_bare("b", "late raise", until="c"), _bare("c", "late raise", after="b"))), _E),
        "COMPENSATED",
        "cba",
        "",
        24,
        is_forked=True,
    ),
    Scenario(
        "one branch refuses while one runs",
        (A, Side((_bare("b", until="c"), _bare("c", "fail", after="b"))), _E),
        "COMPENSATED",
        "ba",
        "",
        22,
    ),
    Scenario(
        "one branch is rescheduled",
        (A, Side((_bare("b", "reschedule", "done", after="c"), _bare("c", until="b"))), D),
        "COMPLETED",
        "",
        "abcd",
        26,
    ),
    Scenario(
        "one branch is rescheduled and the other fails",
        (A, Side((_bare("b", "reschedule", after="c"), _bare("c", "late raise", until="b"))), D),
        "COMPENSATED",
        "cba",
        "",
        24,
        is_forked=True,
    ),
    Scenario(
        "branches in conflict",
        (A, Side((_bare("b", sets="b", until="c"), _bare("c", sets="c", after="b"))), D),
        "COMPENSATED",
        "cba",
        "",
        24,
    ),
    Scenario(
        "a group in a group",
        (
            A,
            Side(
                (
                    Chained((_bare("b", after="e"), Side((_bare("c", after="e", until="d"), _bare("d", after="ec"))))),
                    _bare("e", until="c"),
                )
            ),
        ),
        "COMPLETED",
        "",
        "abcde",
        24,
    ),
    Scenario(
        "a failure in a group in a group",
        (
            A,
            Side(
                (
                    Chained(
                        (
                            _bare("b", after="e"),
                            Side((_bare("c", after="e", until="d"), _bare("d", "fail", after="ec"))),
                        )
                    ),
                    _bare("e", until="c"),
                )
            ),
        ),
        "COMPENSATED",
        "ceba",
        "",
        30,
        is_forked=True,
    ),
    Scenario(
        "a suspended group is cancelled",
        (A, Side((_bare("b", "suspend", after="c"), _bare("c", until="b"))), D),
        "CANCELLED",
        "cba",
        "",
        26,
        meanwhile=_cancel,
    ),
    Scenario(
        "a running group is cancelled",
        (A, Side((_bare("b", until="c"), _bare("c", "cancel", after="b"))), D),
        "CANCELLED",
        "cba",
        "",
        26,
    ),
)

_CHILDREN = (
    Scenario("a child completed, then undone", (A, Child((B, C)), _FAILING), "COMPENSATED", "cba", "", 30),
    Scenario(
        "a failure in a child",
        (A, Child((B, Script("c", execute=("late raise",)))), D),
        "COMPENSATED",
        "cba",
        "",
        28,
    ),
    Scenario(
        "a child that waits",
        (A, Child((B, Script("c", execute=("reschedule", "done")))), D),
        "COMPLETED",
        "",
        "abcd",
        30,
    ),
    Scenario(
        "a failing child is undone before what is around it",
        (A, Side((Child((_bare("b", after="d"), _bare("c", "late raise", after="d"))), _bare("d", until="c"))), _E),
        "COMPENSATED",
        "cbda",
        "",
        28,
        is_forked=True,
    ),
    Scenario(
        "a child that parks and is resumed",
        (A, Child((Script("b", compensate=("raise", "done")), Script("c", execute=("fail",)))), D),
        "COMPENSATED",
        "ba",
        "",
        28,
        meanwhile=_resume,
    ),
)

_PIVOTS = (
    Scenario(
        "pivot, probe says done",
        (A, _pivot("late raise", probe="truth"), _behind("c", "raise", "fail", "late raise", "done")),
        "COMPLETED",
        "",
        "abc",
        34,
    ),
    Scenario(
        "pivot, probe says not done",
        (A, _pivot("raise", probe="truth"), _behind("c")),
        "COMPENSATED",
        "a",
        "",
        20,
    ),
    Scenario("pivot refuses", (A, _pivot("fail"), _behind("c")), "COMPENSATED", "a", "", 16),
    Scenario(
        "pivot, probe says unknown, resolved by a person",
        (A, _pivot("late raise", probe="unknown"), _behind("c")),
        "COMPLETED",
        "",
        "abc",
        26,
        meanwhile=_resolve_done,
    ),
    Scenario(
        "behind the pivot given up, then resumed",
        (A, _pivot(), _behind("c", "raise", "raise", "done", attempts=2)),
        "COMPLETED",
        "",
        "abc",
        30,
        meanwhile=_resume,
    ),
    Scenario(
        "behind the pivot given up, then skipped",
        (A, _pivot(), _behind("c", "raise", attempts=1), _behind("d")),
        "COMPLETED",
        "",
        "abd",
        26,
        meanwhile=_skip,
    ),
    Scenario(
        "behind the pivot no cancellation is taken",
        (A, _pivot(), _behind("c", "suspend", "done")),
        "COMPLETED",
        "",
        "abc",
        24,
        meanwhile=_cancel_in_vain,
    ),
)

_SIGNALS = (
    Scenario("a signal that is waited for", (A, Waiting("go"), C), "COMPLETED", "", "ac", 18, meanwhile=_signal),
    Scenario(
        "a signal before it is waited for",
        (Script("a", execute=("suspend", "done")), Waiting("go"), C),
        "COMPLETED",
        "",
        "ac",
        20,
        meanwhile=_signal,
    ),
    Scenario("a signal that does not come", (A, Waiting("go", 600.0), C), "COMPENSATED", "a", "", 14),
    Scenario(
        "a signal for one branch while the other runs",
        (A, Side((Chained((Waiting("go"), _bare("b"))), _bare("c"))), D),
        "COMPLETED",
        "",
        "abcd",
        24,
        meanwhile=_signal,
    ),
)

_PERSONS = (
    Scenario(
        "undo parked, then resumed",
        (A, Script("b", compensate=("raise", "raise", "done")), _FAILING),
        "COMPENSATED",
        "ba",
        "",
        32,
        meanwhile=_resume,
    ),
    Scenario(
        "undo parked, then resolved",
        (A, Script("b", compensate=("raise",)), _FAILING),
        "COMPENSATED",
        "a",
        "",
        28,
        meanwhile=_resolve_undone,
    ),
    Scenario(
        "state edited while it waits",
        (A, Script("b", execute=("suspend", "done")), C),
        "COMPLETED",
        "",
        "abc",
        26,
        meanwhile=_edit,
    ),
    Scenario("completed, then undone", (A, _pivot(), _behind("c")), "COMPENSATED", "cba", "", 30, meanwhile=_undo),
    Scenario(
        "completed with a group and a child, then undone",
        (A, Side((_bare("b", until="c"), _bare("c", after="b"))), Child((D,))),
        "COMPENSATED",
        "dcba",
        "",
        36,
        meanwhile=_undo,
    ),
    Scenario("completed, then purged", (A, B), "COMPLETED", "", "ab", 16, meanwhile=_purge),
)

_PAIRS = (
    Scenario(
        "a later order undoes it",
        (A, B),
        "COMPENSATED",
        "ba",
        "x",
        36,
        beside=(Script("x"),),
        undoes=True,
    ),
    Scenario(
        "one of two has the right",
        (A, Script("b", execute=("reschedule", "done"))),
        "COMPLETED",
        "",
        "abxy",
        36,
        beside=(Script("x"), Script("y")),
        exclusive="hold",
    ),
    Scenario(
        "one of two has the right and fails",
        (A, Script("b", execute=("reschedule", "late raise"))),
        "COMPENSATED",
        "ba",
        "x",
        36,
        beside=(Script("x"),),
        exclusive="hold",
    ),
    Scenario(
        "one of two parks and gives the right up",
        (A, Script("b", compensate=("raise", "done")), _FAILING),
        "COMPENSATED",
        "ba",
        "x",
        40,
        beside=(Script("x", execute=("reschedule", "done")),),
        exclusive="release",
        meanwhile=_resume,
    ),
)

_TIMES = (
    Scenario(
        "timed out, then repeated",
        (A, Script("b", execute=("hang", "done"), attempts=5), C),
        "COMPLETED",
        "",
        "abc",
        26,
    ),
    Scenario(
        "timed out and given up",
        (A, Script("b", execute=("hang",)), C),
        "COMPENSATED",
        "ba",
        "",
        20,
    ),
    Scenario(
        "a late effect after the end",
        (A, Script("b", execute=("raise",)), C),
        "COMPENSATED",
        "bab",
        "",
        28,
        meanwhile=_come_late,
        is_forked=True,
    ),
    Scenario(
        "a late effect while it is undone",
        (A, Script("b", execute=("raise", "done"), attempts=5, compensate=("reschedule", "done")), _FAILING),
        "COMPENSATED",
        "bba",
        "",
        40,
        meanwhile=_come_late,
        is_forked=True,
    ),
)

#: Groups, children, pivots, signals, persons, rights and times.
WHOLE = (*_GROUPS, *_CHILDREN, *_PIVOTS, *_SIGNALS, *_PERSONS, *_PAIRS, *_TIMES)

#: Chains and lists of alternatives.
CORE = (
    Scenario("success", (A, B, C, D), "COMPLETED", "", "abcd", 26),
    _fails_by_exception("a", "a", 12),
    _fails_by_exception("b", "ba", 20),
    _fails_by_exception("c", "cba", 28),
    _fails_by_exception("d", "dcba", 36),
    _fails_by_fail("a", "", 8),
    _fails_by_fail("b", "a", 16),
    _fails_by_fail("c", "ba", 24),
    _fails_by_fail("d", "cba", 32),
    Scenario(
        "retried until it works",
        (A, B, Script("c", execute=("raise", "late raise", "done"), attempts=5), D),
        "COMPLETED", "", "abcd", 36,
    ),
    Scenario(
        "retried and given up",
        (A, B, Script("c", execute=("raise", "late raise"), attempts=2), D),
        "COMPENSATED", "cba", "", 32,
    ),
    Scenario(
        "probe says done",
        (A, B, Script("c", execute=("late raise",), probe="truth"), D),
        "COMPLETED", "", "abcd", 30,
    ),
    Scenario(
        "probe says done, then failure",
        (A, Script("b", execute=("late raise",), probe="truth"), Script("c", execute=("fail",))),
        "COMPENSATED", "ba", "", 30,
    ),
    Scenario(
        "probe says not done, retried",
        (A, B, Script("c", execute=("raise", "done"), probe="truth", attempts=4), D),
        "COMPLETED", "", "abcd", 32,
    ),
    Scenario(
        "probe says not done, given up",
        (A, B, Script("c", execute=("raise",), probe="truth"), D),
        "COMPENSATED", "ba", "", 26,
    ),
    Scenario(
        "probe says unknown",
        (A, B, Script("c", execute=("late raise",), probe="unknown"), D),
        "COMPENSATED", "cba", "", 30,
    ),
    Scenario(
        "an interrupted step is compensated",
        (A, Script("b", on_unknown="compensate"), C),
        "COMPLETED", "", "abc", 20, ends=("COMPLETED", "COMPENSATED"),
    ),
    Scenario(
        "an interrupted step parks",
        (A, Script("b", on_unknown="park"), Script("c", probe="unknown", on_unknown="park")),
        "COMPLETED", "", "abc", 20, ends=("COMPLETED", "PARKED"),
    ),
    Scenario(
        "undo retried",
        (A, Script("b", compensate=("raise", "late raise", "done"), undo_attempts=3), C, _FAILING),
        "COMPENSATED", "cba", "", 40,
    ),
    Scenario(
        "undo refused, retried",
        (A, Script("b", compensate=("fail", "done"), undo_attempts=2), _FAILING),
        "COMPENSATED", "ba", "", 28,
    ),
    Scenario(
        "undo parked, stop",
        (A, Script("b", compensate=("raise",), undo_attempts=2), C, _FAILING),
        "PARKED", "c", "ab", 32,
    ),
    Scenario(
        "undo parked, continue",
        (A, Script("b", compensate=("raise",), undo_attempts=2), C, _FAILING),
        "PARKED", "ca", "b", 36, park_policy="continue",
    ),
    Scenario(
        "no undo", (A, Script("b", compensate=("reraise",)), C, _FAILING), "PARKED", "c", "ab", 28,
    ),
    Scenario(
        "the failing step has nothing to undo",
        (A, B, Script("c", execute=("raise",), compensate=("reraise",))),
        "COMPENSATED", "ba", "", 26,
    ),
    Scenario(
        "undo rescheduled",
        (A, Script("b", compensate=("reschedule", "done")), C, _FAILING),
        "COMPENSATED", "cba", "", 36,
    ),
    Scenario(
        "not lost yet",
        (A, Script("b", execute=("raise", "done"), compensate=("reschedule",)), C),
        "COMPLETED", "", "abc", 28,
    ),
    Scenario(
        "rescheduled in the middle",
        (A, Script("b", execute=("reschedule", "reschedule", "done")), C),
        "COMPLETED", "", "abc", 32,
    ),
    Scenario("suspended", (A, Script("b", execute=("suspend", "done")), C), "COMPLETED", "", "abc", 24),
    Scenario(
        "rescheduled, then failed",
        (A, Script("b", execute=("reschedule", "late raise")), C),
        "COMPENSATED", "ba", "", 26,
    ),
    Scenario(
        "signalled",
        (A, Script("b", execute=("await signal", "done")), C),
        "COMPLETED", "", "abc", 26, meanwhile=_signal,
    ),
    Scenario(
        "cancelled",
        (A, Script("b", execute=("suspend",)), C),
        "CANCELLED", "ba", "", 22, meanwhile=_cancel,
    ),
    Scenario("skip at the start", (Script("a", execute=("skip",)), B), "SKIPPED", "", "", 8, ends=("COMPLETED",)),
    Scenario("skip in the middle", (A, B, Script("c", execute=("skip",)), D), "COMPLETED", "", "ab", 20),
    Scenario(
        "steps that are not wanted",
        (Script("a", is_wanted=False), B, Script("c", is_wanted=False), D),
        "COMPLETED", "", "bd", 18,
    ),
    Scenario(
        "state saved in the middle",
        (A, Script("b", saves=True), Script("c", execute=("late raise",), saves=True)),
        "COMPENSATED", "cba", "", 36,
    ),
    Scenario(
        "select",
        (Script("a", is_wanted=False), B, C),
        "COMPLETED", "", "b", 10, mode="select",
    ),
    Scenario(
        "select, failing",
        (Script("a", is_wanted=False), Script("b", execute=("late raise",), compensate=("late fail",)), C),
        "COMPENSATED", "b", "", 14, mode="select",
    ),
    Scenario(
        "select, retried",
        (Script("a", execute=("raise", "reschedule", "done"), attempts=5), B),
        "COMPLETED", "", "a", 20, mode="select",
    ),
    Scenario(
        "select, undone",
        (Script("a", is_wanted=False), Script("b", execute=("late raise", "done")), C),
        "COMPLETED", "b", "", 14, mode="select", is_forked=True,
    ),
)  # fmt: skip

#: All of them.
SCENARIOS = (*CORE, *WHOLE)
