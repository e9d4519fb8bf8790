//! SQL over the whole history of topics, in a child process.
//!
//! Statements are taken for hostile, and DuckDB's settings are known not to hold them. So DuckDB runs in a process of its
//! own (`tidemill-query`, see `worker/main.rs`), which has no environment, reads only the files of the job, writes none,
//! and is killed at the deadline ([`child`]). The host never loads DuckDB.
//!
//! Bounds: some queries run and some wait ([`QueryOptions`]); the next is refused. An answer is capped in rows and bytes.
//! Dropping the future of a query kills its process.
//!
//! Reading order: [`protocol`] (what is said), [`child`], [`answer`] (where answers are kept), [`views`] (which files make
//! a topic).

pub mod answer;
mod catalog;
mod child;
pub mod error;
mod hot;
pub mod protocol;
mod views;
mod worker;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use answer::{Answer, Body};
pub use error::QueryError;
pub use protocol::AnswerFormat;

use answer::Sink;
use hot::{HotFiles, HotOptions};
use protocol::{Job, Limits};
use views::Sources;

use crate::archive::objects::Objects;
use crate::replay::Replay;

/// Bounds of queries.
#[derive(Clone, Debug)]
pub struct QueryOptions {
    /// Queries that run at a time.
    pub concurrent: usize,
    /// Queries that wait for their turn; one more is refused.
    pub waiting: usize,
    /// The longest that a query may ask for, and what it gets if it does not ask.
    pub deadline: Duration,
    /// Rows and bytes of an answer in JSON, which is held in memory.
    pub rows: u64,
    pub bytes: u64,
    /// Rows and bytes of a CSV or Parquet file.
    pub file_rows: u64,
    pub file_bytes: u64,
    /// Memory that DuckDB is given; the process is held to four times as much address space, which includes the library
    /// and room that allocators reserve.
    pub memory: u64,
    pub threads: u32,
    /// Bytes of files with records that are not archived yet.
    pub hot_bytes: u64,
}

impl Default for QueryOptions {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            concurrent: 2,
            waiting: 8,
            deadline: Duration::from_secs(30),
            rows: 10_000,
            bytes: 8 << 20,
            file_rows: 10_000_000,
            file_bytes: 1 << 30,
            memory: 512 << 20,
            threads: u32::try_from(cores.min(4)).unwrap_or(1),
            hot_bytes: 2 << 30,
        }
    }
}

/// A question.
#[derive(Clone, Debug, Default)]
pub struct Query {
    pub sql: String,
    pub format: AnswerFormat,
    /// Fewer rows than the options allow.
    pub max_rows: Option<u64>,
    /// A shorter time than the options allow.
    pub timeout: Option<Duration>,
}

/// Runs queries. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Queries {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    sources: Sources,
    options: QueryOptions,
    worker: PathBuf,
    /// For answers that are files.
    cache: PathBuf,
    /// Places for queries that run or wait.
    places: Arc<Semaphore>,
    turns: Arc<Semaphore>,
}

impl Queries {
    /// `cache` is a folder for queries alone.
    pub fn open(replay: Replay, objects: Objects, cache: &Path, options: QueryOptions) -> io::Result<Self> {
        std::fs::create_dir_all(cache)?;
        // DuckDB compares paths.
        let cache = cache.canonicalize()?;
        let sources = Sources {
            log: replay.log().clone(),
            hot: HotFiles::open(replay, HotOptions { folder: cache.join("hot"), bytes: options.hot_bytes })?,
            objects,
        };
        let worker = worker::find()?;
        if !worker.is_file() {
            tracing::warn!(path = %worker.display(), "queries will be refused: their program is missing");
        }
        let shared = Shared {
            sources,
            worker,
            cache,
            places: Arc::new(Semaphore::new(options.concurrent + options.waiting)),
            turns: Arc::new(Semaphore::new(options.concurrent)),
            options,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    pub fn options(&self) -> &QueryOptions {
        &self.shared.options
    }

    /// Runs a query to its end. Dropping the future kills it.
    pub async fn run(&self, query: Query) -> Result<Answer, QueryError> {
        let asked = Instant::now();
        let _turn = self.turn().await?;
        let waited = asked.elapsed();
        let answer = self.answer(&query, asked).await;
        let (sql, elapsed, waited) = (shortened(&query.sql), asked.elapsed(), waited.as_millis());
        metrics::histogram!("tidemill_query_seconds").record(elapsed.as_secs_f64());
        let elapsed = elapsed.as_millis();
        match &answer {
            Ok(answer) => tracing::info!(
                sql,
                elapsed_ms = elapsed,
                waited_ms = waited,
                rows = answer.rows,
                truncated = answer.truncated,
                bytes_read = answer.bytes_read,
                files_read = answer.files_read,
                "query answered"
            ),
            Err(error) => {
                tracing::info!(sql, elapsed_ms = elapsed, waited_ms = waited, %error, "query failed")
            }
        }
        answer
    }

    async fn turn(&self) -> Result<(OwnedSemaphorePermit, OwnedSemaphorePermit), QueryError> {
        let options = &self.shared.options;
        let busy = || QueryError::Busy { running: options.concurrent, waiting: options.waiting };
        let place = self.shared.places.clone().try_acquire_owned().map_err(|_| busy())?;
        let turn = self.shared.turns.clone().acquire_owned().await.map_err(|_| busy())?;
        Ok((place, turn))
    }

    async fn answer(&self, query: &Query, asked: Instant) -> Result<Answer, QueryError> {
        let shared = &self.shared;
        let mut limits = self.limits(query);
        let deadline = Duration::from_millis(limits.deadline_ms);
        let started = Instant::now();
        // What was collected until then is kept, so the same query gets further the next time.
        let gathering = shared.sources.gather(&query.sql);
        let gathered =
            tokio::time::timeout(deadline, gathering).await.map_err(|_| QueryError::Deadline(deadline))??;
        limits.deadline_ms = milliseconds(deadline.saturating_sub(started.elapsed())).max(1);
        let job = Job {
            sql: query.sql.clone(),
            root: shared.sources.objects.root().to_path_buf(),
            views: gathered.views,
            format: query.format,
            limits,
        };
        let mut sink = Sink::new(query.format, &shared.cache)
            .map_err(|error| QueryError::io("its answer cannot be kept", &error))?;
        let ended = child::run(&shared.worker, &job, &mut sink).await;
        drop(gathered.held);
        let ended = ended.map_err(|error| match error {
            QueryError::Deadline(_) => QueryError::Deadline(deadline),
            error => error,
        });
        sink.finish(ended?, asked.elapsed()).await
    }

    fn limits(&self, query: &Query) -> Limits {
        let options = &self.shared.options;
        let (rows, bytes) = match query.format {
            AnswerFormat::Json => (options.rows, options.bytes),
            AnswerFormat::Csv | AnswerFormat::Parquet => (options.file_rows, options.file_bytes),
        };
        let deadline = query.timeout.map_or(options.deadline, |timeout| timeout.min(options.deadline));
        Limits {
            rows: query.max_rows.map_or(rows, |wanted| wanted.min(rows)),
            bytes,
            memory_bytes: options.memory,
            address_space_bytes: options.memory * 4,
            threads: options.threads,
            deadline_ms: milliseconds(deadline),
            cpu_seconds: deadline.as_secs().saturating_add(1) * u64::from(options.threads) + 1,
        }
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// For the log: a statement may be long.
fn shortened(sql: &str) -> String {
    const LONGEST: usize = 500;
    let mut text: String = sql.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((at, _)) = text.char_indices().nth(LONGEST) {
        text.truncate(at);
        text.push('…');
    }
    text
}
