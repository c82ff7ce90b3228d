"""The oracle of the crash points: judges a world's log by the rules. Shares no code with the engine's decider.

It knows only what happened outside of the engine (calls, commits, answers, crashes, in their order), what is at
the vendor, and what the scenario's author wrote down as its end.
"""

from __future__ import annotations

from collections import Counter, defaultdict

from crash_scenarios import Scenario
from crashpoints import Answered, Called, Event, Fact, Life, Saved, World, Written

__all__ = ["judge"]

_BEGINS = {"StepStarted": "execute", "ProbeStarted": "probe", "CompensationStarted": "compensate"}
_RESULTS = {
    "execute": ("StepCompleted", "StepFailed", "StepSuspended", "SkipAnswered"),
    "probe": ("StepProbed",),
    "compensate": ("StepCompensated", "CompensationFailed", "CompensationDeclined", "CompensationSuspended"),
}
_RESULT_OF = {name: operation for operation, names in _RESULTS.items() for name in names}


def judge(world: World, scenario: Scenario) -> None:
    """Assert every invariant of the story that the world's log tells.

    Raises:
        AssertionError: one does not hold; the text is the log.
    """
    try:
        story = _Story(is_select=scenario.mode == "select")
        for event in world.log:
            story.take(event)
        _judge_end(world, scenario, story)
        _judge_keys(world, story)
        _judge_answer(world, story)
    except AssertionError as error:
        raise AssertionError(f"{scenario.name}: {error}\n{tell(world)}") from error


def tell(world: World) -> str:
    """Write the log down, a line for each event."""
    return "\n".join(f"  {event}" for event in world.log)


class _Story:
    """What is durable so far, and what that allows next."""

    def __init__(self, is_select: bool) -> None:
        self.is_select = is_select
        self.is_held = False
        self.must_take_over = False
        self.begun: set[tuple[str, str]] = set()
        self.called: set[tuple[str, str]] = set()
        self.started: list[str] = []
        self.completed: list[str] = []
        self.compensated: list[str] = []
        self.no_effect: set[str] = set()
        self.parked: set[str] = set()
        self.skipped: set[str] = set()
        self.end: str | None = None
        self.is_turned_back = False
        self.keys: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        self.attempts: Counter[tuple[str, str]] = Counter()
        self.answers: list[Answered] = []
        self.calls: Counter[str] = Counter()
        self.data: dict[str, int] = {}

    def take(self, event: Event) -> None:
        """Check the event against what came before, and remember it."""
        if isinstance(event, Written):
            self._written(event)
        elif isinstance(event, Called):
            self._called(event)
        elif isinstance(event, Saved):
            assert self.data[f"execute {event.step}"] == self.calls[f"execute {event.step}"], f"not durable: {event}"
        elif isinstance(event, Answered):
            assert not self.is_held, f"answered while its drive was not over: {event}"
            self.answers.append(event)
        else:
            self.must_take_over = self.is_held

    # --- calls ---

    def _called(self, call: Called) -> None:
        assert self.end is None, f"called after the end: {call}"
        missing = [step for step in self.completed if step not in call.seen and step not in self.skipped]
        assert not missing, f"state of {missing} is lost: {call}"
        if call.operation == "should_execute":
            assert call.step not in self.skipped, f"asked again after it was skipped: {call}"
            return
        wrong = {what: call.seen.get(what) for what, count in self.data.items() if call.seen.get(what) != count}
        assert not wrong, f"state is not the durable {self.data}, but has {wrong}: {call}"
        self.calls[f"{call.operation} {call.step}"] += 1
        place = (call.step, call.operation)
        assert place in self.begun, f"called before its beginning was durable: {call}"
        self.keys[call.step, "compensate" if call.operation == "compensate" else "execute"].add(call.key)
        self.begun.remove(place)
        self.called.add(place)
        if call.operation == "execute":
            self._executed(call)
        elif call.operation == "compensate":
            self._compensated(call)

    def _executed(self, call: Called) -> None:
        assert call.step not in self.completed, f"run again after it completed: {call}"
        assert not self.is_turned_back, f"run while the saga compensates: {call}"

    def _compensated(self, call: Called) -> None:
        assert call.step not in self.compensated, f"undone again: {call}"
        later = self.started[self.started.index(call.step) + 1 :]
        left = [s for s in later if s not in self.compensated and s not in self.no_effect and s not in self.parked]
        assert not left, f"undone before {left}, which started later: {call}"

    # --- commits ---

    def _written(self, commit: Written) -> None:
        assert self.end is None, f"written after the end: {commit}"
        names = [fact.name for fact in commit.facts]
        if self.must_take_over:
            assert names[0] == "TakenOver", f"a dead drive was not taken over: {commit}"
        else:
            assert "TakenOver" not in names, f"taken over from nobody: {commit}"
        if "TakenOver" in names:
            self.begun.clear()
            self.called.clear()
        self.is_held, self.must_take_over = not commit.is_release, False
        for fact in commit.facts:
            self._fact(fact)

    def _fact(self, fact: Fact) -> None:
        if fact.name == "SagaEnded":
            self.end = fact.status
        elif fact.name == "SagaParked":
            assert fact.step in self.parked, f"parked at a step that is not: {fact}"
        elif fact.name == "CompensationBegun":
            assert not self.is_turned_back, f"turned back twice: {fact}"
            self.is_turned_back = True
        elif fact.name in _BEGINS and fact.step is not None:
            self._begins(fact, fact.step)
        elif fact.step is not None:
            self._results(fact, fact.step)

    def _begins(self, fact: Fact, step: str) -> None:
        operation = _BEGINS[fact.name]
        if fact.attempt is not None:
            assert fact.attempt == self.attempts[step, operation] + 1, f"attempts do not count up: {fact}"
            self.attempts[step, operation] = fact.attempt
        assert operation != "compensate" or self.is_turned_back or self.is_select, f"undo before turning back: {fact}"
        self.begun.add((step, operation))
        if operation == "execute" and step not in self.started:
            self.started.append(step)

    def _results(self, fact: Fact, step: str) -> None:
        operation = _RESULT_OF.get(fact.name)
        if operation is not None:
            assert (step, operation) in self.called, f"a result without a call: {fact}"
            self.called.remove((step, operation))
        if operation is not None or fact.name == "StateSaved":
            changed = f"{operation or 'execute'} {step}"
            self.data[changed] = self.calls[changed]
        is_done = fact.name == "StepCompleted" or (fact.name == "StepProbed" and fact.answer == "done")
        if is_done:
            assert step not in self.completed, f"completed twice: {fact}"
            self.completed.append(step)
        elif fact.name == "StepCompensated":
            self.compensated.append(step)
        elif fact.name == "StepParked":
            self.parked.add(step)
        elif fact.name in ("StepSkipped", "SkipAnswered"):
            self.skipped.add(step)
        elif fact.name == "CompensationSuspended" and step not in self.completed:
            self.is_turned_back = False  # not lost yet: it runs again
        self._note_effect(fact, step)

    def _note_effect(self, fact: Fact, step: str) -> None:
        """Remember which steps left nothing to undo: refused, found not done, or declined by a failing step."""
        is_declined = fact.name == "CompensationDeclined" and step not in self.completed
        is_not_done = fact.name == "StepProbed" and fact.answer == "not_done"
        if is_declined or is_not_done or (fact.name == "StepFailed" and fact.answer == "refused"):
            self.no_effect.add(step)
        elif fact.name in ("StepFailed", "StepCompleted"):
            self.no_effect.discard(step)


# --- the end ------------------------------------------------------------------------------------------------------


def _judge_end(world: World, scenario: Scenario, story: _Story) -> None:
    end = story.end or "PARKED"
    assert end in {scenario.end, *scenario.ends}, f"ended {end}"
    assert end != "PARKED" or story.parked, "parked without a parked step"
    assert not (end == "COMPENSATED" and story.parked), "compensated with a parked step"
    live = world.vendor.live()
    must_live = [s for s in story.completed if s not in story.compensated and s not in story.parked]
    may_live = {*must_live, *story.parked}
    assert set(must_live) <= set(live) <= may_live, f"at the vendor is {live}, of {must_live} to {sorted(may_live)}"
    assert len(live) == len(set(live)), f"made twice: {live}"
    over = {*story.completed, *story.compensated, *story.parked, *story.skipped, *story.no_effect}
    assert set(story.started) <= over, f"neither completed, compensated nor parked: {set(story.started) - over}"
    if end == scenario.end and not (scenario.is_forked and len(world.lives) > 1):
        assert "".join(live) == scenario.live, f"at the vendor is {live}"
        assert "".join(story.compensated) == scenario.undone, f"undone were {story.compensated}"
    expected = [step for step in reversed(story.started) if step in story.compensated]
    assert story.compensated == expected, f"undone in the order {story.compensated}, not {expected}"


def _judge_keys(world: World, story: _Story) -> None:
    keys = [key for found in story.keys.values() for key in found]
    unstable = {place: found for place, found in story.keys.items() if len(found) > 1}
    assert not unstable, f"keys are not stable: {unstable}"
    assert len(keys) == len(set(keys)), f"two operations share a key: {story.keys}"


def _judge_answer(world: World, story: _Story) -> None:
    """A fresh engine gives the answer that was given before, and runs and writes nothing for it."""
    given = story.answers[-1] if story.answers and not _ended_later(world) else None
    before = len(world.log)
    life: Life = world.begin_life()
    first, second = life.deliver(), life.deliver()
    noted = [event for event in world.log[before:] if not isinstance(event, Answered)]
    assert not noted, f"a delivery after the end did something: {noted}"
    answers = {(str(response.status), response.output) for response in (first, second)}
    if given is not None:
        answers.add((given.status, given.output))
    assert len(answers) == 1, f"the answer changed: {answers}"


def _ended_later(world: World) -> bool:
    """Tell whether the execution went on after the last answer, by a recovery or a message."""
    last = max(i for i, event in enumerate(world.log) if isinstance(event, Answered))
    return any(isinstance(event, Written) for event in world.log[last:])
