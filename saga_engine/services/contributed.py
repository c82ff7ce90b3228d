"""The service providers of sagas and plugins; those of plugins are bound as long as the plugins are there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

from saga_engine.services.bindings import Registration
from saga_engine.services.container import Container, registrations_of
from saga_engine.services.failures import BindingConflict

__all__ = ["ContributedProviders", "provided_by"]


#: What the engine gives every step itself, in front of all that is provided.
_ENGINES_OWN = frozenset({"client", "context", "logger", "request"})


def provided_by(provider: Any) -> list[Registration]:
    """List what a provider of a saga or a plugin asks to bind.

    Raises:
        BindingConflict: it provides what the engine gives.
        InvalidClassType: it is no service provider.
    """
    registrations = registrations_of(provider)
    for registration in registrations:
        if registration.key in _ENGINES_OWN:
            raise BindingConflict(
                f"{registration.origin} provides {registration.key!r}, which the engine gives itself: name it "
                "otherwise, or give the engine or the handler another one; in tests, use engine.container.override"
            )
    return registrations


class ContributedProviders:
    """Binds what plugins provide, and unbinds it when they are removed. Safe for use from any number of threads.

    Args:
        container: the application's container.
    """

    def __init__(self, container: Container) -> None:
        self._container = container
        self._undos: dict[int, tuple[Any, Callable[[], None]]] = {}
        self._lock = threading.Lock()

    def keep_up(self, providers: Iterable[tuple[Any, Container]]) -> None:
        """Bind the providers that are new, and unbind those that are gone.

        Args:
            providers: all that there are now, each with the scope of its plugin.

        Raises:
            BindingConflict: two of them provide one key; the first one is bound.
            InvalidClassType: one is no service provider.
        """
        present = {id(provider): (provider, home) for provider, home in providers}
        if present.keys() == self._undos.keys():
            return
        with self._lock:
            for gone in [each for each in self._undos if each not in present]:
                _, undo = self._undos.pop(gone)
                undo()
            for each, (provider, home) in present.items():
                if each not in self._undos:
                    # The provider is held here, too, so that no other object can have its id meanwhile.
                    self._undos[each] = (provider, self._container.bind_from(home, provided_by(provider)))
