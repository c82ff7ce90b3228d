"""Countdowns that are texts, as all variables of an extension are."""

from __future__ import annotations

import math

import pytest
from connect.eaas.core.responses import BackgroundResponse as ConnectBackgroundResponse
from sagas import World, saga_of

from saga_engine import Engine
from saga_engine.connect import BackgroundResponse
from saga_engine.errors import BadSetting
from saga_engine.testing import ManualClock


@pytest.mark.parametrize(
    ("countdown", "seconds"), [("60", 60), ("45.2", 46), (" 90 ", 90), (45, 45), (45.2, 46), ("5", 30), (-1, 30)]
)
def test_a_countdown_may_be_a_text_and_is_a_whole_number_then(countdown: object, seconds: int) -> None:
    response = BackgroundResponse.reschedule(countdown)
    assert (response.status, response.countdown) == ("reschedule", seconds)
    assert isinstance(response.countdown, int)


@pytest.mark.parametrize(("countdown", "seconds"), [("60", 300), ("400", 400), (299, 300)])
def test_a_slow_countdown_may_be_a_text_and_is_at_least_five_minutes(countdown: object, seconds: int) -> None:
    assert BackgroundResponse.slow_process_reschedule(countdown).countdown == seconds


@pytest.mark.parametrize("countdown", ["", "soon", None, True, "nan", "inf", math.inf, "1e12"])
def test_a_countdown_that_cannot_be_meant_is_refused(countdown: object) -> None:
    for reschedule in (BackgroundResponse.reschedule, BackgroundResponse.slow_process_reschedule):
        with pytest.raises(BadSetting, match="seconds"):
            reschedule(countdown)


def test_the_other_responses_are_those_of_connect() -> None:
    given = [BackgroundResponse.done(), BackgroundResponse.fail("no"), BackgroundResponse.skip("not mine")]
    assert all(isinstance(response, ConnectBackgroundResponse) for response in given)
    assert [(response.status, response.output) for response in given] == [
        ("success", None),
        ("fail", "no"),
        ("skip", "not mine"),
    ]
    assert BackgroundResponse.reschedule().countdown == 30
    assert BackgroundResponse.slow_process_reschedule().countdown == 300


def with_countdown(countdown: object) -> ConnectBackgroundResponse:
    """Make a response as other libraries may: what stands in it was never looked at."""
    response = ConnectBackgroundResponse.reschedule()
    response.countdown = countdown
    return response


@pytest.mark.parametrize("response", [BackgroundResponse.reschedule("60"), with_countdown("60")])
def test_a_step_may_reschedule_by_a_text(response: ConnectBackgroundResponse) -> None:
    clock, world = ManualClock(), World()
    with Engine("memory://", config={}, clock=clock) as engine:
        saga = saga_of(world.step("a", response, ConnectBackgroundResponse.done())).make(engine=engine)
        assert saga.resolve({"id": "PR-1"}).countdown == 60
        assert engine.get("Order:PR-1").next_due_at == clock.now() + 60
        assert saga.resolve({"id": "PR-1"}).status == "success"


def test_a_step_whose_countdown_is_no_number_fails() -> None:
    world = World()
    with Engine("memory://", config={}, clock=ManualClock()) as engine:
        response = saga_of(world.step("a", with_countdown("soon"))).make(engine=engine).resolve({"id": "PR-1"})
    assert response.status == "fail"
    assert "countdown 'soon'" in response.output
