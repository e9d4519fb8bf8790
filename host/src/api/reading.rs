//! A reader of a topic for one client: pieces of one batch at a time, up to an end or for ever.
//!
//! Holds what one read gave, which it shares with the other readers of the same range, and reads on when that has been
//! taken: whoever takes nothing costs nothing.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::ApiState;
use super::error::ApiError;
use super::start::Begin;
use crate::ids::{LogEpoch, Micros, Partition, Place};
use crate::log::{FetchLimits, Topic};
use crate::record::Record;
use crate::replay::{Cursor, Position};

/// Bytes a reader has ready, over all partitions; of each partition one batch may be ready whatever its size.
const READY_BYTES: u64 = 4 << 20;
const READY_RECORDS: u32 = 10_000;

pub struct Reading {
    cursor: Cursor,
    /// After the records that were taken.
    position: Position,
    /// Where to stop; None follows for ever.
    end: Option<BTreeMap<Partition, Place>>,
    /// Records that may still be taken.
    left: u64,
    current: Option<Piece>,
    /// Under which that was read.
    epoch: Option<LogEpoch>,
}

/// Records of one batch.
#[derive(Clone, Debug)]
pub struct Piece {
    /// When its batch was appended.
    pub appended_at: Micros,
    records: Arc<[Record]>,
    range: Range<usize>,
}

/// What a look for more found.
#[derive(Debug)]
pub enum Step {
    Records(Piece),
    /// Nothing came in the time given.
    Quiet,
    /// The end, or as many records as were asked for.
    End,
}

impl Piece {
    pub fn records(&self) -> &[Record] {
        &self.records[self.range.clone()]
    }
}

impl Reading {
    pub fn begin(state: &ApiState, topic: Arc<Topic>, begin: Begin, max: Option<u64>, follow: bool) -> Self {
        let partitions = begin.from.len().max(1) as u64;
        let limits = FetchLimits { records: READY_RECORDS, bytes: (READY_BYTES / partitions).max(64 << 10) };
        let positions = begin.from.iter().map(|(p, o)| (*p, *o)).collect();
        Self {
            cursor: state.replay.cursor(topic, positions, limits),
            position: begin.from.into(),
            end: (!follow).then_some(begin.end),
            left: max.unwrap_or(u64::MAX),
            current: None,
            epoch: None,
        }
    }

    /// After what was taken so far.
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// Counts a record as taken.
    pub fn passed(&mut self, record: &Record) {
        let before = self.position.place(record.partition).and_then(|place| place.epoch);
        let epoch = self.epoch.or(before);
        self.position.insert(record.partition, Place { offset: record.offset + 1, epoch });
    }

    /// The next records of one batch: at most `records`, and about `bytes` of payload, but at least one.
    pub async fn next(&mut self, wait: Duration, records: usize, bytes: usize) -> Result<Step, ApiError> {
        loop {
            if self.left == 0 {
                return Ok(Step::End);
            }
            if let Some(piece) = &mut self.current {
                let most = records.min(usize::try_from(self.left).unwrap_or(usize::MAX));
                let taken = piece.split_front(most, bytes);
                if piece.range.is_empty() {
                    self.current = None;
                }
                self.left -= taken.range.len() as u64;
                return Ok(Step::Records(taken));
            }
            if self.at_end() {
                return Ok(Step::End);
            }
            let Some(batch) = self.cursor.next(wait).await? else {
                return Ok(Step::Quiet);
            };
            let end = self.end.as_ref().and_then(|end| end.get(&batch.partition)).map(|end| end.offset);
            let wanted = match end {
                Some(end) => batch.records.partition_point(|record| record.offset < end),
                None => batch.records.len(),
            };
            self.epoch = batch.log_epoch;
            let (appended_at, records) = (batch.appended_at, batch.records);
            self.current = (wanted > 0).then_some(Piece { appended_at, records, range: 0..wanted });
        }
    }

    fn at_end(&self) -> bool {
        let Some(end) = &self.end else { return false };
        end.iter().all(|(partition, end)| self.position.get(*partition).is_some_and(|at| at >= end.offset))
    }
}

impl Piece {
    fn split_front(&mut self, records: usize, bytes: usize) -> Self {
        let mut size = 0;
        let mut count = 0;
        for record in self.records() {
            size += record.size();
            if count > 0 && (count >= records || size > bytes) {
                break;
            }
            count += 1;
        }
        let middle = self.range.start + count;
        let (appended_at, records) = (self.appended_at, self.records.clone());
        let front = Self { appended_at, records, range: self.range.start..middle };
        self.range.start = middle;
        front
    }
}
