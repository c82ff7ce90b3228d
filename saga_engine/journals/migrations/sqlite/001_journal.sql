-- The journal as of the first release.

CREATE TABLE executions (
    eid        INTEGER PRIMARY KEY,          -- grows with time
    saga_id    TEXT    NOT NULL,
    generation INTEGER NOT NULL,
    saga       TEXT    NOT NULL,
    status     TEXT    NOT NULL,
    epoch      INTEGER NOT NULL,             -- the fence: every taking of the lease raises it by one
    in_flight  INTEGER NOT NULL,             -- 1 from the taking of the lease to its release; a crash leaves it 1
    drive      TEXT,                         -- who holds the lease; NULL: nobody
    process    TEXT,                         -- the process of that drive
    due_at     REAL,                         -- Unix seconds
    told       BLOB,                         -- JSON: what the caller was answered at the last suspension
    response   BLOB,                         -- JSON: the final answer
    created_at REAL    NOT NULL,
    updated_at REAL    NOT NULL,
    UNIQUE (saga_id, generation)
);

-- The indexes below are partial, so that they do not grow with the executions that completed.
CREATE INDEX executions_in_flight ON executions (process, eid) WHERE in_flight = 1;
CREATE INDEX executions_due ON executions (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX executions_status ON executions (status, eid) WHERE status <> 'COMPLETED';

CREATE TABLE entries (
    eid     INTEGER NOT NULL,
    seq     INTEGER NOT NULL,                -- one row per commit, from 1 without a gap
    version INTEGER NOT NULL,
    body    BLOB    NOT NULL,                -- JSON: the array of the commit's entries
    PRIMARY KEY (eid, seq)
) WITHOUT ROWID;

CREATE TABLE inbox (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,  -- never given twice: a drained id must not name a later message
    eid     INTEGER NOT NULL,
    version INTEGER NOT NULL,
    body    BLOB    NOT NULL
);

CREATE INDEX inbox_eid ON inbox (eid);

CREATE TABLE processes (
    id            TEXT    PRIMARY KEY,
    host          TEXT    NOT NULL,
    boot_id       TEXT    NOT NULL,
    pid_namespace TEXT    NOT NULL,
    pid           INTEGER NOT NULL,
    started       TEXT    NOT NULL,          -- tells the process from a later one with the same pid
    lease_s       REAL    NOT NULL,          -- what the process promised: a beat at least this often
    beat_s        REAL    NOT NULL           -- its last heartbeat, by its own boot clock
) WITHOUT ROWID;

-- When an observer, whose clock cannot be compared with the owner's, first saw the owner's last heartbeat.
CREATE TABLE observations (
    process          TEXT NOT NULL,
    observer_boot_id TEXT NOT NULL,
    beat_s           REAL NOT NULL,          -- by the owner's clock
    seen_s           REAL NOT NULL,          -- by the observer's clock
    PRIMARY KEY (process, observer_boot_id)
) WITHOUT ROWID;

CREATE TABLE stuck (
    eid      INTEGER PRIMARY KEY,
    reason   TEXT NOT NULL,
    noted_at REAL NOT NULL                   -- Unix seconds
);
