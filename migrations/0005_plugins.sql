-- Plugins: the components by their digest, which of them each stage runs, and which it ran before.
--
-- tidemill.stage_plugins is the one truth about what runs: hosts follow it, files and pushes only write to it. Every change
-- raises the epoch of its row, and a host that judges a version names the epoch it saw, so that of several hosts one decides.
-- Each change notifies on the channel tidemill_plugins; hosts also look once a second.
-- Error codes: TM001 unknown, TM005 bad argument, TM006 in use or not possible now, TM007 refused before.

CREATE TABLE tidemill.plugins (
    digest    text NOT NULL CONSTRAINT plugins_pk PRIMARY KEY
              CONSTRAINT plugins_digest_form CHECK (digest ~ '^sha256:[0-9a-f]{64}$'),
    kind      text NOT NULL,
    name      text NOT NULL,
    version   text NOT NULL,
    -- NULL once no stage runs it or ran it lately: the rest stays, since outputs and dead letters name the digest.
    bytes     bytea,
    size      bigint NOT NULL,
    pushed_at timestamptz NOT NULL DEFAULT now(),
    pushed_by text NOT NULL
);

-- lz4 where the server has it: pglz takes several times as long for a component of some megabytes.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_settings s WHERE s.name = 'default_toast_compression' AND 'lz4' = ANY (s.enumvals)) THEN
        ALTER TABLE tidemill.plugins ALTER COLUMN bytes SET COMPRESSION lz4;
    END IF;
END $$;

CREATE TABLE tidemill.stage_plugins (
    pipeline    text NOT NULL,
    stage       text NOT NULL,
    -- What runs.
    digest      text NOT NULL CONSTRAINT stage_plugins_digest REFERENCES tidemill.plugins,
    -- What takes over if it fails its probation: the last version that was not on probation itself.
    previous    text CONSTRAINT stage_plugins_previous REFERENCES tidemill.plugins,
    epoch       bigint NOT NULL DEFAULT 1,
    source      text NOT NULL CONSTRAINT stage_plugins_source_known CHECK (source IN ('file', 'push', 'rollback', 'promote')),
    state       text NOT NULL CONSTRAINT stage_plugins_state_known CHECK (state IN ('probation', 'stable', 'rolled-back')),
    -- Why it was rolled back.
    reason      text,
    changed_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed_by  text NOT NULL,
    -- What the file of the stage held when it was looked at last: only a file that changes since is published.
    file_digest text,
    -- What was rolled back here, newest last: a file cannot bring it back, a push can.
    refused     text[] NOT NULL DEFAULT '{}',
    CONSTRAINT stage_plugins_pk PRIMARY KEY (pipeline, stage),
    CONSTRAINT stage_plugins_probation CHECK (state <> 'probation' OR previous IS NOT NULL)
);

-- Who ran when, the newest hundred of each stage.
CREATE TABLE tidemill.stage_plugin_history (
    pipeline   text NOT NULL,
    stage      text NOT NULL,
    epoch      bigint NOT NULL,
    digest     text NOT NULL,
    source     text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    started_by text NOT NULL,
    -- Whether it has passed its probation, or needed none.
    proven     boolean NOT NULL,
    ended_at   timestamptz,
    outcome    text CONSTRAINT stage_plugin_history_outcome_known CHECK (outcome IN ('replaced', 'rolled-back')),
    reason     text,
    CONSTRAINT stage_plugin_history_pk PRIMARY KEY (pipeline, stage, epoch),
    CONSTRAINT stage_plugin_history_ended CHECK ((ended_at IS NULL) = (outcome IS NULL))
);

-- The digest that a text stands for: whole, or its first hexadecimal digits, with or without sha256: in front.
CREATE FUNCTION tidemill.plugin_digest(start text) RETURNS text
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    v_start text := 'sha256:' || regexp_replace(start, '^sha256:', '');
    v_found text[];
BEGIN
    IF v_start !~ '^sha256:[0-9a-f]{4,64}$' THEN
        RAISE EXCEPTION '% is no digest of a plugin', quote_literal(start)
            USING ERRCODE = 'TM005', HINT = 'Give its first hexadecimal digits, four at least.';
    END IF;
    SELECT array_agg(p.digest) INTO v_found FROM tidemill.plugins p WHERE starts_with(p.digest, v_start);
    IF v_found IS NULL THEN
        RAISE EXCEPTION 'there is no plugin %', v_start
            USING ERRCODE = 'TM001', HINT = 'SELECT digest, name, version FROM tidemill.plugins lists them.';
    ELSIF cardinality(v_found) > 1 THEN
        RAISE EXCEPTION '% plugins begin with %', cardinality(v_found), v_start
            USING ERRCODE = 'TM005', HINT = 'Give more digits.';
    END IF;
    RETURN v_found[1];
END $$;

-- The row of a stage given as 'pipeline/stage', locked.
CREATE FUNCTION tidemill.lock_stage_plugin(p_stage text) RETURNS tidemill.stage_plugins
LANGUAGE plpgsql
AS $$
DECLARE
    v_row tidemill.stage_plugins;
BEGIN
    SELECT * INTO v_row FROM tidemill.stage_plugins s
     WHERE s.pipeline = split_part(p_stage, '/', 1) AND s.stage = split_part(p_stage, '/', 2) FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no stage % has run yet', quote_literal(p_stage)
            USING ERRCODE = 'TM001', HINT = 'Write it as pipeline/stage. SELECT pipeline, stage FROM tidemill.stage_plugins lists them.';
    END IF;
    RETURN v_row;
END $$;

-- Writes a changed row back under its next epoch, closes the history of the one before, and tells the hosts.
CREATE FUNCTION tidemill.change_stage_plugin(p_old tidemill.stage_plugins, p_new tidemill.stage_plugins, p_outcome text)
RETURNS tidemill.stage_plugins
LANGUAGE plpgsql
AS $$
DECLARE
    v_row tidemill.stage_plugins;
BEGIN
    IF NOT EXISTS (SELECT FROM tidemill.plugins p WHERE p.digest = p_new.digest AND p.bytes IS NOT NULL) THEN
        RAISE EXCEPTION 'the bytes of plugin % are not kept', p_new.digest
            USING ERRCODE = 'TM006', HINT = 'Push the component again.';
    END IF;
    UPDATE tidemill.stage_plugins s
       SET digest = p_new.digest, previous = p_new.previous, epoch = p_old.epoch + 1, source = p_new.source,
           state = p_new.state, reason = p_new.reason, changed_at = clock_timestamp(), changed_by = p_new.changed_by,
           file_digest = p_new.file_digest,
           refused = p_new.refused[greatest(1, cardinality(p_new.refused) - 31):]
     WHERE s.pipeline = p_old.pipeline AND s.stage = p_old.stage
    RETURNING * INTO v_row;
    UPDATE tidemill.stage_plugin_history h
       SET ended_at = v_row.changed_at, outcome = p_outcome,
           reason = CASE p_outcome WHEN 'rolled-back' THEN v_row.reason END
     WHERE h.pipeline = v_row.pipeline AND h.stage = v_row.stage AND h.epoch = p_old.epoch;
    INSERT INTO tidemill.stage_plugin_history (pipeline, stage, epoch, digest, source, started_at, started_by, proven)
    VALUES (v_row.pipeline, v_row.stage, v_row.epoch, v_row.digest, v_row.source, v_row.changed_at, v_row.changed_by,
            v_row.state <> 'probation');
    DELETE FROM tidemill.stage_plugin_history h
     WHERE h.pipeline = v_row.pipeline AND h.stage = v_row.stage AND h.epoch <= v_row.epoch - 100;
    -- Bytes that nothing runs, ran among the last ten of its stage, or is about to run.
    UPDATE tidemill.plugins p SET bytes = NULL
     WHERE p.bytes IS NOT NULL AND p.pushed_at < now() - interval '1 minute'
       AND NOT EXISTS (SELECT FROM tidemill.stage_plugins s WHERE p.digest IN (s.digest, s.previous))
       AND NOT EXISTS (SELECT FROM tidemill.stage_plugin_history h JOIN tidemill.stage_plugins s USING (pipeline, stage)
                        WHERE h.digest = p.digest AND h.epoch > s.epoch - 10);
    PERFORM pg_notify('tidemill_plugins', v_row.pipeline || '/' || v_row.stage);
    RETURN v_row;
END $$;

-- Makes a stored plugin the one that a stage runs, on probation if there is one to go back to. Nothing changes if it runs
-- already. A file (p_source 'file') cannot bring back what was rolled back here.
CREATE FUNCTION tidemill.activate_plugin(p_stage text, p_digest text, p_source text, p_by text,
                                         p_probation boolean DEFAULT true) RETURNS tidemill.stage_plugins
LANGUAGE plpgsql
AS $$
DECLARE
    v_old tidemill.stage_plugins;
    v_new tidemill.stage_plugins;
BEGIN
    INSERT INTO tidemill.stage_plugins AS s (pipeline, stage, digest, source, state, changed_by, file_digest)
    VALUES (split_part(p_stage, '/', 1), split_part(p_stage, '/', 2), p_digest, p_source, 'stable', p_by,
            CASE p_source WHEN 'file' THEN p_digest END)
    ON CONFLICT ON CONSTRAINT stage_plugins_pk DO NOTHING
    RETURNING * INTO v_new;
    IF FOUND THEN
        INSERT INTO tidemill.stage_plugin_history (pipeline, stage, epoch, digest, source, started_by, proven)
        VALUES (v_new.pipeline, v_new.stage, v_new.epoch, p_digest, p_source, p_by, true);
        PERFORM pg_notify('tidemill_plugins', p_stage);
        RETURN v_new;
    END IF;
    v_old := tidemill.lock_stage_plugin(p_stage);
    IF p_source = 'file' AND v_old.file_digest IS DISTINCT FROM p_digest THEN
        UPDATE tidemill.stage_plugins s SET file_digest = p_digest
         WHERE s.pipeline = v_old.pipeline AND s.stage = v_old.stage;
        v_old.file_digest := p_digest;
    END IF;
    IF v_old.digest = p_digest OR p_source = 'file' AND p_digest = ANY (v_old.refused) THEN
        RETURN v_old;
    END IF;
    v_new := v_old;
    v_new.digest := p_digest;
    v_new.previous := CASE v_old.state WHEN 'probation' THEN v_old.previous ELSE v_old.digest END;
    IF v_new.previous = p_digest THEN
        -- Back to the version that is proven: there is nothing to try out.
        v_new.previous := NULL;
    END IF;
    -- A version of another kind cannot stand in.
    IF v_new.previous IS NOT NULL AND
       (SELECT count(DISTINCT p.kind) FROM tidemill.plugins p WHERE p.digest IN (p_digest, v_new.previous)) > 1 THEN
        v_new.previous := NULL;
    END IF;
    v_new.state := CASE WHEN v_new.previous IS NOT NULL AND p_probation THEN 'probation' ELSE 'stable' END;
    v_new.source := p_source;
    v_new.reason := NULL;
    v_new.changed_by := p_by;
    v_new.refused := array_remove(v_old.refused, p_digest);
    RETURN tidemill.change_stage_plugin(v_old, v_new, 'replaced');
END $$;

-- Ends a probation well. False: the stage has moved on since.
CREATE FUNCTION tidemill.prove_plugin(p_stage text, p_epoch bigint) RETURNS boolean
LANGUAGE plpgsql
AS $$
BEGIN
    UPDATE tidemill.stage_plugins s SET state = 'stable'
     WHERE s.pipeline = split_part(p_stage, '/', 1) AND s.stage = split_part(p_stage, '/', 2)
       AND s.epoch = p_epoch AND s.state = 'probation';
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE tidemill.stage_plugin_history h SET proven = true
     WHERE h.pipeline = split_part(p_stage, '/', 1) AND h.stage = split_part(p_stage, '/', 2) AND h.epoch = p_epoch;
    PERFORM pg_notify('tidemill_plugins', p_stage);
    RETURN true;
END $$;

-- Ends a probation badly: the previous version runs again. No row: the stage has moved on since.
CREATE FUNCTION tidemill.fail_plugin(p_stage text, p_epoch bigint, p_reason text, p_by text)
RETURNS SETOF tidemill.stage_plugins
LANGUAGE plpgsql
AS $$
DECLARE
    v_old tidemill.stage_plugins := tidemill.lock_stage_plugin(p_stage);
    v_new tidemill.stage_plugins := v_old;
BEGIN
    IF v_old.epoch <> p_epoch OR v_old.state <> 'probation' THEN
        RETURN;
    END IF;
    v_new.digest := v_old.previous;
    v_new.previous := NULL;
    v_new.source := 'rollback';
    v_new.state := 'rolled-back';
    v_new.reason := p_reason;
    v_new.changed_by := p_by;
    v_new.refused := array_append(array_remove(v_old.refused, v_old.digest), v_old.digest);
    RETURN NEXT tidemill.change_stage_plugin(v_old, v_new, 'rolled-back');
END $$;

-- Goes back by hand: to the version before, the last one that was proven, or the one named (its first digits will do).
CREATE FUNCTION tidemill.rollback_plugin(stage text, to_digest text DEFAULT NULL, by text DEFAULT current_user)
RETURNS tidemill.stage_plugins
LANGUAGE plpgsql
AS $$
DECLARE
    v_old    tidemill.stage_plugins := tidemill.lock_stage_plugin(stage);
    v_new    tidemill.stage_plugins := v_old;
    v_target text;
BEGIN
    IF to_digest IS NOT NULL THEN
        v_target := tidemill.plugin_digest(to_digest);
    ELSE
        v_target := v_old.previous;
    END IF;
    IF v_target IS NULL THEN
        SELECT h.digest INTO v_target FROM tidemill.stage_plugin_history h JOIN tidemill.plugins p USING (digest)
         WHERE h.pipeline = v_old.pipeline AND h.stage = v_old.stage AND h.proven AND h.digest <> v_old.digest
           AND h.digest <> ALL (v_old.refused) AND p.bytes IS NOT NULL
         ORDER BY h.epoch DESC LIMIT 1;
    END IF;
    IF v_target IS NULL THEN
        RAISE EXCEPTION 'there is no version of % to go back to', rollback_plugin.stage
            USING ERRCODE = 'TM006', HINT = 'Name one: SELECT digest, name, version FROM tidemill.plugins lists them.';
    ELSIF v_target = v_old.digest THEN
        RETURN v_old;
    END IF;
    v_new.digest := v_target;
    v_new.previous := NULL;
    v_new.source := 'rollback';
    v_new.state := 'rolled-back';
    v_new.reason := 'by hand';
    v_new.changed_by := rollback_plugin.by;
    v_new.refused := array_append(array_remove(array_remove(v_old.refused, v_target), v_old.digest), v_old.digest);
    RETURN tidemill.change_stage_plugin(v_old, v_new, 'rolled-back');
END $$;
