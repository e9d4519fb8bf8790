//! What stages tell about themselves: counters that tasks raise, states, and the listing made of them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::Serialize;

pub mod jobs;

use jobs::{JobCounts, JobStatus};

use super::version::Version;
use crate::clock::rfc3339;
use crate::config::plan::{StageKind, StagePlan, Target};
use crate::ids::{Micros, Partition, PipelineName};
use crate::plugin::Instance;
use crate::registry::{Source, Standing};

/// Rates are averages over this many seconds.
pub const RATE_WINDOW: usize = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Stopped,
    /// Has nothing to do: another host holds its partitions, or it is caught up.
    Idle,
    Running,
    Starting,
    /// Waits after a failure, then tries again.
    Backoff,
    /// Its plugin fails on most messages: it takes none for a while.
    Broken,
    /// Stays stopped until it is reloaded.
    Failed,
}

/// The live numbers of one stage. Tasks hold it and raise the counters.
#[derive(Debug)]
pub struct StageCell {
    pub pipeline: PipelineName,
    pub plan: StagePlan,
    pub records_in: AtomicU64,
    pub records_out: AtomicU64,
    pub refused: AtomicU64,
    pub restarts: AtomicU64,
    pub dropped_log_lines: AtomicU64,
    /// Of a worker.
    pub jobs: JobCounts,
    /// Calls that failed, by kind.
    failures: Mutex<BTreeMap<&'static str, u64>>,
    /// What the instance of each partition holds and has dropped, as of its last call.
    instances: Mutex<BTreeMap<Partition, Usage>>,
    wanted: Mutex<Wanted>,
    tasks: Mutex<BTreeMap<Partition, Task>>,
    samples: Mutex<VecDeque<(Instant, u64, u64)>>,
}

/// What the stage is to run, and what was not taken.
#[derive(Debug, Default)]
struct Wanted {
    version: String,
    digest: String,
    deployment: Option<Deployment>,
    candidate: Option<Candidate>,
}

/// A task as it shows itself.
#[derive(Debug)]
struct Task {
    state: State,
    reason: Option<String>,
    digest: Option<String>,
}

/// Since when, why and how firmly a version runs.
#[derive(Clone, Debug, Serialize)]
pub struct Deployment {
    pub epoch: i64,
    pub source: Source,
    pub state: Standing,
    /// What takes over if it fails its probation.
    pub previous: Option<String>,
    /// Why the version before was rolled back.
    pub reason: Option<String>,
    pub since: String,
    pub by: String,
}

/// A component that was not taken: what runs goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Candidate {
    /// None where the file cannot be read.
    pub digest: Option<String>,
    /// The file, or what else it came from.
    pub from: String,
    pub error: String,
    pub at: String,
}

/// Why the pipeline files as they are do not run: what ran before runs on.
#[derive(Clone, Debug, Serialize)]
pub struct FilesError {
    pub error: String,
    pub at: String,
}

impl Candidate {
    pub fn new(digest: Option<String>, from: String, error: String, at: Micros) -> Self {
        Self { digest, from, error, at: rfc3339(at) }
    }
}

impl StageCell {
    pub fn new(pipeline: PipelineName, plan: StagePlan) -> Arc<Self> {
        Arc::new(Self {
            pipeline,
            plan,
            wanted: Mutex::default(),
            records_in: AtomicU64::new(0),
            records_out: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            restarts: AtomicU64::new(0),
            dropped_log_lines: AtomicU64::new(0),
            jobs: JobCounts::default(),
            failures: Mutex::default(),
            instances: Mutex::default(),
            tasks: Mutex::default(),
            samples: Mutex::default(),
        })
    }

    /// `pipeline/stage`.
    pub fn label(&self) -> String {
        format!("{}/{}", self.pipeline, self.plan.name)
    }

    pub fn set(&self, partition: Partition, state: State, reason: Option<String>) {
        let mut tasks = lock(&self.tasks);
        // What another host runs of this partition is not known here.
        let digest = tasks.remove(&partition).and_then(|task| task.digest).filter(|_| state != State::Idle);
        tasks.insert(partition, Task { state, reason, digest });
    }

    /// Says what a task really runs.
    pub fn runs(&self, partition: Partition, digest: &str) {
        if let Some(task) = lock(&self.tasks).get_mut(&partition) {
            task.digest = Some(digest.to_string());
        }
    }

    /// Says what all tasks are to run.
    pub fn wants(&self, version: &Version) {
        let active = &version.active;
        let mut wanted = lock(&self.wanted);
        self.mark(&wanted.digest, 0.0);
        self.mark(version.digest(), 1.0);
        wanted.version = version.version.clone();
        wanted.digest = version.digest().to_string();
        wanted.deployment = Some(Deployment {
            epoch: active.epoch,
            source: active.source,
            state: active.state,
            previous: active.previous.clone(),
            reason: active.reason.clone(),
            since: rfc3339(active.changed_at),
            by: active.changed_by.clone(),
        });
        if wanted.candidate.as_ref().is_some_and(|it| it.digest.as_deref() == Some(version.digest())) {
            wanted.candidate = None;
        }
    }

    /// A gauge that is 1 for the digest that runs.
    fn mark(&self, digest: &str, value: f64) {
        if !digest.is_empty() {
            metrics::gauge!(
                "tidemill_stage_plugin",
                "pipeline" => self.pipeline.to_string(),
                "stage" => self.plan.name.to_string(),
                "digest" => digest.to_string()
            )
            .set(value);
        }
    }

    /// Counts a change of version.
    pub fn count_plugin(&self, name: &'static str) {
        let labels = [("pipeline", self.pipeline.to_string()), ("stage", self.plan.name.to_string())];
        metrics::counter!(name, &labels).increment(1);
    }

    /// The version under this epoch has passed its probation.
    pub fn proven(&self, epoch: i64) {
        if let Some(deployment) = &mut lock(&self.wanted).deployment
            && deployment.epoch == epoch
        {
            deployment.state = Standing::Stable;
        }
    }

    /// Shows a component that was not taken, or none. True if that is news.
    pub fn refuse(&self, candidate: Option<Candidate>) -> bool {
        let mut wanted = lock(&self.wanted);
        let known = match (&wanted.candidate, &candidate) {
            (Some(old), Some(new)) => old.digest == new.digest && old.error == new.error,
            (old, new) => old.is_none() && new.is_none(),
        };
        if !known {
            wanted.candidate = candidate;
        }
        !known
    }

    /// Counts what one commit did.
    pub fn count(&self, records_in: usize, records_out: usize, refused: usize) {
        self.records_in.fetch_add(records_in as u64, Ordering::Relaxed);
        self.records_out.fetch_add(records_out as u64, Ordering::Relaxed);
        self.refused.fetch_add(refused as u64, Ordering::Relaxed);
        let labels = [("pipeline", self.pipeline.to_string()), ("stage", self.plan.name.to_string())];
        metrics::counter!("tidemill_stage_records_in_total", &labels).increment(records_in as u64);
        metrics::counter!("tidemill_stage_records_out_total", &labels).increment(records_out as u64);
        metrics::counter!("tidemill_stage_refused_total", &labels).increment(refused as u64);
        metrics::counter!("tidemill_stage_commits_total", &labels).increment(1);
    }

    pub fn candidate(&self) -> Option<Candidate> {
        lock(&self.wanted).candidate.clone()
    }

    /// Counts a call that failed.
    pub fn failed(&self, kind: &'static str) {
        *lock(&self.failures).entry(kind).or_default() += 1;
        let labels = [
            ("pipeline", self.pipeline.to_string()),
            ("stage", self.plan.name.to_string()),
            ("kind", kind.to_string()),
        ];
        metrics::counter!("tidemill_stage_failures_total", &labels).increment(1);
    }

    /// Counts a breaker that opens.
    pub fn broke(&self) {
        let labels = [("pipeline", self.pipeline.to_string()), ("stage", self.plan.name.to_string())];
        metrics::counter!("tidemill_stage_breaker_opened_total", &labels).increment(1);
    }

    /// Notes what a partition's instance holds after a call; None if the call ended it.
    pub fn observe(&self, partition: Partition, instance: Option<&Instance>) {
        let mut instances = lock(&self.instances);
        let Some(instance) = instance else {
            instances.remove(&partition);
            return;
        };
        let (memory, dropped) = (instance.memory_used(), instance.dropped_log_lines());
        let before = instances.insert(partition, Usage { memory, dropped });
        // A new instance counts from zero.
        let known = before.map_or(0, |usage| usage.dropped).min(dropped);
        self.dropped_log_lines.fetch_add(dropped - known, Ordering::Relaxed);
    }

    /// Instances of this host, and what they hold.
    fn usage(&self) -> (usize, u64) {
        let instances = lock(&self.instances);
        (instances.len(), instances.values().map(|usage| usage.memory).sum())
    }

    /// Called once a second, for the rates and the gauges.
    pub fn sample(&self, now: Instant) {
        let labels = [("pipeline", self.pipeline.to_string()), ("stage", self.plan.name.to_string())];
        let (instances, memory) = self.usage();
        metrics::gauge!("tidemill_stage_instances", &labels).set(instances as f64);
        metrics::gauge!("tidemill_stage_memory_bytes", &labels).set(memory as f64);
        if self.plan.jobs.is_some() {
            metrics::gauge!("tidemill_jobs_running", &labels).set(self.jobs.running() as f64);
        }
        let broken = lock(&self.tasks).values().filter(|task| task.state == State::Broken).count();
        metrics::gauge!("tidemill_stage_breakers_open", &labels).set(broken as f64);
        let dropped = self.dropped_log_lines.load(Ordering::Relaxed);
        metrics::counter!("tidemill_stage_dropped_log_lines_total", &labels).absolute(dropped);
        let mut samples = lock(&self.samples);
        samples.push_back((
            now,
            self.records_in.load(Ordering::Relaxed),
            self.records_out.load(Ordering::Relaxed),
        ));
        while samples.len() > RATE_WINDOW + 1 {
            samples.pop_front();
        }
    }

    fn rates(&self) -> (f64, f64) {
        let samples = lock(&self.samples);
        match (samples.front(), samples.back()) {
            (Some(first), Some(last)) if last.0 > first.0 => {
                let seconds = (last.0 - first.0).as_secs_f64();
                let rate = |from: u64, to: u64| ((to - from) as f64 / seconds * 10.0).round() / 10.0;
                (rate(first.1, last.1), rate(first.2, last.2))
            }
            _ => (0.0, 0.0),
        }
    }

    pub fn status(&self) -> StageStatus {
        let tasks: Vec<TaskStatus> = lock(&self.tasks)
            .iter()
            .map(|(partition, task)| TaskStatus {
                partition: *partition,
                state: task.state,
                reason: task.reason.clone(),
                digest: task.digest.clone(),
            })
            .collect();
        let wanted = lock(&self.wanted);
        // The state that needs attention most stands for the stage.
        let worst = tasks.iter().max_by_key(|task| task.state);
        let (instances, memory_bytes) = self.usage();
        let (records_in_per_second, records_out_per_second) = self.rates();
        StageStatus {
            name: self.plan.name.to_string(),
            kind: self.plan.kind,
            plugin: self.plan.plugin.name.clone(),
            version: wanted.version.clone(),
            digest: wanted.digest.clone(),
            deployment: wanted.deployment.clone(),
            candidate: wanted.candidate.clone(),
            group: self.plan.input.as_ref().map(|input| input.group.to_string()),
            from: self.plan.input.as_ref().map(|input| input.topic.to_string()),
            queue: self.plan.jobs.as_ref().map(|jobs| jobs.queue.to_string()),
            to: ports(&self.plan, Target::topic),
            to_queues: ports(&self.plan, Target::queue),
            tables: self.plan.tables.values().map(ToString::to_string).collect(),
            jobs: self.plan.jobs.as_ref().map(|_| self.jobs.status()),
            state: worst.map_or(State::Starting, |task| task.state),
            reason: worst.and_then(|task| task.reason.clone()),
            restarts: self.restarts.load(Ordering::Relaxed),
            records_in: self.records_in.load(Ordering::Relaxed),
            records_out: self.records_out.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            failures: lock(&self.failures).clone(),
            instances,
            memory_bytes,
            dropped_log_lines: self.dropped_log_lines.load(Ordering::Relaxed),
            records_in_per_second,
            records_out_per_second,
            lag: None,
            tasks,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Usage {
    memory: u64,
    dropped: u64,
}

#[derive(Clone, Debug, Serialize)]
pub struct PipelineStatus {
    pub name: String,
    pub file: String,
    pub stages: Vec<StageStatus>,
}

#[derive(Clone, Debug, Serialize)]
pub struct StageStatus {
    pub name: String,
    pub kind: StageKind,
    pub plugin: String,
    pub version: String,
    /// What the stage is to run; each of its tasks says what it runs.
    pub digest: String,
    pub deployment: Option<Deployment>,
    /// The component that was not taken last.
    pub candidate: Option<Candidate>,
    pub group: Option<String>,
    pub from: Option<String>,
    /// Whose jobs it does.
    pub queue: Option<String>,
    /// Port -> topic.
    pub to: BTreeMap<String, String>,
    /// Port -> queue.
    pub to_queues: BTreeMap<String, String>,
    pub tables: Vec<String>,
    /// Of a worker.
    pub jobs: Option<JobStatus>,
    pub state: State,
    pub reason: Option<String>,
    pub restarts: u64,
    pub records_in: u64,
    pub records_out: u64,
    pub refused: u64,
    /// Calls that failed, by kind: trap, deadline, memory, output.
    pub failures: BTreeMap<&'static str, u64>,
    /// Of the plugin, in this host.
    pub instances: usize,
    /// What they hold.
    pub memory_bytes: u64,
    pub dropped_log_lines: u64,
    pub records_in_per_second: f64,
    pub records_out_per_second: f64,
    /// Filled in from the groups by whoever shows it.
    pub lag: Option<u64>,
    pub tasks: Vec<TaskStatus>,
}

#[derive(Clone, Debug, Serialize)]
pub struct TaskStatus {
    pub partition: Partition,
    pub state: State,
    pub reason: Option<String>,
    /// The component that it runs.
    pub digest: Option<String>,
}

/// The ports of one kind, each with what it leads to.
fn ports<'a, N: ToString + 'a>(
    plan: &'a StagePlan,
    kind: fn(&'a Target) -> Option<&'a N>,
) -> BTreeMap<String, String> {
    let ports = plan.outputs.iter();
    ports.filter_map(|(port, target)| Some((port.clone(), kind(target)?.to_string()))).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
