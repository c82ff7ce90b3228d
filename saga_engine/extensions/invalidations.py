"""How the processes on one journal tell each other what is out of date in their caches."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Protocol
from uuid import uuid4

import anyio.to_thread

from saga_engine.extensions.errors import InvalidationsUnsupported
from saga_engine.journal import Invalidation, InvalidationJournal

__all__ = ["LOOK_S", "InvalidationFeed", "Listener", "feed_of"]

#: How long what other processes said may go unread while cached values are given, in seconds.
LOOK_S = 0.25

_logger = logging.getLogger("saga_engine.extensions")


class Listener(Protocol):
    """A cached function: what the feed does to it when somebody said that it is out of date."""

    name: str

    def drop(self, values: Sequence[Any] | None) -> None:
        """Drop what was cached for these arguments; None: everything. Calls under way are out of date, too."""

    def forget(self) -> None:
        """Drop everything that is cached. Calls under way may still give their values."""


class InvalidationFeed:
    """What the processes on one journal say of their caches; begins with what is said from now on.

    It needs no thread: whoever is about to give a cached value calls `look_if_due`, which reads the journal, but not
    more often than every `look_s` seconds. Safe for use from any number of threads, and after a fork.

    Args:
        journal: where it is said.
        look_s: see above.
        monotonic: gives the time in seconds.

    Raises:
        JournalError: the journal cannot be read.
    """

    def __init__(
        self,
        journal: InvalidationJournal,
        look_s: float = LOOK_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._journal = journal
        self._look_s = look_s
        self._monotonic = monotonic
        self._id = uuid4().hex
        self._listeners: weakref.WeakSet[Listener] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._is_readable = True
        self._looked_at = monotonic()
        told = journal.invalidations(after=0)
        self._seen = told[-1].id if told else 0
        _feeds.add(self)

    def listen(self, listener: Listener) -> None:
        """Tell this one, too, from now on; the feed does not keep it alive."""
        with self._lock:
            self._listeners.add(listener)

    def leave(self, listener: Listener) -> None:
        """Tell this one nothing any more."""
        with self._lock:
            self._listeners.discard(listener)

    async def tell(self, cache: str, keys: str | None) -> None:
        """Let the other processes know; return once it is durable.

        Raises:
            JournalError: it could not be written: the others go on with what they have.
        """
        await anyio.to_thread.run_sync(self._journal.put_invalidation, self._writer(), cache, keys)

    def look_if_due(self) -> None:
        """Take in what other processes said, if nobody did for `look_s` seconds. Never raises.

        It reads in the caller's thread, also if that runs an event loop: with SQLite this takes some 20 us, four
        times a second.
        """
        if self._monotonic() - self._looked_at < self._look_s:
            return
        with self._lock:
            now = self._monotonic()
            if now - self._looked_at >= self._look_s:
                self._look()
                self._looked_at = now

    def _look(self) -> None:
        try:
            told = self._journal.invalidations(after=self._seen)
        except Exception as error:  # of whatever kind of journal: a reader must not fail for it
            for listener in self._listeners:
                listener.forget()
            self._note_readable(error)
            return
        self._note_readable(None)
        if told:
            self._take_in(told)
            self._seen = told[-1].id

    def _take_in(self, told: list[Invalidation]) -> None:
        is_gap = told[0].id != self._seen + 1
        me = self._writer()
        for listener in self._listeners:
            if is_gap:  # what was said there is gone
                listener.drop(None)
            for each in told:
                if each.cache == listener.name and each.writer != me:
                    listener.drop(None if each.keys is None else json.loads(each.keys))

    def _note_readable(self, error: Exception | None) -> None:
        """Log the first failure, and its end."""
        was_readable, self._is_readable = self._is_readable, error is None
        if was_readable and error is not None:
            _logger.warning("%s cannot be read, nothing stays cached until it can: %s", self._journal.url, error)
        elif not was_readable and error is None:
            _logger.warning("%s can be read again, values stay cached again", self._journal.url)

    def _writer(self) -> str:
        """Tell this process from others; a forked child is another one."""
        return f"{self._id}:{os.getpid()}"

    def _begin_anew_after_fork(self) -> None:
        self._lock = threading.Lock()  # a thread that is not here may have held it


_feeds: weakref.WeakSet[InvalidationFeed] = weakref.WeakSet()
#: By the journal's `id()`, which nobody else can have while a feed keeps the journal alive.
_feed_of_journal: weakref.WeakValueDictionary[int, InvalidationFeed] = weakref.WeakValueDictionary()


def feed_of(journal: Any) -> InvalidationFeed:
    """Give the one feed of an open journal.

    Raises:
        InvalidationsUnsupported: that kind of journal has no place for invalidations.
        JournalError: the journal cannot be read.
    """
    if not (hasattr(journal, "put_invalidation") and hasattr(journal, "invalidations")):
        raise InvalidationsUnsupported(
            f"{journal.url} has no place for invalidations, so other processes would not hear of them: give the "
            "journal put_invalidation and invalidations (see saga_engine.journal.InvalidationJournal)"
        )
    return _feed_of_journal.get(id(journal)) or _feed_of_journal.setdefault(id(journal), InvalidationFeed(journal))


def _after_fork_in_child() -> None:
    for feed in list(_feeds):
        feed._begin_anew_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
