//! What ties sections and files together: topics that are written or read must be declared, names must not clash, and
//! no message may come back to where it was.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::document::Mark;
use super::error::ConfigError;
use super::key_path::KeyPath;
use super::plan::{StagePlan, TopicPlan};
use super::suggest;
use super::validate::{Draft, stage_path};
use crate::ids::{GroupName, PipelineName, TableName, TopicName};

pub fn check(drafts: &[Draft]) -> Vec<ConfigError> {
    let mut errors = Vec::new();
    pipelines(drafts, &mut errors);
    topics(drafts, &mut errors);
    references(drafts, &mut errors);
    groups(drafts, &mut errors);
    tables(drafts, &mut errors);
    loops(drafts, &mut errors);
    errors
}

/// A stage and the file it stands in.
type At<'a> = (&'a Draft, &'a StagePlan);

fn stages(drafts: &[Draft]) -> impl Iterator<Item = At<'_>> {
    drafts.iter().flat_map(|draft| draft.stages.values().map(move |stage| (draft, stage)))
}

/// `the transform \`watch\``, with its file if it is another one.
fn called((draft, stage): At<'_>, seen_from: &Draft) -> String {
    let name = format!("the {} `{}`", stage.kind, stage.name);
    match draft.doc.file == seen_from.doc.file {
        true => name,
        false => format!("{name} in {}", draft.doc.file.display()),
    }
}

fn pipelines(drafts: &[Draft], errors: &mut Vec<ConfigError>) {
    let mut seen: BTreeMap<&PipelineName, &Draft> = BTreeMap::new();
    for draft in drafts {
        let Some(name) = &draft.name else {
            continue;
        };
        if let Some(first) = seen.insert(name, draft) {
            let message = format!("{} has a pipeline `{name}` as well", first.doc.file.display());
            let help = Some("give each file its own name".to_string());
            let path = KeyPath::of(["pipeline", "name"]);
            errors.push(draft.doc.error(&path, Mark::Value, message, help));
        }
    }
}

fn topics(drafts: &[Draft], errors: &mut Vec<ConfigError>) {
    let mut seen: BTreeMap<&TopicName, (&Draft, &TopicPlan)> = BTreeMap::new();
    for draft in drafts {
        for (name, topic) in &draft.topics {
            let Some((first, other)) = seen.insert(name, (draft, topic)) else {
                continue;
            };
            let differing = differences(topic, other);
            if !differing.is_empty() {
                let file = first.doc.file.display();
                let message = format!("{file} declares the topic `{name}` differently: {differing}");
                let help = Some("declare it once, or the same in both".to_string());
                let path = KeyPath::of(["topics", name.as_str()]);
                errors.push(draft.doc.error(&path, Mark::Key, message, help));
            }
        }
    }
}

fn differences(a: &TopicPlan, b: &TopicPlan) -> String {
    let keys = [
        ("partitions", a.partitions != b.partitions),
        ("segment", a.segment != b.segment),
        ("retention", a.hot != b.hot || a.cold != b.cold),
        ("format", a.format != b.format),
        ("acks", a.acks != b.acks),
        ("schema", a.schema != b.schema),
        ("sort", a.sort != b.sort),
    ];
    suggest::list(keys.iter().filter(|(_, differs)| *differs).map(|(key, _)| *key))
}

fn references(drafts: &[Draft], errors: &mut Vec<ConfigError>) {
    let section = KeyPath::of(["topics"]);
    // Also those with mistakes: they stand there.
    let declared: BTreeSet<&str> = drafts.iter().flat_map(|d| d.doc.keys(&section)).collect();
    for (draft, stage) in stages(drafts) {
        for (topic, path) in topics_of(draft, stage) {
            if declared.contains(topic.as_str()) {
                continue;
            }
            let help = match suggest::nearest(topic.as_str(), declared.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("add [topics.{topic}]"),
            };
            let message = format!("the topic `{topic}` is declared nowhere");
            errors.push(draft.doc.error(&path, Mark::Value, message, Some(help)));
        }
    }
}

/// The topics a stage reads and writes, and where it says so.
fn topics_of<'a>(draft: &Draft, stage: &'a StagePlan) -> Vec<(&'a TopicName, KeyPath)> {
    let path = stage_path(stage.kind, stage.name.as_str());
    let from = stage.input.iter().map(|input| (&input.topic, path.key("from")));
    from.chain(stage.outputs.iter().map(|(port, topic)| (topic, to_path(draft, stage, port)))).collect()
}

/// `to`, or the port in it where it is a table.
fn to_path(draft: &Draft, stage: &StagePlan, port: &str) -> KeyPath {
    let to = stage_path(stage.kind, stage.name.as_str()).key("to");
    let of_port = to.key(port);
    match draft.doc.get(&of_port) {
        Some(_) => of_port,
        None => to,
    }
}

fn groups(drafts: &[Draft], errors: &mut Vec<ConfigError>) {
    let mut seen: BTreeMap<(&GroupName, &TopicName), At<'_>> = BTreeMap::new();
    for at @ (draft, stage) in stages(drafts) {
        let Some(input) = &stage.input else {
            continue;
        };
        let path = stage_path(stage.kind, stage.name.as_str());
        let owner = stages(drafts).find(|(_, other)| {
            let own = other.input.as_ref().is_some_and(|i| i.group.as_str() == other.name.as_str());
            own && other.name != stage.name && other.name.as_str() == input.group.as_str()
        });
        if let Some(first) = seen.insert((&input.group, &input.topic), at) {
            let who = called(first, draft);
            let message = format!("{who} reads `{}` as the group `{}` too", input.topic, input.group);
            let help = Some("each would get a part of the messages: set another `group`".to_string());
            errors.push(draft.doc.error(&path.key("group"), Mark::Value, message, help));
        } else if let Some(owner) = owner {
            let message = format!("`{}` is the name of {}", input.group, called(owner, draft));
            let help = Some("a stage's name is its own group: set another `group`".to_string());
            errors.push(draft.doc.error(&path.key("group"), Mark::Value, message, help));
        }
    }
}

fn tables(drafts: &[Draft], errors: &mut Vec<ConfigError>) {
    let mut seen: BTreeMap<&TableName, At<'_>> = BTreeMap::new();
    for at @ (draft, stage) in stages(drafts) {
        for (own, table) in &stage.tables {
            let Some(first) = seen.insert(table, at) else {
                continue;
            };
            let message = format!("{} keeps the table `{table}` already", called(first, draft));
            let help = Some("a table has one writer: name another one".to_string());
            let path = stage_path(stage.kind, stage.name.as_str());
            let path = path.key("tables").key(own);
            errors.push(draft.doc.error(&path, Mark::Value, message, help));
        }
    }
}

/// Stages are added one by one; one that closes a circle is refused with the way round.
fn loops(drafts: &[Draft], errors: &mut Vec<ConfigError>) {
    let mut edges: Vec<Edge<'_>> = Vec::new();
    for (draft, stage) in stages(drafts) {
        let Some(input) = &stage.input else {
            continue;
        };
        for (port, topic) in &stage.outputs {
            let edge = Edge { from: &input.topic, stage, to: topic };
            let Some(way) = way(&edges, topic, &input.topic) else {
                edges.push(edge);
                continue;
            };
            let mut round = format!("{} -> {} -> {topic}", input.topic, stage.name);
            for edge in way {
                round.push_str(&format!(" -> {} -> {}", edge.stage.name, edge.to));
            }
            let message = format!("messages would go round for ever: {round}");
            let help = Some("write to another topic".to_string());
            let path = to_path(draft, stage, port);
            errors.push(draft.doc.error(&path, Mark::Value, message, help));
        }
    }
}

#[derive(Clone, Copy)]
struct Edge<'a> {
    from: &'a TopicName,
    stage: &'a StagePlan,
    to: &'a TopicName,
}

/// The shortest way from one topic to another; empty if they are the same.
fn way<'a>(edges: &[Edge<'a>], from: &'a TopicName, to: &TopicName) -> Option<Vec<Edge<'a>>> {
    let mut reached = BTreeSet::from([from]);
    let mut queue = VecDeque::from([(from, Vec::new())]);
    while let Some((topic, way)) = queue.pop_front() {
        if topic == to {
            return Some(way);
        }
        for edge in edges.iter().filter(|edge| edge.from == topic) {
            if reached.insert(edge.to) {
                let mut longer = way.clone();
                longer.push(*edge);
                queue.push_back((edge.to, longer));
            }
        }
    }
    None
}
