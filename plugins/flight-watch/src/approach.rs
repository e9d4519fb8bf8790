//! Approaches: an aircraft that descends towards a major airport, low and near.

use airports::{AIRPORTS, distance_nm};
use serde::Serialize;

use crate::{config::Config, decimal::Decimal, report::Report};

/// One minute of latitude is one nautical mile.
const NM_PER_DEGREE: f64 = 60.0;

/// What is written for an approach.
#[derive(Debug, PartialEq, Serialize)]
pub struct Approach<'a> {
    id: &'a str,
    callsign: &'a str,
    kind: &'a str,
    airport: &'static str,
    distance_nm: Decimal<1>,
    altitude: i64,
    speed: Decimal<1>,
    vertical_rate: i64,
    lat: Decimal<5>,
    lon: Decimal<5>,
    ts: i64,
}

impl<'a> Approach<'a> {
    /// The approach to the nearest of the airports for which the report is one.
    pub fn of(report: &'a Report<'_>, config: &Config) -> Option<Self> {
        if report.vertical_rate >= 0 {
            return None;
        }
        let here = (report.lat, report.lon);
        // Latitude alone rules out most airports, at the price of a subtraction.
        let band = config.approach_nm / NM_PER_DEGREE * 1.01;
        let (airport, distance) = AIRPORTS
            .iter()
            .filter(|airport| airport.is_major() && (airport.lat - report.lat).abs() <= band)
            .filter(|airport| {
                let height_ft = report.altitude.saturating_sub(airport.elevation_ft as i64);
                height_ft < config.approach_ft
            })
            .map(|airport| (airport, distance_nm((airport.lat, airport.lon), here)))
            .min_by(|(_, one), (_, other)| one.total_cmp(other))?;
        (distance <= config.approach_nm).then(|| Approach {
            id: &report.id,
            callsign: &report.callsign,
            kind: &report.kind,
            airport: airport.code,
            distance_nm: Decimal(distance),
            altitude: report.altitude,
            speed: Decimal(report.speed),
            vertical_rate: report.vertical_rate,
            lat: Decimal(report.lat),
            lon: Decimal(report.lon),
            ts: report.ts,
        })
    }
}
