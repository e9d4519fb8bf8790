//! Recently read batches, bounded in bytes, the least recently used dropped first; and a slot per partition, so that one
//! range is read once.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use crate::ids::{Offset, TopicPartition};
use crate::record::{Record, StoredBatch};

use super::FetchLimits;

/// What a record takes beside its bytes.
const RECORD_OVERHEAD: usize = size_of::<Record>();
/// What a batch takes beside its records, roughly.
const BATCH_OVERHEAD: usize = 256;

pub(in crate::log) struct BatchCache {
    capacity: usize,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    partitions: HashMap<TopicPartition, BTreeMap<Offset, Entry>>,
    /// By last use; the first is the next to go.
    uses: BTreeMap<u64, (TopicPartition, Offset)>,
    next_use: u64,
    bytes: usize,
    slots: HashMap<TopicPartition, Slot>,
}

struct Entry {
    batch: StoredBatch,
    bytes: usize,
    last_use: u64,
}

/// The right to read one partition from Postgres.
#[derive(Clone, Default)]
pub(super) struct Slot {
    tickets: Arc<AtomicU64>,
    reading: Arc<AsyncMutex<KnownEnd>>,
}

/// An offset that a read found nothing at, and when that read began.
#[derive(Default)]
struct KnownEnd(Option<(Offset, u64)>);

pub(super) struct Reading(OwnedMutexGuard<KnownEnd>);

impl Slot {
    /// A point in time, for comparison.
    pub(super) fn ticket(&self) -> u64 {
        self.tickets.fetch_add(1, Ordering::SeqCst)
    }

    pub(super) async fn reading(&self) -> Reading {
        Reading(self.reading.clone().lock_owned().await)
    }
}

impl Reading {
    /// Whether a read that began after `asked` found nothing at `from`.
    pub(super) fn is_end(&self, from: Offset, asked: u64) -> bool {
        self.0.0.is_some_and(|(end, began)| end == from && began > asked)
    }

    pub(super) fn set_end(&mut self, from: Offset, began: u64) {
        self.0.0 = Some((from, began));
    }
}

impl BatchCache {
    pub(in crate::log) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            inner: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn slot(&self, target: TopicPartition) -> Slot {
        let mut inner = self.lock();
        if !inner.slots.contains_key(&target) {
            // Slots that nobody holds are forgotten; a slot in use has a second owner.
            inner.slots.retain(|_, slot| Arc::strong_count(&slot.reading) > 1);
        }
        inner.slots.entry(target).or_default().clone()
    }

    /// The batches from the one that holds `from` on, without a gap, within the limits.
    pub(super) fn take(&self, target: TopicPartition, from: Offset, limits: FetchLimits) -> Vec<StoredBatch> {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let mut taken: Vec<StoredBatch> = Vec::new();
        let Some(partition) = inner.partitions.get_mut(&target) else {
            return taken;
        };
        let Some((&first, _)) = partition.range(..=from).next_back() else {
            return taken;
        };
        let (mut records, mut bytes, mut expected) = (0, 0, first);
        for (&base, entry) in partition.range_mut(first..) {
            records += entry.batch.records.len() as u64;
            bytes += entry.bytes as u64;
            let fits = records <= u64::from(limits.records) && bytes <= limits.bytes;
            if base != expected || entry.batch.next_offset() <= from || !(fits || taken.is_empty()) {
                break;
            }
            expected = entry.batch.next_offset();
            inner.uses.remove(&entry.last_use);
            entry.last_use = inner.next_use;
            inner.uses.insert(inner.next_use, (target, base));
            inner.next_use += 1;
            taken.push(entry.batch.clone());
        }
        taken
    }

    pub(super) fn put(&self, target: TopicPartition, batches: &[StoredBatch]) {
        let mut inner = self.lock();
        let inner = &mut *inner;
        for batch in batches {
            let bytes = weight(batch);
            if bytes > self.capacity {
                continue;
            }
            let last_use = inner.next_use;
            inner.next_use += 1;
            inner.uses.insert(last_use, (target, batch.base_offset));
            inner.bytes += bytes;
            let entry = Entry {
                batch: batch.clone(),
                bytes,
                last_use,
            };
            let partition = inner.partitions.entry(target).or_default();
            if let Some(old) = partition.insert(batch.base_offset, entry) {
                inner.uses.remove(&old.last_use);
                inner.bytes -= old.bytes;
            }
        }
        while inner.bytes > self.capacity {
            let Some((_, (target, base))) = inner.uses.pop_first() else {
                break;
            };
            if let Some(partition) = inner.partitions.get_mut(&target) {
                inner.bytes -= partition.remove(&base).map_or(0, |entry| entry.bytes);
                if partition.is_empty() {
                    inner.partitions.remove(&target);
                }
            }
        }
    }

    #[cfg(test)]
    fn bytes(&self) -> usize {
        self.lock().bytes
    }
}

/// Bytes of memory, roughly.
fn weight(batch: &StoredBatch) -> usize {
    let records: usize = batch
        .records
        .iter()
        .map(|record| record.size() + RECORD_OVERHEAD)
        .sum();
    records + BATCH_OVERHEAD
}
