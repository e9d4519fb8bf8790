//! What a report says, rounded as ADS-B rounds it, and its one form as JSON.
//!
//! The form is canonical, so that an archive that keeps the values in typed columns can write the payload again byte
//! for byte: the keys stand in a fixed order without spaces, whole numbers have no point, and a decimal has as many
//! digits after the point as it needs and at least one (`39.0`, `39.1`, `39.12345`), which is also how `serde_json`
//! writes the nearest `f64`. There is no negative zero.

use crate::trouble::Squawk;

/// A report takes about 175 bytes and never more than this.
pub const REPORT_BYTES: usize = 224;

/// What stays the same for a whole flight: its part of the report is written once.
pub struct Identity {
    /// The aircraft's address, six hexadecimal digits: the key of the record.
    pub id: String,
    beginning: String,
}

/// An aircraft at a moment. Plain values; [`Identity::write`] rounds them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct State {
    /// Degrees, written to 1e-5.
    pub lat: f64,
    pub lon: f64,
    /// Feet above the sea, written to 25.
    pub altitude_ft: f64,
    /// Degrees clockwise from true north, written to 0.1 and from 0 to below 360.
    pub heading: f64,
    /// Knots over the ground, written to 0.1.
    pub speed_kt: f64,
    /// Feet per minute, written to 64.
    pub vertical_fpm: f64,
    pub squawk: Squawk,
}

impl Identity {
    pub fn new(address: u32, callsign: &str, kind: &str) -> Self {
        let id = format!("{address:06x}");
        let beginning = format!(r#"{{"id":"{id}","callsign":"{callsign}","kind":"{kind}","lat":"#);
        Identity { id, beginning }
    }

    /// Replaces the contents of `line` with the report of this moment (`ts`: milliseconds since the Unix epoch).
    pub fn write(&self, state: &State, ts: i64, line: &mut Vec<u8>) {
        line.clear();
        line.extend_from_slice(self.beginning.as_bytes());
        push_decimal(line, (state.lat * 1e5).round() as i64, 5);
        line.extend_from_slice(br#","lon":"#);
        push_decimal(line, (state.lon * 1e5).round() as i64, 5);
        line.extend_from_slice(br#","altitude":"#);
        push_integer(line, round_to(state.altitude_ft, 25));
        line.extend_from_slice(br#","heading":"#);
        let tenths = (state.heading * 10.0).round() as i64;
        push_decimal(line, tenths.rem_euclid(3_600), 1);
        line.extend_from_slice(br#","speed":"#);
        push_decimal(line, (state.speed_kt * 10.0).round() as i64, 1);
        line.extend_from_slice(br#","vertical_rate":"#);
        push_integer(line, round_to(state.vertical_fpm, 64));
        line.extend_from_slice(br#","squawk":""#);
        line.extend_from_slice(&state.squawk);
        line.extend_from_slice(br#"","ts":"#);
        push_integer(line, ts);
        line.push(b'}');
    }
}

/// The nearest multiple of `step`.
fn round_to(value: f64, step: i64) -> i64 {
    (value / step as f64).round() as i64 * step
}

/// Writes `value / 10^places`: at least one digit after the point, and no zeros at the end beyond that.
fn push_decimal(line: &mut Vec<u8>, value: i64, places: usize) {
    let unit = 10_u64.pow(places as u32);
    let magnitude = value.unsigned_abs();
    if value < 0 {
        line.push(b'-');
    }
    push_digits(line, magnitude / unit, 1);
    line.push(b'.');
    push_digits(line, magnitude % unit, places);
    let mut zeros = places - 1;
    while zeros > 0 && line.last() == Some(&b'0') {
        line.pop();
        zeros -= 1;
    }
}

fn push_integer(line: &mut Vec<u8>, value: i64) {
    if value < 0 {
        line.push(b'-');
    }
    push_digits(line, value.unsigned_abs(), 1);
}

/// Writes at least `width` digits, zeros in front.
fn push_digits(line: &mut Vec<u8>, mut value: u64, width: usize) {
    let mut digits = [b'0'; 20];
    let mut first = digits.len();
    while value > 0 || digits.len() - first < width {
        first -= 1;
        digits[first] = b'0' + (value % 10) as u8;
        value /= 10;
    }
    line.extend_from_slice(&digits[first..]);
}
