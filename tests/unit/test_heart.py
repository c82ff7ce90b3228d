"""The heartbeat's thread: it sleeps while the process holds no lease, and is told of the next one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from saga_engine.journal import Commit, Committed, Opening, SagaStatus, WaitElapsed
from saga_engine.journals.heart import Heart

_DEADLINE_S = 20.0


class _Beats:
    """A heart that counts its beats."""

    def __init__(self, heartbeat_s: float) -> None:
        self.count = 0
        self.heart = Heart(self._beat, lambda eid, epoch: None, heartbeat_s)

    def _beat(self) -> None:
        self.count += 1

    def hold(self, eid: int) -> None:
        """Take a lease, as the commit that opens an execution does."""
        opened = Commit(
            eid=None,
            seq=1,
            entries=(WaitElapsed(at=0.0),),
            drive="d",
            epoch=0,
            status=SagaStatus.RUNNING,
            at=0.0,
            opening=Opening(f"Saga:{eid}", 1, "Saga"),
        )
        self.heart.follow(opened, Committed(eid, 1))


@pytest.fixture
def beats() -> Iterator[_Beats]:
    """Give a heart that beats often."""
    beats = _Beats(heartbeat_s=0.005)
    yield beats
    beats.heart.close()


def _until(is_true: Callable[[], bool]) -> bool:
    ends_at = time.monotonic() + _DEADLINE_S
    while not is_true() and time.monotonic() < ends_at:
        time.sleep(0.001)
    return is_true()


def test_it_beats_while_a_lease_is_held(beats: _Beats) -> None:
    beats.hold(1)
    assert _until(lambda: beats.count >= 3)


def test_J4_a_lease_that_is_taken_after_a_time_without_any_is_beaten_for(beats: _Beats) -> None:
    beats.hold(1)
    beats.heart.drop(1, 1)
    assert _until(lambda: beats.heart._is_idle), "nothing is held, so it goes to sleep"
    count = beats.count
    beats.hold(2)
    assert _until(lambda: beats.count > count)


def test_leases_that_come_and_go_between_two_beats_do_not_wake_it(monkeypatch: pytest.MonkeyPatch) -> None:
    beats, woken = _Beats(heartbeat_s=3_600.0), []
    beats.hold(1)
    assert _until(lambda: bool(beats.heart._changed._waiters)), "it waits for its next beat"
    monkeypatch.setattr(beats.heart._changed, "notify_all", lambda: woken.append(1))
    beats.heart.drop(1, 1)
    for eid in range(2, 10):
        beats.hold(eid)
        beats.heart.drop(eid, 1)
    monkeypatch.undo()
    beats.heart.close()
    assert not woken
