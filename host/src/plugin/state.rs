//! State as a plugin sees it: what is committed, under what the running call has written.
//!
//! [`Space`] is the committed state of one group and partition, read through a bounded cache; [`Session`] is one call's
//! view of it with its own writes, which [`Session::take`] hands over for the commit, or which are dropped with it.
//! Whoever commits tells the space with [`Space::committed`].
//!
//! Guarantee: a session sees the space as of its last commit and its own writes, nothing else. A space belongs to one
//! task, which is the only writer while its lease lasts; a task that lost it sees old state, and cannot commit.
//! Bounds: the cache by [`CACHE_BYTES`], a call's writes by the output limits, the space by its quota, what one read
//! returns by [`READ_BYTES`] and [`READ_KEYS`].

mod cache;
mod memory;
mod session;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::future::BoxFuture;

use cache::Cache;
pub use memory::Memory;
pub use session::{Session, Writes};

use crate::ids::Micros;

/// What a space remembers of what is committed.
const CACHE_BYTES: usize = 8 << 20;
/// What one `get` or `scan` may return.
pub const READ_BYTES: u64 = 16 << 20;
/// Keys of one call to the import.
pub const READ_KEYS: usize = 10_000;
/// Bytes of a key. Postgres cannot index much longer ones.
pub const KEY_BYTES: usize = 1_024;
/// What an entry counts beside its key and value: about what a row takes.
pub const ENTRY_BYTES: u64 = 64;

/// A stored value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub value: Bytes,
    pub expires_at: Option<Micros>,
}

impl Stored {
    fn is_live(&self, now: Micros) -> bool {
        self.expires_at.is_none_or(|at| at > now)
    }
}

/// What an entry counts against the quota.
fn weight(key: usize, value: usize) -> u64 {
    ENTRY_BYTES + key as u64 + value as u64
}

/// Reading failed; the text is for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("the state cannot be read: {0}")]
    Unavailable(String),
    #[error("more than {} MiB at once: ask for fewer entries", READ_BYTES >> 20)]
    TooLarge,
}

/// Keys of a scan: those with a prefix, after a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    pub prefix: Vec<u8>,
    pub after: Option<Vec<u8>>,
}

impl Range {
    /// The first key after all those with the prefix; None if there is none.
    pub fn end(&self) -> Option<Vec<u8>> {
        let mut end = self.prefix.clone();
        while let Some(last) = end.pop() {
            if last < u8::MAX {
                end.push(last + 1);
                return Some(end);
            }
        }
        None
    }

    fn contains(&self, key: &[u8]) -> bool {
        key.starts_with(&self.prefix) && self.after.as_deref().is_none_or(|after| key > after)
    }
}

/// Entries by key, in the order of the keys.
pub type Entries = Vec<(Vec<u8>, Stored)>;

/// A read under way.
pub type Reading<'a, T> = BoxFuture<'a, Result<T, ReadError>>;

/// Where committed entries are. Expired ones are returned as well: they take room until they are swept.
pub trait Committed: Send + Sync {
    /// One for each key.
    fn load(&self, keys: Vec<Vec<u8>>) -> Reading<'_, Vec<Option<Stored>>>;

    /// Lengths of the values.
    fn lengths(&self, keys: Vec<Vec<u8>>) -> Reading<'_, Vec<Option<usize>>>;

    /// The first `limit` entries of a range. Fewer mean that there are no more.
    fn scan(&self, range: Range, limit: usize) -> Reading<'_, Entries>;
}

/// Bounds of a space and of the calls that write to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateLimits {
    /// Bytes of the whole.
    pub quota: u64,
    /// Bytes of one value.
    pub value: u64,
    /// Bytes that one call may write.
    pub call_bytes: u64,
    /// Entries that one call may write.
    pub call_entries: usize,
}

/// The committed state of one group and partition.
pub struct Space {
    source: Box<dyn Committed>,
    limits: StateLimits,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    cache: Cache,
    used: u64,
    /// Raised by each commit: what was read before it may be old after it.
    generation: u64,
    /// No entry expires before this.
    earliest: Option<Micros>,
}

impl Space {
    /// `used` is what its entries count, and `earliest` when the first of them expires.
    pub fn new(source: Box<dyn Committed>, limits: StateLimits, used: u64, earliest: Option<Micros>) -> Self {
        let inner = Inner { cache: Cache::new(CACHE_BYTES), used, generation: 0, earliest };
        Self { source, limits, inner: Mutex::new(inner) }
    }

    /// A view for one call whose time is `now`.
    pub fn session(self: &Arc<Self>, now: Micros) -> Arc<Session> {
        Arc::new(Session::new(Arc::clone(self), now))
    }

    /// What all entries count.
    pub fn used(&self) -> u64 {
        self.lock().used
    }

    /// Whether entries may have expired by `now`.
    pub fn is_sweep_due(&self, now: Micros) -> bool {
        self.lock().earliest.is_some_and(|earliest| earliest <= now)
    }

    /// The writes are stored, after which the space counts `used`; if it was swept, `swept` are the keys that went, and the
    /// first of those left that expires does so at the time.
    pub fn committed(&self, writes: &Writes, used: u64, swept: Option<(Vec<Vec<u8>>, Option<Micros>)>) {
        let mut inner = self.lock();
        inner.generation += 1;
        inner.used = used;
        for (key, stored) in &writes.puts {
            inner.earliest = match (inner.earliest, stored.expires_at) {
                (Some(earliest), Some(expires)) => Some(earliest.min(expires)),
                (earliest, expires) => earliest.or(expires),
            };
            inner.cache.put(key.clone(), Some(stored.clone()));
        }
        for key in &writes.deletes {
            inner.cache.put(key.clone(), None);
        }
        if let Some((keys, earliest)) = swept {
            for key in keys {
                inner.cache.put(key, None);
            }
            inner.earliest = earliest;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
