//! R1: append, transform and table are one unit, whatever is killed.
//!
//! Producers write through three hosts while hosts and backends of Postgres are killed at random moments, spread over the
//! whole of the work: each kill waits for its share of the acknowledgements.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::FutureExt;
use tokio::time::sleep;

use super::Case;
use super::judge::Witness;
use crate::cluster::pipeline::{self, INBOUND};
use crate::cluster::{Cluster, Layout};
use crate::report::Verdict;
use crate::run::Run;
use crate::workload::{Load, produce};

pub const CASE: Case = Case {
    id: "R1",
    title: "kill -9 storm through a pipeline",
    endless: false,
    run: |run| storm(run).boxed(),
};

pub const HOSTS: usize = 3;
const PRODUCERS: u32 = 4;
/// A killed host is started again after up to this.
const DOWN: Duration = Duration::from_secs(2);
/// Without an acknowledgement for so long, something hangs.
const STALLED: Duration = Duration::from_secs(120);

async fn storm(run: Run) -> Result<Verdict> {
    let records = u64::from(run.size(100_000, 3_000));
    let kills = run.rounds(60, 6);
    storm_on(&run, Layout::new(HOSTS, pipeline::text(4)), records, kills).await
}

/// The same on hosts that reach Postgres in another way.
pub async fn storm_on(run: &Run, layout: Layout, records: u64, kills: u32) -> Result<Verdict> {
    let cluster = Cluster::start(run, layout).await?;
    let witness = Witness::of_pipeline(run, &cluster);
    let load = Load::new(INBOUND, PRODUCERS, records);

    let producing = produce(run, &cluster.hosts, &load, &witness.history, &witness.progress);
    let killing = kill(run, &cluster, &witness, records, kills);
    let ((), killed) = tokio::try_join!(producing, killing)?;

    let mut verdict = Verdict::default();
    verdict.injected("kill -9 in all", u64::from(kills), killed.hosts + killed.backends);
    verdict.counted("of them hosts", killed.hosts);
    verdict.counted("of them backends of Postgres", killed.backends);
    witness.judge_pipeline(&cluster, &mut verdict).await?;
    cluster.stop().await?;
    Ok(verdict)
}

#[derive(Default)]
struct Killed {
    hosts: u64,
    backends: u64,
}

async fn kill(run: &Run, cluster: &Cluster, witness: &Witness, records: u64, kills: u32) -> Result<Killed> {
    let mut rng = run.rng("kills");
    let mut killed = Killed::default();
    let mut restarts = Vec::new();
    for kill in 0..kills {
        // Within its own share of the work, so that kills come at all of its stages.
        let due = (u64::from(kill) * records + rng.u64(..records)) / u64::from(kills);
        wait_for(witness, due).await?;
        // Two of three hit a host.
        loop {
            if rng.u32(..3) < 2 {
                if let Some(restart) = cluster.kill_and_restart(&mut rng, DOWN) {
                    run.note(format!("kill {}", restart.name));
                    restarts.push(restart);
                    killed.hosts += 1;
                    break;
                }
            } else if cluster.server.kill_backend(&mut rng).await? {
                run.note("kill a backend");
                killed.backends += 1;
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
        if kill % 10 == 9 {
            run.say(format!("{} of {kills} kills, {due} of {records} records", kill + 1));
        }
    }
    for restart in restarts {
        restart.task.await?.with_context(|| format!("{} was killed and does not come back", restart.name))?;
    }
    Ok(killed)
}

async fn wait_for(witness: &Witness, acknowledged: u64) -> Result<()> {
    let seen = || witness.progress.acknowledged.load(Ordering::Relaxed);
    let (mut last, mut since) = (seen(), Instant::now());
    while seen() < acknowledged {
        if seen() != last {
            (last, since) = (seen(), Instant::now());
        }
        if since.elapsed() > STALLED {
            bail!("no record was acknowledged for {} s, at {last}", STALLED.as_secs());
        }
        sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}
