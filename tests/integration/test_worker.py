"""The worker: start and wait, queue, durable timers, several workers on one journal, stop, and what goes wrong."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from connect.eaas.core.responses import BackgroundResponse
from msgspec import Raw
from sagas import DONE, SAGA_ID, Crash, Mortal, World, saga_of, statuses
from tenacity import retry_if_exception_type, stop_after_attempt, wait_fixed

from saga_engine import Engine, Parallel, SagaStatus, current_context
from saga_engine.clock import SystemClock
from saga_engine.errors import (
    BadDefinition,
    BadRequest,
    JournalUnavailable,
    LeaseLost,
    NotAllowed,
    TransactionNotSelected,
    UnknownExecution,
)
from saga_engine.journal import (
    DriveInterrupted,
    SagaEnded,
    SagaStarted,
    SagaSuspended,
    SignalReceived,
    StepCompleted,
    StepStarted,
    WaitElapsed,
)
from saga_engine.journals import open_journal
from transactions import BackgroundTransaction, RetryPolicy, Suspend

LATER = BackgroundResponse.reschedule(60)
REQUEST = {"id": "PR-1"}
LIMIT_S = 30.0


def eventually(condition: Callable[[], object]) -> None:
    """Wait for a condition; fail if it does not come about in time."""
    ends_at = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < ends_at, "it did not come about in time"
        time.sleep(0.002)


def meanwhile(function, *arguments):
    """Call in another thread; `.result(LIMIT_S)` gives what it returned."""
    pool = ThreadPoolExecutor(1)
    future = pool.submit(function, *arguments)
    pool.shutdown(wait=False)
    return future


class Gate:
    """A place in a script that is reached, and passed when it is opened."""

    def __init__(self, answer=DONE):
        self.answer = answer
        self.reached, self._opened = threading.Event(), threading.Event()

    def pass_(self, request):
        self.reached.set()
        assert self._opened.wait(LIMIT_S)
        return self.answer

    def open(self):
        self._opened.set()


class Counted:
    """A journal that counts the calls of its methods, and lets something befall some of its submitted commits."""

    def __init__(self, journal, befalls=None):
        self.journal, self.calls, self._befalls = journal, Counter(), befalls

    def __getattr__(self, name):
        self.calls[name] += 1
        return getattr(self.journal, name)

    def submit(self, commit, done):
        self.calls["submit"] += 1
        error = self._befalls(commit) if self._befalls else None
        if error is not None:
            done(error)
        else:
            self.journal.submit(commit, done)


@pytest.fixture
def worker_engine(journal):
    """Makes engines with the machine's clock and a worker that looks often."""
    made = []

    def make(on=None, **options):
        given = {"config": {}, "poll_s": 0.02, "clock": SystemClock(), "stop_timeout_s": LIMIT_S, **options}
        made.append(Engine(on or journal, **given))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


@pytest.fixture(params=["plain", "async", "mixed"])
def steps(request):
    """Three steps that are plain, async, or in turns, and the worlds that remember their calls."""
    kinds = {"plain": (False,) * 3, "async": (True,) * 3, "mixed": (True, False, True)}[request.param]
    worlds = [World(is_native_async=kind) for kind in kinds]
    return worlds, [world.step(name) for world, name in zip(worlds, "abc", strict=True)]


# --- start and wait -----------------------------------------------------------------------------------------------


def test_a_started_saga_runs_in_the_background_and_its_answer_can_be_waited_for(worker_engine, steps):
    worlds, transactions = steps
    engine = worker_engine()
    saga_id = engine.start(saga_of(*transactions), REQUEST)
    assert saga_id == SAGA_ID
    assert engine.wait(saga_id).status == "success"
    assert [world.executed for world in worlds] == [["a"], ["b"], ["c"]]


def test_J01_a_saga_of_five_steps_makes_six_commits_in_the_worker(worker_engine, journal):
    counted = Counted(journal)
    engine = worker_engine(counted)
    world = World()
    engine.wait(engine.start(saga_of(*(world.step(name) for name in "abcde")), REQUEST))
    assert counted.calls["submit"] == 6
    assert journal.load(journal.header(SAGA_ID).eid).seq == 6


def test_J02_an_execution_is_durable_when_start_returns(worker_engine, journal):
    gate = Gate()
    engine = worker_engine()
    engine.start(saga_of(World().step("a", gate.pass_)), REQUEST)
    assert gate.reached.wait(LIMIT_S)
    entries = journal.load(journal.header(SAGA_ID).eid).entries
    assert [type(entry) for entry in entries] == [SagaStarted, StepStarted]
    gate.open()


def test_a_made_saga_is_started_with_its_own_services(worker_engine):
    class Greets(BackgroundTransaction):
        def __init__(self, client):
            self._client = client

        def execute(self, request):
            self._client.append("hello")
            return DONE

    client: list[str] = []
    engine = worker_engine(config=None)
    engine.wait(engine.start(saga_of(Greets).make(client=client), REQUEST))
    assert client == ["hello"]


def test_services_of_the_saga_serve_a_start_without_any(worker_engine):
    class Greets(BackgroundTransaction):
        def __init__(self, client):
            self._client = client

        def execute(self, request):
            self._client.append(request["id"])
            return DONE

    client: list[str] = []
    saga = saga_of(Greets, services=classmethod(lambda cls, record: {"client": client} if record.saga_id else None))
    engine = worker_engine(config=None)
    engine.wait(engine.start(saga, REQUEST))
    assert client == ["PR-1"]


def test_a_started_saga_needs_no_services_to_go_on_later(journal, new_engine, clock):
    world = World()
    engine = new_engine(config=None, poll_s=0.01)
    saga = saga_of(world.step("a", LATER, DONE))
    engine.start(saga, REQUEST)
    eventually(lambda: engine.get(SAGA_ID).status is SagaStatus.SUSPENDED)
    clock.advance(60)
    assert engine.wait(SAGA_ID).status == "success"


@pytest.mark.parametrize(
    ("request_", "error"), [([], BadRequest), ({}, BadRequest), ({"id": "x" * 600}, BadRequest)], ids=str
)
def test_S28_a_request_that_cannot_be_used_is_refused_by_start(worker_engine, journal, request_, error):
    engine = worker_engine()
    with pytest.raises(error):
        engine.start(saga_of(World().step("a")), request_)
    assert journal.search() == []


def test_S26_a_saga_of_mode_select_is_refused_by_start(worker_engine, journal):
    with pytest.raises(BadDefinition, match="select"):
        worker_engine().start(saga_of(World().step("a"), mode="select"), REQUEST)
    assert journal.search() == []


def test_an_empty_list_is_refused_by_start_and_keeps_no_place(worker_engine):
    world = World()
    engine = worker_engine(concurrency_max=1)
    with pytest.raises(TransactionNotSelected):
        engine.start(saga_of(), REQUEST)
    engine.wait(engine.start(saga_of(world.step("a")), REQUEST))
    assert [type(entry) for entry in engine.history(SAGA_ID)][1] is StepStarted


def test_what_should_execute_raises_on_the_way_to_the_first_commit_is_journaled(worker_engine):
    world = World()
    engine = worker_engine()
    engine.start(saga_of(world.step("a", wanted=ValueError("no idea"))), REQUEST)
    assert engine.wait(SAGA_ID).status == "fail"


def test_a_base_exception_on_the_way_to_the_first_commit_reaches_the_caller_of_start(worker_engine, journal):
    engine = worker_engine(concurrency_max=1)
    with pytest.raises(Crash):
        engine.start(saga_of(World().step("a", wanted=Crash())), REQUEST)
    assert journal.search() == []
    world = World()
    assert engine.wait(engine.start(saga_of(world.step("a")), {"id": "PR-2"})).status == "success"


def test_S15_an_id_that_is_known_is_started_once_and_keeps_its_first_request(worker_engine, caplog):
    world = World()
    engine = worker_engine()
    saga = saga_of(world.step("a"))
    assert engine.start(saga, {**REQUEST, "n": 1}) == engine.start(saga, {**REQUEST, "n": 1})
    engine.wait(SAGA_ID)
    assert not [record for record in caplog.records if "another request" in record.getMessage()]
    engine.start(saga, {**REQUEST, "n": 2})
    assert len([record for record in caplog.records if "another request" in record.getMessage()]) == 1
    assert [call.request["n"] for call in world.calls] == [1]


def test_an_id_that_many_start_at_the_same_moment_runs_once(worker_engine):
    world, together = World(), threading.Barrier(8, timeout=LIMIT_S)
    engine = worker_engine()
    saga = saga_of(world.step("a"))

    def start():
        together.wait()
        return engine.start(saga, REQUEST)

    with ThreadPoolExecutor(8) as pool:
        ids = [future.result(LIMIT_S) for future in [pool.submit(start) for _ in range(8)]]
    assert set(ids) == {SAGA_ID}
    assert engine.wait(SAGA_ID).status == "success"
    assert world.executed == ["a"]


def test_an_ended_execution_starts_anew_if_its_author_opted_in(worker_engine):
    world = World()
    engine = worker_engine()
    saga = saga_of(world.step("a"), restarts=lambda self, request, previous: previous.status is SagaStatus.COMPLETED)
    engine.wait(engine.start(saga, REQUEST))
    again = engine.start(saga, REQUEST)
    assert again == "Order:PR-1#2"
    assert engine.wait(again).status == "success"
    assert world.executed == ["a", "a"]


def test_starting_an_execution_again_that_is_under_way_leaves_it_alone(worker_engine):
    gate, world = Gate(), World()
    engine = worker_engine()
    saga = saga_of(world.step("a", gate.pass_), restarts=lambda self, request, previous: True)
    engine.start(saga, REQUEST)
    assert gate.reached.wait(LIMIT_S)
    assert engine.start(saga, REQUEST) == SAGA_ID
    gate.open()
    engine.wait(SAGA_ID)
    assert world.executed == ["a"]


def test_start_and_run_are_refused_after_close(journal):
    engine = Engine(journal, config={})
    engine.close()
    with pytest.raises(NotAllowed, match="closed"):
        engine.start(saga_of(World().step("a")), REQUEST)
    with pytest.raises(NotAllowed, match="closed"):
        engine.run()


@pytest.mark.parametrize(
    "options",
    [
        {"concurrency_max": 0},
        {"concurrency_max": True},
        {"concurrency_max": 1.5},
        {"poll_s": 0},
        {"poll_s": -1},
        {"poll_s": "1"},
        {"stop_timeout_s": -1},
        {"stop_timeout_s": None},
        {"stop_timeout_s": float("inf")},
    ],
    ids=str,
)
def test_arguments_of_the_worker_that_cannot_be_meant_are_refused(options):
    with pytest.raises(BadDefinition, match=next(iter(options))):
        Engine("memory://", **options)


# --- wait ---------------------------------------------------------------------------------------------------------


def test_waiting_in_vain_answers_what_the_present_state_says(worker_engine):
    gate = Gate(LATER)
    engine = worker_engine()
    saga_id = engine.start(saga_of(World().step("a", gate.pass_)), REQUEST)
    assert gate.reached.wait(LIMIT_S)
    held = engine.wait(saga_id, timeout_s=0.0)
    assert (held.status, held.countdown) == ("reschedule", 30)
    gate.open()
    eventually(lambda: engine.get(saga_id).status is SagaStatus.SUSPENDED)
    suspended = engine.wait(saga_id, timeout_s=0.01)
    assert suspended.status == "reschedule"
    assert 30 < suspended.countdown <= 60


def test_waiting_for_an_execution_that_parks_tells_where_it_parked(worker_engine):
    engine = worker_engine()
    world = World()
    saga = saga_of(world.step("a", undo=None), world.step("b", ValueError("no")))
    answer = engine.wait(engine.start(saga, REQUEST))
    assert answer.output.startswith("parked at a: no undo")


def test_waiting_for_an_execution_that_parks_gives_what_its_saga_answers(worker_engine):
    world = World()
    saga = saga_of(
        world.step("a", undo=None),
        world.step("b", ValueError("no")),
        parked_response=lambda self, record: BackgroundResponse.fail(f"ask somebody about {record.saga_id}"),
    )
    engine = worker_engine(sagas=[saga])
    assert engine.wait(engine.start(saga, REQUEST)).output == "ask somebody about Order:PR-1"


def test_waiting_for_what_does_not_exist_is_an_error(worker_engine):
    with pytest.raises(UnknownExecution):
        worker_engine().wait("Order:unknown")


@pytest.mark.parametrize("timeout_s", [-1, "1", float("nan")], ids=str)
def test_a_time_to_wait_that_cannot_be_meant_is_refused(worker_engine, timeout_s):
    with pytest.raises(BadDefinition, match="timeout_s"):
        worker_engine().wait(SAGA_ID, timeout_s)


@pytest.mark.parametrize("poll_s", [0.02, 600.0], ids=str)
def test_a_waiter_is_woken_by_a_drive_of_its_own_engine_and_finds_the_end_of_another_engines(worker_engine, poll_s):
    """With ten minutes between two looks only being woken helps; the other engine's end is found by looking."""
    gate = Gate()
    engine = worker_engine(poll_s=poll_s)
    saga = saga_of(World().step("a", gate.pass_))
    starter = engine if poll_s > 1 else worker_engine()
    saga_id = starter.start(saga, REQUEST)
    assert gate.reached.wait(LIMIT_S)
    waiting = meanwhile(engine.wait, saga_id, 2 * LIMIT_S)
    gate.open()
    assert waiting.result(LIMIT_S).status == "success"


# --- places and the queue -----------------------------------------------------------------------------------------


def test_what_starts_while_all_places_are_taken_is_queued_and_runs_when_one_is_free(worker_engine):
    gate, world = Gate(), World()
    first, second = saga_of(world.step("a", gate.pass_)), saga_of(world.step("b"), name="Second")
    engine = worker_engine(concurrency_max=1, sagas=[first, second], poll_s=600.0)
    engine.start(first, REQUEST)
    assert gate.reached.wait(LIMIT_S)
    queued = engine.start(second, REQUEST)
    assert engine.get(queued).status is SagaStatus.SUSPENDED
    assert [type(entry) for entry in engine.history(queued)] == [SagaStarted, SagaSuspended]
    gate.open()
    assert engine.wait(queued).status == "success"
    assert world.executed == ["a", "b"]


def test_no_more_executions_are_under_way_than_there_are_places(worker_engine):
    world, now, most, lock = World(), [0], [0], threading.Lock()

    def work(request):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.001)
        with lock:
            now[0] -= 1
        return DONE

    saga = saga_of(world.step("a", work))
    engine = worker_engine(concurrency_max=3, sagas=[saga])
    ids = [engine.start(saga, {"id": f"PR-{number}"}) for number in range(30)]
    assert {engine.wait(saga_id).status for saga_id in ids} == {"success"}
    assert len(world.executed) == 30
    assert most[0] <= 3


@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
def test_sixty_four_steps_that_wait_for_each_other_run_at_once(worker_engine, is_async):
    both = threading.Barrier(64, timeout=LIMIT_S)
    arrived, all_here = list[int](), asyncio.Event()

    class Meets(BackgroundTransaction):
        def execute(self, request):
            both.wait()
            return DONE

    class MeetsAsync(BackgroundTransaction):
        async def execute(self, request):
            arrived.append(1)
            if len(arrived) == 64:
                all_here.set()
            await asyncio.wait_for(all_here.wait(), LIMIT_S)
            return DONE

    saga = saga_of(MeetsAsync if is_async else Meets)
    engine = worker_engine()
    ids = [engine.start(saga, {"id": f"PR-{number}"}) for number in range(64)]
    assert {engine.wait(saga_id).status for saga_id in ids} == {"success"}
    assert engine._worker.threads_count <= 64


def test_sixty_four_sagas_of_plain_and_async_steps_need_few_threads(worker_engine):
    plain, native = World(), World(is_native_async=True)
    saga = saga_of(plain.step("a"), native.step("b"), plain.step("c"))
    engine = worker_engine(sagas=[saga])
    ids = [engine.start(saga, {"id": f"PR-{number}"}) for number in range(64)]
    assert {engine.wait(saga_id).status for saga_id in ids} == {"success"}
    assert (len(plain.executed), len(native.executed)) == (128, 64)
    assert engine._worker.threads_count < 16


@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
def test_S21_branches_run_beside_each_other_in_the_worker(worker_engine, is_async):
    here, both_here = set[str](), asyncio.Event()

    def meet(name):
        class Meets(BackgroundTransaction):
            def name(self):
                return name

            def execute(self, request):
                here.add(name)
                eventually(lambda: here == {"a", "b"})
                return DONE

        class MeetsAsync(Meets):
            async def execute(self, request):
                here.add(name)
                if here == {"a", "b"}:
                    both_here.set()
                await asyncio.wait_for(both_here.wait(), LIMIT_S)
                return DONE

        return MeetsAsync if is_async else Meets

    world = World()
    engine = worker_engine()
    saga_id = engine.start(saga_of(Parallel(meet("a"), meet("b")), world.step("c")), REQUEST)
    assert engine.wait(saga_id).status == "success"
    assert world.executed == ["c"]


def test_S21_a_branch_that_fails_waits_for_the_other_in_the_worker(worker_engine):
    world, gate = World(), Gate()
    saga = saga_of(Parallel(world.step("a", gate.pass_), world.step("b", ValueError("b failed"))), world.step("c"))
    engine = worker_engine()
    engine.start(saga, REQUEST)
    assert gate.reached.wait(LIMIT_S)
    gate.open()
    assert engine.wait(SAGA_ID).output == "b failed"
    assert world.undone == ["b", "a"]
    assert statuses(engine.get(SAGA_ID))["c"] == "PENDING"


@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
def test_S24_a_step_that_takes_too_long_fails_in_the_worker_and_the_place_is_free_again(worker_engine, is_async):
    undone, ends = [], threading.Event()

    class Hangs(BackgroundTransaction):
        timeout_s, abandon_s = 0.02, 0.02

        def execute(self, request):
            assert ends.wait(LIMIT_S)
            return DONE

        def compensate(self, request, e):
            undone.append(type(e).__name__)
            return DONE

    class HangsAsync(Hangs):
        async def execute(self, request):
            await asyncio.Event().wait()

    engine = worker_engine(concurrency_max=1)
    engine.start(saga_of(HangsAsync if is_async else Hangs), REQUEST)
    assert "took longer" in engine.wait(SAGA_ID).output
    assert undone == ["StepTimedOut"]
    assert engine.wait(engine.start(saga_of(World().step("b"), name="Next"), REQUEST)).status == "success"
    ends.set()


# --- timers -------------------------------------------------------------------------------------------------------


def test_a_reschedule_survives_a_restart_and_fires_when_it_is_due(new_engine, clock):
    world = World()
    saga = saga_of(world.step("a"), world.step("b", LATER, DONE))
    before = new_engine(poll_s=0.01)
    before.start(saga, REQUEST)
    eventually(lambda: before.get(SAGA_ID).status is SagaStatus.SUSPENDED)
    before.close()
    after = new_engine(sagas=[saga], poll_s=0.01)
    running = meanwhile(after.run)
    clock.advance(60)
    assert after.wait(SAGA_ID).status == "success"
    assert world.executed == ["a", "b", "b"]
    assert after.stop() == 0
    assert running.result(LIMIT_S) == 0


def test_a_long_wait_for_a_retry_is_suspended_and_goes_on_when_it_is_due(new_engine, clock):
    world = World()
    policy = RetryPolicy(stop=stop_after_attempt(3), wait=wait_fixed(40), retry=retry_if_exception_type(OSError))
    saga = saga_of(world.step("a", OSError("busy"), DONE, retry=policy))
    engine = new_engine(sagas=[saga], poll_s=0.01)
    engine.start(saga, REQUEST)
    eventually(lambda: engine.get(SAGA_ID).status is SagaStatus.SUSPENDED)
    assert engine.get(SAGA_ID).next_due_at == clock.now() + 40
    clock.advance(40)
    assert engine.wait(SAGA_ID).status == "success"


def test_a_short_wait_for_a_retry_takes_no_thread_and_no_commit_of_its_own_in_the_journal(worker_engine):
    world = World()
    policy = RetryPolicy(stop=stop_after_attempt(3), wait=wait_fixed(0.02), retry=retry_if_exception_type(OSError))
    engine = worker_engine()
    engine.start(saga_of(world.step("a", OSError("busy"), DONE, retry=policy)), REQUEST)
    assert engine.wait(SAGA_ID).status == "success"
    kinds = [type(entry) for entry in engine.history(SAGA_ID)]
    assert WaitElapsed in kinds
    assert SagaSuspended not in kinds


def test_a_clock_set_forward_lets_a_timer_fire_and_one_set_back_loses_none(journal, new_engine, clock):
    world = World()
    saga = saga_of(world.step("a", LATER, LATER, DONE))
    counted = Counted(journal)
    engine = new_engine(counted, sagas=[saga], poll_s=0.005)
    engine.start(saga, REQUEST)
    eventually(lambda: engine.get(SAGA_ID).status is SagaStatus.SUSPENDED)
    clock.advance(-3_600)
    loads, looks = counted.calls["load"], counted.calls["recoverable"]
    eventually(lambda: counted.calls["recoverable"] > looks + 5)
    assert world.executed == ["a"]
    clock.advance(3_600 + 60)
    eventually(lambda: len(world.executed) == 2)
    eventually(lambda: engine.get(SAGA_ID).status is SagaStatus.SUSPENDED)
    clock.advance(100_000)
    assert engine.wait(SAGA_ID).status == "success"
    assert counted.calls["load"] > loads


def test_S27_what_another_deployment_noted_as_stuck_is_left_alone_for_a_while(journal, new_engine):
    world = World()
    saga = saga_of(world.step("a", Suspend(DONE, signal="approved"), DONE))
    engine = new_engine(sagas=[saga], poll_s=0.01)
    engine.start(saga, REQUEST)
    eventually(lambda: engine.get(SAGA_ID).status is SagaStatus.SUSPENDED)
    blind = new_engine(config=None)  # has no services: it leaves the message and notes why
    blind.signal(SAGA_ID, "approved", 1)
    assert world.executed == ["a"]
    assert journal.header(SAGA_ID).stuck is not None


def test_S31_the_worker_takes_in_mail_that_another_process_left(journal, new_engine, clock):
    world = World()
    saga = saga_of(world.step("a", Suspend(DONE, signal="approved"), DONE))
    engine = new_engine(sagas=[saga], poll_s=0.01)
    engine.start(saga, REQUEST)
    eventually(lambda: engine.get(SAGA_ID).status is SagaStatus.SUSPENDED)
    journal.put(journal.header(SAGA_ID).eid, SignalReceived(at=clock.now(), name="approved", payload=Raw(b"1")))
    assert engine.wait(SAGA_ID).status == "success"
    assert [call.state for call in world.calls] == [{}, {"approved": 1}]


# --- what cannot be driven here -----------------------------------------------------------------------------------


def loads_while_polling(counted, polls=12):
    """Count the loads while the worker looks so many times."""
    looks, loads = counted.calls["recoverable"], counted.calls["load"]
    eventually(lambda: counted.calls["recoverable"] >= looks + polls)
    return counted.calls["load"] - loads


def suspended(new_engine, clock, saga, number=1):
    """Leave executions behind that are due."""
    engine = new_engine()
    for n in range(number):
        saga.make(engine=engine).resolve({"id": f"PR-{n + 1}"})
    clock.advance(60)


def test_S27_a_stuck_execution_is_noted_and_not_loaded_again_at_every_look(journal, new_engine, clock, caplog):
    suspended(new_engine, clock, saga_of(World().step("a", LATER, DONE)))
    counted = Counted(journal)
    running = new_engine(counted, poll_s=0.002)
    done = meanwhile(running.run)
    eventually(lambda: journal.header(SAGA_ID).stuck)
    assert loads_while_polling(counted) == 0
    assert len([record for record in caplog.records if "stuck" in record.getMessage()]) == 1
    running.stop()
    assert done.result(LIMIT_S) == 0


def test_S26_an_execution_of_mode_select_is_loaded_once_and_never_driven(journal, new_engine, clock):
    world = World()
    saga = saga_of(world.step("a", LATER, DONE), mode="select")
    suspended(new_engine, clock, saga)
    counted = Counted(journal)
    running = new_engine(counted, sagas=[saga], poll_s=0.002)
    meanwhile(running.run)
    eventually(lambda: counted.calls["load"] == 1)
    assert loads_while_polling(counted) == 0
    assert world.executed == ["a"]


def test_an_execution_whose_saga_raises_is_told_of_once_and_keeps_none_of_the_others_waiting(
    journal, new_engine, clock, caplog
):
    world, is_broken = World(), [False]

    def transactions(request):
        if is_broken[0] and request["id"] == "PR-1":
            raise RuntimeError("cannot list")
        return [world.step("a", LATER if not is_broken[0] else DONE)]

    saga = saga_of(transactions)
    suspended(new_engine, clock, saga, number=3)
    is_broken[0] = True
    counted = Counted(journal)
    running = new_engine(counted, sagas=[saga], poll_s=0.002, concurrency_max=1)
    meanwhile(running.run)
    assert {running.wait(f"Order:PR-{n}").status for n in (2, 3)} == {"success"}
    eventually(lambda: "cannot list" in caplog.text)
    assert loads_while_polling(counted) == 0
    assert len([record for record in caplog.records if "could not be taken up" in record.getMessage()]) == 1


def test_more_executions_than_one_page_that_cannot_be_driven_do_not_hide_one_that_can(
    journal, new_engine, clock, monkeypatch
):
    monkeypatch.setattr("saga_engine.backlog.PAGE", 4)
    world = World()
    stuck, fine = saga_of(world.step("a", LATER, DONE), name="Gone"), saga_of(world.step("b", LATER, DONE))
    suspended(new_engine, clock, stuck, number=20)
    suspended(new_engine, clock, fine)
    running = new_engine(sagas=[fine], poll_s=0.005, concurrency_max=2)
    meanwhile(running.run)
    assert running.wait(SAGA_ID).status == "success"


# --- several workers ----------------------------------------------------------------------------------------------


def test_two_workers_on_one_journal_run_no_step_twice(tmp_path, clock):
    url, count = f"sqlite:///{tmp_path / 'saga.db'}", 150
    world = World()
    saga = saga_of(world.step("a", *[LATER] * count, DONE), world.step("b"))
    with Engine(url, config={}, clock=clock) as engine:
        for number in range(count):
            saga.make(engine=engine).resolve({"id": f"PR-{number}"})
    clock.advance(60)
    engines = [Engine(url, config={}, clock=clock, sagas=[saga], poll_s=0.01, concurrency_max=8) for _ in range(2)]
    runs = [meanwhile(engine.run) for engine in engines]
    for number in range(count):
        assert engines[0].wait(f"Order:PR-{number}").status == "success"
    assert [engine.stop() for engine in engines] == [0, 0]
    assert [run.result(LIMIT_S) for run in runs] == [0, 0]
    assert (world.executed.count("a"), world.executed.count("b")) == (2 * count, count)
    for engine in engines:
        engine.close()


# --- stopping -----------------------------------------------------------------------------------------------------


def test_stop_waits_for_the_running_step_and_suspends_before_the_next(worker_engine, journal):
    gate, world = Gate(), World()
    saga = saga_of(world.step("a", gate.pass_), world.step("b"))
    engine = worker_engine()
    engine.start(saga, REQUEST)
    assert gate.reached.wait(LIMIT_S)
    stopping = meanwhile(engine.stop)
    worker = engine._worker
    eventually(lambda: not worker.is_usable)
    gate.open()
    assert stopping.result(LIMIT_S) == 0
    header, record = journal.header(SAGA_ID), engine.get(SAGA_ID)
    assert (header.drive, header.status) == (None, SagaStatus.SUSPENDED)
    assert statuses(record) == {"a": "COMPLETED", "b": "PENDING"}
    assert record.next_due_at <= SystemClock().now()
    assert world.executed == ["a"]
    other = worker_engine(sagas=[saga])
    meanwhile(other.run)
    assert other.wait(SAGA_ID).status == "success"
    assert world.executed == ["a", "b"]


def test_a_plain_step_that_outlasts_the_stop_is_counted_and_journaled_when_it_returns(worker_engine, journal):
    gate, world = Gate(), World()
    engine = worker_engine()
    engine.start(saga_of(world.step("a", gate.pass_), world.step("b")), REQUEST)
    assert gate.reached.wait(LIMIT_S)
    assert engine.stop(timeout_s=0.01) == 1
    assert journal.is_held(journal.header(SAGA_ID))
    gate.open()
    eventually(lambda: journal.header(SAGA_ID).drive is None)
    assert statuses(engine.get(SAGA_ID)) == {"a": "COMPLETED", "b": "PENDING"}
    assert world.executed == ["a"]


def test_S30_an_async_step_that_outlasts_the_stop_is_interrupted_and_leaves_no_lease(worker_engine, journal):
    started = threading.Event()

    class Hangs(BackgroundTransaction):
        async def execute(self, request):
            started.set()
            await asyncio.Event().wait()

    engine = worker_engine()
    engine.start(saga_of(Hangs), REQUEST)
    assert started.wait(LIMIT_S)
    assert engine.stop(timeout_s=0.01) == 1
    eventually(lambda: journal.header(SAGA_ID).drive is None)
    assert any(isinstance(entry, DriveInterrupted) for entry in engine.history(SAGA_ID))
    assert engine.get(SAGA_ID).status is SagaStatus.SUSPENDED


def test_what_starts_while_the_worker_stops_is_queued_and_a_later_worker_runs_it(worker_engine):
    gate, world = Gate(), World()
    first, second = saga_of(world.step("a", gate.pass_)), saga_of(world.step("b"), name="Second")
    engine = worker_engine(sagas=[first, second])
    engine.start(first, REQUEST)
    assert gate.reached.wait(LIMIT_S)
    stopping = meanwhile(engine.stop)
    worker = engine._worker
    eventually(lambda: not worker.is_usable)
    assert worker.take_slot() is None
    gate.open()
    stopping.result(LIMIT_S)
    assert engine.wait(engine.start(second, REQUEST)).status == "success"


def test_stop_without_a_worker_has_nothing_to_wait_for(worker_engine):
    assert worker_engine().stop() == 0


def test_close_stops_the_worker_first(journal):
    gate, world = Gate(), World()
    engine = Engine(journal, config={}, stop_timeout_s=LIMIT_S)
    engine.start(saga_of(world.step("a", gate.pass_), world.step("b")), REQUEST)
    assert gate.reached.wait(LIMIT_S)
    closing = meanwhile(engine.close)
    worker = engine._worker
    eventually(lambda: not worker.is_usable)
    gate.open()
    closing.result(LIMIT_S)
    assert journal.header(SAGA_ID).drive is None
    eventually(lambda: worker.threads_count == 0)


# --- what goes wrong ----------------------------------------------------------------------------------------------


def test_J10_a_worker_that_lost_its_lease_goes_on_and_leaves_what_it_did_in_the_inbox(worker_engine, journal):
    gate, world, other = Gate(), World(), World()
    engine = worker_engine(concurrency_max=1)
    saga = saga_of(world.step("a", gate.pass_))
    engine.start(saga, REQUEST)
    assert gate.reached.wait(LIMIT_S)
    header = journal.header(SAGA_ID)
    journal.abandon(header.eid, header.epoch)
    thief = worker_engine(sagas=[saga_of(other.step("a", LATER))])
    assert thief.recover() == 1
    gate.open()
    eventually(lambda: journal.load(header.eid).inbox)
    assert engine.wait(engine.start(saga_of(World().step("b"), name="Next"), REQUEST)).status == "success"


def test_J04_an_unavailable_journal_leaves_no_lease_and_the_execution_is_taken_up_again(worker_engine, journal, caplog):
    failures = [JournalUnavailable("disk full")]

    def befalls(commit):
        is_completion = any(isinstance(entry, StepCompleted) for entry in commit.entries)
        return failures.pop() if failures and is_completion else None

    world = World()
    saga = saga_of(world.step("a"), world.step("b"))
    engine = worker_engine(Counted(journal, befalls), sagas=[saga])
    engine.start(saga, REQUEST)
    assert engine.wait(SAGA_ID).status == "success"
    assert world.executed == ["a", "a", "b"]
    assert len({call.key for call in world.of("a")}) == 1
    assert len([r for r in caplog.records if r.levelno == logging.ERROR and SAGA_ID in r.getMessage()]) == 1
    assert "nothing is taken up for a while" in caplog.text


def test_a_journal_that_cannot_be_read_makes_the_worker_rest_and_not_spin(journal, new_engine):
    class Unreadable(Counted):
        def recoverable(self, **page):
            self.calls["recoverable"] += 1
            raise JournalUnavailable("locked")

    broken = Unreadable(journal)
    engine = new_engine(broken, poll_s=0.001)
    meanwhile(engine.run)
    eventually(lambda: broken.calls["recoverable"] == 2)
    world = World()
    assert engine.wait(engine.start(saga_of(world.step("a")), REQUEST)).status == "success"
    assert broken.calls["recoverable"] < 10


def test_an_error_of_the_first_commit_reaches_the_caller_of_start(worker_engine, journal):
    errors = [JournalUnavailable("disk full")]
    engine = worker_engine(Counted(journal, lambda commit: errors.pop() if errors else None))
    saga = saga_of(World().step("a"))
    with pytest.raises(JournalUnavailable, match="disk full"):
        engine.start(saga, REQUEST)
    assert engine.wait(engine.start(saga, REQUEST)).status == "success"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_S16_a_process_that_dies_in_the_middle_is_taken_over_by_another_worker(worker_engine, journal):
    world = World()
    saga = saga_of(world.step("a"), world.step("b"))
    mortal = Mortal(journal, dies_after=(StepCompleted, "a"))
    doomed = worker_engine(mortal)
    doomed.start(saga, REQUEST)
    eventually(lambda: mortal.is_dead)
    heir = worker_engine(sagas=[saga])
    meanwhile(heir.run)
    assert heir.wait(SAGA_ID).status == "success"
    assert world.executed == ["a", "b"]


def test_a_step_that_raises_what_no_step_may_raise_is_interrupted_and_ends_no_thread(worker_engine, caplog):
    world = World()
    saga = saga_of(world.step("a", SystemExit(), DONE))
    engine = worker_engine(sagas=[saga], threads_max=1)
    engine.start(saga, REQUEST)
    assert engine.wait(SAGA_ID).status == "success"
    assert world.executed == ["a", "a"]
    assert any(isinstance(entry, DriveInterrupted) for entry in engine.history(SAGA_ID))
    assert isinstance(engine.history(SAGA_ID)[-1], SagaEnded)


def test_a_lease_lost_in_a_save_ends_that_run_only(worker_engine, journal):
    def lose_and_save(request):
        header = journal.header(SAGA_ID)
        journal.abandon(header.eid, header.epoch)
        assert thief.recover() == 1
        current_context().state["x"] = 1
        with pytest.raises(LeaseLost):
            current_context().save()
        lost.set()
        raise LeaseLost

    lost = threading.Event()
    thief = worker_engine(sagas=[saga_of(World().step("a", LATER))])
    engine = worker_engine(concurrency_max=1)
    engine.start(saga_of(World().step("a", lose_and_save)), REQUEST)
    assert lost.wait(LIMIT_S)
    assert engine.wait(engine.start(saga_of(World().step("b"), name="Next"), REQUEST)).status == "success"


def test_two_journals_of_one_file_do_not_share_a_waiter(tmp_path):
    url = f"sqlite:///{tmp_path / 'saga.db'}"
    journal = open_journal(url)
    with Engine(journal, config={}) as one, Engine(url, config={}, poll_s=0.01) as two:
        saga_id = one.start(saga_of(World().step("a")), REQUEST)
        assert two.wait(saga_id).status == "success"
    journal.close()
    with sqlite3.connect(tmp_path / "saga.db") as connection:
        assert connection.execute("SELECT count(*) FROM entries").fetchone() == (2,)
    connection.close()
