//! What a consuming task has read and not yet committed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::config::plan::BatchLimits;
use crate::ids::{Micros, Offset, Partition, Place};
use crate::log::{FetchLimits, Topic};
use crate::record::Record;
use crate::replay::{Cursor, Replay, ReplayError};

/// Records of one read at least, as far as the bytes of a batch allow: a stage with small batches that has fallen behind
/// reads several of them at once.
const READ_AHEAD: u32 = 1_000;

/// The longest that a stage waits for more than was there when it came back.
const GATHERING_MAX: Duration = Duration::from_millis(8);

/// Records of one partition in offset order, from the group's offset on. Bounded by one read (the bytes of a
/// batch) and one stored row.
pub struct Intake {
    cursor: Cursor,
    waiting: VecDeque<Record>,
    /// When the records were appended: after the last of each stored row, and the time.
    appended: VecDeque<(Offset, Micros)>,
    bytes: u64,
    limits: BatchLimits,
    /// When the last batch was there, if the stage has been busy with it since.
    filled: Option<Instant>,
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
            filled: None,
        }
    }

    /// Reads until a batch is full or nothing more is there. Waits up to `wait` for the first record, and the plan's linger
    /// for more once there is one; a stage that has not kept up waits for more as well ([`gathering`]). True when there is
    /// something.
    pub async fn fill(&mut self, wait: Duration) -> Result<bool, ReplayError> {
        let entered = Instant::now();
        let busy = self.filled.take().map(|filled| entered - filled);
        let mut lingered = false;
        while !self.full() {
            let patience = match (self.waiting.is_empty(), lingered) {
                (true, _) => wait,
                (false, true) => Duration::ZERO,
                (false, false) => {
                    lingered = true;
                    let linger = self.limits.linger.max(gathering(busy, entered.elapsed()));
                    if !linger.is_zero() {
                        sleep(linger).await;
                    }
                    Duration::ZERO
                }
            };
            let Some(batch) = self.cursor.next(patience).await? else { break };
            self.bytes += batch.records.iter().map(|record| record.size() as u64).sum::<u64>();
            self.waiting.extend(batch.records.iter().cloned());
            self.appended.push_back((batch.next_offset(), batch.appended_at));
        }
        let there = !self.waiting.is_empty();
        self.filled = there.then(Instant::now);
        Ok(there)
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

/// How long to wait for more records after the first came within `waited`, when the batch before kept the stage `busy`: as long
/// as that, so that batches grow instead of commits where a machine does not keep up. Not at all if the stage was the one that
/// waited: a lone record goes on at once.
fn gathering(busy: Option<Duration>, waited: Duration) -> Duration {
    match busy {
        Some(busy) if waited < busy / 2 => busy.min(GATHERING_MAX),
        _ => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_stage_that_does_not_keep_up_waits_for_more() {
        let ms = Duration::from_millis;
        assert_eq!(gathering(None, ms(0)), ms(0), "the first record after a pause");
        assert_eq!(gathering(Some(ms(4)), ms(1)), ms(4));
        assert_eq!(gathering(Some(ms(4)), ms(2)), ms(0), "it waited itself");
        assert_eq!(gathering(Some(ms(4)), ms(500)), ms(0));
        assert_eq!(gathering(Some(ms(90)), ms(1)), GATHERING_MAX);
    }
}
