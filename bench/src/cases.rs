//! What is measured. Each case runs its variants interleaved and checks that what was written is there.

pub mod append;
pub mod archive;
pub mod disk;
pub mod fetch;
pub mod held;
pub mod query;
pub mod queue;
pub mod transform;

mod history;

use anyhow::Result;
use clap::ValueEnum;

use crate::findings::Findings;
use crate::scale::Scale;
use crate::server::Server;

/// Groups of variants that are compared with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Case {
    /// Appending, beside the published SQL, COPY and the disk.
    Append,
    /// Eight writers on one partition and on eight.
    Partitions,
    /// Reading a topic, beside a SELECT over rows.
    Fetch,
    /// Records through a component, beside the same function natively.
    Transform,
    /// A sealed segment to verified objects, and bytes a record in Postgres and in the bucket.
    Archive,
    /// A GROUP BY over archived records, beside DuckDB's own command line.
    Query,
    /// Jobs a second and how soon they are begun, beside pgmq and graphile-worker.
    Queue,
    /// Queues while a session holds a snapshot for ten minutes, beside pgmq.
    QueueHeld,
}

impl Case {
    pub async fn run(self, server: &Server, scale: &Scale) -> Result<Findings> {
        match self {
            Self::Append => append::run(server, scale).await,
            Self::Partitions => append::partitions(server, scale).await,
            Self::Fetch => fetch::run(server, scale).await,
            Self::Transform => transform::run(scale).await,
            Self::Archive => archive::run(server, scale).await,
            Self::Query => query::run(server, scale).await,
            Self::Queue => queue::run(server, scale).await,
            Self::QueueHeld => held::run(server, scale).await,
        }
    }
}
