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

use super::component::{self, Setup};
use super::records::parse;
use super::shown::{Naming, Printer};
use crate::cli::Invalid;
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
/// was alone in its batch. State begins empty. Exit code 1: a call failed.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  tidemill plugin run --topic positions --partition 2 --from 18250 --plugin dist/watch.wasm
  tidemill plugin run --topic positions --partition 2 --from 18000 --max 500 --group watch \\
    --plugin dist/watch.wasm --config '{\"approach_nm\":20}' --json

Where a group's dead letters are: SELECT topic, partition, c_offset, error FROM tidemill.dead_letters")]
pub struct RunArgs {
    /// The topic to read
    #[arg(long)]
    topic: String,
    /// The partition to read
    #[arg(long)]
    partition: Partition,
    /// The first offset
    #[arg(long, value_name = "OFFSET")]
    from: Offset,
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
    /// Which delivery it is of the first message of each call
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    attempt: u32,
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
    let reader = Reader { group: args.group.clone(), topic: args.topic.clone() };
    let trial = args.setup.trial(&opened, reader).await?;
    let client = args.client.connect()?;
    let response = client.send(args.request(&client)).await?;
    let mut run = Run {
        batch: Vec::new(),
        trial,
        printer: Printer::new(&opened, args.json, Naming::Offset, args.show),
        args: &args,
    };
    run.all(&client, response).await?;
    if run.printer.counts.records == 0 {
        let (topic, partition, from) = (&args.topic, args.partition, args.from);
        let reason = format!("there is nothing yet at offset {from} of {topic} partition {partition}");
        return Err(Invalid(reason).into());
    }
    let failed = run.printer.counts.failed;
    run.printer.finish(&opened, run.trial.used())?;
    Ok(ExitCode::from(u8::from(failed > 0)))
}

impl RunArgs {
    fn request(&self, client: &Client) -> reqwest::RequestBuilder {
        client.request(Method::GET, &["v1", "topics", &self.topic, "records"]).query(&[
            ("format", "json".to_string()),
            ("payload", "text".to_string()),
            ("appended", "true".to_string()),
            ("partition", self.partition.to_string()),
            ("from", self.from.to_string()),
            ("max", self.max.to_string()),
        ])
    }
}

/// Records as they arrive, a batch at a time.
struct Run<'a> {
    batch: Vec<Input>,
    trial: Trial,
    printer: Printer,
    args: &'a RunArgs,
}

impl Run<'_> {
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
                if self.batch.len() >= self.args.batch as usize && !self.call().await? {
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
            first.message.attempt = self.args.attempt;
        }
        let events = self.trial.batch(&batch).await?;
        Ok(self.printer.batch(&batch, events)?)
    }
}
