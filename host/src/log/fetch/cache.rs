//! Recently read batches, bounded in bytes, the least recently used dropped first; and a slot per partition, so that one
//! range is read once.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Mutex as AsyncMutex, MutexGuard as AsyncMutexGuard};

use crate::ids::{LogEpoch, Offset, Partition, Place, TopicId, TopicPartition};
use crate::record::{Record, StoredBatch};

use super::FetchLimits;

/// What a record takes beside its bytes.
const RECORD_OVERHEAD: usize = size_of::<Record>();
/// What a batch takes beside its records, roughly.
const BATCH_OVERHEAD: usize = 256;
/// Partitions and topics that are remembered while nobody reads them.
const REMEMBERED: usize = 1024;

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
    ends: HashMap<TopicId, Arc<Ends>>,
}

struct Entry {
    batch: StoredBatch,
    bytes: usize,
    last_use: u64,
}

/// The right to read one partition from Postgres; one reader at a time has it.
pub(super) type Slot = Arc<AsyncMutex<()>>;

/// What is known of the ends of one topic.
#[derive(Default)]
pub(super) struct Ends {
    tickets: AtomicU64,
    known: AsyncMutex<KnownEnds>,
}

/// The next offset of each partition, as of a query that began at a ticket.
#[derive(Default)]
pub(super) struct KnownEnds {
    pub(super) began: u64,
    pub(super) next: HashMap<Partition, Offset>,
}

impl Ends {
    /// A point in time, for comparison; later ones are higher, all are above 0.
    pub(super) fn ticket(&self) -> u64 {
        self.tickets.fetch_add(1, SeqCst) + 1
    }

    pub(super) async fn lock(&self) -> AsyncMutexGuard<'_, KnownEnds> {
        self.known.lock().await
    }
}

impl BatchCache {
    pub(in crate::log) fn new(capacity: usize) -> Self {
        Self { capacity, inner: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn slot(&self, target: TopicPartition) -> Slot {
        held(&mut self.lock().slots, target)
    }

    pub(super) fn ends(&self, topic: TopicId) -> Arc<Ends> {
        held(&mut self.lock().ends, topic)
    }

    /// The batches from the one that holds a place on, without a gap, within the limits. None of an earlier epoch than the
    /// place is of: they are dropped, since another server has taken over since.
    pub(super) fn take(
        &self,
        target: TopicPartition,
        from: impl Into<Place>,
        limits: FetchLimits,
    ) -> Vec<StoredBatch> {
        let Place { offset: from, epoch } = from.into();
        let mut inner = self.lock();
        let inner = &mut *inner;
        let mut taken: Vec<StoredBatch> = Vec::new();
        if epoch > inner.epoch(target) {
            inner.forget(target);
        }
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
        let epoch = batches.first().and_then(|batch| batch.log_epoch);
        match epoch.cmp(&inner.epoch(target)) {
            // A read that took long, of the server before.
            Ordering::Less => return,
            Ordering::Greater => inner.forget(target),
            Ordering::Equal => {}
        }
        for batch in batches {
            let bytes = weight(batch);
            if bytes > self.capacity {
                continue;
            }
            let last_use = inner.next_use;
            inner.next_use += 1;
            inner.uses.insert(last_use, (target, batch.base_offset));
            inner.bytes += bytes;
            let entry = Entry { batch: batch.clone(), bytes, last_use };
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

    /// Drops all that is kept.
    pub(in crate::log) fn clear(&self) {
        let mut inner = self.lock();
        inner.partitions.clear();
        inner.uses.clear();
        inner.bytes = 0;
    }

    #[cfg(test)]
    fn bytes(&self) -> usize {
        self.lock().bytes
    }
}

impl Inner {
    /// Of the batches that are kept, which all have the same.
    fn epoch(&self, target: TopicPartition) -> Option<LogEpoch> {
        self.partitions.get(&target)?.values().next()?.batch.log_epoch
    }

    fn forget(&mut self, target: TopicPartition) {
        for entry in self.partitions.remove(&target).into_iter().flat_map(BTreeMap::into_values) {
            self.uses.remove(&entry.last_use);
            self.bytes -= entry.bytes;
        }
    }
}

/// What the map holds for a key. A map that has grown large forgets what nobody else holds.
fn held<K: Copy + Eq + Hash, V: Default>(map: &mut HashMap<K, Arc<V>>, key: K) -> Arc<V> {
    if map.len() >= REMEMBERED && !map.contains_key(&key) {
        map.retain(|_, value| Arc::strong_count(value) > 1);
    }
    map.entry(key).or_default().clone()
}

/// Bytes of memory, roughly.
fn weight(batch: &StoredBatch) -> usize {
    let records: usize = batch.records.iter().map(|record| record.size() + RECORD_OVERHEAD).sum();
    records + BATCH_OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: FetchLimits = FetchLimits { records: 1_000, bytes: 1 << 30 };

    fn target(partition: Partition) -> TopicPartition {
        TopicPartition { topic: TopicId(1), partition }
    }

    fn batch(base_offset: Offset, count: usize) -> StoredBatch {
        let record = |n| Record {
            partition: 0,
            offset: base_offset + n as Offset,
            timestamp: 0,
            key: None,
            headers: Vec::new(),
            payload: vec![0; 100].into(),
        };
        let records = (0..count).map(record).collect();
        StoredBatch { partition: 0, base_offset, appended_at: 0, log_epoch: Some(LogEpoch(1)), records }
    }

    fn bases(taken: &[StoredBatch]) -> Vec<Offset> {
        taken.iter().map(|batch| batch.base_offset).collect()
    }

    #[test]
    fn a_run_without_gaps_is_given_within_the_limits() {
        let cache = BatchCache::new(1 << 20);
        cache.put(target(0), &[batch(10, 5), batch(15, 5), batch(20, 5), batch(30, 5)]);
        assert_eq!(bases(&cache.take(target(0), 12, LIMITS)), [10, 15, 20]);
        assert_eq!(bases(&cache.take(target(0), 30, LIMITS)), [30]);
        let ten = FetchLimits { records: 10, ..LIMITS };
        assert_eq!(bases(&cache.take(target(0), 12, ten)), [10, 15]);
        let none = FetchLimits { records: 0, bytes: 0 };
        assert_eq!(bases(&cache.take(target(0), 12, none)), [10]);
        for missing in [0, 9, 25, 29, 35] {
            assert!(cache.take(target(0), missing, LIMITS).is_empty(), "{missing}");
        }
        assert!(cache.take(target(1), 12, LIMITS).is_empty());
    }

    #[test]
    fn what_was_used_last_stays_and_the_bound_holds() {
        let one = weight(&batch(0, 10));
        let cache = BatchCache::new(one * 3);
        for n in 0..3 {
            cache.put(target(n), &[batch(0, 10)]);
        }
        cache.take(target(0), 0, LIMITS);
        cache.put(target(3), &[batch(0, 10)]);
        let kept: Vec<_> = (0..4).filter(|n| !cache.take(target(*n), 0, LIMITS).is_empty()).collect();
        assert_eq!(kept, [0, 2, 3]);
        for n in 0..100 {
            cache.put(target(n % 7), &[batch(u64::from(n) * 10, 10), batch(u64::from(n) * 10, 10)]);
            assert!(cache.bytes() <= one * 3);
        }
        cache.put(target(9), &[batch(0, 1000)]);
        assert!(cache.take(target(9), 0, LIMITS).is_empty(), "larger than the cache");
    }

    #[test]
    fn nothing_of_an_earlier_epoch_is_given_or_kept() {
        let cache = BatchCache::new(1 << 20);
        let under = |offset, epoch| Place { offset, epoch: Some(LogEpoch(epoch)) };
        let of = |epoch| StoredBatch { log_epoch: Some(LogEpoch(epoch)), ..batch(10, 5) };
        cache.put(target(0), &[of(1)]);
        cache.put(target(1), &[of(1)]);
        assert_eq!(bases(&cache.take(target(0), under(10, 1), LIMITS)), [10]);
        assert!(cache.take(target(0), under(10, 2), LIMITS).is_empty());
        assert!(cache.take(target(0), 10, LIMITS).is_empty(), "it is gone for everybody");
        cache.put(target(0), &[of(2)]);
        cache.put(target(0), &[of(1)]);
        let taken = cache.take(target(0), under(10, 1), LIMITS);
        assert_eq!(taken[0].log_epoch, Some(LogEpoch(2)), "a late read of the server before is not kept");
        assert_eq!(cache.bytes(), 2 * weight(&batch(10, 5)));
        cache.clear();
        assert_eq!(cache.bytes(), 0);
        assert!(cache.take(target(1), 10, LIMITS).is_empty());
    }

    #[test]
    fn what_nobody_holds_is_forgotten_before_it_is_much() {
        let cache = BatchCache::new(1);
        let kept = cache.ends(TopicId(-1));
        let ticket = kept.ticket();
        for topic in 0..5_000 {
            cache.ends(TopicId(topic));
            assert!(cache.lock().ends.len() <= REMEMBERED);
        }
        assert!(cache.ends(TopicId(-1)).ticket() > ticket && ticket > 0, "the same one");
    }
}
