//! A topic with the sample pipeline's schema, appended, sealed, and archived into a folder with the archiver of the host.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tidemill::archive::{Archiver, ArchiverOptions, Bucket, BucketOptions, Report};
use tidemill::clock::Clock;
use tidemill::config::plan::TopicPlan;
use tidemill::ids::{HostId, TopicName};
use tidemill::log::{AppendOptions, Log, Topic};
use tidemill::segments::{Maintainer, MaintainerOptions};
use tokio::task::JoinSet;

use crate::feed::Feed;
use crate::server::Server;

/// Records of one append, and appends at a time.
const BATCH: usize = 4_000;
const SIDE_BY_SIDE: usize = 4;
/// Looks for a segment whose time is over.
const LOOK: Duration = Duration::from_millis(100);

/// `positions` as in `pipelines/aircraft.toml`, with other spans.
pub fn positions(name: &str, partitions: u32, segment: Duration) -> Result<TopicPlan> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pipelines/aircraft.toml");
    let plan = tidemill::config::load(&[file])?;
    let topics = plan.pipelines.into_values().flat_map(|pipeline| pipeline.topics.into_values());
    let topic = topics
        .into_iter()
        .find(|topic| topic.name.as_str() == "positions")
        .context("there are no positions")?;
    Ok(TopicPlan { name: TopicName::parse(name)?, partitions, segment, hot: None, ..topic })
}

/// Appends what the aircraft report, waits until the time of all segments is over, and seals them.
pub async fn append_and_seal(server: &Server, topic: &Arc<Topic>, records: usize) -> Result<()> {
    wait_for_a_fresh_segment(server, topic).await?;
    let log = server.log();
    let (mut feed, mut appends, mut left) = (Feed::new()?, JoinSet::new(), records);
    while left > 0 || !appends.is_empty() {
        if left > 0 && appends.len() < SIDE_BY_SIDE {
            let batch = feed.take(BATCH.min(left))?;
            left -= batch.len();
            appends.spawn(append(log.clone(), topic.clone(), batch));
        } else if let Some(appended) = appends.join_next().await {
            appended??;
        }
    }
    seal(server, topic, records).await
}

async fn append(log: Log, topic: Arc<Topic>, batch: Vec<tidemill::record::NewRecord>) -> Result<()> {
    log.append(&topic, batch, AppendOptions::default()).await?;
    Ok(())
}

/// So that records which fit into one segment do not lie in two.
async fn wait_for_a_fresh_segment(server: &Server, topic: &Topic) -> Result<()> {
    let left: f64 = sqlx::query_scalar(
        "SELECT ($1::bigint - extract(epoch FROM clock_timestamp()) % $1::bigint)::float8",
    )
    .bind(topic.segment.as_secs().cast_signed())
    .fetch_one(&server.pool)
    .await?;
    tokio::time::sleep(Duration::from_secs_f64(left)).await;
    Ok(())
}

async fn seal(server: &Server, topic: &Topic, records: usize) -> Result<()> {
    let options = MaintainerOptions { seal_after: Duration::ZERO, ..MaintainerOptions::default() };
    let mut maintainer = Maintainer::new(server.pool.clone(), Clock::system(), options);
    let mut looks = topic.segment.as_millis() / LOOK.as_millis() * 2 + 100;
    loop {
        maintainer.tick().await?;
        let sealed: i64 = sqlx::query_scalar(
            "SELECT coalesce(sum(r.next_offset - r.first_offset), 0)::bigint FROM tidemill.segment_ranges r \
             JOIN tidemill.segments s USING (segment_id) WHERE s.topic_id = $1",
        )
        .bind(topic.id.0)
        .fetch_one(&server.pool)
        .await?;
        if sealed == records as i64 {
            return Ok(());
        }
        looks -= 1;
        if looks == 0 {
            bail!("{sealed} of {records} records were sealed");
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// A bucket in a folder of the server's disk.
pub fn bucket(server: &Server, name: &str) -> Result<Bucket> {
    let folder = server.folder().join(name);
    Ok(Bucket::open(&folder.display().to_string(), &BucketOptions::default())?)
}

/// An archiver that has not begun.
pub fn archiver(server: &Server, bucket: &Bucket) -> Result<Archiver> {
    let work = server.folder().join("archiver");
    Ok(Archiver::new(
        server.log(),
        bucket.clone(),
        HostId("h-bench".into()),
        work,
        ArchiverOptions::default(),
    )?)
}

/// Archives all that is sealed.
pub async fn archive(archiver: &mut Archiver, records: usize) -> Result<Report> {
    let report = archiver.tick().await?;
    ensure!(report.failures.is_empty(), "{}", report.failures.join("; "));
    ensure!(report.records == records as u64, "{} of {records} records were archived", report.records);
    Ok(report)
}

/// Makes what is archived sealed again, as after a crash before the catalog knew.
pub async fn forget(server: &Server, topic: &Topic) -> Result<()> {
    for sql in [
        "DELETE FROM tidemill.objects WHERE topic_id = $1",
        "UPDATE tidemill.segments SET state = 'sealed', archive_owner = NULL WHERE state = 'archived' AND topic_id = $1",
    ] {
        sqlx::query(sql).bind(topic.id.0).execute(&server.pool).await?;
    }
    sqlx::query("DELETE FROM tidemill.loose_objects").execute(&server.pool).await?;
    Ok(())
}
