"""Connect's response to a background event, which also takes its countdown as the text that a Connect variable is."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from connect.eaas.core.responses import BackgroundResponse as ConnectBackgroundResponse

from saga_engine.errors import BadSetting

__all__ = ["BackgroundResponse"]

#: No countdown is longer: a year, in seconds.
_COUNTDOWN_S_MAX = 31_536_000


class BackgroundResponse(ConnectBackgroundResponse):  # type: ignore[misc]  # connect ships no types
    """Connect's own `BackgroundResponse`, with countdowns that may be texts.

    All variables of an extension are texts, and Connect's class raises a TypeError for one. Here
    `reschedule(config["COUNTDOWN_S"])` works, with "45" and "45.5" as with 45. What it gives is a response of Connect's
    class, too.
    """

    if TYPE_CHECKING:  # connect ships no types: without these a step that says what it returns would return Any

        @classmethod
        def done(cls) -> BackgroundResponse: ...

        @classmethod
        def fail(cls, output: str | None = None) -> BackgroundResponse: ...

        @classmethod
        def skip(cls, output: str | None = None) -> BackgroundResponse: ...

        @classmethod
        def reschedule(cls, countdown: Any = 30) -> BackgroundResponse: ...

    def __init__(self, status: str, countdown: Any = 30, output: str | None = None) -> None:
        super().__init__(status, _seconds(countdown), output)

    @classmethod
    def slow_process_reschedule(cls, countdown: Any = 300) -> BackgroundResponse:
        """Ask for the next delivery in `countdown` seconds, at least 300.

        Raises:
            BadSetting: the countdown is no number of seconds, nor a text of one.
        """
        response: BackgroundResponse = super().slow_process_reschedule(_seconds(countdown))
        return response


def _seconds(countdown: Any) -> int:
    """Read a countdown, in whole seconds: Connect takes no others."""
    try:
        if isinstance(countdown, bool):
            raise TypeError
        seconds = float(countdown)
        is_meant = -math.inf < seconds <= _COUNTDOWN_S_MAX
    except (TypeError, ValueError):
        is_meant, seconds = False, 0.0
    if not is_meant:
        raise BadSetting(
            f"the countdown is {countdown!r}: give a number of seconds of at most {_COUNTDOWN_S_MAX}, or a text of one"
        )
    return math.ceil(seconds)
