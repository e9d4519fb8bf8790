//! H1: what several hosts cost: the same work is done by one host and by three, in turns, on the same machine and with a
//! fresh Postgres each time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use futures::FutureExt;
use tokio::time::sleep;

use super::Case;
use crate::cluster::pipeline::{self, INBOUND};
use crate::cluster::{Cluster, Layout};
use crate::report::{Verdict, Wanted};
use crate::run::{Run, Scale};
use crate::workload::{Load, produce};

pub const CASE: Case = Case {
    id: "H1",
    title: "three hosts beside one on the same machine",
    endless: false,
    run: |run| fleet(run).boxed(),
};

const PARTITIONS: u32 = 6;
/// Enough to keep the processor busy.
const PRODUCERS: u32 = 32;
/// Beyond that something hangs.
const STUCK: Duration = Duration::from_secs(60);

async fn fleet(run: Run) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    throughput(&run, &mut verdict).await?;
    Ok(verdict)
}

/// Records a second from the first request until everything has gone through transform and table.
async fn throughput(run: &Run, verdict: &mut Verdict) -> Result<()> {
    let records = u64::from(run.size(1_000_000, 5_000));
    let rounds = run.rounds(3, 1);
    let mut rates = [Vec::new(), Vec::new()];
    for round in 0..rounds {
        for (which, hosts) in [1, 3].into_iter().enumerate() {
            let run = run.inside(&format!("{hosts}-{round}"));
            let cluster =
                Cluster::start(&run, Layout::new(hosts, pipeline::with_usual_batches(PARTITIONS, "1h")))
                    .await?;
            shared(&cluster, hosts).await?;
            let load = Load { batch: 400..=500, spoiled: 0, ..Load::new(INBOUND, PRODUCERS, records) };
            let (history, progress) = (Arc::default(), Arc::default());
            let started = Instant::now();
            produce(&run, &cluster.hosts, &load, &history, &progress).await?;
            cluster.settle().await?;
            rates[which].push(records as f64 / started.elapsed().as_secs_f64());
            cluster.stop().await?;
        }
        run.say(format!("records/s with one host {:.0?}, with three {:.0?}", rates[0], rates[1]));
    }
    let [one, three] = rates.map(median);
    verdict.counted("records through one host and through three, in each round", records);
    verdict.counted("records/s with one host (median)", one as u64);
    verdict.counted("records/s with three hosts (median)", three as u64);
    // A few thousand records say nothing about speed.
    let wanted = if run.scale == Scale::Full { 1.0 } else { 0.0 };
    verdict.figure("three hosts to one", Wanted::AtLeast(wanted), three / one);
    Ok(())
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or_default()
}

/// Waits until so many hosts share all partitions.
async fn shared(cluster: &Cluster, hosts: usize) -> Result<()> {
    let sql = format!(
        "SELECT count(*) = {} AND count(DISTINCT owner) = {hosts} FROM tidemill.leases",
        2 * PARTITIONS
    );
    let deadline = Instant::now() + STUCK;
    while !cluster.server.ask::<bool>(&sql).await? {
        if Instant::now() > deadline {
            bail!("{hosts} hosts do not share all partitions within {} s", STUCK.as_secs());
        }
        sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}
