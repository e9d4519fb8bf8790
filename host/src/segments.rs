//! Segments: the time partitions of topics, made ahead, sealed, and dropped when their time is over.
//!
//! One tick does what is due and can be run by any host at any time: every step decides from the catalog under the locks
//! it needs, so a crash between two steps, or two hosts at once, change nothing. To spare the work one host ticks at a
//! time. DDL waits 200 ms for a lock and is then postponed to the next tick, since everybody queues behind a DDL
//! statement that waits.
//!
//! open -> sealed (its offsets are recorded, and no append can reach it any more) -> dropping (readers are told that the
//! log starts later, then the table is detached) -> dropped. In a topic with an archive the archiver makes a sealed segment
//! `archived` in between, and nothing else is dropped; what groups in `hold` have not read stays (`held_from` in SQL).

mod ddl;
mod report;

use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::crash;
use crate::ids::Micros;
use crate::pg::pool::Pool;

use ddl::Ddl;
pub use report::{Report, SegmentError};

/// When the steps are due.
#[derive(Clone, Debug)]
pub struct MaintainerOptions {
    /// Time between two ticks of one host, on average; a quarter of it is chance.
    pub interval: Duration,
    /// Spans made ahead of time.
    pub ahead: u32,
    /// How long after its end a segment is sealed.
    pub seal_after: Duration,
    /// How long a dropped segment's table stays for reads that began before.
    pub drop_after: Duration,
    /// Producers that HTTP clients without an id of their own were given are forgotten after this long.
    pub forget_producers_after: Duration,
    /// How long a live reader of a table may be away and still learn of deleted rows.
    pub forget_tombstones_after: Duration,
}

impl Default for MaintainerOptions {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(1),
            ahead: 2,
            seal_after: Duration::from_secs(2),
            drop_after: Duration::from_secs(10),
            forget_producers_after: Duration::from_secs(24 * 3600),
            forget_tombstones_after: Duration::from_secs(600),
        }
    }
}

/// How often what is merely old is looked for.
const FORGET_EVERY: Micros = 60_000_000;

/// Keeps the segments of all topics.
pub struct Maintainer {
    pool: Pool,
    clock: Clock,
    options: MaintainerOptions,
    forget_next: Micros,
}

impl Maintainer {
    pub fn new(pool: Pool, clock: Clock, options: MaintainerOptions) -> Self {
        Self { pool, clock, options, forget_next: Micros::MIN }
    }

    /// Ticks until it is told to stop. A failure is logged and tried again with the next tick.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut last_error = String::new();
        loop {
            match self.tick().await {
                Ok(report) => {
                    report.log();
                    last_error.clear();
                }
                Err(error) => {
                    let error = error.to_string();
                    if error != last_error {
                        tracing::warn!(error, "segments are not maintained; trying again each second");
                    }
                    last_error = error;
                }
            }
            let pause = self.options.interval.mul_f64(0.875 + fastrand::f64() / 4.0);
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(pause) => {}
            }
        }
    }

    /// Does what is due. Failures of single segments are in the report and do not keep the others.
    pub async fn tick(&mut self) -> Result<Report, SegmentError> {
        let mut report = Report::default();
        // Held by a transaction that does nothing else. Should it be lost, two hosts tick, which is harmless.
        let mut turn = self.pool.begin().await?;
        let mine: bool = sqlx::query_scalar(
            "SELECT pg_try_advisory_xact_lock(hashtextextended('tidemill.segments.maintainer', 0))",
        )
        .fetch_one(&mut *turn)
        .await?;
        if !mine {
            report.busy = true;
            return Ok(report);
        }
        let mut ddl = Ddl::new(&self.pool);
        self.finalize(&mut ddl, &mut report).await?;
        self.create_ahead(&mut report).await?;
        self.seal(&mut report).await?;
        self.expire(&mut report).await?;
        self.detach(&mut ddl, &mut report).await?;
        self.drop_detached(&mut report).await?;
        ddl.close().await;
        if self.clock.now() >= self.forget_next {
            report.forgotten = self.forget().await?;
            self.forget_next = self.clock.now() + FORGET_EVERY;
        }
        // It wrote nothing; the server may have ended it as idle if the tick was long.
        let _ = turn.rollback().await;
        Ok(report)
    }

    /// Ends detaches that a crash or a lock time-out left half done: their rows are invisible through the parent, and no
    /// other segment of the topic can be detached.
    async fn finalize(&self, ddl: &mut Ddl<'_>, report: &mut Report) -> Result<(), SegmentError> {
        let pending: Vec<(String, String)> = sqlx::query_as(
            "SELECT parent.relname::text, child.relname::text FROM pg_inherits i \
             JOIN pg_class parent ON parent.oid = i.inhparent JOIN pg_class child ON child.oid = i.inhrelid \
             JOIN pg_namespace n ON n.oid = parent.relnamespace \
             WHERE i.inhdetachpending AND n.nspname = 'log' ORDER BY 2",
        )
        .fetch_all(&self.pool)
        .await?;
        for (topic, table) in pending {
            let done = ddl.finalize(&topic, &table).await;
            report.finalized += report.done(done, &table);
        }
        Ok(())
    }

    /// Makes the segments that will be needed.
    async fn create_ahead(&self, report: &mut Report) -> Result<(), SegmentError> {
        let due: Vec<(i32, String)> = sqlx::query_as(
            "SELECT t.topic_id, t.name FROM tidemill.topics t \
             CROSS JOIN LATERAL (SELECT max(c.last_ts) AS at FROM tidemill.log_counter c WHERE c.topic_id = t.topic_id) c \
             WHERE NOT EXISTS (SELECT 1 FROM tidemill.segments s WHERE s.topic_id = t.topic_id \
                               AND s.upper > greatest(clock_timestamp(), c.at) + $1 * t.segment_span) \
             ORDER BY t.topic_id",
        )
        .bind(f64::from(self.options.ahead))
        .fetch_all(&self.pool)
        .await?;
        for (topic_id, topic) in due {
            let created: Result<i32, sqlx::Error> = sqlx::query_scalar(
                "SELECT tidemill.ensure_segments(t.topic_id, c.at, c.at + $2 * t.segment_span) FROM tidemill.topics t \
                 CROSS JOIN LATERAL (SELECT greatest(clock_timestamp(), max(c.last_ts)) AS at \
                                       FROM tidemill.log_counter c WHERE c.topic_id = t.topic_id) c \
                 WHERE t.topic_id = $1",
            )
            .bind(topic_id)
            .bind(f64::from(self.options.ahead))
            .fetch_one(&self.pool)
            .await;
            match created {
                Ok(created) => report.created += created.unsigned_abs(),
                Err(sqlx::Error::RowNotFound) => {}
                Err(error) => report.failed(&error, &topic),
            }
        }
        Ok(())
    }

    async fn seal(&self, report: &mut Report) -> Result<(), SegmentError> {
        let due: Vec<(i64, String)> = sqlx::query_as(
            "SELECT s.segment_id, s.table_name FROM tidemill.segments s \
             WHERE s.state = 'open' AND s.upper + make_interval(secs => $1) <= clock_timestamp() \
             ORDER BY s.topic_id, s.lower",
        )
        .bind(self.options.seal_after.as_secs_f64())
        .fetch_all(&self.pool)
        .await?;
        for (segment, table) in due {
            let sealed: Result<bool, sqlx::Error> = sqlx::query_scalar("SELECT tidemill.seal_segment($1)")
                .bind(segment)
                .fetch_one(&self.pool)
                .await;
            match sealed {
                Ok(sealed) => report.sealed += u32::from(sealed),
                Err(error) => report.failed(&error, &table),
            }
        }
        Ok(())
    }

    /// Takes segments whose retention is over out of the log: from here on readers know that it starts later.
    async fn expire(&self, report: &mut Report) -> Result<(), SegmentError> {
        let topics: Vec<(i32, String)> = sqlx::query_as(
            "SELECT t.topic_id, t.name FROM tidemill.topics t \
             CROSS JOIN LATERAL (SELECT s.state, s.upper FROM tidemill.segments s WHERE s.topic_id = t.topic_id \
                                   AND s.state NOT IN ('dropping', 'dropped') ORDER BY s.lower LIMIT 1) oldest \
             WHERE oldest.upper < clock_timestamp() - t.hot_retention \
               AND (oldest.state = 'archived' OR (oldest.state = 'sealed' AND NOT t.archive)) ORDER BY t.topic_id",
        )
        .fetch_all(&self.pool)
        .await?;
        for (topic_id, topic) in topics {
            let expired: Result<i32, sqlx::Error> = sqlx::query_scalar("SELECT tidemill.expire_segments($1)")
                .bind(topic_id)
                .fetch_one(&self.pool)
                .await;
            match expired {
                Ok(expired) => {
                    report.expired += expired.unsigned_abs();
                    if expired > 0 {
                        crash::point("segments.expire");
                    }
                }
                Err(error) => report.failed(&error, &topic),
            }
        }
        Ok(())
    }

    async fn detach(&self, ddl: &mut Ddl<'_>, report: &mut Report) -> Result<(), SegmentError> {
        let attached: Vec<(String, String)> = sqlx::query_as(
            "SELECT t.name, s.table_name FROM tidemill.segments s JOIN tidemill.topics t USING (topic_id) \
             JOIN pg_inherits i ON i.inhrelid = to_regclass(format('log.%I', s.table_name)) \
             WHERE s.state = 'dropping' AND NOT i.inhdetachpending ORDER BY s.topic_id, s.lower",
        )
        .fetch_all(&self.pool)
        .await?;
        for (topic, table) in attached {
            let done = ddl.detach(&topic, &table).await;
            report.detached += report.done(done, &table);
            crash::point("segments.detach");
        }
        Ok(())
    }

    async fn drop_detached(&self, report: &mut Report) -> Result<(), SegmentError> {
        let due: Vec<(i64, String)> = sqlx::query_as(
            "SELECT s.segment_id, s.table_name FROM tidemill.segments s \
             WHERE s.state = 'dropping' AND s.dropping_at + make_interval(secs => $1) <= clock_timestamp() \
               AND NOT EXISTS (SELECT 1 FROM pg_inherits i WHERE i.inhrelid = to_regclass(format('log.%I', s.table_name))) \
             ORDER BY s.topic_id, s.lower",
        )
        .bind(self.options.drop_after.as_secs_f64())
        .fetch_all(&self.pool)
        .await?;
        for (segment, table) in due {
            let dropped: Result<bool, sqlx::Error> = sqlx::query_scalar("SELECT tidemill.drop_segment($1)")
                .bind(segment)
                .fetch_one(&self.pool)
                .await;
            match dropped {
                Ok(dropped) => {
                    report.dropped += u32::from(dropped);
                    crash::point("segments.drop");
                }
                Err(error) => report.failed(&error, &table),
            }
        }
        Ok(())
    }

    /// Deletes what is only remembered for a while; how many rows.
    async fn forget(&self) -> Result<u64, SegmentError> {
        let producers = sqlx::query(
            "DELETE FROM tidemill.producers WHERE producer_id LIKE 'http:%' \
             AND updated_at < clock_timestamp() - make_interval(secs => $1)",
        )
        .bind(self.options.forget_producers_after.as_secs_f64())
        .execute(&self.pool)
        .await?;
        let tombstones: i64 = sqlx::query_scalar(
            "WITH gone AS (
                 -- What late messages changed at the head of a group stays until the group has moved on: below a floor
                 -- there, readers that are up to date would begin anew again and again.
                 DELETE FROM tidemill.tombstones d
                  WHERE (d.late_offset IS NULL OR NOT EXISTS (
                            SELECT FROM tidemill.tables t JOIN tidemill.topics p ON p.name = t.topic
                              JOIN tidemill.consumer_offsets o
                                ON o.group_name = t.group_name AND o.topic_id = p.topic_id AND o.partition = d.partition
                             WHERE t.table_id = d.table_id AND o.next_offset <= d.c_offset))
                    AND created_at < clock_timestamp() - make_interval(secs => $1)
                 RETURNING table_id, partition, c_offset
             ), floors AS (
                 INSERT INTO tidemill.tombstone_floors AS f (table_id, partition, c_offset)
                 SELECT table_id, partition, max(c_offset) FROM gone GROUP BY 1, 2
                 ON CONFLICT ON CONSTRAINT tombstone_floors_pk DO UPDATE
                    SET c_offset = greatest(f.c_offset, excluded.c_offset)
             )
             SELECT count(*) FROM gone",
        )
        .bind(self.options.forget_tombstones_after.as_secs_f64())
        .fetch_one(&self.pool)
        .await?;
        let segments = sqlx::query(
            "DELETE FROM tidemill.segments s WHERE s.state = 'dropped' AND s.dropped_at < clock_timestamp() - interval '1 day' \
             AND NOT EXISTS (SELECT 1 FROM tidemill.objects o WHERE o.segment_id = s.segment_id)",
        )
        .execute(&self.pool)
        .await?;
        Ok(producers.rows_affected() + tombstones.max(0) as u64 + segments.rows_affected())
    }
}

#[cfg(test)]
mod tests;
