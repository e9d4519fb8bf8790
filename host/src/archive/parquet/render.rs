//! Writes typed values as the JSON object they came from.

use crate::clock;

use super::layout::{Field, FieldKind};
use super::scan::Cell;
use super::style::Style;

/// Renders the payloads of one file.
#[derive(Debug)]
pub struct Renderer {
    /// What stands before the value of each field, in the order of the style: the key, and after the first field the comma.
    parts: Vec<Part>,
    nulls: bool,
    point: bool,
}

#[derive(Debug)]
struct Part {
    field: usize,
    kind: FieldKind,
    time_digits: Option<u8>,
    first: Vec<u8>,
    following: Vec<u8>,
}

impl Renderer {
    pub fn new(fields: &[Field], style: &Style) -> Self {
        let (comma, colon) = if style.spaced { (", ", ": ") } else { (",", ":") };
        let part = |place: &usize| {
            let field = fields.get(*place)?;
            let mut key = Vec::new();
            string(&field.name, &mut key);
            key.extend_from_slice(colon.as_bytes());
            Some(Part {
                field: *place,
                kind: field.kind,
                time_digits: style.time_digits.get(*place).copied().flatten(),
                following: [comma.as_bytes(), &key].concat(),
                first: key,
            })
        };
        Self { parts: style.order.iter().filter_map(part).collect(), nulls: style.nulls, point: style.point }
    }

    /// Adds the payload to `out`. `cells` are in the order of the layout.
    pub fn render(&self, cells: &[Cell<'_>], out: &mut Vec<u8>) {
        out.push(b'{');
        let mut first = true;
        for part in &self.parts {
            let cell = &cells[part.field];
            if *cell == Cell::None && !self.nulls {
                continue;
            }
            out.extend_from_slice(if first { &part.first } else { &part.following });
            first = false;
            self.value(part, cell, out);
        }
        out.push(b'}');
    }

    fn value(&self, part: &Part, cell: &Cell<'_>, out: &mut Vec<u8>) {
        match (cell, part.kind) {
            (Cell::None, _) => out.extend_from_slice(b"null"),
            (Cell::Bool(value), _) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
            (Cell::Float(value), _) => json(value, out),
            (Cell::Text(text), FieldKind::Json) => out.extend_from_slice(text.as_bytes()),
            (Cell::Text(text), _) => string(text, out),
            (Cell::Int(value), FieldKind::Decimal(scale)) => decimal(*value, scale.into(), self.point, out),
            (Cell::Int(value), FieldKind::Timestamp) => match part.time_digits {
                None => integer(*value, out),
                Some(digits) => {
                    out.push(b'"');
                    out.extend_from_slice(clock::rfc3339_with(*value, digits).as_bytes());
                    out.push(b'"');
                }
            },
            (Cell::Int(value), _) => integer(*value, out),
        }
    }
}

fn string(text: &str, out: &mut Vec<u8>) {
    if text.bytes().any(|byte| byte < 0x20 || byte == b'"' || byte == b'\\') {
        return json(text, out);
    }
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

fn json<T: serde::Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
    let start = out.len();
    // Writing to memory, and neither a text nor a number can be refused; should it be, the proof fails and the payload stays.
    if serde_json::to_writer(&mut *out, value).is_err() {
        out.truncate(start);
    }
}

fn integer(value: i64, out: &mut Vec<u8>) {
    if value < 0 {
        out.push(b'-');
    }
    digits(value.unsigned_abs(), 1, out);
}

/// `value / 10^scale` with as many digits after the point as it needs; with `point` at least one.
fn decimal(value: i64, scale: usize, point: bool, out: &mut Vec<u8>) {
    let unit = 10_u64.pow(scale as u32);
    let magnitude = value.unsigned_abs();
    if value < 0 {
        out.push(b'-');
    }
    digits(magnitude / unit, 1, out);
    let start = out.len();
    out.push(b'.');
    digits(magnitude % unit, scale, out);
    while out.last() == Some(&b'0') {
        out.pop();
    }
    if out.len() == start + 1 {
        match point {
            true => out.push(b'0'),
            false => out.truncate(start),
        }
    }
}

/// At least `width` digits, zeros in front; none at all for 0 with a width of 0.
fn digits(mut value: u64, width: usize, out: &mut Vec<u8>) {
    let mut buffer = [b'0'; 20];
    let mut first = buffer.len();
    while value > 0 || buffer.len() - first < width {
        first -= 1;
        buffer[first] = b'0' + (value % 10) as u8;
        value /= 10;
    }
    out.extend_from_slice(&buffer[first..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_have_the_digits_they_need() {
        for (value, scale, with_point, without) in [
            (3_900_000, 5, "39.0", "39"),
            (3_910_000, 5, "39.1", "39.1"),
            (3_912_345, 5, "39.12345", "39.12345"),
            (-1, 5, "-0.00001", "-0.00001"),
            (0, 1, "0.0", "0"),
            (7, 0, "7.0", "7"),
            (-999_999_999_999_999_999, 18, "-0.999999999999999999", "-0.999999999999999999"),
        ] {
            for (point, text) in [(true, with_point), (false, without)] {
                let mut out = Vec::new();
                decimal(value, scale, point, &mut out);
                assert_eq!(String::from_utf8_lossy(&out), text, "{value} with {scale}");
            }
        }
    }

    #[test]
    fn the_smallest_integer_renders() {
        let mut out = Vec::new();
        integer(i64::MIN, &mut out);
        assert_eq!(out, i64::MIN.to_string().as_bytes());
    }
}
