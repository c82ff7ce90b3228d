"""Steps that are made to fail."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, TypeAlias

from connect.eaas.core.responses import BackgroundResponse

from saga_engine.errors import SagaError
from saga_engine.plan import Step, Workflow
from saga_engine.signals import WaitFor
from transactions import InvalidTransaction, Suspend

__all__ = ["Fault", "Faults", "StepMadeToFail", "UnknownStep", "faults_of", "injected"]

#: What `execute` does instead of its work: raise this, or answer this.
Fault: TypeAlias = Exception | type[Exception] | BackgroundResponse | Suspend
Faults: TypeAlias = Mapping[str, Fault]


class StepMadeToFail(SagaError):
    """The test made this step fail."""


class UnknownStep(SagaError):
    """The saga has no step of that name."""


def faults_of(fail_at: str | Faults | None) -> Faults:
    """Bring what a test may write into one form.

    Raises:
        InvalidTransaction: what a step is to do is neither an exception nor a response.
    """
    if fail_at is None:
        return {}
    if isinstance(fail_at, str):
        return {fail_at: StepMadeToFail(f"{fail_at} was made to fail by fail_at={fail_at!r}")}
    for step, fault in fail_at.items():
        if not (isinstance(fault, (Exception, BackgroundResponse, Suspend)) or _is_exception_class(fault)):
            raise InvalidTransaction(f"fail_at[{step!r}] is {fault!r}: give an exception or a BackgroundResponse")
    return fail_at


def _is_exception_class(fault: Any) -> bool:
    return isinstance(fault, type) and issubclass(fault, Exception)


@contextmanager
def injected(workflow: Workflow, faults: Faults) -> Iterator[Workflow]:
    """Replace `execute` of these steps for a while; they stay the same objects, which a test may hold.

    Gives the workflow to drive with, whose faults outlast what is built anew while it is driven.

    Args:
        workflow: the steps.
        faults: what some of them do, by their names in the plan (`Child/Step` for a step of a child saga).

    Raises:
        UnknownStep: one of them is no step of this workflow.
        InvalidTransaction: one of them waits for a signal, and executes nothing.
    """
    for name in faults:
        _check(name, workflow)
    with ExitStack() as stack:
        declared, built = workflow.declared, workflow.build
        faulty = _FaultyWorkflow(workflow.saga, workflow.steps, workflow.scopes, declared, built, workflow.adopted)
        faulty.faults, faulty.stack = faults, stack
        faulty.inject(faults)
        yield faulty


class _FaultyWorkflow(Workflow):
    """A workflow that makes what it rebuilds fail, too."""

    __slots__ = ("faults", "stack")

    faults: Faults
    stack: ExitStack

    def rebuild(self, scope: str) -> None:
        super().rebuild(scope)
        self.inject(name for name in self.faults if self.steps[name].scope == scope)

    def inject(self, names: Iterable[str]) -> None:
        for name in names:
            self.stack.enter_context(_injected(self.steps[name], self.faults[name]))


def _check(name: str, workflow: Workflow) -> None:
    if name not in workflow.steps:
        raise UnknownStep(f"fail_at names {name!r}: the steps of this request are {list(workflow.steps)}")
    if isinstance(workflow.steps[name].transaction, WaitFor):
        raise InvalidTransaction(
            f"fail_at names {name!r}, which executes nothing: give it a timeout_s, and leave its signal out of signals="
        )


@contextmanager
def _injected(step: Step, fault: Fault) -> Iterator[None]:
    transaction = step.transaction
    own = vars(transaction).get("execute")
    object.__setattr__(transaction, "execute", _doing(fault))
    try:
        yield
    finally:
        object.__delattr__(transaction, "execute")
        if own is not None:
            object.__setattr__(transaction, "execute", own)


def _doing(fault: Fault) -> Callable[[dict[str, Any]], Any]:
    def execute(request: dict[str, Any]) -> Any:
        if isinstance(fault, (BackgroundResponse, Suspend)):
            return fault
        raise fault

    return execute
