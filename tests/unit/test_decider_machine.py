"""The decider against everything that can happen: random plans, outcomes, crashes, mail and time, by hypothesis.

The machine plays a drive without an engine: it begins what the decider decides, invents the outcomes, loses what is
not journaled when it crashes, and keeps books of its own, by which it judges the decisions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import Raw
from msgspec.structs import replace

from saga_engine.decider import (
    Action,
    Ask,
    Await,
    Compensate,
    Execute,
    Finish,
    Miss,
    Park,
    Phase,
    Probe,
    Refuse,
    State,
    TurnBack,
    Wait,
    answer,
    decide,
    evolve,
    is_early,
    preview,
    replay,
)
from saga_engine.journal import (
    CancelRequested,
    CompensationDeclined,
    CompensationFailed,
    CompensationSuspended,
    DriveInterrupted,
    DriveResumed,
    Entry,
    ErrorRecord,
    ExclusiveDenied,
    ExclusiveRight,
    LateEffectFound,
    ParkedStepResolved,
    Plan,
    PlanScope,
    PlanStep,
    Policy,
    RequestDelivered,
    Response,
    SagaEnded,
    SagaStarted,
    SagaSuspended,
    SignalReceived,
    SkipAnswered,
    StateEdited,
    StateSaved,
    StepCompensated,
    StepCompleted,
    StepFailed,
    StepNotSelected,
    StepProbed,
    StepResumed,
    StepSkipped,
    StepSkippedByHand,
    StepStarted,
    StepSuspended,
    TakenOver,
    UndoOrdered,
    WaitElapsed,
)
from transactions import Kind
from transactions import Probe as ProbeAnswer

START = 1_000.0
BROKEN = ErrorRecord("vendor.Down", "the vendor is down")
LATER = Response("reschedule", countdown_s=60.0)
SIGNALS = ("go", "stop")
#: Decisions within which an execution comes to rest if everything works from now on, for each of its steps.
DECISIONS_MAX = 20


# --- plans --------------------------------------------------------------------------------------------------------


KINDS = (Kind.COMPENSATABLE, Kind.COMPENSATABLE, Kind.READ_ONLY, Kind.RETRIABLE)
AFTER_PIVOT = (Kind.RETRIABLE, Kind.READ_ONLY)
RIGHTS = (None, None, ExclusiveRight("asset"), ExclusiveRight("asset", "refuse", "release"))


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Chains, graphs, groups and children in each other, and lists to select from, of 1 to 7 steps."""
    shape = draw(st.sampled_from(["chain", "graph", "nested", "nested", "select"]))
    scopes: list[PlanScope] = []
    places = list(_nested(draw, scopes)) if shape == "nested" else list(_listed(draw, shape))
    pivot = _pivot_among(draw, places, scopes) if shape in ("chain", "nested") else None
    steps = tuple(_planned(draw, number, place, pivot, shape) for number, place in enumerate(places))
    right = None if shape == "select" else draw(st.sampled_from(RIGHTS))
    return Plan(steps, "select" if shape == "select" else "chain", tuple(scopes), right)


#: The name of a step, what it needs, and its scope.
Spot = tuple[str, tuple[str, ...], str]


def _listed(draw: st.DrawFn, shape: str) -> Iterator[Spot]:
    earlier: list[str] = []
    for name in "abcdef"[: draw(st.integers(1, 6))]:
        needs = {"chain": earlier[-1:], "select": []}.get(shape)
        if needs is None:
            needs = sorted(draw(st.sets(st.sampled_from(earlier), max_size=2))) if earlier else []
        yield name, tuple(needs), ""
        earlier.append(name)


def _nested(draw: st.DrawFn, scopes: list[PlanScope]) -> Iterator[Spot]:
    """Lay out a list of steps, groups of two branches, and children, at most two deep."""
    names = iter("abcdefg")
    groups = iter(range(100))

    def listed(scope: str, depth: int, needs: tuple[str, ...]) -> tuple[list[Spot], tuple[str, ...]]:
        found: list[Spot] = []
        for _ in range(draw(st.integers(1, 2 if depth else 3))):
            what = draw(st.sampled_from(["step", "step", "group", "child"])) if depth < 2 else "step"
            spots, needs = (step if what == "step" else inside)(what, scope, depth, needs)
            found += spots
        return found, needs

    def step(what: str, scope: str, depth: int, needs: tuple[str, ...]) -> tuple[list[Spot], tuple[str, ...]]:
        name = next(names, None)
        return ([], needs) if name is None else ([(name, needs, scope)], (name,))

    def inside(what: str, scope: str, depth: int, needs: tuple[str, ...]) -> tuple[list[Spot], tuple[str, ...]]:
        found: list[Spot] = []
        ends: list[str] = []
        group = next(groups)
        for branch in range(2 if what == "group" else 1):
            inner = f"{scope}/{group}.{branch}"
            child = inner if what == "child" else ""
            deadline_s = draw(st.sampled_from([None, None, 50.0])) if child else None
            here = len(scopes)
            spots, after = listed(inner, depth + 1, needs)
            if spots:
                scopes.insert(here, PlanScope(inner, scope, group, child, "C", "m:C", deadline_s))
                found, ends = found + spots, [*ends, *after]
        return found, tuple(ends) or needs

    yield from listed("", 0, ())[0]


def _pivot_among(draw: st.DrawFn, places: list[Spot], scopes: list[PlanScope]) -> int | None:
    """Choose a step for the pivot, or none: not in a branch of a group."""
    children = {scope.id for scope in scopes if scope.child}
    able = [n for n, (_, _, scope) in enumerate(places) if _is_in_children_only(scope, children, scopes)]
    return draw(st.sampled_from([None, *able]))


def _is_in_children_only(scope: str, children: set[str], scopes: list[PlanScope]) -> bool:
    parents = {found.id: found.parent for found in scopes}
    while scope:
        if scope not in children:
            return False
        scope = parents[scope]
    return True


def _planned(draw: st.DrawFn, number: int, place: Spot, pivot: int | None, shape: str) -> PlanStep:
    name, needs, scope = place
    if shape != "select" and number != pivot and draw(st.integers(0, 7)) == 0:
        timeout_s = draw(st.sampled_from([None, 60.0]))
        return PlanStep(
            name, Kind.READ_ONLY, needs, has_undo=False, scope=scope, signal="go", signal_timeout_s=timeout_s
        )
    kind = Kind.PIVOT if number == pivot else draw(st.sampled_from(KINDS))
    if pivot is not None and number > pivot:
        kind = draw(st.sampled_from(AFTER_PIVOT))
    on_unknown = ["rerun", "park"] if number == pivot else ["rerun", "compensate", "park"]
    return PlanStep(
        name=name,
        kind=kind,
        needs=needs,
        probed=draw(st.booleans()),
        on_unknown=draw(st.sampled_from(on_unknown)),
        has_undo=kind is not Kind.READ_ONLY and draw(st.integers(0, 5)) > 0,
        scope=scope,
    )


policies = st.builds(
    Policy,
    deadline_at=st.sampled_from([None, None, START + 50, START + 500]),
    compensation_deadline_s=st.sampled_from([30.0, 600.0]),
    park_policy=st.sampled_from(["stop", "continue"]),
    reschedules_max=st.sampled_from([1, 3, 50]),
    recoveries_max=st.sampled_from([1, 3, 50]),
    attempts_max=st.sampled_from([1, 3, 50]),
    entries_max=st.sampled_from([20, 1_000, 1_000]),
)


# --- the books ----------------------------------------------------------------------------------------------------


class Books:
    """What the machine knows of one history, by rules of its own: a plain reading of the entries, one by one."""

    def __init__(self, plan: Plan) -> None:
        self.scopes = {step.name: step.scope for step in plan.steps}
        self.parents = {scope.id: scope for scope in plan.scopes}
        #: a person or a late effect had a say, after which only what always holds is judged
        self.is_tampered = False
        self.is_signalled = False
        self.ended_first: SagaEnded | None = None
        self.read_only = {step.name for step in plan.steps if step.kind is Kind.READ_ONLY}
        self.over: set[str] = set()
        self.completed: set[str] = set()
        self.to_undo: set[str] = set()
        self.failing: set[str] = set()
        self.order: list[str] = []
        self.running: set[str] = set()
        self.parked: set[str] = set()
        self.failures: dict[str, int] = {}
        self.takeovers = 0
        self.is_skipped = False
        self.end: SagaEnded | None = None

    def read(self, entry: Entry) -> None:
        """Take in one entry, by the method that has its name."""
        step = getattr(entry, "step", "")
        reader = getattr(self, f"_{type(entry).__name__}", None)
        if reader is not None:
            reader(entry, step)

    def rank(self, step: str, failing: set[str]) -> tuple[bool, int, int]:
        """Give the place in the order of undos: failing ones, their child sagas, then the latest started.

        A step that a person says is done may never have started.
        """
        around = {child for name in failing for child in self.children(name)}
        depth = sum(child in around for child in self.children(step))
        return (step not in failing, -depth, -(self.order.index(step) if step in self.order else -1))

    def children(self, step: str) -> list[str]:
        """List the child sagas that a step is in."""
        return [scope for scope in self.path(self.scopes[step]) if self.parents[scope].child]

    def path(self, scope: str) -> list[str]:
        """List a scope and those around it."""
        found = []
        while scope:
            found.append(scope)
            scope = self.parents[scope].parent
        return found

    def _StepStarted(self, entry: Any, step: str) -> None:
        self.running.add(step)
        self.failing.discard(step)
        if step not in self.order:
            self.order.append(step)

    def _StepCompleted(self, entry: Any, step: str) -> None:
        self._complete(step)
        if entry.has_effect:
            self._take_effect(step)

    def _take_effect(self, step: str) -> None:
        if step not in self.read_only and step in self.order:
            self.to_undo.add(step)

    def _complete(self, step: str) -> None:
        self.running.discard(step)
        self.over.add(step)
        self.completed.add(step)
        self.takeovers = 0

    def _StepProbed(self, entry: Any, step: str) -> None:
        if entry.answer is ProbeAnswer.DONE:
            self._complete(step)
            self._take_effect(step)
            self.failing.discard(step)
        elif entry.answer is ProbeAnswer.NOT_DONE:
            self.to_undo.discard(step)

    def _StepSkipped(self, entry: Any, step: str) -> None:
        self.over.add(step)
        self.takeovers = 0

    def _SkipAnswered(self, entry: Any, step: str) -> None:
        self.running.discard(step)
        self.over.add(step)
        scope, self.takeovers = self.scopes[step], 0
        if not scope:
            self.is_skipped = True
            return
        within = {name for name, inner in self.scopes.items() if scope in self.path(inner)}
        self.over |= within - set(self.order)

    def _SignalAwaited(self, entry: Any, step: str) -> None:
        self.takeovers = 0
        if step not in self.order:
            self.order.append(step)

    def _SignalMissed(self, entry: Any, step: str) -> None:
        self.failing.add(step)

    def _SignalReceived(self, entry: Any, step: str) -> None:
        self.is_signalled = True
        self.takeovers = 0

    def _tamper(self, entry: Any, step: str) -> None:
        self.is_tampered = True

    _StepSkippedByHand = _LateEffectFound = _StateEdited = _tamper

    def _StepResumed(self, entry: Any, step: str) -> None:
        self.is_tampered = True
        if not self.end:
            self.parked.discard(step)

    def _StepSuspended(self, entry: Any, step: str) -> None:
        self.running.discard(step)
        self.takeovers = 0
        if entry.has_effect:
            self._take_effect(step)

    def _StepFailed(self, entry: Any, step: str) -> None:
        self.running.discard(step)
        self.failures[step] = self.failures.get(step, 0) + 1
        if entry.retry_at is None:
            self.failing.add(step)
        if entry.is_refusal:
            self.to_undo.discard(step)
        elif entry.effect == "unknown":
            self._take_effect(step)

    def _TakenOver(self, entry: Any, step: str) -> None:
        self.takeovers += 1
        for name in self.running:
            self.failures[name] = self.failures.get(name, 0) + 1
            self._take_effect(name)
        self.running.clear()

    _DriveInterrupted = _TakenOver

    def _StepCompensated(self, entry: Any, step: str) -> None:
        self.to_undo.discard(step)
        self.takeovers = 0

    def _CompensationDeclined(self, entry: Any, step: str) -> None:
        self.takeovers = 0
        if step not in self.completed:
            self.to_undo.discard(step)

    def _CompensationSuspended(self, entry: Any, step: str) -> None:
        self.takeovers = 0

    def _StepParked(self, entry: Any, step: str) -> None:
        self.takeovers = 0
        self.parked.add(step)
        self.to_undo.discard(step)

    def _ParkedStepResolved(self, entry: Any, step: str) -> None:
        if step not in self.parked or self.end:
            return
        self.is_tampered |= bool(self.parents)
        self.parked.discard(step)
        self.failures[step] = self.takeovers = 0
        self.to_undo.discard(step)
        self.failing.discard(step)
        if entry.outcome == "done":
            self._complete(step)
            self.to_undo.add(step)

    def _SagaEnded(self, entry: Any, step: str) -> None:
        self.end = entry
        self.ended_first = self.ended_first or entry

    def _UndoOrdered(self, entry: Any, step: str) -> None:
        self.end = None


# --- the machine --------------------------------------------------------------------------------------------------


class DeciderMachine(RuleBasedStateMachine):
    """One execution, from its start to wherever the rules take it."""

    @initialize(plan=plans(), policy=policies)
    def start(self, plan: Plan, policy: Policy) -> None:
        """Journal the start."""
        self.plan, self.policy, self.now = plan, policy, START
        started = SagaStarted(
            at=START, saga="S", saga_path="m:S", saga_id="S:1", generation=1, drive="d", plan=plan, policy=policy,
            request=Raw(b"{}"),
        )  # fmt: skip
        self.journal: list[Entry] = [started]
        self.buffer: list[Entry] = []
        self.inbox: list[Entry] = []
        self.state: State = replay((started,))
        self.in_flight: dict[str, Action] = {}
        self.is_alive = True
        self.cancels_left, self.signals_left, self.resolutions_left = 1, 2, 1
        self.corrections_left, self.undos_left, self.denials_left = 2, 1, 2
        self.has_right = self.is_to_be_denied = False

    # --- the machine's own drive ---

    def apply(self, entry: Entry) -> None:
        """Add an entry that is yet to be journaled."""
        self.buffer.append(entry)
        self.state = evolve(self.state, entry)

    def commit(self) -> bool:
        """Journal what is buffered; False if the exclusive right is not there, after which to decide anew."""
        if self.plan.exclusive is not None and not self.has_right and self.state.denied_by is None:
            if self.is_to_be_denied:
                self.is_to_be_denied = False
                self.buffer = [entry for entry in self.buffer if not entry.is_decision]
                self.refold()
                self.apply(ExclusiveDenied(at=self.now, by="S:0"))
                return False
            self.has_right = True
        self.journal += self.buffer
        self.buffer = []
        if self.state.is_released:
            self.is_alive = False
            self.has_right &= not self.state.status.is_ended
        return True

    def refold(self) -> None:
        """Compute the state again after something was dropped."""
        self.state = replay((*self.journal, *self.buffer))

    def begin(self, action: Action) -> None:
        """Journal that the action begins."""
        assert isinstance(action, (Execute, Probe, Compensate, Await, Miss, TurnBack, Park, Finish))
        self.apply(action.begin(self.now))
        if isinstance(action, (Execute, Probe, Compensate)) and self.commit():
            self.in_flight[action.step] = action

    def books(self) -> Books:
        """Read the whole history anew."""
        books = Books(self.plan)
        for entry in (*self.journal, *self.buffer):
            books.read(entry)
        waited = {name for name, planned in self.state.shape.steps.items() if planned.signal is not None}
        for name, step in self.state.steps.items():
            if step.phase.is_over and (name in waited or books.is_tampered):
                books.over.add(name)
            if step.phase is not Phase.PARKED and books.is_tampered:
                books.parked.discard(name)
        return books

    def can_go_on(self) -> bool:
        return self.is_alive and not self.state.is_released

    # --- rules ---

    @precondition(lambda self: self.is_alive)
    @rule(rounds=st.integers(1, 8), data=st.data())
    def go_on(self, rounds: int, data: st.DataObject) -> None:
        """The drive goes on for a while, with whatever comes of it."""
        for _ in range(rounds):
            if self.in_flight and data.draw(st.booleans()):
                self.finish_call(data)
            elif self.can_go_on():
                self.carry_out(data)
            self.decisions_keep_the_rules()

    def carry_out(self, data: st.DataObject) -> None:
        """Carry out one of the decisions."""
        actions = decide(self.state)
        if not actions:
            assert self.in_flight, "nothing to do, nothing in flight, and no end"
            return
        action = data.draw(st.sampled_from(actions))
        if isinstance(action, Ask):
            self.apply(self.asked(action, data))
            if isinstance(self.buffer[-1], StepStarted) and self.commit():
                self.in_flight[action.step] = Execute(action.step, self.buffer_attempt())
        elif isinstance(action, Wait):
            self.wait(action, data)
        elif isinstance(action, Refuse):
            self.interrupt()
        else:
            self.begin(action)

    def buffer_attempt(self) -> int:
        last = self.journal[-1]
        assert isinstance(last, StepStarted)
        return last.attempt

    def wait(self, wait: Wait, data: st.DataObject) -> None:
        """Wait in the process, or suspend."""
        if wait.cause == "retry" and wait.until is not None and data.draw(st.booleans()):
            self.now = max(self.now, wait.until)
            self.apply(WaitElapsed(at=self.now))
            return
        self.apply(SagaSuspended(at=self.now, cause=wait.cause, due_at=wait.until, told=wait.told))

    def round_that_works(self) -> bool:
        """Bring back all that is in flight, carry out all that comes next; tell whether there was anything."""
        for action in tuple(self.in_flight.values()):
            self.apply(self.works(action))
        self.in_flight = {}
        self.decisions_keep_the_rules()
        actions = decide(self.state)
        for action in actions:
            self.carry_out_well(action)
        return bool(actions) and not isinstance(actions[0], (Wait, Refuse))

    def finish_call(self, data: st.DataObject) -> None:
        """One of the calls in flight comes back."""
        step = data.draw(st.sampled_from(sorted(self.in_flight)))
        action = self.in_flight.pop(step)
        outcomes = {Execute: self.executed, Probe: self.probed, Compensate: self.compensated}
        self.apply(data.draw(st.sampled_from(outcomes[type(action)](action))))

    @precondition(lambda self: self.is_alive and bool(self.in_flight))
    @rule(data=st.data())
    def save(self, data: st.DataObject) -> None:
        """A step in flight calls `context.save()`."""
        step = data.draw(st.sampled_from(sorted(self.in_flight)))
        value = data.draw(st.sampled_from([b'{"x":1}', b'{"x":1}', b'{"x":2}']))
        self.apply(StateSaved(at=self.now, step=step, state=Raw(value)))
        self.commit()

    @precondition(lambda self: self.is_alive and bool(self.buffer))
    @rule()
    def flush(self) -> None:
        """Commit; a suspension, end or park gives the lease back."""
        self.commit()

    @precondition(lambda self: self.is_alive and bool(self.in_flight or self.buffer))
    @rule()
    def crash(self) -> None:
        """The process dies: what is not journaled is lost."""
        self.buffer, self.in_flight, self.is_alive = [], {}, False
        self.is_to_be_denied = False
        self.refold()

    @precondition(lambda self: self.can_go_on() and bool(self.in_flight))
    @rule()
    def interrupt(self) -> None:
        """The drive is stopped and gives the lease back."""
        self.buffer = [entry for entry in self.buffer if not entry.is_decision]
        self.in_flight = {}
        self.refold()
        self.apply(DriveInterrupted(at=self.now, cause="CancelledError"))
        self.apply(SagaSuspended(at=self.now, cause="interrupted", due_at=self.now))
        self.commit()

    @precondition(lambda self: not self.is_alive and (self.inbox or not self.state.status.is_ended))
    @rule(is_delivery=st.booleans())
    def take_up(self, is_delivery: bool) -> None:
        """A delivery or the engine itself takes the execution up."""
        if not self.inbox and (self.state.parked is not None or (is_delivery and is_early(self.state, self.now))):
            return
        is_delivery = is_delivery and self.state.response is None  # later on, a delivery is answered at once
        if self.plan.mode == "select" and not is_delivery:
            return
        self.is_alive = True
        if not self.state.is_released:
            self.apply(TakenOver(at=self.now, drive="e"))
        taking = RequestDelivered if is_delivery else DriveResumed
        self.apply(taking(at=self.now, drive="e"))
        waits = [action for action in decide(self.state) if isinstance(action, Wait) and action.told is not None]
        assert not is_delivery or not waits, f"a delivery does not end what a step waits for: {waits}"
        for message in self.inbox:
            self.apply(message)
        self.inbox = []

    def mail(self, message: Entry) -> None:
        """Leave a message: taken in before every decision that is not journaled, or kept until somebody drives."""
        is_for_the_ended = isinstance(message, (UndoOrdered, LateEffectFound))
        if self.state.status.is_ended and not self.buffer and not is_for_the_ended:
            return
        if not self.is_alive:
            self.inbox.append(message)
            return
        self.buffer = [entry for entry in self.buffer if not entry.is_decision]
        self.refold()
        self.apply(message)

    def may_cancel(self) -> bool:
        """Rarely, and late: a cancel leads every history to the same end."""
        return self.cancels_left > 0 and len(self.journal) > 8

    @precondition(may_cancel)
    @rule(reason=st.sampled_from(["too dear", ""]))
    def cancel(self, reason: str) -> None:
        """Somebody cancels."""
        self.cancels_left -= 1
        self.mail(CancelRequested(at=self.now, reason=reason))

    @precondition(lambda self: self.signals_left > 0)
    @rule(name=st.sampled_from(SIGNALS))
    def signal(self, name: str) -> None:
        """Somebody signals."""
        self.signals_left -= 1
        self.mail(SignalReceived(at=self.now, name=name, payload=Raw(b"1")))

    @precondition(lambda self: self.resolutions_left > 0 or self.state.parked is not None)
    @rule(data=st.data())
    def resolve_parked(self, data: st.DataObject) -> None:
        """A person resolves a step, parked or not; while compensating, only as undone, as the engine demands."""
        self.resolutions_left -= 1
        step = data.draw(st.sampled_from([*self.state.steps, "nobody"]))
        outcomes = ["undone"] if self.state.turned_back else ["undone", "done", "not_done"]
        if self.pivot_is_completed():
            outcomes = ["done", "not_done"]
        if self.plan.exclusive is not None and step in self.state.steps and not self.state.steps[step].order:
            outcomes = ["undone"]
        outcome = data.draw(st.sampled_from(outcomes))
        self.mail(ParkedStepResolved(at=self.now, step=step, outcome=outcome, note="looked"))

    @precondition(lambda self: self.corrections_left > 0 and len(self.journal) > 4 and self.plan.mode == "chain")
    @rule(data=st.data())
    def correct(self, data: st.DataObject) -> None:
        """A person resumes or skips a step, or edits the state, which may no longer fit when it is taken in."""
        self.corrections_left -= 1
        step = data.draw(st.sampled_from([*self.state.steps, "nobody"]))
        changes = Raw(b'{"x":3}')
        skip = StepSkippedByHand(at=self.now, step=step, changes=changes)
        entries = [StepResumed(at=self.now, step=step), skip, StateEdited(at=self.now, changes=changes, removed=("y",))]
        self.mail(data.draw(st.sampled_from(entries)))

    @precondition(lambda self: self.undos_left > 0 and self.state.status.value == "COMPLETED" and not self.buffer)
    @rule()
    def order_undo(self) -> None:
        """A person wants what completed undone."""
        self.undos_left -= 1
        self.mail(UndoOrdered(at=self.now))

    @precondition(lambda self: self.corrections_left > 0 and self.state.started and self.plan.mode == "chain")
    @rule(data=st.data())
    def come_late(self, data: st.DataObject) -> None:
        """An attempt that was given up comes to its end after all."""
        started = [name for name, step in self.state.steps.items() if step.attempts]
        if not started:
            return
        self.corrections_left -= 1
        step = data.draw(st.sampled_from(started))
        undone = data.draw(st.integers(0, self.state.steps[step].undone))
        self.mail(LateEffectFound(at=self.now, step=step, attempt=1, undone=undone))

    @precondition(lambda self: self.denials_left > 0 and self.plan.exclusive is not None and not self.has_right)
    @rule()
    def deny(self) -> None:
        """Somebody else has the exclusive right when the next commit wants to take it."""
        self.denials_left -= 1
        self.is_to_be_denied = True

    @precondition(lambda self: len(self.journal) > 2)
    @rule(seconds=st.sampled_from([-10.0, 1.0, 40.0, 700.0]))
    def pass_time(self, seconds: float) -> None:
        """Time passes, or somebody sets the clock back."""
        self.now += seconds

    # --- outcomes ---

    def asked(self, ask: Ask, data: st.DataObject) -> Entry:
        """Invent what `should_execute` gave."""
        name, step = ask.step, self.state.steps[ask.step]
        started = StepStarted(at=self.now, step=name, attempt=step.attempts + 1)
        unwanted: Entry = StepCompleted(at=self.now, step=name) if step.order else StepSkipped(at=self.now, step=name)
        if self.plan.mode == "select":
            unwanted = StepNotSelected(at=self.now, step=name)
        raised = StepFailed(
            at=self.now, step=name, error=BROKEN, effect="none", retry_at=data.draw(self.retries()), is_unasked=True
        )
        return data.draw(st.sampled_from([started, started, started, unwanted, raised]))

    def retries(self) -> st.SearchStrategy[float | None]:
        return st.sampled_from([None, self.now, self.now + 20])

    def executed(self, action: Any) -> list[Entry]:
        """List what `execute` may give."""
        at, step = self.now, action.step
        found: list[Entry] = [StepCompleted(at=at, step=step)] * 6
        found.append(StepCompleted(at=at, step=step, has_effect=False))
        for retry_at in (None, at, at + 20):
            found.append(StepFailed(at=at, step=step, error=BROKEN, effect="unknown", retry_at=retry_at))
            found.append(StepFailed(at=at, step=step, error=BROKEN, effect="none", retry_at=retry_at))
        if not self.state.shape.keeps_trying(step):
            found.append(StepFailed(at=at, step=step, error=BROKEN, effect="none", is_refusal=True))
        found.append(StepFailed(at=at, step=step, error=BROKEN, effect="unknown", limit="payload_bytes_max"))
        found.append(StepSuspended(at=at, step=step, response=LATER, due_at=at + 60))
        found.append(StepSuspended(at=at, step=step, response=LATER, signal=SIGNALS[0]))
        found.append(SkipAnswered(at=at, step=step, response=Response("skip")))
        return found

    def probed(self, action: Any) -> list[Entry]:
        """List what `probe` may give."""
        return [StepProbed(at=self.now, step=action.step, answer=found) for found in ProbeAnswer]

    def compensated(self, action: Any) -> list[Entry]:
        """List what `compensate` may give."""
        at, step = self.now, action.step
        found: list[Entry] = [
            StepCompensated(at=at, step=step, response=Response("success")),
            StepCompensated(at=at, step=step, response=Response("skip")),
            CompensationDeclined(at=at, step=step, error=BROKEN),
            CompensationSuspended(at=at, step=step, response=LATER, due_at=at + 60),
        ]
        if not action.of_completed:
            found.append(StepCompensated(at=at, step=step, response=Response("fail")))
        if not action.is_final:
            retries = (None, at, at + 20)
            found += [CompensationFailed(at=at, step=step, error=BROKEN, retry_at=retry_at) for retry_at in retries]
        return found

    # --- what must hold ---

    @invariant()
    def the_same_history_gives_the_same_state_and_decision(self) -> None:
        """Whatever happened, there is a decision and an answer, and whoever replays it finds the same."""
        replayed = replay((*self.journal, *self.buffer))
        assert replayed == self.state
        assert decide(replayed) == decide(self.state)
        assert answer(self.state, self.now).status in ("success", "fail", "skip", "reschedule")

    @invariant()
    def decisions_keep_the_rules(self) -> None:
        """Judge what comes next by the books."""
        actions, books = decide(self.state), self.books()
        steps = [a.step for a in actions if isinstance(a, (Ask, Execute, Probe, Compensate))]
        assert len(steps) == len(set(steps)), "two things at once with one step"
        assert not set(steps) & set(self.in_flight), "a step in flight is begun again"
        is_over = self.state.status.is_ended or self.state.parked is not None
        is_dead = not self.is_alive  # what was in flight is still part of the state
        assert actions or self.in_flight or is_over or is_dead, "nothing to do, nothing in flight, and no end"
        for action in actions:
            self.judge_progress(action)
            if isinstance(action, (Ask, Execute)):
                self.judge_forward(action, books)
            if isinstance(action, Compensate):
                assert len(actions) == 1, "undone beside something else"
                self.judge_undo(action, books)
            if isinstance(action, Finish):
                self.judge_finish(action, books)

    def judge_progress(self, action: Action) -> None:
        """Whatever is decided, its entry changes more than the count."""
        if isinstance(action, (Ask, Wait, Refuse)):
            return
        entry = action.begin(self.now)
        counted = replace(self.state, entries=self.state.entries + 1, at=max(self.state.at, entry.at))
        assert evolve(self.state, entry) != counted, f"decided in vain: {action}"
        if self.pivot_is_completed() and self.state.undo is None:
            assert not isinstance(action, TurnBack), "turned back behind the pivot"
            # A person, or a late effect, may say that the pivot is done when it is too late for that.
            said = (ParkedStepResolved, LateEffectFound)
            is_said = any(isinstance(entry, said) for entry in (*self.journal, *self.buffer))
            assert is_said or not isinstance(action, Compensate), "undone behind the pivot"

    def pivot_is_completed(self) -> bool:
        pivot = next((step.name for step in self.plan.steps if step.kind is Kind.PIVOT), None)
        return pivot is not None and self.state.steps[pivot].phase is Phase.COMPLETED

    def judge_forward(self, action: Ask | Execute, books: Books) -> None:
        assert action.step not in books.over, "a step that is over runs again"
        assert self.state.turned_back is None, "a step runs while others are undone"
        needs = next(p.needs for p in self.plan.steps if p.name == action.step)
        assert set(needs) <= books.over, "a step runs before what it needs"
        assert action.step not in books.parked, "a parked step runs"
        assert not books.is_skipped, "a step runs after a skip"
        if isinstance(action, Execute) and not books.is_tampered:
            assert books.failures.get(action.step, 0) < self.policy.attempts_max, "more attempts than allowed"
            assert books.takeovers <= self.policy.recoveries_max, "more takeovers than allowed"

    def judge_undo(self, action: Compensate, books: Books) -> None:
        if self.plan.mode == "select":
            assert action.step not in books.completed, "a completed transaction is undone in mode select"
            return
        assert self.state.turned_back is not None, "undone before turning back"
        if books.is_tampered:
            return
        back = self.state.turned_back
        named = {back.step} if back.cause in ("failed", "interrupted") and back.step is not None else set()
        failing, passed = books.failing | named, self.passed_over(books)
        place = books.rank(action.step, failing)
        later = {step for step in books.to_undo - passed if books.rank(step, failing) < place}
        assert not later, f"undone before {later}, which failed, are in a failing child, or started later"
        assert action.step in books.to_undo, "undone although it left nothing"
        if not books.parked:
            assert books.takeovers <= self.policy.recoveries_max, "more takeovers than allowed"

    def passed_over(self, books: Books) -> set[str]:
        """Name the steps that an order to undo passes over: they define no undo."""
        if self.state.undo is None:
            return set()
        return {step.name for step in self.plan.steps if not step.has_undo and step.name in books.completed}

    def judge_finish(self, action: Finish, books: Books) -> None:
        if action.status.value == "PARKED":
            assert books.parked, "parked without a parked step"
        elif self.plan.mode == "select":
            assert not books.parked, "ended with a parked transaction"
        elif action.status.value in ("COMPENSATED", "CANCELLED"):
            left = books.to_undo - self.passed_over(books)
            assert not left or books.is_tampered, f"ended with {left} not undone"
            assert not any(step.phase is Phase.PARKED for step in self.state.steps.values()), "ended with a parked step"
        else:
            assert books.is_skipped or books.over == set(self.state.steps), "completed with steps left"

    @invariant()
    def an_end_is_final(self) -> None:
        """Once ended, nothing is decided; what was answered once is never taken back."""
        if self.state.status.is_ended:
            assert decide(self.state) == ()
        first = self.books().ended_first
        if first is not None:
            assert self.state.response == first.response

    @invariant()
    def a_preview_is_there_and_empty_behind_the_pivot(self) -> None:
        """Whatever happened, it can be told what would be undone."""
        undos = [undo.step for undo in preview(self.state)]
        assert len(undos) == len(set(undos))
        is_behind = self.pivot_is_completed() and not self.state.status.is_ended
        if is_behind and self.state.turned_back is None and self.state.undo is None:
            assert undos == []

    @invariant()
    def what_does_not_apply_changes_nothing(self) -> None:
        """Entries that came too late, or name nobody, add to the count only."""
        at, changes = self.state.at, Raw(b'{"x":4}')
        nonsense: list[Entry] = [
            StepResumed(at=at, step="nobody"),
            StepSkippedByHand(at=at, step="nobody", changes=changes),
            ParkedStepResolved(at=at, step="nobody", outcome="done", note="n"),
            LateEffectFound(at=at, step="nobody", attempt=1, undone=0),
        ]
        for name, step in self.state.steps.items():
            if step.phase is not Phase.PARKED:
                nonsense.append(ParkedStepResolved(at=at, step=name, outcome="done", note="n"))
            if step.phase is Phase.COMPLETED:
                nonsense.append(LateEffectFound(at=at, step=name, attempt=1, undone=0))
                nonsense.append(StepSkippedByHand(at=at, step=name, changes=changes))
        if self.state.status.value != "COMPLETED":
            nonsense.append(UndoOrdered(at=at))
        if self.state.status.is_ended or self.pivot_is_completed():
            nonsense.append(CancelRequested(at=at, reason="r"))
        for entry in nonsense:
            assert evolve(self.state, entry) == replace(self.state, entries=self.state.entries + 1), entry

    @invariant()
    def a_wait_for_a_signal_ends_by_a_signal_or_a_person(self) -> None:
        """A WaitFor is never over by itself, or by a delivery."""
        books = self.books()
        for name, planned in self.state.shape.steps.items():
            if planned.signal is not None and self.state.steps[name].phase is Phase.COMPLETED:
                assert books.is_signalled or books.is_tampered or name in books.completed

    def teardown(self) -> None:
        """If everything works from now on, the execution comes to an end, to a wait or to a park, and soon."""
        if not hasattr(self, "state"):
            return
        if not self.is_alive:
            self.take_up(is_delivery=True)
        if len(self.journal) % 4 == 1:
            self.mail(CancelRequested(at=self.now, reason="the end of the test"))
        for _ in range(DECISIONS_MAX * len(self.plan.steps)):
            if not self.round_that_works():
                break
        else:
            raise AssertionError("it goes on and on")
        is_waiting = bool(decide(self.state))
        assert is_waiting or self.state.status.is_ended or self.state.parked is not None, "it stands still"

    def carry_out_well(self, action: Action) -> None:
        if isinstance(action, Ask):
            action = Execute(action.step, self.state.steps[action.step].attempts + 1)
        if not isinstance(action, (Wait, Refuse)):
            self.begin(action)

    def works(self, action: Action) -> Entry:
        if isinstance(action, Probe):
            return StepProbed(at=self.now, step=action.step, answer=ProbeAnswer.UNKNOWN)
        if isinstance(action, Compensate):
            return StepCompensated(at=self.now, step=action.step, response=Response("success"))
        assert isinstance(action, Execute)
        return StepCompleted(at=self.now, step=action.step)


TestDecider = DeciderMachine.TestCase
TestDecider.settings = settings(max_examples=300, stateful_step_count=25)
