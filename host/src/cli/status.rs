//! `tidemill status`: one screen about the running host.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use comfy_table::Table;
use serde_json::Value;

use super::client::ClientArgs;
use super::client::views::{DeadLetterCount, HostInfo, Pipeline, Status, TableInfo};
use super::group::group_table;
use super::output::{count, plain, print, print_json, rate, seconds, short_digest, size, table};
use super::queue::queue_table;
use super::topic::topic_table;

/// Clears the screen and goes to its top left corner.
const CLEAR: &str = "\u{1b}[H\u{1b}[2J\u{1b}[3J";

/// Where the host stops counting the dead letters of a group.
const LETTERS_COUNTED: u64 = 100_000;

/// Show the running host: pipelines, topics, groups, rates, lag
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  tidemill status\n  tidemill status --watch\n  \
                        psql \"$(tidemill status --json | jq -r .postgres_url)\"")]
pub struct StatusArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Show it anew every so many seconds
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1",
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    watch: Option<u64>,
    #[command(flatten)]
    client: ClientArgs,
}

pub async fn run(args: StatusArgs) -> anyhow::Result<ExitCode> {
    let client = args.client.connect()?;
    loop {
        let answer: Value = client.get(&["v1", "status"]).await?;
        let reading = if args.json {
            print_json(&answer)?
        } else {
            let screen = screen(&serde_json::from_value(answer)?);
            let clear = if args.watch.is_some() { CLEAR } else { "" };
            print(&format!("{clear}{screen}"))?
        };
        match args.watch {
            Some(pause) if reading => tokio::time::sleep(Duration::from_secs(pause)).await,
            _ => return Ok(ExitCode::SUCCESS),
        }
    }
}

fn screen(status: &Status) -> String {
    let mut out = format!(
        "tidemill {} at {}   up {}",
        plain(&status.version),
        plain(&status.url),
        seconds(status.uptime_seconds)
    );
    if let Some(memory) = status.memory_bytes {
        let _ = write!(out, "   memory {}", size(memory));
    }
    let _ = write!(out, "\npostgres {}   {}\n", plain(&status.postgres_version), plain(&status.postgres_url));
    if let Some(data_dir) = &status.data_dir {
        let _ = writeln!(out, "host {}   data {}", plain(&status.host), plain(data_dir));
    }
    if !status.durability.durable {
        let _ = writeln!(
            out,
            "WARNING: Postgres may lose acknowledged records (fsync {}, full_page_writes {}, synchronous_commit {})",
            on(status.durability.fsync),
            on(status.durability.full_page_writes),
            plain(&status.durability.synchronous_commit)
        );
    }
    if let Some(files) = &status.pipeline_files {
        let _ = writeln!(
            out,
            "WARNING: since {} the pipeline files do not run, and what ran before goes on:\n{}",
            plain(&files.at),
            files.error.lines().map(plain).collect::<Vec<_>>().join("\n")
        );
    }
    for pipeline in &status.pipelines {
        let title = format!("pipeline {} ({})", plain(&pipeline.name), plain(&pipeline.file));
        section(&mut out, &title, &stage_table(pipeline));
        reasons(&mut out, pipeline);
    }
    section(&mut out, "topics", &topic_table(&status.topics));
    section(&mut out, "consumer groups", &group_table(&status.groups));
    section(&mut out, "queues", &queue_table(&status.queues));
    section(&mut out, "dead letters", &letter_counts(&status.dead_letters));
    section(&mut out, "tables", &table_table(&status.tables));
    // One host alone is the one at the top.
    if status.hosts.len() > 1 {
        section(&mut out, "hosts", &host_table(&status.hosts));
    }
    out
}

fn on(setting: bool) -> &'static str {
    if setting { "on" } else { "off" }
}

fn section(out: &mut String, title: &str, table: &Table) {
    if !table.is_empty() {
        let _ = write!(out, "\n{title}\n{}\n", table.trim_fmt());
    }
}

fn stage_table(pipeline: &Pipeline) -> Table {
    let mut out = table(&[
        "STAGE",
        "KIND",
        "PLUGIN",
        "DIGEST",
        "STATE",
        "FROM",
        "TO",
        ">IN",
        ">OUT",
        ">REFUSED",
        ">LAG",
        ">RESTARTS",
    ]);
    for stage in &pipeline.stages {
        let plugin = match &stage.version {
            Some(version) => format!("{} {version}", stage.plugin),
            None => stage.plugin.clone(),
        };
        let to: Vec<&str> = stage.to.values().chain(stage.to_queues.values()).map(String::as_str).collect();
        let from = stage.from.as_deref().or(stage.queue.as_deref());
        out.add_row([
            plain(&stage.name),
            plain(&stage.kind),
            plain(&plugin),
            stage.digest.as_deref().map_or_else(|| "-".to_string(), short_digest),
            plain(&stage.state),
            plain(from.unwrap_or("-")),
            if to.is_empty() { "-".to_string() } else { plain(&to.join(", ")) },
            rate(stage.records_in_per_second),
            rate(stage.records_out_per_second),
            count(stage.refused),
            stage.lag.map_or_else(|| "-".to_string(), count),
            count(stage.restarts),
        ]);
    }
    out
}

/// Why stages are not running, or not running what was asked for, below their table: a reason is a sentence, not a cell.
fn reasons(out: &mut String, pipeline: &Pipeline) {
    for stage in &pipeline.stages {
        let name = plain(&stage.name);
        if let Some(reason) = &stage.reason {
            let _ = writeln!(out, "  {name} is {}: {}", stage.state, plain(reason));
        }
        if let Some(deployment) = &stage.deployment {
            let since = plain(&deployment.since);
            match (deployment.state.as_str(), &deployment.reason) {
                ("probation", _) => drop(writeln!(out, "  {name} is on probation since {since}")),
                ("rolled-back", Some(reason)) => {
                    let _ = writeln!(out, "  {name} was rolled back at {since}: {}", plain(reason));
                }
                _ => {}
            }
        }
        if let Some(candidate) = &stage.candidate {
            let (from, error) = (plain(&candidate.from), plain(&candidate.error));
            let _ = writeln!(out, "  {name} did not take {from} at {}: {error}", plain(&candidate.at));
        }
    }
}

fn letter_counts(counts: &[DeadLetterCount]) -> Table {
    let mut out = table(&["GROUP", ">LETTERS", ">QUEUED"]);
    for group in counts {
        let letters = match group.letters {
            LETTERS_COUNTED.. => format!("{} or more", count(LETTERS_COUNTED)),
            letters => count(letters),
        };
        out.add_row([plain(&group.group), letters, count(group.queued)]);
    }
    out
}

fn table_table(tables: &[TableInfo]) -> Table {
    let mut out = table(&["TABLE", "STAGE", "KEY", ">ROWS"]);
    for info in tables {
        out.add_row([
            plain(&format!("{}.{}", info.schema, info.name)),
            plain(&info.stage),
            plain(&info.key.join(", ")),
            count(info.rows),
        ]);
    }
    out
}

fn host_table(hosts: &[HostInfo]) -> Table {
    let mut out = table(&["HOST", "VERSION", "URL", ">LEASES"]);
    for host in hosts {
        let url = host.url.as_deref().unwrap_or("-");
        out.add_row([plain(&host.host), plain(&host.version), plain(url), count(host.leases)]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_screen_has_state_rate_lag_and_a_loud_warning() {
        let status: Status = serde_json::from_value(serde_json::json!({
            "version": "0.1.0", "host": "h-1", "uptime_seconds": 12.3, "url": "http://127.0.0.1:8080",
            "postgres_url": "postgres://x", "postgres_version": "15.18", "data_dir": "/d", "memory_bytes": 1048576,
            "durability": { "durable": false, "fsync": false, "full_page_writes": true, "synchronous_commit": "on" },
            "pipelines": [{ "name": "aircraft", "file": "a.toml", "stages": [{
                "name": "fleet", "kind": "producer", "plugin": "gen", "version": "0.1.0", "digest": "sha256:0",
                "group": null, "from": null, "to": { "default": "positions" }, "state": "backoff",
                "reason": "trap: out\u{1b}[2J of fuel", "restarts": 2, "records_in": 0, "records_out": 5, "refused": 0,
                "records_in_per_second": 0.0, "records_out_per_second": 999.8, "lag": null, "tasks": [] }] }],
            "dead_letters": [{ "group": "latest", "letters": 100000, "queued": 7 }],
            "topics": [], "groups": [{ "group": "latest", "topic": "positions", "stage": null, "lag": 1234,
                "records_per_second": 10.0, "partitions": [] }],
            "tables": [], "hosts": [
                { "host": "h-1", "version": "0.1.0", "url": "http://127.0.0.1:8080", "leases": 3 },
                { "host": "h-2", "version": "0.1.0", "url": null, "leases": 2 }]
        }))
        .unwrap();
        let screen = screen(&status);
        let parts = [
            "fsync off",
            "1,000/s",
            "1,234",
            "fleet is backoff: trap",
            "1.0 MiB",
            "100,000 or more",
            "h-2   0.1.0",
        ];
        for part in parts {
            assert!(screen.contains(part), "{part:?} is not in\n{screen}");
        }
        assert!(!screen.contains('\u{1b}'), "{screen}");
    }
}
