-- The archive: which objects in the bucket hold what, who is archiving what, and what in the bucket is in nobody's catalog.
--
-- The catalog (tidemill.objects) is the only truth about the bucket. A row is written last, in the transaction that makes
-- its segment `archived`, after the object was put and read back. Before an object is put it is noted in loose_objects,
-- in the same way it is noted when it leaves the catalog; the sweep deletes what is noted there for long enough, and
-- nothing else. So every object is in one of the two, and nobody else's object is ever touched.

-- Which database a bucket belongs to: its id is written into the bucket, so that two do not share one by mistake.
CREATE TABLE tidemill.installation (
    id   uuid NOT NULL DEFAULT gen_random_uuid(),
    one  boolean NOT NULL DEFAULT true CONSTRAINT installation_pk PRIMARY KEY CONSTRAINT installation_one CHECK (one)
);
INSERT INTO tidemill.installation DEFAULT VALUES;

-- Objects, by the offsets they hold. The objects of a segment's partition follow each other without a gap.
CREATE TABLE tidemill.objects (
    object_id    bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT objects_pk PRIMARY KEY,
    topic_id     int NOT NULL CONSTRAINT objects_topic REFERENCES tidemill.topics ON DELETE CASCADE,
    segment_id   bigint NOT NULL CONSTRAINT objects_segment REFERENCES tidemill.segments ON DELETE CASCADE,
    partition    int NOT NULL,
    first_offset bigint NOT NULL,
    next_offset  bigint NOT NULL,
    records      bigint NOT NULL,
    -- In the bucket: archive/<topic>/date=YYYY-MM-DD/<partition>-<first>-<last>-<hash>.parquet, the day of the segment's
    -- lower bound in UTC.
    path         text NOT NULL CONSTRAINT objects_path_unique UNIQUE,
    bytes        bigint NOT NULL,
    sha256       text NOT NULL,
    -- What these records took in Postgres: their share of the segment's table, indexes and TOAST.
    hot_bytes    bigint NOT NULL,
    -- The earliest and the latest timestamp of a record.
    first_ts     timestamptz NOT NULL,
    last_ts      timestamptz NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT objects_dense CHECK (first_offset < next_offset AND records = next_offset - first_offset),
    CONSTRAINT objects_offsets_unique UNIQUE (topic_id, partition, first_offset)
);
CREATE INDEX objects_by_segment ON tidemill.objects (segment_id);

-- Objects that may be in the bucket and are in no catalog row: about to be put (`put`), or taken out of it (`gone`).
CREATE TABLE tidemill.loose_objects (
    path      text NOT NULL CONSTRAINT loose_objects_pk PRIMARY KEY,
    reason    text NOT NULL CONSTRAINT loose_objects_reason_known CHECK (reason IN ('put', 'gone')),
    since     timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- The sweep has begun to delete it: it can no longer be put or catalogued.
    doomed_at timestamptz
);
CREATE INDEX loose_objects_by_age ON tidemill.loose_objects (since);

CREATE FUNCTION tidemill.object_gone() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    INSERT INTO tidemill.loose_objects (path, reason) VALUES (OLD.path, 'gone')
    ON CONFLICT ON CONSTRAINT loose_objects_pk DO UPDATE SET reason = 'gone', since = clock_timestamp();
    RETURN OLD;
END $$;

-- Also when a topic is deleted and its rows go with it.
CREATE TRIGGER object_gone AFTER DELETE ON tidemill.objects FOR EACH ROW EXECUTE FUNCTION tidemill.object_gone();

-- Who archives a segment, under an epoch that each claim raises and the last transaction checks.
ALTER TABLE tidemill.segments
    ADD COLUMN archive_epoch bigint NOT NULL DEFAULT 0,
    ADD COLUMN archive_owner text,
    ADD COLUMN archive_until timestamptz,
    -- What went wrong last, until it goes well.
    ADD COLUMN archive_error text;

-- Groups for which rows stay in Postgres beyond `hot_retention`, up to so many bytes.
ALTER TABLE tidemill.topics
    ADD COLUMN hold     text[],
    ADD COLUMN hold_max bigint CONSTRAINT topics_hold_max_positive CHECK (hold_max > 0);

-- Takes the right to archive one segment; the oldest that is free, of any topic. No row: there is nothing to do.
CREATE FUNCTION tidemill.claim_segment(p_owner text, p_ttl interval) RETURNS TABLE (
    segment_id bigint, topic_id int, topic text, lower timestamptz, table_name text, epoch bigint
)
LANGUAGE sql
AS $$
    UPDATE tidemill.segments s
       SET archive_epoch = s.archive_epoch + 1, archive_owner = p_owner, archive_until = clock_timestamp() + p_ttl
      FROM tidemill.topics t
     WHERE t.topic_id = s.topic_id
       AND s.segment_id = (
           SELECT c.segment_id FROM tidemill.segments c JOIN tidemill.topics ct ON ct.topic_id = c.topic_id
            WHERE c.state = 'sealed' AND ct.archive AND (c.archive_until IS NULL OR c.archive_until < clock_timestamp()
                                                         OR c.archive_owner = p_owner)
            ORDER BY c.lower LIMIT 1
              FOR UPDATE OF c SKIP LOCKED)
    RETURNING s.segment_id, s.topic_id, t.name, s.lower, s.table_name, s.archive_epoch
$$;

-- A page of a sealed segment's rows, in order. Read in statements of their own, never in one long snapshot.
CREATE FUNCTION tidemill.segment_page(p_table text, p_partition int, p_from bigint, p_bytes bigint)
RETURNS TABLE (base_offset bigint, appended_at timestamptz, timestamps bigint[], keys bytea[], headers jsonb[], payloads bytea[])
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN QUERY EXECUTE format(
        'WITH near AS (
             SELECT b.base_offset, b.bytes, b.ts, b.timestamps, b.keys, b.headers, b.payloads,
                    sum(b.bytes) OVER (ORDER BY b.base_offset) AS size
               FROM (SELECT * FROM log.%I r WHERE r.partition = $1 AND r.base_offset >= $2
                      ORDER BY r.base_offset LIMIT 4096) b
         )
         SELECT n.base_offset, n.ts, n.timestamps, n.keys, n.headers, n.payloads
           FROM near n WHERE n.base_offset = $2 OR n.size <= $3 ORDER BY n.base_offset', p_table)
    USING p_partition, p_from, p_bytes;
END $$;

-- How many of the oldest segments of a topic are held: those whose hot retention is over but which a group of `hold` has
-- not passed, as far as they fit in hold_max. A group that never read the topic holds nothing.
CREATE FUNCTION tidemill.held_from(p_topic_id int) RETURNS timestamptz
LANGUAGE sql STABLE
AS $$
    WITH due AS (
        SELECT s.segment_id, s.lower,
               sum(pg_total_relation_size(to_regclass(format('log.%I', s.table_name)))) OVER (ORDER BY s.lower DESC) AS size,
               t.hold_max, t.hold
          FROM tidemill.segments s JOIN tidemill.topics t USING (topic_id)
         WHERE s.topic_id = p_topic_id AND t.hold IS NOT NULL AND s.state IN ('sealed', 'archived')
           AND s.upper < clock_timestamp() - t.hot_retention
    )
    SELECT min(d.lower) FROM due d
     WHERE (d.hold_max IS NULL OR d.size <= d.hold_max)
       AND EXISTS (SELECT 1 FROM tidemill.segment_ranges r
                     JOIN tidemill.consumer_offsets o ON o.topic_id = p_topic_id AND o.partition = r.partition
                    WHERE r.segment_id = d.segment_id AND o.group_name = ANY (d.hold) AND o.next_offset < r.next_offset)
$$;

-- As before (0001), and a held segment stays, with all that follow it.
CREATE OR REPLACE FUNCTION tidemill.expire_segments(p_topic_id int) RETURNS int
LANGUAGE plpgsql
SET lock_timeout = '200ms'
AS $$
DECLARE
    v_topic   tidemill.topics;
    v_segment tidemill.segments;
    v_held    timestamptz := tidemill.held_from(p_topic_id);
    v_expired int := 0;
BEGIN
    SELECT * INTO v_topic FROM tidemill.topics t WHERE t.topic_id = p_topic_id;
    FOR v_segment IN
        SELECT * FROM tidemill.segments s
         WHERE s.topic_id = p_topic_id AND s.state NOT IN ('dropping', 'dropped') ORDER BY s.lower FOR UPDATE
    LOOP
        EXIT WHEN (v_segment.upper >= clock_timestamp() - v_topic.hot_retention) IS NOT FALSE
               OR v_segment.lower >= v_held
               OR NOT (v_segment.state = 'archived' OR (v_segment.state = 'sealed' AND NOT v_topic.archive));
        UPDATE tidemill.log_start l SET start_offset = greatest(l.start_offset, r.next_offset)
          FROM tidemill.segment_ranges r
         WHERE r.segment_id = v_segment.segment_id AND l.topic_id = p_topic_id AND l.partition = r.partition;
        UPDATE tidemill.segments s SET state = 'dropping', dropping_at = clock_timestamp()
         WHERE s.segment_id = v_segment.segment_id;
        v_expired := v_expired + 1;
    END LOOP;
    RETURN v_expired;
END $$;

-- Takes objects out of the catalog whose `cold` retention is over; how many. Readers that have read the catalog before
-- still find them in the bucket for a while. What is still in Postgres stays in the catalog.
CREATE FUNCTION tidemill.expire_objects() RETURNS bigint
LANGUAGE sql
AS $$
    WITH gone AS (
        DELETE FROM tidemill.objects o USING tidemill.segments s, tidemill.topics t
         WHERE s.segment_id = o.segment_id AND t.topic_id = o.topic_id AND s.state = 'dropped'
           AND s.upper < clock_timestamp() - t.cold_retention
        RETURNING 1)
    SELECT count(*) FROM gone
$$;

-- What of a topic is in the bucket.
CREATE FUNCTION tidemill.cold_size(p_topic_id int, OUT objects bigint, OUT records bigint, OUT bytes bigint, OUT hot_bytes bigint)
LANGUAGE sql STABLE
AS $$
    SELECT count(*), coalesce(sum(o.records), 0)::bigint, coalesce(sum(o.bytes), 0)::bigint, coalesce(sum(o.hot_bytes), 0)::bigint
      FROM tidemill.objects o WHERE o.topic_id = p_topic_id
$$;

-- As before (0002), and where what is in Postgres starts: a group that stands before it cannot read on.
CREATE OR REPLACE VIEW tidemill.lag AS
SELECT o.group_name, t.name AS topic, o.partition, o.next_offset, c.next_offset AS end_offset,
       c.next_offset - o.next_offset AS lag,
       CASE WHEN o.expires_at > clock_timestamp() THEN o.owner END AS owner, o.epoch, o.stage, o.digest, o.updated_at,
       l.start_offset
  FROM tidemill.consumer_offsets o
  JOIN tidemill.topics t USING (topic_id)
  JOIN tidemill.log_counter c USING (topic_id, partition)
  JOIN tidemill.log_start l USING (topic_id, partition);
