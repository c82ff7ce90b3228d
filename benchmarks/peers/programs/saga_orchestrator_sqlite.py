"""python-saga-orchestrator on SQLite: a registered saga of five typed steps, started in tasks of an event loop.

The database is the user's own there, so it is set up as SQLAlchemy advises for writers of one SQLite file: WAL, a
transaction that may write begins as one (BEGIN IMMEDIATE), and a writer waits for the one before it.
"""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta
from typing import Any

from loguru import logger
from pydantic import BaseModel
from saga_orchestrator import (
    BaseStep,
    SagaBuilder,
    SagaOrchestrator,
    SagaStateMixin,
    SagaStatus,
    SagaStepHistoryMixin,
)
from sqlalchemy import ForeignKey, event, func, select
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from benchmarks.load import in_tasks
from benchmarks.peers.programs.order import FAILING, STEPS, check_undone, read_order, tell

_NAME = "five-steps"
_BUSY_S = 30
_undone: list[int] = []


class Base(DeclarativeBase):
    """The tables."""


class History(Base, SagaStepHistoryMixin):
    """What happened to each step."""

    __tablename__ = "saga_history"
    saga_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("saga_state.id", ondelete="CASCADE"), index=True)


class State(Base, SagaStateMixin):
    """How each saga stands."""

    __tablename__ = "saga_state"
    step_history: Mapped[list[History]] = relationship("History", cascade="all, delete-orphan", order_by="History.id")


class Value(BaseModel):
    """What steps take and give."""

    saga: int


class Step(BaseStep[Value, Value]):
    """One step that does nothing, and can be undone."""

    def __init__(self, number: int) -> None:
        self._number = number

    async def execute(self, inp: Value, event_type: str | None = None, event_payload: Any | None = None) -> Value:
        """Do nothing; the fifth step of the failing saga raises."""
        if (inp.saga, self._number) == (FAILING, STEPS):
            raise ValueError("the fifth step fails")
        return inp

    async def compensate(
        self, inp: Value, out: Value, event_type: str | None = None, event_payload: Any | None = None
    ) -> None:
        """Note that it was undone."""
        _undone.append(self._number)


def _definition() -> Any:
    builder = SagaBuilder()
    last = builder.add_step(step=Step(1), input_map=lambda context: Value(saga=context.initial_data["saga"]))
    for number in range(2, STEPS + 1):
        last = builder.add_step(step=Step(number), depends_on=last, input_map=lambda out: Value(saga=out.saga))
    return builder.build()


async def _database() -> AsyncEngine:
    engine = create_async_engine("sqlite+aiosqlite:///sagas.db", connect_args={"timeout": _BUSY_S})

    def on_connect(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # SQLAlchemy begins the transactions, not the driver
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")

    def on_begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    event.listen(engine.sync_engine, "connect", on_connect)
    event.listen(engine.sync_engine, "begin", on_begin)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    return engine


async def _measure(at_once: int, seconds: float) -> float:
    engine = await _database()
    orchestrator: Any = SagaOrchestrator(
        model_class=State,
        history_model_class=History,
        session_maker=async_sessionmaker(engine, expire_on_commit=False),
        execution_lease=timedelta(minutes=5),
    )
    orchestrator.register(_NAME, _definition())

    async def run(number: int) -> None:
        key = f"PR-{number}"
        await orchestrator.start(saga_name=_NAME, initial_data={"saga": number}, aggregation_id=key)

    await run(FAILING)
    check_undone(_undone)
    rate = await in_tasks(run, at_once, seconds)
    await _check_ends(engine)
    await engine.dispose()
    return rate


async def _check_ends(engine: AsyncEngine) -> None:
    """Check, after the measurement, that every saga but the failing one was completed."""
    async with engine.begin() as connection:
        others = select(func.count()).where(State.status != SagaStatus.COMPLETED)
        if (count := (await connection.execute(others)).scalar_one()) != 1:
            raise RuntimeError(f"{count - 1} sagas were not completed")


if __name__ == "__main__":
    order = read_order()
    logger.disable("saga_orchestrator")
    tell(asyncio.run(_measure(order.at_once, order.seconds)), "python-saga-orchestrator")
