"""The seed documents' examples of extensions, word for word: only import lines and the host's name are changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import TaskStatus
from tenacity import RetryCallState

from saga_engine import Engine
from saga_engine.extensions.application import ExtensionManager
from saga_engine.extensions.background import ExtensionBase
from saga_engine.extensions.errors import NoService
from transactions import RetryConfig

DEADLINE_S = 20

#: What each import line of the examples becomes.
IMPORTS = {
    "from symphony.bdk.core.extension import BdkExtensionServiceProvider, BdkAuthenticationAware, BdkConfigAware": (
        "from saga_engine.extensions import ExtensionServiceProvider as BdkExtensionServiceProvider\n"
        "from saga_engine.extensions import AuthenticationAware as BdkAuthenticationAware\n"
        "from saga_engine.extensions import ConfigAware as BdkConfigAware"
    ),
    "from symphony.bdk.core.retry import retry": "from transactions import retry",
}

SERVICE_PROVIDER = """\
# The Service implementation class.
class MyBdkExtensionService:
    def say_hello(self, name):
        print(f"Hello, {name}!")


# The Extension definition class.
class MyBdkExtension:
    def __init__(self):
        self._service = MyBdkExtensionService()

    def get_service(self):
        return self._service


# Usage example.
async def run():
    config = BdkConfigLoader.load_from_symphony_dir("config.yaml")

    async with SymphonyBdk(config) as bdk:
        extension_service = bdk.extensions()
        extension_service.register(MyBdkExtensionService)

        service = extension_service.service(MyBdkExtensionService)
        service.say_hello("Symphony")


asyncio.run(run())
"""

CONFIG_AWARE = """\
class MyBdkExtension(BdkConfigAware):
    def __init__(self):
        self._config = None

    def set_config(self, config):
        self._config = config
"""

API_CLIENT_FACTORY_AWARE = """\
class MyBdkExtension(BdkApiClientFactoryAware):
    def __init__(self):
        self._api_client_factory = None

    def set_api_client_factory(self, api_client_factory):
        self._api_client_factory = api_client_factory
"""

AUTHENTICATION_AWARE = """\
class MyBdkExtension(BdkAuthenticationAware):
    def __init__(self):
        self._auth_session = None

    def set_auth_session(self, auth_session):
        self._auth_session = auth_session
"""

RETRYING_SERVICE = """\
from symphony.bdk.core.extension import BdkExtensionServiceProvider, BdkAuthenticationAware, BdkConfigAware
from symphony.bdk.core.retry import retry

class MyExtension(BdkConfigAware, BdkAuthenticationAware, BdkExtensionServiceProvider):
    def __init__(self):
        self._config = None
        self._auth_session = None

    def set_config(self, config):
        self._config = config

    def set_bot_session(self, auth_session):
        self._auth_session = auth_session

    def get_service(self):
        return MyService(self._config.retry, self._auth_session)


class MyService:
    def __init__(self, retry_config, auth_session):
        self._retry_config = retry_config  # used by the @retry decorator
        self._auth_session = auth_session  # default retry logic will call refresh on self._auth_session

    @retry
    async def my_service_method(self):
        pass  # do stuff which will be retried
"""

RETRY_MECHANISM = """\
async def my_retry_mechanism(retry_state):
    \"""Function used by the retry decorator to check if a function call has to be retried.

    :param retry_state: current retry state, of type RetryCallState: https://tenacity.readthedocs.io/en/latest/#retrycallstate
    :return: True if we want to retry, False otherwise
    \"""
    if retry_state.outcome.failed:
        exception = retry_state.outcome.exception()  # exception that lead to the failure
        if condition_on_exception(exception):
            # do stuff to recover the exception
            # method args can be accessed as follows: retry_state.args
            return True  # return True to retry the function
    return False  # return False to not retry and make function call fail

class MyService:
    def __init__(self, retry_config, auth_session):
        self._retry_config = retry_config  # used by the @retry decorator
        self._auth_session = auth_session  # default retry logic will call refresh on self._auth_session

    @retry(retry=my_retry_mechanism)
    async def my_service_method(self):
        pass  # do stuff which will be retried
"""

#: The one line of the two classes above that stands for the user's own code.
STUFF = "        pass  # do stuff which will be retried"


class Session:
    """The session that the host authenticated."""

    def __init__(self) -> None:
        self.refreshes = 0

    async def refresh(self) -> None:
        await anyio.lowlevel.checkpoint()
        self.refreshes += 1


class NotAuthorized(Exception):
    """What an API client raises for an answer of 401."""

    status = 401


@asynccontextmanager
async def symphony_bdk(config: dict[str, Any]) -> AsyncIterator[Engine]:
    """Open the engine that takes the host's place."""
    with Engine("memory://", config=config, client="the client factory") as engine:
        yield engine


def run_example(text: str, **names: Any) -> SimpleNamespace:
    """Run an example with its import lines changed, and give the names that it defines."""
    for line, ours in IMPORTS.items():
        text = text.replace(line, ours)
    namespace: dict[str, Any] = {
        "__name__": "example",
        "asyncio": asyncio,
        "BdkConfigLoader": SimpleNamespace(load_from_symphony_dir=lambda file: {"file": file}),
        "SymphonyBdk": symphony_bdk,
        **names,
    }
    exec(compile(text, "<example>", "exec"), namespace)
    return SimpleNamespace(**namespace)


def test_a2_the_usage_example_as_it_is_written_asks_a_service_for_its_service_and_gets_a_value_error() -> None:
    with pytest.raises(ValueError, match=r"MyBdkExtensionService has no get_service\(\)") as raised:
        run_example(SERVICE_PROVIDER)
    assert isinstance(raised.value, NoService)


def test_a2_the_usage_example_with_the_extension_class_says_hello(capsys: pytest.CaptureFixture[str]) -> None:
    meant = SERVICE_PROVIDER.replace("register(MyBdkExtensionService)", "register(MyBdkExtension)")
    run_example(meant.replace("service(MyBdkExtensionService)", "service(MyBdkExtension)"))
    assert capsys.readouterr().out == "Hello, Symphony!\n"


@pytest.mark.parametrize(
    ("example", "base", "attribute", "given"),
    [
        (CONFIG_AWARE, "BdkConfigAware", "_config", {"auth_session": "the session"}),
        (API_CLIENT_FACTORY_AWARE, "BdkApiClientFactoryAware", "_api_client_factory", "the client factory"),
        (AUTHENTICATION_AWARE, "BdkAuthenticationAware", "_auth_session", "the session"),
    ],
    ids=["config", "api client factory", "authentication"],
)
@pytest.mark.parametrize("is_duck", [False, True], ids=["with the base", "without it"])
def test_a3_the_aware_examples_are_given_what_they_ask_for(
    example: str, base: str, attribute: str, given: Any, is_duck: bool
) -> None:
    imports = "" if is_duck else f"from saga_engine.extensions import {base[3:]} as {base}\n"
    made = run_example(imports + example, **({base: object} if is_duck else {}))
    extension = made.MyBdkExtension()
    with Engine("memory://", config={"auth_session": "the session"}, client="the client factory") as engine:
        engine.extensions().register(extension)
    assert getattr(extension, attribute) == given


@pytest.mark.parametrize("is_plain", [True, False], ids=["a dict", "a RetryConfig"])
def test_a5_the_example_of_a_retrying_service_refreshes_its_session_and_repeats(is_plain: bool) -> None:
    calls: list[int] = []

    async def do_stuff() -> str:
        calls.append(1)
        if len(calls) < 3:
            raise NotAuthorized
        return "done"

    session = Session()
    fast = {"max_attempts": 5, "initial_interval_s": 0}
    config = {"retry": fast if is_plain else RetryConfig.of(fast), "auth_session": session}
    made = run_example(RETRYING_SERVICE.replace(STUFF, "        return await do_stuff()"), do_stuff=do_stuff)

    async def use() -> str:
        async with symphony_bdk(config) as bdk:
            bdk.extensions().register(made.MyExtension)
            answer: str = await bdk.extensions().service(made.MyExtension).my_service_method()
            return answer

    assert asyncio.run(use()) == "done"
    assert (len(calls), session.refreshes) == (3, 2)


def test_a6_the_example_of_a_retry_mechanism_is_asked_and_decides() -> None:
    from transactions import retry

    calls: list[int] = []
    seen: list[Any] = []

    async def do_stuff() -> None:
        calls.append(1)
        raise (ValueError if len(calls) < 3 else KeyError)

    def condition_on_exception(exception: BaseException) -> bool:
        seen.append(type(exception))
        return isinstance(exception, ValueError)

    made = run_example(
        RETRY_MECHANISM.replace(STUFF, "        await do_stuff()"),
        retry=retry,
        do_stuff=do_stuff,
        condition_on_exception=condition_on_exception,
        RetryCallState=RetryCallState,
    )
    with pytest.raises(KeyError):
        asyncio.run(made.MyService({"initial_interval_s": 0}, None).my_service_method())
    assert seen == [ValueError, ValueError, KeyError]


# --- an extension as a user of the other seed document writes it ---


class Beacon(ExtensionBase["Ground"]):
    """Serves a port in the background, and beats while there is somebody to hear it."""

    def __init__(self) -> None:
        super().__init__()
        self.port = 0

    def configure(self, configuration: dict[str, Any]) -> None:
        super().configure(configuration)
        self.port = configuration.get("port", 4000)

    async def run(self, app: Ground, configuration: dict[str, Any], logger: Any) -> None:
        async with self.use_nursery():
            bound = await self.start_in_background(self.serve, self.port)
            app.events.append(f"{self.name} serves {bound}")
            self.start_in_background_soon(self.break_down)
            await anyio.sleep_forever()

    async def serve(self, port: int, *, task_status: TaskStatus[int] = anyio.TASK_STATUS_IGNORED) -> None:
        assert self.app is not None
        task_status.started(port)
        try:
            await anyio.sleep_forever()
        finally:
            self.app.events.append("stopped serving")

    async def break_down(self) -> None:
        assert self.app is not None
        self.app.events.append("a task breaks down")
        raise RuntimeError("broken")

    async def worker(self) -> None:
        assert self.app is not None
        self.app.events.append("beats")
        await anyio.sleep_forever()

    def teardown(self) -> None:
        assert self.app is not None
        self.app.events.append("torn down")


class Ground:
    """The application of the seed document, as far as its extensions see it."""

    def __init__(self) -> None:
        self.events: list[str] = []


async def until(condition: Callable[[], object]) -> None:
    """Give the other tasks their turns until the condition holds."""
    with anyio.fail_after(DEADLINE_S):
        while not condition():
            await anyio.lowlevel.checkpoint()


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_c2_an_extension_with_a_server_in_the_background_lives_through_the_breakdown_of_another_task(
    anyio_backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    ground = Ground()
    extensions = ExtensionManager(ground)
    extensions.add("beacon", Beacon)
    await extensions.load_all({"beacon": {"enabled": True, "port": 8080}})
    await until(lambda: "a task breaks down" in ground.events and caplog.records)
    async with extensions.client():
        await until(lambda: "beats" in ground.events)
    await extensions.unload_all()
    assert ground.events == ["beacon serves 8080", "a task breaks down", "beats", "stopped serving", "torn down"]
    (record,) = caplog.records
    assert "Beacon.break_down failed" in record.getMessage()
