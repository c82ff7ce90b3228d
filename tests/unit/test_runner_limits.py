"""How the limits of the Connect runner become the engine's."""

from __future__ import annotations

from pathlib import Path

import pytest

from saga_engine.engine import default_engine
from saga_engine.errors import BadDefinition
from saga_engine.runner_limits import delivery_budget_s, schedule_budget_s

LIMITS = {
    "BACKGROUND_TASK_MAX_EXECUTION_TIME": (delivery_budget_s, 240.0),
    "SCHEDULED_TASK_MAX_EXECUTION_TIME": (schedule_budget_s, 34_560.0),
}


@pytest.mark.parametrize("variable", LIMITS)
def test_S25_a_budget_is_four_fifths_of_the_limit(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    budget_s, by_default_s = LIMITS[variable]
    monkeypatch.delenv(variable, raising=False)
    assert budget_s() == by_default_s
    monkeypatch.setenv(variable, "50")
    assert budget_s() == 40.0


@pytest.mark.parametrize("text", ["soon", "0", "-5", "nan", "inf"])
@pytest.mark.parametrize("variable", LIMITS)
def test_a_limit_that_is_no_number_of_seconds_is_refused(
    variable: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, text)
    with pytest.raises(BadDefinition, match=f"{variable} is '{text}': give a number of seconds above 0"):
        LIMITS[variable][0]()


def test_S25_the_engine_of_the_process_has_the_budget_of_the_runner(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BACKGROUND_TASK_MAX_EXECUTION_TIME", "50")
    with default_engine({"SAGA_JOURNAL_URL": f"sqlite:///{tmp_path / 'saga.db'}"}) as engine:
        assert engine._budget().remaining_s() == pytest.approx(40.0, abs=5.0)
