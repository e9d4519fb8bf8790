//! A number that stands for a set of records, in whatever order they come.

use std::hash::{DefaultHasher, Hasher};

use crate::record::Record;

/// Compared within one process between what was read from Postgres and what the object gives back; never stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint(u64);

impl Fingerprint {
    pub fn add(&mut self, record: &Record) {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(record.offset);
        hasher.write_i64(record.timestamp);
        match &record.key {
            Some(key) => bytes(&mut hasher, key),
            None => hasher.write_u8(0),
        }
        for header in &record.headers {
            bytes(&mut hasher, header.name.as_bytes());
            bytes(&mut hasher, &header.value);
        }
        bytes(&mut hasher, &record.payload);
        self.0 = self.0.wrapping_add(hasher.finish());
    }
}

/// With its length, so that two neighbours cannot trade bytes.
fn bytes(hasher: &mut DefaultHasher, bytes: &[u8]) {
    hasher.write_usize(bytes.len() + 1);
    hasher.write(bytes);
}
