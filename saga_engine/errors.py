"""The engine's errors. All descend from `SagaError`, save two that user code must not swallow.

SagaError                           (transactions.errors)
├── ... the errors of one transaction, see transactions.errors
├── ... those of Connect's requests and calls, see saga_engine.connect.request_errors and .api_errors
├── BadRequest                      what was delivered cannot be the request of a saga
├── BadDefinition                   the saga itself cannot be used
├── BadSetting                      a variable of the environment or of the extension has a value that cannot be meant
├── UnknownSaga                     no saga of that name can be found
├── UnknownExecution                no execution of that id is journaled
├── NotAllowed                      an operation does not fit the execution's present state
├── NoContext                       current_context() outside a step
├── LimitReached                    a limit with a name was reached
├── BadExport                       a document is no exported execution
├── JournalError
│   ├── BadJournalURL               nobody can open that URL
│   ├── ForeignJournal              the file is something else's
│   ├── CorruptJournal              the file, or an entry in it, cannot be read
│   ├── NewerJournal                a later release wrote it
│   ├── UnsafeFileSystem            write-ahead logging is not safe there
│   └── JournalUnavailable          it cannot be read or written now (disk full, read-only, locked)
└── StepFailure                     (transactions.errors): what `compensate` gets as `e`
    ├── StepInterrupted             the process died, or the handler was cancelled, in the middle of the step
    ├── StepTimedOut                an attempt took longer than the step's timeout_s
    ├── SignalTimedOut              the signal that a WaitFor waited for did not come
    ├── BranchConflict              branches of one group changed one thing differently
    ├── DeadlineExceeded            the saga's deadline passed
    ├── SagaCancelled               somebody cancelled the saga
    └── UndoRequested               a completed execution is to be undone

BaseException
└── EngineSignal
    ├── LeaseLost                   another drive holds the execution now
    └── AttemptAbandoned            this attempt timed out and was given up
"""

from __future__ import annotations

from transactions.errors import (
    InvalidResponse,
    InvalidTransaction,
    NotJSON,
    RecordedError,
    SagaError,
    StepFailure,
    StepRefused,
    TransactionException,
    TransactionNotSelected,
)

__all__ = [
    "AttemptAbandoned",
    "BadDefinition",
    "BadExport",
    "BadJournalURL",
    "BadRequest",
    "BadSetting",
    "BranchConflict",
    "CorruptJournal",
    "DeadlineExceeded",
    "EngineSignal",
    "ForeignJournal",
    "InvalidResponse",
    "InvalidTransaction",
    "JournalError",
    "JournalUnavailable",
    "LeaseLost",
    "LimitReached",
    "NewerJournal",
    "NoContext",
    "NotAllowed",
    "NotJSON",
    "RecordedError",
    "SagaCancelled",
    "SagaError",
    "SignalTimedOut",
    "StepFailure",
    "StepInterrupted",
    "StepRefused",
    "StepTimedOut",
    "TransactionException",
    "TransactionNotSelected",
    "UndoRequested",
    "UnknownExecution",
    "UnknownSaga",
    "UnsafeFileSystem",
]


class BadRequest(SagaError):
    """What was delivered cannot be the request of a saga."""


class BadDefinition(SagaError):
    """The saga's definition cannot be used."""


class BadSetting(SagaError):
    """A variable of the environment or of the extension has a value that cannot be meant."""


class UnknownSaga(SagaError):
    """No saga of that name can be found: import it, or give it to Engine(sagas=[...])."""


class UnknownExecution(SagaError):
    """No execution of that id is journaled here."""


class NotAllowed(SagaError):
    """The operation does not fit the execution's present state."""


class NoContext(SagaError):
    """There is no current saga context here: in a test, use saga_engine.testing.fake_context()."""


class LimitReached(SagaError):
    """A limit was reached."""


class BadExport(SagaError):
    """The document is no exported execution."""


class JournalError(SagaError):
    """The journal cannot be used."""


class BadJournalURL(JournalError):
    """The journal URL cannot be opened: use memory://, or sqlite:///path/to/file.db."""


class ForeignJournal(JournalError):
    """The file is not a journal of saga-engine."""


class CorruptJournal(JournalError):
    """The journal, or an entry in it, cannot be read."""


class NewerJournal(JournalError):
    """A later release of saga-engine wrote this journal: upgrade this installation."""


class UnsafeFileSystem(JournalError):
    """Write-ahead logging is not safe on this file system: put the journal on a local disk."""


class JournalUnavailable(JournalError):
    """The journal cannot be read or written now."""


class StepInterrupted(StepFailure):
    """The step was interrupted, and nothing tells whether it took effect."""


class DeadlineExceeded(StepFailure):
    """The saga's deadline passed."""


class SagaCancelled(StepFailure):
    """The saga was cancelled."""


class StepTimedOut(StepFailure):
    """An attempt of the step took longer than its timeout_s, and nothing tells whether it took effect."""


class SignalTimedOut(StepFailure):
    """The signal did not come in time."""


class BranchConflict(StepFailure):
    """Branches of one parallel group changed the same thing differently."""


class UndoRequested(StepFailure):
    """The execution had completed, and is undone because somebody asked for that."""


class EngineSignal(BaseException):
    """Control flow of the engine: derives from BaseException so that no step's `except Exception` swallows it."""


class LeaseLost(EngineSignal):
    """Another drive holds the execution now; this one may not append to it any more."""


class AttemptAbandoned(EngineSignal):
    """This attempt timed out and was given up: what it does now is not journaled any more."""
