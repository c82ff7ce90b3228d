"""The sagas that are measured: five steps that do nothing, and can be undone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from connect.eaas.core.responses import BackgroundResponse

from saga_engine import Saga, SagaRecord
from transactions import BackgroundTransaction

__all__ = ["FiveAsyncSteps", "FiveSteps", "FiveStepsThatWait", "STEPS"]

STEPS = 5

#: How long a suspended execution waits: longer than any measurement.
_WAIT_S = 7 * 86_400


class _NoOp(BackgroundTransaction):
    def execute(self, request: dict[str, Any]) -> BackgroundResponse:
        return BackgroundResponse.done()

    def compensate(self, request: dict[str, Any], e: Exception) -> BackgroundResponse:
        return BackgroundResponse.done()


class _AsyncNoOp(_NoOp):
    async def execute(self, request: dict[str, Any]) -> BackgroundResponse:
        return BackgroundResponse.done()


class _Wait(_NoOp):
    def execute(self, request: dict[str, Any]) -> BackgroundResponse:
        return BackgroundResponse.reschedule(_WAIT_S)


SYNC_STEPS = [type(f"Step{i}", (_NoOp,), {}) for i in range(STEPS)]
ASYNC_STEPS = [type(f"AsyncStep{i}", (_AsyncNoOp,), {}) for i in range(STEPS)]
_WAITING_STEPS = [*SYNC_STEPS[:2], _Wait, *SYNC_STEPS[3:]]


class FiveSteps(Saga):
    """Five steps that do nothing."""

    def transactions(self, request: dict[str, Any]) -> list[type[BackgroundTransaction]]:
        """List them."""
        return SYNC_STEPS

    @classmethod
    def services(cls, record: SagaRecord) -> Mapping[str, Any]:
        """Give nothing: the steps need nothing, so whoever finds an execution can go on with it."""
        return {}


class FiveAsyncSteps(FiveSteps):
    """The same, as coroutines."""

    def transactions(self, request: dict[str, Any]) -> list[type[BackgroundTransaction]]:
        """List them."""
        return ASYNC_STEPS


class FiveStepsThatWait(FiveSteps):
    """The same, but the third step asks to be called again in a week."""

    def transactions(self, request: dict[str, Any]) -> list[type[BackgroundTransaction]]:
        """List them."""
        return _WAITING_STEPS
