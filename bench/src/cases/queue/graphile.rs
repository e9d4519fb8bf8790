//! graphile-worker, in a Node.js process of its own: `bench/peers/graphile.mjs`.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::client::payload;
use crate::meter::{Meter, Sample};
use crate::server::{Server, cpu_of};

/// Jobs that one statement puts.
const PUT: usize = 1_000;
/// Jobs that any mode is at at a time.
const AT_MOST: u64 = 24;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// As it comes: one job at a time.
    Default,
    Eight,
    /// Jobs fetched and ended in batches, with the settings of its own measurements.
    Batched,
}

impl Mode {
    pub const ALL: [Self; 3] = [Self::Default, Self::Eight, Self::Batched];

    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "graphile-worker, as it comes (1 job at a time)",
            Self::Eight => "graphile-worker, 8 jobs at a time",
            Self::Batched => "graphile-worker, batched (localQueue 500, 24 at a time)",
        }
    }

    pub fn batch(self) -> usize {
        match self {
            Self::Default | Self::Eight => 1,
            Self::Batched => 500,
        }
    }

    fn settings(self) -> Value {
        match self {
            Self::Default => json!({}),
            Self::Eight => json!({ "concurrentJobs": 8 }),
            Self::Batched => {
                json!({ "concurrentJobs": 24, "localQueue": { "size": 500 }, "completeJobBatchDelay": 0 })
            }
        }
    }
}

pub struct Graphile {
    node: PathBuf,
    packages: PathBuf,
}

/// The program, which says a line at a time.
struct Program {
    child: Child,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Graphile {
    pub async fn install(server: &Server, node: PathBuf, packages: PathBuf) -> Result<Self> {
        let graphile = Self { node, packages };
        graphile.start(server, "migrate", &json!({}))?.ended().await?;
        Ok(graphile)
    }

    /// Does jobs that were put before, until none is left or the time is over.
    pub async fn burn(&self, server: &Server, mode: Mode, jobs: usize, limit: Duration) -> Result<Sample> {
        put(server, jobs).await?;
        server.execute("VACUUM ANALYZE graphile_worker._private_jobs").await?;
        let options = json!({ "jobs": jobs, "limitMs": limit.as_millis() as u64, "worker": mode.settings() });
        let mut program = self.start(server, "burn", &options)?;
        program.said("ready").await?;
        server.settle().await?;
        let own = program.cpu()?;
        let meter = Meter::start(server).await?;
        program.tell().await?;
        let begun: u64 = program.line().await?.parse()?;
        let mut sample = meter.stop(server, begun).await?;
        sample.host_cpu = Some((program.cpu()?.saturating_sub(own)).as_secs_f64());
        program.ended().await?;
        // Of those that it was at when the time was over, some are not ended.
        sample.records = (jobs as u64).saturating_sub(left(server).await?);
        let open = begun.saturating_sub(sample.records);
        ensure!(
            open <= AT_MOST && sample.records <= begun,
            "{begun} were begun and {} ended",
            sample.records
        );
        server.execute("TRUNCATE graphile_worker._private_jobs").await?;
        Ok(sample)
    }

    /// A worker that notes how soon it gets each job, until it is asked: see [`Delays`].
    pub async fn delays(&self, server: &Server, at_a_time: u32) -> Result<Delays> {
        let options = json!({ "worker": { "concurrentJobs": at_a_time } });
        let mut program = self.start(server, "latency", &options)?;
        program.said("ready").await?;
        Ok(Delays(program))
    }

    fn start(&self, server: &Server, what: &str, options: &Value) -> Result<Program> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/graphile.mjs");
        let mut child = Command::new(&self.node)
            .arg(script)
            .arg(&self.packages)
            .arg(what)
            .arg(options.to_string())
            .envs(server.variables()?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| self.node.display().to_string())?;
        let input = child.stdin.take().context("no standard input")?;
        let output = child.stdout.take().context("no standard output")?;
        Ok(Program { child, input, lines: BufReader::new(output).lines() })
    }
}

/// A worker that runs.
pub struct Delays(Program);

impl Delays {
    /// Milliseconds from a job's `at` to its start, for each job so far. Ends the worker.
    pub async fn take(mut self) -> Result<Vec<f64>> {
        self.0.tell().await?;
        let delays = serde_json::from_str(&self.0.line().await?)?;
        self.0.ended().await?;
        Ok(delays)
    }
}

impl Program {
    async fn line(&mut self) -> Result<String> {
        self.lines.next_line().await?.context("graphile.mjs ended early")
    }

    async fn said(&mut self, wanted: &str) -> Result<()> {
        let line = self.line().await?;
        ensure!(line == wanted, "graphile.mjs said {line}, and not {wanted}");
        Ok(())
    }

    async fn tell(&mut self) -> Result<()> {
        Ok(self.input.write_all(b"\n").await?)
    }

    fn cpu(&self) -> Result<Duration> {
        self.child.id().and_then(cpu_of).context("graphile.mjs is gone")
    }

    async fn ended(mut self) -> Result<()> {
        let status = self.child.wait().await?;
        ensure!(status.success(), "graphile.mjs ended with {status}");
        Ok(())
    }
}

async fn put(server: &Server, jobs: usize) -> Result<()> {
    for first in (0..jobs).step_by(PUT) {
        let payloads: Vec<String> = (first..jobs.min(first + PUT)).map(payload).collect();
        let sql = "SELECT count(*) FROM graphile_worker.add_jobs(ARRAY(
                       SELECT json_populate_record(NULL::graphile_worker.job_spec,
                                                   json_build_object('identifier', 'noop', 'payload', p::json))
                         FROM unnest($1::text[]) p))";
        sqlx::query(sql).bind(payloads).execute(&server.pool).await?;
    }
    Ok(())
}

async fn left(server: &Server) -> Result<u64> {
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM graphile_worker._private_jobs")
        .fetch_one(&server.pool)
        .await?;
    Ok(left.unsigned_abs())
}
