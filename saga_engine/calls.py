"""Calling user code: one operation of one step, through its middlewares, plain or async, from any driver.

Plain and async middlewares work around plain and async steps (S30): a plain one's `nxt` returns a response, an
async one's is awaited. What is async throughout runs natively on an event loop. Anything else runs as plain code
in a thread, and each async part of it is handed to a loop through a *bridge*.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, wait
from contextvars import ContextVar, Token
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import structlog
from connect.eaas.core.responses import BackgroundResponse

from middleware import is_async
from saga_engine.context import _current
from saga_engine.plan import Step

__all__ = ["Bridge", "Call", "Result"]

#: Waits in a plain thread for something that must run on an event loop, and gives its result.
Bridge = Callable[[Awaitable[Any]], Any]

_Tokens = tuple[Token[Any], ...]


def _bound_by_structlog() -> tuple[ContextVar[Any], ...]:
    """Give the variables that structlog's loggers look at; to find them by name at each call would take long."""
    tokens = structlog.contextvars.bind_contextvars(saga_id=None, step=None, attempt=None)
    structlog.contextvars.reset_contextvars(**tokens)
    return tuple(token.var for token in tokens.values())


_saga_id, _step, _attempt = _bound_by_structlog()

#: What most steps give; nothing of it has to be awaited, and to ask that of anything else takes long.
_PLAIN_VALUES = (BackgroundResponse, bool, type(None))


@dataclass(slots=True)
class Result:
    """What user code gave: a value or an exception.

    `is_reached`: the step itself was called, not only middlewares. `is_abandoned`: it timed out and still runs, so
    that what it does from now on is an effect that comes late.
    """

    value: Any = None
    error: Exception | None = None
    is_reached: bool = True
    is_abandoned: bool = False


class Call:
    """One call of one operation of a step.

    Args:
        operation: "should_execute", "execute", "probe" or "compensate".
        step: the step.
        arguments: what the operation is called with: the request, and for compensate the error.
        middlewares: what wraps it, outermost first; only `execute` is wrapped.
        attempt: the number of the attempt, from 1.
        undone: how often the step was undone before; it tells under which idempotency key this attempt runs.

    Attributes:
        is_reached: whether the step itself was called, and not only middlewares.
    """

    __slots__ = (
        "_context", "_nested", "_transaction", "arguments", "attempt", "is_reached", "middlewares", "operation", "step",
        "undone",
    )  # fmt: skip

    def __init__(
        self,
        operation: str,
        step: Step,
        arguments: tuple[Any, ...],
        middlewares: Sequence[Any],
        attempt: int,
        *,
        undone: int = 0,
    ) -> None:
        self.operation = operation
        self.step = step
        self.arguments = arguments
        self.middlewares = middlewares
        self.attempt = attempt
        self.undone = undone
        self.is_reached = not middlewares
        # The step gets others after an attempt that was abandoned; this call keeps what it was made with.
        self._transaction, self._context = step.transaction, step.context
        #: what async middlewares had to have run in further threads
        self._nested: list[Future[Any]] = []

    @property
    def is_native_async(self) -> bool:
        """Tell whether every part of it is a coroutine function."""
        transaction = self._transaction
        if self.operation in vars(transaction):
            return is_async(self._function) and all(is_async(m) for m in self.middlewares)
        return _is_async_method(type(transaction), self.operation) and all(is_async(m) for m in self.middlewares)

    @property
    def timeout_s(self) -> float | None:
        """How many seconds it may take; None: there is no limit."""
        return None if self.operation == "should_execute" else self._transaction.timeout_s

    @property
    def abandon_s(self) -> float:
        """For how many seconds after its time-out it is waited for before it is given up."""
        return self._transaction.abandon_s

    @property
    def _function(self) -> Callable[..., Any]:
        function: Callable[..., Any] = getattr(self._transaction, self.operation)
        return function

    def run(self, bridge: Bridge) -> Result:
        """Call it in this thread; returns when nothing of it runs any more."""
        tokens = self._enter()
        try:
            value = self._told(self._plain_stack(bridge)(*self.arguments))
        except Exception as error:
            return Result(error=error, is_reached=self.is_reached)
        finally:
            if self._nested:
                wait(self._nested)  # a middleware that was cancelled does not wait for the plain step in it
            _leave(tokens)
        return Result(value, is_reached=self.is_reached)

    async def arun(self) -> Result:
        """Call it on this event loop; only if it `is_native_async`."""
        tokens = self._enter()
        try:
            value = self._told(await self._async_stack()(*self.arguments))
        except Exception as error:
            return Result(error=error, is_reached=self.is_reached)
        finally:
            _leave(tokens)
        return Result(value, is_reached=self.is_reached)

    def _told(self, value: Any) -> Any:
        """Take an answer to `should_execute` for true or false here, where what that raises is the step's."""
        return bool(value) if self.operation == "should_execute" else value

    def _enter(self) -> _Tokens:
        """Make the step's context current, for `current_context()` and for every structlog logger."""
        context = self._context
        context.operation = self.operation
        context.attempt = self.attempt
        return (
            _current.set(context),
            _saga_id.set(context.saga_id),
            _step.set(context.step),
            _attempt.set(context.attempt),
        )

    def _plain_stack(self, bridge: Bridge) -> Callable[..., Any]:
        def innermost(*arguments: Any) -> Any:
            self.is_reached = True
            return _settle(self._function(*arguments), bridge)

        nxt: Callable[..., Any] = innermost
        for middleware in reversed(self.middlewares):
            nxt = self._plain_link(middleware, nxt, bridge)
        return nxt

    def _plain_link(self, middleware: Any, nxt: Callable[..., Any], bridge: Bridge) -> Callable[..., Any]:
        if not is_async(middleware):
            return lambda request: _settle(middleware(request, nxt), bridge)

        async def awaited_nxt(request: dict[str, Any]) -> Any:
            nested = _in_thread(nxt, request)
            self._nested.append(nested)
            return await asyncio.wrap_future(nested)

        return lambda request: bridge(middleware(request, awaited_nxt))

    def _async_stack(self) -> Callable[..., Awaitable[Any]]:
        async def innermost(*arguments: Any) -> Any:
            self.is_reached = True
            return await self._function(*arguments)

        nxt: Callable[..., Awaitable[Any]] = innermost
        for middleware in reversed(self.middlewares):
            nxt = _async_link(middleware, nxt)
        return nxt


def _leave(tokens: _Tokens) -> None:
    for token in tokens:
        token.var.reset(token)


@lru_cache(maxsize=4096)
def _is_async_method(kind: type, name: str) -> bool:
    return is_async(getattr(kind, name))


def _settle(value: Any, bridge: Bridge) -> Any:
    return bridge(value) if type(value) not in _PLAIN_VALUES and inspect.isawaitable(value) else value


def _in_thread(function: Callable[..., Any], *arguments: Any) -> Future[Any]:
    """Run plain code in a thread of its own: layers that wait for each other must not share a number of threads."""
    over: Future[Any] = Future()
    over.set_running_or_notify_cancel()  # whoever stops waiting for it does not stop it

    def run() -> None:
        try:
            value = function(*arguments)
        except BaseException as error:
            over.set_exception(error)
        else:
            over.set_result(value)

    threading.Thread(target=contextvars.copy_context().run, args=(run,), name="saga-nested", daemon=True).start()
    return over


def _async_link(middleware: Any, nxt: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def call(request: dict[str, Any]) -> Any:
        return await middleware(request, nxt)

    return call
