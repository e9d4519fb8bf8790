//! What a consuming task has read and not yet committed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::config::plan::BatchLimits;
use crate::ids::{Micros, Offset, Partition, Place};
use crate::log::{FetchLimits, Topic};
use crate::record::Record;
use crate::replay::{Cursor, Replay, ReplayError};

/// Records of one read at least, as far as the bytes of a batch allow: a stage with small batches that has fallen behind
/// reads several of them at once.
const READ_AHEAD: u32 = 1_000;

/// Records of one partition in offset order, from the group's offset on. Bounded by one read (the bytes of a
/// batch) and one stored row.
pub struct Intake {
    cursor: Cursor,
    waiting: VecDeque<Record>,
    /// When the records were appended: after the last of each stored row, and the time.
    appended: VecDeque<(Offset, Micros)>,
    bytes: u64,
    limits: BatchLimits,
}

impl Intake {
    pub fn new(
        replay: &Replay,
        topic: Arc<Topic>,
        partition: Partition,
        from: Place,
        limits: BatchLimits,
    ) -> Self {
        let fetch = FetchLimits { records: limits.records.max(READ_AHEAD), bytes: limits.bytes };
        Self {
            cursor: replay.cursor(topic, vec![(partition, from)], fetch),
            waiting: VecDeque::new(),
            appended: VecDeque::new(),
            bytes: 0,
            limits,
        }
    }

    /// Reads until a batch is full or nothing more is there. Waits up to `wait` for the first record, and the plan's linger
    /// for more once there is one. True when there is something.
    pub async fn fill(&mut self, wait: Duration) -> Result<bool, ReplayError> {
        let mut lingered = self.limits.linger.is_zero();
        while !self.full() {
            let patience = match (self.waiting.is_empty(), lingered) {
                (true, _) => wait,
                (false, true) => Duration::ZERO,
                (false, false) => {
                    lingered = true;
                    tokio::time::sleep(self.limits.linger).await;
                    Duration::ZERO
                }
            };
            let Some(batch) = self.cursor.next(patience).await? else { break };
            self.bytes += batch.records.iter().map(|record| record.size() as u64).sum::<u64>();
            self.waiting.extend(batch.records.iter().cloned());
            self.appended.push_back((batch.next_offset(), batch.appended_at));
        }
        Ok(!self.waiting.is_empty())
    }

    fn full(&self) -> bool {
        self.waiting.len() >= self.limits.records as usize || self.bytes >= self.limits.bytes
    }

    /// The next batch, at most `most` records; a record over the byte limit goes alone.
    pub fn batch(&mut self, most: usize) -> &[Record] {
        let mut bytes = 0;
        let within = self
            .waiting
            .iter()
            .take(most.min(self.limits.records as usize))
            .take_while(|record| {
                bytes += record.size() as u64;
                bytes <= self.limits.bytes
            })
            .count();
        let take = within.max(1).min(self.waiting.len());
        &self.waiting.make_contiguous()[..take]
    }

    /// When a record that waits was appended: the same whenever it is read, and never against the order of offsets.
    pub fn appended_at(&self, offset: Offset) -> Micros {
        let row = self.appended.iter().find(|(next, _)| offset < *next);
        row.map_or(0, |(_, appended_at)| *appended_at)
    }

    /// Forgets the first `count` records: they are committed.
    pub fn done(&mut self, count: usize) {
        for record in self.waiting.drain(..count.min(self.waiting.len())) {
            self.bytes = self.bytes.saturating_sub(record.size() as u64);
            self.appended.pop_front_if(|(next, _)| *next <= record.offset + 1);
        }
    }
}
