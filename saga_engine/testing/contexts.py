"""A `SagaContext` without an engine."""

from __future__ import annotations

from contextvars import Token
from typing import Any

from saga_engine.codec import decode_json, encode_json
from saga_engine.context import SagaContext, _current
from saga_engine.saga import Saga

__all__ = ["FakeContext", "fake_context"]


class FakeContext(SagaContext):
    """A context that belongs to no execution; `with context:` makes it the `current_context()`.

    Args:
        remaining_s: what `remaining_s()` gives, in seconds.
        others: see `SagaContext`.

    Attributes:
        saved: a copy of `state` for each `save()`, oldest first.
    """

    def __init__(
        self,
        saga_id: str = "FakeSaga:1",
        saga: str = "FakeSaga",
        step: str = "fake step",
        state: dict[str, Any] | None = None,
        *,
        remaining_s: float = float("inf"),
        **others: Any,
    ) -> None:
        given: dict[str, Any] = {} if state is None else state
        super().__init__(saga_id, saga, step, given, remaining_s=lambda: remaining_s, save=self._keep, **others)
        self.saved: list[dict[str, Any]] = []
        self._tokens: list[Token[SagaContext | None]] = []

    def _keep(self, _context: SagaContext) -> None:
        self.saved.append(decode_json(encode_json(self.state, "context.state", Saga.payload_bytes_max)))

    def __enter__(self) -> FakeContext:
        """Make it the `current_context()`."""
        self._tokens.append(_current.set(self))
        return self

    def __exit__(self, *_error: object) -> None:
        """Put back what was there before."""
        _current.reset(self._tokens.pop())


def fake_context(**overrides: Any) -> FakeContext:
    """Make a context for a step that is built by hand, or for code that asks for `current_context()`.

        step = CreateSubscription(client, context=fake_context(state={"customer": "C-1"}))

        with fake_context(attempt=2):
            code_that_asks_for_current_context()

    Args:
        overrides: any of `saga_id`, `saga`, `step`, `state` (this very dict is used), `attempt`, `operation`
            ("execute", "compensate" or "probe"), `undone` (how often the step was undone before), `remaining_s`.

    `save()` needs no engine: it checks that `state` is JSON and keeps a copy in `saved`.
    """
    return FakeContext(**overrides)
