//! How windows lie in the state: `w` is the watermark; `c`, the start and the value are the key of a count. Starts are
//! big-endian with the sign turned round, so that the order of keys is the order of time.

use tidemill_plugin::state::{self, Write};
use tidemill_plugin::{Failure, Timestamp};

/// What all keys of counts begin with.
pub const PREFIX: &[u8] = b"c";
const WATERMARK: &[u8] = b"w";
const SIGN: u64 = 1 << 63;

/// One value in one window.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cell {
    /// Microseconds since the Unix epoch.
    pub start: Timestamp,
    pub value: String,
}

impl Cell {
    pub fn key(&self) -> Vec<u8> {
        let start = self.start.cast_unsigned() ^ SIGN;
        [PREFIX, &start.to_be_bytes(), self.value.as_bytes()].concat()
    }

    /// # Errors
    /// If the key was not made by [`Cell::key`].
    pub fn from_key(key: &[u8]) -> Result<Self, Failure> {
        let cell =
            key.strip_prefix(PREFIX).and_then(|rest| rest.split_first_chunk()).and_then(|(start, value)| {
                let start = (u64::from_be_bytes(*start) ^ SIGN).cast_signed();
                Some(Cell { start, value: String::from_utf8(value.to_vec()).ok()? })
            });
        cell.ok_or_else(foreign)
    }
}

/// # Errors
/// If it is not eight bytes.
pub fn count(value: &[u8]) -> Result<u64, Failure> {
    value.try_into().map(u64::from_be_bytes).map_err(|_| foreign())
}

/// # Errors
/// If the state cannot be read, or is not of this plugin.
pub fn watermark() -> Result<Timestamp, Failure> {
    match state::get(WATERMARK)? {
        Some(value) => Ok(count(&value)?.cast_signed()),
        None => Ok(Timestamp::MIN),
    }
}

pub fn watermark_write(at: Timestamp) -> Write {
    Write::new(WATERMARK, at.to_be_bytes())
}

fn foreign() -> Failure {
    Failure::fatal("the state was not written by this plugin; clear it, or give the stage another group")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_in_the_order_of_time_and_value() {
        let cells = [(-7, "b"), (-7, "c"), (0, ""), (1, "a"), (i64::MAX, "é")]
            .map(|(start, value)| Cell { start, value: value.to_owned() });
        let keys: Vec<_> = cells.iter().map(Cell::key).collect();
        assert!(keys.is_sorted());
        for (cell, key) in cells.iter().zip(&keys) {
            assert_eq!(Cell::from_key(key).as_ref(), Ok(cell));
        }
        assert!(Cell::from_key(b"c123").is_err());
    }
}
