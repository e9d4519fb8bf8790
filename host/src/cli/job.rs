//! `tidemill job`: enqueue, list, show, retry, cancel, drop.

mod enqueue;

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use comfy_table::Table;
use reqwest::Method;
use serde_json::Value;

use super::carried::{cut, headers, key, payload};
use super::client::ClientArgs;
use super::client::views::{Job, JobPage};
use super::output::{plain, print, print_json, print_table, size, table};
use super::queue::second;
use enqueue::EnqueueArgs;

/// Put, list, show, retry, cancel and drop jobs of a queue
#[derive(Args, Debug)]
pub struct JobArgs {
    #[command(subcommand)]
    verb: JobVerb,
}

#[derive(Subcommand, Debug)]
enum JobVerb {
    /// Put jobs into a queue
    #[command(after_help = "Examples:\n  tidemill job enqueue reports '{\"incident\":17}'\n  \
                      tidemill job enqueue reports '{\"incident\":17}' --key a1 --priority 1 --in 10m --unique incident-17\n  \
                      pg_dump -s | tidemill job enqueue backups -\n  tidemill job enqueue reports --file incidents.ndjson")]
    Enqueue(EnqueueArgs),
    /// List jobs in a state
    #[command(
        after_help = "Examples:\n  tidemill job list reports\n  tidemill job list reports --state dead --limit 200 --json"
    )]
    List(ListArgs),
    /// Show one job: where it stands, key, headers, payload, result
    #[command(after_help = "Example:\n  tidemill job show reports 17")]
    Show(ShowArgs),
    /// Run dead or scheduled jobs now; a dead one has its attempts counted from the start
    #[command(after_help = "Example:\n  tidemill job retry reports 17 18")]
    Retry(ChangeArgs),
    /// End jobs that have not ended; one that runs is taken from its worker
    #[command(after_help = "Example:\n  tidemill job cancel reports 17 18")]
    Cancel(ChangeArgs),
    /// Drop dead jobs for good
    #[command(after_help = "Example:\n  tidemill job drop reports 17 18")]
    Drop(ChangeArgs),
}

#[derive(Args, Debug)]
struct ListArgs {
    /// The queue
    queue: String,
    /// Where they stand
    #[arg(long, default_value = "waiting",
          value_parser = ["waiting", "scheduled", "blocked", "running", "dead", "done", "cancelled"])]
    state: String,
    /// How many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Only what comes after this job: the next page
    #[arg(long, value_name = "ID")]
    before: Option<u64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Args, Debug)]
struct ShowArgs {
    /// The queue
    queue: String,
    /// The job's id
    id: u64,
    /// Show the payload as a hex dump even if it is text
    #[arg(long)]
    hex: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Args, Debug)]
struct ChangeArgs {
    /// The queue
    queue: String,
    /// The ids of jobs
    #[arg(required = true)]
    ids: Vec<u64>,
    #[command(flatten)]
    client: ClientArgs,
}

pub async fn run(args: JobArgs) -> anyhow::Result<ExitCode> {
    match args.verb {
        JobVerb::Enqueue(args) => enqueue::run(args).await?,
        JobVerb::List(args) => list(args).await?,
        JobVerb::Show(args) => show(args).await?,
        JobVerb::Retry(args) => change(args, Change::Retry).await?,
        JobVerb::Cancel(args) => change(args, Change::Cancel).await?,
        JobVerb::Drop(args) => change(args, Change::Drop).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(args: ListArgs) -> anyhow::Result<()> {
    let client = args.client.connect()?;
    let mut query = vec![("state", args.state.clone()), ("limit", args.limit.to_string())];
    query.extend(args.before.map(|id| ("before", id.to_string())));
    let request = client.request(Method::GET, &["v1", "queues", &args.queue, "jobs"]).query(&query);
    let answer: Value = client.json(request).await?;
    if args.json {
        print_json(&answer)?;
        return Ok(());
    }
    let page: JobPage = serde_json::from_value(answer)?;
    print_table(&job_table(&page.jobs), &format!("no {} jobs", args.state))?;
    if let Some(next) = page.next {
        print(&format!("there may be more: --before {next}\n"))?;
    }
    Ok(())
}

fn job_table(jobs: &[Job]) -> Table {
    let mut out =
        table(&[">ID", "STATE", ">PRIORITY", ">ATTEMPT", "KEY", "ENQUEUED", "SINCE", "WORKER", "ERROR"]);
    for job in jobs {
        let since = job.finished_at.as_deref().or(job.claimed_at.as_deref()).or(job.run_at.as_deref());
        out.add_row([
            job.id.to_string(),
            plain(&job.state),
            job.priority.to_string(),
            format!("{} of {}", job.attempt, job.max_attempts),
            plain(job.key.as_deref().unwrap_or("-")),
            plain(second(&job.enqueued_at)),
            plain(since.map_or("-", second)),
            plain(job.worker.as_deref().unwrap_or("-")),
            cut(job.error.as_deref().unwrap_or("-")),
        ]);
    }
    out
}

async fn show(args: ShowArgs) -> anyhow::Result<()> {
    let client = args.client.connect()?;
    let answer: Value = client.get(&["v1", "queues", &args.queue, "jobs", &args.id.to_string()]).await?;
    if args.json {
        print_json(&answer)?;
        return Ok(());
    }
    print(&described(&args.queue, &answer, args.hex)?)?;
    Ok(())
}

fn described(queue: &str, answer: &Value, hex: bool) -> anyhow::Result<String> {
    let job: Job = serde_json::from_value(answer.clone())?;
    let mut out = String::new();
    let time = |time: &Option<String>| plain(time.as_deref().unwrap_or("-"));
    let lines = [
        ("job", format!("{} of queue {} ({})", job.id, plain(queue), plain(&job.state))),
        ("attempt", format!("{} of {}", job.attempt, job.max_attempts)),
        ("priority", job.priority.to_string()),
        ("enqueued", plain(&job.enqueued_at)),
        ("due", time(&job.run_at)),
        ("claimed", time(&job.claimed_at)),
        ("finished", time(&job.finished_at)),
        ("worker", time(&job.worker)),
        ("error", time(&job.error)),
        ("unique", time(&job.unique_key)),
        ("key", key(answer)),
    ];
    for (name, value) in lines {
        let _ = writeln!(out, "{name:<10} {value}");
    }
    out.push_str(&headers(answer));
    let _ = writeln!(out, "{:<10} {}\n", "payload", size(job.bytes));
    out.push_str(&payload(answer, hex)?);
    if answer["result"].is_object() {
        let _ = writeln!(out, "\nresult\n");
        out.push_str(&payload(&answer["result"], hex)?);
    }
    Ok(out)
}

#[derive(Clone, Copy)]
enum Change {
    Retry,
    Cancel,
    Drop,
}

/// One after the other, up to the first that cannot be changed.
async fn change(args: ChangeArgs, change: Change) -> anyhow::Result<()> {
    let client = args.client.connect()?;
    for id in &args.ids {
        let number = id.to_string();
        let path = ["v1", "queues", args.queue.as_str(), "jobs", number.as_str()];
        let done = match change {
            Change::Drop => {
                client.delete(&path).await?;
                format!("dropped job {id}")
            }
            Change::Retry => {
                let _: Value = client.post(&[&path[..], &["retry"]].concat(), &Value::Null).await?;
                format!("job {id} runs again")
            }
            Change::Cancel => {
                let answer: Value = client.post(&[&path[..], &["cancel"]].concat(), &Value::Null).await?;
                format!("cancelled job {id}, which was {}", plain(answer["was"].as_str().unwrap_or("-")))
            }
        };
        print(&format!("{done}\n"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_job_is_shown_without_what_could_steer_the_terminal() {
        let mut job = json!({
            "id": 17, "state": "done", "priority": 2, "attempt": 1, "max_attempts": 10, "unique_key": null,
            "enqueued_at": "2026-01-01T00:00:00.000000Z", "run_at": null, "claimed_at": "2026-01-01T00:00:01.000000Z",
            "finished_at": "2026-01-01T00:00:02.000000Z", "worker": "w\u{1b}[2J", "error": null, "bytes": 9, "key": "a1",
            "headers": [["h", "v"]], "value": { "n": 1 }, "result": { "text": "all\u{7} well" }
        });
        let shown = described("reports", &job, false).unwrap();
        for part in ["17 of queue reports (done)", "1 of 10", "h: v", "{\"n\":1}", "all  well"] {
            assert!(shown.contains(part), "{part:?} is not in\n{shown}");
        }
        assert!(!shown.contains('\u{1b}') && !shown.contains('\u{7}'), "{shown:?}");
        job["result"] = Value::Null;
        assert!(!described("reports", &job, true).unwrap().contains("result"));
    }
}
