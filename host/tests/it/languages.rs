//! One plugin in four languages: each is held to the same vectors and to the same answers on what the fleet reports.
//!
//! `TIDEMILL_MEASURE=200000 cargo test --release --test it every_language_answers -- --nocapture` prints what each costs
//! for so many reports.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tidemill::plugin::{
    Descriptor, EngineOptions, Limits, Message, Outcome, Plugin, PluginEngine, PluginKind, Poll, Vectors,
};

use crate::support::root;

/// The component of each language in `plugins/dist`. The first is the one that the others are compared with.
const LANGUAGES: [(&str, &str); 4] = [
    ("Rust", "flight-watch"),
    ("C", "flight-watch-c"),
    ("TypeScript", "flight-watch-js"),
    ("Python", "flight-watch-python"),
];

/// The plugin that each language's project of `plugins/templates` begins with.
const TEMPLATES: [(&str, &str); 4] = [
    ("Rust", "template-rust"),
    ("C", "template-c"),
    ("TypeScript", "template-typescript"),
    ("Python", "template-python"),
];

const BATCH: usize = 1_000;

/// All but the languages that `TIDEMILL_WITHOUT` names, since this machine cannot build them.
fn buildable(
    languages: [(&'static str, &'static str); 4],
) -> impl Iterator<Item = (&'static str, &'static str)> {
    let without = std::env::var("TIDEMILL_WITHOUT").unwrap_or_default();
    languages.into_iter().filter(move |(language, _)| {
        let skipped = without.split(',').any(|name| name == *language);
        if skipped {
            eprintln!("skipped: {language}");
        }
        !skipped
    })
}

/// Compiling a language's whole runtime takes seconds, so the code is kept from one run of the tests to the next.
fn engine() -> PluginEngine {
    let cache_dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled-plugins");
    PluginEngine::new(EngineOptions { cache_dir: Some(cache_dir), ..EngineOptions::default() })
        .expect("the plugin engine starts")
}

fn component(name: &str) -> Vec<u8> {
    let path = root().join("plugins/dist").join(format!("{name}.wasm"));
    std::fs::read(&path).unwrap_or_else(|error| {
        panic!("cannot read {}: {error}; build the plugins with `make plugins`", path.display())
    })
}

async fn load(engine: &PluginEngine, name: &str, kind: PluginKind) -> Plugin {
    engine.load(component(name), kind).await.unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn vector_files() -> Vec<PathBuf> {
    let folder = root().join("plugins/conformance/flight-watch");
    let files = std::fs::read_dir(&folder).expect("the folder of the vectors can be read");
    let mut files: Vec<PathBuf> = files
        .map(|file| file.expect("a folder entry can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    files.sort();
    assert!(files.len() >= 5, "only {} files of vectors in {}", files.len(), folder.display());
    files
}

/// What a plugin answered otherwise than a file of vectors says.
async fn differences(language: &str, plugin: &Plugin, file: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).expect("a file of vectors can be read");
    let vectors = Vectors::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let title = format!("{language}, {}", file.file_name().unwrap_or_default().display());
    match vectors.run(plugin, &Limits::default()).await {
        Ok(differences) => differences.iter().map(|difference| format!("{title}: {difference}")).collect(),
        Err(error) => vec![format!("{title}: {error}")],
    }
}

#[tokio::test]
async fn every_language_passes_the_same_vectors() {
    let engine = engine();
    let mut wrong = Vec::new();
    for (language, name) in buildable(LANGUAGES) {
        let plugin = load(&engine, name, PluginKind::Transform).await;
        for file in vector_files() {
            wrong.extend(differences(language, &plugin, &file).await);
        }
    }
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test]
async fn the_template_of_every_language_passes_its_vectors() {
    let engine = engine();
    let file = root().join("plugins/templates/vectors.json");
    for (language, name) in buildable(TEMPLATES) {
        let plugin = load(&engine, name, PluginKind::Transform).await;
        assert_eq!(differences(language, &plugin, &file).await, Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_vector_that_does_not_hold_is_told() {
    let plugin = load(&engine(), LANGUAGES[0].1, PluginKind::Transform).await;
    let vectors = json!({
        "about": "wrong in every way",
        "batches": [{
            "messages": [{ "payload": "not JSON" }],
            "emissions": [{ "input": 0, "payload": "nothing" }],
            "refusals": [{ "input": 0, "reject": "other words" }],
        }],
    });
    let vectors = Vectors::parse(&vectors.to_string()).expect("it has the format");
    let differences = vectors.run(&plugin, &Limits::default()).await.expect("the plugin answers");
    assert_eq!(differences.len(), 2, "{differences:?}");
    assert!(differences[0].contains("emission 0") && differences[0].contains("got none"), "{differences:?}");
    assert!(
        differences[1].contains("refusal 0") && differences[1].contains("other words"),
        "{differences:?}"
    );
}

#[tokio::test]
async fn every_language_describes_the_same_plugin() {
    let engine = engine();
    let mut first: Option<Descriptor> = None;
    for (language, name) in buildable(LANGUAGES) {
        let plugin = load(&engine, name, PluginKind::Transform).await;
        let mut descriptor = plugin.describe(&Limits::default()).await.expect("it describes itself");
        let schema: Value = serde_json::from_str(&descriptor.config_schema).expect("the schema is JSON");
        // Equal as JSON is equal enough: layout differs, and 25.0 is 25.
        descriptor.config_schema = schema.to_string();
        let expected = first.get_or_insert_with(|| descriptor.clone());
        assert_eq!(&descriptor, expected, "{language}");
    }
}

#[tokio::test]
async fn every_language_answers_the_fleet_as_rust_does() {
    let engine = engine();
    let reports = fleet(&engine, measured().unwrap_or(10_000)).await;
    let mut first: Option<Vec<Outcome>> = None;
    for (language, name) in buildable(LANGUAGES) {
        let outcomes = match measured() {
            None => answers(&load(&engine, name, PluginKind::Transform).await, language, &reports).await,
            Some(_) => measure(language, name, &reports).await,
        };
        let expected = first.get_or_insert_with(|| outcomes.clone());
        for (number, (outcome, expected)) in outcomes.iter().zip(expected.iter()).enumerate() {
            assert_eq!(outcome, expected, "{language}, batch {number}");
        }
    }
    let emissions: usize = first.iter().flatten().map(|outcome| outcome.emissions.len()).sum();
    assert!(
        measured().is_some() || emissions > reports.len() / 20,
        "only {emissions} emissions: there is little to compare"
    );
}

/// How many reports to measure with.
fn measured() -> Option<usize> {
    std::env::var("TIDEMILL_MEASURE").ok()?.parse().ok()
}

/// What the demo's aircraft report.
async fn fleet(engine: &PluginEngine, count: usize) -> Vec<Message> {
    let plugin = load(engine, "aircraft-generator", PluginKind::Producer).await;
    let config = json!({ "aircraft": 500, "rate": 1_000, "seed": 1 });
    let mut producer = plugin.instantiate("fleet", &config, &Limits::default()).await.expect("it starts");
    let mut poll = Poll { position: None, now: 1_732_264_000_000_000, max_records: 10_000 };
    let mut reports = Vec::new();
    while reports.len() < count {
        let production = producer.produce(poll.clone()).await.expect("it produces");
        for (emission, offset) in production.emissions.into_iter().zip(reports.len() as u64..) {
            reports.push(Message {
                partition: 0,
                offset,
                timestamp: poll.now,
                attempt: 1,
                key: emission.key,
                headers: emission.headers,
                payload: emission.payload,
            });
        }
        poll.position = Some(production.position);
        poll.now += 1_000_000;
    }
    reports.truncate(count);
    reports
}

async fn answers(plugin: &Plugin, language: &str, reports: &[Message]) -> Vec<Outcome> {
    // Wide enough that many reports lead to something.
    let config = json!({ "approach_nm": 200, "rapid_descent_fpm": 1_000 });
    let mut instance = plugin
        .instantiate(language, &config, &Limits::default())
        .await
        .unwrap_or_else(|error| panic!("{language}: {error}"));
    let mut outcomes = Vec::new();
    for batch in reports.chunks(BATCH) {
        let outcome = instance.process(batch.to_vec()).await;
        outcomes.push(outcome.unwrap_or_else(|error| panic!("{language}: {error}")));
    }
    outcomes
}

/// Prints size, compile time, memory and speed with the demo's own configuration, under the limits of a usual stage.
/// Times are of the processor, summed over all cores, so that other work on the machine does not count.
async fn measure(language: &str, name: &str, reports: &[Message]) -> Vec<Outcome> {
    let fresh = PluginEngine::new(EngineOptions::default()).expect("the plugin engine starts");
    let bytes = component(name);
    let size = bytes.len();
    let began = processor_time();
    let plugin = fresh.load(bytes, PluginKind::Transform).await.expect("it loads");
    let compiled = processor_time() - began;
    let mut instance = plugin.instantiate(language, &json!({}), &Limits::default()).await.expect("it starts");
    let started = instance.memory_used();
    let mut took = Duration::ZERO;
    let mut outcomes = Vec::new();
    for batch in reports.chunks(BATCH) {
        let batch = batch.to_vec();
        let began = processor_time();
        let outcome = instance.process(batch).await;
        took += processor_time() - began;
        outcomes.push(outcome.unwrap_or_else(|error| panic!("{language}: {error}")));
    }
    eprintln!(
        "| {language} | {} kB | {:.1} s | {:.0} records/s | {:.1} MiB, {:.1} at the start |",
        size / 1_000,
        compiled.as_secs_f64(),
        reports.len() as f64 / took.as_secs_f64(),
        instance.memory_used() as f64 / f64::from(1 << 20),
        started as f64 / f64::from(1 << 20),
    );
    outcomes
}

/// Of this process, in all of its threads.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
