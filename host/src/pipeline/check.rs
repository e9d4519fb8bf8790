//! A valid plan against its components: each is found, compiled, described and configured, and the tests are run on it.
//! Needs no Postgres. What is wrong is told with its place in the pipeline file.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::component::{self, Component, ComponentError};
use super::stage::limits;
use super::test_run;
use crate::config::ConfigError;
use crate::config::document::{Document, Mark};
use crate::config::key_path::KeyPath;
use crate::config::plan::{PipelinePlan, Plan, StageKind, StagePlan, StageTest};
use crate::config::plugins::PluginFolders;
use crate::config::shape::Finding;
use crate::config::validate::stage_path;
use crate::ids::StageName;
use crate::plugin::PluginEngine;

#[derive(Debug, Serialize)]
pub struct PipelineReport {
    pub pipeline: String,
    pub file: String,
    pub stages: Vec<StageReport>,
    pub tests: Vec<TestReport>,
}

#[derive(Debug, Serialize)]
pub struct StageReport {
    pub stage: String,
    pub kind: StageKind,
    /// As the pipeline file names it.
    pub plugin: String,
    /// What the component says; None if it does not get that far.
    pub version: Option<String>,
    pub digest: Option<String>,
    pub errors: Vec<ConfigError>,
}

#[derive(Debug, Serialize)]
pub struct TestReport {
    pub test: String,
    pub stage: String,
    pub result: TestResult,
    /// How what came out differs, or why nothing did.
    pub differences: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TestResult {
    Passed,
    Failed,
    /// Its stage has errors.
    Skipped,
}

pub async fn check(engine: &PluginEngine, folders: &PluginFolders, plan: &Plan) -> Vec<PipelineReport> {
    let mut reports = Vec::new();
    for pipeline in plan.pipelines.values() {
        reports.push(check_pipeline(engine, folders, pipeline).await);
    }
    reports
}

async fn check_pipeline(
    engine: &PluginEngine,
    folders: &PluginFolders,
    pipeline: &PipelinePlan,
) -> PipelineReport {
    let place = Place::open(&pipeline.file);
    let mut components: BTreeMap<&StageName, Component> = BTreeMap::new();
    let mut stages = Vec::new();
    for (name, stage) in &pipeline.stages {
        let opened = component::open(engine, folders, &pipeline.file, stage).await;
        let (version, digest) = match &opened {
            Ok(found) => (Some(found.descriptor.version.clone()), Some(found.plugin.digest().to_string())),
            Err(_) => (None, None),
        };
        let errors = match opened {
            Ok(found) => {
                let errors = configure(&place, &found, stage).await;
                if errors.is_empty() {
                    components.insert(name, found);
                }
                errors
            }
            Err(error) => errors(&place, stage, error),
        };
        let (plugin, kind) = (stage.plugin.name.clone(), stage.kind);
        stages.push(StageReport { stage: name.to_string(), kind, plugin, version, digest, errors });
    }
    let mut tests = Vec::new();
    for test in &pipeline.tests {
        let stage = pipeline.stages.get(&test.stage).zip(components.get(&test.stage));
        tests.push(run_test(stage, test).await);
    }
    let (pipeline, file) = (pipeline.name.to_string(), pipeline.file.display().to_string());
    PipelineReport { pipeline, file, stages, tests }
}

/// The plugin has the last word on its config.
async fn configure(place: &Place<'_>, found: &Component, stage: &StagePlan) -> Vec<ConfigError> {
    let config = stage.config.reveal();
    match found.plugin.instantiate(stage.name.as_str(), &config, &limits(&stage.limits)).await {
        Ok(_) => Vec::new(),
        Err(error) => {
            vec![place.error(stage, finding("config", stage.config.scrub(&error.to_string()), None))]
        }
    }
}

async fn run_test(stage: Option<(&StagePlan, &Component)>, test: &StageTest) -> TestReport {
    let (result, differences) = match stage {
        None => (TestResult::Skipped, Vec::new()),
        Some((stage, found)) => match test_run::run(&found.plugin, &found.descriptor, stage, test).await {
            Ok(differences) if differences.is_empty() => (TestResult::Passed, differences),
            Ok(differences) => (TestResult::Failed, differences),
            Err(error) => (TestResult::Failed, vec![error.to_string()]),
        },
    };
    TestReport { test: test.name.clone(), stage: test.stage.to_string(), result, differences }
}

fn errors(place: &Place<'_>, stage: &StagePlan, error: ComponentError) -> Vec<ConfigError> {
    let findings = match error {
        ComponentError::Lint(findings) => findings,
        ComponentError::NotFound(missing) => vec![finding("plugin", missing.message(), Some(missing.help()))],
        ComponentError::NotGranted { from, error, help } => {
            vec![finding("grants", format!("{from}: {error}"), Some(help))]
        }
        ComponentError::Pinned { .. } => vec![finding("sha256", error.to_string(), None)],
        _ => vec![finding("plugin", error.to_string(), None)],
    };
    findings.into_iter().map(|finding| place.error(stage, finding)).collect()
}

/// Finds places in a pipeline file again. A file that has changed since gives errors without a place.
struct Place<'a> {
    file: &'a Path,
    doc: Option<Document>,
}

impl<'a> Place<'a> {
    fn open(file: &'a Path) -> Self {
        let text = std::fs::read_to_string(file).ok();
        let doc = text.and_then(|text| Document::parse(file, &text).ok());
        Self { file, doc }
    }

    /// The path of the finding is within the stage.
    fn error(&self, stage: &StagePlan, finding: Finding) -> ConfigError {
        let Finding { path, mark, message, help } = finding;
        let path = stage_path(stage.kind, stage.name.as_str()).then(&path);
        match &self.doc {
            Some(doc) => doc.error(&path, mark, message, help),
            None => ConfigError {
                file: self.file.to_path_buf(),
                place: None,
                key: path.to_string(),
                message,
                help,
            },
        }
    }
}

/// A finding about the value of a key of the stage.
fn finding(key: &str, message: String, help: Option<String>) -> Finding {
    Finding { path: KeyPath::of([key]), mark: Mark::Value, message, help }
}

#[cfg(test)]
mod tests;
