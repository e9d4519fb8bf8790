//! From just before a job is put until its worker has it: single jobs into a queue that is empty, at a steady pace.
//!
//! Putting a job ends with a commit that waits for the disk, so no figure here can be below the time of a sync, which is
//! measured in the same rounds.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sqlx::Row as _;
use sqlx::postgres::{PgConnection, PgListener, PgPoolOptions};
use tidemill::clock::Clock;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};

use super::graphile::Graphile;
use super::host::{self, Host, Setup};
use super::{Client, Kind, Peers};
use crate::cases::disk;
use crate::findings::{Bar, Findings, Row, Unit, Wanted};
use crate::scale::Scale;
use crate::server::Server;

/// Jobs a second.
const PACE: u32 = 200;
/// Connections that put jobs in turn, so that the pace is kept while the disk is slow, and that end them.
const AT_A_TIME: u32 = 4;
/// Jobs that a worker takes at once.
const BATCH: i32 = 10;
/// How long a worker waits for a notification before it looks anyway.
const POLL: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Host,
    Tidemill,
    Pgmq,
    Graphile,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Host => "Tidemill, a host's WASM worker, 4 calls",
            Self::Tidemill => "Tidemill by SQL, LISTEN tidemill_jobs",
            Self::Pgmq => "pgmq, read_with_poll",
            Self::Graphile => "graphile-worker, 4 jobs at a time",
        }
    }

    fn put_sql(self) -> &'static str {
        match self {
            Self::Host | Self::Tidemill => "SELECT tidemill.enqueue($1, $2::jsonb)",
            Self::Pgmq => "SELECT pgmq.send($1, $2::jsonb)",
            Self::Graphile => "SELECT graphile_worker.add_job($1, payload := $2::json)",
        }
    }
}

/// The middle and the 99th per cent of one round, in milliseconds.
#[derive(Clone, Copy, Debug)]
struct Delay {
    half: f64,
    most: f64,
}

pub async fn run(server: &Server, scale: &Scale, peers: &Peers) -> Result<Findings> {
    let mut ways = vec![Way::Host, Way::Tidemill];
    ways.extend(peers.pgmq.then_some(Way::Pgmq));
    ways.extend(peers.graphile.is_some().then_some(Way::Graphile));
    let mut delays = vec![Vec::new(); ways.len()];
    let mut syncs = Vec::new();
    for round in 0..scale.rounds as usize {
        for turn in 0..ways.len() {
            let way = (turn + round) % ways.len();
            let before = disk::sync_times(server.folder(), scale.warm_up)?;
            delays[way].push(one(server, scale, peers, ways[way]).await.with_context(|| ways[way].name())?);
            let after = disk::sync_times(server.folder(), scale.warm_up)?;
            if ways[way] == Way::Host {
                syncs.push(Delay::of(
                    before.into_iter().chain(after).map(|took| took.as_secs_f64() * 1e3).collect(),
                ));
            }
        }
    }
    let halves = |delays: &[Delay]| delays.iter().map(|delay| delay.half).collect::<Vec<_>>();
    let over =
        halves(&delays[0]).iter().zip(halves(&syncs)).map(|(delay, sync)| delay - sync).collect::<Vec<_>>();
    let bar =
        Bar::new("queue: from putting a job to its start, less one sync, ms", Wanted::AtMost(5.0), over);
    let mut rows = rows("one write of 8 KiB + fdatasync", &syncs);
    for (way, delays) in ways.iter().zip(&delays) {
        rows.extend(self::rows(&format!("from putting a job to its start: {}", way.name()), delays));
    }
    Ok(Findings { rows, bars: vec![bar] })
}

fn rows(name: &str, delays: &[Delay]) -> Vec<Row> {
    let row = |which: &str, of: fn(&Delay) -> f64| {
        Row::plain("queue", format!("{name}, {which}"), Unit::Milliseconds, delays.iter().map(of).collect())
    };
    vec![row("p50", |delay| delay.half), row("p99", |delay| delay.most)]
}

impl Delay {
    fn of(mut times: Vec<f64>) -> Self {
        times.sort_by(f64::total_cmp);
        let at = |part: f64| times.get((times.len() as f64 * part) as usize).copied().unwrap_or_default();
        Self { half: at(0.5), most: at(0.99) }
    }
}

async fn one(server: &Server, scale: &Scale, peers: &Peers, way: Way) -> Result<Delay> {
    server.settle().await?;
    let times = match way {
        Way::Host => by_host(server, scale).await?,
        Way::Tidemill => by_sql(server, scale, way, Kind::Tidemill { keep: true, relaxed: true }).await?,
        Way::Pgmq => by_sql(server, scale, way, Kind::Pgmq { archive: true }).await?,
        Way::Graphile => {
            let graphile = peers.graphile.as_ref().context("graphile-worker is not there")?;
            by_graphile(server, scale, graphile).await?
        }
    };
    Ok(Delay::of(times))
}

/// Until the claim: the call begins when its answer is there.
async fn by_host(server: &Server, scale: &Scale) -> Result<Vec<f64>> {
    let client = Client::create(server, Kind::Tidemill { keep: true, relaxed: true }).await?;
    let setup = Setup { keep: true, batch: 1, concurrency: AT_A_TIME as usize };
    let host = Host::start(server, &client.queue, setup).await?;
    let put = put_at_pace(server, Way::Host, &client.queue, scale.pacing).await?;
    // It ends what it has begun.
    sleep(Duration::from_millis(300)).await;
    host.stop().await?;
    let delays = host::delays(server, &client.queue).await?;
    ensure!(delays.len() == put, "{} jobs were done of {put}", delays.len());
    client.remove(server).await?;
    Ok(delays)
}

async fn by_graphile(server: &Server, scale: &Scale, graphile: &Graphile) -> Result<Vec<f64>> {
    let worker = graphile.delays(server, AT_A_TIME).await?;
    let put = put_at_pace(server, Way::Graphile, "noop", scale.pacing).await?;
    sleep(Duration::from_millis(300)).await;
    let delays = worker.take().await?;
    ensure!(delays.len() == put, "{} jobs were begun of {put}", delays.len());
    Ok(delays)
}

async fn by_sql(server: &Server, scale: &Scale, way: Way, kind: Kind) -> Result<Vec<f64>> {
    let client = Client::create(server, kind).await?;
    let (stop, stopping) = watch::channel(false);
    let (begun, ends) = mpsc::channel(1_000);
    let ending = tokio::spawn(end(server.connect().await?, client.clone(), ends));
    let listener = match way {
        Way::Tidemill => Some(listen(server).await?),
        _ => None,
    };
    let taking = Taking { connection: server.connect().await?, client: client.clone(), listener, begun };
    let taking = tokio::spawn(taking.run(stopping));
    // It waits for jobs by now.
    sleep(Duration::from_millis(200)).await;
    let put = put_at_pace(server, way, &client.queue, scale.pacing).await?;
    sleep(Duration::from_millis(300)).await;
    stop.send(true)?;
    let delays = taking.await??;
    ending.await??;
    ensure!(delays.len() == put, "{} jobs were begun of {put}", delays.len());
    client.remove(server).await?;
    Ok(delays)
}

async fn listen(server: &Server) -> Result<PgListener> {
    let options = (*server.pool.connect_options()).clone();
    let pool = PgPoolOptions::new().max_connections(1).connect_with(options).await?;
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.listen("tidemill_jobs").await?;
    Ok(listener)
}

/// Puts single jobs, each in a commit of its own; how many.
async fn put_at_pace(server: &Server, way: Way, queue: &str, time: Duration) -> Result<usize> {
    let each = Duration::from_secs(1) / PACE * AT_A_TIME;
    let (mut tasks, start) = (JoinSet::new(), Instant::now() + Duration::from_millis(50));
    for number in 0..AT_A_TIME {
        let (mut connection, queue) = (server.connect().await?, queue.to_owned());
        let (first, until) = (start + each / AT_A_TIME * number, start + time);
        tasks.spawn(async move {
            let clock = Clock::system();
            let mut ticks = interval_at(first, each);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            let mut put = 0;
            while ticks.tick().await < until {
                let payload = format!(r#"{{"n": {put}, "at": {}, "kind": "resize"}}"#, clock.now());
                sqlx::query(way.put_sql()).bind(&queue).bind(payload).execute(&mut connection).await?;
                put += 1;
            }
            anyhow::Ok(put)
        });
    }
    let mut put = 0;
    while let Some(ended) = tasks.join_next().await {
        put += ended??;
    }
    Ok(put)
}

/// A worker that takes jobs as they come and hands them on to be ended.
struct Taking {
    connection: PgConnection,
    client: Client,
    /// Tidemill notifies; pgmq waits in the server.
    listener: Option<PgListener>,
    begun: mpsc::Sender<(i64, Vec<i64>)>,
}

impl Taking {
    /// Until it is told; how long each job took to get here.
    async fn run(mut self, mut stop: watch::Receiver<bool>) -> Result<Vec<f64>> {
        let (clock, mut delays) = (Clock::system(), Vec::new());
        while !*stop.borrow() {
            let mut rows = self.take().await?;
            if rows.is_empty() && self.listener.is_some() {
                sqlx::query("SELECT tidemill.await_jobs($1)")
                    .bind(&self.client.queue)
                    .execute(&mut self.connection)
                    .await?;
                rows = self.take().await?;
            }
            let now = clock.now();
            let Some(first) = rows.first() else {
                self.wait(&mut stop).await?;
                continue;
            };
            let claim = first.try_get(0)?;
            let mut ids = Vec::new();
            for row in &rows {
                ids.push(row.try_get(1)?);
                let payload: Value = serde_json::from_slice(row.try_get(2)?)?;
                let at = payload["at"].as_i64().context("a job without its time")?;
                delays.push((now - at) as f64 / 1e3);
            }
            self.begun.send((claim, ids)).await?;
        }
        Ok(delays)
    }

    async fn take(&mut self) -> Result<Vec<sqlx::postgres::PgRow>> {
        let sql = match self.listener {
            Some(_) => "SELECT claim, id, payload FROM tidemill.claim_jobs($1, $2, 'bench', relaxed => true)",
            None => {
                "SELECT 0::bigint, msg_id, convert_to(message::text, 'UTF8')
                   FROM pgmq.read_with_poll(queue_name => $1, vt => 60, qty => $2, max_poll_seconds => 1)"
            }
        };
        Ok(sqlx::query(sql).bind(&self.client.queue).bind(BATCH).fetch_all(&mut self.connection).await?)
    }

    /// For a notification; many that have come count as one.
    async fn wait(&mut self, stop: &mut watch::Receiver<bool>) -> Result<()> {
        let Some(listener) = &mut self.listener else { return Ok(()) };
        tokio::select! {
            heard = timeout(POLL, listener.recv()) => if let Ok(heard) = heard { heard?; },
            _ = stop.changed() => {}
        }
        while listener.next_buffered().is_some() {}
        Ok(())
    }
}

/// Ends what was begun, all that has come in one commit.
async fn end(
    mut connection: PgConnection,
    client: Client,
    mut ends: mpsc::Receiver<(i64, Vec<i64>)>,
) -> Result<()> {
    let mut begun = Vec::new();
    while ends.recv_many(&mut begun, 100).await > 0 {
        let (claims, ids): (Vec<i64>, Vec<i64>) =
            begun.drain(..).flat_map(|(claim, ids)| ids.into_iter().map(move |id| (claim, id))).unzip();
        let verdicts = vec!["done"; ids.len()];
        match client.kind {
            Kind::Tidemill { .. } => {
                sqlx::query("SELECT * FROM tidemill.finish_claims($1, $2, $3, NULL, NULL, NULL)")
                    .bind(claims)
                    .bind(ids)
                    .bind(verdicts)
                    .execute(&mut connection)
                    .await?
            }
            Kind::Pgmq { .. } => {
                sqlx::query("SELECT pgmq.archive($1, $2)")
                    .bind(&client.queue)
                    .bind(ids)
                    .execute(&mut connection)
                    .await?
            }
        };
    }
    Ok(())
}
