//! From an alert to a report.

use std::borrow::Cow;

use airports::{AIRPORTS, Airport, bearing_deg, distance_nm};
use serde::{Deserialize, Serialize};

/// Clockwise from north, each standing for an eighth of the circle around it.
const DIRECTIONS: [&str; 8] =
    ["north", "north-east", "east", "south-east", "south", "south-west", "west", "north-west"];

/// What is taken from an alert.
#[derive(Debug, Deserialize)]
pub struct Alert<'a> {
    /// Of the aircraft.
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    #[serde(borrow)]
    callsign: Cow<'a, str>,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    /// What it is about.
    #[serde(borrow)]
    alert: Cow<'a, str>,
    lat: f64,
    lon: f64,
    /// Milliseconds since 1970.
    ts: i64,
    /// A sentence.
    #[serde(borrow)]
    message: Cow<'a, str>,
}

/// The report.
#[derive(Debug, PartialEq, Serialize)]
pub struct Report<'a> {
    id: &'a str,
    callsign: &'a str,
    kind: &'a str,
    alert: &'a str,
    /// The nearest one, by its ICAO code.
    airport: &'static str,
    distance_nm: f64,
    /// From the airport to the aircraft, in degrees clockwise from north.
    bearing: u32,
    lat: f64,
    lon: f64,
    /// When the alert was raised, in milliseconds since 1970.
    ts: i64,
    report: String,
}

impl<'a> Report<'a> {
    /// # Errors
    /// In words, by the field that no alert has.
    pub fn on(alert: &'a Alert<'_>) -> Result<Self, String> {
        check("lat", alert.lat, 90.0)?;
        check("lon", alert.lon, 180.0)?;
        if alert.id.is_empty() {
            return Err("payload: field `id`: is empty".to_owned());
        }
        let place = (alert.lat, alert.lon);
        let (airport, distance) = nearest(place).ok_or("there are no airports")?;
        let bearing = bearing_deg((airport.lat, airport.lon), place);
        let distance_nm = (distance * 10.0).round() / 10.0;
        Ok(Report {
            id: &alert.id,
            callsign: &alert.callsign,
            kind: &alert.kind,
            alert: &alert.alert,
            airport: airport.code,
            distance_nm,
            bearing: bearing.round() as u32 % 360,
            lat: alert.lat,
            lon: alert.lon,
            ts: alert.ts,
            report: format!(
                "{}, {distance_nm:.1} nm {} of {}",
                alert.message,
                direction(bearing),
                airport.code
            ),
        })
    }
}

fn check(field: &str, degrees: f64, most: f64) -> Result<(), String> {
    if degrees.abs() <= most {
        return Ok(());
    }
    Err(format!("payload: field `{field}`: {degrees} is not from -{most} to {most}"))
}

/// Also how far it is, in nautical miles.
fn nearest(place: (f64, f64)) -> Option<(&'static Airport, f64)> {
    let distances = AIRPORTS.iter().map(|airport| (airport, distance_nm((airport.lat, airport.lon), place)));
    distances.min_by(|(_, a), (_, b)| a.total_cmp(b))
}

fn direction(bearing: f64) -> &'static str {
    let eighth = (bearing / 45.0).round() as usize;
    DIRECTIONS[eighth % DIRECTIONS.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(lat: f64, lon: f64) -> Alert<'static> {
        Alert {
            id: "a00001".into(),
            callsign: "UAL1".into(),
            kind: "airliner".into(),
            alert: "emergency".into(),
            lat,
            lon,
            ts: 1_700_000_000_000,
            message: "UAL1 squawks 7700 (general emergency) at 35,000 ft".into(),
        }
    }

    #[test]
    fn a_report_names_the_nearest_airport_and_the_way_there() {
        // Ten minutes of latitude are ten nautical miles.
        let alert = alert(39.8561 + 1.0 / 6.0, -104.6737);
        let report = Report::on(&alert).unwrap();
        assert_eq!((report.airport, report.distance_nm, report.bearing), ("KDEN", 10.0, 0));
        assert_eq!(
            report.report,
            "UAL1 squawks 7700 (general emergency) at 35,000 ft, 10.0 nm north of KDEN"
        );
    }

    #[test]
    fn directions_are_eighths_of_the_circle() {
        for (bearing, name) in [(0.0, "north"), (22.4, "north"), (22.6, "north-east"), (180.0, "south")] {
            assert_eq!(direction(bearing), name);
        }
        assert_eq!((direction(337.6), direction(359.9)), ("north", "north"));
    }

    #[test]
    fn places_that_are_not_on_the_globe_are_refused() {
        assert!(Report::on(&alert(91.0, 0.0)).is_err_and(|error| error.contains("`lat`")));
        assert!(Report::on(&alert(0.0, f64::NAN)).is_err_and(|error| error.contains("`lon`")));
        let nobody = Alert { id: "".into(), ..alert(40.0, -100.0) };
        assert!(Report::on(&nobody).is_err_and(|error| error.contains("`id`")));
    }
}
