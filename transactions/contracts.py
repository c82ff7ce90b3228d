"""What one local transaction is: the classes that a connector's author derives from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from connect.eaas.core.responses import BackgroundResponse, InteractiveResponse, ScheduledExecutionResponse

from transactions.errors import SagaError
from transactions.policy import Kind, Probe, RetryPolicy, Suspend

__all__ = [
    "AnsweringTransaction",
    "BackgroundTransaction",
    "FnBackgroundCompensation",
    "FnBackgroundExecution",
    "FnBackgroundPredicate",
    "InteractiveTransaction",
    "ScheduledTransaction",
    "TBackgroundResponse",
    "ValidationTransaction",
    "overrides",
]

#: What `execute` may return: Connect's response, or `Suspend` to wait.
TBackgroundResponse: TypeAlias = BackgroundResponse | Suspend
FnBackgroundPredicate: TypeAlias = Callable[[dict[str, Any]], bool | Awaitable[bool]]
FnBackgroundExecution: TypeAlias = Callable[[dict[str, Any]], TBackgroundResponse | Awaitable[TBackgroundResponse]]
FnBackgroundCompensation: TypeAlias = Callable[
    [dict[str, Any], Exception], TBackgroundResponse | Awaitable[TBackgroundResponse]
]


class BackgroundTransaction(ABC):
    """One local transaction with its undo.

    Subclasses write `execute`, nearly always `compensate`, and a constructor that names the services it wants
    (`client`, `logger`, `config`, `context`, or any type or name that the saga provides). Every method may be
    `async def`.

    Class attributes:
        kind: what may happen after it; see `Kind`. A step without any effect says `Kind.READ_ONLY`.
        retry: how failed attempts are repeated; None means one attempt (a retriable step: until it succeeds).
        compensation_retry: how failed undos are repeated; None means the saga's `compensation_retry`.
        on_unknown: what to do with an interrupted attempt whose outcome no probe can tell: "rerun" (default,
            with the same idempotency key), "compensate" or "park".
        is_idempotent: running `execute` again with the same idempotency key has no second effect. It tells a person's
            commands (`resume`, `skip`) that another attempt is safe where no `probe` can tell.
        timeout_s: an attempt that takes longer is given up with an unknown outcome; None: no limit of its own.
        abandon_s: how long, after `timeout_s`, a plain `execute` that does not return is waited for before anything
            else is done with the step.
    """

    kind: Kind = Kind.COMPENSATABLE
    retry: RetryPolicy | None = None
    compensation_retry: RetryPolicy | None = None
    on_unknown: str = "rerun"
    is_idempotent: bool = False
    timeout_s: float | None = None
    abandon_s: float = 60.0

    def name(self) -> str:
        """Give the name of the step, unique within its saga and stable across releases."""
        return type(self).__name__

    def should_execute(self, request: dict[str, Any]) -> Any:
        """Tell whether the step applies to this request; asked once, before the step first starts."""
        return True

    @abstractmethod
    def execute(self, request: dict[str, Any]) -> Any:
        """Do the work and return a `BackgroundResponse`, or `Suspend` to wait.

        `done()` goes to the next step, `reschedule(...)` runs this step again later, `fail(reason)` says that
        no effect was left and undoes the earlier steps, `skip(...)` ends the saga. An exception means that
        the outcome is unknown.
        """

    def compensate(self, request: dict[str, Any], e: Exception) -> Any:
        """Undo what `execute` did; return `done()` when undone.

        Args:
            request: the request, as the step last saw it.
            e: why the saga is being compensated. Raising this same object says "there is no undo".
        """
        raise e

    def probe(self, request: dict[str, Any]) -> Any:
        """Find out whether an attempt with an unknown outcome took effect; return a `Probe`."""
        return Probe.UNKNOWN


class AnsweringTransaction(ABC):
    """A transaction that answers at once: it is selected and prepared, and never a step of a saga."""

    def name(self) -> str:
        """Give the name of the transaction; by default, its class name."""
        return type(self).__name__

    def should_execute(self, request: dict[str, Any]) -> bool:
        """Tell whether the transaction applies to this request."""
        return True

    @abstractmethod
    def execute(self, request: dict[str, Any]) -> Any:
        """Do the work and return the answer."""

    def compensate(self, request: dict[str, Any], e: Exception) -> Any:
        """Answer for an `execute` that raised `e`; by default, raise it on."""
        raise e


class InteractiveTransaction(AnsweringTransaction):
    """A transaction behind an interactive event: someone waits for its `InteractiveResponse`."""

    @abstractmethod
    def execute(self, request: dict[str, Any]) -> InteractiveResponse:
        """Do the work and return the response to show."""

    def compensate(self, request: dict[str, Any], e: Exception) -> InteractiveResponse:
        """Answer for an `execute` that raised `e`; by default, raise it on."""
        raise e


class ValidationTransaction(InteractiveTransaction):
    """A transaction behind a validation event: its response holds the validated, perhaps changed request."""


class ScheduledTransaction(AnsweringTransaction):
    """A transaction behind a schedule."""

    @abstractmethod
    def execute(self, request: dict[str, Any]) -> ScheduledExecutionResponse:
        """Do the work and return a `ScheduledExecutionResponse`."""

    def compensate(self, request: dict[str, Any], e: Exception) -> ScheduledExecutionResponse:
        """Answer for an `execute` that raised `e`; by default, raise it on."""
        raise e


def overrides(transaction: BackgroundTransaction, method: str) -> bool:
    """Tell whether the transaction has its own `method` instead of the contract's default.

    Raises:
        SagaError: the contract has no such method.
    """
    default = getattr(BackgroundTransaction, method, None)
    if default is None:
        raise SagaError(f"BackgroundTransaction has no method {method!r}")
    own = getattr(type(transaction), method, None)
    return own is not default or method in getattr(transaction, "__dict__", ())
