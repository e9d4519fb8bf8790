//! What the watch needs of a position report.

use std::borrow::Cow;

use serde::Deserialize;

/// A report as its JSON says it; unknown fields are left alone.
#[derive(Debug, Clone, Deserialize)]
pub struct Report<'a> {
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    #[serde(borrow)]
    pub callsign: Cow<'a, str>,
    #[serde(borrow)]
    pub kind: Cow<'a, str>,
    /// Degrees north and east.
    pub lat: f64,
    pub lon: f64,
    /// Feet above the sea.
    pub altitude: i64,
    /// Knots over the ground.
    pub speed: f64,
    /// Feet per minute, negative when descending.
    pub vertical_rate: i64,
    #[serde(borrow)]
    pub squawk: Cow<'a, str>,
    /// Milliseconds since the Unix epoch, UTC.
    pub ts: i64,
}
