"""What every journal does alike: the check of a commit and its parts as bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from saga_engine.errors import CorruptJournal, JournalError, LeaseLost, UnknownExecution
from saga_engine.journal import (
    Commit,
    Entry,
    InboxMessage,
    Loaded,
    Response,
    decode_entries,
    encode_entries,
)

__all__ = [
    "FIRST_EPOCH",
    "check_commit",
    "decode_messages",
    "decode_response",
    "decode_rows",
    "encode_message",
    "encode_response",
    "lease_lost",
    "unknown",
]

#: The epoch of a new execution, held by the drive that started it.
FIRST_EPOCH = 1

_response_decoder = msgspec.json.Decoder(Response)
_response_encoder = msgspec.json.Encoder()


def check_commit(commit: Commit) -> None:
    """Refuse a commit that no journal could keep its promises with.

    Raises:
        JournalError: it starts an execution but is not its first row, or the reverse, or it is empty; or it takes
            an exclusive right without beginning a drive.
    """
    if not commit.entries:
        raise JournalError("a commit without entries says nothing: append at least one")
    if (commit.eid is None) != (commit.opening is not None):
        raise JournalError("a commit starts an execution (opening) or belongs to one (eid): give one of them")
    if commit.opening is not None and (commit.seq != 1 or commit.drained):
        raise JournalError("the first commit of an execution has seq 1 and drains nothing")
    if commit.exclusive is not None and not commit.take and commit.opening is None:
        raise JournalError("an exclusive right is taken with the start (opening) or with the lease (take)")


def encode_response(response: Response | None) -> bytes | None:
    """Give a response as JSON."""
    return None if response is None else _response_encoder.encode(response)


def decode_response(body: bytes | None) -> Response | None:
    """Read a response back."""
    if body is None:
        return None
    try:
        return _response_decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CorruptJournal(f"a response cannot be read ({error}): restore the journal from a backup") from error


def encode_message(entry: Entry) -> bytes:
    """Give one inbox message as JSON."""
    return encode_entries((entry,))


def decode_messages(rows: Iterable[tuple[int, int, bytes]]) -> tuple[InboxMessage, ...]:
    """Read inbox messages from rows of (id, version, body)."""
    return tuple(InboxMessage(number, decode_entries(body, version)[0]) for number, version, body in rows)


def decode_rows(rows: Sequence[tuple[int, int, bytes]], inbox: Iterable[tuple[int, int, bytes]]) -> Loaded:
    """Read an execution from rows of (seq, version, body), and its inbox.

    Raises:
        CorruptJournal: a row is missing or cannot be read.
    """
    if [row[0] for row in rows] != list(range(1, len(rows) + 1)):
        raise CorruptJournal("rows of an execution are missing: restore the journal from a backup")
    entries = tuple(entry for _, version, body in rows for entry in decode_entries(body, version))
    return Loaded(entries=entries, seq=len(rows), inbox=decode_messages(inbox))


def lease_lost(commit: Commit) -> LeaseLost:
    """Say that the commit came from a drive that does not hold the execution."""
    return LeaseLost(
        f"drive {commit.drive} does not hold execution {commit.eid} at epoch {commit.epoch} any more: "
        f"another drive took it over"
    )


def unknown(eid: int, url: str, *, is_purged: bool = False) -> UnknownExecution:
    """Say that there is no execution of that number, or that only its header is left."""
    if is_purged:
        return UnknownExecution(f"execution {eid} was purged from {url}: only how it ended is left of it")
    return UnknownExecution(f"no execution has the number {eid} in {url}")
