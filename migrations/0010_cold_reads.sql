-- Reading on into the bucket: where a log begins for readers that can (hosts, and whoever reads through one), and where it
-- begins in Postgres, for those who read by SQL.

-- The first offset that there is: objects follow each other without a gap up to what is in Postgres.
CREATE FUNCTION tidemill.first_offset(p_topic_id int, p_partition int) RETURNS bigint
LANGUAGE sql STABLE
AS $$
    SELECT least(s.start_offset, (SELECT min(o.first_offset) FROM tidemill.objects o
                                   WHERE o.topic_id = p_topic_id AND o.partition = p_partition))
      FROM tidemill.log_start s WHERE s.topic_id = p_topic_id AND s.partition = p_partition
$$;

-- As before (0002), and a time that has left Postgres is the start of the archived segment that holds it.
ALTER FUNCTION tidemill.offset_at(int, int, timestamptz) RENAME TO hot_offset_at;
CREATE FUNCTION tidemill.offset_at(p_topic_id int, p_partition int, p_at timestamptz) RETURNS bigint
LANGUAGE sql STABLE
AS $$
    SELECT coalesce(
        (SELECT min(o.first_offset) FROM tidemill.objects o JOIN tidemill.segments s USING (segment_id)
          WHERE o.topic_id = p_topic_id AND o.partition = p_partition AND s.state IN ('dropping', 'dropped') AND s.upper > p_at),
        tidemill.hot_offset_at(p_topic_id, p_partition, p_at))
$$;

-- Resolves earliest, hot (the first offset in Postgres), latest, an offset or a time to an offset of one partition.
CREATE OR REPLACE FUNCTION tidemill.resolve_offset(p_topic_id int, p_partition int, p_to text) RETURNS bigint
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    v_first bigint := tidemill.first_offset(p_topic_id, p_partition);
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
        RETURN v_first;
    ELSIF p_to = 'hot' THEN
        RETURN v_start;
    ELSIF p_to = 'latest' THEN
        RETURN v_end;
    ELSIF p_to ~ '^[0-9]{1,18}$' THEN
        v_to := p_to::bigint;
        IF v_to < v_first OR v_to > v_end THEN
            RAISE EXCEPTION 'offset % of partition % is out of range: the log holds % up to %', v_to, p_partition, v_first, v_end
                USING ERRCODE = 'TM002', HINT = 'Seek to earliest or latest.', DETAIL = format('%s %s', v_first, v_end);
        END IF;
        RETURN v_to;
    END IF;
    RETURN tidemill.offset_at(p_topic_id, p_partition, p_to::timestamptz);
EXCEPTION WHEN invalid_datetime_format OR datetime_field_overflow THEN
    RAISE EXCEPTION '% is neither earliest, hot, latest, an offset nor a time', quote_literal(p_to) USING ERRCODE = 'TM005';
END $$;

-- As before (0002), but a new group starts with what is in Postgres, since that is all that a claim can read.
CREATE OR REPLACE FUNCTION tidemill.claim(group_name text, topic text, max_records int DEFAULT 100)
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
        PERFORM tidemill.join_group(group_name, topic, 'hot');
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
