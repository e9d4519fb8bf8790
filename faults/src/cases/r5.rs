//! R5: a host that was paused past its leases and wakes up changes nothing.
//!
//! The host that holds most partitions is paused with a batch in flight: its proxy first holds back what it sends, so that
//! its statements reach Postgres only after another host has taken over and gone on. The woken host must be refused and
//! must let go.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::FutureExt;
use tokio::time::sleep;

use super::Case;
use super::judge::Witness;
use super::leases::{Lease, holder, leases, taken_over};
use crate::cluster::pipeline::{self, INBOUND};
use crate::cluster::{Cluster, Layout};
use crate::proxy::Mode;
use crate::report::{Verdict, Wanted};
use crate::run::Run;
use crate::workload::{Load, produce};

pub const CASE: Case = Case {
    id: "R5",
    title: "host paused past its leases, then woken",
    endless: false,
    run: |run| pauses(run).boxed(),
};

const HOSTS: usize = 2;
const PRODUCERS: u32 = 4;
/// Records a second of each producer: enough that there is always a batch in flight.
const RATE: f64 = 150.0;
/// Another host must have taken over by then; leases last 7 s.
const TAKEOVER: f64 = 10.0;
/// A woken host finds out by then.
const LET_GO: Duration = Duration::from_secs(20);

async fn pauses(run: Run) -> Result<Verdict> {
    let rounds = run.rounds(50, 1);
    let cluster = Cluster::start(&run, Layout::new(HOSTS, pipeline::text(4)).proxied()).await?;
    let witness = Witness::of_pipeline(&run, &cluster);
    let load = Load { rate: Some(RATE), batch: 1..=10, ..Load::endless(INBOUND, PRODUCERS) };

    let producing = produce(&run, &cluster.hosts, &load, &witness.history, &witness.progress);
    let pausing = async {
        let paused = pause_all(&run, &cluster, rounds).await;
        witness.progress.finish();
        paused
    };
    let ((), paused) = tokio::try_join!(producing, pausing)?;

    let mut verdict = Verdict::default();
    verdict.injected("pauses past the leases", u64::from(rounds), u64::from(paused.rounds));
    verdict.counted("leases taken over", paused.leases);
    verdict.figure("slowest takeover (s)", Wanted::AtMost(TAKEOVER), paused.slowest.as_secs_f64());
    let rounds = f64::from(rounds);
    verdict.figure(
        "rounds in which the woken host was refused",
        Wanted::Exactly(rounds),
        f64::from(paused.refused),
    );
    verdict.none("leases that the woken host still moved", paused.moved);
    witness.judge_pipeline(&cluster, &mut verdict).await?;
    cluster.stop().await?;
    Ok(verdict)
}

#[derive(Default)]
struct Paused {
    rounds: u32,
    leases: u64,
    slowest: Duration,
    refused: u32,
    moved: Vec<String>,
}

async fn pause_all(run: &Run, cluster: &Cluster, rounds: u32) -> Result<Paused> {
    let mut rng = run.rng("pauses");
    let mut paused = Paused::default();
    for round in 0..rounds {
        sleep(Duration::from_millis(rng.u64(300..1_500))).await;
        let (number, held) = holder(cluster).await?;
        let (host, proxy) = (&cluster.hosts[number], &cluster.proxies[number]);
        proxy.set(Mode::Hole { up: true, down: false });
        sleep(Duration::from_millis(rng.u64(20..150))).await;
        run.note(format!("pause {}", host.name()));
        host.pause().await?;
        let since = Instant::now();
        let taken = taken_over(cluster, &held, since).await?;
        paused.slowest = paused.slowest.max(since.elapsed());
        paused.leases += held.len() as u64;
        // The new owner gets somewhere before the old one wakes up.
        sleep(Duration::from_millis(rng.u64(200..800))).await;
        let before = refusals(&host.log())?;
        run.note(format!("wake {}", host.name()));
        host.resume().await?;
        proxy.set(Mode::Pass);
        if let_go(&host.log(), before).await? {
            paused.refused += 1;
        }
        paused.moved.extend(went_back(&taken, &leases(cluster).await?));
        paused.rounds += 1;
        if round % 10 == 9 {
            run.say(format!("{} of {rounds} pauses", round + 1));
        }
    }
    Ok(paused)
}

/// Leases whose epoch went back while a host woke up.
fn went_back(before: &[Lease], after: &[Lease]) -> Vec<String> {
    let back = before.iter().filter_map(|old| {
        let new = after.iter().find(|new| (&new.group, new.partition) == (&old.group, old.partition))?;
        (new.epoch < old.epoch || (new.epoch == old.epoch && new.owner != old.owner))
            .then(|| format!("{old:?} became {new:?}"))
    });
    back.collect()
}

/// How often a host has said that a lease was no longer its own.
fn refusals(log: &std::path::Path) -> Result<usize> {
    let text = std::fs::read_to_string(log).with_context(|| log.display().to_string())?;
    let words = ["lease lost", "taken over", "fenced"];
    Ok(text.lines().filter(|line| words.iter().any(|word| line.contains(word))).count())
}

async fn let_go(log: &std::path::Path, before: usize) -> Result<bool> {
    let since = Instant::now();
    while since.elapsed() < LET_GO {
        if refusals(log)? > before {
            return Ok(true);
        }
        sleep(Duration::from_millis(50)).await;
    }
    Ok(false)
}
