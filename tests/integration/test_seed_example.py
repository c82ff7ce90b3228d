"""The seed framework's example code, word for word, with nothing changed but import lines."""

from __future__ import annotations

import asyncio
import importlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from connect.eaas.core.responses import BackgroundResponse
from sagas import saga_of

from saga_engine import Saga, SagaStatus, default_engine

# connect-eaas-core 38 imports it so, whatever an extension does.
pytestmark = pytest.mark.filterwarnings("ignore:InferringRouter is deprecated:DeprecationWarning")

#: The example, one file of the package `extension` at a time.
EXAMPLE = {
    "cached.py": """\
from rndi.cache.contracts import Cache
from rndi.connect.business_transactions.adapters import BackgroundTransaction


class CreateUserTransaction(BackgroundTransaction):
    def __init__(self, cache: Cache):
        self.cache = cache
""",
    "providers.py": """\
from logging import LoggerAdapter

from rndi.cache.adapters.sqlite.adapter import provide_sqlite_cache_adapter
from rndi.cache.contracts import Cache
from rndi.cache.provider import provide_cache
from rndi.dicontainer.adapter import BaseServiceProvider as ServiceProvider


class CacheServiceProvider(ServiceProvider):
    def provide_cache(self, config: dict, logger: LoggerAdapter) -> Cache:
        return provide_cache(config, logger, {
            'sqlite': provide_sqlite_cache_adapter,
        })
""",
    "transactions.py": """\
from connect.eaas.core.responses import BackgroundResponse
from rndi.connect.business_transactions.adapters import BackgroundTransaction
from rndi.connect.business_transactions.contracts import TBackgroundResponse


class SomeCoreTransaction(BackgroundTransaction):
    def __init__(self, client, logger, config, cache):
        self.client = client
        self.logger = logger
        self.config = config
        self.cache = cache

    def name(self) -> str:
        return 'Sample Transaction'

    def should_execute(self, request: dict) -> bool:
        return True

    def execute(self, request: dict) -> TBackgroundResponse:
        print("Running Execute!")
        return BackgroundResponse.done()

    def compensate(self, request: dict, e: Exception) -> TBackgroundResponse:
        raise e
""",
    "sagas.py": """\
from typing import List, Type
from rndi.connect.devops_fulfillment_framework.application import Saga
from rndi.connect.business_transaction_middleware.middleware import Middleware
from rndi.connect.business_transactions.adapters import BackgroundTransaction
from extension.transactions import SomeCoreTransaction


class PurchaseSaga(Saga):
    def middlewares(self, request: dict) -> List[Type[Middleware]]:
        return []

    def transactions(self, request: dict) -> List[Type[BackgroundTransaction]]:
        return [
            SomeCoreTransaction,
        ]
""",
    "events.py": """\
from connect.eaas.core.decorators import event
from connect.eaas.core.extension import EventsApplicationBase
from extension.sagas import PurchaseSaga


class SampleFulfillmentExtensionEventsApplication(EventsApplicationBase):
    @event('asset_purchase_request_processing', statuses=['pending'])
    def handle_asset_purchase_request_processing(self, request):
        self.logger.info(f"Obtained request with id {request['id']}")
        return PurchaseSaga.make(self.config, self.client, self.logger).resolve(request)
""",
}

#: What the import lines become; every other line stays as it is.
IMPORTS = {
    "rndi.cache.contracts": "saga_engine.services",
    "rndi.cache.adapters.sqlite.adapter": "saga_engine.services",
    "rndi.cache.provider": "saga_engine.services",
    "rndi.dicontainer.adapter": "saga_engine.services",
    "rndi.connect.business_transactions.adapters": "transactions",
    "rndi.connect.business_transactions.contracts": "transactions",
    "rndi.connect.business_transaction_middleware.middleware": "middleware",
    "rndi.connect.devops_fulfillment_framework.application": "saga_engine",
}


def _ported(source: str) -> str:
    lines = []
    for line in source.splitlines():
        first, _, rest = line.partition(" ")
        module, _, names = rest.partition(" ")
        lines.append(f"from {IMPORTS.get(module, module)} {names}" if first == "from" else line)
    return "\n".join(lines) + "\n"


@pytest.fixture
def extension(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Imports one file of the example, as the package `extension`."""
    package = tmp_path / "extension"
    package.mkdir()
    (package / "__init__.py").touch()
    for name, source in EXAMPLE.items():
        (package / name).write_text(_ported(source))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield lambda name: importlib.import_module(f"extension.{name}")
    for name in [name for name in sys.modules if name.partition(".")[0] == "extension"]:
        del sys.modules[name]


@pytest.fixture
def config(journal_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """The extension's variables, and a process that has not built an engine yet."""
    monkeypatch.setattr("saga_engine.engine._engines", {})
    variables = {"SAGA_JOURNAL_URL": journal_url, "CACHE_DIR": str(tmp_path / "cache")}
    yield variables
    default_engine(variables).close()


@pytest.fixture
def logger() -> Any:
    """A logger as the runner gives it."""
    return logging.LoggerAdapter(logging.getLogger("eaas"), {"task_id": "TQ-1"})


def _application(events: ModuleType, config: dict[str, str], logger: Any) -> Any:
    return events.SampleFulfillmentExtensionEventsApplication("the client", logger, config)


def test_only_import_lines_differ_from_the_seed() -> None:
    for source in EXAMPLE.values():
        pairs = list(zip(source.splitlines(), _ported(source).splitlines(), strict=True))
        assert all(before.startswith("from ") for before, after in pairs if before != after)
        assert "rndi" not in _ported(source)


def test_the_handler_of_the_example_fulfils_a_request_and_keeps_its_answer(
    extension: Any, config: dict[str, str], logger: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    events = extension("events")
    for _ in range(2):  # Connect delivers again
        application = _application(events, config, logger)
        response = application.handle_asset_purchase_request_processing({"id": "PR-1"})
        assert isinstance(response, BackgroundResponse)
        assert response.status == "success"
    assert capsys.readouterr().out == "Running Execute!\n"
    record = default_engine(config).get("PurchaseSaga:PR-1")
    assert record.status is SagaStatus.COMPLETED
    assert [step.name for step in record.steps] == ["Sample Transaction"]


def test_connect_finds_the_handler_of_the_example(extension: Any) -> None:
    application = extension("events").SampleFulfillmentExtensionEventsApplication
    assert application.get_events() == [
        {
            "method": "handle_asset_purchase_request_processing",
            "event_type": "asset_purchase_request_processing",
            "statuses": ["pending"],
        }
    ]


def test_the_saga_of_the_example_runs_on_an_event_loop_too(extension: Any, config: dict[str, str], logger: Any) -> None:
    saga = extension("sagas").PurchaseSaga.make(config, "the client", logger)
    assert asyncio.run(saga.aresolve({"id": "PR-1"})).status == "success"


def test_the_transaction_of_the_example_gets_its_services(extension: Any, config: dict[str, str], logger: Any) -> None:
    seen: dict[str, Any] = {}

    class Looking(extension("transactions").SomeCoreTransaction):  # type: ignore[misc]
        def execute(self, request: dict[str, Any]) -> BackgroundResponse:
            self.cache.put("customer", {"id": "C-1"})
            seen.update(client=self.client, config=self.config, cached=self.cache.get("customer"))
            self.logger.info("looked")
            return BackgroundResponse.done()

    saga = saga_of(Looking).make(config, "the client", logger)
    assert saga.resolve({"id": "PR-1"}).status == "success"
    assert seen == {"client": "the client", "config": config, "cached": {"id": "C-1"}}


def test_the_compensation_of_the_example_says_that_there_is_nothing_to_undo(
    extension: Any, config: dict[str, str], logger: Any
) -> None:
    class Failing(extension("transactions").SomeCoreTransaction):  # type: ignore[misc]
        def execute(self, request: dict[str, Any]) -> BackgroundResponse:
            raise ConnectionError("vendor down")

    response = saga_of(Failing).make(config, "the client", logger).resolve({"id": "PR-1"})
    assert (response.status, response.output) == ("fail", "vendor down")
    assert default_engine(config).get("Order:PR-1").status is SagaStatus.COMPENSATED


def test_the_service_provider_of_the_example_provides_the_cache_by_its_type(
    extension: Any, config: dict[str, str], logger: Any, tmp_path: Path
) -> None:
    provider = extension("providers").CacheServiceProvider
    seen: list[Any] = []

    class CreateUser(extension("cached").CreateUserTransaction):  # type: ignore[misc]
        def execute(self, request: dict[str, Any]) -> BackgroundResponse:
            self.cache.put("user", "U-1")
            seen.append(self.cache.get("user"))
            return BackgroundResponse.done()

    class Provided(Saga):
        providers = {"cache": provider}  # noqa: RUF012  # as an extension's author would write it

        def transactions(self, request: dict[str, Any]) -> list[Any]:
            return [CreateUser]

    assert Provided.make(config, "the client", logger).resolve({"id": "PR-1"}).status == "success"
    assert seen == ["U-1"]
    assert (tmp_path / "cache").is_dir()
