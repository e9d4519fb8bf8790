//! The log: topics of dense, ordered records in Postgres.
//!
//! Guarantees, each held by one place in SQL (`migrations/0001_log.sql`):
//! * offsets of a partition are dense and become visible in order: only `append_batch` assigns them, under the lock of
//!   the counter row, which lasts until commit;
//! * a batch is stored whole or not at all, and an acknowledged one is committed (with `acks = "fsync"`: on disk);
//! * a repeated (producer, epoch, sequence) is stored once and answered with the offsets it got the first time;
//! * a reader learns from the catalog, never from missing rows, that what it asks for is gone.
//!
//! Reading order: [`topics`], [`partitioner`], [`append`] (queues and rows; `append/appender` is the task that commits),
//! [`encode`] (records as arrays), [`fetch`], [`seek`]. [`error`] says which failures are tried again.

pub mod append;
pub mod encode;
pub mod epochs;
pub mod error;
pub mod fetch;
pub mod hosts;
pub mod offsets;
pub mod origins;
pub mod partitioner;
pub mod seek;
pub mod topics;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::time::timeout;

use crate::clock::Clock;
use crate::ids::TopicId;
use crate::pg::notify::{NotifyHub, Waiter};
use crate::pg::pool::Pool;

pub use append::{AppendOptions, Lineage, OutBatch, ProducerSeq, append_in};
pub use error::{AppendError, FetchError, LogError};
pub use fetch::{FetchLimits, Fetched};
pub use partitioner::partition_of;
pub use seek::SeekTarget;
pub use topics::{Bounds, HotSize, Topic};

/// A handle on all topics of a database. Cheap to clone; its tasks end with the last clone.
#[derive(Clone)]
pub struct Log {
    shared: Arc<Shared>,
}

struct Shared {
    pool: Pool,
    hub: NotifyHub,
    clock: Clock,
    topics: topics::TopicCache,
    appenders: append::Appenders,
    batches: fetch::BatchCache,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").finish_non_exhaustive()
    }
}

/// Bounds of memory and time.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Bytes that may wait for a commit, per partition; more is refused as overload. Default 16 MiB.
    pub queue_bytes: usize,
    /// The same over all partitions. Default 128 MiB.
    pub queue_bytes_total: usize,
    /// Requests that may wait for a commit, per partition. Default 4,096.
    pub queue_requests: usize,
    /// The task of a partition that gets nothing for this long ends. Default 60 s.
    pub appender_idle: Duration,
    /// Recently read batches that are kept for other readers of the same range, in all. Default 64 MiB.
    pub cache_bytes: usize,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            queue_bytes: 16 << 20,
            queue_bytes_total: 128 << 20,
            queue_requests: 4096,
            appender_idle: Duration::from_secs(60),
            cache_bytes: 64 << 20,
        }
    }
}

impl Log {
    /// The database must be migrated ([`crate::pg::migrate`]).
    pub fn new(pool: Pool, hub: NotifyHub, clock: Clock, options: LogOptions) -> Self {
        let appenders = append::Appenders::new(pool.clone(), hub.clone(), &options);
        Self {
            shared: Arc::new(Shared {
                pool,
                hub,
                clock,
                topics: topics::TopicCache::default(),
                appenders,
                batches: fetch::BatchCache::new(options.cache_bytes),
            }),
        }
    }

    /// Waits for a topic to grow, from now on: subscribe before the first read, and nothing is missed.
    pub fn subscribe(&self, topic: TopicId) -> Wakeup {
        Wakeup(self.shared.hub.subscribe(topic))
    }

    pub fn pool(&self) -> &Pool {
        &self.shared.pool
    }

    pub fn hub(&self) -> &NotifyHub {
        &self.shared.hub
    }

    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }
}

/// Wakes a reader of one topic.
#[derive(Debug)]
pub struct Wakeup(Waiter);

impl Wakeup {
    /// Returns at once if the topic has grown since the last call, else when it does or after `max`, whichever is
    /// first; true if it was woken. Wake-ups may be lost or for nothing, so read after either. May be cancelled.
    pub async fn wait(&mut self, max: Duration) -> bool {
        timeout(max, self.0.woken()).await.is_ok()
    }

    /// The same without waiting.
    pub fn came(&mut self) -> bool {
        self.0.woken().now_or_never().is_some()
    }
}

#[cfg(test)]
mod sql_claim;
#[cfg(test)]
mod sql_page;
#[cfg(test)]
pub(crate) mod testing;
