//! The storm: every kind of fault, drawn at random, one after the other and into each other, for as long as is wished.
//!
//! Topics have short segments, so that segments are sealed and archived to a misbehaving S3 all the while, and what the
//! objects hold is compared with what SQL and HTTP give. A long storm is cut into cycles, each on a cluster of its own, so
//! that what is kept in memory stays bounded.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use futures::FutureExt;
use tokio::time::sleep;

use super::Case;
use super::judge::Witness;
use crate::check;
use crate::cluster::host::live;
use crate::cluster::pipeline::{self, INBOUND, OUTBOUND};
use crate::cluster::{Cluster, Layout, Restart};
use crate::observe;
use crate::proxy::{Mode, Proxy, Upstream};
use crate::report::{Verdict, Wanted};
use crate::run::{Run, Scale};
use crate::s3::Bucket;
use crate::workload::{Load, produce};

pub const CASE: Case = Case {
    id: "storm",
    title: "faults of all kinds at random",
    endless: true,
    run: |run| storm(run).boxed(),
};

const HOSTS: usize = 3;
const PRODUCERS: u32 = 4;
const RATE: f64 = 150.0;
/// Longer storms begin anew.
const CYCLE: Duration = Duration::from_secs(300);
/// Between two faults, at most.
const PAUSE: Duration = Duration::from_millis(1_500);
/// Of the requests to the bucket.
const BAD_BUCKET: f64 = 0.1;
/// Archiving goes on for so long afterwards, at most.
const ARCHIVED: Duration = Duration::from_secs(120);

async fn storm(run: Run) -> Result<Verdict> {
    let lasts = if run.scale == Scale::Fast { Duration::from_secs(8) } else { run.lasts };
    let ends = Instant::now() + lasts;
    let mut verdict = Verdict::default();
    for cycle in 0.. {
        let left = ends.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        let mut run = run.clone();
        run.seed = run.seed.wrapping_add(cycle);
        run.folder = run.folder.join(format!("cycle-{cycle}"));
        verdict.add(one(&run, left.min(CYCLE)).await.with_context(|| format!("cycle {cycle}"))?);
        let _ = std::fs::remove_dir_all(&run.folder);
        ensure!(
            verdict.is_met() || left <= CYCLE,
            "something is wrong in cycle {cycle}: {:?}",
            verdict.missed()
        );
    }
    Ok(verdict)
}

async fn one(run: &Run, lasts: Duration) -> Result<Verdict> {
    let bucket = Bucket::start(&run.folder.join("s3"), run.rng("bucket")).await?;
    let way = Proxy::start(Upstream::Address(bucket.address()), run.rng("way to the bucket")).await?;
    let layout = Layout {
        bucket: Some(bucket.url(way.address())),
        environment: Bucket::environment(),
        ..Layout::new(HOSTS, pipeline::with_segments(4, "5s")).proxied()
    };
    let cluster = Cluster::start(run, layout).await?;
    bucket.misbehave(BAD_BUCKET);
    let witness = Witness::of_pipeline(run, &cluster);
    let load = Load { rate: Some(RATE), batch: 1..=20, ..Load::endless(INBOUND, PRODUCERS) };

    let producing = produce(run, &cluster.hosts, &load, &witness.history, &witness.progress);
    let hurting = async {
        let done = hurt(run, &cluster, &way, lasts).await;
        witness.progress.finish();
        done
    };
    let ((), done) = tokio::try_join!(producing, hurting)?;

    bucket.misbehave(0.0);
    let mut verdict = Verdict::default();
    for (count, what) in done.0 {
        verdict.counted(what, count);
    }
    let cuts: u64 = cluster.proxies.iter().map(|proxy| proxy.commits_cut()).sum();
    verdict.counted("cuts at COMMIT", cuts);
    verdict.counted("requests to the bucket that failed", bucket.faults());
    verdict.counted("puts of objects", bucket.puts());
    archive(&cluster, &bucket, &mut verdict).await?;
    witness.judge_pipeline(&cluster, &mut verdict).await?;
    cluster.stop().await?;
    Ok(verdict)
}

/// Waits until what is sealed is archived, and compares the objects with the log.
async fn archive(cluster: &Cluster, bucket: &Bucket, verdict: &mut Verdict) -> Result<()> {
    let since = Instant::now();
    let sealed = "SELECT count(*) FROM tidemill.segments WHERE state = 'sealed'";
    let mut waiting: i64 = cluster.server.ask(sealed).await?;
    while waiting > 0 && since.elapsed() < ARCHIVED {
        sleep(Duration::from_millis(100)).await;
        waiting = cluster.server.ask(sealed).await?;
    }
    verdict.figure("sealed segments not archived in the end", Wanted::AtMost(2.0), waiting as f64);
    let mut archived = 0;
    let mut wrong = Vec::new();
    for topic in [INBOUND, OUTBOUND] {
        let log = observe::by_sql(&cluster.server, topic).await?;
        let cold = observe::archive::by_objects(&cluster.server, bucket.folder(), topic).await?;
        archived += cold.len() as u64;
        wrong.extend(check::inconsistent(&[("SQL", &log.reads), ("archive", &cold)]));
    }
    verdict.counted("records archived", archived);
    verdict.none("archived records that differ", wrong);
    Ok(())
}

/// What was done, and how often.
#[derive(Default)]
struct Done(Vec<(u64, &'static str)>);

impl Done {
    fn add(&mut self, what: &'static str) {
        match self.0.iter_mut().find(|(_, known)| *known == what) {
            Some((count, _)) => *count += 1,
            None => self.0.push((1, what)),
        }
    }
}

async fn hurt(run: &Run, cluster: &Cluster, way: &Proxy, lasts: Duration) -> Result<Done> {
    let mut rng = run.rng("faults");
    let ends = Instant::now() + lasts;
    let (mut done, mut restarts) = (Done::default(), Vec::new());
    while Instant::now() < ends {
        sleep(PAUSE.mul_f64(rng.f64())).await;
        let longest = ends.saturating_duration_since(Instant::now()).min(Duration::from_secs(12));
        if let Some(what) = fault(cluster, way, &mut rng, longest, &mut restarts).await? {
            done.add(what);
        }
    }
    for restart in restarts {
        restart.task.await?.with_context(|| format!("{} does not come back", restart.name))?;
    }
    Ok(done)
}

/// Does one thing, and takes it back where it does not pass by itself. None: it was not possible now.
async fn fault(
    cluster: &Cluster,
    way: &Proxy,
    rng: &mut Rng,
    longest: Duration,
    restarts: &mut Vec<Restart>,
) -> Result<Option<&'static str>> {
    let lasts = longest.mul_f64(rng.f64());
    let short = lasts / 4;
    let proxy = rng.choice(&cluster.proxies).context("a storm has proxies")?;
    let what = match rng.u32(..13) {
        0 | 1 => {
            let Some(restart) = cluster.kill_and_restart(rng, short) else { return Ok(None) };
            restarts.push(restart);
            "kills of hosts"
        }
        2 => {
            let Some(host) = live(&cluster.hosts, rng) else { return Ok(None) };
            let status = host.stop().await?;
            ensure!(status.success(), "{} was asked to stop and ended with {status}", host.name());
            sleep(short).await;
            host.start().await?;
            "hosts stopped in order"
        }
        3 => {
            let Some(host) = live(&cluster.hosts, rng) else { return Ok(None) };
            host.pause().await?;
            sleep(lasts).await;
            host.resume().await?;
            "pauses of hosts"
        }
        4 => {
            if !cluster.server.kill_backend(rng).await? {
                return Ok(None);
            }
            "kills of backends"
        }
        5 => {
            cluster.server.stop_immediately().await?;
            sleep(short).await;
            cluster.server.start().await?;
            "immediate stops of Postgres"
        }
        6 => {
            cluster.server.terminate_listeners().await?;
            "listeners terminated"
        }
        7 => {
            proxy.cut_now().await;
            "connections cut"
        }
        8 => {
            proxy.cut_commits(rng.u32(1..10), 0.5);
            return Ok(None);
        }
        9 => {
            during(proxy, Mode::Latency(Duration::from_millis(rng.u64(1..100))), lasts).await;
            "times of latency"
        }
        10 => {
            during(proxy, Mode::ResetAfter(rng.u64(1..50_000)), short).await;
            "times of resets after some bytes"
        }
        11 => {
            during(way, if rng.bool() { Mode::Cut } else { Mode::Hole { up: true, down: true } }, lasts)
                .await;
            "times without a bucket"
        }
        _ => {
            let (up, down) = match rng.u32(..3) {
                0 => (true, true),
                1 => (true, false),
                _ => (false, true),
            };
            if rng.u32(..4) == 0 {
                proxy.lose().await;
            }
            during(proxy, Mode::Hole { up, down }, lasts).await;
            "black holes"
        }
    };
    Ok(Some(what))
}

async fn during(proxy: &Proxy, mode: Mode, lasts: Duration) {
    proxy.set(mode);
    sleep(lasts).await;
    proxy.set(Mode::Pass);
}
