"""Logs: what is masked, what a step's logger adds and leaves alone, and what is bound for structlog."""

from __future__ import annotations

import logging
from collections import namedtuple
from typing import Any

import pytest
import structlog
from connect.eaas.core.responses import BackgroundResponse
from sagas import DONE, SAGA_ID, World, saga_of
from tenacity import stop_after_attempt

from saga_engine import Engine, SagaContext
from saga_engine.logs import engine_logger, mask, mask_secrets, step_logger
from saga_engine.testing import ManualClock
from transactions import BackgroundTransaction, RetryPolicy

FAIL = BackgroundResponse.fail("no")


class Records(logging.Handler):
    """Keeps what was logged, as records and as text."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def texts(self) -> list[str]:
        return [record.getMessage() for record in self.records]


def application_logger(handler: logging.Handler) -> logging.Logger:
    """Make a logger of its own: what `getLogger` gives would outlive the test."""
    made = logging.Logger("application", logging.DEBUG)  # noqa: LOG001
    made.addHandler(handler)
    return made


@pytest.fixture
def records() -> Records:
    return Records()


@pytest.fixture
def logger(records: Records) -> logging.Logger:
    """A logger of the application's, with nothing of ours about it."""
    return application_logger(records)


@pytest.fixture
def context() -> SagaContext:
    return SagaContext(SAGA_ID, "Order", "Create customer", {}, attempt=2)


# --- masking ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    [
        "password",
        "PASSWORD",
        "db_password",
        "passwd",
        "token",
        "access_token",
        "refreshToken",
        "secret",
        "client_secret",
        "api_key",
        "apiKey",
        "API-KEY",
        "Authorization",
        "private_key",
        "pwd",
        "aws_access_key",
    ],
)
def test_what_stands_under_a_secrets_key_is_masked_however_deep(key):
    assert mask({"a": [{"b": {key: "hush"}}], "c": 1}) == {"a": [{"b": {key: "***"}}], "c": 1}


@pytest.mark.parametrize("value", [{"deep": "hush"}, ["hush"], 7, None])
def test_all_of_a_secrets_value_is_masked_whatever_it_is(value):
    assert mask({"secret": value}) == {"secret": "***"}


@pytest.mark.parametrize("key", ["name", "passenger", "keyboard", "id", "tok", "email", "access_key_id"])
def test_other_keys_are_left_alone(key):
    assert mask({key: "shown"}) == {key: "shown"}


def test_a_connect_parameter_is_masked_by_its_id():
    request = {
        "asset": {
            "params": [
                {"id": "api_key", "value": "hush", "structured_value": {"x": "hush"}, "title": "API key"},
                {"id": "subscription_id", "value": "S-1"},
                {"name": "admin password", "value": "hush"},
            ]
        }
    }
    assert mask(request)["asset"]["params"] == [
        {"id": "api_key", "value": "***", "structured_value": "***", "title": "API key"},
        {"id": "subscription_id", "value": "S-1"},
        {"name": "admin password", "value": "***"},
    ]


def test_masking_copies_and_leaves_the_original_alone():
    original = {"list": [{"token": "hush"}], "tuple": ({"token": "hush"},)}
    masked = mask(original)
    assert masked == {"list": [{"token": "***"}], "tuple": ({"token": "***"},)}
    assert original["list"][0]["token"] == "hush"


def test_what_is_in_a_named_tuple_is_masked_too():
    pair = namedtuple("pair", "first second")
    assert mask(pair({"token": "hush"}, 1)) == pair({"token": "***"}, 1)


def test_a_value_that_holds_itself_is_masked_to_an_end():
    endless: dict[str, Any] = {"password": "hush"}
    endless["self"] = endless
    assert "hush" not in repr(mask(endless))


def test_the_structlog_processor_masks_the_event_itself_and_what_is_in_it():
    event = {"event": "told", "api_key": "hush", "request": {"params": [{"id": "password", "value": "hush"}]}}
    assert "hush" not in repr(mask_secrets(None, "info", event))


# --- the logger of a step -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrapped", [False, True], ids=["Logger", "LoggerAdapter"])
def test_a_step_logger_adds_execution_step_and_attempt(logger, records, context, wrapped):
    step_logger(logging.LoggerAdapter(logger, {}) if wrapped else logger, context).info("created %s", "C-1")
    [record] = records.records
    assert record.getMessage() == "created C-1"
    assert (record.saga_id, record.step, record.attempt) == (SAGA_ID, "Create customer", 2)


def test_the_attempt_is_the_one_at_the_time_of_the_call(logger, records, context):
    made = step_logger(logger, context)
    context.attempt = 7
    made.info("again")
    assert records.records[0].attempt == 7


class Prefixing(logging.LoggerAdapter):
    """An adapter as many applications have one: it changes the message and replaces `extra`."""

    def process(self, msg, kwargs):
        return f"[{self.extra['id']}] {msg}", {**kwargs, "extra": self.extra}


def test_what_the_wrapped_adapter_does_with_the_message_stays(logger, records, context):
    step_logger(Prefixing(logger, {"id": "PR-1"}), context).info("created")
    [record] = records.records
    assert record.getMessage() == "[PR-1] created"
    assert (record.id, record.saga_id) == ("PR-1", SAGA_ID)


def test_adapters_around_adapters_all_have_their_say(logger, records, context):
    nested = Prefixing(Prefixing(logger, {"id": "inner"}), {"id": "outer"})
    nested.info("created")
    step_logger(nested, context).info("created")
    assert records.texts == ["[inner] [outer] created"] * 2
    assert records.records[1].saga_id == SAGA_ID


def test_what_the_caller_gives_as_extra_stays_masked(logger, records, context):
    step_logger(logger, context).info("x", extra={"customer": "C-1", "token": "hush", "deep": {"secret": "hush"}})
    [record] = records.records
    assert (record.customer, record.token, record.deep) == ("C-1", "***", {"secret": "***"})


def test_what_the_adapter_itself_adds_as_extra_is_masked_too(logger, records, context):
    step_logger(logging.LoggerAdapter(logger, {"api_key": "hush", "product": "PRD-1"}), context).info("x")
    [record] = records.records
    assert (record.api_key, record.product) == ("***", "PRD-1")


@pytest.mark.parametrize("wrapped", [False, True], ids=["Logger", "LoggerAdapter"])
def test_arguments_of_a_message_are_masked(logger, records, context, wrapped):
    made = step_logger(logging.LoggerAdapter(logger, {}) if wrapped else logger, context)
    made.info("sending %s", {"password": "hush", "user": "me"})
    made.info("%s and %s", {"token": "hush"}, [{"id": "api_key", "value": "hush"}])
    made.info({"secret": "hush"})
    made.info("%(user)s %(password)s", {"password": "hush", "user": "me"})
    assert len(records.texts) == 4
    assert "hush" not in repr(records.texts)
    assert "me" in records.texts[0]


def test_every_method_of_a_logger_works(logger, records, context):
    made = step_logger(logging.LoggerAdapter(logger, {}), context)
    made.debug("d")
    made.info("i")
    made.warning("w")
    made.error("e")
    made.critical("c")
    made.log(logging.INFO, "l")
    try:
        raise ValueError("no")
    except ValueError:
        made.exception("x")
    levels = ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "INFO", "ERROR"]
    assert [record.levelname for record in records.records] == levels
    assert records.records[-1].exc_info[0] is ValueError
    assert {record.saga_id for record in records.records} == {SAGA_ID}
    assert made.isEnabledFor(logging.DEBUG)
    assert made.name == "application"


def test_the_level_of_the_logger_is_kept(logger, records, context):
    logger.setLevel(logging.WARNING)
    made = step_logger(logger, context)
    made.info("no")
    made.warning("yes")
    assert records.texts == ["yes"]


@pytest.mark.parametrize("wrapped", [False, True], ids=["Logger", "LoggerAdapter"])
def test_a_record_names_the_line_of_the_step_that_logged(logger, records, context, wrapped):
    made = step_logger(logging.LoggerAdapter(logger, {}) if wrapped else logger, context)
    made.info("by a method")
    made.log(logging.INFO, "by its level")
    assert [record.funcName for record in records.records] == [
        "test_a_record_names_the_line_of_the_step_that_logged"
    ] * 2
    assert {record.filename for record in records.records} == {"test_logs.py"}


def test_without_a_logger_a_step_gets_the_products_own(context, caplog):
    with caplog.at_level(logging.INFO):
        step_logger(None, context).info("created")
    assert [(record.name, record.saga_id) for record in caplog.records] == [("saga_engine.steps", SAGA_ID)]


def test_a_structlog_logger_comes_bound(context):
    with structlog.testing.capture_logs() as captured:
        step_logger(structlog.get_logger(), context).info("created", customer="C-1")
    assert captured == [
        {"event": "created", "customer": "C-1", "saga_id": SAGA_ID, "step": "Create customer", "log_level": "info"}
    ]


def test_any_other_logger_is_handed_on_as_it_is(context):
    own = object()
    assert step_logger(own, context) is own


# --- in an execution ----------------------------------------------------------------------------------------------


class Logs(BackgroundTransaction):
    """A step that logs with what it has injected, in each operation; its first attempt fails."""

    retry = RetryPolicy(stop=stop_after_attempt(2))
    attempts = 0

    def __init__(self, logger):
        self.logger = logger

    def execute(self, request):
        type(self).attempts += 1
        self.logger.info("execute", extra={"payload": {"token": "hush"}})
        if self.attempts % 2:
            raise ValueError("busy")
        return DONE

    def compensate(self, request, e):
        self.logger.warning("compensate")
        return DONE


@pytest.mark.parametrize("wrapped", [False, True], ids=["Logger", "LoggerAdapter"])
def test_steps_of_an_execution_log_with_their_place_in_it(logger, records, wrapped):
    world = World()
    given = logging.LoggerAdapter(logger, {"request_id": "R-1"}) if wrapped else logger
    Logs.attempts = 0
    with Engine("memory://", clock=ManualClock()) as engine:
        saga_of(Logs, world.step("b", FAIL)).make(logger=given, engine=engine).resolve({"id": "PR-1"})
    own = [record for record in records.records if record.getMessage() in ("execute", "compensate")]
    assert [(record.getMessage(), record.step, record.attempt) for record in own] == [
        ("execute", "Logs", 1),
        ("execute", "Logs", 2),
        ("compensate", "Logs", 1),
    ]
    assert {record.saga_id for record in own} == {SAGA_ID}
    assert "hush" not in repr([vars(record) for record in records.records])
    if wrapped:
        assert {record.request_id for record in own} == {"R-1"}


def test_the_engine_tells_each_entry_to_the_handlers_logger(logger, records):
    world = World()
    with Engine("memory://", clock=ManualClock()) as engine:
        saga = saga_of(world.step("a"), world.step("b", FAIL))
        saga.make(logger=logging.LoggerAdapter(logger, {}), engine=engine).resolve({"id": "PR-1"})
    assert [text.partition(":")[0] for text in records.texts] == [
        "saga started",
        "step started",
        "step completed",
        "step started",
        "step failed",
        "compensation begun",
        "compensation started",
        "step compensated",
        "saga ended",
    ]
    assert all(f"saga_id='{SAGA_ID}'" in text for text in records.texts)
    assert [record.levelname for record in records.records].count("WARNING") == 2


def test_structlogs_context_is_bound_in_each_operation_and_unbound_after():
    world, seen = World(), []

    def look(request, *error):
        bound = structlog.contextvars.get_contextvars()
        seen.append((bound["saga_id"], bound["step"], bound["attempt"]))
        return DONE

    def refuse(request):
        look(request)
        return FAIL

    with Engine("memory://", clock=ManualClock()) as engine:
        saga = saga_of(world.step("a", look, undo=look, wanted=look), world.step("b", refuse))
        saga.make(engine=engine).resolve({"id": "PR-1"})
    assert set(seen) == {(SAGA_ID, "a", 1), (SAGA_ID, "b", 1)}
    assert len(seen) >= 4
    assert structlog.contextvars.get_contextvars() == {}


def test_what_the_handler_bound_stays_bound_within_and_after():
    world, seen = World(), []

    def look(request):
        seen.append(structlog.contextvars.get_contextvars())
        return DONE

    with (
        Engine("memory://", clock=ManualClock()) as engine,
        structlog.contextvars.bound_contextvars(tenant="T-1", step="the handler's own"),
    ):
        saga_of(world.step("a", look)).make(engine=engine).resolve({"id": "PR-1"})
        assert structlog.contextvars.get_contextvars() == {"tenant": "T-1", "step": "the handler's own"}
    assert seen == [{"tenant": "T-1", "saga_id": SAGA_ID, "step": "a", "attempt": 1}]


def test_a_structlog_logger_as_it_comes_serves_engine_and_steps():
    world = World()
    Logs.attempts = 1
    with structlog.testing.capture_logs() as captured, Engine("memory://", clock=ManualClock()) as engine:
        saga = saga_of(LogsWithStructlog, world.step("b"))
        told = saga.make(logger=structlog.get_logger(), engine=engine).resolve({"id": "PR-1"})
    assert told.status == "success"
    events = [event["event"] for event in captured]
    assert "created" in events
    assert "saga ended" in events


class LogsWithStructlog(BackgroundTransaction):
    """A step that logs in structlog's way."""

    def __init__(self, logger):
        self.logger = logger

    def execute(self, request):
        self.logger.info("created", customer="C-1")
        return DONE


class Broken(logging.Handler):
    """A handler that fails."""

    def emit(self, record: logging.LogRecord) -> None:
        raise OSError("the log disk is full")


def test_a_log_that_cannot_be_written_does_not_end_an_execution():
    world = World()
    own = application_logger(Broken())
    with Engine("memory://", clock=ManualClock()) as engine:
        told = saga_of(world.step("a"), world.step("b")).make(logger=own, engine=engine).resolve({"id": "PR-1"})
    assert told.status == "success"
    assert world.executed == ["a", "b"]


def test_the_engines_own_events_are_masked(logger, records):
    engine_logger(logger).warning("told", token="hush", request={"params": [{"id": "api_key", "value": "hush"}]})
    assert len(records.texts) == 1
    assert "hush" not in records.texts[0]
