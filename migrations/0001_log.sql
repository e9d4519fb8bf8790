-- The log: topics, their counters, their segments, and the functions that append and fetch.
--
-- A topic is a table in schema `log`, partitioned by time; a row of it is one appended batch, its messages are arrays.
-- A view of the same name in schema `topics` shows one row per message. Only tidemill.append_batch assigns offsets: it
-- updates one counter row, whose lock lasts until commit, so that offsets become visible in order and have no hole.
-- Error codes: TM001 unknown topic or partition, TM002 offset out of range, TM003 fenced, TM004 producer out of
-- sequence, TM005 bad argument, TM006 in use.

CREATE SCHEMA IF NOT EXISTS tidemill;
CREATE SCHEMA IF NOT EXISTS log;
CREATE SCHEMA IF NOT EXISTS topics;

CREATE TABLE tidemill.topics (
    topic_id      int GENERATED ALWAYS AS IDENTITY CONSTRAINT topics_pk PRIMARY KEY,
    name          text NOT NULL CONSTRAINT topics_name_unique UNIQUE
                  CONSTRAINT topics_name_is_sql CHECK (name ~ '^[a-z][a-z0-9_]{0,47}$')
                  -- Else a topic "a_p_60" would take the table of a segment of topic "a".
                  CONSTRAINT topics_name_not_a_segment CHECK (name !~ '_p_[0-9]+$'),
    partitions    int NOT NULL CONSTRAINT topics_partitions_range CHECK (partitions BETWEEN 1 AND 256),
    -- Whole seconds, since the name of a segment's table carries its lower bound in seconds.
    segment_span  interval NOT NULL
                  CONSTRAINT topics_segment_span_range CHECK (
                      extract(epoch FROM segment_span) BETWEEN 1 AND 31 * 86400
                      AND extract(epoch FROM segment_span) = floor(extract(epoch FROM segment_span))),
    -- How long rows stay in Postgres; NULL is for ever.
    hot_retention interval CONSTRAINT topics_hot_positive CHECK (hot_retention > interval '0'),
    -- Whether a segment must be archived before it may be dropped.
    archive       boolean NOT NULL DEFAULT true,
    -- How long archived objects stay in the bucket; NULL is for ever.
    cold_retention interval CONSTRAINT topics_cold_positive CHECK (cold_retention > interval '0'),
    format        text NOT NULL DEFAULT 'json' CONSTRAINT topics_format_known CHECK (format IN ('json', 'bytes')),
    acks          text NOT NULL DEFAULT 'fsync' CONSTRAINT topics_acks_known CHECK (acks IN ('fsync', 'relaxed')),
    -- The method TOAST compresses batches with: lz4 where the server has it.
    compression   text NOT NULL,
    -- Declared fields and archive order, as the pipeline file gives them.
    schema        jsonb,
    sort          text[],
    created_at    timestamptz NOT NULL DEFAULT now()
);

-- The hot row of each partition. A low fillfactor and no index beyond the key keep each update HOT.
CREATE TABLE tidemill.log_counter (
    topic_id    int NOT NULL CONSTRAINT log_counter_topic REFERENCES tidemill.topics ON DELETE CASCADE,
    partition   int NOT NULL,
    next_offset bigint NOT NULL DEFAULT 0,
    -- The time of the last append, never lower than one before it: it decides the segment of a batch.
    last_ts     timestamptz NOT NULL DEFAULT '-infinity',
    -- Raised when the log was found to have lost its end (fail-over to a lagging standby).
    log_epoch   int NOT NULL DEFAULT 1,
    CONSTRAINT log_counter_pk PRIMARY KEY (topic_id, partition)
) WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 500);

-- The first offset that is still readable, per partition. Readers take it from here, never from "no rows came back".
CREATE TABLE tidemill.log_start (
    topic_id     int NOT NULL CONSTRAINT log_start_topic REFERENCES tidemill.topics ON DELETE CASCADE,
    partition    int NOT NULL,
    start_offset bigint NOT NULL DEFAULT 0,
    CONSTRAINT log_start_pk PRIMARY KEY (topic_id, partition)
);

-- The catalog of time partitions. open -> sealed -> (archived) -> dropping -> dropped.
CREATE TABLE tidemill.segments (
    segment_id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT segments_pk PRIMARY KEY,
    topic_id   int NOT NULL CONSTRAINT segments_topic REFERENCES tidemill.topics ON DELETE CASCADE,
    lower      timestamptz NOT NULL,
    upper      timestamptz NOT NULL,
    table_name text NOT NULL,
    state      text NOT NULL DEFAULT 'open'
               CONSTRAINT segments_state_known CHECK (state IN ('open', 'sealed', 'archived', 'dropping', 'dropped')),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    sealed_at  timestamptz,
    dropping_at timestamptz,
    dropped_at timestamptz,
    CONSTRAINT segments_bounds CHECK (lower < upper),
    CONSTRAINT segments_sealed CHECK ((state = 'open') = (sealed_at IS NULL)),
    CONSTRAINT segments_lower_unique UNIQUE (topic_id, lower)
);
CREATE INDEX segments_live ON tidemill.segments (topic_id, lower) WHERE state <> 'dropped';

-- Which offsets a sealed segment holds, per partition: first_offset up to, not including, next_offset.
CREATE TABLE tidemill.segment_ranges (
    segment_id   bigint NOT NULL CONSTRAINT segment_ranges_segment REFERENCES tidemill.segments ON DELETE CASCADE,
    partition    int NOT NULL,
    first_offset bigint NOT NULL,
    next_offset  bigint NOT NULL,
    CONSTRAINT segment_ranges_pk PRIMARY KEY (segment_id, partition),
    CONSTRAINT segment_ranges_order CHECK (first_offset <= next_offset)
);

-- Idempotence. The decision is taken from this row after it is locked, never from a snapshot taken before the lock.
-- The last eight sequences are kept with their offsets, so that a late repeat gets the answer it got the first time.
CREATE TABLE tidemill.producers (
    producer_id  text NOT NULL CONSTRAINT producers_id_length CHECK (length(producer_id) BETWEEN 1 AND 256),
    topic_id     int NOT NULL CONSTRAINT producers_topic REFERENCES tidemill.topics ON DELETE CASCADE,
    partition    int NOT NULL,
    epoch        bigint NOT NULL,
    last_seq     bigint NOT NULL,
    recent_seqs  bigint[] NOT NULL DEFAULT '{}',
    recent_bases bigint[] NOT NULL DEFAULT '{}',
    recent_nexts bigint[] NOT NULL DEFAULT '{}',
    updated_at   timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT producers_pk PRIMARY KEY (producer_id, topic_id, partition)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02);

-- What made a batch: interned, so that a row names it with four bytes.
CREATE TABLE tidemill.origins (
    origin_id int GENERATED ALWAYS AS IDENTITY CONSTRAINT origins_pk PRIMARY KEY,
    pipeline  text NOT NULL,
    stage     text NOT NULL,
    plugin    text NOT NULL,
    digest    text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT origins_unique UNIQUE (pipeline, stage, plugin, digest)
);

-- Microseconds since the Unix epoch, exactly: extract(epoch) is numeric since PostgreSQL 14.
CREATE FUNCTION tidemill.micros(at timestamptz) RETURNS bigint
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
AS $$ SELECT (extract(epoch FROM at) * 1000000)::bigint $$;

-- Days and the rest apart: an interval times a bigint goes through a double, which is exact only for small factors. What
-- lies before the years that timestamptz knows is -infinity, so that one odd message does not fail a whole query.
CREATE FUNCTION tidemill.from_micros(us bigint) RETURNS timestamptz
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
AS $$
    SELECT CASE WHEN us < -210866803200000000 THEN '-infinity'::timestamptz
                ELSE (timestamp '1970-01-01' + (us / 86400000000) * interval '1 day'
                                             + (us % 86400000000) * interval '1 microsecond') AT TIME ZONE 'UTC' END
$$;

-- NULL where the bytes are not JSON in UTF-8, so that one bad message does not fail a whole query.
CREATE FUNCTION tidemill.try_json(payload bytea) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL RESTRICTED
AS $$
BEGIN
    RETURN convert_from(payload, 'UTF8')::jsonb;
EXCEPTION WHEN data_exception OR untranslatable_character THEN
    RETURN NULL;
END $$;

-- The partition of a key: the first four bytes of its SHA-256, big-endian, modulo the partitions. The host computes the
-- same. SHA-256 and not Postgres's own hash functions, since those are not promised to stay.
CREATE FUNCTION tidemill.partition_of(key bytea, partitions int) RETURNS int
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
AS $$ SELECT (('x' || encode(substring(sha256(key) FROM 1 FOR 4), 'hex'))::bit(32)::bigint % partitions)::int $$;

-- Headers as they are stored: [["name", "value"], ["name", {"base64": "..."}]], in order, names may repeat; base64 stands for
-- what is not text in UTF-8. An object of texts is taken too.
CREATE FUNCTION tidemill.headers(given jsonb) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE STRICT
AS $$
DECLARE
    v_pairs jsonb := given;
    v_good  boolean;
BEGIN
    IF jsonb_typeof(given) = 'object' THEN
        SELECT jsonb_agg(jsonb_build_array(h.key, h.value)) INTO v_pairs FROM jsonb_each(given) h;
    END IF;
    IF v_pairs IS NULL OR v_pairs = '[]' THEN
        RETURN NULL;
    END IF;
    SELECT bool_and(jsonb_typeof(pair.h) = 'array' AND jsonb_array_length(pair.h) = 2 AND part.good) INTO v_good
      FROM jsonb_array_elements(CASE jsonb_typeof(v_pairs) WHEN 'array' THEN v_pairs ELSE '[[]]' END) pair(h)
     CROSS JOIN LATERAL (
         SELECT coalesce(bool_and(CASE jsonb_typeof(e.v) WHEN 'string' THEN true
                                  WHEN 'object' THEN (e.v - 'base64') = '{}' AND jsonb_typeof(e.v -> 'base64') = 'string'
                                  ELSE false END), false)
           FROM jsonb_array_elements(CASE jsonb_typeof(pair.h) WHEN 'array' THEN pair.h ELSE '[]' END) e(v)
     ) part(good);
    IF NOT v_good THEN
        RAISE EXCEPTION 'these are no headers: %', left(given::text, 200)
            USING ERRCODE = 'TM005', HINT = 'Give an object of texts, or an array of pairs: [["name", "value"]].';
    END IF;
    RETURN v_pairs;
END $$;

CREATE FUNCTION tidemill.topic_id(topic text) RETURNS int
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    v_id int;
BEGIN
    SELECT t.topic_id INTO v_id FROM tidemill.topics t WHERE t.name = topic;
    IF v_id IS NULL THEN
        RAISE EXCEPTION 'there is no topic "%"', topic
            USING ERRCODE = 'TM001', HINT = 'SELECT name FROM tidemill.topics lists them; tidemill.create_topic makes one.';
    END IF;
    RETURN v_id;
END $$;

-- Creates the segments that cover p_from .. p_until. Each is made as a stand-alone table and then attached, under a short
-- lock_timeout: a DDL statement that waits would hold up every reader and writer behind it. 55P03 means: try again.
--
-- Bytes per message, index and TOAST included, of 169 B aircraft JSON with 7 B keys, by messages in a batch (12, 25, 50,
-- 100, 1000), PostgreSQL 15.18: lz4 131, 120, 101, 86, 74; pglz 115, 91, 88, 86, 64 (at some ten times the work). Times of
-- their own add 6 to 15. A toast_tuple_target of 2032 gives 117, 131, 100, 98, 74 with lz4; above that, batches of less
-- than the target are not compressed at all: 231 with 4064 at 12.
CREATE FUNCTION tidemill.ensure_segments(p_topic_id int, p_from timestamptz, p_until timestamptz) RETURNS int
LANGUAGE plpgsql
SET lock_timeout = '200ms'
SET timezone = 'UTC'
AS $$
DECLARE
    v_topic   tidemill.topics;
    v_at      timestamptz := p_from;
    v_span    numeric;
    v_lower   timestamptz;
    v_upper   timestamptz;
    v_table   text;
    v_next    timestamptz;
    v_created int := 0;
BEGIN
    SELECT * INTO STRICT v_topic FROM tidemill.topics WHERE topic_id = p_topic_id;
    v_span := extract(epoch FROM v_topic.segment_span);
    PERFORM pg_advisory_xact_lock(hashtextextended('tidemill.segments.' || p_topic_id, 0));
    WHILE v_at <= p_until LOOP
        SELECT s.upper INTO v_next FROM tidemill.segments s
         WHERE s.topic_id = p_topic_id AND s.lower <= v_at AND s.upper > v_at;
        IF FOUND THEN
            v_at := v_next;
            CONTINUE;
        END IF;
        -- Aligned to the span, and cut to what its neighbours leave free: the span of a topic may have changed.
        v_lower := to_timestamp(floor(extract(epoch FROM v_at) / v_span) * v_span);
        v_upper := v_lower + v_topic.segment_span;
        SELECT greatest(v_lower, max(s.upper)) INTO v_lower FROM tidemill.segments s
         WHERE s.topic_id = p_topic_id AND s.upper <= v_at;
        SELECT least(v_upper, min(s.lower)) INTO v_upper FROM tidemill.segments s
         WHERE s.topic_id = p_topic_id AND s.lower > v_at;
        v_table := format('%s_p_%s', v_topic.name, floor(extract(epoch FROM v_lower))::bigint);
        EXECUTE format('CREATE TABLE log.%I (LIKE log.%I INCLUDING ALL, CONSTRAINT segment_bounds CHECK (ts >= %L AND ts < %L))
                        WITH (toast_tuple_target = 128)',
                       v_table, v_topic.name, v_lower, v_upper);
        EXECUTE format('CREATE UNIQUE INDEX ON log.%I (partition, base_offset)', v_table);
        EXECUTE format('ALTER TABLE log.%I ATTACH PARTITION log.%I FOR VALUES FROM (%L) TO (%L)',
                       v_topic.name, v_table, v_lower, v_upper);
        INSERT INTO tidemill.segments (topic_id, lower, upper, table_name)
        VALUES (p_topic_id, v_lower, v_upper, v_table);
        v_created := v_created + 1;
        v_at := v_upper;
    END LOOP;
    RETURN v_created;
END $$;

-- Makes a topic. hot_retention NULL keeps rows in Postgres for ever; archive false lets them be dropped unarchived.
CREATE FUNCTION tidemill.create_topic(
    name           text,
    partitions     int DEFAULT 4,
    segment_span   interval DEFAULT '1 hour',
    hot_retention  interval DEFAULT '24 hours',
    archive        boolean DEFAULT true,
    cold_retention interval DEFAULT NULL,
    format         text DEFAULT 'json',
    acks           text DEFAULT 'fsync',
    schema         jsonb DEFAULT NULL,
    sort           text[] DEFAULT NULL
) RETURNS int
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    v_id          int;
    v_compression text;
    v_constraint  text;
BEGIN
    IF create_topic.name IS NULL OR create_topic.name !~ '^[a-z][a-z0-9_]{0,47}$' OR create_topic.name ~ '_p_[0-9]+$' THEN
        RAISE EXCEPTION '% is not a topic name', quote_nullable(create_topic.name)
            USING ERRCODE = 'TM005',
                  HINT = 'A topic name starts with a lower-case letter and goes on with lower-case letters, digits and underscores, at most 48 in all, and does not end like a segment: _p_60.';
    END IF;
    SELECT CASE WHEN 'lz4' = ANY (enumvals) THEN 'lz4' ELSE 'pglz' END INTO v_compression
      FROM pg_settings s WHERE s.name = 'default_toast_compression';
    INSERT INTO tidemill.topics (name, partitions, segment_span, hot_retention, archive, cold_retention, format, acks,
                                 compression, schema, sort)
    VALUES (create_topic.name, create_topic.partitions, create_topic.segment_span, create_topic.hot_retention,
            create_topic.archive, create_topic.cold_retention, create_topic.format, create_topic.acks,
            coalesce(v_compression, 'pglz'), create_topic.schema, create_topic.sort)
    RETURNING topic_id INTO v_id;
    INSERT INTO tidemill.log_counter (topic_id, partition) SELECT v_id, generate_series(0, create_topic.partitions - 1);
    INSERT INTO tidemill.log_start (topic_id, partition) SELECT v_id, generate_series(0, create_topic.partitions - 1);
    -- Fixed-width columns first, so that no padding is stored. A NULL array costs nothing: empty ones are not stored.
    -- input_index is the position of each message's input after input_offset: lineage for two bytes a message.
    EXECUTE format(
        'CREATE TABLE log.%1$I (
             ts              timestamptz NOT NULL,
             base_offset     bigint NOT NULL,
             partition       int NOT NULL,
             record_count    int NOT NULL,
             bytes           int NOT NULL,
             origin          int,
             input_offset    bigint,
             input_partition int,
             input_index     smallint[],
             timestamps      bigint[] COMPRESSION %2$s,
             keys            bytea[] COMPRESSION %2$s,
             headers         jsonb[] COMPRESSION %2$s,
             payloads        bytea[] COMPRESSION %2$s NOT NULL
         ) PARTITION BY RANGE (ts)', create_topic.name, coalesce(v_compression, 'pglz'));
    EXECUTE format(
        'CREATE VIEW topics.%1$I AS
         SELECT b.partition,
                b.base_offset + m.i - 1 AS c_offset,
                coalesce(tidemill.from_micros(m.at), b.ts) AS ts,
                m.key, m.headers, m.payload,
                %2$s AS value,
                b.ts AS appended_at
           FROM log.%1$I b
          CROSS JOIN LATERAL unnest(b.payloads, b.keys, b.headers, b.timestamps)
                WITH ORDINALITY AS m(payload, key, headers, at, i)',
        create_topic.name,
        CASE create_topic.format WHEN 'json' THEN 'tidemill.try_json(m.payload)' ELSE 'NULL::jsonb' END);
    PERFORM tidemill.ensure_segments(v_id, clock_timestamp(), clock_timestamp() + 2 * create_topic.segment_span);
    RETURN v_id;
EXCEPTION
    WHEN unique_violation THEN
        RAISE EXCEPTION 'topic "%" exists already', create_topic.name USING ERRCODE = 'TM006';
    WHEN check_violation THEN
        GET STACKED DIAGNOSTICS v_constraint = CONSTRAINT_NAME;
        RAISE EXCEPTION 'topic "%" cannot have these settings: they break %', create_topic.name, v_constraint
            USING ERRCODE = 'TM005',
                  HINT = 'Partitions go from 1 to 256, segment_span from 1 second to 31 days in whole seconds, retentions are positive, format is json or bytes, acks is fsync or relaxed.';
END $$;

-- Drops a topic with all that is in Postgres of it: rows, offsets of its groups, the catalog of its segments.
-- The counters are locked first, as every append does, and before the tables: else the two would wait for each other.
CREATE FUNCTION tidemill.delete_topic(topic text) RETURNS void
LANGUAGE plpgsql
SET lock_timeout = '5s'
AS $$
DECLARE
    v_id    int := tidemill.topic_id(topic);
    v_table text;
BEGIN
    PERFORM 1 FROM tidemill.segments s WHERE s.topic_id = v_id ORDER BY s.segment_id FOR UPDATE;
    PERFORM 1 FROM tidemill.log_counter c WHERE c.topic_id = v_id ORDER BY c.partition FOR UPDATE;
    EXECUTE format('DROP VIEW IF EXISTS topics.%I', topic);
    EXECUTE format('DROP TABLE IF EXISTS log.%I', topic);
    -- Detached already, so they did not go with the parent.
    FOR v_table IN SELECT s.table_name FROM tidemill.segments s WHERE s.topic_id = v_id AND s.state = 'dropping' LOOP
        EXECUTE format('DROP TABLE IF EXISTS log.%I', v_table);
    END LOOP;
    DELETE FROM tidemill.topics t WHERE t.topic_id = v_id;
END $$;

-- Appends one batch to one partition and answers where it went. This is the only place that assigns an offset.
-- The counter row's lock is held until the transaction ends, so keep what follows it short, and when appending to several
-- partitions in one transaction go in the order of (topic_id, partition).
CREATE FUNCTION tidemill.append_batch(
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
    v_count int := coalesce(cardinality(p_payloads), 0);
    v_table text;
    v_upper timestamptz;
    v_span  interval;
BEGIN
    IF v_count = 0 THEN
        RAISE EXCEPTION 'an append needs at least one message' USING ERRCODE = 'TM005';
    END IF;
    -- clock_timestamp() is read after the lock is granted, so time never runs against offset order.
    UPDATE tidemill.log_counter c
       SET next_offset = c.next_offset + v_count, last_ts = greatest(c.last_ts, clock_timestamp())
     WHERE c.topic_id = p_topic_id AND c.partition = p_partition
    RETURNING c.next_offset - v_count, c.last_ts INTO base_offset, appended_at;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'topic % has no partition %', p_topic_id, p_partition USING ERRCODE = 'TM001';
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

-- Locks the row of an idempotent producer and says what is to be done with a sequence number: append it, answer with the
-- offsets it got the first time (duplicate), or refuse it (fenced, forgotten).
CREATE FUNCTION tidemill.producer_check(
    p_producer_id  text,
    p_topic_id     int,
    p_partition    int,
    p_epoch        bigint,
    p_seq          bigint,
    OUT verdict     text,
    OUT base_offset bigint,
    OUT next_offset bigint,
    OUT message     text
)
LANGUAGE plpgsql
AS $$
DECLARE
    v_row tidemill.producers;
    v_at  int;
BEGIN
    INSERT INTO tidemill.producers (producer_id, topic_id, partition, epoch, last_seq)
    VALUES (p_producer_id, p_topic_id, p_partition, p_epoch, -1)
    ON CONFLICT ON CONSTRAINT producers_pk DO NOTHING;
    SELECT * INTO STRICT v_row FROM tidemill.producers p
     WHERE p.producer_id = p_producer_id AND p.topic_id = p_topic_id AND p.partition = p_partition
       FOR UPDATE;
    IF p_epoch < v_row.epoch THEN
        verdict := 'fenced';
        message := format('producer "%s" has epoch %s, this request came with %s', p_producer_id, v_row.epoch, p_epoch);
    ELSIF p_epoch > v_row.epoch OR p_seq > v_row.last_seq THEN
        verdict := 'append';
    ELSE
        v_at := array_position(v_row.recent_seqs, p_seq);
        verdict := CASE WHEN v_at IS NULL THEN 'forgotten' ELSE 'duplicate' END;
        base_offset := v_row.recent_bases[v_at];
        next_offset := v_row.recent_nexts[v_at];
        message := format('producer "%s" sends sequence %s, but stands at %s and what became of %s is no longer known',
                          p_producer_id, p_seq, v_row.last_seq, p_seq);
    END IF;
END $$;

-- The same for one request: refusals are errors.
CREATE FUNCTION tidemill.producer_begin(
    p_producer_id  text,
    p_topic_id     int,
    p_partition    int,
    p_epoch        bigint,
    p_seq          bigint,
    OUT duplicate   boolean,
    OUT base_offset bigint,
    OUT next_offset bigint
)
LANGUAGE plpgsql
AS $$
DECLARE
    v_check record;
BEGIN
    SELECT * INTO STRICT v_check FROM tidemill.producer_check(p_producer_id, p_topic_id, p_partition, p_epoch, p_seq);
    IF v_check.verdict = 'fenced' THEN
        RAISE EXCEPTION '%', v_check.message
            USING ERRCODE = 'TM003', HINT = 'A newer instance of this producer has taken over; this one must stop.';
    ELSIF v_check.verdict = 'forgotten' THEN
        RAISE EXCEPTION '%', v_check.message
            USING ERRCODE = 'TM004', HINT = 'Sequences rise, and the last eight of a producer can be repeated.';
    END IF;
    duplicate := v_check.verdict = 'duplicate';
    base_offset := v_check.base_offset;
    next_offset := v_check.next_offset;
END $$;

-- Remembers where a sequence went; in the transaction of its append.
CREATE FUNCTION tidemill.producer_end(
    p_producer_id text, p_topic_id int, p_partition int, p_epoch bigint, p_seq bigint, p_base bigint, p_next bigint
) RETURNS void
LANGUAGE sql
AS $$
    UPDATE tidemill.producers p
       SET epoch = p_epoch,
           last_seq = p_seq,
           recent_seqs = CASE WHEN p.epoch = p_epoch THEN (p_seq || p.recent_seqs)[1:8] ELSE ARRAY[p_seq] END,
           recent_bases = CASE WHEN p.epoch = p_epoch THEN (p_base || p.recent_bases)[1:8] ELSE ARRAY[p_base] END,
           recent_nexts = CASE WHEN p.epoch = p_epoch THEN (p_next || p.recent_nexts)[1:8] ELSE ARRAY[p_next] END,
           updated_at = now()
     WHERE p.producer_id = p_producer_id AND p.topic_id = p_topic_id AND p.partition = p_partition
$$;

-- Appends the messages of several requests as one batch: what the host's appender calls, one statement a commit. Request i of
-- a producer is the p_counts[i] messages from p_firsts[i] (from 0) on. If one of them is not to be appended, nothing is and
-- base_offset is NULL: the caller takes it out and calls again. A producer may occur once.
CREATE FUNCTION tidemill.append_requests(
    p_topic_id    int,
    p_partition   int,
    p_relaxed     boolean,
    p_bytes       int,
    p_payloads    bytea[],
    p_keys        bytea[],
    p_headers     jsonb[],
    p_timestamps  bigint[],
    p_producers   text[],
    p_epochs      bigint[],
    p_seqs        bigint[],
    p_firsts      int[],
    p_counts      int[],
    OUT base_offset bigint,
    OUT verdicts    text[],
    OUT bases       bigint[],
    OUT nexts       bigint[],
    OUT messages    text[]
)
LANGUAGE plpgsql
AS $$
DECLARE
    v_check record;
    v_clean boolean := true;
    v_i     int;
BEGIN
    IF p_relaxed THEN
        PERFORM set_config('synchronous_commit', 'off', true);
    END IF;
    -- In the order of their names, so that two batches with the same producers do not wait for each other.
    FOR v_i IN SELECT u.i FROM unnest(p_producers) WITH ORDINALITY u(id, i) ORDER BY u.id LOOP
        SELECT * INTO STRICT v_check
          FROM tidemill.producer_check(p_producers[v_i], p_topic_id, p_partition, p_epochs[v_i], p_seqs[v_i]);
        verdicts[v_i] := v_check.verdict;
        bases[v_i] := v_check.base_offset;
        nexts[v_i] := v_check.next_offset;
        messages[v_i] := v_check.message;
        v_clean := v_clean AND v_check.verdict = 'append';
    END LOOP;
    IF NOT v_clean THEN
        RETURN;
    END IF;
    SELECT a.base_offset INTO base_offset
      FROM tidemill.append_batch(p_topic_id, p_partition, p_payloads, p_keys, p_headers, p_timestamps, p_bytes) a;
    FOR v_i IN 1 .. coalesce(cardinality(p_producers), 0) LOOP
        PERFORM tidemill.producer_end(p_producers[v_i], p_topic_id, p_partition, p_epochs[v_i], p_seqs[v_i],
                                      base_offset + p_firsts[v_i], base_offset + p_firsts[v_i] + p_counts[v_i]);
    END LOOP;
END $$;

-- Refuses what append_many could only store wrongly.
CREATE FUNCTION tidemill.check_messages(payloads bytea[], keys bytea[], headers jsonb[], timestamps bigint[]) RETURNS void
LANGUAGE plpgsql IMMUTABLE
AS $$
DECLARE
    v_count int := coalesce(cardinality(payloads), 0);
BEGIN
    IF v_count = 0 THEN
        RAISE EXCEPTION 'an append needs at least one message' USING ERRCODE = 'TM005';
    ELSIF coalesce(cardinality(keys), v_count) <> v_count OR coalesce(cardinality(headers), v_count) <> v_count
       OR coalesce(cardinality(timestamps), v_count) <> v_count THEN
        RAISE EXCEPTION 'there are % payloads, % keys, % headers, % timestamps', v_count,
            cardinality(keys), cardinality(headers), cardinality(timestamps)
            USING ERRCODE = 'TM005', HINT = 'Give an array as long as payloads, with NULL where a message has none, or no array.';
    ELSIF array_position(payloads, NULL) IS NOT NULL THEN
        RAISE EXCEPTION 'message % has no payload', array_position(payloads, NULL)
            USING ERRCODE = 'TM005', HINT = 'A payload may be empty, but not NULL.';
    ELSIF (SELECT max(length(m)) FROM unnest(payloads) m) > 1048576 THEN
        RAISE EXCEPTION 'a message has more than 1 MiB' USING ERRCODE = 'TM005';
    END IF;
END $$;

-- Appends many messages: each goes to the partition of its key. Messages without a key go together, to one partition (of
-- the producer where there is one, else any). With (producer_id, epoch, seq) a repeat stores nothing and answers the same.
CREATE FUNCTION tidemill.append_many(
    topic          text,
    payloads       bytea[],
    keys           bytea[] DEFAULT NULL,
    headers        jsonb[] DEFAULT NULL,
    timestamps     bigint[] DEFAULT NULL,
    to_partition   int DEFAULT NULL,
    producer_id    text DEFAULT NULL,
    producer_epoch bigint DEFAULT 0,
    producer_seq   bigint DEFAULT NULL
) RETURNS TABLE (partition int, first_offset bigint, next_offset bigint, duplicate boolean)
LANGUAGE plpgsql
AS $$
#variable_conflict use_variable
DECLARE
    v_id         int := tidemill.topic_id(topic);
    v_partitions int;
    v_loose      int;
    v_part       record;
    v_base       bigint;
BEGIN
    IF producer_id IS NOT NULL AND (producer_seq IS NULL OR producer_seq < 0) THEN
        RAISE EXCEPTION 'producer "%" must number its appends from 0', producer_id USING ERRCODE = 'TM005';
    END IF;
    PERFORM tidemill.check_messages(payloads, keys, headers, timestamps);
    SELECT t.partitions INTO v_partitions FROM tidemill.topics t WHERE t.topic_id = v_id;
    v_loose := CASE WHEN producer_id IS NULL THEN floor(random() * v_partitions)::int
                    ELSE tidemill.partition_of(convert_to(producer_id, 'UTF8'), v_partitions) END;
    partition := NULL;
    -- A row holds up to 10,000 messages and some 4 MiB; `piece` counts the rows of a partition.
    FOR v_part IN
        SELECT g.p, lead(g.p) OVER (ORDER BY g.p, g.piece) IS DISTINCT FROM g.p AS last,
               g.payloads, g.keys, g.headers, g.timestamps
          FROM (SELECT w.p, w.piece, array_agg(w.payload ORDER BY w.i) AS payloads,
                       CASE WHEN count(w.key) > 0 THEN array_agg(w.key ORDER BY w.i) END AS keys,
                       CASE WHEN count(w.header) > 0 THEN array_agg(w.header ORDER BY w.i) END AS headers,
                       CASE WHEN count(w.at) > 0 THEN array_agg(w.at ORDER BY w.i) END AS timestamps
                  FROM (SELECT r.*, (row_number() OVER o - 1) / 10000 + (sum(length(r.payload) + coalesce(length(r.key), 0)) OVER o - 1) / 4194304 AS piece
                          FROM (SELECT coalesce(to_partition, tidemill.partition_of(m.key, v_partitions), v_loose) AS p,
                                       m.payload, m.key, tidemill.headers(m.header) AS header, m.at, m.i
                                  FROM unnest(payloads, keys, headers, timestamps)
                                       WITH ORDINALITY AS m(payload, key, header, at, i)) r
                        WINDOW o AS (PARTITION BY r.p ORDER BY r.i)) w
                 GROUP BY w.p, w.piece) g
         ORDER BY g.p, g.piece
    LOOP
        IF partition IS DISTINCT FROM v_part.p THEN
            partition := v_part.p;
            first_offset := NULL;
            duplicate := false;
            IF producer_id IS NOT NULL THEN
                SELECT b.duplicate, b.base_offset, b.next_offset INTO duplicate, first_offset, next_offset
                  FROM tidemill.producer_begin(producer_id, v_id, v_part.p, producer_epoch, producer_seq) b;
            END IF;
        END IF;
        IF NOT duplicate THEN
            SELECT a.base_offset INTO v_base
              FROM tidemill.append_batch(v_id, v_part.p, v_part.payloads, v_part.keys, v_part.headers, v_part.timestamps) a;
            first_offset := coalesce(first_offset, v_base);
            next_offset := v_base + cardinality(v_part.payloads);
        END IF;
        IF v_part.last THEN
            IF producer_id IS NOT NULL AND NOT duplicate THEN
                PERFORM tidemill.producer_end(producer_id, v_id, v_part.p, producer_epoch, producer_seq,
                                              first_offset, next_offset);
            END IF;
            RETURN NEXT;
        END IF;
    END LOOP;
END $$;

-- Appends one message: SELECT * FROM tidemill.append('positions', '{"id":"a1"}', key => 'a1').
CREATE FUNCTION tidemill.append(
    topic text, payload text, key text DEFAULT NULL, headers jsonb DEFAULT NULL, at timestamptz DEFAULT NULL,
    OUT partition int, OUT c_offset bigint
)
LANGUAGE sql
AS $$
    SELECT a.partition, a.first_offset
      FROM tidemill.append_many(topic, ARRAY[convert_to(payload, 'UTF8')],
                                CASE WHEN key IS NOT NULL THEN ARRAY[convert_to(key, 'UTF8')] END,
                                CASE WHEN headers IS NOT NULL THEN ARRAY[headers] END,
                                CASE WHEN at IS NOT NULL THEN ARRAY[tidemill.micros(at)] END) a
$$;

-- Batches of one partition that overlap p_from and follow it, from one segment: the next call goes on in the next. The
-- child table is named, never the parent, because planning over a thousand segments takes 100 ms.
-- At least one batch is returned when there is one, however large.
CREATE FUNCTION tidemill.fetch_batches(
    p_topic_id int, p_partition int, p_from bigint, p_max_records int DEFAULT 1000, p_max_bytes bigint DEFAULT 4194304
) RETURNS TABLE (base_offset bigint, record_count int, appended_at timestamptz, timestamps bigint[], keys bytea[],
                 headers jsonb[], payloads bytea[])
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    v_end     bigint;
    v_last    timestamptz;
    v_start   bigint;
    v_segment record;
BEGIN
    SELECT c.next_offset, c.last_ts, s.start_offset INTO v_end, v_last, v_start
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
             SELECT c.base_offset, c.record_count, c.ts, c.timestamps, c.keys, c.headers, c.payloads
               FROM counted c
              WHERE c.place = 1 OR (c.records <= $3 AND c.size <= $4)
              ORDER BY c.base_offset', v_segment.table_name)
        USING p_partition, p_from, p_max_records, p_max_bytes;
        IF FOUND THEN
            RETURN;
        END IF;
    END LOOP;
END $$;

-- Single messages of one partition from an offset on.
CREATE FUNCTION tidemill.fetch(topic text, from_partition int, from_offset bigint, max_records int DEFAULT 100)
RETURNS TABLE (partition int, c_offset bigint, ts timestamptz, key bytea, headers jsonb, payload bytea)
LANGUAGE sql STABLE
AS $$
    SELECT from_partition, b.base_offset + m.i - 1, coalesce(tidemill.from_micros(m.at), b.appended_at), m.key, m.headers, m.payload
      FROM tidemill.fetch_batches(tidemill.topic_id(topic), from_partition, from_offset, greatest(max_records, 1) + 1000) b
     CROSS JOIN LATERAL unnest(b.payloads, b.keys, b.headers, b.timestamps) WITH ORDINALITY AS m(payload, key, headers, at, i)
     WHERE b.base_offset + m.i - 1 >= from_offset
     ORDER BY 2
     LIMIT max_records
$$;

-- Seals a segment whose time is over: no later append can carry a time in its range, because the counters are moved past
-- it, and what it holds is recorded. True when it was sealed now.
CREATE FUNCTION tidemill.seal_segment(p_segment_id bigint) RETURNS boolean
LANGUAGE plpgsql
SET lock_timeout = '1s'
AS $$
DECLARE
    v_segment tidemill.segments;
BEGIN
    SELECT * INTO v_segment FROM tidemill.segments s
     WHERE s.segment_id = p_segment_id AND s.state = 'open' AND s.upper <= clock_timestamp() FOR UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    -- In the order of the partitions, as every append goes.
    PERFORM 1 FROM tidemill.log_counter c WHERE c.topic_id = v_segment.topic_id ORDER BY c.partition FOR UPDATE;
    UPDATE tidemill.log_counter c SET last_ts = greatest(c.last_ts, v_segment.upper) WHERE c.topic_id = v_segment.topic_id;
    EXECUTE format(
        'INSERT INTO tidemill.segment_ranges (segment_id, partition, first_offset, next_offset)
         SELECT $1, c.partition, f.base_offset, l.base_offset + l.record_count
           FROM tidemill.log_counter c
          CROSS JOIN LATERAL (SELECT b.base_offset FROM log.%1$I b WHERE b.partition = c.partition
                               ORDER BY b.base_offset LIMIT 1) f
          CROSS JOIN LATERAL (SELECT b.base_offset, b.record_count FROM log.%1$I b WHERE b.partition = c.partition
                               ORDER BY b.base_offset DESC LIMIT 1) l
          WHERE c.topic_id = $2', v_segment.table_name)
    USING v_segment.segment_id, v_segment.topic_id;
    UPDATE tidemill.segments s SET state = 'sealed', sealed_at = clock_timestamp() WHERE s.segment_id = p_segment_id;
    RETURN true;
END $$;

-- Takes the oldest segments whose retention is over out of the log, in order and up to the first that must stay, and
-- moves the log's start past them. How many. From then on no reader is sent to their tables.
CREATE FUNCTION tidemill.expire_segments(p_topic_id int) RETURNS int
LANGUAGE plpgsql
SET lock_timeout = '200ms'
AS $$
DECLARE
    v_topic   tidemill.topics;
    v_segment tidemill.segments;
    v_expired int := 0;
BEGIN
    SELECT * INTO v_topic FROM tidemill.topics t WHERE t.topic_id = p_topic_id;
    LOOP
        SELECT * INTO v_segment FROM tidemill.segments s
         WHERE s.topic_id = p_topic_id AND s.state NOT IN ('dropping', 'dropped') ORDER BY s.lower LIMIT 1 FOR UPDATE;
        EXIT WHEN NOT FOUND OR (v_segment.upper >= clock_timestamp() - v_topic.hot_retention) IS NOT FALSE
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

-- Drops the table of a segment that is out of the log and detached. True when it was dropped now.
CREATE FUNCTION tidemill.drop_segment(p_segment_id bigint) RETURNS boolean
LANGUAGE plpgsql
SET lock_timeout = '200ms'
AS $$
DECLARE
    v_segment tidemill.segments;
BEGIN
    SELECT * INTO v_segment FROM tidemill.segments s
     WHERE s.segment_id = p_segment_id AND s.state = 'dropping' FOR UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    EXECUTE format('DROP TABLE IF EXISTS log.%I', v_segment.table_name);
    UPDATE tidemill.segments s SET state = 'dropped', dropped_at = clock_timestamp() WHERE s.segment_id = p_segment_id;
    RETURN true;
END $$;

-- What a topic takes in Postgres, measured: tables, indexes and TOAST of its live segments, and the messages in them.
CREATE FUNCTION tidemill.topic_size(p_topic_id int, OUT segments bigint, OUT bytes bigint, OUT records bigint)
LANGUAGE sql STABLE
AS $$
    SELECT (SELECT count(*) FROM tidemill.segments s WHERE s.topic_id = p_topic_id AND s.state NOT IN ('dropping', 'dropped')),
           (SELECT coalesce(sum(pg_total_relation_size(to_regclass(format('log.%I', s.table_name)))), 0)::bigint
              FROM tidemill.segments s WHERE s.topic_id = p_topic_id AND s.state NOT IN ('dropping', 'dropped')),
           (SELECT coalesce(sum(c.next_offset - l.start_offset), 0)::bigint
              FROM tidemill.log_counter c JOIN tidemill.log_start l USING (topic_id, partition)
             WHERE c.topic_id = p_topic_id)
$$;
