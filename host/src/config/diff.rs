//! What changes between two plans. A host starts with the difference from the empty plan and reloads with the difference
//! from the running one: one path for both.

use std::collections::{BTreeMap, BTreeSet};

use super::plan::{PipelinePlan, Plan, QueuePlan, StagePlan, TopicPlan};
use crate::ids::{PipelineName, QueueName, StageName, TopicName};

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
    /// A pipeline has changed if one of its topics, queues, stages or tests has.
    pub pipelines: BTreeMap<PipelineName, Change>,
    /// A topic is removed when no pipeline declares it any more; its data is not touched by that.
    pub topics: BTreeMap<TopicName, Change>,
    /// As for topics: what no pipeline declares any more stays.
    pub queues: BTreeMap<QueueName, Change>,
    pub stages: BTreeMap<StageKey, Change>,
}

impl Diff {
    pub fn is_empty(&self) -> bool {
        self.pipelines.is_empty()
            && self.topics.is_empty()
            && self.queues.is_empty()
            && self.stages.is_empty()
    }
}

pub fn diff(old: &Plan, new: &Plan) -> Diff {
    Diff {
        pipelines: changes(&contents(old), &contents(new)),
        topics: changes(&topics(old), &topics(new)),
        queues: changes(&queues(old), &queues(new)),
        stages: changes(&stages(old), &stages(new)),
    }
}

fn changes<K: Ord + Clone, V: PartialEq>(old: &BTreeMap<K, V>, new: &BTreeMap<K, V>) -> BTreeMap<K, Change> {
    let keys: BTreeSet<&K> = old.keys().chain(new.keys()).collect();
    let change = |key: &K| match (old.get(key), new.get(key)) {
        (None, _) => Some(Change::Added),
        (_, None) => Some(Change::Removed),
        (old, new) => (old != new).then_some(Change::Changed),
    };
    keys.into_iter().filter_map(|key| Some((key.clone(), change(key)?))).collect()
}

/// Pipelines without the place of their file: a file may move.
fn contents(plan: &Plan) -> BTreeMap<PipelineName, impl PartialEq + '_> {
    let content =
        |p: &'_ PipelinePlan| (p.topics.clone(), p.queues.clone(), p.stages.clone(), p.tests.clone());
    plan.pipelines.iter().map(|(name, pipeline)| (name.clone(), content(pipeline))).collect()
}

/// Two pipelines that declare one topic declare it alike.
fn topics(plan: &Plan) -> BTreeMap<TopicName, &TopicPlan> {
    let topics = plan.pipelines.values().flat_map(|p| &p.topics);
    topics.map(|(name, topic)| (name.clone(), topic)).collect()
}

fn queues(plan: &Plan) -> BTreeMap<QueueName, &QueuePlan> {
    let queues = plan.pipelines.values().flat_map(|p| &p.queues);
    queues.map(|(name, queue)| (name.clone(), queue)).collect()
}

fn stages(plan: &Plan) -> BTreeMap<StageKey, &StagePlan> {
    let stages = plan.pipelines.values().flat_map(|p| {
        p.stages.iter().map(|(name, stage)| {
            let key = StageKey { pipeline: p.name.clone(), stage: name.clone() };
            (key, stage)
        })
    });
    stages.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;
    use anyhow::Result;

    const BEFORE: &str = r#"
        [pipeline]
        name = "p"
        [topics.a]
        [topics.b]
        [producers.make]
        plugin = "make"
        to = "a"
        config = { rate = 1 }
        [transforms.turn]
        plugin = "./turn.wasm"
        from = "a"
        to = "b"
    "#;

    fn plan(folder: &std::path::Path, text: &str) -> Result<Plan> {
        std::fs::create_dir_all(folder)?;
        let file = folder.join("p.toml");
        std::fs::write(&file, text)?;
        Ok(load(&[file])?)
    }

    fn stage(diff: &Diff, name: &str) -> Option<Change> {
        let found = diff.stages.iter().find(|(key, _)| key.stage.as_str() == name);
        found.map(|(_, change)| *change)
    }

    #[test]
    fn starting_is_the_difference_from_the_empty_plan_and_stopping_the_one_to_it() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let plan = plan(folder.path(), BEFORE)?;
        let up = diff(&Plan::default(), &plan);
        assert_eq!((up.pipelines.len(), up.topics.len(), up.stages.len()), (1, 2, 2));
        assert!(up.stages.values().all(|c| *c == Change::Added));
        let down = diff(&plan, &Plan::default());
        assert!(down.stages.values().all(|c| *c == Change::Removed));
        assert!(diff(&plan, &plan.clone()).is_empty());
        Ok(())
    }

    #[test]
    fn only_what_changed_is_named() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let before = plan(folder.path(), BEFORE)?;
        let faster = plan(folder.path(), &BEFORE.replace("rate = 1", "rate = 2"))?;
        let found = diff(&before, &faster);
        assert_eq!(stage(&found, "make"), Some(Change::Changed));
        assert_eq!(stage(&found, "turn"), None);
        assert!(found.topics.is_empty());
        assert_eq!(found.pipelines.values().collect::<Vec<_>>(), [&Change::Changed]);

        let more =
            format!("{BEFORE}\n[topics.c]\npartitions = 2\n[sinks.out]\nplugin = \"out\"\nfrom = \"c\"\n");
        let found = diff(&before, &plan(folder.path(), &more)?);
        assert_eq!(stage(&found, "out"), Some(Change::Added));
        assert_eq!(found.topics.values().collect::<Vec<_>>(), [&Change::Added]);
        assert_eq!(found.stages.len(), 1);
        Ok(())
    }

    #[test]
    fn a_file_that_moves_changes_only_the_stages_whose_plugin_moves_with_it() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let here = plan(&folder.path().join("here"), BEFORE)?;
        let there = plan(&folder.path().join("there"), BEFORE)?;
        let found = diff(&here, &there);
        assert_eq!(stage(&found, "make"), None);
        assert_eq!(stage(&found, "turn"), Some(Change::Changed));
        Ok(())
    }
}
