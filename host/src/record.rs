//! The currency of the data path: records and the batches they are stored in.

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

use crate::ids::{LogEpoch, Micros, Offset, Partition};

/// A named value beside the payload. Names may repeat; order is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub name: String,
    pub value: Bytes,
}

/// A record that is to be appended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewRecord {
    pub key: Option<Bytes>,
    pub headers: Vec<Header>,
    /// When the event happened; None takes the time of the append.
    pub timestamp: Option<Micros>,
    pub payload: Bytes,
}

impl NewRecord {
    /// Bytes that count against limits: key, headers and payload.
    pub fn size(&self) -> usize {
        let headers: usize = self.headers.iter().map(|h| h.name.len() + h.value.len()).sum();
        self.key.as_ref().map_or(0, Bytes::len) + headers + self.payload.len()
    }
}

/// A stored record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub partition: Partition,
    pub offset: Offset,
    pub timestamp: Micros,
    pub key: Option<Bytes>,
    pub headers: Vec<Header>,
    pub payload: Bytes,
}

impl Record {
    /// Bytes that count against limits: key, headers and payload.
    pub fn size(&self) -> usize {
        let headers: usize = self.headers.iter().map(|h| h.name.len() + h.value.len()).sum();
        self.key.as_ref().map_or(0, Bytes::len) + headers + self.payload.len()
    }
}

/// One stored row: the records `base_offset..base_offset + records.len()` of a partition.
#[derive(Clone, Debug)]
pub struct StoredBatch {
    pub partition: Partition,
    pub base_offset: Offset,
    /// When it was appended, by the counter row: never runs against offset order.
    pub appended_at: Micros,
    /// The epoch of the log when it was read from Postgres; None of what comes from the bucket.
    pub log_epoch: Option<LogEpoch>,
    pub records: Arc<[Record]>,
}

impl StoredBatch {
    /// The offset after its last record.
    pub fn next_offset(&self) -> Offset {
        self.base_offset + self.records.len() as Offset
    }

    /// Cuts off what is before `from`.
    pub fn trim(&mut self, from: Offset) {
        if let Some(skip) = from.checked_sub(self.base_offset)
            && skip > 0
        {
            let skip = usize::try_from(skip).unwrap_or(usize::MAX).min(self.records.len());
            self.records = self.records[skip..].into();
            self.base_offset = from;
        }
    }
}

/// What an append reserved: `base_offset..next_offset` of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Appended {
    pub partition: Partition,
    pub base_offset: Offset,
    pub next_offset: Offset,
    /// The same (producer, epoch, sequence) was stored before; these are the offsets it got then.
    pub duplicate: bool,
}
