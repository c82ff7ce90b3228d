"""The redis cache driver, on a real server where there is one, and always on the small one of the test kit."""

from __future__ import annotations

import builtins
import logging
import time

import pytest
from resp_server import real_server, real_server_command, small_server

from saga_engine.services import CacheError, provide_cache
from saga_engine.services.redis_cache import RedisCache
from transactions.errors import NotJSON

LOGGER = logging.getLogger("test_redis_cache")


@pytest.fixture(params=["real", "small"], scope="module")
def url(request):
    if request.param == "small":
        with small_server() as small:
            yield small
        return
    command = real_server_command()
    if command is None:
        pytest.skip("there is no redis-server here; name one with REDIS_SERVER")
    with real_server(command) as real:
        yield real


@pytest.fixture
def cache(url):
    driver = RedisCache(url)
    yield driver
    driver.flush()
    driver.close()


@pytest.mark.parametrize("value", [None, True, 0, 1.5, "ü\n", [], {"a": [1, {"b": None}]}])
def test_b5_a_json_value_comes_back_equal_from_redis(cache, value):
    assert cache.put("key", value) == value
    assert cache.has("key")
    assert cache.get("key", "default") == value


def test_b5_a_missing_key_in_redis_gives_the_default_and_a_callable_default_is_stored(cache):
    assert cache.get("key", "default") == "default"
    assert not cache.has("key")
    assert cache.get("key", lambda: ("made", "60")) == "made"
    assert cache.get("key") == "made"


@pytest.mark.parametrize("ttl", [0.05, "0.05"])
def test_b5_a_value_in_redis_expires_after_a_time_given_as_number_or_text(cache, ttl):
    cache.put("short", 1, ttl)
    cache.put("long", 2, "60")

    ends_at = time.monotonic() + 10
    while cache.has("short"):
        assert time.monotonic() < ends_at, "it never expired"
    assert cache.get("long") == 2


def test_b5_a_value_stored_for_no_time_removes_what_was_there(cache):
    cache.put("key", 1)
    cache.put("key", 2, 0)
    assert not cache.has("key")


def test_b5_delete_removes_one_key_and_flush_only_the_cache_s_own(url, cache):
    other = RedisCache(url, name="cac*e")
    other.put("key", "other's")
    for number in range(1_200):
        cache.put(f"key {number}", number)

    cache.delete("key 0")
    cache.delete("never there")
    assert not cache.has("key 0")
    cache.flush(expired_only=True)
    assert cache.has("key 1")
    other.flush()
    assert cache.has("key 1")
    other.put("key", "other's")
    cache.flush()
    assert not any(cache.has(f"key {number}") for number in range(1_200))
    assert other.get("key") == "other's"
    other.flush()
    other.close()


def test_b5_caches_whose_names_begin_alike_do_not_see_each_other(url):
    first, second = RedisCache(url, name="a"), RedisCache(url, name="a:b")
    second.put("c", 1)
    assert first.get("b:c") is None
    first.flush()
    assert second.get("c") == 1
    second.flush()


def test_b5_a_time_to_live_that_is_longer_than_redis_counts_is_for_ever(cache):
    cache.put("k", 1, ttl=1e300)
    assert cache.get("k") == 1


def test_b5_what_is_not_json_is_refused_before_redis_is_asked(cache):
    with pytest.raises(NotJSON, match="value is a object"):
        cache.put("key", object())


def test_b5_the_configuration_chooses_redis(url):
    cache = provide_cache({"CACHE_DRIVER": "redis", "CACHE_REDIS_URL": url, "CACHE_NAME": "mine"}, LOGGER)
    same = provide_cache({"CACHE_DRIVER": "redis", "CACHE_REDIS_URL": url, "CACHE_NAME": "mine"}, LOGGER)

    cache.put("key", 1)
    assert same.get("key") == 1
    for each in (cache, same):
        each.flush()
        each.close()


def test_b5_a_redis_that_is_not_there_is_an_error_that_hides_the_password(tmp_path):
    cache = RedisCache(f"unix://user:s3cret@{tmp_path}/nobody")

    with pytest.raises(CacheError, match="Start a redis server there") as failure:
        cache.get("key")
    assert "s3cret" not in str(failure.value)
    assert f"{tmp_path}/nobody" in str(failure.value)


def test_b5_a_url_that_is_none_of_redis_is_refused():
    with pytest.raises(CacheError, match="write redis://host:6379/0"):
        RedisCache("http://127.0.0.1/")


def test_b5_without_the_extra_the_driver_says_what_to_install(monkeypatch):
    importing = builtins.__import__

    def without_redis(name, *arguments, **keywords):
        if name == "redis":
            raise ModuleNotFoundError("No module named 'redis'")
        return importing(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without_redis)
    with pytest.raises(CacheError, match=r"pip install 'saga-engine\[redis\]'"):
        provide_cache({"CACHE_DRIVER": "redis"}, LOGGER)
