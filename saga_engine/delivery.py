"""What commands are given: sagas by their names, JSON from files, and deliveries with the saga's own services."""

from __future__ import annotations

import copy
import importlib
import inspect
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from connect.eaas.core.responses import BackgroundResponse

from saga_engine.engine import Engine, find_saga
from saga_engine.errors import BadDefinition, BadRequest, UnknownExecution, UnknownSaga
from saga_engine.journal import SagaStatus
from saga_engine.narration import clock_time
from saga_engine.record import SagaRecord
from saga_engine.saga import Saga, Services
from saga_engine.terminal import NoProgress

__all__ = ["Delivery", "import_saga", "import_sagas", "read_json", "read_object", "read_request", "search_here"]

#: How often `run --wait` looks again, in seconds: at an execution that another process holds, and at one that waits
#: for nothing but a delivery or a signal.
_HELD_POLL_S, _DELIVERY_POLL_S = 1.0, 30.0


class Delivery:
    """One request for one saga, delivered once or again and again."""

    def __init__(self, engine: Engine, progress: NoProgress, saga: type[Saga], request: dict[str, Any]) -> None:
        self._engine = engine
        self._progress = progress
        self._request = request
        self.saga_id = f"{saga.__name__}:{saga().key(copy.deepcopy(request))}"
        record = self._record()
        if record is None or record.is_purged:  # nothing that the journal has tells what its steps need
            record = _about_to_start(self.saga_id, saga, request)
        services = _services(saga, record)
        self._saga = saga.make(services.config, services.client, services.logger, engine=engine)

    def _record(self) -> SagaRecord | None:
        try:
            return self._engine.get(self.saga_id)
        except UnknownExecution:
            return None

    def once(self) -> BackgroundResponse:
        """Deliver the request."""
        record = self._record()
        if record is not None and not record.is_purged:
            self._progress.know(record.saga_id)
        return self._saga.resolve(copy.deepcopy(self._request))

    def until_over(self) -> BackgroundResponse:
        """Deliver the request again whenever it can go on, until it ended or parked."""
        while True:
            response = self.once()
            record = self._engine.get(self.saga_id)
            if record.status.is_ended or record.status is SagaStatus.PARKED or record.stuck:
                return response
            self._wait(record)

    def _wait(self, record: SagaRecord) -> None:
        if record.held_by is not None:
            self._progress.waiting(f"{record.held_by} holds it; looking again")
            time.sleep(_HELD_POLL_S)
        elif record.next_due_at is None:
            self._progress.waiting("waits for a delivery or a signal; delivering again")
            time.sleep(_DELIVERY_POLL_S)
        else:
            self._progress.waiting(f"waits until {clock_time(record.next_due_at)}")
            time.sleep(max(0.0, record.next_due_at - time.time()))


def search_here() -> None:
    """Let modules be found in this directory first, as if its user had started Python here."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)


def import_saga(target: str) -> type[Saga]:
    """Import a saga by MODULE:CLASS.

    Raises:
        UnknownSaga: there is none, or its module cannot be imported.
    """
    search_here()
    return find_saga(target)


def import_sagas(target: str) -> list[type[Saga]]:
    """Import a saga by MODULE:CLASS, or all sagas in the namespace of a MODULE.

    Raises:
        UnknownSaga: there is none, or the module cannot be imported.
    """
    search_here()
    if ":" in target:
        return [find_saga(target)]
    try:
        module = importlib.import_module(target)
    except Exception as error:  # an import runs foreign code, which may raise anything
        raise UnknownSaga(f"{target!r} cannot be imported ({error}): write module:Saga, or module") from error
    found = {value: None for value in vars(module).values() if _is_saga(value)}
    if not found:
        raise UnknownSaga(f"{target!r} has no sagas: name a module that has, or write module:Saga")
    return list(found)


def _is_saga(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, Saga) and not inspect.isabstract(value)


def read_json(name: str) -> Any:
    """Read JSON from a file, or from standard input if the name is "-".

    Raises:
        BadRequest: there is no such file, or it does not hold JSON.
    """
    where = _where(name)
    try:
        body = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise BadRequest(f"{where}: {error.strerror}: name a JSON file, or - for standard input") from error
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"{where} is not JSON: {error}") from error


def read_object(name: str, meant: str) -> dict[str, Any]:
    """Read a JSON object from a file, or from standard input if the name is "-".

    Args:
        name: the file.
        meant: what to give, for messages.

    Raises:
        BadRequest: there is no such file, or it does not hold a JSON object.
    """
    value = read_json(name)
    if not isinstance(value, dict):
        raise BadRequest(f"{_where(name)} holds a {type(value).__name__}: {meant}")
    return value


def read_request(name: str) -> dict[str, Any]:
    """Read a request, see `read_object`."""
    return read_object(name, "give the request, a JSON object")


def _where(name: str) -> str:
    return "standard input" if name == "-" else name


def _services(saga: type[Saga], record: SagaRecord) -> Services:
    given = saga.services(record)
    if given is not None and not isinstance(given, Mapping):
        raise BadDefinition(
            f"{saga.__name__}.services(record) gave a {type(given).__name__}: "
            "give a dict with any of config, client and logger, or None"
        )
    named = given or {}
    return Services(named.get("config"), named.get("client"), named.get("logger"))


def _about_to_start(saga_id: str, saga: type[Saga], request: dict[str, Any]) -> SagaRecord:
    """Make the record of an execution that nothing is journaled of yet."""
    now = time.time()
    return SagaRecord(
        saga_id=saga_id,
        saga=saga.__name__,
        status=SagaStatus.RUNNING,
        generation=1,
        response=None,
        steps=(),
        error=None,
        held_by=None,
        next_due_at=None,
        created_at=now,
        updated_at=now,
        request=copy.deepcopy(request),
    )
