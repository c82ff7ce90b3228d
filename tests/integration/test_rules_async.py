"""Rule S30: cancellation in a handler, and plain and async code around each other, in both drivers."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from typing import Any

import pytest
import structlog
from connect.eaas.core.responses import BackgroundResponse
from sagas import DONE, SAGA_ID, World, saga_of, statuses
from tenacity import stop_after_attempt, wait_fixed

from saga_engine import SagaStatus, current_context
from saga_engine.errors import LeaseLost
from saga_engine.journal import DriveInterrupted, StepCompleted, StepFailed
from saga_engine.testing import ManualClock
from transactions import BackgroundTransaction, Probe, RetryPolicy

FAIL = BackgroundResponse.fail("no")


def entries_of(engine, kind):
    """Give the entries of this kind of the execution."""
    return [entry for entry in engine.history(SAGA_ID) if isinstance(entry, kind)]


class Waiting(BackgroundTransaction):
    """A step whose first attempt waits until told, on the event loop; it counts its attempts."""

    def __init__(self, name: str = "a", **hooks: Any) -> None:
        self._name = name
        self.attempts = 0
        self.keys: list[str] = []
        self.undone = 0
        self.hooks = hooks

    def name(self) -> str:
        return self._name

    async def execute(self, request: dict[str, Any]) -> Any:
        self.attempts += 1
        self.keys.append(current_context().idempotency_key)
        if self.attempts == 1:
            self.hooks["reached"]()
            await asyncio.sleep(3_600)
        return DONE

    def compensate(self, request: dict[str, Any], e: Exception) -> Any:
        self.undone += 1
        return DONE


async def cancel_when_reached(make: Callable[[Callable[[], None]], Any]) -> None:
    """Start a handler and cancel it once its step is reached; the cancellation must come out of it."""
    reached = asyncio.Event()
    loop = asyncio.get_running_loop()
    handler = asyncio.ensure_future(make(lambda: loop.call_soon_threadsafe(reached.set)))
    await asyncio.wait_for(reached.wait(), 30)
    handler.cancel()
    with pytest.raises(asyncio.CancelledError):
        await handler
    assert handler.cancelled()


# --- cancellation -------------------------------------------------------------------------------------------------


def test_S30_a_cancelled_handler_gives_the_lease_back_with_an_entry_and_raises_on(engine):
    step = Waiting()
    saga = saga_of(step)

    async def scenario():
        def start(reached):
            step.hooks["reached"] = reached
            return saga.make(engine=engine).aresolve({"id": "PR-1"})

        await cancel_when_reached(start)
        record = engine.get(SAGA_ID)
        assert record.held_by is None
        assert record.status is SagaStatus.SUSPENDED

    asyncio.run(scenario())
    assert [entry.cause for entry in entries_of(engine, DriveInterrupted)] == ["CancelledError"]


def test_S30_a_cancellation_is_an_interruption_never_a_failure_of_the_step(engine):
    step = Waiting()
    saga = saga_of(step)

    async def scenario():
        def start(reached):
            step.hooks["reached"] = reached
            return saga.make(engine=engine).aresolve({"id": "PR-1"})

        await cancel_when_reached(start)
        assert entries_of(engine, StepFailed) == []
        assert (await saga.make(engine=engine).aresolve({"id": "PR-1"})).status == "success"

    asyncio.run(scenario())
    assert step.attempts == 2
    assert len(set(step.keys)) == 1
    assert step.undone == 0


def test_S30_after_a_cancellation_the_step_is_probed_first(engine):
    step = Waiting()
    step.probe = lambda request: Probe.DONE
    saga = saga_of(step)

    async def scenario():
        def start(reached):
            step.hooks["reached"] = reached
            return saga.make(engine=engine).aresolve({"id": "PR-1"})

        await cancel_when_reached(start)
        assert (await saga.make(engine=engine).aresolve({"id": "PR-1"})).status == "success"

    asyncio.run(scenario())
    assert step.attempts == 1


def test_S30_recover_takes_up_what_a_cancelled_handler_left(new_engine):
    step = Waiting()
    saga = saga_of(step)
    engine = new_engine(sagas=[saga])

    async def scenario():
        def start(reached):
            step.hooks["reached"] = reached
            return saga.make(engine=engine).aresolve({"id": "PR-1"})

        await cancel_when_reached(start)

    asyncio.run(scenario())
    assert engine.recover() == 1
    assert engine.get(SAGA_ID).status is SagaStatus.COMPLETED


@pytest.mark.parametrize("times", [2, 5])
def test_S30_the_lease_is_given_back_under_a_shield(engine, times):
    """A handler that is cancelled again and again while it gives the lease back still gives it back."""
    step = Waiting()
    saga = saga_of(step)

    async def scenario():
        reached = asyncio.Event()
        step.hooks["reached"] = reached.set
        handler = asyncio.ensure_future(saga.make(engine=engine).aresolve({"id": "PR-1"}))
        await asyncio.wait_for(reached.wait(), 30)
        for _ in range(times):
            handler.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await handler
        assert engine.get(SAGA_ID).held_by is None

    asyncio.run(scenario())
    assert len(entries_of(engine, DriveInterrupted)) == 1


def test_S30_a_compensation_that_is_cancelled_goes_on_at_the_next_delivery(engine):
    undone = []

    class Undo(BackgroundTransaction):
        async def execute(self, request):
            return DONE

        async def compensate(self, request, e):
            undone.append(current_context().idempotency_key)
            if len(undone) == 1:
                self.reached()
                await asyncio.sleep(3_600)
            return DONE

    undo = Undo()
    saga = saga_of(undo, ("refuse", lambda request: True, lambda request: FAIL))

    async def scenario():
        def start(reached):
            undo.reached = reached
            return saga.make(engine=engine).aresolve({"id": "PR-1"})

        await cancel_when_reached(start)
        assert engine.get(SAGA_ID).status is SagaStatus.COMPENSATING
        assert (await saga.make(engine=engine).aresolve({"id": "PR-1"})).output == "no"

    asyncio.run(scenario())
    assert len(undone) == 2
    assert len(set(undone)) == 1


class Sleeping(ManualClock):
    """A clock on which a task really sleeps; it tells when one does."""

    def __init__(self) -> None:
        super().__init__()
        self.reached: Callable[[], None] = lambda: None

    async def asleep(self, seconds: float) -> None:
        self.reached()
        await asyncio.sleep(3_600)


def test_S30_a_wait_for_a_retry_that_is_cancelled_gives_the_lease_back(new_engine, world):
    clock = Sleeping()
    policy = RetryPolicy(stop=stop_after_attempt(2), wait=wait_fixed(100))
    saga = saga_of(world.step("a", ValueError("busy"), DONE, retry=policy))
    engine = new_engine(clock=clock)

    async def scenario():
        def start(reached):
            clock.reached = reached
            return saga.make(engine=engine).aresolve({"id": "PR-1"})

        await cancel_when_reached(start)
        assert engine.get(SAGA_ID).held_by is None
        told = await saga.make(engine=engine).aresolve({"id": "PR-1"})
        assert (told.status, told.countdown) == ("reschedule", 100)
        clock.advance(100)
        assert (await saga.make(engine=engine).aresolve({"id": "PR-1"})).status == "success"

    asyncio.run(scenario())
    assert world.executed == ["a", "a"]


class Slow:
    """A journal that holds back the answers to the commits with an entry of this kind until `go` is set."""

    def __init__(self, journal: Any, kind: type) -> None:
        self._journal, self._kind = journal, kind
        self.go = threading.Event()
        self.reached: Callable[[], None] = lambda: None
        self.url = journal.url

    def __getattr__(self, name: str) -> Any:
        return getattr(self._journal, name)

    def submit(self, commit: Any, done: Any) -> None:
        if not any(isinstance(entry, self._kind) for entry in commit.entries):
            self._journal.submit(commit, done)
            return

        def answer_late() -> None:
            assert self.go.wait(30)
            done(self._journal.append(commit))

        threading.Thread(target=answer_late).start()
        self.reached()


@pytest.mark.parametrize("steps", [1, 2])
def test_S30_a_cancellation_during_a_commit_waits_for_it_and_is_then_raised(journal, new_engine, world, steps):
    slow = Slow(journal, StepCompleted)
    saga = saga_of(*(world.step(name) for name in "ab"[:steps]))
    engine = new_engine(slow)

    async def scenario():
        reached = asyncio.Event()
        slow.reached = reached.set
        handler = asyncio.ensure_future(saga.make(engine=engine).aresolve({"id": "PR-1"}))
        await asyncio.wait_for(reached.wait(), 30)
        handler.cancel()
        await asyncio.sleep(0)
        assert not handler.done()
        slow.go.set()
        with pytest.raises(asyncio.CancelledError):
            await handler

    asyncio.run(scenario())
    record = engine.get(SAGA_ID)
    assert record.held_by is None
    assert len(entries_of(engine, StepCompleted)) == 1
    assert record.status is (SagaStatus.COMPLETED if steps == 1 else SagaStatus.SUSPENDED)
    assert saga.make(engine=new_engine()).resolve({"id": "PR-1"}).status == "success"
    assert world.executed == ["a", "b"][:steps]


# --- a plain step in its thread -----------------------------------------------------------------------------------


def lease_is_given_back(engine) -> bool:
    return engine.get(SAGA_ID).held_by is None


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, at most 30 s."""
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + 30
    while not condition():
        assert loop.time() < ends_at, "it did not come true"
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("outcome", ["done", "raises"])
def test_S30_a_plain_step_in_its_thread_keeps_the_lease_until_it_returns(engine, outcome):
    world = World()
    go = threading.Event()
    reached_by_thread: list[Callable[[], None]] = []

    def block(request):
        reached_by_thread[0]()
        assert go.wait(30)
        return DONE if outcome == "done" else ValueError("no")

    saga = saga_of(world.step("a", block, DONE), world.step("b"))

    async def scenario():
        def start(reached):
            reached_by_thread.append(reached)
            return saga.make(engine=engine).aresolve({"id": "PR-1"})

        await cancel_when_reached(start)
        assert engine.get(SAGA_ID).held_by is not None
        told = await saga.make(engine=engine).aresolve({"id": "PR-1"})
        assert (told.status, told.countdown) == ("reschedule", 30)
        assert world.executed == ["a"]
        go.set()
        await until(lambda: lease_is_given_back(engine))
        return await saga.make(engine=engine).aresolve({"id": "PR-1"})

    told = asyncio.run(scenario())
    if outcome == "done":
        assert told.status == "success"
        assert world.executed == ["a", "b"]
    else:
        assert (told.status, told.output) == ("fail", "no")
        assert world.trace() == ["execute a", "compensate a"]


def test_S30_what_a_plain_step_left_in_the_state_after_the_cancellation_is_journaled(engine):
    world = World()
    go = threading.Event()
    reached_by_thread: list[Callable[[], None]] = []

    def block(request):
        reached_by_thread[0]()
        assert go.wait(30)
        current_context().state["customer"] = "C-1"
        return DONE

    saga = saga_of(world.step("a", block), world.step("b"))

    async def scenario():
        def start(reached):
            reached_by_thread.append(reached)
            return saga.make(engine=engine).aresolve({"id": "PR-1"})

        await cancel_when_reached(start)
        go.set()
        await until(lambda: lease_is_given_back(engine))

    asyncio.run(scenario())
    assert engine.get(SAGA_ID).state == {"customer": "C-1"}
    assert statuses(engine.get(SAGA_ID)) == {"a": "COMPLETED", "b": "PENDING"}


def test_S30_an_async_step_under_a_plain_middleware_is_interrupted_too(engine):
    step = Waiting()

    def middleware(request, nxt):
        return nxt(request)

    saga = saga_of(step, middlewares=lambda self, request: [middleware])

    async def scenario():
        def start(reached):
            step.hooks["reached"] = reached
            return saga.make(engine=engine).aresolve({"id": "PR-1"})

        await cancel_when_reached(start)

    asyncio.run(scenario())
    asyncio.run(until(lambda: lease_is_given_back(engine)))
    assert entries_of(engine, StepFailed) == []
    assert len(entries_of(engine, DriveInterrupted)) == 1
    assert saga.make(engine=engine).resolve({"id": "PR-1"}).status == "success"
    assert (step.attempts, step.undone) == (2, 0)


def test_S30_an_async_middleware_around_a_plain_step_is_interrupted_too(engine):
    world = World()
    reached_by_middleware: list[Callable[[], None]] = []
    calls = []

    async def middleware(request, nxt):
        calls.append(request["id"])
        if len(calls) == 1:
            reached_by_middleware[0]()
            await asyncio.sleep(3_600)
        return await nxt(request)

    saga = saga_of(world.step("a"), middlewares=lambda self, request: [middleware])

    async def scenario():
        def start(reached):
            reached_by_middleware.append(reached)
            return saga.make(engine=engine).aresolve({"id": "PR-1"})

        await cancel_when_reached(start)

    asyncio.run(scenario())
    asyncio.run(until(lambda: lease_is_given_back(engine)))
    assert entries_of(engine, StepFailed) == []
    assert saga.make(engine=engine).resolve({"id": "PR-1"}).status == "success"
    assert world.executed == ["a"]


@pytest.mark.parametrize("driver", ["sync", "async"], indirect=True)
@pytest.mark.parametrize("has_middleware", [False, True])
def test_S30_a_cancellation_that_a_step_raises_itself_is_no_failure_of_the_step(engine, resolve, has_middleware):
    calls = []

    class Cancels(BackgroundTransaction):
        async def execute(self, request):
            calls.append(request["id"])
            if len(calls) == 1:
                raise asyncio.CancelledError
            return DONE

    def middleware(request, nxt):
        return nxt(request)

    saga = saga_of(Cancels(), middlewares=lambda self, request: [middleware] if has_middleware else [])
    with pytest.raises(asyncio.CancelledError):
        resolve(saga)
    assert entries_of(engine, StepFailed) == []
    assert engine.get(SAGA_ID).held_by is None
    assert resolve(saga).status == "success"


# A coroutine that raises these ends the loop before any driver can do anything.
@pytest.mark.parametrize("driver", ["sync", "async with plain steps"], indirect=True)
@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_S30_what_ends_the_process_is_an_interruption_as_well(engine, resolve, world, interruption):
    saga = saga_of(world.step("a", interruption(), DONE))
    with pytest.raises(interruption):
        resolve(saga)
    assert entries_of(engine, StepFailed) == []
    assert [entry.cause for entry in entries_of(engine, DriveInterrupted)] == [interruption.__name__]
    assert resolve(saga).status == "success"


# --- plain and async around each other ----------------------------------------------------------------------------

_seen: contextvars.ContextVar[str] = contextvars.ContextVar("seen", default="unset")


def make_middleware(name: str, is_async: bool, trace: list[Any]) -> Any:
    """Make a middleware that records what `nxt` gives it."""

    def plain(request, nxt):
        trace.append((name, "in", current_context().step))
        response = nxt(request)
        trace.append((name, "out", type(response).__name__))
        return response

    async def asynchronous(request, nxt):
        trace.append((name, "in", current_context().step))
        waited = nxt(request)
        response = await waited
        trace.append((name, "out", type(response).__name__))
        return response

    return asynchronous if is_async else plain


def make_step(is_async: bool, trace: list[Any], error: Exception | None = None) -> BackgroundTransaction:
    def note():
        bound = structlog.contextvars.get_contextvars()
        trace.append(("step", bound["saga_id"], bound["step"], bound["attempt"], _seen.get()))
        if error is not None:
            raise error
        return DONE

    class Plain(BackgroundTransaction):
        def name(self):
            return "a"

        def execute(self, request):
            return note()

        def compensate(self, request, e):
            trace.append(("undo", e))
            return DONE

    class Async(Plain):
        async def execute(self, request):
            await asyncio.sleep(0)
            return note()

    return Async() if is_async else Plain()


@pytest.mark.parametrize("driver", ["sync", "async"], indirect=True)
@pytest.mark.parametrize("is_step_async", [False, True], ids=["plain step", "async step"])
@pytest.mark.parametrize("outer", [False, True], ids=["plain outer", "async outer"])
@pytest.mark.parametrize("inner", [False, True], ids=["plain inner", "async inner"])
def test_S30_plain_and_async_middlewares_wrap_plain_and_async_steps(resolve, is_step_async, outer, inner):
    trace: list[Any] = []
    middlewares = [make_middleware("outer", outer, trace), make_middleware("inner", inner, trace)]
    saga = saga_of(make_step(is_step_async, trace), middlewares=lambda self, request: middlewares)
    _seen.set("by the handler")
    assert resolve(saga).status == "success"
    assert trace == [
        ("outer", "in", "a"),
        ("inner", "in", "a"),
        ("step", SAGA_ID, "a", 1, "by the handler"),
        ("inner", "out", "BackgroundResponse"),
        ("outer", "out", "BackgroundResponse"),
    ]


@pytest.mark.parametrize("driver", ["sync", "async"], indirect=True)
@pytest.mark.parametrize("is_step_async", [False, True], ids=["plain step", "async step"])
@pytest.mark.parametrize("is_middleware_async", [False, True], ids=["plain middleware", "async middleware"])
def test_S30_an_exception_comes_through_either_kind_as_the_very_object(resolve, is_step_async, is_middleware_async):
    trace: list[Any] = []
    error = ValueError("no")
    middleware = make_middleware("m", is_middleware_async, trace)
    saga = saga_of(make_step(is_step_async, trace, error), middlewares=lambda self, request: [middleware])
    assert resolve(saga).output == "no"
    assert trace[-1] == ("undo", error)
    assert trace[-1][1] is error


@pytest.mark.parametrize("is_middleware_async", [False, True], ids=["plain", "async"])
def test_S30_a_middleware_may_retry_what_it_wraps(resolve, world, is_middleware_async):
    def plain(request, nxt):
        try:
            return nxt(request)
        except ConnectionError:
            return nxt(request)

    async def asynchronous(request, nxt):
        try:
            return await nxt(request)
        except ConnectionError:
            return await nxt(request)

    middleware = asynchronous if is_middleware_async else plain
    saga = saga_of(world.step("a", ConnectionError(), DONE), middlewares=lambda self, request: [middleware])
    assert resolve(saga).status == "success"
    assert world.executed == ["a", "a"]


def test_S30_async_operations_of_every_kind_work_in_both_drivers(engine, resolve):
    trace = []

    class Everything(BackgroundTransaction):
        retry = RetryPolicy(stop=stop_after_attempt(2))

        async def should_execute(self, request):
            trace.append("should_execute")
            return True

        async def execute(self, request):
            trace.append("execute")
            raise ValueError("no")

        async def probe(self, request):
            trace.append("probe")
            return Probe.UNKNOWN

        async def compensate(self, request, e):
            trace.append(f"compensate {e}")
            context = current_context()
            context.state["saved"] = True
            await context.asave()
            return DONE

    assert resolve(saga_of(Everything())).output == "no"
    assert trace == ["should_execute", "execute", "probe", "execute", "probe", "compensate no"]
    assert engine.get(SAGA_ID).state == {"saved": True}


def test_S30_a_plain_step_does_not_block_the_loop(engine):
    world = World()
    go = threading.Event()
    saga = saga_of(world.step("a", lambda request: DONE if go.wait(30) else FAIL))

    async def scenario():
        handler = asyncio.ensure_future(saga.make(engine=engine).aresolve({"id": "PR-1"}))
        await until(lambda: world.executed == ["a"])
        go.set()
        return await handler

    assert asyncio.run(scenario()).status == "success"


def test_S30_nothing_stays_bound_after_the_step(engine, resolve, world):
    resolve(saga_of(world.step("a"), world.step("b", FAIL)))
    assert structlog.contextvars.get_contextvars() == {}


def test_S30_many_handlers_share_one_loop(engine):
    running, most = 0, 0
    met = None

    class Meets(BackgroundTransaction):
        async def execute(self, request):
            nonlocal running, most
            running += 1
            most = max(most, running)
            if running == 20:
                met.set()
            await asyncio.wait_for(met.wait(), 30)
            return DONE

    saga = saga_of(Meets())

    async def scenario():
        nonlocal met
        met = asyncio.Event()
        made = saga.make(engine=engine)
        return await asyncio.gather(*(made.aresolve({"id": f"PR-{n}"}) for n in range(20)))

    assert {response.status for response in asyncio.run(scenario())} == {"success"}
    assert most == 20


class Overtaken:
    """A journal on which a second commit loses its lease, and whose handler is cancelled meanwhile."""

    def __init__(self, journal):
        self._journal = journal
        self.number = 0
        self.handler: asyncio.Task[Any] | None = None

    def __getattr__(self, name):
        return getattr(self._journal, name)

    def submit(self, commit, done):
        self.number += 1
        if self.number == 1:
            self._journal.submit(commit, done)
        else:
            self.handler.get_loop().call_soon(self.handler.cancel)
            self.handler.get_loop().call_later(0.01, done, LeaseLost("overtaken"))


def test_S30_a_handler_cancelled_while_its_lease_is_lost_raises_the_cancellation_on(journal, new_engine):
    overtaken = Overtaken(journal)
    saga = saga_of(World(is_native_async=True).step("a"))

    async def scenario():
        overtaken.handler = asyncio.ensure_future(saga.make(engine=new_engine(overtaken)).aresolve({"id": "PR-1"}))
        with pytest.raises(asyncio.CancelledError):
            await overtaken.handler

    asyncio.run(scenario())
