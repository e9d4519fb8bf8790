//! The published GROUP BY over archived records: the host's query path beside DuckDB's own command line on the same files.
//!
//! Both are timed from the question to the whole answer, with the start of a process in it: the host starts one for each
//! query, and so does who types `duckdb`. `SELECT 1` shows what of it is the start.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tidemill::archive::objects::{MIRROR_BYTES, Objects};
use tidemill::query::{Body, Queries, Query, QueryOptions};
use tidemill::replay::Replay;
use tokio::process::Command;

use super::history;
use crate::findings::{Bar, Findings, Row, Unit, Wanted};
use crate::meter::Sample;
use crate::rounds::interleaved;
use crate::scale::Scale;
use crate::server::Server;

const PUBLISHED: &str = "SELECT kind, count(*) AS msgs, count(DISTINCT id) AS entities
FROM read_parquet('archive/**/*.parquet')
GROUP BY kind;";
const NOTHING: &str = "SELECT 1";
/// As the sample pipeline has it.
const PARTITIONS: u32 = 4;
/// Names the program in place of the one that `scripts/setup.sh duckdb-cli` installs.
const CLI_VARIABLE: &str = "DUCKDB_CLI";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Host,
    Cli,
}

struct Arm {
    by: By,
    sql: String,
    name: &'static str,
}

pub async fn run(server: &Server, scale: &Scale) -> Result<Findings> {
    let log = server.log();
    let topic =
        log.create_topic(&history::positions(&server.topic_name(), PARTITIONS, scale.segment)?).await?;
    history::append_and_seal(server, &topic, scale.queried).await?;
    let bucket = history::bucket(server, "query-bucket")?;
    let mut archiver = history::archiver(server, &bucket)?;
    let report = history::archive(&mut archiver, scale.queried).await?;
    server.settle().await?;

    let cache = server.folder().join("query-cache");
    let bench = Bench {
        queries: Queries::open(
            Replay::new(log.clone()),
            Objects::open(bucket, &cache, MIRROR_BYTES)?,
            &cache,
            QueryOptions::default(),
        )?,
        cli: cli().await?,
        root: server.folder().join("query-bucket"),
        records: scale.queried as u64,
    };
    let view = format!(
        "SELECT kind, count(*) AS msgs, count(DISTINCT id) AS entities FROM {} GROUP BY kind",
        topic.name
    );
    let arms = bench.arms(view);
    // Once to warm up, and to see that all say the same.
    let mut answers = BTreeSet::new();
    for arm in arms.iter().filter(|arm| arm.sql != NOTHING) {
        answers.insert(bench.ask(arm).await?.0);
    }
    ensure!(answers.len() == 1, "the answers differ: {answers:?}");
    let samples = interleaved(&arms, scale.rounds, async |arm| Ok(bench.ask(arm).await?.1)).await?;
    log.delete_topic(&topic.name).await?;
    Ok(bench.findings(&arms, &samples, &format!("{} objects, {} MB", report.objects, report.bytes >> 20)))
}

struct Bench {
    queries: Queries,
    cli: Option<PathBuf>,
    root: PathBuf,
    records: u64,
}

impl Bench {
    fn arms(&self, view: String) -> Vec<Arm> {
        let published = PUBLISHED.to_owned();
        let mut arms = vec![
            Arm { by: By::Host, sql: published.clone(), name: "host, the published GROUP BY" },
            Arm { by: By::Host, sql: view, name: "host, the same over the topic's view" },
            Arm { by: By::Host, sql: NOTHING.to_owned(), name: "host, SELECT 1" },
        ];
        if self.cli.is_some() {
            arms.push(Arm { by: By::Cli, sql: published, name: "duckdb CLI, the published GROUP BY" });
            arms.push(Arm { by: By::Cli, sql: NOTHING.to_owned(), name: "duckdb CLI, SELECT 1" });
        }
        arms
    }

    /// The answer, with its rows in order, and how long it took.
    async fn ask(&self, arm: &Arm) -> Result<(Vec<String>, Sample)> {
        let started = Instant::now();
        let mut rows: Vec<String> = match arm.by {
            By::Host => {
                let query = Query { sql: arm.sql.clone(), ..Query::default() };
                let Body::Rows(rows) = self.queries.run(query).await?.body else { bail!("no rows came") };
                serde_json::from_str::<Vec<Vec<Value>>>(rows.get())?.iter().map(|row| line(row)).collect()
            }
            By::Cli => self.ask_cli(&arm.sql).await?.lines().map(str::to_owned).collect(),
        };
        let took = started.elapsed();
        ensure!(!rows.is_empty(), "{}: nothing came", arm.name);
        rows.sort();
        Ok((rows, Sample::timed(self.records, took)))
    }

    async fn ask_cli(&self, sql: &str) -> Result<String> {
        let program = self.cli.as_deref().context("there is no duckdb")?;
        let ran = Command::new(program)
            .args(["-init", "/dev/null", "-list", "-noheader", "-c", sql])
            .current_dir(&self.root)
            .kill_on_drop(true)
            .output()
            .await?;
        ensure!(ran.status.success(), "duckdb: {}", String::from_utf8_lossy(&ran.stderr));
        Ok(String::from_utf8(ran.stdout)?)
    }

    fn findings(&self, arms: &[Arm], samples: &[Vec<Sample>], files: &str) -> Findings {
        let times: Vec<Vec<f64>> = samples
            .iter()
            .map(|samples| samples.iter().map(|sample| sample.seconds * 1e3).collect())
            .collect();
        let mut rows: Vec<Row> = arms
            .iter()
            .zip(&times)
            .map(|(arm, times)| Row::plain("query", arm.name, Unit::Milliseconds, times.clone()))
            .collect();
        rows[0].note = format!("{} records, {files}", self.records);
        let mut bars = Vec::new();
        match self.cli.is_some() {
            true => bars.extend([
                Bar::ratio("query: the host's time to the CLI's", Wanted::AtMost(1.3), &times[0], &times[3]),
                Bar::ratio("query: the view's time to the CLI's", Wanted::AtMost(1.3), &times[1], &times[3]),
            ]),
            false => rows[0].note.push_str("; no duckdb CLI to compare with: scripts/setup.sh duckdb-cli"),
        }
        Findings { rows, bars }
    }
}

/// A row as the CLI prints it.
fn line(row: &[Value]) -> String {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    row.iter().map(text).collect::<Vec<_>>().join("|")
}

/// DuckDB's command line, of the version that the host links; None where it is not installed.
async fn cli() -> Result<Option<PathBuf>> {
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.setup/bin/duckdb");
    let program = std::env::var_os(CLI_VARIABLE).map_or(installed, PathBuf::from);
    if !program.exists() {
        return Ok(None);
    }
    let said = Command::new(&program).arg("--version").output().await?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    ensure!(said.starts_with("v1.5.5"), "{} is {said}, and 1.5.5 is wanted", program.display());
    Ok(Some(program))
}
