-- State of stages: keys and values that belong to one group and one partition of a topic.
--
-- Written only in the commit that moves the group's offset, behind its fence, by the one owner of the partition; so the sums
-- in state_spaces are exact. A space goes with its group and its topic. Moving a group (tidemill.seek) leaves its state as
-- it is, unless tidemill.clear_state is called: see docs/grants.md.

CREATE TABLE tidemill.state_spaces (
    space_id   bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT state_spaces_pk PRIMARY KEY,
    group_name text NOT NULL,
    topic_id   int NOT NULL,
    partition  int NOT NULL,
    -- Keys, values, and 64 bytes for each entry, expired ones included until they are swept.
    bytes      bigint NOT NULL DEFAULT 0 CONSTRAINT state_spaces_not_negative CHECK (bytes >= 0),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT state_spaces_unique UNIQUE (group_name, topic_id, partition),
    CONSTRAINT state_spaces_group FOREIGN KEY (group_name, topic_id, partition)
        REFERENCES tidemill.consumer_offsets ON DELETE CASCADE
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 500);

CREATE TABLE tidemill.state_entries (
    space_id   bigint NOT NULL CONSTRAINT state_entries_space REFERENCES tidemill.state_spaces ON DELETE CASCADE,
    key        bytea NOT NULL CONSTRAINT state_entries_key_fits CHECK (length(key) BETWEEN 1 AND 1024),
    value      bytea NOT NULL,
    -- On the time of appends, which the owner compares it with.
    expires_at timestamptz,
    CONSTRAINT state_entries_pk PRIMARY KEY (space_id, key)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
CREATE INDEX state_entries_by_expiry ON tidemill.state_entries (space_id, expires_at) WHERE expires_at IS NOT NULL;

-- For people and for comparing two groups. Entries that have expired and are not swept yet are in it.
CREATE VIEW tidemill.state AS
SELECT s.group_name, t.name AS topic, s.partition, e.key, e.value, e.expires_at
  FROM tidemill.state_entries e
  JOIN tidemill.state_spaces s USING (space_id)
  JOIN tidemill.topics t USING (topic_id);

-- Forgets the state of a group on a topic, in one partition or all. A running owner is fenced, so that nothing of what it
-- remembers is committed; it goes on from its offset with an empty state. Returns how many entries went.
CREATE FUNCTION tidemill.clear_state(group_name text, topic text, in_partition int DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql
AS $$
#variable_conflict use_variable
DECLARE
    v_id   int := tidemill.topic_id(topic);
    v_gone bigint;
BEGIN
    -- Before the spaces, as every commit locks them.
    UPDATE tidemill.consumer_offsets o SET epoch = o.epoch + 1, owner = NULL, expires_at = NULL
     WHERE o.group_name = group_name AND o.topic_id = v_id AND (in_partition IS NULL OR o.partition = in_partition);
    SELECT count(*) INTO v_gone FROM tidemill.state_entries e JOIN tidemill.state_spaces s USING (space_id)
     WHERE s.group_name = group_name AND s.topic_id = v_id AND (in_partition IS NULL OR s.partition = in_partition);
    DELETE FROM tidemill.state_spaces s
     WHERE s.group_name = group_name AND s.topic_id = v_id AND (in_partition IS NULL OR s.partition = in_partition);
    RETURN v_gone;
END $$;
