"""Why Connect did not do what it was asked to: what may be tried again, when, and what may not.

SagaError                   (transactions.errors)
├── WrongClient             a plain function was given an async client, or the reverse
└── ConnectError            a call failed; also a connect.client.ClientError
    ├── ConnectUnavailable  it may be tried again: no answer, one that cannot be read, 401, 408, 429, or from 500 on
    └── RefusedByConnect    it is no use to try it again: Connect says no (400, 403, 404, ...)
"""

from __future__ import annotations

import math
import time
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from json import JSONDecodeError
from typing import Any

import requests
from connect.client import ClientError
from tenacity import (
    RetryCallState,
    retry_if_exception,
    stop_after_attempt,
    wait_exponential_jitter,
)
from tenacity.wait import wait_base

from saga_engine.errors import SagaError
from transactions import RetryPolicy
from transactions.retry import is_transient

__all__ = [
    "CONNECT_RETRY",
    "ConnectError",
    "ConnectUnavailable",
    "RefusedByConnect",
    "WrongClient",
    "connect_error",
    "may_be_tried_again",
    "retry_after_s",
    "wait_as_connect_says",
]

#: No longer wait is taken from a Retry-After: a day, in seconds.
RETRY_AFTER_S_MAX = 86_400.0
#: About a day, with the waits below. Attempts and not time, because a step may have waited for days before it failed.
_ATTEMPTS_MAX = 300
_WAIT_S_MAX = 300.0
#: A key that is refused (401) is that of the extension and not of the order, which must not be undone for it.
_TEMPORARY = (401, 408, 425, 429)
_REFUSALS_FROM, _SERVER_ERRORS_FROM = 400, 500
_ERROR_CHARS_MAX = 2_000


class WrongClient(SagaError):
    """A function was given the other kind of client."""


class ConnectError(SagaError, ClientError):  # type: ignore[misc]  # connect ships no types
    """A call of the Connect API failed.

    Attributes:
        status_code: the HTTP status; None if no answer came.
        error_code: Connect's own code, such as "REQ_003"; None if it gave none.
        errors: Connect's list of texts; empty if it gave none.
        retry_after_s: seconds after which Connect wants to be asked again; None if it did not say.
    """

    def __init__(
        self,
        message: str,
        *,
        status_code: int | None = None,
        error_code: str | None = None,
        errors: list[str] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)  # ClientError's own sets its attributes, so ours come after
        self.status_code = status_code
        self.error_code = error_code
        self.errors = errors or []
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return str(self.message)


class ConnectUnavailable(ConnectError):
    """Connect could not be reached, or could not answer: it may be tried again. Whether it did the work is unknown."""


class RefusedByConnect(ConnectError):
    """Connect refused: it is no use to try the same again."""


#: What the decoder of an answer raises, which the async client lets through.
_UNREADABLE = (JSONDecodeError, UnicodeDecodeError, RecursionError)


def connect_error(error: Exception, call: str) -> ConnectError | None:
    """Sort what a client of Connect raised.

    Args:
        error: the error.
        call: what was called, for the text: "approve PR-1".

    Returns:
        A `ConnectUnavailable` or a `RefusedByConnect`; None: this has nothing to do with Connect's answer.
    """
    if not isinstance(error, ClientError):
        return _error_of_unreadable(error, call)
    kind = ConnectUnavailable if _is_temporary(error) else RefusedByConnect
    return kind(
        f"{call}: {_told(error)}",
        status_code=error.status_code,
        error_code=error.error_code,
        errors=[str(one) for one in _as_list(error.errors)],
        retry_after_s=retry_after_s(error),
    )


def _error_of_unreadable(error: Exception, call: str) -> ConnectError | None:
    """Sort what a client raised that could not read the body of an answer."""
    status = _status_behind(error)
    if status is None and not isinstance(error, _UNREADABLE):
        return None
    kind = ConnectUnavailable if status is None or _is_temporary_status(status) else RefusedByConnect
    phrase = "" if status is None else f"{_phrase(status)}, and "
    text = f"{call}: Connect answered {phrase}what cannot be read: {error}"[:_ERROR_CHARS_MAX]
    return kind(text, status_code=status, retry_after_s=retry_after_s(error))


def _status_behind(error: BaseException) -> int | None:
    """Give the status of an answer over whose body the client itself stumbled: it takes any JSON for an object."""
    status = getattr(getattr(error.__context__, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _is_temporary(error: Any) -> bool:
    status = error.status_code
    if status is None:
        # A loop of redirects is no answer, either.
        return is_transient(error) or isinstance(error.__cause__, requests.TooManyRedirects)
    return _is_temporary_status(status)


def _is_temporary_status(status: int) -> bool:
    # Below 400 it is an answer that could not be read, which tells nothing of what was done.
    return status in _TEMPORARY or status < _REFUSALS_FROM or status >= _SERVER_ERRORS_FROM


def _told(error: Any) -> str:
    """Write in one line what Connect said; ClientError's own text breaks on errors that are no texts."""
    if error.status_code is None:
        cause = error.__cause__
        reason = f" ({type(cause).__name__}: {cause})" if cause else f" ({error.message})" if error.message else ""
        return f"Connect did not answer{reason}"[:_ERROR_CHARS_MAX]
    texts = [str(error.error_code)] if error.error_code else []
    texts += ["; ".join(str(one) for one in _as_list(error.errors))] if error.errors else []
    unread = ", and what cannot be read" if error.status_code < _REFUSALS_FROM else ""
    return ": ".join([f"Connect answered {_phrase(error.status_code)}{unread}", *texts])[:_ERROR_CHARS_MAX]


def _phrase(status: int) -> str:
    known = {one.value: one.phrase for one in HTTPStatus}
    return f"{status} {known[status]}" if status in known else str(status)


def _as_list(errors: Any) -> list[Any]:
    if errors is None:
        return []
    return errors if isinstance(errors, list) else [errors]


def may_be_tried_again(error: BaseException) -> bool:
    """Tell whether a failed call of Connect may succeed another time; a predicate for tenacity.

    Args:
        error: a `ConnectError`, or a `ClientError` of a step's own call.
    """
    if isinstance(error, ConnectError):
        return isinstance(error, ConnectUnavailable)
    if isinstance(error, ClientError):
        return _is_temporary(error)
    sorted_error = _error_of_unreadable(error, "") if isinstance(error, Exception) else None
    return isinstance(sorted_error, ConnectUnavailable)


def retry_after_s(error: BaseException) -> float | None:
    """Give the seconds after which Connect wants to be asked again, from 0 to a day; None if it did not say.

    Args:
        error: a `ConnectError`, or a `ClientError`, whose cause has the answer with its Retry-After header.
    """
    if isinstance(error, ConnectError):
        return error.retry_after_s
    answer = getattr(error.__cause__ or error.__context__, "response", None)
    headers = getattr(answer, "headers", None) or {}
    seconds = _seconds(str(headers.get("Retry-After", "")))
    return None if seconds is None else min(max(0.0, seconds), RETRY_AFTER_S_MAX)


def _seconds(text: str) -> float | None:
    """Read a Retry-After: a number of seconds, or a date."""
    try:
        return seconds if math.isfinite(seconds := float(text)) else None
    except ValueError:
        pass  # then it is a date
    try:
        return parsedate_to_datetime(text).timestamp() - time.time()
    except (TypeError, ValueError, OverflowError):
        return None


class wait_as_connect_says(wait_base):  # noqa: N801  # named as tenacity's strategies are
    """Wait as long as Connect's Retry-After says, and never less than another strategy does.

    Nothing, or a date that is over by this machine's clock, would use up all attempts at once.

    Args:
        at_least: a tenacity strategy; by default exponential with jitter, up to 300 seconds.
    """

    def __init__(self, at_least: wait_base | None = None) -> None:
        self.at_least = at_least or wait_exponential_jitter(initial=1, max=_WAIT_S_MAX)

    def __call__(self, retry_state: RetryCallState) -> float:
        """Give the seconds to wait."""
        error = None if retry_state.outcome is None else retry_state.outcome.exception()
        said = None if error is None else retry_after_s(error)
        return max(said or 0.0, float(self.at_least(retry_state)))


#: How the ready transactions repeat their calls: while Connect is unavailable, for a day. A journaled wait holds no
#: thread, and an order is not to be undone because Connect was away for an hour.
CONNECT_RETRY = RetryPolicy(
    stop=stop_after_attempt(_ATTEMPTS_MAX),
    wait=wait_as_connect_says(),
    retry=retry_if_exception(may_be_tried_again),
)
