"""The example with a plugin of each form does what it says, whether a program or a configuration file loads it."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest

from examples.plugins.__main__ import engine_at, main, request_page
from examples.plugins.announcer import Announcer
from examples.plugins.orders import OrderSaga
from examples.plugins.prices import Prices, PricesConfig
from examples.plugins.vendor import VendorExtension
from saga_engine import Engine, SagaStatus
from saga_engine.extensions import ConfigError
from saga_engine.extensions.errors import OperationDenied

FILE = Path(__file__).resolve().parents[2] / "examples" / "plugins" / "saga.toml"
DEADLINE_S = 10.0


@pytest.fixture
def engine(tmp_path):
    Prices.lookups = 0
    with engine_at(f"sqlite:///{tmp_path / 'saga.db'}") as made:
        made.start_plugins()
        yield made


def order(engine, number, item, quantity):
    saga_id = engine.start(OrderSaga, {"id": f"PR-{number}", "item": item, "quantity": quantity})
    engine.wait(saga_id, DEADLINE_S)
    return engine.get(saga_id)


def wait_for(condition, what):
    ends_at = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < ends_at, what
        time.sleep(0.005)


def test_the_story_is_told_to_its_end(capsys):
    main()
    told = capsys.readouterr().out
    assert "COMPLETED, saga of orders 1.4.0: {'total': 60, 'order': 'licence #1'}" in told
    assert "COMPENSATED, saga of orders 1.4.0: 50 are more than 20" in told
    assert "there is no price for 'unicorn'" in told
    assert "COMPLETED, saga of orders 1.4.0: {'total': 50, 'order': 'licence #2'}" in told


def test_the_extension_s_service_repeats_a_call_and_refreshes_a_session_that_has_ended(engine):
    api = engine.container.get("api_client_factory")()
    api.end_session()

    assert order(engine, 1, "licence", 2).status is SagaStatus.COMPLETED
    assert api.calls == ["log in", "order", "log in", "order", "order"]
    assert len(api.orders) == 1


def test_the_service_that_steps_get_is_that_of_the_extension_service(engine):
    assert type(engine.container.get("vendor")) is type(engine.extensions().service(VendorExtension))


def test_a_plugin_that_extends_the_point_of_another_one_refuses_an_order(engine):
    record = order(engine, 1, "licence", 21)

    assert record.status is SagaStatus.COMPENSATED
    assert record.response.output == "21 are more than 20"
    assert not engine.container.get("api_client_factory")().orders


def test_the_module_denies_an_order_before_anything_of_it_is_journaled(engine):
    with pytest.raises(OperationDenied, match="there is no price for 'unicorn'"):
        order(engine, 1, "unicorn", 1)
    assert engine.search() == []


def test_the_module_s_lookup_is_cached_until_its_page_sets_another_price(engine):
    assert order(engine, 1, "seat", 2).state["total"] == 10
    assert order(engine, 2, "seat", 3).state["total"] == 15
    assert Prices.lookups == 1
    assert request_page(engine, "PUT", "seat", "6") == {"item": "seat", "price": 6, "currency": "EUR"}
    assert order(engine, 3, "seat", 3).state["total"] == 18
    assert request_page(engine, "GET", "unicorn")["price"] is None


def test_the_extension_with_a_background_task_tells_of_completed_orders(engine, caplog):
    caplog.set_level(logging.INFO)

    order(engine, 1, "seat", 1)
    order(engine, 2, "seat", 50)
    order(engine, 3, "seat", 1)
    wait_for(lambda: "ordered: OrderSaga:PR-3" in caplog.text, "nobody told of the third order")
    assert "ordered: OrderSaga:PR-1" in caplog.text
    assert "ordered: OrderSaga:PR-2" not in caplog.text


def test_an_announcer_that_is_not_loaded_has_told_nothing():
    announcer = Announcer()
    assert announcer.app is None
    assert announcer.log is None


@pytest.mark.parametrize("price", [-1, "30", 1.5])
def test_the_module_refuses_a_price_that_is_none_with_its_place(price):
    with pytest.raises(ConfigError, match=r"prices\.seat: .* is no price"):
        Prices.parse_config({"prices": {"seat": price}})
    assert Prices.parse_config({}) == PricesConfig("EUR", {})


def test_the_configuration_file_loads_the_same_plugins(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    with Engine.from_file(FILE, journal=f"sqlite:///{tmp_path / 'saga.db'}") as engine:
        record = order(engine, 1, "licence", 2)
        wait_for(lambda: "ordered: OrderSaga:PR-1" in caplog.text, "nobody told of the order")
        limit = order(engine, 2, "licence", 21)

    assert record.status is SagaStatus.COMPLETED
    assert (record.plugin, record.plugin_version) == ("orders", "1.4.0")
    assert record.state == {"total": 60, "order": "licence #1"}
    assert limit.response.output == "21 are more than 20"
