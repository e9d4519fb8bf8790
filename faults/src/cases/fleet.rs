//! H1: what several hosts cost and how fast they stand in for each other.
//!
//! The same work is done by one host and by three, in turns, on the same machine with a fresh Postgres each time. Then one of
//! three hosts is told to stop, or is killed, under load, and it is measured how long its partitions were nobody's.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use fastrand::Rng;
use futures::FutureExt;
use tokio::time::sleep;

use super::Case;
use super::judge::Witness;
use crate::cluster::pipeline::{self, INBOUND};
use crate::cluster::{Cluster, Layout};
use crate::report::{Verdict, Wanted};
use crate::run::{Run, Scale};
use crate::workload::{Load, produce};

pub const CASE: Case = Case {
    id: "H1",
    title: "three hosts beside one, and in place of each other",
    endless: false,
    run: |run| fleet(run).boxed(),
};

const PARTITIONS: u32 = 6;
/// Enough to keep all partitions busy.
const PRODUCERS: u32 = 8;
/// Beyond that something hangs.
const STUCK: Duration = Duration::from_secs(60);

async fn fleet(run: Run) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    throughput(&run, &mut verdict).await?;
    replacement(&run, &mut verdict).await?;
    Ok(verdict)
}

/// Records a second from the first request until everything has gone through transform and table.
async fn throughput(run: &Run, verdict: &mut Verdict) -> Result<()> {
    let records = u64::from(run.size(200_000, 5_000));
    let rounds = run.rounds(3, 1);
    let mut rates = [Vec::new(), Vec::new()];
    for round in 0..rounds {
        for (which, hosts) in [1, 3].into_iter().enumerate() {
            let run = run.inside(&format!("{hosts}-{round}"));
            let cluster = Cluster::start(&run, Layout::new(hosts, pipeline::text(PARTITIONS))).await?;
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

async fn replacement(run: &Run, verdict: &mut Verdict) -> Result<()> {
    let rounds = run.rounds(10, 1);
    let run = run.inside("r");
    let cluster = Cluster::start(&run, Layout::new(3, pipeline::text(PARTITIONS))).await?;
    let witness = Witness::of_pipeline(&run, &cluster);
    let load = Load { rate: Some(200.0), batch: 1..=10, ..Load::endless(INBOUND, 4) };
    let producing = produce(&run, &cluster.hosts, &load, &witness.history, &witness.progress);
    let replacing = async {
        let replaced = replace(&run, &cluster, rounds).await;
        witness.progress.finish();
        replaced
    };
    let ((), [stops, kills]) = tokio::try_join!(producing, replacing)?;
    verdict.injected("stops", u64::from(rounds), stops.len() as u64);
    verdict.injected("kills", u64::from(rounds), kills.len() as u64);
    let slowest = |times: &[Duration]| times.iter().max().copied().unwrap_or_default().as_secs_f64();
    // The fast tier may share its cores with anything.
    let patience = if run.scale == Scale::Full { 1.0 } else { 4.0 };
    verdict.figure("slowest handover after SIGTERM (s)", Wanted::AtMost(2.0 * patience), slowest(&stops));
    verdict.figure("slowest takeover after kill -9 (s)", Wanted::AtMost(10.0 * patience), slowest(&kills));
    witness.judge_pipeline(&cluster, verdict).await?;
    cluster.stop().await
}

/// How long each stop and each kill left partitions without a host.
async fn replace(run: &Run, cluster: &Cluster, rounds: u32) -> Result<[Vec<Duration>; 2]> {
    let mut rng: Rng = run.rng("replacements");
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        for kills in [false, true] {
            shared(cluster, cluster.hosts.len()).await?;
            sleep(Duration::from_millis(rng.u64(0..1_000))).await;
            let host = &cluster.hosts[rng.usize(..cluster.hosts.len())];
            let id = host.id()?;
            let started = Instant::now();
            let ending = async { if kills { host.kill().await } else { host.stop().await.map(drop) } };
            let replacing = replaced(cluster, &id).map(|replaced| replaced.map(|()| started.elapsed()));
            let (ended, replaced) = tokio::join!(ending, replacing);
            ended?;
            times[usize::from(kills)].push(replaced?);
            host.start().await.with_context(|| format!("{} does not come back", host.name()))?;
        }
    }
    Ok(times)
}

/// Waits until every partition of every stage has a host, and none has this one.
async fn replaced(cluster: &Cluster, gone: &str) -> Result<()> {
    let sql = format!(
        "SELECT count(*) = {} AND count(*) FILTER (WHERE owner = '{gone}') = 0 FROM tidemill.leases",
        2 * PARTITIONS
    );
    wait(cluster, &sql, "all partitions have other hosts").await
}

/// Waits until so many hosts share all partitions.
async fn shared(cluster: &Cluster, hosts: usize) -> Result<()> {
    let sql = format!(
        "SELECT count(*) = {} AND count(DISTINCT owner) = {hosts} FROM tidemill.leases",
        2 * PARTITIONS
    );
    wait(cluster, &sql, "all partitions are shared").await
}

async fn wait(cluster: &Cluster, sql: &str, what: &str) -> Result<()> {
    let deadline = Instant::now() + STUCK;
    while !cluster.server.ask::<bool>(sql).await? {
        if Instant::now() > deadline {
            bail!("not within {} s: {what}", STUCK.as_secs());
        }
        sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}
