//! The task that archives. Any number of hosts may run it: a segment is claimed under an epoch, which the transaction
//! that makes it `archived` checks, so that a host that was paused changes nothing when it wakes up.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::task::JoinError;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::catalog::{self, CommitError};
use super::parquet::ParquetError;
use super::store::{Bucket, BucketError};
use super::{segment, sweep};
use crate::ids::{HostId, Offset, Partition};
use crate::log::{Log, LogError};
use crate::pg::pool::Pool;

/// The object that says whose bucket it is.
const OWNER: &str = "tidemill.json";

/// After failures the interval doubles so many times, so that a bucket that is away costs little.
const MOST_DOUBLINGS: u32 = 5;

/// When the steps are due.
#[derive(Clone, Debug)]
pub struct ArchiverOptions {
    /// Time between two looks for sealed segments.
    pub interval: Duration,
    /// How long a claim holds without a sign of life.
    pub claim: Duration,
    /// After a failure a segment is left alone for so long.
    pub retry: Duration,
    /// An object that was put and not catalogued is deleted after this; longer than any attempt takes.
    pub orphan_after: Duration,
    /// An object that left the catalog is deleted after this; longer than any reader holds on to what it read there.
    pub gone_after: Duration,
    /// Time between two sweeps.
    pub sweep_every: Duration,
}

impl Default for ArchiverOptions {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(1),
            claim: Duration::from_secs(60),
            retry: Duration::from_secs(10),
            orphan_after: Duration::from_secs(24 * 3600),
            gone_after: Duration::from_secs(3600),
            sweep_every: Duration::from_secs(60),
        }
    }
}

/// What a tick did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Segments that became archived, empty ones included.
    pub segments: u64,
    pub objects: u64,
    pub records: u64,
    /// Of the objects.
    pub bytes: u64,
    /// Objects that left the catalog since their retention is over.
    pub expired: u64,
    /// Loose objects that were deleted.
    pub swept: u64,
    /// Attempts that failed, with their segment; they are made again.
    pub failures: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error(transparent)]
    Bucket(#[from] BucketError),
    #[error(transparent)]
    Parquet(#[from] ParquetError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error("postgres: {0}")]
    Postgres(#[from] sqlx::Error),
    #[error("{}: {source}", .path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "segment {table} has no offset {offset} in partition {partition}, though it was sealed with offsets up to {end}"
    )]
    Hole { table: String, partition: Partition, offset: Offset, end: Offset },
    #[error("object {path} comes back with other bytes than were put; it is deleted and put again")]
    Corrupt { path: String },
    #[error("object {path} does not give back the records it was made from; nothing is dropped")]
    NotTheSame { path: String },
    #[error(
        "the bucket {bucket} belongs to another database (its {OWNER} names {theirs}, this one is {ours}); give this \
         one a bucket or prefix of its own with --bucket"
    )]
    NotOurs { bucket: String, theirs: String, ours: String },
    #[error("a part of the archiver ended: {0}")]
    Task(#[from] JoinError),
}

/// Moves sealed segments into the bucket.
pub struct Archiver {
    pub(super) pool: Pool,
    pub(super) log: Log,
    pub(super) bucket: Bucket,
    pub(super) host: HostId,
    /// For files on their way.
    pub(super) work: PathBuf,
    pub(super) options: ArchiverOptions,
    /// The bucket was found to be ours.
    ours: bool,
    swept: Option<Instant>,
}

impl Archiver {
    /// `work` is a folder of this host's own; what an attempt before left in it is deleted.
    pub fn new(
        log: Log,
        bucket: Bucket,
        host: HostId,
        work: PathBuf,
        options: ArchiverOptions,
    ) -> Result<Self, ArchiveError> {
        let failed = |source| ArchiveError::Io { path: work.clone(), source };
        fs::create_dir_all(&work).map_err(failed)?;
        for entry in fs::read_dir(&work).map_err(failed)? {
            fs::remove_file(entry.map_err(failed)?.path()).map_err(failed)?;
        }
        Ok(Self { pool: log.pool().clone(), log, bucket, host, work, options, ours: false, swept: None })
    }

    /// Ticks until it is told to stop. Failures are logged and tried again.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut last_error = String::new();
        let mut failed = 0;
        loop {
            let error = tokio::select! {
                () = stop.cancelled() => return,
                done = self.tick() => match done {
                    Ok(report) => {
                        report.log();
                        report.failures.join("; ")
                    }
                    Err(error) => error.to_string(),
                },
            };
            if !error.is_empty() && error != last_error {
                tracing::warn!(error, "not archived; trying again, and nothing is dropped before");
            }
            failed = if error.is_empty() { 0 } else { (failed + 1).min(MOST_DOUBLINGS) };
            last_error = error;
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(self.options.interval * (1 << failed)) => {}
            }
        }
    }

    /// Archives every sealed segment that nobody else archives, takes what is too old out of the catalog, and sweeps.
    pub async fn tick(&mut self) -> Result<Report, ArchiveError> {
        let mut report = Report { segments: catalog::archive_empty(&self.pool).await?, ..Report::default() };
        while let Some(claim) = catalog::claim(&self.pool, &self.host, self.options.claim).await? {
            let archived = match self.make_ours().await {
                Ok(()) => segment::archive(self, &claim).await,
                Err(error) => Err(error),
            };
            match archived {
                Ok(done) => report.add(done),
                // The other is at it, and nothing ails the bucket: on to the next one.
                Err(ArchiveError::Commit(CommitError::Fenced)) => {
                    tracing::warn!(
                        table = claim.table,
                        "another host has taken the segment over; nothing was written"
                    );
                }
                Err(error) => {
                    report.failures.push(format!("segment {}: {error}", claim.table));
                    let retry = self.options.retry;
                    catalog::failed(&self.pool, &claim, &error.to_string(), retry).await?;
                    // What ails one may ail all; the next look takes another.
                    break;
                }
            }
        }
        if self.swept.is_none_or(|at| at.elapsed() >= self.options.sweep_every) {
            let expired: i64 =
                sqlx::query_scalar("SELECT tidemill.expire_objects()").fetch_one(&self.pool).await?;
            report.expired = expired.unsigned_abs();
            report.swept = sweep::sweep(self).await?;
            self.swept = Some(Instant::now());
        }
        Ok(report)
    }

    /// Writes into the bucket whose it is, or finds that it is not ours: offsets of two databases must not mix.
    async fn make_ours(&mut self) -> Result<(), ArchiveError> {
        if self.ours {
            return Ok(());
        }
        let ours = catalog::installation(&self.pool).await?;
        let mine = serde_json::json!({ "installation": ours }).to_string();
        let found = match self.bucket.read(OWNER).await? {
            Some(found) => found,
            None => {
                self.bucket.put_new(OWNER, mine.clone().into()).await?;
                self.bucket.read(OWNER).await?.unwrap_or_default()
            }
        };
        if found != mine {
            let theirs = String::from_utf8_lossy(&found).chars().take(100).collect();
            return Err(ArchiveError::NotOurs { bucket: self.bucket.url().to_owned(), theirs, ours });
        }
        self.ours = true;
        Ok(())
    }
}

impl Report {
    fn add(&mut self, other: Self) {
        self.segments += other.segments;
        self.objects += other.objects;
        self.records += other.records;
        self.bytes += other.bytes;
    }

    fn log(&self) {
        metrics::counter!("tidemill_archived_segments_total").increment(self.segments);
        metrics::counter!("tidemill_archived_records_total").increment(self.records);
        metrics::counter!("tidemill_archived_bytes_total").increment(self.bytes);
        metrics::counter!("tidemill_archive_failures_total").increment(self.failures.len() as u64);
        if self.objects + self.swept + self.expired > 0 {
            tracing::debug!(report = ?self, "archive");
        }
    }
}
