//! R9: time never runs against the order of offsets, whatever the clocks of the hosts say.
//!
//! The hosts' clocks are set an hour ahead, an hour back and right again, each by itself, every few seconds (libfaketime; their
//! monotonic clocks go on, as when an administrator or NTP sets the time). In the middle of it the time of one partition is
//! moved an hour ahead in Postgres, as it stands after the server's own clock was set back.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use fastrand::Rng;
use futures::FutureExt;
use tokio::time::sleep;

use super::Case;
use super::judge::Witness;
use crate::check;
use crate::cluster::host::Host;
use crate::cluster::pipeline::{self, INBOUND, OUTBOUND};
use crate::cluster::{Cluster, Layout};
use crate::cold;
use crate::observe;
use crate::report::Verdict;
use crate::run::Run;
use crate::workload::{Load, produce};

pub const CASE: Case =
    Case { id: "R9", title: "clocks an hour ahead and back", endless: false, run: |run| clocks(run).boxed() };

const HOSTS: usize = 2;
const PARTITIONS: u32 = 4;
const PRODUCERS: u32 = 4;
/// Records a second of each producer.
const RATE: f64 = 100.0;
/// Seconds.
const HOUR: i64 = 3_600;
const DAY: i64 = 86_400;
/// Between two settings of a clock.
const STEP: Duration = Duration::from_millis(3_000);

/// Batches that are older than the one before them in their partition.
const INVERSIONS: &str = "
    SELECT format('partition %s offset %s is of %s, what came before it of %s', partition, base_offset, ts, before)
      FROM (SELECT *, lag(ts) OVER (PARTITION BY partition ORDER BY base_offset) AS before FROM log.inbound) b
     WHERE ts < before";

/// Batches in the table of another time.
const MISPLACED: &str = "
    SELECT format('partition %s offset %s of %s is in %s, which is for %s up to %s', b.partition, b.base_offset, b.ts,
                  s.table_name, s.lower, s.upper)
      FROM (SELECT *, tableoid::regclass::text AS place FROM log.inbound) b
      JOIN tidemill.segments s ON b.place IN (format('log.%I', s.table_name), format('%I', s.table_name))
     WHERE b.ts < s.lower OR b.ts >= s.upper";

/// Sealed segments whose offsets do not go on where those before them ended.
const GAPS: &str = "
    SELECT format('%s partition %s begins at %s, the one before it ended at %s', table_name, partition, first_offset, before)
      FROM (SELECT s.table_name, r.partition, r.first_offset,
                   lag(r.next_offset) OVER (PARTITION BY s.topic_id, r.partition ORDER BY s.lower) AS before
              FROM tidemill.segment_ranges r JOIN tidemill.segments s USING (segment_id)) r
     WHERE first_offset <> before";

async fn clocks(run: Run) -> Result<Verdict> {
    let Some(library) = faketime() else {
        return Ok(Verdict::skipped("no libfaketime; scripts/setup.sh faketime fetches it"));
    };
    let records = u64::from(run.rounds(10_000, 2_000));
    // Everything stays in Postgres, so that all times can be looked at.
    let text = pipeline::short_lived_copy(PARTITIONS).replace("hot = \"1s\"", "hot = \"1h\"");
    let cluster = Cluster::start(&run, Layout::new(HOSTS, text)).await?;
    let clocks = fake(&cluster, &library).await?;
    let witness = Witness::of_topics(&run, &cluster, &[INBOUND, OUTBOUND]);
    let load = Load { rate: Some(RATE), batch: 1..=8, ..Load::new(INBOUND, PRODUCERS, records) };

    let done = AtomicBool::new(false);
    let producing = async {
        let produced = produce(&run, &cluster.hosts, &load, &witness.history, &witness.progress).await;
        done.store(true, Ordering::Relaxed);
        produced
    };
    let setting = set_clocks(&run, &cluster, &clocks, &done);
    let ((), set) = tokio::try_join!(producing, setting)?;
    cluster.settle().await?;

    let server = &cluster.server;
    let mut verdict = Verdict::default();
    verdict.injected("clocks set", 4, set.steps);
    let mut jumped = 0;
    for host in &cluster.hosts {
        jumped += jumps(host)?;
    }
    verdict.injected("jumps of an hour or two in the hosts' logs", 2, jumped);
    verdict.injected("times moved ahead in Postgres", 1, set.ahead);
    let batches: i64 = server.ask("SELECT count(*) FROM log.inbound").await?;
    verdict.injected(
        "records",
        records,
        server.ask::<i64>("SELECT sum(record_count)::bigint FROM log.inbound").await?.cast_unsigned(),
    );
    verdict.counted("batches", batches.cast_unsigned());
    verdict.none("batches older than the one before", cold::violations(server, INVERSIONS).await?);
    verdict.none("batches in the table of another time", cold::violations(server, MISPLACED).await?);
    verdict.none("segments that do not go on where one ended", cold::violations(server, GAPS).await?);
    verdict.none("offsets catalogued twice", cold::overlapping(server).await?);
    verdict.none("segments archived in part", cold::unarchived(server).await?);
    let (inbound, outbound) =
        (observe::by_sql(server, INBOUND).await?, observe::by_sql(server, OUTBOUND).await?);
    verdict.none("records the stage skipped", check::missing(&inbound, &outbound));
    verdict.none("records the stage got twice", check::duplicated(&outbound));
    witness.judge_archived(&cluster, INBOUND, &mut verdict).await?;
    cluster.stop().await?;
    Ok(verdict)
}

/// The library, if it was named, fetched by `scripts/setup.sh`, or installed.
fn faketime() -> Option<PathBuf> {
    const NAME: &str = "libfaketimeMT.so.1";
    let named = std::env::var_os("TIDEMILL_FAKETIME").map(PathBuf::from);
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.setup/faketime").join(NAME);
    let installed = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let installed = installed.map(|entry| entry.path().join("faketime").join(NAME));
    named.into_iter().chain([fetched]).chain(installed).find(|path| path.is_file())?.canonicalize().ok()
}

/// Starts each host again under a clock that its file sets. The files, by host.
async fn fake(cluster: &Cluster, library: &Path) -> Result<Vec<PathBuf>> {
    let mut clocks = Vec::new();
    for host in &cluster.hosts {
        let file = cluster.folder.join(format!("{}.clock", host.name()));
        set(&file, 0)?;
        host.kill().await?;
        let variables = [
            ("LD_PRELOAD", library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", file.display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("NO_FAKE_STAT", "1".to_owned()),
            // Lines enough to see the jumps in.
            ("RUST_LOG", "info,tidemill=debug".to_owned()),
        ];
        host.set_variables(variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect());
        host.start().await.with_context(|| format!("{} under libfaketime", host.name()))?;
        clocks.push(file);
    }
    Ok(clocks)
}

/// So many seconds ahead. Whole at once, since it is read at every look at the clock.
fn set(file: &Path, seconds: i64) -> Result<()> {
    let new = file.with_extension("new");
    std::fs::write(&new, format!("{seconds:+}\n"))?;
    Ok(std::fs::rename(new, file)?)
}

#[derive(Default)]
struct Set {
    steps: u64,
    ahead: u64,
}

async fn set_clocks(run: &Run, cluster: &Cluster, clocks: &[PathBuf], done: &AtomicBool) -> Result<Set> {
    let mut rng: Rng = run.rng("clocks");
    let mut all = Set::default();
    while !done.load(Ordering::Relaxed) {
        for clock in clocks {
            let hours = [-1, 1, 0][rng.usize(..3)];
            set(clock, hours * HOUR)?;
            all.steps += 1;
            sleep(STEP.mul_f64(0.2 + 0.8 * rng.f64()) / HOSTS as u32).await;
        }
        if all.steps >= 4 && all.ahead == 0 {
            let mut connection = cluster.server.connect().await?;
            let moved = sqlx::query(
                "UPDATE tidemill.log_counter c SET last_ts = clock_timestamp() + interval '1 hour'
                   FROM tidemill.topics t WHERE t.topic_id = c.topic_id AND t.name = $1 AND c.partition = 0",
            )
            .bind(INBOUND)
            .execute(&mut connection)
            .await?;
            all.ahead = moved.rows_affected();
        }
    }
    Ok(all)
}

/// How often a host's clock jumped, as the times in its log have it.
fn jumps(host: &Host) -> Result<u64> {
    let log = std::fs::read_to_string(host.log())?;
    // "2026-11-22T16:10:31.123456Z  INFO ..."
    let seconds = |line: &str| {
        let clock = line.get(11..19).filter(|_| line.get(10..11) == Some("T"))?;
        clock.split(':').try_fold(0, |sum, part| Some(sum * 60 + part.parse::<i64>().ok()?))
    };
    let times: Vec<i64> = log.lines().filter_map(seconds).collect();
    let jumped = times.windows(2).filter(|pair| {
        let by = (pair[1] - pair[0] + DAY / 2).rem_euclid(DAY) - DAY / 2;
        by.abs() > HOUR / 2
    });
    Ok(jumped.count() as u64)
}
