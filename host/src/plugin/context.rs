//! What a call sees of time and chance: fixed before the call, so that the same batch sees the same whenever it is run.
//!
//! A guest has no other clock and no other chance. What a toolchain asks WASI for is answered from here as well, without
//! any grant, since guests do not start without it; then time stands at zero and chance is always the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};

use super::state::Session;
use crate::ids::{Micros, Offset, Partition};

/// What a call gets beside its batch. The default is no state, the time zero and one fixed seed.
#[derive(Clone, Default)]
pub struct Context {
    /// For the import `clock`: the time of the batch.
    pub now: Micros,
    /// For the import `random`.
    pub seed: Seed,
    /// For the import `state`, and for this call only.
    pub state: Option<Arc<Session>>,
}

/// Where random numbers begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seed([u8; 32]);

impl Seed {
    /// The seed of a batch: the same whenever the batch is run, whoever runs it.
    pub fn of_batch(group: &str, topic: &str, partition: Partition, first: Offset) -> Self {
        Self::of(&[group.as_bytes(), topic.as_bytes(), &partition.to_be_bytes(), &first.to_be_bytes()])
    }

    /// A seed that differs when any of the parts does.
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Self(hash.finalize().into())
    }
}

/// Random bytes: SHA-256 of the seed and a counter. Slow beside a real generator, at some 150 MB/s, and the same on every
/// machine and in every version.
#[derive(Debug, Default)]
pub(super) struct Chance {
    seed: Seed,
    blocks: u64,
    left: Vec<u8>,
}

impl Chance {
    pub(super) fn new(seed: Seed) -> Self {
        Self { seed, blocks: 0, left: Vec::new() }
    }

    pub(super) fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.left.len() < count {
            let block = Sha256::new().chain_update(self.seed.0).chain_update(self.blocks.to_le_bytes());
            self.left.extend_from_slice(&block.finalize());
            self.blocks += 1;
        }
        let rest = self.left.split_off(count);
        std::mem::replace(&mut self.left, rest)
    }

    pub(super) fn number(&mut self) -> u64 {
        self.bytes(8).iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}

/// The monotonic clock that a guest sees, in nanoseconds since its instance began. It moves when the guest sleeps, by as
/// much as it sleeps, and by a microsecond with each look, so that a guest which waits by looking comes to an end.
#[derive(Clone, Debug, Default)]
pub(super) struct Ticker(Arc<AtomicU64>);

impl Ticker {
    pub(super) fn look(&self) -> u64 {
        self.0.fetch_add(1_000, Ordering::Relaxed)
    }

    /// When a sleep of `nanos` from now ends.
    pub(super) fn after(&self, nanos: u64) -> u64 {
        self.0.load(Ordering::Relaxed).saturating_add(nanos)
    }

    /// How far off a time is.
    pub(super) fn until(&self, then: u64) -> u64 {
        then.saturating_sub(self.0.load(Ordering::Relaxed))
    }

    pub(super) fn reached(&self, then: u64) {
        self.0.fetch_max(then, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_bytes_in_whatever_portions() {
        let seed = Seed::of(&[b"group", b"topic"]);
        let mut whole = Chance::new(seed);
        let mut parts = Chance::new(seed);
        let bytes = whole.bytes(100);
        let joined = [parts.bytes(1), parts.bytes(0), parts.bytes(63), parts.bytes(36)].concat();
        assert_eq!(bytes, joined);
        assert_eq!(whole.number(), parts.number());
        assert_ne!(Chance::new(Seed::of(&[b"groupt", b"opic"])).bytes(32), Chance::new(seed).bytes(32));
    }

    #[test]
    fn the_ticker_moves_by_looks_and_sleeps_and_never_back() {
        let ticker = Ticker::default();
        assert_eq!((ticker.look(), ticker.look()), (0, 1_000));
        let end = ticker.after(5_000_000);
        ticker.reached(end);
        ticker.reached(1);
        assert_eq!(ticker.look(), end);
        assert_eq!(ticker.until(1), 0);
    }
}
