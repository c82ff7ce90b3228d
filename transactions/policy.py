"""What a transaction declares or answers besides a response: its kind, its retries, its probe, its waits."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from connect.eaas.core.responses import BackgroundResponse
from tenacity import RetryCallState, retry_if_exception_type, stop_never, wait_none
from tenacity.retry import retry_base
from tenacity.stop import stop_base
from tenacity.wait import wait_base

from transactions.errors import InvalidResponse, InvalidTransaction

__all__ = ["Kind", "Probe", "RetryPolicy", "Suspend"]

StopStrategy = stop_base | Callable[[RetryCallState], bool]
WaitStrategy = wait_base | Callable[[RetryCallState], float | int]
RetryStrategy = retry_base | Callable[[RetryCallState], bool]


class Kind(str, Enum):
    """The kinds of step (Richardson, *Microservices Patterns*, ch. 4)."""

    COMPENSATABLE = "compensatable"  #: can be undone by its own business action
    PIVOT = "pivot"  #: the point of no return
    RETRIABLE = "retriable"  #: must succeed in the end; retried until it does
    READ_ONLY = "read_only"  #: has no effect, so there is nothing to undo


class Probe(str, Enum):
    """What `BackgroundTransaction.probe` found out about an attempt whose outcome is unknown."""

    DONE = "done"  #: the effect is there: the step is completed
    NOT_DONE = "not_done"  #: no effect was left: nothing to undo
    UNKNOWN = "unknown"  #: it cannot be told


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how fast a step (or its undo) is attempted again, by tenacity strategies.

    The strategies are evaluated once per failed attempt, against a `tenacity.RetryCallState` rebuilt from the
    journal; the resulting time is journaled, so a retry survives a crash. As in tenacity, a policy without
    `stop` never gives up, and `retry` also accepts any callable of a `RetryCallState`.

    Args:
        stop: when to give up (default: never).
        wait: seconds to wait before the next attempt (default: none).
        retry: which failures are worth another attempt (default: every `Exception`).

    Raises:
        InvalidTransaction: one of them is no strategy.
    """

    stop: StopStrategy = stop_never
    wait: WaitStrategy = wait_none()
    retry: RetryStrategy = retry_if_exception_type(Exception)

    def __post_init__(self) -> None:
        for field in ("stop", "wait", "retry"):
            strategy = getattr(self, field)
            # A class is callable too (`stop=stop_after_attempt` without its number), and so is a coroutine
            # function: what they return is always true, so they would answer without having been asked.
            if not callable(strategy) or inspect.isclass(strategy) or _is_coroutine_callable(strategy):
                raise InvalidTransaction(
                    f"RetryPolicy({field}={strategy!r}): give a tenacity strategy or a plain function of a "
                    f"RetryCallState, for example {field}={_EXAMPLES[field]}"
                )


_EXAMPLES = {
    "stop": "stop_after_attempt(5)",
    "wait": "wait_exponential_jitter(1, 60)",
    "retry": "retry_if_exception_type(ConnectionError)",
}


class Suspend:
    """Returned by `execute`: answer with `response` now, and wait for the next delivery or for a signal.

    When the wait is over the same step runs again.

    Args:
        response: what the caller of `resolve` gets now, such as `BackgroundResponse.done()` after an inquiry.
        signal: the name of a signal that also ends the wait; its payload is then in `context.state[signal]`.
        timeout_s: seconds after which the step runs again even if nothing came; None: no limit of its own, so
            until the saga's deadline.

    Raises:
        InvalidResponse: an argument is not of that type, or `timeout_s` is not above 0.
    """

    __slots__ = ("response", "signal", "timeout_s")

    def __init__(self, response: BackgroundResponse, signal: str | None = None, timeout_s: float | None = None) -> None:
        if not isinstance(response, BackgroundResponse):
            raise InvalidResponse(
                f"Suspend({response!r}): give the BackgroundResponse to answer with, "
                "for example Suspend(BackgroundResponse.done())"
            )
        if signal is not None and not (isinstance(signal, str) and signal):
            raise InvalidResponse(f"Suspend(signal={signal!r}): give the signal's name, a non-empty str")
        if timeout_s is not None and not _is_positive(timeout_s):
            raise InvalidResponse(f"Suspend(timeout_s={timeout_s!r}): give a number of seconds above 0")
        self.response = response
        self.signal = signal
        self.timeout_s = timeout_s

    def __repr__(self) -> str:
        return f"Suspend(status={self.response.status!r}, signal={self.signal!r}, timeout_s={self.timeout_s!r})"


def _is_coroutine_callable(strategy: Any) -> bool:
    return inspect.iscoroutinefunction(strategy) or inspect.iscoroutinefunction(type(strategy).__call__)


def _is_positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < float("inf")
