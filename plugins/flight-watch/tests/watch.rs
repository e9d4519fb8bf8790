//! Reports in, approaches and alerts out.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use flight_watch::{Config, FlightWatch};
use serde_json::{Value, json};
use tidemill_plugin::{Message, Outcome, Plugin, Refusal, Transform};

/// A report in cruise over Kansas, with these fields changed.
fn report(changes: Value) -> String {
    let mut report = json!({
        "id": "a3f2c1", "callsign": "UAL1234", "kind": "airliner", "lat": 38.5, "lon": -99.5,
        "altitude": 35_000, "heading": 271.3, "speed": 451.2, "vertical_rate": 0, "squawk": "3461",
        "ts": 1_732_264_000_123_i64,
    });
    for (key, value) in changes.as_object().unwrap() {
        report[key] = value.clone();
    }
    report.to_string()
}

fn message(payload: impl Into<Vec<u8>>) -> Message {
    Message {
        partition: 0,
        offset: 0,
        timestamp: 1_732_264_000_123_000,
        attempt: 1,
        key: None,
        headers: Vec::new(),
        payload: payload.into(),
    }
}

fn watch_with(config: Config, payloads: Vec<String>) -> Outcome {
    let mut watch = FlightWatch::new(config).unwrap();
    watch.process(payloads.into_iter().map(message).collect()).unwrap()
}

fn watch(changes: Value) -> Vec<(Option<String>, Value)> {
    let outcome = watch_with(Config::default(), vec![report(changes)]);
    assert!(outcome.refusals.is_empty());
    outcome
        .emissions
        .into_iter()
        .map(|emission| {
            assert_eq!(emission.key.as_deref(), Some(b"a3f2c1".as_slice()));
            assert_eq!(emission.input, Some(0));
            (emission.port, serde_json::from_slice(&emission.payload).unwrap())
        })
        .collect()
}

#[test]
fn a_report_in_cruise_leads_to_nothing() {
    assert_eq!(watch(json!({})), []);
}

#[test]
fn a_low_descent_near_a_major_airport_is_an_approach() {
    // KJFK is at 40.6413, -73.7781: 0.2 degrees of latitude are 12 nautical miles.
    let changes = json!({"lat": 40.4413, "lon": -73.7781, "altitude": 4_000, "vertical_rate": -704});
    let [(port, approach)] = watch(changes).try_into().unwrap();
    assert_eq!(port, None);
    assert_eq!(
        approach,
        json!({
            "id": "a3f2c1", "callsign": "UAL1234", "kind": "airliner", "airport": "KJFK",
            "distance_nm": 12.0, "altitude": 4_000, "speed": 451.2, "vertical_rate": -704,
            "lat": 40.4413, "lon": -73.7781, "ts": 1_732_264_000_123_i64,
        })
    );
}

#[test]
fn climbing_high_or_far_is_no_approach() {
    for changes in [
        json!({"lat": 40.4413, "lon": -73.7781, "altitude": 4_000, "vertical_rate": 704}),
        json!({"lat": 40.4413, "lon": -73.7781, "altitude": 4_000, "vertical_rate": 0}),
        json!({"lat": 40.4413, "lon": -73.7781, "altitude": 6_025, "vertical_rate": -704}),
        json!({"lat": 40.1, "lon": -73.2, "altitude": 4_000, "vertical_rate": -704}),
        // A regional airport: Fargo.
        json!({"lat": 46.9207, "lon": -96.8158, "altitude": 2_000, "vertical_rate": -704}),
    ] {
        assert_eq!(watch(changes), []);
    }
}

#[test]
fn heights_count_from_the_airport() {
    // Denver lies at 5,434 ft.
    let changes = json!({"lat": 39.9, "lon": -104.7, "altitude": 9_000, "vertical_rate": -704});
    let [(_, approach)] = watch(changes).try_into().unwrap();
    assert_eq!(approach["airport"], "KDEN");
}

#[test]
fn an_emergency_squawk_is_an_alert() {
    for (squawk, meaning) in
        [("7500", "unlawful interference"), ("7600", "radio failure"), ("7700", "general emergency")]
    {
        let [(port, alert)] = watch(json!({"squawk": squawk})).try_into().unwrap();
        assert_eq!(port.as_deref(), Some("alerts"));
        let message = format!("UAL1234 squawks {squawk} ({meaning}) at 35,000 ft");
        assert_eq!(
            alert,
            json!({
                "id": "a3f2c1", "callsign": "UAL1234", "kind": "airliner", "alert": "emergency",
                "squawk": squawk, "altitude": 35_000, "vertical_rate": 0, "lat": 38.5, "lon": -99.5,
                "ts": 1_732_264_000_123_i64, "message": message,
            })
        );
    }
}

#[test]
fn a_rapid_descent_is_an_alert_from_the_configured_rate_on() {
    let [(port, alert)] = watch(json!({"vertical_rate": -4_032})).try_into().unwrap();
    assert_eq!(port.as_deref(), Some("alerts"));
    assert_eq!(alert["alert"], "rapid_descent");
    assert_eq!(alert["message"], "UAL1234 descends at 4,032 ft/min through 35,000 ft");
    assert_eq!(watch(json!({"vertical_rate": -3_968})), []);

    let config = serde_json::from_value(json!({"rapid_descent_fpm": 3_000})).unwrap();
    let outcome = watch_with(config, vec![report(json!({"vertical_rate": -3_008}))]);
    assert_eq!(outcome.emissions.len(), 1);
}

#[test]
fn one_report_may_show_everything_at_once() {
    let found = watch(json!({
        "lat": 40.6, "lon": -73.8, "altitude": 5_000, "vertical_rate": -6_016, "squawk": "7700",
    }));
    let kinds: Vec<_> = found.iter().map(|(port, value)| (port.as_deref(), &value["alert"])).collect();
    assert_eq!(
        kinds,
        [
            (None, &Value::Null),
            (Some("alerts"), &json!("emergency")),
            (Some("alerts"), &json!("rapid_descent")),
        ]
    );
}

#[test]
fn a_wrong_payload_is_rejected_by_the_name_of_its_field_and_the_rest_goes_on() {
    let payloads = vec![
        "not JSON".to_owned(),
        report(json!({"altitude": "high"})),
        r#"{"id": "a3f2c1"}"#.to_owned(),
        report(json!({"squawk": "7700"})),
    ];
    let outcome = watch_with(Config::default(), payloads);
    assert_eq!(outcome.emissions.len(), 1);
    assert_eq!(outcome.emissions[0].input, Some(3));
    let reasons: Vec<_> = outcome
        .refusals
        .iter()
        .map(|refused| match &refused.refusal {
            Refusal::Reject(reason) => (refused.input, reason.as_str()),
            Refusal::Retry(_) => panic!("retrying does not mend a payload"),
        })
        .collect();
    assert_eq!(reasons.len(), 3);
    for (number, word) in [(0, "line 1"), (1, "field `altitude`"), (2, "missing field `callsign`")] {
        assert_eq!(reasons[number].0, number as u32);
        assert!(reasons[number].1.contains(word), "{}", reasons[number].1);
    }
}

#[test]
fn a_configuration_out_of_range_says_what_is_allowed() {
    for (config, word) in [
        (json!({"rapid_descent_fpm": 0}), "rapid_descent_fpm"),
        (json!({"approach_ft": 60_001}), "60000"),
        (json!({"approach_nm": -1}), "above 0"),
    ] {
        let error = FlightWatch::new(serde_json::from_value(config).unwrap()).err().unwrap();
        assert!(error.contains(word), "{error}");
    }
    assert!(serde_json::from_value::<Config>(json!({"approach": 1})).is_err());
}

#[test]
fn the_schema_tells_the_defaults_and_the_keys() {
    let schema: Value = serde_json::from_str(&FlightWatch::describe().config_schema).unwrap();
    let properties = schema["properties"].as_object().unwrap();
    let defaults: serde_json::Map<_, _> =
        properties.iter().map(|(name, property)| (name.clone(), property["default"].clone())).collect();
    assert_eq!(defaults.len(), 3);
    assert_eq!(serde_json::from_value::<Config>(defaults.into()).unwrap(), Config::default());
}
