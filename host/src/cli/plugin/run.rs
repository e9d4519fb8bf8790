//! `tidemill plugin run`: stored records through a component here, as a host would give them to it.
//!
//! A call depends on its messages, on the component and its config, and on what the host feeds it: the time at which the last
//! message was appended, random numbers that begin at (group, topic, partition, first offset), and state. All but the
//! state are the same here, so a message that made a plugin fail makes it fail again.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use reqwest::{Method, Response};
use serde_json::Value;

use super::component::{self, Setup};
use super::records::parse;
use super::shown::{Naming, Printer};
use crate::cli::Invalid;
use crate::cli::client::views::DeadLetter;
use crate::cli::client::{Client, ClientArgs};
use crate::ids::{Offset, Partition};
use crate::pipeline::trial::{Input, Reader, Trial};
use crate::plugin::PluginKind;

/// The longest line the host can send: a record of 1 MiB, each byte escaped, and what goes around it.
const MAX_LINE: usize = 8 << 20;

/// Run stored records through a component again, as the host did
///
/// Records come from a running host, to the byte; nothing is written anywhere. Clock and random numbers are those that the
/// host gives for the same group and batch, so name the group, and begin where the batch began: a message that was given up
/// was alone in its batch, and --dead-letter takes all of that from its letter. State begins empty. Exit code 1: a call
/// failed.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  tidemill plugin run --dead-letter 17 --plugin dist/watch.wasm
  tidemill plugin run --topic positions --partition 2 --from 18250 --plugin dist/watch.wasm
  tidemill plugin run --topic positions --partition 2 --from 18000 --max 500 --group watch \\
    --plugin dist/watch.wasm --config '{\"approach_nm\":20}' --json

`tidemill dlq list` shows the dead letters.")]
pub struct RunArgs {
    /// A dead letter: its message as it is stored now, for its group, as the next delivery
    #[arg(long, value_name = "ID", conflicts_with_all = ["topic", "partition", "from", "max", "group", "batch"])]
    dead_letter: Option<i64>,
    /// The topic to read
    #[arg(long, required_unless_present = "dead_letter")]
    topic: Option<String>,
    /// The partition to read
    #[arg(long, required_unless_present = "dead_letter")]
    partition: Option<Partition>,
    /// The first offset
    #[arg(long, value_name = "OFFSET", required_unless_present = "dead_letter")]
    from: Option<Offset>,
    /// How many records
    #[arg(long, value_name = "RECORDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    max: u64,
    /// The component
    #[arg(long, value_name = "FILE")]
    plugin: PathBuf,
    /// The group whose run is repeated; random numbers depend on it
    #[arg(long, default_value = "run")]
    group: String,
    /// Records a call
    #[arg(long, value_name = "RECORDS", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batch: u32,
    /// Which delivery it is of the first message of each call; default 1, of a dead letter the next one
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    attempt: Option<u32>,
    /// Print at most so many emissions, refusals or rows
    #[arg(long, value_name = "LINES", default_value_t = 50)]
    show: u64,
    /// Print JSON lines: emission, refused, again, failed, row, and a summary at the end
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    setup: Setup,
    #[command(flatten)]
    client: ClientArgs,
}

pub async fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    let opened = component::open(&component::engine()?, &args.plugin, args.setup.kind).await?;
    if opened.plugin.kind() == PluginKind::Producer {
        let reason = "a producer reads no records; try it with `tidemill plugin test`";
        return Err(Invalid(reason.to_string()).into());
    }
    let client = args.client.connect()?;
    let letter = match args.dead_letter {
        Some(id) => Some(letter(&client, id).await?),
        None => None,
    };
    let reader = match &letter {
        Some((letter, _)) => Reader { group: letter.group.clone(), topic: letter.topic.clone() },
        None => Reader { group: args.group.clone(), topic: args.topic.clone().unwrap_or_default() },
    };
    let next = letter.as_ref().map_or(1, |(letter, _)| letter.attempts + 1);
    let mut run = Run {
        batch: Vec::new(),
        trial: args.setup.trial(&opened, reader).await?,
        printer: Printer::new(&opened, args.json, Naming::Offset, args.show),
        size: args.batch as usize,
        attempt: args.attempt.unwrap_or(next),
    };
    match letter {
        Some((_, input)) => {
            run.batch.push(input);
            run.call().await?;
        }
        None => {
            let response = client.send(args.request(&client)).await?;
            run.all(&client, response).await?;
        }
    }
    if run.printer.counts.records == 0 {
        let (topic, partition, from) = args.place();
        let reason = format!("there is nothing yet at offset {from} of {topic} partition {partition}");
        return Err(Invalid(reason).into());
    }
    let failed = run.printer.counts.failed;
    run.printer.finish(&opened, run.trial.used())?;
    Ok(ExitCode::from(u8::from(failed > 0)))
}

/// A dead letter and its message.
async fn letter(client: &Client, id: i64) -> anyhow::Result<(DeadLetter, Input)> {
    let whole: Value = client.get(&["v1", "dead-letters", &id.to_string()]).await?;
    let record = serde_json::to_vec(&whole["record"])?;
    let input = parse(&record, 0, 0).map_err(|error| anyhow::anyhow!(error));
    let input = input.context("the host sent a dead letter whose message is not a record")?;
    Ok((serde_json::from_value(whole)?, input))
}

impl RunArgs {
    /// Where to read; there unless a dead letter is named.
    fn place(&self) -> (&str, Partition, Offset) {
        (self.topic.as_deref().unwrap_or_default(), self.partition.unwrap_or(0), self.from.unwrap_or(0))
    }

    fn request(&self, client: &Client) -> reqwest::RequestBuilder {
        let (topic, partition, from) = self.place();
        client.request(Method::GET, &["v1", "topics", topic, "records"]).query(&[
            ("format", "json".to_string()),
            ("payload", "text".to_string()),
            ("appended", "true".to_string()),
            ("partition", partition.to_string()),
            ("from", from.to_string()),
            ("max", self.max.to_string()),
        ])
    }
}

/// Records as they arrive, a batch at a time.
struct Run {
    batch: Vec<Input>,
    trial: Trial,
    printer: Printer,
    /// Records a call.
    size: usize,
    /// Which delivery it is of the first of them.
    attempt: u32,
}

impl Run {
    async fn all(&mut self, client: &Client, mut response: Response) -> anyhow::Result<()> {
        let mut carry: Vec<u8> = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| client.lost(&error))? {
            carry.extend_from_slice(&chunk);
            let mut start = 0;
            while let Some(end) = carry[start..].iter().position(|byte| *byte == b'\n') {
                let line = &carry[start..start + end];
                let record = parse(line, 0, 0).map_err(|error| anyhow::anyhow!(error));
                self.batch.push(record.context("the host sent a line that is not a record")?);
                start += end + 1;
                if self.batch.len() >= self.size && !self.call().await? {
                    return Ok(());
                }
            }
            carry.drain(..start);
            anyhow::ensure!(carry.len() <= MAX_LINE, "the host sent a line of more than {MAX_LINE} bytes");
        }
        self.call().await.map(drop)
    }

    /// False: nobody reads what is printed any more.
    async fn call(&mut self) -> anyhow::Result<bool> {
        let mut batch = std::mem::take(&mut self.batch);
        if let Some(first) = batch.first_mut() {
            first.message.attempt = self.attempt;
        }
        let events = self.trial.batch(&batch).await?;
        Ok(self.printer.batch(&batch, events)?)
    }
}
