"""Tuples and functions as transactions, and how one transaction is picked out of several."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeAlias, overload

from transactions.contracts import (
    AnsweringTransaction,
    BackgroundTransaction,
    FnBackgroundCompensation,
    FnBackgroundExecution,
    FnBackgroundPredicate,
)
from transactions.errors import InvalidTransaction, TransactionNotSelected
from transactions.policy import Kind, Probe, RetryPolicy

__all__ = [
    "AnyTransaction",
    "FunctionBackgroundTransaction",
    "TransactionSelector",
    "TupleBackgroundTransaction",
    "as_transaction",
    "prepare",
    "select",
    "transaction",
]

#: What can be selected and prepared: a step of a saga, or a transaction that answers at once.
AnyTransaction: TypeAlias = BackgroundTransaction | AnsweringTransaction


class TupleBackgroundTransaction(BackgroundTransaction):
    """The tuple `(name, predicate, execute[, compensate])` as a transaction.

    Without `compensate` the transaction has no undo.

    Raises:
        InvalidTransaction: the name is no text, or one of the others no function.
    """

    def __init__(
        self,
        name: str,
        predicate: FnBackgroundPredicate,
        execution: FnBackgroundExecution,
        compensation: FnBackgroundCompensation | None = None,
    ) -> None:
        label = f"transaction tuple {name!r}"
        if not (isinstance(name, str) and name):
            raise InvalidTransaction(f"{label}: give a non-empty str as its name")
        for part, function in (("predicate", predicate), ("execute", execution)):
            if not callable(function):
                raise InvalidTransaction(f"{label}: its {part} is {function!r}; give a function")
        self._name = name
        self._predicate = predicate
        self._execution = execution
        _adopt(self, label, {"compensate": compensation})

    def name(self) -> str:
        return self._name

    def should_execute(self, request: dict[str, Any]) -> Any:
        return self._predicate(request)

    def execute(self, request: dict[str, Any]) -> Any:
        return self._execution(request)


class FunctionBackgroundTransaction(BackgroundTransaction):
    """A function as a transaction; made by `@transaction`.

    The function's first parameter is the request. Each further parameter is a service that whoever runs the
    transaction injects by its name, as into the constructor of a transaction class.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        should_execute: FnBackgroundPredicate | None = None,
        compensate: FnBackgroundCompensation | None = None,
        probe: Callable[[dict[str, Any]], Any] | None = None,
        kind: Kind = Kind.COMPENSATABLE,
        retry: RetryPolicy | None = None,
        compensation_retry: RetryPolicy | None = None,
        on_unknown: str = "rerun",
        is_idempotent: bool = False,
        timeout_s: float | None = None,
        abandon_s: float = 60.0,
    ) -> None:
        self._name = _name_of(function, name)
        self._parameters = _parameters_of(function, self._name)
        self._function = function
        self._services: dict[str, Any] = {}
        self.kind = kind
        self.retry, self.compensation_retry = retry, compensation_retry
        self.on_unknown, self.is_idempotent = on_unknown, is_idempotent
        self.timeout_s, self.abandon_s = timeout_s, abandon_s
        own = {"should_execute": should_execute, "compensate": compensate, "probe": probe}
        _adopt(self, f"transaction {self._name!r}", own)

    @property
    def function(self) -> Callable[..., Any]:
        """The function itself."""
        return self._function

    @property
    def service_names(self) -> tuple[str, ...]:
        """The names of the services that the function wants, in order."""
        return tuple(parameter.name for parameter in self._parameters)

    def with_services(self, services: Mapping[str, Any]) -> FunctionBackgroundTransaction:
        """Give the same transaction with its services filled in; this one stays without.

        Args:
            services: a value for each of `service_names` that has no default; others are not looked at.
        """
        twin = copy.copy(self)
        twin._services = {name: services[name] for name in self.service_names if name in services}
        return twin

    def name(self) -> str:
        return self._name

    def execute(self, request: dict[str, Any]) -> Any:
        missing = [p.name for p in self._parameters if p.name not in self._services and p.default is p.empty]
        if missing:
            raise InvalidTransaction(
                f"transaction {self._name!r} wants {', '.join(missing)}: run it in a saga, which injects "
                "services, or call with_services() first"
            )
        return self._function(request, **self._services)


def _adopt(step: BackgroundTransaction, label: str, functions: Mapping[str, Any]) -> None:
    """Give the step those of the functions that are there, as its own methods.

    The step gets no method for the others, so that `contracts.overrides` can tell that they are the defaults.
    """
    for method, function in functions.items():
        if function is None:
            continue
        if not callable(function):
            raise InvalidTransaction(f"{label}: its {method} is {function!r}; give a function")
        setattr(step, method, function)


def _name_of(function: Any, name: str | None) -> str:
    if not callable(function) or inspect.isclass(function):
        raise InvalidTransaction(
            f"@transaction on {function!r}: put it above a function (request, ...), its own arguments by "
            "name; a transaction class needs no decorator"
        )
    found = getattr(function, "__name__", None) if name is None else name
    if not (isinstance(found, str) and found):
        raise InvalidTransaction(f"@transaction on {function!r}: say @transaction(name=...), a non-empty str")
    return found


def _parameters_of(function: Callable[..., Any], name: str) -> tuple[inspect.Parameter, ...]:
    """List the function's parameters after the request."""
    parameters = list(inspect.signature(function).parameters.values())
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if not parameters or parameters[0].kind not in by_position:
        raise InvalidTransaction(
            f"@transaction on {name}: its first parameter is the request; write def {name}(request)"
        )
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    for parameter in parameters[1:]:
        if parameter.kind not in by_name:
            raise InvalidTransaction(
                f"@transaction on {name}: `{parameter}` cannot be injected by name; name each service as a "
                f"parameter, as in def {name}(request, client)"
            )
    return tuple(parameters[1:])


@overload
def transaction(function: Callable[..., Any], /) -> FunctionBackgroundTransaction: ...


@overload
def transaction(
    *,
    name: str | None = None,
    should_execute: FnBackgroundPredicate | None = None,
    compensate: FnBackgroundCompensation | None = None,
    probe: Callable[[dict[str, Any]], Probe | Awaitable[Probe]] | None = None,
    kind: Kind = Kind.COMPENSATABLE,
    retry: RetryPolicy | None = None,
    compensation_retry: RetryPolicy | None = None,
    on_unknown: str = "rerun",
    is_idempotent: bool = False,
    timeout_s: float | None = None,
    abandon_s: float = 60.0,
) -> Callable[[Callable[..., Any]], FunctionBackgroundTransaction]: ...


def transaction(function: Callable[..., Any] | None = None, /, **declared: Any) -> Any:
    """Make a function a step: `@transaction`, or `@transaction(name=..., compensate=..., ...)`.

    The function is the step's `execute`; its name is the step's name unless `name` is given. Without
    `compensate` the step has no undo, so a step without any effect should say `kind=Kind.READ_ONLY`. The other
    arguments are the attributes and methods of a `BackgroundTransaction`.

    Raises:
        InvalidTransaction: it decorates no function, the function does not take the request as its first
            parameter, or a further parameter is no named service.
    """
    if function is not None:
        return FunctionBackgroundTransaction(function, **declared)

    def decorate(decorated: Callable[..., Any]) -> FunctionBackgroundTransaction:
        return FunctionBackgroundTransaction(decorated, **declared)

    return decorate


def as_transaction(entry: Any) -> BackgroundTransaction:
    """Make an entry of a list of transactions into a transaction; build nothing.

    Args:
        entry: a transaction, or a tuple `(name, predicate, execute[, compensate])`.

    Raises:
        InvalidTransaction: it is neither (a class, too: only a saga builds those).
    """
    if isinstance(entry, BackgroundTransaction):
        return entry
    if isinstance(entry, tuple) and len(entry) in (3, 4):
        return TupleBackgroundTransaction(*entry)
    if inspect.isclass(entry):
        raise InvalidTransaction(
            f"{entry!r} is a class, and only a saga builds classes: give an instance of it, made with its services"
        )
    raise InvalidTransaction(
        f"{entry!r} is no transaction: give a BackgroundTransaction, a function decorated with @transaction, "
        "or a tuple (name, predicate, execute[, compensate])"
    )


def _as_any_transaction(entry: Any) -> AnyTransaction:
    return entry if isinstance(entry, AnsweringTransaction) else as_transaction(entry)


def select(transactions: Iterable[Any], request: dict[str, Any]) -> AnyTransaction:
    """Pick the first transaction whose `should_execute` is true; falsy entries are dropped.

    Raises:
        InvalidTransaction: an entry is no transaction, or has an `async` predicate, which only a saga awaits.
        TransactionNotSelected: none applies to the request.
    """
    for candidate in [_as_any_transaction(entry) for entry in transactions if entry]:
        if _applies(candidate, request):
            return candidate
    raise TransactionNotSelected(
        "no transaction applies to this request: make one's should_execute return True, or add one that does"
    )


def _applies(candidate: AnyTransaction, request: dict[str, Any]) -> bool:
    answer = candidate.should_execute(request)
    if not inspect.isawaitable(answer):
        return bool(answer)
    if inspect.iscoroutine(answer):
        answer.close()
    raise InvalidTransaction(
        f"should_execute of {candidate.name()!r} is async, which select() cannot await: make it plain, or "
        'let a saga with mode = "select" pick'
    )


def prepare(entry: Any) -> Callable[[dict[str, Any]], Any]:
    """Make one function of a transaction: `execute`, and on an exception `compensate`.

    The function's answer is to be awaited if the transaction's own is.

    Raises:
        InvalidTransaction: the entry is no transaction.
    """
    prepared = _as_any_transaction(entry)

    def execute_or_compensate(request: dict[str, Any]) -> Any:
        try:
            answer = prepared.execute(request)
        except Exception as e:
            return prepared.compensate(request, e)
        return _await_or_compensate(prepared, request, answer) if inspect.isawaitable(answer) else answer

    return execute_or_compensate


async def _await_or_compensate(prepared: AnyTransaction, request: dict[str, Any], answer: Awaitable[Any]) -> Any:
    try:
        return await answer
    except Exception as e:
        undone = prepared.compensate(request, e)
        return await undone if inspect.isawaitable(undone) else undone


class TransactionSelector:
    """A list of transactions out of which `select` picks the first that applies.

    Args:
        transactions: transactions or tuples; falsy entries are dropped.
    """

    def __init__(self, transactions: Iterable[Any]) -> None:
        self._transactions = list(transactions)

    def select(self, request: dict[str, Any]) -> AnyTransaction:
        """Pick the first transaction whose `should_execute` is true; see `transactions.select`."""
        return select(self._transactions, request)
