//! `tidemill produce`: lines of a file or of standard input become records of a topic, byte for byte.
//!
//! Lines are routed to a few lanes; a lane is an idempotent producer of its own with one request in flight, so a repeat
//! after a lost connection stores nothing twice and nothing overtakes. Lines with the same key take the same lane, so
//! their order is kept; lines without keys all take one lane, so the whole order is kept. Memory is bounded by the lanes:
//! each holds at most one batch that fills, one that waits and one that travels.

mod input;
mod lane;
mod lines;
mod progress;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::client::views::Topic;
use super::client::{Client, ClientArgs};
use super::output::{count, print};
use input::Input;
use lane::{Lane, Sent};
use lines::{Batch, LineRouter, Routing};
use progress::Progress;

/// Lanes at most: four requests in flight keep the host's appenders busy on any machine we measured.
const MAX_LANES: u32 = 4;
/// How long a batch waits for more lines when the input is a pipe.
const LINGER: Duration = Duration::from_millis(50);

/// Append lines of a file or of standard input to a topic, one record a line
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  tidemill produce positions flights.ndjson --key-field id\n  \
                        tidemill produce positions --key-field id < flights.ndjson\n  \
                        printf 'a1\\t{\"text\":\"hello\"}\\n' | tidemill produce notes --key-separator '\\t'\n\n\
                        Lines with the same key keep their order. Lines without keys keep the order of the whole file, \
                        in one partition.")]
pub struct ProduceArgs {
    /// The topic
    topic: String,
    /// The file to read; - or nothing is standard input
    file: Option<PathBuf>,
    /// Take the key from this top-level field of each JSON line
    #[arg(long, value_name = "FIELD", conflicts_with = "key_separator")]
    key_field: Option<String>,
    /// The key stands before this text, the payload after it; \t is a tab
    #[arg(long, value_name = "TEXT")]
    key_separator: Option<String>,
    /// Put every record into this partition
    #[arg(long)]
    partition: Option<u32>,
    /// Name this run: repeating it with the same input, or after it was cut short, stores nothing twice
    #[arg(long, value_name = "ID")]
    producer_id: Option<String>,
    /// Records a request
    #[arg(long, default_value_t = 5_000, value_name = "RECORDS", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batch: u32,
    /// Make records of empty lines instead of skipping them
    #[arg(long)]
    keep_empty: bool,
    #[command(flatten)]
    client: ClientArgs,
}

/// What a whole run came to.
#[derive(Debug, Default)]
struct Totals {
    stored: u64,
    repeated: u64,
    skipped: u64,
}

pub async fn run(args: ProduceArgs) -> anyhow::Result<ExitCode> {
    let client = args.client.connect()?;
    let topic: Topic = client.get(&["v1", "topics", &args.topic]).await?;
    let input = Input::open(args.file.as_deref())?;
    let progress = Progress::new(input.length());
    let started = Instant::now();
    let outcome = args.pump(&client, &topic, input, &progress).await;
    progress.finish();
    let totals = outcome
        .with_context(|| format!("stopped after {} records were stored", count(progress.records())))?;
    summary(&totals, started.elapsed())?;
    Ok(ExitCode::SUCCESS)
}

impl ProduceArgs {
    fn routing(&self, topic: &Topic) -> anyhow::Result<Routing> {
        let separator = self.key_separator.as_deref().map(unescape);
        if separator.as_deref().is_some_and(|text| text.is_empty() || text.contains('\n')) {
            anyhow::bail!("--key-separator must be some text within a line, such as '\\t'");
        }
        let keyed = self.key_field.is_some() || separator.is_some();
        Ok(Routing {
            partitions: topic.partitions,
            lanes: match self.partition {
                None if keyed => topic.partitions.clamp(1, MAX_LANES),
                _ => 1,
            },
            key_field: self.key_field.clone(),
            key_separator: separator,
            batch_records: self.batch as usize,
            keep_empty: self.keep_empty,
        })
    }

    async fn pump(
        &self,
        client: &Client,
        topic: &Topic,
        mut input: Input,
        progress: &Progress,
    ) -> anyhow::Result<Totals> {
        let routing = self.routing(topic)?;
        let mut lanes = self.start_lanes(client, topic, &routing, progress);
        // A file is cut into the same batches each time, which is what lets a named run be repeated.
        let linger = if input.is_file() { Duration::MAX } else { LINGER };
        let mut router = LineRouter::new(routing);
        let fed = feed(&mut input, &mut router, &mut lanes, linger).await;
        let skipped = router.skipped();
        let mut totals = Totals { skipped, ..Totals::default() };
        // Lanes end when their queues close. Their errors come first: they say why feeding stopped.
        for lane in lanes {
            drop(lane.queue);
            let sent = lane.task.await??;
            totals.stored += sent.stored;
            totals.repeated += sent.repeated;
        }
        fed?;
        Ok(totals)
    }

    fn start_lanes(
        &self,
        client: &Client,
        topic: &Topic,
        routing: &Routing,
        progress: &Progress,
    ) -> Vec<RunningLane> {
        let base = self.producer_id.clone().unwrap_or_else(|| format!("cli-{:032x}", fastrand::u128(..)));
        (0..routing.lanes)
            .map(|index| {
                let lane = Lane {
                    client: client.clone(),
                    topic: topic.name.clone(),
                    json: topic.format == "json",
                    producer_id: format!("{base}-{index}"),
                    named: self.producer_id.is_some(),
                    partition: self.partition,
                    key_field: routing.key_field.clone(),
                    key_separator: routing.key_separator.clone(),
                    progress: progress.clone(),
                };
                let (queue, batches) = mpsc::channel(1);
                RunningLane { queue, task: tokio::spawn(lane.run(batches)) }
            })
            .collect()
    }
}

struct RunningLane {
    queue: mpsc::Sender<Batch>,
    task: JoinHandle<anyhow::Result<Sent>>,
}

/// Reads to the end of the input. A lane that failed has closed its queue; its task says why.
async fn feed(
    input: &mut Input,
    router: &mut LineRouter,
    lanes: &mut [RunningLane],
    linger: Duration,
) -> anyhow::Result<()> {
    loop {
        let pause = if router.is_empty() { Duration::MAX } else { linger };
        let full = match tokio::time::timeout(pause, input.next()).await {
            Ok(Some(chunk)) => router.push(&chunk?)?,
            Ok(None) => {
                let rest = router.finish()?;
                return deliver(rest, lanes).await;
            }
            Err(_elapsed) => router.flush(),
        };
        deliver(full, lanes).await?;
    }
}

async fn deliver(batches: Vec<(usize, Batch)>, lanes: &[RunningLane]) -> anyhow::Result<()> {
    for (lane, batch) in batches {
        let Some(lane) = lanes.get(lane) else { continue };
        if lane.queue.send(batch).await.is_err() {
            anyhow::bail!("a lane stopped");
        }
    }
    Ok(())
}

fn summary(totals: &Totals, took: Duration) -> std::io::Result<()> {
    let seconds = took.as_secs_f64();
    let rate = (totals.stored as f64 / seconds.max(0.001)) as u64;
    let mut text = format!("{} records in {seconds:.1} s ({}/s)", count(totals.stored), count(rate));
    if totals.repeated > 0 {
        text.push_str(&format!("; {} were stored by an earlier run", count(totals.repeated)));
    }
    if totals.skipped > 0 {
        text.push_str(&format!("; {} empty lines skipped (--keep-empty keeps them)", count(totals.skipped)));
    }
    text.push('\n');
    print(&text).map(drop)
}

/// `\t`, `\0`, `\\` as a shell user writes them.
fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, chars.clone().next()) {
            ('\\', Some(escaped @ ('t' | '0' | '\\'))) => {
                chars.next();
                out.push(match escaped {
                    't' => '\t',
                    '0' => '\0',
                    other => other,
                });
            }
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_are_written_as_in_a_shell() {
        assert_eq!(unescape(r"\t"), "\t");
        assert_eq!(unescape(r"\\t"), r"\t");
        assert_eq!(unescape("::"), "::");
        assert_eq!(unescape("\\"), "\\");
    }
}
