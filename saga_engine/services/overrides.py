"""Overrides: for the time of a `with` block, other values in the place of what is bound."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from saga_engine.services.bindings import Binding
from saga_engine.services.plans import Key

__all__ = ["Layer", "Overrides"]


class Layer:
    """One block: the values that it gives, in which scope, and what was built for it, by the scope that keeps it."""

    __slots__ = ("kept", "scope", "values")

    def __init__(self, scope: Any, values: Mapping[Key, Any]) -> None:
        self.scope = scope
        self.values = {key: Binding(value, "override()", is_instance=True) for key, value in values.items()}
        self.kept: dict[Any, dict[Any, Any]] = {}


class Overrides:
    """The open blocks of an outermost container and all scopes in it.

    Attributes:
        layers: the blocks, the one that began last at the end; replaced, never changed, so that a request sees the
            same ones from its first to its last step.
    """

    __slots__ = ("_lock", "layers")

    def __init__(self) -> None:
        self.layers: tuple[Layer, ...] = ()
        self._lock = threading.Lock()

    def begin(self, layer: Layer) -> None:
        """Begin a block."""
        with self._lock:
            self.layers = (*self.layers, layer)

    def end(self, layer: Layer) -> None:
        """End a block, whichever began last."""
        with self._lock:
            self.layers = tuple(each for each in self.layers if each is not layer)

    def after_fork_in_child(self) -> None:
        """Have a lock that no other thread held when this process began."""
        self._lock = threading.Lock()
