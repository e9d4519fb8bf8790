//! What one instance may use.
//!
//! wasmtime's own limits hold for each memory and each table; a component may have many, so [`Ledger`] adds them up.

use std::time::Duration;

use wasmtime::ResourceLimiter;

/// Linear memories of one instance. A component is linked from several core modules, most of them without memory.
const MAX_MEMORIES: usize = 8;
/// Tables of one instance.
const MAX_TABLES: usize = 16;
/// Core module instances in one component instance. Guests that link shared libraries (Python) have one for each
/// library, some forty; the others have fewer than five.
const MAX_CORE_INSTANCES: usize = 64;
/// Bytes that one table element costs the host: a pointer.
const TABLE_ELEMENT_BYTES: u64 = size_of::<usize>() as u64;

/// The bounds of one instance and of each call into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all memories and tables of the instance together.
    pub memory: u64,
    /// Wall-clock time of one call, counted from when a guest thread takes it up.
    pub deadline: Duration,
    /// Records (emissions or row changes) that one call may return.
    pub output_records: u32,
    /// Bytes of keys, headers, payloads and values that one call may return.
    pub output_bytes: u64,
    /// Handles that the instance may hold, in the host's table and in its own.
    pub handles: u32,
    /// Instances of one stage alive at a time.
    pub instances: u32,
    /// Lines of the instance that reach the host's log in one second.
    pub log_lines: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: 64 << 20,
            deadline: Duration::from_secs(2),
            output_records: 100_000,
            output_bytes: 32 << 20,
            handles: 1_000,
            instances: 512,
            log_lines: 100,
        }
    }
}

/// Counts the memory of one store and refuses growth past the limit.
///
/// A refused growth is `-1` to the guest, which may well cope; only if the call then fails is the refusal its cause.
#[derive(Debug)]
pub(super) struct Ledger {
    limit: u64,
    used: u64,
    refused: bool,
}

impl Ledger {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, used: 0, refused: false }
    }

    /// Forgets refusals of earlier calls.
    pub(super) fn begin_call(&mut self) {
        self.refused = false;
    }

    /// Whether growth was refused since the call began.
    pub(super) fn refused(&self) -> bool {
        self.refused
    }

    pub(super) fn used(&self) -> u64 {
        self.used
    }

    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// Memories and tables never shrink, so growth is only ever added. Should the system refuse a growth that was
    /// allowed here, the sum stays too high, which errs on the safe side; taking it back on a failure report would
    /// let a guest lower the sum by failing on purpose.
    fn grow(&mut self, bytes: u64) -> bool {
        match self.used.checked_add(bytes) {
            Some(used) if used <= self.limit => {
                self.used = used;
                true
            }
            _ => {
                self.refused = true;
                false
            }
        }
    }
}

impl ResourceLimiter for Ledger {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        Ok(self.grow(desired.saturating_sub(current) as u64))
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let elements = desired.saturating_sub(current) as u64;
        Ok(self.grow(elements.saturating_mul(TABLE_ELEMENT_BYTES)))
    }

    fn instances(&self) -> usize {
        MAX_CORE_INSTANCES
    }

    fn tables(&self) -> usize {
        MAX_TABLES
    }

    fn memories(&self) -> usize {
        MAX_MEMORIES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memories_and_tables_share_one_limit() {
        let mut ledger = Ledger::new(1 << 20);
        assert!(ledger.memory_growing(0, 512 << 10, None).unwrap());
        assert!(ledger.memory_growing(0, 384 << 10, None).unwrap());
        assert!(ledger.table_growing(0, 16 << 10, None).unwrap());
        assert_eq!(ledger.used(), 1 << 20);
        assert!(!ledger.refused());
        assert!(!ledger.table_growing(16 << 10, (16 << 10) + 1, None).unwrap());
        assert!(ledger.refused());
        ledger.begin_call();
        assert!(!ledger.refused());
    }

    #[test]
    fn a_growth_past_its_own_maximum_is_refused_and_not_counted() {
        let mut ledger = Ledger::new(u64::MAX);
        assert!(!ledger.memory_growing(0, 3 << 16, Some(2 << 16)).unwrap());
        assert_eq!((ledger.used(), ledger.refused()), (0, false));
    }

    #[test]
    fn a_growth_beyond_all_numbers_is_refused() {
        let mut ledger = Ledger::new(u64::MAX);
        assert!(ledger.memory_growing(0, 1, None).unwrap());
        assert!(!ledger.memory_growing(0, usize::MAX, None).unwrap());
        assert!(!ledger.table_growing(0, usize::MAX, None).unwrap());
    }
}
