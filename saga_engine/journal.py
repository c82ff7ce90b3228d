"""The journal: the entries of an execution, and the port through which engines read and write them.

An execution is a header (one row: who holds it, how it stands) and an append-only list of entries. Entries come
in *commits*: one commit is one row, numbered by `seq` from 1 without a gap, and durable as a whole or not at all.

Invariants that every journal keeps (the conformance suite in `saga_engine.testing.journals` proves them):

- `append` returns only after the commit is durable; nothing of a refused commit is kept (J2).
- A commit is accepted only from the drive that holds the lease: its `epoch` is the header's, and `(eid, seq)` is
  new. Taking the lease is itself a commit that raises the epoch by one, so of two takers one wins (J3).
- A commit is refused, with the messages, while the inbox holds messages that it does not drain (J3).
- A lease is *live* as long as its process is: dead on this host at once, elsewhere after `lease_s` without a
  heartbeat, measured by a clock that nobody can set (J4).
- What goes in and comes out passes through the codec: no object is shared with the caller (J5).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, ClassVar, Literal, Protocol

import msgspec
from msgspec import Raw, Struct

from saga_engine.errors import CorruptJournal, NewerJournal, NotJSON
from transactions import Kind, Probe

__all__ = [
    "ABSENT",
    "ENTRY_VERSION",
    "AlreadyStarted",
    "CancelRequested",
    "Commit",
    "Committed",
    "CompensationBegun",
    "CompensationDeclined",
    "CompensationFailed",
    "CompensationStarted",
    "CompensationSuspended",
    "DriveInterrupted",
    "DriveResumed",
    "Entry",
    "ErrorRecord",
    "ExclusiveDenied",
    "ExclusiveHeld",
    "ExclusiveRight",
    "Header",
    "InboxMessage",
    "InboxPending",
    "Invalidation",
    "InvalidationJournal",
    "Journal",
    "LateEffectFound",
    "Loaded",
    "Opening",
    "ParkedStepResolved",
    "Plan",
    "PlanScope",
    "PlanStep",
    "Policy",
    "ProbeStarted",
    "Release",
    "RequestDelivered",
    "Response",
    "SagaEnded",
    "SagaParked",
    "SagaStarted",
    "SagaStatus",
    "SagaSuspended",
    "SignalAwaited",
    "SignalMissed",
    "SignalReceived",
    "SkipAnswered",
    "StateEdited",
    "StateSaved",
    "StepCompensated",
    "StepCompleted",
    "StepFailed",
    "StepNotSelected",
    "StepParked",
    "StepProbed",
    "StepResumed",
    "StepSkipped",
    "StepSkippedByHand",
    "StepStarted",
    "StepStatus",
    "StepSuspended",
    "TakenOver",
    "UndoOrdered",
    "WaitElapsed",
    "decode_entries",
    "encode_entries",
]

#: Stands for a JSON value that an entry does not carry, mostly because it did not change.
ABSENT = Raw(b"")

#: The version of the entries below. A release that adds a type or a field raises it.
ENTRY_VERSION = 2


class SagaStatus(str, Enum):
    """How an execution stands."""

    RUNNING = "RUNNING"
    SUSPENDED = "SUSPENDED"
    COMPENSATING = "COMPENSATING"
    COMPLETED = "COMPLETED"
    COMPENSATED = "COMPENSATED"
    SKIPPED = "SKIPPED"
    CANCELLED = "CANCELLED"
    PARKED = "PARKED"

    @property
    def is_ended(self) -> bool:
        """Tell whether nothing will ever happen to the execution by itself and its answer is final."""
        return self in _ENDED


_ENDED = frozenset({SagaStatus.COMPLETED, SagaStatus.COMPENSATED, SagaStatus.SKIPPED, SagaStatus.CANCELLED})


class StepStatus(str, Enum):
    """How a step stands."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SKIPPED = "SKIPPED"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    SUSPENDED = "SUSPENDED"
    COMPENSATING = "COMPENSATING"
    COMPENSATED = "COMPENSATED"
    PARKED = "PARKED"


# --- parts of entries ---------------------------------------------------------------------------------------------


class _Part(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A value inside an entry."""


class Response(_Part, frozen=True):
    """A `BackgroundResponse` as data."""

    status: Literal["success", "fail", "skip", "reschedule"]
    output: str | None = None
    countdown_s: float | None = None


class ErrorRecord(_Part, frozen=True):
    """An exception as data; `args` and `attributes` are JSON, or absent where they were not."""

    type: str
    message: str
    traceback: str = ""
    args: Raw = ABSENT
    attributes: Raw = ABSENT


class PlanStep(_Part, frozen=True):
    """One step of a plan.

    Attributes:
        name: unique in the plan; a step of a child saga has the child's path before its own name (`Child/Step`).
        needs: the steps that must be over before it starts.
        probed, has_undo: it has a `probe`, a `compensate` of its own.
        is_idempotent: running `execute` again with the same idempotency key has no second effect.
        scope: where it finds its state and request, see `PlanScope`; "" is the saga itself.
        signal, signal_timeout_s: it only waits for a signal of this name, at most so many seconds.
    """

    name: str
    kind: Kind = Kind.COMPENSATABLE
    needs: tuple[str, ...] = ()
    probed: bool = False
    on_unknown: Literal["rerun", "compensate", "park"] = "rerun"
    has_undo: bool = True
    is_idempotent: bool = False
    scope: str = ""
    signal: str | None = None
    signal_timeout_s: float | None = None


class PlanScope(_Part, frozen=True):
    """Steps that share a state of their own: a branch of a parallel group, or a child saga.

    A scope begins with a copy of its parent's state and request. When all scopes of one group are over, what they
    changed goes into the parent's.

    Attributes:
        id: unique in the plan.
        parent: the scope around it; "" is the saga itself.
        group: the number of the group that it belongs to; a child saga is alone in its group.
        child: the path of the child saga (`Child`, `Child/Grandchild`); "" for a branch.
        saga, saga_path: the child's name and `module:QualifiedName`.
        deadline_s: the child's own deadline, in seconds from its start.
    """

    id: str
    parent: str
    group: int
    child: str = ""
    saga: str = ""
    saga_path: str = ""
    deadline_s: float | None = None


class ExclusiveRight(_Part, frozen=True):
    """That only one execution at a time may hold `name`; see `saga_engine.Exclusive`."""

    name: str
    when_held: Literal["wait", "refuse"] = "wait"
    when_parked: Literal["hold", "release"] = "hold"


class Plan(_Part, frozen=True):
    """The steps of one execution, in order; journaled at the start and never changed."""

    steps: tuple[PlanStep, ...]
    mode: Literal["chain", "select"] = "chain"
    scopes: tuple[PlanScope, ...] = ()
    exclusive: ExclusiveRight | None = None


class Policy(_Part, frozen=True):
    """The limits and choices of one execution, journaled at the start. Times are Unix seconds, spans seconds."""

    deadline_at: float | None = None
    compensation_deadline_s: float = 604_800.0
    park_policy: Literal["stop", "continue"] = "stop"
    reschedules_max: int = 1_000
    recoveries_max: int = 5
    attempts_max: int = 1_000
    entries_max: int = 10_000
    payload_bytes_max: int = 4_194_304


# --- entries ------------------------------------------------------------------------------------------------------


class Entry(
    Struct, frozen=True, kw_only=True, tag=True, tag_field="entry", omit_defaults=True, forbid_unknown_fields=True
):
    """Something that happened to an execution; `at` is wall time in Unix seconds.

    `is_decision` tells the decider's own choices from facts: a commit that finds mail in the inbox drops its
    decisions, keeps its facts, and decides again.
    """

    is_decision: ClassVar[bool] = False
    at: float


class SagaStarted(Entry, frozen=True, kw_only=True):
    """The execution came to be. `saga` is the name, `saga_path` is `module:QualifiedName`.

    `plugin` is the id of the plugin that gave the saga, and `plugin_version` its version then; "": no plugin did.
    """

    saga: str
    saga_path: str
    saga_id: str
    generation: int
    drive: str
    plan: Plan
    policy: Policy
    request: Raw
    plugin: str = ""
    plugin_version: str = ""


class RequestDelivered(Entry, frozen=True, kw_only=True):
    """A delivery took up the waiting execution; `request` is absent if it equals the journaled one."""

    drive: str
    request: Raw = ABSENT


class DriveResumed(Entry, frozen=True, kw_only=True):
    """The engine itself took up the waiting execution: it was due, or mail had come."""

    drive: str


class TakenOver(Entry, frozen=True, kw_only=True):
    """A drive took the execution over from one that died."""

    drive: str
    died: str | None = None


class DriveInterrupted(Entry, frozen=True, kw_only=True):
    """The drive was stopped in the middle of what it did and gave the lease back."""

    cause: str


class WaitElapsed(Entry, frozen=True, kw_only=True):
    """The drive waited in its process until now."""


class SagaSuspended(Entry, frozen=True, kw_only=True):
    """The drive gave the lease back to wait; `told` is what the caller was answered."""

    is_decision: ClassVar[bool] = True
    cause: Literal["step", "retry", "compensation", "budget", "interrupted", "raised", "queued", "signal", "exclusive"]
    due_at: float | None = None
    told: Response | None = None


class SagaEnded(Entry, frozen=True, kw_only=True):
    """The execution came to its end; `response` is its final answer."""

    is_decision: ClassVar[bool] = True
    status: SagaStatus
    response: Response


class SagaParked(Entry, frozen=True, kw_only=True):
    """The execution stopped for a person to resolve."""

    is_decision: ClassVar[bool] = True
    step: str
    cause: str


class StepSkipped(Entry, frozen=True, kw_only=True):
    """The step's `should_execute` was false."""

    step: str


class StepNotSelected(Entry, frozen=True, kw_only=True):
    """In mode select: the step's `should_execute` was false at this delivery."""

    step: str


class StepStarted(Entry, frozen=True, kw_only=True):
    """An attempt of the step's `execute` begins."""

    is_decision: ClassVar[bool] = True
    step: str
    attempt: int


class StepCompleted(Entry, frozen=True, kw_only=True):
    """The step is done. Without `has_effect` it was answered by a middleware and is never compensated."""

    step: str
    has_effect: bool = True
    state: Raw = ABSENT
    request: Raw = ABSENT


class SkipAnswered(Entry, frozen=True, kw_only=True):
    """The step answered `skip`: the rest of the saga is not wanted."""

    step: str
    response: Response
    state: Raw = ABSENT
    request: Raw = ABSENT


class StepSuspended(Entry, frozen=True, kw_only=True):
    """The step waits for `due_at`, for the next delivery, or for the signal, and then runs again."""

    step: str
    response: Response
    due_at: float | None = None
    signal: str | None = None
    has_effect: bool = True
    state: Raw = ABSENT
    request: Raw = ABSENT


class StepFailed(Entry, frozen=True, kw_only=True):
    """An attempt failed; without `retry_at` it was the last one. `effect` is what it may have left behind.

    `is_refusal`: the step answered `fail`. `is_unasked`: its `should_execute` raised. `limit`: the limit it broke.
    `is_abandoned`: it timed out, and its thread was still running when it was given up.
    """

    step: str
    error: ErrorRecord
    effect: Literal["unknown", "none"]
    retry_at: float | None = None
    is_refusal: bool = False
    is_unasked: bool = False
    limit: str | None = None
    is_abandoned: bool = False
    state: Raw = ABSENT
    request: Raw = ABSENT


class ProbeStarted(Entry, frozen=True, kw_only=True):
    """The step's `probe` is being asked."""

    is_decision: ClassVar[bool] = True
    step: str


class StepProbed(Entry, frozen=True, kw_only=True):
    """The step's `probe` answered; `error` is what it raised, which counts as UNKNOWN."""

    step: str
    answer: Probe
    error: ErrorRecord | None = None
    state: Raw = ABSENT
    request: Raw = ABSENT


class CompensationBegun(Entry, frozen=True, kw_only=True):
    """The execution turned back: what was started is undone from here."""

    is_decision: ClassVar[bool] = True
    cause: Literal["failed", "cancelled", "deadline", "interrupted", "conflict", "undo"]
    step: str | None = None


class CompensationStarted(Entry, frozen=True, kw_only=True):
    """An attempt of the step's `compensate` begins."""

    is_decision: ClassVar[bool] = True
    step: str
    attempt: int


class StepCompensated(Entry, frozen=True, kw_only=True):
    """The step is undone; `response` is what its `compensate` answered."""

    step: str
    response: Response
    state: Raw = ABSENT
    request: Raw = ABSENT


class CompensationDeclined(Entry, frozen=True, kw_only=True):
    """The step's `compensate` raised the error it was given (in mode select: any error)."""

    step: str
    error: ErrorRecord
    state: Raw = ABSENT
    request: Raw = ABSENT


class CompensationFailed(Entry, frozen=True, kw_only=True):
    """An attempt to undo the step failed; without `retry_at` it was the last one."""

    step: str
    error: ErrorRecord
    retry_at: float | None = None
    state: Raw = ABSENT
    request: Raw = ABSENT


class CompensationSuspended(Entry, frozen=True, kw_only=True):
    """The step's `compensate` answered with a reschedule."""

    step: str
    response: Response
    due_at: float
    state: Raw = ABSENT
    request: Raw = ABSENT


class StepParked(Entry, frozen=True, kw_only=True):
    """The step cannot go on by itself; `next_action` tells a person what to do."""

    is_decision: ClassVar[bool] = True
    step: str
    cause: str
    next_action: str


class StateSaved(Entry, frozen=True, kw_only=True):
    """The step called `context.save()`."""

    step: str
    state: Raw = ABSENT
    request: Raw = ABSENT


class SignalAwaited(Entry, frozen=True, kw_only=True):
    """The step, a `WaitFor`, waits for its signal until `due_at`; None: without a limit of its own."""

    is_decision: ClassVar[bool] = True
    step: str
    due_at: float | None = None


class SignalMissed(Entry, frozen=True, kw_only=True):
    """The signal that the step, a `WaitFor`, waited for did not come in time."""

    is_decision: ClassVar[bool] = True
    step: str


class ExclusiveDenied(Entry, frozen=True, kw_only=True):
    """Another execution, `by`, holds the exclusive right that this one needs."""

    by: str


class SignalReceived(Entry, frozen=True, kw_only=True):
    """Somebody sent a signal."""

    name: str
    payload: Raw


class CancelRequested(Entry, frozen=True, kw_only=True):
    """Somebody asked to cancel the execution."""

    reason: str
    who: str = ""


class ParkedStepResolved(Entry, frozen=True, kw_only=True):
    """A person dealt with a parked step and says how it stands now."""

    step: str
    outcome: Literal["undone", "done", "not_done"]
    note: str
    who: str = ""


class StepResumed(Entry, frozen=True, kw_only=True):
    """A person lets a step that parked, or that waits, go on at once; `is_forced`: although that may be unsafe."""

    step: str
    note: str = ""
    who: str = ""
    is_forced: bool = False


class StepSkippedByHand(Entry, frozen=True, kw_only=True):
    """A person declares a step over; `changes` go into the state as if the step had made them."""

    step: str
    changes: Raw
    note: str = ""
    who: str = ""
    is_forced: bool = False


class StateEdited(Entry, frozen=True, kw_only=True):
    """A person set these top-level keys of the state, and removed those."""

    changes: Raw
    removed: tuple[str, ...] = ()
    note: str = ""
    who: str = ""


class UndoOrdered(Entry, frozen=True, kw_only=True):
    """A person, or a later order, wants a completed execution undone (S32).

    `is_covered`: the order sees to it that nothing else is under way: no exclusive right is taken for the undo.
    """

    note: str = ""
    who: str = ""
    is_covered: bool = False


class LateEffectFound(Entry, frozen=True, kw_only=True):
    """An attempt whose drive had given it up, or lost the execution, came to its end after all (J10).

    `undone` tells under which idempotency key it ran: how often the step had been undone before it.
    """

    step: str
    attempt: int
    undone: int
    error: ErrorRecord | None = None


AnyEntry = (
    SagaStarted
    | RequestDelivered
    | DriveResumed
    | TakenOver
    | DriveInterrupted
    | WaitElapsed
    | SagaSuspended
    | SagaEnded
    | SagaParked
    | StepSkipped
    | StepNotSelected
    | StepStarted
    | StepCompleted
    | SkipAnswered
    | StepSuspended
    | StepFailed
    | ProbeStarted
    | StepProbed
    | CompensationBegun
    | CompensationStarted
    | StepCompensated
    | CompensationDeclined
    | CompensationFailed
    | CompensationSuspended
    | StepParked
    | StateSaved
    | SignalReceived
    | CancelRequested
    | ParkedStepResolved
    | SignalAwaited
    | SignalMissed
    | ExclusiveDenied
    | StepResumed
    | StepSkippedByHand
    | StateEdited
    | UndoOrdered
    | LateEffectFound
)

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(tuple[AnyEntry, ...])


def encode_entries(entries: Sequence[Entry]) -> bytes:
    """Encode the entries of one commit as a JSON array.

    Raises:
        NotJSON: they hold text that is no Unicode, such as half of a surrogate pair.
    """
    try:
        return _encoder.encode(tuple(entries))
    except UnicodeEncodeError as error:
        raise NotJSON(f"an entry cannot be written as JSON ({error}): send proper Unicode text") from error


def decode_entries(body: bytes, version: int = ENTRY_VERSION) -> tuple[Entry, ...]:
    """Decode and validate the entries of one commit.

    Raises:
        NewerJournal: a later release wrote them.
        CorruptJournal: they are not what any release wrote.
    """
    if version > ENTRY_VERSION:
        raise NewerJournal(
            f"an entry has version {version}, this release reads up to {ENTRY_VERSION}: upgrade saga-engine"
        )
    try:
        return _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CorruptJournal(f"an entry cannot be read ({error}): restore the journal from a backup") from error


# --- the port -----------------------------------------------------------------------------------------------------


class Opening(Struct, frozen=True):
    """The header of an execution that a commit starts."""

    saga_id: str
    generation: int
    saga: str


class Release(Struct, frozen=True):
    """The lease goes back with this commit; this is how the execution stands.

    Args:
        due_at: when it wants to go on by itself, in Unix seconds.
        told: what the caller was answered.
        response: the final answer, once there is one.
        awaits: the exclusive right that it waits for: when its holder frees it, this execution becomes due; at once
            if nobody holds it.
        frees: the exclusive right that it gives back.
    """

    due_at: float | None = None
    told: Response | None = None
    response: Response | None = None
    awaits: str | None = None
    frees: str | None = None


class Commit(Struct, frozen=True):
    """Entries to append as one row.

    Args:
        eid: the execution; None starts one, described by `opening`.
        seq: the number of this row, from 1.
        entries: what happened, in order; never empty.
        drive: the random id of the drive that appends.
        epoch: the fence: the epoch that the drive holds or, when `take`, the one that it saw and replaces.
        status: how the execution stands after it.
        at: Unix seconds, for the header.
        take: take the lease with this commit.
        drained: ids of the inbox messages that `entries` contain.
        opening: the header of a new execution.
        release: give the lease back with this commit.
        exclusive: an exclusive right to take with this commit, which starts the execution or takes its lease; the
            commit is refused while another execution holds the right. An execution holds at most one.
    """

    eid: int | None
    seq: int
    entries: tuple[Entry, ...]
    drive: str
    epoch: int
    status: SagaStatus
    at: float
    take: bool = False
    drained: tuple[int, ...] = ()
    opening: Opening | None = None
    release: Release | None = None
    exclusive: str | None = None


class Committed(Struct, frozen=True):
    """The commit is durable."""

    eid: int
    epoch: int


class InboxMessage(Struct, frozen=True):
    """A message in an execution's inbox; its id grows with time."""

    id: int
    entry: Entry


class InboxPending(Struct, frozen=True):
    """The commit was refused, nothing of it is kept: take in these messages first."""

    messages: tuple[InboxMessage, ...]


class AlreadyStarted(Struct, frozen=True):
    """The commit was refused: an execution with that id and generation is there already."""


class ExclusiveHeld(Struct, frozen=True):
    """The commit was refused, nothing of it is kept: the execution `by` (its full id) holds the exclusive right."""

    by: str


class Header(Struct, frozen=True):
    """How an execution stands, as of its last suspension or end; times in Unix seconds.

    `drive` and `process` tell who holds the lease (both None: nobody); `held_by` is the same for a person.
    `is_purged`: only this header is left of it.
    """

    eid: int
    saga_id: str
    generation: int
    saga: str
    status: SagaStatus
    epoch: int
    created_at: float
    updated_at: float
    drive: str | None = None
    process: str | None = None
    held_by: str | None = None
    due_at: float | None = None
    told: Response | None = None
    response: Response | None = None
    stuck: str | None = None
    is_purged: bool = False


class Loaded(Struct, frozen=True):
    """All entries of an execution, the number of its last row, and its inbox."""

    entries: tuple[Entry, ...]
    seq: int
    inbox: tuple[InboxMessage, ...]


AppendResult = Committed | InboxPending | AlreadyStarted | ExclusiveHeld


class Journal(Protocol):
    """Where executions are recorded. Every method may be called from any thread.

    Every method raises `JournalError` (or one of its kinds) when the journal cannot be used.
    """

    url: str

    def append(self, commit: Commit) -> AppendResult:
        """Append durably; return once it is on disk.

        Raises:
            LeaseLost: another drive holds the execution now; nothing was written.
        """

    def submit(self, commit: Commit, done: Callable[[AppendResult | BaseException], None]) -> None:
        """Append without blocking; `done` is called from another thread with what `append` would return or raise."""

    def header(self, saga_id: str, generation: int | None = None) -> Header | None:
        """Find the header of an execution; without `generation`, the latest one."""

    def load(self, eid: int) -> Loaded:
        """Read the whole execution as of one moment.

        Raises:
            UnknownExecution: there is none of that number, or it was purged.
        """

    def is_held(self, header: Header) -> bool:
        """Tell whether a live drive holds the execution."""

    def put(self, eid: int, entry: Entry) -> None:
        """Leave a message in the execution's inbox, durably."""

    def search(
        self,
        *,
        status: SagaStatus | None = None,
        saga: str | None = None,
        stuck: bool = False,
        limit: int = 100,
        before: int | None = None,
    ) -> list[Header]:
        """List headers, newest first; `before` is the eid that ended the last page."""

    def recoverable(
        self, *, now: float, after: int = 0, limit: int = 100, stuck_before: float | None = None
    ) -> list[Header]:
        """List, oldest first, the headers of executions that nobody holds and that can go on.

        They were left by a drive that died, or are due, or have mail (that includes ended ones: a late effect, or the
        order to undo). `after` is the eid that ended the last page. With `stuck_before` (Unix seconds), those that
        were noted as stuck at that time or later are left out.
        """

    def next_due(self, *, after: float) -> float | None:
        """Give the earliest time after `after` at which a waiting execution is due, in Unix seconds; None: none."""

    def purge(self, *, before: float, limit: int = 100) -> int:
        """Remove, in one short transaction, the entries of up to `limit` executions that ended before `before`.

        Oldest first; parked ones, and ended ones that somebody drives or that have mail, are not touched. Of each the
        header stays (S15). Returns how many were purged: fewer than `limit` means that none are left.
        """

    def note_stuck(self, header: Header, reason: str, at: float) -> None:
        """Note why nobody can drive this execution; the next commit that takes its lease clears the note."""

    def abandon(self, eid: int, epoch: int) -> None:
        """Give up a lease without an entry: the drive is gone; whoever comes next takes over. Never raises."""

    def close(self) -> None:
        """Give back every resource; later calls raise `JournalError`."""


class Invalidation(Struct, frozen=True):
    """Somebody dropped from a cache what is out of date; its id is one more than that of the one before.

    Attributes:
        writer: who did.
        cache: the cached function, as `module.QualifiedName`.
        keys: the arguments of the call that is out of date, as a JSON array; None: everything that it cached.
    """

    id: int
    writer: str
    cache: str
    keys: str | None


class InvalidationJournal(Protocol):
    """What a journal can do besides, through which processes keep their caches of functions in step.

    A journal that no other process can open has nothing to tell: it keeps none and gives none.
    """

    url: str

    def put_invalidation(self, writer: str, cache: str, keys: str | None) -> None:
        """Keep an invalidation durably, and the newest 1 000 of all."""

    def invalidations(self, *, after: int) -> list[Invalidation]:
        """List, oldest first, those with a higher id; a first id beyond `after + 1` tells that some are gone."""


def as_builtins(entry: Entry) -> dict[str, Any]:
    """Give an entry as plain JSON values, with its type under `entry`."""
    value: dict[str, Any] = msgspec.json.decode(_encoder.encode(entry))
    return value
