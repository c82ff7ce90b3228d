-- Every query of the SQLite journal, by name. A name stands between two pairs of dashes; parameters are named.
-- Headers end with `e.*`, so that columns that a later release adds behind the known ones do no harm.

-- open_execution --
-- Start an execution; no row is changed if one of that id and generation is there already.
INSERT INTO executions (
    saga_id, generation, saga, status, epoch, in_flight, drive, process, due_at, told, response, created_at,
    updated_at, holds, awaits
) VALUES (
    :saga_id, :generation, :saga, :status, 1, :in_flight, :drive, :process, :due_at, :told, :response, :at,
    :at, :holds, :awaits
)
ON CONFLICT (saga_id, generation) DO NOTHING

-- append_first --
-- The first row of a new execution: it needs no fence, nobody else knows the execution yet.
INSERT INTO entries (eid, seq, version, body) VALUES (:eid, :seq, :version, :body)

-- append_plain --
-- The fence and the inbox check, in the statement that appends: no row is changed if either refuses.
INSERT INTO entries (eid, seq, version, body)
SELECT :eid, :seq, :version, :body
WHERE EXISTS (SELECT 1 FROM executions WHERE eid = :eid AND epoch = :epoch AND drive = :drive)
  AND NOT EXISTS (SELECT 1 FROM inbox WHERE eid = :eid)

-- append_entries --
-- The same for a commit that also takes the lease, drains mail, or takes an exclusive right, which nobody else may
-- have then. `drained` holds the drained ids, each between commas.
INSERT INTO entries (eid, seq, version, body)
SELECT :eid, :seq, :version, :body
WHERE EXISTS (
    SELECT 1 FROM executions
    WHERE eid = :eid AND epoch = :epoch AND (drive = :drive OR (:take AND is_purged = 0))
  )
  AND NOT EXISTS (SELECT 1 FROM inbox WHERE eid = :eid AND instr(:drained, ',' || id || ',') = 0)
  AND NOT EXISTS (SELECT 1 FROM executions WHERE holds = :exclusive AND eid <> :eid)

-- is_fence_open --
-- Whether the drive holds the execution, or may take it, and the row of that number is not there yet.
SELECT 1 FROM executions
WHERE eid = :eid AND epoch = :epoch AND (drive = :drive OR (:take AND is_purged = 0))
  AND NOT EXISTS (SELECT 1 FROM entries WHERE eid = :eid AND seq = :seq)

-- holder_of_right --
SELECT eid, saga_id, generation FROM executions WHERE holds = :exclusive

-- take --
UPDATE executions
SET epoch = epoch + 1, in_flight = 1, drive = :drive, process = :process, status = :status, due_at = NULL,
    told = NULL, updated_at = :at, holds = coalesce(:exclusive, holds), awaits = NULL
WHERE eid = :eid

-- release --
-- Whoever ends keeps no right, whatever the commit says.
UPDATE executions
SET epoch = epoch + :take, in_flight = 0, drive = NULL, process = NULL, status = :status, due_at = :due_at,
    told = :told, response = :response, updated_at = :at, awaits = :awaits,
    holds = CASE WHEN :is_ended THEN NULL ELSE nullif(coalesce(:exclusive, holds), :frees) END
WHERE eid = :eid

-- wake_first --
-- If nobody holds the right any more: of those that wait for it, the one that waits longest becomes due. One that is
-- due anyway is passed over, since it may be one that cannot go on.
UPDATE executions SET due_at = :at
WHERE eid = (
    SELECT eid FROM executions
    WHERE awaits = :frees AND (due_at IS NULL OR due_at > :at)
    ORDER BY eid
    LIMIT 1
  )
  AND NOT EXISTS (SELECT 1 FROM executions WHERE holds = :frees)

-- wake_if_free --
-- The right was freed after this execution was refused it, and before it began to wait.
UPDATE executions SET due_at = :at
WHERE eid = :eid AND (due_at IS NULL OR due_at > :at) AND NOT EXISTS (SELECT 1 FROM executions WHERE holds = :awaits)

-- turn_back --
-- The one status that changes in the middle of a drive: operators want to see that an execution is being undone.
UPDATE executions SET status = :status, updated_at = :at WHERE eid = :eid AND status <> :status

-- abandon --
-- The execution stays in flight, held by nobody: whoever comes next takes it over.
UPDATE executions SET drive = NULL, process = NULL WHERE eid = :eid AND epoch = :epoch

-- abandon_all --
UPDATE executions SET drive = NULL, process = NULL WHERE process = :process AND in_flight = 1

-- header_of_generation --
SELECT p.host, p.pid, s.reason, e.*
FROM executions e
LEFT JOIN processes p ON p.id = e.process
LEFT JOIN stuck s ON s.eid = e.eid
WHERE e.saga_id = :saga_id AND e.generation = :generation

-- header_of_latest --
SELECT p.host, p.pid, s.reason, e.*
FROM executions e
LEFT JOIN processes p ON p.id = e.process
LEFT JOIN stuck s ON s.eid = e.eid
WHERE e.saga_id = :saga_id
ORDER BY e.generation DESC
LIMIT 1

-- header_of_eid --
SELECT p.host, p.pid, s.reason, e.*
FROM executions e
LEFT JOIN processes p ON p.id = e.process
LEFT JOIN stuck s ON s.eid = e.eid
WHERE e.eid = :eid

-- execution_of_generation --
SELECT 1 FROM executions WHERE saga_id = :saga_id AND generation = :generation

-- is_purged --
SELECT is_purged FROM executions WHERE eid = :eid

-- rows_of_execution --
SELECT seq, version, body FROM entries WHERE eid = :eid ORDER BY seq

-- inbox_of_execution --
SELECT id, version, body FROM inbox WHERE eid = :eid ORDER BY id

-- put_message --
INSERT INTO inbox (eid, version, body)
SELECT :eid, :version, :body
WHERE EXISTS (SELECT 1 FROM executions WHERE eid = :eid AND is_purged = 0)

-- delete_message --
DELETE FROM inbox WHERE id = :id AND eid = :eid

-- search --
SELECT p.host, p.pid, s.reason, e.*
FROM executions e
LEFT JOIN processes p ON p.id = e.process
LEFT JOIN stuck s ON s.eid = e.eid
WHERE e.eid < :before AND (:status IS NULL OR e.status = :status) AND (:saga IS NULL OR e.saga = :saga)
ORDER BY e.eid DESC
LIMIT :limit

-- search_not_completed --
-- For any status but COMPLETED; the condition that repeats this lets SQLite use the partial index.
SELECT p.host, p.pid, s.reason, e.*
FROM executions e
LEFT JOIN processes p ON p.id = e.process
LEFT JOIN stuck s ON s.eid = e.eid
WHERE e.eid < :before AND e.status = :status AND e.status <> 'COMPLETED' AND (:saga IS NULL OR e.saga = :saga)
ORDER BY e.eid DESC
LIMIT :limit

-- search_stuck --
SELECT p.host, p.pid, s.reason, e.*
FROM stuck s
JOIN executions e ON e.eid = s.eid
LEFT JOIN processes p ON p.id = e.process
WHERE s.eid < :before AND (:status IS NULL OR e.status = :status) AND (:saga IS NULL OR e.saga = :saga)
ORDER BY s.eid DESC
LIMIT :limit

-- left_by_process --
-- In flight, and held by this process; by nobody if `process` is NULL.
SELECT eid FROM executions
WHERE in_flight = 1 AND process IS :process AND eid > :after
  AND NOT EXISTS (SELECT 1 FROM stuck s WHERE s.eid = executions.eid AND s.noted_at >= :stuck_before)
ORDER BY eid
LIMIT :limit

-- due --
-- Taking the lease clears `due_at`, so nothing here is in flight. SQLite would rather walk through all executions,
-- which saves it the sorting of the few that are due.
SELECT eid FROM executions INDEXED BY executions_due
WHERE due_at <= :now AND due_at IS NOT NULL AND eid > :after
  AND NOT EXISTS (SELECT 1 FROM stuck s WHERE s.eid = executions.eid AND s.noted_at >= :stuck_before)
ORDER BY eid
LIMIT :limit

-- with_mail --
-- Nobody holds it, and somebody left a message; it may have ended.
SELECT DISTINCT i.eid FROM inbox i
JOIN executions e ON e.eid = i.eid
WHERE i.eid > :after AND e.in_flight = 0
  AND NOT EXISTS (SELECT 1 FROM stuck s WHERE s.eid = e.eid AND s.noted_at >= :stuck_before)
ORDER BY i.eid
LIMIT :limit

-- next_due --
SELECT due_at FROM executions WHERE due_at > :after ORDER BY due_at LIMIT 1

-- purge --
-- A trigger removes what hangs on the header. The condition is that of the index, which holds no tombstones.
UPDATE executions SET is_purged = 1, told = NULL
WHERE eid IN (
    SELECT eid FROM executions INDEXED BY executions_ended
    WHERE in_flight = 0 AND is_purged = 0 AND status IN ('COMPLETED', 'COMPENSATED', 'SKIPPED', 'CANCELLED')
      AND updated_at < :before AND NOT EXISTS (SELECT 1 FROM inbox i WHERE i.eid = executions.eid)
    ORDER BY updated_at, eid
    LIMIT :limit
)

-- note_stuck --
-- Only while the execution is as the one who notes it saw it.
INSERT INTO stuck (eid, reason, noted_at)
SELECT :eid, :reason, :at
WHERE EXISTS (SELECT 1 FROM executions WHERE eid = :eid AND epoch = :epoch AND is_purged = 0)
ON CONFLICT (eid) DO UPDATE SET reason = excluded.reason, noted_at = excluded.noted_at

-- clear_stuck --
DELETE FROM stuck WHERE eid = :eid

-- beat --
INSERT INTO processes (id, host, boot_id, pid_namespace, pid, started, lease_s, beat_s)
VALUES (:id, :host, :boot_id, :pid_namespace, :pid, :started, :lease_s, :beat_s)
ON CONFLICT (id) DO UPDATE SET beat_s = excluded.beat_s

-- processes --
SELECT id, host, boot_id, pid_namespace, pid, started, lease_s, beat_s FROM processes

-- process_of_id --
SELECT id, host, boot_id, pid_namespace, pid, started, lease_s, beat_s FROM processes WHERE id = :id

-- forget_process --
-- Only if it holds nothing: what it holds must still be found by its name.
DELETE FROM processes
WHERE id = :process AND NOT EXISTS (SELECT 1 FROM executions WHERE process = :process AND in_flight = 1)

-- forget_observations --
DELETE FROM observations WHERE process NOT IN (SELECT id FROM processes)

-- observe --
-- Note when this heartbeat was first seen; a note about the same heartbeat stays as it is.
INSERT INTO observations (process, observer_boot_id, beat_s, seen_s)
VALUES (:process, :observer_boot_id, :beat_s, :now_s)
ON CONFLICT (process, observer_boot_id) DO UPDATE SET beat_s = excluded.beat_s, seen_s = excluded.seen_s
WHERE beat_s <> excluded.beat_s

-- observed --
SELECT seen_s FROM observations
WHERE process = :process AND observer_boot_id = :observer_boot_id AND beat_s = :beat_s

-- put_invalidation --
INSERT INTO cache_invalidations (writer, cache, keys) VALUES (:writer, :cache, :keys)

-- trim_invalidations --
-- Numbers have no gaps, so this leaves the newest ones. Whoever has not seen the others by now finds a gap.
DELETE FROM cache_invalidations WHERE id <= :last - :kept_max

-- invalidations --
SELECT id, writer, cache, keys FROM cache_invalidations WHERE id > :after ORDER BY id
