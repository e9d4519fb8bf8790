//! Crons: jobs that are put into a queue at the times of a schedule.
//!
//! Guarantee: each fire makes one job over all hosts. A fire is one transaction that moves `next_at` on from the value that was
//! read and puts the job, so of two hosts that see a cron due one finds the row changed and puts nothing. Times are the
//! database's. Bound: one look at all crons of a host a second; times that passed while no host looked make one job together.
//! Failure: a fire whose answer is lost is found in the row at the next look.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use sqlx::Row;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{NewJob, QueueError, Queues, enqueue_in};
use crate::config::cron::Schedule;
use crate::config::plan::{CronPlan, Plan, QueuePlan};
use crate::ids::{CronName, Micros, QueueName};
use crate::pg::pool::Session;
use crate::record::Header;

/// How often it is looked which crons are due. They are due at full minutes, so the jobs come within a second.
const LOOK: Duration = Duration::from_secs(1);

/// The headers of a job that a cron made: its name, and the time that was due.
pub const CRON: &str = "tidemill-cron";
pub const CRON_AT: &str = "tidemill-cron-at";

/// The crons that a host has to fire.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Crons(BTreeMap<QueueName, BTreeMap<CronName, CronPlan>>);

impl Crons {
    pub fn of(plan: &Plan) -> Self {
        let queues = plan.pipelines.values().flat_map(|pipeline| &pipeline.queues);
        let with_crons = queues.filter(|(_, queue)| !queue.crons.is_empty());
        Self(with_crons.map(|(name, queue)| (name.clone(), queue.crons.clone())).collect())
    }

    fn get(&self, queue: &str, cron: &str) -> Option<(&QueueName, &CronName, &CronPlan)> {
        let (queue, crons) = self.0.get_key_value(queue)?;
        let (name, cron) = crons.get_key_value(cron)?;
        Some((queue, name, cron))
    }

    fn queues(&self) -> Vec<&str> {
        self.0.keys().map(QueueName::as_str).collect()
    }
}

/// A cron that is due.
struct Due {
    queue: String,
    cron: String,
    schedule: String,
    next_at: Micros,
    now: Micros,
}

/// A cron as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CronState {
    pub queue: String,
    pub name: String,
    pub schedule: String,
    pub next_at: Micros,
    pub fired_at: Option<Micros>,
    /// The job it made last.
    pub job: Option<u64>,
}

/// Writes the crons of a queue down, in the caller's transaction: one that is new or has another schedule fires at the next time
/// of it, one that stays keeps its time, and one that is not in the plan goes.
pub(super) async fn declare_in(session: &mut Session, plan: &QueuePlan) -> Result<(), QueueError> {
    let names: Vec<&str> = plan.crons.keys().map(CronName::as_str).collect();
    sqlx::query(
        "DELETE FROM tidemill.queue_crons c USING tidemill.queues q
          WHERE q.queue_id = c.queue_id AND q.name = $1 AND c.name <> ALL ($2)",
    )
    .bind(plan.name.as_str())
    .bind(names)
    .execute(&mut *session)
    .await?;
    if plan.crons.is_empty() {
        return Ok(());
    }
    let now =
        sqlx::query_scalar("SELECT tidemill.micros(clock_timestamp())").fetch_one(&mut *session).await?;
    for (name, cron) in &plan.crons {
        let Some(next) = cron.schedule.after(now) else { continue };
        sqlx::query(
            "INSERT INTO tidemill.queue_crons AS c (queue_id, name, schedule, next_at)
             SELECT q.queue_id, $2, $3, tidemill.from_micros($4) FROM tidemill.queues q WHERE q.name = $1
                 ON CONFLICT (queue_id, name) DO UPDATE SET schedule = excluded.schedule, next_at = excluded.next_at
              WHERE c.schedule <> excluded.schedule",
        )
        .bind(plan.name.as_str())
        .bind(name.as_str())
        .bind(cron.schedule.as_str())
        .bind(next)
        .execute(&mut *session)
        .await?;
    }
    Ok(())
}

impl Queues {
    /// Fires the crons of a host's plan, until the token is cancelled.
    pub async fn fire_crons(self, mut crons: watch::Receiver<Crons>, token: CancellationToken) {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut away = false;
        loop {
            tokio::select! {
                () = token.cancelled() => return,
                _ = look.tick() => {}
            }
            let crons = crons.borrow_and_update().clone();
            match self.fire_due(&crons).await {
                Ok(_) => away = false,
                // Said once: the next look comes in a second.
                Err(error) if !away => {
                    away = true;
                    tracing::warn!(%error, "crons do not fire; they make up for it together later");
                }
                Err(_) => {}
            }
        }
    }

    /// Fires what is due of these crons. How many fired here.
    pub async fn fire_due(&self, crons: &Crons) -> Result<usize, QueueError> {
        if crons.0.is_empty() {
            return Ok(0);
        }
        let mut fired = 0;
        for due in self.due(crons).await? {
            let Some((queue, name, plan)) = crons.get(&due.queue, &due.cron) else { continue };
            // Another host has other files: the one that was written last decides.
            if plan.schedule.as_str() != due.schedule {
                continue;
            }
            match self.fire(queue, name, plan, &due).await {
                Ok(true) => fired += 1,
                Ok(false) => {}
                Err(error @ QueueError::Postgres(_)) => return Err(error),
                Err(error) => {
                    tracing::warn!(queue = queue.as_str(), cron = name.as_str(), %error, "a cron cannot fire");
                }
            }
        }
        Ok(fired)
    }

    async fn due(&self, crons: &Crons) -> Result<Vec<Due>, QueueError> {
        let rows = sqlx::query(
            "SELECT q.name, c.name, c.schedule, tidemill.micros(c.next_at), tidemill.micros(clock_timestamp())
               FROM tidemill.queue_crons c JOIN tidemill.queues q ON q.queue_id = c.queue_id
              WHERE q.name = ANY ($1) AND c.next_at <= clock_timestamp() ORDER BY c.next_at LIMIT 1000",
        )
        .bind(crons.queues())
        .fetch_all(self.pool())
        .await?;
        let due = rows.iter().map(|row| {
            Ok(Due {
                queue: row.try_get(0)?,
                cron: row.try_get(1)?,
                schedule: row.try_get(2)?,
                next_at: row.try_get(3)?,
                now: row.try_get(4)?,
            })
        });
        Ok(due.collect::<Result<_, sqlx::Error>>()?)
    }

    /// One fire. False: another host was faster.
    async fn fire(
        &self,
        queue: &QueueName,
        name: &CronName,
        plan: &CronPlan,
        due: &Due,
    ) -> Result<bool, QueueError> {
        let Some(next) = after(&plan.schedule, due) else { return Ok(false) };
        let mut transaction = self.pool().begin().await?;
        let moved = sqlx::query(
            "UPDATE tidemill.queue_crons c SET next_at = tidemill.from_micros($5), fired_at = clock_timestamp()
               FROM tidemill.queues q
              WHERE q.queue_id = c.queue_id AND q.name = $1 AND c.name = $2 AND c.schedule = $3
                AND c.next_at = tidemill.from_micros($4)",
        )
        .bind(queue.as_str())
        .bind(name.as_str())
        .bind(&due.schedule)
        .bind(due.next_at)
        .bind(next)
        .execute(&mut *transaction)
        .await?;
        if moved.rows_affected() == 0 {
            return Ok(false);
        }
        let enqueued = enqueue_in(&mut transaction, queue, &[job(name, plan, due.next_at)]).await?;
        sqlx::query(
            "UPDATE tidemill.queue_crons c SET job = $3 FROM tidemill.queues q
              WHERE q.queue_id = c.queue_id AND q.name = $1 AND c.name = $2",
        )
        .bind(queue.as_str())
        .bind(name.as_str())
        .bind(enqueued.first().map(|job| job.id.cast_signed()))
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        self.wake(queue);
        Ok(true)
    }

    /// The crons of all queues, or of one, as they stand.
    pub async fn crons(&self, queue: Option<&QueueName>) -> Result<Vec<CronState>, QueueError> {
        let rows = sqlx::query(
            "SELECT q.name, c.name, c.schedule, tidemill.micros(c.next_at), tidemill.micros(c.fired_at), c.job
               FROM tidemill.queue_crons c JOIN tidemill.queues q ON q.queue_id = c.queue_id
              WHERE $1 IS NULL OR q.name = $1 ORDER BY q.name, c.name",
        )
        .bind(queue.map(QueueName::as_str))
        .fetch_all(self.pool())
        .await?;
        let crons = rows.iter().map(|row| {
            Ok(CronState {
                queue: row.try_get(0)?,
                name: row.try_get(1)?,
                schedule: row.try_get(2)?,
                next_at: row.try_get(3)?,
                fired_at: row.try_get(4)?,
                job: row.try_get::<Option<i64>, _>(5)?.map(i64::cast_unsigned),
            })
        });
        Ok(crons.collect::<Result<_, sqlx::Error>>()?)
    }
}

/// The next time after now: what passed meanwhile is not made up for one by one.
fn after(schedule: &Schedule, due: &Due) -> Option<Micros> {
    schedule.after(due.now.max(due.next_at))
}

fn job(name: &CronName, plan: &CronPlan, at: Micros) -> NewJob {
    let at = Timestamp::from_microsecond(at).map(|at| at.to_string()).unwrap_or_default();
    let header = |name: &str, value: String| Header { name: name.to_string(), value: value.into() };
    NewJob {
        payload: Bytes::from(plan.payload.clone()),
        key: plan.key.clone().map(Bytes::from),
        headers: vec![header(CRON, name.to_string()), header(CRON_AT, at)],
        priority: plan.priority,
        ..NewJob::default()
    }
}

#[cfg(test)]
mod tests;
