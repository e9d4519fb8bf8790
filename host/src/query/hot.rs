//! Records that are not archived yet, as Parquet files in the query cache.
//!
//! DuckDB reads files, so what is only in Postgres is written into files with the columns of the archive, piece by piece:
//! a query adds what was appended since the last one. Reads are short, through [`Replay`], so no query holds a snapshot
//! of Postgres. A file that a query uses stays until the query ends; it goes when the archive has its records, when it is
//! merged into a larger one, or when room is needed. The folder is emptied at start: all of it can be made anew.
//!
//! Bounds: bytes of all files ([`HotOptions::bytes`]); records in memory at a time, per partition being read
//! ([`CHUNK_RECORDS`], [`CHUNK_BYTES`]).

mod chunk;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::ids::{LogEpoch, Offset, Partition, Place, TopicId, TopicPartition};
use crate::log::{Bounds, FetchError, FetchLimits, Topic};
use crate::record::{Record, StoredBatch};
use crate::replay::{Replay, ReplayError};

use super::error::QueryError;
use super::protocol::Range;
pub use chunk::Chunk;

/// A file holds at most this many records, or about so many bytes of them before they are encoded.
const CHUNK_RECORDS: u64 = 50_000;
const CHUNK_BYTES: usize = 16 << 20;
/// One read of Postgres.
const READ: FetchLimits = FetchLimits { records: 10_000, bytes: 4 << 20 };

#[derive(Clone, Debug)]
pub struct HotOptions {
    pub folder: PathBuf,
    /// Bytes of all files.
    pub bytes: u64,
}

/// The files of all topics.
#[derive(Debug)]
pub struct HotFiles {
    replay: Replay,
    options: HotOptions,
    /// Bytes of the files that exist, kept by the files themselves.
    used: Arc<AtomicU64>,
    number: AtomicU64,
    /// One lock for each partition, held while its files are brought up to date.
    partitions: Mutex<HashMap<TopicPartition, Arc<tokio::sync::Mutex<Chunks>>>>,
}

/// The files of a partition by their first offset; they do not overlap.
type Chunks = BTreeMap<Offset, Arc<Chunk>>;

/// Why the records of a range could not be collected.
#[derive(Debug)]
pub enum HotError {
    /// They were dropped meanwhile: the archive has them, and a new snapshot of the catalog says where.
    Gone,
    Failed(QueryError),
}

impl HotFiles {
    /// Makes the folder, empty.
    pub fn open(replay: Replay, options: HotOptions) -> io::Result<Self> {
        if options.folder.exists() {
            std::fs::remove_dir_all(&options.folder)?;
        }
        std::fs::create_dir_all(&options.folder)?;
        Ok(Self {
            replay,
            options,
            used: Arc::default(),
            number: AtomicU64::default(),
            partitions: Mutex::default(),
        })
    }

    /// Files that hold all records of the ranges, and maybe more.
    pub async fn collect(&self, topic: &Arc<Topic>, ranges: &[Range]) -> Result<Vec<Arc<Chunk>>, HotError> {
        let mut files = Vec::new();
        let bounds = self.replay.log().bounds(topic.id).await;
        let bounds = bounds.map_err(|error| HotError::Failed(QueryError::Hot(error.to_string())))?;
        for Bounds { partition, log_epoch, .. } in bounds {
            let wanted: Vec<Range> =
                ranges.iter().filter(|range| range.partition == partition).copied().collect();
            let chunks = self.partition(TopicPartition { topic: topic.id, partition });
            let mut chunks = chunks.lock().await;
            // What no range needs is archived or gone, and what another server took over may be other records now.
            chunks.retain(|_, chunk| {
                chunk.fits(topic, log_epoch) && wanted.iter().any(|range| chunk.overlaps(range))
            });
            for range in &wanted {
                self.cover(topic, &mut chunks, range, log_epoch).await?;
                files.extend(chunks.values().filter(|chunk| chunk.overlaps(range)).cloned());
            }
        }
        files.dedup_by(|one, other| Arc::ptr_eq(one, other));
        Ok(files)
    }

    fn partition(&self, partition: TopicPartition) -> Arc<tokio::sync::Mutex<Chunks>> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner).entry(partition).or_default().clone()
    }

    /// Forgets topics that are no more, with their files.
    pub fn keep_only(&self, topics: &[Arc<Topic>]) {
        let known = |topic: TopicId| topics.iter().any(|other| other.id == topic);
        let mut partitions = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        partitions.retain(|partition, _| known(partition.topic));
    }

    /// Writes the files that are missing for a range.
    async fn cover(
        &self,
        topic: &Arc<Topic>,
        chunks: &mut Chunks,
        range: &Range,
        log_epoch: LogEpoch,
    ) -> Result<(), HotError> {
        let mut at = range.first;
        while at < range.next {
            let before = chunks.range(..=at).next_back().map(|(_, chunk)| chunk.clone());
            if let Some(chunk) = before.filter(|chunk| chunk.next > at) {
                at = chunk.next;
                continue;
            }
            let end = chunks.range(at..).next().map_or(range.next, |(first, _)| range.next.min(*first));
            let first = merge_from(chunks, at, end, range.first);
            let from = Place { offset: first, epoch: Some(log_epoch) };
            let chunk = self.write(topic, range.partition, from, end).await?;
            at = chunk.next;
            chunks.retain(|_, other| other.next <= first || other.first >= chunk.next);
            chunks.insert(first, Arc::new(chunk));
        }
        Ok(())
    }

    /// One file of records from `first` on, up to `end` or until it is full.
    async fn write(
        &self,
        topic: &Arc<Topic>,
        partition: Partition,
        from: Place,
        end: Offset,
    ) -> Result<Chunk, HotError> {
        let first = from.offset;
        let end = end.min(first + CHUNK_RECORDS);
        let batches = self.read(topic, partition, from, end).await?;
        self.make_room()?;
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let path = self.options.folder.join(format!("{}-{partition}-{first}-{number}.parquet", topic.name));
        let (topic, used) = (topic.clone(), self.used.clone());
        let written = tokio::task::spawn_blocking(move || Chunk::write(&topic, &batches, path, used)).await;
        let written = written.map_err(|error| error.to_string()).and_then(|written| written);
        written.map_err(|error| HotError::Failed(QueryError::Hot(error)))
    }

    /// Batches with the records `first..end`, fewer if they are large, at least one.
    async fn read(
        &self,
        topic: &Arc<Topic>,
        partition: Partition,
        from: Place,
        end: Offset,
    ) -> Result<Vec<StoredBatch>, HotError> {
        let (mut batches, mut bytes, mut at) = (Vec::new(), 0, from.offset);
        let mut cursor = self.replay.cursor(topic.clone(), vec![(partition, from)], READ);
        while at < end && bytes < CHUNK_BYTES {
            match cursor.next(Duration::ZERO).await {
                Ok(Some(batch)) => {
                    let batch = cut(batch, end);
                    bytes += batch.records.iter().map(Record::size).sum::<usize>();
                    at = batch.next_offset();
                    batches.push(batch);
                }
                Ok(None) => {
                    let missing =
                        format!("offset {at} of partition {partition} of topic {} is not there", topic.name);
                    return Err(HotError::Failed(QueryError::Hot(missing)));
                }
                Err(ReplayError { source: FetchError::OutOfRange { .. }, .. }) => return Err(HotError::Gone),
                Err(error) => return Err(HotError::Failed(QueryError::Hot(error.to_string()))),
            }
        }
        Ok(batches)
    }

    /// Lets files go that no query uses, if the files are as large as they may be.
    fn make_room(&self) -> Result<(), HotError> {
        let full = || self.used.load(Ordering::Relaxed) + CHUNK_BYTES as u64 > self.options.bytes;
        if full() {
            let partitions: Vec<_> =
                self.partitions.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
            for chunks in partitions {
                // A partition that is being brought up to date keeps its own.
                if let Ok(mut chunks) = chunks.try_lock() {
                    chunks.retain(|_, chunk| Arc::strong_count(chunk) > 1);
                }
            }
        }
        if full() {
            return Err(HotError::Failed(QueryError::Hot(format!(
                "they fill the query cache ({} MiB); see whether the archive keeps up (`tidemill status`)",
                self.options.bytes >> 20
            ))));
        }
        Ok(())
    }
}

/// The records of a batch before `end`.
fn cut(batch: StoredBatch, end: Offset) -> StoredBatch {
    match usize::try_from(end.saturating_sub(batch.base_offset)) {
        Ok(wanted) if wanted < batch.records.len() => {
            StoredBatch { records: batch.records[..wanted].into(), ..batch }
        }
        _ => batch,
    }
}

/// Where a file for `at..end` should begin: small files just before it are written anew as part of it, so that their
/// number stays about the logarithm of that of queries. Records of a range that is read once are written a few times.
fn merge_from(chunks: &Chunks, at: Offset, end: Offset, lowest: Offset) -> Offset {
    let mut first = at;
    while let Some((_, before)) = chunks.range(..first).next_back() {
        let grown = end - before.first;
        let small = before.next - before.first <= 2 * (end - first);
        if before.next != first || before.first < lowest || !small || grown > CHUNK_RECORDS {
            break;
        }
        first = before.first;
    }
    first
}

#[cfg(test)]
mod tests;
