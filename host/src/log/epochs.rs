//! Log epochs: noticing that the log is on a server that took over, and what that means for those who had read on.
//!
//! Guarantee: the first append after a fail-over begins a new epoch of its partition in its own transaction (in SQL, for
//! psql as well), so no offset is given anew under the epoch that it had before. A reader that kept a position learns from
//! the epoch in it which offsets are gone; a stage's commit is refused for what it read of an earlier epoch.
//! Bound: [`LOOK`] is how long a partition without appends may go on unnoticed, which only delays words.

use std::time::Duration;

use serde::Serialize;
use sqlx::FromRow;
use tokio_util::sync::CancellationToken;

use crate::ids::{Place, TopicPartition};

use super::{FetchError, Log, LogError};

/// What else the server says about how safe the log is.
#[derive(Clone, Debug, Serialize, FromRow)]
pub struct ServerFacts {
    /// The branch of its history that the server writes: raised by each promotion.
    pub timeline: i32,
    /// Servers that stream from it now.
    pub replicas: i64,
    /// How long the oldest transaction that does nothing has been open: it holds back vacuum.
    pub idle_in_transaction_seconds: Option<f64>,
}

/// How often a host looks which server it is on.
const LOOK: Duration = Duration::from_secs(2);

impl Log {
    /// Begins new epochs if the log is on another server than at the last look. How many.
    pub async fn check_server(&self) -> Result<usize, LogError> {
        let raised: Vec<(String, i32, i32, i64)> =
            sqlx::query_as("SELECT topic, partition, epoch, start_offset FROM tidemill.check_server()")
                .fetch_all(self.pool())
                .await?;
        for (topic, partition, epoch, start) in &raised {
            tracing::warn!(
                topic,
                partition,
                epoch,
                "another server has taken over: the log goes on from offset {start}; what was read from there on before is \
                 gone, and these offsets are given anew"
            );
        }
        if !raised.is_empty() {
            metrics::counter!("tidemill_log_epochs_total").increment(raised.len() as u64);
            self.shared.batches.clear();
        }
        Ok(raised.len())
    }

    /// What the server says now.
    pub async fn server_facts(&self) -> Result<ServerFacts, LogError> {
        Ok(sqlx::query_as(
            "SELECT tidemill.timeline() AS timeline, (SELECT count(*) FROM pg_stat_replication) AS replicas,
                    (SELECT max(extract(epoch FROM clock_timestamp() - xact_start))::float8 FROM pg_stat_activity
                      WHERE state LIKE 'idle in transaction%' AND datname = current_database())
                        AS idle_in_transaction_seconds",
        )
        .fetch_one(self.pool())
        .await?)
    }

    /// Looks for as long as the host runs. While Postgres is away there is nothing to see.
    pub async fn watch_server(self, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
            if let Err(error) = self.check_server().await {
                tracing::debug!(%error, "cannot see which server the log is on");
            }
        }
    }

    /// Whether what lies before a place is still what was read there: [`FetchError::Lost`] if not.
    pub async fn survived(&self, target: TopicPartition, place: Place) -> Result<(), FetchError> {
        let Some(epoch) = place.epoch else { return Ok(()) };
        let ask = || async {
            sqlx::query("SELECT tidemill.check_place($1, $2, $3, $4)")
                .bind(target.topic.0)
                .bind(target.partition.cast_signed())
                .bind(place.offset.cast_signed())
                .bind(epoch.0)
                .execute(self.pool())
                .await
                .map(drop)
        };
        self.repeated(target.partition, place.offset, ask).await
    }
}

#[cfg(test)]
mod tests;
