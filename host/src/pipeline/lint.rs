//! A stage against what its component says of itself: ports, tables, config. Pure; the component was described before.

use std::fmt;

use crate::config::key_path::KeyPath;
use crate::config::plan::{StageKind, StagePlan};
use crate::config::suggest;
use crate::plugin::{DEFAULT_PORT, Descriptor, check_config};

/// One thing that does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Within the stage.
    pub path: KeyPath,
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)?;
        match &self.help {
            Some(help) => write!(f, " ({help})"),
            None => Ok(()),
        }
    }
}

/// Everything in a stage that its component does not go with, each in a sentence.
pub fn check(stage: &StagePlan, descriptor: &Descriptor) -> Vec<String> {
    findings(stage, descriptor).iter().map(Finding::to_string).collect()
}

/// [`check`] with the places.
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
            message: format!("the plugin {} has no table `{table}`", descriptor.name),
            help: suggest::help(table, "tables", declared().collect::<Vec<_>>()),
        });
    }
    for table in declared().filter(|table| !stage.tables.contains_key(*table)) {
        findings.push(Finding {
            path: KeyPath::of(["tables"]),
            message: format!(
                "the plugin {} keeps a table `{table}`, which has no name in Postgres",
                descriptor.name
            ),
            help: Some(format!("add `{table} = \"{table}\"`")),
        });
    }
}

fn config(stage: &StagePlan, descriptor: &Descriptor, findings: &mut Vec<Finding>) {
    let Err(mut problems) = check_config(descriptor, &stage.config.reveal()) else {
        return;
    };
    // The words of a JSON Schema error quote the value, so where there are secrets the masked config is told about.
    if stage.config.has_secrets() {
        problems = check_config(descriptor, stage.config.masked()).err().unwrap_or_else(|| {
            vec!["config: a secret does not have the form that the plugin's schema asks for".to_string()]
        });
    }
    for problem in problems {
        let (place, message) = problem.split_once(": ").unwrap_or(("config", &problem));
        findings.push(Finding {
            path: KeyPath::of(place.split('.')),
            message: message.to_string(),
            help: None,
        });
    }
}
