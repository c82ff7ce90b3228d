"""The faults that a local server can be told to show, for the next few calls of one operation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from saga_engine.connect.local_errors import BadFault

__all__ = ["DELAY_S_MAX", "TIMES_MAX", "Fault", "FaultKind"]

#: A forgotten fault must not hold a connection for ever.
DELAY_S_MAX = 60.0
#: As good as for ever.
TIMES_MAX = 1_000_000


class FaultKind(str, Enum):
    """What a faulty call does."""

    TIMEOUT_AFTER_WORK = "timeout_after_work"  #: does the work, waits `delay_s`, closes without an answer
    ERROR_401 = "error_401"  #: answers 401, as if the key had expired, and does nothing
    ERROR_429 = "error_429"  #: answers 429 with `delay_s` as its Retry-After, and does nothing
    ERROR_500 = "error_500"  #: answers 500 and does nothing
    ERROR_500_AFTER_WORK = "error_500_after_work"  #: does the work, then answers 500
    INVALID_JSON = "invalid_json"  #: does the work, then answers with a body that breaks off
    REFUSE = "refuse"  #: answers 400 with `reason` and does nothing
    SLOW = "slow"  #: does the work and answers, `delay_s` late


@dataclass(frozen=True)
class Fault:
    """A fault of one operation.

    Args:
        operation: one of the server's `operations`, such as "approve_request".
        kind: what goes wrong.
        times: for how many calls, at most `TIMES_MAX`; 0 takes the fault away.
        delay_s: seconds that a slow call or one without an answer takes, and what Retry-After says; at most
            `DELAY_S_MAX`.
        reason: the text of a refusal.

    Raises:
        BadFault: a value is out of range.
    """

    operation: str
    kind: FaultKind
    times: int = 1
    delay_s: float = 0.0
    reason: str = "the order is refused"

    def __post_init__(self) -> None:
        if not 0 <= self.times <= TIMES_MAX:
            raise BadFault(f"times is {self.times}; give 0 to {TIMES_MAX} calls")
        if not 0 <= self.delay_s <= DELAY_S_MAX:
            raise BadFault(f"delay_s is {self.delay_s}; give 0 to {DELAY_S_MAX:g} seconds")
        if self.kind is FaultKind.SLOW and not self.delay_s:
            raise BadFault("a slow call without delay_s is none: give the seconds that it takes")

    @property
    def retry_after_s(self) -> int:
        """What Retry-After says: whole seconds."""
        return math.ceil(self.delay_s)

    @classmethod
    def from_json(cls, operation: str, body: Mapping[str, Any]) -> Fault:
        """Build a fault from the body of `PUT /faults/{operation}`.

        Args:
            operation: what goes wrong.
            body: `kind`, and optionally `times`, `delay_s`, `reason`.

        Raises:
            BadFault: a value is missing, unknown or out of range.
        """
        unknown = set(body) - {"kind", "times", "delay_s", "reason"}
        if unknown:
            raise BadFault(f"unknown keys {sorted(unknown)}; use kind, times, delay_s, reason")
        try:
            return cls(
                operation,
                _kind(body.get("kind")),
                int(body.get("times", 1)),
                float(body.get("delay_s", 0.0)),
                str(body.get("reason", cls.reason)),
            )
        except (OverflowError, TypeError, ValueError) as e:
            raise BadFault(f"times and delay_s are numbers: {e}") from e

    @classmethod
    def from_text(cls, text: str) -> Fault:
        """Build a fault from the command line's `operation=kind[:times[:delay_s]]`.

        Raises:
            BadFault: the text has another form, or a value is unknown or out of range.
        """
        operation, equals, rest = text.partition("=")
        kind, *numbers = rest.split(":")
        if not equals or len(numbers) > 2:  # noqa: PLR2004  # times and delay_s
            raise BadFault(f"{text!r} is no fault; write operation=kind[:times[:delay_s]]")
        return cls.from_json(operation, {"kind": kind, **dict(zip(("times", "delay_s"), numbers, strict=False))})


def _kind(text: Any) -> FaultKind:
    try:
        return FaultKind(text)
    except ValueError as e:
        kinds = ", ".join(kind.value for kind in FaultKind)
        raise BadFault(f"there is no fault {text!r}; use one of {kinds}") from e
