"""What the local Connect tells the runner is what Connect tells it, and a person is told what came back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from saga_engine.connect.local_api import ASSET_REQUESTS, TIER_CONFIG_REQUESTS
from saga_engine.connect.local_board import DeliveryBoard, told
from saga_engine.connect.local_errors import TaskRefused
from saga_engine.connect.local_protocol import (
    TaskResult,
    category_of,
    collection_of,
    default_event,
    setup_response,
    task_frame,
)

TRACEBACK = "Traceback (most recent call last):\n  File 'x'\nValueError: too many seats\n"


def result(result: str, **output: Any) -> TaskResult:
    return TaskResult.from_output({"result": result, "runtime": 0.251, **output}, "2026-01-01T00:00:00+00:00")


@pytest.mark.parametrize(
    ("request_", "event"),
    [
        ({"id": "PR-1", "type": "purchase", "asset": {}}, "asset_purchase_request_processing"),
        ({"id": "PR-1", "type": "cancel", "asset": {}}, "asset_cancel_request_processing"),
        ({"id": "TCR-1", "type": "setup", "configuration": {}}, "tier_config_setup_request_processing"),
    ],
)
def test_a_request_is_delivered_with_the_event_of_its_type(request_: dict[str, Any], event: str) -> None:
    assert default_event(request_) == event


@pytest.mark.parametrize(
    ("request_", "problem"),
    [
        ({}, "needs an id and a type"),
        ({"id": "PR-1", "asset": {}}, "needs an id and a type"),
        ({"id": 1, "type": "purchase", "asset": {}}, "needs an id and a type"),
        ({"id": "PR-1", "type": "purchase"}, "PR-1 has neither an asset nor a configuration"),
    ],
)
def test_what_is_no_request_is_refused(request_: dict[str, Any], problem: str) -> None:
    with pytest.raises(TaskRefused, match=problem):
        default_event(request_)


@pytest.mark.parametrize(
    ("event", "category"),
    [
        ("asset_purchase_request_processing", "background"),
        ("tier_config_setup_request_validation", "interactive"),
        ("product_action_execution", "interactive"),
        ("product_custom_event_processing", "interactive"),
        ("scheduled_execution", "scheduled"),
        ("listing_new_request_processing", "background"),
    ],
)
def test_an_event_is_treated_as_the_runner_treats_it(event: str, category: str) -> None:
    assert category_of(event) == category


def test_an_event_is_about_a_collection_if_the_local_connect_has_it() -> None:
    assert collection_of("asset_change_request_processing") is ASSET_REQUESTS
    assert collection_of("tier_config_change_request_processing") is TIER_CONFIG_REQUESTS
    assert collection_of("listing_new_request_processing") is None


def test_a_worker_is_told_its_variables_and_where_to_ask_for_each_of_its_events() -> None:
    subscriptions = {"asset_purchase_request_processing": ["pending"], "tier_config_setup_request_processing": []}
    frame = json.loads(setup_response({"event_subscriptions": subscriptions}, {"POLL_S": "5"}, ["PRD-1"], "DEBUG"))
    data = frame["data"]
    assert (frame["version"], frame["message_type"], data["model_type"]) == (2, "setup_response", "setup_response")
    assert data["variables"] == [{"name": "POLL_S", "value": "5", "secure": False}]
    assert (data["logging"]["log_level"], data["logging"]["meta"]["products"]) == ("DEBUG", ["PRD-1"])
    assert data["event_definitions"] == [
        {
            "event_type": "asset_purchase_request_processing",
            "api_collection_endpoint": "requests",
            "api_resource_endpoint": "requests/{pk}",
            "api_collection_filter": "and(eq(id,${_object_id_}),in(status,${_statuses_}))",
        },
        {
            "event_type": "tier_config_setup_request_processing",
            "api_collection_endpoint": "tier/config-requests",
            "api_resource_endpoint": "tier/config-requests/{pk}",
            "api_collection_filter": "and(eq(id,${_object_id_}),in(status,${_statuses_}))",
        },
    ]


def test_a_task_names_its_event_and_its_object() -> None:
    frame = json.loads(task_frame("TQ-1", "background", "asset_purchase_request_processing", "PR-1", None))
    assert frame["message_type"] == "task"
    assert frame["data"]["options"] == {"task_id": "TQ-1", "task_category": "background"}
    assert frame["data"]["input"] == {
        "event_type": "asset_purchase_request_processing",
        "object_id": "PR-1",
        "data": None,
    }


@pytest.mark.parametrize(
    ("result", "is_final"),
    [
        (result("success"), True),
        (result("fail"), True),
        (result("skip"), True),
        (result("reschedule"), False),
        (result("retry"), False),
    ],
)
def test_success_fail_and_skip_end_a_task(result: TaskResult, is_final: bool) -> None:
    assert result.is_final is is_final


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (result("success"), "success after 251 ms"),
        (result("fail", message="no credit\nat all"), "fail after 251 ms: no credit at all"),
        (result("reschedule", countdown=45), "reschedule after 251 ms: asks for the next delivery in 45.0 s"),
        (result("retry", message=TRACEBACK), "retry after 251 ms: ValueError: too many seats"),
        (result("retry"), "retry after 251 ms: no reason"),
    ],
)
def test_an_answer_is_told_in_a_line(result: TaskResult, text: str) -> None:
    assert told(result) == text


def test_the_board_has_a_line_for_each_delivery_and_each_answer(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from saga_engine.connect.local_tasks import LocalTask

    monkeypatch.setattr("saga_engine.connect.local_board.clock_time", lambda _: "12:00:00")
    task = LocalTask("TQ-1", "asset_purchase_request_processing", "PR-1", None, None, None)  # type: ignore[arg-type]
    board = DeliveryBoard()
    for deliveries, came in ((1, None), (1, result("reschedule", countdown=45)), (2, None), (2, result("success"))):
        task._deliveries = deliveries
        board.observe(task, came)
    assert capsys.readouterr().out == (
        "  12:00:00  PR-1  delivered: asset_purchase_request_processing\n"
        "  12:00:00  PR-1  reschedule after 251 ms: asks for the next delivery in 45.0 s\n"
        "  12:00:00  PR-1  delivered again: asset_purchase_request_processing\n"
        "  12:00:00  PR-1  success after 251 ms\n"
    )
