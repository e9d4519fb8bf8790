//! The producer as the host sees it: polls in, records and positions out.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use aircraft_generator::{Generator, config::Config};
use proptest::prelude::*;
use tidemill_plugin::{Emission, Failure, Plugin, Poll, Producer, Production};

const NOW: i64 = 1_732_264_000_000_000;
const SECOND: i64 = 1_000_000;
const MAX_RECORDS: u32 = 10_000;

fn fleet(aircraft: u32, rate: f64) -> Generator {
    Generator::new(Config { aircraft, rate, seed: 1 }).unwrap()
}

fn poll(generator: &mut Generator, position: Option<Vec<u8>>, now: i64) -> Production {
    poll_at_most(generator, position, now, MAX_RECORDS)
}

fn poll_at_most(
    generator: &mut Generator,
    position: Option<Vec<u8>>,
    now: i64,
    max_records: u32,
) -> Production {
    generator.produce(Poll { position, now, max_records }).unwrap()
}

/// Calls whenever the producer asks for it until `end`, and returns all records.
fn run(generator: &mut Generator, position: &mut Option<Vec<u8>>, mut now: i64, end: i64) -> Vec<Emission> {
    let mut emissions = Vec::new();
    while now < end {
        let production = poll(generator, position.take(), now);
        *position = Some(production.position);
        emissions.extend(production.emissions);
        now = production.next.max(now + 1);
    }
    emissions
}

fn timestamps(emissions: &[Emission]) -> Vec<i64> {
    emissions.iter().map(|e| e.timestamp.unwrap()).collect()
}

#[test]
fn equal_configurations_and_polls_make_equal_records() {
    let end = NOW + 3 * SECOND;
    let first = run(&mut fleet(500, 1_000.0), &mut None, NOW, end);
    let second = run(&mut fleet(500, 1_000.0), &mut None, NOW, end);
    assert_eq!(first, second);
    assert!(first.len() > 2_900);
}

#[test]
fn a_restarted_producer_makes_the_records_that_the_stopped_one_would_have_made() {
    let mut whole = Vec::new();
    let mut halves = Vec::new();
    let mut generator = fleet(70, 777.0);
    let (mut position, mut restarted_position) = (None, None);
    let mut restarted = fleet(70, 777.0);
    for call in 0..10 {
        // The host is never quite on time.
        let now = NOW + call * 200_000 + (call * 7_919) % 31_000;
        let production = poll(&mut generator, position, now);
        position = Some(production.position);
        whole.extend(production.emissions);
        if call == 5 {
            restarted = fleet(70, 777.0);
        }
        let production = poll(&mut restarted, restarted_position, now);
        restarted_position = Some(production.position);
        halves.extend(production.emissions);
    }
    assert_eq!(whole, halves);
    assert_eq!(position, restarted_position);
    assert!(whole.len() > 1_300, "{}", whole.len());
}

#[test]
fn a_call_that_was_not_committed_is_repeated_exactly() {
    let mut generator = fleet(500, 1_000.0);
    let position = poll(&mut generator, None, NOW).position;
    let now = NOW + 200_000;
    let lost = poll(&mut generator, Some(position.clone()), now);
    let again = poll(&mut generator, Some(position), now);
    assert_eq!(lost.emissions, again.emissions);
    assert_eq!(lost.position, again.position);
}

#[test]
fn the_rate_is_honoured_slow_and_fast() {
    for (rate, seconds) in [(0.5, 60), (7.0, 60), (1_000.0, 10), (20_000.0, 3), (200_000.0, 1)] {
        let mut position = None;
        let mut generator = fleet(500, rate);
        let emissions = run(&mut generator, &mut position, NOW, NOW + seconds * SECOND);
        let expected = rate * seconds as f64;
        let made = emissions.len() as f64;
        assert!(
            (made - expected).abs() <= rate * 0.21 + 1.0,
            "{made} reports instead of {expected} at {rate}/s"
        );
        assert!(timestamps(&emissions).is_sorted());
    }
}

#[test]
fn at_the_default_rate_a_batch_gathers_200_ms() {
    let mut generator = fleet(500, 1_000.0);
    let first = poll(&mut generator, None, NOW);
    assert_eq!(first.next, NOW + 200_000);
    let second = poll(&mut generator, Some(first.position), first.next);
    assert_eq!(second.emissions.len(), 200);
}

#[test]
fn a_call_never_makes_more_than_it_may_and_the_rest_comes_at_once() {
    let mut generator = fleet(500, 20_000.0);
    let first = poll_at_most(&mut generator, None, NOW, 1_000);
    assert_eq!(first.emissions.len(), 1_000);
    assert_eq!(first.next, NOW);
    let mut position = Some(first.position);
    let mut now = NOW;
    let mut made = 1_000;
    while now < NOW + SECOND {
        let production = poll_at_most(&mut generator, position, now, 1_000);
        assert!(production.emissions.len() <= 1_000);
        assert!(production.next <= now + 50_000);
        made += production.emissions.len();
        position = Some(production.position);
        now = production.next.max(now + 1);
    }
    assert!((19_500..=24_500).contains(&made), "{made}");
}

#[test]
fn after_a_pause_the_fleet_goes_on_from_where_it_was_without_a_burst() {
    let hour = 3_600 * SECOND;
    let mut generator = fleet(500, 1_000.0);
    let mut position = None;
    let before = run(&mut generator, &mut position, NOW, NOW + SECOND);
    let later = NOW + SECOND + hour;
    let production = poll(&mut generator, position, later);
    let after = production.emissions;
    assert!((200..=201).contains(&after.len()), "{}", after.len());
    assert!(timestamps(&after).iter().all(|ts| (later - 200_000..=later).contains(ts)));

    let last = before.iter().rfind(|e| e.key == after[0].key).unwrap();
    let (was, is) = (place(last), place(&after[0]));
    let moved = airports::distance_nm(was, is);
    assert!(moved < 0.2, "moved {moved} nm in half a second of flight");
}

#[test]
fn a_short_delay_is_made_up_for() {
    let mut generator = fleet(500, 1_000.0);
    let first = poll(&mut generator, None, NOW);
    let late = poll(&mut generator, Some(first.position), NOW + 900_000);
    assert_eq!(late.emissions.len(), 900);
}

#[test]
fn a_clock_set_back_does_not_stop_the_fleet() {
    let mut generator = fleet(500, 1_000.0);
    let first = poll(&mut generator, None, NOW);
    let earlier = NOW - 3_600 * SECOND;
    let production = poll(&mut generator, Some(first.position), earlier);
    assert!((200..=201).contains(&production.emissions.len()));
    assert_eq!(production.next, earlier + 200_000);
}

#[test]
fn rate_and_size_of_the_fleet_may_change_between_restarts() {
    let mut position = None;
    run(&mut fleet(500, 1_000.0), &mut position, NOW, NOW + SECOND);
    let mut now = NOW + SECOND;
    for (aircraft, rate) in [(500, 20_000.0), (20, 20_000.0), (20, 0.1), (3_000, 300.0)] {
        let mut generator = fleet(aircraft, rate);
        let end = now + 10 * SECOND;
        let made = run(&mut generator, &mut position, now, end).len() as f64;
        assert!((made - 10.0 * rate).abs() <= rate * 0.21 + 1.0, "{made} at {rate}/s");
        now = end;
    }
}

#[test]
fn a_position_of_another_version_is_a_fatal_failure() {
    let mut generator = fleet(500, 1_000.0);
    for position in [vec![], vec![9; 37], b"not a position".to_vec()] {
        let failure =
            generator.produce(Poll { position: Some(position), now: NOW, max_records: MAX_RECORDS });
        assert!(matches!(failure, Err(Failure::Fatal(_))));
    }
}

#[test]
fn a_configuration_out_of_range_says_what_is_allowed() {
    for (config, word) in [
        (r#"{"aircraft": 0}"#, "aircraft"),
        (r#"{"aircraft": 50001}"#, "50000"),
        (r#"{"rate": 0}"#, "above 0"),
        (r#"{"rate": 200001}"#, "200000"),
    ] {
        let config: Config = serde_json::from_str(config).unwrap();
        let error = Generator::new(config).err().unwrap();
        assert!(error.contains(word), "{error}");
    }
    assert!(serde_json::from_str::<Config>(r#"{"rates": 1}"#).is_err());
    assert_eq!(serde_json::from_str::<Config>("{}").unwrap(), Config::default());
}

#[test]
fn the_schema_tells_the_defaults_and_the_keys() {
    let schema: serde_json::Value = serde_json::from_str(&Generator::describe().config_schema).unwrap();
    let properties = schema["properties"].as_object().unwrap();
    let defaults: serde_json::Map<_, _> =
        properties.iter().map(|(name, property)| (name.clone(), property["default"].clone())).collect();
    assert_eq!(defaults.len(), 3);
    let config: Config = serde_json::from_value(defaults.into()).unwrap();
    assert_eq!(config, Config::default());
}

fn place(emission: &Emission) -> (f64, f64) {
    let report: serde_json::Value = serde_json::from_slice(&emission.payload).unwrap();
    (report["lat"].as_f64().unwrap(), report["lon"].as_f64().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// However the host's calls fall, the same reports are made at the same moments.
    #[test]
    fn the_times_of_the_calls_do_not_change_the_records(
        gaps in prop::collection::vec(1_i64..49_000, 1..20),
        rate in 0.5_f64..5_000.0,
    ) {
        let mut generator = fleet(40, rate);
        let first = poll(&mut generator, None, NOW);
        let end = NOW + gaps.iter().sum::<i64>();
        let mut position = Some(first.position.clone());
        let mut in_steps = Vec::new();
        let mut now = NOW;
        for gap in gaps {
            now += gap;
            let production = poll(&mut generator, position, now);
            position = Some(production.position);
            in_steps.extend(production.emissions);
        }
        let at_once = poll(&mut fleet(40, rate), Some(first.position), end).emissions;
        prop_assert_eq!(in_steps, at_once);
    }
}
