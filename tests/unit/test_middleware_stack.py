"""How middlewares are chained around a transaction, plain and async ones alike."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

import pytest
from connect.eaas.core.responses import BackgroundResponse

from middleware import Middleware, is_async, make_middleware_callstack
from transactions import InvalidTransaction

REQUEST: dict[str, Any] = {"id": "PR-1"}


def noting(name: str, log: list[str]) -> Middleware:
    """A plain middleware that notes when it is entered and left."""

    def middleware(request: dict[str, Any], nxt: Any) -> Any:
        log.append(f"{name} in")
        answer = nxt(request)
        log.append(f"{name} out")
        return answer

    return middleware


def noting_async(name: str, log: list[str]) -> Middleware:
    """The same, async; it works around plain and async callables."""

    async def middleware(request: dict[str, Any], nxt: Any) -> Any:
        log.append(f"{name} in")
        answer = nxt(request)
        if inspect.isawaitable(answer):
            answer = await answer
        log.append(f"{name} out")
        return answer

    return middleware


def test_S04_the_first_listed_middleware_is_the_outermost() -> None:
    log: list[str] = []

    def execute(request: dict[str, Any]) -> Any:
        log.append("execute")
        return BackgroundResponse.skip(request["id"])

    stack = make_middleware_callstack([noting("first", log), noting("second", log)], execute)
    assert stack(REQUEST).output == "PR-1"
    assert log == ["first in", "second in", "execute", "second out", "first out"]


def test_S04_a_middleware_that_answers_without_nxt_keeps_the_inner_ones_from_being_called() -> None:
    log: list[str] = []
    skipping: Middleware = lambda request, nxt: BackgroundResponse.skip("offline")  # noqa: E731
    stack = make_middleware_callstack([noting("outer", log), skipping, noting("inner", log)], pytest.fail)
    assert stack(REQUEST).output == "offline"
    assert log == ["outer in", "outer out"]


def test_a_middleware_may_give_another_request_to_the_next() -> None:
    changing: Middleware = lambda request, nxt: nxt({**request, "id": "PR-2"})  # type: ignore[misc]  # noqa: E731
    assert make_middleware_callstack([changing], lambda request: request["id"])(REQUEST) == "PR-2"


def test_an_exception_of_the_transaction_passes_through_every_middleware() -> None:
    seen: list[str] = []

    def watching(request: dict[str, Any], nxt: Any) -> Any:
        try:
            return nxt(request)
        except ZeroDivisionError as e:
            seen.append(type(e).__name__)
            raise

    with pytest.raises(ZeroDivisionError):
        make_middleware_callstack([watching, watching], lambda request: 1 / 0)(REQUEST)
    assert seen == ["ZeroDivisionError", "ZeroDivisionError"]


def test_without_a_transaction_the_last_middleware_gets_none() -> None:
    seen: list[Any] = []

    def last(request: dict[str, Any], nxt: Any) -> Any:
        seen.append(nxt)
        return BackgroundResponse.done()

    assert make_middleware_callstack([noting("first", []), last])(REQUEST).status == "success"
    assert seen == [None]


def test_without_middlewares_the_stack_is_the_transaction() -> None:
    def execute(request: dict[str, Any]) -> Any:
        return BackgroundResponse.done()

    assert make_middleware_callstack([], execute) is execute


def test_a_stack_can_be_called_again_and_starts_anew() -> None:
    log: list[str] = []
    stack = make_middleware_callstack([noting("m", log)], lambda request: request["id"])
    assert [stack({"id": number}) for number in (1, 2)] == [1, 2]
    assert log == ["m in", "m out"] * 2


@pytest.mark.anyio
@pytest.mark.parametrize("transaction_is_async", [True, False])
async def test_S30_async_middlewares_work_around_plain_and_async_ones(transaction_is_async: bool) -> None:
    log: list[str] = []

    async def execute_async(request: dict[str, Any]) -> Any:
        return execute(request)

    def execute(request: dict[str, Any]) -> Any:
        log.append("execute")
        return request["id"]

    stack = make_middleware_callstack(
        [noting_async("first", log), noting_async("second", log)],
        execute_async if transaction_is_async else execute,
    )
    assert await stack(REQUEST) == "PR-1"  # type: ignore[misc]
    assert log == ["first in", "second in", "execute", "second out", "first out"]


@pytest.mark.anyio
async def test_S30_a_plain_middleware_passes_the_awaitable_of_an_async_one_on() -> None:
    log: list[str] = []
    stack = make_middleware_callstack([noting("plain", log), noting_async("async", log)], lambda request: 7)
    assert await stack(REQUEST) == 7  # type: ignore[misc]
    assert log == ["plain in", "plain out", "async in", "async out"]


class Plain:
    """A middleware as an object."""

    def __call__(self, request: dict[str, Any], nxt: Any) -> Any:
        return nxt(request)

    def method(self) -> None:
        pytest.fail("never called")

    async def async_method(self) -> None:
        pytest.fail("never called")


class Async:
    """An async middleware as an object."""

    async def __call__(self, request: dict[str, Any], nxt: Any) -> Any:
        pytest.fail("never called")


async def coroutine(request: dict[str, Any]) -> Any:
    pytest.fail("never called")


@pytest.mark.parametrize(
    "function",
    [coroutine, partial(coroutine, {}), Async(), Plain().async_method],
    ids=lambda one: repr(one)[:20],
)
def test_is_async_sees_functions_partials_objects_and_methods(function: Any) -> None:
    assert is_async(function)


@pytest.mark.parametrize("function", [len, Plain(), Plain().method, Async, partial(len), None])
def test_is_async_is_false_for_plain_callables_and_for_classes_that_only_build_async_ones(
    function: Any,
) -> None:
    assert not is_async(function)


@pytest.mark.parametrize("entry", [None, "log", Plain], ids=repr)
def test_an_entry_that_is_no_middleware_is_refused_naming_its_position(entry: Any) -> None:
    with pytest.raises(InvalidTransaction) as raised:
        make_middleware_callstack([Plain(), entry], lambda request: None)
    assert str(raised.value).startswith(f"middleware 1 is {entry!r}: give a callable (request, nxt) -> response")


def test_a_stack_of_nothing_is_refused() -> None:
    with pytest.raises(InvalidTransaction, match="has nothing to call: give a transaction"):
        make_middleware_callstack([])


def test_a_transaction_that_cannot_be_called_is_refused() -> None:
    with pytest.raises(InvalidTransaction, match=r"give a callable \(request\) -> response, for example its execute"):
        make_middleware_callstack([Plain()], object())  # type: ignore[arg-type]
