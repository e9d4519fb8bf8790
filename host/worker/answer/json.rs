//! A row as a JSON array.
//!
//! Numbers that a reader with 64-bit floats (any browser) would change are written as text: integers beyond 2^53 - 1,
//! decimals of more than 15 digits, and what is not finite.

use duckdb::arrow::array::{Array, RecordBatch};

use tidemill::query::protocol::Failure;

use super::cell::{Cell, blob, cell, decimal};
use super::too_large;

const MAX_SAFE_INTEGER: u128 = (1 << 53) - 1;
/// The most decimal digits that a 64-bit float always keeps.
const SAFE_DIGITS: usize = 15;

/// Writes a row, with a comma in front unless it is the first.
pub fn row(
    batch: &RecordBatch,
    row: usize,
    first: bool,
    limit: u64,
    out: &mut Vec<u8>,
) -> Result<(), Failure> {
    out.extend_from_slice(if first { b"[" } else { b",[" });
    for (index, column) in batch.columns().iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        value(&cell(column.as_ref(), row), limit, out)?;
    }
    out.push(b']');
    Ok(())
}

/// Writes a value. What is longer than `limit` fails before it is copied.
pub fn value(cell: &Cell<'_>, limit: u64, out: &mut Vec<u8>) -> Result<(), Failure> {
    if out.len() as u64 > limit {
        return Err(too_large(limit));
    }
    match cell {
        Cell::Null => out.extend_from_slice(b"null"),
        Cell::Bool(true) => out.extend_from_slice(b"true"),
        Cell::Bool(false) => out.extend_from_slice(b"false"),
        Cell::Integer(number) if number.unsigned_abs() <= MAX_SAFE_INTEGER => {
            out.extend_from_slice(number.to_string().as_bytes());
        }
        Cell::Integer(number) => string(&number.to_string(), limit, out)?,
        Cell::Float(number) => match serde_json::Number::from_f64(*number) {
            Some(number) => out.extend_from_slice(number.to_string().as_bytes()),
            None => string(&number.to_string(), limit, out)?,
        },
        Cell::Decimal { value, scale } => {
            let text = decimal(*value, *scale);
            match value.unsigned_abs().to_string().len() <= SAFE_DIGITS {
                true => out.extend_from_slice(text.as_bytes()),
                false => string(&text, limit, out)?,
            }
        }
        Cell::Text(text) => string(text, limit, out)?,
        Cell::Bytes(bytes) if bytes.len() as u64 > limit => return Err(too_large(limit)),
        Cell::Bytes(bytes) => string(&blob(bytes), limit, out)?,
        Cell::List(items) => list(items.as_ref(), limit, out)?,
        Cell::Struct(fields) => object(fields.iter().map(|(name, cell)| (*name, cell)), limit, out)?,
        Cell::Map(keys, values) => map(keys.as_ref(), values.as_ref(), limit, out)?,
    }
    Ok(())
}

fn string(text: &str, limit: u64, out: &mut Vec<u8>) -> Result<(), Failure> {
    if text.len() as u64 > limit {
        return Err(too_large(limit));
    }
    serde_json::to_writer(out, text).map_err(super::unwritable)
}

fn list(items: &dyn Array, limit: u64, out: &mut Vec<u8>) -> Result<(), Failure> {
    out.push(b'[');
    for index in 0..items.len() {
        if index > 0 {
            out.push(b',');
        }
        value(&cell(items, index), limit, out)?;
    }
    out.push(b']');
    Ok(())
}

fn object<'a>(
    fields: impl Iterator<Item = (&'a str, &'a Cell<'a>)>,
    limit: u64,
    out: &mut Vec<u8>,
) -> Result<(), Failure> {
    out.push(b'{');
    for (index, (name, cell)) in fields.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        string(name, limit, out)?;
        out.push(b':');
        value(cell, limit, out)?;
    }
    out.push(b'}');
    Ok(())
}

/// Keys may be of any type and the order counts, so it is a list of pairs.
fn map(keys: &dyn Array, values: &dyn Array, limit: u64, out: &mut Vec<u8>) -> Result<(), Failure> {
    out.push(b'[');
    for index in 0..keys.len() {
        out.extend_from_slice(if index > 0 { b",[" } else { b"[" });
        value(&cell(keys, index), limit, out)?;
        out.push(b',');
        value(&cell(values, index), limit, out)?;
        out.push(b']');
    }
    out.push(b']');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(cell: &Cell<'_>) -> String {
        let mut out = Vec::new();
        value(cell, 1 << 20, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_that_a_browser_would_change_are_text() {
        assert_eq!(written(&Cell::Integer(9_007_199_254_740_991)), "9007199254740991");
        assert_eq!(written(&Cell::Integer(-9_007_199_254_740_992)), "\"-9007199254740992\"");
        assert_eq!(written(&Cell::Decimal { value: 4_712_345, scale: 5 }), "47.12345");
        assert_eq!(
            written(&Cell::Decimal { value: 1_234_567_890_123_456, scale: 2 }),
            "\"12345678901234.56\""
        );
        assert_eq!(written(&Cell::Float(f64::INFINITY)), "\"inf\"");
        assert_eq!(written(&Cell::Float(0.1)), "0.1");
    }

    #[test]
    fn a_value_beyond_the_limit_is_not_copied() {
        let mut out = Vec::new();
        assert!(value(&Cell::Text("abcdef".into()), 3, &mut out).is_err());
        assert!(out.is_empty());
    }
}
