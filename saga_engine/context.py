"""What a step knows of the execution that it is part of."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import anyio.to_thread

from saga_engine.errors import AttemptAbandoned, NoContext, NotAllowed

__all__ = ["SagaContext", "current_context", "idempotency_key"]

#: The namespace of every idempotency key; changing it would change the keys of executions under way.
_NAMESPACE = uuid.UUID("5a9ae2d6-4f0b-5d0e-9a41-6f1f5a1c7c11")

_current: ContextVar[SagaContext | None] = ContextVar("saga_context", default=None)


class SagaContext:
    """What a step knows of its execution; injected as `context`, or found by `current_context()`.

    Attributes:
        saga_id: the execution, with its generation (`Purchase:PR-1#2`).
        saga: the saga's name.
        step: the step's name.
        attempt: the number of this attempt of the present operation, from 1.
        state: a dict of JSON values, shared by all steps of the execution and journaled with every outcome.
        execute_key: the idempotency key of the step's `execute`, by which a probe or a compensation can look up
            at the other side what was done.
    """

    def __init__(
        self,
        saga_id: str,
        saga: str,
        step: str,
        state: dict[str, Any],
        *,
        path: str = "",
        attempt: int = 1,
        operation: str = "execute",
        undone: int = 0,
        remaining_s: Callable[[], float] = lambda: float("inf"),
        save: Callable[[SagaContext], None] | None = None,
    ) -> None:
        self.saga_id = saga_id
        self.saga = saga
        self.step = step
        #: the step's name in the plan, which in a child saga begins with the child's
        self.path = path or step
        self._state = state
        self.attempt = attempt
        self.operation = operation
        self.undone = undone
        #: how often its undo came to an end, in whatever way; part of the undo's key
        self.undo_round = undone
        #: how often the step had been undone when the effect came about that is probed or undone now
        self.undone_before_effect: int | None = None
        self._remaining_s = remaining_s
        self._save = save

    @property
    def state(self) -> dict[str, Any]:
        """The dict itself: change it in place."""
        return self._state

    @state.setter
    def state(self, value: dict[str, Any]) -> None:
        copied = dict(value)
        self._state.clear()
        self._state.update(copied)

    @property
    def idempotency_key(self) -> str:
        """The key to send with this operation: the same however often it is attempted (S17).

        A UUID as 36 characters. The undo has a key of its own, as stable as that of `execute`.
        """
        if self.operation == "compensate":
            return idempotency_key(self.saga_id, self.step, "compensate", self.undo_round)
        return idempotency_key(self.saga_id, self.step, "execute", self.undone)

    @property
    def execute_key(self) -> str:
        """The idempotency key that the step's `execute` has or had."""
        undone = self.undone if self.undone_before_effect is None else self.undone_before_effect
        return idempotency_key(self.saga_id, self.step, "execute", undone)

    def remaining_s(self) -> float:
        """Give the seconds left of this delivery's budget, at least 0; infinity if there is no budget."""
        return max(0.0, self._remaining_s())

    def save(self) -> None:
        """Commit `state` (and the request) in the middle of a step: after it returns, they survive a crash.

        Blocks until the commit is on disk. In an `async` step use `await context.asave()`.

        Raises:
            NotAllowed: in `should_execute`, which is asked before anything is journaled; or in an `async` step of a
                group, while another commit is under way.
            AttemptAbandoned: the attempt timed out, and was given up.
        """
        if self._save is None or self.operation == "should_execute":
            raise NotAllowed("context.save() is for execute, compensate and probe: move it there")
        self._save(self)

    def abandon(self) -> None:
        """Cut the attempt off that uses this context: it was given up, and nothing of it is journaled any more."""

        def refuse(context: SagaContext) -> None:
            raise AttemptAbandoned()

        self._save = refuse

    async def asave(self) -> None:
        """Do what `save` does without blocking the event loop."""
        await anyio.to_thread.run_sync(self.save)

    def __repr__(self) -> str:
        return f"SagaContext({self.saga_id!r}, step={self.step!r}, attempt={self.attempt})"


def idempotency_key(saga_id: str, step: str, operation: str, undone: int = 0) -> str:
    """Derive the key of one operation of one step of one execution (S17).

    The parts are joined as a JSON array, so that no two different sets of parts give one text.

    Args:
        saga_id: with its generation.
        step: the step's name.
        operation: "execute" or "compensate".
        undone: how often the step was undone before: what runs again after its undo has a new key.
    """
    return str(uuid.uuid5(_NAMESPACE, json.dumps([saga_id, step, operation, undone])))


def current_context() -> SagaContext:
    """Give the context of the step that runs in this thread or task.

    Raises:
        NoContext: no step runs here.
    """
    context = _current.get()
    if context is None:
        raise NoContext()
    return context
