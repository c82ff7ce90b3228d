"""The cache driver for a redis server (or one that speaks its protocol); needs the extra `redis`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlsplit

from saga_engine.services.cache import TTL_DEFAULT_S, CacheError, JSONCache, Seconds, checked_key

__all__ = ["URL_DEFAULT", "RedisCache"]

URL_DEFAULT = "redis://127.0.0.1:6379/0"
_TIMEOUT_S = 5.0
#: The longest time to live that a server takes, near enough: 30,000 years.
_TTL_S_MAX = 1e12
#: How many keys are removed at a time.
_PAGE = 500
#: Characters that a pattern of redis does not take for themselves.
_SPECIAL = str.maketrans({character: f"\\{character}" for character in "\\*?[]^-"})


class RedisCache(JSONCache):
    """A cache on a redis server, for several processes and hosts; connected at first use. The server expires values.

    Args:
        url: `redis://`, `rediss://` or `unix://`, as redis-py takes it.
        ttl: time to live of a value stored without one, in seconds; None keeps it for ever.
        name: what its keys begin with; caches of other names on one server do not see each other.

    Raises:
        CacheError: the URL cannot be one, the name is empty, or the extra `redis` is not installed.
    """

    def __init__(self, url: str = URL_DEFAULT, ttl: Seconds | None = TTL_DEFAULT_S, name: str = "cache") -> None:
        super().__init__(ttl, time.monotonic)  # only differences of times are used
        # Quoted, so that no name with its colon can be the beginning of another's key.
        self._prefix = f"{quote(checked_key(name), safe='')}:"
        self._shown_url = _without_password(url)
        self._client, self._errors = _client_of(url, self._shown_url)

    def delete(self, key: str) -> None:
        name = self._prefix + checked_key(key)
        self._ask(lambda: self._client.delete(name))

    def flush(self, expired_only: bool = False) -> None:
        """Remove all that this cache stored; what has expired the server removes itself."""
        if not expired_only:
            self._ask(self._remove_all)

    def close(self) -> None:
        """Close the connections; the next use opens new ones."""
        self._client.close()

    def _read(self, key: str, now: float) -> str | None:
        text = self._ask(lambda: self._client.get(self._prefix + key))
        return None if text is None else str(text)

    def _write(self, key: str, text: str, expires_at: float | None, now: float) -> None:
        name, ttl_ms = self._prefix + key, None
        if expires_at is not None:
            ttl_ms = round(min(expires_at - now, _TTL_S_MAX) * 1000)
            if ttl_ms <= 0:
                self._ask(lambda: self._client.delete(name))
                return
        self._ask(lambda: self._client.set(name, text, px=ttl_ms))

    def _remove_all(self) -> None:
        keys: list[str] = []
        for key in self._client.scan_iter(f"{self._prefix.translate(_SPECIAL)}*", count=_PAGE):
            keys.append(key)
            if len(keys) == _PAGE:
                self._client.delete(*keys)
                keys.clear()
        if keys:
            self._client.delete(*keys)

    def _ask(self, question: Callable[[], Any]) -> Any:
        try:
            return question()
        except (self._errors, OSError) as error:
            raise CacheError(
                f"the cache at {self._shown_url} cannot be used: {error}. Start a redis server there, set "
                "CACHE_REDIS_URL to the URL of one, or choose another CACHE_DRIVER"
            ) from error


def _client_of(url: str, shown_url: str) -> tuple[Any, type[Exception]]:
    """Make a client that is safe for use from threads and after a fork, and give the base of its errors."""
    try:
        import redis
    except ImportError as error:
        raise CacheError(
            "the cache driver redis needs the package redis: pip install 'saga-engine[redis]', or choose another "
            "CACHE_DRIVER"
        ) from error
    try:
        client = redis.Redis.from_url(
            url, decode_responses=True, protocol=2, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S
        )
    except ValueError as error:
        raise CacheError(f"CACHE_REDIS_URL is {shown_url!r} ({error}): write redis://host:6379/0") from error
    return client, redis.RedisError


def _without_password(url: str) -> str:
    try:
        parts = urlsplit(url)
        netloc = parts.netloc.rpartition("@")[2]
    except ValueError:
        return "(a URL that cannot be read)"
    return parts._replace(netloc=netloc, query="").geturl()
