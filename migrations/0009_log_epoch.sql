-- Log epochs: what tells a log that goes on from one that has lost its end.
--
-- A standby that takes over without the last commits gives their offsets to other records, and so does a server that was
-- restored from a backup. Both are seen from the server itself: it writes on another timeline, or is another cluster. The first
-- append on it, or the first look of a host, then raises the epoch of the partition and writes down where the new one begins.
-- A reader that kept a position under an earlier epoch, and had read past that, is told which offsets are gone.
-- Error code: TM007 read before a fail-over, and gone.

-- The branch of the cluster's history that this server writes. It changes with a promotion, and is refused before one, so no
-- session sees it change: pg_walfile_name counts as immutable, is computed once for each plan, and costs an append nothing.
CREATE FUNCTION tidemill.timeline() RETURNS int
LANGUAGE sql STABLE
AS $$ SELECT ('x' || left(pg_walfile_name('0/1'), 8))::bit(32)::int $$;

-- Which cluster this is. 0 where the server does not tell.
CREATE FUNCTION tidemill.system_identifier() RETURNS bigint
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN (SELECT c.system_identifier FROM pg_control_system() c);
EXCEPTION WHEN insufficient_privilege THEN
    RETURN 0;
END $$;

-- Of the last append, or of the last look.
ALTER TABLE tidemill.log_counter ADD COLUMN timeline int NOT NULL DEFAULT tidemill.timeline();

-- The server that a host looked at last.
ALTER TABLE tidemill.installation
    ADD COLUMN system_identifier bigint NOT NULL DEFAULT tidemill.system_identifier(),
    ADD COLUMN timeline          int NOT NULL DEFAULT tidemill.timeline();

-- Where each epoch after the first begins: from there on offsets were given anew. An epoch is the second in which it was noticed
-- (since 2025): counted, two standbys that take over one after the other and know nothing of each other would give out the same.
CREATE TABLE tidemill.log_epochs (
    topic_id     int NOT NULL CONSTRAINT log_epochs_topic REFERENCES tidemill.topics ON DELETE CASCADE,
    partition    int NOT NULL,
    epoch        int NOT NULL,
    start_offset bigint NOT NULL,
    timeline     int NOT NULL,
    at           timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT log_epochs_pk PRIMARY KEY (topic_id, partition, epoch)
);

-- Begins a new epoch of a partition. The caller holds its counter.
CREATE FUNCTION tidemill.raise_log_epoch(p_topic_id int, p_partition int, p_start bigint) RETURNS int
LANGUAGE plpgsql
AS $$
DECLARE
    v_epoch int;
BEGIN
    UPDATE tidemill.log_counter c SET timeline = tidemill.timeline(),
           log_epoch = greatest(c.log_epoch + 1, extract(epoch FROM clock_timestamp() - timestamptz '2025-01-01 00:00:00+00')::int)
     WHERE c.topic_id = p_topic_id AND c.partition = p_partition RETURNING c.log_epoch INTO STRICT v_epoch;
    INSERT INTO tidemill.log_epochs (topic_id, partition, epoch, start_offset, timeline)
    VALUES (p_topic_id, p_partition, v_epoch, p_start, tidemill.timeline());
    RAISE WARNING 'another server has taken over: partition % of topic "%" goes on from offset % under log epoch %',
        p_partition, (SELECT t.name FROM tidemill.topics t WHERE t.topic_id = p_topic_id), p_start, v_epoch
        USING HINT = 'Records from there on that were read before are gone, and their offsets are given anew.';
    RETURN v_epoch;
END $$;

-- Looks whether the log is on another server than at the last look, and then begins new epochs. Which, comes back.
CREATE FUNCTION tidemill.check_server()
RETURNS TABLE (topic text, partition int, epoch int, start_offset bigint)
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    v_now  tidemill.installation;
    v_row  record;
    v_same boolean;
BEGIN
    SELECT i.* INTO STRICT v_now FROM tidemill.installation i;
    IF v_now.timeline = tidemill.timeline() AND v_now.system_identifier = tidemill.system_identifier() THEN
        RETURN;
    END IF;
    -- One host at a time, and the next finds it done.
    SELECT i.* INTO STRICT v_now FROM tidemill.installation i FOR UPDATE;
    v_same := v_now.system_identifier = tidemill.system_identifier();
    FOR v_row IN
        SELECT t.name, c.* FROM tidemill.log_counter c JOIN tidemill.topics t USING (topic_id)
         WHERE NOT v_same OR c.timeline <> tidemill.timeline() ORDER BY c.topic_id, c.partition FOR UPDATE OF c
    LOOP
        topic := v_row.name;
        partition := v_row.partition;
        start_offset := v_row.next_offset;
        epoch := tidemill.raise_log_epoch(v_row.topic_id, v_row.partition, v_row.next_offset);
        RETURN NEXT;
    END LOOP;
    UPDATE tidemill.installation SET system_identifier = tidemill.system_identifier(), timeline = tidemill.timeline();
END $$;

-- Refuses an offset that somebody kept under an earlier epoch if records before it are gone, and one of an epoch that this
-- server knows nothing of. The detail of the error says what: from, up to, the present epoch, and when that was noticed, in
-- microseconds.
CREATE FUNCTION tidemill.check_place(p_topic_id int, p_partition int, p_offset bigint, p_epoch int) RETURNS void
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    v_now  tidemill.log_epochs;
    v_from bigint;
BEGIN
    SELECT * INTO v_now FROM tidemill.log_epochs e
     WHERE e.topic_id = p_topic_id AND e.partition = p_partition ORDER BY e.epoch DESC LIMIT 1;
    IF p_epoch = 1 OR EXISTS (SELECT FROM tidemill.log_epochs e WHERE e.topic_id = p_topic_id
                                 AND e.partition = p_partition AND e.epoch = p_epoch) THEN
        SELECT min(e.start_offset) INTO v_from FROM tidemill.log_epochs e
         WHERE e.topic_id = p_topic_id AND e.partition = p_partition AND e.epoch > p_epoch AND e.start_offset < p_offset;
    ELSE
        v_from := greatest(0, least(p_offset - 1, v_now.start_offset));
    END IF;
    IF v_from IS NOT NULL THEN
        RAISE EXCEPTION 'offsets % up to % of partition %, read before another server took over at %, are gone',
            v_from, p_offset, p_partition, date_trunc('second', coalesce(v_now.at, now()))
            USING ERRCODE = 'TM007', HINT = 'Other records have these offsets now, or will have them.',
                  DETAIL = format('%s %s %s %s', v_from, p_offset, coalesce(v_now.epoch, 1),
                                  tidemill.micros(coalesce(v_now.at, now())));
    END IF;
END $$;

-- As before (0001), and it notices the first append on another timeline: the answer of the UPDATE says which one the last was on.
-- Appends one batch to one partition and answers where it went. This is the only place that assigns an offset.
-- The counter row's lock is held until the transaction ends, so keep what follows it short, and when appending to several
-- partitions in one transaction go in the order of (topic_id, partition).
CREATE OR REPLACE FUNCTION tidemill.append_batch(
    p_topic_id        int,
    p_partition       int,
    p_payloads        bytea[],
    p_keys            bytea[] DEFAULT NULL,
    p_headers         jsonb[] DEFAULT NULL,
    p_timestamps      bigint[] DEFAULT NULL,
    p_bytes           int DEFAULT NULL,
    p_origin          int DEFAULT NULL,
    p_input_partition int DEFAULT NULL,
    p_input_offset    bigint DEFAULT NULL,
    p_input_index     smallint[] DEFAULT NULL,
    OUT base_offset   bigint,
    OUT appended_at   timestamptz
)
LANGUAGE plpgsql
AS $$
DECLARE
    v_count    int := coalesce(cardinality(p_payloads), 0);
    v_table    text;
    v_upper    timestamptz;
    v_span     interval;
    v_timeline int;
BEGIN
    IF v_count = 0 THEN
        RAISE EXCEPTION 'an append needs at least one message' USING ERRCODE = 'TM005';
    END IF;
    -- clock_timestamp() is read after the lock is granted, so time never runs against offset order.
    UPDATE tidemill.log_counter c
       SET next_offset = c.next_offset + v_count, last_ts = greatest(c.last_ts, clock_timestamp())
     WHERE c.topic_id = p_topic_id AND c.partition = p_partition
    RETURNING c.next_offset - v_count, c.last_ts, c.timeline INTO base_offset, appended_at, v_timeline;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'topic % has no partition %', p_topic_id, p_partition USING ERRCODE = 'TM001';
    END IF;
    IF v_timeline <> tidemill.timeline() THEN
        PERFORM tidemill.raise_log_epoch(p_topic_id, p_partition, base_offset);
    END IF;
    -- The last segment that begins before: with a thousand segments a search by both bounds would read half of them.
    SELECT s.table_name, s.upper INTO v_table, v_upper FROM tidemill.segments s
     WHERE s.topic_id = p_topic_id AND s.lower <= appended_at ORDER BY s.lower DESC LIMIT 1;
    IF v_upper IS NULL OR v_upper <= appended_at THEN
        SELECT t.segment_span INTO v_span FROM tidemill.topics t WHERE t.topic_id = p_topic_id;
        PERFORM tidemill.ensure_segments(p_topic_id, appended_at, appended_at + v_span);
        SELECT s.table_name INTO STRICT v_table FROM tidemill.segments s
         WHERE s.topic_id = p_topic_id AND s.lower <= appended_at ORDER BY s.lower DESC LIMIT 1;
    END IF;
    -- Named, not through the parent: 20 us of planning, and no lock on the parent for DDL to wait for.
    EXECUTE format(
        'INSERT INTO log.%I (ts, base_offset, partition, record_count, bytes, origin, input_offset, input_partition,
                             input_index, timestamps, keys, headers, payloads)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)', v_table)
    USING appended_at, base_offset, p_partition, v_count,
          coalesce(p_bytes, (SELECT sum(length(m.p) + coalesce(length(m.k), 0) + coalesce(length(m.h::text), 0))
                               FROM unnest(p_payloads, p_keys, p_headers) m(p, k, h))::int),
          p_origin, p_input_offset, p_input_partition, p_input_index, p_timestamps, p_keys, p_headers, p_payloads;
END $$;

DROP FUNCTION tidemill.fetch_batches(int, int, bigint, int, bigint);
-- As before (0001), and says with each batch under which log epoch it was read.
-- Batches of one partition that overlap p_from and follow it, from one segment: the next call goes on in the next. The
-- child table is named, never the parent, because planning over a thousand segments takes 100 ms.
-- At least one batch is returned when there is one, however large.
CREATE FUNCTION tidemill.fetch_batches(
    p_topic_id int, p_partition int, p_from bigint, p_max_records int DEFAULT 1000, p_max_bytes bigint DEFAULT 4194304
) RETURNS TABLE (base_offset bigint, record_count int, appended_at timestamptz, timestamps bigint[], keys bytea[],
                 headers jsonb[], payloads bytea[], log_epoch int)
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    v_end     bigint;
    v_last    timestamptz;
    v_start   bigint;
    v_epoch   int;
    v_segment record;
BEGIN
    SELECT c.next_offset, c.last_ts, s.start_offset, c.log_epoch INTO v_end, v_last, v_start, v_epoch
      FROM tidemill.log_counter c JOIN tidemill.log_start s USING (topic_id, partition)
     WHERE c.topic_id = p_topic_id AND c.partition = p_partition;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'topic % has no partition %', p_topic_id, p_partition USING ERRCODE = 'TM001';
    END IF;
    IF p_from < v_start OR p_from > v_end THEN
        RAISE EXCEPTION 'offset % of partition % is out of range: the log holds % up to %', p_from, p_partition, v_start, v_end
            USING ERRCODE = 'TM002', HINT = 'Seek to earliest or latest.', DETAIL = format('%s %s', v_start, v_end);
    END IF;
    IF p_from = v_end THEN
        RETURN;
    END IF;
    FOR v_segment IN
        SELECT s.table_name
          FROM tidemill.segments s
          LEFT JOIN tidemill.segment_ranges r ON r.segment_id = s.segment_id AND r.partition = p_partition
         WHERE s.topic_id = p_topic_id AND s.state <> 'dropped' AND s.lower <= v_last
           AND (s.state = 'open' OR r.next_offset > p_from)
         ORDER BY s.lower
    LOOP
        RETURN QUERY EXECUTE format(
            'WITH first AS MATERIALIZED (
                 SELECT b.base_offset, b.record_count FROM log.%1$I b
                  WHERE b.partition = $1 AND b.base_offset <= $2 ORDER BY b.base_offset DESC LIMIT 1
             ), near AS (
                 SELECT b.base_offset, b.record_count, b.bytes, b.ts, b.timestamps, b.keys, b.headers, b.payloads
                   FROM log.%1$I b
                  WHERE b.partition = $1
                    AND b.base_offset >= coalesce((SELECT f.base_offset FROM first f), $2)
                    AND b.base_offset + b.record_count > $2
                  ORDER BY b.base_offset
                  -- Not many more rows than it takes if they are all as large as the first.
                  LIMIT coalesce((SELECT least(512, $3 / f.record_count + 2) FROM first f), 512)
             ), counted AS (
                 SELECT n.*, sum(n.record_count) OVER w AS records, sum(n.bytes) OVER w AS size,
                        row_number() OVER w AS place
                   FROM near n WINDOW w AS (ORDER BY n.base_offset)
             )
             SELECT c.base_offset, c.record_count, c.ts, c.timestamps, c.keys, c.headers, c.payloads, $5
               FROM counted c
              WHERE c.place = 1 OR (c.records <= $3 AND c.size <= $4)
              ORDER BY c.base_offset', v_segment.table_name)
        USING p_partition, p_from, p_max_records, p_max_bytes, v_epoch;
        IF FOUND THEN
            RETURN;
        END IF;
    END LOOP;
END $$;
