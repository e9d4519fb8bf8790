//! Reading: whole batches from an offset on.
//!
//! Batches never change, so readers of one range share one read: it is done once while the others wait for it, and its
//! batches stay in a bounded cache that they take theirs from. Readers at the end share one look at all ends of the topic.
//!
//! Never, that is, but for a fail-over to a server that lacks the last of them. A reader says under which epoch of the log
//! it got where it is: it is given no batch of an earlier one, and told if what it had read before is gone.

mod cache;

use std::collections::HashMap;

use sqlx::Row;

use crate::ids::{Offset, Partition, Place, TopicId, TopicPartition};
use crate::record::StoredBatch;

use super::encode::stored_batch;
use super::error::{ATTEMPTS, Trouble, code, pause};
use super::{FetchError, Log, Topic};

pub(super) use cache::BatchCache;
use cache::KnownEnds;

/// How much a fetch gives at most. One batch is always given, however large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchLimits {
    pub records: u32,
    pub bytes: u64,
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self { records: 1_000, bytes: 1 << 20 }
    }
}

/// Batches in order, without a gap; none if the reader has caught up.
#[derive(Clone, Debug, Default)]
pub struct Fetched {
    pub batches: Vec<StoredBatch>,
    /// There was nothing after them.
    pub at_end: bool,
}

impl Log {
    /// The batches that overlap `from` and follow it, the first cut to what is at or after `from`. The end of the answer is
    /// not the end of the log, unless it is empty.
    pub async fn fetch(
        &self,
        topic: &Topic,
        partition: Partition,
        from: impl Into<Place>,
        limits: FetchLimits,
    ) -> Result<Fetched, FetchError> {
        let target = TopicPartition { topic: topic.id, partition };
        let place: Place = from.into();
        let fetched = match self.fetch_from(target, place, limits).await {
            // Of an offset that is not there any more more can be said, if it was.
            Err(error @ FetchError::OutOfRange { end, .. }) if place.offset > end => {
                self.survived(target, place).await?;
                return Err(error);
            }
            fetched => fetched?,
        };
        if fetched.batches.first().is_some_and(|first| first.log_epoch != place.epoch) {
            self.survived(target, place).await?;
        }
        Ok(fetched)
    }

    async fn fetch_from(
        &self,
        target: TopicPartition,
        place: Place,
        limits: FetchLimits,
    ) -> Result<Fetched, FetchError> {
        let cache = &self.shared.batches;
        let from = place.offset;
        let mut batches = cache.take(target, place, limits);
        let mut end = None;
        if batches.is_empty() && !self.is_at_end(target, from).await? {
            let slot = cache.slot(target);
            let _reading = slot.lock().await;
            // Whoever had the slot before us may have read it for us.
            batches = cache.take(target, place, limits);
            if batches.is_empty() {
                (batches, end) = self.read(target, from, limits).await?;
                cache.put(target, &batches);
            }
        }
        let at_end = batches.last().map(StoredBatch::next_offset) == end;
        if let Some(first) = batches.first_mut() {
            first.trim(from);
        }
        Ok(Fetched { batches, at_end })
    }

    /// Whether there is nothing at `from` yet. A wake-up is for a whole topic and wakes the readers of all its partitions,
    /// so they ask together: one query that began after a reader asked answers it.
    async fn is_at_end(&self, target: TopicPartition, from: Offset) -> Result<bool, FetchError> {
        let ends = self.shared.batches.ends(target.topic);
        let asked = ends.ticket();
        let mut known = ends.lock().await;
        let end = |known: &KnownEnds| known.next.get(&target.partition).copied();
        // Ends only move on, so an older answer will do if it lies behind `from`.
        if end(&known).is_some_and(|next| next > from) {
            return Ok(false);
        }
        if known.began <= asked {
            let began = ends.ticket();
            let next = self.repeated(target.partition, from, || self.read_ends(target.topic)).await?;
            *known = KnownEnds { began, next };
        }
        Ok(end(&known) == Some(from))
    }

    async fn read_ends(&self, topic: TopicId) -> Result<HashMap<Partition, Offset>, sqlx::Error> {
        let rows: Vec<(i32, i64)> =
            sqlx::query_as("SELECT partition, next_offset FROM tidemill.log_counter WHERE topic_id = $1")
                .bind(topic.0)
                .fetch_all(self.pool())
                .await?;
        Ok(rows
            .into_iter()
            .map(|(partition, next)| (partition.cast_unsigned(), next.cast_unsigned()))
            .collect())
    }

    /// The batches, and where the log ended then.
    async fn read(
        &self,
        target: TopicPartition,
        from: Offset,
        limits: FetchLimits,
    ) -> Result<(Vec<StoredBatch>, Option<Offset>), FetchError> {
        let read = || async {
            let rows = sqlx::query(
                "SELECT base_offset, tidemill.micros(appended_at), timestamps, keys, headers, payloads, log_epoch, \
                 end_offset FROM tidemill.fetch_batches($1, $2, $3, $4, $5)",
            )
            .bind(target.topic.0)
            .bind(target.partition.cast_signed())
            .bind(i64::try_from(from).unwrap_or(i64::MAX))
            .bind(i32::try_from(limits.records).unwrap_or(i32::MAX))
            .bind(i64::try_from(limits.bytes).unwrap_or(i64::MAX))
            .fetch_all(self.pool())
            .await?;
            let end = rows.last().map(|row| row.try_get::<i64, _>(7)).transpose()?.map(i64::cast_unsigned);
            let batches = rows.iter().map(|row| stored_batch(row, target.partition));
            Ok((batches.collect::<Result<Vec<_>, _>>()?, end))
        };
        self.repeated(target.partition, from, read).await
    }

    /// Runs a read again after failures that pass.
    pub(super) async fn repeated<T, F>(
        &self,
        partition: Partition,
        from: Offset,
        mut read: impl FnMut() -> F,
    ) -> Result<T, FetchError>
    where
        F: Future<Output = Result<T, sqlx::Error>>,
    {
        let mut attempt = 1;
        loop {
            match read().await {
                Ok(read) => return Ok(read),
                Err(error) if attempt < ATTEMPTS && is_worth_repeating(&error) => {
                    tokio::time::sleep(pause(attempt)).await;
                    attempt += 1;
                }
                Err(error) => return Err(FetchError::of(error, partition, from)),
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

#[cfg(test)]
mod tests;
