"""The oracle of the crash points: judges a world's log by the rules. Shares no code with the engine's decider.

It knows only what happened outside of the engine (calls, commits, answers, crashes, in their order), what is at
the vendor, and what the scenario's author wrote down: the order of the steps, and the end.
"""

from __future__ import annotations

from collections import Counter, defaultdict

from crash_scenarios import EDITED, OTHER, Chained, Child, Entry, Scenario, Script, Side
from crashpoints import Answered, Called, Event, Fact, Life, Purged, Saved, World, Written

__all__ = ["judge"]

_BEGINS = {"StepStarted": "execute", "ProbeStarted": "probe", "CompensationStarted": "compensate"}
_RESULTS = {
    "execute": ("StepCompleted", "StepFailed", "StepSuspended", "SkipAnswered"),
    "probe": ("StepProbed",),
    "compensate": ("StepCompensated", "CompensationFailed", "CompensationDeclined", "CompensationSuspended"),
}
_RESULT_OF = {name: operation for operation, names in _RESULTS.items() for name in names}
#: What may be written after the end, and may begin it anew.
_AFTER_THE_END = {"UndoOrdered", "LateEffectFound"}

#: A scope that a step is in: the number of the group, the number of the branch, and whether it is a child saga.
_Scope = tuple[int, int, bool]


def judge(world: World, scenario: Scenario) -> None:
    """Assert every invariant of the story that the world's log tells.

    Raises:
        AssertionError: one does not hold; the text is the log.
    """
    try:
        stories = {"Scripted": _Story(scenario, scenario.entries, world.has_workers)}
        if scenario.beside:
            stories[OTHER] = _Story(scenario, scenario.beside, world.has_workers)
        _tell(world, scenario, stories)
        _judge_end(world, scenario, stories)
        for name, story in stories.items():
            _judge_keys(story)
            _judge_answer(world, story, name)
    except AssertionError as error:
        raise AssertionError(f"{scenario.name}: {error}\n{tell(world)}") from error


def tell(world: World) -> str:
    """Write the log down, a line for each event."""
    return "\n".join(f"  {event}" for event in world.log)


def _tell(world: World, scenario: Scenario, stories: dict[str, _Story]) -> None:
    """Let each story take what is its own; where there is a right, one at a time may have it."""
    holder: str | None = None
    for event in world.log:
        for name, story in stories.items():
            if isinstance(event, (Called, Saved)):
                is_own = event.step in story.places
            else:
                is_own = getattr(event, "of", name) == name
            if not is_own:
                continue
            story.take(event)
            if scenario.exclusive is None:
                continue
            if isinstance(event, Called):
                assert holder in (None, name), f"{holder} has the exclusive right: {event}"
                holder = name
            elif isinstance(event, Written) and holder == name and story.gave_up(event, scenario.exclusive):
                holder = None


def _places_in(
    entries: tuple[Entry, ...], numbers: list[int], around: tuple[_Scope, ...]
) -> dict[str, tuple[_Scope, ...]]:
    found: dict[str, tuple[_Scope, ...]] = {}
    for entry in entries:
        if isinstance(entry, Script):
            found[entry.name] = around
        elif isinstance(entry, Chained):
            found |= _places_in(entry.entries, numbers, around)
        elif isinstance(entry, (Side, Child)):
            numbers.append(len(numbers))
            group, is_child = numbers[-1], isinstance(entry, Child)
            for number, branch in enumerate((entry,) if isinstance(entry, Child) else entry.branches):
                inner = branch.entries if branch is entry else (branch,)
                found |= _places_in(inner, numbers, (*around, (group, number, is_child)))
    return found


class _Story:
    """What is durable of one execution so far, and what that allows next."""

    def __init__(self, scenario: Scenario, entries: tuple[Entry, ...], has_workers: bool) -> None:
        self.has_workers = has_workers
        self.is_select = scenario.mode == "select"
        self.places = _places_in(entries, [], ())
        self.pivot = next((script.name for script in scenario.scripts if script.kind.value == "pivot"), None)
        self.is_held = False
        self.must_take_over = False
        self.begun: set[tuple[str, str]] = set()
        self.called: set[tuple[str, str]] = set()
        self.started: list[str] = []
        self.completed: list[str] = []
        self.compensated: list[str] = []
        self.undone: set[str] = set()
        self.failing: set[str] = set()
        self.no_effect: set[str] = set()
        self.parked: set[str] = set()
        self.skipped: set[str] = set()
        self.joined: set[int] = set()
        self.late: Counter[str] = Counter()
        self.in_undo: set[str] = set()
        self.late_in_undo: set[str] = set()
        self.end: str | None = None
        self.has_ended = False
        self.is_turned_back = False
        self.is_undo_ordered = False
        self.is_edited = False
        self.keys: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        self.attempts: Counter[tuple[str, str]] = Counter()
        self.answers: list[Answered] = []
        self.calls: Counter[str] = Counter()
        self.data: dict[tuple[str, str], int] = {}

    def take(self, event: Event) -> None:
        """Check the event against what came before, and remember it."""
        if isinstance(event, Written):
            self._written(event)
        elif isinstance(event, Called):
            self._called(event)
        elif isinstance(event, Saved):
            known = self.data["execute", event.step]
            assert known == self.calls[f"execute {event.step}"], f"not durable: {event}"
        elif isinstance(event, Answered):
            is_told = self.has_ended  # what was answered at its end stays the answer
            assert is_told or not self.is_held, f"answered while its drive was not over: {event}"
            self.answers.append(event)
        elif isinstance(event, Purged):
            assert self.end is not None, "purged before its end"
        else:
            self.must_take_over = self.is_held

    def gave_up(self, commit: Written, when_parked: str) -> bool:
        """Tell whether this commit gives an exclusive right back."""
        names = {fact.name for fact in commit.facts}
        return self.end is not None or ("SagaParked" in names and when_parked == "release")

    # --- calls ---

    def _called(self, call: Called) -> None:
        if self.has_workers and call.operation == "should_execute":
            return  # whoever takes up what another thread took up just now asks before a commit tells it so
        assert self.end is None, f"called after the end: {call}"
        seen = [step for step in self.completed if self._is_visible(step, call.step)]
        missing = [step for step in seen if step not in call.seen and step not in self.skipped]
        assert not missing, f"state of {missing} is lost: {call}"
        assert not self.is_edited or call.seen.get(EDITED) == 1, f"what a person set is lost: {call}"
        if call.operation == "should_execute":
            assert call.step not in self.skipped, f"asked again after it was skipped: {call}"
            return
        self._judge_data(call)
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

    def _judge_data(self, call: Called) -> None:
        known = {
            f"{operation} {step}": count
            for (operation, step), count in self.data.items()
            if self._is_visible(step, call.step)
        }
        wrong = {what: call.seen.get(what) for what, count in known.items() if call.seen.get(what) != count}
        assert not wrong, f"state is not the durable {known}, but has {wrong}: {call}"

    def _is_visible(self, step: str, by: str) -> bool:
        """Tell whether what one step put into the state is there for another: not while its branch is open."""
        around = self.places[by]
        return all(scope in around or scope[0] in self.joined for scope in self.places[step])

    def _executed(self, call: Called) -> None:
        assert call.step not in self.completed, f"run again after it completed: {call}"
        assert not self.is_turned_back, f"run while the saga compensates: {call}"

    def _compensated(self, call: Called) -> None:
        assert call.step not in self.undone, f"undone again: {call}"
        is_behind = self.pivot in self.completed and not self.is_undo_ordered
        assert not is_behind, f"undone behind the pivot: {call}"
        left = [step for step in self._to_undo() if self._rank(step) < self._rank(call.step)]
        assert not left, f"undone before {left}: {call}"

    def _to_undo(self) -> list[str]:
        over = self.undone | self.no_effect | self.parked | (self.skipped - set(self.completed))
        return [step for step in self.started if step not in over]

    def _rank(self, step: str) -> tuple[bool, int, int]:
        """Give the place in the order of undos: the failing ones, their child sagas, then the latest started."""
        around = {scope for name in self.failing & self.places.keys() for scope in self.places[name] if scope[2]}
        depth = sum(scope in around for scope in self.places[step])
        return (step not in self.failing, -depth, -self.started.index(step))

    # --- commits ---

    def _written(self, commit: Written) -> None:
        names = [fact.name for fact in commit.facts]
        assert self.end is None or _AFTER_THE_END & set(names), f"written after the end: {commit}"
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
            if not self.is_turned_back:
                self._join()

    def _join(self) -> None:
        """Note the groups all of whose steps are over."""
        members: defaultdict[int, set[str]] = defaultdict(set)
        for step, around in self.places.items():
            for scope in around:
                members[scope[0]].add(step)
        over = {*self.completed, *self.skipped}
        self.joined |= {group for group, steps in members.items() if steps <= over}

    def _fact(self, fact: Fact) -> None:
        if fact.name == "SagaEnded":
            self.end, self.has_ended = fact.status, True
        elif fact.name == "SagaParked":
            assert fact.step in self.parked, f"parked at a step that is not: {fact}"
        elif fact.name == "CompensationBegun":
            self._turns_back(fact)
        elif fact.name == "UndoOrdered":
            if self.end == "COMPLETED":
                self.end, self.is_undo_ordered = None, True
        elif fact.name == "StateEdited":
            self.is_edited = True
        elif fact.step not in self.places:
            return  # a WaitFor, which nobody calls, or the step of a later order that undoes another saga
        elif fact.name in _BEGINS:
            self._begins(fact, fact.step)
        else:
            self._by_others(fact, fact.step)
            self._results(fact, fact.step)

    def _turns_back(self, fact: Fact) -> None:
        assert not self.is_turned_back, f"turned back twice: {fact}"
        is_passed = self.pivot in self.started and self.pivot not in self.no_effect
        assert self.is_undo_ordered or not is_passed, f"turned back although the pivot may be passed: {fact}"
        self.is_turned_back = True
        if fact.cause in ("failed", "interrupted") and fact.step is not None:
            self.failing.add(fact.step)
        elif fact.cause == "conflict":
            self.joined.clear()

    def _begins(self, fact: Fact, step: str) -> None:
        operation = _BEGINS[fact.name]
        if fact.attempt is not None:
            assert fact.attempt == self.attempts[step, operation] + 1, f"attempts do not count up: {fact}"
            self.attempts[step, operation] = fact.attempt
        assert operation != "compensate" or self.is_turned_back or self.is_select, f"undo before turning back: {fact}"
        self.begun.add((step, operation))
        if operation == "compensate":
            self.in_undo.add(step)
        if operation == "execute":
            self.failing.discard(step)
            self.no_effect.discard(step)
            if step not in self.started:
                self.started.append(step)

    def _by_others(self, fact: Fact, step: str) -> None:
        """Take in what a person says of a step, and what comes to light late."""
        if fact.name in ("StepResumed", "StepSkippedByHand", "ParkedStepResolved"):
            self.parked.discard(step)
        if fact.name == "StepSkippedByHand":
            self.skipped.add(step)
            self.is_edited = True
        elif fact.name == "ParkedStepResolved" and fact.answer == "done":
            self.completed.append(step)
        elif fact.name == "ParkedStepResolved":
            self.no_effect.add(step)
        elif fact.name == "LateEffectFound":
            self._came_late(step)

    def _came_late(self, step: str) -> None:
        if step in self.in_undo:
            self.late_in_undo.add(step)
        elif step in self.completed and step not in self.undone:
            return  # it is the same effect
        elif step in self.undone:
            self.undone.remove(step)
            self.failing.add(step)
            self.end = None
        self.no_effect.discard(step)
        self.late[step] += 1

    def _results(self, fact: Fact, step: str) -> None:
        operation = _RESULT_OF.get(fact.name)
        if operation is not None:
            assert (step, operation) in self.called, f"a result without a call: {fact}"
            self.called.remove((step, operation))
        if operation is not None or fact.name == "StateSaved":
            what = operation or "execute"
            self.data[what, step] = self.calls[f"{what} {step}"]
        is_done = fact.name == "StepCompleted" or (fact.name == "StepProbed" and fact.answer == "done")
        if is_done:
            assert step not in self.completed, f"completed twice: {fact}"
            self.completed.append(step)
            self.failing.discard(step)
            self.no_effect.discard(step)
        elif fact.name == "StepCompensated":
            self._undone(step)
        elif fact.name == "StepParked":
            self.parked.add(step)
        elif fact.name in ("StepSkipped", "SkipAnswered"):
            self.skipped.add(step)
        elif fact.name == "CompensationSuspended" and step not in self.completed and not self.late[step]:
            self.is_turned_back = False  # not lost yet: it runs again
            self.in_undo.discard(step)
        self._note_effect(fact, step)

    def _undone(self, step: str) -> None:
        self.compensated.append(step)
        self.in_undo.discard(step)
        if step in self.late_in_undo:
            self.late_in_undo.remove(step)
            self.failing.add(step)
        else:
            self.undone.add(step)

    def _note_effect(self, fact: Fact, step: str) -> None:
        """Remember which steps left nothing to undo: refused, found not done, or declined by a failing step."""
        is_declined = fact.name == "CompensationDeclined" and step not in self.completed
        is_not_done = fact.name == "StepProbed" and fact.answer == "not_done"
        if is_declined or is_not_done or (fact.name == "StepFailed" and fact.answer == "refused"):
            self.no_effect.add(step)
        elif fact.name in ("StepFailed", "StepCompleted"):
            self.no_effect.discard(step)
        if fact.name == "StepFailed" and fact.is_last:
            self.failing.add(step)


# --- the end ------------------------------------------------------------------------------------------------------


def _judge_end(world: World, scenario: Scenario, stories: dict[str, _Story]) -> None:
    story, live = stories["Scripted"], world.vendor.live()
    for name, each in stories.items():
        _judge_rest(each, {scenario.end, *scenario.ends} if name == "Scripted" else {"COMPLETED"})
    must_live = [step for each in stories.values() for step in _must_live(each)]
    may_live = {*must_live, *(step for each in stories.values() for step in (*each.parked, *each.skipped))}
    assert set(must_live) <= set(live) <= may_live, f"at the vendor is {live}, of {must_live} to {sorted(may_live)}"
    assert len(live) == len(set(live)), f"made twice: {live}"
    if story.end == scenario.end and not (scenario.is_forked and len(world.lives) > 1):
        assert "".join(live) == scenario.live, f"at the vendor is {live}"
        assert "".join(story.compensated) == scenario.undone, f"undone were {story.compensated}"
    header = world.header()
    is_purged = any(isinstance(event, Purged) for event in world.log)
    assert header is not None
    assert header.is_purged == is_purged, "purged, but not gone"


def _must_live(story: _Story) -> list[str]:
    gone = story.undone | story.parked | story.no_effect
    return [step for step in story.completed if step not in gone]


def _judge_rest(story: _Story, ends: set[str]) -> None:
    end = story.end or "PARKED"
    assert end in ends, f"ended {end}"
    assert end != "PARKED" or story.parked, "parked without a parked step"
    assert not (end == "COMPENSATED" and story.parked), "compensated with a parked step"
    over = {*story.completed, *story.undone, *story.parked, *story.skipped, *story.no_effect}
    assert set(story.started) <= over, f"neither completed, compensated nor parked: {set(story.started) - over}"
    if end in ("COMPENSATED", "CANCELLED") and not story.is_select:
        assert not story._to_undo(), f"not undone: {story._to_undo()}"


def _judge_keys(story: _Story) -> None:
    keys = [key for found in story.keys.values() for key in found]
    unstable = {
        place: found
        for place, found in story.keys.items()
        if len(found) > 1 + (story.late[place[0]] if place[1] == "compensate" else 0)
    }
    assert not unstable, f"keys are not stable: {unstable}"
    assert len(keys) == len(set(keys)), f"two operations share a key: {story.keys}"


def _judge_answer(world: World, story: _Story, name: str) -> None:
    """A fresh engine gives the answer that was given before, and runs and writes nothing for it."""
    given = story.answers[-1] if story.answers and not _ended_later(world, name) else None
    before = len(world.log)
    life: Life = world.begin_life()
    place = [saga.__name__ for saga in life.sagas].index(name)
    first, second = life.deliver(place), life.deliver(place)
    life.engine.close()
    noted = [event for event in world.log[before:] if not isinstance(event, Answered)]
    assert not noted, f"a delivery after the end did something: {noted}"
    answers = {(str(response.status), response.output) for response in (first, second)}
    if given is not None:
        answers.add((given.status, given.output))
    assert len(answers) == 1, f"the answer changed: {answers}"


def _ended_later(world: World, name: str) -> bool:
    """Tell whether the execution went on after the last answer, by a recovery or a message."""
    last = max(i for i, event in enumerate(world.log) if isinstance(event, Answered) and event.of == name)
    return any(isinstance(event, Written) and event.of == name for event in world.log[last:])
