//! Runs the statement and sends its rows, chunk by chunk, until they end or a cap is reached.

mod cell;
mod csv;
mod json;
mod kind;
mod parquet;

use duckdb::arrow::array::{RecordBatch, StructArray};
use duckdb::arrow::datatypes::SchemaRef;
use duckdb::profiling::ProfilingInfo;
use duckdb::{Connection, Statement};

use tidemill::query::protocol::{
    AnswerColumn, AnswerFormat, Done, Failure, FailureKind, FrameKind, Head, Job, Limits,
};

use crate::output::Output;
use crate::session::failure_of;

/// Runs the job's statement, which was checked, and sends head, data and end.
pub fn give(session: &Connection, job: &Job, output: &mut Output) -> Result<(), Failure> {
    let mut statement = session.prepare(&job.sql).map_err(failure_of)?;
    if statement.parameter_count() > 0 {
        return Err(Failure {
            kind: FailureKind::Statement,
            message: "the statement has parameters, and there is nothing to put in their place".to_string(),
            position: None,
        });
    }
    // The iterator of arrow batches would panic on an error in the middle, so chunks are fetched one by one.
    statement.stream_arrow([]).map(drop).map_err(failure_of)?;
    let schema = statement.schema();
    output.frame(FrameKind::Head, &Head { columns: columns(&statement, &schema) }).map_err(broken)?;
    let mut writer = Writer::new(job, &schema, output)?;
    let mut ended = Ended { rows: 0, truncated: false };
    while let Some(chunk) = statement.step().map_err(failure_of)? {
        if writer.chunk(chunk, &schema, &job.limits, &mut ended)? {
            break;
        }
    }
    writer.finish()?;
    drop(statement);
    let mut done = Done { rows: ended.rows, truncated: ended.truncated, ..Done::default() };
    if let Some(profile) = session.get_profiling_info() {
        count(&profile, &mut done);
    }
    output.frame(FrameKind::Done, &done).map_err(broken)
}

fn columns(statement: &Statement<'_>, schema: &SchemaRef) -> Vec<AnswerColumn> {
    let column = |(index, field): (usize, &std::sync::Arc<duckdb::arrow::datatypes::Field>)| AnswerColumn {
        name: field.name().clone(),
        kind: kind::name(&statement.column_logical_type(index)),
    };
    schema.fields().iter().enumerate().map(column).collect()
}

/// How far the answer has come.
struct Ended {
    rows: u64,
    truncated: bool,
}

/// What turns rows into bytes.
enum Writer<'a> {
    Lines { lines: Lines, sent: u64, output: &'a mut Output },
    Parquet(Box<parquet::Parquet<'a>>),
}

#[derive(Clone, Copy)]
enum Lines {
    Json,
    Csv,
}

impl<'a> Writer<'a> {
    fn new(job: &Job, schema: &SchemaRef, output: &'a mut Output) -> Result<Self, Failure> {
        match job.format {
            AnswerFormat::Json => Ok(Self::Lines { lines: Lines::Json, sent: 0, output }),
            AnswerFormat::Csv => {
                let mut header = Vec::new();
                csv::header(schema, &mut header);
                send(output, &header)?;
                Ok(Self::Lines { lines: Lines::Csv, sent: header.len() as u64, output })
            }
            AnswerFormat::Parquet => Ok(Self::Parquet(Box::new(parquet::Parquet::new(schema, output)?))),
        }
    }

    /// Takes a chunk; true when no more can be taken.
    fn chunk(
        &mut self,
        chunk: StructArray,
        schema: &SchemaRef,
        limits: &Limits,
        ended: &mut Ended,
    ) -> Result<bool, Failure> {
        let batch = RecordBatch::try_new(schema.clone(), chunk.columns().to_vec()).map_err(unwritable)?;
        let room = usize::try_from(limits.rows - ended.rows).unwrap_or(usize::MAX);
        let fits = batch.num_rows().min(room);
        ended.truncated = fits < batch.num_rows();
        let batch = batch.slice(0, fits);
        match self {
            Self::Parquet(parquet) => {
                ended.rows += fits as u64;
                let full = parquet.write(&batch, limits.bytes)?;
                ended.truncated |= full;
            }
            Self::Lines { lines, sent, output } => {
                let mut row = Vec::new();
                for index in 0..fits {
                    row.clear();
                    match lines {
                        Lines::Json => json::row(&batch, index, ended.rows == 0, limits.bytes, &mut row),
                        Lines::Csv => csv::row(&batch, index, limits.bytes, &mut row),
                    }?;
                    if *sent + row.len() as u64 > limits.bytes {
                        if ended.rows == 0 {
                            return Err(too_large(limits.bytes));
                        }
                        ended.truncated = true;
                        break;
                    }
                    *sent += row.len() as u64;
                    ended.rows += 1;
                    send(output, &row)?;
                }
            }
        }
        Ok(ended.truncated)
    }

    fn finish(self) -> Result<(), Failure> {
        match self {
            Self::Lines { .. } => Ok(()),
            Self::Parquet(parquet) => parquet.finish(),
        }
    }
}

fn send(output: &mut Output, bytes: &[u8]) -> Result<(), Failure> {
    use std::io::Write;
    output.write_all(bytes).map_err(broken)
}

/// Sums what the scans of a plan have read. (CUMULATIVE_ROWS_SCANNED is made from estimates: 2,000 rows a file.)
fn count(profile: &ProfilingInfo, done: &mut Done) {
    let number = |name: &str| profile.metrics.get(name).and_then(|value| value.parse::<u64>().ok());
    if let Some(bytes) = number("TOTAL_BYTES_READ") {
        done.bytes_read = done.bytes_read.max(bytes);
    }
    if let Some(files) = profile.metrics.get("EXTRA_INFO").and_then(|info| files_read(info)) {
        done.files_read += files;
        done.rows_scanned += number("OPERATOR_CARDINALITY").unwrap_or(0);
    }
    for child in &profile.children {
        count(child, done);
    }
}

/// From `{..., Total Files Read=12, ...}`.
fn files_read(info: &str) -> Option<u64> {
    let (_, rest) = info.split_once("Total Files Read")?;
    let digits: String =
        rest.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// A value that the limits do not allow to be sent.
fn too_large(limit: u64) -> Failure {
    Failure {
        kind: FailureKind::Query,
        message: format!("one row is larger than the whole answer may be ({limit} bytes); select less of it"),
        position: None,
    }
}

fn unwritable(error: impl std::fmt::Display) -> Failure {
    Failure {
        kind: FailureKind::Query,
        message: format!("the answer cannot be written: {error}; a CAST to VARCHAR may help"),
        position: None,
    }
}

fn broken(error: std::io::Error) -> Failure {
    Failure {
        kind: FailureKind::Internal,
        message: format!("the host does not listen: {error}"),
        position: None,
    }
}
