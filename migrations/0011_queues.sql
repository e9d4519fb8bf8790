-- The task queue: jobs, each of which one worker at a time runs until one run is accepted.
--
-- A queue is shaped like a log. A job is one row, inserted once and never updated: its place is a lane (priority) and a number
-- in it. A claim is one row that names jobs, their worker and a lease. Claims of a queue are made one after the other, from a
-- cursor that only advances, so they never step over rows that are done with, and neither an old snapshot nor dead rows slow
-- them. Jobs that come again (retries, schedules, lost workers) get a new place and keep their id. Tables of jobs are dropped
-- when nothing in them is open any more.
--
-- Numbers are drawn without a lock, so a number may be missing while its transaction is open. What is missing when the cursor
-- passes is noted as a gap, looked for again by each claim, and forgotten when every transaction is over that was open then.
--
-- The claim is the fence: its number is new each time, and ending a job needs the claim that holds it, with its lease alive.
-- Error codes: TM001 unknown, TM003 fenced, TM005 bad argument, TM006 not possible now.

CREATE SCHEMA IF NOT EXISTS jobs;

CREATE TABLE tidemill.queues (
    queue_id        int GENERATED ALWAYS AS IDENTITY CONSTRAINT queues_pk PRIMARY KEY,
    name            text NOT NULL CONSTRAINT queues_name_unique UNIQUE
                    CONSTRAINT queues_name_is_sql CHECK (name ~ '^[a-z][a-z0-9_]{0,47}$'),
    -- How long a worker may be silent.
    lease           interval NOT NULL DEFAULT '30 s'
                    CONSTRAINT queues_lease_range CHECK (lease BETWEEN interval '1 s' AND interval '24 h'),
    -- Runs of a job before it is dead.
    max_attempts    int NOT NULL DEFAULT 10 CONSTRAINT queues_max_attempts_range CHECK (max_attempts BETWEEN 1 AND 1000),
    -- The wait before the second run; doubled for each one after it, up to the longest.
    backoff_first   interval NOT NULL DEFAULT '1 s' CONSTRAINT queues_backoff_first CHECK (backoff_first >= interval '0'),
    backoff_longest interval NOT NULL DEFAULT '1 h' CONSTRAINT queues_backoff_longest CHECK (backoff_longest <= interval '31 days'),
    -- Jobs running at a time, in all and of one key; NULL is without a limit.
    concurrency     int CONSTRAINT queues_concurrency_range CHECK (concurrency BETWEEN 1 AND 10000),
    per_key         int CONSTRAINT queues_per_key_range CHECK (per_key BETWEEN 1 AND 1000),
    -- Jobs of one key run one at a time in the order they came, also when one is retried.
    ordered         boolean NOT NULL DEFAULT false,
    -- How long ended jobs can be looked at.
    keep            interval NOT NULL DEFAULT '1 h' CONSTRAINT queues_keep_range CHECK (keep BETWEEN interval '0' AND interval '30 days'),
    -- Each ended job becomes a record of this topic.
    history         int CONSTRAINT queues_history REFERENCES tidemill.topics ON DELETE SET NULL,
    paused          boolean NOT NULL DEFAULT false,
    -- The sequence of each lane.
    sequences       oid[] NOT NULL DEFAULT '{}',
    created_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT queues_order CHECK (NOT ordered OR coalesce(per_key, 1) = 1)
);

-- Where the claims of a queue stand: its row with the highest generation. A new row takes over after some hundred updates, so
-- that a snapshot which keeps all of its versions does not make them a long chain to walk.
CREATE TABLE tidemill.queue_heads (
    queue_id     int NOT NULL CONSTRAINT queue_heads_queue REFERENCES tidemill.queues ON DELETE CASCADE,
    generation   bigint NOT NULL DEFAULT 0,
    uses         int NOT NULL DEFAULT 0,
    -- For each lane the first place that no claim has looked at.
    cursors      bigint[] NOT NULL,
    -- Places below them whose rows were not there yet.
    gaps         int8multirange NOT NULL DEFAULT '{}',
    -- Those that can be forgotten once every transaction below `aging_since` is over.
    aging        int8multirange NOT NULL DEFAULT '{}',
    aging_since  xid8 NOT NULL DEFAULT '0',
    -- The last claim, and one that no live claim is below.
    last_claim   bigint NOT NULL DEFAULT 0,
    oldest_claim bigint NOT NULL DEFAULT 0,
    -- The key whose blocked jobs had their turn last.
    turn         bytea NOT NULL DEFAULT '',
    tended_at    timestamptz NOT NULL DEFAULT '-infinity',
    swept_at     timestamptz NOT NULL DEFAULT '-infinity',
    CONSTRAINT queue_heads_pk PRIMARY KEY (queue_id, generation)
) WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 500);

-- The tables that hold the jobs of a lane from one place to before another, and the tables of ended jobs of a time.
CREATE TABLE tidemill.job_tables (
    queue_id   int NOT NULL CONSTRAINT job_tables_queue REFERENCES tidemill.queues ON DELETE CASCADE,
    -- NULL: ended jobs; first and upper are seconds since 1970 then.
    lane       int,
    first      bigint NOT NULL,
    upper      bigint NOT NULL,
    table_name text NOT NULL CONSTRAINT job_tables_name_unique UNIQUE,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT job_tables_bounds CHECK (first < upper)
);
CREATE UNIQUE INDEX job_tables_first ON tidemill.job_tables (queue_id, lane, first);

CREATE TYPE tidemill.job_row AS (
    place        bigint,
    id           bigint,
    enqueued_at  timestamptz,
    -- When it could first be claimed, where that is not when it came.
    due_at       timestamptz,
    -- Runs so far.
    attempt      int,
    -- NULL: as the queue says.
    max_attempts int,
    -- It has the turn of its key; NULL: no.
    held         boolean,
    key          bytea,
    headers      jsonb,
    unique_key   text,
    payload      bytea,
    -- Why its last run failed.
    error        text
);

CREATE TABLE tidemill.claims (
    -- Microseconds and chance: a number that a crash made us forget is not given a second time.
    claim      bigint CONSTRAINT claims_pk PRIMARY KEY,
    -- Without a foreign key, whose check would lock the queue's row with each claim.
    queue_id   int NOT NULL,
    worker     text NOT NULL,
    lease      interval NOT NULL,
    claimed_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    -- What is still open of it, side by side; NULL where no job has one, or where all ids are their places.
    places     bigint[] NOT NULL,
    ids        bigint[],
    keys       bytea[],
    uniques    text[]
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 500);

-- Jobs that are not due: scheduled, snoozed, or waiting for their next attempt.
CREATE TABLE tidemill.later_jobs (
    queue_id int NOT NULL CONSTRAINT later_jobs_queue REFERENCES tidemill.queues ON DELETE CASCADE,
    run_at   timestamptz NOT NULL,
    job      tidemill.job_row NOT NULL,
    id       bigint NOT NULL,
    -- The key that is kept busy meanwhile.
    held_key bytea,
    CONSTRAINT later_jobs_pk PRIMARY KEY (queue_id, id)
);
CREATE INDEX later_jobs_due ON tidemill.later_jobs (queue_id, run_at);
CREATE INDEX later_jobs_held ON tidemill.later_jobs (queue_id, held_key) WHERE held_key IS NOT NULL;

-- Jobs that claims have passed since their key was busy.
CREATE TABLE tidemill.blocked_jobs (
    queue_id int NOT NULL CONSTRAINT blocked_jobs_queue REFERENCES tidemill.queues ON DELETE CASCADE,
    key      bytea NOT NULL,
    place    bigint NOT NULL,
    CONSTRAINT blocked_jobs_pk PRIMARY KEY (queue_id, key, place)
);

-- Jobs that were given up on, until they are retried or dropped.
CREATE TABLE tidemill.dead_jobs (
    queue_id  int NOT NULL CONSTRAINT dead_jobs_queue REFERENCES tidemill.queues ON DELETE CASCADE,
    id        bigint NOT NULL,
    job       tidemill.job_row NOT NULL,
    worker    text,
    failed_at timestamptz NOT NULL,
    CONSTRAINT dead_jobs_pk PRIMARY KEY (queue_id, id)
);

-- Unique keys: taken while their job is not ended, and until free_at.
CREATE TABLE tidemill.job_keys (
    queue_id   int NOT NULL CONSTRAINT job_keys_queue REFERENCES tidemill.queues ON DELETE CASCADE,
    unique_key text NOT NULL,
    id         bigint NOT NULL,
    free_at    timestamptz,
    ended      boolean NOT NULL DEFAULT false,
    CONSTRAINT job_keys_pk PRIMARY KEY (queue_id, unique_key)
);
CREATE INDEX job_keys_ended ON tidemill.job_keys (queue_id, free_at) WHERE ended;

-- Which queues have a worker that waits for jobs: only then does an enqueue notify. Lost in a crash, which costs a poll.
CREATE UNLOGGED TABLE tidemill.queue_waiters (
    queue_id int CONSTRAINT queue_waiters_pk PRIMARY KEY,
    until    timestamptz NOT NULL
) WITH (fillfactor = 10);

-- Places: lane * 2^48 + number. Each priority has a lane for jobs as they come (even) and one for those that come again (odd),
-- which go first. The usual priority has lane 0, so that its ids are 1, 2, 3, ...
CREATE FUNCTION tidemill.lane_of(priority int) RETURNS int
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
AS $$ SELECT CASE priority WHEN 2 THEN 0 WHEN 1 THEN 2 WHEN 3 THEN 4 WHEN 4 THEN 6 END $$;

CREATE FUNCTION tidemill.priority_of(place bigint) RETURNS int
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
AS $$ SELECT ('{2,1,3,4}'::int[])[(place >> 49) + 1] $$;

CREATE FUNCTION tidemill.queue_named(queue text) RETURNS tidemill.queues
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    v_queue tidemill.queues;
BEGIN
    SELECT * INTO v_queue FROM tidemill.queues q WHERE q.name = queue;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no queue "%"', queue
            USING ERRCODE = 'TM001', HINT = 'SELECT name FROM tidemill.queues lists them; tidemill.create_queue makes one.';
    END IF;
    RETURN v_queue;
END $$;

-- One at a time, until the transaction ends: claims, and what moves jobs between places.
CREATE FUNCTION tidemill.lock_queue(queue_id int) RETURNS void
LANGUAGE sql
AS $$ SELECT pg_advisory_xact_lock(1953066341, queue_id) $$;

-- The table for a place, made if there is none. A table has as many places as the one before it, twice as many if that was
-- filled within half a minute, half as many if it lasted for an hour; 16,384 to 2,097,152.
CREATE FUNCTION tidemill.ensure_job_table(p_queue tidemill.queues, p_place bigint) RETURNS text
LANGUAGE plpgsql
AS $$
DECLARE
    v_lane int := p_place >> 48;
    v_last tidemill.job_tables;
    v_size bigint := 16384;
    v_name text;
BEGIN
    SELECT t.table_name INTO v_name FROM tidemill.job_tables t
     WHERE t.queue_id = p_queue.queue_id AND t.lane = v_lane AND t.first <= p_place AND t.upper > p_place;
    IF FOUND THEN
        RETURN v_name;
    END IF;
    PERFORM pg_advisory_xact_lock(1953066342, p_queue.queue_id);
    LOOP
        SELECT * INTO v_last FROM tidemill.job_tables t
         WHERE t.queue_id = p_queue.queue_id AND t.lane = v_lane ORDER BY t.first DESC LIMIT 1;
        IF v_last.upper > p_place THEN
            RETURN v_last.table_name;
        END IF;
        IF v_last.upper IS NULL THEN
            -- A lane whose tables are all dropped goes on where its numbers are.
            v_last.upper := p_place & ~16383::bigint;
        ELSE
            v_size := v_last.upper - v_last.first;
            IF clock_timestamp() - v_last.created_at < interval '30 s' THEN
                v_size := least(v_size * 2, 2097152);
            ELSIF clock_timestamp() - v_last.created_at > interval '1 h' THEN
                v_size := greatest(v_size / 2, 16384);
            END IF;
        END IF;
        v_name := format('%s_%s_%s', p_queue.name, v_lane, v_last.upper & 281474976710655);
        EXECUTE format('CREATE TABLE jobs.%I OF tidemill.job_row (
                            PRIMARY KEY (place), enqueued_at WITH OPTIONS NOT NULL, payload WITH OPTIONS NOT NULL)
                        WITH (autovacuum_enabled = false)', v_name);
        IF v_lane & 1 = 1 THEN
            EXECUTE format('CREATE INDEX ON jobs.%I (id)', v_name);
        END IF;
        INSERT INTO tidemill.job_tables (queue_id, lane, first, upper, table_name)
        VALUES (p_queue.queue_id, v_lane, v_last.upper, v_last.upper + v_size, v_name);
    END LOOP;
END $$;

-- The table for jobs that end now. One spans a quarter of the time that they are kept, a minute to a day.
CREATE FUNCTION tidemill.ensure_ended_table(p_queue tidemill.queues, p_at timestamptz) RETURNS text
LANGUAGE plpgsql
AS $$
DECLARE
    v_at    bigint := extract(epoch FROM p_at);
    v_span  bigint := least(greatest(extract(epoch FROM p_queue.keep)::bigint / 4, 60), 86400);
    v_first bigint;
    v_name  text;
BEGIN
    SELECT t.table_name INTO v_name FROM tidemill.job_tables t
     WHERE t.queue_id = p_queue.queue_id AND t.lane IS NULL AND t.first <= v_at AND t.upper > v_at;
    IF FOUND THEN
        RETURN v_name;
    END IF;
    PERFORM pg_advisory_xact_lock(1953066342, p_queue.queue_id);
    SELECT t.table_name INTO v_name FROM tidemill.job_tables t
     WHERE t.queue_id = p_queue.queue_id AND t.lane IS NULL AND t.first <= v_at AND t.upper > v_at;
    IF FOUND THEN
        RETURN v_name;
    END IF;
    SELECT greatest(v_at / v_span * v_span, max(t.upper)) INTO v_first FROM tidemill.job_tables t
     WHERE t.queue_id = p_queue.queue_id AND t.lane IS NULL AND t.upper <= v_at;
    v_name := format('%s_ended_%s', p_queue.name, v_first);
    EXECUTE format('CREATE TABLE jobs.%I (
                        id bigint PRIMARY KEY, state text NOT NULL, priority int NOT NULL, attempt int NOT NULL,
                        max_attempts int NOT NULL, enqueued_at timestamptz NOT NULL, claimed_at timestamptz,
                        finished_at timestamptz NOT NULL, worker text, key bytea, headers jsonb, payload bytea NOT NULL,
                        result bytea, error text)', v_name);
    INSERT INTO tidemill.job_tables (queue_id, lane, first, upper, table_name)
    VALUES (p_queue.queue_id, NULL, v_first, v_first + v_span, v_name);
    RETURN v_name;
END $$;

-- Makes a queue, or gives an existing one these settings; those that are not named get their defaults. Durations are seconds.
-- Returns whether it was made.
CREATE FUNCTION tidemill.create_queue(name text, settings jsonb DEFAULT '{}') RETURNS boolean
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    v_queue      tidemill.queues;
    v_made       boolean;
    v_unknown    text;
    v_constraint text;
BEGIN
    IF create_queue.name IS NULL OR create_queue.name !~ '^[a-z][a-z0-9_]{0,47}$' THEN
        RAISE EXCEPTION '% is not a queue name', quote_nullable(create_queue.name)
            USING ERRCODE = 'TM005',
                  HINT = 'A queue name starts with a lower-case letter and goes on with lower-case letters, digits and underscores, at most 48 in all.';
    END IF;
    SELECT k INTO v_unknown FROM jsonb_object_keys(settings) k
     WHERE k NOT IN ('lease', 'max_attempts', 'backoff_first', 'backoff_longest', 'concurrency', 'per_key', 'ordered', 'keep', 'history')
     LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'a queue has no setting "%"', v_unknown
            USING ERRCODE = 'TM005', HINT = 'There are lease, max_attempts, backoff_first, backoff_longest, concurrency, per_key, ordered, keep, history; durations in seconds.';
    END IF;
    -- One at a time: two hosts that start make it once.
    PERFORM pg_advisory_xact_lock(1953066343, hashtext(create_queue.name));
    SELECT * INTO v_queue FROM tidemill.queues q WHERE q.name = create_queue.name;
    v_made := NOT FOUND;
    IF v_made THEN
        INSERT INTO tidemill.queues (name) VALUES (create_queue.name) RETURNING * INTO v_queue;
        FOR v_lane IN 0..7 LOOP
            EXECUTE format('CREATE SEQUENCE jobs.%I', format('%s_ids_%s', create_queue.name, v_lane));
        END LOOP;
        UPDATE tidemill.queues q
           SET sequences = ARRAY(SELECT format('jobs.%I', format('%s_ids_%s', create_queue.name, lane))::regclass::oid
                                   FROM generate_series(0, 7) lane ORDER BY lane)
         WHERE q.queue_id = v_queue.queue_id;
        INSERT INTO tidemill.queue_heads (queue_id, cursors)
        SELECT v_queue.queue_id, array_agg((lane << 48) + 1 ORDER BY lane) FROM generate_series(0::bigint, 7) lane;
        PERFORM tidemill.ensure_job_table(v_queue, 1);
    END IF;
    UPDATE tidemill.queues q
       SET lease = coalesce(make_interval(secs => (settings ->> 'lease')::float8), '30 s'),
           max_attempts = coalesce((settings ->> 'max_attempts')::int, 10),
           backoff_first = coalesce(make_interval(secs => (settings ->> 'backoff_first')::float8), '1 s'),
           backoff_longest = coalesce(make_interval(secs => (settings ->> 'backoff_longest')::float8), '1 h'),
           concurrency = (settings ->> 'concurrency')::int,
           per_key = (settings ->> 'per_key')::int,
           ordered = coalesce((settings ->> 'ordered')::boolean, false),
           keep = coalesce(make_interval(secs => (settings ->> 'keep')::float8), '1 h'),
           history = CASE WHEN settings ->> 'history' IS NOT NULL THEN tidemill.topic_id(settings ->> 'history') END
     WHERE q.queue_id = v_queue.queue_id;
    RETURN v_made;
EXCEPTION
    WHEN check_violation THEN
        GET STACKED DIAGNOSTICS v_constraint = CONSTRAINT_NAME;
        RAISE EXCEPTION 'queue "%" cannot have these settings: they break %', create_queue.name, v_constraint
            USING ERRCODE = 'TM005',
                  HINT = 'A lease lasts 1 second to 24 hours, max_attempts is 1 to 1000, backoff_longest at most 31 days, concurrency 1 to 10000, per_key 1 to 1000 and 1 where ordered, keep 0 to 30 days.';
    WHEN invalid_text_representation OR datetime_field_overflow OR numeric_value_out_of_range THEN
        RAISE EXCEPTION 'queue "%" cannot have these settings: %', create_queue.name, SQLERRM
            USING ERRCODE = 'TM005', HINT = 'Durations are seconds, limits whole numbers, ordered is true or false.';
END $$;

-- Drops a queue with all of its jobs.
CREATE FUNCTION tidemill.delete_queue(queue text) RETURNS void
LANGUAGE plpgsql
SET lock_timeout = '5s'
AS $$
DECLARE
    v_queue tidemill.queues := tidemill.queue_named(queue);
    v_table text;
BEGIN
    PERFORM tidemill.lock_queue(v_queue.queue_id);
    FOR v_table IN SELECT t.table_name FROM tidemill.job_tables t WHERE t.queue_id = v_queue.queue_id LOOP
        EXECUTE format('DROP TABLE jobs.%I', v_table);
    END LOOP;
    FOR v_lane IN 0..7 LOOP
        EXECUTE format('DROP SEQUENCE jobs.%I', format('%s_ids_%s', v_queue.name, v_lane));
    END LOOP;
    DELETE FROM tidemill.claims c WHERE c.queue_id = v_queue.queue_id;
    DELETE FROM tidemill.queue_waiters w WHERE w.queue_id = v_queue.queue_id;
    DELETE FROM tidemill.queues q WHERE q.queue_id = v_queue.queue_id;
END $$;

-- While a queue is paused its jobs are not claimed; those that run go on.
CREATE FUNCTION tidemill.pause_queue(queue text, paused boolean DEFAULT true) RETURNS void
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    v_queue tidemill.queues := tidemill.queue_named(queue);
BEGIN
    UPDATE tidemill.queues q SET paused = pause_queue.paused WHERE q.queue_id = v_queue.queue_id;
    PERFORM pg_notify('tidemill_jobs', queue);
END $$;

-- Writes jobs to the tables of their places.
CREATE FUNCTION tidemill.place_jobs(p_queue tidemill.queues, p_jobs tidemill.job_row[]) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    v_lane  int;
    v_first bigint;
    v_last  bigint;
    v_upper bigint;
    v_table text;
BEGIN
    FOR v_lane, v_first, v_last IN
        SELECT j.place >> 48, min(j.place), max(j.place) FROM unnest(p_jobs) j GROUP BY 1
    LOOP
        WHILE v_first <= v_last LOOP
            v_table := tidemill.ensure_job_table(p_queue, v_first);
            SELECT t.upper INTO v_upper FROM tidemill.job_tables t WHERE t.table_name = v_table;
            EXECUTE format('INSERT INTO jobs.%I SELECT j.* FROM unnest($1) j WHERE j.place >= $2 AND j.place < $3', v_table)
            USING p_jobs, v_first, v_upper;
            v_first := v_upper;
        END LOOP;
    END LOOP;
END $$;

-- Takes a unique key for a new job, or answers with the job that has it.
CREATE FUNCTION tidemill.take_key(p_queue tidemill.queues, p_key text, p_for interval, p_id bigint) RETURNS bigint
LANGUAGE plpgsql
AS $$
DECLARE
    v_owner bigint;
BEGIN
    INSERT INTO tidemill.job_keys AS k (queue_id, unique_key, id, free_at)
    VALUES (p_queue.queue_id, p_key, p_id, clock_timestamp() + p_for)
        ON CONFLICT (queue_id, unique_key) DO UPDATE
       SET id = excluded.id, free_at = excluded.free_at, ended = false
     WHERE k.ended AND coalesce(k.free_at, '-infinity') <= clock_timestamp()
    RETURNING k.id INTO v_owner;
    IF v_owner IS NULL THEN
        SELECT k.id INTO v_owner FROM tidemill.job_keys k WHERE k.queue_id = p_queue.queue_id AND k.unique_key = p_key;
    END IF;
    RETURN v_owner;
END $$;

-- Puts jobs into a queue, in the caller's transaction, and answers for each, in order, with its id and whether it is new: a
-- job whose unique key is taken is the one that has it. Arrays are NULL or as long as the payloads; elements may be NULL.
CREATE FUNCTION tidemill.enqueue_many(
    queue        text,
    payloads     bytea[],
    keys         bytea[] DEFAULT NULL,
    headers      jsonb[] DEFAULT NULL,
    priorities   int[] DEFAULT NULL,
    run_at       timestamptz[] DEFAULT NULL,
    unique_keys  text[] DEFAULT NULL,
    unique_for   interval[] DEFAULT NULL,
    max_attempts int[] DEFAULT NULL
) RETURNS TABLE (id bigint, created boolean)
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    v_queue  tidemill.queues := tidemill.queue_named(queue);
    v_now    timestamptz := clock_timestamp();
    v_count  int := coalesce(cardinality(payloads), 0);
    v_bad    text;
    v_places bigint[];
    v_ids    bigint[];
    v_new    boolean[];
    v_i      int;
    v_lane   int;
    v_first  bigint;
    v_last   bigint;
    v_upper  bigint;
    v_table  text;
    v_due    boolean := false;
BEGIN
    IF v_count = 0 THEN
        RETURN;
    END IF;
    SELECT CASE WHEN j.payload IS NULL THEN 'it has no payload'
                WHEN j.priority NOT BETWEEN 1 AND 4 THEN format('its priority is %s, and they go from 1 to 4', j.priority)
                WHEN v_queue.ordered AND j.priority <> 2 THEN 'the queue is ordered, so its jobs have no priority'
                WHEN length(j.key) > 1024 THEN 'its key is longer than 1,024 bytes'
                WHEN length(j.unique_key) > 1024 THEN 'its unique key is longer than 1,024 characters'
                WHEN length(j.payload) > 16777216 THEN 'its payload is larger than 16 MiB'
                WHEN j.max_attempts NOT BETWEEN 1 AND 1000 THEN format('its max_attempts is %s, and it goes from 1 to 1000', j.max_attempts)
                ELSE 'its unique_for is negative' END INTO v_bad
      FROM unnest(payloads, keys, priorities, unique_keys, unique_for, max_attempts)
           j(payload, key, priority, unique_key, unique_for, max_attempts)
     WHERE j.payload IS NULL OR j.priority NOT BETWEEN 1 AND 4 OR v_queue.ordered AND j.priority <> 2
        OR length(j.key) > 1024 OR length(j.unique_key) > 1024 OR length(j.payload) > 16777216
        OR j.max_attempts NOT BETWEEN 1 AND 1000 OR j.unique_for < interval '0' LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'a job cannot be put into queue "%": %', queue, v_bad USING ERRCODE = 'TM005';
    END IF;
    -- Before any number is drawn: see aging_since.
    PERFORM pg_current_xact_id();
    IF array_remove(priorities, NULL) <> '{}' THEN
        SELECT array_agg((tidemill.lane_of(coalesce(priorities[i], 2))::bigint << 48)
                         + nextval(v_queue.sequences[tidemill.lane_of(coalesce(priorities[i], 2)) + 1])) INTO v_places
          FROM generate_series(1, v_count) i;
    ELSE
        SELECT array_agg(nextval(v_queue.sequences[1])) INTO v_places FROM generate_series(1, v_count);
    END IF;
    v_ids := v_places;
    IF array_remove(unique_keys, NULL) <> '{}' THEN
        v_new := array_fill(true, ARRAY[v_count]);
        -- In the order of their keys, so that two transactions do not wait for each other.
        FOR v_i IN SELECT u.i FROM unnest(unique_keys) WITH ORDINALITY u(key, i) WHERE u.key IS NOT NULL ORDER BY u.key, u.i LOOP
            v_ids[v_i] := tidemill.take_key(v_queue, unique_keys[v_i], unique_for[v_i], v_places[v_i]);
            v_new[v_i] := v_ids[v_i] = v_places[v_i];
        END LOOP;
    END IF;
    IF array_remove(run_at, NULL) <> '{}' THEN
        INSERT INTO tidemill.later_jobs (queue_id, run_at, id, job)
        SELECT v_queue.queue_id, j.run_at, j.place,
               ROW(j.place, j.place, v_now, j.run_at, 0, j.max_attempts, false, j.key, tidemill.headers(j.headers), j.unique_key,
                   j.payload, NULL)::tidemill.job_row
          FROM unnest(v_places, v_new, run_at, max_attempts, keys, headers, unique_keys, payloads)
               j(place, new, run_at, max_attempts, key, headers, unique_key, payload)
         WHERE j.run_at > v_now AND j.new IS NOT false;
    END IF;
    FOR v_lane, v_first, v_last IN
        SELECT j.place >> 48, min(j.place), max(j.place) FROM unnest(v_places, v_new, run_at) j(place, new, run_at)
         WHERE j.new IS NOT false AND (j.run_at IS NULL OR j.run_at <= v_now) GROUP BY 1
    LOOP
        v_due := true;
        WHILE v_first <= v_last LOOP
            v_table := tidemill.ensure_job_table(v_queue, v_first);
            SELECT t.upper INTO v_upper FROM tidemill.job_tables t WHERE t.table_name = v_table;
            EXECUTE format('INSERT INTO jobs.%I (place, id, enqueued_at, attempt, max_attempts, key, headers, unique_key, payload)
                            SELECT j.place, j.place, $1, 0, j.max_attempts, j.key, %s, j.unique_key, j.payload
                              FROM unnest($2, $3, $4, $5, $6, $7, $8, $9) j(place, new, run_at, max_attempts, key, headers, unique_key, payload)
                             WHERE j.place >= $10 AND j.place < $11 AND j.new IS NOT false AND (j.run_at IS NULL OR j.run_at <= $1)',
                           v_table, CASE WHEN headers IS NULL THEN 'NULL' ELSE 'tidemill.headers(j.headers)' END)
            USING v_now, v_places, v_new, run_at, max_attempts, keys, headers, unique_keys, payloads, v_first, v_upper;
            v_first := v_upper;
        END LOOP;
    END LOOP;
    IF v_due AND EXISTS (SELECT FROM tidemill.queue_waiters w WHERE w.queue_id = v_queue.queue_id AND w.until > v_now) THEN
        PERFORM pg_notify('tidemill_jobs', queue);
    END IF;
    RETURN QUERY SELECT e.id, coalesce(e.new, true) FROM unnest(v_ids, v_new) WITH ORDINALITY e(id, new, i) ORDER BY e.i;
END $$;

-- Puts one job into a queue, in the caller's transaction.
CREATE FUNCTION tidemill.enqueue(
    queue        text,
    payload      jsonb,
    key          text DEFAULT NULL,
    priority     int DEFAULT NULL,
    run_at       timestamptz DEFAULT NULL,
    unique_key   text DEFAULT NULL,
    unique_for   interval DEFAULT NULL,
    max_attempts int DEFAULT NULL,
    headers      jsonb DEFAULT NULL,
    OUT id       bigint,
    OUT created  boolean
)
LANGUAGE sql
AS $$
    SELECT * FROM tidemill.enqueue_many(
        queue, ARRAY[convert_to(payload::text, 'UTF8')], ARRAY[convert_to(key, 'UTF8')], ARRAY[headers], ARRAY[priority],
        ARRAY[run_at], ARRAY[unique_key], ARRAY[unique_for], ARRAY[max_attempts])
$$;

-- Rows of jobs by their places.
CREATE FUNCTION tidemill.jobs_at(p_queue_id int, p_places bigint[]) RETURNS SETOF tidemill.job_row
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    v_table text;
BEGIN
    FOR v_table IN
        SELECT DISTINCT t.table_name FROM unnest(p_places) p(place)
          JOIN tidemill.job_tables t ON t.queue_id = p_queue_id AND t.lane = p.place >> 48 AND t.first <= p.place AND t.upper > p.place
    LOOP
        RETURN QUERY EXECUTE format('SELECT j.* FROM unnest($1) p(place) JOIN jobs.%I j ON j.place = p.place', v_table)
        USING p_places;
    END LOOP;
END $$;

-- A job that ends, with all that is to be known of it.
CREATE TYPE tidemill.ended_job AS (
    id           bigint,
    state        text,
    priority     int,
    attempt      int,
    max_attempts int,
    enqueued_at  timestamptz,
    claimed_at   timestamptz,
    finished_at  timestamptz,
    worker       text,
    key          bytea,
    headers      jsonb,
    payload      bytea,
    result       bytea,
    error        text
);

-- A key in JSON: text, or {"base64": "..."} as headers have it where it is none.
CREATE FUNCTION tidemill.key_json(key bytea) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL RESTRICTED
AS $$
BEGIN
    RETURN to_jsonb(convert_from(key, 'UTF8'));
EXCEPTION WHEN data_exception OR untranslatable_character THEN
    RETURN jsonb_build_object('base64', encode(key, 'base64'));
END $$;

-- Writes down jobs that ended: where they can be looked at, in the queue's history, and that their unique keys are free.
CREATE FUNCTION tidemill.end_jobs(p_queue tidemill.queues, p_ended tidemill.ended_job[], p_uniques text[]) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    v_now        timestamptz := clock_timestamp();
    v_partitions int;
    v_batch      record;
BEGIN
    IF p_queue.keep > interval '0' THEN
        -- A dead job is kept whole elsewhere, so only the others.
        EXECUTE format('INSERT INTO jobs.%I SELECT (e).* FROM unnest($1) e WHERE e.state <> ''dead''
                            ON CONFLICT (id) DO NOTHING', tidemill.ensure_ended_table(p_queue, v_now))
        USING p_ended;
    END IF;
    IF array_remove(p_uniques, NULL) <> '{}' THEN
        UPDATE tidemill.job_keys k SET ended = true
         WHERE k.queue_id = p_queue.queue_id AND k.unique_key = ANY (p_uniques) AND k.free_at > v_now
           AND k.id IN (SELECT e.id FROM unnest(p_ended) e);
        DELETE FROM tidemill.job_keys k
         WHERE k.queue_id = p_queue.queue_id AND k.unique_key = ANY (p_uniques) AND coalesce(k.free_at, v_now) <= v_now
           AND k.id IN (SELECT e.id FROM unnest(p_ended) e);
    END IF;
    IF p_queue.history IS NOT NULL THEN
        SELECT t.partitions INTO v_partitions FROM tidemill.topics t WHERE t.topic_id = p_queue.history;
        -- The counters last, since their locks are held until the commit.
        FOR v_batch IN
            SELECT r.partition, array_agg(r.payload ORDER BY r.id) AS payloads, array_agg(r.key ORDER BY r.id) AS keys
              FROM (SELECT e.id, e.key, tidemill.partition_of(coalesce(e.key, int8send(e.id)), v_partitions) AS partition,
                           convert_to(jsonb_build_object(
                               'queue', p_queue.name, 'id', e.id, 'state', e.state, 'priority', e.priority,
                               'attempt', e.attempt, 'worker', e.worker,
                               'key', tidemill.key_json(e.key),
                               'enqueued_at', tidemill.micros(e.enqueued_at), 'claimed_at', tidemill.micros(e.claimed_at),
                               'finished_at', tidemill.micros(e.finished_at), 'error', e.error,
                               'payload', coalesce(tidemill.try_json(e.payload), to_jsonb(encode(e.payload, 'base64'))),
                               'result', coalesce(tidemill.try_json(e.result), to_jsonb(encode(e.result, 'base64')))
                           )::text, 'UTF8') AS payload
                      FROM unnest(p_ended) e) r
             GROUP BY r.partition ORDER BY r.partition
        LOOP
            PERFORM tidemill.append_batch(p_queue.history, v_batch.partition, v_batch.payloads, v_batch.keys);
        END LOOP;
    END IF;
END $$;

-- The wait before a job runs again that has failed so often: twice as long each time, and a tenth more or less by chance.
CREATE FUNCTION tidemill.backoff(p_queue tidemill.queues, p_attempt int) RETURNS interval
LANGUAGE sql VOLATILE
AS $$
    SELECT least(p_queue.backoff_first * power(2::float8, least(p_attempt - 1, 40)), p_queue.backoff_longest)
           * (0.9 + 0.2 * random())
$$;

-- Writes down jobs that are done where they can be looked at, if they can be, straight from their tables. What end_runs does, for
-- jobs of which nothing else is to be said.
CREATE FUNCTION tidemill.keep_done(p_queue tidemill.queues, p_claim tidemill.claims, p_places bigint[], p_results bytea[])
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    v_now   timestamptz;
    v_ended text;
    v_table text;
BEGIN
    IF p_queue.keep = interval '0' THEN
        RETURN;
    END IF;
    v_now := clock_timestamp();
    v_ended := tidemill.ensure_ended_table(p_queue, v_now);
    FOR v_table IN
        SELECT t.table_name FROM tidemill.job_tables t
         WHERE t.queue_id = p_queue.queue_id AND t.lane >= 0
           AND EXISTS (SELECT FROM unnest(p_places) p(place) WHERE t.first <= p.place AND t.upper > p.place)
    LOOP
        EXECUTE format('INSERT INTO jobs.%I
                        SELECT j.id, ''done'', tidemill.priority_of(j.place), j.attempt + 1, coalesce(j.max_attempts, $1),
                               j.enqueued_at, $2, $3, $4, j.key, j.headers, j.payload, %s, NULL
                          FROM jobs.%I j WHERE j.place = ANY ($5) ON CONFLICT (id) DO NOTHING',
                       v_ended, CASE WHEN p_results IS NULL THEN 'NULL' ELSE '($6)[array_position($5, j.place)]' END, v_table)
        USING p_queue.max_attempts, p_claim.claimed_at, v_now, p_claim.worker, p_places, p_results;
    END LOOP;
END $$;

-- Ends runs of jobs that a claim held, as their verdicts say: done, retry, snooze, reject, cancel, or lost (the worker fell
-- silent; the lock of the queue is held). The claim's row is the caller's to change, in the same transaction.
CREATE FUNCTION tidemill.end_runs(
    p_queue tidemill.queues, p_claim tidemill.claims, p_places bigint[], p_verdicts text[], p_results bytea[], p_errors text[],
    p_after interval[]
) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    v_now     timestamptz := clock_timestamp();
    v_ended   tidemill.ended_job[];
    v_uniques text[];
BEGIN
    IF p_queue.history IS NULL AND p_claim.uniques IS NULL AND 'done' = ALL (p_verdicts) THEN
        PERFORM tidemill.keep_done(p_queue, p_claim, p_places, p_results);
        RETURN;
    END IF;
    WITH run AS MATERIALIZED (
        SELECT j, v.verdict, v.result, v.error, v.after,
               CASE v.verdict
                   WHEN 'done' THEN 'done' WHEN 'cancel' THEN 'cancelled' WHEN 'reject' THEN 'dead' WHEN 'snooze' THEN 'later'
                   ELSE CASE WHEN j.attempt + 1 < coalesce(j.max_attempts, p_queue.max_attempts) THEN 'later' ELSE 'dead' END
               END AS outcome,
               coalesce(nullif(v.error, ''),
                        CASE WHEN v.verdict = 'lost' THEN format('worker "%s" was silent for longer than its lease of %s',
                                                                 p_claim.worker, p_claim.lease) END) AS reason
          FROM tidemill.jobs_at(p_queue.queue_id, p_places) j
          JOIN unnest(p_places, p_verdicts, p_results, p_errors, p_after) v(place, verdict, result, error, after) ON v.place = j.place
    ), later AS (
        INSERT INTO tidemill.later_jobs (queue_id, run_at, job, id, held_key)
        SELECT p_queue.queue_id,
               d.due,
               ROW((r.j).place, (r.j).id, (r.j).enqueued_at, d.due, (r.j).attempt + (r.verdict <> 'snooze')::int, (r.j).max_attempts,
                   p_queue.ordered AND (r.j).key IS NOT NULL, (r.j).key, (r.j).headers, (r.j).unique_key, (r.j).payload,
                   coalesce(left(r.reason, 4096), (r.j).error))::tidemill.job_row,
               (r.j).id,
               CASE WHEN p_queue.ordered THEN (r.j).key END
          FROM run r
         CROSS JOIN LATERAL (
             SELECT v_now + CASE WHEN r.verdict = 'lost' THEN interval '0'
                                 ELSE least(coalesce(r.after, tidemill.backoff(p_queue, (r.j).attempt + 1)), '10 years') END) d(due)
         WHERE r.outcome = 'later'
    ), dead AS (
        INSERT INTO tidemill.dead_jobs (queue_id, id, job, worker, failed_at)
        SELECT p_queue.queue_id, (r.j).id,
               ROW((r.j).place, (r.j).id, (r.j).enqueued_at, (r.j).due_at, (r.j).attempt + 1, (r.j).max_attempts, false, (r.j).key,
                   (r.j).headers, (r.j).unique_key, (r.j).payload, left(r.reason, 4096))::tidemill.job_row,
               p_claim.worker, v_now
          FROM run r WHERE r.outcome = 'dead'
    )
    SELECT array_agg(ROW((r.j).id, r.outcome, tidemill.priority_of((r.j).place), (r.j).attempt + 1,
                         coalesce((r.j).max_attempts, p_queue.max_attempts), (r.j).enqueued_at, p_claim.claimed_at, v_now,
                         p_claim.worker, (r.j).key, (r.j).headers, (r.j).payload, r.result,
                         left(r.reason, 4096))::tidemill.ended_job),
           array_agg((r.j).unique_key)
      INTO v_ended, v_uniques
      FROM run r WHERE r.outcome <> 'later';
    IF v_ended IS NOT NULL THEN
        PERFORM tidemill.end_jobs(p_queue, v_ended, v_uniques);
    END IF;
END $$;

-- What a queue does for itself, under its lock: jobs that are due get their places, claims that lapsed are given up, gaps are
-- forgotten, tables are made ahead and dropped. Claims call it, so it needs no host.
CREATE FUNCTION tidemill.tend_queue(p_queue tidemill.queues, p_head tidemill.queue_heads) RETURNS tidemill.queue_heads
LANGUAGE plpgsql
AS $$
DECLARE
    v_now   timestamptz := clock_timestamp();
    v_claim tidemill.claims;
    v_jobs  tidemill.job_row[];
    v_lane  int;
    v_last  bigint;
    v_table tidemill.job_tables;
BEGIN
    FOR v_claim IN
        SELECT * FROM tidemill.claims c
         WHERE c.claim >= p_head.oldest_claim AND c.queue_id = p_queue.queue_id AND c.expires_at < v_now
         ORDER BY c.claim LIMIT 100 FOR UPDATE SKIP LOCKED
    LOOP
        PERFORM tidemill.end_runs(p_queue, v_claim, v_claim.places, array_fill('lost'::text, ARRAY[cardinality(v_claim.places)]),
                                  NULL, NULL, NULL);
        DELETE FROM tidemill.claims c WHERE c.claim = v_claim.claim;
    END LOOP;
    SELECT coalesce(min(c.claim), p_head.last_claim) INTO p_head.oldest_claim FROM tidemill.claims c
     WHERE c.claim >= p_head.oldest_claim AND c.queue_id = p_queue.queue_id;

    WITH due AS (
        DELETE FROM tidemill.later_jobs l
         WHERE l.ctid = ANY (ARRAY(SELECT d.ctid FROM tidemill.later_jobs d
                                    WHERE d.queue_id = p_queue.queue_id AND d.run_at <= clock_timestamp()
                                    ORDER BY d.run_at LIMIT 1000 FOR UPDATE SKIP LOCKED))
        RETURNING l.job, l.run_at)
    SELECT array_agg(ROW(p.place, (d.job).id, (d.job).enqueued_at, d.run_at, (d.job).attempt, (d.job).max_attempts, (d.job).held,
                         (d.job).key, (d.job).headers, (d.job).unique_key, (d.job).payload, (d.job).error)::tidemill.job_row)
      INTO v_jobs
      FROM (SELECT * FROM due ORDER BY run_at) d
     CROSS JOIN LATERAL (SELECT ((d.job).place >> 48) | 1 AS lane) l
     CROSS JOIN LATERAL (SELECT (l.lane << 48) + nextval(p_queue.sequences[l.lane + 1]) WHERE d.run_at IS NOT NULL) p(place);
    IF v_jobs IS NOT NULL THEN
        PERFORM tidemill.place_jobs(p_queue, v_jobs);
    END IF;
    -- With that many there are more.
    p_head.tended_at := CASE WHEN cardinality(v_jobs) = 1000 THEN '-infinity' ELSE v_now END;

    FOR v_lane IN 0..7 LOOP
        v_last := pg_sequence_last_value(p_queue.sequences[v_lane + 1]);
        IF v_last IS NOT NULL THEN
            SELECT * INTO v_table FROM tidemill.job_tables t
             WHERE t.queue_id = p_queue.queue_id AND t.lane = v_lane ORDER BY t.first DESC LIMIT 1;
            v_last := (v_lane::bigint << 48) + v_last;
            IF v_table.upper IS NULL OR v_table.upper - v_last < (v_table.upper - v_table.first) / 2 THEN
                PERFORM tidemill.ensure_job_table(p_queue, greatest(v_table.upper, v_last));
            END IF;
        END IF;
    END LOOP;
    IF p_queue.keep > interval '0' THEN
        PERFORM tidemill.ensure_ended_table(p_queue, v_now);
        PERFORM tidemill.ensure_ended_table(p_queue, v_now + least(greatest(p_queue.keep / 8, '30 s'), '12 h'));
    END IF;

    IF p_head.swept_at < v_now - interval '2 s' THEN
        p_head.swept_at := v_now;
        DELETE FROM tidemill.job_keys k
         WHERE k.ctid = ANY (ARRAY(SELECT o.ctid FROM tidemill.job_keys o
                                    WHERE o.queue_id = p_queue.queue_id AND o.ended AND o.free_at <= v_now LIMIT 1000));
        PERFORM tidemill.drop_job_tables(p_queue, p_head);
    END IF;
    RETURN p_head;
END $$;

-- Drops tables in which nothing is open any more. A few at a time, and none that somebody reads just now.
CREATE FUNCTION tidemill.drop_job_tables(p_queue tidemill.queues, p_head tidemill.queue_heads) RETURNS void
LANGUAGE plpgsql
SET lock_timeout = '50ms'
AS $$
DECLARE
    v_table tidemill.job_tables;
BEGIN
    FOR v_table IN
        SELECT * FROM tidemill.job_tables t
         WHERE t.queue_id = p_queue.queue_id
           AND CASE WHEN t.lane IS NULL THEN to_timestamp(t.upper) + p_queue.keep < clock_timestamp()
               ELSE t.upper <= p_head.cursors[t.lane + 1]
                AND NOT p_head.gaps && int8range(t.first, t.upper)
                AND NOT EXISTS (SELECT FROM tidemill.blocked_jobs b
                                 WHERE b.queue_id = t.queue_id AND b.place >= t.first AND b.place < t.upper)
                AND NOT EXISTS (SELECT FROM tidemill.claims c, unnest(c.places) place
                                 WHERE c.queue_id = t.queue_id AND c.claim >= p_head.oldest_claim
                                   AND place >= t.first AND place < t.upper) END
         ORDER BY t.lane, t.first LIMIT 4
    LOOP
        EXECUTE format('DROP TABLE jobs.%I', v_table.table_name);
        DELETE FROM tidemill.job_tables t WHERE t.table_name = v_table.table_name;
    END LOOP;
EXCEPTION WHEN lock_not_available THEN
    NULL;
END $$;

-- Claims up to max_jobs jobs for a worker, in the order of priority, jobs that come again first. They are the worker's until
-- the lease ends, unless it is extended, and have to be ended with the claim's number. Call it on its own, not inside a longer
-- transaction: the queue is locked until the commit. relaxed: the commit does not wait for the disk, since a claim that a crash
-- of the server takes back leads to nothing but another run.
CREATE FUNCTION tidemill.claim_jobs(
    queue    text,
    max_jobs int DEFAULT 1,
    worker   text DEFAULT NULL,
    lease    interval DEFAULT NULL,
    relaxed  boolean DEFAULT false
) RETURNS TABLE (
    claim bigint, id bigint, attempt int, max_attempts int, priority int, key bytea, headers jsonb, payload bytea,
    enqueued_at timestamptz, due_at timestamptz
)
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_bitmapscan = off
AS $$
#variable_conflict use_column
DECLARE
    v_queue   tidemill.queues := tidemill.queue_named(queue);
    v_fresh   boolean := pg_current_xact_id_if_assigned() IS NULL;
    v_head    tidemill.queue_heads;
    v_before  tidemill.queue_heads;
    v_now     timestamptz;
    v_want    int := least(max_jobs, 10000);
    v_settled boolean;
    v_lease   interval := coalesce(claim_jobs.lease, v_queue.lease);
    v_lane    int;
    v_last    bigint;
    v_table   record;
    v_found   tidemill.job_row[];
    v_taken   tidemill.job_row[];
    v_jobs    tidemill.job_row[] := '{}';
    v_claim   bigint;
    v_keyed   boolean := v_queue.ordered OR v_queue.per_key IS NOT NULL;
    v_gappy   boolean := false;
BEGIN
    IF v_lease NOT BETWEEN interval '1 s' AND interval '24 h' THEN
        RAISE EXCEPTION 'a lease lasts from 1 second to 24 hours, not %', v_lease USING ERRCODE = 'TM005';
    END IF;
    IF relaxed THEN
        PERFORM set_config('synchronous_commit', 'off', true);
    END IF;
    PERFORM pg_advisory_xact_lock(1953066341, v_queue.queue_id);
    SELECT * INTO v_head FROM tidemill.queue_heads h
     WHERE h.queue_id = v_queue.queue_id ORDER BY h.generation DESC LIMIT 1;
    v_before := v_head;
    v_now := clock_timestamp();
    IF v_head.tended_at < v_now - interval '200 ms' THEN
        v_head := tidemill.tend_queue(v_queue, v_head);
    END IF;
    IF v_queue.paused THEN
        v_want := 0;
    ELSIF v_queue.concurrency IS NOT NULL THEN
        SELECT least(v_want, v_queue.concurrency - coalesce(sum(cardinality(c.places)), 0)) INTO v_want
          FROM tidemill.claims c WHERE c.claim >= v_head.oldest_claim AND c.queue_id = v_queue.queue_id;
    END IF;

    IF v_want > 0 AND v_head.gaps <> '{}' THEN
        -- Before the gaps are looked at, so that what is settled is also seen.
        v_settled := pg_snapshot_xmin(pg_current_snapshot()) >= v_head.aging_since;
        v_gappy := (SELECT count(*) > 1000 FROM unnest(v_head.gaps));
        v_found := '{}';
        FOR v_table IN
            SELECT t.table_name, array_agg(g) AS gaps FROM unnest(v_head.gaps) g
              JOIN tidemill.job_tables t ON t.queue_id = v_queue.queue_id AND t.lane = lower(g) >> 48
               AND int8range(t.first, t.upper) && g
             GROUP BY t.table_name ORDER BY t.table_name
        LOOP
            EXECUTE format('SELECT $1 || array_agg(f.job) FROM (
                                SELECT j::tidemill.job_row AS job FROM unnest($2) g
                                  JOIN jobs.%I j ON j.place >= lower(g) AND j.place < upper(g) LIMIT $3) f',
                           v_table.table_name)
            INTO v_found USING v_found, v_table.gaps, v_want - cardinality(v_found);
        END LOOP;
        IF cardinality(v_found) > 0 THEN
            SELECT v_head.gaps - range_agg(int8range(j.place, j.place + 1)) INTO v_head.gaps FROM unnest(v_found) j;
            v_head.aging := v_head.aging * v_head.gaps;
        END IF;
        IF v_settled AND cardinality(v_found) < v_want THEN
            v_head.gaps := v_head.gaps - v_head.aging;
            v_head.aging := '{}';
        END IF;
        v_jobs := CASE WHEN v_keyed THEN tidemill.let_in(v_queue, v_head, v_jobs, v_found) ELSE v_found END;
        v_want := v_want - cardinality(v_jobs);
    END IF;

    FOREACH v_lane IN ARRAY '{3,2,1,0,5,4,7,6}'::int[] LOOP
        EXIT WHEN v_want <= 0;
        IF v_keyed AND v_lane & 1 = 0 THEN
            v_taken := tidemill.unblock(v_queue, v_head, v_jobs, v_lane, v_want);
            IF cardinality(v_taken) > 0 THEN
                v_head.turn := v_taken[cardinality(v_taken)].key;
                v_jobs := v_jobs || v_taken;
                v_want := v_want - cardinality(v_taken);
            END IF;
        END IF;
        v_last := (v_lane::bigint << 48) + coalesce(pg_sequence_last_value(v_queue.sequences[v_lane + 1]), 0);
        -- A turn takes as many as are wanted; those of busy keys are put aside, and the next turn goes on behind them.
        FOR v_turn IN 1..10 LOOP
            EXIT WHEN v_want <= 0 OR v_last < v_head.cursors[v_lane + 1] OR v_gappy;
            v_found := '{}';
            FOR v_table IN
                SELECT t.table_name, t.upper FROM tidemill.job_tables t
                 WHERE t.queue_id = v_queue.queue_id AND t.lane = v_lane AND t.upper > v_head.cursors[v_lane + 1]
                   AND t.first <= v_last ORDER BY t.first
            LOOP
                EXECUTE format('SELECT $1 || array_agg(f.job) FROM (
                                    SELECT j::tidemill.job_row AS job FROM jobs.%I j
                                     WHERE j.place >= $2 ORDER BY j.place LIMIT $3) f', v_table.table_name)
                INTO v_found USING v_found, v_head.cursors[v_lane + 1], v_want - cardinality(v_found);
                EXIT WHEN cardinality(v_found) >= v_want;
            END LOOP;
            EXIT WHEN cardinality(v_found) = 0;
            v_last := greatest(v_last, v_found[cardinality(v_found)].place);
            IF v_found[cardinality(v_found)].place - v_head.cursors[v_lane + 1] + 1 > cardinality(v_found) THEN
                SELECT v_head.gaps + (int8multirange(int8range(v_head.cursors[v_lane + 1], max(j.place)))
                                      - range_agg(int8range(j.place, j.place + 1)))
                  INTO v_head.gaps FROM unnest(v_found) j;
                v_gappy := (SELECT count(*) > 1000 FROM unnest(v_head.gaps));
            END IF;
            v_head.cursors[v_lane + 1] := v_found[cardinality(v_found)].place + 1;
            IF v_keyed THEN
                v_found := tidemill.let_in(v_queue, v_head, v_jobs, v_found);
            END IF;
            v_jobs := v_jobs || v_found;
            v_want := v_want - cardinality(v_found);
        END LOOP;
    END LOOP;

    -- A transaction gets its own number before it draws those of jobs, and what earlier claims have missed was drawn before this
    -- one began, whose number is therefore higher than that of whoever left the gap.
    IF v_head.aging = '{}' AND v_head.gaps * v_before.gaps <> '{}' AND v_fresh THEN
        v_head.aging := v_head.gaps * v_before.gaps;
        v_head.aging_since := pg_current_xact_id();
    END IF;
    IF cardinality(v_jobs) > 0 THEN
        v_claim := greatest(((extract(epoch FROM v_now) * 1000000)::bigint << 10) + floor(random() * 1024)::bigint, v_head.last_claim + 1);
        v_head.last_claim := v_claim;
        INSERT INTO tidemill.claims (claim, queue_id, worker, lease, claimed_at, expires_at, places, ids, keys, uniques)
        SELECT v_claim, v_queue.queue_id, coalesce(worker, nullif(current_setting('application_name'), ''), 'sql'), v_lease, v_now,
               v_now + v_lease, array_agg(j.place),
               CASE WHEN bool_or(j.id <> j.place) THEN array_agg(j.id) END,
               CASE WHEN bool_or(j.key IS NOT NULL) THEN array_agg(j.key) END,
               CASE WHEN bool_or(j.unique_key IS NOT NULL) THEN array_agg(j.unique_key) END
          FROM unnest(v_jobs) j;
    END IF;
    IF v_head IS DISTINCT FROM v_before THEN
        -- Here and not in a function of its own: a claim has this to itself, and it is a tenth of what a claim takes.
        IF v_head.uses < 200 THEN
            UPDATE tidemill.queue_heads h
               SET uses = v_head.uses + 1, cursors = v_head.cursors, gaps = v_head.gaps, aging = v_head.aging,
                   aging_since = v_head.aging_since, last_claim = v_head.last_claim, oldest_claim = v_head.oldest_claim,
                   turn = v_head.turn, tended_at = v_head.tended_at, swept_at = v_head.swept_at
             WHERE h.queue_id = v_head.queue_id AND h.generation = v_head.generation;
        ELSE
            PERFORM tidemill.renew_head(v_head);
        END IF;
    END IF;
    RETURN QUERY
    SELECT v_claim, j.id, j.attempt + 1, coalesce(j.max_attempts, v_queue.max_attempts), tidemill.priority_of(j.place), j.key,
           j.headers, j.payload, j.enqueued_at, coalesce(j.due_at, j.enqueued_at)
      FROM unnest(v_jobs) j;
END $$;

-- Writes a head back as a new row.
CREATE FUNCTION tidemill.renew_head(p_head tidemill.queue_heads) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    DELETE FROM tidemill.queue_heads h WHERE h.queue_id = p_head.queue_id AND h.generation = p_head.generation;
    p_head.generation := p_head.generation + 1;
    p_head.uses := 0;
    INSERT INTO tidemill.queue_heads SELECT (p_head).*;
END $$;

-- Which of the jobs that were found may run now; the others are put aside until their key is free.
CREATE FUNCTION tidemill.let_in(
    p_queue tidemill.queues, p_head tidemill.queue_heads, p_jobs tidemill.job_row[], p_found tidemill.job_row[]
) RETURNS tidemill.job_row[]
LANGUAGE plpgsql
AS $$
DECLARE
    v_limit int := CASE WHEN p_queue.ordered THEN 1 ELSE p_queue.per_key END;
    v_in    tidemill.job_row[];
    v_out   tidemill.job_row[];
BEGIN
    WITH busy AS MATERIALIZED (
        SELECT k.key, count(*) AS jobs
          FROM (SELECT unnest(c.keys) AS key FROM tidemill.claims c
                 WHERE c.claim >= p_head.oldest_claim AND c.queue_id = p_queue.queue_id
                UNION ALL SELECT j.key FROM unnest(p_jobs) j) k
         WHERE k.key IS NOT NULL GROUP BY k.key
    ), sorted AS (
        SELECT f.job, f.i,
               (f.job).key IS NULL
               -- It has the turn of its key since it ran before.
               OR (f.job).held IS TRUE
               OR (row_number() OVER (PARTITION BY (f.job).key ORDER BY f.i)
                     + coalesce((SELECT b.jobs FROM busy b WHERE b.key = (f.job).key), 0) <= v_limit
                   AND NOT EXISTS (SELECT FROM tidemill.blocked_jobs b
                                    WHERE b.queue_id = p_queue.queue_id AND b.key = (f.job).key)
                   AND NOT EXISTS (SELECT FROM tidemill.later_jobs l
                                    WHERE l.queue_id = p_queue.queue_id AND l.held_key = (f.job).key)) AS free
          FROM (SELECT (p_found)[i] AS job, i FROM generate_subscripts(p_found, 1) i) f
    )
    SELECT array_agg(s.job ORDER BY s.i) FILTER (WHERE s.free), array_agg(s.job ORDER BY s.i) FILTER (WHERE NOT s.free)
      INTO v_in, v_out FROM sorted s;
    INSERT INTO tidemill.blocked_jobs (queue_id, key, place)
    SELECT p_queue.queue_id, j.key, j.place FROM unnest(v_out) j;
    RETURN coalesce(v_in, '{}');
END $$;

-- Jobs of a lane that were put aside and whose keys are free now, as many as are wanted. Keys take turns.
CREATE FUNCTION tidemill.unblock(
    p_queue tidemill.queues, p_head tidemill.queue_heads, p_jobs tidemill.job_row[], p_lane int, p_want int
) RETURNS tidemill.job_row[]
LANGUAGE plpgsql
AS $$
DECLARE
    v_limit  int := CASE WHEN p_queue.ordered THEN 1 ELSE p_queue.per_key END;
    v_busy   jsonb;
    v_key    bytea := p_head.turn;
    v_next   bytea;
    v_round  int := 1;
    v_free   int;
    v_some   bigint[];
    v_places bigint[] := '{}';
BEGIN
    IF NOT EXISTS (SELECT FROM tidemill.blocked_jobs b WHERE b.queue_id = p_queue.queue_id) THEN
        RETURN '{}';
    END IF;
    SELECT coalesce(jsonb_object_agg(encode(k.key, 'hex'), k.jobs), '{}') INTO v_busy
      FROM (SELECT key, count(*) AS jobs
              FROM (SELECT unnest(c.keys) AS key FROM tidemill.claims c
                     WHERE c.claim >= p_head.oldest_claim AND c.queue_id = p_queue.queue_id
                    UNION ALL SELECT j.key FROM unnest(p_jobs) j) each
             WHERE key IS NOT NULL GROUP BY key) k;
    FOR v_step IN 1..100000 LOOP
        EXIT WHEN cardinality(v_places) >= p_want;
        SELECT b.key INTO v_next FROM tidemill.blocked_jobs b
         WHERE b.queue_id = p_queue.queue_id AND b.key > v_key ORDER BY b.key LIMIT 1;
        IF v_next IS NULL OR (v_round = 2 AND v_next > p_head.turn) THEN
            EXIT WHEN v_round = 2;
            v_round := 2;
            v_key := '';
            CONTINUE WHEN v_next IS NULL OR p_head.turn <> '';
            EXIT;
        END IF;
        v_key := v_next;
        v_free := v_limit - coalesce((v_busy ->> encode(v_key, 'hex'))::int, 0);
        IF v_free > 0 AND NOT EXISTS (SELECT FROM tidemill.later_jobs l
                                       WHERE l.queue_id = p_queue.queue_id AND l.held_key = v_key) THEN
            WITH gone AS (
                DELETE FROM tidemill.blocked_jobs b
                 WHERE b.queue_id = p_queue.queue_id AND b.key = v_key
                   AND b.place = ANY (ARRAY(SELECT o.place FROM tidemill.blocked_jobs o
                                             WHERE o.queue_id = p_queue.queue_id AND o.key = v_key AND o.place >> 49 = p_lane >> 1
                                             ORDER BY o.place LIMIT least(v_free, p_want - cardinality(v_places))))
                RETURNING b.place)
            SELECT coalesce(array_agg(g.place ORDER BY g.place), '{}') INTO v_some FROM gone g;
            v_places := v_places || v_some;
        END IF;
    END LOOP;
    RETURN coalesce((SELECT array_agg(j ORDER BY array_position(v_places, j.place))
                       FROM tidemill.jobs_at(p_queue.queue_id, v_places) j), '{}');
END $$;

-- The claim, locked until the commit, if it still holds jobs and its lease has not ended. While it is locked nobody else gets its
-- jobs, so a session with a limit to idle transactions gets one no longer than the lease: its worker may have been stopped here.
CREATE FUNCTION tidemill.held_claim(p_claim bigint) RETURNS tidemill.claims
LANGUAGE plpgsql
AS $$
DECLARE
    v_claim tidemill.claims;
BEGIN
    SELECT * INTO v_claim FROM tidemill.claims c WHERE c.claim = p_claim AND c.expires_at >= clock_timestamp() FOR UPDATE;
    IF current_setting('idle_in_transaction_session_timeout')::interval > v_claim.lease THEN
        PERFORM set_config('idle_in_transaction_session_timeout', (extract(epoch FROM v_claim.lease) * 1000)::int::text, true);
    END IF;
    RETURN v_claim;
END $$;

-- Lets a claim last so much longer from now on (NULL: as long as it was made for), and answers until when. TM003: it has lapsed,
-- or nothing of it is open.
CREATE FUNCTION tidemill.extend_claim(claim bigint, lease interval DEFAULT NULL) RETURNS timestamptz
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    v_until timestamptz;
BEGIN
    IF extend_claim.lease NOT BETWEEN interval '1 s' AND interval '24 h' THEN
        RAISE EXCEPTION 'a lease lasts from 1 second to 24 hours, not %', extend_claim.lease USING ERRCODE = 'TM005';
    END IF;
    UPDATE tidemill.claims c SET expires_at = clock_timestamp() + coalesce(extend_claim.lease, c.lease)
     WHERE c.claim = extend_claim.claim AND c.expires_at >= clock_timestamp()
    RETURNING c.expires_at INTO v_until;
    IF v_until IS NULL THEN
        RAISE EXCEPTION 'claim % does not hold any job any more', extend_claim.claim
            USING ERRCODE = 'TM003', HINT = 'Its lease ended, or its jobs were ended or cancelled. Stop working on them.';
    END IF;
    RETURN v_until;
END $$;

-- Ends runs of jobs of a claim, in the caller's transaction. Verdicts: done (with a result, or NULL), retry (error, and after how
-- long; NULL: the queue's back-off), snooze (after how long), reject (error: dead at once), cancel (error, or NULL). Answers with
-- the ids that were accepted: the others are not this claim's any more, and nothing that they led to may be committed.
CREATE FUNCTION tidemill.finish_jobs(
    claim    bigint,
    ids      bigint[],
    verdicts text[] DEFAULT NULL,
    results  bytea[] DEFAULT NULL,
    errors   text[] DEFAULT NULL,
    after    interval[] DEFAULT NULL
) RETURNS SETOF bigint
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
    v_verdicts text[] := coalesce(verdicts, array_fill('done'::text, ARRAY[cardinality(ids)]));
    v_claim    tidemill.claims;
    v_queue    tidemill.queues;
    v_places   bigint[];
    v_ids      bigint[];
    v_results  bytea[];
    v_errors   text[];
    v_after    interval[];
BEGIN
    IF NOT v_verdicts <@ '{done,retry,snooze,reject,cancel}' OR cardinality(v_verdicts) <> cardinality(ids) THEN
        RAISE EXCEPTION 'each job needs one verdict of done, retry, snooze, reject, cancel' USING ERRCODE = 'TM005';
    END IF;
    v_claim := tidemill.held_claim(finish_jobs.claim);
    IF v_claim.claim IS NULL THEN
        RETURN;
    END IF;
    SELECT * INTO STRICT v_queue FROM tidemill.queues q WHERE q.queue_id = v_claim.queue_id;
    -- The whole claim in its order, as a worker that took one batch gives it back.
    IF ids = coalesce(v_claim.ids, v_claim.places) THEN
        v_places := v_claim.places;
        DELETE FROM tidemill.claims c WHERE c.claim = v_claim.claim;
        PERFORM tidemill.end_runs(v_queue, v_claim, v_places, v_verdicts, results, errors, after);
        RETURN QUERY SELECT unnest(ids);
        RETURN;
    END IF;
    SELECT array_agg(h.place), array_agg(h.id), array_agg(g.verdict), array_agg(g.result), array_agg(g.error), array_agg(g.after)
      INTO v_places, v_ids, v_verdicts, v_results, v_errors, v_after
      FROM unnest(v_claim.places, coalesce(v_claim.ids, v_claim.places)) h(place, id)
      JOIN (SELECT DISTINCT ON (e.id) * FROM unnest(ids, v_verdicts, results, errors, after) WITH ORDINALITY
                   e(id, verdict, result, error, after, i)
             ORDER BY e.id, e.i) g ON g.id = h.id;
    IF v_places IS NULL THEN
        RETURN;
    END IF;
    PERFORM tidemill.release_places(v_claim, v_places);
    PERFORM tidemill.end_runs(v_queue, v_claim, v_places, v_verdicts, v_results, v_errors, v_after);
    RETURN QUERY SELECT unnest(v_ids);
END $$;

-- The same for jobs of several claims, side by side, in one statement.
CREATE FUNCTION tidemill.finish_claims(
    claims bigint[], ids bigint[], verdicts text[], results bytea[], errors text[], after interval[]
) RETURNS TABLE (claim bigint, id bigint)
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    v_of record;
BEGIN
    -- In the order of claims, so that two transactions do not wait for each other.
    FOR v_of IN
        SELECT r.claim, array_agg(r.id ORDER BY r.i) AS ids, array_agg(r.verdict ORDER BY r.i) AS verdicts,
               array_agg(r.result ORDER BY r.i) AS results, array_agg(r.error ORDER BY r.i) AS errors,
               array_agg(r.after ORDER BY r.i) AS after
          FROM unnest(claims, ids, verdicts, results, errors, after) WITH ORDINALITY r(claim, id, verdict, result, error, after, i)
         GROUP BY r.claim ORDER BY r.claim
    LOOP
        RETURN QUERY
        SELECT v_of.claim, f FROM tidemill.finish_jobs(v_of.claim, v_of.ids, v_of.verdicts, v_of.results, v_of.errors, v_of.after) f;
    END LOOP;
END $$;

-- Takes jobs out of a claim; without any it is gone.
CREATE FUNCTION tidemill.release_places(p_claim tidemill.claims, p_places bigint[]) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    IF p_claim.places <@ p_places THEN
        DELETE FROM tidemill.claims c WHERE c.claim = p_claim.claim;
        RETURN;
    END IF;
    UPDATE tidemill.claims c
       SET (places, ids, keys, uniques) = (
           SELECT array_agg(o.place ORDER BY o.i), CASE WHEN p_claim.ids IS NOT NULL THEN array_agg(o.id ORDER BY o.i) END,
                  CASE WHEN p_claim.keys IS NOT NULL THEN array_agg(o.key ORDER BY o.i) END,
                  CASE WHEN p_claim.uniques IS NOT NULL THEN array_agg(o.unique_key ORDER BY o.i) END
             FROM unnest(p_claim.places, p_claim.ids, p_claim.keys, p_claim.uniques) WITH ORDINALITY o(place, id, key, unique_key, i)
            WHERE NOT o.place = ANY (p_places))
     WHERE c.claim = p_claim.claim;
END $$;

-- Ends one run, or fails with TM003: somebody else has the job by now, or it was cancelled.
CREATE FUNCTION tidemill.finish_one(p_claim bigint, p_id bigint, p_verdict text, p_result bytea, p_error text, p_after interval)
RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM tidemill.finish_jobs(p_claim, ARRAY[p_id], ARRAY[p_verdict], ARRAY[p_result], ARRAY[p_error], ARRAY[p_after]);
    IF NOT FOUND THEN
        RAISE EXCEPTION 'job % is not held by claim % any more', p_id, p_claim
            USING ERRCODE = 'TM003', HINT = 'The lease ended, or the job was ended or cancelled. Undo what was done in this transaction: ROLLBACK.';
    END IF;
END $$;

CREATE FUNCTION tidemill.complete_job(claim bigint, id bigint, result jsonb DEFAULT NULL) RETURNS void
LANGUAGE sql
AS $$ SELECT tidemill.finish_one(claim, id, 'done', convert_to(result::text, 'UTF8'), NULL, NULL) $$;

-- The run failed: the job runs again after retry_in (NULL: the queue's back-off), or is dead after its last attempt.
CREATE FUNCTION tidemill.fail_job(claim bigint, id bigint, error text, retry_in interval DEFAULT NULL) RETURNS void
LANGUAGE sql
AS $$ SELECT tidemill.finish_one(claim, id, 'retry', NULL, error, retry_in) $$;

-- The job runs again later, and this run does not count.
CREATE FUNCTION tidemill.snooze_job(claim bigint, id bigint, after interval) RETURNS void
LANGUAGE sql
AS $$ SELECT tidemill.finish_one(claim, id, 'snooze', NULL, NULL, after) $$;

-- Running it again would not help: the job is dead at once.
CREATE FUNCTION tidemill.reject_job(claim bigint, id bigint, error text) RETURNS void
LANGUAGE sql
AS $$ SELECT tidemill.finish_one(claim, id, 'reject', NULL, error, NULL) $$;

-- Where a job that has a row stands last; NULL if there is none.
CREATE FUNCTION tidemill.place_of(p_queue tidemill.queues, p_id bigint) RETURNS bigint
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    v_table text;
    v_place bigint;
    v_last  bigint;
BEGIN
    FOR v_table IN
        SELECT t.table_name FROM tidemill.job_tables t
         WHERE t.queue_id = p_queue.queue_id AND t.lane = (p_id >> 48) | 1 ORDER BY t.first DESC
    LOOP
        EXECUTE format('SELECT max(j.place) FROM jobs.%I j WHERE j.id = $1', v_table) INTO v_last USING p_id;
        IF v_last IS NOT NULL THEN
            RETURN v_last;
        END IF;
    END LOOP;
    SELECT j.place INTO v_place FROM tidemill.jobs_at(p_queue.queue_id, ARRAY[p_id]) j;
    RETURN v_place;
END $$;

-- Whether no claim has held what stands at a place.
CREATE FUNCTION tidemill.is_unclaimed(p_queue tidemill.queues, p_place bigint) RETURNS boolean
LANGUAGE sql STABLE
AS $$
    SELECT p_place >= h.cursors[(p_place >> 48) + 1] OR h.gaps @> p_place
      FROM tidemill.queue_heads h WHERE h.queue_id = p_queue.queue_id ORDER BY h.generation DESC LIMIT 1
$$;

-- A job as it is looked at.
CREATE TYPE tidemill.job_view AS (
    id           bigint,
    -- waiting, scheduled, blocked, running, done, dead, cancelled
    state        text,
    priority     int,
    -- Runs so far, the present one included.
    attempt      int,
    max_attempts int,
    key          bytea,
    headers      jsonb,
    unique_key   text,
    payload      bytea,
    enqueued_at  timestamptz,
    -- When it is due, if it is scheduled.
    run_at       timestamptz,
    claimed_at   timestamptz,
    finished_at  timestamptz,
    worker       text,
    result       bytea,
    error        text
);

CREATE FUNCTION tidemill.job_view(p_queue tidemill.queues, p_job tidemill.job_row, p_state text, p_runs int DEFAULT 0)
RETURNS tidemill.job_view
LANGUAGE sql IMMUTABLE
AS $$
    SELECT ROW(p_job.id, p_state, tidemill.priority_of(p_job.place), p_job.attempt + p_runs,
               coalesce(p_job.max_attempts, p_queue.max_attempts), p_job.key, p_job.headers, p_job.unique_key, p_job.payload,
               p_job.enqueued_at, p_job.due_at, NULL, NULL, NULL, NULL, p_job.error)::tidemill.job_view
$$;

-- One job, if it is still known.
CREATE FUNCTION tidemill.find_job(queue text, id bigint) RETURNS SETOF tidemill.job_view
LANGUAGE plpgsql STABLE
SET enable_seqscan = off
AS $$
#variable_conflict use_column
DECLARE
    v_queue tidemill.queues := tidemill.queue_named(queue);
    v_place bigint;
    v_claim tidemill.claims;
    v_job   tidemill.job_row;
    v_view  tidemill.job_view;
    v_table text;
BEGIN
    SELECT (l.job).* INTO v_job FROM tidemill.later_jobs l WHERE l.queue_id = v_queue.queue_id AND l.id = find_job.id;
    IF FOUND THEN
        RETURN NEXT tidemill.job_view(v_queue, v_job, 'scheduled');
        RETURN;
    END IF;
    FOR v_view IN
        SELECT (w.v).id, (w.v).state, (w.v).priority, (w.v).attempt, (w.v).max_attempts, (w.v).key, (w.v).headers, (w.v).unique_key,
               (w.v).payload, (w.v).enqueued_at, NULL::timestamptz, NULL::timestamptz, w.failed_at, w.worker, NULL::bytea, (w.v).error
          FROM (SELECT tidemill.job_view(v_queue, d.job, 'dead') AS v, d.failed_at, d.worker
                  FROM tidemill.dead_jobs d WHERE d.queue_id = v_queue.queue_id AND d.id = find_job.id) w
    LOOP
        RETURN NEXT v_view;
        RETURN;
    END LOOP;
    v_place := tidemill.place_of(v_queue, find_job.id);
    IF v_place IS NOT NULL THEN
        SELECT * INTO v_job FROM tidemill.jobs_at(v_queue.queue_id, ARRAY[v_place]);
        SELECT * INTO v_claim FROM tidemill.claims c WHERE c.queue_id = v_queue.queue_id AND c.places @> ARRAY[v_place];
        IF FOUND THEN
            v_view := tidemill.job_view(v_queue, v_job, 'running', 1);
            v_view.claimed_at := v_claim.claimed_at;
            v_view.worker := v_claim.worker;
            v_view.run_at := NULL;
            RETURN NEXT v_view;
            RETURN;
        ELSIF tidemill.is_unclaimed(v_queue, v_place) THEN
            RETURN NEXT tidemill.job_view(v_queue, v_job, 'waiting');
            RETURN;
        ELSIF EXISTS (SELECT FROM tidemill.blocked_jobs b
                       WHERE b.queue_id = v_queue.queue_id AND b.key = v_job.key AND b.place = v_place) THEN
            RETURN NEXT tidemill.job_view(v_queue, v_job, 'blocked');
            RETURN;
        END IF;
    END IF;
    FOR v_table IN
        SELECT t.table_name FROM tidemill.job_tables t WHERE t.queue_id = v_queue.queue_id AND t.lane IS NULL ORDER BY t.first DESC
    LOOP
        EXECUTE format('SELECT e.id, e.state, e.priority, e.attempt, e.max_attempts, e.key, e.headers, NULL, e.payload, e.enqueued_at,
                               NULL::timestamptz, e.claimed_at, e.finished_at, e.worker, e.result, e.error
                          FROM jobs.%I e WHERE e.id = $1', v_table) INTO v_view USING find_job.id;
        IF v_view.id IS NOT NULL THEN
            RETURN NEXT v_view;
            RETURN;
        END IF;
    END LOOP;
END $$;

-- Jobs in a state (waiting, scheduled, blocked, running, dead, done, cancelled; ended: the last two), at most 1,000. Those that
-- wait come in the order in which they will be claimed, scheduled ones by when they are due, all others newest first.
CREATE FUNCTION tidemill.list_jobs(queue text, state text, max_jobs int DEFAULT 100) RETURNS SETOF tidemill.job_view
LANGUAGE plpgsql STABLE
SET enable_seqscan = off
AS $$
#variable_conflict use_column
DECLARE
    v_queue tidemill.queues := tidemill.queue_named(queue);
    v_limit int := least(max_jobs, 1000);
    v_head  tidemill.queue_heads;
    v_table record;
    v_job   tidemill.job_row;
    v_view  tidemill.job_view;
    v_got   int := 0;
BEGIN
    CASE list_jobs.state
    WHEN 'scheduled' THEN
        RETURN QUERY SELECT (tidemill.job_view(v_queue, l.job, 'scheduled')).* FROM (
            SELECT * FROM tidemill.later_jobs l WHERE l.queue_id = v_queue.queue_id ORDER BY l.run_at LIMIT v_limit) l;
    WHEN 'dead' THEN
        RETURN QUERY
        SELECT v.id, v.state, v.priority, v.attempt, v.max_attempts, v.key, v.headers, v.unique_key, v.payload, v.enqueued_at,
               NULL::timestamptz, NULL::timestamptz, d.failed_at, d.worker, NULL::bytea, v.error
          FROM (SELECT * FROM tidemill.dead_jobs d WHERE d.queue_id = v_queue.queue_id ORDER BY d.id DESC LIMIT v_limit) d
         CROSS JOIN LATERAL tidemill.job_view(v_queue, d.job, 'dead') v
         ORDER BY d.failed_at DESC;
    WHEN 'blocked' THEN
        RETURN QUERY
        SELECT (tidemill.job_view(v_queue, j, 'blocked')).* FROM tidemill.jobs_at(v_queue.queue_id, ARRAY(
            SELECT b.place FROM tidemill.blocked_jobs b WHERE b.queue_id = v_queue.queue_id ORDER BY b.key, b.place LIMIT v_limit)) j;
    WHEN 'running' THEN
        RETURN QUERY
        SELECT v.id, v.state, v.priority, v.attempt, v.max_attempts, v.key, v.headers, v.unique_key, v.payload, v.enqueued_at,
               NULL::timestamptz, r.claimed_at, NULL::timestamptz, r.worker, NULL::bytea, v.error
          FROM (SELECT c.claimed_at, c.worker, p.place FROM tidemill.claims c, unnest(c.places) p(place)
                 WHERE c.queue_id = v_queue.queue_id ORDER BY c.claim DESC LIMIT v_limit) r
         CROSS JOIN LATERAL tidemill.jobs_at(v_queue.queue_id, ARRAY[r.place]) j
         CROSS JOIN LATERAL tidemill.job_view(v_queue, j, 'running', 1) v;
    WHEN 'waiting' THEN
        SELECT * INTO v_head FROM tidemill.queue_heads h
         WHERE h.queue_id = v_queue.queue_id ORDER BY h.generation DESC LIMIT 1;
        FOR v_table IN
            SELECT t.table_name, v_head.cursors[t.lane + 1] AS cursor
              FROM unnest('{3,2,1,0,5,4,7,6}'::int[]) WITH ORDINALITY o(lane, i)
              JOIN tidemill.job_tables t ON t.queue_id = v_queue.queue_id AND t.lane = o.lane
             WHERE t.upper > v_head.cursors[t.lane + 1] OR v_head.gaps && int8range(t.first, t.upper)
             ORDER BY o.i, t.first
        LOOP
            FOR v_job IN EXECUTE format(
                'SELECT j.* FROM jobs.%I j WHERE j.place >= $1 OR $2 @> j.place ORDER BY j.place LIMIT $3', v_table.table_name)
                USING v_table.cursor, v_head.gaps, v_limit - v_got
            LOOP
                v_got := v_got + 1;
                RETURN NEXT tidemill.job_view(v_queue, v_job, 'waiting');
            END LOOP;
            EXIT WHEN v_got >= v_limit;
        END LOOP;
    WHEN 'done', 'cancelled', 'ended' THEN
        FOR v_table IN
            SELECT t.table_name FROM tidemill.job_tables t
             WHERE t.queue_id = v_queue.queue_id AND t.lane IS NULL ORDER BY t.first DESC
        LOOP
            FOR v_view IN EXECUTE format(
                'SELECT e.id, e.state, e.priority, e.attempt, e.max_attempts, e.key, e.headers, NULL::text, e.payload, e.enqueued_at,
                        NULL::timestamptz, e.claimed_at, e.finished_at, e.worker, e.result, e.error
                   FROM jobs.%I e WHERE $1 IN (e.state, ''ended'') ORDER BY e.finished_at DESC LIMIT $2', v_table.table_name)
                USING list_jobs.state, v_limit - v_got
            LOOP
                v_got := v_got + 1;
                RETURN NEXT v_view;
            END LOOP;
            EXIT WHEN v_got >= v_limit;
        END LOOP;
    ELSE
        RAISE EXCEPTION 'jobs have no state "%"', list_jobs.state
            USING ERRCODE = 'TM005', HINT = 'There are waiting, scheduled, blocked, running, dead, done, cancelled, and ended for the last two.';
    END CASE;
END $$;

-- What each queue holds. `waiting` is exact up to 10,000 jobs of a lane; beyond that it is how many numbers were drawn and not
-- claimed, a few of which may be of open or rolled-back transactions. The others are counted up to 100,000.
CREATE FUNCTION tidemill.queue_counts() RETURNS TABLE (
    queue text, waiting bigint, scheduled bigint, blocked bigint, running bigint, dead bigint, oldest_waiting_at timestamptz,
    paused boolean
)
LANGUAGE plpgsql STABLE
AS $$
#variable_conflict use_column
DECLARE
    v_queue  tidemill.queues;
    v_head   tidemill.queue_heads;
    v_last   bigint;
    v_table  text;
    v_oldest timestamptz;
    v_count  bigint;
BEGIN
    FOR v_queue IN SELECT * FROM tidemill.queues q ORDER BY q.name LOOP
        SELECT * INTO v_head FROM tidemill.queue_heads h
         WHERE h.queue_id = v_queue.queue_id ORDER BY h.generation DESC LIMIT 1;
        queue := v_queue.name;
        paused := v_queue.paused;
        waiting := 0;
        oldest_waiting_at := NULL;
        FOR v_lane IN 0..7 LOOP
            v_last := (v_lane::bigint << 48) + coalesce(pg_sequence_last_value(v_queue.sequences[v_lane + 1]), 0);
            CONTINUE WHEN v_last < v_head.cursors[v_lane + 1];
            IF v_last - v_head.cursors[v_lane + 1] >= 10000 THEN
                waiting := waiting + v_last - v_head.cursors[v_lane + 1] + 1;
            END IF;
            FOR v_table IN
                SELECT t.table_name FROM tidemill.job_tables t
                 WHERE t.queue_id = v_queue.queue_id AND t.lane = v_lane AND t.upper > v_head.cursors[v_lane + 1] ORDER BY t.first
            LOOP
                EXECUTE format('SELECT coalesce(j.due_at, j.enqueued_at) FROM jobs.%I j WHERE j.place >= $1 ORDER BY j.place LIMIT 1',
                               v_table)
                INTO v_oldest USING v_head.cursors[v_lane + 1];
                EXIT WHEN v_last - v_head.cursors[v_lane + 1] >= 10000;
                EXECUTE format('SELECT count(*) FROM jobs.%I j WHERE j.place >= $1', v_table)
                INTO v_count USING v_head.cursors[v_lane + 1];
                waiting := waiting + v_count;
                oldest_waiting_at := least(oldest_waiting_at, v_oldest);
            END LOOP;
            oldest_waiting_at := least(oldest_waiting_at, v_oldest);
        END LOOP;
        SELECT count(*) INTO scheduled FROM (
            SELECT FROM tidemill.later_jobs l WHERE l.queue_id = v_queue.queue_id LIMIT 100000) c;
        SELECT count(*) INTO blocked FROM (
            SELECT FROM tidemill.blocked_jobs b WHERE b.queue_id = v_queue.queue_id LIMIT 100000) c;
        SELECT coalesce(sum(cardinality(c.places)), 0) INTO running FROM tidemill.claims c
         WHERE c.claim >= v_head.oldest_claim AND c.queue_id = v_queue.queue_id;
        SELECT count(*) INTO dead FROM (
            SELECT FROM tidemill.dead_jobs d WHERE d.queue_id = v_queue.queue_id LIMIT 100000) c;
        RETURN NEXT;
    END LOOP;
END $$;

-- Ends a job that has not ended: one that waits is not run, one that runs is taken from its worker. Answers with the state it was
-- in.
CREATE FUNCTION tidemill.cancel_job(queue text, id bigint, reason text DEFAULT NULL) RETURNS text
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    v_queue tidemill.queues := tidemill.queue_named(queue);
    v_view  tidemill.job_view;
    v_place bigint;
    v_claim tidemill.claims;
    v_table text;
BEGIN
    PERFORM tidemill.lock_queue(v_queue.queue_id);
    -- Whoever ends a run has its claim locked, so look again behind the lock.
    SELECT * INTO v_view FROM tidemill.find_job(queue, cancel_job.id);
    IF v_view.state = 'running' THEN
        PERFORM 1 FROM tidemill.claims c
         WHERE c.queue_id = v_queue.queue_id AND c.places @> ARRAY[tidemill.place_of(v_queue, cancel_job.id)] FOR UPDATE;
        SELECT * INTO v_view FROM tidemill.find_job(queue, cancel_job.id);
    END IF;
    IF v_view.id IS NULL THEN
        RAISE EXCEPTION 'queue "%" knows no job %', queue, cancel_job.id
            USING ERRCODE = 'TM001', HINT = 'It may have ended longer ago than the queue keeps jobs.';
    ELSIF v_view.state IN ('done', 'cancelled', 'dead') THEN
        RAISE EXCEPTION 'job % of queue "%" is % already', cancel_job.id, queue, v_view.state
            USING ERRCODE = 'TM006', HINT = 'Only a job that waits or runs can be cancelled; a dead one can be dropped.';
    END IF;
    v_place := tidemill.place_of(v_queue, cancel_job.id);
    CASE v_view.state
    WHEN 'scheduled' THEN
        DELETE FROM tidemill.later_jobs l WHERE l.queue_id = v_queue.queue_id AND l.id = cancel_job.id;
    WHEN 'running' THEN
        SELECT * INTO v_claim FROM tidemill.claims c WHERE c.queue_id = v_queue.queue_id AND c.places @> ARRAY[v_place];
        PERFORM tidemill.release_places(v_claim, ARRAY[v_place]);
    ELSE
        SELECT t.table_name INTO v_table FROM tidemill.job_tables t
         WHERE t.queue_id = v_queue.queue_id AND t.lane = v_place >> 48 AND t.first <= v_place AND t.upper > v_place;
        EXECUTE format('DELETE FROM jobs.%I j WHERE j.place = $1', v_table) USING v_place;
        DELETE FROM tidemill.blocked_jobs b WHERE b.queue_id = v_queue.queue_id AND b.key = v_view.key AND b.place = v_place;
    END CASE;
    PERFORM tidemill.end_jobs(v_queue, ARRAY[ROW(
        v_view.id, 'cancelled', v_view.priority, v_view.attempt, v_view.max_attempts, v_view.enqueued_at, v_view.claimed_at,
        clock_timestamp(), v_view.worker, v_view.key, v_view.headers, v_view.payload, NULL,
        coalesce(reason, 'cancelled'))::tidemill.ended_job], ARRAY[v_view.unique_key]);
    PERFORM pg_notify('tidemill_jobs', queue);
    RETURN v_view.state;
END $$;

-- Runs a job now: a dead one with its attempts counted from the start, a scheduled one before it is due.
CREATE FUNCTION tidemill.retry_job(queue text, id bigint) RETURNS void
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    v_queue tidemill.queues := tidemill.queue_named(queue);
    v_job   tidemill.job_row;
    v_state text;
BEGIN
    UPDATE tidemill.later_jobs l SET run_at = clock_timestamp() WHERE l.queue_id = v_queue.queue_id AND l.id = retry_job.id;
    IF NOT FOUND THEN
        DELETE FROM tidemill.dead_jobs d WHERE d.queue_id = v_queue.queue_id AND d.id = retry_job.id RETURNING (d.job).* INTO v_job;
        IF NOT FOUND THEN
            SELECT j.state INTO v_state FROM tidemill.find_job(queue, retry_job.id) j;
            IF v_state IS NULL THEN
                RAISE EXCEPTION 'queue "%" knows no job %', queue, retry_job.id
                    USING ERRCODE = 'TM001', HINT = 'It may have ended longer ago than the queue keeps jobs.';
            END IF;
            RAISE EXCEPTION 'job % of queue "%" is %, so there is nothing to retry', retry_job.id, queue, v_state
                USING ERRCODE = 'TM006', HINT = 'Dead jobs and scheduled ones can be retried; put a new job into the queue to do it once more.';
        END IF;
        -- Its unique key may be another job's by now; then it goes without.
        IF v_job.unique_key IS NOT NULL AND tidemill.take_key(v_queue, v_job.unique_key, NULL, v_job.id) <> v_job.id THEN
            v_job.unique_key := NULL;
        END IF;
        v_job.attempt := 0;
        INSERT INTO tidemill.later_jobs (queue_id, run_at, job, id) VALUES (v_queue.queue_id, clock_timestamp(), v_job, v_job.id);
    END IF;
    PERFORM pg_notify('tidemill_jobs', queue);
END $$;

-- Forgets dead jobs: these, or with NULL the oldest max_jobs. Answers how many.
CREATE FUNCTION tidemill.drop_dead_jobs(queue text, ids bigint[] DEFAULT NULL, max_jobs int DEFAULT 10000) RETURNS bigint
LANGUAGE plpgsql
AS $$
DECLARE
    v_queue tidemill.queues := tidemill.queue_named(queue);
    v_count bigint;
BEGIN
    DELETE FROM tidemill.dead_jobs d
     WHERE d.queue_id = v_queue.queue_id
       AND d.id = ANY (coalesce(ids, ARRAY(SELECT o.id FROM tidemill.dead_jobs o
                                            WHERE o.queue_id = v_queue.queue_id ORDER BY o.id LIMIT max_jobs)));
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END $$;

-- Asks enqueues to notify the channel tidemill_jobs with the queue's name for some seconds, since a worker waits for jobs. Look
-- for jobs once more after it was committed.
CREATE FUNCTION tidemill.await_jobs(queue text, seconds int DEFAULT 10) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    v_queue tidemill.queues := tidemill.queue_named(queue);
BEGIN
    INSERT INTO tidemill.queue_waiters AS w (queue_id, until) VALUES (v_queue.queue_id, clock_timestamp() + make_interval(secs => seconds))
        ON CONFLICT (queue_id) DO UPDATE SET until = excluded.until
     WHERE w.until < excluded.until - make_interval(secs => seconds / 2.0);
END $$;
