//! Queues against a real Postgres.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use super::*;
use crate::log::testing::open;
use crate::pg::testing::TestDatabase;

mod claims;
mod ends;
mod kept;
mod keys;

struct Setting {
    database: TestDatabase,
    queues: Queues,
    queue: QueueName,
}

async fn setting(settings: Value) -> Setting {
    let (database, log) = open().await;
    let (queues, queue) = (Queues::new(log), QueueName::parse("reports").unwrap());
    assert!(queues.declare(&queue, &settings).await.unwrap());
    Setting { database, queues, queue }
}

impl Setting {
    async fn put(&self, jobs: impl IntoIterator<Item = NewJob>) -> Vec<u64> {
        let jobs: Vec<NewJob> = jobs.into_iter().collect();
        self.queues.enqueue(&self.queue, &jobs).await.unwrap().into_iter().map(|job| job.id).collect()
    }

    async fn claim(&self, most: u32) -> Vec<ClaimedJob> {
        self.queues.claim(&self.queue, most, "w", None).await.unwrap()
    }

    async fn finish(&self, job: &ClaimedJob, verdict: Verdict) -> bool {
        let finished = Finished { claim: job.claim, id: job.id, verdict };
        self.queues.finish(&[finished]).await.unwrap() == [(job.claim, job.id)]
    }

    async fn state(&self, id: u64) -> Option<JobState> {
        self.queues.find(&self.queue, id).await.unwrap().map(|job| job.state)
    }

    async fn count(&self) -> QueueCount {
        self.queues.counts().await.unwrap().remove(0)
    }

    async fn run(&self, sql: &str) {
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(&self.database.pool).await.unwrap();
    }

    /// Lets the lease of each claim end.
    async fn lapse(&self) {
        self.run("UPDATE tidemill.claims SET expires_at = clock_timestamp() - interval '1 ms'").await;
    }

    /// Lets the next claim look after due jobs and lapsed claims.
    async fn tend(&self) {
        self.run("UPDATE tidemill.queue_heads SET tended_at = '-infinity', swept_at = '-infinity'").await;
    }
}

fn job(payload: impl ToString) -> NewJob {
    NewJob { payload: payload.to_string().into(), ..NewJob::default() }
}

fn keyed(key: &str, payload: impl ToString) -> NewJob {
    NewJob { key: Some(Bytes::copy_from_slice(key.as_bytes())), ..job(payload) }
}

fn payloads(jobs: &[ClaimedJob]) -> Vec<&str> {
    jobs.iter().map(|job| std::str::from_utf8(&job.payload).unwrap()).collect()
}

fn now() -> Micros {
    crate::clock::Clock::system().now()
}

fn seconds(seconds: i64) -> Micros {
    now() + seconds * 1_000_000
}
