"""How long one delivery may go on: 0.8 of the Connect runner's own limits, which environment variables set."""

from __future__ import annotations

import os

from saga_engine.errors import BadSetting

__all__ = ["delivery_budget_s", "schedule_budget_s"]

#: The rest is left for the step that runs when the budget is spent, and for the answer to get out.
_SHARE = 0.8
#: What the runner takes where the environment says nothing, in seconds.
_BACKGROUND_S, _SCHEDULED_S = 300, 43_200


def delivery_budget_s() -> float:
    """Give the seconds in which one delivery of a request may start steps: 240 unless the environment says otherwise.

    The runner stops listening to a handler after `BACKGROUND_TASK_MAX_EXECUTION_TIME` seconds (300), whatever it does.

    Raises:
        BadSetting: the variable is no whole number of seconds above 0.
    """
    return _SHARE * _limit_s("BACKGROUND_TASK_MAX_EXECUTION_TIME", _BACKGROUND_S)


def schedule_budget_s() -> float:
    """Give the seconds in which one run of a schedule may take up executions: 34 560 unless the environment says so.

    The runner's limit is `SCHEDULED_TASK_MAX_EXECUTION_TIME` (43 200).

    Raises:
        BadSetting: the variable is no whole number of seconds above 0.
    """
    return _SHARE * _limit_s("SCHEDULED_TASK_MAX_EXECUTION_TIME", _SCHEDULED_S)


def _limit_s(variable: str, default_s: int) -> int:
    """Read a limit as the runner does: a whole number, which stands for seconds."""
    text = os.environ.get(variable)
    if text is None:
        return default_s
    try:
        limit_s = int(text)
    except ValueError:
        limit_s = 0
    if limit_s < 1:
        raise BadSetting(f"{variable} is {text!r} in the environment: give a whole number of seconds above 0, or none")
    return limit_s
