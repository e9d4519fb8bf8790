//! What stages tell about themselves: counters that tasks raise, states, and the listing made of them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde::Serialize;

use crate::config::plan::{StageKind, StagePlan};
use crate::ids::{Partition, PipelineName};
use crate::plugin::Instance;

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
    /// Stays stopped until it is reloaded.
    Failed,
}

/// The live numbers of one stage. Tasks hold it and raise the counters.
#[derive(Debug)]
pub struct StageCell {
    pub pipeline: PipelineName,
    pub plan: StagePlan,
    pub version: String,
    pub digest: String,
    pub records_in: AtomicU64,
    pub records_out: AtomicU64,
    pub refused: AtomicU64,
    pub restarts: AtomicU64,
    pub dropped_log_lines: AtomicU64,
    /// Calls that failed, by kind.
    failures: Mutex<BTreeMap<&'static str, u64>>,
    /// What the instance of each partition holds and has dropped, as of its last call.
    instances: Mutex<BTreeMap<Partition, Usage>>,
    tasks: Mutex<BTreeMap<Partition, (State, Option<String>)>>,
    samples: Mutex<VecDeque<(Instant, u64, u64)>>,
}

impl StageCell {
    pub fn new(pipeline: PipelineName, plan: StagePlan, version: String, digest: String) -> Arc<Self> {
        Arc::new(Self {
            pipeline,
            plan,
            version,
            digest,
            records_in: AtomicU64::new(0),
            records_out: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            restarts: AtomicU64::new(0),
            dropped_log_lines: AtomicU64::new(0),
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
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.insert(partition, (state, reason));
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

    /// Counts a call that failed.
    pub fn failed(&self, kind: &'static str) {
        *self.failures.lock().unwrap_or_else(PoisonError::into_inner).entry(kind).or_default() += 1;
        let labels = [
            ("pipeline", self.pipeline.to_string()),
            ("stage", self.plan.name.to_string()),
            ("kind", kind.to_string()),
        ];
        metrics::counter!("tidemill_stage_failures_total", &labels).increment(1);
    }

    /// Notes what a partition's instance holds after a call; None if the call ended it.
    pub fn observe(&self, partition: Partition, instance: Option<&Instance>) {
        let mut instances = self.instances.lock().unwrap_or_else(PoisonError::into_inner);
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
        let instances = self.instances.lock().unwrap_or_else(PoisonError::into_inner);
        (instances.len(), instances.values().map(|usage| usage.memory).sum())
    }

    /// Called once a second, for the rates and the gauges.
    pub fn sample(&self, now: Instant) {
        let labels = [("pipeline", self.pipeline.to_string()), ("stage", self.plan.name.to_string())];
        let (instances, memory) = self.usage();
        metrics::gauge!("tidemill_stage_instances", &labels).set(instances as f64);
        metrics::gauge!("tidemill_stage_memory_bytes", &labels).set(memory as f64);
        let dropped = self.dropped_log_lines.load(Ordering::Relaxed);
        metrics::counter!("tidemill_stage_dropped_log_lines_total", &labels).absolute(dropped);
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
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
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
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
        let tasks: Vec<TaskStatus> = self
            .tasks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .map(|(partition, (state, reason))| TaskStatus {
                partition: *partition,
                state: *state,
                reason: reason.clone(),
            })
            .collect();
        // The state that needs attention most stands for the stage.
        let worst = tasks.iter().max_by_key(|task| task.state);
        let (instances, memory_bytes) = self.usage();
        let (records_in_per_second, records_out_per_second) = self.rates();
        StageStatus {
            name: self.plan.name.to_string(),
            kind: self.plan.kind,
            plugin: self.plan.plugin.name.clone(),
            version: self.version.clone(),
            digest: self.digest.clone(),
            group: self.plan.input.as_ref().map(|input| input.group.to_string()),
            from: self.plan.input.as_ref().map(|input| input.topic.to_string()),
            to: self.plan.outputs.iter().map(|(port, topic)| (port.clone(), topic.to_string())).collect(),
            tables: self.plan.tables.values().map(ToString::to_string).collect(),
            state: worst.map_or(State::Starting, |task| task.state),
            reason: worst.and_then(|task| task.reason.clone()),
            restarts: self.restarts.load(Ordering::Relaxed),
            records_in: self.records_in.load(Ordering::Relaxed),
            records_out: self.records_out.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            failures: self.failures.lock().unwrap_or_else(PoisonError::into_inner).clone(),
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
    pub digest: String,
    pub group: Option<String>,
    pub from: Option<String>,
    pub to: BTreeMap<String, String>,
    pub tables: Vec<String>,
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
}
