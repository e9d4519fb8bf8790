//! The reader: records in the order of their offsets, with the payloads that were appended.

use std::fs::File;
use std::ops::Range;
use std::path::Path;

use ::parquet::column::reader::get_typed_column_reader;
use ::parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, Int64Type};
use ::parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use bytes::{Bytes, BytesMut};
use std::borrow::Cow;

use super::ParquetError;
use super::fingerprint::Fingerprint;
use super::footer::{Footer, METADATA_KEY};
use super::layout::FieldKind;
use super::render::Renderer;
use super::scan::Cell;
use crate::ids::Offset;
use crate::log::encode::headers_from_json;
use crate::record::{Record, StoredBatch};

/// What a whole file gave back.
#[derive(Clone, Debug)]
pub struct Check {
    pub footer: Footer,
    pub records: u64,
    pub fingerprint: Fingerprint,
}

/// Payloads are rendered into blocks of this size, which their records share.
const BLOCK: usize = 1 << 20;

/// What a file says of itself; reads only its end.
pub fn footer(path: &Path) -> Result<Footer, ParquetError> {
    Ok(open(path)?.1)
}

/// The records of `range` that the file holds, in batches that have a time of appending each. Blocks, and holds what it
/// gives in memory: the caller bounds the range.
pub fn decode(path: &Path, range: Range<Offset>) -> Result<Vec<StoredBatch>, ParquetError> {
    let (file, footer) = open(path)?;
    let range = range.start.max(footer.first_offset)..range.end.min(footer.next_offset);
    if range.is_empty() {
        return Ok(Vec::new());
    }
    let mut places: Vec<Option<Record>> = vec![None; (range.end - range.start) as usize];
    visit(&file, &footer, &range, |record| {
        let place = (record.offset - range.start) as usize;
        places[place] = Some(record);
    })?;
    let records: Option<Vec<Record>> = places.into_iter().collect();
    let records =
        records.ok_or_else(|| ParquetError::Damaged(format!("offsets of {range:?} are missing")))?;
    batches(&footer, range, records)
}

/// Reads everything, and makes sure that each offset is there once.
pub fn check(path: &Path) -> Result<Check, ParquetError> {
    let (file, footer) = open(path)?;
    let range = footer.first_offset..footer.next_offset;
    let mut met =
        vec![false; usize::try_from(footer.records()).unwrap_or(usize::MAX).min(super::write::MAX_RECORDS)];
    let (mut fingerprint, mut records, mut twice) = (Fingerprint::default(), 0, false);
    visit(&file, &footer, &range, |record| {
        fingerprint.add(&record);
        records += 1;
        let place = met.get_mut((record.offset - range.start) as usize);
        twice |= place.is_none_or(|met| std::mem::replace(met, true));
    })?;
    if twice || records != footer.records() {
        return Err(ParquetError::Damaged(format!("it has {records} rows for offsets {range:?}")));
    }
    Ok(Check { footer, records, fingerprint })
}

fn open(path: &Path) -> Result<(SerializedFileReader<File>, Footer), ParquetError> {
    let file = File::open(path).map_err(|source| ParquetError::Io { path: path.to_path_buf(), source })?;
    let reader = SerializedFileReader::new(file)?;
    let metadata = reader.metadata().file_metadata();
    let ours =
        metadata.key_value_metadata().and_then(|all| all.iter().find(|entry| entry.key == METADATA_KEY));
    let json = ours.and_then(|entry| entry.value.as_deref());
    let footer =
        Footer::from_json(json.ok_or_else(|| ParquetError::Damaged("it is not tidemill's".to_owned()))?)?;
    Ok((reader, footer))
}

/// Splits records that begin with `range.start` at the times of appending.
fn batches(
    footer: &Footer,
    range: Range<Offset>,
    records: Vec<Record>,
) -> Result<Vec<StoredBatch>, ParquetError> {
    let index = footer.time_index()?.entries;
    let first = index.partition_point(|(offset, _)| *offset <= range.start).saturating_sub(1);
    let mut records = records.into_iter();
    let mut batches = Vec::new();
    for (place, (offset, appended_at)) in index.iter().enumerate().skip(first) {
        let base_offset = (*offset).max(range.start);
        let end = index.get(place + 1).map_or(footer.next_offset, |(next, _)| *next).min(range.end);
        if base_offset >= end {
            break;
        }
        let count = (end - base_offset) as usize;
        let records = records.by_ref().take(count).collect();
        batches.push(StoredBatch {
            partition: footer.partition,
            base_offset,
            appended_at: *appended_at,
            log_epoch: None,
            records,
        });
    }
    Ok(batches)
}

/// Gives each record of `range`, in the order of the rows.
fn visit(
    file: &SerializedFileReader<File>,
    footer: &Footer,
    range: &Range<Offset>,
    mut give: impl FnMut(Record),
) -> Result<(), ParquetError> {
    let renderer = Renderer::new(&footer.fields, &footer.style);
    let mut writer = PayloadWriter::default();
    let mut keys = LastKey::default();
    for group in 0..file.num_row_groups() {
        let group = file.get_row_group(group)?;
        let rows = Group::read(group.as_ref(), footer)?;
        let mut cells = vec![Cell::None; footer.fields.len()];
        for row in 0..rows.offsets.len() {
            let offset = rows.offsets[row].cast_unsigned();
            if !range.contains(&offset) {
                continue;
            }
            let payload = match &rows.payloads[row] {
                Some(kept) => Bytes::copy_from_slice(kept.data()),
                None => {
                    for (cell, column) in cells.iter_mut().zip(&rows.fields) {
                        *cell = column.cell(row)?;
                    }
                    writer.write(|out| renderer.render(&cells, out))
                }
            };
            let headers =
                rows.headers[row].as_ref().map(|json| serde_json::from_slice(json.data())).transpose();
            let headers =
                headers.map_err(|error| ParquetError::Damaged(format!("headers of {offset}: {error}")))?;
            give(Record {
                partition: footer.partition,
                offset,
                timestamp: rows.timestamps[row],
                key: keys.share(rows.keys[row].as_ref()),
                headers: headers.as_ref().map(headers_from_json).unwrap_or_default(),
                payload,
            });
        }
    }
    Ok(())
}

/// Hands out slices of shared blocks.
#[derive(Default)]
struct PayloadWriter {
    scratch: Vec<u8>,
    block: BytesMut,
}

impl PayloadWriter {
    fn write(&mut self, render: impl FnOnce(&mut Vec<u8>)) -> Bytes {
        self.scratch.clear();
        render(&mut self.scratch);
        if self.block.capacity() < self.scratch.len() {
            self.block = BytesMut::with_capacity(BLOCK.max(self.scratch.len()));
        }
        self.block.extend_from_slice(&self.scratch);
        self.block.split().freeze()
    }
}

/// Rows of one key mostly stand together, so they share its bytes.
#[derive(Default)]
struct LastKey(Bytes);

impl LastKey {
    fn share(&mut self, key: Option<&ByteArray>) -> Option<Bytes> {
        let key = key?.data();
        if self.0 != key {
            self.0 = Bytes::copy_from_slice(key);
        }
        Some(self.0.clone())
    }
}

/// The rows of one group.
struct Group {
    fields: Vec<FieldColumn>,
    offsets: Vec<i64>,
    timestamps: Vec<i64>,
    keys: Vec<Option<ByteArray>>,
    headers: Vec<Option<ByteArray>>,
    payloads: Vec<Option<ByteArray>>,
}

enum FieldColumn {
    Ints(Vec<Option<i64>>),
    Floats(Vec<Option<f64>>),
    Bools(Vec<Option<bool>>),
    Texts(Vec<Option<ByteArray>>),
}

impl Group {
    fn read(group: &dyn RowGroupReader, footer: &Footer) -> Result<Self, ParquetError> {
        let columns = footer.fields.len();
        let fields = footer.fields.iter().enumerate().map(|(at, field)| {
            Ok(match field.kind {
                FieldKind::Int | FieldKind::Timestamp | FieldKind::Decimal(_) => {
                    FieldColumn::Ints(optional::<Int64Type>(group, at)?)
                }
                FieldKind::Float => FieldColumn::Floats(optional::<DoubleType>(group, at)?),
                FieldKind::Bool => FieldColumn::Bools(optional::<BoolType>(group, at)?),
                FieldKind::String | FieldKind::Json => {
                    FieldColumn::Texts(optional::<ByteArrayType>(group, at)?)
                }
            })
        });
        Ok(Self {
            fields: fields.collect::<Result<_, ParquetError>>()?,
            offsets: values::<Int64Type>(group, columns + 1)?.0,
            timestamps: values::<Int64Type>(group, columns + 2)?.0,
            keys: optional::<ByteArrayType>(group, columns + 3)?,
            headers: optional::<ByteArrayType>(group, columns + 4)?,
            payloads: optional::<ByteArrayType>(group, columns + 5)?,
        })
    }
}

impl FieldColumn {
    fn cell(&self, row: usize) -> Result<Cell<'_>, ParquetError> {
        Ok(match self {
            Self::Ints(values) => values[row].map_or(Cell::None, Cell::Int),
            Self::Floats(values) => values[row].map_or(Cell::None, Cell::Float),
            Self::Bools(values) => values[row].map_or(Cell::None, Cell::Bool),
            Self::Texts(values) => match &values[row] {
                None => Cell::None,
                Some(bytes) => match std::str::from_utf8(bytes.data()) {
                    Ok(text) => Cell::Text(Cow::Borrowed(text)),
                    Err(_) => return Err(ParquetError::Damaged("a text is not UTF-8".to_owned())),
                },
            },
        })
    }
}

/// The values of a column that are there, and for each row whether it has one (empty if all have).
fn values<T: DataType>(
    group: &dyn RowGroupReader,
    column: usize,
) -> Result<(Vec<T::T>, Vec<i16>), ParquetError> {
    let rows = usize::try_from(group.metadata().num_rows()).unwrap_or_default();
    let descriptor = group.metadata().column(column).column_descr_ptr();
    if descriptor.physical_type() != T::get_physical_type() || descriptor.max_rep_level() != 0 {
        return Err(ParquetError::Damaged(format!("column {:?} has another type", descriptor.name())));
    }
    let mut reader = get_typed_column_reader::<T>(group.get_column_reader(column)?);
    let (mut values, mut levels) = (Vec::with_capacity(rows), Vec::new());
    let mut read = 0;
    while read < rows {
        let (records, _, _) = reader.read_records(rows - read, Some(&mut levels), None, &mut values)?;
        if records == 0 {
            return Err(ParquetError::Damaged(format!("column {:?} ends early", descriptor.name())));
        }
        read += records;
    }
    Ok((values, levels))
}

fn optional<T: DataType>(
    group: &dyn RowGroupReader,
    column: usize,
) -> Result<Vec<Option<T::T>>, ParquetError> {
    let (values, levels) = values::<T>(group, column)?;
    let mut values = values.into_iter();
    Ok(levels.into_iter().map(|level| if level == 1 { values.next() } else { None }).collect())
}
