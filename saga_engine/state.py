"""What is known of an execution: the fold of its entries, as immutable values."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Literal

from msgspec import Raw, Struct

from saga_engine.journal import (
    CancelRequested,
    CompensationBegun,
    ErrorRecord,
    Plan,
    Policy,
    Response,
    SagaParked,
    SagaStatus,
    SignalReceived,
    SkipAnswered,
    StepStatus,
)
from transactions import Probe as ProbeAnswer

__all__ = ["Phase", "State", "StepState"]


class Phase(Enum):
    """Where a step is; finer than `StepStatus`, which is for people."""

    PENDING = StepStatus.PENDING, "not asked yet"
    RUNNING = StepStatus.RUNNING, "execute is in flight"
    INTERRUPTED = StepStatus.RUNNING, "execute was in flight when the drive died"
    RETRYING = StepStatus.FAILED, "an attempt failed, another follows"
    SUSPENDED = StepStatus.SUSPENDED, "asked to run again later"
    WOKEN = StepStatus.SUSPENDED, "may run again now"
    COMPLETED = StepStatus.COMPLETED, "done"
    SKIPPED = StepStatus.SKIPPED, "not wanted"
    FAILED = StepStatus.FAILED, "given up, or without effect"
    UNDOING = StepStatus.COMPENSATING, "compensate is in flight"
    UNDO_INTERRUPTED = StepStatus.COMPENSATING, "compensate was in flight when the drive died"
    UNDO_RETRYING = StepStatus.COMPENSATING, "an undo failed, another follows"
    UNDO_EXHAUSTED = StepStatus.COMPENSATING, "the last undo failed"
    UNDO_DECLINED = StepStatus.COMPENSATING, "compensate raised what it was given"
    UNDO_SUSPENDED = StepStatus.COMPENSATING, "the undo asked to go on later"
    UNDO_WOKEN = StepStatus.COMPENSATING, "the undo may go on now"
    UNDONE = StepStatus.COMPENSATED, "undone"
    PARKED = StepStatus.PARKED, "waits for a person"

    status: StepStatus
    is_over: bool

    def __init__(self, status: StepStatus, _meaning: str) -> None:
        #: what people see of it
        self.status = status
        #: forward: the steps after it may go on
        self.is_over = status in (StepStatus.COMPLETED, StepStatus.SKIPPED)


class StepState(Struct, frozen=True):
    """What is known of one step.

    Attributes:
        order: position among first starts, from 1; 0 means that it never started.
        attempts: attempts of `execute` that began.
        failures: attempts that failed or were interrupted; what a `RetryPolicy` counts.
        may_have_effect: something may be there to undo.
        answer: what the probe said since the last attempt; None if it was not asked.
        undo_of: what the step was when its undo began.
        undone: how often it was undone; part of its idempotency key (S17).
        is_passed_over: in mode select, not wanted at this delivery.
    """

    phase: Phase = Phase.PENDING
    order: int = 0
    attempts: int = 0
    failures: int = 0
    may_have_effect: bool = False
    is_unasked: bool = True
    is_probing: bool = False
    answer: ProbeAnswer | None = None
    retry_at: float | None = None
    due_at: float | None = None
    signal: str | None = None
    response: Response | None = None
    error: ErrorRecord | None = None
    is_refusal: bool = False
    limit: str | None = None
    undo_of: Literal["completed", "failed", "started"] | None = None
    undo_attempts: int = 0
    undo_failures: int = 0
    undo_error: ErrorRecord | None = None
    undo_started_at: float | None = None
    undone: int = 0
    is_passed_over: bool = False
    cause: str | None = None
    next_action: str | None = None
    started_at: float | None = None
    finished_at: float | None = None


class State(Struct, frozen=True):
    """All that happened to one execution, folded. `request` and `data` (a step's `context.state`) are JSON text."""

    saga: str
    saga_path: str
    saga_id: str
    generation: int
    plan: Plan
    policy: Policy
    steps: Mapping[str, StepState]
    first_request: Raw
    request: Raw
    data: Raw
    at: float
    started_at: float
    status: SagaStatus = SagaStatus.RUNNING
    entries: int = 1
    entries_forgiven: int = 0
    started: int = 0
    recoveries: int = 0
    reschedules: int = 0
    is_released: bool = False
    due_at: float | None = None
    told: Response | None = None
    response: Response | None = None
    turned_back: CompensationBegun | None = None
    cancelled: CancelRequested | None = None
    skipped: SkipAnswered | None = None
    parked: SagaParked | None = None
    signals: tuple[SignalReceived, ...] = ()
