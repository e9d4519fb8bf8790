//! Records to and from the arrays of a batch row, in Postgres's binary format and without a copy of each record.
//!
//! Headers are `jsonb[]`: per message NULL or `[["name", "value"], ["name", {"base64": "…"}]]`; base64 stands for what is
//! not UTF-8 or holds a NUL, which jsonb cannot. A column in which no record has anything is NULL.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::{Buf, Bytes};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Serialize, Serializer};
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgRow, PgTypeInfo, PgValueFormat, PgValueRef};
use sqlx::types::Json;
use sqlx::{Decode, Encode, Postgres, Row, Type};

use crate::ids::{LogEpoch, Micros, Offset, Partition};
use crate::record::{Header, NewRecord, Record, StoredBatch};

/// Type numbers, which are the same in every Postgres.
const BYTEA: u32 = 17;
const INT8: u32 = 20;
const JSONB: u32 = 3802;
/// The first byte of a jsonb value.
const JSONB_VERSION: u8 = 1;

/// The records of one batch row, where they are: in the requests they came with.
#[derive(Clone, Copy)]
pub(crate) struct RowRecords<'a>(pub &'a [&'a [NewRecord]]);

impl<'a> RowRecords<'a> {
    pub(crate) fn iter(self) -> impl Iterator<Item = &'a NewRecord> {
        self.0.iter().flat_map(|part| part.iter())
    }

    pub(crate) fn len(self) -> usize {
        self.0.iter().map(|part| part.len()).sum()
    }

    /// Keys, headers and payloads.
    pub(crate) fn bytes(self) -> usize {
        self.iter().map(NewRecord::size).sum()
    }
}

/// `payloads bytea[]`.
pub(crate) struct Payloads<'a>(pub RowRecords<'a>);
/// `keys bytea[]`.
pub(crate) struct Keys<'a>(pub RowRecords<'a>);
/// `headers jsonb[]`.
pub(crate) struct HeaderLists<'a>(pub RowRecords<'a>);
/// `timestamps bigint[]`.
pub(crate) struct Timestamps<'a>(pub RowRecords<'a>);

impl Encode<'_, Postgres> for Payloads<'_> {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        buffer.reserve(self.0.iter().map(|record| record.payload.len() + 4).sum());
        array(buffer, BYTEA, self.0, |buffer, record| {
            buffer.extend_from_slice(&record.payload);
            Ok(IsNull::No)
        })
    }
}

impl Encode<'_, Postgres> for Keys<'_> {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        if self.0.iter().all(|record| record.key.is_none()) {
            return Ok(IsNull::Yes);
        }
        array(buffer, BYTEA, self.0, |buffer, record| match &record.key {
            Some(key) => {
                buffer.extend_from_slice(key);
                Ok(IsNull::No)
            }
            None => Ok(IsNull::Yes),
        })
    }
}

impl Encode<'_, Postgres> for HeaderLists<'_> {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        if self.0.iter().all(|record| record.headers.is_empty()) {
            return Ok(IsNull::Yes);
        }
        array(buffer, JSONB, self.0, |buffer, record| {
            if record.headers.is_empty() {
                return Ok(IsNull::Yes);
            }
            buffer.push(JSONB_VERSION);
            serde_json::to_writer(&mut **buffer, &HeaderList(&record.headers))?;
            Ok(IsNull::No)
        })
    }
}

impl Encode<'_, Postgres> for Timestamps<'_> {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        if self.0.iter().all(|record| record.timestamp.is_none()) {
            return Ok(IsNull::Yes);
        }
        array(buffer, INT8, self.0, |buffer, record| match record.timestamp {
            Some(at) => {
                buffer.extend_from_slice(&at.to_be_bytes());
                Ok(IsNull::No)
            }
            None => Ok(IsNull::Yes),
        })
    }
}

macro_rules! array_type {
    ($type:ident, $element:ty) => {
        impl Type<Postgres> for $type<'_> {
            fn type_info() -> PgTypeInfo {
                <$element as PgHasArrayType>::array_type_info()
            }
        }
    };
}
array_type!(Payloads, &[u8]);
array_type!(Keys, &[u8]);
array_type!(HeaderLists, Json<()>);
array_type!(Timestamps, i64);

/// Writes a one-dimensional array; `element` writes the bytes of one, or nothing and says NULL.
fn array(
    buffer: &mut PgArgumentBuffer,
    element_type: u32,
    records: RowRecords<'_>,
    mut element: impl FnMut(&mut PgArgumentBuffer, &NewRecord) -> Result<IsNull, BoxDynError>,
) -> Result<IsNull, BoxDynError> {
    const DIMENSIONS: i32 = 1;
    const MAY_HAVE_NULLS: i32 = 1;
    const LOWER_BOUND: i32 = 1;
    buffer.extend_from_slice(&DIMENSIONS.to_be_bytes());
    buffer.extend_from_slice(&MAY_HAVE_NULLS.to_be_bytes());
    buffer.extend_from_slice(&element_type.to_be_bytes());
    buffer.extend_from_slice(&i32::try_from(records.len())?.to_be_bytes());
    buffer.extend_from_slice(&LOWER_BOUND.to_be_bytes());
    for record in records.iter() {
        let at = buffer.len();
        buffer.extend_from_slice(&(-1_i32).to_be_bytes());
        if let IsNull::No = element(buffer, record)? {
            let length = i32::try_from(buffer.len() - at - 4)?;
            buffer[at..at + 4].copy_from_slice(&length.to_be_bytes());
        }
    }
    Ok(IsNull::No)
}

/// The elements of a `bytea[]` or `jsonb[]`: slices of one copy of the whole array.
struct Elements(Vec<Option<Bytes>>);

impl Type<Postgres> for Elements {
    fn type_info() -> PgTypeInfo {
        <&[u8] as PgHasArrayType>::array_type_info()
    }

    fn compatible(ty: &PgTypeInfo) -> bool {
        *ty == Self::type_info() || *ty == <Json<()> as PgHasArrayType>::array_type_info()
    }
}

impl<'r> Decode<'r, Postgres> for Elements {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        if value.format() != PgValueFormat::Binary {
            return Err("expected an array in binary format".into());
        }
        let mut rest = Bytes::copy_from_slice(value.as_bytes()?);
        let dimensions = rest.try_get_i32()?;
        if dimensions == 0 {
            return Ok(Self(Vec::new()));
        }
        if dimensions != 1 {
            return Err(format!("expected an array of one dimension, found {dimensions}").into());
        }
        let _has_nulls = rest.try_get_i32()?;
        let _element_type = rest.try_get_u32()?;
        let count = usize::try_from(rest.try_get_i32()?)?;
        let _lower_bound = rest.try_get_i32()?;
        // An element takes four bytes at least, so a wrong count cannot reserve much.
        let mut elements = Vec::with_capacity(count.min(rest.len() / 4));
        for _ in 0..count {
            let element = match rest.try_get_i32()? {
                -1 => None,
                length => {
                    let length = usize::try_from(length)?;
                    if length > rest.len() {
                        return Err("an array ends within an element".into());
                    }
                    Some(rest.split_to(length))
                }
            };
            elements.push(element);
        }
        Ok(Self(elements))
    }
}

/// A row of `fetch_batches`: base_offset, appended_at (microseconds), timestamps, keys, headers, payloads,
/// log_epoch.
pub(crate) fn stored_batch(row: &PgRow, partition: Partition) -> Result<StoredBatch, sqlx::Error> {
    let base_offset = row.try_get::<i64, _>(0)?.cast_unsigned();
    let appended_at: Micros = row.try_get(1)?;
    let timestamps: Option<Vec<Option<i64>>> = row.try_get(2)?;
    let timestamps = timestamps.unwrap_or_default();
    let keys = elements(row.try_get(3)?);
    let headers = elements(row.try_get(4)?);
    let payloads: Elements = row.try_get(5)?;
    let record = |(at, payload): (usize, Option<Bytes>)| Record {
        partition,
        offset: base_offset + at as Offset,
        timestamp: timestamps.get(at).copied().flatten().unwrap_or(appended_at),
        key: keys.get(at).cloned().flatten(),
        headers: headers
            .get(at)
            .and_then(Option::as_ref)
            .map(|json| headers_from_slice(json.get(1..).unwrap_or_default()))
            .unwrap_or_default(),
        payload: payload.unwrap_or_default(),
    };
    Ok(StoredBatch {
        partition,
        base_offset,
        appended_at,
        log_epoch: row.try_get::<Option<i32>, _>(6)?.map(LogEpoch),
        records: payloads.0.into_iter().enumerate().map(record).collect(),
    })
}

fn elements(array: Option<Elements>) -> Vec<Option<Bytes>> {
    array.map(|elements| elements.0).unwrap_or_default()
}

/// Headers as they are stored, for other columns that hold them; None if there are none.
pub fn headers_to_json(headers: &[Header]) -> Option<serde_json::Value> {
    (!headers.is_empty()).then(|| serde_json::json!(HeaderList(headers)))
}

/// Reads what [`headers_to_json`] wrote.
pub fn headers_from_json(json: &serde_json::Value) -> Vec<Header> {
    headers_from_slice(json.to_string().as_bytes())
}

/// The SQL functions let nothing else in; should somebody have written the column directly, then what is there becomes
/// the value of one header, since a message must stay readable.
fn headers_from_slice(json: &[u8]) -> Vec<Header> {
    let read = || -> Option<Vec<Header>> {
        let pairs: Vec<(Text<'_>, Text<'_>)> = serde_json::from_slice(json).ok()?;
        let header = |(name, value): (Text<'_>, Text<'_>)| {
            Some(Header { name: String::from_utf8(name.bytes()?).ok()?, value: value.bytes()?.into() })
        };
        pairs.into_iter().map(header).collect()
    };
    read().unwrap_or_else(|| vec![Header { name: "headers".to_owned(), value: Bytes::copy_from_slice(json) }])
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Text<'a> {
    Plain(#[serde(borrow)] std::borrow::Cow<'a, str>),
    Encoded { base64: String },
}

impl Text<'_> {
    fn bytes(self) -> Option<Vec<u8>> {
        match self {
            Self::Plain(text) => Some(text.into_owned().into_bytes()),
            Self::Encoded { base64 } => BASE64_STANDARD.decode(base64).ok(),
        }
    }
}

struct HeaderList<'a>(&'a [Header]);

impl Serialize for HeaderList<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        for header in self.0 {
            list.serialize_element(&(Part(header.name.as_bytes()), Part(&header.value)))?;
        }
        list.end()
    }
}

/// A name or a value.
struct Part<'a>(&'a [u8]);

impl Serialize for Part<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(self.0) {
            Ok(text) if !self.0.contains(&0) => serializer.serialize_str(text),
            _ => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("base64", &BASE64_STANDARD.encode(self.0))?;
                map.end()
            }
        }
    }
}

#[cfg(test)]
mod tests;
