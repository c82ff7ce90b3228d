"""The first step of a saga with `undoes`: it undoes what another saga completed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from connect.eaas.core.responses import BackgroundResponse
from tenacity import retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from saga_engine.errors import JournalError, NotAllowed, UnknownExecution
from saga_engine.journal import SagaStatus
from saga_engine.record import SagaRecord
from transactions import BackgroundTransaction, RetryPolicy

__all__ = ["Undo", "UndoSaga"]

#: Undoes the execution of that id, with a note for the record, as far as it goes now, and tells how it stands then.
Undo = Callable[[str, str], SagaRecord]

_ASK_AGAIN_S_MIN = 30.0
#: The undo may be done early, by hand for example, and nothing tells this step of it.
_ASK_AGAIN_S_MAX = 600.0

_WITHOUT_EFFECT = frozenset({SagaStatus.COMPENSATED, SagaStatus.SKIPPED, SagaStatus.CANCELLED})


class UndoSaga(BackgroundTransaction):
    """Undoes an execution of another saga, and asks again until that is done.

    It has no undo itself: once it is done, a later failure parks.

    Args:
        saga: the name of the saga that is undone.
        saga_id: its execution.
        undo: carries the undo on; asking once more changes nothing.
        by: the name of the saga whose step this is, for messages.
    """

    is_idempotent = True
    retry = RetryPolicy(
        stop=stop_after_attempt(5), wait=wait_exponential_jitter(max=60), retry=retry_if_exception_type(JournalError)
    )

    def __init__(self, saga: str, saga_id: str, undo: Undo, by: str) -> None:
        self._saga = saga
        self._saga_id = saga_id
        self._undo = undo
        self._by = by

    def name(self) -> str:
        return f"Undo {self._saga}"

    def execute(self, request: dict[str, Any]) -> BackgroundResponse:
        """Carry the undo on.

        Raises:
            UnknownExecution: there is no such execution.
            NotAllowed: it is parked, or cannot be undone.
        """
        try:
            record = self._undo(self._saga_id, f"undone by a {self._by}")
        except UnknownExecution as error:
            raise UnknownExecution(
                f"{self._saga_id}: there is no such execution to undo. {self._saga}.key(request) must give the same "
                f"text for the request of {self._by} as for its own: override {self._by}.undoes_key(request)"
            ) from error
        if record.status in _WITHOUT_EFFECT:
            return BackgroundResponse.done()
        if record.status is SagaStatus.PARKED:
            raise NotAllowed(
                f"{record.saga_id} cannot be undone: it is parked ({record.error}). Resolve that first: "
                f"saga show {record.saga_id}"
            )
        return BackgroundResponse.reschedule(_wait_s(record))


def _wait_s(record: SagaRecord) -> float:
    """Tell after how many seconds to ask again."""
    due_s = 0.0 if record.next_due_at is None else record.next_due_at - record.updated_at
    return min(max(_ASK_AGAIN_S_MIN, due_s), _ASK_AGAIN_S_MAX)
