//! R15: while the bucket is away nobody but the archiver notices, and when it is back the archiver catches up.
//!
//! First all is well, then nothing gets to the bucket and nobody is told, then connections to it are refused, then all is well
//! again. Producers and a follower are timed throughout, and the archiver's lag is read from the metrics of a host.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::FutureExt;
use tokio::time::sleep;

use super::Case;
use super::judge::Witness;
use crate::cluster::host::Host;
use crate::cluster::pipeline::{self, INBOUND};
use crate::cluster::{Cluster, Layout};
use crate::cold;
use crate::http;
use crate::observe::delay::delays;
use crate::observe::follow::Follower;
use crate::proxy::{Mode, Proxy, Upstream};
use crate::report::{Verdict, Wanted};
use crate::run::{Run, Scale};
use crate::s3::Bucket;
use crate::workload::paced::{Pace, Paced, Timed, milliseconds, paced};

pub const CASE: Case =
    Case { id: "R15", title: "the bucket is away for a while", endless: false, run: |run| away(run).boxed() };

const PARTITIONS: u32 = 2;
const PACE: Pace = Pace { topic: INBOUND, producers: 4, rate: 20.0, batch: 5 };
/// Not counted: connections are made, caches filled.
const WARM_UP: Duration = Duration::from_secs(3);
/// At most so much more than while all is well.
const WORSE: f64 = 1.1;
/// The archiver looks again after half a minute at most, and then it has all of the time away to catch up with.
const CAUGHT_UP: Duration = Duration::from_secs(900);
/// As hosts sample it.
const SAMPLE: Duration = Duration::from_millis(500);

async fn away(run: Run) -> Result<Verdict> {
    let lasts = Duration::from_secs(run.rounds(600, 8).into());
    let bucket = Bucket::start(&run.folder.join("s3"), run.rng("bucket")).await?;
    let way = Proxy::start(Upstream::Address(bucket.address()), run.rng("way to the bucket")).await?;
    let layout = Layout {
        bucket: Some(bucket.url(way.address())),
        environment: Bucket::environment(),
        ..Layout::new(2, pipeline::short_lived(&[INBOUND], PARTITIONS, "forever"))
    };
    let cluster = Cluster::start(&run, layout).await?;
    let witness = Witness::of_topics(&run, &cluster, &[INBOUND]);
    let follower = Follower::start(cluster.hosts[1].clone(), INBOUND);
    let stop = Arc::new(AtomicBool::new(false));

    let producing = paced(&run, &cluster.hosts, PACE, &witness.history, &stop);
    let watching = tokio::spawn(watch(cluster.hosts[0].clone(), stop.clone()));
    let closing = async {
        let phases = close(&run, &cluster, &way, lasts).await;
        stop.store(true, Ordering::Relaxed);
        phases
    };
    let (produced, phases) = tokio::try_join!(producing, closing)?;
    let lags = watching.await?;

    let history = witness.history.appends();
    let (seen, wrong) = follower.finish(history.iter().map(|append| append.items.len()).sum()).await;
    let delivered = delays(&history, &seen);
    let mut verdict = Verdict::default();
    verdict.none("records that a follower missed or got twice", wrong);
    verdict.injected("seconds without a bucket", lasts.as_secs(), (phases.back - phases.gone).as_secs());
    verdict.counted("requests", produced.times.len() as u64);
    judge_times(&run, &phases, &produced, &delivered, &mut verdict)?;
    judge_lag(&phases, lasts, &lags, &mut verdict);
    verdict.none("errors to producers", produced.errors);
    verdict.none("segments dropped unarchived", cold::unarchived(&cluster.server).await?);
    verdict
        .none("catalog rows without a valid object", cold::invalid(&cluster.server, bucket.folder()).await?);
    witness.judge_archived(&cluster, INBOUND, &mut verdict).await?;
    cluster.stop().await?;
    Ok(verdict)
}

/// When what began.
struct Phases {
    well: Instant,
    gone: Instant,
    back: Instant,
    caught_up: Instant,
    /// What `GET /v1/topics/TOPIC/segments` said while the bucket was away.
    told: bool,
}

/// Takes the bucket away for so long, half of it as a black hole, and waits until the archiver has caught up.
async fn close(run: &Run, cluster: &Cluster, way: &Proxy, lasts: Duration) -> Result<Phases> {
    sleep(WARM_UP).await;
    let well = Instant::now();
    sleep((lasts / 5).max(Duration::from_secs(5))).await;
    run.say("the bucket goes away");
    let gone = Instant::now();
    way.set(Mode::Hole { up: true, down: true });
    sleep(lasts / 2).await;
    way.set(Mode::Cut);
    let cut = Instant::now();
    let mut told = false;
    while cut.elapsed() < lasts / 2 {
        sleep(SAMPLE).await;
        told |= told_of(&cluster.hosts[0]).await?;
    }
    way.set(Mode::Pass);
    let back = Instant::now();
    run.say("the bucket is back");
    cold::archived(&cluster.server, false, CAUGHT_UP).await?;
    // As before it, so that what follows can be compared.
    Ok(Phases { well, gone, back, caught_up: Instant::now(), told })
}

/// Whether the segments of the topic say why they are not archived.
async fn told_of(host: &Host) -> Result<bool> {
    let url = host.url().context("the host is down")?;
    let answer = http::client().get(format!("{url}/v1/topics/{INBOUND}/segments")).send().await?;
    let body: serde_json::Value = answer.json().await?;
    let segments = body["segments"].as_array().context("a topic has segments")?;
    Ok(segments.iter().any(|segment| segment["error"].is_string()))
}

/// Samples the archiver's lag, in seconds.
async fn watch(host: Arc<Host>, stop: Arc<AtomicBool>) -> Vec<(Instant, f64)> {
    let mut lags = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        if let Ok(Some(lag)) = lag(&host).await {
            lags.push((Instant::now(), lag));
        }
        sleep(SAMPLE).await;
    }
    lags
}

async fn lag(host: &Host) -> Result<Option<f64>> {
    let url = host.url().context("the host is down")?;
    let text = http::client().get(format!("{url}/metrics")).send().await?.text().await?;
    let value = text.lines().find_map(|line| line.strip_prefix("tidemill_archive_lag_seconds "));
    Ok(value.and_then(|value| value.trim().parse().ok()))
}

/// What clients saw while the bucket was away, beside what they saw before.
fn judge_times(
    run: &Run,
    phases: &Phases,
    produced: &Paced,
    delivered: &[Timed],
    verdict: &mut Verdict,
) -> Result<()> {
    for (what, times) in [("append", &produced.times[..]), ("delivery", delivered)] {
        let of =
            |from, until, part| milliseconds(times, from, until, part).context("a phase without a request");
        let (before, away) = (of(phases.well, phases.gone, 0.99)?, of(phases.gone, phases.back, 0.99)?);
        let after = of(phases.back, phases.caught_up, 0.99)?;
        verdict.figure(&format!("{what} with the bucket, p99 (ms)"), Wanted::Shown, before);
        verdict.figure(&format!("{what} without it, p99 (ms)"), Wanted::Shown, away);
        let wanted = if run.scale == Scale::Full { Wanted::AtMost(WORSE) } else { Wanted::Shown };
        verdict.figure(
            &format!("{what}, p99 without it to p99 with it"),
            wanted,
            away / before.max(f64::EPSILON),
        );
        verdict.figure(&format!("{what} while the archiver catches up, p99 (ms)"), Wanted::Shown, after);
    }
    Ok(())
}

fn judge_lag(phases: &Phases, lasts: Duration, lags: &[(Instant, f64)], verdict: &mut Verdict) {
    let most = |from: Instant, until: Instant| {
        lags.iter().filter(|(at, _)| (from..until).contains(at)).map(|(_, lag)| *lag).fold(0.0, f64::max)
    };
    let (before, away) = (most(phases.well, phases.gone), most(phases.gone, phases.caught_up));
    verdict.figure("archiver's lag with the bucket (s)", Wanted::Shown, before);
    verdict.figure("archiver's lag in the end (s)", Wanted::AtLeast(0.8 * lasts.as_secs_f64()), away);
    verdict.figure("caught up after (s)", Wanted::Shown, (phases.caught_up - phases.back).as_secs_f64());
    let silent = if phases.told { Vec::new() } else { vec!["no segment shows an error".to_owned()] };
    verdict.none("outages that segments do not show", silent);
}
