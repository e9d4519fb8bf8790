//! One call's view of a space.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Mutex;

use super::{Entries, KEY_BYTES, READ_BYTES, READ_KEYS, Range, ReadError, Space, Stored, weight};
use crate::ids::Micros;
use crate::plugin::bindings::shared::tidemill::plugin::state::{Entry, Error, Write};

/// Committed entries are read in portions of this many.
const SCAN_CHUNK: usize = 1_000;

/// One call's view: the committed state, and what the call has written.
pub struct Session {
    space: Arc<Space>,
    now: Micros,
    /// Async: a guest makes one call at a time, and waits for Postgres inside it.
    pending: Mutex<Pending>,
}

#[derive(Default)]
struct Pending {
    /// None deletes.
    writes: BTreeMap<Vec<u8>, Option<Stored>>,
    totals: Totals,
}

/// Sums over the writes.
#[derive(Clone, Copy, Default)]
struct Totals {
    /// Keys and values.
    bytes: u64,
    /// What the new entries count.
    over: u64,
    /// What the committed entries count that they replace or delete.
    under: u64,
}

/// What a call leaves behind, for its commit.
#[derive(Clone)]
pub struct Writes {
    pub space: Arc<Space>,
    /// The time of the call, by which entries expire.
    pub now: Micros,
    /// In the order of their keys.
    pub puts: Entries,
    /// In their order.
    pub deletes: Vec<Vec<u8>>,
    /// What the space counts with them, before anything is swept.
    pub used: u64,
}

impl std::fmt::Debug for Writes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (puts, deletes) = (self.puts.len(), self.deletes.len());
        f.debug_struct("Writes").field("puts", &puts).field("deletes", &deletes).finish_non_exhaustive()
    }
}

impl Session {
    pub(super) fn new(space: Arc<Space>, now: Micros) -> Self {
        Self { space, now, pending: Mutex::default() }
    }

    /// What was written; None if there is nothing to store and nothing to sweep. A later write of this session goes nowhere.
    pub async fn take(&self) -> Option<Writes> {
        let pending = std::mem::take(&mut *self.pending.lock().await);
        if pending.writes.is_empty() && !self.space.is_sweep_due(self.now) {
            return None;
        }
        let used = pending.totals.used(self.space.used());
        let (mut puts, mut deletes) = (Vec::new(), Vec::new());
        for (key, write) in pending.writes {
            match write {
                Some(stored) => puts.push((key, stored)),
                None => deletes.push(key),
            }
        }
        Some(Writes { space: Arc::clone(&self.space), now: self.now, puts, deletes, used })
    }

    pub(crate) async fn get(&self, keys: Vec<Vec<u8>>) -> Result<Vec<Option<Vec<u8>>>, Error> {
        check_keys(keys.iter().map(Vec::as_slice))?;
        let pending = self.pending.lock().await;
        let unwritten = keys.iter().filter(|key| !pending.writes.contains_key(*key));
        let committed = self.committed(unwritten).await?;
        let mut bytes = 0;
        keys.iter()
            .map(|key| {
                let found = match pending.writes.get(key) {
                    Some(write) => write.as_ref(),
                    None => committed.get(key).and_then(Option::as_ref),
                };
                let value =
                    found.filter(|stored| stored.is_live(self.now)).map(|stored| stored.value.to_vec());
                bytes += value.as_ref().map_or(0, |value| value.len() as u64);
                if bytes > READ_BYTES { Err(ReadError::TooLarge.into()) } else { Ok(value) }
            })
            .collect()
    }

    pub(in crate::plugin) async fn set(&self, writes: Vec<Write>) -> Result<(), Error> {
        check_keys(writes.iter().map(|write| write.key.as_slice()))?;
        let limit = self.space.limits.value;
        if let Some(write) = writes.iter().find(|write| write.value.len() as u64 > limit) {
            let length = write.value.len();
            return Err(Error::TooLarge(format!(
                "a value of {length} bytes, allowed are {limit}; raise the limit `state_value`"
            )));
        }
        let stored = |write: Write| {
            let ttl = write.ttl.map(|ttl| Micros::try_from(ttl).unwrap_or(Micros::MAX));
            let expires_at = ttl.map(|ttl| self.now.saturating_add(ttl));
            (write.key, Some(Stored { value: Bytes::from(write.value), expires_at }))
        };
        self.write(writes.into_iter().map(stored).collect()).await
    }

    pub(in crate::plugin) async fn delete(&self, keys: Vec<Vec<u8>>) -> Result<(), Error> {
        check_keys(keys.iter().map(Vec::as_slice))?;
        self.write(keys.into_iter().map(|key| (key, None)).collect()).await
    }

    /// All or none of the writes.
    async fn write(&self, writes: BTreeMap<Vec<u8>, Option<Stored>>) -> Result<(), Error> {
        let mut pending = self.pending.lock().await;
        let first_time = writes.keys().filter(|key| !pending.writes.contains_key(*key));
        let mut totals = pending.totals;
        totals.under += self.weights(first_time.cloned().collect()).await?;
        let mut entries = pending.writes.len();
        for (key, write) in &writes {
            match pending.writes.get(key) {
                Some(earlier) => totals.remove(key, earlier),
                None => entries += 1,
            }
            totals.add(key, write);
        }
        self.check(entries, totals, pending.totals)?;
        pending.totals = totals;
        pending.writes.extend(writes);
        Ok(())
    }

    fn check(&self, entries: usize, totals: Totals, before: Totals) -> Result<(), Error> {
        let limits = &self.space.limits;
        if entries > limits.call_entries {
            return Err(Error::TooLarge(format!(
                "{entries} entries written in one call, allowed are {}; raise the limit `output_records`, or give \
                 smaller batches",
                limits.call_entries
            )));
        }
        if totals.bytes > limits.call_bytes {
            return Err(Error::TooLarge(format!(
                "{} bytes written in one call, allowed are {}; raise the limit `output_bytes`, or give smaller batches",
                totals.bytes, limits.call_bytes
            )));
        }
        let committed = self.space.used();
        let used = totals.used(committed);
        // What is over the quota may still shrink.
        if used > limits.quota && used > before.used(committed) {
            return Err(Error::Quota(format!(
                "the state of this partition would take {used} bytes, allowed are {}; raise the limit `state`",
                limits.quota
            )));
        }
        Ok(())
    }

    pub(in crate::plugin) async fn scan(
        &self,
        prefix: Vec<u8>,
        after: Option<Vec<u8>>,
        limit: u32,
    ) -> Result<Vec<Entry>, Error> {
        let limit = (limit as usize).min(READ_KEYS);
        let pending = self.pending.lock().await;
        let mut range = Range { prefix, after };
        let mut found = Vec::new();
        let mut bytes = 0;
        while found.len() < limit {
            let wanted = (limit - found.len()).min(SCAN_CHUNK);
            let committed = self.read(range.clone(), wanted).await?;
            // Up to there both sides are known.
            let last =
                if committed.len() < wanted { None } else { committed.last().map(|(key, _)| key.clone()) };
            let mut merged: BTreeMap<Vec<u8>, Option<Stored>> =
                committed.into_iter().map(|(key, stored)| (key, Some(stored))).collect();
            for (key, write) in pending.writes.range(range.prefix.clone()..) {
                if !key.starts_with(&range.prefix) || last.as_ref().is_some_and(|last| key > last) {
                    break;
                }
                if range.contains(key) {
                    merged.insert(key.clone(), write.clone());
                }
            }
            for (key, stored) in merged {
                let Some(stored) = stored.filter(|stored| stored.is_live(self.now)) else { continue };
                if found.len() == limit {
                    break;
                }
                bytes += (key.len() + stored.value.len()) as u64;
                if bytes > READ_BYTES {
                    return Err(ReadError::TooLarge.into());
                }
                found.push(Entry { key, value: stored.value.to_vec() });
            }
            match last {
                Some(last) => range.after = Some(last),
                None => break,
            }
        }
        Ok(found)
    }

    #[cfg(test)]
    pub(crate) async fn put(&self, key: &[u8], value: &[u8], ttl: Option<u64>) -> Result<(), Error> {
        self.set(vec![Write { key: key.to_vec(), value: value.to_vec(), ttl }]).await
    }

    #[cfg(test)]
    pub(crate) async fn remove(&self, key: &[u8]) -> Result<(), Error> {
        self.delete(vec![key.to_vec()]).await
    }

    #[cfg(test)]
    pub(crate) async fn keys(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: u32,
    ) -> Result<Vec<Vec<u8>>, Error> {
        let entries = self.scan(prefix.to_vec(), after.map(<[u8]>::to_vec), limit).await?;
        Ok(entries.into_iter().map(|entry| entry.key).collect())
    }

    /// Committed entries, from the cache or from where they are.
    async fn committed(
        &self,
        keys: impl Iterator<Item = &Vec<u8>>,
    ) -> Result<BTreeMap<Vec<u8>, Option<Stored>>, ReadError> {
        let mut known = BTreeMap::new();
        let mut missing = Vec::new();
        let generation = {
            let mut inner = self.space.lock();
            for key in keys {
                match inner.cache.get(key) {
                    Some(found) => drop(known.insert(key.clone(), found)),
                    None => missing.push(key.clone()),
                }
            }
            inner.generation
        };
        missing.sort_unstable();
        missing.dedup();
        if missing.is_empty() {
            return Ok(known);
        }
        let loaded = self.space.source.load(missing.clone()).await?;
        let mut inner = self.space.lock();
        for (key, found) in missing.into_iter().zip(loaded) {
            if inner.generation == generation {
                inner.cache.put(key.clone(), found.clone());
            }
            known.insert(key, found);
        }
        Ok(known)
    }

    /// What the committed entries of some keys count, expired ones included.
    async fn weights(&self, keys: Vec<Vec<u8>>) -> Result<u64, ReadError> {
        let mut sum = 0;
        let mut missing = Vec::new();
        {
            let mut inner = self.space.lock();
            for key in keys {
                match inner.cache.get(&key) {
                    Some(found) => sum += found.map_or(0, |stored| weight(key.len(), stored.value.len())),
                    None => missing.push(key),
                }
            }
        }
        if !missing.is_empty() {
            let lengths = self.space.source.lengths(missing.clone()).await?;
            for (key, length) in missing.into_iter().zip(lengths) {
                sum += length.map_or(0, |length| weight(key.len(), length));
            }
        }
        Ok(sum)
    }

    async fn read(&self, range: Range, limit: usize) -> Result<Entries, ReadError> {
        let generation = self.space.lock().generation;
        let entries = self.space.source.scan(range, limit).await?;
        let mut inner = self.space.lock();
        if inner.generation == generation {
            for (key, stored) in &entries {
                inner.cache.put(key.clone(), Some(stored.clone()));
            }
        }
        Ok(entries)
    }
}

impl Totals {
    fn add(&mut self, key: &[u8], write: &Option<Stored>) {
        self.bytes += size(key, write);
        self.over += write.as_ref().map_or(0, |stored| weight(key.len(), stored.value.len()));
    }

    fn remove(&mut self, key: &[u8], write: &Option<Stored>) {
        self.bytes -= size(key, write);
        self.over -= write.as_ref().map_or(0, |stored| weight(key.len(), stored.value.len()));
    }

    /// What a space that counts `committed` counts with the writes.
    fn used(&self, committed: u64) -> u64 {
        committed.saturating_sub(self.under).saturating_add(self.over)
    }
}

/// Bytes of a write.
fn size(key: &[u8], write: &Option<Stored>) -> u64 {
    (key.len() + write.as_ref().map_or(0, |stored| stored.value.len())) as u64
}

fn check_keys<'a>(keys: impl ExactSizeIterator<Item = &'a [u8]>) -> Result<(), Error> {
    let count = keys.len();
    if count > READ_KEYS {
        return Err(Error::TooLarge(format!("{count} keys in one call, allowed are {READ_KEYS}")));
    }
    for key in keys {
        if key.is_empty() || key.len() > KEY_BYTES {
            return Err(Error::TooLarge(format!(
                "a key of {} bytes, allowed are 1 to {KEY_BYTES}",
                key.len()
            )));
        }
    }
    Ok(())
}

impl From<ReadError> for Error {
    fn from(error: ReadError) -> Self {
        let text = error.to_string();
        match error {
            ReadError::Unavailable(_) => Self::Unavailable(text),
            ReadError::TooLarge => Self::TooLarge(text),
        }
    }
}
