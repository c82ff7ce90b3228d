"""The tasks that the local Connect gives to the runner: delivered, delivered again, and what came back of each."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from saga_engine.connect.local_errors import TaskGivenUp, TaskOverdue, TaskRefused
from saga_engine.connect.local_protocol import Category, TaskResult, category_of, task_frame
from saga_engine.connect.local_state import LocalState, encode, now

__all__ = ["DELIVERIES_MAX", "RETRIES_MAX", "RETRY_COUNTDOWN_S", "LocalTask", "LocalTasks", "TasksObserver"]

#: After so many deliveries, or so many times `retry` in a row, a task is not delivered again by itself: one that never
#: ends must not go on for ever, and one that always raises an error tells no more by doing it again.
DELIVERIES_MAX, RETRIES_MAX = 1_000, 10
#: How long Connect waits after a `retry`, which has no countdown of its own, in seconds.
RETRY_COUNTDOWN_S = 30

#: How often somebody who waits looks whether the runner is still there, in seconds.
_CHECK_S = 0.5

#: Called with a task and what just came back of it; None: it was delivered.
TasksObserver = Callable[["LocalTask", "TaskResult | None"], None]


@dataclass(eq=False)
class LocalTask:
    """One task of Connect: an event about an object, delivered once or more.

    Attributes:
        task_id: its id, "TQ-1".
        category: "background", "interactive" or "scheduled".
        event_type: for example "asset_purchase_request_processing".
        object_id: the id of the request, or of the schedule.
        data: what an interactive handler is given.
        redeliver_within_s: after a `reschedule` or `retry` it is delivered again after the countdown, but after at most
            so many seconds, until it is over or given up (`DELIVERIES_MAX`, `RETRIES_MAX`); None: only by `deliver`.
    """

    task_id: str
    event_type: str
    object_id: str
    data: Any
    redeliver_within_s: float | None
    _tasks: LocalTasks = field(repr=False)
    #: Deliveries, and those of which nothing came back yet; the lock of `_tasks` guards them.
    _deliveries: int = 0
    _under_way: int = 0
    #: Why it cannot be delivered, and why it is not delivered again by itself.
    _refusal: str | None = None
    _given_up: str | None = None

    @property
    def category(self) -> Category:
        """How the runner treats it."""
        return category_of(self.event_type)

    @property
    def deliveries(self) -> int:
        """How often it was delivered, copies included."""
        return self._deliveries

    def deliver(self, copies: int = 1) -> None:
        """Deliver it again, now or when a worker is there.

        Args:
            copies: how many times at once.

        Raises:
            TaskRefused: the extension has no handler for the event, or `copies` is less than 1.
        """
        self._tasks.deliver(self, copies)

    def results(self) -> list[TaskResult]:
        """List what came back so far, oldest first."""
        return self._tasks.results(self)

    def wait(self, timeout_s: float = 60.0) -> TaskResult:
        """Wait for the result after which Connect delivers no more: success, fail or skip.

        Raises:
            RunnerFailed: the runner ended by itself meanwhile.
            TaskGivenUp: nobody delivers it again by itself, see `DELIVERIES_MAX` and `RETRIES_MAX`.
            TaskOverdue: it did not come in time; the message tells what came.
            TaskRefused: the extension has no handler for the event.
        """
        found = self._tasks.wait(self, lambda results: [each for each in results if each.is_final][:1], timeout_s)
        return found[0]

    def wait_results(self, count: int, timeout_s: float = 60.0) -> list[TaskResult]:
        """Wait for the first `count` results, whatever they are.

        Raises:
            RunnerFailed: the runner ended by itself meanwhile.
            TaskGivenUp: nobody delivers it again by itself.
            TaskOverdue: they did not come in time; the message tells what came.
            TaskRefused: the extension has no handler for the event.
        """
        return self._tasks.wait(self, lambda results: results[:count] if len(results) >= count else [], timeout_s)


class LocalTasks:
    """All tasks of one local Connect.

    Args:
        state: where results are written down.
        send: sends a frame to the worker of a kind.
        observer: what is told of deliveries and results; from any thread.
        check: raises if there is no use in waiting any longer.
    """

    def __init__(
        self,
        state: LocalState,
        send: Callable[[str, str], None],
        observer: TasksObserver,
        check: Callable[[], None],
    ) -> None:
        self._state = state
        self._send = send
        self._observer = observer
        self._check = check
        self._changed = threading.Condition()
        self._tasks: dict[str, LocalTask] = {}
        self._subscriptions: Mapping[str, Any] | None = None
        self._timers: set[threading.Timer] = set()
        self._numbers = itertools.count(1 + self._highest_number())
        self._is_closed = False

    def _highest_number(self) -> int:
        with self._state.transaction() as connection:
            return int(connection.execute("SELECT coalesce(max(number), 0) FROM task").fetchone()[0])

    def close(self) -> None:
        """Deliver nothing more by itself."""
        with self._changed:
            self._is_closed = True
            timers = list(self._timers)
        for timer in timers:
            timer.cancel()
        for timer in timers:
            timer.join()

    def add(self, event_type: str, object_id: str, data: Any, redeliver_within_s: float | None) -> LocalTask:
        """Make a task; nothing is delivered yet."""
        with self._changed:
            task = LocalTask(f"TQ-{next(self._numbers)}", event_type, object_id, data, redeliver_within_s, self)
            self._tasks[task.task_id] = task
        with self._state.transaction() as connection:
            connection.execute(
                "INSERT INTO task (id, category, event_type, object_id) VALUES (?, ?, ?, ?)",
                (task.task_id, task.category, event_type, object_id),
            )
        return task

    def deliver(self, task: LocalTask, copies: int) -> None:
        """Send a task to its worker, see `LocalTask.deliver`."""
        if copies < 1:
            raise TaskRefused(f"{task.task_id}: copies is {copies}; give 1 or more")
        with self._changed:
            task._given_up = None
            self._refuse(task)
            if task._refusal is not None:
                raise TaskRefused(task._refusal)
            task._deliveries += copies
            task._under_way += copies
        frame = task_frame(task.task_id, task.category, task.event_type, task.object_id, task.data)
        for _ in range(copies):
            self._observer(task, None)
            self._send(_worker_kind(task), frame)

    def subscribed(self, subscriptions: Mapping[str, Any]) -> None:
        """Learn for which events the extension has handlers: Connect tells it of no others."""
        with self._changed:
            self._subscriptions = subscriptions
            for task in self._tasks.values():
                self._refuse(task)
            self._changed.notify_all()

    def _refuse(self, task: LocalTask) -> None:
        known = self._subscriptions
        if known is None or task.category == "scheduled" or task.event_type in known:
            return
        task._refusal = (
            f"{task.task_id}: the extension has no handler for {task.event_type}; it has: {', '.join(known) or 'none'}"
        )

    def received(self, task_id: str, output: Mapping[str, Any]) -> None:
        """Take in what a worker told of a task."""
        result = TaskResult.from_output(output, now())
        with self._changed:
            task = self._tasks.get(task_id)
            if task is None:  # of an earlier run on this state
                return
        self._observer(task, result)  # first: whoever waits goes on as soon as it is written down
        with self._state.transaction() as connection:
            connection.execute(
                "INSERT INTO result (task_id, at, output) VALUES (?, ?, ?)", (task_id, result.at, encode(output))
            )
        with self._changed:
            task._under_way = max(0, task._under_way - 1)
            self._changed.notify_all()
        if not result.is_final:
            self._redeliver(task, RETRY_COUNTDOWN_S if result.result == "retry" else result.countdown_s)

    def lost(self, kind: str) -> None:
        """Take in that the worker of a kind died: what it had under way will never come back."""
        with self._changed:
            lost = [task for task in self._tasks.values() if task._under_way and _worker_kind(task) == kind]
            for task in lost:
                task._under_way = 0
        for task in lost:
            self._redeliver(task, 0)

    def _redeliver(self, task: LocalTask, countdown_s: float) -> None:
        """Deliver a task again after a while, unless nobody wants that, or it is over, under way or given up anyhow."""
        within_s = task.redeliver_within_s
        if within_s is None:
            return
        given_up = _why_given_up(task, self.results(task))
        timer = threading.Timer(min(within_s, countdown_s), lambda: self._due(task, timer))
        timer.daemon = True
        with self._changed:
            task._given_up = given_up
            self._changed.notify_all()
            if self._is_closed or given_up:
                return
            self._timers.add(timer)
            timer.start()

    def _due(self, task: LocalTask, timer: threading.Timer) -> None:
        with self._changed:
            self._timers.discard(timer)
            is_over = task._under_way or self._is_closed or task._refusal
        if not is_over and not any(result.is_final for result in self.results(task)):
            self.deliver(task, 1)

    def results(self, task: LocalTask) -> list[TaskResult]:
        """List what came back of a task, oldest first."""
        with self._state.transaction() as connection:
            rows = connection.execute(
                "SELECT at, output FROM result WHERE task_id = ? ORDER BY number", (task.task_id,)
            ).fetchall()
        return [TaskResult.from_output(json.loads(row["output"]), row["at"]) for row in rows]

    def wait(
        self, task: LocalTask, choose: Callable[[list[TaskResult]], list[TaskResult]], timeout_s: float
    ) -> list[TaskResult]:
        """Wait until some of a task's results are what somebody waits for."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while True:
                results = self.results(task)
                chosen = choose(results)
                if chosen:
                    return chosen
                if task._refusal is not None:
                    raise TaskRefused(task._refusal)
                if task._given_up is not None:
                    raise TaskGivenUp(task._given_up)
                self._check()
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    raise TaskOverdue(_told(task, f"not over after {timeout_s:g} s", results))
                self._changed.wait(min(left_s, _CHECK_S))


def _worker_kind(task: LocalTask) -> str:
    """Give the kind of worker that carries a task out: the background worker keeps the schedule, too."""
    return "interactive" if task.category == "interactive" else "background"


def _why_given_up(task: LocalTask, results: list[TaskResult]) -> str | None:
    """Tell why a task is not delivered again, after a result that does not end it; None: it is."""
    latest = results[-RETRIES_MAX:]
    if len(latest) == RETRIES_MAX and all(result.result == "retry" for result in latest):
        return _told(task, f"given up: it raised an error {RETRIES_MAX} times in a row", results)
    if task.deliveries >= DELIVERIES_MAX:
        return _told(task, "given up", results)
    return None


def _told(task: LocalTask, what: str, results: list[TaskResult]) -> str:
    """Tell how a task stands that did not come to its end."""
    came = ", ".join(f"{times} x {result}" for result, times in Counter(each.result for each in results).items())
    lines = (results[-1].message or "").strip().splitlines() if results else []
    last = f"; at last: {lines[-1]}" if lines else ""  # of a traceback, the last line tells most
    deliveries = "1 delivery" if task.deliveries == 1 else f"{task.deliveries} deliveries"
    return (
        f"{task.object_id} ({task.event_type}, {task.task_id}) is {what}; {came or 'nothing'} came back of "
        f"{deliveries}{last}"
    )
