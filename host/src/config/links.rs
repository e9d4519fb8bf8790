//! What ties sections and files together: topics and queues that are written or read must be declared, names must not
//! clash, and no message may come back to where it was.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::document::Mark;
use super::error::ConfigError;
use super::key_path::KeyPath;
use super::plan::{QueuePlan, StagePlan, Target, TopicPlan};
use super::suggest;
use super::validate::{Draft, stage_path};
use crate::ids::{GroupName, PipelineName, QueueName, TableName, TopicName};

pub fn check(drafts: &[Draft]) -> Vec<ConfigError> {
    let mut errors = Vec::new();
    pipelines(drafts, &mut errors);
    topics(drafts, &mut errors);
    queues(drafts, &mut errors);
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

fn queues(drafts: &[Draft], errors: &mut Vec<ConfigError>) {
    let topics = declared(drafts, "topics");
    let mut seen: BTreeMap<&QueueName, (&Draft, &QueuePlan)> = BTreeMap::new();
    for draft in drafts {
        for (name, queue) in &draft.queues {
            let path = KeyPath::of(["queues", name.as_str()]);
            if topics.contains(name.as_str()) {
                let message = format!("there is a topic `{name}` as well");
                let help = Some("topics and queues share their names: rename one".to_string());
                errors.push(draft.doc.error(&path, Mark::Key, message, help));
            }
            let Some((first, other)) = seen.insert(name, (draft, queue)) else {
                continue;
            };
            let differing = queue_differences(queue, other);
            if !differing.is_empty() {
                let file = first.doc.file.display();
                let message = format!("{file} declares the queue `{name}` differently: {differing}");
                let help = Some("declare it once, or the same in both".to_string());
                errors.push(draft.doc.error(&path, Mark::Key, message, help));
            }
        }
    }
}

fn queue_differences(a: &QueuePlan, b: &QueuePlan) -> String {
    let keys = [
        ("lease", a.lease != b.lease),
        ("max_attempts", a.max_attempts != b.max_attempts),
        ("backoff", a.backoff != b.backoff),
        ("concurrency", a.concurrency != b.concurrency),
        ("per_key", a.per_key != b.per_key),
        ("ordered", a.ordered != b.ordered),
        ("keep", a.keep != b.keep),
        ("history", a.history != b.history),
        ("cron", a.crons != b.crons),
    ];
    suggest::list(keys.iter().filter(|(_, differs)| *differs).map(|(key, _)| *key))
}

/// The names in a section over all files; also those with mistakes, since they stand there.
fn declared<'a>(drafts: &'a [Draft], section: &str) -> BTreeSet<&'a str> {
    let section = KeyPath::of([section]);
    drafts.iter().flat_map(|d| d.doc.keys(&section)).collect()
}

fn references(drafts: &[Draft], errors: &mut Vec<ConfigError>) {
    let topics = declared(drafts, "topics");
    let queues = declared(drafts, "queues");
    for (draft, target, path) in named(drafts) {
        let name = target.as_str();
        let (kind, here, others) = match target {
            Target::Topic(_) => ("topic", &topics, &queues),
            Target::Queue(_) => ("queue", &queues, &topics),
        };
        if here.contains(name) {
            continue;
        }
        let help = match suggest::nearest(name, here.iter().copied()) {
            _ if others.contains(name) => other_kind(&target, &path),
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("add [{kind}s.{name}]"),
        };
        let message = format!("the {kind} `{name}` is declared nowhere");
        errors.push(draft.doc.error(&path, Mark::Value, message, Some(help)));
    }
}

/// What to do where a queue is named as a topic, or the other way round.
fn other_kind(target: &Target, path: &KeyPath) -> String {
    let written = path.key_at(2) == Some("to");
    match target {
        Target::Topic(name) if written => {
            let port = path.key_at(3).unwrap_or("default");
            format!("`{name}` is a queue: write `to = {{ {port} = {{ queue = \"{name}\" }} }}`")
        }
        Target::Topic(name) => format!("`{name}` is a queue, and only workers take its jobs"),
        Target::Queue(name) if written => format!("`{name}` is a topic: write its name alone"),
        Target::Queue(name) => format!("`{name}` is a topic, and workers take the jobs of a queue"),
    }
}

/// The topics and queues that stages and queues name, and where they do.
fn named(drafts: &[Draft]) -> Vec<(&Draft, Target, KeyPath)> {
    let mut named = Vec::new();
    for draft in drafts {
        for (name, queue) in &draft.queues {
            let path = KeyPath::of(["queues", name.as_str(), "history"]);
            named.extend(
                queue.history.iter().map(|topic| (draft, Target::Topic(topic.clone()), path.clone())),
            );
        }
    }
    for (draft, stage) in stages(drafts) {
        let path = stage_path(stage.kind, stage.name.as_str());
        let from = stage.input.iter().map(|input| (Target::Topic(input.topic.clone()), path.key("from")));
        let jobs = stage.jobs.iter().map(|jobs| (Target::Queue(jobs.queue.clone()), path.key("queue")));
        let to = stage.outputs.iter().map(|(port, to)| (to.clone(), to_path(draft, stage, port)));
        named.extend(from.chain(jobs).chain(to).map(|(target, path)| (draft, target, path)));
    }
    named
}

/// `to`, or the port in it where it is a table.
fn to_path(draft: &Draft, stage: &StagePlan, port: &str) -> KeyPath {
    let to = stage_path(stage.kind, stage.name.as_str()).key("to");
    let of_port = to.key(port);
    let of_queue = of_port.key("queue");
    [of_queue, of_port].into_iter().find(|path| draft.doc.get(path).is_some()).unwrap_or(to)
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
    let mut edges: Vec<Edge> = Vec::new();
    for (name, queue) in drafts.iter().flat_map(|draft| &draft.queues) {
        edges.extend(queue.history.iter().map(|topic| Edge {
            from: Target::Queue(name.clone()),
            by: "history".to_string(),
            to: Target::Topic(topic.clone()),
        }));
    }
    for (draft, stage) in stages(drafts) {
        let input = stage.input.as_ref().map(|input| Target::Topic(input.topic.clone()));
        let jobs = stage.jobs.as_ref().map(|jobs| Target::Queue(jobs.queue.clone()));
        let Some(from) = input.or(jobs) else {
            continue;
        };
        for (port, to) in &stage.outputs {
            let Some(way) = way(&edges, to, &from) else {
                edges.push(Edge { from: from.clone(), by: stage.name.to_string(), to: to.clone() });
                continue;
            };
            let mut round = format!("{from} -> {} -> {to}", stage.name);
            for edge in way {
                round.push_str(&format!(" -> {} -> {}", edge.by, edge.to));
            }
            let message = format!("messages would go round for ever: {round}");
            let help = Some("write to another topic".to_string());
            let path = to_path(draft, stage, port);
            errors.push(draft.doc.error(&path, Mark::Value, message, help));
        }
    }
}

/// From a topic or a queue to another.
struct Edge {
    from: Target,
    /// A stage, or the history of a queue.
    by: String,
    to: Target,
}

/// The shortest way from one topic or queue to another; empty if they are the same.
fn way<'a>(edges: &'a [Edge], from: &'a Target, to: &Target) -> Option<Vec<&'a Edge>> {
    let mut reached = BTreeSet::from([from]);
    let mut queue = VecDeque::from([(from, Vec::new())]);
    while let Some((place, way)) = queue.pop_front() {
        if place == to {
            return Some(way);
        }
        for edge in edges.iter().filter(|edge| edge.from == *place) {
            if reached.insert(&edge.to) {
                let mut longer = way.clone();
                longer.push(edge);
                queue.push_back((&edge.to, longer));
            }
        }
    }
    None
}
