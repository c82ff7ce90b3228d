"""Plugins of an engine: what they contribute to sagas, what they are asked and told, and how they begin and end."""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, ClassVar

import anyio
import pytest
from click.testing import CliRunner
from connect.eaas.core.responses import BackgroundResponse
from sagas import World, saga_of

from saga_engine import Engine, Saga, SagaContext, SagaStatus, default_engine
from saga_engine.cli import main
from saga_engine.errors import BadDefinition, BadJournalURL, JournalError, NotAllowed
from saga_engine.extensions import ExtensionBase, PluginStartError, extension, plugin
from saga_engine.extensions.errors import ConfigError, ModuleFailure, OperationDenied, PluginLoadError
from saga_engine.journals import open_journal
from saga_engine.narration import standing_lines
from saga_engine.services import BindingConflict, ServiceProvider
from saga_engine.testing import ManualClock
from transactions import BackgroundTransaction, RetryPolicy

LIMIT_S = 30.0
seen: list[str] = []


@pytest.fixture(autouse=True)
def nothing_seen() -> None:
    """Let each test see its own things only."""
    seen.clear()


class Told:
    """Callbacks of one name, which note what they are told."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.arrived = threading.Event()

    async def __call__(self, *values: Any) -> None:
        self.calls.append(values)
        self.arrived.set()


class Ship(BackgroundTransaction):
    def __init__(self, carrier: str, context: SagaContext) -> None:
        self.carrier, self.context = carrier, context

    def execute(self, request: dict[str, Any]) -> BackgroundResponse:
        seen.append(f"shipped by {self.carrier}")
        if request.get("waits") and not self.context.state.setdefault("has_waited", False):
            self.context.state["has_waited"] = True
            return BackgroundResponse.reschedule(60)
        return BackgroundResponse.done()


@plugin(id="shop", version="1.2")
class Shop:
    """A plugin that gives a saga, and all that it needs."""

    @extension(point="sagas")
    class ShopSaga(Saga):
        def transactions(self, request: dict[str, Any]) -> list[Any]:
            return [Ship]

    @extension(point="service_providers")
    class Carriers(ServiceProvider):
        def provide_carrier(self, client: Any) -> str:
            return f"the carrier of {client}"

    @extension(point="middlewares")
    def around(self, request: dict[str, Any], nxt: Any) -> BackgroundResponse:
        seen.append("before")
        response: BackgroundResponse = nxt(request)
        return response

    async def start(self) -> None:
        seen.append("started")

    async def stop(self) -> None:
        seen.append("stopped")


# --- what they contribute ---


def test_a_plugin_gives_a_saga_its_services_and_its_middlewares_and_lives_as_long_as_the_engine() -> None:
    with Engine("memory://", config={}, client="Connect", plugins=[Shop]) as engine:
        assert seen == []
        assert Shop.ShopSaga.make(engine=engine).resolve({"id": "PR-1"}).status == "success"
        assert seen == ["started", "before", "shipped by the carrier of Connect"]
    assert seen[-1] == "stopped"


def test_a_worker_starts_the_plugins_though_there_is_nothing_to_do(tmp_path: Path) -> None:
    runs = threading.Event()

    class Poller(ExtensionBase):
        async def run(self) -> None:
            runs.set()

    with Engine(f"sqlite:///{tmp_path / 'saga.db'}", config={}, plugins=[Shop], extensions={"one": Poller}) as engine:
        worker = threading.Thread(target=engine.run, daemon=True)
        worker.start()
        assert runs.wait(LIMIT_S)
        while worker.is_alive():  # it may not have begun to work: then there is nothing to stop yet
            engine.stop()
            worker.join(0.01)
    assert seen == ["started", "stopped"]


def test_a_worker_whose_plugin_cannot_be_started_does_not_begin() -> None:
    @plugin(id="broken", version="1")
    class Broken:
        async def start(self) -> None:
            raise OSError("no network")

    with Engine("memory://", config={}, plugins=[Broken]) as engine, pytest.raises(PluginStartError, match="network"):
        engine.run()


@pytest.mark.anyio
@pytest.mark.parametrize("is_begun", [False, True])
async def test_plugins_are_started_stopped_reloaded_and_removed_from_any_event_loop(is_begun: bool) -> None:
    async with AsyncExitStack() as stack:
        engine = stack.enter_context(Engine("memory://", config={}, client="Connect", plugins=[Shop]))
        if is_begun:
            await anyio.to_thread.run_sync(engine.start_plugins)
        else:
            await engine.plugins.start_plugin("shop")
        saga_id = engine.start(Shop.ShopSaga, {"id": "PR-1"})
        assert (await anyio.to_thread.run_sync(engine.wait, saga_id)).status == "success"
        await engine.plugins.reload("shop")
        await engine.plugins.stop_plugin("shop")
        await engine.plugins.start_all()
        assert await engine.plugins.remove("shop")
    assert [one for one in seen if one in ("started", "stopped")] == ["started", "stopped"] * 3


def test_a_hook_that_calls_the_engine_on_its_own_loop_is_refused_at_once() -> None:
    @plugin(id="hasty", version="1")
    class Hasty:
        def __init__(self, engine: Engine) -> None:
            self.engine = engine

        async def start(self) -> None:
            for call in (lambda: self.engine.start(Shop.ShopSaga, {"id": "PR-1"}), self.engine.close):
                with pytest.raises(NotAllowed, match="thread"):
                    call()
            seen.append("refused")

    with Engine("memory://", config={}, plugins=[Hasty]) as engine:
        engine.start_plugins()
    assert seen == ["refused"]


@pytest.mark.parametrize("exits", [True, False])
def test_a_callback_that_exits_or_cancels_itself_ends_nothing_but_itself(
    exits: bool, caplog: pytest.LogCaptureFixture
) -> None:
    told = Told()

    async def leave(record: Any) -> None:
        if exits:
            raise SystemExit(3)
        task = asyncio.ensure_future(asyncio.sleep(LIMIT_S))
        task.cancel()
        await task

    with Engine("memory://", config={}) as engine:
        engine.module_api().register_saga_callbacks(on_saga_completed=leave)
        engine.module_api().register_saga_callbacks(on_saga_completed=told)
        for number in range(3):
            saga_of(World().step("a")).make(engine=engine).resolve({"id": f"PR-{number}"})
    assert len(told.calls) == 3
    assert "TaskInterrupted" in caplog.text


@pytest.mark.parametrize("name", ["client", "logger", "request", "context"])
def test_what_the_engine_gives_itself_cannot_be_provided(name: str) -> None:
    provider = type("Own", (ServiceProvider,), {f"provide_{name}": lambda self: "mine"})
    with pytest.raises(BindingConflict, match=rf"Own.provide_{name} provides '{name}', which the engine gives itself"):
        Engine("memory://", config={}, plugins=[provider])

    class Provided(saga_of(World().step("a"))):  # type: ignore[misc]
        providers: ClassVar[dict[str, Any]] = {"own": provider}

        def transactions(self, request: dict[str, Any]) -> list[Any]:
            return [Ship]

    with Engine("memory://", config={}) as engine, pytest.raises(BindingConflict, match="which the engine gives"):
        Provided.make(engine=engine).resolve({"id": "PR-1"})


def test_two_sagas_of_one_name_are_refused() -> None:
    other = type("ShopSaga", (Saga,), {"transactions": lambda self, request: [Ship]})
    second = plugin(id="second", version="1")(type("Second", (), {"Saga": extension(point="sagas")(other)}))
    for given in (
        {"plugins": [Shop, second]},
        {"plugins": [Shop], "sagas": [other]},
        {"sagas": [Shop.ShopSaga, other]},
    ):
        with pytest.raises(BadDefinition, match="are two sagas of one name"):
            Engine("memory://", config={}, **given)
    Engine("memory://", config={}, plugins=[Shop], sagas=[Shop.ShopSaga]).close()


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"plugins": "audit"}, BadDefinition),
        ({"plugins": object()}, BadDefinition),
        ({"plugins": [("audit", {}, 3)]}, PluginLoadError),
        ({"plugins": [(Shop, 5)]}, PluginLoadError),
        ({"extensions": ["poller"]}, BadDefinition),
        ({"modules": {"module": "a.B"}}, BadDefinition),
    ],
)
def test_what_is_no_list_of_plugins_is_refused(given: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match="give"):
        Engine("memory://", config={}, **given)


def test_a_ctrl_c_while_plugins_stop_goes_on_when_all_is_given_back(tmp_path: Path) -> None:
    @plugin(id="slow", version="1")
    class Slow:
        async def stop(self) -> None:
            raise KeyboardInterrupt

    engine = Engine(f"sqlite:///{tmp_path / 'saga.db'}", config={}, plugins=[Slow])
    engine.start_plugins()
    with pytest.raises(KeyboardInterrupt):
        engine.close()
    with pytest.raises(JournalError, match="closed"):
        engine.journal.header("ShopSaga:PR-1")


def test_a_closed_engine_starts_no_plugins() -> None:
    engine = Engine("memory://", config={}, plugins=[Shop])
    engine.close()
    with pytest.raises(NotAllowed, match="closed"):
        engine.run()
    assert seen == []


def test_a_middleware_of_a_plugin_is_outside_those_of_the_saga() -> None:
    class Wrapped(Shop.ShopSaga):
        def middlewares(self, request: dict[str, Any]) -> list[Any]:
            def inside(request: dict[str, Any], nxt: Any) -> Any:
                seen.append("inside")
                return nxt(request)

            return [inside]

    with Engine("memory://", config={}, client="Connect", plugins=[Shop]) as engine:
        Wrapped.make(engine=engine).resolve({"id": "PR-1"})
    assert seen == ["started", "before", "inside", "shipped by the carrier of Connect", "stopped"]


def test_a_service_of_the_saga_itself_goes_before_one_of_a_plugin() -> None:
    class Own(ServiceProvider):
        def provide_carrier(self) -> str:
            return "its own carrier"

    class Provided(Shop.ShopSaga):
        providers: ClassVar[dict[str, Any]] = {"carriers": Own}

    with Engine("memory://", config={}, client="Connect", plugins=[Shop]) as engine:
        Provided.make(engine=engine).resolve({"id": "PR-1"})
    assert "shipped by its own carrier" in seen


@pytest.mark.anyio
async def test_an_async_delivery_finds_the_plugins_started_too() -> None:
    with Engine("memory://", config={}, client="Connect", plugins=[Shop]) as engine:
        response = await Shop.ShopSaga.make(engine=engine).aresolve({"id": "PR-1"})
    assert response.status == "success"
    assert seen == ["started", "before", "shipped by the carrier of Connect", "stopped"]


def test_an_execution_records_the_plugin_and_the_version_that_gave_its_saga() -> None:
    with Engine("memory://", config={}, client="Connect", plugins=[Shop]) as engine:
        Shop.ShopSaga.make(engine=engine).resolve({"id": "PR-1"})
        saga_of(World().step("a")).make(engine=engine).resolve({"id": "PR-1"})
        of_plugin, of_nobody = engine.get("ShopSaga:PR-1"), engine.get("Order:PR-1")
    assert (of_plugin.plugin, of_plugin.plugin_version) == ("shop", "1.2")
    assert "its saga came with the plugin shop 1.2" in standing_lines(of_plugin)
    assert (of_nobody.plugin, of_nobody.plugin_version) == (None, None)


def test_recovery_refuses_an_execution_whose_plugin_is_missing_and_goes_on_when_it_is_back(tmp_path: Path) -> None:
    url, clock = f"sqlite:///{tmp_path / 'saga.db'}", ManualClock()
    with Engine(url, config={}, client="Connect", plugins=[Shop], clock=clock) as engine:
        assert Shop.ShopSaga.make(engine=engine).resolve({"id": "PR-1", "waits": True}).status == "reschedule"
    clock.advance(60)
    with Engine(url, config={}, client="Connect", sagas=[Shop.ShopSaga], clock=clock) as engine:
        recovered = engine.recover()
        assert (int(recovered), recovered.left_alone) == (0, 1)
        assert "'shop' 1.2, which is not here" in recovered.reasons["ShopSaga:PR-1"]
        answer = Shop.ShopSaga.make(engine=engine).resolve({"id": "PR-1", "waits": True})
        assert (answer.status, answer.countdown) == ("reschedule", 300)
    with Engine(url, config={}, client="Connect", plugins=[Shop], clock=clock) as engine:
        assert engine.recover() == 1
        assert engine.get("ShopSaga:PR-1").status is SagaStatus.COMPLETED


def test_a_saga_that_only_a_plugin_has_is_found_by_it_at_recovery(tmp_path: Path) -> None:
    def plugin_with_a_local_saga() -> type:
        class LocalSaga(Saga):
            def transactions(self, request: dict[str, Any]) -> list[Any]:
                return [Ship]

        made = plugin(id="local", version="1")(type("Local", (), {}))
        made.LocalSaga = extension(point="sagas")(LocalSaga)
        made.Carriers = Shop.Carriers
        return made

    url, clock = f"sqlite:///{tmp_path / 'saga.db'}", ManualClock()
    first = plugin_with_a_local_saga()
    with Engine(url, config={}, client="Connect", plugins=[first], clock=clock) as engine:
        first.LocalSaga.make(engine=engine).resolve({"id": "PR-1", "waits": True})
    clock.advance(60)
    with Engine(url, config={}, client="Connect", plugins=[plugin_with_a_local_saga()], clock=clock) as engine:
        assert engine.recover() == 1


def test_a_plugin_opens_the_journal_of_its_scheme() -> None:
    @plugin(id="vault", version="1")
    class Vault:
        @extension(point="journals")
        class Opener:
            scheme = "vault"

            def open(self, url: str) -> Any:
                seen.append(url)
                return open_journal("memory://")

    with Engine("vault://orders", config={}, plugins=[Vault]) as engine:
        world = World()
        assert saga_of(world.step("a")).make(engine=engine).resolve({"id": "PR-1"}).status == "success"
    assert seen == ["vault://orders"]
    with pytest.raises(BadJournalURL, match="names no journal"):
        Engine("nobody://orders", config={}, plugins=[Vault])


# --- beginning and ending ---


def test_a_plugin_that_cannot_start_keeps_everything_from_being_driven_and_is_tried_again() -> None:
    @plugin(id="moody", version="1")
    class Moody:
        async def start(self) -> None:
            seen.append("tried")
            if len(seen) < 2:
                raise ConnectionError("not yet")

    world = World()
    with Engine("memory://", config={}, plugins=[Moody]) as engine:
        saga = saga_of(world.step("a"))
        with pytest.raises(PluginStartError, match="not yet"):
            saga.make(engine=engine).resolve({"id": "PR-1"})
        assert world.executed == []
        assert saga.make(engine=engine).resolve({"id": "PR-1"}).status == "success"


def test_a_start_that_waits_for_an_execution_is_told_what_to_do_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("saga_engine.plugging._START_WAIT_S", 0.1)
    saga = saga_of(World().step("a"))

    @plugin(id="eager", version="1")
    class Eager:
        def __init__(self, engine: Engine) -> None:
            self.engine = engine

        async def start(self) -> None:
            await anyio.to_thread.run_sync(lambda: saga.make(engine=self.engine).resolve({"id": "PR-1"}))

    with (
        Engine("memory://", config={}, plugins=[Eager]) as engine,
        pytest.raises(PluginStartError, match="begin a background task which does"),
    ):
        engine.start_plugins()


def test_what_a_plugin_raises_at_its_stop_is_logged_and_ends_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    @plugin(id="sulky", version="1")
    class Sulky:
        async def stop(self) -> None:
            raise RuntimeError("no")

    with Engine("memory://", config={}, plugins=[Sulky, Shop]) as engine:
        engine.plugins.points.get("sagas")
        Shop.ShopSaga.make(client="Connect", engine=engine).resolve({"id": "PR-1"})
    assert "stopped" in seen
    assert "RuntimeError: no" in caplog.text


def test_a_plugin_that_cannot_be_added_leaves_no_open_journal_behind(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'saga.db'}"
    with pytest.raises(PluginLoadError, match="is no plugin"):
        Engine(url, plugins=[World])
    with pytest.raises(PluginLoadError, match="no_such_module"):
        Engine(url, plugins=["no_such_module:Plugin"])
    with pytest.raises(PluginLoadError, match="announces a plugin 'nobody'"):
        Engine(url, plugins=["nobody"])


def test_plugins_are_named_by_module_and_class_and_have_their_configurations() -> None:
    name = f"{__name__}:Configured"
    with Engine("memory://", config={"REGION": "eu"}, plugins=[(name, {"speed": 3})]) as engine:
        assert [held.plugin.id for held in engine.plugins.plugins()] == ["configured"]
    assert seen == ["eu 3"]


@plugin(id="configured", version="1")
class Configured:
    """A plugin that is given a variable of the engine, and its own configuration."""

    def __init__(self, region: str, configuration: dict[str, Any]) -> None:
        seen.append(f"{region} {configuration['speed']}")


class Poller(ExtensionBase[Engine]):
    """An extension with a task in the background."""

    async def run(self, app: Engine, configuration: dict[str, Any], log: Any) -> None:
        seen.append(f"polls every {configuration['interval_s']} s for {type(app).__name__}")
        try:
            await anyio.sleep_forever()
        finally:
            seen.append("polls no more")


def test_an_extension_with_background_tasks_lives_as_long_as_the_engine_drives() -> None:
    world = World()
    with Engine("memory://", config={}, extensions={"poller": (Poller, {"interval_s": 5})}) as engine:
        saga_of(world.step("a")).make(engine=engine).resolve({"id": "PR-1"})
    assert seen == ["polls every 5 s for Engine", "polls no more"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_process_has_plugins_of_its_own(tmp_path: Path) -> None:
    with Engine(f"sqlite:///{tmp_path / 'saga.db'}", config={}, client="Connect", plugins=[Shop]) as engine:
        Shop.ShopSaga.make(engine=engine).resolve({"id": "PR-1"})
        child = os.fork()
        if child == 0:
            seen.clear()
            try:
                Shop.ShopSaga.make(engine=engine).resolve({"id": "PR-2"})
                os._exit(0 if seen == ["started", "before", "shipped by the carrier of Connect"] else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert engine.get("ShopSaga:PR-2").plugin == "shop"


# --- what they are asked ---


def test_a_callback_that_denies_a_start_keeps_the_saga_from_being_journaled() -> None:
    async def check(saga: str, saga_id: str, request: dict[str, Any]) -> str | None:
        request["seen"] = True
        return None if saga_id == "Order:PR-2" else f"{saga} is closed"

    world = World()
    with Engine("memory://", config={}) as engine:
        engine.module_api().register_saga_callbacks(check_saga_start=check)
        saga = saga_of(world.step("a"))
        with pytest.raises(OperationDenied, match="Order is closed"):
            saga.make(engine=engine).resolve({"id": "PR-1"})
        with pytest.raises(OperationDenied, match="Order is closed"):
            engine.start(saga, {"id": "PR-1"})
        assert engine.search() == []
        assert saga.make(engine=engine).resolve({"id": "PR-2"}).status == "success"
        assert engine.get("Order:PR-2").request == {"id": "PR-2"}


@pytest.mark.anyio
async def test_a_denied_start_is_told_to_an_async_caller_while_its_loop_goes_on() -> None:
    reached, go = threading.Event(), threading.Event()

    async def check(saga: str, saga_id: str, request: dict[str, Any]) -> bool:
        reached.set()
        return not await anyio.to_thread.run_sync(go.wait, LIMIT_S)

    with Engine("memory://", config={}) as engine:
        engine.module_api().register_saga_callbacks(check_saga_start=check)
        delivery = asyncio.create_task(saga_of(World().step("a")).make(engine=engine).aresolve({"id": "PR-1"}))
        assert await anyio.to_thread.run_sync(reached.wait, LIMIT_S)
        go.set()
        with pytest.raises(OperationDenied):
            await delivery


def test_a_callback_that_raises_neither_allows_nor_denies_a_start() -> None:
    async def check(saga: str, saga_id: str, request: dict[str, Any]) -> None:
        raise LookupError("no idea")

    with Engine("memory://", config={}) as engine:
        engine.module_api().register_saga_callbacks(check_saga_start=check)
        with pytest.raises(ModuleFailure, match="LookupError: no idea"):
            saga_of(World().step("a")).make(engine=engine).resolve({"id": "PR-1"})
        assert engine.search() == []


@pytest.mark.parametrize("is_async", [False, True])
def test_S8_a_denied_step_is_refused_and_what_was_done_before_is_undone(is_async: bool) -> None:
    async def check(saga_id: str, step: str, request: dict[str, Any]) -> str | None:
        return f"{step} of {saga_id} is not allowed" if step == "b" else None

    world = World()
    with Engine("memory://", config={}) as engine:
        engine.module_api().register_step_callbacks(check_step=check)
        saga = saga_of(world.step("a"), world.step("b"), world.step("c")).make(engine=engine)
        response = asyncio.run(saga.aresolve({"id": "PR-1"})) if is_async else saga.resolve({"id": "PR-1"})
        record = engine.get("Order:PR-1")
    assert response.status == "fail"
    assert "b of Order:PR-1 is not allowed" in response.output
    assert (world.executed, world.undone) == (["a"], ["a"])
    assert record.status is SagaStatus.COMPENSATED


def test_a_check_of_a_step_that_raises_is_a_failed_attempt_which_is_tried_again() -> None:
    tries: list[str] = []

    async def check(saga_id: str, step: str, request: dict[str, Any]) -> None:
        tries.append(step)
        if len(tries) == 1:
            raise ConnectionError("away")

    world = World()
    with Engine("memory://", config={}, clock=ManualClock()) as engine:
        engine.module_api().register_step_callbacks(check_step=check)
        step = world.step("a", retry=RetryPolicy())
        assert saga_of(step).make(engine=engine).resolve({"id": "PR-1"}).status == "success"
        assert [found.attempts for found in engine.get("Order:PR-1").steps] == [2]
    assert world.executed == ["a"]


@pytest.mark.parametrize(
    ("action", "act"),
    [
        ("signal", lambda engine: engine.signal("Order:PR-1", "go")),
        ("cancel", lambda engine: engine.cancel("Order:PR-1", "not wanted", who="ann")),
        ("resume", lambda engine: engine.resume("Order:PR-1", who="ann")),
        ("skip", lambda engine: engine.skip("Order:PR-1", "a", who="ann")),
        ("resolve", lambda engine: engine.resolve_parked("Order:PR-1", "a", note="", who="ann")),
        ("edit", lambda engine: engine.edit_state("Order:PR-1", {"x": 1}, who="ann")),
        ("undo", lambda engine: engine.undo("Order:PR-1", who="ann")),
    ],
)
def test_a_denied_action_of_a_person_changes_nothing(action: str, act: Any) -> None:
    asked: list[tuple[str, str, str]] = []

    async def check(action: str, saga_id: str, who: str) -> bool:
        asked.append((action, saga_id, who))
        return False

    world = World()
    with Engine("memory://", config={}, clock=ManualClock()) as engine:
        saga_of(world.step("a", BackgroundResponse.reschedule(60))).make(engine=engine).resolve({"id": "PR-1"})
        before = engine.history("Order:PR-1")
        engine.module_api().register_operator_callbacks(check_operator_action=check)
        with pytest.raises(OperationDenied, match="check_operator_action"):
            act(engine)
        assert engine.history("Order:PR-1") == before
    assert asked == [(action, "Order:PR-1", "" if action == "signal" else "ann")]


# --- what they are told ---


def test_callbacks_are_told_of_failed_steps_and_of_how_executions_end() -> None:
    failed, completed, compensated, parked = Told(), Told(), Told(), Told()
    world = World()
    with Engine("memory://", config={}, clock=ManualClock()) as engine:
        api = engine.module_api()
        api.register_step_callbacks(on_step_failed=_async(failed))
        api.register_saga_callbacks(
            on_saga_completed=_async(completed), on_saga_compensated=_async(compensated), on_saga_parked=_async(parked)
        )
        good = saga_of(world.step("a"))
        bad = saga_of(world.step("a"), world.step("b", ValueError("broken")), name="Bad")
        stuck = saga_of(
            ("a", lambda _: True, lambda _: BackgroundResponse.done()), world.step("b", ValueError()), name="S"
        )
        for saga in (good, bad, stuck):
            saga.make(engine=engine).resolve({"id": "PR-1"})
    assert [(saga_id, step, repr(error)) for saga_id, step, error in failed.calls] == [
        ("Bad:PR-1", "b", "ValueError('broken')"),
        ("S:PR-1", "b", "ValueError()"),
    ]
    assert [record.saga_id for (record,) in completed.calls] == ["Order:PR-1"]
    assert [record.saga_id for (record,) in compensated.calls] == ["Bad:PR-1"]
    assert [record.status for (record,) in parked.calls] == [SagaStatus.PARKED]


def _async(told: Told) -> Any:
    async def callback(*values: Any) -> None:
        await told(*values)

    return callback


def test_a_callback_that_raises_when_it_is_told_is_logged_and_the_others_are_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def broken(record: Any) -> None:
        raise LookupError("no idea")

    told = Told()
    with Engine("memory://", config={}) as engine:
        engine.module_api().register_saga_callbacks(on_saga_completed=broken)
        engine.module_api().register_saga_callbacks(on_saga_completed=_async(told))
        saga_of(World().step("a")).make(engine=engine).resolve({"id": "PR-1"})
    assert len(told.calls) == 1
    assert "LookupError: no idea" in caplog.text


def test_a_callback_may_call_the_engine_in_a_thread_and_is_told_so_if_it_does_not() -> None:
    outcomes: list[Any] = []

    async def completed(record: Any) -> None:
        try:
            api_engine.cancel(record.saga_id, "too late")
        except NotAllowed as error:
            outcomes.append(str(error))
        outcomes.append(await anyio.to_thread.run_sync(lambda: api_engine.get(record.saga_id).status))

    async def allow(action: str, saga_id: str, who: str) -> None:
        """Allow it; that there is somebody to ask is what matters here."""

    with Engine("memory://", config={}) as api_engine:
        api_engine.module_api().register_saga_callbacks(on_saga_completed=completed)
        api_engine.module_api().register_operator_callbacks(check_operator_action=allow)
        saga_of(World().step("a")).make(engine=api_engine).resolve({"id": "PR-1"})
    assert outcomes[0].endswith("call the engine in a thread, by await anyio.to_thread.run_sync(...)")
    assert outcomes[1] is SagaStatus.COMPLETED


# --- the configuration file ---


class Prices:
    """A module that notes what it is configured with."""

    def __init__(self, config: dict[str, Any], api: Any) -> None:
        seen.append(f"prices in {config['currency']}")


_TOML = """
journal = "sqlite:///{journal}"
[variables]
REGION = "eu"
[plugins]
enabled = {enabled}
load = [{{ plugin = "{module}:Configured", config = {{ speed = 3 }} }}]
[extensions.poller]
extension = "{module}:Poller"
interval_s = 5
[[modules]]
module = "{module}.Prices"
config = {{ currency = "EUR" }}
"""

_YAML = """
journal: "sqlite:///{journal}"
variables: {{REGION: eu}}
plugins:
  enabled: {enabled}
  load: [{{plugin: "{module}:Configured", config: {{speed: 3}}}}]
extensions:
  poller: {{extension: "{module}:Poller", interval_s: 5}}
modules: [{{module: "{module}.Prices", config: {{currency: EUR}}}}]
"""


def written(folder: Path, text: str, name: str = "saga.toml", enabled: str = "true") -> Path:
    """Write a configuration file that names what is in this module."""
    file = folder / name
    file.write_text(text.format(journal=folder / "saga.db", module=__name__, enabled=enabled), "utf-8")
    return file


@pytest.mark.parametrize(("name", "text"), [("saga.toml", _TOML), ("saga.yaml", _YAML)])
def test_an_engine_is_made_as_a_file_says(name: str, text: str, tmp_path: Path) -> None:
    with Engine.from_file(written(tmp_path, text, name)) as engine:
        assert saga_of(World().step("a")).make(engine=engine).resolve({"id": "PR-1"}).status == "success"
        assert engine.journal.url == f"sqlite:///{tmp_path / 'saga.db'}"
    assert seen == ["eu 3", "prices in EUR", "polls every 5 s for Engine", "polls no more"]


def test_d7_nothing_is_loaded_unless_the_configuration_enables_plugins(tmp_path: Path) -> None:
    with Engine.from_file(written(tmp_path, _TOML, enabled="false")) as engine:
        saga_of(World().step("a")).make(engine=engine).resolve({"id": "PR-1"})
    assert seen == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("journals = 1", "unknown: journals; known are journal, variables"),
        ("journal = 1", "journal: 1 is no journal"),
        ("variables = 1", "variables: 1 is no table"),
        ("plugins = true", "plugins"),
        ("[plugins]\nenabled = 'yes'", "plugins.enabled"),
        ("[plugins]\nenabled = true\nload = 1", "plugins.load: 1 is no list"),
        ("[plugins]\nenabled = true\nload = [1]", "plugins.load.<item 0>: 1 is no plugin"),
        ("[plugins]\nenabled = true\nload = [{plugin = 'a:B', cfg = 1}]", "plugins.load.<item 0>: unknown: cfg"),
        ("[plugins]\nenabled = true\ndiscover = 1", "plugins.discover: 1 is neither"),
        ("modules = 1\n[plugins]\nenabled = true", "modules: 1 is no list"),
        ("extensions = 1\n[plugins]\nenabled = true", "extensions: 1 is no table"),
        ("[plugins]\nload = ['a:B']", r"plugins.enabled: \[plugins\] is not loaded: write true, or false"),
        ("[[modules]]\nmodule = 'a.B'", r"plugins.enabled: \[modules\] is not loaded"),
        ("[extensions.a]\n[plugins]", r"plugins.enabled: \[extensions\] is not loaded"),
        ("= 1", "is no TOML"),
    ],
)
def test_what_a_file_says_wrong_is_told_with_its_place(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "saga.toml"
    file.write_text(text, "utf-8")
    with pytest.raises(ConfigError, match=message):
        Engine.from_file(file)


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        Engine.from_file(tmp_path / "none.toml")
    (tmp_path / "saga.ini").write_text("", "utf-8")
    with pytest.raises(ConfigError, match="nobody knows that format"):
        Engine.from_file(tmp_path / "saga.ini")


def test_the_engine_of_the_process_has_the_plugins_of_the_file_that_saga_config_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saga_engine.engine._engines", {})
    monkeypatch.delenv("SAGA_JOURNAL_URL", raising=False)
    config = {"SAGA_CONFIG": str(written(tmp_path, _TOML))}
    with default_engine(config) as engine:
        assert default_engine(config) is engine
        assert engine.journal.url == f"sqlite:///{tmp_path / 'saga.db'}"
        assert "configured" in [held.plugin.id for held in engine.plugins.plugins()]
    with default_engine({**config, "SAGA_JOURNAL_URL": "memory://"}) as other:
        assert other.journal.url == "memory://"


def test_the_command_line_takes_journal_plugins_and_modules_from_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SAGA_JOURNAL_URL", raising=False)
    request = tmp_path / "request.json"
    request.write_text('{"id": "PR-1"}', "utf-8")
    file = written(tmp_path, _TOML.replace(":Configured", ":Shop"))
    run = CliRunner().invoke(main, ["--config", str(file), "run", f"{__name__}:Shop.ShopSaga", str(request)])
    assert run.exit_code == 0, run.output
    assert seen[-3:] == ["shipped by the carrier of None", "polls no more", "stopped"]
    show = CliRunner().invoke(main, ["--config", str(file), "show", "ShopSaga:PR-1"])
    assert "its saga came with the plugin shop 1.2" in show.output
    nothing = CliRunner().invoke(main, ["worker"])
    assert (nothing.exit_code, "name a TARGET, or by --config a file whose plugins" in nothing.output) == (2, True)
    broken = CliRunner().invoke(main, ["--config", str(tmp_path / "none.toml"), "list"])
    assert (broken.exit_code, "cannot be read" in broken.output) == (2, True)
