//! Where an answer is kept until it is whole: rows in memory, a file on disk. Only a whole answer is given away, so that
//! a slow reader does not hold a query and an error never comes in the middle.

use std::io::{self, Seek};
use std::path::Path;
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::fs::File;
use tokio::io::AsyncWriteExt;

use super::child::Ended;
use super::error::QueryError;
use super::protocol::{AnswerColumn, AnswerFormat};

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub columns: Vec<AnswerColumn>,
    pub rows: u64,
    /// There were more rows than the limits allow.
    pub truncated: bool,
    pub elapsed: Duration,
    /// What the query read from files.
    pub bytes_read: u64,
    pub rows_read: u64,
    pub files_read: u64,
    pub body: Body,
}

#[derive(Debug)]
pub enum Body {
    /// A JSON array of rows, each an array of values.
    Rows(Box<RawValue>),
    /// A CSV or Parquet file that has no name any more, at its start, and its size.
    File(std::fs::File, u64),
}

/// Takes the data of an answer.
#[derive(Debug)]
pub enum Sink {
    Memory(Vec<u8>),
    Disk(File),
}

impl Sink {
    /// Files go to `folder`, without a name: they are gone when nobody has them open.
    pub fn new(format: AnswerFormat, folder: &Path) -> io::Result<Self> {
        match format {
            AnswerFormat::Json => Ok(Self::Memory(b"[".to_vec())),
            AnswerFormat::Csv | AnswerFormat::Parquet => Ok(Self::Disk(File::from_std(nameless(folder)?))),
        }
    }

    pub async fn write(&mut self, data: &[u8]) -> io::Result<()> {
        match self {
            Self::Memory(text) => text.extend_from_slice(data),
            Self::Disk(file) => file.write_all(data).await?,
        }
        Ok(())
    }

    pub async fn finish(self, ended: Ended, elapsed: Duration) -> Result<Answer, QueryError> {
        let body = match self {
            Self::Memory(mut text) => {
                text.push(b']');
                // The child is not believed to write JSON.
                let rows = String::from_utf8(text).ok().and_then(|text| RawValue::from_string(text).ok());
                Body::Rows(
                    rows.ok_or_else(|| QueryError::Process("it sent rows that are not JSON".to_string()))?,
                )
            }
            Self::Disk(file) => {
                rewound(file).await.map_err(|error| QueryError::io("its answer cannot be kept", &error))?
            }
        };
        Ok(Answer {
            columns: ended.head.columns,
            rows: ended.done.rows,
            truncated: ended.done.truncated,
            elapsed,
            bytes_read: ended.done.bytes_read,
            rows_read: ended.done.rows_scanned,
            files_read: ended.done.files_read,
            body,
        })
    }
}

async fn rewound(mut file: File) -> io::Result<Body> {
    file.flush().await?;
    let mut file = file.into_std().await;
    let size = file.metadata()?.len();
    file.rewind()?;
    Ok(Body::File(file, size))
}

/// A new file that was removed from its folder at once.
fn nameless(folder: &Path) -> io::Result<std::fs::File> {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = folder.join(format!("answer-{}-{number}", std::process::id()));
    let file = std::fs::File::options().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}
