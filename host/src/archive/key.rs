//! Names of objects: `archive/<topic>/date=YYYY-MM-DD/<partition>-<first>-<last>-<hash>.parquet`.
//!
//! The hash is of the content, so a key never stands for two contents and a repeated put of the same bytes finds itself.
//! The date is that of the segment's lower bound, as DuckDB and others expect it of Hive partitions.

use std::ops::Range;

use crate::ids::{Micros, Offset, Partition, TopicName};

/// All objects of records are below this folder.
pub const FOLDER: &str = "archive";
/// Digits of the hash in a key: of two contents with the same offsets, one in 10^19 shares them.
const HASH_DIGITS: usize = 16;
const DAY: Micros = 86_400_000_000;

/// The key of records of one partition. `segment_lower` is when their segment begins; `sha256` is in hex.
pub fn object_key(
    topic: &TopicName,
    segment_lower: Micros,
    partition: Partition,
    offsets: &Range<Offset>,
    sha256: &str,
) -> String {
    let date = jiff::Timestamp::from_microsecond(segment_lower.div_euclid(DAY) * DAY)
        .map_or_else(|_| "unknown".to_owned(), |at| at.to_string().chars().take(10).collect());
    let hash: String = sha256.chars().take(HASH_DIGITS).collect();
    let (first, last) = (offsets.start, offsets.end.saturating_sub(1));
    format!("{FOLDER}/{topic}/date={date}/{partition}-{first}-{last}-{hash}.parquet")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_tells_topic_day_partition_offsets_and_content() {
        let topic = TopicName::parse("positions").unwrap();
        let hash = "0123456789abcdef0123456789abcdef";
        let key = object_key(&topic, 1_732_264_000_123_456, 3, &(100..200), hash);
        assert_eq!(key, "archive/positions/date=2024-11-22/3-100-199-0123456789abcdef.parquet");
    }
}
