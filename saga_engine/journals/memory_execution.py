"""One execution of the journal in memory: its header and its rows, as a database would hold them."""

from __future__ import annotations

from saga_engine.decider import full_id
from saga_engine.journal import ENTRY_VERSION, Commit, Header, InboxPending, Opening, SagaStatus
from saga_engine.journals.process import ProcessIdentity
from saga_engine.journals.rows import FIRST_EPOCH, decode_messages, decode_response, encode_response, lease_lost

__all__ = ["Execution", "Row"]

#: The number of a row or of a message, the version of its entries, and these as bytes.
Row = tuple[int, int, bytes]


class Execution:
    """The fields of a header, the rows and the inbox.

    Attributes:
        holds, awaits: the exclusive right that it has; the one that it waits for.
        is_purged: the rows are gone for good.
    """

    def __init__(self, eid: int, opening: Opening, at: float) -> None:
        self.eid = eid
        self.opening = opening
        self.epoch = FIRST_EPOCH
        self.status = SagaStatus.RUNNING
        self.is_in_flight = True
        self.drive: str | None = None
        self.due_at: float | None = None
        self.told: bytes | None = None
        self.response: bytes | None = None
        self.created_at = at
        self.updated_at = at
        self.stuck: str | None = None
        self.stuck_at = 0.0
        self.holds: str | None = None
        self.awaits: str | None = None
        self.is_purged = False
        self.rows: list[Row] = []
        self.inbox: list[Row] = []

    @property
    def full_id(self) -> str:
        """The id with the generation."""
        return full_id(self.opening.saga_id, self.opening.generation)

    def refusal(self, commit: Commit) -> InboxPending | None:
        """Check the fence and the inbox.

        Raises:
            LeaseLost: another drive holds the execution, or nothing is left of it to drive.
        """
        holds = self.epoch == commit.epoch and (commit.take or self.drive == commit.drive)
        if not holds or self.is_purged or commit.seq != len(self.rows) + 1:
            raise lease_lost(commit)
        if any(message[0] not in commit.drained for message in self.inbox):
            return InboxPending(decode_messages(self.inbox))
        return None

    def is_stuck_since(self, at: float | None) -> bool:
        """Tell whether somebody noted at that time or later that nobody can drive it; None: never."""
        return at is not None and self.stuck is not None and self.stuck_at >= at

    def accept(self, commit: Commit, body: bytes) -> None:
        """Take the commit in; nothing here can fail."""
        self.rows.append((commit.seq, ENTRY_VERSION, body))
        if commit.drained:
            self.inbox = [message for message in self.inbox if message[0] not in commit.drained]
        if commit.take and commit.opening is None:
            self.epoch += 1
            self.stuck = None
        if commit.exclusive is not None:
            self.holds = commit.exclusive
        if commit.release is not None:
            self._release(commit)
        elif commit.take or commit.opening is not None:
            self._hold(commit)
        elif commit.status is SagaStatus.COMPENSATING and self.status is not commit.status:
            self.status, self.updated_at = commit.status, commit.at

    def purge(self) -> None:
        """Keep the header alone."""
        self.is_purged = True
        self.told = self.stuck = None
        self.rows = []

    def _hold(self, commit: Commit) -> None:
        self.is_in_flight = True
        self.drive = commit.drive
        self.due_at = self.told = self.awaits = None
        self.status, self.updated_at = commit.status, commit.at

    def _release(self, commit: Commit) -> None:
        assert commit.release is not None
        self.is_in_flight = False
        self.drive = None
        self.due_at = commit.release.due_at
        self.told = encode_response(commit.release.told)
        self.response = encode_response(commit.release.response)
        self.status, self.updated_at = commit.status, commit.at
        self.awaits = None if commit.status.is_ended else commit.release.awaits
        if commit.status.is_ended or commit.release.frees == self.holds:
            self.holds = None

    def header(self, process: ProcessIdentity) -> Header:
        """Give the header as a caller sees it."""
        is_held = self.drive is not None
        return Header(
            eid=self.eid,
            saga_id=self.opening.saga_id,
            generation=self.opening.generation,
            saga=self.opening.saga,
            status=self.status,
            epoch=self.epoch,
            created_at=self.created_at,
            updated_at=self.updated_at,
            drive=self.drive,
            process=process.id if is_held else None,
            held_by=f"{process.host}:{process.pid}" if is_held else None,
            due_at=self.due_at,
            told=decode_response(self.told),
            response=decode_response(self.response),
            stuck=self.stuck,
            is_purged=self.is_purged,
        )
