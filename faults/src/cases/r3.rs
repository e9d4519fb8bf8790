//! R3: a connection that is lost at COMMIT is an open question, and it is asked, never guessed.
//!
//! Each host reaches Postgres through a proxy that recognises commits (of stages, and of appends, which commit with their
//! statement) and cuts the connection before the server gets one, or after it has done it and before its answer comes.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use futures::FutureExt;
use tokio::time::sleep;

use super::Case;
use super::judge::Witness;
use crate::cluster::pipeline::{self, INBOUND};
use crate::cluster::{Cluster, Layout};
use crate::history::Outcome;
use crate::report::{Verdict, Wanted};
use crate::run::Run;
use crate::workload::{Load, produce};

pub const CASE: Case = Case {
    id: "R3",
    title: "connections reset exactly at COMMIT",
    endless: false,
    run: |run| cuts(run).boxed(),
};

const HOSTS: usize = 2;
const PRODUCERS: u32 = 8;
/// Of the commits while cuts are left.
const CHANCE: f64 = 0.2;
/// Without a cut for so long, something hangs.
const STALLED: Duration = Duration::from_secs(60);

async fn cuts(run: Run) -> Result<Verdict> {
    let wanted = run.rounds(2_000, 60);
    let cluster = Cluster::start(&run, Layout::new(HOSTS, pipeline::text(4)).proxied()).await?;
    let witness = Witness::of_pipeline(&run, &cluster);
    let load = Load { batch: 1..=20, ..Load::endless(INBOUND, PRODUCERS) };
    for (number, proxy) in (0..).zip(&cluster.proxies) {
        let share = wanted / HOSTS as u32 + u32::from(number < wanted % HOSTS as u32);
        proxy.cut_commits(share, CHANCE);
    }

    let producing = produce(&run, &cluster.hosts, &load, &witness.history, &witness.progress);
    let waiting = async {
        let used = use_up(&run, &cluster).await;
        witness.progress.finish();
        used
    };
    tokio::try_join!(producing, waiting)?;

    let (mut before, mut after) = (0, 0);
    for proxy in &cluster.proxies {
        before += proxy.done().before.load(Ordering::Relaxed);
        after += proxy.done().after.load(Ordering::Relaxed);
    }
    let mut verdict = Verdict::default();
    verdict.injected("cuts at COMMIT", u64::from(wanted), before + after);
    verdict.counted("of them before the server had it", before);
    verdict.counted("of them after the server had done it", after);
    let open = witness.history.appends().iter().filter(|append| append.outcome == Outcome::Unknown).count();
    verdict.figure("requests left open", Wanted::Exactly(0.0), open as f64);
    witness.judge_pipeline(&cluster, &mut verdict).await?;
    cluster.stop().await?;
    Ok(verdict)
}

/// Waits until every proxy has cut as often as it was told to.
async fn use_up(run: &Run, cluster: &Cluster) -> Result<()> {
    let left = || cluster.proxies.iter().map(|proxy| proxy.cuts_left()).sum::<u32>();
    let (mut last, mut since) = (left(), Instant::now());
    while left() > 0 {
        let now = left();
        if now / 500 != last / 500 {
            run.say(format!("{now} cuts to go"));
        }
        if now != last {
            (last, since) = (now, Instant::now());
        }
        if since.elapsed() > STALLED {
            bail!("nothing was committed for {} s, with {now} cuts to go", STALLED.as_secs());
        }
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
