//! Topics: made, changed, deleted and looked up.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::config::plan::{Acks, Cold, Format, Hold, TopicPlan};
use crate::ids::{GroupName, LogEpoch, Micros, Offset, Partition, TopicId, TopicName};

use super::error::{Trouble, code};
use super::{Log, LogError};

/// What another host changed about a topic is seen after this long.
const CACHED_FOR: Duration = Duration::from_secs(5);
/// Attempts at deleting a topic: each waits up to five seconds for those who use it.
const DELETE_ATTEMPTS: u32 = 3;
/// How alike a name must be to be suggested, from 0 to 1.
const ALIKE: f64 = 0.75;

const COLUMNS: &str = "SELECT t.topic_id, t.name, t.partitions, extract(epoch FROM t.segment_span)::bigint, \
     (extract(epoch FROM t.hot_retention) * 1000000)::bigint, t.archive, \
     (extract(epoch FROM t.cold_retention) * 1000000)::bigint, t.format, t.acks, t.compression, t.schema, t.sort, \
     tidemill.micros(t.created_at), t.hold, t.hold_max FROM tidemill.topics t";

/// A topic as it is in Postgres.
#[derive(Clone, Debug, PartialEq)]
pub struct Topic {
    pub id: TopicId,
    pub name: TopicName,
    pub partitions: u32,
    /// Span of one segment.
    pub segment: Duration,
    /// How long rows stay in Postgres; None is for ever.
    pub hot: Option<Duration>,
    pub cold: Cold,
    pub hold: Hold,
    pub format: Format,
    pub acks: Acks,
    /// How TOAST compresses batches: `lz4`, or `pglz` where the server has no lz4.
    pub compression: String,
    pub schema: Option<serde_json::Value>,
    pub sort: Vec<String>,
    pub created_at: Micros,
}

/// The offsets of a partition that can be read: from the bucket `first..start`, from Postgres `start..next`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Bounds {
    pub partition: Partition,
    pub first: Offset,
    pub start: Offset,
    pub next: Offset,
    /// Under which these were looked up.
    #[serde(skip)]
    pub log_epoch: LogEpoch,
}

/// What a topic takes in Postgres, measured: tables, indexes and TOAST.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HotSize {
    pub segments: u64,
    pub bytes: u64,
    pub records: u64,
}

/// Topics by name, for a few seconds.
#[derive(Default)]
pub(super) struct TopicCache(Mutex<HashMap<TopicName, (Instant, Arc<Topic>)>>);

impl TopicCache {
    fn get(&self, name: &str) -> Option<Arc<Topic>> {
        let topics = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (read_at, topic) = topics.get(name)?;
        (read_at.elapsed() < CACHED_FOR).then(|| topic.clone())
    }

    fn put(&self, topic: Topic) -> Arc<Topic> {
        let topic = Arc::new(topic);
        let mut topics = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        topics.retain(|_, (read_at, _)| read_at.elapsed() < CACHED_FOR);
        topics.insert(topic.name.clone(), (Instant::now(), topic.clone()));
        topic
    }

    pub(super) fn forget(&self, name: &TopicName) {
        let mut topics = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        topics.remove(name);
    }
}

impl Log {
    /// A topic by name. Changes by other hosts are seen within five seconds.
    pub async fn topic(&self, name: &str) -> Result<Arc<Topic>, LogError> {
        if let Some(topic) = self.shared.topics.get(name) {
            return Ok(topic);
        }
        match self.read_topic(name).await? {
            Some(topic) => Ok(topic),
            None => Err(self.not_found(name).await?),
        }
    }

    /// All topics, by name.
    pub async fn topics(&self) -> Result<Vec<Arc<Topic>>, LogError> {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!("{COLUMNS} ORDER BY t.name")))
            .fetch_all(self.pool())
            .await?;
        rows.iter().map(|row| Ok(self.shared.topics.put(topic(row)?))).collect()
    }

    /// Makes a topic, with its first segments.
    pub async fn create_topic(&self, spec: &TopicPlan) -> Result<Arc<Topic>, LogError> {
        let sql = "SELECT tidemill.create_topic($1, $2, make_interval(secs => $3), make_interval(secs => $4), $5, \
                   make_interval(secs => $6), $7, $8, $9, $10)";
        let (archive, cold) = archive(spec.cold);
        let created = sqlx::query(sql)
            .bind(spec.name.as_str())
            .bind(i32::try_from(spec.partitions).unwrap_or(i32::MAX))
            .bind(spec.segment.as_secs_f64())
            .bind(spec.hot.map(|hot| hot.as_secs_f64()))
            .bind(archive)
            .bind(cold)
            .bind(format_name(spec.format))
            .bind(acks_name(spec.acks))
            .bind(&spec.schema)
            .bind((!spec.sort.is_empty()).then_some(&spec.sort))
            .execute(self.pool())
            .await;
        match created {
            Ok(_) => {}
            Err(error) if code(&error) == "TM006" => {
                return Err(LogError::TopicExists(spec.name.to_string()));
            }
            Err(error) => return Err(error.into()),
        }
        match self.read_topic(spec.name.as_str()).await? {
            Some(topic) if is_as_specified(&topic, spec) => Ok(topic),
            Some(topic) => self.alter_topic(topic.id, spec).await,
            None => Err(self.not_found(spec.name.as_str()).await?),
        }
    }

    /// Makes a topic, or gives an existing one the retention, segment span, acks and schema of `spec`. Its partitions and
    /// format stay: another number would send keys elsewhere.
    pub async fn ensure_topic(&self, spec: &TopicPlan) -> Result<Arc<Topic>, LogError> {
        let existing = match self.read_topic(spec.name.as_str()).await? {
            Some(topic) => topic,
            None => match self.create_topic(spec).await {
                // Another host was faster.
                Err(LogError::TopicExists(name)) => self.topic(&name).await?,
                created => return created,
            },
        };
        let fixed = |what, is: String, wanted: String| LogError::TopicFixed {
            name: spec.name.clone(),
            what,
            is,
            wanted,
        };
        if existing.partitions != spec.partitions {
            let (is, wanted) = (existing.partitions.to_string(), spec.partitions.to_string());
            return Err(fixed("partitions", is, wanted));
        }
        if existing.format != spec.format {
            let (is, wanted) = (format_name(existing.format), format_name(spec.format));
            return Err(fixed("format", is.to_owned(), wanted.to_owned()));
        }
        if is_as_specified(&existing, spec) {
            return Ok(existing);
        }
        self.alter_topic(existing.id, spec).await
    }

    async fn alter_topic(&self, id: TopicId, spec: &TopicPlan) -> Result<Arc<Topic>, LogError> {
        let (archive, cold) = archive(spec.cold);
        let held: Vec<&str> = spec.hold.groups.iter().map(GroupName::as_str).collect();
        sqlx::query(
            "UPDATE tidemill.topics SET segment_span = make_interval(secs => $2), \
             hot_retention = make_interval(secs => $3), archive = $4, cold_retention = make_interval(secs => $5), \
             acks = $6, schema = $7, sort = $8, hold = $9, hold_max = $10 WHERE topic_id = $1",
        )
        .bind(id.0)
        .bind(spec.segment.as_secs_f64())
        .bind(spec.hot.map(|hot| hot.as_secs_f64()))
        .bind(archive)
        .bind(cold)
        .bind(acks_name(spec.acks))
        .bind(&spec.schema)
        .bind((!spec.sort.is_empty()).then_some(&spec.sort))
        .bind((!held.is_empty()).then_some(&held))
        .bind((!held.is_empty()).then_some(spec.hold.max_bytes.cast_signed()))
        .execute(self.pool())
        .await
        .map_err(|error| match code(&error) {
            "23514" => LogError::Invalid(format!(
                "topic {:?} cannot have these settings: {error}",
                spec.name.as_str()
            )),
            _ => error.into(),
        })?;
        self.shared.topics.forget(&spec.name);
        self.topic(spec.name.as_str()).await
    }

    /// Drops a topic with its records, and the offsets of its groups.
    pub async fn delete_topic(&self, name: &TopicName) -> Result<(), LogError> {
        self.shared.topics.forget(name);
        let mut attempt = 1;
        loop {
            let deleted = sqlx::query("SELECT tidemill.delete_topic($1)")
                .bind(name.as_str())
                .execute(self.pool())
                .await;
            match deleted {
                Ok(_) => return Ok(()),
                Err(error) if code(&error) == "TM001" => return Err(self.not_found(name.as_str()).await?),
                Err(error) if Trouble::of(&error) == Trouble::Passing && attempt < DELETE_ATTEMPTS => {
                    tokio::time::sleep(super::error::pause(attempt)).await;
                    attempt += 1;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The readable offsets of each partition, in order.
    pub async fn bounds(&self, topic: TopicId) -> Result<Vec<Bounds>, LogError> {
        let rows: Vec<(i32, i64, i64, i64, i32)> = sqlx::query_as(
            "SELECT c.partition, tidemill.first_offset(c.topic_id, c.partition), s.start_offset, c.next_offset, c.log_epoch \
             FROM tidemill.log_counter c \
             JOIN tidemill.log_start s USING (topic_id, partition) WHERE c.topic_id = $1 ORDER BY c.partition",
        )
        .bind(topic.0)
        .fetch_all(self.pool())
        .await?;
        let bounds = |(partition, first, start, next, log_epoch): (i32, i64, i64, i64, i32)| Bounds {
            partition: partition.cast_unsigned(),
            first: first.cast_unsigned(),
            start: start.cast_unsigned(),
            next: next.cast_unsigned(),
            log_epoch: LogEpoch(log_epoch),
        };
        Ok(rows.into_iter().map(bounds).collect())
    }

    /// What a topic takes in Postgres now.
    pub async fn size(&self, topic: TopicId) -> Result<HotSize, LogError> {
        let (segments, bytes, records): (i64, i64, i64) =
            sqlx::query_as("SELECT segments, bytes, records FROM tidemill.topic_size($1)")
                .bind(topic.0)
                .fetch_one(self.pool())
                .await?;
        Ok(HotSize {
            segments: segments.cast_unsigned(),
            bytes: bytes.cast_unsigned(),
            records: records.cast_unsigned(),
        })
    }

    async fn read_topic(&self, name: &str) -> Result<Option<Arc<Topic>>, LogError> {
        let row = sqlx::query(sqlx::AssertSqlSafe(format!("{COLUMNS} WHERE t.name = $1")))
            .bind(name.replace('\0', ""))
            .fetch_optional(self.pool())
            .await?;
        Ok(match row {
            Some(row) => Some(self.shared.topics.put(topic(&row)?)),
            None => None,
        })
    }

    /// The error that names what was probably meant.
    async fn not_found(&self, name: &str) -> Result<LogError, LogError> {
        let mut near: Vec<(f64, String)> = self
            .topics()
            .await?
            .iter()
            .map(|topic| (strsim::jaro_winkler(name, topic.name.as_str()), topic.name.to_string()))
            .filter(|(alike, _)| *alike >= ALIKE)
            .collect();
        near.sort_by(|a, b| b.0.total_cmp(&a.0));
        near.truncate(3);
        Ok(LogError::TopicNotFound {
            name: name.to_owned(),
            near: near.into_iter().map(|(_, name)| name).collect(),
        })
    }
}

fn topic(row: &PgRow) -> Result<Topic, sqlx::Error> {
    let wrong = |what: &str, is: &str| sqlx::Error::Decode(format!("a topic has {what} {is:?}").into());
    let name: String = row.try_get(1)?;
    let (archive, cold): (bool, Option<i64>) = (row.try_get(5)?, row.try_get(6)?);
    let (format, acks): (String, String) = (row.try_get(7)?, row.try_get(8)?);
    Ok(Topic {
        id: TopicId(row.try_get(0)?),
        name: TopicName::parse(&name).map_err(|_| wrong("name", &name))?,
        partitions: row.try_get::<i32, _>(2)?.cast_unsigned(),
        segment: Duration::from_secs(row.try_get::<i64, _>(3)?.cast_unsigned()),
        hot: row.try_get::<Option<i64>, _>(4)?.map(micros),
        cold: match (archive, cold) {
            (false, _) => Cold::None,
            (true, None) => Cold::Forever,
            (true, Some(cold)) => Cold::For(micros(cold)),
        },
        format: match format.as_str() {
            "json" => Format::Json,
            "bytes" => Format::Bytes,
            other => return Err(wrong("format", other)),
        },
        acks: match acks.as_str() {
            "fsync" => Acks::Fsync,
            "relaxed" => Acks::Relaxed,
            other => return Err(wrong("acks", other)),
        },
        compression: row.try_get(9)?,
        schema: row.try_get(10)?,
        sort: row.try_get::<Option<Vec<String>>, _>(11)?.unwrap_or_default(),
        created_at: row.try_get(12)?,
        hold: hold(row.try_get(13)?, row.try_get(14)?),
    })
}

fn micros(value: i64) -> Duration {
    Duration::from_micros(value.cast_unsigned())
}

/// Names that are none were not written by us and hold nothing.
fn hold(groups: Option<Vec<String>>, max_bytes: Option<i64>) -> Hold {
    let groups = groups.unwrap_or_default().iter().filter_map(|name| GroupName::parse(name).ok()).collect();
    Hold { groups, max_bytes: max_bytes.map_or(Hold::default().max_bytes, i64::cast_unsigned) }
}

fn is_as_specified(topic: &Topic, spec: &TopicPlan) -> bool {
    topic.segment == spec.segment
        && topic.hot == spec.hot
        && topic.cold == spec.cold
        && topic.hold == spec.hold
        && topic.acks == spec.acks
        && topic.schema == spec.schema
        && topic.sort == spec.sort
}

/// Whether segments are archived before they are dropped, and the seconds that the archive keeps them.
fn archive(cold: Cold) -> (bool, Option<f64>) {
    match cold {
        Cold::None => (false, None),
        Cold::Forever => (true, None),
        Cold::For(time) => (true, Some(time.as_secs_f64())),
    }
}

fn format_name(format: Format) -> &'static str {
    match format {
        Format::Json => "json",
        Format::Bytes => "bytes",
    }
}

fn acks_name(acks: Acks) -> &'static str {
    match acks {
        Acks::Fsync => "fsync",
        Acks::Relaxed => "relaxed",
    }
}

#[cfg(test)]
mod tests;
