//! Doing the jobs that wait in a queue as fast as it goes.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::task::JoinSet;

use super::client::{Client, Worker};
use crate::meter::{Meter, Sample};
use crate::server::Server;

/// Turns that each connection has before it is measured: by then its statements are prepared.
const WARM: usize = 6;

/// What was done.
pub struct Burned {
    pub sample: Sample,
    /// How long each statement took that took jobs.
    pub takes: Vec<Duration>,
    ids: Vec<i64>,
}

/// Does jobs with so many connections, each one batch after the other, until none is left or the time is over.
pub async fn burn(
    server: &Server,
    client: &Client,
    batch: usize,
    connections: usize,
    limit: Duration,
) -> Result<Burned> {
    let mut workers = Vec::new();
    let mut ids = Vec::new();
    for _ in 0..connections {
        let mut worker = client.worker(server).await?;
        for _ in 0..WARM {
            let taken = worker.take(1).await?;
            worker.end(&taken).await?;
            ids.extend(taken.ids);
        }
        workers.push(worker);
    }
    let (warm, until) = (ids.len(), Instant::now() + limit);
    let meter = Meter::start(server).await?;
    let mut tasks = JoinSet::new();
    for worker in workers {
        tasks.spawn(work(worker, batch, until));
    }
    let mut takes = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        let (done, took) = ended??;
        ids.extend(done);
        takes.extend(took);
    }
    let sample = meter.stop(server, (ids.len() - warm) as u64).await?;
    Ok(Burned { sample, takes, ids })
}

async fn work(mut worker: Worker, batch: usize, until: Instant) -> Result<(Vec<i64>, Vec<Duration>)> {
    let (mut done, mut takes) = (Vec::new(), Vec::new());
    while Instant::now() < until {
        let taken = worker.take(batch).await?;
        if taken.ids.is_empty() {
            break;
        }
        worker.end(&taken).await?;
        takes.push(taken.took);
        done.extend(taken.ids);
    }
    Ok((done, takes))
}

impl Burned {
    /// Every job was done once or is still there.
    pub async fn check(&self, server: &Server, client: &Client, jobs: usize) -> Result<()> {
        let mut ids = self.ids.clone();
        ids.sort_unstable();
        ids.dedup();
        ensure!(ids.len() == self.ids.len(), "{} jobs were done more than once", self.ids.len() - ids.len());
        let left = client.left(server).await?;
        ensure!(
            ids.len() as u64 + left == jobs as u64,
            "{} were done and {left} are left of {jobs}",
            ids.len()
        );
        Ok(())
    }

    /// The middle of the times that taking jobs took, in milliseconds.
    pub fn take_ms(&self) -> f64 {
        crate::rounds::Spread::of(self.takes.iter().map(|took| took.as_secs_f64() * 1e3)).median
    }
}
