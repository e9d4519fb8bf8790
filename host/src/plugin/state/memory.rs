//! State without a database, for tests of pipelines and of plugins.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::ready;

use super::{Committed, Entries, Range, Reading, Space, StateLimits, Stored, Writes, weight};

/// Entries in memory. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Mutex<BTreeMap<Vec<u8>, Stored>>>);

impl Memory {
    /// A space over the entries.
    pub fn space(&self, limits: StateLimits) -> Arc<Space> {
        let entries = self.lock();
        let used = entries.iter().map(|(key, stored)| weight(key.len(), stored.value.len())).sum();
        let earliest = entries.values().filter_map(|stored| stored.expires_at).min();
        drop(entries);
        Arc::new(Space::new(Box::new(self.clone()), limits, used, earliest))
    }

    /// Stores the writes of a call, and sweeps what has expired.
    pub fn commit(&self, writes: &Writes) {
        let mut entries = self.lock();
        for (key, stored) in &writes.puts {
            entries.insert(key.clone(), stored.clone());
        }
        for key in &writes.deletes {
            entries.remove(key);
        }
        let swept: Vec<Vec<u8>> = entries
            .iter()
            .filter(|(_, stored)| !stored.is_live(writes.now))
            .map(|(key, _)| key.clone())
            .collect();
        for key in &swept {
            entries.remove(key);
        }
        let used = entries.iter().map(|(key, stored)| weight(key.len(), stored.value.len())).sum();
        let earliest = entries.values().filter_map(|stored| stored.expires_at).min();
        writes.space.committed(writes, used, Some((swept, earliest)));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Vec<u8>, Stored>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Committed for Memory {
    fn load(&self, keys: Vec<Vec<u8>>) -> Reading<'_, Vec<Option<Stored>>> {
        let entries = self.lock();
        let found = keys.iter().map(|key| entries.get(key).cloned()).collect();
        Box::pin(ready(Ok(found)))
    }

    fn lengths(&self, keys: Vec<Vec<u8>>) -> Reading<'_, Vec<Option<usize>>> {
        let entries = self.lock();
        let found = keys.iter().map(|key| entries.get(key).map(|stored| stored.value.len())).collect();
        Box::pin(ready(Ok(found)))
    }

    fn scan(&self, range: Range, limit: usize) -> Reading<'_, Entries> {
        let entries = self.lock();
        let within =
            entries.range(range.prefix.clone()..).take_while(|(key, _)| key.starts_with(&range.prefix));
        let found = within
            .filter(|(key, _)| range.contains(key))
            .take(limit)
            .map(|(key, stored)| (key.clone(), stored.clone()))
            .collect();
        Box::pin(ready(Ok(found)))
    }
}
