"""The processes that hold leases of an SQLite journal: their heartbeats, and which of them are dead."""

from __future__ import annotations

from typing import Any

from msgspec.structs import asdict

from saga_engine.journals.process import Liveness, Owner, ProcessIdentity, boot_clock_s, judge
from saga_engine.journals.sqlite_queries import queries
from saga_engine.journals.sqlite_session import SqliteSession, Transaction

__all__ = ["dead_processes", "is_live", "write_beat"]


def write_beat(to: Transaction, me: ProcessIdentity, lease_s: float, now_s: float) -> None:
    """Say that this process lives, and forget dead ones that hold nothing: the table must stay small."""
    to.execute(queries["beat"], {**asdict(me), "lease_s": lease_s, "beat_s": now_s})
    for owner in _owners(to.execute(queries["processes"]).fetchall(), me):
        if _is_dead(to, owner, me):
            to.execute(queries["forget_process"], {"process": owner.identity.id})
    to.execute(queries["forget_observations"])


def is_live(session: SqliteSession, process: str) -> bool:
    """Tell whether the process of that id lives, as far as can be known here and now."""
    parameters = {"id": process}
    rows = session.read(lambda connection: connection.execute(queries["process_of_id"], parameters).fetchall())
    return bool(rows) and process not in _dead(session, _owners(rows, session.process))


def dead_processes(session: SqliteSession) -> list[str]:
    """Give the ids of the processes that are dead, as far as can be known here and now."""
    rows = session.read(lambda connection: connection.execute(queries["processes"]).fetchall())
    return _dead(session, _owners(rows, session.process))


def _owners(rows: list[tuple[Any, ...]], me: ProcessIdentity) -> list[Owner]:
    """Give the processes other than this one."""
    return [Owner(ProcessIdentity(*row[:6]), *row[6:]) for row in rows if row[0] != me.id]


def _dead(session: SqliteSession, owners: list[Owner]) -> list[str]:
    """Sort out the dead; only what must be watched needs a transaction, since it is noted durably."""
    me, now_s = session.process, boot_clock_s()
    liveness = {owner.identity.id: judge(owner, me, now_s) for owner in owners}
    if Liveness.WATCH in liveness.values():
        watched: list[str] = session.commits.run(lambda to: [o.identity.id for o in owners if _is_dead(to, o, me)])
        return watched
    return [process for process, found in liveness.items() if found is Liveness.DEAD]


def _is_dead(to: Transaction, owner: Owner, me: ProcessIdentity) -> bool:
    """Judge the owner; one whose clock is not ours is dead once its heartbeat was the same for a whole lease."""
    now_s = boot_clock_s()
    found = judge(owner, me, now_s)
    if found is not Liveness.WATCH:
        return found is Liveness.DEAD
    parameters = {
        "process": owner.identity.id,
        "observer_boot_id": me.boot_id,
        "beat_s": owner.beat_s,
        "now_s": now_s,
    }
    to.execute(queries["observe"], parameters)
    seen_s: float = to.execute(queries["observed"], parameters).fetchone()[0]
    return now_s - seen_s > owner.lease_s
