//! A host whose WASM workers do the jobs, a process of its own: the program `tidemill` with a pipeline of one worker.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use super::client::{Client, Kind};
use crate::meter::{Meter, Sample};
use crate::server::{Server, cpu_of};

/// Does nothing with such payloads.
const PLUGIN: &str = "test-worker";
/// How often it is looked whether all is done.
const LOOK: Duration = Duration::from_millis(10);
/// The longest that a host takes to be there, and that it takes to end what it has begun.
const PATIENCE: Duration = Duration::from_secs(60);

/// How the worker is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    pub keep: bool,
    /// Jobs of one call.
    pub batch: usize,
    /// Calls at a time.
    pub concurrency: usize,
}

impl Setup {
    pub fn name(self) -> String {
        let kept = if self.keep { "kept 1 h" } else { "not kept" };
        format!("Tidemill, a host's WASM worker, {kept}, batch {}, {} calls", self.batch, self.concurrency)
    }

    fn pipeline(self, queue: &str) -> String {
        format!(
            "[pipeline]\nname = \"bench\"\n\n[queues.{queue}]\nkeep = \"{}\"\n\n[workers.bench]\nplugin = \"{PLUGIN}\"\n\
             queue = \"{queue}\"\nconcurrency = {}\nbatch = {{ jobs = {} }}\n",
            if self.keep { "1h" } else { "0s" },
            self.concurrency,
            self.batch,
        )
    }
}

/// A host that runs. It is killed when this is dropped.
pub struct Host {
    child: Child,
    folder: PathBuf,
}

impl Host {
    /// Starts a host for a queue, and returns when its worker waits for jobs.
    pub async fn start(server: &Server, queue: &str, setup: Setup) -> Result<Self> {
        let program = std::env::current_exe()?.with_file_name("tidemill");
        ensure!(
            program.exists(),
            "there is no {}: cargo build --release --package tidemill",
            program.display()
        );
        let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/dist");
        let folder = server.folder().join(format!("host-{queue}"));
        std::fs::create_dir_all(&folder)?;
        let pipeline = folder.join("bench.toml");
        std::fs::write(&pipeline, setup.pipeline(queue))?;
        let log = std::fs::File::create(folder.join("host.log"))?;
        let child = Command::new(&program)
            .arg("up")
            .arg(&pipeline)
            .args(["--database-url", server.url(), "--listen", "127.0.0.1:0"])
            .arg("--data-dir")
            .arg(folder.join("data"))
            .arg("--plugins")
            .arg(plugins)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| program.display().to_string())?;
        let mut host = Self { child, folder };
        let until = Instant::now() + PATIENCE;
        while !is_awaited(server, queue).await? {
            if host.child.try_wait()?.is_some() || Instant::now() > until {
                bail!("the host is not there: {}", std::fs::read_to_string(host.folder.join("host.log"))?);
            }
            sleep(LOOK).await;
        }
        Ok(host)
    }

    fn cpu(&self) -> Result<Duration> {
        self.child.id().and_then(cpu_of).context("the host is gone")
    }

    /// Asks it to end, and waits.
    pub async fn stop(mut self) -> Result<()> {
        let process = self.child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed()));
        rustix::process::kill_process(process.context("the host is gone")?, rustix::process::Signal::TERM)?;
        let status = self.child.wait().await?;
        ensure!(status.success(), "the host ended with {status}: {}", self.folder.display());
        Ok(())
    }
}

/// Whether a worker waits for jobs of the queue.
async fn is_awaited(server: &Server, queue: &str) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT FROM tidemill.queue_waiters w JOIN tidemill.queues q USING (queue_id)
                               WHERE q.name = $1 AND w.until > clock_timestamp())";
    Ok(sqlx::query_scalar(sql).bind(queue).fetch_one(&server.pool).await?)
}

/// Does the jobs of a queue that were put while it was paused, until none is left or the time is over.
pub async fn burn(server: &Server, setup: Setup, jobs: usize, limit: Duration) -> Result<Sample> {
    let client = Client::create(server, Kind::Tidemill { keep: setup.keep, relaxed: true }).await?;
    pause(server, &client, true).await?;
    let host = Host::start(server, &client.queue, setup).await?;
    client.put(server, jobs).await?;
    client.settle(server).await?;
    let own = host.cpu()?;
    let meter = Meter::start(server).await?;
    let until = Instant::now() + limit;
    pause(server, &client, false).await?;
    while !is_done(server, &client, Some(jobs)).await? {
        if Instant::now() >= until {
            pause(server, &client, true).await?;
            let until = Instant::now() + PATIENCE;
            while !is_done(server, &client, None).await? {
                ensure!(Instant::now() < until, "the host does not end what it has begun");
                sleep(LOOK).await;
            }
            break;
        }
        sleep(LOOK).await;
    }
    let mut sample = meter.stop(server, 0).await?;
    sample.host_cpu = Some(host.cpu()?.saturating_sub(own).as_secs_f64());
    sample.records = jobs as u64 - client.left(server).await?;
    host.stop().await?;
    client.remove(server).await?;
    Ok(sample)
}

async fn pause(server: &Server, client: &Client, paused: bool) -> Result<()> {
    sqlx::query("SELECT tidemill.pause_queue($1, $2)")
        .bind(&client.queue)
        .bind(paused)
        .execute(&server.pool)
        .await?;
    Ok(())
}

/// Whether nothing runs and, of that many jobs, none waits.
async fn is_done(server: &Server, client: &Client, jobs: Option<usize>) -> Result<bool> {
    let sql = "SELECT (SELECT h.cursors[1] FROM tidemill.queue_heads h
                        WHERE h.queue_id = q.queue_id ORDER BY h.generation DESC LIMIT 1) > $2
                      AND NOT EXISTS (SELECT FROM tidemill.claims c WHERE c.queue_id = q.queue_id)
                 FROM tidemill.queues q WHERE q.name = $1";
    let jobs = jobs.unwrap_or_default() as i64;
    Ok(sqlx::query_scalar(sql).bind(&client.queue).bind(jobs).fetch_one(&server.pool).await?)
}

/// Milliseconds from a job's `at` to its claim, for each job that is done and kept.
pub async fn delays(server: &Server, queue: &str) -> Result<Vec<f64>> {
    let sql = "SELECT (extract(epoch FROM j.claimed_at) * 1e3
                       - (convert_from(j.payload, 'UTF8')::jsonb ->> 'at')::numeric / 1e3)::float8
                 FROM tidemill.done_jobs(tidemill.queue_named($1), 1000000) j";
    Ok(sqlx::query_scalar(sql).bind(queue).fetch_all(&server.pool).await?)
}
