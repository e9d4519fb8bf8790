//! Workers: the samples, and one that does what each job asks for.

use super::hostile::Hostile;
use super::*;

fn job(id: u64, payload: &str) -> Job {
    Job {
        id,
        attempt: 1,
        max_attempts: 3,
        priority: 1,
        key: Some(b"k".to_vec()),
        headers: vec![Header { name: "trace".to_owned(), value: b"1".to_vec() }],
        enqueued: 1_700_000_000_000_000,
        payload: payload.into(),
    }
}

async fn worker(config: Json, limits: &Limits) -> Instance {
    let plugin = engine().load_any(built("test-worker")).await.unwrap();
    assert_eq!(plugin.kind(), PluginKind::Worker);
    plugin.instantiate("worker", &config, limits).await.unwrap()
}

/// How a call with this one job fails, and whether the instance is still of use.
async fn failure(payload: &str, limits: &Limits) -> (CallError, bool) {
    let mut instance = worker(Json::Null, limits).await;
    let error = instance.work(vec![job(1, payload)]).await.unwrap_err();
    (error, !instance.poisoned())
}

#[tokio::test]
async fn a_batch_of_jobs_is_judged_one_by_one() {
    let mut instance = worker(json!({"emit": true}), &Limits::default()).await;
    let batch = vec![
        job(1, r#"{"do":"done","result":"r"}"#),
        job(2, r#"{"do":"retry","ms":5}"#),
        job(3, r#"{"do":"snooze","ms":7}"#),
        job(4, r#"{"do":"reject"}"#),
        job(5, r#"{"do":"cancel"}"#),
        job(6, "as it is"),
    ];
    let outcome = instance.work(batch).await.unwrap();
    let retry = RetryJob { reason: "asked to retry".to_owned(), after: Some(5_000) };
    assert_eq!(
        outcome.verdicts,
        [
            Verdict::Done(Some(b"r".to_vec())),
            Verdict::Retry(retry),
            Verdict::Snooze(7_000),
            Verdict::Reject("asked to reject".to_owned()),
            Verdict::Cancel("asked to cancel".to_owned()),
            Verdict::Done(None),
        ]
    );
    let emitted: Vec<_> =
        outcome.emissions.iter().map(|e| (e.input, e.headers[0].value.as_slice())).collect();
    assert_eq!(emitted, [(Some(0), b"1".as_slice()), (Some(5), b"6".as_slice())]);
    assert_eq!(outcome.emissions[1].payload, b"as it is");
    assert_eq!(outcome.emissions[1].key.as_deref(), Some(b"k".as_slice()));
}

#[tokio::test]
async fn a_worker_that_goes_wrong_is_told_apart() {
    let limits = Limits { deadline: Duration::from_millis(200), ..Limits::default() };
    let (error, usable) = failure(r#"{"do":"trap"}"#, &limits).await;
    assert!(error.to_string().contains("asked to trap by job 1") && !usable, "{error}");
    let (error, usable) = failure(r#"{"do":"spin"}"#, &limits).await;
    assert_eq!((error, usable), (CallError::Deadline { after: limits.deadline }, false));
    let (error, usable) = failure(r#"{"do":"slow","ms":60000}"#, &limits).await;
    assert_eq!((error, usable), (CallError::Deadline { after: limits.deadline }, false));
    let (error, usable) = failure(r#"{"do":"hog"}"#, &Limits::default()).await;
    assert_eq!((error, usable), (CallError::Memory { limit: 64 << 20 }, false));
    for (payload, expected) in [
        (r#"{"do":"no-verdict"}"#, "it has 0 verdicts for a batch of 1 jobs"),
        (r#"{"do":"stray-port"}"#, "which its descriptor does not declare"),
        (r#"{"do":"stray-input"}"#, "of a batch of 1"),
    ] {
        let (error, usable) = failure(payload, &limits).await;
        assert!(matches!(error, CallError::BadOutput { .. }) && usable, "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
    let (error, usable) = failure(r#"{"do":"fail","ms":1}"#, &limits).await;
    let after = Some(Duration::from_millis(1));
    assert_eq!((error, usable), (CallError::Retry { reason: "asked to fail".to_owned(), after }, true));
    let (error, usable) = failure(r#"{"do":"fatal"}"#, &limits).await;
    assert_eq!((error, usable), (CallError::Fatal("asked to give up".to_owned()), true));
}

#[tokio::test]
async fn a_call_ends_when_nobody_can_use_its_answer() {
    let limits = Limits { deadline: Duration::from_secs(60), ..Limits::default() };
    for payload in [r#"{"do":"spin"}"#, r#"{"do":"slow","ms":60000}"#] {
        let mut instance = worker(Json::Null, &limits).await;
        let stop = tokio_util::sync::CancellationToken::new();
        let began = Instant::now();
        tokio::spawn({
            let stop = stop.clone();
            async move {
                tokio::time::sleep(Duration::from_millis(100)).await;
                stop.cancel();
            }
        });
        let error = instance.work_until(vec![job(1, payload)], &stop).await.unwrap_err();
        assert_eq!((error, instance.poisoned()), (CallError::Interrupted, true));
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_job_is_asked_of_a_worker_only() {
    let plugin = engine().load(built("test-identity"), PluginKind::Transform).await.unwrap();
    let mut transform = plugin.instantiate("t", &Json::Null, &Limits::default()).await.unwrap();
    let error = transform.work(vec![job(1, "x")]).await.unwrap_err();
    assert_eq!(error, CallError::WrongKind { kind: PluginKind::Transform, function: "work" });
    let wrong = engine().load(built("test-identity"), PluginKind::Worker).await.err().unwrap();
    let text = wrong.to_string();
    assert!(text.contains("needs a component of world tidemill:plugin/worker@0.1.0"), "{text}");
    assert!(text.contains("is a transform"), "{text}");
}

#[tokio::test]
async fn a_worker_cannot_have_state() {
    let stateful = Hostile {
        import: r#"(import "tidemill:plugin/state@0.1.0" (instance (export "f" (func))))"#,
        work: Some("tidemill:plugin/working@0.1.0"),
        ..Hostile::default()
    };
    let error = engine().load_any(stateful.bytes()).await.err().unwrap();
    assert_eq!(error, LoadError::NeverGranted { kind: PluginKind::Worker, refused: vec![Grant::State] });
    assert_eq!(error.to_string(), "the component imports `state`, which a worker cannot have");
}

#[tokio::test]
async fn the_samples_of_incidents_pass_their_vectors() {
    for name in ["incident-desk", "incident-report"] {
        let plugin = engine().load_any(built(name)).await.unwrap();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/conformance").join(name);
        let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(!files.is_empty());
        for file in files {
            let vectors = Vectors::parse(&std::fs::read_to_string(&file).unwrap()).unwrap();
            let differences = vectors.run(&plugin, &Limits::default()).await.unwrap();
            assert_eq!(differences, Vec::<String>::new(), "{}", file.display());
        }
    }
}

#[tokio::test]
async fn vectors_of_another_kind_and_answers_that_differ_are_told() {
    let run = async |batch: &str| {
        let plugin = engine().load_any(built("test-worker")).await.unwrap();
        let vectors = Vectors::parse(&format!(r#"{{"about":"","batches":[{batch}]}}"#)).unwrap();
        vectors.run(&plugin, &Limits::default()).await.unwrap()
    };
    let messages = run(r#"{"messages":[{"payload":"x"}]}"#).await;
    assert_eq!(messages, ["batch 0: a worker takes `jobs` and gives `verdicts`, not messages and refusals"]);
    let payload = r#""{\"do\":\"retry\",\"until\":2}""#;
    let second = format!(r#"{{"jobs":[{{"payload":{payload},"attempt":2}}],"verdicts":[{{"done":null}}]}}"#);
    assert_eq!(run(&second).await, Vec::<String>::new());
    let first = run(&second.replace(r#","attempt":2"#, "")).await;
    assert!(
        first.len() == 1 && first[0].starts_with("batch 0: verdict 0: expected Done(None), got"),
        "{first:?}"
    );
}
