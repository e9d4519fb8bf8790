//! The pipeline file as it is written. The doc comments are what an editor shows: they go into the JSON Schema.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::grants::{Grant, Method};
use super::plan::{Acks, Format, OnError, Start};
use super::schema;

/// A Tidemill pipeline: topics, queues, the stages between them, and tests of the stages.
#[derive(JsonSchema)]
#[schemars(title = "Tidemill pipeline", deny_unknown_fields)]
#[allow(
    dead_code,
    reason = "sections are read one by one, so that one broken section hides no error in another"
)]
pub struct PipelineFile {
    pub pipeline: Head,
    /// Topics this pipeline needs. A topic that exists already is brought in line with what stands here.
    #[schemars(default)]
    pub topics: BTreeMap<String, Topic>,
    /// Queues of jobs. A queue that exists already is brought in line with what stands here.
    #[schemars(default)]
    pub queues: BTreeMap<String, Queue>,
    /// Stages that make records out of something that is not a topic.
    #[schemars(default, schema_with = "schema::producers")]
    pub producers: BTreeMap<String, Stage>,
    /// Stages that turn messages into messages.
    #[schemars(default, schema_with = "schema::transforms")]
    pub transforms: BTreeMap<String, Stage>,
    /// Stages that keep tables in Postgres, in the same commit as their offset.
    #[schemars(default, schema_with = "schema::materializers")]
    pub materializers: BTreeMap<String, Stage>,
    /// Stages that hand messages to something outside, at least once.
    #[schemars(default, schema_with = "schema::sinks")]
    pub sinks: BTreeMap<String, Stage>,
    /// Stages that do the jobs of a queue, each at least once; what it leads to is committed once.
    #[schemars(default, schema_with = "schema::workers")]
    pub workers: BTreeMap<String, Stage>,
    /// Run by `tidemill check`, without Postgres: a stage's plugin on given input.
    #[schemars(default)]
    pub tests: Vec<Test>,
}

/// What the pipeline is called: `[pipeline]`, and under it `name = "…"`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// Name of the pipeline, unique on the host: lower-case letters, digits, hyphens, underscores.
    #[schemars(example = &"aircraft")]
    pub name: String,
}

/// A topic: a partitioned log.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Topic {
    /// Number of partitions, 1 to 256. Fixed once the topic exists. Default 4.
    #[schemars(range(min = 1, max = 256), extend("default" = 4))]
    pub partitions: Option<u32>,
    /// Span of one time partition in Postgres, 1s to 31d in whole seconds. Default "1h".
    #[schemars(example = "1h", extend("default" = "1h"))]
    pub segment: Option<String>,
    /// How long messages are kept in Postgres and then in the bucket.
    #[serde(default)]
    pub retention: Retention,
    /// What a payload is. Default "json".
    pub format: Option<Format>,
    /// Fields of a JSON payload; they become typed columns of the archive.
    #[schemars(example = serde_json::json!({ "id": "string", "lat": { "decimal": 5 } }))]
    pub schema: Option<BTreeMap<String, FieldType>>,
    /// Order of rows in the archive: fields of `schema`.
    #[schemars(example = ["id", "ts"])]
    #[serde(default)]
    pub sort: Vec<String>,
    /// When an append is acknowledged. Default "fsync".
    pub acks: Option<Acks>,
}

/// How long messages are kept.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// In Postgres: a duration or "forever". Default "24h".
    #[schemars(example = "24h", extend("default" = "24h"))]
    pub hot: Option<String>,
    /// In the bucket, once they leave Postgres: a duration, "forever", or "none" for no archive. Default "forever".
    #[schemars(example = &"forever", extend("default" = "forever"))]
    pub cold: Option<String>,
    /// Consumer groups for which messages stay in Postgres beyond `hot`, until they have read them.
    #[schemars(example = ["reports"])]
    #[serde(default)]
    pub hold: Vec<String>,
    /// How much is held for them at most, 1MiB to 1PiB; beyond that the oldest goes. Default "10GiB".
    #[schemars(example = "10GiB", extend("default" = "10GiB"))]
    pub hold_max: Option<String>,
}

/// Type of a field: "string", "int", "float", "bool", "timestamp", "json", or { decimal = DIGITS }.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FieldType {
    /// Text.
    String,
    /// A whole number of 64 bits.
    Int,
    /// A binary floating-point number of 64 bits.
    Float,
    /// true or false.
    Bool,
    /// Microseconds since 1970 as a whole number, or text as in RFC 3339.
    Timestamp,
    /// Any JSON value.
    Json,
    /// A number with that many digits after the point, 0 to 18, stored exactly.
    Decimal(#[schemars(range(min = 0, max = 18))] u8),
}

/// A queue: jobs, each for one worker at a time until it is done.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Queue {
    /// How long a worker may be silent before its jobs are given to another, 1s to 24h. Default "30s".
    #[schemars(example = "30s", extend("default" = "30s"))]
    pub lease: Option<String>,
    /// Runs of one job before it is dead, 1 to 1000. Default 10.
    #[schemars(range(min = 1, max = 1000), extend("default" = 10))]
    pub max_attempts: Option<u32>,
    /// How long a job that failed waits for its next run.
    #[serde(default)]
    pub backoff: JobBackoff,
    /// Jobs running at once over all hosts, 1 to 10,000. Default: as many as workers take.
    #[schemars(range(min = 1, max = 10_000))]
    pub concurrency: Option<u32>,
    /// Jobs of one key running at once, 1 to 1000. Default: any number.
    #[schemars(range(min = 1, max = 1000))]
    pub per_key: Option<u32>,
    /// Whether jobs of one key run one at a time in the order in which they came, also over retries. Default false.
    #[serde(default)]
    pub ordered: bool,
    /// How long finished jobs and their results can be looked at, 0s to 30d. Default "1h".
    #[schemars(example = "1h", extend("default" = "1h"))]
    pub keep: Option<String>,
    /// A topic in which each job that ended becomes a record.
    #[schemars(example = &"report_jobs")]
    pub history: Option<String>,
    /// Jobs that are put into the queue again and again, by name.
    #[serde(default)]
    pub cron: BTreeMap<String, Cron>,
}

/// How long a job that failed waits: doubled with each attempt, and a tenth more or less by chance.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JobBackoff {
    /// After the first attempt, 10ms to 24h. Default "1s".
    #[schemars(example = "1s", extend("default" = "1s"))]
    pub first: Option<String>,
    /// At most, 10ms to 30d. Default "1h".
    #[schemars(example = "1h", extend("default" = "1h"))]
    pub longest: Option<String>,
}

/// A job that is put into its queue at each time of a schedule, once over all hosts.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cron {
    /// When, in UTC: minute, hour, day of month, month, day of week; or "@hourly", "@daily", "@weekly", "@monthly", "@yearly".
    #[schemars(example = "0 3 * * *")]
    pub schedule: String,
    /// What the job carries: text as it is, or a table that becomes a JSON object.
    #[schemars(example = serde_json::json!({ "kind": "nightly" }))]
    pub payload: Payload,
    /// Its key.
    pub key: Option<String>,
    /// 1 (first) to 4. Default 2.
    #[schemars(range(min = 1, max = 4), extend("default" = 2))]
    pub priority: Option<u8>,
}

/// A stage: one plugin between topics.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// The component: a name, looked up as NAME.wasm in the plugin folders, or a path relative to this file.
    #[schemars(example = "flight-watch", example = "./build/watch.wasm")]
    pub plugin: String,
    /// Pins the component's bytes: SHA-256, 64 lower-case hex digits.
    pub sha256: Option<String>,
    /// The topic it reads.
    #[schemars(example = &"positions")]
    pub from: Option<String>,
    /// The queue whose jobs it does.
    #[schemars(example = &"reports")]
    pub queue: Option<String>,
    /// Calls at once on each host, each with an instance of its own, 1 to 256. Default 4.
    #[schemars(range(min = 1, max = 256), extend("default" = 4))]
    pub concurrency: Option<u32>,
    /// Its consumer group. Default: the stage's name.
    pub group: Option<String>,
    /// Where a new group begins. Default "earliest".
    pub start: Option<Start>,
    /// The topic it writes, or a table of output port = topic, or port = { queue = "NAME" } for jobs.
    #[schemars(example = &"positions", example = serde_json::json!({ "default": "enriched", "jobs": { "queue": "reports" } }))]
    pub to: Option<Outputs>,
    /// Handed to the plugin, which says what it takes. Secrets: { env = "NAME" } or { file = "PATH" }.
    #[schemars(example = serde_json::json!({ "rate": 1000 }))]
    #[serde(default)]
    pub config: Map<String, Value>,
    /// Table of the plugin = table in Postgres.
    #[schemars(example = serde_json::json!({ "current_positions": "current_positions" }))]
    #[serde(default)]
    pub tables: BTreeMap<String, String>,
    /// What one instance of the plugin may use.
    #[serde(default)]
    pub limits: Limits,
    /// How much one call of the plugin gets.
    #[serde(default)]
    pub batch: Batch,
    /// What happens to a message that the plugin refuses or fails on. Default "dead-letter".
    pub on_error: Option<OnError>,
    /// Deliveries of one message before `on_error` applies, 1 to 100. Default 5.
    #[schemars(range(min = 1, max = 100), extend("default" = 5))]
    pub max_attempts: Option<u32>,
    /// What a new version of the plugin has to show, while the stage runs, before the version before is let go.
    #[serde(default)]
    pub probation: Probation,
    /// When a stage whose plugin fails on most of its messages stops taking batches for a while.
    #[serde(default)]
    pub breaker: Breaker,
    /// What the plugin may import beside its log. Default: nothing.
    #[schemars(example = ["state", "clock"])]
    #[serde(default)]
    pub grants: Vec<Grant>,
    /// Which requests the grant `http` covers.
    pub http: Option<Http>,
}

/// Where records go.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Outputs {
    /// A topic, for the port `default`.
    One(String),
    /// Output port = topic or { queue = "NAME" }.
    Ports(BTreeMap<String, Destination>),
}

/// Where what comes out of a port goes.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Destination {
    /// A topic.
    Topic(String),
    Queue(QueueRef),
}

/// A queue: each emission becomes a job.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QueueRef {
    /// Its name.
    pub queue: String,
}

/// What one instance of a plugin may use.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Memory of an instance, 1MiB to 4GiB. Default "64MiB".
    #[schemars(example = "64MiB", extend("default" = "64MiB"))]
    pub memory: Option<String>,
    /// Time one call may take, 1ms to 10m. Default "2s".
    #[schemars(example = "2s", extend("default" = "2s"))]
    pub deadline: Option<String>,
    /// Records one call may put out, 1 to 1,000,000. Default 100000.
    #[schemars(range(min = 1, max = 1_000_000), extend("default" = 100_000))]
    pub output_records: Option<u32>,
    /// Bytes one call may put out, 1KiB to 1GiB. Default "32MiB".
    #[schemars(example = "32MiB", extend("default" = "32MiB"))]
    pub output_bytes: Option<String>,
    /// Handles an instance may hold: timers, streams, 16 to 10,000. Default 1000.
    #[schemars(range(min = 16, max = 10_000), extend("default" = 1000))]
    pub handles: Option<u32>,
    /// Instances alive at a time, over all partitions in one host, 1 to 512. Default 512.
    #[schemars(range(min = 1, max = 512), extend("default" = 512))]
    pub instances: Option<u32>,
    /// Log lines of an instance that are taken in a second, 0 to 10,000; the rest is counted. Default 100.
    #[schemars(range(min = 0, max = 10_000), extend("default" = 100))]
    pub log_lines: Option<u32>,
    /// State of one partition, 1KiB to 64GiB: its keys and values, and 64 bytes for each. Default "64MiB".
    #[schemars(example = "64MiB", extend("default" = "64MiB"))]
    pub state: Option<String>,
    /// A value in the state, 1KiB to 16MiB. Default "1MiB".
    #[schemars(example = "1MiB", extend("default" = "1MiB"))]
    pub state_value: Option<String>,
}

/// What a new version of a running stage's plugin has to show. If it fails, the version before runs again.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Probation {
    /// Batches without a failure, 0 to 10,000. Default 20. With 0 and time = "0s" a new version is simply believed.
    #[schemars(range(max = 10_000), extend("default" = 20))]
    pub batches: Option<u32>,
    /// How long it lasts at least, 0s to 1h. Default "10s".
    #[schemars(example = "10s", extend("default" = "10s"))]
    pub time: Option<String>,
    /// Share of the messages that it may refuse beyond what the version before refuses, 0 to 1. Default 0.01.
    #[schemars(range(min = 0.0, max = 1.0), extend("default" = 0.01))]
    pub errors: Option<f64>,
}

/// When a partition of a stage stops taking batches for a while, since the plugin traps, runs out of time or memory, or
/// answers with nonsense on most of its messages.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Breaker {
    /// Messages given up on within the window that open it, 0 to 10,000; 0 turns it off. Default 20.
    #[schemars(range(max = 10_000), extend("default" = 20))]
    pub failures: Option<u32>,
    /// The time in which they are counted, 1s to 1h. Default "60s".
    #[schemars(example = "60s", extend("default" = "60s"))]
    pub window: Option<String>,
    /// The share of the messages in the window that must be more than this, 0 to 1. Default 0.5.
    #[schemars(range(min = 0.0, max = 1.0), extend("default" = 0.5))]
    pub share: Option<f64>,
    /// How long it stays open at first, 10ms to 1h; doubled each time. Default "1s".
    #[schemars(example = "1s", extend("default" = "1s"))]
    pub wait: Option<String>,
    /// How long it stays open at most, 10ms to 1d. Default "5m".
    #[schemars(example = "5m", extend("default" = "5m"))]
    pub longest: Option<String>,
}

/// How much one call of a plugin gets.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// Messages at most (for a producer: records it may return), 1 to 10,000. Default 1000.
    #[schemars(range(min = 1, max = 10_000), extend("default" = 1000))]
    pub records: Option<u32>,
    /// Jobs for one call of a worker, 1 to 1000. Default 1.
    #[schemars(range(min = 1, max = 1000), extend("default" = 1))]
    pub jobs: Option<u32>,
    /// Payload bytes at most, 1KiB to 16MiB; a single larger message still goes through alone. Default "1MiB".
    #[schemars(example = "1MiB", extend("default" = "1MiB"))]
    pub bytes: Option<String>,
    /// How long to wait for a fuller batch once there is something, 0s to 10s. Default "0s".
    #[schemars(example = "20ms", extend("default" = "0s"))]
    pub linger: Option<String>,
}

/// Which requests a plugin may send.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// Origins: scheme, host and port, exactly, and perhaps the beginning of the path.
    #[schemars(example = ["https://hooks.example.com", "http://127.0.0.1:9000/in/"])]
    pub allow: Vec<String>,
    /// Default GET, HEAD and POST.
    #[schemars(example = ["GET"])]
    pub methods: Option<Vec<Method>>,
    /// Whether the names in `allow` may lead to addresses of private networks. Default false.
    #[serde(default)]
    pub private: bool,
    /// Origin = headers that the host adds and the plugin does not see.
    #[schemars(example = serde_json::json!({ "https://hooks.example.com": { "authorization": { "env": "HOOK_TOKEN" } } }))]
    #[serde(default)]
    pub headers: BTreeMap<String, BTreeMap<String, HeaderValue>>,
    /// Time for one exchange, 1ms to 10m. What is left of the deadline shortens it. Default "10s".
    #[schemars(example = "10s", extend("default" = "10s"))]
    pub timeout: Option<String>,
    /// Body of a request at most, 1KiB to 64MiB. Default "8MiB".
    #[schemars(example = "8MiB", extend("default" = "8MiB"))]
    pub request_bytes: Option<String>,
    /// Body of a response at most, 1KiB to 64MiB. Default "1MiB".
    #[schemars(example = "1MiB", extend("default" = "1MiB"))]
    pub response_bytes: Option<String>,
    /// Exchanges at a time, over all partitions of the stage in one host, 1 to 64. Default 4.
    #[schemars(range(min = 1, max = 64), extend("default" = 4))]
    pub concurrent: Option<u32>,
    /// Requests in one call, 1 to 10,000. Default 100.
    #[schemars(range(min = 1, max = 10_000), extend("default" = 100))]
    pub requests: Option<u32>,
}

/// The value of a header: text, or a secret as { env = "NAME" } or { file = "PATH" }.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum HeaderValue {
    Text(String),
    Secret(SecretRef),
}

/// Where a secret is.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretRef {
    /// An environment variable of the host.
    pub env: Option<String>,
    /// A file, relative to this one; its last line break does not count.
    pub file: Option<String>,
}

/// A test: what a stage's plugin makes of some input.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Test {
    /// What it shows. Default: the stage and a number.
    pub name: Option<String>,
    /// The stage under test.
    pub stage: String,
    /// Payloads: text as it is, or a table that becomes a JSON object.
    #[serde(default)]
    pub input: Vec<Payload>,
    pub expect: Expect,
}

/// What a test wants. What is left out is not looked at.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// What comes out of all ports, in order. JSON is compared as JSON.
    pub emissions: Option<Vec<Emission>>,
    /// How many messages are refused.
    pub rejects: Option<u32>,
    /// Rows by table of the plugin; a row must match in the columns named here.
    pub rows: Option<BTreeMap<String, Vec<Map<String, Value>>>>,
}

/// A payload: text as it is, or a table that becomes a JSON object.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Payload {
    Text(String),
    Object(Map<String, Value>),
}

/// One record that comes out: its payload, or a table of port and payload or fields.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Emission {
    /// The payload, on any port.
    Text(String),
    On(PortEmission),
}

/// One record that comes out. What is left out is not looked at.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PortEmission {
    /// The port it must come out of.
    pub port: Option<String>,
    /// The whole payload.
    pub payload: Option<Payload>,
    /// Fields that a JSON payload must have, beside others.
    pub fields: Option<Map<String, Value>>,
}
