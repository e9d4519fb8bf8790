//! Reads the declared fields out of a JSON object in one pass, without a tree.
//!
//! It is lenient, since nothing rests on it: the writer renders what was read and compares that with the payload, so a
//! value that was read loosely (`1e3` as a whole number, a decimal with more digits than declared) is there for queries
//! while the payload is kept beside it. Fields that are missing, null or of another type have no value.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use super::layout::{Field, FieldKind};

/// A value of a typed column.
#[derive(Clone, Debug, PartialEq, Default)]
pub enum Cell<'a> {
    #[default]
    None,
    /// Also a decimal, in units of its last digit, and a time, in microseconds.
    Int(i64),
    Float(f64),
    Bool(bool),
    Text(Cow<'a, str>),
}

/// Decimals have 18 digits at most.
const DECIMAL_LIMIT: i64 = 1_000_000_000_000_000_000;

/// Knows the fields of a layout by name.
#[derive(Debug)]
pub struct Scanner {
    fields: Vec<Field>,
    by_name: HashMap<Arc<str>, usize>,
}

impl Scanner {
    pub fn new(fields: &[Field]) -> Self {
        let by_name = fields.iter().enumerate().map(|(at, field)| (field.name.clone(), at)).collect();
        Self { fields: fields.to_vec(), by_name }
    }

    /// The values of the fields, in the order of the layout; none at all if the payload is not an object. `order` is where
    /// each field is expected to stand, and `seen` is told each declared field as it comes, with its text.
    pub fn scan<'a>(
        &self,
        payload: &'a [u8],
        order: &[usize],
        mut seen: impl FnMut(usize, &'a str),
    ) -> Vec<Cell<'a>> {
        let mut cells = vec![Cell::None; self.fields.len()];
        let whole = std::str::from_utf8(payload).ok().and_then(|text| {
            let mut rest = Rest { text, at: 0 };
            self.object(&mut rest, order, &mut cells, &mut seen)
        });
        if whole.is_none() {
            cells.fill(Cell::None);
        }
        cells
    }

    fn object<'a>(
        &self,
        rest: &mut Rest<'a>,
        order: &[usize],
        cells: &mut [Cell<'a>],
        seen: &mut impl FnMut(usize, &'a str),
    ) -> Option<()> {
        rest.take(b'{')?;
        let mut expected = 0;
        if rest.take(b'}').is_none() {
            loop {
                let key = rest.string()?;
                rest.take(b':')?;
                let field = self.field(key, order, &mut expected)?;
                let value = rest.value()?;
                if let Some(field) = field {
                    seen(field, value);
                    cells[field] = cell(self.fields[field].kind, value);
                }
                if rest.take(b',').is_none() {
                    break;
                }
            }
            rest.take(b'}')?;
        }
        rest.skip_space();
        (rest.at == rest.text.len()).then_some(())
    }

    /// The field of a key, Some(None) if it is not declared. Looks first where it is expected.
    fn field(&self, quoted: &str, order: &[usize], expected: &mut usize) -> Option<Option<usize>> {
        let plain = &quoted[1..quoted.len() - 1];
        if let Some(&field) = order.get(*expected)
            && *self.fields[field].name == *plain
        {
            *expected += 1;
            return Some(Some(field));
        }
        let name: Cow<'_, str> = unescape(quoted)?;
        let field = self.by_name.get(&*name).copied();
        if let Some(place) = field.and_then(|field| order.iter().position(|at| *at == field)) {
            *expected = place + 1;
        }
        Some(field)
    }
}

/// What is left of a text.
struct Rest<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Rest<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    /// Takes a sign, with the space around it.
    fn take(&mut self, sign: u8) -> Option<()> {
        self.skip_space();
        if self.peek()? != sign {
            return None;
        }
        self.at += 1;
        self.skip_space();
        Some(())
    }

    /// A string with its quotes.
    fn string(&mut self) -> Option<&'a str> {
        let start = self.at;
        if self.peek()? != b'"' {
            return None;
        }
        self.at += 1;
        loop {
            match self.peek()? {
                b'"' => break,
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
        self.at += 1;
        self.text.get(start..self.at)
    }

    /// The text of any value. Brackets are counted, not matched.
    fn value(&mut self) -> Option<&'a str> {
        let start = self.at;
        match self.peek()? {
            b'"' => return self.string(),
            b'{' | b'[' => {
                let mut depth = 0_usize;
                loop {
                    match self.peek()? {
                        b'"' => {
                            self.string()?;
                            continue;
                        }
                        b'{' | b'[' => depth += 1,
                        b'}' | b']' => depth -= 1,
                        _ => {}
                    }
                    self.at += 1;
                    if depth == 0 {
                        break;
                    }
                }
            }
            _ => {
                while !matches!(self.peek(), None | Some(b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t')) {
                    self.at += 1;
                }
            }
        }
        self.text.get(start..self.at).filter(|value| !value.is_empty())
    }
}

/// The value of a field of that kind; none if the text is something else.
fn cell(kind: FieldKind, text: &str) -> Cell<'_> {
    let cell = match kind {
        FieldKind::String => unescape(text).map(Cell::Text),
        FieldKind::Json => Some(Cell::Text(Cow::Borrowed(text))).filter(|_| text != "null"),
        FieldKind::Int => decimal(text, 0, false).map(Cell::Int),
        FieldKind::Decimal(scale) => decimal(text, scale, true).map(Cell::Int),
        FieldKind::Float => number(text).map(Cell::Float),
        FieldKind::Bool => text.parse().ok().map(Cell::Bool),
        FieldKind::Timestamp => match unescape(text) {
            Some(text) => crate::clock::parse_rfc3339(&text),
            None => decimal(text, 0, false),
        }
        .map(Cell::Int),
    };
    cell.unwrap_or_default()
}

/// A finite number as JSON writes it; Rust also reads `inf`, `nan` and `+1`.
fn number(text: &str) -> Option<f64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    digits
        .starts_with(|c: char| c.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
        .filter(|n: &f64| n.is_finite())
}

/// What a quoted string stands for; None if it is not one.
fn unescape(quoted: &str) -> Option<Cow<'_, str>> {
    let inner = quoted.strip_prefix('"')?.strip_suffix('"')?;
    match inner.bytes().any(|byte| byte == b'\\') {
        false => Some(Cow::Borrowed(inner)),
        true => serde_json::from_str(quoted).ok().map(Cow::Owned),
    }
}

/// A number in units of 10^-`scale`, rounded where it has more digits. Whole numbers take all of 64 bits unless `limited`.
fn decimal(text: &str, scale: u8, limited: bool) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    if digits.bytes().any(|byte| matches!(byte, b'e' | b'E')) {
        let value = (number(text)? * 10_f64.powi(scale.into())).round();
        return (value.abs() < DECIMAL_LIMIT as f64).then_some(value as i64);
    }
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    if whole.is_empty() || fraction.is_empty() {
        return None;
    }
    // Negative all along, since there is one more of these.
    let mut value: i64 = 0;
    let mut push = |byte: u8| -> Option<()> {
        let digit = byte.is_ascii_digit().then(|| i64::from(byte - b'0'))?;
        value = value.checked_mul(10)?.checked_sub(digit)?;
        Some(())
    };
    for byte in whole.bytes() {
        push(byte)?;
    }
    let kept = fraction.len().min(scale.into());
    for byte in
        fraction.as_bytes()[..kept].iter().chain(std::iter::repeat_n(&b'0', usize::from(scale) - kept))
    {
        push(*byte)?;
    }
    let dropped = &fraction.as_bytes()[kept..];
    if !dropped.iter().all(u8::is_ascii_digit) {
        return None;
    }
    if dropped.first().is_some_and(|digit| *digit >= b'5') {
        value = value.checked_sub(1)?;
    }
    let value = if negative { value } else { value.checked_neg()? };
    (!limited || value.abs() < DECIMAL_LIMIT).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(fields: &[(&str, FieldKind)], payload: &str) -> Vec<Cell<'static>> {
        let fields: Vec<Field> = fields
            .iter()
            .map(|(name, kind)| Field { name: (*name).into(), column: (*name).into(), kind: *kind })
            .collect();
        let order: Vec<usize> = (0..fields.len()).collect();
        let cells = Scanner::new(&fields).scan(payload.as_bytes(), &order, |_, _| {});
        let owned = |cell: Cell<'_>| match cell {
            Cell::Text(text) => Cell::Text(Cow::Owned(text.into_owned())),
            Cell::Int(v) => Cell::Int(v),
            Cell::Float(v) => Cell::Float(v),
            Cell::Bool(v) => Cell::Bool(v),
            Cell::None => Cell::None,
        };
        cells.into_iter().map(owned).collect()
    }

    #[test]
    fn fields_are_found_in_any_order_and_between_others() {
        let fields = [("id", FieldKind::String), ("lat", FieldKind::Decimal(5)), ("ok", FieldKind::Bool)];
        let cells = scan(&fields, r#" { "x":{"id":[1,"}"]}, "ok" : true,"lat":-39.5 , "i\u0064":"a\"b" } "#);
        assert_eq!(cells, [Cell::Text("a\"b".into()), Cell::Int(-3_950_000), Cell::Bool(true)]);
    }

    #[test]
    fn what_is_not_one_whole_object_has_no_values() {
        let fields = [("id", FieldKind::String)];
        for bad in [
            "",
            "{",
            "[]",
            "{\"id\":\"a\"",
            "{\"id\":\"a\"}x",
            "{\"id\":\"a\",}",
            "{\"id\" \"a\"}",
            "{\"id\":}",
            "{\"id\":\"a\\",
            "null",
        ] {
            assert_eq!(scan(&fields, bad), [Cell::None], "{bad}");
        }
        assert_eq!(scan(&fields, "{}"), [Cell::None]);
    }

    #[test]
    fn decimals_are_scaled_and_rounded() {
        for (text, scale, is) in [
            ("39.12345", 5, Some(3_912_345)),
            ("39", 5, Some(3_900_000)),
            ("-0.00001", 5, Some(-1)),
            ("0.125", 2, Some(13)),
            ("-0.125", 2, Some(-13)),
            ("1.25e1", 1, Some(125)),
            ("9223372036854775807", 0, None),
            ("1000000000000000000", 0, None),
            ("999999999999999999", 0, Some(999_999_999_999_999_999)),
            ("1.", 1, None),
            (".1", 1, None),
            ("1.2x", 1, None),
            ("-", 1, None),
            ("\"1\"", 1, None),
        ] {
            assert_eq!(decimal(text, scale, true), is, "{text} with {scale}");
        }
        assert_eq!(decimal("-9223372036854775808", 0, false), Some(i64::MIN));
        assert_eq!(decimal("9223372036854775808", 0, false), None);
    }

    #[test]
    fn values_of_another_type_are_none() {
        let kinds = [
            (FieldKind::Int, "\"1\""),
            (FieldKind::String, "1"),
            (FieldKind::Bool, "1"),
            (FieldKind::Float, "nan"),
            (FieldKind::Timestamp, "\"soon\""),
            (FieldKind::Json, "null"),
        ];
        for (kind, text) in kinds {
            assert_eq!(cell(kind, text), Cell::None, "{text}");
        }
        assert_eq!(cell(FieldKind::Timestamp, "\"1970-01-01T00:00:01Z\""), Cell::Int(1_000_000));
        assert_eq!(cell(FieldKind::Float, "-1.5e3"), Cell::Float(-1500.0));
    }
}
