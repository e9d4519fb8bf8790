//! R11: tables that come and go under load hold up nobody, not even beside a query that reads them for a minute.
//!
//! Segments of one second: each second a table is made, one is sealed, one detached and one dropped, while producers are timed,
//! readers follow, and a report holds a snapshot and a lock on all of the topic's tables.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::FutureExt;
use sqlx::AssertSqlSafe;
use tokio::time::sleep;

use super::Case;
use super::judge::Witness;
use crate::cluster::pipeline::{self, INBOUND};
use crate::cluster::{Cluster, Layout};
use crate::cold;
use crate::report::{Verdict, Wanted};
use crate::run::{Run, Scale};
use crate::workload::paced::{Pace, paced};

pub const CASE: Case = Case {
    id: "R11",
    title: "tables made and dropped under load",
    endless: false,
    run: |run| ddl(run).boxed(),
};

const PARTITIONS: u32 = 2;
const PACE: Pace = Pace { topic: INBOUND, producers: 4, rate: 10.0, batch: 5 };
/// Milliseconds.
const APPEND: f64 = 500.0;
const PENDING: &str = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhdetachpending";
/// What the report held up is made good by then.
const SETTLED: Duration = Duration::from_secs(60);

async fn ddl(run: Run) -> Result<Verdict> {
    let reports = run.rounds(1, 1);
    let cluster =
        Cluster::start(&run, Layout::new(2, pipeline::short_lived(&[INBOUND], PARTITIONS, "forever")))
            .await?;
    let witness = Witness::of_topics(&run, &cluster, &[INBOUND]);
    let stop = Arc::new(AtomicBool::new(false));
    let began = Instant::now();

    let producing = paced(&run, &cluster.hosts, PACE, &witness.history, &stop);
    let reporting = async {
        let held = report(&run, &cluster, reports).await;
        stop.store(true, Ordering::Relaxed);
        held
    };
    let (produced, held) = tokio::try_join!(producing, reporting)?;
    let ended = Instant::now();
    let pending = settled(&cluster).await?;

    let mut verdict = Verdict::default();
    verdict.injected("reports", reports.into(), held.reports);
    verdict.counted("rows in them", held.rows);
    let states = "'sealed', 'archived', 'dropping', 'dropped'";
    verdict.injected("tables made and sealed", 3, cold::segments(&cluster.server, states).await?);
    verdict.injected("tables detached and dropped", 1, cold::segments(&cluster.server, "'dropped'").await?);
    verdict.counted("requests", produced.times.len() as u64);
    let of = |part| produced.quantile(began, ended, part).context("no request was acknowledged");
    let wanted = if run.scale == Scale::Full { Wanted::AtMost(APPEND) } else { Wanted::Shown };
    verdict.figure("append, p50 (ms)", Wanted::Shown, of(0.5)?);
    verdict.figure("append, p99 (ms)", wanted, of(0.99)?);
    verdict.figure("append, slowest (ms)", Wanted::Shown, of(1.0)?);
    verdict.figure("most detaches pending at once", Wanted::Shown, held.pending as f64);
    verdict.none("errors to producers", produced.errors);
    verdict.none("detaches left pending", pending);
    witness.judge_archived(&cluster, INBOUND, &mut verdict).await?;
    cluster.stop().await?;
    Ok(verdict)
}

#[derive(Default)]
struct Held {
    reports: u64,
    rows: u64,
    /// Detaches that waited for the report, at most.
    pending: i64,
}

/// Work, a report in the middle of it, and work.
async fn report(run: &Run, cluster: &Cluster, reports: u32) -> Result<Held> {
    let seconds = run.size(60, 10);
    let mut held = Held::default();
    for _ in 0..reports {
        // Until tables are dropped as fast as they are made.
        sleep(Duration::from_secs(run.size(20, 4).into())).await;
        run.say(format!("a report reads the topic for {seconds} s"));
        let sql = format!(
            "SELECT count(*) FROM topics.{INBOUND} CROSS JOIN LATERAL (SELECT length(payload)) l
              UNION ALL SELECT 0 FROM pg_sleep({seconds})"
        );
        let mut session = cluster.server.connect().await?;
        let reporting = async {
            let rows: Vec<i64> = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&mut session).await?;
            anyhow::Ok(rows.into_iter().sum::<i64>())
        };
        tokio::pin!(reporting);
        let rows = loop {
            tokio::select! {
                rows = &mut reporting => break rows?,
                () = sleep(Duration::from_millis(500)) => {
                    let pending: i64 =
                        cluster.server.ask("SELECT count(*) FROM pg_inherits WHERE inhdetachpending").await?;
                    held.pending = held.pending.max(pending);
                }
            }
        };
        held.rows += rows.cast_unsigned();
        held.reports += 1;
        sleep(Duration::from_secs(run.size(20, 2).into())).await;
    }
    Ok(held)
}

/// Waits until no detach is pending; what is left.
async fn settled(cluster: &Cluster) -> Result<Vec<String>> {
    let since = Instant::now();
    loop {
        let pending = cold::violations(&cluster.server, PENDING).await?;
        // Two looks apart, as segments still expire.
        if pending.is_empty() || since.elapsed() > SETTLED {
            return Ok(pending);
        }
        sleep(Duration::from_millis(200)).await;
    }
}
