//! Reading a topic from its beginning to its end, 1,000 messages at a time, beside a SELECT over a row per message.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use sqlx::Row as _;
use tidemill::log::{AppendOptions, FetchLimits, Topic};

use super::append::{BATCHES, Published, TOPIC, create_published, payloads, plan, remove_published};
use crate::feed::Feed;
use crate::findings::{Findings, Row};
use crate::meter::{Meter, Sample};
use crate::rounds::interleaved;
use crate::scale::Scale;
use crate::server::Server;

const SELECT: &str = "SELECT c_offset, payload FROM bench.topic WHERE topic_id = $1 AND c_offset > $2 ORDER BY c_offset LIMIT 1000";

const PAGE: usize = 1_000;

enum Arm {
    Select,
    Fetch { batch: usize, topic: Arc<Topic> },
}

impl Arm {
    fn name(&self) -> String {
        match self {
            Self::Select => "SELECT ... WHERE c_offset > $1 LIMIT 1000, a row per message".to_owned(),
            Self::Fetch { batch, .. } => format!("Tidemill, appended in batches of {batch}"),
        }
    }
}

pub async fn run(server: &Server, scale: &Scale) -> Result<Findings> {
    fill_rows(server, scale.fetched).await?;
    let mut arms = vec![Arm::Select];
    for batch in [100, PAGE] {
        arms.push(Arm::Fetch { batch, topic: fill_topic(server, scale.fetched, batch).await? });
    }
    server.execute("VACUUM ANALYZE bench.topic").await?;
    server.settle().await?;
    let samples = interleaved(&arms, scale.rounds, async |arm| {
        one(server, scale, arm).await.with_context(|| format!("fetch: {}", arm.name()))
    })
    .await?;
    remove_published(server).await?;
    for arm in &arms {
        if let Arm::Fetch { topic, .. } = arm {
            server.log().delete_topic(&topic.name).await?;
        }
    }
    let row = |(arm, samples): (&Arm, &Vec<Sample>)| Row::rate("fetch", arm.name(), samples);
    Ok(Findings { rows: arms.iter().zip(&samples).map(row).collect(), bars: Vec::new() })
}

async fn fill_rows(server: &Server, count: usize) -> Result<()> {
    create_published(server).await?;
    let mut writer = Published::connect(server, payloads(PAGE, BATCHES)?).await?;
    let mut written = 0;
    while written < count {
        written += writer.write().await? as usize;
    }
    Ok(())
}

async fn fill_topic(server: &Server, count: usize, batch: usize) -> Result<Arc<Topic>> {
    let log = server.log();
    let topic = log.create_topic(&plan(&server.topic_name(), 1)?).await?;
    let mut feed = Feed::new()?;
    for _ in 0..count.div_ceil(batch) {
        log.append(&topic, feed.payloads(batch)?, AppendOptions::default()).await?;
    }
    Ok(topic)
}

async fn one(server: &Server, scale: &Scale, arm: &Arm) -> Result<Sample> {
    let (read, sample) = match arm {
        Arm::Select => select(server, scale).await?,
        Arm::Fetch { topic, .. } => fetch(server, topic, scale).await?,
    };
    let wanted = scale.fetched.next_multiple_of(PAGE) as u64;
    ensure!(read == wanted, "{read} messages were read of {wanted}");
    // Reading writes none.
    Ok(Sample { wal_bytes: None, ..sample })
}

/// All rows; how many, and the sample of all but the first tenth.
async fn select(server: &Server, scale: &Scale) -> Result<(u64, Sample)> {
    let mut connection = server.connect().await?;
    let (mut read, mut last, mut warm) = (0, -1_i64, None);
    let mut payloads: Vec<Bytes> = Vec::new();
    loop {
        if warm.is_none() && read >= scale.fetched as u64 / 10 {
            warm = Some((Meter::start(server).await?, read));
        }
        let rows = sqlx::query(SELECT).bind(TOPIC).bind(last).fetch_all(&mut connection).await?;
        payloads.clear();
        for row in &rows {
            last = row.try_get(0)?;
            payloads.push(Bytes::copy_from_slice(row.try_get(1)?));
        }
        read += payloads.len() as u64;
        if rows.is_empty() {
            break;
        }
    }
    let (meter, before) = warm.context("nothing was read")?;
    Ok((read, meter.stop(server, read - before).await?))
}

/// The same through a log that has nothing in its cache.
async fn fetch(server: &Server, topic: &Topic, scale: &Scale) -> Result<(u64, Sample)> {
    let log = server.log();
    let (mut next, mut warm) = (0, None);
    loop {
        if warm.is_none() && next >= scale.fetched as u64 / 10 {
            warm = Some((Meter::start(server).await?, next));
        }
        let fetched = log.fetch(topic, 0, next, FetchLimits::default()).await?;
        let Some(last) = fetched.batches.last() else { break };
        next = last.next_offset();
    }
    let (meter, before) = warm.context("nothing was read")?;
    Ok((next, meter.stop(server, next - before).await?))
}
