//! The writer. A record goes through scan, render and compare as it is pushed; sorting and compressing come at the end.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::parquet::basic::{Compression, Encoding, ZstdLevel};
use ::parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, Int32Type, Int64Type};
use ::parquet::file::metadata::{KeyValue, SortingColumn};
use ::parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesPtr};
use ::parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use ::parquet::schema::types::ColumnPath;
use bytes::Bytes;

use super::ParquetError;
use super::fingerprint::Fingerprint;
use super::footer::{Footer, METADATA_KEY, TimeIndex};
use super::layout::{FieldKind, Layout};
use super::render::Renderer;
use super::rows::{Column, Rows, Values, Words};
use super::scan::Scanner;
use super::style::Style;
use crate::ids::{Offset, Partition};
use crate::log::encode::headers_to_json;
use crate::record::{Record, StoredBatch};

/// The most records of one file, so that sorting one takes a bounded amount of memory: some 100 bytes a record of the
/// aircraft feed, and what does not fit the schema as it is.
pub const MAX_RECORDS: usize = 1 << 20;
/// Rows of a group: with 20,000, 123,000 and 1,000,000 a row takes 3.28, 3.28 and 3.22 bytes, and small groups are skipped.
const GROUP_ROWS: usize = 131_072;
/// Level 9 saves 2 to 5 % and takes 2 to 8 times the work.
const ZSTD_LEVEL: i32 = 3;
/// Records that decide the style of a file.
const SAMPLES: usize = 64;

/// What was written.
#[derive(Clone, Debug)]
pub struct Encoded {
    pub path: PathBuf,
    pub footer: Footer,
    pub records: u64,
    /// Of the file.
    pub bytes: u64,
    /// Records whose payload had to be kept.
    pub kept_payloads: u64,
    pub fingerprint: Fingerprint,
}

/// Takes the records of one partition in the order of their offsets and writes them as one file. Blocks: sorting and
/// compressing a full one takes a second or two.
pub struct Encoder {
    layout: Layout,
    partition: Partition,
    first_offset: Offset,
    rows: Rows,
    times: TimeIndex,
    fingerprint: Fingerprint,
    /// Decided with the first records.
    style: Option<(Style, Renderer)>,
    scanner: Scanner,
    rendered: Vec<u8>,
}

/// Writes batches that follow each other, all of one partition.
pub fn encode<'a>(
    layout: &Layout,
    batches: impl IntoIterator<Item = &'a StoredBatch>,
    path: &Path,
) -> Result<Option<Encoded>, ParquetError> {
    let mut encoder: Option<Encoder> = None;
    for batch in batches {
        let encoder = encoder.get_or_insert_with(|| Encoder::new(layout, batch.partition, batch.base_offset));
        encoder.push(batch)?;
    }
    encoder.map(|encoder| encoder.finish(path)).transpose()
}

impl Encoder {
    pub fn new(layout: &Layout, partition: Partition, first_offset: Offset) -> Self {
        Self {
            rows: Rows::new(&layout.fields),
            scanner: Scanner::new(&layout.fields),
            layout: layout.clone(),
            partition,
            first_offset,
            times: TimeIndex::default(),
            fingerprint: Fingerprint::default(),
            style: None,
            rendered: Vec::new(),
        }
    }

    pub fn records(&self) -> usize {
        self.rows.len()
    }

    /// The offset that the next batch begins with.
    pub fn next_offset(&self) -> Offset {
        self.first_offset + self.rows.len() as Offset
    }

    pub fn push(&mut self, batch: &StoredBatch) -> Result<(), ParquetError> {
        let after = self.next_offset();
        if batch.base_offset != after || self.rows.len() + batch.records.len() > MAX_RECORDS {
            return Err(ParquetError::OutOfOrder { offset: batch.base_offset, after, max: MAX_RECORDS });
        }
        let fields = &self.layout.fields;
        let (style, renderer) = self.style.get_or_insert_with(|| {
            let samples = batch.records.iter().step_by(batch.records.len().div_ceil(SAMPLES).max(1));
            let style = Style::of(fields, samples.map(|record| record.payload.as_ref()));
            let renderer = Renderer::new(fields, &style);
            (style, renderer)
        });
        self.times.push(batch.base_offset, batch.appended_at);
        for record in batch.records.iter() {
            let cells = self.scanner.scan(&record.payload, &style.order, |_, _| {});
            self.rendered.clear();
            renderer.render(&cells, &mut self.rendered);
            let exact = !fields.is_empty() && self.rendered == record.payload;
            for (column, cell) in self.rows.fields.iter_mut().zip(&cells) {
                column.push(cell);
            }
            self.fingerprint.add(record);
            push_common(&mut self.rows, record, exact);
        }
        Ok(())
    }

    /// Writes the file and syncs it to disk.
    pub fn finish(self, path: &Path) -> Result<Encoded, ParquetError> {
        let io = |source| ParquetError::Io { path: path.to_path_buf(), source };
        let footer = self.footer();
        let sink = BufWriter::with_capacity(1 << 18, File::create(path).map_err(io)?);
        let mut file = SerializedFileWriter::new(sink, self.layout.schema()?, self.properties()?)?;
        let order = self.rows.sorted_by(&self.layout.sort);
        let groups = order.len().div_ceil(GROUP_ROWS).max(1);
        for group in order.chunks(order.len().div_ceil(groups).max(1)) {
            self.write_group(group, file.next_row_group()?)?;
        }
        let json =
            serde_json::to_string(&footer).map_err(|error| ParquetError::Damaged(error.to_string()))?;
        file.append_key_value_metadata(KeyValue::new(METADATA_KEY.to_owned(), json));
        let sink = file.into_inner()?;
        let written = sink.into_inner().map_err(|error| io(error.into_error()))?;
        written.sync_all().map_err(io)?;
        let bytes = written.metadata().map_err(io)?.len();
        Ok(Encoded {
            path: path.to_path_buf(),
            records: footer.records(),
            footer,
            bytes,
            kept_payloads: self.rows.payloads.iter().flatten().count() as u64,
            fingerprint: self.fingerprint,
        })
    }

    fn footer(&self) -> Footer {
        let times = &self.rows.timestamps;
        let range = (times.iter().min().copied().unwrap_or(0), times.iter().max().copied().unwrap_or(0));
        let fields = self.layout.fields.clone();
        let style = match &self.style {
            Some((style, _)) => style.clone(),
            None => Style::of(&fields, std::iter::empty()),
        };
        Footer::new(self.partition, self.first_offset..self.next_offset(), range, fields, style, &self.times)
    }

    fn properties(&self) -> Result<WriterPropertiesPtr, ParquetError> {
        let delta = |name: &str, properties: ::parquet::file::properties::WriterPropertiesBuilder| {
            let path = ColumnPath::new(vec![name.to_owned()]);
            properties
                .set_column_dictionary_enabled(path.clone(), false)
                .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED)
        };
        let sorting =
            |place: &usize| SortingColumn { column_idx: *place as i32, descending: false, nulls_first: true };
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
            .set_statistics_enabled(EnabledStatistics::Page)
            .set_created_by(concat!("tidemill ", env!("CARGO_PKG_VERSION")).to_owned())
            .set_sorting_columns(Some(self.layout.sort.iter().map(sorting).collect()))
            .set_column_dictionary_enabled(ColumnPath::new(vec!["_payload".to_owned()]), false)
            .set_column_statistics_enabled(
                ColumnPath::new(vec!["_payload".to_owned()]),
                EnabledStatistics::None,
            );
        for field in &self.layout.fields {
            if matches!(field.kind, FieldKind::Int | FieldKind::Timestamp | FieldKind::Decimal(_)) {
                properties = delta(&field.column, properties);
            }
        }
        properties = delta("_ts", delta("_offset", properties));
        Ok(Arc::new(properties.build()))
    }

    /// The columns of some rows, in the order of [`Layout::schema`].
    fn write_group(
        &self,
        rows: &[u32],
        mut group: SerializedRowGroupWriter<'_, BufWriter<File>>,
    ) -> Result<(), ParquetError> {
        for column in &self.rows.fields {
            match column {
                Column::Ints(values) => values.write::<Int64Type, _>(rows, &mut group)?,
                Column::Floats(values) => values.write::<DoubleType, _>(rows, &mut group)?,
                Column::Bools(values) => values.write::<BoolType, _>(rows, &mut group)?,
                Column::Texts(words) => words.write(rows, &mut group)?,
            }
        }
        let offset = |row: &u32| (self.first_offset + Offset::from(*row)).cast_signed();
        write_column::<Int32Type, _>(&mut group, &vec![self.partition.cast_signed(); rows.len()], None)?;
        write_column::<Int64Type, _>(&mut group, &rows.iter().map(offset).collect::<Vec<_>>(), None)?;
        let timestamps: Vec<i64> = rows.iter().map(|row| self.rows.timestamps[*row as usize]).collect();
        write_column::<Int64Type, _>(&mut group, &timestamps, None)?;
        self.rows.keys.write(rows, &mut group)?;
        self.rows.headers.write(rows, &mut group)?;
        write_bytes(&mut group, rows.iter().map(|row| self.rows.payloads[*row as usize].as_ref()))?;
        group.close()?;
        Ok(())
    }
}

fn push_common(rows: &mut Rows, record: &Record, exact: bool) {
    rows.timestamps.push(record.timestamp);
    rows.keys.push(record.key.as_deref());
    let headers = headers_to_json(&record.headers).map(|headers| headers.to_string());
    rows.headers.push(headers.as_ref().map(String::as_bytes));
    rows.payloads.push((!exact).then(|| record.payload.clone()));
}

impl<V: Copy> Values<V> {
    fn write<T, W>(
        &self,
        rows: &[u32],
        group: &mut SerializedRowGroupWriter<'_, W>,
    ) -> Result<(), ParquetError>
    where
        T: DataType<T = V>,
        W: std::io::Write + Send,
    {
        let levels: Vec<i16> = rows.iter().map(|row| i16::from(self.present[*row as usize])).collect();
        let present = rows.iter().filter(|row| self.present[**row as usize]);
        let values: Vec<V> = present.map(|row| self.values[*row as usize]).collect();
        write_column::<T, W>(group, &values, Some(&levels))
    }
}

impl Words {
    fn write<W: std::io::Write + Send>(
        &self,
        rows: &[u32],
        group: &mut SerializedRowGroupWriter<'_, W>,
    ) -> Result<(), ParquetError> {
        write_bytes(group, rows.iter().map(|row| self.get(*row)))
    }
}

fn write_bytes<'a, W: std::io::Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    rows: impl Iterator<Item = Option<&'a Bytes>> + Clone,
) -> Result<(), ParquetError> {
    let levels: Vec<i16> = rows.clone().map(|value| i16::from(value.is_some())).collect();
    let values: Vec<ByteArray> = rows.flatten().map(|value| ByteArray::from(value.clone())).collect();
    write_column::<ByteArrayType, W>(group, &values, Some(&levels))
}

/// The next column. `levels` are 1 where a row has a value and 0 where not; a column that is always there has none.
fn write_column<T: DataType, W: std::io::Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    values: &[T::T],
    levels: Option<&[i16]>,
) -> Result<(), ParquetError> {
    let missing = || ParquetError::Damaged("the schema has fewer columns than the rows".to_owned());
    let mut column = group.next_column()?.ok_or_else(missing)?;
    column.typed::<T>().write_batch(values, levels, None)?;
    column.close()?;
    Ok(())
}
