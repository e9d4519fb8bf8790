//! What the watch needs of a position report.
//!
//! What a report may hold is told so narrowly that every language agrees about it: the same watch stands beside this
//! one in other languages, and `plugins/conformance/flight-watch` holds them all to the same answers.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, de::Error};
use tidemill_plugin::{Message, Refusal};

/// Beyond this a number with 53 bits, all that some languages have, is no longer exact.
const MAX_WHOLE: f64 = 9_007_199_254_740_991.0;

/// A report as its JSON says it; unknown fields are left alone.
#[derive(Debug, Clone, Deserialize)]
pub struct Report<'a> {
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    #[serde(borrow)]
    pub callsign: Cow<'a, str>,
    #[serde(borrow)]
    pub kind: Cow<'a, str>,
    /// Degrees north, -90 to 90.
    #[serde(deserialize_with = "within::<-90, 90, _>")]
    pub lat: f64,
    /// Degrees east, -180 to 180.
    #[serde(deserialize_with = "within::<-180, 180, _>")]
    pub lon: f64,
    /// Feet above the sea.
    #[serde(deserialize_with = "whole")]
    pub altitude: i64,
    /// Knots over the ground, 0 to 10,000.
    #[serde(deserialize_with = "within::<0, 10_000, _>")]
    pub speed: f64,
    /// Feet per minute, negative when descending.
    #[serde(deserialize_with = "whole")]
    pub vertical_rate: i64,
    #[serde(borrow)]
    pub squawk: Cow<'a, str>,
    /// Milliseconds since the Unix epoch, UTC.
    #[serde(deserialize_with = "whole")]
    pub ts: i64,
}

impl<'a> Report<'a> {
    /// # Errors
    /// A reject that names the field at fault.
    pub fn parse(message: &'a Message) -> Result<Self, Refusal> {
        // The parser looks at the bytes of the fields it wants only.
        message.text()?;
        message.json()
    }
}

fn within<'de, const MIN: i32, const MAX: i32, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    let number = f64::deserialize(from)?;
    if (f64::from(MIN)..=f64::from(MAX)).contains(&number) {
        Ok(number)
    } else {
        Err(D::Error::custom(format_args!("{number} is not from {MIN} to {MAX}")))
    }
}

/// A whole number however it is written, `35000` or `3.5e4`: JSON has but one kind of number.
fn whole<'de, D: Deserializer<'de>>(from: D) -> Result<i64, D::Error> {
    let number = f64::deserialize(from)?;
    if number.fract() == 0.0 && number.abs() <= MAX_WHOLE {
        Ok(number as i64)
    } else {
        Err(D::Error::custom(format_args!("{number} is not a whole number of at most 53 bits")))
    }
}
