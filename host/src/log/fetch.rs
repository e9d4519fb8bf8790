//! Reading: whole batches from an offset on.
//!
//! Batches never change, so readers of one range share one read: it is done once while the others wait for it, and its
//! batches stay in a bounded cache that they take theirs from. A reader at the end shares the news that there is nothing.

mod cache;

use std::sync::Arc;

use crate::ids::{Offset, Partition, TopicPartition};
use crate::record::StoredBatch;

use super::encode::stored_batch;
use super::error::{ATTEMPTS, Trouble, code, pause};
use super::{FetchError, Log, Topic};

pub(super) use cache::BatchCache;

/// How much a fetch gives at most. One batch is always given, however large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchLimits {
    pub records: u32,
    pub bytes: u64,
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self {
            records: 1_000,
            bytes: 1 << 20,
        }
    }
}

/// Batches in order, without a gap; none if the reader has caught up.
#[derive(Clone, Debug, Default)]
pub struct Fetched {
    pub batches: Vec<StoredBatch>,
}

impl Log {
    /// The batches that overlap `from` and follow it, the first cut to what is at or after `from`. The end of the answer is
    /// not the end of the log, unless it is empty.
    pub async fn fetch(
        &self,
        topic: &Topic,
        partition: Partition,
        from: Offset,
        limits: FetchLimits,
    ) -> Result<Fetched, FetchError> {
        let target = TopicPartition {
            topic: topic.id,
            partition,
        };
        let cache = &self.shared.batches;
        let mut batches = cache.take(target, from, limits);
        if batches.is_empty() {
            let slot = cache.slot(target);
            let asked = slot.ticket();
            let mut reading = slot.reading().await;
            batches = cache.take(target, from, limits);
            // Whoever read while we waited for the slot may have found the end for us.
            if batches.is_empty() && !reading.is_end(from, asked) {
                let began = slot.ticket();
                batches = self.read(target, from, limits).await?;
                match batches.as_slice() {
                    [] => reading.set_end(from, began),
                    read => cache.put(target, read),
                }
            }
        }
        if let Some(first) = batches.first_mut() {
            trim(first, from);
        }
        Ok(Fetched { batches })
    }

    async fn read(
        &self,
        target: TopicPartition,
        from: Offset,
        limits: FetchLimits,
    ) -> Result<Vec<StoredBatch>, FetchError> {
        let mut attempt = 1;
        loop {
            let rows = sqlx::query(
                "SELECT base_offset, tidemill.micros(appended_at), timestamps, keys, headers, payloads \
                 FROM tidemill.fetch_batches($1, $2, $3, $4, $5)",
            )
            .bind(target.topic.0)
            .bind(target.partition.cast_signed())
            .bind(i64::try_from(from).unwrap_or(i64::MAX))
            .bind(i32::try_from(limits.records).unwrap_or(i32::MAX))
            .bind(i64::try_from(limits.bytes).unwrap_or(i64::MAX))
            .fetch_all(self.pool())
            .await;
            match rows {
                Ok(rows) => {
                    return rows
                        .iter()
                        .map(|row| stored_batch(row, target.partition))
                        .collect::<Result<_, _>>()
                        .map_err(|error| FetchError::Postgres(Arc::new(error)));
                }
                Err(error) if attempt < ATTEMPTS && is_worth_repeating(&error) => {
                    tokio::time::sleep(pause(attempt)).await;
                    attempt += 1;
                }
                Err(error) => return Err(FetchError::of(error, target.partition, from)),
            }
        }
    }
}

/// A read may always be repeated. 42P01: the segment was dropped between our snapshot and our look at it, and the next
/// snapshot knows; 0A000 and XX000 come from plans and lookups that met the same change.
fn is_worth_repeating(error: &sqlx::Error) -> bool {
    matches!(Trouble::of(error), Trouble::Passing | Trouble::Unknown)
        || matches!(code(error), "42P01" | "0A000" | "XX000")
}

/// Cuts off what is before `from`.
fn trim(batch: &mut StoredBatch, from: Offset) {
    if let Some(skip) = from.checked_sub(batch.base_offset)
        && skip > 0
    {
        let skip = usize::try_from(skip)
            .unwrap_or(usize::MAX)
            .min(batch.records.len());
        batch.records = batch.records[skip..].into();
        batch.base_offset = from;
    }
}
