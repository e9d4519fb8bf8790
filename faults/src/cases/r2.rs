//! R2: a batch is stored whole or not at all, also when Postgres stops at once in the middle of it.
//!
//! `pg_ctl stop -m immediate` and a start, again and again under load; after each one the time is taken from the server's first
//! answer to the first acknowledgement.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use futures::FutureExt;
use tokio::time::sleep;

use super::Case;
use super::judge::Witness;
use crate::cluster::pipeline::{self, INBOUND};
use crate::cluster::{Cluster, Layout};
use crate::report::{Verdict, Wanted};
use crate::run::Run;
use crate::workload::{Load, produce};

pub const CASE: Case = Case {
    id: "R2",
    title: "Postgres stopped at once and started",
    endless: false,
    run: |run| stops(run).boxed(),
};

const HOSTS: usize = 2;
const PRODUCERS: u32 = 4;
/// Work between two stops, and how long the server stays away.
const BETWEEN: Duration = Duration::from_millis(1_500);
const AWAY: Duration = Duration::from_secs(1);
/// From the server's first answer to the first acknowledgement.
const RECOVERED: f64 = 5.0;
const STUCK: Duration = Duration::from_secs(60);

async fn stops(run: Run) -> Result<Verdict> {
    let rounds = run.rounds(20, 2);
    let cluster = Cluster::start(&run, Layout::new(HOSTS, pipeline::text(4))).await?;
    let witness = Witness::of_pipeline(&run, &cluster);
    let load = Load::endless(INBOUND, PRODUCERS);

    let producing = produce(&run, &cluster.hosts, &load, &witness.history, &witness.progress);
    let stopping = async {
        let stopped = stop(&run, &cluster, &witness, rounds).await;
        witness.progress.finish();
        stopped
    };
    let ((), slowest) = tokio::try_join!(producing, stopping)?;

    let mut verdict = Verdict::default();
    verdict.injected("immediate stops of Postgres", 1, u64::from(rounds));
    verdict.figure("slowest to the first append (s)", Wanted::AtMost(RECOVERED), slowest.as_secs_f64());
    witness.judge_pipeline(&cluster, &mut verdict).await?;
    cluster.stop().await?;
    Ok(verdict)
}

/// Gives the slowest recovery.
async fn stop(run: &Run, cluster: &Cluster, witness: &Witness, rounds: u32) -> Result<Duration> {
    let mut rng = run.rng("stops");
    let mut slowest = Duration::ZERO;
    for round in 0..rounds {
        sleep(BETWEEN.mul_f64(0.2 + 0.8 * rng.f64())).await;
        cluster.server.stop_immediately().await?;
        sleep(AWAY.mul_f64(rng.f64())).await;
        cluster.server.start().await?;
        let (ready, before) = (Instant::now(), witness.progress.acknowledged.load(Ordering::Relaxed));
        while witness.progress.acknowledged.load(Ordering::Relaxed) == before {
            if ready.elapsed() > STUCK {
                bail!("nothing was acknowledged for {} s after stop {}", STUCK.as_secs(), round + 1);
            }
            sleep(Duration::from_millis(2)).await;
        }
        slowest = slowest.max(ready.elapsed());
    }
    Ok(slowest)
}
