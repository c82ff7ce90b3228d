"""The cache service: what every driver does, and what the SQLite file does besides."""

from __future__ import annotations

import logging
import math
import os
import sqlite3
import stat
import subprocess
import sys
import threading

import pytest

from saga_engine.services import (
    Cache,
    CacheError,
    MemoryCache,
    SQLiteCache,
    provide_cache,
    provide_sqlite_cache_adapter,
)
from transactions.errors import NotJSON, SagaError

LOGGER = logging.getLogger("test_cache")


class SettableClock:
    def __init__(self):
        self.now_s = 1_000.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return SettableClock()


@pytest.fixture(params=["memory", "sqlite"])
def cache(request, tmp_path, clock):
    if request.param == "memory":
        yield MemoryCache(clock=clock)
    else:
        driver = SQLiteCache(tmp_path / "cache.sqlite", clock=clock)
        yield driver
        driver.close()


@pytest.fixture
def sqlite_cache(tmp_path, clock):
    driver = SQLiteCache(tmp_path / "made" / "cache.sqlite", clock=clock)
    yield driver
    driver.close()


# Every driver


@pytest.mark.parametrize(
    "value", [None, True, 0, 1.5, "text", "\ud800", [], {}, [1, [None]], {"a": {"b": ["c", 2**70]}}]
)
def test_a_json_value_comes_back_equal_and_of_its_type(cache, value):
    assert cache.put("key", value) is value
    assert cache.get("key", "default") == value
    assert type(cache.get("key")) is type(value)
    assert cache.has("key")


def test_a_missing_key_gives_the_default_and_stores_nothing(cache):
    assert cache.get("key") is None
    assert cache.get("key", "default") == "default"
    assert not cache.has("key")


def test_a_later_value_replaces_the_earlier_one(cache):
    cache.put("key", 1)
    cache.put("key", 2)

    assert cache.get("key") == 2


def test_what_is_cached_is_a_copy(cache):
    value = {"list": []}
    cache.put("key", value)
    value["list"].append("changed")
    cache.get("key")["list"].append("changed too")

    assert cache.get("key") == {"list": []}


def test_delete_removes_one_key_and_is_content_with_a_missing_one(cache):
    cache.put("a", 1)
    cache.put("b", 2)

    cache.delete("a")
    cache.delete("a")

    assert not cache.has("a")
    assert cache.get("b") == 2


def test_flush_removes_everything(cache):
    cache.put("a", 1)
    cache.put("b", 2)

    cache.flush()

    assert not cache.has("a")
    assert not cache.has("b")


def test_flush_of_the_expired_keeps_what_is_alive(cache, clock):
    cache.put("old", 1, ttl=10)
    cache.put("alive", 2, ttl=30)
    clock.now_s += 20

    cache.flush(expired_only=True)
    clock.now_s -= 20

    assert not cache.has("old")
    assert cache.get("alive") == 2


@pytest.mark.parametrize("ttl", [60, 60.0, "60", " 60 ", "60.0"])
def test_a_value_expires_when_its_time_to_live_is_over(cache, clock, ttl):
    cache.put("key", "value", ttl)

    clock.now_s += 59.9
    assert cache.has("key")
    clock.now_s += 0.1
    assert not cache.has("key")
    assert cache.get("key", "default") == "default"


def test_without_a_time_to_live_the_cache_s_own_applies(cache, clock):
    cache.put("key", "value")

    clock.now_s += 899
    assert cache.has("key")
    clock.now_s += 1
    assert not cache.has("key")


def test_a_cache_may_keep_values_until_they_are_removed(tmp_path, clock):
    for cache in (MemoryCache(ttl=None, clock=clock), SQLiteCache(tmp_path / "c", ttl=None, clock=clock)):
        cache.put("key", "value")
        clock.now_s += 1e9
        cache.flush(expired_only=True)

        assert cache.get("key") == "value"
        assert isinstance(cache, MemoryCache) or cache.close() is None


@pytest.mark.parametrize("ttl", [0, -1, "0"])
def test_a_time_to_live_of_zero_or_less_keeps_nothing_and_ends_what_was_there(cache, ttl):
    cache.put("key", "old")
    cache.put("key", "new", ttl)

    assert not cache.has("key")


@pytest.mark.parametrize("ttl", ["soon", "", True, math.nan, math.inf, [60], 10**400])
def test_a_time_to_live_that_is_no_number_is_refused(cache, ttl):
    with pytest.raises(CacheError, match="number of seconds"):
        cache.put("key", "value", ttl)
    assert not cache.has("key")


@pytest.mark.parametrize("key", ["", None, 42])
def test_a_key_must_be_a_non_empty_str(cache, key):
    for use in (cache.has, cache.get, cache.delete, lambda key: cache.put(key, 1)):
        with pytest.raises(CacheError, match="non-empty str"):
            use(key)


class Unpicklable:
    def __reduce__(self):
        raise AssertionError("a value was pickled")


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (Unpicklable(), "value is a Unpicklable"),
        ({"a": [1, {"b": {1, 2}}]}, "value['a'][1]['b'] is a set"),
        ({"a": (1, 2)}, "value['a'] is a tuple"),
        ({"a": {1: "x"}}, "value['a'] has the key 1"),
        ({None: "x"}, "value has the key None"),
        ([math.nan], "value[0] is nan"),
        (b"bytes", "value is a bytes"),
    ],
)
def test_a_value_that_is_not_json_is_refused_by_its_place(cache, value, place):
    cache.put("key", "before")

    with pytest.raises(NotJSON) as refused:
        cache.put("key", value)

    assert place in str(refused.value)
    assert "'key'" in str(refused.value)
    assert cache.get("key") == "before"


def test_a_value_that_contains_itself_is_refused(cache):
    value = []
    value.append(value)

    with pytest.raises(NotJSON, match="contains itself"):
        cache.put("key", value)


def test_a_callable_default_is_called_at_a_miss_only_and_its_result_is_stored(cache):
    calls = []

    def ask():
        calls.append("asked")
        return {"token": "T"}

    assert cache.get("key", ask) == {"token": "T"}
    assert cache.get("key", ask) == {"token": "T"}
    assert calls == ["asked"]


def test_a_callable_default_s_result_is_kept_for_the_given_time(cache, clock):
    cache.get("key", lambda: "value", ttl="60")

    clock.now_s += 60
    assert not cache.has("key")


def test_a_callable_default_may_say_how_long_its_result_lives(cache, clock):
    assert cache.get("key", lambda: ("value", 10), ttl=60) == "value"

    clock.now_s += 10
    assert not cache.has("key")


def test_a_callable_default_that_returns_another_tuple_is_refused(cache):
    with pytest.raises(CacheError, match=r"returns \(value, ttl\), not 3 values"):
        cache.get("key", lambda: (1, 2, 3))


def test_a_callable_default_that_finds_nothing_is_asked_again_next_time(cache):
    answers = iter([None, "found"])

    assert cache.get("key", lambda: next(answers)) is None
    assert cache.get("key", lambda: next(answers)) == "found"


def test_a_callable_default_that_fails_stores_nothing(cache):
    def fail():
        raise ConnectionError("vendor is down")

    with pytest.raises(ConnectionError):
        cache.get("key", fail)
    assert not cache.has("key")


def test_threads_share_one_cache(cache):
    failures = []

    def use(number):
        try:
            for turn in range(20):
                cache.put(f"{number}-{turn}", [number, turn])
                assert cache.get(f"{number}-{turn}") == [number, turn]
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert failures == []
    assert all(cache.get(f"{number}-{turn}") == [number, turn] for number in range(6) for turn in range(20))


def test_the_errors_of_the_cache_are_the_product_s():
    assert issubclass(CacheError, SagaError)


# In memory


def test_a_full_memory_cache_pushes_out_the_expired_first_and_then_the_oldest(clock):
    cache = MemoryCache(entries_max=2, clock=clock)
    cache.put("oldest", 1, ttl=100)
    cache.put("expired", 2, ttl=10)
    clock.now_s += 20

    cache.put("third", 3)
    assert cache.get("oldest") == 1

    cache.put("fourth", 4)
    assert [key for key in ("oldest", "third", "fourth") if cache.has(key)] == ["third", "fourth"]


def test_a_value_put_again_counts_as_new_and_pushes_nothing_out():
    cache = MemoryCache(entries_max=2)
    cache.put("a", 1)
    cache.put("b", 2)

    cache.put("b", 3)
    assert (cache.get("a"), cache.get("b")) == (1, 3)

    cache.put("a", 4)
    cache.put("c", 5)
    assert [key for key in ("a", "b", "c") if cache.has(key)] == ["a", "c"]


def test_a_memory_cache_keeps_at_least_one_value():
    with pytest.raises(CacheError, match="at least 1"):
        MemoryCache(entries_max=0)


# In a file


def test_the_file_is_made_at_first_use_and_not_before(sqlite_cache):
    assert not sqlite_cache.path.parent.exists()

    sqlite_cache.has("key")

    assert sqlite_cache.path.exists()


def test_the_file_is_readable_by_its_owner_only(sqlite_cache):
    old_umask = os.umask(0)
    try:
        sqlite_cache.put("token", "T")
    finally:
        os.umask(old_umask)

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in sqlite_cache.path.parent.iterdir()}
    assert set(modes.values()) == {0o600}
    assert "cache.sqlite-wal" in modes
    assert stat.S_IMODE(sqlite_cache.path.parent.stat().st_mode) == 0o700


def test_an_existing_file_that_others_may_read_is_closed_to_them(sqlite_cache):
    sqlite_cache.path.parent.mkdir()
    sqlite_cache.path.touch(mode=0o666)

    sqlite_cache.put("token", "T")

    assert stat.S_IMODE(sqlite_cache.path.stat().st_mode) == 0o600


def test_values_outlive_the_object_and_are_stored_as_json_text(sqlite_cache, clock):
    sqlite_cache.put("key", {"a": [1]})
    sqlite_cache.close()

    again = SQLiteCache(sqlite_cache.path, clock=clock)
    assert again.get("key") == {"a": [1]}
    again.close()
    connection = sqlite3.connect(sqlite_cache.path)
    assert connection.execute("SELECT key, value FROM saga_cache").fetchall() == [("key", '{"a": [1]}')]
    connection.close()


def test_a_closed_cache_opens_again_at_the_next_use(sqlite_cache):
    sqlite_cache.put("key", 1)
    sqlite_cache.close()
    sqlite_cache.close()

    assert sqlite_cache.get("key") == 1


def test_expired_rows_leave_the_file_at_the_next_put(sqlite_cache, clock):
    sqlite_cache.put("old", 1, ttl=10)
    clock.now_s += 10
    sqlite_cache.put("new", 2)
    sqlite_cache.close()

    connection = sqlite3.connect(sqlite_cache.path)
    assert connection.execute("SELECT key FROM saga_cache").fetchall() == [("new",)]
    connection.close()


def test_two_caches_on_one_file_see_each_other_s_values(sqlite_cache, clock):
    other = SQLiteCache(sqlite_cache.path, clock=clock)
    sqlite_cache.put("key", 1)

    assert other.get("key") == 1
    other.delete("key")
    assert not sqlite_cache.has("key")
    other.close()


def test_a_file_that_is_no_database_is_an_error_that_says_what_to_do(sqlite_cache):
    sqlite_cache.path.parent.mkdir()
    sqlite_cache.path.write_text("this is no database, and it is longer than the header of one" * 20)

    with pytest.raises(CacheError) as failure:
        sqlite_cache.get("key")

    assert str(sqlite_cache.path) in str(failure.value)
    assert "delete the file" in str(failure.value)


def test_a_directory_that_cannot_be_made_is_an_error_that_says_what_to_do(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(CacheError, match="Set CACHE_DIR"):
        SQLiteCache(tmp_path / "file" / "cache.sqlite").put("key", 1)


FORKING = """
import os, signal, sys, threading
from saga_engine.services import SQLiteCache

def in_child(cache, number):
    signal.alarm(20)
    assert cache._connection is None, "the connection was inherited"
    cache.put(f"child {number}", cache.get("parent") + number)

def use_until(done, cache):
    while not done.is_set():
        cache.put("busy", 1)

cache, done = SQLiteCache(sys.argv[1]), threading.Event()
cache.put("parent", 100)
user = threading.Thread(target=use_until, args=(done, cache))
user.start()
for number in range(8):
    child = os.fork()
    if child == 0:
        try:
            in_child(cache, number)
        except BaseException as error:
            os.write(2, repr(error).encode())
            os._exit(1)
        os._exit(0)
    print(os.waitpid(child, 0)[1], cache.get(f"child {number}"))
done.set()
user.join()
cache.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_process_forked_while_another_thread_uses_the_cache_opens_the_file_anew(tmp_path):
    done = _run_python(FORKING, str(tmp_path / "cache"))

    assert done.stdout.split("\n")[:-1] == [f"0 {100 + number}" for number in range(8)]


def _run_python(code, *arguments):
    return subprocess.run(
        [sys.executable, "-X", "dev", "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )


def test_a_cache_that_was_never_closed_warns_of_nothing(tmp_path):
    code = (
        "from saga_engine.services import SQLiteCache\n"
        f"cache = SQLiteCache({str(tmp_path / 'c')!r}); cache.put('a', 1); del cache\n"
        f"cache = SQLiteCache({str(tmp_path / 'd')!r}); cache.put('a', 1)\n"
    )
    done = _run_python(code)

    assert "ResourceWarning" not in done.stderr


# The provider


def test_the_default_driver_is_sqlite_in_the_configured_directory(tmp_path):
    cache = provide_cache({"CACHE_DIR": str(tmp_path), "CACHE_NAME": "vendor"}, LOGGER)

    assert isinstance(cache, SQLiteCache)
    assert cache.path == tmp_path / "vendor.sqlite"


def test_without_configuration_the_file_is_in_the_user_s_cache_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert provide_sqlite_cache_adapter({}, LOGGER).path == tmp_path / "saga-engine" / "cache.sqlite"

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    expected = tmp_path / "home" / ".cache" / "saga-engine" / "cache.sqlite"
    assert provide_sqlite_cache_adapter({"CACHE_DIR": " "}, LOGGER).path == expected


def test_the_file_name_setting_of_the_fulfillment_framework_is_understood(tmp_path):
    config = {"CACHE_DIR": str(tmp_path), "CACHE_SQLITE_NAME": "old"}

    assert provide_sqlite_cache_adapter(config, LOGGER).path == tmp_path / "old.sqlite"


@pytest.mark.parametrize("driver", ["memory", " Memory "])
def test_the_driver_is_chosen_by_name(driver, caplog):
    caplog.set_level(logging.DEBUG)

    assert isinstance(provide_cache({"CACHE_DRIVER": driver}, LOGGER), MemoryCache)
    assert "driver" in caplog.text


def test_a_driver_of_one_s_own_is_given_the_configuration_and_the_logger():
    own: list[Cache] = []

    def provide_own(config, logger):
        assert (config["CACHE_DRIVER"], logger) == ("own", LOGGER)
        own.append(MemoryCache())
        return own[0]

    assert provide_cache({"CACHE_DRIVER": "own"}, LOGGER, {"own": provide_own}) is own[0]


def test_an_unknown_driver_is_an_error_that_lists_the_known_ones():
    with pytest.raises(CacheError, match="'memcached'; known drivers are memory, none, own, redis, sqlite"):
        provide_cache({"CACHE_DRIVER": "memcached"}, LOGGER, {"own": provide_sqlite_cache_adapter})


def test_the_driver_none_keeps_nothing_and_refuses_what_the_others_refuse():
    cache = provide_cache({"CACHE_DRIVER": "none"}, LOGGER)

    assert cache.put("key", {"a": 1}) == {"a": 1}
    assert cache.get("key", lambda: "made") == "made"
    assert not cache.has("key")
    cache.delete("key")
    cache.flush()
    with pytest.raises(NotJSON):
        cache.put("key", object())
    with pytest.raises(CacheError):
        cache.delete("")


@pytest.mark.parametrize("driver", ["memory", "sqlite"])
def test_the_time_to_live_may_be_configured_as_text(driver, tmp_path, monkeypatch):
    config = {"CACHE_DRIVER": driver, "CACHE_TTL": "60", "CACHE_DIR": str(tmp_path)}

    assert provide_cache(config, LOGGER)._ttl_s == 60
    assert provide_cache({**config, "CACHE_TTL": ""}, LOGGER)._ttl_s == 900


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"CACHE_TTL": "soon"}, "number of seconds"),
        ({"CACHE_NAME": "../elsewhere"}, "only a file name"),
        ({"CACHE_DIR": 42}, "CACHE_DIR is 42"),
        ({"CACHE_DRIVER": ["sqlite"]}, "CACHE_DRIVER is"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(setting, says):
    with pytest.raises(CacheError, match=says):
        provide_cache(setting, LOGGER)
