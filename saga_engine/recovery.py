"""Recovery: the part of an engine that takes up what nobody delivers, one execution after the other."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from saga_engine.awaiting import prepared
from saga_engine.clock import Clock
from saga_engine.decider import full_id
from saga_engine.drive import Budget, Drive
from saga_engine.drivers import AsyncDriver, SyncDriver
from saga_engine.errors import BadDefinition, LeaseLost
from saga_engine.journal import Header, Journal
from saga_engine.record import SagaRecord
from saga_engine.saga import Saga, check_definition

__all__ = ["Recovered", "Recovery", "ServicesOf", "Stuck"]

_REASONS_MAX = 100
#: How many headers are read at a time.
_PAGE = 100

#: Gives `config`, `client` and `logger` for an execution, each optional; None: it knows of none.
ServicesOf = Callable[[SagaRecord], Mapping[str, Any] | None]


class Stuck(Exception):
    """This deployment cannot drive the execution; the text says why."""


class Recovered(int):
    """How many executions `recover` took up.

    Attributes:
        left_alone: how many it could not take up, for want of services, of the saga, or of its steps.
        failed: how many raised an error, which was logged; they are as they were.
        reasons: why, by saga id, for the first hundred of both of these.
        is_out_of_time: whether there were more when its time was over.
    """

    left_alone: int
    failed: int
    reasons: Mapping[str, str]
    is_out_of_time: bool

    def __new__(
        cls,
        taken: int,
        left_alone: int = 0,
        failed: int = 0,
        reasons: Mapping[str, str] | None = None,
        is_out_of_time: bool = False,
    ) -> Recovered:
        """Make the count."""
        self = super().__new__(cls, taken)
        self.left_alone = left_alone
        self.failed = failed
        self.reasons = reasons or {}
        self.is_out_of_time = is_out_of_time
        return self


class _Round:
    """One recovery under way: of which sagas, with what, for how long; and what became of the executions.

    Raises:
        BadDefinition: a saga, or the budget, cannot be used.
    """

    def __init__(
        self,
        engine: Recovery,
        sagas: Iterable[type[Saga]] | None,
        services: ServicesOf | None,
        budget_s: float | None,
    ) -> None:
        if budget_s is not None and not (isinstance(budget_s, (int, float)) and budget_s > 0):
            raise BadDefinition(f"budget_s is {budget_s!r}: give a number of seconds above 0, or None")
        given = None if sagas is None else tuple(sagas)
        for saga in given or ():
            check_definition(saga)
        self._sagas = None if given is None else {saga.__name__: saga for saga in given}
        self._services = services
        self._engine = engine
        self._ends_at_s = math.inf if budget_s is None else engine._clock.monotonic() + budget_s
        self._taken = self._left_alone = self._failed = 0
        self._reasons: dict[str, str] = {}
        self._is_out_of_time = False

    def headers(self) -> Iterator[Header]:
        """Give those that may be taken up, oldest first, until the time is over."""
        after = 0
        while True:
            page = self._engine.journal.recoverable(now=self._engine._clock.now(), after=after, limit=_PAGE)
            for header in page:
                if self._sagas is not None and header.saga not in self._sagas:
                    continue
                self._is_out_of_time = self._remaining_s() <= 0
                if self._is_out_of_time:
                    return
                yield header
            if len(page) < _PAGE:
                return
            after = page[-1].eid

    def take_up(self, header: Header) -> Drive | None:
        """Prepare to drive one of them; None if there is nothing to do.

        Raises:
            Stuck: the engine lacks what it takes.
        """
        saga = None if self._sagas is None else self._sagas[header.saga]
        budget = self._engine._budget(wait_s_max=0.0, budget_s_max=max(0.0, self._remaining_s()))
        return self._engine._take_up(header, budget, saga, self._services)

    @contextmanager
    def counting(self, header: Header) -> Iterator[None]:
        """Take up one execution in the block; whatever that raises is counted, and keeps none of the others waiting."""
        saga_id = full_id(header.saga_id, header.generation)
        try:
            yield
        except Stuck as stuck:
            self._left_alone += 1
            self._keep(saga_id, str(stuck))
            self._engine._note_stuck(header, str(stuck))
        except LeaseLost:
            return  # somebody else was faster: it is held
        except Exception as error:  # a saga's own code may raise anything
            self._failed += 1
            self._keep(saga_id, f"{type(error).__name__}: {error}")
            self._engine._log.exception("recovery failed", saga_id=saga_id)

    def count_driven(self) -> None:
        """Count one that was driven on."""
        self._taken += 1

    def result(self) -> Recovered:
        """Give what was counted."""
        return Recovered(self._taken, self._left_alone, self._failed, self._reasons, self._is_out_of_time)

    def _remaining_s(self) -> float:
        return self._ends_at_s - self._engine._clock.monotonic()

    def _keep(self, saga_id: str, reason: str) -> None:
        """Remember a reason; not of all, as there may be a hundred thousand with the same one."""
        if len(self._reasons) < _REASONS_MAX:
            self._reasons[saga_id] = reason


class Recovery(ABC):
    """The part of an engine that recovers."""

    journal: Journal
    _clock: Clock
    _log: Any
    _sync: SyncDriver
    _async: AsyncDriver

    @abstractmethod
    def _budget(self, wait_s_max: float | None = None, budget_s_max: float = math.inf) -> Budget:
        """Make the budget of one drive."""

    @abstractmethod
    def _take_up(
        self, header: Header, budget: Budget, saga: type[Saga] | None = None, services: ServicesOf | None = None
    ) -> Drive | None:
        """Prepare to drive an execution that nobody delivers; None if somebody holds it, or it waits for a delivery.

        Args:
            header: of the execution.
            budget: of the drive.
            saga: its saga; None: it is found by its name.
            services: see `recover`.

        Raises:
            Stuck: this engine lacks what it takes.
        """

    @abstractmethod
    def _note_stuck(self, header: Header, reason: str, at: float | None = None) -> None:
        """Note why an execution cannot be driven here."""

    def recover(
        self,
        *,
        sagas: Iterable[type[Saga]] | None = None,
        services: ServicesOf | None = None,
        budget_s: float | None = None,
    ) -> Recovered:
        """Take up every unfinished execution that nobody holds and that can go on; oldest first.

        Those are the ones whose holder died, that are due, or that have mail. Waits are not waited out here: an
        execution that has to wait is suspended. Executions of mode "select" go on at a delivery only.

        Args:
            sagas: only executions of these; None: of every saga.
            services: asked for each execution what its steps are built with, before the saga's own `services`; an
                engine that has services of its own asks neither.
            budget_s: seconds after which no execution is taken up and no further step is started; None: no limit for
                all of them together.

        Returns:
            How many were taken up.

        Raises:
            BadDefinition: a saga, or the budget, cannot be used.
        """
        recovery = _Round(self, sagas, services, budget_s)
        for header in recovery.headers():
            with recovery.counting(header):
                drive = recovery.take_up(header)
                if drive is not None:
                    self._sync.run(drive)
                    recovery.count_driven()
        return recovery.result()

    async def arecover(
        self,
        *,
        sagas: Iterable[type[Saga]] | None = None,
        services: ServicesOf | None = None,
        budget_s: float | None = None,
    ) -> Recovered:
        """Do what `recover` does on the running event loop: async steps natively, plain ones in threads."""
        recovery = _Round(self, sagas, services, budget_s)
        for header in recovery.headers():
            with recovery.counting(header):
                drive = await prepared(partial(recovery.take_up, header), is_waiting=False)
                if drive is not None:
                    await self._async.run(drive)
                    recovery.count_driven()
        return recovery.result()
