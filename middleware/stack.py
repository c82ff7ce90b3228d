"""What wraps the execution of a step: middlewares, and the call stack made of them."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

from transactions import FnBackgroundExecution, InvalidTransaction, TBackgroundResponse

__all__ = ["Middleware", "is_async", "make_middleware_callstack"]

#: A middleware takes the request and the next callable, and answers; it may be plain or `async`.
Middleware: TypeAlias = Callable[
    [dict[str, Any], FnBackgroundExecution | None], TBackgroundResponse | Awaitable[TBackgroundResponse]
]


def make_middleware_callstack(
    middlewares: Sequence[Middleware], transaction: FnBackgroundExecution | None = None
) -> FnBackgroundExecution:
    """Chain middlewares around a transaction; the first listed is the outermost.

    Each middleware is called with `(request, nxt)`; without a `transaction` the last one gets `nxt=None`.
    What `nxt` returns must be awaited if what it calls is `async`, and so must the answer of the whole stack
    if its outermost middleware is `async` or passes such an answer on.

    Args:
        middlewares: the middlewares, outermost first.
        transaction: what the innermost `nxt` calls.

    Raises:
        InvalidTransaction: an entry is not callable, or there is nothing to call at all.
    """
    for position, entry in enumerate(middlewares):
        if not callable(entry) or inspect.isclass(entry):
            raise InvalidTransaction(
                f"middleware {position} is {entry!r}: give a callable (request, nxt) -> response, not a "
                "class; only a saga builds classes"
            )
    if transaction is None and not middlewares:
        raise InvalidTransaction("make_middleware_callstack([]) has nothing to call: give a transaction")
    if transaction is not None and not callable(transaction):
        raise InvalidTransaction(
            f"the transaction of a call stack is {transaction!r}: give a callable (request) -> response, "
            "for example its execute"
        )
    nxt = transaction
    for entry in reversed(middlewares):
        nxt = _link(entry, nxt)
    assert nxt is not None  # one of the two was given
    return nxt


def _link(entry: Middleware, nxt: FnBackgroundExecution | None) -> FnBackgroundExecution:
    def call(request: dict[str, Any]) -> Any:
        return entry(request, nxt)

    return call


def is_async(function: Any) -> bool:
    """Tell whether calling this function, bound method or callable object gives an awaitable."""
    # Asked of the type: calling a class makes an instance, whatever its instances do when called.
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(type(function), "__call__", None)  # noqa: B004  # the method itself is wanted
    )
