"""OfflineCriteria: which requests are not carried out, how the criteria are written, and what is refused."""

from __future__ import annotations

import asyncio
import copy
import json
from typing import Any

import pytest
from connect.eaas.core.responses import BackgroundResponse
from connect_stub import ASSET_REQUEST, TIER_REQUEST

from middleware import BadCriteria, ConfiguredOfflineCriteria, OfflineCriteria, make_middleware_callstack
from saga_engine import Saga, SagaStatus
from saga_engine.testing import run_saga
from transactions import BackgroundTransaction, SagaError

SUSPEND = {**ASSET_REQUEST, "type": "suspend"}


class Suspend(BackgroundTransaction):
    """Suspends at the vendor."""

    def execute(self, request: dict[str, Any]) -> BackgroundResponse:
        return BackgroundResponse.done()

    def compensate(self, request: dict[str, Any], e: Exception) -> BackgroundResponse:
        return BackgroundResponse.done()


def answer_of(criteria: Any, request: dict[str, Any] = SUSPEND, **options: Any) -> Any:
    """Give the answer for a request, through the call stack of a middleware alone."""
    return make_middleware_callstack([OfflineCriteria(criteria, **options)], Suspend().execute)(request)


@pytest.mark.parametrize("type_", ["suspend", "cancel"])
def test_a_suspension_or_cancellation_of_an_offline_asset_is_skipped(type_: str) -> None:
    answer = answer_of({"asset_ids": ["AS-1", "AS-2"]}, {**ASSET_REQUEST, "type": type_})
    assert (answer.status, answer.output) == (
        "skip",
        f"asset AS-1 is offline by its asset_ids: PR-1 ({type_}) is not carried out",
    )


@pytest.mark.parametrize("type_", ["purchase", "change", "resume"])
def test_other_requests_of_an_offline_asset_are_carried_out(type_: str) -> None:
    assert answer_of({"asset_ids": ["AS-1"]}, {**ASSET_REQUEST, "type": type_}).status == "success"


def test_the_types_can_be_chosen() -> None:
    resume = {**ASSET_REQUEST, "type": "resume"}
    assert answer_of({"asset_ids": ["AS-1"]}, resume, types=["resume"]).status == "skip"
    assert answer_of({"asset_ids": ["AS-1"]}, SUSPEND, types=["resume"]).status == "success"


@pytest.mark.parametrize(
    "criteria",
    [
        {"asset_ids": ["AS-1"]},
        {"connection_ids": ["CT-1"]},
        {"connection_types": ["test", "production"]},
        {"customer_ids": ["TA-1"]},
        {"hub_ids": ["HB-1"]},
        {"marketplace_ids": ["MP-1"]},
        {"product_ids": "PRD-1"},
        {"parameters": {"email": ["a@b.example"]}},
    ],
    ids=lambda criteria: next(iter(criteria)),
)
def test_each_criterion_is_met_by_what_it_names_only(criteria: dict[str, Any]) -> None:
    assert answer_of(criteria).status == "skip"
    (name,) = criteria
    other = {"parameters": {"email": ["x"]}} if name == "parameters" else {name: ["x"]}
    assert answer_of(other).status == "success"


@pytest.mark.parametrize("place", ["contract", "marketplace", "provider"])
def test_contract_marketplace_and_provider_are_also_found_inside_the_asset(place: str) -> None:
    request = copy.deepcopy(SUSPEND)
    holder = request["asset"]["connection"] if place == "provider" else request["asset"]
    holder[place] = {"id": "X-1"}
    assert answer_of({f"{place}_ids": ["X-1"]}, request).status == "skip"


def test_all_criteria_of_a_set_must_be_met() -> None:
    assert answer_of({"asset_ids": ["AS-1"], "connection_types": ["test"]}).status == "success"
    assert answer_of({"asset_ids": ["AS-1"], "connection_types": ["production"]}).status == "skip"
    assert answer_of({"parameters": {"email": ["a@b.example"], "tenant": ["T-1"]}}).status == "success"


def test_any_one_set_of_criteria_will_do() -> None:
    criteria = [{"connection_types": ["test"]}, {"asset_ids": ["AS-1"]}]
    assert answer_of(criteria).output.startswith("asset AS-1 is offline by its asset_ids")
    assert OfflineCriteria(criteria).met_by(SUSPEND) == {"asset_ids": ("AS-1",)}


def test_no_criteria_are_met_by_no_asset() -> None:
    assert answer_of([]).status == "success"


@pytest.mark.parametrize("request_", [TIER_REQUEST, {"type": "suspend"}, {"type": "suspend", "asset": None}, {}])
def test_a_request_without_an_asset_is_carried_out(request_: dict[str, Any]) -> None:
    assert answer_of({"asset_ids": ["AS-1"]}, {**request_, "type": "suspend"}).status == "success"


def test_what_the_request_lacks_meets_no_criterion() -> None:
    request = {"id": "PR-1", "type": "suspend", "asset": {"id": "AS-1"}}
    assert answer_of({"hub_ids": ["HB-1"]}, request).status == "success"
    assert answer_of({"parameters": {"email": ["x"]}}, request).status == "success"


def test_criteria_may_be_json() -> None:
    assert answer_of(json.dumps([{"asset_ids": ["AS-1"]}])).status == "skip"


def test_somebody_else_may_answer() -> None:
    seen = []

    def approve(request: dict[str, Any]) -> BackgroundResponse:
        seen.append(request["id"])
        return BackgroundResponse.done()

    assert answer_of({"asset_ids": ["AS-1"]}, on_match=approve).status == "success"
    assert seen == ["PR-1"]


def test_an_async_step_is_passed_on_to_be_awaited() -> None:
    async def execute(request: dict[str, Any]) -> BackgroundResponse:
        return BackgroundResponse.done()

    call = make_middleware_callstack([OfflineCriteria([])], execute)
    assert asyncio.run(call(SUSPEND)).status == "success"  # type: ignore[arg-type]


def test_a_saga_of_an_offline_asset_ends_before_its_first_step() -> None:
    class SuspendSaga(Saga):
        def middlewares(self, request: dict[str, Any]) -> list[Any]:
            return [OfflineCriteria({"asset_ids": ["AS-1"]})]

        def transactions(self, request: dict[str, Any]) -> list[Any]:
            return [Suspend]

    result = run_saga(SuspendSaga, SUSPEND)
    assert (result.status, result.executed, result.response.status) == (SagaStatus.SKIPPED, [], "skip")


class Configured(Saga):
    """Takes its criteria from the variables of the extension."""

    def middlewares(self, request: dict[str, Any]) -> list[Any]:
        return [ConfiguredOfflineCriteria]

    def transactions(self, request: dict[str, Any]) -> list[Any]:
        return [Suspend]


@pytest.mark.parametrize(
    ("config", "executed"),
    [
        ({"OFFLINE_CRITERIA": '[{"asset_ids": ["AS-1"]}]'}, []),
        ({"OFFLINE_CRITERIA": '[{"asset_ids": ["AS-2"]}]'}, ["Suspend"]),
        ({"OFFLINE_CRITERIA": ""}, ["Suspend"]),
        ({}, ["Suspend"]),
    ],
)
def test_criteria_may_come_from_a_variable(config: dict[str, str], executed: list[str]) -> None:
    assert run_saga(Configured, SUSPEND, config=config).executed == executed


def test_a_variable_that_cannot_be_read_is_named() -> None:
    with pytest.raises(BadCriteria, match="the variable OFFLINE_CRITERIA: 'AS-1' is no JSON"):
        run_saga(Configured, SUSPEND, config={"OFFLINE_CRITERIA": "AS-1"})


@pytest.mark.parametrize(
    ("criteria", "wrong"),
    [
        ({}, "would be met by every asset"),
        ([{}], "would be met by every asset"),
        ({"asset": ["AS-1"]}, "asset: not known; use asset_ids"),
        ({"asset_ids": []}, "asset_ids is .*: give a list of texts"),
        ({"asset_ids": [1]}, "give a list of texts"),
        ({"parameters": ["x"]}, "parameters is .*: give lists by id"),
        ({"parameters": {"offline": [True]}}, r"parameters\.offline is"),
        (7, "7 is no list of criteria"),
        (["AS-1"], "names no criterion"),
        ("{", "is no JSON"),
    ],
)
def test_criteria_that_cannot_be_meant_are_refused(criteria: Any, wrong: str) -> None:
    with pytest.raises(BadCriteria, match=wrong) as refused:
        OfflineCriteria(criteria)
    assert isinstance(refused.value, SagaError)


@pytest.mark.parametrize("types", ["suspend", [], [None]])
def test_types_that_cannot_be_meant_are_refused(types: Any) -> None:
    with pytest.raises(BadCriteria, match="types="):
        OfflineCriteria([], types=types)
