"""Views over Connect's requests: what they find, what they change, and what they say when something is missing."""

from __future__ import annotations

import copy
from decimal import Decimal
from typing import Any

import pytest
from connect_stub import ASSET_REQUEST, TIER_REQUEST

from saga_engine.connect import (
    UNLIMITED,
    AssetRequest,
    BadValue,
    MissingField,
    MissingInRequest,
    MissingItem,
    MissingParameter,
    MissingTier,
    TierConfigRequest,
)
from saga_engine.connect.tier_requests import view_of
from saga_engine.errors import SagaError


@pytest.fixture
def order() -> AssetRequest:
    return AssetRequest(copy.deepcopy(ASSET_REQUEST))


@pytest.fixture
def setup() -> TierConfigRequest:
    return TierConfigRequest(copy.deepcopy(TIER_REQUEST))


def test_an_asset_request_tells_what_it_is(order: AssetRequest) -> None:
    assert (order.id, order.type, order.status, order.asset_id) == ("PR-1", "purchase", "pending", "AS-1")
    assert order.field("asset.connection.hub.id") == "HB-1"
    assert order.field("asset.contract.id", None) is None


def test_a_field_that_is_missing_is_named_with_what_there_is(order: AssetRequest) -> None:
    with pytest.raises(MissingField) as missing:
        order.field("asset.connection.vendor.id")
    assert str(missing.value) == "PR-1 has no asset.connection.vendor.id: asset.connection holds: id, type, hub"


def test_a_field_below_a_value_is_missing_too(order: AssetRequest) -> None:
    with pytest.raises(MissingField, match=r"asset\.id holds: a str"):
        order.field("asset.id.deeper")


def test_parameters_are_read_by_their_ids(order: AssetRequest) -> None:
    assert order.value("email") == "a@b.example"
    assert order.parameter("email") is order.request["asset"]["params"][0]
    assert "email" in order.parameters
    assert list(order.parameters) == ["email", "domain", "tenant", "phone"]
    assert len(order.parameters) == 4


def test_a_missing_parameter_is_named_with_its_place_and_with_what_there_is(order: AssetRequest) -> None:
    with pytest.raises(MissingParameter) as missing:
        order.value("seats")
    assert str(missing.value) == (
        "asset.params of PR-1: there is no parameter 'seats'; there are: email, domain, tenant, phone"
    )


@pytest.mark.parametrize("error", [MissingField, MissingItem, MissingParameter, MissingTier])
def test_what_is_missing_is_an_error_of_ours_and_a_key_error(error: type[Exception]) -> None:
    assert issubclass(error, (MissingInRequest,))
    assert issubclass(error, SagaError)
    assert issubclass(error, KeyError)
    assert str(error("it's gone")) == "it's gone"


def test_a_default_stands_for_a_missing_parameter_and_for_one_without_a_value(order: AssetRequest) -> None:
    assert order.value("seats", None) is None
    assert order.value("domain", "example.org") == "example.org"
    assert order.value("domain") == ""


def test_a_structured_parameter_has_its_structured_value(order: AssetRequest) -> None:
    assert order.value("phone") == {"country_code": "+34"}
    order.set_value("phone", {"country_code": "+49"})
    assert order.changed_parameters() == [{"id": "phone", "structured_value": {"country_code": "+49"}}]


def test_a_structured_parameter_also_takes_a_text(order: AssetRequest) -> None:
    order.set_value("phone", "+49 30")
    assert order.value("phone") == "+49 30"
    assert order.changed_parameters() == [{"id": "phone", "value": "+49 30"}]


def test_a_structured_parameter_without_a_value_is_sent_empty(order: AssetRequest) -> None:
    order.set_value("phone", None)
    assert order.value("phone", "none") == "none"
    assert order.changed_parameters() == [{"id": "phone", "structured_value": {}}]


def test_what_was_set_is_copied(order: AssetRequest) -> None:
    value = {"country_code": "+49"}
    order.set_value("phone", value)
    order.changed_parameters()[0]["structured_value"]["country_code"] = "+1"
    value["country_code"] = "+2"
    assert order.value("phone") == {"country_code": "+49"}


@pytest.mark.parametrize("value", [True, 1.5, object()])
def test_a_value_that_connect_does_not_take_is_refused_without_being_shown(order: AssetRequest, value: Any) -> None:
    with pytest.raises(BadValue, match=f"the value of 'tenant' is a {type(value).__name__}: give a text"):
        order.set_value("tenant", value)
    assert order.changed_parameters() == []


def test_a_text_parameter_takes_no_structured_value(order: AssetRequest) -> None:
    with pytest.raises(BadValue, match="'tenant' is of type 'text': give a text, not a dict"):
        order.set_value("tenant", {"id": "T-1"})


def test_a_parameter_of_no_known_type_takes_either() -> None:
    order = AssetRequest({"id": "PR-1", "asset": {"params": [{"id": "any"}]}})
    order.set_value("any", ["a"])
    assert order.value("any") == ["a"]
    order.set_value("any", "a")
    assert order.value("any") == "a"


def test_nothing_changed_is_an_empty_list(order: AssetRequest) -> None:
    order.set_value("tenant", None)
    order.set_value("email", "a@b.example")
    order.set_error("domain", "")
    assert order.changed_parameters() == []


def test_a_whole_number_is_written_as_a_text(order: AssetRequest) -> None:
    order.set_value("tenant", 12)
    assert order.request["asset"]["params"][2]["value"] == "12"


def test_only_what_changed_since_the_view_was_made_is_listed(order: AssetRequest) -> None:
    order.set_value("tenant", "T-1")
    assert order.changed_parameters() == [{"id": "tenant", "value": "T-1"}]
    assert AssetRequest(order.request).changed_parameters() == []


def test_what_changed_is_told_by_a_given_original() -> None:
    changed = copy.deepcopy(ASSET_REQUEST)
    changed["asset"]["params"][2]["value"] = "T-1"
    changed["asset"]["params"].append({"id": "new", "value": "n"})
    order = AssetRequest(changed, original=ASSET_REQUEST)
    assert order.changed_parameters() == [{"id": "tenant", "value": "T-1"}, {"id": "new", "value": "n"}]


def test_an_error_goes_along_with_the_value_that_it_is_about(order: AssetRequest) -> None:
    order.set_error("email", "no such mailbox")
    assert order.parameters.error("email") == "no such mailbox"
    assert order.changed_parameters() == [{"id": "email", "value": "a@b.example", "value_error": "no such mailbox"}]


def test_a_new_value_takes_away_the_error_of_the_old_one(order: AssetRequest) -> None:
    order.set_error("email", "no such mailbox")
    order.parameters.were_written()
    order.set_value("email", "c@d.example")
    assert order.changed_parameters() == [{"id": "email", "value": "c@d.example", "value_error": ""}]


def test_an_error_is_a_text(order: AssetRequest) -> None:
    with pytest.raises(BadValue, match="give a text"):
        order.set_error("email", None)  # type: ignore[arg-type]


def test_what_a_view_shows_of_itself_holds_no_values(order: AssetRequest) -> None:
    assert repr(order) == "AssetRequest(PR-1)"
    assert "a@b.example" not in repr(order.parameters)


def test_configuration_parameters_are_read_only(order: AssetRequest) -> None:
    assert order.configuration.value("region") == "eu"
    assert not hasattr(order.configuration, "set_value")
    with pytest.raises(MissingParameter, match=r"asset\.configuration\.params of PR-1: .* there are: region"):
        order.configuration.value("email")


def test_a_request_without_parameters_has_none() -> None:
    order = AssetRequest({"id": "PR-1", "asset": {}})
    assert list(order.configuration) == []
    with pytest.raises(MissingParameter, match="there are: none"):
        order.value("seats")


def test_nothing_may_be_written_as_null() -> None:
    asset = {"params": None, "items": None, "tiers": None, "configuration": {"params": None}}
    order = AssetRequest({"id": "PR-1", "asset": asset}, original={"id": "PR-1", "asset": asset})
    assert (list(order.parameters), list(order.configuration), order.items, order.tiers) == ([], [], (), {})
    assert order.changed_parameters() == []


@pytest.mark.parametrize("items", ["MAIL", ["MAIL"], {"id": "MAIL"}])
def test_items_of_another_shape_are_refused(items: Any) -> None:
    with pytest.raises(MissingField, match=r"asset\.items of PR-1 is no list of items"):
        assert AssetRequest({"id": "PR-1", "asset": {"items": items}}).items


@pytest.mark.parametrize("params", ["seats", [{"value": "1"}], [1]])
def test_parameters_of_another_shape_are_refused(params: Any) -> None:
    with pytest.raises(MissingField, match=r"asset\.params of PR-1 is no list of parameters"):
        AssetRequest({"id": "PR-1", "asset": {"params": params}})


@pytest.mark.parametrize("key", ["PRD-1-0001", "MAIL"])
def test_an_item_is_found_by_id_or_mpn(order: AssetRequest, key: str) -> None:
    item = order.item(key)
    assert (item.id, item.mpn, item.quantity, item.old_quantity) == ("PRD-1-0001", "MAIL", 10, 0)
    assert item.value("sku") == "M-1"


def test_an_item_is_found_by_its_global_id_where_its_id_is_another(order: AssetRequest) -> None:
    assert order.item("PRD-1-0002").mpn == "BKP"


@pytest.mark.parametrize("key", [None, ""])
def test_a_key_that_is_not_set_finds_no_item_though_one_has_no_such_name(key: Any) -> None:
    item = {"id": "PRD-1-0001", "mpn": "MAIL", "global_id": key}
    with pytest.raises(MissingItem, match="there is no item"):
        AssetRequest({"id": "PR-1", "asset": {"items": [item]}}).item(key)


@pytest.mark.parametrize("nothing", [None, "", " ", 5, []])
@pytest.mark.parametrize("name", ["id", "type", "status"])
def test_a_name_that_is_no_text_is_missing(nothing: Any, name: str) -> None:
    request = {"id": "PR-1", "asset": {}, name: nothing}
    with pytest.raises(MissingField, match=f"has the {name} "):
        getattr(AssetRequest(request), name)


def test_an_id_goes_before_the_mpn_of_another_item() -> None:
    order = AssetRequest({"id": "PR-1", "asset": {"items": [{"id": "A", "mpn": "B"}, {"id": "B", "mpn": "A"}]}})
    assert order.item("B").mpn == "A"


def test_a_missing_item_is_named_with_what_there_is(order: AssetRequest) -> None:
    with pytest.raises(MissingItem) as missing:
        order.item("DISK")
    assert str(missing.value) == (
        "asset.items of PR-1: there is no item 'DISK'; there are: PRD-1-0001 (mpn MAIL), BACKUP (mpn BKP)"
    )


def test_a_parameter_that_an_item_lacks_is_named_with_the_item(order: AssetRequest) -> None:
    with pytest.raises(MissingParameter, match="params of item PRD-1-0001 of PR-1: there is no parameter 'x'"):
        order.item("MAIL").value("x")
    assert order.item("BKP").value("x", "none") == "none"


@pytest.mark.parametrize(
    ("text", "number"),
    [("10", 10), ("0", 0), ("2.5", Decimal("2.5")), ("3.00", 3), (7, 7), ("unlimited", UNLIMITED), ("-1", UNLIMITED)],
)
def test_quantities_are_numbers(text: Any, number: Any) -> None:
    item = AssetRequest({"id": "PR-1", "asset": {"items": [{"id": "A", "quantity": text}]}}).item("A")
    assert item.quantity == number
    assert type(item.quantity) is type(number)
    assert item.is_unlimited == (number is UNLIMITED)


def test_unlimited_is_more_than_any_number(order: AssetRequest) -> None:
    assert order.item("BKP").quantity > order.item("MAIL").quantity
    assert order.item("BKP").old_quantity == Decimal("2.5")


@pytest.mark.parametrize("text", ["ten", "", "-2", "1e3", "nan", None, True])
def test_what_is_no_quantity_is_refused_with_its_place(text: Any) -> None:
    item = AssetRequest({"id": "PR-1", "asset": {"items": [{"id": "A", "quantity": text}]}}).item("A")
    with pytest.raises(BadValue, match="the quantity of item A of PR-1 is"):
        assert item.quantity


def test_an_item_without_a_quantity_is_an_error_and_without_an_old_one_it_had_none() -> None:
    item = AssetRequest({"id": "PR-1", "asset": {"items": [{"id": "A"}]}}).item("A")
    with pytest.raises(MissingField, match="item A of PR-1 has no quantity"):
        assert item.quantity
    assert item.old_quantity == 0


def test_tiers_are_the_accounts_that_the_request_names(order: AssetRequest) -> None:
    assert order.tier("customer")["name"] == "Customer"
    assert list(order.tiers) == ["customer", "tier1"]
    with pytest.raises(MissingTier, match="there is no 'tier2'; there are: customer, tier1"):
        order.tier("tier2")


def test_a_tier_configuration_request_tells_what_it_is(setup: TierConfigRequest) -> None:
    assert (setup.id, setup.configuration_id, setup.tier_level) == ("TCR-1", "TC-1", 1)
    assert setup.account["name"] == "Reseller"
    assert setup.configuration.value("reseller_id") == ""


def test_the_parameters_of_a_tier_configuration_request_are_its_own(setup: TierConfigRequest) -> None:
    setup.set_value("reseller_id", "R-1")
    assert setup.request["params"][0]["value"] == "R-1"
    assert setup.changed_parameters() == [{"id": "reseller_id", "value": "R-1"}]
    with pytest.raises(MissingParameter, match=r"^params of TCR-1: there is no parameter 'email'"):
        setup.value("email")


def test_a_tier_level_that_is_no_number_is_refused(setup: TierConfigRequest) -> None:
    setup.request["configuration"]["tier_level"] = "first"
    with pytest.raises(BadValue, match=r"configuration\.tier_level of TCR-1 is 'first'"):
        assert setup.tier_level


def test_the_view_follows_the_request(order: AssetRequest) -> None:
    assert isinstance(view_of(ASSET_REQUEST), AssetRequest)
    assert isinstance(view_of(TIER_REQUEST), TierConfigRequest)
    assert view_of(order) is order


@pytest.mark.parametrize("request_", [{"id": "UF-1", "usage": {}}, {}, "PR-1", None])
def test_what_is_neither_kind_of_request_is_refused(request_: Any) -> None:
    with pytest.raises(BadValue, match="give "):
        view_of(request_)


def test_a_view_needs_a_dict() -> None:
    with pytest.raises(BadValue, match="'PR-1' is no request"):
        AssetRequest("PR-1")  # type: ignore[arg-type]


def test_of_many_names_an_error_lists_fifty() -> None:
    order = AssetRequest({"id": "PR-1", "asset": {"params": [{"id": f"p{n}"} for n in range(60)]}})
    with pytest.raises(MissingParameter, match=r"p49, and 10 more$"):
        order.value("seats")
