"""From a saga's declaration to the steps of one execution: what is built, named, checked and journaled."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeVar

from tenacity import stop_after_attempt, stop_never, wait_random_exponential

from saga_engine.context import SagaContext
from saga_engine.errors import BadRequest, InvalidTransaction, SagaError
from saga_engine.journal import ExclusiveRight, Plan, PlanScope, PlanStep, Policy
from saga_engine.layout import Layout, Level, Place, lay_out
from saga_engine.logs import OnceLogger, step_logger
from saga_engine.saga import CacheProvider, Saga, Services
from saga_engine.services import AsyncServiceWanted, Container, bind_config
from saga_engine.services.bindings import Registration
from saga_engine.services.container import wants_nothing
from saga_engine.services.contributed import provided_by
from saga_engine.signals import WaitFor
from saga_engine.undoing import Undo, UndoSaga
from transactions import BackgroundTransaction, Kind, RetryPolicy
from transactions.adapters import FunctionBackgroundTransaction, as_transaction
from transactions.contracts import overrides

__all__ = [
    "Documents",
    "Step",
    "Workflow",
    "asks",
    "build_workflow",
    "default_cache",
    "exclusive_of",
    "plan_of",
    "policy_of",
]

T = TypeVar("T")
#: Waits in a plain thread for something async, and gives its result.
_Wait = Callable[[Awaitable[Any]], Any]

_ONCE = RetryPolicy(stop=stop_after_attempt(1))
_UNTIL_IT_SUCCEEDS = RetryPolicy(stop=stop_never, wait=wait_random_exponential(multiplier=1, max=3_600))
_ON_UNKNOWN = ("rerun", "compensate", "park")
_AFTER_PIVOT = (Kind.RETRIABLE, Kind.READ_ONLY)
_KEY_CHARS_MAX = 512


class Documents(Protocol):
    """What the steps of one drive read and write."""

    def request(self, scope: str) -> dict[str, Any]:
        """Give the live dict that steps of this scope may have injected as `request`."""

    def context(self, *, scope: str, saga_id: str, saga: str, step: str, path: str) -> SagaContext:
        """Make the context of one step; `path` is its name in the plan."""


@dataclass(slots=True)
class Step:
    """A transaction at its place in one execution, built for one drive.

    Attributes:
        name: its name in the plan: a step of a child saga has the child's path before its own (`Child/Step`).
        is_asked: it has a `should_execute` of its own.
        scope: where its state and request are, see `PlanScope`.
        needs: the steps that must be over before it starts.
        middlewares: what wraps its `execute`, outermost first.
    """

    name: str
    transaction: BackgroundTransaction
    context: SagaContext
    retry: RetryPolicy
    compensation_retry: RetryPolicy
    is_asked: bool
    scope: str
    needs: tuple[str, ...]
    middlewares: tuple[Any, ...]


@dataclass(slots=True)
class Workflow:
    """All steps of one execution, by name and in the order of the plan.

    Attributes:
        declared: what the steps are built from.
        build: what built them first.
        adopted: the journaled plan whose kinds win, once there is one.
    """

    saga: Saga
    steps: dict[str, Step]
    scopes: tuple[PlanScope, ...]
    declared: _Declared
    build: _Build
    adopted: Plan | None = None

    def rebuild(self, scope: str) -> None:
        """Build the steps of exactly this scope anew: an attempt that was given up keeps the old objects.

        Raises:
            InvalidTransaction: the saga's list is not the one that it was.
        """
        layout = self.declared.layout()
        if len(layout.places) != len(self.steps):
            raise _other_steps(self.saga)
        build = _Build(self.declared, self.build)
        for place, old in zip(layout.places, list(self.steps.values()), strict=True):
            if old.scope == scope:
                fresh = build.step(place, scope)
                if fresh.name != old.name:
                    raise _other_steps(self.saga)
                fresh.needs = old.needs
                self.steps[old.name] = fresh
        _set_policies(self)


def _other_steps(saga: Saga) -> InvalidTransaction:
    return InvalidTransaction(
        f"{type(saga).__name__}.transactions(request) listed other steps when it was asked again: let the list depend "
        "on nothing but the request"
    )


@dataclass(slots=True, frozen=True)
class Contributed:
    """What plugins contribute to every saga of an engine.

    Attributes:
        middlewares: callables, or classes to build; outside those of the sagas themselves.
        container: the application's container. A saga's own providers replace what it holds. None: there is none.
    """

    middlewares: tuple[Any, ...] = ()
    container: Container | None = None


_NOTHING = Contributed()


def build_workflow(
    saga: Saga,
    first_request: dict[str, Any],
    services: Services,
    documents: Documents,
    saga_id: str,
    undo: Undo,
    journaled: Plan | None = None,
    contributed: Contributed | None = None,
    wait: _Wait | None = None,
) -> Workflow:
    """Build the steps and middlewares of one execution anew.

    Args:
        saga: the saga.
        first_request: the request of the start, on which alone the lists of transactions depend (S1).
        services: what the steps are built with.
        documents: gives the requests that the steps may have injected, and their contexts.
        saga_id: the execution, with its generation.
        undo: undoes a completed execution of another saga, for `Saga.undoes`.
        journaled: the plan of an execution that goes on: its kinds and scopes win over those of later code (S1).
        contributed: what plugins contribute; None: nothing.
        wait: waits for async service providers; None: nothing can wait here.

    Raises:
        TransactionNotSelected: the saga, or a child in it, lists no transactions.
        BadDefinition: a saga cannot be a child, or contains itself.
        BadRequest: the request does not say what a saga with `undoes` is to undo.
        InvalidTransaction: an entry cannot be used, or two steps have one name.
        DependencyBuildingFailure: a service is missing.
        AsyncServiceWanted: an async provider is to be awaited, and nothing can wait here.
    """
    declared = _Declared(saga, first_request, services, documents, saga_id, undo, contributed or _NOTHING, wait)
    layout = declared.layout()
    build = _Build(declared)
    steps = _steps_of(layout, build, journaled)
    for scope in layout.scopes:
        if scope.child in steps:
            raise _same_name(saga, scope.child)
    scopes = tuple(layout.scopes) if journaled is None else journaled.scopes
    workflow = Workflow(saga, steps, scopes, declared, build, journaled)
    _set_policies(workflow)
    return workflow


def _steps_of(layout: Layout, build: _Build, journaled: Plan | None) -> dict[str, Step]:
    planned = {} if journaled is None else {step.name: step for step in journaled.steps}
    known = {""} if journaled is None else {"", *(scope.id for scope in journaled.scopes)}
    names: list[str] = []
    steps: dict[str, Step] = {}
    for place in layout.places:
        # Later code may have moved the step: its documents are where the journal says.
        step = build.step(place, place.scope if journaled is None or place.scope in known else "")
        found = planned.get(step.name)
        if found is not None and found.scope != step.scope:
            step = build.step(place, found.scope)
        if step.name in steps:
            raise _same_name(build.saga, step.name)
        step.needs = tuple([names[need] for need in place.needs])
        names.append(step.name)
        steps[step.name] = step
    return steps


def _same_name(saga: Saga, name: str) -> InvalidTransaction:
    return InvalidTransaction(f"{type(saga).__name__} has two steps named {name!r}: give one of them another name()")


@dataclass(slots=True, frozen=True)
class _Declared:
    """What a workflow is built from."""

    saga: Saga
    first_request: dict[str, Any]
    services: Services
    documents: Documents
    saga_id: str
    undo: Undo
    contributed: Contributed
    wait: _Wait | None

    def layout(self) -> Layout:
        """Ask for the lists and lay them out."""
        first = [_undo_step(self.saga, self.first_request, self.undo)] if self.saga.undoes is not None else []
        return lay_out(self.saga, first, self.first_request, self.services)


def _undo_step(saga: Saga, request: dict[str, Any], undo: Undo) -> UndoSaga:
    assert saga.undoes is not None, "only a saga that undoes one has this step"
    undone, where = saga.undoes.__name__, f"{type(saga).__name__}.undoes_key(request)"
    try:
        key = saga.undoes_key(request)
    except SagaError:
        raise
    except Exception as error:
        raised = f"{where} raised {type(error).__name__}: {error}"
        raise BadRequest(f"{raised}: deliver a request that tells which {undone} it undoes") from error
    if not isinstance(key, str) or not 0 < len(key) <= _KEY_CHARS_MAX:
        raise BadRequest(f"{where} gave {key!r:.200}: it must give a str of 1 to {_KEY_CHARS_MAX} characters")
    return UndoSaga(undone, f"{undone}:{key}", undo, type(saga).__name__)


class _Build:
    """Builds steps, with one container for each saga and one set of middlewares for each scope.

    All that is built in one drive costs what a saga of a few quick steps costs; so what a step does not want is not
    made for it: no scope of its own in the container, no logger, not even the container.

    What is built anew in the middle of a drive, where nothing can wait, gets what async providers gave the `earlier`
    build.
    """

    def __init__(self, declared: _Declared, earlier: _Build | None = None) -> None:
        self.saga = declared.saga
        self._earlier = earlier
        self._services = declared.services
        self._documents = declared.documents
        self._saga_id = declared.saga_id
        self._first_request = declared.first_request
        self._contributed = declared.contributed
        self._wait = declared.wait
        application = declared.contributed.container
        self._may_be_replaced = application is not None and application.may_replace_classes
        self._containers: dict[str, Container] = {}
        self._listed: dict[str, tuple[Any, ...]] = {}
        self._middlewares: dict[tuple[str, str], tuple[Any, ...]] = {}
        self._variables: Container | None = None
        config = declared.services.config
        if config:  # what is wrong with them is told even if no step wants any
            self._variables = bind_config(self._outermost(), config, OnceLogger(self._logger))

    def _outermost(self) -> Container:
        """Give a scope of this drive: inside the application's container, if there is one."""
        application = self._contributed.container
        return Container() if application is None else application.child()

    @cached_property
    def _logger(self) -> Any:
        """The logger of what belongs to no step."""
        return step_logger(self._services.logger)

    def step(self, place: Place, scope: str) -> Step:
        """Build one step; what it needs and how it is retried is filled in later."""
        level = place.level
        context = self._documents.context(
            scope=scope,
            saga_id=f"{self._saga_id}/{level.path}" if level.path else self._saga_id,
            saga=level.kind.__name__,
            step="",
            path="",
        )
        transaction = self._transaction(place.entry, level, scope, context)
        name = transaction.name()
        _check_transaction(name, transaction, level)
        context.step = name
        context.path = f"{level.path}/{name}" if level.path else name
        return Step(
            name=context.path,
            transaction=transaction,
            context=context,
            retry=_ONCE,
            compensation_retry=transaction.compensation_retry or level.saga.compensation_retry,
            is_asked=overrides(transaction, "should_execute"),
            scope=scope,
            needs=(),
            middlewares=self._middlewares_at(level, scope),
        )

    def _transaction(self, entry: Any, level: Level, scope: str, context: SagaContext) -> BackgroundTransaction:
        if isinstance(entry, type):
            if not issubclass(entry, BackgroundTransaction):
                raise InvalidTransaction(
                    f"{entry.__qualname__} is no transaction: derive it from BackgroundTransaction"
                )
            if not level.saga.providers and not self._may_be_replaced and wants_nothing(entry):
                return entry()  # only a provider binds a class
            return self._built(self._container(level), entry, lambda: self._own_services(scope, context))
        if isinstance(entry, (list, set, frozenset)):
            raise InvalidTransaction(f"{entry!r} is no transaction: write Chain(...) or Parallel(...) for several")
        transaction = as_transaction(entry)
        if isinstance(transaction, FunctionBackgroundTransaction) and transaction.service_names:
            container = self._container(level).child(**self._own_services(scope, context))
            return transaction.with_services(self._arguments(container, transaction.function))
        return transaction

    def _built(self, container: Container, cls: type[T], own: Callable[[], dict[str, Any]]) -> T:
        """Build a class in a scope with these services, and wait for async providers if need be."""
        try:
            return container.get_inside(cls, own)
        except AsyncServiceWanted:
            if self._wait is None:
                raise
            built: T = self._wait(container.child(**own()).aget(cls))
            return built

    def _arguments(self, container: Container, function: Callable[..., Any]) -> dict[str, Any]:
        """Do for a function what `_built` does for a class."""
        try:
            return container.arguments_for(function)
        except AsyncServiceWanted:
            if self._wait is None:
                raise
            arguments: dict[str, Any] = self._wait(container.aarguments_for(function))
            return arguments

    def _own_services(self, scope: str, context: SagaContext) -> dict[str, Any]:
        """Give what one step has in front of what its saga's container holds."""
        logger = step_logger(self._services.logger, context)
        return {"context": context, "logger": logger, "request": self._documents.request(scope)}

    def _container(self, level: Level) -> Container:
        """Give a saga's own scope: variables outermost, then the core services, then what providers provide."""
        found = self._containers.get(level.path)
        if found is None:
            if self._variables is None:
                self._variables = self._outermost().child(config={})
            found = self._containers[level.path] = self._variables.scope(
                "execution",
                client=self._services.client,
                logger=self._logger,
                request=self._documents.request(level.path),
            )
            providers = level.saga.providers
            if "cache" not in providers and not found.is_bound("cache"):
                found.bind_registrations([default_cache()])
            for provider in providers.values():
                found.bind_registrations(provided_by(provider))
            if self._earlier is not None and level.path in self._earlier._containers:
                found.adopt_awaited(self._earlier._containers[level.path])
        return found

    def _middlewares_at(self, level: Level, scope: str) -> tuple[Any, ...]:
        """Give what wraps the steps of a saga in one scope: the middlewares of the sagas around it, then its own."""
        found = self._middlewares.get((level.path, scope))
        if found is None:
            if level.parent is None:
                outer = self._built_middlewares(level, scope, self._contributed.middlewares)
            else:
                outer = self._middlewares_at(level.parent, scope)
            found = self._middlewares[level.path, scope] = (*outer, *self._own_middlewares(level, scope))
        return found

    def _own_middlewares(self, level: Level, scope: str) -> tuple[Any, ...]:
        listed = self._listed.get(level.path)
        if listed is None:
            listed = tuple([entry for entry in level.saga.middlewares(self._first_request) if entry])
            self._listed[level.path] = listed
        return self._built_middlewares(level, scope, listed)

    def _built_middlewares(self, level: Level, scope: str, listed: tuple[Any, ...]) -> tuple[Any, ...]:
        if not listed:
            return ()
        container = self._container(level)
        own = {"request": self._documents.request(scope)}
        return tuple([self._built_middleware(container, entry, own) for entry in listed])

    def _built_middleware(self, container: Container, entry: Any, own: dict[str, Any]) -> Any:
        middleware = self._built(container, entry, lambda: own) if isinstance(entry, type) else entry
        if not callable(middleware):
            raise InvalidTransaction(f"middleware {middleware!r} is not callable: give (request, nxt) -> response")
        return middleware


def default_cache() -> Registration:
    """Give the default `cache` without asking its provider for a list: it is bound in every drive."""
    provide, origin = CacheProvider().provide_cache, "CacheProvider.provide_cache"
    return Registration("cache", provide, "provider", origin, is_default=True)


def _check_transaction(name: Any, transaction: BackgroundTransaction, level: Level) -> None:
    """Check what a transaction declares, before anything runs."""
    if not isinstance(name, str) or not name.strip():
        kind = type(transaction).__qualname__
        raise InvalidTransaction(f"{kind}.name() is {name!r}: return a non-empty str")
    if not isinstance(transaction.kind, Kind):
        raise InvalidTransaction(f"{name}: kind is {transaction.kind!r}: choose one of {[str(k) for k in Kind]}")
    if transaction.on_unknown not in _ON_UNKNOWN:
        raise InvalidTransaction(f"{name}: on_unknown is {transaction.on_unknown!r}: choose one of {_ON_UNKNOWN}")
    for attribute in ("retry", "compensation_retry"):
        policy = getattr(transaction, attribute)
        if policy is not None and not isinstance(policy, RetryPolicy):
            raise InvalidTransaction(f"{name}: {attribute} is {policy!r}: give a RetryPolicy or None")
    _check_times(name, transaction)
    if level.saga.mode == "select" and (transaction.kind is Kind.PIVOT or isinstance(transaction, WaitFor)):
        raise InvalidTransaction(
            f"{name}: mode 'select' runs one transaction, so that it has neither a pivot nor a WaitFor: make the mode "
            f"of {level.kind.__name__} 'chain'"
        )


def _check_times(name: str, transaction: BackgroundTransaction) -> None:
    timeout_s, abandon_s = transaction.timeout_s, transaction.abandon_s
    if timeout_s is not None and not (_is_number(timeout_s) and timeout_s > 0):
        raise InvalidTransaction(f"{name}: timeout_s is {timeout_s!r}: give a number of seconds above 0, or None")
    if not (_is_number(abandon_s) and abandon_s >= 0):
        raise InvalidTransaction(f"{name}: abandon_s is {abandon_s!r}: give a number of seconds of at least 0")
    if not isinstance(transaction.is_idempotent, bool):
        raise InvalidTransaction(f"{name}: is_idempotent is {transaction.is_idempotent!r}: give True or False")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value < float("inf")


def _set_policies(workflow: Workflow) -> None:
    """Give each step its retries: by its own policy, or else by its kind and its place behind the pivot (S1, S20)."""
    if workflow.adopted is None:
        kinds = {name: step.transaction.kind for name, step in workflow.steps.items()}
    else:
        kinds = {planned.name: planned.kind for planned in workflow.adopted.steps if planned.name in workflow.steps}
    is_after_pivot = False
    for name, kind in kinds.items():
        step = workflow.steps[name]
        keeps_trying = is_after_pivot or kind is Kind.RETRIABLE
        step.retry = step.transaction.retry or (_UNTIL_IT_SUCCEEDS if keeps_trying else _ONCE)
        is_after_pivot = is_after_pivot or kind is Kind.PIVOT


def plan_of(workflow: Workflow, exclusive: ExclusiveRight | None) -> Plan:
    """Give what is journaled of the steps, once they are in a possible order.

    Args:
        workflow: the steps, just built for a new execution.
        exclusive: what `exclusive_of` gave.

    Raises:
        InvalidTransaction: the kinds of the steps are in an impossible order (S20).
    """
    _check_order(workflow)
    return Plan(
        steps=tuple([_planned(step) for step in workflow.steps.values()]),
        mode="select" if workflow.saga.mode == "select" else "chain",
        scopes=workflow.scopes,
        exclusive=exclusive,
    )


def _planned(step: Step) -> PlanStep:
    transaction = step.transaction
    awaited = transaction if isinstance(transaction, WaitFor) else None
    return PlanStep(
        name=step.name,
        kind=transaction.kind,
        needs=step.needs,
        probed=overrides(transaction, "probe"),
        on_unknown=transaction.on_unknown,  # type: ignore[arg-type]  # checked when it was built
        has_undo=overrides(transaction, "compensate"),
        is_idempotent=transaction.is_idempotent,
        scope=step.scope,
        signal=None if awaited is None else awaited.signal,
        signal_timeout_s=None if awaited is None else awaited.signal_timeout_s,
    )


def _check_order(workflow: Workflow) -> None:
    """Refuse what could neither be undone nor carried through."""
    pivot: Step | None = None
    for step in workflow.steps.values():
        kind = step.transaction.kind
        if pivot is not None and kind not in _AFTER_PIVOT:
            _refuse_behind(pivot, step)
        if kind is Kind.PIVOT:
            _check_pivot(workflow, step)
            pivot = step


def _refuse_behind(pivot: Step, step: Step) -> None:
    if step.transaction.kind is Kind.PIVOT:
        raise InvalidTransaction(
            f"{step.name} is a second pivot, after {pivot.name}: a saga has one point of no return; make one of them "
            "retriable, or compensatable and before the other"
        )
    raise InvalidTransaction(
        f"{step.name} is compensatable and comes after the pivot {pivot.name}, behind which nothing is undone: move it "
        "before the pivot, or make it retriable or read-only"
    )


def _check_pivot(workflow: Workflow, step: Step) -> None:
    if step.transaction.on_unknown == "compensate":
        raise InvalidTransaction(
            f"{step.name}: on_unknown is 'compensate' and it is a pivot, which is not undone while nobody knows "
            "whether it took effect: choose 'rerun' or 'park'"
        )
    scopes = {scope.id: scope for scope in workflow.scopes}
    scope = step.scope
    while scope:
        if not scopes[scope].child:
            raise InvalidTransaction(
                f"{step.name} is a pivot inside a parallel group, whose other branches could then neither be undone "
                "nor be sure to succeed: put it behind the group"
            )
        scope = scopes[scope].parent


def exclusive_of(saga: Saga, request: dict[str, Any]) -> ExclusiveRight | None:
    """Give the right that an execution of this request needs; None: none.

    Raises:
        BadRequest: the saga's key for it cannot be used.
    """
    return None if saga.exclusive is None else saga.exclusive.right_for(type(saga).__name__, request)


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
