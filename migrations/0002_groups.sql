-- Consumer groups, and the rows that a stage's commit touches: offsets, positions of producers, dead letters, tables.
--
-- A partition of a group is owned through a lease in its own offset row, on the database's time. Taking it over raises the
-- epoch, and every commit names the epoch and the offset it expects: a paused owner that wakes up changes nothing.

CREATE TABLE tidemill.consumer_offsets (
    group_name  text NOT NULL CONSTRAINT consumer_offsets_group_named CHECK (group_name ~ '^[a-z][a-z0-9_-]{0,63}$'),
    topic_id    int NOT NULL CONSTRAINT consumer_offsets_topic REFERENCES tidemill.topics ON DELETE CASCADE,
    partition   int NOT NULL,
    next_offset bigint NOT NULL CONSTRAINT consumer_offsets_not_negative CHECK (next_offset >= 0),
    epoch       bigint NOT NULL DEFAULT 0,
    owner       text,
    expires_at  timestamptz,
    -- The stage and the digest of the plugin that made the last commit.
    stage       text,
    digest      text,
    updated_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT consumer_offsets_pk PRIMARY KEY (group_name, topic_id, partition)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 500);

-- Where producer stages stand. `commits` counts, so that an owner whose connection broke at COMMIT can ask what happened.
CREATE TABLE tidemill.sources (
    pipeline   text NOT NULL,
    stage      text NOT NULL,
    position   bytea,
    commits    bigint NOT NULL DEFAULT 0,
    epoch      bigint NOT NULL DEFAULT 0,
    owner      text,
    expires_at timestamptz,
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT sources_pk PRIMARY KEY (pipeline, stage)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 500);

-- Messages a stage gave up on, whole, written in the commit that moves the offset past them.
CREATE TABLE tidemill.dead_letters (
    dead_letter_id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT dead_letters_pk PRIMARY KEY,
    group_name  text NOT NULL,
    pipeline    text NOT NULL,
    stage       text NOT NULL,
    digest      text NOT NULL,
    topic       text NOT NULL,
    partition   int NOT NULL,
    c_offset    bigint NOT NULL,
    ts          timestamptz NOT NULL,
    key         bytea,
    headers     jsonb,
    payload     bytea NOT NULL,
    kind        text NOT NULL CONSTRAINT dead_letters_kind_known
                CHECK (kind IN ('reject', 'retries', 'trap', 'deadline', 'memory', 'output')),
    error       text NOT NULL,
    attempts    int NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX dead_letters_by_group ON tidemill.dead_letters (group_name, dead_letter_id);

-- Tables that materializers keep. A row of such a table says in _partition and _offset which message changed it last.
CREATE TABLE tidemill.tables (
    table_id    int GENERATED ALWAYS AS IDENTITY CONSTRAINT tables_pk PRIMARY KEY,
    schema_name text NOT NULL,
    table_name  text NOT NULL,
    pipeline    text NOT NULL,
    stage       text NOT NULL,
    group_name  text NOT NULL,
    topic       text NOT NULL,
    columns     jsonb NOT NULL,
    key         text[] NOT NULL,
    newest_by   text,
    created_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT tables_unique UNIQUE (schema_name, table_name)
);

-- Deleted rows, remembered for some minutes, so that a live reader of a table that comes back learns of them.
CREATE TABLE tidemill.tombstones (
    table_id   int NOT NULL CONSTRAINT tombstones_table REFERENCES tidemill.tables ON DELETE CASCADE,
    partition  int NOT NULL,
    c_offset   bigint NOT NULL,
    key        jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX tombstones_by_offset ON tidemill.tombstones (table_id, partition, c_offset);

-- Up to where they have been forgotten: a reader that was away for longer needs a new snapshot.
CREATE TABLE tidemill.tombstone_floors (
    table_id  int NOT NULL CONSTRAINT tombstone_floors_table REFERENCES tidemill.tables ON DELETE CASCADE,
    partition int NOT NULL,
    c_offset  bigint NOT NULL,
    CONSTRAINT tombstone_floors_pk PRIMARY KEY (table_id, partition)
);

CREATE TABLE tidemill.hosts (
    host_id    text NOT NULL CONSTRAINT hosts_pk PRIMARY KEY,
    version    text NOT NULL,
    url        text,
    started_at timestamptz NOT NULL DEFAULT now(),
    seen_at    timestamptz NOT NULL DEFAULT now()
);

-- How far each group is behind, per partition.
CREATE VIEW tidemill.lag AS
SELECT o.group_name, t.name AS topic, o.partition, o.next_offset, c.next_offset AS end_offset,
       c.next_offset - o.next_offset AS lag,
       CASE WHEN o.expires_at > clock_timestamp() THEN o.owner END AS owner, o.epoch, o.stage, o.digest, o.updated_at
  FROM tidemill.consumer_offsets o
  JOIN tidemill.topics t USING (topic_id)
  JOIN tidemill.log_counter c USING (topic_id, partition);

-- The offset of the first batch appended at or after a time; the end of the log if there is none.
CREATE FUNCTION tidemill.offset_at(p_topic_id int, p_partition int, p_at timestamptz) RETURNS bigint
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    v_segment record;
    v_offset  bigint;
    v_end     bigint;
    v_start   bigint;
BEGIN
    SELECT c.next_offset, s.start_offset INTO STRICT v_end, v_start
      FROM tidemill.log_counter c JOIN tidemill.log_start s USING (topic_id, partition)
     WHERE c.topic_id = p_topic_id AND c.partition = p_partition;
    FOR v_segment IN
        SELECT s.table_name FROM tidemill.segments s
         WHERE s.topic_id = p_topic_id AND s.state NOT IN ('dropping', 'dropped') AND s.upper > p_at ORDER BY s.lower
    LOOP
        EXECUTE format('SELECT b.base_offset FROM log.%I b WHERE b.partition = $1 AND b.ts >= $2
                         ORDER BY b.base_offset LIMIT 1', v_segment.table_name)
           INTO v_offset USING p_partition, p_at;
        EXIT WHEN v_offset IS NOT NULL;
    END LOOP;
    RETURN greatest(coalesce(v_offset, v_end), v_start);
END $$;

-- Resolves earliest, latest, an offset or a time to an offset of one partition.
CREATE FUNCTION tidemill.resolve_offset(p_topic_id int, p_partition int, p_to text) RETURNS bigint
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    v_start bigint;
    v_end   bigint;
    v_to    bigint;
BEGIN
    SELECT s.start_offset, c.next_offset INTO v_start, v_end
      FROM tidemill.log_counter c JOIN tidemill.log_start s USING (topic_id, partition)
     WHERE c.topic_id = p_topic_id AND c.partition = p_partition;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'topic % has no partition %', p_topic_id, p_partition USING ERRCODE = 'TM001';
    END IF;
    IF p_to = 'earliest' THEN
        RETURN v_start;
    ELSIF p_to = 'latest' THEN
        RETURN v_end;
    ELSIF p_to ~ '^[0-9]{1,18}$' THEN
        v_to := p_to::bigint;
        IF v_to < v_start OR v_to > v_end THEN
            RAISE EXCEPTION 'offset % of partition % is out of range: the log holds % up to %', v_to, p_partition, v_start, v_end
                USING ERRCODE = 'TM002', HINT = 'Seek to earliest or latest.', DETAIL = format('%s %s', v_start, v_end);
        END IF;
        RETURN v_to;
    END IF;
    RETURN tidemill.offset_at(p_topic_id, p_partition, p_to::timestamptz);
EXCEPTION WHEN invalid_datetime_format OR datetime_field_overflow THEN
    RAISE EXCEPTION '% is neither earliest, latest, an offset nor a time', quote_literal(p_to) USING ERRCODE = 'TM005';
END $$;

-- Makes the rows of a group that are not there yet; where it starts is `start`. Existing offsets are left alone.
CREATE FUNCTION tidemill.join_group(group_name text, topic text, start text DEFAULT 'earliest') RETURNS void
LANGUAGE sql
AS $$
    INSERT INTO tidemill.consumer_offsets (group_name, topic_id, partition, next_offset)
    SELECT join_group.group_name, c.topic_id, c.partition, tidemill.resolve_offset(c.topic_id, c.partition, join_group.start)
      FROM tidemill.log_counter c WHERE c.topic_id = tidemill.topic_id(join_group.topic)
    ON CONFLICT ON CONSTRAINT consumer_offsets_pk DO NOTHING
$$;

-- Takes or renews the lease of one partition. No row: somebody else holds it.
CREATE FUNCTION tidemill.acquire(
    p_group text, p_topic_id int, p_partition int, p_owner text, p_ttl interval, p_stage text
) RETURNS TABLE (next_offset bigint, epoch bigint)
LANGUAGE sql
AS $$
    UPDATE tidemill.consumer_offsets o
       SET owner = p_owner, epoch = o.epoch + 1, expires_at = clock_timestamp() + p_ttl, stage = p_stage
     WHERE o.group_name = p_group AND o.topic_id = p_topic_id AND o.partition = p_partition
       AND (o.owner IS NULL OR o.owner = p_owner OR o.expires_at < clock_timestamp())
    RETURNING o.next_offset, o.epoch
$$;

-- A group takes up to max_records messages and moves past them, in one statement. The rows stay locked until the
-- transaction ends, so each of several workers gets partitions of its own; rolling back gives the messages back.
CREATE FUNCTION tidemill.claim(group_name text, topic text, max_records int DEFAULT 100)
RETURNS TABLE (partition int, c_offset bigint, ts timestamptz, key bytea, headers jsonb, payload bytea)
LANGUAGE plpgsql
AS $$
#variable_conflict use_variable
DECLARE
    v_id     int := tidemill.topic_id(topic);
    v_row    record;
    v_seen   int[] := '{}';
    v_left   int := max_records;
    v_taken  int;
    v_from   bigint;
    v_owner  text;
BEGIN
    IF max_records IS NULL OR max_records < 1 THEN
        RAISE EXCEPTION 'max_records must be at least 1' USING ERRCODE = 'TM005';
    END IF;
    -- Only when there is nothing yet: the rows of a join that is not committed would make other workers wait.
    IF NOT EXISTS (SELECT FROM tidemill.consumer_offsets o WHERE o.group_name = claim.group_name AND o.topic_id = v_id) THEN
        PERFORM tidemill.join_group(group_name, topic);
    END IF;
    SELECT o.owner INTO v_owner FROM tidemill.consumer_offsets o
     WHERE o.group_name = claim.group_name AND o.topic_id = v_id AND o.expires_at > clock_timestamp() LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'group "%" is run by host %', group_name, v_owner
            USING ERRCODE = 'TM006', HINT = 'Use another group name, or stop the pipeline that runs it.';
    END IF;
    WHILE v_left > 0 LOOP
        -- One partition at a time: a FOR loop reads ahead, and would lock partitions that it then leaves alone.
        SELECT o.partition, o.next_offset INTO v_row FROM tidemill.consumer_offsets o
          JOIN tidemill.log_counter c USING (topic_id, partition)
         WHERE o.group_name = claim.group_name AND o.topic_id = v_id AND c.next_offset > o.next_offset
           AND o.partition <> ALL (v_seen)
         ORDER BY c.next_offset - o.next_offset DESC, o.partition LIMIT 1
           FOR UPDATE OF o SKIP LOCKED;
        EXIT WHEN NOT FOUND;
        v_seen := v_seen || v_row.partition;
        v_from := v_row.next_offset;
        LOOP
            v_taken := 0;
            FOR partition, c_offset, ts, key, headers, payload IN
                SELECT f.* FROM tidemill.fetch(topic, v_row.partition, v_from, v_left) f
            LOOP
                v_taken := v_taken + 1;
                RETURN NEXT;
            END LOOP;
            v_from := v_from + v_taken;
            v_left := v_left - v_taken;
            EXIT WHEN v_taken = 0 OR v_left = 0;
        END LOOP;
        UPDATE tidemill.consumer_offsets o SET next_offset = v_from, updated_at = now()
         WHERE o.group_name = claim.group_name AND o.topic_id = v_id AND o.partition = v_row.partition;
    END LOOP;
END $$;

-- Moves a group forward in one partition, for those who fetch by themselves. Going back is what seek is for.
CREATE FUNCTION tidemill.commit(group_name text, topic text, to_partition int, next_offset bigint) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    v_id  int := tidemill.topic_id(topic);
    v_row tidemill.consumer_offsets;
    v_end bigint;
BEGIN
    PERFORM tidemill.join_group(commit.group_name, commit.topic);
    SELECT * INTO v_row FROM tidemill.consumer_offsets o
     WHERE o.group_name = commit.group_name AND o.topic_id = v_id AND o.partition = to_partition FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'topic "%" has no partition %', commit.topic, to_partition USING ERRCODE = 'TM001';
    END IF;
    SELECT c.next_offset INTO v_end FROM tidemill.log_counter c WHERE c.topic_id = v_id AND c.partition = to_partition;
    IF v_row.expires_at > clock_timestamp() THEN
        RAISE EXCEPTION 'group "%" is run by host %', commit.group_name, v_row.owner
            USING ERRCODE = 'TM006', HINT = 'Use another group name, or stop the pipeline that runs it.';
    END IF;
    IF commit.next_offset < v_row.next_offset OR commit.next_offset > v_end THEN
        RAISE EXCEPTION 'cannot commit offset % of partition %: the group stands at %, the log ends at %',
            commit.next_offset, to_partition, v_row.next_offset, v_end
            USING ERRCODE = 'TM002', HINT = 'tidemill.seek moves a group anywhere.';
    END IF;
    UPDATE tidemill.consumer_offsets o SET next_offset = commit.next_offset, updated_at = now()
     WHERE o.group_name = commit.group_name AND o.topic_id = v_id AND o.partition = to_partition;
END $$;

-- Moves a group to earliest, latest, an offset or a time, in one partition or all. A running owner is fenced: its open
-- batch is not committed, and it goes on from the new offset.
CREATE FUNCTION tidemill.seek(group_name text, topic text, target text, to_partition int DEFAULT NULL)
RETURNS TABLE (partition int, next_offset bigint)
LANGUAGE sql
AS $$
    SELECT tidemill.join_group(seek.group_name, seek.topic);
    UPDATE tidemill.consumer_offsets o
       SET next_offset = tidemill.resolve_offset(o.topic_id, o.partition, target),
           epoch = o.epoch + 1, owner = NULL, expires_at = NULL, updated_at = now()
     WHERE o.group_name = seek.group_name AND o.topic_id = tidemill.topic_id(seek.topic)
       AND (to_partition IS NULL OR o.partition = to_partition)
    RETURNING o.partition, o.next_offset
$$;
