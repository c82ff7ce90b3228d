"""WaitFor: a step that waits for a signal."""

from __future__ import annotations

from typing import Any

from connect.eaas.core.responses import BackgroundResponse

from transactions import BackgroundTransaction, InvalidTransaction, Kind, Suspend

__all__ = ["WaitFor"]

_OPERATIONS = ("should_execute", "execute", "compensate", "probe")


class WaitFor(BackgroundTransaction):
    """A step that is over when somebody sends the signal; its payload is then in `context.state[signal]`.

        [Order, WaitFor("approved", timeout_s=86_400), Activate]

    A signal that came before the saga waits for it counts. A delivery does not end the wait. In a saga no code of
    this class runs: leave the step out of the list where it is not wanted.

    Args:
        signal: the name that `Engine.signal` is called with.
        timeout_s: seconds after which the step fails with `SignalTimedOut`; None: it waits until the saga's deadline.
        name: the name of the step; by default `Wait for <signal>`.

    Raises:
        InvalidTransaction: an argument is not of that type, or `timeout_s` is not above 0.
    """

    kind = Kind.READ_ONLY

    def __init__(self, signal: str, timeout_s: float | None = None, name: str | None = None) -> None:
        for argument, text in (("signal", signal), ("name", name)):
            if not (isinstance(text, str) and text.strip()) and not (argument == "name" and text is None):
                raise InvalidTransaction(f"WaitFor({argument}={text!r}): give a non-empty str")
        if timeout_s is not None and not _is_positive(timeout_s):
            raise InvalidTransaction(f"WaitFor(timeout_s={timeout_s!r}): give a number of seconds above 0, or None")
        self.signal = signal
        self.signal_timeout_s = None if timeout_s is None else float(timeout_s)
        self._name = f"Wait for {signal}" if name is None else name

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        own = [operation for operation in _OPERATIONS if operation in vars(cls)]
        if own:
            raise InvalidTransaction(
                f"{cls.__qualname__}.{own[0]} would never be called: put it into a step of its own"
            )

    def name(self) -> str:
        return self._name

    def execute(self, request: dict[str, Any]) -> Suspend:
        """Give what the step waits for, to who calls it outside of a saga."""
        return Suspend(BackgroundResponse.reschedule(), signal=self.signal, timeout_s=self.signal_timeout_s)


def _is_positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < float("inf")
