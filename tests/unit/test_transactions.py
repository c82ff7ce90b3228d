"""Tuples, functions and classes as transactions: how one is picked and prepared, and what they declare."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import tenacity
from connect.eaas.core.responses import BackgroundResponse, InteractiveResponse, ScheduledExecutionResponse

from transactions import (
    BackgroundTransaction,
    InteractiveTransaction,
    InvalidResponse,
    InvalidTransaction,
    Kind,
    Probe,
    RecordedError,
    RetryPolicy,
    SagaError,
    ScheduledTransaction,
    StepRefused,
    Suspend,
    TransactionException,
    TransactionNotSelected,
    TransactionSelector,
    TupleBackgroundTransaction,
    ValidationTransaction,
    prepare,
    select,
    transaction,
)
from transactions.adapters import as_transaction
from transactions.contracts import overrides

REQUEST: dict[str, Any] = {"id": "PR-1", "type": "purchase"}


class Purchase(BackgroundTransaction):
    """Applies to purchases; answers with the text that it was built with."""

    def __init__(self, answer: str = "purchased") -> None:
        self.answer = answer

    def should_execute(self, request: dict[str, Any]) -> bool:
        return bool(request["type"] == "purchase")

    def execute(self, request: dict[str, Any]) -> Any:
        return BackgroundResponse.skip(self.answer)


class Never(Purchase):
    """Never applies."""

    def should_execute(self, request: dict[str, Any]) -> bool:
        return False


class Broken(BackgroundTransaction):
    """Raises, and answers with the error it is compensated for."""

    error = ValueError("vendor is down")

    def execute(self, request: dict[str, Any]) -> Any:
        raise self.error

    def compensate(self, request: dict[str, Any], e: Exception) -> Any:
        return BackgroundResponse.fail(f"{request['id']}: {e}")


def always(request: dict[str, Any]) -> bool:
    return True


def never(request: dict[str, Any]) -> bool:
    return False


def done(request: dict[str, Any]) -> Any:
    return BackgroundResponse.done()


def told(refused: Callable[[], Any], error: type[SagaError] = InvalidTransaction) -> str:
    """The message of the error that the call raises."""
    with pytest.raises(error) as raised:
        refused()
    return str(raised.value)


# select and TransactionSelector


@pytest.mark.parametrize("pick", [select, lambda entries, request: TransactionSelector(entries).select(request)])
def test_the_first_transaction_that_applies_is_selected(pick: Any) -> None:
    first, second = Purchase("first"), Purchase("second")
    assert pick([Never(), first, second], REQUEST) is first


def test_falsy_entries_are_dropped() -> None:
    wanted = Purchase()
    assert select([None, (), False, 0, "", wanted], REQUEST) is wanted


def test_a_tuple_can_be_selected_and_becomes_a_transaction() -> None:
    selected = select([("No", never, done), ("Yes", always, done)], REQUEST)
    assert isinstance(selected, TupleBackgroundTransaction)
    assert selected.name() == "Yes"


@pytest.mark.parametrize("entries", [[], [None], [Never()], [("No", never, done)]])
def test_without_one_that_applies_the_error_says_what_to_do(entries: list[Any]) -> None:
    message = told(lambda: select(entries, REQUEST), TransactionNotSelected)
    assert "make one's should_execute return True, or add one that does" in message


def test_S02_a_class_is_refused_where_nothing_is_built() -> None:
    for refused in (
        lambda: select([Purchase], REQUEST),
        lambda: TransactionSelector([Purchase]).select(REQUEST),
        lambda: prepare(Purchase),
    ):
        message = told(refused)
        assert "only a saga builds classes: give an instance" in message
        assert "Purchase" in message


@pytest.mark.parametrize("entry", [42, "Purchase", done, ("only a name",), ("a", always, done, done, done)])
def test_S02_an_entry_that_is_no_transaction_is_refused_even_after_one_that_applies(entry: Any) -> None:
    message = told(lambda: select([Purchase(), entry], REQUEST))
    assert message.startswith(f"{entry!r} is no transaction: give a BackgroundTransaction")


def test_a_selector_asks_each_time_anew() -> None:
    selector = TransactionSelector(entry for entry in (Purchase(), ("Else", always, done)))
    names = [selector.select({"type": kind}).name() for kind in ("purchase", "cancel", "purchase")]
    assert names == ["Purchase", "Else", "Purchase"]


def test_select_refuses_an_async_predicate_instead_of_taking_it_for_true() -> None:
    class Asking(Purchase):
        async def should_execute(self, request: dict[str, Any]) -> bool:  # type: ignore[override]
            return False

    message = told(lambda: select([Asking()], REQUEST))
    assert "should_execute of 'Asking' is async" in message
    assert 'make it plain, or let a saga with mode = "select" pick' in message


def test_transactions_that_answer_at_once_are_selected_and_prepared_but_are_no_steps() -> None:
    class Show(InteractiveTransaction):
        def execute(self, request: dict[str, Any]) -> InteractiveResponse:
            return InteractiveResponse.done(body=request)

    class Validate(ValidationTransaction):
        def execute(self, request: dict[str, Any]) -> InteractiveResponse:
            raise ValueError("no")

        def compensate(self, request: dict[str, Any], e: Exception) -> InteractiveResponse:
            return InteractiveResponse.fail(body={"error": str(e)})

    class Sweep(ScheduledTransaction):
        def execute(self, request: dict[str, Any]) -> ScheduledExecutionResponse:
            raise ValueError("sweep")

    assert prepare(select([Show()], REQUEST))(REQUEST).body == REQUEST
    assert prepare(Validate())(REQUEST).body == {"error": "no"}
    with pytest.raises(ValueError, match="sweep"):
        prepare(Sweep())(REQUEST)
    assert select([Sweep()], REQUEST).name() == "Sweep"
    assert "is no transaction" in told(lambda: as_transaction(Show()))


# prepare


def test_a_prepared_transaction_answers_what_execute_answers() -> None:
    assert prepare(Purchase("bought"))(REQUEST).output == "bought"


def test_a_prepared_transaction_gives_its_exception_and_the_request_to_compensate() -> None:
    assert prepare(Broken())(REQUEST).output == "PR-1: vendor is down"


def test_a_prepared_transaction_without_compensate_raises_the_exception_itself() -> None:
    error = ValueError()
    for entry in (
        ("Fails", always, partial(raise_, error)),
        transaction(name="Fails")(partial(raise_, error)),
    ):
        with pytest.raises(ValueError) as raised:
            prepare(entry)(REQUEST)
        assert raised.value is error


def raise_(error: Exception, request: dict[str, Any]) -> Any:
    raise error


def test_a_tuple_with_a_compensate_is_compensated_by_it() -> None:
    error = ValueError("late")
    entry = ("Fails", always, partial(raise_, error), lambda request, e: (request["id"], e))
    assert prepare(entry)(REQUEST) == ("PR-1", error)


@pytest.mark.anyio
@pytest.mark.parametrize("compensates_async", [True, False])
async def test_a_prepared_async_transaction_is_compensated_when_it_fails_while_awaited(
    compensates_async: bool,
) -> None:
    async def fail(request: dict[str, Any]) -> Any:
        await asyncio.sleep(0)
        raise ValueError("late")

    async def undo(request: dict[str, Any], e: Exception) -> Any:
        return f"undone after {e}"

    plain_undo = lambda request, e: f"undone after {e}"  # noqa: E731  # beside its async twin
    prepared = prepare(("Fails", always, fail, undo if compensates_async else plain_undo))
    assert await prepared(REQUEST) == "undone after late"


@pytest.mark.anyio
async def test_a_prepared_async_transaction_answers_what_execute_answers() -> None:
    async def answer(request: dict[str, Any]) -> Any:
        return request["id"]

    assert await prepare(("Answers", always, answer))(REQUEST) == "PR-1"


# tuples


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (("", always, done), "transaction tuple '': give a non-empty str as its name"),
        ((7, always, done), "transaction tuple 7: give a non-empty str as its name"),
        (("A", True, done), "transaction tuple 'A': its predicate is True; give a function"),
        (("A", always, None), "transaction tuple 'A': its execute is None; give a function"),
        (("A", always, done, "undo"), "transaction tuple 'A': its compensate is 'undo'; give a function"),
    ],
)
def test_S02_a_tuple_with_a_wrong_part_is_refused_naming_the_part(entry: Any, message: str) -> None:
    assert told(lambda: as_transaction(entry)) == message


# @transaction


def test_a_decorated_function_is_a_transaction_of_its_own_name_that_always_applies() -> None:
    @transaction
    def reserve_stock(request: dict[str, Any]) -> Any:
        return BackgroundResponse.skip(request["id"])

    assert isinstance(reserve_stock, BackgroundTransaction)
    assert reserve_stock.name() == "reserve_stock"
    assert reserve_stock.should_execute(REQUEST) is True
    assert reserve_stock.execute(REQUEST).output == "PR-1"
    assert (reserve_stock.kind, reserve_stock.retry, reserve_stock.service_names) == (
        Kind.COMPENSATABLE,
        None,
        (),
    )


def test_the_decorator_takes_everything_that_a_step_may_declare() -> None:
    policy = RetryPolicy(stop=tenacity.stop_after_attempt(2))

    @transaction(
        name="Reserve stock",
        should_execute=never,
        compensate=lambda request, e: f"undone: {e}",
        probe=lambda request: Probe.DONE,
        kind=Kind.PIVOT,
        retry=policy,
    )
    def reserve(request: dict[str, Any]) -> Any:
        return BackgroundResponse.done()

    assert reserve.name() == "Reserve stock"
    assert reserve.should_execute(REQUEST) is False
    assert reserve.compensate(REQUEST, ValueError("no")) == "undone: no"
    assert reserve.probe(REQUEST) is Probe.DONE
    assert (reserve.kind, reserve.retry) == (Kind.PIVOT, policy)


def test_services_of_a_function_are_its_parameters_after_the_request() -> None:
    @transaction
    def create(request: dict[str, Any], client: Any, *, logger: Any = "default") -> Any:
        return (request["id"], client, logger)

    assert create.service_names == ("client", "logger")
    assert create.with_services({"client": "C", "config": "not wanted"}).execute(REQUEST) == (
        "PR-1",
        "C",
        "default",
    )
    assert create.with_services({"client": "C", "logger": "L"}).execute(REQUEST) == ("PR-1", "C", "L")


def test_a_function_that_wants_services_cannot_be_run_without_them() -> None:
    @transaction
    def create(request: dict[str, Any], client: Any, config: Any) -> Any:
        return client, config

    create.with_services({"client": "C", "config": "K"})
    message = told(lambda: create.execute(REQUEST))
    assert message == (
        "transaction 'create' wants client, config: run it in a saga, which injects services, or call "
        "with_services() first"
    )


def test_filled_in_services_keep_whatever_was_declared_or_set_on_the_transaction() -> None:
    @transaction(compensate=lambda request, e: "undone", kind=Kind.RETRIABLE)
    def create(request: dict[str, Any], client: Any) -> Any:
        return client

    create.on_unknown = "park"
    filled = create.with_services({"client": "C"})
    assert (filled.name(), filled.kind, filled.on_unknown) == ("create", Kind.RETRIABLE, "park")
    assert filled.compensate(REQUEST, ValueError()) == "undone"


def test_an_async_function_stays_async() -> None:
    @transaction
    async def create(request: dict[str, Any]) -> Any:
        return request["id"]

    answer = create.execute(REQUEST)
    assert inspect.isawaitable(answer)
    with pytest.raises(StopIteration) as stopped:
        answer.send(None)  # type: ignore[attr-defined]
    assert stopped.value.value == "PR-1"


def without_request() -> Any:
    pytest.fail("never called")


def only_keywords(*, request: Any) -> Any:
    pytest.fail("never called")


def with_rest(request: Any, *services: Any) -> Any:
    pytest.fail("never called")


def with_keywords(request: Any, **services: Any) -> Any:
    pytest.fail("never called")


def with_positional(request: Any, client: Any, /) -> Any:
    pytest.fail("never called")


@pytest.mark.parametrize(
    ("decorate", "message"),
    [
        (lambda: transaction(without_request), "write def without_request(request)"),
        (lambda: transaction(only_keywords), "write def only_keywords(request)"),
        (
            lambda: transaction(with_rest),
            "name each service as a parameter, as in def with_rest(request, client)",
        ),
        (lambda: transaction(with_keywords), "name each service as a parameter"),
        (lambda: transaction(with_positional), "cannot be injected by name"),
        (lambda: transaction("Reserve"), "put it above a function (request, ...), its own arguments by name"),  # type: ignore[call-overload]
        (lambda: transaction(Purchase), "a transaction class needs no decorator"),
        (lambda: transaction(partial(done)), "say @transaction(name=...), a non-empty str"),
        (lambda: transaction(name="")(done), "say @transaction(name=...), a non-empty str"),
        (lambda: transaction(compensate=BackgroundResponse.done())(done), "its compensate is"),
    ],
)
def test_a_function_that_cannot_be_a_step_is_refused_at_its_definition(decorate: Any, message: str) -> None:
    assert message in told(decorate)


# the contract's defaults


def test_a_bare_transaction_is_named_after_its_class_applies_and_has_no_undo() -> None:
    class Bare(BackgroundTransaction):
        def execute(self, request: dict[str, Any]) -> Any:
            return BackgroundResponse.done()

    bare, error = Bare(), ValueError()
    assert (bare.name(), bare.should_execute(REQUEST), bare.probe(REQUEST)) == ("Bare", True, Probe.UNKNOWN)
    assert (bare.kind, bare.retry, bare.compensation_retry) == (Kind.COMPENSATABLE, None, None)
    assert bare.on_unknown == "rerun"
    with pytest.raises(ValueError) as raised:
        bare.compensate(REQUEST, error)
    assert raised.value is error


def test_a_transaction_without_execute_cannot_be_built() -> None:
    class Nothing(BackgroundTransaction):
        """It does not say what to do."""

    with pytest.raises(TypeError, match="execute"):
        Nothing()  # type: ignore[abstract]


def test_it_can_be_told_which_methods_are_a_transactions_own() -> None:
    @transaction
    def plain(request: dict[str, Any]) -> Any:
        return BackgroundResponse.done()

    undoable = transaction(compensate=lambda request, e: None, probe=lambda request: Probe.DONE)(done)
    methods = ("should_execute", "compensate", "probe")
    own = {
        step.name(): [method for method in methods if overrides(step, method)]
        for step in (plain, undoable, as_transaction(("tuple", always, done)), Broken())
    }
    assert own == {
        "plain": [],
        "done": ["compensate", "probe"],
        "tuple": ["should_execute"],
        "Broken": ["compensate"],
    }


def test_asking_for_a_method_that_no_transaction_has_is_an_error() -> None:
    assert told(lambda: overrides(Purchase(), "undo"), SagaError) == "BackgroundTransaction has no method 'undo'"


# RetryPolicy and Suspend


def test_a_retry_policy_never_gives_up_never_waits_and_repeats_every_exception_by_default() -> None:
    policy = RetryPolicy()
    state = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
    state.attempt_number = 10_000
    state.set_exception((ValueError, ValueError(), None))  # type: ignore[arg-type]
    assert (policy.stop(state), policy.wait(state), policy.retry(state)) == (False, 0, True)


async def async_strategy(state: tenacity.RetryCallState) -> bool:
    return True


class AsyncStrategy:
    """A callable object whose answer must be awaited."""

    async def __call__(self, state: tenacity.RetryCallState) -> bool:
        return True


@pytest.mark.parametrize("field", ["stop", "wait", "retry"])
@pytest.mark.parametrize("strategy", [5, None, "5", tenacity.stop_after_attempt, async_strategy, AsyncStrategy()])
def test_a_retry_policy_refuses_what_is_no_plain_strategy_and_shows_one(field: str, strategy: Any) -> None:
    message = told(lambda: RetryPolicy(**{field: strategy}))
    assert message.startswith(f"RetryPolicy({field}={strategy!r}): give a tenacity strategy or a plain function")
    assert f"for example {field}=" in message


def test_a_retry_policy_takes_any_plain_function_of_a_retry_call_state() -> None:
    assert RetryPolicy(stop=lambda state: True, wait=lambda state: 7, retry=lambda state: False).wait(None) == 7  # type: ignore[arg-type]


def test_suspend_carries_the_response_the_signal_and_the_seconds() -> None:
    response = BackgroundResponse.done()
    suspend = Suspend(response, signal="approved", timeout_s=0.5)
    assert (suspend.response, suspend.signal, suspend.timeout_s) == (response, "approved", 0.5)
    assert (Suspend(response).signal, Suspend(response).timeout_s) == (None, None)
    assert repr(suspend) == "Suspend(status='success', signal='approved', timeout_s=0.5)"


@pytest.mark.parametrize("response", [None, "done", Suspend(BackgroundResponse.done()), InteractiveResponse.done()])
def test_S19_suspend_refuses_what_is_no_background_response(response: Any) -> None:
    message = told(lambda: Suspend(response), InvalidResponse)
    assert message.endswith("for example Suspend(BackgroundResponse.done())")


@pytest.mark.parametrize("signal", ["", 7, b"approved"])
def test_S19_suspend_refuses_a_signal_without_a_name(signal: Any) -> None:
    message = told(lambda: Suspend(BackgroundResponse.done(), signal=signal), InvalidResponse)
    assert message == f"Suspend(signal={signal!r}): give the signal's name, a non-empty str"


@pytest.mark.parametrize("timeout_s", [0, -1, True, "60", float("inf"), float("nan")])
def test_S19_suspend_refuses_a_timeout_that_is_no_positive_number_of_seconds(timeout_s: Any) -> None:
    message = told(lambda: Suspend(BackgroundResponse.done(), timeout_s=timeout_s), InvalidResponse)
    assert message == f"Suspend(timeout_s={timeout_s!r}): give a number of seconds above 0"


# errors


def test_every_error_without_a_message_says_the_first_line_of_its_docstring() -> None:
    assert str(InvalidResponse()) == "A step must return a BackgroundResponse, or Suspend from execute."
    assert str(InvalidResponse("mine")) == "mine"


def test_the_seed_frameworks_ways_to_build_errors_are_kept() -> None:
    invalid, not_selected = TransactionException.invalid("a"), TransactionException.not_selected("b")
    assert (type(invalid), str(invalid)) == (InvalidTransaction, "a")
    assert (type(not_selected), str(not_selected)) == (TransactionNotSelected, "b")
    assert isinstance(invalid, TransactionException)
    assert isinstance(not_selected, TransactionException)


def test_a_refused_step_keeps_its_reason_and_says_so_when_it_gave_none() -> None:
    assert (str(StepRefused("no stock")), StepRefused("no stock").output) == ("no stock", "no stock")
    assert (str(StepRefused()), StepRefused().output) == ("the step answered fail() without a reason", None)


def test_a_recorded_error_keeps_the_class_and_the_traceback_as_text() -> None:
    error = RecordedError("boom", "vendor.api.Down", "Traceback ...")
    assert (str(error), error.type_name, error.traceback_text) == ("boom", "vendor.api.Down", "Traceback ...")
