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
    UndoOrdered,
)
from saga_engine.shape import Shape
from transactions import Probe as ProbeAnswer

__all__ = ["Phase", "ScopeState", "State", "StepState"]


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
    bit: int

    def __init__(self, status: StepStatus, _meaning: str) -> None:
        #: the phase as a flag, for looking at all steps at once
        self.bit = 1 << len(type(self).__members__)
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
        undo_rounds: how often an undo ended with "not lost yet" (S10); part of the undo's idempotency key, only.
        is_passed_over: in mode select, not wanted at this delivery.
        parked_from: the phase in which it was when it parked.
        late_undone: an effect was found that the undo under way may have missed, so that it is to be undone once
            more: how often the step had been undone before the attempt that left it (J10).
        effect_undone: the same of the effect that is probed or undone now; None: it is that of the latest attempt.
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
    undo_rounds: int = 0
    is_passed_over: bool = False
    parked_from: Phase | None = None
    late_undone: int | None = None
    effect_undone: int | None = None
    cause: str | None = None
    next_action: str | None = None
    started_at: float | None = None
    finished_at: float | None = None


class ScopeState(Struct, frozen=True):
    """An open scope: its own state and request, and both as they were when it began; JSON text."""

    data: Raw
    request: Raw
    base_data: Raw
    base_request: Raw
    started_at: float


class State(Struct, frozen=True):
    """All that happened to one execution, folded. `request` and `data` (a step's `context.state`) are JSON text.

    Attributes:
        scopes: the scopes that began and whose changes are not in their parent's yet, by id.
        conflict: what the branches of a group changed differently, as text; None: nothing.
        denied_by: who holds the exclusive right that this execution needs; None: nobody else.
        plugin: the id of the plugin that gave the saga, and `plugin_version` its version then; "": none did.
    """

    saga: str
    saga_path: str
    saga_id: str
    generation: int
    plan: Plan
    shape: Shape
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
    scopes: Mapping[str, ScopeState] = {}
    conflict: str | None = None
    denied_by: str | None = None
    undo: UndoOrdered | None = None
    plugin: str = ""
    plugin_version: str = ""
