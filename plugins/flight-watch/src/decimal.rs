//! Decimals as they are written: rounded, with at least one digit after the point, without an exponent.
//!
//! One form in every language: `floor(x * 10^n + 0.5) / 10^n`, which is also the form of the reports themselves.

use serde::{Serialize, Serializer};

/// A number of moderate size, written to so many `PLACES`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Decimal<const PLACES: u32>(pub f64);

impl<const PLACES: u32> Serialize for Decimal<PLACES> {
    /// `serde_json` writes what is at least 1e-5 without an exponent, and a whole number with `.0`.
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let scale = f64::from(const { 10_u32.pow(PLACES) });
        to.serialize_f64((self.0 * scale + 0.5).floor() / scale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_rounded_up_at_halves_and_never_have_an_exponent_or_a_negative_zero() {
        let written = |number| serde_json::to_string(&Decimal::<5>(number)).unwrap_or_default();
        for (number, expected) in [
            (39.0, "39.0"),
            (39.1, "39.1"),
            (-98.123_456, "-98.12346"),
            (0.015_625, "0.01563"),
            (0.000_012, "0.00001"),
            (-0.000_001, "0.0"),
            (-0.0, "0.0"),
            (-180.0, "-180.0"),
        ] {
            assert_eq!(written(number), expected);
        }
        assert_eq!(serde_json::to_string(&Decimal::<1>(9_999.96)).unwrap_or_default(), "10000.0");
    }
}
