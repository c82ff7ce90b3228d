"""How long a delivery may take: what the Connect runner allows, less a reserve to come to a boundary."""

from __future__ import annotations

import os

from saga_engine.errors import BadDefinition

__all__ = ["delivery_budget_s", "schedule_budget_s"]

#: The share of the runner's limit in which steps are started.
_SHARE = 0.8
#: The runner's limits, by the variables that change them, in seconds.
_BACKGROUND = ("BACKGROUND_TASK_MAX_EXECUTION_TIME", 300.0)
_SCHEDULED = ("SCHEDULED_TASK_MAX_EXECUTION_TIME", 43_200.0)


def delivery_budget_s() -> float:
    """Give the seconds in which one delivery may start steps: 0.8 of what the runner allows a background task.

    Raises:
        BadDefinition: the runner's limit in the environment is no number of seconds.
    """
    return _SHARE * _limit_s(*_BACKGROUND)


def schedule_budget_s() -> float:
    """Give the seconds in which a scheduled task may take executions up.

    Raises:
        BadDefinition: the runner's limit in the environment is no number of seconds.
    """
    return _SHARE * _limit_s(*_SCHEDULED)


def _limit_s(variable: str, default_s: float) -> float:
    text = os.environ.get(variable)
    if not text:
        return default_s
    try:
        limit_s = float(text)
    except ValueError:
        limit_s = 0.0
    if not 0 < limit_s < float("inf"):
        raise BadDefinition(f"{variable} is {text!r}: give a number of seconds above 0, or unset it")
    return limit_s
