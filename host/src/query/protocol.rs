//! What the host and the child process of a query say to each other.
//!
//! The host writes one [`Job`] to the child's standard input, as JSON behind its length in four bytes (big-endian), and
//! leaves the pipe open: its end tells the child that the host is gone. The child answers on its standard output with
//! frames, each a kind, the length of its body as four bytes and the body: one [`Ready`], one [`Head`], data, and one
//! [`Done`]; or, at any place, one [`Failure`], which is the last. The host believes nothing of it: lengths and sums are
//! bounded on its side too.

use std::io::{self, Write};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::ids::{Offset, Partition};

/// Largest body of a frame.
pub const MAX_FRAME: usize = 1 << 20;

/// One query: what to run, on which files, within which limits.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    pub sql: String,
    /// The bucket's root, which is also the child's working directory: `archive/**/*.parquet` means what it means there.
    pub root: PathBuf,
    pub views: Vec<View>,
    pub format: AnswerFormat,
    pub limits: Limits,
}

/// A topic as a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    pub name: String,
    /// Columns that are there even if no file is, in this order, with their types in DuckDB's words.
    pub columns: Vec<ViewColumn>,
    pub source: Source,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewColumn {
    pub name: String,
    pub kind: String,
}

/// Where a view's rows come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The statement does not name the topic, so its rows were not collected: reading the view is an error.
    Unnamed,
    Files {
        /// Whole objects of the archive.
        archived: Vec<PathBuf>,
        /// Files of records that are not archived; they may hold more than `ranges`.
        hot: Vec<PathBuf>,
        /// Which records of the hot files count.
        ranges: Vec<Range>,
    },
}

/// The records `first..next` of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    pub partition: Partition,
    pub first: Offset,
    pub next: Offset,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AnswerFormat {
    #[default]
    Json,
    Csv,
    Parquet,
}

/// What a query may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Rows of the answer; more are cut off and the answer says so.
    pub rows: u64,
    /// Bytes of data frames in all; rows beyond are cut off.
    pub bytes: u64,
    /// What DuckDB is told to keep to.
    pub memory_bytes: u64,
    /// What the system holds it to: DuckDB's own limit is known to be passed.
    pub address_space_bytes: u64,
    pub threads: u32,
    /// After which DuckDB is asked to stop. The host kills the child one second later.
    pub deadline_ms: u64,
    /// Seconds of processor time, over all threads.
    pub cpu_seconds: u64,
}

/// The kind of a frame, its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    Ready = b'R',
    Head = b'H',
    Data = b'D',
    Done = b'E',
    Failure = b'F',
}

impl FrameKind {
    pub fn from_byte(byte: u8) -> Option<Self> {
        [Self::Ready, Self::Head, Self::Data, Self::Done, Self::Failure]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// Which walls stand before DuckDB runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// Landlock: files are read-only, and only those of the job can be opened.
    pub files: Wall,
    /// Seccomp: no sockets, no programs, no files opened for writing.
    pub calls: Wall,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wall {
    Enforced,
    /// The kernel knows only a part of it.
    Partial,
    /// The kernel does not have it.
    Missing,
}

/// The columns of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    pub columns: Vec<AnswerColumn>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerColumn {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
}

/// How it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    pub rows: u64,
    /// There were more rows than the limits allow.
    pub truncated: bool,
    /// Read from files.
    pub bytes_read: u64,
    pub rows_scanned: u64,
    pub files_read: u64,
}

/// Why there is no answer, or no more of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub kind: FailureKind,
    pub message: String,
    /// Where in the statement, as a byte.
    pub position: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// Not one SELECT.
    Statement,
    /// DuckDB refused the statement or could not finish it; the message is its own.
    Query,
    /// It needs something that queries may not touch.
    Forbidden,
    Deadline,
    Memory,
    /// The child could not do its part.
    Internal,
}

/// Writes one frame.
pub fn write_frame(out: &mut impl Write, kind: FrameKind, body: &[u8]) -> io::Result<()> {
    let length = u32::try_from(body.len()).ok().filter(|_| body.len() <= MAX_FRAME);
    let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a frame is too large"))?;
    out.write_all(&[kind as u8])?;
    out.write_all(&length.to_be_bytes())?;
    out.write_all(body)
}
