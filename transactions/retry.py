"""`@retry` for the methods of a service: repeats a call that failed for a reason that may pass.

It holds its thread (or task) while it waits and forgets everything in a crash. The retry that survives a
crash is the `RetryPolicy` of a step.
"""

from __future__ import annotations

import functools
import inspect
import math
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, overload

from tenacity import AsyncRetrying, RetryCallState, Retrying, stop_after_attempt, stop_never, wait_exponential

from transactions.errors import InvalidRetry

__all__ = ["RetryConfig", "is_transient", "retry"]

FMethod = TypeVar("FMethod", bound=Callable[..., Any])
_Ask = Callable[[RetryCallState], Any]

_HTTP_STATUS_MIN, _HTTP_STATUS_MAX = 100, 999
_UNAUTHORIZED = 401
_TOO_MANY_REQUESTS = 429
_SERVER_ERRORS_FROM = 500

#: Connection errors and time-outs that do not derive from Python's own, as (top package, class). They are
#: known by name because none of these packages has to be installed.
_TRANSIENT_CLASSES = frozenset(
    {
        ("aiohttp", "ClientConnectionError"),
        ("asyncio", "TimeoutError"),
        ("concurrent", "TimeoutError"),
        ("httpcore", "NetworkError"),
        ("httpcore", "RemoteProtocolError"),
        ("httpcore", "TimeoutException"),
        ("httpx", "NetworkError"),
        ("httpx", "ProxyError"),
        ("httpx", "RemoteProtocolError"),
        ("httpx", "TimeoutException"),
        ("requests", "ChunkedEncodingError"),
        ("requests", "ConnectionError"),
        ("requests", "Timeout"),
        ("urllib3", "MaxRetryError"),
        ("urllib3", "ProtocolError"),
        ("urllib3", "TimeoutError"),
    }
)


@dataclass(frozen=True)
class RetryConfig:
    """What `@retry` reads from `self._retry_config`; the defaults are those of Symphony's BDK.

    The wait before attempt n + 1 is `initial_interval_s * multiplier ** (n - 1)`, at most `max_interval_s`.

    Args:
        max_attempts: calls in all, the first one included; at least 1.
        initial_interval_s: seconds to wait after the first failure.
        multiplier: how many times longer each further wait is; at least 1.
        max_interval_s: seconds that no wait exceeds.

    Raises:
        InvalidRetry: a value is out of its range.
    """

    max_attempts: int = 10
    initial_interval_s: float = 0.5
    multiplier: float = 2.0
    max_interval_s: float = 300.0

    def __post_init__(self) -> None:
        least = {"max_attempts": 1, "initial_interval_s": 0, "multiplier": 1, "max_interval_s": 0}
        for field, minimum in least.items():
            value = getattr(self, field)
            if not _is_number(value) or value < minimum:
                raise _refused(field, value, f"a number of at least {minimum}")
        if not isinstance(self.max_attempts, int):
            raise _refused("max_attempts", self.max_attempts, "a whole number")

    @classmethod
    def of(cls, declared: Any) -> RetryConfig:
        """Read a configuration object or dict, in any of the spellings in use.

        Args:
            declared: a `RetryConfig`, or an object or dict with any of `max_attempts` (`maxAttempts`),
                `multiplier`, `initial_interval_s`, `initial_interval_millis` (`initialIntervalMillis`),
                `initial_interval` (a timedelta, or seconds), and the same for `max_interval`. Numbers may be
                strings, as Connect's variables are.

        Raises:
            InvalidRetry: nothing in it is known, a key of the dict is not, or a value is out of its range.
        """
        if isinstance(declared, RetryConfig):
            return declared
        values: dict[str, Any] = {}
        for spelling, value in _given(declared).items():
            field, factor = _SPELLINGS[spelling]
            values[field] = _number(spelling, value) * factor
        return cls(**values)


#: Spelling -> (field of RetryConfig, units of the field in one unit of the spelling).
_SPELLINGS: dict[str, tuple[str, float]] = {
    "max_attempts": ("max_attempts", 1),
    "maxAttempts": ("max_attempts", 1),
    "multiplier": ("multiplier", 1),
    "initial_interval": ("initial_interval_s", 1),
    "initial_interval_s": ("initial_interval_s", 1),
    "initial_interval_millis": ("initial_interval_s", 0.001),
    "initialIntervalMillis": ("initial_interval_s", 0.001),
    "max_interval": ("max_interval_s", 1),
    "max_interval_s": ("max_interval_s", 1),
    "max_interval_millis": ("max_interval_s", 0.001),
    "maxIntervalMillis": ("max_interval_s", 0.001),
}


def _given(declared: Any) -> dict[str, Any]:
    """Pick the spellings that are there, without those that are None."""
    if isinstance(declared, Mapping):
        unknown = sorted(str(key) for key in declared if key not in _SPELLINGS)
        if unknown:
            raise InvalidRetry(f"_retry_config: {', '.join(unknown)} is not known; use {', '.join(_SPELLINGS)}")
        found = dict(declared)
    else:
        found = {key: getattr(declared, key) for key in _SPELLINGS if hasattr(declared, key)}
        if not found:
            raise InvalidRetry(
                f"_retry_config is {declared!r}; give a RetryConfig, an object or dict with max_attempts, "
                "or None for a single attempt"
            )
    return {key: value for key, value in found.items() if value is not None}


def _number(spelling: str, value: Any) -> int | float:
    number = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError as e:
            raise _refused(spelling, value, "a number") from e
    if not _is_number(number):
        raise _refused(spelling, value, "a number")
    return int(number) if number == int(number) else float(number)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _refused(name: str, value: Any, wanted: str) -> InvalidRetry:
    return InvalidRetry(f"_retry_config: {name} is {value!r}; give {wanted}")


def is_transient(error: BaseException) -> bool:
    """Tell whether an error may pass: what `@retry` repeats a call for by default.

    An HTTP status may pass if it is 401 (the session is refreshed first), 429, or from 500 on. Without a
    status, a connection error or a time-out may, of Python, requests, httpx, aiohttp or the Connect clients.
    """
    status = _status_of(error)
    if status is not None:
        return status in (_UNAUTHORIZED, _TOO_MANY_REQUESTS) or status >= _SERVER_ERRORS_FROM
    if isinstance(error, (ConnectionError, TimeoutError, socket.gaierror)):
        return True
    if any((c.__module__.partition(".")[0], c.__name__) in _TRANSIENT_CLASSES for c in type(error).__mro__):
        return True
    # Connect's ClientError wraps what requests and httpx raise; its status is None when no answer came.
    cause = error.__cause__ if hasattr(error, "status_code") else None
    return cause is not None and is_transient(cause)


def _status_of(error: BaseException) -> int | None:
    """Find the HTTP status on the error (Connect, aiohttp) or on its response (requests, httpx)."""
    for holder in (error, getattr(error, "response", None)):
        for attribute in ("status_code", "status"):
            status = getattr(holder, attribute, None)
            if isinstance(status, int) and _HTTP_STATUS_MIN <= status <= _HTTP_STATUS_MAX:
                return int(status)
    return None


@overload
def retry(method: FMethod, /) -> FMethod: ...


@overload
def retry(**tenacity_arguments: Any) -> Callable[[FMethod], FMethod]: ...


def retry(method: Any = None, /, **tenacity_arguments: Any) -> Any:
    """Repeat a method of a service while its failure may pass: `@retry`, or `@retry(retry=..., stop=...)`.

    The method's object says how often and how fast in `self._retry_config`: a `RetryConfig`, or whatever
    `RetryConfig.of` reads; None means one attempt. When they are used up, the last exception is raised as it
    is. By default `is_transient` decides; after a 401, and only if another attempt follows,
    `self._auth_session.refresh()` is called first (and awaited). Without a session a 401 is only repeated.

    The method may be plain or `async`. For a plain one, an awaitable that `refresh` or a mechanism returns is
    run to its end in this thread, which must have no running event loop.

    Args:
        retry: a mechanism in place of `is_transient` and the refresh, plain or `async`: it gets tenacity's
            `RetryCallState` (`outcome`, `attempt_number`, `args` with `self` first); True: call it again.
        **tenacity_arguments: any other argument of `tenacity.Retrying`, such as `stop` or `wait`; overrides
            what `_retry_config` says. With `stop` the object needs no `_retry_config`.

    Raises:
        InvalidRetry: it does not decorate a method, an argument is none of tenacity's, or (at the call)
            `_retry_config` cannot be used.

    `raise tenacity.TryAgain` in the method asks for another attempt, whatever the mechanism says. A
    cancellation is never repeated, like all that is not an `Exception`.
    """
    if method is not None:
        return _decorated(method, tenacity_arguments)
    return functools.partial(_decorated, declared=tenacity_arguments)


def _decorated(method: Any, declared: dict[str, Any]) -> Callable[..., Any]:
    _check(method, declared)
    if inspect.iscoroutinefunction(method):

        @functools.wraps(method)
        async def call_async(*args: Any, **kwargs: Any) -> Any:
            retrying = AsyncRetrying(**{"sleep": _sleep, **_arguments(method, args, declared, _awaiting)})
            return await retrying(method, *args, **kwargs)

        return call_async

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        return Retrying(**_arguments(method, args, declared, _finishing))(method, *args, **kwargs)

    return call


async def _sleep(seconds: float) -> None:
    """Wait on whatever event loop runs; tenacity's own default knows trio in its later releases only."""
    import anyio  # slow to import, and needed when something has failed only

    await anyio.sleep(seconds)


def _check(method: Any, declared: dict[str, Any]) -> None:
    """Refuse at the decoration what would fail, or silently do nothing, at each call."""
    if not inspect.isfunction(method):
        raise InvalidRetry(f"@retry on {method!r}: put it directly above a `def` or `async def` of a service")
    name = method.__qualname__
    if inspect.isgeneratorfunction(method) or inspect.isasyncgenfunction(method):
        raise InvalidRetry(f"@retry on {name}: a generator cannot be repeated; return a list")
    for argument in ("retry", "stop", "wait"):
        strategy = declared.get(argument, stop_never)
        # A class is callable too: `stop=stop_after_attempt`, without its number, would stop at once.
        if not callable(strategy) or inspect.isclass(strategy):
            raise InvalidRetry(
                f"@retry({argument}={strategy!r}) on {name}: give a tenacity strategy, for example "
                f"{argument}={_EXAMPLES[argument]}, or a function of the RetryCallState"
            )
    try:
        Retrying(**declared)
    except TypeError as e:
        raise InvalidRetry(f"@retry on {name}: {e}; give only arguments of tenacity.Retrying") from e


_EXAMPLES = {
    "retry": "retry_if_exception_type(ConnectionError)",
    "stop": "stop_after_attempt(5)",
    "wait": "wait_exponential_jitter(1, 60)",
}


def _arguments(
    method: Callable[..., Any],
    args: tuple[Any, ...],
    declared: dict[str, Any],
    settle: Callable[..., Callable[[RetryCallState], Any]],
) -> dict[str, Any]:
    """Merge tenacity's arguments for one call: ours, the object's configuration, the decorator's."""
    arguments = {"reraise": True, **_from_config(method, args, declared), **declared}
    arguments["retry"] = settle(_unless_interrupted(declared.get("retry", _default_mechanism)))
    if "retry" not in declared:
        # Not in the mechanism itself: tenacity asks it before `stop`, so the session would be refreshed after
        # the last attempt too. `before_sleep` is called only when another attempt follows.
        also = declared.get("before_sleep")
        arguments["before_sleep"] = settle(_refresh_if_unauthorized, *([also] if also else []))
    return arguments


def _from_config(method: Callable[..., Any], args: tuple[Any, ...], declared: dict[str, Any]) -> dict[str, Any]:
    """Make tenacity's `stop` and `wait` of the object's `_retry_config`."""
    has_config = bool(args) and hasattr(args[0], "_retry_config")
    if not has_config and "stop" not in declared:
        raise InvalidRetry(
            f"@retry on {method.__qualname__}: its object has no _retry_config; set self._retry_config in "
            "the constructor (None: a single attempt), or say @retry(stop=...)"
        )
    given = args[0]._retry_config if has_config else RetryConfig()
    if given is None:
        return {"stop": stop_after_attempt(1)}
    config = RetryConfig.of(given)
    wait = wait_exponential(config.initial_interval_s, config.max_interval_s, config.multiplier)
    return {"stop": stop_after_attempt(config.max_attempts), "wait": wait}


def _error_of(state: RetryCallState) -> BaseException | None:
    return None if state.outcome is None else state.outcome.exception()


def _default_mechanism(state: RetryCallState) -> bool:
    error = _error_of(state)
    return error is not None and is_transient(error)


def _unless_interrupted(mechanism: _Ask) -> _Ask:
    def ask(state: RetryCallState) -> Any:
        error = _error_of(state)
        interrupted = error is not None and not isinstance(error, Exception)
        return False if interrupted else mechanism(state)

    return ask


def _refresh_if_unauthorized(state: RetryCallState) -> Any:
    error = _error_of(state)
    if error is None or _status_of(error) != _UNAUTHORIZED:
        return None
    session = getattr(state.args[0], "_auth_session", None) if state.args else None
    if session is None:
        return None
    if not callable(getattr(session, "refresh", None)):
        raise InvalidRetry(
            f"_auth_session is {session!r}, which has no refresh(); give it one, or set _auth_session to None"
        ) from error
    return session.refresh()


def _awaiting(*asks: _Ask) -> Callable[[RetryCallState], Awaitable[Any]]:
    """Make one async hook that calls each in turn and gives the last one's answer."""

    async def answer(state: RetryCallState) -> Any:
        result = None
        for ask in asks:
            result = ask(state)
            if inspect.isawaitable(result):
                result = await result
        return result

    return answer


def _finishing(*asks: _Ask) -> Callable[[RetryCallState], Any]:
    """Make one plain hook of the same."""

    def answer(state: RetryCallState) -> Any:
        result = None
        for ask in asks:
            result = ask(state)
            if inspect.isawaitable(result):
                result = _run_to_end(result)
        return result

    return answer


def _run_to_end(awaitable: Awaitable[Any]) -> Any:
    import asyncio  # slow to import, and rarely needed

    async def awaited() -> Any:
        return await awaitable

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        loop_is_running = False
    else:
        loop_is_running = True
    if not loop_is_running:
        return asyncio.run(awaited())
    if inspect.iscoroutine(awaitable):
        awaitable.close()
    raise InvalidRetry(
        "@retry on a plain method cannot await an async refresh() or mechanism while an event loop is "
        "running in this thread; make the method `async def`"
    )
