"""The services of an engine: what they live as long as, what plugins provide, async providers, overrides in tests."""

from __future__ import annotations

import asyncio
import threading
from typing import ClassVar

import pytest
from connect.eaas.core.responses import BackgroundResponse

from saga_engine import Engine, Saga, SagaStatus
from saga_engine.extensions import cached, extension, plugin
from saga_engine.extensions.cached import cached_function_of
from saga_engine.extensions.errors import NotCached
from saga_engine.services import BindingConflict, DependencyBuildingFailure, MemoryCache, ServiceProvider, scoped
from transactions import BackgroundTransaction, transaction

DONE = BackgroundResponse.done()


class Uses(BackgroundTransaction):
    """Notes the service that it was given."""

    seen: ClassVar[list] = []

    def __init__(self, service):
        self.service = service

    def execute(self, request):
        self.seen.append(self.service)
        return DONE


class Order(Saga):
    def transactions(self, request):
        return [Uses]


class Made:
    """Something that knows which configuration it was built with."""

    def __init__(self, config):
        self.config = config


@pytest.fixture(autouse=True)
def seen():
    Uses.seen.clear()
    return Uses.seen


def ordering(provider, **more):
    """Make a saga whose steps have what a provider provides."""
    return type("Order", (Order,), {"providers": {"service": provider}, "__module__": __name__, **more})


def providing(scope):
    """Make a provider of a service that lives so long."""

    class Provider(ServiceProvider):
        def register(self):
            self.bind_class("service", Made, scope=scope)

    return Provider


# What lives how long


def test_b2_each_execution_has_its_own_service_unless_it_is_the_application_s(seen):
    with Engine("memory://", config={"of": "engine"}) as engine:
        for number, scope in enumerate(["transient", "singleton", "execution", "application"]):
            saga = ordering(providing(scope)).make({"of": number}, engine=engine)
            saga.resolve({"id": f"PR-{number}"})
        shared = ordering(providing("application"))
        shared.make({"of": "A"}, engine=engine).resolve({"id": "PR-A"})
        shared.make({"of": "B"}, engine=engine).resolve({"id": "PR-B"})

    assert [made.config["of"] for made in seen] == [0, 1, 2, "engine", "engine", "engine"]
    assert seen[-1] is seen[-2]


def test_b2_another_engine_is_another_application(seen):
    saga = ordering(providing("application"))
    for number in (1, 2):
        with Engine("memory://", config={"of": number}) as engine:
            engine.resolve(saga(), {"id": "PR-1"})

    assert [made.config["of"] for made in seen] == [1, 2]


def vendor_plugin(scope):
    @plugin(id="vendor", version="1")
    class Vendor:
        @extension(point="service_providers")
        class Services(ServiceProvider):
            @scoped(scope)
            def provide_service(self, config, configuration):
                return [config["KEY"], configuration["region"]]

    return (Vendor, {"region": "eu"})


@pytest.mark.parametrize("scope", ["singleton", "execution", "transient"])
def test_b2_what_a_plugin_provides_is_built_for_each_execution_from_what_both_have(seen, scope):
    with Engine("memory://", config={"KEY": "engine's"}, plugins=[vendor_plugin(scope)]) as engine:
        engine.resolve(Order(), {"id": "PR-1"})
        Order.make({"KEY": "delivery's"}, engine=engine).resolve({"id": "PR-2"})
        assert engine.plugins.container_of("vendor").scope("execution").get("service") == ["engine's", "eu"]

    assert seen == [["engine's", "eu"], ["delivery's", "eu"]]


@pytest.mark.parametrize("scope", ["application", "plugin"])
def test_b2_what_a_plugin_provides_for_longer_is_shared_by_all_executions(seen, scope):
    with Engine("memory://", config={"KEY": "engine's"}, plugins=[vendor_plugin(scope)]) as engine:
        engine.resolve(Order(), {"id": "PR-1"})
        Order.make({"KEY": "delivery's"}, engine=engine).resolve({"id": "PR-2"})

    assert seen == [["engine's", "eu"]] * 2
    assert seen[0] is seen[1]


def test_b2_a_provider_given_as_a_plugin_is_one(seen):
    with Engine("memory://", config={}, plugins=[providing("application")]) as engine:
        engine.resolve(Order(), {"id": "PR-1"})
    assert len(seen) == 1


def test_b2_what_a_plugin_provides_comes_and_goes_with_it(seen):
    with Engine("memory://", config={"KEY": "K"}) as engine:
        manager = engine.plugins
        engine.start_plugins()
        manager.attach(*vendor_plugin("application"))
        assert engine.container.get("service") == ["K", "eu"]
        engine.resolve(Order(), {"id": "PR-1"})
        manager.detach("vendor")
        with pytest.raises(DependencyBuildingFailure, match="'service'"):
            engine.resolve(Order(), {"id": "PR-2"})
    assert seen == [["K", "eu"]]


def test_b3_an_engine_that_cannot_be_made_leaves_nothing_registered_anywhere():
    class Other(ServiceProvider):
        def provide_service(self): ...

    class Module:
        def __init__(self, config, api):
            api.register_cached_function(looked_up)

    with pytest.raises(BindingConflict):
        Engine("memory://", plugins=[providing("singleton"), Other], modules=[{"module": Module}])
    with pytest.raises(NotCached):
        asyncio.run(cached_function_of(looked_up).invalidate(None))


@cached()
async def looked_up():
    """Look nothing up."""


def test_b4_what_a_saga_provides_wins_over_what_plugins_provide(seen):
    class Own(ServiceProvider):
        def provide_service(self):
            return "the saga's"

    with Engine("memory://", config={}, plugins=[providing("singleton")]) as engine:
        engine.resolve(ordering(Own)(), {"id": "PR-1"})
    assert seen == ["the saga's"]


def test_b4_what_plugins_provide_wins_over_variables_and_over_the_default_cache(seen):
    class Services(ServiceProvider):
        def provide_service(self, cache):
            return cache

        def provide_cache(self):
            return MemoryCache()

    with Engine("memory://", config={"SERVICE": "a variable"}, plugins=[Services()]) as engine:
        engine.resolve(Order(), {"id": "PR-1"})
    assert isinstance(seen[0], MemoryCache)


def test_b3_two_plugins_that_provide_one_service_are_refused_at_once():
    class Other(ServiceProvider):
        def provide_service(self): ...

    with pytest.raises(BindingConflict, match="'service' is bound twice"):
        Engine("memory://", plugins=[providing("singleton"), Other])


def test_b4_a_delivery_with_variables_of_its_own_sees_none_of_the_engine_s():
    class Wants(BackgroundTransaction):
        def __init__(self, secret):
            self.secret = secret

        def execute(self, request):
            return DONE

    class Secret(Saga):
        def transactions(self, request):
            return [Wants]

    with (
        Engine("memory://", config={"SECRET": "the engine's"}, plugins=[providing("singleton")]) as engine,
        pytest.raises(DependencyBuildingFailure, match="secret, to which nothing is bound"),
    ):
        Secret.make({"OTHER": "x"}, engine=engine).resolve({"id": "PR-1"})


# Overrides


def test_b3_an_override_of_the_engine_s_container_reaches_steps_in_any_thread(seen):
    saga = ordering(providing("singleton"))

    with Engine("memory://", config={}, sagas=[saga]) as engine:
        with engine.container.override(service="fake"):
            engine.resolve(saga(), {"id": "PR-1"})
            engine.wait(engine.start(saga, {"id": "PR-2"}), timeout_s=10)
        engine.resolve(saga(), {"id": "PR-3"})

    assert seen[:2] == ["fake", "fake"]
    assert isinstance(seen[2], Made)


def test_b3_an_override_by_type_may_replace_a_step(seen):
    class Fake(Uses):
        def __init__(self):
            self.service = "fake"

    class Wants(BackgroundTransaction):
        def execute(self, request):
            raise AssertionError("it was to be replaced")

    class Replaced(Saga):
        def transactions(self, request):
            return [Wants]

    with Engine("memory://", config={}) as engine, engine.container.override({Wants: Fake()}):
        assert Replaced.make(engine=engine).resolve({"id": "PR-1"}).status == "success"
    assert seen == ["fake"]


# Async providers


class AsyncServices(ServiceProvider):
    """Provides the event loop in which it was awaited."""

    async def provide_service(self):
        await asyncio.sleep(0)
        return asyncio.get_running_loop()


class AsyncUses(Uses):
    """Notes the service, and the loop in which it is run itself."""

    async def execute(self, request):
        self.seen.append((self.service, asyncio.get_running_loop()))
        return DONE


class AsyncOrder(Saga):
    providers: ClassVar = {"service": AsyncServices}

    def transactions(self, request):
        return [AsyncUses]


def is_of_one_loop(seen):
    return all(service is loop for service, loop in seen)


def test_b2_async_providers_are_awaited_on_the_loop_of_the_steps_when_resolved_plainly(seen):
    with Engine("memory://", config={}) as engine:
        assert engine.resolve(AsyncOrder(), {"id": "PR-1"}).status == "success"
        assert len(seen) == 1
        assert is_of_one_loop(seen)


@pytest.mark.parametrize("plugins", [(), (providing("singleton"),)], ids=["bare", "plugged"])
def test_b2_async_providers_are_awaited_on_the_caller_s_loop_by_the_async_driver(seen, plugins):
    async def resolve(engine):
        response = await engine.aresolve(AsyncOrder(), {"id": "PR-1"})
        assert seen == [(asyncio.get_running_loop(),) * 2]
        return response

    with Engine("memory://", config={}, plugins=plugins) as engine:
        assert asyncio.run(resolve(engine)).status == "success"


def test_b2_async_providers_are_awaited_by_the_worker(seen):
    with Engine("memory://", config={}) as engine:
        assert engine.wait(engine.start(AsyncOrder, {"id": "PR-1"}), timeout_s=10).status == "success"
        assert is_of_one_loop(seen)


class Dies(BaseException):
    """The process dies here, as far as the engine can tell."""


@pytest.mark.parametrize("is_async", [False, True], ids=["recover", "arecover"])
def test_b2_async_providers_are_awaited_by_recovery(seen, is_async):
    class Interrupted(AsyncOrder):
        deaths: ClassVar = iter([Dies()])

        def transactions(self, request):
            return [Deadly, AsyncUses]

    class Deadly(BackgroundTransaction):
        def execute(self, request):
            for death in Interrupted.deaths:
                raise death
            return DONE

    with Engine("memory://", config={}, sagas=[Interrupted]) as engine:
        with pytest.raises(Dies):
            engine.resolve(Interrupted(), {"id": "PR-1"})
        recovered = asyncio.run(engine.arecover()) if is_async else engine.recover()
        assert (recovered, recovered.reasons) == (1, {})
        assert engine.get("Interrupted:PR-1").status is SagaStatus.COMPLETED
        assert is_of_one_loop(seen)


def test_b2_a_function_and_a_middleware_may_want_what_an_async_provider_gives():
    given = []

    @transaction
    def step(request, service):
        given.append(service)
        return DONE

    class Around:
        def __init__(self, service):
            self.service = service

        def __call__(self, request, nxt):
            given.append(self.service)
            return nxt(request)

    class Functions(AsyncOrder):
        def middlewares(self, request):
            return [Around]

        def transactions(self, request):
            return [step]

    with Engine("memory://", config={}) as engine:
        assert engine.resolve(Functions(), {"id": "PR-1"}).status == "success"
    assert len(given) == 2
    assert given[0] is given[1]


def test_b2_a_step_that_is_built_anew_after_a_time_out_keeps_what_an_async_provider_gave(seen):
    may_end = threading.Event()

    class Hangs(Uses):
        timeout_s, abandon_s = 0.05, 0.0

        def execute(self, request):
            self.seen.append(self.service)
            assert may_end.wait(10)
            return DONE

        def compensate(self, request, e):
            self.seen.append(self.service)
            return DONE

    class Hanging(AsyncOrder):
        def transactions(self, request):
            return [Hangs]

    async def resolve(engine):
        return await engine.aresolve(Hanging(), {"id": "PR-1"})

    with Engine("memory://", config={}) as engine:
        response = asyncio.run(resolve(engine))
        may_end.set()
    assert response.status == "fail"
    assert len(seen) == 2
    assert seen[0] is seen[1]


def test_b2_an_application_s_async_service_is_awaited_once_for_all_executions(seen):
    count = []

    class Services(ServiceProvider):
        @scoped("application")
        async def provide_service(self):
            count.append(1)
            return object()

    saga = ordering(Services)
    with Engine("memory://", config={}) as engine:
        for number in range(3):
            engine.resolve(saga(), {"id": f"PR-{number}"})
    assert len(count) == 1
    assert len(set(map(id, seen))) == 1
