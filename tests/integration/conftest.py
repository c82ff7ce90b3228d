"""Fixtures of the tests that run sagas through an engine: each test runs on every journal and with every driver.

Of the six pairs of those, three show all that differs; the others are deselected, which pytest counts. With
`SAGA_EVERY_PAIR` in the environment all six run.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from connect.eaas.core.responses import BackgroundResponse
from sagas import World

from saga_engine import Engine, Saga
from saga_engine.journal import Journal
from saga_engine.journals import open_journal
from saga_engine.testing import ManualClock

#: Each journal and each driver, in the pairs that have most in common with what people run.
PAIRS = frozenset({("memory", "async"), ("sqlite", "sync"), ("sqlite", "async with plain steps")})

Resolve = Callable[..., BackgroundResponse]
NewEngine = Callable[..., Engine]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the pairs above, unless every pair is wanted."""
    if os.environ.get("SAGA_EVERY_PAIR"):
        return
    left_out = {item for item in items if (pair := _pair_of(item)) is not None and pair not in PAIRS}
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=list(left_out))


def _pair_of(item: pytest.Item) -> tuple[str, str] | None:
    params = item.callspec.params if hasattr(item, "callspec") else {}
    return (params["journal_url"], params["driver"]) if {"journal_url", "driver"} <= params.keys() else None


@pytest.fixture(params=["memory", "sqlite"])
def journal_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty journal."""
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 'saga.db'}"


@pytest.fixture(params=["sync", "async", "async with plain steps"])
def driver(request: pytest.FixtureRequest) -> str:
    """Which driver carries the execution on, and what kind of steps it is given."""
    return str(request.param)


@pytest.fixture
def world(driver: str) -> World:
    """The world outside: makes the steps and records their calls."""
    return World(is_native_async=driver == "async")


@pytest.fixture
def clock() -> ManualClock:
    """The clock of every engine of the test."""
    return ManualClock()


@pytest.fixture
def journal(journal_url: str) -> Iterator[Journal]:
    """The open journal: it outlives the engines of the test."""
    opened = open_journal(journal_url)
    yield opened
    opened.close()


@pytest.fixture
def new_engine(journal: Journal, clock: ManualClock) -> Iterator[NewEngine]:
    """Makes engines as a new process would: on the test's journal, or on the one given."""
    made: list[Engine] = []

    def make(on: Any = None, **options: Any) -> Engine:
        engine = Engine(on or journal, **{"clock": clock, "config": {}, **options})
        made.append(engine)
        return engine

    yield make
    for engine in made:
        engine.close()


@pytest.fixture
def engine(new_engine: NewEngine) -> Engine:
    """One engine on the test's journal."""
    return new_engine()


@pytest.fixture
def resolve(driver: str, engine: Engine) -> Resolve:
    """`resolve(Saga, request, on=engine, client=...)`: deliver a request, by the driver under test."""

    def deliver(
        saga: type[Saga], request: dict[str, Any] | None = None, on: Engine | None = None, **services: Any
    ) -> Any:
        made = saga.make(**services, engine=on or engine)
        given = {"id": "PR-1"} if request is None else request
        return made.resolve(given) if driver == "sync" else asyncio.run(made.aresolve(given))

    return deliver
