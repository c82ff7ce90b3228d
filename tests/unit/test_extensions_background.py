"""ExtensionBase: how an extension is attached and detached, and its background tasks (SEEDS c 1, 2)."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import TaskStatus

from saga_engine.extensions.background import ExtensionBase
from saga_engine.extensions.errors import NoTaskGroup, TaskFailedEarly, TaskGroupOpen
from transactions import SagaError

LOGGER = logging.getLogger("the application's")
DEADLINE_S = 20


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Every async test here runs on both."""
    return str(request.param)


pytestmark = pytest.mark.anyio


class Recording(ExtensionBase[str]):
    """Notes what is done to it, and what it sees at that moment."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def on_app_changed(self, old_app: str | None, new_app: str | None) -> None:
        self.seen.append(("app", old_app, new_app))

    def configure(self, configuration: dict[str, Any]) -> None:
        self.seen.append(("configure", configuration, self.app, self.log))

    def teardown(self) -> None:
        self.seen.append(("teardown", self.app, self.log))


# --- c 1: load, unload, app ---


def test_c1_load_sets_app_and_log_and_then_configures_once() -> None:
    extension = Recording()
    extension.load("the app", {"port": 1}, LOGGER)
    assert extension.seen == [("app", None, "the app"), ("configure", {"port": 1}, "the app", LOGGER)]
    assert (extension.app, extension.log) == ("the app", LOGGER)


def test_c1_setting_app_tells_the_old_and_the_new_one() -> None:
    extension = Recording()
    extension.app = "one"
    extension.app = "two"
    extension.app = None
    assert extension.seen == [("app", None, "one"), ("app", "one", "two"), ("app", "two", None)]


def test_c1_unload_tears_down_while_app_is_set_and_then_clears_log_and_app() -> None:
    extension = Recording()
    extension.load("the app", {}, LOGGER)
    extension.seen.clear()
    extension.unload("the app")
    assert extension.seen == [("teardown", "the app", LOGGER), ("app", "the app", None)]
    assert (extension.app, extension.log) == (None, None)


class Breaking(Recording):
    """Raises where it is told to."""

    def configure(self, configuration: dict[str, Any]) -> None:
        if "configure" in configuration:
            raise ZeroDivisionError

    def teardown(self) -> None:
        raise ZeroDivisionError


def test_c1_an_extension_whose_configure_raises_is_detached_again() -> None:
    extension = Breaking()
    with pytest.raises(ZeroDivisionError):
        extension.load("the app", {"configure": True}, LOGGER)
    assert (extension.app, extension.log) == (None, None)
    assert extension.seen == [("app", None, "the app"), ("app", "the app", None)]


def test_c1_an_extension_whose_teardown_raises_is_detached_all_the_same() -> None:
    extension = Breaking()
    extension.load("the app", {}, LOGGER)
    with pytest.raises(ZeroDivisionError):
        extension.unload("the app")
    assert (extension.app, extension.log) == (None, None)


def test_c1_an_extension_has_no_app_no_log_and_no_name_before_it_is_loaded() -> None:
    extension: ExtensionBase[str] = ExtensionBase()
    assert (extension.app, extension.log, extension.name) == (None, None, "")


# --- c 2: the nursery ---


@pytest.fixture
def extension() -> Recording:
    """An extension that is loaded."""
    loaded = Recording()
    loaded.load("the app", {}, LOGGER)
    return loaded


async def until(condition: Callable[[], object]) -> None:
    """Give the other tasks their turns until the condition holds."""
    with anyio.fail_after(DEADLINE_S):
        while not condition():
            await anyio.lowlevel.checkpoint()


async def test_c2_use_nursery_opens_a_task_group_that_ends_with_its_context(extension: Recording) -> None:
    done: list[int] = []

    async def count(number: int) -> None:
        await anyio.lowlevel.checkpoint()
        done.append(number)

    async with extension.use_nursery() as nursery:
        nursery.start_soon(count, 1)
        extension.start_in_background_soon(count, 2)
    assert sorted(done) == [1, 2]


async def test_c2_a_nursery_that_is_open_cannot_be_opened_again_until_it_is_closed(extension: Recording) -> None:
    async with extension.use_nursery():
        with pytest.raises(TaskGroupOpen, match="the nursery of <Recording> is already open") as raised:
            async with extension.use_nursery():
                pytest.fail("opened twice")
        assert isinstance(raised.value, RuntimeError)
        assert isinstance(raised.value, SagaError)
    async with extension.use_nursery():
        pass


async def test_c2_two_extensions_have_a_nursery_each(extension: Recording) -> None:
    async with extension.use_nursery() as one, Recording().use_nursery() as other:
        assert one is not other


async def sleep_forever() -> None:
    await anyio.sleep_forever()


@pytest.mark.parametrize("was_open", [False, True], ids=["never opened", "closed again"])
async def test_c2_without_the_nursery_nothing_runs_in_the_background(extension: Recording, was_open: bool) -> None:
    if was_open:
        async with extension.use_nursery():
            pass
    with pytest.raises(NoTaskGroup, match=r"do it inside `async with self\.use_nursery\(\):`") as raised:
        extension.start_in_background_soon(sleep_forever)
    assert isinstance(raised.value, RuntimeError)
    with pytest.raises(NoTaskGroup):
        await extension.start_in_background(sleep_forever)


async def serve(seen: list[Any], *, task_status: TaskStatus[Any] = anyio.TASK_STATUS_IGNORED) -> None:
    """Say what it serves, and serve until it is stopped."""
    await anyio.lowlevel.checkpoint()
    seen.append("ready")
    task_status.started(8080)
    try:
        await anyio.sleep_forever()
    finally:
        seen.append("stopped")


@pytest.mark.parametrize("protect", [True, False])
async def test_c2_start_in_background_waits_for_the_start_and_gives_its_value(
    extension: Recording, protect: bool
) -> None:
    seen: list[Any] = []
    async with extension.use_nursery() as nursery:
        assert await extension.start_in_background(serve, seen, protect=protect) == 8080
        assert seen == ["ready"]
        nursery.cancel_scope.cancel()
    assert seen == ["ready", "stopped"]


async def test_c2_a_task_that_starts_without_a_value_gives_none(extension: Recording) -> None:
    async def start(*, task_status: TaskStatus[None]) -> None:
        task_status.started()

    async with extension.use_nursery():
        assert await extension.start_in_background(start) is None


async def fail_at_once() -> None:
    raise ZeroDivisionError("the reason")


async def fail_after_start(*, task_status: TaskStatus[None]) -> None:
    task_status.started()
    raise ZeroDivisionError("the reason")


class Calling:
    """An object that is called like an async function."""

    async def __call__(self) -> None:
        raise ZeroDivisionError("the reason")

    async def method(self) -> None:
        raise ZeroDivisionError("the reason")


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (fail_at_once, "fail_at_once"),
        (functools.partial(fail_at_once), "fail_at_once"),
        (Calling(), "Calling"),
        (Calling().method, "Calling.method"),
    ],
    ids=["function", "partial", "object", "method"],
)
async def test_c2_the_exception_of_a_protected_task_is_logged_with_its_name_and_its_siblings_live(
    extension: Recording, caplog: pytest.LogCaptureFixture, function: Callable[..., Any], name: str
) -> None:
    seen: list[Any] = []
    async with extension.use_nursery() as nursery:
        await extension.start_in_background(serve, seen)
        extension.start_in_background_soon(function)
        await until(lambda: caplog.records)
        assert seen == ["ready"]
        nursery.cancel_scope.cancel()
    (record,) = caplog.records
    assert f".{name} failed" in record.getMessage()
    assert (record.name, record.levelname) == (LOGGER.name, "ERROR")
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ZeroDivisionError)


async def test_c2_a_protected_task_that_fails_after_its_start_is_logged_too(
    extension: Recording, caplog: pytest.LogCaptureFixture
) -> None:
    async with extension.use_nursery():
        await extension.start_in_background(fail_after_start)
    assert "fail_after_start failed" in caplog.text


async def test_c2_an_extension_without_a_logger_logs_a_failed_task_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    extension: ExtensionBase[str] = ExtensionBase()
    async with extension.use_nursery():
        extension.start_in_background_soon(fail_at_once)
    assert "fail_at_once failed" in caplog.text


def is_group_of_the_failure(error: BaseException) -> bool:
    """Tell whether a group holds the one exception of `fail_at_once`; Python 3.10 has no such class of its own."""
    return [repr(inner) for inner in getattr(error, "exceptions", ())] == ["ZeroDivisionError('the reason')"]


@pytest.mark.parametrize("start", ["soon", "now"])
async def test_c2_a_task_that_is_not_protected_ends_the_nursery_and_its_siblings(
    extension: Recording, start: str
) -> None:
    seen: list[Any] = []
    with pytest.raises(Exception) as raised:
        async with extension.use_nursery():
            await extension.start_in_background(serve, seen)
            if start == "soon":
                extension.start_in_background_soon(fail_at_once, protect=False)
            else:
                await extension.start_in_background(fail_after_start, protect=False)
            await anyio.sleep_forever()
    assert is_group_of_the_failure(raised.value)
    assert seen == ["ready", "stopped"]


async def fail_early(*, task_status: TaskStatus[None]) -> None:
    try:
        raise KeyError("the root")
    except KeyError as error:
        raise ZeroDivisionError("the reason") from error


async def test_c2_a_protected_task_that_fails_before_its_start_gives_an_error_chained_to_the_cause(
    extension: Recording, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[Any] = []
    async with extension.use_nursery() as nursery:
        await extension.start_in_background(serve, seen)
        with pytest.raises(TaskFailedEarly) as raised:
            await extension.start_in_background(fail_early)
        assert seen == ["ready"]
        nursery.cancel_scope.cancel()
    assert "fail_early failed (ZeroDivisionError: the reason) before it called" in str(raised.value)
    cause = raised.value.__cause__
    assert isinstance(cause, ZeroDivisionError)
    assert isinstance(cause.__cause__, KeyError)
    assert isinstance(raised.value, RuntimeError)
    assert "fail_early failed" in caplog.text


async def test_c2_without_protection_what_fails_before_the_start_is_raised_as_it_is(
    extension: Recording, caplog: pytest.LogCaptureFixture
) -> None:
    async with extension.use_nursery():
        with pytest.raises(ZeroDivisionError) as raised:
            await extension.start_in_background(fail_early, protect=False)
    assert isinstance(raised.value.__cause__, KeyError)
    assert not caplog.records


@pytest.mark.parametrize("protect", [True, False])
async def test_c2_a_task_that_returns_without_having_started_is_an_error_that_says_what_to_do(
    extension: Recording, protect: bool
) -> None:
    async def forget(*, task_status: TaskStatus[None]) -> None:
        await anyio.lowlevel.checkpoint()

    async with extension.use_nursery():
        with pytest.raises(TaskFailedEarly, match=r"forget returned before .* or use start_in_background_soon"):
            await extension.start_in_background(forget, protect=protect)


async def test_c2_who_stops_waiting_for_a_start_stops_the_task(extension: Recording) -> None:
    seen: list[str] = []

    async def hang(*, task_status: TaskStatus[None]) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            seen.append("stopped")

    async with extension.use_nursery():
        with anyio.move_on_after(0) as scope:
            await extension.start_in_background(hang)
        assert scope.cancelled_caught
    assert seen == ["stopped"]


async def test_c2_run_in_background_warns_that_it_is_deprecated_and_runs_the_task(extension: Recording) -> None:
    done: list[int] = []

    async def note(number: int) -> None:
        done.append(number)

    async with extension.use_nursery():
        with pytest.warns(DeprecationWarning, match=r"use start_in_background_soon\(\)") as warned:
            extension.run_in_background(note, 1)
    assert done == [1]
    assert [warning.filename for warning in warned] == [__file__]
