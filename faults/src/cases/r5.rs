//! R5: a host that was paused past its leases and wakes up changes nothing.
//!
//! The host that holds most partitions is paused with a batch in flight: its proxy first holds back what it sends, so that
//! its statements reach Postgres only after another host has taken over and gone on. The woken host must be refused and
//! must let go.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::FutureExt;
use sqlx::Row as _;
use tokio::time::sleep;

use super::Case;
use super::judge::Witness;
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
/// Another host must have taken over by then; leases last 8 s.
const TAKEOVER: f64 = 10.0;
/// Beyond that something hangs.
const STUCK: Duration = Duration::from_secs(40);
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

/// One partition of one group, as its row says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Lease {
    group: String,
    partition: i32,
    epoch: i64,
    owner: String,
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
        host.pause().await?;
        let since = Instant::now();
        let taken = taken_over(cluster, &held, since).await?;
        paused.slowest = paused.slowest.max(since.elapsed());
        paused.leases += held.len() as u64;
        // The new owner gets somewhere before the old one wakes up.
        sleep(Duration::from_millis(rng.u64(200..800))).await;
        let before = refusals(&host.log())?;
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

async fn leases(cluster: &Cluster) -> Result<Vec<Lease>> {
    let mut connection = cluster.server.connect().await?;
    let rows = sqlx::query(
        "SELECT group_name, partition, epoch, owner FROM tidemill.consumer_offsets
          WHERE owner IS NOT NULL AND expires_at > clock_timestamp() ORDER BY 1, 2",
    )
    .fetch_all(&mut connection)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Lease {
                group: row.try_get(0)?,
                partition: row.try_get(1)?,
                epoch: row.try_get(2)?,
                owner: row.try_get(3)?,
            })
        })
        .collect()
}

/// The host that holds most, and what.
async fn holder(cluster: &Cluster) -> Result<(usize, Vec<Lease>)> {
    let since = Instant::now();
    loop {
        let leases = leases(cluster).await?;
        let mut best: Option<(usize, Vec<Lease>)> = None;
        for (number, host) in cluster.hosts.iter().enumerate() {
            let id = host.id()?;
            let held: Vec<Lease> = leases.iter().filter(|lease| lease.owner == id).cloned().collect();
            if !held.is_empty() && best.as_ref().is_none_or(|(_, most)| held.len() > most.len()) {
                best = Some((number, held));
            }
        }
        match best {
            Some(best) => return Ok(best),
            None if since.elapsed() > STUCK => bail!("no host holds a lease: {leases:?}"),
            None => sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Waits until all of these have another owner.
async fn taken_over(cluster: &Cluster, held: &[Lease], since: Instant) -> Result<Vec<Lease>> {
    loop {
        let now = leases(cluster).await?;
        let taken = held.iter().all(|old| {
            now.iter().any(|new| {
                (&new.group, new.partition) == (&old.group, old.partition)
                    && new.epoch > old.epoch
                    && new.owner != old.owner
            })
        });
        if taken {
            return Ok(now);
        }
        if since.elapsed() > STUCK {
            bail!("{held:?} were not taken over within {} s; now {now:?}", STUCK.as_secs());
        }
        sleep(Duration::from_millis(20)).await;
    }
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
