"""Declare a fulfillment workflow as a class; the engine runs it to the end, or undoes it in reverse."""

from saga_engine import errors
from saga_engine.context import SagaContext, current_context
from saga_engine.engine import Engine, default_engine
from saga_engine.exclusive import Exclusive
from saga_engine.groups import Chain, Parallel
from saga_engine.journal import SagaStatus, StepStatus
from saga_engine.record import SagaRecord, StepRecord
from saga_engine.saga import Saga
from saga_engine.signals import WaitFor

__all__ = [
    "Chain",
    "Engine",
    "Exclusive",
    "Parallel",
    "Saga",
    "SagaContext",
    "SagaRecord",
    "SagaStatus",
    "StepRecord",
    "StepStatus",
    "WaitFor",
    "current_context",
    "default_engine",
    "errors",
]
