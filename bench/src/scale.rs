//! How much is measured.

use std::time::Duration;

/// Sizes of one run. The figures of `full` are what the README quotes; `quick` is for a look while something is changed;
/// `smoke` proves in seconds that everything works and measures nothing.
#[derive(Clone, Debug)]
pub struct Scale {
    pub name: &'static str,
    /// Times each variant is measured, interleaved with the others of its case.
    pub rounds: u32,
    /// How long writers write before and while they are measured.
    pub warm_up: Duration,
    pub writing: Duration,
    /// Records that one fetch reads through.
    pub fetched: usize,
    /// Batches of 1,000 records that go through a component.
    pub transformed: usize,
    /// Records of the segment that is archived.
    pub archived: usize,
    /// Archived records that are queried.
    pub queried: usize,
    /// Span of the segments that are archived: the records are appended within one and sealed when it is over.
    pub segment: Duration,
}

impl Scale {
    pub fn full() -> Self {
        Self {
            name: "full",
            rounds: 5,
            warm_up: Duration::from_millis(300),
            writing: Duration::from_secs(2),
            fetched: 500_000,
            transformed: 300,
            archived: 1_040_000,
            queried: 10_000_000,
            segment: Duration::from_secs(15),
        }
    }

    pub fn quick() -> Self {
        Self {
            name: "quick",
            rounds: 3,
            writing: Duration::from_secs(1),
            fetched: 200_000,
            transformed: 100,
            queried: 1_000_000,
            ..Self::full()
        }
    }

    pub fn smoke() -> Self {
        Self {
            name: "smoke",
            rounds: 1,
            warm_up: Duration::from_millis(20),
            writing: Duration::from_millis(100),
            fetched: 5_000,
            transformed: 3,
            archived: 5_000,
            queried: 5_000,
            segment: Duration::from_secs(2),
        }
    }
}
