//! Kills, pauses and cuts real hosts and a real Postgres, and checks what came of it: see `docs/reliability.md`.
//!
//! Reading order: `run` (how much, from which seed), `cluster` (what is hurt), `proxy` and `s3` (by what, beside signals),
//! `workload` (what goes on meanwhile), `history` and `observe` (what was done and seen), `check` (what must hold of it),
//! `cases`, `report`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program whose output is a table")]

mod cases;
mod check;
mod cluster;
mod cold;
mod history;
mod http;
mod observe;
mod proxy;
mod report;
mod run;
mod s3;
mod workload;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Parser;

use cases::{ALL, Case};
use report::Row;
use run::{Run, Scale};

/// Kills, pauses and cuts real hosts and a real Postgres, and checks that nothing is lost, repeated or reordered
#[derive(Debug, Parser)]
struct Options {
    /// Which cases, e.g. R1,R3; all if nothing is named
    #[arg(long, value_delimiter = ',', value_name = "ID")]
    only: Vec<String>,
    /// Hardly any: proves in seconds that each case works
    #[arg(long)]
    fast: bool,
    /// Where all chance comes from; drawn and printed if it is not given
    #[arg(long)]
    seed: Option<u64>,
    /// How often each fault is injected, in place of the case's own figure
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// How long the storm of random faults lasts, which else is only run when it is named, and for ten minutes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    minutes: Option<u32>,
    /// The program under test [default: tidemill beside this program]
    #[arg(long, value_name = "FILE")]
    tidemill: Option<PathBuf>,
    /// Where runs have their folders; root's Postgres must be able to get there [default: the system's temporary folder]
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Where the figures go as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Keep each run's folder, also when all is well
    #[arg(long)]
    keep: bool,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let options = Options::parse();
    let cases = chosen(&options.only, options.minutes.is_some())?;
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    let tidemill = run::tidemill(options.tidemill.clone())?;
    let plugins = run::plugins()?;
    eprintln!("seed {seed} (the same again: --seed {seed}), program {}", tidemill.display());

    let parent = options.folder.clone().unwrap_or_else(std::env::temp_dir);
    let mut rows = Vec::new();
    for case in cases {
        let run = Run {
            case: case.id,
            scale: if options.fast { Scale::Fast } else { Scale::Full },
            seed,
            folder: parent.join(format!("tidemill-{}-{seed}-{}", case.id, std::process::id())),
            tidemill: tidemill.clone(),
            plugins: plugins.clone(),
            rounds: options.rounds,
            lasts: Duration::from_secs(60 * u64::from(options.minutes.unwrap_or(10))),
        };
        rows.push(one(case, run, options.keep).await);
    }
    println!("{}", report::table(&rows));
    println!("\nseed {seed}");
    if let Some(file) = &options.json {
        std::fs::write(file, serde_json::to_vec_pretty(&rows)?)?;
    }
    let met = rows.iter().all(Row::is_met);
    Ok(if met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs a case to its end, whatever that is.
async fn one(case: &Case, run: Run, keep: bool) -> Row {
    let (started, folder, seed) = (Instant::now(), run.folder.clone(), run.seed);
    eprintln!("{}  {}", case.id, case.title);
    let rounds = run.rounds;
    // A task of its own, so that a panic ends this case only.
    let verdict = match tokio::spawn((case.run)(run)).await {
        Ok(Ok(verdict)) => Ok(verdict),
        Ok(Err(error)) => Err(format!("{error:#}")),
        Err(panic) => Err(panic.to_string()),
    };
    let row = Row { id: case.id, title: case.title, seed, took: started.elapsed().as_secs_f64(), verdict };
    for line in row.complaints() {
        eprintln!("  {line}");
    }
    settle(&row, &folder, keep, rounds);
    row
}

/// Keeps the folder of a case that failed, with what it takes to run it again.
fn settle(row: &Row, folder: &Path, keep: bool, rounds: Option<u32>) {
    if row.is_met() && !keep {
        let _ = std::fs::remove_dir_all(folder);
        return;
    }
    let rounds = rounds.map(|rounds| format!(" ROUNDS={rounds}")).unwrap_or_default();
    eprintln!("  logs: {}", folder.display());
    eprintln!("  again: make soak ONLY={} SEED={}{rounds}", row.id, row.seed);
}

/// What is named; else all that end by themselves, and the others if it is said how long.
fn chosen(names: &[String], endless: bool) -> Result<Vec<&'static Case>> {
    if names.is_empty() {
        return Ok(ALL.iter().filter(|case| endless || !case.endless).collect());
    }
    names
        .iter()
        .map(|name| match ALL.iter().find(|case| case.id.eq_ignore_ascii_case(name)) {
            Some(case) => Ok(case),
            None => {
                let known: Vec<&str> = ALL.iter().map(|case| case.id).collect();
                bail!("there is no case {name:?}; there are {}", known.join(", "))
            }
        })
        .collect()
}
