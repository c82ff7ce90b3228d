"""What the decider wants done: the actions that a drive carries out."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from saga_engine.journal import (
    CompensationBegun,
    CompensationStarted,
    Entry,
    ProbeStarted,
    Response,
    SagaEnded,
    SagaParked,
    SagaStatus,
    SignalAwaited,
    SignalMissed,
    StepParked,
    StepStarted,
)

__all__ = [
    "Action",
    "Ask",
    "Await",
    "Compensate",
    "Execute",
    "Finish",
    "Miss",
    "Park",
    "Probe",
    "Refuse",
    "TurnBack",
    "Wait",
]


class Ask(Struct, frozen=True):
    """Ask the step's `should_execute`, before it first starts or after it waited (S3, S6)."""

    step: str


class Execute(Struct, frozen=True):
    """Run the step's `execute`."""

    step: str
    attempt: int

    def begin(self, at: float) -> Entry:
        """Give the entry that makes the attempt part of the state."""
        return StepStarted(at=at, step=self.step, attempt=self.attempt)


class Probe(Struct, frozen=True):
    """Ask the step's `probe`."""

    step: str

    def begin(self, at: float) -> Entry:
        """Give the entry that makes the question part of the state."""
        return ProbeStarted(at=at, step=self.step)


class Compensate(Struct, frozen=True):
    """Run the step's `compensate`.

    `of_completed`: the step had completed, so its `fail` is a failure and raising `e` means "no undo" (S11, S12).
    `is_final`: mode select, in which whatever it gives is the result (S26).
    """

    step: str
    attempt: int
    of_completed: bool
    is_final: bool = False

    def begin(self, at: float) -> Entry:
        """Give the entry that makes the attempt part of the state."""
        return CompensationStarted(at=at, step=self.step, attempt=self.attempt)


class TurnBack(Struct, frozen=True):
    """Begin to compensate."""

    cause: Literal["failed", "cancelled", "deadline", "interrupted", "conflict", "undo"]
    step: str | None = None

    def begin(self, at: float) -> Entry:
        """Give the entry that records it."""
        return CompensationBegun(at=at, cause=self.cause, step=self.step)


class Park(Struct, frozen=True):
    """Stop at this step, for a person to resolve."""

    step: str
    cause: str
    next_action: str

    def begin(self, at: float) -> Entry:
        """Give the entry that records it."""
        return StepParked(at=at, step=self.step, cause=self.cause, next_action=self.next_action)


class Finish(Struct, frozen=True):
    """End the execution; with status PARKED, stop it at `step`."""

    status: SagaStatus
    response: Response = Response("success")
    step: str = ""
    cause: str = ""

    def begin(self, at: float) -> Entry:
        """Give the entry that records it."""
        if self.status is SagaStatus.PARKED:
            return SagaParked(at=at, step=self.step, cause=self.cause)
        return SagaEnded(at=at, status=self.status, response=self.response)


class Await(Struct, frozen=True):
    """Let the step, a `WaitFor`, begin to wait for its signal, at most so many seconds (None: without a limit)."""

    step: str
    timeout_s: float | None

    def begin(self, at: float) -> Entry:
        """Give the entry that records it."""
        return SignalAwaited(at=at, step=self.step, due_at=None if self.timeout_s is None else at + self.timeout_s)


class Miss(Struct, frozen=True):
    """The step's signal did not come in time (S31)."""

    step: str

    def begin(self, at: float) -> Entry:
        """Give the entry that records it."""
        return SignalMissed(at=at, step=self.step)


class Wait(Struct, frozen=True):
    """Nothing can go on before `until` (Unix seconds; None: before a delivery or a signal).

    `cause` is "retry" for the engine's own waits and "signal" for a `WaitFor`, which a delivery does not end,
    "exclusive" for an exclusive right, "raised" when mode select gives the caller the exception of `step`.
    """

    until: float | None
    cause: Literal["step", "retry", "compensation", "raised", "signal", "exclusive"]
    told: Response | None = None
    step: str | None = None


class Refuse(Struct, frozen=True):
    """Mode select: no step applies to this delivery; nothing is journaled."""


Action = Ask | Execute | Probe | Compensate | Await | Miss | TurnBack | Park | Finish | Wait | Refuse
