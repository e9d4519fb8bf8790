//! Records by offset, out of the bucket.
//!
//! An object is sorted for queries and not by offset, so reading any of it means decoding all of its columns. Records are
//! therefore decoded in windows of many offsets, and readers that are near each other share a window. Bounds, for the whole
//! host: one window is decoded at a time, and [`CACHE_BYTES`] of them are kept, the least recently used given up first. No
//! object has more than 128 MiB of records, so that is also what one window takes at most, beside the records' overhead.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::spawn_blocking;

use super::objects::{Object, ObjectError, Objects};
use super::parquet::{self, ParquetError};
use crate::ids::{Offset, Partition, TopicId, TopicPartition};
use crate::log::{FetchError, FetchLimits};
use crate::pg::pool::Pool;
use crate::record::{Record, StoredBatch};

/// Offsets that are decoded at once.
const WINDOW: u64 = 250_000;
/// Bytes of decoded windows that are kept. The newest is, however large.
const CACHE_BYTES: usize = 128 << 20;
/// What a record takes beside its bytes.
const OVERHEAD: usize = size_of::<Record>();

/// Reads archived records. Cheap to clone; clones share what is decoded.
#[derive(Clone, Debug)]
pub struct ArchiveReader {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    pool: Pool,
    objects: Objects,
    /// The least recently used first.
    windows: Mutex<VecDeque<Window>>,
    /// Held while something is decoded.
    decoding: tokio::sync::Mutex<()>,
}

/// Records of one partition without a gap.
#[derive(Clone, Debug)]
struct Window {
    of: TopicPartition,
    offsets: Range<Offset>,
    batches: Arc<[StoredBatch]>,
    bytes: usize,
}

/// An object, and the offsets that it holds.
struct Found {
    object: Object,
    offsets: Range<Offset>,
}

impl ArchiveReader {
    pub fn new(pool: Pool, objects: Objects) -> Self {
        let shared =
            Shared { pool, objects, windows: Mutex::default(), decoding: tokio::sync::Mutex::default() };
        Self { shared: Arc::new(shared) }
    }

    /// The batches from `from` on, the first cut to it, as far as one window and the limits go: at least one. None if no
    /// object has it.
    pub async fn read(
        &self,
        topic: TopicId,
        partition: Partition,
        from: Offset,
        limits: FetchLimits,
    ) -> Result<Option<Vec<StoredBatch>>, FetchError> {
        let of = TopicPartition { topic, partition };
        if let Some(window) = self.kept(of, from) {
            return Ok(Some(window.take(from, limits)));
        }
        let _one = self.shared.decoding.lock().await;
        // Whoever decoded before us may have done it for us.
        let window = match self.kept(of, from) {
            Some(window) => window,
            None => match self.find(of, from).await? {
                Some(found) => self.decode(of, from, found).await?,
                None => return Ok(None),
            },
        };
        Ok(Some(window.take(from, limits)))
    }

    fn kept(&self, of: TopicPartition, from: Offset) -> Option<Window> {
        let mut windows = self.windows();
        let place = windows.iter().position(|window| window.of == of && window.offsets.contains(&from))?;
        let window = windows.remove(place)?;
        windows.push_back(window.clone());
        Some(window)
    }

    fn keep(&self, window: Window) {
        let mut windows = self.windows();
        windows.push_back(window);
        let mut bytes: usize = windows.iter().map(|window| window.bytes).sum();
        while bytes > CACHE_BYTES && windows.len() > 1 {
            bytes -= windows.pop_front().map_or(0, |window| window.bytes);
        }
    }

    fn windows(&self) -> std::sync::MutexGuard<'_, VecDeque<Window>> {
        self.shared.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn find(&self, of: TopicPartition, from: Offset) -> Result<Option<Found>, FetchError> {
        let row: Option<(String, i64, String, i64, i64)> = sqlx::query_as(
            "SELECT path, bytes, sha256, first_offset, next_offset FROM tidemill.objects \
             WHERE topic_id = $1 AND partition = $2 AND first_offset <= $3 AND next_offset > $3",
        )
        .bind(of.topic.0)
        .bind(of.partition.cast_signed())
        .bind(i64::try_from(from).unwrap_or(i64::MAX))
        .fetch_optional(&self.shared.pool)
        .await
        .map_err(|error| FetchError::of(error, of.partition, from))?;
        Ok(row.map(|(path, bytes, sha256, first, next)| Found {
            object: Object { path, bytes: bytes.cast_unsigned(), sha256 },
            offsets: first.cast_unsigned()..next.cast_unsigned(),
        }))
    }

    async fn decode(&self, of: TopicPartition, from: Offset, found: Found) -> Result<Window, FetchError> {
        let failed =
            |reason: String, damaged| FetchError::Archived { partition: of.partition, from, reason, damaged };
        let Found { object, offsets } = found;
        let objects = &self.shared.objects;
        let pin = objects.provide(std::slice::from_ref(&object)).await.map_err(|error| {
            let damaged = matches!(error, ObjectError::Damaged { .. });
            failed(error.to_string(), damaged)
        })?;
        let first = from - (from - offsets.start) % WINDOW;
        let range = first..offsets.end.min(first + WINDOW);
        let (file, wanted) = (objects.root().join(&object.path), range.clone());
        let decoded = spawn_blocking(move || parquet::decode(&file, wanted)).await;
        drop(pin);
        let batches = decoded.map_err(|ended| failed(ended.to_string(), false))?.map_err(|error| {
            let damaged = !matches!(error, ParquetError::Io { .. });
            failed(format!("object {}: {error}", object.path), damaged)
        })?;
        let bytes =
            batches.iter().flat_map(|batch| batch.records.iter()).map(|it| it.size() + OVERHEAD).sum();
        let window = Window { of, offsets: range, batches: batches.into(), bytes };
        metrics::counter!("tidemill_archive_reads_total").increment(1);
        self.keep(window.clone());
        Ok(window)
    }
}

impl Window {
    /// At least the batch that holds `from`, which the window does.
    fn take(&self, from: Offset, limits: FetchLimits) -> Vec<StoredBatch> {
        let first = self.batches.partition_point(|batch| batch.next_offset() <= from);
        let (mut records, mut bytes) = (0, 0);
        let fits = |batch: &&StoredBatch| {
            let is_first = records == 0;
            records += batch.records.len() as u64;
            bytes += batch.records.iter().map(|record| record.size() as u64).sum::<u64>();
            is_first || (records <= u64::from(limits.records) && bytes <= limits.bytes)
        };
        let mut taken: Vec<StoredBatch> = self.batches[first..].iter().take_while(fits).cloned().collect();
        if let Some(batch) = taken.first_mut() {
            batch.trim(from);
        }
        taken
    }
}
