//! From a parsed file to typed values: names, units, ranges, secrets. Goes on after a mistake, so that a file is judged
//! as a whole. What ties several sections or files together is in [`super::links`].

mod grants;
mod queue;
mod stage;
mod tests;
mod topic;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::document::{Document, Mark};
use super::error::ConfigError;
use super::file;
use super::key_path::KeyPath;
use super::plan::{QueuePlan, StageKind, StagePlan, StageTest, TopicPlan};
use super::secret::Vault;
use super::shape::{self, SECTIONS};
use crate::ids::{NameError, PipelineName, QueueName, StageName, TopicName};

/// A file on its way to a plan. Parts with mistakes are missing.
pub struct Draft {
    pub doc: Document,
    pub name: Option<PipelineName>,
    pub topics: BTreeMap<TopicName, TopicPlan>,
    pub queues: BTreeMap<QueueName, QueuePlan>,
    pub stages: BTreeMap<StageName, StagePlan>,
    pub tests: Vec<StageTest>,
}

/// Where a stage stands in its file.
pub fn stage_path(kind: StageKind, name: &str) -> KeyPath {
    let section = SECTIONS.iter().find(|(_, k)| *k == kind);
    KeyPath::of(section.map(|(section, _)| *section)).key(name)
}

pub fn draft(doc: Document, vault: &Vault<'_>) -> (Draft, Vec<ConfigError>) {
    let mut json = doc.json();
    let errors = shape::check(&doc, &mut json);
    let mut reader = Reader { doc: &doc, vault, errors };
    let name = reader.pipeline_name(&json);
    let topics = reader.topics(&json);
    let queues = reader.queues(&json);
    let stages = reader.stages(&json);
    let tests = tests::read(&mut reader, &json, &stages);
    let errors = reader.errors;
    let draft = Draft { doc, name, topics, queues, stages, tests };
    (draft, errors)
}

/// Reads the parts of one file and collects what is wrong with them.
struct Reader<'a> {
    doc: &'a Document,
    vault: &'a Vault<'a>,
    errors: Vec<ConfigError>,
}

impl Reader<'_> {
    fn pipeline_name(&mut self, json: &Value) -> Option<PipelineName> {
        let path = KeyPath::of(["pipeline"]);
        let head: file::Head = self.section(&path, json.get("pipeline")?)?;
        self.name(&path.key("name"), Mark::Value, &head.name)
    }

    fn topics(&mut self, json: &Value) -> BTreeMap<TopicName, TopicPlan> {
        let mut topics = BTreeMap::new();
        for (name, value) in tables(json, "topics") {
            let path = KeyPath::of(["topics", name]);
            let name = self.name::<TopicName>(&path, Mark::Key, name);
            let written = self.section(&path, value);
            if let Some((name, written)) = name.zip(written) {
                topics.insert(name.clone(), topic::read(self, &path, name, &written));
            }
        }
        topics
    }

    fn queues(&mut self, json: &Value) -> BTreeMap<QueueName, QueuePlan> {
        let mut queues = BTreeMap::new();
        for (name, value) in tables(json, "queues") {
            let path = KeyPath::of(["queues", name]);
            let name = self.name::<QueueName>(&path, Mark::Key, name);
            let written = self.section(&path, value);
            if let Some((name, written)) = name.zip(written) {
                queues.insert(name.clone(), queue::read(self, &path, name, written));
            }
        }
        queues
    }

    fn stages(&mut self, json: &Value) -> BTreeMap<StageName, StagePlan> {
        let mut stages: BTreeMap<StageName, StagePlan> = BTreeMap::new();
        for (section, kind) in SECTIONS {
            for (name, value) in tables(json, section) {
                let path = KeyPath::of([section, name]);
                let name = self.name::<StageName>(&path, Mark::Key, name);
                let written = self.section(&path, value);
                let Some((name, written)) = name.zip(written) else {
                    continue;
                };
                if let Some(first) = stages.get(&name) {
                    let message = format!("there are two stages `{name}`: a {} and a {kind}", first.kind);
                    let help = "a stage's name is unique in its pipeline: rename one".to_string();
                    self.fail(&path, Mark::Key, message, Some(help));
                } else if let Some(stage) = stage::read(self, &path, kind, name.clone(), written) {
                    stages.insert(name, stage);
                }
            }
        }
        stages
    }

    /// One section as its type. If it does not fit, the check of the shape has said why.
    fn section<T: DeserializeOwned>(&mut self, path: &KeyPath, value: &Value) -> Option<T> {
        match serde_json::from_value(value.clone()) {
            Ok(section) => Some(section),
            Err(error) => {
                if self.errors.is_empty() {
                    self.fail(path, Mark::Key, error.to_string(), None);
                }
                None
            }
        }
    }

    fn fail(&mut self, path: &KeyPath, mark: Mark, message: impl Into<String>, help: Option<String>) {
        let error = self.doc.error(path, mark, message, help);
        self.errors.push(error);
    }

    /// The value, or its error at a place.
    fn take<T>(&mut self, path: &KeyPath, result: Result<T, String>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(message) => {
                self.fail(path, Mark::Value, message, None);
                None
            }
        }
    }

    fn name<T: FromStr<Err = NameError>>(&mut self, path: &KeyPath, mark: Mark, text: &str) -> Option<T> {
        match text.parse() {
            Ok(name) => Some(name),
            Err(NameError { kind, name, rule, suggestion }) => {
                let help = suggestion.map(|s| format!("try \"{s}\""));
                self.fail(path, mark, format!("{name:?} is not a {kind} name: {rule}"), help);
                None
            }
        }
    }

    /// A measure within a range, or its default if it is left out or wrong.
    fn measure<T: PartialOrd + Copy + Debug>(
        &mut self,
        path: &KeyPath,
        text: Option<&str>,
        measure: &Measure<T>,
        default: T,
    ) -> T {
        let Some(text) = text else {
            return default;
        };
        let parsed = (measure.parse)(text).and_then(|value| {
            if measure.range.contains(&value) {
                return Ok(value);
            }
            let (min, max) = (measure.range.start(), measure.range.end());
            let (min, max) = ((measure.show)(*min), (measure.show)(*max));
            Err(format!("{text:?} is out of range: {min} to {max}"))
        });
        self.take(path, parsed).unwrap_or(default)
    }
}

/// How to read a number with a unit, and which are allowed.
struct Measure<T> {
    parse: fn(&str) -> Result<T, String>,
    show: fn(T) -> String,
    range: RangeInclusive<T>,
}

/// The entries of a section that is a table of tables.
fn tables<'a>(json: &'a Value, section: &str) -> impl Iterator<Item = (&'a str, &'a Value)> {
    let table = json.get(section).and_then(Value::as_object);
    table.into_iter().flatten().map(|(name, value)| (name.as_str(), value))
}
