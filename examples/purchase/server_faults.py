"""The faults that the example's other side can be told to show, for the next few calls of one operation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from transactions import SagaError

__all__ = ["DELAY_S_MAX", "OPERATIONS", "Fault", "FaultKind", "InvalidFault"]

#: A forgotten fault must not hold a connection for ever.
DELAY_S_MAX = 60.0

OPERATIONS = frozenset(
    {
        "create_customer",
        "find_customer",
        "delete_customer",
        "create_subscription",
        "find_subscription",
        "delete_subscription",
        "create_request",
        "get_request",
        "update_request",
        "approve_request",
        "fail_request",
        "inquire_request",
    }
)


class InvalidFault(SagaError):
    """A fault names an operation, a kind of fault, how many calls it lasts and how long it takes."""


class FaultKind(str, Enum):
    """What a faulty call does."""

    TIMEOUT_AFTER_WORK = "timeout_after_work"  #: does the work, waits `delay_s`, closes without an answer
    ERROR_500 = "error_500"  #: answers 500 and does nothing
    ERROR_500_AFTER_WORK = "error_500_after_work"  #: does the work, then answers 500
    REFUSE = "refuse"  #: says no, with a reason, and does nothing
    SLOW = "slow"  #: does the work and answers, `delay_s` late


@dataclass(frozen=True)
class Fault:
    """A fault of one operation.

    Args:
        operation: one of `OPERATIONS`.
        kind: what goes wrong.
        times: for how many calls; 0 takes the fault away.
        delay_s: seconds that a slow call or one without an answer takes, at most `DELAY_S_MAX`.
        reason: the text of a refusal.

    Raises:
        InvalidFault: a value is out of range.
    """

    operation: str
    kind: FaultKind
    times: int = 1
    delay_s: float = 0.0
    reason: str = "the order is refused"

    def __post_init__(self) -> None:
        if self.operation not in OPERATIONS:
            operations = ", ".join(sorted(OPERATIONS))
            raise InvalidFault(f"there is no operation {self.operation!r}; use one of {operations}")
        if self.times < 0:
            raise InvalidFault(f"times is {self.times}; give 0 or more calls")
        if not 0 <= self.delay_s <= DELAY_S_MAX:
            raise InvalidFault(f"delay_s is {self.delay_s}; give 0 to {DELAY_S_MAX:g} seconds")

    @classmethod
    def from_json(cls, operation: str, body: Mapping[str, Any]) -> Fault:
        """Build a fault from the body of `PUT /faults/{operation}`.

        Args:
            operation: one of `OPERATIONS`.
            body: `kind`, and optionally `times`, `delay_s`, `reason`.

        Raises:
            InvalidFault: a value is missing, unknown or out of range.
        """
        unknown = set(body) - {"kind", "times", "delay_s", "reason"}
        if unknown:
            raise InvalidFault(f"unknown keys {sorted(unknown)}; use kind, times, delay_s, reason")
        try:
            return cls(
                operation,
                _kind(body.get("kind")),
                int(body.get("times", 1)),
                float(body.get("delay_s", 0.0)),
                str(body.get("reason", cls.reason)),
            )
        except (TypeError, ValueError) as e:
            raise InvalidFault(f"times and delay_s are numbers: {e}") from e

    @classmethod
    def from_text(cls, text: str) -> Fault:
        """Build a fault from the command line's `operation=kind[:times[:delay_s]]`.

        Raises:
            InvalidFault: the text has another form, or a value is unknown or out of range.
        """
        operation, equals, rest = text.partition("=")
        kind, *numbers = rest.split(":")
        if not equals or len(numbers) > 2:
            raise InvalidFault(f"{text!r} is no fault; write operation=kind[:times[:delay_s]]")
        return cls.from_json(operation, {"kind": kind, **dict(zip(("times", "delay_s"), numbers, strict=False))})


def _kind(text: Any) -> FaultKind:
    try:
        return FaultKind(text)
    except ValueError as e:
        kinds = ", ".join(kind.value for kind in FaultKind)
        raise InvalidFault(f"there is no fault {text!r}; use one of {kinds}") from e
