"""Rules S17, S18, S27, S28, S29: keys, state, deployed code that does not fit, bad input, errors after a crash."""

from __future__ import annotations

import logging
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from connect.client import ClientError
from connect.eaas.core.responses import BackgroundResponse
from hypothesis import given
from hypothesis import strategies as st
from sagas import DONE, SAGA_ID, Crash, Mortal, World, remember, reraise, saga_of, stable_id, statuses
from tenacity import stop_after_attempt, wait_fixed

from saga_engine import Engine, SagaStatus, current_context
from saga_engine.context import idempotency_key
from saga_engine.errors import (
    BadDefinition,
    BadJournalURL,
    BadRequest,
    InvalidTransaction,
    LimitReached,
    NotAllowed,
    NotJSON,
    RecordedError,
    SagaError,
    StepRefused,
    TransactionNotSelected,
    UnknownExecution,
)
from saga_engine.journal import CompensationStarted, StepCompleted, StepFailed, StepStarted
from transactions import Kind, Probe, RetryPolicy, Suspend

FAIL = BackgroundResponse.fail("no")
LATER = BackgroundResponse.reschedule(60)
THREE_TIMES = RetryPolicy(stop=stop_after_attempt(3))


def crash_in(resolve, new_engine, journal, saga, **dies):
    """Deliver in a process that dies at the given point."""
    with pytest.raises(Crash):
        resolve(saga, on=new_engine(Mortal(journal, **dies)))


# --- S17: idempotency keys ----------------------------------------------------------------------------------------


def test_S17_a_step_keeps_its_key_across_attempts_reschedules_probes_and_crashes(journal, new_engine, resolve, world):
    script = [ValueError("busy"), LATER, Suspend(DONE), DONE, DONE]
    saga = saga_of(world.step("a", *script, probe=Probe.UNKNOWN, retry=THREE_TIMES))
    resolve(saga)
    resolve(saga)
    crash_in(resolve, new_engine, journal, saga, dies_before=StepCompleted)
    assert resolve(saga).status == "success"
    assert len(world.of("a")) == 5
    assert len(world.of("a", "probe")) == 2
    assert len({call.key for call in world.calls}) == 1


def test_S17_the_undo_has_a_key_of_its_own_that_is_as_stable(journal, new_engine, resolve, world):
    undo = [ValueError("busy"), LATER, DONE]
    saga = saga_of(world.step("a", undo=undo, compensation_retry=THREE_TIMES), world.step("b", FAIL))
    resolve(saga)
    crash_in(resolve, new_engine, journal, saga, dies_after=(CompensationStarted, "a"))
    resolve(saga)
    keys = {call.key for call in world.of("a", "compensate")}
    assert len(world.of("a", "compensate")) == 3
    assert len(keys) == 1
    assert keys != {world.of("a")[0].key}


def test_S17_an_undo_can_tell_the_key_that_its_execute_had(resolve, world):
    keys = []

    def look(request, e):
        keys.append(current_context().execute_key)
        return DONE

    resolve(saga_of(world.step("a", undo=look), world.step("b", FAIL)))
    assert keys == [world.of("a")[0].key]


def test_S17_keys_differ_between_steps_operations_executions_and_generations(resolve, world):
    saga = saga_of(
        world.step("a"), world.step("b"), world.step("c", FAIL), restarts=lambda self, request, previous: True
    )
    other = saga_of(world.step("a"), name="Other")
    resolve(saga)
    resolve(saga)
    resolve(saga, {"id": "PR-2"})
    resolve(other)
    keys = [call.key for call in world.calls]
    assert len(keys) == 3 * 5 + 1
    assert len(set(keys)) == len(keys)


def test_S17_a_transaction_run_again_after_its_undo_completed_has_a_new_key(resolve, world):
    a = world.step("a", ValueError("no"), undo=DONE)
    saga = saga_of(a, mode="select", restarts=lambda self, request, previous: True)
    resolve(saga)
    resolve(saga)
    first, second = world.of("a")
    assert first.key != second.key


_PART = st.text(max_size=12) | st.sampled_from(["a", "a#2", "a:b", 'a","b', "a/b", "execute", "compensate", "1"])
_PARTS = st.tuples(_PART, _PART, st.sampled_from(["execute", "compensate"]), st.integers(0, 3))


@given(_PARTS, _PARTS)
def test_S17_keys_of_different_parts_differ_and_of_equal_parts_are_equal(one, other):
    assert (idempotency_key(*one) == idempotency_key(*other)) == (one == other)


@given(st.sampled_from(["ab", "a:b", "a#b"]), _PART.filter(bool))
def test_S17_no_part_can_be_moved_into_its_neighbour(saga_id, moved):
    assert idempotency_key(saga_id + moved, "x", "execute") != idempotency_key(saga_id, moved + "x", "execute")


def test_S17_a_key_is_the_same_in_every_release():
    assert idempotency_key("Purchase:PR-1", "Create subscription", "execute") == "3ec600e1-927f-5907-8475-6d1d35f88b96"


# --- S18: state and request ---------------------------------------------------------------------------------------

OUTCOMES = {
    "completed": (DONE, "b"),
    "rescheduled": (LATER, "a"),
    "suspended": (Suspend(DONE), "a"),
    "failed attempt": (ValueError("busy"), "a"),
}


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_S18_what_a_step_left_in_the_state_is_seen_after_every_outcome(resolve, world, outcome):
    answer, who_sees = OUTCOMES[outcome]
    saga = saga_of(world.step("a", remember(answer, n=1), DONE, retry=THREE_TIMES), world.step("b"))
    resolve(saga)
    resolve(saga)
    assert world.of(who_sees)[-1].state == {"n": 1}


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_S18_the_state_survives_a_crash_after_every_outcome(journal, new_engine, resolve, world, outcome):
    answer, who_sees = OUTCOMES[outcome]
    wait = RetryPolicy(stop=stop_after_attempt(3), wait=wait_fixed(1))
    saga = saga_of(world.step("a", remember(answer, n=1), DONE, retry=wait), world.step("b"))
    entry = {"completed": StepCompleted, "failed attempt": StepFailed}.get(outcome)
    if entry is None:
        resolve(saga)
    else:
        crash_in(resolve, new_engine, journal, saga, dies_after=(entry, "a"))
    resolve(saga, on=new_engine())
    assert world.of(who_sees)[-1].state == {"n": 1}


def test_S18_compensations_see_the_state_of_steps_of_failed_attempts_and_of_earlier_undos(engine, resolve, world):
    saga = saga_of(
        world.step("a", remember(a=1)),
        world.step("b", remember(b=2), undo=remember(undone="b")),
        world.step("c", remember(ValueError("no"), c=3)),
    )
    resolve(saga)
    assert world.of("c", "compensate")[0].state == {"a": 1, "b": 2, "c": 3}
    assert world.of("a", "compensate")[0].state == {"a": 1, "b": 2, "c": 3, "undone": "b"}
    assert engine.get(SAGA_ID).state == {"a": 1, "b": 2, "c": 3, "undone": "b"}


def test_S18_a_refusal_leaves_its_state_too(resolve, world):
    resolve(saga_of(world.step("a"), world.step("b", remember(FAIL, why="credit"))))
    assert world.of("a", "compensate")[0].state == {"why": "credit"}


def test_S18_save_commits_the_state_in_the_middle_of_a_step(journal, new_engine, engine, resolve, world):
    def save_and_die(request):
        context = current_context()
        context.state["half"] = "done"
        request["note"] = "written"
        context.save()
        context.state["half"] = "forgotten"
        process.die()

    process = Mortal(journal)
    saga = saga_of(world.step("a", save_and_die, DONE))
    with pytest.raises(Crash):
        resolve(saga, on=new_engine(process))
    assert engine.get(SAGA_ID).state == {"half": "done"}
    assert engine.get(SAGA_ID).request == {"id": "PR-1", "note": "written"}
    resolve(saga)
    assert world.of("a")[1].state == {"half": "done"}


def test_S18_save_in_an_undo_survives_a_crash(journal, new_engine, resolve, world):
    def save_and_die(request, e):
        current_context().state["half"] = "undone"
        current_context().save()
        process.die()

    process = Mortal(journal)
    saga = saga_of(world.step("a", undo=[save_and_die, DONE]), world.step("b", FAIL))
    with pytest.raises(Crash):
        resolve(saga, on=new_engine(process))
    resolve(saga)
    assert world.of("a", "compensate")[1].state == {"half": "undone"}


def test_S18_state_that_was_not_journaled_is_gone_after_a_crash(journal, new_engine, resolve, world):
    saga = saga_of(world.step("a", remember(n=1), DONE))
    crash_in(resolve, new_engine, journal, saga, dies_before=StepCompleted)
    resolve(saga)
    assert world.of("a")[1].state == {}


def test_S18_save_is_refused_where_nothing_is_journaled_yet(resolve, world):
    def ask(request):
        current_context().save()

    told = resolve(saga_of(world.step("a", wanted=ask)))
    assert told.status == "fail"
    assert "context.save()" in told.output


def test_S18_the_request_of_a_delivery_replaces_the_journaled_one_whole(engine, resolve, world):
    saga = saga_of(world.step("a", LATER, DONE), world.step("b"))
    resolve(saga, {"id": "PR-1", "old": 1, "both": {"x": 1}})
    resolve(saga, {"id": "PR-1", "new": 2, "both": {"y": 2}})
    fresh = {"id": "PR-1", "new": 2, "both": {"y": 2}}
    assert world.of("a")[1].request == world.of("b")[0].request == engine.get(SAGA_ID).request == fresh


def test_S18_changes_to_the_request_are_seen_by_later_steps_and_do_not_survive_a_new_delivery(resolve, world):
    def change(answer):
        def part(request):
            request["changed"] = True
            return answer

        return part

    saga = saga_of(world.step("a", change(DONE)), world.step("b", LATER, DONE))
    resolve(saga)
    resolve(saga)
    first, second = world.of("b")
    assert first.request == {"id": "PR-1", "changed": True}
    assert second.request == {"id": "PR-1"}


def test_S18_changes_to_the_request_survive_a_crash(journal, new_engine, resolve, world):
    def change(request):
        request["changed"] = True
        return DONE

    saga = saga_of(world.step("a", change), world.step("b"))
    crash_in(resolve, new_engine, journal, saga, dies_after=(StepCompleted, "a"))
    new_engine(sagas=[saga]).recover()
    assert world.of("b")[0].request == {"id": "PR-1", "changed": True}


def test_S18_the_request_of_a_delivery_is_journaled_before_its_step_runs(journal, new_engine, resolve, world):
    saga = saga_of(world.step("a", LATER, DONE))
    resolve(saga, {"id": "PR-1", "old": 1})
    with pytest.raises(Crash):
        resolve(saga, {"id": "PR-1", "new": 2}, on=new_engine(Mortal(journal, dies_after=StepStarted)))
    new_engine(sagas=[saga]).recover()
    assert world.of("a")[-1].request == {"id": "PR-1", "new": 2}


def test_S18_the_callers_own_request_is_not_changed(resolve, world):
    def change(request):
        request["changed"] = True
        return DONE

    request = {"id": "PR-1", "deep": {"er": []}}
    resolve(saga_of(world.step("a", change)), request)
    assert request == {"id": "PR-1", "deep": {"er": []}}


def test_S18_state_is_not_shared_with_the_caller_through_the_record(engine, resolve, world):
    resolve(saga_of(world.step("a", remember(deep={"n": 1})), world.step("b", LATER)))
    engine.get(SAGA_ID).state["deep"]["n"] = 2
    assert engine.get(SAGA_ID).state == {"deep": {"n": 1}}


def test_S18_the_state_may_be_replaced_whole(resolve, world):
    def replace(request):
        current_context().state = {"whole": "new"}
        return DONE

    resolve(saga_of(world.step("a", remember(old=1)), world.step("b", replace), world.step("c")))
    assert world.of("c")[0].state == {"whole": "new"}


# --- S27: deployed code lacks a journaled step --------------------------------------------------------------------


@pytest.mark.parametrize("left", [["a"], ["c", "a"], []], ids=["one of them", "others", "none at all"])
def test_S27_nothing_is_driven_by_code_that_lacks_a_journaled_step(engine, resolve, world, caplog, left):
    resolve(saga_of(world.step("a"), world.step("b", LATER, DONE)))
    entries = engine.history(SAGA_ID)
    world.calls.clear()
    with caplog.at_level(logging.ERROR):
        told = resolve(saga_of(*(world.step(name) for name in left)))
    assert (told.status, told.countdown) == ("reschedule", 300)
    assert world.calls == []
    assert engine.history(SAGA_ID) == entries
    assert any("stuck" in record.getMessage() and SAGA_ID in record.getMessage() for record in caplog.records)


def test_S27_a_stuck_execution_is_found_with_the_reason_until_it_goes_on(engine, resolve, world):
    whole = saga_of(world.step("a"), world.step("b", LATER, DONE))
    resolve(whole)
    resolve(saga_of(world.step("a")))
    [record] = engine.search(stuck=True)
    assert record.saga_id == SAGA_ID
    assert "'b'" in record.stuck
    assert resolve(whole).status == "success"
    assert engine.search(stuck=True) == []
    assert engine.get(SAGA_ID).stuck is None


@pytest.mark.parametrize("left", [["a"], []])
def test_S27_recover_leaves_alone_what_its_code_cannot_drive_and_counts_it(new_engine, resolve, world, clock, left):
    resolve(saga_of(world.step("a"), world.step("b", LATER, DONE)))
    clock.advance(60)
    engine = new_engine(sagas=[saga_of(*(world.step(name) for name in left))])
    recovered = engine.recover()
    assert (recovered, recovered.left_alone, recovered.failed) == (0, 1, 0)
    assert engine.get(SAGA_ID).stuck
    assert world.executed == ["a", "b"]


def test_S27_a_compensation_under_way_is_not_driven_by_code_that_lacks_a_step(engine, resolve, world):
    b = world.step("b", FAIL)
    resolve(saga_of(world.step("a", undo=LATER), b))
    told = resolve(saga_of(b))
    assert (told.status, told.countdown) == ("reschedule", 300)
    assert engine.get(SAGA_ID).status is SagaStatus.COMPENSATING


# --- S28: bad input -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("request_", ["text", ["id"], 7, b"{}"])
def test_S28_a_request_that_is_no_dict_is_refused(resolve, world, request_):
    with pytest.raises(BadRequest, match=f"the request is a {type(request_).__name__}: deliver the request's dict"):
        resolve(saga_of(world.step("a")), request_)
    assert world.calls == []


def test_S28_no_request_at_all_is_refused(engine, world):
    with pytest.raises(BadRequest, match=r"Order: no request was given: call resolve\(request\)"):
        saga_of(world.step("a")).make(engine=engine).resolve()


def test_S28_a_request_without_the_key_is_refused(resolve, world):
    with pytest.raises(BadRequest, match=r"the request has no 'id': .* override Order\.key\(request\)"):
        resolve(saga_of(world.step("a")), {"type": "purchase"})
    assert world.calls == []


@pytest.mark.parametrize("key", [7, None, "", ["PR-1"], True, b"PR-1"])
def test_S28_a_key_that_is_no_text_is_refused(resolve, world, key):
    with pytest.raises(BadRequest, match=r"Order\.key\(request\) gave .*: it must give a non-empty str"):
        resolve(saga_of(world.step("a"), key=lambda self, request: key))
    assert world.calls == []


def test_S28_a_key_that_raises_is_told_as_a_bad_request(resolve, world):
    saga = saga_of(world.step("a"), key=lambda self, request: request["asset"]["id"])
    with pytest.raises(BadRequest, match=r"Order\.key\(request\) raised KeyError: 'asset'"):
        resolve(saga)


def test_S28_a_list_of_nothing_is_told_before_a_key_that_raises(resolve):
    with pytest.raises(TransactionNotSelected, match="list at least one"):
        resolve(saga_of(key=lambda self, request: request["asset"]["id"]))


@pytest.mark.parametrize("key", ["PR-1#2", "#1", "a#b#33"])
def test_S28_a_key_that_looks_like_a_generation_is_refused(resolve, world, key):
    with pytest.raises(BadRequest, match="'#' and a number at the end mean a generation; give another key"):
        resolve(saga_of(world.step("a")), {"id": key})
    assert world.calls == []


@pytest.mark.parametrize("key", ["PR#1x", "#", "a#0", "x#02", "ü:#-1", "a b\nc"])
def test_S28_other_keys_are_names_like_any_other(engine, resolve, world, key):
    assert resolve(saga_of(world.step("a")), {"id": key}).status == "success"
    assert engine.get(f"Order:{key}").saga_id == f"Order:{key}"


def test_S28_a_key_of_excessive_length_is_refused(resolve, world):
    with pytest.raises(BadRequest, match="gave 513 characters: give at most 512"):
        resolve(saga_of(world.step("a")), {"id": "x" * 513})


def test_S28_a_request_of_ten_megabytes_is_refused_before_any_step_runs(engine, resolve, world):
    request = {"id": "PR-1", "blob": "x" * 10_000_000}
    with pytest.raises(LimitReached, match=r"request is 100000\d\d bytes of JSON, payload_bytes_max is 4194304"):
        resolve(saga_of(world.step("a")), request)
    assert world.calls == []
    assert engine.search() == []


def test_S28_a_saga_may_allow_a_request_of_ten_megabytes(engine, resolve, world):
    request = {"id": "PR-1", "blob": "x" * 10_000_000}
    saga = saga_of(world.step("a", LATER, DONE), payload_bytes_max=11_000_000)
    assert resolve(saga, request).status == "reschedule"
    assert len(engine.get(SAGA_ID).request["blob"]) == 10_000_000


def test_S28_a_later_request_that_is_too_big_leaves_the_execution_as_it_was(engine, resolve, world):
    saga = saga_of(world.step("a", LATER, DONE))
    resolve(saga)
    entries = engine.history(SAGA_ID)
    with pytest.raises(LimitReached):
        resolve(saga, {"id": "PR-1", "blob": "x" * 10_000_000})
    assert engine.history(SAGA_ID) == entries
    assert resolve(saga).status == "success"


NOT_JSON = {
    r"request\['when'\] is a datetime, which is not JSON": {"when": datetime(2024, 1, 1, tzinfo=timezone.utc)},
    r"request\['a'\]\['b'\]\[1\] is a set, which is not JSON": {"a": {"b": [1, {2}]}},
    r"request\['a'\] has the key 7, which is not a str": {"a": {7: 1}},
    r"request\['n'\] is nan, which JSON does not have": {"n": float("nan")},
    r"request\['n'\] is an int beyond 64 bits": {"n": 2**70},
    r"request\['t'\] is a tuple, which is not JSON: use a list": {"t": (1, 2)},
    r"request\['o'\] is a object, which is not JSON": {"o": object()},
    r"request\['b'\] is a bytes, which is not JSON": {"b": b"raw"},
}


@pytest.mark.parametrize("text", NOT_JSON)
def test_S28_a_request_that_is_not_json_is_refused_with_the_path(engine, resolve, world, text):
    with pytest.raises(NotJSON, match=text):
        resolve(saga_of(world.step("a")), {"id": "PR-1", **NOT_JSON[text]})
    assert world.calls == []
    assert engine.search() == []


def test_S28_a_request_that_holds_itself_is_refused(resolve, world):
    request: dict[str, Any] = {"id": "PR-1"}
    request["self"] = request
    with pytest.raises(NotJSON, match="nested deeper than 100 levels"):
        resolve(saga_of(world.step("a")), request)


def test_S28_state_that_is_not_json_fails_the_step_with_the_path(engine, resolve, world):
    def write(request):
        current_context().state["customer"] = {"born": {1, 2}}
        return DONE

    told = resolve(saga_of(world.step("a", remember(kept=1)), world.step("b", write), world.step("c")))
    assert told.status == "fail"
    assert "context.state['customer']['born'] is a set, which is not JSON" in told.output
    assert world.undone == ["b", "a"]
    assert engine.get(SAGA_ID).state == {"kept": 1}


NONSENSE = [None, True, "done", {"status": "success"}, 42, BackgroundResponse, BackgroundResponse("finished")]


@pytest.mark.parametrize("answer", NONSENSE, ids=stable_id)
def test_S28_a_step_that_returns_nonsense_failed_with_an_unknown_outcome(engine, resolve, world, answer):
    saga = saga_of(world.step("a"), world.step("b", answer), world.step("c"))
    told = resolve(saga)
    assert told.status == "fail"
    assert told.output.startswith("b: execute returned ")
    assert "return a BackgroundResponse" in told.output or "use done, fail, skip or reschedule" in told.output
    assert world.undone == ["b", "a"]
    assert world.executed == ["a", "b"]


@pytest.mark.parametrize("countdown", ["soon", float("nan"), float("inf")])
def test_S28_a_reschedule_without_a_time_is_nonsense(resolve, world, countdown):
    answer = BackgroundResponse.reschedule()
    answer.countdown = countdown
    told = resolve(saga_of(world.step("a", answer)))
    assert told.status == "fail"
    assert "give a number of seconds" in told.output


@pytest.mark.parametrize("answer", [None, "undone", Suspend(DONE)], ids=stable_id)
def test_S28_an_undo_that_returns_nonsense_failed(engine, resolve, world, answer):
    a = world.step("a", undo=[answer], compensation_retry=RetryPolicy(stop=stop_after_attempt(2)))
    told = resolve(saga_of(a, world.step("b", FAIL)))
    assert told.output.startswith("parked at a: compensate failed: a: compensate returned ")
    assert world.undone == ["a", "a"]


def test_S28_a_probe_that_returns_nonsense_knows_nothing(journal, new_engine, resolve, world):
    saga = saga_of(world.step("a", probe=True, on_unknown="park"))
    crash_in(resolve, new_engine, journal, saga, dies_before=StepCompleted)
    assert resolve(saga).output.startswith("parked at a")


def test_S28_two_steps_of_one_name_are_refused(engine, resolve, world):
    with pytest.raises(InvalidTransaction, match=r"Order has two steps named 'a': give one of them another name\(\)"):
        resolve(saga_of(world.step("a"), world.step("b"), world.step("a")))
    assert world.calls == []
    assert engine.search() == []


def test_S28_an_empty_list_is_refused(engine, resolve):
    with pytest.raises(TransactionNotSelected, match="listed nothing for this request: list at least one"):
        resolve(saga_of(None, False))
    assert engine.search() == []


@pytest.mark.parametrize(
    "url", ["saga.db", "mysql://x", "memory://named", "sqlite://", "sqlite:///", "", "://", "postgres"]
)
def test_S28_a_url_that_names_no_journal_is_refused(url):
    with pytest.raises(BadJournalURL) as raised:
        Engine(url)
    assert repr(url) in str(raised.value)
    assert "sqlite:///" in str(raised.value) or "memory://" in str(raised.value)


@pytest.mark.parametrize("journal", [None, 7, Path("saga.db")], ids=stable_id)
def test_S28_a_journal_that_is_neither_url_nor_journal_is_refused(journal):
    with pytest.raises(BadJournalURL, match="sqlite:///"):
        Engine(journal)


BAD_ATTRIBUTES: dict[str, list[Any]] = {
    "mode": ["chains", None, 1],
    "park_policy": ["halt", None],
    "deadline_s": [0, -1, "60", True, float("nan"), float("inf")],
    "compensation_deadline_s": [0, None, "7 days", float("inf")],
    "reschedules_max": [0, -1, 1.5, None, True],
    "recoveries_max": [0, "5"],
    "attempts_max": [0, None],
    "entries_max": [0, None],
    "payload_bytes_max": [0, None, 1e6],
    "compensation_retry": [None, 5, stop_after_attempt(3)],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in BAD_ATTRIBUTES.items() for value in values]
)
def test_S28_a_bad_class_attribute_is_refused_by_name_at_registration_and_at_resolve(name, value):
    world = World()
    saga = saga_of(world.step("a"), **{name: value})
    with pytest.raises(BadDefinition, match=rf"^Order\.{name} is ") as raised:
        Engine("memory://", sagas=[saga])
    assert any(word in str(raised.value) for word in ("choose one of", "give a"))
    with Engine("memory://") as engine, pytest.raises(BadDefinition):
        saga.make(engine=engine).resolve({"id": "PR-1"})
    assert world.calls == []


@pytest.mark.parametrize("saga", [int, "Order", None, object()], ids=stable_id)
def test_S28_what_is_registered_as_a_saga_must_be_one(saga):
    with pytest.raises(BadDefinition, match="subclass of Saga"):
        Engine("memory://", sagas=[saga])


@pytest.mark.parametrize(
    ("attribute", "value"), [("retry", stop_after_attempt(3)), ("on_unknown", "ask"), ("kind", "pivot")]
)
def test_S28_a_bad_attribute_of_a_step_is_refused_by_name(engine, resolve, world, attribute, value):
    step = world.step("a")
    setattr(step, attribute, value)
    with pytest.raises(InvalidTransaction, match=f"a: {attribute} is "):
        resolve(saga_of(step))
    assert engine.search() == []


def test_S28_an_impossible_order_is_refused_before_anything_is_journaled(engine, resolve, world):
    with pytest.raises(InvalidTransaction, match="b is compensatable and comes after the pivot a"):
        resolve(saga_of(world.step("a", kind=Kind.PIVOT), world.step("b")))
    assert engine.search() == []
    assert world.calls == []


def test_S28_config_must_be_a_mapping(engine, world):
    with pytest.raises(BadDefinition, match="config is a list: give a dict"):
        saga_of(world.step("a")).make(["x"], engine=engine)


@pytest.mark.parametrize("saga_id", ["Order:PR-404", "Order", "", f"{SAGA_ID}#2", f"{SAGA_ID}#x"])
def test_S28_an_unknown_execution_is_told(engine, resolve, world, saga_id):
    resolve(saga_of(world.step("a")))
    for ask in (engine.get, engine.history, lambda it: engine.signal(it, "s"), lambda it: engine.cancel(it, "r")):
        with pytest.raises(UnknownExecution, match="see saga list"):
            ask(saga_id)


def test_S28_mail_for_an_ended_execution_is_refused(engine, resolve, world):
    resolve(saga_of(world.step("a")))
    for send in (lambda: engine.signal(SAGA_ID, "s"), lambda: engine.cancel(SAGA_ID, "r")):
        with pytest.raises(NotAllowed, match=f"{SAGA_ID} ended COMPLETED"):
            send()


def test_S28_an_unknown_saga_at_recovery_is_left_alone_and_told(new_engine, resolve, world, clock):
    resolve(saga_of(world.step("a", LATER)))
    clock.advance(60)
    engine = new_engine()
    recovered = engine.recover()
    assert (recovered, recovered.left_alone) == (0, 1)
    [record] = engine.search(stuck=True)
    assert "sagas:" in record.stuck
    assert "Engine(sagas=[...])" in record.stuck


def test_S28_recovery_without_services_leaves_executions_alone_and_says_what_to_give(
    journal, new_engine, resolve, world, clock
):
    saga = saga_of(world.step("a", LATER, DONE))
    resolve(saga)
    clock.advance(60)
    bare = new_engine(sagas=[saga], config=None)
    recovered = bare.recover()
    assert (recovered, recovered.left_alone) == (0, 1)
    assert "give Engine(config=, client=, logger=)" in bare.get(SAGA_ID).stuck
    assert world.executed == ["a"]


def test_S28_a_saga_may_give_the_services_for_its_recovery(new_engine, resolve, world, clock):
    seen = []

    def services(record):
        seen.append(record.saga_id)
        return {"config": {}, "client": "the client"}

    saga = saga_of(world.step("a", LATER, DONE), services=staticmethod(services))
    resolve(saga)
    clock.advance(60)
    assert new_engine(sagas=[saga], config=None).recover() == 1
    assert seen == [SAGA_ID]


def test_S28_a_saga_in_an_importable_module_is_found_by_its_name(tmp_path, monkeypatch, new_engine, resolve, clock):
    module = tmp_path / "found_by_name.py"
    module.write_text(
        textwrap.dedent(
            """
            from connect.eaas.core.responses import BackgroundResponse
            from saga_engine import Saga
            ran = []
            def execute(request):
                ran.append(request["id"])
                return BackgroundResponse.done() if len(ran) > 1 else BackgroundResponse.reschedule(60)
            class Outer:
                class Order(Saga):
                    def transactions(self, request):
                        return [("a", lambda request: True, execute)]
            """
        )
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import found_by_name

    resolve(found_by_name.Outer.Order)
    clock.advance(60)
    engine = new_engine()
    assert engine.recover() == 1
    assert engine.get(SAGA_ID).status is SagaStatus.COMPLETED
    sys.modules.pop("found_by_name")


def test_S28_one_execution_that_cannot_be_built_does_not_keep_recovery_from_the_others(
    new_engine, resolve, world, clock
):
    def break_later(request):
        if request["id"] == "PR-1" and clock.now() > began:
            raise RuntimeError("broken list")
        return [step]

    began, step = clock.now(), world.step("a", LATER, LATER, LATER, DONE)
    saga = saga_of(break_later)
    for number in range(3):
        resolve(saga, {"id": f"PR-{number}"})
    clock.advance(60)
    recovered = new_engine(sagas=[saga]).recover()
    assert (recovered, recovered.failed) == (2, 1)


# --- S28: fifty at once -------------------------------------------------------------------------------------------


def test_S28_of_fifty_threads_with_one_request_one_runs_and_forty_nine_are_told_to_come_back(engine, resolve, world):
    others_are_told = threading.Event()
    barrier = threading.Barrier(50)
    told: list[BackgroundResponse] = []

    def hold(request):
        assert others_are_told.wait(30)
        return DONE

    saga = saga_of(world.step("a", hold))

    def deliver() -> None:
        barrier.wait(30)
        told.append(resolve(saga))
        if len(told) >= 49:
            others_are_told.set()

    with ThreadPoolExecutor(50) as pool:
        for delivery in [pool.submit(deliver) for _ in range(50)]:
            delivery.result(timeout=60)
    assert world.executed == ["a"]
    assert sorted(answer.status for answer in told) == ["reschedule"] * 49 + ["success"]
    assert {answer.countdown for answer in told if answer.status == "reschedule"} == {30}
    assert len(engine.search()) == 1


WORKER = """
import sys, pathlib
from connect.eaas.core.responses import BackgroundResponse
from saga_engine import Engine, Saga

def execute(request):
    with open(sys.argv[2], "a") as ran:
        ran.write("ran\\n")
    print("running", flush=True)
    sys.stdin.readline()
    return BackgroundResponse.done()

class Order(Saga):
    def transactions(self, request):
        return [("a", lambda request: True, execute)]

with Engine(sys.argv[1]) as engine:
    print("ready", flush=True)
    sys.stdin.readline()
    answer = Order.make(engine=engine).resolve({"id": "PR-1"})
    print(answer.status, answer.countdown, flush=True)
    sys.stdin.readline()
"""


def test_S28_of_four_processes_with_one_request_one_runs_and_three_are_told_to_come_back(tmp_path):
    url, ran = f"sqlite:///{tmp_path / 'saga.db'}", tmp_path / "ran"
    command = [sys.executable, "-c", WORKER, url, str(ran)]
    workers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    try:
        assert [worker.stdout.readline() for worker in workers] == ["ready\n"] * 4
        for worker in workers:
            go(worker)
        lines = [worker.stdout.readline().split() for worker in workers]
        assert sorted(lines) == [["reschedule", "30"]] * 3 + [["running"]]
        winner = workers[lines.index(["running"])]
        go(winner)
        assert winner.stdout.readline().split()[0] == "success"
        assert ran.read_text() == "ran\n"
    finally:
        for worker in workers:
            worker.communicate("\n\n\n", timeout=60)


def go(worker: subprocess.Popen[str]) -> None:
    """Let a worker take its next turn."""
    assert worker.stdin is not None
    worker.stdin.write("\n")
    worker.stdin.flush()


# --- S29: errors after a crash ------------------------------------------------------------------------------------


class Refused(Exception):
    """An error whose constructor does more than keep its arguments."""

    built = 0

    def __init__(self, code: int, *, reason: str) -> None:
        super().__init__(code, reason)
        type(self).built += 1
        self.code, self.reason = code, reason

    def __str__(self) -> str:
        return f"{self.code}: {self.reason}"


def error_after_a_crash(journal, new_engine, resolve, world, error: Exception, undo: Callable[..., Any] | Any = DONE):
    """Give the `e` that the failing step's undo gets in a process that did not see the error raised."""
    saga = saga_of(world.step("a"), world.step("b", error, undo=undo))
    crash_in(resolve, new_engine, journal, saga, dies_after=(CompensationStarted, "b"))
    resolve(saga)
    return world.of("b", "compensate")[-1].error


def test_S29_in_the_process_that_saw_it_the_error_is_the_very_object(resolve, world):
    error = ValueError("no")
    resolve(saga_of(world.step("a"), world.step("b", error)))
    assert world.of("b", "compensate")[0].error is error
    assert world.of("a", "compensate")[0].error is error


def test_S29_a_class_that_can_be_imported_is_rebuilt_without_its_constructor(journal, new_engine, resolve, world):
    original = Refused(402, reason="no credit")
    built = Refused.built
    error = error_after_a_crash(journal, new_engine, resolve, world, original)
    assert type(error) is Refused
    assert error is not original
    assert (error.args, str(error)) == (original.args, "402: no credit")
    assert (error.code, error.reason) == (402, "no credit")
    assert Refused.built == built


@pytest.mark.parametrize(
    "error", [ConnectionError("away"), KeyError("id"), OSError(28, "No space left"), ZeroDivisionError()], ids=stable_id
)
def test_S29_builtin_errors_come_back_as_what_they_were(journal, new_engine, resolve, world, error):
    found = error_after_a_crash(journal, new_engine, resolve, world, error)
    assert type(found) is type(error)
    assert (found.args, str(found)) == (error.args, str(error))


def test_S29_connects_own_error_keeps_its_status_and_text(journal, new_engine, resolve, world):
    error = ClientError("Bad", status_code=400, error_code="VAL_001", errors=["name: required"])
    found = error_after_a_crash(journal, new_engine, resolve, world, error)
    assert isinstance(found, ClientError)
    assert (found.status_code, found.errors, str(found)) == (400, ["name: required"], str(error))


def test_S29_attributes_that_are_json_survive_beside_one_that_is_not(journal, new_engine, resolve, world):
    error = ClientError("Bad", status_code=400, error_code="VAL_001", errors=["name: required"], response=object())
    found = error_after_a_crash(journal, new_engine, resolve, world, error)
    assert isinstance(found, ClientError)
    assert (found.status_code, str(found)) == (400, str(error))


def test_S29_an_error_whose_arguments_are_not_json_keeps_its_class_and_text(journal, new_engine, resolve, world):
    found = error_after_a_crash(journal, new_engine, resolve, world, ConnectionError(object(), "away"))
    assert isinstance(found, ConnectionError)
    assert "away" in str(found)


def test_S29_an_error_whose_class_cannot_be_imported_is_a_recorded_error(journal, new_engine, resolve, world):
    class Local(Exception):
        pass

    found = error_after_a_crash(journal, new_engine, resolve, world, Local("no"))
    assert type(found) is RecordedError
    assert isinstance(found, SagaError)
    assert str(found) == "no"
    assert found.type_name.endswith("Local")
    assert "raise part" in found.traceback_text


def test_S29_the_journal_keeps_type_message_traceback_and_arguments(engine, resolve, world):
    resolve(saga_of(world.step("a", ValueError("no", 7))))
    [failed] = [entry for entry in engine.history(SAGA_ID) if isinstance(entry, StepFailed)]
    assert failed.error.type == "builtins.ValueError"
    assert failed.error.message == "('no', 7)"
    assert "Traceback" in failed.error.traceback
    assert "ValueError: ('no', 7)" in failed.error.traceback
    assert bytes(failed.error.args) == b'["no",7]'


def test_S29_a_refusal_comes_back_as_step_refused_with_its_output(journal, new_engine, resolve, world):
    saga = saga_of(world.step("a"), world.step("b", BackgroundResponse.fail("no credit")))
    crash_in(resolve, new_engine, journal, saga, dies_after=(CompensationStarted, "a"))
    resolve(saga)
    error = world.of("a", "compensate")[0].error
    assert type(error) is StepRefused
    assert (error.output, str(error)) == ("no credit", "no credit")


def test_S29_a_refusal_is_step_refused_for_the_earlier_steps_in_the_same_process_too(resolve, world):
    resolve(saga_of(world.step("a"), world.step("b", BackgroundResponse.fail("no credit"))))
    error = world.of("a", "compensate")[0].error
    assert type(error) is StepRefused
    assert error.output == "no credit"


def test_S29_an_undo_that_raises_the_rebuilt_error_has_nothing_to_undo(engine, journal, new_engine, resolve, world):
    error_after_a_crash(journal, new_engine, resolve, world, ValueError("no"), undo=reraise)
    assert world.undone == ["b", "a"]
    assert engine.get(SAGA_ID).status is SagaStatus.COMPENSATED
    assert statuses(engine.get(SAGA_ID)) == {"a": "COMPENSATED", "b": "FAILED"}


def test_S29_an_error_that_cannot_tell_its_text_is_recorded_all_the_same(engine, resolve, world):
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("I will not say")

    told = resolve(saga_of(world.step("a"), world.step("b", Mute())))
    assert told.status == "fail"
    assert world.undone == ["b", "a"]


def test_S29_step_started_is_all_that_is_known_of_a_step_that_died(engine, journal, new_engine, resolve, world):
    crash_in(resolve, new_engine, journal, saga_of(world.step("a")), dies_after=StepStarted)
    assert "interrupted" in (engine.get(SAGA_ID).steps[0].error or "interrupted")
