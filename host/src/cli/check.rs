//! `tidemill check`: are pipelines and their plugins right, and do their tests pass?

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::output::{self, plain};
use crate::config::plan::Plan;
use crate::config::plugins::PluginFolders;
use crate::config::{self, ConfigErrors};
use crate::pipeline::check::{self, PipelineReport, StageReport, TestReport, TestResult};
use crate::plugin::{EngineOptions, PluginEngine};

/// Something is wrong with a file or a plugin.
const INVALID: u8 = 2;
/// Everything is valid, but a test failed.
const FAILED: u8 = 1;

/// Validate pipelines and their plugins, and run their tests. Needs no Postgres and no running host.
///
/// Exit code 0: all is well. 1: a test failed. 2: a pipeline file or a plugin is wrong.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  tidemill check pipelines/ --plugins build/")]
pub struct CheckArgs {
    /// Pipeline files, or folders of them.
    #[arg(required = true, value_name = "FILE or FOLDER")]
    pub paths: Vec<PathBuf>,
    /// A folder of components, looked at before plugins/dist. May be repeated.
    #[arg(long = "plugins", env = "TIDEMILL_PLUGINS", value_name = "DIR")]
    pub plugins: Vec<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

pub async fn run(args: CheckArgs) -> anyhow::Result<ExitCode> {
    let plan = match config::load(&args.paths) {
        Ok(plan) => plan,
        Err(errors) => return refuse(&args, &errors),
    };
    let engine = PluginEngine::new(EngineOptions::default())?;
    let folders = PluginFolders::new(args.plugins.clone());
    let reports = check::check(&engine, &folders, &plan).await;
    let code = exit_code(&reports);
    if args.json {
        output::print_json(&json!({ "ok": code == 0, "errors": [], "pipelines": reports }))?;
    } else {
        output::print(&text(&plan, &reports))?;
    }
    Ok(ExitCode::from(code))
}

/// Files that do not even make a plan.
fn refuse(args: &CheckArgs, errors: &ConfigErrors) -> anyhow::Result<ExitCode> {
    if args.json {
        output::print_json(&json!({ "ok": false, "errors": errors, "pipelines": [] }))?;
    } else {
        let count = errors.iter().count();
        let noun = if count == 1 { "error" } else { "errors" };
        output::print(&format!("{errors}\n\n{count} {noun}\n"))?;
    }
    Ok(ExitCode::from(INVALID))
}

fn exit_code(reports: &[PipelineReport]) -> u8 {
    let mut stages = reports.iter().flat_map(|report| &report.stages);
    let mut tests = reports.iter().flat_map(|report| &report.tests);
    if stages.any(|stage| !stage.errors.is_empty()) {
        INVALID
    } else if tests.any(|test| test.result != TestResult::Passed) {
        FAILED
    } else {
        0
    }
}

fn text(plan: &Plan, reports: &[PipelineReport]) -> String {
    let mut out = String::new();
    for report in reports {
        let topics = plan.pipelines.get(report.pipeline.as_str()).map_or(0, |pipeline| pipeline.topics.len());
        // Writing to a string does not fail.
        let _ = writeln!(out, "{}: pipeline {}, {topics} topics", report.file, report.pipeline);
        for stage in &report.stages {
            out.push_str(&stage_text(stage));
        }
        for test in &report.tests {
            out.push_str(&test_text(test));
        }
    }
    out.push_str(&summary(reports));
    out
}

fn stage_text(stage: &StageReport) -> String {
    let word = if stage.errors.is_empty() { "ok" } else { "ERROR" };
    let mut line = format!("  {word:<8}{} {}: {}", stage.kind, stage.stage, stage.plugin);
    if let Some((version, digest)) = stage.version.as_ref().zip(stage.digest.as_ref()) {
        let digest: String = digest.trim_start_matches("sha256:").chars().take(12).collect();
        line.push_str(&format!(" {} ({digest})", plain(version)));
    }
    line.push('\n');
    for error in &stage.errors {
        line.push_str(&indented(&error.to_string(), "    "));
    }
    line
}

fn test_text(test: &TestReport) -> String {
    let word = match test.result {
        TestResult::Passed => "ok",
        TestResult::Failed => "FAILED",
        TestResult::Skipped => "skipped",
    };
    let mut line = format!("  {word:<8}test of {}: {}\n", test.stage, plain(&test.test));
    line.push_str(&indented(&test.differences.join("\n"), "            "));
    line
}

fn indented(text: &str, by: &str) -> String {
    text.lines().map(|line| format!("{by}{}\n", plain(line))).collect()
}

fn summary(reports: &[PipelineReport]) -> String {
    let stages = || reports.iter().flat_map(|report| &report.stages);
    let tests =
        |result| reports.iter().flat_map(|r| &r.tests).filter(move |test| test.result == result).count();
    let errors: usize = stages().map(|stage| stage.errors.len()).sum();
    let mut parts =
        vec![format!("{} stages", stages().count()), format!("{} tests passed", tests(TestResult::Passed))];
    let wrong = [
        (tests(TestResult::Failed), "tests failed"),
        (tests(TestResult::Skipped), "tests skipped"),
        (errors, "errors"),
    ];
    parts.extend(wrong.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")));
    format!("{}\n", parts.join(", "))
}
