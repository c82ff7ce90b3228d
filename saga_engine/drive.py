"""One drive: carries an execution on from taking the lease to suspending or ending, without doing any I/O itself.

`Drive.run` is a generator. It yields what must be done outside (`Append`, `Perform`, `Sleep`) and is sent the
result; an exception thrown into it ends the drive. A driver is whatever carries these three out: in the caller's
thread, on an event loop, in a simulation. Neither the drive nor a driver knows a rule: those are the decider's.

What the drive itself guarantees:

- Nothing in flight is unjournaled: the entry that begins an execute, probe or compensate is durable before the call.
- Nothing is answered before it is durable (J2).
- Mail found by a commit is taken in first: facts are kept, decisions are taken anew (J3).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator, Sequence
from typing import Any, Literal

from msgspec import Struct
from msgspec.structs import replace

from saga_engine.calls import Call, Result
from saga_engine.clock import Clock
from saga_engine.codec import encode_json
from saga_engine.decider import (
    Action,
    Ask,
    Await,
    Compensate,
    Execute,
    Finish,
    Miss,
    Park,
    Probe,
    Refuse,
    State,
    TurnBack,
    Wait,
    answer,
    decide,
    evolve,
    replay,
    wakes_at,
)
from saga_engine.documents import Documents
from saga_engine.errors import (
    BranchConflict,
    DeadlineExceeded,
    JournalError,
    LeaseLost,
    LimitReached,
    NotAllowed,
    NotJSON,
    SagaCancelled,
    StepInterrupted,
    TransactionNotSelected,
    UndoRequested,
)
from saga_engine.journal import (
    AlreadyStarted,
    AppendResult,
    Commit,
    Committed,
    DriveInterrupted,
    Entry,
    ExclusiveDenied,
    ExclusiveHeld,
    ExclusiveRight,
    InboxMessage,
    InboxPending,
    LateEffectFound,
    Opening,
    Release,
    Response,
    SagaStatus,
    SagaSuspended,
    StateSaved,
    StepFailed,
    StepStarted,
    WaitElapsed,
)
from saga_engine.outcome import Carried, entry_of
from saga_engine.plan import Workflow
from saga_engine.recorded import rebuild_error, record_error
from saga_engine.scopes import documents_at
from transactions import Kind

__all__ = ["Append", "Budget", "Drive", "Effect", "Perform", "Position", "Sleep"]


class Append(Struct, frozen=True):
    """Append this commit; the result is what `Journal.append` returns or raises."""

    commit: Commit


class Perform(Struct, frozen=True):
    """Start these calls. The result is a list of `(call, result)` of all that finished, at least one.

    Calls of earlier effects may still be in flight; none to start means: wait for one of those. With `until` (wall
    time, Unix seconds) the result is an empty list if nothing finished by then.
    """

    calls: tuple[Call, ...]
    until: float | None = None


class Sleep(Struct, frozen=True):
    """Wait in this process; the result is None."""

    seconds: float


Effect = Append | Perform | Sleep

#: The actions for which user code is called.
_CALLING = (Ask, Execute, Probe, Compensate)


class Budget:
    """How long one drive may go on (S25).

    Args:
        clock: measures it.
        budget_s: seconds in which steps may be started.
        wait_s_max: the longest single wait in the process, in seconds.
    """

    def __init__(self, clock: Clock, budget_s: float, wait_s_max: float) -> None:
        self._clock = clock
        self._ends_at = clock.monotonic() + budget_s
        self._wait_s_max = wait_s_max
        self.is_stopped = False
        #: what a suspension says that this budget brings about
        self.cause = "budget"

    def remaining_s(self) -> float:
        """Give the seconds left; negative when it is spent."""
        return self._ends_at - self._clock.monotonic()

    def allows_wait(self, seconds: float) -> bool:
        """Tell whether this wait may happen in the process."""
        return seconds <= self._wait_s_max and seconds <= self.remaining_s()

    def stop(self, cause: Literal["budget", "queued"] = "budget") -> None:
        """Let the drive suspend at the next boundary, even if it has done nothing yet; from any thread."""
        self.is_stopped = True
        self.cause = cause
        self._ends_at = self._clock.monotonic()


class Position(Struct):
    """Where in the journal the drive stands, and by which right.

    `eid` None: the execution is yet to be opened. `is_held`: the lease is this drive's.
    """

    drive: str
    eid: int | None = None
    seq: int = 0
    epoch: int = 0
    is_held: bool = False


class Drive:
    """One drive of one execution.

    Args:
        position: where the journal stands.
        first: the entries to begin with, not yet journaled: `SagaStarted`, or what takes the lease.
        before: the journaled state that `first` goes on from; None with `SagaStarted`.
        inbox: mail that was there when the execution was loaded.
        documents: the dicts that the steps see.
        workflow: the steps.
        clock: wall time.
        budget: how long the drive may go on.
        append: appends in the calling thread; used by `context.save()`.
        on_commit: told of every durable commit: the new state and its entries.
    """

    def __init__(
        self,
        position: Position,
        first: Sequence[Entry],
        before: State | None,
        inbox: Sequence[InboxMessage],
        documents: Documents,
        workflow: Workflow,
        *,
        clock: Clock,
        budget: Budget,
        append: Callable[[Commit], AppendResult],
        on_commit: Callable[[State, Sequence[Entry]], None],
    ) -> None:
        self.position = position
        self._before = before
        self._clock = clock
        self._budget = budget
        self._append = append
        self._on_commit = on_commit
        # Whoever has the turn may change the drive: its loop, save while calls are in flight; then a step that saves.
        self._turn = threading.Lock()
        self._buffer: list[Entry] = list(first)
        self._drained: tuple[int, ...] = ()
        self.state = _fold(before, self._buffer)
        self._begun: list[Action] = []
        self._questions: list[Call] = []
        self._in_flight: dict[Call, Action] = {}
        self._errors: dict[str, Exception] = {}
        self._is_under_way = False
        self._save_error: JournalError | None = None
        self._undurable: list[tuple[Call, Result]] = []
        self._documents = documents
        self.workflow = workflow
        documents.drive = self
        documents.source = lambda scope: documents_at(self.state, scope)
        if inbox:
            self._take_in(inbox)

    def save(self, step: str) -> None:
        """Commit what the step changed so far; `context.save()`. `step` is its name in the plan."""
        if not self._turn.acquire(blocking=False):
            if _is_on_event_loop():  # which the commit that is under way may need to come to its end
                raise NotAllowed("context.save() in an async step of a group: write await context.asave()")
            self._turn.acquire()
        try:
            self._save(step)
        finally:
            self._turn.release()

    def _save(self, step: str) -> None:
        carried = self._carried(self.state.shape.steps[step].scope)
        if not carried:
            return
        entries_max = self.state.policy.entries_max
        if self.state.entries - self.state.entries_forgiven > entries_max:
            raise LimitReached(f"entries_max ({entries_max}) reached: call context.save() less often")
        self._apply(StateSaved(at=self._clock.now(), step=step, **carried))
        try:
            while not _exhaust(self._commit(), self._append):
                pass
        except JournalError as error:
            self._save_error = error
            raise

    # --- the loop ---

    def run(self) -> Generator[Effect, Any, Response]:
        """Carry the execution on; returns what to answer."""
        with self._turn:
            return (yield from self._run())

    def _run(self) -> Generator[Effect, Any, Response]:
        while True:
            # What is released is decided: a time that passes now is for whoever takes it up.
            wait = None if self.state.is_released else self._decide()
            if self.state.is_released:
                if (yield from self._commit(is_release=True)):
                    return self._told()
            elif self._begun:
                if (yield from self._commit()):
                    yield from self._perform(self._take_begun())
            elif self._questions:
                if not self._must_commit_first() or (yield from self._commit()):
                    yield from self._perform(self._take_begun())
            elif self._in_flight:
                if not self._must_commit_first() or (yield from self._commit()):
                    yield from self._perform(())
            else:
                assert wait is not None, "an execution that is neither over nor in flight waits for something"
                yield from self._wait(wait)

    def _told(self) -> Response:
        """Give the step's own answer when it has just suspended the execution, else what the table says."""
        state = self.state
        if state.told is not None and state.response is None and state.parked is None:
            return state.told
        return answer(state, self._clock.now())

    def _must_commit_first(self) -> bool:
        """Tell whether what is buffered must be durable before the next call is waited for.

        Only a question waits with it, if nothing else is in flight: its answer is of the same commit (J1). But nobody
        asks before the exclusive right is there: the answer might be outdated by those who hold it.
        """
        if self._lacks_right():
            return True
        return bool(self._buffer) and any(not isinstance(action, Ask) for action in self._in_flight.values())

    def _lacks_right(self) -> bool:
        return _needed_right(self.state) is not None and not self.position.is_held and self.state.denied_by is None

    def _decide(self) -> Wait | None:
        """Carry out decisions until something must be waited for; give the wait, if it is for a time."""
        while True:
            news: Sequence[Action] = decide(self.state)
            is_asking = {action.step for action in self._in_flight.values() if isinstance(action, Ask)}
            if is_asking:
                news = [action for action in news if getattr(action, "step", None) not in is_asking]
            for action in news:
                if isinstance(action, Wait):
                    return action
                if is_asking and isinstance(action, (TurnBack, Finish)):
                    return None
                if isinstance(action, _CALLING) and self._is_spent():
                    if not self._begun and not self._in_flight:
                        self._suspend(self._budget.cause, self._clock.now(), None)
                    return None
                self._carry_out(action)
            if not news:
                return None

    def _carry_out(self, action: Action) -> None:
        if isinstance(action, Ask):
            attempt = self.state.steps[action.step].attempts + 1
            if self.workflow.steps[action.step].is_asked:
                self._questions.append(self._call(action, "should_execute", attempt))
            else:
                self._begin(Execute(action.step, attempt))
        elif isinstance(action, Refuse):
            raise TransactionNotSelected(
                f"{self.state.saga}: no transaction applies to this request: make one's should_execute return True"
            )
        else:
            assert not isinstance(action, Wait), "waits are not carried out"
            self._begin(action)

    def _begin(self, action: Execute | Probe | Compensate | Await | Miss | TurnBack | Park | Finish) -> None:
        self._apply(action.begin(self._clock.now()))
        if isinstance(action, (Execute, Probe, Compensate)):
            self._begun.append(action)

    def _is_spent(self) -> bool:
        return (self._is_under_way and self._budget.remaining_s() <= 0) or self._budget.is_stopped

    def _take_begun(self) -> tuple[Call, ...]:
        """Give the calls that are to be started: those whose beginning is durable, and the questions."""
        begun, self._begun = self._begun, []
        questions, self._questions = self._questions, []
        return (*map(self._call_of, begun), *questions)

    def _call_of(self, action: Action) -> Call:
        if isinstance(action, Execute):
            return self._call(action, "execute", action.attempt)
        if isinstance(action, Compensate):
            error = self._error_for(action.step)
            return self._call(action, "compensate", action.attempt, error)
        assert isinstance(action, Probe), "only these three are begun"
        return self._call(action, "probe", self.state.steps[action.step].attempts)

    def _call(
        self,
        action: Execute | Compensate | Probe | Ask,
        operation: str,
        attempt: int,
        error: Exception | None = None,
    ) -> Call:
        step, stands = self.workflow.steps[action.step], self.state.steps[action.step]
        live = self._documents.of(step.scope)
        live.refresh(*documents_at(self.state, step.scope))
        context = step.context
        context.undone, context.undone_before_effect = stands.undone, stands.effect_undone
        context.undo_round = stands.undone + stands.undo_rounds
        arguments = (live.request,) if error is None else (live.request, error)
        middlewares = step.middlewares if operation == "execute" else ()
        call = Call(operation, step, arguments, middlewares, attempt, undone=stands.undone)
        self._in_flight[call] = action
        return call

    def _perform(self, calls: tuple[Call, ...]) -> Generator[Effect, Any, None]:
        """Start calls, and take in what finished; wait no longer than until something else can go on beside them."""
        until = wakes_at(self.state) if self.state.scopes and not self._is_spent() else None
        self._is_under_way = True
        finished = yield from self._away(Perform(calls, until))
        for call, result in finished:
            self._absorb(call, result)
        if not finished and until is not None:
            self._apply(WaitElapsed(at=max(until, self._clock.now())))

    def _away(self, effect: Perform | Sleep) -> Generator[Effect, Any, Any]:
        """Let steps that are in flight have the turn meanwhile."""
        self._turn.release()
        try:
            return (yield effect)
        finally:
            self._turn.acquire()

    def absorb(self, call: Call, result: Result) -> None:
        """Take in what a call gave that came to its end after the loop had.

        Raises:
            JournalError: a `context.save()` in it could not be written: that is no failure of the step.
        """
        with self._turn:
            self._absorb(call, result)

    def _absorb(self, call: Call, result: Result) -> None:
        if self._save_error is not None and result.error is self._save_error:
            raise self._save_error
        action = self._in_flight.pop(call)
        if isinstance(action, Ask) and action not in decide(self.state):
            return  # another branch failed meanwhile: nobody wants to know any more
        self._undurable.append((call, result))
        result, carried, limit = self._carried_by(call, result)
        if result.error is not None and _is_cause(action):
            self._errors[call.step.name] = result.error
        entry = entry_of(self.state, action, call, result, self._clock.now(), carried)
        if result.is_abandoned:
            self._leave_behind(call)
        if limit is not None and isinstance(entry, StepFailed):
            entry = replace(entry, limit=limit, retry_at=None)
        self._apply(entry)
        if isinstance(entry, StepStarted):
            self._begun.append(Execute(entry.step, entry.attempt))

    def _leave_behind(self, call: Call) -> None:
        """Leave the step's objects to the attempt that was given up; the next one gets its own (S24)."""
        call.step.context.abandon()
        self._documents.renew(call.step.scope)
        self.workflow.rebuild(call.step.scope)

    def late_effect_of(self, call: Call, result: Result) -> LateEffectFound | None:
        """Describe what a call did, for the case that its outcome cannot be journaled (J10); None: nothing."""
        is_refusal = result.error is None and getattr(result.value, "status", None) == "fail"
        is_read_only = self.state.shape.steps[call.step.name].kind is Kind.READ_ONLY
        if call.operation != "execute" or not result.is_reached or is_refusal or is_read_only:
            return None
        error = None if result.error is None else record_error(result.error)
        return LateEffectFound(
            at=self._clock.now(), step=call.step.name, attempt=call.attempt, undone=call.undone, error=error
        )

    def late_effects(self) -> tuple[LateEffectFound, ...]:
        """Give what steps did whose outcomes were taken in but are not durable: for a drive that lost its lease."""
        # The thread of an attempt that was given up leaves its effect itself, when it is there.
        over = ((call, result) for call, result in self._undurable if not result.is_abandoned)
        found = (self.late_effect_of(call, result) for call, result in over)
        return tuple(late for late in found if late is not None)

    def _carried_by(self, call: Call, result: Result) -> tuple[Result, Carried, str | None]:
        """Find what the call changed; what cannot be journaled makes the call a failure and is dropped."""
        if call.operation == "should_execute" or result.is_abandoned:
            return result, {}, None
        scope = call.step.scope
        try:
            return result, self._carried(scope), None
        except (NotJSON, LimitReached) as error:
            self._documents.of(scope).reset(*documents_at(self.state, scope))
            limit = "payload_bytes_max" if isinstance(error, LimitReached) else None
            return Result(error=result.error or error, is_reached=result.is_reached), {}, limit

    def _carried(self, scope: str) -> Carried:
        bytes_max = self.state.policy.payload_bytes_max
        known_request, known_data = documents_at(self.state, scope)
        live = self._documents.of(scope)
        request = encode_json(live.request, "request", bytes_max, known_request)
        data = encode_json(live.data, "context.state", bytes_max, known_data)
        carried: Carried = {}
        if request is not known_request:
            carried["request"] = live.request_known = request
        if data is not known_data:
            carried["state"] = live.data_known = data
        return carried

    def _error_for(self, name: str) -> Exception:
        """Give the `e` of a `compensate`: the failing step's own error; for the others, why the saga turned back."""
        step, back = self.state.steps[name], self.state.turned_back
        if step.undo_of == "failed" or back is None or back.cause == "failed":
            failing = name if step.undo_of == "failed" or back is None else (back.step or name)
            return self._known_error(failing)
        if back.cause == "cancelled":
            return self._errors.setdefault("cancelled", SagaCancelled(_cancel_reason(self.state)))
        if back.cause == "deadline":
            return self._errors.setdefault("deadline", DeadlineExceeded())
        if back.cause == "conflict":
            return self._errors.setdefault("conflict", BranchConflict(self.state.conflict))
        if back.cause == "undo":
            return self._errors.setdefault("undo", UndoRequested(*_undo_note(self.state)))
        return self._errors.setdefault("interrupted", StepInterrupted())

    def _known_error(self, name: str) -> Exception:
        record = self.state.steps[name].error
        if name not in self._errors:
            self._errors[name] = StepInterrupted() if record is None else rebuild_error(record)
        return self._errors[name]

    # --- waiting, suspending, giving up ---

    def _wait(self, wait: Wait) -> Generator[Effect, Any, None]:
        now = self._clock.now()
        if wait.cause == "raised":
            yield from self._raise(wait)
        elif wait.cause == "retry" and wait.until is not None and self._budget.allows_wait(wait.until - now):
            if not self._buffer or (yield from self._commit()):
                if wait.until > now:
                    yield from self._away(Sleep(wait.until - now))
                # The wait is over even if somebody set the clock back meanwhile.
                self._apply(WaitElapsed(at=max(wait.until, self._clock.now())))
        else:
            self._suspend(wait.cause, wait.until, wait.told)

    def _suspend(self, cause: Any, due_at: float | None, told: Response | None) -> None:
        self._apply(SagaSuspended(at=self._clock.now(), cause=cause, due_at=due_at, told=told))

    def _raise(self, wait: Wait) -> Generator[Effect, Any, None]:
        """Mode select: give the caller the very exception that the transaction's `compensate` raised (S26)."""
        self._suspend("raised", None, None)
        if (yield from self._commit(is_release=True)):
            name = wait.step or ""
            record = self.state.steps[name].undo_error
            raise self._errors.get(name) or rebuild_error(record or record_error(StepInterrupted()))

    def interruption(self, cause: str) -> Generator[Append, AppendResult, None]:
        """Give the lease back in the middle of whatever is in flight (S30); only while it is held."""
        with self._turn:
            yield from self._interruption(cause)

    def _interruption(self, cause: str) -> Generator[Append, AppendResult, None]:
        self._in_flight.clear()
        self._questions.clear()
        interrupted = DriveInterrupted(at=self._clock.now(), cause=cause)
        self._buffer = [entry for entry in self._buffer if not entry.is_decision] + [interrupted]
        while self.position.is_held:
            self._buffer = [entry for entry in self._buffer if not entry.is_decision]
            self.state = _fold(self._before, self._buffer)
            self._suspend("interrupted", self._due_at_after_interruption(), None)
            yield from self._commit(is_release=True)

    def _due_at_after_interruption(self) -> float:
        """Tell when to go on: at once, unless it was the wait for a retry that was interrupted (S15)."""
        retries_at = [w.until for w in decide(self.state) if isinstance(w, Wait) and w.cause == "retry" and w.until]
        return max([self._clock.now(), *retries_at])

    # --- entries ---

    def _apply(self, entry: Entry) -> None:
        self._buffer.append(entry)
        self.state = evolve(self.state, entry)

    def _take_in(self, messages: Sequence[InboxMessage]) -> None:
        """Put mail behind what is known, before it is decided anew."""
        new = [message.entry for message in messages if message.id not in self._drained]
        self._drained += tuple(m.id for m in messages if m.id not in self._drained)
        self._decide_anew_with(new)

    def _decide_anew_with(self, facts: Sequence[Entry]) -> None:
        """Take these in, and drop every decision that is not yet journaled."""
        self._buffer = [entry for entry in self._buffer if not entry.is_decision] + list(facts)
        self._begun.clear()
        for question in self._questions:
            del self._in_flight[question]
        self._questions.clear()
        self.state = _fold(self._before, self._buffer)

    def _commit(self, is_release: bool = False) -> Generator[Append, AppendResult, bool]:
        """Make the buffer durable; False if mail came in instead, after which to decide anew."""
        result = yield Append(self._commit_of(is_release))
        if not isinstance(result, Committed):
            self._take_refusal(result)
            return False
        entries, self._buffer = self._buffer, []
        self._drained, self._before, self._undurable = (), self.state, []
        position = self.position
        position.eid, position.epoch, position.seq = result.eid, result.epoch, position.seq + 1
        position.is_held = not is_release
        self._on_commit(self.state, entries)
        return True

    def _take_refusal(self, refusal: InboxPending | ExclusiveHeld | AlreadyStarted) -> None:
        if isinstance(refusal, InboxPending):
            self._take_in(refusal.messages)
        elif isinstance(refusal, ExclusiveHeld):
            self._decide_anew_with([ExclusiveDenied(at=self._clock.now(), by=refusal.by)])
        else:
            raise LeaseLost("another drive started this execution at the same time")

    def _commit_of(self, is_release: bool) -> Commit:
        position, state = self.position, self.state
        opening = None
        if position.eid is None:
            opening = Opening(state.saga_id, state.generation, state.saga)
        right = _needed_right(state) if self._lacks_right() else None
        return Commit(
            eid=position.eid,
            seq=position.seq + 1,
            entries=tuple(self._buffer),
            drive=position.drive,
            epoch=position.epoch,
            status=state.status,
            at=state.at,
            take=position.eid is not None and not position.is_held,
            drained=self._drained,
            opening=opening,
            release=_release_of(state) if is_release else None,
            exclusive=None if right is None else right.name,
        )


def _fold(before: State | None, entries: Sequence[Entry]) -> State:
    if before is None:
        return replay(tuple(entries))
    state = before
    for entry in entries:
        state = evolve(state, entry)
    return state


def _is_cause(action: Action) -> bool:
    """Tell whether what this raises is why the execution turns back, or what its caller is given."""
    return isinstance(action, (Ask, Execute)) or (isinstance(action, Compensate) and action.is_final)


def _needed_right(state: State) -> ExclusiveRight | None:
    """Give the exclusive right that the execution must hold; none if the order that undoes it holds what is needed."""
    return None if state.undo is not None and state.undo.is_covered else state.plan.exclusive


def _release_of(state: State) -> Release:
    right = state.plan.exclusive
    if right is None:
        return Release(state.due_at, state.told, state.response)
    is_parked = state.status is SagaStatus.PARKED
    is_done = state.status.is_ended or (is_parked and right.when_parked == "release")
    awaits = right.name if state.denied_by is not None and not is_done and not is_parked else None
    return Release(state.due_at, state.told, state.response, awaits, right.name if is_done else None)


def _undo_note(state: State) -> tuple[str, ...]:
    return (state.undo.note,) if state.undo is not None and state.undo.note else ()


def _is_on_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _cancel_reason(state: State) -> str:
    return state.cancelled.reason if state.cancelled else ""


def _exhaust(steps: Generator[Append, AppendResult, bool], append: Callable[[Commit], AppendResult]) -> bool:
    """Run the commit of a drive in this thread."""
    effect = next(steps)
    while True:
        try:
            effect = steps.send(append(effect.commit))
        except StopIteration as stop:
            return bool(stop.value)
