"""What `saga connect` shows while it delivers: each delivery and each answer, in a line of its own."""

from __future__ import annotations

import threading
import time

from rich.text import Text

from saga_engine.connect.local_protocol import TaskResult
from saga_engine.connect.local_tasks import LocalTask
from saga_engine.narration import clock_time, duration, one_line
from saga_engine.terminal import make_console

__all__ = ["DeliveryBoard", "told"]

_STYLES = {"success": "green", "fail": "yellow", "skip": "dim", "reschedule": "blue", "retry": "red"}


class DeliveryBoard:
    """Prints a line for each delivery and each answer; a `TasksObserver`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._console = make_console()

    def observe(self, task: LocalTask, result: TaskResult | None) -> None:
        """Tell what happened; from any thread."""
        text = Text(f"  {clock_time(time.time())}  {one_line(task.object_id)}  ")
        if result is None:
            again = "delivered again" if task.deliveries > 1 else "delivered"
            text.append(f"{again}: {task.event_type}", style="dim")
        else:
            text.append(told(result), style=_STYLES.get(result.result, ""))
        with self._lock:
            self._console.print(text, soft_wrap=True)


def told(result: TaskResult) -> str:
    """Tell an answer in a line."""
    text = f"{result.result} after {duration(result.runtime_s)}"
    if result.result == "reschedule":
        return f"{text}: asks for the next delivery in {duration(result.countdown_s)}"
    lines = (result.message or "").strip().splitlines()
    if result.result == "retry":
        # Of a traceback, the last line tells most.
        return one_line(f"{text}: {lines[-1] if lines else 'no reason'}")
    return one_line(f"{text}: {' '.join(lines)}") if lines else text
