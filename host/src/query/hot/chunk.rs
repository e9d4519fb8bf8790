//! One file of hot records, which is removed when nobody uses it any more.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::archive::parquet::{self, Layout};
use crate::ids::{LogEpoch, Offset, Partition};
use crate::log::Topic;
use crate::query::protocol::Range;
use crate::record::StoredBatch;

/// The records `first..next` of a partition.
#[derive(Debug)]
pub struct Chunk {
    pub path: PathBuf,
    pub first: Offset,
    pub next: Offset,
    partition: Partition,
    /// The declared fields that it was written with.
    schema: Option<serde_json::Value>,
    /// Under which they were read.
    log_epoch: Option<LogEpoch>,
    bytes: u64,
    used: Arc<AtomicU64>,
}

impl Chunk {
    /// Writes batches, which follow one another. Blocks.
    pub fn write(
        topic: &Topic,
        batches: &[StoredBatch],
        path: PathBuf,
        used: Arc<AtomicU64>,
    ) -> Result<Self, String> {
        let (Some(first), Some(last)) = (batches.first(), batches.last()) else {
            return Err("there are no records to write".to_string());
        };
        let encoded =
            parquet::encode(&Layout::of(topic), batches, &path).map_err(|error| error.to_string())?;
        let bytes = encoded.map_or(0, |encoded| encoded.bytes);
        used.fetch_add(bytes, Ordering::Relaxed);
        Ok(Self {
            path,
            first: first.base_offset,
            next: last.next_offset(),
            partition: first.partition,
            schema: topic.schema.clone(),
            log_epoch: first.log_epoch,
            bytes,
            used,
        })
    }

    /// Whether its columns are those that the topic has now, and its records those of this epoch of the log.
    pub fn fits(&self, topic: &Topic, log_epoch: LogEpoch) -> bool {
        self.schema == topic.schema && self.log_epoch == Some(log_epoch)
    }

    pub fn overlaps(&self, range: &Range) -> bool {
        self.partition == range.partition && self.first < range.next && range.first < self.next
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Ordering::Relaxed);
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, path = %self.path.display(), "a file of the query cache was not removed");
        }
    }
}
