"""Rules S24 and J10: time-outs of steps, attempts that are abandoned, effects that come late, leases held too long."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import structlog
from connect.eaas.core.responses import BackgroundResponse
from sagas import DONE, SAGA_ID, World, saga_of, statuses
from tenacity import stop_after_attempt, wait_fixed

import saga_engine.drivers
from saga_engine import Parallel, SagaStatus, current_context
from saga_engine.alarms import Alarms
from saga_engine.attempts import ThreadAttempt, _Stage
from saga_engine.endings import Ending
from saga_engine.errors import AttemptAbandoned, JournalUnavailable, LeaseLost, StepTimedOut
from saga_engine.journal import (
    CompensationFailed,
    DriveInterrupted,
    LateEffectFound,
    StateSaved,
    StepCompleted,
    StepFailed,
    StepProbed,
)
from transactions import BackgroundTransaction, Probe, RetryPolicy

FAIL = BackgroundResponse.fail("no")

#: A time-out that is certain to pass: what is to time out waits for an event that the test sets afterwards.
SHORT_S = 0.01
#: A time that is certain not to pass.
LONG_S = 60.0

TWICE = RetryPolicy(stop=stop_after_attempt(2))


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, at most 30 s."""
    ends_at = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < ends_at, "it did not come true"
        time.sleep(0.001)


class Vendor:
    """The other side: subscriptions by idempotency key, and requests that it holds back until `answers` is set."""

    def __init__(self) -> None:
        self.answers = threading.Event()
        self.reached = self.may_time_out = threading.Event()
        self.held_back: set[tuple[str, int]] = set()
        self.living: set[str] = set()
        self.created: list[str] = []
        self.deleted: list[str] = []
        self.cancelled = 0

    def create(self, key: str) -> None:
        self.created.append(key)
        self.living.add(key)

    def hold_back(self) -> None:
        """Note that the present attempt is held back."""
        context = current_context()
        self.held_back.add((context.operation, context.attempt))
        self.reached.set()

    def create_slowly(self, key: str) -> None:
        self.hold_back()
        assert self.answers.wait(30)
        self.create(key)

    def delete(self, created_by: str, key: str) -> None:
        self.deleted.append(key)
        self.living.discard(created_by)


@pytest.fixture
def vendor(monkeypatch: pytest.MonkeyPatch) -> Iterator[Vendor]:
    """The vendor; at the end it answers all, so that no thread outlives its test for long.

    However slow the machine is, no attempt in a thread times out but those that the vendor holds back.
    """
    made = Vendor()
    set_alarm = Alarms.set

    def set_patiently(alarms: Alarms, length_s: float, ring: Callable[[], None], **options: Any) -> Any:
        def ring_patiently() -> None:
            attempt = getattr(ring, "__self__", None)
            if isinstance(attempt, ThreadAttempt):
                called = (attempt._call.operation, attempt._call.attempt)
                until(lambda: attempt._stage is _Stage.OVER or called in made.held_back)
                assert made.may_time_out.wait(30)
            ring()

        return set_alarm(alarms, length_s, ring_patiently, **options)

    monkeypatch.setattr(Alarms, "set", set_patiently)
    yield made
    made.may_time_out.set()
    made.answers.set()


class Buy(BackgroundTransaction):
    """Creates a subscription; at the first `slow` attempts the vendor takes its time."""

    timeout_s = SHORT_S
    abandon_s = SHORT_S

    def __init__(self, vendor: Vendor, slow: int = 1, **options: Any) -> None:
        self.vendor, self.slow, self.attempts = vendor, slow, 0
        for name, value in options.items():
            setattr(self, name, value)

    def execute(self, request: dict[str, Any]) -> Any:
        create = self.vendor.create_slowly if self.begin() <= self.slow else self.vendor.create
        create(current_context().idempotency_key)
        return DONE

    def begin(self) -> int:
        """Count the attempts that were begun, and give the number of this one."""
        self.attempts += 1
        return current_context().attempt

    def compensate(self, request: dict[str, Any], e: Exception) -> Any:
        context = current_context()
        self.vendor.delete(context.execute_key, context.idempotency_key)
        return DONE


def entries_of(engine: Any, kind: type[Any]) -> list[Any]:
    """Give the entries of this kind of the execution."""
    return [entry for entry in engine.history(SAGA_ID) if isinstance(entry, kind)]


def mail_of(journal: Any) -> list[Any]:
    """Give what is in the execution's inbox."""
    return [message.entry for message in journal.load(journal.header(SAGA_ID).eid).inbox]


plain_drivers = pytest.mark.parametrize("driver", ["sync", "async with plain steps"], indirect=True)


# --- effects that come late ---------------------------------------------------------------------------------------


@plain_drivers
def test_J10_an_effect_that_lands_after_the_undo_is_undone_once_more_with_a_new_key(
    journal, new_engine, resolve, vendor
):
    saga = saga_of(Buy(vendor))
    engine = new_engine(sagas=[saga])
    assert "timeout_s" in resolve(saga, on=engine).output
    assert engine.get(SAGA_ID).status is SagaStatus.COMPENSATED
    assert (vendor.created, len(vendor.deleted)) == ([], 1)
    vendor.answers.set()
    until(lambda: mail_of(journal))
    assert len(vendor.living) == 1
    assert engine.recover() == 1
    assert vendor.living == set()
    assert len(set(vendor.deleted)) == 2
    assert engine.get(SAGA_ID).status is SagaStatus.COMPENSATED
    assert len(entries_of(engine, LateEffectFound)) == 1
    assert engine.recover() == 0


@plain_drivers
def test_J10_an_effect_that_lands_after_a_retry_with_the_same_key_completed_is_that_effect(
    journal, new_engine, resolve, vendor
):
    saga = saga_of(Buy(vendor, retry=TWICE))
    engine = new_engine(sagas=[saga])
    assert resolve(saga, on=engine).status == "success"
    vendor.answers.set()
    until(lambda: mail_of(journal))
    engine.recover()
    assert vendor.deleted == []
    assert len(vendor.created) == 2
    assert len(set(vendor.created)) == 1
    assert engine.get(SAGA_ID).status is SagaStatus.COMPLETED
    assert engine.recover() == 0


def test_J10_an_effect_that_lands_before_the_drive_is_over_is_undone_with_it(journal, new_engine, vendor):
    """The abandoned attempt returns while its undo is being tried again."""

    class Undone(Buy):
        compensation_retry = TWICE

        def compensate(self, request, e):
            if not self.vendor.answers.is_set():
                self.vendor.answers.set()
                until(lambda: mail_of(journal))
                raise ConnectionError("once more, please")
            return super().compensate(request, e)

    saga = saga_of(Undone(vendor))
    engine = new_engine(sagas=[saga])
    assert "timeout_s" in saga.make(engine=engine).resolve({"id": "PR-1"}).output
    assert vendor.living == set()
    assert engine.get(SAGA_ID).status is SagaStatus.COMPENSATED
    assert engine.recover() == 0


@plain_drivers
def test_J10_what_an_abandoned_attempt_refused_to_do_is_no_effect(journal, new_engine, resolve, vendor):
    class Refused(Buy):
        def execute(self, request):
            self.vendor.create_slowly("nothing")
            self.ended.set()
            return FAIL

    step = Refused(vendor, ended=threading.Event())
    saga = saga_of(step)
    engine = new_engine(sagas=[saga])
    resolve(saga, on=engine)
    vendor.answers.set()
    assert step.ended.wait(30)
    until(lambda: engine._threads._abandoned == 0)
    assert mail_of(journal) == []


@plain_drivers
def test_S24_an_abandoned_attempt_works_on_its_own_copies(new_engine, resolve, vendor):
    class Notes(Buy):
        def execute(self, request):
            mine, state = self.begin(), current_context().state
            if mine == 1:
                self.vendor.create_slowly("late")
            state["by"] = request["by"] = mine
            if mine == 1:
                self.seen.append((state["by"], request["by"]))
            return DONE

    step = Notes(vendor, retry=TWICE, seen=[])
    saga = saga_of(step, ("last", lambda request: True, lambda request: vendor.answers.set() or until_seen()))

    def until_seen():
        until(lambda: step.seen)
        return DONE

    engine = new_engine(sagas=[saga])
    assert resolve(saga, on=engine).status == "success"
    assert step.seen == [(1, 1)]
    record = engine.get(SAGA_ID)
    assert (record.state["by"], record.request["by"]) == (2, 2)


@plain_drivers
def test_S24_an_abandoned_attempt_cannot_save(new_engine, resolve, vendor):
    raised: list[BaseException] = []

    class Saves(Buy):
        def execute(self, request):
            if self.begin() == 1:
                context = current_context()
                self.vendor.create_slowly("late")
                context.state["late"] = True
                try:
                    context.save()
                except AttemptAbandoned as abandoned:
                    raised.append(abandoned)
                    raise
            return DONE

    saga = saga_of(Saves(vendor, retry=TWICE))
    engine = new_engine(sagas=[saga])
    assert resolve(saga, on=engine).status == "success"
    vendor.answers.set()
    until(lambda: raised)
    assert engine.get(SAGA_ID).state == {}


def errors_in(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno >= logging.ERROR]


class Unable:
    """A journal in whose inbox nothing can be left."""

    def __init__(self, journal: Any) -> None:
        self._journal = journal

    def __getattr__(self, name: str) -> Any:
        return getattr(self._journal, name)

    def put(self, eid: int, entry: Any) -> None:
        raise JournalUnavailable("the disk is full")


@plain_drivers
def test_J10_a_late_effect_that_cannot_be_journaled_is_logged(journal, new_engine, resolve, vendor, caplog):
    saga = saga_of(Buy(vendor))
    resolve(saga, on=new_engine(Unable(journal)))
    vendor.answers.set()
    until(lambda: errors_in(caplog))
    (record,) = errors_in(caplog)
    assert SAGA_ID in record.message
    assert "'Buy', attempt 1" in record.message
    assert "the disk is full" in record.message


# --- time-outs ----------------------------------------------------------------------------------------------------


@plain_drivers
def test_S24_a_time_out_is_an_exception_that_names_step_operation_and_time(new_engine, resolve, vendor):
    given: list[Exception] = []

    class Told(Buy):
        def compensate(self, request, e):
            given.append(e)
            return DONE

    engine = new_engine()
    resolve(saga_of(Told(vendor)), on=engine)
    (error,) = given
    assert isinstance(error, StepTimedOut)
    assert "Told: execute took longer than its timeout_s of 0.01 s" in str(error)
    (failed,) = entries_of(engine, StepFailed)
    assert (failed.effect, failed.is_abandoned, failed.retry_at) == ("unknown", True, None)


@plain_drivers
def test_S24_neither_retry_nor_undo_starts_while_the_attempt_lives(new_engine, vendor, driver):
    """And what the attempt returns after its time-out does not matter."""
    trace: list[str] = []

    class Watched(Buy):
        def execute(self, request):
            mine = self.begin()
            trace.append(f"begin {mine}")
            if mine == 1:
                self.vendor.create_slowly("late")
            trace.append(f"end {mine}")
            return DONE

    engine = new_engine()
    saga = saga_of(Watched(vendor, retry=TWICE, abandon_s=LONG_S))
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(deliver, saga, engine, driver)
        until(lambda: LONG_S in engine._threads.alarms._queues)  # it has timed out, and is waited for
        assert trace == ["begin 1"]
        vendor.answers.set()
        assert answer.result(30).status == "success"
    assert trace == ["begin 1", "end 1", "begin 2", "end 2"]
    (failed,) = entries_of(engine, StepFailed)
    assert not failed.is_abandoned


def deliver(saga: Any, engine: Any, driver: str) -> Any:
    made = saga.make(engine=engine)
    return made.resolve({"id": "PR-1"}) if driver == "sync" else asyncio.run(made.aresolve({"id": "PR-1"}))


@plain_drivers
def test_S24_after_a_time_out_the_probe_is_asked(new_engine, resolve, vendor):
    saga = saga_of(Buy(vendor, retry=TWICE, probe=lambda request: Probe.DONE))
    engine = new_engine()
    assert resolve(saga, on=engine).status == "success"
    assert vendor.created == []
    assert len(entries_of(engine, StepFailed)) == 1


@plain_drivers
def test_S24_a_probe_that_times_out_knows_nothing(new_engine, resolve, vendor):
    def probe(request):
        vendor.create_slowly("nothing")
        return Probe.DONE

    step = Buy(vendor, slow=0, on_unknown="rerun", probe=probe, retry=TWICE)
    step.execute = lambda request: (_ for _ in ()).throw(ConnectionError("no answer"))
    engine = new_engine()
    assert resolve(saga_of(step), on=engine).output == "no answer"
    answers = [(entry.answer, entry.error.type) for entry in entries_of(engine, StepProbed)]
    assert answers == [(Probe.UNKNOWN, "saga_engine.errors.StepTimedOut")] * 2


@plain_drivers
def test_S24_an_undo_that_times_out_is_tried_again(new_engine, resolve, vendor):
    undone: list[str] = []

    class Undo(Buy):
        compensation_retry = TWICE

        def compensate(self, request, e):
            undone.append(current_context().idempotency_key)
            if len(undone) == 1:
                self.vendor.create_slowly("nothing")
            return DONE

    engine = new_engine()
    saga = saga_of(Undo(vendor, slow=0), ("refuse", lambda request: True, lambda request: FAIL))
    assert resolve(saga, on=engine).output == "no"
    assert len(undone) == 2
    assert len(set(undone)) == 1
    (failed,) = entries_of(engine, CompensationFailed)
    assert failed.error.type == "saga_engine.errors.StepTimedOut"
    assert engine.get(SAGA_ID).status is SagaStatus.COMPENSATED


_seen: contextvars.ContextVar[str] = contextvars.ContextVar("seen", default="unset")


@plain_drivers
def test_S24_a_step_that_is_in_time_has_a_thread_of_its_own_and_sees_the_callers_context(engine, resolve):
    seen: list[Any] = []

    class InTime(BackgroundTransaction):
        timeout_s = LONG_S

        def execute(self, request):
            bound = structlog.contextvars.get_contextvars()
            seen.append((threading.current_thread().name, _seen.get(), current_context().step, bound["step"]))
            current_context().state["done"] = True
            return DONE

    _seen.set("by the handler")
    assert resolve(saga_of(InTime())).status == "success"
    assert seen == [("saga-step InTime", "by the handler", "InTime", "InTime")]
    assert engine.get(SAGA_ID).state == {"done": True}
    assert engine._threads.alarms._queues.keys() & {LONG_S} == set()


@plain_drivers
def test_S24_an_exception_of_a_step_that_is_in_time_is_the_very_object(resolve):
    error, undone = ValueError("no"), []

    class Raises(BackgroundTransaction):
        timeout_s = LONG_S

        def execute(self, request):
            raise error

        def compensate(self, request, e):
            undone.append(e)
            return DONE

    assert resolve(saga_of(Raises())).output == "no"
    assert undone == [error]


@plain_drivers
def test_S24_should_execute_has_no_time_out(resolve, engine):
    class Asked(BackgroundTransaction):
        timeout_s = SHORT_S

        def should_execute(self, request):
            ends_at = time.monotonic() + 2 * SHORT_S
            until(lambda: time.monotonic() > ends_at)
            return False

        def execute(self, request):
            raise AssertionError("it is skipped")

    resolve(saga_of(Asked(), ("last", lambda request: True, lambda request: DONE)))
    assert entries_of(engine, StepFailed) == []


@plain_drivers
def test_S24_with_too_many_abandoned_attempts_a_step_with_a_time_out_is_not_begun(new_engine, resolve, vendor):
    engine = new_engine(abandoned_max=1)
    resolve(saga_of(Buy(vendor)), on=engine)
    other = Buy(vendor)
    told = saga_of(other, name="Other").make(engine=engine).resolve({"id": "PR-1"})
    assert "abandoned_max (1) reached" in told.output
    assert (other.attempts, len(vendor.deleted)) == (0, 1)
    vendor.answers.set()
    until(lambda: engine._threads._abandoned == 0)
    assert saga_of(other, name="Third").make(engine=engine).resolve({"id": "PR-1"}).status == "success"


# --- async steps --------------------------------------------------------------------------------------------------


class AsyncBuy(Buy):
    """The same with coroutines; `stubborn`: it does not end when it is cancelled, but goes on waiting for `answers`."""

    stubborn = False

    async def execute(self, request: dict[str, Any]) -> Any:
        key = current_context().idempotency_key
        if self.begin() <= self.slow:
            self.vendor.hold_back()
            await self._wait()
        self.vendor.create(key)
        return DONE

    async def _wait(self) -> None:
        while not self.vendor.answers.is_set():
            try:
                await asyncio.sleep(0.001 if self.stubborn else LONG_S)
            except asyncio.CancelledError:
                self.vendor.cancelled += 1
                if not self.stubborn:
                    raise


def middleware_of(kind: str) -> list[Any]:
    """List a middleware of this kind, or none."""

    def plain(request, nxt):
        return nxt(request)

    async def asynchronous(request, nxt):
        return await nxt(request)

    return {"none": [], "plain": [plain], "async": [asynchronous]}[kind]


every_middleware = pytest.mark.parametrize("middleware", ["none", "plain", "async"])
both_drivers = pytest.mark.parametrize("driver", ["sync", "async"], indirect=True)


@both_drivers
@every_middleware
def test_S24_an_async_step_is_cancelled_at_its_time_out(new_engine, resolve, vendor, middleware):
    step = AsyncBuy(vendor, retry=TWICE, abandon_s=LONG_S)
    saga = saga_of(step, middlewares=lambda self, request: middleware_of(middleware))
    engine = new_engine()
    assert resolve(saga, on=engine).status == "success"
    assert (vendor.cancelled, len(vendor.created)) == (1, 1)
    (failed,) = entries_of(engine, StepFailed)
    assert failed.error.type == "saga_engine.errors.StepTimedOut"
    assert not failed.is_abandoned


@both_drivers
@every_middleware
def test_J10_an_async_step_that_goes_on_after_it_was_cancelled_leaves_a_late_effect(
    journal, new_engine, driver, vendor, middleware
):
    saga = saga_of(AsyncBuy(vendor, stubborn=True), middlewares=lambda self, request: middleware_of(middleware))
    engine = new_engine(sagas=[saga])

    async def scenario() -> None:
        made = saga.make(engine=engine)
        if driver == "sync":
            await asyncio.to_thread(made.resolve, {"id": "PR-1"})
        else:
            await made.aresolve({"id": "PR-1"})
        assert engine.get(SAGA_ID).status is SagaStatus.COMPENSATED
        vendor.answers.set()
        await asyncio.to_thread(until, lambda: mail_of(journal))

    asyncio.run(scenario())
    assert len(vendor.living) == 1
    assert engine.recover() == 1
    assert vendor.living == set()


@both_drivers
def test_S24_a_plain_step_in_an_async_middleware_is_waited_for_after_the_time_out(journal, new_engine, driver, vendor):
    """The middleware is cancelled, and ends; the attempt lives as long as the plain step in it."""
    saga = saga_of(Buy(vendor), middlewares=lambda self, request: middleware_of("async"))
    engine = new_engine(sagas=[saga])
    assert "timeout_s" in deliver(saga, engine, driver).output
    (failed,) = entries_of(engine, StepFailed)
    assert failed.is_abandoned
    assert mail_of(journal) == []
    vendor.answers.set()
    until(lambda: mail_of(journal))
    assert engine.recover() == 1
    assert vendor.living == set()


@pytest.mark.parametrize("lead_s", [-0.002, -0.001, 0.0, 0.001, 0.002])
def test_S30_a_cancellation_at_the_moment_of_the_time_out_stays_a_cancellation(engine, vendor, lead_s):
    class Cancels(AsyncBuy):
        async def execute(self, request):
            asyncio.get_running_loop().call_later(SHORT_S + lead_s, self.cancel)
            return await super().execute(request)

    step = Cancels(vendor, retry=TWICE)

    async def scenario() -> None:
        handler = asyncio.ensure_future(saga_of(step).make(engine=engine).aresolve({"id": "PR-1"}))
        step.cancel = handler.cancel
        with pytest.raises(asyncio.CancelledError):
            await handler

    step.slow = 10
    asyncio.run(scenario())
    record = engine.get(SAGA_ID)
    assert (record.held_by, record.status) == (None, SagaStatus.SUSPENDED)
    assert vendor.created == []


def test_S30_a_cancelled_handler_cancels_its_step_that_has_a_time_out(engine, vendor):
    saga = saga_of(AsyncBuy(vendor, timeout_s=LONG_S))

    async def scenario() -> None:
        handler = asyncio.ensure_future(saga.make(engine=engine).aresolve({"id": "PR-1"}))
        await asyncio.to_thread(vendor.reached.wait, 30)
        handler.cancel()
        with pytest.raises(asyncio.CancelledError):
            await handler

    asyncio.run(scenario())
    assert vendor.cancelled == 1
    assert entries_of(engine, StepFailed) == []
    assert len(entries_of(engine, DriveInterrupted)) == 1
    assert saga.make(engine=engine).resolve({"id": "PR-1"}).status == "success"


def test_S30_what_a_step_gives_in_spite_of_its_cancellation_is_journaled(engine, vendor):
    class Careful(AsyncBuy):
        async def _wait(self):
            try:
                await asyncio.sleep(LONG_S)
            except asyncio.CancelledError:
                self.vendor.cancelled += 1

    saga = saga_of(Careful(vendor, timeout_s=LONG_S), ("last", lambda request: True, lambda request: DONE))

    async def scenario() -> None:
        handler = asyncio.ensure_future(saga.make(engine=engine).aresolve({"id": "PR-1"}))
        await asyncio.to_thread(vendor.reached.wait, 30)
        handler.cancel()
        with pytest.raises(asyncio.CancelledError):
            await handler

    asyncio.run(scenario())
    assert statuses(engine.get(SAGA_ID)) == {"Careful": "COMPLETED", "last": "PENDING"}


# --- leases that are lost, or held too long -----------------------------------------------------------------------


class Hung(Buy):
    """A plain step without a time-out whose first attempt hangs."""

    timeout_s = None
    abandon_s = 60.0
    on_unknown = "compensate"


@contextmanager
def driven(saga: Any, engine: Any, driver: str) -> Iterator[Any]:
    """Deliver the request in another thread, whose answer is waited for at the end."""
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(deliver, saga, engine, driver)
        yield answer
        answer.result(30)


@plain_drivers
def test_S24_a_step_without_a_time_out_that_hangs_loses_its_lease_and_leaves_a_late_effect(
    journal, new_engine, driver, vendor, caplog
):
    saga = saga_of(Hung(vendor))
    hanging, other = new_engine(held_max_s=SHORT_S), new_engine(sagas=[saga])
    with driven(saga, hanging, driver) as answer:
        until(lambda: journal.header(SAGA_ID) is not None and not journal.is_held(journal.header(SAGA_ID)))
        (logged,) = errors_in(caplog)
        assert f"{SAGA_ID}: execute of step 'Hung' hangs for more than held_max_s (0.01 s)" in logged.message
        assert other.recover() == 1
        assert other.get(SAGA_ID).status is SagaStatus.COMPENSATED
        vendor.answers.set()
        assert answer.result(30).status == "reschedule"
    assert len(mail_of(journal)) == 1
    assert len(vendor.living) == 1
    assert other.recover() == 1
    assert vendor.living == set()
    assert len(set(vendor.deleted)) == 2


@plain_drivers
def test_S24_the_watchdog_leaves_steps_alone_that_are_not_at_it_for_long(new_engine, resolve, caplog):
    engine = new_engine(held_max_s=LONG_S)
    resolve(saga_of(*((name, lambda request: True, lambda request: DONE) for name in "abc")), on=engine)
    assert engine._sync._watchdog._watched == engine._async._watchdog._watched == {}
    assert errors_in(caplog) == []


class Overtaken:
    """A journal on which the first commit with an outcome finds that the lease is lost."""

    def __init__(self, journal: Any, before: Callable[[], None] = lambda: None) -> None:
        self._journal, self._before, self.is_lost = journal, before, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._journal, name)

    def append(self, commit: Any) -> Any:
        if self._is_outcome(commit):
            self._before()
            raise LeaseLost("overtaken")
        return self._journal.append(commit)

    def submit(self, commit: Any, done: Callable[[Any], None]) -> None:
        if self._is_outcome(commit):
            self._before()
            done(LeaseLost("overtaken"))
        else:
            self._journal.submit(commit, done)

    def _is_outcome(self, commit: Any) -> bool:
        self.is_lost |= any(isinstance(entry, StepCompleted) for entry in commit.entries)
        return self.is_lost


@pytest.mark.parametrize("driver", ["sync", "async", "async with plain steps"], indirect=True)
def test_J10_a_drive_that_was_overtaken_waits_for_its_branches_and_leaves_behind_what_they_did(
    journal, new_engine, resolve, world
):
    is_lost = threading.Event()

    def wait_until_lost(request):
        assert is_lost.wait(30)
        return DONE

    async def wait_until_lost_natively(request):
        await asyncio.to_thread(is_lost.wait, 30)
        return DONE

    late = world.step("late")
    late.execute = wait_until_lost_natively if world.is_native_async else wait_until_lost
    saga = saga_of(Parallel(world.step("early"), late, world.step("refused", FAIL)))
    told = resolve(saga, on=new_engine(Overtaken(journal, is_lost.set)))
    assert told.status == "reschedule"
    found = {(entry.step, entry.attempt, entry.undone) for entry in mail_of(journal)}
    assert found == {("early", 1, 0), ("late", 1, 0)}


@pytest.mark.parametrize("driver", ["sync", "async", "async with plain steps"], indirect=True)
def test_J10_a_step_that_learns_from_save_that_it_was_overtaken_leaves_its_effect_behind(
    journal, new_engine, resolve, world
):
    def save(request):
        current_context().state["half"] = True
        current_context().save()
        return DONE

    class Lost(Overtaken):
        def _is_outcome(self, commit):
            return any(isinstance(entry, StateSaved) for entry in commit.entries)

    told = resolve(saga_of(world.step("a", save)), on=new_engine(Lost(journal)))
    assert told.status == "reschedule"
    (late,) = mail_of(journal)
    assert (late.step, late.attempt) == ("a", 1)


# --- interruptions ------------------------------------------------------------------------------------------------


@pytest.fixture
def interrupts(monkeypatch: pytest.MonkeyPatch, vendor: Vendor) -> list[Callable[[], None]]:
    """Interrupts the wait for the step, as Ctrl-C does, as soon as the step is reached.

    When the end of the drive has begun, each of what the list holds is called.
    """
    calls: list[Callable[[], None]] = []
    begin = Ending.begin

    def begin_and_call(self: Ending, *arguments: Any) -> None:
        begin(self, *arguments)
        for call in calls:
            call()

    def interrupted(*_: Any) -> None:
        assert vendor.reached.wait(30)
        raise KeyboardInterrupt

    monkeypatch.setattr(Ending, "begin", begin_and_call)
    monkeypatch.setattr(saga_engine.drivers, "wait", interrupted)
    return calls


def interrupt() -> None:
    raise KeyboardInterrupt


def test_S24_an_interrupt_waits_for_a_step_with_a_time_out_no_longer_than_that(engine, vendor, interrupts):
    vendor.may_time_out = threading.Event()
    interrupts.append(vendor.may_time_out.set)
    with pytest.raises(KeyboardInterrupt):
        saga_of(Buy(vendor)).make(engine=engine).resolve({"id": "PR-1"})
    (failed,) = entries_of(engine, StepFailed)
    assert failed.is_abandoned
    assert [entry.cause for entry in entries_of(engine, DriveInterrupted)] == ["KeyboardInterrupt"]
    assert engine.get(SAGA_ID).held_by is None


def test_S30_what_a_step_gives_after_an_interrupt_is_journaled(engine, vendor, interrupts):
    interrupts.append(vendor.answers.set)
    saga = saga_of(Buy(vendor, timeout_s=LONG_S), ("last", lambda request: True, lambda request: DONE))
    with pytest.raises(KeyboardInterrupt):
        saga.make(engine=engine).resolve({"id": "PR-1"})
    assert statuses(engine.get(SAGA_ID)) == {"Buy": "COMPLETED", "last": "PENDING"}
    assert engine.get(SAGA_ID).held_by is None


def test_S30_after_a_second_interrupt_the_last_thread_gives_the_lease_back(engine, vendor, interrupts):
    interrupts.append(interrupt)
    saga = saga_of(Buy(vendor, timeout_s=LONG_S), ("last", lambda request: True, lambda request: DONE))
    with pytest.raises(KeyboardInterrupt):
        saga.make(engine=engine).resolve({"id": "PR-1"})
    assert engine.get(SAGA_ID).held_by is not None
    vendor.answers.set()
    until(lambda: engine.get(SAGA_ID).held_by is None)
    assert statuses(engine.get(SAGA_ID)) == {"Buy": "COMPLETED", "last": "PENDING"}


class Branch(BackgroundTransaction):
    """A plain branch that is held back until `go`."""

    def __init__(self, name: str, answer: Any = DONE) -> None:
        self._name, self._answer = name, answer
        self.reached, self.go = threading.Event(), threading.Event()
        self.is_over = False

    def name(self) -> str:
        return self._name

    def execute(self, request: dict[str, Any]) -> Any:
        self.reached.set()
        assert self.go.wait(30)
        self.is_over = True
        if isinstance(self._answer, Exception):
            raise self._answer
        current_context().state[self._name] = "done"
        return self._answer


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_S30_the_last_of_several_branches_to_return_gives_the_lease_of_a_cancelled_handler_back(
    engine, vendor, order, monkeypatch
):
    ends: list[str] = []
    end = Ending._end
    monkeypatch.setattr(Ending, "_end", lambda self: ends.append(threading.current_thread().name) or end(self))
    branches = {"a": Branch("a"), "b": Branch("b", ValueError("no"))}
    native = AsyncBuy(vendor, timeout_s=None)
    saga = saga_of(Parallel(branches["a"], branches["b"], native))

    async def scenario() -> None:
        handler = asyncio.ensure_future(saga.make(engine=engine).aresolve({"id": "PR-1"}))
        for event in (branches["a"].reached, branches["b"].reached, vendor.reached):
            await asyncio.to_thread(event.wait, 30)
        handler.cancel()
        with pytest.raises(asyncio.CancelledError):
            await handler

    asyncio.run(scenario())
    assert vendor.cancelled == 1
    first, last = (branches[name] for name in order)
    first.go.set()
    until(lambda: first.is_over)
    assert engine.get(SAGA_ID).held_by is not None
    assert saga.make(engine=engine).resolve({"id": "PR-1"}).status == "reschedule"
    last.go.set()
    until(lambda: engine.get(SAGA_ID).held_by is None)
    assert len(ends) == 1
    assert [entry.step for entry in entries_of(engine, StepCompleted)] == ["a"]
    assert [entry.step for entry in entries_of(engine, StepFailed)] == ["b"]
    assert len(entries_of(engine, DriveInterrupted)) == 1


@pytest.mark.parametrize("timeout_s", [None, LONG_S])
@pytest.mark.parametrize("middleware", ["plain", "async"])
def test_S30_a_cancelled_handler_cancels_its_async_step_in_a_plain_middleware(engine, vendor, timeout_s, middleware):
    """And that on a loop that goes on: nothing else ends the step."""
    around = [*middleware_of("plain"), *middleware_of(middleware)]
    saga = saga_of(AsyncBuy(vendor, timeout_s=timeout_s), middlewares=lambda self, request: around)

    async def scenario() -> None:
        handler = asyncio.ensure_future(saga.make(engine=engine).aresolve({"id": "PR-1"}))
        await asyncio.to_thread(vendor.reached.wait, 30)
        handler.cancel()
        with pytest.raises(asyncio.CancelledError):
            await handler
        await asyncio.to_thread(until, lambda: engine.get(SAGA_ID).held_by is None)

    asyncio.run(scenario())
    assert vendor.cancelled == 1
    assert entries_of(engine, StepFailed) == []
    assert len(entries_of(engine, DriveInterrupted)) == 1


def test_S30_a_handler_whose_loop_was_closed_under_it_leaves_no_lease_behind(engine):
    """Its coroutine is closed by Python, and nothing can be awaited any more."""
    step, loop = Branch("a"), asyncio.new_event_loop()

    async def begin() -> None:
        loop.handler = asyncio.ensure_future(saga_of(step).make(engine=engine).aresolve({"id": "PR-1"}))
        await asyncio.to_thread(step.reached.wait, 30)

    loop.run_until_complete(begin())
    loop.close()
    del loop.handler
    step.go.set()

    def is_given_back() -> bool:
        gc.collect()
        return engine.get(SAGA_ID).held_by is None

    until(is_given_back)
    assert statuses(engine.get(SAGA_ID)) == {"a": "COMPLETED"}


def test_a_retry_goes_on_beside_a_branch_that_takes_long(new_engine, driver):
    """The drive waits for what is in flight no longer than until a retry is due."""
    slow, tries = Branch("slow"), []

    def fail_once(request):
        tries.append(1)
        if len(tries) == 1:
            assert slow.reached.wait(30)
            raise ConnectionError("busy")
        slow.go.set()
        return DONE

    policy = RetryPolicy(stop=stop_after_attempt(2), wait=wait_fixed(SHORT_S))
    again = World().step("again", fail_once, retry=policy)
    engine = new_engine()
    assert deliver(saga_of(Parallel(again, slow)), engine, driver).status == "success"
    assert len(tries) == 2
