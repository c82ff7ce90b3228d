"""The base of every error of the product, and the errors of one transaction.

    SagaError
    ├── TransactionException            a list of transactions or one of its entries is wrong
    │   ├── InvalidTransaction          an entry is nothing that can be run as a transaction
    │   └── TransactionNotSelected      no transaction applies to the request
    ├── InvalidResponse                 a step answered with something that is no response
    ├── InvalidRetry                    a `@retry`, or the `_retry_config` it reads, cannot be used
    ├── NotJSON                         a value that must be journaled is not JSON
    └── StepFailure                     the `e` of `compensate` when it is not the step's own exception
        ├── StepRefused                 the step answered `fail(...)`
        └── RecordedError               the journaled error of another process, whose class cannot be imported

The engine's own errors (journal, lease, request, ...) live in `saga_engine.errors` and have the same base.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "InvalidResponse",
    "InvalidRetry",
    "InvalidTransaction",
    "NotJSON",
    "RecordedError",
    "SagaError",
    "StepFailure",
    "StepRefused",
    "TransactionException",
    "TransactionNotSelected",
]


class SagaError(Exception):
    """Something went wrong in a saga or in the engine that runs it."""

    def __init__(self, *args: Any) -> None:
        """Take the message; without one, the first line of the class docstring is the message."""
        super().__init__(*(args or ((type(self).__doc__ or "").partition("\n")[0],)))


class TransactionException(SagaError):
    """A list of transactions, or one of its entries, cannot be used."""

    @staticmethod
    def invalid(message: str) -> InvalidTransaction:
        """Build the error for an entry that is no transaction."""
        return InvalidTransaction(message)

    @staticmethod
    def not_selected(message: str) -> TransactionNotSelected:
        """Build the error for a request that no transaction applies to."""
        return TransactionNotSelected(message)


class InvalidTransaction(TransactionException):
    """An entry is neither a transaction nor something that can be made into one."""


class TransactionNotSelected(TransactionException):
    """No transaction applies to this request."""


class InvalidResponse(SagaError):
    """A step must return a BackgroundResponse, or Suspend from execute."""


class NotJSON(SagaError):
    """A value that must be journaled is not JSON."""


class InvalidRetry(SagaError):
    """A @retry, or the _retry_config of the object whose method it decorates, cannot be used."""


class StepFailure(SagaError):
    """A step failed."""


class StepRefused(StepFailure):
    """The step answered fail(...): it says that it left no effect.

    Attributes:
        output: the text given to `BackgroundResponse.fail`, or None.
    """

    def __init__(self, output: str | None = None) -> None:
        super().__init__(output if output is not None else "the step answered fail() without a reason")
        self.output = output


class RecordedError(StepFailure):
    """An error read back from the journal whose class cannot be imported here.

    Attributes:
        type_name: the original class as `module.QualifiedName`.
        traceback_text: the original traceback as text; empty if none was kept.
    """

    def __init__(self, message: str, type_name: str = "", traceback_text: str = "") -> None:
        super().__init__(message)
        self.type_name = type_name
        self.traceback_text = traceback_text
