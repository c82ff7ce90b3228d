"""S18 in groups: a branch that saves its state while the drive commits for another one."""

from __future__ import annotations

import asyncio
import threading

import pytest
from sagas import DONE, SAGA_ID, World, saga_of

from saga_engine import Parallel, SagaStatus, current_context
from saga_engine.journal import StepCompleted

LIMIT_S = 30.0


class Slow:
    """A journal whose commit of a step's completion takes until another one begins, or it is clear that none does."""

    def __init__(self, journal, step):
        self._journal, self._step = journal, step
        self.is_committing, self.has_overlapped = threading.Event(), False
        self._other = threading.Event()

    def __getattr__(self, name):
        return getattr(self._journal, name)

    def append(self, commit):
        if any(isinstance(entry, StepCompleted) and entry.step == self._step for entry in commit.entries):
            self.is_committing.set()
            self.has_overlapped = self._other.wait(0.1)
        elif self.is_committing.is_set():
            self._other.set()
        return self._journal.append(commit)

    def submit(self, commit, done):
        threading.Thread(target=lambda: done(self.append(commit))).start()


def test_S18_a_branch_saves_when_the_commit_of_another_branch_is_through(journal, new_engine):
    world, slow = World(), Slow(journal, "b")

    def save(request):
        assert slow.is_committing.wait(LIMIT_S)
        current_context().state["saved"] = True
        current_context().save()
        return DONE

    engine = new_engine(slow)
    saga = saga_of(Parallel(world.step("a", save), world.step("b")))
    assert saga.make(engine=engine).resolve({"id": "PR-1"}).status == "success"
    assert not slow.has_overlapped
    assert engine.get(SAGA_ID).state == {"saved": True}


@pytest.mark.parametrize("is_awaited", [False, True])
def test_S18_an_async_branch_awaits_its_save_while_another_commit_is_under_way(journal, new_engine, is_awaited):
    world, slow, refused = World(is_native_async=True), Slow(journal, "b"), []

    class Saving(type(world.step("a"))):
        async def execute(self, request):
            assert await asyncio.to_thread(slow.is_committing.wait, LIMIT_S)
            context = current_context()
            context.state["saved"] = True
            if is_awaited:
                await context.asave()
                return DONE
            try:
                context.save()
            except Exception as error:
                refused.append(str(error))
            return DONE

    engine = new_engine(slow)
    saga = saga_of(Parallel(Saving(world, "a", (DONE,)), world.step("b")))
    assert asyncio.run(saga.make(engine=engine).aresolve({"id": "PR-1"})).status == "success"
    assert engine.get(SAGA_ID).status is SagaStatus.COMPLETED
    assert not slow.has_overlapped
    assert [("asave" in text) for text in refused] == ([] if is_awaited else [True])
