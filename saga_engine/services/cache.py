"""The cache service: values that are JSON, kept for a while in a SQLite file, in memory or in redis, never pickled.

    CacheError          the cache cannot be used as configured: driver, time to live, key, file or server

Configuration variables: `CACHE_DRIVER` ("sqlite", the default, "memory", "redis" or "none"), `CACHE_TTL` (seconds,
900), for sqlite `CACHE_DIR` (`$XDG_CACHE_HOME/saga-engine` or `~/.cache/saga-engine`) and `CACHE_NAME` ("cache"), the
name of the file in it without its suffix; for redis `CACHE_REDIS_URL` and `CACHE_NAME`, what its keys begin with.
"""

from __future__ import annotations

import json
import math
import os
import sqlite3
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from transactions.errors import NotJSON, SagaError

__all__ = [
    "Cache",
    "CacheError",
    "CacheFactory",
    "DebugLogger",
    "JSONCache",
    "MemoryCache",
    "NoCache",
    "SQLiteCache",
    "Seconds",
    "checked_key",
    "provide_cache",
    "provide_memory_cache_adapter",
    "provide_no_cache_adapter",
    "provide_redis_cache_adapter",
    "provide_sqlite_cache_adapter",
]

#: A time to live: a number, or a numeric str as configuration variables have it.
Seconds = float | str

TTL_DEFAULT_S = 900
MEMORY_ENTRIES_MAX = 10_000
_BUSY_TIMEOUT_S = 15.0
_ABSENT: Any = object()

_SCHEMA = """
    CREATE TABLE IF NOT EXISTS saga_cache (
        key TEXT PRIMARY KEY, value TEXT NOT NULL, expires_at REAL
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS saga_cache_expires_at ON saga_cache (expires_at);
"""
_SELECT = "SELECT value FROM saga_cache WHERE key = ? AND (expires_at IS NULL OR expires_at > ?)"
_REPLACE = "REPLACE INTO saga_cache (key, value, expires_at) VALUES (?, ?, ?)"
_DELETE = "DELETE FROM saga_cache WHERE key = ?"
_DELETE_EXPIRED = "DELETE FROM saga_cache WHERE expires_at <= ?"
_DELETE_ALL = "DELETE FROM saga_cache"


class CacheError(SagaError):
    """The cache cannot be used as configured."""


class Cache(ABC):
    """What a cache driver must do; values are JSON, keys are non-empty str, times are seconds."""

    @abstractmethod
    def has(self, key: str) -> bool:
        """Tell whether the key has a value that has not expired; None is a value."""

    @abstractmethod
    def get(self, key: str, default: Any = None, ttl: Seconds | None = None) -> Any:
        """Give the value of the key, or the default.

        Args:
            key: the key.
            default: what to give if there is no value. If it is callable, it is called without arguments
                and its result is stored and given. It may return a tuple `(value, ttl)`. A result of None is
                given but not stored. Callers that miss at the same time each call it.
            ttl: how long a result of a callable `default` is kept; None means the cache's own time to live.

        Raises:
            NotJSON: the result of `default` is not JSON.
            CacheError: the key or the time to live is no such thing, or the driver failed.
        """

    @abstractmethod
    def put(self, key: str, value: Any, ttl: Seconds | None = None) -> Any:
        """Store a JSON value and give it back.

        Args:
            key: the key.
            value: what to store.
            ttl: how long it is kept; None means the cache's own time to live, zero or less means not at all.

        Raises:
            NotJSON: the value is not JSON.
            CacheError: the key or the time to live is no such thing, or the driver failed.
        """

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove the key, if it is there."""

    @abstractmethod
    def flush(self, expired_only: bool = False) -> None:
        """Remove everything, or only what has expired."""


class JSONCache(Cache):
    """What the drivers here share: times to live, and values as JSON text, never as the caller's objects."""

    def __init__(self, ttl: Seconds | None, clock: Callable[[], float]) -> None:
        self._ttl_s = None if ttl is None else _seconds(ttl)
        self._clock = clock

    def has(self, key: str) -> bool:
        return self._read(checked_key(key), self._clock()) is not None

    def get(self, key: str, default: Any = None, ttl: Seconds | None = None) -> Any:
        text = self._read(checked_key(key), self._clock())
        if text is not None:
            return json.loads(text)
        if not callable(default):
            return default
        value = default()
        if isinstance(value, tuple):
            value, ttl = _with_ttl(key, value)
        return None if value is None else self.put(key, value, ttl)

    def put(self, key: str, value: Any, ttl: Seconds | None = None) -> Any:
        text = _encoded(checked_key(key), value)
        ttl_s = self._ttl_s if ttl is None else _seconds(ttl)
        now = self._clock()
        self._write(key, text, None if ttl_s is None else now + ttl_s, now)
        return value

    @abstractmethod
    def _read(self, key: str, now: float) -> str | None:
        """Give the text of a value that has not expired."""

    @abstractmethod
    def _write(self, key: str, text: str, expires_at: float | None, now: float) -> None:
        """Store the text and remove what has expired."""


class MemoryCache(JSONCache):
    """A cache for one process, thread-safe; when it is full, what was stored first goes first.

    Args:
        ttl: time to live of a value stored without one, in seconds; None keeps it until it is pushed out.
        entries_max: how many values are kept.
        clock: gives the time in seconds.
    """

    def __init__(
        self,
        ttl: Seconds | None = TTL_DEFAULT_S,
        entries_max: int = MEMORY_ENTRIES_MAX,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(ttl, clock)
        if entries_max < 1:
            raise CacheError(f"entries_max is {entries_max}: a cache keeps at least 1 value")
        self._entries_max = entries_max
        self._entries: dict[str, tuple[str, float]] = {}
        self._lock = threading.Lock()

    def delete(self, key: str) -> None:
        with self._lock:
            self._entries.pop(checked_key(key), None)

    def flush(self, expired_only: bool = False) -> None:
        with self._lock:
            if expired_only:
                self._drop_expired(self._clock())
            else:
                self._entries.clear()

    def _read(self, key: str, now: float) -> str | None:
        with self._lock:
            text, expires_at = self._entries.get(key, (None, now))
            if now >= expires_at:
                self._entries.pop(key, None)
                return None
            return text

    def _write(self, key: str, text: str, expires_at: float | None, now: float) -> None:
        with self._lock:
            self._entries.pop(key, None)
            if len(self._entries) >= self._entries_max:
                self._drop_expired(now)
            while len(self._entries) >= self._entries_max:
                del self._entries[next(iter(self._entries))]
            self._entries[key] = (text, math.inf if expires_at is None else expires_at)

    def _drop_expired(self, now: float) -> None:
        self._entries = {key: entry for key, entry in self._entries.items() if entry[1] > now}


class NoCache(JSONCache):
    """A cache that keeps nothing, and checks keys, values and times as the others do."""

    def __init__(self) -> None:
        super().__init__(None, time.time)

    def delete(self, key: str) -> None:
        checked_key(key)

    def flush(self, expired_only: bool = False) -> None:
        """Remove everything: there is nothing."""

    def _read(self, key: str, now: float) -> str | None:
        return None

    def _write(self, key: str, text: str, expires_at: float | None, now: float) -> None:
        """Keep nothing."""


class SQLiteCache(JSONCache):
    """A cache in a SQLite file on a local disk, for several threads and processes; opened at first use.

    The file gets mode 0600: what is cached may be a token. Its directory is made if need be, with mode 0700.

    Args:
        path: the file.
        ttl: time to live of a value stored without one, in seconds; None keeps it for ever.
        clock: gives the time in seconds; processes that share a file must agree on it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        ttl: Seconds | None = TTL_DEFAULT_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(ttl, clock)
        self.path = Path(path)
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.Lock()
        with _CACHES_LOCK:
            _CACHES.add(self)

    def delete(self, key: str) -> None:
        self._execute(_DELETE, checked_key(key))

    def flush(self, expired_only: bool = False) -> None:
        if expired_only:
            self._execute(_DELETE_EXPIRED, self._clock())
        else:
            self._execute(_DELETE_ALL)

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._lock:
            self._close_connection()

    def _read(self, key: str, now: float) -> str | None:
        row = self._execute(_SELECT, key, now)
        return None if row is None else str(row[0])

    def _write(self, key: str, text: str, expires_at: float | None, now: float) -> None:
        self._execute(_REPLACE, key, text, expires_at)
        self._execute(_DELETE_EXPIRED, now)

    def _execute(self, statement: str, *values: Any) -> Any:
        """Run one statement, which is its own transaction, and give its first row or None."""
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = self._opened()
                return self._connection.execute(statement, values).fetchone()
            except (sqlite3.Error, OSError) as error:
                raise CacheError(
                    f"the cache file {self.path} cannot be used: {error}. Set CACHE_DIR to a directory on a "
                    "local disk that this process may write, or delete the file: it only holds cached values"
                ) from error

    def _opened(self) -> sqlite3.Connection:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Made before SQLite does, which would make it readable for others until the mode is changed.
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        self.path.chmod(0o600)
        connection = sqlite3.connect(self.path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            # Losing the last values at a power cut only costs asking again.
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.executescript(_SCHEMA)
        except BaseException:
            connection.close()
            raise
        self._close_at_exit = weakref.finalize(self, connection.close)
        return connection

    def _close_connection(self) -> None:
        """Close the file; the caller holds the lock."""
        if self._connection is not None:
            self._close_at_exit()
            self._connection = None


# SQLite allows a forked process neither to use nor to close a connection that it inherits. So no cache is open
# or in the middle of a statement while the process forks; both sides open the file again when they need it.
_CACHES: weakref.WeakSet[SQLiteCache] = weakref.WeakSet()
_CACHES_LOCK = threading.Lock()
_HELD_DURING_FORK: list[SQLiteCache] = []


def _before_fork() -> None:
    _CACHES_LOCK.acquire()
    for cache in _CACHES:
        cache._lock.acquire()
        _HELD_DURING_FORK.append(cache)
        cache._close_connection()


def _after_fork() -> None:
    while _HELD_DURING_FORK:
        _HELD_DURING_FORK.pop()._lock.release()
    _CACHES_LOCK.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)


class DebugLogger(Protocol):
    """The one method of a logger, a `LoggerAdapter` or a structlog logger that is used here."""

    def debug(self, msg: str, /, *args: Any) -> Any:
        """Log a message with `%s` arguments."""
        ...


#: What makes a driver out of the configuration.
CacheFactory = Callable[[Mapping[str, Any], Any], Cache]


def provide_cache(
    config: Mapping[str, Any], logger: DebugLogger, drivers: Mapping[str, CacheFactory] | None = None
) -> Cache:
    """Make the cache that the configuration names in `CACHE_DRIVER`; "sqlite" by default.

    Args:
        config: the configuration variables.
        logger: given to the driver's factory; told which driver is used.
        drivers: more drivers by name, or others under a known name: functions of `(config, logger)`.

    Raises:
        CacheError: there is no such driver, or its settings are wrong.
    """
    known = {**_DRIVERS, **(drivers or {})}
    name = _setting(config, "CACHE_DRIVER", "sqlite")
    factory = known.get(name) or known.get(name.lower())
    if factory is None:
        raise CacheError(
            f"CACHE_DRIVER is {name!r}; known drivers are {', '.join(sorted(known))}. Name one of them, or "
            "give provide_cache a driver of that name"
        )
    logger.debug("the cache uses the driver %s", name)
    return factory(config, logger)


def provide_sqlite_cache_adapter(config: Mapping[str, Any], logger: object) -> Cache:
    """Make a `SQLiteCache` from `CACHE_DIR`, `CACHE_NAME` and `CACHE_TTL`; no file is touched yet.

    Args:
        config: the configuration variables.
        logger: not used; every driver's factory is given one.

    Raises:
        CacheError: a setting is wrong.
    """
    name = _setting(config, "CACHE_NAME", _setting(config, "CACHE_SQLITE_NAME", "cache"))
    if Path(name).name != name:
        raise CacheError(f"CACHE_NAME is {name!r}: give only a file name; the directory is CACHE_DIR")
    directory = _setting(config, "CACHE_DIR", "") or _directory_default()
    return SQLiteCache(Path(directory).expanduser() / f"{name}.sqlite", _ttl_setting(config))


def provide_memory_cache_adapter(config: Mapping[str, Any], logger: object) -> Cache:
    """Make a `MemoryCache` from `CACHE_TTL`.

    Args:
        config: the configuration variables.
        logger: not used; every driver's factory is given one.

    Raises:
        CacheError: `CACHE_TTL` is no number.
    """
    return MemoryCache(_ttl_setting(config))


def provide_no_cache_adapter(config: Mapping[str, Any], logger: object) -> Cache:
    """Make a `NoCache`.

    Args:
        config, logger: not used; every driver's factory is given both.
    """
    return NoCache()


def provide_redis_cache_adapter(config: Mapping[str, Any], logger: object) -> Cache:
    """Make a `RedisCache` from `CACHE_REDIS_URL`, `CACHE_NAME` and `CACHE_TTL`; nothing is connected yet.

    Args:
        config: the configuration variables.
        logger: not used; every driver's factory is given one.

    Raises:
        CacheError: a setting is wrong, or the extra `redis` is not installed.
    """
    from saga_engine.services.redis_cache import URL_DEFAULT, RedisCache

    url = _setting(config, "CACHE_REDIS_URL", URL_DEFAULT)
    return RedisCache(url, _ttl_setting(config), _setting(config, "CACHE_NAME", "cache"))


#: Drivers by the names that `CACHE_DRIVER` has for them.
_DRIVERS: Mapping[str, CacheFactory] = {
    "memory": provide_memory_cache_adapter,
    "none": provide_no_cache_adapter,
    "redis": provide_redis_cache_adapter,
    "sqlite": provide_sqlite_cache_adapter,
}


def _setting(config: Mapping[str, Any], name: str, default: str) -> str:
    value = config.get(name)
    if value is None:
        return default
    if not isinstance(value, (str, os.PathLike)):
        raise CacheError(f"{name} is {value!r}: give text")
    return os.fspath(value).strip() or default


def _ttl_setting(config: Mapping[str, Any]) -> float:
    value = config.get("CACHE_TTL")
    return _seconds(TTL_DEFAULT_S if value is None or value == "" else value)


def _directory_default() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "saga-engine"


def _seconds(ttl: Any) -> float:
    """Read a time to live given as a number or a numeric str."""
    try:
        seconds = math.nan if isinstance(ttl, bool) else float(ttl)
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if not math.isfinite(seconds):
        raise CacheError(f"a time to live is a number of seconds such as 900 or '900', not {ttl!r}")
    return seconds


def _with_ttl(key: str, made: tuple[Any, ...]) -> tuple[Any, Any]:
    """Read what a callable default made if it is a tuple."""
    try:
        value, ttl = made
    except ValueError as error:
        raise CacheError(
            f"cache key {key!r}: a default that returns a tuple returns (value, ttl), not {len(made)} values"
        ) from error
    return value, ttl


def checked_key(key: Any) -> str:
    """Give a key that can be one.

    Raises:
        CacheError: it is no non-empty str.
    """
    if not isinstance(key, str) or not key:
        raise CacheError(f"a cache key is a non-empty str, not {key!r}")
    return key


def _encoded(key: str, value: Any) -> str:
    """Encode a value as JSON text; what would not come back equal is refused, not converted.

    Raises:
        NotJSON: it is not JSON; the message names the place.
    """
    try:
        found = _not_json(value, "value")
        if found is None:
            return json.dumps(value)
    except RecursionError:
        found = "value contains itself or is nested too deeply"
    raise NotJSON(f"cache key {key!r}: {found}. Store None, bool, int, float, str, list and dict with str keys only")


def _not_json(value: Any, path: str) -> str | None:
    """Tell the first thing in a value that is not JSON."""
    if value is None or isinstance(value, (str, int)):
        return None
    if isinstance(value, float):
        return None if math.isfinite(value) else f"{path} is {value!r}"
    if isinstance(value, list):
        parts = ((item, f"{path}[{index}]") for index, item in enumerate(value))
    elif isinstance(value, dict):
        odd_keys = [key for key in value if not isinstance(key, str)]
        if odd_keys:
            return f"{path} has the key {odd_keys[0]!r}"
        parts = ((item, f"{path}[{key!r}]") for key, item in value.items())
    else:
        return f"{path} is a {type(value).__name__}"
    return next((found for item, where in parts if (found := _not_json(item, where))), None)
