//! Queues that are used by statements alone: Tidemill's and pgmq's, by the same driver, with the same payloads.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use sqlx::Row as _;
use sqlx::postgres::PgConnection;

use crate::server::Server;

/// Jobs that one statement puts.
const PUT: usize = 1_000;
/// Seconds for which a job that was taken is nobody else's: longer than any measurement.
const LEASE: i32 = 600;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `relaxed`: claims do not wait for the disk, as a host makes them. Ends always do.
    Tidemill { keep: bool, relaxed: bool },
    /// `archive`: jobs that are done are moved to its table of those, else deleted.
    Pgmq { archive: bool },
}

impl Kind {
    pub fn name(self) -> String {
        match self {
            Self::Tidemill { keep, relaxed } => format!(
                "Tidemill by SQL, {}{}",
                if keep { "kept 1 h" } else { "not kept" },
                if relaxed { "" } else { ", claims on disk too" },
            ),
            Self::Pgmq { archive } => format!("pgmq, read + {}", if archive { "archive" } else { "delete" }),
        }
    }

    fn put_sql(self) -> &'static str {
        match self {
            Self::Tidemill { .. } => {
                "SELECT count(*) FROM tidemill.enqueue_many($1, (SELECT array_agg(convert_to(p, 'UTF8')) FROM unnest($2) p))"
            }
            Self::Pgmq { .. } => "SELECT count(*) FROM pgmq.send_batch($1, $2::text[]::jsonb[])",
        }
    }

    /// With the queue, how many at most, and the seconds of the lease.
    fn take_sql(self) -> &'static str {
        match self {
            Self::Tidemill { relaxed: true, .. } => {
                "SELECT claim, id, payload FROM tidemill.claim_jobs($1, $2, 'bench', make_interval(secs => $3), relaxed => true)"
            }
            Self::Tidemill { relaxed: false, .. } => {
                "SELECT claim, id, payload FROM tidemill.claim_jobs($1, $2, 'bench', make_interval(secs => $3))"
            }
            Self::Pgmq { .. } => {
                "SELECT 0::bigint, msg_id, message::text FROM pgmq.read(queue_name => $1, qty => $2, vt => $3)"
            }
        }
    }
}

/// A queue on the server.
#[derive(Clone, Debug)]
pub struct Client {
    pub kind: Kind,
    pub queue: String,
}

/// One worker's connection.
pub struct Worker {
    connection: PgConnection,
    client: Client,
}

/// What a worker took with one statement.
pub struct Taken {
    claim: i64,
    pub ids: Vec<i64>,
    pub took: Duration,
}

impl Client {
    pub async fn create(server: &Server, kind: Kind) -> Result<Self> {
        let queue = server.topic_name();
        match kind {
            Kind::Tidemill { keep, .. } => {
                let settings = serde_json::json!({ "keep": if keep { 3600 } else { 0 } }).to_string();
                sqlx::query("SELECT tidemill.create_queue($1, $2::text::jsonb)")
                    .bind(&queue)
                    .bind(settings)
                    .execute(&server.pool)
                    .await?;
            }
            Kind::Pgmq { .. } => {
                sqlx::query("SELECT pgmq.create($1)").bind(&queue).execute(&server.pool).await?;
            }
        }
        Ok(Self { kind, queue })
    }

    /// Puts so many jobs, quickly.
    pub async fn put(&self, server: &Server, jobs: usize) -> Result<()> {
        let mut connection = server.connect().await?;
        for first in (0..jobs).step_by(PUT) {
            self.put_some(&mut connection, first..jobs.min(first + PUT)).await?;
        }
        Ok(())
    }

    /// Puts jobs of these numbers in one commit.
    pub async fn put_some(
        &self,
        connection: &mut PgConnection,
        numbers: std::ops::Range<usize>,
    ) -> Result<()> {
        let (wanted, payloads) = (numbers.len(), numbers.map(payload).collect::<Vec<_>>());
        let put: i64 = sqlx::query_scalar(self.kind.put_sql())
            .bind(&self.queue)
            .bind(payloads)
            .fetch_one(connection)
            .await?;
        ensure!(put.unsigned_abs() as usize == wanted, "{put} jobs were put of {wanted}");
        Ok(())
    }

    /// Writes out what was put, and has the planner know it.
    pub async fn settle(&self, server: &Server) -> Result<()> {
        if let Kind::Pgmq { .. } = self.kind {
            server.execute(format!("VACUUM ANALYZE pgmq.q_{}", self.queue)).await?;
        }
        server.settle().await
    }

    pub async fn worker(&self, server: &Server) -> Result<Worker> {
        Ok(Worker { connection: server.connect().await?, client: self.clone() })
    }

    /// Jobs that are not done.
    pub async fn left(&self, server: &Server) -> Result<u64> {
        let left: i64 = match self.kind {
            Kind::Tidemill { .. } => {
                let sql = "SELECT waiting + running + scheduled + dead FROM tidemill.queue_counts() WHERE queue = $1";
                sqlx::query_scalar(sql).bind(&self.queue).fetch_one(&server.pool).await?
            }
            Kind::Pgmq { .. } => {
                let sql = format!("SELECT count(*) FROM pgmq.q_{}", self.queue);
                sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&server.pool).await?
            }
        };
        Ok(left.unsigned_abs())
    }

    pub async fn remove(self, server: &Server) -> Result<()> {
        let sql = match self.kind {
            Kind::Tidemill { .. } => "SELECT tidemill.delete_queue($1)",
            Kind::Pgmq { .. } => "SELECT pgmq.drop_queue($1)",
        };
        sqlx::query(sql).bind(&self.queue).execute(&server.pool).await?;
        Ok(())
    }
}

impl Worker {
    pub async fn take(&mut self, most: usize) -> Result<Taken> {
        let started = Instant::now();
        let rows = sqlx::query(self.client.kind.take_sql())
            .bind(&self.client.queue)
            .bind(most as i32)
            .bind(LEASE)
            .fetch_all(&mut self.connection)
            .await?;
        let took = started.elapsed();
        let claim = rows.first().map_or(Ok(0), |row| row.try_get(0))?;
        let ids = rows.iter().map(|row| row.try_get(1)).collect::<Result<_, _>>()?;
        Ok(Taken { claim, ids, took })
    }

    /// Says that all of it is done, and is on disk when this returns.
    pub async fn end(&mut self, taken: &Taken) -> Result<()> {
        let ended: Vec<i64> = match self.client.kind {
            Kind::Tidemill { .. } => {
                sqlx::query_scalar("SELECT tidemill.finish_jobs($1, $2)")
                    .bind(taken.claim)
                    .bind(&taken.ids)
                    .fetch_all(&mut self.connection)
                    .await?
            }
            Kind::Pgmq { archive } => {
                let sql = if archive { "SELECT pgmq.archive($1, $2)" } else { "SELECT pgmq.delete($1, $2)" };
                sqlx::query_scalar(sql)
                    .bind(&self.client.queue)
                    .bind(&taken.ids)
                    .fetch_all(&mut self.connection)
                    .await?
            }
        };
        ensure!(ended.len() == taken.ids.len(), "{} of {} ends were accepted", ended.len(), taken.ids.len());
        Ok(())
    }
}

/// Some sixty bytes, as jobs carry them that say what is to be done with a file.
pub fn payload(number: usize) -> String {
    format!(r#"{{"n": {number}, "kind": "resize", "file": "inbox/{number:08}.png"}}"#)
}
