"""Plugins: extension points, extensions, the registry, the manager and its lifecycle (SEEDS d)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timezone
from typing import Any, Protocol

import anyio
import pytest
from anyio.abc import TaskGroup, TaskStatus
from anyio.lowlevel import checkpoint

from saga_engine import Saga
from saga_engine.extensions import (
    ExtensionRegistry,
    Host,
    Ledger,
    Plugin,
    PluginError,
    PluginLoadError,
    PluginManager,
    PluginResolutionError,
    PluginsAutoConfiguration,
    PluginStartError,
    PluginState,
    PluginStateError,
    PluginStopError,
    PluginUnit,
    Points,
    extension,
    extension_point,
    plugin,
)
from saga_engine.extensions.errors import (
    ConfigError,
    DuplicateExtension,
    NoExtension,
    NotConforming,
    RegistrationClosed,
    UndoFailed,
)
from saga_engine.services import Container
from transactions import SagaError

DEADLINE_S = 20


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Every async test here runs on both."""
    return str(request.param)


pytestmark = pytest.mark.anyio

Log = list[str]


async def until(condition: Callable[[], object]) -> None:
    """Give the other tasks their turns until the condition holds."""
    with anyio.fail_after(DEADLINE_S):
        while not condition():
            await checkpoint()


class Recorder(PluginUnit):
    """A plugin that notes its hooks, and fails where it is told to."""

    def __init__(self, plugin_id: str, log: Log, *depends_on: str, fails_in: tuple[str, ...] = ()) -> None:
        self.plugin = Plugin(plugin_id, "1", depends_on=depends_on)
        self.log = log
        self.fails_in = set(fails_in)
        self.tasks: TaskGroup
        self.host: Host

    def contribute(self, host: Host, ledger: Ledger) -> None:
        self.host = host
        host.contribute(ledger, "things", f"{self.plugin.id}'s thing")
        if "contribute" in self.fails_in:
            raise ZeroDivisionError("contribute")

    def note(self, hook: str) -> None:
        self.log.append(f"{hook} {self.plugin.id}")
        if hook in self.fails_in:
            raise ZeroDivisionError(hook)

    async def init(self, task_group: TaskGroup) -> None:
        self.tasks = task_group
        self.note("init")

    async def start(self, task_group: TaskGroup) -> None:
        await checkpoint()
        self.note("start")

    async def stop(self) -> None:
        await checkpoint()
        self.note("stop")

    async def unload(self) -> None:
        self.note("unload")

    async def crash(self) -> None:
        raise ZeroDivisionError("crash")


def fail_to_undo() -> None:
    raise IndexError("stuck")


@pytest.fixture
def log() -> Log:
    """What the plugins of a test note."""
    return []


async def manager_of(*units: Any) -> PluginManager:
    """Make a manager that holds these plugins."""
    manager = PluginManager()
    for unit in units:
        await manager.add(unit)
    return manager


async def chain(log: Log, **fails_in: str) -> tuple[PluginManager, dict[str, Recorder]]:
    """Make a manager of three plugins, c on b on a, added in the wrong order, that fail in the given hooks."""
    needs = {"c": ("b",), "b": ("a",), "a": ()}
    units = {one: Recorder(one, log, *on, fails_in=(fails_in.get(one, ""),)) for one, on in needs.items()}
    return await manager_of(*units.values()), units


def states(manager: PluginManager) -> str:
    """Give the states of all plugins, by id."""
    return " ".join(
        f"{one.plugin.id}={one.state.value}" for one in sorted(manager.plugins(), key=lambda p: p.plugin.id)
    )


def reason(manager: PluginManager, plugin_id: str) -> str | None:
    """Give why a plugin has failed."""
    (descriptor,) = [one for one in manager.plugins() if one.plugin.id == plugin_id]
    return descriptor.failed_reason


# --- d 1: what a plugin is, and adding it ---


async def test_d1_the_decorator_gives_id_and_version_and_name_and_author_have_defaults() -> None:
    @plugin(id="auth", version="1.0.0")
    class Bare: ...

    @plugin(id="full", version="2", name="Full", author="security-team", description="all", depends_on=["auth", "auth"])
    class Full: ...

    manager = await manager_of(Bare, Full)
    assert [one.plugin for one in manager.plugins()] == [
        Plugin("auth", "1.0.0", name="auth", author="", description="", depends_on=()),
        Plugin("full", "2", name="Full", author="security-team", description="all", depends_on=("auth",)),
    ]
    assert await manager.add(Recorder("a unit", [])) == "a unit"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"id": "", "version": "1"}, "give both an id and a version"),
        ({"id": "a", "version": " "}, "give both an id and a version"),
        ({"id": 1, "version": "1"}, "the id of plugin 1 is 1: give a str"),
        ({"id": "a", "version": 1.0}, r"the version of plugin 'a' is 1\.0: give a str"),
        ({"id": "a", "version": "1", "depends_on": "b"}, "give a list of plugin ids"),
        ({"id": "a", "version": "1", "depends_on": None}, "give a list of plugin ids"),
        ({"id": "a", "version": "1", "depends_on": [1]}, "give plugin ids, as str"),
    ],
)
def test_d1_a_wrong_argument_of_the_decorator_is_an_error_that_says_what_to_give(
    arguments: dict[str, Any], told: str
) -> None:
    with pytest.raises(PluginLoadError, match=told):
        plugin(**arguments)


def test_d1_a_decorator_above_something_else_is_an_error_that_names_it() -> None:
    for decorate in (plugin("a", "1"), extension_point("a")):
        with pytest.raises(PluginLoadError, match="put it above a class"):
            decorate(len)  # type: ignore[type-var]
    with pytest.raises(PluginLoadError, match="put it above a class or a method"):
        extension("a")(len)
    with pytest.raises(PluginLoadError, match="give the id of an extension point"):
        extension(len)  # type: ignore[arg-type]
    with pytest.raises(PluginLoadError, match=r"'10'.*: give an int"):
        extension("a", priority="10")  # type: ignore[arg-type]
    with pytest.raises(PluginLoadError, match="give an id, as str"):
        extension_point("")


@plugin(id="base", version="1")
class Base:
    """A plugin that others derive from."""


class Derived(Base):
    """No plugin itself."""


@pytest.mark.parametrize(
    ("thing", "told"),
    [
        (Derived, r"Derived is no plugin: decorate the class with @plugin"),
        (int, "int is no plugin"),
        (42, "42 is no plugin"),
        (Base(), "add the class Base"),
    ],
)
async def test_d1_what_is_no_decorated_class_is_a_load_error(thing: Any, told: str) -> None:
    manager = PluginManager()
    with pytest.raises(PluginLoadError, match=told):
        await manager.add(thing)
    assert manager.plugins() == []


async def test_d1_a_unit_without_identity_is_a_load_error() -> None:
    class Nameless(PluginUnit):
        def contribute(self, host: Host, ledger: Ledger) -> None: ...

    with pytest.raises(PluginLoadError, match=r"set self\.plugin = Plugin\("):
        await PluginManager().add(Nameless())


async def test_d1_a_second_plugin_of_one_id_is_refused_and_the_first_stays(log: Log) -> None:
    manager = await manager_of(Recorder("a", log))
    await manager.start_all()
    with pytest.raises(PluginLoadError, match=r"a plugin 'a' already: remove it first, or use reload"):
        await manager.add(Recorder("a", log))
    assert states(manager) == "a=started"
    assert await manager.registry.get("things") == ["a's thing"]


async def test_d1_an_id_is_taken_as_soon_as_somebody_begins_to_add_it() -> None:
    manager = PluginManager()
    refused: list[PluginLoadError] = []

    class Meanwhile(Recorder):
        def contribute(self, host: Host, ledger: Ledger) -> None:
            other = threading.Thread(target=self.add_it_too)
            other.start()
            other.join()
            super().contribute(host, ledger)

        def add_it_too(self) -> None:
            with pytest.raises(PluginLoadError) as raised:
                manager.attach(Recorder("a", []))
            refused.append(raised.value)

    manager.attach(Meanwhile("a", []))
    assert len(refused) == 1
    assert manager.points.get("things") == ["a's thing"]


def failing_add() -> list[Any]:
    """Give plugins that cannot be added, each after having registered something."""

    @plugin(id="bad", version="1")
    class BadConstructor:
        def __init__(self) -> None:
            raise ZeroDivisionError("the reason")

    @plugin(id="bad", version="1")
    class BadExtension:
        @extension_point(id="p")
        class Point: ...

        @extension("q")
        class Good: ...

        @extension("q")
        class Bad:
            def __init__(self) -> None:
                raise ZeroDivisionError("the reason")

    @plugin(id="bad", version="1")
    class WantsTooMuch:
        @extension("q")
        class Bad:
            def __init__(self, nobody_has_it: Any) -> None: ...

    @plugin(id="bad", version="1")
    class BadHook:
        def start(self, one: int, other: int) -> None: ...

    @plugin(id="bad", version="1")
    class NoHook:
        stop = "soon"

    return [BadConstructor, BadExtension, WantsTooMuch, BadHook, NoHook]


@pytest.mark.parametrize("number", range(5))
async def test_d1_an_add_that_fails_leaves_no_trace_and_its_id_is_free(number: int, log: Log) -> None:
    manager = PluginManager()
    told = "the reason|nobody_has_it|let it take|make it a method"
    with pytest.raises(PluginLoadError, match=told):
        await manager.add(failing_add()[number])
    assert manager.plugins() == []
    assert await manager.get_plugin("bad") is None
    assert await manager.registry.extension_point_ids() == []
    assert await manager.registry.get("q") == []
    assert await manager.add(Recorder("bad", log)) == "bad"


async def test_d1_what_a_unit_raises_while_it_is_added_is_raised_as_it_is_and_nothing_stays(log: Log) -> None:
    manager = PluginManager()
    with pytest.raises(ZeroDivisionError):
        await manager.add(Recorder("a", log, fails_in=("contribute",)))
    assert manager.plugins() == []
    assert manager.points.get("things") == []


async def test_d1_what_cannot_be_taken_back_of_a_failed_add_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Sticky(Recorder):
        def contribute(self, host: Host, ledger: Ledger) -> None:
            ledger.record("glue", fail_to_undo)
            super().contribute(host, ledger)

    with pytest.raises(ZeroDivisionError):
        await PluginManager().add(Sticky("a", [], fails_in=("contribute",)))
    assert "plugin a could not be added (ZeroDivisionError: contribute), and left traces" in caplog.text
    assert "glue (IndexError" in caplog.text


async def test_d1_a_plugin_is_built_by_its_own_scope_of_the_container() -> None:
    container = Container().bind_instance("client", "the client").bind_instance("logger", "the engine's logger")

    @plugin(id="injected", version="1")
    class Injected:
        def __init__(self, client: Any, logger: Any, configuration: dict[str, Any]) -> None:
            seen.append((client, logger.name, configuration))

        @extension("things")
        class Thing:
            def __init__(self, client: Any) -> None:
                seen.append(client)

    seen: list[Any] = []
    await PluginManager(container=container).add(Injected, {"port": 1})
    assert seen == [("the client", "saga_engine.plugins.injected", {"port": 1}), "the client"]


# --- d 2: extensions and their points ---


async def test_d2_extensions_are_ordered_by_priority_and_equal_ones_by_registration() -> None:
    @plugin(id="many", version="1")
    class Many:
        @extension(point="p", priority=1)
        class Low: ...

        @extension("p", 10)
        class High: ...

        @extension("p", 1)
        class LowToo: ...

        @extension("p")
        class Default: ...

        @extension("p", -1)
        class Last: ...

    manager = await manager_of(Many)
    names = [type(one).__name__ for one in await manager.registry.get("p")]
    assert names == ["High", "Low", "LowToo", "Default", "Last"]


async def test_d2_of_one_priority_the_place_in_the_configuration_counts_and_then_the_order_of_adding() -> None:
    manager = PluginManager()
    for plugin_id, rank in (("d", 2), ("b", 1), ("a", 0), ("c", 1)):
        await manager.add(Recorder(plugin_id, []), rank=rank)
    assert [thing[0] for thing in manager.points.get("things")] == ["a", "b", "c", "d"]
    assert [one.plugin.id for one in manager.plugins()] == ["a", "b", "c", "d"]


async def test_d2_nested_points_are_declared_before_extensions_that_stand_above_them() -> None:
    @plugin(id="own", version="1")
    class Own:
        @extension("p")
        class Alien: ...

        @extension_point(id="p")
        class Point: ...

    with pytest.raises(ValueError, match=r"contribute an instance of .*Own.Point"):
        await PluginManager().add(Own)


async def test_d2_what_does_not_conform_is_a_value_error_of_ours() -> None:
    registry = ExtensionRegistry()
    await registry.register_extension_point("p", int)
    with pytest.raises(NotConforming, match="'text' cannot be contributed to extension point 'p'") as raised:
        await registry.register("p", "text")
    assert isinstance(raised.value, ValueError)
    assert isinstance(raised.value, SagaError)
    await registry.register("p", 1)
    assert await registry.get("p") == [1]


async def test_d2_an_unknown_point_takes_anything_and_an_unknown_point_has_nothing() -> None:
    registry = ExtensionRegistry()
    await registry.register("nobody declared it", "text")
    assert await registry.get("nobody declared it") == ["text"]
    assert await registry.get("unknown") == []


def test_d2_a_point_that_is_declared_late_refuses_what_is_there_and_does_not_conform() -> None:
    points = Points()
    points.contribute("p", "text")
    with pytest.raises(NotConforming):
        points.declare("p", int)
    assert points.point("p") is None
    points.declare("p", str)


class Greeter(Protocol):
    """Whoever greets."""

    def greet(self) -> str: ...


@pytest.mark.parametrize("wrong", [Greeter, type[Greeter], "str", 1])
def test_d2_a_type_that_cannot_be_tested_for_is_refused(wrong: Any) -> None:
    with pytest.raises(NotConforming, match="@runtime_checkable"):
        Points().declare("p", wrong)


@pytest.mark.parametrize("wrong", [{"priority": "1"}, {"rank": None}, {"point_id": ""}, {"point_id": 1}])
def test_d2_an_id_or_an_order_of_the_wrong_type_is_refused_and_nothing_is_contributed(wrong: dict[str, Any]) -> None:
    points = Points()
    with pytest.raises(NotConforming):
        points.contribute(**{"point_id": "p", "instance": 1, **wrong})
    assert points.get("p") == []


async def test_d2_get_extension_gives_the_one_of_the_highest_priority_or_a_value_error() -> None:
    registry = ExtensionRegistry()
    await registry.register("p", "low")
    await registry.register("p", "high", priority=1)
    assert await registry.get_extension("p") == "high"
    with pytest.raises(NoExtension, match="'unknown', which nobody has declared: add a plugin with") as raised:
        await registry.get_extension("unknown")
    assert isinstance(raised.value, ValueError)
    await registry.register_extension_point("empty", int)
    with pytest.raises(ValueError, match="nothing was contributed to extension point 'empty': add"):
        await registry.get_extension("empty")


async def test_d2_a_point_of_a_type_of_classes_takes_the_class_itself_and_others_an_instance() -> None:
    manager = PluginManager()
    manager.points.declare("sagas", type[Saga])

    @plugin(id="orders", version="1")
    class Orders:
        @extension("sagas")
        @extension("objects")
        class Order(Saga):
            def transactions(self, request: dict[str, Any]) -> list[Any]:
                return []

    await manager.add(Orders)
    assert manager.points.get("sagas") == [Orders.Order]
    assert isinstance(manager.points.get("objects")[0], Orders.Order)
    with pytest.raises(NotConforming, match="contribute the class Saga or one that derives from it"):
        manager.points.contribute("sagas", int)


async def test_d2_a_method_is_contributed_bound_and_one_object_may_serve_several_points() -> None:
    @plugin(id="mixed", version="1")
    class Mixed:
        @extension("p", 2)
        def method(self) -> Any:
            return self

        @extension("p", 1)
        @staticmethod
        def static() -> str:
            return "static"

        @extension("p")
        @extension("q")
        class Both: ...

    manager = await manager_of(Mixed)
    method, static, both = await manager.registry.get("p")
    assert isinstance(method(), Mixed)
    assert static() == "static"
    assert await manager.registry.get("q") == [both]


async def test_d2_inherited_extensions_count_and_what_is_overridden_or_only_derives_does_not() -> None:
    class Shared:
        @extension("p")
        class Kept: ...

        @extension("p")
        class Replaced: ...

    @plugin(id="heir", version="1")
    class Heir(Shared):
        class Replaced(Shared.Kept): ...

    manager = await manager_of(Heir)
    assert [type(one) for one in await manager.registry.get("p")] == [Shared.Kept]


async def test_d2_who_contributed_what_can_be_told() -> None:
    manager = await manager_of(Recorder("a", []))
    (contribution,) = manager.points.contributions("things")
    assert (contribution.instance, contribution.plugin) == ("a's thing", Plugin("a", "1"))


# --- d 3: the registry ---


async def test_d3_the_registry_tells_which_points_are_recorded() -> None:
    registry = ExtensionRegistry()
    assert not await registry.has_extension_point("p")
    await registry.register_extension_point("q", int)
    await registry.register_extension_point("p", str)
    await registry.register_extension_point("p", str)
    assert await registry.has_extension_point("p")
    assert await registry.extension_point_ids() == ["q", "p"]


async def test_d3_a_point_that_is_recorded_with_another_type_is_refused() -> None:
    registry = ExtensionRegistry()
    await registry.register_extension_point("p", str)
    with pytest.raises(DuplicateExtension, match="declare it once, or give one of them another id") as raised:
        await registry.register_extension_point("p", int)
    assert isinstance(raised.value, ValueError)


async def test_d3_what_is_registered_can_be_unregistered_once() -> None:
    registry = ExtensionRegistry()
    unregister = await registry.register("p", "one")
    await registry.register("p", "one")
    unregister()
    unregister()
    assert await registry.get("p") == ["one"]


def test_d3_a_point_that_two_declare_stays_until_both_have_withdrawn_it() -> None:
    points = Points()
    first, second = points.declare("p", int), points.declare("p", int)
    first()
    first()
    assert points.ids() == ["p"]
    second()
    second()
    assert points.ids() == []


# --- d 4: all of them, in order ---


async def test_d4_start_all_runs_init_then_start_and_stop_all_stop_then_unload_reversed(log: Log) -> None:
    manager, _ = await chain(log)
    await manager.start_all()
    assert log == ["init a", "start a", "init b", "start b", "init c", "start c"]
    assert states(manager) == "a=started b=started c=started"
    log.clear()
    await manager.stop_all()
    assert log == ["stop c", "unload c", "stop b", "unload b", "stop a", "unload a"]
    assert states(manager) == "a=stopped b=stopped c=stopped"


async def test_d4_what_is_in_order_already_is_left_alone_and_what_was_stopped_starts_anew(log: Log) -> None:
    manager, _ = await chain(log)
    await manager.stop_all()
    await manager.start_all()
    await manager.start_all()
    await manager.stop_all()
    await manager.stop_all()
    first = list(log)
    await manager.start_all()
    await manager.stop_all()
    assert log == first * 2


async def test_d4_hooks_may_be_plain_or_async_and_may_take_the_task_group_or_not(log: Log) -> None:
    @plugin(id="hooks", version="1")
    class Hooks:
        async def init(self) -> None:
            log.append("init")

        def start(self, task_group: TaskGroup) -> None:
            task_group.start_soon(self.run)

        async def run(self) -> None:
            log.append("run")

        def stop(self) -> None:
            log.append("stop")

    manager = await manager_of(Hooks)
    await manager.start_all()
    await until(lambda: "run" in log)
    await manager.stop_all()
    assert log == ["init", "run", "stop"]


async def test_d4_a_circle_is_an_error_that_draws_it_and_nothing_is_started(log: Log) -> None:
    manager = await manager_of(
        Recorder("free", log), Recorder("a", log, "b"), Recorder("b", log, "c"), Recorder("c", log, "a")
    )
    with pytest.raises(PluginResolutionError, match=r"in a circle: a -> b -> c -> a|b -> c -> a -> b|c -> a -> b -> c"):
        await manager.start_all()
    assert log == []
    assert states(manager) == "a=loaded b=loaded c=loaded free=loaded"


async def test_d4_who_is_not_in_a_circle_is_started_stopped_and_removed_in_order_all_the_same(log: Log) -> None:
    manager = await manager_of(
        Recorder("round", log, "round"), Recorder("b", log, "a"), Recorder("a", log), Recorder("on it", log, "round")
    )
    await manager.start_plugin("b")
    await manager.stop_all()
    assert log == ["init a", "start a", "init b", "start b", "stop b", "unload b", "stop a", "unload a"]
    await manager.start_plugin("b")
    log.clear()
    await manager.unload_all()
    assert log == ["unload on it", "unload round", "stop b", "unload b", "stop a", "unload a"]


async def test_d4_a_missing_dependency_is_an_error_that_names_it_and_nothing_is_started(log: Log) -> None:
    manager = await manager_of(Recorder("free", log), Recorder("a", log, "nobody"))
    with pytest.raises(PluginResolutionError, match="'a' depends on 'nobody', which is not there: add that"):
        await manager.start_all()
    assert log == []
    await manager.add(Recorder("nobody", log))
    await manager.start_all()
    assert log[-2:] == ["init a", "start a"]


# --- d 5: one of them ---


async def test_d5_start_plugin_starts_its_dependencies_first_and_skips_what_is_started(log: Log) -> None:
    manager, _ = await chain(log)
    await manager.start_plugin("b")
    assert log == ["init a", "start a", "init b", "start b"]
    await manager.start_plugin("c")
    assert log[4:] == ["init c", "start c"]


async def test_d5_stop_plugin_stops_its_dependents_first_and_skips_what_is_not_started(log: Log) -> None:
    manager, _ = await chain(log)
    await manager.stop_plugin("a")
    await manager.start_all()
    log.clear()
    await manager.stop_plugin("c")
    await manager.stop_plugin("a")
    await manager.stop_plugin("a")
    assert log == ["stop c", "stop b", "stop a"]
    assert states(manager) == "a=stopped b=stopped c=stopped"


@pytest.mark.parametrize("hook", ["init", "start"])
@pytest.mark.parametrize("operation", ["start_all", "start_plugin"])
async def test_d5_a_start_that_fails_is_the_same_error_whichever_operation_it_is(
    log: Log, hook: str, operation: str
) -> None:
    manager, units = await chain(log, b=hook)
    with pytest.raises(PluginStartError, match=f"plugin 'b' could not be started: {hook} raised Zero") as raised:
        await (manager.start_all() if operation == "start_all" else manager.start_plugin("c"))
    assert isinstance(raised.value.__cause__, ZeroDivisionError)
    assert states(manager) == "a=started b=failed c=loaded"
    assert reason(manager, "b") == f"{hook} raised ZeroDivisionError: {hook}"
    assert "stop b" not in log
    units["b"].fails_in.clear()
    await manager.start_plugin("c")
    assert states(manager) == "a=started b=started c=started"
    assert reason(manager, "b") is None


async def test_d5_a_stop_that_fails_makes_that_one_failed_and_all_are_stopped_nevertheless(log: Log) -> None:
    manager, units = await chain(log, c="stop", a="stop")
    await manager.start_all()
    with pytest.raises(
        PluginStopError, match=r"'c' did not end cleanly: stop raised Zero.*; and: plugin 'a'"
    ) as raised:
        await manager.stop_plugin("a")
    assert [str(other) for other in raised.value.others]
    assert isinstance(raised.value.__cause__, ZeroDivisionError)
    assert states(manager) == "a=failed b=stopped c=failed"
    assert reason(manager, "c") == "stop raised ZeroDivisionError: stop"
    log.clear()
    await manager.stop_plugin("a")
    assert log == []
    units["c"].fails_in.clear()
    await manager.start_all()
    assert states(manager) == "a=started b=started c=started"


async def test_d5_an_unload_that_fails_in_stop_all_is_a_stop_error_too(log: Log) -> None:
    manager, _ = await chain(log, b="unload")
    await manager.start_all()
    with pytest.raises(PluginStopError, match="unload raised ZeroDivisionError: unload"):
        await manager.stop_all()
    assert states(manager) == "a=stopped b=failed c=stopped"


@pytest.mark.parametrize("operation", ["start_plugin", "stop_plugin", "reload"])
async def test_d5_an_unknown_id_is_a_state_error_that_lists_the_known_ones(operation: str, log: Log) -> None:
    manager = await manager_of(Recorder("a", log))
    with pytest.raises(PluginStateError, match=r"no plugin 'x': add it first \(there are: a\)"):
        await getattr(manager, operation)("x")


# --- d 6: descriptors, removing, reloading ---


async def test_d6_a_descriptor_tells_state_times_and_reason_and_an_unknown_id_has_none(log: Log) -> None:
    before = datetime.now(timezone.utc)
    manager = await manager_of(Recorder("a", log, fails_in=("stop",)))
    loaded = await manager.get_plugin("a")
    assert loaded is not None
    assert (loaded.state, loaded.failed_reason) == (PluginState.LOADED, None)
    assert before <= loaded.loaded_at == loaded.last_state_change
    await manager.start_all()
    started = await manager.get_plugin("a")
    assert started is not None
    assert (started.state, started.loaded_at) == (PluginState.STARTED, loaded.loaded_at)
    assert started.last_state_change >= loaded.last_state_change
    with pytest.raises(PluginStopError):
        await manager.stop_plugin("a")
    failed = await manager.get_plugin("a")
    assert failed is not None
    assert (failed.state, failed.failed_reason) == (PluginState.FAILED, "stop raised ZeroDivisionError: stop")
    assert await manager.get_plugin("x") is None


async def test_d6_remove_stops_dependents_and_itself_unloads_and_unregisters(log: Log) -> None:
    manager, _ = await chain(log)
    await manager.start_all()
    log.clear()
    assert await manager.remove("b") is True
    assert log == ["stop c", "stop b", "unload b"]
    assert states(manager) == "a=started c=stopped"
    assert sorted(await manager.registry.get("things")) == ["a's thing", "c's thing"]
    assert await manager.get_plugin("b") is None
    assert await manager.remove("b") is False
    with pytest.raises(PluginResolutionError, match="'c' depends on 'b'"):
        await manager.start_plugin("c")


async def test_d6_what_was_never_started_is_unloaded_when_removed_and_nothing_is_unloaded_twice(log: Log) -> None:
    manager, _ = await chain(log)
    await manager.remove("c")
    assert log == ["unload c"]
    await manager.start_all()
    await manager.stop_all()
    log.clear()
    await manager.remove("b")
    assert log == []


async def test_d6_a_plugin_is_removed_even_if_its_hooks_and_undos_raise(log: Log) -> None:
    class Sticky(Recorder):
        def contribute(self, host: Host, ledger: Ledger) -> None:
            ledger.record("glue", fail_to_undo)
            super().contribute(host, ledger)

    manager = await manager_of(Sticky("a", log, fails_in=("stop", "unload")))
    await manager.start_all()
    with pytest.raises(PluginStopError, match=r"stop raised .*; and: .*unload raised .*; and: .*glue \(IndexError"):
        await manager.remove("a")
    assert manager.plugins() == []
    assert manager.points.get("things") == []


async def test_d6_unload_all_removes_everything_in_reverse(log: Log) -> None:
    manager, _ = await chain(log)
    await manager.start_all()
    log.clear()
    await manager.unload_all()
    assert log == ["stop c", "unload c", "stop b", "unload b", "stop a", "unload a"]
    assert manager.plugins() == []
    assert manager.points.get("things") == []


async def test_d6_detach_takes_back_at_once_what_was_never_started(log: Log) -> None:
    manager, _ = await chain(log)
    manager.detach("c")
    assert log == []
    assert sorted(manager.points.get("things")) == ["a's thing", "b's thing"]
    await manager.start_all()
    await manager.stop_all()
    with pytest.raises(PluginStateError, match=r"await remove\('a'\) instead"):
        manager.detach("a")
    with pytest.raises(PluginStateError, match="no plugin 'c'"):
        manager.detach("c")


async def test_d6_reload_unloads_dependents_first_and_restores_what_was_started(log: Log) -> None:
    manager, units = await chain(log)
    await manager.add(Recorder("alone", log))
    await manager.start_plugin("b")
    log.clear()
    await manager.reload("a", {"port": 2})
    assert log == ["unload c", "stop b", "unload b", "stop a", "unload a", "init a", "start a", "init b", "start b"]
    assert states(manager) == "a=started alone=loaded b=started c=loaded"
    assert (units["a"].host.configuration, units["b"].host.configuration) == ({"port": 2}, {})
    await manager.reload("a")
    assert units["a"].host.configuration == {"port": 2}
    assert sorted(manager.points.get("things")) == ["a's thing", "alone's thing", "b's thing", "c's thing"]


async def test_d6_reload_builds_a_decorated_class_anew_and_keeps_its_place() -> None:
    @plugin(id="built", version="1")
    class Built:
        @extension("p")
        class Thing: ...

    manager = PluginManager()
    await manager.add(Built, rank=1)
    await manager.add(Recorder("last", []), rank=2)
    (before,) = manager.points.get("p")
    await manager.reload("built")
    (after,) = manager.points.get("p")
    assert after is not before
    assert [one.plugin.id for one in manager.plugins()] == ["built", "last"]


async def test_d6_what_cannot_be_added_again_is_gone_and_the_others_are_back_but_not_started(log: Log) -> None:
    manager, units = await chain(log)
    await manager.start_all()
    units["b"].fails_in = {"contribute"}
    with pytest.raises(PluginLoadError, match=r"plugin 'b' is not there any more, since .*contribute") as raised:
        await manager.reload("b")
    assert isinstance(raised.value.others[0], PluginStartError)
    assert states(manager) == "a=started c=loaded"
    assert sorted(manager.points.get("things")) == ["a's thing", "c's thing"]


async def test_d6_what_cannot_be_started_again_is_failed_and_what_does_not_need_it_is_started(log: Log) -> None:
    manager, units = await chain(log)
    await manager.add(Recorder("d", log, "a"))
    await manager.start_all()
    units["b"].fails_in = {"start"}
    with pytest.raises(PluginStartError, match="plugin 'b' could not be started") as raised:
        await manager.reload("a")
    assert "'c' was not started: it depends on 'b', which is failed" in str(raised.value)
    assert states(manager) == "a=started b=failed c=loaded d=started"


# --- what runs in the background ---


async def test_d4_background_tasks_end_when_the_plugin_is_stopped_and_stop_still_sees_them(log: Log) -> None:
    class Serving(Recorder):
        async def start(self, task_group: TaskGroup) -> None:
            await task_group.start(self.serve)

        async def serve(self, *, task_status: TaskStatus[None]) -> None:
            task_status.started()
            try:
                await anyio.sleep_forever()
            finally:
                log.append("served")

    manager = await manager_of(Serving("a", log))
    await manager.start_all()
    await manager.stop_plugin("a")
    assert log == ["init a", "stop a", "served"]
    await manager.start_plugin("a")
    await manager.unload_all()
    assert log[3:] == ["init a", "stop a", "served", "unload a"]


async def test_d4_it_may_be_started_in_one_task_and_stopped_in_another(log: Log) -> None:
    manager, _ = await chain(log)
    for operation in (manager.start_all, manager.stop_all):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(operation)
    assert log[-2:] == ["stop a", "unload a"]


async def test_d4_a_context_that_start_enters_may_be_left_by_stop(log: Log) -> None:
    @asynccontextmanager
    async def context() -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            yield
            tasks.cancel_scope.cancel()
        log.append("left")

    class Holding(Recorder):
        async def start(self, task_group: TaskGroup) -> None:
            self.context = context()
            await self.context.__aenter__()

        async def stop(self) -> None:
            await self.context.__aexit__(None, None, None)

    manager = await manager_of(Holding("a", log))
    await manager.start_all()
    await manager.stop_all()
    assert log == ["init a", "left", "unload a"]


async def test_d5_operations_at_the_same_time_come_one_after_the_other(log: Log) -> None:
    manager, _ = await chain(log)
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(manager.start_all)
    assert len(log) == 6
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(manager.stop_all)
        tasks.start_soon(manager.remove, "a")
        tasks.start_soon(manager.unload_all)
    assert [entry for entry in log if entry.startswith("stop")] == ["stop c", "stop b", "stop a"]
    assert manager.plugins() == []


async def test_d5_a_background_task_that_raises_fails_its_plugin_and_stops_its_dependents(
    log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    manager, units = await chain(log)
    await manager.start_all()
    log.clear()
    units["b"].tasks.start_soon(units["b"].crash)
    await until(lambda: len(log) == 2)
    assert log == ["stop c", "stop b"]
    await manager.stop_plugin("b")  # waits until nothing of it runs
    assert states(manager) == "a=started b=failed c=stopped"
    assert reason(manager, "b") == "a background task raised ZeroDivisionError: crash"
    assert [record.name for record in caplog.records] == ["saga_engine.plugins.b"]
    assert caplog.records[0].exc_info is not None
    await manager.start_all()
    assert states(manager) == "a=started b=started c=started"


async def test_d5_the_next_operation_clears_up_after_a_crash_if_it_comes_first(log: Log) -> None:
    manager, units = await chain(log)
    await manager.start_all()
    log.clear()
    units["b"].tasks.start_soon(units["b"].crash)
    await until(lambda: reason(manager, "b"))
    await manager.start_all()
    assert log == ["stop c", "stop b", "init b", "start b", "init c", "start c"]
    assert states(manager) == "a=started b=started c=started"


async def test_d5_what_stop_raises_after_a_crash_is_logged_too(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    manager, units = await chain(log, b="stop")
    await manager.start_all()
    units["b"].tasks.start_soon(units["b"].crash)
    await until(lambda: len(caplog.records) == 2)
    assert "plugin b has failed, and: plugin 'b' did not end cleanly: stop raised" in caplog.text
    assert reason(manager, "b") == (
        "a background task raised ZeroDivisionError: crash; stop raised ZeroDivisionError: stop"
    )


async def test_d5_a_task_that_raises_while_its_plugin_starts_fails_the_start(log: Log) -> None:
    class Hasty(Recorder):
        async def start(self, task_group: TaskGroup) -> None:
            task_group.start_soon(self.crash)
            await anyio.sleep_forever()

    manager = await manager_of(Hasty("a", log))
    with pytest.raises(PluginStartError, match="a background task raised ZeroDivisionError: crash") as raised:
        await manager.start_all()
    assert raised.value.__cause__ is not None
    assert states(manager) == "a=failed"


async def test_d5_a_dependency_that_crashes_while_others_start_keeps_those_on_it_from_starting(log: Log) -> None:
    class WaitsForCrash(Recorder):
        async def start(self, task_group: TaskGroup) -> None:
            units["a"].tasks.start_soon(units["a"].crash)
            await until(lambda: reason(manager, "a"))

    manager, units = await chain(log)
    await manager.add(WaitsForCrash("aside", log))
    await manager.start_plugin("a")
    await manager.start_plugin("aside")
    await until(lambda: "stop a" in log)
    assert states(manager) == "a=failed aside=started b=loaded c=loaded"


async def test_d5_a_task_that_raises_when_it_is_cancelled_makes_the_stop_fail(log: Log) -> None:
    class Grumpy(Recorder):
        async def start(self, task_group: TaskGroup) -> None:
            await task_group.start(self.grumble)

        async def grumble(self, *, task_status: TaskStatus[None]) -> None:
            task_status.started()
            try:
                await anyio.sleep_forever()
            finally:
                raise ZeroDivisionError("grumble")

    manager = await manager_of(Grumpy("a", log))
    await manager.start_all()
    with pytest.raises(PluginStopError, match=r"a background task raised .*grumble"):
        await manager.stop_all()
    assert states(manager) == "a=failed"


@pytest.mark.parametrize("hook", ["start", "stop"])
async def test_d5_who_cancels_an_operation_cancels_the_hook_and_nothing_runs_afterwards(log: Log, hook: str) -> None:
    class Hanging(Recorder):
        async def start(self, task_group: TaskGroup) -> None:
            await self.hang("start")

        async def stop(self) -> None:
            await self.hang("stop")

        async def hang(self, where: str) -> None:
            self.note(where)
            try:
                if hook == where:
                    await anyio.sleep_forever()
            finally:
                log.append(f"{where} is over")

    manager = await manager_of(Hanging("a", log))
    if hook == "stop":
        await manager.start_all()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(getattr(manager, f"{hook}_all"))
        await until(lambda: f"{hook} a" in log)
        tasks.cancel_scope.cancel()
    assert log[-1] == f"{hook} is over"
    assert states(manager) == "a=failed"
    assert (reason(manager, "a") or "").startswith(f"its {hook} was interrupted (Cancelled")
    assert await manager.remove("a")


async def test_d5_an_operation_that_is_cancelled_while_it_waits_for_its_turn_does_nothing(log: Log) -> None:
    gate = anyio.Event()

    class Slow(Recorder):
        async def start(self, task_group: TaskGroup) -> None:
            await gate.wait()

    manager = await manager_of(Slow("a", log))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(manager.start_all)
        await until(lambda: "init a" in log)
        with anyio.move_on_after(0) as scope:
            await manager.unload_all()
        assert scope.cancelled_caught
        gate.set()
    assert states(manager) == "a=started"
    await manager.unload_all()


@pytest.mark.parametrize("hook", ["start", "unload"])
async def test_d5_a_hook_that_waits_for_its_manager_is_told_so_instead_of_hanging(log: Log, hook: str) -> None:
    @plugin(id="a", version="1")
    class Waits:
        async def start(self) -> None:
            await self.ask("start")

        async def unload(self) -> None:
            await self.ask("unload")

        async def ask(self, where: str) -> None:
            if where == hook:
                await manager.stop_all()

    manager = await manager_of(Waits)
    with pytest.raises(PluginError) as raised:
        await manager.start_all()
        await manager.stop_all()
    assert isinstance(raised.value.__cause__, PluginStateError)
    assert "do it in a background task" in str(raised.value)


async def test_d5_a_background_task_may_use_the_manager(log: Log) -> None:
    class Loads(Recorder):
        async def start(self, task_group: TaskGroup) -> None:
            task_group.start_soon(manager.start_plugin, "b")

    manager = await manager_of(Loads("a", log), Recorder("b", log))
    await manager.start_plugin("a")
    await until(lambda: "start b" in log)
    await manager.unload_all()


async def test_d5_a_plugin_that_exits_ends_itself_and_not_the_application(log: Log) -> None:
    class Quits(Recorder):
        async def start(self, task_group: TaskGroup) -> None:
            raise SystemExit(3)

    manager = await manager_of(Quits("a", log), Recorder("b", log))
    with pytest.raises(PluginStartError, match="start raised SystemExit: 3"):
        await manager.start_all()
    await manager.start_plugin("b")
    await manager.unload_all()


@pytest.mark.parametrize("exits", [True, False])
@pytest.mark.parametrize("hook", ["stop", "unload"])
async def test_d5_a_hook_that_exits_or_cancels_itself_keeps_no_other_plugin_from_ending(
    log: Log, hook: str, exits: bool, anyio_backend: str
) -> None:
    async def leave(self: Any) -> None:
        if not exits and anyio_backend == "asyncio":  # no task of trio can be cancelled by itself
            task = asyncio.ensure_future(asyncio.sleep(DEADLINE_S))
            task.cancel()
            await task
        raise SystemExit(3)

    manager = await manager_of(Recorder("a", log), type("Leaves", (Recorder,), {hook: leave})("b", log))
    await manager.start_all()
    log.clear()
    with pytest.raises(PluginStopError, match="plugin 'b' did not end cleanly"):
        await manager.unload_all()
    assert ("stop a" in log, "unload a" in log, manager.plugins()) == (True, True, [])


async def test_d5_a_background_task_that_exits_fails_its_plugin_and_the_loop_goes_on(log: Log) -> None:
    async def leave() -> None:
        raise SystemExit(3)

    class Leaves(Recorder):
        async def start(self, task_group: TaskGroup) -> None:
            task_group.start_soon(leave)

    manager = await manager_of(Leaves("a", log), Recorder("b", log))
    await manager.start_all()
    await until(lambda: manager.plugins()[0].state is PluginState.FAILED)
    assert "TaskInterrupted: it called sys.exit(3)" in str(manager.plugins()[0].failed_reason)
    assert manager.plugins()[1].state is PluginState.STARTED
    await manager.unload_all()


async def test_d5_a_reload_that_is_cancelled_loses_nobody(log: Log) -> None:
    class Slow(Recorder):
        async def unload(self) -> None:
            scope.cancel()
            await checkpoint()

    manager = await manager_of(Slow("a", log), Recorder("b", log, "a"))
    await manager.start_all()
    with anyio.CancelScope() as scope:
        await manager.reload("a")
    assert [held.plugin.id for held in manager.plugins()] == ["a", "b"]
    await manager.start_all()
    assert [held.state for held in manager.plugins()] == [PluginState.STARTED] * 2
    with anyio.CancelScope() as scope:
        await manager.unload_all()


def test_d5_another_event_loop_is_refused_while_plugins_are_started_and_welcome_afterwards(
    log: Log, anyio_backend: str
) -> None:
    async def use() -> None:
        manager, _ = await chain(log)
        await manager.start_all()
        await anyio.to_thread.run_sync(refused, manager)
        await manager.stop_all()
        await anyio.to_thread.run_sync(welcome, manager)

    def refused(manager: PluginManager) -> None:
        with pytest.raises(PluginStateError, match="another event loop uses these plugins"):
            anyio.run(manager.stop_all, backend=anyio_backend)

    def welcome(manager: PluginManager) -> None:
        async def restart() -> None:
            await manager.start_all()
            await manager.unload_all()

        anyio.run(restart, backend="trio" if anyio_backend == "asyncio" else "asyncio")

    anyio.run(use, backend=anyio_backend)
    assert log[-1] == "unload a"


def test_d5_plugins_that_are_started_when_their_event_loop_ends_are_failed_and_can_be_started_in_another(
    log: Log, anyio_backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    manager = PluginManager()
    manager.attach(Recorder("a", log))
    anyio.run(manager.start_all, backend=anyio_backend)
    (descriptor,) = manager.plugins()
    assert (descriptor.state, descriptor.failed_reason) == (PluginState.FAILED, "its event loop ended")
    assert "plugin a has failed: its event loop ended" in caplog.text

    async def again() -> None:
        await manager.start_all()
        await manager.stop_all()

    anyio.run(again, backend=anyio_backend)
    assert log == ["init a", "start a", "init a", "start a", "stop a", "unload a"]


def test_d5_on_asyncio_a_hook_that_awaits_something_cancelled_fails_its_plugin(log: Log) -> None:
    class Awaits(Recorder):
        async def start(self, task_group: TaskGroup) -> None:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            future.cancel()
            await future

    async def start() -> None:
        manager = await manager_of(Awaits("a", log))
        with pytest.raises(PluginStartError, match="start was cancelled"):
            await manager.start_all()
        assert states(manager) == "a=failed"

    asyncio.run(start())


# --- the ledger ---


def test_d6_a_ledger_takes_everything_back_in_reverse_even_if_some_undos_raise() -> None:
    undone: list[str] = []

    def fail() -> None:
        undone.append("fails")
        raise ZeroDivisionError("the reason")

    ledger = Ledger()
    ledger.record("first", lambda: undone.append("first"))
    ledger.record("middle", fail)
    ledger.record("last", lambda: undone.append("last"))
    assert ledger.entries() == ["first", "middle", "last"]
    with pytest.raises(
        UndoFailed, match=r"could not be taken back: middle \(ZeroDivisionError: the reason\)"
    ) as raised:
        ledger.undo_all()
    assert undone == ["last", "fails", "first"]
    assert [type(cause) for cause in raised.value.causes] == [ZeroDivisionError]
    ledger.undo_all()
    assert (len(undone), ledger.entries()) == (3, [])


def test_d6_what_is_registered_for_a_removed_plugin_is_taken_back_and_refused() -> None:
    undone: list[str] = []
    ledger = Ledger()
    ledger.undo_all()
    with pytest.raises(RegistrationClosed, match="late was registered for a plugin that is removed") as raised:
        ledger.record("late", lambda: undone.append("late"))
    assert isinstance(raised.value, RuntimeError)
    assert undone == ["late"]


# --- d 7: errors, and auto-configuration ---


def test_d7_the_errors_are_one_family_under_the_base_of_all_errors() -> None:
    family = (PluginLoadError, PluginStartError, PluginStopError, PluginStateError, PluginResolutionError)
    assert all(issubclass(kind, PluginError) for kind in family)
    assert issubclass(PluginError, SagaError)


@pytest.mark.parametrize("configuration", [{}, {"plugins": {}}, {"plugins": {"enabled": False}}])
def test_d7_without_configuration_nothing_is_bound(configuration: dict[str, Any]) -> None:
    container = Container([PluginsAutoConfiguration(configuration)])
    assert not container.is_bound("plugin_manager")
    assert not container.is_bound(PluginManager)


async def test_d7_where_plugins_are_enabled_all_share_one_registry_and_one_manager() -> None:
    class Wants:
        def __init__(self, plugin_manager: Any, other: PluginManager, registry: ExtensionRegistry) -> None:
            self.all = (plugin_manager, other, registry)

    container = Container([PluginsAutoConfiguration({"plugins": {"enabled": True}})]).bind_instance("client", "ours")
    manager, same, registry = container.get(Wants).all
    assert manager is same
    assert manager.registry is registry is container.get("extension_registry")
    unit = Recorder("a", [])
    await manager.add(unit)
    assert unit.host.container.get("client") == "ours"


@pytest.mark.parametrize(
    ("configuration", "told"),
    [
        ({"plugins": True}, "^plugins: True is no configuration"),
        ({"plugins": {"enabled": "yes"}}, r"^plugins\.enabled: 'yes' is neither true nor false"),
    ],
)
def test_d7_a_wrong_configuration_is_an_error_that_tells_where(configuration: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        PluginsAutoConfiguration(configuration)


@pytest.mark.parametrize("operation", ["stop_plugin", "remove", "reload", "stop_all", "unload_all"])
async def test_a_background_task_that_waits_for_the_end_of_its_own_plugin_is_told_so(operation: str) -> None:
    manager = PluginManager()
    is_started, is_told = anyio.Event(), anyio.Event()
    told: list[PluginStateError] = []

    async def end_itself() -> None:
        await is_started.wait()
        ends = getattr(manager, operation)
        try:
            await (ends() if operation.endswith("_all") else ends("base"))
        except PluginStateError as error:
            told.append(error)
        is_told.set()

    @plugin(id="base", version="1")
    class Base:
        pass

    @plugin(id="restless", version="1", depends_on=["base"])
    class Restless:
        async def start(self, task_group: TaskGroup) -> None:
            task_group.start_soon(end_itself)

    manager.attach(Base)
    manager.attach(Restless)
    await manager.start_all()
    is_started.set()
    with anyio.fail_after(DEADLINE_S):
        await is_told.wait()
        await manager.unload_all()
    assert "'restless' cannot wait until that is stopped" in str(told[0])
