-- Shadows: a candidate version of a stage beside the live one, on the same offsets, in a group, topics and tables of its own.
--
-- A shadow starts where its stage stands, with copies of its state and tables taken in one snapshot. A view in schema `shadow`,
-- named after pipeline and stage, shows what the two made differently of the same messages. tidemill.promote makes the
-- candidate the version of the stage; the hosts take away what the shadow has left behind.

CREATE SCHEMA IF NOT EXISTS shadow;

CREATE TABLE tidemill.shadows (
    pipeline   text NOT NULL,
    stage      text NOT NULL,
    digest     text NOT NULL CONSTRAINT shadows_digest REFERENCES tidemill.plugins,
    group_name text NOT NULL,
    live_group text NOT NULL,
    -- Live name -> name of the shadow.
    topics     jsonb NOT NULL,
    tables     jsonb NOT NULL,
    view_name  text NOT NULL CONSTRAINT shadows_view_unique UNIQUE,
    state      text NOT NULL DEFAULT 'running' CONSTRAINT shadows_state_known CHECK (state IN ('running', 'ending')),
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    started_by text NOT NULL,
    CONSTRAINT shadows_pk PRIMARY KEY (pipeline, stage)
);

-- Where shadows began: what was before is not compared.
CREATE TABLE tidemill.shadow_starts (
    pipeline     text NOT NULL,
    stage        text NOT NULL,
    partition    int NOT NULL,
    start_offset bigint NOT NULL,
    CONSTRAINT shadow_starts_pk PRIMARY KEY (pipeline, stage, partition),
    CONSTRAINT shadow_starts_shadow FOREIGN KEY (pipeline, stage) REFERENCES tidemill.shadows ON DELETE CASCADE
);

-- What both versions have processed of each partition since the shadow began: low up to, not including, high.
CREATE VIEW tidemill.shadow_spans AS
SELECT w.pipeline, w.stage, b.partition, b.start_offset AS low, least(l.next_offset, s.next_offset) AS high, w.started_at
  FROM tidemill.shadows w
  JOIN tidemill.shadow_starts b USING (pipeline, stage)
  JOIN tidemill.consumer_offsets s ON s.group_name = w.group_name AND s.partition = b.partition
  JOIN tidemill.consumer_offsets l ON l.topic_id = s.topic_id AND l.partition = s.partition
   AND l.group_name = w.live_group;

-- One statement that compares a topic's records, by the input they were made from, or a table's rows, by their key.
CREATE FUNCTION tidemill.shadow_topic_query(p_pipeline text, p_stage text, p_live text, p_shadow text) RETURNS text
LANGUAGE sql STABLE
AS $$
    SELECT format($view$
        (WITH span AS (SELECT * FROM tidemill.shadow_spans w WHERE w.pipeline = %1$L AND w.stage = %2$L),
         live AS (
             SELECT b.input_partition, b.input_offset + coalesce(b.input_index[m.i], m.i - 1) AS input_offset,
                    m.key, m.headers, m.payload
               FROM log.%3$I b CROSS JOIN LATERAL unnest(b.payloads, b.keys, b.headers) WITH ORDINALITY AS m(payload, key, headers, i)
              WHERE b.ts >= (SELECT min(started_at) FROM span)
                AND b.origin IN (SELECT o.origin_id FROM tidemill.origins o WHERE o.pipeline = %1$L AND o.stage = %2$L)),
         made AS (
             SELECT b.input_partition, b.input_offset + coalesce(b.input_index[m.i], m.i - 1) AS input_offset,
                    m.key, m.headers, m.payload
               FROM log.%4$I b CROSS JOIN LATERAL unnest(b.payloads, b.keys, b.headers) WITH ORDINALITY AS m(payload, key, headers, i)
              WHERE b.ts >= (SELECT min(started_at) FROM span)),
         different AS (
             SELECT 'live' AS side, x.* FROM (SELECT * FROM live EXCEPT ALL SELECT * FROM made) x
             UNION ALL
             SELECT 'shadow', x.* FROM (SELECT * FROM made EXCEPT ALL SELECT * FROM live) x)
        SELECT %3$L::text AS topic, d.side, d.input_partition, d.input_offset, d.key, d.headers, d.payload,
               tidemill.try_json(d.payload) AS value
          FROM different d JOIN span ON span.partition = d.input_partition
           AND d.input_offset >= span.low AND d.input_offset < span.high)
    $view$, p_pipeline, p_stage, p_live, p_shadow)
$$;

CREATE FUNCTION tidemill.shadow_table_query(p_pipeline text, p_stage text, p_live text, p_shadow text) RETURNS text
LANGUAGE sql STABLE
AS $$
    SELECT format($view$
        (SELECT %3$L::text AS table_name,
                (SELECT jsonb_object_agg(k, coalesce(l.row, s.row) -> k) FROM unnest(%5$L::text[]) k) AS key,
                l.row - '{_partition,_offset}'::text[] AS live, s.row - '{_partition,_offset}'::text[] AS shadow
           FROM (SELECT to_jsonb(t) AS row, t._partition, t._offset, ROW (%6$s)::text AS id FROM public.%3$I t) l
           FULL JOIN (SELECT to_jsonb(t) AS row, t._partition, t._offset, ROW (%6$s)::text AS id FROM public.%4$I t) s USING (id)
          WHERE l.row - '{_partition,_offset}'::text[] IS DISTINCT FROM s.row - '{_partition,_offset}'::text[]
            AND NOT EXISTS (SELECT FROM tidemill.shadow_spans w
                             WHERE w.pipeline = %1$L AND w.stage = %2$L
                               AND (l._partition = w.partition AND l._offset >= w.high
                                    OR s._partition = w.partition AND s._offset >= w.high)))
    $view$, p_pipeline, p_stage, p_live, p_shadow, t.key, (SELECT string_agg(format('t.%I', k), ', ') FROM unnest(t.key) k))
      FROM tidemill.tables t WHERE t.schema_name = 'public' AND t.table_name = p_live
$$;

-- Starts the shadow of a stage: its group where the live one stands, with the same state and rows, and the view. Call it as
-- the first statement of a REPEATABLE READ transaction: all of it must be of one snapshot. Topics and tables are there.
CREATE FUNCTION tidemill.start_shadow(p_pipeline text, p_stage text, p_digest text, p_live_group text, p_group text,
                                      p_topic text, p_topics jsonb, p_tables jsonb, p_by text) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    v_topic   int := tidemill.topic_id(p_topic);
    v_view    text := left(translate(p_pipeline || '_' || p_stage, '-', '_'), 63);
    v_queries text;
    v_pair    record;
BEGIN
    IF current_setting('transaction_isolation') <> 'repeatable read' THEN
        RAISE EXCEPTION 'a shadow starts in a REPEATABLE READ transaction' USING ERRCODE = 'TM005';
    END IF;
    IF EXISTS (SELECT FROM tidemill.shadows w WHERE w.pipeline = p_pipeline AND w.stage = p_stage) THEN
        RAISE EXCEPTION 'stage %/% has a shadow already', p_pipeline, p_stage
            USING ERRCODE = 'TM006', HINT = 'Promote it or end it first; one that has just ended is cleared in a moment.';
    END IF;
    INSERT INTO tidemill.shadows (pipeline, stage, digest, group_name, live_group, topics, tables, view_name, started_by)
    VALUES (p_pipeline, p_stage, p_digest, p_group, p_live_group, p_topics, p_tables, v_view, p_by);
    INSERT INTO tidemill.consumer_offsets (group_name, topic_id, partition, next_offset)
    SELECT p_group, o.topic_id, o.partition, o.next_offset FROM tidemill.consumer_offsets o
     WHERE o.group_name = p_live_group AND o.topic_id = v_topic;
    INSERT INTO tidemill.shadow_starts (pipeline, stage, partition, start_offset)
    SELECT p_pipeline, p_stage, o.partition, o.next_offset FROM tidemill.consumer_offsets o
     WHERE o.group_name = p_group AND o.topic_id = v_topic;
    INSERT INTO tidemill.state_spaces (group_name, topic_id, partition, bytes)
    SELECT p_group, s.topic_id, s.partition, s.bytes FROM tidemill.state_spaces s
     WHERE s.group_name = p_live_group AND s.topic_id = v_topic;
    INSERT INTO tidemill.state_entries (space_id, key, value, expires_at)
    SELECT n.space_id, e.key, e.value, e.expires_at FROM tidemill.state_entries e
      JOIN tidemill.state_spaces s ON s.space_id = e.space_id AND s.group_name = p_live_group AND s.topic_id = v_topic
      JOIN tidemill.state_spaces n ON n.group_name = p_group AND n.topic_id = s.topic_id AND n.partition = s.partition;
    FOR v_pair IN SELECT key AS live, value AS made FROM jsonb_each_text(p_tables) LOOP
        EXECUTE format('TRUNCATE public.%I', v_pair.made);
        EXECUTE format('INSERT INTO public.%I SELECT * FROM public.%I', v_pair.made, v_pair.live);
    END LOOP;
    SELECT string_agg(q, ' UNION ALL ') INTO v_queries FROM (
        SELECT tidemill.shadow_topic_query(p_pipeline, p_stage, key, value) FROM jsonb_each_text(p_topics)
        UNION ALL
        SELECT tidemill.shadow_table_query(p_pipeline, p_stage, key, value) FROM jsonb_each_text(p_tables)) AS x(q);
    EXECUTE format('CREATE VIEW shadow.%I AS %s', v_view, v_queries);
    PERFORM pg_notify('tidemill_plugins', p_pipeline || '/' || p_stage);
END $$;

-- Ends the shadow of a stage ('pipeline/stage'): from here on it writes nothing more. Hosts clear what it leaves.
CREATE FUNCTION tidemill.end_shadow(stage text) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    v_group text;
BEGIN
    UPDATE tidemill.shadows w SET state = 'ending'
     WHERE w.pipeline = split_part(end_shadow.stage, '/', 1) AND w.stage = split_part(end_shadow.stage, '/', 2)
       AND w.state = 'running'
    RETURNING w.group_name INTO v_group;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'stage % has no shadow', quote_literal(end_shadow.stage)
            USING ERRCODE = 'TM001', HINT = 'SELECT pipeline, stage, digest FROM tidemill.shadows lists them.';
    END IF;
    -- Without its row the group commits nothing.
    DELETE FROM tidemill.consumer_offsets o WHERE o.group_name = v_group;
    DELETE FROM tidemill.dead_letters d WHERE d.group_name = v_group;
    PERFORM pg_notify('tidemill_plugins', end_shadow.stage);
END $$;

-- Makes the shadow of a stage its version, on probation as every new one, and ends the shadow.
CREATE FUNCTION tidemill.promote(stage text, by text DEFAULT current_user) RETURNS tidemill.stage_plugins
LANGUAGE plpgsql
AS $$
DECLARE
    v_digest text;
    v_row    tidemill.stage_plugins;
BEGIN
    SELECT w.digest INTO v_digest FROM tidemill.shadows w
     WHERE w.pipeline = split_part(promote.stage, '/', 1) AND w.stage = split_part(promote.stage, '/', 2)
       AND w.state = 'running' FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'stage % has no shadow to promote', quote_literal(promote.stage)
            USING ERRCODE = 'TM001', HINT = 'SELECT pipeline, stage, digest FROM tidemill.shadows lists them.';
    END IF;
    v_row := tidemill.activate_plugin(promote.stage, v_digest, 'promote', promote.by);
    PERFORM tidemill.end_shadow(promote.stage);
    RETURN v_row;
END $$;

-- Takes away the view, the topics and the tables of a shadow that has ended. False: another host is at it, or has done it.
CREATE FUNCTION tidemill.clear_shadow(p_pipeline text, p_stage text) RETURNS boolean
LANGUAGE plpgsql
SET lock_timeout = '5s'
AS $$
DECLARE
    v_row  tidemill.shadows;
    v_name text;
BEGIN
    SELECT * INTO v_row FROM tidemill.shadows w
     WHERE w.pipeline = p_pipeline AND w.stage = p_stage AND w.state = 'ending' FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    EXECUTE format('DROP VIEW IF EXISTS shadow.%I', v_row.view_name);
    FOR v_name IN SELECT value FROM jsonb_each_text(v_row.tables) LOOP
        EXECUTE format('DROP TABLE IF EXISTS public.%I', v_name);
        DELETE FROM tidemill.tables t WHERE t.schema_name = 'public' AND t.table_name = v_name;
    END LOOP;
    FOR v_name IN SELECT value FROM jsonb_each_text(v_row.topics) LOOP
        IF EXISTS (SELECT FROM tidemill.topics t WHERE t.name = v_name) THEN
            PERFORM tidemill.delete_topic(v_name);
        END IF;
    END LOOP;
    DELETE FROM tidemill.shadows w WHERE w.pipeline = p_pipeline AND w.stage = p_stage;
    RETURN true;
END $$;
