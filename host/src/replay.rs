//! The one reader of topics. Whoever reads a topic (stages, HTTP streams, the command line) does it through a
//! [`Cursor`], which takes turns over partitions, waits at the end, and knows where it stands.
//!
//! What has left Postgres comes from the bucket, and the reader does not notice where one ends and the other begins: a read
//! that Postgres answers with "the log starts later" is made again there. A segment leaves Postgres only after its objects
//! are in the catalog, so one of the two always has it.

mod cursor;
mod position;

use std::sync::Arc;

use crate::archive::reader::ArchiveReader;
use crate::ids::{Partition, Place};
use crate::log::{FetchError, FetchLimits, Fetched, Log, Topic};

pub use cursor::Cursor;
pub use position::{Position, PositionError};

/// Reads topics. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Replay {
    log: Log,
    archive: Option<ArchiveReader>,
}

/// A read that cannot go on as it is.
#[derive(Clone, Debug, thiserror::Error)]
#[error("topic {topic:?}: {source}")]
pub struct ReplayError {
    pub topic: String,
    pub source: FetchError,
}

impl Replay {
    /// Reads what is in Postgres, and nothing else.
    pub fn new(log: Log) -> Self {
        Self { log, archive: None }
    }

    pub fn with_archive(log: Log, archive: ArchiveReader) -> Self {
        Self { log, archive: Some(archive) }
    }

    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Reads the given partitions, each from its offset on. `limits` bound one read of one partition, which is also what
    /// is held in memory for each.
    pub fn cursor(
        &self,
        topic: Arc<Topic>,
        positions: Vec<(Partition, impl Into<Place>)>,
        limits: FetchLimits,
    ) -> Cursor {
        let positions = positions.into_iter().map(|(partition, place)| (partition, place.into())).collect();
        Cursor::new(self.clone(), topic, positions, limits)
    }

    /// The batches from an offset on, from where they are now.
    async fn fetch(
        &self,
        topic: &Topic,
        partition: Partition,
        from: Place,
        limits: FetchLimits,
    ) -> Result<Fetched, FetchError> {
        let error = match (self.log.fetch(topic, partition, from, limits).await, &self.archive) {
            (Err(error @ FetchError::OutOfRange { start, .. }), Some(archive)) if from.offset < start => {
                match archive.read(topic.id, partition, from.offset, limits).await? {
                    Some(batches) => return Ok(Fetched { batches, at_end: false }),
                    None => error,
                }
            }
            (fetched, _) => return fetched,
        };
        Err(error)
    }
}

#[cfg(test)]
mod tests;
