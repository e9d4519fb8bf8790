//! Records as columns in memory, on their way into a file. A value that repeats is held once.

use std::collections::HashMap;

use bytes::Bytes;

use super::layout::{Field, FieldKind};
use super::scan::Cell;
use crate::ids::Micros;

/// The columns of a file in the order of the offsets.
#[derive(Debug)]
pub struct Rows {
    pub fields: Vec<Column>,
    pub timestamps: Vec<Micros>,
    pub keys: Words,
    pub headers: Words,
    /// Payloads that the fields do not render.
    pub payloads: Vec<Option<Bytes>>,
}

/// A declared field.
#[derive(Debug)]
pub enum Column {
    Ints(Values<i64>),
    Floats(Values<f64>),
    Bools(Values<bool>),
    Texts(Words),
}

#[derive(Debug, Default)]
pub struct Values<T> {
    /// A default where there is none.
    pub values: Vec<T>,
    pub present: Vec<bool>,
}

/// Byte strings by number.
#[derive(Debug, Default)]
pub struct Words {
    words: Vec<Bytes>,
    numbers: HashMap<Bytes, u32>,
    /// Of each row; [`NO_WORD`] where there is none.
    pub rows: Vec<u32>,
}

pub const NO_WORD: u32 = u32::MAX;

impl Rows {
    pub fn new(fields: &[Field]) -> Self {
        let column = |field: &Field| match field.kind {
            FieldKind::Int | FieldKind::Timestamp | FieldKind::Decimal(_) => Column::Ints(Values::default()),
            FieldKind::Float => Column::Floats(Values::default()),
            FieldKind::Bool => Column::Bools(Values::default()),
            FieldKind::String | FieldKind::Json => Column::Texts(Words::default()),
        };
        Self {
            fields: fields.iter().map(column).collect(),
            timestamps: Vec::new(),
            keys: Words::default(),
            headers: Words::default(),
            payloads: Vec::new(),
        }
    }

    pub fn len(&self) -> usize {
        self.timestamps.len()
    }

    /// The rows in the order of some fields; equal ones stay as they are.
    pub fn sorted_by(&self, sort: &[usize]) -> Vec<u32> {
        let keys: Vec<Vec<u64>> =
            sort.iter().filter_map(|at| self.fields.get(*at)).map(Column::ranks).collect();
        let mut order: Vec<u32> = (0..self.len() as u32).collect();
        if !keys.is_empty() {
            let compare = |a: &u32, b: &u32| {
                let by_key = keys.iter().map(|key| key[*a as usize].cmp(&key[*b as usize]));
                by_key.fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then).then(a.cmp(b))
            };
            order.sort_unstable_by(compare);
        }
        order
    }
}

impl Column {
    pub fn push(&mut self, cell: &Cell<'_>) {
        match (self, cell) {
            (Self::Ints(values), Cell::Int(value)) => values.push(Some(*value)),
            (Self::Floats(values), Cell::Float(value)) => values.push(Some(*value)),
            (Self::Bools(values), Cell::Bool(value)) => values.push(Some(*value)),
            (Self::Texts(words), Cell::Text(text)) => words.push(Some(text.as_bytes())),
            (Self::Ints(values), _) => values.push(None),
            (Self::Floats(values), _) => values.push(None),
            (Self::Bools(values), _) => values.push(None),
            (Self::Texts(words), _) => words.push(None),
        }
    }

    /// A number for each row that compares as its value does; rows without a value come first.
    fn ranks(&self) -> Vec<u64> {
        const SIGN: u64 = 1 << 63;
        match self {
            Self::Ints(values) => values.ranks(|value| value.cast_unsigned() ^ SIGN),
            // The order of f64::total_cmp.
            Self::Floats(values) => values.ranks(|value| match value.to_bits() {
                bits if bits & SIGN != 0 => !bits,
                bits => bits | SIGN,
            }),
            Self::Bools(values) => values.ranks(|value| u64::from(*value) + 1),
            Self::Texts(words) => words.ranks(),
        }
    }
}

impl<T: Copy + Default> Values<T> {
    fn push(&mut self, value: Option<T>) {
        self.values.push(value.unwrap_or_default());
        self.present.push(value.is_some());
    }

    fn ranks(&self, rank: impl Fn(&T) -> u64) -> Vec<u64> {
        self.values
            .iter()
            .zip(&self.present)
            .map(|(value, present)| if *present { rank(value) } else { 0 })
            .collect()
    }
}

impl Words {
    pub fn push(&mut self, word: Option<&[u8]>) {
        let number = match word {
            None => NO_WORD,
            Some(word) => match self.numbers.get(word) {
                Some(number) => *number,
                None => {
                    // A file has fewer rows than numbers.
                    let number = self.words.len() as u32;
                    let word = Bytes::copy_from_slice(word);
                    self.words.push(word.clone());
                    self.numbers.insert(word, number);
                    number
                }
            },
        };
        self.rows.push(number);
    }

    pub fn get(&self, row: u32) -> Option<&Bytes> {
        self.words.get(self.rows[row as usize] as usize)
    }

    fn ranks(&self) -> Vec<u64> {
        let mut sorted: Vec<u32> = (0..self.words.len() as u32).collect();
        sorted.sort_unstable_by(|a, b| self.words[*a as usize].cmp(&self.words[*b as usize]));
        let mut ranks = vec![0; self.words.len()];
        for (rank, word) in sorted.into_iter().enumerate() {
            ranks[word as usize] = rank as u64 + 1;
        }
        self.rows.iter().map(|word| ranks.get(*word as usize).copied().unwrap_or(0)).collect()
    }
}
