-- Exclusive rights, and headers that outlive their entries.

-- The exclusive right that the execution has, one at most; a crash leaves it, only a release gives it back.
ALTER TABLE executions ADD COLUMN holds TEXT;
-- The exclusive right that it waits for; the next taking of the lease ends that.
ALTER TABLE executions ADD COLUMN awaits TEXT;
-- 1: a tombstone; its entries were purged.
ALTER TABLE executions ADD COLUMN is_purged INTEGER NOT NULL DEFAULT 0;

CREATE UNIQUE INDEX executions_holds ON executions (holds) WHERE holds IS NOT NULL;
CREATE INDEX executions_awaits ON executions (awaits, eid) WHERE awaits IS NOT NULL;

-- What may be purged, oldest end first. It is written once for each execution that ends, at its right edge.
CREATE INDEX executions_ended ON executions (updated_at)
WHERE in_flight = 0 AND is_purged = 0 AND status IN ('COMPLETED', 'COMPENSATED', 'SKIPPED', 'CANCELLED');

-- No statement but that of the purge names the column, so no other pays for this.
CREATE TRIGGER executions_purged AFTER UPDATE OF is_purged ON executions WHEN NEW.is_purged = 1
BEGIN
    DELETE FROM entries WHERE eid = NEW.eid;
    DELETE FROM stuck WHERE eid = NEW.eid;
END;
