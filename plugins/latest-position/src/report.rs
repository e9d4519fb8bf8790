//! One position report: what it must hold, and the row it becomes.

use std::borrow::Cow;

use serde::Deserialize;
use tidemill_plugin::{Message, Refusal, Timestamp, Value};

/// A report as its JSON says it; unknown fields are left alone. Checked by [`Report::parse`].
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Report<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    callsign: Cow<'a, str>,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    /// Degrees, -90 to 90.
    lat: f64,
    /// Degrees, -180 to 180.
    lon: f64,
    /// Feet above the sea.
    altitude: i64,
    /// Degrees clockwise from true north, 0 to 360.
    heading: f64,
    /// Knots over the ground, not negative.
    speed: f64,
    /// Feet per minute, negative when descending.
    vertical_rate: i64,
    #[serde(borrow)]
    squawk: Cow<'a, str>,
    /// Milliseconds since the Unix epoch, UTC.
    ts: i64,
}

impl<'a> Report<'a> {
    /// # Errors
    /// A reject that names the field at fault.
    pub fn parse(message: &'a Message) -> Result<Self, Refusal> {
        let report: Report<'a> = message.json()?;
        report.check().map_err(Refusal::reject)?;
        Ok(report)
    }

    /// The aircraft's address, the key of its row.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// When it was reported. In range: [`Report::parse`] has checked.
    pub fn reported_at(&self) -> Timestamp {
        self.ts * 1_000
    }

    /// The values in the order of the table's columns.
    pub fn row(&self) -> Vec<Value> {
        vec![
            Value::from(self.id.as_ref()),
            Value::from(self.callsign.as_ref()),
            Value::from(self.kind.as_ref()),
            Value::from(self.lat),
            Value::from(self.lon),
            Value::from(self.altitude),
            Value::from(self.heading),
            Value::from(self.speed),
            Value::from(self.vertical_rate),
            Value::from(self.squawk.as_ref()),
            Value::timestamp(self.reported_at()),
        ]
    }

    fn check(&self) -> Result<(), String> {
        if self.id.is_empty() {
            return Err("payload: field `id`: it is empty".to_owned());
        }
        in_range("lat", self.lat, -90.0, 90.0)?;
        in_range("lon", self.lon, -180.0, 180.0)?;
        in_range("heading", self.heading, 0.0, 360.0)?;
        in_range("speed", self.speed, 0.0, f64::MAX)?;
        if self.ts.checked_mul(1_000).is_none() {
            return Err(format!("payload: field `ts`: {} is no time in milliseconds", self.ts));
        }
        Ok(())
    }
}

fn in_range(field: &str, value: f64, low: f64, high: f64) -> Result<(), String> {
    if (low..=high).contains(&value) {
        Ok(())
    } else {
        Err(format!("payload: field `{field}`: {value} is out of range"))
    }
}
