//! `tidemill plugin test`: records and vectors through a component, with no Postgres and no host.

mod against;
mod vectors;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::component::{self, Opened, Setup};
use super::records::{Format, Reading, Records, time};
use super::shown::{Naming, Printer};
use crate::cli::Invalid;
use crate::ids::Micros;
use crate::pipeline::trial::{Reader, Trial};
use crate::plugin::{PluginKind, Poll};

/// A producer is asked again after this, in microseconds of its own time.
const BETWEEN_POLLS: Micros = 1_000_000;

/// Run records or vectors through a component; no Postgres and no host are needed
///
/// Prints what it emits and refuses, the rows it leaves, and what it costs. State begins empty, time stands still.
/// Exit code 0: all went well. 1: a call failed, a vector does not hold, or two components differ. 2: wrong input.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  tidemill plugin test dist/low-flyers.wasm --vectors vectors.json
  tidemill plugin test dist/low-flyers.wasm --config '{\"below_ft\":1000}' --records reports.ndjson
  tidemill consume positions --max 1000 --format json |
    tidemill plugin test dist/watch.wasm --records - --format json --against plugins/dist/watch.wasm")]
pub struct TestArgs {
    /// The component
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Records to give it, one a line; - is standard input
    #[arg(long, value_name = "FILE")]
    records: Option<PathBuf>,
    /// What a line is
    #[arg(long, value_enum, default_value_t = Format::Raw)]
    format: Format,
    /// Take the key from this top-level field of each payload
    #[arg(long, value_name = "FIELD")]
    key_field: Option<String>,
    /// The time of records that have none, and of a producer's first poll
    #[arg(long, value_name = "TIME", default_value = "1970-01-01T00:00:00Z", value_parser = time)]
    at: Micros,
    /// Records a call
    #[arg(long, value_name = "RECORDS", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batch: u32,
    /// How often a producer is asked
    #[arg(long, value_name = "TIMES", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    polls: u32,
    /// Vectors it must satisfy: files, or folders of *.json; may be repeated
    #[arg(long, value_name = "FILE or FOLDER")]
    vectors: Vec<PathBuf>,
    /// Give another component the same records and show where it answers differently
    #[arg(long, value_name = "OTHER.wasm")]
    against: Option<PathBuf>,
    /// Print at most so many emissions, refusals, rows or differences
    #[arg(long, value_name = "LINES", default_value_t = 50)]
    show: u64,
    /// Print JSON lines: emission, refused, again, failed, row, vectors, difference, and a summary at the end
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    setup: Setup,
}

pub async fn run(args: TestArgs) -> anyhow::Result<ExitCode> {
    let engine = component::engine()?;
    let opened = component::open(&engine, &args.file, args.setup.kind).await?;
    let polls = opened.plugin.kind() == PluginKind::Producer;
    if args.records.is_none() && !polls && args.vectors.is_empty() {
        return Err(nothing_to_do().into());
    }
    let mut good = true;
    if !args.vectors.is_empty() {
        good &= vectors::run(&args, &opened).await?;
    }
    if args.records.is_some() || (polls && args.vectors.is_empty()) {
        good &= match &args.against {
            None => alone(&args, &opened).await?,
            Some(path) => {
                let other = component::open(&engine, path, Some(opened.plugin.kind())).await?;
                against::run(&args, &opened, &other).await?
            }
        };
    }
    Ok(ExitCode::from(u8::from(!good)))
}

fn nothing_to_do() -> Invalid {
    Invalid("there is nothing to test with: give --records FILE, or --vectors FILE".to_string())
}

impl TestArgs {
    fn records(&self) -> anyhow::Result<Records> {
        let path = self.records.as_deref().ok_or_else(nothing_to_do)?;
        let reading = Reading { format: self.format, key_field: self.key_field.clone(), at: self.at };
        Records::open(path, reading)
    }

    async fn trial(&self, opened: &Opened) -> anyhow::Result<Trial> {
        let reader = Reader { group: "test".to_string(), topic: "test".to_string() };
        self.setup.trial(opened, reader).await
    }

    /// What a producer is asked the next time.
    fn poll(&self, number: u32, position: Option<Vec<u8>>) -> Poll {
        let now = self.at + Micros::from(number) * BETWEEN_POLLS;
        Poll { position, now, max_records: self.batch }
    }
}

/// One component: what it does is printed.
async fn alone(args: &TestArgs, opened: &Opened) -> anyhow::Result<bool> {
    let mut trial = args.trial(opened).await?;
    let mut printer = Printer::new(opened, args.json, Naming::Place, args.show);
    if opened.plugin.kind() == PluginKind::Producer {
        let mut position = None;
        for number in 0..args.polls {
            let (events, next) = trial.poll(args.poll(number, position)).await?;
            position = Some(next);
            if !printer.batch(&[], events)? {
                break;
            }
        }
    } else {
        let mut records = args.records()?;
        loop {
            let batch = records.batch(args.batch as usize)?;
            if batch.is_empty() {
                break;
            }
            let events = trial.batch(&batch).await?;
            if !printer.batch(&batch, events)? {
                break;
            }
        }
    }
    let failed = printer.counts.failed;
    printer.finish(opened, trial.used())?;
    Ok(failed == 0)
}
