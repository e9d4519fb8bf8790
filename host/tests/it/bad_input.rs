//! Bad input gets a clear message and exit code, and what runs goes on.

use std::process::Output;
use std::time::Duration;

use crate::support::{Host, client, root, run, scratch, stderr, stdout};

fn up(folder: &std::path::Path, arguments: &[&str]) -> Output {
    let data = folder.join("data");
    let plugins = root().join("plugins/dist");
    let mut all = vec!["up"];
    all.extend_from_slice(arguments);
    let (data, plugins) = (data.display().to_string(), plugins.display().to_string());
    all.extend_from_slice(&["--data-dir", &data, "--listen", "127.0.0.1:0", "--plugins", &plugins]);
    run(&all)
}

/// A pipeline of one transform with this plugin file and these further lines.
fn pipeline(folder: &std::path::Path, plugin: &str, more: &str) -> String {
    let file = folder.join("one.toml");
    let text = format!(
        "[pipeline]\nname = \"one\"\n\n[topics.a]\npartitions = 1\n\n[topics.b]\npartitions = 1\n\n\
         [transforms.t]\nplugin = \"{plugin}\"\nfrom = \"a\"\nto = \"b\"\n{more}\n"
    );
    std::fs::write(&file, text).expect("a pipeline file can be written");
    file.display().to_string()
}

#[track_caller]
fn refused(output: &Output, code: i32, says: &[&str]) {
    let said = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    for words in says {
        assert!(said.contains(words), "{words:?} is not in:\n{said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn a_core_module_is_no_component() {
    let folder = scratch();
    std::fs::write(folder.path().join("core.wasm"), wat::parse_str("(module)").expect("wat"))
        .expect("written");
    let file = pipeline(folder.path(), "./core.wasm", "");
    refused(&up(folder.path(), &[&file]), 2, &["one/t", "core", "component", "wasm32-wasip2"]);
}

#[test]
fn a_component_of_the_wrong_world_is_refused() {
    let folder = scratch();
    let file = pipeline(folder.path(), "latest-position", "");
    refused(&up(folder.path(), &[&file]), 2, &["one/t", "transform", "materializer"]);
}

#[test]
fn a_missing_plugin_says_where_it_was_looked_for() {
    let folder = scratch();
    let file = pipeline(folder.path(), "flight-wotch", "");
    refused(&up(folder.path(), &[&file]), 2, &["flight-wotch", "flight-watch"]);
}

#[test]
fn a_broken_pipeline_file_is_pointed_at() {
    let folder = scratch();
    let file = pipeline(folder.path(), "test-identity", "on_eror = \"skip\"");
    refused(&up(folder.path(), &[&file]), 2, &["one.toml", "on_eror", "on_error"]);
}

#[test]
fn a_topic_name_with_quotes_is_refused_everywhere() {
    let folder = scratch();
    let file = folder.path().join("quotes.toml");
    std::fs::write(&file, "[pipeline]\nname = \"q\"\n\n[topics.'a\"; drop table x']\n").expect("written");
    let file = file.display().to_string();
    refused(&up(folder.path(), &[&file]), 2, &["quotes.toml", "topic name"]);
    let host = Host::start(&folder.path().join("data2"), &[]);
    refused(&host.cli(&["topic", "create", "a\"; drop table x"]), 2, &["topic name"]);
}

#[test]
fn an_unreachable_postgres_is_named_without_its_password() {
    let folder = scratch();
    let output = up(folder.path(), &["--database-url", "postgres://me:hunter2@127.0.0.1:1/db"]);
    refused(&output, 1, &["127.0.0.1:1", "--database-url"]);
    assert!(!stderr(&output).contains("hunter2"));
}

#[test]
fn a_port_already_taken_is_named() {
    let folder = scratch();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("its address").to_string();
    let data = folder.path().join("data").display().to_string();
    let output = run(&["up", "--data-dir", &data, "--listen", &address]);
    refused(&output, 1, &[&address, "--listen"]);
}

#[test]
fn a_listener_for_everybody_needs_a_token() {
    let folder = scratch();
    let data = folder.path().join("data").display().to_string();
    refused(&run(&["up", "--data-dir", &data, "--listen", "0.0.0.0:0"]), 1, &["token"]);
}

#[test]
fn a_second_host_on_the_same_data_directory_is_refused() {
    let folder = scratch();
    let _first = Host::start(&folder.path().join("data"), &[]);
    refused(&up(folder.path(), &[]), 1, &["another", "data"]);
}

/// Everything that can go wrong while pipelines run, on one host: they go on.
#[tokio::test]
async fn running_pipelines_survive_bad_plugins_and_bad_requests() {
    let folder = scratch();
    let sick = |name: &str, config: &str, limits: &str| {
        format!(
            "[transforms.{name}]\nplugin = \"test-misbehave\"\nfrom = \"a\"\nto = \"b\"\nmax_attempts = 1\n\
             batch = {{ records = 1 }}\nconfig = {config}\nlimits = {limits}\n\n"
        )
    };
    let text = format!(
        "[pipeline]\nname = \"sick\"\n\n[topics.a]\npartitions = 1\n\n[topics.b]\npartitions = 1\n\n\
         [topics.c]\npartitions = 1\n\n[transforms.good]\nplugin = \"test-identity\"\nfrom = \"a\"\nto = \"c\"\n\n{}{}{}",
        sick("spinner", "{ fault = \"spin\", when = \"process\" }", "{ deadline = \"300ms\" }"),
        sick("hog", "{ fault = \"hog\", when = \"process\", bytes = 1073741824 }", "{ memory = \"16MiB\" }"),
        sick("trapper", "{ fault = \"trap\" }", "{ memory = \"16MiB\" }"),
    );
    let file = folder.path().join("sick.toml");
    std::fs::write(&file, text).expect("written");
    let host = Host::start(&folder.path().join("data"), &[&file.display().to_string()]);

    let body = vec![b'x'; 100 << 20];
    let answer = client()
        .post(format!("{}/v1/topics/a/records", host.url))
        .header("content-type", "text/plain")
        .body(body)
        .send()
        .await;
    // The server may close before it has read it all; when it answers, it says 413.
    if let Ok(answer) = answer {
        assert_eq!(answer.status(), 413);
    }
    let post = |body: &'static str| {
        client()
            .post(format!("{}/v1/topics/a/records", host.url))
            .header("content-type", "text/plain")
            .body(body)
            .send()
    };
    assert!(post("one\ntwo\ntrap three\n").await.expect("an answer").status().is_success());
    let pool = host.pool().await;
    crate::support::eventually(
        "the good stage goes on and each bad one gives up",
        Duration::from_secs(60),
        || async {
            let copied: i64 =
                sqlx::query_scalar("SELECT count(*) FROM topics.c").fetch_one(&pool).await.unwrap_or(0);
            let lag: i64 = sqlx::query_scalar("SELECT sum(lag)::bigint FROM tidemill.lag")
                .fetch_one(&pool)
                .await
                .unwrap_or(-1);
            copied == 3 && lag == 0
        },
    )
    .await;
    let kinds: Vec<(String, String)> =
        sqlx::query_as("SELECT DISTINCT stage, kind FROM tidemill.dead_letters ORDER BY 1, 2")
            .fetch_all(&pool)
            .await
            .expect("dead letters can be read");
    let kinds: Vec<(&str, &str)> =
        kinds.iter().map(|(stage, kind)| (stage.as_str(), kind.as_str())).collect();
    assert_eq!(kinds, [("hog", "memory"), ("spinner", "deadline"), ("trapper", "trap")]);
    let copied = host.cli(&["consume", "c", "--from", "earliest", "--format", "raw"]);
    assert_eq!(stdout(&copied), "one\ntwo\ntrap three\n");
}
