//! One value of an answer, out of Arrow's arrays.

use std::borrow::Cow;

use duckdb::arrow::array::{Array, ArrayRef, AsArray};
use duckdb::arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use duckdb::arrow::util::display::{ArrayFormatter, FormatOptions};
use jiff::civil::Date;
use jiff::{Timestamp, ToSpan};

/// What both JSON and CSV know how to write.
pub enum Cell<'a> {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    /// `value` times ten to the power of `-scale`.
    Decimal {
        value: i128,
        scale: u32,
    },
    Text(Cow<'a, str>),
    Bytes(&'a [u8]),
    List(ArrayRef),
    Struct(Vec<(&'a str, Cell<'a>)>),
    /// Keys and values.
    Map(ArrayRef, ArrayRef),
}

/// The value of a row.
pub fn cell(array: &dyn Array, row: usize) -> Cell<'_> {
    if array.is_null(row) {
        return Cell::Null;
    }
    match array.data_type() {
        DataType::Null => Cell::Null,
        DataType::Boolean => Cell::Bool(array.as_boolean().value(row)),
        DataType::Int8 => Cell::Integer(array.as_primitive::<Int8Type>().value(row).into()),
        DataType::Int16 => Cell::Integer(array.as_primitive::<Int16Type>().value(row).into()),
        DataType::Int32 => Cell::Integer(array.as_primitive::<Int32Type>().value(row).into()),
        DataType::Int64 => Cell::Integer(array.as_primitive::<Int64Type>().value(row).into()),
        DataType::UInt8 => Cell::Integer(array.as_primitive::<UInt8Type>().value(row).into()),
        DataType::UInt16 => Cell::Integer(array.as_primitive::<UInt16Type>().value(row).into()),
        DataType::UInt32 => Cell::Integer(array.as_primitive::<UInt32Type>().value(row).into()),
        DataType::UInt64 => Cell::Integer(array.as_primitive::<UInt64Type>().value(row).into()),
        DataType::Float32 => Cell::Float(array.as_primitive::<Float32Type>().value(row).into()),
        DataType::Float64 => Cell::Float(array.as_primitive::<Float64Type>().value(row)),
        DataType::Decimal128(_, scale) => {
            let value = array.as_primitive::<Decimal128Type>().value(row);
            Cell::Decimal { value, scale: u32::try_from(*scale).unwrap_or(0) }
        }
        DataType::Utf8 => Cell::Text(array.as_string::<i32>().value(row).into()),
        DataType::LargeUtf8 => Cell::Text(array.as_string::<i64>().value(row).into()),
        DataType::Binary => Cell::Bytes(array.as_binary::<i32>().value(row)),
        DataType::LargeBinary => Cell::Bytes(array.as_binary::<i64>().value(row)),
        DataType::Date32 => date(array.as_primitive::<Date32Type>().value(row)),
        DataType::Timestamp(unit, zone) => timestamp(array, row, *unit, zone.is_some()),
        DataType::List(_) => Cell::List(array.as_list::<i32>().value(row)),
        DataType::LargeList(_) => Cell::List(array.as_list::<i64>().value(row)),
        DataType::FixedSizeList(_, _) => Cell::List(array.as_fixed_size_list().value(row)),
        DataType::Map(_, _) => {
            let entries = array.as_map().value(row);
            Cell::Map(entries.column(0).clone(), entries.column(1).clone())
        }
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns();
            let members = fields.iter().zip(columns);
            Cell::Struct(
                members.map(|(field, column)| (field.name().as_str(), cell(column.as_ref(), row))).collect(),
            )
        }
        _ => other(array, row),
    }
}

/// Times of day, intervals, enumerations, unions: as Arrow shows them.
fn other(array: &dyn Array, row: usize) -> Cell<'_> {
    let options = FormatOptions::default();
    let shown =
        ArrayFormatter::try_new(array, &options).and_then(|formatter| formatter.value(row).try_to_string());
    match shown {
        Ok(text) => Cell::Text(text.into()),
        Err(error) => Cell::Text(format!("({error})").into()),
    }
}

fn date(days: i32) -> Cell<'static> {
    let epoch = Date::constant(1970, 1, 1);
    let text = match epoch.checked_add(i64::from(days).days()) {
        Ok(date) => date.to_string(),
        Err(_) => far(i64::from(days) >= 0),
    };
    Cell::Text(text.into())
}

/// RFC 3339 in UTC with microseconds or what the type has; without `Z` where the type has no time zone.
fn timestamp(array: &dyn Array, row: usize, unit: TimeUnit, zoned: bool) -> Cell<'_> {
    let (value, made, digits) = match unit {
        TimeUnit::Second => {
            let value = array.as_primitive::<TimestampSecondType>().value(row);
            (value, Timestamp::from_second(value), 0)
        }
        TimeUnit::Millisecond => {
            let value = array.as_primitive::<TimestampMillisecondType>().value(row);
            (value, Timestamp::from_millisecond(value), 3)
        }
        TimeUnit::Microsecond => {
            let value = array.as_primitive::<TimestampMicrosecondType>().value(row);
            (value, Timestamp::from_microsecond(value), 6)
        }
        TimeUnit::Nanosecond => {
            let value = array.as_primitive::<TimestampNanosecondType>().value(row);
            (value, Timestamp::from_nanosecond(value.into()), 9)
        }
    };
    let text = match made {
        Ok(time) => {
            let text = format!("{time:.digits$}");
            if zoned { text } else { text.trim_end_matches('Z').to_string() }
        }
        Err(_) => far(value >= 0),
    };
    Cell::Text(text.into())
}

/// Beyond the years that can be written: DuckDB's infinities are there too.
fn far(future: bool) -> String {
    if future { "infinity" } else { "-infinity" }.to_string()
}

/// Exact digits: `-12.50` from -1250 and 2.
pub fn decimal(value: i128, scale: u32) -> String {
    let scale = scale as usize;
    let digits = format!("{:0>width$}", value.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let sign = if value < 0 { "-" } else { "" };
    let point = if scale == 0 { "" } else { "." };
    format!("{sign}{whole}{point}{fraction}")
}

/// As DuckDB casts a BLOB to text: printable ASCII as it is, `\xNN` for the rest.
pub fn blob(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'\\' | b'\'' | b'"' | 0..=0x1f | 0x7f.. => text += &format!("\\x{byte:02X}"),
            printable => text.push(char::from(*printable)),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_keep_every_digit() {
        assert_eq!(decimal(-1250, 2), "-12.50");
        assert_eq!(decimal(5, 3), "0.005");
        assert_eq!(decimal(0, 2), "0.00");
        assert_eq!(decimal(i128::MAX, 0), i128::MAX.to_string());
    }

    #[test]
    fn bytes_look_as_duckdb_shows_them() {
        assert_eq!(blob(b"a'\\\x00\xff"), "a\\x27\\x5C\\x00\\xFF");
    }
}
