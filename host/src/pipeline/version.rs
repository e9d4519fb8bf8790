//! One version of a stage's code: what a batch runs with, from its first call to the commit that names its digest.
//!
//! A stage has one current version, and its tasks look at it between two batches. A version on probation has a [`Probation`]:
//! the version before stays loaded, judges what the new one refuses, and takes over when the new one fails.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::config::plan::Probation as Rules;
use crate::plugin::{Instance, Plugin};
use crate::registry::Active;
use crate::tables::Table;

/// A component that was checked against its stage, under the decision that made it the one to run.
pub struct Version {
    pub plugin: Plugin,
    /// As its descriptor says.
    pub version: String,
    /// What its outputs are labelled with (`tidemill.origins`).
    pub origin: i32,
    /// Table in the descriptor -> table in Postgres.
    pub tables: BTreeMap<String, Arc<Table>>,
    pub active: Active,
    probation: Mutex<Option<Arc<Probation>>>,
    /// The instance it was tried with: the first task that asks gets it.
    spare: Mutex<Option<Instance>>,
}

/// Parts of a version that do not depend on the decision to run it.
#[derive(Clone)]
pub struct Code {
    pub plugin: Plugin,
    pub version: String,
    pub origin: i32,
    pub tables: BTreeMap<String, Arc<Table>>,
}

impl std::fmt::Debug for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Version")
            .field("digest", &self.active.digest)
            .field("epoch", &self.active.epoch)
            .finish_non_exhaustive()
    }
}

impl Version {
    pub fn new(
        code: Code,
        active: Active,
        probation: Option<Probation>,
        spare: Option<Instance>,
    ) -> Arc<Self> {
        Arc::new(Self {
            plugin: code.plugin,
            version: code.version,
            origin: code.origin,
            tables: code.tables,
            active,
            probation: Mutex::new(probation.map(Arc::new)),
            spare: Mutex::new(spare),
        })
    }

    /// What another decision can run again.
    pub fn code(&self) -> Code {
        Code {
            plugin: self.plugin.clone(),
            version: self.version.clone(),
            origin: self.origin,
            tables: self.tables.clone(),
        }
    }

    pub fn digest(&self) -> &str {
        self.plugin.digest().as_str()
    }

    /// Its probation, unless that is over.
    pub fn probation(&self) -> Option<Arc<Probation>> {
        self.probation.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Believes it from now on, and lets the version before go.
    pub fn end_probation(&self) {
        self.probation.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    pub fn take_spare(&self) -> Option<Instance> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The probation of a version on this host, over all its tasks.
#[derive(Debug)]
pub struct Probation {
    /// What takes over.
    pub elder: Arc<Version>,
    pub count: Count,
}

/// What a version on probation has shown so far.
#[derive(Debug)]
pub struct Count {
    rules: Rules,
    since: Instant,
    batches: AtomicU32,
    messages: AtomicU64,
    /// Messages that it refused and the elder did not.
    refused: AtomicU64,
    decided: AtomicBool,
}

impl Probation {
    pub fn new(elder: Arc<Version>, rules: Rules, now: Instant) -> Self {
        Self { elder, count: Count::new(rules, now) }
    }
}

impl Count {
    fn new(rules: Rules, now: Instant) -> Self {
        Self {
            rules,
            since: now,
            batches: AtomicU32::new(0),
            messages: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            decided: AtomicBool::new(false),
        }
    }

    /// Counts messages of which the new version refused some that the old one takes. Gives the reason to go back when
    /// these are too many.
    pub fn weigh(&self, messages: usize, refused: usize) -> Option<String> {
        let messages = self.messages.fetch_add(messages as u64, Ordering::Relaxed) + messages as u64;
        let refused = self.refused.fetch_add(refused as u64, Ordering::Relaxed) + refused as u64;
        let allowed = self.rules.errors * messages as f64;
        (refused as f64 > allowed).then(|| {
            format!(
                "it refused {refused} of {messages} messages that the version before takes; allowed are {:.2} %",
                self.rules.errors * 100.0
            )
        })
    }

    /// Counts a batch that was committed, with those of its messages that were not [weighed](Self::weigh). True, once,
    /// when the probation is over.
    pub fn passes(&self, messages: usize, now: Instant) -> bool {
        self.messages.fetch_add(messages as u64, Ordering::Relaxed);
        let batches = self.batches.fetch_add(1, Ordering::Relaxed) + 1;
        let lasted = now.saturating_duration_since(self.since);
        batches >= self.rules.batches
            && lasted >= self.rules.time
            && !self.decided.swap(true, Ordering::Relaxed)
    }

    /// The decision could not be written down: the next batch asks again.
    pub fn undecided(&self) {
        self.decided.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn rules() -> Rules {
        Rules { batches: 3, time: Duration::from_secs(10), errors: 0.1 }
    }

    #[test]
    fn a_probation_ends_once_after_its_batches_and_its_time() {
        let start = Instant::now();
        let count = Count::new(rules(), start);
        let after = |seconds| start + Duration::from_secs(seconds);
        assert!((0..5).all(|_| !count.passes(1, after(9))));
        assert!(count.passes(1, after(10)));
        assert!(!count.passes(1, after(11)));
        count.undecided();
        assert!(count.passes(1, after(12)));

        let idle = Count::new(rules(), start);
        assert!(!idle.passes(1, after(60)), "time alone proves nothing");
    }

    #[test]
    fn refusals_beyond_the_share_end_it() {
        let count = Count::new(rules(), Instant::now());
        count.passes(90, Instant::now());
        assert_eq!(count.weigh(10, 10), None);
        let reason = count.weigh(10, 2);
        assert!(reason.as_ref().is_some_and(|it| it.starts_with("it refused 12 of 110")), "{reason:?}");
    }
}
