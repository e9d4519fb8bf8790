//! Trials of the real sample and test components.

use serde_json::json;

use super::*;
use crate::plugin::{EngineOptions, Grant, Grants, PluginEngine};

async fn trial(name: &str, grants: &[Grant], config: Value) -> Trial {
    let path = format!("../plugins/dist/{name}.wasm");
    let bytes = std::fs::read(&path)
        .unwrap_or_else(|error| panic!("cannot read {path}: {error}; build the plugins with `make plugins`"));
    let engine = PluginEngine::new(EngineOptions::default()).unwrap();
    let plugin = engine.load_any(bytes).await.unwrap();
    let plugin = plugin.granted(Grants::new(grants.iter().copied(), None)).unwrap();
    let reader = Reader { group: "g".to_string(), topic: "t".to_string() };
    Trial::start(plugin, config, &StageLimits::default(), reader).await.unwrap()
}

fn inputs(first: Offset, payloads: &[&str]) -> Vec<Input> {
    let input = |(offset, payload): (Offset, &&str)| input(offset, 0, None, payload.as_bytes().to_vec());
    (first..).zip(payloads).map(input).collect()
}

#[tokio::test]
async fn the_message_at_fault_is_found_and_the_rest_goes_on() {
    let mut trial = trial("test-misbehave", &[], json!({ "fault": "trap" })).await;
    let events = trial.batch(&inputs(0, &["a", "b", "a trap", "c", "d", "e"])).await.unwrap();
    let failed: Vec<usize> = events
        .iter()
        .filter(|event| matches!(event.what, What::Failed(CallError::Trap { .. })))
        .filter_map(|event| event.input)
        .collect();
    assert_eq!(failed, [2]);
    let emitted: Vec<usize> = events
        .iter()
        .filter(|event| matches!(event.what, What::Emission(_)))
        .filter_map(|event| event.input)
        .collect();
    assert_eq!(emitted, [0, 1, 3, 4, 5]);
    assert!(trial.used().calls > 1 && trial.used().memory > 0);
}

#[tokio::test]
async fn refusals_are_told_and_a_plugin_that_gives_up_ends_the_trial() {
    let mut refusing = trial("test-misbehave", &[], json!({ "fault": "refuse" })).await;
    let events = refusing.batch(&inputs(0, &["bad", "later", "good"])).await.unwrap();
    assert!(events.iter().any(|event| event.input == Some(0) && matches!(event.what, What::Rejected(_))));
    assert!(events.contains(&Event { input: Some(1), what: What::Again(Some(1_000)) }), "{events:?}");

    let mut failing = trial("test-misbehave", &[], json!({ "fault": "fail", "retry": false })).await;
    let error = failing.batch(&inputs(0, &["a"])).await.unwrap_err();
    assert!(matches!(error, CallError::Fatal(_)), "{error}");
}

#[tokio::test]
async fn state_is_kept_from_batch_to_batch() {
    let config = json!({ "field": "kind", "window_s": 1 });
    let mut trial = trial("window-counts", &[Grant::State], config).await;
    let at = |seconds: i64, offset: Offset| {
        let mut one = input(offset, seconds * 1_000_000, None, br#"{"kind":"a"}"#.to_vec());
        one.appended_at = seconds * 1_000_000;
        one
    };
    assert_eq!(trial.batch(&[at(0, 0), at(0, 1)]).await.unwrap(), []);
    let events = trial.batch(&[at(60, 2)]).await.unwrap();
    let [Event { what: What::Emission(emission), .. }] = events.as_slice() else {
        panic!("one window is closed: {events:?}");
    };
    let count: Value = serde_json::from_slice(&emission.payload).unwrap();
    assert_eq!(count["count"], 2);
}
