"""Modules, their web resources, their callbacks and their cached functions (SEEDS e)."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from contextlib import asynccontextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import anyio
import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import NoMatchFound, Route

from saga_engine.extensions.cached import cached
from saga_engine.extensions.callbacks import CallbackKind, CallbackPolicy, Callbacks
from saga_engine.extensions.errors import (
    ConfigError,
    InvalidationsUnsupported,
    ModuleFailure,
    NotCached,
    NotConforming,
    OperationDenied,
    RegistrationClosed,
    ReservedName,
    UnknownRegistration,
)
from saga_engine.extensions.ledger import Ledger
from saga_engine.extensions.manager import PluginManager
from saga_engine.extensions.module_api import ModuleApi
from saga_engine.extensions.modules import ModuleUnit, load_modules
from saga_engine.extensions.plugin import Plugin
from saga_engine.extensions.points import Points
from saga_engine.extensions.unit import Host
from saga_engine.extensions.web import web_application
from saga_engine.journals import open_journal
from saga_engine.services.container import Container
from transactions import SagaError

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Every async test here runs on both."""
    return str(request.param)


@pytest.fixture
def manager() -> PluginManager:
    """A manager without an engine."""
    return PluginManager()


@pytest.fixture
def points(manager: PluginManager) -> Points:
    """Its extension points."""
    return manager.points


@pytest.fixture
def callbacks(points: Points) -> Callbacks:
    """Calls the callbacks that are contributed there."""
    return Callbacks(points)


def api_of(points: Points, plugin_id: str = "a.Module", rank: int = 0, engine: Any = None) -> ModuleApi:
    """Make the API of one module."""
    plugin = Plugin(plugin_id, "1")
    return ModuleApi(Host(plugin, points, Container(), logging.getLogger(plugin_id), engine, rank=rank), Ledger())


class Recording:
    """A module that keeps what it was built with, and does with the API what the configuration says."""

    built: list[tuple[Any, ModuleApi]]

    def __init__(self, config: Any, api: ModuleApi) -> None:
        self.built.append((config, api))
        action: Callable[[ModuleApi], None] | None = config.get("action") if isinstance(config, dict) else None
        if action is not None:
            action(api)


class Parsing(Recording):
    """The same with a `parse_config`, which changes the configuration in place."""

    parsed: list[Any]

    @staticmethod
    def parse_config(config: dict[str, Any]) -> Any:
        Parsing.parsed.append(dict(config))
        days = config.pop("keep", "0d")
        if not str(days).endswith("d"):
            raise ConfigError(f"keep is {days!r}: write days, such as 5d", ("keep",))
        config["keep_s"] = int(str(days)[:-1]) * 86_400
        return config


@pytest.fixture(autouse=True)
def _forget_what_was_built() -> None:
    Recording.built = []
    Parsing.parsed = []


@pytest.fixture
def importable() -> Iterator[str]:
    """The name of a Python module in which these classes can be found."""
    name = "modules_of_the_test"
    made = ModuleType(name)
    vars(made).update(Recording=Recording, Parsing=Parsing, number=42)
    sys.modules[name] = made
    yield name
    del sys.modules[name]


# --- e 1: configuration -------------------------------------------------------------------------------------------


def test_e1_modules_are_built_from_the_classes_that_the_configuration_names_in_its_order(
    manager: PluginManager, importable: str
) -> None:
    ids = load_modules(
        [
            {"module": f"{importable}.Parsing", "config": {"keep": "5d"}},
            {"module": f"{importable}.Recording", "config": {"a": 1}},
            {"module": Recording},
        ],
        manager,
    )
    here = __name__
    assert ids == [f"{here}.Parsing", f"{here}.Recording", f"{here}.Recording#2"]
    assert [config for config, _ in Recording.built] == [{"keep_s": 432_000}, {"a": 1}, {}]
    assert all(isinstance(api, ModuleApi) for _, api in Recording.built)


def test_e1_without_parse_config_the_raw_configuration_is_given_and_none_is_an_empty_one(
    manager: PluginManager,
) -> None:
    load_modules([{"module": Recording, "config": None}, {"module": Parsing, "config": None}], manager)
    assert [config for config, _ in Recording.built] == [{}, {"keep_s": 0}]
    assert Parsing.parsed == [{}]


def test_e1_no_modules_are_no_error(manager: PluginManager) -> None:
    assert load_modules(None, manager) == []
    assert load_modules([], manager) == []


def test_e1_a_config_error_of_a_module_aborts_before_any_is_built_and_tells_the_path(manager: PluginManager) -> None:
    with pytest.raises(ConfigError) as caught:
        load_modules([{"module": Recording}, {"module": Parsing, "config": {"keep": "5h"}}], manager)
    assert str(caught.value) == "modules.<item 1>.config.keep: keep is '5h': write days, such as 5d"
    assert caught.value.path == ("modules", "<item 1>", "config", "keep")
    assert isinstance(caught.value.__cause__, ConfigError)
    assert isinstance(caught.value, SagaError)
    assert Recording.built == []
    assert manager.plugins() == []


def test_e1_a_parse_config_that_is_no_plain_static_method_is_refused(manager: PluginManager) -> None:
    class Bound:
        def parse_config(self, config: dict[str, Any]) -> Any: ...

    class Async:
        @staticmethod
        async def parse_config(config: dict[str, Any]) -> Any: ...

    for module, told in ((Bound, "put @staticmethod above it"), (Async, "is async: make it a plain method")):
        with pytest.raises(ConfigError, match=told):
            load_modules([{"module": module}], manager)


def test_e1_any_other_exception_of_parse_config_becomes_a_config_error_with_its_cause(manager: PluginManager) -> None:
    wanted = r"^modules\.<item 0>\.config: .*Parsing\.parse_config raised ValueError"
    with pytest.raises(ConfigError, match=wanted) as caught:
        load_modules([{"module": Parsing, "config": {"keep": "some d"}}], manager)
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.parametrize(
    ("items", "path", "told"),
    [
        ({"module": "a.B"}, "modules", "give a list"),
        ("a.B", "modules", "give a list"),
        (["a.B"], "modules.<item 0>", "is no module"),
        ([{"modul": "a.B"}], "modules.<item 0>", "unknown: modul"),
        ([{"config": {}}], "modules.<item 0>.module", "None names no class"),
        ([{"module": "NoDot"}], "modules.<item 0>.module", "'NoDot' names no class"),
        ([{"module": "no_such_file.Class"}], "modules.<item 0>.module", "ModuleNotFoundError"),
        ([{"module": "modules_of_the_test.Missing"}], "modules.<item 0>.module", "no attribute 'Missing'"),
        ([{"module": "modules_of_the_test.number"}], "modules.<item 0>.module", "which is no class"),
        ([{"module": Recording}, {"module": Recording, "config": [1]}], "modules.<item 1>.config", "is no dict"),
    ],
)
def test_e1_each_slip_in_the_configuration_is_a_config_error_that_tells_the_place(
    manager: PluginManager, importable: str, items: Any, path: str, told: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_modules(items, manager)
    assert ".".join(caught.value.path) == path
    assert told in caught.value.message
    assert Recording.built == []


def test_e1_a_config_error_of_a_constructor_tells_the_path_too(manager: PluginManager) -> None:
    class Strict:
        def __init__(self, config: Any, api: ModuleApi) -> None:
            raise ConfigError("no such server", ("server",))

    with pytest.raises(ConfigError, match=r"^modules\.<item 0>\.config\.server: no such server$"):
        load_modules([{"module": Strict}], manager)


def test_e1_what_a_constructor_raises_goes_through_and_nothing_of_any_module_is_left(
    manager: PluginManager, points: Points
) -> None:
    class Broken:
        def __init__(self, config: Any, api: ModuleApi) -> None:
            api.register_saga_callbacks(check_saga_start=nobody)
            raise OSError("no network")

    def register(api: ModuleApi) -> None:
        api.register_web_resource("/hello", page("hello"))

    with pytest.raises(OSError, match="no network"):
        load_modules([{"module": Recording, "config": {"action": register}}, {"module": Broken}], manager)
    assert manager.plugins() == []
    assert points.get("callbacks") == points.get("web_resources") == []


async def test_e1_a_removed_module_leaves_nothing_and_a_reloaded_one_is_parsed_and_built_anew(
    manager: PluginManager, points: Points
) -> None:
    (plugin_id,) = load_modules([{"module": Parsing, "config": {"keep": "1d"}}], manager)
    await manager.reload(plugin_id)
    await manager.reload(plugin_id, {"keep": "2d"})
    assert Parsing.parsed == [{"keep": "1d"}, {"keep": "1d"}, {"keep": "2d"}]
    assert [config["keep_s"] for config, _ in Recording.built] == [86_400, 86_400, 172_800]
    Recording.built[2][1].register_step_callbacks(check_step=nobody)
    assert len(points.get("callbacks")) == 1
    assert await manager.remove(plugin_id)
    assert points.get("callbacks") == []
    with pytest.raises(RegistrationClosed):
        Recording.built[2][1].register_step_callbacks(check_step=nobody)
    assert points.get("callbacks") == []


def test_e1_a_second_list_of_modules_adds_to_the_first(manager: PluginManager) -> None:
    ids = [load_modules([{"module": Recording}], manager) for _ in range(2)]
    assert ids == [[f"{__name__}.Recording"], [f"{__name__}.Recording#2"]]


def test_e1_modules_follow_the_plugins_that_come_first_in_the_configuration(
    manager: PluginManager, points: Points
) -> None:
    def register(api: ModuleApi) -> None:
        api.register_step_callbacks(check_step=nobody)

    load_modules([{"module": Recording, "config": {"action": register}}] * 2, manager, rank=5)
    assert [each.rank for each in points.contributions("callbacks")] == [5, 6]


def test_e1_a_module_has_its_version_and_can_be_added_without_a_file(manager: PluginManager) -> None:
    class Versioned(Recording):
        version = "2.1"

    plugin_id = manager.attach(ModuleUnit(Versioned, {"a": 1}), {"a": 1})
    descriptor = next(each for each in manager.plugins() if each.plugin.id == plugin_id)
    assert descriptor.plugin.version == "2.1"
    assert Recording.built[0][0] == {"a": 1}


def test_e1_a_module_logs_under_the_name_of_its_plugin_and_sees_the_engine(points: Points) -> None:
    engine = SimpleNamespace()
    api = api_of(points, "a.Module", engine=engine)
    assert api.logger.name == "a.Module"
    assert api.engine is engine
    assert api_of(points).engine is None


# --- e 2: web resources -------------------------------------------------------------------------------------------


def page(text: str) -> Starlette:
    """An app with two pages: its root, and one below it, which shows the paths that it sees."""

    async def root(request: Request) -> PlainTextResponse:
        return PlainTextResponse(text)

    async def below(request: Request) -> PlainTextResponse:
        return PlainTextResponse(f"{text} {request.scope['root_path']} {request.url.path}")

    return Starlette(routes=[Route("/", root, methods=["GET", "POST"]), Route("/below", below)])


@asynccontextmanager
async def client(app: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Talk to an app without a socket."""
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://saga.test") as made:
        yield made


async def test_e2_a_registered_app_is_served_under_its_path_and_below_without_a_redirection(points: Points) -> None:
    api_of(points).register_web_resource("/_saga/client/my_module/say_hello", page("hello"))
    async with client(web_application(points)) as http:
        for path in ("/_saga/client/my_module/say_hello", "/_saga/client/my_module/say_hello/"):
            answer = await http.get(path)
            assert (answer.status_code, answer.text) == (200, "hello")
        answer = await http.get("/_saga/client/my_module/say_hello/below")
        told = "/_saga/client/my_module/say_hello"
        assert answer.text == f"hello {told} {told}/below"
        assert (await http.post("/_saga/client/my_module/say_hello")).text == "hello"
        assert (await http.get("/_saga/client/my_module/say_hello_again")).status_code == 404
        assert (await http.get("/_saga/client/my_module")).status_code == 404


async def test_e2_any_asgi_function_will_do_and_the_longest_path_serves(points: Points) -> None:
    async def plain(scope: Any, receive: Any, send: Any) -> None:
        await PlainTextResponse(f"plain {scope['root_path']}")(scope, receive, send)

    api_of(points).register_web_resource("/a", page("short"))
    api_of(points).register_web_resource("/a/b/", plain)
    async with client(web_application(points)) as http:
        assert (await http.get("/a/b/c")).text == "plain /a/b"
        assert (await http.get("/a/below")).text == "short /a /a/below"


async def test_e2_of_two_resources_of_one_path_the_first_module_of_the_configuration_serves(
    manager: PluginManager, points: Points, caplog: pytest.LogCaptureFixture
) -> None:
    def registers(text: str) -> dict[str, Any]:
        return {"action": lambda api: api.register_web_resource("/hello", page(text))}

    first, second = load_modules([{"module": Recording, "config": registers(text)} for text in ("1", "2")], manager)
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        f"/hello of {second} is not served: {first} serves that path"
    ]
    app = web_application(points)
    async with client(app) as http:
        assert (await http.get("/hello")).text == "1"
        await manager.reload(first)
        assert (await http.get("/hello")).text == "1"
        await manager.remove(first)
        assert (await http.get("/hello")).text == "2"
        await manager.remove(second)
        assert (await http.get("/hello")).status_code == 404
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 2, "one for each time that the resource was registered beside another"


def test_e2_a_module_that_comes_first_but_registers_last_serves_and_the_other_is_told(
    points: Points, caplog: pytest.LogCaptureFixture
) -> None:
    api_of(points, "late", rank=2).register_web_resource("/hello", page("late"))
    api_of(points, "early", rank=1).register_web_resource("/hello", page("early"))
    assert caplog.messages == ["/hello of late is not served: early serves that path"]


def test_e2_a_web_resource_after_the_constructor_is_a_runtime_error(manager: PluginManager) -> None:
    load_modules([{"module": Recording}], manager)
    with pytest.raises(RegistrationClosed, match="register it in the module's __init__") as caught:
        Recording.built[0][1].register_web_resource("/late", page("late"))
    assert isinstance(caught.value, RuntimeError)


@pytest.mark.parametrize(
    "path", ["/", "/_saga", "/_saga/", "/_saga/engine/x", "/api", "/api/v1", "/health", "/static/app.js"]
)
def test_e2_the_engines_own_namespaces_are_refused(points: Points, path: str) -> None:
    with pytest.raises(ReservedName, match="below /_saga/client"):
        api_of(points).register_web_resource(path, page("mine"))
    assert points.get("web_resources") == []


def test_e2_names_that_only_begin_like_a_reserved_one_are_free(points: Points) -> None:
    for path in ("/apis", "/_sagas/x", "/x/api", "/_saga/client/x"):
        api_of(points).register_web_resource(path, page("mine"))


@pytest.mark.parametrize("path", ["hello", "/a//b", "/a/../b", "/a/{b}", "/a?b", "/a b", "/a%2Fb", 42, None])
def test_e2_what_is_no_full_path_is_refused(points: Points, path: Any) -> None:
    with pytest.raises(NotConforming, match=r"path|served"):
        api_of(points).register_web_resource(path, page("mine"))


@pytest.mark.parametrize("app", [None, "app", lambda scope: None, object()])
def test_e2_what_is_no_asgi_app_is_refused(points: Points, app: Any) -> None:
    with pytest.raises(NotConforming, match="is no ASGI app"):
        api_of(points).register_web_resource("/hello", app)


async def test_e2_a_resource_that_fails_answers_500_and_the_log_names_its_plugin(
    points: Points, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise OSError("no disk")

    api_of(points, "a.Module").register_web_resource("/hello", broken)
    async with client(web_application(points)) as http:
        assert (await http.get("/hello")).status_code == 500
    assert "the web resource /hello of a.Module failed" in caplog.messages


async def test_e2_the_engines_own_routes_come_first_and_a_mounted_application_keeps_its_place(points: Points) -> None:
    async def own(request: Request) -> PlainTextResponse:
        return PlainTextResponse("the engine's")

    api_of(points).register_web_resource("/hello", page("module"))
    inner = web_application(points, [Route("/hello/below", own)])
    outer = Starlette()
    outer.mount("/saga", inner)
    async with client(outer) as http:
        assert (await http.get("/saga/hello/below")).text == "the engine's"
        assert (await http.get("/saga/hello")).text == "module"


async def test_e2_plugins_contribute_resources_too_and_a_wrong_one_is_logged(
    points: Points, caplog: pytest.LogCaptureFixture
) -> None:
    class Page:
        path = "/plugin"

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await PlainTextResponse("plugin")(scope, receive, send)

    wrong = Page()
    wrong.path = "/api/mine"
    points.contribute("web_resources", wrong)
    points.contribute("web_resources", SimpleNamespace(path="/no_app"))
    points.contribute("web_resources", Page())
    points.contribute("web_resources", Page())
    async with client(web_application(points)) as http:
        assert (await http.get("/plugin")).text == "plugin"
        assert (await http.get("/api/mine")).status_code == 404
        assert (await http.get("/no_app")).status_code == 404
    assert caplog.messages[0].startswith("a web resource of no plugin is not served: /api/mine")
    assert caplog.messages[1].startswith("a web resource of no plugin is not served: /no_app")
    assert caplog.messages[2:] == ["/plugin of no plugin is not served: no plugin serves that path"]


def test_e2_resources_have_no_names_that_urls_are_made_from(points: Points) -> None:
    api_of(points).register_web_resource("/hello", page("hello"))
    with pytest.raises(NoMatchFound):
        web_application(points).url_path_for("hello")


async def test_e2_websockets_reach_the_resource_and_lifespans_do_not(points: Points) -> None:
    kinds: list[str] = []

    async def note(scope: Any, receive: Any, send: Any) -> None:
        kinds.append(scope["type"])

    async def receive() -> MutableMapping[str, Any]:
        return lifespan.pop(0)

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message["type"])

    sent: list[str] = []
    lifespan: list[MutableMapping[str, Any]] = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    api_of(points).register_web_resource("/echo", note)
    app = web_application(points)
    await app({"type": "lifespan", "app": app, "state": {}}, receive, send)
    await app({"type": "websocket", "path": "/echo", "headers": []}, receive, send)
    assert kinds == ["websocket"]
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


# --- e 3: callbacks -----------------------------------------------------------------------------------------------


async def nobody(*arguments: Any) -> None:
    """Have no opinion."""


def answers(told: list[str], name: str, answer: Any = None) -> Callable[..., Awaitable[Any]]:
    """Make a callback that notes its name and answers, or raises, the same each time."""

    async def callback(*arguments: Any) -> Any:
        told.append(name)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    return callback


START = {"saga": "Purchase", "saga_id": "Purchase:PR-1", "request": {"id": "PR-1"}}


async def test_e3_each_category_takes_any_subset_of_its_callbacks_and_each_is_given_what_is_documented(
    points: Points, callbacks: Callbacks
) -> None:
    seen: list[tuple[Any, ...]] = []

    async def see(*arguments: Any) -> None:
        seen.append(arguments)

    api = api_of(points)
    api.register_saga_callbacks(check_saga_start=see, on_saga_completed=see)
    api.register_saga_callbacks(on_saga_compensated=see, on_saga_parked=see)
    api.register_step_callbacks(check_step=see, on_step_failed=see)
    api.register_operator_callbacks(check_operator_action=see)
    error = OSError("down")
    await callbacks.check("check_saga_start", **START)
    await callbacks.notify("on_saga_completed", record="completed")
    await callbacks.notify("on_saga_compensated", record="compensated")
    await callbacks.notify("on_saga_parked", record="parked")
    await callbacks.check("check_step", saga_id="Purchase:PR-1", step="Buy", request={})
    await callbacks.notify("on_step_failed", saga_id="Purchase:PR-1", step="Buy", error=error)
    await callbacks.check("check_operator_action", action="cancel", saga_id="Purchase:PR-1", who="ada")
    assert seen == [
        ("Purchase", "Purchase:PR-1", {"id": "PR-1"}),
        ("completed",),
        ("compensated",),
        ("parked",),
        ("Purchase:PR-1", "Buy", {}),
        ("Purchase:PR-1", "Buy", error),
        ("cancel", "Purchase:PR-1", "ada"),
    ]


async def test_e3_nobody_who_is_asked_denies_nothing(callbacks: Callbacks) -> None:
    await callbacks.check("check_saga_start", **START)
    await callbacks.notify("on_saga_completed", record=None)
    assert not callbacks.has("check_saga_start")


@pytest.mark.parametrize(("answer", "reason"), [("too expensive", "too expensive"), (False, ""), ("", "")])
async def test_e3_the_first_denial_stops_the_operation_and_later_callbacks_are_not_asked(
    points: Points, callbacks: Callbacks, answer: Any, reason: str
) -> None:
    told: list[str] = []
    api_of(points, "last", rank=3).register_saga_callbacks(check_saga_start=answers(told, "last", "never asked"))
    api_of(points, "first", rank=1).register_saga_callbacks(check_saga_start=answers(told, "first", True))
    api_of(points, "second", rank=2).register_saga_callbacks(check_saga_start=answers(told, "second", answer))
    with pytest.raises(OperationDenied, match="the callback check_saga_start of second denied it") as caught:
        await callbacks.check("check_saga_start", **START)
    denied = caught.value
    assert (denied.callback, denied.plugin, denied.reason) == ("check_saga_start", "second", reason)
    assert told == ["first", "second"]


async def test_e3_a_check_that_raises_fails_the_operation_and_is_neither_allow_nor_deny(
    points: Points, callbacks: Callbacks
) -> None:
    told: list[str] = []
    api_of(points, "broken").register_step_callbacks(check_step=answers(told, "broken", OSError("no network")))
    api_of(points, "later").register_step_callbacks(check_step=answers(told, "later"))
    with pytest.raises(ModuleFailure, match="check_step of broken raised OSError: no network") as caught:
        await callbacks.check("check_step", saga_id="a", step="b", request={})
    assert isinstance(caught.value.__cause__, OSError)
    assert not isinstance(caught.value, OperationDenied)
    assert told == ["broken"]


@pytest.mark.parametrize("answer", [0, 1, [], {"deny": True}, OperationDenied("no")])
async def test_e3_an_answer_that_is_none_is_a_failure_of_the_module(
    points: Points, callbacks: Callbacks, answer: Any
) -> None:
    api_of(points, "broken").register_step_callbacks(check_step=answers([], "broken", answer))
    with pytest.raises(ModuleFailure, match="the callback check_step of broken"):
        await callbacks.check("check_step", saga_id="a", step="b", request={})


async def test_e3_all_are_told_and_one_that_raises_is_logged_with_its_plugin(
    points: Points, callbacks: Callbacks, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str] = []
    api_of(points, "broken").register_saga_callbacks(on_saga_parked=answers(told, "broken", OSError("no network")))
    api_of(points, "later").register_saga_callbacks(on_saga_parked=answers(told, "later", "an answer"))
    await callbacks.notify("on_saga_parked", record=None)
    assert told == ["broken", "later"]
    assert caplog.messages == [
        "the callback on_saga_parked of broken raised OSError: no network; the saga is not affected"
    ]
    assert caplog.records[0].exc_info is not None
    assert isinstance(caplog.records[0].exc_info[1], OSError)


async def test_e3_a_plugin_adds_a_category_whose_first_answer_counts(points: Points, callbacks: Callbacks) -> None:
    kind = CallbackKind("find_account", "account", ("customer",), CallbackPolicy.FIRST_ANSWER)
    undo = points.contribute("callback_kinds", kind)
    told: list[str] = []
    for name, answer in (("a", None), ("b", "B-1"), ("c", "C-1")):
        api_of(points, name).register_account_callbacks(find_account=answers(told, name, answer))
    assert await callbacks.ask("find_account", customer="ada") == "B-1"
    assert told == ["a", "b"]
    undo()
    with pytest.raises(UnknownRegistration, match="find_account"):
        await callbacks.ask("find_account", customer="ada")


async def test_e3_nobody_who_answers_gives_none(points: Points, callbacks: Callbacks) -> None:
    points.contribute("callback_kinds", CallbackKind("find", "account", (), CallbackPolicy.FIRST_ANSWER))
    assert await callbacks.ask("find") is None


def test_e3_the_engines_own_kinds_cannot_be_replaced(points: Points, callbacks: Callbacks) -> None:
    points.contribute("callback_kinds", CallbackKind("check_step", "mine", (), CallbackPolicy.FIRST_ANSWER))
    with pytest.raises(UnknownRegistration, match="no mine callbacks"):
        api_of(points).register_mine_callbacks(check_step=nobody)


async def test_e3_a_callback_gets_a_copy_of_the_request(points: Points, callbacks: Callbacks) -> None:
    async def meddle(saga: str, saga_id: str, request: dict[str, Any]) -> None:
        request["items"].append("mine")

    request: dict[str, Any] = {"items": []}
    api_of(points).register_saga_callbacks(check_saga_start=meddle)
    await callbacks.check("check_saga_start", saga="a", saga_id="b", request=request)
    assert request == {"items": []}


async def test_e3_a_callback_that_takes_too_long_is_a_failure_but_its_own_timeout_is_an_exception(
    points: Points,
) -> None:
    quick = Callbacks(points, timeout_s=0.01)

    async def forever(*arguments: Any) -> None:
        await anyio.sleep_forever()

    api = api_of(points, "slow")
    api.register_step_callbacks(check_step=forever)
    with pytest.raises(ModuleFailure, match=r"check_step of slow took longer than 0\.01 s"):
        await quick.check("check_step", saga_id="a", step="b", request={})
    api.register_operator_callbacks(check_operator_action=answers([], "late", TimeoutError("asked too long")))
    with pytest.raises(ModuleFailure, match="raised TimeoutError: asked too long"):
        await quick.check("check_operator_action", action="a", saga_id="b", who="c")


async def test_e3_whoever_is_cancelled_while_a_callback_runs_is_cancelled(points: Points, callbacks: Callbacks) -> None:
    begun: list[int] = []

    async def forever(*arguments: Any) -> None:
        begun.append(1)
        await anyio.sleep_forever()

    api_of(points).register_saga_callbacks(on_saga_parked=forever)
    is_over = False
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: callbacks.notify("on_saga_parked", record=None))
            await anyio.wait_all_tasks_blocked()
            scope.cancel()
        is_over = True
    assert begun == [1]
    assert scope.cancelled_caught
    assert not is_over


async def test_e3_objects_with_callbacks_are_contributed_by_plugins_and_one_without_any_is_warned_of(
    points: Points, callbacks: Callbacks, caplog: pytest.LogCaptureFixture
) -> None:
    class Watching:
        async def check_step(self, saga_id: str, step: str, request: dict[str, Any]) -> str:
            return "not today"

    class Mistyped:
        async def on_saga_complete(self, record: Any) -> None:
            """Never called."""

    points.contribute("callbacks", Watching())
    points.contribute("callbacks", Mistyped())
    for _ in range(2):
        with pytest.raises(OperationDenied, match="not today"):
            await callbacks.check("check_step", saga_id="a", step="b", request={})
    assert len(caplog.messages) == 1
    assert "Mistyped" in caplog.messages[0]
    assert "on_saga_completed" in caplog.messages[0]


async def test_e3_the_object_of_a_plugin_whose_callback_is_not_async_fails_the_operation(
    points: Points, callbacks: Callbacks
) -> None:
    points.contribute("callbacks", SimpleNamespace(check_step=lambda saga_id, step, request: None))
    with pytest.raises(ModuleFailure, match="check_step of no plugin raised TypeError"):
        await callbacks.check("check_step", saga_id="a", step="b", request={})


def test_e3_a_thread_without_an_event_loop_asks_and_tells_too(points: Points, callbacks: Callbacks) -> None:
    told: list[str] = []
    points.contribute("callback_kinds", CallbackKind("find", "account", (), CallbackPolicy.FIRST_ANSWER))
    callbacks.check_plainly("check_saga_start", **START)
    assert callbacks.ask_plainly("find") is None
    api = api_of(points)
    api.register_saga_callbacks(check_saga_start=answers(told, "check", "no"), on_saga_parked=answers(told, "on"))
    api.register_account_callbacks(find=answers(told, "find", "A-1"))
    with pytest.raises(OperationDenied):
        callbacks.check_plainly("check_saga_start", **START)
    callbacks.notify_plainly("on_saga_parked", record=None)
    assert callbacks.ask_plainly("find") == "A-1"
    assert told == ["check", "on", "find"]


def test_e3_a_thread_needs_no_event_loop_where_nobody_is_asked_or_told(points: Points) -> None:
    def refuse(coroutine: Any) -> None:
        raise AssertionError("an event loop was asked for")

    callbacks = Callbacks(points, await_plainly=refuse)
    callbacks.check_plainly("check_saga_start", **START)
    callbacks.notify_plainly("on_saga_parked", record=None)
    assert callbacks.ask_plainly("find_account", customer="ada") is None


def test_e3_a_thread_without_an_event_loop_uses_the_one_that_it_is_given(points: Points) -> None:
    threads: list[str] = []

    async def note(*arguments: Any) -> None:
        threads.append(threading.current_thread().name)

    def run(coroutine: Any) -> Any:
        async def wait() -> Any:
            return await coroutine

        thread = threading.Thread(target=anyio.run, args=[wait], name="the engine's loop")
        thread.start()
        thread.join()

    api_of(points).register_saga_callbacks(on_saga_parked=note)
    Callbacks(points, await_plainly=run).notify_plainly("on_saga_parked", record=None)
    assert threads == ["the engine's loop"]


async def test_e3_a_kind_or_an_argument_that_there_is_not_is_an_error(callbacks: Callbacks) -> None:
    with pytest.raises(UnknownRegistration, match="check_nothing"):
        await callbacks.check("check_nothing")
    with pytest.raises(UnknownRegistration, match="on_saga_parked"):
        await callbacks.check("on_saga_parked", record=None)
    with pytest.raises(NotConforming, match="is given record, not records"):
        await callbacks.notify("on_saga_parked", records=None)


class Plain:
    """Something that can be called, but not awaited."""

    def __call__(self, saga_id: str, step: str, request: dict[str, Any]) -> None:
        """Never called."""


@pytest.mark.parametrize("callback", [lambda saga_id, step, request: None, "text", Plain()])
def test_e3_a_callback_that_is_not_async_is_refused(points: Points, callback: Any) -> None:
    with pytest.raises(NotConforming, match="async def"):
        api_of(points).register_step_callbacks(check_step=callback)
    assert points.get("callbacks") == []


def test_e3_a_callback_with_other_parameters_is_refused_and_nothing_of_the_call_is_registered(points: Points) -> None:
    async def short(saga_id: str) -> None:
        """Never called."""

    with pytest.raises(NotConforming, match=r"check_step cannot be called with \(saga_id, step, request\)"):
        api_of(points).register_step_callbacks(on_step_failed=nobody, check_step=short)
    assert points.get("callbacks") == []


def test_e3_an_object_with_an_async_call_is_a_callback(points: Points) -> None:
    class Check:
        async def __call__(self, saga_id: str, step: str, request: dict[str, Any]) -> None:
            """Allow."""

    api_of(points).register_step_callbacks(check_step=Check())
    assert len(points.get("callbacks")) == 1


# --- e 4: cached functions ----------------------------------------------------------------------------------------


class Directory:
    """The module of the seed document, with what it needs to run: its slips are named in the test below."""

    def __init__(self, config: Any, api: ModuleApi) -> None:
        self.api = api
        self.asked: list[str] = []
        self.api.register_cached_function(self.get_department)

    @cached()
    async def get_department(self, user_id: str) -> str:
        self.asked.append(user_id)
        return f"department {len(self.asked)}"


async def test_e4_a_module_registers_its_cached_function_and_invalidates_one_key_or_all(points: Points) -> None:
    directory = Directory({}, api_of(points))
    for _ in range(2):
        assert await directory.get_department("ada") == "department 1"
    await directory.get_department("bob")
    await directory.api.invalidate_cache(directory.get_department, ("ada",))
    assert await directory.get_department("ada") == "department 3"
    assert await directory.get_department("bob") == "department 2"
    await directory.api.invalidate_all(directory.get_department)
    assert await directory.get_department("bob") == "department 4"


async def test_e4_a_removed_module_has_its_functions_no_longer_registered(manager: PluginManager) -> None:
    made: list[Any] = []

    class Module:
        def __init__(self, config: Any, api: ModuleApi) -> None:
            self.api = api
            api.register_cached_function(self.ask)
            made.append(self)

        @cached()
        async def ask(self) -> None:
            """Never called."""

    (plugin_id,) = load_modules([{"module": Module}], manager)
    await made[0].api.invalidate_all(made[0].ask)
    await manager.remove(plugin_id)
    with pytest.raises(NotCached, match="register_cached_function"):
        await made[0].api.invalidate_all(made[0].ask)


def test_e4_a_function_without_a_cache_cannot_be_registered(points: Points) -> None:
    with pytest.raises(NotCached, match=r"@cached\(\)"):
        api_of(points).register_cached_function(nobody)


def test_e4_the_engines_journal_passes_invalidations_on_or_the_registration_says_that_it_cannot(
    points: Points,
) -> None:
    journal = open_journal("memory://")
    Directory({}, api_of(points, engine=SimpleNamespace(journal=journal)))
    journal.close()
    with pytest.raises(InvalidationsUnsupported, match="other://"):
        Directory({}, api_of(points, engine=SimpleNamespace(journal=SimpleNamespace(url="other://"))))
    with pytest.raises(InvalidationsUnsupported, match="not open yet"):
        Directory({}, api_of(points, engine=SimpleNamespace()))


# --- e 5: what is not there ---------------------------------------------------------------------------------------


def test_e5_registering_callbacks_of_a_category_that_there_is_not_is_an_attribute_error(points: Points) -> None:
    with pytest.raises(UnknownRegistration, match="no spam_checker callbacks: the categories are operator") as caught:
        api_of(points).register_spam_checker_callbacks(check_event_for_spam=nobody)
    assert isinstance(caught.value, AttributeError)


def test_e5_registering_a_callback_that_there_is_not_is_an_attribute_error_that_names_it(points: Points) -> None:
    for value in (nobody, None):
        with pytest.raises(
            UnknownRegistration, match="no saga callback 'on_saga_finished': known are check_saga_start"
        ):
            api_of(points).register_saga_callbacks(on_saga_finished=value)


def test_e5_asking_the_api_for_what_there_is_not_is_an_attribute_error_that_names_it(points: Points) -> None:
    with pytest.raises(AttributeError, match="ModuleApi has no 'get_userinfo_by_id'"):
        api_of(points).get_userinfo_by_id("ada")
    assert not hasattr(api_of(points), "http_client")


# --- the example of the seed document -----------------------------------------------------------------------------

EXAMPLE = '''
from typing import Any
from saga_engine.extensions import cached, ModuleApi  # changed: the import line

class MyModule:
    def __init__(self, config: Any, api: ModuleApi):
        self.api = api

        # Register the cached function so Synapse knows how to correctly invalidate
        # entries for it.
        self.api.register_cached_function(self.get_user_from_id)

    @cached()
    async def get_department_for_user(self, user_id: str) -> str:
        """A function with a cache."""
        # Request a department from an external service.
        return await self.http_client.get_json(
            "https://int.example.com/users", {"user_id": user_id)
        )["department"]

    async def do_something_with_users(self) -> None:
        """Calls the cached function and then invalidates an entry in its cache."""

        user_id = "@alice:example.com"

        # Get the user. Since get_department_for_user is wrapped with a cache,
        # the return value for this user_id will be cached.
        department = await self.get_department_for_user(user_id)

        # Do something with `department`...

        # Let's say something has changed with our user, and the entry we have for
        # them in the cache is out of date, so we want to invalidate it.
        await self.api.invalidate_cache(self.get_department_for_user, (user_id,))
'''

#: The slips of the example: a bracket that closes a dict, an await that is applied to the item instead of the answer,
#: and the registration of a method that is not there.
BRACKET = ('": user_id)', '": user_id}')
AWAIT = (("await self.http_client", "(await self.http_client"), (')["department"]', '))["department"]'))
REGISTRATION = ("self.get_user_from_id", "self.get_department_for_user")


def example_with(*slips: tuple[str, str]) -> Any:
    """Give the example's class after some of its slips were put right."""
    text = EXAMPLE
    for wrong, right in slips:
        assert text.count(wrong) == 1
        text = text.replace(wrong, right)
    namespace: dict[str, Any] = {"__name__": "example"}
    exec(text, namespace)
    return namespace["MyModule"]


class HttpClient:
    """Stands for the client that the example does not show where it has from."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, str]]] = []

    async def get_json(self, url: str, arguments: dict[str, str]) -> dict[str, str]:
        self.calls.append((url, arguments))
        return {"department": f"department {len(self.calls)}"}


def test_e5_the_example_as_written_registers_a_method_that_is_not_there_which_is_an_attribute_error_naming_it(
    manager: PluginManager,
) -> None:
    with pytest.raises(AttributeError, match="get_user_from_id"):
        load_modules([{"module": example_with(BRACKET, *AWAIT)}], manager)
    assert manager.plugins() == []


async def test_e4_the_example_of_the_seed_document_runs_once_its_three_slips_are_put_right(points: Points) -> None:
    module = example_with(BRACKET, *AWAIT, REGISTRATION)({}, api_of(points))
    module.http_client = HttpClient()
    await module.get_department_for_user("@alice:example.com")
    await module.do_something_with_users()
    assert len(module.http_client.calls) == 1
    assert await module.get_department_for_user("@alice:example.com") == "department 2"
    assert module.http_client.calls == [("https://int.example.com/users", {"user_id": "@alice:example.com"})] * 2
