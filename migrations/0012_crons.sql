-- When the crons of queues fire next. A host that finds one due moves `next_at` on from the value it read and puts the job, in
-- one transaction: over all hosts each fire makes one job. What a cron puts is in the pipeline files; a host fires only those
-- whose schedule is its own files' one.

CREATE TABLE tidemill.queue_crons (
    queue_id int NOT NULL CONSTRAINT queue_crons_queue REFERENCES tidemill.queues ON DELETE CASCADE,
    name     text NOT NULL CONSTRAINT queue_crons_name_length CHECK (length(name) BETWEEN 1 AND 64),
    -- As in the files: five fields, or a name such as @hourly; UTC.
    schedule text NOT NULL,
    next_at  timestamptz NOT NULL,
    -- When it fired last, and the job it made.
    fired_at timestamptz,
    job      bigint,
    CONSTRAINT queue_crons_pk PRIMARY KEY (queue_id, name)
);
