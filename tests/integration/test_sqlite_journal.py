"""What only the SQLite journal must do: leases of processes, durability, the file and its errors, forks."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from saga_engine.errors import (
    BadJournalURL,
    CorruptJournal,
    ForeignJournal,
    JournalError,
    JournalUnavailable,
    LeaseLost,
    NewerJournal,
    NotJSON,
    UnsafeFileSystem,
)
from saga_engine.journal import Committed, ExclusiveHeld, Header, Opening, SagaStatus
from saga_engine.journals import open_journal, sqlite_file, sqlite_processes, sqlite_session
from saga_engine.journals.process import identify
from saga_engine.journals.sqlite import SqliteJournal
from saga_engine.journals.sqlite_queries import queries
from saga_engine.testing.journals import Scribe

PATIENCE_S = 30.0
PUPPET = Path(__file__).resolve().parents[1] / "kit" / "journal_puppet.py"


# --- tools -------------------------------------------------------------------------------------------------


class Puppet:
    """Another process that uses a journal as it is told."""

    def __init__(self, url: str, lease_s: float = 30.0, heartbeat_s: float = 10.0) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(PUPPET), url, str(lease_s), str(heartbeat_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, command: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def answer(self) -> str:
        assert self.process.stdout is not None
        answer = self.process.stdout.readline().strip()
        assert answer, f"the puppet ended with {self.process.poll()}"
        return answer

    def ask(self, command: str) -> str:
        self.tell(command)
        return self.answer()

    def end(self) -> int:
        self.process.send_signal(signal.SIGCONT)
        try:
            self.process.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise
        return self.process.returncode


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def url(path: Path) -> str:
    return f"sqlite:///{path}"


@pytest.fixture
def open_at(url: str) -> Iterator[Callable[..., SqliteJournal]]:
    """Open the journal as often as a test likes; each is closed after it."""
    opened: list[SqliteJournal] = []

    def open_at(**options: float) -> SqliteJournal:
        journal = open_journal(url, **options)
        assert isinstance(journal, SqliteJournal)
        opened.append(journal)
        return journal

    yield open_at
    for journal in opened:
        journal.close()


@pytest.fixture
def journal(open_at: Callable[..., SqliteJournal]) -> SqliteJournal:
    return open_at()


@pytest.fixture
def puppet(url: str) -> Iterator[Callable[..., Puppet]]:
    """Start other processes, with the journal open; each ends with the test."""
    puppets: list[Puppet] = []

    def start(**options: float) -> Puppet:
        puppet = Puppet(url, **options)
        puppets.append(puppet)
        assert puppet.ask("open") == "opened"
        return puppet

    yield start
    for puppet in puppets:
        puppet.end()


class Wire:
    """A connection of SQLite with somebody listening in, who may block or fail a statement."""

    def __init__(self, connection: sqlite3.Connection, listen: Callable[[str], None]) -> None:
        self._connection = connection
        self._listen = listen

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        self._listen(sql)
        return self._connection.execute(sql, *parameters)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def session_of(journal: SqliteJournal) -> Any:
    assert journal._session is not None
    return journal._session


def tap(journal: SqliteJournal, listen: Callable[[str], None]) -> None:
    """Listen to every statement that writes."""
    session = session_of(journal)
    session._writer = Wire(session._writer, listen)


def wait_until(condition: Callable[[], object]) -> None:
    pause = threading.Event()
    for _ in range(int(PATIENCE_S / 0.005)):
        if condition():
            return
        pause.wait(0.005)
    raise AssertionError("it did not happen")


def look(path: Path, sql: str) -> list[Any]:
    """Read the file the way a stranger would."""
    connection = sqlite3.connect(path)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def header_of(journal: SqliteJournal, saga_id: str) -> Header:
    header = journal.header(saga_id)
    assert header is not None
    return header


def commits_in_log(path: Path) -> int:
    """Count the transactions in the write-ahead log: the frames that carry the size of the database after them."""
    log = Path(f"{path}-wal").read_bytes()
    page_size, salts = struct.unpack(">I", log[8:12])[0], log[16:24]
    frames = (log[start : start + 24] for start in range(32, len(log), 24 + page_size))
    return sum(frame[8:16] == salts and frame[4:8] != bytes(4) for frame in frames)


# --- J3, J4: the leases of processes -----------------------------------------------------------------------


def test_J03_a_stopped_holder_is_overtaken_and_cannot_commit_when_it_goes_on(
    journal: SqliteJournal, puppet: Callable[..., Puppet]
) -> None:
    holder = puppet(lease_s=0.6, heartbeat_s=0.1)
    assert holder.ask("start s-1") == "started 1"
    holder.process.send_signal(signal.SIGSTOP)
    wait_until(lambda: not journal.is_held(header_of(journal, "s-1")))
    [found] = journal.recoverable(now=0.0)
    other = Scribe(journal, "s-1", "d-2")
    other.eid, other.epoch, other.seq = found.eid, found.epoch, journal.load(found.eid).seq
    other.take()
    holder.process.send_signal(signal.SIGCONT)
    assert holder.ask("step").startswith("LeaseLost: drive d-")
    assert holder.ask("release").startswith("LeaseLost")
    other.step().release(SagaStatus.COMPLETED)
    assert journal.load(found.eid).seq == 4


def test_J04_a_killed_holder_is_taken_over_at_once(journal: SqliteJournal, puppet: Callable[..., Puppet]) -> None:
    holder = puppet()
    holder.ask("start s-1")
    header = header_of(journal, "s-1")
    assert journal.is_held(header)
    assert header.held_by is not None
    assert header.held_by.endswith(f":{holder.process.pid}")
    holder.process.kill()
    os.waitid(os.P_PID, holder.process.pid, os.WEXITED | os.WNOWAIT)
    assert not journal.is_held(header), "a zombie must not count as alive"
    holder.process.wait()
    assert [found.eid for found in journal.recoverable(now=0.0)] == [header.eid]


def test_J04_a_live_holder_keeps_its_lease_for_as_long_as_it_beats(
    journal: SqliteJournal, puppet: Callable[..., Puppet], path: Path
) -> None:
    holder = puppet(lease_s=0.5, heartbeat_s=0.05)
    holder.ask("start s-1")
    header = header_of(journal, "s-1")
    [(first,)] = look(path, "SELECT beat_s FROM processes")

    def beats() -> float:
        assert journal.is_held(header)
        assert journal.recoverable(now=1e12) == []
        [(latest,)] = look(path, "SELECT beat_s FROM processes")
        return float(latest - first)

    wait_until(lambda: beats() > 1.0)
    assert holder.ask("step") == "appended 2"


def test_J04_a_holder_that_closes_its_journal_is_taken_over_at_once(
    journal: SqliteJournal, puppet: Callable[..., Puppet], path: Path
) -> None:
    holder = puppet()
    holder.ask("start s-1")
    assert holder.ask("close") == "closed"
    assert [header.saga_id for header in journal.recoverable(now=0.0)] == ["s-1"]
    assert look(path, "SELECT * FROM processes") == []


def test_J04_a_process_that_holds_nothing_does_not_beat(open_at: Callable[..., SqliteJournal], path: Path) -> None:
    idle, busy = open_at(lease_s=0.2, heartbeat_s=0.02), open_at(lease_s=0.2, heartbeat_s=0.02)
    scribe = Scribe(idle).start()

    def beat_of(journal: SqliteJournal) -> float:
        beats: dict[str, float] = dict(look(path, "SELECT id, beat_s FROM processes"))
        return beats[session_of(journal).process.id]

    first = beat_of(idle)
    wait_until(lambda: beat_of(idle) > first)
    scribe.release(SagaStatus.COMPLETED)
    last = beat_of(idle)
    Scribe(busy, "s-2").start()
    wait_until(lambda: beat_of(busy) > last + 0.1)
    assert beat_of(idle) == last


def test_J04_a_heartbeat_that_fails_is_logged_and_tried_again(
    open_at: Callable[..., SqliteJournal], path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = open_at(lease_s=0.2, heartbeat_s=0.02)
    Scribe(journal).start()
    failures = [sqlite3.OperationalError("disk I/O error")] * 3

    def fail(sql: str) -> None:
        if sql == "COMMIT" and failures:
            raise failures.pop()

    tap(journal, fail)
    wait_until(lambda: not failures)
    [(before,)] = look(path, "SELECT beat_s FROM processes")
    wait_until(lambda: look(path, "SELECT beat_s FROM processes")[0][0] > before)
    assert "a heartbeat could not be written" in caplog.text
    assert {record.name for record in caplog.records} == {"saga_engine.journal"}


def test_J04_an_abandoned_lease_is_told_later_if_the_journal_cannot_be_written_now(
    open_at: Callable[..., SqliteJournal], journal: SqliteJournal
) -> None:
    holder = open_at(lease_s=0.2, heartbeat_s=0.02)
    scribe = Scribe(holder).start()
    is_full = threading.Event()
    is_full.set()

    def fail(sql: str) -> None:
        if is_full.is_set() and sql == "COMMIT":
            raise sqlite3.OperationalError("database or disk is full")

    tap(holder, fail)
    holder.abandon(scribe.eid, scribe.epoch)
    assert header_of(holder, "s-1").drive == "d-1"
    assert not holder.is_held(header_of(holder, "s-1"))
    is_full.clear()
    wait_until(lambda: header_of(journal, "s-1").drive is None)
    wait_until(lambda: not session_of(holder).heart.is_given_up(scribe.eid, scribe.epoch))
    assert [header.eid for header in journal.recoverable(now=0.0)] == [scribe.eid]


@pytest.fixture
def elsewhere(
    open_at: Callable[..., SqliteJournal], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, str], SqliteJournal]:
    """Open the journal as if on another host, under another boot."""

    def elsewhere(host: str, boot_id: str) -> SqliteJournal:
        identity = replace(identify(), host=host, boot_id=boot_id)
        with monkeypatch.context() as patch:
            patch.setattr(sqlite_session, "identify", lambda: identity)
            return open_at()

    return elsewhere


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Turn the boot clock by hand; it stands at 1000 s."""

    def set_clock(now_s: float) -> None:
        monkeypatch.setattr(sqlite_session, "boot_clock_s", lambda: now_s)
        monkeypatch.setattr(sqlite_processes, "boot_clock_s", lambda: now_s)

    set_clock(1_000.0)
    return set_clock


def test_J04_the_holder_on_another_host_is_dead_after_a_lease_without_a_new_heartbeat(
    elsewhere: Callable[[str, str], SqliteJournal], journal: SqliteJournal, clock: Callable[[float], None]
) -> None:
    holder = elsewhere("other", "boot-other")
    Scribe(holder).start()
    header = header_of(journal, "s-1")
    clock(50_000.0)
    assert journal.is_held(header), "the age by another host's clock must not count"
    clock(50_030.0)
    assert journal.is_held(header)
    assert journal.recoverable(now=0.0) == []
    clock(50_030.1)
    assert not journal.is_held(header)
    assert [found.eid for found in journal.recoverable(now=0.0)] == [header.eid]


def test_J04_a_new_heartbeat_from_another_host_starts_the_count_again(
    elsewhere: Callable[[str, str], SqliteJournal], journal: SqliteJournal, clock: Callable[[float], None]
) -> None:
    holder = elsewhere("other", "boot-other")
    Scribe(holder).start()
    header = header_of(journal, "s-1")
    assert journal.is_held(header)
    clock(1_020.0)
    Scribe(holder, "s-2").start()
    clock(1_035.0)
    assert journal.is_held(header)
    clock(1_066.0)
    assert not journal.is_held(header)


def test_J04_what_was_observed_survives_the_observer_and_other_observers(
    elsewhere: Callable[[str, str], SqliteJournal],
    open_at: Callable[..., SqliteJournal],
    clock: Callable[[float], None],
) -> None:
    Scribe(elsewhere("other", "boot-other")).start()
    first = open_at()
    header = header_of(first, "s-1")
    assert first.is_held(header)
    first.close()
    clock(1_020.0)
    assert elsewhere("third", "boot-third").is_held(header)
    clock(1_031.0)
    assert not open_at().is_held(header)
    assert elsewhere("third", "boot-third").is_held(header), "its own count began later"


def test_J04_a_holder_from_before_this_host_was_booted_is_dead_at_once(
    elsewhere: Callable[[str, str], SqliteJournal], journal: SqliteJournal
) -> None:
    Scribe(elsewhere(identify().host, "boot-before")).start()
    assert not journal.is_held(header_of(journal, "s-1"))


def test_J04_dead_processes_that_hold_nothing_are_forgotten(
    journal: SqliteJournal, puppet: Callable[..., Puppet], path: Path, clock: Callable[[float], None]
) -> None:
    idle, holding = puppet(), puppet()
    idle.ask("start s-1")
    idle.ask("release")
    holding.ask("start s-2")
    for dead in (idle, holding):
        dead.process.kill()
        dead.process.wait()
    Scribe(journal, "s-3").start()
    pids = {pid for (pid,) in look(path, "SELECT pid FROM processes")}
    assert pids == {holding.process.pid, os.getpid()}


# --- J2, J6: durability and the group commit ---------------------------------------------------------------


def test_J06_the_file_is_for_its_owner_alone_and_keeps_a_write_ahead_log(journal: SqliteJournal, path: Path) -> None:
    Scribe(journal).start()
    modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    assert modes == dict.fromkeys(("journal.db", "journal.db-wal", "journal.db-shm"), 0o600)
    writer = session_of(journal)._writer
    assert writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert writer.execute("PRAGMA synchronous").fetchone() == (2,), "2 is FULL"
    assert writer.execute("PRAGMA fullfsync").fetchone() == (1,)


def test_J01_a_commit_is_one_transaction_and_the_first_heartbeat_rides_along(
    journal: SqliteJournal, path: Path
) -> None:
    before = commits_in_log(path)
    Scribe(journal).start().step().step().step().step().release(SagaStatus.COMPLETED)
    assert commits_in_log(path) - before == 6
    assert look(path, "SELECT count(*) FROM processes") == [(1,)]


def test_J06_writers_that_arrive_together_share_transactions(journal: SqliteJournal, path: Path) -> None:
    entered, gate = threading.Event(), threading.Event()

    def hold_up(sql: str) -> None:
        if sql == "COMMIT":
            entered.set()
            assert gate.wait(PATIENCE_S)

    before = commits_in_log(path)
    tap(journal, hold_up)
    with ThreadPoolExecutor(31) as pool:
        first = pool.submit(Scribe(journal, "s-first").start)
        assert entered.wait(PATIENCE_S)
        rest = [pool.submit(Scribe(journal, f"s-{number}").start) for number in range(30)]
        wait_until(lambda: len(session_of(journal).commits._queue) == 30)
        assert not any(future.done() for future in (first, *rest))
        assert look(path, "SELECT count(*) FROM entries") == [(0,)]
        gate.set()
        for future in (first, *rest):
            future.result(PATIENCE_S)
    assert commits_in_log(path) - before == 2


def test_J06_a_lone_writer_commits_in_its_own_thread(journal: SqliteJournal) -> None:
    threads: set[int] = set()
    before = set(threading.enumerate())
    tap(journal, lambda sql: threads.add(threading.get_ident()))
    Scribe(journal).start().step().release(SagaStatus.COMPLETED)
    assert threads == {threading.get_ident()}
    assert {thread.name for thread in set(threading.enumerate()) - before} <= {"saga-journal-heartbeat"}


def test_J02_a_commit_that_fails_keeps_nothing_and_says_so_to_all_its_members(
    journal: SqliteJournal, path: Path
) -> None:
    entered, gate = threading.Event(), threading.Event()
    failures = [sqlite3.OperationalError("disk I/O error")]
    commits = session_of(journal).commits

    def fail(sql: str) -> None:
        if sql == "COMMIT":
            entered.set()
            assert gate.wait(PATIENCE_S)
            if len(commits._batch) > 1 and failures:
                raise failures.pop()

    tap(journal, fail)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(Scribe(journal, "s-first").start)
        assert entered.wait(PATIENCE_S)
        rest = [pool.submit(Scribe(journal, f"s-{number}").start) for number in range(3)]
        wait_until(lambda: len(session_of(journal).commits._queue) == 3)
        gate.set()
        first.result(PATIENCE_S)
        errors = [future.exception(PATIENCE_S) for future in rest]
    assert [type(error) for error in errors] == [JournalUnavailable] * 3
    assert all("look at that disk" in str(error) and str(path) in str(error) for error in errors)
    assert [header.saga_id for header in journal.search()] == ["s-first"]
    Scribe(journal, "s-0").start()


def test_J06_a_member_that_sqlite_refuses_does_not_disturb_the_others(journal: SqliteJournal) -> None:
    entered, gate = threading.Event(), threading.Event()

    def hold_up(sql: str) -> None:
        if sql == "COMMIT":
            entered.set()
            assert gate.wait(PATIENCE_S)

    tap(journal, hold_up)
    with ThreadPoolExecutor(4) as pool:
        pool.submit(Scribe(journal, "s-first").start)
        assert entered.wait(PATIENCE_S)
        kept = [pool.submit(Scribe(journal, f"s-{number}").start) for number in range(2)]
        unspeakable = pool.submit(
            journal.append, replace(Scribe(journal).opening(), opening=Opening("s-\ud800", 1, "Saga"))
        )
        wait_until(lambda: len(session_of(journal).commits._queue) == 3)
        gate.set()
        for future in kept:
            future.result(PATIENCE_S)
        assert isinstance(unspeakable.exception(PATIENCE_S), NotJSON)
    assert {header.saga_id for header in journal.search()} == {"s-first", "s-0", "s-1"}


def test_J02_an_interrupt_before_the_commit_keeps_nothing_and_one_after_it_keeps_all(
    journal: SqliteJournal,
) -> None:
    def interrupt(sql: str) -> None:
        if sql == "COMMIT":
            raise KeyboardInterrupt

    tap(journal, interrupt)
    with pytest.raises(KeyboardInterrupt):
        Scribe(journal).start()
    session = session_of(journal)
    session._writer = session._writer._connection
    assert journal.search() == []

    class Late(Wire):
        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            cursor = super().execute(sql, *parameters)
            if sql == "COMMIT":
                raise KeyboardInterrupt
            return cursor

    session._writer = Late(session._writer, lambda sql: None)
    with pytest.raises(KeyboardInterrupt):
        Scribe(journal).start()
    session._writer = session._writer._connection
    assert [header.saga_id for header in journal.search()] == ["s-1"]


def test_J02_an_interrupt_after_the_commit_leaves_the_others_of_the_batch_their_results(
    journal: SqliteJournal,
) -> None:
    session = session_of(journal)
    interrupts = [KeyboardInterrupt()]

    class Late(Wire):
        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            cursor = super().execute(sql, *parameters)
            if sql == "COMMIT" and interrupts:
                raise interrupts.pop()
            return cursor

    session._writer = Late(session._writer, lambda sql: None)
    assert session.commits.hold(PATIENCE_S)
    with ThreadPoolExecutor(3) as pool:
        starts = [pool.submit(Scribe(journal, f"s-{number}").start) for number in range(3)]
        wait_until(lambda: len(session.commits._queue) == 3)
        session.commits.resume()
        errors = [future.exception(PATIENCE_S) for future in starts]
    assert sorted(str(type(error).__name__) for error in errors) == ["KeyboardInterrupt", "NoneType", "NoneType"]
    assert len(journal.search()) == 3


def test_J09_a_plain_commit_does_not_touch_the_executions_table(journal: SqliteJournal) -> None:
    scribe = Scribe(journal).start()
    statements: list[str] = []
    tap(journal, statements.append)
    scribe.step()
    assert [sql.split()[0] for sql in statements] == ["BEGIN", "INSERT", "COMMIT"]
    assert statements[1].startswith("INSERT INTO entries")


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("search_not_completed", "INDEX executions_status"),
        ("left_by_process", "INDEX executions_in_flight"),
        ("due", "INDEX executions_due"),
        ("with_mail", "INDEX inbox_eid"),
        ("header_of_latest", "INDEX sqlite_autoindex_executions_1"),
        ("header_of_generation", "INDEX sqlite_autoindex_executions_1"),
        ("rows_of_execution", "PRIMARY KEY"),
        ("append_entries", "INTEGER PRIMARY KEY"),
        ("append_plain", "INTEGER PRIMARY KEY"),
        ("holder_of_right", "INDEX executions_holds"),
        ("wake_first", "INTEGER PRIMARY KEY"),
        ("wake_if_free", "INTEGER PRIMARY KEY"),
        ("next_due", "INDEX executions_due"),
        ("purge", "INTEGER PRIMARY KEY"),
    ],
)
def test_what_is_asked_often_does_not_look_through_all_executions(
    journal: SqliteJournal, name: str, index: str
) -> None:
    names = (
        "after at awaits before body drained drive eid epoch exclusive frees generation limit now process saga saga_id "
        "seq status stuck_before take version"
    )
    parameters = dict.fromkeys(names.split(), 1)
    plan = session_of(journal).read(
        lambda connection: connection.execute(f"EXPLAIN QUERY PLAN {queries[name]}", parameters).fetchall()
    )
    steps = [step for (*_, step) in plan if "CONSTANT" not in step and "SUBQUERY" not in step]
    assert index in steps[0]
    assert not [step for step in steps if step.startswith("SCAN")]


@pytest.mark.parametrize(
    ("name", "index"),
    [("wake_first", "INDEX executions_awaits (awaits=?)"), ("purge", "INDEX executions_ended (updated_at<?)")],
)
def test_what_is_woken_or_purged_is_found_in_order_without_looking_through_all_executions(
    journal: SqliteJournal, name: str, index: str
) -> None:
    parameters = dict.fromkeys(("at", "before", "eid", "frees", "limit"), 1)
    plan = session_of(journal).read(
        lambda connection: connection.execute(f"EXPLAIN QUERY PLAN {queries[name]}", parameters).fetchall()
    )
    steps = [step for (*_, step) in plan]
    assert any(index in step for step in steps)
    assert not [step for step in steps if step.startswith("SCAN") or "ORDER BY" in step]


def test_a_saga_without_rights_makes_no_statement_because_of_them(journal: SqliteJournal) -> None:
    statements: list[str] = []
    tap(journal, lambda sql: statements.append(" ".join(sql.split()[:3])))
    scribe = Scribe(journal).start().step().release(due_at=9.0)
    scribe.taking("d-2").take().release(SagaStatus.COMPLETED)
    tables = ("entries", "executions", "inbox", "stuck")
    assert [sql for sql in statements if any(table in sql.split() for table in tables)] == [
        "INSERT INTO executions",
        "INSERT INTO entries",
        "INSERT INTO entries",
        "INSERT INTO entries",
        "UPDATE executions SET",
        "INSERT INTO entries",
        "DELETE FROM stuck",
        "UPDATE executions SET",
        "INSERT INTO entries",
        "UPDATE executions SET",
    ]


def test_a_purge_is_one_transaction_and_removes_every_entry(journal: SqliteJournal, path: Path) -> None:
    for number in range(30):
        Scribe(journal, f"s-{number}").start().step().release(SagaStatus.COMPLETED, at=10.0)
    kept = Scribe(journal, "s-kept").start().step()
    before = commits_in_log(path)
    assert journal.purge(before=50.0) == 30
    assert commits_in_log(path) - before == 1
    assert look(path, "SELECT eid, seq FROM entries") == [(kept.eid, 1), (kept.eid, 2)]


@pytest.fixture
def steps_of(journal: SqliteJournal) -> Callable[[Callable[[], object]], int]:
    """Count how many hundreds of steps SQLite's machine takes while something is written."""

    def steps_of(work: Callable[[], object]) -> int:
        ticks = 0

        def tick() -> None:
            nonlocal ticks
            ticks += 1

        writer = session_of(journal)._writer
        writer.set_progress_handler(tick, 100)
        try:
            work()
        finally:
            writer.set_progress_handler(None, 100)
        return ticks

    return steps_of


def test_S15_a_purge_does_not_look_through_what_was_purged_or_may_not_be(
    journal: SqliteJournal, path: Path, steps_of: Callable[[Callable[[], object]], int]
) -> None:
    def purge_one() -> None:
        Scribe(journal, f"s-{len(journal.search(limit=10**6))}").start().release(SagaStatus.COMPLETED, at=10.0)
        assert journal.purge(before=50.0) == 1

    few = steps_of(purge_one)
    write(
        path,
        "WITH RECURSIVE n(i) AS (SELECT 100 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) "
        "INSERT INTO executions (eid, saga_id, generation, saga, status, epoch, in_flight, created_at, updated_at, "
        "is_purged) SELECT i, 'x-' || i, 1, 'Saga', CASE i % 3 WHEN 0 THEN 'PARKED' ELSE 'COMPLETED' END, 1, 0, 1.0, "
        "CASE i % 3 WHEN 1 THEN 90.0 ELSE 1.0 END, i % 3 = 2 FROM n",
    )
    assert steps_of(purge_one) <= few + 20


def test_a_right_outlives_the_process_that_took_it(
    journal: SqliteJournal, puppet: Callable[..., Puppet], open_at: Callable[..., SqliteJournal]
) -> None:
    holder = puppet()
    assert holder.ask("start s-1 asset:A-1") == "started 1"
    holder.process.kill()
    holder.process.wait()
    for other in (journal, open_at()):
        scribe = Scribe(other, "s-2")
        assert other.append(replace(scribe.opening(), exclusive="asset:A-1")) == ExclusiveHeld("s-1")
    [found] = journal.recoverable(now=0.0)
    taker = Scribe(journal, "s-1", "d-2")
    taker.eid, taker.epoch, taker.seq = found.eid, found.epoch, 1
    taker.take(exclusive="asset:A-1").release(SagaStatus.COMPENSATED, frees="asset:A-1")
    Scribe(journal, "s-2").start(exclusive="asset:A-1")


def test_of_several_processes_one_at_a_time_has_a_right_and_all_get_it(
    path: Path, journal: SqliteJournal, puppet: Callable[..., Puppet]
) -> None:
    puppets = [puppet() for _ in range(4)]
    for each in puppets:
        each.tell("contend 15 asset:A-1")
    assert [each.answer() for each in puppets] == ["contended"] * 4
    assert look(path, "SELECT status, count(*) FROM executions") == [("COMPLETED", 60)]
    assert look(path, "SELECT count(*) FROM executions WHERE holds IS NOT NULL OR awaits IS NOT NULL") == [(0,)]


def test_many_unfinished_executions_are_listed_in_pages(journal: SqliteJournal, path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) "
        "INSERT INTO executions (eid, saga_id, generation, saga, status, epoch, in_flight, created_at, updated_at) "
        "SELECT i, 's-' || i, 1, 'Saga', 'RUNNING', 1, 1, 1.0, 1.0 FROM n"
    )
    connection.commit()
    connection.close()
    after, seen = 0, 0
    while page := journal.recoverable(now=0.0, after=after, limit=500):
        assert page[0].eid == after + 1
        after, seen = page[-1].eid, seen + len(page)
    assert seen == 20_000


# --- several processes -------------------------------------------------------------------------------------


def test_J06_several_processes_share_one_file(
    path: Path, url: str, journal: SqliteJournal, puppet: Callable[..., Puppet]
) -> None:
    puppets = [puppet() for _ in range(4)]
    for each in puppets:
        each.tell("hammer 40")
    assert [each.answer() for each in puppets] == ["hammered"] * 4
    assert look(path, "SELECT status, count(*) FROM executions") == [("COMPLETED", 160)]
    assert look(path, "SELECT count(*), count(DISTINCT eid) FROM entries") == [(480, 160)]
    assert look(path, "PRAGMA integrity_check") == [("ok",)]


def test_J07_several_processes_create_one_file(path: Path, url: str) -> None:
    puppets = [Puppet(url) for _ in range(5)]
    for number, each in enumerate(puppets):
        each.tell("open")
        each.tell(f"start s-{number}")
    for each in puppets:
        assert each.answer() == "opened"
        assert each.answer().startswith("started")
    assert [each.end() for each in puppets] == [0] * 5
    assert look(path, "SELECT count(*) FROM executions") == [(5,)]


def test_J07_a_file_that_becomes_a_journal_while_it_is_looked_at_is_not_taken_for_a_foreign_one(
    path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = sqlite_file._pragma
    pragmas = []

    def create_after_the_first_look(connection: sqlite3.Connection, name: str) -> int:
        value = looked(connection, name)
        if not pragmas:
            with closing(sqlite3.connect(path, timeout=0)) as other, suppress(sqlite3.OperationalError):
                other.execute(f"PRAGMA application_id = {sqlite_file.APPLICATION_ID}")
        pragmas.append(name)
        return value

    monkeypatch.setattr(sqlite_file, "_pragma", create_after_the_first_look)
    open_journal(url).close()
    assert pragmas[:2] == ["user_version", "application_id"]


def test_a_writer_that_never_ends_makes_the_journal_unavailable(
    journal: SqliteJournal, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "BUSY_MAX_S", 0.05)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(JournalUnavailable, match=r"locked; another process"):
        Scribe(journal).start()
    assert journal.search() == [], "reading goes on"
    other.close()
    Scribe(journal).start()


# --- forks -------------------------------------------------------------------------------------------------


def test_a_forked_child_keeps_what_it_commits_after_its_parent_closed_the_journal(
    path: Path, url: str, puppet: Callable[..., Puppet]
) -> None:
    parent = puppet()
    assert parent.ask("start s-parent") == "started 1"
    assert parent.ask("fork") == "forked"
    assert parent.ask("start s-child") == "started 2"
    wait_until(lambda: look(path, "SELECT drive FROM executions WHERE saga_id = 's-parent'") == [(None,)])
    assert parent.ask("step") == "appended 2"
    assert parent.ask("close") == "closed"
    assert parent.end() == 0
    assert look(path, "SELECT eid, seq FROM entries ORDER BY 1, 2") == [(1, 1), (2, 1), (2, 2)]


def test_a_forked_child_is_a_process_of_its_own(
    path: Path, journal: SqliteJournal, puppet: Callable[..., Puppet]
) -> None:
    parent = puppet()
    parent.ask("start s-1")
    parent.ask("fork")
    parent.ask("start s-2")
    assert header_of(journal, "s-1").process != header_of(journal, "s-2").process
    assert journal.is_held(header_of(journal, "s-2"))


FORK_WHILE_WRITING = """
import os, sys, threading
from saga_engine.journals import open_journal
from saga_engine.journals.sqlite_queries import queries
from saga_engine.testing.journals import Scribe
journal = open_journal(sys.argv[1])
done = threading.Event()
def write(number):
    count = 0
    while not done.is_set():
        Scribe(journal, f"t-{number}-{count}").start().step()
        count += 1
threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
for thread in threads: thread.start()
for number in range(10):
    child = os.fork()
    if child == 0:
        Scribe(journal, f"c-{number}").start().step()
        journal.header(f"c-{number}")
        journal.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
done.set()
for thread in threads: thread.join()
journal.close()
"""


def test_a_process_may_fork_while_its_threads_write(path: Path, url: str) -> None:
    # Python warns of forks among threads since 3.12; that they are safe for the journal is what is tested.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK_WHILE_WRITING, url]
    subprocess.run(command, check=True, timeout=PATIENCE_S)
    assert look(path, "SELECT count(*) FROM executions WHERE saga_id LIKE 'c-%'") == [(10,)]
    assert look(
        path, "SELECT count(*) FROM executions e WHERE 2 <> (SELECT count(*) FROM entries WHERE eid = e.eid)"
    ) == [(0,)]
    assert look(path, "PRAGMA integrity_check") == [("ok",)]


def test_a_child_forked_in_the_middle_of_a_commit_cannot_use_the_journal(
    journal: SqliteJournal, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its copy of SQLite believes in locks that it does not hold; this plays both sides of the fork."""
    entered, gate = threading.Event(), threading.Event()
    monkeypatch.setattr(sqlite_session, "PAUSE_MAX_S", 0.01)
    monkeypatch.setattr(sqlite_session, "_inherited", [])

    def hold_up(sql: str) -> None:
        if sql == "COMMIT":
            entered.set()
            assert gate.wait(PATIENCE_S)

    tap(journal, hold_up)
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(Scribe(journal).start)
        assert entered.wait(PATIENCE_S)
        sqlite_session._before_fork()
        sqlite_session._after_fork_in_parent()
        assert "did not come to rest" in caplog.text
        sqlite_session._inherited.append(session_of(journal))
        with pytest.raises(JournalUnavailable, match="forked in the middle of a commit"):
            open_journal(f"sqlite:///{path}")
        gate.set()
        writing.result(PATIENCE_S)


# --- J7: versions ------------------------------------------------------------------------------------------


@pytest.fixture
def first_release(path: Path) -> None:
    """Lay a file as the first release left it: one execution that suspended, one that ended."""
    body = '[{"entry":"WaitElapsed","at":1.0}]'
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(sqlite_file.migrations()[1])
        connection.executescript(
            "INSERT INTO executions (saga_id, generation, saga, status, epoch, in_flight, due_at, created_at, "
            "updated_at) VALUES ('s-1', 1, 'Saga', 'SUSPENDED', 1, 0, 9.0, 1.0, 1.0), "
            "('s-2', 1, 'Saga', 'COMPLETED', 1, 0, NULL, 1.0, 1.0);"
            f"INSERT INTO entries (eid, seq, version, body) VALUES (1, 1, 1, '{body}'), (2, 1, 1, '{body}');"
            f"PRAGMA application_id = {sqlite_file.APPLICATION_ID}; PRAGMA user_version = 1;"
        )


@pytest.mark.usefixtures("first_release")
def test_J07_a_file_of_the_first_release_is_brought_up_to_date(url: str, path: Path) -> None:
    journal = open_journal(url)
    header = journal.header("s-1")
    assert header is not None
    assert (header.status, header.due_at, header.is_purged) == (SagaStatus.SUSPENDED, 9.0, False)
    taker = Scribe(journal, "s-1")
    taker.eid, taker.epoch, taker.seq = header.eid, header.epoch, journal.load(header.eid).seq
    taker.take(exclusive="asset:A-1").release(SagaStatus.COMPLETED, at=60.0, frees="asset:A-1")
    assert journal.purge(before=50.0) == 1
    assert [found.is_purged for found in journal.search()] == [True, False]
    journal.close()
    assert look(path, "PRAGMA user_version") == [(max(sqlite_file.migrations()),)]
    assert look(path, "PRAGMA integrity_check") == [("ok",)]


@pytest.mark.usefixtures("first_release")
def test_J07_several_processes_bring_one_file_up_to_date(path: Path, url: str) -> None:
    puppets = [Puppet(url) for _ in range(5)]
    for number, each in enumerate(puppets):
        each.tell("open")
        each.tell(f"start p-{number}")
    for each in puppets:
        assert each.answer() == "opened"
        assert each.answer().startswith("started")
    assert [each.end() for each in puppets] == [0] * 5
    assert look(path, "PRAGMA user_version") == [(max(sqlite_file.migrations()),)]
    assert look(path, "SELECT count(*) FROM executions") == [(7,)]


@pytest.mark.usefixtures("first_release")
def test_J07_of_two_that_saw_an_old_file_the_later_one_finds_it_up_to_date(
    url: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate = sqlite_file._migrate

    def come_second(connection: sqlite3.Connection, path: Path, known: dict[int, str]) -> None:
        monkeypatch.setattr(sqlite_file, "_migrate", migrate)
        open_journal(url).close()
        migrate(connection, path, known)

    monkeypatch.setattr(sqlite_file, "_migrate", come_second)
    open_journal(url).close()
    assert look(path, "PRAGMA integrity_check") == [("ok",)]


@pytest.mark.usefixtures("first_release")
def test_J07_a_release_that_knows_only_the_first_version_refuses_a_file_of_a_later_one(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_journal(url).close()
    known = sqlite_file.migrations()
    monkeypatch.setattr(sqlite_file, "migrations", lambda: {1: known[1]})
    wanted = f"has version {max(known)}, this release reads up to 1: upgrade saga-engine"
    with pytest.raises(NewerJournal, match=wanted):
        open_journal(url)


def _next_migration(script: str) -> dict[int, str]:
    known = sqlite_file.migrations()
    return {**known, max(known) + 1: script}


def test_J07_a_migration_may_hold_comments_and_semicolons(
    url: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = open_journal(url)
    scribe = Scribe(old).start().step()
    old.close()
    scripts = _next_migration(
        "CREATE TABLE later (a TEXT DEFAULT ';');\n-- a comment;\nINSERT INTO later VALUES (1);\n"
    )
    monkeypatch.setattr(sqlite_file, "migrations", lambda: scripts)
    new = open_journal(url)
    assert new.load(scribe.eid).seq == 2
    new.close()
    assert look(path, "PRAGMA user_version") == [(max(scripts),)]
    assert look(path, "SELECT a FROM later") == [("1",)]


def test_J07_a_migration_that_fails_changes_nothing(url: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_journal(url).close()
    scripts = _next_migration("CREATE TABLE later (a);\nCREATE TABLE later (a);\n")
    monkeypatch.setattr(sqlite_file, "migrations", lambda: scripts)
    with pytest.raises(JournalUnavailable, match="table later already exists"):
        open_journal(url)
    assert look(path, "PRAGMA user_version") == [(max(scripts) - 1,)]
    assert look(path, "SELECT name FROM sqlite_master WHERE name = 'later'") == []


def test_columns_that_a_later_release_adds_while_the_file_is_open_do_no_harm(
    journal: SqliteJournal, path: Path
) -> None:
    Scribe(journal).start().release(due_at=9.0)
    before = header_of(journal, "s-1")
    write(path, "ALTER TABLE executions ADD COLUMN later TEXT DEFAULT 'new'")
    assert header_of(journal, "s-1") == before
    assert journal.recoverable(now=9.0) == journal.search() == [before]


def test_J07_the_file_says_whose_it_is_and_which_version(journal: SqliteJournal, path: Path) -> None:
    assert look(path, "PRAGMA application_id") == [(0x73616761,)]
    assert look(path, "PRAGMA user_version") == [(max(sqlite_file.migrations()),)]


def test_J07_S28_a_file_of_a_later_release_is_refused(url: str, path: Path) -> None:
    open_journal(url).close()
    write(path, "PRAGMA user_version = 99")
    with pytest.raises(NewerJournal, match=r"journal\.db has version 99, .* upgrade saga-engine"):
        open_journal(url)


# --- S28: bad files ----------------------------------------------------------------------------------------


def write(path: Path, sql: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(sql)
    connection.close()


def filled(url: str) -> None:
    """Put some pages of executions into the file."""
    journal = open_journal(url)
    for number in range(50):
        Scribe(journal, f"s-{number}").start().step()
    journal.close()


@pytest.mark.parametrize("kept", [50, 5_000, 0.5, 0.95])
def test_S28_a_truncated_file_is_refused_before_anything_runs(url: str, path: Path, kept: float) -> None:
    filled(url)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept if kept > 1 else len(whole) * kept)])
    with pytest.raises(CorruptJournal, match=r"journal\.db is damaged .*: restore it from a backup"):
        open_journal(url)


def test_S28_a_damaged_page_is_found_when_it_is_read(url: str, path: Path) -> None:
    filled(url)
    whole = bytearray(path.read_bytes())
    for (page,) in look(path, "SELECT DISTINCT rootpage FROM sqlite_master WHERE rootpage > 1"):
        whole[(page - 1) * 4096 : page * 4096] = b"\xa5" * 4096
    path.write_bytes(whole)
    journal = open_journal(url)
    with pytest.raises(CorruptJournal, match="damaged"):
        journal.header("s-1")
    with pytest.raises(CorruptJournal, match="damaged"):
        Scribe(journal, "s-new").start()
    journal.close()


@pytest.mark.parametrize(
    ("sql", "text"),
    [
        ('UPDATE entries SET body = \'[{"entry":"Nonsense"}]\' WHERE seq = 2', "an entry cannot be read"),
        ("UPDATE entries SET body = x'ff' WHERE seq = 2", "an entry cannot be read"),
        ("DELETE FROM entries WHERE seq = 1", "rows of an execution are missing"),
    ],
)
def test_J05_S28_a_damaged_entry_is_found_when_it_is_read(
    journal: SqliteJournal, path: Path, sql: str, text: str
) -> None:
    scribe = Scribe(journal).start().step()
    write(path, sql)
    with pytest.raises(CorruptJournal, match=f"{text}.*backup"):
        journal.load(scribe.eid)


@pytest.mark.parametrize("column", ["status", "told"])
def test_J05_S28_a_damaged_header_is_found_when_it_is_read(journal: SqliteJournal, path: Path, column: str) -> None:
    Scribe(journal).start()
    write(path, f"UPDATE executions SET {column} = 'nonsense'")
    with pytest.raises(CorruptJournal):
        journal.header("s-1")


def test_J05_S28_an_entry_of_a_later_release_is_refused(journal: SqliteJournal, path: Path) -> None:
    scribe = Scribe(journal).start()
    write(path, "UPDATE entries SET version = 7")
    with pytest.raises(NewerJournal, match="version 7"):
        journal.load(scribe.eid)


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE mine (a)",
        "PRAGMA application_id = 77",
        "PRAGMA user_version = 1",
        f"PRAGMA application_id = {0x73616761}",
    ],
)
def test_S28_a_database_of_somebody_else_is_refused_and_left_alone(url: str, path: Path, sql: str) -> None:
    write(path, sql)
    before = path.read_bytes()
    with pytest.raises(ForeignJournal, match=r"journal\.db is not a journal of saga-engine: it was left as it is"):
        open_journal(url)
    assert path.read_bytes() == before


def test_S28_a_file_that_is_no_database_is_refused_and_left_alone(url: str, path: Path) -> None:
    path.write_text("my thesis, chapter one\n" * 100)
    before = path.read_bytes()
    with pytest.raises(ForeignJournal, match="name another file"):
        open_journal(url)
    assert path.read_bytes() == before


def test_S28_an_empty_file_becomes_a_journal(url: str, path: Path) -> None:
    path.touch()
    journal = open_journal(url)
    Scribe(journal).start()
    journal.close()


def test_S28_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(JournalUnavailable, match=r"the directory .*/nowhere does not exist, create it first"):
        open_journal(f"sqlite:///{tmp_path}/nowhere/journal.db")


def test_S28_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(JournalUnavailable, match="is a directory: name a file in it"):
        open_journal(f"sqlite:///{tmp_path}")


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that somebody else can reach, which those of pytest are not."""
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o777)
    yield directory
    shutil.rmtree(directory)


@pytest.mark.parametrize("what", ["file", "directory", "directory of a new file"])
def test_S28_a_read_only_place_is_named(open_directory: Path, what: str) -> None:
    path = open_directory / "journal.db"
    if what != "directory of a new file":
        filled(f"sqlite:///{path}")
        path.chmod(0o444 if what == "file" else 0o666)
    open_directory.chmod(0o777 if what == "file" else 0o555)
    puppet = Puppet(f"sqlite:///{path}")
    puppet.ask("drop_root")
    answer = puppet.ask("open")
    puppet.end()
    place = path if what == "file" else open_directory
    assert answer.startswith(f"JournalUnavailable: {path}: this user may not write {place}, ")
    assert answer.endswith("allow it, or copy the file to a directory of this user")
    open_directory.chmod(0o777)


def test_S28_a_full_disk_refuses_the_commit_and_loses_nothing(
    path: Path, url: str, puppet: Callable[..., Puppet]
) -> None:
    full = puppet()
    full.ask("start s-1")
    assert full.ask("step 10000") == "appended 2"
    full.ask("limit_file_size 30000")
    answer = full.ask("step 100000")
    assert answer.startswith(f"JournalUnavailable: {path}: ")
    assert answer.endswith("nothing that was journaled is lost")
    assert look(path, "SELECT max(seq) FROM entries") == [(2,)]
    full.ask("limit_file_size -1")
    assert full.ask("step 100000") == "appended 3"
    assert look(path, "PRAGMA integrity_check") == [("ok",)]


def test_S28_a_full_database_refuses_the_commit_and_loses_nothing(journal: SqliteJournal) -> None:
    scribe = Scribe(journal).start()
    writer = session_of(journal)._writer
    pages = writer.execute("PRAGMA page_count").fetchone()[0]
    writer.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(JournalUnavailable, match="database or disk is full; free some space on that disk"):
        for _ in range(1_000):
            scribe.step()
    seq = scribe.seq
    writer.execute("PRAGMA max_page_count = 1000000")
    scribe.step()
    assert journal.load(scribe.eid).seq == seq + 1


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_S28_a_file_that_was_taken_away_while_it_was_open_is_not_written_to(
    journal: SqliteJournal, path: Path, how: str
) -> None:
    scribe = Scribe(journal).start()
    path.rename(path.with_suffix(".moved"))
    if how == "replaced":
        path.touch()
    with pytest.raises(JournalUnavailable, match="was removed or replaced while it was open: put it back"):
        scribe.step()
    with pytest.raises(JournalUnavailable, match=r"journal\.db"):
        journal.search()
    assert path.exists() == (how == "replaced"), "no empty journal may take its place"
    path.with_suffix(".moved").rename(path)
    scribe.step()


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        ("postgresql://localhost/saga", "names no journal: write memory://, sqlite:///relative/path.db or sqlite:////"),
        ("saga.db", "names no journal"),
        ("", "names no journal"),
        ("sqlite://saga.db", "write sqlite:///relative/path.db or, with four slashes, sqlite:////absolute/path.db"),
        ("sqlite://", "with four slashes"),
        ("sqlite:///", "names no file"),
        ("sqlite:///:memory:", "memory:// for no file"),
        ("sqlite:///saga.db?mode=ro", "takes no options"),
        ("memory://name", "write memory://"),
    ],
)
def test_S28_a_bad_url_is_refused_with_what_to_write(bad: str, text: str) -> None:
    with pytest.raises(BadJournalURL) as caught:
        open_journal(bad)
    assert text in str(caught.value)
    assert repr(bad) in str(caught.value)


def test_a_relative_url_is_resolved_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    journal = open_journal("sqlite:///my%20saga's #1.db".replace(" #1", ""))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    Scribe(journal).start()
    assert journal.search()[0].saga_id == "s-1"
    journal.close()
    assert (tmp_path / "my%20saga's.db").is_file()


def test_a_lease_that_one_late_heartbeat_would_lose_is_refused(url: str) -> None:
    with pytest.raises(JournalError, match="lease_s=10 must be more than twice heartbeat_s=5"):
        open_journal(url, lease_s=10.0, heartbeat_s=5.0)


MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /srv/net rw shared:7 master:2 - nfs4 server:/export rw
31 30 8:2 / /srv/net/local rw - xfs /dev/sdb1 rw
32 22 0:41 / /srv/with\\040space rw - cifs //server/share rw
33 22 0:42 / /srv/twice rw - ext4 /dev/sdc rw
34 22 0:43 / /srv/twice rw - fuse.sshfs host:/ rw
"""


@pytest.mark.parametrize(
    ("place", "file_system"),
    [
        ("/home/saga.db", "ext4"),
        ("/srv/net/saga.db", "nfs4"),
        ("/srv/network/saga.db", "ext4"),
        ("/srv/net/local/deep/saga.db", "xfs"),
        ("/srv/with space/saga.db", "cifs"),
        ("/srv/twice/saga.db", "fuse.sshfs"),
    ],
)
def test_J06_a_network_file_system_is_refused(tmp_path: Path, place: str, file_system: str) -> None:
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(MOUNTS)
    assert sqlite_file.file_system_of(Path(place), MOUNTS) == file_system
    if file_system in ("ext4", "xfs"):
        sqlite_file.refuse_unsafe_file_system(Path(place), mountinfo)
        return
    with pytest.raises(UnsafeFileSystem, match=f"{place} lies on {file_system}, .* put it on a local disk"):
        sqlite_file.refuse_unsafe_file_system(Path(place), mountinfo)


def test_J06_without_a_list_of_mounts_nothing_is_refused(tmp_path: Path) -> None:
    sqlite_file.refuse_unsafe_file_system(tmp_path / "saga.db", tmp_path / "missing")


def test_two_journals_of_one_process_share_a_file(open_at: Callable[..., SqliteJournal]) -> None:
    first, second = open_at(), open_at()
    scribe = Scribe(first).start()
    assert second.is_held(header_of(second, "s-1"))
    first.close()
    assert not second.is_held(header_of(second, "s-1"))
    other = Scribe(second, drive="d-2")
    other.eid, other.epoch, other.seq = scribe.eid, scribe.epoch, scribe.seq
    assert isinstance(other.take().write(other.next()), Committed)


def test_J03_an_epoch_seen_before_somebody_else_took_over_takes_nothing(
    open_at: Callable[..., SqliteJournal],
) -> None:
    first, second = open_at(), open_at()
    scribe = Scribe(first).start().release()
    mine, theirs = scribe.taking("d-2"), Scribe(second, drive="d-3")
    theirs.eid, theirs.epoch, theirs.seq = scribe.eid, scribe.epoch, scribe.seq
    theirs.take()
    assert first.is_held(header_of(first, "s-1")), "the heartbeat of the taker came with its commit"
    with pytest.raises(LeaseLost):
        mine.take()


def test_close_ends_every_thread(url: str) -> None:
    before = set(threading.enumerate())
    journal = open_journal(url)
    journal.submit(Scribe(journal).opening(), lambda outcome: None)
    Scribe(journal, "s-2").start()
    started = {thread.name for thread in set(threading.enumerate()) - before}
    assert started == {"saga-journal-writer", "saga-journal-heartbeat"}
    journal.close()
    assert set(threading.enumerate()) == before
