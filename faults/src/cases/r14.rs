//! R14: whatever a bucket answers, nothing is dropped for it that is not there, and no damaged object is served.
//!
//! A tenth of all requests for objects fail, in every way that a store is known to fail, while segments of a second are
//! archived, dropped and read back. Then objects are damaged where they lie: each must be named, and be read again once it
//! is restored.

use std::sync::Arc;
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
use crate::cluster::pipeline::{self, INBOUND};
use crate::cluster::{Cluster, Layout};
use crate::cold;
use crate::history::History;
use crate::http;
use crate::report::Verdict;
use crate::run::{Run, Scale};
use crate::s3::Bucket;
use crate::workload::{Load, produce};

pub const CASE: Case =
    Case { id: "R14", title: "a bucket that misbehaves", endless: false, run: |run| misbehave(run).boxed() };

/// In small size only the first.
const TOPICS: [&str; 4] = [INBOUND, "second", "third", "fourth"];
const PARTITIONS: u32 = 2;
/// Records a second of each of two producers of each topic, so that each partition has some in each segment.
const RATE: f64 = 40.0;
/// Of the requests for objects.
const CHANCE: f64 = 0.1;
/// A request that gets no answer ends so much later.
const STALL: Duration = Duration::from_secs(3);
/// Without a put for so long, something hangs: a host that failed again and again looks every half minute.
const STALLED: Duration = Duration::from_secs(150);
/// All is archived by then, with a bucket that still misbehaves.
const ARCHIVED: Duration = Duration::from_secs(600);
/// A page is asked for again for so long.
const READ: Duration = Duration::from_secs(300);

async fn misbehave(run: Run) -> Result<Verdict> {
    let wanted = u64::from(run.rounds(2_000, 24));
    let bucket = Bucket::start(&run.folder.join("s3"), run.rng("bucket")).await?;
    // The client would give up after half a minute by itself, as it has to in R15.
    bucket.stall_for(STALL);
    let topics = if run.scale == Scale::Full { &TOPICS[..] } else { &TOPICS[..1] };
    let layout = Layout {
        bucket: Some(bucket.url(bucket.address())),
        environment: Bucket::environment(),
        arguments: vec!["--sweep-after".to_owned(), "5s".to_owned()],
        ..Layout::new(2, pipeline::short_lived(topics, PARTITIONS, "forever"))
    };
    let cluster = Cluster::start(&run, layout).await?;
    bucket.misbehave(CHANCE);
    let witness = Witness::of_topics(&run, &cluster, &[INBOUND]);
    let histories: Vec<Arc<History>> = topics
        .iter()
        .map(|topic| if *topic == INBOUND { witness.history.clone() } else { Arc::default() })
        .collect();

    let producing = try_join_all(topics.iter().zip(&histories).map(|(topic, history)| {
        let (run, hosts, progress) = (&run, &cluster.hosts, &witness.progress);
        let load = Load { rate: Some(RATE), batch: 1..=8, ..Load::endless(topic, 2) };
        async move { produce(run, hosts, &load, history, progress).await }
    }));
    let enough = async {
        let waited = wait_for_segments(&cluster, wanted / u64::from(PARTITIONS)).await;
        witness.progress.finish();
        waited
    };
    tokio::try_join!(producing, enough)?;
    wait_for_puts(&run, &bucket, wanted).await?;
    let archived = cold::archived(&cluster.server, run.scale == Scale::Full, ARCHIVED).await;

    let mut verdict = Verdict::default();
    verdict.injected("puts", wanted, bucket.puts());
    verdict
        .none("segments never archived", archived.err().map(|error| error.to_string()).into_iter().collect());
    verdict.none("segments dropped unarchived", cold::unarchived(&cluster.server).await?);
    verdict.none("offsets catalogued twice", cold::overlapping(&cluster.server).await?);
    verdict
        .none("catalog rows without a valid object", cold::invalid(&cluster.server, bucket.folder()).await?);
    read_back(&cluster, &histories, &mut verdict).await?;
    verdict.counted("requests for objects that failed", bucket.faults());
    verdict.counted("answers with a damaged body", bucket.damaged());
    bucket.misbehave(0.0);
    let objects = run.size(20, 3);
    let undetected = damage(&cluster, &bucket, objects, run.rng("damage")).await?;
    verdict.counted("objects damaged in the bucket", objects.into());
    verdict.none("damaged objects served, or not named", undetected);
    let orphans = cold::swept(&cluster.server, bucket.folder(), Duration::from_secs(120)).await?;
    verdict.none("orphans after the sweep", orphans);
    witness.judge_archived(&cluster, INBOUND, &mut verdict).await?;
    cluster.stop().await?;
    Ok(verdict)
}

/// Until the topics have so many segments that the archiver can take: made faster than a bucket that misbehaves can hold them,
/// they would only wait longer.
async fn wait_for_segments(cluster: &Cluster, wanted: u64) -> Result<()> {
    let sql =
        "SELECT count(DISTINCT segment_id) FROM tidemill.segment_ranges WHERE first_offset < next_offset";
    while cluster.server.ask::<i64>(sql).await?.cast_unsigned() < wanted {
        sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

async fn wait_for_puts(run: &Run, bucket: &Bucket, wanted: u64) -> Result<()> {
    let (mut last, mut since) = (0, Instant::now());
    while bucket.puts() < wanted {
        let puts = bucket.puts();
        if puts / 500 != last / 500 {
            run.say(format!("{puts} of {wanted} puts"));
        }
        if puts != last {
            (last, since) = (puts, Instant::now());
        }
        if since.elapsed() > STALLED {
            bail!("no object was put for {} s, at {puts}", STALLED.as_secs());
        }
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Reads all topics while the bucket still misbehaves: a page may be refused, and asked for again, but never be wrong.
async fn read_back(cluster: &Cluster, histories: &[Arc<History>], verdict: &mut Verdict) -> Result<()> {
    let (mut lost, mut altered, mut refusals) = (Vec::new(), Vec::new(), 0);
    for (topic, history) in TOPICS.iter().zip(histories) {
        let whole = cold::whole_patiently(&cluster.server, &cluster.hosts[0], topic, READ).await?;
        lost.extend(check::lost(&history.appends(), &whole.log));
        lost.extend(check::holes(&whole.log));
        altered.extend(whole.altered);
        refusals += whole.refusals;
    }
    verdict.counted("pages refused meanwhile", refusals);
    verdict.none("records that could not be read back", lost);
    verdict.none("records read back wrong", altered);
    Ok(())
}

/// An object whose records are in the bucket alone.
#[derive(sqlx::FromRow)]
struct Object {
    path: String,
    partition: i32,
    first_offset: i64,
}

/// Damages objects one by one, and asks a host that has not read them yet. Gives those that were not named.
async fn damage(cluster: &Cluster, bucket: &Bucket, count: u32, mut rng: Rng) -> Result<Vec<String>> {
    let host = &cluster.hosts[1];
    host.kill().await?;
    std::fs::remove_dir_all(host.data_dir().join("query-cache"))?;
    host.start().await?;
    let mut connection = cluster.server.connect().await?;
    let mut objects: Vec<Object> = sqlx::query_as(
        "SELECT o.path, o.partition, o.first_offset FROM tidemill.objects o JOIN tidemill.segments s USING (segment_id)
           JOIN tidemill.topics t ON t.topic_id = o.topic_id
          WHERE t.name = $1 AND s.state IN ('dropping', 'dropped') ORDER BY o.object_id",
    )
    .bind(INBOUND)
    .fetch_all(&mut connection)
    .await?;
    rng.shuffle(&mut objects);
    let mut wrong = Vec::new();
    for number in 0..count {
        let object = objects.pop().context("there are not enough objects to damage")?;
        let file = bucket.folder().join(&object.path);
        let whole = std::fs::read(&file)?;
        std::fs::write(&file, damaged(&whole, number, &mut rng))?;
        let (status, text) = first_record(host, &object).await?;
        if status.is_success() || !text.contains(&object.path) {
            wrong.push(format!("{} was damaged, and the answer was {status} {text}", object.path));
        }
        std::fs::write(&file, whole)?;
        let (status, text) = first_record(host, &object).await?;
        if !status.is_success() {
            wrong.push(format!("{} was restored, and the answer is {status} {text}", object.path));
        }
    }
    Ok(wrong)
}

/// One bit is another, the end is missing, or there is another object's worth of zeros.
fn damaged(whole: &[u8], number: u32, rng: &mut Rng) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    match number % 3 {
        0 => {
            let place = rng.usize(..bytes.len());
            bytes[place] ^= 1 << rng.u32(..8);
        }
        1 => bytes.truncate(rng.usize(..whole.len())),
        _ => bytes.fill(0),
    }
    bytes
}

async fn first_record(host: &Host, object: &Object) -> Result<(reqwest::StatusCode, String)> {
    let url = host.url().context("the host is down")?;
    let parameters = [("partition", i64::from(object.partition)), ("from", object.first_offset), ("max", 1)];
    let request = http::client().get(format!("{url}/v1/topics/{INBOUND}/records")).query(&parameters);
    let answer = request.timeout(Duration::from_secs(60)).send().await?;
    Ok((answer.status(), answer.text().await?))
}
