"""The oracle of the simulation: judges the log of a world by the rules, and shares no code with the engine.

It reads what happened (calls, commits as plain data, answers, commands, deaths) in its order, keeps books of its own
for each execution, and compares with the vendor's ledger at the end. Which step needs which it reads from the drawn
tree. What it knows of the rules it has from the design alone, so that a wrong rule in the decider is a difference.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from simulation_script import Branches, Child, Leaf, Script, Tree, leaves_of
from simulation_world import (
    Answered,
    ByHand,
    Called,
    Commanded,
    Event,
    Gave,
    Previewed,
    Vendor,
    Written,
)

from transactions import Kind

__all__ = ["Book", "judge"]

_BEGINS = {"StepStarted": "execute", "ProbeStarted": "probe", "CompensationStarted": "compensate"}
_RESULT_OF = {
    "StepSuspended": "execute",
    "SkipAnswered": "execute",
    "StepProbed": "probe",
    "StepCompensated": "compensate",
    "CompensationFailed": "compensate",
    "CompensationDeclined": "compensate",
    "CompensationSuspended": "compensate",
}
#: What shows that a drive got somewhere, so that takeovers are counted anew.
_PROGRESS = frozenset(
    {
        "CompensationDeclined",
        "CompensationSuspended",
        "LateEffectFound",
        "ParkedStepResolved",
        "SignalAwaited",
        "SignalReceived",
        "SkipAnswered",
        "StepCompensated",
        "StepCompleted",
        "StepParked",
        "StepProbed",
        "StepResumed",
        "StepSkipped",
        "StepSkippedByHand",
        "StepSuspended",
        "UndoOrdered",
    }
)


def judge(log: list[Event], scripts: list[Script], vendor: Vendor) -> list[Book]:
    """Assert every rule on what happened, and give the books.

    Raises:
        AssertionError: a rule does not hold; the text begins with the number of the event in the log.
    """
    rights: dict[str, int] = {}
    owners: dict[str, tuple[int, str, str]] = {}
    books = [Book(number, script, rights, owners) for number, script in enumerate(scripts)]
    for number, event in enumerate(log):
        execution = getattr(event, "execution", None)
        if execution is None:
            continue
        try:
            books[execution].take(number, event)
        except AssertionError as error:
            raise AssertionError(f"event {number}: {error}") from None
    for book in books:
        book.judge_end(vendor)
    return books


class Lay:
    """How the steps of a drawn tree lie to each other.

    Attributes:
        before: the steps that must be over before each one starts.
        apart: the steps of other branches of a group around it.
        children: the child sagas around it, outermost first.
        room: the steps that its `skip` ends: those of its branch or child saga; () for the whole saga.
        groups: the steps of each branch of each group.
    """

    def __init__(self, chain: list[Tree]) -> None:
        self.before: dict[str, frozenset[str]] = {}
        self.apart: dict[str, frozenset[str]] = {}
        self.children: dict[str, tuple[str, ...]] = {}
        self.room: dict[str, tuple[str, ...]] = {}
        self.groups: list[list[tuple[str, ...]]] = []
        self._walk(chain, frozenset(), frozenset(), (), ())

    def _walk(
        self,
        chain: list[Tree],
        before: frozenset[str],
        apart: frozenset[str],
        children: tuple[str, ...],
        room: tuple[str, ...],
    ) -> None:
        for tree in chain:
            inside = _names([tree])
            if isinstance(tree, Leaf):
                self.before[tree.path], self.apart[tree.path] = before, apart
                self.children[tree.path], self.room[tree.path] = children, room
            elif isinstance(tree, Child):
                self._walk(tree.chain, before, apart, (*children, tree.path), inside)
            else:
                self._branches(tree, before, apart, children)
            before |= frozenset(inside)

    def _branches(
        self, tree: Branches, before: frozenset[str], apart: frozenset[str], children: tuple[str, ...]
    ) -> None:
        self.groups.append([_names(branch) for branch in tree.branches])
        for branch in tree.branches:
            others = frozenset(_names([tree])) - frozenset(_names(branch))
            self._walk(branch, before, apart | others, children, _names(branch))


def _names(chain: list[Tree]) -> tuple[str, ...]:
    return tuple(leaf.path for leaf in leaves_of(chain))


class Book:
    """What is known of one execution: a plain reading of its log, one event after the other."""

    def __init__(
        self, number: int, script: Script, rights: dict[str, int], owners: dict[str, tuple[int, str, str]]
    ) -> None:
        self.number, self.script, self.leaves, self.lay = number, script, script.leaves, Lay(script.chain)
        self.rights, self.owners = rights, owners
        self.at = 0.0
        self.deadline_at: float | None = None
        self.commits = 0
        self.in_flight: set[tuple[str, str]] = set()
        self.begun: Counter[tuple[str, str]] = Counter()
        self.called: Counter[tuple[str, str]] = Counter()
        self.keys: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        self.started: list[str] = []
        self.over: set[str] = set()
        self.completed: set[str] = set()
        #: The steps that may have left something to undo.
        self.owed: set[str] = set()
        #: The steps that failed or were interrupted, and are to be tried again.
        self.trying: set[str] = set()
        #: Those that owe something of which nobody can tell whether they did it.
        self.unknown: set[str] = set()
        self.failing: set[str] = set()
        self.undoing: dict[str, str] = {}
        self.undone: Counter[str] = Counter()
        self.late: set[str] = set()
        #: How often there came about an undo that is another one than those before it.
        self.rounds: Counter[str] = Counter()
        self.parked: set[str] = set()
        self.retry_at: dict[str, float] = {}
        self.back: dict[str, Any] | None = None
        self.is_cancelled = self.is_ordered = self.is_skipped = False
        self.first_answer: tuple[str, str | None] | None = None
        self.first_end_at = -1
        self.end: str | None = None
        self.takeovers = 0
        self.delivery = 1
        self.data: dict[str, dict[str, Any]] = defaultdict(dict)
        self.edits: dict[str, Any] = {}
        #: The steps that durably wrote what other branches may write as well.
        self.messy: set[str] = set()
        self.waiting: dict[str, str] = {}
        self.signals: list[tuple[str, Any, float]] = []
        self.received: dict[str, Any] = {}
        self.due_at: dict[str, float] = {}
        self.unasked: Counter[str] = Counter()
        self.asked: set[str] = set()
        self.undone_by_hand: set[str] = set()
        self.gave: dict[str, str] = {}
        self.by_hand: set[str] = set()
        self.event = 0

    def take(self, number: int, event: Event) -> None:
        """Check the event against what came before, and remember it."""
        self.event = number
        if isinstance(event, Written):
            self._written(event)
        elif isinstance(event, Called):
            self._called(event)
        elif isinstance(event, Gave):
            if event.operation != "compensate":
                self.gave[event.step] = event.answer
        elif isinstance(event, Answered):
            self._answered(event)
        elif isinstance(event, Commanded):
            self._commanded(event)
        elif isinstance(event, Previewed):
            assert event.undos == self.undo_order_now(), f"preview gave {event.undos}, not {self.undo_order_now()}"
        elif isinstance(event, ByHand):
            self.by_hand.add(event.step)

    # --- what is known ---

    @property
    def pivot(self) -> str | None:
        """The point of no return."""
        return next((path for path, leaf in self.leaves.items() if leaf.kind is Kind.PIVOT), None)

    @property
    def is_pivot_done(self) -> bool:
        """Whether the point of no return is behind it."""
        return self.pivot in self.completed

    @property
    def is_pivot_uncertain(self) -> bool:
        """Whether it may be behind it."""
        pivot = self.pivot
        return (
            pivot is not None
            and pivot not in self.over
            and (pivot in self.owed or (pivot, "execute") in self.in_flight)
        )

    def _has_effect(self, step: str) -> bool:
        return self.leaves[step].kind is not Kind.READ_ONLY

    def _rank(self, step: str, failing: set[str]) -> tuple[bool, int, int]:
        """Give the place of a step in the order of undoing: failing ones, inner children, then latest first start."""
        around = {child for name in failing for child in self.lay.children[name]}
        depth = len([child for child in self.lay.children[step] if child in around])
        start = self.started.index(step) if step in self.started else -1
        return (step not in failing, -depth, -start)

    def undo_order_now(self) -> list[str]:
        """List what would be undone if it failed now, or is still to be undone."""
        if self.end not in (None, "COMPLETED") or (self.end is None and self.back is None and self._is_beyond_return()):
            return []
        running = {step for step, operation in self.in_flight if operation == "execute"}
        owed = self.owed | set(self.undoing) | {step for step in running if self._has_effect(step)}
        failing = self.failing | running | self._named
        if self.back is not None:
            owed -= self.parked
        elif self.end is None:
            failing |= self.trying
        if self.end == "COMPLETED" or self.is_ordered:
            owed = {step for step in owed if self.leaves[step].has_undo or step in self.undoing}
        return sorted(owed, key=lambda step: self._rank(step, failing))

    @property
    def _named(self) -> set[str]:
        """The step because of which it turned back."""
        back = self.back or {}
        return {back["step"]} if back.get("cause") in ("failed", "interrupted") and "step" in back else set()

    def _is_beyond_return(self) -> bool:
        return not self.is_ordered and (self.is_pivot_done or self.is_pivot_uncertain)

    # --- calls ---

    def _called(self, call: Called) -> None:
        step, is_undo = call.step, call.operation == "compensate"
        owner = (self.number, step, "compensate" if is_undo else "execute")
        assert self.owners.setdefault(call.key, owner) == owner, f"two operations share a key: {call}"
        self.keys[step, owner[2]].add(call.key)
        keys_max = self.undone[step] + self.rounds[step] + 1
        assert len(self.keys[step, owner[2]]) <= keys_max, f"the key is not stable: {call}"
        if call.operation != "should_execute":
            self.called[step, call.operation] += 1
            is_begun = self.called[step, call.operation] <= self.begun[step, call.operation]
            assert is_begun, f"called without a durable beginning: {call}"
        if call.is_late or call.operation == "should_execute":  # which is asked before what it sees is durable (J1)
            return
        assert self.end is None, f"called after the end: {call}"
        assert call.delivery == self.delivery, f"the request is not the delivered one ({self.delivery}): {call}"
        self._judge_state(call)

    def _judge_state(self, call: Called) -> None:
        """Check what the call sees: all that came before it, and nothing of other branches."""
        seen, step = call.state, call.step
        expected = {**self.data[step], **self.edits}
        if call.operation != "compensate":
            for need in self.lay.before[step]:
                expected.update(self.data[need])
                if need in self.received and self._is_only_signal(need):
                    expected[self.leaves[need].signal or ""] = self.received[need]
        wrong = {key: seen.get(key) for key, value in expected.items() if seen.get(key) != value}
        assert not wrong, f"the state has {wrong} where {expected} is durable: {call}"
        if call.operation == "execute":
            foreign = [other for other in self.lay.apart[step] if f"did {other}" in seen]
            assert not foreign, f"it sees what the branches of {foreign} do: {call}"

    def _is_only_signal(self, step: str) -> bool:
        """Tell whether no other step waits for a signal of that name, whose payload has the same place."""
        return sum(leaf.signal == self.leaves[step].signal for leaf in self.leaves.values()) == 1

    # --- answers, commands ---

    def _answered(self, answer: Answered) -> None:
        if self.first_answer is None or answer.began <= self.first_end_at:
            return
        assert not answer.drive, f"a delivery after the end was driven: {answer}"
        given = (answer.status, answer.output)
        assert given == self.first_answer, f"the answer was {self.first_answer} before: {answer}"

    def _commanded(self, said: Commanded) -> None:
        if said.refusal:
            return
        assert said.command == "undo" or self.end is None, f"taken after the end: {said}"
        if said.command == "undo":
            assert self.end == "COMPLETED", f"undone although it is {self.end}: {said}"
        elif said.command == "cancel":
            assert not self.is_pivot_done, f"cancelled past the pivot: {said}"
        elif said.command in ("resume", "skip") and said.step in self.unknown - set(self.undoing):
            leaf = self.leaves[said.step]
            is_safe = leaf.is_probed or leaf.is_idempotent or said.is_forced
            assert is_safe, f"not refused although the outcome is unknown: {said}"

    # --- commits ---

    def _written(self, commit: Written) -> None:
        self.commits += 1
        for entry in commit.entries:
            name = entry["entry"]
            self._common(name, entry)
            reader = getattr(self, f"_{name}", None)
            if reader is not None:
                reader(entry, entry.get("step", ""))
            self.at = max(self.at, entry["at"])
            if name in _PROGRESS:
                self.takeovers = 0

    def _common(self, name: str, entry: dict[str, Any]) -> None:
        step = entry.get("step", "")
        if name in _BEGINS:
            self.in_flight.add((step, _BEGINS[name]))
            self.begun[step, _BEGINS[name]] += 1
            self._take_right(name)
        elif name in _RESULT_OF:
            assert (step, _RESULT_OF[name]) in self.in_flight, f"a result of what is not in flight: {entry}"
            self.in_flight.discard((step, _RESULT_OF[name]))
        if "state" in entry:
            if entry["state"].get("everybody's") == step:
                self.messy.add(step)
            own = {key: value for key, value in entry["state"].items() if key.endswith(f" {step}")}
            self.data[step].update(own)

    def _take_right(self, name: str) -> None:
        if self.script.exclusive is None:
            return
        holder = self.rights.setdefault("the asset", self.number)
        assert holder == self.number, f"{name} while execution {holder} holds the exclusive right"

    def _free_right(self) -> None:
        if self.rights.get("the asset") == self.number:
            del self.rights["the asset"]

    def _SagaStarted(self, entry: dict[str, Any], step: str) -> None:
        self.deadline_at = entry["policy"].get("deadline_at")
        self.delivery = entry["request"]["delivery"]

    def _RequestDelivered(self, entry: dict[str, Any], step: str) -> None:
        if "request" in entry:
            self.delivery = entry["request"]["delivery"]
        self._wake(lambda name: True)

    def _DriveResumed(self, entry: dict[str, Any], step: str) -> None:
        self._wake(lambda name: self.due_at.get(name, float("inf")) <= entry["at"])

    def _wake(self, is_over: Any) -> None:
        """End the waits of steps that are no WaitFor."""
        for name in [n for n in self.waiting if self.leaves[n].signal is None and is_over(n)]:
            del self.waiting[name]

    def _TakenOver(self, entry: dict[str, Any], step: str) -> None:
        for name in [step for step, operation in self.in_flight if operation == "execute"]:
            self.trying.add(name)
            if self._has_effect(name):
                self.owed.add(name)
                self.unknown.add(name)
        self.in_flight.clear()
        self.takeovers += 1
        assert self.takeovers <= self.script.recoveries_max + 1, "taken over more often than recoveries_max allows"

    _DriveInterrupted = _TakenOver

    # --- forward ---

    def _StepStarted(self, entry: dict[str, Any], step: str) -> None:
        self._may_start(entry, step)
        if step not in self.started:
            self.started.append(step)
        assert entry["attempt"] == self.begun[step, "execute"] + self.unasked[step], (
            f"attempts do not count up: {entry}"
        )
        self.failing.discard(step)
        self.trying.discard(step)
        self.retry_at.pop(step, None)
        self.waiting.pop(step, None)

    def _may_start(self, entry: dict[str, Any], step: str) -> None:
        missing = self.lay.before[step] - self.over
        assert not missing, f"started before {sorted(missing)}: {entry}"
        assert step not in self.over, f"started again after it was over: {entry}"
        assert self.back is None, f"started while the execution compensates: {entry}"
        self._judge_joins(self.lay.before[step], entry)
        assert not self.parked, f"started while {sorted(self.parked)} is parked: {entry}"
        assert entry["at"] >= self.retry_at.get(step, 0.0), (
            f"started before its retry at {self.retry_at[step]}: {entry}"
        )
        if not self._is_beyond_return() and step != self.pivot:
            assert not self.is_cancelled, f"started after it was cancelled: {entry}"
            is_late = self.deadline_at is not None and self.at >= self.deadline_at
            assert not is_late, f"started after the deadline: {entry}"

    def _judge_joins(self, over: frozenset[str], entry: dict[str, Any]) -> None:
        """Check that of a group whose branches wrote one key differently nothing went on."""
        for branches in self.lay.groups:
            if frozenset(name for branch in branches for name in branch) <= over:
                writers = [branch for branch in branches if self.messy.intersection(branch)]
                assert len(writers) < 2, f"nobody saw that {writers} wrote one key differently: {entry}"

    def _StepSkipped(self, entry: dict[str, Any], step: str) -> None:
        assert step not in self.started, f"skipped after it had started: {entry}"
        assert self.lay.before[step] <= self.over, f"asked too early: {entry}"
        self.over.add(step)

    def _StepCompleted(self, entry: dict[str, Any], step: str) -> None:
        self.in_flight.discard((step, "execute"))
        if entry.get("has_effect", True) and self._has_effect(step):
            self.owed.add(step)
        self._complete(step)

    def _complete(self, step: str) -> None:
        assert step not in self.completed, f"{step} completed twice"
        self.over.add(step)
        self.completed.add(step)
        self.failing.discard(step)
        self.trying.discard(step)
        self.unknown.discard(step)
        self.waiting.pop(step, None)

    def _SkipAnswered(self, entry: dict[str, Any], step: str) -> None:
        self.over.add(step)
        self.unknown.discard(step)
        self.trying.discard(step)
        if step in self.owed:
            self.completed.add(step)
        room = self.lay.room[step]
        self.is_skipped = self.is_skipped or not room
        self.over.update(name for name in room if name not in self.started and name not in self.asked)

    def _StepSuspended(self, entry: dict[str, Any], step: str) -> None:
        if entry.get("has_effect", True) and self._has_effect(step):
            self.owed.add(step)
        self.unknown.discard(step)
        self.trying.discard(step)
        self.retry_at.pop(step, None)
        self.due_at[step] = entry.get("due_at", float("inf"))
        if "signal" in entry:
            self.waiting[step] = entry["signal"]
            self._match_signals()

    def _StepFailed(self, entry: dict[str, Any], step: str) -> None:
        self.in_flight.discard((step, "execute"))
        if entry.get("is_unasked"):
            self.unasked[step] += 1
            self.asked.add(step)
        if entry["effect"] == "unknown" and self._has_effect(step):
            self.owed.add(step)
            self.unknown.add(step)
        if entry.get("is_refusal"):
            self.owed.discard(step)
            self.unknown.discard(step)
        if "retry_at" in entry:
            self.retry_at[step] = entry["retry_at"]
            self.trying.add(step)
        else:
            self.failing.add(step)

    def _StepProbed(self, entry: dict[str, Any], step: str) -> None:
        if entry["answer"] == "not_done":
            self.owed.discard(step)
            self.unknown.discard(step)
            if self.back is not None:
                self.failing.add(step)
        elif entry["answer"] == "done":
            if self._has_effect(step):
                self.owed.add(step)
            self._complete(step)

    # --- signals ---

    def _SignalAwaited(self, entry: dict[str, Any], step: str) -> None:
        self._may_start(entry, step)
        self._take_right("SignalAwaited")
        if step not in self.started:
            self.started.append(step)
        self.failing.discard(step)
        self.waiting[step] = self.leaves[step].signal or ""
        self.due_at[step] = entry.get("due_at", float("inf"))
        self._match_signals()

    def _SignalReceived(self, entry: dict[str, Any], step: str) -> None:
        self.signals.append((entry["name"], entry["payload"], entry["at"]))
        self._match_signals()

    def _match_signals(self) -> None:
        """Give each kept signal to the first step that waits for it."""
        for signal in list(self.signals):
            name, payload, sent_at = signal
            step = next((n for n in self.leaves if self.waiting.get(n) == name and self._is_in_time(n, sent_at)), None)
            if step is None:
                continue
            self.signals.remove(signal)
            del self.waiting[step]
            if self.leaves[step].signal is not None:
                self._complete(step)
                self.received[step] = payload

    def _is_in_time(self, step: str, sent_at: float) -> bool:
        """Tell whether a `WaitFor` may take a signal that was sent at that time; other waits take any."""
        return self.leaves[step].signal is None or sent_at < self.due_at[step]

    def _SignalMissed(self, entry: dict[str, Any], step: str) -> None:
        assert step in self.waiting, f"missed although it came: {entry}"
        del self.waiting[step]
        self.failing.add(step)

    def _SagaSuspended(self, entry: dict[str, Any], step: str) -> None:
        if entry["cause"] == "signal":
            is_waiting = any(self.leaves[name].signal is not None for name in self.waiting)
            assert is_waiting, f"it waits for a signal that it has: {entry}"

    # --- backward ---

    def _CompensationBegun(self, entry: dict[str, Any], step: str) -> None:
        assert self.back is None, f"turned back twice: {entry}"
        assert entry["cause"] == "undo" or not self._is_beyond_return(), f"turned back past the pivot: {entry}"
        running = [name for name, operation in self.in_flight if operation == "execute"]
        assert not running, f"turned back while {running} runs: {entry}"
        self.back = entry
        if entry["cause"] in ("failed", "interrupted") and step:
            self.failing.add(step)

    def _CompensationStarted(self, entry: dict[str, Any], step: str) -> None:
        assert self.back is not None, f"undone before it turned back: {entry}"
        assert step in self.owed, f"undone although nothing of it is there: {entry}"
        busy = [name for name, operation in self.in_flight if (name, operation) != (step, "compensate")]
        assert not busy, f"undone while {busy} is in flight: {entry}"
        order = self.undo_order_now()
        is_stopped = bool(self.parked) and self.script.park_policy == "stop"
        assert not is_stopped, f"undone although {sorted(self.parked)} parked: {entry}"
        assert order[:1] == [step], f"undone before {order[:1]}: {entry}"
        assert entry["at"] >= self.retry_at.get(f"undo {step}", 0.0), f"undone before its retry: {entry}"
        if step not in self.undoing:
            self.undoing[step] = "completed" if step in self.completed else "other"

    def _StepCompensated(self, entry: dict[str, Any], step: str) -> None:
        self.undone[step] += 1
        self._undo_over(step)

    def _undo_over(self, step: str) -> None:
        self.undoing.pop(step, None)
        self.retry_at.pop(f"undo {step}", None)
        self.unknown.discard(step)
        if step in self.late:
            self.late.discard(step)
            self.failing.add(step)
        else:
            self.owed.discard(step)

    def _CompensationDeclined(self, entry: dict[str, Any], step: str) -> None:
        if self.undoing.get(step) != "completed":
            self._undo_over(step)
            self.failing.add(step)

    def _CompensationFailed(self, entry: dict[str, Any], step: str) -> None:
        if "retry_at" in entry:
            self.retry_at[f"undo {step}"] = entry["retry_at"]

    def _CompensationSuspended(self, entry: dict[str, Any], step: str) -> None:
        if self._is_not_lost_yet(step):
            self.back = None
            self.rounds[step] += 1
            self.undoing.pop(step, None)
            self.failing.discard(step)
            self.unknown.discard(step)

    def _is_not_lost_yet(self, step: str) -> bool:
        """Tell whether S10 lets the step run again: it is the only failure, and nothing else speaks against it."""
        is_only_failure = self.failing == {step} and self.back is not None and self.back["cause"] == "failed"
        is_in_time = self.deadline_at is None or self.at < self.deadline_at
        is_untouched = not sum(self.undone.values()) and self.first_answer is None and not self.undone_by_hand
        return is_only_failure and is_in_time and is_untouched and not self.is_cancelled

    # --- stopping ---

    def _StepParked(self, entry: dict[str, Any], step: str) -> None:
        self.parked.add(step)
        self.waiting.pop(step, None)

    def _SagaParked(self, entry: dict[str, Any], step: str) -> None:
        assert step in self.parked, f"parked at a step that is not: {entry}"
        if self.script.exclusive is not None and self.script.exclusive[1] == "release":
            self._free_right()

    def _SagaEnded(self, entry: dict[str, Any], step: str) -> None:
        status, response = entry["status"], entry["response"]
        assert not self.in_flight, f"ended while {self.in_flight} is in flight: {entry}"
        assert not self.parked, f"ended while {sorted(self.parked)} is parked: {entry}"
        is_undoing = status in ("COMPENSATED", "CANCELLED")
        assert is_undoing == (self.back is not None or (status == "COMPENSATED" and not self.started)), f"{entry}"
        if is_undoing:
            left = self.owed if not self.is_ordered else {s for s in self.owed if self.leaves[s].has_undo}
            assert not left, f"ended while {sorted(left)} may be there: {entry}"
            assert status == "COMPENSATED" or self.is_cancelled, f"cancelled by nobody: {entry}"
        else:
            assert not self.is_cancelled or self.is_pivot_done, f"ended {status} although it was cancelled: {entry}"
            missing = set(self.leaves) - self.over
            self._judge_joins(frozenset() if self.is_skipped else frozenset(self.leaves), entry)
            assert self.is_skipped or not missing, f"ended {status} without {sorted(missing)}: {entry}"
            assert status == "COMPLETED" or not self.owed, f"skipped with effects of {sorted(self.owed)}: {entry}"
        self.end = status
        self._free_right()
        if self.first_answer is None:
            self.first_answer = (response["status"], response.get("output"))
            self.first_end_at = self.event

    # --- what people say ---

    def _CancelRequested(self, entry: dict[str, Any], step: str) -> None:
        if self.end is None and not self.is_pivot_done and not self.is_ordered:
            self.is_cancelled = True

    def _StateEdited(self, entry: dict[str, Any], step: str) -> None:
        if self.end is None:
            if "everybody's" in entry["changes"]:
                self.messy.clear()
            self.edits.update({key: value for key, value in entry["changes"].items() if key.startswith("edit ")})

    def _UndoOrdered(self, entry: dict[str, Any], step: str) -> None:
        if self.end == "COMPLETED":
            self.end, self.is_ordered = None, True

    def _ParkedStepResolved(self, entry: dict[str, Any], step: str) -> None:
        if step not in self.parked or self.end is not None:
            return
        self.parked.discard(step)
        self.failing.discard(step)
        self.unknown.discard(step)
        self.retry_at.pop(step, None)
        self.waiting.pop(step, None)
        self.trying.discard(step)
        if entry["outcome"] == "not_done":
            self.trying.add(step)
            self.over.discard(step)
            self.completed.discard(step)
        if entry["outcome"] == "done":
            if self._has_effect(step):
                self.owed.add(step)
            self.over.add(step)
            self.completed.add(step)
            return
        self.owed.discard(step)
        if entry["outcome"] == "undone":
            self.undoing.pop(step, None)
            self.undone_by_hand.add(step)

    def _StepResumed(self, entry: dict[str, Any], step: str) -> None:
        if self.end is None:
            self.parked.discard(step)
            if step not in self.undoing:
                self.failing.discard(step)
            self.retry_at.pop(step, None)
            self.retry_at.pop(f"undo {step}", None)

    def _StepSkippedByHand(self, entry: dict[str, Any], step: str) -> None:
        is_running = (step, "execute") in self.in_flight
        if self.end is not None or self.back is not None or step in self.over or is_running:
            return
        self.parked.discard(step)
        self.failing.discard(step)
        self.trying.discard(step)
        self.unknown.discard(step)
        self.waiting.pop(step, None)
        self.over.add(step)
        self.by_hand.add(step)
        if step in self.owed:
            self.completed.add(step)
        self.data[step].update(entry["changes"])

    def _LateEffectFound(self, entry: dict[str, Any], step: str) -> None:
        self.rounds[step] += 1
        is_gone = step in self.undoing or self.undone[step] or step in self.undone_by_hand
        if not self._has_effect(step) or (step in self.completed and not is_gone):
            return
        if step in self.over and not is_gone:  # it was skipped in the end, and is there after all
            self.completed.add(step)
            self.owed.add(step)
            return
        if step in self.undoing:
            self.late.add(step)
            return
        self.owed.add(step)
        if self.undone[step] or step in self.undone_by_hand:
            self.failing.add(step)
            self.completed.discard(step)
        if self.end is not None and self.back is not None:
            self.end = None

    # --- the end ---

    def judge_end(self, vendor: Vendor) -> None:
        """Compare what is journaled with what is at the vendor, when everything is at rest.

        Raises:
            AssertionError: they do not agree.
        """
        live = vendor.live(self.number)
        twice = [step for step, count in live.items() if count > 1]
        assert not twice, f"execution {self.number}: made twice: {twice}"
        assert self.end is not None, f"execution {self.number} has no end"
        if self.end == "COMPLETED":
            must = {step for step in self.completed & self.owed if self.gave.get(step) == "done"} - self.by_hand
            may = self.completed | self.by_hand
            assert must <= set(live) <= may, f"execution {self.number}: there is {sorted(live)}, must {sorted(must)}"
        else:
            left = {step for step in live if self.leaves[step].has_undo}
            assert not left, f"execution {self.number} ended {self.end}, and there is {sorted(left)}"
        is_plain = self.script.is_calm and not self.is_ordered
        if is_plain:
            assert self.commits == len(self.leaves) + 1, f"{self.commits} commits for {len(self.leaves)} steps (J1)"
