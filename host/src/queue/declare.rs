//! From the plan of a queue to the queue in Postgres: its settings and its crons.

use serde_json::{Value, json};

use super::crons::declare_in;
use super::{QueueError, Queues};
use crate::config::plan::QueuePlan;

impl Queues {
    /// Makes a queue as its plan says, or brings an existing one in line. Its crons are these afterwards, and no others.
    pub async fn bring_in_line(&self, plan: &QueuePlan) -> Result<(), QueueError> {
        let created = self.declare(&plan.name, &settings(plan)).await?;
        if created {
            tracing::info!(queue = plan.name.as_str(), "made the queue");
        }
        let mut transaction = self.pool().begin().await?;
        declare_in(&mut transaction, plan).await?;
        transaction.commit().await?;
        Ok(())
    }
}

/// What `tidemill.create_queue` takes.
fn settings(plan: &QueuePlan) -> Value {
    json!({
        "lease": plan.lease.as_secs_f64(),
        "max_attempts": plan.max_attempts,
        "backoff_first": plan.backoff.first.as_secs_f64(),
        "backoff_longest": plan.backoff.longest.as_secs_f64(),
        "concurrency": plan.concurrency,
        "per_key": plan.per_key,
        "ordered": plan.ordered,
        "keep": plan.keep.as_secs_f64(),
        "history": plan.history.as_ref().map(|topic| topic.as_str()),
    })
}
