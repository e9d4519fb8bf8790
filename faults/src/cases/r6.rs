//! R6: of two hosts that both believe that a segment is theirs, one writes.
//!
//! A host is paused with a segment claimed and half archived, its claim is made to run out, and it is woken when the other
//! host has archived the segment. Requests to the bucket are slow, so that pauses hit every step. Each host has a role of its
//! own in Postgres, and a trigger writes down which of them did what under which epoch: that is what is judged.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use fastrand::Rng;
use futures::FutureExt;
use sqlx::AssertSqlSafe;
use tokio::time::sleep;

use super::Case;
use super::judge::Witness;
use crate::cluster::host::Host;
use crate::cluster::pipeline::{self, INBOUND};
use crate::cluster::{Cluster, Layout};
use crate::cold;
use crate::report::{Verdict, Wanted};
use crate::run::Run;
use crate::s3::Bucket;
use crate::workload::{Load, produce};

pub const CASE: Case = Case {
    id: "R6",
    title: "two hosts that archive one segment",
    endless: false,
    run: |run| two_archivers(run).boxed(),
};

const HOSTS: usize = 2;
const PARTITIONS: u32 = 2;
const RATE: f64 = 40.0;
/// Of each request to the bucket: a segment takes half a dozen of them.
const SLOW: Duration = Duration::from_millis(120);
/// Into a claim, at most.
const INTO: Duration = Duration::from_millis(700);
/// A host that is paused within a transaction keeps its locks for 5 s, until Postgres ends it as idle.
const TAKEOVER: Duration = Duration::from_secs(60);
/// A woken host finds out by then.
const REFUSED: Duration = Duration::from_secs(60);
const SETTLED: Duration = Duration::from_secs(120);

/// Who changed a segment, and how; in the order of commits, since each locks the segment's row.
const AUDIT: &str = "
    CREATE SCHEMA faults;
    CREATE TABLE faults.audit (
        number bigint GENERATED ALWAYS AS IDENTITY, segment_id bigint, role text, state_before text, state text,
        epoch_before bigint, epoch bigint, owner text);
    CREATE FUNCTION faults.note() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO faults.audit (segment_id, role, state_before, state, epoch_before, epoch, owner)
        VALUES (NEW.segment_id, session_user, OLD.state, NEW.state, OLD.archive_epoch, NEW.archive_epoch, NEW.archive_owner);
        RETURN NULL;
    END $$;
    CREATE TRIGGER audit AFTER UPDATE ON tidemill.segments FOR EACH ROW
       WHEN (OLD.state <> NEW.state OR OLD.archive_epoch <> NEW.archive_epoch) EXECUTE FUNCTION faults.note();
    CREATE TABLE faults.hosts (role text, owner text);";

/// An epoch that two roles claimed, or that was claimed twice.
const CLAIMED_TWICE: &str = "
    SELECT format('segment %s epoch %s was claimed by %s', segment_id, epoch, string_agg(role, ' and '))
      FROM faults.audit WHERE epoch > epoch_before GROUP BY segment_id, epoch HAVING count(*) > 1";

/// A segment that somebody made archived who had not claimed it under the epoch that held.
const WRITTEN_BY_ANOTHER: &str = "
    SELECT format('segment %s epoch %s is %s''s and was archived by %s', a.segment_id, a.epoch, h.role, a.role)
      FROM faults.audit a JOIN faults.hosts h USING (owner)
     WHERE a.state = 'archived' AND a.epoch > 0 AND h.role <> a.role";

/// A step that was taken twice, or back.
const REPEATED: &str = "
    SELECT format('segment %s became %s %s times', segment_id, state, count(*)) FROM faults.audit
     WHERE state <> state_before GROUP BY segment_id, state HAVING count(*) > 1";

async fn two_archivers(run: Run) -> Result<Verdict> {
    let rounds = run.rounds(50, 2);
    let bucket = Bucket::start(&run.folder.join("s3"), run.rng("bucket")).await?;
    bucket.slow_down(SLOW);
    let layout = Layout {
        bucket: Some(bucket.url(bucket.address())),
        environment: Bucket::environment(),
        arguments: vec!["--sweep-after".to_owned(), "20s".to_owned()],
        roles: true,
        ..Layout::new(HOSTS, pipeline::short_lived(&[INBOUND], PARTITIONS, "forever"))
    };
    let cluster = Cluster::start(&run, layout).await?;
    start_audit(&cluster).await?;
    let witness = Witness::of_topics(&run, &cluster, &[INBOUND]);
    let load = Load { rate: Some(RATE), batch: 1..=8, ..Load::endless(INBOUND, 2) };

    let producing = produce(&run, &cluster.hosts, &load, &witness.history, &witness.progress);
    let pausing = async {
        let paused = pause_all(&run, &cluster, rounds).await;
        witness.progress.finish();
        paused
    };
    let ((), paused) = tokio::try_join!(producing, pausing)?;
    bucket.slow_down(Duration::ZERO);
    cold::archived(&cluster.server, false, SETTLED).await?;

    let server = &cluster.server;
    let mut verdict = Verdict::default();
    verdict.injected("pauses with a segment half archived", rounds.into(), paused.rounds.into());
    verdict.counted("pauses that came too late", paused.late.into());
    verdict.counted(
        "claims",
        server
            .ask::<i64>("SELECT count(*) FROM faults.audit WHERE epoch > epoch_before")
            .await?
            .cast_unsigned(),
    );
    verdict.figure("woken hosts refused", Wanted::Exactly(paused.rounds.into()), paused.refused.into());
    verdict.figure("slowest takeover of a claim (s)", Wanted::Shown, paused.slowest.as_secs_f64());
    verdict.none("epochs claimed twice", cold::violations(server, CLAIMED_TWICE).await?);
    verdict.none(
        "segments archived by another than the epoch's owner",
        cold::violations(server, WRITTEN_BY_ANOTHER).await?,
    );
    verdict.none("segments sealed, archived or dropped twice", cold::violations(server, REPEATED).await?);
    verdict.none("offsets catalogued twice", cold::overlapping(server).await?);
    verdict.none("segments dropped unarchived", cold::unarchived(server).await?);
    verdict.none("catalog rows without a valid object", cold::invalid(server, bucket.folder()).await?);
    verdict.none("orphans after the sweep", cold::swept(server, bucket.folder(), SETTLED).await?);
    witness.judge_archived(&cluster, INBOUND, &mut verdict).await?;
    cluster.stop().await?;
    Ok(verdict)
}

async fn start_audit(cluster: &Cluster) -> Result<()> {
    let mut connection = cluster.server.connect().await?;
    sqlx::raw_sql(AUDIT).execute(&mut connection).await?;
    for host in &cluster.hosts {
        sqlx::query("INSERT INTO faults.hosts VALUES ($1, $2)")
            .bind(host.role())
            .bind(host.id()?)
            .execute(&mut connection)
            .await?;
    }
    Ok(())
}

#[derive(Default)]
struct Paused {
    rounds: u32,
    refused: u32,
    /// The host was done with the segment.
    late: u32,
    slowest: Duration,
}

/// A segment that a host archives.
#[derive(Clone, Debug, sqlx::FromRow)]
struct Claim {
    segment_id: i64,
    archive_epoch: i64,
    archive_owner: String,
}

async fn pause_all(run: &Run, cluster: &Cluster, rounds: u32) -> Result<Paused> {
    let mut rng = run.rng("pauses");
    let mut paused = Paused::default();
    while paused.rounds < rounds {
        let before = paused.rounds;
        pause(cluster, &mut rng, &mut paused).await?;
        if paused.rounds / 10 != before / 10 {
            run.say(format!("{} of {rounds} pauses", paused.rounds));
        }
    }
    Ok(paused)
}

async fn pause(cluster: &Cluster, rng: &mut Rng, paused: &mut Paused) -> Result<()> {
    sleep(Duration::from_millis(rng.u64(200..1_000))).await;
    let claim = somebodys(cluster).await?;
    sleep(INTO.mul_f64(rng.f64())).await;
    let host = with_id(cluster, &claim.archive_owner)?;
    host.pause().await?;
    if !run_out(cluster, &claim).await? {
        paused.late += 1;
        return host.resume().await;
    }
    let since = Instant::now();
    archived(cluster, &claim).await?;
    paused.slowest = paused.slowest.max(since.elapsed());
    sleep(Duration::from_millis(rng.u64(0..300))).await;
    let before = refusals(host)?;
    host.resume().await?;
    paused.rounds += 1;
    let woken = Instant::now();
    while woken.elapsed() < REFUSED {
        if refusals(host)? > before {
            paused.refused += 1;
            break;
        }
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// A claim that holds now.
async fn somebodys(cluster: &Cluster) -> Result<Claim> {
    let since = Instant::now();
    let mut connection = cluster.server.connect().await?;
    while since.elapsed() < TAKEOVER {
        let claim: Option<Claim> = sqlx::query_as(
            "SELECT segment_id, archive_epoch, archive_owner FROM tidemill.segments
              WHERE state = 'sealed' AND archive_owner IS NOT NULL AND archive_until > clock_timestamp()
              ORDER BY random() LIMIT 1",
        )
        .fetch_optional(&mut connection)
        .await?;
        if let Some(claim) = claim {
            return Ok(claim);
        }
        sleep(Duration::from_millis(10)).await;
    }
    bail!("no host archives anything for {} s", TAKEOVER.as_secs())
}

fn with_id<'a>(cluster: &'a Cluster, id: &str) -> Result<&'a Host> {
    for host in &cluster.hosts {
        if host.id()? == id {
            return Ok(host);
        }
    }
    bail!("no host has the id {id}")
}

/// Ends a claim as if its time were over. False if it was over before, or the segment is archived. The paused host may hold
/// the row's lock until Postgres ends its transaction.
async fn run_out(cluster: &Cluster, claim: &Claim) -> Result<bool> {
    let mut connection = cluster.server.connect().await?;
    let done = sqlx::query(
        "UPDATE tidemill.segments SET archive_until = clock_timestamp() - interval '1 second'
          WHERE segment_id = $1 AND archive_epoch = $2 AND archive_owner = $3 AND state = 'sealed'",
    )
    .bind(claim.segment_id)
    .bind(claim.archive_epoch)
    .bind(&claim.archive_owner)
    .execute(&mut connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Waits until the other host has archived it.
async fn archived(cluster: &Cluster, claim: &Claim) -> Result<()> {
    let since = Instant::now();
    let sql =
        format!("SELECT state <> 'sealed' FROM tidemill.segments WHERE segment_id = {}", claim.segment_id);
    let mut connection = cluster.server.connect().await?;
    while !sqlx::query_scalar::<_, bool>(AssertSqlSafe(sql.clone())).fetch_one(&mut connection).await? {
        if since.elapsed() > TAKEOVER {
            bail!("{claim:?} was not taken over within {} s", TAKEOVER.as_secs());
        }
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// How often a host has said that it did not archive a segment after all.
fn refusals(host: &Host) -> Result<usize> {
    let log = host.log();
    let text = std::fs::read_to_string(&log).with_context(|| log.display().to_string())?;
    let words = ["has taken the segment over", "not archived"];
    Ok(text.lines().filter(|line| words.iter().any(|word| line.contains(word))).count())
}
