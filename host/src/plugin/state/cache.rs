//! What is known of committed entries, bounded in bytes. Two halves: when the young one is full it becomes the old one, and
//! what was not looked at since is forgotten with the half before it.

use std::collections::HashMap;

use super::Stored;

/// What an entry takes beside its bytes.
const OVERHEAD: usize = 128;

#[derive(Debug)]
pub(super) struct Cache {
    half: usize,
    young: HashMap<Vec<u8>, Option<Stored>>,
    young_bytes: usize,
    old: HashMap<Vec<u8>, Option<Stored>>,
}

impl Cache {
    pub(super) fn new(bytes: usize) -> Self {
        Self { half: bytes / 2, young: HashMap::new(), young_bytes: 0, old: HashMap::new() }
    }

    /// None: not known. `Some(None)`: known not to be there.
    pub(super) fn get(&mut self, key: &[u8]) -> Option<Option<Stored>> {
        if let Some(known) = self.young.get(key) {
            return Some(known.clone());
        }
        let (key, known) = self.old.remove_entry(key)?;
        self.put(key, known.clone());
        Some(known)
    }

    pub(super) fn put(&mut self, key: Vec<u8>, known: Option<Stored>) {
        self.old.remove(&key);
        let bytes = size(&key, &known);
        // A value that fills half of the cache would push out everything for itself.
        if bytes > self.half {
            if let Some((key, known)) = self.young.remove_entry(&key) {
                self.young_bytes -= size(&key, &known);
            }
            return;
        }
        let length = key.len();
        if let Some(before) = self.young.insert(key, known) {
            self.young_bytes -= OVERHEAD + length + before.map_or(0, |stored| stored.value.len());
        }
        self.young_bytes += bytes;
        if self.young_bytes > self.half {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
    }

    #[cfg(test)]
    fn bytes(&self) -> usize {
        self.young.iter().chain(&self.old).map(|(key, known)| size(key, known)).sum()
    }
}

fn size(key: &[u8], known: &Option<Stored>) -> usize {
    OVERHEAD + key.len() + known.as_ref().map_or(0, |stored| stored.value.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(length: usize) -> Option<Stored> {
        Some(Stored { value: vec![7; length].into(), expires_at: None })
    }

    #[test]
    fn the_bound_holds_and_what_is_used_stays() {
        let mut cache = Cache::new(100_000);
        cache.put(b"used".to_vec(), stored(10));
        for i in 0..10_000_u32 {
            cache.put(i.to_be_bytes().to_vec(), stored(i as usize % 300));
            assert_eq!(cache.get(b"used"), Some(stored(10)), "{i}");
            assert!(cache.bytes() <= 101_000, "{}", cache.bytes());
        }
        assert_eq!(cache.get(&0_u32.to_be_bytes()), None);
        assert_eq!(cache.get(&9_999_u32.to_be_bytes()), Some(stored(99)));
    }

    #[test]
    fn a_value_that_is_too_large_is_not_kept_and_leaves_no_old_one() {
        let mut cache = Cache::new(10_000);
        cache.put(b"k".to_vec(), stored(10));
        cache.put(b"k".to_vec(), stored(9_000));
        assert_eq!(cache.get(b"k"), None);
        assert_eq!(cache.bytes(), 0);
        assert_eq!(cache.young_bytes, 0);
    }
}
