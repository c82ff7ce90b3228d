"""What a commit writes into an SQLite journal: tasks inside a transaction that others may share."""

from __future__ import annotations

import sqlite3
from typing import Any

from saga_engine.decider import full_id
from saga_engine.journal import (
    ENTRY_VERSION,
    AlreadyStarted,
    AppendResult,
    Commit,
    Committed,
    ExclusiveHeld,
    InboxPending,
    Opening,
    Release,
    SagaStatus,
)
from saga_engine.journals.rows import FIRST_EPOCH, decode_messages, encode_response, lease_lost
from saga_engine.journals.sqlite_queries import Prepared, queries
from saga_engine.journals.sqlite_session import Transaction

__all__ = ["abandon", "append", "leave"]

_OPEN = Prepared(
    "open_execution",
    "saga_id generation saga status at in_flight drive process holds due_at told response awaits",
)
_APPEND_FIRST = Prepared("append_first", "eid seq version body")
_APPEND_PLAIN = Prepared("append_plain", "eid seq version body epoch drive")
_RELEASE = Prepared("release", "eid take status is_ended at exclusive due_at told response awaits frees")


def append(to: Transaction, commit: Commit, body: bytes, process: str) -> AppendResult:
    """Append one commit of a drive of this process; whatever refuses it does so before anything is written.

    Raises:
        LeaseLost: another drive holds the execution.
    """
    if commit.opening is not None:
        return _open(to, commit, commit.opening, body, process)
    try:
        appended = to.execute(*_append_statement(commit, body)).rowcount
    except sqlite3.IntegrityError:
        # The row of that number is there: somebody else wrote it.
        raise lease_lost(commit) from None
    if not appended:
        return _refuse(to, commit)
    for message_id in commit.drained:
        to.execute(queries["delete_message"], {"id": message_id, "eid": commit.eid})
    _touch(to, commit, process)
    assert commit.eid is not None
    return Committed(commit.eid, commit.epoch + commit.take)


def abandon(to: Transaction, eid: int, epoch: int) -> None:
    """Give up one lease without an entry."""
    to.execute(queries["abandon"], {"eid": eid, "epoch": epoch})


def leave(to: Transaction, process: str) -> None:
    """The journal closes: no drive of this process can append any more."""
    to.execute(queries["abandon_all"], {"process": process})
    to.execute(queries["forget_process"], {"process": process})


def _append_statement(commit: Commit, body: bytes) -> tuple[str, Any]:
    if commit.take or commit.drained:
        return queries["append_entries"], _row(commit, body)
    return _APPEND_PLAIN(commit.eid, commit.seq, ENTRY_VERSION, body, commit.epoch, commit.drive)


def _row(commit: Commit, body: bytes) -> dict[str, Any]:
    return {
        "eid": commit.eid,
        "seq": commit.seq,
        "version": ENTRY_VERSION,
        "body": body,
        "epoch": commit.epoch,
        "drive": commit.drive,
        "take": commit.take,
        "drained": "".join(f",{message_id}," for message_id in commit.drained),
        "exclusive": commit.exclusive,
    }


# --- the start -----------------------------------------------------------------------------------------------


def _open(to: Transaction, commit: Commit, opening: Opening, body: bytes, process: str) -> AppendResult:
    refusal = _start_refusal(to, commit, opening)
    if refusal is not None:
        return refusal
    opened = to.execute(*_open_statement(commit, opening, process))
    if not opened.rowcount:
        return AlreadyStarted()
    eid = opened.lastrowid
    assert eid is not None
    to.execute(*_APPEND_FIRST(eid, commit.seq, ENTRY_VERSION, body))
    if commit.release is None:
        to.takes_lease = True
    elif commit.release.awaits is not None:
        _wake_if_free(to, commit, eid)
    return Committed(eid, FIRST_EPOCH)


def _start_refusal(to: Transaction, commit: Commit, opening: Opening) -> AppendResult | None:
    """Refuse a start that needs a right which somebody has; that it is there already counts first."""
    held = _held_by_another(to, commit)
    if held is None:
        return None
    parameters = {"saga_id": opening.saga_id, "generation": opening.generation}
    is_started = to.execute(queries["execution_of_generation"], parameters).fetchone() is not None
    return AlreadyStarted() if is_started else held


def _open_statement(commit: Commit, opening: Opening, process: str) -> tuple[str, tuple[Any, ...]]:
    name = (opening.saga_id, opening.generation, opening.saga, commit.status.value, commit.at)
    release = commit.release
    if release is None:
        return _OPEN(*name, 1, commit.drive, process, commit.exclusive, None, None, None, None)
    is_freed = commit.status.is_ended or release.frees == commit.exclusive
    return _OPEN(*name, 0, None, None, None if is_freed else commit.exclusive, *_told(commit, release))


# --- refusals ------------------------------------------------------------------------------------------------


def _refuse(to: Transaction, commit: Commit) -> AppendResult:
    """Find out why a commit was refused: the fence comes first, then the mail, then the right."""
    if to.execute(queries["is_fence_open"], _row(commit, b"")).fetchone() is None:
        raise lease_lost(commit)
    messages = decode_messages(to.execute(queries["inbox_of_execution"], {"eid": commit.eid}))
    held = None if any(each.id not in commit.drained for each in messages) else _held_by_another(to, commit)
    return held or InboxPending(messages)


def _held_by_another(to: Transaction, commit: Commit) -> ExclusiveHeld | None:
    if commit.exclusive is None:
        return None
    holder = to.execute(queries["holder_of_right"], {"exclusive": commit.exclusive}).fetchone()
    return None if holder is None or holder[0] == commit.eid else ExclusiveHeld(full_id(holder[1], holder[2]))


# --- the header ----------------------------------------------------------------------------------------------


def _touch(to: Transaction, commit: Commit, process: str) -> None:
    """Change the header where the commit says so; a plain one leaves it alone."""
    if commit.take:
        to.execute(queries["clear_stuck"], {"eid": commit.eid})
    if commit.release is not None:
        _release(to, commit, commit.release)
    elif commit.take:
        to.takes_lease = True
        to.execute(
            queries["take"],
            {
                "eid": commit.eid,
                "drive": commit.drive,
                "process": process,
                "status": commit.status.value,
                "at": commit.at,
                "exclusive": commit.exclusive,
            },
        )
    elif commit.status is SagaStatus.COMPENSATING:
        to.execute(queries["turn_back"], {"eid": commit.eid, "status": commit.status.value, "at": commit.at})


def _release(to: Transaction, commit: Commit, release: Release) -> None:
    status, is_ended = commit.status.value, commit.status.is_ended
    fixed = (commit.eid, commit.take, status, is_ended, commit.at, commit.exclusive)
    to.execute(*_RELEASE(*fixed, *_told(commit, release), release.frees))
    if release.frees is not None:
        to.execute(queries["wake_first"], {"at": commit.at, "frees": release.frees})
    if release.awaits is not None:
        _wake_if_free(to, commit, commit.eid)


def _told(commit: Commit, release: Release) -> tuple[float | None, bytes | None, bytes | None, str | None]:
    """Give what a release leaves in the header; who ended waits for nothing."""
    awaits = None if commit.status.is_ended else release.awaits
    return release.due_at, encode_response(release.told), encode_response(release.response), awaits


def _wake_if_free(to: Transaction, commit: Commit, eid: int | None) -> None:
    assert commit.release is not None
    if not commit.status.is_ended:
        to.execute(queries["wake_if_free"], {"eid": eid, "at": commit.at, "awaits": commit.release.awaits})
