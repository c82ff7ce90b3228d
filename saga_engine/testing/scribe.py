"""A scribe: writes one execution into a journal, as the tests of journals need it."""

from __future__ import annotations

from msgspec import Raw
from msgspec.structs import replace

from saga_engine.journal import (
    AppendResult,
    Commit,
    Committed,
    Journal,
    Opening,
    Plan,
    PlanStep,
    Policy,
    Release,
    SagaStarted,
    SagaStatus,
    StepStarted,
)

__all__ = ["Scribe"]


class Scribe:
    """Write one execution the way a drive does: know the epoch and the next number of a row.

    Args:
        journal: where to write.
        saga_id: the execution's name.
        drive: who writes.
        saga: the saga's name.
    """

    def __init__(self, journal: Journal, saga_id: str = "s-1", drive: str = "d-1", saga: str = "Saga") -> None:
        self.journal = journal
        self.saga_id = saga_id
        self.drive = drive
        self.saga = saga
        self.eid = 0
        self.epoch = 0
        self.seq = 0

    def opening(self, *, generation: int = 1, at: float = 1.0, release: Release | None = None) -> Commit:
        """Give the commit that starts the execution."""
        started = SagaStarted(
            at=at,
            saga=self.saga,
            saga_path=f"shop:{self.saga}",
            saga_id=self.saga_id,
            generation=generation,
            drive=self.drive,
            plan=Plan(steps=(PlanStep("pay"),)),
            policy=Policy(),
            request=Raw(b'{"id":"R-1"}'),
        )
        return Commit(
            eid=None,
            seq=1,
            entries=(started,),
            drive=self.drive,
            epoch=0,
            status=SagaStatus.RUNNING,
            at=at,
            take=True,
            opening=Opening(self.saga_id, generation, self.saga),
            release=release,
        )

    def next(self, *, at: float = 2.0, status: SagaStatus = SagaStatus.RUNNING) -> Commit:
        """Give the next commit, plain; see `msgspec.structs.replace` for others."""
        entry = StepStarted(at=at, step="pay", attempt=self.seq)
        return Commit(self.eid, self.seq + 1, (entry,), self.drive, self.epoch, status, at)

    def write(self, commit: Commit) -> AppendResult:
        """Append the commit, and follow it if it was accepted."""
        result = self.journal.append(commit)
        if isinstance(result, Committed):
            self.eid, self.epoch, self.seq = result.eid, result.epoch, commit.seq
        return result

    def start(self, *, generation: int = 1, exclusive: str | None = None) -> Scribe:
        """Start the execution; with `exclusive`, take that right."""
        commit = replace(self.opening(generation=generation), exclusive=exclusive)
        assert isinstance(self.write(commit), Committed)
        return self

    def step(self, *, at: float = 2.0) -> Scribe:
        """Append a plain commit."""
        assert isinstance(self.write(self.next(at=at)), Committed)
        return self

    def release(
        self,
        status: SagaStatus = SagaStatus.SUSPENDED,
        *,
        due_at: float | None = None,
        at: float = 3.0,
        awaits: str | None = None,
        frees: str | None = None,
    ) -> Scribe:
        """Append a commit that gives the lease back."""
        commit = replace(self.next(at=at, status=status), release=Release(due_at=due_at, awaits=awaits, frees=frees))
        assert isinstance(self.write(commit), Committed)
        return self

    def taking(self, drive: str) -> Scribe:
        """Give another drive, which knows what this one knows and is about to take the lease."""
        other = Scribe(self.journal, self.saga_id, drive, self.saga)
        other.eid, other.epoch, other.seq = self.eid, self.epoch, self.seq
        return other

    def take(self, *, exclusive: str | None = None, status: SagaStatus = SagaStatus.RUNNING) -> Scribe:
        """Take the lease; with `exclusive`, that right, too."""
        commit = replace(self.next(status=status), take=True, exclusive=exclusive)
        assert isinstance(self.write(commit), Committed)
        return self
