//! What a file says of itself, under one key of Parquet's own metadata: all that [`super::decode`] needs beside the
//! columns. It is JSON with a version; a reader refuses a version it does not know.

use std::ops::Range;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};

use super::ParquetError;
use super::layout::Field;
use super::style::Style;
use crate::ids::{Micros, Offset, Partition};

pub const METADATA_KEY: &str = "tidemill";
const VERSION: u32 = 1;
/// Times of appending that a file keeps. With more batches every second, fourth and so on is kept: with few bytes in each
/// batch the times would else take more room than the records.
const MAX_TIMES: usize = 4096;

/// What a file holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Footer {
    version: u32,
    pub partition: Partition,
    pub first_offset: Offset,
    /// After the last record.
    pub next_offset: Offset,
    /// The earliest and the latest timestamp of a record.
    pub first_ts: Micros,
    pub last_ts: Micros,
    pub(super) fields: Vec<Field>,
    pub(super) style: Style,
    times: String,
}

impl Footer {
    pub(super) fn new(
        partition: Partition,
        offsets: Range<Offset>,
        times: (Micros, Micros),
        fields: Vec<Field>,
        style: Style,
        index: &TimeIndex,
    ) -> Self {
        Self {
            version: VERSION,
            partition,
            first_offset: offsets.start,
            next_offset: offsets.end,
            first_ts: times.0,
            last_ts: times.1,
            fields,
            style,
            times: index.to_text(),
        }
    }

    pub(super) fn from_json(json: &str) -> Result<Self, ParquetError> {
        let damaged = |error: serde_json::Error| ParquetError::Damaged(format!("its description: {error}"));
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let Version { version } = serde_json::from_str(json).map_err(damaged)?;
        if version != VERSION {
            let message =
                format!("it is of version {version}, this tidemill reads {VERSION}: use a newer one");
            return Err(ParquetError::Damaged(message));
        }
        serde_json::from_str(json).map_err(damaged)
    }

    pub fn records(&self) -> u64 {
        self.next_offset.saturating_sub(self.first_offset)
    }

    /// When what was appended, as far as it is kept.
    pub(super) fn time_index(&self) -> Result<TimeIndex, ParquetError> {
        TimeIndex::from_text(self.first_offset, &self.times)
            .ok_or_else(|| ParquetError::Damaged("its times of appending".to_owned()))
    }
}

/// When records were appended: each entry holds up to the next one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TimeIndex {
    /// First offset and time of a run of batches.
    pub entries: Vec<(Offset, Micros)>,
    /// Batches pushed, and of how many one is kept.
    batches: usize,
    step: usize,
}

impl TimeIndex {
    pub fn push(&mut self, base_offset: Offset, appended_at: Micros) {
        let step = self.step.max(1);
        if self.batches.is_multiple_of(step) {
            if self.entries.len() == MAX_TIMES {
                let mut place = 0;
                self.entries.retain(|_| {
                    place += 1;
                    place % 2 == 1
                });
                self.step = step * 2;
            }
            self.entries.push((base_offset, appended_at));
        }
        self.batches += 1;
    }

    fn to_text(&self) -> String {
        let mut bytes = Vec::new();
        let (mut offset, mut time) = self.entries.first().map_or((0, 0), |(offset, _)| (*offset, 0));
        for (next_offset, next_time) in &self.entries {
            varint(next_offset - offset, &mut bytes);
            // Zigzag: times of appending do not fall, but nothing here should rest on that.
            let delta = next_time.wrapping_sub(time);
            varint(((delta << 1) ^ (delta >> 63)).cast_unsigned(), &mut bytes);
            (offset, time) = (*next_offset, *next_time);
        }
        BASE64_STANDARD.encode(bytes)
    }

    fn from_text(first_offset: Offset, text: &str) -> Option<Self> {
        let bytes = BASE64_STANDARD.decode(text).ok()?;
        let mut rest = bytes.as_slice();
        let (mut offset, mut time) = (first_offset, 0_i64);
        let mut entries = Vec::new();
        while !rest.is_empty() {
            offset = offset.checked_add(read_varint(&mut rest)?)?;
            let zigzag = read_varint(&mut rest)?;
            time = time.wrapping_add((zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed());
            entries.push((offset, time));
        }
        Some(Self { entries, batches: 0, step: 0 })
    }
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn read_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_appending_are_kept_and_thinned() {
        let mut index = TimeIndex::default();
        for batch in 0..10_000_u64 {
            index.push(7 + batch * 3, 1_700_000_000_000_000 + batch.cast_signed() * 1_001);
        }
        assert!(
            index.entries.len() <= MAX_TIMES && index.entries.len() > MAX_TIMES / 2,
            "{}",
            index.entries.len()
        );
        assert!(index.entries.windows(2).all(|pair| pair[1].0 - pair[0].0 == 4 * 3), "every fourth is kept");
        let read = TimeIndex::from_text(7, &index.to_text()).unwrap();
        assert_eq!(read.entries, index.entries);
    }

    #[test]
    fn numbers_of_any_size_are_read_back() {
        for value in [0, 1, 127, 128, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = Vec::new();
            varint(value, &mut bytes);
            assert_eq!(read_varint(&mut bytes.as_slice()), Some(value));
        }
        assert_eq!(read_varint(&mut [0x80].as_slice()), None);
    }
}
