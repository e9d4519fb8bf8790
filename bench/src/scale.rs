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
    /// Jobs that are put before they are done one by one, and in batches; and the longest time that this may take.
    pub single_jobs: usize,
    pub batched_jobs: usize,
    pub burning: Duration,
    /// How long single jobs are put at a steady pace.
    pub pacing: Duration,
    /// How long a snapshot is held, and the jobs that are done before and at the end as fast as it goes.
    pub held: Duration,
    pub held_jobs: usize,
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
            single_jobs: 5_000,
            batched_jobs: 100_000,
            burning: Duration::from_secs(4),
            pacing: Duration::from_secs(5),
            held: Duration::from_secs(600),
            held_jobs: 20_000,
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
            single_jobs: 3_000,
            batched_jobs: 50_000,
            burning: Duration::from_secs(2),
            pacing: Duration::from_secs(3),
            held: Duration::from_secs(30),
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
            single_jobs: 100,
            batched_jobs: 2_000,
            burning: Duration::from_millis(500),
            pacing: Duration::from_millis(500),
            held: Duration::from_millis(500),
            held_jobs: 500,
        }
    }
}
