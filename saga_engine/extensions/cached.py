"""Cached functions: one call per miss however many wait for it, and nothing out of date after an invalidation.

What a caller is given was computed after the last invalidation of that key which this process knows of: a call that
was under way when it came is made again. The first caller that finds nothing makes the call, in its own task; the
others wait for it, from whatever event loop (asyncio or trio) they come. If it is cancelled, one of them makes the
call instead.
"""

from __future__ import annotations

import functools
import inspect
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from contextvars import ContextVar
from types import TracebackType
from typing import Any, TypeVar

import anyio

from saga_engine.extensions.cache_keys import Key, KeyRule, as_text
from saga_engine.extensions.errors import InvalidatedTooOften, NotCacheable, NotCached
from saga_engine.extensions.invalidations import InvalidationFeed
from saga_engine.extensions.loops import current_loop

__all__ = ["ENTRIES_MAX", "RECALLS_MAX", "CachedFunction", "cached", "cached_function_of"]

#: How many values a function, or an instance's method, keeps by default.
ENTRIES_MAX = 1_000

#: How often a call is made for one caller because each time its key was invalidated meanwhile.
RECALLS_MAX = 100

Function = TypeVar("Function", bound=Callable[..., Awaitable[Any]])

#: Runs a function soon in an event loop, from any thread.
_RunSoon = Callable[[Callable[[], object]], object]

#: Guards all caches: what is done under it is short, and a fork has to wait for one lock only.
_lock = threading.RLock()


def cached(
    function: None = None,
    /,
    *,
    max_entries: int = ENTRIES_MAX,
    num_args: int | None = None,
    uncached_args: Collection[str] = (),
) -> Callable[[Function], Function]:
    """Decorate an async function so that it is called once for the same arguments. Exceptions are not kept.

    A function whose first parameter is `self` is a method: each instance has a cache of its own, which ends with it.
    All callers are given the same object, so nobody may change it. Arguments of different types are different.

    Args:
        function: nothing: it is written `@cached()`, with parentheses.
        max_entries: how many values are kept; of more, the one that was not asked for the longest goes.
        num_args: how many of its arguments (without `self`) make up the key, from the first; None: all.
        uncached_args: the names of arguments that are no part of the key; not together with `num_args`.

    Raises:
        NotCacheable: the function is not async, or these arguments do not fit it; a TypeError. The decorated function
            raises it when an argument cannot be hashed, or an instance cannot hold a cache.
        InvalidatedTooOften: raised by the decorated function: its key was invalidated `RECALLS_MAX` times while it
            was being computed.
    """

    if function is not None:
        raise NotCacheable(f"@cached stands above {function!r} without parentheses: write @cached()")

    def decorate(function: Function) -> Function:
        cache = CachedFunction(function, max_entries, num_args, uncached_args)

        @functools.wraps(function)
        async def answer(*args: Any, **kwargs: Any) -> Any:
            return await cache.answer(args, kwargs)

        answer.cache = cache  # type: ignore[attr-defined]
        return answer  # type: ignore[return-value]

    return decorate


def cached_function_of(function: Any) -> CachedFunction:
    """Give the cache of a decorated function or method.

    Raises:
        NotCached: it is not decorated.
    """
    cache = getattr(function, "cache", None)
    if not isinstance(cache, CachedFunction):
        raise NotCached(f"{function!r} has no cache: decorate it with @cached()")
    return cache


# --- one call -----------------------------------------------------------------------------------------------------

_NOTHING: Any = object()


class _Call:
    """One call of a cached function: under way, or over with a value, an error, or nothing if it was cancelled."""

    __slots__ = ("_bells", "_traceback", "error", "is_outdated", "needs", "value", "waiting")

    def __init__(self) -> None:
        self.value = _NOTHING
        self.error: Exception | None = None
        self._traceback: TracebackType | None = None
        self.is_outdated = False
        #: How many wait for it, or have not taken its value yet.
        self.waiting = 0
        #: The calls for which parts of this one wait; one as often as it is waited for.
        self.needs: list[_Call] = []
        self._bells: dict[_RunSoon, anyio.Event] = {}

    def is_within(self, calls: Collection[_Call]) -> bool:
        """Tell whether this is one of these calls, or waits for one of them, directly or not."""
        seen: set[_Call] = set()
        to_see = [self]
        while to_see:
            call = to_see.pop()
            if call in calls:
                return True
            if call not in seen:
                seen.add(call)
                to_see.extend(call.needs)
        return False

    def bell(self) -> anyio.Event:
        """Give what this event loop is told through that the call is over."""
        run_soon = _into_this_loop()
        if run_soon not in self._bells:
            self._bells[run_soon] = anyio.Event()
        return self._bells[run_soon]

    def end(self, value: Any = _NOTHING, error: Exception | None = None) -> None:
        """Note what came of it, and wake whoever waits."""
        self.value, self.error = value, error
        self._traceback = None if error is None else error.__traceback__
        for run_soon, bell in self._bells.items():
            with suppress(RuntimeError):  # that loop is closed: nobody waits there any more
                run_soon(bell.set)
        self._bells = {}

    def raise_error(self) -> None:
        """Raise the error, if there is one; each time with the first traceback, which would grow otherwise."""
        if self.error is not None:
            raise self.error.with_traceback(self._traceback)


#: The calls that the present one is part of: to wait for what waits for one of them would be to wait for oneself.
_calls_around: ContextVar[tuple[_Call, ...]] = ContextVar("saga_engine_cached_calls", default=())


def _into_this_loop() -> _RunSoon:
    loop = current_loop()
    run_soon: _RunSoon = getattr(loop, "call_soon_threadsafe", None) or loop.run_sync_soon
    return run_soon


# --- what is kept -------------------------------------------------------------------------------------------------


class _Shelf:
    """What one function, or one instance's method, has cached. Used under the lock."""

    def __init__(self, entries_max: int, instance: object = None) -> None:
        self._entries_max = entries_max
        self._instance = None if instance is None else weakref.ref(instance)
        #: Calls with a value, the one that was not asked for the longest first.
        self._kept: OrderedDict[Key, _Call] = OrderedDict()
        #: These, those under way, and those pushed out whose value not all who waited for it have taken yet: an
        #: invalidation must find them all.
        self._valid: dict[Key, _Call] = {}

    def is_of(self, instance: object) -> bool:
        """Tell whether it was made for this instance; a copy of an instance comes with the original's."""
        return self._instance is not None and self._instance() is instance

    def find(self, key: Key) -> _Call | None:
        """Give the valid call of this key, and keep its value longer."""
        call = self._valid.get(key)
        if call is not None and call.value is not _NOTHING:
            self._keep(key, call)
        return call

    def begin(self, key: Key) -> _Call:
        """Note that a call begins."""
        call = self._valid[key] = _Call()
        return call

    def end(self, key: Key, call: _Call, value: Any = _NOTHING, error: Exception | None = None) -> None:
        """Note what came of a call; keep its value, unless it is out of date."""
        if self._valid.get(key) is call:
            if value is _NOTHING:
                del self._valid[key]
            else:
                self._keep(key, call)
        call.end(value, error)

    def leave(self, key: Key, call: _Call) -> None:
        """Note that one who waited for the call waits no more."""
        call.waiting -= 1
        self._let_go(key, call)

    def drop(self, key: Key | None) -> None:
        """Make the calls of this key invalid; None: all calls."""
        for each in list(self._valid) if key is None else [key]:
            call = self._valid.pop(each, None)
            if call is not None:
                call.is_outdated = True
            self._kept.pop(each, None)

    def forget(self) -> None:
        """Drop every value, and leave the calls under way alone."""
        while self._kept:
            self._let_go(*self._kept.popitem())

    def drop_unfinished(self) -> None:
        """Forget the calls under way: in a forked child, nobody makes them."""
        self._valid = dict(self._kept)

    def _keep(self, key: Key, call: _Call) -> None:
        self._kept[key] = call
        self._kept.move_to_end(key)
        if len(self._kept) > self._entries_max:
            self._let_go(*self._kept.popitem(last=False))

    def _let_go(self, key: Key, call: _Call) -> None:
        """Forget a call that is over, unless its value is kept, or somebody has yet to take it."""
        if call.value is not _NOTHING and not call.waiting and key not in self._kept and self._valid.get(key) is call:
            del self._valid[key]

    def __reduce__(self) -> tuple[type, tuple[()]]:
        """Make None of it in a copied or pickled instance: what is cached there is not the copy's."""
        return type(None), ()


# --- one function -------------------------------------------------------------------------------------------------


class CachedFunction:
    """The cache of one decorated function, for all instances if it is a method.

    Args:
        function, max_entries, num_args, uncached_args: see `cached`.
    """

    def __init__(
        self, function: Callable[..., Any], max_entries: int, num_args: int | None, uncached_args: Collection[str]
    ) -> None:
        if not inspect.iscoroutinefunction(function):
            raise NotCacheable(f"{function!r} is no async function: write `@cached()` above an `async def`")
        #: Tells it from every other function, in all processes that run the same code.
        self.name = f"{function.__module__}.{function.__qualname__}"
        if type(max_entries) is not int or max_entries < 1:
            raise NotCacheable(f"{self.name}: max_entries is {max_entries!r}: give an int of at least 1")
        self._function = function
        self._entries_max = max_entries
        self._rule = KeyRule(self.name, function, num_args, uncached_args)
        self._slot = f"_cached {self.name}"
        self._shelves: weakref.WeakSet[_Shelf] = weakref.WeakSet()
        self._shelf = None if self._rule.is_method else self._new_shelf()
        self._registrations: list[InvalidationFeed | None] = []
        self._feeds: tuple[InvalidationFeed, ...] = ()
        with _lock:
            _functions.add(self)

    async def answer(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Give the value that is cached for these arguments, or that a call gives."""
        key = self._rule.of_call(args, kwargs)
        shelf = self._shelf or self._shelf_of(args[0] if args else kwargs["self"])
        recalls = 0
        while recalls < RECALLS_MAX:
            self._look()
            with _lock:
                call = shelf.find(key)
                if call is not None and call.value is not _NOTHING:
                    return call.value
                is_mine = call is None
                call = call or shelf.begin(key)
                around = _calls_around.get()
                is_within = not is_mine and call.is_within(around)
                bell = None if is_mine or is_within else call.bell()
                if bell is not None:
                    call.waiting += 1
                    for one in around:
                        one.needs.append(call)
            if is_within:
                return await self._function(*args, **kwargs)
            if bell is None:
                await self._make(shelf, key, call, args, kwargs)
            else:
                await self._wait(shelf, key, call, bell)
            call.raise_error()
            if call.value is not _NOTHING and not call.is_outdated:
                return call.value
            recalls += call.is_outdated
        raise InvalidatedTooOften(
            f"{self.name}: it was invalidated {RECALLS_MAX} times while it was being computed: "
            "invalidate it less often, or do not cache it"
        )

    async def _make(self, shelf: _Shelf, key: Key, call: _Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Make the call. What it raises is everybody's, but a cancellation is only this caller's."""
        around = _calls_around.set((*_calls_around.get(), call))
        try:
            value = await self._function(*args, **kwargs)
        except Exception as error:
            with _lock:
                shelf.end(key, call, error=error)
            raise
        except BaseException:
            with _lock:
                shelf.end(key, call)
            raise
        finally:
            _calls_around.reset(around)
        self._look()  # it may have taken long enough for another process to say that it is out of date
        with _lock:
            shelf.end(key, call, value)

    async def _wait(self, shelf: _Shelf, key: Key, call: _Call, bell: anyio.Event) -> None:
        try:
            await bell.wait()
        finally:
            with _lock:
                shelf.leave(key, call)
                for one in _calls_around.get():
                    one.needs.remove(call)

    # --- invalidation ---

    def register(self, feed: InvalidationFeed | None) -> Callable[[], None]:
        """Keep in step with other processes from now on; None: there are none. Give what undoes it."""
        if feed is not None:
            feed.listen(self)
        with _lock:
            self._registrations.append(feed)
            self._feeds = _distinct(self._registrations)
        self._drop(None)  # nobody listened while these were computed

        def undo() -> None:
            with _lock:
                self._registrations.remove(feed)
                self._feeds = _distinct(self._registrations)
                is_last = feed not in self._registrations
            if feed is not None and is_last:
                feed.leave(self)

        return undo

    async def invalidate(self, values: Sequence[Any] | None) -> None:
        """Drop what is cached for these arguments (None: everything), for all instances, here and elsewhere.

        Raises:
            NotCached: it is not registered.
            NotCacheable: these are not the arguments that make up its key.
            JournalError: it was dropped here, but the other processes could not be told.
        """
        if not self._registrations:
            raise NotCached(f"{self.name} is not registered: call api.register_cached_function(...) in __init__ first")
        key = None if values is None else self._rule.of_values(values)
        self._drop(key)
        for feed in self._feeds:
            await feed.tell(self.name, None if values is None else as_text(values))

    def drop(self, values: Sequence[Any] | None) -> None:
        """Drop what is cached for these arguments, or everything, in this process; see `Listener.drop`."""
        try:
            key = None if values is None else self._rule.of_values(values)
        except NotCacheable:  # another version of the code, with other parameters, runs there
            key = None
        self._drop(key)

    def _drop(self, key: Key | None) -> None:
        with _lock:
            for shelf in self._shelves:
                shelf.drop(key)

    def forget(self) -> None:
        """Drop every value, and leave the calls under way alone; see `Listener.forget`."""
        with _lock:
            for shelf in self._shelves:
                shelf.forget()

    def drop_unfinished(self) -> None:
        """Forget the calls under way; see `_Shelf.drop_unfinished`."""
        for shelf in self._shelves:
            shelf.drop_unfinished()

    def _look(self) -> None:
        for feed in self._feeds:
            feed.look_if_due()

    # --- instances ---

    def _new_shelf(self, instance: object = None) -> _Shelf:
        shelf = _Shelf(self._entries_max, instance)
        self._shelves.add(shelf)
        return shelf

    def _shelf_of(self, instance: Any) -> _Shelf:
        """Give the shelf of an instance, which holds it: from outside, a value that refers to it would keep it."""
        shelf = getattr(instance, "__dict__", {}).get(self._slot)
        if isinstance(shelf, _Shelf) and shelf.is_of(instance):
            return shelf
        with _lock:
            try:
                shelf = instance.__dict__.get(self._slot)
                if shelf is None or not shelf.is_of(instance):
                    shelf = instance.__dict__[self._slot] = self._new_shelf(instance)
            except (AttributeError, TypeError) as error:
                raise NotCacheable(
                    f"{self.name}: {type(instance).__qualname__} cannot hold a cache ({error}): "
                    'let its __slots__ name "__dict__" and "__weakref__"'
                ) from error
            found: _Shelf = shelf
            return found


def _distinct(registrations: list[InvalidationFeed | None]) -> tuple[InvalidationFeed, ...]:
    return tuple(dict.fromkeys(feed for feed in registrations if feed is not None))


# --- forks --------------------------------------------------------------------------------------------------------

_functions: weakref.WeakSet[CachedFunction] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for function in _functions:
        function.drop_unfinished()
    _lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_after_fork_in_child)
