"""Rules J1, J2, J5, J8, J9 through the engine: how often it commits, when it answers, what it keeps, what it bounds."""

from __future__ import annotations

import sqlite3
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from connect.eaas.core.responses import BackgroundResponse
from sagas import DONE, SAGA_ID, Crash, Mortal, remember, reraise, saga_of, stable_id, statuses
from tenacity import stop_after_attempt, stop_never, wait_fixed

from saga_engine import Engine, SagaStatus, current_context
from saga_engine.errors import CorruptJournal, JournalUnavailable, NewerJournal
from saga_engine.journal import ENTRY_VERSION, SagaStarted, StepCompleted, StepSkipped, StepStarted, StepSuspended
from saga_engine.journals import open_journal
from transactions import RetryPolicy, Suspend

FAIL = BackgroundResponse.fail("no")
LATER = BackgroundResponse.reschedule(60)
AT_ONCE = RetryPolicy(stop=stop_after_attempt(9))

_WAL_HEADER_BYTES = 32
_FRAME_HEADER_BYTES = 24


class Counting:
    """A journal that keeps every commit that was accepted, and how often each execution's header was touched."""

    def __init__(self, journal: Any) -> None:
        self._journal = journal
        self.commits: list[Any] = []
        self.url = journal.url

    def __getattr__(self, name: str) -> Any:
        return getattr(self._journal, name)

    def append(self, commit: Any) -> Any:
        result = self._journal.append(commit)
        self.commits.append(commit)
        return result

    def submit(self, commit: Any, done: Any) -> None:
        def note(result: Any) -> None:
            self.commits.append(commit)
            done(result)

        self._journal.submit(commit, note)

    def entries(self) -> list[list[str]]:
        """Give the types of the entries, by commit."""
        return [[type(entry).__name__ for entry in commit.entries] for commit in self.commits]


@pytest.fixture
def counting(journal):
    return Counting(journal)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "saga.db"


on_sqlite = pytest.mark.parametrize("journal_url", ["sqlite"], indirect=True)


def wal_commits(file: Path) -> int:
    """Count the transactions in the write-ahead log: frames whose header names the size of the database.

    See "The WAL File Format" in SQLite's documentation.
    """
    wal = Path(f"{file}-wal").read_bytes()
    (page_bytes,) = struct.unpack(">I", wal[8:12])
    salts = wal[16:24]
    commits, at = 0, _WAL_HEADER_BYTES
    while at + _FRAME_HEADER_BYTES <= len(wal):
        size_after_commit = struct.unpack(">I", wal[at + 4 : at + 8])[0]
        if wal[at + 8 : at + 16] != salts:
            break
        commits += size_after_commit > 0
        at += _FRAME_HEADER_BYTES + page_bytes
    return commits


# --- J1: one commit per step boundary -----------------------------------------------------------------------------


@on_sqlite
@pytest.mark.parametrize("steps", [1, 2, 5, 9])
def test_J01_a_clean_saga_of_n_steps_takes_n_plus_one_commits_on_the_wal(engine, resolve, world, file, steps):
    saga = saga_of(*(world.step(f"s{number}") for number in range(steps)))
    resolve(saga, {"id": "PR-0"})
    before = wal_commits(file)
    resolve(saga)
    assert wal_commits(file) - before == steps + 1


@on_sqlite
def test_J01_the_first_saga_of_a_process_takes_no_commit_more_for_its_heartbeat(engine, resolve, world, file):
    before = wal_commits(file)
    resolve(saga_of(world.step("a"), world.step("b")))
    assert wal_commits(file) - before == 3


@on_sqlite
def test_J01_skipped_steps_ride_on_the_commits_of_others(engine, resolve, world, file):
    wanted, unwanted = {"wanted": True}, {"wanted": False}
    saga = saga_of(
        world.step("a", **unwanted),
        world.step("b", **unwanted),
        world.step("c", **wanted),
        world.step("d", **unwanted),
        world.step("e", **wanted),
        world.step("f", **unwanted),
    )
    before = wal_commits(file)
    assert resolve(saga).status == "success"
    assert wal_commits(file) - before == 3
    assert world.executed == ["c", "e"]


def test_J01_the_commit_that_completes_a_step_carries_the_skips_and_the_start_of_the_next(
    counting, new_engine, resolve, world
):
    saga = saga_of(
        world.step("a"), world.step("b", wanted=False), world.step("c", wanted=True), world.step("d", wanted=False)
    )
    resolve(saga, on=new_engine(counting))
    assert counting.entries() == [
        ["SagaStarted", "StepStarted"],
        ["StepCompleted", "StepSkipped", "StepStarted"],
        ["StepCompleted", "StepSkipped", "SagaEnded"],
    ]
    assert [entry.step for entry in counting.commits[1].entries] == ["a", "b", "c"]


def test_J01_the_next_step_is_asked_before_the_commit_that_completes_the_one_before(
    journal, new_engine, resolve, world
):
    saga = saga_of(world.step("a"), world.step("b", wanted=True))
    with pytest.raises(Crash):
        resolve(saga, on=new_engine(Mortal(journal, dies_before=(StepCompleted, "a"))))
    assert world.trace() == ["execute a", "should_execute b"]


def test_J01_a_saga_of_skipped_steps_only_takes_one_commit(counting, new_engine, resolve, world):
    saga = saga_of(world.step("a", wanted=False), world.step("b", wanted=False))
    assert resolve(saga, on=new_engine(counting)).status == "success"
    assert counting.entries() == [["SagaStarted", "StepSkipped", "StepSkipped", "SagaEnded"]]


@on_sqlite
@pytest.mark.parametrize("failures", [1, 3])
def test_J01_each_failed_attempt_adds_one_commit(engine, resolve, world, file, failures):
    script = [ValueError("busy")] * failures + [DONE]
    saga = saga_of(world.step("a"), world.step("b", *script, retry=AT_ONCE), world.step("c"))
    before = wal_commits(file)
    assert resolve(saga).status == "success"
    assert wal_commits(file) - before == 4 + failures


@on_sqlite
def test_J01_each_undo_adds_one_commit(engine, resolve, world, file):
    saga = saga_of(world.step("a"), world.step("b"), world.step("c", ValueError("no")))
    before = wal_commits(file)
    resolve(saga)
    assert world.undone == ["c", "b", "a"]
    assert wal_commits(file) - before == 4 + 3


@on_sqlite
def test_J01_a_suspension_adds_its_own_commit_and_that_of_the_next_drive(engine, resolve, world, file):
    saga = saga_of(world.step("a", LATER, DONE), world.step("b"))
    before = wal_commits(file)
    resolve(saga)
    assert wal_commits(file) - before == 2
    resolve(saga)
    assert wal_commits(file) - before == 3 + 2


def test_J01_lease_and_release_ride_on_commits(counting, new_engine, resolve, world):
    saga = saga_of(world.step("a", LATER, DONE), world.step("b"))
    engine = new_engine(counting)
    resolve(saga, on=engine)
    resolve(saga, on=engine)
    assert counting.entries() == [
        ["SagaStarted", "StepStarted"],
        ["StepSuspended", "SagaSuspended"],
        ["RequestDelivered", "StepStarted"],
        ["StepCompleted", "StepStarted"],
        ["StepCompleted", "SagaEnded"],
    ]
    assert [commit.take for commit in counting.commits] == [False, False, True, False, False]
    assert [commit.release is not None for commit in counting.commits] == [False, True, False, False, True]


def test_J01_a_take_over_adds_one_commit(counting, journal, new_engine, resolve, world):
    saga = saga_of(world.step("a"), world.step("b"))
    with pytest.raises(Crash):
        resolve(saga, on=new_engine(Mortal(journal, dies_after=(StepStarted, "b"))))
    resolve(saga, on=new_engine(counting))
    assert counting.entries() == [
        ["TakenOver", "RequestDelivered", "StepStarted"],
        ["StepCompleted", "SagaEnded"],
    ]


# --- J2: nothing is told before it is durable ---------------------------------------------------------------------


class Gate(Counting):
    """A journal that holds back the commits with an entry of these types until `go` is set."""

    def __init__(self, journal: Any, *kinds: type) -> None:
        super().__init__(journal)
        self._kinds = kinds
        self.reached, self.go = threading.Event(), threading.Event()
        self.error: Exception | None = None

    def _hold(self, commit: Any) -> None:
        if any(isinstance(entry, self._kinds) for entry in commit.entries):
            self.reached.set()
            assert self.go.wait(30)
            if self.error is not None:
                raise self.error

    def append(self, commit: Any) -> Any:
        self._hold(commit)
        return super().append(commit)

    def submit(self, commit: Any, done: Any) -> None:
        def later() -> None:
            try:
                result = self.append(commit)
            except Exception as error:
                result = error
            done(result)

        threading.Thread(target=later).start()


J2_ANSWERS = {
    "end": (lambda world: [world.step("a")], "SagaEnded", "success"),
    "suspension": (lambda world: [world.step("a", LATER)], "SagaSuspended", "reschedule"),
    "inquiry": (lambda world: [world.step("a", Suspend(DONE))], "SagaSuspended", "success"),
    "parking": (lambda world: [world.step("a", undo=reraise), world.step("b", FAIL)], "SagaParked", "fail"),
    "compensated": (lambda world: [world.step("a"), world.step("b", FAIL)], "SagaEnded", "fail"),
}


@pytest.mark.parametrize("what", J2_ANSWERS)
@pytest.mark.parametrize("outcome", ["written", "refused"])
def test_J02_no_answer_is_given_before_the_commit_that_makes_it_true(
    journal, new_engine, resolve, world, what, outcome
):
    import saga_engine.journal as entries

    steps, kind, status = J2_ANSWERS[what]
    gate = Gate(journal, getattr(entries, kind))
    saga = saga_of(*steps(world))
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(resolve, saga, on=new_engine(gate))
        assert gate.reached.wait(30)
        assert not answer.done()
        assert not any(isinstance(entry, getattr(entries, kind)) for entry in new_engine().history(SAGA_ID))
        if outcome == "refused":
            gate.error = JournalUnavailable("the disk is full")
        gate.go.set()
        if outcome == "refused":
            with pytest.raises(JournalUnavailable):
                answer.result(30)
        else:
            assert answer.result(30).status == status


def test_J02_no_step_runs_before_its_start_is_durable(journal, new_engine, resolve, world):
    gate = Gate(journal, StepStarted)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(resolve, saga_of(world.step("a")), on=new_engine(gate))
        assert gate.reached.wait(30)
        assert world.calls == []
        gate.go.set()
        assert answer.result(30).status == "success"


def test_J02_no_undo_runs_before_its_start_is_durable(journal, new_engine, resolve, world):
    from saga_engine.journal import CompensationStarted

    gate = Gate(journal, CompensationStarted)
    gate.error = JournalUnavailable("the disk is full")
    gate.go.set()
    with pytest.raises(JournalUnavailable):
        resolve(saga_of(world.step("a"), world.step("b", FAIL)), on=new_engine(gate))
    assert world.undone == []


def test_J02_save_returns_after_its_commit(journal, new_engine, resolve, world):
    seen = []

    def save(request):
        current_context().state["n"] = 1
        current_context().save()
        seen.append(new_engine().get(SAGA_ID).state)
        return DONE

    resolve(saga_of(world.step("a", save)))
    assert seen == [{"n": 1}]


def test_J02_the_observer_is_told_of_durable_commits_only_in_order(journal, new_engine, resolve, world):
    told: list[Any] = []

    def observe(saga_id, entries):
        durable = new_engine().history(saga_id)
        assert durable[-len(entries) :] == list(entries)
        told.extend(entries)

    engine = new_engine(observer=observe)
    resolve(saga_of(world.step("a"), world.step("b", FAIL)), on=engine)
    assert [type(entry) for entry in told] == [type(entry) for entry in engine.history(SAGA_ID)]


# --- J5: typed, versioned, validated, copied ----------------------------------------------------------------------


def test_J05_what_steps_do_to_values_after_they_returned_does_not_reach_the_journal(engine, resolve, world):
    kept: list[Any] = []

    def keep(request):
        current_context().state["list"] = kept
        kept.append(1)
        return DONE

    resolve(saga_of(world.step("a", keep), world.step("b", LATER)))
    kept.append(2)
    assert engine.get(SAGA_ID).state == {"list": [1]}


def test_J05_what_callers_do_to_records_does_not_reach_the_journal(engine, resolve, world):
    resolve(saga_of(world.step("a", LATER)), {"id": "PR-1", "deep": {"n": 1}})
    engine.get(SAGA_ID).request["deep"]["n"] = 2
    assert engine.get(SAGA_ID).request == {"id": "PR-1", "deep": {"n": 1}}


@pytest.mark.parametrize("value", [{1, 2}, (1,), b"x", float("inf"), 2**65, object(), {7: 7}, Path()], ids=stable_id)
def test_J05_a_value_that_is_not_json_is_refused_naming_its_path(engine, resolve, world, value):
    told = resolve(saga_of(world.step("a", remember(DONE, deep=[{"x": value}]))))
    assert told.status == "fail"
    assert told.output.startswith("context.state['deep'][0]['x'] ")
    assert engine.get(SAGA_ID).state == {}


def test_J05_save_refuses_a_value_that_is_not_json_at_once(resolve, world):
    def save(request):
        current_context().state["when"] = object()
        current_context().save()

    told = resolve(saga_of(world.step("a", save)))
    assert told.output.startswith("context.state['when'] is a object")


def rewrite(file: Path, statement: str, *parameters: Any) -> None:
    """Change the journal file behind the engine's back."""
    connection = sqlite3.connect(file)
    with connection:
        connection.execute(statement, parameters)
    connection.close()


@on_sqlite
@pytest.mark.parametrize(
    "body",
    [
        b'[{"entry":"Unheard","at":1.0}]',
        b'[{"entry":"StepStarted","at":1.0,"step":"a"}]',
        b'[{"entry":"StepStarted","at":1.0,"step":"a","attempt":"1"}]',
        b'[{"entry":"StepStarted","at":"soon","step":"a","attempt":1}]',
        b'[{"entry":"StepStarted","at":1.0,"step":"a","attempt":1,"more":true}]',
        b"[{",
        b"\xff\xfe",
    ],
)
def test_J05_entries_are_validated_on_read(engine, resolve, world, file, body):
    saga = saga_of(world.step("a", LATER, DONE))
    resolve(saga)
    rewrite(file, "UPDATE entries SET body = ? WHERE seq = 2", body)
    for read in (lambda: engine.get(SAGA_ID), lambda: engine.history(SAGA_ID), lambda: resolve(saga)):
        with pytest.raises(CorruptJournal, match="restore the journal from a backup"):
            read()
    assert world.executed == ["a"]


@on_sqlite
def test_J05_an_entry_of_a_later_release_is_refused(engine, resolve, world, file):
    saga = saga_of(world.step("a", LATER, DONE))
    resolve(saga)
    rewrite(file, "UPDATE entries SET version = ? WHERE seq = 2", ENTRY_VERSION + 1)
    with pytest.raises(NewerJournal, match="upgrade saga-engine"):
        resolve(saga)
    assert world.executed == ["a"]


@on_sqlite
def test_J05_a_missing_row_is_noticed(engine, resolve, world, file):
    saga = saga_of(world.step("a"), world.step("b", LATER))
    resolve(saga)
    rewrite(file, "DELETE FROM entries WHERE seq = 2")
    with pytest.raises(CorruptJournal, match="rows of an execution are missing"):
        resolve(saga)


# --- J8: limits ---------------------------------------------------------------------------------------------------


def test_J08_reschedules_max_parks_the_step_that_waits(engine, resolve, world):
    saga = saga_of(world.step("a"), world.step("b", LATER), reschedules_max=3)
    told = [resolve(saga) for _ in range(4)]
    assert [answer.status for answer in told] == ["reschedule"] * 3 + ["fail"]
    assert told[-1].output.startswith("parked at b: reschedules_max (3) reached")
    assert statuses(engine.get(SAGA_ID)) == {"a": "COMPLETED", "b": "PARKED"}
    resolve(saga)
    assert len(world.of("b")) == 4


def test_J08_reschedules_max_parks_a_step_whose_undo_asks_to_wait_for_ever(resolve, world):
    saga = saga_of(world.step("a", ValueError("no"), undo=LATER), reschedules_max=3)
    told = [resolve(saga) for _ in range(4)]
    assert told[-1].output.startswith("parked at a: reschedules_max (3) reached")


def test_J08_attempts_max_parks_a_step_that_never_gives_up(resolve, world, clock):
    policy = RetryPolicy(stop=stop_never, wait=wait_fixed(1))
    saga = saga_of(world.step("a"), world.step("b", ValueError("busy"), retry=policy), attempts_max=7)
    told = resolve(saga)
    assert told.output.startswith("parked at b: attempts_max (7) reached")
    assert len(world.of("b")) == 7


def test_J08_attempts_max_parks_an_undo_that_never_gives_up(resolve, world):
    policy = RetryPolicy(stop=stop_never)
    saga = saga_of(
        world.step("a", undo=RuntimeError("busy"), compensation_retry=policy), world.step("b", FAIL), attempts_max=7
    )
    told = resolve(saga)
    assert told.output.startswith("parked at a: ")
    assert "attempts_max (7)" in told.output
    assert len(world.undone) == 7


def test_J08_entries_max_parks_what_goes_on_without_an_end(engine, resolve, world):
    policy = RetryPolicy(stop=stop_never)
    saga = saga_of(world.step("a"), world.step("b", ValueError("busy"), retry=policy), entries_max=50)
    told = resolve(saga)
    assert told.output.startswith("parked at b: entries_max (50) reached")
    assert len(engine.history(SAGA_ID)) <= 50 + 5


def test_J08_entries_max_bounds_save_too(engine, resolve, world):
    def save_often(request):
        for number in range(1_000):
            current_context().state["n"] = number
            current_context().save()
        return DONE

    saga = saga_of(world.step("a", save_often), world.step("b"), entries_max=50)
    told = resolve(saga)
    assert told.status == "fail"
    assert "entries_max" in told.output
    assert len(engine.history(SAGA_ID)) <= 50 + 10


def test_J08_payload_bytes_max_parks_a_step_that_leaves_too_much_in_the_state(engine, resolve, world):
    saga = saga_of(world.step("a"), world.step("b", remember(blob="x" * 5_000)), payload_bytes_max=4_000)
    told = resolve(saga)
    assert told.output.startswith("parked at b: payload_bytes_max")
    assert engine.get(SAGA_ID).status is SagaStatus.PARKED
    assert world.undone == []


def test_J08_payload_bytes_max_parks_a_step_that_blows_the_request_up(resolve, world):
    def grow(request):
        request["blob"] = "x" * 5_000
        return DONE

    told = resolve(saga_of(world.step("a", grow), payload_bytes_max=4_000))
    assert told.output.startswith("parked at a: payload_bytes_max")


def test_J08_payload_bytes_max_parks_an_undo_that_leaves_too_much(resolve, world):
    a = world.step("a", undo=remember(blob="x" * 5_000), compensation_retry=RetryPolicy(stop=stop_after_attempt(2)))
    told = resolve(saga_of(a, world.step("b", FAIL), payload_bytes_max=4_000))
    assert told.output.startswith("parked at a: ")
    assert "payload_bytes_max" in told.output


@pytest.mark.parametrize(
    ("limit", "default"),
    [
        ("reschedules_max", 10_000),
        ("recoveries_max", 5),
        ("attempts_max", 1_000),
        ("entries_max", 100_000),
        ("payload_bytes_max", 4_194_304),
    ],
)
def test_J08_each_limit_has_a_default_that_is_journaled_with_the_start(engine, resolve, world, limit, default):
    resolve(saga_of(world.step("a")))
    started = engine.history(SAGA_ID)[0]
    assert isinstance(started, SagaStarted)
    assert getattr(started.policy, limit) == default


def test_J08_the_limits_of_the_start_count_though_the_code_changes(resolve, world):
    a = world.step("a", LATER)
    for _ in range(3):
        told = resolve(saga_of(a, reschedules_max=2))
    assert "reschedules_max (2)" in told.output
    assert "reschedules_max (2)" in resolve(saga_of(a, reschedules_max=100)).output


def test_J08_a_parked_execution_that_was_resolved_has_its_limits_anew(new_engine, resolve, world):
    saga = saga_of(world.step("a", LATER, LATER, LATER, LATER, DONE), reschedules_max=1)
    engine = new_engine(sagas=[saga])
    resolve(saga, on=engine)
    resolve(saga, on=engine)
    assert engine.get(SAGA_ID).status is SagaStatus.PARKED
    engine.resolve_parked(SAGA_ID, "a", note="the vendor is slow", outcome="not_done")
    assert engine.get(SAGA_ID).status is SagaStatus.SUSPENDED


# --- J9: two answers, one row per commit --------------------------------------------------------------------------


def test_J09_what_is_told_while_suspended_and_the_answer_in_the_end_are_two_fields(engine, journal, resolve, world):
    saga = saga_of(world.step("a", Suspend(BackgroundResponse.skip("inquiring")), DONE))
    resolve(saga)
    waiting = journal.header(SAGA_ID)
    assert (waiting.told.status, waiting.told.output, waiting.response) == ("skip", "inquiring", None)
    assert engine.get(SAGA_ID).response is None
    resolve(saga)
    ended = journal.header(SAGA_ID)
    assert (ended.told, ended.response.status) == (None, "success")


@on_sqlite
def test_J09_each_commit_is_one_row_with_the_array_of_its_entries(counting, new_engine, resolve, world, file):
    saga = saga_of(world.step("a"), world.step("b", wanted=False), world.step("c", LATER, DONE))
    engine = new_engine(counting)
    resolve(saga, on=engine)
    resolve(saga, on=engine)
    connection = sqlite3.connect(file)
    rows = connection.execute("SELECT seq, body FROM entries ORDER BY seq").fetchall()
    connection.close()
    assert [seq for seq, _ in rows] == list(range(1, len(counting.commits) + 1))
    bodies = [[entry["entry"] for entry in msgspec.json.decode(body)] for _, body in rows]
    assert bodies == counting.entries()


@on_sqlite
def test_J09_the_executions_table_is_touched_at_start_suspension_and_end_only(engine, resolve, world, file):
    rewrite(file, "CREATE TABLE touches (status TEXT)")
    for event in ("INSERT", "UPDATE"):
        rewrite(
            file,
            f"CREATE TRIGGER touched_{event} AFTER {event} ON executions "
            "BEGIN INSERT INTO touches VALUES (NEW.status); END",
        )
    saga = saga_of(*(world.step(name) for name in "abc"), world.step("d", LATER, DONE), world.step("e"))
    resolve(saga)
    resolve(saga)
    connection = sqlite3.connect(file)
    touches = [status for (status,) in connection.execute("SELECT status FROM touches")]
    connection.close()
    assert touches == ["RUNNING", "SUSPENDED", "RUNNING", "COMPLETED"]


@on_sqlite
def test_J09_what_was_journaled_is_all_there_after_the_process_has_closed_it(journal_url, resolve, world, engine):
    saga = saga_of(world.step("a", remember(n=1)), world.step("b", wanted=False), world.step("c", LATER))
    resolve(saga)
    record, entries = engine.get(SAGA_ID), engine.history(SAGA_ID)
    engine.journal.close()
    reopened = open_journal(journal_url)
    with Engine(reopened) as other:
        assert other.history(SAGA_ID) == entries
        again = other.get(SAGA_ID)
        assert (again.steps, again.state, again.status) == (record.steps, record.state, record.status)
        assert [type(entry) for entry in entries].count(StepSkipped) == 1
        assert isinstance(entries[-2], StepSuspended)
    reopened.close()
