//! A stage against what its component says of itself: ports, tables, config. Pure; the component was described before.

use serde_json::Value;

use crate::config::document::Mark;
use crate::config::key_path::KeyPath;
use crate::config::plan::{StageKind, StagePlan};
use crate::config::shape::{self, Finding};
use crate::config::suggest;
use crate::plugin::{DEFAULT_PORT, Descriptor, config_validator};

/// Everything in a stage that its component does not go with, each in a sentence.
pub fn check(stage: &StagePlan, descriptor: &Descriptor) -> Vec<String> {
    findings(stage, descriptor).iter().map(sentence).collect()
}

/// A finding in one line.
pub fn sentence(finding: &Finding) -> String {
    match &finding.help {
        Some(help) => format!("{}: {} ({help})", finding.path, finding.message),
        None => format!("{}: {}", finding.path, finding.message),
    }
}

/// [`check`] with the places within the stage.
pub fn findings(stage: &StagePlan, descriptor: &Descriptor) -> Vec<Finding> {
    let mut findings = Vec::new();
    ports(stage, descriptor, &mut findings);
    tables(stage, descriptor, &mut findings);
    config(stage, descriptor, &mut findings);
    findings
}

/// A port in `to` must exist. A port that `to` leaves out is not connected: what comes out of it is dropped.
fn ports(stage: &StagePlan, descriptor: &Descriptor, findings: &mut Vec<Finding>) {
    let declared = || descriptor.ports.iter().map(|port| port.name.as_str()).chain([DEFAULT_PORT]);
    for port in stage.outputs.keys().filter(|port| !declared().any(|name| name == *port)) {
        findings.push(Finding {
            path: KeyPath::of(["to", port]),
            mark: Mark::Key,
            message: format!("the plugin {} has no port `{port}`", descriptor.name),
            help: suggest::help(port, "ports", declared().collect::<Vec<_>>()),
        });
    }
}

fn tables(stage: &StagePlan, descriptor: &Descriptor, findings: &mut Vec<Finding>) {
    if stage.kind != StageKind::Materializer {
        return;
    }
    let declared = || descriptor.tables.iter().map(|table| table.name.as_str());
    for table in stage.tables.keys().filter(|table| !declared().any(|name| name == *table)) {
        findings.push(Finding {
            path: KeyPath::of(["tables", table]),
            mark: Mark::Key,
            message: format!("the plugin {} has no table `{table}`", descriptor.name),
            help: suggest::help(table, "tables", declared().collect::<Vec<_>>()),
        });
    }
    for table in declared().filter(|table| !stage.tables.contains_key(*table)) {
        findings.push(Finding {
            path: KeyPath::of(["tables"]),
            mark: Mark::Missing,
            message: format!(
                "the plugin {} keeps a table `{table}`, which has no name in Postgres",
                descriptor.name
            ),
            help: Some(format!("add `{table} = \"{table}\"`")),
        });
    }
}

fn config(stage: &StagePlan, descriptor: &Descriptor, findings: &mut Vec<Finding>) {
    let path = KeyPath::of(["config"]);
    let mut fail = |message: String| {
        let (path, mark) = (path.clone(), Mark::Key);
        findings.push(Finding { path, mark, message, help: None });
    };
    let values = stage.config.reveal();
    let validator = match config_validator(descriptor) {
        Ok(Some(validator)) => validator,
        Ok(None) if values.as_object().is_none_or(|values| values.is_empty()) => return,
        Ok(None) => return fail(format!("the plugin {} takes no config", descriptor.name)),
        Err(problem) => return fail(problem),
    };
    if validator.is_valid(&values) {
        return;
    }
    // Words about a value quote it, so they are about the masked one.
    let schema: Value = serde_json::from_str(&descriptor.config_schema).unwrap_or_default();
    let found = shape::explain(&validator, &schema, stage.config.masked());
    if found.is_empty() {
        fail("a secret does not have the form that the plugin asks for".to_string());
    }
    let in_stage = |finding: Finding| Finding { path: path.then(&finding.path), ..finding };
    findings.extend(found.into_iter().map(in_stage));
}
