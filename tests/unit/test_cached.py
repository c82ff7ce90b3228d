"""Cached functions: one call per miss, nothing out of date after an invalidation, processes in step (SEEDS e 4)."""

from __future__ import annotations

import asyncio
import copy
import gc
import inspect
import os
import pickle
import random
import threading
import weakref
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saga_engine.errors import JournalError
from saga_engine.extensions.cached import RECALLS_MAX, cached, cached_function_of
from saga_engine.extensions.errors import InvalidatedTooOften, InvalidationsUnsupported, NotCacheable, NotCached
from saga_engine.extensions.invalidations import InvalidationFeed, feed_of
from saga_engine.journal import InvalidationJournal
from saga_engine.journals import open_journal
from transactions import SagaError

DEADLINE_S = 20

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Every async test here runs on both."""
    return str(request.param)


class Source:
    """What cached functions ask: a value per key, with a version; it notes who asks, and can hold answers back."""

    def __init__(self) -> None:
        self.version = 0
        self.calls: Counter[Any] = Counter()
        self.under_way: Counter[Any] = Counter()
        self.gates: list[anyio.Event] = []

    def hold_back(self) -> anyio.Event:
        """Let the next call wait for this event before it answers."""
        self.gates.append(anyio.Event())
        return self.gates[-1]

    async def ask(self, key: Any) -> tuple[Any, int]:
        self.calls[key] += 1
        self.under_way[key] += 1
        read = (key, self.version)
        try:
            await (self.gates.pop(0).wait() if self.gates else anyio.lowlevel.checkpoint())
        finally:
            self.under_way[key] -= 1
        return read


async def until(condition: Callable[[], object]) -> None:
    """Let others run until the condition holds."""
    with anyio.fail_after(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - anything may be waited for
            await anyio.sleep(0.001)


async def gathered(function: Callable[[], Awaitable[Any]], count: int) -> list[Any]:
    """Call it so many times at once; give what all of them gave or raised."""
    outcomes: list[Any] = []

    async def call() -> None:
        try:
            outcomes.append(await function())
        except Exception as error:
            outcomes.append(error)

    async with anyio.create_task_group() as tasks:
        for _ in range(count):
            tasks.start_soon(call)
    return outcomes


@contextmanager
def registered(function: Any, feed: InvalidationFeed | None = None) -> Iterator[Callable[..., Awaitable[None]]]:
    """Register a cached function; give what invalidates it: `await invalidate(*values)`, without any: everything."""
    cache = cached_function_of(function)
    undo = cache.register(feed)

    async def invalidate(*values: Any) -> None:
        await cache.invalidate(values or None)

    yield invalidate
    undo()


# --- what is decorated --------------------------------------------------------------------------------------------


async def test_e4_a_cached_function_is_called_once_for_the_same_arguments() -> None:
    source = Source()
    ask = cached()(source.ask)
    assert [await ask("a"), await ask("b"), await ask("a")] == [("a", 0), ("b", 0), ("a", 0)]
    assert source.calls == {"a": 1, "b": 1}


def test_e4_the_decorated_function_is_still_an_async_function_with_its_name_and_its_parameters() -> None:
    @cached()
    async def department(user: str, *, is_new: bool = False) -> str:
        """Give the department."""
        return user

    assert inspect.iscoroutinefunction(department)
    assert (department.__name__, department.__doc__) == ("department", "Give the department.")
    assert list(inspect.signature(department).parameters) == ["user", "is_new"]


async def test_e4_none_is_a_value_like_any_other() -> None:
    calls: list[str] = []

    @cached()
    async def nothing(key: str) -> None:
        calls.append(key)

    for _ in range(2):
        await nothing("a")
    assert calls == ["a"]


async def test_e4_a_failure_is_not_cached() -> None:
    answers: list[Any] = [OSError("down"), "up"]

    @cached()
    async def ask() -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    with pytest.raises(OSError, match="down"):
        await ask()
    assert [await ask(), await ask()] == ["up", "up"]


async def test_e4_those_who_wait_for_a_call_that_fails_get_its_error_and_it_was_one_call() -> None:
    calls: list[int] = []

    @cached()
    async def ask() -> None:
        calls.append(1)
        await anyio.lowlevel.checkpoint()
        raise OSError("down")

    errors = await gathered(ask, 50)
    assert [type(error) for error in errors] == [OSError] * 50
    assert len(calls) == 1
    depth = 0
    traceback = errors[-1].__traceback__
    while traceback is not None:
        traceback, depth = traceback.tb_next, depth + 1
    assert depth < 10, "each of those who waited has made the traceback longer"


async def test_e4_the_one_that_was_not_asked_for_the_longest_goes_when_the_cache_is_full() -> None:
    source = Source()
    ask = cached(max_entries=2)(source.ask)
    for key in ("a", "b", "a", "c", "a", "b"):
        await ask(key)
    assert source.calls == {"a": 1, "b": 2, "c": 1}


async def test_e4_a_value_that_is_pushed_out_before_all_who_wait_have_it_is_not_computed_again() -> None:
    source = Source()
    ask = cached(max_entries=1)(source.ask)

    async with anyio.create_task_group() as tasks:
        for number in range(200):
            tasks.start_soon(ask, number % 10)
    assert source.calls == dict.fromkeys(range(10), 1)


async def test_e4_nothing_is_left_of_a_value_that_was_pushed_out() -> None:
    class Value:
        """Something that can be looked for."""

    @cached(max_entries=1)
    async def ask(key: str) -> Value:
        await anyio.lowlevel.checkpoint()
        return Value()

    gone = weakref.ref((await gathered(lambda: ask("a"), 10))[0])
    await ask("b")
    gc.collect()
    assert gone() is None


# --- keys ---------------------------------------------------------------------------------------------------------


async def test_e4_defaults_and_keywords_make_the_same_key_as_positions() -> None:
    calls: list[tuple[Any, ...]] = []

    @cached()
    async def ask(a: int, b: int = 2, *, c: int = 3) -> int:
        calls.append((a, b, c))
        return len(calls)

    same = [await ask(1), await ask(1, 2), await ask(a=1), await ask(1, b=2, c=3), await ask(c=3, b=2, a=1)]
    assert same == [1] * 5
    assert [await ask(1, 3), await ask(1, c=4)] == [2, 3]


async def test_e4_num_args_says_how_many_arguments_make_up_the_key() -> None:
    source = Source()

    class Module:
        @cached(num_args=1)
        async def ask(self, key: str, attempt: int = 1) -> tuple[Any, int]:
            return await source.ask(key)

    module = Module()
    await module.ask("a", 1)
    await module.ask("a", attempt=2)
    assert source.calls == {"a": 1}


async def test_e4_uncached_args_are_no_part_of_the_key_and_need_no_hash() -> None:
    source = Source()

    @cached(uncached_args=["headers"])
    async def ask(headers: dict[str, str], key: str) -> tuple[Any, int]:
        return await source.ask(key)

    await ask({"a": "1"}, "a")
    await ask({"a": "2"}, "a")
    await ask({}, key="b")
    assert source.calls == {"a": 1, "b": 1}


async def test_e4_arguments_of_different_types_are_different() -> None:
    @cached()
    async def text(value: object) -> str:
        return repr(value)

    assert [await text(value) for value in (1, True, 1.0, "1", None)] == ["1", "True", "1.0", "'1'", "None"]


@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1), st.integers(0, 1), st.integers(0, 7)), max_size=20),
    st.sampled_from([{}, {"num_args": 2}, {"uncached_args": ("b",)}, {"uncached_args": ("a", "c")}, {"num_args": 0}]),
)
def test_e4_two_calls_share_a_value_exactly_if_the_arguments_that_count_are_the_same(
    calls: list[tuple[int, int, int, int]], options: dict[str, Any]
) -> None:
    left_out = options.get("uncached_args", "abc"[options.get("num_args", 3) :])
    counting = [place for place, name in enumerate("abc") if name not in left_out]
    expected: dict[tuple[int, ...], int] = {}

    @cached(**options)
    async def number_of(a: int, b: int = 1, c: int = 0) -> int:
        return len(expected)

    async def call_all() -> None:
        for a, b, c, form in calls:
            names = dict(zip("abc", (a, b, c), strict=True))
            by_place = [names.pop(name) for name in "abc"[: form % 4]]
            if form > 3 and c == 0:
                names.pop("c", None)  # which is its default
            key = tuple((a, b, c)[place] for place in counting)
            got = await number_of(*by_place, **names)
            assert got == expected.setdefault(key, len(expected))

    asyncio.run(call_all())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"max_entries": 0}, "max_entries is 0"),
        ({"max_entries": True}, "max_entries is True"),
        ({"num_args": 3}, "num_args is 3"),
        ({"num_args": -1}, "num_args is -1"),
        ({"num_args": 1, "uncached_args": ["b"]}, "not both"),
        ({"uncached_args": ["c"]}, "uncached_args names c"),
        ({"uncached_args": "ab"}, "give a collection of names"),
    ],
)
def test_e4_limits_and_names_that_do_not_fit_the_function_are_refused(options: dict[str, Any], told: str) -> None:
    async def ask(a: int, b: int) -> None:
        """Never called."""

    with pytest.raises(NotCacheable, match=told):
        cached(**options)(ask)


def test_e4_a_function_that_is_not_async_or_takes_anything_is_refused() -> None:
    async def variable(*users: str) -> None:
        """Never called."""

    with pytest.raises(NotCacheable, match="no async function"):
        cached()(len)  # type: ignore[type-var]
    with pytest.raises(NotCacheable, match=r"it takes \*users"):
        cached()(variable)
    cached(num_args=0)(variable)


async def test_e4_an_argument_that_cannot_be_hashed_is_a_type_error_that_tells_what_to_do() -> None:
    ask = cached()(Source().ask)
    with pytest.raises(NotCacheable, match="uncached_args") as caught:
        await ask([])
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, SagaError)


async def test_e4_a_call_that_does_not_fit_the_parameters_is_a_type_error() -> None:
    ask = cached()(Source().ask)
    with pytest.raises(TypeError, match="key"):
        await ask()  # type: ignore[call-arg]


# --- instances ----------------------------------------------------------------------------------------------------


class Directory:
    """A class with a cached method."""

    def __init__(self, source: Source) -> None:
        self.source = source

    @cached()
    async def ask(self, key: str) -> tuple[Any, int]:
        return await self.source.ask(key)

    @cached()
    async def me(self) -> Directory:
        return self

    @staticmethod
    @cached()
    async def static(key: str) -> list[str]:
        return [key]

    @classmethod
    @cached()
    async def of_class(cls, key: str) -> list[Any]:
        return [cls, key]


class Annex(Directory):
    """A class that inherits one."""


async def test_e4_each_instance_has_a_cache_of_its_own() -> None:
    source = Source()
    one, two = Directory(source), Directory(source)
    for directory in (one, two, one, two):
        await directory.ask("a")
    assert source.calls == {"a": 2}


async def test_e4_an_instance_is_not_kept_alive_even_if_what_is_cached_refers_to_it() -> None:
    directory = Directory(Source())
    await directory.ask("a")
    assert await directory.me() is directory
    gone = weakref.ref(directory)
    del directory
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
async def test_e4_a_copy_of_an_instance_begins_with_an_empty_cache(copied: Callable[[Directory], Directory]) -> None:
    source = Source()
    directory = Directory(source)
    await directory.ask("a")
    other = copied(directory)
    other.source = Source()
    other.source.version = 7
    assert [await other.ask("a"), await directory.ask("a")] == [("a", 7), ("a", 0)]


async def test_e4_a_method_called_through_its_class_uses_the_cache_of_the_instance() -> None:
    source = Source()
    directory = Directory(source)
    await directory.ask("a")
    await Directory.ask(directory, "a")
    await Directory.ask(self=directory, key="a")
    assert source.calls == {"a": 1}


async def test_e4_static_and_class_methods_are_cached_too() -> None:
    assert await Directory.static("a") is await Directory(Source()).static("a")
    assert await Directory.of_class("a") is await Directory.of_class("a")
    assert await Annex.of_class("a") == [Annex, "a"]


async def test_e4_an_instance_that_can_hold_no_cache_is_an_error_that_tells_what_to_do() -> None:
    class Slotted:
        __slots__ = ()

        @cached()
        async def ask(self) -> None:
            """Never called."""

    with pytest.raises(NotCacheable, match="__slots__"):
        await Slotted().ask()


# --- many at once -------------------------------------------------------------------------------------------------


async def test_e4_a_thousand_that_miss_at_once_share_one_call() -> None:
    source = Source()
    ask = cached()(source.ask)
    assert await gathered(lambda: ask("a"), 1_000) == [("a", 0)] * 1_000
    assert source.calls == {"a": 1}


async def test_e4_cancelling_one_who_waits_spares_the_others() -> None:
    source = Source()
    ask = cached()(source.ask)
    gate = source.hold_back()
    outcomes: list[Any] = []

    async def wait() -> None:
        outcomes.append(await ask("a"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await until(lambda: source.under_way["a"])
        tasks.start_soon(wait)
        with anyio.CancelScope() as impatient:
            impatient.cancel()
            await ask("a")
        gate.set()
    assert outcomes == [("a", 0)] * 2
    assert source.calls == {"a": 1}


async def test_e4_cancelling_the_one_that_makes_the_call_lets_another_make_it() -> None:
    source = Source()
    ask = cached()(source.ask)
    source.hold_back()
    scope = anyio.CancelScope()

    async def make() -> None:
        with scope:
            await ask("a")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(make)
        await until(lambda: source.under_way["a"])
        outcomes: list[Any] = []

        async def wait() -> None:
            outcomes.extend(await gathered(lambda: ask("a"), 1_000))

        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        scope.cancel()
    assert outcomes == [("a", 0)] * 1_000
    assert source.calls == {"a": 2}


async def test_e4_a_call_within_itself_goes_on_as_without_a_cache_instead_of_waiting_for_itself() -> None:
    @cached()
    async def countdown(key: str) -> int:
        left.pop()
        return 1 + (await countdown(key) if left else 0)

    left = [1, 2, 3]
    with anyio.fail_after(DEADLINE_S):
        assert await countdown("a") == 3
        assert await countdown("a") == 3


def test_e4_event_loops_in_several_threads_share_one_call() -> None:
    source = Source()
    ask = cached()(source.ask)
    answers: list[Any] = []
    is_going = threading.Event()

    async def make() -> None:
        async with anyio.create_task_group() as tasks:
            gate = source.hold_back()
            tasks.start_soon(note)
            await until(lambda: source.under_way["a"])
            is_going.set()
            await until(lambda: waiting() == 4)
            gate.set()

    async def note() -> None:
        answers.append(await ask("a"))

    def waiting() -> int:
        return sum(len(call._bells) for shelf in cached_function_of(ask)._shelves for call in shelf._valid.values())

    def wait_on(backend: str) -> None:
        is_going.wait(DEADLINE_S)
        anyio.run(note, backend=backend)

    threads = [threading.Thread(target=wait_on, args=[backend]) for backend in ("asyncio", "trio") * 2]
    for thread in threads:
        thread.start()
    anyio.run(make)
    for thread in threads:
        thread.join(DEADLINE_S)
    assert answers == [("a", 0)] * 5
    assert source.calls == {"a": 1}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="only where processes fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")  # which is what is tested
def test_e4_a_forked_child_does_not_wait_for_a_call_that_its_parent_makes() -> None:
    source = Source()
    ask = cached()(source.ask)
    is_going, may_go = threading.Event(), threading.Event()

    async def make() -> None:
        source.hold_back()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, "a")
            await until(lambda: source.under_way["a"])
            is_going.set()
            await until(may_go.is_set)
            tasks.cancel_scope.cancel()

    thread = threading.Thread(target=anyio.run, args=[make])
    thread.start()
    is_going.wait(DEADLINE_S)
    child = os.fork()
    if child == 0:
        answers: list[Any] = []
        try:
            # In another thread than the one that forked, which would not notice that it still holds the lock.
            asker = threading.Thread(target=lambda: answers.append(anyio.run(ask, "a")), daemon=True)
            asker.start()
            asker.join(DEADLINE_S)
        finally:
            os._exit(0 if answers == [("a", 0)] else 1)
    _, status = os.waitpid(child, 0)
    may_go.set()
    thread.join(DEADLINE_S)
    assert status == 0


async def test_e4_two_calls_that_need_each_other_do_not_wait_for_each_other() -> None:
    needed = {"a": ["b"], "b": ["c"], "c": ["a"]}

    @cached(uncached_args=("seen",))
    async def dependencies(name: str, seen: frozenset[str] = frozenset()) -> frozenset[str]:
        begun.add(name)
        await until(lambda: begun == set(needed))
        if name in seen:
            return frozenset()
        found = set(needed[name])
        for other in needed[name]:
            found |= await dependencies(other, seen | {name})
        return frozenset(found)

    begun: set[str] = set()
    found: dict[str, Any] = {}

    async def find(name: str) -> None:
        found[name] = await dependencies(name)

    with anyio.fail_after(DEADLINE_S):
        async with anyio.create_task_group() as tasks:
            for name in needed:
                tasks.start_soon(find, name)
    assert found == dict.fromkeys(needed, frozenset("abc"))


# --- invalidation -------------------------------------------------------------------------------------------------


async def test_e4_after_an_invalidation_the_function_is_called_again_for_that_key_only() -> None:
    source = Source()
    ask = cached()(source.ask)
    with registered(ask) as invalidate:
        await ask("a")
        await ask("b")
        source.version = 1
        await invalidate("a")
        assert [await ask("a"), await ask("b")] == [("a", 1), ("b", 0)]
        await invalidate()
        assert [await ask("a"), await ask("b")] == [("a", 1), ("b", 1)]


async def test_e4_an_invalidation_reaches_every_instance_and_keys_take_defaults() -> None:
    source = Source()

    class Module:
        @cached(uncached_args=["hint"])
        async def ask(self, key: str, hint: str = "", kind: int = 1) -> tuple[Any, int]:
            return await source.ask((key, kind))

    one, two = Module(), Module()
    with registered(one.ask):
        for module in (one, two):
            await module.ask("a")
        await cached_function_of(two.ask).invalidate(("a",))
        for module in (one, two):
            await module.ask("a", "again")
    assert source.calls == {("a", 1): 4}


async def test_e4_a_call_under_way_at_the_invalidation_is_made_again_for_all_who_wait() -> None:
    source = Source()
    ask = cached()(source.ask)
    outcomes: list[Any] = []
    with registered(ask) as invalidate:
        gate = source.hold_back()

        async def wait() -> None:
            outcomes.extend(await gathered(lambda: ask("a"), 100))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await until(lambda: source.under_way["a"])
            source.version = 1
            await invalidate("a")
            assert await ask("a") == ("a", 1)
            gate.set()
        assert outcomes == [("a", 1)] * 100
    assert source.calls == {"a": 2}


@pytest.mark.parametrize("is_pushed_out", [False, True])
async def test_e4_an_invalidation_between_the_answer_and_those_who_wait_for_it_counts_for_them(
    is_pushed_out: bool,
) -> None:
    source = Source()

    @cached(max_entries=1)
    async def ask(key: str) -> tuple[Any, int]:
        return await source.ask(key) if key == "a" else (key, 0)

    outcomes: list[Any] = []

    async def make() -> None:
        await ask("a")
        if is_pushed_out:
            await ask("b")  # comes back without letting anybody else run
        source.version = 1
        cached_function_of(ask).drop(["a"])

    async def wait() -> None:
        outcomes.append(await ask("a"))

    gate = source.hold_back()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(make)
        await until(lambda: source.under_way["a"])
        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        gate.set()
    assert outcomes == [("a", 1)]


async def test_e4_a_key_that_is_invalidated_during_every_call_is_an_error_not_an_endless_loop() -> None:
    calls: list[int] = []

    @cached()
    async def restless() -> int:
        calls.append(1)
        cached_function_of(restless).drop(None)
        return 1

    with pytest.raises(InvalidatedTooOften, match="invalidate it less often"):
        await restless()
    assert len(calls) == RECALLS_MAX


@pytest.mark.parametrize(
    ("values", "told"),
    [("a", r"\('a',\)"), ((), "its key is"), (("a", "b"), "its key is"), (([],), "cannot be part of a key")],
)
async def test_e4_a_key_that_is_none_of_the_functions_is_refused(values: Any, told: str) -> None:
    ask = cached()(Source().ask)
    with registered(ask), pytest.raises(NotCacheable, match=told):
        await cached_function_of(ask).invalidate(values)


async def test_e4_to_invalidate_what_is_not_registered_or_not_cached_is_an_error_that_tells_what_to_do() -> None:
    with pytest.raises(NotCached, match="register_cached_function"):
        await cached_function_of(cached()(Source().ask)).invalidate(("a",))
    with pytest.raises(NotCached, match=r"@cached\(\)") as caught:
        cached_function_of(Source().ask)
    assert isinstance(caught.value, ValueError)


#: What cancels the reader that the code runs for.
mine: ContextVar[anyio.CancelScope] = ContextVar("mine")


class Restless:
    """A cached source whose values change, and what its readers saw. A key's version is its only value."""

    KEYS = 8

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.versions: Counter[int] = Counter()
        #: The version that the last invalidation that has returned stands for.
        self.said: Counter[int] = Counter()
        self.begun: Counter[int] = Counter()
        self.broken_off: Counter[int] = Counter()
        #: Those that make the calls under way.
        self.makers: list[anyio.CancelScope] = []
        #: What each reader was given, and the least that it may have been given.
        self.reads: list[tuple[int, int]] = []

    @cached(max_entries=4)
    async def ask(self, key: int) -> int:
        self.begun[key] += 1
        read = self.versions[key]
        self.makers.append(mine.get())
        try:
            await self.let_others_run(4)
        except BaseException:
            self.broken_off[key] += 1
            raise
        finally:
            self.makers.remove(mine.get())
        return read

    async def let_others_run(self, times_max: int) -> None:
        for _ in range(self.chance.randrange(times_max)):
            await anyio.lowlevel.checkpoint()

    async def read(self, scope: anyio.CancelScope) -> None:
        key = self.chance.randrange(self.KEYS)
        mine.set(scope)
        with scope:
            await self.let_others_run(40)
            got = await self.ask(key)
            self.reads.append((got, self.said[key]))

    async def disturb(self, scopes: list[anyio.CancelScope]) -> None:
        for _ in range(60):
            await self.let_others_run(3)
            key = self.chance.randrange(self.KEYS)
            self.versions[key] += 1
            await cached_function_of(self.ask).invalidate((key,))
            self.said[key] = self.versions[key]
            for scope in (*self.chance.sample(scopes, 5), *self.makers[:1]):
                scope.cancel()


@pytest.mark.parametrize("seed", range(3))
async def test_e4_a_thousand_readers_see_nothing_out_of_date_whatever_is_invalidated_and_cancelled(seed: int) -> None:
    restless = Restless(seed)
    scopes = [anyio.CancelScope() for _ in range(1_000)]
    with registered(restless.ask):
        async with anyio.create_task_group() as tasks:
            for scope in scopes:
                tasks.start_soon(restless.read, scope)
            tasks.start_soon(restless.disturb, scopes)
    assert [(got, least) for got, least in restless.reads if got < least] == []
    assert len(restless.reads) > 600
    assert sum(restless.broken_off.values()) > 0


@pytest.mark.parametrize("seed", range(3))
async def test_e4_a_thousand_readers_cause_one_call_per_miss_whatever_is_invalidated_and_cancelled(seed: int) -> None:
    class Roomy(Restless):
        ask = cached(max_entries=Restless.KEYS)(Restless.ask.__wrapped__)  # type: ignore[attr-defined]

    restless = Roomy(seed)
    scopes = [anyio.CancelScope() for _ in range(1_000)]
    with registered(restless.ask):
        async with anyio.create_task_group() as tasks:
            for scope in scopes:
                tasks.start_soon(restless.read, scope)
            tasks.start_soon(restless.disturb, scopes)
    for key in range(Restless.KEYS):
        assert 1 <= restless.begun[key] <= 1 + restless.versions[key] + restless.broken_off[key]


# --- processes: two journals on one file are to each other what two processes are ------------------------------------


@pytest.fixture
def journals(tmp_path: Path) -> Iterator[list[Any]]:
    """Three journals on one file; the first is ours."""
    opened = [open_journal(f"sqlite:///{tmp_path / 'saga.db'}") for _ in range(3)]
    yield opened
    for journal in opened:
        journal.close()


async def test_e4_what_another_process_invalidates_is_dropped_here(journals: list[Any]) -> None:
    source = Source()
    ask = cached()(source.ask)
    ours, theirs = InvalidationFeed(journals[0], look_s=0), InvalidationFeed(journals[1])
    with registered(ask, ours):
        await ask("a")
        await ask("b")
        source.version = 1
        await theirs.tell(cached_function_of(ask).name, '["a"]')
        assert [await ask("a"), await ask("b")] == [("a", 1), ("b", 0)]
        await theirs.tell(cached_function_of(ask).name, None)
        assert await ask("b") == ("b", 1)
    assert source.calls == {"a": 2, "b": 2}


async def test_e4_an_invalidation_here_is_told_once_and_not_taken_in_again_here(journals: list[Any]) -> None:
    source = Source()
    ask = cached()(source.ask)
    now = [0.0]
    with registered(ask, InvalidationFeed(journals[0], monotonic=lambda: now[0])) as invalidate:
        await ask("a")
        await invalidate("a")
        await ask("a")
        now[0] = 1.0
        await ask("a")
        assert source.calls == {"a": 2}
    told = journals[1].invalidations(after=0)
    assert [(each.id, each.cache, each.keys) for each in told] == [(1, cached_function_of(ask).name, '["a"]')]


async def test_e4_what_was_said_before_a_process_began_does_not_concern_it(journals: list[Any]) -> None:
    source = Source()
    ask = cached()(source.ask)
    await InvalidationFeed(journals[1]).tell(cached_function_of(ask).name, '["a"]')
    now = [0.0]
    with registered(ask, InvalidationFeed(journals[0], monotonic=lambda: now[0])):
        await ask("a")
        now[0] = 1.0
        await ask("a")
    assert source.calls == {"a": 1}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="only where processes fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")  # which is what is tested
def test_e4_a_forked_child_is_another_process_which_tells_and_is_told(journals: list[Any]) -> None:
    source = Source()
    ask = cached()(source.ask)
    feed = InvalidationFeed(journals[0], look_s=0)
    with registered(ask, feed) as invalidate:
        anyio.run(ask, "a")
        with feed._lock:  # as another thread may hold it
            child = os.fork()
            if child == 0:
                is_over = threading.Event()

                def tell_and_look() -> None:
                    anyio.run(invalidate, "a")
                    feed.look_if_due()
                    is_over.set()

                try:
                    threading.Thread(target=tell_and_look, daemon=True).start()
                    is_over.wait(DEADLINE_S)
                finally:
                    os._exit(0 if is_over.is_set() else 1)
        _, status = os.waitpid(child, 0)
        assert status == 0
        anyio.run(ask, "a")
    assert source.calls == {"a": 2}


async def test_e4_an_argument_that_is_not_plain_drops_the_whole_function_elsewhere(journals: list[Any]) -> None:
    ask = cached()(Source().ask)
    with registered(ask, InvalidationFeed(journals[0])) as invalidate:
        await invalidate("a" * 10_000)
        await invalidate((1, 2))
        await invalidate(float("nan"))
        await invalidate(True)
        await invalidate()
    assert [each.keys for each in journals[1].invalidations(after=0)] == [None, None, None, "[true]", None]


async def test_e4_functions_of_one_name_in_different_classes_are_told_apart(journals: list[Any]) -> None:
    source = Source()

    class One:
        @cached()
        async def ask(self, key: str) -> tuple[Any, int]:
            return await source.ask(("one", key))

    class Two:
        @cached()
        async def ask(self, key: str) -> tuple[Any, int]:
            return await source.ask(("two", key))

    one, two = One(), Two()
    feed, theirs = InvalidationFeed(journals[0], look_s=0), InvalidationFeed(journals[1])
    with registered(one.ask, feed), registered(two.ask, feed):
        await one.ask("a")
        await two.ask("a")
        await theirs.tell(cached_function_of(one.ask).name, '["a"]')
        await one.ask("a")
        await two.ask("a")
    assert source.calls == {("one", "a"): 2, ("two", "a"): 1}


async def test_e4_a_call_under_way_when_another_process_invalidates_is_made_again(journals: list[Any]) -> None:
    source = Source()
    ask = cached()(source.ask)
    theirs = InvalidationFeed(journals[1])
    outcomes: list[Any] = []
    with registered(ask, InvalidationFeed(journals[0], look_s=0)):
        gate = source.hold_back()

        async def wait() -> None:
            outcomes.append(await ask("a"))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await until(lambda: source.under_way["a"])
            source.version = 1
            await theirs.tell(cached_function_of(ask).name, '["a"]')
            gate.set()
    assert outcomes == [("a", 1)]


async def test_e4_the_journal_is_read_at_most_once_in_a_quarter_of_a_second(journals: list[Any]) -> None:
    looks: list[int] = []

    class Watched:
        url = "watched://"
        put_invalidation = journals[0].put_invalidation

        def invalidations(self, *, after: int) -> Any:
            looks.append(after)
            return journals[0].invalidations(after=after)

    now = [100.0]
    ask = cached()(Source().ask)
    feed = InvalidationFeed(Watched(), monotonic=lambda: now[0])
    with registered(ask, feed):
        looks.clear()
        for _ in range(50):
            await ask("a")
        assert looks == []
        for now[0] in (100.24, 100.25, 100.26, 100.49, 100.5):
            await ask("a")
        assert looks == [0, 0]


async def test_e4_a_process_that_missed_more_than_is_kept_drops_everything(
    journals: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saga_engine.journals.sqlite._INVALIDATIONS_MAX", 5)
    source = Source()
    ask = cached()(source.ask)
    theirs = InvalidationFeed(journals[1])
    with registered(ask, InvalidationFeed(journals[0], look_s=0)):
        await ask("a")
        for number in range(5):
            await theirs.tell("another.function", f"[{number}]")
        await ask("a")
        assert source.calls == {"a": 1}
        for number in range(6):
            await theirs.tell("another.function", f"[{number}]")
        await ask("a")
        await ask("a")
    assert source.calls == {"a": 2}
    assert [each.id for each in journals[2].invalidations(after=0)] == [7, 8, 9, 10, 11]


async def test_e4_another_version_of_the_code_with_other_parameters_drops_the_whole_function(
    journals: list[Any],
) -> None:
    source = Source()
    ask = cached()(source.ask)
    theirs = InvalidationFeed(journals[1])
    with registered(ask, InvalidationFeed(journals[0], look_s=0)):
        await ask("a")
        await theirs.tell(cached_function_of(ask).name, '["a", "new"]')
        await ask("a")
    assert source.calls == {"a": 2}


class Failing:
    """A journal that can be read sometimes."""

    url = "failing://"

    def __init__(self) -> None:
        self.is_down = False

    def put_invalidation(self, writer: str, cache: str, keys: str | None) -> None:
        self.invalidations(after=0)

    def invalidations(self, *, after: int) -> list[Any]:
        if self.is_down:
            raise JournalError("the disk is gone")
        return []


async def test_e4_while_the_journal_cannot_be_read_nothing_stays_cached_and_the_log_tells_it_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    source, journal = Source(), Failing()
    ask = cached()(source.ask)
    with registered(ask, InvalidationFeed(journal, look_s=0)) as invalidate:
        await ask("a")
        journal.is_down = True
        await ask("a")
        await ask("a")
        assert source.calls["a"] == 3
        with pytest.raises(JournalError, match="the disk is gone"):
            await invalidate("a")
        journal.is_down = False
        await ask("a")
        await ask("a")
    assert source.calls["a"] == 4
    assert [record.getMessage() for record in caplog.records] == [
        "failing:// cannot be read, nothing stays cached until it can: the disk is gone",
        "failing:// can be read again, values stay cached again",
    ]


async def test_e4_what_was_cached_before_the_registration_is_dropped(journals: list[Any]) -> None:
    source = Source()
    ask = cached()(source.ask)
    await ask("a")
    await InvalidationFeed(journals[1]).tell(cached_function_of(ask).name, '["a"]')
    with registered(ask, InvalidationFeed(journals[0], look_s=0)):
        await ask("a")
    assert source.calls == {"a": 2}


async def test_e4_a_function_that_is_no_longer_registered_listens_no_more(journals: list[Any]) -> None:
    source = Source()
    ask = cached()(source.ask)
    ours, theirs = InvalidationFeed(journals[0], look_s=0), InvalidationFeed(journals[1])
    with registered(ask, ours):
        with registered(ask, ours):
            await ask("a")
        await theirs.tell(cached_function_of(ask).name, '["a"]')
        await ask("a")
        assert source.calls == {"a": 2}, "it is still registered once"
    await theirs.tell(cached_function_of(ask).name, '["a"]')
    ours.look_if_due()
    await ask("a")
    assert source.calls == {"a": 2}


def test_e4_a_journal_has_one_feed(journals: list[Any]) -> None:
    one = feed_of(journals[0])
    assert feed_of(journals[0]) is one
    assert feed_of(journals[1]) is not one


def test_e4_a_journal_without_a_place_for_invalidations_is_an_error_that_says_so() -> None:
    class Foreign:
        url = "foreign://journal"

    with pytest.raises(InvalidationsUnsupported, match="foreign://journal has no place for invalidations"):
        feed_of(Foreign())


async def test_e4_a_journal_in_memory_has_nothing_to_tell_but_is_one_to_register_with() -> None:
    source = Source()
    ask = cached()(source.ask)
    journal: InvalidationJournal = open_journal("memory://")  # type: ignore[assignment]
    with registered(ask, feed_of(journal)) as invalidate:
        await ask("a")
        await invalidate("a")
        await ask("a")
    assert source.calls == {"a": 2}
    assert journal.invalidations(after=0) == []


@pytest.mark.parametrize("url", ["memory://", "sqlite:///{}/saga.db"])
def test_e4_a_closed_journal_neither_takes_nor_gives_invalidations(url: str, tmp_path: Path) -> None:
    journal: Any = open_journal(url.format(tmp_path))
    journal.close()
    for use in (partial(journal.put_invalidation, "me", "cache", None), partial(journal.invalidations, after=0)):
        with pytest.raises(JournalError, match="the journal is closed"):
            use()


def test_e4_a_bare_decorator_is_refused() -> None:
    async def ask() -> None: ...

    with pytest.raises(NotCacheable, match=r"without parentheses: write @cached\(\)"):
        cached(ask)  # type: ignore[arg-type]
