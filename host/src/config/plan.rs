//! What a validated pipeline file means: typed, complete, defaults filled in. Past this point nothing is a raw string.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cron::Schedule;
use super::grants::{Grant, HttpPlan};
use super::secret::StageConfig;
use crate::ids::{CronName, GroupName, PipelineName, QueueName, StageName, TableName, TopicName};

/// All pipelines a host is to run. The empty plan is what a host starts from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub pipelines: BTreeMap<PipelineName, PipelinePlan>,
}

impl Plan {
    /// A queue as the files declare it: alike in all of them.
    pub fn queue(&self, name: &QueueName) -> Option<&QueuePlan> {
        self.pipelines.values().find_map(|pipeline| pipeline.queues.get(name))
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct PipelinePlan {
    pub name: PipelineName,
    /// Where it was read from, for messages.
    pub file: PathBuf,
    pub topics: BTreeMap<TopicName, TopicPlan>,
    pub queues: BTreeMap<QueueName, QueuePlan>,
    pub stages: BTreeMap<StageName, StagePlan>,
    pub tests: Vec<StageTest>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct TopicPlan {
    pub name: TopicName,
    /// 1..=256. Fixed once the topic exists.
    pub partitions: u32,
    /// Span of one time partition, whole seconds, 1 s..=31 days.
    pub segment: Duration,
    /// How long rows stay in Postgres; None is for ever.
    pub hot: Option<Duration>,
    pub cold: Cold,
    pub hold: Hold,
    pub format: Format,
    pub acks: Acks,
    /// Declared fields, in file order: `[{"name": "id", "type": "string"}, {"name": "lat", "type": {"decimal": 5}}]`.
    pub schema: Option<serde_json::Value>,
    /// Order of rows in the archive: declared fields.
    pub sort: Vec<String>,
}

/// For whom rows stay in Postgres beyond `hot`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// A segment stays until these groups have read it. A group that never read the topic holds nothing.
    pub groups: Vec<GroupName>,
    /// Bytes of segments that are held at most, 1 MiB..=1 PiB; default 10 GiB. Beyond that the oldest go.
    pub max_bytes: u64,
}

impl Default for Hold {
    fn default() -> Self {
        Self { groups: Vec::new(), max_bytes: 10 << 30 }
    }
}

/// What happens to a segment that leaves Postgres.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cold {
    /// Dropped unarchived.
    None,
    /// Archived and kept for ever.
    Forever,
    /// Archived and kept that long.
    For(Duration),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    Json,
    Bytes,
}

/// When an append is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Acks {
    /// After Postgres has flushed it to disk.
    Fsync,
    /// Before that: a crash of the machine or of Postgres may lose the last fraction of a second.
    Relaxed,
}

/// A queue of jobs.
#[derive(Clone, Debug, PartialEq)]
pub struct QueuePlan {
    pub name: QueueName,
    /// How long a worker may be silent before its jobs are given to another, 1 s..=24 h; default 30 s.
    pub lease: Duration,
    /// Runs of one job before it is dead, 1..=1000; default 10.
    pub max_attempts: u32,
    pub backoff: JobBackoff,
    /// Jobs running at once over all hosts, 1..=10,000; None is as many as are claimed.
    pub concurrency: Option<u32>,
    /// Jobs of one key running at once, 1..=1000; None is any number.
    pub per_key: Option<u32>,
    /// Jobs of one key run one at a time in the order in which they came, also over retries.
    pub ordered: bool,
    /// How long finished jobs and their results can be looked at, 0..=30 days; default 1 h.
    pub keep: Duration,
    /// Where each job that ended becomes a record.
    pub history: Option<TopicName>,
    pub crons: BTreeMap<CronName, CronPlan>,
}

/// How long a job that failed waits: doubled with each attempt, with a tenth of chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobBackoff {
    /// 10 ms..=24 h; default 1 s.
    pub first: Duration,
    /// 10 ms..=30 days, not below `first`; default 1 h.
    pub longest: Duration,
}

impl Default for JobBackoff {
    fn default() -> Self {
        Self { first: Duration::from_secs(1), longest: Duration::from_secs(3600) }
    }
}

/// A job that is put into its queue again and again.
#[derive(Clone, Debug, PartialEq)]
pub struct CronPlan {
    pub schedule: Schedule,
    pub payload: String,
    pub key: Option<String>,
    /// 1 (first) to 4; None: what the queue gives a job.
    pub priority: Option<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StageKind {
    Producer,
    Transform,
    Materializer,
    Sink,
    Worker,
}

impl fmt::Display for StageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Producer => "producer",
            Self::Transform => "transform",
            Self::Materializer => "materializer",
            Self::Sink => "sink",
            Self::Worker => "worker",
        })
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct StagePlan {
    pub name: StageName,
    pub kind: StageKind,
    pub plugin: PluginRef,
    pub config: StageConfig,
    pub limits: StageLimits,
    /// What its plugin may import beside the log.
    pub grants: BTreeSet<Grant>,
    /// There if and only if `http` is granted.
    pub http: Option<HttpPlan>,
    pub on_error: OnError,
    /// Deliveries of one message before `on_error` applies, 1..=100; default 5. Counts those that asked for a retry.
    pub max_attempts: u32,
    pub probation: Probation,
    /// None: it never stops.
    pub breaker: Option<Breaker>,
    pub batch: BatchLimits,
    /// What it reads; None for a producer and a worker.
    pub input: Option<Input>,
    /// What it works on. Workers only.
    pub jobs: Option<JobsPlan>,
    /// Output port -> topic or queue. `default` is the unnamed port. Empty for materializers and sinks.
    pub outputs: BTreeMap<String, Target>,
    /// Table in the plugin's descriptor -> table in Postgres. Materializers only.
    pub tables: BTreeMap<String, TableName>,
}

/// Which component a stage runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginRef {
    /// As written: a bare name is looked up in the plugin folders as `<name>.wasm`; anything with a `/` or ending in
    /// `.wasm` is a path relative to the pipeline file.
    pub name: String,
    /// That path, with the folder of the pipeline file in front; None for a bare name.
    pub path: Option<PathBuf>,
    /// Pins the bytes: lower-case hex SHA-256.
    pub sha256: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    pub topic: TopicName,
    pub group: GroupName,
    pub start: Start,
}

/// What a worker takes from its queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobsPlan {
    pub queue: QueueName,
    /// Calls at once on each host, each with an instance of its own, 1..=256; default 4.
    pub concurrency: u32,
    /// Jobs given to one call, 1..=1000; default 1.
    pub batch: u32,
}

/// Where what comes out of a port goes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    Topic(TopicName),
    /// Each emission becomes a job.
    Queue(QueueName),
}

impl Target {
    pub fn topic(&self) -> Option<&TopicName> {
        match self {
            Self::Topic(topic) => Some(topic),
            Self::Queue(_) => None,
        }
    }

    pub fn queue(&self) -> Option<&QueueName> {
        match self {
            Self::Topic(_) => None,
            Self::Queue(queue) => Some(queue),
        }
    }

    /// The name alone: a host has no topic and queue of one name.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Topic(topic) => topic.as_str(),
            Self::Queue(queue) => queue.as_str(),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a group that does not exist yet begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    Earliest,
    Latest,
}

/// What one instance of a plugin may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageLimits {
    /// Bytes over all its memories and tables, 1 MiB..=4 GiB; default 64 MiB.
    pub memory: u64,
    /// Time one call may take, 1 ms..=10 min; default 2 s.
    pub deadline: Duration,
    /// Records one call may put out, 1..=1,000,000; default 100,000.
    pub output_records: u32,
    /// Bytes one call may put out, 1 KiB..=1 GiB; default 32 MiB. Also what it may write into its state.
    pub output_bytes: u64,
    /// Handles it may hold, 16..=10,000; default 1,000.
    pub handles: u32,
    /// Instances of the stage alive at a time in one host, 1..=512; default 512.
    pub instances: u32,
    /// Log lines taken in a second, 0..=10,000; default 100.
    pub log_lines: u32,
    /// Bytes of the state of one partition, 1 KiB..=64 GiB; default 64 MiB.
    pub state: u64,
    /// Bytes of one value in it, 1 KiB..=16 MiB; default 1 MiB.
    pub state_value: u64,
}

impl Default for StageLimits {
    fn default() -> Self {
        Self {
            memory: 64 << 20,
            deadline: Duration::from_secs(2),
            output_records: 100_000,
            output_bytes: 32 << 20,
            handles: 1_000,
            instances: 512,
            log_lines: 100,
            state: 64 << 20,
            state_value: 1 << 20,
        }
    }
}

/// How much one call gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Messages, 1..=10,000; default 1,000.
    pub records: u32,
    /// Payload bytes (a single larger message still goes through alone), 1 KiB..=16 MiB; default 1 MiB.
    pub bytes: u64,
    /// How long to wait for a fuller batch once there is something, 0..=10 s; default 0.
    pub linger: Duration,
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self { records: 1_000, bytes: 1 << 20, linger: Duration::ZERO }
    }
}

/// What a new version of a running stage's plugin has to show before the one before it is let go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Probation {
    /// Batches that it processes without a failure, 0..=10,000; default 20.
    pub batches: u32,
    /// How long it runs at least, 0..=1 h; default 10 s.
    pub time: Duration,
    /// Share of its messages that it may refuse beyond what the version before refuses, 0..=1; default 0.01.
    pub errors: f64,
}

impl Probation {
    /// Whether a new version is simply believed.
    pub fn is_off(&self) -> bool {
        self.batches == 0 && self.time.is_zero()
    }
}

impl Default for Probation {
    fn default() -> Self {
        Self { batches: 20, time: Duration::from_secs(10), errors: 0.01 }
    }
}

/// When a partition stops taking batches for a while, since its plugin fails on most messages.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Breaker {
    /// Messages given up on within the window that open it, 1..=10,000; default 20.
    pub failures: u32,
    /// 1 s..=1 h; default 60 s.
    pub window: Duration,
    /// They must be more than this share of the messages in the window, 0..=1; default 0.5.
    pub share: f64,
    /// How long it is open at first, 10 ms..=1 h; doubled each time. Default 1 s.
    pub wait: Duration,
    /// And at most, 10 ms..=1 day; default 5 min.
    pub longest: Duration,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            failures: 20,
            window: Duration::from_secs(60),
            share: 0.5,
            wait: Duration::from_secs(1),
            longest: Duration::from_secs(300),
        }
    }
}

/// What happens to a message that its stage refuses, or that makes its plugin fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnError {
    /// It is written to the dead letters, whole, and the stage goes on. The default.
    DeadLetter,
    /// The stage stops before it.
    Stop,
    /// It is counted and forgotten.
    Skip,
}

/// One `[[tests]]` entry: a stage's plugin on given input, without Postgres.
#[derive(Clone, Debug, PartialEq)]
pub struct StageTest {
    pub name: String,
    pub stage: StageName,
    /// Payloads; for a producer empty.
    pub input: Vec<String>,
    pub expect: Expectation,
}

/// What a test wants; None is not looked at.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Expectation {
    /// What comes out, in order, over all ports.
    pub emissions: Option<Vec<ExpectedEmission>>,
    /// How many messages are refused.
    pub rejects: Option<u32>,
    /// Rows by table of the plugin after the batch, as JSON objects that must match in the columns they name.
    pub rows: Option<BTreeMap<String, Vec<serde_json::Value>>>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ExpectedEmission {
    /// None matches any port.
    pub port: Option<String>,
    pub payload: ExpectedPayload,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ExpectedPayload {
    Any,
    /// JSON is compared as JSON, anything else as text.
    Exactly(String),
    /// A JSON object that has at least these fields.
    Fields(serde_json::Map<String, serde_json::Value>),
}
