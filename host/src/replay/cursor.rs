//! A reader of some partitions of one topic.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::ids::{Partition, Place};
use crate::log::{FetchLimits, Topic, Wakeup};
use crate::record::StoredBatch;

use super::{Position, Replay, ReplayError};

/// Wake-ups may be lost, so a partition at its end is asked again after this long.
const POLL: Duration = Duration::from_secs(1);

/// Gives the batches of its partitions in turn, those of one partition in order and without a gap.
#[derive(Debug)]
pub struct Cursor {
    replay: Replay,
    topic: Arc<Topic>,
    limits: FetchLimits,
    lanes: Vec<Lane>,
    /// The lane whose turn it is.
    turn: usize,
    wakeup: Wakeup,
}

#[derive(Debug)]
struct Lane {
    partition: Partition,
    /// After the last batch that was given.
    next: Place,
    /// Read, not yet given.
    ready: VecDeque<StoredBatch>,
    /// When a read came to the end, unless the topic has grown since.
    at_end: Option<Instant>,
}

impl Cursor {
    pub(super) fn new(
        replay: Replay,
        topic: Arc<Topic>,
        positions: Vec<(Partition, Place)>,
        limits: FetchLimits,
    ) -> Self {
        let lane = |(partition, next)| Lane { partition, next, ready: VecDeque::new(), at_end: None };
        Self {
            // Before the first read, so that nothing that comes after it is missed.
            wakeup: replay.log.subscribe(topic.id),
            replay,
            topic,
            limits,
            lanes: positions.into_iter().map(lane).collect(),
            turn: 0,
        }
    }

    /// The next batch; None if none came within `wait`. With a `wait` of zero None means that every partition was read to
    /// its end. May be cancelled: what is not returned is not skipped.
    pub async fn next(&mut self, wait: Duration) -> Result<Option<StoredBatch>, ReplayError> {
        let deadline = Instant::now() + wait;
        // A partition that always has something must not keep those that were at their end from being asked. Where there is
        // but one, whoever asks again at once has just read it to its end.
        if self.lanes.len() > 1 && self.wakeup.came() {
            self.lanes.iter_mut().for_each(|lane| lane.at_end = None);
        }
        loop {
            for _ in 0..self.lanes.len() {
                let turn = self.turn % self.lanes.len();
                self.fill(turn).await?;
                self.turn = turn + 1;
                if let Some(batch) = self.lanes[turn].ready.pop_front() {
                    let lane = &mut self.lanes[turn];
                    lane.next.offset = batch.next_offset();
                    lane.next.epoch = batch.log_epoch.or(lane.next.epoch);
                    return Ok(Some(batch));
                }
            }
            let now = Instant::now();
            if now >= deadline {
                return Ok(None);
            }
            let poll = self.lanes.iter().filter_map(|lane| lane.at_end).min();
            let until = poll.map_or(deadline, |at_end| (at_end + POLL).min(deadline));
            if self.wakeup.wait(until.saturating_duration_since(now)).await {
                self.lanes.iter_mut().for_each(|lane| lane.at_end = None);
            }
        }
    }

    /// After the last batch that [`Cursor::next`] gave, in each partition.
    pub fn position(&self) -> Position {
        self.lanes.iter().map(|lane| (lane.partition, lane.next)).collect()
    }

    pub fn topic(&self) -> &Arc<Topic> {
        &self.topic
    }

    /// Reads for a lane that has nothing ready, unless it was found at its end just now.
    async fn fill(&mut self, turn: usize) -> Result<(), ReplayError> {
        let lane = &mut self.lanes[turn];
        let waits = lane.at_end.is_some_and(|at_end| at_end.elapsed() < POLL);
        if waits || !lane.ready.is_empty() {
            return Ok(());
        }
        let asked = Instant::now();
        let fetched = self
            .replay
            .fetch(&self.topic, lane.partition, lane.next, self.limits)
            .await
            .map_err(|source| ReplayError { topic: self.topic.name.to_string(), source })?;
        lane.at_end = (fetched.at_end || fetched.batches.is_empty()).then_some(asked);
        lane.ready = fetched.batches.into();
        Ok(())
    }
}
