"""Who waits for executions in this process, and is told when a drive of this process gives one back."""

from __future__ import annotations

import os
import threading
from queue import Empty, SimpleQueue

from saga_engine.state import State

__all__ = ["Waiter", "Waits"]


class Waiter:
    """One thread that waits for one execution; a context manager that ends its registration.

    Args:
        waits: where it is registered.
        saga_id: the execution, with its generation.
    """

    def __init__(self, waits: Waits, saga_id: str) -> None:
        self._waits = waits
        self._saga_id = saga_id
        self._told: SimpleQueue[State] = SimpleQueue()

    def __enter__(self) -> Waiter:
        """Begin to listen."""
        self._waits.register(self._saga_id, self._told)
        return self

    def __exit__(self, *_: object) -> None:
        """Listen no more."""
        self._waits.forget(self._saga_id, self._told)

    def get(self, timeout_s: float) -> State | None:
        """Wait for the next time that a drive gives the execution back; None: it did not happen in time."""
        try:
            return self._told.get(timeout=timeout_s)
        except Empty:
            return None


class Waits:
    """All who wait, by execution. Costs nothing while nobody waits."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[SimpleQueue[State]]] = {}

    def waiter(self, saga_id: str) -> Waiter:
        """Prepare to wait for an execution."""
        return Waiter(self, saga_id)

    def tell(self, saga_id: str, state: State) -> None:
        """Tell who waits how the execution stood when it was given back."""
        if not self._waiting:
            return
        with _lock:
            queues = tuple(self._waiting.get(saga_id, ()))
        for queue in queues:
            queue.put(state)

    def register(self, saga_id: str, queue: SimpleQueue[State]) -> None:
        """Begin to tell this queue."""
        with _lock:
            self._waiting.setdefault(saga_id, []).append(queue)

    def forget(self, saga_id: str, queue: SimpleQueue[State]) -> None:
        """Tell this queue nothing more."""
        with _lock:
            queues = self._waiting.get(saga_id, [])
            if queue in queues:
                queues.remove(queue)
            if not queues:
                self._waiting.pop(saga_id, None)


#: Held for moments only; one for all, so that a fork can take it.
_lock = threading.Lock()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
