//! `tidemill plugin` as a newcomer uses it: from nothing to a component that was tried, in each language.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::{Host, client, eventually, root, scratch, stderr, stdout, tidemill};

/// Compiled code and Cargo's output, kept from one run of the tests to the next.
fn kept(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn plugin(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = tidemill();
    command.arg("plugin").args(arguments).current_dir(folder).stdin(Stdio::null());
    command.env("XDG_CACHE_HOME", kept("cache")).env("CARGO_TARGET_DIR", kept("plugin-projects"));
    command
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    plugin(folder, arguments).output().expect("the tidemill binary runs")
}

/// Runs a verb that must go well, and gives what it prints.
fn good(folder: &Path, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    assert!(output.status.success(), "{arguments:?}: {}{}", stdout(&output), stderr(&output));
    stdout(&output)
}

fn built(name: &str) -> String {
    root().join("plugins/dist").join(format!("{name}.wasm")).display().to_string()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(json).collect()
}

/// The README's way, to the letter: new, build, inspect, test, check.
fn from_nothing(language: &str) {
    let folder = scratch();
    let made = good(folder.path(), &["new", "low-flyers", "--lang", language]);
    assert!(made.contains("tidemill plugin build"), "{made}");
    let project = folder.path().join("low-flyers");

    let report = good(&project, &["build"]);
    assert!(report.contains("built ./dist/low-flyers.wasm in "), "{report}");
    assert!(report.contains("low-flyers 0.1.0, a transform"), "{report}");
    assert!(report.contains("config   below_ft  number, required"), "{report}");

    let component = "dist/low-flyers.wasm";
    let report = json(&good(&project, &["inspect", component, "--json"]));
    assert_eq!((&report["kind"], &report["grants"]), (&"transform".into(), &Value::Array(Vec::new())));
    assert!(report["digest"].as_str().is_some_and(|digest| digest.starts_with("sha256:")), "{report}");

    let held = good(&project, &["test", component, "--vectors", "vectors.json"]);
    assert!(held.contains("1 files of vectors passed\n"), "{held}");

    std::fs::write(project.join("reports.ndjson"), "{\"altitude\": 975}\n{\"altitude\": 2000}\nnot JSON\n")
        .expect("records can be written");
    let config = "{\"below_ft\": 1000}";
    let told = good(&project, &["test", component, "--config", config, "--records", "reports.ndjson"]);
    assert!(told.contains("[0] -> default: {\"altitude\": 975}\n"), "{told}");
    assert!(told.contains("[2] refused: "), "{told}");
    assert!(told.contains("3 records in 1 call: 1 emissions (1 default), 1 refused\n"), "{told}");

    let mut check = tidemill();
    check.args(["check", "pipeline.toml", "--plugins", "dist"]).current_dir(&project);
    let checked = check.output().expect("the tidemill binary runs");
    assert!(checked.status.success(), "{}{}", stdout(&checked), stderr(&checked));
}

#[test]
fn a_newcomer_gets_from_nothing_to_a_tested_component_in_rust() {
    from_nothing("rust");
}

/// Where `make plugins` puts the tools of the other languages.
fn guest_tools(language: &str, part: &str) -> Option<PathBuf> {
    let tools = root().join(".setup/guests");
    if tools.join(part).exists() {
        return Some(tools);
    }
    eprintln!("the tools of {language} are not installed (make plugins), so its project is not built");
    None
}

/// The other languages, where their tools are: a project finds shared tools by a variable.
fn from_nothing_with_tools(language: &str, part: &str) {
    if let Some(tools) = guest_tools(language, part) {
        let folder = scratch();
        good(folder.path(), &["new", "low-flyers", "--lang", language]);
        let project = folder.path().join("low-flyers");
        let output = plugin(&project, &["build", "--json"])
            .env("TIDEMILL_TOOLS", tools)
            .output()
            .expect("the tidemill binary runs");
        assert!(output.status.success(), "{language}: {}{}", stdout(&output), stderr(&output));
        let report = json(&stdout(&output));
        assert_eq!(report["language"], language);
        assert_eq!(report["component"]["name"], "low-flyers");
        let held = good(&project, &["test", "dist/low-flyers.wasm", "--vectors", "vectors.json"]);
        assert!(held.contains("1 files of vectors passed\n"), "{language}: {held}");
    }
}

#[test]
fn a_newcomer_gets_there_in_typescript() {
    from_nothing_with_tools("typescript", "node_modules/componentize-qjs");
}

#[test]
fn a_newcomer_gets_there_in_python() {
    from_nothing_with_tools("python", "python");
}

#[test]
fn a_newcomer_gets_there_in_c() {
    from_nothing_with_tools("c", "c");
}

fn tree(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    fn walk(top: &Path, folder: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
        for entry in std::fs::read_dir(folder).expect("a project can be read") {
            let path = entry.expect("a folder entry can be read").path();
            if path.is_dir() {
                walk(top, &path, found);
            } else {
                let name = path.strip_prefix(top).expect("a path below it").to_path_buf();
                found.insert(name, std::fs::read(&path).expect("a file can be read"));
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(folder, folder, &mut found);
    found
}

#[test]
fn the_script_that_builds_the_templates_makes_the_same_projects() {
    let folder = scratch();
    for language in ["rust", "typescript", "python", "c"] {
        let (ours, theirs) =
            (folder.path().join(language), folder.path().join(format!("{language}-by-script")));
        good(folder.path(), &["new", "my-plugin", "--lang", language, "--dir", language]);
        let script = root().join("plugins/templates/new.sh");
        let made = Command::new(script).args([language, "my-plugin"]).arg(&theirs).status();
        assert!(made.expect("the script runs").success());
        let (ours, theirs) = (tree(&ours), tree(&theirs));
        assert_eq!(Vec::from_iter(ours.keys()), Vec::from_iter(theirs.keys()), "{language}");
        for (path, contents) in &ours {
            assert!(theirs[path] == *contents, "{language}: {} differs", path.display());
        }
    }
}

#[test]
fn a_project_is_not_made_over_another_one() {
    let folder = scratch();
    std::fs::create_dir(folder.path().join("mine")).expect("a folder can be made");
    let output = run(folder.path(), &["new", "mine", "--lang", "c"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("mine is there already"), "{}", stderr(&output));
    let output = run(folder.path(), &["build", "mine"]);
    assert!(stderr(&output).contains("tidemill plugin new"), "{}", stderr(&output));
    let output = run(folder.path(), &["new", "Mine", "--lang", "c"]);
    assert!(stderr(&output).contains("such as low-flyers"), "{}", stderr(&output));
}

#[test]
fn inspect_says_which_grants_a_component_needs_and_how_to_write_them() {
    let told = good(&root(), &["inspect", &built("window-counts")]);
    assert!(told.contains("grants   state\n"), "{told}");
    assert!(told.contains("    grants = [\"state\"]\n"), "{told}");
    assert!(told.contains("    to = { default = \"TOPIC\", late = \"TOPIC\" }\n"), "{told}");
    let table = good(&root(), &["inspect", &built("latest-position")]);
    assert!(table.contains("a materializer") && table.contains("current_positions"), "{table}");

    let folder = scratch();
    std::fs::write(folder.path().join("note.wasm"), "hello").expect("a file can be written");
    let output = run(folder.path(), &["inspect", "note.wasm"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("this is a text file, not a WebAssembly component"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_grant_that_is_missing_is_named_with_its_flag() {
    let folder = scratch();
    std::fs::write(folder.path().join("in"), "{\"kind\":\"a\"}\n").expect("records can be written");
    let component = built("window-counts");
    let arguments =
        ["test", &component, "--records", "in", "--config", "{\"field\":\"kind\",\"window_s\":1}"];
    let output = run(folder.path(), &arguments);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("imports state; add --grant state"), "{}", stderr(&output));
    good(folder.path(), &[arguments.as_slice(), &["--grant", "state"]].concat());
}

#[test]
fn a_trap_is_told_with_the_message_at_fault() {
    let folder = scratch();
    std::fs::write(folder.path().join("in"), "one\na trap\nthree\n").expect("records can be written");
    let component = built("test-misbehave");
    let output = run(
        folder.path(),
        &["test", &component, "--records", "in", "--config", "{\"fault\":\"trap\"}", "--json"],
    );
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let told = lines(&stdout(&output));
    let failed: Vec<&Value> = told.iter().filter_map(|line| line.get("failed")).collect();
    assert_eq!(failed.len(), 1, "{told:?}");
    assert_eq!(failed[0]["input"], 1);
    let summary = &told.last().expect("a summary")["summary"];
    assert_eq!(
        (&summary["records"], &summary["emissions"]["default"], &summary["failed"]),
        (&3.into(), &2.into(), &1.into())
    );
    assert!(summary["memory"].as_u64().is_some_and(|memory| memory > 0), "{summary}");
}

#[test]
fn a_materializer_shows_the_rows_that_are_left() {
    let folder = scratch();
    let reports = good(
        &root(),
        &[
            "test",
            &built("aircraft-generator"),
            "--at",
            "2026-01-01T00:00:00Z",
            "--polls",
            "3",
            "--batch",
            "10",
            "--config",
            "{\"aircraft\":5,\"rate\":5}",
            "--json",
        ],
    );
    let payloads: Vec<String> = lines(&reports)
        .iter()
        .filter_map(|line| line["emission"]["text"].as_str().map(|text| format!("{text}\n")))
        .collect();
    assert!(payloads.len() >= 10, "{reports}");
    std::fs::write(folder.path().join("in"), payloads.concat()).expect("records can be written");
    let told = good(folder.path(), &["test", &built("latest-position"), "--records", "in", "--json"]);
    let rows = lines(&told).into_iter().filter(|line| line.get("row").is_some()).count();
    assert_eq!(rows, 5, "{told}");
}

#[test]
fn two_versions_are_compared_on_the_same_records() {
    let folder = scratch();
    std::fs::write(folder.path().join("in"), "one\nbad\nthree\n").expect("records can be written");
    let (a, b) = (built("test-misbehave"), built("test-identity"));
    let config = ["--config", "{\"fault\":\"none\"}"];
    let same =
        good(folder.path(), &[["test", &a, "--records", "in", "--against", &a].as_slice(), &config].concat());
    assert!(same.contains("3 records: the answers are the same\n"), "{same}");

    // Both take an empty config; the identity passes what the watch refuses.
    let watch = built("flight-watch");
    let output = run(folder.path(), &["test", &watch, "--records", "in", "--against", &b]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let told = stdout(&output);
    assert!(told.contains("[0] kind\n  - refused: "), "{told}");
    assert!(told.contains("  + -> default: one\n"), "{told}");
    assert!(told.contains("3 records: the answers to 3 differ\n"), "{told}");

    let output = run(folder.path(), &["diff", &watch, &b]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("- ports.alerts"), "{}", stdout(&output));
    assert_eq!(good(folder.path(), &["diff", &b, &b]), "the same component\n");
}

/// What the plugin drew and what time it saw came into the output topic; here it draws and sees the same.
#[tokio::test]
async fn stored_records_run_again_as_they_ran_in_the_host() {
    let folder = scratch();
    let file = folder.path().join("reach.toml");
    let pipeline = "[pipeline]\nname = \"reach\"\n\n[topics.asked]\npartitions = 1\n\n[topics.told]\npartitions = 1\n\n\
                    [transforms.try]\nplugin = \"test-reach\"\nfrom = \"asked\"\nto = \"told\"\n\
                    grants = [\"clock\", \"http\", \"metrics\", \"random\", \"state\"]\n\
                    http = { allow = [\"http://127.0.0.1:1\"] }\nbatch = { records = 1 }\n";
    std::fs::write(&file, pipeline).expect("a pipeline file can be written");
    let host = Host::start(&folder.path().join("data"), &[&file.display().to_string()]);
    let sent = client()
        .post(format!("{}/v1/topics/asked/records", host.url))
        .header("content-type", "application/x-ndjson")
        .body("{\"try\":\"random\"}\n{\"try\":\"clock\"}\n{\"try\":\"random\"}\n")
        .send()
        .await
        .expect("an answer");
    assert!(sent.status().is_success(), "{}", sent.status());
    let told = || stdout(&host.cli(&["consume", "told", "--from", "earliest", "--format", "raw"]));
    eventually("the stage answers", Duration::from_secs(30), || async { told().lines().count() == 3 }).await;

    let component = built("test-reach");
    let arguments = |group: &'static str| {
        let mut arguments = vec!["run", "--topic", "asked", "--partition", "0", "--from", "0", "--max", "3"];
        arguments
            .extend(["--plugin", &component, "--group", group, "--batch", "1", "--json", "--url", &host.url]);
        for grant in ["clock", "http", "metrics", "random", "state"] {
            arguments.extend(["--grant", grant]);
        }
        arguments
    };
    let again = lines(&good(folder.path(), &arguments("try")));
    let texts: Vec<&str> = again.iter().filter_map(|line| line["emission"]["text"].as_str()).collect();
    assert_eq!(texts, Vec::from_iter(told().lines().map(str::to_string)));
    assert_eq!(again[1]["emission"]["input"], 1, "named by its offset");
    let other = lines(&good(folder.path(), &arguments("other")));
    assert_ne!(again[0], other[0], "another group draws other numbers");

    let output = run(
        folder.path(),
        &[
            "run",
            "--topic",
            "asked",
            "--partition",
            "0",
            "--from",
            "3",
            "--plugin",
            &built("test-identity"),
            "--url",
            &host.url,
        ],
    );
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("there is nothing yet at offset 3 of asked"), "{}", stderr(&output));
}
