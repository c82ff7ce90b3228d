"""The extension service, the aware bases, and `@retry` in a service (SEEDS a)."""

from __future__ import annotations

import inspect
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import pytest
import tenacity
from connect.client import ClientError
from connect.eaas.core.responses import BackgroundResponse
from tenacity import RetryCallState, retry_if_exception, stop_after_attempt, wait_fixed

from saga_engine import Saga, SagaStatus
from saga_engine.extensions.aware import (
    ApiClientFactoryAware,
    AuthenticationAware,
    ConfigAware,
    EngineAware,
    JournalAware,
    LoggerAware,
)
from saga_engine.extensions.errors import DuplicateExtension, PluginLoadError, SetterError, UnknownExtension
from saga_engine.extensions.manager import PluginManager
from saga_engine.extensions.service import ExtensionService
from saga_engine.services import Container, DependencyBuildingFailure, ServiceProvider
from saga_engine.testing import run_saga
from transactions import BackgroundTransaction, RetryConfig, RetryPolicy, SagaError, retry
from transactions.retry import is_transient


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Every async test here runs on both."""
    return str(request.param)


def manager_with(**bound: Any) -> PluginManager:
    """Make a plugin manager whose container has these services bound by name."""
    return PluginManager(container=Container().child(**bound))


def kind_of(value: Any) -> str:
    """Name a parameter of a test without an address in it."""
    return getattr(value, "__name__", type(value).__name__)


AWARE_BASES = [ApiClientFactoryAware, AuthenticationAware, ConfigAware, EngineAware, JournalAware, LoggerAware]


# --- a 1: registering ---


class Greeting:
    """The service of the seed's example."""

    def say_hello(self, name: str) -> str:
        return f"Hello, {name}!"


class Greeter:
    """An extension that provides it."""

    def __init__(self) -> None:
        self._service = Greeting()

    def get_service(self) -> Greeting:
        return self._service


def service_with(**bound: Any) -> ExtensionService:
    """Make an extension service whose host has these services bound by name."""
    return ExtensionService(manager_with(**bound))


def test_a1_register_builds_the_class_without_arguments() -> None:
    extensions = service_with()
    extensions.register(Greeter)
    assert extensions.service(Greeter).say_hello("Symphony") == "Hello, Symphony!"


def test_a1_an_instance_is_accepted_as_it_is() -> None:
    extensions, greeter = service_with(), Greeter()
    extensions.register(greeter)
    assert extensions.service(Greeter) is greeter.get_service()


@pytest.mark.parametrize("again", [Greeter, Greeter()], ids=["class", "instance"])
def test_a1_the_same_class_twice_is_a_value_error_and_the_first_stays(again: Any) -> None:
    extensions, first = service_with(), Greeter()
    extensions.register(first)
    with pytest.raises(ValueError, match=r"Greeter is registered already: register each extension once") as raised:
        extensions.register(again)
    assert isinstance(raised.value, SagaError)
    assert extensions.service(Greeter) is first.get_service()


def test_a1_two_classes_of_one_name_are_a_value_error_too() -> None:
    extensions = service_with()

    def local() -> type:
        class Local(Greeter):
            pass

        return Local

    extensions.register(local())
    with pytest.raises(DuplicateExtension):
        extensions.register(local())


class WantsArguments:
    def __init__(self, port: int) -> None:
        self.port = port


@pytest.mark.parametrize(
    ("extension", "told"),
    [
        (WantsArguments, "WantsArguments cannot be built without arguments .*: build it and register the object"),
        (ConfigAware, "ConfigAware is abstract: define set_config"),
        (None, "None is no extension: register a class of yours"),
        ("Greeter", "'Greeter' is no extension: register a class of yours"),
        (dict, "<class 'dict'> is no extension: register a class of yours"),
    ],
    ids=str,
)
def test_a1_what_cannot_be_an_extension_is_refused_with_what_to_do(extension: Any, told: str) -> None:
    with pytest.raises(PluginLoadError, match=told):
        service_with().register(extension)


def test_a1_an_extension_is_a_plugin_and_goes_with_it() -> None:
    manager = manager_with()
    extensions = ExtensionService(manager)
    extensions.register(Greeter)
    plugin_id = f"{__name__}.Greeter"

    async def remove() -> bool:
        return await manager.remove(plugin_id)

    assert plugin_id in [held.plugin.id for held in manager.plugins()]
    assert anyio.run(remove)
    with pytest.raises(UnknownExtension):
        extensions.service(Greeter)
    extensions.register(Greeter)
    assert extensions.service(Greeter)


def test_a1_many_threads_register_one_class_once() -> None:
    extensions = service_with()
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(extensions.register, Greeter) for _ in range(64)]
    errors = [call.exception() for call in calls]
    assert errors.count(None) == 1
    assert {type(error) for error in errors} == {type(None), DuplicateExtension}


def test_a1_an_extension_that_registers_itself_while_it_is_built_is_registered_once() -> None:
    extensions = service_with()
    errors: list[Exception] = []

    class Eager(Greeter):
        def __init__(self) -> None:
            super().__init__()
            try:
                extensions.register(Eager)
            except DuplicateExtension as error:
                errors.append(error)

    extensions.register(Eager)
    assert len(errors) == 1
    assert extensions.service(Eager)


# --- a 2: services ---


def test_a2_get_service_is_called_on_demand_and_afresh_each_time() -> None:
    calls: list[int] = []

    class Counting:
        def get_service(self) -> int:
            calls.append(1)
            return len(calls)

    extensions = service_with()
    extensions.register(Counting)
    assert calls == []
    assert [extensions.service(Counting) for _ in range(2)] == [1, 2]


@pytest.mark.parametrize("asked", [Greeter, object, Greeter(), "Greeter", [1]], ids=kind_of)
def test_a2_the_service_of_what_is_not_registered_is_a_value_error(asked: Any) -> None:
    with pytest.raises(UnknownExtension) as raised:
        service_with().service(asked)
    assert isinstance(raised.value, ValueError)
    assert "call register(" in str(raised.value) or "ask for the class" in str(raised.value)


def test_a2_the_seeds_usage_example_that_registers_the_service_class_is_a_value_error() -> None:
    extensions = service_with()
    extensions.register(Greeting)
    with pytest.raises(ValueError, match=r"Greeting has no get_service\(\): register, and ask for, the extension"):
        extensions.service(Greeting)


# --- a 3: injection, with or without the base classes ---


class Duck:
    """Has every setter, and no base class; notes what it is given."""

    def __init__(self) -> None:
        self.given: list[tuple[str, Any]] = []

    def set_journal(self, journal: Any) -> None:
        self.given.append(("journal", journal))

    def set_engine(self, engine: Any) -> None:
        self.given.append(("engine", engine))

    def set_logger(self, logger: Any) -> None:
        self.given.append(("logger", logger))

    def set_config(self, config: Any) -> None:
        self.given.append(("config", config))

    def set_auth_session(self, auth_session: Any) -> None:
        self.given.append(("auth_session", auth_session))

    def set_api_client_factory(self, api_client_factory: Any) -> None:
        self.given.append(("api_client_factory", api_client_factory))


class Aware(
    Duck, ApiClientFactoryAware, AuthenticationAware, ConfigAware, EngineAware, JournalAware, LoggerAware
):  # the same, with every base
    """Has every setter, and every base class."""


@pytest.mark.parametrize("kind", [Duck, Aware])
def test_a3_every_setter_is_called_with_or_without_its_base(kind: type[Duck]) -> None:
    extension = kind()
    service_with(config={"port": 1}, auth_session="the session", api_client_factory="the factory").register(extension)
    given = dict(extension.given)
    assert given["config"] == {"port": 1}
    assert given["auth_session"] == "the session"
    assert given["api_client_factory"] == "the factory"
    assert len(given) == len(extension.given) == 6


@pytest.mark.parametrize("bases", [(), (AuthenticationAware,)], ids=["duck", "base"])
def test_a3_the_session_comes_by_the_seeds_other_spelling_as_well(bases: tuple[type, ...]) -> None:
    given: list[Any] = []

    def set_bot_session(self: Any, auth_session: Any) -> None:
        given.append(auth_session)

    kind = type("Other", bases, {"set_bot_session": set_bot_session})
    service_with(auth_session="the session").register(kind)
    assert given == ["the session"]


def test_a3_the_other_spelling_may_come_from_any_base_class() -> None:
    class Mixin:
        given: Any = None

        def set_bot_session(self, auth_session: Any) -> None:
            self.given = auth_session

    class Mixed(Mixin, AuthenticationAware):
        pass

    extension = Mixed()
    service_with(auth_session="the session").register(extension)
    assert extension.given == "the session"


@pytest.mark.parametrize("base", AWARE_BASES)
def test_a3_a_base_without_its_setter_cannot_be_registered(base: type) -> None:
    with pytest.raises(PluginLoadError, match="is abstract: define set_"):
        service_with().register(type("Forgetful", (base,), {}))


def test_a3_the_engines_client_stands_in_for_a_factory_that_nobody_bound() -> None:
    extension = Duck()
    service_with(client="the client").register(extension)
    assert dict(extension.given)["api_client_factory"] == "the client"


def test_a3_what_the_host_does_not_have_is_given_as_none() -> None:
    extension = Duck()
    service_with().register(extension)
    given = dict(extension.given)
    assert [given[key] for key in ("auth_session", "api_client_factory", "config", "engine", "journal")] == [None] * 5


def test_a3_a_service_is_only_built_for_an_extension_that_has_its_setter() -> None:
    built: list[str] = []

    class Login(ServiceProvider):
        def provide_auth_session(self) -> str:
            built.append("session")
            return "the session"

    extensions = ExtensionService(PluginManager(container=Container([Login])))
    extensions.register(Greeter)
    assert built == []
    extensions.register(Duck)
    assert built == ["session"]


def test_a3_a_service_that_is_bound_and_cannot_be_built_is_an_error_not_none() -> None:
    class Login(ServiceProvider):
        def provide_auth_session(self, missing: Any) -> str:
            return "never"

    extensions = ExtensionService(PluginManager(container=Container([Login])))
    with pytest.raises(DependencyBuildingFailure, match="missing"):
        extensions.register(Duck)


def test_a3_a_configuration_is_read_by_attribute_or_by_key() -> None:
    extension = Duck()
    service_with(config={"retry": {"max_attempts": 3}, "port": 1}).register(extension)
    config = dict(extension.given)["config"]
    assert (config.port, config["port"], config.retry.max_attempts) == (1, 1, 3)
    assert not hasattr(config, "missing")
    with pytest.raises(AttributeError, match="the configuration has no 'missing'"):
        _ = config.missing


def test_a3_a_configuration_of_a_class_of_its_own_is_given_as_it_is() -> None:
    class Own(dict[str, Any]):
        pass

    own, extension = Own(), Duck()
    service_with(config=own).register(extension)
    assert dict(extension.given)["config"] is own


# --- a 4: when, in which order, and what if it fails ---


def test_a4_injection_happens_in_register_factory_session_config_and_then_ours() -> None:
    extension = Duck()
    service_with(config={}).register(extension)
    assert [key for key, _ in extension.given] == [
        "api_client_factory",
        "auth_session",
        "config",
        "logger",
        "engine",
        "journal",
    ]


@pytest.mark.parametrize("error", [AttributeError, ValueError, KeyboardInterrupt])
def test_a4_an_error_inside_a_setter_propagates_and_leaves_nothing_registered(error: type[BaseException]) -> None:
    class Broken(Greeter):
        is_broken = True

        def set_config(self, config: Any) -> None:
            if self.is_broken:
                raise error("inside")

    manager = manager_with()
    extensions = ExtensionService(manager)
    with pytest.raises(error, match="inside"):
        extensions.register(Broken)
    assert manager.plugins() == []
    with pytest.raises(UnknownExtension):
        extensions.service(Broken)
    Broken.is_broken = False
    extensions.register(Broken)
    assert extensions.service(Broken)


def test_a4_an_error_inside_the_constructor_propagates_and_leaves_nothing_registered() -> None:
    class Broken:
        def __init__(self) -> None:
            raise AttributeError("inside")

    manager = manager_with()
    with pytest.raises(AttributeError, match="inside"):
        ExtensionService(manager).register(Broken)
    assert manager.plugins() == []


def test_a4_an_error_inside_get_service_propagates_as_it_is() -> None:
    class Broken:
        def get_service(self) -> None:
            raise AttributeError("inside get_service")

    extensions = service_with()
    extensions.register(Broken)
    for _ in range(2):
        with pytest.raises(AttributeError, match=r"^inside get_service$"):
            extensions.service(Broken)


def no_argument(self: Any) -> None:
    pytest.fail("called")


def two_arguments(self: Any, one: Any, two: Any) -> None:
    pytest.fail("called")


async def asynchronous(self: Any, config: Any) -> None:
    pytest.fail("called")


@pytest.mark.parametrize("setter", [no_argument, two_arguments, asynchronous, "a string"], ids=kind_of)
def test_a4_a_setter_that_cannot_be_called_with_one_value_is_an_error_that_names_it(setter: Any) -> None:
    class Wrong:
        set_config = setter

        def set_api_client_factory(self, factory: Any) -> None:
            pytest.fail("called although another setter is wrong")

    manager = manager_with()
    with pytest.raises(SetterError, match=r"Wrong\.set_config"):
        ExtensionService(manager).register(Wrong)
    assert manager.plugins() == []


def test_a4_a_setter_may_have_further_parameters_with_defaults() -> None:
    class Generous:
        def set_config(self, config: Any, strict: bool = False) -> None:
            self.given = (config, strict)

    extension = Generous()
    service_with(config={"port": 1}).register(extension)
    assert extension.given == ({"port": 1}, False)


# --- a 5: @retry by the configuration of its object ---


class Session:
    """Counts its refreshes; like those of the seed, it is refreshed asynchronously."""

    def __init__(self) -> None:
        self.refreshes = 0

    async def refresh(self) -> None:
        await anyio.lowlevel.checkpoint()
        self.refreshes += 1


class Flaky:
    """A service whose calls fail with the given errors, one after the other, and then succeed."""

    def __init__(self, *errors: BaseException, config: Any = None) -> None:
        self._retry_config = config or RetryConfig(initial_interval_s=0.001)
        self._auth_session = Session()
        self._errors = list(errors)
        self.calls = 0

    def attempt(self) -> str:
        self.calls += 1
        if self._errors:
            raise self._errors.pop(0)
        return "answer"

    @retry
    async def bare(self) -> str:
        return self.attempt()

    @retry()
    async def called(self) -> str:
        return self.attempt()

    @retry
    def plain(self) -> str:
        return self.attempt()

    @retry
    async def hang(self) -> None:
        self.calls += 1
        await anyio.sleep_forever()


def unauthorized() -> ClientError:
    return ClientError(message="no", status_code=401)


@pytest.mark.anyio
@pytest.mark.parametrize("method", ["bare", "called"])
async def test_a5_an_async_method_waits_refreshes_and_repeats_on_either_loop(method: str) -> None:
    service = Flaky(unauthorized(), TimeoutError(), httpx.ConnectError("no"))
    assert await getattr(service, method)() == "answer"
    assert (service.calls, service._auth_session.refreshes) == (4, 1)


@pytest.mark.anyio
async def test_a5_after_ten_calls_by_default_the_last_exception_is_raised_as_it_is() -> None:
    errors = [unauthorized() for _ in range(20)]
    service = Flaky(*errors, config={"initial_interval_s": 0})
    with pytest.raises(ClientError) as raised:
        await service.bare()
    assert raised.value is errors[9]
    assert (service.calls, service._auth_session.refreshes) == (10, 9)


@pytest.mark.parametrize("status", [400, 404])
def test_a5_a_client_error_that_does_not_pass_is_raised_after_one_call(status: int) -> None:
    service = Flaky(ClientError(message="no", status_code=status))
    with pytest.raises(ClientError):
        service.plain()
    assert (service.calls, service._auth_session.refreshes) == (1, 0)


@pytest.mark.anyio
async def test_a5_a_cancellation_is_not_repeated_on_either_loop() -> None:
    service = Flaky()
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(service.hang)
            await anyio.wait_all_tasks_blocked()
            scope.cancel()
    assert scope.cancelled_caught
    assert service.calls == 1


@pytest.mark.anyio
async def test_a5_a_cancellation_while_waiting_ends_the_attempts() -> None:
    service = Flaky(TimeoutError(), config=RetryConfig(initial_interval_s=300))
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(service.bare)
            await anyio.wait_all_tasks_blocked()
            scope.cancel()
    assert scope.cancelled_caught
    assert service.calls == 1


def test_a5_the_wrapper_of_a_coroutine_function_is_one() -> None:
    assert inspect.iscoroutinefunction(Flaky.bare)
    assert inspect.iscoroutinefunction(Flaky.called)
    assert not inspect.iscoroutinefunction(Flaky.plain)


# --- a 6: @retry by a mechanism of one's own, and the same strategies in a step ---


def repeat_value_errors(state: RetryCallState) -> bool:
    """A mechanism as a user writes it, for a service and for a step alike."""
    assert state.outcome is not None
    return state.outcome.failed and isinstance(state.outcome.exception(), ValueError)


STRATEGIES: list[Any] = [
    {"retry": repeat_value_errors, "stop": stop_after_attempt(3), "wait": wait_fixed(0)},
    {"retry": retry_if_exception(is_transient), "stop": stop_after_attempt(3)},
]


def failure_for(strategies: dict[str, Any]) -> Exception:
    return ValueError("again") if strategies["retry"] is repeat_value_errors else TimeoutError("again")


@pytest.mark.parametrize("strategies", STRATEGIES, ids=["mechanism", "is_transient"])
@pytest.mark.parametrize("failures", [2, 3])
def test_a6_the_strategies_of_a_service_method_are_a_steps_retry_policy(
    strategies: dict[str, Any], failures: int
) -> None:
    calls: list[str] = []

    def attempt(where: str) -> None:
        calls.append(where)
        if calls.count(where) <= failures:
            raise failure_for(strategies)

    class Service:
        _retry_config = None

        @retry(**strategies)
        def method(self) -> None:
            attempt("service")

    class Step(BackgroundTransaction):
        retry = RetryPolicy(**strategies)

        def execute(self, request: dict[str, Any]) -> Any:
            attempt("step")
            return BackgroundResponse.done()

    class Order(Saga):
        def transactions(self, request: dict[str, Any]) -> list[Any]:
            return [Step]

    is_enough = failures < 3
    if is_enough:
        Service().method()
    else:
        with pytest.raises(type(failure_for(strategies))):
            Service().method()
    status = run_saga(Order, {"id": "PR-1"}).status
    assert (calls.count("service"), calls.count("step")) == (3, 3)
    assert (status is SagaStatus.COMPLETED) == is_enough


@pytest.mark.anyio
async def test_a6_try_again_and_a_mechanism_that_is_async_repeat_on_either_loop() -> None:
    seen: list[Any] = []

    async def mechanism(state: RetryCallState) -> bool:
        await anyio.lowlevel.checkpoint()
        assert state.outcome is not None
        seen.append((state.args[1:], state.outcome.failed))
        return state.outcome.failed

    class Service:
        _retry_config = RetryConfig(initial_interval_s=0)

        @retry(retry=mechanism)
        async def method(self, argument: int) -> str:
            errors = (tenacity.TryAgain(), ValueError())
            calls.append(argument)
            if len(calls) <= len(errors):
                raise errors[len(calls) - 1]
            return "answer"

    calls: list[int] = []
    assert await Service().method(7) == "answer"
    assert calls == [7, 7, 7]
    assert seen == [((7,), True), ((7,), False)]


@pytest.mark.anyio
async def test_a6_none_as_configuration_means_one_attempt_of_an_async_method_too() -> None:
    service = Flaky(unauthorized())
    service._retry_config = None
    with pytest.raises(ClientError):
        await service.bare()
    assert (service.calls, service._auth_session.refreshes) == (1, 0)
