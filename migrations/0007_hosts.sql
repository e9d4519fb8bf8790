-- Several hosts on one database: who is there, and what each of them can run.
--
-- Hosts work out their shares for themselves, all from the same rows, so nobody decides for the others and nobody has to be
-- asked. Two hosts that see different rows for a moment may disagree; the lease in the offset row decides then.

ALTER TABLE tidemill.hosts
    -- A host that has not been heard of until then counts as gone. On the database's time, like every lease.
    ADD COLUMN expires_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- The stages it runs, as `pipeline/stage`, each with its number of partitions (1 for a producer).
    ADD COLUMN stages jsonb NOT NULL DEFAULT '{}';
ALTER TABLE tidemill.hosts SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 500);

-- Every live lease.
CREATE VIEW tidemill.leases AS
SELECT o.stage, o.partition, o.owner, o.epoch, o.expires_at
  FROM tidemill.consumer_offsets o WHERE o.owner IS NOT NULL AND o.stage IS NOT NULL AND o.expires_at > clock_timestamp()
UNION ALL
SELECT s.pipeline || '/' || s.stage, 0, s.owner, s.epoch, s.expires_at
  FROM tidemill.sources s WHERE s.owner IS NOT NULL AND s.expires_at > clock_timestamp();

-- A sign of life: renews the host and all leases that it holds.
CREATE FUNCTION tidemill.beat(p_host text, p_version text, p_url text, p_stages jsonb, p_ttl interval) RETURNS void
LANGUAGE sql
AS $$
    UPDATE tidemill.consumer_offsets SET expires_at = clock_timestamp() + p_ttl WHERE owner = p_host;
    UPDATE tidemill.sources SET expires_at = clock_timestamp() + p_ttl WHERE owner = p_host;
    INSERT INTO tidemill.hosts AS h (host_id, version, url, stages, expires_at)
    VALUES (p_host, p_version, p_url, p_stages, clock_timestamp() + p_ttl)
    ON CONFLICT ON CONSTRAINT hosts_pk DO UPDATE
       SET version = excluded.version, url = excluded.url, stages = excluded.stages, seen_at = clock_timestamp(),
           expires_at = excluded.expires_at;
$$;

-- A process that starts holds nothing, whatever the one before it with the same name held.
CREATE FUNCTION tidemill.enter(p_host text, p_version text, p_url text, p_ttl interval) RETURNS void
LANGUAGE sql
AS $$
    UPDATE tidemill.consumer_offsets SET owner = NULL, expires_at = NULL WHERE owner = p_host;
    UPDATE tidemill.sources SET owner = NULL, expires_at = NULL WHERE owner = p_host;
    SELECT tidemill.beat(p_host, p_version, p_url, '{}', p_ttl);
    UPDATE tidemill.hosts SET started_at = clock_timestamp() WHERE host_id = p_host;
$$;
