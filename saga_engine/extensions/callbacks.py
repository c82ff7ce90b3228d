"""Callbacks: functions of plugins that are asked before something is done, and told what has happened.

A `check_*` callback allows or denies: it answers None or True to allow, False or the reason, as text, to deny. The
first denial counts, and later callbacks are not asked. One that raises, answers anything else or takes too long is a
failure of its module: neither allowed nor denied, the operation fails. All `on_*` callbacks are told; one that fails
is logged.

Callbacks are the async methods of the objects that are contributed to the extension point `callbacks`, whichever of
them such an object has.
"""

from __future__ import annotations

import copy
import inspect
import logging
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any

import anyio

from saga_engine.extensions.errors import ModuleFailure, NotConforming, OperationDenied, UnknownRegistration
from saga_engine.extensions.guarded import call_apart
from saga_engine.extensions.points import Contribution, Points

__all__ = [
    "CALLBACK_TIMEOUT_S",
    "CALLBACKS_POINT",
    "KINDS",
    "KINDS_POINT",
    "CallbackKind",
    "CallbackPolicy",
    "Callbacks",
    "check_callback",
    "kinds_of_category",
    "known_kinds",
]

#: How long one callback may take.
CALLBACK_TIMEOUT_S = 30.0

#: The extension points of this file: objects with callbacks, and kinds of callbacks that plugins add.
CALLBACKS_POINT = "callbacks"
KINDS_POINT = "callback_kinds"

_logger = logging.getLogger("saga_engine.extensions")


class CallbackPolicy(Enum):
    """How the answers of several callbacks of one kind are combined."""

    FIRST_DENIAL = "first denial"  #: asked in order until one denies
    ALL = "all"  #: all are told, whatever becomes of the others
    FIRST_ANSWER = "first answer"  #: asked in order until one answers something that is not None


@dataclass(frozen=True)
class CallbackKind:
    """One kind of callback. A plugin adds one by contributing it to the extension point `callback_kinds`.

    Attributes:
        name: of the function.
        category: modules register it by `register_<category>_callbacks`.
        parameters: the names of what it is given, by position.
        policy: how the answers of several are combined.
    """

    name: str
    category: str
    parameters: tuple[str, ...]
    policy: CallbackPolicy


#: What the engine itself asks and tells. `record` is a `SagaRecord`, `error` an exception, `request` a copy.
KINDS: tuple[CallbackKind, ...] = (
    CallbackKind("check_saga_start", "saga", ("saga", "saga_id", "request"), CallbackPolicy.FIRST_DENIAL),
    CallbackKind("on_saga_completed", "saga", ("record",), CallbackPolicy.ALL),
    CallbackKind("on_saga_compensated", "saga", ("record",), CallbackPolicy.ALL),
    CallbackKind("on_saga_parked", "saga", ("record",), CallbackPolicy.ALL),
    CallbackKind("check_step", "step", ("saga_id", "step", "request"), CallbackPolicy.FIRST_DENIAL),
    CallbackKind("on_step_failed", "step", ("saga_id", "step", "error"), CallbackPolicy.ALL),
    CallbackKind("check_operator_action", "operator", ("action", "saga_id", "who"), CallbackPolicy.FIRST_DENIAL),
)


def known_kinds(points: Points) -> dict[str, CallbackKind]:
    """Give all kinds by name: the engine's own, which no plugin can replace, and those that plugins added."""
    return {kind.name: kind for kind in (*points.get(KINDS_POINT), *KINDS)}


def kinds_of_category(points: Points, category: str) -> dict[str, CallbackKind]:
    """Give the kinds of one category by name.

    Raises:
        UnknownRegistration: there is no such category; an AttributeError.
    """
    known = known_kinds(points)
    found = {name: kind for name, kind in known.items() if kind.category == category}
    if not found:
        categories = ", ".join(sorted({kind.category for kind in known.values()}))
        raise UnknownRegistration(f"there are no {category} callbacks: the categories are {categories}")
    return found


def check_callback(kind: CallbackKind, function: Any) -> None:
    """Make sure that this is an async function which takes what its kind gives.

    Raises:
        NotConforming: it is not; a ValueError.
    """
    is_async = inspect.iscoroutinefunction(function)
    if not is_async and not (callable(function) and inspect.iscoroutinefunction(type(function).__call__)):
        raise NotConforming(f"{kind.name} is {function!r}: give an `async def` function")
    try:
        inspect.signature(function).bind(*kind.parameters)
    except TypeError as error:
        wanted = ", ".join(kind.parameters)
        raise NotConforming(f"{kind.name} cannot be called with ({wanted}): {error}") from error


class Callbacks:
    """Asks and tells the callbacks of all plugins, in the order of their plugins. Safe for use from any thread.

    Args:
        points: where they are contributed.
        await_plainly: runs a coroutine to its end for a thread without an event loop; by default in a loop of its own.
        timeout_s: how long one callback may take.
    """

    def __init__(
        self,
        points: Points,
        *,
        await_plainly: Callable[[Coroutine[Any, Any, Any]], Any] | None = None,
        timeout_s: float = CALLBACK_TIMEOUT_S,
    ) -> None:
        self._points = points
        self._await_plainly = await_plainly or _await_in_a_loop_of_its_own
        self._timeout_s = timeout_s
        self._seen: list[Contribution] = []
        points.declare(KINDS_POINT, CallbackKind)

    def has(self, name: str) -> bool:
        """Tell whether anybody would be asked or told; quick, so that who has much to prepare may ask first."""
        return any(getattr(each.instance, name, None) is not None for each in self._contributions())

    async def check(self, name: str, **arguments: Any) -> None:
        """Ask whether something may be done; return if nobody denies it.

        Args:
            name: of the kind, such as `check_saga_start`.
            arguments: what the kind gives its callbacks, by name.

        Raises:
            OperationDenied: a callback denied it.
            ModuleFailure: a callback raised, took too long, or answered what is no answer.
            UnknownRegistration: there is no such kind; an AttributeError.
        """
        for callback in self._found(name, CallbackPolicy.FIRST_DENIAL, arguments):
            answer = await callback.answer(self._timeout_s)
            if isinstance(answer, str) or answer is False:
                raise _denial(callback, answer)
            if answer is not None and answer is not True:
                raise ModuleFailure(
                    f"{callback.title} answered {answer!r}: let it answer None or True to allow, False or a reason, "
                    "as text, to deny"
                )

    async def notify(self, name: str, **arguments: Any) -> None:
        """Tell all callbacks of a kind what has happened. What they raise is logged.

        Args:
            name: of the kind, such as `on_saga_completed`.
            arguments: what the kind gives its callbacks, by name.

        Raises:
            UnknownRegistration: there is no such kind; an AttributeError.
        """
        for callback in self._found(name, CallbackPolicy.ALL, arguments):
            try:
                await callback.answer(self._timeout_s)
            except ModuleFailure as failure:
                _logger.error("%s; the saga is not affected", failure, exc_info=failure.__cause__ or failure)

    async def ask(self, name: str, **arguments: Any) -> Any:
        """Give the first answer that is not None, of a kind that a plugin added; None if there is none.

        Raises:
            ModuleFailure: a callback raised or took too long.
            UnknownRegistration: there is no such kind; an AttributeError.
        """
        for callback in self._found(name, CallbackPolicy.FIRST_ANSWER, arguments):
            answer = await callback.answer(self._timeout_s)
            if answer is not None:
                return answer
        return None

    def check_plainly(self, name: str, **arguments: Any) -> None:
        """Do what `check` does, in a thread without an event loop."""
        if self.has(name):
            self._await_plainly(self.check(name, **arguments))

    def notify_plainly(self, name: str, **arguments: Any) -> None:
        """Do what `notify` does, in a thread without an event loop."""
        if self.has(name):
            self._await_plainly(self.notify(name, **arguments))

    def ask_plainly(self, name: str, **arguments: Any) -> Any:
        """Do what `ask` does, in a thread without an event loop."""
        return self._await_plainly(self.ask(name, **arguments)) if self.has(name) else None

    def _found(self, name: str, policy: CallbackPolicy, arguments: Mapping[str, Any]) -> Iterator[_Callback]:
        kind = known_kinds(self._points).get(name)
        if kind is None or kind.policy is not policy:
            known = sorted(each.name for each in known_kinds(self._points).values() if each.policy is policy)
            raise UnknownRegistration(f"there is no callback {name!r} of this policy: known are {', '.join(known)}")
        if set(arguments) != set(kind.parameters):
            raise NotConforming(f"{name} is given {', '.join(kind.parameters)}, not {', '.join(arguments)}")
        values = [arguments[parameter] for parameter in kind.parameters]
        for each in self._contributions():
            function = getattr(each.instance, name, None)
            if function is not None:
                yield _Callback(name, function, each.plugin.id if each.plugin else "no plugin", values)

    def _contributions(self) -> list[Contribution]:
        contributions = self._points.contributions(CALLBACKS_POINT)
        if [id(each) for each in contributions] != [id(each) for each in self._seen]:
            self._seen = contributions
            self._warn_of_useless(contributions)
        return contributions

    def _warn_of_useless(self, contributions: list[Contribution]) -> None:
        names = sorted(known_kinds(self._points))
        for each in contributions:
            if not any(hasattr(each.instance, name) for name in names):
                _logger.warning(
                    "%r has no callback, and is never called: known are %s", each.instance, ", ".join(names)
                )


@dataclass(frozen=True)
class _Callback:
    """One callback that is to be called now."""

    name: str
    function: Any
    plugin: str
    values: list[Any]

    @property
    def title(self) -> str:
        return f"the callback {self.name} of {self.plugin}"

    async def answer(self, timeout_s: float) -> Any:
        """Call it.

        Raises:
            ModuleFailure: it raised, or took too long.
        """
        # What is JSON is copied: a callback that changes the request must not change what the saga works on.
        values = [copy.deepcopy(value) if isinstance(value, (dict, list)) else value for value in self.values]
        answer = None
        try:
            with anyio.move_on_after(timeout_s) as scope:
                answer = await call_apart(partial(self.function, *values))
        except Exception as error:
            raise ModuleFailure(f"{self.title} raised {type(error).__name__}: {error}") from error
        if scope.cancelled_caught:
            raise ModuleFailure(f"{self.title} took longer than {timeout_s:g} s: let it give up earlier")
        return answer


def _denial(callback: _Callback, answer: str | bool) -> OperationDenied:
    reason = answer if isinstance(answer, str) else ""
    return OperationDenied(
        f"{callback.title} denied it: {reason or 'it gives no reason'}", callback.name, callback.plugin, reason
    )


def _await_in_a_loop_of_its_own(coroutine: Coroutine[Any, Any, Any]) -> Any:
    async def run() -> Any:
        return await coroutine

    return anyio.run(run)
