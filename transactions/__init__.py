"""What one step of a saga is. Imports nothing else of this project."""

from transactions.adapters import (
    TransactionSelector,
    TupleBackgroundTransaction,
    prepare,
    select,
    transaction,
)
from transactions.contracts import (
    BackgroundTransaction,
    FnBackgroundCompensation,
    FnBackgroundExecution,
    FnBackgroundPredicate,
    InteractiveTransaction,
    ScheduledTransaction,
    TBackgroundResponse,
    ValidationTransaction,
)
from transactions.errors import (
    InvalidResponse,
    InvalidRetry,
    InvalidTransaction,
    NotJSON,
    RecordedError,
    SagaError,
    StepFailure,
    StepRefused,
    TransactionException,
    TransactionNotSelected,
)
from transactions.policy import Kind, Probe, RetryPolicy, Suspend
from transactions.retry import RetryConfig, retry

__all__ = [
    "BackgroundTransaction",
    "FnBackgroundCompensation",
    "FnBackgroundExecution",
    "FnBackgroundPredicate",
    "InteractiveTransaction",
    "InvalidResponse",
    "InvalidRetry",
    "InvalidTransaction",
    "Kind",
    "NotJSON",
    "Probe",
    "RecordedError",
    "RetryConfig",
    "RetryPolicy",
    "SagaError",
    "ScheduledTransaction",
    "StepFailure",
    "StepRefused",
    "Suspend",
    "TBackgroundResponse",
    "TransactionException",
    "TransactionNotSelected",
    "TransactionSelector",
    "TupleBackgroundTransaction",
    "ValidationTransaction",
    "prepare",
    "retry",
    "select",
    "transaction",
]
