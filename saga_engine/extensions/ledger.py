"""The ledger of a plugin: what was registered for it, and how each of these is taken back."""

from __future__ import annotations

import threading
from collections.abc import Callable

from saga_engine.extensions.errors import RegistrationClosed, UndoFailed

__all__ = ["Ledger"]


class Ledger:
    """Records each registration together with its undo. Safe for use from any number of threads.

    A plugin has one from the moment it is added until it is removed. What goes through it makes adding atomic and
    removing clean.
    """

    def __init__(self) -> None:
        self._entries: list[tuple[str, Callable[[], object]]] = []
        self._is_closed = False
        self._lock = threading.Lock()

    def record(self, what: str, undo: Callable[[], object]) -> None:
        """Record what has just been registered.

        Args:
            what: what it is, for the message if it cannot be taken back, such as "web resource /health".
            undo: takes it back; called once, without arguments.

        Raises:
            RegistrationClosed: the plugin was removed meanwhile; the registration has been taken back then.
        """
        with self._lock:
            if not self._is_closed:
                self._entries.append((what, undo))
                return
        undo()
        raise RegistrationClosed(f"{what} was registered for a plugin that is removed: register it while it is added")

    def entries(self) -> list[str]:
        """List what is registered, in the order of registration."""
        with self._lock:
            return [what for what, _ in self._entries]

    def undo_all(self) -> None:
        """Take everything back, what was registered last first, and close the ledger. Later calls do nothing.

        Raises:
            UndoFailed: some undos raised; all others were run nevertheless.
        """
        with self._lock:
            self._is_closed = True
            entries, self._entries = self._entries, []
        failures: list[tuple[str, Exception]] = []
        for what, undo in reversed(entries):
            try:
                undo()
            except Exception as error:
                failures.append((what, error))
        if failures:
            told = "; ".join(f"{what} ({type(error).__name__}: {error})" for what, error in failures)
            raise UndoFailed(
                f"could not be taken back: {told}. Repair what recorded these undos, and restart the process",
                [error for _, error in failures],
            ) from failures[0][1]
