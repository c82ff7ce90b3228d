"""Rules S1 to S7: how an execution starts, and what the answers of its steps mean."""

from __future__ import annotations

from typing import Any

import pytest
from connect.eaas.core.responses import BackgroundResponse
from sagas import DONE, SAGA_ID, Crash, Mortal, remember, saga_of, stable_id, statuses
from tenacity import stop_after_attempt, wait_fixed

from saga_engine import Saga, SagaContext, SagaStatus, current_context
from saga_engine.errors import BadRequest, InvalidTransaction, TransactionNotSelected
from saga_engine.journal import SagaStarted, StepCompleted, StepSkipped
from transactions import (
    BackgroundTransaction,
    Kind,
    RetryPolicy,
    TransactionSelector,
    prepare,
    select,
    transaction,
)

THREE_TIMES = RetryPolicy(stop=stop_after_attempt(3), wait=wait_fixed(5))
LATER = BackgroundResponse.reschedule(60)


def one(request: dict[str, Any]) -> dict[str, Any]:
    """Give the request of `PR-1` with these fields beside."""
    return {"id": "PR-1", **request}


# --- S1: the start ------------------------------------------------------------------------------------------------


def test_S01_an_execution_is_named_after_its_saga_and_the_id_of_its_request(engine, resolve, world):
    resolve(saga_of(world.step("a"), name="Purchase"), {"id": "PR-7"})
    assert [record.saga_id for record in engine.search()] == ["Purchase:PR-7"]


def test_S01_an_overridden_key_names_the_execution(engine, resolve, world):
    saga = saga_of(world.step("a"), key=lambda self, request: request["asset"]["id"])
    resolve(saga, {"id": "PR-7", "asset": {"id": "AS-1"}})
    assert [record.saga_id for record in engine.search()] == ["Order:AS-1"]


def test_S01_plan_and_request_are_journaled_before_any_step_runs(engine, resolve, world):
    seen = []

    def look(request):
        seen.extend(engine.history(SAGA_ID))
        return DONE

    resolve(saga_of(world.step("a", look), world.step("b", kind=Kind.READ_ONLY)), one({"n": 1}))
    started = seen[0]
    assert isinstance(started, SagaStarted)
    assert [(step.name, step.kind, step.needs) for step in started.plan.steps] == [
        ("a", Kind.COMPENSATABLE, ()),
        ("b", Kind.READ_ONLY, ("a",)),
    ]
    assert bytes(started.request) == b'{"id":"PR-1","n":1}'


def test_S01_no_step_runs_when_the_start_cannot_be_journaled(journal, new_engine, resolve, world):
    process = Mortal(journal, dies_before=SagaStarted)
    saga = saga_of(world.step("a"))
    with pytest.raises(Crash):
        resolve(saga, on=new_engine(process))
    assert world.calls == []
    assert journal.search() == []


def test_S01_the_plan_is_rebuilt_from_the_request_of_the_start_not_from_a_later_one(resolve, world):
    a, b, c = world.step("a", LATER, DONE), world.step("b"), world.step("c")
    saga = saga_of(lambda request: [a, b] if request["plan"] == "ab" else [a, c])
    resolve(saga, one({"plan": "ab"}))
    assert resolve(saga, one({"plan": "ac"})).status == "success"
    assert world.executed == ["a", "a", "b"]


def test_S01_the_plan_does_not_follow_changes_that_steps_make_to_the_request(resolve, world):
    def change(request):
        request["plan"] = "ac"
        return LATER

    a, b, c = world.step("a", change, DONE), world.step("b"), world.step("c")
    saga = saga_of(lambda request: [a, b] if request["plan"] == "ab" else [a, c])
    resolve(saga, one({"plan": "ab"}))
    assert resolve(saga, one({"plan": "ab"})).status == "success"
    assert world.executed == ["a", "a", "b"]


def test_S01_the_journaled_order_wins_over_later_code(resolve, world):
    a, b, c = world.step("a", LATER, DONE), world.step("b"), world.step("c")
    resolve(saga_of(a, b, c))
    assert resolve(saga_of(c, b, a)).status == "success"
    assert world.executed == ["a", "a", "b", "c"]


def test_S01_a_step_that_later_code_adds_does_not_run_in_an_execution_under_way(resolve, world):
    a, b, added = world.step("a", LATER, DONE), world.step("b"), world.step("added")
    resolve(saga_of(a, b))
    assert resolve(saga_of(added, a, b)).status == "success"
    assert world.executed == ["a", "a", "b"]


def test_S01_a_step_journaled_as_compensatable_is_undone_though_later_code_calls_it_read_only(resolve, world):
    b = world.step("b", LATER, ValueError("no"))
    resolve(saga_of(world.step("a"), b))
    resolve(saga_of(world.step("a", kind=Kind.READ_ONLY), b))
    assert world.undone == ["b", "a"]


def test_S01_a_step_journaled_as_read_only_is_not_undone_though_later_code_calls_it_compensatable(resolve, world):
    b = world.step("b", LATER, ValueError("no"))
    resolve(saga_of(world.step("a", kind=Kind.READ_ONLY), b))
    resolve(saga_of(world.step("a"), b))
    assert world.undone == ["b"]


def test_S01_a_step_journaled_as_retriable_is_kept_trying_though_later_code_calls_it_compensatable(
    engine, resolve, world, clock
):
    a = world.step("a", LATER, DONE)
    resolve(saga_of(a, world.step("b", kind=Kind.RETRIABLE)))
    b = world.step("b", ValueError("no"), ValueError("no"), DONE)
    resolve(saga_of(a, b))
    while engine.get(SAGA_ID).status is SagaStatus.SUSPENDED:
        clock.advance(3_600)
        resolve(saga_of(a, b))
    assert engine.get(SAGA_ID).status is SagaStatus.COMPLETED
    assert world.undone == []


# --- S2: what may be listed ---------------------------------------------------------------------------------------


class Injected(BackgroundTransaction):
    """A transaction that a saga builds; it tells its client that it was built and that it ran."""

    def __init__(self, client: Any, logger: Any, config: Any, context: SagaContext) -> None:
        self.client, self.context = client, context
        client.append("built")

    def execute(self, request: dict[str, Any]) -> BackgroundResponse:
        self.client.append(f"{self.context.step} ran for {request['id']}")
        return DONE


@transaction
def plainly(request: dict[str, Any]) -> BackgroundResponse:
    """A function as a transaction, without services."""
    return remember(plainly=True)(request)


@transaction(name="with a client")
def with_client(request: dict[str, Any], client: Any) -> BackgroundResponse:
    """A function as a transaction that wants a service."""
    client.append("function ran")
    return DONE


def test_S02_a_class_is_built_by_the_container(new_engine, resolve):
    client: list[str] = []
    assert resolve(saga_of(Injected), on=new_engine(client=client)).status == "success"
    assert client == ["built", "Injected ran for PR-1"]


def test_S02_instances_tuples_and_decorated_functions_are_steps(engine, new_engine, resolve, world):
    client: list[str] = []
    entries = [
        world.step("instance"),
        ("three", lambda request: True, remember(three=True)),
        ("four", lambda request: True, remember(four=True), lambda request, e: DONE),
        plainly,
        with_client,
    ]
    assert resolve(saga_of(*entries), on=new_engine(client=client)).status == "success"
    record = engine.get(SAGA_ID)
    assert statuses(record) == dict.fromkeys(["instance", "three", "four", "plainly", "with a client"], "COMPLETED")
    assert record.state == {"three": True, "four": True, "plainly": True}
    assert client == ["function ran"]


def test_S02_the_predicate_and_the_compensation_of_a_tuple_are_used(engine, resolve, world):
    undone = []

    def undo(request, e):
        undone.append((request["id"], str(e)))
        return DONE

    resolve(
        saga_of(
            ("done", lambda request: True, lambda request: DONE, undo),
            ("unwanted", lambda request: False, lambda request: DONE, undo),
            world.step("failing", ValueError("no")),
        )
    )
    assert undone == [("PR-1", "no")]
    assert statuses(engine.get(SAGA_ID)) == {"done": "COMPENSATED", "unwanted": "SKIPPED", "failing": "COMPENSATED"}


def test_S02_falsy_entries_are_dropped(engine, resolve, world):
    assert resolve(saga_of(None, world.step("a"), False, (), world.step("b"))).status == "success"
    assert list(statuses(engine.get(SAGA_ID))) == ["a", "b"]


@pytest.mark.parametrize(
    "entry",
    [
        "a name",
        42,
        dict,
        Saga,
        lambda request: DONE,
        ("name", lambda request: True),
        ("name", lambda request: True, "no function"),
        ("", lambda request: True, lambda request: DONE),
        [Injected],
    ],
    ids=stable_id,
)
def test_S02_anything_else_is_refused_before_anything_runs(engine, resolve, world, entry):
    with pytest.raises(InvalidTransaction):
        resolve(saga_of(world.step("a"), entry))
    assert world.calls == []
    assert engine.search() == []


def test_S02_two_steps_of_one_name_are_refused_before_anything_runs(engine, resolve, world):
    with pytest.raises(InvalidTransaction, match="two steps named 'a'"):
        resolve(saga_of(world.step("a"), world.step("b"), world.step("a")))
    assert world.calls == []
    assert engine.search() == []


@pytest.mark.parametrize("entries", [[], [None, False]], ids=["empty", "falsy only"])
def test_S02_a_saga_that_lists_nothing_selects_no_transaction(engine, resolve, entries):
    with pytest.raises(TransactionNotSelected, match="listed nothing"):
        resolve(saga_of(lambda request: entries))
    assert engine.search() == []


def _key_of_asset(self: Saga, request: dict[str, Any]) -> str:
    return str(request["asset"]["id"])


@pytest.mark.parametrize("attributes", [{}, {"key": _key_of_asset}], ids=["default key", "overridden key"])
def test_S02_that_nothing_is_listed_is_found_before_the_key_is_missed(resolve, attributes):
    with pytest.raises(TransactionNotSelected):
        resolve(saga_of(lambda request: [], **attributes), {})


def test_S02_a_missing_key_is_told_when_there_are_transactions(resolve, world):
    with pytest.raises(BadRequest, match="the request has no 'id'"):
        resolve(saga_of(world.step("a")), {"type": "purchase"})


def test_S02_select_prepare_and_the_selector_build_nothing():
    for use in (
        lambda: select([Injected], {}),
        lambda: prepare(Injected),
        lambda: TransactionSelector([Injected]).select({}),
    ):
        with pytest.raises(InvalidTransaction, match="only a saga builds classes"):
            use()


def test_S02_services_are_built_anew_at_each_delivery(resolve, world):
    first: list[str] = []
    second: list[str] = []
    saga = saga_of(world.step("waiting", LATER, DONE), Injected)
    resolve(saga, client=first)
    resolve(saga, client=second)
    assert first == ["built"]
    assert second == ["built", "Injected ran for PR-1"]


# --- S3: should_execute -------------------------------------------------------------------------------------------


def test_S03_an_unwanted_step_is_skipped_journaled_and_never_asked_again(engine, resolve, world):
    a = world.step("a", wanted=[False, True])
    saga = saga_of(a, world.step("b", LATER, DONE), world.step("c"))
    resolve(saga)
    assert [entry.step for entry in engine.history(SAGA_ID) if isinstance(entry, StepSkipped)] == ["a"]
    assert resolve(saga).status == "success"
    assert statuses(engine.get(SAGA_ID)) == {"a": "SKIPPED", "b": "COMPLETED", "c": "COMPLETED"}
    assert len(world.of("a", "should_execute")) == 1
    assert world.executed == ["b", "b", "c"]


def test_S03_a_skipped_step_is_not_asked_again_after_a_crash(journal, new_engine, resolve, world):
    process = Mortal(journal, dies_before=(StepCompleted, "b"))
    saga = saga_of(world.step("a", wanted=[False, True]), world.step("b"))
    with pytest.raises(Crash):
        resolve(saga, on=new_engine(process))
    assert resolve(saga).status == "success"
    assert len(world.of("a", "should_execute")) == 1
    assert world.executed == ["b", "b"]


def test_S03_a_skipped_step_is_not_undone(resolve, world):
    resolve(saga_of(world.step("a", wanted=False), world.step("b", ValueError("no"))))
    assert world.undone == ["b"]


def test_S03_a_step_that_has_started_is_not_skipped_after_a_crash(engine, journal, new_engine, resolve, world):
    process = Mortal(journal)
    saga = saga_of(world.step("a", process.die, DONE, wanted=[True, False]))
    with pytest.raises(Crash):
        resolve(saga, on=new_engine(process))
    assert resolve(saga).status == "success"
    assert statuses(engine.get(SAGA_ID)) == {"a": "COMPLETED"}
    assert world.trace() == ["should_execute a", "execute a", "execute a"]


def test_S03_a_step_that_has_started_is_not_skipped_by_a_retry(resolve, world):
    resolve(saga_of(world.step("a", ValueError("no"), DONE, wanted=[True, False], retry=THREE_TIMES)))
    assert world.trace() == ["should_execute a", "execute a", "execute a"]


def test_S03_a_question_that_raises_is_a_failed_attempt_without_effect(engine, resolve, world):
    saga = saga_of(world.step("a"), world.step("b", wanted=ValueError("cannot tell")))
    assert resolve(saga).output == "cannot tell"
    assert world.trace() == ["execute a", "should_execute b", "compensate a"]
    assert statuses(engine.get(SAGA_ID)) == {"a": "COMPENSATED", "b": "FAILED"}


def test_S03_a_question_that_raises_is_asked_again_by_the_retry_policy(engine, resolve, world, clock):
    a = world.step("a", wanted=[ValueError("cannot tell"), True], retry=THREE_TIMES)
    assert resolve(saga_of(a)).status == "success"
    assert world.trace() == ["should_execute a", "should_execute a", "execute a"]
    assert clock.slept_s == [5]
    assert engine.get(SAGA_ID).steps[0].attempts == 2


def test_S03_a_question_that_raised_may_still_say_no(engine, resolve, world):
    a = world.step("a", wanted=[ValueError("cannot tell"), False], retry=THREE_TIMES)
    assert resolve(saga_of(a)).status == "success"
    assert statuses(engine.get(SAGA_ID)) == {"a": "SKIPPED"}


def test_S03_a_question_that_raises_is_not_probed(resolve, world):
    resolve(saga_of(world.step("a", wanted=ValueError("cannot tell"), probe=ValueError("nothing to probe"))))
    assert world.probed == []


def test_S03_a_question_that_raises_after_a_wait_leaves_what_the_step_did_before_to_undo(resolve, world):
    saga = saga_of(world.step("a"), world.step("b", LATER, wanted=[True, ValueError("cannot tell")]))
    resolve(saga)
    assert resolve(saga).output == "cannot tell"
    assert world.undone == ["b", "a"]


def test_S03_a_question_sees_the_state_that_earlier_steps_left(resolve, world):
    resolve(saga_of(world.step("a", remember(customer="C-1")), world.step("b", wanted=True)))
    assert world.of("b", "should_execute")[0].state == {"customer": "C-1"}


# --- S4: middlewares ----------------------------------------------------------------------------------------------


class Wrapping:
    """A middleware that a saga builds; it tells its client when it is entered and left."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def __call__(self, request: dict[str, Any], nxt: Any) -> Any:
        self.client.append("built one in")
        response = nxt(request)
        self.client.append("built one out")
        return response


def wrapping(log: list[str], name: str) -> Any:
    """Make a middleware that tells when it is entered and left, and around which step."""

    def middleware(request: dict[str, Any], nxt: Any) -> Any:
        log.append(f"{name} in {current_context().step}")
        response = nxt(request)
        log.append(f"{name} out")
        return response

    return middleware


def async_wrapping(log: list[str], name: str) -> Any:
    """The same as a coroutine function."""

    async def middleware(request: dict[str, Any], nxt: Any) -> Any:
        log.append(f"{name} in {current_context().step}")
        response = await nxt(request)
        log.append(f"{name} out")
        return response

    return middleware


def answering(answer: Any, step: str) -> Any:
    """Make a middleware that answers for this step itself, or raises."""

    def middleware(request: dict[str, Any], nxt: Any) -> Any:
        if current_context().step != step:
            return nxt(request)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return middleware


def with_middlewares(*middlewares: Any) -> dict[str, Any]:
    """Give the attribute of a saga that has these middlewares."""
    return {"middlewares": lambda self, request: list(middlewares)}


@pytest.mark.parametrize("make", [wrapping, async_wrapping], ids=["plain", "async"])
def test_S04_middlewares_wrap_execute_of_every_step_the_first_listed_outermost(resolve, world, make):
    log: list[str] = []
    saga = saga_of(world.step("a"), world.step("b"), **with_middlewares(make(log, "outer"), make(log, "inner")))
    assert resolve(saga).status == "success"
    assert log == [
        "outer in a", "inner in a", "inner out", "outer out",
        "outer in b", "inner in b", "inner out", "outer out",
    ]  # fmt: skip


@pytest.mark.parametrize(("outer", "inner"), [(wrapping, async_wrapping), (async_wrapping, wrapping)])
def test_S04_plain_and_async_middlewares_mix(resolve, world, outer, inner):
    log: list[str] = []
    saga = saga_of(world.step("a"), **with_middlewares(outer(log, "outer"), inner(log, "inner")))
    assert resolve(saga).status == "success"
    assert log == ["outer in a", "inner in a", "inner out", "outer out"]


def test_S04_a_middleware_may_be_a_class_that_the_container_builds(new_engine, resolve, world):
    client: list[str] = []
    saga = saga_of(world.step("a"), **with_middlewares(Wrapping))
    assert resolve(saga, on=new_engine(client=client)).status == "success"
    assert client == ["built one in", "built one out"]


def test_S04_middlewares_run_once_per_attempt(resolve, world):
    log: list[str] = []
    step = world.step("a", ValueError("1"), ValueError("2"), DONE, retry=THREE_TIMES)
    resolve(saga_of(step, **with_middlewares(wrapping(log, "m"))))
    assert log == ["m in a", "m in a", "m in a", "m out"]


def test_S04_middlewares_wrap_neither_questions_nor_probes_nor_undo(resolve, world):
    log: list[str] = []
    failing = world.step("b", ValueError("no"), probe=ValueError("unknown"), wanted=True)
    resolve(saga_of(world.step("a", wanted=True), failing, **with_middlewares(wrapping(log, "m"))))
    assert world.undone == ["b", "a"]
    assert world.probed == ["b"]
    assert log == ["m in a", "m out", "m in b"]


def test_S04_a_middleware_that_answers_without_nxt_completes_the_step_and_it_is_never_undone(engine, resolve, world):
    a = world.step("a", undo=ValueError("nothing was there to undo"))
    saga = saga_of(a, world.step("b", ValueError("no")), **with_middlewares(answering(DONE, "a")))
    assert resolve(saga).output == "no"
    assert world.trace() == ["execute b", "compensate b"]
    assert statuses(engine.get(SAGA_ID)) == {"a": "COMPLETED", "b": "COMPENSATED"}


def test_S04_an_async_middleware_that_answers_without_nxt_leaves_nothing_to_undo(resolve, world):
    async def answer(request, nxt):
        return DONE if current_context().step == "a" else await nxt(request)

    resolve(saga_of(world.step("a"), world.step("b", ValueError("no")), **with_middlewares(answer)))
    assert world.undone == ["b"]


def test_S04_a_middleware_that_waits_without_nxt_leaves_nothing_to_undo(new_engine, resolve, world):
    saga = saga_of(world.step("a"), world.step("b"), **with_middlewares(answering(LATER, "b")))
    assert resolve(saga).countdown == 60
    new_engine(sagas=[saga]).cancel(SAGA_ID, "not needed")
    assert world.trace() == ["execute a", "compensate a"]


def test_S04_what_an_earlier_attempt_may_have_done_is_undone_though_a_middleware_answers_the_next(resolve, world):
    answers = [None, DONE]

    def answer(request, nxt):
        return (answers.pop(0) if current_context().step == "a" else None) or nxt(request)

    a = world.step("a", ValueError("unknown outcome"), retry=THREE_TIMES)
    resolve(saga_of(a, world.step("b", ValueError("no")), **with_middlewares(answer)))
    assert world.trace() == ["execute a", "execute b", "compensate b", "compensate a"]


def test_S04_a_middleware_that_raises_without_nxt_leaves_nothing_to_undo(resolve, world):
    saga = saga_of(world.step("a"), world.step("b"), **with_middlewares(answering(ValueError("no"), "b")))
    assert resolve(saga).output == "no"
    assert world.trace() == ["execute a", "compensate a"]


def test_S04_a_middleware_may_change_the_answer_of_a_step(resolve, world):
    def refuse(request, nxt):
        nxt(request)
        return BackgroundResponse.fail("the middleware says no")

    async def refuse_async(request, nxt):
        await nxt(request)
        return BackgroundResponse.fail("the middleware says no")

    for number, middleware in enumerate((refuse, refuse_async)):
        saga = saga_of(world.step("a"), **with_middlewares(middleware))
        assert resolve(saga, {"id": f"PR-{number}"}).output == "the middleware says no"


# --- S5: done -----------------------------------------------------------------------------------------------------


def test_S05_done_goes_to_the_next_step_until_all_are_done(engine, resolve, world):
    response = resolve(saga_of(*(world.step(name) for name in "abcde")))
    assert (response.status, response.output) == ("success", None)
    assert world.executed == list("abcde")
    record = engine.get(SAGA_ID)
    assert record.status is SagaStatus.COMPLETED
    assert statuses(record) == dict.fromkeys("abcde", "COMPLETED")


# --- S6: reschedule -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [BackgroundResponse.reschedule(60), BackgroundResponse.slow_process_reschedule(600)],
    ids=["short", "slow"],
)
def test_S06_a_reschedule_suspends_at_the_step_and_is_the_answer(engine, resolve, world, clock, answer):
    response = resolve(saga_of(world.step("a"), world.step("b", answer), world.step("c")))
    assert (response.status, response.countdown) == ("reschedule", answer.countdown)
    record = engine.get(SAGA_ID)
    assert record.status is SagaStatus.SUSPENDED
    assert record.next_due_at == clock.now() + answer.countdown
    assert statuses(record) == {"a": "COMPLETED", "b": "SUSPENDED", "c": "PENDING"}
    assert record.held_by is None


def test_S06_the_next_delivery_runs_the_same_step_with_the_fresh_request_and_no_earlier_one(resolve, world):
    saga = saga_of(world.step("a"), world.step("b", LATER, LATER, DONE), world.step("c"))
    for number in (1, 2):
        assert resolve(saga, one({"n": number})).status == "reschedule"
    assert resolve(saga, one({"n": 3})).status == "success"
    assert world.executed == ["a", "b", "b", "b", "c"]
    assert [call.request["n"] for call in world.of("b")] == [1, 2, 3]
    assert world.of("c")[0].request == {"id": "PR-1", "n": 3}


def test_S06_a_due_execution_goes_on_without_a_delivery_and_not_before_it_is_due(new_engine, resolve, world, clock):
    saga = saga_of(world.step("a"), world.step("b", LATER, DONE))
    worker = new_engine(sagas=[saga])
    resolve(saga, one({"n": 1}))
    clock.advance(59)
    assert worker.recover() == 0
    clock.advance(1)
    assert worker.recover() == 1
    assert worker.get(SAGA_ID).status is SagaStatus.COMPLETED
    assert world.executed == ["a", "b", "b"]
    assert world.of("b")[1].request == {"id": "PR-1", "n": 1}


def test_S06_a_waiting_step_that_is_still_wanted_is_asked_and_runs_again(resolve, world):
    saga = saga_of(world.step("a", LATER, DONE, wanted=lambda request: request["n"] < 3))
    resolve(saga, one({"n": 1}))
    assert resolve(saga, one({"n": 2})).status == "success"
    assert world.trace() == ["should_execute a", "execute a"] * 2
    assert [call.request["n"] for call in world.of("a", "should_execute")] == [1, 2]


def test_S06_a_waiting_step_that_is_no_longer_wanted_is_completed_and_still_undoable(engine, resolve, world):
    a = world.step("a", LATER, wanted=lambda request: request["n"] < 2)
    saga = saga_of(a, world.step("b", ValueError("no")))
    resolve(saga, one({"n": 1}))
    resolve(saga, one({"n": 2}))
    assert world.executed == ["a", "b"]
    assert world.undone == ["b", "a"]
    assert statuses(engine.get(SAGA_ID)) == {"a": "COMPENSATED", "b": "COMPENSATED"}


def test_S06_a_due_step_that_is_no_longer_wanted_is_completed_not_skipped(new_engine, resolve, world, clock):
    saga = saga_of(world.step("a", LATER, wanted=[True, False]))
    worker = new_engine(sagas=[saga])
    resolve(saga)
    clock.advance(60)
    assert worker.recover() == 1
    assert statuses(worker.get(SAGA_ID)) == {"a": "COMPLETED"}


def test_S06_state_is_kept_across_reschedules_and_failed_attempts(engine, resolve, world):
    def count(answer):
        def step(request):
            state = current_context().state
            state["n"] = state.get("n", 0) + 1
            return answer

        return step

    failure = ValueError("once")
    a = world.step("a", count(LATER), count(failure), count(LATER), count(DONE), retry=THREE_TIMES)
    saga = saga_of(a, world.step("b"))
    assert resolve(saga).status == "reschedule"
    assert resolve(saga).status == "reschedule"
    assert resolve(saga).status == "success"
    assert [call.state.get("n", 0) for call in world.of("a")] == [0, 1, 2, 3]
    assert world.of("b")[0].state == {"n": 4}
    assert engine.get(SAGA_ID).state == {"n": 4}


# --- S7: skip -----------------------------------------------------------------------------------------------------

SKIP = BackgroundResponse.skip("nothing to do")


def test_S07_skip_before_any_effect_ends_the_execution_skipped(engine, resolve, world):
    saga = saga_of(world.step("a", SKIP), world.step("b"))
    for _ in range(2):
        response = resolve(saga)
        assert (response.status, response.output) == ("skip", "nothing to do")
    record = engine.get(SAGA_ID)
    assert record.status is SagaStatus.SKIPPED
    assert record.steps[1].status.value == "SKIPPED"
    assert world.executed == ["a"]


def test_S07_skip_after_an_effect_completes_the_execution_and_is_the_answer(engine, resolve, world):
    saga = saga_of(world.step("a"), world.step("b", SKIP), world.step("c"), world.step("d"))
    for _ in range(2):
        response = resolve(saga)
        assert (response.status, response.output) == ("skip", "nothing to do")
    record = engine.get(SAGA_ID)
    assert record.status is SagaStatus.COMPLETED
    assert statuses(record)["a"] == "COMPLETED"
    assert (statuses(record)["c"], statuses(record)["d"]) == ("SKIPPED", "SKIPPED")
    assert world.trace() == ["execute a", "execute b"]


def test_S07_steps_without_effect_do_not_keep_a_skip_from_ending_the_execution_skipped(engine, resolve, world):
    saga = saga_of(
        world.step("read", kind=Kind.READ_ONLY),
        world.step("answered"),
        world.step("unwanted", wanted=False),
        world.step("b", SKIP),
        **with_middlewares(answering(DONE, "answered")),
    )
    assert resolve(saga).status == "skip"
    assert engine.get(SAGA_ID).status is SagaStatus.SKIPPED


def test_S07_an_effect_that_is_only_possible_counts_as_an_effect(engine, resolve, world):
    a = world.step("a", ValueError("unknown outcome"), SKIP, retry=THREE_TIMES)
    assert resolve(saga_of(a)).status == "skip"
    assert engine.get(SAGA_ID).status is SagaStatus.COMPLETED


def test_S07_a_skip_answered_by_a_middleware_ends_the_execution(engine, resolve, world):
    saga = saga_of(world.step("a"), world.step("b"), **with_middlewares(answering(SKIP, "a")))
    assert resolve(saga).output == "nothing to do"
    assert engine.get(SAGA_ID).status is SagaStatus.SKIPPED
    assert world.executed == []
