"""ExtensionManager: loading in order, clients, run and worker, reload, discovery, crashes (SEEDS c 3, 4)."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from saga_engine.extensions.application import ExtensionManager
from saga_engine.extensions.background import ExtensionBase
from saga_engine.extensions.errors import (
    ConfigError,
    DuplicateExtension,
    NoClient,
    PluginLoadError,
    PluginResolutionError,
    PluginStartError,
    PluginStateError,
    ReservedName,
    UnknownExtension,
)
from saga_engine.extensions.manager import PluginManager
from saga_engine.extensions.plugin import PluginState, plugin

DEADLINE_S = 20


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Every async test here runs on both."""
    return str(request.param)


pytestmark = pytest.mark.anyio


async def until(condition: Callable[[], object]) -> None:
    """Give the other tasks their turns until the condition holds."""
    with anyio.fail_after(DEADLINE_S):
        while not condition():
            await anyio.lowlevel.checkpoint()


# --- c 3: the manager, clients, run and worker ---


class Host:
    """The application of the tests; what its extensions do is noted in `seen`."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.plugins = PluginManager()
        self.extensions = ExtensionManager(self, self.plugins)

    def note(self, what: str) -> None:
        self.seen.append(what)


class Noting(ExtensionBase[Host]):
    """Notes its whole life at its application."""

    def configure(self, configuration: dict[str, Any]) -> None:
        assert self.app is not None
        self.app.note(f"load {self.name}")
        self.configuration = configuration

    def teardown(self) -> None:
        assert self.app is not None
        self.app.note(f"unload {self.name}")

    def spinup(self) -> None:
        assert self.app is not None
        self.app.note(f"spinup {self.name}")

    def spindown(self) -> None:
        assert self.app is not None
        self.app.note(f"spindown {self.name}")


class Running(Noting):
    """Has both tasks; each notes its begin and its end, and fails when it is told to."""

    def __init__(self) -> None:
        self.failure = anyio.Event()

    async def run(self, app: Host, configuration: dict[str, Any]) -> None:
        await self._live("run", app)

    async def worker(self) -> None:
        assert self.app is not None
        await self._live("worker", self.app)

    async def _live(self, task: str, app: Host) -> None:
        app.note(f"{task} {self.name}")
        try:
            await self.failure.wait()
            raise ZeroDivisionError(f"{task} crashed")
        finally:
            app.note(f"end of {task} {self.name}")


def needing(*names: str, kind: type[Noting] = Noting) -> type[Noting]:
    """Make an extension's class that depends on these."""
    return type("Needing", (kind,), {"dependencies": names})


@pytest.fixture
async def host() -> AsyncIterator[Host]:
    """An application that has no extensions yet."""
    made = Host()
    yield made
    await made.extensions.unload_all()


async def test_c3_the_manager_names_an_extension_and_loads_it_into_the_application(host: Host) -> None:
    host.extensions.add("one", Noting)
    await host.extensions.load("one")
    one = host.extensions.get("one")
    assert (one.name, one.app, host.seen) == ("one", host, ["load one"])
    assert one.log is not None
    await host.extensions.unload("one")
    assert (one.app, one.log, host.seen) == (None, None, ["load one", "unload one"])
    assert host.extensions.loaded == ()


async def test_c3_spinup_with_the_first_client_in_order_and_spindown_with_the_last_in_reverse(host: Host) -> None:
    host.extensions.add("one", needing("two"))
    host.extensions.add("two", Noting)
    await host.extensions.load("one")
    host.seen.clear()
    async with host.extensions.client():
        assert host.seen == ["spinup two", "spinup one"]
        async with host.extensions.client():
            assert host.extensions.clients == 2
        assert host.seen == ["spinup two", "spinup one"]
    assert host.seen == ["spinup two", "spinup one", "spindown one", "spindown two"]
    async with host.extensions.client():
        assert host.seen[4:] == ["spinup two", "spinup one"]


async def test_c3_an_extension_loaded_while_there_are_clients_is_spun_up_and_spun_down_before_its_end(
    host: Host,
) -> None:
    host.extensions.add("one", Noting)
    async with host.extensions.client():
        await host.extensions.load("one")
        await host.extensions.unload("one")
    assert host.seen == ["load one", "spinup one", "spindown one", "unload one"]


async def test_c3_run_lives_from_load_to_unload_and_worker_only_while_there_are_clients(host: Host) -> None:
    host.extensions.add("one", Running)
    await host.extensions.load("one")
    await until(lambda: host.seen[-1] == "run one")
    async with host.extensions.client():
        await until(lambda: host.seen[-1] == "worker one")
    assert host.seen[-2:] == ["end of worker one", "spindown one"]
    await host.extensions.unload("one")
    assert host.seen[-2:] == ["end of run one", "unload one"]
    assert sorted(set(host.seen)) == sorted(host.seen)


async def test_c3_the_tasks_of_the_nursery_stop_at_unload(host: Host) -> None:
    class Serving(Noting):
        async def run(self) -> None:
            async with self.use_nursery():
                self.start_in_background_soon(self.serve)

        async def serve(self) -> None:
            host.note("serving")
            try:
                await anyio.sleep_forever()
            finally:
                host.note("stopped")

    host.extensions.add("one", Serving)
    await host.extensions.load("one")
    await until(lambda: "serving" in host.seen)
    await host.extensions.unload("one")
    assert host.seen == ["load one", "serving", "stopped", "unload one"]


async def test_c3_a_run_that_returns_leaves_the_extension_loaded(host: Host) -> None:
    class Brief(Noting):
        async def run(self, app: Host) -> None:
            app.note("run")

    host.extensions.add("one", Brief)
    await host.extensions.load("one")
    await until(lambda: host.seen[-1] == "run")
    await anyio.wait_all_tasks_blocked()
    assert host.extensions.loaded == ("one",)


class BadSpin(Running):
    """Cannot be spun up, or down."""

    def spinup(self) -> None:
        assert self.app is not None
        self.app.note(f"try {self.name}")
        if self.configuration.get("fails") == "up":
            raise ZeroDivisionError("the reason")

    def spindown(self) -> None:
        raise ZeroDivisionError("the reason")


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_c3_what_spinup_or_spindown_raises_is_logged_and_spares_the_others(
    host: Host, caplog: pytest.LogCaptureFixture, direction: str
) -> None:
    host.extensions.add("bad", BadSpin)
    host.extensions.add("good", Noting)
    host.extensions.configure("bad", {"fails": direction})
    await host.extensions.load("bad", "good")
    async with host.extensions.client():
        async with host.extensions.client():
            await anyio.wait_all_tasks_blocked()
        assert ("worker bad" in host.seen) == (direction == "down")
    assert host.seen.count("try bad") == 1
    assert host.seen[-1] == ("end of worker bad" if direction == "down" else "spindown good")
    assert {"spinup good", "spindown good"} <= set(host.seen)
    assert host.extensions.loaded == ("bad", "good")
    assert f"extension bad could not be spun {direction}" in caplog.text
    assert "the reason" in caplog.text


async def test_c3_a_client_that_leaves_without_having_come_is_an_error(host: Host) -> None:
    with pytest.raises(NoClient, match="once for each client_connected") as raised:
        await host.extensions.client_disconnected()
    assert isinstance(raised.value, RuntimeError)
    assert host.extensions.clients == 0


async def test_c3_a_server_that_is_unloaded_disconnects_its_clients_and_the_others_are_spun_down(host: Host) -> None:
    class Server(Noting):
        async def run(self, app: Host) -> None:
            async with self.use_nursery():
                self.start_in_background_soon(self.serve, app)

        async def serve(self, app: Host) -> None:
            async with app.extensions.client():
                app.note("serving")
                await anyio.sleep_forever()

    host.extensions.add("other", Noting)
    host.extensions.add("server", Server)
    await host.extensions.load("other", "server")
    await until(lambda: {"serving", "spinup server"} <= set(host.seen))
    host.seen.clear()
    await host.extensions.unload("server")
    await until(lambda: "spindown other" in host.seen)
    assert host.seen == ["spindown server", "unload server", "spindown other"]
    assert host.extensions.clients == 0


async def test_c3_a_client_that_is_cancelled_while_it_connects_was_never_there(host: Host) -> None:
    class Slow(Noting):
        async def spinup(self) -> None:  # type: ignore[override]
            await anyio.sleep_forever()

    host.extensions.add("one", Noting)
    host.extensions.add("slow", Slow)
    await host.extensions.load("one", "slow")
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(host.extensions.client_connected)
            await until(lambda: host.seen[-1] == "spinup one")
            scope.cancel()
    await until(lambda: host.seen[-1] == "spindown one")
    assert host.extensions.clients == 0


async def test_c3_a_client_that_comes_while_the_first_one_is_cancelled_is_served(host: Host) -> None:
    class Slow(Noting):
        async def spinup(self) -> None:  # type: ignore[override]
            if host.seen.count("slow") == 0:
                host.note("slow")
                await anyio.sleep_forever()
            host.note("fast")

    host.extensions.add("slow", Slow)
    host.extensions.add("last", Noting)
    await host.extensions.load("slow", "last")
    first = anyio.CancelScope()

    async def connect_first() -> None:
        with first:
            await host.extensions.client_connected()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(connect_first)
        await until(lambda: "slow" in host.seen)
        tasks.start_soon(host.extensions.client_connected)
        await anyio.wait_all_tasks_blocked()
        first.cancel()
    assert host.extensions.clients == 1
    assert host.seen[-2:] == ["fast", "spinup last"]


async def test_c3_a_worker_may_disconnect_the_last_client_and_ends_by_that(host: Host) -> None:
    class Kicking(Noting):
        async def worker(self, app: Host) -> None:
            await app.extensions.client_disconnected()
            app.note("disconnected")
            try:
                await anyio.sleep_forever()
            finally:
                app.note("end of worker")

    host.extensions.add("one", Kicking)
    await host.extensions.load("one")
    await host.extensions.client_connected()
    await until(lambda: host.seen[-1] == "spindown one")
    assert host.seen[-3:] == ["disconnected", "end of worker", "spindown one"]


async def test_c3_an_unload_that_is_cancelled_still_tears_the_extension_down(host: Host) -> None:
    class Slow(Running):
        async def spindown(self) -> None:  # type: ignore[override]
            host.note("slow")
            await anyio.sleep_forever()

    host.extensions.add("one", Slow)
    await host.extensions.load("one")
    await host.extensions.client_connected()
    await until(lambda: "worker one" in host.seen)
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(host.extensions.unload, "one")
            await until(lambda: host.seen[-1] == "slow")
            scope.cancel()
    assert host.seen[-4:] == ["end of worker one", "slow", "end of run one", "unload one"]
    assert host.extensions.loaded == ()


async def test_c3_a_hook_that_waits_for_its_own_manager_is_refused_instead_of_hanging(host: Host) -> None:
    module = ModuleType("entangled")

    async def load(app: Host) -> None:
        await app.extensions.load("other")

    vars(module).update(load=load)
    host.extensions.add("other", Noting)
    host.extensions.add("one", module)
    with pytest.raises(PluginStartError, match="cannot wait for its manager"):
        await host.extensions.load("one")
    assert host.seen == []


async def test_c3_a_hook_that_counts_a_client_is_refused_and_the_client_not_counted(host: Host) -> None:
    module = ModuleType("entangled")

    async def load(app: Host) -> None:
        with pytest.raises(PluginStateError):
            await app.extensions.client_connected()

    vars(module).update(load=load)
    host.extensions.add("one", module)
    await host.extensions.load("one")
    assert host.extensions.clients == 0


@pytest.mark.parametrize("operation", ["unload", "reload", "unload_all"])
async def test_c3_a_task_of_an_extension_cannot_wait_for_its_own_end(host: Host, operation: str) -> None:
    class Suicidal(Noting):
        async def run(self, app: Host) -> None:
            names = () if operation == "unload_all" else ("dependency",)
            with pytest.raises(PluginStateError, match="a task of extension 'one' cannot wait until that is unloaded"):
                await getattr(app.extensions, operation)(*names)
            app.note("refused")

    host.extensions.add("dependency", Noting)
    host.extensions.add("one", needing("dependency", kind=Suicidal))
    await host.extensions.load("one")
    await until(lambda: host.seen[-1] == "refused")
    assert host.extensions.loaded == ("dependency", "one")


async def test_c3_a_task_of_an_extension_may_load_another_one(host: Host) -> None:
    class Loading(Noting):
        async def run(self, app: Host) -> None:
            await app.extensions.load("other")

    host.extensions.add("other", Noting)
    host.extensions.add("one", Loading)
    await host.extensions.load("one")
    await until(lambda: host.extensions.loaded == ("one", "other"))


async def test_c3_a_module_is_an_extension_too_and_its_functions_get_what_they_take(host: Host) -> None:
    module = ModuleType("classless")

    def load(app: Host, configuration: dict[str, Any], logger: Any) -> None:
        app.note(f"load with {configuration}")
        logger.debug("loaded")

    async def run(*everything: Any) -> None:
        host.note(f"run with {len(everything)}")

    def unload(app: Host) -> None:
        app.note("unload")

    vars(module).update(load=load, run=run, unload=unload)
    host.extensions.add("one", module)
    host.extensions.configure("one", {"port": 1})
    await host.extensions.load("one")
    await until(lambda: len(host.seen) == 2)
    await host.extensions.unload("one")
    assert host.seen == ["load with {'port': 1}", "run with 3", "unload"]


async def test_c3_a_module_with_construct_is_asked_for_the_extension(host: Host) -> None:
    module = ModuleType("constructing")
    vars(module).update(construct=Noting)
    host.extensions.add("one", module)
    await host.extensions.load("one")
    assert type(host.extensions.get("one")) is Noting


@pytest.mark.parametrize("source", [dict, object(), ModuleType("empty")])
async def test_c3_what_has_no_part_of_an_extension_is_refused(host: Host, source: Any) -> None:
    host.extensions.add("one", source)
    with pytest.raises(PluginLoadError, match=r"has none of load, unload, run, .*derive its class from ExtensionBase"):
        await host.extensions.load("one")


async def test_c3_a_run_that_is_not_async_is_refused(host: Host) -> None:
    class Plain(Noting):
        def run(self) -> None:
            pytest.fail("called")

    host.extensions.add("one", Plain)
    with pytest.raises(PluginLoadError, match="write `async def run`"):
        await host.extensions.load("one")
    assert host.seen == []


# --- c 4: dependencies, configuration, enabled, discovery, crashes ---


async def test_c4_dependencies_are_loaded_first_and_dependents_unloaded_first(host: Host) -> None:
    host.extensions.add("top", needing("middle", "other"))
    host.extensions.add("middle", needing("bottom"))
    host.extensions.add("bottom", Noting)
    host.extensions.add("other", Noting)
    await host.extensions.load("top")
    assert host.seen.index("load bottom") < host.seen.index("load middle") < host.seen.index("load top")
    assert set(host.extensions.loaded) == {"top", "middle", "bottom", "other"}
    host.seen.clear()
    await host.extensions.unload("bottom")
    assert host.seen == ["unload top", "unload middle", "unload bottom"]
    assert host.extensions.loaded == ("other",)


async def test_c4_get_dependencies_is_asked_instead_of_the_attribute(host: Host) -> None:
    class Asked(Noting):
        dependencies = ("missing",)

        @staticmethod
        def get_dependencies() -> set[str]:
            return {"one"}

    host.extensions.add("asked", Asked)
    host.extensions.add("one", Noting)
    await host.extensions.load("asked")
    assert host.extensions.loaded == ("one", "asked")


async def test_c4_an_extension_may_depend_on_any_other_plugin_which_is_started_first(host: Host) -> None:
    @plugin(id="the plugin", version="1")
    class ThePlugin:
        def start(self) -> None:
            host.note("start the plugin")

    host.extensions.add("one", needing("the plugin"))
    host.plugins.attach(ThePlugin)
    await host.extensions.load("one")
    assert host.seen == ["start the plugin", "load one"]
    await host.plugins.stop_plugin("the plugin")
    assert host.seen[2:] == ["unload one"]
    assert host.extensions.loaded == ()


async def test_c4_loading_twice_changes_nothing(host: Host) -> None:
    host.extensions.add("one", Noting)
    await host.extensions.load("one")
    await host.extensions.load("one")
    assert host.seen == ["load one"]


async def test_c4_a_circle_refuses_the_whole_set_and_shows_itself(host: Host) -> None:
    host.extensions.add("good", Noting)
    host.extensions.add("one", needing("two"))
    host.extensions.add("two", needing("one"))
    with pytest.raises(PluginResolutionError, match=r"in a circle: (one -> two -> one|two -> one -> two)\."):
        await host.extensions.load("good", "one")
    assert host.seen == []


class Unbuildable(Noting):
    def __init__(self) -> None:
        raise ZeroDivisionError


class Unloadable(Noting):
    def configure(self, configuration: dict[str, Any]) -> None:
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("dependency", "error", "told"),
    [
        (None, PluginResolutionError, "'one' depends on 'dependency', which nobody has: install or add it"),
        (Unbuildable, PluginLoadError, "dependency"),
        (Unloadable, PluginStartError, "dependency"),
    ],
    ids=["missing", "cannot be built", "cannot be loaded"],
)
async def test_c4_a_missing_or_failing_dependency_refuses_the_whole_set(
    host: Host, dependency: Any, error: type[Exception], told: str
) -> None:
    host.extensions.add("good", Noting)
    host.extensions.add("one", needing("dependency"))
    if dependency is not None:
        host.extensions.add("dependency", dependency)
    with pytest.raises(error) as raised:
        await host.extensions.load("one", "good")
    assert told in str(raised.value)
    assert host.extensions.loaded == ()
    assert await host.plugins.get_plugin("one") is None
    assert await host.plugins.get_plugin("dependency") is None
    assert [what for what in host.seen if what != "load good"] in ([], ["unload good"])


async def crash(host: Host, name: str) -> None:
    """Let the `run` of an extension raise, and wait until it is unloaded."""
    host.extensions.get(name).failure.set()
    await until(lambda: name not in host.extensions.loaded)


async def test_c4_the_crash_of_one_run_unloads_that_one_and_its_dependents_only(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    host.extensions.add("bad", Running)
    host.extensions.add("dependent", needing("bad"))
    host.extensions.add("good", Running)
    await host.extensions.load("dependent", "good")
    await until(lambda: {"run bad", "run good"} <= set(host.seen))
    host.seen.clear()
    await crash(host, "bad")
    await until(lambda: "unload bad" in host.seen)
    assert host.seen == ["end of run bad", "unload dependent", "unload bad"]
    assert host.extensions.loaded == ("good",)
    assert "run crashed" in caplog.text
    descriptor = await host.plugins.get_plugin("bad")
    assert descriptor is not None
    assert descriptor.state is PluginState.FAILED
    assert "run crashed" in str(descriptor.failed_reason)
    host.extensions.add("later", Noting)
    await host.extensions.load("later")
    assert host.extensions.loaded == ("good", "later")


async def test_c4_the_crash_of_a_worker_unloads_its_extension_too(host: Host) -> None:
    host.extensions.add("bad", Running)
    await host.extensions.load("bad")
    async with host.extensions.client():
        await until(lambda: "worker bad" in host.seen)
        await crash(host, "bad")
        await until(lambda: host.seen[-1] == "unload bad")
    assert host.seen.count("spindown bad") == 1


async def test_c4_a_crashed_dependency_refuses_what_needs_it_until_it_is_loaded_again(host: Host) -> None:
    host.extensions.add("bad", Running)
    host.extensions.add("dependent", needing("bad"))
    await host.extensions.load("bad")
    await crash(host, "bad")
    await until(lambda: host.seen[-1] == "unload bad")
    with pytest.raises(PluginResolutionError, match="depends on 'bad', which has failed: load that first"):
        await host.extensions.load("dependent")
    assert host.extensions.loaded == ()
    await host.extensions.load("bad")
    await host.extensions.load("dependent")
    assert host.extensions.loaded == ("bad", "dependent")


async def test_c4_reload_unloads_dependents_and_restores_them(host: Host) -> None:
    host.extensions.add("one", Noting)
    host.extensions.add("dependent", needing("one"))
    host.extensions.add("other", Noting)
    await host.extensions.load("dependent", "other")
    before = host.extensions.get("one")
    host.seen.clear()
    await host.extensions.reload("one")
    assert host.seen == ["unload dependent", "unload one", "load one", "load dependent"]
    assert host.extensions.get("one") is not before
    assert set(host.extensions.loaded) == {"one", "dependent", "other"}


async def test_c4_a_configuration_changed_while_loaded_is_kept_until_the_reload(host: Host) -> None:
    host.extensions.add("one", Noting)
    host.extensions.configure("one", {"port": 1})
    assert not host.extensions.needs_reload("one")
    await host.extensions.load("one")
    given: dict[str, Any] = {"ports": [2]}
    host.extensions.configure("one", given)
    given["ports"].append(3)
    assert host.extensions.get("one").configuration == {"port": 1}
    assert host.extensions.needs_reload("one")
    await host.extensions.reload("one")
    assert host.extensions.get("one").configuration == {"ports": [2]}
    assert not host.extensions.needs_reload("one")


async def test_c4_an_extension_cannot_change_the_configuration_it_is_loaded_with_next(host: Host) -> None:
    host.extensions.add("one", Noting)
    host.extensions.configure("one", {"ports": [1]})
    await host.extensions.load("one")
    host.extensions.get("one").configuration["ports"].append(2)
    await host.extensions.reload("one")
    assert host.extensions.get("one").configuration == {"ports": [1]}


@pytest.mark.parametrize(
    ("enabled", "loaded"),
    [
        ({}, True),
        ({"enabled": "yes"}, True),
        ({"enabled": True}, True),
        ({"enabled": " Prefer "}, True),
        ({"enabled": "no"}, False),
        ({"enabled": False}, False),
        ({"enabled": "avoid"}, False),
    ],
    ids=str,
)
async def test_c4_enabled_says_whether_an_extension_is_loaded_and_is_not_shown_to_it(
    host: Host, enabled: dict[str, Any], loaded: bool
) -> None:
    host.extensions.add("one", Noting)
    await host.extensions.load_all({"one": {"port": 1, **enabled}})
    assert (host.extensions.loaded == ("one",)) == loaded
    if loaded:
        assert host.extensions.get("one").configuration == {"port": 1}


@pytest.mark.parametrize("enabled", ["prefer", "avoid", "no"])
async def test_c4_an_extension_that_is_not_wanted_badly_need_not_be_installed(host: Host, enabled: str) -> None:
    host.extensions.add("good", Noting)
    await host.extensions.load_all({"not installed": {"enabled": enabled}, "good": {}})
    assert host.extensions.loaded == ("good",)
    with pytest.raises(UnknownExtension, match="no extension 'not installed': add it, or install its package"):
        await host.extensions.load_all({"not installed": {"enabled": "yes"}})


async def test_c4_an_extension_to_avoid_is_loaded_as_a_dependency(host: Host) -> None:
    host.extensions.add("one", needing("avoided"))
    host.extensions.add("avoided", Noting)
    await host.extensions.load_all({"one": None, "avoided": {"enabled": "avoid"}})
    assert host.extensions.loaded == ("avoided", "one")


async def test_c4_an_extension_that_is_disabled_is_not_loaded_as_a_dependency_either(host: Host) -> None:
    host.extensions.add("good", Noting)
    host.extensions.add("one", needing("disabled"))
    host.extensions.add("disabled", Noting)
    with pytest.raises(PluginResolutionError, match="'one' depends on 'disabled', which is disabled: enable it"):
        await host.extensions.load_all({"good": {}, "one": {}, "disabled": {"enabled": "no"}})
    assert host.seen == []
    with pytest.raises(PluginResolutionError, match="'disabled' is disabled: configure it with enabled = yes"):
        await host.extensions.load("disabled")


@pytest.mark.parametrize("reason", ["missing", "cannot be built", "cannot be loaded"])
async def test_c4_an_extension_that_is_only_preferred_may_fail_without_harm(
    host: Host, caplog: pytest.LogCaptureFixture, reason: str
) -> None:
    made: dict[str, Any] = {
        "missing": needing("missing"),
        "cannot be built": Unbuildable,
        "cannot be loaded": Unloadable,
    }
    host.extensions.add("good", Noting)
    host.extensions.add("preferred", made[reason])
    await host.extensions.load_all({"preferred": {"enabled": "prefer"}, "good": {}})
    assert host.extensions.loaded == ("good",)
    assert "extension preferred is preferred and cannot be loaded" in caplog.text


@pytest.mark.parametrize(
    ("configuration", "told"),
    [
        ({"enabled": "maybe"}, "one.enabled: 'maybe' is none of yes, no, prefer and avoid"),
        ({"enabled": None}, "one.enabled: None is none of"),
        ([1], r"one: \[1\] is no dict of names and values"),
    ],
    ids=str,
)
async def test_c4_a_configuration_that_cannot_be_used_is_refused_and_nothing_changes(
    host: Host, configuration: Any, told: str
) -> None:
    host.extensions.add("one", Noting)
    with pytest.raises(ConfigError, match=told):
        await host.extensions.load_all({"one": configuration})
    assert host.extensions.loaded == ()


async def test_c4_what_is_not_known_or_not_loaded_is_named_with_what_is(host: Host) -> None:
    host.extensions.add("one", Noting)
    with pytest.raises(UnknownExtension, match=r"no extension 'two': add it, .* \(known: one\)"):
        await host.extensions.load("two")
    with pytest.raises(UnknownExtension, match=r"no extension 'one' is loaded: load it first \(loaded: none\)"):
        await host.extensions.unload("one")
    with pytest.raises(UnknownExtension):
        await host.extensions.reload("one")


@pytest.mark.parametrize("name", ["config", "logger", "journal", "engine", "", " "])
def test_c4_the_engines_own_names_cannot_be_taken(name: str) -> None:
    with pytest.raises(ReservedName) as raised:
        Host().extensions.add(name, Noting)
    assert isinstance(raised.value, ValueError)


def test_c4_a_name_can_be_taken_once_only() -> None:
    extensions = Host().extensions
    extensions.add("one", Noting)
    with pytest.raises(DuplicateExtension, match="'one' is known already: give this one another name"):
        extensions.add("one", Noting)


@pytest.mark.parametrize("names", ["one", 7, lambda: 1 / 0], ids=["a str", "a number", "an error"])
async def test_c4_dependencies_that_are_no_list_of_names_refuse_the_load(host: Host, names: Any) -> None:
    wrong = type("Wrong", (Noting,), {"get_dependencies": names} if callable(names) else {"dependencies": names})
    host.extensions.add("wrong", wrong)
    with pytest.raises(PluginLoadError, match=r"gives? a list of names"):
        await host.extensions.load("wrong")


INSTALLED = """
from saga_engine.extensions.background import ExtensionBase

class Installed(ExtensionBase):
    pass
"""


def install(path: Path, package: str, *points: str) -> None:
    """Make an installed package of this name with these entry points, and its module."""
    info = path / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("\n".join(["[saga_engine.extensions]", *points, ""]))
    (path / f"{package}.py").write_text(INSTALLED)


async def test_c4_extensions_of_installed_packages_are_discovered_and_imported_when_loaded(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "found_package", "found = found_package:Installed", "broken = found_package:Missing")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "found_package", raising=False)
    assert host.extensions.discover() == ("broken", "found")
    assert "found_package" not in sys.modules
    assert host.extensions.loaded == ()
    await host.extensions.load("found")
    assert type(host.extensions.get("found")).__name__ == "Installed"
    with pytest.raises(PluginLoadError, match=r"'broken' cannot be imported .* or configure it with enabled = no"):
        await host.extensions.load("broken")
    assert host.extensions.loaded == ("found",)


async def test_c4_a_discovered_extension_shadows_neither_the_engines_names_nor_one_that_is_known(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    install(tmp_path, "a_package", "mine = a_package:Installed", "logger = a_package:Installed", "new = a_package:A")
    install(tmp_path, "b_package", "new = b_package:Installed")
    monkeypatch.syspath_prepend(tmp_path)
    host.extensions.add("mine", Noting)
    assert host.extensions.discover() == ("new",)
    assert host.extensions.known == ("mine", "new")
    told = [record.getMessage() for record in caplog.records]
    assert [text.split(" is left out")[0] for text in told] == [
        "extension a_package:Installed of a_package",
        "extension a_package:Installed of a_package",
        "extension b_package:Installed of b_package",
    ]
    await host.extensions.load("mine")
    assert type(host.extensions.get("mine")) is Noting


async def test_c4_unload_all_ends_everything_in_reverse(host: Host) -> None:
    for name in ("one", "two", "bad"):
        host.extensions.add(name, Running)
    await host.extensions.load("one", "two", "bad")
    await crash(host, "bad")
    await until(lambda: host.seen[-1] == "unload bad")
    await host.extensions.unload_all()
    assert [what for what in host.seen if what.startswith("unload")] == ["unload bad", "unload two", "unload one"]
    assert await host.plugins.get_plugin("bad") is None
