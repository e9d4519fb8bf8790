//! R18: NOTIFY only wakes. Without it, or with a listener that keeps dying, everything still arrives, by polling.
//!
//! Producers write through one host and a follower reads from the other, while the sessions that listen are terminated: every
//! two seconds in the first half, and so often in the second that there is hardly ever one.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::FutureExt;
use tokio::time::sleep;

use super::Case;
use super::judge::Witness;
use crate::cluster::pipeline::{self, INBOUND};
use crate::cluster::{Cluster, Layout};
use crate::observe::delay::{delays, quantile};
use crate::observe::follow::Follower;
use crate::report::{Verdict, Wanted};
use crate::run::Run;
use crate::workload::{Load, produce};

pub const CASE: Case = Case {
    id: "R18",
    title: "listening sessions terminated",
    endless: false,
    run: |run| terminate(run).boxed(),
};

const PRODUCERS: u32 = 4;
const RATE: f64 = 100.0;
const SELDOM: Duration = Duration::from_secs(2);
const OFTEN: Duration = Duration::from_millis(50);
/// Hosts look for themselves once a second; the rest is for a busy machine.
const DELIVERED: f64 = 1.2;

async fn terminate(run: Run) -> Result<Verdict> {
    let rounds = run.rounds(30, 1);
    let cluster = Cluster::start(&run, Layout::new(2, pipeline::text(4))).await?;
    let witness = Witness::of_pipeline(&run, &cluster);
    let load = Load { rate: Some(RATE), batch: 1..=4, ..Load::endless(INBOUND, PRODUCERS) };
    let follower = Follower::start(cluster.hosts[1].clone(), INBOUND);

    let producing = produce(&run, &cluster.hosts[..1], &load, &witness.history, &witness.progress);
    let terminating = async {
        let done = kill_listeners(&cluster, rounds).await;
        witness.progress.finish();
        done
    };
    let ((), (sessions, turn)) = tokio::try_join!(producing, terminating)?;

    let all = witness.history.appends();
    let log = crate::observe::by_sql(&cluster.server, INBOUND).await?;
    let (seen, skipped) = follower.finish(log.reads.len()).await;
    let delays = delays(&all, &seen);
    let part = |first: bool| {
        let of_half = delays.iter().filter(|(at, _)| (*at < turn) == first).map(|(_, delay)| *delay);
        quantile(of_half.collect(), 0.99).context("a half without a record").map(|delay| delay.as_secs_f64())
    };
    let mut verdict = Verdict::default();
    verdict.injected("listening sessions terminated", u64::from(rounds), sessions);
    verdict.figure("delivered, one killed each 2 s, p99 (s)", Wanted::AtMost(DELIVERED), part(true)?);
    verdict.figure("delivered, hardly any listening, p99 (s)", Wanted::AtMost(DELIVERED), part(false)?);
    verdict.none("records the follower missed or got twice", skipped);
    witness.judge_pipeline(&cluster, &mut verdict).await?;
    cluster.stop().await?;
    Ok(verdict)
}

/// Gives how many were terminated, and when it became often.
async fn kill_listeners(cluster: &Cluster, rounds: u32) -> Result<(u64, Instant)> {
    let mut sessions = 0;
    for _ in 0..rounds {
        sleep(SELDOM).await;
        sessions += cluster.server.terminate_listeners().await?;
    }
    let turn = Instant::now();
    while turn.elapsed() < SELDOM * rounds {
        sleep(OFTEN).await;
        sessions += cluster.server.terminate_listeners().await?;
    }
    Ok((sessions, turn))
}
