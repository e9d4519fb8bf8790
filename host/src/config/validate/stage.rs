//! `[producers.NAME]`, `[transforms.NAME]`, `[materializers.NAME]`, `[sinks.NAME]`, `[workers.NAME]`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value};

use super::{Measure, Reader, grants};
use crate::config::document::Mark;
use crate::config::file::{Destination, Outputs, QueueRef, Stage};
use crate::config::key_path::KeyPath;
use crate::config::plan::{
    BatchLimits, Breaker, Input, JobsPlan, OnError, PluginRef, Probation, StageKind, StageLimits, StagePlan,
    Start, Target,
};
use crate::config::secret::{Secret, StageConfig};
use crate::config::{file, units};
use crate::ids::{QueueName, StageName, TableName, TopicName};

const MAX_ATTEMPTS: u32 = 5;
/// Calls of a worker at once on each host, and jobs for each.
const CALLS: u32 = 4;
const JOBS: u32 = 1;
/// The port that a stage writes to when it names none.
pub const DEFAULT_PORT: &str = "default";

pub(super) const SIZE: fn(&str) -> Result<u64, String> = units::size;
pub(super) const TIME: fn(&str) -> Result<Duration, String> = units::duration;

pub fn read(
    reader: &mut Reader<'_>,
    path: &KeyPath,
    kind: StageKind,
    name: StageName,
    stage: Stage,
) -> Option<StagePlan> {
    // Each part is read before the first `?`, so that all mistakes of a stage are told.
    let plugin = plugin(reader, path, &stage);
    let input = input(reader, path, kind, &name, &stage);
    let jobs = jobs(reader, path, kind, &stage);
    let outputs = outputs(reader, &path.key("to"), stage.to.as_ref());
    let tables = tables(reader, path, kind, &stage.tables);
    let limits = limits(reader, &path.key("limits"), &stage.limits);
    let (grants, http) = grants::read(reader, path, kind, &stage);
    let batch = batch(reader, &path.key("batch"), &stage.batch);
    let probation = probation(reader, &path.key("probation"), &stage.probation);
    let breaker = breaker(reader, &path.key("breaker"), &stage.breaker);
    let config = config(reader, &path.key("config"), stage.config);
    Some(StagePlan {
        name,
        kind,
        plugin: plugin?,
        config,
        limits,
        grants,
        http,
        on_error: stage.on_error.unwrap_or(OnError::DeadLetter),
        max_attempts: stage.max_attempts.unwrap_or(MAX_ATTEMPTS),
        probation,
        breaker,
        batch,
        input: input?,
        jobs: jobs?,
        outputs: outputs?,
        tables: tables?,
    })
}

fn plugin(reader: &mut Reader<'_>, path: &KeyPath, stage: &Stage) -> Option<PluginRef> {
    let digest = stage.sha256.as_deref();
    let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    if digest.is_some_and(|d| d.len() != 64 || !d.chars().all(hex)) {
        let help = "`sha256sum FILE` prints one".to_string();
        let message = "expected a SHA-256 of 64 lower-case hex digits";
        reader.fail(&path.key("sha256"), Mark::Value, message, Some(help));
    }
    let name = stage.plugin.as_str();
    let is_path = name.contains('/') || name.ends_with(".wasm");
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_' || c == '.';
    if !is_path && (name.is_empty() || !name.chars().all(plain)) {
        let message = format!("{name:?} is not the name of a plugin");
        let help = "write a name of letters, digits, hyphens and underscores, or a path such as \"./build/NAME.wasm\"";
        reader.fail(&path.key("plugin"), Mark::Value, message, Some(help.to_string()));
        return None;
    }
    let folder = reader.doc.file.parent().unwrap_or(Path::new(""));
    Some(PluginRef {
        name: name.to_string(),
        path: is_path.then(|| folder.join(name)),
        sha256: stage.sha256.clone(),
    })
}

/// The outer None is a mistake, the inner one a producer or a worker.
fn input(
    reader: &mut Reader<'_>,
    path: &KeyPath,
    kind: StageKind,
    name: &StageName,
    stage: &Stage,
) -> Option<Option<Input>> {
    if matches!(kind, StageKind::Producer | StageKind::Worker) {
        return Some(None);
    }
    // A stage without `from` was refused for its shape.
    let topic = reader.name::<TopicName>(&path.key("from"), Mark::Value, stage.from.as_deref()?);
    let group = stage.group.as_deref().unwrap_or(name.as_str());
    let group = reader.name(&path.key("group"), Mark::Value, group);
    Some(Some(Input { topic: topic?, group: group?, start: stage.start.unwrap_or(Start::Earliest) }))
}

/// The outer None is a mistake, the inner one a stage that is no worker.
fn jobs(reader: &mut Reader<'_>, path: &KeyPath, kind: StageKind, stage: &Stage) -> Option<Option<JobsPlan>> {
    if kind != StageKind::Worker {
        return Some(None);
    }
    // A worker without `queue` was refused for its shape.
    let queue = reader.name::<QueueName>(&path.key("queue"), Mark::Value, stage.queue.as_deref()?)?;
    Some(Some(JobsPlan {
        queue,
        concurrency: stage.concurrency.unwrap_or(CALLS),
        batch: stage.batch.jobs.unwrap_or(JOBS),
    }))
}

fn outputs(
    reader: &mut Reader<'_>,
    path: &KeyPath,
    outputs: Option<&Outputs>,
) -> Option<BTreeMap<String, Target>> {
    match outputs {
        None => Some(BTreeMap::new()),
        Some(Outputs::One(topic)) => {
            let topic = reader.name(path, Mark::Value, topic)?;
            Some(BTreeMap::from([(DEFAULT_PORT.to_string(), Target::Topic(topic))]))
        }
        Some(Outputs::Ports(ports)) => {
            if reader.doc.keys(path).is_empty() {
                let help = "write a topic, or a table such as { default = \"TOPIC\" }".to_string();
                reader.fail(path, Mark::Key, "`to` names no topic and no queue", Some(help));
                return None;
            }
            let read: Vec<_> = ports
                .iter()
                .map(|(port, to)| Some((port.clone(), target(reader, &path.key(port), to)?)))
                .collect();
            read.into_iter().collect()
        }
    }
}

fn target(reader: &mut Reader<'_>, path: &KeyPath, to: &Destination) -> Option<Target> {
    match to {
        Destination::Topic(topic) => reader.name(path, Mark::Value, topic).map(Target::Topic),
        Destination::Queue(QueueRef { queue }) => {
            reader.name(&path.key("queue"), Mark::Value, queue).map(Target::Queue)
        }
    }
}

fn tables(
    reader: &mut Reader<'_>,
    path: &KeyPath,
    kind: StageKind,
    tables: &BTreeMap<String, String>,
) -> Option<BTreeMap<String, TableName>> {
    let written = reader.doc.keys(&path.key("tables"));
    if kind == StageKind::Materializer && written.is_empty() {
        let help = "write { TABLE_OF_THE_PLUGIN = \"table_in_postgres\" }".to_string();
        reader.fail(&path.key("tables"), Mark::Key, "a materializer keeps at least one table", Some(help));
        return None;
    }
    let path = path.key("tables");
    let read: Vec<_> = tables
        .iter()
        .map(|(own, table)| Some((own.clone(), reader.name(&path.key(own), Mark::Value, table)?)))
        .collect();
    read.into_iter().collect()
}

fn limits(reader: &mut Reader<'_>, path: &KeyPath, limits: &file::Limits) -> StageLimits {
    let default = StageLimits::default();
    let memory = Measure { parse: SIZE, show: units::show_size, range: 1 << 20..=4 << 30 };
    let deadline = Measure {
        parse: TIME,
        show: units::show_duration,
        range: Duration::from_millis(1)..=Duration::from_secs(600),
    };
    let output = Measure { parse: SIZE, show: units::show_size, range: 1 << 10..=1 << 30 };
    let state = Measure { parse: SIZE, show: units::show_size, range: 1 << 10..=64 << 30 };
    let value = Measure { parse: SIZE, show: units::show_size, range: 1 << 10..=16 << 20 };
    let state_value = limits.state_value.as_deref();
    StageLimits {
        memory: reader.measure(&path.key("memory"), limits.memory.as_deref(), &memory, default.memory),
        deadline: reader.measure(
            &path.key("deadline"),
            limits.deadline.as_deref(),
            &deadline,
            default.deadline,
        ),
        output_records: limits.output_records.unwrap_or(default.output_records),
        output_bytes: reader.measure(
            &path.key("output_bytes"),
            limits.output_bytes.as_deref(),
            &output,
            default.output_bytes,
        ),
        handles: limits.handles.unwrap_or(default.handles),
        instances: limits.instances.unwrap_or(default.instances),
        log_lines: limits.log_lines.unwrap_or(default.log_lines),
        state: reader.measure(&path.key("state"), limits.state.as_deref(), &state, default.state),
        state_value: reader.measure(&path.key("state_value"), state_value, &value, default.state_value),
    }
}

fn batch(reader: &mut Reader<'_>, path: &KeyPath, batch: &file::Batch) -> BatchLimits {
    let default = BatchLimits::default();
    let bytes = Measure { parse: SIZE, show: units::show_size, range: 1 << 10..=16 << 20 };
    let linger =
        Measure { parse: TIME, show: units::show_duration, range: Duration::ZERO..=Duration::from_secs(10) };
    BatchLimits {
        records: batch.records.unwrap_or(default.records),
        bytes: reader.measure(&path.key("bytes"), batch.bytes.as_deref(), &bytes, default.bytes),
        linger: reader.measure(&path.key("linger"), batch.linger.as_deref(), &linger, default.linger),
    }
}

fn probation(reader: &mut Reader<'_>, path: &KeyPath, probation: &file::Probation) -> Probation {
    let default = Probation::default();
    let time = Measure {
        parse: TIME,
        show: units::show_duration,
        range: Duration::ZERO..=Duration::from_secs(3600),
    };
    Probation {
        batches: probation.batches.unwrap_or(default.batches),
        time: reader.measure(&path.key("time"), probation.time.as_deref(), &time, default.time),
        errors: probation.errors.unwrap_or(default.errors),
    }
}

fn breaker(reader: &mut Reader<'_>, path: &KeyPath, breaker: &file::Breaker) -> Option<Breaker> {
    let default = Breaker::default();
    let seconds = Duration::from_secs;
    let within = |range| Measure { parse: TIME, show: units::show_duration, range };
    let window = within(seconds(1)..=seconds(3_600));
    let wait = within(Duration::from_millis(10)..=seconds(3_600));
    let longest = within(Duration::from_millis(10)..=seconds(86_400));
    let read = Breaker {
        failures: breaker.failures.unwrap_or(default.failures),
        window: reader.measure(&path.key("window"), breaker.window.as_deref(), &window, default.window),
        share: breaker.share.unwrap_or(default.share),
        wait: reader.measure(&path.key("wait"), breaker.wait.as_deref(), &wait, default.wait),
        longest: reader.measure(&path.key("longest"), breaker.longest.as_deref(), &longest, default.longest),
    };
    (read.failures > 0).then_some(read)
}

/// The stage's `config` with its secrets read. The object itself is never a secret, so `config = { file = "x" }` is plain.
fn config(reader: &mut Reader<'_>, path: &KeyPath, config: Map<String, Value>) -> StageConfig {
    let mut secrets = Vec::new();
    let mut values = Value::Object(config);
    inner(reader, &mut values, path, "", &mut secrets);
    StageConfig::new(values, secrets)
}

fn inner(
    reader: &mut Reader<'_>,
    value: &mut Value,
    path: &KeyPath,
    pointer: &str,
    secrets: &mut Vec<(String, Secret)>,
) {
    match value {
        Value::Object(map) => {
            for (key, value) in map.iter_mut() {
                let pointer = format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"));
                leaf(reader, value, &path.key(key), &pointer, secrets);
            }
        }
        Value::Array(items) => {
            for (i, value) in items.iter_mut().enumerate() {
                leaf(reader, value, &path.index(i), &format!("{pointer}/{i}"), secrets);
            }
        }
        _ => {}
    }
}

fn leaf(
    reader: &mut Reader<'_>,
    value: &mut Value,
    path: &KeyPath,
    pointer: &str,
    secrets: &mut Vec<(String, Secret)>,
) {
    let folder = reader.doc.file.parent().unwrap_or(Path::new(""));
    let found = match single(value) {
        Some(("env", Value::String(name))) => reader.vault.from_env(name),
        Some(("file", Value::String(file))) => reader.vault.from_file(folder, file),
        Some(("literal", plain)) if is_reserved(plain) => {
            *value = plain.clone();
            return;
        }
        _ => return inner(reader, value, path, pointer, secrets),
    };
    match found {
        Ok(secret) => {
            *value = Value::Null;
            secrets.push((pointer.to_string(), secret));
        }
        Err(error) => reader.fail(path, Mark::Value, error.to_string(), None),
    }
}

/// The only entry of an object.
fn single(value: &Value) -> Option<(&str, &Value)> {
    let map = value.as_object().filter(|map| map.len() == 1)?;
    map.iter().next().map(|(key, value)| (key.as_str(), value))
}

/// Whether an object would be taken for something else if it stood there as it is.
fn is_reserved(value: &Value) -> bool {
    single(value).is_some_and(|(key, _)| matches!(key, "env" | "file" | "literal"))
}
