//! The verbs of a running host: list, history, push, shadows, rollback.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cli::Invalid;
use crate::cli::client::{Client, ClientArgs, ClientError};
use crate::cli::output::{plain, print, print_json, print_table, short_digest, size, table};
use crate::config::units;
use crate::plugin::MAX_COMPONENT_BYTES;

/// A component of the largest size is sent and compiled within this.
const PUSH_TIMEOUT: Duration = Duration::from_secs(180);

/// How often a push asks how the new version does.
const ASK: Duration = Duration::from_millis(100);

#[derive(Args, Debug)]
pub struct ListArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Args, Debug)]
pub struct HistoryArgs {
    /// The stage
    #[arg(value_name = "PIPELINE/STAGE", value_parser = stage)]
    stage: Stage,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Args, Debug)]
pub struct PushArgs {
    /// The component
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The stage that is to run it
    #[arg(long, value_name = "PIPELINE/STAGE", value_parser = stage)]
    stage: Stage,
    /// How long to wait for the end of its probation
    #[arg(long, default_value = "2s", value_parser = units::duration, value_name = "DURATION")]
    wait: Duration,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Args, Debug)]
pub struct ShadowArgs {
    /// The component
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The stage that it is to run beside
    #[arg(long, value_name = "PIPELINE/STAGE", value_parser = stage)]
    stage: Stage,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Args, Debug)]
pub struct StageArgs {
    /// The stage
    #[arg(value_name = "PIPELINE/STAGE", value_parser = stage)]
    stage: Stage,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Args, Debug)]
pub struct RollbackArgs {
    /// The stage
    #[arg(value_name = "PIPELINE/STAGE", value_parser = stage)]
    stage: Stage,
    /// The version to go back to: the first digits of its digest
    #[arg(long, value_name = "DIGEST")]
    to: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Clone, Debug)]
struct Stage {
    pipeline: String,
    name: String,
}

impl Stage {
    /// The path of the stage in the API, and on.
    fn path<'a>(&'a self, then: &[&'a str]) -> Vec<&'a str> {
        [&["v1", "pipelines", &self.pipeline, "stages", &self.name], then].concat()
    }
}

fn stage(text: &str) -> Result<Stage, String> {
    match text.split_once('/') {
        Some((pipeline, name)) if !pipeline.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok(Stage { pipeline: pipeline.to_string(), name: name.to_string() })
        }
        _ => Err("write the pipeline and the stage, as in aircraft/watch".to_string()),
    }
}

/// The part of the answers that is shown.
#[derive(Debug, Deserialize)]
struct Active {
    stage: String,
    digest: String,
    previous: Option<String>,
    epoch: i64,
    state: String,
    reason: Option<String>,
    changed_at: String,
}

pub async fn list(args: ListArgs) -> anyhow::Result<ExitCode> {
    #[derive(Deserialize)]
    struct Stored {
        digest: String,
        kind: String,
        name: String,
        version: String,
        size: u64,
        kept: bool,
        pushed_at: String,
        stages: Vec<String>,
    }
    let answer: Value = args.client.connect()?.get(&["v1", "plugins"]).await?;
    if args.json {
        print_json(&answer)?;
        return Ok(ExitCode::SUCCESS);
    }
    let stored: Vec<Stored> = serde_json::from_value(answer["plugins"].clone())?;
    let mut out = table(&["DIGEST", "NAME", "VERSION", "KIND", ">SIZE", "STORED", "RUN BY"]);
    for plugin in stored {
        let stored = if plugin.kept { plain(&plugin.pushed_at) } else { "bytes not kept".to_string() };
        let stages = plugin.stages.join(", ");
        out.add_row([
            short_digest(&plugin.digest),
            plain(&plugin.name),
            plain(&plugin.version),
            plain(&plugin.kind),
            size(plugin.size),
            stored,
            if stages.is_empty() { "-".to_string() } else { plain(&stages) },
        ]);
    }
    print_table(&out, "no plugin has run yet")?;
    Ok(ExitCode::SUCCESS)
}

pub async fn history(args: HistoryArgs) -> anyhow::Result<ExitCode> {
    #[derive(Deserialize)]
    struct Past {
        epoch: i64,
        digest: String,
        source: String,
        started_at: String,
        proven: bool,
        outcome: Option<String>,
        reason: Option<String>,
    }
    let answer: Value = args.client.connect()?.get(&args.stage.path(&["plugin"])).await?;
    if args.json {
        print_json(&answer)?;
        return Ok(ExitCode::SUCCESS);
    }
    let history: Vec<Past> = serde_json::from_value(answer["history"].clone())?;
    let mut out = table(&[">EPOCH", "DIGEST", "FROM", "SINCE", "STATE", "REASON"]);
    for past in history {
        let state = match (past.outcome.as_deref(), past.proven) {
            (Some(outcome), _) => outcome,
            (None, true) => "runs",
            (None, false) => "runs, on probation",
        };
        out.add_row([
            past.epoch.to_string(),
            short_digest(&past.digest),
            plain(&past.source),
            plain(&past.started_at),
            plain(state),
            plain(past.reason.as_deref().unwrap_or("-")),
        ]);
    }
    print_table(&out, "the stage has not run yet")?;
    Ok(ExitCode::SUCCESS)
}

pub async fn push(args: PushArgs) -> anyhow::Result<ExitCode> {
    let client = args.client.connect()?;
    let path = args.stage.path(&["plugin"]);
    let pushed: Active = serde_json::from_value(put(&client, &path, &args.file).await?)?;
    let (now, answer) = outcome(&client, &path, &pushed, args.wait).await?;
    if now.digest != pushed.digest && now.state == "rolled-back" {
        let reason = plain(now.reason.as_deref().unwrap_or_default());
        anyhow::bail!(
            "{} failed its probation and was rolled back: {reason}; {} runs {} again",
            short_digest(&pushed.digest),
            plain(&now.stage),
            short_digest(&now.digest)
        );
    }
    show(&now, &answer, args.json)
}

/// Sends a component.
async fn put(client: &Client, path: &[&str], file: &Path) -> anyhow::Result<Value> {
    let unreadable = || format!("cannot read {}", file.display());
    let size = tokio::fs::metadata(file).await.with_context(unreadable)?.len();
    if size > MAX_COMPONENT_BYTES as u64 {
        let most = units::show_size(MAX_COMPONENT_BYTES as u64);
        return Err(Invalid(format!("{} is larger than the {most} of a plugin", file.display())).into());
    }
    let request = client
        .request(Method::PUT, path)
        .header(reqwest::header::CONTENT_TYPE, "application/wasm")
        .timeout(PUSH_TIMEOUT)
        .body(tokio::fs::read(file).await.with_context(unreadable)?);
    let answer = client.send(request).await.map_err(refused)?;
    Ok(serde_json::from_slice(&answer.bytes().await?)?)
}

/// Asks until the probation is over or the time is up.
async fn outcome(
    client: &Client,
    path: &[&str],
    pushed: &Active,
    wait: Duration,
) -> anyhow::Result<(Active, Value)> {
    let until = Instant::now() + wait;
    loop {
        let answer: Value = client.get(path).await?;
        let now: Active = serde_json::from_value(answer.clone())?;
        let open = now.epoch == pushed.epoch && now.state == "probation";
        if !open || Instant::now() >= until {
            return Ok((now, answer));
        }
        tokio::time::sleep(ASK).await;
    }
}

/// A component that is refused is wrong input.
fn refused(error: ClientError) -> anyhow::Error {
    match error.code() {
        Some("plugin_refused") => Invalid(error.to_string()).into(),
        _ => error.into(),
    }
}

pub async fn rollback(args: RollbackArgs) -> anyhow::Result<ExitCode> {
    let client = args.client.connect()?;
    let answer: Value =
        client.post(&args.stage.path(&["plugin", "rollback"]), &json!({ "to": args.to })).await?;
    let now: Active = serde_json::from_value(answer.clone())?;
    show(&now, &answer, args.json)
}

pub async fn shadow(args: ShadowArgs) -> anyhow::Result<ExitCode> {
    #[derive(Deserialize)]
    struct Shadow {
        stage: String,
        digest: String,
        view: String,
    }
    let answer = put(&args.client.connect()?, &args.stage.path(&["shadow"]), &args.file).await?;
    if args.json {
        print_json(&answer)?;
        return Ok(ExitCode::SUCCESS);
    }
    let shadow: Shadow = serde_json::from_value(answer)?;
    let (stage, digest, view) = (plain(&shadow.stage), short_digest(&shadow.digest), plain(&shadow.view));
    print(&format!(
        "{digest} runs beside {stage}\n  differences   SELECT * FROM {view}   (in Postgres; `tidemill status` prints its URL)\n  \
         take it       tidemill plugin promote {stage}\n  drop it       tidemill plugin unshadow {stage}\n"
    ))?;
    Ok(ExitCode::SUCCESS)
}

pub async fn unshadow(args: StageArgs) -> anyhow::Result<ExitCode> {
    args.client.connect()?.delete(&args.stage.path(&["shadow"])).await?;
    Ok(ExitCode::SUCCESS)
}

pub async fn promote(args: StageArgs) -> anyhow::Result<ExitCode> {
    let client = args.client.connect()?;
    let request = client.request(Method::POST, &args.stage.path(&["shadow", "promote"]));
    let answer: Value = client.json(request).await?;
    let now: Active = serde_json::from_value(answer.clone())?;
    show(&now, &answer, false)
}

fn show(now: &Active, answer: &Value, as_json: bool) -> anyhow::Result<ExitCode> {
    if as_json {
        print_json(answer)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut line =
        format!("{} runs {} since {}", plain(&now.stage), short_digest(&now.digest), plain(&now.changed_at));
    if let ("probation", Some(previous)) = (now.state.as_str(), &now.previous) {
        line.push_str(&format!(", on probation; {} stands by", short_digest(previous)));
    }
    print(&format!("{line}\n"))?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_is_named_with_its_pipeline() {
        let read = stage("aircraft/watch").unwrap();
        assert_eq!((read.pipeline.as_str(), read.name.as_str()), ("aircraft", "watch"));
        assert_eq!(
            read.path(&["plugin", "rollback"]).join("/"),
            "v1/pipelines/aircraft/stages/watch/plugin/rollback"
        );
        assert!(["watch", "/watch", "aircraft/", "a/b/c"].iter().all(|text| stage(text).is_err()));
    }
}
