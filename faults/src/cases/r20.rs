//! R20: each job of a queue is done once, whatever happens to its workers.
//!
//! Two hosts with two workers each do jobs that take some milliseconds, some of which fail at first. Hosts are killed, and
//! paused past their leases with the end of a run on its way: a proxy first holds back what the host sends, so that its
//! statements reach Postgres only after others have done those jobs. What each job led to is a record, written in the commit
//! that ends it, and so is the job's end itself.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use fastrand::Rng;
use futures::FutureExt;
use sqlx::Row as _;
use tokio::time::{interval, sleep};

use super::Case;
use crate::cluster::{Cluster, Layout};
use crate::proxy::Mode;
use crate::report::{Verdict, Wanted};
use crate::run::Run;

pub const CASE: Case = Case {
    id: "R20",
    title: "workers killed, and paused past their leases",
    endless: false,
    run: |run| jobs(run).boxed(),
};

const HOSTS: usize = 2;
/// Seconds.
const LEASE: f64 = 2.0;
/// Jobs put at a time, and how often.
const PUT: u32 = 25;
const EVERY: Duration = Duration::from_millis(250);
/// Beyond that something hangs.
const STUCK: Duration = Duration::from_secs(180);

const PIPELINE: &str = r#"[pipeline]
name = "jobs"

[topics.did]
partitions = 4

[topics.ended]
partitions = 2

[queues.work]
lease = "2s"
max_attempts = 1000
backoff = { first = "20ms", longest = "200ms" }
keep = "0s"
history = "ended"

[workers.worker]
plugin = "test-worker"
queue = "work"
concurrency = 2
batch = { jobs = 5 }
to = "did"
config = { emit = true }
"#;

async fn jobs(run: Run) -> Result<Verdict> {
    let (wanted, kills, pauses) = (run.size(20_000, 400), run.rounds(40, 2), run.rounds(20, 1).min(20));
    let cluster = Cluster::start(&run, Layout::new(HOSTS, PIPELINE).proxied()).await?;
    let over = AtomicBool::new(false);
    let work = async {
        let put = put_jobs(&cluster, wanted, run.rng("jobs"));
        let hurt = hurt(&run, &cluster, kills, pauses);
        let ((), hurt) = tokio::try_join!(put, hurt)?;
        settle(&cluster).await?;
        over.store(true, Ordering::Relaxed);
        Ok(hurt)
    };
    let (hurt, silent) = tokio::try_join!(work, longest_silence(&cluster, &over))?;

    let mut verdict = Verdict::default();
    verdict.counted("jobs", wanted.into());
    verdict.injected("kills of a host", kills.into(), hurt.kills);
    verdict.injected("pauses past the leases", pauses.into(), hurt.pauses);
    verdict.counted("jobs that ran in a host when it was paused", hurt.held.len() as u64);
    judge(&cluster, wanted, &hurt, &mut verdict).await?;
    verdict.figure("longest that a job was held by a silent worker (s)", Wanted::AtMost(2.0 * LEASE), silent);
    cluster.stop().await?;
    Ok(verdict)
}

/// Puts so many jobs, at a steady pace.
async fn put_jobs(cluster: &Cluster, wanted: u32, mut rng: Rng) -> Result<()> {
    let mut connection = cluster.server.connect().await?;
    let mut pace = interval(EVERY);
    for first in (0..wanted).step_by(PUT as usize) {
        pace.tick().await;
        let payloads: Vec<Vec<u8>> = (first..wanted.min(first + PUT))
            .map(|_| match rng.u8(0..20) {
                0 => br#"{"do":"retry","ms":10,"until":2}"#.to_vec(),
                1 => br#"{"do":"trap","until":2}"#.to_vec(),
                _ => format!(r#"{{"do":"slow","ms":{}}}"#, rng.u32(5..40)).into_bytes(),
            })
            .collect();
        sqlx::query("SELECT count(*) FROM tidemill.enqueue_many('work', $1)")
            .bind(payloads)
            .execute(&mut connection)
            .await
            .context("jobs cannot be put")?;
    }
    Ok(())
}

#[derive(Default)]
struct Hurt {
    kills: u64,
    pauses: u64,
    /// Job, and the claim that a paused host had on it.
    held: BTreeMap<i64, Vec<Held>>,
}

/// A claim of a host that was paused, whose lease had ended when it woke up. Microseconds of the database's clock.
struct Held {
    claimed_at: i64,
    woken_at: i64,
}

/// Kills and pauses, in an order of its own, one host at a time so that there is always one that works.
async fn hurt(run: &Run, cluster: &Cluster, kills: u32, pauses: u32) -> Result<Hurt> {
    let mut rng = run.rng("faults");
    let mut faults: Vec<bool> = (0..kills).map(|_| true).chain((0..pauses).map(|_| false)).collect();
    rng.shuffle(&mut faults);
    let mut hurt = Hurt::default();
    for (number, kill) in faults.into_iter().enumerate() {
        sleep(Duration::from_millis(rng.u64(100..800))).await;
        let victim = rng.usize(0..HOSTS);
        if kill {
            let host = &cluster.hosts[victim];
            run.note(format!("kill {}", host.name()));
            host.kill().await?;
            sleep(Duration::from_millis(rng.u64(0..1_500))).await;
            host.start().await?;
            hurt.kills += 1;
        } else {
            pause(run, cluster, victim, &mut rng, &mut hurt).await?;
        }
        if number % 10 == 9 {
            run.say(format!("{} of {} faults", number + 1, kills + pauses));
        }
    }
    Ok(hurt)
}

/// Pauses a host until others have everything that it held, then lets it and what it had sent go on.
async fn pause(run: &Run, cluster: &Cluster, victim: usize, rng: &mut Rng, hurt: &mut Hurt) -> Result<()> {
    let (host, proxy) = (&cluster.hosts[victim], &cluster.proxies[victim]);
    proxy.set(Mode::Hole { up: true, down: false });
    sleep(Duration::from_millis(rng.u64(5..60))).await;
    run.note(format!("pause {}", host.name()));
    host.pause().await?;
    let since = Instant::now();
    let held = held_by(cluster, &host.id()?).await?;
    while still_held(cluster, &held).await? {
        if since.elapsed() > STUCK {
            bail!("claims of a paused host are still there after {} s", STUCK.as_secs());
        }
        sleep(Duration::from_millis(50)).await;
    }
    sleep(Duration::from_millis(rng.u64(100..500))).await;
    let woken_at: i64 = cluster.server.ask("SELECT tidemill.micros(clock_timestamp())").await?;
    run.note(format!("wake {}", host.name()));
    host.resume().await?;
    proxy.set(Mode::Pass);
    for (_, claimed_at, ids) in held {
        for id in ids {
            hurt.held.entry(id).or_default().push(Held { claimed_at, woken_at });
        }
    }
    hurt.pauses += 1;
    Ok(())
}

/// Claims of a host: their number, when they were made, their jobs.
async fn held_by(cluster: &Cluster, host: &str) -> Result<Vec<(i64, i64, Vec<i64>)>> {
    let mut connection = cluster.server.connect().await?;
    let sql = "SELECT claim, tidemill.micros(claimed_at), coalesce(ids, places) FROM tidemill.claims
                WHERE strpos(worker, $1) > 0";
    Ok(sqlx::query_as(sql).bind(host).fetch_all(&mut connection).await?)
}

async fn still_held(cluster: &Cluster, held: &[(i64, i64, Vec<i64>)]) -> Result<bool> {
    let mut connection = cluster.server.connect().await?;
    let claims: Vec<i64> = held.iter().map(|held| held.0).collect();
    let sql = "SELECT EXISTS (SELECT FROM tidemill.claims WHERE claim = ANY ($1))";
    Ok(sqlx::query_scalar(sql).bind(claims).fetch_one(&mut connection).await?)
}

/// Seconds from a worker's last sign of life until its job was taken from it, at most.
async fn longest_silence(cluster: &Cluster, over: &AtomicBool) -> Result<f64> {
    let mut longest: f64 = 0.0;
    while !over.load(Ordering::Relaxed) {
        let silent: f64 = cluster
            .server
            .ask(
                "SELECT coalesce(max(extract(epoch FROM clock_timestamp() - expires_at + lease)), 0)::float8
                   FROM tidemill.claims",
            )
            .await?;
        longest = longest.max(silent);
        sleep(Duration::from_millis(50)).await;
    }
    Ok(longest)
}

/// Waits until no job is left to do.
async fn settle(cluster: &Cluster) -> Result<()> {
    let since = Instant::now();
    loop {
        let left: i64 = cluster
            .server
            .ask("SELECT sum(waiting + scheduled + blocked + running)::bigint FROM tidemill.queue_counts()")
            .await?;
        if left == 0 {
            return Ok(());
        }
        if since.elapsed() > STUCK {
            bail!("{left} jobs are not done {} s after the last fault", STUCK.as_secs());
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Holds what there is against what there must be.
async fn judge(cluster: &Cluster, wanted: u32, hurt: &Hurt, verdict: &mut Verdict) -> Result<()> {
    let mut connection = cluster.server.connect().await?;
    let ended = sqlx::query(
        "SELECT (value ->> 'id')::bigint, value ->> 'state', (value ->> 'claimed_at')::bigint, (value ->> 'attempt')::int
           FROM topics.ended",
    )
    .fetch_all(&mut connection)
    .await?;
    let mut ends: BTreeMap<i64, u32> = BTreeMap::new();
    let (mut not_done, mut stale, mut again) = (Vec::new(), Vec::new(), 0);
    for row in ended {
        let (id, state): (i64, String) = (row.try_get(0)?, row.try_get(1)?);
        let (claimed_at, attempt): (i64, i32) = (row.try_get(2)?, row.try_get(3)?);
        *ends.entry(id).or_default() += 1;
        again += u64::from(attempt > 1);
        if state != "done" {
            not_done.push(format!("job {id} is {state}"));
        }
        for held in hurt.held.get(&id).into_iter().flatten() {
            if held.claimed_at == claimed_at {
                stale.push(format!(
                    "job {id} was ended by a claim whose lease had ended before {}",
                    held.woken_at
                ));
            }
        }
    }
    let effects: Vec<(String, i64)> = sqlx::query_as(
        "SELECT h.value ->> 1, count(*) FROM topics.did d, jsonb_array_elements(d.headers) h
          WHERE h.value ->> 0 = 'job' GROUP BY 1",
    )
    .fetch_all(&mut connection)
    .await?;
    let effects: BTreeMap<i64, i64> =
        effects.into_iter().filter_map(|(id, count)| Some((id.parse().ok()?, count))).collect();
    let put: Vec<i64> = ends.keys().copied().collect();
    let lost = i64::from(wanted) - put.len() as i64;
    verdict.counted("jobs that ran more than once", again);
    verdict.figure("jobs that never ended", Wanted::Exactly(0.0), lost as f64);
    let many = |counts: &mut dyn Iterator<Item = (i64, i64)>| -> Vec<String> {
        counts.filter(|(_, count)| *count != 1).map(|(id, count)| format!("job {id}: {count}")).collect()
    };
    verdict.none(
        "jobs that ended more than once",
        many(&mut ends.iter().map(|(id, count)| (*id, i64::from(*count)))),
    );
    let effect = |id: i64| (id, effects.get(&id).copied().unwrap_or_default());
    verdict.none("jobs whose effect is not there exactly once", many(&mut put.iter().copied().map(effect)));
    verdict.none("jobs that are not done", not_done);
    verdict.none("stale ends of runs that were accepted", stale);
    Ok(())
}
