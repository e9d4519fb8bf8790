//! How the payloads of a file are written: what JSON leaves to whoever writes it.
//!
//! One style serves a whole file and is taken from its first records. A payload in another style is kept as it is.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::layout::{Field, FieldKind};
use super::render::Renderer;
use super::scan::Scanner;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Style {
    /// The fields as they follow each other: places in the layout.
    pub order: Vec<usize>,
    /// A space behind each comma and colon.
    pub spaced: bool,
    /// A whole decimal has a point and a zero: `39.0`.
    pub point: bool,
    /// A field without a value is there as `null`, not left out.
    pub nulls: bool,
    /// Of each field that is a time, in the order of the layout: digits of its seconds where it is text, else none.
    pub time_digits: Vec<Option<u8>>,
}

impl Style {
    /// Compact, in the order of the layout.
    fn plain(fields: &[Field]) -> Self {
        Self {
            order: (0..fields.len()).collect(),
            spaced: false,
            point: true,
            nulls: false,
            time_digits: vec![None; fields.len()],
        }
    }

    /// The style that renders most of the samples exactly.
    pub fn of<'a>(fields: &[Field], samples: impl Iterator<Item = &'a [u8]> + Clone) -> Self {
        let scanner = Scanner::new(fields);
        let mut best = Self::plain(fields);
        best.observe(fields, &scanner, samples.clone());
        let mut most = 0;
        for flags in 0..8_u8 {
            let style =
                Self { spaced: flags & 1 != 0, point: flags & 2 == 0, nulls: flags & 4 != 0, ..best.clone() };
            let renderer = Renderer::new(fields, &style);
            let mut rendered = Vec::new();
            let exact = samples
                .clone()
                .filter(|payload| {
                    rendered.clear();
                    renderer.render(&scanner.scan(payload, &style.order, |_, _| {}), &mut rendered);
                    rendered == *payload
                })
                .count();
            if exact > most {
                (best, most) = (style, exact);
            }
        }
        best
    }

    /// Takes the order of the fields, and the form of times, from where each is seen first.
    fn observe<'a>(&mut self, fields: &[Field], scanner: &Scanner, samples: impl Iterator<Item = &'a [u8]>) {
        let mut longest: Vec<usize> = Vec::new();
        let mut known = HashSet::new();
        for payload in samples {
            let mut order = Vec::new();
            scanner.scan(payload, &[], |field, text| {
                order.push(field);
                if fields[field].kind == FieldKind::Timestamp && text != "null" && known.insert(field) {
                    self.time_digits[field] = digits_of(text);
                }
            });
            if order.len() > longest.len() && order.iter().collect::<HashSet<_>>().len() == order.len() {
                longest = order;
            }
        }
        // Fields that no sample has come where the schema has them: behind the one before them.
        for field in 0..fields.len() {
            if !longest.contains(&field) {
                let before = field.checked_sub(1).and_then(|b| longest.iter().position(|at| *at == b));
                longest.insert(before.map_or(0, |at| at + 1), field);
            }
        }
        self.order = longest;
    }
}

/// Digits after the point of a time that is text; None for a number.
fn digits_of(text: &str) -> Option<u8> {
    let text = text.strip_prefix('"')?;
    let fraction = text.split_once('.').map_or("", |(_, fraction)| fraction);
    u8::try_from(fraction.bytes().take_while(u8::is_ascii_digit).count()).ok().map(|digits| digits.min(9))
}
