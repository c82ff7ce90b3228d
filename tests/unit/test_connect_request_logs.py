"""The logger that is bound to a request: ids in every line, secrets in none."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import structlog
from connect.eaas.core.responses import BackgroundResponse
from connect_stub import ASSET_REQUEST, TIER_REQUEST

from saga_engine import Saga
from saga_engine.connect import AssetRequest, BadValue, request_logger
from saga_engine.testing import run_saga
from transactions import transaction

LOGGER = logging.getLogger("test.requests")
IDS = {"request_id": "PR-1", "asset_id": "AS-1", "customer_id": "TA-1", "tier1_id": "TA-2"}


@pytest.fixture(autouse=True)
def _at_info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "test.requests")


def fields(record: logging.LogRecord, names: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in names}


def test_lines_carry_the_ids_of_an_asset_request(caplog: pytest.LogCaptureFixture) -> None:
    request_logger(LOGGER, ASSET_REQUEST).info("%s of %s", "tenant", "T-1")
    (record,) = caplog.records
    assert record.getMessage() == "PR-1: tenant of T-1"
    assert fields(record, IDS) == IDS
    assert not hasattr(record, "tier2_id")


def test_lines_carry_the_ids_of_a_tier_configuration_request(caplog: pytest.LogCaptureFixture) -> None:
    request_logger(LOGGER, TIER_REQUEST).info("there")
    ids = {"request_id": "TCR-1", "tier_config_id": "TC-1", "account_id": "TA-2"}
    assert fields(caplog.records[0], ids) == ids


def test_a_view_will_do_as_well_as_the_request(caplog: pytest.LogCaptureFixture) -> None:
    request_logger(LOGGER, AssetRequest(ASSET_REQUEST)).info("there")
    assert fields(caplog.records[0], IDS) == IDS


def test_what_the_runners_adapter_and_the_caller_add_stays(caplog: pytest.LogCaptureFixture) -> None:
    adapter = logging.LoggerAdapter(LOGGER, {"task_id": "TQ-1"})
    request_logger(adapter, ASSET_REQUEST).info("there", extra={"seats": 3})
    assert fields(caplog.records[0], ["task_id", "seats", "request_id"]) == {
        "task_id": "TQ-1",
        "seats": 3,
        "request_id": "PR-1",
    }


def test_secrets_are_masked_also_in_parameters_of_type_password(caplog: pytest.LogCaptureFixture) -> None:
    secrets = [
        {"api_key": "s3cret"},
        {"params": [{"id": "admin_access", "type": "password", "value": "s3cret"}]},
        {"params": [{"id": "client_secret", "type": "object", "structured_value": {"v": "s3cret"}}]},
    ]
    log = request_logger(LOGGER, ASSET_REQUEST)
    for one in secrets:
        log.info("sent %s", one)
        log.info("sent", extra={"body": one})
    assert "s3cret" not in caplog.text
    assert all("s3cret" not in str(vars(record)) for record in caplog.records)
    assert caplog.text.count("***") == 3


def test_a_logger_that_is_bound_already_is_bound_to_the_other_request(caplog: pytest.LogCaptureFixture) -> None:
    request_logger(request_logger(LOGGER, ASSET_REQUEST), TIER_REQUEST).info("there")
    assert caplog.records[0].getMessage() == "TCR-1: there"
    assert not hasattr(caplog.records[0], "asset_id")


@pytest.mark.parametrize("arguments", [("T-1",), ()])
def test_an_id_with_a_percent_sign_breaks_no_message(caplog: pytest.LogCaptureFixture, arguments: Any) -> None:
    log = request_logger(LOGGER, {**ASSET_REQUEST, "id": "P%s"})
    log.info("of %s" if arguments else "100% there", *arguments)
    assert caplog.records[0].getMessage() == ("Ps: of T-1" if arguments else "Ps: 100% there")


def test_the_callers_line_is_told(caplog: pytest.LogCaptureFixture) -> None:
    request_logger(LOGGER, ASSET_REQUEST).warning("there")
    assert caplog.records[0].funcName == "test_the_callers_line_is_told"


def test_nothing_is_made_of_a_line_below_the_level(caplog: pytest.LogCaptureFixture) -> None:
    request_logger(LOGGER, ASSET_REQUEST).debug("there")
    assert caplog.records == []


def test_steps_log_with_the_ids_of_the_request_and_of_the_saga(caplog: pytest.LogCaptureFixture) -> None:
    @transaction
    def tell(request: dict[str, Any], logger: Any) -> Any:
        logger.info("in a step")
        return BackgroundResponse.done()

    class Order(Saga):
        def transactions(self, request: dict[str, Any]) -> list[Any]:
            return [tell]

    run_saga(Order, ASSET_REQUEST, logger=request_logger(LOGGER, ASSET_REQUEST))
    record = next(record for record in caplog.records if "in a step" in record.getMessage())
    assert record.getMessage() == "PR-1: in a step"
    assert fields(record, ["asset_id", "saga_id", "step"]) == {
        "asset_id": "AS-1",
        "saga_id": "Order:PR-1",
        "step": "tell",
    }


def test_a_structlog_logger_is_bound() -> None:
    with structlog.testing.capture_logs() as logs:
        request_logger(structlog.get_logger(), ASSET_REQUEST).info("there")
    assert logs == [{"event": "there", "log_level": "info", **IDS}]


def test_any_other_logger_is_given_back() -> None:
    class Own:
        def info(self, message: str) -> None: ...

    own = Own()
    assert request_logger(own, ASSET_REQUEST) is own


def test_what_is_no_request_is_refused() -> None:
    with pytest.raises(BadValue):
        request_logger(LOGGER, {"id": "UF-1"})
