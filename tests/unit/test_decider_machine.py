"""The decider against everything that can happen: random plans, outcomes, crashes, mail and time, by hypothesis.

The machine plays a drive without an engine: it begins what the decider decides, invents the outcomes, loses what is
not journaled when it crashes, and keeps books of its own, by which it judges the decisions.
"""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import Raw

from saga_engine.decider import (
    Action,
    Ask,
    Compensate,
    Execute,
    Finish,
    Park,
    Probe,
    Refuse,
    State,
    TurnBack,
    Wait,
    answer,
    decide,
    evolve,
    is_early,
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
    ParkedStepResolved,
    Plan,
    PlanStep,
    Policy,
    RequestDelivered,
    Response,
    SagaEnded,
    SagaStarted,
    SagaSuspended,
    SignalReceived,
    SkipAnswered,
    StateSaved,
    StepCompensated,
    StepCompleted,
    StepFailed,
    StepNotSelected,
    StepProbed,
    StepSkipped,
    StepStarted,
    StepSuspended,
    TakenOver,
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


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Chains, graphs and lists to select from, of 1 to 6 steps."""
    shape = draw(st.sampled_from(["chain", "graph", "select"]))
    steps: list[PlanStep] = []
    for name in "abcdef"[: draw(st.integers(1, 6))]:
        earlier = [step.name for step in steps]
        needs = {
            "chain": earlier[-1:],
            "graph": sorted(draw(st.sets(st.sampled_from(earlier), max_size=2))) if earlier else [],
            "select": [],
        }[shape]
        steps.append(
            PlanStep(
                name=name,
                kind=draw(st.sampled_from([Kind.COMPENSATABLE, Kind.COMPENSATABLE, Kind.READ_ONLY, Kind.RETRIABLE])),
                needs=tuple(needs),
                probed=draw(st.booleans()),
                on_unknown=draw(st.sampled_from(["rerun", "compensate", "park"])),
            )
        )
    return Plan(tuple(steps), "select" if shape == "select" else "chain")


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

    def rank(self, step: str) -> int:
        """Give the step's place among the first starts; one that a person says is done may never have started."""
        return self.order.index(step) if step in self.order else -1

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
        self.is_skipped = True

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
        self.parked.add(step)
        self.to_undo.discard(step)

    def _ParkedStepResolved(self, entry: Any, step: str) -> None:
        if step not in self.parked or self.end:
            return
        self.parked.discard(step)
        self.failures[step] = self.takeovers = 0
        self.to_undo.discard(step)
        self.failing.discard(step)
        if entry.outcome == "done":
            self._complete(step)
            self.to_undo.add(step)

    def _SagaEnded(self, entry: Any, step: str) -> None:
        self.end = self.end or entry


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

    # --- the machine's own drive ---

    def apply(self, entry: Entry) -> None:
        """Add an entry that is yet to be journaled."""
        self.buffer.append(entry)
        self.state = evolve(self.state, entry)

    def commit(self) -> None:
        """Journal what is buffered."""
        self.journal += self.buffer
        self.buffer = []
        if self.state.is_released:
            self.is_alive = False

    def refold(self) -> None:
        """Compute the state again after something was dropped."""
        self.state = replay((*self.journal, *self.buffer))

    def begin(self, action: Action) -> None:
        """Journal that the action begins."""
        assert isinstance(action, (Execute, Probe, Compensate, TurnBack, Park, Finish))
        self.apply(action.begin(self.now))
        if isinstance(action, (Execute, Probe, Compensate)):
            self.commit()
            self.in_flight[action.step] = action

    def books(self) -> Books:
        """Read the whole history anew."""
        books = Books(self.plan)
        for entry in (*self.journal, *self.buffer):
            books.read(entry)
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
            if isinstance(self.buffer[-1], StepStarted):
                self.commit()
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
        self.apply(StateSaved(at=self.now, step=step, state=Raw(b'{"x":1}')))
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

    @precondition(lambda self: not self.is_alive and not self.state.status.is_ended)
    @rule(is_delivery=st.booleans())
    def take_up(self, is_delivery: bool) -> None:
        """A delivery or the engine itself takes the execution up."""
        if not self.inbox and (self.state.parked is not None or (is_delivery and is_early(self.state, self.now))):
            return
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
        if self.state.status.is_ended and not self.buffer:
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
        outcome = data.draw(st.sampled_from(outcomes))
        self.mail(ParkedStepResolved(at=self.now, step=step, outcome=outcome, note="looked"))

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
        for action in actions:
            if isinstance(action, (Ask, Execute)):
                self.judge_forward(action, books)
            if isinstance(action, Compensate):
                assert len(actions) == 1, "undone beside something else"
                self.judge_undo(action, books)
            if isinstance(action, Finish):
                self.judge_finish(action, books)

    def judge_forward(self, action: Ask | Execute, books: Books) -> None:
        assert action.step not in books.over, "a step that is over runs again"
        assert self.state.turned_back is None, "a step runs while others are undone"
        needs = next(p.needs for p in self.plan.steps if p.name == action.step)
        assert set(needs) <= books.over, "a step runs before what it needs"
        assert action.step not in books.parked, "a parked step runs"
        assert not books.is_skipped, "a step runs after a skip"
        if isinstance(action, Execute):
            assert books.failures.get(action.step, 0) < self.policy.attempts_max, "more attempts than allowed"
            assert books.takeovers <= self.policy.recoveries_max, "more takeovers than allowed"

    def judge_undo(self, action: Compensate, books: Books) -> None:
        if self.plan.mode == "select":
            assert action.step not in books.completed, "a completed transaction is undone in mode select"
            return
        assert self.state.turned_back is not None, "undone before turning back"
        failing = books.failing | ({self.state.turned_back.step} - {None})
        before = books.to_undo if action.step not in failing else books.to_undo & failing
        later = {step for step in before if books.rank(step) > books.rank(action.step)}
        if action.step not in failing:
            later |= before & failing
        assert not later, f"undone before {later}, which failed or started later"
        assert action.step in books.to_undo, "undone although it left nothing"
        if not books.parked:
            assert books.takeovers <= self.policy.recoveries_max, "more takeovers than allowed"

    def judge_finish(self, action: Finish, books: Books) -> None:
        if action.status.value == "PARKED":
            assert books.parked, "parked without a parked step"
        elif self.plan.mode == "select":
            assert not books.parked, "ended with a parked transaction"
        elif action.status.value in ("COMPENSATED", "CANCELLED"):
            assert not books.to_undo, f"ended with {books.to_undo} not undone"
            assert not books.parked, "ended with a parked step"
        else:
            assert books.is_skipped or books.over == set(self.state.steps), "completed with steps left"

    @invariant()
    def an_end_is_final(self) -> None:
        """Once ended, nothing is decided and nothing changes."""
        end = self.books().end
        if end is not None:
            assert decide(self.state) == ()
            assert (self.state.status, self.state.response) == (end.status, end.response)

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
