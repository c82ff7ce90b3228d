"""Exclusive: one execution at a time for each value of a key."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from saga_engine.errors import BadDefinition, BadRequest, SagaError
from saga_engine.journal import ExclusiveRight

__all__ = ["Exclusive"]

_KEY_CHARS_MAX = 512
_CHOICES = {"when_held": ("wait", "refuse"), "when_parked": ("hold", "release")}


class Exclusive:
    """The right to run that only one execution at a time has, for each value of a key.

        class PurchaseSaga(Saga):
            exclusive = Exclusive(key=lambda request: request["asset"]["id"])

    The right is named by the key's text alone, so that sagas of different classes which give one text exclude each
    other, as the purchase, the change and the cancellation of one asset should. Put a prefix before the text if they
    should not. The journal holds the right, from the start of an execution to its end, whichever process runs it.

    Args:
        key: gives the text for a request: a str of 1 to 512 characters. Called once, with the request of the start.
        when_held: what an execution does while another one has the right: "wait" until it is free, or "refuse".
        when_parked: whether a parked execution keeps the right ("hold") or gives it up ("release").

    Raises:
        BadDefinition: an argument cannot be used.
    """

    __slots__ = ("key", "when_held", "when_parked")

    def __init__(
        self, key: Callable[[dict[str, Any]], str], when_held: str = "wait", when_parked: str = "hold"
    ) -> None:
        if not callable(key) or inspect.isclass(key) or inspect.iscoroutinefunction(key):
            raise BadDefinition(f"Exclusive(key={key!r}): give a plain function (request) -> str")
        for argument, value in (("when_held", when_held), ("when_parked", when_parked)):
            if value not in _CHOICES[argument]:
                raise BadDefinition(f"Exclusive({argument}={value!r}): choose one of {_CHOICES[argument]}")
        self.key = key
        self.when_held = when_held
        self.when_parked = when_parked

    def right_for(self, saga: str, request: dict[str, Any]) -> ExclusiveRight:
        """Give the right that an execution of this request needs.

        Args:
            saga: the saga's name, for messages.
            request: the request of the start.

        Raises:
            BadRequest: the key raises, or does not give a str of 1 to 512 characters.
        """
        where = f"{saga}.exclusive.key(request)"
        try:
            name = self.key(request)
        except SagaError:
            raise
        except Exception as error:
            raised = f"{where} raised {type(error).__name__}: {error}"
            raise BadRequest(f"{raised}: deliver a request that has its key") from error
        if not isinstance(name, str) or not name:
            raise BadRequest(f"{where} gave {name!r}: it must give a non-empty str")
        if len(name) > _KEY_CHARS_MAX:
            raise BadRequest(f"{where} gave {len(name)} characters: give at most {_KEY_CHARS_MAX}")
        return ExclusiveRight(name, self.when_held, self.when_parked)  # type: ignore[arg-type]  # checked above

    def __repr__(self) -> str:
        return f"Exclusive(key={self.key!r}, when_held={self.when_held!r}, when_parked={self.when_parked!r})"
