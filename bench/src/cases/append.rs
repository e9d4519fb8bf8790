//! Appending: how many messages a second are committed and on disk.
//!
//! All variants get the same payloads, from this process, over the same socket. A writer waits for its commit before it
//! writes again.

mod copy;
mod published;
mod tidemill;

use std::time::{Duration, Instant};

use ::tidemill::log::Log;
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use tokio::task::JoinSet;

use crate::cases::disk;
use crate::feed::Feed;
use crate::findings::{Bar, Findings, Row, Wanted};
use crate::meter::{Meter, Sample};
use crate::rounds::interleaved;
use crate::scale::Scale;
use crate::server::Server;

pub use published::{Published, TOPIC, create as create_published, remove as remove_published};
pub use tidemill::plan;

/// Different batches that a writer takes turns with.
pub const BATCHES: usize = 16;

/// How messages are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Published,
    Copy,
    Tidemill,
    /// With keys and timestamps, which the others do not store.
    TidemillKeyed,
    /// Only the payloads, into a file, synced once a batch.
    File,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Arm {
    way: Way,
    batch: usize,
    writers: usize,
    partitions: u32,
}

impl Arm {
    const fn new(way: Way, batch: usize, writers: usize) -> Self {
        Self { way, batch, writers, partitions: 1 }
    }

    fn name(&self) -> String {
        let way = match self.way {
            Way::Published => "published SQL, a row per message",
            Way::Copy => "COPY BINARY into a keyed table",
            Way::Tidemill => "Tidemill",
            Way::TidemillKeyed => "Tidemill, with keys and times",
            Way::File => "the disk: write + fdatasync",
        };
        let writers =
            if self.writers == 1 { "1 writer".to_owned() } else { format!("{} writers", self.writers) };
        let partitions =
            if self.partitions > 1 { format!(", {} partitions", self.partitions) } else { String::new() };
        format!("{way}, batch {}, {writers}{partitions}", self.batch)
    }
}

pub async fn run(server: &Server, scale: &Scale) -> Result<Findings> {
    let mut arms = vec![Arm::new(Way::File, 1_000, 1)];
    for writers in [1, 8] {
        arms.extend([
            Arm::new(Way::Published, 100, writers),
            Arm::new(Way::Published, 1_000, writers),
            Arm::new(Way::Copy, 1_000, writers),
            Arm::new(Way::Tidemill, 100, writers),
            Arm::new(Way::Tidemill, 1_000, writers),
        ]);
    }
    arms.push(Arm::new(Way::TidemillKeyed, 1_000, 1));
    let (mut findings, values) = measure(server, scale, "append", &arms).await?;
    let of = |way: Way, writers: usize| {
        let place = arms.iter().position(|arm| *arm == Arm::new(way, 1_000, writers));
        place.map(|place| values[place].as_slice()).context("a bar of a variant that was not measured")
    };
    for (writers, published, copy) in [
        (
            1,
            "append, batch 1,000, 1 writer: to the published SQL",
            "append, batch 1,000, 1 writer: to COPY BINARY",
        ),
        (
            8,
            "append, batch 1,000, 8 writers: to the published SQL",
            "append, batch 1,000, 8 writers: to COPY BINARY",
        ),
    ] {
        let ours = of(Way::Tidemill, writers)?;
        findings.bars.extend([
            Bar::ratio(published, Wanted::AtLeast(5.0), ours, of(Way::Published, writers)?),
            Bar::ratio(copy, Wanted::AtLeast(1.5), ours, of(Way::Copy, writers)?),
        ]);
    }
    Ok(findings)
}

/// Eight writers: the commits of one partition follow each other, those of eight need not.
pub async fn partitions(server: &Server, scale: &Scale) -> Result<Findings> {
    let arms: Vec<Arm> = [(100, 1), (100, 8), (1_000, 1), (1_000, 8)]
        .map(|(batch, partitions)| Arm { partitions, ..Arm::new(Way::Tidemill, batch, 8) })
        .into();
    let (mut findings, values) = measure(server, scale, "partitions", &arms).await?;
    findings.bars.extend([
        Bar::ratio("8 writers, batch 100: 1 partition to 8", Wanted::AtLeast(0.8), &values[0], &values[1]),
        Bar::ratio("8 writers, batch 1,000: 1 partition to 8", Wanted::AtLeast(0.8), &values[2], &values[3]),
    ]);
    Ok(findings)
}

/// The rows of all variants, and the values of each.
async fn measure(
    server: &Server,
    scale: &Scale,
    case: &'static str,
    arms: &[Arm],
) -> Result<(Findings, Vec<Vec<f64>>)> {
    let samples = interleaved(arms, scale.rounds, async |arm| {
        one(server, scale, arm).await.with_context(|| format!("{case}: {}", arm.name()))
    })
    .await?;
    let rows: Vec<Row> =
        arms.iter().zip(&samples).map(|(arm, samples)| Row::rate(case, arm.name(), samples)).collect();
    let values = rows.iter().map(|row| row.values.clone()).collect();
    Ok((Findings { rows, bars: Vec::new() }, values))
}

async fn one(server: &Server, scale: &Scale, arm: &Arm) -> Result<Sample> {
    if arm.way == Way::File {
        return disk::written_in_batches(server.folder(), &payloads(arm.batch, BATCHES)?, scale.writing);
    }
    let table = Table::prepare(server, arm).await?;
    let writers = table.writers(server, arm).await?;
    server.settle().await?;
    let (writers, before) = drive(writers, scale.warm_up).await?;
    let meter = Meter::start(server).await?;
    let (writers, written) = drive(writers, scale.writing).await?;
    let sample = meter.stop(server, written).await?;
    drop(writers);
    let stored = table.count(server).await?;
    ensure!(stored == before + written, "{} were acknowledged and {stored} are there", before + written);
    table.remove(server).await?;
    Ok(sample)
}

/// Each writer writes in a task of its own until the time is over and ends with a commit; how many messages in all.
async fn drive(writers: Vec<Writer>, time: Duration) -> Result<(Vec<Writer>, u64)> {
    let until = Instant::now() + time;
    let mut tasks = JoinSet::new();
    for mut writer in writers {
        tasks.spawn(async move {
            let mut written = writer.write().await?;
            while Instant::now() < until {
                written += writer.write().await?;
            }
            anyhow::Ok((writer, written))
        });
    }
    let (mut writers, mut all) = (Vec::new(), 0);
    while let Some(ended) = tasks.join_next().await {
        let (writer, written) = ended??;
        writers.push(writer);
        all += written;
    }
    Ok((writers, all))
}

/// Where a variant writes.
enum Table {
    Published,
    Copied,
    Topic(Log, std::sync::Arc<::tidemill::log::Topic>),
}

enum Writer {
    Published(Published),
    Copy(copy::Copy),
    Tidemill(tidemill::Appends),
}

impl Writer {
    async fn write(&mut self) -> Result<u64> {
        match self {
            Self::Published(writer) => writer.write().await,
            Self::Copy(writer) => writer.write().await,
            Self::Tidemill(writer) => writer.write().await,
        }
    }
}

impl Table {
    async fn prepare(server: &Server, arm: &Arm) -> Result<Self> {
        Ok(match arm.way {
            Way::Published => {
                published::create(server).await?;
                Self::Published
            }
            Way::Copy => {
                copy::create(server).await?;
                Self::Copied
            }
            Way::Tidemill | Way::TidemillKeyed | Way::File => {
                let log = server.log();
                let topic = log.create_topic(&plan(&server.topic_name(), arm.partitions)?).await?;
                Self::Topic(log, topic)
            }
        })
    }

    async fn writers(&self, server: &Server, arm: &Arm) -> Result<Vec<Writer>> {
        let next = copy::next_offset();
        let mut writers = Vec::new();
        for number in 0..arm.writers as u32 {
            writers.push(match self {
                Self::Published => {
                    Writer::Published(Published::connect(server, payloads(arm.batch, BATCHES)?).await?)
                }
                Self::Copied => {
                    let payloads = payloads(arm.batch, BATCHES)?;
                    Writer::Copy(copy::Copy::new(server.connect().await?, payloads, next.clone()))
                }
                Self::Topic(log, topic) => {
                    let keyed = arm.way == Way::TidemillKeyed;
                    let partition = number % arm.partitions;
                    Writer::Tidemill(tidemill::Appends::new(log, topic, partition, arm.batch, keyed)?)
                }
            });
        }
        Ok(writers)
    }

    async fn count(&self, server: &Server) -> Result<u64> {
        let count: i64 = match self {
            Self::Published => {
                sqlx::query_scalar("SELECT count(*) FROM bench.topic").fetch_one(&server.pool).await?
            }
            Self::Copied => {
                sqlx::query_scalar("SELECT count(*) FROM bench.copied").fetch_one(&server.pool).await?
            }
            Self::Topic(_, topic) => {
                let sql =
                    format!("SELECT coalesce(sum(cardinality(payloads)), 0)::bigint FROM log.{}", topic.name);
                sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&server.pool).await?
            }
        };
        Ok(count.unsigned_abs())
    }

    async fn remove(self, server: &Server) -> Result<()> {
        match self {
            Self::Published => published::remove(server).await,
            Self::Copied => copy::remove(server).await,
            Self::Topic(log, topic) => Ok(log.delete_topic(&topic.name).await?),
        }
    }
}

/// Payloads in batches.
pub fn payloads(batch: usize, batches: usize) -> Result<Vec<Vec<Bytes>>> {
    let mut feed = Feed::new()?;
    (0..batches).map(|_| Ok(feed.take(batch)?.into_iter().map(|record| record.payload).collect())).collect()
}
