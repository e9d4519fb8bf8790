//! Tidemill beside what it is compared with, in one run on one machine: see `docs/bench.md`.
//!
//! Reading order: `scale` (how much), `server` and `meter` (on what, and what it takes), `feed` (with what), `rounds`
//! (interleaving), `cases`, `findings` and `report`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program whose output is a table")]

mod cases;
mod feed;
mod findings;
mod machine;
mod meter;
mod report;
mod rounds;
mod scale;
mod server;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};

use cases::{Case, disk};
use findings::{Findings, Row};
use machine::Machine;
use meter::Sample;
use report::Report;
use scale::Scale;
use server::Server;

/// How long the disk's syncs are counted, before and after everything else.
const SYNCING: Duration = Duration::from_secs(1);

/// Measures Tidemill beside what it is compared with, on an embedded Postgres of its own
#[derive(Debug, Parser)]
struct Options {
    /// What to measure; everything if nothing is named
    cases: Vec<Case>,
    /// Fewer rounds and records: for a look, not for quoting
    #[arg(long)]
    quick: bool,
    /// Hardly any: proves that each case works
    #[arg(long, conflicts_with = "quick")]
    smoke: bool,
    /// How often each variant is measured
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// Where the figures go as JSON [default: bench/results/TIME.json]
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    let mut scale = match (options.quick, options.smoke) {
        (true, _) => Scale::quick(),
        (_, true) => Scale::smoke(),
        _ => Scale::full(),
    };
    scale.rounds = options.rounds.unwrap_or(scale.rounds);
    let mut cases = options.cases;
    if cases.is_empty() {
        cases = Case::value_variants().to_vec();
    }
    cases.sort();
    cases.dedup();

    let server = Server::start().await.context("the embedded server")?;
    let report = measure(&server, &scale, &cases).await;
    server.stop().await?;
    let report = report?;
    let path = options.json.unwrap_or_else(|| {
        let name = format!("{}.json", report.machine.at.replace(':', ""));
        Path::new(env!("CARGO_MANIFEST_DIR")).join("results").join(name)
    });
    report.save(&path)?;
    print!("{}", report.text());
    println!("as JSON: {}", path.display());
    Ok(())
}

async fn measure(server: &Server, scale: &Scale, cases: &[Case]) -> Result<Report> {
    let machine = Machine::look(server);
    let started = Instant::now();
    let mut syncs = vec![disk::syncs(server.folder(), SYNCING.min(scale.writing))?];
    let mut findings = Findings::default();
    for case in cases {
        eprintln!("{:>5.0} s  {case:?}", started.elapsed().as_secs_f64());
        let found = case.run(server, scale).await.with_context(|| format!("{case:?}"))?;
        findings.extend(found);
    }
    syncs.push(disk::syncs(server.folder(), SYNCING.min(scale.writing))?);
    let mut rows = vec![disk_row(&syncs)];
    rows.append(&mut findings.rows);
    findings.rows = rows;
    Ok(Report {
        machine,
        scale: scale.name,
        rounds: scale.rounds,
        took: started.elapsed().as_secs_f64(),
        findings,
    })
}

fn disk_row(syncs: &[Sample]) -> Row {
    Row::rate("disk", "8 KiB written and synced, one after the other", syncs).noted("before and after")
}
