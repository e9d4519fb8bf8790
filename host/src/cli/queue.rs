//! `tidemill queue`: list, show, pause, resume.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use comfy_table::Table;
use serde_json::{Value, json};

use super::client::ClientArgs;
use super::client::views::{Queue, Queues};
use super::output::{count, plain, print, print_json, print_table, seconds, table};

/// List, show, pause and resume queues of jobs
#[derive(Args, Debug)]
pub struct QueueArgs {
    #[command(subcommand)]
    verb: QueueVerb,
}

#[derive(Subcommand, Debug)]
enum QueueVerb {
    /// List the queues and what they hold
    #[command(after_help = "Example:\n  tidemill queue list")]
    List(ListArgs),
    /// Show one queue: what it holds, its settings, its crons
    #[command(after_help = "Example:\n  tidemill queue show reports")]
    Show(QueueRef),
    /// Stop a queue's jobs from being claimed; those that run go on
    #[command(after_help = "Example:\n  tidemill queue pause reports")]
    Pause(QueueRef),
    /// Let a queue's jobs be claimed again
    #[command(after_help = "Example:\n  tidemill queue resume reports")]
    Resume(QueueRef),
}

#[derive(Args, Debug)]
struct ListArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Args, Debug)]
struct QueueRef {
    /// The queue
    queue: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    client: ClientArgs,
}

pub async fn run(args: QueueArgs) -> anyhow::Result<ExitCode> {
    match args.verb {
        QueueVerb::List(args) => list(args).await?,
        QueueVerb::Show(args) => show(args).await?,
        QueueVerb::Pause(args) => set(args, "pause", "paused").await?,
        QueueVerb::Resume(args) => set(args, "resume", "resumed").await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(args: ListArgs) -> anyhow::Result<()> {
    let client = args.client.connect()?;
    let answer: Value = client.get(&["v1", "queues"]).await?;
    if args.json {
        print_json(&answer)?;
        return Ok(());
    }
    let queues: Queues = serde_json::from_value(answer)?;
    print_table(&queue_table(&queues.queues), "no queues: [queues.NAME] in a pipeline file makes one")?;
    Ok(())
}

/// A line for each queue.
pub fn queue_table(queues: &[Queue]) -> Table {
    let mut out =
        table(&["QUEUE", "STATE", ">WAITING", ">SCHEDULED", ">BLOCKED", ">RUNNING", ">DEAD", ">OLDEST"]);
    for queue in queues {
        out.add_row([
            plain(&queue.name),
            if queue.paused { "paused" } else { "open" }.to_string(),
            count(queue.waiting),
            count(queue.scheduled),
            count(queue.blocked),
            count(queue.running),
            count(queue.dead),
            queue.oldest_waiting_s.map_or_else(|| "-".to_string(), seconds),
        ]);
    }
    out
}

async fn show(args: QueueRef) -> anyhow::Result<()> {
    let client = args.client.connect()?;
    let answer: Value = client.get(&["v1", "queues", &args.queue]).await?;
    if args.json {
        print_json(&answer)?;
        return Ok(());
    }
    print(&described(&serde_json::from_value(answer)?))?;
    Ok(())
}

fn described(queue: &Queue) -> String {
    let mut out = format!("{}\n\n", queue_table(std::slice::from_ref(queue)).trim_fmt());
    let limit = |limit: Option<u32>| limit.map_or_else(|| "no limit".to_string(), |n| count(n.into()));
    let backoff = format!("{}, at most {}", seconds(queue.backoff_first_s), seconds(queue.backoff_longest_s));
    let settings = [
        ("lease", seconds(queue.lease_s)),
        ("attempts", count(queue.max_attempts.into())),
        ("back-off", backoff),
        ("running", limit(queue.concurrency)),
        ("per key", if queue.ordered { "one at a time, in order".to_string() } else { limit(queue.per_key) }),
        ("kept for", seconds(queue.keep_s)),
        ("history", plain(queue.history.as_deref().unwrap_or("-"))),
    ];
    for (name, value) in settings {
        let _ = writeln!(out, "{name:<10} {value}");
    }
    if !queue.crons.is_empty() {
        let mut crons = table(&["CRON", "SCHEDULE", "NEXT", "LAST"]);
        for cron in &queue.crons {
            let last = cron.fired_at.as_deref().map_or("-", second);
            crons.add_row([
                plain(&cron.name),
                plain(&cron.schedule),
                plain(second(&cron.next_at)),
                plain(last),
            ]);
        }
        let _ = write!(out, "\n{}\n", crons.trim_fmt());
    }
    out
}

/// A time without what is below a second.
pub fn second(time: &str) -> &str {
    time.get(..19).unwrap_or(time)
}

async fn set(args: QueueRef, verb: &str, done: &str) -> anyhow::Result<()> {
    let client = args.client.connect()?;
    let answer: Value = client.post(&["v1", "queues", &args.queue, verb], &json!({})).await?;
    match args.json {
        true => print_json(&answer)?,
        false => print(&format!("{done} queue {}\n", plain(&args.queue)))?,
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_shown_with_settings_and_crons() {
        let queue: Queue = serde_json::from_value(json!({
            "name": "reports", "paused": true, "waiting": 12345, "scheduled": 2, "blocked": 0, "running": 4, "dead": 1,
            "oldest_waiting_at": null, "oldest_waiting_s": 90.5, "lease_s": 30.0, "max_attempts": 10,
            "backoff_first_s": 1.0, "backoff_longest_s": 3600.0, "concurrency": 50, "per_key": null, "ordered": true,
            "keep_s": 3600.0, "history": "report_jobs", "created_at": "2026-01-01T00:00:00.000000Z",
            "crons": [{ "name": "nightly", "schedule": "0 3 * * *", "next_at": "2026-01-02T03:00:00.000000Z",
                        "fired_at": null, "job": null }]
        }))
        .unwrap();
        let shown = described(&queue);
        for part in [
            "paused",
            "12,345",
            "1 m 30 s",
            "1.0 s, at most 1 h 0 m",
            "in order",
            "2026-01-02T03:00:00",
            "50",
        ] {
            assert!(shown.contains(part), "{part:?} is not in\n{shown}");
        }
    }
}
