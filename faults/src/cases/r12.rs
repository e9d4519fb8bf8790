//! R12: whichever step of archiving and dropping a host is killed at, nothing is lost and nothing is left behind.
//!
//! Two hosts archive and drop while producers write. Each is started so that it kills itself at one place of its code, and
//! started again with the next one, until each place had its turns. Then both may finish: all that was sent must come back,
//! out of the bucket, and the bucket must hold what the catalog names and nothing else.

use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use fastrand::Rng;
use futures::FutureExt;
use futures::future::try_join_all;

use super::Case;
use super::judge::Witness;
use crate::cluster::host::Host;
use crate::cluster::pipeline::{self, INBOUND};
use crate::cluster::{Cluster, Layout};
use crate::cold;
use crate::report::Verdict;
use crate::run::{Run, Scale};
use crate::workload::{Load, produce};

pub const CASE: Case = Case {
    id: "R12",
    title: "hosts killed at each step of archiving",
    endless: false,
    run: |run| crashes(run).boxed(),
};

const HOSTS: usize = 2;
const PRODUCERS: u32 = 2;
/// Records a second of each producer: enough that each segment has some in each partition.
const RATE: f64 = 60.0;
/// Every place between two steps (`crash::point` in the host).
const PLACES: [&str; 12] = [
    "archive.claim",
    "archive.write",
    "archive.intend",
    "archive.put",
    "archive.verify",
    "archive.commit",
    "archive.committed",
    "segments.expire",
    "segments.detach",
    "segments.drop",
    "archive.doom",
    "archive.sweep",
];
/// A host passes its place up to so many times before it is killed there.
const PASSES: u32 = 2;
/// Each place is come to once a second or so; the drop of a segment comes 14 s after its time.
const PATIENCE: Duration = Duration::from_secs(90);
/// What is swept has been loose for so long.
const SWEEP_AFTER: &str = "3s";
/// All hosts are well again: what is left to do is a matter of seconds.
const SETTLED: Duration = Duration::from_secs(120);

async fn crashes(run: Run) -> Result<Verdict> {
    let rounds = run.rounds(10, 1);
    let arguments = vec!["--sweep-after".to_owned(), SWEEP_AFTER.to_owned()];
    let text = pipeline::short_lived(&[INBOUND], 2, "forever");
    let cluster = Cluster::start(&run, Layout { arguments, ..Layout::new(HOSTS, text) }).await?;
    let witness = Witness::of_topics(&run, &cluster, &[INBOUND]);
    let load = Load { rate: Some(RATE), batch: 1..=10, ..Load::endless(INBOUND, PRODUCERS) };

    let producing = produce(&run, &cluster.hosts, &load, &witness.history, &witness.progress);
    let crashing = async {
        let crashed = crash_all(&run, &cluster, rounds).await;
        witness.progress.finish();
        crashed
    };
    let ((), crashed) = tokio::try_join!(producing, crashing)?;

    let bucket = cluster.folder.join("bucket");
    // What a killed sweep was about to delete is taken up again after ten minutes, which are over now.
    let mut connection = cluster.server.connect().await?;
    sqlx::query("UPDATE tidemill.loose_objects SET doomed_at = doomed_at - interval '1 hour'")
        .execute(&mut connection)
        .await?;
    cold::archived(&cluster.server, run.scale == Scale::Full, SETTLED).await?;
    let orphans = cold::swept(&cluster.server, &bucket, SETTLED).await?;

    let mut verdict = Verdict::default();
    verdict.injected("kills at a step", u64::from(rounds) * PLACES.len() as u64, crashed.kills);
    verdict.counted("different steps", PLACES.len() as u64);
    verdict.counted("segments dropped", cold::segments(&cluster.server, "'dropped'").await?);
    let mut unarchived = crashed.unarchived;
    unarchived.extend(cold::unarchived(&cluster.server).await?);
    verdict.none("segments dropped unarchived", unarchived);
    verdict.none("catalog rows without a valid object", cold::invalid(&cluster.server, &bucket).await?);
    verdict.none("offsets catalogued twice", cold::overlapping(&cluster.server).await?);
    verdict.none("orphans after the sweep", orphans);
    let pending = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhdetachpending";
    verdict.none("detaches left pending", cold::violations(&cluster.server, pending).await?);
    witness.judge_archived(&cluster, INBOUND, &mut verdict).await?;
    cluster.stop().await?;
    Ok(verdict)
}

#[derive(Default)]
struct Crashed {
    kills: u64,
    /// Seen right after a kill.
    unarchived: Vec<String>,
}

/// Hosts are killed side by side, each at places of its own, and come back for good when all have had their turns.
async fn crash_all(run: &Run, cluster: &Cluster, rounds: u32) -> Result<Crashed> {
    let mut rng = run.rng("places");
    let mut places: Vec<&str> = (0..rounds).flat_map(|_| PLACES).collect();
    rng.shuffle(&mut places);
    let tasks = cluster.hosts.iter().enumerate().map(|(number, host)| {
        let places: Vec<&str> = places.iter().skip(number).step_by(HOSTS).copied().collect();
        crash(run, cluster, host, places, rng.fork())
    });
    let done = try_join_all(tasks.collect::<Vec<_>>()).await?;
    let kills = done.iter().map(|crashed| crashed.kills).sum();
    Ok(Crashed { kills, unarchived: done.into_iter().flat_map(|crashed| crashed.unarchived).collect() })
}

async fn crash(
    run: &Run,
    cluster: &Cluster,
    host: &Arc<Host>,
    places: Vec<&str>,
    mut rng: Rng,
) -> Result<Crashed> {
    let mut crashed = Crashed::default();
    host.kill().await?;
    for (turn, place) in places.iter().enumerate() {
        let mut status = host.crash_at(&format!("{place}:{}", rng.u32(1..=PASSES)), Duration::ZERO).await?;
        let since = Instant::now();
        while status.is_none() {
            if since.elapsed() > PATIENCE {
                bail!("{} did not come to {place} within {} s", host.name(), PATIENCE.as_secs());
            }
            if place.ends_with("doom") || place.ends_with("sweep") {
                leave_an_orphan(cluster, &mut rng).await?;
            }
            status = host.ended(Duration::from_secs(1)).await?;
        }
        let signal = status.and_then(|status| status.signal());
        ensure!(signal == Some(9), "{} ended by itself instead of at {place}: {status:?}", host.name());
        crashed.kills += 1;
        crashed.unarchived.extend(cold::unarchived(&cluster.server).await?);
        if turn % 10 == 9 {
            run.say(format!("{}: {} of {} kills", host.name(), turn + 1, places.len()));
        }
    }
    host.start().await.with_context(|| format!("{} after all its kills", host.name()))?;
    Ok(crashed)
}

/// An object as an attempt leaves it that was killed after its put and not made again, since it gave other bytes.
async fn leave_an_orphan(cluster: &Cluster, rng: &mut Rng) -> Result<()> {
    let path = format!("archive/{INBOUND}/date=2026-01-01/0-0-9-{:016x}.parquet", rng.u64(..));
    let mut connection = cluster.server.connect().await?;
    sqlx::query("INSERT INTO tidemill.loose_objects (path, reason) VALUES ($1, 'put')")
        .bind(&path)
        .execute(&mut connection)
        .await?;
    let file = cluster.folder.join("bucket").join(path);
    std::fs::create_dir_all(file.parent().context("a file has a folder")?)?;
    Ok(std::fs::write(file, "left behind")?)
}
