//! Seeing what there is: a topic by SQL and over HTTP, the table, and where groups stand while all is running.

pub mod archive;
pub mod delay;
pub mod follow;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use fastrand::Rng;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Row as _};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::check::{Log, Row, Standing};
use crate::cluster::host::{Host, live};
use crate::cluster::server::Server;
use crate::history::{Item, Place, Read};
use crate::http;

/// How often groups are looked at, and a tail asks for more.
const LOOK: Duration = Duration::from_millis(20);
/// Records of one page.
const PAGE: u32 = 5_000;
/// A page that does not come is asked of another host.
const PATIENCE: Duration = Duration::from_secs(10);

/// A topic as the SQL view has it, with its bounds, in one snapshot.
pub async fn by_sql(server: &Server, topic: &str) -> Result<Log> {
    let mut connection = server.connect().await?;
    sqlx::raw_sql("BEGIN ISOLATION LEVEL REPEATABLE READ").execute(&mut connection).await?;
    let bounds = sqlx::query(
        "SELECT partition, s.start_offset, c.next_offset
           FROM tidemill.log_counter c JOIN tidemill.log_start s USING (topic_id, partition)
           JOIN tidemill.topics t USING (topic_id) WHERE t.name = $1 ORDER BY 1",
    )
    .bind(topic)
    .fetch_all(&mut connection)
    .await?;
    let sql = format!("SELECT partition, c_offset, payload FROM topics.{topic}");
    let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut connection).await?;
    let mut log = Log::default();
    for row in bounds {
        let (start, end): (i64, i64) = (row.try_get(1)?, row.try_get(2)?);
        log.bounds.push((partition(&row, 0)?, start.cast_unsigned(), end.cast_unsigned()));
    }
    for row in rows {
        let offset: i64 = row.try_get(1)?;
        let place = Place { partition: partition(&row, 0)?, offset: offset.cast_unsigned() };
        let payload: &[u8] = row.try_get(2)?;
        log.reads.push(Read { place, item: parse(place, payload)? });
    }
    Ok(log)
}

/// The materialized table.
pub async fn table(server: &Server, name: &str) -> Result<Vec<Row>> {
    let mut connection = server.connect().await?;
    let sql = format!("SELECT id, callsign, altitude, _partition, _offset FROM {name}");
    let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut connection).await?;
    rows.iter()
        .map(|row| {
            let (key, id): (&str, &str) = (row.try_get(0)?, row.try_get(1)?);
            let (n, offset): (i64, i64) = (row.try_get(2)?, row.try_get(4)?);
            let key = key.strip_prefix('k').and_then(|key| key.parse().ok()).context("a key of the table")?;
            Ok(Row {
                item: Item { id: id.parse()?, key, n: u32::try_from(n)? },
                place: Place { partition: partition(row, 3)?, offset: offset.cast_unsigned() },
            })
        })
        .collect()
}

fn partition(row: &sqlx::postgres::PgRow, column: usize) -> Result<u32> {
    Ok(row.try_get::<i32, _>(column)?.cast_unsigned())
}

fn parse(place: Place, payload: &[u8]) -> Result<Item> {
    Item::parse(payload).with_context(|| {
        format!("{}:{} holds {:?}", place.partition, place.offset, String::from_utf8_lossy(payload))
    })
}

/// A reader that follows a topic over HTTP, page by page, from whichever host answers.
pub struct Tail {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Result<Vec<Read>>>,
}

impl Tail {
    pub fn start(hosts: Vec<Arc<Host>>, topic: &str, rng: Rng) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(tail(hosts, topic.to_owned(), rng, stop.clone()));
        Self { stop, task }
    }

    /// Reads on to the end, and gives all in the order in which it came.
    pub async fn finish(self) -> Result<Vec<Read>> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await?
    }
}

async fn tail(
    hosts: Vec<Arc<Host>>,
    topic: String,
    mut rng: Rng,
    stop: Arc<AtomicBool>,
) -> Result<Vec<Read>> {
    let (mut reads, mut from) = (Vec::new(), "earliest".to_owned());
    let mut failing: Option<Instant> = None;
    loop {
        let stopping = stop.load(Ordering::Relaxed);
        let page = match live(&hosts, &mut rng).and_then(|host| host.url()) {
            Some(url) => page(&url, &topic, &from).await,
            None => Err(anyhow::anyhow!("no host is up")),
        };
        match page {
            Ok(page) => {
                failing = None;
                let at_end = page.next == page.end;
                reads.extend(page.reads);
                from = page.next;
                if stopping && at_end {
                    return Ok(reads);
                }
                if at_end {
                    sleep(LOOK).await;
                }
            }
            Err(error) => {
                let since = *failing.get_or_insert_with(Instant::now);
                if stopping && since.elapsed() > 6 * PATIENCE {
                    return Err(error.context(format!("reading {topic} over HTTP from {from}")));
                }
                sleep(LOOK * 5).await;
            }
        }
    }
}

struct Page {
    reads: Vec<Read>,
    next: String,
    end: String,
}

async fn page(url: &str, topic: &str, from: &str) -> Result<Page> {
    let url = format!("{url}/v1/topics/{topic}/records");
    let most = PAGE.to_string();
    let request = http::client().get(&url).query(&[("from", from), ("max", &most)]).timeout(PATIENCE);
    let answer = request.send().await?;
    let status = answer.status();
    let body: Value = answer.json().await?;
    if !status.is_success() {
        bail!("{url}: {status} {body}");
    }
    let mut reads = Vec::new();
    for record in body["records"].as_array().context("a page has records")? {
        let number = |name: &str| record[name].as_u64().with_context(|| format!("a record has {name}"));
        let place = Place { partition: u32::try_from(number("partition")?)?, offset: number("offset")? };
        let item = parse(place, &serde_json::to_vec(&record["value"])?)?;
        reads.push(Read { place, item });
    }
    let text =
        |name: &str| body[name].as_str().map(str::to_owned).with_context(|| format!("a page has {name}"));
    Ok(Page { reads, next: text("next")?, end: text("end")? })
}

/// All of a topic from one host.
pub async fn by_http(host: &Host, topic: &str) -> Result<Vec<Read>> {
    let url = host.url().with_context(|| format!("{} is down", host.name()))?;
    let (mut reads, mut from) = (Vec::new(), "earliest".to_owned());
    loop {
        let page = page(&url, topic, &from).await?;
        reads.extend(page.reads);
        from = page.next;
        if from == page.end {
            return Ok(reads);
        }
    }
}

/// Looks at the groups again and again, past every fault.
pub struct Watch {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Vec<Standing>>,
}

impl Watch {
    pub fn start(server: Arc<Server>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let mut seen = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                // The server may go at any moment; then it is looked at again when it is back.
                let _ = look(&server, &mut seen, &stopped).await;
                sleep(LOOK).await;
            }
            seen
        });
        Self { stop, task }
    }

    pub async fn finish(self) -> Result<Vec<Standing>> {
        self.stop.store(true, Ordering::Relaxed);
        Ok(self.task.await?)
    }
}

async fn look(server: &Server, seen: &mut Vec<Standing>, stop: &AtomicBool) -> Result<()> {
    let mut connection = server.connect().await?;
    while !stop.load(Ordering::Relaxed) {
        let standings = standings(&mut connection).await?;
        for now in standings {
            if !seen.iter().rev().take(256).any(|before| *before == now) {
                seen.push(now);
            }
        }
        sleep(LOOK).await;
    }
    Ok(())
}

async fn standings(connection: &mut sqlx::PgConnection) -> Result<Vec<Standing>> {
    let rows = sqlx::query(
        "SELECT group_name, topic_id, partition, epoch, next_offset FROM tidemill.consumer_offsets",
    )
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Standing {
                group: row.try_get(0)?,
                topic: row.try_get(1)?,
                partition: partition(row, 2)?,
                epoch: row.try_get(3)?,
                offset: row.try_get::<i64, _>(4)?.cast_unsigned(),
            })
        })
        .collect()
}
