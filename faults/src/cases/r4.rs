//! R4: a network that swallows everything and tells nobody hangs nothing and repeats nothing.
//!
//! Between one host and Postgres nothing gets through: both ways, only up, only down; and once so that the connections of that
//! time never come back. Requests that are made of the host meanwhile must end by themselves, the other host must take over, and
//! afterwards the host must be woken by notifications again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::FutureExt;
use futures::future::join_all;
use tokio::time::{sleep, timeout};

use super::Case;
use super::judge::Witness;
use crate::cluster::host::Host;
use crate::cluster::pipeline::{self, INBOUND};
use crate::cluster::{Cluster, Layout};
use crate::http;
use crate::observe::delay::{delays, quantile};
use crate::observe::follow::Follower;
use crate::proxy::Mode;
use crate::report::{Verdict, Wanted};
use crate::run::{Run, Scale};
use crate::workload::{Load, produce};

pub const CASE: Case =
    Case { id: "R4", title: "black holes before Postgres", endless: false, run: |run| holes(run).boxed() };

const PRODUCERS: u32 = 4;
const RATE: f64 = 60.0;
/// No statement of a host takes longer, so no request may, but for a second.
const ANSWERED: f64 = 31.0;
/// A request that has not ended by then never will.
const NEVER: Duration = Duration::from_secs(75);
/// Requests that look how long they take are made so often.
const PROBE: Duration = Duration::from_millis(500);
/// Listening again so long after a hole.
const LISTENING: Duration = Duration::from_secs(15);
/// Deliveries are looked at for so long then. Polled, half of them would take longer than half a second.
const LOOKED_AT: Duration = Duration::from_secs(4);
const WOKEN: f64 = 0.25;

const MODES: [(&str, Mode); 4] = [
    ("both ways", Mode::Hole { up: true, down: true }),
    ("up", Mode::Hole { up: true, down: false }),
    ("down", Mode::Hole { up: false, down: true }),
    // Last: a host gives such a connection up after half a minute, for which the fast tier has no time.
    ("lost", Mode::Lost),
];

async fn holes(run: Run) -> Result<Verdict> {
    let rounds = run.rounds(4, 2);
    let lasts = Duration::from_secs(run.size(30, 2).into());
    let cluster = Cluster::start(&run, Layout::new(2, pipeline::text(4)).proxied()).await?;
    let witness = Witness::of_pipeline(&run, &cluster);
    let load = Load { rate: Some(RATE), batch: 1..=4, ..Load::endless(INBOUND, PRODUCERS) };
    let follower = Follower::start(cluster.hosts[0].clone(), INBOUND);

    let producing = produce(&run, &cluster.hosts, &load, &witness.history, &witness.progress);
    let swallowing = async {
        let done = swallow(&run, &cluster, rounds, lasts).await;
        witness.progress.finish();
        done
    };
    let ((), swallowed) = tokio::try_join!(producing, swallowing)?;

    let mut verdict = Verdict::default();
    verdict.injected(
        &format!("holes of {} s", lasts.as_secs()),
        u64::from(rounds),
        swallowed.healed.len() as u64,
    );
    verdict.counted("requests into them", swallowed.requests);
    verdict.figure("slowest answer (s)", Wanted::AtMost(ANSWERED), swallowed.slowest.as_secs_f64());
    verdict.none("requests without an end", swallowed.hung);
    let log = crate::observe::by_sql(&cluster.server, INBOUND).await?;
    let (seen, skipped) = follower.finish(log.reads.len()).await;
    if run.scale == Scale::Full {
        let delays = delays(&witness.history.appends(), &seen);
        for (name, healed) in &swallowed.healed {
            let from = *healed + LISTENING;
            let after = delays.iter().filter(|(at, _)| (from..from + LOOKED_AT).contains(at));
            let median = quantile(after.map(|(_, delay)| *delay).collect(), 0.5).context("no deliveries")?;
            let name = format!("woken again 15 s after a hole: {name} (s)");
            verdict.figure(&name, Wanted::AtMost(WOKEN), median.as_secs_f64());
        }
    }
    verdict.none("records the follower missed or got twice", skipped);
    witness.judge_pipeline(&cluster, &mut verdict).await?;
    cluster.stop().await?;
    Ok(verdict)
}

#[derive(Default)]
struct Swallowed {
    /// Kind of each hole, and when it ended.
    healed: Vec<(&'static str, Instant)>,
    requests: u64,
    slowest: Duration,
    hung: Vec<String>,
}

async fn swallow(run: &Run, cluster: &Cluster, rounds: u32, lasts: Duration) -> Result<Swallowed> {
    let mut swallowed = Swallowed::default();
    for round in 0..rounds {
        let (name, mode) = MODES[round as usize % MODES.len()];
        sleep(Duration::from_secs(1)).await;
        let (host, proxy) = (&cluster.hosts[0], &cluster.proxies[0]);
        let over = Arc::new(AtomicBool::new(false));
        let probing = tokio::spawn(probe(host.clone(), over.clone()));
        run.note(format!("hole: {name}"));
        match mode {
            Mode::Lost => proxy.lose().await,
            mode => proxy.set(mode),
        }
        sleep(lasts).await;
        proxy.set(Mode::Pass);
        run.note("pass");
        over.store(true, Ordering::Relaxed);
        swallowed.healed.push((name, Instant::now()));
        if run.scale == Scale::Full {
            sleep(LISTENING + LOOKED_AT).await;
        }
        for (what, took) in probing.await? {
            swallowed.requests += 1;
            match took {
                Some(took) => swallowed.slowest = swallowed.slowest.max(took),
                None => swallowed.hung.push(format!("{what} during a hole ({name})")),
            }
        }
        run.say(format!("hole {} of {rounds}: {name}", round + 1));
    }
    Ok(swallowed)
}

/// Asks the host for one thing after another, none waiting for the other, and says how long each took. None: no end.
async fn probe(host: Arc<Host>, over: Arc<AtomicBool>) -> Vec<(&'static str, Option<Duration>)> {
    let mut asked = Vec::new();
    let url = host.url().unwrap_or_default();
    for round in 0.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let page = format!("{url}/v1/topics/{INBOUND}/records?max=1");
        let status = format!("{url}/v1/status");
        let (what, request) = match round % 3 {
            0 => ("an append", append(&url)),
            1 => ("a read", http::client().get(page)),
            _ => ("the status", http::client().get(status)),
        };
        asked.push(tokio::spawn(async move {
            let started = Instant::now();
            let ended = timeout(NEVER, request.send()).await;
            (what, ended.is_ok().then(|| started.elapsed()))
        }));
        sleep(PROBE).await;
    }
    join_all(asked).await.into_iter().flatten().collect()
}

/// To a topic that nobody judges.
fn append(url: &str) -> reqwest::RequestBuilder {
    http::client()
        .post(format!("{url}/v1/topics/{}/records", pipeline::PROBE))
        .header("content-type", "text/plain")
        .body("a probe")
}
