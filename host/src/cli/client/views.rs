//! The part of the host's answers that the tables show. `--json` prints answers whole, so nothing is lost here.

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Debug, Deserialize)]
pub struct Topics {
    pub topics: Vec<Topic>,
}

#[derive(Debug, Deserialize)]
pub struct Topic {
    pub name: String,
    pub partitions: u32,
    pub format: String,
    pub records: u64,
    pub records_per_second: Option<f64>,
    pub start_offsets: Vec<u64>,
    pub next_offsets: Vec<u64>,
    pub segment: String,
    pub retention: Retention,
    pub acks: String,
    pub compression: String,
    pub hot: Hot,
}

#[derive(Debug, Deserialize)]
pub struct Retention {
    pub hot: String,
    pub cold: String,
}

#[derive(Debug, Deserialize)]
pub struct Hot {
    pub segments: u64,
    pub records: u64,
    pub bytes: u64,
    pub bytes_per_record: Option<f64>,
}

#[derive(Debug, Deserialize)]
pub struct Groups {
    pub groups: Vec<Group>,
}

#[derive(Debug, Deserialize)]
pub struct GroupTopics {
    pub group: String,
    pub topics: Vec<Group>,
}

#[derive(Debug, Deserialize)]
pub struct Group {
    pub group: String,
    pub topic: String,
    pub stage: Option<String>,
    pub lag: u64,
    pub records_per_second: Option<f64>,
    pub partitions: Vec<GroupPartition>,
}

#[derive(Debug, Deserialize)]
pub struct GroupPartition {
    pub partition: u32,
    pub offset: u64,
    pub end: u64,
    pub lag: u64,
    pub owner: Option<String>,
    pub epoch: i64,
    pub digest: Option<String>,
}

#[derive(Debug, Deserialize)]
pub struct Status {
    pub version: String,
    pub host: String,
    pub uptime_seconds: f64,
    pub url: String,
    pub postgres_url: String,
    pub postgres_version: String,
    pub data_dir: Option<String>,
    pub durability: Durability,
    pub memory_bytes: Option<u64>,
    pub pipelines: Vec<Pipeline>,
    pub pipeline_files: Option<FilesError>,
    pub topics: Vec<Topic>,
    pub groups: Vec<Group>,
    #[serde(default)]
    pub dead_letters: Vec<DeadLetterCount>,
    /// Empty from a host of an earlier version.
    #[serde(default)]
    pub queues: Vec<Queue>,
    pub tables: Vec<TableInfo>,
    /// Empty from a host of an earlier version.
    #[serde(default)]
    pub hosts: Vec<HostInfo>,
}

#[derive(Debug, Deserialize)]
pub struct HostInfo {
    pub host: String,
    pub version: String,
    pub url: Option<String>,
    pub leases: u64,
}

#[derive(Debug, Deserialize)]
pub struct Durability {
    pub durable: bool,
    pub fsync: bool,
    pub full_page_writes: bool,
    pub synchronous_commit: String,
}

#[derive(Debug, Deserialize)]
pub struct Pipeline {
    pub name: String,
    pub file: String,
    pub stages: Vec<Stage>,
}

#[derive(Debug, Deserialize)]
pub struct FilesError {
    pub error: String,
    pub at: String,
}

#[derive(Debug, Deserialize)]
pub struct Deployment {
    pub state: String,
    pub reason: Option<String>,
    pub since: String,
}

#[derive(Debug, Deserialize)]
pub struct Candidate {
    pub from: String,
    pub error: String,
    pub at: String,
}

#[derive(Debug, Deserialize)]
pub struct Stage {
    pub name: String,
    pub kind: String,
    pub plugin: String,
    pub version: Option<String>,
    pub digest: Option<String>,
    pub deployment: Option<Deployment>,
    pub candidate: Option<Candidate>,
    pub from: Option<String>,
    /// Whose jobs it does.
    pub queue: Option<String>,
    #[serde(default)]
    pub to: BTreeMap<String, String>,
    #[serde(default)]
    pub to_queues: BTreeMap<String, String>,
    pub state: String,
    pub reason: Option<String>,
    pub restarts: u64,
    pub refused: u64,
    pub records_in_per_second: f64,
    pub records_out_per_second: f64,
    pub lag: Option<u64>,
}

#[derive(Debug, Deserialize)]
pub struct TableInfo {
    pub name: String,
    pub schema: String,
    pub stage: String,
    pub key: Vec<String>,
    pub rows: u64,
}

#[derive(Debug, Deserialize)]
pub struct Queues {
    pub queues: Vec<Queue>,
}

#[derive(Debug, Deserialize)]
pub struct Queue {
    pub name: String,
    pub paused: bool,
    pub waiting: u64,
    pub scheduled: u64,
    pub blocked: u64,
    pub running: u64,
    pub dead: u64,
    pub oldest_waiting_s: Option<f64>,
    pub lease_s: f64,
    pub max_attempts: u32,
    pub backoff_first_s: f64,
    pub backoff_longest_s: f64,
    pub concurrency: Option<u32>,
    pub per_key: Option<u32>,
    pub ordered: bool,
    pub keep_s: f64,
    pub history: Option<String>,
    pub crons: Vec<Cron>,
}

#[derive(Debug, Deserialize)]
pub struct Cron {
    pub name: String,
    pub schedule: String,
    pub next_at: String,
    pub fired_at: Option<String>,
}

#[derive(Debug, Deserialize)]
pub struct JobPage {
    pub jobs: Vec<Job>,
    pub next: Option<u64>,
}

#[derive(Debug, Deserialize)]
pub struct Job {
    pub id: u64,
    pub state: String,
    pub priority: u32,
    pub attempt: u32,
    pub max_attempts: u32,
    pub unique_key: Option<String>,
    pub key: Option<String>,
    pub enqueued_at: String,
    pub run_at: Option<String>,
    pub claimed_at: Option<String>,
    pub finished_at: Option<String>,
    pub worker: Option<String>,
    pub error: Option<String>,
    pub bytes: u64,
}

#[derive(Debug, Deserialize)]
pub struct DeadLetterCount {
    pub group: String,
    pub letters: u64,
    pub queued: u64,
}

#[derive(Debug, Deserialize)]
pub struct DeadLetterPage {
    pub dead_letters: Vec<DeadLetter>,
    pub next: Option<i64>,
}

#[derive(Debug, Deserialize)]
pub struct DeadLetter {
    pub id: i64,
    pub state: String,
    pub group: String,
    pub pipeline: String,
    pub stage: String,
    pub digest: String,
    pub topic: String,
    /// In a list; else the record has them.
    pub partition: Option<u32>,
    pub offset: Option<u64>,
    pub kind: String,
    pub error: String,
    pub attempts: u32,
    pub failed_at: String,
    pub redriven_at: Option<String>,
    pub bytes: u64,
}
