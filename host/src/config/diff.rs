//! What changes between two plans. A host starts with the difference from the empty plan and reloads with the difference
//! from the running one: one path for both.

use std::collections::{BTreeMap, BTreeSet};

use super::plan::{PipelinePlan, Plan, StagePlan, TopicPlan};
use crate::ids::{PipelineName, StageName, TopicName};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Added,
    Changed,
    Removed,
}

/// A stage among all pipelines.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StageKey {
    pub pipeline: PipelineName,
    pub stage: StageName,
}

/// What is not named here stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// A pipeline has changed if one of its topics, stages or tests has.
    pub pipelines: BTreeMap<PipelineName, Change>,
    /// A topic is removed when no pipeline declares it any more; its data is not touched by that.
    pub topics: BTreeMap<TopicName, Change>,
    pub stages: BTreeMap<StageKey, Change>,
}

impl Diff {
    pub fn is_empty(&self) -> bool {
        self.pipelines.is_empty() && self.topics.is_empty() && self.stages.is_empty()
    }
}

pub fn diff(old: &Plan, new: &Plan) -> Diff {
    Diff {
        pipelines: changes(&contents(old), &contents(new)),
        topics: changes(&topics(old), &topics(new)),
        stages: changes(&stages(old), &stages(new)),
    }
}

fn changes<K: Ord + Clone, V: PartialEq>(
    old: &BTreeMap<K, V>,
    new: &BTreeMap<K, V>,
) -> BTreeMap<K, Change> {
    let keys: BTreeSet<&K> = old.keys().chain(new.keys()).collect();
    let change = |key: &K| match (old.get(key), new.get(key)) {
        (None, _) => Some(Change::Added),
        (_, None) => Some(Change::Removed),
        (old, new) => (old != new).then_some(Change::Changed),
    };
    keys.into_iter()
        .filter_map(|key| Some((key.clone(), change(key)?)))
        .collect()
}

/// Pipelines without the place of their file: a file may move.
fn contents(plan: &Plan) -> BTreeMap<PipelineName, impl PartialEq + '_> {
    let content = |p: &'_ PipelinePlan| (p.topics.clone(), p.stages.clone(), p.tests.clone());
    plan.pipelines
        .iter()
        .map(|(name, pipeline)| (name.clone(), content(pipeline)))
        .collect()
}

/// Two pipelines that declare one topic declare it alike.
fn topics(plan: &Plan) -> BTreeMap<TopicName, &TopicPlan> {
    let topics = plan.pipelines.values().flat_map(|p| &p.topics);
    topics.map(|(name, topic)| (name.clone(), topic)).collect()
}

fn stages(plan: &Plan) -> BTreeMap<StageKey, &StagePlan> {
    let stages = plan.pipelines.values().flat_map(|p| {
        p.stages.iter().map(|(name, stage)| {
            let key = StageKey {
                pipeline: p.name.clone(),
                stage: name.clone(),
            };
            (key, stage)
        })
    });
    stages.collect()
}
