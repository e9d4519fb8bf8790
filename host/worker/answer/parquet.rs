//! The answer as a Parquet file.

use std::collections::HashSet;
use std::sync::Arc;

use duckdb::arrow::array::RecordBatch;
use duckdb::arrow::datatypes::{Field, Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

use tidemill::query::protocol::Failure;

use super::unwritable;
use crate::output::Output;

/// A group is held in memory until it has so many rows, or about so many bytes.
const GROUP_ROWS: usize = 100_000;
const GROUP_BYTES: usize = 8 << 20;

pub struct Parquet<'a> {
    writer: ArrowWriter<&'a mut Output>,
    schema: SchemaRef,
}

impl<'a> Parquet<'a> {
    pub fn new(schema: &SchemaRef, output: &'a mut Output) -> Result<Self, Failure> {
        let schema = distinct(schema);
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(Default::default()))
            .set_max_row_group_row_count(Some(GROUP_ROWS))
            .build();
        let writer = ArrowWriter::try_new(output, schema.clone(), Some(properties)).map_err(unwritable)?;
        Ok(Self { writer, schema })
    }

    /// Takes rows; true when the file has reached `limit` bytes.
    pub fn write(&mut self, batch: &RecordBatch, limit: u64) -> Result<bool, Failure> {
        let batch =
            RecordBatch::try_new(self.schema.clone(), batch.columns().to_vec()).map_err(unwritable)?;
        self.writer.write(&batch).map_err(unwritable)?;
        if self.writer.in_progress_size() > GROUP_BYTES {
            self.writer.flush().map_err(unwritable)?;
        }
        Ok((self.writer.bytes_written() + self.writer.in_progress_size()) as u64 >= limit)
    }

    pub fn finish(self) -> Result<(), Failure> {
        self.writer.close().map(drop).map_err(unwritable)
    }
}

/// A file cannot have two columns of one name; a query can. The second `n` becomes `n_1`.
fn distinct(schema: &SchemaRef) -> SchemaRef {
    let mut taken = HashSet::new();
    let rename = |field: &Arc<Field>| {
        let mut name = field.name().clone();
        let mut count = 0;
        while !taken.insert(name.to_lowercase()) {
            count += 1;
            name = format!("{}_{count}", field.name());
        }
        field.as_ref().clone().with_name(name)
    };
    Arc::new(Schema::new(schema.fields().iter().map(rename).collect::<Vec<_>>()))
}
