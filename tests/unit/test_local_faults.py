"""A fault says what goes wrong, how often and for how long, within limits."""

from __future__ import annotations

import math
from typing import Any

import pytest

from saga_engine.connect.local_errors import BadFault
from saga_engine.connect.local_faults import DELAY_S_MAX, TIMES_MAX, Fault, FaultKind


def test_a_fault_is_read_from_the_command_line() -> None:
    assert Fault.from_text("approve_request=refuse") == Fault("approve_request", FaultKind.REFUSE)
    assert Fault.from_text("approve_request=error_500:2") == Fault("approve_request", FaultKind.ERROR_500, 2)
    assert Fault.from_text("get_request=slow:3:0.5") == Fault("get_request", FaultKind.SLOW, 3, 0.5)


@pytest.mark.parametrize("text", ["approve_request", "approve_request=refuse:1:2:3", ""])
def test_a_text_of_another_form_is_refused_with_the_form(text: str) -> None:
    with pytest.raises(BadFault, match=r"write operation=kind\[:times\[:delay_s\]\]"):
        Fault.from_text(text)


def test_an_unknown_kind_is_refused_with_all_that_there_are() -> None:
    with pytest.raises(
        BadFault, match=r"there is no fault 'explode'; use one of timeout_after_work, error_401, .*, slow"
    ):
        Fault.from_text("approve_request=explode")


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({"kind": "refuse", "times": -1}, "times is -1; give 0 to 1000000 calls"),
        ({"kind": "refuse", "times": TIMES_MAX + 1}, "times is 1000001"),
        ({"kind": "refuse", "times": math.inf}, "times and delay_s are numbers"),
        ({"kind": "refuse", "times": "often"}, "times and delay_s are numbers"),
        ({"kind": "refuse", "times": []}, "times and delay_s are numbers"),
        ({"kind": "slow", "delay_s": DELAY_S_MAX + 1}, r"delay_s is 61\.0; give 0 to 60 seconds"),
        ({"kind": "slow", "delay_s": math.nan}, "delay_s is nan"),
        ({"kind": "slow"}, "a slow call without delay_s is none"),
        ({"kind": "refuse", "delay": 1}, r"unknown keys \['delay'\]"),
        ({"kind": []}, "there is no fault \\[\\]"),
        ({}, "there is no fault None"),
    ],
)
def test_what_cannot_be_meant_is_refused(body: dict[str, Any], problem: str) -> None:
    with pytest.raises(BadFault, match=problem):
        Fault.from_json("approve_request", body)


def test_the_limits_themselves_are_allowed() -> None:
    fault = Fault("approve_request", FaultKind.SLOW, TIMES_MAX, DELAY_S_MAX)
    assert (fault.times, fault.delay_s) == (TIMES_MAX, DELAY_S_MAX)


def test_retry_after_is_in_whole_seconds() -> None:
    assert Fault("get_request", FaultKind.ERROR_429, delay_s=1.2).retry_after_s == 2
