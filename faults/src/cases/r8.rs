//! R8: an offset that was seen stays the highest: nothing ever appears below it.
//!
//! Sixteen writers append by SQL in transactions that stay open for a random while before they commit, and every tenth one is
//! rolled back. Meanwhile a reader per partition fetches behind what it has, some thousand times a second, and another counts:
//! whatever the moment, a partition with so many records ends at just that offset.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use fastrand::Rng;
use futures::FutureExt;
use futures::future::try_join_all;
use sqlx::{Connection as _, PgConnection, Row as _};
use tokio::time::sleep;

use super::Case;
use super::judge::Witness;
use crate::check;
use crate::cluster::pipeline::{self, INBOUND};
use crate::cluster::server::Server;
use crate::cluster::{Cluster, Layout};
use crate::history::{Append, History, Item, Outcome, Part, Place, Read};
use crate::report::{Verdict, Wanted};
use crate::run::Run;

pub const CASE: Case = Case {
    id: "R8",
    title: "16 writers that commit late, readers at the end",
    endless: false,
    run: |run| late_commits(run).boxed(),
};

const WRITERS: u32 = 16;
const PARTITIONS: u32 = 2;
/// Between the append and its commit.
const LATE: Duration = Duration::from_millis(4);
/// One transaction in so many is rolled back.
const ROLLED_BACK: u32 = 10;
/// A reader with nothing to read looks again after this.
const LOOK: Duration = Duration::from_micros(500);

async fn late_commits(run: Run) -> Result<Verdict> {
    let records = u64::from(run.rounds(200_000, 4_000));
    let cluster = Cluster::start(&run, Layout::new(1, pipeline::text(PARTITIONS))).await?;
    let witness = Witness::of_pipeline(&run, &cluster);
    let (server, stop) = (&cluster.server, Arc::new(AtomicBool::new(false)));

    let tails = (0..PARTITIONS).map(|partition| tokio::spawn(tail(server.clone(), partition, stop.clone())));
    let tails: Vec<_> = tails.collect();
    let counting = tokio::spawn(count(server.clone(), stop.clone()));
    let taken = Arc::new(AtomicU64::new(0));
    let writers = (0..WRITERS).map(|number| {
        let rng = run.rng(&format!("writer {number}"));
        tokio::spawn(write(server.clone(), number, rng, taken.clone(), records, witness.history.clone()))
    });
    for written in try_join_all(writers).await? {
        written?;
    }
    stop.store(true, Ordering::Relaxed);
    let tailed = try_join_all(tails).await?.into_iter().collect::<Result<Vec<_>>>()?;
    let (counts, gaps) = counting.await??;

    let mut verdict = Verdict::default();
    verdict.injected("records through 16 writers", records, taken.load(Ordering::Relaxed));
    verdict.counted("fetches at the end of the log", tailed.iter().map(|tail| tail.fetches).sum());
    verdict.counted("counts", counts);
    let rates = tailed.iter().map(|tail| tail.fetches as f64 / tail.took.as_secs_f64());
    let busiest = rates.fold(0.0, f64::max);
    verdict.figure("fetches a second of a reader", Wanted::AtLeast(run.size(200, 1).into()), busiest);
    let reads: Vec<Read> = tailed.into_iter().flat_map(|tail| tail.reads).collect();
    let log = crate::observe::by_sql(server, INBOUND).await?;
    let mut wrong = check::skipped(&reads);
    if reads.len() != log.reads.len() {
        wrong.push(format!("readers got {} of {} records", reads.len(), log.reads.len()));
    }
    verdict.none("offsets that appeared below a higher one", wrong);
    verdict.none("moments with a hole", gaps);
    witness.judge_pipeline(&cluster, &mut verdict).await?;
    cluster.stop().await?;
    Ok(verdict)
}

/// Appends until all writers together have taken so many records.
async fn write(
    server: Arc<Server>,
    number: u32,
    mut rng: Rng,
    taken: Arc<AtomicU64>,
    records: u64,
    history: Arc<History>,
) -> Result<()> {
    let mut connection = server.connect().await?;
    let mut next = 0u32;
    while taken.load(Ordering::Relaxed) < records {
        let count = rng.u32(10..=60);
        let items: Vec<Item> = (next..next + count)
            .map(|n| Item { id: u64::from(number) << 32 | u64::from(n), key: number * 10 + n % 5, n })
            .collect();
        let rolled_back = rng.u32(..ROLLED_BACK) == 0;
        if !rolled_back {
            taken.fetch_add(u64::from(count), Ordering::Relaxed);
        }
        let late = LATE.mul_f64(rng.f64());
        let outcome = append(&mut connection, &items, late, rolled_back).await?;
        // Ids are not used again; what was rolled back leaves a gap in the keys' counts and no trace in the log.
        next += count;
        history.append(Append { items, outcome, sent: 1, at: Instant::now() });
    }
    Ok(())
}

async fn append(
    connection: &mut PgConnection,
    items: &[Item],
    late: Duration,
    rolled_back: bool,
) -> Result<Outcome> {
    let payloads: Vec<Vec<u8>> = items.iter().map(|item| item.payload().into_bytes()).collect();
    let keys: Vec<Vec<u8>> = items.iter().map(|item| item.key_text().into_bytes()).collect();
    let mut transaction = connection.begin().await?;
    let rows =
        sqlx::query("SELECT partition, first_offset, next_offset FROM tidemill.append_many($1, $2, $3)")
            .bind(INBOUND)
            .bind(payloads)
            .bind(keys)
            .fetch_all(&mut *transaction)
            .await?;
    sleep(late).await;
    if rolled_back {
        transaction.rollback().await?;
        return Ok(Outcome::Fail);
    }
    transaction.commit().await?;
    let parts: Result<Vec<Part>> = rows
        .iter()
        .map(|row| {
            Ok(Part {
                partition: row.try_get::<i32, _>(0)?.cast_unsigned(),
                first: row.try_get::<i64, _>(1)?.cast_unsigned(),
                next: row.try_get::<i64, _>(2)?.cast_unsigned(),
            })
        })
        .collect();
    Ok(Outcome::Ok(parts?))
}

struct Tailed {
    reads: Vec<Read>,
    fetches: u64,
    took: Duration,
}

/// Fetches behind what it has, as fast as it can while there is something, and else some thousand times a second.
async fn tail(server: Arc<Server>, partition: u32, stop: Arc<AtomicBool>) -> Result<Tailed> {
    let mut connection = server.connect().await?;
    let started = Instant::now();
    let mut tailed = Tailed { reads: Vec::new(), fetches: 0, took: Duration::ZERO };
    let mut next = 0i64;
    loop {
        let stopping = stop.load(Ordering::Relaxed);
        let rows = sqlx::query("SELECT c_offset, payload FROM tidemill.fetch($1, $2, $3, 1000)")
            .bind(INBOUND)
            .bind(partition.cast_signed())
            .bind(next)
            .fetch_all(&mut connection)
            .await?;
        tailed.fetches += 1;
        for row in &rows {
            let (offset, payload): (i64, &[u8]) = (row.try_get(0)?, row.try_get(1)?);
            let item = Item::parse(payload).context("a record of ours")?;
            tailed.reads.push(Read { place: Place { partition, offset: offset.cast_unsigned() }, item });
            next = offset + 1;
        }
        if rows.is_empty() && stopping {
            tailed.took = started.elapsed();
            return Ok(tailed);
        }
        if rows.is_empty() {
            sleep(LOOK).await;
        }
    }
}

/// Counts the records of each partition again and again: how often, and when the count was not the end.
async fn count(server: Arc<Server>, stop: Arc<AtomicBool>) -> Result<(u64, Vec<String>)> {
    let mut connection = server.connect().await?;
    let (mut counts, mut wrong) = (0, Vec::new());
    while !stop.load(Ordering::Relaxed) {
        let rows: Vec<(i32, i64, i64)> = sqlx::query_as(
            "SELECT partition, sum(record_count)::bigint, max(base_offset + record_count) FROM log.inbound GROUP BY 1",
        )
        .fetch_all(&mut connection)
        .await?;
        counts += rows.len() as u64;
        let gaps = rows.into_iter().filter(|(_, count, end)| count != end);
        wrong.extend(gaps.map(|(partition, count, end)| {
            format!("partition {partition} showed {count} records up to offset {end}")
        }));
    }
    Ok((counts, wrong))
}
