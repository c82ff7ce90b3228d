"""`@retry` repeats what may pass, refreshes the session in between, and raises everything else."""

from __future__ import annotations

import asyncio
import inspect
import socket
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import requests
import tenacity
from connect.client import ClientError

from transactions import InvalidRetry, RetryConfig, SagaError, retry
from transactions.retry import is_transient

AT_ONCE = RetryConfig(max_attempts=3, initial_interval_s=0)


class Session:
    """A session that counts its refreshes and notes them in the service's log."""

    def __init__(self, log: list[str]) -> None:
        self._log = log

    def refresh(self) -> None:
        self._log.append("refresh")


class AsyncSession(Session):
    """The same, with an async refresh that gives control away once."""

    async def refresh(self) -> None:  # type: ignore[override]
        await asyncio.sleep(0)
        self._log.append("refresh")


class Service:
    """A service whose calls fail with the given errors, one after the other, and then succeed."""

    def __init__(self, *errors: BaseException, config: Any = AT_ONCE, session: type[Session] | None = None) -> None:
        self.log: list[str] = []
        self._errors = list(errors)
        self._retry_config = config
        self._auth_session = session(self.log) if session else None

    def attempt(self) -> str:
        self.log.append("call")
        if self._errors:
            raise self._errors.pop(0)
        return "answer"

    @retry
    def plain(self) -> str:
        return self.attempt()

    @retry()
    async def coroutine(self) -> str:
        await asyncio.sleep(0)
        return self.attempt()


def http_error(status: int) -> ClientError:
    """The error of a Connect client for an answer with this status."""
    return ClientError(message="no", status_code=status)


def connect_error_from(cause: Exception) -> ClientError:
    """The error of a Connect client for a call that got no answer."""
    try:
        raise ClientError(status_code=None) from cause
    except ClientError as e:
        return e


def httpx_status_error(status: int) -> httpx.HTTPStatusError:
    request = httpx.Request("GET", "http://127.0.0.1/")
    return httpx.HTTPStatusError("no", request=request, response=httpx.Response(status, request=request))


def requests_status_error(status: int) -> requests.HTTPError:
    response = requests.Response()
    response.status_code = status
    return requests.HTTPError("no", response=response)


class FutureTimeout(Exception):
    """Stands for a library's time-out that derives from nothing of Python's."""


FutureTimeout.__module__, FutureTimeout.__name__ = "aiohttp.client_exceptions", "ClientConnectionError"

TRANSIENT = [
    http_error(401),
    http_error(429),
    http_error(500),
    http_error(503),
    httpx_status_error(502),
    requests_status_error(429),
    ConnectionRefusedError(),
    TimeoutError(),
    asyncio.TimeoutError(),
    socket.gaierror(),
    requests.ConnectionError(),
    requests.ReadTimeout(),
    httpx.ConnectError("no"),
    httpx.ReadTimeout("late"),
    httpx.RemoteProtocolError("cut"),
    connect_error_from(requests.ConnectTimeout()),
    connect_error_from(httpx.ConnectError("no")),
    FutureTimeout(),
]
LASTING = [
    http_error(400),
    http_error(404),
    httpx_status_error(403),
    requests_status_error(404),
    ValueError("no"),
    OSError("disk"),
    requests.exceptions.InvalidURL(),
    httpx.UnsupportedProtocol("no"),
    connect_error_from(ValueError()),
    ClientError(message="The path does not exist"),
]


@pytest.mark.parametrize("error", TRANSIENT, ids=repr)
def test_connection_errors_timeouts_and_statuses_that_may_pass_are_repeated(error: Exception) -> None:
    service = Service(error)
    assert service.plain() == "answer"
    assert service.log == ["call", "call"]


@pytest.mark.parametrize("error", LASTING, ids=repr)
def test_every_other_error_is_raised_after_one_call(error: Exception) -> None:
    service = Service(error)
    with pytest.raises(type(error)) as raised:
        service.plain()
    assert raised.value is error
    assert service.log == ["call"]


def test_a_status_decides_even_if_the_class_is_a_connection_error() -> None:
    error = requests.ConnectionError(response=requests_status_error(404).response)
    assert not is_transient(error)


def test_a_number_that_is_no_http_status_is_not_taken_for_one() -> None:
    error = ConnectionError()
    error.status = 1  # type: ignore[attr-defined]
    assert is_transient(error)


@pytest.mark.parametrize("attempts_max", [1, 10])
def test_max_attempts_is_the_number_of_calls_and_the_last_error_is_raised_as_it_is(attempts_max: int) -> None:
    errors = [ConnectionError(str(n)) for n in range(20)]
    service = Service(*errors, config={"max_attempts": attempts_max, "initial_interval_s": 0})
    with pytest.raises(ConnectionError) as raised:
        service.plain()
    assert raised.value is errors[attempts_max - 1]
    assert service.log == ["call"] * attempts_max


@pytest.mark.anyio
async def test_an_async_method_is_repeated_as_often_as_a_plain_one() -> None:
    errors = [http_error(503) for _ in range(5)]
    service = Service(*errors)
    with pytest.raises(ClientError) as raised:
        await service.coroutine()
    assert raised.value is errors[2]
    assert service.log == ["call"] * 3


def test_retry_with_and_without_parentheses_decorate_alike_and_keep_what_they_wrap() -> None:
    assert inspect.iscoroutinefunction(Service.coroutine)
    assert not inspect.iscoroutinefunction(Service.plain)
    assert (Service.plain.__name__, Service.coroutine.__name__) == ("plain", "coroutine")
    assert Service.plain.__qualname__ == "Service.plain"


def test_arguments_and_keywords_reach_the_method_at_each_attempt() -> None:
    seen: list[tuple[Any, ...]] = []

    class Adding:
        _retry_config = AT_ONCE

        @retry
        def add(self, first: int, *, second: int) -> int:
            seen.append((first, second))
            if len(seen) == 1:
                raise ConnectionError
            return first + second

    assert Adding().add(1, second=2) == 3
    assert seen == [(1, 2), (1, 2)]


# 401 and the session


@pytest.mark.parametrize("session", [Session, AsyncSession])
def test_a_401_refreshes_the_session_before_the_next_call_of_a_plain_method(session: type[Session]) -> None:
    service = Service(http_error(401), session=session)
    assert service.plain() == "answer"
    assert service.log == ["call", "refresh", "call"]


@pytest.mark.anyio
@pytest.mark.parametrize("session", [Session, AsyncSession])
async def test_a_401_refreshes_the_session_before_the_next_call_of_an_async_one(
    session: type[Session],
) -> None:
    service = Service(httpx_status_error(401), session=session)
    assert await service.coroutine() == "answer"
    assert service.log == ["call", "refresh", "call"]


@pytest.mark.parametrize("error", [http_error(429), ConnectionError()], ids=repr)
def test_nothing_but_a_401_refreshes_the_session(error: Exception) -> None:
    service = Service(error, session=Session)
    service.plain()
    assert service.log == ["call", "call"]


@pytest.mark.anyio
async def test_the_session_is_not_refreshed_after_the_last_attempt() -> None:
    service = Service(*[http_error(401)] * 5, session=AsyncSession)
    with pytest.raises(ClientError):
        await service.coroutine()
    assert service.log == ["call", "refresh", "call", "refresh", "call"]


def test_the_error_of_a_refresh_is_raised_and_ends_the_attempts() -> None:
    service = Service(http_error(401))
    service._auth_session = SimpleNamespace(refresh=lambda: 1 / 0)  # type: ignore[assignment]
    with pytest.raises(ZeroDivisionError):
        service.plain()
    assert service.log == ["call"]


def test_without_a_session_a_401_is_only_repeated() -> None:
    service = Service(http_error(401))
    assert service.plain() == "answer"
    assert service.log == ["call", "call"]


def test_a_session_that_cannot_be_refreshed_is_an_error_that_says_what_to_do() -> None:
    service = Service(error := http_error(401))
    service._auth_session = object()  # type: ignore[assignment]
    with pytest.raises(InvalidRetry, match=r"no refresh\(\); give it one, or set _auth_session to None") as raised:
        service.plain()
    assert raised.value.__cause__ is error


@pytest.mark.anyio
async def test_an_async_refresh_of_a_plain_method_inside_a_loop_is_refused_and_leaves_nothing_unawaited() -> None:
    service = Service(http_error(401), session=AsyncSession)
    with pytest.raises(InvalidRetry, match="make the method `async def`"):
        service.plain()
    assert service.log == ["call"]


# interruptions


class Interruption(BaseException):
    """Stands for the engine's control flow."""


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit, Interruption])
def test_what_is_no_exception_is_never_repeated(interruption: type[BaseException]) -> None:
    asked: list[Any] = []

    class Stubborn:
        calls = 0

        @retry(retry=lambda state: not asked.append(state), stop=tenacity.stop_after_attempt(3))
        def method(self) -> None:
            self.calls += 1
            raise interruption

    service = Stubborn()
    with pytest.raises(interruption):
        service.method()
    assert (service.calls, asked) == (1, [])


@pytest.mark.anyio
async def test_a_cancellation_is_never_repeated_even_if_the_mechanism_repeats_everything() -> None:
    started = asyncio.Event()

    class Stubborn:
        _retry_config = AT_ONCE
        calls = 0

        @retry(retry=lambda state: True)
        async def method(self) -> None:
            self.calls += 1
            started.set()
            await asyncio.Event().wait()

    service = Stubborn()
    task = asyncio.ensure_future(service.method())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert service.calls == 1


# mechanisms and tenacity's arguments


async def async_mechanism(state: tenacity.RetryCallState) -> bool:
    await asyncio.sleep(0)
    return plain_mechanism(state)


def plain_mechanism(state: tenacity.RetryCallState) -> bool:
    assert state.outcome is not None
    service = state.args[0]
    service.log.append(f"asked {state.attempt_number} with {state.args[1:]}")
    return state.outcome.failed and isinstance(state.outcome.exception(), ValueError)


class Mechanical(Service):
    """Its methods are repeated for a ValueError only."""

    @retry(retry=plain_mechanism)
    def plain_by_plain(self, argument: int) -> str:
        return self.attempt()

    @retry(retry=async_mechanism)
    def plain_by_async(self, argument: int) -> str:
        return self.attempt()

    @retry(retry=plain_mechanism)
    async def async_by_plain(self, argument: int) -> str:
        return self.attempt()

    @retry(retry=async_mechanism)
    async def async_by_async(self, argument: int) -> str:
        return self.attempt()


def call(service: Service, method: str) -> Any:
    """Call the method from outside of any loop, whatever its kind."""
    answer = getattr(service, method)(7)

    async def awaited() -> Any:
        return await answer

    return asyncio.run(awaited()) if inspect.isawaitable(answer) else answer


MECHANICAL = ["plain_by_plain", "plain_by_async", "async_by_plain", "async_by_async"]


@pytest.mark.parametrize("method", MECHANICAL)
def test_a_mechanism_sees_the_call_and_its_outcome_and_decides(method: str) -> None:
    service = Mechanical(ValueError())
    assert call(service, method) == "answer"
    assert service.log == ["call", "asked 1 with (7,)", "call", "asked 2 with (7,)"]


@pytest.mark.parametrize("method", MECHANICAL)
def test_a_mechanism_takes_the_place_of_the_default_one_and_of_its_refresh(method: str) -> None:
    service = Mechanical(error := http_error(401), session=Session)
    with pytest.raises(ClientError) as raised:
        call(service, method)
    assert raised.value is error
    assert service.log == ["call", "asked 1 with (7,)"]


def test_stop_and_wait_of_the_decorator_override_the_configuration() -> None:
    waits: list[float] = []

    class Slow(Service):
        @retry(stop=tenacity.stop_after_attempt(2), wait=tenacity.wait_fixed(17), sleep=waits.append)
        def method(self) -> str:
            return self.attempt()

    service = Slow(*[ConnectionError()] * 5, config=RetryConfig(max_attempts=4))
    with pytest.raises(ConnectionError):
        service.method()
    assert (len(service.log), waits) == (2, [17])


def test_with_a_stop_of_its_own_a_method_needs_no_configuration() -> None:
    class Bare:
        calls = 0

        @retry(stop=tenacity.stop_after_attempt(2), wait=tenacity.wait_none())
        def method(self) -> None:
            self.calls += 1
            raise ConnectionError

    service = Bare()
    with pytest.raises(ConnectionError):
        service.method()
    assert service.calls == 2


def test_before_sleep_of_the_decorator_is_called_after_the_refresh() -> None:
    class Watched(Service):
        @retry(before_sleep=lambda state: state.args[0].log.append("before sleep"))
        def method(self) -> str:
            return self.attempt()

    service = Watched(http_error(401), session=Session)
    service.method()
    assert service.log == ["call", "refresh", "before sleep", "call"]


def test_try_again_repeats_the_call_although_the_mechanism_would_not() -> None:
    service = Mechanical(tenacity.TryAgain(), tenacity.TryAgain())
    assert service.plain_by_plain(7) == "answer"
    assert service.log == ["call", "call", "call", "asked 3 with (7,)"]


# the configuration


def test_none_as_configuration_means_one_attempt_without_a_refresh() -> None:
    service = Service(http_error(401), config=None, session=Session)
    with pytest.raises(ClientError):
        service.plain()
    assert service.log == ["call"]


def test_the_waits_grow_exponentially_up_to_the_longest_one() -> None:
    waits: list[float] = []

    class Slow(Service):
        @retry(sleep=waits.append)
        def method(self) -> str:
            return self.attempt()

    config = {"max_attempts": 5, "initial_interval_millis": 500, "multiplier": 3, "max_interval_s": 10}
    Slow(*[ConnectionError()] * 4, config=config).method()
    assert waits == [0.5, 1.5, 4.5, 10]


@pytest.mark.parametrize(
    "declared",
    [
        RetryConfig(5, 0.25, 3, 60),
        {"max_attempts": 5, "initial_interval_s": 0.25, "multiplier": 3, "max_interval_s": 60},
        {"maxAttempts": 5, "initialIntervalMillis": 250, "multiplier": 3, "maxIntervalMillis": 60_000},
        {"max_attempts": "5", "initial_interval_millis": "250", "multiplier": "3.0", "max_interval": "60"},
        SimpleNamespace(
            max_attempts=5,
            initial_interval=timedelta(milliseconds=250),
            multiplier=3,
            max_interval=timedelta(minutes=1),
        ),
    ],
    ids=["dataclass", "units in the names", "camel case", "strings", "object"],
)
def test_a_configuration_is_read_in_every_spelling(declared: Any) -> None:
    assert RetryConfig.of(declared) == RetryConfig(5, 0.25, 3, 60)


def test_what_a_configuration_leaves_out_or_sets_to_none_is_the_default() -> None:
    assert RetryConfig.of({"multiplier": 4, "max_interval_s": None}) == RetryConfig(10, 0.5, 4, 300)
    assert RetryConfig.of({}) == RetryConfig()


@pytest.mark.parametrize(
    ("declared", "told"),
    [
        ({"max_attempts": 0}, "max_attempts is 0; give a number of at least 1"),
        ({"max_attempts": 2.5}, "max_attempts is 2.5; give a whole number"),
        ({"max_attempts": True}, "max_attempts is True; give a number"),
        ({"max_attempts": "many"}, "max_attempts is 'many'; give a number"),
        ({"initial_interval_s": -1}, "initial_interval_s is -1; give a number of at least 0"),
        ({"multiplier": 0.5}, "multiplier is 0.5; give a number of at least 1"),
        ({"max_interval_s": float("inf")}, "max_interval_s is inf; give a number"),
        ({"max_atempts": 3}, "max_atempts is not known; use max_attempts, "),
        (42, "_retry_config is 42; give a RetryConfig, an object or dict with max_attempts, or None"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_refused_before_the_first_call(declared: Any, told: str) -> None:
    service = Service(config=declared)
    with pytest.raises(InvalidRetry) as raised:
        service.plain()
    assert told in str(raised.value)
    assert isinstance(raised.value, SagaError)
    assert service.log == []


def test_an_object_without_a_configuration_is_told_to_set_one() -> None:
    class Bare:
        @retry
        def method(self) -> None:
            pytest.fail("called without a configuration")

    with pytest.raises(InvalidRetry, match=r"Bare\.method: .* set self\._retry_config in the constructor"):
        Bare().method()


# what is refused at the decoration


def generator() -> Any:
    yield 1


async def async_generator() -> Any:
    yield 1


@pytest.mark.parametrize(
    ("decorate", "told"),
    [
        (lambda: retry("method"), "put it directly above a `def` or `async def`"),  # type: ignore[type-var]
        (lambda: retry(staticmethod(len)), "put it directly above a `def` or `async def`"),
        (lambda: retry(tenacity.stop_after_attempt(3)), "put it directly above a `def` or `async def`"),
        (lambda: retry(generator), "a generator cannot be repeated; return a list"),
        (lambda: retry(async_generator), "a generator cannot be repeated; return a list"),
        (
            lambda: retry(stop=3)(call),
            "@retry(stop=3) on call: give a tenacity strategy, for example stop=stop_after",
        ),
        (lambda: retry(wait=tenacity.wait_fixed)(call), "for example wait=wait_exponential_jitter(1, 60)"),
        (lambda: retry(attempts=3)(call), "'attempts'; give only arguments of tenacity.Retrying"),
    ],
)
def test_a_decoration_that_cannot_work_is_refused_at_once(decorate: Any, told: str) -> None:
    with pytest.raises(InvalidRetry) as raised:
        decorate()
    assert told in str(raised.value)
