"""What tests of a connector need: one transaction alone, a whole saga in memory, a context and a clock by hand.

The conformance suite for journals is in `saga_engine.testing.journals`, which needs pytest and is not imported here.
"""

from saga_engine.testing.clock import ManualClock
from saga_engine.testing.contexts import FakeContext, fake_context
from saga_engine.testing.faults import StepMadeToFail, UnknownStep
from saga_engine.testing.runs import SagaResult, run_saga
from saga_engine.testing.steps import StepResult, compensate_step, probe_step, run_step

__all__ = [
    "FakeContext",
    "ManualClock",
    "SagaResult",
    "StepMadeToFail",
    "StepResult",
    "UnknownStep",
    "compensate_step",
    "fake_context",
    "probe_step",
    "run_saga",
    "run_step",
]
