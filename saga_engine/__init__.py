"""Declare a fulfillment workflow as a class; the engine runs it to the end, or undoes it in reverse."""

from saga_engine import errors
from saga_engine.context import SagaContext, current_context
from saga_engine.engine import Engine, default_engine
from saga_engine.journal import SagaStatus, StepStatus
from saga_engine.record import SagaRecord, StepRecord
from saga_engine.saga import Saga

__all__ = [
    "Engine",
    "Saga",
    "SagaContext",
    "SagaRecord",
    "SagaStatus",
    "StepRecord",
    "StepStatus",
    "current_context",
    "default_engine",
    "errors",
]
