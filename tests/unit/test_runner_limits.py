"""How the limits of the Connect runner become the engine's."""

from __future__ import annotations

from typing import Any

import pytest
from connect.eaas.core.responses import BackgroundResponse
from sagas import World, saga_of

from saga_engine import SagaStatus, default_engine
from saga_engine.connect import delivery_budget_s as delivery_budget_s_of_connect
from saga_engine.errors import BadSetting
from saga_engine.runner_limits import delivery_budget_s, schedule_budget_s
from saga_engine.testing import ManualClock

BACKGROUND, SCHEDULED = "BACKGROUND_TASK_MAX_EXECUTION_TIME", "SCHEDULED_TASK_MAX_EXECUTION_TIME"


@pytest.fixture(autouse=True)
def no_limits_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test says what the environment holds."""
    monkeypatch.delenv(BACKGROUND, raising=False)
    monkeypatch.delenv(SCHEDULED, raising=False)


def test_budgets_are_four_fifths_of_what_the_runner_allows_by_default() -> None:
    assert (delivery_budget_s(), schedule_budget_s()) == (240, 34_560)


def test_a_limit_in_the_environment_makes_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BACKGROUND, " 10 ")  # as the runner reads it, with int()
    monkeypatch.setenv(SCHEDULED, "60")
    assert (delivery_budget_s(), schedule_budget_s()) == (8, 48)


@pytest.mark.parametrize("text", ["", "0", "-5", "2.5", "five minutes", "inf"])
def test_a_limit_that_cannot_be_meant_is_refused_by_its_name(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BACKGROUND, text)
    with pytest.raises(BadSetting, match=BACKGROUND):
        delivery_budget_s()


def test_connect_gives_the_budget_under_its_own_name() -> None:
    assert delivery_budget_s_of_connect is delivery_budget_s


def test_the_default_engine_starts_no_step_beyond_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BACKGROUND, "10")
    clock, world = ManualClock(), World()
    monkeypatch.setattr("saga_engine.engine._engines", {})
    monkeypatch.setattr("saga_engine.engine.SystemClock", lambda: clock)

    def nine_seconds(_request: dict[str, Any]) -> BackgroundResponse:
        clock.advance(9)
        return BackgroundResponse.done()

    saga = saga_of(world.step("a", nine_seconds), world.step("b"))
    engine = default_engine({"SAGA_JOURNAL_URL": "memory://"})
    try:
        saga.make({"SAGA_JOURNAL_URL": "memory://"}).resolve({"id": "PR-1"})
        assert world.executed == ["a"]
        assert engine.get("Order:PR-1").status is SagaStatus.SUSPENDED
    finally:
        engine.close()


def test_the_default_engine_refuses_a_limit_that_cannot_be_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BACKGROUND, "soon")
    monkeypatch.setattr("saga_engine.engine._engines", {})
    with pytest.raises(BadSetting, match="'soon'"):
        default_engine({"SAGA_JOURNAL_URL": "memory://"})
