//! The samples of `plugins/`, as components.

use super::*;

async fn load(engine: &PluginEngine, name: &str, kind: PluginKind) -> Plugin {
    engine.load(built(name), kind).await.unwrap()
}

async fn misbehave(config: Json, limits: &Limits) -> Result<Instance, CallError> {
    let plugin = load(&engine(), "test-misbehave", PluginKind::Transform).await;
    plugin.instantiate("misbehave", &config, limits).await
}

async fn misbehaved(config: Json, limits: &Limits) -> CallError {
    let mut instance = misbehave(config, limits).await.unwrap();
    instance.process(vec![message(7, "x")]).await.unwrap_err()
}

#[tokio::test]
async fn a_message_passes_the_boundary_unchanged() {
    let plugin = load(&engine(), "test-identity", PluginKind::Transform).await;
    let mut instance = plugin.instantiate("identity", &Json::Null, &Limits::default()).await.unwrap();
    let all_bytes = Vec::from_iter(0..=255);
    let full = Message {
        key: Some(all_bytes.clone()),
        headers: vec![
            Header { name: "köy".to_owned(), value: all_bytes.clone() },
            Header { name: "köy".to_owned(), value: Vec::new() },
        ],
        payload: all_bytes,
        ..message(u64::MAX, "")
    };
    let batch =
        std::sync::Arc::new(vec![full, message(1, ""), Message { key: Some(vec![]), ..message(2, "b") }]);
    let outcome = instance.process(std::sync::Arc::clone(&batch)).await.unwrap();
    assert!(outcome.refusals.is_empty());
    assert_eq!(outcome.emissions.len(), batch.len());
    for (index, (emission, message)) in outcome.emissions.iter().zip(batch.iter()).enumerate() {
        assert_eq!(emission.input, Some(index as u32));
        assert_eq!(emission.key, message.key);
        assert_eq!(emission.headers, message.headers);
        assert_eq!(emission.payload, message.payload);
    }
}

#[tokio::test]
async fn a_panic_is_told_in_the_plugins_own_words_and_a_fresh_instance_works() {
    let plugin = load(&engine(), "test-misbehave", PluginKind::Transform).await;
    let config = json!({"fault": "trap"});
    let mut instance = plugin.instantiate("trap", &config, &Limits::default()).await.unwrap();
    assert!(instance.process(vec![message(1, "fine")]).await.is_ok());
    let error = instance.process(vec![message(2, "fine"), message(3, "trap")]).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("panicked") && text.contains("asked to trap at offset 3"), "{text}");
    assert!(error.is_plugin_fault() && instance.poisoned());
    let mut fresh = plugin.instantiate("trap", &config, &Limits::default()).await.unwrap();
    assert_eq!(fresh.process(vec![message(2, "fine")]).await.unwrap().emissions.len(), 1);
}

#[tokio::test]
async fn a_plugin_that_takes_a_gibibyte_ends_at_its_memory_limit() {
    let expected = CallError::Memory { limit: 64 << 20 };
    let hog = json!({"fault": "hog", "when": "process", "bytes": 1 << 30});
    assert_eq!(misbehaved(hog, &Limits::default()).await, expected);
    let hog = json!({"fault": "hog", "when": "configure", "bytes": 1 << 30});
    assert_eq!(misbehave(hog, &Limits::default()).await.err(), Some(expected));
    let fits = json!({"fault": "hog", "when": "process", "bytes": 8 << 20});
    let mut instance = misbehave(fits, &Limits::default()).await.unwrap();
    assert!(instance.process(vec![message(7, "x")]).await.is_ok());
    assert!(instance.memory_used() > 8 << 20);
}

#[tokio::test]
async fn spinning_ends_at_the_deadline_in_every_call() {
    let limits = Limits { deadline: Duration::from_millis(100), ..Limits::default() };
    let expected = CallError::Deadline { after: limits.deadline };
    let spin = json!({"fault": "spin", "when": "process"});
    assert_eq!(misbehaved(spin, &limits).await, expected);
    let spin = json!({"fault": "spin", "when": "configure"});
    assert_eq!(misbehave(spin, &limits).await.err(), Some(expected.clone()));
    let plugin = load(&engine(), "test-spin-describe", PluginKind::Transform).await;
    assert_eq!(plugin.describe(&limits).await, Err(expected));
}

#[tokio::test]
async fn answers_outside_the_descriptor_are_refused() {
    let cases = [("stray-port", "which its descriptor does not declare"), ("stray-input", "of a batch of 1")];
    for (fault, expected) in cases {
        let error = misbehaved(json!({"fault": fault}), &Limits::default()).await;
        assert!(matches!(error, CallError::BadOutput { .. }), "{error}");
        assert!(error.to_string().contains(expected), "`{error}` should have `{expected}`");
    }
}

#[tokio::test]
async fn more_output_than_allowed_is_refused() {
    let records =
        misbehaved(json!({"fault": "flood", "records": 100_001, "bytes": 1}), &Limits::default()).await;
    assert_eq!(records, CallError::OutputTooLarge(Excess::Records { got: 100_001, limit: 100_000 }));
    let limits = Limits { output_bytes: 1 << 20, ..Limits::default() };
    let bytes = misbehaved(json!({"fault": "flood", "records": 20, "bytes": 100_000}), &limits).await;
    assert_eq!(bytes, CallError::OutputTooLarge(Excess::Bytes { limit: 1 << 20 }));
}

#[tokio::test]
async fn refusals_and_failures_come_through() {
    let mut instance = misbehave(json!({"fault": "refuse"}), &Limits::default()).await.unwrap();
    let batch = vec![message(0, "fine"), message(1, "bad"), message(2, "later")];
    let outcome = instance.process(batch).await.unwrap();
    assert_eq!(outcome.emissions.len(), 1);
    assert!(matches!(outcome.refusals[0], Refused { input: 1, refusal: Refusal::Reject(_) }));
    assert_eq!(outcome.refusals[1], Refused { input: 2, refusal: Refusal::Retry(Some(1_000)) });

    let error = misbehaved(json!({"fault": "fail", "retry": true}), &Limits::default()).await;
    assert_eq!(error, CallError::Retry { reason: "asked to fail".to_owned(), after: None });
    let mut instance = misbehave(json!({"fault": "fail", "retry": false}), &Limits::default()).await.unwrap();
    let error = instance.process(vec![message(0, "x")]).await.unwrap_err();
    assert_eq!(error, CallError::Fatal("asked to fail".to_owned()));
    assert!(!instance.poisoned() && !error.is_plugin_fault());
}

#[tokio::test]
async fn chatter_is_cut_and_counted() {
    let config = json!({"fault": "chatter", "lines": 5_000});
    let mut instance = misbehave(config, &Limits::default()).await.unwrap();
    instance.process(vec![message(0, "x")]).await.unwrap();
    // How many seconds the 5,000 lines took decides how many passed; all but a few hundred did not.
    assert!(instance.dropped_log_lines() > 3_000, "{}", instance.dropped_log_lines());
}

#[tokio::test]
async fn a_config_outside_the_schema_never_reaches_the_plugin() {
    let error = misbehave(json!({"fault": "nap", "extra": 1}), &Limits::default()).await.err().unwrap();
    let CallError::Configure(words) = error else { panic!("{error}") };
    assert!(words.contains("config.fault: ") && words.contains("extra"), "{words}");
}

#[tokio::test]
async fn the_generator_goes_on_from_its_position() {
    let plugin = load(&engine(), "aircraft-generator", PluginKind::Producer).await;
    let limits = Limits::default();
    let first_poll = Poll { position: None, now: 1_700_000_000_000_000, max_records: 50 };
    let mut instance = plugin.instantiate("generator", &json!({}), &limits).await.unwrap();
    let first = instance.produce(first_poll.clone()).await.unwrap();
    assert!(!first.position.is_empty());
    let now = first_poll.now + 100_000;
    let poll = Poll { position: Some(first.position), now, max_records: 1_000 };
    let second = instance.produce(poll.clone()).await.unwrap();
    assert!(!second.emissions.is_empty());
    let mut restarted = plugin.instantiate("generator", &json!({}), &limits).await.unwrap();
    assert_eq!(restarted.produce(poll).await.unwrap(), second);
}

#[tokio::test]
async fn the_materializer_gives_rows_that_fit_its_table() {
    let engine = engine();
    let generator = load(&engine, "aircraft-generator", PluginKind::Producer).await;
    let limits = Limits::default();
    let mut generator = generator.instantiate("generator", &json!({}), &limits).await.unwrap();
    let poll = Poll { position: None, now: 1_700_000_000_000_000, max_records: 500 };
    let start = generator.produce(poll).await.unwrap();
    let poll = Poll { position: Some(start.position), now: 1_700_000_000_500_000, max_records: 5_000 };
    let reports = generator.produce(poll).await.unwrap().emissions;
    let mut batch = Vec::from_iter(
        reports
            .into_iter()
            .zip(0..)
            .map(|(report, offset)| Message { key: report.key, ..message(offset, report.payload) }),
    );
    let reports = batch.len();
    assert!(reports > 100, "{reports}");
    batch.push(message(reports as u64, "no report"));

    let plugin = load(&engine, "latest-position", PluginKind::Materializer).await;
    let descriptor = plugin.describe(&limits).await.unwrap();
    assert_eq!(descriptor.tables[0].name, "current_positions");
    let mut instance = plugin.instantiate("latest", &Json::Null, &limits).await.unwrap();
    let rows = instance.materialize(batch).await.unwrap();
    assert!(!rows.changes.is_empty());
    let columns = descriptor.tables[0].columns.len();
    for change in &rows.changes {
        assert!(matches!(&change.change, Change::Upsert(values) if values.len() == columns));
    }
    assert_eq!(rows.refusals.len(), 1);
    assert_eq!(rows.refusals[0].input as usize, reports);
}

#[tokio::test]
async fn the_sink_refuses_what_it_cannot_show() {
    let plugin = load(&engine(), "log-sink", PluginKind::Sink).await;
    let mut instance = plugin.instantiate("sink", &Json::Null, &Limits::default()).await.unwrap();
    let token = Token { group: "g".to_owned(), topic: "t".to_owned(), partition: 3, first: 0, next: 2 };
    let refused = instance.deliver(token, vec![message(0, "text"), message(1, [0xff])]).await.unwrap();
    assert_eq!(Vec::from_iter(refused.iter().map(|refused| refused.input)), [1]);
}
