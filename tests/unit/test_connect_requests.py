"""Requests of Connect as something to ask: what is found, what is set, and what is said to be missing."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from saga_engine.connect import AssetRequest, Parameters, TierConfigRequest
from saga_engine.errors import BadRequest, MissingItem, MissingParameter, MissingTier

DELIVERED = json.loads((Path(__file__).parents[2] / "examples" / "purchase" / "request.json").read_text())

ADDRESS = {"city": "Madrid"}

TIER_CONFIG: dict[str, Any] = {
    "id": "TCR-1",
    "type": "setup",
    "status": "pending",
    "params": [{"id": "reseller_id", "value": ""}],
    "configuration": {
        "id": "TC-1",
        "account": {"id": "TA-1", "name": "Example Reseller"},
        "tier_level": 1,
        "params": [{"id": "region", "value": "EU"}],
    },
}


@pytest.fixture
def raw() -> dict[str, Any]:
    """Deliver a request anew."""
    return copy.deepcopy(DELIVERED)


def test_a_request_tells_what_it_is(raw: dict[str, Any]) -> None:
    request = AssetRequest(raw)
    assert (request.id, request.type, request.status) == ("PR-5852-1608-0000-001", "purchase", "pending")
    assert request.asset_id == "AS-5852-1608-0000"
    assert request.tier("customer")["id"] == "TA-5301-6040-2000"


def test_parameters_are_read_by_their_ids(raw: dict[str, Any]) -> None:
    parameters = AssetRequest(raw).parameters
    assert parameters["admin_email"] == parameters.required("admin_email") == "admin@customer.example"
    assert dict(parameters) == {"admin_email": "admin@customer.example", "customer_id": "", "subscription_id": ""}
    assert (parameters.get("color", "red"), "color" in parameters, len(parameters)) == ("red", False, 3)


def test_what_is_set_is_in_the_request_and_is_what_changed(raw: dict[str, Any]) -> None:
    request = AssetRequest(raw)
    request.parameters["customer_id"] = "C-1"
    request.parameters["admin_email"] = "admin@customer.example"
    request.parameters.mark("subscription_id", "comes later")
    assert raw["asset"]["params"][1]["value"] == "C-1"
    changed = [{"id": "customer_id", "value": "C-1"}, {"id": "subscription_id", "value_error": "comes later"}]
    assert request.parameters.changed() == changed
    assert AssetRequest(raw).parameters.changed() == [], "a new look begins anew"


def test_a_structured_value_is_found_set_and_what_changed(raw: dict[str, Any]) -> None:
    raw["asset"]["params"].append({"id": "address", "value": "", "structured_value": {"city": "Rome"}})
    parameters = AssetRequest(raw).parameters
    assert parameters["address"] == {"city": "Rome"}
    parameters["address"] = ADDRESS
    assert parameters["address"] == ADDRESS
    assert parameters.changed() == [{"id": "address", "structured_value": ADDRESS}]


def test_a_change_inside_a_structured_value_is_a_change(raw: dict[str, Any]) -> None:
    raw["asset"]["params"].append({"id": "address", "structured_value": {"city": "Rome"}})
    parameters = AssetRequest(raw).parameters
    parameters["address"]["city"] = "Madrid"
    assert parameters.changed() == [{"id": "address", "structured_value": ADDRESS}]


def test_a_parameter_that_is_not_there_is_named_with_those_that_are(raw: dict[str, Any]) -> None:
    parameters = AssetRequest(raw).parameters
    text = (
        "asset AS-5852-1608-0000 has no parameter 'color': define it in the product "
        "(there are: admin_email, customer_id, subscription_id)"
    )
    with pytest.raises(MissingParameter) as missing:
        parameters["color"]
    assert str(missing.value) == text
    with pytest.raises(KeyError):
        parameters["color"] = "red"
    with pytest.raises(MissingParameter):
        parameters.mark("color", "wrong")


def test_a_required_parameter_that_is_empty_is_missing(raw: dict[str, Any]) -> None:
    with pytest.raises(MissingParameter, match="parameter 'customer_id' is empty: inquire for it"):
        AssetRequest(raw).parameters.required("customer_id")


def test_the_parameters_of_the_configuration_and_of_an_item_are_read_alike(raw: dict[str, Any]) -> None:
    raw["asset"]["configuration"]["params"] = [{"id": "region", "value": "EU"}]
    raw["asset"]["items"][0]["params"] = [{"id": "size", "value": "50"}]
    request = AssetRequest(raw)
    assert request.configuration["region"] == "EU"
    assert request.item("MAIL-STANDARD").parameters["size"] == "50"
    with pytest.raises(MissingParameter, match="the configuration of asset AS-5852-1608-0000 has no parameter"):
        request.configuration["color"]


def test_items_are_found_by_id_and_by_mpn_with_numbers_for_quantities(raw: dict[str, Any]) -> None:
    request = AssetRequest(raw)
    item = request.item("MAIL-STANDARD")
    assert item.id == request.item("PRD-276-377-545-0001").id
    assert (item.quantity, item.old_quantity, item.difference) == (10, 0, 10)
    assert isinstance(item.quantity, int)
    assert [each.mpn for each in request.items] == ["MAIL-STANDARD", "MAIL-ARCHIVE"]
    with pytest.raises(MissingItem, match=r"has no item 'FAX'.*MAIL-STANDARD, MAIL-ARCHIVE"):
        request.item("FAX")


@pytest.mark.parametrize(
    ("quantity", "old", "expected"),
    [("2.5", "1", (2.5, 1, 1.5)), ("unlimited", "3", (float("inf"), 3, float("inf"))), ("1", None, (1, 0, 1))],
)
def test_quantities_may_be_parts_and_without_limit(raw: dict[str, Any], quantity: str, old: str, expected: Any) -> None:
    raw["asset"]["items"][0].update(quantity=quantity, old_quantity=old)
    item = AssetRequest(raw).items[0]
    assert (item.quantity, item.old_quantity, item.difference) == expected


def test_what_was_without_limit_and_stays_so_does_not_change(raw: dict[str, Any]) -> None:
    raw["asset"]["items"][0].update(quantity="unlimited", old_quantity="unlimited")
    assert AssetRequest(raw).items[0].difference == 0


@pytest.mark.parametrize("quantity", ["many", None, [], ""])
def test_a_quantity_that_is_no_number_is_refused(raw: dict[str, Any], quantity: Any) -> None:
    raw["asset"]["items"][0]["quantity"] = quantity
    with pytest.raises(BadRequest, match="item PRD-276-377-545-0001: its quantity is"):
        _ = AssetRequest(raw).items[0].quantity


def test_a_tier_that_the_asset_does_not_have_is_named(raw: dict[str, Any]) -> None:
    with pytest.raises(MissingTier, match=r"has no tier 'tier2' \(there are: customer, tier1, tier2\)"):
        AssetRequest(raw).tier("tier2")


def test_a_tier_configuration_tells_its_account_and_both_kinds_of_parameters() -> None:
    request = TierConfigRequest(copy.deepcopy(TIER_CONFIG))
    assert (request.id, request.account["name"], request.tier_level) == ("TCR-1", "Example Reseller", 1)
    assert request.configuration["region"] == "EU"
    request.parameters["reseller_id"] = "R-1"
    assert request.parameters.changed() == [{"id": "reseller_id", "value": "R-1"}]
    with pytest.raises(MissingParameter, match="tier config request TCR-1 has no parameter 'region'"):
        request.parameters["region"]


@pytest.mark.parametrize(
    ("kind", "raw", "message"),
    [
        (AssetRequest, None, "None is no request"),
        (AssetRequest, {"id": 1}, "is no request: deliver an object with an id"),
        (AssetRequest, {"id": "PR-1"}, "PR-1 has no object 'asset'"),
        (AssetRequest, {"id": "PR-1", "asset": {"id": "AS-1", "params": [{}]}}, "asset AS-1: its params are no list"),
        (TierConfigRequest, {"id": "TCR-1"}, "TCR-1 has no object 'configuration'"),
    ],
)
def test_what_is_no_such_request_is_refused(kind: Any, raw: Any, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        kind(raw)


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda request: request.type, "TCR-1: type is None"),
        (lambda request: request.tier_level, "TCR-1: the configuration's tier_level is None"),
        (lambda request: request.account, "TCR-1: the configuration has no object 'account'"),
    ],
)
def test_what_a_request_does_not_tell_is_named(read: Any, message: str) -> None:
    request = TierConfigRequest({"id": "TCR-1", "configuration": {}})
    with pytest.raises(BadRequest, match=message):
        read(request)


def test_parameters_of_nothing_say_so() -> None:
    with pytest.raises(MissingParameter, match=r"there are: none"):
        Parameters("asset AS-1", []).parameter("color")
