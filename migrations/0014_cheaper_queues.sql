-- Queues with less work for the server. A claim or an end is a transaction of its own, in which each expression of a function is
-- made ready anew: that, and statements that are planned anew, cost more than what they do. So the usual claim and the usual end
-- have a short way of a few statements, and everything else is done as before. And jobs that are done are kept where they are:
-- one row for each end names them, in place of a copy of each.

-- When it was first seen that nothing in it is open any more; `lane` is -1 for the tables of runs that are done.
ALTER TABLE tidemill.job_tables ADD COLUMN settled_at timestamptz;

-- What was done with one claim.
CREATE TYPE tidemill.done_run AS (
    finished_at timestamptz,
    claimed_at  timestamptz,
    worker      text,
    -- Of the places, which are all of one lane.
    first       bigint,
    last        bigint,
    places      bigint[],
    -- Beside the places; NULL where there are none.
    results     bytea[]
);

-- What the tables of a queue are called by: its name, or a part of it where PostgreSQL's 63 bytes are not enough for the rest.
CREATE FUNCTION tidemill.job_table_base(p_queue tidemill.queues) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT CASE WHEN length(p_queue.name) <= 36 THEN p_queue.name ELSE left(p_queue.name, 28) || '$' || p_queue.queue_id END $$;

-- The table for a place, made if there is none. A table has as many places as the one before it, twice as many if that was
-- filled within half a minute or a sixteenth of the time that jobs are kept, half as many if it lasted for an hour or a quarter of
-- that time; 16,384 to 2,097,152.
CREATE OR REPLACE FUNCTION tidemill.ensure_job_table(p_queue tidemill.queues, p_place bigint) RETURNS text
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
            IF clock_timestamp() - v_last.created_at < greatest(p_queue.keep / 16, '30 s') THEN
                v_size := least(v_size * 2, 2097152);
            ELSIF clock_timestamp() - v_last.created_at > greatest(p_queue.keep / 4, '1 h') THEN
                v_size := greatest(v_size / 2, 16384);
            END IF;
        END IF;
        v_name := format('%s_%s_%s', tidemill.job_table_base(p_queue), v_lane, v_last.upper & 281474976710655);
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

-- The tables for jobs that end now: the first for those that were cancelled, each of which is a row, and the second, whose name is
-- the answer, for runs that are done. They span a quarter of the time that jobs are kept, a minute to a day.
DROP FUNCTION tidemill.ensure_ended_table(tidemill.queues, timestamptz);
CREATE FUNCTION tidemill.ensure_ended_table(p_queue tidemill.queues, p_at timestamptz, p_lane int DEFAULT -1) RETURNS text
LANGUAGE plpgsql
AS $$
DECLARE
    v_at    bigint := extract(epoch FROM p_at);
    v_span  bigint := least(greatest(extract(epoch FROM p_queue.keep)::bigint / 4, 60), 86400);
    v_first bigint;
    v_name  text;
BEGIN
    SELECT t.table_name INTO v_name FROM tidemill.job_tables t
     WHERE t.queue_id = p_queue.queue_id AND t.lane IS NOT DISTINCT FROM p_lane AND t.first <= v_at AND t.upper > v_at;
    IF FOUND THEN
        RETURN v_name;
    END IF;
    PERFORM pg_advisory_xact_lock(1953066342, p_queue.queue_id);
    SELECT t.table_name INTO v_name FROM tidemill.job_tables t
     WHERE t.queue_id = p_queue.queue_id AND t.lane IS NOT DISTINCT FROM p_lane AND t.first <= v_at AND t.upper > v_at;
    IF FOUND THEN
        RETURN v_name;
    END IF;
    SELECT greatest(v_at / v_span * v_span, max(t.upper)) INTO v_first FROM tidemill.job_tables t
     WHERE t.queue_id = p_queue.queue_id AND t.lane IS NOT DISTINCT FROM p_lane AND t.upper <= v_at;
    IF p_lane IS NULL THEN
        v_name := format('%s_ended_%s', tidemill.job_table_base(p_queue), v_first);
        EXECUTE format('CREATE TABLE jobs.%I (
                            id bigint PRIMARY KEY, state text NOT NULL, priority int NOT NULL, attempt int NOT NULL,
                            max_attempts int NOT NULL, enqueued_at timestamptz NOT NULL, claimed_at timestamptz,
                            finished_at timestamptz NOT NULL, worker text, key bytea, headers jsonb, payload bytea NOT NULL,
                            result bytea, error text)', v_name);
    ELSE
        v_name := format('%s_runs_%s', tidemill.job_table_base(p_queue), v_first);
        EXECUTE format('CREATE TABLE jobs.%I OF tidemill.done_run (places WITH OPTIONS NOT NULL)
                        WITH (autovacuum_enabled = false)', v_name);
        EXECUTE format('CREATE INDEX ON jobs.%I (first)', v_name);
    END IF;
    INSERT INTO tidemill.job_tables (queue_id, lane, first, upper, table_name)
    VALUES (p_queue.queue_id, p_lane, v_first, v_first + v_span, v_name);
    RETURN v_name;
END $$;

-- Writes down that jobs are done, if that is kept: one row names them all.
CREATE OR REPLACE FUNCTION tidemill.keep_done(
    p_queue tidemill.queues, p_claim tidemill.claims, p_places bigint[], p_results bytea[]
) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    v_now   timestamptz;
    v_first bigint;
    v_last  bigint;
    v_lane  record;
BEGIN
    IF p_queue.keep = interval '0' THEN
        RETURN;
    END IF;
    SELECT clock_timestamp(), min(p.place), max(p.place) INTO v_now, v_first, v_last FROM unnest(p_places) p(place);
    IF v_first >> 48 = v_last >> 48 THEN
        EXECUTE format('INSERT INTO jobs.%I VALUES ($1, $2, $3, $4, $5, $6, $7)', tidemill.ensure_ended_table(p_queue, v_now))
        USING v_now, p_claim.claimed_at, p_claim.worker, v_first, v_last, p_places,
              CASE WHEN array_remove(p_results, NULL) <> '{}' THEN p_results END;
        RETURN;
    END IF;
    FOR v_lane IN
        SELECT array_agg(p.place) AS places, array_agg(p.result) AS results
          FROM unnest(p_places, p_results) p(place, result) GROUP BY p.place >> 48
    LOOP
        PERFORM tidemill.keep_done(p_queue, p_claim, v_lane.places, v_lane.results);
    END LOOP;
END $$;

-- Writes down jobs that ended: cancelled ones where they can be looked at, all in the queue's history, and that their unique keys
-- are free.
CREATE OR REPLACE FUNCTION tidemill.end_jobs(p_queue tidemill.queues, p_ended tidemill.ended_job[], p_uniques text[]) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    v_now        timestamptz := clock_timestamp();
    v_partitions int;
    v_batch      record;
BEGIN
    -- Dead jobs are kept whole elsewhere, and those that are done where they are.
    IF p_queue.keep > interval '0' AND EXISTS (SELECT FROM unnest(p_ended) e WHERE e.state = 'cancelled') THEN
        EXECUTE format('INSERT INTO jobs.%I SELECT (e).* FROM unnest($1) e WHERE e.state = ''cancelled''
                            ON CONFLICT (id) DO NOTHING', tidemill.ensure_ended_table(p_queue, v_now, NULL))
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

-- As before (0011), with jobs that are done kept where they are.
CREATE OR REPLACE FUNCTION tidemill.end_runs(
    p_queue tidemill.queues, p_claim tidemill.claims, p_places bigint[], p_verdicts text[], p_results bytea[], p_errors text[],
    p_after interval[]
) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    v_now     timestamptz := clock_timestamp();
    v_ended   tidemill.ended_job[];
    v_uniques text[];
    v_done    bigint[];
    v_results bytea[];
BEGIN
    IF p_queue.history IS NULL AND p_claim.uniques IS NULL AND 'done' = ALL (p_verdicts) THEN
        PERFORM tidemill.keep_done(p_queue, p_claim, p_places, p_results);
        RETURN;
    END IF;
    WITH run AS MATERIALIZED (
        SELECT v.job AS j, v.verdict, v.result, v.error, v.after,
               CASE v.verdict
                   WHEN 'done' THEN 'done' WHEN 'cancel' THEN 'cancelled' WHEN 'reject' THEN 'dead' WHEN 'snooze' THEN 'later'
                   ELSE CASE WHEN (v.job).attempt + 1 < coalesce((v.job).max_attempts, p_queue.max_attempts) THEN 'later' ELSE 'dead' END
               END AS outcome,
               coalesce(nullif(v.error, ''),
                        CASE WHEN v.verdict = 'lost' THEN format('worker "%s" was silent for longer than its lease of %s',
                                                                 p_claim.worker, p_claim.lease) END) AS reason
          FROM tidemill.runs_at(p_queue.queue_id, p_places, p_verdicts, p_results, p_errors, p_after) v
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
           array_agg((r.j).unique_key),
           array_agg((r.j).place) FILTER (WHERE r.outcome = 'done'), array_agg(r.result) FILTER (WHERE r.outcome = 'done')
      INTO v_ended, v_uniques, v_done, v_results
      FROM run r WHERE r.outcome <> 'later';
    IF v_done IS NOT NULL THEN
        PERFORM tidemill.keep_done(p_queue, p_claim, v_done, v_results);
    END IF;
    IF v_ended IS NOT NULL THEN
        PERFORM tidemill.end_jobs(p_queue, v_ended, v_uniques);
    END IF;
END $$;

-- The number of a claim: microseconds and chance, so that one that a crash made the server forget is not given again.
CREATE FUNCTION tidemill.claim_number(p_at timestamptz, p_last bigint) RETURNS bigint
LANGUAGE sql VOLATILE
AS $$ SELECT greatest(((extract(epoch FROM p_at) * 1000000)::bigint << 10) + floor(random() * 1024)::bigint, p_last + 1) $$;

-- Who claims, if nobody is named.
CREATE FUNCTION tidemill.worker_name(p_worker text) RETURNS text
LANGUAGE sql STABLE
AS $$ SELECT coalesce(p_worker, nullif(current_setting('application_name'), ''), 'sql') $$;

-- Goes on in a new table where one that holds much has been filling for long: else large jobs of a slow queue would stay until as
-- many have come as the table has places. The places that are left are drawn and not used.
CREATE FUNCTION tidemill.leave_large_tables(p_queue tidemill.queues) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    v_left record;
BEGIN
    FOR v_left IN
        SELECT t.table_name, p_queue.sequences[t.lane + 1] AS sequence, t.upper - l.last AS places
          FROM tidemill.job_tables t
         CROSS JOIN LATERAL (SELECT (t.lane::bigint << 48) + pg_sequence_last_value(p_queue.sequences[t.lane + 1])) l(last)
         WHERE t.queue_id = p_queue.queue_id AND t.lane >= 0 AND t.first <= l.last AND l.last < t.upper - 1
           AND t.created_at < clock_timestamp() - greatest(p_queue.keep / 4, '1 h')
    LOOP
        IF v_left.places < 262144 AND pg_total_relation_size(format('jobs.%I', v_left.table_name)) > 67108864 THEN
            PERFORM nextval(v_left.sequence) FROM generate_series(2, v_left.places);
        END IF;
    END LOOP;
END $$;

-- Drops tables of what ended longer ago than it is kept, and before that those in which nothing is open any more are settled. A
-- few at a time, and none that somebody reads just now.
CREATE OR REPLACE FUNCTION tidemill.drop_job_tables(p_queue tidemill.queues, p_head tidemill.queue_heads) RETURNS void
LANGUAGE plpgsql
SET lock_timeout = '20ms'
AS $$
DECLARE
    v_now   timestamptz := clock_timestamp();
    v_table tidemill.job_tables;
BEGIN
    PERFORM tidemill.leave_large_tables(p_queue);
    UPDATE tidemill.job_tables t SET settled_at = v_now
     WHERE t.queue_id = p_queue.queue_id AND t.lane >= 0 AND t.settled_at IS NULL
       AND t.upper <= p_head.cursors[t.lane + 1]
       AND NOT p_head.gaps && int8range(t.first, t.upper)
       AND NOT EXISTS (SELECT FROM tidemill.blocked_jobs b
                        WHERE b.queue_id = t.queue_id AND b.place >= t.first AND b.place < t.upper)
       AND NOT EXISTS (SELECT FROM tidemill.claims c, unnest(c.places) place
                        WHERE c.queue_id = t.queue_id AND c.claim >= p_head.oldest_claim
                          AND place >= t.first AND place < t.upper);
    FOR v_table IN
        SELECT * FROM tidemill.job_tables t
         WHERE t.queue_id = p_queue.queue_id
           AND CASE WHEN t.lane >= 0 THEN t.settled_at + p_queue.keep <= v_now
                    ELSE to_timestamp(t.upper) + p_queue.keep < v_now END
         ORDER BY t.lane, t.first LIMIT 4
    LOOP
        BEGIN
            EXECUTE format('DROP TABLE jobs.%I', v_table.table_name);
            DELETE FROM tidemill.job_tables t WHERE t.table_name = v_table.table_name;
        EXCEPTION WHEN lock_not_available THEN
            NULL;
        END;
    END LOOP;
END $$;

-- Claims up to max_jobs jobs for a worker, in the order of priority, jobs that come again first. They are the worker's until
-- the lease ends, unless it is extended, and have to be ended with the claim's number. Call it on its own, not inside a longer
-- transaction: the queue is locked until the commit. relaxed: the commit does not wait for the disk, since a claim that a crash
-- of the server takes back leads to nothing but another run. per_claim: as many jobs in a row are a claim of their own, if that is
-- no trouble; a claim that is ended whole costs less than one that is ended in parts.
-- This is the short way, for a queue without limits and keys that has jobs in one lane and nothing missing or due.
DROP FUNCTION tidemill.claim_jobs(text, int, text, interval, boolean);
CREATE FUNCTION tidemill.claim_jobs(
    queue     text,
    max_jobs  int DEFAULT 1,
    worker    text DEFAULT NULL,
    lease     interval DEFAULT NULL,
    relaxed   boolean DEFAULT false,
    per_claim int DEFAULT NULL
) RETURNS TABLE (
    claim bigint, id bigint, attempt int, max_attempts int, priority int, key bytea, headers jsonb, payload bytea,
    enqueued_at timestamptz, due_at timestamptz
)
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_bitmapscan = off
AS $$
#variable_conflict use_column
DECLARE
    v_queue record;
    v_lane  record;
    v_found record;
    v_size  int;
    v_claim bigint;
BEGIN
    SELECT q.queue_id, q.sequences, q.lease, q.max_attempts,
           q.paused OR q.ordered OR q.per_key IS NOT NULL OR q.concurrency IS NOT NULL
           OR NOT coalesce(claim_jobs.lease, q.lease) BETWEEN interval '1 s' AND interval '24 h' OR NOT max_jobs BETWEEN 1 AND 10000
           AS is_other,
           pg_advisory_xact_lock(1953066341, q.queue_id),
           CASE WHEN relaxed THEN set_config('synchronous_commit', 'off', true) END
      INTO v_queue
      FROM tidemill.queues q WHERE q.name = queue;
    -- Its snapshot is taken behind the lock.
    SELECT h.generation, h.cursors, h.last_claim, l.lane, l.lanes, t.table_name, clock_timestamp() AS at,
           h.gaps <> '{}' OR h.uses >= 200 OR h.tended_at < clock_timestamp() - interval '200 ms' OR l.lanes > 1 AS is_other
      INTO v_lane
      FROM (SELECT * FROM tidemill.queue_heads h WHERE h.queue_id = v_queue.queue_id ORDER BY h.generation DESC LIMIT 1) h
     CROSS JOIN LATERAL (
         SELECT min(s.lane) AS lane, count(*) AS lanes FROM unnest(v_queue.sequences) WITH ORDINALITY s(sequence, lane)
          WHERE (s.lane - 1 << 48) + pg_sequence_last_value(s.sequence) >= h.cursors[s.lane]) l
      LEFT JOIN LATERAL (
         SELECT t.table_name FROM tidemill.job_tables t
          WHERE t.queue_id = v_queue.queue_id AND t.lane = l.lane - 1 AND t.upper > h.cursors[l.lane]
          ORDER BY t.first LIMIT 1) t ON true;
    IF v_queue.is_other IS NOT false OR v_lane.is_other IS NOT false THEN
        RETURN QUERY SELECT * FROM tidemill.claim_from_all(queue, max_jobs, worker, lease);
        RETURN;
    ELSIF v_lane.lanes = 0 THEN
        RETURN;
    END IF;
    EXECUTE format('SELECT array_agg(f.job) AS jobs, array_agg(f.place) AS places, count(*) AS count, max(f.place) AS last,
                           bool_or(f.id <> f.place) AS have_ids, count(f.key) > 0 AS have_keys, count(f.unique_key) > 0 AS have_uniques
                      FROM (SELECT j::tidemill.job_row AS job, j.place, j.id, j.key, j.unique_key
                              FROM jobs.%I j WHERE j.place >= $1 ORDER BY j.place LIMIT $2) f', v_lane.table_name)
    INTO v_found USING v_lane.cursors[v_lane.lane], max_jobs;
    -- Some of the numbers that were drawn are not there yet: gaps have to be noted, and there may be more in the next table.
    IF v_found.count = 0 OR v_found.last - v_lane.cursors[v_lane.lane] + 1 <> v_found.count THEN
        RETURN QUERY SELECT * FROM tidemill.claim_from_all(queue, max_jobs, worker, lease);
        RETURN;
    END IF;
    v_claim := tidemill.claim_number(v_lane.at, v_lane.last_claim);
    v_size := v_found.count;
    IF per_claim BETWEEN 1 AND v_size - 1 AND NOT (v_found.have_ids OR v_found.have_keys OR v_found.have_uniques) THEN
        v_size := per_claim;
        INSERT INTO tidemill.claims (claim, queue_id, worker, lease, claimed_at, expires_at, places)
        SELECT v_claim + n, v_queue.queue_id, tidemill.worker_name(worker), coalesce(claim_jobs.lease, v_queue.lease), v_lane.at,
               v_lane.at + coalesce(claim_jobs.lease, v_queue.lease), v_found.places[n * v_size + 1:(n + 1) * v_size]
          FROM generate_series(0, (v_found.count - 1) / v_size) n;
    ELSE
        INSERT INTO tidemill.claims (claim, queue_id, worker, lease, claimed_at, expires_at, places, ids, keys, uniques)
        SELECT v_claim, v_queue.queue_id, tidemill.worker_name(worker), coalesce(claim_jobs.lease, v_queue.lease), v_lane.at,
               v_lane.at + coalesce(claim_jobs.lease, v_queue.lease), v_found.places,
               CASE WHEN v_found.have_ids THEN (SELECT array_agg(j.id) FROM unnest(v_found.jobs::tidemill.job_row[]) j) END,
               CASE WHEN v_found.have_keys THEN (SELECT array_agg(j.key) FROM unnest(v_found.jobs::tidemill.job_row[]) j) END,
               CASE WHEN v_found.have_uniques
                    THEN (SELECT array_agg(j.unique_key) FROM unnest(v_found.jobs::tidemill.job_row[]) j) END;
    END IF;
    UPDATE tidemill.queue_heads h
       SET uses = h.uses + 1, cursors[v_lane.lane] = v_found.last + 1, last_claim = v_claim + (v_found.count - 1) / v_size
     WHERE h.queue_id = v_queue.queue_id AND h.generation = v_lane.generation;
    -- The places follow each other.
    RETURN QUERY
    SELECT v_claim + (j.place - v_lane.cursors[v_lane.lane]) / v_size, j.id, j.attempt + 1,
           coalesce(j.max_attempts, v_queue.max_attempts), tidemill.priority_of(j.place), j.key,
           j.headers, j.payload, j.enqueued_at, coalesce(j.due_at, j.enqueued_at)
      FROM unnest(v_found.jobs::tidemill.job_row[]) j;
END $$;

-- The long way of claim_jobs: all lanes, what was missing, what is due, limits and keys.
CREATE FUNCTION tidemill.claim_from_all(queue text, max_jobs int, worker text, lease interval) RETURNS TABLE (
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
    v_lease   interval := coalesce(claim_from_all.lease, v_queue.lease);
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
    PERFORM tidemill.lock_queue(v_queue.queue_id);
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
        v_claim := tidemill.claim_number(v_now, v_head.last_claim);
        v_head.last_claim := v_claim;
        INSERT INTO tidemill.claims (claim, queue_id, worker, lease, claimed_at, expires_at, places, ids, keys, uniques)
        SELECT v_claim, v_queue.queue_id, tidemill.worker_name(worker), v_lease, v_now,
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

-- While a claim is locked nobody else gets its jobs, so a session with a limit to idle transactions gets one that ends with the
-- lease, or a quarter of it later: its worker may have been stopped here.
CREATE FUNCTION tidemill.limit_idle(p_claim tidemill.claims) RETURNS text
LANGUAGE sql VOLATILE
AS $$
    SELECT CASE WHEN current_setting('idle_in_transaction_session_timeout')::interval
                     > greatest(p_claim.expires_at - clock_timestamp(), p_claim.lease / 4)
                THEN set_config('idle_in_transaction_session_timeout',
                                ceil(extract(epoch FROM greatest(p_claim.expires_at - clock_timestamp(), p_claim.lease / 4)) * 1000)::text,
                                true) END
$$;

-- The claim, locked until the commit, if it still holds jobs and its lease has not ended.
CREATE OR REPLACE FUNCTION tidemill.held_claim(p_claim bigint) RETURNS tidemill.claims
LANGUAGE plpgsql
AS $$
DECLARE
    v_claim tidemill.claims;
BEGIN
    SELECT * INTO v_claim FROM tidemill.claims c WHERE c.claim = p_claim AND c.expires_at >= clock_timestamp() FOR UPDATE;
    PERFORM tidemill.limit_idle(v_claim);
    RETURN v_claim;
END $$;

-- Ends runs of jobs of a claim, in the caller's transaction. Verdicts: done (with a result, or NULL), retry (error, and after how
-- long; NULL: the queue's back-off), snooze (after how long), reject (error: dead at once), cancel (error, or NULL). Answers with
-- the ids that were accepted: the others are not this claim's any more, and nothing that they led to may be committed.
-- This is the short way, for the whole claim in its order, all done, as a worker that took one batch gives it back.
CREATE OR REPLACE FUNCTION tidemill.finish_jobs(
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
    v_run record;
BEGIN
    DELETE FROM tidemill.claims c USING tidemill.queues q
     WHERE c.claim = finish_jobs.claim AND c.expires_at >= clock_timestamp() AND coalesce(c.ids, c.places) = finish_jobs.ids
       AND c.uniques IS NULL AND q.queue_id = c.queue_id AND q.history IS NULL
       AND (verdicts IS NULL OR 'done' = ALL (verdicts) AND cardinality(verdicts) = cardinality(ids))
    RETURNING c AS claim, q AS queue, q.keep > interval '0' AS is_kept, tidemill.limit_idle(c) INTO v_run;
    IF v_run.is_kept IS NULL THEN
        RETURN QUERY SELECT * FROM tidemill.finish_some(claim, ids, verdicts, results, errors, after);
    ELSE
        IF v_run.is_kept THEN
            PERFORM tidemill.keep_done(v_run.queue, v_run.claim, (v_run.claim).places, results);
        END IF;
        RETURN QUERY SELECT unnest(ids);
    END IF;
END $$;

-- Joins of arrays, which the planner thinks are short.

-- Those of the ids that the claim holds, with what is said of each first.
CREATE FUNCTION tidemill.runs_of(
    p_claim tidemill.claims, p_ids bigint[], p_verdicts text[], p_results bytea[], p_errors text[], p_after interval[],
    OUT places bigint[], OUT ids bigint[], OUT verdicts text[], OUT results bytea[], OUT errors text[], OUT after interval[]
)
LANGUAGE sql STABLE
SET enable_nestloop = off SET enable_hashjoin = on
AS $$
    SELECT array_agg(h.place), array_agg(h.id), array_agg(g.verdict), array_agg(g.result), array_agg(g.error), array_agg(g.after)
      FROM unnest(p_claim.places, coalesce(p_claim.ids, p_claim.places)) h(place, id)
      JOIN (SELECT DISTINCT ON (e.id) * FROM unnest(p_ids, p_verdicts, p_results, p_errors, p_after) WITH ORDINALITY
                   e(id, verdict, result, error, after, i)
             ORDER BY e.id, e.i) g ON g.id = h.id
$$;

-- Rows of jobs by their places, each with what is said of it.
CREATE FUNCTION tidemill.runs_at(
    p_queue_id int, p_places bigint[], p_verdicts text[], p_results bytea[], p_errors text[], p_after interval[]
) RETURNS TABLE (job tidemill.job_row, verdict text, result bytea, error text, after interval)
LANGUAGE sql STABLE
SET enable_nestloop = off SET enable_hashjoin = on
AS $$
    SELECT j, v.verdict, v.result, v.error, v.after
      FROM tidemill.jobs_at(p_queue_id, p_places) j
      JOIN unnest(p_places, p_verdicts, p_results, p_errors, p_after) v(place, verdict, result, error, after) ON v.place = j.place
$$;
ALTER FUNCTION tidemill.jobs_at(int, bigint[]) SET enable_nestloop = on;

-- The places of a claim without some.
CREATE FUNCTION tidemill.rest_of(
    p_claim tidemill.claims, p_gone bigint[], OUT places bigint[], OUT ids bigint[], OUT keys bytea[], OUT uniques text[]
)
LANGUAGE sql STABLE
SET enable_nestloop = off SET enable_hashjoin = on
AS $$
    SELECT array_agg(o.place ORDER BY o.i), CASE WHEN p_claim.ids IS NOT NULL THEN array_agg(o.id ORDER BY o.i) END,
           CASE WHEN p_claim.keys IS NOT NULL THEN array_agg(o.key ORDER BY o.i) END,
           CASE WHEN p_claim.uniques IS NOT NULL THEN array_agg(o.unique_key ORDER BY o.i) END
      FROM unnest(p_claim.places, p_claim.ids, p_claim.keys, p_claim.uniques) WITH ORDINALITY o(place, id, key, unique_key, i)
      LEFT JOIN unnest(p_gone) gone(place) ON gone.place = o.place
     WHERE gone.place IS NULL
$$;

-- The long way of finish_jobs: any jobs of a claim, whatever came of them.
CREATE FUNCTION tidemill.finish_some(
    claim bigint, ids bigint[], verdicts text[], results bytea[], errors text[], after interval[]
) RETURNS SETOF bigint
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
    v_verdicts text[] := coalesce(verdicts, array_fill('done'::text, ARRAY[coalesce(cardinality(ids), 0)]));
    v_claim    tidemill.claims;
    v_queue    tidemill.queues;
    v_places   bigint[];
    v_ids      bigint[];
    v_results  bytea[];
    v_errors   text[];
    v_after    interval[];
BEGIN
    IF NOT v_verdicts <@ '{done,retry,snooze,reject,cancel}' OR cardinality(v_verdicts) <> coalesce(cardinality(ids), 0) THEN
        RAISE EXCEPTION 'each job needs one verdict of done, retry, snooze, reject, cancel' USING ERRCODE = 'TM005';
    END IF;
    v_claim := tidemill.held_claim(finish_some.claim);
    IF v_claim.claim IS NULL THEN
        RETURN;
    END IF;
    SELECT * INTO STRICT v_queue FROM tidemill.queues q WHERE q.queue_id = v_claim.queue_id;
    SELECT r.places, r.ids, r.verdicts, r.results, r.errors, r.after
      INTO v_places, v_ids, v_verdicts, v_results, v_errors, v_after
      FROM tidemill.runs_of(v_claim, ids, v_verdicts, results, errors, after) r;
    IF v_places IS NULL THEN
        RETURN;
    END IF;
    PERFORM tidemill.release_places(v_claim, v_places);
    PERFORM tidemill.end_runs(v_queue, v_claim, v_places, v_verdicts, v_results, v_errors, v_after);
    RETURN QUERY SELECT unnest(v_ids);
END $$;

-- As before (0011), without looking through all places for each.
CREATE OR REPLACE FUNCTION tidemill.release_places(p_claim tidemill.claims, p_places bigint[]) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    IF p_claim.places <@ p_places THEN
        DELETE FROM tidemill.claims c WHERE c.claim = p_claim.claim;
        RETURN;
    END IF;
    UPDATE tidemill.claims c
       SET (places, ids, keys, uniques) = (SELECT r.places, r.ids, r.keys, r.uniques FROM tidemill.rest_of(p_claim, p_places) r)
     WHERE c.claim = p_claim.claim;
END $$;

DROP FUNCTION tidemill.job_view(tidemill.queues, tidemill.job_row, text, int);
-- A job as it is looked at. p_runs: runs that its row does not count.
CREATE FUNCTION tidemill.job_view(
    p_queue tidemill.queues, p_job tidemill.job_row, p_state text, p_runs int DEFAULT 0, p_claimed_at timestamptz DEFAULT NULL,
    p_finished_at timestamptz DEFAULT NULL, p_worker text DEFAULT NULL, p_result bytea DEFAULT NULL
) RETURNS tidemill.job_view
LANGUAGE sql IMMUTABLE
AS $$
    SELECT ROW(p_job.id, p_state, tidemill.priority_of(p_job.place), p_job.attempt + p_runs,
               coalesce(p_job.max_attempts, p_queue.max_attempts), p_job.key, p_job.headers, p_job.unique_key, p_job.payload,
               p_job.enqueued_at, CASE WHEN coalesce(p_claimed_at, p_finished_at) IS NULL THEN p_job.due_at END, p_claimed_at,
               p_finished_at, p_worker, p_result, CASE WHEN p_state <> 'done' THEN p_job.error END)::tidemill.job_view
$$;

-- What is kept of a job that is done, by its place, if that is known.
CREATE FUNCTION tidemill.find_done(p_queue tidemill.queues, p_place bigint) RETURNS tidemill.job_view
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    v_table text;
    v_run   tidemill.done_run;
    v_view  tidemill.job_view;
BEGIN
    FOR v_table IN
        SELECT t.table_name FROM tidemill.job_tables t WHERE t.queue_id = p_queue.queue_id AND t.lane = -1 ORDER BY t.first DESC
    LOOP
        EXECUTE format('SELECT r.* FROM jobs.%I r WHERE r.first <= $1 AND r.last >= $1 AND $1 = ANY (r.places)
                         ORDER BY r.first DESC LIMIT 1', v_table) INTO v_run USING p_place;
        IF v_run.finished_at IS NOT NULL THEN
            SELECT (tidemill.job_view(p_queue, j, 'done', 1, v_run.claimed_at, v_run.finished_at, v_run.worker,
                                      v_run.results[array_position(v_run.places, j.place)])).* INTO v_view
              FROM tidemill.jobs_at(p_queue.queue_id, ARRAY[p_place]) j;
            RETURN v_view;
        END IF;
    END LOOP;
    RETURN NULL;
END $$;

-- Jobs that are done, newest first.
CREATE FUNCTION tidemill.done_jobs(p_queue tidemill.queues, p_max int) RETURNS SETOF tidemill.job_view
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    v_table text;
    v_run   tidemill.done_run;
    v_view  tidemill.job_view;
    v_got   int := 0;
BEGIN
    FOR v_table IN
        SELECT t.table_name FROM tidemill.job_tables t WHERE t.queue_id = p_queue.queue_id AND t.lane = -1 ORDER BY t.first DESC
    LOOP
        FOR v_run IN EXECUTE format('SELECT r.* FROM jobs.%I r ORDER BY r.finished_at DESC LIMIT $1', v_table) USING p_max LOOP
            FOR v_view IN
                SELECT (v.view).*
                  FROM tidemill.jobs_at(p_queue.queue_id, ARRAY(SELECT p.place FROM unnest(v_run.places) p(place)
                                                                 ORDER BY p.place DESC LIMIT p_max - v_got)) j
                 CROSS JOIN LATERAL (
                     SELECT tidemill.job_view(p_queue, j, 'done', 1, v_run.claimed_at, v_run.finished_at, v_run.worker,
                                              v_run.results[array_position(v_run.places, j.place)])) v(view)
                 ORDER BY j.place DESC
            LOOP
                v_got := v_got + 1;
                RETURN NEXT v_view;
            END LOOP;
            IF v_got >= p_max THEN
                RETURN;
            END IF;
        END LOOP;
    END LOOP;
END $$;

-- Jobs that have rows of their own since they ended: those that were cancelled, newest first.
CREATE FUNCTION tidemill.ended_jobs(p_queue tidemill.queues, p_state text, p_max int) RETURNS SETOF tidemill.job_view
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    v_table text;
    v_view  tidemill.job_view;
    v_got   int := 0;
BEGIN
    FOR v_table IN
        SELECT t.table_name FROM tidemill.job_tables t WHERE t.queue_id = p_queue.queue_id AND t.lane IS NULL ORDER BY t.first DESC
    LOOP
        FOR v_view IN EXECUTE format(
            'SELECT e.id, e.state, e.priority, e.attempt, e.max_attempts, e.key, e.headers, NULL::text, e.payload, e.enqueued_at,
                    NULL::timestamptz, e.claimed_at, e.finished_at, e.worker, e.result, e.error
               FROM jobs.%I e WHERE $1 IN (e.state, ''ended'') ORDER BY e.finished_at DESC LIMIT $2', v_table)
            USING p_state, p_max - v_got
        LOOP
            v_got := v_got + 1;
            RETURN NEXT v_view;
        END LOOP;
        EXIT WHEN v_got >= p_max;
    END LOOP;
END $$;

-- As before (0011), with jobs that are done looked for where they are kept.
CREATE OR REPLACE FUNCTION tidemill.find_job(queue text, id bigint) RETURNS SETOF tidemill.job_view
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
    SELECT (tidemill.job_view(v_queue, d.job, 'dead', 0, NULL, d.failed_at, d.worker)).* INTO v_view
      FROM tidemill.dead_jobs d WHERE d.queue_id = v_queue.queue_id AND d.id = find_job.id;
    IF FOUND THEN
        RETURN NEXT v_view;
        RETURN;
    END IF;
    v_place := tidemill.place_of(v_queue, find_job.id);
    IF v_place IS NOT NULL THEN
        SELECT * INTO v_job FROM tidemill.jobs_at(v_queue.queue_id, ARRAY[v_place]);
        SELECT * INTO v_claim FROM tidemill.claims c WHERE c.queue_id = v_queue.queue_id AND c.places @> ARRAY[v_place];
        IF FOUND THEN
            RETURN NEXT tidemill.job_view(v_queue, v_job, 'running', 1, v_claim.claimed_at, NULL, v_claim.worker);
            RETURN;
        ELSIF tidemill.is_unclaimed(v_queue, v_place) THEN
            RETURN NEXT tidemill.job_view(v_queue, v_job, 'waiting');
            RETURN;
        ELSIF EXISTS (SELECT FROM tidemill.blocked_jobs b
                       WHERE b.queue_id = v_queue.queue_id AND b.key = v_job.key AND b.place = v_place) THEN
            RETURN NEXT tidemill.job_view(v_queue, v_job, 'blocked');
            RETURN;
        END IF;
        v_view := tidemill.find_done(v_queue, v_place);
        IF v_view.id IS NOT NULL THEN
            RETURN NEXT v_view;
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

-- As before (0011), likewise.
CREATE OR REPLACE FUNCTION tidemill.list_jobs(queue text, state text, max_jobs int DEFAULT 100) RETURNS SETOF tidemill.job_view
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
    v_got   int := 0;
BEGIN
    CASE list_jobs.state
    WHEN 'scheduled' THEN
        RETURN QUERY SELECT (tidemill.job_view(v_queue, l.job, 'scheduled')).* FROM (
            SELECT * FROM tidemill.later_jobs l WHERE l.queue_id = v_queue.queue_id ORDER BY l.run_at LIMIT v_limit) l;
    WHEN 'dead' THEN
        RETURN QUERY SELECT (tidemill.job_view(v_queue, d.job, 'dead', 0, NULL, d.failed_at, d.worker)).* FROM (
            SELECT * FROM tidemill.dead_jobs d WHERE d.queue_id = v_queue.queue_id ORDER BY d.id DESC LIMIT v_limit) d
         ORDER BY d.failed_at DESC;
    WHEN 'blocked' THEN
        RETURN QUERY
        SELECT (tidemill.job_view(v_queue, j, 'blocked')).* FROM tidemill.jobs_at(v_queue.queue_id, ARRAY(
            SELECT b.place FROM tidemill.blocked_jobs b WHERE b.queue_id = v_queue.queue_id ORDER BY b.key, b.place LIMIT v_limit)) j;
    WHEN 'running' THEN
        RETURN QUERY SELECT (tidemill.job_view(v_queue, j, 'running', 1, r.claimed_at, NULL, r.worker)).*
          FROM (SELECT c.claimed_at, c.worker, p.place FROM tidemill.claims c, unnest(c.places) p(place)
                 WHERE c.queue_id = v_queue.queue_id ORDER BY c.claim DESC LIMIT v_limit) r
         CROSS JOIN LATERAL tidemill.jobs_at(v_queue.queue_id, ARRAY[r.place]) j;
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
        RETURN QUERY
        SELECT * FROM (SELECT * FROM tidemill.ended_jobs(v_queue, list_jobs.state, v_limit)
                       UNION ALL
                       SELECT * FROM tidemill.done_jobs(v_queue, CASE WHEN list_jobs.state <> 'cancelled' THEN v_limit ELSE 0 END)) e
         ORDER BY e.finished_at DESC LIMIT v_limit;
    ELSE
        RAISE EXCEPTION 'jobs have no state "%"', list_jobs.state
            USING ERRCODE = 'TM005', HINT = 'There are waiting, scheduled, blocked, running, dead, done, cancelled, and ended for the last two.';
    END CASE;
END $$;
