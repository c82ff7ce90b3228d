"""Steps that are made to fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, TypeAlias

from connect.eaas.core.responses import BackgroundResponse

from saga_engine.errors import SagaError
from saga_engine.plan import Step, Workflow
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
def injected(workflow: Workflow, faults: Faults) -> Iterator[None]:
    """Replace `execute` of these steps for a while; they stay the same objects, which a test may hold.

    Raises:
        UnknownStep: one of them is no step of this workflow.
    """
    unknown = [name for name in faults if name not in workflow.steps]
    if unknown:
        raise UnknownStep(f"fail_at names {unknown[0]!r}: the steps of this request are {list(workflow.steps)}")
    with ExitStack() as stack:
        for name, fault in faults.items():
            stack.enter_context(_injected(workflow.steps[name], fault))
        yield


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
