//! What one stage gives its plugin, and whether that is what the plugin needs.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

pub use crate::config::grants::Grant;

use super::error::CallError;
use super::http::HttpClient;

const PACKAGE: &str = "tidemill:plugin/";

/// Names of a stage's own metrics that are taken.
const MAX_METRICS: usize = 32;

/// What a stage grants, with what is behind it. The default is nothing.
#[derive(Clone, Default)]
pub struct Grants {
    granted: BTreeSet<Grant>,
    http: Option<HttpClient>,
    meter: Arc<Meter>,
    live: Arc<AtomicU32>,
}

/// A place among the instances of a stage, given back when dropped.
pub(super) struct Place(Arc<AtomicU32>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Grants {
    /// `http` is what the grant of that name leads to; None refuses every request.
    pub fn new(granted: impl IntoIterator<Item = Grant>, http: Option<HttpClient>) -> Self {
        Self { granted: granted.into_iter().collect(), http, ..Self::default() }
    }

    pub fn has(&self, grant: Grant) -> bool {
        self.granted.contains(&grant)
    }

    /// The same without anything that reaches out of the process, for tests of pipelines.
    #[must_use]
    pub fn offline(&self) -> Self {
        Self { http: None, ..self.clone() }
    }

    /// What is needed and not granted, in the order of names.
    pub fn missing(&self, needed: &BTreeSet<Grant>) -> Vec<Grant> {
        needed.difference(&self.granted).copied().collect()
    }

    /// Instances alive now, over all plugins that were given these grants.
    pub fn live_instances(&self) -> u32 {
        self.live.load(Ordering::Relaxed)
    }

    pub(super) fn admit(&self, limit: u32) -> Result<Place, CallError> {
        let taken = self
            .live
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |live| (live < limit).then_some(live + 1));
        taken.map(|_| Place(Arc::clone(&self.live))).map_err(|_| CallError::StageFull { limit })
    }

    pub(super) fn http(&self) -> Option<&HttpClient> {
        self.http.as_ref().filter(|_| self.has(Grant::Http))
    }

    pub(super) fn meter(&self) -> &Meter {
        &self.meter
    }
}

impl std::fmt::Debug for Grants {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(&self.granted).finish()
    }
}

/// The grant that an import needs; None if it is none of those that are granted.
pub(super) fn needed_for(import: &str) -> Option<Grant> {
    let (name, version) = import.strip_prefix(PACKAGE)?.split_once('@')?;
    let known = Grant::ALL.into_iter().find(|grant| grant.as_str() == name);
    known.filter(|_| version.starts_with("0.1."))
}

/// Two or more of them in a sentence.
pub(super) fn list(grants: &[Grant]) -> String {
    grants.iter().map(|grant| format!("`{grant}`")).collect::<Vec<_>>().join(", ")
}

/// The metrics of a stage's own.
#[derive(Debug, Default)]
pub(super) struct Meter(Mutex<BTreeSet<String>>);

impl Meter {
    pub(super) fn add(&self, stage: &str, name: &str, amount: u64) {
        if self.admits(name) {
            let labels = [("stage", stage.to_owned()), ("name", name.to_owned())];
            metrics::counter!("tidemill_plugin_counter_total", &labels).increment(amount);
        }
    }

    pub(super) fn set(&self, stage: &str, name: &str, value: f64) {
        if self.admits(name) {
            let labels = [("stage", stage.to_owned()), ("name", name.to_owned())];
            metrics::gauge!("tidemill_plugin_gauge", &labels).set(value);
        }
    }

    fn admits(&self, name: &str) -> bool {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
            return false;
        }
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        names.contains(name) || (names.len() < MAX_METRICS && names.insert(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_import_needs_the_grant_of_its_name_and_version() {
        assert_eq!(needed_for("tidemill:plugin/state@0.1.0"), Some(Grant::State));
        assert_eq!(needed_for("tidemill:plugin/http@0.1.7"), Some(Grant::Http));
        assert_eq!(needed_for("tidemill:plugin/state@0.2.0"), None);
        assert_eq!(needed_for("tidemill:plugin/log@0.1.0"), None);
        assert_eq!(needed_for("wasi:http/outgoing-handler@0.2.0"), None);
    }

    #[test]
    fn what_is_missing_is_what_is_needed_and_not_granted() {
        let grants = Grants::new([Grant::Clock], None);
        let needed = BTreeSet::from([Grant::State, Grant::Clock, Grant::Http]);
        assert_eq!(grants.missing(&needed), [Grant::Http, Grant::State]);
        assert!(grants.missing(&BTreeSet::new()).is_empty());
    }

    #[test]
    fn a_plugin_gets_so_many_metrics_and_no_odd_names() {
        let meter = Meter::default();
        for i in 0..MAX_METRICS {
            assert!(meter.admits(&format!("n{i}")));
        }
        assert!(meter.admits("n0") && !meter.admits("one_more"));
        assert!(!meter.admits("") && !meter.admits("Upper") && !meter.admits("a{b}"));
    }
}
