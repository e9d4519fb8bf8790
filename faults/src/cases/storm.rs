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
/// What does not pass by itself, at most.
const LONGEST: Duration = Duration::from_secs(12);
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

/// Where the storm can hit.
struct Target<'a> {
    run: &'a Run,
    cluster: &'a Cluster,
    /// Between the hosts and the bucket.
    way: &'a Proxy,
    rng: Rng,
    restarts: Vec<Restart>,
}

async fn hurt(run: &Run, cluster: &Cluster, way: &Proxy, lasts: Duration) -> Result<Done> {
    let mut target = Target { run, cluster, way, rng: run.rng("faults"), restarts: Vec::new() };
    let ends = Instant::now() + lasts;
    let mut done = Done::default();
    while Instant::now() < ends {
        sleep(PAUSE.mul_f64(target.rng.f64())).await;
        let longest = ends.saturating_duration_since(Instant::now()).min(LONGEST);
        let lasts = longest.mul_f64(target.rng.f64());
        let hit = match target.rng.u32(..10) {
            0..4 => target.hurt_a_host(lasts).await?,
            4..6 => target.hurt_postgres(lasts).await?,
            6..9 => target.hurt_the_network(lasts).await,
            _ => target.hurt_the_bucket(lasts).await,
        };
        hit.into_iter().for_each(|what| done.add(what));
    }
    for restart in target.restarts {
        restart.task.await?.with_context(|| format!("{} does not come back", restart.name))?;
    }
    Ok(done)
}

/// Each does one thing, takes it back where it does not pass by itself, and says what it was. None: not possible now, or
/// counted elsewhere.
impl Target<'_> {
    async fn hurt_a_host(&mut self, lasts: Duration) -> Result<Option<&'static str>> {
        let Some(host) = live(&self.cluster.hosts, &mut self.rng).cloned() else { return Ok(None) };
        Ok(match self.rng.u32(..4) {
            0 => {
                self.run.note(format!("pause {} for {lasts:?}", host.name()));
                host.pause().await?;
                sleep(lasts).await;
                host.resume().await?;
                Some("pauses of hosts")
            }
            1 => {
                self.run.note(format!("stop {}", host.name()));
                let status = host.stop().await?;
                ensure!(status.success(), "{} was asked to stop and ended with {status}", host.name());
                sleep(lasts / 4).await;
                host.start().await?;
                Some("hosts stopped in order")
            }
            _ => {
                let restart = self.cluster.kill_and_restart(&mut self.rng, lasts / 4);
                let killed = restart.is_some();
                restart.iter().for_each(|restart| self.run.note(format!("kill {}", restart.name)));
                self.restarts.extend(restart);
                killed.then_some("kills of hosts")
            }
        })
    }

    async fn hurt_postgres(&mut self, lasts: Duration) -> Result<Option<&'static str>> {
        let server = &self.cluster.server;
        let kind = self.rng.u32(..3);
        self.run.note(["kill a backend", "stop Postgres at once", "terminate listeners"][kind as usize]);
        Ok(match kind {
            0 => server.kill_backend(&mut self.rng).await?.then_some("kills of backends"),
            1 => {
                server.stop_immediately().await?;
                sleep(lasts / 4).await;
                server.start().await?;
                Some("immediate stops of Postgres")
            }
            _ => {
                server.terminate_listeners().await?;
                Some("times that listeners were terminated")
            }
        })
    }

    async fn hurt_the_network(&mut self, lasts: Duration) -> Option<&'static str> {
        let rng = &mut self.rng;
        let number = rng.usize(..self.cluster.proxies.len());
        let proxy = &self.cluster.proxies[number];
        // A host gives a lost connection up after half a minute, for which the fast tier has no time.
        let kind = rng.u32(..if self.run.scale == Scale::Fast { 5 } else { 6 });
        let names = ["cut all", "cut commits", "latency", "reset after some bytes", "black hole", "lose"];
        self.run.note(format!(
            "network of host-{}: {} for up to {lasts:?}",
            number + 1,
            names[kind as usize]
        ));
        match kind {
            0 => {
                proxy.cut_now().await;
                Some("times that connections were cut")
            }
            1 => {
                proxy.cut_commits(rng.u32(1..10), 0.5);
                None
            }
            2 => {
                during(proxy, Mode::Latency(Duration::from_millis(rng.u64(1..100))), lasts).await;
                Some("times of latency")
            }
            3 => {
                during(proxy, Mode::ResetAfter(rng.u64(1..50_000)), lasts / 4).await;
                Some("times of resets after some bytes")
            }
            4 => {
                let (up, down) = rng.choice([(true, true), (true, false), (false, true)]).unwrap_or_default();
                during(proxy, Mode::Hole { up, down }, lasts).await;
                Some("black holes")
            }
            _ => {
                proxy.lose().await;
                proxy.set(Mode::Pass);
                Some("times that connections were lost")
            }
        }
    }

    async fn hurt_the_bucket(&mut self, lasts: Duration) -> Option<&'static str> {
        let hole = Mode::Hole { up: true, down: true };
        self.run.note(format!("no bucket for {lasts:?}"));
        during(self.way, if self.rng.bool() { Mode::Cut } else { hole }, lasts).await;
        Some("times without a bucket")
    }
}

async fn during(proxy: &Proxy, mode: Mode, lasts: Duration) {
    proxy.set(mode);
    sleep(lasts).await;
    proxy.set(Mode::Pass);
}
