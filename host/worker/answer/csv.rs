//! Rows as CSV (RFC 4180, lines end in `\n`). NULL is empty, the empty text is `""`, nested values are JSON.

use duckdb::arrow::array::RecordBatch;
use duckdb::arrow::datatypes::SchemaRef;

use tidemill::query::protocol::Failure;

use super::cell::{Cell, blob, cell, decimal};
use super::{json, too_large};

/// The names of the columns.
pub fn header(schema: &SchemaRef, out: &mut Vec<u8>) {
    for (index, field) in schema.fields().iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        text(field.name(), out);
    }
    out.push(b'\n');
}

pub fn row(batch: &RecordBatch, row: usize, limit: u64, out: &mut Vec<u8>) -> Result<(), Failure> {
    for (index, column) in batch.columns().iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        if out.len() as u64 > limit {
            return Err(too_large(limit));
        }
        value(&cell(column.as_ref(), row), limit, out)?;
    }
    out.push(b'\n');
    Ok(())
}

fn value(cell: &Cell<'_>, limit: u64, out: &mut Vec<u8>) -> Result<(), Failure> {
    let size = match cell {
        Cell::Text(text) => text.len(),
        Cell::Bytes(bytes) => bytes.len(),
        _ => 0,
    };
    if size as u64 > limit {
        return Err(too_large(limit));
    }
    match cell {
        Cell::Null => {}
        Cell::Bool(value) => out.extend_from_slice(value.to_string().as_bytes()),
        Cell::Integer(number) => out.extend_from_slice(number.to_string().as_bytes()),
        Cell::Float(number) => out.extend_from_slice(number.to_string().as_bytes()),
        Cell::Decimal { value, scale } => out.extend_from_slice(decimal(*value, *scale).as_bytes()),
        Cell::Text(value) => text(value, out),
        Cell::Bytes(bytes) => text(&blob(bytes), out),
        Cell::List(_) | Cell::Struct(_) | Cell::Map(_, _) => {
            let mut nested = Vec::new();
            json::value(cell, limit, &mut nested)?;
            text(&String::from_utf8_lossy(&nested), out);
        }
    }
    Ok(())
}

fn text(text: &str, out: &mut Vec<u8>) {
    let plain = !text.is_empty() && !text.contains(['"', ',', '\n', '\r']) && text.trim() == text;
    if plain {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    out.push(b'"');
    out.extend_from_slice(text.replace('"', "\"\"").as_bytes());
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_needs_quotes_has_them() {
        let mut out = Vec::new();
        for value in ["plain", "", "a,b", "say \"hi\"", " padded", "two\nlines"] {
            text(value, &mut out);
            out.push(b'|');
        }
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "plain|\"\"|\"a,b\"|\"say \"\"hi\"\"\"|\" padded\"|\"two\nlines\"|"
        );
    }
}
