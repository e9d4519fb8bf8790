//! What has left Postgres, or is about to: the catalog, the bucket and the log, held against each other.
//!
//! | check | holds when |
//! | --- | --- |
//! | [`unarchived`] | what is out of the log in Postgres is in the catalog, each offset of it |
//! | [`overlapping`] | no offset is in the catalog twice |
//! | [`invalid`] | each row of the catalog has its object, with the size and the hash that it names |
//! | [`orphans`] | each object has a row, and nothing is noted for the sweep |
//! | [`Whole::altered`] | what is read has the very bytes that were sent |

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use sha2::{Digest, Sha256};
use sqlx::Row as _;
use tokio::time::sleep;

use crate::check::Log;
use crate::cluster::host::Host;
use crate::cluster::server::Server;
use crate::history::{Item, Place, Read};
use crate::http;

/// Records of one page.
const PAGE: &str = "5000";
/// A page out of the bucket may wait for other readers' objects to be decoded.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);

/// All of a topic as a reader gets it, from the first offset ever on: out of the bucket, then out of Postgres.
#[derive(Debug, Default)]
pub struct Whole {
    pub log: Log,
    /// Records that are not what was sent, byte by byte.
    pub altered: Vec<String>,
    /// How often the host said that it cannot give it now.
    pub refusals: u64,
}

/// Reads all of a topic from one host.
pub async fn whole(server: &Server, host: &Host, topic: &str) -> Result<Whole> {
    whole_patiently(server, host, topic, Duration::ZERO).await
}

/// The same where the bucket answers badly: a page that is refused is asked for again, for so long.
pub async fn whole_patiently(server: &Server, host: &Host, topic: &str, patience: Duration) -> Result<Whole> {
    let mut whole = Whole::default();
    let mut from = "earliest".to_owned();
    let mut since = Instant::now();
    loop {
        let page = match page(host, topic, &from).await {
            Ok(page) => page,
            Err(error) if since.elapsed() >= patience => return Err(error),
            Err(_) => {
                whole.refusals += 1;
                sleep(POLL).await;
                continue;
            }
        };
        since = Instant::now();
        for record in page["records"].as_array().context("a page has records")? {
            whole.take(record)?;
        }
        let position = |name: &str| page[name].as_str().with_context(|| format!("a page has {name}"));
        from = position("next")?.to_owned();
        if from == position("end")? {
            break;
        }
    }
    whole.log.bounds = bounds(server, topic).await?;
    Ok(whole)
}

impl Whole {
    fn take(&mut self, record: &Value) -> Result<()> {
        let number = |name: &str| record[name].as_u64().with_context(|| format!("a record has {name}"));
        let place = Place { partition: u32::try_from(number("partition")?)?, offset: number("offset")? };
        let text = record["text"].as_str().context("a record has its text")?;
        match Item::parse(text.as_bytes()) {
            Some(item) if item.payload() == text => self.log.reads.push(Read { place, item }),
            _ => self.altered.push(format!("{}:{} holds {text:?}", place.partition, place.offset)),
        }
        Ok(())
    }
}

/// A page with payloads as they were sent.
pub async fn page(host: &Host, topic: &str, from: &str) -> Result<Value> {
    let url = host.url().with_context(|| format!("{} is down", host.name()))?;
    let request = http::client()
        .get(format!("{url}/v1/topics/{topic}/records"))
        .query(&[("from", from), ("max", PAGE), ("payload", "text")])
        .timeout(PATIENCE);
    let answer = request.send().await?;
    let status = answer.status();
    let body: Value = answer.json().await?;
    if !status.is_success() {
        bail!("{topic} from {from}: {status} {body}");
    }
    Ok(body)
}

/// Where each partition ends; all of them begin at 0.
async fn bounds(server: &Server, topic: &str) -> Result<Vec<(u32, u64, u64)>> {
    let mut connection = server.connect().await?;
    let rows: Vec<(i32, i64)> = sqlx::query_as(
        "SELECT c.partition, c.next_offset FROM tidemill.log_counter c JOIN tidemill.topics t USING (topic_id)
          WHERE t.name = $1 ORDER BY 1",
    )
    .bind(topic)
    .fetch_all(&mut connection)
    .await?;
    Ok(rows.into_iter().map(|(partition, end)| (partition.cast_unsigned(), 0, end.cast_unsigned())).collect())
}

/// Segments that are out of the log though the catalog has not all of them. For topics that are archived.
pub async fn unarchived(server: &Server) -> Result<Vec<String>> {
    violations(
        server,
        "SELECT format('%s partition %s: %s of %s records are in the catalog', s.table_name, r.partition,
                       coalesce(o.records, 0), r.next_offset - r.first_offset)
           FROM tidemill.segments s JOIN tidemill.topics t USING (topic_id)
           JOIN tidemill.segment_ranges r USING (segment_id)
           LEFT JOIN LATERAL (SELECT sum(records) AS records FROM tidemill.objects o
                               WHERE o.segment_id = s.segment_id AND o.partition = r.partition) o ON true
          WHERE t.archive AND s.state IN ('archived', 'dropping', 'dropped')
            AND coalesce(o.records, 0) <> r.next_offset - r.first_offset",
    )
    .await
}

/// Offsets that two rows of the catalog have, and rows that name offsets of another segment.
pub async fn overlapping(server: &Server) -> Result<Vec<String>> {
    let mut wrong = violations(
        server,
        "SELECT format('%s and %s', a.path, b.path) FROM tidemill.objects a JOIN tidemill.objects b
            ON a.topic_id = b.topic_id AND a.partition = b.partition AND a.object_id < b.object_id
           AND a.first_offset < b.next_offset AND b.first_offset < a.next_offset",
    )
    .await?;
    wrong.extend(
        violations(
            server,
            "SELECT o.path FROM tidemill.objects o
              WHERE NOT EXISTS (SELECT FROM tidemill.segment_ranges r
                                 WHERE r.segment_id = o.segment_id AND r.partition = o.partition
                                   AND r.first_offset <= o.first_offset AND o.next_offset <= r.next_offset)",
        )
        .await?,
    );
    Ok(wrong)
}

/// Rows of the catalog without a valid object in the bucket, whose objects are files in `bucket`.
pub async fn invalid(server: &Server, bucket: &Path) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for (path, bytes, sha256) in catalog(server).await? {
        match std::fs::read(bucket.join(&path)) {
            Err(error) => wrong.push(format!("{path}: {error}")),
            Ok(found) if found.len() as u64 != bytes => {
                wrong.push(format!("{path} has {} bytes, its row says {bytes}", found.len()));
            }
            Ok(found) if digest(&found) != sha256 => wrong.push(format!("{path} has another hash")),
            Ok(_) => {}
        }
    }
    Ok(wrong)
}

/// Path, size and hash of everything in the catalog.
pub async fn catalog(server: &Server) -> Result<Vec<(String, u64, String)>> {
    let mut connection = server.connect().await?;
    let rows = sqlx::query("SELECT path, bytes, sha256 FROM tidemill.objects ORDER BY object_id")
        .fetch_all(&mut connection)
        .await?;
    rows.iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get::<i64, _>(1)?.cast_unsigned(), row.try_get(2)?)))
        .collect()
}

/// Objects in the bucket that no row names, and notes that the sweep has not dealt with.
pub async fn orphans(server: &Server, bucket: &Path) -> Result<Vec<String>> {
    let known: BTreeSet<String> = catalog(server).await?.into_iter().map(|(path, ..)| path).collect();
    let mut files = Vec::new();
    list(&bucket.join("archive"), &mut files)?;
    let mut orphans = Vec::new();
    for file in files {
        let path = file.strip_prefix(bucket)?.display().to_string();
        if !known.contains(&path) {
            orphans.push(format!("{path} is in no row of the catalog"));
        }
    }
    orphans.extend(
        violations(
            server,
            "SELECT format('%s is still noted (%s)', path, reason) FROM tidemill.loose_objects",
        )
        .await?,
    );
    Ok(orphans)
}

/// Waits for the sweep: until there is no orphan, or for so long. Gives what is left.
pub async fn swept(server: &Server, bucket: &Path, patience: Duration) -> Result<Vec<String>> {
    let since = Instant::now();
    loop {
        let orphans = orphans(server, bucket).await?;
        if orphans.is_empty() || since.elapsed() > patience {
            return Ok(orphans);
        }
        sleep(POLL).await;
    }
}

/// Waits until everything that was appended so far is in the bucket, and out of Postgres too if `dropped`.
pub async fn archived(server: &Server, dropped: bool, patience: Duration) -> Result<()> {
    let since = Instant::now();
    // Of each topic; where a counter was moved ahead of time, that is when the newest records are.
    let until: String = server
        .ask(
            "SELECT coalesce(string_agg(format('(%s, %L)', topic_id, at), ', '), '(0, now())') FROM (
                 SELECT topic_id, greatest(clock_timestamp(), max(last_ts)) AS at FROM tidemill.log_counter
                  WHERE next_offset > 0 GROUP BY topic_id) c",
        )
        .await?;
    let done = if dropped { "'dropped'" } else { "'archived', 'dropping', 'dropped'" };
    let waiting = format!(
        "FROM tidemill.segments s JOIN tidemill.topics t USING (topic_id)
         JOIN (VALUES {until}) u (topic_id, at) USING (topic_id)
        WHERE t.archive AND s.state NOT IN ({done}) AND s.lower <= u.at::timestamptz"
    );
    loop {
        let left: i64 = server.ask(&format!("SELECT count(*) {waiting}")).await?;
        if left == 0 {
            return Ok(());
        }
        if since.elapsed() > patience {
            let why: String = server
                .ask(&format!(
                    "SELECT string_agg(words, ', ') FROM (
                         SELECT format('%s is %s: %s', s.table_name, s.state, s.archive_error) AS words {waiting} LIMIT 10) first"
                ))
                .await?;
            bail!("{left} segments still wait after {} s: {why}", patience.as_secs());
        }
        sleep(POLL).await;
    }
}

/// How many segments that held records are in one of these states.
pub async fn segments(server: &Server, states: &str) -> Result<u64> {
    let sql = format!(
        "SELECT count(*) FROM tidemill.segments s WHERE s.state IN ({states})
            AND EXISTS (SELECT FROM tidemill.segment_ranges r WHERE r.segment_id = s.segment_id)"
    );
    Ok(server.ask::<i64>(&sql).await?.cast_unsigned())
}

/// The first column of each row.
pub async fn violations(server: &Server, sql: &'static str) -> Result<Vec<String>> {
    let mut connection = server.connect().await?;
    Ok(sqlx::query_scalar(sql).fetch_all(&mut connection).await?)
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(|| folder.display().to_string())?,
    };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            list(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
