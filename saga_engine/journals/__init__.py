"""The journals: where executions are recorded. `open_journal` gives the one that a URL names."""

from __future__ import annotations

from collections.abc import Callable

from saga_engine.errors import BadJournalURL, JournalError
from saga_engine.journal import Journal
from saga_engine.journals.memory import MemoryJournal
from saga_engine.journals.sqlite import SqliteJournal

__all__ = ["has_driver", "open_journal"]


def _open_memory(url: str, lease_s: float, heartbeat_s: float) -> Journal:
    if url != "memory://":
        raise BadJournalURL(f"{url!r}: a journal in memory has no name, write memory://")
    return MemoryJournal(url)


def _open_sqlite(url: str, lease_s: float, heartbeat_s: float) -> Journal:
    return SqliteJournal(url, lease_s=lease_s, heartbeat_s=heartbeat_s)


_DRIVERS: dict[str, Callable[[str, float, float], Journal]] = {
    "memory": _open_memory,
    "sqlite": _open_sqlite,
}


def has_driver(url: str) -> bool:
    """Tell whether `open_journal` knows the scheme of the URL."""
    return "://" in url and url.partition("://")[0] in _DRIVERS


def open_journal(url: str, *, lease_s: float = 30.0, heartbeat_s: float = 10.0) -> Journal:
    """Open the journal that the URL names; create it if it is not there.

    Args:
        url: `memory://`, `sqlite:///relative/path.db` or `sqlite:////absolute/path.db`.
        lease_s: a process on another host that was not heard of for so many seconds counts as dead.
        heartbeat_s: how often, in seconds, a process that holds a lease says that it lives.

    Raises:
        BadJournalURL: nobody can open that URL.
        JournalError: `lease_s` is not more than twice `heartbeat_s`.
        ForeignJournal: the file is something else's.
        CorruptJournal: the file cannot be read.
        NewerJournal: a later release wrote it.
        UnsafeFileSystem: it lies on a network file system.
        JournalUnavailable: it cannot be opened now.
    """
    if not 0 < 2 * heartbeat_s < lease_s:
        raise JournalError(
            f"lease_s={lease_s:g} must be more than twice heartbeat_s={heartbeat_s:g}, "
            f"or one late heartbeat loses every lease"
        )
    if not has_driver(url):
        raise BadJournalURL(
            f"{url!r} names no journal: write memory://, sqlite:///relative/path.db or sqlite:////absolute/path.db"
        )
    return _DRIVERS[url.partition("://")[0]](url, lease_s, heartbeat_s)
