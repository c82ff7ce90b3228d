"""What services must do, line by line: injection, providers, scopes, overrides, async providers."""

from __future__ import annotations

import gc
import logging
import threading
import weakref
from typing import ClassVar

import anyio
import pytest
from anyio.lowlevel import checkpoint
from connect.eaas.core.responses import BackgroundResponse

from saga_engine import Saga
from saga_engine.services import (
    AsyncServiceWanted,
    BindingConflict,
    Cache,
    Container,
    DependencyBuildingFailure,
    InvalidClassType,
    MemoryCache,
    ServiceProvider,
    SQLiteCache,
    bind_config,
    scoped,
)
from saga_engine.services.bindings import Registration
from saga_engine.testing import run_saga
from transactions import BackgroundTransaction

LOGGER = logging.getLogger("test_services_seeds")

on_asyncio_and_trio = pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])


class Vendor:
    def __init__(self, token):
        self.token = token


class Purchase:
    def __init__(self, vendor: Vendor):
        self.vendor = vendor


class Counting(ServiceProvider):
    """Provides `made`, a new object each time it is asked."""

    def __init__(self):
        self.count = 0

    def provide_made(self):
        self.count += 1
        return object()


# b 1: injection


def test_b1_one_constructor_is_injected_by_type_and_by_bare_name():
    class Step:
        def __init__(self, cache: Cache, client, logger, config):
            self.all = (cache, client, logger, config)

    cache = MemoryCache()
    container = Container().bind_instance(Cache, cache).bind_instance("client", "C")
    container.bind_instance("logger", "L").bind_instance("config", "F")

    assert container.get(Step).all == (cache, "C", "L", "F")


def test_b1_a_type_that_is_bound_by_its_name_only_is_found_by_the_parameter_s_name():
    class Step:
        def __init__(self, cache: Cache):
            self.cache = cache

    cache = MemoryCache()
    assert Container().bind_instance("cache", cache).get(Step).cache is cache


def test_b1_what_is_missing_is_named_with_the_class_the_argument_and_a_drawing_of_the_chain():
    class Step:
        def __init__(self, purchase: Purchase):
            self.purchase = purchase

    with pytest.raises(DependencyBuildingFailure) as failure:
        Container().get(Step)

    head, *drawing = str(failure.value).split("\n")
    assert head.startswith("Step cannot be built: Vendor wants the argument 'token' and nothing is bound to it")
    assert drawing == [
        "  Step",
        "  └─ purchase: Purchase",
        "     └─ vendor: Vendor",
        "        └─ token, to which nothing is bound",
    ]


def test_b1_a_key_that_is_neither_a_name_nor_a_class_is_an_invalid_class_type():
    with pytest.raises(InvalidClassType, match="wants a name or a class, not 42"):
        Container().get(42)


# b 2: providers and scopes


def test_b2_provide_methods_are_injected_and_chained():
    class Provider(ServiceProvider):
        def provide_token(self, config):
            return config["TOKEN"]

        def provide_vendor(self, token):
            return Vendor(token)

    assert Container([Provider]).bind_instance("config", {"TOKEN": "T"}).get("vendor").token == "T"


def test_b2_register_binds_instances_and_classes_and_both_calls_give_the_provider():
    class Provider(ServiceProvider):
        def register(self):
            assert self.bind_instance("token", "T").bind_class(Vendor, Vendor) is self

    assert Container([Provider]).get(Purchase).vendor.token == "T"


def test_b2_bind_class_gives_a_new_instance_per_request():
    container = Container().bind_instance("token", "T").bind_class("vendor", Vendor)
    assert container.get("vendor") is not container.get("vendor")


def test_b2_scope_singleton_shares():
    container = Container().bind_instance("token", "T").bind_class("vendor", Vendor, scope="singleton")
    assert container.get("vendor") is container.child().get("vendor")


def test_b2_provide_results_are_shared_per_container():
    provider = Counting()
    first, second = Container([provider]), Container([provider])

    assert first.get("made") is first.child().get("made")
    assert first.get("made") is not second.get("made")
    assert provider.count == 2


def test_b2_a_provider_method_says_how_long_its_result_lives():
    class Provider(ServiceProvider):
        @scoped("transient")
        def provide_made(self):
            return object()

        @scoped("execution")
        def provide_once(self, made):
            return made

    container = Container([Provider])
    first, second = container.scope("execution"), container.scope("execution")

    assert container.get("made") is not container.get("made")
    assert first.get("once") is first.child().get("once")
    assert first.get("once") is not second.get("once")


def test_b2_one_is_kept_for_each_plugin_wherever_it_is_bound():
    application = Container().bind_class("made", object, scope="plugin")
    one, other = application.scope("plugin", logger="one"), application.scope("plugin", logger="other")

    assert one.get("made") is one.child().get("made")
    assert one.get("made") is not other.get("made")


def test_b2_one_is_kept_for_the_application_even_if_each_execution_binds_it_anew():
    class Provider(ServiceProvider):
        @scoped("application")
        def provide_made(self, client):
            return [client]

    application = Container().bind_instance("client", "application's")
    first = application.scope("execution", client="first's").bind_provider(Provider)
    second = application.scope("execution", client="second's").bind_provider(Provider)

    assert first.get("made") is second.get("made")
    assert first.get("made") == ["application's"]


def test_b2_what_two_providers_of_one_class_keep_for_the_application_is_not_mixed_up():
    class Provider(ServiceProvider):
        def __init__(self, text):
            self.text = text

        @scoped("application")
        def provide_made(self):
            return self.text

    application = Container()
    assert application.scope("execution").bind_provider(Provider("one")).get("made") == "one"
    assert application.scope("execution").bind_provider(Provider("other")).get("made") == "other"


def test_b2_an_execution_s_service_is_built_with_what_that_execution_binds():
    application = Container().bind_class(Vendor, Vendor, scope="execution")

    assert application.scope("execution", token="one").get(Purchase).vendor.token == "one"
    assert application.scope("execution", token="other").get(Purchase).vendor.token == "other"


@pytest.mark.parametrize("scope", ["execution", "plugin"])
def test_b2_what_lives_longer_cannot_want_what_lives_shorter(scope):
    application = Container().bind_instance("token", "T")
    application.bind_class(Vendor, Vendor, scope=scope).bind_class("purchase", Purchase, scope="application")

    with pytest.raises(DependencyBuildingFailure, match=f"Vendor is asked for outside of any {scope}") as failure:
        application.scope(scope).get("purchase")
    assert f"\n  Purchase\n  └─ vendor: Vendor, one for each {scope}" in str(failure.value)


@pytest.mark.parametrize("scope", ["request", "", None])
def test_b2_an_unknown_scope_is_refused_by_the_names_of_the_known_ones(scope):
    known = "'application', 'plugin', 'execution', 'singleton', 'transient'"
    with pytest.raises(InvalidClassType, match=known):
        Container().bind_class("made", object, scope=scope)
    with pytest.raises(InvalidClassType, match=known):
        scoped(scope)
    with pytest.raises(InvalidClassType, match="open a 'plugin' or an 'execution'"):
        Container().scope(scope)


def test_b2_what_a_plugin_keeps_is_built_in_its_scope_and_forgotten_with_its_undo():
    class Provider(ServiceProvider):
        @scoped("application")
        def provide_vendor(self, token):
            return Vendor(token)

    application = Container().bind_instance("token", "application's")
    plugin = application.scope("plugin", token="plugin's")
    undo = application.bind_from(plugin, Provider().registrations())

    assert application.scope("execution", token="execution's").get("vendor").token == "plugin's"
    undo()
    undo()
    with pytest.raises(DependencyBuildingFailure):
        application.get("vendor")
    undo = application.bind_from(application.scope("plugin", token="reloaded"), Provider().registrations())
    assert application.get("vendor").token == "reloaded"


def test_b2_what_was_kept_for_a_plugin_is_let_go_when_it_is_removed():
    class Provider(ServiceProvider):
        def provide_made(self):
            return Vendor("T")

    application = Container()
    plugin = application.scope("plugin")
    undo = application.bind_from(plugin, Provider().registrations())
    kept = weakref.ref(plugin.get("made"))

    undo()
    gc.collect()
    assert kept() is None


def test_b2_a_default_gives_way_to_what_is_bound_in_its_scope_and_comes_back():
    default = Registration("cache", "default", "instance", "engine", is_default=True)
    application = Container().bind_registrations([default])

    assert application.get("cache") == "default"
    assert not application.is_bound("cache")
    undo = application.bind_from(Container(), [Registration("cache", "plugin's", "instance", "plugin")])
    assert application.get("cache") == "plugin's"
    assert application.child().is_bound("cache")
    undo()
    assert application.get("cache") == "default"


def test_b2_what_a_plugin_provides_finds_what_an_execution_has_and_then_what_its_plugin_has():
    class Provider(ServiceProvider):
        def provide_made(self, token, configuration):
            return [token, configuration]

    application = Container()
    plugin = application.scope("plugin", token="plugin's", configuration="plugin's")
    application.bind_from(plugin, Provider().registrations())
    execution = application.scope("execution", token="execution's")

    assert execution.get("made") == ["execution's", "plugin's"]
    assert execution.child().get("made") is execution.get("made")
    assert application.scope("execution", token="other's").get("made") == ["other's", "plugin's"]
    assert application.scope("plugin").get("made") == ["plugin's", "plugin's"]
    assert plugin.get("made") is application.get("made")


# b 3: conflicts, cycles, defaults, overrides


def test_b3_a_key_bound_twice_is_a_conflict_that_names_both_providers():
    class Other(ServiceProvider):
        def provide_made(self): ...

    with pytest.raises(BindingConflict, match=r"Counting\.provide_made and by Other\.provide_made"):
        Container([Counting(), Other])


def test_b3_a_cycle_is_an_error_that_shows_it():
    class Provider(ServiceProvider):
        def provide_chicken(self, egg): ...

        def provide_egg(self, chicken): ...

    with pytest.raises(DependencyBuildingFailure, match=r"provide_chicken -> .*provide_egg -> .*chicken") as failure:
        Container([Provider]).get("chicken")
    assert str(failure.value).endswith("     └─ chicken: Provider.provide_chicken, which is above")


class AsksTheContainer(ServiceProvider):
    def provide_a(self, container: Container) -> str:
        return container.get("b")

    @scoped("application")
    def provide_b(self, container: Container) -> str:
        return container.get("a")


class AsksTheContainerAsync(ServiceProvider):
    async def provide_a(self, container: Container) -> str:
        await checkpoint()
        return await container.aget("b")

    async def provide_b(self, container: Container) -> str:
        await checkpoint()
        return await container.aget("a")


def test_b3_a_cycle_through_the_container_is_an_error_too():
    with pytest.raises(
        DependencyBuildingFailure, match=r"a cycle of requests through a Container: .*provide_a is asked"
    ):
        Container([AsksTheContainer]).get("a")


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("asked", [["a"], ["a", "b"]])
def test_b3_a_cycle_of_async_providers_through_the_container_is_an_error_too(asked, backend):
    container = Container([AsksTheContainerAsync])
    told = []

    async def ask(key):
        try:
            await container.aget(key)
        except DependencyBuildingFailure as failure:
            told.append(str(failure))

    async def ask_all():
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                for key in asked:
                    tasks.start_soon(ask, key)

    anyio.run(ask_all, backend=backend)
    assert len(told) == len(asked)
    assert "a cycle of requests through a Container" in told[0]


def test_b3_defaults_are_honoured():
    class Step:
        def __init__(self, region="eu"):
            self.region = region

    assert Container().get(Step).region == "eu"
    assert Container().bind_instance("region", "us").get(Step).region == "us"


def test_b3_the_graph_is_built_lazily():
    provider = Counting()
    container = Container([provider])

    assert provider.count == 0
    container.get("made")
    assert provider.count == 1


def test_b3_an_override_is_one_call_by_name_or_by_type_and_ends_with_its_block():
    container = Container().bind_instance("token", "real").bind_class(Vendor, Vendor)
    fake = Vendor("fake")

    with container.override(token="other") as given:
        assert given is container
        assert container.get(Purchase).vendor.token == "other"
    with container.override({Vendor: fake}):
        assert container.get(Purchase).vendor is fake
    assert container.get(Purchase).vendor.token == "real"


def test_b3_an_override_ends_when_its_block_raises():
    container = Container().bind_instance("token", "real")

    with pytest.raises(KeyError), container.override(token="fake"):
        raise KeyError
    assert container.get("token") == "real"


def test_b3_an_override_may_give_what_nothing_is_bound_to():
    with (container := Container()).override(token="fake"):
        assert container.get(Purchase).vendor.token == "fake"


def test_b3_overrides_nest_and_the_inner_one_wins():
    container = Container().bind_instance("token", "real")

    with container.override(token="outer", other="kept"):
        with container.override(token="inner"):
            assert (container.get("token"), container.get("other")) == ("inner", "kept")
        assert container.get("token") == "outer"


def test_b3_an_override_covers_child_scopes_whatever_they_bind_and_whenever_they_were_made():
    container = Container()
    before = container.child(token="own")

    with container.override(token="fake"):
        assert before.get("token") == "fake"
        assert container.child(token="own").get("token") == "fake"
        assert before.get_inside(Purchase, lambda: {"token": "own"}).vendor.token == "fake"
    assert before.get("token") == "own"


def test_b3_an_override_does_not_cover_the_scopes_around():
    container = Container().bind_instance("token", "real").bind_class("vendor", Vendor, scope="singleton")
    child = container.child()

    with child.override(token="fake"):
        assert container.get("token") == "real"
        assert child.get("vendor").token == "real"
        assert child.get(Vendor).token == "fake"


def test_b3_the_override_of_the_nearest_scope_wins():
    container = Container()
    child = container.child()

    with child.override(token="near"), container.override(token="far"):
        assert (child.get("token"), container.get("token")) == ("near", "far")


@pytest.mark.parametrize("scope", ["singleton", "application", "execution", "plugin"])
def test_b3_what_is_kept_is_built_anew_for_an_override_and_forgotten_after_it(scope):
    application = Container().bind_instance("token", "real").bind_class("vendor", Vendor, scope=scope)
    asking = application.scope("execution").scope("plugin")
    real = asking.get("vendor")

    with application.override(token="fake"):
        fake = asking.get("vendor")
        assert fake.token == "fake"
        assert asking.get("vendor") is fake
    assert asking.get("vendor") is real


def test_b3_what_is_first_built_inside_an_override_does_not_outlive_it():
    container = Container().bind_instance("token", "real").bind_class("vendor", Vendor, scope="singleton")

    with container.override(token="fake"):
        assert container.get("vendor").token == "fake"
    assert container.get("vendor").token == "real"


def test_b3_an_override_is_seen_by_other_threads():
    container = Container().bind_instance("token", "real")
    seen = []

    with container.override(token="fake"):
        thread = threading.Thread(target=lambda: seen.append(container.get("token")))
        thread.start()
        thread.join(10)
    assert seen == ["fake"]


def test_b3_blocks_of_several_threads_may_end_in_any_order():
    container = Container().bind_instance("one", "real").bind_instance("other", "real")
    first, second = container.override(one="fake"), container.override(other="fake")

    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert (container.get("one"), container.get("other")) == ("real", "fake")
    second.__exit__(None, None, None)
    assert container.get("other") == "real"


def test_b3_a_request_that_is_under_way_when_a_block_begins_sees_nothing_of_it():
    is_asked, may_go_on = threading.Event(), threading.Event()

    class Provider(ServiceProvider):
        def provide_slow(self):
            is_asked.set()
            assert may_go_on.wait(10)

        def provide_both(self, slow, token):
            return token

    container = Container([Provider]).bind_instance("token", "real")
    seen = []
    thread = threading.Thread(target=lambda: seen.append(container.get("both")))
    thread.start()
    assert is_asked.wait(10)
    with container.override(token="fake"):
        may_go_on.set()
        thread.join(10)
    assert seen == ["real"]
    assert container.get("both") == "real"


def test_b3_a_key_of_an_override_must_be_a_name_or_a_type():
    with pytest.raises(InvalidClassType, match=r"override: the key 42"), Container().override({42: "x"}):
        pass


# b 4: what a saga provides, and the configuration


class Reads(BackgroundTransaction):
    def __init__(self, cache, context):
        self.cache, self.context = cache, context

    def execute(self, request):
        self.context.state["seen"] = self.cache.get("seen", "nothing")
        return BackgroundResponse.done()


class Provided(ServiceProvider):
    def __init__(self):
        self.cache = MemoryCache()
        self.cache.put("seen", "the saga's own")

    def provide_cache(self):
        return self.cache


def test_b4_a_saga_s_providers_are_a_dict_by_key_and_an_instance_replaces_the_default():
    class Order(Saga):
        providers: ClassVar = {"cache": Provided()}

        def transactions(self, request):
            return [Reads]

    assert run_saga(Order, {"id": "PR-1"}).state["seen"] == "the saga's own"


def test_b4_variables_are_bound_in_lower_case_and_stripped_and_other_values_are_kept_as_they_are():
    container = bind_config(Container(), {" API_URL ": "u", "LIMIT": 5}, LOGGER)

    assert container.get("config") == {" API_URL ": "u", "LIMIT": 5}
    assert (container.get("api_url"), container.get("limit")) == ("u", 5)


def test_b4_a_variable_named_like_a_core_service_leaves_the_service_there_and_is_warned_of(caplog):
    container = bind_config(Container().child(client="C"), {"CLIENT": "not the client"}, LOGGER)

    assert container.get("client") == "C"
    assert "named like the core service 'client'" in caplog.text


# b 5: the services that are there by themselves


class Seen(BackgroundTransaction):
    seen: ClassVar[list] = []

    def __init__(self, client, logger, request=None):
        self.seen.append((client, logger, request))

    def execute(self, request):
        return BackgroundResponse.done()


def test_b5_steps_are_given_the_client_the_logger_and_if_they_ask_the_request():
    class Order(Saga):
        def transactions(self, request):
            return [Seen]

    Seen.seen.clear()
    run_saga(Order, {"id": "PR-1"}, client="C", logger=LOGGER)

    client, logger, request = Seen.seen[0]
    assert (client, request) == ("C", {"id": "PR-1"})
    assert callable(logger.info)


@pytest.mark.parametrize(("driver", "kind"), [("sqlite", SQLiteCache), ("memory", MemoryCache), (None, SQLiteCache)])
def test_b5_the_cache_s_driver_is_exchangeable_and_sqlite_by_default(tmp_path, driver, kind):
    kinds = []

    class Look(BackgroundTransaction):
        def __init__(self, cache):
            kinds.append(type(cache))

        def execute(self, request):
            return BackgroundResponse.done()

    class Order(Saga):
        def transactions(self, request):
            return [Look]

    config = {"CACHE_DIR": str(tmp_path)} if driver is None else {"CACHE_DIR": str(tmp_path), "CACHE_DRIVER": driver}
    run_saga(Order, {"id": "PR-1"}, config=config)

    assert kinds == [kind]


# Async providers


class AsyncProvider(ServiceProvider):
    def __init__(self):
        self.count = 0

    async def provide_session(self, token):
        self.count += 1
        await checkpoint()
        return [token]

    def provide_vendor(self, session):
        return Vendor(session)


class WantsSession:
    def __init__(self, session, vendor=None):
        self.session, self.vendor = session, vendor


@pytest.mark.anyio
@on_asyncio_and_trio
async def test_b2_an_async_provider_is_awaited_by_aget_for_whatever_wants_its_result(anyio_backend):
    provider = AsyncProvider()
    container = Container([provider]).bind_instance("token", "T")

    built = await container.aget(WantsSession)
    assert built.session == ["T"]
    assert built.vendor.token is built.session
    assert await container.aget("session") is built.session
    assert await container.aarguments_for(lambda session: None, skip=0) == {"session": built.session}
    assert provider.count == 1


@pytest.mark.anyio
@on_asyncio_and_trio
async def test_b2_aget_of_what_needs_no_async_provider_does_what_get_does(anyio_backend):
    container = Container().bind_instance("token", "T").bind_class("vendor", Vendor, scope="singleton")

    assert (await container.aget(Purchase)).vendor.token == "T"
    assert await container.aget("vendor") is container.get("vendor")
    assert await container.aget(Container) is container
    with pytest.raises(InvalidClassType):
        await container.aget(42)
    with pytest.raises(DependencyBuildingFailure, match="nothing is bound to 'nothing'"):
        await container.aget("nothing")


def test_b2_a_plain_get_of_what_an_async_provider_gives_says_to_await_aget():
    container = Container([AsyncProvider()]).bind_instance("token", "T")

    with pytest.raises(AsyncServiceWanted, match=r"with `await container\.aget\(\.\.\.\)`") as failure:
        container.get(WantsSession)
    assert str(failure.value).endswith("\n  WantsSession\n  └─ session: async AsyncProvider.provide_session")


@pytest.mark.anyio
@on_asyncio_and_trio
async def test_b2_what_was_awaited_once_is_had_by_a_plain_get_from_then_on(anyio_backend):
    container = Container([AsyncProvider()]).bind_instance("token", "T")

    session = await container.aget("session")
    assert container.get(WantsSession).session is session


@pytest.mark.anyio
@on_asyncio_and_trio
async def test_b2_an_async_provider_is_called_once_however_many_tasks_ask(anyio_backend):
    provider = AsyncProvider()
    container = Container([provider]).bind_instance("token", "T")
    found = []

    async def ask():
        found.append(await container.child().aget("session"))

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(ask)
    assert provider.count == 1
    assert len({id(session) for session in found}) == 1


def test_b2_an_async_provider_is_called_once_though_two_event_loops_ask():
    entered, may_go_on = threading.Event(), threading.Event()
    count = []

    class Slow(ServiceProvider):
        async def provide_session(self):
            count.append(1)
            entered.set()
            await anyio.to_thread.run_sync(may_go_on.wait, 10)
            return object()

    container, found = Container([Slow]), []

    async def ask():
        found.append(await container.aget("session"))

    async def ask_second():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await checkpoint()
            may_go_on.set()

    first = threading.Thread(target=anyio.run, args=(ask,))
    first.start()
    assert entered.wait(10)
    anyio.run(ask_second, backend="trio")
    first.join(10)
    assert len(count) == 1
    assert found[0] is found[1]


@pytest.mark.anyio
@on_asyncio_and_trio
async def test_b2_an_async_provider_that_fails_is_called_again_by_whoever_waited(anyio_backend):
    answers = iter([ConnectionError("down"), "up"])
    is_waiting = anyio.Event()

    class Flaky(ServiceProvider):
        async def provide_session(self):
            answer = next(answers)
            await is_waiting.wait()
            if isinstance(answer, Exception):
                raise answer
            return answer

    container, given = Container([Flaky]), []

    async def ask():
        try:
            given.append(await container.aget("session"))
        except ConnectionError as error:
            given.append(str(error))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        tasks.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        is_waiting.set()
    assert given == ["down", "up"]


@pytest.mark.anyio
@on_asyncio_and_trio
async def test_b2_a_cancelled_request_leaves_an_async_provider_to_whoever_waited(anyio_backend):
    provider = AsyncProvider()
    container = Container([provider]).bind_instance("token", "T")

    with anyio.CancelScope() as scope:
        scope.cancel()
        await container.aget("session")
    assert scope.cancelled_caught
    assert await container.aget("session") == ["T"]
    assert provider.count == 2


@pytest.mark.anyio
@on_asyncio_and_trio
async def test_b3_what_an_async_provider_gives_inside_an_override_does_not_outlive_it(anyio_backend):
    container = Container([AsyncProvider()]).bind_instance("token", "real")

    with container.override(token="fake"):
        assert (await container.aget("vendor")).token == ["fake"]
    assert (await container.aget("vendor")).token == ["real"]


@pytest.mark.anyio
@on_asyncio_and_trio
async def test_b3_a_cycle_of_async_providers_is_shown_and_not_waited_for(anyio_backend):
    class Provider(ServiceProvider):
        async def provide_chicken(self, egg): ...

        async def provide_egg(self, chicken): ...

    with pytest.raises(DependencyBuildingFailure, match=r"provide_chicken -> .*provide_egg -> .*chicken"):
        await Container([Provider]).aget("chicken")


@pytest.mark.anyio
@on_asyncio_and_trio
async def test_b2_an_execution_has_its_own_result_of_an_async_provider(anyio_backend):
    class Provider(ServiceProvider):
        @scoped("execution")
        async def provide_session(self, token):
            return [token]

    application = Container([Provider])
    one, other = application.scope("execution", token="one"), application.scope("execution", token="other")

    assert (await one.aget("session"), await other.child().aget("session")) == (["one"], ["other"])
    assert await one.child().aget("session") is one.get("session")


def test_b2_what_is_no_method_or_a_generator_is_refused():
    def give(self):
        yield 5

    for value, told in ((5, "make it a method"), (give, "is a generator")):
        with pytest.raises(InvalidClassType, match=told):
            Container([type("Wrong", (ServiceProvider,), {"provide_x": value})])
