//! R13: a reader that goes from the bucket into Postgres, or is overtaken by a drop, gets each offset once.
//!
//! Segments of one second are archived and dropped while readers begin at random offsets, half of them close to where
//! Postgres begins, and read on page by page. A host that alone runs a stage is killed and left away until its group is
//! behind what is in Postgres, so that the stage reads on in the bucket, and comes back into Postgres.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use fastrand::Rng;
use futures::FutureExt;
use futures::future::try_join_all;
use tokio::time::sleep;

use super::Case;
use super::judge::Witness;
use crate::check;
use crate::cluster::host::Host;
use crate::cluster::pipeline::{self, INBOUND, OUTBOUND};
use crate::cluster::server::Server;
use crate::cluster::{Cluster, Layout};
use crate::cold;
use crate::history::{History, Item, Place, Read};
use crate::http;
use crate::observe;
use crate::report::Verdict;
use crate::run::Run;
use crate::workload::{Load, Progress, produce};

pub const CASE: Case = Case {
    id: "R13",
    title: "segments dropped under their readers",
    endless: false,
    run: |run| drops(run).boxed(),
};

/// Each drops a segment a second.
const TOPICS: [&str; 4] = [INBOUND, "second", "third", "fourth"];
const PARTITIONS: u32 = 2;
/// Records a second of each of two producers of each topic.
const RATE: f64 = 40.0;
/// Readers of each topic.
const READERS: u32 = 2;
/// Pages of one reader, and records of a page, at most.
const PAGES: u32 = 12;
const PAGE: u32 = 120;
/// This close to where Postgres begins.
const CLOSE: u64 = 150;
/// The stage's host stays away for so long, in seconds: what it has not read then is in the bucket alone.
const AWAY: std::ops::Range<u64> = 7..10;
/// A drop comes about every fourth of a second.
const STALLED: Duration = Duration::from_secs(90);
const REQUEST: Duration = Duration::from_secs(30);

async fn drops(run: Run) -> Result<Verdict> {
    let wanted = u64::from(run.rounds(500, 24));
    let layout = Layout {
        others: vec![(1, pipeline::short_lived_copy(PARTITIONS))],
        ..Layout::new(2, pipeline::short_lived(&TOPICS, PARTITIONS, "forever"))
    };
    let cluster = Cluster::start(&run, layout).await?;
    let witness = Witness::of_topics(&run, &cluster, &[INBOUND]);
    let stop = Arc::new(AtomicBool::new(false));
    let histories: Vec<Arc<History>> = TOPICS
        .iter()
        .map(|topic| if *topic == INBOUND { witness.history.clone() } else { Arc::default() })
        .collect();

    let producing = try_join_all(TOPICS.iter().zip(&histories).map(|(topic, history)| {
        let load = Load { rate: Some(RATE), batch: 1..=8, ..Load::endless(topic, 2) };
        producing(&run, &cluster, load, history, &witness.progress)
    }));
    let readers = TOPICS.iter().flat_map(|topic| (0..READERS).map(move |number| (*topic, number)));
    let reading = try_join_all(readers.map(|(topic, number)| {
        let reader = Reader {
            server: cluster.server.clone(),
            host: cluster.hosts[0].clone(),
            topic,
            rng: run.rng(&format!("reader {topic} {number}")),
            found: Found::default(),
        };
        let task = tokio::spawn(reader.run(stop.clone()));
        async move { task.await? }
    }));
    let waiting = async {
        let waited = wait_for_drops(&run, &cluster, wanted, &stop).await;
        stop.store(true, Ordering::Relaxed);
        witness.progress.finish();
        waited
    };
    let falling = fall_behind(&run, &cluster, &stop);
    let (_, found, dropped, behind) = tokio::try_join!(producing, reading, waiting, falling)?;
    cluster.settle().await?;

    let mut verdict = Verdict::default();
    verdict.injected("segments dropped", wanted, dropped);
    verdict.injected("times the stage fell behind Postgres", 1, behind);
    verdict.injected("reads over the tier change", 1, found.iter().map(|found| found.crossings).sum());
    verdict.counted("reads", found.iter().map(|found| found.sessions).sum());
    verdict.counted("records in them", found.iter().map(|found| found.reads.len() as u64).sum());
    judge_readers(&cluster, &histories, found, &mut verdict).await?;
    let inbound = cold::whole(&cluster.server, &cluster.hosts[0], INBOUND).await?.log;
    let outbound = observe::by_sql(&cluster.server, OUTBOUND).await?;
    verdict.none("records the stage skipped", check::missing(&inbound, &outbound));
    verdict.none("records the stage got twice", check::duplicated(&outbound));
    verdict.none("records the stage reordered", check::reordered(&outbound));
    verdict.none("segments dropped unarchived", cold::unarchived(&cluster.server).await?);
    witness.judge_archived(&cluster, INBOUND, &mut verdict).await?;
    cluster.stop().await?;
    Ok(verdict)
}

/// Producers of one topic. Their own progress ends with that of all.
async fn producing(
    run: &Run,
    cluster: &Cluster,
    load: Load,
    history: &Arc<History>,
    progress: &Arc<Progress>,
) -> Result<()> {
    produce(run, &cluster.hosts[..1], &load, history, progress).await
}

/// Until so many segments with records in them were dropped.
async fn wait_for_drops(run: &Run, cluster: &Cluster, wanted: u64, stop: &AtomicBool) -> Result<u64> {
    let (mut last, mut since) = (0, Instant::now());
    loop {
        let dropped = cold::segments(&cluster.server, "'dropped'").await?;
        if dropped >= wanted {
            return Ok(dropped);
        }
        if dropped / 100 != last / 100 {
            run.say(format!("{dropped} of {wanted} drops"));
        }
        if dropped != last {
            (last, since) = (dropped, Instant::now());
        }
        if since.elapsed() > STALLED || stop.load(Ordering::Relaxed) {
            bail!("no segment was dropped for {} s, at {dropped}", since.elapsed().as_secs());
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// Takes the stage's host away again and again. How often its group stood before what is in Postgres when it came back.
async fn fall_behind(run: &Run, cluster: &Cluster, stop: &AtomicBool) -> Result<u64> {
    let mut rng = run.rng("stage");
    let mut behind = 0;
    let host = &cluster.hosts[1];
    while !stop.load(Ordering::Relaxed) {
        sleep(Duration::from_millis(rng.u64(500..2_000))).await;
        host.kill().await?;
        sleep(Duration::from_secs(rng.u64(AWAY))).await;
        let left: i64 =
            cluster.server.ask("SELECT count(*) FROM tidemill.lag WHERE next_offset < start_offset").await?;
        behind += u64::from(left > 0);
        host.start().await?;
    }
    Ok(behind)
}

/// What readers saw.
#[derive(Default)]
struct Found {
    sessions: u64,
    /// Sessions that began in the bucket and ended in Postgres.
    crossings: u64,
    reads: Vec<Read>,
    wrong: Vec<String>,
}

struct Reader {
    server: Arc<Server>,
    host: Arc<Host>,
    topic: &'static str,
    rng: Rng,
    found: Found,
}

impl Reader {
    async fn run(mut self, stop: Arc<AtomicBool>) -> Result<Found> {
        while !stop.load(Ordering::Relaxed) {
            let partition = self.rng.u32(..PARTITIONS);
            let (start, end) = self.bounds(partition).await?;
            if end == 0 {
                sleep(Duration::from_millis(50)).await;
                continue;
            }
            let from = if self.rng.bool() {
                self.rng.u64(start.saturating_sub(CLOSE)..=start.min(end - 1))
            } else {
                self.rng.u64(..end)
            };
            let next = self.session(partition, from).await?;
            let (start, _) = self.bounds(partition).await?;
            self.found.sessions += 1;
            self.found.crossings += u64::from(from < start && next > start);
        }
        Ok(self.found)
    }

    /// Where a partition begins in Postgres, and where it ends.
    async fn bounds(&self, partition: u32) -> Result<(u64, u64)> {
        let mut connection = self.server.connect().await?;
        let (start, end): (i64, i64) = sqlx::query_as(
            "SELECT s.start_offset, c.next_offset FROM tidemill.log_counter c
               JOIN tidemill.log_start s USING (topic_id, partition) JOIN tidemill.topics t USING (topic_id)
              WHERE t.name = $1 AND partition = $2",
        )
        .bind(self.topic)
        .bind(partition.cast_signed())
        .fetch_one(&mut connection)
        .await?;
        Ok((start.cast_unsigned(), end.cast_unsigned()))
    }

    /// Reads on from an offset, page by page; where it ended.
    async fn session(&mut self, partition: u32, from: u64) -> Result<u64> {
        let mut next = from;
        for _ in 0..self.rng.u32(1..=PAGES) {
            let (most, before) = (self.rng.u32(1..=PAGE), next);
            match page(&self.host, self.topic, partition, next, most).await {
                Ok(reads) => {
                    for read in reads {
                        if read.place != (Place { partition, offset: next }) {
                            let place = read.place;
                            self.found
                                .wrong
                                .push(format!("{}: {place:?} came for offset {next}", self.topic));
                        }
                        next = read.place.offset + 1;
                        self.found.reads.push(read);
                    }
                }
                Err(error) => {
                    self.found.wrong.push(format!("{} {partition}:{next}: {error:#}", self.topic));
                }
            }
            if next == before {
                break;
            }
            sleep(Duration::from_millis(self.rng.u64(..200))).await;
        }
        Ok(next)
    }
}

/// Some records of one partition.
async fn page(host: &Host, topic: &str, partition: u32, from: u64, most: u32) -> Result<Vec<Read>> {
    let url = host.url().context("the host is down")?;
    let parameters = [("partition", u64::from(partition)), ("from", from), ("max", u64::from(most))];
    let request = http::client().get(format!("{url}/v1/topics/{topic}/records")).query(&parameters);
    let answer = request.query(&[("payload", "text")]).timeout(REQUEST).send().await?;
    let status = answer.status();
    let body: serde_json::Value = answer.json().await?;
    let records = body["records"].as_array().with_context(|| format!("{status} {body}"))?;
    let read = |record: &serde_json::Value| {
        let offset = record["offset"].as_u64()?;
        let item = Item::parse(record["text"].as_str()?.as_bytes())?;
        Some(Read { place: Place { partition, offset }, item })
    };
    records.iter().map(|record| read(record).with_context(|| record.to_string())).collect()
}

/// Holds what readers saw against all that there is, and that against what was sent.
async fn judge_readers(
    cluster: &Cluster,
    histories: &[Arc<History>],
    found: Vec<Found>,
    verdict: &mut Verdict,
) -> Result<()> {
    let (mut wrong, mut lost, mut other) = (Vec::new(), Vec::new(), Vec::new());
    let mut found = found.into_iter();
    for (topic, history) in TOPICS.iter().zip(histories) {
        let whole = cold::whole(&cluster.server, &cluster.hosts[0], topic).await?;
        lost.extend(check::lost(&history.appends(), &whole.log));
        lost.extend(check::holes(&whole.log));
        other.extend(whole.altered);
        for mut seen in found.by_ref().take(READERS as usize) {
            wrong.append(&mut seen.wrong);
            other.extend(check::inconsistent(&[("all", &whole.log.reads), ("a reader", &seen.reads)]));
        }
    }
    verdict.none("offsets that a reader skipped, got twice or was refused", wrong);
    verdict.none("records of any topic lost", lost);
    verdict.none("offsets that gave two records", other);
    Ok(())
}
