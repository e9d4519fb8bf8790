//! Queues while another session holds a snapshot, so that nothing that is deleted can be cleaned away.
//!
//! Both queues get jobs at the same steady pace in the same minutes, and both are measured before and at the end, in turns:
//! how fast waiting jobs are done when nothing holds the workers back.

use std::time::Duration;

use anyhow::{Context, Result};
use sqlx::postgres::PgConnection;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::queue::{Burned, Client, Kind, Peers, burn};
use crate::findings::{Bar, Findings, Row, Unit, Wanted};
use crate::meter::Sample;
use crate::scale::Scale;
use crate::server::Server;

const CASE: &str = "queue-held";
/// Steady: so many jobs are put so often, 500 a second.
const PUT: usize = 10;
const EVERY: Duration = Duration::from_millis(20);
/// Connections that do them, jobs that each takes at once, and how long it waits when there is none.
const WORKERS: usize = 3;
const STEADY_BATCH: usize = 5;
const PAUSE: Duration = Duration::from_millis(10);
/// As fast as it goes.
const CONNECTIONS: usize = 4;
const BATCH: usize = 10;
/// Times that it is measured before, and at the end.
const TIMES: u32 = 3;
/// Far longer than anything takes here.
const LIMIT: Duration = Duration::from_secs(120);

/// One queue, and what was found.
struct Arm {
    client: Client,
    before: Vec<Burned>,
    steady: Option<Sample>,
    after: Vec<Burned>,
    dead_rows: f64,
}

pub async fn run(server: &Server, scale: &Scale) -> Result<Findings> {
    let peers = Peers::look(server).await?;
    let mut kinds = vec![Kind::Tidemill { keep: false, relaxed: true }];
    kinds.extend(peers.pgmq.then_some(Kind::Pgmq { archive: false }));
    let mut arms = Vec::new();
    for kind in kinds {
        let client = Client::create(server, kind).await?;
        arms.push(Arm { client, before: Vec::new(), steady: None, after: Vec::new(), dead_rows: 0.0 });
    }
    for round in 0..TIMES.min(scale.rounds) as usize {
        in_turns(server, scale, &mut arms, round, |arm| &mut arm.before).await?;
    }
    let holder = hold(server).await?;
    steadily(server, &mut arms, scale.held).await?;
    for arm in &mut arms {
        arm.dead_rows = dead_rows(server, &arm.client).await?;
    }
    for round in 0..TIMES.min(scale.rounds) as usize {
        in_turns(server, scale, &mut arms, round, |arm| &mut arm.after).await?;
    }
    let_go(holder).await?;
    let findings = findings(&arms, scale.held, &peers);
    for arm in arms {
        arm.client.remove(server).await?;
    }
    Ok(findings)
}

/// Each queue once, in an order that moves on with each round.
async fn in_turns(
    server: &Server,
    scale: &Scale,
    arms: &mut [Arm],
    round: usize,
    into: impl Fn(&mut Arm) -> &mut Vec<Burned>,
) -> Result<()> {
    for turn in 0..arms.len() {
        let place = (turn + round) % arms.len();
        let arm = &mut arms[place];
        let waiting = arm.client.left(server).await? as usize;
        arm.client.put(server, scale.held_jobs).await?;
        arm.client.settle(server).await?;
        let burned = burn(server, &arm.client, BATCH, CONNECTIONS, LIMIT).await?;
        burned.check(server, &arm.client, waiting + scale.held_jobs).await.context(arm.client.kind.name())?;
        into(arm).push(burned);
    }
    Ok(())
}

/// A session whose snapshot stays as it is.
async fn hold(server: &Server) -> Result<PgConnection> {
    let mut session = server.connect().await?;
    for sql in
        ["SET idle_in_transaction_session_timeout = 0", "BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT 1"]
    {
        sqlx::raw_sql(sql).execute(&mut session).await?;
    }
    Ok(session)
}

/// Fails if the session was ended meanwhile, and so held nothing.
async fn let_go(mut holder: PgConnection) -> Result<()> {
    sqlx::raw_sql("SELECT 1; COMMIT")
        .execute(&mut holder)
        .await
        .context("the session that held the snapshot")?;
    Ok(())
}

/// Puts and does jobs of all queues at a steady pace for a while.
async fn steadily(server: &Server, arms: &mut [Arm], time: Duration) -> Result<()> {
    let mut tasks = JoinSet::new();
    let (over, until) = watch::channel(false);
    for (place, arm) in arms.iter().enumerate() {
        tasks.spawn(put(server.connect().await?, arm.client.clone(), until.clone(), place));
        for _ in 0..WORKERS {
            tasks.spawn(work(arm.client.worker(server).await?, until.clone(), place));
        }
    }
    let started = Instant::now();
    // What fails ends the measurement at once.
    let mut done = vec![0; arms.len()];
    let ended = tokio::time::timeout(time, tasks.join_next()).await;
    over.send(true)?;
    if let Ok(Some(task)) = ended {
        task??;
    }
    let took = started.elapsed();
    while let Some(task) = tasks.join_next().await {
        let (place, count): (usize, u64) = task??;
        done[place] += count;
    }
    for (arm, done) in arms.iter_mut().zip(done) {
        arm.steady = Some(Sample::timed(done, took));
    }
    Ok(())
}

async fn put(
    mut connection: PgConnection,
    client: Client,
    over: watch::Receiver<bool>,
    place: usize,
) -> Result<(usize, u64)> {
    let mut ticks = interval(EVERY);
    // What a slow commit delayed is made up for.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    while !*over.borrow() {
        ticks.tick().await;
        client.put_some(&mut connection, 0..PUT).await?;
    }
    Ok((place, 0))
}

async fn work(
    mut worker: super::queue::Worker,
    over: watch::Receiver<bool>,
    place: usize,
) -> Result<(usize, u64)> {
    let mut done = 0;
    while !*over.borrow() {
        let taken = worker.take(STEADY_BATCH).await?;
        if taken.ids.is_empty() {
            sleep(PAUSE).await;
            continue;
        }
        worker.end(&taken).await?;
        done += taken.ids.len() as u64;
    }
    Ok((place, done))
}

/// Of the tables that taking and ending jobs goes through.
async fn dead_rows(server: &Server, client: &Client) -> Result<f64> {
    let tables = match client.kind {
        Kind::Tidemill { .. } => {
            "schemaname = 'tidemill' AND relname IN ('claims', 'queue_heads', 'job_tables', 'queues')
             OR schemaname = 'jobs' AND starts_with(relname, $1)"
        }
        Kind::Pgmq { .. } => "schemaname = 'pgmq' AND relname = 'q_' || $1",
    };
    let sql = format!("SELECT coalesce(sum(n_dead_tup), 0)::float8 FROM pg_stat_user_tables WHERE {tables}");
    // The sessions that worked report within a second.
    sleep(Duration::from_millis(1_100)).await;
    Ok(sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).bind(&client.queue).fetch_one(&server.pool).await?)
}

fn findings(arms: &[Arm], held: Duration, peers: &Peers) -> Findings {
    let mut findings = Findings::default();
    for arm in arms {
        let name = arm.client.kind.name();
        let row = |what: &str, burned: &[Burned]| {
            let samples: Vec<Sample> = burned.iter().map(|burned| burned.sample).collect();
            Row::rate(CASE, format!("{name}: {what}"), &samples)
        };
        let take = |what: &str, burned: &[Burned]| {
            let values = burned.iter().map(Burned::take_ms).collect();
            Row::plain(CASE, format!("{name}: {what}, taking {BATCH} jobs"), Unit::Milliseconds, values)
        };
        let (before, after) = (row("before", &arm.before), row("at the end", &arm.after));
        let lost = (1.0 - after.value.median / before.value.median) * 100.0;
        findings.rows.extend([before, take("before", &arm.before)]);
        if let Some(steady) = arm.steady {
            let note = format!("500/s put for {} s, snapshot held", held.as_secs());
            findings.rows.push(Row::rate(CASE, format!("{name}: meanwhile"), &[steady]).noted(note));
        }
        findings.rows.extend([after, take("at the end", &arm.after)]);
        findings.rows.push(Row::plain(
            CASE,
            format!("{name}: dead rows after it"),
            Unit::Rows,
            vec![arm.dead_rows],
        ));
        findings.rows.push(Row::plain(CASE, format!("{name}: lost"), Unit::Percent, vec![lost]));
        if let Kind::Tidemill { .. } = arm.client.kind {
            findings.bars.push(Bar::new(
                "queue-held: lost of the highest rate, %",
                Wanted::AtMost(10.0),
                [lost],
            ));
        }
    }
    if let (false, Some(row)) = (peers.pgmq, findings.rows.first_mut()) {
        row.note = peers.missing();
    }
    findings
}
