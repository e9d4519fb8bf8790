-- Dead letters that run again: tidemill.redrive queues them, the owner of their group's partition runs them.
--
-- A letter is `dead` until it is queued, and gone once its stage has processed it: what the message led to and the end of
-- its letter are one commit, under the owner's epoch. If it fails again it is `dead` again, with one attempt more and the new
-- error. Whoever changes a letter (its payload, say) while it runs is not overwritten: the commit names the row's version.
-- A queued letter is found by polling; the notification on the channel tidemill_letters only makes it faster.
-- Error codes: TM001 unknown, TM006 not possible now.

ALTER TABLE tidemill.dead_letters
    ADD COLUMN state text NOT NULL DEFAULT 'dead'
        CONSTRAINT dead_letters_state_known CHECK (state IN ('dead', 'queued')),
    -- When the message was appended: the time that the plugin sees, now as before.
    ADD COLUMN appended_at timestamptz,
    -- When it failed last.
    ADD COLUMN failed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- When it was queued last.
    ADD COLUMN redriven_at timestamptz,
    -- Since then: deliveries that asked to come again, and when that is.
    ADD COLUMN tries int NOT NULL DEFAULT 0,
    ADD COLUMN not_before timestamptz,
    DROP CONSTRAINT dead_letters_kind_known,
    -- `fatal` comes from redrives only: elsewhere it stops the stage.
    ADD CONSTRAINT dead_letters_kind_known
        CHECK (kind IN ('reject', 'retries', 'trap', 'deadline', 'memory', 'output', 'fatal'));

CREATE INDEX dead_letters_queued ON tidemill.dead_letters (group_name, topic, partition, c_offset, dead_letter_id)
    WHERE state = 'queued';
CREATE INDEX dead_letters_by_age ON tidemill.dead_letters (failed_at);

-- Dead letters of each group, counted up to 100,000 (so that a look at the status stays cheap), and how many are queued.
CREATE VIEW tidemill.dead_letter_counts AS
WITH RECURSIVE named AS (
    (SELECT d.group_name FROM tidemill.dead_letters d ORDER BY d.group_name LIMIT 1)
    UNION ALL
    SELECT (SELECT d.group_name FROM tidemill.dead_letters d WHERE d.group_name > n.group_name
             ORDER BY d.group_name LIMIT 1)
      FROM named n WHERE n.group_name IS NOT NULL)
SELECT n.group_name,
       (SELECT count(*) FROM (SELECT FROM tidemill.dead_letters d WHERE d.group_name = n.group_name LIMIT 100000) c) AS letters,
       (SELECT count(*) FROM (SELECT FROM tidemill.dead_letters d
                               WHERE d.group_name = n.group_name AND d.state = 'queued' LIMIT 100000) c) AS queued
  FROM named n WHERE n.group_name IS NOT NULL;

-- Queues one letter. False: it is queued already.
CREATE FUNCTION tidemill.redrive(dead_letter_id bigint) RETURNS boolean
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    v_letter record;
BEGIN
    SELECT d.group_name, d.topic, d.partition, d.state INTO v_letter FROM tidemill.dead_letters d
     WHERE d.dead_letter_id = redrive.dead_letter_id FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no dead letter %', redrive.dead_letter_id
            USING ERRCODE = 'TM001', HINT = 'It was redriven or dropped; SELECT dead_letter_id FROM tidemill.dead_letters lists them.';
    END IF;
    IF NOT EXISTS (SELECT FROM tidemill.consumer_offsets o JOIN tidemill.topics t USING (topic_id)
                    WHERE o.group_name = v_letter.group_name AND t.name = v_letter.topic AND o.partition = v_letter.partition) THEN
        RAISE EXCEPTION 'group "%" does not read topic "%" any more, so nobody would run dead letter % again',
            v_letter.group_name, v_letter.topic, redrive.dead_letter_id
            USING ERRCODE = 'TM006', HINT = 'Start the pipeline with that group, or drop the letter.';
    END IF;
    IF v_letter.state = 'queued' THEN
        RETURN false;
    END IF;
    UPDATE tidemill.dead_letters d
       SET state = 'queued', redriven_at = clock_timestamp(), tries = 0, not_before = NULL
     WHERE d.dead_letter_id = redrive.dead_letter_id;
    PERFORM pg_notify('tidemill_letters', '');
    RETURN true;
END $$;

-- Queues the letters of a group, oldest offset first: all of them, or those of a topic, a stage ('stage' or
-- 'pipeline/stage'), a kind, a plugin (the first digits of its digest), or that failed within a time. Returns how many.
CREATE FUNCTION tidemill.redrive(
    group_name text, topic text DEFAULT NULL, stage text DEFAULT NULL, kind text DEFAULT NULL, digest text DEFAULT NULL,
    since timestamptz DEFAULT NULL, until timestamptz DEFAULT NULL, max_letters int DEFAULT 10000
) RETURNS bigint
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    v_count bigint;
BEGIN
    UPDATE tidemill.dead_letters d
       SET state = 'queued', redriven_at = clock_timestamp(), tries = 0, not_before = NULL
     WHERE d.dead_letter_id IN (
        SELECT l.dead_letter_id FROM tidemill.dead_letters l
         WHERE l.group_name = redrive.group_name AND l.state = 'dead'
           AND (redrive.topic IS NULL OR l.topic = redrive.topic)
           AND (redrive.stage IS NULL OR redrive.stage IN (l.stage, l.pipeline || '/' || l.stage))
           AND (redrive.kind IS NULL OR l.kind = redrive.kind)
           AND (redrive.digest IS NULL OR starts_with(l.digest, 'sha256:' || regexp_replace(redrive.digest, '^sha256:', '')))
           AND (redrive.since IS NULL OR l.failed_at >= redrive.since)
           AND (redrive.until IS NULL OR l.failed_at < redrive.until)
           AND EXISTS (SELECT FROM tidemill.consumer_offsets o JOIN tidemill.topics t USING (topic_id)
                        WHERE o.group_name = l.group_name AND t.name = l.topic AND o.partition = l.partition)
         ORDER BY l.topic, l.partition, l.c_offset LIMIT redrive.max_letters FOR UPDATE OF l SKIP LOCKED);
    GET DIAGNOSTICS v_count = ROW_COUNT;
    IF v_count > 0 THEN
        PERFORM pg_notify('tidemill_letters', '');
    END IF;
    RETURN v_count;
END $$;

-- A row that a redriven message changed carries the offset of that message, which live readers of the table have passed.
-- So the row's key is noted here under the offset at which the group stands, beside the keys of deleted rows.
ALTER TABLE tidemill.tombstones
    ADD COLUMN gone boolean NOT NULL DEFAULT true,
    -- The offset of the message, where that is not c_offset.
    ADD COLUMN late_offset bigint;
