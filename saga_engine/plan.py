"""From a saga's declaration to the steps of one execution: what is built, named, checked and journaled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tenacity import stop_after_attempt, stop_never, wait_random_exponential

from saga_engine.context import SagaContext
from saga_engine.errors import InvalidTransaction, TransactionNotSelected
from saga_engine.journal import Plan, PlanStep, Policy
from saga_engine.logs import OnceLogger, step_logger
from saga_engine.saga import CacheProvider, Saga, Services
from saga_engine.services import Container, bind_config
from transactions import BackgroundTransaction, Kind, RetryPolicy
from transactions.adapters import FunctionBackgroundTransaction, as_transaction
from transactions.contracts import overrides

__all__ = ["Step", "Workflow", "adopt_kinds", "asks", "build_workflow", "plan_of", "policy_of"]

_ONCE = RetryPolicy(stop=stop_after_attempt(1))
_UNTIL_IT_SUCCEEDS = RetryPolicy(stop=stop_never, wait=wait_random_exponential(multiplier=1, max=3_600))
_ON_UNKNOWN = ("rerun", "compensate", "park")


@dataclass(slots=True)
class Step:
    """A transaction at its place in one execution, built for one drive.

    `is_asked`: it has a `should_execute` of its own.
    """

    name: str
    transaction: BackgroundTransaction
    context: SagaContext
    retry: RetryPolicy
    compensation_retry: RetryPolicy
    is_asked: bool


@dataclass(slots=True)
class Workflow:
    """All steps of one execution, by name and in order, and the middlewares around them."""

    saga: Saga
    steps: dict[str, Step]
    middlewares: list[Any] = field(default_factory=list)


def build_workflow(
    saga: Saga,
    first_request: dict[str, Any],
    request: dict[str, Any],
    services: Services,
    new_context: Callable[[], SagaContext],
) -> Workflow:
    """Build the steps and middlewares of one execution anew.

    Args:
        saga: the saga.
        first_request: the request of the start, on which alone the list of transactions depends (S1).
        request: the present request, which the steps may have injected.
        services: what the steps are built with.
        new_context: makes the context of one step.

    Raises:
        TransactionNotSelected: the saga lists no transactions.
        InvalidTransaction: an entry cannot be used, or two steps have one name.
        DependencyBuildingFailure: a service is missing.
    """
    entries = [entry for entry in saga.transactions(first_request) if entry]
    if not entries:
        raise TransactionNotSelected(
            f"{type(saga).__name__}.transactions(request) listed nothing for this request: list at least one"
        )
    container = _container(saga, request, services)
    steps: dict[str, Step] = {}
    for entry in entries:
        step = _build_step(saga, container, entry, services, new_context())
        if step.name in steps:
            raise InvalidTransaction(
                f"{type(saga).__name__} has two steps named {step.name!r}: give one of them another name()"
            )
        steps[step.name] = step
    middlewares = [_build_middleware(container, entry) for entry in saga.middlewares(request) if entry]
    return Workflow(saga, steps, middlewares)


def _container(saga: Saga, request: dict[str, Any], services: Services) -> Container:
    """Make the scope of one drive: variables outermost, then the core services, then what providers provide."""
    logger = step_logger(services.logger)
    root = bind_config(Container(), services.config or {}, OnceLogger(logger))
    scope = root.child(client=services.client, logger=logger, request=request)
    for provider in {"cache": CacheProvider, **saga.providers}.values():
        scope.bind_provider(provider)
    return scope


def _build_step(saga: Saga, container: Container, entry: Any, services: Services, context: SagaContext) -> Step:
    scope = container.child(context=context, logger=step_logger(services.logger, context))
    transaction = _build_transaction(scope, entry)
    name = transaction.name()
    _check_transaction(name, transaction, step_logger(services.logger))
    context.step = name
    retry = _retry_of(transaction, transaction.kind)
    undo = transaction.compensation_retry or saga.compensation_retry
    is_asked = overrides(transaction, "should_execute")
    return Step(name, transaction, context, retry, undo, is_asked)


def _retry_of(transaction: BackgroundTransaction, kind: Kind) -> RetryPolicy:
    return transaction.retry or (_UNTIL_IT_SUCCEEDS if kind is Kind.RETRIABLE else _ONCE)


def _build_transaction(scope: Container, entry: Any) -> BackgroundTransaction:
    if isinstance(entry, type):
        if issubclass(entry, BackgroundTransaction):
            return scope.get(entry)
        raise InvalidTransaction(f"{entry.__qualname__} is no transaction: derive it from BackgroundTransaction")
    transaction = as_transaction(entry)
    if isinstance(transaction, FunctionBackgroundTransaction) and transaction.service_names:
        return transaction.with_services(scope.arguments_for(transaction.function))
    return transaction


def _check_transaction(name: Any, transaction: BackgroundTransaction, logger: Any) -> None:
    kind = type(transaction).__qualname__
    if not isinstance(name, str) or not name.strip():
        raise InvalidTransaction(f"{kind}.name() is {name!r}: return a non-empty str")
    if not isinstance(transaction.kind, Kind):
        raise InvalidTransaction(f"{name}: kind is {transaction.kind!r}: choose one of {[str(k) for k in Kind]}")
    if transaction.kind is Kind.PIVOT:
        raise InvalidTransaction(
            f"{name}: this release does not carry out Kind.PIVOT: leave kind at its default, and let compensate "
            "raise e if there is no undo"
        )
    for attribute in ("timeout_s", "abandon_s"):
        if getattr(transaction, attribute, None) is not None:
            OnceLogger(logger).warning(
                "%s: this release does not enforce %s; set the time-out of the client that the step uses",
                type(transaction).__qualname__,
                attribute,
            )
    if transaction.on_unknown not in _ON_UNKNOWN:
        raise InvalidTransaction(f"{name}: on_unknown is {transaction.on_unknown!r}: choose one of {_ON_UNKNOWN}")
    for attribute in ("retry", "compensation_retry"):
        policy = getattr(transaction, attribute)
        if policy is not None and not isinstance(policy, RetryPolicy):
            raise InvalidTransaction(f"{name}: {attribute} is {policy!r}: give a RetryPolicy or None")


def _build_middleware(container: Container, entry: Any) -> Any:
    middleware = container.get(entry) if isinstance(entry, type) else entry
    if not callable(middleware):
        raise InvalidTransaction(f"middleware {middleware!r} is not callable: give (request, nxt) -> response")
    return middleware


def plan_of(workflow: Workflow) -> Plan:
    """Give what is journaled of the steps: a chain, in which each step needs the one before (S1)."""
    is_chain = workflow.saga.mode == "chain"
    steps: list[PlanStep] = []
    for name, step in workflow.steps.items():
        needs = (steps[-1].name,) if steps and is_chain else ()
        transaction = step.transaction
        steps.append(
            PlanStep(
                name=name,
                kind=transaction.kind,
                needs=needs,
                probed=overrides(transaction, "probe"),
                on_unknown=transaction.on_unknown,  # type: ignore[arg-type]  # checked when it was built
            )
        )
    return Plan(steps=tuple(steps), mode="chain" if is_chain else "select")


def adopt_kinds(workflow: Workflow, plan: Plan) -> None:
    """Let the journaled kinds win over those of later code (S1)."""
    for planned in plan.steps:
        step = workflow.steps[planned.name]
        step.retry = _retry_of(step.transaction, planned.kind)


def policy_of(saga: type[Saga], now: float) -> Policy:
    """Give what is journaled of the saga's limits and choices."""
    return Policy(
        deadline_at=None if saga.deadline_s is None else now + saga.deadline_s,
        compensation_deadline_s=float(saga.compensation_deadline_s),
        park_policy=saga.park_policy,  # type: ignore[arg-type]  # checked by check_definition
        reschedules_max=saga.reschedules_max,
        recoveries_max=saga.recoveries_max,
        attempts_max=saga.attempts_max,
        entries_max=saga.entries_max,
        payload_bytes_max=saga.payload_bytes_max,
    )


def asks(workflow: Workflow) -> int:
    """Count the steps that have a `should_execute` of their own."""
    return sum(step.is_asked for step in workflow.steps.values())
