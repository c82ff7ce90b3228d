"""Actions on Connect's requests: what is sent, by either client, and how what Connect answers is sorted."""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Callable, Iterator, Mapping
from email.utils import formatdate
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from connect.client import ClientError
from connect_stub import ASSET_REQUEST, FAULTS, TIER_REQUEST, ConnectStub, connect_stub
from tenacity import Future, RetryCallState, Retrying, wait_fixed

from saga_engine import connect
from saga_engine.connect import (
    CONNECT_RETRY,
    AssetRequest,
    BadValue,
    ConnectError,
    ConnectUnavailable,
    MissingParameter,
    RefusedByConnect,
    TierConfigRequest,
    WrongClient,
)
from saga_engine.connect.api_errors import (
    RETRY_AFTER_S_MAX,
    connect_error,
    may_be_tried_again,
    retry_after_s,
    wait_as_connect_says,
)
from saga_engine.errors import SagaError
from saga_engine.recorded import rebuild_error, record_error

Act = Callable[..., Any]


@pytest.fixture
def stub() -> Iterator[ConnectStub]:
    with connect_stub(ASSET_REQUEST, TIER_REQUEST) as running:
        yield running


@pytest.fixture(params=["plain", "async"])
def act(request: pytest.FixtureRequest, stub: ConnectStub) -> Act:
    """Call an action by its plain name, with the plain or with the async client."""

    def plain(name: str, *args: Any, **kwargs: Any) -> Any:
        return getattr(connect, name)(stub.client, *args, **kwargs)

    def asynchronous(name: str, *args: Any, **kwargs: Any) -> Any:
        return asyncio.run(getattr(connect, f"a{name}")(stub.async_client, *args, **kwargs))

    return plain if request.param == "plain" else asynchronous


def test_a_request_is_approved_with_a_template(stub: ConnectStub, act: Act) -> None:
    assert act("approve", ASSET_REQUEST, template_id="TL-1")["status"] == "approved"
    assert stub.calls == ["POST requests/PR-1/approve"]
    assert stub.bodies == [{"template_id": "TL-1"}]


def test_without_a_template_none_is_named(stub: ConnectStub, act: Act) -> None:
    act("approve", ASSET_REQUEST)
    assert stub.bodies == [{}]


def test_a_tier_configuration_request_is_approved_in_its_own_way(stub: ConnectStub, act: Act) -> None:
    assert act("approve", TIER_REQUEST, template_id="TL-1") == {"id": "TL-1", "representation": "Welcome"}
    assert stub.calls == ["POST tier/config-requests/TCR-1/approve"]
    assert stub.bodies == [{"template": {"id": "TL-1"}}]
    assert stub.effects == ["approve TCR-1"]


def test_what_a_view_changed_is_written_before_the_action(stub: ConnectStub, act: Act) -> None:
    order = AssetRequest(copy.deepcopy(ASSET_REQUEST))
    order.set_value("tenant", "T-1")
    act("approve", order)
    assert stub.calls == ["PUT requests/PR-1", "POST requests/PR-1/approve"]
    assert stub.bodies[0] == {"asset": {"params": [{"id": "tenant", "value": "T-1"}]}}


@pytest.mark.parametrize("request_", [ASSET_REQUEST, TIER_REQUEST], ids=["asset", "tier"])
def test_a_request_is_rejected_with_a_reason(stub: ConnectStub, act: Act, request_: dict[str, Any]) -> None:
    act("fail", request_, "no credit")
    assert stub.effects == [f"fail {request_['id']}"]
    assert stub.bodies == [{"reason": "no credit"}]


@pytest.mark.parametrize("reason", ["", "  ", None])
def test_a_rejection_without_a_reason_is_not_sent(stub: ConnectStub, act: Act, reason: Any) -> None:
    with pytest.raises(BadValue, match="PR-1 cannot be rejected"):
        act("fail", ASSET_REQUEST, reason)
    assert stub.calls == []


def test_the_customer_is_asked_with_what_is_wrong(stub: ConnectStub, act: Act) -> None:
    act("inquire", copy.deepcopy(ASSET_REQUEST), template_id="TL-2", problems={"email": "no such mailbox"})
    assert stub.bodies == [
        {"asset": {"params": [{"id": "email", "value": "a@b.example", "value_error": "no such mailbox"}]}},
        {"template_id": "TL-2"},
    ]
    assert stub.requests["PR-1"]["status"] == "inquiring"


def test_a_problem_with_what_is_not_there_is_not_sent(stub: ConnectStub, act: Act) -> None:
    with pytest.raises(MissingParameter, match="'seats'"):
        act("inquire", copy.deepcopy(ASSET_REQUEST), problems={"seats": "too many"})
    assert stub.calls == []


def test_only_changed_parameters_are_sent_and_only_once(stub: ConnectStub, act: Act) -> None:
    order = AssetRequest(copy.deepcopy(ASSET_REQUEST))
    sent = act("update_parameters", order, {"tenant": "T-1", "email": "a@b.example"})
    assert sent == [{"id": "tenant", "value": "T-1"}]
    assert act("update_parameters", order) == []
    assert stub.calls == ["PUT requests/PR-1"]
    assert stub.values("PR-1")["tenant"] == "T-1"


def test_parameters_of_a_tier_configuration_request_are_sent_at_the_top(stub: ConnectStub, act: Act) -> None:
    setup = TierConfigRequest(copy.deepcopy(TIER_REQUEST))
    act("update_parameters", setup, {"reseller_id": "R-1"})
    assert stub.bodies == [{"params": [{"id": "reseller_id", "value": "R-1"}]}]
    assert stub.effects == ["update TCR-1 reseller_id: value=R-1"]


def test_nothing_changed_calls_nobody(stub: ConnectStub, act: Act) -> None:
    assert act("update_parameters", ASSET_REQUEST) == []
    assert stub.calls == []


def test_what_could_not_be_written_is_sent_again(stub: ConnectStub, act: Act) -> None:
    order = AssetRequest(copy.deepcopy(ASSET_REQUEST))
    stub.fault("update", "500")
    with pytest.raises(ConnectUnavailable):
        act("update_parameters", order, {"tenant": "T-1"})
    assert act("update_parameters", order) == [{"id": "tenant", "value": "T-1"}]


@pytest.mark.parametrize("fault", FAULTS)
def test_what_may_pass_may_be_tried_again(stub: ConnectStub, act: Act, fault: str) -> None:
    stub.fault("approve", fault)
    with pytest.raises(ConnectUnavailable, match=r"^approve PR-1: Connect ") as raised:
        act("approve", ASSET_REQUEST)
    assert may_be_tried_again(raised.value)
    assert stub.effects == (["approve PR-1"] if "after work" in fault else [])


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("500", "approve PR-1: Connect answered 500 Internal Server Error: ERR_500: a fault"),
        ("page", "approve PR-1: Connect answered what cannot be read: b'<html>We are back soon.</html>'"),
        ("401", "approve PR-1: Connect answered 401 Unauthorized: ERR_401: a fault"),
    ],
)
def test_an_error_says_what_was_asked_and_what_connect_said(stub: ConnectStub, act: Act, fault: str, text: str) -> None:
    stub.fault("approve", fault)
    with pytest.raises(ConnectError) as raised:
        act("approve", ASSET_REQUEST)
    assert str(raised.value) == text


def test_a_call_that_is_not_allowed_is_not_tried_again(stub: ConnectStub, act: Act) -> None:
    stub.fault("approve", "403")
    with pytest.raises(RefusedByConnect) as refused:
        act("approve", ASSET_REQUEST)
    assert refused.value.status_code == 403
    assert not may_be_tried_again(refused.value)


def test_a_refusal_tells_connects_own_reasons(stub: ConnectStub, act: Act) -> None:
    stub.requests["PR-1"]["status"] = "failed"
    with pytest.raises(RefusedByConnect) as refused:
        act("approve", ASSET_REQUEST)
    assert (refused.value.status_code, refused.value.error_code) == (400, "REQ_003")
    assert refused.value.errors == ["Only pending requests can be approved."]
    assert not may_be_tried_again(refused.value)


def test_who_catches_the_clients_error_catches_ours(stub: ConnectStub, act: Act) -> None:
    stub.fault("approve", "500")
    with pytest.raises(ClientError) as raised:
        act("approve", ASSET_REQUEST)
    assert isinstance(raised.value, SagaError)
    assert isinstance(raised.value.__cause__, Exception)


def test_connect_says_when_to_come_back(stub: ConnectStub, act: Act) -> None:
    stub.fault("approve", "429")
    with pytest.raises(ConnectUnavailable) as raised:
        act("approve", ASSET_REQUEST)
    assert raised.value.retry_after_s == 7


def test_an_error_survives_the_journal(stub: ConnectStub, act: Act) -> None:
    stub.fault("approve", "429")
    with pytest.raises(ConnectUnavailable) as raised:
        act("approve", ASSET_REQUEST)
    rebuilt: Any = rebuild_error(record_error(raised.value))
    assert type(rebuilt) is ConnectUnavailable
    assert str(rebuilt) == str(raised.value)
    assert (rebuilt.status_code, rebuilt.errors, rebuilt.retry_after_s) == (429, ["a fault"], 7)


def test_a_plain_action_refuses_an_async_client_before_it_calls(stub: ConnectStub) -> None:
    with pytest.raises(WrongClient, match="await aapprove"):
        connect.approve(stub.async_client, ASSET_REQUEST)
    with pytest.raises(WrongClient, match=r"call approve\("):
        asyncio.run(connect.aapprove(stub.client, ASSET_REQUEST))
    assert stub.calls == []


def test_a_client_that_only_behaves_like_connects_will_do() -> None:
    sent = []

    class Resource:
        def __call__(self, action: str) -> Any:
            return SimpleNamespace(post=lambda payload: sent.append((action, payload)))

    assert connect.approve(SimpleNamespace(requests={"PR-1": Resource()}), ASSET_REQUEST, template_id="TL-1") == {}
    assert sent == [("approve", {"template_id": "TL-1"})]


# --- sorting ---


def answered(headers: Mapping[str, str]) -> ClientError:
    """Give the error of an answer with these headers."""
    error = ClientError(status_code=429)
    error.__cause__ = requests.HTTPError(response=SimpleNamespace(headers=headers))
    return error


def test_retry_after_may_be_a_date() -> None:
    assert 50 < (retry_after_s(answered({"Retry-After": formatdate(time.time() + 60, usegmt=True)})) or 0) <= 60


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0.0),
        ("1.5", 1.5),
        ("-4", 0.0),
        ("999999999", RETRY_AFTER_S_MAX),
        (formatdate(0, usegmt=True), 0.0),
        ("soon", None),
        ("nan", None),
        ("", None),
    ],
)
def test_retry_after_is_bounded_and_nonsense_is_none(header: str, seconds: float | None) -> None:
    assert retry_after_s(answered({"Retry-After": header})) == seconds


def test_without_an_answer_there_is_no_retry_after() -> None:
    assert retry_after_s(ClientError()) is None
    assert retry_after_s(ValueError()) is None


@pytest.mark.parametrize(
    ("status", "is_worth_it"),
    [(400, False), (401, True), (403, False), (404, False), (408, True), (409, False), (429, True), (503, True)],
)
def test_the_status_tells_whether_it_may_be_tried_again(status: int, is_worth_it: bool) -> None:
    error = ClientError(status_code=status)
    assert may_be_tried_again(error) is is_worth_it
    assert isinstance(connect_error(error, "get PR-1"), ConnectUnavailable) is is_worth_it


@pytest.mark.parametrize(
    ("cause", "is_worth_it"),
    [
        (requests.ReadTimeout("slow"), True),
        (requests.ConnectionError("gone"), True),
        (requests.exceptions.InvalidURL("no URL"), False),
    ],
)
def test_without_an_answer_its_cause_tells(cause: Exception, is_worth_it: bool) -> None:
    error = ClientError()
    error.__cause__ = cause
    assert may_be_tried_again(error) is is_worth_it
    assert str(connect_error(error, "get PR-1")) == (
        f"get PR-1: Connect did not answer ({type(cause).__name__}: {cause})"
    )


def test_errors_that_are_no_texts_are_told_too() -> None:
    error = connect_error(ClientError(status_code=400, error_code="VAL", errors=[{"id": ["bad"]}]), "get PR-1")
    assert str(error) == "get PR-1: Connect answered 400 Bad Request: VAL: {'id': ['bad']}"
    assert str(connect_error(ClientError(status_code=599, errors="x"), "get PR-1")).endswith("answered 599: x")


def test_what_does_not_come_from_connect_is_not_tried_again() -> None:
    assert not may_be_tried_again(KeyError("customer_id"))
    assert not may_be_tried_again(ValueError("a mistake"))


def waited(error: Exception, attempt: int = 1, **options: Any) -> float:
    """Give how long is waited after a failed attempt."""
    state = RetryCallState(Retrying(), None, (), {})
    state.attempt_number = attempt
    state.outcome = Future.construct(attempt, error, True)
    return wait_as_connect_says(**options)(state)


def test_the_wait_is_what_connect_says_and_else_what_the_strategy_says() -> None:
    assert waited(answered({"Retry-After": "7"}), at_least=wait_fixed(3)) == 7
    assert waited(answered({}), at_least=wait_fixed(3)) == 3
    assert waited(KeyError(), at_least=wait_fixed(3)) == 3


@pytest.mark.parametrize("over", ["0", "-1", formatdate(0, usegmt=True)])
def test_a_time_to_come_back_that_is_over_does_not_use_up_the_attempts(over: str) -> None:
    assert waited(answered({"Retry-After": over}), at_least=wait_fixed(3)) == 3


def test_waits_grow_to_five_minutes_and_attempts_end_after_about_a_day() -> None:
    waits = [waited(ClientError(status_code=500), attempt) for attempt in range(1, 301)]
    assert max(waits) == 300
    assert 80_000 < sum(waits) < 100_000
    state = RetryCallState(Retrying(), None, (), {})
    state.attempt_number = 300
    assert CONNECT_RETRY.stop(state)


@pytest.mark.parametrize(("status", "kind"), [(503, ConnectUnavailable), (400, RefusedByConnect)])
def test_an_answer_over_whose_body_the_client_stumbles_is_sorted_by_its_status(status: int, kind: type) -> None:
    response = SimpleNamespace(status_code=status, headers={"Retry-After": "7"})
    try:
        try:
            raise requests.HTTPError(response=response)
        except requests.HTTPError:
            len(None)  # type: ignore[arg-type]  # what the client does with null
    except TypeError as error:
        stumbled = error
    found = connect_error(stumbled, "approve PR-1")
    assert type(found) is kind
    assert (found.status_code, found.retry_after_s) == (status, 7.0)
    assert may_be_tried_again(stumbled) is (kind is ConnectUnavailable)


def test_what_is_no_answer_of_connect_is_left_as_it_is() -> None:
    assert connect_error(TypeError("a mistake of ours"), "approve PR-1") is None
    assert not may_be_tried_again(TypeError("a mistake of ours"))


def test_a_loop_of_redirects_is_no_answer() -> None:
    error = ClientError()
    error.__cause__ = requests.TooManyRedirects("Exceeded 30 redirects.")
    assert isinstance(connect_error(error, "get PR-1"), ConnectUnavailable)


@pytest.mark.parametrize("given", ["x", ["tenant"]])
def test_values_and_problems_that_are_no_dict_are_refused(act: Act, stub: ConnectStub, given: Any) -> None:
    for name, arguments in (("update_parameters", {"values": given}), ("inquire", {"problems": given})):
        with pytest.raises(BadValue, match="give a dict by the ids of the parameters"):
            act(name, copy.deepcopy(ASSET_REQUEST), **arguments)
    assert stub.calls == []


def test_if_one_parameter_is_missing_none_is_set(act: Act, stub: ConnectStub) -> None:
    request = copy.deepcopy(ASSET_REQUEST)
    with pytest.raises(MissingParameter, match="nope"):
        act("update_parameters", request, {"tenant": "T-1", "nope": "x"})
    assert (request, stub.calls) == (ASSET_REQUEST, [])
