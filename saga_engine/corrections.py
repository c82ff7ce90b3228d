"""What people and other programs say to an execution: signal, cancel, resume, skip, resolve, undo, edit.

Each is an entry that says who, when and why. It is left in the execution's inbox, because only the holder of the
lease may append; if nobody holds the execution, this engine then drives it on. What does not fit the execution's
present state is refused with a reason. If that state changes between the check and the moment when the holder takes
the entry in, an entry that no longer applies changes nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from saga_engine.clock import Clock
from saga_engine.codec import encode_json
from saga_engine.decider import Undo, full_id, preview, replay
from saga_engine.errors import BadRequest, CorruptJournal, LimitReached, NotAllowed, UnknownExecution
from saga_engine.evolution import UNDO_UNDER_WAY, has_passed_pivot, is_pivot_uncertain
from saga_engine.journal import (
    CancelRequested,
    Entry,
    Header,
    Journal,
    Loaded,
    ParkedStepResolved,
    SagaEnded,
    SagaStatus,
    SignalReceived,
    StateEdited,
    StepResumed,
    StepSkippedByHand,
    UndoOrdered,
    decode_entries,
    encode_entries,
)
from saga_engine.saga import Saga
from saga_engine.state import Phase, State, StepState
from transactions import Probe as ProbeAnswer

__all__ = ["SIGNALS_MAX", "Corrections", "Place", "Preview"]

#: How many signals an execution keeps that no step has awaited yet.
SIGNALS_MAX = 1_000

#: How long a note, a reason or a name may be.
TEXT_CHARS_MAX = 4_000

_RESUMABLE = (Phase.RETRYING, Phase.SUSPENDED, Phase.UNDO_RETRYING, Phase.UNDO_SUSPENDED)
_UNKNOWN = (Phase.RUNNING, Phase.INTERRUPTED, Phase.RETRYING, Phase.FAILED)


@dataclass(frozen=True)
class Preview:
    """What would be undone if the execution failed now (or, completed, were undone), first one first.

    Attributes:
        undos: each step with how it would be undone: by "compensate", or "park" because it has no undo.
        note: why nothing would be, or could be, undone; None if there is no such reason.
    """

    saga_id: str
    undos: tuple[Undo, ...]
    note: str | None = None


@dataclass(frozen=True)
class Place:
    """An execution, or a child saga in it, as found by its id. `child`: the child's path; "" for the execution."""

    header: Header
    child: str = ""

    def step(self, name: str) -> str:
        """Give the name in the plan of a step of this saga."""
        return f"{self.child}/{name}" if self.child else name


class Corrections(ABC):
    """The part of an engine that takes in what others say to an execution."""

    journal: Journal
    _clock: Clock

    @abstractmethod
    def _place(self, saga_id: str) -> Place:
        """Find an execution, or a child saga in one."""

    @abstractmethod
    def _permit(self, action: str, saga_id: str, who: str = "") -> None:
        """Ask whether somebody may do this.

        Raises:
            OperationDenied: a plugin denied it.
            ModuleFailure: a plugin could not tell.
        """

    @abstractmethod
    def _nudge(self, header: Header) -> None:
        """Drive an execution on that has mail, if nobody holds it and this engine can."""

    # --- saying ---

    def signal(self, saga_id: str, name: str, payload: Any = None) -> None:
        """Send a signal; the step that waits for it finds `payload` in `context.state[name]`.

        It is kept until a step waits for it. If nobody holds the execution, this engine drives it on.

        Raises:
            UnknownExecution: there is none.
            NotAllowed: it ended.
            NotJSON: the payload is not JSON.
            LimitReached: it keeps a thousand signals already that no step has awaited.
        """
        if not (isinstance(name, str) and name):
            raise BadRequest(f"the signal's name is {name!r}: give a non-empty str")
        raw = encode_json(payload, "payload", Saga.payload_bytes_max)
        self._permit("signal", saga_id)
        header, state, loaded = self._standing(saga_id)
        if len(state.signals) + len(loaded.inbox) >= SIGNALS_MAX:
            raise LimitReached(f"{saga_id} keeps {SIGNALS_MAX} signals that no step awaited: find out who sends them")
        self._mail(saga_id, header, SignalReceived(at=self._clock.now(), name=name, payload=raw))

    def cancel(self, saga_id: str, reason: str, *, who: str = "") -> None:
        """Cancel an execution: the running step is waited for, then all that started is compensated.

        A parked one stays parked until its step is resolved, and is compensated then. While the outcome of the pivot
        is not known, the cancellation waits for it: it takes effect only if the pivot turns out not to be done.
        If nobody holds the execution, this engine drives it.

        Raises:
            UnknownExecution: there is none.
            NotAllowed: it ended, or it is past its pivot, or it is being undone anyway.
        """
        self._permit("cancel", saga_id, who)
        self._order_cancel(saga_id, reason, who)

    def _order_cancel(self, saga_id: str, reason: str, who: str = "") -> None:
        if self._place(saga_id).child:
            raise NotAllowed(f"{saga_id} is a child: cancel the execution that it is part of")
        header, state, _ = self._standing(saga_id)
        if has_passed_pivot(state):
            raise NotAllowed(
                f"{saga_id} is past its pivot {state.shape.pivot!r}: it can only go forward; undo it once it completed"
            )
        if state.undo is not None:
            raise NotAllowed(f"{saga_id} is being undone already")
        self._mail(saga_id, header, CancelRequested(at=self._clock.now(), reason=reason, who=who))

    def resume(
        self, saga_id: str, step: str | None = None, *, note: str = "", who: str = "", force: bool = False
    ) -> None:
        """Try again what parked, or end a wait at once; a compensation that parked tries its undo again.

        Args:
            saga_id: the execution.
            step: the step; None: every parked one or, if nothing is parked, every one that waits.
            note, who: why, and who says so; for the record.
            force: also run a step again whose outcome is unknown, and that has neither a `probe` nor says
                `is_idempotent`: what it does may then happen twice.

        Raises:
            UnknownExecution: there is none.
            NotAllowed: it ended, nothing waits there, or it would be unsafe.
        """
        self._permit("resume", saga_id, who)
        place = self._place(saga_id)
        header, state, _ = self._standing(saga_id)
        names = _resumable(saga_id, place, state) if step is None else (place.step(step),)
        for name in names:
            found = _step_of(saga_id, state, name)
            _refuse_unless_resumable(saga_id, state, name, found)
            _refuse_unless_safe(saga_id, state, name, force, "resume")
        now = self._clock.now()
        self._mail(saga_id, header, *(StepResumed(at=now, step=n, note=note, who=who, is_forced=force) for n in names))

    def skip(
        self,
        saga_id: str,
        step: str,
        *,
        state: Mapping[str, Any] | None = None,
        note: str = "",
        who: str = "",
        force: bool = False,
    ) -> None:
        """Declare a step over that a person dealt with, or that is not wanted; the next one follows.

        Args:
            saga_id: the execution.
            step: the step.
            state: keys to set in `context.state`, in place of what the step would have put there.
            note, who: why, and who says so; for the record.
            force: also skip a step whose outcome is unknown, and that has neither a `probe` nor says `is_idempotent`.
                It then counts as done, and is undone if the saga turns back later.

        Raises:
            UnknownExecution: there is none.
            NotAllowed: it ended, it is compensating, the step is over or runs just now, or it would be unsafe.
        """
        self._permit("skip", saga_id, who)
        name = self._place(saga_id).step(step)
        header, now_state, _ = self._standing(saga_id)
        found = _step_of(saga_id, now_state, name)
        if now_state.turned_back is not None:
            raise NotAllowed(f"{saga_id} is compensating: say how the step stands with resolve_parked instead")
        if found.phase.is_over:
            raise NotAllowed(f"{saga_id}: step {step!r} is {found.phase.status.value}: there is nothing to skip")
        ahead = [need for need in now_state.shape.steps[name].needs if not now_state.steps[need].phase.is_over]
        if ahead:
            raise NotAllowed(
                f"{saga_id}: it is not the turn of {step!r} yet, {ahead[0]!r} is ahead of it: skip it later"
            )
        if found.phase is Phase.RUNNING and self.journal.is_held(header):
            raise NotAllowed(f"{saga_id}: step {step!r} is running now: wait for its end")
        if found.is_probing and self.journal.is_held(header):
            raise NotAllowed(f"{saga_id}: what step {step!r} did is being looked at now: wait for the answer")
        _refuse_unless_safe(saga_id, now_state, name, force, "skip")
        changes = encode_json(dict(state or {}), "state", now_state.policy.payload_bytes_max)
        entry = StepSkippedByHand(at=self._clock.now(), step=name, changes=changes, note=note, who=who, is_forced=force)
        self._mail(saga_id, header, entry)

    def resolve_parked(
        self,
        saga_id: str,
        step: str,
        *,
        note: str,
        outcome: Literal["undone", "done", "not_done"] = "undone",
        who: str = "",
    ) -> None:
        """Tell how a parked step stands after a person dealt with it; the execution goes on from there.

        Args:
            saga_id: the execution.
            step: the parked step's name.
            note: what was done, for the record.
            outcome: "undone": its effect is gone, compensation goes on; "done": its effect is there, the
                saga goes on with the next step; "not_done": it left no effect, the step runs again.
            who: who says so.

        Raises:
            UnknownExecution: there is none.
            NotAllowed: that step is not parked, or the outcome does not fit a compensation.
        """
        self._permit("resolve", saga_id, who)
        name = self._place(saga_id).step(step)
        header, state, _ = self._standing(saga_id)
        found = state.steps.get(name)
        if found is None or found.phase is not Phase.PARKED:
            raise NotAllowed(
                f"{saga_id}: step {step!r} is not parked; parked are {', '.join(_parked(state)) or 'none'}"
            )
        if state.turned_back and outcome != "undone":
            raise NotAllowed(f"{saga_id} is compensating: only the outcome 'undone' lets it go on")
        if outcome == "not_done" and found.parked_from is Phase.COMPLETED:
            raise NotAllowed(f"{saga_id}: step {step!r} was done: resume it when what it parked for is put right")
        if outcome == "undone" and state.turned_back is None and has_passed_pivot(state):
            raise NotAllowed(f"{saga_id} is past its pivot: say 'done' or 'not_done', it can only go forward")
        entry = ParkedStepResolved(at=self._clock.now(), step=name, outcome=outcome, note=note, who=who)
        self._mail(saga_id, header, entry)

    def undo(self, saga_id: str, *, note: str = "", who: str = "") -> None:
        """Undo a completed execution: every step that defines an undo, pivots included, in reverse.

        Its first answer stays the answer to a redelivery. If nobody holds the execution, this engine drives the undo.

        Args:
            saga_id: the execution.
            note, who: why, and who says so; for the record. Steps get the note in `e`, an `UndoRequested`.

        Raises:
            UnknownExecution: there is none.
            NotAllowed: it is not COMPLETED, it was purged, or its saga is of mode "select".
        """
        self._permit("undo", saga_id, who)
        self._order_undo(saga_id, note, who)

    def edit_state(
        self, saga_id: str, changes: Mapping[str, Any], *, remove: Sequence[str] = (), note: str = "", who: str = ""
    ) -> None:
        """Set and remove top-level keys of `context.state` while nobody drives the execution.

        Args:
            saga_id: the execution.
            changes: keys and their new values.
            remove: keys to remove.
            note, who: why, and who says so; for the record.

        Raises:
            UnknownExecution: there is none.
            NotAllowed: it ended, or somebody drives it now: a step that runs would write over the edit.
            NotJSON: a value is not JSON.
        """
        if isinstance(remove, str):
            raise BadRequest(f"remove is the text {remove!r}: give a list of keys")
        self._permit("edit", saga_id, who)
        if self._place(saga_id).child:
            raise NotAllowed(f"{saga_id} is a child: edit the execution that it is part of")
        header, state, _ = self._standing(saga_id)
        if self.journal.is_held(header):
            raise NotAllowed(f"{saga_id} is being driven now: edit it when it waits, or parked")
        raw = encode_json(dict(changes), "changes", state.policy.payload_bytes_max)
        self._mail(
            saga_id, header, StateEdited(at=self._clock.now(), changes=raw, removed=tuple(remove), note=note, who=who)
        )

    def preview(self, saga_id: str) -> Preview:
        """Tell what would be undone, in which order, if the execution failed now (or, completed, were undone).

        Raises:
            UnknownExecution: there is none, or it was purged.
        """
        state = replay(self._loaded(self._place(saga_id).header).entries)
        undos = preview(state)
        return Preview(saga_id, undos, None if undos else _why_nothing(state))

    # --- checking and sending ---

    def _loaded(self, header: Header) -> Loaded:
        """Read a whole execution.

        Raises:
            UnknownExecution: it was purged.
        """
        if header.is_purged:
            saga_id = full_id(header.saga_id, header.generation)
            raise UnknownExecution(f"{saga_id} was purged: only how it ended is left of it, see Engine.get")
        return self.journal.load(header.eid)

    def _standing(self, saga_id: str) -> tuple[Header, State, Loaded]:
        """Read how an execution stands.

        Raises:
            NotAllowed: it ended.
        """
        header = self._place(saga_id).header
        if header.status.is_ended:
            raise NotAllowed(f"{saga_id} ended {header.status.value}: nothing can change it any more")
        loaded = self.journal.load(header.eid)
        return header, replay(loaded.entries), loaded

    def _order_undo(self, saga_id: str, note: str, who: str = "", *, is_covered: bool = False) -> None:
        place = self._place(saga_id)
        if place.child:
            raise NotAllowed(f"{saga_id} is a child: undo the execution that it is part of")
        if place.header.is_purged:
            raise NotAllowed(f"{saga_id} was purged: nothing tells any more how to undo it, do it by hand")
        state = replay(self.journal.load(place.header.eid).entries)
        if state.plan.mode == "select":
            raise NotAllowed(f"{saga_id}: a saga of mode 'select' keeps no list of what to undo")
        if state.status is not SagaStatus.COMPLETED:
            raise NotAllowed(f"{saga_id} is {state.status.value}: only what COMPLETED can be undone; else cancel it")
        entry = UndoOrdered(at=self._clock.now(), note=note, who=who, is_covered=is_covered)
        self._put(saga_id, place.header, entry)

    def _mail(self, saga_id: str, header: Header, *entries: Entry) -> None:
        self._put(saga_id, header, *entries)
        if not self._place(saga_id).header.status.is_ended:
            return
        loaded = self.journal.load(header.eid)
        # What was undone after its end has ended more than once.
        end = max(place for place, entry in enumerate(loaded.entries) if isinstance(entry, SagaEnded))
        if not any(entry in entries for entry in loaded.entries[:end]):
            raise NotAllowed(f"{saga_id} ended before it could take that in: nothing can change it any more")

    def _put(self, saga_id: str, header: Header, *entries: Entry) -> None:
        for entry in entries:
            _refuse_nonsense(entry)
        for entry in entries:
            self.journal.put(header.eid, entry)
        self._nudge(self._place(saga_id).header)


def _refuse_nonsense(entry: Entry) -> None:
    """Refuse an entry that nobody could read back, which would make the execution unreadable, and endless texts."""
    for name in ("note", "who", "reason"):
        text = getattr(entry, name, "")
        if isinstance(text, str) and len(text) > TEXT_CHARS_MAX:
            raise BadRequest(f"{name} has {len(text)} characters: give at most {TEXT_CHARS_MAX}")
    try:
        decode_entries(encode_entries((entry,)))
    except (CorruptJournal, TypeError) as error:
        raise BadRequest(
            f"{type(entry).__name__} cannot be journaled ({error}): give texts where texts are meant"
        ) from error


def _resumable(saga_id: str, place: Place, state: State) -> tuple[str, ...]:
    members = state.shape.members[place.child] if place.child else tuple(state.steps)
    parked = tuple(name for name in members if state.steps[name].phase is Phase.PARKED)
    waiting = (name for name in members if state.steps[name].phase in _RESUMABLE)
    names = parked or tuple(name for name in waiting if state.shape.steps[name].signal is None)
    if not names:
        raise NotAllowed(f"{saga_id}: nothing is parked, and nothing waits that a person could end")
    return names


def _step_of(saga_id: str, state: State, name: str) -> StepState:
    if name not in state.steps:
        raise NotAllowed(f"{saga_id} has no step {name!r}: its steps are {', '.join(state.steps)}")
    return state.steps[name]


def _parked(state: State) -> tuple[str, ...]:
    return tuple(name for name, step in state.steps.items() if step.phase is Phase.PARKED)


def _refuse_unless_resumable(saga_id: str, state: State, name: str, step: StepState) -> None:
    if state.shape.steps[name].signal is not None and step.phase is Phase.SUSPENDED:
        raise NotAllowed(f"{saga_id}: {name!r} waits for a signal: send it, or skip the step")
    if step.phase is not Phase.PARKED and step.phase not in _RESUMABLE:
        raise NotAllowed(f"{saga_id}: step {name!r} is {step.phase.status.value}: there is nothing to resume")


def _refuse_unless_safe(saga_id: str, state: State, name: str, force: bool, what: str) -> None:
    """Refuse what rests on an outcome that nothing can tell, unless a person takes that upon themselves."""
    step, planned = state.steps[name], state.shape.steps[name]
    phase = step.parked_from if step.phase is Phase.PARKED and step.parked_from else step.phase
    is_unknown = step.may_have_effect and phase in _UNKNOWN and step.answer is not ProbeAnswer.DONE
    if phase is Phase.RUNNING:
        is_unknown = True
    if phase in UNDO_UNDER_WAY or not is_unknown or planned.probed or planned.is_idempotent or force:
        return
    raise NotAllowed(
        f"{saga_id}: whether step {name!r} took effect is unknown, and it has neither a probe nor says is_idempotent: "
        f"find out at the other side, then resolve_parked with what you found, or {what} with force"
    )


def _why_nothing(state: State) -> str:
    if has_passed_pivot(state) and not state.status.is_ended:
        return f"it is past its pivot {state.shape.pivot!r}: it can only go forward"
    if is_pivot_uncertain(state):
        return f"whether its pivot {state.shape.pivot!r} took effect is not known: nothing is undone before that is"
    if state.status.is_ended and state.status is not SagaStatus.COMPLETED:
        return f"it ended {state.status.value}"
    return "no step has left anything that could be undone"
