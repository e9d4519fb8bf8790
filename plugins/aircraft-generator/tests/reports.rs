//! The form of a report: its keys, its rounding, and that it can be written again from typed values.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use aircraft_generator::report::{Identity, REPORT_BYTES, State};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

/// A report as an archive with typed columns would keep it.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Typed {
    id: String,
    callsign: String,
    kind: String,
    lat: f64,
    lon: f64,
    altitude: i64,
    heading: f64,
    speed: f64,
    vertical_rate: i64,
    squawk: String,
    ts: i64,
}

fn write(state: &State) -> String {
    let mut line = b"what was there before".to_vec();
    let identity = Identity::new(0xa3_f2c1, "UAL1234", "airliner");
    identity.write(state, 1_732_264_000_123, &mut line);
    String::from_utf8(line).unwrap()
}

const CRUISING: State = State {
    lat: 39.123_454,
    lon: -98.123_446,
    altitude_ft: 35_009.0,
    heading: 271.34,
    speed_kt: 451.16,
    vertical_fpm: -70.0,
    squawk: *b"1200",
};

#[test]
fn a_report_is_rounded_as_ads_b_does() {
    assert_eq!(
        write(&CRUISING),
        concat!(
            r#"{"id":"a3f2c1","callsign":"UAL1234","kind":"airliner","lat":39.12345,"lon":-98.12345,"#,
            r#""altitude":35000,"heading":271.3,"speed":451.2,"vertical_rate":-64,"squawk":"1200","#,
            r#""ts":1732264000123}"#
        )
    );
}

#[test]
fn decimals_have_one_digit_at_least_and_no_zeros_beyond() {
    let state = State {
        lat: 39.0,
        lon: -98.100_004,
        heading: -0.01,
        speed_kt: 0.04,
        vertical_fpm: -31.0,
        altitude_ft: -13.0,
        ..CRUISING
    };
    let report = write(&state);
    for part in [
        r#""lat":39.0,"#,
        r#""lon":-98.1,"#,
        r#""heading":0.0,"#,
        r#""speed":0.0,"#,
        r#""vertical_rate":0,"#,
        r#""altitude":-25,"#,
    ] {
        assert!(report.contains(part), "{part} is not in {report}");
    }
}

#[test]
fn headings_are_from_0_to_below_360() {
    for (heading, written) in [
        (359.96, r#""heading":0.0,"#),
        (359.94, r#""heading":359.9,"#),
        (-90.0, r#""heading":270.0,"#),
        (180.0, r#""heading":180.0,"#),
    ] {
        let report = write(&State { heading, ..CRUISING });
        assert!(report.contains(written), "{report}");
    }
}

proptest! {
    /// An archive that keeps numbers as numbers gives the very bytes back.
    #[test]
    fn a_report_can_be_written_again_from_typed_values(
        lat in -90.0..=90.0_f64,
        lon in -180.0..=180.0_f64,
        altitude_ft in -1_000.0..60_000.0_f64,
        heading in -180.0..=180.0_f64,
        speed_kt in 0.0..700.0_f64,
        vertical_fpm in -10_000.0..10_000.0_f64,
    ) {
        // serde_json writes 0.00001 to 0.00009 with an exponent; no aircraft of the fleet is that near the equator.
        prop_assume!(lat.abs() > 0.001 && lon.abs() > 0.001);
        let state = State { lat, lon, altitude_ft, heading, speed_kt, vertical_fpm, ..CRUISING };
        let report = write(&state);
        prop_assert!(report.len() <= REPORT_BYTES);
        let typed: Typed = serde_json::from_str(&report).unwrap();
        prop_assert_eq!(serde_json::to_string(&typed).unwrap(), report);
        prop_assert!((typed.lat - lat).abs() <= 0.500_001e-5);
        prop_assert!((typed.lon - lon).abs() <= 0.500_001e-5);
        prop_assert!((typed.altitude as f64 - altitude_ft).abs() <= 12.5);
        prop_assert!((typed.speed - speed_kt).abs() <= 0.050_001);
        prop_assert!((typed.vertical_rate as f64 - vertical_fpm).abs() <= 32.0);
        prop_assert_eq!((typed.altitude % 25, typed.vertical_rate % 64), (0, 0));
        prop_assert!((0.0..360.0).contains(&typed.heading));
    }
}
