//! Which partition a key belongs to: the same in SQL (`tidemill.partition_of`) and here, for ever.

use sha2::{Digest, Sha256};

use crate::ids::Partition;

/// The first four bytes of the key's SHA-256, big-endian, modulo the partitions. `partitions` 0 counts as 1.
pub fn partition_of(key: &[u8], partitions: u32) -> Partition {
    if partitions <= 1 {
        return 0;
    }
    let digest = Sha256::digest(key);
    let [a, b, c, d, ..] = digest.0;
    u32::from_be_bytes([a, b, c, d]) % partitions
}

#[cfg(test)]
mod tests;
