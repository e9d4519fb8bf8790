//! How the aircraft move: on the map, within their kind's limits, without jumps, and rarely in trouble.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};

use aircraft_generator::{aircraft::Aircraft, kind::Kind, report::State, tour::Network};

const HOUR: f64 = 3_600.0;

fn fleet(count: u64) -> Vec<Aircraft> {
    let network = Network::measure();
    (0..count).map(|index| Aircraft::new(1, index, &network)).collect()
}

fn state(aircraft: &mut Aircraft, seconds: f64) -> State {
    aircraft.report(seconds).1
}

#[test]
fn the_fleet_stays_over_the_continental_united_states() {
    for aircraft in &mut fleet(500) {
        for step in 0..400 {
            let seconds = f64::from(step) * 450.0;
            let state = state(aircraft, seconds);
            assert!((24.4..49.4).contains(&state.lat), "{state:?}");
            assert!((-125.0..-66.9).contains(&state.lon), "{state:?}");
            assert!((-100.0..45_000.0).contains(&state.altitude_ft), "{state:?}");
            assert!((0.0..545.0).contains(&state.speed_kt), "{state:?}");
            assert!((-8_000.0..6_100.0).contains(&state.vertical_fpm), "{state:?}");
        }
    }
}

#[test]
fn an_aircraft_moves_as_its_speed_and_its_heading_say() {
    for aircraft in &mut fleet(200) {
        for start in [0.0, 5_000.0, 1e6] {
            let before = state(aircraft, start);
            let after = state(aircraft, start + 10.0);
            let moved = airports::distance_nm((before.lat, before.lon), (after.lat, after.lon));
            let expected = (before.speed_kt + after.speed_kt) / 2.0 * 10.0 / HOUR;
            // A landing or a take-off within the ten seconds is no even change; weaving is a little longer.
            assert!((moved - expected).abs() < 0.05 * expected + 0.15, "{before:?} {after:?}");
            let mut turned = (after.heading - before.heading).abs();
            turned = turned.min(360.0 - turned);
            let flying = before.speed_kt > 1.0 && after.speed_kt > 1.0;
            assert!(!flying || turned < 20.0, "{before:?} {after:?}");
        }
    }
}

#[test]
fn heading_points_where_the_next_position_is() {
    for aircraft in &mut fleet(300) {
        let before = state(aircraft, 40_000.0);
        let after = state(aircraft, 40_004.0);
        if before.speed_kt < 60.0 || after.speed_kt < 60.0 {
            continue;
        }
        let east = (after.lon - before.lon) * before.lat.to_radians().cos();
        let course = east.atan2(after.lat - before.lat).to_degrees();
        let mut off = (course - before.heading).rem_euclid(360.0);
        off = off.min(360.0 - off);
        assert!(off < 4.0, "{course} {before:?}");
    }
}

#[test]
fn height_changes_as_the_vertical_rate_says() {
    for aircraft in &mut fleet(500) {
        for start in [100.0, 9_000.0, 77_777.0] {
            let before = state(aircraft, start);
            let after = state(aircraft, start + 1.0);
            let change = (after.altitude_ft - before.altitude_ft) * 60.0;
            let steepest = before.vertical_fpm.abs().max(after.vertical_fpm.abs());
            assert!(change.abs() <= steepest + 150.0, "{before:?} {after:?}");
        }
    }
}

#[test]
fn any_moment_can_be_told_without_the_moments_before() {
    let (mut steady, mut fresh) = (fleet(50), fleet(50));
    for (steady, fresh) in steady.iter_mut().zip(&mut fresh) {
        for step in 0..2_000 {
            state(steady, f64::from(step) * 30.0);
        }
        assert_eq!(state(steady, 60_000.0), state(fresh, 60_000.0));
    }
}

#[test]
fn each_kind_is_there_and_most_aircraft_fly() {
    let mut kinds: BTreeMap<&str, u32> = BTreeMap::new();
    let mut flying = 0;
    let mut fleet = fleet(2_000);
    for aircraft in &mut fleet {
        *kinds.entry(aircraft.kind().name()).or_default() += 1;
        flying += u32::from(state(aircraft, 12_345.0).speed_kt > 0.0);
    }
    for (kind, share) in Kind::SHARES {
        let count = kinds[kind.name()];
        let expected = 20 * share as u32;
        assert!(count.abs_diff(expected) < 10 + expected / 4, "{kinds:?}");
    }
    assert!((1_500..1_980).contains(&flying), "{flying}");
}

#[test]
fn addresses_are_unique_and_in_the_range_of_the_united_states() {
    let mut addresses = BTreeSet::new();
    for aircraft in &mut fleet(5_000) {
        let (identity, _) = aircraft.report(0.0);
        let address = u32::from_str_radix(&identity.id, 16).unwrap();
        assert!((0xa0_0001..=0xaf_ffff).contains(&address));
        assert!(addresses.insert(address));
    }
}

#[test]
fn about_one_aircraft_of_500_is_in_an_emergency() {
    let mut squawks: BTreeMap<[u8; 4], u32> = BTreeMap::new();
    let mut samples = 0;
    for aircraft in &mut fleet(2_000) {
        for step in 0..100 {
            let state = state(aircraft, f64::from(step) * 1_500.0);
            samples += 1;
            *squawks.entry(state.squawk).or_default() += 1;
        }
    }
    let codes = [*b"7500", *b"7600", *b"7700"];
    let emergencies: u32 = codes.iter().map(|code| squawks[code]).sum();
    let one_in = samples / emergencies;
    assert!((300..800).contains(&one_in), "one in {one_in}");
    let sevens = squawks.keys().filter(|code| code[0] == b'7').count();
    assert_eq!(sevens, 3);
}

#[test]
fn rapid_descents_are_rare_and_come_from_high_up() {
    let mut rapid = BTreeSet::new();
    for (index, aircraft) in fleet(2_000).iter_mut().enumerate() {
        for step in 0..240 {
            let state = state(aircraft, f64::from(step) * 60.0);
            if state.vertical_fpm <= -4_000.0 {
                assert!(state.altitude_ft > 11_000.0, "{state:?}");
                rapid.insert(index);
            }
        }
    }
    // Four hours of 2,000 aircraft: about one in an hour for 40 to 120 of them.
    assert!((40..200).contains(&rapid.len()), "{}", rapid.len());
}

#[test]
fn the_default_fleet_starts_with_something_to_see() {
    let mut fleet = fleet(500);
    let states: Vec<_> = fleet.iter_mut().map(|aircraft| state(aircraft, 1.0)).collect();
    assert!(states.iter().any(|state| state.squawk == *b"7700" || state.squawk == *b"7600"));
    assert!(states.iter().any(|state| state.vertical_fpm <= -4_000.0));
}
