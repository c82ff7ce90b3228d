"""What comes between: a drive that ends meanwhile, an interrupted commit, texts and answers that cannot be kept."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from connect.eaas.core.responses import BackgroundResponse
from sagas import DONE, SAGA_ID, World, saga_of

from saga_engine import Engine, SagaStatus, current_context
from saga_engine.errors import BadDefinition, JournalUnavailable, LeaseLost, NotAllowed
from saga_engine.journal import StateSaved
from transactions import BackgroundTransaction

FAIL = BackgroundResponse.fail("no")
LATER = BackgroundResponse.reschedule(60)


def elsewhere(function, *arguments):
    """Call in another thread, as another worker would."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *arguments).result(timeout=60)


class Meanwhile:
    """A journal that lets something else happen once, before it is read."""

    def __init__(self, journal, happens):
        self._journal = journal
        self._happens = happens

    def __getattr__(self, name):
        return getattr(self._journal, name)

    def load(self, eid):
        happens, self._happens = self._happens, None
        if happens is not None:
            happens()
        return self._journal.load(eid)


class Commits:
    """A journal on which something befalls the n-th commit (from 1) or each one of a type of entry."""

    def __init__(self, journal, befalls, number=0, kind=()):
        self._journal, self._befalls, self._number, self._kind = journal, befalls, number, kind

    def __getattr__(self, name):
        return getattr(self._journal, name)

    def append(self, commit):
        self._number -= 1
        if self._number == 0 or any(isinstance(entry, self._kind) for entry in commit.entries):
            return self._befalls(lambda: self._journal.append(commit))
        return self._journal.append(commit)


def test_a_delivery_that_meets_an_execution_which_has_ended_meanwhile_is_given_its_answer(
    journal, new_engine, resolve, world
):
    saga = saga_of(world.step("a", LATER, DONE))
    resolve(saga)
    meanwhile = new_engine(Meanwhile(journal, lambda: elsewhere(resolve, saga)))
    assert resolve(saga, on=meanwhile).status == "success"
    assert world.executed == ["a", "a"]


def test_recovery_passes_over_an_execution_which_has_ended_meanwhile(journal, new_engine, resolve, world, clock):
    saga = saga_of(world.step("a", LATER, DONE))
    resolve(saga)
    clock.advance(60)
    meanwhile = new_engine(Meanwhile(journal, lambda: resolve(saga)), sagas=[saga])
    assert meanwhile.recover() == 0
    assert world.executed == ["a", "a"]


def test_a_cancel_that_meets_an_execution_which_has_ended_meanwhile_is_refused(journal, new_engine, resolve, world):
    saga = saga_of(world.step("a", LATER, DONE))
    resolve(saga)

    class Ending:
        def __getattr__(self, name):
            return getattr(journal, name)

        def put(self, eid, entry):
            resolve(saga)
            journal.put(eid, entry)

    with pytest.raises(NotAllowed, match="ended before it could take that in"):
        new_engine(Ending(), sagas=[saga]).cancel(SAGA_ID, "too late")


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_commit_that_is_interrupted_when_it_is_durable_leaves_no_lease_behind(journal, new_engine, number):
    world = World()
    saga = saga_of(world.step("a"), world.step("b"))

    def interrupted(append):
        append()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        saga.make(engine=new_engine(Commits(journal, interrupted, number))).resolve({"id": "PR-1"})
    assert new_engine().get(SAGA_ID).held_by is None
    assert saga.make(engine=new_engine()).resolve({"id": "PR-1"}).status == "success"


@pytest.mark.parametrize("answer", [OSError("cannot read \udcff.csv"), BackgroundResponse.fail("\udcff.csv is empty")])
def test_a_text_that_is_no_unicode_is_journaled_with_replacements(engine, resolve, world, answer):
    saga = saga_of(world.step("a"), world.step("b", answer))
    assert "?.csv" in resolve(saga).output
    record = engine.get(SAGA_ID)
    assert (record.status, record.held_by) == (SagaStatus.COMPENSATED, None)


def test_more_threads_than_a_pool_has_go_through_several_async_middlewares(engine):
    world = World()

    async def passing(request, nxt):
        return await nxt(request)

    class Wrapped(saga_of(world.step("a"))):
        def middlewares(self, request):
            return [passing, passing]

    with ThreadPoolExecutor(48) as pool:
        answers = [pool.submit(Wrapped.make(engine=engine).resolve, {"id": f"PR-{n}"}) for n in range(48)]
        assert {answer.result(timeout=60).status for answer in answers} == {"success"}


def test_a_save_that_cannot_be_written_is_no_failure_of_the_step(engine, journal, new_engine, resolve, world):
    def save(request):
        current_context().state["half"] = True
        current_context().save()
        return DONE

    def unavailable(append):
        raise JournalUnavailable("the database is locked")

    saga = saga_of(world.step("a"), world.step("b", save))
    with pytest.raises(JournalUnavailable, match="locked"):
        resolve(saga, on=new_engine(Commits(journal, unavailable, kind=StateSaved)))
    assert world.undone == []
    assert resolve(saga).status == "success"
    assert world.executed == ["a", "b", "b"]


def test_a_lease_lost_in_an_async_step_leaves_the_engines_loop_alive(journal, new_engine):
    class Saving(BackgroundTransaction):
        async def execute(self, request):
            current_context().state["half"] = True
            current_context().save()
            return DONE

    def overtaken(append):
        raise LeaseLost("overtaken")

    engine = new_engine(Commits(journal, overtaken, number=2))
    assert saga_of(Saving).make(engine=engine).resolve({"id": "PR-1"}).status == "reschedule"
    assert saga_of(Saving).make(engine=engine).resolve({"id": "PR-2"}).status == "success"


@pytest.mark.parametrize("limits", [{"reschedules_max": 1}, {"payload_bytes_max": 60}])
def test_a_selected_transaction_that_was_undone_by_hand_ends_its_generation_as_a_failure(engine, resolve, limits):
    world = World()

    def grow(request):
        current_context().state["big"] = "x" * 100
        return DONE

    step = world.step("a", LATER if "reschedules_max" in limits else grow)
    saga = saga_of(step, mode="select", **limits)
    while engine.journal.header(SAGA_ID) is None or engine.get(SAGA_ID).status is not SagaStatus.PARKED:
        resolve(saga)
    engine.resolve_parked(SAGA_ID, "a", note="deleted by hand")
    assert resolve(saga).status == "fail"
    assert engine.get(SAGA_ID).status is SagaStatus.COMPENSATED


class Undecided:
    """An answer that cannot be told true from false, nor shown."""

    def __bool__(self):
        raise ValueError("neither true nor false")

    def __repr__(self):
        raise ValueError("not to be shown")


def test_an_answer_to_should_execute_that_is_neither_true_nor_false_is_a_failed_attempt(engine, resolve, world):
    assert resolve(saga_of(world.step("a", wanted=lambda request: Undecided()))).output == "neither true nor false"
    assert world.executed == []


def test_an_answer_that_cannot_be_shown_is_a_failed_attempt(resolve, world):
    assert "returned a Undecided" in resolve(saga_of(world.step("a", lambda request: Undecided()))).output


def test_a_countdown_beyond_all_numbers_is_a_failed_attempt(resolve, world):
    endless = BackgroundResponse("reschedule", countdown=10**400)
    assert "give a number of seconds" in resolve(saga_of(world.step("a", endless))).output


@pytest.mark.parametrize("arguments", [{"budget_s": -1}, {"budget_s": "x"}, {"threads_max": 0}, {"threads_max": True}])
def test_S28_an_engine_refuses_limits_that_cannot_be_meant(arguments):
    with pytest.raises(BadDefinition, match="give a"):
        Engine("memory://", **arguments)
