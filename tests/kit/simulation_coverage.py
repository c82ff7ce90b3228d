"""What simulations came across: the story of one for a reader, and counts by kind, so that none becomes trivial."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from simulation_script import Branches, Child, Leaf, Script, Tree
from simulation_world import Commanded, Died, Event, Interrupted, Late, LeaseTaken, Previewed, Written

__all__ = ["FLOORS", "count", "missing", "tell"]

#: How often each kind occurs at the very least in 1 250 seeds; on average it is four times as often, or more.
FLOORS: dict[str, int] = {
    # entries
    "CancelRequested": 56,
    "CompensationBegun": 288,
    "CompensationBegun cancelled": 37,
    "CompensationBegun conflict": 9,
    "CompensationBegun deadline": 49,
    "CompensationBegun failed": 108,
    "CompensationBegun interrupted": 28,
    "CompensationBegun undo": 53,
    "CompensationDeclined": 45,
    "CompensationFailed": 55,
    "CompensationStarted": 730,
    "CompensationSuspended": 8,
    "DriveInterrupted": 13,
    "DriveResumed": 1077,
    "ExclusiveDenied": 275,
    "LateEffectFound": 35,
    "ParkedStepResolved": 124,
    "ProbeStarted": 180,
    "RequestDelivered": 341,
    "SagaEnded CANCELLED": 39,
    "SagaEnded COMPENSATED": 283,
    "SagaEnded COMPLETED": 237,
    "SagaEnded SKIPPED": 1,
    "SagaParked": 136,
    "SagaStarted": 504,
    "SagaSuspended budget": 194,
    "SagaSuspended compensation": 9,
    "SagaSuspended exclusive": 232,
    "SagaSuspended interrupted": 13,
    "SagaSuspended retry": 111,
    "SagaSuspended signal": 166,
    "SagaSuspended step": 85,
    "SignalAwaited": 175,
    "SignalMissed": 37,
    "SignalReceived": 536,
    "SkipAnswered": 31,
    "StateEdited": 46,
    "StateSaved": 78,
    "StepCompensated": 559,
    "StepCompleted": 1245,
    "StepFailed": 209,
    "StepParked": 141,
    "StepProbed": 137,
    "StepProbed done": 46,
    "StepProbed not_done": 66,
    "StepProbed unknown": 23,
    "StepResumed": 28,
    "StepSkipped": 20,
    "StepSkippedByHand": 9,
    "StepStarted": 1897,
    "StepSuspended": 106,
    "TakenOver": 308,
    "UndoOrdered": 53,
    "WaitElapsed": 42,
    # parking
    "parked: attempts_max": 11,
    "parked: compensate failed": 13,
    "parked: compensation_deadline_s": 1,
    "parked: given up behind the pivot": 1,
    "parked: interrupted, and its outcome is unknown": 34,
    "parked: no undo": 29,
    "parked: recoveries_max": 29,
    "parked: reschedules_max": 1,
    "parked: the pivot's outcome is unknown": 1,
    "parked: to different values": 1,
    # dying
    "died after append": 131,
    "died after compensate": 10,
    "died after execute": 35,
    "died after probe": 1,
    "died after should_execute": 11,
    "died after sleep": 1,
    "died before append": 146,
    "died before compensate": 13,
    "died before execute": 40,
    "died before probe": 6,
    "died before reporting": 1,
    "died before should_execute": 8,
    "died during a recovery": 106,
    "died outside": 106,
    "interrupted": 17,
    "lease taken": 15,
    # what people do, and what comes late
    "cancel refused": 10,
    "cancel taken": 56,
    "edit_state refused": 23,
    "edit_state taken": 46,
    "late effect": 35,
    "late effect after the end": 13,
    "late effect nobody told of": 13,
    "preview of several undos": 78,
    "resolve done refused": 18,
    "resolve done taken": 20,
    "resolve not_done refused": 12,
    "resolve not_done taken": 18,
    "resolve undone refused": 1,
    "resolve undone taken": 85,
    "resume taken": 27,
    "signal taken": 536,
    "skip refused": 60,
    "skip taken": 9,
    "undo refused": 73,
    "undo taken": 53,
}

_PARKED_FOR = (
    "no undo",
    "compensate failed",
    "recoveries_max",
    "reschedules_max",
    "attempts_max",
    "compensation_deadline_s",
    "interrupted, and its outcome is unknown",
    "given up behind the pivot",
    "the pivot's outcome is unknown",
    "to different values",
)
_DETAILS = {"SagaSuspended": "cause", "CompensationBegun": "cause", "SagaEnded": "status", "StepProbed": "answer"}


def count(log: Iterable[Event]) -> Counter[str]:
    """Count the kinds of event in the log of one world."""
    found: Counter[str] = Counter()
    recovering: set[int] = set()
    ended: set[int] = set()
    for event in log:
        if isinstance(event, Written):
            _count_written(found, event, recovering, ended)
        elif isinstance(event, Died):
            found[f"died {event.where}"] += 1
            found["died during a recovery"] += bool(recovering)
            recovering.clear()
        elif isinstance(event, Commanded):
            found[f"{event.command} {'refused' if event.refusal else 'taken'}"] += 1
        elif isinstance(event, Late):
            found["late effect" if event.is_reported else "late effect nobody told of"] += 1
        elif isinstance(event, Previewed):
            found["preview of several undos"] += len(event.undos) > 1
        elif isinstance(event, (LeaseTaken, Interrupted)):
            found["lease taken" if isinstance(event, LeaseTaken) else "interrupted"] += 1
    return found


def _count_written(found: Counter[str], commit: Written, recovering: set[int], ended: set[int]) -> None:
    execution = commit.execution
    if commit.entries[0]["entry"] == "TakenOver":
        recovering.add(execution)
    if commit.is_release:
        recovering.discard(execution)
    for entry in commit.entries:
        name = entry["entry"]
        found[name] += 1
        if name in _DETAILS:
            found[f"{name} {entry[_DETAILS[name]]}"] += 1
        elif name == "StepParked":
            found.update(f"parked: {cause}" for cause in _PARKED_FOR if cause in entry["cause"])
        elif name == "LateEffectFound" and execution in ended:
            found["late effect after the end"] += 1
        elif name == "CompensationBegun" and execution in ended:
            found["undone after the end"] += 1
        if name == "SagaEnded":
            ended.add(execution)


def missing(found: Counter[str]) -> dict[str, int]:
    """Give the kinds that occurred too rarely in 1 250 seeds, with how often they did."""
    return {kind: found[kind] for kind, floor in FLOORS.items() if found[kind] < floor}


# --- the story ----------------------------------------------------------------------------------------------------


def tell(log: Sequence[Event], scripts: Sequence[Script]) -> list[str]:
    """Write down what was drawn and what happened, a line for each step, event and entry."""
    lines: list[str] = []
    for script in scripts:
        drawn = {name: getattr(script, name) for name in script.__slots__ if name not in ("chain", "leaves")}
        lines += [f"saga {drawn}", *_drawn(script.chain, "  ")]
    for number, event in enumerate(log):
        if isinstance(event, Written):
            lines.append(f"{number} written by execution {event.execution}{', released' if event.is_release else ''}")
            lines += [f"      {_entry(entry)}" for entry in event.entries]
        else:
            lines.append(f"{number} {event}")
    return lines


def _drawn(chain: Sequence[Tree], indent: str) -> Iterator[str]:
    for tree in chain:
        if isinstance(tree, Leaf):
            yield f"{indent}{tree}"
        elif isinstance(tree, Child):
            yield f"{indent}child {tree.path}, deadline_s={tree.deadline_s}"
            yield from _drawn(tree.chain, f"{indent}  ")
        else:
            assert isinstance(tree, Branches), "a tree is a leaf, a child or branches"
            for branch in tree.branches:
                yield f"{indent}branch"
                yield from _drawn(branch, f"{indent}  ")


def _entry(entry: dict[str, Any]) -> str:
    """Write an entry without what only tells drives apart, or is long."""
    hidden = ("entry", "drive", "died", "plan", "policy")
    shown = {key: value for key, value in entry.items() if key not in hidden}
    if "error" in shown:
        shown["error"] = shown["error"] and shown["error"]["message"]
    return f"{entry['entry']} {shown}"
