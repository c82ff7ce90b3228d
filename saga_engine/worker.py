"""The worker: carries many executions on at once, and takes up what is due, was left by a dead process, or has mail.

No thread waits for a commit, and none for a timer. A drive is a `Run` that waits in no thread: for its commit (the
journal's writer puts it back), for its calls, or, for up to a second, in one heap. Longer waits are suspended, so an
execution that waits is nothing but rows in the journal.

One dispatcher thread serves the heap, reads from the journal what can go on, and never calls user code. It sleeps
until the earliest moment that it knows of, but never longer than `poll_s`, because other processes may write to the
journal, too, and because somebody may set the clock:

- Due times in the journal are wall time. A clock that is set forward makes what it jumps over due at the next look;
  one that is set back makes it due later by as much, and loses nothing.
- Waits in the process are monotonic time. Setting the clock back does not prolong them.

An execution that cannot be driven here is not loaded again at every look: the journal notes what is stuck, and what
was passed over for another reason is remembered for a minute.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from saga_engine.backlog import Backlog, Candidate
from saga_engine.clock import Clock
from saga_engine.decider import full_id
from saga_engine.drive import Budget, Drive
from saga_engine.errors import JournalError, LeaseLost
from saga_engine.journal import Header, Journal
from saga_engine.lanes import Lanes, LoopLane, Run
from saga_engine.ready import ReadyThreads
from saga_engine.state import State
from saga_engine.threads import Threads
from saga_engine.timers import Timer, Timers
from saga_engine.watchdog import HELD_MAX_S, Watchdog

__all__ = ["WAIT_S_MAX", "Worker"]

#: The longest wait in the process, in seconds; longer ones are suspended.
WAIT_S_MAX = 1.0
#: How often the dispatcher looks whether the threads keep up, in seconds, while work may have to wait.
_RELIEF_S = 0.002
#: How long nothing is taken up after the journal could not be used: at first, and at most, in seconds.
_BACK_OFF_S = 0.5
_BACK_OFF_S_MAX = 30.0

#: Prepares the drive of an execution; None: it is not to be driven here.
TakeUp = Callable[[Header, Budget], Drive | None]


class Worker:
    """Runs up to `concurrency_max` executions at once.

    Args:
        journal: the journal.
        clock: wall time for what is due, monotonic time for waits in the process.
        threads: has the event loop for async steps.
        take_up: prepares the drive of an execution that can go on.
        new_budget: makes the budget of one drive; also an attribute.
        log: where lost executions are told of.
        concurrency_max: how many executions may be under way.
        threads_max: how many plain steps may run at once.
        poll_s: the longest time between two looks into the journal, in seconds.
        held_max_s: how many seconds a step without a time-out may keep the lease.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        clock: Clock,
        threads: Threads,
        take_up: TakeUp,
        new_budget: Callable[[], Budget],
        log: Any,
        concurrency_max: int,
        threads_max: int,
        poll_s: float,
        held_max_s: float = HELD_MAX_S,
    ) -> None:
        self._clock = clock
        self._journal = journal
        self._take_up = take_up
        self.new_budget = new_budget
        self._log = log
        self._concurrency_max = concurrency_max
        self._poll_s = poll_s
        self._pid = os.getpid()
        self._bell = threading.Event()
        self._ready = ReadyThreads(threads_max, self._bell.set)
        self._loop = LoopLane(threads)
        watchdog = Watchdog(journal, threads.alarms, held_max_s)
        self._lanes = Lanes(journal, clock, self._ready, self._loop, threads, watchdog, self._wake_at, self._forget)
        #: Guards all that follows.
        self._changed = threading.Condition(threading.Lock())
        self._timers = Timers()
        self._runs: dict[Run, Budget] = {}
        #: Eids of what is being taken up; each has a slot already.
        self._taking: set[int] = set()
        self._slots = concurrency_max
        self._backlog = Backlog(journal)
        #: Wall time at which something becomes due, as far as this worker knows.
        self._due_at: float | None = 0.0
        self._poll_at_s = 0.0
        self._resting_until_s = 0.0
        self._back_off_s = _BACK_OFF_S
        self._is_stopping = False
        self._stop_listeners: list[Callable[[], None]] = []
        threading.Thread(target=self._dispatch, name="saga-worker-dispatcher", daemon=True).start()

    @property
    def is_usable(self) -> bool:
        """Whether it takes up anything: it was not stopped, and it is not that of the process that forked this one."""
        return not self._is_stopping and self._pid == os.getpid()

    @property
    def is_of_this_process(self) -> bool:
        """Whether its threads run in this process."""
        return self._pid == os.getpid()

    @property
    def threads_count(self) -> int:
        """How many threads it has for plain steps."""
        return self._ready.count

    # --- starting ---

    def take_slot(self) -> Budget | None:
        """Reserve a place for an execution that is about to start; None: all are taken, or nothing starts any more."""
        with self._changed:
            if self._is_stopping or not self._slots:
                return None
            self._slots -= 1
        return self.new_budget()

    def free_slot(self) -> None:
        """Give a reserved place back."""
        with self._changed:
            self._slots += 1
            candidate = self._next_candidate()
        self._begin_taking(candidate)

    def begin(self, drive: Drive, budget: Budget) -> None:
        """Carry on a new execution in the reserved place; returns as soon as it is durable.

        Raises:
            LeaseLost: somebody else started it at the same moment.
            BaseException: whatever kept it from starting.
        """
        opened = _Opened()
        run = Run(drive, self._lanes, self._ended, opened.settle)
        self._admit(run, budget)
        self._ready.push(run.go)
        opened.wait()

    def note_due(self, due_at: float) -> None:
        """Hear that an execution becomes due at this wall time."""
        with self._changed:
            self._note_due(due_at)

    # --- stopping ---

    def on_stop(self, listener: Callable[[], None]) -> None:
        """Call this as soon as the worker begins to stop."""
        with self._changed:
            if not self._is_stopping:
                self._stop_listeners.append(listener)
                return
        listener()

    def stop(self, timeout_s: float) -> int:
        """Start nothing new, suspend drives between steps, wait for running steps; may be called again.

        A step whose beginning is journaled already is run. Async steps that outlast the time are cancelled; plain
        ones keep their threads and their leases until they return.

        Returns:
            How many executions were still under way when the time was over.
        """
        with self._changed:
            listeners, self._stop_listeners = self._stop_listeners, []
            self._is_stopping = True
            self._backlog.clear()
            budgets = list(self._runs.values())
        for budget in budgets:
            budget.stop()
        for listener in listeners:
            listener()
        self._bell.set()
        with self._changed:
            is_done = self._changed.wait_for(self._is_empty, timeout_s)
            still = self._concurrency_max - self._slots
        if is_done:
            self._ready.end()
            return 0
        with suppress(RuntimeError):  # its loop is closed: then nothing runs there any more
            self._loop.cancel()
        return still

    def _is_empty(self) -> bool:
        return self._slots == self._concurrency_max

    # --- runs ---

    def _admit(self, run: Run, budget: Budget) -> None:
        with self._changed:
            self._runs[run] = budget
            is_late = self._is_stopping
        if is_late:
            budget.stop()

    def _ended(self, run: Run, error: BaseException | None) -> None:
        """Take the place of a run that is over, and give it to the next."""
        state = run.drive.state
        with self._changed:
            del self._runs[run]
            self._slots += 1
            if error is None:
                self._back_off_s = _BACK_OFF_S
                self._note_due(self._due_after(state))
            candidate = self._next_candidate()
        self._begin_taking(candidate)
        if error is not None:
            self._tell_failure(run, full_id(state.saga_id, state.generation), error)

    def _due_after(self, state: State) -> float | None:
        """Tell when something is due now that an execution stands so."""
        if state.plan.exclusive is not None:
            return self._clock.now()  # whoever waited for its right may go on
        return None if state.status.is_ended else state.due_at

    def _note_due(self, due_at: float | None) -> None:
        """Let the dispatcher look in time; the lock is held."""
        if due_at is not None and (self._due_at is None or due_at < self._due_at):
            self._due_at = due_at
            if self._slots:
                self._bell.set()

    def _tell_failure(self, run: Run, saga_id: str, error: BaseException) -> None:
        position = run.drive.position
        if isinstance(error, LeaseLost):
            self._log.info("another drive took the execution over", saga_id=saga_id)
            return
        if isinstance(error, JournalError):
            self._rest(error)
        elif position.eid is not None and not run.has_committed:  # else its interruption is journaled, and counted
            self._pass_over(position.eid, position.epoch)
        self._log.error("the drive of an execution failed", saga_id=saga_id, exc_info=error)

    def _rest(self, error: JournalError) -> None:
        """Take up nothing for a while: the journal cannot be used."""
        with self._changed:
            if self._is_resting():  # many drives may fail of one and the same trouble
                return
            rest_s, self._back_off_s = self._back_off_s, min(self._back_off_s * 2, _BACK_OFF_S_MAX)
            self._resting_until_s = time.monotonic() + rest_s
            self._poll_at_s = self._resting_until_s
            self._backlog.clear()
        self._log.warning(
            "the journal cannot be used: nothing is taken up for a while", rest_s=rest_s, error=str(error)
        )

    # --- taking up ---

    def _next_candidate(self) -> Candidate | None:
        """Choose what takes a free place; the lock is held. None: nothing, or the dispatcher must read first."""
        if self._is_stopping:
            if self._is_empty():
                self._changed.notify_all()
            return None
        if not self._slots:
            return None
        candidate = self._backlog.pop()
        if candidate is not None:
            self._slots -= 1
            self._taking.add(candidate.header.eid)
        elif self._is_due():
            self._bell.set()
        return candidate

    def _begin_taking(self, candidate: Candidate | None) -> None:
        if candidate is not None:
            self._ready.push(lambda: self._take(candidate))

    def _take(self, candidate: Candidate) -> None:
        """Prepare a drive and begin it; in a thread of the worker, as it reads and calls user code."""
        header, run = candidate.header, None
        try:
            run = self._prepared(candidate)
        except LeaseLost:
            pass  # somebody else was faster: it is held
        except JournalError as error:
            self._rest(error)
        except BaseException:  # whatever a saga's own code raises must not end the worker
            self._pass_over(header.eid, header.epoch)
            saga_id = full_id(header.saga_id, header.generation)
            self._log.exception("the execution could not be taken up", saga_id=saga_id)
        with self._changed:
            self._taking.discard(header.eid)
        if run is None:
            self.free_slot()
        else:
            run.go()

    def _prepared(self, candidate: Candidate) -> Run | None:
        header = self._backlog.refreshed(candidate, time.monotonic())
        if header is None or self._is_stopping:
            return None
        budget = self.new_budget()
        self._ready.enter_step()
        try:
            drive = self._take_up(header, budget)
        finally:
            self._ready.leave_step()
        if drive is None:
            self._pass_over(header.eid, header.epoch)
            return None
        run = Run(drive, self._lanes, self._ended)
        self._admit(run, budget)
        return run

    def _pass_over(self, eid: int, epoch: int) -> None:
        with self._changed:
            self._backlog.pass_over(eid, epoch, time.monotonic())

    # --- the dispatcher ---

    def _dispatch(self) -> None:
        """Serve the heap, look into the journal, and let threads come, until the worker has stopped."""
        timeout_s = 0.0
        while True:
            self._bell.wait(timeout_s)
            self._bell.clear()
            self._wake_due()
            is_strained = self._ready.relieve()
            with self._changed:
                if self._is_stopping and self._is_empty():
                    self._ready.end()
                    return
                wants_more = self._wants_more()
            if wants_more:
                self._look()
            timeout_s = min(self._sleep_s(), _RELIEF_S if is_strained else self._poll_s)

    def _wake_due(self) -> None:
        monotonic_s, now_s = self._clock.monotonic(), self._clock.now()
        with self._changed:
            due = self._timers.due(monotonic_s, now_s)
        for wake in due:
            wake()

    def _sleep_s(self) -> float:
        """Tell how long nothing is to be done, as far as is known."""
        monotonic_s, now_s = self._clock.monotonic(), self._clock.now()
        with self._changed:
            next_s = self._timers.next_s()
            waits = [self._poll_s] if next_s is None else [self._poll_s, next_s - monotonic_s]
            if self._slots and not self._is_stopping:
                waits.append(self._poll_at_s - time.monotonic())
                if self._due_at is not None and not self._is_resting():
                    waits.append(self._due_at - now_s)
        return max(0.0, min(waits))

    def _wants_more(self) -> bool:
        """Tell whether there is a place for what the journal may have; the lock is held."""
        if self._is_stopping or not self._slots or len(self._backlog) or self._is_resting():
            return False
        return self._is_due() or time.monotonic() >= self._poll_at_s

    def _is_due(self) -> bool:
        return self._backlog.has_more or (self._due_at is not None and self._due_at <= self._clock.now())

    def _is_resting(self) -> bool:
        return time.monotonic() < self._resting_until_s

    def _look(self) -> None:
        """Read from the journal what can go on, and begin as much of it as there are places."""
        now_s = self._clock.now()
        with self._changed:
            self._due_at = None
            taking = frozenset(self._taking)
        try:
            self._backlog.read(now_s, time.monotonic(), taking)
            due_at = self._journal.next_due(after=now_s)
        except JournalError as error:
            self._rest(error)
            return
        except BaseException:  # the dispatcher must outlive whatever a journal raises
            self._log.exception("the journal could not be read; trying again")
            self._rest(JournalError("it raised an error that is none of its own"))
            return
        with self._changed:
            self._poll_at_s = time.monotonic() + self._poll_s
            self._note_due(due_at)
        while (candidate := self._reserve()) is not None:
            self._begin_taking(candidate)

    def _reserve(self) -> Candidate | None:
        with self._changed:
            return self._next_candidate() if len(self._backlog) else None

    def _wake_at(self, wake: Callable[[], None], at_s: float, until_s: float | None) -> Timer:
        with self._changed:
            timer = self._timers.add(wake, at_s, until_s)
            is_first = self._timers.next_s() == at_s
        if is_first:
            self._bell.set()
        return timer

    def _forget(self, timer: Timer) -> None:
        with self._changed:
            self._timers.cancel(timer)


class _Opened:
    """Waits for the first commit of a run."""

    def __init__(self) -> None:
        self._is_open = threading.Lock()
        self._is_open.acquire()
        self._error: BaseException | None = None

    def settle(self, error: BaseException | None) -> None:
        """End the wait."""
        self._error = error
        self._is_open.release()

    def wait(self) -> None:
        """Wait; raises what was in the way."""
        self._is_open.acquire()
        if self._error is not None:
            raise self._error
